//! Reading one header that says who somebody is, so that nobody can smuggle in a second one.
//! Which header that is, and whom to believe it, is with each kind.

use axum::http::{HeaderMap, HeaderName, header};

/// Why a header that is there cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderError {
    /// It stands twice, or a proxy may take another spelling of its name for it.
    Duplicate,
    /// Its value is not UTF-8 text.
    Malformed,
}

/// The value of the header, without the spaces around it; `None` if it is not there.
pub fn single<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
) -> Result<Option<&'a str>, HeaderError> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err(HeaderError::Duplicate);
    }
    match std::str::from_utf8(value.as_bytes()) {
        Ok(text) => Ok(Some(text.trim_matches([' ', '\t']))),
        Err(_) => Err(HeaderError::Malformed),
    }
}

/// Whether a header's name is another spelling of `name`: WSGI, CGI and some proxies fold `-`, `_`
/// and `.` into one, so that `X_User` overwrites `X-User` there.
pub fn has_twin(headers: &HeaderMap, name: &HeaderName) -> bool {
    let folded = |name: &HeaderName| name.as_str().replace(['_', '.'], "-");
    let wanted = folded(name);
    headers.keys().any(|other| {
        other != name && other.as_str().len() == wanted.len() && folded(other) == wanted
    })
}

/// Whether `Connection` names the header: a proxy that follows RFC 9110, section 7.6.1 would have
/// removed it, so two hops may disagree on whether it is there.
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
