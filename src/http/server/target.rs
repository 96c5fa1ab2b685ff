//! Seeing a `#` in a request's target, which RFC 9112, section 3.2 does not allow.
//!
//! The `Uri` of the crate `http` drops a fragment while it parses, so a request for `/rollout/token#x` looks like
//! one for `/rollout/token`, while the proxy in front may have read it otherwise. Only the bytes tell.

/// What follows the target in a request line.
const VERSION: &[u8] = b" HTTP/1.";

/// Looks for `#…` and the version behind it. It does not follow where requests begin: a header or a body that
/// holds exactly that counts as well, which no client sends.
#[derive(Debug, Default)]
pub(super) struct TargetScan {
    state: State,
}

#[derive(Clone, Copy, Debug, Default)]
enum State {
    #[default]
    Outside,
    /// Behind a `#`.
    Fragment,
    /// Behind so many bytes of the version.
    Version(usize),
}

impl TargetScan {
    /// Reads on; tells whether a version came up behind a fragment.
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
    fn fragment_in_a_request_line_is_found_however_the_bytes_arrive() {
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
