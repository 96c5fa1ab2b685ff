//! Django's `session_data`: JSON signed by `django.core.signing.dumps` with `compress=True`.
//! The time in it is not checked: the row's `expire_date` decides, as in Django.

use std::io::Read;

use aws_lc_rs::digest::{Context, SHA256};
use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use flate2::read::ZlibDecoder;

use crate::secret::Secret;

/// What `django.contrib.sessions.backends.base` signs with.
const SALT: &[u8] = b"django.contrib.sessions.SessionStore";

/// A payload that inflates to more is no session.
const MAX_BYTES: u64 = 1024 * 1024;

/// The keys that may have signed: `SECRET_KEY`, then `SECRET_KEY_FALLBACKS`.
#[derive(Debug)]
pub struct Keys(Vec<hmac::Key>);

impl Keys {
    pub fn new(secrets: &[Secret]) -> Self {
        Self(secrets.iter().map(key).collect())
    }

    /// The JSON in `data`.
    ///
    /// # Errors
    /// A word for what is wrong with it.
    pub fn open(&self, data: &str) -> Result<Vec<u8>, &'static str> {
        let (signed, signature) = data.rsplit_once(':').ok_or("session_corrupt")?;
        let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| "session_corrupt")?;
        let known = self.0.iter().any(|key| hmac::verify(key, signed.as_bytes(), &signature).is_ok());
        if !known {
            return Err("bad_signature");
        }
        let (payload, _time) = signed.rsplit_once(':').ok_or("session_corrupt")?;
        let (payload, is_compressed) =
            payload.strip_prefix('.').map_or((payload, false), |rest| (rest, true));
        let bytes = URL_SAFE_NO_PAD.decode(payload).map_err(|_| "session_corrupt")?;
        if is_compressed { inflate(&bytes).ok_or("session_corrupt") } else { Ok(bytes) }
    }
}

fn key(secret: &Secret) -> hmac::Key {
    let mut context = Context::new(&SHA256);
    context.update(SALT);
    context.update(b"signer");
    context.update(secret.expose());
    hmac::Key::new(hmac::HMAC_SHA256, context.finish().as_ref())
}

fn inflate(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut json = Vec::new();
    let mut inflated = ZlibDecoder::new(bytes).take(MAX_BYTES + 1);
    inflated.read_to_end(&mut json).ok()?;
    (json.len() as u64 <= MAX_BYTES).then_some(json)
}
