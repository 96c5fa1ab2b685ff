//! What is known about providers, as keys that a section need not write.
//! What the keys mean is in `config.rs`; an explicit key wins over these.

/// Keys by provider. `provider_keys`, `audience_optional`, `require_one_of` and `recommend` are for this table.
///
/// A provider signs more than users' sessions with its keys: ID tokens, tokens of services, tokens for other
/// apps. The rules of a preset take the sessions only; `tests/vectors/idp-token-classes.json` has tokens of
/// each class and says which code of the provider's own decides.
pub const PRESETS: &[(&str, &str)] = &[
    (
        // A token of the client-credentials grant is a service's. It has `gty`, or in the RFC 9068 profile only
        // a subject that ends in `@clients`. A user's token that was refreshed has `gty`, too.
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
        // The header's `cat` tells session tokens from those of JWT templates and of machines; the second value
        // says nothing, and some instances write it everywhere. Tokens of OAuth applications are `at+jwt`.
        // A session in state `pending` still has to be completed, for example by choosing a team.
        // The cookie may be stale or another app's, so the header decides.
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
        "#,
    ),
    (
        // A service token has an empty subject, which names no user. The identity provider behind Access signed the
        // user in; its assertion has no `email_verified`.
        "cloudflare-access",
        r#"
            allow_unverified_email = true
            from = ["header:cf-access-jwt-assertion", "cookie:CF_Authorization"]
            algorithms = ["RS256"]
            provider_keys = "{issuer}/cdn-cgi/access/certs"
        "#,
    ),
    (
        // The access token of a user pool has no audience, but names the app's client. One of the
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
        // `sub` is another one in every app of the tenant; `oid` is the user. Only a token that was asked for in a
        // user's name has scopes: a service's has roles alone, an ID token neither.
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
        // Service accounts come through the proxy as well as users. The address is that of a Google account, or one
        // that Identity Platform signed in; the assertion has no `email_verified`.
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
        // ID, refresh and offline tokens have another `typ`. A service account has a user name of this form, and
        // the address that it came from.
        "keycloak",
        r#"
            algorithms = ["RS256", "ES256"]
            provider_keys = "{issuer}/protocol/openid-connect/certs"
            [claims]
            typ = "Bearer"
            preferred_username = { unlike = "service-account-*" }
            clientHost = { absent = true }
            clientAddress = { absent = true }
        "#,
    ),
    (
        // `sub` is the login name, which can change; `uid` is the user, and services have none.
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
        // Anonymous and service keys are JWTs of the same project; they have another `role`. A token with
        // `client_id` was given to another app, to which the user signed in with this project.
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
        // Only the token of a signed-in user belongs to a session.
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
