//! The browser helper, embedded in the binary. Caches may store it but must revalidate it before each use (`no-cache`,
//! RFC 9111, section 5.2.2.4), so that a new version takes effect at once.

use std::sync::LazyLock;

use aws_lc_rs::digest::{SHA256, digest};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// The path of the browser helper.
pub const CLIENT_PATH: &str = "/rollout/client.js";

const CLIENT: &str = include_str!("../../../web/client.js");

static CLIENT_ETAG: LazyLock<String> = LazyLock::new(|| {
    let hash = digest(&SHA256, CLIENT.as_bytes());
    format!("\"{}\"", URL_SAFE_NO_PAD.encode(hash))
});

/// `GET /rollout/client.js`: the browser helper, as a JavaScript module, or 304 if the caller has the current version.
pub async fn client(headers: HeaderMap) -> Response {
    let validators = [
        (header::CACHE_CONTROL, "no-cache"),
        (header::ETAG, &CLIENT_ETAG),
    ];
    if is_current(&headers) {
        return (StatusCode::NOT_MODIFIED, validators).into_response();
    }
    let content_type = [(header::CONTENT_TYPE, "text/javascript; charset=utf-8")];
    (validators, content_type, CLIENT).into_response()
}

/// Whether `If-None-Match` contains the helper's entity tag or is `*`. The comparison is weak, because proxies that
/// compress responses turn the tag into a weak tag.
fn is_current(request: &HeaderMap) -> bool {
    request
        .get_all(header::IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .any(|value| {
            value
                .split(',')
                .map(str::trim)
                .any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == *CLIENT_ETAG)
        })
}
