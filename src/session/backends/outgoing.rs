//! The settings of outgoing calls: the proxy and the trusted certificates. The section `[outgoing]` sets them, and an
//! extractor's section may set the same keys for its own calls.

use std::error::Error;
use std::sync::Arc;
use std::{fmt, io};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
};
use rustls_platform_verifier::Verifier;
use serde::{Deserialize, Serialize};
use tokio::task::spawn_blocking;
use url::Url;

use crate::config::{List, Problems, PublicText};
use crate::secret::Secret;

/// Hosts that are always called without the proxy, because a proxy would call its own machine instead.
const LOOPBACK: &str = "localhost,127.0.0.0/8,::1";

/// `[outgoing]`
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OutgoingConfig {
    /// A secret, because the URL may contain a password.
    pub proxy: Option<Secret>,
    pub no_proxy: Option<List<String>>,
    pub ca: Option<PublicText>,
}

/// The validated settings. Equal settings permit the same connections, so they can share an HTTP client.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Outgoing {
    proxy: Option<Secret>,
    no_proxy: Vec<String>,
    /// Certificates that are trusted in addition to the system's.
    certificates: Vec<CertificateDer<'static>>,
    /// The same certificates in PEM, for libraries that accept no other format.
    pem: Vec<u8>,
    /// The content of `SSL_CERT_FILE`.
    system: Option<Vec<u8>>,
}

impl Outgoing {
    /// Settings for calls without a proxy. `system` is the content of `SSL_CERT_FILE`, which replaces the system's own
    /// certificates.
    pub fn of_system(system: Option<Vec<u8>>) -> Self {
        Self {
            system,
            ..Self::default()
        }
    }

    /// Returns these settings with those of `config` applied: `proxy` replaces the current proxy (an empty string turns
    /// it off) and clears the `no_proxy` list, `no_proxy` replaces this list, and certificates are added. `key` returns
    /// the full name of a key.
    #[must_use]
    pub fn with(
        &self,
        config: &OutgoingConfig,
        key: impl Fn(&str) -> String,
        problems: &mut Problems,
    ) -> Self {
        let mut outgoing = self.clone();
        if let Some(proxy) = &config.proxy {
            outgoing.proxy = Some(proxy.clone()).filter(|proxy| !proxy.expose().is_empty());
            outgoing.no_proxy = Vec::new();
            problems.accept(key("proxy"), check_proxy(outgoing.proxy.as_ref()));
        }
        if let Some(hosts) = &config.no_proxy {
            let hosts = hosts.iter().map(|host| host_pattern(host)).collect();
            outgoing.no_proxy = problems.accept(key("no_proxy"), hosts).unwrap_or_default();
        }
        if let Some(ca) = &config.ca {
            let read = problems.accept(key("ca"), read_certificates(ca.bytes()));
            outgoing.certificates.extend(read.unwrap_or_default());
            outgoing.pem.extend_from_slice(ca.bytes());
            outgoing.pem.push(b'\n');
        }
        outgoing
    }

    /// The proxy and the hosts that are called without it, in the type that the HTTP client accepts. `None` if there is
    /// no proxy.
    pub fn proxy(&self) -> Option<reqwest::Result<reqwest::Proxy>> {
        let url = String::from_utf8_lossy(self.proxy.as_ref()?.expose()).into_owned();
        let direct = format!("{LOOPBACK},{}", self.no_proxy.join(","));
        let direct = reqwest::NoProxy::from_string(&direct);
        Some(reqwest::Proxy::all(url).map(|proxy| proxy.no_proxy(direct)))
    }

    /// The TLS client configuration that trusts these certificates and the system's, which are loaded here.
    pub async fn load_tls(&self) -> io::Result<ClientConfig> {
        let certificates = self.certificates.clone();
        spawn_blocking(move || tls_that_trusts(&certificates))
            .await?
            .map_err(io::Error::other)
    }

    /// The certificates of the configuration and of `SSL_CERT_FILE` in PEM, for a library that otherwise trusts only
    /// its own root certificates.
    pub fn pem(&self) -> Option<Vec<u8>> {
        let mut pem = self.pem.clone();
        pem.extend(self.system.iter().flatten());
        Some(pem).filter(|pem| !pem.is_empty())
    }
}

impl fmt::Debug for Outgoing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outgoing")
            .field("proxy", &self.proxy.is_some())
            .field("certificates", &self.certificates.len())
            .finish_non_exhaustive()
    }
}

/// The TLS configuration for [`Outgoing::load_tls`]. Blocks while it reads and parses the system's certificates.
fn tls_that_trusts(
    certificates: &[CertificateDer<'static>],
) -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = PinningVerifier::new(certificates, provider.clone())?;
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    Ok(config)
}

fn check_proxy(proxy: Option<&Secret>) -> Result<(), &'static str> {
    const HELP: &str = "must be the URL of a proxy, such as http://proxy.internal:3128";
    let Some(proxy) = proxy else { return Ok(()) };
    let text = std::str::from_utf8(proxy.expose()).map_err(|_| HELP)?;
    let url = Url::parse(text).map_err(|_| HELP)?;
    match url.scheme() {
        "http" if url.path() != "/" || url.query().is_some() || url.fragment().is_some() => {
            Err("must end after the port: the URL of a proxy has no path")
        }
        "http" => Ok(()),
        "https" | "socks4" | "socks5" | "socks5h" => Err(
            "must begin with http://: only HTTP proxies are supported, through which TLS is tunnelled with CONNECT",
        ),
        _ => Err(HELP),
    }
}

/// One item of `no_proxy`, in the form that the HTTP client accepts.
fn host_pattern(text: &str) -> Result<String, &'static str> {
    const HELP: &str = "must list host names, domains such as .internal, addresses, networks such as 10.0.0.0/8, or *, \
                        and no item may have a scheme or a port";
    let is_network = |text: &str| {
        text.parse::<ipnet::IpNet>().is_ok() || text.parse::<std::net::IpAddr>().is_ok()
    };
    let text = text.trim();
    if text == "*" || is_network(text) {
        return Ok(text.to_owned());
    }
    let address = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'));
    if let Some(address) = address.filter(|address| is_network(address)) {
        return Ok(address.to_owned());
    }
    let name = text.strip_prefix('*').unwrap_or(text);
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    if name.is_empty()
        || !name.bytes().all(is_plain)
        || name.len() < text.len() && !name.starts_with('.')
    {
        return Err(HELP);
    }
    Ok(name.to_owned())
}

/// Parses certificates in PEM. They are parsed at start, because some libraries parse them only when they connect.
///
/// # Errors
/// If `pem` contains no certificate, or an invalid one.
pub fn read_certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, &'static str> {
    let mut authorities = RootCertStore::empty();
    let mut certificates = Vec::new();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|_| "contains broken PEM: copy the file again")?;
        authorities
            .add(certificate.clone())
            .map_err(|_| "contains a certificate that cannot be parsed: copy the file again")?;
        certificates.push(certificate);
    }
    if certificates.is_empty() {
        Err("contains no PEM certificate")
    } else {
        Ok(certificates)
    }
}

/// The system's verifier, which also trusts the configured certificates. A configured certificate that is self-signed
/// is trusted as a server certificate during its validity period, whatever its name and key usage, because the operator
/// configured exactly this certificate. Without this exception, rustls would refuse the CA certificate that plain
/// `openssl req -x509` creates.
#[derive(Debug)]
struct PinningVerifier {
    system: Verifier,
    pinned: Vec<CertificateDer<'static>>,
}

impl PinningVerifier {
    fn new(
        certificates: &[CertificateDer<'static>],
        provider: Arc<CryptoProvider>,
    ) -> Result<Self, rustls::Error> {
        let system = Verifier::new_with_extra_roots(certificates.iter().cloned(), provider)?;
        let pinned = certificates.iter().filter(|given| is_self_signed(given));
        Ok(Self {
            system,
            pinned: pinned.cloned().collect(),
        })
    }
}

/// Advice about a server's certificate, if the certificate is the reason why a call failed.
pub fn certificate_advice(error: &(dyn Error + 'static)) -> Option<&'static str> {
    use CertificateError::{
        Expired, ExpiredContext, NotValidForName, NotValidForNameContext, UnknownIssuer,
    };
    let mut cause = Some(error);
    while let Some(error) = cause {
        let found = error.downcast_ref::<rustls::Error>();
        if let Some(rustls::Error::InvalidCertificate(why)) = found {
            return match why {
                UnknownIssuer => Some(
                    "no trusted CA issued the server's certificate: set ca_file to the certificate of the CA that \
                     issued it, or to the server's own certificate if that is self-signed",
                ),
                CertificateError::Other(_) => Some(
                    "the server's certificate is not valid for servers, for example because plain `openssl req -x509` \
                     created it as a CA certificate: set ca_file to exactly this certificate, or, for PostgreSQL and \
                     MySQL, create it with basicConstraints=critical,CA:FALSE and the host name",
                ),
                NotValidForName | NotValidForNameContext { .. } => Some(
                    "the server's certificate does not cover the host name in the url: fix the url or the certificate",
                ),
                Expired | ExpiredContext { .. } => {
                    Some("the server's certificate has expired: renew it")
                }
                _ => None,
            };
        }
        // The `source()` of an `io::Error` skips the error that it wraps.
        let wrapper = error.downcast_ref::<io::Error>();
        cause = match wrapper.and_then(io::Error::get_ref) {
            Some(inside) => Some(inside),
            None => error.source(),
        };
    }
    None
}

/// The error's message, with advice if a certificate is the cause.
pub fn with_advice(error: &(dyn Error + 'static)) -> String {
    match certificate_advice(error) {
        Some(advice) => format!("{error}: {advice}"),
        None => error.to_string(),
    }
}

/// Whether the certificate's issuer and subject are the same. Its signature need not be checked, because the TLS
/// handshake proves that the server has the private key.
fn is_self_signed(certificate: &CertificateDer<'_>) -> bool {
    webpki::EndEntityCert::try_from(certificate)
        .is_ok_and(|certificate| certificate.issuer() == certificate.subject())
}

impl ServerCertVerifier for PinningVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        use CertificateError::{Expired, ExpiredContext, NotValidYet, NotValidYetContext};
        use rustls::Error::InvalidCertificate;
        let verified = self.system.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        );
        match verified {
            Err(InvalidCertificate(
                Expired | ExpiredContext { .. } | NotValidYet | NotValidYetContext { .. },
            ))
            | Ok(_) => verified,
            Err(_) if self.pinned.iter().any(|pinned| pinned == end_entity) => {
                Ok(ServerCertVerified::assertion())
            }
            Err(_) => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.system
            .verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.system
            .verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.system.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
                "two, with text between",
                format!("{good}# another\n{good}"),
                true,
            ),
            ("CRLF line ends", good.replace('\n', "\r\n"), true),
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
                "the second certificate is cut off",
                format!("{good}{}", &good[..good.len() / 2]),
                false,
            ),
        ] {
            assert_eq!(read_certificates(pem.as_bytes()).is_ok(), want, "{case}");
        }
    }

    #[test]
    fn proxy_must_be_an_http_url_without_a_path() {
        for (text, good) in [
            ("http://proxy.internal:3128", true),
            ("http://user:p%40ss@10.0.0.1:3128/", true),
            ("http://[::1]:3128", true),
            ("", true),
            ("proxy.internal:3128", false),
            ("https://proxy.internal:3128", false),
            ("socks5://proxy.internal:1080", false),
            ("http://proxy.internal:3128/path", false),
            ("http://proxy.internal:3128/?x=hunter2", false),
            ("http://", false),
        ] {
            let config = OutgoingConfig {
                proxy: Some(Secret::new(text)),
                ..OutgoingConfig::default()
            };
            let mut problems = Problems::default();
            let outgoing =
                Outgoing::default().with(&config, |key| format!("outgoing.{key}"), &mut problems);
            assert_eq!(problems.is_empty(), good, "{text}: {problems}");
            assert!(!problems.to_string().contains("hunter2"), "{problems}");
            if good {
                assert_eq!(outgoing.proxy().is_some(), !text.is_empty(), "{text}");
                assert!(outgoing.proxy().is_none_or(|proxy| proxy.is_ok()), "{text}");
            }
        }
    }

    #[test]
    fn no_proxy_accepts_names_domains_addresses_and_networks() {
        for (text, want) in [
            ("app.internal", Some("app.internal")),
            (".internal", Some(".internal")),
            ("*.internal", Some(".internal")),
            ("*", Some("*")),
            ("10.0.0.0/8", Some("10.0.0.0/8")),
            ("10.1.2.3", Some("10.1.2.3")),
            ("[fd00::1]", Some("fd00::1")),
            ("fd00::/8", Some("fd00::/8")),
            ("app.internal:8080", None),
            ("http://app.internal", None),
            ("*internal", None),
            ("10.0.0.0/33", None),
            ("", None),
        ] {
            assert_eq!(host_pattern(text).ok().as_deref(), want, "{text}");
        }
    }

    fn certificate(change: impl FnOnce(&mut rcgen::CertificateParams)) -> rcgen::Certificate {
        let mut parameters = rcgen::CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
        change(&mut parameters);
        parameters
            .self_signed(&rcgen::KeyPair::generate().unwrap())
            .unwrap()
    }

    /// Whether a verifier that was given the certificate `given` trusts a server at `name` that presents `shown`.
    fn is_trusted(given: &CertificateDer<'static>, shown: &CertificateDer<'_>, name: &str) -> bool {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier = PinningVerifier::new(std::slice::from_ref(given), provider).unwrap();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        verifier
            .verify_server_cert(shown, &[], &name, &[], UnixTime::now())
            .is_ok()
    }

    #[test]
    fn configured_self_signed_certificate_is_trusted_for_any_name_even_if_it_is_a_ca() {
        let plain = certificate(|_| {});
        let authority = certificate(|parameters| {
            parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        });
        let unnamed = certificate(|parameters| parameters.subject_alt_names.clear());
        for given in [&plain, &authority, &unnamed] {
            for name in ["a.example", "b.example", "10.0.0.1"] {
                assert!(is_trusted(given.der(), given.der(), name), "{name}");
            }
            let other = certificate(|_| {});
            assert!(!is_trusted(given.der(), other.der(), "a.example"));
        }
    }

    #[test]
    fn expired_certificate_is_refused_even_if_it_is_configured() {
        let expired = certificate(|parameters| {
            parameters.not_before = rcgen::date_time_ymd(2001, 1, 1);
            parameters.not_after = rcgen::date_time_ymd(2002, 1, 1);
        });
        assert!(!is_trusted(expired.der(), expired.der(), "a.example"));
    }

    #[test]
    fn certificate_from_a_configured_ca_is_trusted_for_its_own_name_only() {
        let mut parameters = rcgen::CertificateParams::default();
        parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate().unwrap();
        let root = parameters.self_signed(&key).unwrap();
        let mut leaf = rcgen::CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
        leaf.distinguished_name
            .push(rcgen::DnType::CommonName, "a server");
        let issuer = rcgen::Issuer::new(parameters, key);
        let leaf = leaf
            .signed_by(&rcgen::KeyPair::generate().unwrap(), &issuer)
            .unwrap();
        assert!(is_trusted(root.der(), leaf.der(), "a.example"));
        assert!(!is_trusted(root.der(), leaf.der(), "b.example"));
        assert!(!is_trusted(leaf.der(), leaf.der(), "b.example"));
    }
}
