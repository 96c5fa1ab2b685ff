//! Fuzzes the whole `Authorization` header. A value that begins with `Bearer e` must not be treated as absent, and no
//! value may be accepted, because the fuzzer does not have the key.
#![no_main]

use std::sync::{Arc, LazyLock};

use axum::http::{HeaderValue, header};
use futures_util::FutureExt;
use rollout_token::session::contract;
use rollout_token::session::types::{ExtractError, SessionExtractor};

static EXTRACTOR: LazyLock<Arc<dyn SessionExtractor>> =
    LazyLock::new(|| rollout_token_fuzz::jwt(""));

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok(value) = HeaderValue::from_bytes(bytes) else {
        return;
    };
    let mut request = contract::request(&[]);
    request.headers.append(header::AUTHORIZATION, value);
    match EXTRACTOR
        .extract(&request)
        .now_or_never()
        .expect("no waiting")
    {
        Ok(None) => assert!(
            !bytes.to_ascii_lowercase().starts_with(b"bearer e"),
            "a bearer token was not read"
        ),
        Err(ExtractError::NotMine(..) | ExtractError::Rejected(_)) => {}
        other => panic!("{other:?}"),
    }
});
