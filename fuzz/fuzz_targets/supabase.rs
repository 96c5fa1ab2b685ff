//! Fuzzes Supabase's session cookie, which the kind `jwt` reads.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| rollout_token_fuzz::cookie("jwt", bytes));
