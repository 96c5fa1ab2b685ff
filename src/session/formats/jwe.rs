//! Decrypts a compact JWE (RFC 7516, section 5.2) with direct encryption, `alg: dir` (RFC 7518, section 4.5): the app
//! and the service derive the content encryption key from the app's secret. This module does not check the claims in
//! the payload.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, SHA512, digest};
use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::json::{Object, Value};
use crate::session::formats::aes::{Cbc, Gcm};
use crate::session::reason::Reason;
use crate::session::types::ExtractError;

/// The maximum length of an encoded header, in bytes. Real headers have less than 200 bytes.
const MAX_HEADER: usize = 1024;

/// A content encryption key and its `kid`.
#[derive(Debug)]
pub struct ContentKey {
    cipher: Cipher,
    /// `None` for formats whose tokens have no `kid`.
    kid: Option<String>,
}

#[derive(Debug)]
enum Cipher {
    CbcHs512 { mac: Box<hmac::Key>, aes: Cbc },
    Gcm(Gcm),
}

/// The hash of the JWK thumbprint (RFC 7638) that is used as `kid`.
#[derive(Clone, Copy, Debug)]
pub enum Thumbprint {
    Sha256,
    Sha512,
}

impl ContentKey {
    /// Creates a key for `A256CBC-HS512` (RFC 7518, section 5.2.5): the first half is the MAC key, the second half the
    /// AES key.
    ///
    /// # Panics
    /// Never: AES accepts every key of 32 bytes.
    #[expect(clippy::expect_used, reason = "AES accepts every key of 32 bytes")]
    pub fn cbc_hs512(key: &[u8; 64], kid: Option<Thumbprint>) -> Self {
        let (mac, aes) = key.split_at(32);
        let mac = Box::new(hmac::Key::new(hmac::HMAC_SHA512, mac));
        let aes = Cbc::new(aes).expect("32 bytes");
        Self {
            cipher: Cipher::CbcHs512 { mac, aes },
            kid: kid.map(|hash| thumbprint(key, hash)),
        }
    }

    /// Creates a key for `A256GCM`.
    ///
    /// # Panics
    /// Never: AES accepts every key of 32 bytes.
    #[expect(clippy::expect_used, reason = "AES accepts every key of 32 bytes")]
    pub fn gcm(key: &[u8; 32], kid: Option<Thumbprint>) -> Self {
        let cipher = Cipher::Gcm(Gcm::new(key).expect("32 bytes"));
        Self {
            cipher,
            kid: kid.map(|hash| thumbprint(key, hash)),
        }
    }

    fn encryption(&self) -> &'static str {
        match self.cipher {
            Cipher::CbcHs512 { .. } => "A256CBC-HS512",
            Cipher::Gcm(_) => "A256GCM",
        }
    }

    /// Whether this key may decrypt a token with this `kid`. If the token or the key has no `kid`, it may.
    fn matches(&self, kid: Option<&str>) -> bool {
        match (kid, &self.kid) {
            (Some(wanted), Some(own)) => wanted == own,
            _ => true,
        }
    }

    fn open(&self, sealed: &Sealed<'_>) -> Option<Vec<u8>> {
        let aad = sealed.header.as_bytes();
        match &self.cipher {
            Cipher::Gcm(gcm) => gcm.open(&sealed.iv, sealed.ciphertext.clone(), &sealed.tag, aad),
            Cipher::CbcHs512 { mac, aes } => {
                let mut context = hmac::Context::with_key(mac);
                context.update(aad);
                context.update(&sealed.iv);
                context.update(&sealed.ciphertext);
                context.update(&(aad.len() as u64 * 8).to_be_bytes());
                let expected = context.sign();
                verify_slices_are_equal(expected.as_ref().get(..32)?, &sealed.tag).ok()?;
                aes.open(&sealed.iv, sealed.ciphertext.clone())
            }
        }
    }
}

fn thumbprint(key: &[u8], hash: Thumbprint) -> String {
    let hash = match hash {
        Thumbprint::Sha256 => &SHA256,
        Thumbprint::Sha512 => &SHA512,
    };
    let jwk = format!(r#"{{"k":"{}","kty":"oct"}}"#, URL_SAFE_NO_PAD.encode(key));
    URL_SAFE_NO_PAD.encode(digest(hash, jwk.as_bytes()))
}

struct Sealed<'a> {
    /// The header, still encoded, because the tag authenticates the encoded text.
    header: &'a str,
    iv: Vec<u8>,
    ciphertext: Vec<u8>,
    tag: Vec<u8>,
}

/// Returns the decrypted payload of `token`. Tries those `keys` that match the token's `enc` and `kid`. Refuses an
/// `alg` other than `dir`, an `enc` that no key supports, and the parameters `zip` and `crit`. If no key decrypts the
/// token, the error names `key`, the configuration key of the secrets from which `keys` are derived.
pub fn open<'k>(
    token: &str,
    keys: impl Iterator<Item = &'k ContentKey> + Clone,
    key: &str,
) -> Result<Vec<u8>, ExtractError> {
    let sealed = split(token).ok_or_else(ExtractError::malformed)?;
    let header = decode_header(sealed.header).ok_or_else(ExtractError::malformed)?;
    let encryption = text(&header, "enc")?;
    if text(&header, "alg")? != Some("dir")
        || !keys.clone().any(|key| encryption == Some(key.encryption()))
    {
        return Err(ExtractError::rejected(Reason::AlgNotAllowed));
    }
    // No session format uses these parameters. Compressed content (`zip`) could be a decompression bomb, and `crit`
    // lists extensions that the recipient must support, but this module supports none.
    if header.contains("zip") || header.contains("crit") {
        return Err(ExtractError::rejected(Reason::Header));
    }
    let kid = text(&header, "kid")?;
    let mut candidates = keys
        .filter(|key| encryption == Some(key.encryption()) && key.matches(kid))
        .peekable();
    if candidates.peek().is_none() {
        return Err(ExtractError::other_secret(Reason::UnknownKey, key));
    }
    candidates
        .find_map(|key| key.open(&sealed))
        .ok_or_else(|| ExtractError::other_secret(Reason::BadSeal, key))
}

fn split(token: &str) -> Option<Sealed<'_>> {
    let mut parts = token.split('.');
    let mut next = || parts.next();
    let (header, key, iv, ciphertext, tag) = (next()?, next()?, next()?, next()?, next()?);
    // With `dir`, the encrypted key is empty.
    if parts.next().is_some() || !key.is_empty() {
        return None;
    }
    let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).ok();
    Some(Sealed {
        header,
        iv: decode(iv)?,
        ciphertext: decode(ciphertext)?,
        tag: decode(tag)?,
    })
}

fn decode_header(text: &str) -> Option<Object> {
    if text.len() > MAX_HEADER {
        return None;
    }
    Object::parse(&URL_SAFE_NO_PAD.decode(text).ok()?)
}

fn text<'a>(header: &'a Object, name: &str) -> Result<Option<&'a str>, ExtractError> {
    match header.get(name) {
        Ok(None) => Ok(None),
        Ok(Some(Value::String(text))) => Ok(Some(text)),
        Ok(Some(_)) | Err(_) => Err(ExtractError::malformed()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::formats::hex;

    // RFC 7518, appendix B.3 contains an example of A256CBC-HS512 with the key 00 to 3f. Its header is not a JOSE
    // header, so the test calls `ContentKey::open` and not the public `open`.
    #[test]
    fn rfc_7518_example_is_decrypted_and_a_truncated_tag_is_refused() {
        let key: [u8; 64] = std::array::from_fn(|index| u8::try_from(index).unwrap());
        let key = ContentKey::cbc_hs512(&key, None);
        let hex = |text: &str| {
            let digits: String = text.split_whitespace().collect();
            hex::decode(&digits).expect("hex digits")
        };
        let sealed = Sealed {
            header: "The second principle of Auguste Kerckhoffs",
            iv: hex("1af38c2dc2b96ffdd86694092341bc04"),
            ciphertext: hex(
                "4affaaadb78c31c5da4b1b590d10ffbd 3dd8d5d302423526912da037ecbcc7bd
                 822c301dd67c373bccb584ad3e9279c2 e6d12a1374b77f077553df829410446b
                 36ebd97066296ae6427ea75c2e0846a1 1a09ccf5370dc80bfecbad28c73f09b3
                 a3b75e662a2594410ae496b2e2e6609e 31e6e02cc837f053d21f37ff4f51950b
                 be2638d09dd7a4930930806d0703b1f6",
            ),
            tag: hex("4dd3b4c088a7f45c216839645b2012bf2e6269a8c56a816dbc1b267761955bc5"),
        };
        let text = key.open(&sealed).expect("the plaintext");
        assert!(text.starts_with(b"A cipher system must not be required to be secret"));
        for length in [0, 16, 31] {
            let short = Sealed {
                tag: sealed.tag[..length].to_vec(),
                ..sealed_again(&sealed)
            };
            assert!(key.open(&short).is_none(), "{length} bytes of tag");
        }
    }

    fn sealed_again<'a>(sealed: &Sealed<'a>) -> Sealed<'a> {
        Sealed {
            header: sealed.header,
            iv: sealed.iv.clone(),
            ciphertext: sealed.ciphertext.clone(),
            tag: sealed.tag.clone(),
        }
    }

    #[test]
    fn unsupported_header_unknown_kid_and_malformed_token_are_refused() {
        let keys = [ContentKey::cbc_hs512(&[1; 64], Some(Thumbprint::Sha512))];
        for (header, want) in [
            (r#"{"alg":"dir","enc":"A256CBC-HS512"}"#, "bad_seal"),
            // The key's own `kid`, which is its SHA-512 thumbprint.
            (
                r#"{"alg":"dir","enc":"A256CBC-HS512","kid":"hg0ZIDbnmKWtOQlQqHbPDO_k7jE3VMAX0H2NpNTozmg1VlFsduBN2cBkIo_jUVwTVnMA-MbNsoMM2b9WH2tFnQ"}"#,
                "bad_seal",
            ),
            // The key's SHA-256 thumbprint.
            (
                r#"{"alg":"dir","enc":"A256CBC-HS512","kid":"sTdiT2qTK74m6RtHrNKT9-y-PruwDFntulezq5LbDVc"}"#,
                "unknown_key",
            ),
            (
                r#"{"alg":"dir","enc":"A256CBC-HS512","kid":"x"}"#,
                "unknown_key",
            ),
            (
                r#"{"alg":"dir","enc":"A256CBC-HS512","kid":7}"#,
                "malformed",
            ),
            (
                r#"{"alg":"dir","enc":"A256CBC-HS512","zip":"DEF"}"#,
                "header",
            ),
            (
                r#"{"alg":"dir","enc":"A256CBC-HS512","crit":["exp"]}"#,
                "header",
            ),
            (r#"{"alg":"dir","enc":"A256GCM"}"#, "alg_not_allowed"),
            (r#"{"alg":"dir","enc":"A128CBC-HS256"}"#, "alg_not_allowed"),
            (
                r#"{"alg":"A256KW","enc":"A256CBC-HS512"}"#,
                "alg_not_allowed",
            ),
            (r#"{"alg":"none","enc":"A256CBC-HS512"}"#, "alg_not_allowed"),
            (r#"{"enc":"A256CBC-HS512"}"#, "alg_not_allowed"),
            (r#"{"alg":"dir"}"#, "alg_not_allowed"),
            (
                r#"{"alg":"dir","alg":"dir","enc":"A256CBC-HS512"}"#,
                "malformed",
            ),
            ("[]", "malformed"),
            ("", "malformed"),
        ] {
            let token = format!("{}..AAAA.AAAA.AAAA", URL_SAFE_NO_PAD.encode(header));
            let answer = open(&token, keys.iter(), "secrets").expect_err(header);
            assert_eq!(answer.reason(), want, "{header}");
        }
        for (spaces, want) in [(768, "bad_seal"), (769, "malformed")] {
            let header = format!("{:spaces$}", r#"{"alg":"dir","enc":"A256CBC-HS512"}"#);
            let token = format!("{}..AAAA.AAAA.AAAA", URL_SAFE_NO_PAD.encode(header));
            let answer = open(&token, keys.iter(), "secrets").expect_err(want);
            assert_eq!(answer.reason(), want, "a header of {spaces} bytes");
        }
        let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"dir","enc":"A256CBC-HS512"}"#);
        for token in [
            "",
            ".",
            "....",
            &format!("{header}.AAAA.AAAA.AAAA.AAAA"),
            &format!("{header}..AAAA.AAAA"),
            &format!("{header}..AAAA.AAAA.AAAA."),
            &format!("{header}..AAAA.AAAA.AAAA="),
            &format!("{header}..AAAA.AAAB=.AAAA"),
            &format!("{header}..AAAA.AA+A.AAAA"),
            &format!("{header}=..AAAA.AAAA.AAAA"),
        ] {
            assert_eq!(
                open(token, keys.iter(), "secrets"),
                Err(ExtractError::malformed()),
                "{token}"
            );
        }
    }
}
