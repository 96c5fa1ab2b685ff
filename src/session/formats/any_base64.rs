//! Lenient base64 decoding for values that people copy: in either alphabet, with or without padding and line breaks.

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// The decoded bytes; `None` if the text is not base64 in either alphabet.
pub fn decode(text: &[u8]) -> Option<Vec<u8>> {
    let standard: Vec<u8> = text
        .iter()
        .filter(|byte| !byte.is_ascii_whitespace())
        .map(|byte| match byte {
            b'-' => b'+',
            b'_' => b'/',
            byte => *byte,
        })
        .collect();
    // The text may have too much padding, as in "AQAB==".
    let end = standard.iter().rposition(|&byte| byte != b'=');
    LENIENT
        .decode(&standard[..end.map_or(0, |end| end + 1)])
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_in_either_alphabet_is_decoded_with_or_without_padding_and_white_space() {
        for text in ["-_8", "+/8=", "-_8==", " +/\r\n8 ", "-_9"] {
            assert_eq!(decode(text.as_bytes()), Some(vec![0xfb, 0xff]), "{text}");
        }
        for text in ["a", "a!", "\"AQAB\"", "AQ=AB"] {
            assert_eq!(decode(text.as_bytes()), None, "{text}");
        }
    }
}
