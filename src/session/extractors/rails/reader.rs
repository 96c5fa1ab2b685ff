//! The schemes with which Rails encrypts or signs its cookies: key derivation, decryption and verification. `rails.rs`
//! selects the app's scheme and interprets the value in the cookie.

use aws_lc_rs::{hmac, pbkdf2};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::config::{Problems, Section};
use crate::secret::Secret;
use crate::session::formats::aes::{Cbc, Gcm};
use crate::session::formats::hkdf;
use crate::session::formats::rails::{ITERATIONS, verify};

/// Opens cookies of one scheme with one secret.
#[derive(Debug)]
pub enum Reader {
    Encrypted(Gcm),
    Signed(Box<hmac::Key>),
    EncryptedCbc { mac: Box<hmac::Key>, aes: Cbc },
}

/// The configured settings from which a [`Reader`] is made.
pub struct Recipe<'a> {
    pub scheme: &'a str,
    pub digest: &'a str,
    pub salt: Option<&'a str>,
    pub signed_salt: &'a str,
    pub hmac_digest: &'a str,
}

impl Recipe<'_> {
    /// Builds the reader. Returns `None` if `secret` is missing, or if a key is invalid, which is reported under `path`
    /// followed by the key.
    pub fn reader(
        &self,
        section: &Section<'_>,
        path: &str,
        secret: Option<&Secret>,
        problems: &mut Problems,
    ) -> Option<Reader> {
        let mut digest = |key: &str, text: &str| {
            let known =
                algorithms(text).ok_or("must be \"sha1\", \"sha256\", \"sha384\" or \"sha512\"");
            problems.accept(section.key(&format!("{path}{key}")), known)
        };
        let kdf = digest("digest", self.digest);
        let mac = digest("hmac_digest", self.hmac_digest);
        let default_salt = match self.scheme {
            "encrypted" => Ok("authenticated encrypted cookie"),
            "signed" => Ok("signed cookie"),
            "encrypted_cbc" => Ok("encrypted cookie"),
            _ => Err("must be \"encrypted\", \"signed\" or \"encrypted_cbc\""),
        };
        let default_salt = problems.accept(section.key(&format!("{path}scheme")), default_salt)?;
        let (secret, (kdf, _), (_, mac)) = (secret?.expose(), kdf?, mac?);
        let salt = self.salt.unwrap_or(default_salt).as_bytes();
        let signing = |salt: &[u8]| {
            let key = hkdf::pbkdf2::<64>(kdf, ITERATIONS, secret, salt);
            Box::new(hmac::Key::new(mac, &key))
        };
        let sealing = || hkdf::pbkdf2::<32>(kdf, ITERATIONS, secret, salt);
        match self.scheme {
            "encrypted" => Gcm::new(&sealing()).map(Reader::Encrypted),
            "signed" => Some(Reader::Signed(signing(salt))),
            _ => {
                let mac = signing(self.signed_salt.as_bytes());
                Cbc::new(&sealing()).map(|aes| Reader::EncryptedCbc { mac, aes })
            }
        }
    }
}

/// The algorithms called `name`, for key derivation and for signatures.
fn algorithms(name: &str) -> Option<(pbkdf2::Algorithm, hmac::Algorithm)> {
    Some(match name.to_ascii_lowercase().as_str() {
        "sha1" => (
            pbkdf2::PBKDF2_HMAC_SHA1,
            hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
        ),
        "sha256" => (pbkdf2::PBKDF2_HMAC_SHA256, hmac::HMAC_SHA256),
        "sha384" => (pbkdf2::PBKDF2_HMAC_SHA384, hmac::HMAC_SHA384),
        "sha512" => (pbkdf2::PBKDF2_HMAC_SHA512, hmac::HMAC_SHA512),
        _ => return None,
    })
}

impl Reader {
    /// Returns the value that the app wrote, or `None` if the text cannot be decoded, decrypted or verified.
    pub fn open(&self, text: &str) -> Option<Vec<u8>> {
        match self {
            Self::Encrypted(gcm) => {
                let mut parts = text.split("--").map(|part| STANDARD.decode(part).ok());
                let (data, nonce, tag) = (parts.next()??, parts.next()??, parts.next()??);
                if parts.next().is_some() {
                    return None;
                }
                gcm.open(&nonce, data, &tag, b"")
            }
            Self::Signed(key) => verify(key, text),
            Self::EncryptedCbc { mac, aes } => {
                let sealed = String::from_utf8(verify(mac, text)?).ok()?;
                let (data, iv) = sealed.split_once("--")?;
                aes.open(&STANDARD.decode(iv).ok()?, STANDARD.decode(data).ok()?)
            }
        }
    }
}
