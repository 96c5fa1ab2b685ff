//! Subjects of sessions, and the claims of minted tokens.

use serde_json::json;

use crate::claims::{ask, with_text};
use crate::configs::by_jwt;
use crate::sentinels::SESSION_SECRET;
use crate::service::{Service, refuses};
use crate::tokens::{HS256, claims, hs256, hs256_raw, hs256_text, minted};
use crate::wire::{bearer, post};

const INVALID: &[&str] = &["401 session_invalid"];

#[tokio::test]
async fn look_alike_subject_is_copied_unchanged_into_the_token() {
    let s = Service::start(by_jwt()).await;
    for sub in [
        "Admin",
        "admin",
        "ADMIN",
        "\u{131}",
        "i",
        "\u{130}",
        "stra\u{df}e",
        "strasse",
        "e\u{301}",
        "\u{e9}",
        "\u{430}dmin",
        "\u{ff41}dmin",
        "\u{2126}",
        "\u{3a9}",
        "Å",
        "A\u{30a}",
        "user@EXAMPLE.com",
        " ann",
        "ann ",
    ] {
        let answer = s
            .expect(sub, &post(&bearer(&hs256(&json!({"sub": sub})))), &["200"])
            .await;
        assert_eq!(answer.subject(), sub);
    }
    s.finish().await;
}

#[tokio::test]
async fn numeric_subject_other_than_a_canonical_64_bit_integer_is_401() {
    let s = Service::start(by_jwt().with("extractors.web.subject = '{id}'")).await;
    for (number, subject) in [
        ("1", "1"),
        ("9007199254740993", "9007199254740993"),
        ("-1", "-1"),
        ("9223372036854775807", "9223372036854775807"),
        ("18446744073709551615", "18446744073709551615"),
        ("-9223372036854775808", "-9223372036854775808"),
    ] {
        let answer = s
            .expect(
                number,
                &post(&bearer(&hs256_text(with_text("id", number)))),
                &["200"],
            )
            .await;
        assert_eq!(answer.subject(), subject);
    }
    for number in [
        "1.0",
        "1e0",
        "01",
        "18446744073709551616",
        "1e400",
        "1E5",
        "1.5",
        "-0.0",
        "1e-5",
        "-01",
        "00",
        "99999999999999999999999999",
        "-9223372036854775809",
    ] {
        ask(&s, with_text("id", number), INVALID).await;
    }
    for number in ["0", "-0"] {
        ask(
            &s,
            with_text("id", number),
            &["401 no_session", "401 session_invalid"],
        )
        .await;
    }
    s.finish().await;
}

#[tokio::test]
async fn reserved_word_or_template_text_is_used_as_a_literal_subject() {
    let s = Service::start(by_jwt()).await;
    for sub in [
        "__proto__",
        "constructor",
        "prototype",
        "null",
        "undefined",
        "NaN",
        "anonymous",
        "system",
        "true",
        "0",
        "-1",
        "root",
        "toString",
        "hasOwnProperty",
        "*",
        "%",
        "'; DROP TABLE users; --",
        "../../etc/passwd",
        "<script>alert(1)</script>",
        "${7*7}",
        "{{7*7}}",
        "{sub}",
        "{}",
        "\\",
        "\"",
        "a\\u0000b",
    ] {
        let answer = s
            .expect(sub, &post(&bearer(&hs256(&json!({"sub": sub})))), &["200"])
            .await;
        assert_eq!(answer.subject(), sub);
    }
    s.finish().await;
}

#[tokio::test]
async fn empty_overlong_or_unprintable_subject_is_401() {
    let s = Service::start(by_jwt()).await;
    for sub in [
        "",
        " ",
        "\t",
        "\u{a0}",
        "\u{3000}",
        "a\u{0}b",
        "a\nb",
        "a\r\nb",
        "a\u{7f}b",
        "a\u{85}b",
        "a\u{200b}b",
        "a\u{200d}b",
        "a\u{202e}b",
        "a\u{2066}b",
        "\u{feff}ann",
        "a\u{ad}b",
        "a\u{34f}b",
        "a\u{2028}b",
        "\u{2800}",
        "\u{e0061}",
        "a\u{1b}[31mb",
        "\u{200b}",
    ] {
        ask(&s, claims(&json!({"sub": sub})).to_string(), INVALID).await;
    }
    ask(
        &s,
        claims(&json!({"sub": "x".repeat(257)})).to_string(),
        INVALID,
    )
    .await;
    ask(
        &s,
        claims(&json!({"sub": "\u{e9}".repeat(129)})).to_string(),
        INVALID,
    )
    .await;
    ask(
        &s,
        claims(&json!({"sub": "x".repeat(256)})).to_string(),
        &["200"],
    )
    .await;
    s.finish().await;
}

#[tokio::test]
async fn json_inside_a_subject_adds_no_claim() {
    let s = Service::start(by_jwt()).await;
    for sub in [
        "\",\"admin\":true,\"x\":\"",
        "\"}",
        "\\\",\"iss\":\"evil\"",
        "</script>",
        "a\",\"exp\":9999999999,\"b\":\"",
    ] {
        let answer = s
            .expect(sub, &post(&bearer(&hs256(&json!({"sub": sub})))), &["200"])
            .await;
        let token = minted(&answer.json());
        assert_eq!(token["sub"], sub);
        assert_eq!(token.as_object().expect("claims").len(), 4, "{token}");
    }
    s.finish().await;
}

#[tokio::test]
async fn only_configured_claims_are_copied() {
    let claims =
        "[token.claims]\norg = '{org_id}'\n'rollout.com' = { roles = '{roles}', fixed = true }";
    let s = Service::start(by_jwt().with(claims)).await;
    let session =
        json!({"org_id": "o-1", "roles": ["admin"], "email": "ann@example.com", "admin": true});
    let answer = s
        .expect("claims", &post(&bearer(&hs256(&session))), &["200"])
        .await;
    let token = minted(&answer.json());
    assert_eq!(
        (&token["org"], &token["rollout.com"]),
        (&json!("o-1"), &json!({"roles": ["admin"], "fixed": true}))
    );
    assert_eq!(token.as_object().expect("claims").len(), 6, "{token}");
    let twice =
        hs256_text(with_text("x", "1").replace("\"x\":1", "\"org_id\":\"a\",\"org_id\":\"b\""));
    s.expect("a claim twice", &post(&bearer(&twice)), INVALID)
        .await;
    s.finish().await;
    for reserved in ["iss", "sub", "iat", "exp", "nbf"] {
        refuses(
            by_jwt().with(format!("token.claims.{reserved} = 'x'")),
            "token.claims",
        )
        .await;
    }
}

#[tokio::test]
async fn replayed_session_is_rate_limited_and_other_users_are_not() {
    let s = Service::start(by_jwt().without("rate_limit")).await;
    let asked = post(&bearer(&hs256(&json!({}))));
    let mut issued = 0;
    for _ in 0..1000 {
        let answer = s
            .expect("replay", &asked, &["200", "429 rate_limited"])
            .await;
        issued += u32::from(answer.status == 200);
    }
    assert!((20..=60).contains(&issued), "{issued} tokens");
    // Other users are served, and requests with forged tokens do not count towards a user's limit.
    s.expect(
        "another",
        &post(&bearer(&hs256(&json!({"sub": "bob"})))),
        &["200"],
    )
    .await;
    for _ in 0..40 {
        let forged = hs256_raw(
            HS256,
            claims(&json!({"sub": "eve"})).to_string(),
            b"another key of some length",
        );
        s.expect("forged", &post(&bearer(&forged)), INVALID).await;
    }
    let eve = hs256_raw(
        HS256,
        claims(&json!({"sub": "eve"})).to_string(),
        SESSION_SECRET.as_bytes(),
    );
    s.expect("eve", &post(&bearer(&eve)), &["200"]).await;
    s.finish().await;
}
