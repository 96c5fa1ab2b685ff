//! The formats in which a row contains the session's attributes, and how they are decoded. `database.rs` finds the row.

use std::borrow::Cow;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::django::DjangoKeys;
use super::value_of;
use crate::json::{Object, Value};
use crate::session::formats::hex;
use crate::session::formats::payload::MAX_STORED;
use crate::session::reason::Reason;
use crate::session::sections::laravel;
use crate::session::sections::stored_session::StoredSession;
use crate::session::types::ExtractError;

/// The source of the session's attributes, in addition to the row's other columns.
#[derive(Debug)]
pub enum Payload {
    /// No payload: the row's columns are the only attributes.
    Columns,
    /// This column contains the attributes, in one of the formats that `redis_session` also reads.
    Stored(String, StoredSession),
    Django(String, DjangoKeys),
    Laravel(String, Arc<laravel::AppKeySet>),
}

impl Payload {
    /// Replaces the payload's column in the row by the payload's members. A name that occurs in both becomes a
    /// duplicate member, which cannot be used as the subject. A payload that is text replaces the whole row, and any
    /// other payload is an error. With [`Self::Columns`], the row is returned unchanged.
    pub fn merge(&self, row: Object) -> Result<Value, ExtractError> {
        let column = match self {
            Self::Columns => return Ok(Value::Object(row)),
            Self::Stored(column, _) | Self::Django(column, _) | Self::Laravel(column, _) => column,
        };
        let payload = self.decode(value_of(&row, column)?)?;
        match payload {
            Value::Object(payload) => {
                let columns = row.into_iter().filter(|(name, _)| name != column);
                Ok(Value::Object(columns.chain(payload).collect()))
            }
            text @ Value::String(_) => Ok(text),
            _ => Err(corrupt("the payload is not an object")),
        }
    }

    fn decode(&self, value: &Value) -> Result<Value, ExtractError> {
        if value.as_str().is_some_and(|text| text.len() > MAX_STORED) {
            return Err(corrupt("the payload is longer than 1 MiB"));
        }
        match (self, value) {
            (Self::Columns, value) => Ok(value.clone()),
            (Self::Stored(_, format), Value::String(text)) => format.read(&bytes(text)),
            // The column has the database's own JSON type.
            (Self::Stored(_, format), Value::Object(_)) if format.is_json() => Ok(value.clone()),
            (Self::Django(_, keys), Value::String(text)) => {
                let json = keys.open(text)?;
                Value::parse(&json).map_err(|_| corrupt("the payload is not JSON"))
            }
            (Self::Laravel(_, keys), Value::String(text)) => {
                let data = STANDARD
                    .decode(text)
                    .map_err(|_| corrupt("the payload is not in base64"))?;
                match keys.attributes(&data)? {
                    // PHP serializes an empty session as an empty list.
                    Value::Array(items) if items.is_empty() => Ok(Value::Object(Object::default())),
                    attributes => Ok(attributes),
                }
            }
            _ => Err(corrupt("the payload is not text")),
        }
    }
}

/// The bytes of a text or binary column. Binary data that is returned as `\x` and hexadecimal digits is decoded. A
/// session in JSON or in PHP's format never begins with a backslash, so it is not mistaken for binary data. A session
/// in the format `text` that has the form of binary data is decoded too.
fn bytes(text: &str) -> Cow<'_, [u8]> {
    match text.strip_prefix("\\x").and_then(hex::decode) {
        Some(bytes) => Cow::Owned(bytes),
        None => Cow::Borrowed(text.as_bytes()),
    }
}

fn corrupt(detail: &'static str) -> ExtractError {
    ExtractError::rejected(Reason::SessionCorrupt).because(detail)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::sections::stored_session::StoredFormat;

    fn row(json: &str) -> Object {
        match Value::parse(json.as_bytes()).unwrap() {
            Value::Object(row) => row,
            other => panic!("{other:?}"),
        }
    }

    fn stored(format: StoredFormat) -> Payload {
        Payload::Stored("data".to_owned(), StoredSession::of(format))
    }

    fn merged(format: StoredFormat, columns: &str) -> Result<String, &'static str> {
        match stored(format).merge(row(columns)) {
            Ok(session) => Ok(serde_json::to_string(&session).unwrap()),
            Err(error) => Err(error.reason().as_str()),
        }
    }

    #[test]
    fn payload_object_is_merged_with_the_columns_and_other_json_is_refused() {
        for (columns, want) in [
            (r#"{"id":1,"data":{"user":2}}"#, Ok(r#"{"id":1,"user":2}"#)),
            (
                r#"{"data":"{\"user\":9007199254740993}"}"#,
                Ok(r#"{"user":9007199254740993}"#),
            ),
            (r#"{"data":"[1]"}"#, Err("session_corrupt")),
            (r#"{"data":[1]}"#, Err("session_corrupt")),
            (r#"{"data":7}"#, Err("session_corrupt")),
            (r#"{"data":"x"}"#, Err("session_corrupt")),
            (r#"{"data":""}"#, Err("session_corrupt")),
            (r#"{"data":null}"#, Err("session_corrupt")),
            (
                &format!(r#"{{"data":"{{}}{}"}}"#, " ".repeat(MAX_STORED - 1)),
                Err("session_corrupt"),
            ),
            (r#"{"id":1}"#, Err("store_misfit")),
            (r#"{"data":{},"data":{}}"#, Err("store_misfit")),
        ] {
            let found = merged(StoredFormat::Json, columns);
            assert_eq!(found, want.map(str::to_owned), "{columns}");
        }
        let twice = stored(StoredFormat::Json)
            .merge(row(r#"{"user":1,"data":{"user":2}}"#))
            .unwrap();
        let twice = twice.as_object().unwrap();
        assert!(twice.get("user").is_err(), "neither takes precedence");
    }

    #[test]
    fn binary_column_is_read_from_hexadecimal_digits() {
        use StoredFormat::{Json, MessagePack, Php, Text};
        for (format, columns, want) in [
            (
                MessagePack,
                r#"{"id":1,"data":"\\x81a7757365725f696407"}"#,
                Ok(r#"{"id":1,"user_id":7}"#),
            ),
            (Json, r#"{"data":"\\x7b7d"}"#, Ok("{}")),
            (Php, r#"{"data":"\\x617c693a373b"}"#, Ok(r#"{"a":7}"#)),
            (Php, r#"{"data":"a|i:7;"}"#, Ok(r#"{"a":7}"#)),
            (Text, r#"{"id":1,"data":"user-7"}"#, Ok("\"user-7\"")),
            (MessagePack, r#"{"data":"\\x81"}"#, Err("session_corrupt")),
            (MessagePack, r#"{"data":"\\x8"}"#, Err("session_corrupt")),
            (
                MessagePack,
                r#"{"data":{"user_id":7}}"#,
                Err("session_corrupt"),
            ),
            (Json, r#"{"data":"\\x800495"}"#, Err("session_corrupt")),
            (Json, r#"{"data":"\\x80057d942e"}"#, Err("payload_not_json")),
        ] {
            let want = want.map(str::to_owned);
            assert_eq!(merged(format, columns), want, "{format:?}: {columns}");
        }
    }
}
