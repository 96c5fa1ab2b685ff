//! Parses `MessagePack` (<https://github.com/msgpack/msgpack/blob/master/spec.md>), in which Flask-Session and
//! django-redis store sessions, into the same values as JSON.
//!
//! The number of values and the depth are limited, because one byte of input can become a value of 32 bytes. Binary
//! data and strings that are not UTF-8 are read as an empty list, which is never a subject. Extension types, such as
//! timestamps, are read as null. An integer key is read as its decimal digits. A member whose key is null, a boolean,
//! a float, binary data or a string that is not UTF-8 is left out, because no configuration can name it. A key of any
//! other type is an error.

use std::cell::Cell;
use std::fmt;

use rmp_serde::Deserializer;
use serde::de::{self, DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Number;

use crate::json::{Object, Value};

/// The maximum depth of nested lists and maps. Real sessions have only a few levels.
const MAX_DEPTH: usize = 32;

/// The maximum number of values. Real sessions have a few dozen.
const MAX_VALUES: usize = 64 * 1024;

/// Parses one value; `None` if it is malformed, exceeds a limit, or is followed by more data.
pub fn parse(bytes: &[u8]) -> Option<Value> {
    let mut rest = bytes;
    let left = Cell::new(MAX_VALUES);
    let mut deserializer = Deserializer::new(&mut rest);
    deserializer.set_max_depth(MAX_DEPTH);
    let value = Node(&left).deserialize(&mut deserializer).ok()?;
    rest.is_empty().then_some(value)
}

/// Parses one value. The cell holds the number of values that are still allowed.
#[derive(Clone, Copy)]
struct Node<'a>(&'a Cell<usize>);

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = Value;

    fn deserialize<D: de::Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        let left = self.0.get().checked_sub(1);
        self.0
            .set(left.ok_or_else(|| de::Error::custom("too many values"))?);
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a MessagePack value")
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

    /// Numbers that JSON cannot represent are read as null.
    fn visit_f64<E: de::Error>(self, number: f64) -> Result<Value, E> {
        Ok(Number::from_f64(number).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Value, E> {
        Ok(Value::String(text.to_owned()))
    }

    fn visit_bytes<E: de::Error>(self, _: &[u8]) -> Result<Value, E> {
        Ok(Value::Array(Vec::new()))
    }

    /// Skips an extension, which consists of its type and its data, and returns null in its place.
    fn visit_newtype_struct<D: de::Deserializer<'de>>(
        self,
        extension: D,
    ) -> Result<Value, D::Error> {
        extension.deserialize_any(IgnoredAny)?;
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element_seed(self)? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut members: Vec<(String, Value)> = Vec::new();
        while let Some(name) = access.next_key_seed(Key)? {
            let value = access.next_value_seed(self)?;
            members.extend(name.map(|name| (name, value)));
        }
        Ok(Value::Object(members.into_iter().collect::<Object>()))
    }
}

/// The key of a member; `None` for a member that is left out.
struct Key;

impl<'de> DeserializeSeed<'de> for Key {
    type Value = Option<String>;

    fn deserialize<D: de::Deserializer<'de>>(
        self,
        deserializer: D,
    ) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Visitor<'_> for Key {
    type Value = Option<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string or integer key")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_bool<E: de::Error>(self, _: bool) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Self::Value, E> {
        Ok(Some(number.to_string()))
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Self::Value, E> {
        Ok(Some(number.to_string()))
    }

    fn visit_f64<E: de::Error>(self, _: f64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Some(text.to_owned()))
    }

    fn visit_bytes<E: de::Error>(self, _: &[u8]) -> Result<Self::Value, E> {
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messagepack_values_of_every_type_are_read_as_json() {
        for (bytes, want) in [
            (&b"\xc0"[..], "null"),
            (b"\xc3", "true"),
            (b"\x07", "7"),
            (b"\xff", "-1"),
            (b"\xd1\xff\x00", "-256"),
            (
                b"\xcf\xff\xff\xff\xff\xff\xff\xff\xff",
                "18446744073709551615",
            ),
            (
                b"\xd3\x80\x00\x00\x00\x00\x00\x00\x00",
                "-9223372036854775808",
            ),
            (b"\xca\x3f\xc0\x00\x00", "1.5"),
            (b"\xcb\x7f\xf0\x00\x00\x00\x00\x00\x00", "null"),
            (b"\xa2\xc3\xa9", "\"\u{e9}\""),
            (b"\xd9\x01a", "\"a\""),
            (b"\xda\x00\x01a", "\"a\""),
            (b"\xa1\xff", "[]"),
            (b"\xc4\x02ab", "[]"),
            (b"\x92\x01\xc0", "[1,null]"),
            (b"\x80", "{}"),
            (
                b"\x82\xa1a\x01\xa1b\x81\xa1c\x90",
                r#"{"a":1,"b":{"c":[]}}"#,
            ),
            (b"\x83\x01\xa1x\xc4\x01k\x02\xc2\x03", r#"{"1":"x"}"#),
            (b"\x81\xff\x01", r#"{"-1":1}"#),
            // A 32-bit timestamp, a 96-bit timestamp, and another extension.
            (b"\x81\xa1t\xd6\xff\x6a\x00\x00\x00", r#"{"t":null}"#),
            (
                b"\x82\xa1t\xc7\x0c\xff\0\0\0\0\0\0\0\0\0\0\0\0\xa1u\xd4\x05\x00",
                r#"{"t":null,"u":null}"#,
            ),
        ] {
            let value = parse(bytes).unwrap_or_else(|| panic!("{bytes:x?}"));
            assert_eq!(serde_json::to_string(&value).unwrap(), want, "{bytes:x?}");
        }
        let twice = parse(b"\x82\xa1a\x01\xa1a\x02").unwrap();
        assert!(twice.has_duplicates());
    }

    #[test]
    fn malformed_truncated_or_trailing_bytes_are_refused() {
        for bytes in [
            &b""[..],
            b"\xc1",
            b"\x81",
            b"\x81\xa1a",
            b"\x81\xa1a\x01\x00",
            b"\x80\x80",
            b"\xa5abc",
            b"\xdb\xff\xff\xff\xffabc",
            b"\xc6\xff\xff\xff\xffabc",
            b"\xdd\xff\xff\xff\xff\x01",
            b"\xdf\xff\xff\xff\xff\x01\x01",
            b"\xc9\xff\xff\xff\xff\x01\x01",
            b"\x81\x90\x01",
            b"\x81\x80\x01",
        ] {
            assert_eq!(parse(bytes), None, "{bytes:x?}");
        }
    }

    #[test]
    fn depth_and_number_of_values_are_limited() {
        let nested = |depth: usize| [vec![0x91; depth], vec![0xc0]].concat();
        assert!(parse(&nested(MAX_DEPTH - 2)).is_some());
        assert_eq!(parse(&nested(MAX_DEPTH + 1)), None);
        assert_eq!(parse(&nested(1024 * 1024)), None);
        let list = |count: usize| {
            let count_bytes = u32::try_from(count).unwrap().to_be_bytes();
            [&[0xdd][..], &count_bytes, &vec![0xc0; count]].concat()
        };
        assert!(parse(&list(65_535)).is_some());
        assert_eq!(parse(&list(65_536)), None);
    }
}
