//! Detects Rails cookies: encrypted cookies, signed cookies, and the session id of the sign-in that Rails 8 generates.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::Confidence::{Certain, Likely};
use super::Finding;
use super::draft::Draft;
use super::encoding::is_hex;
use super::jar::CookiePair;
use super::subjects::candidates;
use crate::json::Value;

/// Rails joins the parts of its cookies with `--`: ciphertext, nonce and tag in an encrypted cookie, payload and
/// hexadecimal HMAC in a signed cookie. With `config.load_defaults` below 5.2, Rails also signs its encrypted cookies,
/// which then have the form of a signed cookie.
pub(super) fn rails(cookie: &CookiePair<'_>) -> Option<Finding> {
    let parts: Vec<&str> = cookie.value.split("--").collect();
    let page = "docs/recipes/rails.md";

    let secret = |draft: Draft| draft.secret("secret_key_base", "the app's SECRET_KEY_BASE");
    let draft = Draft::new("rails").key("cookie", cookie.name);
    match parts.as_slice() {
        [sealed, nonce, tag] => {
            let length = |part: &str| STANDARD.decode(part).map(|bytes| bytes.len()).ok();
            let is_sealed =
                length(sealed).is_some() && length(nonce) == Some(12) && length(tag) == Some(16);
            let product = if cookie.name.ends_with("_session") {
                "the session of Rails"
            } else {
                "an encrypted cookie of Rails"
            };
            is_sealed.then(|| Finding::new(product, Certain, page, [secret(draft)]))
        }
        [payload, signature] if [40, 64, 128].contains(&signature.len()) && is_hex(signature) => {
            let digest = |draft: Draft| match signature.len() {
                64 => draft.key("hmac_digest", "sha256"),
                128 => draft.key("hmac_digest", "sha512"),
                _ => draft,
            };
            let content = STANDARD.decode(payload).ok()?;
            if is_cbc_pair(&content) {
                let draft = digest(draft.key("scheme", "encrypted_cbc"));
                return Some(Finding::new(
                    "a Rails session with config.load_defaults below 5.2",
                    Certain,
                    page,
                    [secret(draft)],
                ));
            }
            let draft = secret(digest(draft.key("scheme", "signed")));
            let subjects = signed_value(&content).as_ref().map(candidates);
            let subjects = subjects.unwrap_or_default();
            let draft = match subjects.first() {
                // At start, the service refuses the id of a session's row as the subject, so it is not suggested.
                Some(subject) if cookie.name != "session_id" || subject != "{}" => {
                    draft.key("subject", subject.as_str())
                }
                _ => draft,
            };
            let generated = Draft::new("sql_session")
                .preset("rails8")
                .unless("cookie", cookie.name, &["session_id"])
                .database()
                .secret("cookie_secrets", "the app's SECRET_KEY_BASE");
            // In the sign-in that Rails 8 generates, this cookie contains the id of a session's row, not of a user.
            if cookie.name == "session_id" && subjects == ["{}"] {
                return Some(Finding::new(
                    "the sign-in that Rails 8 generates",
                    Likely,
                    "docs/recipes/rails8.md",
                    [generated, draft],
                ));
            }
            Some(Finding::new("a signed cookie of Rails", Likely, page, [draft]).showing(subjects))
        }
        _ => None,
    }
}

/// Whether the content is an AES-CBC ciphertext and its 16-byte IV, both in base64 and joined with `--`.
fn is_cbc_pair(content: &[u8]) -> bool {
    let pair = std::str::from_utf8(content)
        .ok()
        .and_then(|text| text.split_once("--"));
    pair.is_some_and(|(sealed, iv)| {
        STANDARD.decode(sealed).is_ok() && STANDARD.decode(iv).is_ok_and(|iv| iv.len() == 16)
    })
}

/// The value of a signed cookie, with or without the envelope that Rails has written since 5.2.
fn signed_value(content: &[u8]) -> Option<Value> {
    let json = Value::parse(content).ok()?;
    let envelope = json
        .as_object()
        .and_then(|object| object.get("_rails").ok().flatten())
        .and_then(Value::as_object);
    let Some(envelope) = envelope else {
        return Some(json);
    };
    let message = envelope.text("message")?;
    Value::parse(&STANDARD.decode(message).ok()?).ok()
}
