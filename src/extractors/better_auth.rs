//! `better_auth`: the cookie cache of Better Auth, a short-lived copy of the session that needs no look-up.
//! Format: better-auth `packages/better-auth/src/cookies/index.ts` (`setCookieCache`, `getCookieCache`)
//! and `crypto/jwt.ts`. The session's token itself is not read here: only the app's database knows it.

use std::path::PathBuf;
use std::sync::Arc;

use aws_lc_rs::hmac;
use axum::http::request::Parts;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};
use serde::{Deserialize, Serialize};

use super::shared::cookie_parts::CookieName;
use super::shared::jwe::{self, ContentKey, Thumbprint};
use super::shared::{derive, framework_secret, iso_time, jwt_times};
use super::{ExtractError, Extracted, Kind, Session, SessionExtractor};
use crate::clock::{Clock, UnixSeconds};
use crate::config::{Problems, Section, Span};
use crate::secret::Secret;
use crate::value::{Object, Value};

pub const KIND: Kind = Kind { build, subject: "{user.id}", presets: &[] };

/// A cache of session and user takes one or two; the library has no limit.
const MAX_PARTS: usize = 10;

/// `[extractors.NAME]` with `kind = "better_auth"`
#[derive(Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Config {
    cookie: String,
    secret: Option<Secret>,
    secret_file: Option<PathBuf>,
    strategy: String,
    max_age: Span,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            cookie: "better-auth.session_data".to_owned(),
            secret: None,
            secret_file: None,
            strategy: "compact".to_owned(),
            max_age: Span::secs(5 * 60),
        }
    }
}

#[derive(Debug)]
struct BetterAuth {
    cookie: CookieName,
    strategy: Strategy,
    max_age: UnixSeconds,
    clock: Clock,
}

/// How the app protects the cache.
#[derive(Debug)]
enum Strategy {
    Compact(hmac::Key),
    Jwt(hmac::Key),
    Jwe(ContentKey),
}

fn build(section: &Section<'_>) -> Result<Arc<dyn SessionExtractor>, Problems> {
    let mut problems = Problems::default();
    let config: Config = section.read(&mut problems);
    let cookie = CookieName::configured(section, "cookie", Some(&config.cookie), &mut problems);
    let secret = framework_secret::one(
        section,
        "secret",
        config.secret,
        config.secret_file.as_ref(),
        "BETTER_AUTH_SECRET",
        &mut problems,
    );
    problems.require(!config.max_age.0.is_zero(), section.key("max_age"), "must be longer than nothing");
    let known = matches!(config.strategy.as_str(), "compact" | "jwt" | "jwe");
    problems.require(known, section.key("strategy"), "must be \"compact\", \"jwt\" or \"jwe\"");
    let (Some(cookie), Some(secret)) = (cookie, secret) else { return Err(problems) };
    let strategy = Strategy::new(&config.strategy, &secret);
    let max_age = UnixSeconds::try_from(config.max_age.0.as_secs()).unwrap_or(UnixSeconds::MAX);
    problems.or(Arc::new(BetterAuth { cookie, strategy, max_age, clock: section.context().clock.clone() }))
}

impl Strategy {
    fn new(name: &str, secret: &Secret) -> Self {
        let hmac = || hmac::Key::new(hmac::HMAC_SHA256, secret.expose());
        match name {
            "jwe" => {
                let info = "BetterAuth.js Generated Encryption Key";
                let key = derive::hkdf(secret.expose(), "better-auth-session", info);
                Self::Jwe(ContentKey::cbc_hs512(&key, Some(Thumbprint::Sha256)))
            }
            "jwt" => Self::Jwt(hmac()),
            _ => Self::Compact(hmac()),
        }
    }

    /// The cached session, and when the app lets it end.
    fn open(&self, text: &str, now: UnixSeconds) -> Result<(Object, UnixSeconds), ExtractError> {
        match self {
            Self::Compact(key) => open_compact(key, text),
            Self::Jwt(key) => with_claims(&open_jwt(key, text)?, now),
            Self::Jwe(key) => with_claims(&jwe::open(text, std::iter::once(key))?, now),
        }
    }
}

/// `{"session":{…},"expiresAt":…,"signature":"…"}` in base64. The app signs the text that JavaScript makes
/// of `{...session, expiresAt}`. That text is taken from the cookie as it stands rather than written
/// again: what JavaScript did not write itself, or would write otherwise, cannot match.
fn open_compact(key: &hmac::Key, text: &str) -> Result<(Object, UnixSeconds), ExtractError> {
    let malformed = || ExtractError::rejected("malformed");
    let json = URL_SAFE_NO_PAD.decode(text).ok().and_then(|json| String::from_utf8(json).ok());
    let json = json.ok_or_else(malformed)?;
    let compact = Compact::split(&json).ok_or_else(malformed)?;
    let signature = URL_SAFE_NO_PAD.decode(compact.signature).map_err(|_| malformed())?;
    let members = compact.session.strip_suffix('}').ok_or_else(malformed)?;
    let signed = format!(r#"{members},"expiresAt":{}}}"#, compact.expires_at);
    hmac::verify(key, signed.as_bytes(), &signature).map_err(|_| ExtractError::rejected("bad_signature"))?;
    let Ok(Value::Object(session)) = Value::parse(compact.session.as_bytes()) else {
        return Err(malformed());
    };
    // JavaScript would have put the outer one in its place.
    if session.contains("expiresAt") {
        return Err(malformed());
    }
    let millis: i64 = compact.expires_at.parse().map_err(|_| malformed())?;
    Ok((session, millis.div_euclid(1000)))
}

/// The three members of the compact form, each as its text.
struct Compact<'a> {
    session: &'a str,
    expires_at: &'a str,
    signature: &'a str,
}

impl<'a> Compact<'a> {
    /// Cuts from the end: neither base64 nor digits can hold what separates them.
    fn split(json: &'a str) -> Option<Self> {
        let rest = json.strip_prefix(r#"{"session":"#)?.strip_suffix(r#""}"#)?;
        let (rest, signature) = rest.rsplit_once(r#","signature":""#)?;
        let (session, expires_at) = rest.rsplit_once(r#","expiresAt":"#)?;
        let digits = expires_at.bytes().all(|byte| byte.is_ascii_digit());
        digits.then_some(Self { session, expires_at, signature })
    }
}

/// The payload of an HS256 token (RFC 7515, section 5.2).
fn open_jwt(key: &hmac::Key, token: &str) -> Result<Vec<u8>, ExtractError> {
    let malformed = || ExtractError::rejected("malformed");
    let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| malformed());
    let (signed, signature) = token.rsplit_once('.').ok_or_else(malformed)?;
    let (header, payload) = signed.split_once('.').ok_or_else(malformed)?;
    let Ok(Value::Object(header)) = Value::parse(&decode(header)?) else { return Err(malformed()) };
    if header.get("alg") != Ok(Some(&Value::String("HS256".to_owned()))) {
        return Err(ExtractError::rejected("alg_not_allowed"));
    }
    if ["crit", "b64", "zip"].iter().any(|name| header.contains(name)) {
        return Err(ExtractError::rejected("header"));
    }
    let genuine = hmac::verify(key, signed.as_bytes(), &decode(signature)?);
    genuine.map_err(|_| ExtractError::rejected("bad_signature"))?;
    decode(payload)
}

fn with_claims(payload: &[u8], now: UnixSeconds) -> Result<(Object, UnixSeconds), ExtractError> {
    let Ok(Value::Object(claims)) = Value::parse(payload) else {
        return Err(ExtractError::rejected("malformed"));
    };
    let expires_at = jwt_times::check(&claims, now, 0)?;
    Ok((claims, expires_at))
}

impl BetterAuth {
    fn session(&self, request: &Parts) -> Extracted {
        let Some(text) = self.cookie.find_whole_or_parts(request, MAX_PARTS)? else { return Ok(None) };
        let now = self.clock.now();
        let (cache, expires_at) = self.strategy.open(&text, now)?;
        let session_ends = session_end(&cache)?;
        let written = written_at(&cache)?;
        if written.is_some_and(|written| written > now + SKEW) {
            return Err(ExtractError::rejected("from_the_future"));
        }
        let too_old = written.map_or(UnixSeconds::MAX, |written| written.saturating_add(self.max_age));
        if now >= expires_at.min(session_ends).min(too_old) {
            return Err(ExtractError::expired());
        }
        // The cache ends; the session that it is a copy of goes on.
        Ok(Some(Session { attributes: Value::Object(cache), expires_at: Some(session_ends) }))
    }
}

/// How far the app's clock may be ahead of ours, in seconds.
const SKEW: UnixSeconds = 60;

/// When the session itself ends, which the library checks beside the cache's own end.
fn session_end(cache: &Object) -> Result<UnixSeconds, ExtractError> {
    let malformed = || ExtractError::rejected("malformed");
    let Ok(Some(Value::Object(session))) = cache.get("session") else { return Err(malformed()) };
    match session.get("expiresAt") {
        Ok(Some(Value::String(time))) => iso_time::parse(time).ok_or_else(malformed),
        _ => Err(malformed()),
    }
}

/// When the app wrote the cache; versions before 1.4 do not say it in the compact form.
fn written_at(cache: &Object) -> Result<Option<UnixSeconds>, ExtractError> {
    match cache.get("updatedAt") {
        Ok(Some(Value::Number(millis))) => match millis.as_i64() {
            Some(millis) => Ok(Some(millis.div_euclid(1000))),
            None => Err(ExtractError::rejected("malformed")),
        },
        Ok(None) => jwt_times::date(cache, "iat"),
        Ok(Some(_)) | Err(_) => Err(ExtractError::rejected("malformed")),
    }
}

impl SessionExtractor for BetterAuth {
    fn extract<'a>(&'a self, request: &'a Parts) -> BoxFuture<'a, Extracted> {
        ready(self.session(request)).boxed()
    }
}
