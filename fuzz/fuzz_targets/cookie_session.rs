//! Fuzzes the session cookie of the kind `cookie_session`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| rollout_token_fuzz::cookie("cookie_session", bytes));
