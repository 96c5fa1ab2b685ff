//! `[server]`: addresses, limits and timeouts.

use std::net::SocketAddr;

use serde::{Deserialize, Deserializer, Serialize, de};

use super::require_positive;
use crate::config::{HumanDuration, Problems};

/// How connections and requests are served.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServerConfig {
    #[serde(skip)]
    pub restart: ServerRestartConfig,
    pub docs_alias: bool,
    pub body_timeout: HumanDuration,
    pub request_timeout: HumanDuration,
    pub max_uri_bytes: usize,
    pub max_body_bytes: u64,
    pub max_in_flight: usize,
    pub drain_delay: HumanDuration,
    pub drain_timeout: HumanDuration,
    pub hard_stop: HumanDuration,
}

/// The keys of `[server]` that are read at start only: changing one needs a restart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServerRestartConfig {
    #[serde(deserialize_with = "address")]
    pub listen: SocketAddr,
    #[serde(deserialize_with = "address")]
    pub admin_listen: SocketAddr,
    pub base_path: String,
    pub header_timeout: HumanDuration,
    pub idle_timeout: HumanDuration,
    pub max_header_bytes: usize,
    pub max_headers: usize,
    pub max_connections: usize,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            restart: ServerRestartConfig::default(),
            docs_alias: false,
            body_timeout: HumanDuration::secs(5),
            request_timeout: HumanDuration::secs(5),
            max_uri_bytes: 2 * 1024,
            max_body_bytes: 4 * 1024,
            max_in_flight: 512,
            drain_delay: HumanDuration::secs(5),
            drain_timeout: HumanDuration::secs(15),
            hard_stop: HumanDuration::secs(25),
        }
    }
}

impl Default for ServerRestartConfig {
    fn default() -> Self {
        Self {
            listen: ([0, 0, 0, 0], 8080).into(),
            admin_listen: ([127, 0, 0, 1], 8081).into(),
            base_path: String::new(),
            header_timeout: HumanDuration::secs(10),
            idle_timeout: HumanDuration::secs(75),
            max_header_bytes: 32 * 1024,
            max_headers: 100,
            max_connections: 1024,
        }
    }
}

fn address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map_err(|_| {
        de::Error::custom("must be an IP address with a port, such as 0.0.0.0:8080 or [::1]:8080")
    })
}

/// Whether every client and proxy writes the path in the same way: no empty segments, dot segments or escapes.
fn is_base_path(path: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    let is_segment =
        |segment: &str| segment.bytes().any(|byte| byte != b'.') && segment.bytes().all(is_plain);
    path.is_empty()
        || path
            .strip_prefix('/')
            .is_some_and(|segments| segments.split('/').all(is_segment))
}

impl ServerConfig {
    pub(super) fn check(&self, dev: bool, problems: &mut Problems) {
        let restart = &self.restart;
        for (key, value, most) in [
            ("server.max_header_bytes", restart.max_header_bytes, 65_536),
            ("server.max_headers", restart.max_headers, 200),
            ("server.max_uri_bytes", self.max_uri_bytes, 60_000),
            ("server.max_connections", restart.max_connections, 1_000_000),
            ("server.max_in_flight", self.max_in_flight, 1_000_000),
        ] {
            problems.require(value > 0, key, "must be at least 1");
            problems.require(value <= most, key, format!("must be at most {most}"));
        }
        for (key, duration) in [
            ("server.header_timeout", restart.header_timeout),
            ("server.idle_timeout", restart.idle_timeout),
            ("server.body_timeout", self.body_timeout),
            ("server.request_timeout", self.request_timeout),
            ("server.hard_stop", self.hard_stop),
        ] {
            require_positive(key, duration, problems);
        }
        problems.require(
            self.drain_delay.0 + self.drain_timeout.0 <= self.hard_stop.0,
            "server.hard_stop",
            "must be at least server.drain_delay and server.drain_timeout together",
        );
        problems.require(
            self.request_timeout <= self.drain_timeout,
            "server.drain_timeout",
            "must be at least server.request_timeout, so that requests under way can finish",
        );
        problems.require(
            restart.listen != restart.admin_listen || restart.listen.port() == 0,
            "server.admin_listen",
            "must be another address than server.listen",
        );
        problems.require(
            is_base_path(&restart.base_path),
            "server.base_path",
            "must be empty or a path such as \"/api\": it begins with a slash, does not end with one, and has letters, digits, \
             `-`, `_`, `.` and `~` between its slashes",
        );
        for (key, address) in [
            ("server.listen", restart.listen),
            ("server.admin_listen", restart.admin_listen),
        ] {
            problems.require(
                !dev || address.ip().is_loopback(),
                key,
                "must be a loopback address under `dev`, which gives a token to every caller: use 127.0.0.1",
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::is_base_path;

    #[test]
    fn base_path_is_empty_or_has_plain_segments() {
        for (path, want) in [
            ("", true),
            ("/api", true),
            ("/api/v1.2/~me_x-y", true),
            ("/", false),
            ("api", false),
            ("/api/", false),
            ("//api", false),
            ("/api//v1", false),
            ("/../api", false),
            ("/.", false),
            ("/a b", false),
            ("/a%20b", false),
            ("/{id}", false),
            ("/*rest", false),
            ("/a?b", false),
            ("https://a.example/api", false),
        ] {
            assert_eq!(is_base_path(path), want, "{path:?}");
        }
    }
}
