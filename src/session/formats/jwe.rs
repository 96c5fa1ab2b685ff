//! Opening a compact JWE whose content key both sides derive themselves: RFC 7516, section 5.2 with
//! `alg: dir` (RFC 7518, section 4.5). Nothing is made here, and the payload's claims mean nothing here.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, SHA512, digest};
use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::json::{Object, Value};
use crate::session::formats::aes::{Cbc, Gcm};
use crate::session::types::ExtractError;

/// A header is a few dozen bytes.
const MAX_HEADER: usize = 1024;

/// A content key, and the `kid` that a token names it by.
#[derive(Debug)]
pub struct ContentKey {
    cipher: Cipher,
    /// `None`: a key whose tokens carry no `kid`, and whose format does not look at one.
    kid: Option<String>,
}

#[derive(Debug)]
enum Cipher {
    CbcHs512 { mac: Box<hmac::Key>, aes: Cbc },
    Gcm(Gcm),
}

/// The hash in the thumbprint of a key (RFC 7638) that serves as its `kid`.
#[derive(Clone, Copy, Debug)]
pub enum Thumbprint {
    Sha256,
    Sha512,
}

impl ContentKey {
    /// A key of `A256CBC-HS512` (RFC 7518, section 5.2.5): half for the MAC, half for AES.
    ///
    /// # Panics
    /// Never: AES takes every key of 32 bytes.
    #[expect(clippy::expect_used, reason = "AES takes every key of 32 bytes")]
    pub fn cbc_hs512(key: &[u8; 64], kid: Option<Thumbprint>) -> Self {
        let (mac, aes) = key.split_at(32);
        let mac = Box::new(hmac::Key::new(hmac::HMAC_SHA512, mac));
        let aes = Cbc::new(aes).expect("32 bytes");
        Self {
            cipher: Cipher::CbcHs512 { mac, aes },
            kid: kid.map(|hash| thumbprint(key, hash)),
        }
    }

    /// A key of `A256GCM`.
    ///
    /// # Panics
    /// Never: AES takes every key of 32 bytes.
    #[expect(clippy::expect_used, reason = "AES takes every key of 32 bytes")]
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

    /// Whether a token that names its key so, or names none, may be one of this key's.
    fn answers_to(&self, kid: Option<&str>) -> bool {
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
    /// Still in base64: that text is what the tag covers.
    header: &'a str,
    iv: Vec<u8>,
    ciphertext: Vec<u8>,
    tag: Vec<u8>,
}

/// The payload of `token` if one of `keys` opens it. `keys` also say which encryptions are allowed.
pub fn open<'k>(
    token: &str,
    keys: impl Iterator<Item = &'k ContentKey> + Clone,
) -> Result<Vec<u8>, ExtractError> {
    let malformed = || ExtractError::rejected("malformed");
    let sealed = split(token).ok_or_else(malformed)?;
    let header = decode_header(sealed.header).ok_or_else(malformed)?;
    let encryption = text(&header, "enc")?;
    if text(&header, "alg")? != Some("dir")
        || !keys.clone().any(|key| encryption == Some(key.encryption()))
    {
        return Err(ExtractError::rejected("alg_not_allowed"));
    }
    // Neither is ever made for a session: `zip` can be a bomb, `crit` asks for what nobody here knows.
    if header.contains("zip") || header.contains("crit") {
        return Err(ExtractError::rejected("header"));
    }
    let kid = text(&header, "kid")?;
    let mut candidates = keys
        .filter(|key| encryption == Some(key.encryption()) && key.answers_to(kid))
        .peekable();
    if candidates.peek().is_none() {
        return Err(ExtractError::rejected("unknown_key"));
    }
    candidates
        .find_map(|key| key.open(&sealed))
        .ok_or_else(|| ExtractError::rejected("bad_seal"))
}

fn split(token: &str) -> Option<Sealed<'_>> {
    let mut parts = token.split('.');
    let mut next = || parts.next();
    let (header, key, iv, ciphertext, tag) = (next()?, next()?, next()?, next()?, next()?);
    // With `dir` there is no encrypted key to carry.
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
    match Value::parse(&URL_SAFE_NO_PAD.decode(text).ok()?).ok()? {
        Value::Object(header) => Some(header),
        _ => None,
    }
}

fn text<'a>(header: &'a Object, name: &str) -> Result<Option<&'a str>, ExtractError> {
    match header.get(name) {
        Ok(None) => Ok(None),
        Ok(Some(Value::String(text))) => Ok(Some(text)),
        Ok(Some(_)) | Err(_) => Err(ExtractError::rejected("malformed")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // RFC 7518, appendix B.3 checks the MAC of A256CBC-HS512 with a key of 00 to 3f; its header is no
    // JOSE header, so only the parts below `open` can run it.
    #[test]
    fn the_example_of_rfc_7518_opens() {
        let key: [u8; 64] = std::array::from_fn(|index| u8::try_from(index).unwrap());
        let key = ContentKey::cbc_hs512(&key, None);
        let hex = |text: &str| -> Vec<u8> {
            let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
            digits
                .chunks(2)
                .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
                .collect()
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
        let text = key.open(&sealed).expect("it opens");
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
    fn a_header_that_asks_for_more_is_refused_before_anything_is_decrypted() {
        let keys = [ContentKey::cbc_hs512(&[1; 64], Some(Thumbprint::Sha512))];
        for (header, want) in [
            (r#"{"alg":"dir","enc":"A256CBC-HS512"}"#, "bad_seal"),
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
            let answer = open(&token, keys.iter()).expect_err(header);
            assert_eq!(answer, ExtractError::rejected(want), "{header}");
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
                open(token, keys.iter()),
                Err(ExtractError::rejected("malformed")),
                "{token}"
            );
        }
    }
}
