//! The service trusts the user header that the proxy sets, but not one that a caller sends. Proxies cache no response.

use crate::binary::FAR;
use crate::helpers::{answer, client, sign_session, verified};
use crate::proxy::{Proxy, free_address, haproxy_to, nginx_to, start_service};

/// Headers that a caller sends to impersonate another user, or to make the proxy drop its own header.
const ATTEMPTS: [(&str, &str); 8] = [
    ("x-forwarded-user", "admin"),
    ("X_Forwarded_User", "admin"),
    ("x_forwarded-user", "admin"),
    ("X-FORWARDED-USER", "admin"),
    ("connection", "x-forwarded-user"),
    ("connection", "close, X-Forwarded-User"),
    ("x-remote-user", "admin"),
    ("x-original-url", "/healthz"),
];

#[tokio::test]
async fn user_header_from_a_caller_is_ignored_or_refused_behind_a_proxy() {
    let address = free_address();
    let _service = start_service(address);
    let named = "proxy_set_header X-Forwarded-User bob;";
    for (what, proxy) in [
        ("nginx", Proxy::nginx(&nginx_to(&[address], named))),
        // By default, nginx does not forward headers whose names contain underscores.
        (
            "nginx with underscores",
            Proxy::nginx(&format!(
                "underscores_in_headers on; {}",
                nginx_to(&[address], named)
            )),
        ),
        (
            "HAProxy",
            Proxy::haproxy(&haproxy_to(
                &[address],
                "http-request set-header X-Forwarded-User bob",
            )),
        ),
    ] {
        let ask = |name: &str, value: &str| {
            client()
                .post(proxy.url("/rollout/token"))
                .header(name, value)
                .send()
        };
        let (status, body) = answer(ask("accept", "*/*").await.unwrap()).await;
        assert_eq!(
            (status.as_u16(), &verified(&body)["sub"]),
            (200, &"bob".into()),
            "{what}"
        );
        for (name, value) in ATTEMPTS {
            let (status, body) = answer(ask(name, value).await.unwrap()).await;
            match status.as_u16() {
                200 => assert_eq!(verified(&body)["sub"], "bob", "{what}, {name}: {value}"),
                401 => {}
                other => panic!("{what}, {name}: {value} has the unexpected status {other}"),
            }
        }
        // Only nginx with its default settings drops the header with underscores. Behind the other proxies, the service
        // receives both spellings of the header, and refuses the request.
        if what != "nginx" {
            let (status, body) = answer(ask("X_Forwarded_User", "admin").await.unwrap()).await;
            assert_eq!(
                (status.as_u16(), body["code"].as_str()),
                (401, Some("session_invalid")),
                "{what}"
            );
        }
    }
}

#[tokio::test]
async fn token_answer_is_never_cached_by_the_proxy() {
    let address = free_address();
    let _service = start_service(address);
    // Both proxies are configured to cache as much as the responses' headers allow.
    let nginx = nginx_to(
        &[address],
        "proxy_cache answers;
        proxy_cache_methods GET HEAD POST;
        proxy_cache_key $uri;
        proxy_cache_valid any 10m;
        add_header X-Cache $upstream_cache_status;",
    );
    let haproxy = haproxy_to(
        &[address],
        "http-request cache-use answers
            http-response cache-store answers
            http-response set-header X-Cache HIT if !{ srv_id -m found }",
    );
    let haproxy =
        format!("cache answers\n total-max-size 4\n max-age 600\n process-vary on\n{haproxy}");
    for (what, proxy) in [
        ("nginx", Proxy::nginx(&nginx)),
        ("HAProxy", Proxy::haproxy(&haproxy)),
    ] {
        for round in 0..3 {
            for path in [
                "/rollout-token",
                "/rollout/token",
                "/rollout/token/x.css",
                "/healthz",
            ] {
                for user in ["ann", "bob"] {
                    let session = sign_session(&serde_json::json!({"sub": user, "exp": FAR}));
                    let method = if path == "/rollout/token" {
                        reqwest::Method::POST
                    } else {
                        reqwest::Method::GET
                    };
                    let response = client()
                        .request(method, proxy.url(path))
                        .bearer_auth(session)
                        .send()
                        .await
                        .unwrap();
                    let headers = response.headers().clone();
                    assert_eq!(headers["cache-control"], "no-store", "{what}, {path}");
                    assert_ne!(
                        headers.get("x-cache").map(|value| value.as_bytes()),
                        Some(&b"HIT"[..]),
                        "{what}, {path}, {round}"
                    );
                    if response.status() == 200 && path != "/healthz" {
                        assert_eq!(
                            verified(&response.json().await.unwrap())["sub"],
                            user,
                            "{what}, {path}, {round}"
                        );
                    }
                }
            }
        }
    }
}
