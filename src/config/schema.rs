//! The JSON Schema of a section, built from the section's struct. Each key is tried with a boolean, an integer, a
//! string, an array and an object, so the schema always matches the struct.

use config::Value;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, json};

use super::deserializer::{Error, StrictValue};
use super::reader::{Table, accepts_file, defaults_of, read_key};

/// The properties of the section that `T` reads: each key, and its variant with `_file` if there is one.
pub(crate) fn properties<T>() -> Map<String, serde_json::Value>
where
    T: DeserializeOwned + Default + Serialize,
{
    let mut properties = Map::new();
    for (key, default) in defaults_of::<T>() {
        let mut property = json!({"type": types::<T>(&key)});
        if !default.is_null() {
            property["default"] = default;
        }
        let file_types: Vec<&str> = [("string", "x".into()), ("object", Table::new().into())]
            .into_iter()
            .filter(|(_, names)| accepts_file::<T>(&key, names))
            .map(|(name, _)| name)
            .collect();
        if !file_types.is_empty() {
            let twin = format!("{key}_file");
            properties.insert(twin, json!({"type": file_types}));
        }
        properties.insert(key, property);
    }
    properties
}

/// The JSON types that the key accepts.
fn types<T: DeserializeOwned>(key: &str) -> Vec<&'static str> {
    let samples = [
        ("boolean", Value::from(true)),
        ("integer", 1_i64.into()),
        ("string", "x".into()),
        ("array", vec!["x"].into()),
        ("object", Table::new().into()),
    ];
    let accepts = |name, sample: Value| match read_key::<T>(key, StrictValue::Given(sample)) {
        Ok(()) => true,
        Err(Error::OutOfRange) => name == "integer",
        // The type is accepted, although this value is not.
        Err(Error::Invalid(_)) => name == "string" || name == "array",
        // If only the type of the sample's item is wrong, the key accepts lists.
        Err(Error::Type { is_container, .. }) => name == "array" && !is_container,
        Err(Error::NotFromFile | Error::UnknownKey(_)) => false,
    };
    let accepted = samples
        .into_iter()
        .filter(|(name, sample)| accepts(*name, sample.clone()));
    accepted.map(|(name, _)| name).collect()
}
