//! What every extractor owes the chain, as checks that the tests of each kind call.
//! The service itself never runs them.

#![expect(
    clippy::expect_used,
    reason = "a check says that it failed by panicking"
)]

use std::sync::Arc;

use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Request, header};

use crate::config::Problems;
use crate::session::backends::Context;
use crate::session::types::{ExtractError, Peer, SessionExtractor};

/// The head of a `POST /rollout/token` from loopback with these headers.
///
/// # Panics
/// On a name or value that cannot be a header: a mistake in the test.
pub fn request(headers: &[(&str, &str)]) -> Parts {
    let (mut parts, ()) = Request::post("/rollout/token")
        .body(())
        .expect("a request")
        .into_parts();
    for (name, value) in headers {
        let name = HeaderName::try_from(*name).expect("a header's name");
        parts.headers.append(
            name,
            HeaderValue::from_bytes(value.as_bytes()).expect("a header's value"),
        );
    }
    parts
        .extensions
        .insert(Peer(([127, 0, 0, 1], 50_000).into()));
    parts
}

/// Builds an extractor of `kind` from the keys in `toml`, as the service would.
///
/// # Errors
/// The problems that the service would report.
pub fn build(
    registry: &super::Registry,
    kind: &str,
    toml: &str,
    context: &Context,
) -> Result<Arc<dyn SessionExtractor>, Problems> {
    crate::session::builder::build_extractor(registry, kind, toml, context)
}

/// Checks the promises that do not depend on the kind: a request without any credential, and one
/// full of other people's headers and cookies, is `Ok(None)`; odd bytes never panic; the extractor's
/// `Debug` shows none of `secrets`.
///
/// # Panics
/// If a promise is broken.
pub async fn check(extractor: &dyn SessionExtractor, secrets: &[&str]) {
    let nothing = extractor.extract(&request(&[])).await;
    assert!(
        matches!(nothing, Ok(None)),
        "a request without credentials: {nothing:?}"
    );

    let others = request(&[
        ("accept", "*/*"),
        ("cookie", "_ga=GA1.2.3; theme=dark; broken; =x; a=\"b"),
        ("x-unrelated", "value"),
    ]);
    let unrelated = extractor.extract(&others).await;
    assert!(
        matches!(unrelated, Ok(None)),
        "somebody else's headers: {unrelated:?}"
    );

    let mut odd = request(&[]);
    odd.headers = HeaderMap::from_iter([
        (
            header::AUTHORIZATION,
            HeaderValue::from_bytes(b"\xff\xfe").expect("opaque bytes"),
        ),
        (
            header::COOKIE,
            HeaderValue::from_bytes(b"\xff=\xfe; a=\xc3").expect("opaque bytes"),
        ),
    ]);
    let answer = extractor.extract(&odd).await;
    assert!(
        matches!(
            answer,
            Ok(None) | Err(ExtractError::NotMine(..) | ExtractError::Rejected(_))
        ),
        "bytes that are no text: {answer:?}"
    );

    let shown = format!("{extractor:?}");
    for secret in secrets {
        assert!(!shown.contains(secret), "Debug shows a secret");
    }
}
