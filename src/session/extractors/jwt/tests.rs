//! Table-driven tests of the form, the claims and the configuration of JWT sessions. `tests/sessions` tests real
//! tokens, and `tests/jwks.rs` tests published keys.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, crypto};
use serde_json::{Value, json};

use crate::settings;

use crate::clock::{Clock, ManualClock};
use crate::config::{Problems, Sources};
use crate::session::backends::Context;
use crate::session::contract;
use crate::session::registry::Registry;
use crate::session::types::{ExtractError, Extracted, Session, SessionExtractor};
use crate::telemetry::metrics::Metrics;

const NOW: i64 = 1_800_000_000;
const SECRET: &str = "a session secret of at least 32 bytes";
const HMAC: &str = r#"
    secret = "a session secret of at least 32 bytes"
    algorithms = ["HS256"]
    audiences = ["app"]
"#;

fn context() -> Context {
    Context::new(Clock::new(ManualClock::at(NOW)), Arc::new(Metrics::new()))
}

fn build(toml: &str) -> Result<Arc<dyn SessionExtractor>, Problems> {
    contract::build(&Registry::builtin(), "jwt", toml, &context())
}

fn part(text: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(text)
}

fn sign(header: &str, payload: &[u8], key: &EncodingKey, algorithm: Algorithm) -> String {
    let signed = format!("{}.{}", part(header), part(payload));
    let signature = crypto::sign(signed.as_bytes(), key, algorithm).expect("a signature");
    format!("{signed}.{signature}")
}

fn hs256(header: &str, payload: impl AsRef<[u8]>) -> String {
    sign(
        header,
        payload.as_ref(),
        &EncodingKey::from_secret(SECRET.as_bytes()),
        Algorithm::HS256,
    )
}

/// Valid claims, overridden by the members of `changes`.
fn claims(changes: &Value) -> String {
    let mut claims = json!({ "sub": "u-1", "aud": "app", "exp": NOW + 60 });
    for (name, value) in changes.as_object().expect("an object") {
        claims[name] = value.clone();
    }
    claims.to_string()
}

async fn extract(extractor: &dyn SessionExtractor, token: &str) -> Extracted {
    let authorization = format!("Bearer {token}");
    extractor
        .extract(&contract::request(&[("authorization", &authorization)]))
        .await
}

/// Returns `ok`, `absent`, or the reason for the rejection.
fn word(extracted: &Extracted) -> &'static str {
    match extracted {
        Ok(Some(_)) => "ok",
        Ok(None) => "absent",
        Err(error) => error.reason().as_str(),
    }
}

const PLAIN: &str = r#"{"alg":"HS256"}"#;

#[tokio::test]
async fn extractor_passes_the_contract_checks() {
    let extractor = build(HMAC).expect("a good section");
    contract::check(&*extractor, &[SECRET]).await;
}

#[tokio::test]
async fn valid_token_yields_a_session_with_its_claims_and_expiry() {
    let extractor = build(HMAC).expect("a good section");
    let session = extract(&*extractor, &hs256(PLAIN, claims(&json!({})))).await;
    let Ok(Some(Session {
        attributes,
        expires_at,
    })) = session
    else {
        panic!("{session:?}")
    };
    assert_eq!(expires_at, Some(NOW + 60));
    assert_eq!(
        serde_json::to_string(&attributes).unwrap(),
        claims(&json!({}))
    );
}

#[tokio::test]
async fn unsupported_header_parameter_is_refused() {
    let extractor = build(HMAC).expect("a good section");
    let deep = format!(
        r#"{{"alg":"HS256","x":{}1{}}}"#,
        "[".repeat(3000),
        "]".repeat(3000)
    );
    for (header, want) in [
        (PLAIN, "ok"),
        (r#"{"alg":"HS256","typ":"JWT"}"#, "ok"),
        (r#"{"alg":"HS256","typ":"jwt"}"#, "ok"),
        (r#"{"alg":"HS256","typ":"application/AT+JWT"}"#, "ok"),
        (r#"{"alg":"HS256","kid":"any"}"#, "ok"),
        (r#"{"alg":"HS256","x5t":"thumb"}"#, "ok"),
        (r#"{"alg":"HS256","typ":"logout+jwt"}"#, "token_type"),
        (r#"{"alg":"HS256","typ":"application/"}"#, "token_type"),
        (r#"{"alg":"HS256","typ":""}"#, "token_type"),
        (r#"{"alg":"HS256","typ":null}"#, "token_type"),
        (r#"{"alg":"HS256","crit":[]}"#, "header"),
        (r#"{"alg":"HS256","crit":["exp"]}"#, "header"),
        (r#"{"alg":"HS256","b64":false}"#, "header"),
        (r#"{"alg":"HS256","b64":null}"#, "header"),
        (r#"{"alg":"HS256","b64":"true"}"#, "header"),
        (r#"{"alg":"HS256","b64":true}"#, "ok"),
        (r#"{"alg":"HS256","zip":"DEF"}"#, "header"),
        (r#"{"alg":"HS256","cty":"JWT"}"#, "ok"),
        (r#"{"alg":"HS256","jwk":{}}"#, "ok"),
        (r#"{"alg":"HS256","jku":"https://evil.example/jwks"}"#, "ok"),
        (r#"{"alg":"HS256","x5u":""}"#, "ok"),
        (r#"{"alg":"HS256","x5c":["AAAA"]}"#, "ok"),
        (r#"{"alg":"HS256","kid":7}"#, "malformed"),
        (r#"{"alg":"HS256","kid":["any"]}"#, "malformed"),
        (r#"{"alg":"HS256","kid":null}"#, "malformed"),
        (r#"{"alg":"HS256","alg":"HS256"}"#, "malformed"),
        (r#"{"alg":"HS256","x":{"a":1,"a":1}}"#, "malformed"),
        (r#"["HS256"]"#, "not_a_jwt"),
        (r#"{"alg":"HS256"}x"#, "not_a_jwt"),
        ("\u{feff}{\"alg\":\"HS256\"}", "not_a_jwt"),
        (&deep, "not_a_jwt"),
        (r#"{"alg":"HS384"}"#, "alg_not_allowed"),
        (r#"{"alg":"RS256"}"#, "alg_not_allowed"),
        (r#"{"alg":"none"}"#, "alg_not_allowed"),
        (r#"{"alg":"None"}"#, "alg_not_allowed"),
        (r#"{"alg":"hs256"}"#, "alg_not_allowed"),
        (r#"{"alg":""}"#, "alg_not_allowed"),
        (r#"{"alg":null}"#, "malformed"),
        (r#"{"alg":5}"#, "malformed"),
        (r#"{"alg":["HS256"]}"#, "malformed"),
        ("{}", "not_a_jwt"),
    ] {
        let outcome = extract(&*extractor, &hs256(header, claims(&json!({})))).await;
        assert_eq!(
            word(&outcome),
            want,
            "{}",
            header.chars().take(60).collect::<String>()
        );
    }
}

#[tokio::test]
async fn forged_or_expired_token_with_a_valid_header_is_refused() {
    let extractor = build(HMAC).expect("a good section");
    let genuine = hs256(PLAIN, claims(&json!({})));
    let other_key = EncodingKey::from_secret(b"another secret of at least 32 bytes");
    let forged = sign(
        PLAIN,
        claims(&json!({})).as_bytes(),
        &other_key,
        Algorithm::HS256,
    );
    let other_user = format!("{}.{}", part(PLAIN), part(claims(&json!({ "sub": "u-2" }))));
    let with_other_signature = format!(
        "{other_user}.{}",
        genuine.rsplit('.').next().expect("a signature")
    );
    let expired = hs256(PLAIN, claims(&json!({ "exp": NOW - 60 })));
    for (name, token, want) in [
        ("valid", &genuine, "ok"),
        ("signed with another key", &forged, "bad_signature"),
        (
            "signature of another token",
            &with_other_signature,
            "bad_signature",
        ),
        ("expired", &expired, "expired"),
    ] {
        assert_eq!(word(&extract(&*extractor, token).await), want, "{name}");
    }
}

#[tokio::test]
async fn token_that_is_not_a_compact_jws_is_refused() {
    let extractor = build(HMAC).expect("a good section");
    let good = hs256(PLAIN, claims(&json!({})));
    let (signed, signature) = good.rsplit_once('.').expect("parts");
    let (header, payload) = signed.split_once('.').expect("parts");
    let other = hs256(PLAIN, claims(&json!({ "sub": "u-2" })));
    let other_signature = other.rsplit('.').next().expect("a signature");
    for (name, token, want) in [
        ("two parts", signed.to_owned(), "not_a_jwt"),
        ("four parts", format!("{good}.x"), "not_a_jwt"),
        ("five parts", format!("{good}.x.x"), "not_a_jwt"),
        ("no signature", format!("{signed}."), "malformed"),
        ("no payload", format!("{header}..{signature}"), "malformed"),
        ("no header", format!(".{payload}.{signature}"), "not_a_jwt"),
        ("dots", ".".repeat(8000), "not_a_jwt"),
        (
            "too large",
            format!("{}{good}", "x".repeat(16 * 1024)),
            "too_large",
        ),
        ("padded signature", format!("{good}="), "bad_signature"),
        (
            "another token's signature",
            format!("{signed}.{other_signature}"),
            "bad_signature",
        ),
        (
            "cut signature",
            good[..good.len() - 1].to_owned(),
            "bad_signature",
        ),
        ("other text", "opaque".to_owned(), "not_a_jwt"),
    ] {
        assert_eq!(word(&extract(&*extractor, &token).await), want, "{name}");
    }
    // A change of any character is detected, even of the unused bits of the last character.
    for index in 0..good.len() {
        for with in ["A", "B", "Q", "-", "."] {
            let mut flipped = good.clone();
            flipped.replace_range(index..=index, with);
            let outcome = extract(&*extractor, &flipped).await;
            assert!(flipped == good || word(&outcome) != "ok", "{index} {with}");
        }
    }
}

#[tokio::test]
async fn foreign_token_is_not_mine_and_faulty_token_is_rejected() {
    let extractor = build(&format!("{HMAC}issuers = [\"https://us\"]")).expect("a good section");
    let token = |header: &str, issuer: &str| {
        hs256(
            header,
            format!(r#"{{"sub":"u-1","aud":"app","exp":1900000000{issuer}}}"#),
        )
    };
    let ours = r#","iss":"https://us""#;
    for (name, token, want) in [
        ("opaque", "opaque".to_owned(), Some("not_a_jwt")),
        (
            "five parts",
            format!("{}.x.x", token(PLAIN, ours)),
            Some("not_a_jwt"),
        ),
        (
            "foreign issuer",
            token(PLAIN, r#","iss":"https://them""#),
            Some("issuer"),
        ),
        ("no issuer", token(PLAIN, ""), Some("issuer")),
        (
            "public-key algorithm",
            token(r#"{"alg":"RS256"}"#, ours),
            Some("alg_not_allowed"),
        ),
        (
            "unsupported public-key algorithm",
            token(r#"{"alg":"ES512"}"#, ours),
            Some("alg_not_allowed"),
        ),
        (
            "foreign issuer and invalid header",
            token(r#"{"alg":"HS256","typ":"x"}"#, r#","iss":"x""#),
            Some("issuer"),
        ),
        ("other hash", token(r#"{"alg":"HS384"}"#, ours), None),
        ("none", token(r#"{"alg":"none"}"#, ours), None),
        (
            "issuer repeated",
            token(PLAIN, &format!(r#"{ours},"iss":"https://them""#)),
            None,
        ),
        (
            "issuer is not a string",
            token(PLAIN, r#","iss":["https://them"]"#),
            None,
        ),
        ("bad signature", format!("{}A", token(PLAIN, ours)), None),
    ] {
        match (extract(&*extractor, &token).await, want) {
            (Err(ExtractError::NotMine(reason, place)), Some(want)) => {
                assert_eq!(
                    (reason.reason.as_str(), &*place.to_string()),
                    (want, "header:authorization"),
                    "{name}"
                );
            }
            (Err(ExtractError::Rejected(_)), None) => {}
            (other, _) => panic!("{name}: {other:?}"),
        }
    }
    assert_eq!(word(&extract(&*extractor, &token(PLAIN, ours)).await), "ok");
}

#[tokio::test]
async fn time_claim_outside_its_bounds_is_refused() {
    let extractor = build(HMAC).expect("a good section");
    for (name, change, want) in [
        ("last second of the leeway", r#""exp":1799999971"#, "ok"),
        ("after the leeway", r#""exp":1799999970"#, "expired"),
        ("fraction in the leeway", r#""exp":1799999970.1"#, "ok"),
        ("fraction", r#""exp":1800000060.9"#, "ok"),
        ("exponent", r#""exp":1.9e9"#, "ok"),
        ("negative", r#""exp":-1"#, "expired"),
        ("very negative", r#""exp":-1e300"#, "expired"),
        ("zero", r#""exp":0"#, "expired"),
        ("year 9999", r#""exp":253402300799"#, "ok"),
        ("year 10000", r#""exp":253402300800"#, "exp"),
        ("2^53 + 1", r#""exp":9007199254740993"#, "exp"),
        ("2^63", r#""exp":9223372036854775808"#, "exp"),
        ("2^64 - 1", r#""exp":18446744073709551615"#, "exp"),
        ("2^64", r#""exp":18446744073709551616"#, "exp"),
        ("1e300", r#""exp":1e300"#, "exp"),
        ("1e400", r#""exp":1e400"#, "malformed"),
        ("text", r#""exp":"1900000000""#, "exp"),
        ("null", r#""exp":null"#, "exp"),
        ("true", r#""exp":true"#, "exp"),
        ("list", r#""exp":[1900000000]"#, "exp"),
        ("object", r#""exp":{}"#, "exp"),
        ("missing", r#""x":1"#, "exp"),
        ("twice", r#""exp":1900000000,"exp":1900000000"#, "malformed"),
        (
            "nbf at the leeway",
            r#""exp":1900000000,"nbf":1800000030"#,
            "ok",
        ),
        (
            "nbf in the future",
            r#""exp":1900000000,"nbf":1800000031"#,
            "not_yet_valid",
        ),
        (
            "nbf in the future by a fraction",
            r#""exp":1900000000,"nbf":1800000030.5"#,
            "not_yet_valid",
        ),
        (
            "nbf far in the future",
            r#""exp":1900000000,"nbf":1e300"#,
            "not_yet_valid",
        ),
        ("nbf text", r#""exp":1900000000,"nbf":"0""#, "malformed"),
        ("nbf object", r#""exp":1900000000,"nbf":{}"#, "malformed"),
        ("nbf null", r#""exp":1900000000,"nbf":null"#, "malformed"),
        (
            "iat at the leeway",
            r#""exp":1900000000,"iat":1800000030"#,
            "ok",
        ),
        (
            "iat in the future",
            r#""exp":1900000000,"iat":1800000031"#,
            "not_yet_valid",
        ),
        ("iat text", r#""exp":1900000000,"iat":"0""#, "malformed"),
        (
            "auth_time in the future",
            r#""exp":1900000000,"auth_time":1800000031"#,
            "not_yet_valid",
        ),
        (
            "auth_time text",
            r#""exp":1900000000,"auth_time":"noon""#,
            "ok",
        ),
    ] {
        let token = hs256(PLAIN, format!(r#"{{"sub":"u-1","aud":"app",{change}}}"#));
        let outcome = extract(&*extractor, &token).await;
        assert_eq!(word(&outcome), want, "{name}");
        let is_expired =
            matches!(&outcome, Err(ExtractError::Rejected(reason)) if reason.reason.is_expired());
        assert_eq!(is_expired, want == "expired", "{name}");
    }
}

#[tokio::test]
async fn issuer_or_audience_that_is_not_an_exact_match_is_refused() {
    let toml = format!("{HMAC}\nissuers = [\"https://id\", \"https://id2\"]");
    let extractor = build(&toml).expect("a good section");
    let crowd: Vec<String> = (0..500).map(|number| format!("a{number}")).collect();
    for (name, changes, want) in [
        ("good", json!({}), "ok"),
        ("the second issuer", json!({ "iss": "https://id2" }), "ok"),
        ("issuer missing", json!({ "iss": null }), "malformed"),
        ("other issuer", json!({ "iss": "https://evil" }), "issuer"),
        ("trailing slash", json!({ "iss": "https://id/" }), "issuer"),
        ("other case", json!({ "iss": "https://ID" }), "issuer"),
        ("list", json!({ "iss": ["https://id"] }), "malformed"),
        ("aud in a list", json!({ "aud": ["x", "app"] }), "ok"),
        ("aud missing", json!({ "aud": null }), "audience"),
        ("aud empty list", json!({ "aud": [] }), "audience"),
        ("aud of null", json!({ "aud": [null] }), "audience"),
        (
            "aud of a string and a number",
            json!({ "aud": ["app", 7] }),
            "audience",
        ),
        ("aud object", json!({ "aud": { "app": true } }), "audience"),
        ("aud number", json!({ "aud": 7 }), "audience"),
        ("aud prefix", json!({ "aud": "app2" }), "audience"),
        ("aud case", json!({ "aud": "App" }), "audience"),
        ("aud space", json!({ "aud": " app" }), "audience"),
        (
            "aud without an accepted value",
            json!({ "aud": crowd }),
            "audience",
        ),
    ] {
        let mut all = json!({ "iss": "https://id" });
        for (key, value) in changes.as_object().expect("an object") {
            all[key] = value.clone();
        }
        assert_eq!(
            word(&extract(&*extractor, &hs256(PLAIN, claims(&all))).await),
            want,
            "{name}"
        );
    }
}

#[tokio::test]
async fn payload_that_is_ambiguous_or_not_an_object_is_malformed() {
    let extractor = build(HMAC).expect("a good section");
    let with = |member: &str| format!(r#"{{"sub":"u-1","aud":"app","exp":1900000000,{member}}}"#);
    let deep = with(&format!(r#""x":{}1{}"#, "[".repeat(1000), "]".repeat(1000)));
    for (name, payload) in [
        ("sub repeated", with(r#""sub":"u-2""#).into_bytes()),
        ("aud repeated", with(r#""aud":"app""#).into_bytes()),
        (
            "custom claim repeated",
            with(r#""email":"a","email":"b""#).into_bytes(),
        ),
        (
            "escaped name repeated",
            with(r#""su\u0062":"u-2""#).into_bytes(),
        ),
        (
            "repeated in a nested object",
            with(r#""x":[{"a":1,"a":1}]"#).into_bytes(),
        ),
        ("deep", deep.into_bytes()),
        (
            "BOM",
            [b"\xef\xbb\xbf", with(r#""x":1"#).as_bytes()].concat(),
        ),
        ("not UTF-8", b"{\"x\":\"\xff\"}".to_vec()),
        ("lone surrogate", with(r#""x":"\ud800""#).into_bytes()),
        (
            "trailing text",
            [with(r#""x":1"#).as_bytes(), b"x"].concat(),
        ),
        ("NaN", with(r#""x":NaN"#).into_bytes()),
        ("array", b"[]".to_vec()),
        ("text", b"\"x\"".to_vec()),
        ("null", b"null".to_vec()),
        ("blank", b" ".to_vec()),
    ] {
        assert_eq!(
            word(&extract(&*extractor, &hs256(PLAIN, payload)).await),
            "malformed",
            "{name}"
        );
    }
}

#[tokio::test]
async fn token_signed_with_the_public_key_as_secret_is_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("key.pem");
    let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("a key");
    let pem = pair.public_key_pem().replace("\r\n", "\n");
    std::fs::write(&file, &pem).expect("a file");
    let extractor = build(&format!(
        "public_key_file = {:?}\nissuers = [\"i\"]\naudiences = [\"app\"]",
        file.display().to_string()
    ))
    .expect("a good section");
    let payload = claims(&json!({ "iss": "i" }));
    let key = EncodingKey::from_ec_der(&pair.serialize_der());
    for header in [r#"{"alg":"ES256"}"#, r#"{"alg":"ES256","kid":"any"}"#] {
        let token = sign(header, payload.as_bytes(), &key, Algorithm::ES256);
        assert_eq!(word(&extract(&*extractor, &token).await), "ok");
    }
    for secret in [
        pem.clone(),
        pem.trim().to_owned(),
        pem.replace('\n', "\r\n"),
    ] {
        let key = EncodingKey::from_secret(secret.as_bytes());
        for alg in ["HS256", "ES256"] {
            let token = sign(
                &format!(r#"{{"alg":"{alg}"}}"#),
                payload.as_bytes(),
                &key,
                Algorithm::HS256,
            );
            assert_ne!(word(&extract(&*extractor, &token).await), "ok", "{alg}");
        }
    }
    // Invalid signatures: r and s of zero, r and s equal to the group's order, DER encoding, and one byte too many.
    let order = "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551";
    let order: Vec<u8> = (0..32)
        .map(|i| u8::from_str_radix(&order[2 * i..2 * i + 2], 16).expect("hex"))
        .collect();
    let good = sign(
        r#"{"alg":"ES256"}"#,
        payload.as_bytes(),
        &key,
        Algorithm::ES256,
    );
    let (signed, signature) = good.rsplit_once('.').expect("parts");
    let raw = URL_SAFE_NO_PAD.decode(signature).expect("base64url");
    let der = [&[0x30, 0x44, 2, 32], &raw[..32], &[2, 32], &raw[32..]].concat();
    for forged in [vec![0; 64], order.repeat(2), der, [&raw[..], &[0]].concat()] {
        let token = format!("{signed}.{}", part(&forged));
        assert_eq!(word(&extract(&*extractor, &token).await), "bad_signature");
    }

    std::fs::write(&file, pair.serialize_pem()).expect("a file");
    let refused = build(&format!(
        "public_key_file = {:?}",
        file.display().to_string()
    ));
    let text = refused.expect_err("a private key").to_string();
    assert!(text.contains("extractors.jwt.public_key: "), "{text}");
}

#[tokio::test]
async fn padded_token_is_accepted_only_with_padded_base64() {
    let extractor = build(&format!(
        "{HMAC}\nfrom = [\"header:x-token\"]\npadded_base64 = true"
    ));
    let extractor = extractor.expect("a good section");
    let pad = |text: &str| format!("{text}{}", "=".repeat((4 - text.len() % 4) % 4));
    let signed = format!("{}.{}", pad(&part(PLAIN)), pad(&part(claims(&json!({})))));
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    let signature = crypto::sign(signed.as_bytes(), &key, Algorithm::HS256).expect("a signature");
    for (name, token, want) in [
        ("padded", format!("{signed}.{}", pad(&signature)), "ok"),
        (
            "signature without padding",
            format!("{signed}.{signature}"),
            "malformed",
        ),
        (
            "too much padding",
            format!("{signed}.{}====", pad(&signature)),
            "malformed",
        ),
        (
            "without padding",
            hs256(PLAIN, claims(&json!({}))),
            "malformed",
        ),
    ] {
        let outcome = extractor
            .extract(&contract::request(&[("x-token", &token)]))
            .await;
        assert_eq!(word(&outcome), want, "{name}");
    }
}

/// The details of a rejection.
fn detail(extracted: Extracted) -> String {
    match extracted {
        Err(ExtractError::NotMine(rejection, _) | ExtractError::Rejected(rejection)) => {
            rejection.detail.unwrap_or_default()
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn refusal_names_the_found_and_the_expected_value() {
    let extractor = build(&format!(
        "{HMAC}issuers = [\"https://us\"]\nmax_token_bytes = 500"
    ));
    let extractor = extractor.expect("a good section");
    let with = |changes: Value| {
        let mut all = json!({ "iss": "https://us" });
        all.as_object_mut()
            .expect("an object")
            .extend(changes.as_object().expect("an object").clone());
        claims(&all)
    };
    for (token, want) in [
        (
            hs256(PLAIN, with(json!({ "iss": "https://them" }))),
            "iss is https://them, and issuers is https://us",
        ),
        (
            hs256(PLAIN, claims(&json!({}))),
            "iss is missing, and issuers is https://us",
        ),
        (
            hs256(PLAIN, with(json!({ "aud": "x" }))),
            "aud is x, and audiences is app",
        ),
        (
            hs256(PLAIN, with(json!({ "aud": ["x", "y\u{202e}"] }))),
            r"aud is x, y\u{202e}, and audiences is app",
        ),
        (
            hs256(r#"{"alg":"RS256"}"#, with(json!({}))),
            "alg is RS256, and algorithms is HS256",
        ),
        (
            hs256(r#"{"alg":"HS512"}"#, with(json!({}))),
            "alg is HS512, and algorithms is HS256",
        ),
        (
            hs256(r#"{"alg":"HS256","typ":"id+jwt"}"#, with(json!({}))),
            "typ is id+jwt, and token_types is JWT, at+jwt",
        ),
        (
            hs256(PLAIN, with(json!({ "x": "x".repeat(300) }))),
            "the token has 600 bytes, and max_token_bytes is 500",
        ),
    ] {
        let found = detail(extract(&*extractor, &token).await);
        if want.contains("600") {
            assert!(
                found.starts_with("the token has ") && found.ends_with("max_token_bytes is 500"),
                "{found}"
            );
        } else {
            assert_eq!(found, want);
        }
    }
}

#[test]
fn claim_rule_that_contradicts_the_section_is_refused() {
    let public = "jwks_url = \"https://id/keys\"\nissuers = [\"https://id\"]\naudiences = [\"app\"]\nalgorithms = [\"RS256\"]";
    for (rule, key) in [
        ("claims.iss = \"https://other\"", Some("claims")),
        ("claims.iss = { absent = true }", Some("claims")),
        ("claims.exp = { absent = true }", Some("claims")),
        ("claims.exp = \"never\"", Some("claims")),
        ("claims.aud = { absent = true }", Some("claims")),
        ("claims.cnf = { present = true }", Some("claims")),
        ("header_claims.alg = \"HS256\"", Some("header_claims")),
        ("header_claims.typ = \"id+jwt\"", Some("header_claims")),
        (
            "header_claims.crit = { present = true }",
            Some("header_claims"),
        ),
        ("header_claims.b64 = false", Some("header_claims")),
        (
            "claims.tid = \"x\"\ntenants = [\"8b5abb95-0643-4c5e-837e-8bea3904411f\"]",
            Some("claims"),
        ),
        ("claims.iss = [\"https://other\", \"https://id\"]", None),
        ("claims.aud = \"another\"", None),
        ("claims.cnf = { absent = true }", None),
        (
            "claims.cnf = { present = true }\nallow_sender_constrained = true",
            None,
        ),
        ("header_claims.alg = [\"RS256\", \"HS256\"]", None),
        ("header_claims.typ = \"application/at+jwt\"", None),
        ("header_claims.crit = { absent = true }", None),
    ] {
        let toml = format!("{public}\n{rule}");
        match key {
            Some(key) => assert_refused(&toml, key),
            None => assert!(build(&toml).is_ok(), "{rule}: {:?}", build(&toml)),
        }
    }
}

#[tokio::test]
async fn sender_constrained_token_is_refused_unless_allowed() {
    let bound = hs256(PLAIN, claims(&json!({ "cnf": { "jkt": "thumbprint" } })));
    let extractor = build(HMAC).expect("a good section");
    assert_eq!(
        word(&extract(&*extractor, &bound).await),
        "sender_constrained"
    );
    let unbound = hs256(PLAIN, claims(&json!({ "cnf": null })));
    assert_eq!(word(&extract(&*extractor, &unbound).await), "ok");
    let extractor =
        build(&format!("{HMAC}allow_sender_constrained = true")).expect("a good section");
    assert_eq!(word(&extract(&*extractor, &bound).await), "ok");
}

#[tokio::test]
async fn token_signed_with_any_listed_secret_is_accepted_and_base64_secrets_are_decoded() {
    // The key ends in a newline byte, which must not be trimmed.
    let binary: Vec<u8> = (0..31).map(|byte| 0xf8 ^ byte).chain([b'\n']).collect();
    let standard = base64::engine::general_purpose::STANDARD.encode(&binary);
    let sign = |key: &[u8]| {
        let payload = claims(&json!({}));
        sign(
            PLAIN,
            payload.as_bytes(),
            &EncodingKey::from_secret(key),
            Algorithm::HS256,
        )
    };
    let all: Vec<String> = (0..10)
        .map(|number| format!("session secret number {number} of the app"))
        .collect();
    let rest = "algorithms = [\"HS256\"]\naudiences = [\"app\"]";
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), all.join("\n") + "\n").expect("written");
    let file = format!("secrets_file = {:?}", file.path().display().to_string());
    for keys in [format!("secrets = {all:?}"), file] {
        let extractor = build(&format!("{keys}\n{rest}")).expect("a good section");
        for secret in &all {
            assert_eq!(
                word(&extract(&*extractor, &sign(secret.as_bytes())).await),
                "ok",
                "{secret}"
            );
        }
        assert_eq!(
            word(&extract(&*extractor, &sign(SECRET.as_bytes())).await),
            "bad_signature"
        );
    }
    for (keys, right) in [
        (
            format!("secret = {standard:?}\nsecret_encoding = \"base64\""),
            &binary[..],
        ),
        (
            format!(
                "secret = {:?}\nsecret_encoding = \"base64\"",
                URL_SAFE_NO_PAD.encode(&binary)
            ),
            &binary,
        ),
        (
            // Base64 split into lines, as `openssl rand -base64` writes it.
            format!(
                "secret = \"{}\\n{}\"\nsecret_encoding = \"base64\"",
                &standard[..20],
                &standard[20..]
            ),
            &binary,
        ),
        (
            format!("secrets = [{standard:?}]\nsecret_encoding = \"base64\""),
            &binary,
        ),
        (
            format!("secret = {standard:?}\nsecret_encoding = \"text\""),
            standard.as_bytes(),
        ),
        (format!("secret = {standard:?}"), standard.as_bytes()),
    ] {
        let extractor = build(&format!("{keys}\n{rest}")).expect("a good section");
        for key in [&binary[..], &binary[..31], standard.as_bytes()] {
            let want = if key == right { "ok" } else { "bad_signature" };
            assert_eq!(
                word(&extract(&*extractor, &sign(key)).await),
                want,
                "{keys}"
            );
        }
    }
}

fn assert_refused(toml: &str, key: &str) {
    let text = build(toml).expect_err(toml).to_string();
    assert!(
        text.contains(&format!("extractors.jwt.{key}: ")),
        "{toml}:\n{text}"
    );
    assert!(!text.contains("changeme-changeme"), "{text}");
}

#[test]
fn unsafe_section_is_refused_and_the_problem_names_the_key() {
    let public =
        "jwks_url = \"https://id/keys\"\nissuers = [\"https://id\"]\naudiences = [\"app\"]\n";
    for (toml, key) in [
        ("", "jwks_url"),
        (
            "secret = \"a session secret of 32 bytes\"\naudiences = [\"app\"]",
            "algorithms",
        ),
        (
            "secret = \"\"\nalgorithms = [\"HS256\"]\naudiences = [\"app\"]",
            "secret",
        ),
        (
            "secret = \"changeme-changeme-changeme\"\nalgorithms = [\"HS256\"]\naudiences = [\"app\"]",
            "secret",
        ),
        (
            "jwks_url = \"https://id/keys\"\naudiences = [\"app\"]",
            "issuers",
        ),
        (
            "jwks_url = \"https://id/keys\"\nissuers = [\"\"]\naudiences = [\"app\"]",
            "issuers",
        ),
        (
            "jwks_url = \"https://id/keys\"\nissuers = [\"i\"]",
            "audiences",
        ),
        (
            "jwks_url = \"http://id/keys\"\nissuers = [\"i\"]\naudiences = [\"app\"]",
            "jwks_url",
        ),
        (
            "jwks_url = \"https://{kid}/keys\"\nissuers = [\"i\"]\naudiences = [\"app\"]",
            "jwks_url",
        ),
        (
            "oidc_issuer = \"http://id\"\naudiences = [\"app\"]",
            "oidc_issuer",
        ),
        (
            "jwks_file = \"/nowhere\"\nissuers = [\"i\"]\naudiences = [\"app\"]",
            "jwks_file",
        ),
        (&format!("{public}allow_any_audience = true"), "audiences"),
        (
            &format!("{public}secret = \"a session secret of 32 bytes\""),
            "jwks_url",
        ),
        (&format!("{public}oidc_issuer = \"https://id\""), "jwks_url"),
        (
            &format!("{public}algorithms = [\"RS256\", \"HS256\"]"),
            "algorithms",
        ),
        (&format!("{public}algorithms = [\"none\"]"), "algorithms"),
        (&format!("{public}algorithms = [\"rs256\"]"), "algorithms"),
        (&format!("{public}from = []"), "from"),
        (&format!("{public}from = [\"query:token\"]"), "from"),
        (&format!("{public}leeway = \"6m\""), "leeway"),
        (&format!("{public}leeway = \"1500ms\""), "leeway"),
        (&format!("{public}max_token_bytes = 0"), "max_token_bytes"),
        (&format!("{public}typo = 1"), "typo"),
        (
            "secret = \"a session secret of 32 bytes\"\nsecrets = [\"another session secret\"]\nalgorithms = [\"HS256\"]",
            "jwks_url",
        ),
        (
            "secret = \"a session secret of 32 bytes\"\nsecret_encoding = \"base64\"\nalgorithms = [\"HS256\"]",
            "secret",
        ),
        (
            "secret = \"a session secret of 32 bytes\"\nsecret_encoding = \"hex\"\nalgorithms = [\"HS256\"]",
            "secret_encoding",
        ),
        (
            &format!("secrets = {:?}\nalgorithms = [\"HS256\"]", vec![SECRET; 11]),
            "secrets",
        ),
        (
            &format!("{public}required_scopes = [\"a b\"]"),
            "required_scopes",
        ),
        (&format!("{public}claims.role = []"), "claims"),
        (
            &format!("{public}claims.role = {{ present = false }}"),
            "claims",
        ),
        (&format!("{public}claims.role.inner = \"a\""), "claims"),
        (
            &format!("{public}header_claims.kid = {{ like = \"*\" }}"),
            "header_claims",
        ),
    ] {
        assert_refused(toml, key);
    }
}

#[test]
fn incomplete_preset_is_refused_and_the_problem_names_the_missing_key() {
    for (toml, key) in [
        (
            "preset = \"cognito\"\nissuers = [\"https://id\"]",
            "claims.client_id",
        ),
        (
            "preset = \"aws-alb\"\njwks_url = \"https://k/{kid}\"\nissuers = [\"i\"]",
            "header_claims.signer",
        ),
        (
            "preset = \"cognito\"\nissuers = [\"https://id\"]\nclaims.client_id = { any = true }",
            "claims.client_id",
        ),
        (
            "preset = \"cognito\"\nissuers = [\"https://id\"]\nclaims.client_id = { absent_or = \"c\" }",
            "claims.client_id",
        ),
        (
            "preset = \"workos\"\nissuers = [\"https://api.workos.com\"]",
            "issuers",
        ),
        (
            "preset = \"workos\"\nissuers = [\"https://auth.your-app.com/\"]",
            "issuers",
        ),
        ("preset = \"clerk\"", "issuers"),
        ("preset = \"clerk\"\nissuers = [\"not a URL\"]", "issuers"),
        (
            "preset = \"auth0\"\nissuers = [\"https://id/\"]",
            "audiences",
        ),
    ] {
        assert_refused(toml, key);
    }
}

#[test]
fn preset_with_its_required_keys_is_accepted() {
    for (preset, keys) in [
        (
            "auth0",
            "issuers = [\"https://t.auth0.com/\"]\naudiences = [\"api\"]",
        ),
        (
            "aws-alb",
            "issuers = [\"i\"]\njwks_url = \"https://k/{kid}\"\nheader_claims.signer = \"arn\"",
        ),
        ("clerk", "issuers = [\"https://clerk.example.com\"]"),
        (
            "clerk",
            "issuers = [\"https://clerk.example.com\"]\naudiences = [\"app\"]",
        ),
        (
            "cloudflare-access",
            "issuers = [\"https://t.cloudflareaccess.com\"]\naudiences = [\"a\"]",
        ),
        (
            "cognito",
            "issuers = [\"https://cognito/pool\"]\nclaims.client_id = \"c\"",
        ),
        (
            "entra",
            "issuers = [\"https://login.microsoftonline.com/t/v2.0\"]\naudiences = [\"a\"]",
        ),
        (
            "firebase",
            "issuers = [\"https://securetoken.google.com/p\"]\naudiences = [\"p\"]",
        ),
        (
            "google-iap",
            "audiences = [\"/projects/1/global/backendServices/2\"]",
        ),
        (
            "keycloak",
            "issuers = [\"https://kc/realms/main\"]\naudiences = [\"account\"]",
        ),
        (
            "okta",
            "issuers = [\"https://o/oauth2/default\"]\naudiences = [\"api://default\"]",
        ),
        (
            "supabase",
            "issuers = [\"https://ref.supabase.co/auth/v1\"]",
        ),
        (
            "supabase",
            "secret = \"a session secret of 32 bytes\"\nalgorithms = [\"HS256\"]",
        ),
        (
            "workos",
            "issuers = [\"https://api.workos.com/user_management/client_1\"]",
        ),
        (
            "workos",
            "issuers = [\"https://auth.your-app.com\"]\njwks_url = \"https://api.workos.com/sso/jwks/client_1\"",
        ),
    ] {
        let built = build(&format!("preset = \"{preset}\"\n{keys}"));
        assert!(built.is_ok(), "{preset}: {built:?}");
    }
    let names: std::collections::BTreeSet<_> = super::presets::PRESETS
        .iter()
        .map(|(name, _)| name)
        .collect();
    assert_eq!(names.len(), 12);
}

/// Checks the outcomes of tokens in a section with this preset. A case consists of the changes to [`claims`] and the
/// expected outcome.
async fn under_preset(preset: &str, keys: &str, cases: &[(Value, &str)]) {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("a key");
    std::fs::write(file.path(), pair.public_key_pem()).expect("written");
    let path = file.path().display().to_string();
    let toml = format!(
        "preset = \"{preset}\"\nissuers = [\"i\"]\nalgorithms = [\"ES256\"]\npublic_key_file = {path:?}\n{keys}"
    );
    let extractor = build(&toml).expect("a good section");
    let key = EncodingKey::from_ec_der(&pair.serialize_der());
    for (changes, want) in cases {
        let mut all = json!({ "iss": "i" });
        all.as_object_mut()
            .expect("claims")
            .extend(changes.as_object().expect("claims").clone());
        let token = sign(
            r#"{"alg":"ES256"}"#,
            claims(&all).as_bytes(),
            &key,
            Algorithm::ES256,
        );
        assert_eq!(
            word(&extract(&*extractor, &token).await),
            *want,
            "{preset} {changes}"
        );
    }
}

#[tokio::test]
async fn auth0_service_token_is_refused_and_refreshed_user_token_is_accepted() {
    let cases = [
        (json!({ "gty": "password" }), "ok"),
        (json!({ "gty": "refresh_token" }), "ok"),
        (json!({ "gty": ["refresh_token", "password"] }), "ok"),
        (json!({ "gty": "client-credentials" }), "claim"),
        (json!({ "gty": ["client-credentials"] }), "claim"),
        (json!({ "gty": null }), "claim"),
        // The RFC 9068 profile has no `gty`.
        (json!({ "sub": "auth0|1", "client_id": "c" }), "ok"),
        (json!({ "sub": "c@clients", "client_id": "c" }), "claim"),
    ];
    under_preset("auth0", "audiences = [\"app\"]", &cases).await;
}

#[tokio::test]
async fn claim_rule_of_the_section_replaces_the_rule_of_the_preset() {
    let service = json!({ "sub": "c@clients", "gty": "client-credentials" });
    let presets = [(service.clone(), "claim")];
    under_preset("auth0", "audiences = [\"app\"]", &presets).await;
    let dropped = "audiences = [\"app\"]\n[claims]\nsub = { any = true }\ngty = { any = true }";
    under_preset("auth0", dropped, &[(service.clone(), "ok")]).await;
    let one = "audiences = [\"app\"]\n[claims]\nsub = { any = true }";
    under_preset("auth0", one, &[(service, "claim")]).await;
    let table_over_text = "claims.client_id = \"c\"\nclaims.token_use = { any = true }";
    let id_token = json!({ "token_use": "id", "username": "u", "client_id": "c" });
    under_preset("cognito", table_over_text, &[(id_token, "ok")]).await;
    let text_over_table = "audiences = [\"app\"]\nclaims.scp = \"access\"";
    under_preset(
        "entra",
        text_over_table,
        &[
            (json!({ "scp": "access" }), "ok"),
            (json!({ "scp": "x" }), "claim"),
        ],
    )
    .await;
}

#[tokio::test]
async fn required_scope_is_found_in_scope_or_scp() {
    let keys = "audiences = [\"app\"]\nrequired_scopes = [\"access\"]";
    let cases = [
        (json!({ "scp": "openid access" }), "ok"),
        (json!({ "scp": ["access"] }), "ok"),
        (json!({ "scp": "openid", "scope": "access" }), "ok"),
        (json!({ "scp": "openid" }), "scope"),
        (json!({ "scp": "access2" }), "scope"),
    ];
    under_preset("entra", keys, &cases).await;
}

/// The warnings of a configuration with this section, `[extractors.web]`.
fn warnings_of(keys: &str) -> Vec<String> {
    let toml =
        format!("[session]\nextractors = [\"web\"]\n[extractors.web]\nkind = \"jwt\"\n{keys}");
    let client = [
        ("ROLLOUT_CLIENT_ID", "client"),
        (
            "ROLLOUT_CLIENT_SECRET",
            "S3cret of the client: 0f1e2d3c4b5a69788796a5b4c3d2e1f00112233445566778899",
        ),
    ];
    let environment = client
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
    let sources = Sources {
        base: Some(toml),
        environment,
        ..Sources::default()
    };
    let settings =
        settings::load(&sources, &Registry::builtin(), &context()).expect("a good configuration");
    settings.warnings.lines().collect()
}

#[test]
fn clerk_section_without_a_rule_for_azp_logs_a_warning() {
    let warnings = |keys: &str| {
        let clerk = "preset = \"clerk\"\nissuers = [\"https://clerk.example.com\"]";
        let warnings = warnings_of(&format!("{clerk}\n{keys}"));
        warnings
            .iter()
            .filter(|line| line.contains("claims.azp"))
            .count()
    };
    assert_eq!(warnings(""), 1);
    assert_eq!(warnings("claims.azp = { any = true }"), 1);
    assert_eq!(warnings("claims.azp = [\"https://app.example.com\"]"), 0);
}

#[test]
fn secret_with_a_trailing_newline_causes_a_warning_unless_it_is_decoded_from_base64() {
    let key: Vec<u8> = (0..40).map(|byte| 0xf8 ^ byte).chain([b'\n']).collect();
    let encoded = base64::engine::general_purpose::STANDARD.encode(&key);
    let rest = "algorithms = [\"HS256\"]\naudiences = [\"app\"]";
    let encoding = "secret_encoding = \"base64\"";
    assert_eq!(
        warnings_of(&format!("secret = {encoded:?}\n{encoding}\n{rest}")),
        [""; 0]
    );
    let damaged = warnings_of(&format!(
        "secret = \"a session secret of at least 32 bytes\\n\"\n{rest}"
    ));
    assert!(
        damaged.iter().any(|line| line.contains("line feed")),
        "{damaged:?}"
    );
    let quoted = format!("secret = \"'{encoded}'\"\n{encoding}\n{rest}");
    assert_refused(&quoted, "secret");
}

#[tokio::test]
async fn at_most_three_keys_of_a_set_are_tried_for_a_token() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("jwks.json");
    let keys: Vec<EncodingKey> = (0..4)
        .map(|_| rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("a key"))
        .map(|pair| EncodingKey::from_ec_der(&pair.serialize_der()))
        .collect();
    let jwks: Vec<Jwk> = keys
        .iter()
        .map(|key| Jwk::from_encoding_key(key, Algorithm::ES256).expect("a JWK"))
        .collect();
    std::fs::write(&file, json!({ "keys": jwks }).to_string()).expect("a file");
    let toml = format!(
        "jwks_file = {:?}\nissuers = [\"i\"]\naudiences = [\"app\"]",
        file.display().to_string()
    );
    let extractor = build(&toml).expect("a good section");
    for (key, want) in keys.iter().zip(["ok", "ok", "ok", "bad_signature"]) {
        let payload = claims(&json!({ "iss": "i" }));
        let token = sign(
            r#"{"alg":"ES256"}"#,
            payload.as_bytes(),
            key,
            Algorithm::ES256,
        );
        assert_eq!(word(&extract(&*extractor, &token).await), want);
    }
}

#[tokio::test]
async fn section_can_be_configured_by_environment_variables_alone() {
    let environment = [
        ("ROLLOUT_CLIENT_ID", "client"),
        (
            "ROLLOUT_CLIENT_SECRET",
            "a client secret of at least 32 bytes",
        ),
        ("ROLLOUT__SESSION__EXTRACTORS", "jwt"),
        ("ROLLOUT__EXTRACTORS__JWT__SECRET", SECRET),
        ("ROLLOUT__EXTRACTORS__JWT__ALGORITHMS", "HS256,HS512"),
        ("ROLLOUT__EXTRACTORS__JWT__ALLOW_ANY_AUDIENCE", "true"),
        ("ROLLOUT__EXTRACTORS__JWT__CLAIMS__EMAIL_VERIFIED", "true"),
        (
            "ROLLOUT__EXTRACTORS__JWT__CLAIMS__PLAN__ABSENT_OR",
            "team, pro",
        ),
        ("ROLLOUT__EXTRACTORS__JWT__CLAIMS__SUB__LIKE", "u-*"),
        ("ROLLOUT__EXTRACTORS__JWT__CLAIMS__ACT__ABSENT", "true"),
    ];
    let environment = environment
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
    let sources = Sources {
        environment,
        ..Sources::default()
    };
    let settings =
        settings::load(&sources, &Registry::builtin(), &context()).expect("a good configuration");
    let extractor = &settings.chain.extractors()[0].extractor;
    for (changes, want) in [
        (json!({ "email_verified": true }), "ok"),
        (json!({ "email_verified": true, "plan": "pro" }), "ok"),
        (json!({ "email_verified": true, "plan": "free" }), "claim"),
        (json!({ "email_verified": false }), "claim"),
        (json!({ "email_verified": true, "sub": "s-1" }), "claim"),
        (
            json!({ "email_verified": true, "act": { "sub": "u-2" } }),
            "claim",
        ),
        (json!({}), "claim"),
    ] {
        let outcome = extract(&**extractor, &hs256(PLAIN, claims(&changes))).await;
        assert_eq!(word(&outcome), want, "{changes}");
    }
    // `check-config --print` prints these settings, which must not contain the secret.
    assert!(!settings.effective().to_string().contains(SECRET));
}
