//! Shows, for `explain`, what happens to a request before an extractor is tried: a raw request passes through a
//! connection, the request checks, the router and the origin check, as in the running service. `session::explain`
//! explains the extractors.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use axum::Extension;
use axum::http::StatusCode;
use axum::http::request::Parts;

use crate::http::app::{self, App};
use crate::http::error::Error;
use crate::http::origin::{self, Caller};
use crate::http::pasted;
use crate::http::routes::token;
use crate::http::server;
use crate::session::reason::Reason;
use crate::settings::Settings;

/// The result of the checks that precede the extractors.
#[derive(Debug)]
pub enum Beginning {
    /// The request reaches the extractors.
    Reached(Parts, Caller),
    Refused(Error),
    /// The request is answered without a session: a preflight, another route, or a head that cannot be parsed. The
    /// string contains the status of the response and, for an error, its code.
    Answered(String),
    /// The status of the response to a preflight whose request the browser will not send, and the reason.
    RefusedPreflight(StatusCode, Reason),
}

/// A request extension that marks a request from `explain`. It receives the result of the checks, and prevents the
/// service from minting a token.
#[derive(Clone, Debug, Default)]
pub struct Explaining(Arc<Mutex<Option<Beginning>>>);

impl Explaining {
    /// Records the first outcome. Later outcomes are only its consequences and are ignored.
    pub fn record(&self, beginning: Beginning) {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.get_or_insert(beginning);
    }

    fn take(&self) -> Option<Beginning> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Sends the bytes of a request through the service up to its extractors.
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

/// The status and the code of a response.
fn outcome(answer: &[u8]) -> String {
    let text = String::from_utf8_lossy(answer);
    let status = text.split(' ').nth(1);
    let code = text
        .split_once(r#""code":""#)
        .and_then(|(_, rest)| rest.split('"').next());
    match (status, code) {
        (Some(status), Some(code)) => format!("{status} {code}"),
        (Some(status), None) => status.to_owned(),
        (None, _) => "none: the head is incomplete".to_owned(),
    }
}

/// The result for a request to the token route if only its headers are known.
pub fn headers(settings: &Settings, head: Parts) -> Beginning {
    let caller = origin::check_fetch(&head.headers)
        .map_err(Error::NotAFetch)
        .and_then(|()| {
            origin::check(&settings.origins, &head.headers).map_err(Error::OriginNotAllowed)
        });
    match caller {
        Ok(caller) => Beginning::Reached(head, caller),
        Err(error) => Beginning::Refused(error),
    }
}

/// The pasted request in the form in which the service would receive it. Operators also paste HTTP/2 and HTTP/3 heads,
/// which a proxy would forward as HTTP/1.1, headers without a request line, and heads without their body.
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
        _ if line.contains(&b':') => {
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
    let value = |name: &str| {
        lines.iter().find_map(|line| {
            let (found, value) = line.split_at_checked(name.len())?;
            found
                .eq_ignore_ascii_case(name.as_bytes())
                .then(|| String::from_utf8_lossy(value.trim_ascii()).into_owned())
        })
    };
    let method = value(":method:").unwrap_or_else(|| "POST".to_owned());
    let path = value(":path:").unwrap_or_else(|| token_path.to_owned());
    let mut request = format!("{method} {path} HTTP/1.1\r\n").into_bytes();
    if value("host:").is_none() {
        let host = value(":authority:").unwrap_or_else(|| "localhost".to_owned());
        request.extend_from_slice(format!("Host: {host}\r\n").as_bytes());
    }
    for line in lines.iter().filter(|line| !line.starts_with(b":")) {
        request.extend_from_slice(line);
        request.extend_from_slice(b"\r\n");
    }
    request
}

/// Appends the missing bytes of the body. The service ignores the body, so their values do not matter.
fn complete_body(request: &mut Vec<u8>) {
    let text = String::from_utf8_lossy(request).replace("\r\n", "\n");
    let (head, body) = text.split_once("\n\n").unwrap_or((&text, ""));
    let value = |name: &str| {
        head.lines().find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found
                .eq_ignore_ascii_case(name)
                .then(|| value.trim().to_owned())
        })
    };
    if let Some(length) = value("content-length").and_then(|length| length.parse::<usize>().ok()) {
        // A body longer than 64 KiB is refused because of its `Content-Length`, so it need not be complete.
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
