//! Fuzzes a JWK set and a PEM text, as the server at the configured URL may send them.
#![no_main]

use rollout_token::session::backends::keys::KeySet;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = KeySet::from_jwks(bytes);
    let _ = KeySet::from_pem(bytes);
});
