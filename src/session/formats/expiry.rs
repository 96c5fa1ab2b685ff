//! Parses the expiry of a session in the formats that apps and stores write.

use std::time::UNIX_EPOCH;

use crate::clock::UnixSeconds;
use crate::json::Value;
use crate::session::formats::jwt_times;
use crate::session::types::ExtractError;

/// Numbers from this one on are read as milliseconds. As seconds, they would be times in November 5138 or later.
const MILLISECONDS_FROM: i64 = 100_000_000_000;
/// The end of the year 9999 in milliseconds, which is the latest time that RFC 3339 can represent. A larger number must
/// be in another unit, and is refused.
const LATEST: i64 = 253_402_300_799_999;

/// A time, both rounded down and rounded up to whole seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expiry {
    pub floor: UnixSeconds,
    ceil: UnixSeconds,
}

impl Expiry {
    /// Reads Unix seconds or milliseconds (a number, or a string with an integer), an RFC 3339 time, or an HTTP date
    /// (RFC 9110, section 5.6.7), which is Flask's form of a `datetime`; `None` for anything else. A number may have a
    /// fraction, as in Python's `time.time()`.
    pub fn read(value: &Value) -> Option<Self> {
        match value {
            Value::Number(_) => {
                let (floor, ceil) = jwt_times::numeric_date(value)?;
                Self::of_number(floor, ceil)
            }
            Value::String(text) => match text.parse() {
                Ok(number) => Self::of_number(number, number),
                Err(_) => Self::of_text(text).or_else(|| Self::of_http_date(text)),
            },
            Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
        }
    }

    /// Reads a number of seconds or milliseconds, which is given both rounded down and rounded up; `None` if it is
    /// greater than [`LATEST`].
    fn of_number(floor: i64, ceil: i64) -> Option<Self> {
        match ceil {
            ..MILLISECONDS_FROM => Some(Self { floor, ceil }),
            MILLISECONDS_FROM..=LATEST => Some(Self {
                floor: floor / 1000,
                ceil: ceil / 1000 + i64::from(ceil % 1000 > 0),
            }),
            _ => None,
        }
    }

    fn of_http_date(text: &str) -> Option<Self> {
        let time = httpdate::parse_http_date(text).ok()?;
        let seconds = time.duration_since(UNIX_EPOCH).ok()?.as_secs();
        let seconds = UnixSeconds::try_from(seconds).ok()?;
        Some(Self {
            floor: seconds,
            ceil: seconds,
        })
    }

    /// Reads a time with its zone offset (RFC 3339, section 5.6); `None` if the text has another form, or if its local
    /// time is before 1970.
    pub fn of_text(text: &str) -> Option<Self> {
        let (local, offset) = if let Some(local) = text.strip_suffix(['Z', 'z']) {
            (local, 0)
        } else {
            let (local, zone) = text.split_at_checked(text.len().checked_sub("+00:00".len())?)?;
            (local, offset_in_seconds(zone)?)
        };
        let time = humantime::parse_rfc3339(&format!("{local}Z")).ok()?;
        let since = time.duration_since(UNIX_EPOCH).ok()?;
        let floor = UnixSeconds::try_from(since.as_secs())
            .ok()?
            .checked_sub(offset)?;
        Some(Self {
            floor,
            ceil: floor + i64::from(since.subsec_nanos() > 0),
        })
    }

    /// The time that is `seconds` later.
    #[must_use]
    pub fn plus(self, seconds: i64) -> Self {
        Self {
            floor: self.floor.saturating_add(seconds),
            ceil: self.ceil.saturating_add(seconds),
        }
    }

    /// Returns the expiry, rounded down, if it is still in the future.
    ///
    /// # Errors
    /// `Rejected` as expired if `now` is at or after the expiry, rounded up.
    pub fn check(self, now: UnixSeconds) -> Result<UnixSeconds, ExtractError> {
        if now >= self.ceil {
            Err(ExtractError::expired_at(self.floor, now))
        } else {
            Ok(self.floor)
        }
    }
}

/// The offset of a time zone such as `+02:00`, in seconds.
fn offset_in_seconds(zone: &str) -> Option<UnixSeconds> {
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
    fn only_seconds_milliseconds_rfc_3339_and_http_dates_are_read_as_an_expiry() {
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
            ("253402300799999", Some((253_402_300_799, 253_402_300_800))),
            ("1795565549.5", Some((1_795_565_549, 1_795_565_550))),
            ("1795565549000.5", Some((1_795_565_549, 1_795_565_550))),
            ("-1.5", Some((-2, -1))),
            (
                "\"Wed, 25 Nov 2026 00:12:30 GMT\"",
                Some((1_795_565_550, 1_795_565_550)),
            ),
            ("\"Wed, 25 Nov 2026 00:12:30\"", None),
            ("\"Wed, 25 Nov 1926 00:12:30 GMT\"", None),
            ("\"1795565549.5\"", None),
            ("null", None),
            ("[1795565549]", None),
            ("253402300800000", None),
            ("1795565550000000", None),
            ("\"1795565550000000000\"", None),
            ("\"2026-11-25T00:12:30\"", None),
            ("\"2026-11-25 00:12:30\"", None),
            ("\"2026-11-25T00:12:30+1:00\"", None),
            ("\"2026-11-25T00:12:30+0100\"", None),
            ("\"2026-11-25T00:12:30+1:000\"", None),
            ("\"2026-11-25T00:12:30+-1:00\"", None),
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
    fn session_whose_expiry_has_a_fraction_expires_at_the_next_whole_second() {
        let expiry = Expiry {
            floor: 29,
            ceil: 30,
        };
        assert_eq!(expiry.check(29), Ok(29));
        assert_eq!(expiry.check(30), Err(ExtractError::expired_at(29, 30)));
    }
}
