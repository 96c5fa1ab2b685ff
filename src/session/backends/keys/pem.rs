//! Parses public keys in all common forms: PEM with one or more keys or certificates, DER, or the base64 of either. The
//! text may be in UTF-16, have a byte order mark or enclosing quotes, or have literal `\n` in place of line breaks.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jsonwebtoken::DecodingKey;
use jsonwebtoken::jwk::Jwk;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;

use super::{Key, UnusableKey, jwk};
use crate::json::Value;
use crate::session::formats::any_base64;

/// A public key in DER.
pub(super) enum PublicKey {
    /// `SubjectPublicKeyInfo` (RFC 5280, section 4.1).
    Spki(Vec<u8>),
    /// `RSAPublicKey` (RFC 8017, appendix A.1.1).
    Pkcs1(Vec<u8>),
}

const PRIVATE: &str = "is a private key, which this service does not need: use the public key \
                       (openssl pkey -in key.pem -pubout), and keep the private key in the app that signs tokens";
const BROKEN: &str = "has a PEM block that is incomplete or not base64: copy the file again";
const UNKNOWN: &str = "is not a public key: expected PEM that begins with -----BEGIN PUBLIC KEY----- or \
                       -----BEGIN CERTIFICATE-----";
const TOO_MANY: &str = "has more than 10 keys: keep only the keys that are still in use";
/// The maximum number of keys. It is small, because each key may be tried for a token.
const MAX_KEYS: usize = 10;

/// Parses all public keys in `bytes`.
///
/// # Errors
/// If `bytes` does not contain one to ten public keys, or contains a private key. The message says what was found, and
/// for most faults what to do.
pub(super) fn parse_all(bytes: &[u8]) -> Result<Vec<PublicKey>, &'static str> {
    if bytes.first() == Some(&0x30)
        && let Some(key) = from_der(bytes)
    {
        return key.map(|key| vec![key]);
    }
    let text = text(bytes).ok_or(UNKNOWN)?;
    let text = text.trim().trim_matches(['"', '\'']).trim();
    if text.contains("-----BEGIN ") {
        return blocks(text);
    }
    if let Some(what) = other_than_a_key(text) {
        return Err(what);
    }
    let Some(decoded) = any_base64::decode(text.as_bytes()).filter(|bytes| !bytes.is_empty())
    else {
        return Err(UNKNOWN);
    };
    if decoded.starts_with(b"-----BEGIN ") {
        return parse_all(&decoded);
    }
    from_der(&decoded)
        .unwrap_or(Err(UNKNOWN))
        .map(|key| vec![key])
}

/// Parses the key in `pem`, and sets its key id to `kid`. Several keys in `pem` are an error.
pub(super) fn parse_one(kid: &str, pem: &str) -> Result<Key, UnusableKey> {
    let unusable = |why: &str| UnusableKey {
        kid: Some(kid.to_owned()),
        why: format!("it {why}"),
        is_for_other_use: false,
    };
    match parse_all(pem.as_bytes()).map_err(unusable)?.as_slice() {
        [public] => key(public, Some(kid)),
        _ => Err(unusable("has several keys")),
    }
}

/// Converts the key to a JWK, so that [`jwk::parse`] alone decides which keys may be used.
pub(super) fn key(public: &PublicKey, kid: Option<&str>) -> Result<Key, UnusableKey> {
    let (label, der) = match public {
        PublicKey::Spki(der) => ("PUBLIC KEY", der),
        PublicKey::Pkcs1(der) => ("RSA PUBLIC KEY", der),
    };
    let pem = format!(
        "-----BEGIN {label}-----\n{}\n-----END {label}-----\n",
        STANDARD.encode(der)
    );
    let pem = pem.as_bytes();
    let json = DecodingKey::from_rsa_pem(pem)
        .or_else(|_| DecodingKey::from_ec_pem(pem))
        .or_else(|_| DecodingKey::from_ed_pem(pem))
        .ok()
        .and_then(|key| Jwk::from_decoding_key(&key, None).ok())
        .and_then(|jwk| serde_json::to_value(jwk).ok());
    let Some(mut json) = json else {
        return Err(UnusableKey {
            kid: kid.map(str::to_owned),
            why: "its type or curve is not supported".to_owned(),
            is_for_other_use: false,
        });
    };
    json["kid"] = kid.into();
    jwk::parse(&Value::from(json))
}

/// Decodes text in UTF-8 or UTF-16, removes a byte order mark and literal `\r`, and replaces literal `\n` by line
/// breaks. `None` if the bytes are not such text.
fn text(bytes: &[u8]) -> Option<String> {
    let utf16 = |order: fn([u8; 2]) -> u16| {
        let units: Vec<u16> = bytes[2..]
            .chunks_exact(2)
            .map(|pair| order([pair[0], pair[1]]))
            .collect();
        String::from_utf16(&units).ok()
    };
    let text = match bytes {
        [0xff, 0xfe, ..] => utf16(u16::from_le_bytes)?,
        [0xfe, 0xff, ..] => utf16(u16::from_be_bytes)?,
        bytes => std::str::from_utf8(bytes)
            .ok()?
            .trim_start_matches('\u{feff}')
            .to_owned(),
    };
    Some(text.replace("\\r", "").replace("\\n", "\n"))
}

/// Parses the keys in the blocks of PEM text (RFC 7468). Text between the blocks is ignored. Line breaks inside a block
/// may be replaced by spaces or missing, because environment variables often lose them.
fn blocks(mut text: &str) -> Result<Vec<PublicKey>, &'static str> {
    let mut keys = Vec::new();
    while let Some((_, rest)) = text.split_once("-----BEGIN ") {
        let (label, rest) = rest.split_once("-----").ok_or(BROKEN)?;
        let (body, rest) = rest
            .split_once(&format!("-----END {label}-----"))
            .ok_or(BROKEN)?;
        text = rest;
        match label {
            label if label.ends_with("PRIVATE KEY") => return Err(PRIVATE),
            "CERTIFICATE REQUEST" | "NEW CERTIFICATE REQUEST" => {
                return Err("is a certificate request: use the certificate, or the public key");
            }
            label if label.starts_with("PGP") => {
                return Err("is an OpenPGP key, which cannot sign JWTs");
            }
            "SSH2 PUBLIC KEY" => return Err(SSH),
            "PUBLIC KEY" | "RSA PUBLIC KEY" | "CERTIFICATE" => {
                let der = any_base64::decode(body.as_bytes()).ok_or(BROKEN)?;
                keys.push(from_der(&der).unwrap_or(Err(BROKEN))?);
            }
            // Other blocks are skipped, such as EC PARAMETERS, which openssl writes before a key.
            _ => {}
        }
    }
    match keys.len() {
        0 => Err(UNKNOWN),
        1..=MAX_KEYS => Ok(keys),
        _ => Err(TOO_MANY),
    }
}

const SSH: &str = "is an OpenSSH public key: convert it (ssh-keygen -e -m PKCS8 -f key.pub)";

/// Describes text that is neither PEM nor base64, if its format is recognised.
fn other_than_a_key(text: &str) -> Option<&'static str> {
    if text.is_empty() {
        Some("is empty")
    } else if text.starts_with('{') || text.starts_with('[') {
        Some("is JSON: if it is a JWK set, set jwks or jwks_file instead")
    } else if text.starts_with("http://") || text.starts_with("https://") {
        Some("is a URL: if a JWK set is published there, set jwks_url instead")
    } else if text.starts_with("ssh-") || text.starts_with("ecdsa-sha2-") {
        Some(SSH)
    } else if text.starts_with('/') && text.contains('.') || text.starts_with("./") {
        Some("is the name of a file: set public_key_file to it")
    } else {
        None
    }
}

/// The public key in DER, alone or in a certificate. `None` if `der` contains no key, and an error if it is a private
/// key. The validity of a certificate is not checked, because the operator or the provider has chosen its key.
fn from_der(der: &[u8]) -> Option<Result<PublicKey, &'static str>> {
    let mut certificates = RootCertStore::empty();
    if certificates.add(CertificateDer::from(der)).is_ok() {
        let spki = &certificates.roots.first()?.subject_public_key_info;
        return Some(Ok(PublicKey::Spki(sequence(spki))));
    }
    // The types of the first members distinguish the structures: SPKI has an algorithm (a sequence) and a bit string,
    // PKCS #1 has two integers of which the first is large, and private keys begin with a version (a short integer).
    match content(der)? {
        [0x30, ..] => Some(Ok(PublicKey::Spki(der.to_vec()))),
        [0x02, 1, 0..=3, ..] => Some(Err(PRIVATE)),
        [0x02, ..] => Some(Ok(PublicKey::Pkcs1(der.to_vec()))),
        _ => None,
    }
}

/// The content of a DER sequence that fills `der`.
fn content(der: &[u8]) -> Option<&[u8]> {
    let [0x30, first, rest @ ..] = der else {
        return None;
    };
    let (length, content) = match first {
        0..=0x7f => (usize::from(*first), rest),
        0x81..=0x83 => {
            let (bytes, content) = rest.split_at_checked(usize::from(first & 0x7f))?;
            let length = bytes
                .iter()
                .fold(0, |length, byte| length << 8 | usize::from(*byte));
            (length, content)
        }
        _ => return None,
    };
    (content.len() == length).then_some(content)
}

/// Encodes the content as a DER sequence.
fn sequence(content: &[u8]) -> Vec<u8> {
    let length = content.len().to_be_bytes();
    let zeros = length.iter().take_while(|&&byte| byte == 0).count();
    let mut der = vec![0x30];
    match length[zeros..] {
        [] => der.push(0),
        [short @ 0..=0x7f] => der.push(short),
        ref long => {
            der.push(0x80 | u8::try_from(long.len()).unwrap_or(8));
            der.extend(long);
        }
    }
    der.extend(content);
    der
}
