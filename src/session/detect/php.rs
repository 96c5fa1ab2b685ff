//! Detects Laravel's cookies.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::Confidence::{Certain, Guess, Likely};
use super::Finding;
use super::draft::Draft;
use super::jar::{CookiePair, Jar};
use crate::json::Object;

/// Base64 of JSON with `iv`, `value` and `mac`, which is the form of every Laravel cookie. The cookie whose name ends
/// in `session` contains the session's id. With `SESSION_DRIVER=cookie`, the session is in a second cookie, whose name
/// is that id of 40 characters.
pub(super) fn laravel(cookie: &CookiePair<'_>, jar: &Jar<'_>) -> Option<Finding> {
    let tag = laravel_tag(&cookie.value)?;
    let is_id =
        |name: &str| name.len() == 40 && name.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if is_id(cookie.name) {
        return None;
    }
    let is_session = cookie.name.ends_with("session");
    let key = |draft: Draft| {
        let mut draft = draft.unless("cookie", cookie.name, &["laravel_session"]);
        if !tag.is_empty() {
            draft = draft.example("cipher", "aes-256-gcm", "as in config/app.php");
        }
        draft.secret("app_key", "the app's APP_KEY, with its prefix base64:")
    };
    let has_payload = jar
        .iter()
        .any(|other| is_id(other.name) && laravel_tag(&other.value).is_some());
    let page = "docs/recipes/laravel.md";
    if has_payload {
        return Some(Finding::new(
            "Laravel with SESSION_DRIVER=cookie",
            if is_session { Certain } else { Likely },
            page,
            [key(Draft::new("laravel"))],
        ));
    }
    let sql = key(Draft::new("sql_session").preset("laravel").example(
        "url",
        "mysql://localhost:3306/laravel",
        "the app's database, if SESSION_DRIVER is database",
    ));
    let redis = key(Draft::new("redis_session")
        .preset("laravel")
        .redis()
        .example(
            "key_prefix",
            "laravel_database_laravel_cache_",
            "the prefixes in config/database.php and config/cache.php, joined",
        ));
    Some(Finding::new(
        "Laravel",
        if is_session { Likely } else { Guess },
        page,
        [sql, redis, Draft::ask_with(Some(cookie.name))],
    ))
}

/// The authentication tag of a value that Laravel encrypted; empty unless the mode is GCM. `None` if the value has
/// another form.
fn laravel_tag(value: &str) -> Option<String> {
    let envelope = Object::parse(&STANDARD.decode(value).ok()?)?;
    for name in ["iv", "value", "mac"] {
        envelope.text(name)?;
    }
    Some(envelope.text("tag").unwrap_or_default().to_owned())
}
