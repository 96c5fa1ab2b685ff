//! Points in time as JavaScript and Ruby write them: RFC 3339 in UTC with a trailing `Z`, no other zone.

use std::time::UNIX_EPOCH;

use crate::clock::UnixSeconds;

/// `2026-11-25T00:22:33.135Z` as unix seconds, rounded down; `None` for any other form.
pub fn parse(text: &str) -> Option<UnixSeconds> {
    let moment = text.ends_with('Z').then(|| humantime::parse_rfc3339(text).ok())??;
    moment.duration_since(UNIX_EPOCH).ok()?.as_secs().try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_one_form_is_read_and_no_other() {
        for (text, want) in [
            ("1970-01-01T00:00:00Z", Some(0)),
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
            ("26-11-25T00:22:33Z", None),
            ("+2026-11-25T00:22:33Z", None),
            ("", None),
        ] {
            assert_eq!(parse(text), want, "{text}");
        }
    }
}
