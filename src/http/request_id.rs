//! The request id, `X-Request-Id`: the caller's id if it is well-formed, otherwise a new id. tower-http's layers set
//! the header on the request and on the response.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use tower_http::request_id::{MakeRequestId, RequestId};

use crate::headers::single;

pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

const MAX_LENGTH: usize = 64;

/// Removes the caller's id unless there is exactly one and it consists of 1 to 64 letters, digits, `.`, `_` and `-`,
/// because the id is copied into headers, log lines and JSON. tower-http keeps an existing id and otherwise generates
/// one.
pub fn drop_malformed(mut request: Request) -> Request {
    if !is_well_formed(request.headers()) {
        request.headers_mut().remove(X_REQUEST_ID);
    }
    request
}

fn is_well_formed(headers: &HeaderMap) -> bool {
    let Ok(Some(value)) = single(headers, &X_REQUEST_ID) else {
        return false;
    };
    let is_safe = |byte: &u8| byte.is_ascii_alphanumeric() || b"._-".contains(byte);
    (1..=MAX_LENGTH).contains(&value.len()) && value.as_bytes().iter().all(is_safe)
}

/// Generates ids that are unique across processes, from a random prefix and a counter.
#[derive(Clone, Debug)]
pub struct RequestIds(Arc<Counter>);

#[derive(Debug)]
struct Counter {
    prefix: String,
    next: AtomicU64,
}

impl RequestIds {
    pub fn new() -> Self {
        // The standard library seeds its hashers randomly. That is sufficient, because an id must be unique but need
        // not be secret.
        let prefix = format!("{:016x}", RandomState::new().build_hasher().finish());
        Self(Arc::new(Counter {
            prefix,
            next: AtomicU64::new(0),
        }))
    }

    pub fn next(&self) -> String {
        format!(
            "{}-{:x}",
            self.0.prefix,
            self.0.next.fetch_add(1, Ordering::Relaxed)
        )
    }
}

impl Default for RequestIds {
    fn default() -> Self {
        Self::new()
    }
}

impl MakeRequestId for RequestIds {
    fn make_request_id<B>(&mut self, _: &axum::http::Request<B>) -> Option<RequestId> {
        HeaderValue::try_from(self.next()).ok().map(RequestId::new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(values: &[&[u8]]) -> HeaderMap {
        values
            .iter()
            .map(|value| (X_REQUEST_ID, HeaderValue::from_bytes(value).unwrap()))
            .collect()
    }

    #[test]
    fn well_formed_request_id_of_the_caller_is_kept() {
        for id in [
            "a",
            "0af7651916cd43dd8448eb211c80319c",
            "A.b_c-9",
            &"x".repeat(64),
        ] {
            assert!(is_well_formed(&headers(&[id.as_bytes()])), "{id}");
        }
    }

    #[test]
    fn malformed_or_repeated_request_id_of_the_caller_is_replaced() {
        let long = "x".repeat(65);
        let cases: [(&str, &[&[u8]]); 7] = [
            ("none", &[]),
            ("two", &[b"a", b"a"]),
            ("empty", &[b""]),
            ("too long", &[long.as_bytes()]),
            ("space", &[b"a b"]),
            ("quote", &[b"a\"b"]),
            ("not ASCII", &[b"a\xff\xfe"]),
        ];
        for (name, values) in cases {
            assert!(!is_well_formed(&headers(values)), "{name}");
        }
    }

    #[test]
    fn generated_request_ids_differ_within_and_between_processes() {
        let (one, other) = (RequestIds::new(), RequestIds::new());
        assert_ne!(one.next(), one.next());
        assert_ne!(one.next(), other.next());
    }
}
