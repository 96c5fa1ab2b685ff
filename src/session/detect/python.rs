//! Detects sessions of Python frameworks: Django's signed cookies, Flask, Starlette, and the ids of Django and
//! Flask-Session.

use std::io::Read;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

use super::Confidence::{Certain, Guess, Likely};
use super::draft::Draft;
use super::encoding::bytes_of;
use super::jar::CookiePair;
use super::subjects::candidates;
use super::{Confidence, Finding};
use crate::json::{Object, Value};

/// `PAYLOAD:TIME:SIGNATURE` of Django's signed cookies. The time is in base 62.
pub(super) fn django(cookie: &CookiePair<'_>) -> Option<Finding> {
    let mut parts = cookie.value.rsplitn(3, ':');
    let (signature, time, payload) = (parts.next()?, parts.next()?, parts.next()?);
    let is_time =
        (5..=7).contains(&time.len()) && time.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if bytes_of(signature) != Some(32) || !is_time {
        return None;
    }
    let session = framed_json(payload)?;
    let subjects = session.as_ref().map(candidates).unwrap_or_default();
    let mut draft = Draft::new("django_signed").unless("cookie", cookie.name, &["sessionid"]);
    if !subjects.is_empty() {
        draft = draft.subject(&subjects, "{_auth_user_id}");
    }
    let draft = draft.secret("secret_key", "the app's SECRET_KEY");
    let page = "docs/recipes/django.md";
    Some(Finding::new("Django with signed cookies", Certain, page, [draft]).showing(subjects))
}

/// The JSON object in a payload, which is compressed if a dot precedes it. `Some(None)` if it is compressed and cannot
/// be inspected, for example because it is too large; `None` if it has another form.
#[expect(
    clippy::option_option,
    reason = "`None` means another form, and `Some(None)` means content that cannot be inspected"
)]
fn framed_json(payload: &str) -> Option<Option<Value>> {
    let Some(compressed) = payload.strip_prefix('.') else {
        let json = Object::parse(&URL_SAFE_NO_PAD.decode(payload).ok()?)?;
        return Some(Some(Value::Object(json)));
    };
    let bytes = URL_SAFE_NO_PAD.decode(compressed).ok()?;
    // The first byte of zlib data (RFC 1950) that is compressed by deflate with a 32 KiB window.
    if bytes.first() != Some(&0x78) {
        return None;
    }
    let mut json = Vec::new();
    let read = flate2::read::ZlibDecoder::new(bytes.as_slice())
        .take(MAX_INFLATED)
        .read_to_end(&mut json);
    Some(read.ok().and_then(|_| Value::parse(&json).ok()))
}

/// The maximum number of bytes to which a compressed session is expanded.
const MAX_INFLATED: u64 = 256 * 1024;

/// `PAYLOAD.TIME.SIGNATURE` of itsdangerous. Flask's payload is compact JSON in base64url, possibly compressed;
/// Starlette's is JSON with spaces, as Python prints it, in padded base64.
pub(super) fn itsdangerous(cookie: &CookiePair<'_>) -> Option<Finding> {
    let mut parts = cookie.value.rsplitn(3, '.');
    let (signature, time, payload) = (parts.next()?, parts.next()?, parts.next()?);
    let is_time = URL_SAFE_NO_PAD
        .decode(time)
        .is_ok_and(|bytes| (4..=5).contains(&bytes.len()));
    let digest = match bytes_of(signature)? {
        20 => "sha1",
        32 => "sha256",
        48 => "sha384",
        64 => "sha512",
        _ => return None,
    };
    if !is_time || payload.is_empty() {
        return None;
    }
    let starlette = STANDARD.decode(payload).ok().filter(|json| {
        let text = String::from_utf8_lossy(json);
        digest == "sha1" && (text.contains("\": ") || payload.ends_with('=') || text == "{}")
    });
    if let Some(session) = starlette.and_then(|json| Object::parse(&json)) {
        let subjects = candidates(&Value::Object(session));
        let draft = Draft::new("starlette")
            .unless("cookie", cookie.name, &["session"])
            .subject(&subjects, "{user_id}");
        let finding = Finding::new(
            "the SessionMiddleware of Starlette and FastAPI",
            Certain,
            "docs/recipes/fastapi.md",
            [draft.secret("secret_key", "the secret_key of SessionMiddleware")],
        );
        return Some(finding.showing(subjects));
    }
    let session = framed_json(payload)?;
    let subjects = session.as_ref().map(candidates).unwrap_or_default();
    let draft = Draft::new("flask")
        .unless("cookie", cookie.name, &["session"])
        .unless("digest", digest, &["sha1"])
        .subject(&subjects, "{_user_id}")
        .secret("secret_key", "the app's SECRET_KEY");
    Some(Finding::new("Flask", Certain, "docs/recipes/flask.md", [draft]).showing(subjects))
}

pub(super) fn flask_session(cookie: &CookiePair<'_>, confidence: Confidence) -> Finding {
    let draft = Draft::new("redis_session")
        .key("cookie", cookie.name)
        .redis()
        .key("key_prefix", "session:")
        .key("payload", "msgpack")
        .example("subject", "{_user_id}", "where the app keeps the user's id");
    Finding::new(
        "Flask-Session",
        confidence,
        "docs/recipes/flask.md",
        [draft, Draft::ask_with(Some(cookie.name))],
    )
}

/// A session key from Django's `get_random_string`: 32 characters from a-z and 0-9. At least one must be a letter from
/// g to z, because these do not occur in the hexadecimal ids of other frameworks.
pub(super) fn django_id(cookie: &CookiePair<'_>) -> Option<Finding> {
    let (name, value) = (cookie.name, cookie.value.as_str());
    let is_key = value.len() == 32
        && value
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
        && value.bytes().any(|byte| byte > b'f');
    if !is_key {
        return None;
    }
    let draft = Draft::new("sql_session")
        .preset("django")
        .unless("cookie", name, &["sessionid"])
        .example(
            "url",
            "postgres://localhost:5432/app",
            "the app's database, or sqlite:///path/db.sqlite3",
        )
        .example(
            "user_query",
            "SELECT password FROM auth_user WHERE id = CAST($1 AS bigint) AND is_active",
            "the app's table of users",
        )
        .secret("secret_key", "the app's SECRET_KEY");
    let confidence = if name == "sessionid" { Likely } else { Guess };
    let drafts = [draft, Draft::ask_with(Some(name))];
    Some(Finding::new(
        "Django",
        confidence,
        "docs/recipes/django.md",
        drafts,
    ))
}
