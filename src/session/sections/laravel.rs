//! What every session driver of Laravel has in common: the keys, the sealed cookie, the session's data.
//! Format: Laravel `src/Illuminate/Encryption/Encrypter.php`, `Cookie/CookieValuePrefix.php`,
//! `Session/Store.php`, `Session/EncryptedStore.php`. Where the data is kept is each kind's business.

use std::path::PathBuf;

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
use crate::session::sections::app_secret;
use crate::session::types::ExtractError;

/// The cookie's name in a fresh app; it follows `APP_NAME`.
pub const COOKIE: &str = "laravel_session";

/// The cipher in a fresh app.
pub const CIPHER: &str = "aes-256-cbc";

/// The characters of a session's id. Laravel replaces an id of any other form.
const ID_LENGTH: usize = 40;

/// The keys of a section that say how the app seals.
#[derive(Debug)]
pub struct KeyFields<'a> {
    pub app_key: Option<Secret>,
    pub app_key_file: Option<&'a PathBuf>,
    pub previous_keys: List<Secret>,
    pub previous_keys_file: Option<&'a PathBuf>,
    pub cipher: &'a str,
}

/// The keys that may have sealed, the current one first.
#[derive(Debug)]
pub struct Keys(Vec<AppKey>);

/// An `APP_KEY`: it seals values and marks for which cookie a value was made.
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

impl Keys {
    /// Checks the keys of a section; problems are reported under their names.
    pub fn read(section: &Section<'_>, fields: KeyFields<'_>, problems: &mut Problems) -> Self {
        let cipher = parse_cipher(fields.cipher)
            .ok_or("must be \"aes-256-cbc\", \"aes-256-gcm\", \"aes-128-cbc\" or \"aes-128-gcm\"");
        let cipher = problems.accept(section.key("cipher"), cipher);
        let KeyFields {
            app_key,
            app_key_file,
            previous_keys,
            previous_keys_file,
            ..
        } = fields;
        let current = app_secret::required(
            section,
            "app_key",
            app_key,
            app_key_file,
            "APP_KEY",
            problems,
        );
        let previous = app_secret::listed(
            section,
            "previous_keys",
            previous_keys,
            previous_keys_file,
            problems,
        );
        let mut keys = Vec::new();
        if let Some((mode, length)) = cipher {
            let current = current.iter().map(|secret| ("app_key", secret));
            for (key, secret) in
                current.chain(previous.iter().map(|secret| ("previous_keys", secret)))
            {
                let made = AppKey::new(secret, mode, length).ok_or_else(|| {
                    format!(
                        "must be \"base64:\" and {length} bytes in base64, as the cipher needs them"
                    )
                });
                keys.extend(problems.accept(section.key(key), made));
            }
        }
        Self(keys)
    }

    /// The session's id out of the cookie called `name`.
    pub fn session_id(&self, name: &str, cookie: &str) -> Result<String, ExtractError> {
        let id = self.open_cookie(name, cookie)?;
        if id.len() != ID_LENGTH || !id.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err(ExtractError::rejected("session_id"));
        }
        Ok(id)
    }

    /// The text that the app sealed into the cookie called `name`.
    pub fn open_cookie(&self, name: &str, cookie: &str) -> Result<String, ExtractError> {
        let text = percent::decode(cookie, Plus::Plus).ok_or_else(malformed)?;
        let text = String::from_utf8(self.open(text.as_bytes())?).map_err(|_| malformed())?;
        // The mark may be older than the seal: Laravel tries every key for it too.
        let value = self.0.iter().find_map(|key| key.unmarked(name, &text));
        value
            .map(str::to_owned)
            .ok_or_else(|| ExtractError::rejected("cookie_name"))
    }

    /// What the app sealed, for whatever purpose.
    fn open(&self, sealed: &[u8]) -> Result<Vec<u8>, ExtractError> {
        let json = STANDARD.decode(sealed).map_err(|_| malformed())?;
        let Ok(Value::Object(object)) = Value::parse(&json) else {
            return Err(malformed());
        };
        let mode = self.0.first().map(AppKey::mode).ok_or_else(malformed)?;
        let envelope = Envelope::of(&object, mode).ok_or_else(malformed)?;
        let bad_seal = || ExtractError::rejected("bad_seal");
        self.0
            .iter()
            .find_map(|key| key.open(&envelope))
            .ok_or_else(bad_seal)
    }

    /// The session's attributes in what `Session/Store.php` hands to its driver: PHP's own format, JSON
    /// with `session.serialization = "json"`, and either of them sealed with `session.encrypt`.
    pub fn attributes(&self, data: &[u8]) -> Result<Value, ExtractError> {
        if data.starts_with(SEALED) {
            let serialized = self.open(data)?;
            return attributes(php::string(&serialized).ok_or_else(not_plain)?);
        }
        attributes(data)
    }
}

/// What every envelope begins with: `{"` in base64.
const SEALED: &[u8] = b"eyJ";

/// Both formats write an empty session as an empty list.
fn attributes(data: &[u8]) -> Result<Value, ExtractError> {
    let value = match data.first() {
        Some(b'{' | b'[') => Value::parse(data).ok(),
        _ => php::array(data),
    };
    value.ok_or_else(not_plain)
}

fn not_plain() -> ExtractError {
    ExtractError::rejected("payload_not_plain").because(
        "the session is no array of plain data; `'serialization' => 'json'` in config/session.php writes plain data",
    )
}

fn malformed() -> ExtractError {
    ExtractError::rejected("malformed")
}

/// The mode, and the bytes of a key. Laravel's own configuration writes the names in capitals.
fn parse_cipher(text: &str) -> Option<(Mode, usize)> {
    match text.to_ascii_lowercase().as_str() {
        "aes-128-cbc" => Some((Mode::Cbc, 16)),
        "aes-256-cbc" => Some((Mode::Cbc, 32)),
        "aes-128-gcm" => Some((Mode::Gcm, 16)),
        "aes-256-gcm" => Some((Mode::Gcm, 32)),
        _ => None,
    }
}

impl AppKey {
    /// `None` unless the key has `length` bytes.
    fn new(secret: &Secret, mode: Mode, length: usize) -> Option<Self> {
        let key = match secret.expose().strip_prefix(b"base64:") {
            Some(text) => STANDARD.decode(text).ok()?,
            None => secret.expose().to_vec(),
        };
        if key.len() != length {
            return None;
        }
        let cipher = match mode {
            Mode::Cbc => Cipher::Cbc {
                mac: Box::new(hmac::Key::new(hmac::HMAC_SHA256, &key)),
                aes: Cbc::new(&key)?,
            },
            Mode::Gcm => Cipher::Gcm(Gcm::new(&key)?),
        };
        Some(Self {
            cipher,
            prefix: hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &key),
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
                let given = hex::decode(envelope.mac)?;
                verify_slices_are_equal(context.sign().as_ref(), &given).ok()?;
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

    /// The value behind this key's mark for the cookie called `name`. Without the mark any value that
    /// the app seals for a visitor could be sent back as a session's id.
    fn unmarked<'a>(&self, name: &str, text: &'a str) -> Option<&'a str> {
        let (mark, value) = text.split_once('|')?;
        let mut context = hmac::Context::with_key(&self.prefix);
        context.update(name.as_bytes());
        context.update(b"v2");
        verify_slices_are_equal(context.sign().as_ref(), &hex::decode(mark)?).ok()?;
        Some(value)
    }
}

/// What `Encrypter::encrypt` writes, not yet trusted.
struct Envelope<'a> {
    iv: &'a str,
    value: &'a str,
    mac: &'a str,
    tag: &'a str,
}

impl<'a> Envelope<'a> {
    /// `None` if it is not what an encrypter of that mode writes.
    fn of(object: &'a Object, mode: Mode) -> Option<Self> {
        let member = |name| match object.get(name) {
            Ok(Some(Value::String(text))) => Some(text.as_str()),
            _ => None,
        };
        // Laravel before 8 writes no tag.
        let tag = if object.contains("tag") {
            member("tag")?
        } else {
            ""
        };
        let envelope = Self {
            iv: member("iv")?,
            value: member("value")?,
            mac: member("mac")?,
            tag,
        };
        // Each mode leaves the other's proof empty. A tag beside CBC once let attackers around the MAC.
        let unused = if mode == Mode::Cbc {
            envelope.tag
        } else {
            envelope.mac
        };
        unused.is_empty().then_some(envelope)
    }
}

/// What the app's side does, for tests.
#[cfg(test)]
pub mod sealing {
    use super::*;
    use crate::session::formats::aes::seal;

    pub const KEY: [u8; 32] = *b"hunter2-hunter2-hunter2-hunter2-";

    pub fn app_key() -> String {
        format!("base64:{}", STANDARD.encode(KEY))
    }

    /// A value that the app encrypted, with no mark of a cookie.
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

    /// A cookie's value.
    pub fn sealed(name: &str, text: &str) -> String {
        let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &KEY);
        let mark = hmac::sign(&key, format!("{name}v2").as_bytes());
        encrypted(format!("{}|{text}", hex::encode(mark))).replace('=', "%3D")
    }
}
