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
use super::shared::cookie::{self, Cookie};
use super::shared::percent::{self, Plus};
use super::shared::{app_secret, hex, php};
use super::{ExtractError, Extracted, Kind, Session, SessionExtractor};
use crate::clock::{Clock, UnixSeconds};
use crate::config::{List, Problems, Section, Span};
use crate::secret::Secret;
use crate::value::{Object, Value};

/// Where the guard `web` puts the user's id; the digits are the SHA-1 of its class's name.
pub const KIND: Kind =
    Kind { build, subject: "{login_web_59ba36addc2b2f9401580f014c7f58ea4e30989d}", presets: &[] };

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
    cookie: Cookie,
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
    Cbc { mac: Box<hmac::Key>, aes: Cbc },
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
    let cookie = Cookie::named(section, "cookie", &config.cookie, &mut problems);
    let cipher = parse_cipher(&config.cipher)
        .ok_or("must be \"aes-256-cbc\", \"aes-256-gcm\", \"aes-128-cbc\" or \"aes-128-gcm\"");
    let cipher = problems.accept(section.key("cipher"), cipher);
    let current = app_secret::required(
        section,
        "app_key",
        config.app_key,
        config.app_key_file.as_ref(),
        "APP_KEY",
        &mut problems,
    );
    let previous = app_secret::listed(
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
            Mode::Cbc => {
                Cipher::Cbc { mac: Box::new(hmac::Key::new(hmac::HMAC_SHA256, &key)), aes: Cbc::new(&key)? }
            }
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
        let id = self.open(self.cookie.name(), cookie)?;
        if id.len() != ID_LENGTH || !id.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err(ExtractError::rejected("session_id"));
        }
        let Some(cookie) = cookie::find(&request.headers, &id)? else {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::extractors::contract;
    use crate::extractors::shared::aes::seal;
    use crate::extractors::shared::testing::{NOW, answer, build, refused};

    const KEY: [u8; 32] = *b"hunter2-hunter2-hunter2-hunter2-";
    const ID: &str = "LfHKH7U7PrF74NUjNJ4fFXSkyKiYkAJKuXWJQYbx";

    fn app_key() -> String {
        format!("base64:{}", STANDARD.encode(KEY))
    }

    fn extractor() -> Arc<dyn SessionExtractor> {
        build("laravel", &format!("app_key = \"{}\"", app_key())).unwrap()
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// A value that the app encrypted, with no mark of a cookie.
    fn encrypted(text: &str) -> String {
        let (iv, value) =
            (STANDARD.encode([3; 16]), STANDARD.encode(seal::cbc(&KEY, [3; 16], text.as_bytes())));
        let mac = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &KEY), format!("{iv}{value}").as_bytes());
        let json = format!(r#"{{"iv":"{iv}","value":"{value}","mac":"{}","tag":""}}"#, hex(mac.as_ref()));
        STANDARD.encode(json).replace('=', "%3D")
    }

    fn sealed(name: &str, text: &str) -> String {
        let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &KEY);
        let mark = hmac::sign(&key, format!("{name}v2").as_bytes());
        encrypted(&format!("{}|{text}", hex(mark.as_ref())))
    }

    fn cookies(record: &str) -> String {
        format!("laravel_session={}; {ID}={}", sealed("laravel_session", ID), sealed(ID, record))
    }

    fn record(data: &str, expires: i64) -> String {
        serde_json::json!({"data": data, "expires": expires}).to_string()
    }

    const DATA: &str = "a:1:{s:5:\"login\";i:42;}";

    #[tokio::test]
    async fn keeps_the_contract() {
        contract::check(&*extractor(), &[&app_key(), "hunter2"]).await;
    }

    #[test]
    fn the_second_cookie_is_plain_data_that_has_not_ended() {
        for (case, record, want) in [
            ("PHP", record(DATA, NOW), Ok(Some(r#"{"login":42}"#))),
            ("JSON", record(r#"{"login":42}"#, NOW + 7200), Ok(Some(r#"{"login":42}"#))),
            ("nobody", record("a:0:{}", NOW), Ok(Some("[]"))),
            ("I4 ended", record(DATA, NOW - 1), Err("expired")),
            ("a longer lifetime", record(DATA, NOW + 7261), Err("from_the_future")),
            ("far future", record(DATA, i64::MAX), Err("from_the_future")),
            ("I5 object", record("O:8:\"stdClass\":0:{}", NOW), Err("payload_not_plain")),
            ("not a session", record("i:42;", NOW), Err("payload_not_plain")),
            ("broken", record("a:1:{", NOW), Err("payload_not_plain")),
            ("no end", r#"{"data":"a:0:{}"}"#.to_owned(), Err("malformed")),
            ("end is text", r#"{"data":"a:0:{}","expires":"1900000000"}"#.to_owned(), Err("malformed")),
            (
                "two ends",
                r#"{"data":"a:0:{}","expires":1,"expires":1800000001}"#.to_owned(),
                Err("malformed"),
            ),
            ("no JSON", DATA.to_owned(), Err("malformed")),
        ] {
            let answer = answer(&*extractor(), &[("cookie", &cookies(&record))]);
            assert_eq!(answer, want.map(|session| session.map(str::to_owned)), "{case}");
        }
    }

    #[test]
    fn i2_a_value_sealed_for_another_cookie_is_no_session() {
        let second = format!("{ID}={}", sealed(ID, &record(DATA, NOW)));
        for (case, first, want) in [
            ("no mark", encrypted(ID), "cookie_name"),
            ("another cookie's mark", sealed("theme", ID), "cookie_name"),
            ("short id", sealed("laravel_session", &ID[1..]), "session_id"),
            ("another cookie's name", sealed("laravel_session", "theme"), "session_id"),
            ("id with a dot", sealed("laravel_session", &ID.replace('L', ".")), "session_id"),
            ("another session", sealed("laravel_session", &"a".repeat(40)), "no_session_cookie"),
        ] {
            let cookies = format!("laravel_session={first}; {second}");
            assert_eq!(answer(&*extractor(), &[("cookie", &cookies)]), Err(want), "{case}");
        }
        let swapped = format!(
            "laravel_session={}; {ID}={}",
            sealed("laravel_session", ID),
            sealed("laravel_session", &record(DATA, NOW))
        );
        assert_eq!(answer(&*extractor(), &[("cookie", &swapped)]), Err("cookie_name"), "the second's mark");
        let twice = format!("{}; {second}", cookies(&record(DATA, NOW)));
        assert_eq!(answer(&*extractor(), &[("cookie", &twice)]), Err("ambiguous_identity"));
    }

    #[test]
    fn an_envelope_with_a_member_twice_is_refused() {
        let good = STANDARD.decode(sealed("laravel_session", ID).replace("%3D", "=")).unwrap();
        let good = String::from_utf8(good).unwrap();
        for (case, json) in [
            ("iv twice", good.replacen('{', r#"{"iv":"AAAA","#, 1)),
            ("tag twice", good.replace(r#""tag":"""#, r#""tag":"","tag":"""#)),
            ("tag beside CBC", good.replace(r#""tag":"""#, r#""tag":"AAAAAAAAAAAAAAAAAAAAAA==""#)),
            ("tag is null", good.replace(r#""tag":"""#, r#""tag":null"#)),
        ] {
            let cookie = format!("laravel_session={}", STANDARD.encode(json));
            assert_eq!(answer(&*extractor(), &[("cookie", &cookie)]), Err("malformed"), "{case}");
        }
    }

    #[test]
    fn it_does_not_start_with_a_key_that_does_not_fit() {
        let good = app_key();
        let with = |keys: &str| format!("app_key = \"{good}\"\n{keys}");
        refused(
            "laravel",
            &[
                ("no key", "", "app_key"),
                ("short", "app_key = \"base64:aHVudGVyMg==\"", "app_key"),
                ("no base64", "app_key = \"base64:hunter2-hunter2-hunter2\"", "app_key"),
                ("short for its cipher", "app_key = \"hunter2-hunter2-\"", "app_key"),
                ("placeholder", "app_key = \"changeme\"", "app_key"),
                ("long for its cipher", &with("cipher = \"aes-128-cbc\""), "app_key"),
                ("cipher", &with("cipher = \"aes-256-ctr\""), "cipher"),
                ("previous", &with("previous_keys = [\"base64:aHVudGVyMmh1bnRlcjI=\"]"), "previous_keys"),
                ("lifetime", &with("lifetime = \"0s\""), "lifetime"),
                ("cookie", &with("cookie = \"\""), "cookie"),
            ],
        );
        assert!(build("laravel", &with("cipher = \"AES-256-GCM\"")).is_ok(), "as config/app.php writes it");
    }
}
