//! Paths, methods, queries and bodies: which requests reach the token route, and which parts of them it uses.

use serde_json::json;

use crate::configs::by_jwt;
use crate::framing::{SMUGGLED, good, with};
use crate::sentinels::{COOKIE_VALUE, QUERY_VALUE};
use crate::service::Service;
use crate::tokens::hs256;
use crate::wire::{post, request};

const BAD: &[&str] = &["400 bad_request"];

#[tokio::test]
async fn variant_spelling_of_the_token_path_is_404() {
    let s = Service::start(by_jwt()).await;
    for path in [
        "//rollout/token",
        "/rollout/./token",
        "/x/../rollout/token",
        "/rollout%2ftoken",
        "/rollout/%74oken",
        "/rollout/token/",
        "/ROLLOUT/token",
        "/rollout/token;a",
        "/rollout//token",
        "/rollout/token%00",
        "/rollout/token%20",
        "/rollout/token%3f",
        "/rollout\\token",
        "/rollout/token.json",
        "/./rollout/token",
        "/%2e/rollout/token",
        "/rollout/toke%6E",
        "/rollout-token",
        "/rollout/token%0d%0aX:y",
        "/rollout/TOKEN",
        "/",
        "/rollout",
        "/metrics",
        "/debug",
        "/config",
        "/.env",
        "/rollout/token/../token",
    ] {
        for method in ["POST", "GET"] {
            let line = format!("{method} {path} HTTP/1.1");
            s.expect(path, &request(&line, &good()), &["404 not_found"])
                .await;
        }
    }
    s.finish().await;
}

#[tokio::test]
async fn credential_in_the_query_is_ignored_and_not_logged() {
    let s = Service::start(by_jwt()).await;
    let token = hs256(&json!({}));
    for query in [
        format!("access_token={QUERY_VALUE}"),
        "sub=admin".to_owned(),
        format!("access_token={token}"),
        format!("token={token}"),
        format!("jwt={token}"),
        format!("session={token}"),
        "callback=alert".to_owned(),
        "user=admin&user=bob".to_owned(),
        QUERY_VALUE.to_owned(),
        "?".to_owned(),
        "%".to_owned(),
        "%00=%ff".to_owned(),
    ] {
        let line = format!("POST /rollout/token?{query} HTTP/1.1");
        s.expect(&query, &request(&line, ""), &["401 no_session"])
            .await;
        let answer = s.expect(&query, &request(&line, &good()), &["200"]).await;
        assert_eq!(answer.subject(), "ann");
    }
    assert!(!s.whole_log().await.contains("access_token"));
    s.finish().await;
}

#[tokio::test]
async fn method_other_than_post_or_options_is_405_with_allow() {
    let s = Service::start(by_jwt()).await;
    for method in [
        "GET",
        "HEAD",
        "PUT",
        "DELETE",
        "PATCH",
        "post",
        "Post",
        "POSTS",
        "POS",
        "PROPFIND",
        "LOCK",
        "SEARCH",
        "QUERY",
        "X",
        &"M".repeat(500),
    ] {
        let answer = s
            .one(&request(
                &format!("{method} /rollout/token HTTP/1.1"),
                &good(),
            ))
            .await;
        assert_eq!(answer.status, 405, "{method}");
        assert_eq!(answer.header("allow"), Some("POST, OPTIONS"), "{method}");
    }
    for line in [
        "P@ST /rollout/token HTTP/1.1",
        "POST  /rollout/token HTTP/1.1",
        "POST /rollout/token  HTTP/1.1",
        " POST /rollout/token HTTP/1.1",
        "POST\t/rollout/token HTTP/1.1",
        "POST /rollout/token",
        "POST",
        "P\u{e9}ST /rollout/token HTTP/1.1",
    ] {
        s.expect_or_close(line, &request(line, &good()), BAD).await;
    }
    s.expect(
        "a method of 40 KiB",
        &request(&format!("{} / HTTP/1.1", "M".repeat(40 * 1024)), ""),
        &[
            "400 bad_request",
            "405 method_not_allowed",
            "414 uri_too_long",
            "431 headers_too_large",
            "404 not_found",
        ],
    )
    .await;
    for path in ["/healthz", "/readyz", "/openapi.json", "/rollout/client.js"] {
        for method in ["POST", "DELETE", "PUT"] {
            let answer = s
                .one(&request(&format!("{method} {path} HTTP/1.1"), ""))
                .await;
            assert_eq!(
                (answer.status, answer.header("allow")),
                (405, Some("GET, HEAD")),
                "{method} {path}"
            );
        }
    }
    s.finish().await;
}

#[tokio::test]
async fn trace_and_connect_are_refused() {
    let s = Service::start(by_jwt()).await;
    let cookie = format!("Cookie: session={COOKIE_VALUE}\r\n");
    s.expect(
        "TRACE",
        &request("TRACE /rollout/token HTTP/1.1", &cookie),
        &["405 method_not_allowed"],
    )
    .await;
    s.expect(
        "TRACE *",
        &request("TRACE * HTTP/1.1", &cookie),
        &["404 not_found", "405 method_not_allowed", "400 bad_request"],
    )
    .await;
    for line in [
        "CONNECT evil:80 HTTP/1.1",
        "CONNECT 127.0.0.1:22 HTTP/1.1",
        "CONNECT app.example:443 HTTP/1.1",
    ] {
        let answer = s
            .one(&[request(line, &cookie), SMUGGLED.into()].concat())
            .await;
        assert_eq!(answer.outcome(), "405 method_not_allowed", "{line}");
    }
    s.finish().await;
}

#[tokio::test]
async fn method_override_header_is_ignored() {
    let s = Service::start(by_jwt()).await;
    for header in [
        "X-HTTP-Method-Override: GET",
        "X-HTTP-Method: DELETE",
        "X-Method-Override: PUT",
        "_method: GET",
    ] {
        s.expect(header, &with(&format!("{header}\r\n"), ""), &["200"])
            .await;
        s.expect(
            header,
            &request(
                "GET /rollout/token HTTP/1.1",
                &format!("{}{}\r\n", good(), header.replace("GET", "POST")),
            ),
            &["405 method_not_allowed"],
        )
        .await;
    }
    let body = "_method=GET";
    s.expect(
        "in a form",
        &with(
            &format!(
                "Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n",
                body.len()
            ),
            body,
        ),
        &["200"],
    )
    .await;
    s.finish().await;
}

#[tokio::test]
async fn body_of_any_type_does_not_set_the_subject() {
    let s = Service::start(by_jwt()).await;
    for kind in [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/json",
        "",
        "x",
        "application/xml",
    ] {
        for body in [
            "{}",
            "",
            "null",
            r#"{"sub":"admin"}"#,
            "sub=admin",
            "{",
            "\u{0}",
            "[1,2",
        ] {
            let headers = format!("Content-Type: {kind}\r\nContent-Length: {}\r\n", body.len());
            let answer = s.expect(kind, &with(&headers, body), &["200"]).await;
            assert_eq!(answer.subject(), "ann");
            s.expect(
                kind,
                &[post(&headers), body.into()].concat(),
                &["401 no_session"],
            )
            .await;
        }
    }
    s.finish().await;
}

#[tokio::test]
async fn answer_is_never_compressed() {
    let s = Service::start(by_jwt()).await;
    let headers = "Accept-Encoding: gzip, br, zstd, deflate\r\nX-Request-Id: reflected-reflected-reflected\r\n";
    let answer = s.expect("gzip", &with(headers, ""), &["200"]).await;
    assert_eq!(answer.header("content-encoding"), None);
    s.expect("refusal", &post(headers), &["401 no_session"])
        .await;
    s.finish().await;
}
