//! `session_endpoint`: the app's own "who am I" URL, asked with the caller's cookies or headers.
//! Calls are made and shared in `shared/`; the products that are presets are in `session_endpoint/`.

mod config;
mod presets;

use std::sync::Arc;

use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};
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
    /// The cookies and headers that are forwarded; nothing else of a request is.
    forwarded: Vec<Forwarded>,
    whoami: Arc<WhoAmI>,
    lookups: Lookups,
}

/// What is asked, apart from the caller's credentials, and how an answer is read.
#[derive(Debug)]
struct WhoAmI {
    endpoint: Endpoint,
    method: Method,
    additional_headers: HeaderMap,
    signed_out: SignedOut,
    /// Where the session is; empty means the body.
    response_headers: Vec<HeaderName>,
    expires: Option<Template>,
}

/// The statuses that say that the caller is not signed in.
#[derive(Debug)]
enum SignedOut {
    /// [`SIGNED_OUT`], and redirects but those from http to https.
    Usual,
    /// Those in `signed_out`, as they are there.
    Listed(Vec<u16>),
}

/// The statuses by which apps say that the caller is not signed in.
const SIGNED_OUT: [u16; 7] = [204, 401, 403, 410, 302, 303, 307];

impl SessionExtractor for SessionEndpoint {
    fn extract<'a>(&'a self, request: &'a Parts) -> BoxFuture<'a, Extracted> {
        let found = match self.find(&request.headers) {
            Ok(found) if found.is_empty() => return ready(Ok(None)).boxed(),
            Ok(found) => found,
            Err(error) => return ready(Err(error)).boxed(),
        };
        async move {
            let call = || {
                let (whoami, mut call) = (self.whoami.clone(), self.whoami.request(&found));
                spans::pass_on(&request.headers, &mut call);
                async move { whoami.ask(call).await }
            };
            self.lookups
                .ask(self.question(&found), call)
                .await
                .map(Some)
        }
        .boxed()
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

/// Something of the caller's that goes to the endpoint.
#[derive(Debug, PartialEq, Eq)]
enum Forwarded {
    Cookie(String),
    Header(HeaderName),
}

impl Forwarded {
    /// The value exactly as it was sent, quotes and all: the app reads it, not we.
    fn find<'a>(&self, headers: &'a HeaderMap) -> Result<Option<&'a str>, ExtractError> {
        match self {
            Self::Cookie(name) => cookies::find(headers, name),
            Self::Header(name) => {
                Ok(headers::single(headers, name)?.filter(|value| !value.is_empty()))
            }
        }
    }
}

/// What of the caller's was found.
type Found<'a> = Vec<(&'a Forwarded, &'a str)>;

impl SessionEndpoint {
    fn find<'a>(&'a self, headers: &'a HeaderMap) -> Result<Found<'a>, ExtractError> {
        let mut found = Vec::new();
        for place in &self.forwarded {
            if let Some(value) = place.find(headers)? {
                found.push((place, value));
            }
        }
        if found.iter().map(|(_, value)| value.len()).sum::<usize>() > MAX_CREDENTIAL {
            return Err(
                ExtractError::rejected("too_large").because("more than 16 KiB would be forwarded")
            );
        }
        Ok(found)
    }

    /// Everything that is forwarded: two callers who differ in any of it never share an answer.
    fn question(&self, found: &Found<'_>) -> Question {
        let whom = [
            self.lookups.extractor().as_bytes(),
            self.whoami.endpoint.url.as_str().as_bytes(),
        ];
        let what = found.iter().flat_map(|(place, value)| {
            let (kind, name) = match place {
                Forwarded::Cookie(name) => ("cookie", name.as_str()),
                Forwarded::Header(name) => ("header", name.as_str()),
            };
            [kind.as_bytes(), name.as_bytes(), value.as_bytes()]
        });
        Question::new(whom.into_iter().chain(what))
    }
}

impl WhoAmI {
    /// The request to the app: a new one, so that nothing of the caller's is in it but what was found.
    fn request(&self, found: &Found<'_>) -> Request {
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

    /// Only 200 is yes. Everything but 200 and the statuses that say "not signed in" says nothing about the
    /// caller: a wrong URL or a broken app must not sign everyone out.
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
            SignedOut::Usual => {
                SIGNED_OUT.contains(&status)
                    && !(answer.status.is_redirection() && self.leads_to_https(answer))
            }
        }
    }

    /// Whether the answer redirects to the same path and query over https: a server that wants https sends
    /// that to every caller.
    fn leads_to_https(&self, answer: &Answer) -> bool {
        let url = &self.endpoint.url;
        self.target(answer).is_some_and(|target| {
            target.scheme() == "https"
                && (target.path(), target.query()) == (url.path(), url.query())
        })
    }

    /// Where the answer's `Location` leads.
    fn target(&self, answer: &Answer) -> Option<Url> {
        let location = answer.headers.get(header::LOCATION)?.to_str().ok()?;
        self.endpoint.url.join(location).ok()
    }

    /// The error of an answer by which a server says that there is nothing at this URL for this method.
    fn wrong_url(&self, answer: &Answer) -> Option<ExtractError> {
        let status = answer.status.as_u16();
        if !matches!(status, 301 | 302 | 303 | 307 | 308 | 404 | 405) {
            return None;
        }
        let location = self
            .target(answer)
            .map(|url| format!(" with Location {}", without_query(url)));
        let detail = format!(
            "the endpoint answered {status}{}: correct url or method, or list the status in signed_out if it \
             means that the caller is not signed in",
            location.unwrap_or_default()
        );
        Some(ExtractError::unavailable("wrong_url").because(detail))
    }

    /// The configured headers of the answer as a session: an absent or empty one is nobody's.
    fn named_headers(&self, answer: &Answer) -> Result<Value, ExtractError> {
        let mut attributes = Vec::new();
        for name in &self.response_headers {
            match headers::single(&answer.headers, name) {
                Ok(Some("") | None) => {}
                Ok(Some(value)) => {
                    attributes.push((name.as_str(), Value::String(value.to_owned())))
                }
                Err(_) => {
                    let error = ExtractError::unavailable("malformed");
                    return Err(error.because(format!("{name} is there twice or is no text")));
                }
            }
        }
        Ok(Value::Object(attributes.into_iter().collect::<Object>()))
    }
}

fn signed_out(answer: &Answer) -> ExtractError {
    let status = answer.status.as_u16();
    ExtractError::rejected("signed_out").because(format!("the endpoint answered {status}"))
}

/// A URL as it may be logged: its query can hold something secret.
fn without_query(mut url: Url) -> String {
    const MAX: usize = 256;
    url.set_query(None);
    url.set_fragment(None);
    // Fails only for URLs that can have neither.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.as_str().chars().take(MAX).collect()
}

/// Found values are printable ASCII, which is what a header may hold.
fn insert(request: &mut Request, name: HeaderName, value: &str) {
    if let Ok(mut value) = HeaderValue::from_str(value) {
        value.set_sensitive(true);
        request.headers_mut().insert(name, value);
    }
}

/// When the session ends; `None` if it does not say, as where nobody is signed in.
fn expiry(path: &Template, attributes: &Value) -> Result<Option<UnixSeconds>, ExtractError> {
    let unclear = || ExtractError::unavailable("malformed").because("the expiry is no time");
    match path.value(attributes) {
        Ok(None | Some(Value::Null)) | Err(SubjectError::Absent) => Ok(None),
        Ok(Some(value)) => Expiry::read(&value)
            .map(|end| Some(end.floor))
            .ok_or_else(unclear),
        Err(SubjectError::Invalid(_)) => Err(unclear()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Problems;
    use crate::session::backends::Context;
    use crate::session::contract;
    use crate::session::registry::Registry;

    fn extractor(keys: &str) -> Result<Arc<dyn SessionExtractor>, Problems> {
        contract::build(
            &Registry::builtin(),
            "session_endpoint",
            keys,
            &Context::for_tests(),
        )
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
                matches!(&outcome, Err(ExtractError::Rejected(reason)) if reason.word == word),
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
            ("no cookie's name", GOOD.replace("sid", "s=d"), "cookies"),
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
            ("no time", format!("{GOOD}timeout = \"0s\""), "timeout"),
            (
                "long time",
                format!("{GOOD}connect_timeout = \"1m\""),
                "connect_timeout",
            ),
            (
                "bad path",
                format!("{GOOD}expires_path = \"{{a\""),
                "expires_path",
            ),
            (
                "fixed cookie",
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
                "fixed and forwarded",
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
