//! Deserializes the values that the `config` crate collected. Environment variables are strings, so a string is
//! accepted for a number or a boolean, and a variable's value is split at its commas for a list. Every other value must
//! have the type that the key expects.
//!
//! The crate's own deserializer converts more: `true` to a number, 1.5 to an integer, and both to strings.

use std::fmt;

use config::{Map, Value, ValueKind};
use serde::de::value::{MapDeserializer, SeqDeserializer};
use serde::de::{self, Deserializer, Expected, IntoDeserializer, Unexpected, Visitor};
use serde::forward_to_deserialize_any;

use super::suggest::unknown;
use super::value_origin::ValueOrigin;
use crate::secret::Secret;

/// Why a value does not fit its key. The error never contains the value, which may be a secret under the wrong key.
#[derive(Debug, PartialEq)]
pub(crate) enum Error {
    /// The value does not have the type `expected`. `is_container` is true if the value is a list or a table.
    Type {
        expected: String,
        is_container: bool,
    },
    /// An integer that is out of range for the key's type.
    OutOfRange,
    /// A file is given for a key whose type cannot be read from a file.
    NotFromFile,
    /// A table has an unknown key. The string describes the problem.
    UnknownKey(String),
    /// An error message from the type that was being deserialized.
    Invalid(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Type { expected, .. } => write!(f, "must be {expected}"),
            Self::OutOfRange => f.write_str("is out of range"),
            Self::NotFromFile => f.write_str("cannot be read from a file"),
            Self::UnknownKey(text) | Self::Invalid(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for Error {}

impl de::Error for Error {
    fn custom<T: fmt::Display>(text: T) -> Self {
        Self::Invalid(text.to_string())
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        match found {
            // Only the content of a file is deserialized as bytes.
            Unexpected::Bytes(_) => Self::NotFromFile,
            _ => Self::Type {
                expected: expected.to_string(),
                is_container: matches!(found, Unexpected::Seq | Unexpected::Map),
            },
        }
    }

    /// Replaces serde's own message, which repeats the value.
    fn invalid_value(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        match found {
            Unexpected::Signed(_) | Unexpected::Unsigned(_) => Self::OutOfRange,
            _ => Self::Invalid(format!("must be {expected}")),
        }
    }

    /// Replaces serde's own message, which repeats the value.
    fn unknown_variant(_: &str, known: &'static [&'static str]) -> Self {
        let known: Vec<String> = known.iter().map(|name| format!("\"{name}\"")).collect();
        Self::Invalid(format!("must be {}", known.join(" or ")))
    }

    fn unknown_field(key: &str, known: &'static [&'static str]) -> Self {
        Self::UnknownKey(unknown("key of its table", key, known.iter().copied()))
    }
}

/// A value of a layer, or the content of a file that the layer names.
#[derive(Clone)]
pub(crate) enum StrictValue {
    Given(Value),
    /// The content of a file, as bytes. Only some types accept it, such as [`Secret`] and lists of secrets.
    FileContent(Secret),
    /// A table, some members of which are stored in files.
    Members(Vec<(String, StrictValue)>),
    /// A list of tables, some members of which are stored in files.
    Items(Vec<StrictValue>),
}

impl StrictValue {
    fn text(&self) -> Option<&str> {
        match self {
            Self::Given(Value {
                kind: ValueKind::String(text),
                ..
            }) => Some(text),
            _ => None,
        }
    }

    /// Whether the value comes from an environment variable, in which commas separate the items of a list.
    fn is_variable(&self) -> bool {
        match self {
            Self::Given(value) => ValueOrigin::variable_of(value).is_some(),
            Self::FileContent(_) | Self::Members(_) | Self::Items(_) => false,
        }
    }

    fn number<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if let Some(number) = self.text().and_then(|text| text.parse().ok()) {
            visitor.visit_u64(number)
        } else if let Some(number) = self.text().and_then(|text| text.parse().ok()) {
            visitor.visit_i64(number)
        } else {
            self.only(WHOLE_NUMBER, visitor, |kind| {
                matches!(
                    kind,
                    ValueKind::I64(_) | ValueKind::I128(_) | ValueKind::U64(_) | ValueKind::U128(_)
                )
            })
        }
    }

    /// Accepts values of one type only. The error is created here, because the visitor's error would name the Rust
    /// type.
    fn only<'de, V: Visitor<'de>>(
        self,
        expected: &str,
        visitor: V,
        is_it: impl Fn(&ValueKind) -> bool,
    ) -> Result<V::Value, Error> {
        match &self {
            Self::Given(value) if is_it(&value.kind) => self.deserialize_any(visitor),
            Self::Given(value) => Err(Error::Type {
                expected: expected.to_owned(),
                is_container: matches!(value.kind, ValueKind::Array(_) | ValueKind::Table(_)),
            }),
            Self::Members(_) if is_it(&ValueKind::Table(Map::new())) => {
                self.deserialize_any(visitor)
            }
            Self::FileContent(_) | Self::Members(_) | Self::Items(_) => Err(Error::NotFromFile),
        }
    }
}

pub(super) const WHOLE_NUMBER: &str = "a whole number";
pub(super) const FLAG: &str = "true or false";

macro_rules! of_one_kind {
    ($($method:ident $expected:literal $kind:ident)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            self.only($expected, visitor, |kind| matches!(kind, ValueKind::$kind(_)))
        })*
    };
}

/// Integers of all sizes. The visitor refuses values that are out of range.
macro_rules! numbers {
    ($($method:ident)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            self.number(visitor)
        })*
    };
}

impl<'de> Deserializer<'de> for StrictValue {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let value = match self {
            Self::Given(value) => value,
            Self::FileContent(content) => return visitor.visit_bytes(content.expose()),
            Self::Members(members) => {
                return visitor.visit_map(MapDeserializer::new(members.into_iter()));
            }
            Self::Items(items) => {
                return visitor.visit_seq(SeqDeserializer::new(items.into_iter()));
            }
        };
        match value.kind {
            ValueKind::Nil => visitor.visit_unit(),
            ValueKind::Boolean(flag) => visitor.visit_bool(flag),
            ValueKind::I64(number) => visitor.visit_i64(number),
            ValueKind::I128(number) => visitor.visit_i128(number),
            ValueKind::U64(number) => visitor.visit_u64(number),
            ValueKind::U128(number) => visitor.visit_u128(number),
            ValueKind::Float(number) => visitor.visit_f64(number),
            ValueKind::String(text) => visitor.visit_string(text),
            ValueKind::Array(items) => {
                visitor.visit_seq(SeqDeserializer::new(items.into_iter().map(Self::Given)))
            }
            ValueKind::Table(members) => {
                let members = members
                    .into_iter()
                    .map(|(key, value)| (key, Self::Given(value)));
                visitor.visit_map(MapDeserializer::new(members))
            }
        }
    }

    /// Accepts the same strings for booleans as the `config` crate.
    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.text().map(str::to_lowercase).as_deref() {
            Some("true" | "yes" | "on" | "1") => visitor.visit_bool(true),
            Some("false" | "no" | "off" | "0") => visitor.visit_bool(false),
            _ => self.only(FLAG, visitor, |kind| matches!(kind, ValueKind::Boolean(_))),
        }
    }

    numbers! {
        deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64
        deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64
    }

    /// Splits the value of an environment variable at its commas, trims the items, and leaves out empty ones. A string
    /// in TOML is not split.
    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.text().filter(|_| self.is_variable()) {
            Some(text) => {
                let items = text
                    .split(',')
                    .map(str::trim)
                    .filter(|item| !item.is_empty());
                visitor.visit_seq(SeqDeserializer::new(
                    items.map(|item| Self::Given(item.into())),
                ))
            }
            None => self.deserialize_any(visitor),
        }
    }

    of_one_kind! {
        deserialize_str "a string in quotes" String
        deserialize_string "a string in quotes" String
        deserialize_map "a table" Table
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.deserialize_map(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self {
            Self::Given(value) if value.kind == ValueKind::Nil => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match self.text() {
            Some(text) => text
                .to_owned()
                .into_deserializer()
                .deserialize_enum(name, variants, visitor),
            None => self.deserialize_string(visitor),
        }
    }

    forward_to_deserialize_any! {
        f32 f64 char bytes byte_buf unit unit_struct tuple tuple_struct identifier ignored_any
    }
}

impl IntoDeserializer<'_, Error> for StrictValue {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

#[cfg(test)]
mod tests {
    use serde::de::DeserializeOwned;

    use super::*;
    use crate::config::List;

    fn read<T: DeserializeOwned>(value: impl Into<Value>) -> Option<T> {
        T::deserialize(StrictValue::Given(value.into())).ok()
    }

    #[test]
    fn only_strings_are_converted_to_numbers_and_booleans() {
        assert_eq!(
            ["12", "-3", "on", "1.5", ""].map(read::<i64>),
            [Some(12), Some(-3), None, None, None]
        );
        assert_eq!(read::<u64>("18446744073709551615"), Some(u64::MAX));
        assert_eq!(["300", "-1"].map(read::<u8>), [None, None]);
        let flags = ["true", "YES", "on", "1", "false", "no", "Off", "0"].map(read::<bool>);
        assert_eq!(
            flags,
            [
                Some(true),
                Some(true),
                Some(true),
                Some(true),
                Some(false),
                Some(false),
                Some(false),
                Some(false)
            ]
        );
        assert_eq!(["", "2", "perhaps"].map(read::<bool>), [None; 3]);
        assert_eq!(
            (
                read::<i64>(true),
                read::<i64>(1.5),
                read::<bool>(1),
                read::<String>(7)
            ),
            (None, None, None, None)
        );
        assert_eq!(read::<String>("00123").as_deref(), Some("00123"));
        assert_eq!(read::<Vec<u8>>(vec!["1", "2"]), Some(vec![1, 2]));
        let name = || "ROLLOUT__A__B".to_owned();
        let variable = |text: &str| ValueOrigin::Variable(name()).value(text);
        let in_file = |text: &str| ValueOrigin::Document(name()).value(text);
        assert_eq!(
            read::<Vec<String>>(variable("a, b")),
            Some(vec!["a".to_owned(), "b".to_owned()])
        );
        for (value, want) in [
            (variable("a, b,"), &["a", "b"][..]),
            (variable(""), &[]),
            (in_file("a, b"), &["a, b"]),
        ] {
            assert_eq!(read::<List<String>>(value), Some(List::of(want)));
        }
        assert_eq!(read::<Vec<String>>(in_file("a, b")), None);
        assert_eq!(
            (
                read::<Option<bool>>(Value::new(None, ValueKind::Nil)),
                read("7")
            ),
            (Some(None), Some(Some(7_u8)))
        );
    }
}
