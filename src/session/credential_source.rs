//! Finds the credential in the configured places of a request: `header:NAME`, `cookie:NAME`, `supabase:NAME`,
//! `amplify:CLIENT_ID`. Extractors validate the credential.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::config::{List, Problems, Section};
use crate::headers::single;
use crate::json::Object;
use crate::session::formats::cookies;
use crate::session::formats::percent::{self, Plus};
use crate::session::sections::cookie;
use crate::session::types::{CredentialSource, ExtractError};

/// `@supabase/ssr` splits a session into chunks of 3,180 characters; no session needs more chunks than this.
const MAX_CHUNKS: usize = 10;

/// The cookies of AWS Amplify have the names `PREFIX.CLIENT_ID.LastAuthUser` and `PREFIX.CLIENT_ID.USER.accessToken`.
const AMPLIFY_PREFIX: &str = "CognitoIdentityServiceProvider";
const LAST_USER: &str = ".LastAuthUser";
const ACCESS_TOKEN: &str = ".accessToken";

/// Headers in which proxies state who the user is. A proxy overwrites them, so a client has no reason to send them.
const ASSERTIONS: [HeaderName; 8] = [
    HeaderName::from_static("cf-access-jwt-assertion"),
    HeaderName::from_static("x-goog-iap-jwt-assertion"),
    HeaderName::from_static("x-amzn-oidc-data"),
    HeaderName::from_static("x-amzn-oidc-accesstoken"),
    HeaderName::from_static("x-pomerium-jwt-assertion"),
    HeaderName::from_static("x-forwarded-access-token"),
    HeaderName::from_static("x-auth-request-access-token"),
    HeaderName::from_static("x-ms-token-aad-id-token"),
];

/// A credential and its place. `Debug` does not show the credential.
pub struct Found<'a> {
    pub place: &'a CredentialSource,
    pub text: Cow<'a, str>,
}

impl fmt::Debug for Found<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Found")
            .field("place", &self.place)
            .finish_non_exhaustive()
    }
}

/// The credential in the first non-empty place of `places`; `None` if all are empty.
///
/// # Errors
/// If the first non-empty place is ambiguous or malformed. Later places are not read.
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

/// The raw bytes that the request sends in `places`, without any other cookies and headers. Requests with the same
/// credential have the same bytes, so the bytes identify the credential.
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

/// Whether `Authorization` holds a bearer token. Other schemes do not count. For example, a browser sends `Basic`
/// credentials automatically once its user has entered them.
pub fn has_bearer(headers: &HeaderMap) -> bool {
    let value = headers.get(header::AUTHORIZATION);
    let scheme = value.and_then(|value| value.as_bytes().get(..7));
    scheme.is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"bearer "))
}

/// The places listed in a section's key `from`, which must name at least one place.
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
            Self::Cookie(_) | Self::Supabase(_) | Self::Amplify(_) => None,
        }
    }

    /// The header in which a client sends the credential; `None` for a cookie and for a header in `ASSERTIONS`.
    pub fn client_header(&self) -> Option<&HeaderName> {
        self.header().filter(|name| !ASSERTIONS.contains(name))
    }

    /// The opaque token in the header of this place: the text after one of `schemes` and one or more spaces, or the
    /// whole value if it contains no space. Returns `None` if this place is a cookie, if the header is absent or empty,
    /// for any other scheme, and for a value of `Authorization` that contains no space.
    ///
    /// # Errors
    /// `Rejected` if the header occurs twice, if the token contains spaces or characters other than visible ASCII, or
    /// if the text before the space is not a valid scheme. Unlike a bearer token, an opaque token may contain any
    /// visible ASCII character, such as the `|` in tokens of Laravel Sanctum.
    pub fn opaque<'a>(
        &self,
        headers: &'a HeaderMap,
        schemes: &[&str],
    ) -> Result<Option<&'a str>, ExtractError> {
        let value = match self.header() {
            Some(name) => single(headers, name)?,
            None => None,
        };
        let Some(value) = value.map(|value| value.as_bytes().trim_ascii()) else {
            return Ok(None);
        };
        let token = match value.iter().position(|&byte| byte == b' ') {
            None if *self == Self::Bearer => return Ok(None),
            None => value,
            Some(end) => {
                let (scheme, token) = value.split_at(end);
                if !scheme.iter().copied().all(is_token) {
                    return Err(ExtractError::malformed());
                }
                let is_known = |known: &&str| scheme.eq_ignore_ascii_case(known.as_bytes());
                if !schemes.iter().any(is_known) {
                    return Ok(None);
                }
                token.trim_ascii_start()
            }
        };
        match std::str::from_utf8(token) {
            Ok("") => Ok(None),
            Ok(token) if token.bytes().all(|byte| byte.is_ascii_graphic()) => Ok(Some(token)),
            Ok(_) | Err(_) => Err(ExtractError::malformed()),
        }
    }

    /// The parts of a header line that belong to this place: the matching cookies, or the whole line of a header other
    /// than `Cookie`.
    fn pieces<'a>(&'a self, line: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
        let end = if self.header().is_none() { b';' } else { b'\n' };
        let pieces = line.split(move |&byte| byte == end);
        pieces
            .map(<[u8]>::trim_ascii)
            .filter(|piece| self.owns(piece))
    }

    /// Whether this part of a header line, a cookie or a whole line, belongs to this place.
    fn owns(&self, piece: &[u8]) -> bool {
        match self {
            Self::Bearer | Self::Header(_) => true,
            Self::Cookie(name) | Self::Supabase(name) => {
                piece.contains(&b'=')
                    && cookies::is_cookie_or_chunk(cookies::name_set_by(piece), name.as_bytes())
            }
            Self::Amplify(client) => {
                let name =
                    cookies::name_set_by(piece).strip_prefix(amplify_prefix(client).as_bytes());
                name.is_some_and(|rest| {
                    rest == LAST_USER.as_bytes()
                        || rest.starts_with(b".") && rest.ends_with(ACCESS_TOKEN.as_bytes())
                })
            }
        }
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
                Some(value) => without_scheme(
                    value.to_str().map_err(|_| ExtractError::malformed())?,
                    &[" "],
                ),
                None => None,
            },
            Self::Cookie(name) => cookie::find(headers, name)?.and_then(in_cookie),
            Self::Supabase(name) => {
                // As in `@supabase/ssr`, stale chunks are ignored if there is an unchunked cookie.
                let session = match cookie::find(headers, name)? {
                    Some(whole) => Some(Cow::Borrowed(whole)),
                    None => cookie::find_chunks(headers, name, MAX_CHUNKS)?.map(Cow::Owned),
                };
                let token = session.map(|session| access_token(&session)).transpose()?;
                return Ok(token.map(Cow::Owned));
            }
            Self::Amplify(client) => amplify_token(headers, client)?,
        };
        Ok(credential.map(Cow::Borrowed))
    }
}

impl fmt::Display for CredentialSource {
    /// The form that the configuration uses, such as `cookie:NAME`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bearer => f.write_str("header:authorization"),
            Self::Header(name) => write!(f, "header:{name}"),
            Self::Cookie(name) => write!(f, "cookie:{name}"),
            Self::Supabase(name) => write!(f, "supabase:{name}"),
            Self::Amplify(client) => write!(f, "amplify:{client}"),
        }
    }
}

fn amplify_prefix(client: &str) -> String {
    format!("{AMPLIFY_PREFIX}.{client}")
}

/// The access token of the user who last signed in with AWS Amplify. The cookie names contain the user name,
/// percent-encoded or not, depending on Amplify's version and adapter.
fn amplify_token<'a>(
    headers: &'a HeaderMap,
    client: &str,
) -> Result<Option<&'a str>, ExtractError> {
    let prefix = amplify_prefix(client);
    let Some(user) = cookie::find(headers, &format!("{prefix}{LAST_USER}"))? else {
        return Ok(None);
    };
    let user = percent::decode(user, Plus::Plus).ok_or_else(ExtractError::malformed)?;
    cookie::find_decoded(headers, &format!("{prefix}.{user}{ACCESS_TOKEN}"))
}

/// The access token of a Supabase session. Only the token is signed, so the rest of the session is not used.
fn access_token(session: &str) -> Result<String, ExtractError> {
    let json = match session.strip_prefix("base64-") {
        Some(encoded) => URL_SAFE_NO_PAD
            .decode(encoded)
            .map_err(|_| ExtractError::malformed())?,
        None => percent::decode(session, Plus::Plus)
            .ok_or_else(ExtractError::malformed)?
            .into_bytes(),
    };
    let session = Object::parse(&json).ok_or_else(ExtractError::malformed)?;
    let token = session.text("access_token").map(str::to_owned);
    token.ok_or_else(ExtractError::malformed)
}

impl FromStr for CredentialSource {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_name = |name: &str| !name.is_empty() && name.bytes().all(is_token);
        match text.split_once(':') {
            Some(("header", name)) => match HeaderName::try_from(name) {
                Ok(header::AUTHORIZATION) => Ok(Self::Bearer),
                Ok(name) => Ok(Self::Header(name)),
                Err(_) => Err("has no valid header name after \"header:\""),
            },
            Some(("cookie", name)) if is_name(name) => Ok(Self::Cookie(name.to_owned())),
            Some(("supabase", name)) if is_name(name) => Ok(Self::Supabase(name.to_owned())),
            Some(("amplify", client)) if is_name(client) => Ok(Self::Amplify(client.to_owned())),
            Some(("cookie" | "supabase", _)) => Err("has no valid cookie name after the colon"),
            Some(("amplify", _)) => Err("has no valid app client id after \"amplify:\""),
            Some(_) | None => {
                Err("must be a place such as \"header:authorization\" or \"cookie:__session\"")
            }
        }
    }
}

/// The token of `Bearer TOKEN`. Returns `None` for any other scheme, and for `Bearer` without a token.
fn bearer(value: &[u8]) -> Result<Option<&str>, ExtractError> {
    let end = value.iter().position(|&byte| !is_token(byte));
    let (scheme, rest) = value.split_at(end.unwrap_or(value.len()));
    if !scheme.eq_ignore_ascii_case(b"bearer") || rest.iter().all(|&byte| byte == b' ') {
        return Ok(None);
    }
    let spaces = rest.iter().take_while(|&&byte| byte == b' ').count();
    let token = Some(&rest[spaces..])
        .filter(|_| spaces > 0)
        .ok_or_else(ExtractError::malformed)?;
    let text = std::str::from_utf8(token).map_err(|_| ExtractError::malformed())?;
    let unpadded = text.trim_end_matches('=');
    if unpadded.is_empty() || !unpadded.bytes().all(|byte| TOKEN68[usize::from(byte)]) {
        return Err(ExtractError::malformed());
    }
    Ok(Some(text))
}

/// The credential in a cookie's value, which may be percent-encoded, without the scheme `Bearer`.
pub fn in_cookie(value: &str) -> Option<&str> {
    without_scheme(value, &[" ", "%20", "+"])
}

/// The credential after the scheme `Bearer` and one or more of the `separators`, or the whole text if it has no scheme.
/// Returns `None` for any other scheme, and for `Bearer` without a credential.
fn without_scheme<'a>(text: &'a str, separators: &[&str]) -> Option<&'a str> {
    let end = text.bytes().take_while(u8::is_ascii_alphabetic).count();
    let (scheme, after) = text.split_at(end);
    let mut rest = after;
    while let Some(next) = separators
        .iter()
        .find_map(|separator| rest.strip_prefix(separator))
    {
        rest = next;
    }
    let is_separated = rest.len() < after.len();
    let credential = if scheme.eq_ignore_ascii_case("bearer") && (is_separated || after.is_empty())
    {
        rest
    } else if !is_separated || scheme.is_empty() || after.starts_with('+') {
        // `+` is a separator only after `Bearer`. In other text, such as `abc+def`, it is part of the credential,
        // because many credentials contain `+`.
        text
    } else {
        ""
    };
    Some(credential).filter(|credential| !credential.is_empty())
}

/// Whether the byte is allowed in a `token` (RFC 9110, section 5.6.2). Schemes and cookie names are tokens.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// The bytes allowed in a bearer token (`token68`, RFC 9110) before the `=` padding. A lookup table, because every byte
/// of a long token is checked.
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
mod tests;
