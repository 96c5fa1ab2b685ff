//! Fuzzes the session cookie of the kind `flask`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| rollout_token_fuzz::cookie("flask", bytes));
