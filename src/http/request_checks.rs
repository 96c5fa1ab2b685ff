//! Checks the form of a request before it is routed: validates its head, and reads its body. Only the body of
//! `/dev/explain` is kept; other bodies are discarded.
//! `server::connection` refuses heads that cannot be parsed.

use std::net::Ipv6Addr;

use axum::body::{Body, HttpBody};
use axum::extract::Request;
use axum::http::request::Parts;
use axum::http::uri::Uri;
use axum::http::{HeaderMap, HeaderValue, Method, Version, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};

use crate::headers::{DuplicateHeader, single};
use crate::http::error::Error;
use crate::session::reason::Reason;
use crate::settings::ServerConfig;

/// The number of bytes that a header line has besides its name and value: `: ` and CR LF.
const HEADER_OVERHEAD: usize = 4;
const MAX_HOST_BYTES: usize = 255;

/// A request extension that marks an ambiguous head: two parsers could interpret it differently, but the parsed head no
/// longer shows this.
#[derive(Clone, Copy, Debug)]
pub struct AmbiguousHead(pub Reason);

/// A request extension with the number and size of the headers as received, without the request id that the service
/// adds.
#[derive(Clone, Copy, Debug)]
struct HeaderSize {
    count: usize,
    bytes: usize,
}

/// The error for CONNECT, which is refused before routing, because its target is not a path.
const NO_CONNECT: Error = Error::MethodNotAllowed("GET, HEAD, POST, OPTIONS");

/// Adds the number and size of the headers as received to the request's extensions. Must be called before the service
/// adds headers.
pub fn measured(mut request: Request) -> Request {
    let size = measure(request.headers());
    request.extensions_mut().insert(size);
    request
}

/// Checks the head, and reads and discards the body. Returns the request without its body.
///
/// # Errors
/// The errors of [`check_head`] and [`discard_body`].
pub async fn check(request: Request, limits: &ServerConfig) -> Result<Request, Error> {
    let (head, body) = request.into_parts();
    check_head(&head, limits, limits.max_body_bytes)?;
    discard_body(body, limits).await?;
    Ok(Request::from_parts(head, Body::empty()))
}

/// Like [`check`], but keeps a body of up to `max_bytes`.
///
/// # Errors
/// The same errors as [`check`].
pub async fn check_with_body(
    request: Request,
    limits: &ServerConfig,
    max_bytes: usize,
) -> Result<Request, Error> {
    let (head, body) = request.into_parts();
    check_head(&head, limits, max_bytes as u64)?;
    let read = Limited::new(body, max_bytes).collect();
    let body = tokio::time::timeout(limits.body_timeout.0, read)
        .await
        .map_err(|_| Error::RequestTimeout)?
        .map_err(|error| {
            if error.is::<LengthLimitError>() {
                Error::BodyTooLarge
            } else {
                Error::BadRequest(Reason::BrokenBody)
            }
        })?;
    Ok(Request::from_parts(head, Body::from(body.to_bytes())))
}

/// Checks everything in the head that does not depend on the route. The sizes of the target and the headers are checked
/// first, so that the limits also bound the cost of the later checks.
///
/// # Errors
/// `UriTooLong`, `HeadersTooLarge`, `BodyTooLarge` (by `Content-Length`), `MethodNotAllowed` (for CONNECT), or
/// `BadRequest`.
pub fn check_head(head: &Parts, limits: &ServerConfig, max_body_bytes: u64) -> Result<(), Error> {
    if target_length(&head.uri) > limits.max_uri_bytes {
        return Err(Error::UriTooLong);
    }
    let HeaderSize { count, bytes } = head
        .extensions
        .get()
        .copied()
        .unwrap_or_else(|| measure(&head.headers));
    if let Some(error) = Error::of_headers(count, bytes, false, &limits.restart) {
        return Err(error);
    }
    if let Some(AmbiguousHead(reason)) = head.extensions.get() {
        return Err(Error::BadRequest(*reason));
    }
    check_transfer_encoding(&head.headers)?;
    check_host(&head.headers, head.version)?;
    if head.method == Method::CONNECT {
        return Err(NO_CONNECT);
    }
    if head.uri.authority().is_some() {
        return Err(Error::BadRequest(Reason::AbsoluteTarget));
    }
    if content_length(&head.headers)? > max_body_bytes {
        return Err(Error::BodyTooLarge);
    }
    Ok(())
}

/// Reads and discards the whole body, so that the connection can be reused.
///
/// # Errors
/// `RequestTimeout` after `server.body_timeout`, `BodyTooLarge`, or `BadRequest` if the body is incomplete or
/// malformed.
pub async fn discard_body(body: Body, limits: &ServerConfig) -> Result<(), Error> {
    if body.is_end_stream() {
        return Ok(());
    }
    let read = read_to_end(body, limits.max_body_bytes);
    tokio::time::timeout(limits.body_timeout.0, read)
        .await
        .unwrap_or(Err(Error::RequestTimeout))
}

async fn read_to_end(mut body: Body, mut allowed: u64) -> Result<(), Error> {
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Error::BadRequest(Reason::BrokenBody))?;
        let length = frame.data_ref().map_or(0, |data| data.len() as u64);
        allowed = allowed.checked_sub(length).ok_or(Error::BodyTooLarge)?;
    }
    Ok(())
}

fn target_length(uri: &Uri) -> usize {
    uri.path().len() + uri.query().map_or(0, |query| query.len() + 1)
}

fn measure(headers: &HeaderMap) -> HeaderSize {
    let bytes = headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len() + HEADER_OVERHEAD)
        .sum();
    HeaderSize {
        count: headers.len(),
        bytes,
    }
}

/// Prevents request smuggling, in which the proxy in front and the service disagree about where the body ends.
/// `Transfer-Encoding` must be absent or exactly `chunked`, the form that all parsers understand. `TE` must not contain
/// `chunked` (RFC 9110, section 10.1.4), because a parser could confuse the two headers.
fn check_transfer_encoding(headers: &HeaderMap) -> Result<(), Error> {
    let is_plain = single(headers, &header::TRANSFER_ENCODING)
        .is_ok_and(|value| value.is_none_or(|value| value == "chunked"));
    let names_it = |value: &HeaderValue| {
        let codings = value.as_bytes().split(|&byte| byte == b',');
        codings
            .map(<[u8]>::trim_ascii)
            .any(|coding| coding.eq_ignore_ascii_case(b"chunked"))
    };
    if is_plain && !headers.get_all(header::TE).iter().any(names_it) {
        Ok(())
    } else {
        Err(Error::BadRequest(Reason::TransferEncoding))
    }
}

/// Requires exactly one valid `Host` (RFC 9112, section 3.2). An HTTP/1.0 request may omit it.
fn check_host(headers: &HeaderMap, version: Version) -> Result<(), Error> {
    match single(headers, &header::HOST) {
        Ok(Some(host)) if is_host(host.as_bytes()) => Ok(()),
        Ok(None) if version < Version::HTTP_11 => Ok(()),
        Ok(Some(_)) => Err(Error::BadRequest(Reason::Host)),
        Ok(None) => Err(Error::BadRequest(Reason::NoHost)),
        Err(DuplicateHeader) => Err(Error::BadRequest(Reason::TwoHosts)),
    }
}

/// Whether `host` is a host name or an IP address, with an optional port. User info, percent-encoding and
/// sub-delimiters, which RFC 3986 allows, are refused, because clients do not send them in `Host`.
fn is_host(host: &[u8]) -> bool {
    let Ok(host) = std::str::from_utf8(host) else {
        return false;
    };
    if host.len() > MAX_HOST_BYTES {
        return false;
    }
    let (host_is_valid, rest) = if let Some(literal) = host.strip_prefix('[') {
        let Some((address, rest)) = literal.split_once(']') else {
            return false;
        };
        (address.parse::<Ipv6Addr>().is_ok(), rest)
    } else {
        let (name, rest) = host.split_at(host.find(':').unwrap_or(host.len()));
        (!name.is_empty() && name.bytes().all(is_name_byte), rest)
    };
    host_is_valid && (rest.is_empty() || rest.strip_prefix(':').is_some_and(is_port))
}

fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b".-_~".contains(&byte)
}

fn is_port(port: &str) -> bool {
    port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok()
}

/// The value of `Content-Length`; 0 if it is absent.
fn content_length(headers: &HeaderMap) -> Result<u64, Error> {
    const MALFORMED: Error = Error::BadRequest(Reason::ContentLength);
    let Some(length) =
        single(headers, &header::CONTENT_LENGTH).map_err(|DuplicateHeader| MALFORMED)?
    else {
        return Ok(0);
    };
    let digits = length
        .to_str()
        .ok()
        .filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    digits
        .and_then(|digits| digits.parse().ok())
        .ok_or(MALFORMED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_is_a_name_or_an_address_with_an_optional_port() {
        let long = "a".repeat(256);
        let cases = [
            ("localhost", true),
            ("app.example:8080", true),
            ("app.example.", true),
            ("my_service:80", true),
            ("192.0.2.1", true),
            ("[::1]:8080", true),
            ("[2001:db8::1]", true),
            ("", false),
            (":80", false),
            ("app.example:", false),
            ("app.example:65536", false),
            ("app.example:+80", false),
            ("app.example:80@evil", false),
            ("user@app.example", false),
            ("[::1", false),
            ("::1", false),
            ("[::1]x", false),
            ("[evil]", false),
            ("a b", false),
            ("a,b", false),
            ("a/b", false),
            ("caf\u{e9}.example", false),
            (&long, false),
        ];
        for (host, good) in cases {
            assert_eq!(is_host(host.as_bytes()), good, "{host:?}");
        }
        assert!(!is_host(b"\xff\xfe"));
    }
}
