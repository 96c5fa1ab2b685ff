//! Finds a cookie by its exact name in the bytes of the `Cookie` headers. The value is not interpreted.

// Why not the `cookie` crate: it trims U+00A0 before a name, decodes names on request and keeps the last duplicate.
// With each of these, two programs could read different cookies under the same name.

use axum::http::{HeaderMap, header};

use crate::session::reason::Reason;
use crate::session::types::ExtractError;

/// The raw value of the cookie called exactly `name`: not decoded, with its quotes.
///
/// `None` if it is absent or empty: frameworks clear a session by setting its cookie empty. Malformed pairs and other
/// names are ignored. Duplicates with the same value count once.
///
/// # Errors
/// `Rejected` if the name occurs with different values, because frameworks disagree on which value to use, or if the
/// value contains a byte outside printable ASCII (RFC 6265, section 4.1.1).
pub fn find<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, ExtractError> {
    let mut found = None;
    for header in headers.get_all(header::COOKIE) {
        for pair in header.as_bytes().split(|&byte| byte == b';') {
            let Some(value) = value_of(pair, name.as_bytes()) else {
                continue;
            };
            if found.replace(value).is_some_and(|other| other != value) {
                return Err(ExtractError::rejected(Reason::AmbiguousIdentity));
            }
        }
    }
    let malformed = || ExtractError::rejected(Reason::Malformed);
    match found {
        None | Some([]) => Ok(None),
        Some(value) if value.iter().all(|byte| (b' '..=b'~').contains(byte)) => {
            std::str::from_utf8(value)
                .map(Some)
                .map_err(|_| malformed())
        }
        Some(_) => Err(malformed()),
    }
}

fn value_of<'a>(pair: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let value = trim(trim(pair).strip_prefix(name)?);
    value.strip_prefix(b"=").map(trim)
}

/// Removes the spaces and tabs around a name or a value, and no other characters (RFC 6265, section 5.2).
fn trim(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = bytes {
        bytes = rest;
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    fn headers(lines: &[&[u8]]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(
                header::COOKIE,
                HeaderValue::from_bytes(line).expect("a header value"),
            );
        }
        headers
    }

    #[test]
    fn only_the_exact_name_is_found_among_other_and_malformed_pairs() {
        for (line, want) in [
            (&b"sid=abc"[..], Some("abc")),
            (b"a=1; sid=abc; b=2", Some("abc")),
            (b"a=1;sid=abc", Some("abc")),
            (b" \t sid = abc \t;", Some("abc")),
            (b"sid=a=b==", Some("a=b==")),
            (b"sid=\"abc\"", Some("\"abc\"")),
            (b"sid=s%3Aabc", Some("s%3Aabc")),
            (b"foo; =x; a=\"b; \xff\xfe=1; sid=abc", Some("abc")),
            (b"x\xc3\xa9=1; sid=abc", Some("abc")),
            (b"sid=", None),
            (b"sid", None),
            (b"xsid=abc", None),
            (b"sidx=abc", None),
            (b"SID=abc", None),
            (b"s%69d=abc", None),
            (b"\xc2\xa0sid=abc", None),
            (b"", None),
        ] {
            assert_eq!(
                find(&headers(&[line]), "sid"),
                Ok(want),
                "{}",
                line.escape_ascii()
            );
        }
    }

    #[test]
    fn duplicate_with_another_value_is_refused_and_with_the_same_value_counts_once() {
        let duplicate = Err(ExtractError::rejected(Reason::AmbiguousIdentity));
        for (lines, want) in [
            (&[&b"sid=a; sid=b"[..]][..], duplicate.clone()),
            (&[b"sid=a", b"sid=b"], duplicate.clone()),
            (&[b"sid=a; sid=a; sid=b"], duplicate.clone()),
            (&[b"sid=a; sid=b; sid=a"], duplicate.clone()),
            (&[b"sid=; sid=a"], duplicate.clone()),
            (&[b"sid=a; sid=\"a\""], duplicate.clone()),
            (&[b"sid=a; x=1; sid= a "], Ok(Some("a"))),
            (&[b"sid=a", b"sid=a"], Ok(Some("a"))),
            (&[b"sid=; sid="], Ok(None)),
        ] {
            assert_eq!(find(&headers(lines), "sid"), want, "{lines:?}");
        }
    }

    #[test]
    fn value_that_is_not_printable_ascii_is_malformed() {
        assert_eq!(
            find(&headers(&[b"sid=\xff"]), "sid"),
            Err(ExtractError::rejected(Reason::Malformed))
        );
    }
}
