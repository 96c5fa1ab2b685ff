//! A JWT in Supabase's own cookie, and with it the whole gate of `jwt`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| rollout_token_fuzz::cookie("jwt", bytes));
