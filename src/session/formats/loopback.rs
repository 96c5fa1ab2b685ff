//! Recognises hosts that denote this machine.

use std::net::IpAddr;

/// Whether `host`, taken from a URL or from the `Host` header without its port, is this machine: `localhost` or a name
/// below it (RFC 6761, section 6.3), or a loopback address.
pub fn is_loopback(host: &str) -> bool {
    let address = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(host);
    if let Ok(address) = address.parse::<IpAddr>() {
        return address.to_canonical().is_loopback();
    }
    let name = host.trim_end_matches('.').to_ascii_lowercase();
    name == "localhost" || name.ends_with(".localhost")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_localhost_or_a_name_below_it_or_a_loopback_address() {
        for host in [
            "localhost",
            "LOCALHOST",
            "localhost.",
            "app.localhost",
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
            "evillocalhost",
            ".",
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
