//! `[log]`: the format and level of log lines, and the form of subjects in them.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use tracing::Level;

use crate::telemetry::logs::LogFormat;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogConfig {
    pub format: LogFormat,
    #[serde(serialize_with = "show_level", deserialize_with = "level")]
    pub level: Level,
    pub subject: LogSubject,
}

/// How the log shows the subject of a token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogSubject {
    /// The log contains a keyed hash of the subject.
    #[default]
    Hash,
    Plain,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            format: LogFormat::Json,
            level: Level::INFO,
            subject: LogSubject::default(),
        }
    }
}

fn level<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Level, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse()
        .map_err(|_| de::Error::custom("must be one of error, warn, info, debug, trace"))
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
fn show_level<S: Serializer>(level: &Level, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&level.as_str().to_ascii_lowercase())
}
