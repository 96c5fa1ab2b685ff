//! The value of a session in a store, in `MessagePack` and in PHP's formats: every parsed value can be written as JSON
//! and parsed again, unless a member occurs twice.
#![no_main]

use rollout_token::json::Value;
use rollout_token::session::formats::{msgpack, php};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let read = [msgpack::parse(bytes), php::session(bytes), php::array(bytes)];
    for value in read.into_iter().flatten() {
        // An object with two members of one name is not written.
        if let Ok(json) = serde_json::to_vec(&value) {
            assert!(Value::parse(&json).is_ok(), "{value:?}");
        }
    }
    if let Some(text) = php::string(bytes) {
        assert!(bytes.windows(text.len().max(1)).any(|part| part == text) || text.is_empty());
    }
});
