//! `session_endpoint`: the app's own "who am I" URL, called with the caller's cookies or headers.
//! `backends/endpoint.rs` makes the calls; identical look-ups share one call (`backends/lookup.rs`). The configuration,
//! the presets, and the headers that describe the caller's own request are in `session_endpoint/`.

mod config;
mod context;
mod presets;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use futures_util::future::BoxFuture;
use reqwest::{Method, Request};
use url::Url;

use crate::json::Value;
use crate::session::backends::endpoint::{self, Endpoint};
use crate::session::backends::http::Answer;
use crate::session::backends::lookup::{LookupOutcome, Lookups, MAX_CREDENTIAL, Question, Verdict};
use crate::session::formats::cookies;
use crate::session::formats::headers;
use crate::session::kind::Kind;
use crate::session::reason::Reason;
use crate::session::sections::session_end::TimePath;
use crate::session::subject::Template;
use crate::session::types::{
    BackendCall, BackendReport, CredentialSource, ExtractError, Extracted, OfferedCookies, Reach,
    Readiness, ResponseCookies, Session, SessionExtractor, without_query,
};
use crate::telemetry::spans;
use context::Forwarded;

pub const KIND: Kind = Kind::new(config::build).with_presets(presets::PRESETS);

#[derive(Debug)]
struct SessionEndpoint {
    /// The names of the app's session cookies. A name also stands for the cookie's chunks.
    cookies: Vec<String>,
    /// The headers that hold a credential.
    forward_headers: Vec<HeaderName>,
    whoami: Arc<WhoAmI>,
    lookups: Lookups,
}

/// The call to the app, and the interpretation of its answer.
#[derive(Debug)]
struct WhoAmI {
    endpoint: Endpoint,
    method: Method,
    /// The caller's headers that are forwarded but are not credentials. Apart from these, the credentials and the trace
    /// context, no header of the caller's request is forwarded.
    context_headers: Vec<HeaderName>,
    additional_headers: HeaderMap,
    forwarded: Forwarded,
    /// The statuses that mean that the caller is not signed in, if the section lists them. Otherwise these are
    /// [`SIGNED_OUT`], except redirects to the same path and query over https, and to the path with its trailing slash
    /// added or removed.
    signed_out: Option<Vec<u16>>,
    /// The cookies whose `Set-Cookie` lines are passed on to the caller. A name also stands for the cookie's chunks.
    passed_cookies: Vec<String>,
    /// The headers of the answer that contain the session. If empty, the session is in the body.
    response_headers: Vec<HeaderName>,
    expires: Option<TimePath>,
    subject: Template,
}

/// The statuses that apps commonly return to a caller who is not signed in.
const SIGNED_OUT: [u16; 7] = [204, 401, 403, 410, 302, 303, 307];

/// The maximum number of characters of a `Location` in the log.
const MAX_PATH: usize = 256;

impl SessionExtractor for SessionEndpoint {
    fn extract<'a>(&'a self, request: &'a Parts) -> BoxFuture<'a, Extracted> {
        Box::pin(async move {
            let found = self.find(&request.headers)?;
            if found.cookies.is_empty() && found.headers.is_empty() {
                return Ok(None);
            }
            let mut asked = self.whoami.request(request, &found);
            let question = self.question(&asked);
            let sent_cookies = !found.cookies.is_empty();
            let call = || {
                let whoami = self.whoami.clone();
                spans::pass_on(&request.headers, &mut asked);
                async move { whoami.ask(asked, sent_cookies).await }
            };
            let shared = self.lookups.ask_with_cookies(question, call).await;
            if let Some(cookies) = shared.cookies {
                ResponseCookies::offer(request, cookies);
            }
            shared.outcome.map(Some)
        })
    }

    fn reach(&self) -> Reach {
        let cookies = self.cookies.iter().cloned().map(CredentialSource::Cookie);
        let headers = self.forward_headers.iter().map(|name| {
            if *name == header::AUTHORIZATION {
                CredentialSource::Bearer
            } else {
                CredentialSource::Header(name.clone())
            }
        });
        Reach::everything(cookies.chain(headers))
    }

    fn readiness(&self) -> Readiness {
        self.lookups.readiness()
    }

    fn backend(&self) -> Option<BackendCall> {
        Some(self.whoami.endpoint.call("endpoint"))
    }

    fn probe(&self) -> BoxFuture<'_, Vec<BackendReport>> {
        Box::pin(async move {
            let (head, ()) = axum::http::Request::new(()).into_parts();
            let request = self.whoami.request(&head, &Credentials::default());
            let asking = async {
                match self.whoami.ask(request, false).await.outcome {
                    Err(ExtractError::Unavailable(cause)) => Err(cause.to_string()),
                    Err(
                        ExtractError::Rejected(rejection) | ExtractError::NotMine(rejection, _),
                    ) => Ok(format!("{rejection}, as expected without a session")),
                    Ok(_) => Ok("answers 200 even to a request without a session".to_owned()),
                }
            };
            vec![BackendReport::of(self.whoami.endpoint.call("endpoint").backend, asking).await]
        })
    }
}

/// The caller's credentials that are forwarded, as names and values. A value is forwarded exactly as received,
/// including its quotes, because the app parses it.
#[derive(Default)]
struct Credentials<'a> {
    cookies: Vec<(&'a str, &'a str)>,
    headers: Vec<(&'a HeaderName, &'a str)>,
}

impl SessionEndpoint {
    fn find<'a>(&'a self, headers: &'a HeaderMap) -> Result<Credentials<'a>, ExtractError> {
        let mut cookies = cookies::find_all(headers, |name| listed(&self.cookies, name).is_some())?;
        // Sort cookies in the configured order and chunks by number, so that the order in which the browser sends them
        // makes no difference.
        cookies
            .sort_by_key(|(name, _)| (listed(&self.cookies, name.as_bytes()), name.len(), *name));
        let mut found = Vec::new();
        for name in &self.forward_headers {
            if let Some(value) = headers::single(headers, name)?.filter(|value| !value.is_empty()) {
                found.push((name, value));
            }
        }
        let of_cookies = cookies.iter().map(|(_, value)| value.len());
        let of_headers = found.iter().map(|(_, value)| value.len());
        if of_cookies.chain(of_headers).sum::<usize>() > MAX_CREDENTIAL {
            return Err(ExtractError::rejected(Reason::TooLarge)
                .because("the cookies and headers to forward are together longer than 16 KiB"));
        }
        Ok(Credentials {
            cookies,
            headers: found,
        })
    }

    /// The cache key of the look-up. It covers everything that is sent except the trace id, so that callers whose
    /// answers could differ never share an answer.
    fn question(&self, request: &Request) -> Question {
        let headers = request
            .headers()
            .iter()
            .flat_map(|(name, value)| [name.as_str().as_bytes(), value.as_bytes()]);
        let endpoint = [self.lookups.extractor(), request.url().as_str()].map(str::as_bytes);
        Question::new(endpoint.into_iter().chain(headers))
    }
}

/// The index in `cookies` of the cookie called `name`, or of the cookie that has a chunk called `name`.
fn listed(cookies: &[String], name: &[u8]) -> Option<usize> {
    cookies
        .iter()
        .position(|cookie| cookies::is_cookie_or_chunk(name, cookie.as_bytes()))
}

impl WhoAmI {
    /// Builds a new request to the app. Of the caller's headers, only the credentials and the context headers are
    /// copied. A configured header replaces a default header of the same name.
    fn request(&self, caller: &Parts, found: &Credentials<'_>) -> Request {
        let mut request = Request::new(self.method.clone(), self.endpoint.url.clone());
        let headers = request.headers_mut();
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        if self.method == Method::POST {
            // Some servers answer 411 to a POST without a `Content-Length`, and the HTTP client sends none for an empty
            // body.
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        self.forwarded.insert(caller, headers);
        for name in &self.context_headers {
            context::insert(caller, name, headers);
        }
        for (name, value) in &found.headers {
            insert(headers, (*name).clone(), value);
        }
        if !found.cookies.is_empty() {
            let pairs = found.cookies.iter();
            let pairs = pairs.map(|(name, value)| format!("{name}={value}"));
            insert(
                headers,
                header::COOKIE,
                &pairs.collect::<Vec<_>>().join("; "),
            );
        }
        for (name, value) in &self.additional_headers {
            headers.insert(name, value.clone());
        }
        request
    }

    /// Calls the app. An answer that names no subject is not cached: many apps answer 200 to a caller who is not signed
    /// in, so the answers to made-up credentials would evict the sessions of other callers.
    ///
    /// The answer's `Set-Cookie` lines are passed on only to callers that sent one of the section's cookies. A caller
    /// that sent only a header may be a page of another site, and the lines would put a new session into the browser.
    async fn ask(&self, request: Request, sent_cookies: bool) -> Verdict {
        let mut offered = None;
        let read = |answer: &Answer| {
            let outcome = self.read(answer);
            if let (Ok(session), true) = (&outcome, sent_cookies) {
                offered = self.offered_cookies(answer, session);
            }
            outcome
        };
        let mut verdict = self.endpoint.ask(request, read).await;
        if !matches!(&verdict.outcome, Ok(session) if self.subject.subject(&session.attributes).is_ok())
        {
            verdict.keep_for = Duration::ZERO;
        }
        Verdict {
            cookies: offered,
            ..verdict
        }
    }

    /// The answer's `Set-Cookie` lines that set the cookies in `passed_cookies` or their chunks, with the answer's
    /// session; `None` if there are no such lines.
    fn offered_cookies(&self, answer: &Answer, session: &Session) -> Option<Arc<OfferedCookies>> {
        let is_passed = |line: &&HeaderValue| {
            let name = cookies::name_set_by(line.as_bytes());
            listed(&self.passed_cookies, name).is_some()
        };
        let lines = answer.headers.get_all(header::SET_COOKIE).iter();
        let mut lines: Vec<HeaderValue> = lines.filter(is_passed).cloned().collect();
        for line in &mut lines {
            line.set_sensitive(true);
        }
        (!lines.is_empty()).then(|| {
            Arc::new(OfferedCookies {
                session: session.attributes.clone(),
                lines,
            })
        })
    }

    /// Only an answer with status 200 contains a session. A status that is neither 200 nor listed as "not signed in"
    /// does not show whether the caller is signed in. It results in `Unavailable`, because a wrong URL or a broken app
    /// must not sign all users out.
    fn read(&self, answer: &Answer) -> LookupOutcome {
        let attributes = match answer.status {
            StatusCode::OK if self.response_headers.is_empty() => endpoint::json(answer)?,
            StatusCode::OK => self.named_headers(answer)?,
            _ if self.says_signed_out(answer) => {
                let error = ExtractError::rejected(Reason::SignedOut);
                return Err(error.because(self.answered(answer)));
            }
            _ => {
                let wrong_url = self.wrong_url(answer);
                return Err(wrong_url.unwrap_or_else(|| self.undecided(answer)));
            }
        };
        let malformed = |detail| ExtractError::unavailable(Reason::Malformed).because(detail);
        let expires_at = match &self.expires {
            Some(path) => path.time(&attributes).map_err(malformed)?,
            None => None,
        };
        Ok(Session {
            attributes,
            expires_at: expires_at.map(|expiry| expiry.floor),
        })
    }

    fn says_signed_out(&self, answer: &Answer) -> bool {
        let status = answer.status.as_u16();
        match &self.signed_out {
            Some(statuses) => statuses.contains(&status),
            None => {
                SIGNED_OUT.contains(&status)
                    && !(answer.status.is_redirection() && self.leads_to_itself(answer))
            }
        }
    }

    /// Whether the answer redirects to the endpoint itself: to the same path and query over https, or to the path with
    /// its trailing slash added or removed. A server that requires https, and a router that requires or forbids the
    /// slash, redirect every caller in this way.
    fn leads_to_itself(&self, answer: &Answer) -> bool {
        let url = &self.endpoint.url;
        self.redirect_target(answer).is_some_and(|target| {
            let is_https = target.scheme() == "https";
            if target.path() == url.path() {
                is_https && target.query() == url.query()
            } else {
                without_slash(&target) == without_slash(url)
                    && (is_https || same_host(&target, url))
            }
        })
    }

    /// The URL in the answer's `Location`.
    fn redirect_target(&self, answer: &Answer) -> Option<Url> {
        self.endpoint.url.join(location(answer)?).ok()
    }

    /// The error for a status that indicates a wrong URL or method, or an app that requires https; `None` for any other
    /// status.
    fn wrong_url(&self, answer: &Answer) -> Option<ExtractError> {
        let status = answer.status.as_u16();
        if !matches!(status, 301 | 302 | 303 | 307 | 308 | 404 | 405) {
            return None;
        }
        let target = self.redirect_target(answer);
        let fix = match target.filter(|_| self.leads_to_itself(answer)) {
            Some(target) if target.path() != self.endpoint.url.path() => {
                "the path differs only in its trailing slash: in url, write the path from the Location"
            }
            Some(_) => {
                "the app requires https: configure the app to trust this service's X-Forwarded-Proto (key forwarded), \
                 or set url to the app's https URL"
            }
            None => {
                "fix url or method; or, if this status means that the caller is not signed in, add it to signed_out"
            }
        };
        let detail = format!("{}: {fix}", self.answered(answer));
        Some(ExtractError::unavailable(Reason::WrongUrl).because(detail))
    }

    /// The error for any other status that does not show whether the caller is signed in. A 4xx other than 429 may be
    /// the app's answer to callers who are not signed in, so its detail names the key `signed_out`.
    fn undecided(&self, answer: &Answer) -> ExtractError {
        let error = endpoint::undecided(answer);
        if answer.status.is_client_error() && answer.status != StatusCode::TOO_MANY_REQUESTS {
            return error.because(format!(
                "{}: if this status means that the caller is not signed in, add it to signed_out",
                self.answered(answer)
            ));
        }
        error
    }

    /// Describes the answer by its status and its `Location`. A relative `Location` on the endpoint's host is shown as
    /// a path, and any other as a URL; neither includes the query.
    fn answered(&self, answer: &Answer) -> String {
        let status = answer.status.as_u16();
        let location = location(answer).filter(|location| !location.is_empty());
        let Some(location) = location else {
            return format!("the endpoint answered {status}");
        };
        let is_relative = Url::parse(location).is_err();
        let shown = match self.endpoint.url.join(location) {
            Ok(target) if is_relative && same_host(&target, &self.endpoint.url) => {
                target.path().chars().take(MAX_PATH).collect()
            }
            Ok(target) => without_query(&target),
            Err(_) => "(not a URL)".to_owned(),
        };
        format!("the endpoint answered {status} with Location {shown}")
    }

    /// Builds the session from the configured headers of the answer. Omits absent and empty headers. A header that is
    /// repeated or not UTF-8 is an error.
    fn named_headers(&self, answer: &Answer) -> Result<Value, ExtractError> {
        let mut attributes = Vec::new();
        for name in &self.response_headers {
            let value = headers::single(&answer.headers, name).map_err(|_| {
                ExtractError::unavailable(Reason::Malformed)
                    .because(format!("the header {name} is repeated or is not UTF-8"))
            })?;
            if let Some(value) = value.filter(|value| !value.is_empty()) {
                attributes.push((name.as_str(), Value::String(value.to_owned())));
            }
        }
        Ok(Value::Object(attributes.into_iter().collect()))
    }
}

fn location(answer: &Answer) -> Option<&str> {
    answer.headers.get(header::LOCATION)?.to_str().ok()
}

fn without_slash(url: &Url) -> &str {
    url.path().strip_suffix('/').unwrap_or(url.path())
}

fn same_host(one: &Url, other: &Url) -> bool {
    one.host() == other.host()
}

/// Sets a header. Skips a value that contains control characters other than a tab.
fn insert(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(mut value) = HeaderValue::from_str(value) {
        value.set_sensitive(true);
        headers.insert(name, value);
    }
}
