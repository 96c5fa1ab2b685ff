//! Tests every session in `tests/vectors/` that needs no other server. Here, SQLite replaces the session stores;
//! `tests/stores/` tests sessions in their own stores, and `damaged.rs` tests damaged cookies.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::needless_pass_by_value,
    clippy::doc_markdown,
    clippy::unnecessary_wraps,
    clippy::redundant_closure_for_method_calls,
    dead_code,
    reason = "a test fails by panicking; the harness is shared with other tests"
)]

mod damaged;
mod detection;
#[path = "../api/helpers.rs"]
mod helpers;
#[path = "../shared/vectors.rs"]
mod vectors;

use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use sqlx::{ConnectOptions, SqliteConnection, sqlite::SqliteConnectOptions};
use vectors::{Case, Place, check_all, directory, load};

/// One row per family: the numbers (cases, signed-in cases) for sessions in the request itself, the same numbers for
/// sessions in a store that SQLite can replace, and the number of cases that need another server or store.
macro_rules! families {
    ($($test:ident: $family:literal, $cookies:expr, $stored:expr, $elsewhere:literal;)*) => {
        $(
            #[tokio::test]
            async fn $test() {
                let cookies = check_all($family, async |case| cookie(case)).await;
                let (_directory, path) = database();
                let stored = check_all($family, async |case| store(&path, case).await).await;
                let all = load($family).len();
                assert_eq!((cookies.run, cookies.signed_in), $cookies, "in cookies, signed in");
                assert_eq!((stored.run, stored.signed_in), $stored, "in a store, signed in");
                assert_eq!(all - cookies.run - stored.run, $elsewhere, "elsewhere");
            }
        )*

        #[test]
        fn every_vector_file_has_a_test() {
            let files = std::fs::read_dir(directory()).expect("vectors");
            let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
            let mut files: Vec<_> = names.filter(|name| name.ends_with(".json")).collect();
            files.sort();
            let tested = [$(concat!($family, ".json")),*];
            assert_eq!(files, tested);
        }
    };
}

families! {
    authjs_database: "authjs-database", (0, 0), (26, 6), 0;
    authjs_v5: "authjs-v5", (81, 23), (0, 0), 0;
    better_auth: "better-auth", (22, 3), (53, 10), 4; // in Redis
    cookie_session: "cookie-session", (161, 34), (0, 0), 0;
    devise: "devise", (17, 4), (0, 0), 0;
    django_db: "django-db", (0, 0), (124, 20), 0;
    // Two cases with a changed password are not run here: only the app's table of users shows the change, and only
    // `sql_session` can read that table.
    django_signed_cookies: "django-signed-cookies", (126, 22), (0, 0), 2;
    express_session_pg: "express-session-pg", (0, 0), (0, 0), 201; // in PostgreSQL
    express_session_redis: "express-session-redis", (0, 0), (0, 0), 189; // in Redis
    flask: "flask", (178, 32), (0, 0), 0;
    idp_shapes: "idp-shapes", (276, 69), (0, 0), 0;
    idp_token_classes: "idp-token-classes", (65, 20), (0, 0), 0;
    iron_raw: "iron-raw", (148, 38), (0, 0), 0;
    iron_session: "iron-session", (163, 28), (0, 0), 0;
    jwt: "jwt", (481, 133), (0, 0), 0;
    koa_session: "koa-session", (44, 14), (0, 0), 0;
    laravel: "laravel", (36, 12), (396, 68), 0;
    nextauth_v4: "nextauth-v4", (56, 15), (0, 0), 0;
    rails: "rails", (213, 42), (0, 0), 96; // rows of Rails 8
    react_router: "react-router", (104, 30), (0, 0), 0;
    starlette: "starlette", (66, 11), (0, 0), 0;
    supabase_ssr: "supabase-ssr", (88, 20), (0, 0), 0;
}

/// In an app with several guards, the column `user_id` contains the id from the guard that was used last.
#[tokio::test]
async fn laravel_subject_is_read_from_the_payload_and_not_from_the_user_id_column() {
    let (_directory, path) = database();
    let count = check_all("laravel", async |case| {
        if case.config["subject_from"] != "payload" {
            return Place::Elsewhere;
        }
        let mut case = case.clone();
        for row in case.store["rows"].as_array_mut().into_iter().flatten() {
            row["user_id"] = 7.into();
        }
        store(&path, &case).await
    });
    let count = count.await;
    assert_eq!((count.run, count.signed_in), (84, 24));
}

/// PHP's strings are byte strings: a string that is not UTF-8 does not affect the other strings.
#[tokio::test]
async fn laravel_session_with_a_non_utf8_string_is_accepted() {
    let (_directory, path) = database();
    let mut spoilt = 0;
    let count = check_all("laravel", async |case| {
        if case.config["driver"] == "cookie" || case.config["subject_from"] != "payload" {
            return Place::Elsewhere;
        }
        let mut case = case.clone();
        for row in case.store["rows"].as_array_mut().into_iter().flatten() {
            let payload = STANDARD
                .decode(row["payload"].as_str().unwrap_or_default())
                .unwrap_or_default();
            // A serialized PHP array begins with `a:COUNT:{`; all other payloads are JSON, encrypted or broken.
            let Some(begin) = payload.iter().position(|&byte| byte == b'{') else {
                continue;
            };
            let count = payload[..begin]
                .strip_prefix(b"a:")
                .and_then(|count| count.strip_suffix(b":"));
            let count =
                count.and_then(|count| std::str::from_utf8(count).ok()?.parse::<usize>().ok());
            let Some(count) = count.filter(|&count| count > 0) else {
                continue;
            };
            let head = format!("a:{}:{{s:4:\"Name\";s:3:\"Zo", count + 1);
            let payload = [head.as_bytes(), b"\xeb\";", &payload[begin + 1..]].concat();
            row["payload"] = STANDARD.encode(payload).into();
            spoilt += 1;
        }
        store(&path, &case).await
    });
    let count = count.await;
    assert_eq!((count.run, count.signed_in, spoilt), (84, 24, 60));
}

fn cookie(case: &Case) -> Place {
    let in_store = match case.text("scheme") {
        "authjs-database" | "better-auth" | "django-db" | "express-session" => true,
        "laravel" => case.config["driver"] != "cookie",
        "django-signed-cookies" => case.expect["reason"] == "auth_hash",
        "rails-signed" => case.is_row_of_rails8(),
        _ => false,
    };
    if in_store {
        Place::Elsewhere
    } else {
        Place::Cookie
    }
}

async fn store(path: &Path, case: &Case) -> Place {
    let scheme = case.text("scheme");
    let tables: &[(&str, &[&str])] = match scheme {
        "authjs-database" => &[("Session", &["sessionToken", "userId", "expires"])],
        "better-auth" if case.config["store"] != "redis" => {
            &[("session", &["token", "userId", "expiresAt"])]
        }
        "django-db" => &[
            (
                "django_session",
                &["session_key", "session_data", "expire_date"],
            ),
            ("auth_user", &["id integer", "password"]),
        ],
        "laravel" if case.config["driver"] != "cookie" => {
            &[("sessions", &["id", "user_id", "payload", "last_activity"])]
        }
        _ => return Place::Elsewhere,
    };
    let mut connection = open(path).await;
    for (table, columns) in tables {
        fill(&mut connection, table, columns, case).await;
    }
    Place::Store(format!("sqlite://{}", path.display()))
}

async fn open(path: &Path) -> SqliteConnection {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true);
    options.connect().await.expect("a database")
}

/// Recreates the table and fills it with the case's rows.
async fn fill(connection: &mut SqliteConnection, table: &str, columns: &[&str], case: &Case) {
    let list = columns.join(", ");
    let sql = format!("DROP TABLE IF EXISTS \"{table}\"; CREATE TABLE \"{table}\" ({list})");
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql))
        .execute(&mut *connection)
        .await
        .expect("a table");
    for row in case.rows_of(table) {
        let marks = vec!["?"; columns.len()].join(", ");
        let sql = format!("INSERT INTO \"{table}\" VALUES ({marks})");
        let mut insert = sqlx::query(sqlx::AssertSqlSafe(sql));
        for column in columns {
            insert = match &row[column.split(' ').next().unwrap()] {
                Value::Number(number) => insert.bind(number.as_i64()),
                value => insert.bind(value.as_str().map(str::to_owned)),
            };
        }
        insert.execute(&mut *connection).await.expect("a row");
    }
}

fn database() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("app.sqlite3");
    (directory, path)
}
