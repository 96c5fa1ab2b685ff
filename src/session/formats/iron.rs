//! A seal of @hapi/iron (`lib/index.js`, `Fe26.2`), which iron-webcrypto and h3 also write. A seal is a string that is
//! encrypted and authenticated with keys derived from a password and the seal's own salts.

use std::fmt;
use std::num::NonZeroU32;

use aws_lc_rs::{hmac, pbkdf2};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::clock::UnixSeconds;
use crate::secret::Secret;
use crate::session::formats::aes::Cbc;
use crate::session::formats::hkdf;

/// The version prefix of a seal.
const PREFIX: &str = "Fe26.2";
/// The tolerated clock difference in seconds, which is the library's default `timestampSkewSec`.
const SKEW: UnixSeconds = 60;

/// A seal, split at its `*` separators. `Debug` shows only the id and the expiry.
pub struct Seal<'a> {
    /// The text that the MAC covers.
    covered: &'a str,
    /// The id of the password; empty if the app does not assign ids to its passwords.
    pub id: &'a str,
    salt: &'a str,
    iv: Vec<u8>,
    ciphertext: Vec<u8>,
    /// The expiry in Unix milliseconds; `None` for a seal that does not expire.
    expires_at: Option<i64>,
    mac_salt: &'a str,
    mac: Vec<u8>,
}

impl fmt::Debug for Seal<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seal")
            .field("id", &self.id)
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}

impl<'a> Seal<'a> {
    pub fn parse(seal: &'a str) -> Option<Self> {
        let parts: Vec<&str> = seal.splitn(9, '*').collect();
        let &[prefix, id, salt, iv, ciphertext, expires_at, mac_salt, mac] = parts.as_slice()
        else {
            return None;
        };
        let uncovered = "*".len() + mac_salt.len() + "*".len() + mac.len();
        if prefix != PREFIX || salt.is_empty() || mac_salt.is_empty() {
            return None;
        }
        let expires_at = match expires_at {
            "" => None,
            digits if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                Some(digits.parse().ok()?)
            }
            _ => return None,
        };
        let decode = |text: &str| URL_SAFE_NO_PAD.decode(text).ok();
        Some(Self {
            covered: seal.get(..seal.len() - uncovered)?,
            id,
            salt,
            iv: decode(iv)?,
            ciphertext: decode(ciphertext)?,
            expires_at,
            mac_salt,
            mac: decode(mac)?,
        })
    }

    /// The seal's expiry in Unix seconds, rounded down; `None` for a seal that does not expire.
    pub fn expires_at(&self) -> Option<UnixSeconds> {
        self.expires_at.map(|millis| millis.div_euclid(1000))
    }

    pub fn is_expired(&self, now: UnixSeconds) -> bool {
        let latest = (now - SKEW).saturating_mul(1000);
        self.expires_at.is_some_and(|millis| millis <= latest)
    }

    /// The decrypted text; `None` if the seal was not made with this password and number of iterations, or was
    /// changed. The salts are used as text, without decoding their hexadecimal digits.
    pub fn open(&self, password: &Secret, iterations: NonZeroU32) -> Option<Vec<u8>> {
        let derive = |salt: &str| derive(password.expose(), salt, iterations);
        let mac = hmac::Key::new(hmac::HMAC_SHA256, &derive(self.mac_salt));
        hmac::verify(&mac, self.covered.as_bytes(), &self.mac).ok()?;
        Cbc::new(&derive(self.salt))?.open(&self.iv, self.ciphertext.clone())
    }
}

fn derive(password: &[u8], salt: &str, iterations: NonZeroU32) -> [u8; 32] {
    let sha1 = pbkdf2::PBKDF2_HMAC_SHA1;
    hkdf::pbkdf2(sha1, iterations, password, salt.as_bytes())
}

/// Makes seals, for tests.
#[cfg(test)]
pub mod sealing {
    use super::*;
    use crate::session::formats::aes::seal;

    /// A seal of `text` with this id and expiry.
    pub fn sealed(
        password: &str,
        iterations: NonZeroU32,
        id: &str,
        expires_at: &str,
        text: &str,
    ) -> String {
        let derive = |salt: &str| derive(password.as_bytes(), salt, iterations);
        let [iv, text] = [
            &[3; 16][..],
            &seal::cbc(&derive("aa"), [3; 16], text.as_bytes()),
        ]
        .map(|part| URL_SAFE_NO_PAD.encode(part));
        let covered = format!("{PREFIX}*{id}*aa*{iv}*{text}*{expires_at}");
        let mac = hmac::sign(
            &hmac::Key::new(hmac::HMAC_SHA256, &derive("bb")),
            covered.as_bytes(),
        );
        format!("{covered}*bb*{}", URL_SAFE_NO_PAD.encode(mac))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seal_without_one_of_its_salts_is_malformed() {
        for (seal, want) in [
            ("Fe26.2**aa*AAAA*AAAA**bb*AAAA", true),
            ("Fe26.2***AAAA*AAAA**bb*AAAA", false),
            ("Fe26.2**aa*AAAA*AAAA***AAAA", false),
        ] {
            assert_eq!(Seal::parse(seal).is_some(), want, "{seal}");
        }
    }

    #[test]
    fn expiry_in_milliseconds_is_rounded_down_to_seconds() {
        for (expires_at, want) in [("1800000000999", Some(1_800_000_000)), ("", None)] {
            let seal = format!("Fe26.2**aa*AAAA*AAAA*{expires_at}*bb*AAAA");
            let seal = Seal::parse(&seal).expect("a seal");
            assert_eq!(seal.expires_at(), want, "{expires_at}");
        }
    }
}
