//! The one cookie that a kind reads, found for an extractor. How to look for it is in `crate::cookies`.

use axum::http::request::Parts;

use crate::config::{Problems, Section};
use crate::cookies::{self, CookieError};
use crate::extractors::ExtractError;

/// Browsers keep cookies of up to 4 KiB; what is longer than twice that was made for this service.
const MAX_BYTES: usize = 8 * 1024;

/// A cookie by its exact name.
#[derive(Debug)]
pub struct Cookie {
    name: String,
}

impl Cookie {
    /// The cookie called `name`, the value of `key`; `None` after a name that no cookie can have.
    pub fn named(section: &Section<'_>, key: &str, name: &str, problems: &mut Problems) -> Option<Self> {
        let good =
            !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic() && !b"=;,".contains(&byte));
        problems.require(good, section.key(key), "must be the name of a cookie, exactly as the app sets it");
        good.then(|| Self { name: name.to_owned() })
    }

    /// The cookie whose name is this one's with `suffix` behind it.
    #[must_use]
    pub fn with_suffix(&self, suffix: &str) -> Self {
        Self { name: format!("{}{suffix}", self.name) }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// The value as it was sent, without the quotes that RFC 6265 allows around it and that every
    /// framework takes off; `None` if the cookie is absent or empty.
    pub fn find<'a>(&self, request: &'a Parts) -> Result<Option<&'a str>, ExtractError> {
        match cookies::find(&request.headers, &self.name) {
            Ok(Some(value)) if value.len() > MAX_BYTES => Err(ExtractError::rejected("too_large")),
            Ok(value) => Ok(value.map(without_quotes).filter(|value| !value.is_empty())),
            Err(CookieError::Duplicate) => Err(ExtractError::rejected("ambiguous_identity")),
            Err(CookieError::Malformed) => Err(ExtractError::rejected("malformed")),
        }
    }
}

fn without_quotes(value: &str) -> &str {
    value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::extractors::contract;

    #[test]
    fn quotes_around_a_value_are_not_part_of_it() {
        let cookie = Cookie { name: "sid".to_owned() };
        for (line, want) in [
            ("sid=abc", Some("abc")),
            ("sid=\"abc\"", Some("abc")),
            ("sid=\"\"", None),
            ("sid=", None),
            ("sid=\"", Some("\"")),
            ("sid=\"abc", Some("\"abc")),
            ("sid=\"\"abc\"\"", Some("\"abc\"")),
        ] {
            assert_eq!(cookie.find(&contract::request(&[("cookie", line)])), Ok(want), "{line}");
        }
    }
}
