//! The parts that signed and encrypted Rails cookies have in common: the signature (except with AES-GCM), and the
//! metadata around the value.
//!
//! Format: Rails `activesupport/lib/active_support/message_verifier.rs`, `messages/metadata.rb`.

use std::fmt;
use std::num::NonZeroU32;

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::clock::UnixSeconds;
use crate::json::{Object, Value};
use crate::session::formats::expiry::Expiry;
use crate::session::formats::hex;
use crate::session::formats::payload;
use crate::session::reason::Reason;
use crate::session::types::ExtractError;

/// The number of iterations of `ActiveSupport::KeyGenerator` with the default settings of a Rails application.
pub const ITERATIONS: NonZeroU32 = NonZeroU32::new(1000).expect("not zero");

/// The advice for an app that uses the Marshal serializer.
pub const SERIALIZER_ADVICE: &str = "set config.action_dispatch.cookies_serializer = :json in the Rails app (or \
                                     :hybrid, until all cookies are rewritten)";

/// The decoded data of `DATA--SIGNATURE`; `None` if the signature is missing or invalid, or the data is not base64. The
/// signature covers the data in base64.
pub fn verify(key: &hmac::Key, text: &str) -> Option<Vec<u8>> {
    let (data, signature) = text.rsplit_once("--")?;
    hmac::verify(key, data.as_bytes(), &hex::decode(signature)?).ok()?;
    STANDARD.decode(data).ok()
}

/// The value of a cookie, and its metadata. `Debug` does not show the value, which is the session.
#[derive(PartialEq)]
pub struct CookieValue {
    pub value: Value,
    /// The value's purpose: `cookie.` followed by the cookie's name; `None` if the app writes no metadata
    /// (`config.load_defaults` below 6.0).
    pub purpose: Option<String>,
    pub expires_at: Option<UnixSeconds>,
}

impl fmt::Debug for CookieValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CookieValue")
            .field("purpose", &self.purpose)
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}

impl CookieValue {
    /// Parses the bytes that were signed or encrypted.
    ///
    /// # Errors
    /// `Rejected` if the value is not JSON, or the metadata is malformed.
    pub fn parse(bytes: &[u8]) -> Result<Self, ExtractError> {
        let value = json(bytes)?;
        let Some(metadata) = metadata(&value)? else {
            return Ok(Self {
                value,
                purpose: None,
                expires_at: None,
            });
        };
        let expires_at = match text(metadata, "exp")? {
            Some(time) => Some(
                Expiry::of_text(time)
                    .ok_or_else(ExtractError::malformed)?
                    .floor,
            ),
            None => None,
        };
        let message = text(metadata, "message")?.ok_or_else(ExtractError::malformed)?;
        Ok(Self {
            value: json(
                &STANDARD
                    .decode(message)
                    .map_err(|_| ExtractError::malformed())?,
            )?,
            purpose: text(metadata, "pur")?.map(str::to_owned),
            expires_at,
        })
    }

    /// # Errors
    /// `Rejected` if the value was made for another purpose or has expired. Rails also accepts a value without
    /// metadata, which may have been made for any purpose; this service does so only with `allow_missing_purpose`.
    pub fn check(
        &self,
        purpose: &str,
        allow_missing_purpose: bool,
        now: UnixSeconds,
    ) -> Result<(), ExtractError> {
        let refused = |detail| Err(ExtractError::rejected(Reason::Purpose).because(detail));
        match &self.purpose {
            Some(found) if found == purpose => {}
            None if allow_missing_purpose => {}
            Some(_) => {
                return refused(
                    "the value was made for another purpose: check `cookie` and `purpose`",
                );
            }
            None => {
                return refused(
                    "the value has no purpose: turn on use_cookies_with_metadata in the Rails app, or, in a section of \
                     kind rails, set allow_missing_purpose = true",
                );
            }
        }
        if let Some(end) = self.expires_at.filter(|end| now >= *end) {
            return Err(ExtractError::expired_at(end, now));
        }
        Ok(())
    }
}

fn json(bytes: &[u8]) -> Result<Value, ExtractError> {
    if payload::is_marshal(bytes) {
        return Err(ExtractError::rejected(Reason::PayloadNotJson).because(SERIALIZER_ADVICE));
    }
    Value::parse(bytes).map_err(|_| ExtractError::rejected(Reason::PayloadNotJson))
}

/// The metadata around the value, `{"_rails": {…}}`; `None` if the value has no metadata, and `Rejected` if `_rails` is
/// not an object or occurs twice.
fn metadata(value: &Value) -> Result<Option<&Object>, ExtractError> {
    let Value::Object(object) = value else {
        return Ok(None);
    };
    match object.get("_rails") {
        Ok(None) => Ok(None),
        Ok(Some(Value::Object(metadata))) => Ok(Some(metadata)),
        Ok(Some(_)) | Err(_) => Err(ExtractError::malformed()),
    }
}

/// A member that is a string; `None` if it is absent or null, and `Rejected` if it has another type or occurs twice.
fn text<'a>(object: &'a Object, name: &str) -> Result<Option<&'a str>, ExtractError> {
    match object.get(name) {
        Ok(None | Some(Value::Null)) => Ok(None),
        Ok(Some(Value::String(text))) => Ok(Some(text)),
        Ok(Some(_)) | Err(_) => Err(ExtractError::malformed()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_is_decoded_only_with_a_valid_signature_of_the_encoded_text() {
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"secret");
        let data = STANDARD.encode("{}");
        let sign = |text: &str| hex::encode(hmac::sign(&key, text.as_bytes()));
        let signature = sign(&data);
        for (text, want) in [
            (format!("{data}--{signature}"), Some(&b"{}"[..])),
            (format!("{data}--{}", signature.to_uppercase()), None),
            (format!("{data}--{}", &signature[..32]), None),
            (format!("{data}--{}", sign("{}")), None),
            (format!("{data}x--{signature}"), None),
            (format!("{data}{signature}"), None),
            (format!("{{}}--{}", sign("{}")), None),
        ] {
            assert_eq!(verify(&key, &text).as_deref(), want, "{text}");
        }
    }
}
