//! How frameworks lay out their tables of sessions, from their own sources.
//! An explicit key wins over these; `queries` has one query a database. Payloads are cut by the database one
//! character behind the longest that is taken, 1 MiB; for `PostgreSQL`, `statement.rs` has the whole row cut.

/// `session_expires_at` is in milliseconds wherever it is computed, so that no fraction of a second is lost.
/// What the database cannot read as a time is handed on as it is: NULL would be a session without an end.
/// `MySQL` has times that `UNIX_TIMESTAMP` does not know, those before 1970 among them.
pub const PRESETS: &[(&str, &str)] = &[
    (
        // The table as Prisma names it; valid while `expires` is ahead.
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
            postgres = '''SELECT *, floor(extract(epoch FROM "expires"::timestamptz) * 1000)::bigint AS session_expires_at
                FROM "Session" WHERE "sessionToken" = $1'''
            mysql = '''SELECT *, coalesce(TIMESTAMPDIFF(MICROSECOND, '1970-01-01', `expires`) DIV 1000, `expires`) AS session_expires_at
                FROM `Session` WHERE `sessionToken` = $1 AND BINARY `sessionToken` = $1'''
            sqlite = '''SELECT *, "expires" AS session_expires_at FROM "Session" WHERE "sessionToken" = $1'''
        "#,
    ),
    (
        "better-auth",
        r#"
            subject = "{userId}"
            cookie = ["__Secure-better-auth.session_token", "better-auth.session_token"]
            cookie_format = "better_auth_signed"
            payload = "columns"
            expires_column = "session_expires_at"
            [queries]
            postgres = '''SELECT *, floor(extract(epoch FROM "expiresAt"::timestamptz) * 1000)::bigint AS session_expires_at
                FROM "session" WHERE "token" = $1'''
            mysql = '''SELECT *, coalesce(TIMESTAMPDIFF(MICROSECOND, '1970-01-01', `expiresAt`) DIV 1000, `expiresAt`) AS session_expires_at
                FROM `session` WHERE `token` = $1 AND BINARY `token` = $1'''
            sqlite = '''SELECT *, "expiresAt" AS session_expires_at FROM "session" WHERE "token" = $1'''
        "#,
    ),
    (
        // `expire` has no time zone and counts up to its last moment: the server compares it. Which
        // member holds the user is up to the app; this is where Passport puts it.
        "connect-pg-simple",
        r#"
            subject = "{passport.user}"
            cookie = "connect.sid"
            cookie_format = "express_signed"
            payload = "json"
            payload_column = "sess"
            [queries]
            postgres = '''SELECT sess FROM "session" WHERE sid = $1 AND expire >= to_timestamp($2)'''
        "#,
    ),
    (
        // Django refuses keys of fewer than 8 characters, whatever the table holds.
        "django",
        r#"
            subject = "{_auth_user_id}"
            cookie = "sessionid"
            payload = "django"
            payload_column = "session_data"
            expires_column = "session_expires_at"
            [queries]
            postgres = '''SELECT session_data, floor(extract(epoch FROM expire_date::timestamptz) * 1000)::bigint AS session_expires_at
                FROM django_session WHERE session_key = $1 AND length(session_key) >= 8'''
            mysql = '''SELECT left(session_data, 1048577) AS session_data, coalesce(TIMESTAMPDIFF(MICROSECOND, '1970-01-01', expire_date) DIV 1000, expire_date) AS session_expires_at
                FROM django_session WHERE session_key = $1 AND BINARY session_key = $1 AND length(session_key) >= 8'''
            sqlite = '''SELECT substr(session_data, 1, 1048577) AS session_data, coalesce(CAST(strftime('%s', expire_date) AS INTEGER), expire_date) AS session_expires_at
                FROM django_session WHERE session_key = $1 AND length(session_key) >= 8'''
        "#,
    ),
    (
        // `last_activity` is in seconds. The column `user_id` names the user of whichever guard served the
        // last request, an administrator perhaps; the payload names whom the guard `web` signed in.
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
            postgres = '''SELECT user_id, payload, last_activity FROM "sessions" WHERE id = $1'''
            mysql = '''SELECT user_id, left(payload, 1048577) AS payload, last_activity FROM `sessions` WHERE `id` = $1 AND BINARY `id` = $1'''
            sqlite = '''SELECT user_id, substr(payload, 1, 1048577) AS payload, last_activity FROM "sessions" WHERE id = $1'''
        "#,
    ),
];
