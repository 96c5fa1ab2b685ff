//! Base64 as frameworks write it, read leniently: only the shape matters here.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

use crate::json::Value;

/// How many bytes a text in base64 or base64url has, padded or not. Bits that decoders ignore may be set: some
/// frameworks accept them.
pub(super) fn bytes_of(text: &str) -> Option<usize> {
    let unpadded = text.trim_end_matches('=');
    let is_alphabet = |byte: u8| byte.is_ascii_alphanumeric() || b"+/-_".contains(&byte);
    (unpadded.len() % 4 != 1 && unpadded.bytes().all(is_alphabet)).then(|| unpadded.len() * 3 / 4)
}

/// Base64 or base64url of a JSON object.
pub(super) fn json_object(text: &str) -> Option<Value> {
    let unpadded = text.trim_end_matches('=');
    let bytes = URL_SAFE_NO_PAD
        .decode(unpadded)
        .or_else(|_| STANDARD_NO_PAD.decode(unpadded))
        .ok()?;
    Value::parse(&bytes)
        .ok()
        .filter(|value| value.as_object().is_some())
}
