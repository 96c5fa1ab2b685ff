//! Tests of the configuration, and of look-ups in a real `SQLite` table. Tests with database servers are in
//! `tests/stores`.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sqlx::ConnectOptions;
use sqlx::sqlite::SqliteConnectOptions;

use super::database::{ConnectConfig, Dialect, Trust};
use crate::config::Problems;
use crate::secret::Secret;
use crate::session::contract;
use crate::session::formats::hkdf;
use crate::session::formats::payload::MAX_STORED;
use crate::session::sections::testing::{NOW, broken_certificate, build, word};
use crate::session::types::{ExtractError, SessionExtractor};

fn extractor(keys: &str) -> Result<Arc<dyn SessionExtractor>, Problems> {
    build("sql_session", keys)
}

#[tokio::test]
async fn extractor_passes_the_contract_checks_without_a_connection() {
    for keys in [
        "preset = \"connect-pg-simple\"\nurl = \"postgres://u:hunter2@h/db\"\ncookie_secrets = [\"the-cat\"]",
        "preset = \"django\"\nurl = \"mysql://u@h/db\"\npassword = \"hunter2\"\nsecret_key = \"the-cat\"",
        "preset = \"better-auth\"\nurl = \"sqlite:///nowhere/hunter2\"\ncookie_secrets = [\"the-cat\"]",
    ] {
        contract::check(&*extractor(keys).unwrap(), &["hunter2", "the-cat"]).await;
    }
}

#[tokio::test]
async fn unreachable_database_is_unavailable() {
    let extractor =
        |url: &str| extractor(&format!("preset = \"authjs-database\"\nurl = \"{url}\"")).unwrap();
    for url in [
        "postgres://127.0.0.1:1/db",
        "mysql://127.0.0.1:1/db",
        "sqlite:///nowhere/file",
    ] {
        let request = contract::request(&[("cookie", "authjs.session-token=abc")]);
        let answer = extractor(url).extract(&request).await;
        assert!(
            matches!(answer, Err(ExtractError::Unavailable(_))),
            "{url}: {answer:?}"
        );
    }
}

#[test]
fn invalid_section_is_refused_and_the_problem_names_the_key_but_not_the_secret() {
    let query = "query = \"SELECT 1 WHERE 1 = $1\"";
    let broken = broken_certificate();
    for (case, keys, key) in [
        ("no url", format!("cookie = \"sid\"\n{query}"), "url"),
        ("key_hash", format!("cookie = \"sid\"\nurl = \"mysql://h\"\nkey_hash = \"md5\"\n{query}"), "key_hash"),
        ("scheme", format!("cookie = \"sid\"\nurl = \"oracle://u:hunter2@h\"\n{query}"), "url"),
        ("invalid port", format!("cookie = \"sid\"\nurl = \"postgres://u:hunter2@:x\"\n{query}"), "url"),
        (
            "two passwords",
            format!("cookie = \"sid\"\nurl = \"postgres://u:hunter2@h\"\npassword = \"x\"\n{query}"),
            "url",
        ),
        ("no query", "cookie = \"sid\"\nurl = \"postgres://h/db\"".to_owned(), "query"),
        ("query without key", "cookie = \"sid\"\nurl = \"postgres://h/db\"\nquery = \"SELECT 1\"".to_owned(), "query"),
        (
            "preset of another database",
            "url = \"mysql://h/db\"\npreset = \"connect-pg-simple\"\ncookie_secrets = [\"x\"]".to_owned(),
            "query",
        ),
        ("payload", format!("cookie = \"sid\"\nurl = \"mysql://h\"\npayload = \"pickle\"\n{query}"), "payload"),
        ("table with query", format!("cookie = \"sid\"\nurl = \"mysql://h\"\ntable = \"t\"\n{query}"), "table"),
        ("columns with query", format!("cookie = \"sid\"\nurl = \"mysql://h\"\ncolumns = {{ a = \"b\" }}\n{query}"), "columns"),
        (
            "quotes in table",
            "url = \"mysql://h\"\npreset = \"authjs-database\"\ntable = \"a`b\"".to_owned(),
            "table",
        ),
        (
            "quotes in a column",
            "url = \"mysql://h\"\npreset = \"authjs-database\"\ncolumns = { userId = \"a\\\"b\" }".to_owned(),
            "columns.userId",
        ),
        (
            "unknown column",
            "url = \"mysql://h\"\npreset = \"authjs-database\"\ncolumns = { user = \"user_id\" }".to_owned(),
            "columns.user",
        ),
        ("no secret of Rails", "url = \"mysql://h\"\npreset = \"rails8\"".to_owned(), "cookie_secrets"),
        (
            "no payload_column",
            format!("cookie = \"sid\"\nurl = \"mysql://h\"\npayload = \"json\"\n{query}"),
            "payload_column",
        ),
        ("no key of Django", "url = \"mysql://h\"\npreset = \"django\"".to_owned(), "secret_key"),
        (
            "secret_key without Django",
            format!("cookie = \"sid\"\nurl = \"mysql://h\"\nsecret_key = \"hunter2\"\n{query}"),
            "secret_key",
        ),
        ("no key of Laravel", "url = \"mysql://h\"\npreset = \"laravel\"".to_owned(), "app_key"),
        (
            "payload without cookie_format",
            format!(
                "cookie = \"sid\"\nurl = \"mysql://h\"\npayload = \"laravel\"\npayload_column = \"p\"\n{query}"
            ),
            "payload",
        ),
        (
            "user_query without Django",
            format!("cookie = \"sid\"\nurl = \"mysql://h\"\nuser_query = \"SELECT 1 WHERE $1\"\n{query}"),
            "user_query",
        ),
        (
            "user_query without key",
            "url = \"mysql://h\"\npreset = \"django\"\nsecret_key = \"hunter2\"\nuser_query = \"SELECT 1\""
                .to_owned(),
            "user_query",
        ),
        (
            "lifetime without column",
            format!("cookie = \"sid\"\nurl = \"mysql://h\"\nlifetime = \"1h\"\n{query}"),
            "lifetime",
        ),
        (
            "broken CA",
            format!(
                "cookie = \"sid\"\nurl = \"postgres://h\"\nca_file = \"{}\"\n{query}",
                broken.path().display()
            ),
            "ca",
        ),
        (
            "CA file without certificates",
            format!("cookie = \"sid\"\nurl = \"mysql://h\"\nca_file = \"/dev/null\"\n{query}"),
            "ca",
        ),
        ("time_zone for MySQL", format!("cookie = \"sid\"\nurl = \"mysql://h\"\ntime_zone = \"UTC\"\n{query}"), "time_zone"),
    ] {
        let problems = extractor(&keys).map(|_| ()).expect_err(case).to_string();
        assert!(problems.starts_with(&format!("extractors.sql_session.{key}:")), "{case}: {problems}");
        assert!(!problems.contains("hunter2"), "{case}: {problems}");
    }
}

#[test]
fn preset_query_truncates_the_payload_in_the_database() {
    for (name, keys) in super::presets::PRESETS {
        let keys: toml::Table = keys.parse().unwrap();
        let Some(column) = keys
            .get("payload_column")
            .and_then(|column| column.as_str())
        else {
            continue;
        };
        for (dialect, query) in keys["queries"].as_table().unwrap() {
            let want = match dialect.as_str() {
                "mysql" => format!("left({{{column}}}, {}) AS {column}", MAX_STORED + 1),
                "sqlite" => format!("substr({{{column}}}, 1, {}) AS {column}", MAX_STORED + 1),
                // For PostgreSQL, `Statement::limited` truncates the whole row, so the preset's query need not.
                _ => continue,
            };
            for query in query.as_array().unwrap() {
                assert!(query.as_str().unwrap().contains(&want), "{name}, {dialect}");
            }
        }
    }
    let query =
        super::statement::Statement::read("SELECT 1 WHERE 1 = $1", Dialect::Postgres).unwrap();
    let cut = format!(
        "SELECT left(row_to_json(found)::text, {}), '",
        MAX_STORED + 1
    );
    assert!(query.limited(Dialect::Postgres).sql.starts_with(&cut));
}

#[test]
fn row_of_another_postgres_statement_is_recognised_by_its_mark() {
    let limited = |query| {
        let statement = super::statement::Statement::read(query, Dialect::Postgres).unwrap();
        statement.limited(Dialect::Postgres)
    };
    let one = limited("SELECT a FROM one WHERE id = $1");
    let other = limited("SELECT a FROM other WHERE id = $1");
    let mark = |statement: &super::statement::Statement| {
        statement.sql.split('\'').nth(1).unwrap().to_owned()
    };
    assert!(one.has_mark(&mark(&one)));
    assert!(!one.has_mark(&mark(&other)));
    assert!(!one.has_mark(""));
}

#[test]
fn url_that_does_not_require_tls_is_detected() {
    for (url, want) in [
        ("postgres://u@db.internal/app", Some("db.internal")),
        (
            "postgres://u@db.internal/app?sslmode=prefer",
            Some("db.internal"),
        ),
        (
            "postgres://u@10.0.0.7/app?sslmode=disable",
            Some("10.0.0.7"),
        ),
        ("postgres://u@db.internal/app?sslmode=require", None),
        ("postgres://u@db.internal/app?sslmode=verify-full", None),
        ("postgres://u@localhost/app?host=/run/postgresql", None),
        ("mysql://u@db.internal/app", Some("db.internal")),
        (
            "mysql://u@db.internal/app?ssl-mode=disabled",
            Some("db.internal"),
        ),
        ("mysql://u@db.internal/app?ssl-mode=required", None),
        ("mariadb://u@db.internal/app?ssl-mode=VERIFY_IDENTITY", None),
        ("mysql://u@localhost/app?socket=/run/mysqld.sock", None),
        ("sqlite:///var/lib/app.sqlite3", None),
    ] {
        let secret = Secret::new(url);
        let dialect = Dialect::of(&secret).unwrap();
        let database = ConnectConfig::new(
            &secret,
            dialect,
            None,
            Trust::default(),
            None,
            Duration::from_secs(1),
        )
        .unwrap();
        assert_eq!(database.without_tls().map(|(host, _)| host), want, "{url}");
    }
}

/// A `session_data` as Django writes it.
fn django(session: &str, secret: &str) -> String {
    let key = hkdf::django(
        &["django.contrib.sessions.SessionStore", "signer"],
        &Secret::new(secret),
    );
    let signed = format!("{}:1vNNNN", URL_SAFE_NO_PAD.encode(session));
    format!(
        "{signed}:{}",
        URL_SAFE_NO_PAD.encode(hmac::sign(&key, signed.as_bytes()))
    )
}

/// `SQLite` stores any text in a time column. An unreadable expiry must not be treated as no expiry.
#[tokio::test]
async fn expiry_that_sqlite_cannot_read_is_store_misfit() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("app.sqlite3");
    let options = SqliteConnectOptions::new()
        .filename(&path)
        .create_if_missing(true);
    let mut database = options.connect().await.unwrap();
    let table = "CREATE TABLE django_session (session_key, session_data, expire_date)";
    sqlx::query(table).execute(&mut database).await.unwrap();
    let keys = format!(
        "preset = \"django\"\nurl = \"sqlite://{}\"\nsecret_key = \"the-cat\"",
        path.display()
    );
    let extractor = extractor(&keys).unwrap();
    for (id, end, want) in [
        ("no-end-at-all", None, Ok(None)),
        (
            "as-django-writes-it",
            Some("2100-01-02 03:04:05.678901"),
            Ok(Some(4_102_542_245)),
        ),
        (
            "without-a-fraction",
            Some("2100-01-02 03:04:05"),
            Ok(Some(4_102_542_245)),
        ),
        (
            "with-a-zone",
            Some("2100-01-02 03:04:05+01:00"),
            Ok(Some(4_102_538_645)),
        ),
        ("in-the-past", Some("2000-01-02 03:04:05"), Err("expired")),
        ("tomorrow-as-text", Some("tomorrow"), Err("store_misfit")),
        ("empty-text", Some(""), Err("store_misfit")),
        (
            "another-order",
            Some("02/01/2100 03:04"),
            Err("store_misfit"),
        ),
        (
            "no-such-day",
            Some("2100-13-45 03:04:05"),
            Err("store_misfit"),
        ),
    ] {
        let insert = sqlx::query("INSERT INTO django_session VALUES (?, ?, ?)").bind(id);
        let insert = insert
            .bind(django(r#"{"_auth_user_id":"7"}"#, "the-cat"))
            .bind(end);
        insert.execute(&mut database).await.unwrap();
        let request = contract::request(&[("cookie", &format!("sessionid={id}"))]);
        match extractor.extract(&request).await {
            Ok(session) => assert_eq!(Ok(session.unwrap().expires_at), want, "{id}"),
            refused => assert_eq!(Err(word(refused)), want, "{id}"),
        }
    }
}

/// The key is `S3CR3T`, so a message with the key in lower case would not contain the key as it was sent.
#[tokio::test]
async fn message_of_sqlite_that_can_quote_the_key_is_not_logged() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("app.sqlite3");
    std::fs::write(&path, "").unwrap();
    for (query, want) in [
        (
            "SELECT json_extract('{}', lower($1)) AS id",
            "error 1: the message is only in the database's own log",
        ),
        ("SELECT $1 FROM nowhere", "error 1: no such table: nowhere"),
    ] {
        let url = path.display();
        let keys = format!("url = \"sqlite://{url}\"\ncookie = \"sid\"\nquery = \"{query}\"");
        let request = contract::request(&[("cookie", "sid=S3CR3T")]);
        let outcome = extractor(&keys).unwrap().extract(&request).await;
        let Err(ExtractError::Unavailable(cause)) = outcome else {
            panic!("{query}: {outcome:?}")
        };
        let said = cause.to_string();
        assert!(said.contains(want), "{said}");
        assert!(!said.contains("s3cr3t"), "{said}");
    }
}

/// `expires_path` can name a column of the query's result or a member of the payload.
#[tokio::test]
async fn session_expires_at_the_time_found_at_expires_path() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("app.sqlite3");
    std::fs::write(&path, "").unwrap();
    for (query, payload, want) in [
        ("1800000060000", "{}", Ok(Some(NOW + 60))),
        ("1800000060", "{}", Ok(Some(NOW + 60))),
        ("1800000000", "{}", Err("expired")),
        ("NULL", "{}", Ok(None)),
        ("'2027-01-15T08:01:00Z'", "{}", Ok(Some(NOW + 60))),
        ("'tomorrow'", "{}", Err("malformed")),
    ] {
        let keys = format!(
            "url = \"sqlite://{}\"\ncookie = \"sid\"\nexpires_path = \"ends\"\npayload = \"json\"\n\
             payload_column = \"data\"\nquery = \"SELECT {query} AS ends, '{payload}' AS data, $1 AS id\"",
            path.display(),
        );
        let request = contract::request(&[("cookie", "sid=abc")]);
        match extractor(&keys).unwrap().extract(&request).await {
            Ok(session) => assert_eq!(Ok(session.unwrap().expires_at), want, "{query}"),
            refused => assert_eq!(Err(word(refused)), want, "{query}"),
        }
    }
    let keys = format!(
        "url = \"sqlite://{}\"\ncookie = \"sid\"\nexpires_path = \"auth.ends\"\npayload = \"json\"\n\
         payload_column = \"data\"\nquery = \"SELECT $1 AS data\"",
        path.display(),
    );
    let store = extractor(&keys).unwrap();
    for (data, want) in [
        (r#"{"auth":{"ends":1800000060}}"#, Ok(Some(NOW + 60))),
        (r#"{"auth":{"ends":1799999999}}"#, Err("expired")),
        (r#"{"auth":{}}"#, Ok(None)),
    ] {
        let request = contract::request(&[("cookie", &format!("sid={data}"))]);
        match store.extract(&request).await {
            Ok(session) => assert_eq!(Ok(session.unwrap().expires_at), want, "{data}"),
            refused => assert_eq!(Err(word(refused)), want, "{data}"),
        }
    }
}
