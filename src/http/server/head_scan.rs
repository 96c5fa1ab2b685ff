//! Detects parts of a request head that two parsers could interpret differently, and that hyper's parsed request no
//! longer shows.
//!
//! - A `#` in the target, which RFC 9112, section 3.2 does not allow. `Uri` of the `http` crate drops the fragment when
//!   it parses a target, so a request for `/rollout/token#x` looks like a request for `/rollout/token`, while the proxy
//!   in front may have interpreted it differently.
//! - `Content-Length` together with `Transfer-Encoding` (section 6.3): hyper drops `Content-Length`.
//! - A tab before the value of `Transfer-Encoding`: some proxies do not recognise `chunked` after a tab.

use crate::session::reason::Reason;

/// The bytes that follow the target in a request line.
const VERSION: &[u8] = b" HTTP/1.";

/// One byte longer than the longest relevant name, so that a longer name is not mistaken for it.
const NAME_BYTES: usize = "transfer-encoding".len() + 1;

/// Scans the bytes of a connection from the start of a head. It does not track where a body begins, so it scans bodies
/// too, and a body that contains the detected byte sequences can cause a refusal. The body of a token request is
/// usually empty or JSON, and is unlikely to contain these sequences. The body of `/dev/explain` is a form, which
/// percent-encodes `#` and line breaks.
#[derive(Debug, Default)]
pub(super) struct HeadScan {
    target: Target,
    line: Line,
    name: Name,
    /// Whether a `Content-Length` has occurred since the last empty line.
    has_length: bool,
    has_encoding: bool,
}

/// The search for a `#` that is followed by the HTTP version on the same line.
#[derive(Clone, Copy, Debug, Default)]
enum Target {
    #[default]
    Outside,
    /// A `#` was found.
    Fragment,
    /// A `#` was found, followed by this many bytes of [`VERSION`].
    Version(usize),
}

#[derive(Clone, Copy, Debug, Default)]
enum Line {
    #[default]
    Name,
    /// The scan is in the white space between `Transfer-Encoding:` and its value.
    BeforeEncoding,
    Rest,
}

/// The start of a line, which may be a header name.
#[derive(Clone, Copy, Debug, Default)]
struct Name {
    bytes: [u8; NAME_BYTES],
    length: usize,
}

impl HeadScan {
    /// Scans the next bytes. Returns why the head is ambiguous, if these bytes show that it is.
    pub(super) fn finds(&mut self, bytes: &[u8]) -> Option<Reason> {
        let fragment = self.target.finds_fragment(bytes);
        let framing = self.finds_framing(bytes);
        fragment
            .then_some(Reason::Fragment)
            .or(framing.then_some(Reason::TransferEncoding))
    }

    fn finds_framing(&mut self, mut bytes: &[u8]) -> bool {
        let mut found = false;
        while let Some((&byte, rest)) = bytes.split_first() {
            bytes = rest;
            self.line = match (self.line, byte) {
                (line, b'\n') => {
                    let is_empty = matches!(line, Line::Name) && self.name.is_blank();
                    if is_empty {
                        (self.has_length, self.has_encoding) = (false, false);
                    }
                    self.name.length = 0;
                    Line::Name
                }
                (Line::Name, b':') => {
                    let is_encoding = self.name.is(b"transfer-encoding");
                    self.has_encoding |= is_encoding;
                    self.has_length |= self.name.is(b"content-length");
                    found |= self.has_length && self.has_encoding;
                    if is_encoding {
                        Line::BeforeEncoding
                    } else {
                        Line::Rest
                    }
                }
                (Line::Name, byte) => self.name.push(byte),
                (Line::BeforeEncoding, b' ') => Line::BeforeEncoding,
                (Line::BeforeEncoding, byte) => {
                    found |= byte == b'\t';
                    Line::Rest
                }
                (Line::Rest, _) => {
                    let end = bytes.iter().position(|byte| *byte == b'\n');
                    bytes = &bytes[end.unwrap_or(bytes.len())..];
                    Line::Rest
                }
            };
        }
        found
    }
}

impl Target {
    /// Scans the next bytes. Returns whether they complete an HTTP version that follows a fragment in the request
    /// target.
    fn finds_fragment(&mut self, bytes: &[u8]) -> bool {
        if matches!(self, Self::Outside) && !bytes.contains(&b'#') {
            return false;
        }
        let mut found = false;
        for &byte in bytes {
            *self = match (*self, byte) {
                (Self::Version(length), _) if VERSION.get(length) == Some(&byte) => {
                    found |= length + 1 == VERSION.len();
                    Self::Version(length + 1)
                }
                (_, b'#') => Self::Fragment,
                (Self::Fragment, b' ') => Self::Version(1),
                (Self::Fragment, byte) if byte != b'\n' => Self::Fragment,
                _ => Self::Outside,
            };
        }
        found
    }
}

impl Name {
    fn is(&self, name: &[u8]) -> bool {
        self.bytes[..self.length].eq_ignore_ascii_case(name)
    }

    fn is_blank(&self) -> bool {
        matches!(self.bytes[..self.length], [] | [b'\r'])
    }

    fn push(&mut self, byte: u8) -> Line {
        let Some(next) = self.bytes.get_mut(self.length) else {
            return Line::Rest;
        };
        *next = byte;
        self.length += 1;
        Line::Name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scans the bytes in one piece and byte by byte, and checks that both results are equal.
    fn found(bytes: &str) -> Option<Reason> {
        let mut scan = HeadScan::default();
        let in_pieces = bytes
            .bytes()
            .filter_map(|byte| scan.finds(&[byte]))
            .collect::<Vec<_>>();
        let found = HeadScan::default().finds(bytes.as_bytes());
        assert_eq!(in_pieces.first().copied(), found, "byte by byte: {bytes:?}");
        found
    }

    #[test]
    fn fragment_in_a_request_line_is_found() {
        for (bytes, is_found) in [
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
                found(bytes),
                is_found.then_some(Reason::Fragment),
                "{bytes:?}"
            );
        }
    }

    #[test]
    fn content_length_with_transfer_encoding_or_a_tab_before_the_encoding_is_found() {
        for (headers, is_found) in [
            ("Content-Length: 4\r\nTransfer-Encoding: chunked\r\n", true),
            (
                "TRANSFER-ENCODING:chunked\r\nX: y\r\ncontent-length:4\r\n",
                true,
            ),
            ("Content-Length: 4\nTransfer-Encoding: chunked\n", true),
            ("Transfer-Encoding:\tchunked\r\n", true),
            ("Transfer-Encoding: \tchunked\r\n", true),
            ("Transfer-Encoding: chunked\t\r\n", false),
            ("Transfer-Encoding: chunked\r\n", false),
            ("Content-Length: 4\r\n", false),
            (
                "X: Content-Length: 4\r\nTransfer-Encoding: chunked\r\n",
                false,
            ),
            (
                "X-Content-Length: 4\r\nTransfer-Encoding: chunked\r\n",
                false,
            ),
            (
                "Content-Length-X: 4\r\nTransfer-Encoding: chunked\r\n",
                false,
            ),
            (
                "Content-Length: 4\r\nTransfer-Encoding-X: chunked\r\n",
                false,
            ),
            ("Accept:\t*/*\r\n", false),
        ] {
            let head = format!("POST /a HTTP/1.1\r\n{headers}\r\n");
            assert_eq!(
                found(&head),
                is_found.then_some(Reason::TransferEncoding),
                "{head:?}"
            );
        }
        // Two pipelined requests, one with `Content-Length` and one with `Transfer-Encoding`, are not ambiguous.
        let two = "POST /a HTTP/1.1\r\nContent-Length: 0\r\n\r\nPOST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert_eq!(found(two), None);
    }
}
