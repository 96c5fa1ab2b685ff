//! Detects sessions of Node frameworks: Auth.js, iron, express-session, Keygrip, React Router, Fastify, Better Auth.

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;

use super::draft::{Draft, subject};
use super::encoding::{bytes_of, json_object};
use super::jar::{CookiePair, Jar};
use super::subjects::candidates;
use super::tokens::Token;
use super::{Confidence, Finding, python};
use crate::json::Value;
use crate::session::formats::jwt_form;

/// An encrypted JWT (JWE, RFC 7516), which has five parts. Frameworks encrypt with a shared key, `alg` = `dir`.
pub(super) fn sealed_token(text: &str, cookie: Option<&str>) -> Option<Finding> {
    let mut parts = text.split('.');
    let header = jwt_form::decode(parts.next()?)?;
    if parts.count() != 4 {
        return None;
    }
    let header = header.as_object()?;
    let member = |name| header.get(name).ok().flatten().and_then(Value::as_str);
    let (algorithm, encryption) = (member("alg")?, member("enc")?);
    let name = cookie.unwrap_or_default();
    let base = name
        .trim_start_matches("__Secure-")
        .trim_start_matches("__Host-");
    let is_session_cookie = base.ends_with(".session-token");
    if algorithm != "dir" {
        return Some(Finding::new(
            "an encrypted JWT",
            Confidence::Guess,
            "docs/providers/ask-my-app.md",
            [Draft::ask_with(cookie)],
        ));
    }
    // Like NextAuth v4, `nextjs-auth0` encrypts with A256GCM. Its cookie has been `__session` since version 4, and was
    // `appSession` before.
    if header.contains("uat") || ["__session", "appSession"].contains(&base) {
        return Some(Finding::new(
            "the session of nextjs-auth0",
            Confidence::Likely,
            "docs/recipes/nextjs-auth0.md",
            [Draft::ask_with(cookie)],
        ));
    }
    let draft = Draft::new("authjs");
    let (draft, product, usual) = if encryption == "A256GCM" && !header.contains("kid") {
        (
            draft
                .key("version", "v4")
                .secret("secrets", "the app's NEXTAUTH_SECRET"),
            "NextAuth v4",
            "next-auth.session-token",
        )
    } else {
        let draft = draft.secret("secrets", "the app's AUTH_SECRET").example(
            "subject",
            "{userId}",
            "a stable id that the app's jwt callback stores; {sub} if a database adapter keeps the users",
        );
        (draft, "Auth.js v5", "authjs.session-token")
    };
    let draft = match cookie {
        None => draft.key("accept_bearer", true),
        Some(_) if base == usual => draft,
        Some(name) => draft.key("cookie", name),
    };
    let confidence = if is_session_cookie || (cookie.is_none() && encryption == "A256CBC-HS512") {
        Confidence::Certain
    } else {
        Confidence::Likely
    };
    Some(Finding::new(
        product,
        confidence,
        "docs/recipes/nextauth.md",
        [draft, Draft::ask_authjs()],
    ))
}

/// `Fe26.2*…`, as `@hapi/iron` writes it. iron-session adds `~2`; h3 and hapi do not.
pub(super) fn iron(cookie: &CookiePair<'_>) -> Option<Finding> {
    let sealed = cookie.value.strip_prefix("Fe26.2*")?;
    if sealed.split('*').count() != 7 {
        return None;
    }
    if cookie.name == "wos-session" {
        return Some(Finding::new(
            "the session of WorkOS AuthKit",
            Confidence::Certain,
            "docs/recipes/workos-authkit.md",
            [Draft::ask_with(Some(cookie.name))],
        ));
    }
    let is_raw = !sealed.ends_with("~2");
    let draft = Draft::new("iron_session").key("cookie", cookie.name);
    let (draft, product, page) = if is_raw {
        (
            draft.key("version", "raw"),
            "h3, Nuxt or hapi, sealed with iron",
            "docs/recipes/h3.md",
        )
    } else {
        (draft, "iron-session", "docs/recipes/iron-session.md")
    };
    Some(Finding::new(
        product,
        Confidence::Certain,
        page,
        [draft.secret("password", "the app's password")],
    ))
}

/// `s:ID.SIGNATURE` of `cookie-signature`, which express-session and its derivatives write.
pub(super) fn express(cookie: &CookiePair<'_>) -> Option<Finding> {
    let signed = cookie.value.strip_prefix("s:")?;
    let (id, signature) = signed.rsplit_once('.')?;
    if id.is_empty() || bytes_of(signature) != Some(32) {
        return None;
    }
    let name = |draft: Draft| draft.unless("cookie", cookie.name, &["connect.sid"]);
    let what = "the `secret` that the app gives to express-session";
    let redis = name(Draft::new("redis_session").preset("connect-redis").redis());
    let sql = name(
        Draft::new("sql_session")
            .preset("connect-pg-simple")
            .database(),
    );
    let drafts = [redis, sql].map(|draft| {
        draft
            .example(
                "subject",
                "{passport.user}",
                "where the app keeps the user's id in the session",
            )
            .secret("cookie_secrets", what)
    });
    Some(Finding::new(
        "express-session; the cookie does not show which store the app uses",
        Confidence::Likely,
        "docs/recipes/express-session.md",
        drafts,
    ))
}

/// A cookie whose signature is in a second cookie, `NAME.sig`, as Keygrip writes it for cookie-session and koa-session.
pub(super) fn keygrip(cookie: &CookiePair<'_>, jar: &Jar<'_>) -> Option<Finding> {
    let signature = &jar.get(&format!("{}.sig", cookie.name))?.value;
    let page = "docs/recipes/express.md";
    let Some(session) = json_object(&cookie.value) else {
        // The value is not JSON, for example the id that koa-session writes if it uses a store.
        return Some(Finding::new(
            "a cookie signed by Keygrip that holds an id",
            Confidence::Guess,
            "docs/providers/ask-my-app.md",
            [Draft::ask(
                &[cookie.name, &format!("{}.sig", cookie.name)],
                &[],
            )],
        ));
    };
    let is_hex = signature.bytes().all(|byte| byte.is_ascii_hexdigit());
    let (algorithm, encoding) = match (signature.len(), is_hex) {
        (40, true) => ("sha1", "hex"),
        (64, true) => ("sha256", "hex"),
        (128, true) => ("sha512", "hex"),
        (43 | 44, _) => ("sha256", "base64url"),
        (64, _) => ("sha384", "base64url"),
        (86 | 88, _) => ("sha512", "base64url"),
        _ => ("sha1", "base64url"),
    };
    let encoding = if signature.contains(['+', '/', '=']) {
        "base64"
    } else {
        encoding
    };
    let has = |name| {
        session
            .as_object()
            .is_some_and(|session| session.contains(name))
    };
    let is_koa = has("_expire") && has("_maxAge");
    let mut subjects = candidates(&session);
    subjects.retain(|subject| !["{_expire}", "{_maxAge}"].contains(&subject.as_str()));
    let mut draft = Draft::new("cookie_session")
        .unless("cookie", cookie.name, &["session"])
        .unless("algorithm", algorithm, &["sha1"])
        .unless("encoding", encoding, &["base64url"]);
    if is_koa {
        draft = draft.key("expires_path", "{_expire}");
    }
    draft = subject(draft, &subjects, "{passport.user}");
    let finding = Finding::new(
        if is_koa {
            "koa-session"
        } else {
            "cookie-session"
        },
        Confidence::Certain,
        page,
        [draft.secret("keys", "the `keys` (or `secret`) of the app's sessions")],
    );
    Some(finding.showing(subjects))
}

/// `VALUE.SIGNATURE` with an HMAC-SHA-256 in base64, which is padded in Better Auth and Hono, and unpadded in React
/// Router, Remix and Fastify.
pub(super) fn signed_value(cookie: &CookiePair<'_>) -> Option<Finding> {
    let (value, signature) = cookie.value.rsplit_once('.')?;
    let is_hmac = bytes_of(signature) == Some(32);
    let is_padded = is_hmac && signature.ends_with('=');
    let is_unpadded = is_hmac && !is_padded;
    if value.is_empty() {
        return None;
    }
    if is_padded {
        return Some(padded(cookie));
    }
    if is_unpadded && let Some(content) = base64_json(value) {
        let page = "docs/recipes/react-router.md";
        if content.as_object().is_none() {
            return Some(Finding::new(
                "React Router or Remix with a session in a store",
                Confidence::Likely,
                "docs/providers/ask-my-app.md",
                [Draft::ask_with(Some(cookie.name))],
            ));
        }
        let subjects = candidates(&content);
        let draft = Draft::new("react_router").unless("cookie", cookie.name, &["__session"]);
        let draft = match subjects.first() {
            Some(subject) => draft.key("subject", subject.as_str()),
            None => draft.example("subject", "{userId}", "where the app keeps the user's id"),
        };
        let finding = Finding::new(
            "createCookieSessionStorage of React Router and Remix",
            Confidence::Certain,
            page,
            [draft.secret("secrets", "the `secrets` of the app's cookie")],
        );
        return Some(finding.showing(subjects));
    }
    if is_unpadded {
        let draft = Draft::new("redis_session")
            .key("cookie", cookie.name)
            .key("cookie_format", "fastify_signed")
            .redis()
            .example("key_prefix", "sess:", "the key prefix of the app's store")
            .example("subject", "{userId}", "where the app keeps the user's id")
            .secret("cookie_secrets", "the `secret` of @fastify/session");
        return Some(Finding::new(
            "@fastify/session",
            if ["sessionid", "session", "sid"].contains(&cookie.name.to_ascii_lowercase().as_str())
            {
                Confidence::Likely
            } else {
                Confidence::Guess
            },
            "docs/recipes/express-session.md",
            [draft, Draft::ask_with(Some(cookie.name))],
        ));
    }
    // Flask-Session with SESSION_USE_SIGNER writes an id and the HMAC-SHA-1 of itsdangerous' `Signer`.
    (bytes_of(signature) == Some(20) && (32..=43).contains(&value.len()))
        .then(|| python::flask_session(cookie, Confidence::Likely))
}

/// Decodes a JSON value of any type from base64.
fn base64_json(text: &str) -> Option<Value> {
    let bytes = STANDARD_NO_PAD.decode(text.trim_end_matches('=')).ok()?;
    Value::parse(&bytes).ok()
}

/// `TOKEN.SIGNATURE` of Better Auth, whose cookie names end in `session_token`, or of Hono, whose apps choose the
/// names.
fn padded(cookie: &CookiePair<'_>) -> Finding {
    let base = cookie.name.trim_start_matches("__Secure-");
    if !base.ends_with("session_token") {
        let draft = Draft::new("sql_session")
            .key("cookie", cookie.name)
            .key("cookie_format", "better_auth_signed")
            .database()
            .example(
                "query",
                "SELECT user_id FROM sessions WHERE id = $1 AND expires_at > to_timestamp($2)",
                "$1 is the signed value",
            )
            .key("subject", "{user_id}")
            .secret("cookie_secrets", "the secret of setSignedCookie");
        return Finding::new(
            "a signed cookie of Hono",
            Confidence::Guess,
            "docs/providers/ask-my-app.md",
            [draft, Draft::ask_with(Some(cookie.name))],
        );
    }
    let name = |draft: Draft| {
        draft.unless(
            "cookie",
            cookie.name,
            &[
                "better-auth.session_token",
                "__Secure-better-auth.session_token",
            ],
        )
    };
    let what = "the app's BETTER_AUTH_SECRET";
    let sql = Draft::new("sql_session").preset("better-auth").database();
    let redis = Draft::new("redis_session")
        .preset("better-auth")
        .redis()
        .example(
            "key_prefix",
            "better-auth:",
            "the key prefix of the app's secondary storage",
        );
    Finding::new(
        "Better Auth",
        Confidence::Likely,
        "docs/recipes/better-auth.md",
        [
            name(sql).secret("cookie_secrets", what),
            name(redis).secret("cookie_secrets", what),
            Draft::new("session_endpoint").preset("better-auth").app(),
        ],
    )
}

/// Better Auth's cookie cache, `session_data`, in one of its forms: signed JSON, a JWT or a JWE.
pub(super) fn better_auth_cache(cookie: &CookiePair<'_>) -> Option<Finding> {
    let base = cookie.name.trim_start_matches("__Secure-");
    let is_named = base.ends_with("session_data");
    let compact = json_object(&cookie.value).filter(|json| {
        let has = |name| json.as_object().is_some_and(|object| object.contains(name));
        has("session") && has("expiresAt") && has("signature")
    });
    let token = Token::read(&cookie.value).filter(|_| is_named);
    let is_sealed = is_named && sealed_token(&cookie.value, None).is_some();
    let strategy = if compact.is_some() {
        "compact"
    } else if token.is_some() {
        "jwt"
    } else if is_sealed {
        "jwe"
    } else {
        return None;
    };
    let draft = Draft::new("better_auth")
        .unless("cookie", cookie.name, &["better-auth.session_data"])
        .unless("strategy", strategy, &["compact"])
        .secret("secret", "the app's BETTER_AUTH_SECRET");
    Some(Finding::new(
        "the cookie cache of Better Auth",
        if is_named {
            Confidence::Certain
        } else {
            Confidence::Likely
        },
        "docs/recipes/better-auth.md",
        [draft],
    ))
}
