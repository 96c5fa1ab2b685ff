//! Tests of session ids that a query cannot convert to another type, of dates outside the usual range, and of error
//! messages that may quote a session id or a row. The databases work; `faults.rs` tests database failures.

use crate::faults::{MARIADB, POSTGRES, USERS, ask, explain, express_signed, service};
use crate::servers::{MariaDb, Postgres};

/// If the session id causes a conversion error, the response is 401, because the caller chose the id. Any other query
/// error is a 503.
#[tokio::test]
async fn unconvertible_session_id_in_postgres_is_401() {
    let postgres = Postgres::start(&[]).await;
    postgres.run("postgres", USERS).await;
    postgres
        .run("postgres", "CREATE TYPE kind AS ENUM ('web')")
        .await;
    let by = |condition: &str| POSTGRES.replace("id = $1", condition);
    for (condition, id) in [
        ("$1::int > 0", "99999999999"),
        ("$1::bigint > 0", "99999999999999999999"),
        ("$1::numeric(3) > 0", "99999"),
        ("$1::int > 0", "s1"),
        ("$1::uuid IS NULL", "s1"),
        ("$1::kind = 'web'", "s1"),
        ("$1::bytea IS NULL", "\\"),
        ("$1::json IS NULL", "{"),
        ("$1::date IS NULL", "2026-13-45"),
        ("$1::timestamptz IS NULL", "s1"),
        ("$1::timestamptz IS NULL", "2026-11-25T00:00:00+99"),
        ("id = encode(decode($1, 'hex'), 'escape')", "s1"),
        ("id = encode(decode($1, 'base64'), 'escape')", "s1"),
        ("id = substr($1, 1, length($1) - 40)", "s1"),
    ] {
        let answer = ask(&service(&by(condition), postgres.port), id).await;
        assert_eq!(
            answer,
            Err("session_invalid".to_owned()),
            "{condition}: {id}"
        );
    }
    // Mistakes in these queries cause the same SQLSTATE codes, but for every session id, so the response is 503.
    for condition in [
        "id = $1 AND now() < '2026-13-45'",
        "id = $1 AND now() < 'tomorow'::timestamptz",
        "id = $1 AND 'wbe'::kind = 'web'",
        "id = $1 AND 1 < 'one'::int",
        "id = $1 AND 1 / 0 = 1",
        "id = $1::int",
    ] {
        let answer = ask(&service(&by(condition), postgres.port), "1").await;
        assert_eq!(
            answer,
            Err("session_backend_unavailable".to_owned()),
            "{condition}"
        );
    }
}

#[tokio::test]
async fn unconvertible_session_id_in_mariadb_is_401_and_zero_date_is_503() {
    let mariadb = MariaDb::start(&[]).await;
    refused_ids(&mariadb).await;
    unusual_dates(&mariadb).await;
}

/// MariaDB converts most strings, but refuses characters outside the column's character set.
async fn refused_ids(mariadb: &MariaDb) {
    mariadb
        .run("CREATE TABLE sessions (id varchar(40) CHARACTER SET ascii, user_id varchar(40))")
        .await;
    mariadb
        .run("INSERT INTO sessions VALUES ('s1', 'user-1')")
        .await;
    let signed = MARIADB.replace(
        "cookie = \"sid\"",
        "cookie = \"sid\"\ncookie_format = \"express_signed\"\ncookie_secrets = [\"keyboard cat\"]",
    );
    let by = |condition: &str| service(&signed.replace("id = $1", condition), mariadb.port);
    assert_eq!(
        ask(&by("id = $1"), &express_signed("s1")).await.as_deref(),
        Ok("user-1")
    );
    for (condition, id) in [
        ("id = $1", "s1\u{e9}"),
        ("id = $1", "s1\u{1f36a}"),
        ("CAST($1 AS SIGNED) + 1 > 1", "9223372036854775807"),
        ("CAST($1 AS SIGNED) = 1", "99999999999999999999"),
        ("CAST($1 AS UUID) = UUID()", "s1"),
        ("CAST($1 AS DATETIME) > now()", "2026-13-45"),
        ("JSON_VALUE($1, '$.id') = 's1'", "{"),
        ("id = UNHEX($1)", "s1"),
    ] {
        let answer = ask(&by(condition), &express_signed(id)).await;
        assert_eq!(
            answer,
            Err("session_invalid".to_owned()),
            "{condition}: {id}"
        );
    }
    for condition in [
        "id = $1 AND 9223372036854775807 + 1 > 1",
        "id = $1 AND _latin1'a' COLLATE latin1_bin = _latin1'a' COLLATE latin1_swedish_ci",
    ] {
        let answer = ask(&by(condition), &express_signed("s1")).await;
        assert_eq!(
            answer,
            Err("session_backend_unavailable".to_owned()),
            "{condition}"
        );
    }
}

/// A session with a NULL date does not expire, a session with a date before 1970 has expired, and a zero date
/// (`0000-00-00`) causes a 503.
async fn unusual_dates(mariadb: &MariaDb) {
    mariadb
        .run("CREATE TABLE Session (sessionToken varchar(40), userId varchar(40), expires datetime(3))")
        .await;
    mariadb
        .run(
            "SET sql_mode = '';
            INSERT INTO Session VALUES ('none', 'user-1', NULL), ('2037', 'user-1', '2037-01-02 03:04:05.678'),
            ('2050', 'user-1', '2050-01-01'), ('9999', 'user-1', '9999-12-31 23:59:59.999'),
            ('2000', 'user-1', '2000-01-01'), ('1969', 'user-1', '1969-12-31 23:59:59'),
            ('1000', 'user-1', '1000-01-01'), ('zero', 'user-1', '0000-00-00')",
        )
        .await;
    let toml = MARIADB.replace(
        "query = \"SELECT user_id FROM sessions WHERE id = $1\"",
        "preset = \"authjs-database\"",
    );
    let service = service(&toml, mariadb.port);
    for (id, want) in [
        ("none", Ok("user-1")),
        ("2037", Ok("user-1")),
        ("2050", Ok("user-1")),
        ("9999", Ok("user-1")),
        ("2000", Err("session_expired")),
        ("1969", Err("session_expired")),
        ("1000", Err("session_expired")),
        ("zero", Err("session_backend_unavailable")),
    ] {
        let want = want.map(str::to_owned).map_err(str::to_owned);
        assert_eq!(ask(&service, id).await, want, "{id}");
    }
}

/// The key is `S3CR3T`, and the row's value is `s3cr3t-of-ann`. The queries convert the key to lower case, so a filter
/// that searches messages for the key as it was sent would find nothing.
#[tokio::test]
async fn message_that_can_quote_the_key_or_a_value_of_the_row_is_not_shown() {
    const WITHHELD: &str = ": the message is only in the database's own log";
    let (postgres, mariadb) = (Postgres::start(&[]).await, MariaDb::start(&[]).await);
    postgres
        .run(
            "postgres",
            "CREATE TABLE sessions (id text PRIMARY KEY, user_id text);
            INSERT INTO sessions VALUES ('S3CR3T', 's3cr3t-of-ann');
            CREATE ROLE other LOGIN;
            CREATE FUNCTION quote(value text) RETURNS text LANGUAGE plpgsql AS
                $$ BEGIN RAISE EXCEPTION 'no user %', value; END $$;
            CREATE FUNCTION late(value text) RETURNS text LANGUAGE plpgsql AS
                $$ BEGIN EXECUTE 'SELECT 1 FROM ' || quote_ident(value); RETURN value; END $$",
        )
        .await;
    let by = |condition: &str| POSTGRES.replace("id = $1", &format!("id = $1 AND {condition}"));
    for (toml, said) in [
        (by("quote(lower($1)) = ''"), "error P0001"),
        (by("quote(user_id) = ''"), "error P0001"),
        (by("lower($1)::regclass IS NULL"), "error 42P01"),
        (by("late(lower($1)) = ''"), "error 42P01"),
        (by("to_tsquery(lower($1) || ' &') IS NULL"), "error 42601"),
        (
            by("('$.' || user_id || '.')::jsonpath IS NULL"),
            "error 42601",
        ),
        (by("1 / (length($1) - 6) = 1"), "error 22012"),
    ] {
        let explained = explain(&toml, postgres.port, "S3CR3T").await;
        let said = format!("store_refused ({said}{WITHHELD}");
        assert!(explained.contains(&said), "{toml}: {explained}");
        assert!(!explained.to_lowercase().contains("s3cr3t"), "{explained}");
    }
    let explained = explain(&by("user_id::uuid IS NULL"), postgres.port, "S3CR3T").await;
    let said = "malformed (the database cannot convert this session id, or a value of its row, to the type in the query (error 22P02))";
    assert!(explained.contains(said), "{explained}");
    assert!(!explained.to_lowercase().contains("s3cr3t"), "{explained}");
    for (case, toml, said) in [
        (
            "permission",
            POSTGRES.replace("postgres@", "other@"),
            "error 42501: permission denied for table sessions",
        ),
        (
            "column",
            POSTGRES.replace("user_id", "user_name"),
            "error 42703: column \"user_name\" does not exist",
        ),
    ] {
        let explained = explain(&toml, postgres.port, "S3CR3T").await;
        assert!(
            explained.contains(&format!("store_refused ({said}")),
            "{case}: {explained}"
        );
    }
    mariadb
        .run("CREATE TABLE sessions (id varchar(40) PRIMARY KEY, user_id varchar(40))")
        .await;
    mariadb
        .run("INSERT INTO sessions VALUES ('S3CR3T', 's3cr3t-of-ann')")
        .await;
    mariadb
        .run(
            "CREATE FUNCTION quoting(value varchar(40)) RETURNS int BEGIN
            DECLARE text varchar(80) DEFAULT concat('no user ', lower(value));
            SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = text; RETURN 1; END",
        )
        .await;
    for (query, said) in [
        (
            "WHERE id = $1 AND quoting($1) = 1",
            format!("error 1644 (45000){WITHHELD}"),
        ),
        (
            "WHERE id = $1 AND quoting(user_id) = 1",
            format!("error 1644 (45000){WITHHELD}"),
        ),
        (
            "WHERE name = $1",
            "error 1054 (42S22): Unknown column 'name'".to_owned(),
        ),
    ] {
        let toml = MARIADB.replace("WHERE id = $1", query);
        let explained = explain(&toml, mariadb.port, "S3CR3T").await;
        assert!(
            explained.contains(&format!("store_refused ({said}")),
            "{query}: {explained}"
        );
        assert!(!explained.to_lowercase().contains("s3cr3t"), "{explained}");
    }
}
