//! Tests of stored sessions above the size limit of 1 MiB, of the expiry of Redis keys, and of hashed session ids.

use std::sync::Arc;

use tokio::task::JoinSet;

use crate::faults::{MARIADB, POSTGRES, REDIS, ask, configuration, redis_with_users, service};
use crate::helpers::Service;
use crate::proxy::Proxy;
use crate::servers::{MariaDb, Postgres, Redis, eventually};

const MIB: usize = 1024 * 1024;

async fn set_large(redis: &Redis, key: &str, length: usize) {
    redis
        .run(&["SETRANGE", key, &(length - 1).to_string(), "}"])
        .await;
}

fn invalid() -> Result<String, String> {
    Err("session_invalid".to_owned())
}

/// Sends eight requests for a value of 10 MiB, and eight legitimate requests at the same time.
#[tokio::test(flavor = "multi_thread")]
async fn redis_values_of_10_mib_are_truncated_by_redis_and_other_callers_are_served() {
    let redis = redis_with_users(&[]).await;
    set_large(&redis, "sess:large", 10 * MIB).await;
    let proxy = Proxy::start(redis.port).await;
    let service = Arc::new(service(
        &format!("{REDIS}\ntimeout = \"5s\"\npool_wait = \"5s\""),
        proxy.port,
    ));
    let mut asking = JoinSet::new();
    for n in 0..8 {
        let (large, honest) = (service.clone(), service.clone());
        asking.spawn(async move { (ask(&large, "large").await, invalid()) });
        let user = format!("user-{n}");
        asking.spawn(async move { (ask(&honest, &format!("s{n}")).await, Ok(user)) });
    }
    for (answer, want) in asking.join_all().await {
        assert_eq!(answer, want);
    }
    assert!(
        proxy.relayed() < 9 * MIB,
        "Redis sent {} bytes for 8 values of 10 MiB",
        proxy.relayed()
    );
}

#[tokio::test]
async fn redis_value_of_1_mib_is_accepted_and_a_longer_one_is_401() {
    let redis = Redis::start(&[]).await;
    let json = r#"{"user_id":"ann"}"#;
    for (id, length) in [("longest", MIB), ("too-long", MIB + 1)] {
        redis
            .run(&[
                "SET",
                &format!("sess:{id}"),
                &format!("{json}{}", " ".repeat(length - json.len())),
            ])
            .await;
    }
    let service = service(REDIS, redis.port);
    assert_eq!(ask(&service, "longest").await.as_deref(), Ok("ann"));
    assert_eq!(ask(&service, "too-long").await, invalid());
}

#[tokio::test]
async fn without_getrange_the_connection_is_closed_after_a_value_over_1_mib() {
    let redis = redis_with_users(&[]).await;
    set_large(&redis, "sess:large", 2 * MIB).await;
    redis
        .run(&[
            "ACL", "SETUSER", "getter", "on", ">hunter2", "~sess:*", "+get",
        ])
        .await;
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
    for (user, is_kept) in [("getter", false), ("reader", true)] {
        let proxy = Proxy::start(redis.port).await;
        let toml = REDIS.replace("127.0.0.1", &format!("{user}:hunter2@127.0.0.1"));
        let service = service(&format!("{toml}\ntimeout = \"5s\""), proxy.port);
        assert_eq!(ask(&service, "s1").await.as_deref(), Ok("user-1"), "{user}");
        assert_eq!(ask(&service, "absent").await, invalid(), "{user}");
        assert_eq!(proxy.closed(), 0, "{user}");
        assert_eq!(ask(&service, "large").await, invalid(), "{user}");
        if !is_kept {
            closes_one_connection(&proxy).await;
        }
        assert_eq!(ask(&service, "s2").await.as_deref(), Ok("user-2"), "{user}");
        assert_eq!(proxy.closed(), usize::from(!is_kept), "{user}");
    }
}

async fn closes_one_connection(proxy: &Proxy) {
    let closed = async || {
        if proxy.closed() == 1 {
            Ok(())
        } else {
            Err(proxy.closed())
        }
    };
    eventually("the connection is closed", closed).await;
}

#[tokio::test]
async fn redis_without_getrange_is_read_with_get() {
    let redis = redis_with_users(&["--rename-command", "GETRANGE", ""]).await;
    let service = service(REDIS, redis.port);
    let mut monitor = redis.monitor().await;
    for id in ["s1", "s2"] {
        assert_eq!(ask(&service, id).await, Ok(id.replace('s', "user-")));
    }
    assert_eq!(
        monitor.commands().await,
        [r#""GET" "sess:s1""#, r#""GET" "sess:s2""#]
    );
}

async fn expires_in(service: &Service, id: &str) -> Result<i64, String> {
    let (_, body) = service.ask(&[("cookie", &format!("sid={id}"))]).await;
    body["expires_in"]
        .as_i64()
        .ok_or_else(|| body["code"].as_str().unwrap().to_owned())
}

#[tokio::test]
async fn cap_to_session_limits_the_token_to_the_expiry_of_the_redis_key() {
    let redis = redis_with_users(&[]).await;
    redis.run(&["PEXPIRE", "sess:s1", "100500"]).await;
    redis.run(&["PEXPIRE", "sess:s2", "100000000"]).await;
    let capped = |toml: &str| {
        Service::start(format!(
            "token.cap_to_session = true\n{}",
            configuration(toml, redis.port)
        ))
    };
    let service = capped(REDIS);
    let short = expires_in(&service, "s1").await.unwrap();
    assert!((40..=100).contains(&short), "{short}");
    assert_eq!(
        expires_in(&service, "s2").await,
        Ok(900),
        "the key expires later than the token"
    );
    assert_eq!(
        expires_in(&service, "s3").await,
        Ok(900),
        "the key does not expire"
    );
    assert_eq!(
        expires_in(&service, "absent").await,
        Err("session_invalid".to_owned())
    );
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
    let reader = REDIS.replace("127.0.0.1", "reader:hunter2@127.0.0.1");
    assert_eq!(
        expires_in(&capped(&reader), "s1").await,
        Err("session_backend_unavailable".to_owned())
    );
    redis.run(&["ACL", "SETUSER", "reader", "+pttl"]).await;
    let short = expires_in(&capped(&reader), "s1").await.unwrap();
    assert!((40..=100).contains(&short), "{short}");
}

/// express-session's `touch` extends the key's expiry, but does not change `cookie.expires` in the value.
#[tokio::test]
async fn connect_redis_session_is_active_until_its_key_expires() {
    let redis = Redis::start(&[]).await;
    let value = r#"{"cookie":{"originalMaxAge":60000,"expires":"2020-01-01T00:00:00.000Z"},"passport":{"user":"ann"}}"#;
    redis.run(&["SET", "sess:s1", value, "EX", "1000"]).await;
    let service = service(
        "kind = \"redis_session\"\npreset = \"connect-redis\"\ncookie = \"sid\"\ncookie_secrets = [\"keyboard cat\"]\n\
         url = \"redis://127.0.0.1:PORT\"",
        redis.port,
    );
    let id = crate::faults::express_signed("s1");
    assert_eq!(ask(&service, &id).await.as_deref(), Ok("ann"));
    redis.run(&["DEL", "sess:s1"]).await;
    assert_eq!(ask(&service, &id).await, invalid());
}

#[tokio::test]
async fn key_hash_sha256_finds_the_session_under_the_hash_of_its_id() {
    let redis = Redis::start(&[]).await;
    let hash = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    redis
        .run(&["SET", &format!("sess:{hash}"), r#"{"user_id":"ann"}"#])
        .await;
    redis
        .run(&["SET", "sess:abc", r#"{"user_id":"bob"}"#])
        .await;
    let service = service(&format!("{REDIS}\nkey_hash = \"sha256\""), redis.port);
    assert_eq!(ask(&service, "abc").await.as_deref(), Ok("ann"));
    assert_eq!(ask(&service, hash).await, invalid());
}

/// Tests a preset and an operator's query with a row of 10 MiB, and the preset with a normal row.
#[tokio::test]
async fn postgres_truncates_rows_of_10_mib_before_sending_them() {
    let postgres = Postgres::start(&[]).await;
    postgres
        .run(
            "postgres",
            r#"CREATE TABLE session (sid varchar PRIMARY KEY, sess json NOT NULL, expire timestamp(6) NOT NULL);
            INSERT INTO session SELECT 's1', '{"passport":{"user":"ann"}}', '2100-01-01';
            INSERT INTO session SELECT 'large', json_build_object('x', repeat('x', 10485760)), '2100-01-01'"#,
        )
        .await;
    let proxy = Proxy::start(postgres.port).await;
    let query = r#"query = "SELECT user_id FROM sessions WHERE id = $1""#;
    let preset =
        "preset = \"connect-pg-simple\"\ncookie_secrets = [\"keyboard cat\"]\ntimeout = \"5s\"";
    let by_preset = service(&POSTGRES.replace(query, preset), proxy.port);
    assert_eq!(
        ask(&by_preset, &crate::faults::express_signed("large")).await,
        invalid()
    );
    assert_eq!(
        ask(&by_preset, &crate::faults::express_signed("s1"))
            .await
            .as_deref(),
        Ok("ann")
    );
    // The operator's own query reads the same table.
    let own = "query = \"SELECT sess FROM session WHERE sid = $1\"\ntimeout = \"5s\"";
    let by_query = service(&POSTGRES.replace(query, own), proxy.port);
    assert_eq!(ask(&by_query, "large").await, invalid());
    assert!(
        proxy.relayed() < 3 * MIB,
        "PostgreSQL sent {} bytes for 2 rows of 10 MiB",
        proxy.relayed()
    );
}

#[tokio::test]
async fn mariadb_truncates_preset_payloads_and_a_large_row_closes_the_connection() {
    let mariadb = MariaDb::start(&[]).await;
    mariadb
        .run(
            "CREATE TABLE django_session (session_key varchar(40) PRIMARY KEY, session_data longtext NOT NULL,
                expire_date datetime(6) NOT NULL);
            INSERT INTO django_session VALUES ('large-session', repeat('x', 10485760), '2100-01-01');
            CREATE TABLE sessions (id varchar(40) PRIMARY KEY, user_id varchar(40), data longtext);
            INSERT INTO sessions VALUES ('s1', 'ann', '{}'), ('s2', 'bob', repeat('x', 2097152))",
        )
        .await;
    let proxy = Proxy::start(mariadb.port).await;
    let query = "query = \"SELECT user_id FROM sessions WHERE id = $1\"";
    let preset = "preset = \"django\"\nsecret_key = \"a-secret-of-the-app\"\ntimeout = \"5s\"";
    let by_preset = service(&MARIADB.replace(query, preset), proxy.port);
    assert_eq!(ask(&by_preset, "large-session").await, invalid());
    assert!(
        proxy.relayed() < 2 * MIB,
        "MariaDB sent {} bytes for a payload of 10 MiB",
        proxy.relayed()
    );

    let proxy = Proxy::start(mariadb.port).await;
    let own = "query = \"SELECT user_id, data FROM sessions WHERE id = $1\"\ntimeout = \"5s\"";
    let by_query = service(&MARIADB.replace(query, own), proxy.port);
    assert_eq!(ask(&by_query, "s1").await.as_deref(), Ok("ann"));
    assert_eq!(proxy.closed(), 0);
    assert_eq!(ask(&by_query, "s2").await, invalid());
    closes_one_connection(&proxy).await;
    assert_eq!(ask(&by_query, "s1").await.as_deref(), Ok("ann"));
}
