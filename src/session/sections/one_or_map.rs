//! A key whose value is either one string or a table of strings by id: `"…"` or `{ 1 = "…", 2 = "…" }`. Each kind
//! defines the meaning of the ids.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::de::value::{BytesDeserializer, MapAccessDeserializer, StrDeserializer};
use serde::de::{self, Deserialize, Deserializer, MapAccess, Visitor};
use serde::{Serialize, Serializer};

use crate::secret::refuse;

/// One value, or several values by id.
pub(crate) enum OneOrMap<T> {
    One(T),
    Map(BTreeMap<String, T>),
}

impl<T: Serialize> Serialize for OneOrMap<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::One(value) => value.serialize(serializer),
            Self::Map(values) => values.serialize(serializer),
        }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for OneOrMap<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(OneOrMapVisitor(PhantomData))
    }
}

struct OneOrMapVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for OneOrMapVisitor<T> {
    type Value = OneOrMap<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string in quotes, or a table of strings by id")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<OneOrMap<T>, E> {
        T::deserialize(StrDeserializer::new(text)).map(OneOrMap::One)
    }

    /// Accepts the content of a file, which may be binary.
    fn visit_bytes<E: de::Error>(self, content: &[u8]) -> Result<OneOrMap<T>, E> {
        T::deserialize(BytesDeserializer::new(content)).map(OneOrMap::One)
    }

    fn visit_map<A: MapAccess<'de>>(self, access: A) -> Result<OneOrMap<T>, A::Error> {
        BTreeMap::deserialize(MapAccessDeserializer::new(access)).map(OneOrMap::Map)
    }

    refuse!("must be a string in quotes, not a number"; visit_i64: i64, visit_u64: u64, visit_f64: f64);
    refuse!("must be a string in quotes, not true or false"; visit_bool: bool);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;

    #[test]
    fn string_or_table_is_read_and_no_error_message_contains_a_secret() {
        let ids = |json: &str| match serde_json::from_str::<OneOrMap<Secret>>(json) {
            Ok(OneOrMap::One(_)) => Ok(Vec::new()),
            Ok(OneOrMap::Map(values)) => Ok(values.into_keys().collect()),
            Err(error) => Err(error.to_string()),
        };
        assert_eq!(ids(r#""text""#), Ok(vec![]));
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
