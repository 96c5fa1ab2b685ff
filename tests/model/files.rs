//! The files under test, beside the neighbours that they name with `super::`.

pub use rollout_token::session::backends::{health, http, keys, waiting};

#[path = "../../src/session/backends/jwks.rs"]
pub mod jwks;
#[path = "../../src/session/backends/lookup.rs"]
pub mod lookup;
#[path = "../../src/settings/reload.rs"]
pub mod reload;
