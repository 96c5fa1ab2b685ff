//! Fuzzes the session cookie of the kind `better_auth`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| rollout_token_fuzz::cookie("better_auth", bytes));
