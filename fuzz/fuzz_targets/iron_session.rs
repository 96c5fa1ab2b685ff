//! Fuzzes the session cookie of the kind `iron_session`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| rollout_token_fuzz::cookie("iron_session", bytes));
