//! Fuzzes the `jwt` extractor with a JWT in Supabase's session cookie.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| rollout_token_fuzz::cookie("jwt", bytes));
