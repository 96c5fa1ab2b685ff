//! Tests which values of a session become the subject of a token.

use serde_json::{Value, json};

use crate::helpers::{BY_JWT, NOW, Service, session_token, sign_session};
use crate::settings::ConfigBuilder;

async fn subject_of(service: &Service, session: &str) -> Result<String, String> {
    let bearer = format!("Bearer {session}");
    let outcome = service.outcome(&[("authorization", &bearer)]).await;
    outcome.map_err(|(status, code)| {
        assert_eq!(status, 401);
        code
    })
}

#[tokio::test]
async fn subject_is_copied_into_the_token_byte_for_byte() {
    let service = Service::start(BY_JWT);
    for subject in [
        "Admin",
        "admin",
        "\u{131}stanbul",
        "\u{e9}",
        "e\u{301}",
        "\u{1f600}",
        " padded ",
        "a/b\"c\\d<e>",
        "__proto__",
        "constructor",
        "null",
        "undefined",
        "NaN",
        "auth0|5f7c",
        "\",\"admin\":true",
        &"x".repeat(256),
    ] {
        let got = subject_of(&service, &session_token(json!({"sub": subject}))).await;
        assert_eq!(got.as_deref(), Ok(subject));
    }
    for (number, text) in [
        (json!(1), "1"),
        (json!(9_007_199_254_740_993_u64), "9007199254740993"),
    ] {
        let got = subject_of(&service, &session_token(json!({"sub": number}))).await;
        assert_eq!(got.as_deref(), Ok(text));
    }
}

#[tokio::test]
async fn missing_subject_is_no_session_and_invalid_subject_is_session_invalid() {
    let service = Service::start(BY_JWT);
    assert_eq!(
        subject_of(&service, &session_token(json!({"sub": null})))
            .await
            .unwrap_err(),
        "no_session"
    );
    assert_eq!(
        subject_of(&service, &session_token(json!({"sub": 0})))
            .await
            .unwrap_err(),
        "no_session"
    );
    let without = sign_session(&json!({"exp": NOW + 600}));
    assert_eq!(
        subject_of(&service, &without).await.unwrap_err(),
        "no_session"
    );
    for subject in [
        json!(""),
        json!("   "),
        json!("\t"),
        json!(true),
        json!([]),
        json!({}),
        json!(["a"]),
        json!(1.0),
        json!(1e30),
        json!("a\u{0}b"),
        json!("a\nb"),
        json!("a\u{7f}"),
        json!("a\u{9b}"),
        json!("a\u{202e}b"),
        json!("a\u{200b}b"),
        json!("\u{feff}a"),
        json!("a\u{2066}b"),
        json!("x".repeat(257)),
    ] {
        let got = subject_of(&service, &session_token(json!({"sub": subject}))).await;
        assert_eq!(got, Err("session_invalid".to_owned()), "{subject:?}");
    }
}

#[tokio::test]
async fn subject_template_combines_several_claims() {
    let config = ConfigBuilder::new(BY_JWT)
        .with("extractors.web.subject = 'org:{/https:~1~1app~1org}/{user.id}'");
    let service = Service::start(config);
    let claims = json!({"https://app/org": 12, "user": {"id": "u-7"}});
    assert_eq!(
        subject_of(&service, &session_token(claims))
            .await
            .as_deref(),
        Ok("org:12/u-7")
    );
    let half: Value = json!({"https://app/org": 12, "user": {}});
    assert_eq!(
        subject_of(&service, &session_token(half))
            .await
            .unwrap_err(),
        "no_session"
    );
}
