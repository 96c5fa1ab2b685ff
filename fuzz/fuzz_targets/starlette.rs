//! The cookie of `starlette`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| rollout_token_fuzz::cookie("starlette", bytes));
