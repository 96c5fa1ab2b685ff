//! The claims of a session token: types, times, issuer and audience.

use std::time::Duration;

use serde_json::{Value, json};

use crate::clock::{Clocks, Timed};
use crate::configs::by_jwt;
use crate::service::Service;
use crate::tokens::{AUDIENCE, ISSUER, claims, hs256, hs256_text, minted, now};
use crate::wire::{bearer, post};

const INVALID: &[&str] = &["401 session_invalid"];
const EXPIRED: &[&str] = &["401 session_expired"];
const NO_SESSION: &[&str] = &["401 no_session"];

pub async fn ask(s: &Service, payload: impl AsRef<[u8]>, want: &[&str]) {
    let label = String::from_utf8_lossy(payload.as_ref())
        .chars()
        .take(200)
        .collect::<String>();
    s.expect(&label, &post(&bearer(&hs256_text(payload))), want)
        .await;
}

/// The JSON text of valid claims, with `value` as the value of the claim `name`. `value` need not be valid JSON.
pub fn with_text(name: &str, value: &str) -> String {
    let mut all = claims(&json!({}));
    all.as_object_mut().expect("claims").remove(name);
    let text = all.to_string();
    format!("{},\"{name}\":{value}}}", text.trim_end_matches('}'))
}

#[tokio::test]
async fn missing_or_non_numeric_exp_is_401() {
    let s = Service::start(by_jwt()).await;
    let mut all = claims(&json!({}));
    all.as_object_mut().expect("claims").remove("exp");
    ask(&s, all.to_string(), INVALID).await;
    for value in [
        "null",
        "\"x\"",
        "true",
        "false",
        "[]",
        "{}",
        "[1795566737]",
        "\"\"",
        "{\"$date\":1}",
    ] {
        ask(&s, with_text("exp", value), INVALID).await;
    }
    s.finish().await;
}

#[tokio::test]
async fn extreme_exp_is_401_without_overflow() {
    let s = Service::start(by_jwt()).await;
    for value in [
        "-1",
        "0",
        "1",
        "-1e18",
        "-9223372036854775808",
        "0.0",
        "-0",
        "1e0",
        "1e-400",
        "-1e300",
    ] {
        ask(&s, with_text("exp", value), EXPIRED).await;
    }
    for value in [
        "1e300",
        "1e400",
        "-1e400",
        "9007199254740993",
        "9223372036854775808",
        "9223372036854775807",
        "18446744073709551615",
        "18446744073709551616",
        "NaN",
        "Infinity",
        "-Infinity",
        "1e",
        "0x6b",
        "1_000",
        "01",
        "+1",
        "1.",
        ".5",
        "1e99999999999",
        "253402300800",
        "4102444800000",
        "-",
        "1795566737n",
        &format!("{}1", "9".repeat(3000)),
        &format!("1.{}", "0".repeat(3000)),
        &format!("1e{}", "0".repeat(1000)),
    ] {
        ask(
            &s,
            with_text("exp", value),
            &["401 session_invalid", "401 session_expired"],
        )
        .await;
    }
    ask(&s, with_text("exp", "253402300799"), &["200"]).await;
    s.finish().await;
}

#[tokio::test]
async fn exp_as_a_string_is_401() {
    let s = Service::start(by_jwt()).await;
    for value in [
        format!("\"{}\"", now() + 600),
        format!("\"{}.5\"", now() + 600),
        format!("\" {} \"", now() + 600),
    ] {
        ask(&s, with_text("exp", &value), INVALID).await;
    }
    s.finish().await;
}

/// Waits until the next second begins, and returns its Unix time.
async fn next_second() -> i64 {
    let before = now();
    while now() == before {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    now()
}

#[tokio::test]
async fn exp_is_accepted_until_the_end_of_the_leeway() {
    let s = Service::start(by_jwt()).await;
    let now = next_second().await;
    ask(&s, with_text("exp", &(now - 31).to_string()), EXPIRED).await;
    ask(&s, with_text("exp", &(now - 30).to_string()), EXPIRED).await;
    ask(&s, with_text("exp", &(now - 28).to_string()), &["200"]).await;
    ask(&s, with_text("exp", &(now - 1).to_string()), &["200"]).await;
    s.finish().await;
}

#[tokio::test]
async fn nbf_iat_or_auth_time_beyond_the_leeway_is_401() {
    let s = Service::start(by_jwt()).await;
    let now = next_second().await;
    for name in ["nbf", "iat", "auth_time"] {
        ask(&s, with_text(name, &(now + 32).to_string()), INVALID).await;
        ask(&s, with_text(name, &(now + 30).to_string()), &["200"]).await;
        ask(&s, with_text(name, "1e300"), INVALID).await;
        ask(&s, with_text(name, "9223372036854775807"), INVALID).await;
        ask(&s, with_text(name, "18446744073709551615"), INVALID).await;
        ask(&s, with_text(name, "-1"), &["200"]).await;
    }
    s.finish().await;
}

#[tokio::test]
async fn non_numeric_nbf_or_iat_is_401() {
    let s = Service::start(by_jwt()).await;
    for name in ["nbf", "iat"] {
        for value in ["\"1\"", "{}", "[]", "true", "null", "\"\""] {
            ask(&s, with_text(name, value), INVALID).await;
        }
    }
    s.finish().await;
}

#[tokio::test]
async fn fractional_exp_is_rounded_down() {
    let s = Service::start(by_jwt()).await;
    // RFC 7519, section 2 allows fractional seconds. The service rounds them down.
    ask(&s, with_text("exp", &format!("{}.9", now() + 60)), &["200"]).await;
    ask(&s, with_text("exp", "1795566737.9e-2"), EXPIRED).await;
    s.finish().await;
}

#[tokio::test]
async fn distant_exp_does_not_extend_the_minted_token() {
    let s = Service::start(by_jwt()).await;
    // The lifetime of a session is not limited: the minted token expires after 15 minutes in any case.
    let answer = s
        .one(&post(&bearer(&hs256(
            &json!({"exp": now() + 400 * 86_400}),
        ))))
        .await;
    let token = minted(&answer.json());
    assert!(token["exp"].as_i64().expect("exp") <= now() + 900);
    ask(
        &s,
        with_text("exp", &((now() + 600) * 1000).to_string()),
        INVALID,
    )
    .await;
    s.finish().await;
}

#[tokio::test]
async fn issuer_other_than_configured_is_401() {
    let s = Service::start(by_jwt()).await;
    for issuer in [
        json!("https://other.example"),
        json!(format!("{ISSUER}/")),
        json!("HTTPS://ISSUER.EXAMPLE"),
        json!([ISSUER]),
        json!(null),
        json!(""),
        json!(format!(" {ISSUER}")),
        json!({"a": ISSUER}),
        json!(5),
        json!(format!("{ISSUER}\u{0}")),
        json!("http://issuer.example"),
        json!(format!("{ISSUER}.evil")),
    ] {
        ask(&s, claims(&json!({"iss": issuer})).to_string(), INVALID).await;
    }
    let mut all = claims(&json!({}));
    all.as_object_mut().expect("claims").remove("iss");
    ask(&s, all.to_string(), INVALID).await;
    s.finish().await;
}

#[tokio::test]
async fn audience_other_than_configured_is_401() {
    let s = Service::start(by_jwt()).await;
    let many: Vec<String> = (0..600).map(|n| format!("app-{n}")).collect();
    for audience in [
        json!("other"),
        json!(["other"]),
        json!([]),
        json!([null]),
        json!(null),
        json!(""),
        json!({"aud": AUDIENCE}),
        json!("OUR-APP"),
        json!(format!("{AUDIENCE} other")),
        json!([[AUDIENCE]]),
        json!([AUDIENCE, 5]),
        json!([AUDIENCE, null]),
        json!(true),
        json!(many),
    ] {
        ask(&s, claims(&json!({"aud": audience})).to_string(), INVALID).await;
    }
    ask(
        &s,
        claims(&json!({"aud": ["other", AUDIENCE]})).to_string(),
        &["200"],
    )
    .await;
    let mut all = claims(&json!({}));
    all.as_object_mut().expect("claims").remove("aud");
    ask(&s, all.to_string(), INVALID).await;
    // A token with ten thousand audiences is longer than the maximum.
    let vast: Vec<u8> = vec![1; 10_000];
    ask(&s, claims(&json!({"aud": vast})).to_string(), INVALID).await;
    s.finish().await;
}

#[tokio::test]
async fn duplicate_claim_is_401() {
    let s = Service::start(by_jwt()).await;
    let base = claims(&json!({})).to_string();
    let open = base.trim_end_matches('}');
    for more in [
        "\"sub\":\"admin\"",
        "\"sub\":\"ann\"",
        "\"s\\u0075b\":\"admin\"",
        "\"exp\":9999999999",
        "\"e\\u0078p\":1",
        "\"aud\":\"our-app\"",
        "\"iss\":\"https://issuer.example\"",
        "\"email\":\"a\",\"email\":\"b\"",
        "\"a\":{\"b\":1,\"b\":1}",
        "\"a\":[{\"b\":1,\"\\u0062\":1}]",
        "\"\":1,\"\":1",
        "\"nbf\":1,\"nbf\":1",
    ] {
        ask(&s, format!("{open},{more}}}"), INVALID).await;
        ask(&s, format!("{{{more},{}", &base[1..]), INVALID).await;
    }
    // Claim names that only look like `sub` do not count as duplicates.
    ask(
        &s,
        format!("{open},\"Sub\":\"x\",\"sub \":\"x\",\"\\u0455ub\":\"x\"}}"),
        &["200"],
    )
    .await;
    s.finish().await;
}

#[tokio::test]
async fn subject_of_an_unsupported_type_is_401() {
    let s = Service::start(by_jwt()).await;
    for (sub, want) in [
        (json!(7), &["200"][..]),
        (json!(true), INVALID),
        (json!(false), INVALID),
        (json!({}), INVALID),
        (json!({"id": 1}), INVALID),
        (json!([]), INVALID),
        (json!(["ann"]), INVALID),
        (json!(null), NO_SESSION),
        (json!(""), INVALID),
        (json!(" "), INVALID),
        (json!(0), NO_SESSION),
        (json!(1.5), INVALID),
    ] {
        ask(&s, claims(&json!({"sub": sub})).to_string(), want).await;
    }
    let mut all = claims(&json!({}));
    all.as_object_mut().expect("claims").remove("sub");
    ask(&s, all.to_string(), NO_SESSION).await;
    s.finish().await;
}

#[tokio::test]
async fn time_claim_as_a_date_string_is_401() {
    let s = Service::start(by_jwt()).await;
    let date = format!("Mon, {}21 Nov 2026 00:00:00 GMT", "(".repeat(2000));
    for name in ["exp", "nbf", "iat"] {
        ask(&s, with_text(name, &format!("\"{date}\"")), INVALID).await;
    }
    ask(
        &s,
        with_text("updated_at", &format!("\"{date}\"")),
        &["200"],
    )
    .await;
    s.finish().await;
}

#[tokio::test]
async fn deeply_nested_payload_is_401() {
    let s = Service::start(by_jwt()).await;
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        for depth in [10, 100, 126, 127, 128, 129, 1000, 2500] {
            let whole = with_text(
                "x",
                &format!("{}1{}", open.repeat(depth), close.repeat(depth)),
            );
            if whole.len() < 5500 {
                ask(&s, whole, if depth < 127 { &["200"] } else { INVALID }).await;
            }
            let half = with_text("x", &open.repeat(depth));
            if half.len() < 20_000 {
                ask(&s, half, INVALID).await;
            }
        }
    }
    s.finish().await;
}

#[tokio::test]
async fn malformed_or_non_object_payload_is_401() {
    let s = Service::start(by_jwt()).await;
    let good = claims(&json!({})).to_string();
    let with = |before: &[u8], after: &[u8]| [before, good.as_bytes(), after].concat();
    for payload in [
        with(b"\xef\xbb\xbf", b""),
        with(b"", b"x"),
        with(b"", b"{}"),
        with(b"", b"\0"),
        with(b"[", b"]"),
        b"".to_vec(),
        b"5".to_vec(),
        b"\"sub\"".to_vec(),
        b"null".to_vec(),
        b"[]".to_vec(),
        b"{".to_vec(),
        with_text("sub", "\"\\ud800\"").into_bytes(),
        with_text("sub", "\"\\udc00\\ud800\"").into_bytes(),
        good.replace("ann", "a\u{1}n").into_bytes(),
        with(b"//x\n", b""),
        good.replace("\"ann\"", "'ann'").into_bytes(),
        good.replace('}', ",}").into_bytes(),
        [&good.as_bytes()[..good.len() - 1], b",\"x\":\"\xff\"}"].concat(),
        [b"{\"sub\":\"\xc3\x28\",", &good.as_bytes()[1..]].concat(),
        good.encode_utf16().flat_map(u16::to_le_bytes).collect(),
    ] {
        ask(&s, payload, INVALID).await;
    }
    ask(&s, with(b" \n\t", b" \r\n"), &["200"]).await;
    s.finish().await;
}

#[tokio::test]
async fn token_times_follow_the_clock_after_it_steps_back_or_forward() {
    let t = Timed::start(by_jwt().with("log.level = 'info'"), Clocks::Wall).await;
    let s = &t.service;
    let ask = async |label: &str, over: Value, want: &[&str]| {
        s.expect(label, &post(&bearer(&hs256(&over))), want).await
    };
    ask("before", json!({}), &["200"]).await;
    for shift in [-3600, 0, 7200, -86_400, 0] {
        t.ahead(shift).await;
        let there = now() + shift;
        ask(
            "then",
            json!({"iat": there - 99, "exp": there - 31}),
            EXPIRED,
        )
        .await;
        ask(
            "ahead",
            json!({"iat": there + 33, "exp": there + 99}),
            INVALID,
        )
        .await;
        let answer = ask("now", json!({"iat": there, "exp": there + 99}), &["200"]).await;
        let issued = minted(&answer.json())["iat"].as_i64().expect("iat");
        assert!(
            (there..=there + 2).contains(&issued),
            "iat is {issued}, but the clock was at {there}"
        );
    }
    s.finish().await;
}
