//! Checks `exp` and `nbf` (RFC 7519, sections 4.1.4 and 4.1.5) in claims that have already been decrypted or verified.

use crate::clock::UnixSeconds;
use crate::json::{Object, Value};
use crate::session::reason::Reason;
use crate::session::types::ExtractError;

/// The latest time that is accepted, 2^53 s. JavaScript libraries write these claims, and JavaScript represents every
/// integer up to this value exactly.
const LATEST: UnixSeconds = 1 << 53;

/// Checks the times, and returns the token's expiry. `exp` is required; `nbf`, if present, must have passed.
/// `tolerance` is the clock difference that the framework allows, in seconds.
///
/// # Errors
/// `Rejected` if `exp` is missing, if a time is malformed, or if the token has expired or is not valid yet.
pub fn check(
    claims: &Object,
    now: UnixSeconds,
    tolerance: UnixSeconds,
) -> Result<UnixSeconds, ExtractError> {
    let expires_at = date(claims, "exp")?.ok_or_else(|| ExtractError::rejected(Reason::Exp))?;
    if expires_at <= now - tolerance {
        return Err(ExtractError::expired_at(expires_at, now));
    }
    match date(claims, "nbf")? {
        Some(start) if start > now + tolerance => {
            let reason = Reason::NotYetValid;
            Err(ExtractError::ahead(reason, "nbf", start, now, tolerance))
        }
        _ => Ok(expires_at),
    }
}

/// The claim `name` as a `NumericDate`, rounded down; `None` if the claim is absent.
///
/// # Errors
/// `Rejected` if the claim is not a number, is out of range or occurs twice.
pub fn date(claims: &Object, name: &'static str) -> Result<Option<UnixSeconds>, ExtractError> {
    let wrong = || {
        ExtractError::rejected(match name {
            "exp" => Reason::Exp,
            "nbf" => Reason::Nbf,
            "iat" => Reason::Iat,
            _ => Reason::Malformed,
        })
    };
    let Some(value) = claims.get(name).map_err(|_| wrong())? else {
        return Ok(None);
    };
    let (seconds, _) = numeric_date(value).ok_or_else(wrong)?;
    if (-LATEST..=LATEST).contains(&seconds) {
        Ok(Some(seconds))
    } else {
        Err(wrong())
    }
}

/// A `NumericDate` (RFC 7519, section 2), rounded down and up to whole seconds, because it may have a fraction; `None`
/// if the value is not a number.
pub fn numeric_date(value: &Value) -> Option<(UnixSeconds, UnixSeconds)> {
    let Value::Number(number) = value else {
        return None;
    };
    if let Some(seconds) = number.as_i64() {
        return Some((seconds, seconds));
    }
    let seconds = number.as_f64()?;
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a cast from a float saturates"
    )]
    Some((
        seconds.floor() as UnixSeconds,
        seconds.ceil() as UnixSeconds,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixSeconds = 1_800_000_000;

    fn checked(claims: &str) -> Result<UnixSeconds, Reason> {
        let claims = Value::parse(claims.as_bytes()).unwrap();
        check(claims.as_object().unwrap(), NOW, 15).map_err(|error| error.reason())
    }

    #[test]
    fn exp_and_nbf_are_checked_with_tolerance_and_malformed_dates_are_refused() {
        for (claims, want) in [
            (r#"{"exp":1799999986}"#, Ok(1_799_999_986)),
            (r#"{"exp":1800000000.9}"#, Ok(NOW)),
            (r#"{"exp":1800000001,"nbf":1800000015}"#, Ok(NOW + 1)),
            (r#"{"exp":9007199254740992}"#, Ok(LATEST)),
            (r#"{"exp":1799999985}"#, Err(Reason::Expired)),
            (r#"{"exp":1799999985.9}"#, Err(Reason::Expired)),
            (r#"{"exp":0}"#, Err(Reason::Expired)),
            (r#"{"exp":-1}"#, Err(Reason::Expired)),
            (
                r#"{"exp":1800000001,"nbf":1800000016}"#,
                Err(Reason::NotYetValid),
            ),
            (r#"{"exp":1800000001,"nbf":"1"}"#, Err(Reason::Nbf)),
            ("{}", Err(Reason::Exp)),
            (r#"{"exp":null}"#, Err(Reason::Exp)),
            (r#"{"exp":true}"#, Err(Reason::Exp)),
            (r#"{"exp":"1800000001"}"#, Err(Reason::Exp)),
            (r#"{"exp":[1800000001]}"#, Err(Reason::Exp)),
            (r#"{"exp":1800000001,"exp":1800000001}"#, Err(Reason::Exp)),
            (r#"{"exp":9007199254740993}"#, Err(Reason::Exp)),
            (r#"{"exp":18446744073709551615}"#, Err(Reason::Exp)),
            (r#"{"exp":18446744073709551616}"#, Err(Reason::Exp)),
            (r#"{"exp":1e300}"#, Err(Reason::Exp)),
            (r#"{"exp":-1e300}"#, Err(Reason::Exp)),
        ] {
            assert_eq!(checked(claims), want, "{claims}");
        }
    }

    #[test]
    fn malformed_date_is_refused_with_the_reason_of_its_claim() {
        let claims = br#"{"exp":"1","nbf":"1","iat":"1","auth_time":"1"}"#;
        let claims = Value::parse(claims).unwrap();
        for (name, want) in [
            ("exp", Reason::Exp),
            ("nbf", Reason::Nbf),
            ("iat", Reason::Iat),
            ("auth_time", Reason::Malformed),
        ] {
            let refused = date(claims.as_object().unwrap(), name);
            assert_eq!(refused, Err(ExtractError::rejected(want)), "{name}");
        }
    }
}
