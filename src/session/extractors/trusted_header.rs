//! `trusted_header`: a reverse proxy has signed the user in and passes the user's name in a header. The header is
//! trusted only if it comes from that proxy, which is identified by its address, by a shared secret, or by both.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use axum::extract::ConnectInfo;
use axum::http::HeaderName;
use axum::http::request::Parts;
use futures_util::future::BoxFuture;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::config::{List, Problems, Section};
use crate::headers::single;
use crate::secret::Secret;
use crate::session::backends::Context;
use crate::session::formats::headers;
use crate::session::kind::{BuildResult, Kind};
use crate::session::reason::Reason;
use crate::session::types::{
    CredentialSource, ExtractError, Extracted, Reach, Session, SessionExtractor,
};

/// The header that each proxy sets, according to the proxy's documentation.
const PRESETS: &[(&str, &str)] = &[
    // oauth2-proxy sets this header unless the option `pass_user_headers` is off.
    ("oauth2-proxy", r#"header = "X-Forwarded-User""#),
    // Authelia sets this header for "Trusted Header SSO".
    ("authelia", r#"header = "Remote-User""#),
    // authentik's proxy provider sets this header. The uid is stable; the user name is not.
    ("authentik", r#"header = "X-authentik-uid""#),
    // Pomerium sets this header if configured with `jwt_claims_headers: { X-Pomerium-Claim-Sub: sub }`.
    ("pomerium", r#"header = "X-Pomerium-Claim-Sub""#),
    // Tailscale Serve sets this header.
    ("tailscale", r#"header = "Tailscale-User-Login""#),
];

pub const KIND: Kind = Kind::new(build).with_presets(PRESETS);

/// `[extractors.NAME]` with `kind = "trusted_header"`
#[derive(Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct TrustedHeaderConfig {
    header: Option<String>,
    trusted_proxies: List<String>,
    shared_secret_header: Option<String>,
    shared_secret: Option<Secret>,
}

#[derive(Debug)]
struct TrustedHeader {
    header: HeaderName,
    /// Networks whose peers are accepted. If empty, only the shared secret identifies the proxy.
    trusted_proxies: Vec<IpNet>,
    shared_secret: Option<(HeaderName, Secret)>,
}

fn build(section: &Section<'_>, _: &Context) -> BuildResult {
    let mut problems = Problems::default();
    let config: TrustedHeaderConfig = section.read(&mut problems);

    let header = header_name(section, "header", config.header.as_deref(), &mut problems);
    problems.require(
        config.header.is_some(),
        section.key("header"),
        "is missing: name the header in which the proxy sends the user, or choose a preset",
    );
    let trusted_proxies: Vec<IpNet> = config
        .trusted_proxies
        .iter()
        .zip(1..)
        .filter_map(|(text, number)| {
            let net = text
                .parse()
                .or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
            let wrong = format!("entry {number} is not an address or network such as 10.0.0.0/8");
            problems.accept(
                section.key("trusted_proxies"),
                net.map(canonical).map_err(|_| wrong),
            )
        })
        .collect();
    problems.require(
        IpNet::aggregate(&trusted_proxies)
            .iter()
            .all(|net| net.prefix_len() > 0),
        section.key("trusted_proxies"),
        "the entries together cover all IPv4 or all IPv6 addresses: list only the proxy's addresses or networks",
    );
    let (key, text) = ("shared_secret_header", config.shared_secret_header);
    let secret_header = header_name(section, key, text.as_deref(), &mut problems);
    let secret = section.secret("shared_secret", config.shared_secret, &mut problems);
    if let Some(weakness) = secret.as_ref().and_then(Secret::weakness) {
        let text = format!("{weakness}: generate a secret with `openssl rand -hex 32`");
        problems.add(section.key("shared_secret"), text);
    }
    problems.require(
        secret.is_some() || secret_header.is_none(),
        section.key("shared_secret"),
        "is missing, but shared_secret_header is set: set both or neither",
    );
    problems.require(
        secret_header.is_some() || secret.is_none(),
        section.key("shared_secret_header"),
        "is missing, but shared_secret is set: set both or neither",
    );
    let shared_secret = secret_header.zip(secret);
    problems.require(
        !config.trusted_proxies.is_empty() || shared_secret.is_some() || !problems.is_empty(),
        section.key("trusted_proxies"),
        "is empty, so any client could name any user: set it to the proxy's address or network, or set \
         shared_secret_header and shared_secret",
    );
    match header {
        Some(header) => problems.or(Arc::new(TrustedHeader {
            header,
            trusted_proxies,
            shared_secret,
        })),
        None => Err(problems),
    }
}

/// Converts the network to the form in which peers are compared: IPv4-mapped IPv6 addresses become IPv4 addresses.
fn canonical(net: IpNet) -> IpNet {
    const MAPPED: u8 = 96;
    let prefix = net.prefix_len().checked_sub(MAPPED);
    match (net.network().to_canonical(), prefix) {
        (address @ IpAddr::V4(_), Some(prefix)) if net.addr().is_ipv6() => {
            IpNet::new(address, prefix).unwrap_or(net)
        }
        _ => net,
    }
}

fn header_name(
    section: &Section<'_>,
    key: &str,
    text: Option<&str>,
    problems: &mut Problems,
) -> Option<HeaderName> {
    problems.parse(section.key(key), text?, "the name of a header")
}

impl TrustedHeader {
    fn session(&self, request: &Parts) -> Extracted {
        let ambiguous = || ExtractError::rejected(Reason::AmbiguousIdentity);
        if headers::has_twin(&request.headers, &self.header) {
            return Err(ambiguous());
        }
        let user = headers::single(&request.headers, &self.header);
        let Some(user) = user.map_err(|_| ambiguous())? else {
            return Ok(None);
        };
        self.check_proxy(request)?;
        if user.is_empty() || user.contains(',') {
            return Err(ambiguous());
        }
        Ok(Some(Session::of_subject(user)))
    }

    /// Checks that the proxy sent the header: the peer of the connection must be in `trusted_proxies`, and the shared
    /// secret must be right, if these are configured. The address is not read from headers such as `X-Forwarded-For`,
    /// because any client can set them. The header is refused if `Connection` lists it or the header of the shared
    /// secret.
    fn check_proxy(&self, request: &Parts) -> Result<(), ExtractError> {
        if headers::is_hop_by_hop(&request.headers, &self.header) {
            return Err(ExtractError::rejected(Reason::HopByHop));
        }
        if !self.trusted_proxies.is_empty() {
            let peer = request.extensions.get::<ConnectInfo<SocketAddr>>();
            let peer = peer.map(|ConnectInfo(address)| address.ip().to_canonical());
            let mut trusted = self.trusted_proxies.iter();
            if !peer.is_some_and(|peer| trusted.any(|net| net.contains(&peer))) {
                let shown = peer.map_or("unknown".to_owned(), |peer| peer.to_string());
                return Err(ExtractError::rejected(Reason::UntrustedPeer)
                    .because(format!("the peer is {shown}")));
            }
        }
        let Some((name, secret)) = &self.shared_secret else {
            return Ok(());
        };
        // Compare bytes, because a secret need not be UTF-8.
        let is_genuine = matches!(
            single(&request.headers, name),
            Ok(Some(value)) if verify_slices_are_equal(value.as_bytes(), secret.expose()).is_ok()
        );
        if !is_genuine || headers::is_hop_by_hop(&request.headers, name) {
            return Err(ExtractError::rejected(Reason::SharedSecret));
        }
        Ok(())
    }
}

impl SessionExtractor for TrustedHeader {
    fn extract<'a>(&'a self, request: &'a Parts) -> BoxFuture<'a, Extracted> {
        Box::pin(async move { self.session(request) })
    }

    fn reach(&self) -> Reach {
        Reach {
            by_proxy: true,
            ..Reach::everything([CredentialSource::Header(self.header.clone())])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::contract;
    use crate::session::sections::testing::{self, build, refused};

    const SECRET: &str = "a-secret-shared-with-the-proxy";

    fn extractor(keys: &str) -> Arc<dyn SessionExtractor> {
        build("trusted_header", keys).expect("a good section")
    }

    fn answer(keys: &str, headers: &[(&str, &str)]) -> Result<Option<String>, &'static str> {
        testing::answer(&*extractor(keys), headers)
    }

    const BY_ADDRESS: &str = r#"
        header = "X-Forwarded-User"
        trusted_proxies = ["127.0.0.0/8"]
    "#;

    #[tokio::test]
    async fn extractor_passes_the_contract_checks() {
        let by_secret = format!(
            "preset = \"oauth2-proxy\"\nshared_secret_header = \"X-Proxy\"\nshared_secret = \"{SECRET}\""
        );
        contract::check(&*extractor(&by_secret), &[SECRET]).await;
    }

    #[test]
    fn user_is_read_from_exactly_one_header_of_a_trusted_peer() {
        let user = |name: &str| Ok(Some(format!(r#"{{"sub":"{name}"}}"#)));
        for (case, headers, want) in [
            ("plain", &[("x-forwarded-user", "bob")][..], user("bob")),
            (
                "spaces around",
                &[("x-forwarded-user", " bob\t")],
                user("bob"),
            ),
            ("absent", &[("x-other", "bob")], Ok(None)),
            (
                "underscore twin",
                &[("x-forwarded-user", "bob"), ("x_forwarded_user", "admin")],
                Err("ambiguous_identity"),
            ),
            (
                "twin alone",
                &[("x_forwarded_user", "admin")],
                Err("ambiguous_identity"),
            ),
            (
                "dotted twin",
                &[("x-forwarded-user", "bob"), ("x.forwarded.user", "admin")],
                Err("ambiguous_identity"),
            ),
            (
                "twice",
                &[("x-forwarded-user", "bob"), ("x-forwarded-user", "bob")],
                Err("ambiguous_identity"),
            ),
            (
                "list",
                &[("x-forwarded-user", "bob, admin")],
                Err("ambiguous_identity"),
            ),
            (
                "trailing comma",
                &[("x-forwarded-user", "bob,")],
                Err("ambiguous_identity"),
            ),
            (
                "empty",
                &[("x-forwarded-user", "")],
                Err("ambiguous_identity"),
            ),
            (
                "hop by hop",
                &[
                    ("x-forwarded-user", "bob"),
                    ("connection", "close, X-Forwarded-User"),
                ],
                Err("hop_by_hop"),
            ),
        ] {
            assert_eq!(answer(BY_ADDRESS, headers), want, "{case}");
        }
    }

    #[test]
    fn ipv4_peer_in_an_ipv4_mapped_network_is_trusted() {
        for (network, trusted) in [
            ("::ffff:127.0.0.0/104", true),
            ("::ffff:10.0.0.0/104", false),
        ] {
            let keys = format!("header = \"X-User\"\ntrusted_proxies = [\"{network}\"]");
            assert_eq!(
                answer(&keys, &[("x-user", "bob")]).is_ok(),
                trusted,
                "{network}"
            );
        }
    }

    #[test]
    fn forwarded_address_headers_do_not_make_a_peer_trusted() {
        let elsewhere =
            "header = \"X-Forwarded-User\"\ntrusted_proxies = [\"10.0.0.0/8\", \"192.0.2.7\"]";
        for claim in ["x-forwarded-for", "forwarded", "x-real-ip", "x-client-ip"] {
            let headers = [("x-forwarded-user", "bob"), (claim, "10.0.0.1")];
            assert_eq!(
                answer(elsewhere, &headers),
                Err("untrusted_peer"),
                "{claim}"
            );
        }
    }

    #[test]
    fn wrong_shared_secret_is_refused() {
        let keys = format!(
            "header = \"X-User\"\nshared_secret_header = \"X-Proxy-Secret\"\nshared_secret = \"{SECRET}\""
        );
        let with = |secret: &str| answer(&keys, &[("x-user", "bob"), ("x-proxy-secret", secret)]);
        assert!(with(SECRET).is_ok());
        for wrong in [
            "",
            "a",
            &SECRET[..SECRET.len() - 1],
            &format!("{SECRET}x"),
            &SECRET.to_uppercase(),
        ] {
            assert_eq!(with(wrong), Err("shared_secret"));
        }
        assert_eq!(answer(&keys, &[("x-user", "bob")]), Err("shared_secret"));
        let hop = [
            ("x-user", "bob"),
            ("x-proxy-secret", SECRET),
            ("connection", "x-proxy-secret"),
        ];
        assert_eq!(answer(&keys, &hop), Err("shared_secret"));
        let twice = [
            ("x-user", "bob"),
            ("x-proxy-secret", SECRET),
            ("x-proxy-secret", SECRET),
        ];
        assert_eq!(answer(&keys, &twice), Err("shared_secret"));
    }

    #[test]
    fn invalid_section_is_refused_and_the_problem_names_the_key() {
        let cases = [
            ("no gate", "header = \"X-User\"", "trusted_proxies"),
            ("no header", "trusted_proxies = [\"10.0.0.1\"]", "header"),
            (
                "all of IPv4",
                "header = \"X-User\"\ntrusted_proxies = [\"0.0.0.0/0\"]",
                "trusted_proxies",
            ),
            (
                "all of IPv6",
                "header = \"X-User\"\ntrusted_proxies = [\"::/0\"]",
                "trusted_proxies",
            ),
            (
                "all addresses in halves",
                "header = \"X-User\"\ntrusted_proxies = [\"0.0.0.0/1\", \"128.0.0.0/1\"]",
                "trusted_proxies",
            ),
            (
                "all addresses in parts",
                "header = \"X-User\"\ntrusted_proxies = [\"::/2\", \"4000::/2\", \"8000::/1\", \"10.0.0.1\"]",
                "trusted_proxies",
            ),
            (
                "all mapped addresses",
                "header = \"X-User\"\ntrusted_proxies = [\"::ffff:0.0.0.0/96\"]",
                "trusted_proxies",
            ),
            (
                "all addresses, half of them mapped",
                "header = \"X-User\"\ntrusted_proxies = [\"::ffff:0.0.0.0/97\", \"128.0.0.0/1\"]",
                "trusted_proxies",
            ),
            (
                "not a network",
                "header = \"X-User\"\ntrusted_proxies = [\"proxy\"]",
                "trusted_proxies",
            ),
            (
                "secret without its header",
                "header = \"X-User\"\nshared_secret = \"0123456789abcdef\"",
                "shared_secret_header",
            ),
            (
                "weak secret",
                "header = \"X-User\"\nshared_secret_header = \"X-S\"\nshared_secret = \"changeme\"",
                "shared_secret",
            ),
        ];
        refused("trusted_header", &cases);
    }
}
