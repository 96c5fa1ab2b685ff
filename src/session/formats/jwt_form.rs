//! Recognises a JWT by its form and reads its algorithm and issuer, without verification. The result selects the
//! extractor for a credential before a key is fetched or a backend is called.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::json::{Object, Value};
use crate::session::types::ExtractError;

/// The unverified algorithm and issuer of a JWT.
#[derive(Debug, PartialEq, Eq)]
pub struct JwtForm {
    pub alg: String,
    pub issuer: Option<String>,
}

/// Splits a JWT into header, payload and signature: three parts in base64url (RFC 7515, section 3.1), padded or not;
/// `None` if the text has another form.
pub fn parts(text: &str) -> Option<[&str; 3]> {
    let (header, rest) = text.split_once('.')?;
    let (payload, signature) = rest.split_once('.')?;
    let parts = [header, payload, signature];
    parts.iter().all(|part| is_base64url(part)).then_some(parts)
}

fn is_base64url(part: &str) -> bool {
    part.trim_end_matches('=')
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

/// Reads the algorithm and issuer of `text`; `None` if it is not a JWT.
///
/// # Errors
/// `Rejected` if the payload is not a JSON object, or if `alg` or `iss` is not a string or occurs twice.
pub fn read(text: &str) -> Result<Option<JwtForm>, ExtractError> {
    let parts = parts(text).and_then(|[header, payload, _]| Some((decode(header)?, payload)));
    let Some((header, payload)) = parts else {
        return Ok(None);
    };
    let Some(alg) = alg(&header)? else {
        return Ok(None);
    };
    let payload = decode(payload);
    let claims = payload.as_ref().and_then(Value::as_object);
    let issuer = issuer(claims.ok_or_else(|| unreadable("the payload is not a JSON object"))?)?;
    Ok(Some(JwtForm {
        alg: alg.to_owned(),
        issuer: issuer.map(str::to_owned),
    }))
}

/// Whether `text` is a JWT, even if its `alg` or `iss` is unreadable.
pub fn is_jwt(text: &str) -> bool {
    parts(text)
        .and_then(|[header, ..]| decode(header))
        .is_some_and(|header| alg(&header) != Ok(None))
}

/// Decodes one part of a JWT as JSON.
pub fn decode(part: &str) -> Option<Value> {
    Value::parse(&URL_SAFE_NO_PAD.decode(part.trim_end_matches('=')).ok()?).ok()
}

/// The header's `alg`; `None` if the header is not an object or has no `alg`.
pub fn alg(header: &Value) -> Result<Option<&str>, ExtractError> {
    header
        .as_object()
        .map_or(Ok(None), |header| text(header, "alg"))
}

/// Whether the algorithm signs with a shared secret (RFC 7518, section 3.1); `None` for an unknown algorithm.
pub fn is_hmac(alg: &str) -> Option<bool> {
    match alg.get(..2)? {
        "HS" => Some(true),
        "RS" | "PS" | "ES" | "Ed" => Some(false),
        _ => None,
    }
}

/// The payload's `iss`, if present.
pub fn issuer(claims: &Object) -> Result<Option<&str>, ExtractError> {
    text(claims, "iss")
}

fn text<'a>(object: &'a Object, name: &str) -> Result<Option<&'a str>, ExtractError> {
    match object.get(name) {
        Ok(None) => Ok(None),
        Ok(Some(Value::String(text))) => Ok(Some(text)),
        Ok(Some(_)) => Err(unreadable(&format!("{name} is not a string"))),
        Err(_) => Err(unreadable(&format!("{name} occurs twice"))),
    }
}

fn unreadable(detail: &str) -> ExtractError {
    ExtractError::malformed().because(detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(header: &str, payload: &str) -> String {
        let encode = |part: &str| URL_SAFE_NO_PAD.encode(part);
        format!("{}.{}.c2ln", encode(header), encode(payload))
    }

    #[test]
    fn three_parts_with_alg_in_the_header_are_a_jwt() {
        let form = |alg: &str, issuer: Option<&str>| {
            Ok(Some(JwtForm {
                alg: alg.to_owned(),
                issuer: issuer.map(str::to_owned),
            }))
        };
        for (text, want) in [
            (
                token(r#"{"alg":"RS256"}"#, r#"{"iss":"https://a"}"#),
                form("RS256", Some("https://a")),
            ),
            (token(r#"{"alg":"none"}"#, "{}"), form("none", None)),
            (
                token(r#"{"typ":"JWT"}"#, r#"{"iss":"https://a"}"#),
                Ok(None),
            ),
            (token("[]", "{}"), Ok(None)),
            ("opaque".to_owned(), Ok(None)),
            ("a.b.c".to_owned(), Ok(None)),
            (format!("{}.x", token(r#"{"alg":"RS256"}"#, "{}")), Ok(None)),
            (
                token(r#"{"alg":"RS256"}"#, "{}").replace('.', "!."),
                Ok(None),
            ),
        ] {
            assert_eq!(is_jwt(&text), want != Ok(None), "{text}");
            assert_eq!(read(&text), want, "{text}");
        }
    }

    #[test]
    fn only_an_algorithm_that_begins_with_hs_is_hmac_and_an_unknown_algorithm_returns_none() {
        for (alg, want) in [
            ("HS256", Some(true)),
            ("HS512", Some(true)),
            ("RS256", Some(false)),
            ("PS384", Some(false)),
            ("ES256", Some(false)),
            ("EdDSA", Some(false)),
            ("none", None),
            ("hs256", None),
            ("H", None),
            ("", None),
        ] {
            assert_eq!(is_hmac(alg), want, "{alg}");
        }
    }

    #[test]
    fn unreadable_or_duplicate_alg_or_iss_is_rejected() {
        for (header, payload) in [
            (r#"{"alg":5}"#, "{}"),
            (r#"{"alg":null}"#, "{}"),
            (r#"{"alg":"RS256","alg":"HS256"}"#, "{}"),
            (r#"{"alg":"RS256"}"#, r#"{"iss":5}"#),
            (r#"{"alg":"RS256"}"#, r#"{"iss":"a","iss":"b"}"#),
            (r#"{"alg":"RS256"}"#, "text"),
        ] {
            let text = token(header, payload);
            assert_eq!(
                read(&text).map_err(|error| error.reason().as_str()),
                Err("malformed"),
                "{header} {payload}"
            );
            assert!(is_jwt(&text), "{header} {payload}");
        }
    }
}
