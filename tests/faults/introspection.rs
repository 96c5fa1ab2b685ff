//! OAuth 2.0 token introspection (RFC 7662): invalid, revoked and made-up tokens, and an issuer that fails.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::clock::{Clocks, Timed};
use crate::configs::one_extractor;
use crate::sentinels::{COOKIE_VALUE, UPSTREAM_SECRET};
use crate::service::Service;
use crate::settings::ConfigBuilder;
use crate::tokens::now;
use crate::upstream::{Act, Upstream, answer, ok};
use crate::wire::{Wire, bearer, post};

const UNKNOWN: &[&str] = &["503 session_backend_unavailable"];
const INVALID: &[&str] = &["401 session_invalid"];

struct Stage {
    s: Arc<Service>,
    issuer: Upstream,
}

impl Stage {
    async fn start() -> Self {
        let issuer = Upstream::start(ok("{\"active\":false}")).await;
        let config = config(issuer.port).with(
            "[extractors.idp]
            issuers = ['https://issuer.example']
            audiences = ['our-app']
            client_ids = ['app']
            required_scopes = ['rollout']",
        );
        Self {
            s: Service::start(config).await,
            issuer,
        }
    }

    async fn finish(self) {
        drop(self.issuer);
        self.s.finish().await;
    }

    /// Makes the issuer respond `active: true` again, and checks that a token is accepted.
    async fn recovers(&self) {
        self.issuer.does(ok(&good(&json!({})).to_string()));
        assert_eq!(
            self.s
                .expect("good", &opaque("t"), &["200"])
                .await
                .subject(),
            "ann"
        );
    }
}

fn config(port: u16) -> ConfigBuilder {
    one_extractor("idp", "introspection", &keys(port))
}

fn keys(port: u16) -> String {
    format!(
        "url = 'http://127.0.0.1:{port}/introspect'\nclient_id = 'us'\nclient_secret = '{UPSTREAM_SECRET}'\n"
    )
}

/// Keys that cache the issuer's responses for active tokens for 60 s, and accept the tokens of any client.
const KEPT: &str = "[extractors.idp]\ncache_ttl = '60s'\nallow_any_client = true";

fn good(over: &Value) -> Value {
    let mut all = json!({"active": true, "sub": "ann", "iss": "https://issuer.example", "aud": "our-app", "client_id": "app", "scope": "openid rollout", "exp": now() + 600, "token_type": "Bearer"});
    for (name, value) in over.as_object().expect("members") {
        all[name] = value.clone();
    }
    all
}

fn opaque(name: &str) -> Vec<u8> {
    post(&bearer(name))
}

#[tokio::test]
async fn introspection_answer_with_active_other_than_true_is_401() {
    let s = Stage::start().await;
    for active in [
        json!(false),
        json!("true"),
        json!(1),
        json!(null),
        json!("false"),
        json!([]),
        json!([true]),
        json!({}),
        json!("yes"),
        json!(0),
        json!(1.0),
    ] {
        s.issuer
            .does(ok(&good(&json!({"active": active})).to_string()));
        s.s.expect(
            &active.to_string(),
            &opaque(&format!("t-{}", active.to_string().len())),
            INVALID,
        )
        .await;
    }
    let mut missing = good(&json!({}));
    missing.as_object_mut().expect("members").remove("active");
    let text = missing.to_string();
    for body in [
        text.clone(),
        "{}".to_owned(),
        format!("{{\"active\":true,\"active\":false,{}", &text[1..]),
        format!("{{\"active\":false,\"\\u0061ctive\":true,{}", &text[1..]),
        format!("{{\"Active\":true,{}", &text[1..]),
    ] {
        s.issuer.does(ok(&body));
        s.s.expect(&body, &opaque("t"), INVALID).await;
    }
    for body in ["null", "[]", "true", "\"active\"", "", "<html>"] {
        s.issuer.does(ok(body));
        s.s.expect(body, &opaque("t"), UNKNOWN).await;
    }
    s.recovers().await;
    s.finish().await;
}

#[tokio::test]
async fn active_token_without_a_subject_is_401() {
    let s = Stage::start().await;
    for sub in [
        json!(null),
        json!(""),
        json!([]),
        json!(false),
        json!(0),
        json!({"id": 1}),
    ] {
        s.issuer.does(ok(
            &good(&json!({"sub": sub, "username": "ann"})).to_string()
        ));
        s.s.expect(
            &sub.to_string(),
            &opaque("t"),
            &["401 no_session", "401 session_invalid"],
        )
        .await;
    }
    let mut without_sub = good(&json!({}));
    without_sub.as_object_mut().expect("members").remove("sub");
    s.issuer.does(ok(&without_sub.to_string()));
    s.s.expect("no sub", &opaque("t"), &["401 no_session"])
        .await;
    s.finish().await;
}

#[tokio::test]
async fn active_token_that_has_expired_or_has_a_wrong_claim_is_401() {
    let s = Stage::start().await;
    for (over, want) in [
        (json!({"exp": now() - 1}), &["401 session_expired"][..]),
        (json!({"exp": 0}), &["401 session_expired"]),
        (json!({"exp": "9999999999"}), INVALID),
        (json!({"exp": 1e300}), &["200", "401 session_invalid"]),
        (json!({"nbf": now() + 60}), INVALID),
        (json!({"iss": "https://evil.example"}), INVALID),
        (json!({"iss": null}), INVALID),
        (json!({"aud": "other"}), INVALID),
        (json!({"aud": []}), INVALID),
        (json!({"client_id": "other"}), INVALID),
        (json!({"scope": "openid"}), INVALID),
        (json!({"scope": "rollouts xrollout"}), INVALID),
        (json!({"scope": null}), INVALID),
        (json!({"token_type": "refresh_token"}), INVALID),
        (json!({"token_type": "DPoP"}), INVALID),
        (json!({"token_use": "id"}), INVALID),
        (json!({"cnf": {"jkt": "x"}}), INVALID),
        (json!({"aud": ["other", "our-app"]}), &["200"]),
    ] {
        s.issuer.does(ok(&good(&over).to_string()));
        s.s.expect(&over.to_string(), &opaque("t"), want).await;
    }
    s.finish().await;
}

#[tokio::test]
async fn cached_answer_of_one_issuer_is_not_used_for_another() {
    let (a, b) = (
        Upstream::start(ok(&good(&json!({"sub": "at-a"})).to_string())).await,
        Upstream::start(ok("{\"active\":false}")).await,
    );
    let both = [("a", a.port), ("b", b.port)].map(|(name, port)| {
        format!(
            "[extractors.{name}]\nkind = 'introspection'\nfrom = ['header:x-{name}']\ncache_ttl = '60s'\nallow_any_client = true\n{}",
            keys(port)
        )
    });
    let config = one_extractor("a", "introspection", "")
        .with("session.extractors = ['a', 'b']")
        .with(both.concat());
    let s = Service::start(config).await;
    for _ in 0..3 {
        let answer = s
            .expect("A accepts", &post("X-A: the-token\r\n"), &["200"])
            .await;
        assert_eq!(answer.subject(), "at-a");
    }
    s.expect("B is asked", &post("X-B: the-token\r\n"), INVALID)
        .await;
    assert_eq!((a.take_requests().len(), b.take_requests().len()), (1, 1));
    s.finish().await;
}

#[tokio::test]
async fn revoked_token_is_401_after_the_cache_ttl() {
    let issuer = Upstream::start(ok(&good(&json!({})).to_string())).await;
    let t = Timed::start(config(issuer.port).with(KEPT), Clocks::Both).await;
    let s = &t.service;
    s.expect("active", &opaque("t"), &["200"]).await;
    issuer.does(ok("{\"active\":false}"));
    s.expect("kept", &opaque("t"), &["200"]).await;
    t.ahead(61).await;
    s.expect("revoked", &opaque("t"), INVALID).await;
    // The response is not cached beyond the token's `exp`.
    issuer.does(ok(&good(&json!({"exp": now() + 61 + 10})).to_string()));
    s.expect("short", &opaque("short"), &["200"]).await;
    t.ahead(61 + 12).await;
    issuer.does(ok("{\"active\":false}"));
    s.expect(
        "over",
        &opaque("short"),
        &["401 session_expired", "401 session_invalid"],
    )
    .await;
    drop(issuer);
    s.finish().await;
}

#[tokio::test]
async fn inactive_token_that_becomes_active_is_accepted_after_5_seconds() {
    let issuer = Upstream::start(ok("{\"active\":false}")).await;
    let config = config(issuer.port).with(KEPT).with("log.level = 'info'");
    let t = Timed::start(config, Clocks::Both).await;
    let s = &t.service;
    s.expect("inactive", &opaque("t"), INVALID).await;
    issuer.does(ok(&good(&json!({})).to_string()));
    t.ahead(6).await;
    s.expect("active", &opaque("t"), &["200"]).await;
    drop(issuer);
    s.finish().await;
}

#[tokio::test]
async fn fifteen_thousand_inactive_tokens_use_at_most_16_mib() {
    let issuer = Upstream::start(ok("{\"active\":false}")).await;
    let s = Service::start(config(issuer.port).with(KEPT).with("log.level = 'info'")).await;
    let before = s.usage().resident_kib;
    let mut tasks = JoinSet::new();
    for part in 0..20 {
        let s = s.clone();
        tasks.spawn(async move {
            for n in 0..750 {
                s.expect("inactive", &opaque(&format!("made-up-{part}-{n}")), INVALID)
                    .await;
            }
        });
    }
    tasks.join_all().await;
    let after = s.usage().resident_kib;
    assert!(after < before + 16 * 1024, "{after} KiB, {before} before");
    drop(issuer);
    s.finish().await;
}

#[tokio::test]
async fn introspection_status_other_than_200_is_503_and_a_rejected_client_secret_is_logged() {
    let s = Stage::start().await;
    for status in ["401 Unauthorized", "403 Forbidden"] {
        s.issuer.does(Act::Say(answer(
            status,
            "Content-Type: application/json\r\n",
            "{\"active\":true,\"sub\":\"ann\"}",
        )));
        s.s.expect(status, &opaque("t"), UNKNOWN).await;
        s.recovers().await;
    }
    s.s.logs("introspection_client_rejected", 1).await;
    for status in [
        "400 Bad Request",
        "404 Not Found",
        "302 Found",
        "204 No Content",
        "201 Created",
        "500 Oops",
        "429 Too Many",
    ] {
        s.issuer.does(Act::SayAndClose(answer(
            status,
            "Content-Type: application/json\r\nLocation: /x\r\nConnection: close\r\n",
            "",
        )));
        s.s.expect(status, &opaque("t"), UNKNOWN).await;
        s.recovers().await;
    }
    s.finish().await;
}

#[tokio::test]
async fn introspection_sends_only_the_token_of_the_callers_request() {
    let s = Stage::start().await;
    s.issuer.does(ok(&good(&json!({})).to_string()));
    s.issuer.take_requests();
    let token = "a+b/c~d._-e==";
    s.s.expect(
        "odd letters",
        &post(&format!(
            "{}Cookie: sid={COOKIE_VALUE}\r\nX-Forwarded-For: 1.2.3.4\r\n",
            bearer(token)
        )),
        &["200"],
    )
    .await;
    let requests = s.issuer.take_requests();
    let request = requests[0].to_ascii_lowercase();
    assert!(
        request.starts_with("post /introspect http/1.1\r\n")
            && request.contains("authorization: basic "),
        "{request}"
    );
    assert!(
        requests[0].contains("token=a%2Bb%2Fc%7Ed._-e%3D%3D&")
            && !request.contains("cookie")
            && !request.contains("1.2.3.4"),
        "{request}"
    );
    for (label, act) in [
        ("hangs up", Act::Close),
        ("resets", Act::Reset),
        ("64 KiB", ok(&" ".repeat(70_000))),
        (
            "late",
            Act::Late(Duration::from_millis(2500), answer("200 OK", "", "")),
        ),
    ] {
        s.issuer.does(act);
        s.s.expect(label, &opaque("t"), UNKNOWN).await;
        s.recovers().await;
    }
    s.finish().await;
}

mod alone {
    use super::*;

    /// Sends 200,000 distinct active tokens, with a `cache_ttl` of 60 s.
    #[tokio::test(flavor = "multi_thread")]
    async fn introspection_cache_is_bounded_for_200000_distinct_tokens() {
        const ROUNDS: u32 = 200;
        let issuer = Upstream::start(ok(&good(&json!({"exp": now() + 6000})).to_string())).await;
        let config = config(issuer.port).with(KEPT).with("log.level = 'info'");
        let s = Service::start(config).await;
        let mut table = Vec::new();
        let mut wires = Vec::new();
        for _ in 0..20 {
            wires.push(Wire::connect(s.address).await);
        }
        for round in 0..ROUNDS {
            let mut tasks = JoinSet::new();
            for (part, mut wire) in wires.drain(..).enumerate() {
                tasks.spawn(async move {
                    for n in 0..50 {
                        let asked = format!(
                            "POST /rollout/token HTTP/1.1\r\nHost: a\r\n{}\r\n",
                            bearer(&format!("t-{round}-{part}-{n}-{}", "x".repeat(200)))
                        );
                        wire.send(asked.as_bytes()).await;
                        let answer = wire.answer(asked.as_bytes()).await.expect("an answer");
                        assert_eq!(answer.status, 200, "{answer:?}");
                    }
                    wire
                });
            }
            wires = tasks.join_all().await;
            issuer.take_requests();
            if round % 20 == 19 {
                table.push(s.usage().resident_kib);
            }
        }
        println!("resident KiB after every 20,000 tokens: {table:?}");
        let (half, last) = (table[table.len() / 2], table[table.len() - 1]);
        assert!(
            last <= half + 4096 && last <= s.baseline().resident_kib + 48 * 1024,
            "{table:?}"
        );
        drop(wires);
        s.does_not_count();
        drop(issuer);
        s.finish().await;
    }
}
