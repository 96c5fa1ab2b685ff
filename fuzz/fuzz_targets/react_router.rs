//! Fuzzes the session cookie of the kind `react_router`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| rollout_token_fuzz::cookie("react_router", bytes));
