//! `PAYLOAD SEPARATOR TIMESTAMP SEPARATOR SIGNATURE`: a payload signed together with the time of signing, as
//! `TimestampSigner` of itsdangerous (`timed.py`) and of Django (`django/core/signing.py`) writes it. The two derive
//! their keys differently, so the extractors derive the keys.

use std::fmt;

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::clock::UnixSeconds;
use crate::secret::Secret;
use crate::session::formats::signatures::verifies_any;
use crate::session::reason::Reason;
use crate::session::types::ExtractError;

/// HMAC-SHA-1, the default of itsdangerous. SHA-1 collisions do not help to forge an HMAC.
pub const HMAC_SHA1: hmac::Algorithm = hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY;

/// The key that itsdangerous derives with `key_derivation="hmac"`, as Flask does.
pub fn itsdangerous_key(hash: hmac::Algorithm, secret: &Secret, salt: &str) -> hmac::Key {
    let secret = hmac::Key::new(hash, secret.expose());
    hmac::Key::new(hash, hmac::sign(&secret, salt.as_bytes()).as_ref())
}

/// Verifies the signature of a value and the age of its timestamp.
#[derive(Debug)]
pub struct SignedTimestampVerifier {
    pub separator: char,
    /// The accepted keys. A signature with any of them is valid.
    pub keys: Vec<hmac::Key>,
    /// Parses the timestamp; `None` if it is malformed.
    pub parse_timestamp: fn(&str) -> Option<UnixSeconds>,
    /// The maximum age in seconds; `None` if the age is not checked.
    pub max_age: Option<UnixSeconds>,
    /// The number of seconds by which a timestamp may be ahead of the service's clock.
    pub leeway: UnixSeconds,
}

/// The payload of a verified value, without timestamp and signature. `Debug` does not show the payload, which is the
/// session.
#[derive(PartialEq, Eq)]
pub struct VerifiedPayload<'a> {
    /// The payload, still encoded.
    pub payload: &'a str,
    pub expires_at: Option<UnixSeconds>,
}

impl fmt::Debug for VerifiedPayload<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VerifiedPayload")
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}

impl SignedTimestampVerifier {
    /// Verifies that `text` is signed with one of the keys, and that its timestamp is neither too old nor too far ahead
    /// of `now`.
    ///
    /// # Errors
    /// `Rejected` if the text is malformed, has a wrong signature, has expired, or was signed in the future.
    pub fn open<'a>(
        &self,
        text: &'a str,
        now: UnixSeconds,
    ) -> Result<VerifiedPayload<'a>, ExtractError> {
        let (signed, signature) = text
            .rsplit_once(self.separator)
            .ok_or_else(ExtractError::malformed)?;
        if !self.is_signed(signed, signature) {
            let reason = Reason::BadSignature;
            return Err(ExtractError::other_secret(reason, "secret_key"));
        }
        let (payload, timestamp) = signed
            .rsplit_once(self.separator)
            .ok_or_else(ExtractError::malformed)?;
        let timestamp = (self.parse_timestamp)(timestamp).ok_or_else(ExtractError::malformed)?;
        if timestamp > now.saturating_add(self.leeway) {
            let (reason, name) = (Reason::FromTheFuture, "the time of signing");
            let leeway = self.leeway;
            return Err(ExtractError::ahead(reason, name, timestamp, now, leeway));
        }
        let expires_at = self.max_age.map(|age| timestamp.saturating_add(age));
        // The session is still valid in the second `expires_at` itself: both libraries refuse only an age greater than
        // the limit.
        if let Some(end) = expires_at.filter(|end| now > *end) {
            return Err(ExtractError::expired_at(end, now));
        }
        Ok(VerifiedPayload {
            payload,
            expires_at,
        })
    }

    fn is_signed(&self, text: &str, signature: &str) -> bool {
        URL_SAFE_NO_PAD
            .decode(signature)
            .is_ok_and(|signature| verifies_any(&self.keys, text, &signature))
    }
}

/// Parses a timestamp of itsdangerous 1.1 or later: seconds since 1970, big-endian without leading zero bytes, in
/// unpadded base64url.
pub fn itsdangerous_timestamp(text: &str) -> Option<UnixSeconds> {
    let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
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

    fn verifier(max_age: Option<UnixSeconds>) -> SignedTimestampVerifier {
        let keys = ["first", "second"].map(|key| hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes()));
        SignedTimestampVerifier {
            separator: '.',
            keys: keys.to_vec(),
            parse_timestamp: |text| text.parse().ok(),
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

    fn open(text: &str) -> Result<VerifiedPayload<'_>, ExtractError> {
        verifier(Some(60)).open(text, NOW)
    }

    #[test]
    fn signature_with_any_listed_key_is_accepted_and_unknown_key_is_bad_signature() {
        for key in ["first", "second"] {
            let text = sign(key, &format!(".a.b.{NOW}"));
            let verified = VerifiedPayload {
                payload: ".a.b",
                expires_at: Some(NOW + 60),
            };
            assert_eq!(open(&text), Ok(verified));
        }
        let unknown = sign("third", &format!("a.{NOW}"));
        assert_eq!(
            open(&unknown),
            Err(ExtractError::other_secret(
                Reason::BadSignature,
                "secret_key"
            ))
        );
    }

    #[test]
    fn damaged_signature_is_bad_signature_and_signed_text_without_a_timestamp_is_malformed() {
        let good = sign("first", &format!("a.{NOW}"));
        for (case, text, want) in [
            ("padded", format!("{good}="), Reason::BadSignature),
            ("empty", format!("a.{NOW}."), Reason::BadSignature),
            (
                "half",
                good[..good.len() - 20].to_owned(),
                Reason::BadSignature,
            ),
            (
                "bad timestamp, unsigned",
                "a.x.AAAA".to_owned(),
                Reason::BadSignature,
            ),
            (
                "bad timestamp, signed",
                sign("first", "a.x"),
                Reason::Malformed,
            ),
            (
                "no timestamp, signed",
                sign("first", "a"),
                Reason::Malformed,
            ),
            ("no separator", "garbage".to_owned(), Reason::Malformed),
            ("only separators", "...".to_owned(), Reason::BadSignature),
        ] {
            let reason = open(&text).map_err(|error| error.reason());
            assert_eq!(reason, Err(want), "{case}");
        }
    }

    #[test]
    fn timestamp_bounds_are_inclusive() {
        let text = sign("first", &format!("a.{NOW}"));
        for (now, want) in [
            (NOW + 60, Ok(())),
            (NOW + 61, Err(Reason::Expired)),
            (NOW - 30, Ok(())),
            (NOW - 31, Err(Reason::FromTheFuture)),
            (UnixSeconds::MAX, Err(Reason::Expired)),
        ] {
            let verified = verifier(Some(60)).open(&text, now);
            let outcome = verified.map(|_| ()).map_err(|error| error.reason());
            assert_eq!(outcome, want, "{now}");
        }
        let unlimited = verifier(None).open(&text, UnixSeconds::MAX);
        assert_eq!(unlimited.map(|verified| verified.expires_at), Ok(None));
        let far = sign("first", &format!("a.{}", UnixSeconds::MAX));
        assert_eq!(
            open(&far).map_err(|error| error.reason()),
            Err(Reason::FromTheFuture)
        );
    }

    #[test]
    fn itsdangerous_timestamp_is_at_most_8_bytes_of_unpadded_base64url() {
        for (text, want) in [
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
            assert_eq!(itsdangerous_timestamp(text), want, "{text}");
        }
    }
}
