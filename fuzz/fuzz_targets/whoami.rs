//! Fuzzes the response body of a session endpoint: only a JSON body becomes a session.
#![no_main]

use std::sync::LazyLock;

use rollout_token::session::types::ExtractError;
use rollout_token_fuzz::Asking;

static ASKING: LazyLock<Asking> = LazyLock::new(|| {
    Asking::of(
        "session_endpoint",
        "cookies = [\"sid\"]\nexpires_path = \"expires\"",
    )
});

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    match ASKING.answer([("cookie", "sid=1")], bytes) {
        Ok(Some(_)) => {
            serde_json::from_slice::<serde_json::Value>(bytes).expect("a session is JSON");
        }
        Err(ExtractError::Rejected(_) | ExtractError::Unavailable(_)) => {}
        Err(ExtractError::NotMine(..)) => {
            panic!("the extractor returned NotMine for its own cookie")
        }
        Ok(None) => panic!("the extractor returned Ok(None) although a cookie was sent"),
    }
});
