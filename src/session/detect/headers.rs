//! Detects credentials in headers other than `Cookie`: JWTs in any header, encrypted JWTs and opaque tokens in
//! `Authorization`, sessions of h3, and the headers in which proxies name the user.

use axum::http::{HeaderMap, HeaderName, header};
use toml::{Table, Value as Toml};

use super::draft::Draft;
use super::jar::CookiePair;
use super::tokens::Token;
use super::{Confidence, Detected, Finding, node};
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
    if scheme.is_empty() || scheme.eq_ignore_ascii_case("bearer") {
        if let Some(token) = Token::read(credential) {
            return Some(token.finding(place));
        }
        if let Some(finding) = h3_header(name, credential) {
            return Some(finding);
        }
        if name == header::AUTHORIZATION
            && let Some(finding) = node::sealed_token(credential, None)
        {
            return Some(finding);
        }
    }
    if name == header::AUTHORIZATION {
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
    let preset = kind.presets.iter().find_map(|(preset, keys)| {
        let keys: Table = keys.parse().ok()?;
        let header = keys.get("header")?.as_str()?;
        header
            .eq_ignore_ascii_case(name.as_str())
            .then_some(*preset)
    })?;
    let draft = Draft::new("trusted_header").preset(preset).example(
        "trusted_proxies",
        vec!["10.0.0.5"],
        "the proxy's address, as this service sees it",
    );
    Some(Finding::new(
        format!("{preset}, a proxy that signs users in"),
        Confidence::Likely,
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
            if is_drf {
                Confidence::Likely
            } else {
                Confidence::Guess
            },
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
            Confidence::Likely,
            "docs/recipes/laravel-sanctum.md",
            [draft, Draft::ask_with(None)],
        ));
    }
    if is_signed_token(credential) {
        return Some(Finding::new(
            "the bearer token of Better Auth",
            Confidence::Guess,
            "docs/recipes/better-auth.md",
            [Draft::new("session_endpoint")
                .preset("better-auth")
                .app()
                .key("forward_headers", vec!["Authorization"])],
        ));
    }
    let draft = Draft::new("introspection")
        .example(
            "url",
            "https://idp.example/oauth2/introspect",
            "the issuer's introspection endpoint",
        )
        .example(
            "client_id",
            "rollout-token",
            "the client id of this service at the issuer",
        )
        .secret("client_secret", "the secret of this client")
        .example(
            "client_ids",
            vec!["web"],
            "the apps whose tokens you accept",
        );
    let key = Draft::new("api_key").example(
        "keys",
        Toml::Table(
            [("backend".to_owned(), Toml::from("0".repeat(64)))]
                .into_iter()
                .collect(),
        ),
        "the SHA-256 of your backend's API key",
    );
    Some(Finding::new(
        "an opaque access token, or an API key of your own backend",
        Confidence::Guess,
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

fn is_hex(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_hexdigit())
}
