//! Builds valid and invalid JWTs, and parses minted tokens, without a JWT library.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
};
use aws_lc_rs::{hmac, rsa};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rollout_token::clock::Clock;
use serde_json::{Value, json};

use crate::sentinels::{CLIENT_SECRET, SESSION_SECRET};

pub const CLIENT_ID: &str = "faults-client";
pub const ISSUER: &str = "https://issuer.example";
pub const AUDIENCE: &str = "our-app";

pub fn now() -> i64 {
    Clock::system().now()
}

pub fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Valid claims, with the members of `over` added or replaced.
pub fn claims(over: &Value) -> Value {
    let mut all =
        json!({"iss": ISSUER, "aud": AUDIENCE, "sub": "ann", "iat": now(), "exp": now() + 600});
    for (name, value) in over.as_object().expect("claims") {
        all[name] = value.clone();
    }
    all
}

/// A token with exactly this header and payload, signed with HMAC-SHA256 and this key.
pub fn hs256_raw(header: &str, payload: impl AsRef<[u8]>, key: &[u8]) -> String {
    hmac_raw(hmac::HMAC_SHA256, header, payload, key)
}

pub fn hmac_raw(
    algorithm: hmac::Algorithm,
    header: &str,
    payload: impl AsRef<[u8]>,
    key: &[u8],
) -> String {
    let signed = format!("{}.{}", encode(header), encode(payload));
    let signature = hmac::sign(&hmac::Key::new(algorithm, key), signed.as_bytes());
    format!("{signed}.{}", encode(signature))
}

pub const HS256: &str = r#"{"typ":"JWT","alg":"HS256"}"#;

/// A session token that the HS256 configurations accept, with the claims in `over` added or replaced.
pub fn hs256(over: &Value) -> String {
    hs256_text(claims(over).to_string())
}

/// Like [`hs256`], but with arbitrary bytes as the payload.
pub fn hs256_text(payload: impl AsRef<[u8]>) -> String {
    hs256_raw(HS256, payload, SESSION_SECRET.as_bytes())
}

/// Checks the header, signature and times of the token in a response body, and returns its claims.
pub fn minted(answer: &Value) -> Value {
    let token = answer["token"]
        .as_str()
        .unwrap_or_else(|| panic!("no token in {answer}"));
    let (signed, signature) = token.rsplit_once('.').expect("a signature");
    let key = hmac::Key::new(hmac::HMAC_SHA512, CLIENT_SECRET.as_bytes());
    let signature = URL_SAFE_NO_PAD.decode(signature).expect("base64url");
    hmac::verify(&key, signed.as_bytes(), &signature).expect("our signature");
    let (header, payload) = signed.split_once('.').expect("a payload");
    let decode = |part| -> Value {
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).expect("base64url")).expect("JSON")
    };
    assert_eq!(decode(header), json!({"typ": "JWT", "alg": "HS512"}));
    let claims = decode(payload);
    assert_eq!(claims["iss"], CLIENT_ID);
    let (issued, ends) = (
        claims["iat"].as_i64().expect("iat"),
        claims["exp"].as_i64().expect("exp"),
    );
    assert_eq!(ends - issued, 900);
    assert_eq!(answer["expires_at"], ends);
    assert_eq!(
        (&answer["token_type"], &answer["expires_in"]),
        (&json!("Bearer"), &json!(900))
    );
    claims
}

/// An identity provider's key pair.
pub enum Signer {
    Rsa { kid: String, pair: Box<RsaKeyPair> },
    P256 { kid: String, pair: EcdsaKeyPair },
}

impl Signer {
    pub fn rsa(kid: &str, bits: rsa::KeySize) -> Self {
        let pair = RsaKeyPair::generate(bits).expect("a key");
        Self::Rsa {
            kid: kid.to_owned(),
            pair: Box::new(pair),
        }
    }

    pub fn p256(kid: &str) -> Self {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key");
        Self::P256 {
            kid: kid.to_owned(),
            pair,
        }
    }

    pub fn kid(&self) -> &str {
        match self {
            Self::Rsa { kid, .. } | Self::P256 { kid, .. } => kid,
        }
    }

    pub fn jwk(&self) -> Value {
        match self {
            Self::Rsa { kid, pair } => {
                // A PKCS #1 public key is a DER sequence of the modulus, which has a leading zero, and the exponent.
                let der = pair.public_key().as_ref();
                let (n, e) = (
                    &der[9..9 + pair.public_modulus_len()],
                    &der[der.len() - 3..],
                );
                assert!(
                    der[8] == 0 && e == [1, 0, 1],
                    "unexpected DER encoding of the public key"
                );
                json!({"kty": "RSA", "kid": kid, "use": "sig", "alg": "RS256", "n": encode(n), "e": encode(e)})
            }
            Self::P256 { kid, pair } => {
                let point = pair.public_key().as_ref();
                json!({"kty": "EC", "kid": kid, "use": "sig", "alg": "ES256", "crv": "P-256",
                    "x": encode(&point[1..33]), "y": encode(&point[33..])})
            }
        }
    }

    pub fn alg(&self) -> &'static str {
        match self {
            Self::Rsa { .. } => "RS256",
            Self::P256 { .. } => "ES256",
        }
    }

    pub fn header(&self) -> Value {
        json!({"typ": "JWT", "alg": self.alg(), "kid": self.kid()})
    }

    /// Signs these bytes with the private key.
    pub fn sign(&self, text: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match self {
            Self::Rsa { pair, .. } => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, text, &mut signature)
                    .expect("a signature");
                signature
            }
            Self::P256 { pair, .. } => pair
                .sign(&random, text)
                .expect("a signature")
                .as_ref()
                .to_vec(),
        }
    }

    pub fn token_raw(&self, header: &str, payload: impl AsRef<[u8]>) -> String {
        let signed = format!("{}.{}", encode(header), encode(payload));
        format!("{signed}.{}", encode(self.sign(signed.as_bytes())))
    }

    pub fn token(&self, over: &Value) -> String {
        self.token_raw(&self.header().to_string(), claims(over).to_string())
    }
}

/// The JWKS document with these keys.
pub fn jwks(keys: &[Value]) -> String {
    json!({ "keys": keys }).to_string()
}
