//! Fuzzes the session cookie of the kind `authjs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| rollout_token_fuzz::cookie("authjs", bytes));
