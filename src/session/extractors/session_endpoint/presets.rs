//! Presets for products that have a "who am I" URL. Paths and answers are as the products' documentation describes
//! them. A key in the section overrides the preset's value.

/// Presets by product. A preset's `path` is appended to a `url` that has no path.
pub const PRESETS: &[(&str, &str)] = &[
    // `GET /api/auth/session` returns null (v5) or {} (v4) to a caller who is not signed in. The answer contains the
    // user's id only if the app's session callback adds it. Without a database adapter, v5's own `token.sub` may change
    // at each sign-in.
    (
        "authjs",
        r#"
            subject_missing = """is missing: without a database adapter, or if authorize() returns no id, Auth.js v5 \
                creates a new random id for the user at each sign-in. Store account.providerAccountId in the \
                app's jwt callback, copy it to session.user.id in its session callback, and set \
                subject = "{user.id}"; or set subject = "{user.email}" if every provider verifies addresses"""
            path = "/api/auth/session"
            expires_path = "{expires}"
            cookies = [
                "authjs.session-token", "__Secure-authjs.session-token",
                "next-auth.session-token", "__Secure-next-auth.session-token",
            ]
        "#,
    ),
    // `GET /api/auth/get-session` returns null to a caller who is not signed in. The cache cookie is not sent, because
    // the app would accept it for minutes after a sign-out. The cookie `dont_remember` is not a credential, but without
    // it the app would renew the session of a user who did not want to be remembered, and make its cookie persistent.
    (
        "better-auth",
        r#"
            subject = "{user.id}"
            path = "/api/auth/get-session"
            expires_path = "{session.expiresAt}"
            cookies = [
                "better-auth.session_token", "__Secure-better-auth.session_token",
                "better-auth.dont_remember", "__Secure-better-auth.dont_remember",
            ]
        "#,
    ),
    // `GET /sessions/whoami` of the public API answers 401 to a caller who is not signed in, and 403 if a second factor
    // is still required.
    (
        "kratos",
        r#"
            subject = "{identity.id}"
            path = "/sessions/whoami"
            expires_path = "{expires_at}"
            cookies = ["ory_kratos_session"]
            forward_headers = ["X-Session-Token"]
        "#,
    ),
    // The path is `/oauth2/userinfo`, because `/oauth2/auth` answers with status 202 instead of 200.
    (
        "oauth2-proxy",
        r#"
            subject = "{user}"
            path = "/oauth2/userinfo"
            cookies = ["_oauth2_proxy"]
        "#,
    ),
];
