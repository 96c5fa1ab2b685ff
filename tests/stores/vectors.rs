//! What real frameworks left in a real Redis and a real PostgreSQL.

use sqlx::PgConnection;

use crate::cases::{Case, Count, check_all};
use crate::servers::{Postgres, Redis};

async fn load_redis(redis: &Redis, case: &Case) {
    redis.run(&["FLUSHALL"]).await;
    for (key, value) in case.store["redis"].as_object().into_iter().flatten() {
        redis.run(&["SET", key, value.as_str().expect("text")]).await;
        if let Some(ttl) = case.store["redis_ttl"][key].as_i64() {
            redis.run(&["EXPIRE", key, &ttl.to_string()]).await;
        }
    }
}

/// Makes the table anew and fills it: PostgreSQL itself reads the values from the row's JSON.
async fn load_postgres(connection: &mut PgConnection, table: &str, columns: &str, case: &Case) {
    let sql = format!("DROP TABLE IF EXISTS {table}; CREATE TABLE {table} ({columns})");
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&mut *connection).await.expect("a table");
    for row in case.rows() {
        let sql = format!("INSERT INTO {table} SELECT * FROM json_populate_record(NULL::{table}, $1::json)");
        let insert = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(row.to_string());
        insert.execute(&mut *connection).await.unwrap_or_else(|error| panic!("{}: {error}", case.name));
    }
}

#[tokio::test]
async fn express_session_in_redis() {
    let redis = Redis::start(&[]).await;
    let count = check_all("express-session-redis", async |case| {
        load_redis(&redis, case).await;
        Some(redis.url())
    });
    assert_eq!(count.await, Count { run: 189, skipped: 0 });
}

#[tokio::test]
async fn stores_of_postgres() {
    let postgres = Postgres::start(&[]).await;
    let url = postgres.url("postgres");
    let connection = &mut postgres.connection("postgres").await;

    let columns = "sid varchar NOT NULL PRIMARY KEY, sess json NOT NULL, expire timestamp(6) NOT NULL";
    let count = check_all("express-session-pg", async |case| {
        load_postgres(connection, "session", columns, case).await;
        Some(url.clone())
    });
    assert_eq!(count.await, Count { run: 201, skipped: 0 });

    let columns = "session_key varchar(40) NOT NULL PRIMARY KEY, session_data text NOT NULL, \
                   expire_date timestamptz NOT NULL";
    let count = check_all("django-db", async |case| {
        load_postgres(connection, "django_session", columns, case).await;
        Some(url.clone())
    });
    assert_eq!(count.await, Count { run: 120, skipped: 4 });

    // Prisma writes times without a zone, in UTC; the adapter for `pg` writes them with one.
    for time in ["timestamp(3)", "timestamptz"] {
        let columns =
            format!("\"sessionToken\" text PRIMARY KEY, \"userId\" text, \"expires\" {time} NOT NULL");
        let count = check_all("authjs-database", async |case| {
            load_postgres(connection, "\"Session\"", &columns, case).await;
            Some(url.clone())
        });
        assert_eq!(count.await, Count { run: 26, skipped: 0 });
    }
}

#[tokio::test]
async fn better_auth_in_postgres_and_redis() {
    let (postgres, redis) = (Postgres::start(&[]).await, Redis::start(&[]).await);
    let connection = &mut postgres.connection("postgres").await;
    let count = check_all("better-auth", async |case| {
        if case.config["store"] == "redis" {
            load_redis(&redis, case).await;
            return Some(redis.url());
        }
        let is_number = case.rows().any(|row| row["expiresAt"].is_number());
        let columns = format!(
            "\"id\" text PRIMARY KEY, \"expiresAt\" {} NOT NULL, \"token\" text NOT NULL UNIQUE, \
             \"createdAt\" timestamptz, \"updatedAt\" timestamptz, \"ipAddress\" text, \"userAgent\" text, \
             \"userId\" text",
            if is_number { "bigint" } else { "timestamptz" }
        );
        load_postgres(connection, "\"session\"", &columns, case).await;
        Some(postgres.url("postgres"))
    });
    // The others are cookie caches, which need no store.
    assert_eq!(count.await, Count { run: 57, skipped: 22 });
}
