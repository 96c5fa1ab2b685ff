//! What browsers load from this service, embedded in the binary. Caches may keep it, but ask before each
//! use whether it still is what they have (RFC 9110, section 13.1.2), so that a new version counts at once.

use std::sync::LazyLock;

use aws_lc_rs::digest::{SHA256, digest};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

const REVALIDATE: HeaderValue = HeaderValue::from_static("no-cache");

/// One embedded file.
#[derive(Debug)]
pub struct Asset {
    content: &'static str,
    content_type: HeaderValue,
    etag: HeaderValue,
}

impl Asset {
    pub fn new(content: &'static str, content_type: &'static str) -> Self {
        let hash = digest(&SHA256, content.as_bytes());
        let etag = format!("\"{}\"", URL_SAFE_NO_PAD.encode(hash));
        Self {
            content,
            content_type: HeaderValue::from_static(content_type),
            // The base64 alphabet in quotes is a header's value.
            etag: HeaderValue::try_from(etag).unwrap_or(HeaderValue::from_static("\"\"")),
        }
    }

    /// The file, or 304 if the caller has it.
    pub fn answer(&self, request: &HeaderMap) -> Response {
        let validators = [
            (header::CACHE_CONTROL, REVALIDATE),
            (header::ETAG, self.etag.clone()),
        ];
        if self.is_known(request) {
            return (StatusCode::NOT_MODIFIED, validators).into_response();
        }
        (
            validators,
            [(header::CONTENT_TYPE, self.content_type.clone())],
            self.content,
        )
            .into_response()
    }

    /// Whether `If-None-Match` names this content. The weak comparison is the one to use here: caches on the way
    /// that compress mark the tag as weak.
    fn is_known(&self, request: &HeaderMap) -> bool {
        let etag = self.etag.to_str().unwrap_or_default();
        request
            .get_all(header::IF_NONE_MATCH)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .any(|value| {
                value
                    .split(',')
                    .map(str::trim)
                    .any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == etag)
            })
    }
}

/// `GET /rollout/client.js`: the browser helper, as a module to import.
pub async fn client(headers: HeaderMap) -> Response {
    static CLIENT: LazyLock<Asset> = LazyLock::new(|| {
        Asset::new(
            include_str!("../../../web/client.js"),
            "text/javascript; charset=utf-8",
        )
    });
    CLIENT.answer(&headers)
}
