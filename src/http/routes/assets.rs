//! Files for browsers, embedded in the binary. Caches may store them but must revalidate them before each use (RFC
//! 9110, section 13.1.2), so that a new version takes effect at once.

use std::sync::LazyLock;

use aws_lc_rs::digest::{SHA256, digest};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// One embedded file.
#[derive(Debug)]
pub struct Asset {
    content: &'static str,
    content_type: &'static str,
    etag: String,
}

impl Asset {
    pub fn new(content: &'static str, content_type: &'static str) -> Self {
        let hash = digest(&SHA256, content.as_bytes());
        Self {
            content,
            content_type,
            etag: format!("\"{}\"", URL_SAFE_NO_PAD.encode(hash)),
        }
    }

    /// Returns the file, or 304 if the caller has the current version.
    pub fn answer(&self, request: &HeaderMap) -> Response {
        let validators = [
            (header::CACHE_CONTROL, "no-cache"),
            (header::ETAG, &self.etag),
        ];
        if self.is_current(request) {
            return (StatusCode::NOT_MODIFIED, validators).into_response();
        }
        (
            validators,
            [(header::CONTENT_TYPE, self.content_type)],
            self.content,
        )
            .into_response()
    }

    /// Whether `If-None-Match` contains this file's entity tag. The comparison is weak, because proxies that compress
    /// responses turn the tag into a weak tag.
    fn is_current(&self, request: &HeaderMap) -> bool {
        request
            .get_all(header::IF_NONE_MATCH)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .any(|value| {
                value
                    .split(',')
                    .map(str::trim)
                    .any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == self.etag)
            })
    }
}

/// The path of the browser helper.
pub const CLIENT_PATH: &str = "/rollout/client.js";

/// `GET /rollout/client.js`: the browser helper, as a JavaScript module.
pub async fn client(headers: HeaderMap) -> Response {
    static CLIENT: LazyLock<Asset> = LazyLock::new(|| {
        Asset::new(
            include_str!("../../../web/client.js"),
            "text/javascript; charset=utf-8",
        )
    });
    CLIENT.answer(&headers)
}
