//! Collects the problems and warnings of a configuration for one report. The code that validates a value adds them.

use std::fmt;
use std::str::FromStr;

/// Problems, each under its configuration key. If there are none, the configuration is valid.
///
/// The messages name keys and describe how to fix the problems. They never contain a secret's value.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Problems {
    list: Vec<(String, String)>,
}

impl Problems {
    /// A single problem.
    pub fn of(key: impl Into<String>, text: impl Into<String>) -> Self {
        Self {
            list: vec![(key.into(), text.into())],
        }
    }

    pub fn add(&mut self, key: impl Into<String>, text: impl Into<String>) {
        self.list.push((key.into(), text.into()));
    }

    /// Adds a problem under `key` unless `good` is true.
    pub fn require(&mut self, good: bool, key: impl Into<String>, text: impl Into<String>) {
        if !good {
            self.add(key, text);
        }
    }

    /// Returns the value, or `None` after adding its problem under `key`.
    pub fn accept<T, E: fmt::Display>(
        &mut self,
        key: impl Into<String>,
        result: Result<T, E>,
    ) -> Option<T> {
        result
            .map_err(|error| self.add(key, error.to_string()))
            .ok()
    }

    /// Parses `text`. If that fails, adds a problem under `key` and returns `None`. The problem repeats neither the
    /// text nor the parser's message.
    pub fn parse<T: FromStr>(
        &mut self,
        key: impl Into<String>,
        text: &str,
        expected: &str,
    ) -> Option<T> {
        self.accept(key, text.parse().map_err(|_| format!("must be {expected}")))
    }

    /// Adds all problems of `others`.
    pub fn extend(&mut self, others: Self) {
        self.list.extend(others.list);
    }

    /// Whether there is a problem with this key, a part of its value, or the key that names its file. The value
    /// that was read for such a key may be missing although the operator set it.
    pub fn are_about(&self, key: &str) -> bool {
        self.list.iter().any(|(other, _)| {
            let rest = other.strip_prefix(key);
            rest.is_some_and(|rest| ["", "_file"].contains(&rest) || rest.starts_with('.'))
        })
    }

    /// Whether there are problems, and all of them concern this key.
    pub fn are_only_about(&self, key: &str) -> bool {
        !self.is_empty() && self.list.iter().all(|(other, _)| other == key)
    }

    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Returns `value` if there are no problems.
    pub fn or<T>(self, value: T) -> Result<T, Self> {
        if self.is_empty() {
            Ok(value)
        } else {
            Err(self)
        }
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.list
            .iter()
            .try_for_each(|(key, text)| writeln!(f, "{}", line(key, text)))
    }
}

impl std::error::Error for Problems {}

/// Warnings, each under its configuration key: the configuration is accepted, but the operator should know about them.
///
/// `check-config` prints them, and the service logs them at start and after a reload. Like the messages of
/// [`Problems`], they never contain a secret's value.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Warnings {
    list: Vec<(String, String)>,
}

impl Warnings {
    pub fn add(&mut self, key: impl Into<String>, text: impl Into<String>) {
        self.list.push((key.into(), text.into()));
    }

    /// Adds all warnings of `others`.
    pub fn extend(&mut self, others: Self) {
        self.list.extend(others.list);
    }

    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// One line per warning, beginning with its key.
    pub fn lines(&self) -> impl Iterator<Item = String> {
        self.list.iter().map(|(key, text)| line(key, text))
    }
}

/// A key and its message. A key is an arbitrary string and may contain terminal escape sequences.
fn line(key: &str, text: &str) -> String {
    escape_controls(&format!("{key}: {text}"))
}

/// Escapes control characters, so that a terminal does not interpret them.
pub(crate) fn escape_controls(text: &str) -> String {
    let mut escaped = String::new();
    for c in text.chars() {
        if c.is_control() {
            escaped.extend(c.escape_default());
        } else {
            escaped.push(c);
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_in_keys_and_messages_are_escaped() {
        let problems = Problems::of("extractors.\u{1b}[31m", "must be\u{9b}31m text");
        assert_eq!(
            problems.to_string(),
            "extractors.\\u{1b}[31m: must be\\u{9b}31m text\n"
        );
    }
}
