//! `[token]`: the lifetime of tokens, and additional claims.

use serde::{Deserialize, Serialize};

use crate::config::{HumanDuration, Problems};
use crate::token::ClaimTemplates;

#[derive(Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct TokenConfig {
    pub(super) ttl: HumanDuration,
    pub(super) cap_to_session: bool,
    pub(super) claims: serde_json::Map<String, serde_json::Value>,
}

impl Default for TokenConfig {
    fn default() -> Self {
        Self {
            ttl: HumanDuration::secs(900),
            cap_to_session: false,
            claims: serde_json::Map::new(),
        }
    }
}

impl TokenConfig {
    /// Checks the lifetime, and parses the claim templates.
    pub(super) fn check(&self, problems: &mut Problems) -> Option<ClaimTemplates> {
        let ttl = self.ttl.0;
        problems.require(
            ttl.subsec_nanos() == 0 && (30..=900).contains(&ttl.as_secs()),
            "token.ttl",
            "must be a whole number of seconds from 30s to 15m: Rollout's tokens are valid for at most 15 minutes",
        );
        problems.accept("token.claims", ClaimTemplates::parse(self.claims.clone()))
    }
}
