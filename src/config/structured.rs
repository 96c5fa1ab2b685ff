//! Parses lists and tables that are written as JSON or TOML in an environment variable.
//!
//! This module contains no list of the keys that accept a list or table: the caller checks whether the key's type
//! accepts an empty list or table.

use config::{FileFormat, Format, Value, ValueKind};
use serde::Deserialize;
use toml::de::ValueDeserializer;

use super::reader::Table;
use super::value_origin::ValueOrigin;
use crate::json;

const NO_LIST: &str = "begins with `[` but is not a list in JSON or TOML: write [\"…\"], even for a single secret that begins with `[`, or put the secrets into a file, add _FILE to the variable's name, and set it to the file's name";
const NO_TABLE: &str = "begins with `{` but is not a table in JSON or TOML: write {\"id\": \"…\"}, or put the secrets into files \
     and name them in variables with the suffix _FILE";

/// Replaces the string of an environment variable with the list or table that it contains.
///
/// `takes` returns whether the key accepts a value. `is_secret` is true if the key accepts secrets. In this case, a
/// string that begins like a list or table but cannot be parsed is an error, because it would otherwise be split at its
/// commas.
pub(super) fn expand(
    value: &Value,
    takes: &dyn Fn(Value) -> bool,
    is_secret: bool,
) -> Result<Value, String> {
    match &value.kind {
        ValueKind::Table(members) => {
            let members = members.iter().map(|(name, member)| {
                let takes = |probe| takes(Table::from([(name.clone(), probe)]).into());
                Ok((name.clone(), expand(member, &takes, is_secret)?))
            });
            let members = members.collect::<Result<_, String>>()?;
            let mut expanded = value.clone();
            expanded.kind = ValueKind::Table(members);
            Ok(expanded)
        }
        ValueKind::String(text) if let Some(variable) = ValueOrigin::variable_of(value) => {
            let (empty, unreadable) = match text.trim_start().chars().next() {
                Some('[') => (Value::from(Vec::<Value>::new()), NO_LIST),
                Some('{') => (Table::new().into(), NO_TABLE),
                _ => return Ok(value.clone()),
            };
            if !takes(empty) {
                return Ok(value.clone());
            }
            match read(text, &variable) {
                Some(read) => Ok(read),
                None if is_secret => Err(unreadable.to_owned()),
                None => Ok(value.clone()),
            }
        }
        _ => Ok(value.clone()),
    }
}

/// Parses the whole string as JSON, or else as TOML; `None` if it is neither, or if a JSON object has a duplicate
/// member. The strings inside it must not be split at commas, so their origin is a document.
fn read(text: &str, variable: &str) -> Option<Value> {
    if let Ok(value) = json::Value::parse(text.as_bytes()) {
        let origin = ValueOrigin::Document(format!("JSON in {variable}"));
        return (!value.has_duplicates()).then(|| from_json(value, &origin));
    }
    toml::Value::deserialize(ValueDeserializer::parse(text.trim()).ok()?).ok()?;
    let origin = ValueOrigin::Document(format!("TOML in {variable}"));
    let document = format!("value = {}", text.trim());
    FileFormat::Toml
        .parse(Some(&origin.stored()), &document)
        .ok()?
        .remove("value")
}

pub(super) fn from_json(value: json::Value, origin: &ValueOrigin) -> Value {
    let kind = match value {
        json::Value::Null => ValueKind::Nil,
        json::Value::Bool(flag) => flag.into(),
        json::Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(number), _) => number.into(),
            (None, Some(number)) => number.into(),
            (None, None) => number.as_f64().into(),
        },
        json::Value::String(text) => text.into(),
        json::Value::Array(items) => {
            let items = items.into_iter().map(|item| from_json(item, origin));
            ValueKind::Array(items.collect())
        }
        json::Value::Object(members) => {
            let members = members.into_iter();
            let members = members.map(|(name, member)| (name, from_json(member, origin)));
            ValueKind::Table(members.collect())
        }
    };
    origin.value(kind)
}
