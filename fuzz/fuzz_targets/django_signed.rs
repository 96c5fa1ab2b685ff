//! Fuzzes the session cookie of the kind `django_signed`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| rollout_token_fuzz::cookie("django_signed", bytes));
