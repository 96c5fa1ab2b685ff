//! Maps every error to its HTTP response (RFC 9457, problem details). Reasons and causes are logged, but not sent to
//! the caller, except for the limit that the headers exceed.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::http::readiness::{InstanceState, Report};
use crate::session::chain::{Denial, Denied};
use crate::session::reason::Reason;
use crate::session::subject::Subject;
use crate::session::types::{Cause, Rejection};
use crate::settings::ServerRestartConfig;

/// Why a request was refused or failed.
#[derive(Clone, Debug)]
pub enum Error {
    /// The request violates HTTP or the service's stricter rules. The response does not contain the reason.
    BadRequest(Reason),
    Denied(Denied),
    OriginNotAllowed(Reason),
    /// A browser navigates to the path, or loads it as an image, a script, a frame or similar.
    NotAFetch(Reason),
    /// In dev mode, the `Host` is not a loopback host.
    HostNotAllowed,
    NotFound,
    /// The path is a variant of one of the service's paths, is served only by the other listener, or is disabled by the
    /// configuration.
    WrongPath(Reason),
    /// The method is not allowed; the string is the value of `Allow`.
    MethodNotAllowed(&'static str),
    /// The body did not arrive within `server.body_timeout`.
    RequestTimeout,
    BodyTooLarge,
    UriTooLong,
    /// There are too many headers, or they are too large. The string is a sentence for the caller, with the limit and
    /// the number found.
    HeadersTooLarge(Arc<str>),
    /// The credential or the subject is over its rate limit.
    RateLimited {
        extractor: Arc<str>,
        /// The subject, for the log. `None` only in [`Error::every`].
        subject: Option<Subject>,
        retry_after: Duration,
    },
    Internal,
    /// The machine's clock is set to a time before 2020, so the times of sessions and tokens would be wrong.
    ClockNotSet,
    /// The request was not handled within `server.request_timeout`.
    DeadlineExceeded,
    Overloaded,
    /// The response of `/readyz` while the instance is not ready.
    Unready(Arc<Report>),
}

/// The HTTP response to one error.
struct Mapping {
    status: StatusCode,
    code: &'static str,
    title: &'static str,
    detail: &'static str,
    header: Option<(HeaderName, HeaderValue)>,
}

/// `application/problem+json` (RFC 9457, section 3.1) with the extension members `code` and `request_id` and, for
/// `/readyz`, those of the report.
#[derive(Debug, Serialize)]
pub(super) struct Problem<'a> {
    r#type: String,
    title: &'static str,
    status: u16,
    detail: Cow<'static, str>,
    code: &'static str,
    request_id: &'a str,
    #[serde(flatten)]
    report: Option<&'a Report>,
}

const CHALLENGE: HeaderValue = HeaderValue::from_static(r#"Bearer realm="rollout-token""#);
const CHALLENGE_INVALID: HeaderValue =
    HeaderValue::from_static(r#"Bearer realm="rollout-token", error="invalid_token""#);

/// The value of `Retry-After` in a 503 response, unless the backend sent one.
const SOON: Duration = Duration::from_secs(2);

fn wait_header(wait: Duration) -> (HeaderName, HeaderValue) {
    (header::RETRY_AFTER, wait.as_secs().into())
}

impl Error {
    /// The stable code, which is part of the API and is the outcome in metrics and logs.
    pub fn code(&self) -> &'static str {
        self.mapping().code
    }

    pub fn status(&self) -> StatusCode {
        self.mapping().status
    }

    /// The reason that logs report. It is more specific than the code, or has the same name.
    pub fn reason(&self) -> Reason {
        match self {
            Self::BadRequest(reason)
            | Self::OriginNotAllowed(reason)
            | Self::NotAFetch(reason)
            | Self::WrongPath(reason) => *reason,
            Self::Denied(Denied { denial, .. }) => match denial {
                Denial::NotSignedIn(rejection)
                | Denial::NotMine(rejection, _)
                | Denial::Rejected(rejection) => rejection.reason,
                Denial::Unavailable(cause) => cause.reason,
            },
            Self::HostNotAllowed => Reason::HostNotAllowed,
            Self::NotFound => Reason::NotFound,
            Self::MethodNotAllowed(_) => Reason::MethodNotAllowed,
            Self::RequestTimeout => Reason::RequestTimeout,
            Self::BodyTooLarge => Reason::BodyTooLarge,
            Self::UriTooLong => Reason::UriTooLong,
            Self::HeadersTooLarge(_) => Reason::HeadersTooLarge,
            Self::RateLimited { .. } => Reason::RateLimited,
            Self::Internal => Reason::Internal,
            Self::ClockNotSet => Reason::ClockNotSet,
            Self::DeadlineExceeded => Reason::DeadlineExceeded,
            Self::Overloaded => Reason::Overloaded,
            Self::Unready(report) => match report.state {
                InstanceState::Draining => Reason::Draining,
                InstanceState::ClockNotSet => Reason::ClockNotSet,
                InstanceState::Waiting | InstanceState::Ready => Reason::Waiting,
            },
        }
    }

    /// The error for headers that exceed `server.max_headers` or `server.max_header_bytes`; `None` if they exceed
    /// neither. If `is_partial` is true, the remaining headers were not read.
    pub fn of_headers(
        count: usize,
        bytes: usize,
        is_partial: bool,
        limits: &ServerRestartConfig,
    ) -> Option<Self> {
        let least = if is_partial { "at least " } else { "" };
        let (max_count, max_bytes) = (limits.max_headers, limits.max_header_bytes);
        let found = if count > max_count {
            format!(
                "The request has {least}{count} headers, and server.max_headers is {max_count}."
            )
        } else if bytes > max_bytes {
            format!(
                "The request's headers have {least}{bytes} bytes, and server.max_header_bytes is {max_bytes}."
            )
        } else {
            return None;
        };
        Some(Self::HeadersTooLarge(found.into()))
    }

    /// The details that logs report: what was found and what was expected, or how a backend failed.
    pub fn cause(&self) -> Option<&str> {
        let denial = match self {
            Self::HeadersTooLarge(found) => return Some(found),
            Self::Denied(Denied { denial, .. }) => denial,
            _ => return None,
        };
        match denial {
            Denial::NotSignedIn(rejection)
            | Denial::NotMine(rejection, _)
            | Denial::Rejected(rejection) => rejection.detail.as_deref(),
            Denial::Unavailable(cause) => cause.detail.as_deref(),
        }
    }

    /// The backend's own `Retry-After`, or else [`SOON`].
    fn wait(&self) -> Duration {
        match self {
            Self::Denied(Denied {
                denial: Denial::Unavailable(cause),
                ..
            }) => cause.retry_after.unwrap_or(SOON),
            _ => SOON,
        }
    }

    /// The extractor that decided the result, if there is one.
    pub fn extractor(&self) -> Option<&Arc<str>> {
        match self {
            Self::Denied(denied) => denied.extractor.as_ref(),
            Self::RateLimited { extractor, .. } => Some(extractor),
            _ => None,
        }
    }

    /// The subject, if the error is `RateLimited`; `None` for every other error.
    pub fn subject(&self) -> Option<&Subject> {
        let Self::RateLimited { subject, .. } = self else {
            return None;
        };
        subject.as_ref()
    }

    /// Whether the request was refused before any extractor was tried. If so, the log line contains its method, path,
    /// host and origin.
    pub fn is_before_extractors(&self) -> bool {
        matches!(
            self,
            Self::BadRequest(_)
                | Self::OriginNotAllowed(_)
                | Self::NotAFetch(_)
                | Self::HostNotAllowed
                | Self::NotFound
                | Self::WrongPath(_)
                | Self::MethodNotAllowed(_)
                | Self::RequestTimeout
                | Self::BodyTooLarge
                | Self::UriTooLong
                | Self::HeadersTooLarge(_)
                | Self::Overloaded
        )
    }

    /// Advice on what the operator may have to change, for logs and `explain`.
    pub fn hint(&self, path_ends_in_token: bool) -> Option<&'static str> {
        let reason = match self {
            Self::NotFound if path_ends_in_token => {
                return Some(
                    "the path ends in `token`: does the proxy in front remove `/rollout`?",
                );
            }
            Self::OriginNotAllowed(reason) | Self::WrongPath(reason) => reason,
            _ => return None,
        };
        match reason {
            Reason::OriginNotListed => Some(
                "to let pages of this origin request tokens, add the origin to origins.allowed",
            ),
            Reason::OriginIsNotHost => Some(
                "if this is the service's own origin, the proxy in front must pass on Host with its port \
                 (nginx: proxy_set_header Host $http_host); if not, add the origin to origins.allowed",
            ),
            Reason::GetWithoutOrigin => Some(
                "call POST /rollout/token: a browser's GET over plain HTTP has no Origin, and a GET from a program needs a bearer token",
            ),
            Reason::DocsAliasOff => Some("set server.docs_alias = true"),
            Reason::OtherListener => Some(
                "call the other port: server.admin_listen serves /metrics, and server.listen serves the paths for apps",
            ),
            Reason::TrailingSlash => Some("call the path without the slash at its end"),
            Reason::PathPrefix => Some(
                "set server.base_path to the prefix of the path, or let the proxy in front remove it",
            ),
            _ => None,
        }
    }

    /// Whether the connection is closed after the response, because the end of the request is unknown or the rest of
    /// the request is not read.
    fn closes_connection(&self) -> bool {
        matches!(
            self,
            Self::BadRequest(_)
                | Self::BodyTooLarge
                | Self::HeadersTooLarge(_)
                | Self::RequestTimeout
                | Self::UriTooLong
        )
    }

    #[rustfmt::skip]
    fn mapping(&self) -> Mapping {
        let (status, code, header, title, detail) = match self {
            Self::BadRequest(_) => (StatusCode::BAD_REQUEST, "bad_request", None,
                "Bad request", "The request is not well-formed HTTP/1.1 with one Host and an unambiguous length."),
            Self::Denied(Denied { denial: Denial::NotSignedIn(_), .. }) => (StatusCode::UNAUTHORIZED, "no_session", Some((header::WWW_AUTHENTICATE, CHALLENGE)),
                "Not signed in", "The request carries no session of a signed-in user."),
            Self::Denied(Denied { denial: Denial::Rejected(rejection), .. }) if rejection.reason.is_expired() => (StatusCode::UNAUTHORIZED, "session_expired", Some((header::WWW_AUTHENTICATE, CHALLENGE_INVALID)),
                "Session expired", "The session has expired; sign in again."),
            Self::Denied(Denied { denial: Denial::NotMine(..) | Denial::Rejected(_), .. }) => (StatusCode::UNAUTHORIZED, "session_invalid", Some((header::WWW_AUTHENTICATE, CHALLENGE_INVALID)),
                "Session not accepted", "The session in the request was not accepted."),
            Self::OriginNotAllowed(_) => (StatusCode::FORBIDDEN, "origin_not_allowed", None,
                "Origin not allowed", "Pages of this origin may not request tokens; the operator lists allowed origins in origins.allowed."),
            Self::NotAFetch(_) => (StatusCode::FORBIDDEN, "not_a_fetch", None,
                "Request not made by a script", "Tokens are for scripts: call this path with fetch, not as a page, a form or an embedded document."),
            Self::HostNotAllowed => (StatusCode::FORBIDDEN, "host_not_allowed", None,
                "Host not allowed", "Dev mode answers only requests to loopback hosts, such as localhost, 127.0.0.1 and [::1]."),
            Self::NotFound | Self::WrongPath(_) => (StatusCode::NOT_FOUND, "not_found", None,
                "Not found", "Nothing is served at this path."),
            Self::MethodNotAllowed(allow) => (StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", Some((header::ALLOW, HeaderValue::from_static(allow))),
                "Method not allowed", "This path does not accept this method; see the Allow header."),
            Self::RequestTimeout => (StatusCode::REQUEST_TIMEOUT, "request_timeout", None,
                "Request timeout", "The request did not arrive in time."),
            Self::BodyTooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", None,
                "Body too large", "The request's body is too large; the request needs no body."),
            Self::UriTooLong => (StatusCode::URI_TOO_LONG, "uri_too_long", None,
                "URI too long", "The request's target is too long."),
            Self::HeadersTooLarge(_) => (StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "headers_too_large", None,
                "Headers too large", "The browser may hold too many cookies for this host."),
            Self::RateLimited { retry_after, .. } => (StatusCode::TOO_MANY_REQUESTS, "rate_limited", Some(wait_header(retry_after.saturating_add(Duration::from_secs(1)))),
                "Too many requests", "Too many tokens were requested with this credential or for this user; try again later."),
            Self::ClockNotSet => (StatusCode::INTERNAL_SERVER_ERROR, "internal", None,
                "Internal error", "The service's clock is not set; see /readyz."),
            Self::Internal => (StatusCode::INTERNAL_SERVER_ERROR, "internal", None,
                "Internal error", "The service failed; the operator can find the cause in the log by the request id."),
            Self::Denied(Denied { denial: Denial::Unavailable(_), .. }) | Self::DeadlineExceeded => (StatusCode::SERVICE_UNAVAILABLE, "session_backend_unavailable", Some(wait_header(self.wait())),
                "Session cannot be checked", "The session cannot be checked right now; try again."),
            Self::Overloaded => (StatusCode::SERVICE_UNAVAILABLE, "overloaded", Some(wait_header(SOON)),
                "Overloaded", "The service has too many requests in flight; try again."),
            Self::Unready(report) => match report.state {
                InstanceState::ClockNotSet => (StatusCode::INTERNAL_SERVER_ERROR, "internal", None,
                    "Internal error", "The machine's clock is set to a time before 2020: set the clock, for example with NTP."),
                InstanceState::Draining => (StatusCode::SERVICE_UNAVAILABLE, "draining", Some(wait_header(SOON)),
                    "Shutting down", "This instance is shutting down; send the request to another instance."),
                InstanceState::Waiting | InstanceState::Ready => (StatusCode::SERVICE_UNAVAILABLE, "session_backend_unavailable", Some(wait_header(SOON)),
                    "Not ready", "An extractor is not ready to check sessions yet."),
            },
        };
        Mapping { status, code, title, detail, header }
    }

    /// One example of each error code, for the dev page and for tests of the documentation.
    pub fn every() -> Vec<Self> {
        let denied = |denial| {
            Self::Denied(Denied {
                extractor: None,
                denial,
            })
        };
        let rejected = |reason| {
            denied(Denial::Rejected(Rejection {
                reason,
                detail: None,
            }))
        };
        vec![
            Self::BadRequest(Reason::Malformed),
            denied(Denial::NotSignedIn(Rejection {
                reason: Reason::NoCredential,
                detail: None,
            })),
            rejected(Reason::Expired),
            rejected(Reason::Malformed),
            Self::OriginNotAllowed(Reason::OriginNotListed),
            Self::NotAFetch(Reason::Navigation),
            Self::HostNotAllowed,
            Self::NotFound,
            Self::MethodNotAllowed(""),
            Self::RequestTimeout,
            Self::BodyTooLarge,
            Self::UriTooLong,
            Self::HeadersTooLarge(
                "The request has 101 headers, and server.max_headers is 100.".into(),
            ),
            Self::RateLimited {
                extractor: Arc::from(""),
                subject: None,
                retry_after: Duration::ZERO,
            },
            Self::Internal,
            denied(Denial::Unavailable(Cause {
                reason: Reason::Timeout,
                detail: None,
                retry_after: None,
            })),
            Self::Overloaded,
            Self::Unready(Arc::new(Report::of(InstanceState::Draining))),
        ]
    }

    /// The `title` of the problem details.
    pub fn title(&self) -> &'static str {
        self.mapping().title
    }

    /// The name of the header that this error adds, such as `Retry-After`; `None` if it adds none.
    pub fn header(&self) -> Option<HeaderName> {
        self.mapping().header.map(|(name, _)| name)
    }

    /// The response that reports this error, without the headers that [`protect`] adds.
    pub fn respond(&self, request_id: &str) -> Response {
        let Mapping { status, header, .. } = self.mapping();
        let mut response = (status, Json(self.problem(request_id))).into_response();
        let headers = response.headers_mut();
        headers.extend(header);
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        if self.closes_connection() {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    pub(super) fn problem<'a>(&'a self, request_id: &'a str) -> Problem<'a> {
        let mapping = self.mapping();
        Problem {
            r#type: format!("urn:rollout-token:{}", mapping.code),
            title: mapping.title,
            status: mapping.status.as_u16(),
            detail: match self {
                Self::HeadersTooLarge(found) => format!("{found} {}", mapping.detail).into(),
                _ => mapping.detail.into(),
            },
            code: mapping.code,
            request_id,
            report: match self {
                Self::Unready(report) => Some(report),
                _ => None,
            },
        }
    }
}

/// Puts the error into the response's extensions. The middleware `finish` in `app.rs`, which has the request id, logs
/// the error and builds the response.
impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let mut response = self.status().into_response();
        response.extensions_mut().insert(self);
        response
    }
}

/// Adds the headers that every response has. Responses are not cacheable, except for `client.js`, which sets its own
/// `Cache-Control`.
pub fn protect(headers: &mut HeaderMap) {
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    headers.insert(header::VARY, HeaderValue::from_static("Origin"));
    if !headers.contains_key(header::CACHE_CONTROL) {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(header::PRAGMA, HeaderValue::from_static("no-cache"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_that_carry_no_reason_report_their_code_as_the_reason() {
        for error in Error::every() {
            let carries_reason = matches!(
                error,
                Error::BadRequest(_)
                    | Error::Denied(_)
                    | Error::OriginNotAllowed(_)
                    | Error::NotAFetch(_)
            );
            assert!(
                carries_reason || error.reason() == error.code(),
                "{error:?}"
            );
        }
    }

    #[test]
    fn each_state_of_an_instance_that_is_not_ready_has_a_status_and_a_code() {
        for (state, name, status, code) in [
            (InstanceState::Draining, "draining", 503, "draining"),
            (InstanceState::ClockNotSet, "clock_not_set", 500, "internal"),
            (
                InstanceState::Waiting,
                "waiting",
                503,
                "session_backend_unavailable",
            ),
        ] {
            let error = Error::Unready(Arc::new(Report::of(state)));
            assert_eq!((error.status().as_u16(), error.code()), (status, code));
            let problem = serde_json::to_value(error.problem("id")).unwrap();
            assert_eq!(problem["state"], name);
        }
    }
}
