//! Detects sessions in cookies. Skips cookies that are known not to be sessions. A value in a distinctive format is
//! recognised by that format, regardless of the cookie's name. The id of a stored session is random text, so it is
//! recognised by the cookie's name.

use axum::http::HeaderMap;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::jar::{CookiePair, Jar};
use super::tokens::Token;
use super::{Detected, Finding, ids, node, php, python, rails};
use crate::json::Object;
use crate::session::credential_source::in_cookie;
use crate::session::registry::Registry;
use crate::session::types::CredentialSource;

/// The credentials in the cookies of a request.
pub(super) fn in_cookies(headers: &HeaderMap, registry: &Registry) -> Vec<Detected> {
    let jar = Jar::read(headers);
    let mut found: Vec<Detected> = Vec::new();
    for cookie in jar.iter().filter(|cookie| !is_no_session(cookie, &jar)) {
        // Clerk writes its token into two cookies with different names.
        let is_repeated = jar
            .iter()
            .take_while(|other| !std::ptr::eq(*other, cookie))
            .any(|other| other.value == cookie.value && cookie.name.starts_with(other.name));
        if is_repeated {
            continue;
        }
        let place = place(cookie);
        if let Some(finding) = by_shape(cookie, &jar).or_else(|| ids::by_name(cookie, registry)) {
            found.push(finding.at(place.to_string(), registry));
        }
    }
    found
}

fn place(cookie: &CookiePair<'_>) -> CredentialSource {
    if supabase_token(cookie).is_some() {
        CredentialSource::Supabase(cookie.name.to_owned())
    } else if let Some((client, _)) = amplify(cookie.name) {
        CredentialSource::Amplify(client.to_owned())
    } else {
        CredentialSource::Cookie(cookie.name.to_owned())
    }
}

/// Whether the cookie looks like a session but is not one, such as a CSRF token, the state of an unfinished sign-in, a
/// refresh token, or the signature of another cookie.
fn is_no_session(cookie: &CookiePair<'_>, jar: &Jar<'_>) -> bool {
    let name = cookie.name.to_ascii_lowercase();
    let is_signature = name.strip_suffix(".sig").is_some_and(|base| {
        jar.iter()
            .any(|other| other.name.eq_ignore_ascii_case(base))
    });
    let parts = [
        "csrf",
        "xsrf",
        "refresh",
        "remember",
        "verifier",
        "pkce",
        "callback",
        "redirect",
        "analytics",
        "consent",
        "device",
    ];
    let ends = [
        ".state",
        ".nonce",
        ".challenge",
        "_state",
        "_nonce",
        "_uat",
        ".lastauthuser",
        ".clockdrift",
    ];
    is_signature
        || parts.iter().any(|part| name.contains(part))
        || ends.iter().any(|end| name.ends_with(end))
        || ["messages", "state", "nonce", "theme", "lang", "locale"].contains(&name.as_str())
        || name.starts_with("_ga")
        || name.starts_with("__clerk_")
}

fn by_shape(cookie: &CookiePair<'_>, jar: &Jar<'_>) -> Option<Finding> {
    if let Some(token) = supabase_token(cookie) {
        return Some(Token::read(&token)?.finding(&place(cookie)));
    }
    if let Some((_, what)) = amplify(cookie.name) {
        // The cookie with the ID token is ignored, because ID tokens are meant for the front end.
        return (what == "accessToken")
            .then(|| Token::read(&cookie.value))?
            .map(|token| token.finding(&place(cookie)));
    }
    node::better_auth_cache(cookie)
        .or_else(|| jwt(cookie))
        .or_else(|| node::sealed_token(&cookie.value, Some(cookie.name)))
        .or_else(|| node::iron(cookie))
        .or_else(|| php::laravel(cookie, jar))
        .or_else(|| rails::rails(cookie))
        .or_else(|| node::express(cookie))
        .or_else(|| node::keygrip(cookie, jar))
        .or_else(|| python::django(cookie))
        .or_else(|| python::itsdangerous(cookie))
        .or_else(|| node::signed_value(cookie))
        .or_else(|| ids::phoenix(cookie))
}

fn jwt(cookie: &CookiePair<'_>) -> Option<Finding> {
    let text = in_cookie(&cookie.value)?;
    Some(Token::read(text.trim())?.finding(&place(cookie)))
}

/// The access token in the session of `@supabase/ssr`, which is JSON, either plain or in base64url after the prefix
/// `base64-`.
fn supabase_token(cookie: &CookiePair<'_>) -> Option<String> {
    let json = match cookie.value.strip_prefix("base64-") {
        Some(encoded) => URL_SAFE_NO_PAD.decode(encoded.trim_end_matches('=')).ok()?,
        None if cookie.value.starts_with(['{', '[']) => cookie.value.clone().into_bytes(),
        None => return None,
    };
    // Older Supabase helpers wrote a list that begins with the access token. Lists are not supported.
    Object::parse(&json)?
        .text("access_token")
        .map(str::to_owned)
}

/// The app client and the token type in a cookie name of AWS Amplify:
/// `CognitoIdentityServiceProvider.CLIENT.USER.accessToken`.
fn amplify(name: &str) -> Option<(&str, &str)> {
    let rest = name.strip_prefix("CognitoIdentityServiceProvider.")?;
    let (client, rest) = rest.split_once('.')?;
    let (_, what) = rest.rsplit_once('.')?;
    Some((client, what))
}
