//! The files under test, beside the neighbours that they name with `super::`.

pub use rollout_token::session::backends::{health, http, keys, waiting};

#[path = "../../src/extractors/shared/jwks.rs"]
pub mod jwks;
#[path = "../../src/extractors/shared/lookup.rs"]
pub mod lookup;
#[path = "../../src/reload.rs"]
pub mod reload;
#[path = "../../src/telemetry/writer.rs"]
pub mod writer;
