//! `[session]`: which extractors there are, and in which order they are asked.

use serde::{Deserialize, Serialize};

use crate::config::List;

/// The builder of the chain checks the names, against the sections that there are.
#[derive(Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct SessionConfig {
    pub(super) extractors: List<String>,
}
