//! The conformance checks for extractors of every kind. The tests of each kind call them. Outside this crate's tests,
//! this module exists only with the cargo feature `testing`; the service is built without it.

#![expect(
    clippy::expect_used,
    reason = "a check reports its failure by panicking"
)]

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::ConnectInfo;
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue, Request, header};

use crate::config::Problems;
use crate::session::backends::Context;
use crate::session::registry::Registry;
use crate::session::types::{ExtractError, SessionExtractor};

/// The head of a `POST /rollout/token` request with these headers, sent from a loopback address.
///
/// # Panics
/// If the name or the value of a header is invalid.
pub fn request(headers: &[(&str, &str)]) -> Parts {
    let (mut parts, ()) = Request::post("/rollout/token")
        .body(())
        .expect("a request")
        .into_parts();
    for (name, value) in headers {
        let name = HeaderName::try_from(*name).expect("a header name");
        let value = HeaderValue::from_bytes(value.as_bytes()).expect("a header value");
        parts.headers.append(name, value);
    }
    let peer = SocketAddr::from(([127, 0, 0, 1], 50_000));
    parts.extensions.insert(ConnectInfo(peer));
    parts
}

/// Builds an extractor of `kind` from the keys in `toml`, as the service does at start.
///
/// # Errors
/// The problems that the service would report at start.
pub fn build(
    registry: &Registry,
    kind: &str,
    toml: &str,
    context: &Context,
) -> Result<Arc<dyn SessionExtractor>, Problems> {
    crate::session::builder::build_extractor(registry, kind, toml, context)
}

/// Checks the requirements for every kind:
///
/// - The outcome is `Ok(None)` for a request without headers or with only unrelated headers and cookies.
/// - For header values that are not UTF-8, the outcome is `Ok(None)`, `NotMine` or `Rejected`, and there is no panic.
/// - The extractor's `Debug` shows none of `secrets`.
///
/// # Panics
/// If a check fails.
pub async fn check(extractor: &dyn SessionExtractor, secrets: &[&str]) {
    let nothing = extractor.extract(&request(&[])).await;
    assert!(
        matches!(nothing, Ok(None)),
        "a request without credentials: {nothing:?}"
    );

    let unrelated = request(&[
        ("accept", "*/*"),
        ("cookie", "_ga=GA1.2.3; theme=dark; broken; =x; a=\"b"),
        ("x-unrelated", "value"),
    ]);
    let unrelated = extractor.extract(&unrelated).await;
    assert!(
        matches!(unrelated, Ok(None)),
        "unrelated headers and cookies: {unrelated:?}"
    );

    let opaque = |bytes| HeaderValue::from_bytes(bytes).expect("opaque bytes");
    let mut not_text = request(&[]);
    let headers = &mut not_text.headers;
    headers.insert(header::AUTHORIZATION, opaque(b"\xff\xfe"));
    headers.insert(header::COOKIE, opaque(b"\xff=\xfe; a=\xc3"));
    let outcome = extractor.extract(&not_text).await;
    assert!(
        matches!(
            outcome,
            Ok(None) | Err(ExtractError::NotMine(..) | ExtractError::Rejected(_))
        ),
        "bytes that are not text: {outcome:?}"
    );

    let shown = format!("{extractor:?}");
    for secret in secrets {
        assert!(!shown.contains(secret), "Debug shows a secret");
    }
}
