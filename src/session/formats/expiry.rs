//! When a session ends, in the forms in which apps and stores write it.
//! Which member of a session says it is with each kind.

use std::time::UNIX_EPOCH;

use crate::clock::UnixSeconds;
use crate::json::Value;
use crate::session::types::ExtractError;

/// Seconds above this are milliseconds: as seconds it is the year 5138.
const MILLISECONDS_FROM: i64 = 100_000_000_000;

/// A moment, rounded down and up to whole seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expiry {
    pub floor: UnixSeconds,
    ceil: UnixSeconds,
}

impl Expiry {
    /// Unix seconds, unix milliseconds, either of them as text, or RFC 3339; `None` for anything else.
    pub fn read(value: &Value) -> Option<Self> {
        match value {
            Value::Number(number) => number.as_i64().map(Self::of_number),
            Value::String(text) => match text.parse() {
                Ok(number) => Some(Self::of_number(number)),
                Err(_) => Self::of_text(text),
            },
            Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
        }
    }

    fn of_number(number: i64) -> Self {
        if number < MILLISECONDS_FROM {
            return Self {
                floor: number,
                ceil: number,
            };
        }
        Self {
            floor: number / 1000,
            ceil: number / 1000 + i64::from(number % 1000 > 0),
        }
    }

    /// RFC 3339, section 5.6: a time with its zone.
    pub fn of_text(text: &str) -> Option<Self> {
        let (local, ahead) = if let Some(local) = text.strip_suffix(['Z', 'z']) {
            (local, 0)
        } else {
            let (local, zone) = text.split_at_checked(text.len().checked_sub("+00:00".len())?)?;
            (local, seconds_ahead(zone)?)
        };
        let moment = humantime::parse_rfc3339(&format!("{local}Z")).ok()?;
        let since = moment.duration_since(UNIX_EPOCH).ok()?;
        let floor = UnixSeconds::try_from(since.as_secs())
            .ok()?
            .checked_sub(ahead)?;
        Some(Self {
            floor,
            ceil: floor + i64::from(since.subsec_nanos() > 0),
        })
    }

    /// The same moment, so many seconds later.
    #[must_use]
    pub fn plus(self, seconds: i64) -> Self {
        Self {
            floor: self.floor.saturating_add(seconds),
            ceil: self.ceil.saturating_add(seconds),
        }
    }

    /// Refuses a session whose time is over.
    pub fn check(self, now: UnixSeconds) -> Result<UnixSeconds, ExtractError> {
        if now >= self.ceil {
            Err(ExtractError::expired())
        } else {
            Ok(self.floor)
        }
    }
}

/// `+02:00` as the seconds by which local time is ahead.
fn seconds_ahead(zone: &str) -> Option<UnixSeconds> {
    let (sign, rest) = match zone.split_at_checked(1)? {
        ("+", rest) => (1, rest),
        ("-", rest) => (-1, rest),
        _ => return None,
    };
    let (hours, minutes) = rest.split_once(':')?;
    let number = |digits: &str| {
        let is_two = digits.len() == 2 && digits.bytes().all(|byte| byte.is_ascii_digit());
        is_two.then(|| digits.parse::<UnixSeconds>().ok()).flatten()
    };
    Some(sign * (number(hours)? * 3600 + number(minutes)? * 60))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_is_read_and_anything_else_is_not() {
        for (json, want) in [
            ("1795565550", Some((1_795_565_550, 1_795_565_550))),
            ("1795565550000", Some((1_795_565_550, 1_795_565_550))),
            ("1795565550001", Some((1_795_565_550, 1_795_565_551))),
            (
                "\"2026-11-25T00:12:30Z\"",
                Some((1_795_565_550, 1_795_565_550)),
            ),
            (
                "\"2026-11-25T00:12:30.750Z\"",
                Some((1_795_565_550, 1_795_565_551)),
            ),
            (
                "\"2026-11-25T00:12:30.75+00:00\"",
                Some((1_795_565_550, 1_795_565_551)),
            ),
            (
                "\"2026-11-25T02:12:30.75+02:00\"",
                Some((1_795_565_550, 1_795_565_551)),
            ),
            (
                "\"2026-11-24T18:42:30z\"",
                Some((1_795_545_750, 1_795_545_750)),
            ),
            (
                "\"2026-11-24T18:42:30-05:30\"",
                Some((1_795_565_550, 1_795_565_550)),
            ),
            (
                "\"2024-02-29T12:00:00Z\"",
                Some((1_709_208_000, 1_709_208_000)),
            ),
            (
                "\"9999-12-31T23:59:59Z\"",
                Some((253_402_300_799, 253_402_300_799)),
            ),
            ("\"1795565550\"", Some((1_795_565_550, 1_795_565_550))),
            ("\"1795565550001\"", Some((1_795_565_550, 1_795_565_551))),
            ("\"2026-11-25T00:12:30\"", None),
            ("\"2026-11-25 00:12:30\"", None),
            ("\"2026-11-25T00:12:30+1:00\"", None),
            ("\"2026-11-25T00:12:30+0100\"", None),
            ("\"2026-11-25T00:12:30~01:00\"", None),
            ("\"2026-11-25T00:12Z\"", None),
            ("\"2026-11-25T24:00:00Z\"", None),
            ("\"2026-13-01T00:00:00Z\"", None),
            ("\"2023-02-29T12:00:00Z\"", None),
            ("\"26-11-25T00:12:30Z\"", None),
            ("\"+2026-11-25T00:12:30Z\"", None),
            ("\"1969-12-31T00:00:00Z\"", None),
            ("\"tomorrow\"", None),
            ("\"é00:00\"", None),
            ("\"\"", None),
            ("1e300", None),
            ("true", None),
        ] {
            let value = Value::parse(json.as_bytes()).unwrap();
            assert_eq!(
                Expiry::read(&value).map(|it| (it.floor, it.ceil)),
                want,
                "{json}"
            );
        }
    }

    #[test]
    fn a_session_lives_until_its_last_moment() {
        let expiry = Expiry {
            floor: 29,
            ceil: 30,
        };
        assert_eq!(expiry.check(29), Ok(29));
        assert_eq!(expiry.check(30), Err(ExtractError::expired()));
    }
}
