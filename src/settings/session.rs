//! `[session]`: the extractors, in the order in which they are tried.

use serde::{Deserialize, Serialize};

use crate::config::List;

/// The chain's builder checks the names in `extractors` against the sections.
#[derive(Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct SessionConfig {
    pub(super) extractors: List<String>,
}
