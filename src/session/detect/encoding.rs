//! Decodes the base64 that frameworks write. Decoding is lenient, because `detect` needs only the form of a value.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

use crate::json::Object;

/// The number of bytes that base64 or base64url text encodes, with or without padding. Unused trailing bits may be set,
/// because some frameworks accept them.
pub(super) fn bytes_of(text: &str) -> Option<usize> {
    let unpadded = text.trim_end_matches('=');
    let is_alphabet = |byte: u8| byte.is_ascii_alphanumeric() || b"+/-_".contains(&byte);
    (unpadded.len() % 4 != 1 && unpadded.bytes().all(is_alphabet)).then(|| unpadded.len() * 3 / 4)
}

pub(super) fn is_hex(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// The cookie's name without the prefixes that browsers check.
pub(super) fn without_prefix(name: &str) -> &str {
    name.trim_start_matches("__Secure-")
        .trim_start_matches("__Host-")
}

/// Decodes a JSON object from base64 or base64url.
pub(super) fn json_object(text: &str) -> Option<Object> {
    let unpadded = text.trim_end_matches('=');
    let bytes = URL_SAFE_NO_PAD
        .decode(unpadded)
        .or_else(|_| STANDARD_NO_PAD.decode(unpadded))
        .ok()?;
    Object::parse(&bytes)
}
