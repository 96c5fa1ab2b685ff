//! Groups D, M and O: what stands in a token's claims, who that is, and what is minted from it.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::Group;
use crate::a_framing::BY_JWT;
use crate::c_tokens::refuses;
use crate::clock::{Clocks, Timed};
use crate::report::SESSION_SECRET;
use crate::service::Service;
use crate::tokens::{AUDIENCE, HS256, ISSUER, claims, hs256, hs256_raw, hs256_text, minted, now};
use crate::wire::{bearer, post};

const INVALID: &[&str] = &["401 session_invalid"];
const EXPIRED: &[&str] = &["401 session_expired"];
const NOBODY: &[&str] = &["401 no_session"];

pub async fn group() -> Group {
    let s = Service::start(BY_JWT).await;
    let mut group = Group::new("D", Some(s.clone()));
    group.quick("D1 exp missing or of another type", d1(s.clone()));
    group.quick("D2 exp of every size", d2(s.clone()));
    group.quick("D3 exp as text", d3(s.clone()));
    group.quick("D4 the last second of the leeway", d4(s.clone()));
    group.quick("D5 nbf and iat ahead", d5(s.clone()));
    group.quick("D6 nbf of another type", d6(s.clone()));
    group.quick("D7 exp with a fraction", d7(s.clone()));
    group.quick("D8 exp far away", d8(s.clone()));
    group.quick("D9 another issuer", d9(s.clone()));
    group.quick("D10 another audience", d10(s.clone()));
    group.quick("D11 a claim twice", d11(s.clone()));
    group.quick("D13 sub of every type", d13(s.clone()));
    group.quick("D14 dates that are no numbers", d14(s.clone()));
    group.quick("D15 a deep payload", d15(s.clone()));
    group.quick("D16 a payload that is no object", d16(s.clone()));
    group.quick("D17 the clock steps back", d17());
    group.quick("M7 subjects that look alike", m7(s.clone()));
    group.quick("M10 numbers as subjects", m10());
    group.quick("M12 subjects with a meaning elsewhere", m12(s.clone()));
    group.quick("M7+ subjects that cannot be seen", hygiene(s.clone()));
    group.quick("O6 claims inside of a subject", o6(s.clone()));
    group.quick("O8 only configured claims", o8());
    group.quick("O11 one session a thousand times", o11());
    group
}

async fn ask(s: &Service, payload: impl AsRef<[u8]>, want: &[&str]) {
    let label = String::from_utf8_lossy(payload.as_ref()).chars().take(200).collect::<String>();
    s.expect(&label, &post(&bearer(&hs256_text(payload))), want).await;
}

/// Good claims in which one has this text for a value.
fn with_text(name: &str, value: &str) -> String {
    let mut all = claims(&json!({}));
    all.as_object_mut().expect("claims").remove(name);
    let text = all.to_string();
    format!("{},\"{name}\":{value}}}", text.trim_end_matches('}'))
}

async fn d1(s: Arc<Service>) {
    let mut all = claims(&json!({}));
    all.as_object_mut().expect("claims").remove("exp");
    ask(&s, all.to_string(), INVALID).await;
    for value in ["null", "\"x\"", "true", "false", "[]", "{}", "[1795566737]", "\"\"", "{\"$date\":1}"] {
        ask(&s, with_text("exp", value), INVALID).await;
    }
}

async fn d2(s: Arc<Service>) {
    for value in ["-1", "0", "1", "-1e18", "-9223372036854775808", "0.0", "-0", "1e0", "1e-400", "-1e300"] {
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
        ask(&s, with_text("exp", value), &["401 session_invalid", "401 session_expired"]).await;
    }
    ask(&s, with_text("exp", "253402300799"), &["200"]).await;
}

async fn d3(s: Arc<Service>) {
    for value in
        [format!("\"{}\"", now() + 600), format!("\"{}.5\"", now() + 600), format!("\" {} \"", now() + 600)]
    {
        ask(&s, with_text("exp", &value), INVALID).await;
    }
}

/// Waits for the beginning of a second.
async fn next_second() -> i64 {
    let before = now();
    while now() == before {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    now()
}

async fn d4(s: Arc<Service>) {
    let now = next_second().await;
    ask(&s, with_text("exp", &(now - 31).to_string()), EXPIRED).await;
    ask(&s, with_text("exp", &(now - 30).to_string()), EXPIRED).await;
    ask(&s, with_text("exp", &(now - 28).to_string()), &["200"]).await;
    ask(&s, with_text("exp", &(now - 1).to_string()), &["200"]).await;
}

async fn d5(s: Arc<Service>) {
    let now = next_second().await;
    for name in ["nbf", "iat", "auth_time"] {
        ask(&s, with_text(name, &(now + 32).to_string()), INVALID).await;
        ask(&s, with_text(name, &(now + 30).to_string()), &["200"]).await;
        ask(&s, with_text(name, "1e300"), INVALID).await;
        ask(&s, with_text(name, "9223372036854775807"), INVALID).await;
        ask(&s, with_text(name, "18446744073709551615"), INVALID).await;
        ask(&s, with_text(name, "-1"), &["200"]).await;
    }
}

async fn d6(s: Arc<Service>) {
    for name in ["nbf", "iat"] {
        for value in ["\"1\"", "{}", "[]", "true", "null", "\"\""] {
            ask(&s, with_text(name, value), INVALID).await;
        }
    }
}

async fn d7(s: Arc<Service>) {
    // RFC 7519, section 2 allows fractions: the whole second counts.
    ask(&s, with_text("exp", &format!("{}.9", now() + 60)), &["200"]).await;
    ask(&s, with_text("exp", "1795566737.9e-2"), EXPIRED).await;
}

async fn d8(s: Arc<Service>) {
    // There is no longest session: the token of ours lives 15 minutes in any case.
    let answer = s.one(&post(&bearer(&hs256(&json!({"exp": now() + 400 * 86_400}))))).await;
    let token = minted(&answer.json());
    assert!(token["exp"].as_i64().expect("exp") <= now() + 900);
    ask(&s, with_text("exp", &((now() + 600) * 1000).to_string()), INVALID).await;
}

async fn d9(s: Arc<Service>) {
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
}

async fn d10(s: Arc<Service>) {
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
    ask(&s, claims(&json!({"aud": ["other", AUDIENCE]})).to_string(), &["200"]).await;
    let mut all = claims(&json!({}));
    all.as_object_mut().expect("claims").remove("aud");
    ask(&s, all.to_string(), INVALID).await;
    // Ten thousand do not fit into a token that is taken.
    let vast: Vec<u8> = vec![1; 10_000];
    ask(&s, claims(&json!({"aud": vast})).to_string(), INVALID).await;
}

async fn d11(s: Arc<Service>) {
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
    // Names that only look the same are two names.
    ask(&s, format!("{open},\"Sub\":\"x\",\"sub \":\"x\",\"\\u0455ub\":\"x\"}}"), &["200"]).await;
}

async fn d13(s: Arc<Service>) {
    for (sub, want) in [
        (json!(7), &["200"][..]),
        (json!(true), INVALID),
        (json!(false), INVALID),
        (json!({}), INVALID),
        (json!({"id": 1}), INVALID),
        (json!([]), INVALID),
        (json!(["ann"]), INVALID),
        (json!(null), NOBODY),
        (json!(""), INVALID),
        (json!(" "), INVALID),
        (json!(0), NOBODY),
        (json!(1.5), INVALID),
    ] {
        ask(&s, claims(&json!({"sub": sub})).to_string(), want).await;
    }
    let mut all = claims(&json!({}));
    all.as_object_mut().expect("claims").remove("sub");
    ask(&s, all.to_string(), NOBODY).await;
}

async fn d14(s: Arc<Service>) {
    let date = format!("Mon, {}21 Nov 2026 00:00:00 GMT", "(".repeat(2000));
    for name in ["exp", "nbf", "iat"] {
        ask(&s, with_text(name, &format!("\"{date}\"")), INVALID).await;
    }
    ask(&s, with_text("updated_at", &format!("\"{date}\"")), &["200"]).await;
}

async fn d15(s: Arc<Service>) {
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        for depth in [10, 100, 126, 127, 128, 129, 1000, 2500] {
            let whole = with_text("x", &format!("{}1{}", open.repeat(depth), close.repeat(depth)));
            if whole.len() < 5500 {
                ask(&s, whole, if depth < 127 { &["200"] } else { INVALID }).await;
            }
            let half = with_text("x", &open.repeat(depth));
            if half.len() < 20_000 {
                ask(&s, half, INVALID).await;
            }
        }
    }
}

async fn d16(s: Arc<Service>) {
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
}

async fn d17() {
    let t = Timed::start(&BY_JWT.replace("trace", "info"), Clocks::Wall).await;
    let s = &t.service;
    let ask = async |label: &str, over: Value, want: &[&str]| {
        s.expect(label, &post(&bearer(&hs256(&over))), want).await
    };
    ask("before", json!({}), &["200"]).await;
    for shift in [-3600, 0, 7200, -86_400, 0] {
        t.ahead(shift).await;
        let there = now() + shift;
        ask("then", json!({"iat": there - 99, "exp": there - 31}), EXPIRED).await;
        ask("ahead", json!({"iat": there + 33, "exp": there + 99}), INVALID).await;
        let answer = ask("now", json!({"iat": there, "exp": there + 99}), &["200"]).await;
        let issued = minted(&answer.json())["iat"].as_i64().expect("iat");
        assert!((there..=there + 2).contains(&issued), "iat is {issued}, the clock said {there}");
    }
    s.finish().await;
}

async fn m7(s: Arc<Service>) {
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
        let answer = s.expect(sub, &post(&bearer(&hs256(&json!({"sub": sub})))), &["200"]).await;
        assert_eq!(answer.subject(), sub);
    }
}

async fn m10() {
    let s = Service::start(&BY_JWT.replace("kind =", "subject = \"{id}\"\nkind =")).await;
    for (number, subject) in [
        ("1", "1"),
        ("9007199254740993", "9007199254740993"),
        ("-1", "-1"),
        ("9223372036854775807", "9223372036854775807"),
        ("18446744073709551615", "18446744073709551615"),
        ("-9223372036854775808", "-9223372036854775808"),
    ] {
        let answer = s.expect(number, &post(&bearer(&hs256_text(with_text("id", number)))), &["200"]).await;
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
        ask(&s, with_text("id", number), &["401 no_session", "401 session_invalid"]).await;
    }
    s.finish().await;
}

async fn m12(s: Arc<Service>) {
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
        let answer = s.expect(sub, &post(&bearer(&hs256(&json!({"sub": sub})))), &["200"]).await;
        assert_eq!(answer.subject(), sub);
    }
}

async fn hygiene(s: Arc<Service>) {
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
    ask(&s, claims(&json!({"sub": "x".repeat(257)})).to_string(), INVALID).await;
    ask(&s, claims(&json!({"sub": "\u{e9}".repeat(129)})).to_string(), INVALID).await;
    ask(&s, claims(&json!({"sub": "x".repeat(256)})).to_string(), &["200"]).await;
}

async fn o6(s: Arc<Service>) {
    for sub in [
        "\",\"admin\":true,\"x\":\"",
        "\"}",
        "\\\",\"iss\":\"evil\"",
        "</script>",
        "a\",\"exp\":9999999999,\"b\":\"",
    ] {
        let answer = s.expect(sub, &post(&bearer(&hs256(&json!({"sub": sub})))), &["200"]).await;
        let token = minted(&answer.json());
        assert_eq!(token["sub"], sub);
        assert_eq!(token.as_object().expect("claims").len(), 4, "{token}");
    }
}

async fn o8() {
    let s = Service::start(&format!("{BY_JWT}\n[token.claims]\norg = \"{{org_id}}\"\n[token.claims.\"rollout.com\"]\nroles = \"{{roles}}\"\nfixed = true\n")).await;
    let session = json!({"org_id": "o-1", "roles": ["admin"], "email": "ann@example.com", "admin": true});
    let answer = s.expect("claims", &post(&bearer(&hs256(&session))), &["200"]).await;
    let token = minted(&answer.json());
    assert_eq!(
        (&token["org"], &token["rollout.com"]),
        (&json!("o-1"), &json!({"roles": ["admin"], "fixed": true}))
    );
    assert_eq!(token.as_object().expect("claims").len(), 6, "{token}");
    let twice = hs256_text(with_text("x", "1").replace("\"x\":1", "\"org_id\":\"a\",\"org_id\":\"b\""));
    s.expect("a claim twice", &post(&bearer(&twice)), INVALID).await;
    s.finish().await;
    for reserved in ["iss", "sub", "iat", "exp", "nbf"] {
        refuses(&format!("{BY_JWT}\n[token.claims]\n{reserved} = \"x\"\n"), "token.claims").await;
    }
}

async fn o11() {
    let s = Service::start(&BY_JWT.replace("rate_limit.per_minute = 0", "")).await;
    let asked = post(&bearer(&hs256(&json!({}))));
    let mut issued = 0;
    for _ in 0..1000 {
        let answer = s.expect("replay", &asked, &["200", "429 rate_limited"]).await;
        issued += u32::from(answer.status == 200);
    }
    assert!((20..=60).contains(&issued), "{issued} tokens");
    // Others are not touched, and neither does a forged session use up anybody's share.
    s.expect("another", &post(&bearer(&hs256(&json!({"sub": "bob"})))), &["200"]).await;
    for _ in 0..40 {
        let forged =
            hs256_raw(HS256, claims(&json!({"sub": "eve"})).to_string(), b"another key of some length");
        s.expect("forged", &post(&bearer(&forged)), INVALID).await;
    }
    let eve = hs256_raw(HS256, claims(&json!({"sub": "eve"})).to_string(), SESSION_SECRET.as_bytes());
    s.expect("eve", &post(&bearer(&eve)), &["200"]).await;
    s.finish().await;
}
