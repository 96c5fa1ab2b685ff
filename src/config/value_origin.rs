//! Where a value of the configuration comes from.

use std::fmt;

use config::{Value, ValueKind};

/// The origin of a value. The values that the service itself provides have none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ValueOrigin {
    /// The environment variable of one key, whose text has no type: it may contain a list.
    Variable(String),
    /// A document with types, in TOML or JSON: a file, or the text of an environment variable.
    Document(String),
}

/// A [`Value`] stores its origin as a string. These prefixes keep a file apart from the variable with the same name.
const VARIABLE: &str = "variable ";
const DOCUMENT: &str = "document ";

impl ValueOrigin {
    pub(crate) fn of(value: &Value) -> Option<Self> {
        let stored = value.origin()?;
        if let Some(name) = stored.strip_prefix(VARIABLE) {
            Some(Self::Variable(name.to_owned()))
        } else {
            stored
                .strip_prefix(DOCUMENT)
                .map(|name| Self::Document(name.to_owned()))
        }
    }

    /// The name of the variable that contains this value as text, or `None` if the value has another origin.
    pub(super) fn variable_of(value: &Value) -> Option<String> {
        match Self::of(value) {
            Some(Self::Variable(name)) => Some(name),
            Some(Self::Document(_)) | None => None,
        }
    }

    /// The string that a [`Value`] stores.
    pub(super) fn stored(&self) -> String {
        match self {
            Self::Variable(name) => format!("{VARIABLE}{name}"),
            Self::Document(name) => format!("{DOCUMENT}{name}"),
        }
    }

    /// A value with this origin.
    pub(crate) fn value(&self, kind: impl Into<ValueKind>) -> Value {
        Value::new(Some(&self.stored()), kind)
    }
}

impl fmt::Display for ValueOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Variable(name) | Self::Document(name)) = self;
        f.write_str(name)
    }
}
