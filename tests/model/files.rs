//! The source files under test.

#[path = "../../src/session/backends/jwks.rs"]
pub mod jwks;
#[path = "../../src/session/backends/lookup.rs"]
pub mod lookup;
#[path = "../../src/settings/reload.rs"]
pub mod reload;
