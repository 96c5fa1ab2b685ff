//! The formats in which apps write a session into a store of any kind: JSON, `MessagePack`, PHP's own format and plain
//! text. Python's pickle and similar formats are programs. They are never run, and the error names the format.

use std::sync::Once;

use crate::config::{Problems, Section};
use crate::json::Value;
use crate::session::formats::{msgpack, payload, php};
use crate::session::reason::Reason;
use crate::session::types::ExtractError;

/// A value of the configuration key `payload` whose format needs no cryptographic key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoredFormat {
    Json,
    MessagePack,
    Php,
    /// The whole value is the user's id.
    Text,
}

impl StoredFormat {
    /// The format called `name` in the configuration.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "json" => Some(Self::Json),
            "msgpack" => Some(Self::MessagePack),
            "php" => Some(Self::Php),
            "text" => Some(Self::Text),
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Json => "a JSON object",
            Self::MessagePack => "a MessagePack map",
            Self::Php => "a PHP session",
            Self::Text => "text",
        }
    }
}

/// Reads the stored sessions of one extractor.
#[derive(Debug)]
pub struct StoredSession {
    format: StoredFormat,
    extractor: String,
    /// Ensures that only the first session in an unsupported format logs a warning, because all sessions of an app have
    /// the same format.
    warned: Once,
}

impl StoredSession {
    pub fn new(section: &Section<'_>, format: StoredFormat, problems: &mut Problems) -> Self {
        if format == StoredFormat::Text {
            section.require_subject(
                "is missing: with payload = \"text\" the session is the text itself, so set subject = \"{}\"",
                problems,
            );
        }
        Self {
            format,
            extractor: section.name().to_owned(),
            warned: Once::new(),
        }
    }

    #[cfg(test)]
    pub(in crate::session) fn of(format: StoredFormat) -> Self {
        Self {
            format,
            extractor: "web".to_owned(),
            warned: Once::new(),
        }
    }

    /// Whether the format is JSON, for which databases have their own type.
    pub fn is_json(&self) -> bool {
        self.format == StoredFormat::Json
    }

    /// The session in a stored value.
    ///
    /// # Errors
    /// `Rejected` if the value is in another format. The detail names that format if it is recognised.
    pub fn read(&self, bytes: &[u8]) -> Result<Value, ExtractError> {
        let session = match self.format {
            StoredFormat::Json => Value::parse(bytes).ok(),
            StoredFormat::MessagePack => msgpack::parse(bytes),
            StoredFormat::Php => php::session(bytes),
            StoredFormat::Text => text(bytes),
        };
        match (self.format, session) {
            (_, Some(session @ Value::Object(_)))
            | (StoredFormat::Text, Some(session @ Value::String(_))) => Ok(session),
            _ => Err(self.refused(bytes)),
        }
    }

    fn refused(&self, bytes: &[u8]) -> ExtractError {
        let wanted = self.format.name();
        let Some((found, fix)) = seems(bytes, self.format) else {
            return ExtractError::rejected(Reason::SessionCorrupt)
                .because(format!("the stored value is not {wanted}"));
        };
        self.warned.call_once(|| {
            tracing::warn!(
                extractor = self.extractor,
                "the app stores its sessions as {found}, not as {wanted}, so all of them are refused: {fix}"
            );
        });
        ExtractError::rejected(Reason::PayloadNotJson)
            .because(format!("the stored value is {found}, not {wanted}: {fix}"))
    }
}

fn text(bytes: &[u8]) -> Option<Value> {
    if payload::is_pickle(bytes) || payload::is_marshal(bytes) {
        return None;
    }
    let text = std::str::from_utf8(bytes).ok()?;
    Some(Value::String(text.to_owned()))
}

/// The other format that a value seems to have, and what the operator should do about it.
fn seems(bytes: &[u8], expected: StoredFormat) -> Option<(&'static str, &'static str)> {
    let is_map = |session| matches!(session, Some(Value::Object(_)));
    let is_other = |format| format != expected;
    let found = if payload::is_pickle(bytes) {
        (
            "Python's pickle",
            "a pickle is a program and is never run, so let the app write JSON or MessagePack (django-redis: \
             SERIALIZER, Flask-Session: SESSION_SERIALIZATION_FORMAT)",
        )
    } else if payload::is_marshal(bytes) {
        (
            "Ruby's Marshal",
            "Marshal can run code and is never loaded, so let the app write JSON (serializer: :json)",
        )
    } else if bytes.starts_with(b"\0\0\0\x02") {
        (
            "PHP's igbinary",
            "set session.serialize_handler = php_serialize in the app",
        )
    } else if let [0x78, 0x01 | 0x5e | 0x9c | 0xda, ..] | [0x1f, 0x8b, ..] = bytes {
        ("compressed data", "switch off compression in the app")
    } else if is_other(StoredFormat::Json) && is_map(Value::parse(bytes).ok()) {
        ("JSON", "set payload = \"json\"")
    } else if is_other(StoredFormat::MessagePack) && is_map(msgpack::parse(bytes)) {
        ("MessagePack", "set payload = \"msgpack\"")
    } else if is_other(StoredFormat::Php) && !bytes.is_empty() && is_map(php::session(bytes)) {
        ("a PHP session", "set payload = \"php\"")
    } else {
        return None;
    };
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(format: StoredFormat, bytes: &[u8]) -> Result<String, (&'static str, String)> {
        match StoredSession::of(format).read(bytes) {
            Ok(session) => Ok(serde_json::to_string(&session).unwrap()),
            Err(ExtractError::Rejected(rejection)) => {
                Err((rejection.reason.as_str(), rejection.detail.unwrap()))
            }
            Err(other) => panic!("{other:?}"),
        }
    }

    const ALL: [StoredFormat; 4] = [
        StoredFormat::Json,
        StoredFormat::MessagePack,
        StoredFormat::Php,
        StoredFormat::Text,
    ];

    #[test]
    fn stored_session_is_accepted_only_in_the_configured_format() {
        let want = r#"{"user_id":7}"#;
        for (bytes, format) in [
            (want.as_bytes(), StoredFormat::Json),
            (b"\x81\xa7user_id\x07", StoredFormat::MessagePack),
            (b"user_id|i:7;", StoredFormat::Php),
            (b"a:1:{s:7:\"user_id\";i:7;}", StoredFormat::Php),
        ] {
            assert_eq!(read(format, bytes).as_deref(), Ok(want));
            for other in [
                StoredFormat::Json,
                StoredFormat::MessagePack,
                StoredFormat::Php,
            ] {
                if other != format {
                    let (reason, detail) = read(other, bytes).unwrap_err();
                    assert_eq!(reason, "payload_not_json", "{detail}");
                    assert!(detail.contains("set payload = "), "{detail}");
                }
            }
        }
        assert_eq!(
            read(StoredFormat::Text, b"user-7").as_deref(),
            Ok("\"user-7\"")
        );
    }

    #[test]
    fn pickle_marshal_igbinary_and_compressed_values_are_named_in_the_refusal() {
        for (bytes, name) in [
            (
                &b"\x80\x04\x95\x0a\x00\x00\x00\x00\x00\x00\x00}\x94\x8c\x01a\x94K\x01s."[..],
                "pickle",
            ),
            (b"\x80\x05}\x94.", "pickle"),
            (b"\x04\x08{\x06I\"\x0cuser_id\x06:\x06ETi\x0c", "Marshal"),
            (b"\0\0\0\x02\x14\x01\x11\x07user_id\x06\x07", "igbinary"),
            (b"\x78\x9c\xab\xae\x05\x00\x01\x75\x00\xf9", "compressed"),
            (b"\x1f\x8b\x08\x00\xff", "compressed"),
        ] {
            for format in ALL {
                if format == StoredFormat::Text
                    && std::str::from_utf8(bytes).is_ok()
                    && name == "igbinary"
                {
                    continue;
                }
                let (reason, detail) = read(format, bytes).unwrap_err();
                assert_eq!(reason, "payload_not_json", "{format:?}: {detail}");
                assert!(detail.contains(name), "{format:?}: {detail}");
            }
        }
    }

    #[test]
    fn value_that_is_not_a_session_is_session_corrupt() {
        for (format, bytes) in [
            (StoredFormat::Json, &b"[]"[..]),
            (StoredFormat::Json, b"\"user-7\""),
            (StoredFormat::Json, b"null"),
            (StoredFormat::Json, b"{"),
            (StoredFormat::MessagePack, b"\x07"),
            (StoredFormat::MessagePack, b"\x91\x07"),
            (StoredFormat::MessagePack, b"\xc0"),
            (StoredFormat::MessagePack, b"\x81\xa7user_id"),
            (StoredFormat::Php, b"i:7;"),
            (StoredFormat::Php, b"user_id|i:7"),
            (StoredFormat::Text, b"\xff"),
        ] {
            let (reason, detail) = read(format, bytes).unwrap_err();
            assert_eq!(reason, "session_corrupt", "{format:?}: {detail}");
        }
    }
}
