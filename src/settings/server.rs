//! `[server]`: addresses, limits and timeouts.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::require_positive;
use crate::config::{HumanDuration, PORT, Problems};

/// The settings for serving connections and requests.
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

/// The keys of `[server]` that are read at start only: a change takes effect after a restart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServerRestartConfig {
    /// `[::]` means all IPv4 and IPv6 addresses.
    #[serde(deserialize_with = "address_or_port")]
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
            listen: (Ipv6Addr::UNSPECIFIED, 8080).into(),
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
        de::Error::custom("must be an IP address with a port, such as 127.0.0.1:8081 or [::1]:8081")
    })
}

/// Whether all clients and proxies write the path in the same way: it has no empty segments, dot segments or escapes.
fn is_base_path(path: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    let is_segment =
        |segment: &str| segment.bytes().any(|byte| byte != b'.') && segment.bytes().all(is_plain);
    path.is_empty()
        || path
            .strip_prefix('/')
            .is_some_and(|segments| segments.split('/').all(is_segment))
}

fn address_or_port<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
    deserializer.deserialize_any(AddressOrPort)
}

/// An address with a port, or only a port, which means this port on all addresses.
struct AddressOrPort;

impl AddressOrPort {
    const EXPECTED: &'static str = "must be a port, such as 8080, or an IP address with a port, such as 127.0.0.1:8080 or [::1]:8080";
}

impl Visitor<'_> for AddressOrPort {
    type Value = SocketAddr;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a port, or an IP address with a port in quotes")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<SocketAddr, E> {
        let port = text.strip_prefix(':').unwrap_or(text);
        // The check for a digit refuses a sign, which `parse` would accept.
        if port.starts_with(|c: char| c.is_ascii_digit())
            && let Ok(port) = port.parse::<u16>()
        {
            return Ok((Ipv6Addr::UNSPECIFIED, port).into());
        }
        text.parse().map_err(|_| E::custom(Self::EXPECTED))
    }

    fn visit_u64<E: de::Error>(self, port: u64) -> Result<SocketAddr, E> {
        let port = u16::try_from(port).map_err(|_| E::custom(Self::EXPECTED))?;
        Ok((Ipv6Addr::UNSPECIFIED, port).into())
    }

    fn visit_i64<E: de::Error>(self, port: i64) -> Result<SocketAddr, E> {
        self.visit_u64(u64::try_from(port).map_err(|_| E::custom(Self::EXPECTED))?)
    }
}

/// Whether sockets on both addresses would conflict. `[::]` means all IPv4 and IPv6 addresses.
fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let covers = |all: IpAddr, ip: IpAddr| {
        all == ip || all.is_unspecified() && (all.is_ipv6() || ip.is_ipv4())
    };
    one.port() == other.port()
        && one.port() != 0
        && (covers(one.ip(), other.ip()) || covers(other.ip(), one.ip()))
}

impl ServerConfig {
    /// Reports values that are out of range or contradict each other. `port_from` names the source of the port of
    /// `listen`.
    pub(super) fn check(&self, port_from: &str, dev: bool, problems: &mut Problems) {
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
            "must be at least the sum of server.drain_delay and server.drain_timeout",
        );
        problems.require(
            self.request_timeout <= self.drain_timeout,
            "server.drain_timeout",
            "must be at least server.request_timeout, so that requests in flight can finish",
        );
        let is_conflict = overlap(restart.listen, restart.admin_listen);
        if is_conflict && port_from == PORT {
            let port = restart.listen.port();
            problems.add(
                PORT,
                format!(
                    "is {port}, the port of server.admin_listen: set ROLLOUT__SERVER__ADMIN_LISTEN to another address, such as \
                     127.0.0.1:8091"
                ),
            );
        } else if is_conflict {
            problems.add("server.admin_listen", "must differ from server.listen");
        }
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
                "must be a loopback address under `dev`, which issues a token to every caller: use 127.0.0.1",
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn addresses_overlap_if_one_is_unspecified_and_covers_the_other() {
        let overlap = |one: &str, other: &str| {
            let parse = |text: &str| text.parse().expect("an address");
            let found = overlap(parse(one), parse(other));
            assert_eq!(
                found,
                super::overlap(parse(other), parse(one)),
                "{one} {other}"
            );
            found
        };
        for (one, other, want) in [
            ("[::]:81", "127.0.0.1:81", true),
            ("[::]:81", "0.0.0.0:81", true),
            ("[::]:81", "[::1]:81", true),
            ("0.0.0.0:81", "127.0.0.1:81", true),
            ("0.0.0.0:81", "[::1]:81", false),
            ("10.0.0.1:81", "127.0.0.1:81", false),
            ("[::]:81", "127.0.0.1:80", false),
            ("[::]:0", "127.0.0.1:0", false),
        ] {
            assert_eq!(overlap(one, other), want, "{one} {other}");
        }
    }
}
