//! Django's `session_data`: JSON signed by `django.core.signing.dumps` with `compress=True`. As in Django, its
//! timestamp is not checked: the row's `expire_date` determines the expiry.

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::secret::Secret;
use crate::session::formats::hkdf;
use crate::session::formats::payload::{MAX_STORED, inflate};
use crate::session::formats::signatures::verifies_any;
use crate::session::reason::Reason;
use crate::session::types::ExtractError;

/// The salt that `django.contrib.sessions.backends.base` uses for signing.
const SALT: &str = "django.contrib.sessions.SessionStore";

/// The keys that verify sessions: first the key derived from `SECRET_KEY`, then those from `SECRET_KEY_FALLBACKS`.
#[derive(Debug)]
pub struct DjangoKeys(Vec<hmac::Key>);

impl DjangoKeys {
    pub fn new(secrets: &[Secret]) -> Self {
        let key = |secret| hkdf::django(&[SALT, "signer"], secret);
        Self(secrets.iter().map(key).collect())
    }

    /// Verifies the signature of `data`, and returns its payload, decoded and decompressed.
    pub fn open(&self, data: &str) -> Result<Vec<u8>, ExtractError> {
        let corrupt = || {
            ExtractError::rejected(Reason::SessionCorrupt)
                .because("expected PAYLOAD:TIMESTAMP:SIGNATURE, as Django writes it")
        };
        let (signed, signature) = data.rsplit_once(':').ok_or_else(corrupt)?;
        let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| corrupt())?;
        if !verifies_any(&self.0, signed, &signature) {
            let reason = Reason::BadSignature;
            return Err(ExtractError::other_secret(reason, "secret_key"));
        }
        let (payload, _timestamp) = signed.rsplit_once(':').ok_or_else(corrupt)?;
        let decode = |text| URL_SAFE_NO_PAD.decode(text).map_err(|_| corrupt());
        match payload.strip_prefix('.') {
            Some(compressed) => inflate(&decode(compressed)?, MAX_STORED).map_err(|_| corrupt()),
            None => decode(payload),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invalid_session_data_is_rejected_with_its_cause() {
        let keys = DjangoKeys::new(&[Secret::new("the-current-secret-of-the-app")]);
        for (data, reason, cause) in [
            (
                "e30:1vKx2y:AAAA",
                "bad_signature",
                "the app's secret differs from secret_key, or the credential was changed",
            ),
            (
                "e30",
                "session_corrupt",
                "expected PAYLOAD:TIMESTAMP:SIGNATURE, as Django writes it",
            ),
        ] {
            let Err(ExtractError::Rejected(rejection)) = keys.open(data) else {
                panic!("{data} was accepted")
            };
            assert_eq!(rejection.reason.as_str(), reason);
            assert_eq!(rejection.detail.as_deref(), Some(cause));
        }
    }
}
