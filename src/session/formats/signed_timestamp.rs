//! `PAYLOAD SEPARATOR STAMP SEPARATOR SIGNATURE`, the form in which itsdangerous' `TimestampSigner`
//! (`timed.py`) and Django's (`django/core/signing.py`) sign a text together with the time.
//! How the keys are made differs, and is not here.

use std::fmt;
use std::time::Duration;

use aws_lc_rs::hmac;
use axum::http::request::Parts;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};
use serde::{Deserialize, Serialize};

use crate::clock::{Clock, UnixSeconds};
use crate::config::{HumanDuration, Problems, Section};
use crate::session::formats::payload::{self, PickleWarning};
use crate::session::sections::cookie::Cookie;
use crate::session::types::{ExtractError, Extracted, Reach, Session, SessionExtractor};

/// The HMAC over SHA-1, which these frameworks still sign with. Its weakness is one of collisions,
/// which do not help to forge an HMAC.
pub const HMAC_SHA1: hmac::Algorithm = hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY;

/// The HMAC algorithm that the text under `key` names, as Node and Python spell it.
pub fn algorithm(
    section: &Section<'_>,
    key: &str,
    name: &str,
    problems: &mut Problems,
) -> Option<hmac::Algorithm> {
    let algorithm = match name {
        "sha1" => Some(HMAC_SHA1),
        "sha256" => Some(hmac::HMAC_SHA256),
        "sha384" => Some(hmac::HMAC_SHA384),
        "sha512" => Some(hmac::HMAC_SHA512),
        _ => None,
    };
    problems.require(
        algorithm.is_some(),
        section.key(key),
        "must be one of sha1, sha256, sha384, sha512",
    );
    algorithm
}

/// How long a cookie is good after its stamp: a duration, or `"none"` for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MaxAge(Option<Duration>);

impl MaxAge {
    pub const fn days(days: u64) -> Self {
        Self(Some(Duration::from_secs(days * 24 * 60 * 60)))
    }

    /// In seconds; `None` if the age is not checked.
    pub fn seconds(self) -> Option<UnixSeconds> {
        self.0
            .map(|age| UnixSeconds::try_from(age.as_secs()).unwrap_or(UnixSeconds::MAX))
    }

    /// Refuses `"none"`, for a framework that always checks the age.
    pub fn require(self, section: &Section<'_>, problems: &mut Problems) {
        problems.require(
            self.0.is_some(),
            section.key("max_age"),
            "must be a duration: the framework itself always checks the age",
        );
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

impl TryFrom<String> for MaxAge {
    type Error = &'static str;

    /// Not a [`HumanDuration`], which ends at 400 days: apps that never sign anybody out say ten years.
    fn try_from(text: String) -> Result<Self, Self::Error> {
        const LONGEST: Duration = Duration::from_secs(36_525 * 24 * 60 * 60);
        match humantime::parse_duration(&text) {
            _ if text == "none" => Ok(Self(None)),
            Ok(age) if age > LONGEST => Err("is longer than 100 years"),
            Ok(age) if age.as_secs() > 0 && age.subsec_nanos() == 0 => Ok(Self(Some(age))),
            Ok(_) | Err(_) => {
                Err("must be a duration in whole seconds with its unit, such as \"14d\"")
            }
        }
    }
}

/// Checks the signature and the age of a stamped text.
#[derive(Debug)]
pub struct Stamped {
    pub separator: char,
    /// All verify; which of them signs is the app's business.
    pub keys: Vec<hmac::Key>,
    /// Reads a stamp.
    pub stamp: fn(&str) -> Option<UnixSeconds>,
    /// In seconds; `None` if the age is not checked.
    pub max_age: Option<UnixSeconds>,
    /// How many seconds a stamp may lie ahead of our clock.
    pub leeway: UnixSeconds,
}

/// What a genuine text holds.
#[derive(Debug, PartialEq, Eq)]
pub struct Opened<'a> {
    /// Not decoded yet.
    pub payload: &'a str,
    pub expires_at: Option<UnixSeconds>,
}

impl Stamped {
    /// Opens `text` if it is signed by one of the keys and `now` is within its time.
    pub fn open<'a>(&self, text: &'a str, now: UnixSeconds) -> Result<Opened<'a>, ExtractError> {
        let malformed = || ExtractError::rejected("malformed");
        let (signed, signature) = text.rsplit_once(self.separator).ok_or_else(malformed)?;
        if !self.is_signed(signed, signature) {
            return Err(ExtractError::rejected("bad_signature"));
        }
        let (payload, stamp) = signed.rsplit_once(self.separator).ok_or_else(malformed)?;
        let stamp = (self.stamp)(stamp).ok_or_else(malformed)?;
        if stamp > now.saturating_add(self.leeway) {
            return Err(ExtractError::rejected("from_the_future"));
        }
        let expires_at = self.max_age.map(|age| stamp.saturating_add(age));
        // The last second counts: both libraries refuse an age that is greater than the limit.
        if expires_at.is_some_and(|end| now > end) {
            return Err(ExtractError::expired());
        }
        Ok(Opened {
            payload,
            expires_at,
        })
    }

    /// Tries every key, so that the time does not tell which one fits.
    fn is_signed(&self, text: &str, signature: &str) -> bool {
        let Ok(signature) = URL_SAFE_NO_PAD.decode(signature) else {
            return false;
        };
        let signs = |key| hmac::verify(key, text.as_bytes(), &signature).is_ok();
        self.keys
            .iter()
            .fold(false, |signed, key| signed | signs(key))
    }
}

/// The whole session in one cookie, as JSON that may be compressed: Flask's way, and Django's.
#[derive(Debug)]
pub struct StampedSession {
    pub cookie: Cookie,
    pub signer: Stamped,
    pub pickle: PickleWarning,
    pub clock: Clock,
}

impl StampedSession {
    fn session(&self, request: &Parts) -> Extracted {
        let Some(text) = self.cookie.find(request)? else {
            return Ok(None);
        };
        let opened = self.signer.open(text, self.clock.now())?;
        let attributes = self
            .pickle
            .json(&payload::base64_or_zlib(opened.payload)?)?;
        Ok(Some(Session {
            attributes,
            expires_at: opened.expires_at,
        }))
    }
}

impl SessionExtractor for StampedSession {
    fn extract<'a>(&'a self, request: &'a Parts) -> BoxFuture<'a, Extracted> {
        ready(self.session(request)).boxed()
    }

    fn reach(&self) -> Reach {
        Reach::cookie(self.cookie.name())
    }
}

/// Stamps of itsdangerous since 1.1: seconds since 1970, big-endian without leading zero bytes, in
/// base64 of the URL alphabet.
pub fn itsdangerous(stamp: &str) -> Option<UnixSeconds> {
    let bytes = URL_SAFE_NO_PAD.decode(stamp).ok()?;
    if bytes.len() > 8 {
        return None;
    }
    let seconds = bytes
        .iter()
        .fold(0u64, |seconds, byte| seconds << 8 | u64::from(*byte));
    seconds.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixSeconds = 1_800_000_000;

    fn signer(max_age: Option<UnixSeconds>) -> Stamped {
        let keys = ["first", "second"].map(|key| hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes()));
        let stamp = |text: &str| text.parse().ok();
        Stamped {
            separator: '.',
            keys: keys.to_vec(),
            stamp,
            max_age,
            leeway: 30,
        }
    }

    fn sign(key: &str, text: &str) -> String {
        let key = hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes());
        format!(
            "{text}.{}",
            URL_SAFE_NO_PAD.encode(hmac::sign(&key, text.as_bytes()))
        )
    }

    fn word(text: &str) -> &'static str {
        signer(Some(60))
            .open(text, NOW)
            .expect_err("a refusal")
            .word()
    }

    #[test]
    fn every_key_opens_and_no_other() {
        for key in ["first", "second"] {
            let text = sign(key, &format!(".a.b.{NOW}"));
            let opened = Opened {
                payload: ".a.b",
                expires_at: Some(NOW + 60),
            };
            assert_eq!(signer(Some(60)).open(&text, NOW), Ok(opened));
        }
        assert_eq!(word(&sign("third", &format!("a.{NOW}"))), "bad_signature");
    }

    #[test]
    fn the_signature_is_read_strictly_and_before_anything_else() {
        let good = sign("first", &format!("a.{NOW}"));
        for (case, text, want) in [
            ("padded", format!("{good}="), "bad_signature"),
            ("empty", format!("a.{NOW}."), "bad_signature"),
            ("half", good[..good.len() - 20].to_owned(), "bad_signature"),
            (
                "bad stamp, unsigned",
                "a.x.AAAA".to_owned(),
                "bad_signature",
            ),
            ("bad stamp, signed", sign("first", "a.x"), "malformed"),
            ("no stamp, signed", sign("first", "a"), "malformed"),
            ("no separator", "garbage".to_owned(), "malformed"),
            ("only separators", "...".to_owned(), "bad_signature"),
        ] {
            assert_eq!(word(&text), want, "{case}");
        }
    }

    #[test]
    fn time_has_two_sharp_ends() {
        let text = sign("first", &format!("a.{NOW}"));
        for (now, want) in [
            (NOW + 60, Ok(())),
            (NOW + 61, Err(ExtractError::expired())),
            (NOW - 30, Ok(())),
            (NOW - 31, Err(ExtractError::rejected("from_the_future"))),
            (UnixSeconds::MAX, Err(ExtractError::expired())),
        ] {
            assert_eq!(signer(Some(60)).open(&text, now).map(|_| ()), want, "{now}");
        }
        let for_ever = signer(None).open(&text, UnixSeconds::MAX);
        assert_eq!(for_ever.map(|opened| opened.expires_at), Ok(None));
        let far = sign("first", &format!("a.{}", UnixSeconds::MAX));
        assert_eq!(word(&far), "from_the_future");
    }

    #[test]
    fn stamps_of_itsdangerous() {
        for (stamp, want) in [
            ("awYopw", Some(1_795_565_735)),
            ("", Some(0)),
            ("_w", Some(255)),
            ("f_________8", Some(UnixSeconds::MAX)),
            ("gAAAAAAAAAA", None),
            ("AQAAAAAAAAAA", None),
            ("awYopw==", None),
            ("awYopx", None),
            ("1795565735!", None),
        ] {
            assert_eq!(itsdangerous(stamp), want, "{stamp}");
        }
    }

    #[test]
    fn an_age_is_a_duration_or_none() {
        let parse = |text: &str| MaxAge::try_from(text.to_owned());
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
    }
}
