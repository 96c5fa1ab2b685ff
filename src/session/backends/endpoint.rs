//! An HTTP endpoint that an extractor calls to check credentials: its configuration keys, the call, and the checks of
//! the answer's status and content type. The extractor interprets the content.

use std::time::Duration;

use axum::http::{HeaderMap, header};
use reqwest::Request;
use url::Url;

use crate::clock::Clock;
use crate::config::{HumanDuration, Problems, Section};
use crate::json::Value;
use crate::session::backends::Context;
use crate::session::backends::http::{
    Answer, CallError, CallLimits, HttpClient, check_url, content_type, media_type,
};
use crate::session::backends::lookup::{LookupOutcome, Verdict};
use crate::session::reason::Reason;
use crate::session::types::{BackendCall, ExtractError, without_query};

/// The maximum length of an answer's body, in bytes.
const MAX_BODY: usize = 64 * 1024;

/// The default of `connect_timeout`, for backends in the same network.
pub const CONNECT_TIMEOUT: HumanDuration = HumanDuration::millis(300);

/// The bounds of a backend's `Retry-After`, in seconds.
const RETRY_AFTER: (u64, u64) = (1, 60);

/// The configuration keys of a section that describe its endpoint.
#[derive(Clone, Copy, Debug)]
pub struct EndpointConfig<'a> {
    pub url: Option<&'a str>,
    pub timeout: HumanDuration,
    pub connect_timeout: HumanDuration,
    pub cache_ttl: HumanDuration,
    /// The maximum value of `cache_ttl` for this kind.
    pub longest_cache_ttl: HumanDuration,
    /// Whether a call may be repeated if an idle connection turns out to be closed. True only if the call changes no
    /// state at the backend.
    pub is_repeatable: bool,
    pub allow_http: bool,
}

/// An endpoint and the limits of its calls.
#[derive(Clone, Debug)]
pub struct Endpoint {
    pub url: Url,
    limits: CallLimits,
    /// How long answers are cached. Zero disables caching.
    pub cache_ttl: Duration,
    http: HttpClient,
    clock: Clock,
}

impl Endpoint {
    /// Validates all keys, and adds their problems to `problems`. Returns `None` if the URL is missing or invalid.
    pub fn new(
        section: &Section<'_>,
        context: &Context,
        keys: EndpointConfig<'_>,
        problems: &mut Problems,
    ) -> Option<Self> {
        problems.require(
            keys.url.is_some(),
            section.key("url"),
            "is missing: set it to the URL to call",
        );
        for (key, duration) in [
            ("timeout", keys.timeout),
            ("connect_timeout", keys.connect_timeout),
        ] {
            let sane = (HumanDuration::millis(1)..=HumanDuration::secs(10)).contains(&duration);
            problems.require(sane, section.key(key), "must be from 1ms to 10s");
        }
        section.check_timeouts(
            &[
                ("connect_timeout", keys.connect_timeout),
                ("timeout", keys.timeout),
            ],
            problems,
        );
        problems.require(
            keys.cache_ttl <= keys.longest_cache_ttl,
            section.key("cache_ttl"),
            format!(
                "must be at most {}: a cached session stays valid for this long after sign-out",
                keys.longest_cache_ttl
            ),
        );
        let url = problems.accept(section.key("url"), check_url(keys.url?, keys.allow_http))?;
        let limits = CallLimits {
            connect: keys.connect_timeout.0,
            total: keys.timeout.0,
            body: MAX_BODY,
            retry_closed: keys.is_repeatable,
        };
        Some(Self {
            url,
            limits,
            cache_ttl: keys.cache_ttl.0,
            http: context.http.clone(),
            clock: context.clock.clone(),
        })
    }

    /// Sends a request to the endpoint. `read` converts the answer into the outcome; a failed call is `Unavailable`.
    /// Also returns how long the outcome may be cached.
    pub async fn ask(
        &self,
        request: Request,
        read: impl FnOnce(&Answer) -> LookupOutcome + Send,
    ) -> Verdict {
        let outcome = match self.http.send(request, self.limits).await {
            Ok(answer) => read(&answer),
            Err(error) => {
                let is_timeout = matches!(error, CallError::Timeout(_));
                let key = if is_timeout {
                    " (set by the key timeout)"
                } else {
                    ""
                };
                Err(ExtractError::unavailable(error.reason()).because(format!("{error}{key}")))
            }
        };
        Verdict {
            keep_for: self.keep_for(&outcome),
            outcome: outcome.map_err(|error| self.with_url(error)),
            cookies: None,
        }
    }

    /// Puts the endpoint's URL before the details of an error that concerns the endpoint, not the credential.
    fn with_url(&self, error: ExtractError) -> ExtractError {
        let ExtractError::Unavailable(cause) = &error else {
            return error;
        };
        let detail = cause.detail.as_deref().unwrap_or(cause.reason.as_str());
        let detail = format!("{}: {detail}", without_query(&self.url));
        error.because(detail)
    }

    /// How long the outcome may be cached: a session at most until it expires, an error not at all.
    fn keep_for(&self, outcome: &LookupOutcome) -> Duration {
        let Ok(session) = outcome else {
            return Duration::ZERO;
        };
        let Some(end) = session.expires_at else {
            return self.cache_ttl;
        };
        // An expired session has 0 s left.
        let left = u64::try_from(end.saturating_sub(self.clock.now())).unwrap_or(0);
        self.cache_ttl.min(Duration::from_secs(left))
    }

    /// The description of a call, as commands such as `doctor` print it.
    pub fn call(&self, what: &str) -> BackendCall {
        BackendCall {
            backend: format!("{what} {}", without_query(&self.url)),
            at_most: self.limits.total,
        }
    }
}

/// The error for an answer whose status indicates neither a valid nor an invalid session.
pub fn undecided(answer: &Answer) -> ExtractError {
    ExtractError::unavailable(Reason::Status)
        .because(format!("the endpoint answered {}", answer.status.as_u16()))
        .again_after(retry_after(&answer.headers))
}

/// Parses the body of an answer whose content type is JSON. Other answers, such as a login or maintenance page with
/// status 200, do not show whether the session is valid.
pub fn json(answer: &Answer) -> Result<Value, ExtractError> {
    let malformed = |text: String| ExtractError::unavailable(Reason::Malformed).because(text);
    if !is_json(&answer.headers) {
        let found = content_type(&answer.headers);
        return Err(malformed(format!(
            "the content type must be JSON, but is {found}"
        )));
    }
    Value::parse(&answer.body).map_err(|_| malformed("the answer is not JSON".to_owned()))
}

/// Whether the content type is `application/json`, or `application/…+json` (RFC 6839, section 3.1).
fn is_json(headers: &HeaderMap) -> bool {
    let media_type = media_type(headers).to_ascii_lowercase();
    let name = media_type.strip_prefix("application/");
    name.is_some_and(|name| name == "json" || name.ends_with("+json"))
}

/// The value of `Retry-After` in seconds (RFC 9110, section 10.2.3), clamped to the bounds [`RETRY_AFTER`]. A date is
/// ignored.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    // A number that overflows is treated as the maximum, not as absent.
    let seconds = || text.parse().unwrap_or(u64::MAX);
    is_number.then(|| Duration::from_secs(seconds().clamp(RETRY_AFTER.0, RETRY_AFTER.1)))
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn headers(name: header::HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_str(value).unwrap())])
    }

    #[test]
    fn content_type_is_json_only_for_application_json_and_plus_json() {
        for (value, want) in [
            ("application/json", true),
            ("Application/JSON; charset=utf-8", true),
            ("application/hal+json", true),
            ("application/jsonp", false),
            ("text/json", false),
            ("text/html", false),
            ("text/plain; application/json", false),
            ("", false),
        ] {
            assert_eq!(
                is_json(&headers(header::CONTENT_TYPE, value)),
                want,
                "{value}"
            );
        }
        assert!(!is_json(&HeaderMap::new()));
    }

    #[test]
    fn retry_after_is_clamped_between_1_and_60_seconds_and_a_date_is_ignored() {
        for (value, want) in [
            ("7", Some(7)),
            ("0", Some(1)),
            ("3600", Some(60)),
            ("99999999999999999999999", Some(60)),
            ("-1", None),
            ("1.5", None),
            ("", None),
            ("Wed, 21 Oct 2026 07:28:00 GMT", None),
        ] {
            let wait = retry_after(&headers(header::RETRY_AFTER, value));
            assert_eq!(wait, want.map(Duration::from_secs), "{value}");
        }
    }
}
