//! The keys `expires_path` and `idle`: the expiry that the app writes into the session itself. koa-session writes the
//! expiry (`_expire`). Devise writes the time of the last request (`last_request_at`), to which `idle` is added. h3
//! writes two timestamps and adds a different duration to each; a table of paths configures both.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::de::value::MapAccessDeserializer;
use serde::de::{self, Deserialize, Deserializer, MapAccess, Visitor};
use serde::{Serialize, Serializer};

use crate::clock::UnixSeconds;
use crate::config::{HumanDuration, Problems, Section};
use crate::json::Value;
use crate::session::formats::expiry::Expiry;
use crate::session::subject::Template;
use crate::session::types::{ExtractError, Extracted};

/// The key `expires_path`.
#[derive(Debug)]
pub enum ExpiresPath {
    /// `"expiresAt"`: one path. The session ends at the time stored there, plus `idle` if it is set.
    One(String),
    /// `{ createdAt = "7d", lastSeenAt = "30m" }`: several paths, each with the duration after which the session ends.
    Each(BTreeMap<String, HumanDuration>),
}

/// The expiry times in a session, the earliest of which applies.
#[derive(Debug)]
pub struct SessionEnd(Vec<EndPath>);

/// A time in the session, and how many seconds after it the session ends.
#[derive(Debug)]
struct EndPath {
    path: TimePath,
    after: UnixSeconds,
}

/// The path of a time in a session.
#[derive(Debug)]
pub struct TimePath(Template);

impl TimePath {
    /// Parses the key `expires_path`, which may be written with or without braces.
    pub fn read(section: &Section<'_>, path: &str, problems: &mut Problems) -> Option<Self> {
        problems.accept(section.key("expires_path"), path.parse())
    }

    /// The time at the path; `None` if the session has no value there.
    ///
    /// # Errors
    /// If the value is not a time, or if a member on the path occurs twice. Each kind decides whether this is the fault
    /// of the caller or of a backend.
    pub fn time(&self, session: &Value) -> Result<Option<Expiry>, &'static str> {
        match self.0.value(session) {
            Ok(None | Some(Value::Null)) => Ok(None),
            Ok(Some(value)) => Expiry::read(&value)
                .map(Some)
                .ok_or("the value at expires_path is not a time"),
            Err(_) => Err("a member on the path expires_path occurs twice"),
        }
    }
}

impl FromStr for TimePath {
    type Err = &'static str;

    fn from_str(path: &str) -> Result<Self, Self::Err> {
        let template = if path.contains('{') {
            path.parse()
        } else {
            format!("{{{path}}}").parse()
        };
        template.map(Self)
    }
}

impl SessionEnd {
    /// Reads the keys `expires_path` and `idle`. Adds their problems to `problems`, and leaves out an invalid path.
    pub fn read(
        section: &Section<'_>,
        expires_path: Option<ExpiresPath>,
        idle: Option<HumanDuration>,
        problems: &mut Problems,
    ) -> Self {
        problems.require(
            idle.is_none_or(|idle| idle.whole_seconds() > 0),
            section.key("idle"),
            "must be at least 1s",
        );
        problems.require(
            idle.is_none() || matches!(expires_path, Some(ExpiresPath::One(_))),
            section.key("idle"),
            "needs a single expires_path: the path of the time from which idle is counted, such as the last request. \
             In a table, each path has its own duration",
        );
        let paths = match expires_path {
            None => BTreeMap::new(),
            Some(ExpiresPath::One(path)) => {
                BTreeMap::from([(path, idle.unwrap_or(HumanDuration::secs(0)))])
            }
            Some(ExpiresPath::Each(paths)) => {
                problems.require(
                    !paths.is_empty(),
                    section.key("expires_path"),
                    "is an empty table: name at least one path",
                );
                paths
            }
        };
        let mut ends = Vec::new();
        for (path, after) in paths {
            let path = TimePath::read(section, &path, problems);
            let after = after.whole_seconds();
            ends.extend(path.map(|path| EndPath { path, after }));
        }
        Self(ends)
    }

    /// The session with its expiry applied; an error if it has expired, if the value at a path is not a time, or if a
    /// member on a path occurs twice. If the session has no value at a path, that path sets no expiry: the app itself
    /// does not expire a guest's session, or one that it exempts from its timeout.
    pub fn apply(&self, extracted: Extracted, now: UnixSeconds) -> Extracted {
        let Some(mut session) = extracted? else {
            return Ok(None);
        };
        for EndPath { path, after } in &self.0 {
            let malformed = |detail| ExtractError::malformed().because(detail);
            if let Some(time) = path.time(&session.attributes).map_err(malformed)? {
                let end = time.plus(*after).check(now)?;
                session.expires_at = Some(session.expires_at.map_or(end, |other| other.min(end)));
            }
        }
        Ok(Some(session))
    }
}

impl Serialize for ExpiresPath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::One(path) => path.serialize(serializer),
            Self::Each(paths) => paths.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for ExpiresPath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ExpiresPathVisitor)
    }
}

struct ExpiresPathVisitor;

impl<'de> Visitor<'de> for ExpiresPathVisitor {
    type Value = ExpiresPath;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a path in quotes, or a table that maps each path to a duration")
    }

    fn visit_str<E: de::Error>(self, path: &str) -> Result<ExpiresPath, E> {
        Ok(ExpiresPath::One(path.to_owned()))
    }

    fn visit_map<A: MapAccess<'de>>(self, access: A) -> Result<ExpiresPath, A::Error> {
        BTreeMap::deserialize(MapAccessDeserializer::new(access)).map(ExpiresPath::Each)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::reason::Reason;
    use crate::session::sections::testing::{NOW, build, refused};
    use crate::session::types::Session;

    fn ends(paths: &[(&str, UnixSeconds)]) -> SessionEnd {
        let end = |&(path, after): &(&str, UnixSeconds)| EndPath {
            path: path.parse().unwrap(),
            after,
        };
        SessionEnd(paths.iter().map(end).collect())
    }

    fn end(path: &str, after: UnixSeconds) -> SessionEnd {
        ends(&[(path, after)])
    }

    /// The expiry of a session with these attributes, in a cookie that expires in an hour.
    fn applied(end: &SessionEnd, json: &str) -> Result<Option<UnixSeconds>, &'static str> {
        let session = Session {
            attributes: Value::parse(json.as_bytes()).unwrap(),
            expires_at: Some(NOW + 3600),
        };
        match end.apply(Ok(Some(session)), NOW) {
            Ok(session) => Ok(session.unwrap().expires_at),
            Err(error) => Err(error.reason().as_str()),
        }
    }

    #[test]
    fn session_ends_at_the_time_at_expires_path() {
        let koa = end("_expire", 0);
        for (json, want) in [
            (r#"{"_expire":1800000060000}"#, Ok(Some(NOW + 60))),
            (r#"{"_expire":1800000060}"#, Ok(Some(NOW + 60))),
            (r#"{"_expire":1800000000.25}"#, Ok(Some(NOW))),
            (
                r#"{"_expire":"2027-01-15T08:01:00.000Z"}"#,
                Ok(Some(NOW + 60)),
            ),
            (
                r#"{"_expire":"Fri, 15 Jan 2027 08:01:00 GMT"}"#,
                Ok(Some(NOW + 60)),
            ),
            // The cookie expires before the session.
            (r#"{"_expire":1900000000000}"#, Ok(Some(NOW + 3600))),
            (r#"{"_session":true}"#, Ok(Some(NOW + 3600))),
            (r#"{"_expire":null}"#, Ok(Some(NOW + 3600))),
            (r#"{"_expire":1799999999999}"#, Err("expired")),
            (r#"{"_expire":1800000000000}"#, Err("expired")),
            (r#"{"_expire":0}"#, Err("expired")),
            (r#"{"_expire":"2027-01-15T08:00:00.000Z"}"#, Err("expired")),
            (r#"{"_expire":1,"_expire":1900000000000}"#, Err("malformed")),
            (r#"{"_expire":"tomorrow"}"#, Err("malformed")),
            (r#"{"_expire":true}"#, Err("malformed")),
            (r#"{"_expire":{"at":1900000000}}"#, Err("malformed")),
            (r#"{"_expire":1900000000000000000}"#, Err("malformed")),
        ] {
            assert_eq!(applied(&koa, json), want, "{json}");
        }
    }

    #[test]
    fn expires_path_is_accepted_with_or_without_braces() {
        for path in ["a.b", "{a.b}", "/a/b", "{/a/b}"] {
            let json = r#"{"a":{"b":1800000060.5}}"#;
            assert_eq!(applied(&end(path, 0), json), Ok(Some(NOW + 60)), "{path}");
            for (kind, keys) in [
                ("cookie_session", "keys = [\"hunter2-hunter2-hunter2\"]"),
                (
                    "redis_session",
                    "url = \"redis://h\"\ncookie = \"sid\"\nkey_prefix = \"s:\"",
                ),
                (
                    "session_endpoint",
                    "url = \"https://app.example/me\"\ncookies = [\"sid\"]",
                ),
            ] {
                let section = build(kind, &format!("{keys}\nexpires_path = \"{path}\""));
                assert!(section.is_ok(), "{kind}, {path}");
            }
        }
    }

    #[test]
    fn idle_is_added_to_the_time_at_expires_path() {
        let devise = end("/warden.user.user.session/last_request_at", 1800);
        let session =
            |at: i64| format!(r#"{{"warden.user.user.session":{{"last_request_at":{at}}}}}"#);
        assert_eq!(applied(&devise, &session(NOW)), Ok(Some(NOW + 1800)));
        assert_eq!(applied(&devise, &session(NOW - 1799)), Ok(Some(NOW + 1)));
        assert_eq!(applied(&devise, &session(NOW - 1800)), Err("expired"));
        assert_eq!(applied(&devise, &session(NOW - 2700)), Err("expired"));
        let never = end("at", UnixSeconds::MAX);
        assert_eq!(applied(&never, r#"{"at":1}"#), Ok(Some(NOW + 3600)));
    }

    /// For h3 with `maxAge` and `idleTimeout`, the earlier expiry applies.
    #[test]
    fn earliest_expiry_of_several_paths_applies() {
        let h3 = ends(&[("createdAt", 7 * 86_400), ("lastSeenAt", 1800)]);
        let session = |created: i64, seen: i64| {
            let [created, seen] = [created, seen].map(|ago| (NOW - ago) * 1000);
            format!(r#"{{"createdAt":{created},"lastSeenAt":{seen}}}"#)
        };
        for (created, seen, want) in [
            (60, 60, Ok(Some(NOW + 1740))),
            (6 * 86_400, 1799, Ok(Some(NOW + 1))),
            (7 * 86_400 - 5, 60, Ok(Some(NOW + 5))),
            (6 * 86_400, 1800, Err("expired")),
            (7 * 86_400, 60, Err("expired")),
            (8 * 86_400, 3600, Err("expired")),
        ] {
            assert_eq!(
                applied(&h3, &session(created, seen)),
                want,
                "{created} {seen}"
            );
        }
        let before = format!(r#"{{"createdAt":{}}}"#, (NOW - 7 * 86_400 + 5) * 1000);
        assert_eq!(applied(&h3, &before), Ok(Some(NOW + 5)), "no lastSeenAt");
        let odd = format!(r#"{{"createdAt":{},"lastSeenAt":"now"}}"#, NOW * 1000);
        assert_eq!(applied(&h3, &odd), Err("malformed"));
    }

    #[test]
    fn absent_session_and_rejection_are_unchanged_and_without_expires_path_no_expiry_is_set() {
        let none = ends(&[]);
        assert_eq!(applied(&none, r#"{"_expire":1}"#), Ok(Some(NOW + 3600)));
        assert!(matches!(end("at", 0).apply(Ok(None), NOW), Ok(None)));
        let refusal = ExtractError::rejected(Reason::BadSignature);
        let answer = end("at", 0).apply(Err(refusal.clone()), NOW);
        assert_eq!(answer.unwrap_err(), refusal);
    }

    #[test]
    fn invalid_expires_path_or_idle_is_refused_under_its_key() {
        let with = |keys: &str| format!("keys = [\"hunter2-hunter2-hunter2\"]\n{keys}");
        refused(
            "cookie_session",
            &[
                ("idle alone", &with("idle = \"30m\""), "idle"),
                (
                    "no duration",
                    &with("expires_path = \"at\"\nidle = \"30\""),
                    "idle",
                ),
                (
                    "less than a second",
                    &with("expires_path = \"at\"\nidle = \"20ms\""),
                    "idle",
                ),
                ("no path", &with("expires_path = \"a..b\""), "expires_path"),
                (
                    "an open brace",
                    &with("expires_path = \"{at\""),
                    "expires_path",
                ),
                ("no paths", &with("expires_path = {}"), "expires_path"),
                (
                    "no duration after a path",
                    &with("expires_path = { at = 30 }"),
                    "expires_path.at",
                ),
                (
                    "a bad path of several",
                    &with("expires_path = { at = \"1d\", \"a..b\" = \"1d\" }"),
                    "expires_path",
                ),
                (
                    "a table and idle",
                    &with("expires_path = { at = \"1d\" }\nidle = \"30m\""),
                    "idle",
                ),
                ("a list", &with("expires_path = [\"at\"]"), "expires_path"),
            ],
        );
    }
}
