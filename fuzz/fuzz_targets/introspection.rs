//! Fuzzes the response of an introspection endpoint (RFC 7662): only `"active": true` is a session.
#![no_main]

use std::sync::LazyLock;

use rollout_token::session::types::ExtractError;
use rollout_token_fuzz::{Asking, NOW};
use serde_json::Value;

static ASKING: LazyLock<Asking> = LazyLock::new(|| {
    Asking::of(
        "introspection",
        "client_id = \"us\"\nclient_secret = \"0123456789abcdef0123456789abcdef\"\nallow_any_client = true",
    )
});

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    match ASKING.answer([("authorization", "Bearer opaque")], bytes) {
        Ok(Some(_)) => {
            let claims: Value = serde_json::from_slice(bytes).expect("a session is JSON");
            assert_eq!(claims["active"], true);
            assert!(
                claims["exp"].is_null() || claims["exp"].as_f64().expect("an end") > NOW as f64
            );
        }
        Err(ExtractError::Rejected(_) | ExtractError::Unavailable(_)) => {}
        Err(ExtractError::NotMine(..)) => panic!("an opaque token was treated as another issuer's"),
        Ok(None) => panic!("a token was sent"),
    }
});
