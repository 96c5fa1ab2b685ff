//! `[session]`: the extractors, in the order in which they are asked.

use serde::{Deserialize, Serialize};

use crate::config::List;

/// The builder of the chain compares the names with the sections.
#[derive(Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct SessionConfig {
    pub(super) extractors: List<String>,
}
