//! The parts that all of Laravel's session drivers share: the application keys, the encrypted cookie, and the session
//! data. Laravel defines the formats in `src/Illuminate/Encryption/Encrypter.php`, `Cookie/CookieValuePrefix.php`,
//! `Session/Store.php` and `Session/EncryptedStore.php`. Each kind reads the data from its own store.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::config::{List, Problems, Section};
use crate::json::{Object, Value};
use crate::secret::Secret;
use crate::session::formats::aes::{Cbc, Gcm};
use crate::session::formats::percent::{self, Plus};
use crate::session::formats::{hex, php};
use crate::session::reason::Reason;
use crate::session::sections::app_secret;
use crate::session::types::ExtractError;

/// The session cookie's name before Laravel 12 if `APP_NAME`, from which Laravel derives the name, has its default
/// value. Since Laravel 12, the name is then `laravel-session`.
pub const COOKIE: &str = "laravel_session";

/// The default cipher of a new app.
pub const CIPHER: &str = "aes-256-cbc";

/// The length of a session id, which consists of letters and digits. Laravel replaces an id that has another form.
const ID_LENGTH: usize = 40;

/// The application keys, the current one first.
#[derive(Debug)]
pub struct AppKeySet(Vec<AppKey>);

/// An `APP_KEY`: it encrypts cookie values and session data, and authenticates the prefix that binds a value to its
/// cookie.
#[derive(Debug)]
struct AppKey {
    cipher: Cipher,
    prefix: hmac::Key,
}

#[derive(Debug)]
enum Cipher {
    Cbc { mac: Box<hmac::Key>, aes: Cbc },
    Gcm(Gcm),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Cbc,
    Gcm,
}

impl AppKeySet {
    /// Reads and checks the keys of a section.
    pub fn read(
        section: &Section<'_>,
        app_key: Option<Secret>,
        previous_keys: List<Secret>,
        cipher: &str,
        problems: &mut Problems,
    ) -> Self {
        let cipher = parse_cipher(cipher)
            .ok_or("must be \"aes-256-cbc\", \"aes-256-gcm\", \"aes-128-cbc\" or \"aes-128-gcm\"");
        let cipher = problems.accept(section.key("cipher"), cipher);

        let current = app_secret::required(section, "app_key", app_key, "APP_KEY", problems);
        let previous = app_secret::listed(section, "previous_keys", previous_keys, problems);
        let mut keys = Vec::new();
        if let Some((mode, length)) = cipher {
            let current = current.iter().map(|secret| ("app_key", secret));
            let previous = previous.iter().map(|secret| ("previous_keys", secret));
            for (key, secret) in current.chain(previous) {
                let bytes = key_bytes(secret);
                section.refuse_client_secret(key, bytes.as_deref().unwrap_or_default(), problems);
                let app_key = bytes.and_then(|bytes| AppKey::new(&bytes, mode, length)).ok_or_else(|| {
                    format!(
                        "must be \"base64:\" followed by {length} bytes in base64, the key length of the cipher"
                    )
                });
                keys.extend(problems.accept(section.key(key), app_key));
            }
        }
        Self(keys)
    }

    /// The session id in the cookie called `name`.
    pub fn session_id(&self, name: &str, cookie: &str) -> Result<String, ExtractError> {
        let id = self.open_cookie(name, cookie)?;
        if id.len() != ID_LENGTH || !id.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err(ExtractError::rejected(Reason::SessionId));
        }
        Ok(id)
    }

    /// The string that the app encrypted into the cookie called `name`.
    pub fn open_cookie(&self, name: &str, cookie: &str) -> Result<String, ExtractError> {
        let text = percent::decode(cookie, Plus::Plus).ok_or_else(ExtractError::malformed)?;
        let text = String::from_utf8(self.open(text.as_bytes())?)
            .map_err(|_| ExtractError::malformed())?;
        // The prefix and the encryption may use different keys, because Laravel tries every key for the prefix too.
        let value = self
            .0
            .iter()
            .find_map(|key| key.without_prefix(name, &text));
        value
            .map(str::to_owned)
            .ok_or_else(|| ExtractError::rejected(Reason::CookieName))
    }

    /// Decrypts a value that the app encrypted: a cookie, or the session data.
    fn open(&self, encrypted: &[u8]) -> Result<Vec<u8>, ExtractError> {
        let json = STANDARD
            .decode(encrypted)
            .map_err(|_| ExtractError::malformed())?;
        let object = Object::parse(&json).ok_or_else(ExtractError::malformed)?;
        let mode = self
            .0
            .first()
            .map(AppKey::mode)
            .ok_or_else(ExtractError::malformed)?;
        let envelope = Envelope::of(&object, mode).ok_or_else(ExtractError::malformed)?;
        let bad_seal = || ExtractError::other_secret(Reason::BadSeal, "app_key");
        self.0
            .iter()
            .find_map(|key| key.open(&envelope))
            .ok_or_else(bad_seal)
    }

    /// The session's attributes, from the data that `Session/Store.php` passes to its driver: PHP's own format, or JSON
    /// with `session.serialization = "json"`. With `session.encrypt`, either format is encrypted.
    pub fn attributes(&self, data: &[u8]) -> Result<Value, ExtractError> {
        if data.starts_with(ENCRYPTED) {
            let serialized = self.open(data)?;
            return attributes(php::string(&serialized).ok_or_else(not_plain)?);
        }
        attributes(data)
    }
}

/// The prefix of every encrypted value: `{"` in base64.
const ENCRYPTED: &[u8] = b"eyJ";

/// Parses the session data in either format. In both formats, an empty session is an empty list.
fn attributes(data: &[u8]) -> Result<Value, ExtractError> {
    let value = match data.first() {
        Some(b'{' | b'[') => Value::parse(data).ok(),
        _ => php::array(data),
    };
    value.ok_or_else(not_plain)
}

fn not_plain() -> ExtractError {
    ExtractError::rejected(Reason::PayloadNotPlain).because(
        "the session is not an array; set `'serialization' => 'json'` in config/session.php",
    )
}

/// The cipher's mode and its key length in bytes. Laravel's own configuration spells the names in upper case.
fn parse_cipher(text: &str) -> Option<(Mode, usize)> {
    match text.to_ascii_lowercase().as_str() {
        "aes-128-cbc" => Some((Mode::Cbc, 16)),
        "aes-256-cbc" => Some((Mode::Cbc, 32)),
        "aes-128-gcm" => Some((Mode::Gcm, 16)),
        "aes-256-gcm" => Some((Mode::Gcm, 32)),
        _ => None,
    }
}

/// The bytes of the key in `APP_KEY`; `None` if the text after `base64:` is not base64.
fn key_bytes(secret: &Secret) -> Option<Vec<u8>> {
    match secret.expose().strip_prefix(b"base64:") {
        Some(text) => STANDARD.decode(text).ok(),
        None => Some(secret.expose().to_vec()),
    }
}

impl AppKey {
    /// `None` unless the key is `length` bytes long.
    fn new(key: &[u8], mode: Mode, length: usize) -> Option<Self> {
        if key.len() != length {
            return None;
        }
        let cipher = match mode {
            Mode::Cbc => Cipher::Cbc {
                mac: Box::new(hmac::Key::new(hmac::HMAC_SHA256, key)),
                aes: Cbc::new(key)?,
            },
            Mode::Gcm => Cipher::Gcm(Gcm::new(key)?),
        };
        Some(Self {
            cipher,
            prefix: hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, key),
        })
    }

    fn open(&self, envelope: &Envelope<'_>) -> Option<Vec<u8>> {
        let iv = STANDARD.decode(envelope.iv).ok()?;
        let value = STANDARD.decode(envelope.value).ok()?;
        match &self.cipher {
            Cipher::Cbc { mac, aes } => {
                let mut context = hmac::Context::with_key(mac);
                context.update(envelope.iv.as_bytes());
                context.update(envelope.value.as_bytes());
                let expected = hex::decode(envelope.mac)?;
                verify_slices_are_equal(context.sign().as_ref(), &expected).ok()?;
                aes.open(&iv, value)
            }
            Cipher::Gcm(gcm) => gcm.open(&iv, value, &STANDARD.decode(envelope.tag).ok()?, b""),
        }
    }

    fn mode(&self) -> Mode {
        match self.cipher {
            Cipher::Cbc { .. } => Mode::Cbc,
            Cipher::Gcm(_) => Mode::Gcm,
        }
    }

    /// Verifies this key's prefix for the cookie called `name`, and removes it from the text. Without this check, any
    /// other value that the app encrypted for a client would be accepted as a session id.
    fn without_prefix<'a>(&self, name: &str, text: &'a str) -> Option<&'a str> {
        let (prefix, value) = text.split_once('|')?;
        let mut context = hmac::Context::with_key(&self.prefix);
        context.update(name.as_bytes());
        context.update(b"v2");
        verify_slices_are_equal(context.sign().as_ref(), &hex::decode(prefix)?).ok()?;
        Some(value)
    }
}

/// The output of `Encrypter::encrypt`, not yet verified.
struct Envelope<'a> {
    iv: &'a str,
    value: &'a str,
    mac: &'a str,
    tag: &'a str,
}

impl<'a> Envelope<'a> {
    /// The envelope in `object`; `None` if an encrypter in this mode would not write it.
    fn of(object: &'a Object, mode: Mode) -> Option<Self> {
        // Versions of Laravel before 8 write no tag.
        let tag = if object.contains("tag") {
            object.text("tag")?
        } else {
            ""
        };
        let envelope = Self {
            iv: object.text("iv")?,
            value: object.text("value")?,
            mac: object.text("mac")?,
            tag,
        };
        // Each mode leaves the other mode's field empty. A tag with CBC once allowed attackers to bypass the MAC.
        let unused = if mode == Mode::Cbc {
            envelope.tag
        } else {
            envelope.mac
        };
        unused.is_empty().then_some(envelope)
    }
}

/// Encrypts values as the app does, for tests.
#[cfg(test)]
pub mod sealing {
    use super::*;
    use crate::session::formats::aes::seal;

    pub const KEY: [u8; 32] = *b"hunter2-hunter2-hunter2-hunter2-";

    pub fn app_key() -> String {
        format!("base64:{}", STANDARD.encode(KEY))
    }

    /// An encrypted value that has no cookie prefix.
    pub fn encrypted(text: impl AsRef<[u8]>) -> String {
        let (iv, value) = (
            STANDARD.encode([3; 16]),
            STANDARD.encode(seal::cbc(&KEY, [3; 16], text.as_ref())),
        );
        let mac = hmac::sign(
            &hmac::Key::new(hmac::HMAC_SHA256, &KEY),
            format!("{iv}{value}").as_bytes(),
        );
        let json = format!(
            r#"{{"iv":"{iv}","value":"{value}","mac":"{}","tag":""}}"#,
            hex::encode(mac)
        );
        STANDARD.encode(json)
    }

    /// An encrypted cookie value.
    pub fn sealed(name: &str, text: &str) -> String {
        let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &KEY);
        let prefix = hmac::sign(&key, format!("{name}v2").as_bytes());
        encrypted(format!("{}|{text}", hex::encode(prefix))).replace('=', "%3D")
    }
}
