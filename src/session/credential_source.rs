//! The places of credentials in a request: `header:NAME`, `cookie:NAME`, `supabase:NAME`.
//! Extractors validate the credential.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::config::{List, Problems, Section};
use crate::headers::single;
use crate::json::Value;
use crate::session::formats::cookies;
use crate::session::formats::percent::{self, Plus};
use crate::session::reason::Reason;
use crate::session::sections::cookie;
use crate::session::types::{CredentialSource, ExtractError};

/// `@supabase/ssr` splits a session into chunks of 3,180 characters; no session needs more chunks than this.
const MAX_CHUNKS: usize = 10;

/// A credential and its place.
#[derive(Debug)]
pub struct Found<'a> {
    pub place: &'a CredentialSource,
    pub text: Cow<'a, str>,
}

/// The credential in the first of `places` that is not empty; `None` if all are empty.
///
/// # Errors
/// If the first place that is not empty is ambiguous or malformed. The later places are not read.
pub fn find<'a>(
    places: &'a [CredentialSource],
    request: &'a Parts,
) -> Result<Option<Found<'a>>, ExtractError> {
    for place in places {
        if let Some(text) = place.find(request)? {
            return Ok(Some(Found { place, text }));
        }
    }
    Ok(None)
}

/// The raw bytes that the request sends in `places`, without any other cookies and headers. Two requests with the
/// same credential give the same bytes, so these identify it.
pub fn sent<'a>(
    places: &'a [CredentialSource],
    headers: &'a HeaderMap,
) -> impl Iterator<Item = &'a [u8]> {
    places.iter().flat_map(move |place| {
        let name = place.header().unwrap_or(&header::COOKIE);
        let lines = headers.get_all(name).iter().map(HeaderValue::as_bytes);
        lines.flat_map(move |line| place.pieces(line))
    })
}

/// The places in the key `from` of a section, which must name at least one.
pub fn read_from(
    section: &Section<'_>,
    from: &List<String>,
    problems: &mut Problems,
) -> Vec<CredentialSource> {
    let key = section.key("from");
    problems.require(
        !from.is_empty(),
        key.clone(),
        "is empty: name at least one place to look for a credential",
    );
    from.iter()
        .filter_map(|text| problems.accept(key.clone(), text.parse()))
        .collect()
}

impl CredentialSource {
    /// The header that holds the credential; `None` for a cookie.
    pub fn header(&self) -> Option<&HeaderName> {
        match self {
            Self::Bearer => Some(&header::AUTHORIZATION),
            Self::Header(name) => Some(name),
            Self::Cookie(_) | Self::Supabase(_) => None,
        }
    }

    /// The pieces of a header line that belong to this place.
    fn pieces<'a>(&'a self, line: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
        let cookie = match self {
            Self::Cookie(name) | Self::Supabase(name) => Some(name.as_bytes()),
            Self::Bearer | Self::Header(_) => None,
        };
        let end = if cookie.is_some() { b';' } else { b'\n' };
        let pieces = line.split(move |&byte| byte == end);
        let pieces = pieces.map(<[u8]>::trim_ascii);
        pieces.filter(move |pair| {
            cookie.is_none_or(|name| {
                pair.contains(&b'=')
                    && cookies::is_cookie_or_chunk(cookies::name_set_by(pair), name)
            })
        })
    }

    /// The credential in this place; `None` if there is none.
    fn find<'a>(&self, request: &'a Parts) -> Result<Option<Cow<'a, str>>, ExtractError> {
        let headers = &request.headers;
        let credential = match self {
            Self::Bearer => match single(headers, &header::AUTHORIZATION)? {
                Some(value) => bearer(value.as_bytes())?,
                None => None,
            },
            Self::Header(name) => match single(headers, name)? {
                Some(value) if !value.is_empty() => Some(value.to_str().map_err(|_| malformed())?),
                Some(_) | None => None,
            },
            Self::Cookie(name) => cookie::find(headers, name)?,
            Self::Supabase(name) => {
                let session = cookie::find_whole_or_chunks(headers, name, MAX_CHUNKS)?;
                return session
                    .map(|session| access_token(&session).map(Cow::Owned))
                    .transpose();
            }
        };
        Ok(credential.map(Cow::Borrowed))
    }
}

impl fmt::Display for CredentialSource {
    /// As written in the configuration.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bearer => f.write_str("header:authorization"),
            Self::Header(name) => write!(f, "header:{name}"),
            Self::Cookie(name) => write!(f, "cookie:{name}"),
            Self::Supabase(name) => write!(f, "supabase:{name}"),
        }
    }
}

/// The access token of a Supabase session: only the token is signed, so nothing else in the session is used.
fn access_token(session: &str) -> Result<String, ExtractError> {
    let json = match session.strip_prefix("base64-") {
        Some(encoded) => URL_SAFE_NO_PAD.decode(encoded).map_err(|_| malformed())?,
        None => percent::decode(session, Plus::Plus)
            .ok_or_else(malformed)?
            .into_bytes(),
    };
    let session = Value::parse(&json).map_err(|_| malformed())?;
    let token = session
        .as_object()
        .and_then(|session| session.get("access_token").ok().flatten());
    token
        .and_then(Value::as_str)
        .map(str::to_owned)
        .ok_or_else(malformed)
}

impl FromStr for CredentialSource {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once(':') {
            Some(("header", name)) => match HeaderName::try_from(name) {
                Ok(header::AUTHORIZATION) => Ok(Self::Bearer),
                Ok(name) => Ok(Self::Header(name)),
                Err(_) => Err("has no valid header name after \"header:\""),
            },
            Some(("cookie", name)) if !name.is_empty() && name.bytes().all(is_token) => {
                Ok(Self::Cookie(name.to_owned()))
            }
            Some(("supabase", name)) if !name.is_empty() && name.bytes().all(is_token) => {
                Ok(Self::Supabase(name.to_owned()))
            }
            Some(("cookie" | "supabase", _)) => Err("has no valid cookie name after the colon"),
            Some(_) | None => {
                Err("must be a place such as \"header:authorization\" or \"cookie:__session\"")
            }
        }
    }
}

/// The token of `Bearer TOKEN`. Another scheme, or `Bearer` without a token, counts as absent.
fn bearer(value: &[u8]) -> Result<Option<&str>, ExtractError> {
    let end = value
        .iter()
        .position(|&byte| !is_token(byte))
        .unwrap_or(value.len());
    let (scheme, rest) = value.split_at(end);
    if !scheme.eq_ignore_ascii_case(b"bearer") || rest.iter().all(|&byte| byte == b' ') {
        return Ok(None);
    }
    let token = rest.strip_prefix(b" ").ok_or_else(malformed)?;
    let text = std::str::from_utf8(token).map_err(|_| malformed())?;
    let unpadded = text.trim_end_matches('=');
    if unpadded.is_empty() || !unpadded.bytes().all(|byte| TOKEN68[usize::from(byte)]) {
        return Err(malformed());
    }
    Ok(Some(text))
}

/// The opaque token in the value of a header: alone, or after `Bearer` or `Token` (Django REST framework) and one or more
/// spaces. Another scheme, or a scheme without a token, counts as absent. `Authorization` always has a scheme.
///
/// # Errors
/// `Rejected` if the token has spaces or is not visible ASCII. Unlike a bearer token it may have any other characters,
/// such as the `|` of Laravel Sanctum.
pub fn opaque<'a>(
    place: &CredentialSource,
    value: &'a [u8],
) -> Result<Option<&'a str>, ExtractError> {
    let value = value.trim_ascii();
    let token = match value.iter().position(|&byte| byte == b' ') {
        None if *place == CredentialSource::Bearer => return Ok(None),
        None => value,
        Some(end) => {
            let (scheme, token) = value.split_at(end);
            let is_known = [&b"bearer"[..], b"token"]
                .iter()
                .any(|known| scheme.eq_ignore_ascii_case(known));
            if !is_known {
                return Ok(None);
            }
            token.trim_ascii_start()
        }
    };
    match std::str::from_utf8(token) {
        Ok("") => Ok(None),
        Ok(token) if token.bytes().all(|byte| byte.is_ascii_graphic()) => Ok(Some(token)),
        Ok(_) | Err(_) => Err(malformed()),
    }
}

fn malformed() -> ExtractError {
    ExtractError::rejected(Reason::Malformed)
}

/// Whether the byte may occur in a token of RFC 9110, section 5.6.2: schemes and cookie names are tokens.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// The bytes of a bearer token before its `=` padding. A lookup table, since every byte of a long token is checked.
const TOKEN68: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0_u8;
    while byte < 128 {
        table[byte as usize] =
            byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'+' | b'/');
        byte += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    fn request(pairs: &[(&'static str, &[u8])]) -> Parts {
        let pairs = pairs.iter().map(|(name, value)| {
            (
                HeaderName::from_static(name),
                HeaderValue::from_bytes(value).expect("a header value"),
            )
        });
        let (mut parts, ()) = axum::http::Request::new(()).into_parts();
        pairs.for_each(|(name, value)| {
            parts.headers.append(name, value);
        });
        parts
    }

    #[track_caller]
    fn assert_found(
        places: &[CredentialSource],
        request: &Parts,
        want: Result<Option<&str>, &str>,
        case: &str,
    ) {
        let found = find(places, request).map_err(|error| error.reason().as_str());
        let text = found.map(|found| found.map(|found| found.text.into_owned()));
        assert_eq!(text, want.map(|text| text.map(str::to_owned)), "{case}");
    }

    #[test]
    fn bearer_token_follows_rfc_6750_and_another_scheme_is_absent() {
        let malformed = Err("malformed");
        for (name, value, want) in [
            (
                "plain",
                &b"Bearer a.b-c_d~e+f/g=="[..],
                Ok(Some("a.b-c_d~e+f/g==")),
            ),
            ("lower case", b"bearer x", Ok(Some("x"))),
            ("upper case", b"BEARER x", Ok(Some("x"))),
            ("alone", b"Bearer", Ok(None)),
            ("empty", b"Bearer ", Ok(None)),
            ("only spaces", b"Bearer   ", Ok(None)),
            ("basic", b"Basic dXNlcjpwYXNz", Ok(None)),
            ("basic with odd bytes", b"Basic \xff", Ok(None)),
            ("no scheme", b"eyJ.eyJ.x", Ok(None)),
            ("no space", b"BearereyJ.eyJ.x", Ok(None)),
            ("nothing", b"", Ok(None)),
            ("two spaces", b"Bearer  x", malformed),
            ("tab", b"Bearer\tx", malformed),
            ("two tokens", b"Bearer x y", malformed),
            ("comma", b"Bearer x,y", malformed),
            ("parameter", b"Bearer realm=\"x\"", malformed),
            ("quotes", b"Bearer \"x\"", malformed),
            ("padding inside", b"Bearer a=b", malformed),
            ("only padding", b"Bearer ==", malformed),
            ("not ASCII", b"Bearer \xc3\xa9", malformed),
            ("not UTF-8", b"Bearer \xff", malformed),
            ("no-break space", b"Bearer\xc2\xa0x", malformed),
        ] {
            let request = request(&[("authorization", value)]);
            assert_found(&[CredentialSource::Bearer], &request, want, name);
        }
        let twice = request(&[
            ("authorization", b"Bearer x"),
            ("authorization", b"Bearer x"),
        ]);
        let want = Err("duplicate_header");
        assert_found(&[CredentialSource::Bearer], &twice, want, "twice");
    }

    #[test]
    fn opaque_token_follows_bearer_or_token_and_another_scheme_is_absent() {
        let header: CredentialSource = "header:x-auth-token".parse().expect("a place");
        for (value, in_authorization, elsewhere) in [
            (&b"Bearer abc"[..], Ok(Some("abc")), Ok(Some("abc"))),
            (b"bearer   abc ", Ok(Some("abc")), Ok(Some("abc"))),
            (b"Token 9944b0", Ok(Some("9944b0")), Ok(Some("9944b0"))),
            (b"TOKEN 9944b0", Ok(Some("9944b0")), Ok(Some("9944b0"))),
            (b"Bearer 7|aB3", Ok(Some("7|aB3")), Ok(Some("7|aB3"))),
            (
                b"Bearer a.b%2B/=,",
                Ok(Some("a.b%2B/=,")),
                Ok(Some("a.b%2B/=,")),
            ),
            (b"abc", Ok(None), Ok(Some("abc"))),
            (b"Bearer", Ok(None), Ok(Some("Bearer"))),
            (b"Bearer ", Ok(None), Ok(Some("Bearer"))),
            (b"Basic abc", Ok(None), Ok(None)),
            (b"Tokens abc", Ok(None), Ok(None)),
            (b"", Ok(None), Ok(None)),
            (b"Bearer a b", Err("malformed"), Err("malformed")),
            (b"Bearer a\tb", Err("malformed"), Err("malformed")),
            (b"Token \xc3\xa9", Err("malformed"), Err("malformed")),
            (b"Token \xff", Err("malformed"), Err("malformed")),
        ] {
            for (place, want) in [
                (&CredentialSource::Bearer, in_authorization),
                (&header, elsewhere),
            ] {
                let found = opaque(place, value).map_err(|error| error.reason().as_str());
                assert_eq!(found, want, "{place}: {value:?}");
            }
        }
    }

    #[test]
    fn first_place_that_is_not_empty_decides() {
        let places: Vec<CredentialSource> = ["header:x-token", "cookie:sid"]
            .map(|text| text.parse().expect("a place"))
            .into();
        for (name, pairs, want) in [
            (
                "header first",
                vec![("x-token", &b"a"[..]), ("cookie", b"sid=b")],
                Ok(Some("a")),
            ),
            (
                "header empty",
                vec![("x-token", b""), ("cookie", b"sid=b")],
                Ok(Some("b")),
            ),
            ("cookie alone", vec![("cookie", b"sid=b")], Ok(Some("b"))),
            ("neither", vec![("cookie", b"other=b")], Ok(None)),
            (
                "header broken",
                vec![("x-token", b"\xff"), ("cookie", b"sid=b")],
                Err("malformed"),
            ),
            (
                "header twice",
                vec![("x-token", b"a"), ("x-token", b"a")],
                Err("duplicate_header"),
            ),
            (
                "cookie twice",
                vec![("cookie", b"sid=a; sid=b")],
                Err("ambiguous_identity"),
            ),
        ] {
            assert_found(&places, &request(&pairs), want, name);
        }
    }

    #[test]
    fn sent_bytes_are_those_of_the_places_only() {
        let places: Vec<CredentialSource> = ["header:authorization", "cookie:sid"]
            .map(|text| text.parse().expect("a place"))
            .into();
        let request = request(&[
            ("authorization", b"Bearer x"),
            ("x-other", b"1"),
            ("cookie", b"_ga=1; sid.0=a; sid.1=b; sidx=c"),
            ("cookie", b"sid=d; sid.sig=e; side=f"),
        ]);
        let sent: Vec<_> = sent(&places, &request.headers).collect();
        assert_eq!(sent, [&b"Bearer x"[..], b"sid.0=a", b"sid.1=b", b"sid=d"]);
    }

    #[test]
    fn invalid_place_is_refused() {
        for text in [
            "",
            "authorization",
            "header:",
            "header:a b",
            "cookie:",
            "cookie:a=b",
            "query:token",
        ] {
            assert!(text.parse::<CredentialSource>().is_err(), "{text}");
        }
        assert_eq!("header:Authorization".parse(), Ok(CredentialSource::Bearer));
    }
}
