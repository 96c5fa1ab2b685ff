//! The headers of a call to the app that describe the caller's own request: its scheme and host, and the headers listed
//! in `context_headers`. They are sent in addition to the caller's credentials.

use std::fmt;
use std::net::SocketAddr;

use axum::extract::ConnectInfo;
use axum::http::request::Parts;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use serde::de::{self, Deserialize, Deserializer, Visitor};
use serde::ser::Error;
use serde::{Serialize, Serializer};
use url::{Position, Url};

use crate::session::formats::loopback::is_loopback;

pub const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const HTTP: HeaderValue = HeaderValue::from_static("http");
const HTTPS: HeaderValue = HeaderValue::from_static("https");

/// The key `forwarded`: the parts of the app's public URL that are sent to the app. Apps use the scheme to redirect
/// to https and to choose the names of their cookies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Forwarded {
    /// `false`
    Nothing,
    /// `true`: the scheme that is inferred from the request.
    Scheme,
    /// A URL: its scheme and host.
    Url {
        scheme: HeaderValue,
        host: HeaderValue,
    },
}

impl Forwarded {
    pub fn insert(&self, caller: &Parts, headers: &mut HeaderMap) {
        match self {
            Self::Nothing => {}
            Self::Scheme => {
                headers.insert(X_FORWARDED_PROTO, scheme(&caller.headers));
            }
            Self::Url { scheme, host } => {
                headers.insert(X_FORWARDED_PROTO, scheme.clone());
                headers.insert(X_FORWARDED_HOST, host.clone());
            }
        }
    }

    fn parse(text: &str) -> Option<Self> {
        // An environment variable is a string, so these spellings of a boolean are accepted.
        match text.to_lowercase().as_str() {
            "true" | "yes" | "on" | "1" => return Some(Self::Scheme),
            "false" | "no" | "off" | "0" => return Some(Self::Nothing),
            _ => {}
        }
        let url = Url::parse(text).ok()?;
        let scheme = match url.scheme() {
            "http" => HTTP,
            "https" => HTTPS,
            _ => return None,
        };
        // Only the scheme, host and port are sent, so a URL that contains more is a mistake.
        let is_origin = url[..Position::BeforeUsername] == url[..Position::BeforeHost]
            && &url[Position::AfterPort..] == "/";
        let host = HeaderValue::from_str(&url[Position::BeforeHost..Position::AfterPort]).ok()?;
        is_origin.then_some(Self::Url { scheme, host })
    }
}

/// The scheme by which the caller reached the app. TLS ends at a proxy in front of this service, so only `Origin`
/// shows the scheme: http if it begins with `http://`, otherwise https. If `Origin` is absent or the opaque `null`,
/// the scheme is http if `Host` is a loopback name, and https otherwise.
fn scheme(headers: &HeaderMap) -> HeaderValue {
    let origin = headers.get(header::ORIGIN).map(HeaderValue::as_bytes);
    let is_http = match origin.filter(|origin| *origin != b"null") {
        Some(origin) => origin.starts_with(b"http://"),
        None => has_loopback_host(headers),
    };
    if is_http { HTTP } else { HTTPS }
}

fn has_loopback_host(headers: &HeaderMap) -> bool {
    let host = headers
        .get(header::HOST)
        .and_then(|host| host.to_str().ok());
    let authority = host.and_then(|host| host.parse::<Authority>().ok());
    authority.is_some_and(|authority| is_loopback(authority.host()))
}

/// Copies one of the caller's headers. Appends the peer's address to `X-Forwarded-For`, as proxies do.
pub fn insert(caller: &Parts, name: &HeaderName, headers: &mut HeaderMap) {
    let sent = caller.headers.get_all(name).iter();
    if *name == X_FORWARDED_FOR {
        let peer = caller.extensions.get::<ConnectInfo<SocketAddr>>();
        let peer = peer.map(|ConnectInfo(address)| address.ip().to_canonical().to_string());
        let lines = sent.map(|line| line.as_bytes().to_vec());
        let addresses: Vec<Vec<u8>> = lines.chain(peer.map(String::into_bytes)).collect();
        if let Ok(value) = HeaderValue::from_bytes(&addresses.join(&b", "[..]))
            && !value.is_empty()
        {
            headers.insert(name, value);
        }
        return;
    }
    for (index, value) in sent.enumerate() {
        if index == 0 {
            headers.insert(name, value.clone());
        } else {
            headers.append(name, value.clone());
        }
    }
}

impl Serialize for Forwarded {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Nothing => serializer.serialize_bool(false),
            Self::Scheme => serializer.serialize_bool(true),
            Self::Url { scheme, host } => {
                let scheme = scheme.to_str().map_err(S::Error::custom)?;
                let host = host.to_str().map_err(S::Error::custom)?;
                serializer.collect_str(&format_args!("{scheme}://{host}"))
            }
        }
    }
}

impl<'de> Deserialize<'de> for Forwarded {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ForwardedVisitor)
    }
}

struct ForwardedVisitor;

const EXPECTED: &str = "true, false, or the URL by which browsers reach the app, without a path, such as \
                        \"https://app.example.com\"";

impl Visitor<'_> for ForwardedVisitor {
    type Value = Forwarded;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(EXPECTED)
    }

    fn visit_bool<E: de::Error>(self, flag: bool) -> Result<Forwarded, E> {
        Ok(if flag {
            Forwarded::Scheme
        } else {
            Forwarded::Nothing
        })
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Forwarded, E> {
        Forwarded::parse(text).ok_or_else(|| E::custom(format!("must be {EXPECTED}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::contract::request;

    #[test]
    fn scheme_is_http_for_http_origins_and_loopback_hosts_without_origin_and_otherwise_https() {
        for (origin, host, want) in [
            (Some("http://app.example"), "app.example", "http"),
            (Some("https://app.example"), "app.example", "https"),
            (Some("https://localhost"), "localhost", "https"),
            (Some("http://localhost:3000"), "localhost:8080", "http"),
            (Some("capacitor://localhost"), "localhost", "https"),
            (Some("null"), "app.example", "https"),
            (Some("null"), "localhost:8080", "http"),
            (None, "app.example", "https"),
            (None, "localhost", "http"),
            (None, "LOCALHOST:8080", "http"),
            (None, "127.0.0.1:8080", "http"),
            (None, "127.1.2.3", "http"),
            (None, "[::1]:8080", "http"),
            (None, "10.0.0.1", "https"),
            (None, "localhost.example.com", "https"),
            (None, "127.0.0.1.nip.io", "https"),
            (None, "", "https"),
        ] {
            let origin = origin.map(|origin| ("origin", origin));
            let headers: Vec<_> = origin.into_iter().chain([("host", host)]).collect();
            assert_eq!(scheme(&request(&headers).headers), want, "{headers:?}");
        }
    }

    #[test]
    fn forwarded_accepts_a_boolean_or_an_origin() {
        let url = |scheme, host| {
            Some(Forwarded::Url {
                scheme: HeaderValue::from_static(scheme),
                host: HeaderValue::from_static(host),
            })
        };
        for (text, want) in [
            ("true", Some(Forwarded::Scheme)),
            ("false", Some(Forwarded::Nothing)),
            ("https://app.example.com", url("https", "app.example.com")),
            ("https://app.example.com/", url("https", "app.example.com")),
            (
                "https://app.example.com:443",
                url("https", "app.example.com"),
            ),
            ("http://localhost:3000", url("http", "localhost:3000")),
            ("https://[::1]:8443", url("https", "[::1]:8443")),
            ("https://app.example.com/app", None),
            ("https://app.example.com?x", None),
            ("https://app.example.com#x", None),
            ("https://ann@app.example.com", None),
            ("https://ann:hunter2@app.example.com", None),
            ("ftp://app.example.com", None),
            ("app.example.com", None),
            ("Yes", Some(Forwarded::Scheme)),
            ("0", Some(Forwarded::Nothing)),
            ("maybe", None),
            ("", None),
        ] {
            assert_eq!(Forwarded::parse(text), want, "{text}");
        }
    }

    #[test]
    fn peer_address_is_appended_to_x_forwarded_for_and_other_headers_are_copied() {
        let caller = request(&[
            ("x-forwarded-for", "203.0.113.7"),
            ("x-forwarded-for", "10.0.0.1, 10.0.0.2"),
            ("user-agent", "theirs"),
            ("accept-language", "en"),
            ("accept-language", "de"),
        ]);
        let mut headers = HeaderMap::new();
        headers.insert(header::USER_AGENT, HeaderValue::from_static("ours"));
        for name in [
            X_FORWARDED_FOR,
            header::USER_AGENT,
            header::ACCEPT_LANGUAGE,
            header::REFERER,
        ] {
            insert(&caller, &name, &mut headers);
        }
        assert_eq!(
            headers["x-forwarded-for"],
            "203.0.113.7, 10.0.0.1, 10.0.0.2, 127.0.0.1"
        );
        assert_eq!(headers["user-agent"], "theirs");
        let languages: Vec<_> = headers.get_all(header::ACCEPT_LANGUAGE).iter().collect();
        assert_eq!(languages, ["en", "de"]);
        assert!(!headers.contains_key(header::REFERER));

        let mut headers = HeaderMap::new();
        insert(&request(&[]), &X_FORWARDED_FOR, &mut headers);
        assert_eq!(headers["x-forwarded-for"], "127.0.0.1");
    }
}
