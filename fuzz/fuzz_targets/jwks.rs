//! Fuzzes the parsers of JWK sets and PEM keys, whose input comes from the server at the configured URL.
#![no_main]

use rollout_token::session::backends::keys::KeySet;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = KeySet::from_jwks(bytes);
    let _ = KeySet::from_pem(bytes);
});
