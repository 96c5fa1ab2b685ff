//! Tests of a chain of several extractors: the first extractor that finds a credential of its kind decides.

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::helpers::{BY_JWT, NOW, Service, session_token, verified};
use crate::settings::ConfigBuilder;

/// [`BY_JWT`] with a second section, which reads another header.
fn two() -> ConfigBuilder {
    let second = r#"
        session.extractors = ["web", "second"]
        [extractors.second]
        kind = "jwt"
        from = ["header:x-second"]
        secret = "session-secret-session-secret-session-secret"
        algorithms = ["HS256"]
        allow_any_audience = true
        subject = "second:{sub}"
    "#;
    ConfigBuilder::new(BY_JWT).with(second)
}

/// Checks that the answer has a token for the subject, or is 401 with the code.
#[track_caller]
fn assert_answer(status: StatusCode, body: &Value, want: Result<&str, &str>, case: &str) {
    match want {
        Ok(subject) => assert_eq!(verified(body)["sub"], subject, "{case}"),
        Err(code) => assert_eq!(
            (status.as_u16(), &body["code"]),
            (401, &json!(code)),
            "{case}"
        ),
    }
}

#[tokio::test]
async fn absent_credential_falls_through_to_the_next_extractor_and_an_invalid_one_does_not() {
    let service = Service::start(two());
    let good = session_token(json!({}));
    let expired = session_token(json!({"exp": NOW - 3600}));
    for (case, first, second, want) in [
        ("only the second", None, Some(&good), Ok("second:user-1")),
        ("both", Some(&good), Some(&good), Ok("user-1")),
        (
            "first expired",
            Some(&expired),
            Some(&good),
            Err("session_expired"),
        ),
        (
            "first broken",
            Some(&"x.y.z".to_owned()),
            Some(&good),
            Err("session_invalid"),
        ),
        (
            "second expired",
            None,
            Some(&expired),
            Err("session_expired"),
        ),
        ("none", None, None, Err("no_session")),
    ] {
        let mut request = service.post();
        request = first
            .iter()
            .fold(request, |request, token| request.bearer_auth(token));
        request = second.iter().fold(request, |request, token| {
            request.header("x-second", token.as_str())
        });
        let (status, body) = crate::helpers::answer(request.send().await.unwrap()).await;
        assert_answer(status, &body, want, case);
    }
}

#[tokio::test]
async fn credential_from_the_first_listed_source_decides() {
    let service = Service::start(BY_JWT);
    let (good, bad) = (session_token(json!({})), "broken");
    let ask = |bearer: &str, cookie: &str| {
        let headers = [
            ("authorization", format!("Bearer {bearer}")),
            ("cookie", format!("session={cookie}")),
        ];
        let request = headers
            .into_iter()
            .fold(service.post(), |request, (name, value)| {
                request.header(name, value)
            });
        async { request.send().await.unwrap().status().as_u16() }
    };
    assert_eq!(ask(&good, bad).await, 200);
    assert_eq!(ask(bad, &good).await, 401);
}

#[tokio::test]
async fn two_cookies_with_one_name_and_different_values_are_session_invalid() {
    let service = Service::start(BY_JWT);
    let good = session_token(json!({}));
    for cookie in [
        format!("session={good}; session=x"),
        format!("session=x; session={good}"),
    ] {
        assert_eq!(
            service.ask(&[("cookie", &cookie)]).await.1["code"],
            "session_invalid"
        );
    }
    let one = format!("session={good}");
    assert_eq!(
        service
            .ask(&[("cookie", &one), ("cookie", "session=x")])
            .await
            .1["code"],
        "session_invalid"
    );
}

/// The sealed h3 session in the header or cookie of a case in `tests/vectors/iron-raw.json`.
fn h3_seal(case: &str) -> String {
    let text = include_str!("../vectors/iron-raw.json");
    let vectors: Value = serde_json::from_str(text).expect("JSON");
    let cases = vectors["cases"].as_array().expect("cases");
    let case = cases.iter().find(|it| it["name"] == case).expect("a case");
    let request = &case["request"];
    let places = [
        &request["headers"]["x-nuxt-session-session"],
        &request["cookies"]["nuxt-session"],
        &request["cookies"]["h3"],
    ];
    let seal = places.into_iter().find_map(Value::as_str);
    seal.expect("a seal").to_owned()
}

const BY_H3: &str = r#"
    [session]
    extractors = ["h3"]
    [extractors.h3]
    kind = "iron_session"
    version = "raw"
    cookie = "nuxt-session"
    password = "public-raw-password-0123456789abcdef-one"
    subject = "{data.user.id}"
    expires_path = { createdAt = "1d", lastSeenAt = "30m" }
    [token]
    cap_to_session = true
    ttl = "15m"
    [origins]
    allowed = ["https://app.example", "https://*-team.vercel.app"]
"#;

/// The time at which the h3 sessions in the vectors were sealed.
const SEALED_AT: i64 = 1_795_568_000;

#[tokio::test]
async fn h3_session_header_takes_precedence_over_session_cookies() {
    let service = Service::start(BY_H3);
    service.clock.set(SEALED_AT + 60);
    let header = h3_seal("h3-v1-header");
    let guest = h3_seal("h3-v1-header-guest-beside-cookie");
    let other = format!("nuxt-session={}", h3_seal("h3-v2-both"));
    let two = "nuxt-session=a; nuxt-session=b";
    let name = "x-nuxt-session-session";
    for (case, headers, want) in [
        (
            "two cookies",
            vec![(name, &*header), ("cookie", two)],
            Ok("u-51"),
        ),
        (
            "two cookies alone",
            vec![("cookie", two)],
            Err("session_invalid"),
        ),
        (
            "an empty header",
            vec![(name, ""), ("cookie", &*other)],
            Ok("u-51"),
        ),
        (
            "a guest",
            vec![(name, &*guest), ("cookie", &other)],
            Err("no_session"),
        ),
        (
            "two seals",
            vec![(name, &header), (name, &header)],
            Err("session_invalid"),
        ),
        (
            "bytes",
            vec![(name, "Fe26.2*\u{e9}"), ("cookie", &other)],
            Err("session_invalid"),
        ),
        (
            "a page of any deployment",
            vec![("origin", "https://x-team.vercel.app"), (name, &header)],
            Err("no_session"),
        ),
    ] {
        let (status, body) = service.ask(&headers).await;
        assert_answer(status, &body, want, case);
    }
}

#[tokio::test]
async fn token_expires_with_the_earlier_of_two_session_expiry_times() {
    let service = Service::start(BY_H3);
    let cookie = format!("nuxt-session={}", h3_seal("h3-v2-both"));
    for (after, want) in [
        (60, Ok(900)),
        (1740, Ok(60)),
        (1801, Err("session_expired")),
        (90_000, Err("session_expired")),
    ] {
        service.clock.set(SEALED_AT + after);
        let (_, body) = service.ask(&[("cookie", &cookie)]).await;
        match want {
            Ok(seconds) => assert_eq!(body["expires_in"], seconds, "{after}: {body}"),
            Err(code) => assert_eq!(body["code"], code, "{after}"),
        }
    }
}
