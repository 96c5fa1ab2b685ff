//! Tests of sessions that real frameworks wrote, in each framework's own store.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sqlx::{MySqlConnection, PgConnection};

use crate::servers::{MariaDb, Postgres, Redis};
use crate::vectors::{Case, Place, check_all};

async fn load_redis(redis: &Redis, case: &Case) -> Place {
    redis.run(&["FLUSHALL"]).await;
    for (key, value) in case.store["redis"].as_object().into_iter().flatten() {
        redis
            .run(&["SET", key, value.as_str().expect("text")])
            .await;
        if let Some(ttl) = case.store["redis_ttl"][key].as_i64() {
            redis.run(&["EXPIRE", key, &ttl.to_string()]).await;
        }
    }
    Place::Store(redis.url())
}

/// Recreates the table and inserts the case's rows. PostgreSQL converts the values from each row's JSON.
async fn load_postgres(connection: &mut PgConnection, table: &str, columns: &str, case: &Case) {
    let quoted = format!("\"{table}\"");
    let sql = format!("DROP TABLE IF EXISTS {quoted}; CREATE TABLE {quoted} ({columns})");
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql))
        .execute(&mut *connection)
        .await
        .expect("a table");
    for row in case.rows_of(table) {
        let sql = format!(
            "INSERT INTO {quoted} SELECT * FROM json_populate_record(NULL::{quoted}, $1::json)"
        );
        let insert = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(row.to_string());
        insert
            .execute(&mut *connection)
            .await
            .unwrap_or_else(|error| panic!("{}: {error}", case.name));
    }
}

/// Empties or creates the table in MariaDB and inserts the case's rows. Times are stored in UTC, without a time zone.
async fn load_mariadb(connection: &mut MySqlConnection, table: &str, columns: &str, case: &Case) {
    let sql = format!("CREATE TABLE IF NOT EXISTS `{table}` ({columns}); DELETE FROM `{table}`");
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql))
        .execute(&mut *connection)
        .await
        .expect("a table");
    let names: Vec<_> = columns
        .split(", ")
        .map(|column| column.split(' ').next().unwrap())
        .collect();
    for row in case.rows_of(table) {
        let marks = vec!["?"; names.len()].join(", ");
        let sql = format!(
            "INSERT INTO `{table}` ({}) VALUES ({marks})",
            names.join(", ")
        );
        let mut insert = sqlx::query(sqlx::AssertSqlSafe(sql));
        for name in &names {
            let value = &row[name.trim_matches('`')];
            let text = value
                .as_str()
                .map(str::to_owned)
                .or_else(|| value.as_i64().map(|n| n.to_string()));
            let time = text.as_deref().and_then(|text| {
                let text = text
                    .strip_suffix("+00:00")
                    .or_else(|| text.strip_suffix('Z'))?;
                Some(text.replace('T', " "))
            });
            insert = insert.bind(time.or(text));
        }
        insert
            .execute(&mut *connection)
            .await
            .unwrap_or_else(|error| panic!("{}: {error}", case.name));
    }
}

/// Runs a family's cases. Returns the number of cases that ran, and the number of those that got a token.
async fn check(family: &str, place: impl AsyncFnMut(&Case) -> Place) -> (usize, usize) {
    let count = check_all(family, place).await;
    (count.run, count.signed_in)
}

#[tokio::test]
async fn express_session_in_redis_is_accepted() {
    let redis = Redis::start(&[]).await;
    let ran = check("express-session-redis", async |case| {
        load_redis(&redis, case).await
    })
    .await;
    assert_eq!(ran, (189, 58));
}

#[tokio::test]
async fn framework_sessions_in_postgres_are_accepted() {
    let postgres = Postgres::start(&[]).await;
    let here = || Place::Store(postgres.url("postgres"));
    let connection = &mut postgres.connection("postgres").await;

    let columns =
        "sid varchar NOT NULL PRIMARY KEY, sess json NOT NULL, expire timestamp(6) NOT NULL";
    let ran = check("express-session-pg", async |case| {
        load_postgres(connection, "session", columns, case).await;
        here()
    });
    assert_eq!(ran.await, (201, 54));

    let columns = "session_key varchar(40) NOT NULL PRIMARY KEY, session_data text NOT NULL, \
                   expire_date timestamptz NOT NULL";
    let ran = check("django-db", async |case| {
        load_postgres(connection, "django_session", columns, case).await;
        load_postgres(
            connection,
            "auth_user",
            "id integer, password varchar(128)",
            case,
        )
        .await;
        here()
    });
    assert_eq!(ran.await, (124, 20));

    // Prisma's column has the type `timestamp` (in UTC); the `pg` adapter's column has the type `timestamptz`.
    for time in ["timestamp(3)", "timestamptz"] {
        let columns = format!(
            "\"sessionToken\" text PRIMARY KEY, \"userId\" text, \"expires\" {time} NOT NULL"
        );
        let ran = check("authjs-database", async |case| {
            load_postgres(connection, "Session", &columns, case).await;
            here()
        });
        assert_eq!(ran.await, (26, 6));
    }

    // `user_id` is varchar, because the primary keys of the users are numbers in some cases and UUIDs in others.
    let columns = "id varchar(255) PRIMARY KEY, user_id varchar(36), payload text NOT NULL, \
                   last_activity integer NOT NULL";
    let ran = check("laravel", async |case| {
        if case.config["driver"] == "cookie" {
            return Place::Elsewhere;
        }
        load_postgres(connection, "sessions", columns, case).await;
        here()
    });
    assert_eq!(ran.await, (396, 68));
}

#[tokio::test]
async fn framework_sessions_in_mariadb_are_accepted() {
    let mariadb = MariaDb::start(&[]).await;
    let here = || Place::Store(mariadb.url());
    let connection = &mut mariadb.connection().await;

    let columns = "session_key varchar(40) PRIMARY KEY, session_data longtext NOT NULL, \
                   expire_date datetime(6) NOT NULL";
    let ran = check("django-db", async |case| {
        load_mariadb(connection, "django_session", columns, case).await;
        load_mariadb(
            connection,
            "auth_user",
            "id bigint PRIMARY KEY, password varchar(128)",
            case,
        )
        .await;
        here()
    });
    assert_eq!(ran.await, (124, 20));

    // These are the column types that Prisma uses.
    let columns =
        "`sessionToken` varchar(191) PRIMARY KEY, `userId` varchar(191), `expires` datetime(3)";
    let ran = check("authjs-database", async |case| {
        load_mariadb(connection, "Session", columns, case).await;
        here()
    });
    assert_eq!(ran.await, (26, 6));

    let ran = check("better-auth", async |case| {
        // With MySQL, Better Auth stores times in a timestamp column, so cases with numeric times are skipped.
        let has_numbers = case
            .rows_of("session")
            .any(|row| row["expiresAt"].is_number());
        if case.config["store"] == "redis"
            || case.text("scheme") == "better-auth-cache"
            || has_numbers
        {
            return Place::Elsewhere;
        }
        let columns = "`token` varchar(255) PRIMARY KEY, `userId` varchar(36), `expiresAt` timestamp(3) NOT NULL";
        load_mariadb(connection, "session", columns, case).await;
        here()
    });
    assert_eq!(ran.await, (51, 8));

    let columns = "`id` varchar(255) PRIMARY KEY, `user_id` varchar(36), `payload` longtext NOT NULL, \
                   `last_activity` int NOT NULL";
    let ran = check("laravel", async |case| {
        if case.config["driver"] == "cookie" {
            return Place::Elsewhere;
        }
        load_mariadb(connection, "sessions", columns, case).await;
        here()
    });
    assert_eq!(ran.await, (396, 68));
}

#[tokio::test]
async fn better_auth_sessions_in_postgres_and_redis_are_accepted() {
    let (postgres, redis) = (Postgres::start(&[]).await, Redis::start(&[]).await);
    let connection = &mut postgres.connection("postgres").await;
    let ran = check("better-auth", async |case| {
        if case.text("scheme") == "better-auth-cache" {
            return Place::Elsewhere;
        }
        if case.config["store"] == "redis" {
            return load_redis(&redis, case).await;
        }
        let is_number = case
            .rows_of("session")
            .any(|row| row["expiresAt"].is_number());
        let columns = format!(
            "\"id\" text PRIMARY KEY, \"expiresAt\" {} NOT NULL, \"token\" text NOT NULL UNIQUE, \
             \"createdAt\" timestamptz, \"updatedAt\" timestamptz, \"ipAddress\" text, \"userAgent\" text, \
             \"userId\" text",
            if is_number { "bigint" } else { "timestamptz" }
        );
        load_postgres(connection, "session", &columns, case).await;
        Place::Store(postgres.url("postgres"))
    });
    // The remaining cases test cookie caches, which need no store.
    assert_eq!(ran.await, (57, 11));
}

/// Laravel's Redis driver stores the session payload as a serialized PHP string. The key consists of a prefix and the
/// session id.
#[tokio::test]
async fn laravel_sessions_in_redis_are_accepted() {
    let redis = Redis::start(&[]).await;
    let ran = check("laravel", async |case| {
        if case.config["driver"] == "cookie" || case.config["subject_from"] != "payload" {
            return Place::Elsewhere;
        }
        redis.run(&["FLUSHALL"]).await;
        for row in case.rows_of("sessions") {
            let data = STANDARD.decode(row["payload"].as_str().unwrap()).unwrap();
            let data = String::from_utf8(data).unwrap();
            let value = format!("s:{}:\"{data}\";", data.len());
            redis
                .run(&["SET", row["id"].as_str().unwrap(), &value])
                .await;
        }
        Place::Store(redis.url())
    });
    assert_eq!(ran.await, (84, 24));
}
