//! Decodes the payload of a session into its attributes: base64, zlib and JSON. Callers must verify the signature
//! first.

use std::io::Read;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use flate2::read::ZlibDecoder;

use crate::json::Value;
use crate::session::reason::Reason;
use crate::session::types::ExtractError;

/// The maximum size of a cookie's session after decompression, in bytes. Zlib can expand data a thousandfold.
const MAX_INFLATED: usize = 64 * 1024;

/// The maximum size of a session in a store, in bytes. A larger session is a mistake, and parsing it would delay other
/// requests. Extractors request one byte or character more, which shows whether the value is larger.
pub const MAX_STORED: usize = 1024 * 1024;

/// Decodes padded base64 (RFC 4648, section 4).
pub fn base64(text: &str) -> Result<Vec<u8>, ExtractError> {
    STANDARD.decode(text).map_err(|_| ExtractError::malformed())
}

/// Decodes unpadded base64url, and decompresses zlib data if the text begins with a dot. itsdangerous and Django
/// compress a payload in this way if compression makes it shorter.
pub fn base64_or_zlib(text: &str) -> Result<Vec<u8>, ExtractError> {
    let decode = |text| {
        URL_SAFE_NO_PAD
            .decode(text)
            .map_err(|_| ExtractError::malformed())
    };
    match text.strip_prefix('.') {
        Some(compressed) => inflate(&decode(compressed)?, MAX_INFLATED),
        None => decode(text),
    }
}

/// Decompresses zlib data. A result that is longer than `max` bytes is an error.
pub fn inflate(compressed: &[u8], max: usize) -> Result<Vec<u8>, ExtractError> {
    let mut bytes = Vec::new();
    let read = ZlibDecoder::new(compressed)
        .take(max as u64 + 1)
        .read_to_end(&mut bytes);
    match read {
        Err(_) => Err(ExtractError::malformed()),
        Ok(length) if length > max => Err(ExtractError::rejected(Reason::TooLarge)),
        Ok(_) => Ok(bytes),
    }
}

/// Parses a session in JSON: an object, or `null` for a session without a signed-in user.
pub fn json(bytes: &[u8]) -> Result<Value, ExtractError> {
    match Value::parse(bytes) {
        Ok(session @ (Value::Object(_) | Value::Null)) => Ok(session),
        Ok(_) => Err(ExtractError::malformed()),
        Err(_) => Err(ExtractError::rejected(Reason::PayloadNotJson)),
    }
}

/// Whether the bytes are a Python pickle of a dict, in one of the protocols 0 to 5. A pickle ends with the opcode STOP,
/// a dot, and JSON cannot end with a dot.
pub fn is_pickle(bytes: &[u8]) -> bool {
    matches!(bytes, [0x80 | b'(' | b'}', .., b'.'])
}

/// Whether the bytes are in Ruby's Marshal format, according to its version bytes. JSON never begins with these bytes.
pub fn is_marshal(bytes: &[u8]) -> bool {
    bytes.starts_with(b"\x04\x08")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn refused<T>(reason: Reason) -> Result<T, ExtractError> {
        Err(ExtractError::rejected(reason))
    }

    fn zlib(bytes: &[u8]) -> String {
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(bytes).unwrap();
        format!(".{}", URL_SAFE_NO_PAD.encode(encoder.finish().unwrap()))
    }

    #[test]
    fn decompression_stops_at_the_maximum_size() {
        let spaces = |count: usize| zlib(&vec![b' '; count]);
        assert_eq!(base64_or_zlib(&spaces(65_536)).unwrap().len(), 65_536);
        for count in [65_537, 64 * 65_536] {
            assert_eq!(
                base64_or_zlib(&spaces(count)),
                refused(Reason::TooLarge),
                "{count}"
            );
        }
    }

    #[test]
    fn damaged_base64_or_zlib_is_malformed() {
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
            assert_eq!(base64_or_zlib(text), refused(Reason::Malformed), "{text}");
        }
        for text in ["e30", "e31=", "e3-_", "e30=\n", "!!!"] {
            assert_eq!(base64(text), refused(Reason::Malformed), "{text}");
        }
    }

    #[test]
    fn json_session_must_be_an_object_or_null() {
        assert!(json(b"{}").is_ok() && json(b" null").is_ok());
        for text in ["[]", "\"user\"", "7", "true"] {
            assert_eq!(json(text.as_bytes()), refused(Reason::Malformed), "{text}");
        }
        for text in ["", "{", "{}x", "{\"a\":NaN}", "\u{feff}{}"] {
            assert_eq!(
                json(text.as_bytes()),
                refused(Reason::PayloadNotJson),
                "{text}"
            );
        }
    }

    #[test]
    fn pickle_is_recognised_by_its_first_and_last_bytes() {
        // The dict {"a": 1} in protocols 0, 1, 2 and 4.
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
