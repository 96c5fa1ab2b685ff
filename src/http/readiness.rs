//! The report of `/readyz`: whether this instance should receive requests. `routes/health.rs` creates the report, and
//! `error.rs` maps it to a response if the instance is not ready.

use std::sync::Arc;

use serde::Serialize;

/// Whether this instance should receive requests and, if not, why.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub state: InstanceState,
    pub extractors: Vec<ExtractorReport>,
    /// A fingerprint of the client secret, which is equal on instances with the same secret. It is exposed only on the
    /// admin listener, because it can be used to check guesses of a weak secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_fingerprint: Option<String>,
    /// Whether the instance runs in dev mode, in which callers may choose their user, so that it must not be reachable
    /// from outside.
    pub dev: bool,
}

/// The state of an instance. If several variants apply, the first in this order is reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum InstanceState {
    /// The instance is shutting down.
    Draining,
    /// The machine's clock is before 2020.
    ClockNotSet,
    /// An extractor has not fetched the data that it needs.
    Waiting,
    Ready,
}

impl Report {
    /// A report without extractors.
    pub fn of(state: InstanceState) -> Self {
        Self {
            state,
            extractors: Vec::new(),
            secret_fingerprint: None,
            dev: false,
        }
    }
}

#[derive(Clone, Debug, Serialize)]
pub struct ExtractorReport {
    pub name: Arc<str>,
    pub kind: &'static str,
    pub state: &'static str,
    /// The data that the extractor waits for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub missing: Option<&'static str>,
}
