//! The subject of a token: a template that is filled from the session's attributes, and the checks of the result. An
//! extractor has already validated the session.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use crate::json::{DuplicateMember, Value};
use crate::session::reason::Reason;

/// The maximum length of a subject, in bytes of UTF-8.
pub const MAX_BYTES: usize = 256;

/// A valid subject. It is compared and written into tokens byte for byte, without normalisation.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Subject(String);

/// Why a session has no usable subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubjectError {
    /// A member that the template reads is absent, null or 0: the session has no signed-in user.
    Absent,
    /// The value is not allowed as a subject.
    Invalid(Reason),
}

impl Subject {
    /// Accepts 1 to [`MAX_BYTES`] bytes that are not all white space and contain no invisible character, such as a
    /// control, bidirectional or zero-width character, which could make a subject look like another user's id.
    pub fn new(text: impl Into<String>) -> Result<Self, SubjectError> {
        let text = text.into();
        let reason = if text.trim().is_empty() {
            Reason::SubjectBlank
        } else if text.len() > MAX_BYTES {
            Reason::SubjectTooLong
        } else if has_invisible(&text) {
            Reason::SubjectCharacters
        } else {
            return Ok(Self(text));
        };
        Err(SubjectError::Invalid(reason))
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

/// Whether the text contains an invisible character. The zero-width joiner between two emoji is allowed: it is
/// visible, because it combines them into one picture.
fn has_invisible(text: &str) -> bool {
    let mut before = '\0';
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        let joins = c == '\u{200d}'
            && is_pictographic(before)
            && rest.clone().next().is_some_and(is_pictographic);
        if is_invisible(c) && !joins {
            return true;
        }
        before = c;
    }
    false
}

/// Whether the character is a symbol or an emoji, or a variation selector or skin tone that may follow one.
fn is_pictographic(c: char) -> bool {
    matches!(c, '\u{2190}'..='\u{2bff}' | '\u{fe0f}' | '\u{1f000}'..='\u{1faff}')
}

fn is_invisible(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{2800}' | '\u{3164}' | '\u{feff}' | '\u{ffa0}'
            | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
}

/// Text with placeholders that are filled from a session: `{sub}`, `{user.id}`, `org:{org_id}`,
/// `{/https:~1~1app~1org}` (a JSON Pointer, RFC 6901, for names with dots), `{}` (the whole session).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Literal(String),
    /// The member names on the path from the session's root to the value; empty for the session itself.
    Placeholder(Vec<String>),
}

impl Template {
    /// The subject that the session names. The number 0 is treated as absent, because apps whose user ids are integers
    /// write 0 for "no user".
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

    /// The placeholders whose value in the session is absent, null or 0, or cannot be found because a member occurs
    /// twice.
    pub fn absent(&self, session: &Value) -> Vec<String> {
        let is_absent = |path: &&[String]| match lookup(session, path).ok().flatten() {
            None | Some(Value::Null) => true,
            Some(Value::Number(number)) => number.as_u64() == Some(0),
            Some(_) => false,
        };
        let absent = self.placeholders().filter(is_absent);
        absent.map(placeholder).collect()
    }

    /// The template with its placeholders replaced by the session's values; an error if one of these is absent, or
    /// cannot be part of a subject.
    pub fn text(&self, session: &Value) -> Result<String, SubjectError> {
        let mut text = String::new();
        for part in &self.0 {
            match part {
                Part::Literal(literal) => text.push_str(literal),
                Part::Placeholder(path) => text.push_str(&value_text(session, path)?),
            }
        }
        Ok(text)
    }

    /// Refuses values that make the subject ambiguous. With `{a}-{b}`, `a` = `x-y` and `b` = `z` would give the same
    /// subject as `a` = `x` and `b` = `y-z`. The subject is unambiguous if no value but the last contains the first
    /// character of the literal after it, because that character then marks the end of the value.
    fn check_unambiguous(&self, session: &Value) -> Result<(), SubjectError> {
        for parts in self.0.windows(3) {
            if let [
                Part::Placeholder(path),
                Part::Literal(literal),
                Part::Placeholder(_),
            ] = parts
                && value_text(session, path)?.contains(|c| literal.starts_with(c))
            {
                return Err(SubjectError::Invalid(Reason::SubjectAmbiguous));
            }
        }
        Ok(())
    }

    /// The literal before the first placeholder.
    fn prefix(&self) -> &str {
        match self.0.first() {
            Some(Part::Literal(literal)) => literal,
            _ => "",
        }
    }

    /// Whether the session has no member for one of the placeholders. A member that is null or 0 is not absent.
    pub fn is_absent_from(&self, session: &Value) -> bool {
        self.placeholders()
            .any(|path| matches!(lookup(session, path), Ok(None)))
    }

    /// Whether the placeholders read only these top-level members of the session.
    pub fn reads_only(&self, names: &[&str]) -> bool {
        self.placeholders()
            .all(|path| matches!(path, [name] if names.contains(&name.as_str())))
    }

    fn placeholders(&self) -> impl Iterator<Item = &[String]> {
        self.0.iter().filter_map(|part| match part {
            Part::Placeholder(path) => Some(path.as_slice()),
            Part::Literal(_) => None,
        })
    }

    /// The value with its JSON type if the template is a single placeholder, otherwise the filled template as a string.
    /// `None` if the session has no such value.
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

/// How the subject is formed from a section's sessions: a template, and checks of its values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubjectRule {
    pub template: Template,
    /// How the session shows that an e-mail address in the subject is verified; `None` disables the check.
    pub email: Option<VerifiedEmail>,
    /// Whether values that make the subject ambiguous are accepted.
    pub allow_ambiguous: bool,
}

/// How a session shows that its `email` was verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VerifiedEmail {
    /// The sibling member `email_verified` (`OpenID` Connect Core, section 5.1); some providers write the string
    /// `"true"`.
    Oidc,
    /// The sibling member `emailVerified` of Better Auth.
    BetterAuth,
}

impl SubjectRule {
    /// The subject that the session names.
    ///
    /// # Errors
    /// If the session has no subject, or a value fails a check.
    pub fn subject(&self, session: &Value) -> Result<Subject, SubjectError> {
        let subject = self.template.subject(session)?;
        if let Some(email) = self.email {
            email.check(&self.template, session)?;
        }
        if !self.allow_ambiguous {
            self.template.check_unambiguous(session)?;
        }
        Ok(subject)
    }

    /// Whether this rule and `other` could form the same subject, which is the case if one rule's literal prefix starts
    /// with the other's.
    pub fn may_equal(&self, other: &Self) -> bool {
        let (one, other) = (self.template.prefix(), other.template.prefix());
        one.starts_with(other) || other.starts_with(one)
    }
}

impl VerifiedEmail {
    fn check(self, template: &Template, session: &Value) -> Result<(), SubjectError> {
        let (name, text_counts) = match self {
            Self::Oidc => ("email_verified", true),
            Self::BetterAuth => ("emailVerified", false),
        };
        let paths = template.placeholders().filter_map(|path| path.split_last());
        for (_, parents) in paths.filter(|(last, _)| *last == "email") {
            let sibling = [parents, &[name.to_owned()]].concat();
            match lookup(session, &sibling)? {
                Some(Value::Bool(true)) => {}
                Some(Value::String(text)) if text_counts && text == "true" => {}
                _ => return Err(SubjectError::Invalid(Reason::EmailUnverified)),
            }
        }
        Ok(())
    }
}

/// The value of a placeholder, as a string.
fn value_text<'a>(session: &'a Value, path: &[String]) -> Result<Cow<'a, str>, SubjectError> {
    match lookup(session, path)? {
        None | Some(Value::Null) => Err(SubjectError::Absent),
        Some(Value::String(value)) if value.is_empty() => {
            Err(SubjectError::Invalid(Reason::SubjectBlank))
        }
        Some(Value::String(value)) => Ok(Cow::Borrowed(value)),
        // A float is refused, because 1.0 and 1 would be two different subjects for the same user.
        Some(Value::Number(number)) if !number.is_f64() => Ok(Cow::Owned(number.to_string())),
        Some(Value::Number(_) | Value::Bool(_) | Value::Array(_) | Value::Object(_)) => {
            Err(SubjectError::Invalid(Reason::SubjectType))
        }
    }
}

/// The value at `path`; `None` if there is none.
pub(crate) fn lookup<'a>(
    session: &'a Value,
    path: &[String],
) -> Result<Option<&'a Value>, SubjectError> {
    let mut here = session;
    for name in path {
        let next = match here {
            Value::Object(object) => object
                .get(name)
                .map_err(|DuplicateMember| SubjectError::Invalid(Reason::DuplicateMember))?,
            Value::Array(items) => name.parse().ok().and_then(|index: usize| items.get(index)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
        };
        match next {
            Some(value) => here = value,
            None => return Ok(None),
        }
    }
    Ok(Some(here))
}

impl FromStr for Template {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut parts = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let (literal, tail) = rest
                .split_once('{')
                .map_or((rest, None), |(l, t)| (l, Some(t)));
            if literal.contains('}') {
                return Err("has a `}` without a `{`");
            }
            if !literal.is_empty() {
                parts.push(Part::Literal(literal.to_owned()));
            }
            let Some(tail) = tail else { break };
            let (path, after) = tail.split_once('}').ok_or("has a `{` without a `}`")?;
            parts.push(Part::Placeholder(parse_path(path)?));
            rest = after;
        }
        Ok(Self(parts))
    }
}

impl Template {
    /// Whether the template has a placeholder.
    pub fn has_placeholder(&self) -> bool {
        self.placeholders().next().is_some()
    }

    /// Whether two placeholders have no text between them. The end of the first value would then be ambiguous.
    pub fn has_adjacent_placeholders(&self) -> bool {
        self.0
            .windows(2)
            .any(|pair| matches!(pair, [Part::Placeholder(_), Part::Placeholder(_)]))
    }

    /// Whether a placeholder reads the session's member `name` or a value below it.
    pub fn reads_below(&self, name: &str) -> bool {
        self.placeholders()
            .any(|path| path.first().is_some_and(|first| first == name))
    }
}

/// The template as it is written in a configuration.
impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|part| match part {
            Part::Literal(literal) => f.write_str(literal),
            Part::Placeholder(path) => f.write_str(&placeholder(path)),
        })
    }
}

/// The placeholder for a path: dotted, or a JSON Pointer if a name contains characters that the dotted form does not
/// allow.
pub(crate) fn placeholder(path: &[String]) -> String {
    let is_plain = path
        .iter()
        .all(|name| !name.is_empty() && !name.contains(['.', '{', '}', '/', '~']));
    if is_plain {
        format!("{{{}}}", path.join("."))
    } else {
        let escaped: Vec<String> = path
            .iter()
            .map(|name| name.replace('~', "~0").replace('/', "~1"))
            .collect();
        format!("{{/{}}}", escaped.join("/"))
    }
}

/// The member names of a dotted path or a JSON Pointer; empty for an empty path.
pub(crate) fn parse_path(path: &str) -> Result<Vec<String>, &'static str> {
    if path.contains('{') {
        return Err("has a `{` inside a placeholder");
    }
    if path.is_empty() {
        return Ok(Vec::new());
    }
    match path.strip_prefix('/') {
        Some(pointer) => Ok(pointer
            .split('/')
            .map(|name| name.replace("~1", "/").replace("~0", "~"))
            .collect()),
        None if path.split('.').any(str::is_empty) => {
            Err("has a placeholder with an empty name before or after a dot")
        }
        None => Ok(path.split('.').map(str::to_owned).collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject(template: &str, session: &str) -> Result<String, SubjectError> {
        let template: Template = template.parse().expect("a good template");
        let session = Value::parse(session.as_bytes()).expect("good JSON");
        template
            .subject(&session)
            .map(|subject| subject.to_string())
    }

    #[test]
    fn placeholders_are_filled_from_the_session() {
        for (template, session, want) in [
            ("{sub}", r#"{"sub":"u-1"}"#, "u-1"),
            ("{user.id}", r#"{"user":{"id":7}}"#, "7"),
            (
                "org:{org_id}",
                r#"{"org_id":9007199254740993}"#,
                "org:9007199254740993",
            ),
            ("{/https:~1~1app~1org}", r#"{"https://app/org":"o"}"#, "o"),
            ("{/a~01}", r#"{"a~1":"tilde"}"#, "tilde"),
            ("{key.0.0}", r#"{"key":[["x"]]}"#, "x"),
            ("{}", r#""whole""#, "whole"),
            ("{a}/{b}", r#"{"a":"1","b":"2"}"#, "1/2"),
            ("{sub}", r#"{"sub":"__proto__"}"#, "__proto__"),
            (
                "{sub}",
                r#"{"sub":"\ud83d\udc69\u200d\ud83d\ude80"}"#,
                "\u{1f469}\u{200d}\u{1f680}",
            ),
            ("{sub}", r#"{"other":1,"other":2,"sub":"u"}"#, "u"),
        ] {
            assert_eq!(
                subject(template, session).as_deref(),
                Ok(want),
                "{template} {session}"
            );
        }
    }

    fn ruled(
        template: &str,
        email: Option<VerifiedEmail>,
        allow_ambiguous: bool,
        session: &str,
    ) -> Result<String, SubjectError> {
        let rule = SubjectRule {
            template: template.parse().expect("a good template"),
            email,
            allow_ambiguous,
        };
        let session = Value::parse(session.as_bytes()).expect("good JSON");
        rule.subject(&session).map(|subject| subject.to_string())
    }

    #[test]
    fn verified_email_is_accepted_as_the_subject_and_an_unverified_one_is_refused() {
        use VerifiedEmail::{BetterAuth, Oidc};
        let unverified = Err(SubjectError::Invalid(Reason::EmailUnverified));
        let oidc = [
            ("{email}", r#"{"email":"a@b","email_verified":true}"#, true),
            (
                "{email}",
                r#"{"email":"a@b","email_verified":"true"}"#,
                true,
            ),
            (
                "{email}",
                r#"{"email":"a@b","email_verified":false}"#,
                false,
            ),
            (
                "{email}",
                r#"{"email":"a@b","email_verified":"false"}"#,
                false,
            ),
            ("{email}", r#"{"email":"a@b","email_verified":1}"#, false),
            ("{email}", r#"{"email":"a@b"}"#, false),
            (
                "{user.email}",
                r#"{"user":{"email":"a@b"},"email_verified":true}"#,
                false,
            ),
            (
                "{/user/email}",
                r#"{"user":{"email":"a@b","email_verified":true}}"#,
                true,
            ),
            (
                "{/https:~1~1a~1email}",
                r#"{"https://a/email":"a@b"}"#,
                true,
            ),
            ("{email}", r#"{"email":"a@b","emailVerified":true}"#, false),
        ];
        let better_auth = [
            (
                "{user.email}",
                r#"{"user":{"email":"a@b","emailVerified":true}}"#,
                true,
            ),
            (
                "{user.email}",
                r#"{"user":{"email":"a@b","emailVerified":"true"}}"#,
                false,
            ),
            (
                "{user.email}",
                r#"{"user":{"email":"a@b","email_verified":true}}"#,
                false,
            ),
        ];
        let oidc = oidc.map(|case| (Oidc, case));
        let better_auth = better_auth.map(|case| (BetterAuth, case));
        for (email, (template, session, verified)) in oidc.into_iter().chain(better_auth) {
            let want = if verified {
                Ok("a@b".to_owned())
            } else {
                unverified.clone()
            };
            assert_eq!(
                ruled(template, Some(email), false, session),
                want,
                "{template} {session}"
            );
            assert_eq!(
                ruled(template, None, false, session).as_deref(),
                Ok("a@b"),
                "not checked: {session}"
            );
        }
        let twice = r#"{"email":"a@b","email_verified":true,"email_verified":false}"#;
        assert_eq!(
            ruled("{email}", Some(Oidc), false, twice),
            Err(SubjectError::Invalid(Reason::DuplicateMember))
        );
        assert_eq!(
            ruled("{email}", Some(Oidc), false, "{}"),
            Err(SubjectError::Absent)
        );
    }

    #[test]
    fn value_that_contains_the_separator_is_subject_ambiguous_unless_it_is_last() {
        let ambiguous = SubjectError::Invalid(Reason::SubjectAmbiguous);
        for (template, session, want) in [
            ("{a}-{b}", r#"{"a":"x","b":"y-z"}"#, Some("x-y-z")),
            ("{a}-{b}", r#"{"a":"x-y","b":"z"}"#, None),
            ("{a}-{b}", r#"{"a":-1,"b":2}"#, None),
            ("{a}::{b}", r#"{"a":"x:","b":"y"}"#, None),
            (
                "{a}:{b}/{c}",
                r#"{"a":"x/y","b":"z","c":"w:/"}"#,
                Some("x/y:z/w:/"),
            ),
            ("{a}:{b}/{c}", r#"{"a":"x","b":"y/z","c":"w"}"#, None),
            ("u-{a}-s", r#"{"a":"x-y"}"#, Some("u-x-y-s")),
        ] {
            let want = want.map(str::to_owned).ok_or(ambiguous);
            assert_eq!(
                ruled(template, None, false, session),
                want,
                "{template} {session}"
            );
            assert!(
                ruled(template, None, true, session).is_ok(),
                "allow_ambiguous: {template} {session}"
            );
        }
    }

    #[test]
    fn subjects_of_two_rules_may_be_equal_if_one_literal_prefix_starts_with_the_other() {
        let rule = |text: &str| SubjectRule {
            template: text.parse().expect("a good template"),
            email: None,
            allow_ambiguous: false,
        };
        for (one, other, may_equal) in [
            ("{sub}", "{user_id}", true),
            ("a:{sub}", "{sub}", true),
            ("a:{sub}", "a:b:{sub}", true),
            ("a:{sub}", "b:{sub}", false),
            ("{sub}:a", "{sub}:b", true),
        ] {
            assert_eq!(
                rule(one).may_equal(&rule(other)),
                may_equal,
                "{one} {other}"
            );
            assert_eq!(
                rule(other).may_equal(&rule(one)),
                may_equal,
                "{other} {one}"
            );
        }
    }

    #[test]
    fn missing_subject_is_absent_and_unusable_subject_is_invalid() {
        for session in [
            "{}",
            r#"{"sub":null}"#,
            r#"{"sub":0}"#,
            "[]",
            "null",
            "7",
            r#""text""#,
        ] {
            assert_eq!(
                subject("{sub}", session),
                Err(SubjectError::Absent),
                "{session}"
            );
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
            assert!(
                matches!(outcome, Err(SubjectError::Invalid(_))),
                "{session}: {outcome:?}"
            );
        }
    }

    #[test]
    fn malformed_template_is_refused() {
        for template in ["{sub", "sub}", "{a{b}}", "{a..b}", "{.a}"] {
            assert!(template.parse::<Template>().is_err(), "{template}");
        }
    }
}
