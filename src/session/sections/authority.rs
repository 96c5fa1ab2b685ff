//! TLS to a session store: the key `ca_file` for a private certificate authority, and a warning if the URL does not
//! require TLS.

use std::net::IpAddr;

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::config::{Problems, PublicText, Section};

/// The certificates in PEM under `ca`, if they are given.
pub fn read(
    section: &Section<'_>,
    ca: Option<&PublicText>,
    problems: &mut Problems,
) -> Option<Vec<u8>> {
    let pem = ca?.bytes();
    problems
        .accept(section.key("ca"), check(pem))
        .map(|()| pem.to_vec())
}

/// Parses the certificates at start, because some store libraries parse them only when they connect.
fn check(pem: &[u8]) -> Result<(), &'static str> {
    let mut authorities = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|_| "contains broken PEM: copy the file again")?;
        authorities
            .add(certificate)
            .map_err(|_| "contains a certificate that cannot be parsed: copy the file again")?;
    }
    if authorities.is_empty() {
        Err("contains no PEM certificate")
    } else {
        Ok(())
    }
}

/// Warns that the connection to `host` is not encrypted unless `host` is this machine. It carries the app's sessions
/// and often a password. `fix` says how to require TLS in the URL.
pub fn warn_without_tls(section: &Section<'_>, host: &str, fix: &str) {
    if !is_loopback(host) {
        section.warn(
            "url",
            format!("does not require TLS to another host, so sessions and the password can be read on the network: {fix}"),
        );
    }
}

/// Whether `host`, from a URL or from `Host` without its port, is this machine.
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

    #[test]
    fn only_complete_pem_certificates_are_accepted() {
        let key = rcgen::KeyPair::generate().unwrap();
        let good = rcgen::CertificateParams::default()
            .self_signed(&key)
            .unwrap()
            .pem();
        let line = good.lines().nth(1).unwrap();
        for (case, pem, want) in [
            ("one", good.clone(), true),
            (
                "two, with words between",
                format!("{good}# another\n{good}"),
                true,
            ),
            ("line ends of Windows", good.replace('\n', "\r\n"), true),
            ("nothing", String::new(), false),
            ("a key", key.serialize_pem(), false),
            ("cut off", good[..good.len() / 2].to_owned(), false),
            (
                "no end",
                good.replace("-----END CERTIFICATE-----", ""),
                false,
            ),
            (
                "no base64",
                good.replace(line, &line.replace(&line[..4], "!!!!")),
                false,
            ),
            ("a line lost", good.replace(line, ""), false),
            (
                "the second is cut off",
                format!("{good}{}", &good[..good.len() / 2]),
                false,
            ),
        ] {
            assert_eq!(check(pem.as_bytes()).is_ok(), want, "{case}");
        }
    }
}
