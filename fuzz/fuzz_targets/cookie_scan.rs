//! Fuzzes the scan of the `Cookie` header: it finds at most one cookie, whose value is part of the header.
#![no_main]

use axum::http::{HeaderMap, HeaderValue, header};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok(value) = HeaderValue::from_bytes(bytes) else {
        return;
    };
    let headers = HeaderMap::from_iter([(header::COOKIE, value)]);
    if let Ok(Some(found)) = rollout_token::session::formats::cookies::find(&headers, "sid") {
        assert!(
            bytes
                .windows(found.len())
                .any(|window| window == found.as_bytes())
        );
    }
});
