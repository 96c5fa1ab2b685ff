//! Sessions of real frameworks in SQLite, through the front door. The other stores need a server: see
//! `tests/stores/`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::needless_pass_by_value,
    clippy::doc_markdown,
    clippy::unnecessary_wraps,
    clippy::redundant_closure_for_method_calls,
    dead_code,
    reason = "a test says what it expects by panicking; the harness is shared with other tests"
)]

#[path = "stores/cases.rs"]
mod cases;
#[path = "api/helpers.rs"]
mod helpers;

use std::path::{Path, PathBuf};

use cases::{Case, Count, check_all};
use serde_json::Value;
use sqlx::{ConnectOptions, SqliteConnection, sqlite::SqliteConnectOptions};

async fn open(path: &Path) -> SqliteConnection {
    let options = SqliteConnectOptions::new().filename(path).create_if_missing(true);
    options.connect().await.expect("a database")
}

/// Makes the table anew and fills it with the case's rows.
async fn load(path: &Path, table: &str, columns: &[&str], case: &Case) -> String {
    let mut connection = open(path).await;
    let list = columns.join(", ");
    let sql = format!("DROP TABLE IF EXISTS {table}; CREATE TABLE {table} ({list})");
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&mut connection).await.expect("a table");
    for row in case.rows() {
        let marks = vec!["?"; columns.len()].join(", ");
        let sql = format!("INSERT INTO {table} VALUES ({marks})");
        let mut insert = sqlx::query(sqlx::AssertSqlSafe(sql));
        for column in columns {
            insert = match &row[column.trim_matches('"')] {
                Value::Number(number) => insert.bind(number.as_i64()),
                value => insert.bind(value.as_str().map(str::to_owned)),
            };
        }
        insert.execute(&mut connection).await.expect("a row");
    }
    format!("sqlite://{}", path.display())
}

fn database() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("app.sqlite3");
    (directory, path)
}

#[tokio::test]
async fn django() {
    let (_directory, path) = database();
    let columns = ["session_key", "session_data", "expire_date"];
    let count =
        check_all("django-db", async |case| Some(load(&path, "django_session", &columns, case).await));
    assert_eq!(count.await, Count { run: 120, skipped: 4 });
}

#[tokio::test]
async fn authjs() {
    let (_directory, path) = database();
    let columns = ["\"sessionToken\"", "\"userId\"", "\"expires\""];
    let count =
        check_all("authjs-database", async |case| Some(load(&path, "\"Session\"", &columns, case).await));
    assert_eq!(count.await, Count { run: 26, skipped: 0 });
}

#[tokio::test]
async fn better_auth() {
    let (_directory, path) = database();
    let columns = ["\"token\"", "\"userId\"", "\"expiresAt\""];
    let count = check_all("better-auth", async |case| {
        let url = load(&path, "\"session\"", &columns, case).await;
        // Secondary storage is Redis: `tests/stores/` has it.
        (case.config["store"] != "redis").then_some(url)
    });
    assert_eq!(count.await, Count { run: 53, skipped: 26 });
}
