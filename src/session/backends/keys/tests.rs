//! Tests of the parsing of keys in the formats that providers and operators use.

use super::*;
use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_SHA256};
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

/// Whether the signature is valid; `None` if no key matches.
fn verifies(keys: &KeySet, text: &[u8], signature: &str, alg: Alg) -> Option<bool> {
    let signed = Signed {
        text,
        signature,
        alg,
        kid: None,
        claims: None,
    };
    match keys.verify(signed) {
        Ok(()) => Some(true),
        Err(SignatureError::Wrong) => Some(false),
        Err(SignatureError::NoKey(_)) => None,
    }
}

fn is_usable(jwk: &serde_json::Value) -> bool {
    KeySet::from_jwks(json!({ "keys": [jwk] }).to_string().as_bytes()).is_ok()
}

fn rsa_of(bits: usize) -> serde_json::Value {
    let mut modulus = vec![0xff; bits.div_ceil(8)];
    modulus[0] >>= modulus.len() * 8 - bits;
    json!({ "kty": "RSA", "n": URL_SAFE_NO_PAD.encode(modulus), "e": "AQAB" })
}

#[test]
fn only_public_signature_keys_of_supported_types_are_usable() {
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
        ("private k", with("k", json!("AQAB")), false),
        ("k null", with("k", json!(null)), true),
        ("key_ops empty", with("key_ops", json!([])), true),
        ("key_ops null", with("key_ops", json!(null)), true),
        ("kid null", with("kid", json!(null)), true),
        ("use empty", with("use", json!("")), true),
        ("alg null", with("alg", json!(null)), true),
        ("e of Azure Key Vault", with("e", json!("AAEAAQ")), true),
        ("e = 1", with("e", json!("AQ")), false),
        ("e = 0", with("e", json!("AAAA")), false),
        ("e even", with("e", json!("AgAA")), false),
        ("e of 5 bytes", with("e", json!("AQAAAAE")), true),
        ("e of 34 bits", with("e", json!("AgAAAAE")), false),
        ("e of 6 bytes", with("e", json!("AQAAAAAB")), false),
        ("kid a number", with("kid", json!(7)), false),
        ("padded", with("e", json!("AQAB==")), true),
        ("not base64", with("e", json!("AQ.B")), false),
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
            // The point wrapped in SPKI (RFC 8410).
            let spki = [
                &[0x30, 0x2a, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 3, 0x21, 0][..],
                &point,
            ]
            .concat();
            let pem = format!(
                "-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n",
                STANDARD.encode(spki)
            );
            let error = KeySet::from_pem(pem.as_bytes())
                .expect_err("an unsafe key")
                .to_string();
            assert!(error.contains("small order"), "{hex} {sign}: {error}");
        }
    }
}

#[test]
fn key_of_each_type_is_parsed_from_pem_and_verifies_signatures_of_its_algorithm_only() {
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
                verifies(&keys, b"text", &signature, alg),
                want,
                "{} {names:?}",
                alg.name
            );
        }
        let alg = Alg::named(names[0]).expect("a known algorithm");
        assert_eq!(verifies(&keys, b"test", &signature, alg), Some(false));
    }
}

#[test]
fn secret_verifies_signatures_that_jsonwebtoken_made_with_it_and_refuses_others() {
    let (ours, other) = (Secret::new("session-secret"), Secret::new("another-secret"));
    for name in ["HS256", "HS384", "HS512"] {
        let alg = Alg::named(name).expect("a known algorithm");
        let key = jsonwebtoken::EncodingKey::from_secret(ours.expose());
        let signature = crypto::sign(b"text", &key, alg.algorithm).expect("a signature");
        let verify = |secret: &Secret, text: &[u8], signature: &str| {
            verifies(
                &KeySet::from_secrets(std::slice::from_ref(secret)),
                text,
                signature,
                alg,
            )
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
            verifies(
                &KeySet::from_secrets(std::slice::from_ref(&ours)),
                b"text",
                &signature,
                rsa
            ),
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
            verifies(&keys, b"text", &signature, alg("RS256")),
            Some(true)
        );
        assert_eq!(
            verifies(&keys, b"test", &signature, alg("RS256")),
            Some(false)
        );
        assert_eq!(
            verifies(&keys, b"text", &signature, alg("PS256")),
            Some(false)
        );
        assert_eq!(verifies(&keys, b"text", &signature, alg("ES256")), None);
        assert_eq!(verifies(&keys, b"text", &signature, alg("HS256")), None);
    }
    for text in [
        pem("CERTIFICATE", b"\x30\x00"),
        pem("PUBLIC KEY", b"\x30\x00"),
        String::new(),
    ] {
        assert!(KeySet::from_pem(text.as_bytes()).is_err());
    }
}

/// A P-256 key pair and a self-signed certificate for it, all in PEM, and a signature of the message `text`.
struct Sample {
    pem: String,
    certificate: String,
    signature: String,
    private: String,
}

impl Sample {
    fn new() -> Self {
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("a key");
        let key = jsonwebtoken::EncodingKey::from_ec_der(&pair.serialize_der());
        let certificate = rcgen::CertificateParams::default().self_signed(&pair);
        Self {
            pem: pair.public_key_pem(),
            certificate: certificate.expect("a certificate").pem(),
            signature: crypto::sign(b"text", &key, Algorithm::ES256).expect("a signature"),
            private: pair.serialize_pem(),
        }
    }

    fn is_verified_by(&self, keys: &KeySet) -> bool {
        let alg = Alg::named("ES256").expect("a known algorithm");
        verifies(keys, b"text", &self.signature, alg) == Some(true)
    }
}

fn der(pem: &str) -> Vec<u8> {
    let body: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    STANDARD.decode(body).expect("base64")
}

#[test]
fn public_key_is_parsed_from_every_common_format() {
    let sample = Sample::new();
    let Sample {
        pem, certificate, ..
    } = &sample;
    let utf16: Vec<u8> = pem.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let one_line = pem.lines().collect::<Vec<_>>().join(" ");
    for (form, bytes) in [
        ("PEM", pem.clone().into_bytes()),
        ("CRLF line ends", pem.replace('\n', "\r\n").into_bytes()),
        ("byte order mark", format!("\u{feff}{pem}").into_bytes()),
        ("UTF-16", [&[0xff, 0xfe], &utf16[..]].concat()),
        ("quotes", format!("\"{pem}\"\n").into_bytes()),
        ("escaped line breaks", pem.replace('\n', "\\n").into_bytes()),
        (
            "escaped CRLF line ends",
            pem.replace('\n', "\\r\\n").into_bytes(),
        ),
        ("spaces for line breaks", one_line.into_bytes()),
        (
            "no line breaks",
            pem.lines().collect::<String>().into_bytes(),
        ),
        (
            "surrounding text",
            format!("# our key\n{pem}\nbye").into_bytes(),
        ),
        ("bare base64", STANDARD.encode(der(pem)).into_bytes()),
        (
            "bare base64url",
            URL_SAFE_NO_PAD.encode(der(pem)).into_bytes(),
        ),
        ("base64 of PEM", STANDARD.encode(pem).into_bytes()),
        ("DER", der(pem)),
        ("certificate", certificate.clone().into_bytes()),
        (
            "bare certificate",
            STANDARD.encode(der(certificate)).into_bytes(),
        ),
        ("certificate in DER", der(certificate)),
        (
            "key and its certificate",
            format!("{pem}{certificate}").into_bytes(),
        ),
    ] {
        let keys = KeySet::from_pem(&bytes).unwrap_or_else(|error| panic!("{form}: {error}"));
        assert!(sample.is_verified_by(&keys), "{form}");
    }
    let others: Vec<Sample> = (0..9).map(|_| Sample::new()).collect();
    let all = others
        .iter()
        .map(|sample| sample.pem.as_str())
        .chain([pem.as_str()]);
    let keys = KeySet::from_pem(all.collect::<String>().as_bytes()).expect("ten keys");
    assert!(
        others
            .iter()
            .chain([&sample])
            .all(|sample| sample.is_verified_by(&keys))
    );
}

#[test]
fn input_that_is_not_1_to_10_public_keys_is_an_error_that_names_what_was_found() {
    let Sample { pem, private, .. } = Sample::new();
    for (text, want) in [
        (private.as_str(), "is a private key"),
        (&format!("{pem}{private}"), "is a private key"),
        (&STANDARD.encode(der(&private)), "is a private key"),
        (
            "-----BEGIN RSA PRIVATE KEY-----\nAA==\n-----END RSA PRIVATE KEY-----",
            "is a private key",
        ),
        (
            "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAA==\n-----END ENCRYPTED PRIVATE KEY-----",
            "is a private key",
        ),
        (
            "-----BEGIN CERTIFICATE REQUEST-----\nAA==\n-----END CERTIFICATE REQUEST-----",
            "is a certificate request",
        ),
        ("ssh-rsa AAAAB3NzaC1yc2E= me@host", "ssh-keygen"),
        ("{\"keys\":[]}", "jwks"),
        ("https://idp.example/jwks", "jwks_url"),
        ("/etc/keys/public.pem", "public_key_file"),
        ("", "is empty"),
        ("a secret text", "is not a public key"),
        (&pem[..60], "incomplete"),
        (&pem.repeat(11), "more than 10 keys"),
    ] {
        let error = KeySet::from_pem(text.as_bytes())
            .expect_err(text)
            .to_string();
        assert!(error.contains(want), "{text}: {error}");
    }
}

#[test]
fn coordinates_with_too_many_or_too_few_leading_zeros_are_accepted() {
    // One in 256 keys has an x coordinate whose first byte is zero.
    let (jwk, sample) = loop {
        let sample = Sample::new();
        let point = &der(&sample.pem)[27..];
        if point[0] == 0 {
            let coordinates = (point[..32].to_vec(), point[32..].to_vec());
            break (coordinates, sample);
        }
    };
    let (x, y) = jwk;
    let longer = |bytes: &[u8]| [&[0, 0], bytes].concat();
    for (case, x, y) in [
        ("32 bytes each", x.clone(), y.clone()),
        ("a zero too few", x[1..].to_vec(), y.clone()),
        ("two zeros too many", longer(&x), longer(&y)),
    ] {
        let jwk = json!({ "kty": "EC", "crv": "P-256", "x": URL_SAFE_NO_PAD.encode(x), "y": URL_SAFE_NO_PAD.encode(y) });
        let keys = KeySet::from_jwks(json!({ "keys": [jwk] }).to_string().as_bytes()).expect(case);
        assert!(sample.is_verified_by(&keys), "{case}");
    }
}

#[test]
fn map_from_kid_to_certificate_is_parsed_as_a_key_set() {
    let (one, other) = (Sample::new(), Sample::new());
    let document = json!({ "one": one.certificate, "other": other.pem });
    let keys = KeySet::from_jwks(document.to_string().as_bytes()).expect("a set");
    assert!(keys.knows("one") && keys.knows("other"));
    assert!(one.is_verified_by(&keys) && other.is_verified_by(&keys));
    let with_bom = format!("\u{feff}{document}");
    assert!(KeySet::from_jwks(with_bom.as_bytes()).is_ok());
    for (text, want) in [
        ("[]", "is not a JSON object"),
        (
            "{}",
            "whose member `keys` is missing, repeated or not a list",
        ),
        ("{\"keys\":[]}", "no usable key"),
        ("{\"kty\":\"RSA\"}", "is a single key"),
        (
            "{\"a\":\"text\"}",
            "whose member `keys` is missing, repeated or not a list",
        ),
        ("<html>", "is not JSON"),
    ] {
        let error = KeySet::from_jwks(text.as_bytes())
            .expect_err(text)
            .to_string();
        assert!(error.contains(want), "{text}: {error}");
    }
}

#[test]
fn unusable_key_is_reported_with_its_kid_unless_it_is_meant_for_another_use() {
    let with = |change: serde_json::Value| {
        let mut jwk = rsa_of(2048);
        for (name, value) in change.as_object().expect("an object") {
            jwk[name] = value.clone();
        }
        jwk
    };
    let keys = json!({ "keys": [
        with(json!({ "kid": "good" })),
        with(json!({ "kid": "enc", "use": "enc", "alg": "RSA-OAEP" })),
        with(json!({ "kid": "alg", "alg": "ES512" })),
        { "kty": "EC", "crv": "P-521", "kid": "p521", "x": "AA", "y": "AA" },
        { "kty": "RSA", "n": "AQAB", "e": "AQAB" },
        7,
    ] });
    let keys = KeySet::from_jwks(keys.to_string().as_bytes()).expect("a usable key");
    let faults: Vec<String> = keys.faults().map(ToString::to_string).collect();
    assert_eq!(
        faults,
        [
            "kid alg: its alg ES512 is not supported",
            "kid p521: the curve P-521 is not supported",
            "a key without kid: it has 17 bits, and an RSA key must have 2048 to 4096",
            "a key without kid: it is not a JSON object",
        ]
    );
    assert_eq!(
        keys.describe_unknown("enc"),
        "the key cannot be used (kid enc: its use is enc, not sig)"
    );
    assert_eq!(
        keys.describe_unknown("x"),
        "kid is x, and the kids in the set are good"
    );
    let unnamed = json!({ "keys": [rsa_of(2048)] });
    let unnamed = KeySet::from_jwks(unnamed.to_string().as_bytes()).expect("a usable key");
    assert_eq!(
        unnamed.describe_unknown(""),
        "kid is empty, and no key of the set has a kid"
    );
}
