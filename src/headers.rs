//! Reads a header that must not occur more than once.

use axum::http::{HeaderMap, HeaderName, HeaderValue};

/// A header occurs more than once, so two programs could read different values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DuplicateHeader;

/// The value of the header called `name`; `None` if it is absent.
pub(crate) fn single<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
) -> Result<Option<&'a HeaderValue>, DuplicateHeader> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (_, Some(_)) => Err(DuplicateHeader),
        (value, None) => Ok(value),
    }
}
