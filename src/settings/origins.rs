//! `origins.allowed`: the pages of other origins that may ask for tokens. What a request from one may do is decided
//! in `http::origin`.

use axum::http::HeaderValue;
use serde::{Deserialize, Serialize};
use url::Url;

use crate::config::{List, Problems};

#[derive(Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct OriginsConfig {
    allowed: List<String>,
}

impl OriginsConfig {
    pub(super) fn check(&self, problems: &mut Problems) -> Vec<Origin> {
        let parsed = self.allowed.iter().zip(1..).map(|(text, number)| {
            Origin::parse(text).map_err(|error| format!("entry {number}: {error}"))
        });
        parsed
            .filter_map(|origin| problems.accept("origins.allowed", origin))
            .collect()
    }
}

/// An origin in the form in which browsers send it: `https://app.example`, `http://localhost:3000`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin(HeaderValue);

impl Origin {
    /// Reads an origin from the configuration and brings it into the browsers' form.
    ///
    /// # Errors
    /// On anything that is not exactly one http(s) origin.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wildcard = || "`*` cannot be used with credentials: list every origin".to_owned();
        if text.contains('*') {
            return Err(wildcard());
        }
        if text.eq_ignore_ascii_case("null") {
            return Err("`null` is every sandboxed page at once: remove it".to_owned());
        }
        // Not the text: it may hold a user's name and password.
        let wrong = || {
            "is not an origin such as https://app.example.com: scheme, host and port alone"
                .to_owned()
        };
        let url = Url::parse(text).map_err(|_| wrong())?;
        let bare = url.path() == "/"
            && url.query().is_none()
            && url.fragment().is_none()
            && url.username().is_empty()
            && url.password().is_none();
        if !bare || !matches!(url.scheme(), "http" | "https") || !url.has_host() {
            return Err(wrong());
        }
        let origin = url.origin().ascii_serialization();
        // It may have been written as %2A, or as one of Unicode's.
        if origin.contains('*') {
            return Err(wildcard());
        }
        HeaderValue::try_from(origin).map(Self).map_err(|_| wrong())
    }
}

impl Origin {
    pub fn as_str(&self) -> &str {
        // It was made of ASCII.
        self.0.to_str().unwrap_or_default()
    }
}

impl PartialEq<HeaderValue> for Origin {
    fn eq(&self, other: &HeaderValue) -> bool {
        self.0 == other
    }
}

#[cfg(test)]
mod tests {
    use super::Origin;

    #[test]
    fn configured_origins_take_the_browsers_form() {
        for (text, want) in [
            ("https://app.example", "https://app.example"),
            ("HTTPS://App.Example:443/", "https://app.example"),
            ("http://localhost:3000", "http://localhost:3000"),
            ("http://[::1]:80", "http://[::1]"),
        ] {
            assert_eq!(Origin::parse(text).unwrap().0, want, "{text}");
        }
        for text in [
            "*",
            "null",
            "NULL",
            "https://*.example",
            "https://%2a.example",
            "https://\u{ff0a}.example",
            "app.example",
            "https://a.example/path",
            "",
            "https://a.example?x",
            "https://u@a.example",
            "ftp://a.example",
            "file:///x",
            "https://",
        ] {
            assert!(Origin::parse(text).is_err(), "{text}");
        }
    }
}
