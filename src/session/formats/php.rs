//! Parses the output of PHP's `serialize()`: null, booleans, numbers, strings and arrays of them. Also parses PHP's own
//! sessions, which contain such values. Format: php-src `ext/standard/var_unserializer.re`, `ext/session/session.c`.
//!
//! PHP runs an object's code while unserializing it. This parser never creates an object, an enum or a reference: it
//! skips their text and reads them as null. It does not reject them, because in Laravel a form that fails validation
//! leaves such an object in the session, and a rejection would sign the user out.
//!
//! PHP strings are bytes. A string that is not UTF-8 is read as an empty list, which is never a subject. An array key
//! that is not UTF-8 is left out with its value, because no configuration can name it.

use std::str::FromStr;

use serde_json::Number;

use crate::json::Value;

/// The maximum depth of nested arrays. Real sessions have only a few levels.
const MAX_DEPTH: usize = 32;

/// Parses an array; `None` unless the whole text is one array. A list becomes a JSON array, and any other array becomes
/// an object with its members in order.
pub fn array(text: &[u8]) -> Option<Value> {
    text.starts_with(b"a:").then(|| value(text)).flatten()
}

/// Parses a string into its bytes; `None` unless the whole text is one string.
pub fn string(text: &[u8]) -> Option<&[u8]> {
    let mut reader = Reader { rest: text };
    let bytes = reader.eat("s:").then(|| reader.string()).flatten()?;
    reader.rest.is_empty().then_some(bytes)
}

/// Parses a session that PHP's `session_encode()` wrote, with `session.serialize_handler` `php_serialize` (one array)
/// or `php` (`name|value` pairs without a separator); `None` if the whole text has neither format. A text that
/// fits both formats is read as one array.
pub fn session(text: &[u8]) -> Option<Value> {
    match array(text) {
        // An empty session, or a session whose member names are 0, 1, 2 and so on.
        Some(Value::Array(items)) => {
            let items = items.into_iter().enumerate();
            let members = items.map(|(index, item)| (index.to_string(), item));
            return Some(Value::Object(members.collect()));
        }
        Some(session) => return Some(session),
        None => {}
    }
    let mut reader = Reader { rest: text };
    let mut members: Vec<(String, Value)> = Vec::new();
    while !reader.rest.is_empty() {
        let name = std::str::from_utf8(reader.bytes_until(b'|')?).ok();
        let name = name.map(str::to_owned);
        let value = reader.value(MAX_DEPTH)?;
        members.extend(name.map(|name| (name, value)));
    }
    Some(Value::Object(members.into_iter().collect()))
}

fn value(text: &[u8]) -> Option<Value> {
    let mut reader = Reader { rest: text };
    let value = reader.value(MAX_DEPTH)?;
    reader.rest.is_empty().then_some(value)
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn value(&mut self, depth: usize) -> Option<Value> {
        if self.eat("N;") {
            return Some(Value::Null);
        }
        let [kind, b':', rest @ ..] = self.rest else {
            return None;
        };
        self.rest = rest;
        match kind {
            b'b' => match self.until(b';')? {
                "0" => Some(Value::Bool(false)),
                "1" => Some(Value::Bool(true)),
                _ => None,
            },
            b'i' => self.integer().map(|number| Value::Number(number.into())),
            b'd' => float(self.until(b';')?),
            b's' => Some(match std::str::from_utf8(self.string()?) {
                Ok(text) => Value::String(text.to_owned()),
                Err(_) => Value::Array(Vec::new()),
            }),
            b'a' => self.array(depth.checked_sub(1)?),
            b'O' => self.object(depth.checked_sub(1)?),
            b'C' => self.custom_object(),
            b'E' => self.string().map(|_| Value::Null),
            b'r' | b'R' => self.integer().map(|_| Value::Null),
            _ => None,
        }
    }

    fn eat(&mut self, prefix: &str) -> bool {
        match self.rest.strip_prefix(prefix.as_bytes()) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn bytes_until(&mut self, end: u8) -> Option<&'a [u8]> {
        let length = self.rest.iter().position(|&byte| byte == end)?;
        let (bytes, rest) = self.rest.split_at(length);
        self.rest = &rest[1..];
        Some(bytes)
    }

    fn until(&mut self, end: u8) -> Option<&'a str> {
        std::str::from_utf8(self.bytes_until(end)?).ok()
    }

    fn integer(&mut self) -> Option<i64> {
        self.number(b';')
    }

    fn length(&mut self) -> Option<usize> {
        self.number(b':')
    }

    fn number<N: FromStr + ToString>(&mut self, end: u8) -> Option<N> {
        let text = self.until(end)?;
        let number: N = text.parse().ok()?;
        // PHP writes each number in exactly one form.
        (number.to_string() == text).then_some(number)
    }

    fn string(&mut self) -> Option<&'a [u8]> {
        let bytes = self.quoted()?;
        self.eat(";").then_some(bytes)
    }

    fn quoted(&mut self) -> Option<&'a [u8]> {
        let length = self.length()?;
        let (bytes, rest) = self.rest.strip_prefix(b"\"")?.split_at_checked(length)?;
        self.rest = rest.strip_prefix(b"\"")?;
        Some(bytes)
    }

    /// Skips an object (its class name, then its properties), and returns null in its place.
    fn object(&mut self, depth: usize) -> Option<Value> {
        self.quoted()?;
        self.eat(":").then(|| self.array(depth)).flatten()?;
        Some(Value::Null)
    }

    /// Skips an object of a class that writes its own data (PHP's interface `Serializable`): its class name, then the
    /// data with its length. Returns null in its place.
    fn custom_object(&mut self) -> Option<Value> {
        self.quoted()?;
        self.eat(":").then_some(())?;
        let length = self.length()?;
        let (_, rest) = self.rest.strip_prefix(b"{")?.split_at_checked(length)?;
        self.rest = rest.strip_prefix(b"}")?;
        Some(Value::Null)
    }

    /// Reads an array after its `a:`, as described for the function [`array`]. The elements are read one by one. No
    /// memory is reserved in advance, because the count in the text may be far too high.
    fn array(&mut self, depth: usize) -> Option<Value> {
        let count = self.length()?;
        self.eat("{").then_some(())?;
        let mut members: Vec<(String, Value)> = Vec::new();
        let mut is_list = true;
        for index in 0..count {
            let name = if self.eat("i:") {
                let number = self.integer()?;
                is_list &= i64::try_from(index) == Ok(number);
                Some(number.to_string())
            } else if self.eat("s:") {
                is_list = false;
                std::str::from_utf8(self.string()?).ok().map(str::to_owned)
            } else {
                return None;
            };
            let value = self.value(depth)?;
            members.extend(name.map(|name| (name, value)));
        }
        self.eat("}").then_some(())?;
        let members = members.into_iter();
        Some(if is_list {
            Value::Array(members.map(|(_, value)| value).collect())
        } else {
            Value::Object(members.collect())
        })
    }
}

/// Numbers that JSON cannot represent are read as null, as in JavaScript's `JSON.stringify`.
fn float(text: &str) -> Option<Value> {
    if ["INF", "-INF", "NAN"].contains(&text) {
        return Some(Value::Null);
    }
    // Rust also parses words such as `infinity`, which PHP does not write.
    if !text
        .bytes()
        .all(|byte| byte.is_ascii_digit() || b"+-.eE".contains(&byte))
    {
        return None;
    }
    Some(Number::from_f64(text.parse().ok()?).map_or(Value::Null, Value::Number))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::reason::Reason;
    use crate::session::subject::{SubjectError, Template};
    use proptest::prelude::*;

    #[test]
    fn plain_php_data_is_parsed_into_json_values() {
        for (text, want) in [
            ("N;", "null"),
            ("b:1;", "true"),
            ("i:-42;", "-42"),
            ("i:9223372036854775807;", "9223372036854775807"),
            ("d:1.5;", "1.5"),
            ("d:1.0E+25;", "1e+25"),
            ("d:INF;", "null"),
            ("s:0:\"\";", r#""""#),
            ("s:3:\"é\"\";", r#""é\"""#),
            ("s:6:\"a\";s:1\";", r#""a\";s:1""#),
            ("a:0:{}", "[]"),
            ("a:2:{i:0;s:1:\"a\";i:1;N;}", r#"["a",null]"#),
            ("a:2:{i:1;i:1;i:0;i:0;}", r#"{"1":1,"0":0}"#),
            (
                "a:2:{i:0;s:1:\"a\";s:1:\"x\";b:1;}",
                r#"{"0":"a","x":true}"#,
            ),
            ("a:1:{s:1:\"a\";a:1:{s:2:\"id\";i:7;}}", r#"{"a":{"id":7}}"#),
        ] {
            let value = value(text.as_bytes()).unwrap_or_else(|| panic!("{text}"));
            assert_eq!(serde_json::to_string(&value).unwrap(), want, "{text}");
        }
    }

    #[test]
    fn session_from_either_php_handler_is_read_as_an_object() {
        for (text, want) in [
            ("a:1:{s:7:\"user_id\";i:7;}", r#"{"user_id":7}"#),
            ("a:0:{}", "{}"),
            ("a:1:{i:0;s:1:\"x\";}", r#"{"0":"x"}"#),
            ("a:1:{s:1:\"a\";s:7:\"b|i:1;c\";}", r#"{"a":"b|i:1;c"}"#),
            ("user_id|i:7;", r#"{"user_id":7}"#),
            (
                "user_id|s:2:\"42\";roles|a:1:{i:0;s:5:\"a|i:9\";}_token|N;",
                r#"{"user_id":"42","roles":["a|i:9"],"_token":null}"#,
            ),
            (
                "o|O:1:\"A\":1:{s:1:\"x\";i:1;}user_id|i:7;",
                r#"{"o":null,"user_id":7}"#,
            ),
            ("a|i:1;a|i:2;", "two"),
        ] {
            let value = session(text.as_bytes()).unwrap_or_else(|| panic!("{text}"));
            let json = serde_json::to_string(&value).unwrap_or_else(|_| "two".to_owned());
            assert_eq!(json, want, "{text}");
        }
    }

    #[test]
    fn malformed_session_is_refused() {
        for text in [
            "user_id",
            "user_id|",
            "user_id|i:7",
            "user_id|i:7;x",
            "user_id|i:7;x|",
            "user_id|i:7;;",
            "|i:7;\0",
            "!user_id|",
            "a:1:{s:7:\"user_id\";i:7;",
            "a:1:{s:7:\"user_id\";i:7;}x",
            "i:7;",
            "s:1:\"a\";",
            r#"{"user_id":7}"#,
            "\x00\x00\x00\x02\x14\x01",
        ] {
            assert_eq!(session(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn serialized_php_object_is_read_as_null() {
        for (text, want) in [
            ("O:8:\"stdClass\":0:{}", "null"),
            ("O:8:\"stdClass\":1:{s:2:\"id\";i:7;}", "null"),
            (
                "a:2:{s:1:\"o\";O:1:\"A\":1:{s:4:\"\0*\0p\";O:1:\"B\":0:{}}s:2:\"id\";i:7;}",
                r#"{"o":null,"id":7}"#,
            ),
            (
                "a:2:{s:1:\"o\";C:1:\"A\":9:{i:1;}{x};}s:2:\"id\";i:7;}",
                r#"{"o":null,"id":7}"#,
            ),
            ("C:1:\"A\":0:{}", "null"),
            ("a:1:{i:0;E:11:\"Suit:Hearts\";}", "[null]"),
            ("a:2:{i:0;i:0;i:1;R:2;}", "[0,null]"),
            ("a:2:{i:0;i:0;i:1;r:2;}", "[0,null]"),
        ] {
            let value = value(text.as_bytes()).unwrap_or_else(|| panic!("{text}"));
            assert_eq!(serde_json::to_string(&value).unwrap(), want, "{text}");
        }
    }

    #[test]
    fn malformed_serialized_value_is_refused() {
        for text in [
            "",
            "N",
            "N;N;",
            "b:2;",
            "b:;",
            "i:;",
            "i:+1;",
            "i:01;",
            "i:-0;",
            "i:1.5;",
            "i:9223372036854775808;",
            "d:inf;",
            "d:infinity;",
            "d:;",
            "s:1:\"\";",
            "s:2:\"a\";",
            "s:1:\"é\";",
            "s:01:\"a\";",
            "s:-1:\"\";",
            "s:99999999999999999999:\"a\";",
            "s:1:'a';",
            "S:1:\"a\";",
            "a:1:{}",
            "a:99999999:{i:0;i:0;}",
            "a:0:{i:0;i:0;}",
            "a:1:{N;i:0;}",
            "a:1:{b:1;i:0;}",
            "a:1:{i:0;i:0;",
            "O:8:\"stdClass\":1:{}",
            "O:9:\"stdClass\":0:{}",
            "O:8:\"stdClass\"0:{}",
            "O:8:\"stdClass\":0:{",
            "E:99:\"Suit\";",
            "R:x;",
            "C:10:\"ArrayObject\":0:{}",
            "C:11:\"ArrayObject\":1:{}",
            "C:11:\"ArrayObject\":0:{",
            "C:11:\"ArrayObject\":{}",
            "C:11:\"ArrayObject\":-1:{}",
        ] {
            assert_eq!(value(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn non_utf8_string_is_read_as_an_empty_list_and_non_utf8_key_is_left_out() {
        for (text, want) in [
            (
                &b"a:2:{s:4:\"name\";s:4:\"Zo\xeb\xff\";s:2:\"id\";i:7;}"[..],
                r#"{"name":[],"id":7}"#,
            ),
            (
                b"a:1:{s:4:\"name\";s:1:\"\xc3\xa9\";}",
                "refused: a length that ends inside a character",
            ),
            (b"a:1:{s:4:\"name\";s:1:\"\xc3\";}", r#"{"name":[]}"#),
            (b"a:2:{s:1:\"\xff\";i:1;s:2:\"id\";i:7;}", r#"{"id":7}"#),
            (b"a:1:{s:1:\"\xff\";i:1;}", "{}"),
            (b"a:2:{i:0;s:1:\"\xff\";i:1;s:1:\"a\";}", r#"[[],"a"]"#),
            (
                b"a:2:{s:1:\"o\";O:2:\"\xff\xfe\":1:{s:1:\"\xff\";N;}s:2:\"id\";i:7;}",
                r#"{"o":null,"id":7}"#,
            ),
            (b"a:1:{i:0;i:\xff;}", "refused"),
            (b"\xff", "refused"),
        ] {
            let read = array(text).map(|value| serde_json::to_string(&value).unwrap());
            let want = Some(want).filter(|want| !want.starts_with("refused"));
            assert_eq!(read.as_deref(), want, "{}", text.escape_ascii());
        }
        assert_eq!(string(b"s:2:\"\xff\"\";"), Some(&b"\xff\""[..]));
        for text in [
            &b"s:2:\"\xff\";"[..],
            b"s:1:\"a\";s:1:\"a\";",
            b"a:0:{}",
            b"N;",
            b"",
        ] {
            assert_eq!(string(text), None, "{}", text.escape_ascii());
        }
        for text in [&b"s:1:\"\xff\";"[..], b"N;", b"i:1;", b"a:0:{}N;"] {
            assert_eq!(array(text), None, "{}", text.escape_ascii());
        }
    }

    #[test]
    fn non_utf8_string_is_refused_as_a_subject() {
        let session = array(b"a:1:{s:2:\"id\";s:2:\"7\xff\";}").unwrap();
        for template in ["{id}", "user-{id}"] {
            let subject = template.parse::<Template>().unwrap().subject(&session);
            assert_eq!(
                subject,
                Err(SubjectError::Invalid(Reason::SubjectType)),
                "{template}"
            );
        }
    }

    #[test]
    fn nesting_deeper_than_the_maximum_is_refused() {
        let nested = |depth: usize| "a:1:{i:0;".repeat(depth) + "N;" + &"}".repeat(depth);
        assert!(value(nested(MAX_DEPTH).as_bytes()).is_some());
        assert_eq!(value(nested(MAX_DEPTH + 1).as_bytes()), None);
        assert_eq!(value("O:1:\"A\":1:{i:0;".repeat(100_000).as_bytes()), None);
        assert_eq!(value("a:1:{i:0;".repeat(100_000).as_bytes()), None);
    }

    #[test]
    fn string_key_equal_to_an_integer_key_is_a_duplicate_member() {
        let Some(Value::Object(object)) = value(b"a:2:{s:1:\"5\";i:1;i:5;i:2;}") else {
            panic!("an object")
        };
        assert!(object.get("5").is_err());
    }

    /// The output of PHP's `serialize()` for a value. The keys of a list are its indices.
    fn serialize(value: &Value) -> String {
        let array = |members: &[(String, &Value)]| {
            let body: String = members
                .iter()
                .map(|(key, value)| format!("{key}{}", serialize(value)))
                .collect();
            format!("a:{}:{{{body}}}", members.len())
        };
        match value {
            Value::Null => "N;".to_owned(),
            Value::Bool(flag) => format!("b:{};", u8::from(*flag)),
            Value::Number(number) => format!("i:{number};"),
            Value::String(text) => format!("s:{}:\"{text}\";", text.len()),
            Value::Array(items) => {
                let members: Vec<_> = items
                    .iter()
                    .enumerate()
                    .map(|(index, item)| (format!("i:{index};"), item))
                    .collect();
                array(&members)
            }
            Value::Object(object) => {
                let members: Vec<_> = object.clone().into_iter().collect();
                let members: Vec<_> = members
                    .iter()
                    .map(|(name, value)| (serialize(&Value::String(name.clone())), value))
                    .collect();
                array(&members)
            }
        }
    }

    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::Bool),
            any::<i64>().prop_map(|number| Value::Number(number.into())),
            "[a-z\";:{}é\0]{0,8}".prop_map(Value::String),
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
                prop::collection::vec(("[a-z\"{}]{1,6}", inner), 1..4)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn serialized_value_is_parsed_back_unchanged(value in values()) {
            prop_assert_eq!(super::value(serialize(&value).as_bytes()), Some(value));
        }

        #[test]
        fn string_of_any_bytes_does_not_change_the_values_after_it(bytes: Vec<u8>, id: i64) {
            let text = [
                format!("a:2:{{s:1:\"x\";s:{}:\"", bytes.len()).as_bytes(),
                &bytes,
                format!("\";s:2:\"id\";i:{id};}}").as_bytes(),
            ]
            .concat();
            let Some(Value::Object(session)) = array(&text) else { panic!("a session") };
            prop_assert_eq!(session.get("id"), Ok(Some(&Value::Number(id.into()))));
            let text = session.get("x").unwrap().unwrap().as_str();
            prop_assert_eq!(text, std::str::from_utf8(&bytes).ok());
        }

        #[test]
        fn random_text_similar_to_serialized_data_does_not_cause_a_panic(
            text in "([aOsiEbdNRr]:|[0-9]{1,3}|[;:{}\"]|é|x){0,40}"
        ) {
            drop(super::value(text.as_bytes()));
        }
    }
}
