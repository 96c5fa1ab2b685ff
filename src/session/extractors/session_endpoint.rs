//! `session_endpoint`: the app's own "who am I" URL, called with the caller's cookies or headers.
//! Calls are made in `backends/endpoint.rs`; identical look-ups share one call (`backends/lookup.rs`). The
//! configuration and the presets are in `session_endpoint/`.

mod config;
mod presets;

use std::sync::Arc;

use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use futures_util::future::BoxFuture;
use reqwest::{Method, Request};
use url::Url;

use crate::clock::UnixSeconds;
use crate::json::{Object, Value};
use crate::session::backends::endpoint::{self, Endpoint};
use crate::session::backends::http::Answer;
use crate::session::backends::lookup::{Lookups, MAX_CREDENTIAL, Outcome, Question, Verdict};
use crate::session::formats::cookies;
use crate::session::formats::expiry::Expiry;
use crate::session::formats::headers;
use crate::session::kind::Kind;
use crate::session::reason::Reason;
use crate::session::subject::{SubjectError, Template};
use crate::session::types::{
    CredentialSource, ExtractError, Extracted, Reach, Readiness, Session, SessionExtractor,
};
use crate::telemetry::spans;

pub const KIND: Kind = Kind {
    build: config::build,
    subject: "{sub}",
    presets: presets::PRESETS,
};

#[derive(Debug)]
struct SessionEndpoint {
    /// The cookies and headers that are forwarded. Nothing else of the caller's request is.
    forwarded: Vec<Forwarded>,
    whoami: Arc<WhoAmI>,
    lookups: Lookups,
}

/// The call to the app without the caller's credentials, and how the answer is read.
#[derive(Debug)]
struct WhoAmI {
    endpoint: Endpoint,
    method: Method,
    additional_headers: HeaderMap,
    signed_out: SignedOut,
    /// The headers of the answer that contain the session; if empty, the body does.
    response_headers: Vec<HeaderName>,
    expires: Option<Template>,
}

/// Which statuses mean that the caller is not signed in.
#[derive(Debug)]
enum SignedOut {
    /// [`SIGNED_OUT`], except redirects from http to https.
    Default,
    /// Exactly those in the key `signed_out`.
    Listed(Vec<u16>),
}

/// The statuses with which apps usually answer a caller who is not signed in.
const SIGNED_OUT: [u16; 7] = [204, 401, 403, 410, 302, 303, 307];

impl SessionExtractor for SessionEndpoint {
    fn extract<'a>(&'a self, request: &'a Parts) -> BoxFuture<'a, Extracted> {
        Box::pin(async move {
            let found = self.find(&request.headers)?;
            if found.is_empty() {
                return Ok(None);
            }
            let call = || {
                let (whoami, mut call) = (self.whoami.clone(), self.whoami.request(&found));
                spans::pass_on(&request.headers, &mut call);
                async move { whoami.ask(call).await }
            };
            self.lookups
                .ask(self.question(&found), call)
                .await
                .map(Some)
        })
    }

    fn reach(&self) -> Reach {
        Reach::everything(self.forwarded.iter().map(|forwarded| match forwarded {
            Forwarded::Cookie(name) => CredentialSource::Cookie(name.clone()),
            Forwarded::Header(name) if *name == header::AUTHORIZATION => CredentialSource::Bearer,
            Forwarded::Header(name) => CredentialSource::Header(name.clone()),
        }))
    }

    fn readiness(&self) -> Readiness {
        self.lookups.readiness()
    }
}

/// A cookie or header of the caller that is sent to the endpoint.
#[derive(Debug, PartialEq, Eq)]
enum Forwarded {
    Cookie(String),
    Header(HeaderName),
}

impl Forwarded {
    /// The value exactly as it was sent, also its quotes, because the app parses it.
    fn find<'a>(&self, headers: &'a HeaderMap) -> Result<Option<&'a str>, ExtractError> {
        match self {
            Self::Cookie(name) => cookies::find(headers, name),
            Self::Header(name) => {
                Ok(headers::single(headers, name)?.filter(|value| !value.is_empty()))
            }
        }
    }
}

/// The caller's cookies and headers that are forwarded, with their values.
type Credentials<'a> = Vec<(&'a Forwarded, &'a str)>;

impl SessionEndpoint {
    fn find<'a>(&'a self, headers: &'a HeaderMap) -> Result<Credentials<'a>, ExtractError> {
        let mut found = Vec::new();
        for place in &self.forwarded {
            if let Some(value) = place.find(headers)? {
                found.push((place, value));
            }
        }
        if found.iter().map(|(_, value)| value.len()).sum::<usize>() > MAX_CREDENTIAL {
            return Err(ExtractError::rejected(Reason::TooLarge)
                .because("more than 16 KiB would be forwarded"));
        }
        Ok(found)
    }

    /// The key of the look-up. It contains everything that is forwarded, so callers with different credentials never
    /// share an answer.
    fn question(&self, found: &Credentials<'_>) -> Question {
        let endpoint = [
            self.lookups.extractor().as_bytes(),
            self.whoami.endpoint.url.as_str().as_bytes(),
        ];
        let credentials = found.iter().flat_map(|(place, value)| {
            let (kind, name) = match place {
                Forwarded::Cookie(name) => ("cookie", name.as_str()),
                Forwarded::Header(name) => ("header", name.as_str()),
            };
            [kind.as_bytes(), name.as_bytes(), value.as_bytes()]
        });
        Question::new(endpoint.into_iter().chain(credentials))
    }
}

impl WhoAmI {
    /// The request to the app. It is a new request, so that it contains nothing of the caller's but the credentials.
    fn request(&self, found: &Credentials<'_>) -> Request {
        let mut request = Request::new(self.method.clone(), self.endpoint.url.clone());
        let mut cookies = Vec::new();
        *request.headers_mut() = self.additional_headers.clone();
        for (place, value) in found {
            match place {
                Forwarded::Cookie(name) => cookies.push(format!("{name}={value}")),
                Forwarded::Header(name) => insert(&mut request, name.clone(), value),
            }
        }
        if !cookies.is_empty() {
            insert(&mut request, header::COOKIE, &cookies.join("; "));
        }
        request
    }

    async fn ask(&self, request: Request) -> Verdict {
        self.endpoint.ask(request, |answer| self.read(answer)).await
    }

    /// Only 200 is a session. Any status other than 200 and those that mean "not signed in" says nothing about the
    /// caller and is `Unavailable`, because a wrong URL or a broken app must not sign all users out.
    fn read(&self, answer: &Answer) -> Outcome {
        let attributes = match answer.status {
            StatusCode::OK if self.response_headers.is_empty() => endpoint::json(answer)?,
            StatusCode::OK => self.named_headers(answer)?,
            _ if self.says_signed_out(answer) => return Err(signed_out(answer)),
            _ => {
                return Err(self
                    .wrong_url(answer)
                    .unwrap_or_else(|| endpoint::undecided(answer)));
            }
        };
        let expires_at = self
            .expires
            .as_ref()
            .map(|path| expiry(path, &attributes))
            .transpose()?
            .flatten();
        Ok(Session {
            attributes,
            expires_at,
        })
    }

    fn says_signed_out(&self, answer: &Answer) -> bool {
        let status = answer.status.as_u16();
        match &self.signed_out {
            SignedOut::Listed(statuses) => statuses.contains(&status),
            SignedOut::Default => {
                SIGNED_OUT.contains(&status)
                    && !(answer.status.is_redirection() && self.leads_to_https(answer))
            }
        }
    }

    /// Whether the answer redirects to the same path and query over https. A server that requires https answers so to
    /// every caller.
    fn leads_to_https(&self, answer: &Answer) -> bool {
        let url = &self.endpoint.url;
        self.redirect_target(answer).is_some_and(|target| {
            target.scheme() == "https"
                && (target.path(), target.query()) == (url.path(), url.query())
        })
    }

    /// The URL in the answer's `Location`.
    fn redirect_target(&self, answer: &Answer) -> Option<Url> {
        let location = answer.headers.get(header::LOCATION)?.to_str().ok()?;
        self.endpoint.url.join(location).ok()
    }

    /// The error for a status that means that the URL or the method is wrong; `None` for any other status.
    fn wrong_url(&self, answer: &Answer) -> Option<ExtractError> {
        let status = answer.status.as_u16();
        if !matches!(status, 301 | 302 | 303 | 307 | 308 | 404 | 405) {
            return None;
        }
        let location = self
            .redirect_target(answer)
            .map(|url| format!(" with Location {}", without_query(url)));
        let detail = format!(
            "the endpoint answered {status}{}: correct url or method, or list the status in signed_out if it \
             means that the caller is not signed in",
            location.unwrap_or_default()
        );
        Some(ExtractError::unavailable(Reason::WrongUrl).because(detail))
    }

    /// The configured headers of the answer as a session. Absent and empty headers are left out.
    fn named_headers(&self, answer: &Answer) -> Result<Value, ExtractError> {
        let mut attributes = Vec::new();
        for name in &self.response_headers {
            match headers::single(&answer.headers, name) {
                Ok(Some("") | None) => {}
                Ok(Some(value)) => {
                    attributes.push((name.as_str(), Value::String(value.to_owned())));
                }
                Err(_) => {
                    let error = ExtractError::unavailable(Reason::Malformed);
                    return Err(
                        error.because(format!("the header {name} is repeated or is not text"))
                    );
                }
            }
        }
        Ok(Value::Object(attributes.into_iter().collect::<Object>()))
    }
}

fn signed_out(answer: &Answer) -> ExtractError {
    let status = answer.status.as_u16();
    ExtractError::rejected(Reason::SignedOut).because(format!("the endpoint answered {status}"))
}

/// A URL as it may be logged. Query, fragment and credentials are removed, because they can contain secrets.
fn without_query(mut url: Url) -> String {
    const MAX: usize = 256;
    url.set_query(None);
    url.set_fragment(None);
    // These fail only for URLs that cannot have credentials.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.as_str().chars().take(MAX).collect()
}

/// Sets a header. A value with characters outside of ASCII is left out.
fn insert(request: &mut Request, name: HeaderName, value: &str) {
    if let Ok(mut value) = HeaderValue::from_str(value) {
        value.set_sensitive(true);
        request.headers_mut().insert(name, value);
    }
}

/// When the session ends; `None` if the answer does not say, for example because the caller is not signed in.
fn expiry(path: &Template, attributes: &Value) -> Result<Option<UnixSeconds>, ExtractError> {
    let invalid = || {
        ExtractError::unavailable(Reason::Malformed)
            .because("the value at expires_path is not a time")
    };
    match path.value(attributes) {
        Ok(None | Some(Value::Null)) | Err(SubjectError::Absent) => Ok(None),
        Ok(Some(value)) => Expiry::read(&value)
            .map(|end| Some(end.floor))
            .ok_or_else(invalid),
        Err(SubjectError::Invalid(_)) => Err(invalid()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Problems;
    use crate::session::contract;
    use crate::session::sections::testing::build;

    fn extractor(keys: &str) -> Result<Arc<dyn SessionExtractor>, Problems> {
        build("session_endpoint", keys)
    }

    #[tokio::test]
    async fn keeps_the_contract() {
        let keys = r#"
            url = "http://127.0.0.1:9/me"
            cookies = ["sid"]
            forward_headers = ["Authorization"]
            additional_headers = { X-Api-Key = "a-secret-of-ours" }
        "#;
        contract::check(&*extractor(keys).unwrap(), &["a-secret-of-ours"]).await;
    }

    #[tokio::test]
    async fn ambiguous_credential_is_refused_without_a_call() {
        let keys =
            "url = \"http://127.0.0.1:9/\"\ncookies = [\"sid\"]\nforward_headers = [\"X-Token\"]";
        for (headers, word) in [
            (&[("cookie", "sid=a; sid=b")][..], "ambiguous_identity"),
            (&[("x-token", "a"), ("x-token", "b")], "duplicate_header"),
            (
                &[("cookie", "sid=a"), ("x-token", "a"), ("x-token", "a")],
                "duplicate_header",
            ),
            (&[("cookie", "sid=\u{e9}")], "malformed"),
        ] {
            let outcome = extractor(keys)
                .unwrap()
                .extract(&contract::request(headers))
                .await;
            assert!(
                matches!(&outcome, Err(ExtractError::Rejected(reason)) if reason.reason == word),
                "{outcome:?}"
            );
        }
    }

    #[test]
    fn invalid_section_is_refused_with_its_key() {
        const GOOD: &str = "url = \"https://app.example/me\"\ncookies = [\"sid\"]\n";
        for (case, keys, key) in [
            ("no URL", "cookies = [\"sid\"]".to_owned(), "url"),
            ("http", GOOD.replace("https", "http"), "url"),
            ("password", GOOD.replace("app.", "ann:hunter2@app."), "url"),
            (
                "nothing forwarded",
                "url = \"https://app.example/me\"".to_owned(),
                "cookies",
            ),
            ("invalid cookie name", GOOD.replace("sid", "s=d"), "cookies"),
            (
                "every cookie",
                format!("{GOOD}forward_headers = [\"Cookie\"]"),
                "forward_headers",
            ),
            (
                "host",
                format!("{GOOD}forward_headers = [\"Host\"]"),
                "forward_headers",
            ),
            (
                "length",
                format!("{GOOD}forward_headers = [\"content-length\"]"),
                "forward_headers",
            ),
            ("method", format!("{GOOD}method = \"get\""), "method"),
            (
                "long cache",
                format!("{GOOD}cache_ttl = \"11s\""),
                "cache_ttl",
            ),
            (
                "timeout of zero",
                format!("{GOOD}timeout = \"0s\""),
                "timeout",
            ),
            (
                "long connect_timeout",
                format!("{GOOD}connect_timeout = \"1m\""),
                "connect_timeout",
            ),
            (
                "invalid template",
                format!("{GOOD}expires_path = \"{{a\""),
                "expires_path",
            ),
            (
                "additional cookie",
                format!("{GOOD}additional_headers = {{ cookie = \"a=b\" }}"),
                "additional_headers.cookie",
            ),
            (
                "line break",
                format!("{GOOD}additional_headers = {{ x = \"hunter2\\r\\nx\" }}"),
                "additional_headers.x",
            ),
            (
                "empty",
                format!("{GOOD}additional_headers = {{ x = \"\" }}"),
                "additional_headers.x",
            ),
            (
                "no file",
                format!("{GOOD}additional_headers_file = {{ x = \"/nowhere\" }}"),
                "additional_headers.x",
            ),
            (
                "additional and forwarded",
                format!(
                    "{GOOD}forward_headers = [\"X\"]\nadditional_headers = {{ x = \"hunter2\" }}"
                ),
                "additional_headers.x",
            ),
        ] {
            let problems = extractor(&keys).map(|_| ()).expect_err(case).to_string();
            assert!(
                problems.contains(&format!("extractors.session_endpoint.{key}:")),
                "{case}: {problems}"
            );
            assert!(!problems.contains("hunter2"), "{case}: {problems}");
        }
    }

    #[test]
    fn expiry_is_read_at_expires_path() {
        let path: Template = "{end}".parse().unwrap();
        for (end, want) in [
            ("1800000000", Some(Some(1_800_000_000))),
            ("\"2027-01-15T08:00:00Z\"", Some(Some(1_800_000_000))),
            ("\"2027-01-15T10:00:00+02:00\"", Some(Some(1_800_000_000))),
            ("null", Some(None)),
            ("\"soon\"", None),
            ("\"\"", None),
            ("1.5", None),
            ("true", None),
            ("{}", None),
            ("1,\"end\":2", None),
        ] {
            let session = Value::parse(format!("{{\"end\":{end}}}").as_bytes()).unwrap();
            assert_eq!(expiry(&path, &session).ok(), want, "{end}");
        }
        assert_eq!(expiry(&path, &Value::Null), Ok(None));
    }
}
