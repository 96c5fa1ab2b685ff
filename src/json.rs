//! A JSON value that keeps duplicate members and every digit of a 64-bit integer, because a user's identity may depend
//! on them.

use std::fmt;

use serde::de::value::SeqAccessDeserializer;
use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::ser::{Error as _, Serialize, Serializer};
use serde_json::Number;

/// Any JSON value.
///
/// `serde_json::Value` keeps only the last of two members with the same name, so two readers of one document could
/// see two different users. This type keeps both members, and [`Object::get`] fails for their name.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Null,
    Bool(bool),
    /// A 64-bit integer is exact; any other number is a float, which is never used as a subject.
    Number(Number),
    String(String),
    Array(Vec<Value>),
    Object(Object),
}

/// The members of a JSON object in their original order, including duplicates.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Object(Vec<(String, Value)>);

/// Two members of an object have the same name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DuplicateMember;

impl Value {
    /// Parses UTF-8 JSON. Nesting deeper than `serde_json`'s limit (128) is an error.
    pub fn parse(json: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(json)
    }

    /// The object; `None` for a value of another type.
    pub fn as_object(&self) -> Option<&Object> {
        match self {
            Self::Object(object) => Some(object),
            _ => None,
        }
    }

    /// The string; `None` for a value of another type.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            _ => None,
        }
    }

    /// Whether an object anywhere in the value has two members of the same name.
    pub fn has_duplicates(&self) -> bool {
        match self {
            Self::Array(items) => items.iter().any(Self::has_duplicates),
            Self::Object(object) => {
                object.has_duplicate_names()
                    || object.0.iter().any(|(_, value)| value.has_duplicates())
            }
            Self::Null | Self::Bool(_) | Self::Number(_) | Self::String(_) => false,
        }
    }
}

impl Object {
    /// Parses a JSON object; `None` for any other text.
    pub(crate) fn parse(json: &[u8]) -> Option<Self> {
        match Value::parse(json) {
            Ok(Value::Object(object)) => Some(object),
            _ => None,
        }
    }

    /// The string called `name`; `None` if there is none, if it has another type, or if the name occurs twice.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.get(name).ok()??.as_str()
    }

    /// The member called `name`; `None` if there is none, and an error if there are several.
    pub fn get(&self, name: &str) -> Result<Option<&Value>, DuplicateMember> {
        let mut named = self.0.iter().filter(|(member, _)| member == name);
        let first = named.next();
        match named.next() {
            Some(_) => Err(DuplicateMember),
            None => Ok(first.map(|(_, value)| value)),
        }
    }

    /// The members in their original order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value))
    }

    /// Whether at least one member is called `name`.
    pub fn contains(&self, name: &str) -> bool {
        self.0.iter().any(|(member, _)| member == name)
    }

    fn has_duplicate_names(&self) -> bool {
        let mut names: Vec<&str> = self.0.iter().map(|(name, _)| name.as_str()).collect();
        names.sort_unstable();
        names.windows(2).any(|pair| pair[0] == pair[1])
    }
}

impl<N: Into<String>> FromIterator<(N, Value)> for Object {
    fn from_iter<I: IntoIterator<Item = (N, Value)>>(members: I) -> Self {
        Self(
            members
                .into_iter()
                .map(|(name, value)| (name.into(), value))
                .collect(),
        )
    }
}

impl IntoIterator for Object {
    type Item = (String, Value);
    type IntoIter = std::vec::IntoIter<Self::Item>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl From<serde_json::Value> for Value {
    fn from(value: serde_json::Value) -> Self {
        match value {
            serde_json::Value::Null => Self::Null,
            serde_json::Value::Bool(flag) => Self::Bool(flag),
            serde_json::Value::Number(number) => Self::Number(number),
            serde_json::Value::String(text) => Self::String(text),
            serde_json::Value::Array(items) => {
                Self::Array(items.into_iter().map(Self::from).collect())
            }
            serde_json::Value::Object(members) => Self::Object(
                members
                    .into_iter()
                    .map(|(name, value)| (name, value.into()))
                    .collect(),
            ),
        }
    }
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Bool(flag) => serializer.serialize_bool(*flag),
            Self::Number(number) => number.serialize(serializer),
            Self::String(text) => serializer.serialize_str(text),
            Self::Array(items) => serializer.collect_seq(items),
            Self::Object(object) if object.has_duplicate_names() => Err(S::Error::custom(
                "an object with two members of the same name is ambiguous",
            )),
            Self::Object(object) => serializer.collect_map(object.iter()),
        }
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: de::Error>(self, flag: bool) -> Result<Value, E> {
        Ok(Value::Bool(flag))
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Value, E> {
        Ok(Value::Number(number.into()))
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Value, E> {
        Ok(Value::Number(number.into()))
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<Value, E> {
        Number::from_f64(number)
            .map(Value::Number)
            .ok_or_else(|| E::custom("not a finite number"))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Value, E> {
        Ok(Value::String(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, access: A) -> Result<Value, A::Error> {
        Vec::deserialize(SeqAccessDeserializer::new(access)).map(Value::Array)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = access.next_entry()? {
            members.push(member);
        }
        Ok(Value::Object(Object(members)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn duplicate_member_is_an_error_and_is_detected_at_every_depth() {
        let value = Value::parse(br#"{"a":1,"b":[{"c":1,"c":1}],"a":2}"#).unwrap();
        let object = value.as_object().unwrap();
        assert_eq!(object.get("a"), Err(DuplicateMember));
        assert_eq!(object.get("z"), Ok(None));
        assert!(object.get("b").unwrap().unwrap().has_duplicates());
        assert!(serde_json::to_string(&value).is_err());
    }

    #[test]
    fn integers_above_2_to_the_53_keep_every_digit() {
        let text = r#"{"id":9007199254740993,"big":18446744073709551615}"#;
        assert_eq!(
            serde_json::to_string(&Value::parse(text.as_bytes()).unwrap()).unwrap(),
            text
        );
    }

    #[test]
    fn invalid_json_is_refused() {
        let nested = "[".repeat(3000) + &"]".repeat(3000);
        let broken: [&[u8]; 6] = [
            b"",
            b"{} x",
            b"\xef\xbb\xbf{}",
            b"{\"a\":\"\xff\"}",
            br#"{"a":"\ud800"}"#,
            nested.as_bytes(),
        ];
        for text in broken {
            assert!(
                Value::parse(text).is_err(),
                "{:?}",
                &text[..text.len().min(20)]
            );
        }
    }
}
