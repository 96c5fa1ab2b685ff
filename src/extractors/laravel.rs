//! `laravel`: Laravel with the session driver `cookie`: one sealed cookie names the session, another one,
//! called like the session's id, holds it. Format: Laravel `src/Illuminate/Encryption/Encrypter.php`,
//! `Cookie/CookieValuePrefix.php`, `Session/CookieSessionHandler.php`.
//! Sessions that are kept in a database or in Redis are not read here.

use std::path::PathBuf;
use std::sync::Arc;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac;
use axum::http::request::Parts;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::shared::aes::{Cbc, Gcm};
use super::shared::cookie_parts::{self, CookieName};
use super::shared::percent::{self, Plus};
use super::shared::{framework_secret, hex, php};
use super::{ExtractError, Extracted, Kind, Session, SessionExtractor};
use crate::clock::{Clock, UnixSeconds};
use crate::config::{List, Problems, Section, Span};
use crate::secret::Secret;
use crate::value::{Object, Value};

/// Where the guard `web` puts the user's id; the digits are the SHA-1 of its class's name.
pub const KIND: Kind = Kind {
    build,
    subject: "{login_web_59ba36addc2b2f9401580f014c7f58ea4e30989d}",
    presets: &[],
};

/// The characters of a session's id. Laravel replaces an id of any other form.
const ID_LENGTH: usize = 40;
/// How far the app's clock may be ahead of ours, in seconds.
const SKEW: UnixSeconds = 60;

/// `[extractors.NAME]` with `kind = "laravel"`
#[derive(Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Config {
    cookie: String,
    app_key: Option<Secret>,
    app_key_file: Option<PathBuf>,
    previous_keys: List<Secret>,
    previous_keys_file: Option<PathBuf>,
    cipher: String,
    lifetime: Span,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            cookie: "laravel_session".to_owned(),
            app_key: None,
            app_key_file: None,
            previous_keys: List::default(),
            previous_keys_file: None,
            cipher: "aes-256-cbc".to_owned(),
            lifetime: Span::secs(120 * 60),
        }
    }
}

#[derive(Debug)]
struct Laravel {
    cookie: CookieName,
    /// The current one first.
    keys: Vec<AppKey>,
    lifetime: UnixSeconds,
    clock: Clock,
}

/// An `APP_KEY`: it seals values and marks for which cookie a value was made.
#[derive(Debug)]
struct AppKey {
    cipher: Cipher,
    prefix: hmac::Key,
}

#[derive(Debug)]
enum Cipher {
    Cbc { mac: hmac::Key, aes: Cbc },
    Gcm(Gcm),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Cbc,
    Gcm,
}

fn build(section: &Section<'_>) -> Result<Arc<dyn SessionExtractor>, Problems> {
    let mut problems = Problems::default();
    let config: Config = section.read(&mut problems);
    let cookie = CookieName::configured(section, "cookie", Some(&config.cookie), &mut problems);
    let cipher = parse_cipher(&config.cipher)
        .ok_or("must be \"aes-256-cbc\", \"aes-256-gcm\", \"aes-128-cbc\" or \"aes-128-gcm\"");
    let cipher = problems.accept(section.key("cipher"), cipher);
    let current = framework_secret::one(
        section,
        "app_key",
        config.app_key,
        config.app_key_file.as_ref(),
        "APP_KEY",
        &mut problems,
    );
    let previous = framework_secret::several(
        section,
        "previous_keys",
        config.previous_keys,
        config.previous_keys_file.as_ref(),
        &mut problems,
    );
    let mut keys = Vec::new();
    if let Some((mode, length)) = cipher {
        let current = current.iter().map(|secret| ("app_key", secret));
        for (key, secret) in current.chain(previous.iter().map(|secret| ("previous_keys", secret))) {
            let made = AppKey::new(secret, mode, length).ok_or_else(|| {
                format!("must be \"base64:\" and {length} bytes in base64, as the cipher needs them")
            });
            keys.extend(problems.accept(section.key(key), made));
        }
    }
    problems.require(!config.lifetime.0.is_zero(), section.key("lifetime"), "must be longer than nothing");
    let Some(cookie) = cookie else { return Err(problems) };
    let lifetime = UnixSeconds::try_from(config.lifetime.0.as_secs()).unwrap_or(UnixSeconds::MAX);
    problems.or(Arc::new(Laravel { cookie, keys, lifetime, clock: section.context().clock.clone() }))
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
        let key = Zeroizing::new(match secret.expose().strip_prefix(b"base64:") {
            Some(text) => STANDARD.decode(text).ok()?,
            None => secret.expose().to_vec(),
        });
        if key.len() != length {
            return None;
        }
        let cipher = match mode {
            Mode::Cbc => Cipher::Cbc { mac: hmac::Key::new(hmac::HMAC_SHA256, &key), aes: Cbc::new(&key)? },
            Mode::Gcm => Cipher::Gcm(Gcm::new(&key)?),
        };
        Some(Self { cipher, prefix: hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &key) })
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
        let tag = if object.contains("tag") { member("tag")? } else { "" };
        let envelope = Self { iv: member("iv")?, value: member("value")?, mac: member("mac")?, tag };
        // Each mode leaves the other's proof empty. A tag beside CBC once let attackers around the MAC.
        let unused = if mode == Mode::Cbc { envelope.tag } else { envelope.mac };
        unused.is_empty().then_some(envelope)
    }
}

impl Laravel {
    fn session(&self, request: &Parts) -> Extracted {
        let Some(cookie) = self.cookie.find(request)? else { return Ok(None) };
        let id = self.open(self.cookie.as_str(), cookie)?;
        if id.len() != ID_LENGTH || !id.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err(ExtractError::rejected("session_id"));
        }
        let Some(cookie) = cookie_parts::find(&request.headers, &id)? else {
            return Err(ExtractError::rejected("no_session_cookie")
                .because("the cookie called like the session's id is not there: is SESSION_DRIVER=cookie?"));
        };
        self.unwrap(&self.open(&id, cookie)?).map(Some)
    }

    /// The text that the app sealed into the cookie called `name`.
    fn open(&self, name: &str, cookie: &str) -> Result<String, ExtractError> {
        let malformed = || ExtractError::rejected("malformed");
        let text = percent::decode(cookie, Plus::Plus).ok_or_else(malformed)?;
        let json = STANDARD.decode(text).map_err(|_| malformed())?;
        let Ok(Value::Object(object)) = Value::parse(&json) else { return Err(malformed()) };
        let mode = self.keys.first().map(AppKey::mode).ok_or_else(malformed)?;
        let envelope = Envelope::of(&object, mode).ok_or_else(malformed)?;
        let bad_seal = || ExtractError::rejected("bad_seal");
        let opened = self.keys.iter().find_map(|key| key.open(&envelope)).ok_or_else(bad_seal)?;
        let text = String::from_utf8(opened).map_err(|_| malformed())?;
        // The mark may be older than the seal: Laravel tries every key for it too.
        let value = self.keys.iter().find_map(|key| key.unmarked(name, &text));
        value.map(str::to_owned).ok_or_else(|| ExtractError::rejected("cookie_name"))
    }

    fn unwrap(&self, text: &str) -> Result<Session, ExtractError> {
        let malformed = || ExtractError::rejected("malformed");
        let Ok(Value::Object(record)) = Value::parse(text.as_bytes()) else { return Err(malformed()) };
        let (Ok(Some(Value::String(data))), Ok(Some(Value::Number(expires)))) =
            (record.get("data"), record.get("expires"))
        else {
            return Err(malformed());
        };
        let expires_at = expires.as_i64().ok_or_else(malformed)?;
        self.check_time(expires_at)?;
        Ok(Session { attributes: attributes(data)?, expires_at: Some(expires_at) })
    }

    /// `expires` is the app's lifetime after the last request; further ahead means that the lifetime
    /// here is not the app's.
    fn check_time(&self, expires_at: UnixSeconds) -> Result<(), ExtractError> {
        let now = self.clock.now();
        if now > expires_at {
            return Err(ExtractError::expired());
        }
        if expires_at > now.saturating_add(self.lifetime).saturating_add(SKEW) {
            return Err(ExtractError::rejected("from_the_future")
                .because("it ends later than `lifetime` from now: set it to the app's SESSION_LIFETIME"));
        }
        Ok(())
    }
}

/// The session's data: PHP's own format, or JSON with `session.serialization = "json"`. Both of an
/// empty session are an empty list.
fn attributes(data: &str) -> Result<Value, ExtractError> {
    let value = match data.as_bytes().first() {
        Some(b'{' | b'[') => Value::parse(data.as_bytes()).ok(),
        _ => php::parse(data),
    };
    match value {
        Some(value @ (Value::Object(_) | Value::Array(_))) => Ok(value),
        _ => Err(ExtractError::rejected("payload_not_plain")
            .because("the session holds something else than arrays, text and numbers")),
    }
}

impl SessionExtractor for Laravel {
    fn extract<'a>(&'a self, request: &'a Parts) -> BoxFuture<'a, Extracted> {
        ready(self.session(request)).boxed()
    }
}
