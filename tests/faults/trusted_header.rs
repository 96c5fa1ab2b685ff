//! Identity headers of reverse proxies, and callers that forge them.

use std::sync::Arc;

use serde_json::json;

use crate::configs::{by_jwt, one_extractor};
use crate::sentinels::{PROXY_SECRET, QUERY_VALUE};
use crate::service::{Service, refuses};
use crate::settings::ConfigBuilder;
use crate::tokens::hs256;
use crate::wire::{bearer, post, post_raw, request};

const INVALID: &[&str] = &["401 session_invalid"];
const FORBIDDEN: &[&str] = &["403 origin_not_allowed"];

fn by_header(gate: &str) -> ConfigBuilder {
    one_extractor(
        "proxy",
        "trusted_header",
        &format!("header = 'X-Forwarded-User'\n{gate}"),
    )
}

/// A service that trusts `X-Forwarded-User` from loopback addresses, which the tests connect from.
async fn proxied_service() -> Arc<Service> {
    Service::start(by_header("trusted_proxies = ['127.0.0.0/8']")).await
}

/// A service that trusts the header from `10.0.0.0/8` only, so the tests connect from an untrusted address.
async fn elsewhere_service() -> Arc<Service> {
    Service::start(by_header("trusted_proxies = ['10.0.0.0/8']")).await
}

/// A service that trusts the header only in requests with the shared secret.
async fn secret_service() -> Arc<Service> {
    let gate = format!("shared_secret_header = 'X-Proxy-Secret'\nshared_secret = '{PROXY_SECRET}'");
    Service::start(by_header(&gate)).await
}

#[tokio::test]
async fn user_header_spelled_with_underscores_is_401() {
    let proxied = proxied_service().await;
    assert_eq!(
        proxied
            .expect("good", &post("X-Forwarded-User: bob\r\n"), &["200"])
            .await
            .subject(),
        "bob"
    );
    for headers in [
        "X_Forwarded_User: admin\r\nX-Forwarded-User: bob\r\n",
        "X-Forwarded-User: bob\r\nX_Forwarded_User: admin\r\n",
        "X_Forwarded_User: admin\r\n",
        "X-Forwarded_User: admin\r\nX-Forwarded-User: bob\r\n",
    ] {
        proxied.expect(headers, &post(headers), INVALID).await;
    }
    proxied.finish().await;
}

#[tokio::test]
async fn repeated_or_misspelled_user_header_is_refused() {
    let proxied = proxied_service().await;
    for headers in [
        "X-Forwarded-User: bob\r\nX-Forwarded-User: bob\r\n",
        "X-Forwarded-User: bob\r\nX-Forwarded-User: admin\r\n",
        "X-FORWARDED-USER: bob\r\nx-forwarded-user: admin\r\n",
        "x.forwarded.user: admin\r\nX-Forwarded-User: bob\r\n",
        "x.forwarded.user: admin\r\n",
        "X-Forwarded-User: bob\r\nX-Forwarded-User:\r\n",
        "X-Forwarded-User:\r\nX-Forwarded-User: bob\r\n",
    ] {
        proxied.expect(headers, &post(headers), INVALID).await;
    }
    for headers in [
        "X-Forwarded-User : admin\r\n",
        "X-Forwarded-User\t: admin\r\n",
        " X-Forwarded-User: admin\r\n",
        "X: y\r\n\tX-Forwarded-User: admin\r\n",
        "X-Forwarded-User\0: admin\r\n",
    ] {
        proxied
            .expect(headers, &post(headers), &["400 bad_request"])
            .await;
    }
    proxied
        .expect(
            "a longer name",
            &post("X-Forwarded-Users: admin\r\nXX-Forwarded-User: admin\r\n"),
            &["401 no_session"],
        )
        .await;
    proxied.finish().await;
}

#[tokio::test]
async fn empty_comma_separated_or_malformed_user_header_is_401() {
    let proxied = proxied_service().await;
    for value in ["bob, admin", "bob,", ",bob", "", ",", "bob;admin,x"] {
        proxied
            .expect(
                value,
                &post(&format!("X-Forwarded-User: {value}\r\n")),
                INVALID,
            )
            .await;
    }
    for value in [" bob", "bob ", "\tbob\t"] {
        assert_eq!(
            proxied
                .expect(
                    value,
                    &post(&format!("X-Forwarded-User:{value}\r\n")),
                    &["200"]
                )
                .await
                .subject(),
            "bob"
        );
    }
    for value in [
        &b"\xff\xfe"[..],
        b"bo\x80b",
        "bob\u{200b}".as_bytes(),
        "\u{a0}".as_bytes(),
        "bob\u{202e}".as_bytes(),
        &[b'x'; 257],
    ] {
        proxied
            .expect("odd bytes", &post_raw("X-Forwarded-User", value), INVALID)
            .await;
    }
    assert_eq!(
        proxied
            .expect(
                "UTF-8",
                &post_raw("X-Forwarded-User", "bj\u{f6}rn".as_bytes()),
                &["200"]
            )
            .await
            .subject(),
        "bj\u{f6}rn"
    );
    proxied.finish().await;
}

#[tokio::test]
async fn user_header_from_an_untrusted_peer_is_401() {
    let elsewhere = elsewhere_service().await;
    elsewhere
        .expect(
            "an untrusted peer",
            &post("X-Forwarded-User: bob\r\n"),
            INVALID,
        )
        .await;
    elsewhere
        .expect("no user", &post(""), &["401 no_session"])
        .await;
    elsewhere.logs("untrusted_peer", 1).await;
    elsewhere.finish().await;
}

#[tokio::test]
async fn claimed_client_address_does_not_make_a_peer_trusted() {
    let elsewhere = elsewhere_service().await;
    for claim in [
        "X-Forwarded-For: 10.0.0.1",
        "Forwarded: for=10.0.0.1",
        "X-Real-IP: 10.0.0.1",
        "X-Client-IP: 10.0.0.1",
        "True-Client-IP: 10.0.0.1",
        "CF-Connecting-IP: 10.0.0.1",
        "Client-IP: 10.0.0.1",
        "X-Cluster-Client-IP: 10.0.0.1",
        "Forwarded: for=\"[::ffff:10.0.0.1]\"",
        "Via: 1.1 10.0.0.1",
        "X-Envoy-External-Address: 10.0.0.1",
        "Host: 10.0.0.1",
    ] {
        let asked = format!(
            "POST /rollout/token HTTP/1.1\r\n{}Connection: close\r\nX-Forwarded-User: bob\r\n{claim}\r\n\r\n",
            if claim.starts_with("Host") {
                ""
            } else {
                "Host: a\r\n"
            }
        );
        elsewhere.expect(claim, asked.as_bytes(), INVALID).await;
    }
    elsewhere.finish().await;
}

#[tokio::test]
async fn forwarded_for_chain_does_not_change_whether_the_peer_is_trusted() {
    let proxied = proxied_service().await;
    let elsewhere = elsewhere_service().await;
    for chain in [
        "1.2.3.4, 10.0.0.1",
        "10.0.0.1, 1.2.3.4",
        "10.0.0.1,10.0.0.2,10.0.0.3",
        "unknown, 10.0.0.1",
        "10.0.0.1:80",
    ] {
        elsewhere
            .expect(
                chain,
                &post(&format!(
                    "X-Forwarded-For: {chain}\r\nX-Forwarded-User: bob\r\n"
                )),
                INVALID,
            )
            .await;
        let answer = proxied
            .expect(
                chain,
                &post(&format!(
                    "X-Forwarded-For: {chain}\r\nX-Forwarded-User: bob\r\n"
                )),
                &["200"],
            )
            .await;
        assert_eq!(answer.subject(), "bob");
    }
    proxied.finish().await;
    elsewhere.finish().await;
}

#[tokio::test]
async fn forwarded_host_and_proto_are_ignored() {
    let web = Service::start(by_jwt()).await;
    let odd = "X-Forwarded-Proto: https\r\nX-Forwarded-Host: evil.example\r\nX-Forwarded-Port: 443\r\nX-Forwarded-Prefix: /admin\r\nX-Forwarded-Server: evil\r\nForwarded: host=evil.example;proto=https\r\n";
    let answer = web
        .expect(
            "as without",
            &post(&format!("{}{odd}", bearer(&hs256(&json!({}))))),
            &["200"],
        )
        .await;
    assert!(!format!("{answer:?}").contains("evil"));
    // The headers do not make `https://evil.example` same-origin.
    web.expect(
        "another page",
        &post(&format!(
            "{}{odd}Origin: https://evil.example\r\n",
            bearer(&hs256(&json!({})))
        )),
        FORBIDDEN,
    )
    .await;
    web.finish().await;
}

#[tokio::test]
async fn path_rewriting_header_is_ignored() {
    let web = Service::start(by_jwt()).await;
    for header in [
        "X-Forwarded-Uri: /healthz",
        "X-Original-URL: /healthz",
        "X-Rewrite-URL: /rollout/token",
        "X-Original-Uri: /healthz",
        "X-Forwarded-Path: /healthz",
        "X-Accel-Redirect: /healthz",
        "X-HTTP-DestinationURL: /healthz",
    ] {
        web.expect(header, &post(&format!("{header}\r\n")), &["401 no_session"])
            .await;
        web.expect(
            header,
            &request(
                "POST /nothing HTTP/1.1",
                &format!("{header}\r\n{}", bearer(&hs256(&json!({})))),
            ),
            &["404 not_found"],
        )
        .await;
    }
    web.finish().await;
}

#[tokio::test]
async fn health_check_user_agent_is_treated_like_any_other() {
    let elsewhere = elsewhere_service().await;
    let web = Service::start(by_jwt()).await;
    for agent in [
        "kube-probe/1.30",
        "GoogleHC/1.0",
        "ELB-HealthChecker/2.0",
        "Prometheus/2.0",
        "curl/8.0",
        "",
    ] {
        web.expect(
            agent,
            &post(&format!("User-Agent: {agent}\r\n")),
            &["401 no_session"],
        )
        .await;
        elsewhere
            .expect(
                agent,
                &post(&format!(
                    "User-Agent: {agent}\r\nX-Forwarded-User: admin\r\n"
                )),
                INVALID,
            )
            .await;
    }
    elsewhere.finish().await;
    web.finish().await;
}

#[tokio::test]
async fn connection_header_naming_the_user_header_is_401() {
    let proxied = proxied_service().await;
    let secret = secret_service().await;
    for connection in [
        "X-Forwarded-User",
        "x-forwarded-user",
        "keep-alive, X-Forwarded-User",
        "X-Forwarded-User, X-Forwarded-For",
        "\tX-Forwarded-User ",
    ] {
        let asked = format!(
            "POST /rollout/token HTTP/1.1\r\nHost: a\r\nConnection: close, {connection}\r\nX-Forwarded-User: bob\r\n\r\n"
        );
        proxied.expect(connection, asked.as_bytes(), INVALID).await;
        let asked = format!(
            "POST /rollout/token HTTP/1.1\r\nHost: a\r\nConnection: close\r\nConnection: {connection}\r\nX-Forwarded-User: bob\r\n\r\n"
        );
        proxied.expect(connection, asked.as_bytes(), INVALID).await;
    }
    let asked = format!(
        "POST /rollout/token HTTP/1.1\r\nHost: a\r\nConnection: close, X-Proxy-Secret\r\nX-Forwarded-User: bob\r\nX-Proxy-Secret: {PROXY_SECRET}\r\n\r\n"
    );
    secret.expect("the secret", asked.as_bytes(), INVALID).await;
    proxied.finish().await;
    secret.finish().await;
}

#[tokio::test]
async fn user_header_without_trusted_proxies_or_secret_is_refused_at_start() {
    refuses(by_header(""), "extractors.proxy.trusted_proxies").await;
    for all in ["0.0.0.0/0", "::/0"] {
        refuses(
            by_header(&format!("trusted_proxies = [\"{all}\"]")),
            "extractors.proxy.trusted_proxies",
        )
        .await;
    }
    refuses(
        by_header("shared_secret_header = \"X-S\"\nshared_secret = \"changeme\""),
        "extractors.proxy.shared_secret",
    )
    .await;
}

#[tokio::test]
async fn wrong_shared_secret_is_401() {
    let secret = secret_service().await;
    let with = |secret: &str| {
        post(&format!(
            "X-Forwarded-User: bob\r\nX-Proxy-Secret: {secret}\r\n"
        ))
    };
    secret.expect("right", &with(PROXY_SECRET), &["200"]).await;
    for wrong in [
        "",
        "x",
        &PROXY_SECRET[..PROXY_SECRET.len() - 1],
        &format!("{PROXY_SECRET}x"),
        &PROXY_SECRET.to_uppercase(),
        &format!("{PROXY_SECRET},{PROXY_SECRET}"),
        &format!("x{PROXY_SECRET}"),
    ] {
        secret.expect("wrong", &with(wrong), INVALID).await;
    }
    secret
        .expect("none", &post("X-Forwarded-User: bob\r\n"), INVALID)
        .await;
    secret
        .expect(
            "twice",
            &post(&format!(
                "X-Forwarded-User: bob\r\n{0}{0}",
                format!("X-Proxy-Secret: {PROXY_SECRET}\r\n")
            )),
            INVALID,
        )
        .await;
    secret
        .expect(
            "in the query",
            &request(
                &format!("POST /rollout/token?X-Proxy-Secret={QUERY_VALUE} HTTP/1.1"),
                "X-Forwarded-User: bob\r\n",
            ),
            INVALID,
        )
        .await;
    secret.finish().await;
}
