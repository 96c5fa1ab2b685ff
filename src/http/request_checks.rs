//! What a request must look like before anything else is asked of it: its head is checked, its body
//! is read and thrown away. What cannot be parsed at all is refused in `server::connection`.

use std::net::Ipv6Addr;

use axum::body::{Body, HttpBody};
use axum::extract::Request;
use axum::http::request::Parts;
use axum::http::uri::Uri;
use axum::http::{HeaderMap, Method, Version, header};
use http_body_util::BodyExt;

use crate::headers::{DuplicateHeader, single};
use crate::http::error::Error;
use crate::settings::ServerConfig;

/// A header's share of the limit beside its name and value: `: ` and the end of its line.
const HEADER_OVERHEAD: usize = 4;
/// In the extensions of a request whose target had a `#`, which its `Uri` does not show.
#[derive(Clone, Copy, Debug)]
pub struct FragmentInTarget;

const MAX_HOST_BYTES: usize = 255;
/// No path takes CONNECT, so it is refused before its odd target gets to the router.
const TUNNELS_NOWHERE: Error = Error::MethodNotAllowed("GET, HEAD, POST, OPTIONS");

/// Checks the head, and reads the body to its end so that the connection can be used again. The request that comes
/// back has no body.
///
/// # Errors
/// Those of [`check_head`] and [`discard_body`].
pub async fn check(request: Request, limits: &ServerConfig) -> Result<Request, Error> {
    let (head, body) = request.into_parts();
    check_head(&head, limits)?;
    discard_body(body, limits).await?;
    Ok(Request::from_parts(head, Body::empty()))
}

/// Checks all of the head that can be checked without knowing what is asked for.
///
/// Sizes come first, so that no later check works on more than the limits allow.
///
/// # Errors
/// `UriTooLong`, `HeadersTooLarge`, `BodyTooLarge` by announcement, or `BadRequest`.
pub fn check_head(head: &Parts, limits: &ServerConfig) -> Result<(), Error> {
    if target_length(&head.uri) > limits.max_uri_bytes {
        return Err(Error::UriTooLong);
    }
    let (count, bytes) = (head.headers.len(), size(&head.headers));
    if count > limits.restart.max_headers || bytes > limits.restart.max_header_bytes {
        return Err(Error::HeadersTooLarge);
    }
    // A body whose end two parsers could see in different places is how requests are smuggled. Ours
    // needs none, so chunks are not even looked at.
    if head.headers.contains_key(header::TRANSFER_ENCODING) {
        return Err(Error::BadRequest("transfer_encoding"));
    }
    check_host(&head.headers, head.version)?;
    if head.method == Method::CONNECT {
        return Err(TUNNELS_NOWHERE);
    }
    if head.extensions.get::<FragmentInTarget>().is_some() {
        return Err(Error::BadRequest("fragment"));
    }
    if head.uri.authority().is_some() {
        return Err(Error::BadRequest("absolute_target"));
    }
    if announced_length(&head.headers)? > limits.max_body_bytes {
        return Err(Error::BodyTooLarge);
    }
    Ok(())
}

/// Reads the body to its end, so that the connection can be used again, and forgets it.
///
/// # Errors
/// `RequestTimeout` if the whole takes longer than `server.body_timeout`, `BodyTooLarge`, or
/// `BadRequest` if it breaks off.
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
        let frame = frame.map_err(|_| Error::BadRequest("broken_body"))?;
        let length = frame.data_ref().map_or(0, |data| data.len() as u64);
        allowed = allowed.checked_sub(length).ok_or(Error::BodyTooLarge)?;
    }
    Ok(())
}

fn target_length(uri: &Uri) -> usize {
    uri.path().len() + uri.query().map_or(0, |query| query.len() + 1)
}

fn size(headers: &HeaderMap) -> usize {
    headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len() + HEADER_OVERHEAD)
        .sum()
}

/// Exactly one `Host`, and one that could be a host (RFC 9112, section 3.2). HTTP/1.0 may go without.
fn check_host(headers: &HeaderMap, version: Version) -> Result<(), Error> {
    match single(headers, &header::HOST) {
        Ok(Some(host)) if is_host(host.as_bytes()) => Ok(()),
        Ok(None) if version < Version::HTTP_11 => Ok(()),
        Ok(Some(_)) => Err(Error::BadRequest("host")),
        Ok(None) => Err(Error::BadRequest("no_host")),
        Err(DuplicateHeader) => Err(Error::BadRequest("two_hosts")),
    }
}

/// A name or address that clients really send, and perhaps a port. The rest of RFC 3986's grammar
/// (user info, percent-encoding, sub-delimiters) has no business in a `Host`.
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

/// The length that the head announces: 0 if it announces none.
fn announced_length(headers: &HeaderMap) -> Result<u64, Error> {
    const WRONG: Error = Error::BadRequest("content_length");
    let Some(length) = single(headers, &header::CONTENT_LENGTH).map_err(|DuplicateHeader| WRONG)?
    else {
        return Ok(0);
    };
    let digits = length
        .to_str()
        .ok()
        .filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    digits.and_then(|digits| digits.parse().ok()).ok_or(WRONG)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts() {
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
