//! Derives keys from an app's secret. Extractors derive keys when they are built, because PBKDF2 is slow by design.
//! They derive a key for each request only if the cookie contains the salt.

use std::num::NonZeroU32;

use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Salt};
use aws_lc_rs::{digest, hmac, pbkdf2};

use crate::secret::Secret;

struct Length(usize);

impl KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

/// Derives `N` bytes with HKDF and SHA-256 (RFC 5869).
///
/// # Panics
/// Never: an `N` that is too large does not compile.
pub fn hkdf<const N: usize>(secret: &[u8], salt: &str, info: &str) -> [u8; N] {
    const { assert!(N <= 255 * 32, "the maximum of RFC 5869") };
    let mut key = [0; N];
    let extracted = Salt::new(HKDF_SHA256, salt.as_bytes()).extract(secret);
    #[expect(
        clippy::expect_used,
        reason = "expand fails only for too large a length, which does not compile"
    )]
    extracted
        .expand(&[info.as_bytes()], Length(N))
        .and_then(|material| material.fill(&mut key))
        .expect("a length within the maximum");
    key
}

/// Derives `N` bytes with PBKDF2 (RFC 8018, section 5.2).
pub fn pbkdf2<const N: usize>(
    algorithm: pbkdf2::Algorithm,
    iterations: NonZeroU32,
    secret: &[u8],
    salt: &[u8],
) -> [u8; N] {
    let mut key = [0; N];
    pbkdf2::derive(algorithm, iterations, salt, secret, &mut key);
    key
}

/// The key of Django's `salted_hmac` (`django/utils/crypto.py`) with SHA-256. The parts of `salt` are concatenated.
pub fn django(salt: &[&str], secret: &Secret) -> hmac::Key {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in salt {
        context.update(part.as_bytes());
    }
    context.update(secret.expose());
    hmac::Key::new(hmac::HMAC_SHA256, context.finish().as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::formats::hex;

    #[test]
    fn shorter_hkdf_key_is_a_prefix_of_the_longer_one() {
        let long = hkdf::<64>(b"secret", "salt", "info");
        assert_eq!(hkdf::<32>(b"secret", "salt", "info")[..], long[..32]);
        assert_ne!(hkdf::<64>(b"secret", "", "info"), long);
    }

    #[test]
    fn pbkdf2_matches_the_first_test_vector_of_rfc_6070() {
        let key = pbkdf2::<20>(
            pbkdf2::PBKDF2_HMAC_SHA1,
            NonZeroU32::MIN,
            b"password",
            b"salt",
        );
        assert_eq!(hex::encode(key), "0c60c80f961f0e71f3a9b524af6012062fe037a6");
    }
}
