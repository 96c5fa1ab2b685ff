//! Claim rules: `claims` and `header_claims` of `jwt`, `claims` of `introspection`, and `required_scopes` of both.
//! The extractors check the registered claims (`exp`, `iss`, `aud`) themselves.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use serde::de::value::SeqAccessDeserializer;
use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::{Serialize, Serializer};

use crate::json::{DuplicateMember, Object, Value};
use crate::session::formats::glob::matches_glob;
use crate::session::formats::shown::{listed, shown};
use crate::session::reason::Reason;
use crate::session::subject::{lookup, parse_path};
use crate::session::types::ExtractError;

/// Claim rules, each with the name of its claim.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "BTreeMap<String, Rule>", into = "BTreeMap<String, Rule>")]
pub struct ClaimRules(Vec<NamedRule>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct NamedRule {
    name: String,
    /// The name parsed as a path, to find a claim nested inside another claim. `None` if the name is not a path.
    path: Option<Vec<String>>,
    rule: Rule,
}

/// The condition on one claim.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Rule {
    /// The claim is one of these values, or a list that contains one. Values are compared as strings, so that the
    /// string `true` from an environment variable equals `true` in JSON.
    OneOf(Vec<String>),
    AbsentOr(Vec<String>),
    /// The claim has a value other than null, an empty string or an empty list.
    Present,
    Absent,
    Like(String),
    Unlike(String),
    /// The claim may have any value or be absent. Overrides a preset's rule.
    Any,
}

impl ClaimRules {
    /// Whether a rule requires `claim` to have one of certain values, or to match a pattern.
    pub fn limit(&self, claim: &str) -> bool {
        matches!(self.rule(claim), Some(Rule::OneOf(_) | Rule::Like(_)))
    }

    /// Whether a rule for `claim` can never be satisfied. `may_be_absent` is true if the claim can be absent, and
    /// `may_be` returns true for each value that it can have. Patterns are not evaluated.
    pub fn contradict(
        &self,
        claim: &str,
        may_be_absent: bool,
        may_be: impl Fn(&str) -> bool,
    ) -> bool {
        let none = |values: &[String]| !values.iter().any(|value| may_be(value));
        match self.rule(claim) {
            Some(Rule::OneOf(values)) => none(values),
            Some(Rule::AbsentOr(values)) => !may_be_absent && none(values),
            Some(Rule::Absent) => !may_be_absent,
            Some(Rule::Present | Rule::Like(_) | Rule::Unlike(_) | Rule::Any) | None => false,
        }
    }

    /// Whether a rule refuses tokens that lack `claim`.
    pub fn demand(&self, claim: &str) -> bool {
        self.rule(claim).is_some_and(|rule| !rule.passes(None))
    }

    fn rule(&self, claim: &str) -> Option<&Rule> {
        let named = self.0.iter().find(|named| named.name == claim);
        named.map(|named| &named.rule)
    }

    /// Checks every rule.
    ///
    /// # Errors
    /// `Rejected` if a claim does not satisfy its rule, or occurs twice.
    pub fn check(&self, claims: &Object) -> Result<(), ExtractError> {
        for named in &self.0 {
            let found = named.find(claims);
            if !found.is_ok_and(|claim| named.rule.passes(claim)) {
                let detail = format!("{} {}", shown(&named.name), named.rule.describe(found));
                return Err(ExtractError::rejected(Reason::Claim).because(detail));
            }
        }
        Ok(())
    }
}

impl NamedRule {
    /// The claim with exactly this name, or else the nested claim at this path.
    fn find<'a>(&self, claims: &'a Object) -> Result<Option<&'a Value>, DuplicateMember> {
        if let Some(claim) = claims.get(&self.name)? {
            return Ok(Some(claim));
        }
        let Some((first, rest)) = self.path.as_deref().and_then(<[_]>::split_first) else {
            return Ok(None);
        };
        let Some(claim) = claims.get(first)? else {
            return Ok(None);
        };
        lookup(claim, rest).map_err(|_| DuplicateMember)
    }
}

impl Rule {
    /// Describes what was found and what the rule requires. Omits the value itself, because it may identify the user.
    fn describe(&self, found: Result<Option<&Value>, DuplicateMember>) -> String {
        let found = match found {
            Err(DuplicateMember) => "occurs twice",
            Ok(None) => "is missing",
            Ok(Some(Value::Null)) => "is null",
            Ok(Some(Value::Array(items))) if items.is_empty() => "is an empty list",
            Ok(Some(Value::Array(_))) => "is a list that does not satisfy the rule",
            Ok(Some(Value::Object(_))) => "is an object",
            Ok(Some(_)) => "has a value that does not satisfy the rule",
        };
        let required = match self {
            Self::OneOf(values) => listed(values),
            Self::AbsentOr(values) => format!("absent or {}", listed(values)),
            Self::Present => "any value".to_owned(),
            Self::Absent => "absent".to_owned(),
            Self::Like(glob) => format!("like {glob}"),
            Self::Unlike(glob) => format!("unlike {glob}"),
            Self::Any => "anything".to_owned(),
        };
        format!("{found}; its rule requires: {required}")
    }

    fn passes(&self, claim: Option<&Value>) -> bool {
        let Some(claim) = claim else {
            return matches!(
                self,
                Self::AbsentOr(_) | Self::Absent | Self::Unlike(_) | Self::Any
            );
        };
        let items = match claim {
            Value::Array(items) => items.as_slice(),
            one => std::slice::from_ref(one),
        };
        let mut texts = items.iter().map(text);
        match self {
            Self::OneOf(values) | Self::AbsentOr(values) => texts
                .flatten()
                .any(|text| values.iter().any(|value| *value == text)),
            Self::Like(glob) => texts.flatten().any(|text| matches_glob(glob, &text)),
            // A value that cannot be compared as a string does not satisfy `unlike`.
            Self::Unlike(glob) => {
                texts.all(|text| text.is_some_and(|text| !matches_glob(glob, &text)))
            }
            Self::Present => match claim {
                Value::Null => false,
                Value::String(text) => !text.is_empty(),
                Value::Array(items) => !items.is_empty(),
                Value::Bool(_) | Value::Number(_) | Value::Object(_) => true,
            },
            Self::Absent => false,
            Self::Any => true,
        }
    }
}

/// The value as a string; `None` for a type that rules cannot compare.
fn text(value: &Value) -> Option<Cow<'_, str>> {
    match value {
        Value::String(text) => Some(Cow::Borrowed(text)),
        Value::Bool(flag) => Some(Cow::Borrowed(if *flag { "true" } else { "false" })),
        Value::Number(number) => Some(Cow::Owned(number.to_string())),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// Checks that the token has all required scopes. The token's scopes are in `scope` (RFC 9068) and `scp`, each of which
/// is a space-separated string or a list.
///
/// # Errors
/// `Rejected` if a scope is missing, or if `scope` or `scp` occurs twice.
pub fn check_scopes(required: &[String], claims: &Object) -> Result<(), ExtractError> {
    let mut granted = Vec::new();
    for name in ["scope", "scp"] {
        let duplicate = |_| ExtractError::malformed().because(format!("{name} occurs twice"));
        let items = match claims.get(name).map_err(duplicate)? {
            Some(Value::Array(items)) => items.as_slice(),
            Some(one) => std::slice::from_ref(one),
            None => &[],
        };
        let texts = items.iter().filter_map(Value::as_str);
        granted.extend(texts.flat_map(|scopes| scopes.split(' ')));
    }
    let mut required = required.iter();
    match required.find(|scope| !granted.contains(&scope.as_str())) {
        Some(scope) => Err(ExtractError::rejected(Reason::Scope)
            .because(format!("the token lacks the scope {scope}"))),
        None => Ok(()),
    }
}

/// Validates the key `required_scopes`: each item must be a single scope (`scope-token` in RFC 6749, section 3.3).
///
/// # Errors
/// If a scope is empty or contains white space, because no token could have such a scope.
pub fn check_required_scopes(required: &[String]) -> Result<(), &'static str> {
    let is_scope = |scope: &String| !scope.is_empty() && !scope.contains(char::is_whitespace);
    let wrong = "must have one scope per item: a scope is not empty and has no white space";
    required.iter().all(is_scope).then_some(()).ok_or(wrong)
}

impl TryFrom<BTreeMap<String, Rule>> for ClaimRules {
    type Error = &'static str;

    fn try_from(rules: BTreeMap<String, Rule>) -> Result<Self, Self::Error> {
        if rules.contains_key("") {
            return Err("has a rule with an empty claim name");
        }
        let is_escaped = |name: &str| {
            let mut escapes = name.split('~').skip(1);
            escapes.all(|rest| rest.starts_with(['0', '1']))
        };
        let mut claims = rules.keys();
        if claims.any(|name| name.starts_with('/') && !is_escaped(name)) {
            return Err(
                "has a rule whose name begins with / and is not a JSON Pointer: write ~1 for / and ~0 for ~ in a name",
            );
        }
        let named = |(name, rule): (String, Rule)| {
            let path = parse_path(&name).ok();
            NamedRule { name, path, rule }
        };
        Ok(Self(rules.into_iter().map(named).collect()))
    }
}

impl From<ClaimRules> for BTreeMap<String, Rule> {
    fn from(rules: ClaimRules) -> Self {
        let rules = rules.0.into_iter();
        rules.map(|named| (named.name, named.rule)).collect()
    }
}

impl Serialize for Rule {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::OneOf(values) => values.serialize(serializer),
            Self::AbsentOr(values) => serializer.collect_map([("absent_or", values)]),
            Self::Present => serializer.collect_map([("present", true)]),
            Self::Absent => serializer.collect_map([("absent", true)]),
            Self::Like(glob) => serializer.collect_map([("like", glob)]),
            Self::Unlike(glob) => serializer.collect_map([("unlike", glob)]),
            Self::Any => serializer.collect_map([("any", true)]),
        }
    }
}

// A manual implementation, because an untagged enum would load from files but not from environment variables.
impl<'de> Deserialize<'de> for Rule {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // Deserialized as a list, so that an environment variable is split at its commas. A TOML string is not split.
        deserializer.deserialize_seq(RuleVisitor)
    }
}

struct RuleVisitor;

impl<'de> Visitor<'de> for RuleVisitor {
    type Value = Rule;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value, a list of values, or a table such as { absent_or = … }")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Rule, E> {
        one_of([Value::String(text.to_owned())])
    }

    fn visit_bool<E: de::Error>(self, flag: bool) -> Result<Rule, E> {
        one_of([Value::Bool(flag)])
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Rule, E> {
        one_of([Value::Number(number.into())])
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Rule, E> {
        one_of([Value::Number(number.into())])
    }

    fn visit_seq<A: SeqAccess<'de>>(self, access: A) -> Result<Rule, A::Error> {
        one_of(Vec::deserialize(SeqAccessDeserializer::new(access))?)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Rule, A::Error> {
        const FORMS: &str = "must be a value, a list of values, or a table with one of absent_or, present, \
                             absent, like, unlike, any (for a claim inside another claim write its path in quotes: \
                             \"outer.inner\" = …)";
        const ABSENT_OR: &str = "absent_or must be a value or a list of values";
        let wrong = || de::Error::custom(FORMS);
        let rule = match access.next_key::<String>()?.as_deref() {
            Some("absent_or") => match access.next_value()? {
                Rule::OneOf(values) => Rule::AbsentOr(values),
                _ => return Err(de::Error::custom(ABSENT_OR)),
            },
            Some("present") => access.next_value::<True>().map(|True| Rule::Present)?,
            Some("absent") => access.next_value::<True>().map(|True| Rule::Absent)?,
            Some("any") => access.next_value::<True>().map(|True| Rule::Any)?,
            Some("like") => Rule::Like(access.next_value::<Glob>()?.0),
            Some("unlike") => Rule::Unlike(access.next_value::<Glob>()?.0),
            Some(_) | None => return Err(wrong()),
        };
        if access.next_key::<String>()?.is_some() {
            Err(wrong())
        } else {
            Ok(rule)
        }
    }
}

fn one_of<E: de::Error>(items: impl IntoIterator<Item = Value>) -> Result<Rule, E> {
    let mut values = Vec::new();
    for item in items {
        let is_fraction = matches!(&item, Value::Number(number) if number.is_f64());
        match text(&item).filter(|text| !text.is_empty() && !is_fraction) {
            Some(text) => values.push(text.into_owned()),
            None => {
                return Err(E::custom(
                    "has a value other than a non-empty string, a whole number, true or false",
                ));
            }
        }
    }
    if values.is_empty() {
        return Err(E::custom(
            "is an empty list: give at least one value, or write { absent = true }",
        ));
    }
    Ok(Rule::OneOf(values))
}

/// The value of `present`, `absent` and `any`, which must be `true`.
struct True;

impl<'de> Deserialize<'de> for True {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if bool::deserialize(deserializer)? {
            return Ok(Self);
        }
        Err(de::Error::custom(
            "present, absent and any can only be true: remove the rule instead",
        ))
    }
}

/// The glob pattern of `like` and `unlike`.
struct Glob(String);

impl<'de> Deserialize<'de> for Glob {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let glob = String::deserialize(deserializer)?;
        if glob.bytes().all(|byte| byte == b'*') {
            let text = "like and unlike need characters other than *: write { present = true } or { absent = true }";
            return Err(de::Error::custom(text));
        }
        Ok(Self(glob))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passes(rules: &str, claims: &str) -> bool {
        let rules: ClaimRules = toml::from_str(rules).expect("good rules");
        let claims = Value::parse(claims.as_bytes()).expect("good JSON");
        rules.check(claims.as_object().expect("an object")).is_ok()
    }

    #[test]
    fn claim_passes_if_it_equals_or_contains_one_of_the_values() {
        for (name, rules, claims, want) in [
            ("text", r#"role = "user""#, r#"{"role":"user"}"#, true),
            (
                "other text",
                r#"role = "user""#,
                r#"{"role":"users"}"#,
                false,
            ),
            (
                "other case",
                r#"role = "user""#,
                r#"{"role":"User"}"#,
                false,
            ),
            ("missing", r#"role = "user""#, "{}", false),
            ("null", r#"role = "user""#, r#"{"role":null}"#, false),
            (
                "repeated",
                r#"role = "user""#,
                r#"{"role":"user","role":"user"}"#,
                false,
            ),
            ("list", r#"role = ["a", "b"]"#, r#"{"role":"b"}"#, true),
            ("bool", "ok = true", r#"{"ok":true}"#, true),
            ("bool as text", r#"ok = "true""#, r#"{"ok":true}"#, true),
            ("text as bool", "ok = true", r#"{"ok":"true"}"#, true),
            ("number", "v = 7", r#"{"v":7}"#, true),
            ("number as float", "v = 7", r#"{"v":7.0}"#, false),
            (
                "array with it",
                r#"role = "a""#,
                r#"{"role":["b","a"]}"#,
                true,
            ),
            (
                "array without it",
                r#"role = "a""#,
                r#"{"role":["b",["a"]]}"#,
                false,
            ),
            ("empty array", r#"role = "a""#, r#"{"role":[]}"#, false),
            ("object", r#"role = "a""#, r#"{"role":{"a":1}}"#, false),
            ("absent or", r#"sts = { absent_or = "active" }"#, "{}", true),
            (
                "absent or right",
                r#"sts = { absent_or = ["active", "x"] }"#,
                r#"{"sts":"active"}"#,
                true,
            ),
            (
                "absent or wrong",
                r#"sts = { absent_or = "active" }"#,
                r#"{"sts":"pending"}"#,
                false,
            ),
            (
                "absent or null",
                r#"sts = { absent_or = "active" }"#,
                r#"{"sts":null}"#,
                false,
            ),
        ] {
            assert_eq!(passes(rules, claims), want, "{name}");
        }
    }

    #[test]
    fn present_absent_like_unlike_and_any_accept_only_matching_claims() {
        for (rule, claim, want) in [
            ("{ present = true }", Some(r#""a""#), true),
            ("{ present = true }", Some("false"), true),
            ("{ present = true }", Some(r#""""#), false),
            ("{ present = true }", Some("[]"), false),
            ("{ present = true }", Some("null"), false),
            ("{ present = true }", None, false),
            ("{ absent = true }", None, true),
            ("{ absent = true }", Some("null"), false),
            ("{ absent = true }", Some(r#""""#), false),
            ("{ like = \"session_*\" }", Some(r#""session_1""#), true),
            (
                "{ like = \"session_*\" }",
                Some(r#"["x","session_1"]"#),
                true,
            ),
            ("{ like = \"session_*\" }", Some(r#""app_1""#), false),
            ("{ like = \"1*\" }", Some("12"), true),
            ("{ like = \"session_*\" }", Some("null"), false),
            ("{ like = \"session_*\" }", None, false),
            ("{ unlike = \"*@clients\" }", Some(r#""auth0|1""#), true),
            ("{ unlike = \"*@clients\" }", None, true),
            ("{ unlike = \"*@clients\" }", Some("[]"), true),
            ("{ unlike = \"*@clients\" }", Some(r#""a@clients""#), false),
            (
                "{ unlike = \"*@clients\" }",
                Some(r#"["auth0|1","a@clients"]"#),
                false,
            ),
            ("{ unlike = \"*@clients\" }", Some("{}"), false),
            ("{ unlike = \"*@clients\" }", Some("null"), false),
            ("{ any = true }", None, true),
            ("{ any = true }", Some("null"), true),
        ] {
            let claims = claim.map_or("{}".to_owned(), |claim| format!(r#"{{"c":{claim}}}"#));
            assert_eq!(
                passes(&format!("c = {rule}"), &claims),
                want,
                "{rule} {claims}"
            );
        }
    }

    #[test]
    fn string_with_commas_is_one_value_of_a_claim_rule() {
        let rule = r#"groups = "CN=Sales,OU=Groups,DC=corp""#;
        for (claims, want) in [
            (r#"{"groups":"CN=Sales,OU=Groups,DC=corp"}"#, true),
            (r#"{"groups":["x","CN=Sales,OU=Groups,DC=corp"]}"#, true),
            (r#"{"groups":"DC=corp"}"#, false),
            (r#"{"groups":["CN=Sales"]}"#, false),
        ] {
            assert_eq!(passes(rule, claims), want, "{claims}");
        }
        assert!(passes(
            r#"groups = { absent_or = "a,b" }"#,
            r#"{"groups":"a,b"}"#
        ));
        assert!(!passes(
            r#"groups = { absent_or = "a,b" }"#,
            r#"{"groups":"b"}"#
        ));
    }

    #[test]
    fn literal_claim_name_is_looked_up_before_the_path() {
        for (rules, claims, want) in [
            (
                r#""realm_access.roles" = "a""#,
                r#"{"realm_access":{"roles":["a"]}}"#,
                true,
            ),
            (
                r#""realm_access.roles" = "a""#,
                r#"{"realm_access.roles":"b","realm_access":{"roles":["a"]}}"#,
                false,
            ),
            (
                r#""realm_access.roles" = "a""#,
                r#"{"realm_access":{"roles":["b"]}}"#,
                false,
            ),
            (
                r#""realm_access.roles" = "a""#,
                r#"{"realm_access":"a"}"#,
                false,
            ),
            (
                r#""realm_access.roles" = "a""#,
                r#"{"realm_access":{"roles":"a","roles":"b"}}"#,
                false,
            ),
            (
                r#""realm_access.roles" = { absent = true }"#,
                r#"{"realm_access":{}}"#,
                true,
            ),
            (
                r#""realm_access.roles" = { absent = true }"#,
                r#"{"realm_access":{"roles":[]}}"#,
                false,
            ),
            (
                r#""https://app.example.com/roles" = "a""#,
                r#"{"https://app.example.com/roles":"a"}"#,
                true,
            ),
            (
                r#""/https:~1~1app/roles" = "a""#,
                r#"{"https://app":{"roles":"a"}}"#,
                true,
            ),
            (r#""a..b" = "x""#, r#"{"a..b":"x"}"#, true),
        ] {
            assert_eq!(passes(rules, claims), want, "{rules} {claims}");
        }
    }

    #[test]
    fn invalid_claim_rule_is_refused() {
        for rules in [
            r#"role = """#,
            r#"role = ["a", ""]"#,
            "role = []",
            "role = 1.5",
            "role = {}",
            r#"role = { present_or = "a" }"#,
            r#"role = { absent_or = "a", more = "b" }"#,
            r#"role = { absent_or = { absent_or = "a" } }"#,
            "role = { absent_or = [] }",
            "role = { present = false }",
            "role = { absent = false }",
            "role = { any = false }",
            "role = { present = true, absent = true }",
            r#"role = { like = "" }"#,
            r#"role = { like = "*" }"#,
            r#"role = { unlike = "**" }"#,
            "role = { like = 7 }",
            r#"role = [["a"]]"#,
            r#"outer = { inner = "a" }"#,
            r#""" = "a""#,
            r#""/a~2b" = "a""#,
        ] {
            assert!(toml::from_str::<ClaimRules>(rules).is_err(), "{rules}");
        }
    }

    #[test]
    fn claim_rules_are_serialized_as_they_are_configured() {
        let text = r#"{"a":["x","7"],"b":{"absent_or":["y"]},"c":{"present":true},"d":{"absent":true},"e":{"like":"s_*"},"f":{"unlike":"*c"},"g":{"any":true}}"#;
        let rules: ClaimRules = toml::from_str(
            "a = [\"x\", 7]\nb = { absent_or = \"y\" }\nc = { present = true }\nd = { absent = true }\n\
             e = { like = \"s_*\" }\nf = { unlike = \"*c\" }\ng = { any = true }",
        )
        .expect("good rules");
        assert_eq!(serde_json::to_string(&rules).expect("JSON"), text);
    }

    #[test]
    fn required_scopes_are_found_in_scope_and_scp_as_string_or_list() {
        let required = ["read".to_owned(), "write".to_owned()];
        for (claims, want) in [
            (r#"{"scope":"write read"}"#, true),
            (r#"{"scp":["read","write"]}"#, true),
            (r#"{"scope":"read","scp":"write"}"#, true),
            (r#"{"scope":["read write"]}"#, true),
            (r#"{"scope":"read"}"#, false),
            (r#"{"scope":"readwrite"}"#, false),
            (r#"{"scope":{"read":1,"write":1}}"#, false),
            (r#"{"scope":"read write","scope":"read write"}"#, false),
            ("{}", false),
        ] {
            let claims = Value::parse(claims.as_bytes()).expect("good JSON");
            let outcome = check_scopes(&required, claims.as_object().expect("an object"));
            assert_eq!(outcome.is_ok(), want, "{claims:?}");
        }
        assert!(check_required_scopes(&required).is_ok());
        for wrong in ["", "read write", " read"] {
            assert!(
                check_required_scopes(&[wrong.to_owned()]).is_err(),
                "{wrong}"
            );
        }
    }
}
