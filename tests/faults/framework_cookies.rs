//! Attacks on the signed and encrypted session cookies of web frameworks: altered, expired and foreign cookies.

use std::fmt::Write as _;

use aws_lc_rs::{aead, hmac, pbkdf2};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::configs::{by_jwt, one_extractor};
use crate::sentinels::SESSION_SECRET;
use crate::service::Service;
use crate::session_stores::cookies;
use crate::tokens::{encode, hs256, now};
use crate::wire::post_raw;

const INVALID: &[&str] = &["401 session_invalid"];

fn sha1(key: &[u8], text: &str) -> Vec<u8> {
    hmac::sign(
        &hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, key),
        text.as_bytes(),
    )
    .as_ref()
    .to_vec()
}

/// The values of the session cookie and of its `.sig` cookie, as Express's `cookie-session` package writes them.
fn keygrip(name: &str, session: &Value, key: &str) -> (String, String) {
    let value = STANDARD.encode(session.to_string());
    let signature = encode(sha1(key.as_bytes(), &format!("{name}={value}")));
    (value, signature)
}

/// Flask's session cookie, signed at the time `at`.
fn flask(session: &Value, secret: &str, salt: &str, at: i64) -> String {
    let stamp = u32::try_from(at).expect("a time").to_be_bytes();
    let signed = format!("{}.{}", encode(session.to_string()), encode(stamp));
    let key = sha1(secret.as_bytes(), salt);
    format!("{signed}.{}", encode(sha1(&key, &signed)))
}

/// The encrypted session cookie of Rails 7.
fn rails(session: &Value, secret: &str, name: &str, ends: Option<&str>) -> String {
    let mut key = [0; 32];
    let rounds = std::num::NonZeroU32::new(1000).expect("rounds");
    pbkdf2::derive(
        pbkdf2::PBKDF2_HMAC_SHA256,
        rounds,
        b"authenticated encrypted cookie",
        secret.as_bytes(),
        &mut key,
    );
    let message = STANDARD.encode(session.to_string());
    let mut text =
        json!({"_rails": {"message": message, "exp": ends, "pur": format!("cookie.{name}")}})
            .to_string()
            .into_bytes();
    let sealing =
        aead::LessSafeKey::new(aead::UnboundKey::new(&aead::AES_256_GCM, &key).expect("a key"));
    let nonce = [7; 12];
    let tag = sealing
        .seal_in_place_separate_tag(
            aead::Nonce::assume_unique_for_key(nonce),
            aead::Aad::empty(),
            &mut text,
        )
        .expect("sealed");
    let parts = [
        STANDARD.encode(&text),
        STANDARD.encode(nonce),
        STANDARD.encode(tag.as_ref()),
    ]
    .join("--");
    let mut escaped = String::new();
    for byte in parts.bytes() {
        match byte {
            b'+' | b'/' | b'=' => write!(escaped, "%{byte:02X}").expect("memory"),
            byte => escaped.push(char::from(byte)),
        }
    }
    escaped
}

/// The outcomes allowed for an altered cookie. The changed byte may be invalid in a header (400) or split the cookie
/// (`no_session`).
const REFUSED: &[&str] = &["401 session_invalid", "401 no_session", "400 bad_request"];

#[tokio::test]
async fn altered_session_cookie_is_refused() {
    let express = Service::start(one_extractor(
        "web",
        "cookie_session",
        &format!("keys = [\"{SESSION_SECRET}\"]\nsubject = \"{{user}}\""),
    ))
    .await;
    let (value, signature) = keygrip("session", &json!({"user": "ann"}), SESSION_SECRET);
    let flasked = Service::start(one_extractor(
        "web",
        "flask",
        &format!("secret_key = \"{SESSION_SECRET}\""),
    ))
    .await;
    let railed = Service::start(one_extractor(
        "web",
        "rails",
        &format!(
            "cookie = \"_app\"\nsecret_key_base = \"{SESSION_SECRET}\"\nsubject = \"{{user}}\""
        ),
    ))
    .await;
    for (label, s, cookie) in [
        (
            "express",
            &express,
            format!("session={value}; session.sig={signature}"),
        ),
        (
            "flask",
            &flasked,
            format!(
                "session={}",
                flask(
                    &json!({"_user_id": "ann"}),
                    SESSION_SECRET,
                    "cookie-session",
                    now()
                )
            ),
        ),
        (
            "rails",
            &railed,
            format!(
                "_app={}",
                rails(&json!({"user": "ann"}), SESSION_SECRET, "_app", None)
            ),
        ),
    ] {
        assert_eq!(
            s.expect(label, &cookies(&cookie), &["200"]).await.subject(),
            "ann"
        );
        let begin = cookie.find('=').expect("a value") + 1;
        let mut codes = std::collections::BTreeMap::new();
        for at in begin..cookie.len() {
            for bit in [0, 2, 5] {
                let mut bent = cookie.clone().into_bytes();
                bent[at] ^= 1 << bit;
                // Hex digits of a percent-escape are case-insensitive, so a changed bit can leave the value unchanged.
                let is_escape = cookie[..at].ends_with('%') || cookie[..at - 1].ends_with('%');
                // The signature covers neither the `=` after `session.sig` nor the space between the cookies.
                if is_escape
                    || cookie[..at].ends_with("session.sig")
                    || cookie.as_bytes()[at] == b' '
                {
                    continue;
                }
                let answer = s.one(&post_raw("Cookie", &bent)).await;
                let outcome = answer.outcome();
                assert!(
                    REFUSED.contains(&&*outcome),
                    "{label}, byte {at}, bit {bit}: {outcome} {}",
                    bent.escape_ascii()
                );
                *codes.entry(outcome).or_insert(0) += 1;
            }
        }
        assert!(codes["401 session_invalid"] > 100, "{codes:?}");
        let (first, second) = cookie[begin..].split_at((cookie.len() - begin) / 2);
        for (what, bad) in [
            ("cut", first.to_owned()),
            ("the other half", second.to_owned()),
            ("swapped", format!("{second}{first}")),
            ("twice over", format!("{first}{first}")),
        ] {
            s.expect(
                what,
                &cookies(&format!("{}{bad}", &cookie[..begin])),
                REFUSED,
            )
            .await;
        }
        s.finish().await;
    }
}

#[tokio::test]
async fn cookie_with_another_name_salt_or_purpose_and_expired_rails_cookie_are_401() {
    let keys = format!("keys = [\"{SESSION_SECRET}\"]\nsubject = \"{{user}}\"");
    let s = Service::start(one_extractor(
        "web",
        "cookie_session",
        &format!("cookie = \"other\"\n{keys}"),
    ))
    .await;
    let (value, signature) = keygrip("session", &json!({"user": "ann"}), SESSION_SECRET);
    s.expect(
        "another name",
        &cookies(&format!("other={value}; other.sig={signature}")),
        INVALID,
    )
    .await;
    s.finish().await;
    let s = Service::start(one_extractor(
        "web",
        "flask",
        &format!("secret_key = \"{SESSION_SECRET}\""),
    ))
    .await;
    let salted = flask(
        &json!({"_user_id": "ann"}),
        SESSION_SECRET,
        "another-salt",
        now(),
    );
    s.expect(
        "another salt",
        &cookies(&format!("session={salted}")),
        INVALID,
    )
    .await;
    s.finish().await;
    let s = Service::start(one_extractor(
        "web",
        "rails",
        &format!(
            "cookie = \"_app\"\nsecret_key_base = \"{SESSION_SECRET}\"\nsubject = \"{{user}}\""
        ),
    ))
    .await;
    let other = rails(&json!({"user": "ann"}), SESSION_SECRET, "_other", None);
    s.expect(
        "another purpose",
        &cookies(&format!("_app={other}")),
        INVALID,
    )
    .await;
    let over = rails(
        &json!({"user": "ann"}),
        SESSION_SECRET,
        "_app",
        Some("2020-01-01T00:00:00.000Z"),
    );
    s.expect(
        "over",
        &cookies(&format!("_app={over}")),
        &["401 session_expired"],
    )
    .await;
    s.finish().await;
}

#[tokio::test]
async fn fallback_key_is_accepted_and_removed_key_is_401() {
    let old = "an-older-key-of-some-length-0123456789";
    let cookie = |key: &str| {
        let (value, signature) = keygrip("session", &json!({"user": "ann"}), key);
        cookies(&format!("session={value}; session.sig={signature}"))
    };
    let both = Service::start(one_extractor(
        "web",
        "cookie_session",
        &format!("keys = [\"{SESSION_SECRET}\", \"{old}\"]\nsubject = \"{{user}}\""),
    ))
    .await;
    both.expect("new", &cookie(SESSION_SECRET), &["200"]).await;
    both.expect("old", &cookie(old), &["200"]).await;
    both.expect(
        "unknown",
        &cookie("another-key-of-some-length-0123456789"),
        INVALID,
    )
    .await;
    both.finish().await;
    let one = Service::start(one_extractor(
        "web",
        "cookie_session",
        &format!("keys = [\"{SESSION_SECRET}\"]\nsubject = \"{{user}}\""),
    ))
    .await;
    one.expect("removed", &cookie(old), INVALID).await;
    one.finish().await;
}

#[tokio::test]
async fn expired_or_future_cookie_is_401() {
    let s = Service::start(one_extractor(
        "web",
        "flask",
        &format!("secret_key = \"{SESSION_SECRET}\"\nmax_age = \"1h\""),
    ))
    .await;
    for (label, at, want) in [
        ("fresh", now(), &["200"][..]),
        ("old", now() - 3500, &["200"]),
        (
            "too old by two seconds",
            now() - 3602,
            &["401 session_expired"],
        ),
        ("of the future", now() + 3600, INVALID),
        ("of 1970", 0, &["401 session_expired"]),
    ] {
        let cookie = flask(
            &json!({"_user_id": "ann"}),
            SESSION_SECRET,
            "cookie-session",
            at,
        );
        s.expect(label, &cookies(&format!("session={cookie}")), want)
            .await;
    }
    s.finish().await;
}

#[tokio::test]
async fn incomplete_or_excess_cookie_chunks_are_401() {
    let token = hs256(&json!({}));
    let config = by_jwt().with("extractors.web.from = ['supabase:sb-x-auth-token']");
    let s = Service::start(config).await;
    let whole = format!(
        "base64-{}",
        encode(json!({"access_token": token}).to_string())
    );
    let parts = |count: usize| -> Vec<String> {
        let size = whole.len().div_ceil(count);
        whole
            .as_bytes()
            .chunks(size)
            .map(|part| String::from_utf8(part.to_vec()).expect("text"))
            .collect()
    };
    let header = |parts: &[(usize, &str)]| {
        cookies(
            &parts
                .iter()
                .map(|(n, part)| format!("sb-x-auth-token.{n}={part}"))
                .collect::<Vec<_>>()
                .join("; "),
        )
    };
    let numbered =
        |parts: &[String]| -> Vec<(usize, String)> { parts.iter().cloned().enumerate().collect() };
    let borrowed = |parts: &[(usize, String)]| {
        header(
            &parts
                .iter()
                .map(|(n, part)| (*n, part.as_str()))
                .collect::<Vec<_>>(),
        )
    };
    s.expect(
        "whole",
        &cookies(&format!("sb-x-auth-token={whole}")),
        &["200"],
    )
    .await;
    for count in [1, 2, 5, 10] {
        let mut all = numbered(&parts(count));
        s.expect("in parts", &borrowed(&all), &["200"]).await;
        all.reverse();
        s.expect(
            "in another order",
            &borrowed(&all),
            &["200", "401 session_invalid"],
        )
        .await;
        for missing in 0..count {
            let mut some = numbered(&parts(count));
            some.remove(missing);
            s.expect(
                "one missing",
                &borrowed(&some),
                &["401 session_invalid", "401 no_session"],
            )
            .await;
        }
        let mut more = numbered(&parts(count));
        more.push((count, "x".to_owned()));
        s.expect("one too many", &borrowed(&more), &["401 session_invalid"])
            .await;
        let mut doubled = numbered(&parts(count));
        doubled.push((0, parts(count)[0].clone()));
        s.expect("one twice, equal", &borrowed(&doubled), &["200"])
            .await;
        let last = doubled.len() - 1;
        doubled[last].1.push('x');
        s.expect(
            "one twice, different",
            &borrowed(&doubled),
            &["401 session_invalid"],
        )
        .await;
    }
    s.expect(
        "a hundred",
        &borrowed(&numbered(&parts(100))),
        &["401 session_invalid"],
    )
    .await;
    for name in [
        "sb-x-auth-token.00",
        "sb-x-auth-token.-1",
        "sb-x-auth-token.a",
        "sb-x-auth-token.",
    ] {
        s.expect(
            name,
            &cookies(&format!("{name}={whole}")),
            &["401 no_session", "401 session_invalid"],
        )
        .await;
    }
    s.finish().await;
}
