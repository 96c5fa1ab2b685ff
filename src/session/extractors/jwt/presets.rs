//! Presets for identity providers, which set defaults for the section's keys. The keys are defined in `config.rs`. A
//! key in the section overrides the preset's value.

/// Presets by provider. `provider_keys`, `audience_optional`, `require_one_of` and `recommend` exist only in presets.
///
/// With the same keys, a provider also signs tokens that are not users' sessions: ID tokens, tokens of services, and
/// tokens for other apps. The rules of a preset accept only sessions. `tests/vectors/idp-token-classes.json` contains
/// tokens of each class and names the provider's source code that defines the class.
pub const PRESETS: &[(&str, &str)] = &[
    (
        // A token of the client-credentials grant belongs to a service. It has `gty`, except in the RFC 9068 profile,
        // where its subject ends in `@clients`. A user's refreshed token also has `gty`.
        "auth0",
        r#"
            algorithms = ["RS256"]
            provider_keys = "{issuer}/.well-known/jwks.json"
            [claims]
            gty = { absent_or = ["password", "refresh_token"] }
            sub = { unlike = "*@clients" }
        "#,
    ),
    (
        // Anyone can run a load balancer whose keys are published at the same URL, so `signer` must identify the load
        // balancer that signed the token.
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
        // The header's `cat` distinguishes session tokens from tokens of JWT templates and of machines. The second
        // accepted value distinguishes nothing: some instances write it into every token. Tokens of OAuth applications
        // have the type `at+jwt`, and their ID tokens have a `nonce` or an `at_hash`. A session in state `pending` is
        // not complete: the user still has to choose a team, for example. The cookie may be stale or belong to
        // another app, so the header is read first.
        "clerk",
        r#"
            from = ["header:authorization", "cookie:__session"]
            token_types = ["JWT"]
            recommend = "claims.azp"
            algorithms = ["RS256"]
            audience_optional = true
            provider_keys = "{issuer}/.well-known/jwks.json"
            [header_claims]
            cat = { absent_or = ["cl_B7d4PD111AAA", "cl_I7d4PD111III"] }
            [claims]
            sid = { present = true }
            sts = { absent_or = "active" }
            sub = { unlike = "mch_*" }
            nonce = { absent = true }
            at_hash = { absent = true }
        "#,
    ),
    (
        // A service token has an empty subject, so it is refused. The assertion has no `email_verified`, but the
        // identity provider behind Access has signed the user in.
        "cloudflare-access",
        r#"
            allow_unverified_email = true
            from = ["header:cf-access-jwt-assertion", "cookie:CF_Authorization"]
            algorithms = ["RS256"]
            provider_keys = "{issuer}/cdn-cgi/access/certs"
        "#,
    ),
    (
        // The access token of a user pool has no audience; it names the app client instead. A token of the
        // client-credentials grant has no user name.
        "cognito",
        r#"
            algorithms = ["RS256"]
            audience_optional = true
            require_one_of = ["claims.client_id", "audiences"]
            provider_keys = "{issuer}/.well-known/jwks.json"
            [claims]
            token_use = "access"
            username = { present = true }
        "#,
    ),
    (
        // `sub` differs between the apps of a tenant; `oid` identifies the user in all of them. Only a token that was
        // requested on behalf of a user has scopes: a service's token has only roles, and an ID token has neither.
        "entra",
        r#"
            subject = "{oid}"
            algorithms = ["RS256"]
            provider_keys = "{issuer}/.well-known/openid-configuration"
            [claims]
            scp = { present = true }
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
        // Service accounts can pass the proxy, as users can. The assertion has no `email_verified`, but its email
        // address belongs to a Google account or to an account that Identity Platform signed in.
        "google-iap",
        r#"
            allow_unverified_email = true
            from = ["header:x-goog-iap-jwt-assertion"]
            issuers = ["https://cloud.google.com/iap"]
            algorithms = ["ES256"]
            provider_keys = "https://www.gstatic.com/iap/verify/public_key-jwk"
            [claims]
            email = { unlike = "*.gserviceaccount.com" }
        "#,
    ),
    (
        // ID, refresh and offline tokens have another `typ`. The token of a service account has a user name that begins
        // with `service-account-`, and the claims `clientHost` and `clientAddress`. Without the scopes `profile` and
        // `service_account` these claims are missing, but such a token has no user session (`sid`) either.
        "keycloak",
        r#"
            algorithms = ["RS256", "ES256"]
            provider_keys = "{issuer}/protocol/openid-connect/certs"
            [claims]
            typ = "Bearer"
            sid = { present = true }
            preferred_username = { unlike = "service-account-*" }
            clientHost = { absent = true }
            clientAddress = { absent = true }
        "#,
    ),
    (
        // `sub` is the login name, which can change. `uid` identifies the user; tokens of services have no `uid`.
        "okta",
        r#"
            subject = "{uid}"
            algorithms = ["RS256"]
            provider_keys = "{issuer}/v1/keys"
            [claims]
            uid = { present = true }
        "#,
    ),
    (
        // Anonymous and service keys are JWTs of the same project with another `role`. A token with `client_id` was
        // issued to an OAuth client: another app that uses this project for sign-in.
        "supabase",
        r#"
            algorithms = ["ES256", "RS256"]
            audiences = ["authenticated"]
            provider_keys = "{issuer}/.well-known/jwks.json"
            [claims]
            role = "authenticated"
            client_id = { absent = true }
        "#,
    ),
    (
        // Only the token of a signed-in user has a `sid` that names a session.
        "workos",
        r#"
            algorithms = ["RS256"]
            audience_optional = true
            provider_keys = "https://api.workos.com/sso/jwks/{client_id}"
            [claims]
            sid = { like = "session_*" }
        "#,
    ),
];
