//! Attacks on `api_key`: altered keys, and requests for a subject that the key does not allow.

use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};

use crate::configs::one_extractor;
use crate::sentinels::{API_KEY, QUERY_VALUE};
use crate::service::{Service, Setup};
use crate::settings::ConfigBuilder;
use crate::wire::{post, request};

const INVALID: &[&str] = &["401 session_invalid"];

/// The SHA-256 hash of a key in lower-case hexadecimal, as `keys` expects it.
fn hash(key: &str) -> String {
    digest(&SHA256, key.as_bytes())
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn by_key(hash: &str) -> ConfigBuilder {
    one_extractor(
        "backend",
        "api_key",
        &format!("keys = {{ ours = '{hash}' }}"),
    )
}

async fn keys_service() -> Arc<Service> {
    let subjects = "extractors.backend.allowed_subjects = ['team-*', 'ann']";
    Service::start(by_key(&hash(API_KEY)).with(subjects)).await
}

#[tokio::test]
async fn wrong_api_key_is_401() {
    let keys = keys_service().await;
    let with = |key: &str| post(&format!("X-Api-Key: {key}\r\nX-Rollout-Subject: ann\r\n"));
    assert_eq!(
        keys.expect("right", &with(API_KEY), &["200"])
            .await
            .subject(),
        "ann"
    );
    for wrong in [
        "x",
        &API_KEY[..API_KEY.len() - 1],
        &format!("{API_KEY}x"),
        &API_KEY.to_uppercase(),
        &format!("\"{API_KEY}\""),
        &format!("{API_KEY},{API_KEY}"),
        "*",
        "null",
    ] {
        keys.expect("wrong", &with(wrong), INVALID).await;
    }
    keys.expect(
        "empty",
        &with(""),
        &["401 no_session", "401 session_invalid"],
    )
    .await;
    for odd in [
        format!("{API_KEY}\u{a0}"),
        format!("\u{a0}{API_KEY}"),
        format!("{API_KEY}\u{200b}"),
    ] {
        let asked = [b"POST /rollout/token HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX-Rollout-Subject: ann\r\nX-Api-Key: ".as_slice(), odd.as_bytes(), b"\r\n\r\n"].concat();
        keys.expect("NBSP", &asked, INVALID).await;
    }
    keys.expect(
        "twice",
        &post(&format!(
            "{0}{0}X-Rollout-Subject: ann\r\n",
            format!("X-Api-Key: {API_KEY}\r\n")
        )),
        INVALID,
    )
    .await;
    keys.expect("the hash", &with(&hash(API_KEY)), INVALID)
        .await;
    keys.finish().await;
}

#[tokio::test]
async fn api_key_in_the_query_is_ignored() {
    let keys = keys_service().await;
    for query in ["api_key", "x-api-key", "key", "apikey", "access_token"] {
        let asked = request(
            &format!("POST /rollout/token?{query}={QUERY_VALUE} HTTP/1.1"),
            "X-Rollout-Subject: ann\r\n",
        );
        keys.expect(query, &asked, &["401 no_session"]).await;
    }
    keys.finish().await;
}

#[tokio::test]
async fn weak_or_malformed_api_key_hash_is_refused_at_start() {
    for bad in [
        String::new(),
        "changeme".to_owned(),
        API_KEY.to_owned(),
        hash("changeme"),
        hash("secret"),
        hash(""),
        hash("test"),
        "g".repeat(64),
        hash("x")[..63].to_owned(),
    ] {
        let (code, text) = Setup::new(by_key(&bad)).refusal().await;
        assert!(
            code == 2 && text.contains("extractors.backend.keys.ours"),
            "{bad}: {text}"
        );
    }
}

#[tokio::test]
async fn api_key_without_an_allowed_subject_is_401() {
    let keys = keys_service().await;
    let with = |headers: &str| post(&format!("X-Api-Key: {API_KEY}\r\n{headers}"));
    keys.expect("no subject", &with(""), &["401 no_session"])
        .await;
    let body = "{\"subject\":\"ann\",\"sub\":\"ann\"}";
    let asked = [
        with(&format!(
            "Content-Type: application/json\r\nContent-Length: {}\r\n",
            body.len()
        )),
        body.into(),
    ]
    .concat();
    keys.expect("in the body", &asked, &["401 no_session"])
        .await;
    for headers in [
        "X-Rollout-Subject: bob\r\n",
        "X-Rollout-Subject: team\r\n",
        "X-Rollout-Subject: xteam-1\r\n",
        "X-Rollout-Subject: ann\r\nX-Rollout-Subject: ann\r\n",
        "X-Rollout-Subject: ann\r\nX_Rollout_Subject: bob\r\n",
        "X-Rollout-Subject: ANN\r\n",
        "X-Rollout-Subject:\r\n",
        "X-Rollout-Subject: ann\r\nConnection: X-Rollout-Subject\r\n",
    ] {
        keys.expect(headers, &with(headers), INVALID).await;
    }
    assert_eq!(
        keys.expect("a team", &with("X-Rollout-Subject: team-7\r\n"), &["200"])
            .await
            .subject(),
        "team-7"
    );
    keys.finish().await;
}
