//! Further checks of claims: `claims.NAME = value`, a list of values, or `{ absent_or = … }`.
//! The claims that every JWT has (`exp`, `iss`, `aud`) are checked in `jwt.rs`.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::{Serialize, Serializer};

use crate::extractors::ExtractError;
use crate::value::{Object, Value};

/// Checks by the name of the claim.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Rules(BTreeMap<String, Rule>);

/// What one claim may be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Rule {
    /// Compared as text, so that `true` from an environment variable means `true` in JSON.
    allowed: Vec<String>,
    /// A token without the claim passes.
    may_be_absent: bool,
}

impl Rules {
    /// Whether there is a check of `claim`.
    pub fn has(&self, claim: &str) -> bool {
        self.0.contains_key(claim)
    }

    /// Checks all of them.
    pub fn check(&self, claims: &Object) -> Result<(), ExtractError> {
        for (name, rule) in &self.0 {
            let passes = match claims.get(name) {
                Ok(None) => rule.may_be_absent,
                Ok(Some(Value::Array(items))) => items.iter().any(|item| rule.allows(item)),
                Ok(Some(value)) => rule.allows(value),
                Err(_) => false,
            };
            if !passes {
                return Err(ExtractError::rejected("claim").because(format!("{name} is not as configured")));
            }
        }
        Ok(())
    }
}

impl Rule {
    fn allows(&self, value: &Value) -> bool {
        let text = match value {
            Value::String(text) => Cow::Borrowed(text.as_str()),
            Value::Bool(true) => Cow::Borrowed("true"),
            Value::Bool(false) => Cow::Borrowed("false"),
            Value::Number(number) => Cow::Owned(number.to_string()),
            Value::Null | Value::Array(_) | Value::Object(_) => return false,
        };
        self.allowed.iter().any(|allowed| *allowed == text)
    }
}

impl Serialize for Rule {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.may_be_absent {
            serializer.collect_map([("absent_or", &self.allowed)])
        } else {
            self.allowed.serialize(serializer)
        }
    }
}

// By hand: an untagged enum would read from files but not from the environment.
impl<'de> Deserialize<'de> for Rule {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RuleVisitor)
    }
}

struct RuleVisitor;

impl RuleVisitor {
    fn one(value: &impl ToString) -> Rule {
        Rule { allowed: vec![value.to_string()], may_be_absent: false }
    }
}

impl<'de> Visitor<'de> for RuleVisitor {
    type Value = Rule;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value, a list of values, or { absent_or = … }")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Rule, E> {
        let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
        let allowed: Vec<String> = items.map(str::to_owned).collect();
        if allowed.is_empty() {
            return Err(E::custom("allows no value"));
        }
        Ok(Rule { allowed, may_be_absent: false })
    }

    fn visit_bool<E: de::Error>(self, flag: bool) -> Result<Rule, E> {
        Ok(Self::one(&flag))
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Rule, E> {
        Ok(Self::one(&number))
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Rule, E> {
        Ok(Self::one(&number))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Rule, A::Error> {
        let mut allowed = Vec::new();
        while let Some(Scalar(item)) = access.next_element()? {
            allowed.push(item);
        }
        if allowed.is_empty() {
            return Err(de::Error::custom("allows no value"));
        }
        Ok(Rule { allowed, may_be_absent: false })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Rule, A::Error> {
        match access.next_entry::<String, Rule>()? {
            Some((name, rule)) if name == "absent_or" && !rule.may_be_absent => {
                match access.next_key::<String>()? {
                    None => Ok(Rule { may_be_absent: true, ..rule }),
                    Some(_) => Err(de::Error::custom("absent_or stands alone")),
                }
            }
            _ => Err(de::Error::custom("must be a value, a list of values, or { absent_or = … }")),
        }
    }
}

/// One value of a list, as text.
struct Scalar(String);

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ScalarVisitor)
    }
}

struct ScalarVisitor;

impl Visitor<'_> for ScalarVisitor {
    type Value = Scalar;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("text, a whole number, true or false")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Scalar, E> {
        Ok(Scalar(text.to_owned()))
    }

    fn visit_bool<E: de::Error>(self, flag: bool) -> Result<Scalar, E> {
        Ok(Scalar(flag.to_string()))
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Scalar, E> {
        Ok(Scalar(number.to_string()))
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Scalar, E> {
        Ok(Scalar(number.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passes(rules: &str, claims: &str) -> bool {
        let rules: Rules = toml::from_str(rules).expect("good rules");
        let claims = Value::parse(claims.as_bytes()).expect("good JSON");
        rules.check(claims.as_object().expect("an object")).is_ok()
    }

    #[test]
    fn a_claim_is_compared_as_text() {
        for (name, rules, claims, want) in [
            ("text", r#"role = "user""#, r#"{"role":"user"}"#, true),
            ("other text", r#"role = "user""#, r#"{"role":"users"}"#, false),
            ("other case", r#"role = "user""#, r#"{"role":"User"}"#, false),
            ("missing", r#"role = "user""#, "{}", false),
            ("null", r#"role = "user""#, r#"{"role":null}"#, false),
            ("repeated", r#"role = "user""#, r#"{"role":"user","role":"user"}"#, false),
            ("list", r#"role = ["a", "b"]"#, r#"{"role":"b"}"#, true),
            ("text with commas", r#"role = "a, b""#, r#"{"role":"b"}"#, true),
            ("bool", "ok = true", r#"{"ok":true}"#, true),
            ("bool as text", r#"ok = "true""#, r#"{"ok":true}"#, true),
            ("text as bool", "ok = true", r#"{"ok":"true"}"#, true),
            ("number", "v = 7", r#"{"v":7}"#, true),
            ("number as float", "v = 7", r#"{"v":7.0}"#, false),
            ("array with it", r#"role = "a""#, r#"{"role":["b","a"]}"#, true),
            ("array without it", r#"role = "a""#, r#"{"role":["b",["a"]]}"#, false),
            ("empty array", r#"role = "a""#, r#"{"role":[]}"#, false),
            ("object", r#"role = "a""#, r#"{"role":{"a":1}}"#, false),
            ("absent or", r#"sts = { absent_or = "active" }"#, "{}", true),
            ("absent or right", r#"sts = { absent_or = ["active", "x"] }"#, r#"{"sts":"active"}"#, true),
            ("absent or wrong", r#"sts = { absent_or = "active" }"#, r#"{"sts":"pending"}"#, false),
            ("absent or null", r#"sts = { absent_or = "active" }"#, r#"{"sts":null}"#, false),
        ] {
            assert_eq!(passes(rules, claims), want, "{name}");
        }
    }

    #[test]
    fn a_rule_that_means_nothing_is_refused() {
        for rules in [
            r#"role = """#,
            "role = []",
            "role = 1.5",
            "role = {}",
            r#"role = { present_or = "a" }"#,
            r#"role = { absent_or = "a", more = "b" }"#,
            r#"role = { absent_or = { absent_or = "a" } }"#,
            r#"role = [["a"]]"#,
        ] {
            assert!(toml::from_str::<Rules>(rules).is_err(), "{rules}");
        }
    }
}
