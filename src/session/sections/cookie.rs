//! The cookie that an extractor reads, either unchunked or in the numbered chunks into which frameworks split a value
//! that is too long for one cookie. [`crate::session::formats::cookies`] finds a cookie by its name.

use std::borrow::Cow;

use axum::http::HeaderMap;
use axum::http::request::Parts;

use crate::config::{Problems, Section};
use crate::session::formats::cookies;
use crate::session::formats::percent::{self, Plus};
use crate::session::reason::Reason;
use crate::session::types::ExtractError;

/// The maximum length of a cookie's value, in bytes: twice the 4 KiB that browsers store per cookie.
const MAX_BYTES: usize = 8 * 1024;
/// The maximum length of all chunks together, in bytes: the largest allowed value of `max_header_bytes`.
const MAX_BYTES_OF_CHUNKS: usize = 64 * 1024;

/// A cookie, identified by its exact name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cookie {
    name: String,
}

impl Cookie {
    /// The cookie called `name`, where `name` is the value of `key`. Reports an invalid name as a problem, and then
    /// returns `None`.
    pub fn named(
        section: &Section<'_>,
        key: &str,
        name: &str,
        problems: &mut Problems,
    ) -> Option<Self> {
        let is_valid = !name.is_empty()
            && name
                .bytes()
                .all(|byte| byte.is_ascii_graphic() && !b"=;,".contains(&byte));
        problems.require(
            is_valid,
            section.key(key),
            "must be the name of a cookie, exactly as the app sets it; write several names as a list: [\"…\", \"…\"]",
        );
        is_valid.then(|| Self {
            name: name.to_owned(),
        })
    }

    #[cfg(test)]
    pub(crate) fn of(name: &str) -> Self {
        Self {
            name: name.to_owned(),
        }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// The cookie's value; `None` if the cookie is absent or empty.
    pub fn find<'a>(&self, request: &'a Parts) -> Result<Option<&'a str>, ExtractError> {
        find(&request.headers, &self.name)
    }

    /// The unchunked cookie, or its chunks `NAME.0`, `NAME.1` … joined in the order of their numbers.
    ///
    /// # Errors
    /// `Rejected` if both the unchunked cookie and chunks are present (one of them is stale, and the request does not
    /// show which), and the errors of [`find`] and [`find_chunks`].
    pub fn find_whole_or_chunks<'a>(
        &self,
        request: &'a Parts,
        max: usize,
    ) -> Result<Option<Cow<'a, str>>, ExtractError> {
        let name = &self.name;
        match (
            self.find(request)?,
            find_chunks(&request.headers, name, max)?,
        ) {
            (Some(_), Some(_)) => Err(ExtractError::rejected(Reason::AmbiguousIdentity)
                .because(format!("{name} is present both unchunked and in chunks"))),
            (whole, None) => Ok(whole.map(Cow::Borrowed)),
            (None, chunks) => Ok(chunks.map(Cow::Owned)),
        }
    }
}

/// The chunks `NAME.0`, `NAME.1` … of the cookie called `name`, joined. An empty chunk is treated as absent, because
/// frameworks clear a chunk by setting it to the empty string.
///
/// # Errors
/// `Rejected` if a number is missing or has two different values, or if there are too many chunks or bytes.
pub fn find_chunks(
    headers: &HeaderMap,
    name: &str,
    max: usize,
) -> Result<Option<String>, ExtractError> {
    let Some(last) = highest_chunk(headers, name) else {
        return Ok(None);
    };
    if last >= max {
        return Err(ExtractError::rejected(Reason::TooManyParts));
    }
    let mut joined = String::new();
    for number in 0..=last {
        let chunk = find(headers, &format!("{name}.{number}"))?;
        joined.push_str(chunk.ok_or_else(|| ExtractError::rejected(Reason::MissingPart))?);
        if joined.len() > MAX_BYTES_OF_CHUNKS {
            return Err(ExtractError::rejected(Reason::TooLarge));
        }
    }
    Ok(Some(joined))
}

/// The first of the given cookies that is present, and its value. Several names are given for an app whose cookie has
/// another name over https. Two different values are refused, because one of them is left over from another deployment,
/// or was set by an attacker on a sibling domain without https.
pub fn find_one_of<'c, 'a>(
    headers: &'a HeaderMap,
    cookies: &'c [Cookie],
) -> Result<Option<(&'c Cookie, &'a str)>, ExtractError> {
    let mut found: Option<(&Cookie, &str)> = None;
    for cookie in cookies {
        let Some(value) = find(headers, cookie.name())? else {
            continue;
        };
        match found {
            Some((first, other)) if other != value => return Err(two_names(first, cookie)),
            Some(_) => {}
            None => found = Some((cookie, value)),
        }
    }
    Ok(found)
}

/// The error if two alternative cookies of an app have different values.
pub fn two_names(first: &Cookie, second: &Cookie) -> ExtractError {
    ExtractError::rejected(Reason::AmbiguousIdentity).because(format!(
        "{} and {} are present with different values: set `cookie` to the name that the app uses",
        first.name, second.name
    ))
}

/// Like [`find`], but for the cookie whose percent-decoded name is `name`. Several cookies that differ only in the
/// encoding of the name are treated as duplicates: they must have the same value.
pub fn find_decoded<'a>(
    headers: &'a HeaderMap,
    name: &str,
) -> Result<Option<&'a str>, ExtractError> {
    let is_named = |raw: &[u8]| {
        std::str::from_utf8(raw)
            .is_ok_and(|raw| percent::decode(raw, Plus::Plus).as_deref() == Some(name))
    };
    let found = cookies::find_all(headers, is_named)?;
    match found.as_slice() {
        [] => Ok(None),
        [(first, value), rest @ ..] if rest.iter().all(|(_, other)| other == value) => {
            find(headers, first)
        }
        _ => Err(ExtractError::rejected(Reason::AmbiguousIdentity)
            .because(format!("{name} is present with different values"))),
    }
}

/// The raw value of the cookie called `name`, without enclosing quotes, which RFC 6265 allows and frameworks remove;
/// `None` if the cookie is absent or empty. A value longer than [`MAX_BYTES`] is refused.
pub fn find<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, ExtractError> {
    match cookies::find(headers, name)? {
        Some(value) if value.len() > MAX_BYTES => Err(ExtractError::rejected(Reason::TooLarge)),
        value => Ok(value.map(without_quotes).filter(|value| !value.is_empty())),
    }
}

pub fn without_quotes(value: &str) -> &str {
    value
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'))
        .unwrap_or(value)
}

/// The highest number of a non-empty chunk, found in one pass over the headers; `None` if there is no chunk, as in most
/// requests.
fn highest_chunk(headers: &HeaderMap, name: &str) -> Option<usize> {
    let chunks = cookies::pairs(headers).filter(|(_, value)| !value.is_empty());
    chunks
        .filter_map(|(chunk, _)| chunk_number(chunk, name))
        .max()
}

fn chunk_number(chunk: &[u8], name: &str) -> Option<usize> {
    let digits = chunk.strip_prefix(name.as_bytes())?.strip_prefix(b".")?;
    let digits = std::str::from_utf8(digits).ok()?;
    let is_canonical = digits == "0" || !digits.starts_with('0');
    let is_number =
        is_canonical && !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    // A number too large for `usize` exceeds every maximum.
    is_number.then(|| digits.parse().unwrap_or(usize::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::contract::request;

    fn sid() -> Cookie {
        Cookie::of("sid")
    }

    fn found(cookies: &str) -> Result<Option<String>, &'static str> {
        let request = request(&[("cookie", cookies)]);
        let found = sid().find_whole_or_chunks(&request, 12);
        found
            .map(|value| value.map(Cow::into_owned))
            .map_err(|error| error.reason().as_str())
    }

    #[test]
    fn cookie_chunks_are_joined_in_the_order_of_their_numbers() {
        let twelve: Vec<String> = (0..12).rev().map(|n| format!("sid.{n}=<{n}>")).collect();
        let joined: String = (0..12).map(|n| format!("<{n}>")).collect();
        for (case, cookies, want) in [
            ("whole", "sid=a", Some("a")),
            ("two", "sid.0=a; sid.1=b", Some("ab")),
            ("reversed", "sid.1=b; a=1; sid.0=a", Some("ab")),
            ("ten comes after nine", &twelve.join("; "), Some(&joined)),
            (
                "the same chunk twice",
                "sid.0=a; sid.1=b; sid.0=a",
                Some("ab"),
            ),
            ("a cleared chunk", "sid.0=a; sid.1=b; sid.2=", Some("ab")),
            ("a cleared whole", "sid=; sid.0=a", Some("a")),
            ("cleared chunks", "sid=a; sid.0=; sid.1=", Some("a")),
            (
                "other names",
                "sid=a; sid.x=1; sid.=2; sid.01=3; xsid.0=4; sid.0x=5; sid.0",
                Some("a"),
            ),
            ("none", "sid.=1; side.0=2", None),
        ] {
            assert_eq!(found(cookies), Ok(want.map(str::to_owned)), "{case}");
        }
    }

    #[test]
    fn missing_conflicting_and_excess_chunks_are_refused() {
        let hundred: Vec<String> = (0..100).map(|n| format!("sid.{n}=x")).collect();
        let long: Vec<String> = (0..12)
            .map(|n| format!("sid.{n}={}", "x".repeat(8000)))
            .collect();
        for (case, cookies, want) in [
            ("first missing", "sid.1=b", "missing_part"),
            ("middle missing", "sid.0=a; sid.2=b", "missing_part"),
            ("middle cleared", "sid.0=a; sid.1=; sid.2=b", "missing_part"),
            ("twice", "sid.0=a; sid.0=b", "ambiguous_identity"),
            ("whole twice", "sid=a; sid=b", "ambiguous_identity"),
            ("both", "sid=a; sid.0=b", "ambiguous_identity"),
            ("hundred", &hundred.join(";"), "too_many_parts"),
            ("one of a hundred", "sid=a; sid.99=b", "too_many_parts"),
            (
                "beyond numbers",
                "sid.99999999999999999999999=b",
                "too_many_parts",
            ),
            (
                "long chunk",
                &format!("sid.0={}", "x".repeat(8193)),
                "too_large",
            ),
            (
                "long whole",
                &format!("sid={}", "x".repeat(8193)),
                "too_large",
            ),
            ("long together", &long.join(";"), "too_large"),
        ] {
            assert_eq!(found(cookies), Err(want), "{case}");
        }
    }

    #[test]
    fn quotes_around_a_cookie_value_are_removed() {
        for (line, want) in [
            ("sid=abc", Some("abc")),
            ("sid=\"abc\"", Some("abc")),
            ("sid=\"\"", None),
            ("sid=", None),
            ("sid=\"", Some("\"")),
            ("sid=\"abc", Some("\"abc")),
            ("sid=\"\"abc\"\"", Some("\"abc\"")),
        ] {
            assert_eq!(
                sid().find(&request(&[("cookie", line)])),
                Ok(want),
                "{line}"
            );
        }
    }
}
