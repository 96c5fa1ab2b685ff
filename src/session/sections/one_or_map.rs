//! A key whose value is one text or a table of texts by id: `"…"` or `{ 1 = "…", 2 = "…" }`.

use std::collections::BTreeMap;

use serde::de::value::StringDeserializer;
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::json::Value;

/// One value, or several by id.
#[derive(Debug)]
pub enum OneOrMap<T> {
    One(T),
    Map(BTreeMap<String, T>),
}

impl<T> OneOrMap<T> {
    /// All values by id. A single value gets the id `default`.
    pub fn by_id(self, default: &str) -> BTreeMap<String, T> {
        match self {
            Self::One(value) => BTreeMap::from([(default.to_owned(), value)]),
            Self::Map(values) => values,
        }
    }
}

impl<T: Serialize> Serialize for OneOrMap<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::One(value) => value.serialize(serializer),
            Self::Map(values) => values.serialize(serializer),
        }
    }
}

impl<'de, T: DeserializeOwned> Deserialize<'de> for OneOrMap<T> {
    /// Through a JSON value, because serde's own type errors quote the value, which may be a secret.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let read = |text| T::deserialize(StringDeserializer::new(text));
        match Value::deserialize(deserializer)? {
            Value::Object(members) => {
                let entry = |(id, value): (String, Value)| {
                    let text = value.into_text();
                    let text = text.map_err(|error| D::Error::custom(format!("{id} {error}")))?;
                    Ok((id, read(text)?))
                };
                members
                    .into_iter()
                    .map(entry)
                    .collect::<Result<_, _>>()
                    .map(Self::Map)
            }
            value => read(value.into_text().map_err(D::Error::custom)?).map(Self::One),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;

    #[test]
    fn text_or_table_of_texts_is_read_and_type_errors_do_not_quote_the_value() {
        let ids = |json: &str| {
            let values =
                serde_json::from_str::<OneOrMap<Secret>>(json).map(|values| values.by_id("1"));
            values
                .map(|values| values.into_keys().collect::<Vec<_>>())
                .map_err(|error| error.to_string())
        };
        assert_eq!(ids(r#""text""#), Ok(vec!["1".to_owned()]));
        assert_eq!(
            ids(r#"{"12":"a","7":"b"}"#),
            Ok(vec!["12".to_owned(), "7".to_owned()])
        );
        for json in [
            "7654321",
            "-7654321",
            "76543.21",
            "true",
            "[7654321]",
            r#"{"1":7654321}"#,
        ] {
            let error = ids(json).expect_err(json);
            assert!(!error.contains("765"), "{error}");
        }
        let shown =
            serde_json::to_string(&serde_json::from_str::<OneOrMap<Secret>>(r#""text""#).unwrap());
        assert_eq!(shown.unwrap(), "\"[REDACTED]\"");
    }
}
