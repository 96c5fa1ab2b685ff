//! Checks an HMAC signature with several keys, because apps rotate their secrets.

use aws_lc_rs::hmac;

/// Whether one of the keys made the signature. Tries every key, so that the response time does not reveal which key
/// matched.
pub fn verifies_any(keys: &[hmac::Key], text: &str, signature: &[u8]) -> bool {
    keys.iter().fold(false, |found, key| {
        found | hmac::verify(key, text.as_bytes(), signature).is_ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signature_is_valid_if_at_least_one_of_the_keys_made_it() {
        let [first, second, third] =
            [b"first", b"other", b"third"].map(|secret| hmac::Key::new(hmac::HMAC_SHA256, secret));
        let signature = hmac::sign(&first, b"text");
        let verified = |keys: [&hmac::Key; 2]| {
            verifies_any(&keys.map(Clone::clone), "text", signature.as_ref())
        };
        assert!(verified([&first, &second]) && verified([&second, &first]));
        assert!(verified([&first, &first]), "the same key twice");
        assert!(!verified([&second, &third]));
        assert!(!verifies_any(&[], "text", signature.as_ref()));
    }
}
