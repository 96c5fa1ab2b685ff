//! Sessions that are stored as JSON in one cookie and signed with a timestamp, as Flask and Django write them, and the
//! key `max_age`, which limits their age. The format is in [`crate::session::formats::signed_timestamp`].

use std::fmt;
use std::sync::Once;
use std::time::Duration;

use axum::http::request::Parts;

use serde::Serialize;
use serde::de::{self, Deserialize, Deserializer, Visitor};

use crate::clock::UnixSeconds;
use crate::config::{HumanDuration, Problems, Section};
use crate::json::Value;
use crate::session::formats::payload;
use crate::session::formats::signed_timestamp::SignedTimestampVerifier;
use crate::session::sections::cookie::Cookie;
use crate::session::sections::session_cookie::CookieFormat;
use crate::session::types::{ExtractError, Extracted, Session};

/// How long a cookie is valid after its timestamp: a duration, or `"none"` for no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(into = "String")]
pub struct MaxAge(Option<Duration>);

impl MaxAge {
    pub const fn days(days: u64) -> Self {
        Self(Some(Duration::from_secs(days * 24 * 60 * 60)))
    }

    /// The maximum age in seconds; `None` if the age is not checked.
    pub fn seconds(self) -> Option<UnixSeconds> {
        self.0.map(|age| HumanDuration(age).whole_seconds())
    }

    /// Reports `"none"` as a problem, for a framework that always checks the age.
    pub fn require(self, section: &Section<'_>, problems: &mut Problems) {
        problems.require(
            self.0.is_some(),
            section.key("max_age"),
            "must be a duration: the framework itself always checks the age",
        );
    }

    /// Accepts up to 100 years, because apps that never sign users out set a maximum age of many years. The maximum of
    /// [`HumanDuration`], 400 days, is too short for them.
    fn parse(text: &str) -> Result<Self, String> {
        const LONGEST: Duration = Duration::from_secs(36_525 * 24 * 60 * 60);
        match humantime::parse_duration(text) {
            _ if text == "none" => Ok(Self(None)),
            Ok(age) if age > LONGEST => Err("is longer than 100 years".to_owned()),
            Ok(age) if age.as_secs() > 0 && age.subsec_nanos() == 0 => Ok(Self(Some(age))),
            Ok(_) | Err(_) => Err(match HumanDuration::of_bare_number(text) {
                Some(HumanDuration(age)) if age.as_secs() > 0 => format!(
                    "must be a duration with its unit: write \"{}s\" for seconds",
                    age.as_secs()
                ),
                _ => {
                    "must be a duration in whole seconds with its unit, such as \"14d\"".to_owned()
                }
            }),
        }
    }
}

impl<'de> Deserialize<'de> for MaxAge {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(MaxAgeVisitor)
    }
}

struct MaxAgeVisitor;

impl Visitor<'_> for MaxAgeVisitor {
    type Value = MaxAge;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a duration in whole seconds with its unit, such as \"14d\"")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<MaxAge, E> {
        MaxAge::parse(text).map_err(E::custom)
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<MaxAge, E> {
        self.visit_str(&number.to_string())
    }
}

impl fmt::Display for MaxAge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(age) => HumanDuration(age).fmt(f),
            None => f.write_str("none"),
        }
    }
}

impl From<MaxAge> for String {
    fn from(age: MaxAge) -> Self {
        age.to_string()
    }
}

/// Parses sessions as JSON, and logs a warning about the first session that is a pickle. Later pickles are not logged,
/// because every user's cookie would repeat the warning. A pickle is a program, which the service never runs.
#[derive(Debug)]
pub struct PickleWarning {
    extractor: String,
    /// The advice on how to make this framework write JSON.
    fix: &'static str,
    logged: Once,
}

impl PickleWarning {
    pub fn new(extractor: &str, fix: &'static str) -> Self {
        Self {
            extractor: extractor.to_owned(),
            fix,
            logged: Once::new(),
        }
    }

    /// Like [`payload::json`], but logs the warning if the session is a pickle.
    pub fn json(&self, bytes: &[u8]) -> Result<Value, ExtractError> {
        if payload::is_pickle(bytes) {
            self.logged.call_once(|| {
                tracing::warn!(
                    extractor = self.extractor,
                    "the app's sessions are pickled, so all of them are refused: {}",
                    self.fix
                );
            });
        }
        payload::json(bytes)
    }
}

/// A whole session in one cookie, as JSON that may be compressed.
#[derive(Debug)]
pub struct SignedTimestampSession {
    pub verifier: SignedTimestampVerifier,
    pub pickle: PickleWarning,
}

impl CookieFormat for SignedTimestampSession {
    fn read(&self, _: &Cookie, value: &str, _: &Parts, now: UnixSeconds) -> Extracted {
        let verified = self.verifier.open(value, now)?;
        let json = payload::base64_or_zlib(verified.payload)?;
        Ok(Some(Session {
            attributes: self.pickle.json(&json)?,
            expires_at: verified.expires_at,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::reason::Reason;

    #[test]
    fn max_age_is_whole_seconds_up_to_100_years_or_none() {
        let parse = MaxAge::parse;
        assert_eq!(parse("14d"), Ok(MaxAge::days(14)));
        assert_eq!(parse("none").map(MaxAge::seconds), Ok(None));
        assert_eq!(
            parse("315360000s").map(|age| age.to_string()).as_deref(),
            Ok("3650d")
        );
        for text in [
            "",
            "0s",
            "0",
            "14",
            "-1d",
            "1500ms",
            "101y",
            "1000000000000000000s",
            "None",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert_eq!(
            parse("3600").unwrap_err(),
            "must be a duration with its unit: write \"3600s\" for seconds"
        );
    }

    #[test]
    fn pickled_session_is_payload_not_json_and_logs_a_warning() {
        let warning = PickleWarning::new("web", "use JSON");
        assert!(warning.json(b"{}").is_ok());
        assert!(!warning.logged.is_completed());
        let pickle = b"\x80\x02}q\x00X\x01\x00\x00\x00aq\x01K\x01s.";
        assert_eq!(
            warning.json(pickle),
            Err(ExtractError::rejected(Reason::PayloadNotJson))
        );
        assert!(warning.logged.is_completed());
    }
}
