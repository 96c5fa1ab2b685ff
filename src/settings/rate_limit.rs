//! `[rate_limit]`: the limits on tokens per credential and per subject, which `http::rate_limit` enforces.

use serde::{Deserialize, Serialize};

use crate::config::Problems;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RateLimitConfig {
    /// 0 disables the limit.
    pub per_minute: u32,
    pub burst: u32,
}

impl Default for RateLimitConfig {
    fn default() -> Self {
        Self {
            per_minute: 60,
            burst: 20,
        }
    }
}

impl RateLimitConfig {
    pub(super) fn check(self, problems: &mut Problems) {
        problems.require(
            self.per_minute == 0 || self.burst > 0,
            "rate_limit.burst",
            "must be at least 1; to disable the limit, set rate_limit.per_minute = 0",
        );
    }
}
