//! The id that every request is known by: the caller's if it is harmless, else a new one.
//! Putting it into answers and logs is the application's work.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::http::{HeaderMap, HeaderName, HeaderValue};

pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

const MAX_LENGTH: usize = 64;

/// An id of up to 64 letters, digits, `.`, `_` and `-`: safe in a header, a log line and JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestId(HeaderValue);

impl RequestId {
    /// The caller's own id. `None` if there is none, more than one, or one that is not harmless.
    fn from_caller(headers: &HeaderMap) -> Option<Self> {
        let mut values = headers.get_all(X_REQUEST_ID).iter();
        let (Some(value), None) = (values.next(), values.next()) else { return None };
        let harmless = |byte: &u8| byte.is_ascii_alphanumeric() || b"._-".contains(byte);
        let fits = (1..=MAX_LENGTH).contains(&value.len());
        (fits && value.as_bytes().iter().all(harmless)).then(|| Self(value.clone()))
    }

    pub fn as_str(&self) -> &str {
        // Every id is ASCII, so the empty text never comes up.
        self.0.to_str().unwrap_or_default()
    }

    pub fn into_header(self) -> HeaderValue {
        self.0
    }
}

/// Makes ids that no other process and no other request has: a random prefix and a counter.
#[derive(Debug)]
pub struct RequestIds {
    prefix: String,
    count: AtomicU64,
}

impl RequestIds {
    pub fn new() -> Self {
        // The standard library seeds its hashers at random. An id has to be unique, not secret.
        let prefix = format!("{:016x}-", RandomState::new().build_hasher().finish());
        Self { prefix, count: AtomicU64::new(0) }
    }

    /// The caller's id if it can be used, else a new one.
    pub fn of(&self, headers: &HeaderMap) -> RequestId {
        RequestId::from_caller(headers).unwrap_or_else(|| self.next())
    }

    pub fn next(&self) -> RequestId {
        let count = self.count.fetch_add(1, Ordering::Relaxed);
        let mut id = [0; MAX_LENGTH];
        let mut rest = id.as_mut_slice();
        // There is room for any count, and hexadecimal digits are always a valid header value.
        let _ = write!(rest, "{}{count:x}", self.prefix);
        let length = MAX_LENGTH - rest.len();
        RequestId(HeaderValue::from_bytes(&id[..length]).unwrap_or(HeaderValue::from_static("unknown")))
    }
}

impl Default for RequestIds {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(values: &[&[u8]]) -> HeaderMap {
        values.iter().map(|value| (X_REQUEST_ID, HeaderValue::from_bytes(value).unwrap())).collect()
    }

    #[test]
    fn a_harmless_id_of_the_caller_is_kept() {
        let ids = RequestIds::new();
        for id in ["a", "0af7651916cd43dd8448eb211c80319c", "A.b_c-9", &"x".repeat(64)] {
            assert_eq!(ids.of(&headers(&[id.as_bytes()])).as_str(), id);
        }
    }

    #[test]
    fn any_other_id_of_the_caller_is_replaced() {
        let ids = RequestIds::new();
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
            let id = ids.of(&headers(values));
            assert!(id.as_str().starts_with(&ids.prefix), "{name}: {id:?}");
        }
    }

    #[test]
    fn ids_differ_within_and_between_processes() {
        let (one, other) = (RequestIds::new(), RequestIds::new());
        assert_ne!(one.next(), one.next());
        assert_ne!(one.next(), other.next());
    }
}
