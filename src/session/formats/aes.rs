//! AES decryption of cookies and tokens: CBC with padding, and GCM with a separate tag. Every failure returns the same
//! `None`, so that an attacker does not learn which check failed.

use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::cipher::{
    AES_128, AES_256, DecryptionContext, PaddedBlockDecryptingKey, UnboundCipherKey,
};
use aws_lc_rs::iv::FixedLength;

/// The length of a block and of a CBC initialisation vector, in bytes.
pub const BLOCK: usize = 16;
/// The length of a full GCM tag, in bytes. A shorter tag could be guessed and is refused.
const TAG: usize = 16;

/// AES-CBC with PKCS#7 padding. CBC does not detect modifications, so the caller must verify the MAC first.
#[derive(Debug)]
pub struct Cbc(Box<PaddedBlockDecryptingKey>);

impl Cbc {
    /// Returns `None` unless the key has 16 or 32 bytes.
    pub fn new(key: &[u8]) -> Option<Self> {
        let algorithm = if key.len() == 16 { &AES_128 } else { &AES_256 };
        let key = UnboundCipherKey::new(algorithm, key).ok()?;
        PaddedBlockDecryptingKey::cbc_pkcs7(key)
            .ok()
            .map(|key| Self(Box::new(key)))
    }

    pub fn open(&self, iv: &[u8], mut ciphertext: Vec<u8>) -> Option<Vec<u8>> {
        let iv: &[u8; BLOCK] = iv.try_into().ok()?;
        if ciphertext.is_empty() || !ciphertext.len().is_multiple_of(BLOCK) {
            return None;
        }
        let context = DecryptionContext::Iv128(FixedLength::from(iv));
        let length = self.0.decrypt(&mut ciphertext, context).ok()?.len();
        ciphertext.truncate(length);
        Some(ciphertext)
    }
}

/// AES-GCM with a nonce of 12 bytes and a tag of 16 bytes.
#[derive(Debug)]
pub struct Gcm(LessSafeKey);

impl Gcm {
    /// Returns `None` unless the key has 16 or 32 bytes.
    pub fn new(key: &[u8]) -> Option<Self> {
        let algorithm = if key.len() == 16 {
            &AES_128_GCM
        } else {
            &AES_256_GCM
        };
        UnboundKey::new(algorithm, key)
            .ok()
            .map(|key| Self(LessSafeKey::new(key)))
    }

    pub fn open(
        &self,
        nonce: &[u8],
        mut ciphertext: Vec<u8>,
        tag: &[u8],
        aad: &[u8],
    ) -> Option<Vec<u8>> {
        let nonce: [u8; NONCE_LEN] = nonce.try_into().ok()?;
        if tag.len() != TAG {
            return None;
        }
        ciphertext.extend_from_slice(tag);
        let nonce = Nonce::assume_unique_for_key(nonce);
        let length = self
            .0
            .open_in_place(nonce, Aad::from(aad), &mut ciphertext)
            .ok()?
            .len();
        ciphertext.truncate(length);
        Some(ciphertext)
    }
}

/// Encrypts values, for tests.
#[cfg(test)]
pub mod seal {
    use super::*;
    use aws_lc_rs::cipher::{EncryptionContext, PaddedBlockEncryptingKey};

    pub(in crate::session) fn cbc(key: &[u8; 32], iv: [u8; BLOCK], text: &[u8]) -> Vec<u8> {
        let key = UnboundCipherKey::new(&AES_256, key).unwrap();
        let key = PaddedBlockEncryptingKey::cbc_pkcs7(key).unwrap();
        let mut bytes = text.to_vec();
        let iv = EncryptionContext::Iv128(FixedLength::from(&iv));
        key.less_safe_encrypt(&mut bytes, iv).unwrap();
        bytes
    }

    /// The ciphertext and its tag.
    pub(in crate::session) fn gcm(
        key: &[u8; 32],
        nonce: [u8; NONCE_LEN],
        text: &[u8],
        aad: &[u8],
    ) -> (Vec<u8>, Vec<u8>) {
        let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).unwrap());
        let mut bytes = text.to_vec();
        let nonce = Nonce::assume_unique_for_key(nonce);
        let tag = key
            .seal_in_place_separate_tag(nonce, Aad::from(aad), &mut bytes)
            .unwrap();
        (bytes, tag.as_ref().to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed(text: &[u8]) -> Vec<u8> {
        seal::cbc(&[7; 32], [9; BLOCK], text)
    }

    #[test]
    fn cbc_decrypts_only_whole_blocks_with_valid_padding() {
        let cbc = Cbc::new(&[7; 32]).unwrap();
        for text in [
            &b""[..],
            b"a",
            b"exactly 16 bytes",
            b"more than sixteen bytes",
        ] {
            assert_eq!(cbc.open(&[9; BLOCK], sealed(text)).as_deref(), Some(text));
        }
        let good = sealed(b"a");
        assert_eq!(cbc.open(&[9; 15], good.clone()), None, "short IV");
        assert_eq!(cbc.open(&[9; BLOCK], Vec::new()), None, "empty ciphertext");
        assert_eq!(
            cbc.open(&[9; BLOCK], good[..15].to_vec()),
            None,
            "incomplete block"
        );
        // A change in the initialisation vector changes the padding, which is 15 bytes here.
        for byte in 1..BLOCK {
            let mut iv = [9; BLOCK];
            iv[byte] ^= 1;
            assert_eq!(cbc.open(&iv, good.clone()), None, "padding byte {byte}");
        }
    }

    #[test]
    fn gcm_refuses_a_truncated_tag_a_wrong_nonce_and_wrong_aad() {
        let gcm = Gcm::new(&[7; 32]).unwrap();
        let (bytes, tag) = seal::gcm(&[7; 32], [1; 12], b"text", b"aad");
        let open = |nonce: &[u8], tag: &[u8], aad: &[u8]| gcm.open(nonce, bytes.clone(), tag, aad);
        assert_eq!(open(&[1; 12], &tag, b"aad").as_deref(), Some(&b"text"[..]));
        assert_eq!(open(&[1; 12], &tag, b"add"), None);
        assert_eq!(open(&[2; 12], &tag, b"aad"), None);
        assert_eq!(open(&[1; 11], &tag, b"aad"), None);
        for length in 0..16 {
            assert_eq!(
                open(&[1; 12], &tag[..length], b"aad"),
                None,
                "{length} bytes of tag"
            );
        }
    }

    #[test]
    fn only_keys_of_16_or_32_bytes_are_accepted() {
        for length in [0, 15, 17, 24, 31, 33, 64] {
            assert!(
                Cbc::new(&vec![0; length]).is_none() && Gcm::new(&vec![0; length]).is_none(),
                "{length}"
            );
        }
        assert!(Cbc::new(&[0; 16]).is_some() && Gcm::new(&[0; 16]).is_some());
    }
}
