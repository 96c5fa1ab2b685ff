//! Finds a cookie by its exact name in the bytes of the `Cookie` headers. The value is not interpreted.

// This module does not use the `cookie` crate, which trims U+00A0 before a name, can decode names, and keeps the last
// duplicate. Each of these could make two programs read different cookies under the same name.

use axum::http::{HeaderMap, header};

use crate::bytes::before;
use crate::session::reason::Reason;
use crate::session::types::ExtractError;

/// The raw value of the cookie called exactly `name`: not decoded, and with its quotes.
///
/// `None` if the cookie is absent or empty: frameworks clear a session by setting its cookie to the empty string.
/// Malformed pairs and other names are ignored. Duplicates with the same value are treated as one cookie.
///
/// # Errors
/// `Rejected` if the name occurs with different values, because frameworks disagree on which value to use, or if the
/// value contains a byte outside printable ASCII (RFC 6265, section 4.1.1).
pub fn find<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, ExtractError> {
    let mut found = None;
    for (other, value) in pairs(headers) {
        if other == name.as_bytes() && found.replace(value).is_some_and(|other| other != value) {
            return Err(ExtractError::rejected(Reason::AmbiguousIdentity));
        }
    }
    let found = found.filter(|value| !value.is_empty());
    found.map(printable).transpose()
}

/// The names and values in the `Cookie` headers, without the spaces and tabs around them. A piece without `=` is left
/// out.
pub fn pairs(headers: &HeaderMap) -> impl Iterator<Item = (&[u8], &[u8])> {
    let lines = headers.get_all(header::COOKIE).iter();
    let pairs = lines.flat_map(|line| line.as_bytes().split(|&byte| byte == b';'));
    pairs.filter_map(|pair| {
        let equals = pair.iter().position(|&byte| byte == b'=')?;
        Some((trim(&pair[..equals]), trim(&pair[equals + 1..])))
    })
}

fn printable(value: &[u8]) -> Result<&str, ExtractError> {
    match std::str::from_utf8(value) {
        Ok(text) if text.bytes().all(|byte| (b' '..=b'~').contains(&byte)) => Ok(text),
        Ok(_) | Err(_) => Err(ExtractError::malformed()),
    }
}

/// The cookies whose names `matches` accepts, as names and raw values in the order of the request. Each cookie is read
/// as [`find`] reads it.
///
/// # Errors
/// The errors of [`find`], for any of the cookies; and `Rejected` if a name is not UTF-8.
pub fn find_all<'a>(
    headers: &'a HeaderMap,
    matches: impl Fn(&[u8]) -> bool,
) -> Result<Vec<(&'a str, &'a str)>, ExtractError> {
    let mut found: Vec<(&'a [u8], &'a [u8])> = Vec::new();
    for (name, value) in pairs(headers).filter(|(name, _)| matches(name)) {
        match found.iter().find(|(other, _)| *other == name) {
            None => found.push((name, value)),
            Some((_, other)) if *other == value => {}
            Some(_) => return Err(ExtractError::rejected(Reason::AmbiguousIdentity)),
        }
    }
    found
        .into_iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(name, value)| {
            let name = std::str::from_utf8(name).map_err(|_| ExtractError::malformed())?;
            Ok((name, printable(value)?))
        })
        .collect()
}

/// Whether the cookie called `name` is `cookie` or one of its chunks: `NAME.0` (Auth.js, Supabase), `NAME_0`
/// (oauth2-proxy), `NAME__0` (nextjs-auth0), `NAMEC1` (ASP.NET Core). A chunk's number has at most two digits, because
/// browsers do not send more chunks, and a longer number belongs to another cookie, such as `NAME_20270115`.
pub fn is_cookie_or_chunk(name: &[u8], cookie: &[u8]) -> bool {
    match name.strip_prefix(cookie) {
        Some([]) => true,
        Some([b'_', b'_', digits @ ..] | [b'.' | b'_' | b'C', digits @ ..]) => {
            matches!(digits, [b'0'..=b'9'] | [b'1'..=b'9', b'0'..=b'9'])
        }
        Some(_) | None => false,
    }
}

/// The name of the cookie that a `Set-Cookie` line sets (RFC 6265, section 5.2).
pub fn name_set_by(line: &[u8]) -> &[u8] {
    trim(before(before(line, b';'), b'='))
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
    fn cookie_is_found_by_its_exact_name_among_other_and_malformed_pairs() {
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
    fn duplicate_cookie_is_refused_unless_both_values_are_equal() {
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
    fn chunk_name_is_the_cookie_name_with_a_separator_and_at_most_two_digits() {
        for (name, want) in [
            ("sid", true),
            ("sid.0", true),
            ("sid.10", true),
            ("sid_0", true),
            ("sid__0", true),
            ("sid__12", true),
            ("sidC1", true),
            ("sidC12", true),
            ("sid.", false),
            ("sid.00", false),
            ("sid.01", false),
            ("sid.100", false),
            ("sid_20270115", false),
            ("sid-0", false),
            ("sid___0", false),
            ("sid._0", false),
            ("sid0", false),
            ("sidc1", false),
            ("sid.x", false),
            ("sid.0.0", false),
            ("xsid", false),
            ("SID", false),
            ("si", false),
        ] {
            assert_eq!(is_cookie_or_chunk(name.as_bytes(), b"sid"), want, "{name}");
        }
    }

    #[test]
    fn all_matching_cookies_are_found_in_order_and_conflicts_are_refused() {
        let all = |lines: &[&[u8]]| {
            let headers = headers(lines);
            let found = find_all(&headers, |name| is_cookie_or_chunk(name, b"sid"));
            found.map(|found| {
                let pairs = found.iter().map(|(name, value)| format!("{name}={value}"));
                pairs.collect::<Vec<_>>().join("; ")
            })
        };
        for (lines, want) in [
            (
                &[&b"a=1; sid.1=y; sid.0=\"x\" ; b=2"[..]][..],
                "sid.1=y; sid.0=\"x\"",
            ),
            (&[b"sid=a=b", b"sid_0=c; sid=a=b"], "sid=a=b; sid_0=c"),
            (&[b"sid=; sid.0=x; sid.1="], "sid.0=x"),
            (&[b"xsid=1; sid; sid.x=2; \xff=1"], ""),
        ] {
            assert_eq!(all(lines).as_deref(), Ok(want), "{lines:?}");
        }
        for (lines, want) in [
            (&[&b"sid.0=a; sid.0=b"[..]][..], Reason::AmbiguousIdentity),
            (&[b"sid=a", b"sid="], Reason::AmbiguousIdentity),
            (&[b"sid.0=\xe9"], Reason::Malformed),
        ] {
            assert_eq!(all(lines), Err(ExtractError::rejected(want)), "{lines:?}");
        }
    }

    #[test]
    fn name_in_a_set_cookie_line_ends_at_the_first_equals_sign_or_semicolon() {
        for (line, want) in [
            (&b"sid=a; Path=/"[..], &b"sid"[..]),
            (b" sid = a=b", b"sid"),
            (b"sid", b"sid"),
            (b"sid; Path=/; x=1", b"sid"),
            (b"", b""),
        ] {
            assert_eq!(name_set_by(line), want);
        }
    }

    #[test]
    fn value_that_is_not_printable_ascii_is_malformed() {
        for line in [&b"sid=\xff"[..], b"sid=\xc3\xa9", b"sid=a\tb"] {
            assert_eq!(
                find(&headers(&[line]), "sid"),
                Err(ExtractError::malformed()),
                "{}",
                line.escape_ascii()
            );
        }
    }
}
