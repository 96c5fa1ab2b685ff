//! Detects credentials in headers other than `Cookie`: JWTs in any header, encrypted JWTs and opaque tokens in
//! `Authorization`, sessions of h3, and the headers in which proxies name the user.

use axum::http::{HeaderMap, HeaderName, header};
use toml::{Table, Value as Toml};

use super::Confidence::{Guess, Likely};
use super::draft::Draft;
use super::encoding::is_hex;
use super::jar::CookiePair;
use super::tokens::Token;
use super::{Detected, Finding, node};
use crate::session::registry::Registry;
use crate::session::types::CredentialSource;

/// The credentials in headers other than `Cookie`.
pub(super) fn in_headers(headers: &HeaderMap, registry: &Registry) -> Vec<Detected> {
    let mut found = Vec::new();
    for (name, value) in headers {
        if name == header::COOKIE {
            continue;
        }
        let Ok(value) = value.to_str() else { continue };
        let place = if name == header::AUTHORIZATION {
            CredentialSource::Bearer
        } else {
            CredentialSource::Header(name.clone())
        };
        let finding = in_header(name, value.trim(), &place, registry);
        found.extend(finding.map(|finding| finding.at(place.to_string(), registry)));
    }
    found
}

fn in_header(
    name: &HeaderName,
    value: &str,
    place: &CredentialSource,
    registry: &Registry,
) -> Option<Finding> {
    let (scheme, credential) = match value.split_once(' ') {
        Some((scheme, credential)) if scheme.bytes().all(|byte| byte.is_ascii_alphabetic()) => {
            (scheme, credential.trim())
        }
        _ => ("", value),
    };
    let is_authorization = name == header::AUTHORIZATION;
    if scheme.is_empty() || scheme.eq_ignore_ascii_case("bearer") {
        let sealed = || node::sealed_token(credential, None).filter(|_| is_authorization);
        let found = Token::read(credential)
            .map(|token| token.finding(place))
            .or_else(|| h3_header(name, credential))
            .or_else(sealed);
        if found.is_some() {
            return found;
        }
    }
    if is_authorization {
        return opaque(scheme, credential);
    }
    asserted(name, registry)
}

/// `x-NAME-session`, the header from which h3 also reads the session that it writes into the cookie `NAME`.
fn h3_header(name: &HeaderName, value: &str) -> Option<Finding> {
    let name = name.as_str().strip_prefix("x-")?.strip_suffix("-session")?;
    let value = value.to_owned();
    node::iron(&CookiePair { name, value })
}

/// A header in which a proxy names the user, as in the presets of `trusted_header`.
fn asserted(name: &HeaderName, registry: &Registry) -> Option<Finding> {
    let (_, kind) = registry.entry("trusted_header")?;
    let (preset, _) = kind.presets.iter().find(|(_, keys)| {
        let keys: Table = keys.parse().unwrap_or_default();
        let header = keys.get("header").and_then(Toml::as_str);
        header.is_some_and(|header| header.eq_ignore_ascii_case(name.as_str()))
    })?;
    let draft = Draft::new("trusted_header")
        .preset(*preset)
        .trusted_proxies();
    Some(Finding::new(
        format!("{preset}, a proxy that signs users in"),
        Likely,
        "docs/providers/proxies.md",
        [draft],
    ))
}

/// A token in `Authorization` that is not a JWT.
fn opaque(scheme: &str, credential: &str) -> Option<Finding> {
    if credential.is_empty() {
        return None;
    }
    let from = "header:authorization";
    if scheme.eq_ignore_ascii_case("token") {
        // `rest_framework.authtoken` creates tokens of 40 hexadecimal digits.
        let is_drf = credential.len() == 40 && is_hex(credential);
        let query = "SELECT user_id FROM authtoken_token WHERE key = $1";
        let draft = Draft::new("sql_session")
            .key("from", vec![from])
            .database()
            .key("query", query)
            .key("subject", "{user_id}");
        return Some(Finding::new(
            "a token of Django REST framework",
            if is_drf { Likely } else { Guess },
            "docs/recipes/django-rest-framework.md",
            [draft, Draft::ask_with(None)],
        ));
    }
    if !scheme.eq_ignore_ascii_case("bearer") {
        return None;
    }
    if let Some((id, text)) = credential.split_once('|')
        && id.bytes().all(|byte| byte.is_ascii_digit())
        && text.len() >= 40
    {
        // Laravel Sanctum writes `ID|TEXT`: the row's id, and a string whose SHA-256 is stored in the row.
        let query = "SELECT id, tokenable_id AS user_id FROM personal_access_tokens WHERE token = $1 \
             AND (expires_at IS NULL OR expires_at > to_timestamp($2))";
        let draft = Draft::new("sql_session")
            .key("from", vec![from])
            .key("key_hash", "sha256")
            .database()
            .key("query", query)
            .key("subject", "{user_id}");
        return Some(Finding::new(
            "a token of Laravel Sanctum",
            Likely,
            "docs/recipes/laravel-sanctum.md",
            [draft, Draft::ask_with(None)],
        ));
    }
    if is_signed_token(credential) {
        return Some(Finding::new(
            "the bearer token of Better Auth",
            Guess,
            "docs/recipes/better-auth.md",
            [Draft::new("session_endpoint")
                .preset("better-auth")
                .app()
                .key("forward_headers", vec!["Authorization"])],
        ));
    }
    let draft = Draft::new("introspection").introspection("https://idp.example/oauth2/introspect");
    let keys = Table::from_iter([("backend".to_owned(), "0".repeat(64).into())]);
    let key = Draft::new("api_key").example("keys", keys, "the SHA-256 of your backend's API key");
    Some(Finding::new(
        "an opaque access token, or an API key of your own backend",
        Guess,
        "docs/providers/introspection.md",
        [draft, key, Draft::ask_with(None)],
    ))
}

/// Whether the text is `TOKEN.SIGNATURE`, where the signature has the 44 characters of an HMAC-SHA-256 in padded
/// base64.
fn is_signed_token(text: &str) -> bool {
    text.rsplit_once('.').is_some_and(|(token, signature)| {
        !token.is_empty() && signature.len() == 44 && signature.ends_with('=')
    })
}
