//! Cross-origin and cross-site requests, and caching: only pages of allowed origins get tokens and can read responses.

use serde_json::json;

use crate::configs::{by_endpoint, by_jwt};
use crate::service::{Service, Setup};
use crate::tokens::hs256;
use crate::upstream::{Upstream, ok};
use crate::wire::{LISTED, bearer, post, request};

const FORBIDDEN: &[&str] = &["403 origin_not_allowed"];

fn page(origin: &str) -> Vec<u8> {
    post(&format!(
        "{}Origin: {origin}\r\n",
        bearer(&hs256(&json!({})))
    ))
}

#[tokio::test]
async fn listed_origin_is_echoed_exactly() {
    let web = Service::start(by_jwt()).await;
    let answer = web.expect("listed", &page(LISTED), &["200"]).await;
    assert_eq!(answer.header("access-control-allow-origin"), Some(LISTED));
    assert_eq!(
        answer.header("access-control-expose-headers"),
        Some("X-Request-Id, Retry-After")
    );
    web.finish().await;
}

#[tokio::test]
async fn unlisted_origin_is_403_before_any_backend_call() {
    let app = Upstream::start(ok("{\"sub\":\"ann\"}")).await;
    let s = Service::start(by_endpoint(app.port)).await;
    for headers in [
        "Origin: https://evil\r\n",
        "Sec-Fetch-Site: cross-site\r\n",
        "Origin: null\r\n",
    ] {
        s.expect(
            headers,
            &post(&format!("Cookie: sid=a\r\n{headers}")),
            FORBIDDEN,
        )
        .await;
    }
    assert_eq!(app.connections(), 0);
    s.expect(
        "listed",
        &post(&format!("Cookie: sid=a\r\nOrigin: {LISTED}\r\n")),
        &["200"],
    )
    .await;
    drop(app);
    s.finish().await;
}

#[tokio::test]
async fn null_or_malformed_origin_is_403() {
    let web = Service::start(by_jwt()).await;
    for headers in [
        "null",
        "null\r\nSec-Fetch-Site: cross-site",
        "null\r\nSec-Fetch-Site: none",
        "",
        "NULL",
        "undefined",
        "file://",
        "data:",
        "blob:https://app.example/x",
        "about:blank",
        "chrome-extension://abc",
    ] {
        web.expect(headers, &page(headers), FORBIDDEN).await;
    }
    // A same-origin page with `Referrer-Policy: no-referrer` sends `Origin: null`.
    let own = page("null\r\nSec-Fetch-Site: same-origin");
    let answer = web.expect("own page", &own, &["200"]).await;
    assert_eq!(answer.header("access-control-allow-origin"), None);
    for listed in ["null", "NULL", "https://app.example,null"] {
        let (code, text) = Setup::new(by_jwt())
            .env("ROLLOUT__ORIGINS__ALLOWED", Some(listed))
            .refusal()
            .await;
        assert!(code == 2 && text.contains("origins.allowed"), "{text}");
    }
    web.finish().await;
}

#[tokio::test]
async fn wildcard_or_malformed_allowed_origin_is_refused_at_start() {
    for listed in [
        "*",
        "https://*",
        "https://*.example",
        "https://app.example,*",
        "https://u:p@app.example",
        "https://app.example/path",
        "app.example",
        "ftp://app.example",
    ] {
        let (code, text) = Setup::new(by_jwt())
            .env("ROLLOUT__ORIGINS__ALLOWED", Some(listed))
            .refusal()
            .await;
        assert!(
            code == 2 && text.contains("origins.allowed") && !text.contains("panicked"),
            "{listed}: {text}"
        );
    }
}

#[tokio::test]
async fn look_alike_origin_is_403() {
    let web = Service::start(by_jwt()).await;
    for origin in [
        "https://app.example.evil",
        "https://evilapp.example",
        "https://app.example.com.evil",
        "https://evil/https://app.example",
        "https://app.examplé",
        "https://app.example%00.evil",
        "https://app.example@evil",
        "https://xn--pp-lia.example",
        "https://app-example",
        "https://appXexample",
        "https://app.example evil",
    ] {
        web.expect(origin, &page(origin), FORBIDDEN).await;
    }
    web.finish().await;
}

#[tokio::test]
async fn only_the_serialized_form_of_an_origin_matches() {
    let web = Service::start(by_jwt()).await;
    for origin in [
        "HTTPS://App.Example",
        "https://APP.example",
        "https://app.example.",
        "https://app.example:443",
        "https://app.example/",
        "https://app.example/x",
        "https://u@app.example",
        "https://app.example?",
        "https://app.example#",
        "https:app.example",
        "https:/app.example",
        "//app.example",
        "app.example",
    ] {
        web.expect(origin, &page(origin), FORBIDDEN).await;
    }
    for listed in ["HTTPS://App.Example:443/", "https://app.example/"] {
        let own = Service::start_with(
            &Setup::new(by_jwt()).env("ROLLOUT__ORIGINS__ALLOWED", Some(listed)),
        )
        .await;
        own.expect(listed, &page(LISTED), &["200"]).await;
        own.finish().await;
    }
    web.finish().await;
}

#[tokio::test]
async fn origin_with_another_scheme_port_or_host_is_403() {
    let web = Service::start(by_jwt()).await;
    // Behind a proxy that terminates TLS, the service cannot know its own scheme, so it accepts pages of its own host
    // with either scheme. With another Host, the page's origin must be listed exactly.
    for origin in [
        "http://app.example",
        "https://app.example:8443",
        "https://other.example",
        "https://sub.app.example",
        "https://example",
        "http://app.example:443",
        "wss://app.example",
    ] {
        let asked = String::from_utf8(page(origin))
            .expect("text")
            .replace("Host: app.example", "Host: token.example");
        web.expect(origin, asked.as_bytes(), FORBIDDEN).await;
    }
    web.finish().await;
}

#[tokio::test]
async fn request_with_two_origins_is_403() {
    let web = Service::start(by_jwt()).await;
    for headers in [
        format!("{LISTED}\r\nOrigin: {LISTED}"),
        format!("{LISTED}\r\nOrigin: https://evil"),
        format!("{LISTED}, {LISTED}"),
        format!("{LISTED} {LISTED}"),
        format!("{LISTED}, https://evil"),
        format!("https://evil\r\nOrigin: {LISTED}"),
    ] {
        web.expect(&headers, &page(&headers), FORBIDDEN).await;
    }
    web.finish().await;
}

#[tokio::test]
async fn preflight_is_allowed_for_listed_origins_only() {
    let web = Service::start(by_jwt()).await;
    let preflight = |origin: &str, more: &str| {
        request(
            "OPTIONS /rollout/token HTTP/1.1",
            &format!("Origin: {origin}\r\nAccess-Control-Request-Method: POST\r\n{more}"),
        )
    };
    let answer = web
        .expect(
            "good",
            &preflight(LISTED, "Access-Control-Request-Headers: authorization\r\n"),
            &["204"],
        )
        .await;
    assert_eq!(
        answer.header("access-control-allow-methods"),
        Some("POST, OPTIONS")
    );
    assert!(
        answer
            .header("access-control-max-age")
            .is_some_and(|age| age.parse::<u32>().is_ok_and(|age| age <= 7200))
    );
    assert!(
        answer
            .header("access-control-allow-headers")
            .is_some_and(|names| !names.contains('*'))
    );
    for origin in ["https://evil", "null", "https://app.example.evil"] {
        let answer = web.one(&preflight(origin, "")).await;
        assert!(
            matches!(answer.status, 204 | 403)
                && answer.header("access-control-allow-origin").is_none(),
            "{answer:?}"
        );
    }
    for more in [
        "Access-Control-Request-Headers: x-evil\r\n",
        "Access-Control-Request-Private-Network: true\r\n",
    ] {
        let answer = web.one(&preflight(LISTED, more)).await;
        assert!(
            !format!("{answer:?}").contains("evil")
                && answer
                    .header("access-control-allow-private-network")
                    .is_none()
        );
    }
    let other = request(
        "OPTIONS /rollout/token HTTP/1.1",
        &format!("Origin: {LISTED}\r\nAccess-Control-Request-Method: DELETE\r\n"),
    );
    assert!(
        !web.one(&other)
            .await
            .header("access-control-allow-methods")
            .unwrap_or_default()
            .contains("DELETE")
    );
    web.finish().await;
}

#[tokio::test]
async fn cross_site_request_from_a_listed_origin_gets_a_token() {
    let web = Service::start(by_jwt()).await;
    for site in ["cross-site", "same-site", "same-origin", "none", "nonsense"] {
        web.expect(
            site,
            &page(&format!("{LISTED}\r\nSec-Fetch-Site: {site}")),
            &["200"],
        )
        .await;
    }
    web.finish().await;
}

#[tokio::test]
async fn sec_fetch_site_other_than_same_origin_or_none_is_403_unless_the_origin_is_listed() {
    let web = Service::start(by_jwt()).await;
    for site in [
        "same-site",
        "cross-site",
        "",
        "SAME-ORIGIN",
        "same-origin, same-origin",
        "nonsense",
    ] {
        web.expect(
            site,
            &page(&format!(
                "https://sibling.example\r\nSec-Fetch-Site: {site}"
            )),
            FORBIDDEN,
        )
        .await;
        web.expect(
            site,
            &post(&format!(
                "{}Sec-Fetch-Site: {site}\r\n",
                bearer(&hs256(&json!({})))
            )),
            FORBIDDEN,
        )
        .await;
    }
    web.finish().await;
}

#[tokio::test]
async fn request_without_an_origin_header_gets_a_token() {
    let web = Service::start(by_jwt()).await;
    web.expect("bearer", &post(&bearer(&hs256(&json!({})))), &["200"])
        .await;
    web.expect(
        "cookie",
        &post(&format!("Cookie: session={}\r\n", hs256(&json!({})))),
        &["200"],
    )
    .await;
    web.expect(
        "a referer is not an origin",
        &post(&format!(
            "{}Referer: https://evil/\r\n",
            bearer(&hs256(&json!({})))
        )),
        &["200"],
    )
    .await;
    web.finish().await;
}

#[tokio::test]
async fn answers_have_cache_control_no_store_and_no_validator() {
    let web = Service::start(by_jwt()).await;
    // `Wire` checks most of these headers on every response in every test; this test produces each kind of response.
    for asked in [
        page(LISTED),
        post(""),
        request("GET /x HTTP/1.1", ""),
        request("GET /readyz HTTP/1.1", ""),
        request("GET /openapi.json HTTP/1.1", ""),
        request("HEAD /healthz HTTP/1.1", ""),
        request("OPTIONS /rollout/token HTTP/1.1", ""),
        page("https://evil"),
    ] {
        let answer = web.one(&asked).await;
        assert_eq!(
            answer.header("cache-control"),
            Some("no-store"),
            "{answer:?}"
        );
        for name in ["etag", "last-modified", "age", "expires"] {
            assert_eq!(answer.header(name), None);
        }
    }
    for conditional in [
        "If-None-Match: *\r\n",
        "If-Modified-Since: Wed, 21 Oct 2026 07:28:00 GMT\r\n",
        "If-Match: \"x\"\r\n",
        "If-Range: \"x\"\r\nRange: bytes=0-3\r\n",
        "Cache-Control: only-if-cached\r\n",
    ] {
        web.expect(
            conditional,
            &post(&format!("{}{conditional}", bearer(&hs256(&json!({}))))),
            &["200"],
        )
        .await;
    }
    web.finish().await;
}

#[tokio::test]
async fn cache_deception_path_is_404_and_not_cached() {
    let web = Service::start(by_jwt()).await;
    for path in [
        "/rollout/token/x.css",
        "/rollout/token;x.js",
        "/rollout/token.css",
        "/rollout/token%2fx.css",
        "/rollout/token%3bx.js",
        "/rollout/token/.css",
        "/rollout/token%0a.css",
        "/rollout/token%23x.css",
        "/static/../rollout/token",
    ] {
        for method in ["GET", "POST"] {
            let answer = web
                .expect(
                    path,
                    &request(
                        &format!("{method} {path} HTTP/1.1"),
                        &bearer(&hs256(&json!({}))),
                    ),
                    &["404 not_found"],
                )
                .await;
            assert_eq!(answer.header("cache-control"), Some("no-store"));
        }
    }
    web.finish().await;
}

#[tokio::test]
async fn error_for_a_listed_origin_has_cors_headers() {
    let web = Service::start(by_jwt()).await;
    let origin = format!("Origin: {LISTED}\r\n");
    for (asked, outcome) in [
        (post(&origin), "401 no_session"),
        (
            post(&format!("{origin}{}", bearer("x.y.z"))),
            "401 session_invalid",
        ),
        (
            [
                post(&format!("{origin}Content-Length: 5000\r\n")),
                vec![b'x'; 5000],
            ]
            .concat(),
            "413 body_too_large",
        ),
        (request("GET /nothing HTTP/1.1", &origin), "404 not_found"),
        (
            request("GET /rollout/token HTTP/1.1", &origin),
            "405 method_not_allowed",
        ),
    ] {
        let answer = web.expect(outcome, &asked, &[outcome]).await;
        assert_eq!(
            answer.header("access-control-allow-origin"),
            Some(LISTED),
            "{outcome}"
        );
    }
    let own =
        Service::start(by_jwt().with("rate_limit.per_minute = 60\nrate_limit.burst = 1")).await;
    own.expect("first", &page(LISTED), &["200"]).await;
    own.expect("429", &page(LISTED), &["429 rate_limited"])
        .await;
    own.finish().await;
    let down = Service::start(by_endpoint(1)).await;
    down.expect(
        "503",
        &post(&format!("{origin}Cookie: sid=a\r\n")),
        &["503 session_backend_unavailable"],
    )
    .await;
    down.finish().await;
    web.finish().await;
}

#[tokio::test]
async fn answer_is_json_for_any_accept_header_or_query() {
    let web = Service::start(by_jwt()).await;
    let good = bearer(&hs256(&json!({})));
    for more in [
        "",
        "Accept: text/html\r\n",
        "Accept: */*\r\n",
        "Accept: image/png\r\n",
        "Accept: application/jwt\r\n",
        "Accept:\r\n",
    ] {
        let answer = web
            .expect(more, &post(&format!("{good}{more}")), &["200"])
            .await;
        assert_eq!(answer.header("content-type"), Some("application/json"));
        web.expect(more, &post(more), &["401 no_session"]).await;
    }
    for query in [
        "callback=alert",
        "jsonp=x",
        "cb=<script>",
        "format=html",
        "_=1",
    ] {
        let answer = web
            .expect(
                query,
                &request(
                    &format!(
                        "POST /rollout/token?{} HTTP/1.1",
                        query.replace(['<', '>'], "")
                    ),
                    &good,
                ),
                &["200"],
            )
            .await;
        assert!(answer.body.starts_with(b"{\"token\":"));
    }
    web.finish().await;
}
