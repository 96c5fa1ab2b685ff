//! Table-driven tests of the form and the claims of JWT sessions; `section.rs` and `presets.rs` test the configuration.
//! `tests/sessions` tests real tokens, and `tests/jwks.rs` tests published keys.

mod presets;
mod section;

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, crypto};
use serde_json::{Value, json};

use crate::clock::{Clock, ManualClock};
use crate::config::{Problems, Sources};
use crate::session::backends::Context;
use crate::session::contract;
use crate::session::registry::Registry;
use crate::session::types::{ExtractError, Extracted, Session, SessionExtractor};
use crate::settings;
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
async fn only_padded_tokens_are_accepted_with_padded_base64() {
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
            "iss is https://them, but issuers allows only https://us",
        ),
        (
            hs256(PLAIN, claims(&json!({}))),
            "iss is missing, but issuers allows only https://us",
        ),
        (
            hs256(PLAIN, with(json!({ "aud": "x" }))),
            "aud is x, but audiences allows only app",
        ),
        (
            hs256(PLAIN, with(json!({ "aud": ["x", "y\u{202e}"] }))),
            r"aud is x, y\u{202e}, but audiences allows only app",
        ),
        (
            hs256(r#"{"alg":"RS256"}"#, with(json!({}))),
            "alg is RS256, but algorithms allows only HS256",
        ),
        (
            hs256(r#"{"alg":"HS512"}"#, with(json!({}))),
            "alg is HS512, but algorithms allows only HS256",
        ),
        (
            hs256(r#"{"alg":"HS256","typ":"id+jwt"}"#, with(json!({}))),
            "typ is id+jwt, but token_types allows only JWT, at+jwt",
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
