//! Reads a header that identifies the user, and refuses requests in which this header is ambiguous. Each kind decides
//! whether the sender of the header is trusted.

use axum::http::{HeaderMap, HeaderName, header};

use crate::headers;
use crate::session::types::ExtractError;

/// The header's value without surrounding spaces and tabs; `None` if the header is absent.
///
/// # Errors
/// `Rejected` if the header occurs more than once or is not UTF-8.
pub fn single<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
) -> Result<Option<&'a str>, ExtractError> {
    let Some(value) = headers::single(headers, name)? else {
        return Ok(None);
    };
    match std::str::from_utf8(value.as_bytes()) {
        Ok(text) => Ok(Some(text.trim_matches([' ', '\t']))),
        Err(_) => Err(ExtractError::malformed()),
    }
}

/// Whether the request has a header whose name differs from `name` only in `-`, `_` and `.`. WSGI, CGI and some proxies
/// treat these characters as equal, so that `X_User` overwrites `X-User`.
pub fn has_twin(headers: &HeaderMap, name: &HeaderName) -> bool {
    let folded = |name: &HeaderName| name.as_str().replace(['_', '.'], "-");
    let wanted = folded(name);
    headers.keys().any(|other| {
        other != name && other.as_str().len() == wanted.len() && folded(other) == wanted
    })
}

/// Whether `Connection` lists the header. A proxy that follows RFC 9110, section 7.6.1, removes such a header, so two
/// hops may disagree about whether it is present.
pub fn is_hop_by_hop(headers: &HeaderMap, name: &HeaderName) -> bool {
    headers.get_all(header::CONNECTION).iter().any(|value| {
        let options = value.as_bytes().split(|&byte| byte == b',');
        options.into_iter().any(|option| {
            option
                .trim_ascii()
                .eq_ignore_ascii_case(name.as_str().as_bytes())
        })
    })
}
