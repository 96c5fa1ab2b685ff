//! Parses the keys that verify signatures, from JWK sets (`keys/jwk.rs`), PEM (`keys/pem.rs`) and shared secrets, and
//! selects the keys for a token. `jwks.rs` fetches and caches JWK sets.

mod ed25519;
mod jwk;
mod pem;

use std::fmt;

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey, crypto};

use crate::json::{Object, Value};
use crate::secret::Secret;
use crate::session::formats::issuer::TENANT;
use crate::session::formats::shown::{listed, shown};

/// The maximum number of keys in a set. Providers publish only a few.
const MAX_KEYS: usize = 100;
/// The maximum number of keys in a JWK set that are tried for one token, because each attempt costs a signature check.
const MAX_TRIES: usize = 3;

/// A signature algorithm, identified by its name in a JOSE header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Alg {
    pub name: &'static str,
    algorithm: Algorithm,
}

impl Alg {
    /// All algorithms that can be configured. `Ed25519` is the name that RFC 9864 gives to `EdDSA` with the curve
    /// Ed25519. The computation is the same, but the two are separate entries in `algorithms`.
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

    /// Whether this is an HMAC algorithm, whose key is a shared secret.
    pub fn is_hmac(self) -> bool {
        matches!(
            self.algorithm,
            Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512
        )
    }
}

/// The type of a key, which determines the algorithms that can use the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    Secret,
    Rsa,
    P256,
    P384,
    Ed25519,
}

/// A key, and the conditions under which it may verify a token.
#[derive(Debug)]
struct Key {
    kid: Option<String>,
    family: Family,
    /// The `alg` of the JWK, if present, or the algorithm for which a shared secret is prepared. The key is not used
    /// with any other algorithm.
    only: Option<Algorithm>,
    /// The `issuer` of the JWK, if present. The key does not verify tokens of any other issuer. Microsoft Entra
    /// publishes the keys of all its tenants in one set.
    issuer: Option<String>,
    material: Material,
}

#[derive(Debug)]
enum Material {
    /// A shared secret, prepared for one algorithm. `jsonwebtoken` cannot keep a prepared key: it would prepare the key
    /// again for every token, and the preparation takes as long as the check itself. The tests check that signatures
    /// made by `jsonwebtoken` are accepted.
    Secret(Box<hmac::Key>),
    Public(DecodingKey),
}

/// Why a document contains no usable keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeysError {
    /// The document is not a set of keys. The string describes what is wrong, and for some faults how to fix it.
    Malformed(&'static str),
    /// The document is well-formed, but contains no usable key.
    NoUsableKey(Vec<UnusableKey>),
}

impl fmt::Display for KeysError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(what) => f.write_str(what),
            Self::NoUsableKey(keys) => {
                f.write_str(
                    "has no usable key: expected a public key for signatures (RSA with 2048 to 4096 bits, P-256, P-384 or Ed25519)",
                )?;
                if keys.is_empty() {
                    return Ok(());
                }
                let keys = listed(keys.iter().map(ToString::to_string));
                write!(f, ", and found {keys}")
            }
        }
    }
}

/// An unusable entry of a key set: it cannot verify signatures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnusableKey {
    kid: Option<String>,
    why: String,
    /// Whether the provider publishes the key for a purpose other than signatures.
    is_for_other_use: bool,
}

impl UnusableKey {
    pub fn kid(&self) -> Option<String> {
        self.kid.as_deref().map(shown)
    }

    pub fn why(&self) -> &str {
        &self.why
    }

    /// Whether the key was meant for signatures, so that the operator should know that it cannot be used.
    pub fn is_fault(&self) -> bool {
        !self.is_for_other_use
    }
}

impl fmt::Display for UnusableKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kid {
            Some(kid) => write!(f, "kid {}: {}", shown(kid), self.why),
            None => write!(f, "a key without kid: {}", self.why),
        }
    }
}

/// A token's signature, and the data that selects the keys for it. `Debug` does not show the token.
#[derive(Clone, Copy)]
pub struct Signed<'a> {
    /// The encoded header and payload, which the signature covers.
    pub text: &'a [u8],
    pub signature: &'a str,
    pub alg: Alg,
    /// The key id. If set, only keys with this id are tried.
    pub kid: Option<&'a str>,
    /// The claims, which are not yet verified.
    pub claims: Option<&'a Object>,
}

impl fmt::Debug for Signed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signed")
            .field("alg", &self.alg)
            .field("kid", &self.kid)
            .finish_non_exhaustive()
    }
}

/// Why a signature is not accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SignatureError {
    /// No key matches the token. The string compares the token with the keys in the set.
    NoKey(String),
    /// None of the matching keys that were tried verifies the signature.
    Wrong,
}

/// The keys that may verify a token.
#[derive(Debug)]
pub struct KeySet {
    keys: Vec<Key>,
    unusable: Vec<UnusableKey>,
    /// The maximum number of keys tried for one token.
    max_tries: usize,
}

impl KeySet {
    /// The number of keys that can be used.
    #[expect(clippy::len_without_is_empty, reason = "a set always contains a key")]
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Parses a JWK set (RFC 7517), or an object that maps key ids to PEM strings, as Google publishes its
    /// certificates. Keys that cannot be used are listed in [`Self::unusable()`].
    pub fn from_jwks(json: &[u8]) -> Result<Self, KeysError> {
        let json = json.strip_prefix(b"\xef\xbb\xbf").unwrap_or(json);
        let document = Value::parse(json).map_err(|_| KeysError::Malformed("is not JSON"))?;
        let document = document.as_object().ok_or(KeysError::Malformed(
            "is not a JSON object with the member `keys`",
        ))?;
        match document.get("keys") {
            Ok(Some(Value::Array(keys))) => Self::of(keys.iter().map(jwk::parse), MAX_TRIES),
            Ok(None) if is_pem_by_kid(document) => {
                let keys = document
                    .iter()
                    .filter_map(|(kid, pem)| Some((kid, pem.as_str()?)));
                Self::of(keys.map(|(kid, pem)| pem::parse_one(kid, pem)), MAX_TRIES)
            }
            Ok(None) if document.contains("kty") => Err(KeysError::Malformed(
                "is a single key, not a set: enclose it in {\"keys\": [ … ]}",
            )),
            _ => Err(KeysError::Malformed(
                "is a JSON object whose member `keys` is missing, repeated or not a list",
            )),
        }
    }

    /// Parses public keys and certificates in PEM, in DER or in base64.
    pub fn from_pem(pem: &[u8]) -> Result<Self, KeysError> {
        let keys = pem::parse_all(pem).map_err(KeysError::Malformed)?;
        let tries = keys.len();
        Self::of(keys.iter().map(|key| pem::key(key, None)), tries)
    }

    /// A set of shared secrets, each of which can be used with all HMAC algorithms.
    pub fn from_secrets(secrets: &[Secret]) -> Self {
        let keys = secrets.iter().flat_map(|secret| {
            [
                (Algorithm::HS256, hmac::HMAC_SHA256),
                (Algorithm::HS384, hmac::HMAC_SHA384),
                (Algorithm::HS512, hmac::HMAC_SHA512),
            ]
            .map(|(algorithm, hash)| Key {
                kid: None,
                family: Family::Secret,
                only: Some(algorithm),
                issuer: None,
                material: Material::Secret(Box::new(hmac::Key::new(hash, secret.expose()))),
            })
        });
        Self {
            keys: keys.collect(),
            unusable: Vec::new(),
            max_tries: secrets.len(),
        }
    }

    /// Creates a set of at most [`MAX_KEYS`] usable keys, which also lists at most [`MAX_KEYS`] unusable keys.
    fn of(
        parsed: impl IntoIterator<Item = Result<Key, UnusableKey>>,
        max_tries: usize,
    ) -> Result<Self, KeysError> {
        let (mut keys, mut unusable) = (Vec::new(), Vec::new());
        for key in parsed {
            match key {
                Ok(key) => keys.push(key),
                Err(key) if unusable.len() < MAX_KEYS => unusable.push(key),
                Err(_) => {}
            }
            if keys.len() == MAX_KEYS {
                break;
            }
        }
        if keys.is_empty() {
            return Err(KeysError::NoUsableKey(unusable));
        }
        Ok(Self {
            keys,
            unusable,
            max_tries,
        })
    }

    /// The keys that were meant for signatures but cannot be used.
    pub fn faults(&self) -> impl Iterator<Item = &UnusableKey> {
        self.unusable.iter().filter(|key| key.is_fault())
    }

    /// The keys that cannot be used.
    pub fn unusable(&self) -> &[UnusableKey] {
        &self.unusable
    }

    /// Whether the set contains a usable key with exactly this `kid`.
    pub fn knows(&self, kid: &str) -> bool {
        self.keys.iter().any(|key| key.kid.as_deref() == Some(kid))
    }

    /// Verifies a token's signature with the keys that match the token, of which at most `max_tries` are tried.
    ///
    /// # Errors
    /// If no key matches, or if none of the tried keys verifies the signature.
    pub fn verify(&self, signed: Signed<'_>) -> Result<(), SignatureError> {
        let mut fitting = self
            .fitting(signed)
            .filter(|key| key.is_for_issuer(signed.claims))
            .take(self.max_tries)
            .peekable();
        if fitting.peek().is_none() {
            return Err(SignatureError::NoKey(self.describe_missing(signed)));
        }
        if fitting.any(|key| key.verifies(signed.signature, signed.text, signed.alg.algorithm)) {
            Ok(())
        } else {
            Err(SignatureError::Wrong)
        }
    }

    /// The keys that can be used with the token's `alg` and, if the token has a `kid`, have the same `kid`.
    fn fitting(&self, signed: Signed<'_>) -> impl Iterator<Item = &Key> {
        self.keys.iter().filter(move |key| {
            (signed.kid.is_none() || key.kid.as_deref() == signed.kid) && key.fits(signed.alg)
        })
    }

    /// Describes why no usable key has this `kid`, for the log and `explain`.
    pub fn describe_unknown(&self, kid: &str) -> String {
        let mut unusable = self.unusable.iter();
        if let Some(key) = unusable.find(|key| key.kid.as_deref() == Some(kid)) {
            return format!("the key cannot be used ({key})");
        }
        let known = self.keys.iter().filter_map(|key| key.kid.as_deref());
        let known: Vec<&str> = known.collect();
        let kid = shown(kid);
        if known.is_empty() {
            return format!("kid is {kid}, and no key of the set has a kid");
        }
        format!(
            "kid is {kid}, and the kids in the set are {}",
            listed(known)
        )
    }

    /// Describes why no key matches, for the log and `explain`.
    fn describe_missing(&self, signed: Signed<'_>) -> String {
        if let Some(kid) = signed.kid.filter(|kid| !self.knows(kid)) {
            return self.describe_unknown(kid);
        }
        let mut issuers = self.fitting(signed).filter_map(|key| key.issuer.as_deref());
        match issuers.next() {
            Some(issuer) => format!(
                "the key may verify only tokens of the issuer {}",
                shown(issuer)
            ),
            None => format!("alg is {}, and no key can be used with it", signed.alg.name),
        }
    }
}

/// Whether the object has members, all of whose values are PEM strings. The names of the members are key ids.
fn is_pem_by_kid(document: &Object) -> bool {
    let is_pem = |value: &Value| {
        value
            .as_str()
            .is_some_and(|text| text.trim_start().starts_with("-----BEGIN "))
    };
    document.iter().next().is_some() && document.iter().all(|(_, value)| is_pem(value))
}

impl Key {
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

    /// Whether the key may verify tokens with these claims: it has no `issuer`, or its `issuer` equals the token's
    /// `iss`. `{tenantid}` in `issuer` stands for the token's `tid`.
    fn is_for_issuer(&self, claims: Option<&Object>) -> bool {
        let Some(issuer) = &self.issuer else {
            return true;
        };
        let text = |name| claims?.text(name);
        let issuer = match text("tid") {
            Some(tenant) => &issuer.replace(TENANT, tenant),
            None => issuer,
        };
        text("iss") == Some(issuer)
    }
}

#[cfg(test)]
mod tests;
