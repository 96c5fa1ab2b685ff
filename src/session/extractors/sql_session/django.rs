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

/// The salt that `django.contrib.sessions.backends.base` uses for signing.
const SALT: &str = "django.contrib.sessions.SessionStore";

/// The keys that verify sessions: first the key derived from `SECRET_KEY`, then those from `SECRET_KEY_FALLBACKS`.
#[derive(Debug)]
pub struct DjangoKeys(Vec<hmac::Key>);

impl DjangoKeys {
    pub fn new(secrets: &[Secret]) -> Self {
        Self(
            secrets
                .iter()
                .map(|secret| hkdf::django(&[SALT, "signer"], secret))
                .collect(),
        )
    }

    /// The verified JSON in `data`.
    ///
    /// # Errors
    /// Returns the reason for the rejection.
    pub fn open(&self, data: &str) -> Result<Vec<u8>, Reason> {
        let (signed, signature) = data.rsplit_once(':').ok_or(Reason::SessionCorrupt)?;
        let signature = URL_SAFE_NO_PAD
            .decode(signature)
            .map_err(|_| Reason::SessionCorrupt)?;
        if !verifies_any(&self.0, signed, &signature) {
            return Err(Reason::BadSignature);
        }
        let (payload, _timestamp) = signed.rsplit_once(':').ok_or(Reason::SessionCorrupt)?;
        let (payload, is_compressed) = payload
            .strip_prefix('.')
            .map_or((payload, false), |rest| (rest, true));
        let bytes = URL_SAFE_NO_PAD
            .decode(payload)
            .map_err(|_| Reason::SessionCorrupt)?;
        if is_compressed {
            inflate(&bytes, MAX_STORED).map_err(|_| Reason::SessionCorrupt)
        } else {
            Ok(bytes)
        }
    }
}
