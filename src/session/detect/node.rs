//! Detects sessions of Node frameworks: Auth.js, iron, express-session, Keygrip, React Router, Fastify, Better Auth and
//! Hono.

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;

use super::Confidence::{Certain, Guess, Likely};
use super::draft::Draft;
use super::encoding::{bytes_of, is_hex, json_object, without_prefix};
use super::jar::{CookiePair, Jar};
use super::subjects::candidates;
use super::tokens::Token;
use super::{Finding, python};
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
    let (algorithm, encryption) = (header.text("alg")?, header.text("enc")?);
    let base = without_prefix(cookie.unwrap_or_default());
    let is_session_cookie = base.ends_with(".session-token");
    if algorithm != "dir" {
        let page = "docs/providers/ask-my-app.md";
        return Some(Finding::ask("an encrypted JWT", Guess, page, cookie));
    }
    // Like NextAuth v4, `nextjs-auth0` encrypts with A256GCM. Its cookie has been `__session` since version 4, and was
    // `appSession` before.
    if header.contains("uat") || ["__session", "appSession"].contains(&base) {
        let page = "docs/recipes/nextjs-auth0.md";
        return Some(Finding::ask(
            "the session of nextjs-auth0",
            Likely,
            page,
            cookie,
        ));
    }
    let draft = Draft::new("authjs");
    let (draft, product, usual) = if encryption == "A256GCM" && !header.contains("kid") {
        let draft = draft.key("version", "v4");
        let draft = draft.secret("secrets", "the app's NEXTAUTH_SECRET");
        (draft, "NextAuth v4", "next-auth.session-token")
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
        Certain
    } else {
        Likely
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
        let (product, page) = (
            "the session of WorkOS AuthKit",
            "docs/recipes/workos-authkit.md",
        );
        return Some(Finding::ask(product, Certain, page, Some(cookie.name)));
    }
    let mut draft = Draft::new("iron_session").key("cookie", cookie.name);
    let (mut product, mut page) = ("iron-session", "docs/recipes/iron-session.md");
    if !sealed.ends_with("~2") {
        draft = draft.key("version", "raw");
        (product, page) = ("h3, Nuxt or hapi, sealed with iron", "docs/recipes/h3.md");
    }
    let draft = draft.secret("password", "the app's password");
    Some(Finding::new(product, Certain, page, [draft]))
}

/// `s:ID.SIGNATURE` of `cookie-signature`, which express-session and its derivatives write.
pub(super) fn express(cookie: &CookiePair<'_>) -> Option<Finding> {
    let signed = cookie.value.strip_prefix("s:")?;
    let (id, signature) = signed.rsplit_once('.')?;
    if id.is_empty() || bytes_of(signature) != Some(32) {
        return None;
    }
    let redis = Draft::new("redis_session").preset("connect-redis").redis();
    let sql = Draft::new("sql_session")
        .preset("connect-pg-simple")
        .database();
    let subject = "where the app keeps the user's id in the session";
    let drafts = [redis, sql].map(|draft| {
        draft
            .unless("cookie", cookie.name, &["connect.sid"])
            .example("subject", "{passport.user}", subject)
            .secret(
                "cookie_secrets",
                "the `secret` that the app gives to express-session",
            )
    });
    Some(Finding::new(
        "express-session; the cookie does not show which store the app uses",
        Likely,
        "docs/recipes/express-session.md",
        drafts,
    ))
}

/// A cookie whose signature is in a second cookie, `NAME.sig`, as Keygrip writes it for cookie-session and koa-session.
pub(super) fn keygrip(cookie: &CookiePair<'_>, jar: &Jar<'_>) -> Option<Finding> {
    let signature = jar.get(&format!("{}.sig", cookie.name))?;
    let Some(session) = json_object(&cookie.value) else {
        // The value is not JSON, for example the id that koa-session writes if it uses a store.
        return Some(Finding::new(
            "an id in a cookie that Keygrip signed",
            Guess,
            "docs/providers/ask-my-app.md",
            [Draft::ask(&[cookie.name, signature.name])],
        ));
    };
    let signature = &signature.value;
    let (algorithm, encoding) = match (signature.len(), is_hex(signature)) {
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
    let is_koa = session.contains("_expire") && session.contains("_maxAge");
    let mut subjects = candidates(&Value::Object(session));
    subjects.retain(|subject| !["{_expire}", "{_maxAge}"].contains(&subject.as_str()));
    let mut draft = Draft::new("cookie_session")
        .unless("cookie", cookie.name, &["session"])
        .unless("algorithm", algorithm, &["sha1"])
        .unless("encoding", encoding, &["base64url"]);
    if is_koa {
        draft = draft.key("expires_path", "{_expire}");
    }
    let draft = draft
        .subject(&subjects, "{passport.user}")
        .secret("keys", "the `keys` (or `secret`) of the app's sessions");
    let product = if is_koa {
        "koa-session"
    } else {
        "cookie-session"
    };
    Some(Finding::new(product, Certain, "docs/recipes/express.md", [draft]).showing(subjects))
}

/// `VALUE.SIGNATURE` with an HMAC-SHA-256 in base64, which is padded in Better Auth and Hono, and unpadded in React
/// Router, Remix and Fastify.
pub(super) fn signed_value(cookie: &CookiePair<'_>) -> Option<Finding> {
    let (value, signature) = cookie.value.rsplit_once('.')?;
    let is_hmac = bytes_of(signature) == Some(32);
    if value.is_empty() {
        return None;
    }
    if is_hmac && signature.ends_with('=') {
        return Some(padded(cookie));
    }
    if is_hmac && let Some(content) = base64_json(value) {
        if content.as_object().is_none() {
            return Some(Finding::ask(
                "React Router or Remix with a session in a store",
                Likely,
                "docs/providers/ask-my-app.md",
                Some(cookie.name),
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
            Certain,
            "docs/recipes/react-router.md",
            [draft.secret("secrets", "the `secrets` of the app's cookie")],
        );
        return Some(finding.showing(subjects));
    }
    if is_hmac {
        let name = cookie.name.to_ascii_lowercase();
        let is_usual = ["sessionid", "session", "sid"].contains(&name.as_str());
        let draft = Draft::new("redis_session")
            .key("cookie", cookie.name)
            .key("cookie_format", "fastify_signed")
            .redis()
            .example("key_prefix", "sess:", "the key prefix of the app's store")
            .example("subject", "{userId}", "where the app keeps the user's id")
            .secret("cookie_secrets", "the `secret` of @fastify/session");
        return Some(Finding::new(
            "@fastify/session",
            if is_usual { Likely } else { Guess },
            "docs/recipes/express-session.md",
            [draft, Draft::ask_with(Some(cookie.name))],
        ));
    }
    // Flask-Session with SESSION_USE_SIGNER writes an id and the HMAC-SHA-1 of itsdangerous' `Signer`.
    (bytes_of(signature) == Some(20) && (32..=43).contains(&value.len()))
        .then(|| python::flask_session(cookie, Likely))
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
            Guess,
            "docs/providers/ask-my-app.md",
            [draft, Draft::ask_with(Some(cookie.name))],
        );
    }
    let sql = Draft::new("sql_session").preset("better-auth").database();
    let prefix = "the key prefix of the app's secondary storage";
    let redis = Draft::new("redis_session")
        .preset("better-auth")
        .redis()
        .example("key_prefix", "better-auth:", prefix);
    let usual = [
        "better-auth.session_token",
        "__Secure-better-auth.session_token",
    ];
    let [sql, redis] = [sql, redis].map(|draft| {
        draft
            .unless("cookie", cookie.name, &usual)
            .secret("cookie_secrets", "the app's BETTER_AUTH_SECRET")
    });
    let endpoint = Draft::new("session_endpoint").preset("better-auth").app();
    let page = "docs/recipes/better-auth.md";
    Finding::new("Better Auth", Likely, page, [sql, redis, endpoint])
}

/// Better Auth's cookie cache, `session_data`, in one of its forms: signed JSON, a JWT or a JWE.
pub(super) fn better_auth_cache(cookie: &CookiePair<'_>) -> Option<Finding> {
    let base = cookie.name.trim_start_matches("__Secure-");
    let is_named = base.ends_with("session_data");
    let compact = json_object(&cookie.value).filter(|json| {
        ["session", "expiresAt", "signature"]
            .iter()
            .all(|name| json.contains(name))
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
        if is_named { Certain } else { Likely },
        "docs/recipes/better-auth.md",
        [draft],
    ))
}
