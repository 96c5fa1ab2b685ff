//! Detects a `#` in a request target, which RFC 9112, section 3.2 does not allow.
//!
//! `Uri` of the `http` crate drops a fragment in parsing, so a request for `/rollout/token#x` looks like one for
//! `/rollout/token`, which the proxy in front may have interpreted differently. The fragment is visible only in the bytes
//! of the connection.

/// The bytes that follow the target in a request line.
const VERSION: &[u8] = b" HTTP/1.";

/// Searches for a `#` that is followed by the HTTP version on the same line. It does not track where requests begin, so
/// such bytes in a header or body are detected too; clients do not send them.
#[derive(Debug, Default)]
pub(super) struct TargetScan {
    state: State,
}

#[derive(Clone, Copy, Debug, Default)]
enum State {
    #[default]
    Outside,
    /// After a `#`.
    Fragment,
    /// After this many bytes of the version.
    Version(usize),
}

impl TargetScan {
    /// Scans the next bytes. True if a version followed a fragment.
    pub(super) fn finds_fragment(&mut self, bytes: &[u8]) -> bool {
        if matches!(self.state, State::Outside) && !bytes.contains(&b'#') {
            return false;
        }
        let mut found = false;
        for &byte in bytes {
            self.state = match (self.state, byte) {
                (State::Version(length), _) if VERSION.get(length) == Some(&byte) => {
                    found |= length + 1 == VERSION.len();
                    State::Version(length + 1)
                }
                (_, b'#') => State::Fragment,
                (State::Fragment, b' ') => State::Version(1),
                (State::Fragment, byte) if byte != b'\n' => State::Fragment,
                _ => State::Outside,
            };
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fragment_in_a_request_line_is_found_in_one_piece_and_byte_by_byte() {
        for (bytes, found) in [
            ("POST /rollout/token HTTP/1.1\r\nHost: a\r\n\r\n", false),
            ("POST /rollout/token#x HTTP/1.1\r\nHost: a\r\n\r\n", true),
            ("POST /rollout/token?a#x HTTP/1.0\r\n\r\n", true),
            ("POST # HTTP/1.1\r\n\r\n", true),
            ("POST /a## HTTP/1.1\r\n\r\n", true),
            ("\r\nPOST /#/rollout/token HTTP/1.1\r\n\r\n", true),
            (
                "POST /a HTTP/1.1\r\nHost: a\r\n\r\nPOST /b#c HTTP/1.1\r\n\r\n",
                true,
            ),
            (
                "POST /a HTTP/1.1\r\nContent-Length: 7\r\n\r\n{\"a\":1}POST /b#c HTTP/1.1\r\n\r\n",
                true,
            ),
            (
                "POST /a HTTP/1.1\r\nReferer: https://a/#b\r\nVia: HTTP/1.1 proxy\r\n\r\n",
                false,
            ),
            (
                "POST /a HTTP/1.1\r\nCookie: a=b #c; d=# HTTP\r\n\r\n",
                false,
            ),
        ] {
            assert_eq!(
                TargetScan::default().finds_fragment(bytes.as_bytes()),
                found,
                "{bytes:?}"
            );
            let mut scan = TargetScan::default();
            let found_in_pieces = bytes
                .bytes()
                .filter(|byte| scan.finds_fragment(&[*byte]))
                .count()
                > 0;
            assert_eq!(found_in_pieces, found, "byte by byte: {bytes:?}");
        }
    }
}
