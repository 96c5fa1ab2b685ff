//! JWT attacks: algorithms, keys, signatures, headers and encodings.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::hmac::{HMAC_SHA256, HMAC_SHA384, HMAC_SHA512};
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::KeyPair;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinSet;

use crate::configs::by_jwt;
use crate::sentinels::{CLIENT_SECRET, SESSION_SECRET};
use crate::service::{Service, refuses};
use crate::settings::ConfigBuilder;
use crate::tokens::{HS256, Signer, claims, encode, hmac_raw, hs256, hs256_raw, jwks};
use crate::upstream::{Upstream, ok};
use crate::wire::{bearer, post, post_raw};

const INVALID: &[&str] = &["401 session_invalid"];

/// Services that verify tokens in different ways, and the keys with which the test signs tokens for them.
struct Stage {
    /// Accepts tokens signed with HS256.
    secret: Arc<Service>,
    /// Accepts tokens of up to 30,000 bytes, signed with HS512.
    long: Arc<Service>,
    /// Accepts tokens signed with the RSA key or the P-256 key.
    public: Arc<Service>,
    rsa: Signer,
    p256: Signer,
    _keys: TempDir,
}

fn by_file(keys: &Path) -> ConfigBuilder {
    by_jwt()
        .without("extractors.web.secret")
        .without("extractors.web.algorithms")
        .with(format!("extractors.web.jwks_file = '{}'", keys.display()))
}

impl Stage {
    async fn start() -> Self {
        let (rsa, p256) = (Signer::rsa("rsa-1", KeySize::Rsa2048), Signer::p256("ec-1"));
        let keys = tempfile::tempdir().expect("a directory");
        let file = keys.path().join("jwks.json");
        std::fs::write(&file, jwks(&[rsa.jwk(), p256.jwk()])).expect("a file");
        let long =
            by_jwt().with("[extractors.web]\nalgorithms = ['HS512']\nmax_token_bytes = 30000");
        let (secret, long, public) = tokio::join!(
            Service::start(by_jwt()),
            Service::start(long),
            Service::start(by_file(&file)),
        );
        Self {
            secret,
            long,
            public,
            rsa,
            p256,
            _keys: keys,
        }
    }

    async fn finish(&self) {
        tokio::join!(
            self.secret.finish(),
            self.long.finish(),
            self.public.finish()
        );
    }

    /// Checks that every service refuses the token.
    async fn refused(&self, label: &str, token: &str) {
        for service in [&self.secret, &self.long, &self.public] {
            service.expect(label, &post(&bearer(token)), INVALID).await;
        }
    }

    async fn rsa_refused(&self, label: &str, header: &Value) {
        let token = self
            .rsa
            .token_raw(&header.to_string(), claims(&json!({})).to_string());
        self.public
            .expect(label, &post(&bearer(&token)), INVALID)
            .await;
    }
}

#[tokio::test]
async fn missing_or_unknown_algorithm_or_alg_none_is_401() {
    let s = Stage::start().await;
    let good = s
        .public
        .expect("good", &post(&bearer(&s.rsa.token(&json!({})))), &["200"])
        .await;
    assert_eq!(good.subject(), "ann");
    for alg in [
        "\"none\"",
        "\"None\"",
        "\"nOnE\"",
        "\"NONE\"",
        "\"\"",
        "null",
        "5",
        "true",
        "[]",
        "{}",
        "[\"HS256\"]",
        "\" HS256\"",
        "\"HS256 \"",
        "\"hs256\"",
        "\"HS256\\u0000\"",
        "\"NoNe\"",
    ] {
        let header = format!("{{\"typ\":\"JWT\",\"alg\":{alg}}}");
        let payload = claims(&json!({})).to_string();
        s.refused(
            alg,
            &hs256_raw(&header, &payload, SESSION_SECRET.as_bytes()),
        )
        .await;
        s.refused(alg, &s.rsa.token_raw(&header, &payload)).await;
        s.refused(alg, &format!("{}.{}.", encode(&header), encode(&payload)))
            .await;
        s.refused(alg, &format!("{}.{}.AA", encode(&header), encode(&payload)))
            .await;
    }
    for header in [
        "{\"typ\":\"JWT\"}",
        "{}",
        "{\"ALG\":\"HS256\"}",
        "{\"alg\":\"none\",\"alg\":\"HS256\"}",
        "{\"alg\":\"HS256\",\"\\u0061lg\":\"HS256\"}",
    ] {
        s.refused(
            header,
            &hs256_raw(
                header,
                claims(&json!({})).to_string(),
                SESSION_SECRET.as_bytes(),
            ),
        )
        .await;
    }
    s.finish().await;
}

#[tokio::test]
async fn missing_foreign_or_altered_signature_is_401() {
    let s = Stage::start().await;
    let payload = claims(&json!({})).to_string();
    s.refused("empty", &format!("{}.{}.", encode(HS256), encode(&payload)))
        .await;
    let (one, other) = (hs256(&json!({})), hs256(&json!({"sub": "bob"})));
    let swapped = format!(
        "{}.{}",
        one.rsplit_once('.').expect("a dot").0,
        other.rsplit_once('.').expect("a dot").1
    );
    s.refused("another token's", &swapped).await;
    for (service, token) in [
        (&s.secret, one),
        (&s.public, s.rsa.token(&json!({}))),
        (&s.public, s.p256.token(&json!({}))),
    ] {
        service
            .expect("good", &post(&bearer(&token)), &["200"])
            .await;
        for at in 0..token.len() {
            let mut bent = format!("Bearer {token}").into_bytes();
            bent[at + 7] ^= 1 << (at % 7);
            let asked = post_raw("Authorization", &bent);
            service
                .expect(
                    &format!("byte {at}"),
                    &asked,
                    &["401 session_invalid", "400 bad_request"],
                )
                .await;
        }
        for length in [0, 1, token.len() / 2, token.len() - 1] {
            let cut = &token[..length];
            service
                .expect(
                    "cut",
                    &post(&bearer(cut)),
                    &["401 session_invalid", "401 no_session"],
                )
                .await;
        }
    }
    s.finish().await;
}

#[tokio::test]
async fn public_key_as_hmac_secret_is_401() {
    let s = Stage::start().await;
    let Signer::Rsa { pair, .. } = &s.rsa else {
        panic!("no RSA key")
    };
    let spki: PublicKeyX509Der<'_> = pair.public_key().as_der().expect("DER");
    let lines = |der: &[u8], end: &str| -> String {
        let text = STANDARD.encode(der);
        let mut out = String::new();
        for line in text.as_bytes().chunks(64) {
            write!(out, "{}{end}", std::str::from_utf8(line).expect("base64")).expect("memory");
        }
        out
    };
    let mut secrets = vec![
        spki.as_ref().to_vec(),
        pair.public_key().as_ref().to_vec(),
        s.rsa.jwk().to_string().into_bytes(),
    ];
    for (label, der) in [
        ("PUBLIC KEY", spki.as_ref()),
        ("RSA PUBLIC KEY", pair.public_key().as_ref()),
    ] {
        for end in ["\n", "\r\n"] {
            let pem = format!(
                "-----BEGIN {label}-----{end}{}-----END {label}-----",
                lines(der, end)
            );
            secrets.push(pem.clone().into_bytes());
            secrets.push(format!("{pem}{end}").into_bytes());
        }
    }
    for secret in secrets {
        for (name, algorithm) in [
            ("HS256", HMAC_SHA256),
            ("HS384", HMAC_SHA384),
            ("HS512", HMAC_SHA512),
        ] {
            for kid in [json!({"alg": name, "kid": "rsa-1"}), json!({"alg": name})] {
                s.refused(
                    name,
                    &hmac_raw(
                        algorithm,
                        &kid.to_string(),
                        claims(&json!({})).to_string(),
                        &secret,
                    ),
                )
                .await;
            }
        }
    }
    s.finish().await;
}

#[tokio::test]
async fn algorithm_other_than_configured_is_401() {
    let s = Stage::start().await;
    let payload = claims(&json!({})).to_string();
    let key = SESSION_SECRET.as_bytes();
    let all = [
        ("HS256", HMAC_SHA256),
        ("HS384", HMAC_SHA384),
        ("HS512", HMAC_SHA512),
    ];
    for (service, configured) in [(&s.secret, "HS256"), (&s.long, "HS512")] {
        for (name, _) in all {
            for (signed_as, signing) in all {
                let token = hmac_raw(signing, &json!({"alg": name}).to_string(), &payload, key);
                let good = name == configured && signed_as == configured;
                let want = if good { &["200"][..] } else { INVALID };
                service
                    .expect(
                        &format!("{name}, signed as {signed_as}"),
                        &post(&bearer(&token)),
                        want,
                    )
                    .await;
            }
        }
    }
    for alg in [
        "ES256", "ES384", "PS256", "RS384", "RS512", "EdDSA", "Ed25519", "HS256",
    ] {
        for kid in [json!("rsa-1"), json!("ec-1")] {
            s.rsa_refused(alg, &json!({"alg": alg, "kid": kid})).await;
        }
    }
    for alg in ["RS256", "ES384", "ES256K", "PS256"] {
        for kid in ["rsa-1", "ec-1"] {
            let token = s
                .p256
                .token_raw(&json!({"alg": alg, "kid": kid}).to_string(), &payload);
            s.public.expect(alg, &post(&bearer(&token)), INVALID).await;
        }
    }
    // A token signed with the RSA key has the `kid` of the P-256 key.
    s.rsa_refused("kid swapped", &json!({"alg": "RS256", "kid": "ec-1"}))
        .await;
    s.finish().await;
}

#[tokio::test]
async fn algorithm_that_does_not_fit_the_secret_or_a_second_key_source_is_refused_at_start() {
    for algorithms in [
        "[\"HS256\", \"RS256\"]",
        "[\"RS256\"]",
        "[\"ES256\", \"HS512\"]",
        "[\"none\"]",
        "[\"\"]",
    ] {
        refuses(
            by_jwt().with(format!("extractors.web.algorithms = {algorithms}")),
            "extractors.web.algorithms",
        )
        .await;
    }
    let both = by_jwt().with("extractors.web.jwks_url = 'https://id.example/keys'");
    refuses(both, "extractors.web.jwks_url").await;
}

#[tokio::test]
async fn key_or_key_url_in_the_token_header_is_never_used() {
    let s = Stage::start().await;
    let listener = Upstream::start(ok(&jwks(&[s.rsa.jwk()]))).await;
    let (own, own_ec) = (Signer::rsa("own", KeySize::Rsa2048), Signer::p256("own"));
    let url = format!("http://127.0.0.1:{}/keys", listener.port);
    for (name, value) in [
        ("jwk", own.jwk()),
        ("jwk", json!(null)),
        ("jku", json!(url)),
        ("x5u", json!(url)),
        ("x5c", json!([STANDARD.encode([0x30; 300])])),
        ("jku", json!("file:///etc/passwd")),
    ] {
        for signer in [&own, &own_ec, &s.rsa] {
            let mut header = signer.header();
            header[name] = value.clone();
            let token = signer.token_raw(&header.to_string(), claims(&json!({})).to_string());
            let want = if std::ptr::eq(signer, &raw const s.rsa) {
                &["200"][..]
            } else {
                INVALID
            };
            s.public.expect(name, &post(&bearer(&token)), want).await;
        }
    }
    assert_eq!(listener.connections(), 0);
    drop(listener);
    s.finish().await;
}

#[tokio::test]
async fn hostile_kid_selects_no_key_and_is_logged_escaped() {
    let s = Stage::start().await;
    let long = "k".repeat(5000);
    for kid in [
        json!("../../dev/null"),
        json!("' OR 1=1--"),
        json!("file:///etc/passwd"),
        json!(long),
        json!("a\u{0}b"),
        json!([]),
        json!(["rsa-1"]),
        json!(7),
        json!({}),
        json!(true),
        json!("\u{202e}1-asr"),
        json!("rsa-1\n{\"level\":\"ERROR\"}"),
        json!("rsa-1 "),
        json!("RSA-1"),
        json!(""),
        json!("\u{1b}[31m"),
        json!("http://169.254.169.254/latest"),
        json!("${jndi:ldap://x}"),
        json!("rsa-1\u{0}"),
        json!("%72sa-1"),
    ] {
        s.rsa_refused(
            &kid.to_string(),
            &json!({"alg": "RS256", "typ": "JWT", "kid": kid}),
        )
        .await;
        let token = hs256_raw(
            &json!({"alg": "HS256", "kid": kid}).to_string(),
            claims(&json!({})).to_string(),
            SESSION_SECRET.as_bytes(),
        );
        let want = if kid.is_string() {
            &["200"][..]
        } else {
            INVALID
        };
        s.secret
            .expect(&kid.to_string(), &post(&bearer(&token)), want)
            .await;
    }
    for service in [&s.public, &s.secret] {
        let log = service.whole_log().await;
        assert!(
            log.lines()
                .all(|line| serde_json::from_str::<Value>(line).is_ok()),
            "a log line is not JSON"
        );
        assert!(
            log.lines().all(|line| line.len() < 2000),
            "a log line was not truncated"
        );
    }
    s.finish().await;
}

#[tokio::test]
async fn jwt_header_with_crit_zip_or_b64_is_401() {
    let s = Stage::start().await;
    for (name, value) in [
        ("crit", json!(["x"])),
        ("crit", json!([])),
        ("crit", json!(["exp"])),
        ("crit", json!(null)),
        ("crit", json!("exp")),
        ("crit", json!(["b64"])),
        ("b64", json!(false)),
        ("b64", json!("true")),
        ("zip", json!("DEF")),
    ] {
        let mut header = s.rsa.header();
        header[name] = value;
        s.rsa_refused(name, &header).await;
    }
    // With `b64: false` (RFC 7797) the payload is not base64url-encoded.
    let payload = claims(&json!({})).to_string();
    let payload = payload.replace(['"', '{', '}', ':', ',', '/', '.'], "x");
    let header = encode("{\"alg\":\"HS256\",\"b64\":false,\"crit\":[\"b64\"]}");
    s.refused("b64", &format!("{header}.{payload}.AA")).await;
    s.finish().await;
}

#[tokio::test]
async fn compressed_payload_is_401() {
    let s = Stage::start().await;
    let mut deflate = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
    deflate
        .write_all(claims(&json!({})).to_string().as_bytes())
        .expect("memory");
    let payload = deflate.finish().expect("memory");
    for header in ["{\"alg\":\"HS256\",\"zip\":\"DEF\"}", "{\"alg\":\"HS256\"}"] {
        s.refused(
            header,
            &hs256_raw(header, &payload, SESSION_SECRET.as_bytes()),
        )
        .await;
    }
    s.finish().await;
}

#[tokio::test]
async fn malformed_ecdsa_signature_is_401() {
    let s = Stage::start().await;
    let order = "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551";
    let order: Vec<u8> = (0..32)
        .map(|at| u8::from_str_radix(&order[at * 2..at * 2 + 2], 16).expect("hex"))
        .collect();
    let token = s.p256.token(&json!({}));
    let signed = token.rsplit_once('.').expect("a dot").0;
    let genuine = s.p256.sign(signed.as_bytes());
    let (r, v) = genuine.split_at(32);
    let der_int = |number: &[u8]| {
        let mut out = vec![0x02, 33, 0];
        out.extend_from_slice(number);
        out
    };
    let der = [vec![0x30, 70], der_int(r), der_int(v)].concat();
    for (label, signature) in [
        ("zeros", vec![0; 64]),
        ("r = 0", [&[0; 32][..], v].concat()),
        ("s = 0", [r, &[0; 32][..]].concat()),
        ("s = n", [r, &order].concat()),
        ("r = n", [&order, v].concat()),
        ("DER", der),
        ("65 bytes", [&genuine[..], &[0]].concat()),
        ("65 bytes, the first", [&[0][..], &genuine].concat()),
        ("63 bytes", genuine[..63].to_vec()),
        ("96 bytes", [&genuine[..], &[0; 32]].concat()),
        ("ff", vec![0xff; 64]),
    ] {
        s.public
            .expect(
                label,
                &post(&bearer(&format!("{signed}.{}", encode(signature)))),
                INVALID,
            )
            .await;
    }
    let high = post(&bearer(&s.p256.token_raw(
        "{\"alg\":\"ES384\",\"kid\":\"ec-1\"}",
        claims(&json!({})).to_string(),
    )));
    s.public.expect("P-384", &high, INVALID).await;
    s.finish().await;
}

#[tokio::test]
async fn jwe_and_json_serialization_are_401() {
    let s = Stage::start().await;
    let jwe = |header: &str, key: &[u8]| {
        [
            encode(header),
            encode(key),
            encode([1; 12]),
            encode([1; 64]),
            encode([1; 16]),
        ]
        .join(".")
    };
    let before = s.secret.usage().ticks;
    for token in [
        jwe("{\"alg\":\"dir\",\"enc\":\"A256GCM\"}", &[]),
        jwe("{\"alg\":\"dir\",\"enc\":\"A256GCM\",\"zip\":\"DEF\"}", &[]),
        jwe(
            "{\"alg\":\"PBES2-HS256+A128KW\",\"p2c\":2147483648,\"p2s\":\"AAAA\",\"enc\":\"A128GCM\"}",
            &[1; 24],
        ),
        hs256_raw(
            "{\"alg\":\"PBES2-HS256+A128KW\",\"p2c\":2147483648}",
            "{}",
            b"x",
        ),
        "....".to_owned(),
        "a.b.c.d.e".to_owned(),
    ] {
        s.refused("JWE", &token).await;
    }
    let json = json!({"payload": encode(claims(&json!({})).to_string()), "protected": encode(HS256), "signature": "AA"}).to_string();
    s.refused("JSON", &json).await;
    s.refused(
        "JSON, general",
        &json!({"payload": "", "signatures": [{}]}).to_string(),
    )
    .await;
    assert!(s.secret.usage().ticks - before < 20, "more than 5 ms each");
    s.finish().await;
}

#[tokio::test]
async fn token_of_only_dots_is_401_in_bounded_time() {
    let s = Stage::start().await;
    let before = s.secret.usage();
    for length in [1, 2, 3, 100, 16 * 1024, 30 * 1024] {
        s.refused("dots", &".".repeat(length)).await;
    }
    s.secret
        .expect(
            "1 MiB",
            &post(&bearer(&".".repeat(1024 * 1024))),
            &["431 headers_too_large"],
        )
        .await;
    let after = s.secret.usage();
    assert!(
        after.resident_kib < before.resident_kib + 2048 && after.ticks - before.ticks < 20,
        "{before:?} {after:?}"
    );
    s.finish().await;
}

#[tokio::test]
async fn non_canonical_base64_is_401() {
    let s = Stage::start().await;
    let payload = claims(&json!({"sub": "ann\u{fb}\u{ff}"})).to_string();
    let sign = |signed: &str| {
        let key = aws_lc_rs::hmac::Key::new(HMAC_SHA256, SESSION_SECRET.as_bytes());
        aws_lc_rs::hmac::sign(&key, signed.as_bytes())
    };
    let good = format!("{}.{}", encode(HS256), encode(&payload));
    let signature = encode(sign(&good));
    s.secret
        .expect(
            "good",
            &post(&bearer(&format!("{good}.{signature}"))),
            &["200"],
        )
        .await;
    // The signature is valid for the altered encoding, so the encoding is the only defect.
    let spelled = |header: &str, payload: &str| {
        let signed = format!("{header}.{payload}");
        format!("{signed}.{}", encode(sign(&signed)))
    };
    let bent = |text: &str| {
        // The last base64url character has unused bits if the number of bytes is not a multiple of three.
        let mut text = text.to_owned();
        let last = text.pop().expect("a character");
        text.push(char::from_u32(last as u32 + 1).expect("a character"));
        text
    };
    let odd_payload = (0..3)
        .map(|spaces| format!("{payload}{}", " ".repeat(spaces)))
        .find(|text| text.len() % 3 == 1)
        .expect("one");
    for (label, token) in [
        (
            "padded header",
            spelled(&URL_SAFE.encode(format!("{HS256} ")), &encode(&payload)),
        ),
        (
            "padded payload",
            spelled(&encode(HS256), &URL_SAFE.encode(&odd_payload)),
        ),
        (
            "standard alphabet",
            spelled(&encode(HS256), &STANDARD.encode(&payload).replace('=', "")),
        ),
        (
            "nonzero trailing bits in the payload",
            spelled(&encode(HS256), &bent(&encode(&odd_payload))),
        ),
        (
            "nonzero trailing bits in the signature",
            format!("{good}.{}", bent(&signature)),
        ),
        ("padded signature", format!("{good}.{signature}=")),
        ("padding alone", format!("{good}.=")),
        ("four too many", format!("{good}.{signature}AAAA")),
        ("one too many", format!("{good}.{signature}A")),
    ] {
        let want = if label == "standard alphabet" && !token.contains(['+', '/']) {
            &["200"][..]
        } else {
            INVALID
        };
        s.secret.expect(label, &post(&bearer(&token)), want).await;
    }
    for (label, part) in [
        ("space", " "),
        ("line", "\r\n"),
        ("tab", "\t"),
        ("NUL", "\0"),
        ("comma", ","),
    ] {
        let token = format!(
            "Bearer {}{part}.{}.{signature}",
            encode(HS256),
            encode(&payload)
        );
        s.secret
            .expect(
                label,
                &post_raw("Authorization", token.as_bytes()),
                &["401 session_invalid", "400 bad_request"],
            )
            .await;
    }
    // A token in a cookie does not pass through the parser of the `Bearer` scheme.
    for (label, cookie, outcome) in [
        ("good", format!("{good}.{signature}"), "200"),
        (
            "padded",
            format!("{good}.{signature}="),
            "401 session_invalid",
        ),
        ("quoted", format!("\"{good}.{signature}\""), "200"),
        (
            "half quoted",
            format!("\"{good}.{signature}"),
            "401 session_invalid",
        ),
        (
            "percent",
            format!("{good}.{signature}").replace('.', "%2E"),
            "401 session_invalid",
        ),
    ] {
        let answer = s
            .secret
            .one(&post(&format!("Cookie: session={cookie}\r\n")))
            .await;
        assert!(
            answer.outcome() == outcome || (label == "quoted" && answer.status == 401),
            "{label}: {answer:?}"
        );
    }
    s.finish().await;
}

#[tokio::test]
async fn authorization_other_than_one_bearer_token_is_401() {
    let s = Stage::start().await;
    let token = hs256(&json!({}));
    for (value, outcome) in [
        (format!("Bearer {token}"), "200"),
        (format!("bearer {token}"), "200"),
        (format!("BEARER {token}"), "200"),
        (format!("bEaReR {token}"), "200"),
        ("Bearer".to_owned(), "401 no_session"),
        ("Bearer ".to_owned(), "401 no_session"),
        (format!("Bearer  {token}"), "200"),
        (format!("Bearer\t{token}"), "401 session_invalid"),
        (format!("Bearer {token} y"), "401 session_invalid"),
        (format!("Bearer {token},{token}"), "401 session_invalid"),
        (
            format!("Bearer {token}, Bearer {token}"),
            "401 session_invalid",
        ),
        (format!("Bearer \"{token}\""), "401 session_invalid"),
        (format!("Bearer token={token}"), "401 session_invalid"),
        ("Bearer a.b".to_owned(), "401 session_invalid"),
        (format!("Bearer {token}.x"), "401 session_invalid"),
        (format!("Basic {token}"), "401 no_session"),
        (format!("Token {token}"), "401 no_session"),
        (token.clone(), "401 no_session"),
        (format!("Bearer{token}"), "401 no_session"),
        (format!("Bearer:{token}"), "401 session_invalid"),
        (format!("Bearer={token}"), "401 session_invalid"),
        (format!("DPoP {token}"), "401 no_session"),
        (String::new(), "401 no_session"),
    ] {
        let asked = post(&format!("Authorization: {value}\r\n"));
        s.secret
            .expect(
                value.split('.').next().unwrap_or_default(),
                &asked,
                &[outcome],
            )
            .await;
    }
    let twice = format!("{}Authorization: Basic eDp5\r\n", bearer(&token));
    s.secret
        .expect("Bearer and Basic", &post(&twice), INVALID)
        .await;
    s.secret
        .expect(
            "Proxy-Authorization",
            &post(&format!("Proxy-Authorization: Bearer {token}\r\n")),
            &["401 no_session"],
        )
        .await;
    s.finish().await;
}

#[tokio::test]
async fn wrong_typ_or_a_minted_rollout_token_is_401() {
    let s = Stage::start().await;
    let payload = claims(&json!({})).to_string();
    for typ in [
        json!("id+jwt"),
        json!("secevent+jwt"),
        json!("logout+jwt"),
        json!("dpop+jwt"),
        json!("JOSE"),
        json!(""),
        json!(null),
        json!(5),
        json!(["JWT"]),
        json!("JWT\u{0}"),
        json!("rt+jwt"),
    ] {
        let token = hs256_raw(
            &json!({"alg": "HS256", "typ": typ}).to_string(),
            &payload,
            SESSION_SECRET.as_bytes(),
        );
        s.refused(&typ.to_string(), &token).await;
    }
    for typ in ["JWT", "jwt", "at+jwt", "application/at+jwt"] {
        let token = hs256_raw(
            &json!({"alg": "HS256", "typ": typ}).to_string(),
            &payload,
            SESSION_SECRET.as_bytes(),
        );
        s.secret.expect(typ, &post(&bearer(&token)), &["200"]).await;
    }
    let minted = s
        .secret
        .expect("good", &post(&bearer(&hs256(&json!({})))), &["200"])
        .await;
    let ours = minted.json()["token"].as_str().expect("a token").to_owned();
    s.refused("our own", &ours).await;
    s.secret
        .expect(
            "our own, as a cookie",
            &post(&format!("Cookie: session={ours}\r\n")),
            INVALID,
        )
        .await;
    let forged = hmac_raw(HMAC_SHA256, HS256, &payload, CLIENT_SECRET.as_bytes());
    s.refused("signed with the client secret", &forged).await;
    s.finish().await;
}

#[tokio::test]
async fn client_secret_or_placeholder_as_session_secret_is_refused_at_start() {
    let with_secret = |secret: &str| by_jwt().with(format!("extractors.web.secret = '{secret}'"));
    refuses(with_secret(CLIENT_SECRET), "extractors.web.secret").await;
    for placeholder in ["", "changeme", "secret", "your-client-secret"] {
        refuses(with_secret(placeholder), "extractors.web.secret").await;
    }
    // A short secret causes only a warning, because the app already uses it.
    let s = Service::start(with_secret("short-one")).await;
    s.logs("is shorter than 16 bytes", 1).await;
    s.finish().await;
}

#[tokio::test]
async fn deeply_nested_jwt_header_is_401() {
    let s = Stage::start().await;
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        for depth in [100, 127, 128, 129, 1000, 3000, 10_000] {
            let (inner, end) = (open.repeat(depth), close.repeat(depth));
            for header in [
                format!("{{\"alg\":\"HS512\",\"x\":{inner}1{end}}}"),
                format!("{{\"alg\":\"HS512\",\"x\":{inner}"),
                inner.clone(),
            ] {
                if header.len() > 22_000 {
                    continue;
                }
                let token = hmac_raw(HMAC_SHA512, &header, "{}", SESSION_SECRET.as_bytes());
                s.long
                    .expect(&format!("{depth} deep"), &post(&bearer(&token)), INVALID)
                    .await;
            }
        }
    }
    s.finish().await;
}

#[tokio::test]
async fn malformed_jwt_header_or_duplicate_member_is_401() {
    let s = Stage::start().await;
    let payload = claims(&json!({})).to_string();
    // Unknown header parameters are ignored (RFC 7515, section 4).
    let token = hs256_raw(
        "{\"alg\":\"HS256\",\"unknown\":{\"deep\":[1]},\"x5t\":\"AA\"}",
        &payload,
        SESSION_SECRET.as_bytes(),
    );
    s.secret
        .expect("unknown", &post(&bearer(&token)), &["200"])
        .await;
    for header in [
        "",
        "null",
        "[]",
        "\"alg\"",
        "{\"alg\":\"HS256\"}x",
        "\u{feff}{\"alg\":\"HS256\"}",
        "{\"alg\":\"HS256\",}",
        "{'alg':'HS256'}",
        "{\"alg\":\"HS256\",\"unknown\":1,\"unknown\":2}",
        "{\"alg\":\"HS256\",\"x\":{\"y\":1,\"y\":1}}",
        "{\"alg\":\"\\ud800\"}",
        "{\"alg\":\"HS256\",\"x\":1e999}",
    ] {
        s.refused(
            header,
            &hs256_raw(header, &payload, SESSION_SECRET.as_bytes()),
        )
        .await;
    }
    s.finish().await;
}

mod alone {
    use super::*;

    /// Each forged token costs a 4096-bit RSA verification; legitimate requests must still succeed.
    #[tokio::test(flavor = "multi_thread")]
    async fn forged_rsa_4096_tokens_cost_bounded_time_and_honest_requests_succeed() {
        let signer = Signer::rsa("big", KeySize::Rsa4096);
        let keys = tempfile::tempdir().expect("a directory");
        let file = keys.path().join("jwks.json");
        std::fs::write(&file, jwks(&[signer.jwk()])).expect("a file");
        let s = Service::start(by_file(&file).with("log.level = 'info'")).await;
        let honest = post(&bearer(&signer.token(&json!({}))));
        let forged: Arc<Vec<u8>> = {
            let token = signer.token(&json!({}));
            let signed = token.rsplit_once('.').expect("a dot").0;
            Arc::new(post(&bearer(&format!(
                "{signed}.{}",
                encode(signer.sign(b"something else"))
            ))))
        };
        let before = s.usage().ticks;
        let started = Instant::now();
        let mut tasks = JoinSet::new();
        for _ in 0..20 {
            let (s, forged) = (s.clone(), forged.clone());
            tasks.spawn(async move {
                let mut tick = tokio::time::interval(Duration::from_millis(20));
                for _ in 0..400 {
                    tick.tick().await;
                    s.expect("forged", &forged, INVALID).await;
                }
            });
        }
        let mut slowest = Vec::new();
        while started.elapsed() < Duration::from_secs(8) {
            let asked = Instant::now();
            s.expect("honest", &honest, &["200"]).await;
            slowest.push(asked.elapsed());
            tokio::time::sleep(Duration::from_millis(40)).await;
        }
        while let Some(done) = tasks.join_next().await {
            done.expect("a forged request");
        }
        slowest.sort();
        let worst = slowest[slowest.len() * 99 / 100];
        let each = (s.usage().ticks - before) * 10_000 / 8000;
        println!(
            "legitimate requests: 99th percentile {worst:?}; a forged token costs {each} µs of CPU time"
        );
        assert!(each < 2000, "a forged token costs {each} µs");
        s.finish().await;
    }
}
