//! The sections as they are written, one struct each, with every default. Extractors bring their own.
//! `config/default.toml` says what each key means; a test holds the two together.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::config::{HumanDuration, List};
use crate::secret::Secret;

/// The keys that stand before the first section.
#[derive(Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(clippy::struct_field_names, reason = "these are the keys' names")]
pub struct Client {
    pub client_id: Option<String>,
    pub client_secret: Option<Secret>,
    pub client_secret_file: Option<PathBuf>,
}

#[derive(Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Server {
    pub listen: String,
    pub admin_listen: String,
    pub docs_alias: bool,
    pub header_timeout: HumanDuration,
    pub idle_timeout: HumanDuration,
    pub body_timeout: HumanDuration,
    pub request_timeout: HumanDuration,
    pub max_header_bytes: usize,
    pub max_headers: usize,
    pub max_uri_bytes: usize,
    pub max_body_bytes: u64,
    pub max_connections: usize,
    pub max_in_flight: usize,
    pub drain_delay: HumanDuration,
    pub drain_timeout: HumanDuration,
    pub hard_stop: HumanDuration,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            listen: "0.0.0.0:8080".to_owned(),
            admin_listen: "127.0.0.1:8081".to_owned(),
            docs_alias: false,
            header_timeout: HumanDuration::secs(10),
            idle_timeout: HumanDuration::secs(75),
            body_timeout: HumanDuration::secs(5),
            request_timeout: HumanDuration::secs(5),
            max_header_bytes: 32 * 1024,
            max_headers: 100,
            max_uri_bytes: 2 * 1024,
            max_body_bytes: 4 * 1024,
            max_connections: 1024,
            max_in_flight: 512,
            drain_delay: HumanDuration::secs(5),
            drain_timeout: HumanDuration::secs(15),
            hard_stop: HumanDuration::secs(25),
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Token {
    pub ttl: HumanDuration,
    pub cap_to_session: bool,
    pub claims: serde_json::Map<String, serde_json::Value>,
}

impl Default for Token {
    fn default() -> Self {
        Self {
            ttl: HumanDuration::secs(900),
            cap_to_session: false,
            claims: serde_json::Map::new(),
        }
    }
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Origins {
    pub allowed: List<String>,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Session {
    pub extractors: List<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RateLimit {
    pub per_minute: u32,
    pub burst: u32,
}

impl Default for RateLimit {
    fn default() -> Self {
        Self {
            per_minute: 60,
            burst: 20,
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    pub format: String,
    pub level: String,
    pub subject: String,
}

impl Default for Log {
    fn default() -> Self {
        Self {
            format: "json".to_owned(),
            level: "info".to_owned(),
            subject: "hash".to_owned(),
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Reload {
    pub poll_interval: HumanDuration,
}

impl Default for Reload {
    fn default() -> Self {
        Self {
            poll_interval: HumanDuration::secs(10),
        }
    }
}
