//! The places where an identity provider publishes its keys, and the parsing of the responses. `jwks.rs` makes the
//! calls.

use std::fmt;
use std::time::Duration;

use axum::http::{HeaderMap, StatusCode, header};
use url::{Host, Url};

use crate::json::Value;
use crate::session::backends::http::{Answer, CallError, check_url, content_type};
use crate::session::backends::keys::{KeySet, KeysError, UnusableKey};
use crate::session::formats::issuer::{TENANT, for_every_tenant};
use crate::session::formats::loopback::is_loopback;
use crate::session::formats::shown::{listed, shown};
use crate::session::reason::Reason;
use crate::session::types::without_query;

/// How long keys are fresh if the response has no `max-age`, and the bounds to which `max-age` is clamped.
const DEFAULT_TTL: Duration = Duration::from_secs(10 * 60);
const MIN_TTL: Duration = Duration::from_secs(30);
const MAX_TTL: Duration = Duration::from_secs(60 * 60);

/// The place where keys are published.
#[derive(Clone, Debug)]
pub enum Source {
    /// A JWK set.
    Jwks(Url),
    /// `OpenID` Connect Discovery: the issuer's discovery document contains the URL of the JWK set.
    Discovery(Discovery),
    /// One public key in PEM.
    Pem(Url),
}

/// A discovery document (`OpenID` Connect Discovery 1.0, section 4, and RFC 8414).
#[derive(Clone, Debug)]
pub struct Discovery {
    document: Url,
    /// The issuers that the document may name.
    issuers: Vec<String>,
    allow_http: bool,
}

const WELL_KNOWN: &str = "/.well-known/";

impl Discovery {
    /// The discovery document of `issuer`, or the document at `issuer` if that is itself the URL of a discovery
    /// document. Such a URL does not show whether the issuer ends in a slash, so both forms are accepted.
    ///
    /// # Errors
    /// If `issuer` is not a URL that may be called, or is a `.well-known` URL of another document, such as a key set.
    pub fn new(issuer: &str, allow_http: bool) -> Result<Self, &'static str> {
        let (issuers, document) = match issuer.split_once(WELL_KNOWN) {
            None => {
                let base = issuer.trim_end_matches('/');
                let document = format!("{base}{WELL_KNOWN}openid-configuration");
                (vec![issuer.to_owned()], document)
            }
            Some((base, name)) => {
                let path = ["openid-configuration", "oauth-authorization-server"]
                    .iter()
                    .find_map(|known| name.split('?').next()?.strip_prefix(known))
                    .filter(|path| path.is_empty() || path.starts_with('/'))
                    .ok_or(
                        "is not an issuer: if this is the URL of a key set, set jwks_url to it",
                    )?;
                let base = format!("{base}{}", path.trim_end_matches('/'));
                let with_slash = format!("{base}/");
                (vec![base, with_slash], issuer.to_owned())
            }
        };
        let patterns = issuers.iter().filter_map(|issuer| for_every_tenant(issuer));
        let patterns: Vec<String> = patterns.collect();
        let mut discovery = Self {
            document: check_url(&document, allow_http)?,
            issuers,
            allow_http,
        };
        discovery.also_for(&patterns);
        Ok(discovery)
    }

    /// Also accepts a document that names one of these issuers.
    pub fn also_for(&mut self, issuers: &[String]) {
        for issuer in issuers {
            if !self.issuers.contains(issuer) {
                self.issuers.push(issuer.clone());
            }
        }
    }

    /// The issuers that tokens may have: the issuers with `{tenantid}` if there are any, otherwise all issuers that the
    /// document may name.
    pub fn token_issuers(&self) -> Vec<String> {
        let all = || self.issuers.iter().cloned();
        let patterns: Vec<String> = all().filter(|issuer| issuer.contains(TENANT)).collect();
        if patterns.is_empty() {
            all().collect()
        } else {
            patterns
        }
    }

    /// Returns the document's `jwks_uri`, if the document is for an accepted issuer and the URL may be called.
    fn jwks_uri(&self, answer: &Answer) -> Result<Url, FetchError> {
        let wrong = |text: String| Err(FetchError::Discovery(text));
        let document = &*answer.body;
        let document = document.strip_prefix(b"\xef\xbb\xbf").unwrap_or(document);
        let Ok(document) = Value::parse(document) else {
            return wrong(format!(
                "the discovery document at {} is not JSON (its content type is {})",
                address(&self.document),
                content_type(&answer.headers)
            ));
        };
        let text = |name| document.as_object()?.text(name);
        let issuer = text("issuer").unwrap_or_default();
        if !self.issuers.iter().any(|known| known == issuer) {
            return wrong(format!(
                "the document is for another issuer: its issuer is {}, but the configured issuer is {}. Configure the \
                 issuer exactly as in the document",
                listed(text("issuer")),
                listed(&self.issuers)
            ));
        }
        let Some(uri) = text("jwks_uri") else {
            return wrong("the document has no jwks_uri".to_owned());
        };
        let uri = match check_url(uri, self.allow_http) {
            Ok(uri) => uri,
            Err(why) => {
                let uri = Url::parse(uri).map_or_else(|_| shown(uri), |uri| address(&uri));
                return wrong(format!("the document's jwks_uri is {uri}, which {why}"));
            }
        };
        if is_this_machine(&uri) && !is_this_machine(&self.document) {
            return wrong(format!(
                "the document's jwks_uri is {}, which leads to this machine, but the document's own URL does not",
                address(&uri)
            ));
        }
        Ok(uri)
    }
}

/// The next step of a fetch.
#[derive(Debug)]
pub enum Step {
    /// Call this URL next, because its response contains the keys.
    Call(Url),
    Done(KeySet),
}

impl Source {
    /// The description of the source, as commands such as `doctor` print it.
    pub fn name(&self) -> String {
        match self {
            Self::Jwks(url) => format!("key set {}", without_query(url)),
            Self::Discovery(discovery) => {
                let document = without_query(&discovery.document);
                format!("discovery document {document} and its key set")
            }
            Self::Pem(url) => format!("key {}", without_query(url)),
        }
    }

    /// The URL of the first call.
    pub fn url(&self) -> &Url {
        match self {
            Self::Jwks(url) | Self::Pem(url) => url,
            Self::Discovery(discovery) => &discovery.document,
        }
    }

    /// Reads the response to the first call. Returns its keys, or the URL of the key set that a discovery document
    /// names.
    pub fn read(&self, answer: &Answer) -> Result<Step, FetchError> {
        match self {
            Self::Discovery(discovery) => discovery.jwks_uri(answer).map(Step::Call),
            Self::Jwks(url) => read_jwks(url, answer).map(Step::Done),
            Self::Pem(url) => KeySet::from_pem(&answer.body)
                .map(Step::Done)
                .map_err(|error| FetchError::keys(url, answer, error)),
        }
    }

    /// Whether the fetch failed because the requested key does not exist, as opposed to a failure of the provider.
    pub fn is_absent(&self, error: &FetchError) -> bool {
        matches!(self, Self::Pem(_)) && error.is_not_found()
    }
}

/// The keys in the response from a JWK set's URL.
pub fn read_jwks(url: &Url, answer: &Answer) -> Result<KeySet, FetchError> {
    KeySet::from_jwks(&answer.body).map_err(|error| FetchError::keys(url, answer, error))
}

/// Why a fetch failed.
#[derive(Clone, Debug)]
pub enum FetchError {
    /// The call to this URL failed.
    Call(String, CallError),
    /// The answer from the first URL, with this status, is a redirect to the second URL.
    Redirect(String, StatusCode, String),
    /// The answer from this URL, with this content type, contains no usable keys.
    Keys(String, String, KeysError),
    Discovery(String),
    /// The task of the fetch was dropped, because the process ends or the task panicked.
    Interrupted,
}

impl FetchError {
    /// The response from `url` if the status is 200. Every other status, including a redirect, is an error.
    pub fn ok(url: &Url, answer: Result<Answer, CallError>) -> Result<Answer, Self> {
        match answer {
            Ok(answer) if answer.status.is_redirection() => {
                let location = answer.headers.get(header::LOCATION).map(|value| {
                    let text = String::from_utf8_lossy(value.as_bytes());
                    url.join(&text)
                        .map_or_else(|_| shown(&text), |url| address(&url))
                });
                let location = location.unwrap_or_else(|| "an unspecified URL".to_owned());
                Err(Self::Redirect(address(url), answer.status, location))
            }
            answer => answer
                .and_then(Answer::ok)
                .map_err(|error| Self::Call(address(url), error)),
        }
    }

    fn keys(url: &Url, answer: &Answer, error: KeysError) -> Self {
        Self::Keys(address(url), content_type(&answer.headers), error)
    }

    /// The error if `url` did not send a complete response in time.
    pub fn timeout(url: &Url, limit: Duration) -> Self {
        Self::Call(address(url), CallError::Timeout(limit))
    }

    /// The reason that metrics and logs report for this error.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Call(_, error) => error.reason(),
            Self::Redirect(..) => Reason::Status,
            Self::Keys(_, _, KeysError::Malformed(_)) => Reason::Malformed,
            Self::Keys(_, _, KeysError::NoUsableKey(_)) => Reason::NoUsableKey,
            Self::Discovery(_) => Reason::Discovery,
            Self::Interrupted => Reason::Interrupted,
        }
    }

    /// The keys in the response, if none of them can be used.
    pub fn unusable(&self) -> Option<&[UnusableKey]> {
        match self {
            Self::Keys(_, _, KeysError::NoUsableKey(keys)) => Some(keys),
            _ => None,
        }
    }

    /// Whether the status means that the document does not exist. Object stores such as Amazon S3 answer 403 for a
    /// missing object if the caller may not list the objects.
    fn is_not_found(&self) -> bool {
        matches!(self, Self::Call(_, CallError::Status(status)) if matches!(status.as_u16(), 403 | 404 | 410))
    }
}

impl fmt::Display for FetchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Call(url, error) => write!(f, "{url}: {error}"),
            Self::Redirect(url, status, location) => write!(
                f,
                "{url}: the answer is {}, a redirect to {location}. Redirects are not followed: configure the URL \
                 that answers directly",
                status.as_u16()
            ),
            Self::Keys(url, found, error @ KeysError::Malformed(_)) => {
                write!(f, "{url}: the answer {error} (its content type is {found})")
            }
            Self::Keys(url, _, error) => write!(f, "{url}: the answer {error}"),
            Self::Discovery(text) => f.write_str(text),
            Self::Interrupted => f.write_str("the fetch was interrupted"),
        }
    }
}

/// The URL without its query, as messages show it.
fn address(url: &Url) -> String {
    shown(&without_query(url))
}

/// Whether a call to the URL reaches this machine: its host is loopback, or an unspecified address (`0.0.0.0` or `::`),
/// which the kernel treats as loopback.
fn is_this_machine(url: &Url) -> bool {
    let is_unspecified = match url.host() {
        Some(Host::Ipv4(address)) => address.is_unspecified(),
        Some(Host::Ipv6(address)) => address.to_canonical().is_unspecified(),
        Some(Host::Domain(_)) | None => false,
    };
    is_unspecified || url.host_str().is_some_and(is_loopback)
}

/// How long the keys in a response are fresh: `max-age` (RFC 9111, section 5.2.2.1), clamped between [`MIN_TTL`] and
/// [`MAX_TTL`], or else [`DEFAULT_TTL`].
pub fn ttl(headers: &HeaderMap) -> Duration {
    let values = headers.get_all(header::CACHE_CONTROL).iter();
    let values = values.filter_map(|value| value.to_str().ok());
    let seconds = values
        .flat_map(|value| value.split(','))
        .find_map(|directive| {
            let (name, seconds) = directive.split_once('=')?;
            let digits = seconds.trim().trim_matches('"');
            let is_max_age = name.trim().eq_ignore_ascii_case("max-age") && !digits.is_empty();
            // A number that overflows is treated as the maximum, not as the default.
            (is_max_age && digits.bytes().all(|byte| byte.is_ascii_digit()))
                .then(|| digits.parse().unwrap_or(u64::MAX))
        });
    seconds.map_or(DEFAULT_TTL, |seconds| {
        Duration::from_secs(seconds).clamp(MIN_TTL, MAX_TTL)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_jwks_uri_is_accepted_only_from_an_issuer_on_loopback() {
        let found = |issuer: &str, uri: &str| {
            let document = format!(r#"{{"issuer":"{issuer}","jwks_uri":"{uri}"}}"#);
            let discovery = Discovery::new(issuer, true).unwrap();
            let answer = Answer {
                status: StatusCode::OK,
                headers: HeaderMap::new(),
                body: document.into_bytes(),
            };
            discovery.jwks_uri(&answer).is_ok()
        };
        for host in [
            "localhost",
            "localhost.",
            "LOCALHOST",
            "keys.localhost",
            "127.0.0.1",
            "127.1.2.3",
            "2130706433",
            "0.0.0.0",
            "[::1]",
            "[::]",
            "[::ffff:127.0.0.1]",
        ] {
            for scheme in ["http", "https"] {
                let uri = format!("{scheme}://{host}/keys");
                assert!(!found("https://idp.example", &uri), "{uri}");
                assert!(found("http://127.0.0.1:8080", &uri), "{uri}");
                assert!(found("https://localhost", &uri), "{uri}");
            }
        }
        assert!(found(
            "https://idp.example",
            "https://keys.idp.example/keys"
        ));
        assert!(found("http://localhost", "https://keys.idp.example/keys"));
        assert!(!found(
            "https://localhost.idp.example",
            "https://localhost/keys"
        ));
    }

    #[test]
    fn url_of_a_discovery_document_is_accepted_as_issuer() {
        for (issuer, document, issuers) in [
            (
                "https://idp.example",
                "https://idp.example/.well-known/openid-configuration",
                &["https://idp.example"][..],
            ),
            (
                "https://idp.example/",
                "https://idp.example/.well-known/openid-configuration",
                &["https://idp.example/"],
            ),
            (
                "https://idp.example/realms/a/.well-known/openid-configuration",
                "https://idp.example/realms/a/.well-known/openid-configuration",
                &[
                    "https://idp.example/realms/a",
                    "https://idp.example/realms/a/",
                ],
            ),
            (
                "https://idp.example/.well-known/oauth-authorization-server/a?p=1",
                "https://idp.example/.well-known/oauth-authorization-server/a?p=1",
                &["https://idp.example/a", "https://idp.example/a/"],
            ),
            (
                "https://login.microsoftonline.com/common/v2.0",
                "https://login.microsoftonline.com/common/v2.0/.well-known/openid-configuration",
                &[
                    "https://login.microsoftonline.com/common/v2.0",
                    "https://login.microsoftonline.com/{tenantid}/v2.0",
                ],
            ),
        ] {
            let discovery = Discovery::new(issuer, false).unwrap();
            assert_eq!(discovery.document.as_str(), document, "{issuer}");
            assert_eq!(discovery.issuers, issuers, "{issuer}");
        }
        for wrong in ["https://idp.example/.well-known/jwks.json", "idp.example"] {
            assert!(Discovery::new(wrong, false).is_err(), "{wrong}");
        }
    }
}
