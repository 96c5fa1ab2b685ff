//! Fuzzes a JWT in Supabase's own cookie, with the whole `jwt` extractor.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| rollout_token_fuzz::cookie("jwt", bytes));
