//! Tests of the response to a signed-in user, and of the token's claims.

use reqwest::Method;
use serde_json::json;

use crate::helpers::{BY_HEADER, BY_JWT, CLIENT_ID, NOW, Service, answer, session_token, verified};

#[tokio::test]
async fn valid_session_is_200_with_the_documented_answer() {
    let service = Service::start(BY_JWT);
    let response = service
        .post()
        .bearer_auth(session_token(json!({})))
        .send()
        .await
        .unwrap();
    let headers = response.headers().clone();
    assert_eq!(headers["content-type"], "application/json");
    for (name, value) in [
        ("cache-control", "no-store"),
        ("pragma", "no-cache"),
        ("x-content-type-options", "nosniff"),
        ("vary", "Origin"),
    ] {
        assert_eq!(headers[name], value);
    }
    for absent in [
        "etag",
        "server",
        "set-cookie",
        "access-control-allow-origin",
        "content-encoding",
        "x-rollout-dev",
    ] {
        assert!(!headers.contains_key(absent), "{absent}");
    }
    let (status, body) = answer(response).await;
    assert_eq!(status, 200);
    let claims = json!({"iss": CLIENT_ID, "sub": "user-1", "iat": NOW, "exp": NOW + 900});
    assert_eq!(verified(&body), claims);
    let token = body["token"].clone();
    assert_eq!(
        body,
        json!({
            "token": token, "token_type": "Bearer",
            "expires_in": 900, "expires_at": NOW + 900, "refresh_in": 840,
        })
    );
}

#[tokio::test]
async fn session_in_a_cookie_is_200() {
    let service = Service::start(BY_JWT);
    let cookie = format!("_ga=1; session={}; broken; x=\"", session_token(json!({})));
    let (status, body) = service.ask(&[("cookie", &cookie)]).await;
    assert_eq!(
        (status.as_u16(), verified(&body)["sub"].clone()),
        (200, json!("user-1"))
    );
}

#[tokio::test]
async fn every_call_mints_a_token_with_the_full_ttl() {
    let service = Service::start(BY_JWT);
    let session = format!("Bearer {}", session_token(json!({})));
    for later in [0, 1, 299] {
        service.clock.set(NOW + later);
        let (_, body) = service.ask(&[("authorization", &session)]).await;
        let claims = verified(&body);
        assert_eq!(
            (claims["iat"].clone(), claims["exp"].clone()),
            (json!(NOW + later), json!(NOW + later + 900))
        );
    }
}

#[tokio::test]
async fn request_body_is_accepted_and_does_not_change_the_subject() {
    let service = Service::start(BY_HEADER);
    for (kind, body) in [
        ("application/json", "{\"sub\":\"admin\"}"),
        ("application/x-www-form-urlencoded", "sub=admin"),
        ("text/plain", "null"),
        ("multipart/form-data; boundary=x", "--x--"),
    ] {
        let request = service
            .post()
            .header("x-user", "ann")
            .header("content-type", kind)
            .body(body);
        let (status, body) = answer(request.send().await.unwrap()).await;
        assert_eq!(
            (status.as_u16(), verified(&body)["sub"].clone()),
            (200, json!("ann")),
            "{kind}"
        );
    }
    let request = service
        .request(Method::POST, "/rollout/token?sub=admin&callback=x")
        .header("x-user", "ann");
    let (_, body) = answer(request.send().await.unwrap()).await;
    assert_eq!(verified(&body)["sub"], "ann");
}

#[tokio::test]
async fn minted_token_contains_only_configured_session_claims() {
    let claims = "[token.claims.\"rollout.com\"]\nauthData = \"{org}\"\n[token.claims]\nEmail = \"{email}\"\n";
    let service = Service::start(format!("{claims}{BY_JWT}"));
    let session = session_token(json!({"org": {"id": 7}, "email": "a@b.example", "role": "admin"}));
    let (_, body) = service
        .ask(&[("authorization", &format!("Bearer {session}"))])
        .await;
    let got = verified(&body);
    assert_eq!(got["rollout.com"], json!({"authData": {"id": 7}}));
    assert_eq!(got["Email"], "a@b.example");
    assert_eq!(got.as_object().unwrap().len(), 6, "{got}");
}

#[tokio::test]
async fn ttl_and_cap_to_session_shorten_the_token_lifetime() {
    let service = Service::start(format!("[token]\nttl = \"2m\"\n{BY_JWT}"));
    let ask = |service: &Service, exp: i64| {
        let session = format!("Bearer {}", session_token(json!({"exp": exp})));
        let request = service.post().header("authorization", session);
        async { answer(request.send().await.unwrap()).await.1 }
    };
    let body = ask(&service, NOW + 60).await;
    assert_eq!(
        (body["expires_in"].clone(), body["refresh_in"].clone()),
        (json!(120), json!(60))
    );

    let capped = Service::start(format!("[token]\ncap_to_session = true\n{BY_JWT}"));
    let body = ask(&capped, NOW + 60).await;
    assert_eq!(
        (body["expires_in"].clone(), verified(&body)["exp"].clone()),
        (json!(60), json!(NOW + 60))
    );
    // Within the leeway the session is still valid, but a token capped to the session's expiry would have expired, so
    // the request is refused.
    assert_eq!(ask(&capped, NOW - 10).await["code"], "session_expired");
}

#[tokio::test]
async fn minted_token_is_not_accepted_as_a_session() {
    let service = Service::start(BY_JWT);
    let (_, body) = service
        .ask(&[(
            "authorization",
            &format!("Bearer {}", session_token(json!({}))),
        )])
        .await;
    let ours = format!("Bearer {}", body["token"].as_str().unwrap());
    let (status, body) = service.ask(&[("authorization", &ours)]).await;
    assert_eq!(
        (status.as_u16(), body["code"].clone()),
        (401, json!("session_invalid"))
    );
}

#[tokio::test]
async fn clock_before_2020_is_500_and_readyz_names_the_cause() {
    let service = Service::start(BY_HEADER);
    for (now, minted) in [
        (100, false),
        (1_577_836_799, false),
        (1_577_836_800, true),
        (NOW, true),
    ] {
        service.clock.set(now);
        let (status, body) = service.ask(&[("x-user", "ann")]).await;
        let ready = service
            .request(reqwest::Method::GET, "/readyz")
            .send()
            .await
            .unwrap();
        let (ready_status, ready) = answer(ready).await;
        if minted {
            assert_eq!(
                (status.as_u16(), ready_status.as_u16()),
                (200, 200),
                "{now}"
            );
            assert_eq!(verified(&body)["iat"], now);
        } else {
            assert_eq!(
                (status.as_u16(), body["code"].as_str()),
                (500, Some("internal")),
                "{now}"
            );
            assert_eq!(
                (ready_status.as_u16(), ready["state"].as_str()),
                (500, Some("clock_not_set")),
                "{now}"
            );
        }
    }
}
