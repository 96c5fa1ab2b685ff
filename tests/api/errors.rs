//! Tests of refusals: their status, code and headers, and that their body contains no internal details.

use reqwest::Method;
use serde_json::json;

use crate::helpers::{BY_HEADER, BY_JWT, NOW, Service, client, refused, session_token};

#[tokio::test]
async fn absent_expired_and_invalid_sessions_have_different_codes() {
    let service = Service::start(BY_JWT);
    let expired = session_token(json!({"exp": NOW - 30}));
    let wrong = format!("{}x", session_token(json!({})));
    for (case, session, code, challenge) in [
        (
            "none",
            None,
            "no_session",
            r#"Bearer realm="rollout-token""#,
        ),
        (
            "expired",
            Some(&expired),
            "session_expired",
            r#"Bearer realm="rollout-token", error="invalid_token""#,
        ),
        (
            "wrong",
            Some(&wrong),
            "session_invalid",
            r#"Bearer realm="rollout-token", error="invalid_token""#,
        ),
    ] {
        let request = session.iter().fold(service.post(), |request, session| {
            request.bearer_auth(session)
        });
        let response = request.send().await.unwrap();
        assert_eq!(response.headers()["www-authenticate"], challenge, "{case}");
        assert_eq!(refused(response).await, (401, code.to_owned()), "{case}");
    }
}

#[tokio::test]
async fn unknown_path_is_404_and_unsupported_method_is_405() {
    let service = Service::start(BY_HEADER);
    for path in [
        "/",
        "/x",
        "/rollout",
        "/rollout/token/",
        "/ROLLOUT/token",
        "/rollout/token;a",
        "/rollout%2ftoken",
        "/rollout/%74oken",
        "//rollout/token",
        "/rollout/token/x.css",
        "/rollout-token",
        "/metrics",
        "/debug",
        "/config",
    ] {
        let raw =
            format!("POST {path} HTTP/1.1\r\nHost: a\r\nX-User: ann\r\nConnection: close\r\n\r\n");
        let answer = service.raw(raw.as_bytes()).await;
        assert!(
            answer.starts_with("HTTP/1.1 404") && answer.contains("\"not_found\""),
            "{path}: {answer}"
        );
        assert!(answer.contains("cache-control: no-store"), "{path}");
    }
    for method in ["GET", "PUT", "DELETE", "PATCH", "TRACE", "post", "QUERY"] {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let response = service
            .request(method.clone(), "/rollout/token")
            .send()
            .await
            .unwrap();
        assert_eq!(response.headers()["allow"], "POST, OPTIONS", "{method}");
        assert_eq!(
            refused(response).await,
            (405, "method_not_allowed".to_owned()),
            "{method}"
        );
    }
    let head = service
        .request(Method::HEAD, "/rollout/token")
        .send()
        .await
        .unwrap();
    assert_eq!(
        (
            head.status().as_u16(),
            head.headers()["allow"].to_str().unwrap()
        ),
        (405, "POST, OPTIONS")
    );
    let post = service
        .request(Method::POST, "/healthz")
        .send()
        .await
        .unwrap();
    assert_eq!(refused(post).await, (405, "method_not_allowed".to_owned()));
}

#[tokio::test]
async fn too_many_or_too_large_headers_are_431_with_the_limit_and_the_number_found() {
    let service = Service::start(BY_HEADER);
    let many = |count: usize| {
        (0..count)
            .map(|n| format!("X-{n}: y\r\n"))
            .collect::<String>()
    };
    let large = format!("X: {}\r\n", "y".repeat(33 * 1024));
    let very_large = format!("X: {}\r\n", "y".repeat(64 * 1024));
    for (headers, detail) in [
        (
            many(99),
            "The request has 101 headers, and server.max_headers is 100.",
        ),
        (
            many(150),
            "The request has at least 152 headers, and server.max_headers is 100.",
        ),
        (
            large,
            "The request's headers have 33825 bytes, and server.max_header_bytes is 32768.",
        ),
        (very_large, "bytes, and server.max_header_bytes is 32768."),
    ] {
        let asked = format!(
            "POST /rollout/token HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{headers}\r\n"
        );
        let answer = service.raw(asked.as_bytes()).await;
        assert!(
            answer.starts_with("HTTP/1.1 431") && answer.contains(detail),
            "{answer}"
        );
    }
    let hundred = format!(
        "POST /rollout/token HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{}\r\n",
        many(98)
    );
    let answer = service.raw(hundred.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
}

#[tokio::test]
async fn token_route_on_the_admin_listener_is_404() {
    let service = Service::start(BY_JWT);
    for path in ["/rollout/token", "/rollout-token"] {
        let request = client().post(format!("http://{}{path}", service.admin));
        let response = request
            .bearer_auth(session_token(json!({})))
            .send()
            .await
            .unwrap();
        assert_eq!(
            refused(response).await,
            (404, "not_found".to_owned()),
            "{path}"
        );
    }
}

#[tokio::test]
async fn method_override_header_does_not_change_the_method() {
    let service = Service::start(BY_HEADER);
    let request = service.request(Method::GET, "/rollout/token?_method=POST");
    let response = request
        .header("x-http-method-override", "POST")
        .header("x-user", "ann")
        .send()
        .await
        .unwrap();
    assert_eq!(refused(response).await.0, 405);
}

#[tokio::test]
async fn valid_request_id_of_the_caller_is_kept_and_an_invalid_one_is_replaced() {
    let service = Service::start(BY_HEADER);
    for (sent, kept) in [
        ("abc-1.2_3", true),
        ("a b", false),
        ("<script>", false),
        (&"x".repeat(65)[..], false),
    ] {
        let response = service
            .post()
            .header("x-request-id", sent)
            .send()
            .await
            .unwrap();
        assert_eq!(response.headers()["x-request-id"] == sent, kept, "{sent}");
        refused(response).await;
    }
}

#[tokio::test]
async fn error_body_contains_no_request_text_and_no_internal_names() {
    let service = Service::start(BY_JWT);
    let sentinel = "SENTINEL-5c1b";
    for (name, value) in [
        (
            "authorization",
            format!("Bearer {sentinel}.{sentinel}.{sentinel}"),
        ),
        ("cookie", format!("session={sentinel}")),
        ("origin", format!("https://{sentinel}.example")),
        ("x-request-id", format!("{sentinel} ")),
        ("host", format!("{sentinel}:80@evil")),
    ] {
        let raw = format!(
            "POST /rollout/token HTTP/1.1\r\nHost: a\r\n{name}: {value}\r\nConnection: close\r\n\r\n"
        );
        let answer = service.raw(raw.as_bytes()).await;
        let answer = answer
            .replace(&format!("x-request-id: {sentinel}"), "")
            .replace(&format!("\"{sentinel}\""), "");
        assert!(!answer.contains(sentinel), "{name}: {answer}");
        for word in ["jsonwebtoken", "serde", "hyper", "axum", "extractor", "web"] {
            assert!(!answer.contains(word), "{name}: {word} in {answer}");
        }
    }
}

#[tokio::test]
async fn panicking_extractor_is_500_and_the_next_request_is_served() {
    use axum::http::request::Parts;
    use futures_util::future::BoxFuture;
    use rollout_token::config::{Problems, Section};
    use rollout_token::session::Kind;
    use rollout_token::session::backends::Context;
    use rollout_token::session::registry::Registry;
    use rollout_token::session::types::{Extracted, Session, SessionExtractor};
    use std::sync::Arc;

    #[derive(Debug)]
    struct Fragile;
    impl SessionExtractor for Fragile {
        fn extract<'a>(&'a self, request: &'a Parts) -> BoxFuture<'a, Extracted> {
            assert!(
                !request.headers.contains_key("x-break"),
                "broken on purpose"
            );
            Box::pin(async { Ok(Some(Session::of_subject("ann"))) })
        }
    }
    fn build(_: &Section<'_>, _: &Context) -> Result<Arc<dyn SessionExtractor>, Problems> {
        Ok(Arc::new(Fragile))
    }

    let registry = Registry::builtin().with("fragile", Kind::new(build));
    let service = Service::with("[session]\nextractors = [\"fragile\"]", registry, false);
    let response = service.post().header("x-break", "1").send().await.unwrap();
    assert_eq!(refused(response).await, (500, "internal".to_owned()));
    assert_eq!(service.ask(&[]).await.0, 200);
    assert!(
        service
            .metrics()
            .await
            .contains("rollout_token_in_flight 0")
    );
}
