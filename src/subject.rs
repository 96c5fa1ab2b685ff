//! Who a token is for: the template over a session's attributes, and what may stand in `sub`.
//! Which session is genuine is not decided here.

use std::fmt;
use std::str::FromStr;

use crate::value::{DuplicateMember, Object, Value};

/// The longest subject, in bytes of UTF-8.
pub const MAX_BYTES: usize = 256;

/// A subject that passed the hygiene rules. Compared and minted byte for byte, never normalised.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Subject(String);

/// Why no subject came out of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubjectError {
    /// The member is absent or null: a session in which nobody is signed in.
    Absent,
    /// Something is there that must not name anybody; the word is for logs.
    Invalid(&'static str),
}

impl Subject {
    /// Accepts 1 to [`MAX_BYTES`] bytes that are not blank and hold no control, bidirectional or
    /// zero-width character: such text can look like another user's id to whoever reads it.
    pub fn new(text: impl Into<String>) -> Result<Self, SubjectError> {
        let text = text.into();
        let fault = if text.trim().is_empty() {
            "subject_blank"
        } else if text.len() > MAX_BYTES {
            "subject_too_long"
        } else if has_deceptive(&text) {
            "subject_characters"
        } else {
            return Ok(Self(text));
        };
        Err(SubjectError::Invalid(fault))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether the text holds a character that is not seen. The joiner between two emoji is seen: it makes
/// one picture of them.
fn has_deceptive(text: &str) -> bool {
    let mut before = '\0';
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        let joins =
            c == '\u{200d}' && is_pictographic(before) && rest.clone().next().is_some_and(is_pictographic);
        if is_deceptive(c) && !joins {
            return true;
        }
        before = c;
    }
    false
}

/// Symbols and emoji, with the selectors and skin tones that may follow them.
fn is_pictographic(c: char) -> bool {
    matches!(c, '\u{2190}'..='\u{2bff}' | '\u{fe0f}' | '\u{1f000}'..='\u{1faff}')
}

fn is_deceptive(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{2800}' | '\u{3164}' | '\u{feff}' | '\u{ffa0}'
            | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
}

/// Text with placeholders over a session: `{sub}`, `{user.id}`, `org:{org_id}`,
/// `{/https:~1~1app~1org}` (a JSON Pointer, RFC 6901, for names with dots), `{}` (the whole session).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Literal(String),
    /// The names to follow from the session's root; none of them is the session itself.
    Placeholder(Vec<String>),
}

impl Template {
    /// The subject that the session names. The number 0 is nobody: it is what programs write where they
    /// have a number but no user.
    pub fn subject(&self, session: &Value) -> Result<Subject, SubjectError> {
        for part in &self.0 {
            if let Part::Placeholder(path) = part
                && let Some(Value::Number(number)) = lookup(session, path)?
                && number.as_u64() == Some(0)
            {
                return Err(SubjectError::Absent);
            }
        }
        Subject::new(self.text(session)?)
    }

    /// The template filled in.
    pub fn text(&self, session: &Value) -> Result<String, SubjectError> {
        let mut text = String::new();
        for part in &self.0 {
            match part {
                Part::Literal(literal) => text.push_str(literal),
                Part::Placeholder(path) => match lookup(session, path)? {
                    None | Some(Value::Null) => return Err(SubjectError::Absent),
                    Some(Value::String(value)) if value.is_empty() => {
                        return Err(SubjectError::Invalid("subject_blank"));
                    }
                    Some(Value::String(value)) => text.push_str(value),
                    // A float is refused: 1.0, 1e0 and 1 would be three spellings of one user.
                    Some(Value::Number(number)) if !number.is_f64() => {
                        text.push_str(&number.to_string());
                    }
                    Some(Value::Number(_) | Value::Bool(_) | Value::Array(_) | Value::Object(_)) => {
                        return Err(SubjectError::Invalid("subject_type"));
                    }
                },
            }
        }
        Ok(text)
    }

    /// The value itself, of whatever type, if the template is one placeholder and nothing else;
    /// otherwise the text. `None` if the session lacks it.
    pub fn value(&self, session: &Value) -> Result<Option<Value>, SubjectError> {
        match self.0.as_slice() {
            [Part::Placeholder(path)] => Ok(lookup(session, path)?.cloned()),
            _ => match self.text(session) {
                Ok(text) => Ok(Some(Value::String(text))),
                Err(SubjectError::Absent) => Ok(None),
                Err(invalid) => Err(invalid),
            },
        }
    }
}

/// The value at `path`; `None` if there is none.
pub(crate) fn lookup<'a>(session: &'a Value, path: &[String]) -> Result<Option<&'a Value>, SubjectError> {
    let mut here = session;
    for name in path {
        let next = match here {
            Value::Object(object) => member(object, name)?,
            Value::Array(items) => name.parse::<usize>().ok().and_then(|index| items.get(index)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
        };
        match next {
            Some(value) => here = value,
            None => return Ok(None),
        }
    }
    Ok(Some(here))
}

fn member<'a>(object: &'a Object, name: &str) -> Result<Option<&'a Value>, SubjectError> {
    object.get(name).map_err(|DuplicateMember| SubjectError::Invalid("duplicate_member"))
}

impl FromStr for Template {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut parts = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let (literal, tail) = rest.split_once('{').map_or((rest, None), |(l, t)| (l, Some(t)));
            if literal.contains('}') {
                return Err("a `}` without its `{`");
            }
            if !literal.is_empty() {
                parts.push(Part::Literal(literal.to_owned()));
            }
            let Some(tail) = tail else { break };
            let (path, after) = tail.split_once('}').ok_or("a `{` without its `}`")?;
            parts.push(Part::Placeholder(parse_path(path)?));
            rest = after;
        }
        Ok(Self(parts))
    }
}

impl Template {
    /// Whether the template takes anything from the session.
    pub fn has_placeholder(&self) -> bool {
        self.0.iter().any(|part| matches!(part, Part::Placeholder(_)))
    }
}

/// The names of a dotted path or a JSON Pointer; none for an empty path.
pub(crate) fn parse_path(path: &str) -> Result<Vec<String>, &'static str> {
    if path.contains('{') {
        return Err("a `{` inside a placeholder");
    }
    if path.is_empty() {
        return Ok(Vec::new());
    }
    match path.strip_prefix('/') {
        Some(pointer) => {
            Ok(pointer.split('/').map(|name| name.replace("~1", "/").replace("~0", "~")).collect())
        }
        None if path.split('.').any(str::is_empty) => Err("an empty name between dots in a placeholder"),
        None => Ok(path.split('.').map(str::to_owned).collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject(template: &str, session: &str) -> Result<String, SubjectError> {
        let template: Template = template.parse().expect("a good template");
        let session = Value::parse(session.as_bytes()).expect("good JSON");
        template.subject(&session).map(|subject| subject.to_string())
    }

    #[test]
    fn placeholders_are_filled_from_the_session() {
        for (template, session, want) in [
            ("{sub}", r#"{"sub":"u-1"}"#, "u-1"),
            ("{user.id}", r#"{"user":{"id":7}}"#, "7"),
            ("org:{org_id}", r#"{"org_id":9007199254740993}"#, "org:9007199254740993"),
            ("{/https:~1~1app~1org}", r#"{"https://app/org":"o"}"#, "o"),
            ("{/a~01}", r#"{"a~1":"tilde"}"#, "tilde"),
            ("{key.0.0}", r#"{"key":[["x"]]}"#, "x"),
            ("{}", r#""whole""#, "whole"),
            ("{a}/{b}", r#"{"a":"1","b":"2"}"#, "1/2"),
            ("{sub}", r#"{"sub":"__proto__"}"#, "__proto__"),
            ("{sub}", r#"{"sub":"\ud83d\udc69\u200d\ud83d\ude80"}"#, "\u{1f469}\u{200d}\u{1f680}"),
            ("{sub}", r#"{"other":1,"other":2,"sub":"u"}"#, "u"),
        ] {
            assert_eq!(subject(template, session).as_deref(), Ok(want), "{template} {session}");
        }
    }

    #[test]
    fn nobody_signed_in_is_absent_and_everything_else_is_invalid() {
        for session in ["{}", r#"{"sub":null}"#, r#"{"sub":0}"#, "[]", "null", "7", r#""text""#] {
            assert_eq!(subject("{sub}", session), Err(SubjectError::Absent), "{session}");
        }
        let long = format!(r#"{{"sub":"{}"}}"#, "x".repeat(MAX_BYTES + 1));
        for session in [
            r#"{"sub":""}"#,
            r#"{"sub":" \t"}"#,
            r#"{"sub":true}"#,
            r#"{"sub":[]}"#,
            r#"{"sub":{}}"#,
            r#"{"sub":1.0}"#,
            r#"{"sub":1e0}"#,
            r#"{"sub":-0}"#,
            r#"{"sub":18446744073709551616}"#,
            r#"{"sub":"a\u0000"}"#,
            r#"{"sub":"a\u0085"}"#,
            r#"{"sub":"a\u202eb"}"#,
            r#"{"sub":"a\u200bb"}"#,
            r#"{"sub":"a\u200db"}"#,
            r#"{"sub":"\ud83d\udc69\u200d"}"#,
            r#"{"sub":"a\ufeff"}"#,
            r#"{"sub":"a\u00adb"}"#,
            r#"{"sub":"a\u2800"}"#,
            r#"{"sub":"a\udb40\udc61"}"#,
            r#"{"sub":"a","sub":"a"}"#,
            &long,
        ] {
            let outcome = subject("{sub}", session);
            assert!(matches!(outcome, Err(SubjectError::Invalid(_))), "{session}: {outcome:?}");
        }
    }

    #[test]
    fn a_bad_template_says_what_is_wrong() {
        for template in ["{sub", "sub}", "{a{b}}", "{a..b}", "{.a}"] {
            assert!(template.parse::<Template>().is_err(), "{template}");
        }
    }
}
