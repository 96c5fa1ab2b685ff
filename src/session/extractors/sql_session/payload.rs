//! The formats in which a row contains the session's attributes, and how they are decoded.
//! Finding the row is in `database.rs`.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::django::DjangoKeys;
use super::misfit;
use crate::json::{Object, Value};
use crate::session::formats::payload::MAX_STORED;
use crate::session::reason::Reason;
use crate::session::sections::laravel;
use crate::session::types::ExtractError;

/// Where the session's attributes are, in addition to the row's own columns.
#[derive(Debug)]
pub enum Payload {
    /// Nowhere else: the columns are the attributes.
    Columns,
    /// JSON in this column, as text or as the database's own type.
    Json(String),
    Django(String, DjangoKeys),
    Laravel(String, Arc<laravel::AppKeySet>),
}

impl Payload {
    /// The row with the payload's members added to its columns. A name in both becomes a duplicate member, which
    /// cannot be used as subject.
    pub fn merge(&self, row: Object) -> Result<Object, ExtractError> {
        let column = match self {
            Self::Columns => return Ok(row),
            Self::Json(column) | Self::Django(column, _) | Self::Laravel(column, _) => column,
        };
        let payload = match row.get(column) {
            Ok(Some(value)) => self.decode(value)?,
            Ok(None) => return Err(misfit(format!("the query returns no column {column}"))),
            Err(_) => return Err(misfit(format!("the query returns two columns {column}"))),
        };
        let columns = row.into_iter().filter(|(name, _)| name != column);
        Ok(columns.chain(payload).collect())
    }

    fn decode(&self, value: &Value) -> Result<Object, ExtractError> {
        if value.as_str().is_some_and(|text| text.len() > MAX_STORED) {
            return Err(corrupt("the payload is longer than 1 MiB"));
        }
        let payload = match (self, value) {
            (Self::Django(_, keys), Value::String(text)) => {
                let json = keys.open(text).map_err(ExtractError::rejected)?;
                Value::parse(&json).map_err(not_json)?
            }
            (Self::Laravel(_, keys), Value::String(text)) => {
                let data = STANDARD
                    .decode(text)
                    .map_err(|_| corrupt("the payload is not in base64"))?;
                match keys.attributes(&data)? {
                    // PHP serializes an empty session as an empty list.
                    Value::Array(items) if items.is_empty() => Value::Object(Object::default()),
                    attributes => attributes,
                }
            }
            (Self::Django(..) | Self::Laravel(..), _) => {
                return Err(corrupt("the payload is not text"));
            }
            (Self::Columns | Self::Json(_), Value::String(text)) => {
                Value::parse(text.as_bytes()).map_err(not_json)?
            }
            (Self::Columns | Self::Json(_), value) => value.clone(),
        };
        match payload {
            Value::Object(payload) => Ok(payload),
            _ => Err(corrupt("the payload is not a JSON object")),
        }
    }
}

fn not_json<E>(_: E) -> ExtractError {
    corrupt("the payload is not JSON")
}

fn corrupt(detail: &'static str) -> ExtractError {
    ExtractError::rejected(Reason::SessionCorrupt).because(detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(json: &str) -> Object {
        match Value::parse(json.as_bytes()).unwrap() {
            Value::Object(row) => row,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn payload_member_named_like_a_column_is_a_duplicate() {
        let payload = Payload::Json("data".to_owned());
        for (columns, want) in [
            (r#"{"id":1,"data":{"user":2}}"#, Ok(r#"{"id":1,"user":2}"#)),
            (
                r#"{"data":"{\"user\":9007199254740993}"}"#,
                Ok(r#"{"user":9007199254740993}"#),
            ),
            (r#"{"data":"[1]"}"#, Err("session_corrupt")),
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
            assert_eq!(
                payload
                    .merge(row(columns))
                    .map_err(|error| error.reason().as_str()),
                want.map(row),
                "{columns}"
            );
        }
        let twice = payload
            .merge(row(r#"{"user":1,"data":{"user":2}}"#))
            .unwrap();
        assert!(twice.get("user").is_err(), "neither takes precedence");
    }
}
