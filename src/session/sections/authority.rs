//! TLS for a session store: the key `ca_file` for a private certificate authority, and a warning if the URL does not
//! require TLS.

use std::net::IpAddr;

use crate::config::{Problems, PublicText, Section};
use crate::session::backends::Context;
use crate::session::backends::outgoing::{Outgoing, OutgoingConfig};

/// The CA certificates that a store's connections trust: those for all outgoing calls, and those of the section.
pub fn trust(
    section: &Section<'_>,
    context: &Context,
    ca: Option<&PublicText>,
    problems: &mut Problems,
) -> Outgoing {
    let config = OutgoingConfig {
        ca: ca.cloned(),
        ..OutgoingConfig::default()
    };
    let outgoing = context.http.outgoing();
    outgoing.with(&config, |key| section.key(key), problems)
}

/// Warns that the connection to `host` is not encrypted, unless `host` is this machine. The connection carries the
/// app's sessions and often a password. `fix` describes how to require TLS in the URL.
pub fn warn_without_tls(section: &Section<'_>, host: &str, fix: &str) {
    if !is_loopback(host) {
        section.warn(
            "url",
            format!("does not require TLS for connections to another host, so sessions and the password can be read on the network: {fix}"),
        );
    }
}

/// Whether `host`, taken from a URL or from the `Host` header without its port, is this machine.
pub fn is_loopback(host: &str) -> bool {
    let address = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(host);
    match address.parse::<IpAddr>() {
        Ok(address) => address.to_canonical().is_loopback(),
        Err(_) => host.eq_ignore_ascii_case("localhost"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_localhost_or_a_loopback_address() {
        for host in [
            "localhost",
            "LOCALHOST",
            "127.0.0.1",
            "127.3.2.1",
            "::1",
            "[::1]",
            "::ffff:127.0.0.1",
        ] {
            assert!(is_loopback(host), "{host}");
        }
        for host in [
            "redis",
            "localhost.example.com",
            "10.0.0.1",
            "0.0.0.0",
            "::",
            "128.0.0.1",
            "",
            "127.0.0.1.nip.io",
        ] {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
