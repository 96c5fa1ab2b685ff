//! Stores that are down, slow, disconnected or out of connections, or that have a wrong certificate: the response is
//! 503, never 401 and never a token for another user. Also tests what `explain` says about these errors, and which keys
//! the service reads from Redis.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use serde_json::Value;
use tokio::task::JoinSet;

use crate::helpers::{Service, verified};
use crate::proxy::{FAULTS, Fault, Proxy};
use crate::servers::{Certificate, MariaDb, Postgres, Redis, eventually, free_port};

/// The extractor section for Redis; `configuration` replaces `PORT`.
pub const REDIS: &str = r#"
    kind = "redis_session"
    cookie = "sid"
    key_prefix = "sess:"
    url = "redis://127.0.0.1:PORT"
"#;

pub const POSTGRES: &str = r#"
    kind = "sql_session"
    cookie = "sid"
    query = "SELECT user_id FROM sessions WHERE id = $1"
    url = "postgres://postgres@127.0.0.1:PORT/postgres?sslmode=disable"
"#;

pub const MARIADB: &str = r#"
    kind = "sql_session"
    cookie = "sid"
    query = "SELECT user_id FROM sessions WHERE id = $1"
    url = "mysql://root@127.0.0.1:PORT/mysql?ssl-mode=disabled"
"#;

pub const USERS: &str = "CREATE TABLE sessions (id text PRIMARY KEY, user_id text);
    INSERT INTO sessions SELECT 's' || n, 'user-' || n FROM generate_series(0, 9) n";

pub async fn redis_with_users(extra: &[&str]) -> Redis {
    let redis = Redis::start(extra).await;
    for n in 0..10 {
        redis
            .run(&[
                "SET",
                &format!("sess:s{n}"),
                &format!("{{\"user_id\":\"user-{n}\"}}"),
            ])
            .await;
    }
    redis
}

pub fn configuration(keys: &str, port: u16) -> String {
    let keys = keys.replace("PORT", &port.to_string());
    format!(
        "rate_limit.per_minute = 0\n[session]\nextractors = [\"web\"]\n[extractors.web]\n{keys}"
    )
}

pub fn service(keys: &str, port: u16) -> Service {
    Service::start(configuration(keys, port))
}

/// Requests a token with this session id. Returns the token's subject, or the error code.
pub async fn ask(service: &Service, id: &str) -> Result<String, String> {
    let (status, body) = service.ask(&[("cookie", &format!("sid={id}"))]).await;
    match status.as_u16() {
        200 => Ok(verified(&body)["sub"].as_str().unwrap().to_owned()),
        _ => Err(text(&body["code"])),
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

/// Checks that requests get 503 during each fault, and tokens again afterwards.
async fn every_fault_is_503(toml: &str, upstream: u16) {
    let proxy = Proxy::start(upstream).await;
    let service = service(toml, proxy.port);
    for fault in FAULTS {
        proxy.set(Fault::None);
        let good = eventually("recovery", async || ask(&service, "s1").await).await;
        assert_eq!(good, "user-1", "before {fault:?}");
        proxy.set(fault);
        for id in ["s1", "s2"] {
            let refused = ask(&service, id).await;
            assert_eq!(
                refused,
                Err("session_backend_unavailable".to_owned()),
                "{fault:?}"
            );
        }
    }
}

/// Delays the store's replies by 50 to 200 ms, with a timeout of 150 ms, and checks that each caller gets only its own
/// session.
async fn each_caller_gets_only_its_own_session(toml: &str, upstream: u16) {
    const TIMEOUT: u64 = 150;
    let proxy = Proxy::start(upstream).await;
    let service = service(
        &format!("{toml}\nmax_connections = 2\ntimeout = \"{TIMEOUT}ms\""),
        proxy.port,
    );
    let service = Arc::new(service);
    let mut answered = 0;
    for round in 0..40u64 {
        // Every other round has no delay, so that a late reply on a reused connection could reach another caller.
        let late = Duration::from_millis(TIMEOUT / 3 + round * 7 % TIMEOUT);
        proxy.set(if round % 2 == 0 {
            Fault::None
        } else {
            Fault::Delay(late)
        });
        let mut asking = JoinSet::new();
        for n in 0..6 {
            let (service, n) = (service.clone(), (n + round) % 10);
            asking.spawn(async move {
                // Some callers cancel their request while the store is being queried.
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
                Err(code) => assert!(
                    ["gone", "session_backend_unavailable"].contains(&&*code),
                    "{code}"
                ),
            }
        }
    }
    proxy.set(Fault::None);
    let last = eventually("recovery", async || ask(&service, "s7").await).await;
    assert_eq!(last, "user-7");
    assert!(
        answered > 0,
        "no request got a token, so the test checks nothing"
    );
}

/// Checks that 1,000 concurrent requests get a token or 503, and that the pool does not exceed its limit.
async fn concurrent_callers_stay_within_the_pool(toml: &str, upstream: u16) {
    let proxy = Proxy::start(upstream).await;
    let service = Arc::new(service(toml, proxy.port));
    assert_eq!(ask(&service, "s0").await.as_deref(), Ok("user-0"));
    proxy.set(Fault::Delay(Duration::from_millis(200)));
    let mut tasks = JoinSet::new();
    for n in 0..1000 {
        let service = service.clone();
        tasks.spawn(async move { (n % 10, ask(&service, &format!("s{}", n % 10)).await) });
    }
    for (n, answer) in tasks.join_all().await {
        match answer {
            Ok(subject) => assert_eq!(subject, format!("user-{n}")),
            Err(code) => assert!(
                ["session_backend_unavailable", "overloaded"].contains(&&*code),
                "{code}"
            ),
        }
    }
    // The pool has at most 8 connections, but on a busy machine the proxy still counts connections that are closing.
    assert!(
        proxy.most() <= 32,
        "{} connections, including closing ones",
        proxy.most()
    );
    proxy.set(Fault::None);
    assert_eq!(
        eventually("recovery", async || ask(&service, "s3").await).await,
        "user-3"
    );
}

/// Cancels 10,000 requests at different stages. Checks that each caller then gets its own session, and that the pool
/// does not exceed its limit.
async fn cancelled_requests_leave_the_pool_intact(toml: &str, upstream: u16) {
    let proxy = Proxy::start(upstream).await;
    let service = Arc::new(service(toml, proxy.port));
    let mut callers = JoinSet::new();
    for caller in 0..50 {
        let service = service.clone();
        callers.spawn(async move {
            for n in 0..200 {
                let id = format!("s{}", n % 10);
                let mut asking = pin!(ask(&service, &id));
                for _ in 0..(caller + n) % 40 {
                    if poll_fn(|cx| Poll::Ready(asking.as_mut().poll(cx)))
                        .await
                        .is_ready()
                    {
                        break;
                    }
                    tokio::task::yield_now().await;
                }
            }
        });
    }
    callers.join_all().await;
    for n in 0..10 {
        let answer = eventually("an answer", async || ask(&service, &format!("s{n}")).await).await;
        assert_eq!(answer, format!("user-{n}"));
    }
    assert!(proxy.most() <= 32, "{} connections", proxy.most());
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_network_faults_are_503_and_no_caller_gets_another_session() {
    let redis = redis_with_users(&[]).await;
    every_fault_is_503(REDIS, redis.port).await;
    each_caller_gets_only_its_own_session(REDIS, redis.port).await;
    concurrent_callers_stay_within_the_pool(REDIS, redis.port).await;
    cancelled_requests_leave_the_pool_intact(REDIS, redis.port).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_network_faults_are_503_and_no_caller_gets_another_session() {
    let postgres = Postgres::start(&[]).await;
    postgres.run("postgres", USERS).await;
    every_fault_is_503(POSTGRES, postgres.port).await;
    each_caller_gets_only_its_own_session(POSTGRES, postgres.port).await;
    concurrent_callers_stay_within_the_pool(POSTGRES, postgres.port).await;
    cancelled_requests_leave_the_pool_intact(POSTGRES, postgres.port).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mariadb_network_faults_and_query_errors_are_503() {
    let mariadb = MariaDb::start(&[]).await;
    mariadb
        .run("CREATE TABLE sessions (id varchar(40) PRIMARY KEY, user_id varchar(40))")
        .await;
    mariadb
        .run("INSERT INTO sessions SELECT concat('s', seq), concat('user-', seq) FROM seq_0_to_9")
        .await;
    every_fault_is_503(MARIADB, mariadb.port).await;
    each_caller_gets_only_its_own_session(MARIADB, mariadb.port).await;
    concurrent_callers_stay_within_the_pool(MARIADB, mariadb.port).await;
    cancelled_requests_leave_the_pool_intact(MARIADB, mariadb.port).await;
    let query = "SELECT user_id FROM sessions WHERE id = $1";
    mariadb.run("CREATE USER other@127.0.0.1").await;
    for (case, toml) in [
        (
            "schema missing",
            MARIADB.replace("FROM sessions", "FROM nowhere"),
        ),
        ("permission", MARIADB.replace("root@", "other@")),
        ("no such database", MARIADB.replace("/mysql?", "/nowhere?")),
        (
            "statement timeout",
            MARIADB.replace(
                query,
                "SELECT user_id FROM sessions WHERE id = $1 AND SLEEP(5) = 0",
            ),
        ),
        (
            "several rows",
            MARIADB.replace(query, "SELECT user_id FROM sessions WHERE $1 <> ''"),
        ),
        (
            "TLS is requested",
            MARIADB.replace("ssl-mode=disabled", "ssl-mode=required"),
        ),
    ] {
        let refused = ask(&service(&toml, mariadb.port), "s1").await;
        assert_eq!(
            refused,
            Err("session_backend_unavailable".to_owned()),
            "{case}"
        );
    }
}

/// Counts the responses to callers that send requests continuously: tokens, 503s, and all other responses.
#[derive(Default)]
struct Seen {
    tokens: AtomicUsize,
    unavailable: AtomicUsize,
    others: Mutex<Vec<String>>,
    is_over: AtomicBool,
}

impl Seen {
    async fn more(&self, counter: fn(&Self) -> &AtomicUsize, count: usize) {
        let target = counter(self).load(Ordering::SeqCst) + count;
        let reached = async || {
            if counter(self).load(Ordering::SeqCst) >= target {
                Ok(())
            } else {
                Err("not yet")
            }
        };
        eventually("enough answers", reached).await;
    }
}

/// Returns the extractor's state in `/readyz`. The status must be 200, because no other instance could reach the store
/// either.
async fn state(service: &Service) -> String {
    let answer = service
        .request(reqwest::Method::GET, "/readyz")
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 200);
    text(&answer.json::<Value>().await.unwrap()["extractors"][0]["state"])
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_killed_under_load_is_503_until_it_restarts() {
    let mut redis = redis_with_users(&["--appendonly", "yes", "--appendfsync", "always"]).await;
    let (service, seen) = (
        Arc::new(service(REDIS, redis.port)),
        Arc::new(Seen::default()),
    );
    let mut tasks = JoinSet::new();
    for n in 0..8 {
        let (service, seen) = (service.clone(), seen.clone());
        tasks.spawn(async move {
            while !seen.is_over.load(Ordering::SeqCst) {
                match ask(&service, &format!("s{n}")).await {
                    Ok(subject) if subject == format!("user-{n}") => {
                        seen.tokens.fetch_add(1, Ordering::SeqCst)
                    }
                    Err(code) if code == "session_backend_unavailable" => {
                        seen.unavailable.fetch_add(1, Ordering::SeqCst)
                    }
                    Ok(other) | Err(other) => {
                        seen.others.lock().unwrap().push(other);
                        0
                    }
                };
            }
        });
    }
    for _ in 0..3 {
        seen.more(|seen| &seen.tokens, 100).await;
        redis.kill();
        seen.more(|seen| &seen.unavailable, 100).await;
        assert_eq!(state(&service).await, "stale");
        redis.restart();
        // Once Redis has loaded its data, the first request gets a token.
        redis.connection().await;
        let loaded = async || redis.get("sess:s9").await.ok_or("still loading");
        eventually("redis-server's data", loaded).await;
        assert_eq!(ask(&service, "s9").await.as_deref(), Ok("user-9"));
        let ready = async || {
            if state(&service).await == "ready" {
                Ok(())
            } else {
                Err("stale")
            }
        };
        eventually("readiness", ready).await;
    }
    seen.is_over.store(true, Ordering::SeqCst);
    tasks.join_all().await;
    assert_eq!(*seen.others.lock().unwrap(), Vec::<String>::new());
}

/// Redis replies with an error, such as `LOADING`, `READONLY`, `MOVED` or `NOPERM`, or with a malformed reply.
#[tokio::test(flavor = "multi_thread")]
async fn redis_error_replies_are_503_until_redis_recovers() {
    let redis = redis_with_users(&["--replica-serve-stale-data", "no"]).await;
    let proxy = Proxy::start(redis.port).await;
    let behind = service(REDIS, proxy.port);
    for answer in [
        "-LOADING Redis is loading the dataset in memory\r\n",
        "-READONLY You can't write against a read only replica.\r\n",
        "-MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.\r\n",
        "-MOVED 3999 127.0.0.1:6381\r\n",
        "-ASK 3999 127.0.0.1:6381\r\n",
        "-CLUSTERDOWN The cluster is down\r\n",
        "-NOAUTH Authentication required.\r\n",
        "-NOPERM No permissions to access a key\r\n",
        "-ERR max number of clients reached\r\n",
        "-BUSY Redis is busy running a script.\r\n",
        // These are not valid replies to GETRANGE.
        ":1\r\n",
        "*1\r\n$1\r\nx\r\n",
        "+OK\r\n",
        "HTTP/1.1 200 OK\r\n\r\n",
    ] {
        proxy.set(Fault::None);
        let good = eventually("recovery", async || ask(&behind, "s1").await).await;
        assert_eq!(good, "user-1", "before {answer}");
        proxy.set(Fault::Say(answer));
        for _ in 0..2 {
            assert_eq!(
                ask(&behind, "s1").await,
                Err("session_backend_unavailable".to_owned()),
                "{answer}"
            );
        }
    }
    // A real Redis server replies with `MASTERDOWN` while it is a replica whose primary is down.
    let direct = service(REDIS, redis.port);
    assert_eq!(ask(&direct, "s1").await.as_deref(), Ok("user-1"));
    redis
        .run(&["REPLICAOF", "127.0.0.1", &free_port().to_string()])
        .await;
    assert_eq!(
        ask(&direct, "s1").await,
        Err("session_backend_unavailable".to_owned())
    );
    redis.run(&["REPLICAOF", "NO", "ONE"]).await;
    assert_eq!(ask(&direct, "s1").await.as_deref(), Ok("user-1"));
}

/// The output of `rollout-token explain` for a request with this session id.
pub async fn explain(toml: &str, port: u16, id: &str) -> String {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), configuration(toml, port)).unwrap();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_rollout-token"));
    command
        .arg("--config")
        .arg(file.path())
        .args(["explain", "-b", &format!("sid={id}")]);
    command.env_clear().envs(crate::helpers::client_variables());
    let output = tokio::task::spawn_blocking(move || command.output())
        .await
        .unwrap()
        .unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test]
async fn explain_and_metrics_report_the_store_error_without_secrets() {
    let (redis, postgres) = (redis_with_users(&[]).await, Postgres::start(&[]).await);
    redis.run(&["RPUSH", "sess:s3cr3t-list", "x"]).await;
    redis
        .run(&[
            "SET",
            "sess:s3cr3t",
            r#"{"cookie":{"path":"s3cr3t"},"user":{"ids":[7,null],"ok":true}}"#,
        ])
        .await;
    postgres.run("postgres", USERS).await;
    let url = "postgres://postgres@";
    let lost = POSTGRES
        .replace(url, "postgres://postgres:s3cr3t@")
        .replace("FROM sessions", "FROM nowhere");
    for (case, toml, port, id, said) in [
        ("a user", REDIS, redis.port, "s1", "subject = \"user-1\""),
        (
            "nobody",
            REDIS,
            redis.port,
            "s3cr3t",
            "no_subject (no value at {user_id})  <- decides\n    \
             the session has {cookie: {path: text}, user: {ids: [number, null], ok: true or false}}",
        ),
        (
            "no such key",
            REDIS,
            redis.port,
            "s3cr3t-x",
            "no session with this id under the prefix \"sess:\"",
        ),
        (
            "no text",
            REDIS,
            redis.port,
            "s3cr3t-list",
            "session_corrupt (the key holds something other than",
        ),
        (
            "no Redis",
            REDIS,
            free_port(),
            "s3cr3t",
            "store_unreachable (127.0.0.1:",
        ),
        (
            "a row",
            POSTGRES,
            postgres.port,
            "s1",
            "the session has {user_id: text}",
        ),
        (
            "no row",
            POSTGRES,
            postgres.port,
            "s3cr3t",
            "session_not_found (the query finds no row)",
        ),
        (
            "no table",
            &lost,
            postgres.port,
            "s3cr3t",
            "store_refused (error 42P01: relation",
        ),
    ] {
        let explained = explain(toml, port, id).await;
        assert!(explained.contains(said), "{case}: {explained}");
        assert!(!explained.contains("s3cr3t"), "{case}: {explained}");
    }
    for (toml, port, id, result) in [
        (REDIS, redis.port, "s1", "ok"),
        (REDIS, redis.port, "absent", "ok"),
        (REDIS, free_port(), "s1", "store_unreachable"),
        (POSTGRES, postgres.port, "s1", "ok"),
        (lost.as_str(), postgres.port, "s1", "store_refused"),
    ] {
        let service = service(toml, port);
        ask(&service, id).await.ok();
        let line = format!(
            "rollout_token_backend_duration_seconds_count{{extractor=\"web\",result=\"{result}\"}} 1"
        );
        let metrics = service.metrics().await;
        assert!(
            metrics.lines().any(|seen| seen == line),
            "{line}: {metrics}"
        );
    }
}

/// A store's user name, password and keys do not appear, but its host, its port and its own error text do.
#[tokio::test]
async fn explain_names_the_address_and_the_error_text_of_a_store_that_cannot_be_used() {
    let redis = Redis::start(&[]).await;
    let closed = free_port();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = listener.local_addr().unwrap();
    for (case, toml, port, said) in [
        (
            "no such database",
            &REDIS.replace("PORT", "PORT/99"),
            redis.port,
            "store_refused (the store answered ERR: DB index is out of range)",
        ),
        (
            "wrong password",
            &REDIS.replace("redis://", "redis://ann:s3cr3t@"),
            redis.port,
            "store_refused (the store answered that it does not accept this service's credentials: check the user \
             and the database number in url, and the password in url, password or password_file)",
        ),
        (
            "wrong password, RESP3",
            &REDIS
                .replace("redis://", "redis://ann:s3cr3t@")
                .replace("PORT", "PORT/?protocol=resp3"),
            redis.port,
            "store_refused (the store answered WRONGPASS: check the user and the database number in url, and the password in url, password or password_file)",
        ),
        (
            "TLS on a plain port",
            &REDIS.replace("redis://", "rediss://"),
            silent.port(),
            &format!(
                "store_timeout ({silent}: no connection within 500ms (set by the key timeout), and the server sent no TLS answer: if the server does not use TLS, write redis:// in url)"
            ),
        ),
        (
            "no database server",
            &POSTGRES.replace("postgres@", "postgres:s3cr3t@"),
            closed,
            &format!("store_unreachable (127.0.0.1:{closed}: "),
        ),
    ] {
        let explained = explain(toml, port, "s3cr3t").await;
        assert!(explained.contains(said), "{case}: {explained}");
        assert!(!explained.contains("s3cr3t"), "{case}: {explained}");
    }
}

/// For each session id, the service reads exactly one key from Redis, or none if the id is invalid.
#[tokio::test]
async fn at_most_one_redis_key_is_read_for_each_session_id() {
    let redis = redis_with_users(&[]).await;
    let mut monitor = redis.monitor().await;
    let signed = REDIS.replace(
        "cookie = \"sid\"",
        "cookie = \"sid\"\ncookie_format = \"express_signed\"\ncookie_secrets = [\"keyboard cat\"]",
    );
    let (plain, signed) = (service(REDIS, redis.port), service(&signed, redis.port));
    let long = "x".repeat(257);
    // Each id is sent twice: as the cookie's plain value, and signed.
    for (id, plainly, if_signed) in [
        ("s1", true, true),
        ("*", true, true),
        ("sess:*", false, true),
        ("'OR'1'='1", true, true),
        ("../s1", true, true),
        ("s1\\r\\nFLUSHALL", true, true),
        ("s1\r\nFLUSHALL", false, true),
        ("s1\0", false, true),
        ("' OR 1", false, true),
        ("", false, false),
        ("\u{ff}\u{a0}", false, true),
        (long.as_str(), false, false),
    ] {
        let is_sendable = id.bytes().all(|byte| (b' '..=b'~').contains(&byte));
        let answers = [
            if is_sendable {
                ask(&plain, id).await
            } else {
                Err("session_invalid".to_owned())
            },
            ask(&signed, &express_signed(id)).await,
        ];
        let sent = usize::from(plainly) + usize::from(if_signed);
        // MONITOR escapes strings in this way.
        let key = format!("sess:{id}")
            .into_bytes()
            .escape_ascii()
            .to_string()
            .replace("\\'", "'");
        let expected = format!("\"GETRANGE\" \"{key}\" \"0\" \"1048576\"");
        assert_eq!(monitor.commands().await, vec![expected; sent], "{id:?}");
        for answer in answers {
            let code = if id == "s1" {
                Ok("user-1".to_owned())
            } else {
                Err("session_invalid".to_owned())
            };
            let nothing = id.is_empty() && answer == Err("no_session".to_owned());
            assert!(answer == code || nothing, "{id:?}: {answer:?}");
        }
    }
    let raw = "POST /rollout/token HTTP/1.1\r\nHost: h\r\nConnection: close\r\nCookie: sid=";
    for (case, bytes, status) in [
        (
            "0xff",
            [raw.as_bytes(), b"s1\xff\r\n\r\n"].concat(),
            " 401 ",
        ),
        (
            "1 MiB",
            [raw.as_bytes(), "x".repeat(1 << 20).as_bytes(), b"\r\n\r\n"].concat(),
            " 431 ",
        ),
    ] {
        let answer = plain.raw(&bytes).await;
        assert!(answer.contains(status), "{case}: {answer}");
        assert_eq!(monitor.commands().await, Vec::<String>::new(), "{case}");
    }
}

/// The signed cookie value that express-session writes for this session id.
pub fn express_signed(id: &str) -> String {
    use aws_lc_rs::hmac;
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD_NO_PAD;
    let tag = hmac::sign(
        &hmac::Key::new(hmac::HMAC_SHA256, b"keyboard cat"),
        id.as_bytes(),
    );
    let text = format!("s:{id}.{}", STANDARD_NO_PAD.encode(tag));
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

#[tokio::test]
async fn redis_acl_user_with_only_getrange_can_read_sessions() {
    let redis = redis_with_users(&[]).await;
    redis
        .run(&[
            "ACL",
            "SETUSER",
            "reader",
            "on",
            ">hunter2",
            "~sess:*",
            "+getrange",
        ])
        .await;
    let good = REDIS.replace("127.0.0.1", "reader:hunter2@127.0.0.1");
    assert_eq!(
        ask(&service(&good, redis.port), "s1").await.as_deref(),
        Ok("user-1")
    );
    let by_key = REDIS.replace("127.0.0.1", "reader@127.0.0.1") + "\npassword = \"hunter2\"";
    assert_eq!(
        ask(&service(&by_key, redis.port), "s1").await.as_deref(),
        Ok("user-1")
    );
    let elsewhere = good.replace("sess:", "other:");
    let refused = ask(&service(&elsewhere, redis.port), "s1").await;
    assert_eq!(
        refused,
        Err("session_backend_unavailable".to_owned()),
        "the ACL user must not read keys with another prefix"
    );
}

/// Checks that the store is used only with a certificate that a trusted authority issued for the store's host name.
async fn only_a_server_with_a_trusted_certificate_is_used(
    toml: &str,
    port: u16,
    ours: &Certificate,
) {
    let other = Certificate::issue("root");
    // Use a long timeout, because TLS handshakes are slow in a debug build on a busy machine.
    let toml = &format!("{toml}\ntimeout = \"5s\"");
    let with =
        |toml: &str, ca: &Certificate| format!("{toml}\nca_file = \"{}\"", ca.authority.display());
    let by_address = toml.replace("localhost", "127.0.0.1");
    let for_all = format!(
        "{toml}\n[outgoing]\nca_file = \"{}\"",
        ours.authority.display()
    );
    for (case, toml, want) in [
        ("our authority", with(toml, ours), Ok("user-1".to_owned())),
        (
            "our authority, configured in [outgoing]",
            for_all,
            Ok("user-1".to_owned()),
        ),
        (
            "unknown authority",
            toml.to_owned(),
            Err("session_backend_unavailable".to_owned()),
        ),
        (
            "another authority",
            with(toml, &other),
            Err("session_backend_unavailable".to_owned()),
        ),
        (
            "another name",
            with(&by_address, ours),
            Err("session_backend_unavailable".to_owned()),
        ),
    ] {
        assert_eq!(ask(&service(&toml, port), "s1").await, want, "{case}");
    }
}

#[tokio::test]
async fn redis_over_tls_is_used_only_with_a_trusted_certificate() {
    let certificate = Certificate::issue("root");
    let port = free_port();
    let path = |path: &std::path::Path| path.display().to_string();
    let redis = redis_with_users(&[
        "--tls-port",
        &port.to_string(),
        "--tls-cert-file",
        &path(&certificate.chain),
        "--tls-key-file",
        &path(&certificate.key),
        "--tls-ca-cert-file",
        &path(&certificate.authority),
        "--tls-auth-clients",
        "no",
    ])
    .await;
    let toml = REDIS.replace("redis://127.0.0.1", "rediss://localhost");
    only_a_server_with_a_trusted_certificate_is_used(&toml, port, &certificate).await;
    drop(redis);
}

/// `openssl req -x509` creates a CA certificate without a host name. rustls rejects it as a server certificate, but the
/// service accepts it if `ca_file` contains exactly this certificate.
#[tokio::test]
async fn redis_with_a_self_signed_certificate_is_used_only_if_ca_file_contains_it() {
    let (ours, other) = (Certificate::plain_openssl(), Certificate::plain_openssl());
    let port = free_port();
    let path = |path: &std::path::Path| path.display().to_string();
    let redis = redis_with_users(&[
        "--tls-port",
        &port.to_string(),
        "--tls-cert-file",
        &path(&ours.chain),
        "--tls-key-file",
        &path(&ours.key),
        "--tls-auth-clients",
        "no",
    ])
    .await;
    let toml = REDIS.replace("redis://", "rediss://");
    for (given, want) in [
        (&ours, Ok("user-1".to_owned())),
        (&other, Err("session_backend_unavailable".to_owned())),
    ] {
        let toml = format!(
            "{toml}\ntimeout = \"5s\"\nca_file = \"{}\"",
            given.authority.display()
        );
        assert_eq!(ask(&service(&toml, port), "s1").await, want);
    }
    drop(redis);
}

#[tokio::test]
async fn postgres_over_tls_is_used_only_with_a_trusted_certificate() {
    let certificate = Certificate::issue("postgres");
    let setting = |name: &str, path: &std::path::Path| format!("{name}={}", path.display());
    let postgres = Postgres::start(&[
        "ssl=on",
        &setting("ssl_cert_file", &certificate.chain),
        &setting("ssl_key_file", &certificate.key),
    ])
    .await;
    postgres.run("postgres", USERS).await;
    let toml = POSTGRES
        .replace("@127.0.0.1", "@localhost")
        .replace("sslmode=disable", "sslmode=verify-full");
    only_a_server_with_a_trusted_certificate_is_used(&toml, postgres.port, &certificate).await;
    // `sslrootcert` is libpq's URL parameter for the certificate authority.
    let in_url = toml.replace(
        "verify-full",
        &format!(
            "verify-full&sslrootcert={}",
            certificate.authority.display()
        ),
    );
    assert_eq!(
        ask(&service(&in_url, postgres.port), "s1").await.as_deref(),
        Ok("user-1")
    );
}

#[tokio::test]
async fn mariadb_over_tls_is_used_only_with_a_trusted_certificate() {
    let certificate = Certificate::issue("mysql");
    let setting = |name: &str, path: &std::path::Path| format!("--{name}={}", path.display());
    let mariadb = MariaDb::start(&[
        &setting("ssl-cert", &certificate.chain),
        &setting("ssl-key", &certificate.key),
    ])
    .await;
    mariadb
        .run("CREATE TABLE sessions (id varchar(40) PRIMARY KEY, user_id varchar(40))")
        .await;
    mariadb
        .run("INSERT INTO sessions VALUES ('s1', 'user-1')")
        .await;
    let toml = MARIADB
        .replace("@127.0.0.1", "@localhost")
        .replace("disabled", "verify_identity");
    only_a_server_with_a_trusted_certificate_is_used(&toml, mariadb.port, &certificate).await;
}

/// A missing key or a malformed session gets 401, because a request with such a session id must not look like an
/// outage.
#[tokio::test]
async fn missing_or_malformed_redis_session_is_401() {
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
    for id in [
        "list",
        "empty",
        "garbage",
        "array",
        "twice",
        "absent",
        "*",
        "sess:list",
        "..",
        "'OR'1",
    ] {
        assert_eq!(
            ask(&service, id).await,
            Err("session_invalid".to_owned()),
            "{id}"
        );
    }
    assert_eq!(ask(&service, "nobody").await, Err("no_session".to_owned()));
}

#[tokio::test]
async fn redis_with_wrong_credentials_is_503() {
    let redis = Redis::start(&["--requirepass", "hunter2"]).await;
    for (case, user) in [
        ("no password", ""),
        ("wrong password", ":wrong@"),
        ("no such user", "nobody:x@"),
    ] {
        let toml = REDIS.replace("127.0.0.1", &format!("{user}127.0.0.1"));
        let refused = ask(&service(&toml, redis.port), "s1").await;
        assert_eq!(
            refused,
            Err("session_backend_unavailable".to_owned()),
            "{case}"
        );
    }
    let known = REDIS.replace("127.0.0.1", ":hunter2@127.0.0.1");
    assert_eq!(
        ask(&service(&known, redis.port), "s1").await,
        Err("session_invalid".to_owned())
    );
    let tls = REDIS.replace("redis://", "rediss://");
    assert_eq!(
        ask(&service(&tls, redis.port), "s1").await,
        Err("session_backend_unavailable".to_owned())
    );
}

#[tokio::test]
async fn failing_postgres_query_is_503() {
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
        (
            "schema missing",
            POSTGRES.replace("FROM sessions", "FROM nowhere"),
        ),
        ("permission", POSTGRES.replace("postgres@", "other@")),
        (
            "too many connections",
            POSTGRES.replace("postgres@", "full_up@"),
        ),
        (
            "no such database",
            POSTGRES.replace("/postgres?", "/nowhere?"),
        ),
        (
            "statement timeout",
            POSTGRES.replace(
                query,
                "SELECT user_id FROM sessions, pg_sleep(5) WHERE id = $1",
            ),
        ),
        (
            "would write",
            POSTGRES.replace(
                query,
                "SELECT user_id, nextval('s') FROM sessions WHERE id = $1",
            ),
        ),
        (
            "several rows",
            POSTGRES.replace(query, "SELECT user_id FROM sessions WHERE $1 <> ''"),
        ),
        (
            "TLS is requested",
            POSTGRES.replace("sslmode=disable", "sslmode=require"),
        ),
    ] {
        let refused = ask(&service(&toml, postgres.port), "s1").await;
        assert_eq!(
            refused,
            Err("session_backend_unavailable".to_owned()),
            "{case}"
        );
    }
}
