//! Lower-case hexadecimal, the form in which frameworks write MACs and hashes.

/// The decoded bytes; `None` unless the text is an even number of lower-case hexadecimal digits. Upper-case digits are
/// refused, because frameworks compare MACs as strings.
pub fn decode(text: &str) -> Option<Vec<u8>> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    pairs
        .iter()
        .map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?))
        .collect()
}

/// The value of a lower-case hexadecimal digit.
pub fn digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    }
}

/// The bytes as lower-case hexadecimal digits.
pub fn encode(bytes: impl AsRef<[u8]>) -> String {
    bytes
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_even_number_of_lower_case_hex_digits_is_decoded() {
        assert_eq!(decode("00ff1a"), Some(vec![0, 255, 26]));
        assert_eq!(decode(""), Some(vec![]));
        for text in ["0", "0F", "0g", "+1", "é"] {
            assert_eq!(decode(text), None, "{text}");
        }
    }
}
