//! What is known about providers, as keys that a section need not write.
//! What the keys mean is in `config.rs`; an explicit key wins over these.

/// Keys by provider. `provider_keys`, `audience_optional` and `require_one_of` are for this table.
pub const PRESETS: &[(&str, &str)] = &[
    (
        // A token of the client-credentials grant is a machine's, not a user's session. One that was
        // refreshed says so, and how it began if that was not in a browser.
        "auth0",
        r#"
            algorithms = ["RS256"]
            provider_keys = "{issuer}/.well-known/jwks.json"
            [claims]
            gty = { absent_or = ["password", "refresh_token"] }
        "#,
    ),
    (
        // The load balancer signs for whoever sets its header: `signer` says which balancer it was.
        "aws-alb",
        r#"
            from = ["header:x-amzn-oidc-data"]
            algorithms = ["ES256"]
            audience_optional = true
            padded_base64 = true
            require_one_of = ["header_claims.signer"]
        "#,
    ),
    (
        // A session in state `pending` still has to be completed, for example by choosing a team.
        "clerk",
        r#"
            from = ["cookie:__session", "header:authorization"]
            algorithms = ["RS256"]
            audience_optional = true
            provider_keys = "{issuer}/.well-known/jwks.json"
            [claims]
            sts = { absent_or = "active" }
        "#,
    ),
    (
        "cloudflare-access",
        r#"
            from = ["header:cf-access-jwt-assertion", "cookie:CF_Authorization"]
            algorithms = ["RS256"]
            provider_keys = "{issuer}/cdn-cgi/access/certs"
        "#,
    ),
    (
        // The access token of a user pool has no audience, but names the app's client.
        "cognito",
        r#"
            algorithms = ["RS256"]
            audience_optional = true
            require_one_of = ["claims.client_id", "audiences"]
            provider_keys = "{issuer}/.well-known/jwks.json"
            [claims]
            token_use = "access"
        "#,
    ),
    (
        // `sub` is another one in every app of the tenant; `oid` is the user.
        "entra",
        r#"
            subject = "{oid}"
            algorithms = ["RS256"]
            provider_keys = "{issuer}/.well-known/openid-configuration"
        "#,
    ),
    (
        "firebase",
        r#"
            algorithms = ["RS256"]
            provider_keys = "https://www.googleapis.com/service_accounts/v1/jwk/securetoken@system.gserviceaccount.com"
        "#,
    ),
    (
        "google-iap",
        r#"
            from = ["header:x-goog-iap-jwt-assertion"]
            issuers = ["https://cloud.google.com/iap"]
            algorithms = ["ES256"]
            provider_keys = "https://www.gstatic.com/iap/verify/public_key-jwk"
        "#,
    ),
    (
        // Identity and refresh tokens are signed with the same keys; their `typ` tells them apart.
        "keycloak",
        r#"
            algorithms = ["RS256", "ES256"]
            provider_keys = "{issuer}/protocol/openid-connect/certs"
            [claims]
            typ = "Bearer"
        "#,
    ),
    (
        // `sub` is the login name, which can change; `uid` is the user.
        "okta",
        r#"
            subject = "{uid}"
            algorithms = ["RS256"]
            provider_keys = "{issuer}/v1/keys"
        "#,
    ),
    (
        // Anonymous and service keys are JWTs of the same project.
        "supabase",
        r#"
            algorithms = ["ES256", "RS256"]
            audiences = ["authenticated"]
            provider_keys = "{issuer}/.well-known/jwks.json"
            [claims]
            role = "authenticated"
        "#,
    ),
    (
        "workos",
        r#"
            algorithms = ["RS256"]
            audience_optional = true
            provider_keys = "https://api.workos.com/sso/jwks/{issuer_tail}"
        "#,
    ),
];
