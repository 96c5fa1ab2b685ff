//! Points in time as JavaScript and Ruby write them: ISO 8601 in UTC with a trailing `Z`, whose form is
//! fixed. Not a date library: no other zone, no other form.

use crate::clock::UnixSeconds;

/// `2026-11-25T00:22:33.135Z` as unix seconds, rounded down; `None` for any other form.
pub fn parse(text: &str) -> Option<UnixSeconds> {
    let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
    let (time, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let [year, month, day] = numbers(date, '-', [4, 2, 2])?;
    let [hour, minute, second] = numbers(time, ':', [2, 2, 2])?;
    let fraction_is_good =
        (1..=9).contains(&fraction.len()) && fraction.bytes().all(|byte| byte.is_ascii_digit());
    let date_is_good = (1..=12).contains(&month) && (1..=days_of(year, month)).contains(&day);
    if !fraction_is_good || !date_is_good || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    Some(((days_since_1970(year, month, day) * 24 + hour) * 60 + minute) * 60 + second)
}

fn numbers(text: &str, separator: char, lengths: [usize; 3]) -> Option<[i64; 3]> {
    let mut found = [0; 3];
    let mut parts = text.split(separator);
    for (number, length) in found.iter_mut().zip(lengths) {
        let part = parts.next()?;
        if part.len() != length || !part.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        *number = part.parse().ok()?;
    }
    parts.next().is_none().then_some(found)
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn days_of(year: i64, month: i64) -> i64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let before = year - 1;
    let leap_days = |years: i64| years / 4 - years / 100 + years / 400;
    let years = (year - 1970) * 365 + leap_days(before) - leap_days(1969);
    years + (1..month).map(|month| days_of(year, month)).sum::<i64>() + day - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_one_form_is_read_and_no_other() {
        for (text, want) in [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("1969-12-31T23:59:59Z", Some(-1)),
            ("2000-03-01T00:00:00.000Z", Some(951_868_800)),
            ("2024-02-29T12:00:00Z", Some(1_709_208_000)),
            ("2026-11-25T00:22:33.135Z", Some(1_795_566_153)),
            ("2100-01-01T00:00:00Z", Some(4_102_444_800)),
            ("9999-12-31T23:59:59.999Z", Some(253_402_300_799)),
            ("2023-02-29T12:00:00Z", None),
            ("2026-13-01T00:00:00Z", None),
            ("2026-00-01T00:00:00Z", None),
            ("2026-11-31T00:00:00Z", None),
            ("2026-11-25T24:00:00Z", None),
            ("2026-11-25T00:22:33", None),
            ("2026-11-25T00:22:33+00:00", None),
            ("2026-11-25 00:22:33Z", None),
            ("2026-11-25T00:22Z", None),
            ("2026-11-25T00:22:33.Z", None),
            ("26-11-25T00:22:33Z", None),
            ("+2026-11-25T00:22:33Z", None),
            ("", None),
        ] {
            assert_eq!(parse(text), want, "{text}");
        }
    }
}
