//! Checks an HMAC signature with several keys, because apps rotate their secrets.

use aws_lc_rs::hmac;

/// Whether one of the keys made the signature. Tries every key, so that the response time does not reveal which key
/// matched.
pub fn verifies_any(keys: &[hmac::Key], text: &str, signature: &[u8]) -> bool {
    keys.iter().fold(false, |found, key| {
        found | hmac::verify(key, text.as_bytes(), signature).is_ok()
    })
}
