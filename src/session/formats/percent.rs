//! Strict percent-decoding of cookie values (RFC 3986, section 2.1): a `%` that is not followed by two hex digits is an
//! error.

use std::borrow::Cow;

use crate::session::formats::hex;

/// How `+` is decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plus {
    /// As a plus sign.
    Plus,
    /// As a space, as in HTML forms. Rack decodes cookies in this way.
    Space,
}

/// The decoded text; `None` if the encoding is malformed or the result is not UTF-8.
pub fn decode(text: &str, plus: Plus) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [byte, tail @ ..] = rest {
        rest = tail;
        match byte {
            b'%' => {
                let ([high, low], tail) = rest.split_first_chunk()?;
                let digit = |byte: u8| hex::digit(byte.to_ascii_lowercase());
                bytes.push(digit(*high)? << 4 | digit(*low)?);
                rest = tail;
            }
            b'+' if plus == Plus::Space => bytes.push(b' '),
            _ => bytes.push(*byte),
        }
    }
    String::from_utf8(bytes).ok()
}

/// The decoded text, or the unchanged text if it cannot be decoded, as JavaScript's `cookie` package does. `+` is
/// decoded as a plus sign.
pub fn decode_or_raw(text: &str) -> Cow<'_, str> {
    if !text.contains('%') {
        return Cow::Borrowed(text);
    }
    decode(text, Plus::Plus).map_or(Cow::Borrowed(text), Cow::Owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn incomplete_escape_and_invalid_utf_8_are_refused() {
        for (text, want) in [
            ("", Some("")),
            ("a%2Bb%2f%3D%3d", Some("a+b/==")),
            ("a+b", Some("a+b")),
            ("%C3%A9", Some("é")),
            ("%2525", Some("%25")),
            ("%", None),
            ("%2", None),
            ("%2G", None),
            ("%+1", None),
            ("%FF", None),
        ] {
            assert_eq!(decode(text, Plus::Plus).as_deref(), want, "{text}");
        }
        assert_eq!(decode("a+b%2B", Plus::Space).as_deref(), Some("a b+"));
        for (text, want) in [
            ("a+b", "a+b"),
            ("%C3%A9+%2B", "\u{e9}++"),
            ("50%", "50%"),
            ("%ff", "%ff"),
        ] {
            assert_eq!(decode_or_raw(text), want, "{text}");
        }
    }
}
