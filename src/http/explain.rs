//! Shows, for `explain` and for the page of `dev`, what happens to a request before an extractor is tried: a raw
//! request passes through a connection, the request checks, the router and the origin check, as in the running service.
//! If only the headers are known, they are checked as on the token route.
//! `session::explain` explains the extractors.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use axum::Extension;
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use serde_json::Value;

use crate::http::app::{self, App};
use crate::http::error::Error;
use crate::http::origin::Caller;
use crate::http::pasted;
use crate::http::routes::token;
use crate::http::server;
use crate::session::chain::{Chain, ConfiguredExtractor, Denied};
use crate::session::explain::{self, Explanation};
use crate::session::reason::Reason;
use crate::session::subject::Subject;
use crate::settings::Settings;

/// The result of the checks that precede the extractors.
pub enum Beginning {
    /// The request reaches the extractors.
    Reached(Parts, Caller),
    Refused(Error),
    /// The request is answered without a session: a preflight, another route, or a head that cannot be parsed. The
    /// string contains the status of the response and, for an error, its code, or explains why there is no response.
    Answered(String),
    /// The status of the response to a preflight whose request the browser will not send, and the reason.
    RefusedPreflight(StatusCode, Reason),
}

/// A request extension that marks a request from `explain`. It receives the result of the checks, and prevents the
/// service from minting a token.
#[derive(Clone, Default)]
pub struct Explaining(Arc<Mutex<Option<Beginning>>>);

impl Explaining {
    /// Records the first result and ignores later ones: after `Reached`, the token route returns an error, but only to
    /// end the request.
    pub fn record(&self, beginning: Beginning) {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.get_or_insert(beginning);
    }

    fn take(&self) -> Option<Beginning> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Sends the bytes of a request through the service up to its extractors. Returns the request as the extractors would
/// get it, or how the service answers without them.
pub async fn raw(app: &Arc<App>, request: &[u8], peer: IpAddr) -> Beginning {
    let explaining = Explaining::default();
    let router = app::public(app).layer(Extension(explaining.clone()));
    let bytes = completed(request, &format!("{}{}", app.base_path, token::PATH));
    let answer = server::answer_once(
        router,
        app.server_settings(),
        app.metrics.clone(),
        app.log.clone(),
        SocketAddr::new(peer, 0),
        &bytes,
    )
    .await;
    explaining
        .take()
        .unwrap_or_else(|| Beginning::Answered(outcome(&answer)))
}

/// The status and the code of a response, or a text that says why there is no response.
fn outcome(answer: &[u8]) -> String {
    let text = String::from_utf8_lossy(answer);
    let status = text.split(' ').nth(1);
    let body = text.split_once("\r\n\r\n").map(|(_, body)| body);
    let body: Value = body
        .and_then(|body| serde_json::from_str(body).ok())
        .unwrap_or_default();
    match (status, body["code"].as_str()) {
        (Some(status), Some(code)) => format!("{status} {code}"),
        (Some(status), None) => status.to_owned(),
        (None, _) => "no response, because the head is incomplete".to_owned(),
    }
}

/// The result for a request to the token route if only its headers are known.
pub fn headers(settings: &Settings, head: Parts) -> Beginning {
    match token::check_caller(&settings.origins, &head.headers) {
        Ok(caller) => Beginning::Reached(head, caller),
        Err(error) => Beginning::Refused(error),
    }
}

/// A description of the checks before the extractors, and the request with which the extractors are tried.
pub struct Checks {
    /// The result of the checks, the most important line first. Values of the request are escaped.
    pub lines: Vec<String>,
    /// The status and code of the response, if it is sent before any extractor is tried.
    pub answer: Option<String>,
    /// The request with which the extractors are tried.
    pub head: Parts,
    caller: Option<Caller>,
}

impl Beginning {
    /// Describes the result for the pasted request.
    pub fn describe(self, pasted: &Parts) -> Checks {
        let (lines, answer) = match self {
            Self::Reached(head, caller) => {
                let line = format!("origin: allowed, {}", describe_caller(caller));
                return Checks {
                    lines: vec![line],
                    answer: None,
                    head,
                    caller: Some(caller),
                };
            }
            Self::Refused(error) => (describe_refusal(&error, pasted), describe_answer(&error)),
            Self::RefusedPreflight(status, reason) => {
                let line = format!(
                    "request: preflight refused with reason {reason}, so the browser does not send the request ({}: {}, {}: {})",
                    header::ACCESS_CONTROL_REQUEST_METHOD,
                    shown(pasted, &header::ACCESS_CONTROL_REQUEST_METHOD),
                    header::ACCESS_CONTROL_REQUEST_HEADERS,
                    shown(pasted, &header::ACCESS_CONTROL_REQUEST_HEADERS),
                );
                (vec![line], status.as_u16().to_string())
            }
            Self::Answered(answer) => {
                let mut lines = vec![format!(
                    "request: answered before any extractor is tried: {answer}"
                )];
                let malformed = Error::BadRequest(Reason::Malformed);
                if answer == describe_answer(&malformed) {
                    lines.push(format!(
                        "reason {}: the request line, a header, Transfer-Encoding or Content-Length is not well-formed HTTP/1.1",
                        malformed.reason()
                    ));
                }
                (lines, answer)
            }
        };
        Checks {
            lines,
            answer: Some(answer),
            head: pasted.clone(),
            caller: None,
        }
    }
}

impl Checks {
    /// Tries the extractors as [`explain::explain`] does, even if the service would refuse the request earlier, so that
    /// the operator sees all results. Calls `asking` with each extractor before it is tried. If the checks already
    /// answer the request, no extractor decides.
    pub async fn explain(
        &self,
        chain: &Chain,
        asking: impl FnMut(&ConfiguredExtractor),
    ) -> Explanation {
        let is_bearer_alone = self.caller == Some(Caller::ListedByPattern);
        let mut explanation = explain::explain(chain, &self.head, is_bearer_alone, asking).await;
        if self.answer.is_some() {
            for step in &mut explanation.steps {
                step.decides = false;
            }
        }
        explanation
    }

    /// The subject of the token, or the status and code of the response without a token.
    pub fn verdict(&self, outcome: Result<Subject, Denied>) -> Result<Subject, String> {
        match &self.answer {
            Some(answer) => Err(answer.clone()),
            None => outcome.map_err(|denied| describe_answer(&denied.into())),
        }
    }
}

fn describe_caller(caller: Caller) -> &'static str {
    match caller {
        Caller::NoBrowser => "the client is not a browser",
        Caller::SameOrigin => "the page has the service's own origin",
        Caller::Listed => {
            "the page's origin is in origins.allowed or, under dev, is a loopback origin"
        }
        Caller::ListedByPattern => {
            "the page's origin matches a pattern, so only a bearer token identifies the user"
        }
    }
}

/// Why the service would refuse the request before it tries an extractor, with the request's `Origin` and `Host`. The
/// details of the error and the hint follow, if there are any.
fn describe_refusal(error: &Error, pasted: &Parts) -> Vec<String> {
    let what = match error {
        Error::OriginNotAllowed(_) | Error::HostNotAllowed => "origin: refused",
        Error::NotAFetch(_) => "request: refused (not made by a script with fetch)",
        _ => "request: refused",
    };
    let refused = format!(
        "{what} with reason {}, so no extractor would run (Origin: {}, Host: {})",
        error.reason(),
        shown(pasted, &header::ORIGIN),
        shown(pasted, &header::HOST)
    );
    let path_ends_in_token = pasted.uri.path().ends_with("token");
    let advice = error
        .cause()
        .into_iter()
        .chain(error.hint(path_ends_in_token));
    std::iter::once(refused)
        .chain(advice.map(str::to_owned))
        .collect()
}

/// A header of the request, with control characters escaped.
fn shown(pasted: &Parts, name: &HeaderName) -> String {
    let value = pasted.headers.get(name).map(HeaderValue::as_bytes);
    value.map_or_else(
        || "none".to_owned(),
        |value| value.escape_ascii().to_string(),
    )
}

fn describe_answer(error: &Error) -> String {
    format!("{} {}", error.status().as_u16(), error.code())
}

/// The pasted request in the form in which the service would receive it. Operators also paste headers without a request
/// line, heads without their body, and HTTP/2 and HTTP/3 heads, which a proxy would forward as HTTP/1.1.
fn completed(pasted: &[u8], token_path: &str) -> Vec<u8> {
    let start = pasted.trim_ascii_start();
    let end = start
        .iter()
        .position(|byte| *byte == b'\n')
        .unwrap_or(start.len());
    let (line, rest) = start.split_at(end);
    let line = line.trim_ascii_end();
    let line = match line.iter().rposition(|byte| *byte == b' ') {
        Some(space) if line[space..].starts_with(b" HTTP/") => {
            let version = match &line[space..] {
                b" HTTP/2" | b" HTTP/2.0" | b" HTTP/3" | b" HTTP/3.0" => b" HTTP/1.1",
                version => version,
            };
            [&line[..space], version].concat()
        }
        // `head_lines` adds the header name to a first line that lacks one, such as `Bearer TOKEN`.
        _ if pasted::head_lines(start)
            .1
            .first()
            .is_some_and(|first| first.contains(&b':')) =>
        {
            return completed(&with_request_line(start, token_path), token_path);
        }
        _ => line.to_vec(),
    };
    let mut request = [line.as_slice(), b"\r", rest].concat();
    let is_whole = |request: &[u8]| {
        request.windows(4).any(|end| end == b"\r\n\r\n")
            || request.windows(2).any(|end| end == b"\n\n")
    };
    if !is_whole(&request) {
        let end: &[u8] = if request.ends_with(b"\n") {
            b"\r\n"
        } else {
            b"\r\n\r\n"
        };
        request.extend_from_slice(end);
    }
    complete_body(&mut request);
    request
}

/// Adds a request line to the headers. For HTTP/2, browsers show pseudo-headers instead of a request line.
fn with_request_line(headers: &[u8], token_path: &str) -> Vec<u8> {
    let (_, lines) = pasted::head_lines(headers);
    let value = |name| pasted::value(&lines, name);
    let method = value(":method").unwrap_or_else(|| "POST".to_owned());
    let path = value(":path").unwrap_or_else(|| token_path.to_owned());
    let mut request = format!("{method} {path} HTTP/1.1\r\n").into_bytes();
    if value("host").is_none() {
        let host = value(":authority").unwrap_or_else(|| "localhost".to_owned());
        request.extend_from_slice(format!("Host: {host}\r\n").as_bytes());
    }
    for line in pasted::headers_only(&lines) {
        request.extend_from_slice(line);
        request.extend_from_slice(b"\r\n");
    }
    request
}

/// Appends the missing bytes of the body. The service ignores the body, so their values do not matter.
fn complete_body(request: &mut Vec<u8>) {
    let text = String::from_utf8_lossy(request).replace("\r\n", "\n");
    let (head, body) = text.split_once("\n\n").unwrap_or((&text, ""));
    let (_, lines) = pasted::head_lines(head.as_bytes());
    let value = |name| pasted::value(&lines, name);
    if let Some(length) = value("content-length").and_then(|length| length.parse::<usize>().ok()) {
        // At most 64 KiB are added, because a body above `server.max_body_bytes`, by default 4 KiB, is refused for its
        // `Content-Length` alone.
        let missing = length.saturating_sub(body.len()).min(64 * 1024);
        request.resize(request.len() + missing, b' ');
    } else if value("transfer-encoding").is_some() && body.trim().is_empty() {
        request.extend_from_slice(b"0\r\n\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::completed;

    #[test]
    fn pasted_head_is_completed_to_an_http_1_request() {
        for (pasted, want) in [
            (
                "POST /a HTTP/1.1\r\nHost: a\r\n\r\n",
                "POST /a HTTP/1.1\r\nHost: a\r\n\r\n",
            ),
            (
                "POST /a HTTP/2\nHost: a\n",
                "POST /a HTTP/1.1\r\nHost: a\n\r\n",
            ),
            (
                "\nGET /a HTTP/1.0\nHost: a\n\n",
                "GET /a HTTP/1.0\r\nHost: a\n\n",
            ),
            (
                "Host: a\r\nCookie: b=c",
                "POST /t HTTP/1.1\r\nHost: a\r\nCookie: b=c\r\n\r\n",
            ),
            (
                "Cookie: b=c",
                "POST /t HTTP/1.1\r\nHost: localhost\r\nCookie: b=c\r\n\r\n",
            ),
            (
                ":authority:\na\n:method:\nGET\n:path:\n/p?q\n:scheme:\nhttps\ncookie:\nb=c\n",
                "GET /p?q HTTP/1.1\r\nHost: a\r\ncookie:b=c\r\n\r\n",
            ),
            (
                "Bearer a.b.c",
                "POST /t HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer a.b.c\r\n\r\n",
            ),
            (
                "a.b.c\n",
                "POST /t HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer a.b.c\r\n\r\n",
            ),
            (
                "b=c; d=e",
                "POST /t HTTP/1.1\r\nHost: localhost\r\nCookie: b=c; d=e\r\n\r\n",
            ),
            ("GET /a", "GET /a\r\r\n\r\n"),
            (
                "POST /a HTTP/1.1\r\nContent-Length: 3\r\n\r\nx",
                "POST /a HTTP/1.1\r\nContent-Length: 3\r\n\r\nx  ",
            ),
            (
                "POST /a HTTP/1.1\nTransfer-Encoding: chunked\n\n",
                "POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\n\n0\r\n\r\n",
            ),
        ] {
            let found = completed(pasted.as_bytes(), "/t");
            assert_eq!(String::from_utf8(found).unwrap(), want, "{pasted:?}");
        }
    }
}
