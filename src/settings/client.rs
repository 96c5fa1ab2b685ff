//! The top-level keys: `client_id`, `client_secret` and `client_secret_file`.

use serde::{Deserialize, Serialize};

use crate::config::{Problems, Warnings};
use crate::secret::{Secret, damage};
use crate::token::RolloutClient;

/// The minimum length of a key for HS512, which is the length of the hash (RFC 7518, section 3.2).
const RECOMMENDED_SECRET_BYTES: usize = 64;

#[derive(Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct ClientConfig {
    client_id: Option<String>,
    client_secret: Option<Secret>,
}

impl ClientConfig {
    /// The client id, and the secret as it was given, even if it is damaged.
    pub(super) fn read_as_given(self, problems: &mut Problems) -> Option<RolloutClient> {
        let id = self.client_id.unwrap_or_default();
        check_id(&id, problems);
        let Some(secret) = self.client_secret else {
            problems.require(
                problems.are_about("client_secret"),
                "client_secret",
                "is missing: set ROLLOUT_CLIENT_SECRET, or ROLLOUT_CLIENT_SECRET_FILE to the name of a file with the secret",
            );
            return None;
        };
        if let Some(weakness) = secret.weakness() {
            problems.add(
                "client_secret",
                format!("{weakness}: copy the client secret from your Rollout dashboard"),
            );
        }
        Some(RolloutClient { id, secret })
    }

    pub(super) fn check(
        self,
        problems: &mut Problems,
        warnings: &mut Warnings,
    ) -> Option<RolloutClient> {
        let client = self.read_as_given(problems)?;
        let secret = &client.secret;
        // An empty secret or a placeholder is already reported as weak.
        let names = [
            "ROLLOUT_CLIENT_SECRET",
            "ROLLOUT__CLIENT_SECRET",
            "client_secret",
        ];
        if let Some(damage) = damage(secret.expose(), &names)
            && secret.placeholder().is_none()
        {
            problems.add(
                "client_secret",
                format!(
                    "{damage}: set only the client secret, exactly as in your Rollout dashboard"
                ),
            );
        }
        if secret.expose().len() < RECOMMENDED_SECRET_BYTES {
            warnings.add(
                "client_secret",
                "is shorter than the 64 bytes that RFC 7518, section 3.2 requires for HS512; Rollout chooses the secret, \
                 so you need not change it",
            );
        }
        Some(client)
    }
}

fn check_id(id: &str, problems: &mut Problems) {
    let names = ["ROLLOUT_CLIENT_ID", "ROLLOUT__CLIENT_ID", "client_id"];
    if id.trim().is_empty() {
        problems.add(
            "client_id",
            "is missing or empty: set ROLLOUT_CLIENT_ID to the client id from your Rollout dashboard",
        );
    } else if let Some(damage) = damage(id.as_bytes(), &names) {
        problems.add(
            "client_id",
            format!("{damage}: set only the client id, exactly as in your Rollout dashboard"),
        );
    } else if let Some(unfilled) = Secret::new(id).unfilled() {
        problems.add(
            "client_id",
            format!("{unfilled}: copy the client id from your Rollout dashboard"),
        );
    }
}
