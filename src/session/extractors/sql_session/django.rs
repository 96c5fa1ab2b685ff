//! Django's `session_data`: JSON signed by `django.core.signing.dumps` with `compress=True`.
//! The time in it is not checked: the row's `expire_date` decides, as in Django.

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::secret::Secret;
use crate::session::formats::hkdf;
use crate::session::formats::payload::{MAX_STORED, inflate};

/// What `django.contrib.sessions.backends.base` signs with.
const SALT: &str = "django.contrib.sessions.SessionStore";

/// The keys that may have signed: `SECRET_KEY`, then `SECRET_KEY_FALLBACKS`.
#[derive(Debug)]
pub struct Keys(Vec<hmac::Key>);

impl Keys {
    pub fn new(secrets: &[Secret]) -> Self {
        Self(
            secrets
                .iter()
                .map(|secret| hkdf::django(&[SALT, "signer"], secret))
                .collect(),
        )
    }

    /// The JSON in `data`.
    ///
    /// # Errors
    /// A word for what is wrong with it.
    pub fn open(&self, data: &str) -> Result<Vec<u8>, &'static str> {
        let (signed, signature) = data.rsplit_once(':').ok_or("session_corrupt")?;
        let signature = URL_SAFE_NO_PAD
            .decode(signature)
            .map_err(|_| "session_corrupt")?;
        let known = self
            .0
            .iter()
            .any(|key| hmac::verify(key, signed.as_bytes(), &signature).is_ok());
        if !known {
            return Err("bad_signature");
        }
        let (payload, _time) = signed.rsplit_once(':').ok_or("session_corrupt")?;
        let (payload, is_compressed) = payload
            .strip_prefix('.')
            .map_or((payload, false), |rest| (rest, true));
        let bytes = URL_SAFE_NO_PAD
            .decode(payload)
            .map_err(|_| "session_corrupt")?;
        if is_compressed {
            inflate(&bytes, MAX_STORED).map_err(|_| "session_corrupt")
        } else {
            Ok(bytes)
        }
    }
}
