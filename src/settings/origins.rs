//! `[origins]`: the origins, besides the service's own, whose pages may request tokens. `http::origin` decides what a
//! request from such a page may do.

use axum::http::{HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};
use url::Url;

use crate::config::{List, Problems, Warnings};
use crate::session::chain::Chain;
use crate::session::formats::loopback;

#[derive(Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct OriginsConfig {
    allowed: List<String>,
    allowed_headers: List<String>,
}

/// The origins, besides the service's own, whose pages may request tokens.
#[derive(Debug)]
pub struct Origins {
    pub allowed: Vec<Origin>,
    pub patterns: Vec<OriginPattern>,
    /// Whether every loopback origin may request tokens as well, which is true under `dev`.
    pub loopback: bool,
    /// The value of `Access-Control-Allow-Headers`: the request headers that pages of other origins may send.
    pub request_headers: HeaderValue,
}

impl Origins {
    /// Allows only the service's own pages.
    pub const fn none() -> Self {
        Self {
            allowed: Vec::new(),
            patterns: Vec::new(),
            loopback: false,
            request_headers: HeaderValue::from_static(""),
        }
    }
}

/// The request headers that a page of another origin may send whatever the configuration: those that apps and their
/// tracing libraries add to all requests.
const REQUEST_HEADERS: [&str; 9] = [
    "Authorization",
    "Content-Type",
    "X-Request-Id",
    "X-CSRF-Token",
    "X-Requested-With",
    "traceparent",
    "tracestate",
    "baggage",
    "sentry-trace",
];

impl OriginsConfig {
    pub(super) fn check(
        &self,
        chain: &Chain,
        dev: bool,
        problems: &mut Problems,
        warnings: &mut Warnings,
    ) -> Option<Origins> {
        let request_headers = self.request_headers(chain, dev, problems);
        let (mut allowed, mut patterns) = (Vec::new(), Vec::new());
        for (text, number) in self.allowed.iter().zip(1..) {
            let entry = |error: String| format!("entry {number}: {error}");
            if text.contains('*') {
                let pattern = OriginPattern::parse(text).map_err(entry);
                patterns.extend(problems.accept("origins.allowed", pattern));
                continue;
            }
            let origin = Origin::parse(text).map_err(entry);
            let Some(origin) = problems.accept("origins.allowed", origin) else {
                continue;
            };
            if !dev && is_loopback(origin.as_str()) {
                warnings.add(
                    "origins.allowed",
                    format!(
                        "entry {number}: {} is the origin of any program that serves pages on the user's machine: list it \
                         only for development, or for an app whose web view has this origin",
                        origin.as_str()
                    ),
                );
            }
            allowed.push(origin);
        }
        Some(Origins {
            allowed,
            patterns,
            loopback: dev,
            request_headers: request_headers?,
        })
    }

    /// The request headers that pages of other origins may send: the fixed names, those in `allowed_headers`, the
    /// headers in which clients send credentials to the configured extractors and, under `dev`, `X-Dev-User`. Headers
    /// that a proxy sets are not included.
    fn request_headers(
        &self,
        chain: &Chain,
        dev: bool,
        problems: &mut Problems,
    ) -> Option<HeaderValue> {
        let mut names: Vec<String> = REQUEST_HEADERS.map(str::to_owned).into();
        let mut add = |name: String| {
            if !names.iter().any(|known| known.eq_ignore_ascii_case(&name)) {
                names.push(name);
            }
        };
        for (name, number) in self.allowed_headers.iter().zip(1..) {
            let parsed = HeaderName::try_from(name).map_err(|_| {
                format!(
                    "entry {number} is not the name of a header, such as X-Tenant: list each name, because browsers do \
                     not accept `*` with credentials"
                )
            });
            // `HeaderName` accepts `*` as a name.
            let parsed = parsed.and_then(|name| match name.as_str() {
                "*" => Err(format!(
                    "entry {number}: browsers do not accept `*` with credentials: list each name"
                )),
                _ => Ok(()),
            });
            if problems.accept("origins.allowed_headers", parsed).is_some() {
                add(name.clone());
            }
        }
        chain
            .session_headers()
            .iter()
            .for_each(|name| add(capitalized(name)));
        if dev {
            add("X-Dev-User".to_owned());
        }
        problems.accept(
            "origins.allowed_headers",
            HeaderValue::try_from(names.join(", ")),
        )
    }
}

/// Capitalizes each word of a header name, as in `X-Request-Id`.
fn capitalized(name: &str) -> String {
    let words = name.split('-').map(|word| {
        let (first, rest) = word.split_at(word.len().min(1));
        first.to_ascii_uppercase() + rest
    });
    words.collect::<Vec<_>>().join("-")
}

/// An origin in the form that clients send: `https://app.example`, `capacitor://localhost`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin(String);

impl Origin {
    /// Parses an origin from the configuration, and normalizes it to the form that clients send.
    ///
    /// # Errors
    /// If the text is not exactly one origin with a host.
    pub fn parse(text: &str) -> Result<Self, String> {
        const WILDCARD: &str = "`*` cannot be used with credentials: list every origin";
        if text.contains('*') {
            return Err(WILDCARD.to_owned());
        }
        if text.eq_ignore_ascii_case("null") {
            return Err("every sandboxed page has the origin `null`: remove it".to_owned());
        }
        if text.contains(',') {
            return Err("contains a comma: write a list, [\"…\", \"…\"]".to_owned());
        }
        // The message leaves out the text, which may contain a user name and a password.
        let wrong = || {
            "is not an origin such as https://app.example.com or capacitor://localhost: write only the scheme, host and port"
                .to_owned()
        };
        let url = Url::parse(text).map_err(|_| wrong())?;
        if url.scheme() == "file" {
            return Err(
                "browsers send the origin `null` for files, as for every sandboxed page: serve the page over HTTP"
                    .to_owned(),
            );
        }
        let is_bare = matches!(url.path(), "/" | "")
            && url.query().is_none()
            && url.fragment().is_none()
            && url.username().is_empty()
            && url.password().is_none();
        if !is_bare {
            return Err(wrong());
        }
        let origin = match url.scheme() {
            "http" | "https" => url.origin().ascii_serialization(),
            // No page has an origin with one of these schemes.
            "ftp" | "ws" | "wss" => return Err(wrong()),
            // The URL standard gives other schemes an opaque origin, but apps and extensions send scheme, host and
            // port.
            scheme => {
                let host = url
                    .host_str()
                    .filter(|host| is_plain(host))
                    .ok_or_else(wrong)?;
                match url.port() {
                    Some(port) => format!("{scheme}://{host}:{port}"),
                    None => format!("{scheme}://{host}"),
                }
            }
        };
        // The `*` may have been written as `%2A`, or as a similar Unicode character.
        if origin.contains('*') {
            return Err(WILDCARD.to_owned());
        }
        Ok(Self(origin))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl PartialEq<HeaderValue> for Origin {
    fn eq(&self, other: &HeaderValue) -> bool {
        self.0 == *other
    }
}

/// Whether an origin is http or https on `localhost`, a subdomain of it (RFC 6761, section 6.3), or a loopback address.
pub fn is_loopback(origin: &str) -> bool {
    let Ok(url) = Url::parse(origin) else {
        return false;
    };
    url.host_str().is_some_and(loopback::is_loopback)
        && matches!(url.scheme(), "http" | "https")
        && url.origin().ascii_serialization() == origin
}

/// Whether the host consists of letters, digits, `.`, `-` and `_`. Electron apps may use the hosts `.` and `-`.
fn is_plain(host: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    !host.is_empty() && host.bytes().all(is_plain)
}

/// A pattern for preview deployments, such as `https://*-team.vercel.app`: the text before and after the `*`, which
/// matches part of one label. Strangers can register matching names, so a page whose origin matches is trusted less
/// than a page whose origin is listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OriginPattern {
    before: String,
    after: String,
}

impl OriginPattern {
    /// # Errors
    /// If the text is not a pattern of this form.
    fn parse(text: &str) -> Result<Self, String> {
        const FORM: &str = "`*` cannot be used with credentials. The only supported pattern form is \
            https://*-team.vercel.app: https, one `*` in a label that has other text, and at least two whole labels after \
            it";
        let wrong = || FORM.to_owned();
        let text = text.to_ascii_lowercase();
        let text = text.strip_suffix('/').unwrap_or(&text);
        let text = text.strip_suffix(":443").unwrap_or(text);
        let (before, after) = text.split_once('*').ok_or_else(wrong)?;
        let start = before.strip_prefix("https://").ok_or_else(wrong)?;
        let host = after.split_once(':').map_or(after, |(host, _)| host);
        let (label_end, labels) = host.split_once('.').ok_or_else(wrong)?;
        let has_text = !(start.is_empty() || start.ends_with('.')) || !label_end.is_empty();
        let whole_labels = labels.split('.').filter(|label| !label.is_empty()).count();
        // With a letter instead of the `*`, the text must be an origin in the form that browsers send.
        let example = format!("{before}a{after}");
        let is_origin = Origin::parse(&example).is_ok_and(|origin| origin.as_str() == example);
        if after.contains('*') || !has_text || whole_labels < 2 || !is_origin {
            return Err(wrong());
        }
        Ok(Self {
            before: before.to_owned(),
            after: after.to_owned(),
        })
    }

    pub fn matches(&self, origin: &HeaderValue) -> bool {
        let is_label = |byte: &u8| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_')
        };
        let middle = origin
            .as_bytes()
            .strip_prefix(self.before.as_bytes())
            .and_then(|rest| rest.strip_suffix(self.after.as_bytes()));
        middle.is_some_and(|middle| !middle.is_empty() && middle.iter().all(is_label))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configured_origins_are_normalized_to_the_form_that_clients_send() {
        for (text, want) in [
            ("https://app.example", "https://app.example"),
            ("HTTPS://App.Example:443/", "https://app.example"),
            ("http://localhost:3000", "http://localhost:3000"),
            ("http://[::1]:80", "http://[::1]"),
            ("capacitor://localhost", "capacitor://localhost"),
            ("tauri://localhost/", "tauri://localhost"),
            ("ionic://localhost:8100", "ionic://localhost:8100"),
            ("app://obsidian.md", "app://obsidian.md"),
            ("app://-", "app://-"),
            (
                "chrome-extension://gcbommkclmclpchllfjekcdonpmejbdp",
                "chrome-extension://gcbommkclmclpchllfjekcdonpmejbdp",
            ),
            (
                "moz-extension://2e2b8f3c-6a54-4f0a-9d3b-0c8f5b1f7d11",
                "moz-extension://2e2b8f3c-6a54-4f0a-9d3b-0c8f5b1f7d11",
            ),
        ] {
            assert_eq!(Origin::parse(text).unwrap().0, want, "{text}");
        }
        for text in [
            "*",
            "null",
            "NULL",
            "https://*.example",
            "https://%2a.example",
            "https://\u{ff0a}.example",
            "app.example",
            "https://a.example/path",
            "",
            "https://a.example?x",
            "https://u@a.example",
            "ftp://a.example",
            "wss://a.example",
            "file:///x",
            "file:",
            "https://",
            "app://",
            "app://localhost/path",
            "app://u@localhost",
            "app://a b",
            "app://a%2a",
            "data:text/html,x",
            "blob:https://a.example",
            "about:blank",
            "capacitor:localhost",
        ] {
            assert!(Origin::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn pattern_needs_one_star_in_a_partial_label_and_two_whole_labels_after_it() {
        for text in [
            "https://*-team.vercel.app",
            "https://app-git-*-team.vercel.app",
            "https://pr-*.preview.example.com",
            "HTTPS://*-Team.vercel.app/",
            "https://*-team.vercel.app:443",
            "https://a.*-b.example.com",
        ] {
            assert!(OriginPattern::parse(text).is_ok(), "{text}");
        }
        for text in [
            "*",
            "https://*",
            "https://*.vercel.app",
            "https://*.*-team.vercel.app",
            "https://*-a-*.vercel.app",
            "https://*-team.app",
            "https://*-team..app",
            "https://*-team.vercel.",
            "http://*-team.vercel.app",
            "capacitor://*-team.vercel.app",
            "https://*-team.vercel.app/path",
            "https://*-team.vercel.app?x",
            "https://*-team.vercel.app#x",
            "https://u@*-team.vercel.app",
            "https://*@team.vercel.app",
            "https://*-team.v\u{e9}rcel.app",
            "https://team-*:8443",
            "https://*-1.2.3",
            "//*-team.vercel.app",
        ] {
            assert!(OriginPattern::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn star_in_a_pattern_matches_only_a_part_of_one_label() {
        let pattern = OriginPattern::parse("https://*-team.vercel.app").unwrap();
        for (origin, want) in [
            ("https://app-git-x-team.vercel.app", true),
            ("https://a-team.vercel.app", true),
            ("https://-team.vercel.app", false),
            ("https://team.vercel.app", false),
            ("https://evil.example.a-team.vercel.app", false),
            ("https://a.b-team.vercel.app", false),
            ("http://a-team.vercel.app", false),
            ("https://a-team.vercel.app:8443", false),
            ("https://a-team.vercel.app.evil.example", false),
            ("https://evil.example/-team.vercel.app", false),
            ("https://evil.example#-team.vercel.app", false),
            ("https://evil@-team.vercel.app", false),
            ("https://A-team.vercel.app", false),
            ("https://a%2e-team.vercel.app", false),
        ] {
            let origin = HeaderValue::from_static(origin);
            assert_eq!(pattern.matches(&origin), want, "{origin:?}");
        }
    }

    #[test]
    fn loopback_origins_are_localhost_its_subdomains_and_loopback_addresses() {
        for (origin, want) in [
            ("http://localhost", true),
            ("http://localhost:5173", true),
            ("https://localhost:3000", true),
            ("http://127.0.0.1:8080", true),
            ("http://127.0.0.2", true),
            ("http://[::1]:3000", true),
            ("http://app.localhost:3000", true),
            ("http://localhost.evil.example", false),
            ("http://evillocalhost", false),
            ("http://10.0.0.1", false),
            ("http://0.0.0.0:3000", false),
            ("capacitor://localhost", false),
            ("http://localhost:5173/", false),
            ("http://u@localhost", false),
            ("HTTP://LOCALHOST", false),
            ("null", false),
            ("", false),
        ] {
            assert_eq!(is_loopback(origin), want, "{origin}");
        }
    }
}
