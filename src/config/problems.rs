//! Everything that is wrong with a configuration, gathered into one report.
//! What is wrong is found where each value is checked.

use std::fmt::{self, Write};
use std::str::FromStr;

/// Problems, each under the key it belongs to. Empty means the configuration is good.
///
/// The texts name keys and say how to mend them; they never hold a secret's value.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Problems {
    list: Vec<(String, String)>,
}

impl Problems {
    /// A single problem.
    pub fn of(key: impl Into<String>, text: impl Into<String>) -> Self {
        Self { list: vec![(key.into(), text.into())] }
    }

    pub fn add(&mut self, key: impl Into<String>, text: impl Into<String>) {
        self.list.push((key.into(), text.into()));
    }

    /// Adds a problem under `key` unless `good` holds.
    pub fn require(&mut self, good: bool, key: impl Into<String>, text: impl Into<String>) {
        if !good {
            self.add(key, text);
        }
    }

    /// The value, or `None` after its problem was added under `key`.
    pub fn accept<T, E: fmt::Display>(&mut self, key: impl Into<String>, result: Result<T, E>) -> Option<T> {
        result.map_err(|error| self.add(key, error.to_string())).ok()
    }

    /// Parses `text`; the problem, if any, repeats neither the text nor the parser's words.
    pub fn parse<T: FromStr>(&mut self, key: impl Into<String>, text: &str, expected: &str) -> Option<T> {
        self.accept(key, text.parse().map_err(|_| format!("must be {expected}")))
    }

    /// Adds all of `others`.
    pub fn extend(&mut self, others: Self) {
        self.list.extend(others.list);
    }

    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Gives `value` if nothing is wrong.
    pub fn or<T>(self, value: T) -> Result<T, Self> {
        if self.is_empty() { Ok(value) } else { Err(self) }
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (key, text) in &self.list {
            for c in [key, ": ", text].into_iter().flat_map(str::chars) {
                // Keys are somebody's text: no part of it is a command to a terminal.
                if c.is_control() { write!(f, "{}", c.escape_default())? } else { f.write_char(c)? }
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_sees_text_only() {
        let problems = Problems::of("extractors.\u{1b}[31m", "must be\u{9b}31m text");
        assert_eq!(problems.to_string(), "extractors.\\u{1b}[31m: must be\\u{9b}31m text\n");
    }
}
