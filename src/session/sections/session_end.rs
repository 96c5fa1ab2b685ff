//! The keys `expires_path` and `idle`: the end that the app writes into the session itself. koa-session writes the end
//! (`_expire`). Devise writes the time of the last request (`last_request_at`), to which `idle` is added.

use crate::clock::UnixSeconds;
use crate::config::{HumanDuration, Problems, Section};
use crate::json::Value;
use crate::session::formats::expiry::Expiry;
use crate::session::reason::Reason;
use crate::session::subject::Template;
use crate::session::types::{ExtractError, Extracted, Session};

/// The path of the end in a session.
#[derive(Debug)]
pub struct SessionEnd {
    /// `None` if the section has no `expires_path`.
    path: Option<Template>,
    /// How many seconds after the time at the path the session ends.
    idle: UnixSeconds,
}

impl SessionEnd {
    /// Reads the keys of a section.
    pub fn read(
        section: &Section<'_>,
        expires_path: Option<&str>,
        idle: Option<HumanDuration>,
        problems: &mut Problems,
    ) -> Self {
        let idle = idle.map(|idle| UnixSeconds::try_from(idle.0.as_secs()).unwrap_or_default());
        problems.require(
            idle.is_none_or(|idle| idle > 0),
            section.key("idle"),
            "must be at least 1s",
        );
        problems.require(
            idle.is_none() || expires_path.is_some(),
            section.key("idle"),
            "needs expires_path: the path of the time from which idle counts, such as that of the last request",
        );
        Self {
            path: path(section, expires_path, problems),
            idle: idle.unwrap_or_default(),
        }
    }

    /// The session with its end; expired if the end has passed. A session without a value at the path has no end of
    /// its own: the app itself does not end a guest's session, or one that it excludes from its timeout.
    pub fn apply(&self, extracted: Extracted, now: UnixSeconds) -> Extracted {
        let Some(path) = &self.path else {
            return extracted;
        };
        let Some(mut session) = extracted? else {
            return Ok(None);
        };
        if let Some(time) = time(path, &session)? {
            let end = time.plus(self.idle).check(now)?;
            session.expires_at = Some(session.expires_at.map_or(end, |other| other.min(end)));
        }
        Ok(Some(session))
    }
}

/// The value of `expires_path`, which may be written with or without braces.
fn path(
    section: &Section<'_>,
    expires_path: Option<&str>,
    problems: &mut Problems,
) -> Option<Template> {
    let path = expires_path?;
    let template = if path.contains('{') {
        path.parse()
    } else {
        format!("{{{path}}}").parse()
    };
    problems.accept(section.key("expires_path"), template)
}

/// The time at the path; `None` if the session has none.
fn time(path: &Template, session: &Session) -> Result<Option<Expiry>, ExtractError> {
    let malformed = |detail| ExtractError::rejected(Reason::Malformed).because(detail);
    match path.value(&session.attributes) {
        Ok(None | Some(Value::Null)) => Ok(None),
        Ok(Some(value)) => Expiry::read_pythonic(&value)
            .map(Some)
            .ok_or_else(|| malformed("the value at expires_path is not a time")),
        Err(_) => Err(malformed("a member on expires_path occurs twice")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::sections::testing::{NOW, refused};

    fn end(expires_path: &str, idle: UnixSeconds) -> SessionEnd {
        SessionEnd {
            path: Some(format!("{{{expires_path}}}").parse().unwrap()),
            idle,
        }
    }

    /// The end of a session with these attributes, in a cookie that ends in an hour.
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
            // The cookie ends first.
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

    #[test]
    fn other_outcomes_and_sections_without_the_key_are_unchanged() {
        let none = SessionEnd {
            path: None,
            idle: 0,
        };
        assert_eq!(applied(&none, r#"{"_expire":1}"#), Ok(Some(NOW + 3600)));
        assert!(matches!(end("at", 0).apply(Ok(None), NOW), Ok(None)));
        let refusal = ExtractError::rejected(Reason::BadSignature);
        let answer = end("at", 0).apply(Err(refusal.clone()), NOW);
        assert_eq!(answer.unwrap_err(), refusal);
    }

    #[test]
    fn invalid_keys_are_refused_with_their_name() {
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
            ],
        );
    }
}
