//! Tests of sessions that session libraries of several languages wrote to Redis and SQL tables, and of altered copies.
//! Each vector contains the extractor section that an operator would write.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use sqlx::Connection;

use crate::helpers::{Service, verified};
use crate::servers::{MariaDb, Postgres, Redis};

#[derive(serde::Deserialize)]
struct Family {
    cases: Vec<Case>,
}

#[derive(serde::Deserialize)]
struct Case {
    name: String,
    section: toml::Table,
    headers: BTreeMap<String, String>,
    /// The Redis values by key, base64-encoded.
    redis: BTreeMap<String, String>,
    expect: Value,
}

/// A service with this extractor section and the store at `url`.
fn service(kind: &str, url: String, section: &toml::Table) -> Service {
    let mut section = section.clone();
    for (key, value) in [
        ("kind", kind.to_owned()),
        ("url", url),
        // Use longer timeouts than the defaults, so that a busy machine does not cause 503.
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

/// Requests a token. Returns `{"sub": …}` with its subject, or `{"code": …}` with the error code.
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
async fn redis_sessions_of_libraries_are_accepted_and_altered_copies_are_refused() {
    let text = std::fs::read(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/stores/vectors/redis-stores.json"
    ))
    .expect("vectors");
    let Family { cases } = serde_json::from_slice(&text).expect("vectors");
    let redis = Redis::start(&[]).await;
    let mut services: BTreeMap<String, Service> = BTreeMap::new();
    let (mut wrong, mut accepted) = (Vec::new(), 0);
    for case in &cases {
        load(&redis, case).await;
        let service = services
            .entry(case.section.to_string())
            .or_insert_with(|| service("redis_session", redis.url(), &case.section));
        let found = outcome(service, &case.headers).await;
        accepted += usize::from(found.get("sub").is_some());
        if found != case.expect {
            wrong.push(format!("{}: {found}, not {}", case.name, case.expect));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!((cases.len(), accepted), (324, 52));
}

#[derive(serde::Deserialize)]
struct Tables {
    families: Vec<TableFamily>,
}

/// One library's tables in several databases, and requests whose outcome is the same for each database.
#[derive(serde::Deserialize)]
struct TableFamily {
    name: String,
    dialects: BTreeMap<String, TableSetup>,
    requests: Vec<TableRequest>,
}

#[derive(serde::Deserialize)]
struct TableSetup {
    setup: String,
    section: toml::Table,
}

#[derive(serde::Deserialize)]
struct TableRequest {
    headers: BTreeMap<String, String>,
    expect: Value,
}

/// Runs all requests for one database. `fill` runs a family's SQL in an empty database and returns the database's URL.
/// Returns the number of requests, and the number of those that got a token.
async fn check_tables(
    dialect: &str,
    mut fill: impl AsyncFnMut(&TableFamily, String) -> String,
) -> (usize, usize) {
    let text = std::fs::read(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/stores/vectors/sql-stores.json"
    ))
    .expect("vectors");
    let Tables { families } = serde_json::from_slice(&text).expect("vectors");
    let (mut wrong, mut run, mut accepted) = (Vec::new(), 0, 0);
    for family in &families {
        let Some(setup) = family.dialects.get(dialect) else {
            continue;
        };
        let url = fill(family, setup.setup.clone()).await;
        let service = service("sql_session", url, &setup.section);
        for TableRequest { headers, expect } in &family.requests {
            run += 1;
            let found = outcome(&service, headers).await;
            accepted += usize::from(found.get("sub").is_some());
            if found != *expect {
                wrong.push(format!(
                    "{} {headers:?}: {found}, not {expect}",
                    family.name
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{dialect}: {}", wrong.join("\n"));
    (run, accepted)
}

#[tokio::test]
async fn postgres_session_tables_of_libraries_are_supported() {
    let postgres = Postgres::start(&[]).await;
    let counted = check_tables("postgres", async |family, setup| {
        let database = family.name.replace('-', "_");
        let create = format!("CREATE DATABASE {database}");
        let mut server = postgres.connection("postgres").await;
        let created = sqlx::raw_sql(sqlx::AssertSqlSafe(create)).execute(&mut server);
        created.await.expect("a database");
        let mut connection = postgres.connection(&database).await;
        let filled = sqlx::raw_sql(sqlx::AssertSqlSafe(setup)).execute(&mut connection);
        filled.await.expect("SQL that works");
        postgres.url(&database)
    });
    assert_eq!(counted.await, (128, 32));
}

#[tokio::test]
async fn mariadb_session_tables_of_libraries_are_supported() {
    let mariadb = MariaDb::start(&[]).await;
    let counted = check_tables("mysql", async |family, setup| {
        let database = family.name.replace('-', "_");
        let setup = format!("CREATE DATABASE {database}; USE {database}; {setup}");
        let mut connection = mariadb.connection().await;
        let filled = sqlx::raw_sql(sqlx::AssertSqlSafe(setup)).execute(&mut connection);
        filled.await.expect("SQL that works");
        mariadb.url().replace("/mysql?", &format!("/{database}?"))
    });
    assert_eq!(counted.await, (123, 30));
}

#[tokio::test]
async fn sqlite_session_tables_of_libraries_are_supported() {
    let directory = tempfile::tempdir().expect("a directory");
    let counted = check_tables("sqlite", async |family, setup| {
        let path = directory.path().join(&family.name);
        let url = format!("sqlite://{}", path.display());
        let mut connection = sqlx::SqliteConnection::connect(&format!("{url}?mode=rwc"))
            .await
            .expect("a file");
        let filled = sqlx::raw_sql(sqlx::AssertSqlSafe(setup)).execute(&mut connection);
        filled.await.expect("SQL that works");
        url
    });
    assert_eq!(counted.await, (114, 28));
}
