//! Where a value of the configuration comes from.

use std::fmt;

use config::{Value, ValueKind};

/// The origin of a value. Values that the service itself provides, such as defaults, have no origin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ValueOrigin {
    /// An environment variable that sets one key. Its value is an untyped string, which may contain a list.
    Variable(String),
    /// A typed document in TOML or JSON: a file, or the value of an environment variable.
    Document(String),
}

impl ValueOrigin {
    pub(crate) fn of(value: &Value) -> Option<Self> {
        match value.origin()?.split_once(' ')? {
            ("variable", name) => Some(Self::Variable(name.to_owned())),
            ("document", name) => Some(Self::Document(name.to_owned())),
            _ => None,
        }
    }

    /// The name of the variable that sets this value, or `None` if the value comes from a document or the service.
    pub(super) fn variable_of(value: &Value) -> Option<String> {
        match Self::of(value) {
            Some(Self::Variable(name)) => Some(name),
            Some(Self::Document(_)) | None => None,
        }
    }

    /// The string that a [`Value`] stores as its origin. Its first word distinguishes a file from a variable with the
    /// same name.
    pub(super) fn stored(&self) -> String {
        match self {
            Self::Variable(name) => format!("variable {name}"),
            Self::Document(name) => format!("document {name}"),
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
