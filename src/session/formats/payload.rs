//! From the text of a genuine session to its attributes: base64, zlib, JSON, and nothing else.
//! Call it once the signature is checked.

use std::io::Read;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use flate2::read::ZlibDecoder;

use crate::json::Value;
use crate::session::types::ExtractError;

/// The most that a cookie's compressed session may become. Zlib can make a thousand bytes of one.
const MAX_INFLATED: usize = 64 * 1024;

/// The most that a store's session may be. A larger one is a mistake, and parsing it would delay all other
/// requests. Stores are asked for one byte more, which tells that the value is longer.
pub const MAX_STORED: usize = 1024 * 1024;

/// Bytes in base64 of the standard alphabet with its padding (RFC 4648, section 4).
pub fn base64(text: &str) -> Result<Vec<u8>, ExtractError> {
    STANDARD
        .decode(text)
        .map_err(|_| ExtractError::rejected("malformed"))
}

/// Bytes in base64 of the URL alphabet without padding; zlib's, if a dot stands in front. That is how
/// itsdangerous and Django write a payload that compression makes shorter.
pub fn base64_or_zlib(text: &str) -> Result<Vec<u8>, ExtractError> {
    let decode = |text| {
        URL_SAFE_NO_PAD
            .decode(text)
            .map_err(|_| ExtractError::rejected("malformed"))
    };
    match text.strip_prefix('.') {
        Some(compressed) => inflate(&decode(compressed)?, MAX_INFLATED),
        None => decode(text),
    }
}

/// At most `most` bytes out of zlib.
pub fn inflate(compressed: &[u8], most: usize) -> Result<Vec<u8>, ExtractError> {
    let mut bytes = Vec::new();
    let read = ZlibDecoder::new(compressed)
        .take(most as u64 + 1)
        .read_to_end(&mut bytes);
    match read {
        Err(_) => Err(ExtractError::rejected("malformed")),
        Ok(length) if length > most => Err(ExtractError::rejected("too_large")),
        Ok(_) => Ok(bytes),
    }
}

/// The session in JSON: an object, or `null` for a session in which nobody is signed in.
pub fn json(bytes: &[u8]) -> Result<Value, ExtractError> {
    match Value::parse(bytes) {
        Ok(session @ (Value::Object(_) | Value::Null)) => Ok(session),
        Ok(_) => Err(ExtractError::rejected("malformed")),
        Err(_) => Err(ExtractError::rejected("payload_not_json")),
    }
}

/// Python's pickle of a dict, protocols 0 to 5, ends in its STOP opcode, as no JSON does.
pub fn is_pickle(bytes: &[u8]) -> bool {
    matches!(bytes, [0x80 | b'(' | b'}', .., b'.'])
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn word<T: std::fmt::Debug>(result: Result<T, ExtractError>) -> &'static str {
        result.expect_err("a refusal").word()
    }

    fn zlib(bytes: &[u8]) -> String {
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(bytes).unwrap();
        format!(".{}", URL_SAFE_NO_PAD.encode(encoder.finish().unwrap()))
    }

    #[test]
    fn zlib_stops_at_its_cap() {
        let spaces = |count: usize| zlib(&vec![b' '; count]);
        assert_eq!(
            base64_or_zlib(&spaces(MAX_INFLATED)).unwrap().len(),
            MAX_INFLATED
        );
        assert_eq!(word(base64_or_zlib(&spaces(MAX_INFLATED + 1))), "too_large");
        assert_eq!(
            word(base64_or_zlib(&spaces(64 * MAX_INFLATED))),
            "too_large"
        );
    }

    #[test]
    fn damaged_text_is_malformed() {
        let whole = zlib(b"{\"user_id\":1}");
        for text in [
            ".",
            "..",
            ".AAAA",
            "e30=",
            "e3",
            "e31",
            "e3 0",
            "e3+/",
            "%65",
            &whole[..whole.len() - 4],
        ] {
            assert_eq!(word(base64_or_zlib(text)), "malformed", "{text}");
        }
        for text in ["e30", "e31=", "e3-_", "e30=\n", "!!!"] {
            assert_eq!(word(base64(text)), "malformed", "{text}");
        }
    }

    #[test]
    fn only_an_object_or_null_is_a_session() {
        assert!(json(b"{}").is_ok() && json(b" null").is_ok());
        for text in ["[]", "\"user\"", "7", "true"] {
            assert_eq!(word(json(text.as_bytes())), "malformed", "{text}");
        }
        for text in ["", "{", "{}x", "{\"a\":NaN}", "\u{feff}{}"] {
            assert_eq!(word(json(text.as_bytes())), "payload_not_json", "{text}");
        }
    }

    #[test]
    fn pickle_is_recognised_by_its_first_and_last_bytes() {
        // {"a": 1} in protocols 0, 1, 2 and 4.
        let pickles: [&[u8]; 4] = [
            b"(dp0\nVa\np1\nI1\ns.",
            b"}q\x00X\x01\x00\x00\x00aq\x01K\x01s.",
            b"\x80\x02}q\x00X\x01\x00\x00\x00aq\x01K\x01s.",
            b"\x80\x04\x95\x0a\x00\x00\x00\x00\x00\x00\x00}\x94\x8c\x01a\x94K\x01s.",
        ];
        assert!(pickles.into_iter().all(is_pickle));
        let others = [&b"{}"[..], b"null", b"", b".", b"{\"a\":\".\"}"];
        assert!(!others.into_iter().any(is_pickle));
    }
}
