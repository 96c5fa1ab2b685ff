//! Stores that are down, slow, cut off or full: 503, never 401 and never another user's session.

use std::time::Duration;

use serde_json::Value;
use tokio::task::JoinSet;

use crate::helpers::{Service, verified};
use crate::proxy::{Fault, Proxy};
use crate::servers::{Postgres, Redis, eventually};

const REDIS: &str = r#"
    rate_limit.per_subject_per_minute = 0
    [session]
    extractors = ["web"]
    [extractors.web]
    kind = "redis_session"
    cookie = "sid"
    key_prefix = "sess:"
    url = "redis://127.0.0.1:PORT"
"#;

const POSTGRES: &str = r#"
    rate_limit.per_subject_per_minute = 0
    [session]
    extractors = ["web"]
    [extractors.web]
    kind = "sql_session"
    cookie = "sid"
    query = "SELECT user_id FROM sessions WHERE id = $1"
    url = "postgres://postgres@127.0.0.1:PORT/postgres?sslmode=disable"
"#;

const USERS: &str = "CREATE TABLE sessions (id text PRIMARY KEY, user_id text);
    INSERT INTO sessions SELECT 's' || n, 'user-' || n FROM generate_series(0, 9) n";

async fn redis_with_users(extra: &[&str]) -> Redis {
    let redis = Redis::start(extra).await;
    for n in 0..10 {
        redis.run(&["SET", &format!("sess:s{n}"), &format!("{{\"user_id\":\"user-{n}\"}}")]).await;
    }
    redis
}

fn service(toml: &str, port: u16) -> Service {
    Service::start(&toml.replace("PORT", &port.to_string()))
}

/// The subject of the token, or the code of the refusal.
async fn ask(service: &Service, id: &str) -> Result<String, String> {
    let (status, body) = service.ask(&[("cookie", &format!("sid={id}"))]).await;
    match status.as_u16() {
        200 => Ok(verified(&body)["sub"].as_str().unwrap().to_owned()),
        _ => Err(text(&body["code"])),
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

/// I11, and neighbours: every way to fail is 503, and the end of the fault is the end of the 503s.
async fn every_fault_is_503(toml: &str, upstream: u16) {
    let proxy = Proxy::start(upstream).await;
    let service = service(toml, proxy.port);
    for fault in [
        Fault::Delay(Duration::from_secs(2)),
        Fault::Drip(Duration::from_millis(300)),
        Fault::Reset,
        Fault::BlackHole,
        Fault::Truncate,
    ] {
        proxy.set(Fault::None);
        let good = eventually("recovery", async || ask(&service, "s1").await).await;
        assert_eq!(good, "user-1", "before {fault:?}");
        proxy.set(fault);
        for id in ["s1", "s2"] {
            let refused = ask(&service, id).await;
            assert_eq!(refused, Err("session_backend_unavailable".to_owned()), "{fault:?}");
        }
    }
}

/// Answers that come about when the time is over: whoever gets one gets their own.
async fn answers_reach_only_their_own(toml: &str, upstream: u16) {
    let proxy = Proxy::start(upstream).await;
    let service = service(&format!("{toml}\nmax_connections = 2\ntimeout = \"40ms\""), proxy.port);
    let service = std::sync::Arc::new(service);
    let mut answered = 0;
    for round in 0..60u64 {
        proxy.set(Fault::Delay(Duration::from_millis(15 + round % 30)));
        let mut asking = JoinSet::new();
        for n in 0..6 {
            let (service, n) = (service.clone(), (n + round) % 10);
            asking.spawn(async move {
                // Some callers go away while the store is being asked.
                let patience = Duration::from_millis(if n % 3 == 0 { 20 } else { 5000 });
                let answer = tokio::time::timeout(patience, ask(&service, &format!("s{n}"))).await;
                (n, answer.unwrap_or_else(|_| Err("gone".to_owned())))
            });
        }
        for (n, answer) in asking.join_all().await {
            match answer {
                Ok(subject) => {
                    assert_eq!(subject, format!("user-{n}"));
                    answered += 1;
                }
                Err(code) => assert!(["gone", "session_backend_unavailable"].contains(&&*code), "{code}"),
            }
        }
    }
    proxy.set(Fault::None);
    let last = eventually("recovery", async || ask(&service, "s7").await).await;
    assert_eq!(last, "user-7");
    assert!(answered > 0, "every request ran out of time: the test proves nothing");
}

/// I15: the crowd is answered or refused, and the pool stays in its bounds.
async fn a_crowd_is_kept_in_bounds(toml: &str, upstream: u16) {
    let proxy = Proxy::start(upstream).await;
    let service = std::sync::Arc::new(service(toml, proxy.port));
    assert_eq!(ask(&service, "s0").await.as_deref(), Ok("user-0"));
    proxy.set(Fault::Delay(Duration::from_millis(200)));
    let mut crowd = JoinSet::new();
    for n in 0..1000 {
        let service = service.clone();
        crowd.spawn(async move { (n % 10, ask(&service, &format!("s{}", n % 10)).await) });
    }
    for (n, answer) in crowd.join_all().await {
        match answer {
            Ok(subject) => assert_eq!(subject, format!("user-{n}")),
            Err(code) => assert!(["session_backend_unavailable", "overloaded"].contains(&&*code), "{code}"),
        }
    }
    assert!(proxy.most() <= 16, "{} connections, some of them closing", proxy.most());
    proxy.set(Fault::None);
    assert_eq!(eventually("recovery", async || ask(&service, "s3").await).await, "user-3");
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_behind_faults() {
    let redis = redis_with_users(&[]).await;
    every_fault_is_503(REDIS, redis.port).await;
    answers_reach_only_their_own(REDIS, redis.port).await;
    a_crowd_is_kept_in_bounds(REDIS, redis.port).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_behind_faults() {
    let postgres = Postgres::start(&[]).await;
    postgres.run("postgres", USERS).await;
    every_fault_is_503(POSTGRES, postgres.port).await;
    answers_reach_only_their_own(POSTGRES, postgres.port).await;
    a_crowd_is_kept_in_bounds(POSTGRES, postgres.port).await;
}

#[tokio::test]
async fn redis_is_killed_and_comes_back() {
    let mut redis = redis_with_users(&["--appendonly", "yes", "--appendfsync", "always"]).await;
    let service = service(REDIS, redis.port);
    assert_eq!(ask(&service, "s1").await.as_deref(), Ok("user-1"));
    redis.kill();
    for _ in 0..20 {
        assert_eq!(ask(&service, "s1").await, Err("session_backend_unavailable".to_owned()));
    }
    redis.restart();
    let good = eventually("recovery", async || match ask(&service, "s1").await {
        Err(code) if code != "session_backend_unavailable" => panic!("{code} while Redis comes back"),
        answer => answer,
    });
    assert_eq!(good.await, "user-1");
}

/// I12: what is there and no session is the caller's problem.
#[tokio::test]
async fn redis_holds_something_else() {
    let redis = Redis::start(&[]).await;
    redis.run(&["RPUSH", "sess:list", "x"]).await;
    for (id, value) in [
        ("empty", ""),
        ("garbage", "\u{0}\u{1}"),
        ("array", "[1]"),
        ("twice", "{\"user_id\":1,\"user_id\":2}"),
    ] {
        redis.run(&["SET", &format!("sess:{id}"), value]).await;
    }
    redis.run(&["SET", "sess:nobody", "{}"]).await;
    let service = service(REDIS, redis.port);
    for id in ["list", "empty", "garbage", "array", "twice", "absent", "*", "sess:list", "..", "'OR'1"] {
        assert_eq!(ask(&service, id).await, Err("session_invalid".to_owned()), "{id}");
    }
    assert_eq!(ask(&service, "nobody").await, Err("no_session".to_owned()));
}

#[tokio::test]
async fn redis_that_refuses_us_is_503() {
    let redis = Redis::start(&["--requirepass", "hunter2"]).await;
    for (case, user) in [("no password", ""), ("wrong password", ":wrong@"), ("no such user", "nobody:x@")] {
        let toml = REDIS.replace("127.0.0.1", &format!("{user}127.0.0.1"));
        let refused = ask(&service(&toml, redis.port), "s1").await;
        assert_eq!(refused, Err("session_backend_unavailable".to_owned()), "{case}");
    }
    let known = REDIS.replace("127.0.0.1", ":hunter2@127.0.0.1");
    assert_eq!(ask(&service(&known, redis.port), "s1").await, Err("session_invalid".to_owned()));
    let tls = REDIS.replace("redis://", "rediss://");
    assert_eq!(ask(&service(&tls, redis.port), "s1").await, Err("session_backend_unavailable".to_owned()));
}

/// I17
#[tokio::test]
async fn postgres_that_cannot_answer_is_503() {
    let postgres = Postgres::start(&[]).await;
    postgres.run("postgres", USERS).await;
    postgres
        .run(
            "postgres",
            "CREATE ROLE other LOGIN; CREATE ROLE full_up LOGIN CONNECTION LIMIT 0;
            GRANT SELECT ON sessions TO full_up",
        )
        .await;
    let query = "SELECT user_id FROM sessions WHERE id = $1";
    for (case, toml) in [
        ("schema missing", POSTGRES.replace("FROM sessions", "FROM nowhere")),
        ("permission", POSTGRES.replace("postgres@", "other@")),
        ("too many connections", POSTGRES.replace("postgres@", "full_up@")),
        ("no such database", POSTGRES.replace("/postgres?", "/nowhere?")),
        (
            "statement timeout",
            POSTGRES.replace(query, "SELECT user_id FROM sessions, pg_sleep(5) WHERE id = $1"),
        ),
        ("would write", POSTGRES.replace(query, "SELECT user_id, nextval('s') FROM sessions WHERE id = $1")),
        ("several rows", POSTGRES.replace(query, "SELECT user_id FROM sessions WHERE $1 <> ''")),
        ("TLS is asked for", POSTGRES.replace("sslmode=disable", "sslmode=require")),
    ] {
        let refused = ask(&service(&toml, postgres.port), "s1").await;
        assert_eq!(refused, Err("session_backend_unavailable".to_owned()), "{case}");
    }
    let by_uuid = POSTGRES.replace(query, "SELECT user_id FROM sessions WHERE $1::uuid IS NULL");
    assert_eq!(ask(&service(&by_uuid, postgres.port), "s1").await, Err("session_invalid".to_owned()));
}
