//! The times in the claims of a token whose seal or signature was already checked: RFC 7519,
//! sections 4.1.4 and 4.1.5.

use crate::clock::UnixSeconds;
use crate::json::{Object, Value};
use crate::session::types::ExtractError;

/// Beyond 2^53 JavaScript, which wrote the number, cannot count seconds any more.
const LATEST: UnixSeconds = 1 << 53;

/// When the token ends. `exp` must be there; `nbf` must be past if it is. `tolerance` is what the
/// framework grants for clocks that differ.
pub fn check(
    claims: &Object,
    now: UnixSeconds,
    tolerance: UnixSeconds,
) -> Result<UnixSeconds, ExtractError> {
    let expires_at = date(claims, "exp")?.ok_or_else(|| ExtractError::rejected("exp"))?;
    if expires_at <= now - tolerance {
        return Err(ExtractError::expired());
    }
    match date(claims, "nbf")? {
        Some(start) if start > now + tolerance => Err(ExtractError::rejected("not_yet_valid")),
        _ => Ok(expires_at),
    }
}

/// A claim that is a `NumericDate`, rounded down; `None` if it is not there.
pub fn date(claims: &Object, name: &'static str) -> Result<Option<UnixSeconds>, ExtractError> {
    let wrong = || ExtractError::rejected(name);
    let Some(value) = claims.get(name).map_err(|_| wrong())? else {
        return Ok(None);
    };
    let Value::Number(number) = value else {
        return Err(wrong());
    };
    #[expect(
        clippy::cast_possible_truncation,
        reason = "it saturates, and such a date is then refused"
    )]
    let rounded = || number.as_f64().map(|float| float.floor() as UnixSeconds);
    let seconds = number.as_i64().or_else(rounded).ok_or_else(wrong)?;
    if (-LATEST..=LATEST).contains(&seconds) {
        Ok(Some(seconds))
    } else {
        Err(wrong())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixSeconds = 1_800_000_000;

    fn checked(claims: &str) -> Result<UnixSeconds, ExtractError> {
        let claims = Value::parse(claims.as_bytes()).unwrap();
        check(claims.as_object().unwrap(), NOW, 15)
    }

    #[test]
    fn the_boundaries_are_exact() {
        for (claims, want) in [
            (r#"{"exp":1799999986}"#, Ok(1_799_999_986)),
            (r#"{"exp":1800000000.9}"#, Ok(NOW)),
            (r#"{"exp":1800000001,"nbf":1800000015}"#, Ok(NOW + 1)),
            (r#"{"exp":9007199254740992}"#, Ok(LATEST)),
            (r#"{"exp":1799999985}"#, Err(ExtractError::expired())),
            (r#"{"exp":1799999985.9}"#, Err(ExtractError::expired())),
            (r#"{"exp":0}"#, Err(ExtractError::expired())),
            (r#"{"exp":-1}"#, Err(ExtractError::expired())),
            (
                r#"{"exp":1800000001,"nbf":1800000016}"#,
                Err(ExtractError::rejected("not_yet_valid")),
            ),
            (
                r#"{"exp":1800000001,"nbf":"1"}"#,
                Err(ExtractError::rejected("nbf")),
            ),
            ("{}", Err(ExtractError::rejected("exp"))),
            (r#"{"exp":null}"#, Err(ExtractError::rejected("exp"))),
            (r#"{"exp":true}"#, Err(ExtractError::rejected("exp"))),
            (
                r#"{"exp":"1800000001"}"#,
                Err(ExtractError::rejected("exp")),
            ),
            (
                r#"{"exp":[1800000001]}"#,
                Err(ExtractError::rejected("exp")),
            ),
            (
                r#"{"exp":1800000001,"exp":1800000001}"#,
                Err(ExtractError::rejected("exp")),
            ),
            (
                r#"{"exp":9007199254740993}"#,
                Err(ExtractError::rejected("exp")),
            ),
            (
                r#"{"exp":18446744073709551615}"#,
                Err(ExtractError::rejected("exp")),
            ),
            (
                r#"{"exp":18446744073709551616}"#,
                Err(ExtractError::rejected("exp")),
            ),
            (r#"{"exp":1e300}"#, Err(ExtractError::rejected("exp"))),
            (r#"{"exp":-1e300}"#, Err(ExtractError::rejected("exp"))),
        ] {
            assert_eq!(checked(claims), want, "{claims}");
        }
    }
}
