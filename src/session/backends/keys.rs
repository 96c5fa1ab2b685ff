//! Keys that verify signatures: parses them from JWKs and PEM, and selects those that fit a token.
//! Fetching and caching is in `jwks.rs`.

use std::fmt;

use aws_lc_rs::hmac;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, EcdsaVerificationAlgorithm, ParsedPublicKey,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, DecodingKey, crypto};

use crate::json::{Object, Value};
use crate::secret::Secret;

/// The maximum number of keys in a set. Providers publish a handful.
const MAX_KEYS: usize = 100;
/// The maximum number of keys that are tried for one token, because each costs a signature check.
const MAX_TRIES: usize = 3;
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=4096;
/// The members of a JWK that hold private or secret key material (RFC 7518, section 6).
const PRIVATE_MEMBERS: [&str; 8] = ["d", "p", "q", "dp", "dq", "qi", "oth", "k"];

/// A signature algorithm, by its name in a JOSE header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Alg {
    pub name: &'static str,
    algorithm: Algorithm,
}

impl Alg {
    /// All algorithms that can be configured. `Ed25519` is the name that RFC 9864 gave to `EdDSA` over Ed25519. They are
    /// the same computation, but separate entries in `algorithms`.
    #[rustfmt::skip]
    pub const ALL: [Self; 13] = [
        Self { name: "HS256", algorithm: Algorithm::HS256 },
        Self { name: "HS384", algorithm: Algorithm::HS384 },
        Self { name: "HS512", algorithm: Algorithm::HS512 },
        Self { name: "RS256", algorithm: Algorithm::RS256 },
        Self { name: "RS384", algorithm: Algorithm::RS384 },
        Self { name: "RS512", algorithm: Algorithm::RS512 },
        Self { name: "PS256", algorithm: Algorithm::PS256 },
        Self { name: "PS384", algorithm: Algorithm::PS384 },
        Self { name: "PS512", algorithm: Algorithm::PS512 },
        Self { name: "ES256", algorithm: Algorithm::ES256 },
        Self { name: "ES384", algorithm: Algorithm::ES384 },
        Self { name: "EdDSA", algorithm: Algorithm::EdDSA },
        Self { name: "Ed25519", algorithm: Algorithm::EdDSA },
    ];

    /// The algorithm with exactly this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|alg| alg.name == name)
    }

    /// Whether the key is a shared secret.
    pub fn is_hmac(self) -> bool {
        matches!(
            self.algorithm,
            Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512
        )
    }
}

/// The type of a key, which determines the algorithms that it may be used with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    Secret,
    Rsa,
    P256,
    P384,
    Ed25519,
}

/// One key.
#[derive(Debug)]
struct Key {
    kid: Option<String>,
    family: Family,
    /// The `alg` of the JWK, if it has one: the key is used with no other algorithm.
    only: Option<Algorithm>,
    material: Material,
}

#[derive(Debug)]
enum Material {
    /// A shared secret, prepared for one algorithm. `jsonwebtoken` prepares the key for every token, which takes as long
    /// as the check itself, and cannot keep it. The tests compare the results of both.
    Secret(Box<hmac::Key>),
    Public(DecodingKey),
}

/// Why a document has no keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeysError {
    /// Not a JWK set, or not a public key in PEM.
    Malformed,
    /// Well-formed, but without a key that may be used.
    NoUsableKey,
}

impl fmt::Display for KeysError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "is not a set of keys",
            Self::NoUsableKey => {
                "has no usable key: expected a public signature key, RSA (2048 to 4096 bits), P-256, P-384 or Ed25519"
            }
        })
    }
}

/// The keys that may verify a token.
#[derive(Debug)]
pub struct KeySet(Vec<Key>);

impl KeySet {
    /// Parses a JWK set (RFC 7517). Keys that cannot be used are skipped.
    pub fn from_jwks(json: &[u8]) -> Result<Self, KeysError> {
        let document = Value::parse(json).map_err(|_| KeysError::Malformed)?;
        let keys = document
            .as_object()
            .and_then(|document| document.get("keys").ok().flatten());
        let Some(Value::Array(keys)) = keys else {
            return Err(KeysError::Malformed);
        };
        Self::of(
            keys.iter()
                .filter_map(Value::as_object)
                .filter_map(Key::from_jwk),
        )
    }

    /// Parses one public key in PEM: SPKI, or PKCS #1 for RSA.
    pub fn from_pem(pem: &[u8]) -> Result<Self, KeysError> {
        let text = std::str::from_utf8(pem).map_err(|_| KeysError::Malformed)?;
        // The parsers below also accept private keys and certificates, which are refused here.
        let public = [
            "-----BEGIN PUBLIC KEY-----",
            "-----BEGIN RSA PUBLIC KEY-----",
        ];
        if !public
            .iter()
            .any(|label| text.trim_start().starts_with(label))
        {
            return Err(KeysError::Malformed);
        }
        let key = DecodingKey::from_rsa_pem(pem)
            .or_else(|_| DecodingKey::from_ec_pem(pem))
            .or_else(|_| DecodingKey::from_ed_pem(pem))
            .map_err(|_| KeysError::Malformed)?;
        // Converted to a JWK, so that `Key::from_jwk` alone decides which keys may be used.
        let jwk = Jwk::from_decoding_key(&key, None).map_err(|_| KeysError::NoUsableKey)?;
        let jwk = serde_json::to_value(jwk)
            .map(Value::from)
            .map_err(|_| KeysError::NoUsableKey)?;
        Self::of(jwk.as_object().and_then(Key::from_jwk))
    }

    /// A shared secret, for all HMAC algorithms.
    pub fn from_secret(secret: &Secret) -> Self {
        let key = |(algorithm, hash)| Key {
            kid: None,
            family: Family::Secret,
            only: Some(algorithm),
            material: Material::Secret(Box::new(hmac::Key::new(hash, secret.expose()))),
        };
        let kinds = [
            (Algorithm::HS256, hmac::HMAC_SHA256),
            (Algorithm::HS384, hmac::HMAC_SHA384),
            (Algorithm::HS512, hmac::HMAC_SHA512),
        ];
        Self(kinds.map(key).into())
    }

    fn of(keys: impl IntoIterator<Item = Key>) -> Result<Self, KeysError> {
        let keys: Vec<Key> = keys.into_iter().take(MAX_KEYS).collect();
        if keys.is_empty() {
            Err(KeysError::NoUsableKey)
        } else {
            Ok(Self(keys))
        }
    }

    /// Whether there is a key with exactly this `kid`.
    pub fn knows(&self, kid: &str) -> bool {
        self.0.iter().any(|key| key.kid.as_deref() == Some(kid))
    }

    /// Verifies the signature with the keys that fit `alg` and have this `kid`; without a `kid`, with all that fit `alg`.
    /// `None` if no key fits.
    pub fn verify(
        &self,
        signed: &[u8],
        signature: &str,
        alg: Alg,
        kid: Option<&str>,
    ) -> Option<bool> {
        let named = |key: &&Key| kid.is_none() || key.kid.as_deref() == kid;
        let mut fitting = self
            .0
            .iter()
            .filter(named)
            .filter(|key| key.fits(alg))
            .take(MAX_TRIES)
            .peekable();
        fitting.peek()?;
        Some(fitting.any(|key| key.verifies(signature, signed, alg.algorithm)))
    }
}

impl Key {
    /// Parses a JWK. `None` if it must not or cannot be used to verify.
    fn from_jwk(jwk: &Object) -> Option<Self> {
        let text = |name| match jwk.get(name) {
            Ok(Some(Value::String(text))) => Some(text.as_str()),
            Ok(_) | Err(_) => None,
        };
        // A key with a member of the wrong type or a repeated member is refused.
        let is_absent_or_text = |name| !jwk.contains(name) || text(name).is_some();
        if PRIVATE_MEMBERS.iter().any(|name| jwk.contains(name))
            || !["kid", "alg", "use"].into_iter().all(is_absent_or_text)
            || text("use").is_some_and(|usage| usage != "sig")
            || !may_verify(jwk)
        {
            return None;
        }
        let bytes = |name| text(name).and_then(|text| URL_SAFE_NO_PAD.decode(text).ok());
        let (family, public) = match (text("kty")?, text("crv")) {
            ("RSA", _) => (Family::Rsa, rsa(&bytes("n")?, &bytes("e")?)?),
            ("EC", Some("P-256")) => (
                Family::P256,
                ec(&bytes("x")?, &bytes("y")?, 32, &ECDSA_P256_SHA256_FIXED)?,
            ),
            ("EC", Some("P-384")) => (
                Family::P384,
                ec(&bytes("x")?, &bytes("y")?, 48, &ECDSA_P384_SHA384_FIXED)?,
            ),
            ("OKP", Some("Ed25519")) => {
                let point = bytes("x")?
                    .try_into()
                    .ok()
                    .filter(|point| !is_of_small_order(point))?;
                (Family::Ed25519, DecodingKey::from_ed_der(&point))
            }
            _ => return None,
        };
        let only = match text("alg") {
            Some(name) => Some(Alg::named(name)?.algorithm),
            None => None,
        };
        let material = Material::Public(public);
        Some(Self {
            kid: text("kid").map(str::to_owned),
            family,
            only,
            material,
        })
    }

    fn verifies(&self, signature: &str, signed: &[u8], algorithm: Algorithm) -> bool {
        match &self.material {
            Material::Secret(key) => URL_SAFE_NO_PAD
                .decode(signature)
                .is_ok_and(|signature| hmac::verify(key, signed, &signature).is_ok()),
            Material::Public(key) => {
                crypto::verify(signature, signed, key, algorithm).unwrap_or(false)
            }
        }
    }

    fn fits(&self, alg: Alg) -> bool {
        use Algorithm as A;
        self.only.is_none_or(|only| only == alg.algorithm)
            && match self.family {
                Family::Secret => alg.is_hmac(),
                Family::Rsa => {
                    matches!(
                        alg.algorithm,
                        A::RS256 | A::RS384 | A::RS512 | A::PS256 | A::PS384 | A::PS512
                    )
                }
                Family::P256 => alg.algorithm == A::ES256,
                Family::P384 => alg.algorithm == A::ES384,
                Family::Ed25519 => alg.algorithm == A::EdDSA,
            }
    }
}

fn may_verify(jwk: &Object) -> bool {
    match jwk.get("key_ops") {
        Ok(None) => true,
        Ok(Some(Value::Array(operations))) => operations
            .iter()
            .any(|name| name.as_str() == Some("verify")),
        Ok(Some(_)) | Err(_) => false,
    }
}

fn rsa(modulus: &[u8], exponent: &[u8]) -> Option<DecodingKey> {
    let zeros = modulus.iter().take_while(|&&byte| byte == 0).count();
    let modulus = &modulus[zeros..];
    let bits = modulus.len() * 8 - modulus.first()?.leading_zeros() as usize;
    RSA_BITS
        .contains(&bits)
        .then(|| DecodingKey::from_rsa_raw_components(modulus, exponent))
}

/// A key from the two coordinates of a point, each of exactly `length` bytes (uncompressed form, SEC 1, section 2.3.3). A
/// point that is not on the curve is refused, so that a set of such keys does not replace a usable set.
fn ec(
    x: &[u8],
    y: &[u8],
    length: usize,
    curve: &'static EcdsaVerificationAlgorithm,
) -> Option<DecodingKey> {
    let point = [&[4], x, y].concat();
    let is_point =
        x.len() == length && y.len() == length && ParsedPublicKey::new(curve, &point).is_ok();
    is_point.then(|| DecodingKey::from_ec_der(&point))
}

/// Whether an Ed25519 public key is one of the eight points whose order divides 8, in any encoding. For such a key,
/// signatures of many or all messages can be forged without a private key.
fn is_of_small_order(point: &[u8; 32]) -> bool {
    // The y coordinates, little-endian: those of orders 4, 1 and 2, the first two of these again plus the prime, and the
    // two of order 8.
    const EDGES: [(u8, u8, u8); 5] = [
        (0, 0, 0),
        (1, 0, 0),
        (0xec, 0xff, 0x7f),
        (0xed, 0xff, 0x7f),
        (0xee, 0xff, 0x7f),
    ];
    const ORDER_8: [[u8; 32]; 2] = [
        [
            0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef,
            0x98, 0xf0, 0xd5, 0xdf, 0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88,
            0x6d, 0x53, 0xfc, 0x05,
        ],
        [
            0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10,
            0x67, 0x0f, 0x2a, 0x20, 0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77,
            0x92, 0xac, 0x03, 0x7a,
        ],
    ];
    // The highest bit is the sign of x, which does not matter.
    let mut y = *point;
    y[31] &= 0x7f;
    let is_edge = |(first, middle, last): (u8, u8, u8)| {
        y[0] == first && y[1..31].iter().all(|&byte| byte == middle) && y[31] == last
    };
    EDGES.into_iter().any(is_edge) || ORDER_8.contains(&y)
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
    use aws_lc_rs::rand::SystemRandom;
    use aws_lc_rs::rsa::{KeyPair, KeySize};
    use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_SHA256};
    use base64::engine::general_purpose::STANDARD;
    use serde_json::json;

    fn is_usable(jwk: &serde_json::Value) -> bool {
        KeySet::from_jwks(json!({ "keys": [jwk] }).to_string().as_bytes()).is_ok()
    }

    fn rsa_of(bits: usize) -> serde_json::Value {
        let mut modulus = vec![0xff; bits.div_ceil(8)];
        modulus[0] >>= modulus.len() * 8 - bits;
        json!({ "kty": "RSA", "n": URL_SAFE_NO_PAD.encode(modulus), "e": "AQAB" })
    }

    #[test]
    fn only_public_signature_keys_of_supported_types_are_used() {
        let with = |name: &str, value: serde_json::Value| {
            let mut jwk = rsa_of(2048);
            jwk[name] = value;
            jwk
        };
        let of = |family| {
            let pair = rcgen::KeyPair::generate_for(family).expect("a key");
            let (x, y) = pair.public_key_raw()[1..].split_at(pair.public_key_raw().len() / 2);
            (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y))
        };
        let (p256, p384) = (
            of(&rcgen::PKCS_ECDSA_P256_SHA256),
            of(&rcgen::PKCS_ECDSA_P384_SHA384),
        );
        let ec = |curve, (x, y): (&str, &str)| json!({ "kty": "EC", "crv": curve, "x": x, "y": y });
        let point = URL_SAFE_NO_PAD.encode([1; 32]);
        for (name, jwk, want) in [
            ("RSA 2047", rsa_of(2047), false),
            ("RSA 2048", rsa_of(2048), true),
            ("RSA 4096", rsa_of(4096), true),
            ("RSA 4097", rsa_of(4097), false),
            ("RSA 1024", rsa_of(1024), false),
            ("for signatures", with("use", json!("sig")), true),
            ("for encryption", with("use", json!("enc")), false),
            ("use no text", with("use", json!(["sig"])), false),
            ("may verify", with("key_ops", json!(["verify"])), true),
            ("may only sign", with("key_ops", json!(["sign"])), false),
            ("key_ops no list", with("key_ops", json!("verify")), false),
            ("known alg", with("alg", json!("PS512")), true),
            ("unknown alg", with("alg", json!("RSA-OAEP")), false),
            ("private d", with("d", json!("AQAB")), false),
            ("private k", with("k", json!(null)), false),
            ("kid a number", with("kid", json!(7)), false),
            ("padded", with("e", json!("AQAB==")), false),
            ("no kty", json!({ "n": "AQAB" }), false),
            ("secret", json!({ "kty": "oct", "alg": "HS256" }), false),
            ("P-256", ec("P-256", (&p256.0, &p256.1)), true),
            ("P-256, long", ec("P-256", (&p384.0, &p384.1)), false),
            (
                "P-256, not on the curve",
                ec("P-256", (&p256.0, &p256.0)),
                false,
            ),
            ("P-256, one coordinate", ec("P-256", (&p256.0, "")), false),
            ("P-384", ec("P-384", (&p384.0, &p384.1)), true),
            (
                "P-384, not on the curve",
                ec("P-384", (&p384.1, &p384.0)),
                false,
            ),
            ("secp256k1", ec("secp256k1", (&p256.0, &p256.1)), false),
            (
                "Ed25519",
                json!({ "kty": "OKP", "crv": "Ed25519", "x": point }),
                true,
            ),
            (
                "X25519",
                json!({ "kty": "OKP", "crv": "X25519", "x": point }),
                false,
            ),
        ] {
            assert_eq!(is_usable(&jwk), want, "{name}");
        }
    }

    #[test]
    fn small_order_ed25519_keys_are_refused() {
        let y = |hex: &str| -> Vec<u8> {
            let digits = (0..32).map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16));
            digits.collect::<Result<_, _>>().expect("hex")
        };
        for hex in [
            "0000000000000000000000000000000000000000000000000000000000000000",
            "0100000000000000000000000000000000000000000000000000000000000000",
            "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
            "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
            "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
            "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
            "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        ] {
            for sign in [0, 0x80] {
                let mut point = y(hex);
                point[31] |= sign;
                let jwk =
                    json!({ "kty": "OKP", "crv": "Ed25519", "x": URL_SAFE_NO_PAD.encode(&point) });
                assert!(!is_usable(&jwk), "{hex} {sign}");
                // SPKI (RFC 8410) around the point.
                let spki = [
                    &[0x30, 0x2a, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 3, 0x21, 0][..],
                    &point,
                ]
                .concat();
                let pem = format!(
                    "-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n",
                    STANDARD.encode(spki)
                );
                assert_eq!(
                    KeySet::from_pem(pem.as_bytes()).err(),
                    Some(KeysError::NoUsableKey),
                    "{hex} {sign}"
                );
            }
        }
    }

    #[test]
    fn key_of_each_type_is_parsed_from_pem_and_verifies_only_its_own_algorithm() {
        use jsonwebtoken::EncodingKey;
        type Maker = fn(&[u8]) -> EncodingKey;
        let families: [(_, &[&str], Algorithm, Maker); 3] = [
            (
                &rcgen::PKCS_ECDSA_P256_SHA256,
                &["ES256"],
                Algorithm::ES256,
                EncodingKey::from_ec_der,
            ),
            (
                &rcgen::PKCS_ECDSA_P384_SHA384,
                &["ES384"],
                Algorithm::ES384,
                EncodingKey::from_ec_der,
            ),
            (
                &rcgen::PKCS_ED25519,
                &["EdDSA", "Ed25519"],
                Algorithm::EdDSA,
                EncodingKey::from_ed_der,
            ),
        ];
        for (family, names, algorithm, encoding) in families {
            let pair = rcgen::KeyPair::generate_for(family).expect("a key");
            let keys = KeySet::from_pem(pair.public_key_pem().as_bytes()).expect("a usable key");
            let signature = crypto::sign(b"text", &encoding(&pair.serialize_der()), algorithm)
                .expect("a signature");
            for alg in Alg::ALL {
                let want = names.contains(&alg.name).then_some(true);
                assert_eq!(
                    keys.verify(b"text", &signature, alg, None),
                    want,
                    "{} {names:?}",
                    alg.name
                );
            }
            let alg = Alg::named(names[0]).expect("a known algorithm");
            assert_eq!(keys.verify(b"test", &signature, alg, None), Some(false));
        }
    }

    #[test]
    fn secret_verifies_signatures_of_jsonwebtoken_and_refuses_others() {
        let (ours, other) = (Secret::new("session-secret"), Secret::new("another-secret"));
        for name in ["HS256", "HS384", "HS512"] {
            let alg = Alg::named(name).expect("a known algorithm");
            let key = jsonwebtoken::EncodingKey::from_secret(ours.expose());
            let signature = crypto::sign(b"text", &key, alg.algorithm).expect("a signature");
            let verify = |secret: &Secret, text: &[u8], signature: &str| {
                KeySet::from_secret(secret).verify(text, signature, alg, None)
            };
            assert_eq!(verify(&ours, b"text", &signature), Some(true), "{name}");
            assert_eq!(verify(&ours, b"test", &signature), Some(false), "{name}");
            assert_eq!(verify(&other, b"text", &signature), Some(false), "{name}");
            for bad in [
                "",
                "AA",
                &signature[1..],
                &format!("{signature}="),
                &format!("{signature}A"),
            ] {
                assert_eq!(verify(&ours, b"text", bad), Some(false), "{name} {bad}");
            }
            let rsa = Alg::named("RS256").expect("a known algorithm");
            assert_eq!(
                KeySet::from_secret(&ours).verify(b"text", &signature, rsa, None),
                None
            );
        }
    }

    #[test]
    fn rsa_key_is_parsed_from_spki_and_pkcs1_pem() {
        let pair = KeyPair::generate(KeySize::Rsa2048).expect("a key");
        let mut signature = vec![0; pair.public_modulus_len()];
        pair.sign(
            &RSA_PKCS1_SHA256,
            &SystemRandom::new(),
            b"text",
            &mut signature,
        )
        .expect("a signature");
        let signature = URL_SAFE_NO_PAD.encode(signature);
        let spki: PublicKeyX509Der<'_> = pair.public_key().as_der().expect("DER");
        let pem = |label: &str, der: &[u8]| {
            format!(
                "-----BEGIN {label}-----\n{}\n-----END {label}-----\n",
                STANDARD.encode(der)
            )
        };
        let alg = |name| Alg::named(name).expect("a known algorithm");
        for text in [
            pem("PUBLIC KEY", spki.as_ref()),
            pem("RSA PUBLIC KEY", pair.public_key().as_ref()),
        ] {
            let keys = KeySet::from_pem(text.as_bytes()).expect("a usable key");
            assert_eq!(
                keys.verify(b"text", &signature, alg("RS256"), None),
                Some(true)
            );
            assert_eq!(
                keys.verify(b"test", &signature, alg("RS256"), None),
                Some(false)
            );
            assert_eq!(
                keys.verify(b"text", &signature, alg("PS256"), None),
                Some(false)
            );
            assert_eq!(keys.verify(b"text", &signature, alg("ES256"), None), None);
            assert_eq!(keys.verify(b"text", &signature, alg("HS256"), None), None);
        }
        for text in [
            pem("CERTIFICATE", spki.as_ref()),
            pem("PUBLIC KEY", b"\x30\x00"),
            String::new(),
        ] {
            assert!(KeySet::from_pem(text.as_bytes()).is_err());
        }
    }
}
