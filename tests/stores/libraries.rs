//! Sessions that the session libraries of several languages stored in Redis, and changed copies of them. The vectors
//! contain the section that an operator writes.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::helpers::{Service, verified};
use crate::servers::Redis;
use crate::vectors::directory;

#[derive(serde::Deserialize)]
struct Family {
    cases: Vec<Case>,
}

#[derive(serde::Deserialize)]
struct Case {
    name: String,
    section: toml::Table,
    headers: BTreeMap<String, String>,
    /// Values in base64, by key.
    redis: BTreeMap<String, String>,
    expect: Value,
}

fn service(redis: &Redis, case: &Case) -> Service {
    let mut section = case.section.clone();
    for (key, value) in [
        ("kind", "redis_session".to_owned()),
        ("url", redis.url()),
        // Longer than the defaults, so that a busy machine does not cause 503.
        ("timeout", "5s".to_owned()),
        ("pool_wait", "5s".to_owned()),
    ] {
        section.insert(key.to_owned(), value.into());
    }
    let section = toml::Table::from_iter([("web".to_owned(), section.into())]);
    let config = toml::toml! {
        [session]
        extractors = ["web"]
        [rate_limit]
        per_minute = 0
    };
    let extractors = toml::Table::from_iter([("extractors".to_owned(), section.into())]);
    Service::start(format!("{config}\n{extractors}"))
}

async fn load(redis: &Redis, case: &Case) {
    let mut commands = redis::pipe();
    commands.cmd("FLUSHALL");
    for (key, value) in &case.redis {
        let value = STANDARD.decode(value).expect("base64");
        commands.cmd("SET").arg(key).arg(value);
    }
    commands
        .exec_async(&mut redis.connection().await)
        .await
        .expect("commands that work");
}

/// The subject of the token, or the code of the refusal.
async fn outcome(service: &Service, headers: &BTreeMap<String, String>) -> Value {
    let headers: Vec<_> = headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    let (status, body) = service.ask(&headers).await;
    match status.as_u16() {
        200 => serde_json::json!({ "sub": verified(&body)["sub"] }),
        _ => serde_json::json!({ "code": body["code"] }),
    }
}

#[tokio::test]
async fn sessions_of_libraries_in_redis_are_accepted_and_changed_ones_refused() {
    let text = std::fs::read(directory().join("redis-stores.json")).expect("vectors");
    let Family { cases } = serde_json::from_slice(&text).expect("vectors");
    let redis = Redis::start(&[]).await;
    let mut services: BTreeMap<String, Service> = BTreeMap::new();
    let (mut wrong, mut accepted) = (Vec::new(), 0);
    for case in &cases {
        load(&redis, case).await;
        let service = services
            .entry(case.section.to_string())
            .or_insert_with(|| service(&redis, case));
        let found = outcome(service, &case.headers).await;
        accepted += usize::from(found.get("sub").is_some());
        if found != case.expect {
            wrong.push(format!("{}: {found}, not {}", case.name, case.expect));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!((cases.len(), accepted), (324, 52));
}
