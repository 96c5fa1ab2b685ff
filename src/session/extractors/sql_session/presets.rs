//! The session tables of frameworks, according to the frameworks' sources and to the schemas that their tools generate.
//! A key in the section overrides the preset's value. `queries` contains, for each database, the query and its
//! alternatives for other schemas of the same library. `statement.rs` fills in the names of the table and columns. The
//! queries for `MySQL` and `SQLite` truncate the payload one character beyond the maximum length, 1 MiB. For
//! `PostgreSQL`, `statement.rs` truncates the whole row.

/// Presets by framework. A computed `session_expires_at` is in milliseconds, so that no fraction of a second is lost,
/// except in Django's query for `SQLite`, which returns seconds. A value that the database cannot read as a time is
/// returned unchanged and then refused, because NULL would mean a session that does not expire. For `MySQL`, the
/// queries use `TIMESTAMPDIFF`, because `UNIX_TIMESTAMP` does not support every time that a column can contain, for
/// example times before 1970.
pub const PRESETS: &[(&str, &str)] = &[
    (
        // Prisma, Drizzle and `@auth/pg-adapter` use different table names. A session is valid while `expires` is in
        // the future.
        "authjs-database",
        r#"
            subject = "{userId}"
            cookie = [
                "__Secure-authjs.session-token", "authjs.session-token",
                "__Secure-next-auth.session-token", "next-auth.session-token",
            ]
            payload = "columns"
            expires_column = "session_expires_at"
            [queries]
            postgres = [
                '''SELECT *{as userId}, floor(extract(epoch FROM {expires}::timestamptz) * 1000)::bigint AS session_expires_at
                FROM {table:Session} WHERE {sessionToken} = $1''',
                '''SELECT *{as userId}, floor(extract(epoch FROM {expires}::timestamptz) * 1000)::bigint AS session_expires_at
                FROM {table:session} WHERE {sessionToken} = $1''',
                '''SELECT *{as userId}, floor(extract(epoch FROM {expires}::timestamptz) * 1000)::bigint AS session_expires_at
                FROM {table:sessions} WHERE {sessionToken} = $1''',
            ]
            mysql = [
                '''SELECT *{as userId}, coalesce(TIMESTAMPDIFF(MICROSECOND, '1970-01-01', {expires}) DIV 1000, {expires}) AS session_expires_at
                FROM {table:Session} WHERE {sessionToken} = $1 AND BINARY {sessionToken} = $1''',
                '''SELECT *{as userId}, coalesce(TIMESTAMPDIFF(MICROSECOND, '1970-01-01', {expires}) DIV 1000, {expires}) AS session_expires_at
                FROM {table:session} WHERE {sessionToken} = $1 AND BINARY {sessionToken} = $1''',
            ]
            sqlite = ['''SELECT *{as userId}, {expires} AS session_expires_at FROM {table:Session} WHERE {sessionToken} = $1''']
        "#,
    ),
    (
        // Better Auth's schema for Drizzle has other column names (`user_id`) than its migrations and its schema for
        // Prisma (`userId`), so each database has two queries.
        "better-auth",
        r#"
            subject = "{userId}"
            cookie = ["__Secure-better-auth.session_token", "better-auth.session_token"]
            cookie_format = "better_auth_signed"
            payload = "columns"
            expires_column = "session_expires_at"
            [queries]
            postgres = [
                '''SELECT *{as userId}, floor(extract(epoch FROM {expiresAt}::timestamptz) * 1000)::bigint AS session_expires_at
                FROM {table:session} WHERE {token} = $1''',
                '''SELECT *{as userId:user_id}, floor(extract(epoch FROM {expiresAt:expires_at}::timestamptz) * 1000)::bigint AS session_expires_at
                FROM {table:session} WHERE {token} = $1''',
            ]
            mysql = [
                '''SELECT *{as userId}, coalesce(TIMESTAMPDIFF(MICROSECOND, '1970-01-01', {expiresAt}) DIV 1000, {expiresAt}) AS session_expires_at
                FROM {table:session} WHERE {token} = $1 AND BINARY {token} = $1''',
                '''SELECT *{as userId:user_id}, coalesce(TIMESTAMPDIFF(MICROSECOND, '1970-01-01', {expiresAt:expires_at}) DIV 1000, {expiresAt:expires_at}) AS session_expires_at
                FROM {table:session} WHERE {token} = $1 AND BINARY {token} = $1''',
            ]
            sqlite = [
                '''SELECT *{as userId}, {expiresAt} AS session_expires_at FROM {table:session} WHERE {token} = $1''',
                '''SELECT *{as userId:user_id}, {expiresAt:expires_at} AS session_expires_at FROM {table:session} WHERE {token} = $1''',
            ]
        "#,
    ),
    (
        // `expire` has no time zone, so the database makes the comparison; the session is valid up to and including
        // that time. The app decides which member contains the user; the default is Passport's.
        "connect-pg-simple",
        r#"
            subject = "{passport.user}"
            cookie = "connect.sid"
            cookie_format = "express_signed"
            payload = "json"
            payload_column = "sess"
            [queries]
            postgres = ['''SELECT {sess} AS sess FROM {table:session} WHERE {sid} = $1 AND {expire} >= to_timestamp($2)''']
        "#,
    ),
    (
        // Django refuses keys of fewer than 8 characters, even if they are in the table.
        "django",
        r#"
            subject = "{_auth_user_id}"
            cookie = "sessionid"
            payload = "django"
            payload_column = "session_data"
            expires_column = "session_expires_at"
            [queries]
            postgres = ['''SELECT {session_data} AS session_data, floor(extract(epoch FROM {expire_date}::timestamptz) * 1000)::bigint AS session_expires_at
                FROM {table:django_session} WHERE {session_key} = $1 AND length({session_key}) >= 8''']
            mysql = ['''SELECT left({session_data}, 1048577) AS session_data, coalesce(TIMESTAMPDIFF(MICROSECOND, '1970-01-01', {expire_date}) DIV 1000, {expire_date}) AS session_expires_at
                FROM {table:django_session} WHERE {session_key} = $1 AND BINARY {session_key} = $1 AND length({session_key}) >= 8''']
            sqlite = ['''SELECT substr({session_data}, 1, 1048577) AS session_data, coalesce(CAST(strftime('%s', {expire_date}) AS INTEGER), {expire_date}) AS session_expires_at
                FROM {table:django_session} WHERE {session_key} = $1 AND length({session_key}) >= 8''']
        "#,
    ),
    (
        // `last_activity` is in seconds. The column `user_id` is the user of the guard that served the last request,
        // which may be an administrator's guard. The payload contains the user whom the guard `web` signed in.
        "laravel",
        r#"
            subject = "{login_web_59ba36addc2b2f9401580f014c7f58ea4e30989d}"
            cookie = "laravel_session"
            cookie_format = "laravel"
            payload = "laravel"
            payload_column = "payload"
            expires_column = "last_activity"
            lifetime = "120m"
            [queries]
            postgres = ['''SELECT {user_id} AS user_id, {payload} AS payload, {last_activity} AS last_activity FROM {table:sessions} WHERE {id} = $1''']
            mysql = ['''SELECT {user_id} AS user_id, left({payload}, 1048577) AS payload, {last_activity} AS last_activity FROM {table:sessions}
                WHERE {id} = $1 AND BINARY {id} = $1''']
            sqlite = ['''SELECT {user_id} AS user_id, substr({payload}, 1, 1048577) AS payload, {last_activity} AS last_activity FROM {table:sessions} WHERE {id} = $1''']
        "#,
    ),
    (
        // The sign-in that `bin/rails generate authentication` generates: `cookies.signed[:session_id]` is the id of a
        // row, which is deleted at sign-out. The app chooses the type of this id.
        "rails8",
        r#"
            subject = "{user_id}"
            cookie = "session_id"
            cookie_format = "rails_signed"
            payload = "columns"
            [queries]
            postgres = [
                '''SELECT *{as user_id} FROM {table:sessions} WHERE {id} = $1::bigint''',
                '''SELECT *{as user_id} FROM {table:sessions} WHERE {id} = $1::uuid''',
                '''SELECT *{as user_id} FROM {table:sessions} WHERE {id} = $1''',
            ]
            mysql = ['''SELECT *{as user_id} FROM {table:sessions} WHERE {id} = $1 AND BINARY {id} = $1''']
            sqlite = ['''SELECT *{as user_id} FROM {table:sessions} WHERE {id} = $1''']
        "#,
    ),
];
