//! Several extractors in a chain: the first that finds a credential decides.

use serde_json::json;

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

#[tokio::test]
async fn absent_credential_falls_through_and_an_invalid_one_does_not() {
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
        match want {
            Ok(subject) => assert_eq!(verified(&body)["sub"], subject, "{case}"),
            Err(code) => assert_eq!(
                (status.as_u16(), &body["code"]),
                (401, &json!(code)),
                "{case}"
            ),
        }
    }
}

#[tokio::test]
async fn first_present_credential_source_decides() {
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
async fn two_cookies_of_one_name_are_session_invalid() {
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
