//! Percent-decoding of cookie values (RFC 3986, section 2.1), strictly: a `%` without two hex digits is
//! an error, not text.

/// What a bare `+` stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plus {
    /// Itself.
    Plus,
    /// A space, as in HTML forms: Rack decodes cookies that way.
    Space,
}

/// The decoded text; `None` if it is not encoded rightly, or not UTF-8.
pub fn decode(text: &str, plus: Plus) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [byte, tail @ ..] = rest {
        rest = tail;
        match byte {
            b'%' => {
                let ([high, low], tail) = rest.split_first_chunk()?;
                bytes.push(hex(*high)? << 4 | hex(*low)?);
                rest = tail;
            }
            b'+' if plus == Plus::Space => bytes.push(b' '),
            _ => bytes.push(*byte),
        }
    }
    String::from_utf8(bytes).ok()
}

fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_escapes_of_utf_8_are_decoded() {
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
    }
}
