//! Fuzzes the value of a stored session, in `MessagePack` and in PHP's formats: every parsed value can be serialized to
//! JSON and parsed again, unless an object contains a key twice.
#![no_main]

use rollout_token::json::Value;
use rollout_token::session::formats::{msgpack, php};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let read = [
        msgpack::parse(bytes),
        php::session(bytes),
        php::array(bytes),
    ];
    for value in read.into_iter().flatten() {
        // Serializing fails if an object contains a key twice.
        if let Ok(json) = serde_json::to_vec(&value) {
            assert!(Value::parse(&json).is_ok(), "{value:?}");
        }
    }
    if let Some(text) = php::string(bytes) {
        assert!(bytes.windows(text.len().max(1)).any(|part| part == text) || text.is_empty());
    }
});
