//! Finds the session of a request: the chain tries the extractors in order, and the subject rule identifies the user of
//! the session that an extractor finds.

pub mod backends;
pub mod builder;
pub mod chain;
#[cfg(any(test, feature = "testing"))]
pub mod contract;
pub mod credential_source;
pub mod detect;
pub mod explain;
pub mod extractors;
pub mod formats;
pub mod kind;
pub mod reason;
pub mod registry;
pub mod sections;
pub mod subject;
pub mod types;

pub use kind::Kind;
pub use registry::Registry;
pub use types::{
    CredentialSource, ExtractError, Extracted, Reach, Readiness, Session, SessionExtractor,
};
