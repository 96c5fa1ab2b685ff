//! Splits bytes that need not be text.

/// The bytes before the first `end`, or all bytes if there is no `end`.
pub(crate) fn before(bytes: &[u8], end: u8) -> &[u8] {
    let at = bytes.iter().position(|&byte| byte == end);
    at.map_or(bytes, |at| &bytes[..at])
}

#[cfg(test)]
mod tests {
    use super::before;

    #[test]
    fn bytes_before_the_first_end_byte_or_all_bytes_are_returned() {
        for (bytes, want) in [
            (&b"a=b=c"[..], &b"a"[..]),
            (b"=a", b""),
            (b"a", b"a"),
            (b"", b""),
        ] {
            assert_eq!(before(bytes, b'='), want);
        }
    }
}
