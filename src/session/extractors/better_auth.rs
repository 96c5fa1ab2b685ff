//! `better_auth`: Better Auth's cookie cache, a short-lived copy of the session that needs no look-up. Format:
//! better-auth `packages/better-auth/src/cookies/index.ts` (`setCookieCache`, `getCookieCache`) and `crypto/jwt.ts`.
//! The session token, in another cookie, needs a look-up in the app's store: see `sql_session` and `redis_session`.
//! Here it is only compared with the token in the cache, as `api/routes/session.ts` does.

use std::borrow::Cow;

use aws_lc_rs::hmac;
use axum::http::request::Parts;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use serde::{Deserialize, Serialize};

use crate::clock::UnixSeconds;
use crate::config::{HumanDuration, Problems, Section};
use crate::json::{Object, Value};
use crate::secret::Secret;
use crate::session::backends::Context;
use crate::session::formats::expiry::Expiry;
use crate::session::formats::jwe::{self, ContentKey, Thumbprint};
use crate::session::formats::{hkdf, jwt_times, percent};
use crate::session::kind::{BuildResult, Kind};
use crate::session::reason::Reason;
use crate::session::sections::app_secret;
use crate::session::sections::cookie::Cookie;
use crate::session::sections::session_cookie::{CookieFormat, SessionCookie};
use crate::session::sections::session_end::{ExpiresPath, SessionEnd};
use crate::session::types::{ExtractError, Extracted, Session};

pub const KIND: Kind = Kind::new(build).with_subject("{user.id}");

/// The maximum number of chunks of the cookie. A cache of session and user needs one or two; the library has no limit.
const MAX_PARTS: usize = 10;
/// The suffixes of the cookie names for the cache and for the session token.
const CACHE_NAME: &str = "session_data";
const TOKEN_NAME: &str = "session_token";
/// The tolerated clock skew of the app, in seconds.
const SKEW: UnixSeconds = 60;

/// `[extractors.NAME]` with `kind = "better_auth"`
#[derive(Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct BetterAuthConfig {
    cookie: String,
    secret: Option<Secret>,
    strategy: String,
    max_age: HumanDuration,
    expires_path: Option<ExpiresPath>,
    idle: Option<HumanDuration>,
}

impl Default for BetterAuthConfig {
    fn default() -> Self {
        Self {
            cookie: "better-auth.session_data".to_owned(),
            secret: None,
            strategy: "compact".to_owned(),
            max_age: HumanDuration::secs(5 * 60),
            expires_path: None,
            idle: None,
        }
    }
}

#[derive(Debug)]
struct BetterAuth {
    /// The cookie that contains the session token; `None` if the app chose a name for the cache that does not end in
    /// [`CACHE_NAME`].
    token_cookie: Option<Cookie>,
    strategy: Strategy,
    max_age: UnixSeconds,
}

/// How the app signs or encrypts the cache.
#[derive(Debug)]
enum Strategy {
    Compact(hmac::Key),
    Jwt(hmac::Key),
    Jwe(ContentKey),
}

fn build(section: &Section<'_>, context: &Context) -> BuildResult {
    let mut problems = Problems::default();
    let config: BetterAuthConfig = section.read(&mut problems);
    let cookie = Cookie::named(section, "cookie", &config.cookie, &mut problems);
    let setting = "BETTER_AUTH_SECRET";
    let secret = app_secret::required(section, "secret", config.secret, setting, &mut problems);
    problems.require(
        !config.max_age.0.is_zero(),
        section.key("max_age"),
        "must be greater than 0s",
    );
    let known = matches!(config.strategy.as_str(), "compact" | "jwt" | "jwe");
    problems.require(
        known,
        section.key("strategy"),
        "must be \"compact\", \"jwt\" or \"jwe\"",
    );
    let end = SessionEnd::read(section, config.expires_path, config.idle, &mut problems);
    let Some(secret) = secret else {
        return Err(problems);
    };
    let token_cookie = cookie
        .as_ref()
        .and_then(|cookie| cookie.name().strip_suffix(CACHE_NAME))
        .map(|prefix| format!("{prefix}{TOKEN_NAME}"))
        .and_then(|name| Cookie::named(section, "cookie", &name, &mut problems));
    let format = BetterAuth {
        token_cookie,
        strategy: Strategy::new(&config.strategy, &secret),
        max_age: config.max_age.whole_seconds(),
    };
    SessionCookie::build(context, cookie, format, end, problems)
}

impl Strategy {
    fn new(name: &str, secret: &Secret) -> Self {
        let hmac = || hmac::Key::new(hmac::HMAC_SHA256, secret.expose());
        match name {
            "jwe" => {
                let info = "BetterAuth.js Generated Encryption Key";
                let key = hkdf::hkdf(secret.expose(), "better-auth-session", info);
                Self::Jwe(ContentKey::cbc_hs512(&key, Some(Thumbprint::Sha256)))
            }
            "jwt" => Self::Jwt(hmac()),
            _ => Self::Compact(hmac()),
        }
    }

    /// Verifies the cookie's value, and returns the cached session and the expiry of the cache.
    fn open(&self, text: &str, now: UnixSeconds) -> Result<(Object, UnixSeconds), ExtractError> {
        match self {
            Self::Compact(key) => open_compact(key, text),
            Self::Jwt(key) => with_claims(&open_jwt(key, text)?, now),
            Self::Jwe(key) => with_claims(&jwe::open(text, std::iter::once(key), "secret")?, now),
        }
    }
}

/// Opens `{"session":{…},"expiresAt":…,"signature":"…"}` in base64url. The app signs the `JSON.stringify` output for
/// `{...session, expiresAt}`. The signed text is cut from the cookie and not serialized again, because the signature
/// matches only JavaScript's own spelling of numbers and escapes.
fn open_compact(key: &hmac::Key, text: &str) -> Result<(Object, UnixSeconds), ExtractError> {
    let malformed = ExtractError::malformed;
    let json = String::from_utf8(decode(text)?).map_err(|_| malformed())?;
    let (session, expires_at, signature) = split_compact(&json).ok_or_else(malformed)?;
    let members = session.strip_suffix('}').ok_or_else(malformed)?;
    let signed = format!(r#"{members},"expiresAt":{expires_at}}}"#);
    hmac::verify(key, signed.as_bytes(), &decode(signature)?)
        .map_err(|_| ExtractError::other_secret(Reason::BadSignature, "secret"))?;
    let session = Object::parse(session.as_bytes()).ok_or_else(malformed)?;
    // With the spread `{...session, expiresAt}`, JavaScript keeps only the outer `expiresAt`.
    if session.contains("expiresAt") {
        return Err(malformed());
    }
    let millis: i64 = expires_at.parse().map_err(|_| malformed())?;
    Ok((session, millis.div_euclid(1000)))
}

/// The members `session`, `expiresAt` and `signature` of the compact form, as unparsed JSON text. Splits from the end,
/// because neither base64 nor digits can contain the separators.
fn split_compact(json: &str) -> Option<(&str, &str, &str)> {
    let rest = json.strip_prefix(r#"{"session":"#)?.strip_suffix(r#""}"#)?;
    let (rest, signature) = rest.rsplit_once(r#","signature":""#)?;
    let (session, expires_at) = rest.rsplit_once(r#","expiresAt":"#)?;
    let digits = expires_at.bytes().all(|byte| byte.is_ascii_digit());
    digits.then_some((session, expires_at, signature))
}

/// Verifies an HS256 token (RFC 7515, section 5.2), and returns its payload.
fn open_jwt(key: &hmac::Key, token: &str) -> Result<Vec<u8>, ExtractError> {
    let malformed = ExtractError::malformed;
    let (signed, signature) = token.rsplit_once('.').ok_or_else(malformed)?;
    let (header, payload) = signed.split_once('.').ok_or_else(malformed)?;
    let header = Object::parse(&decode(header)?).ok_or_else(malformed)?;
    if header.text("alg") != Some("HS256") {
        return Err(ExtractError::rejected(Reason::AlgNotAllowed));
    }
    if ["crit", "b64", "zip"]
        .iter()
        .any(|name| header.contains(name))
    {
        return Err(ExtractError::rejected(Reason::Header));
    }
    let genuine = hmac::verify(key, signed.as_bytes(), &decode(signature)?);
    genuine.map_err(|_| ExtractError::other_secret(Reason::BadSignature, "secret"))?;
    decode(payload)
}

fn with_claims(payload: &[u8], now: UnixSeconds) -> Result<(Object, UnixSeconds), ExtractError> {
    let claims = Object::parse(payload).ok_or_else(ExtractError::malformed)?;
    let expires_at = jwt_times::check(&claims, now, 0)?;
    Ok((claims, expires_at))
}

fn decode(base64url: &str) -> Result<Vec<u8>, ExtractError> {
    URL_SAFE_NO_PAD
        .decode(base64url)
        .map_err(|_| ExtractError::malformed())
}

impl CookieFormat for BetterAuth {
    fn find<'a>(
        &self,
        cookie: &Cookie,
        request: &'a Parts,
    ) -> Result<Option<Cow<'a, str>>, ExtractError> {
        cookie.find_whole_or_chunks(request, MAX_PARTS)
    }

    fn read(&self, cookie: &Cookie, value: &str, request: &Parts, now: UnixSeconds) -> Extracted {
        let (cache, expires_at) = self.strategy.open(value, now)?;
        let Ok(Some(Value::Object(session))) = cache.get("session") else {
            return Err(ExtractError::malformed());
        };
        self.check_token(session, cookie, request)?;
        let session_ends = session_end(session)?;
        let written = written_at(&cache)?;
        if let Some(written) = written.filter(|written| *written > now + SKEW) {
            let reason = Reason::FromTheFuture;
            return Err(ExtractError::ahead(reason, "updatedAt", written, now, SKEW));
        }
        let too_old = written.map_or(UnixSeconds::MAX, |written| {
            written.saturating_add(self.max_age)
        });
        let end = expires_at.min(session_ends).min(too_old);
        if now >= end {
            return Err(ExtractError::expired_at(end, now));
        }
        // This is the expiry of the session, not that of the cache, which is only a copy.
        Ok(Some(Session {
            attributes: Value::Object(cache),
            expires_at: Some(session_ends),
        }))
    }
}

impl BetterAuth {
    /// Refuses a cache that belongs to a different session from the one that the token names. Such a cache is left over
    /// from another user, or was set by an attacker on a sibling domain, and the app itself ignores it. The token's
    /// signature is not verified, because the token only restricts which cache is accepted. Without a token in the
    /// request or in the cache, nothing is checked.
    fn check_token(
        &self,
        session: &Object,
        cookie: &Cookie,
        request: &Parts,
    ) -> Result<(), ExtractError> {
        let Some(token_cookie) = &self.token_cookie else {
            return Ok(());
        };
        let (Some(signed), Some(token)) = (token_cookie.find(request)?, session.text("token"))
        else {
            return Ok(());
        };
        let signed = percent::decode_or_raw(signed);
        if signed.rsplit_once('.').map(|(sent, _)| sent) == Some(token) {
            return Ok(());
        }
        Err(
            ExtractError::rejected(Reason::AmbiguousIdentity).because(format!(
                "{} and {} belong to different sessions",
                cookie.name(),
                token_cookie.name()
            )),
        )
    }
}

/// The expiry of the session itself. Like the library, the extractor checks it in addition to the expiry of the cache.
fn session_end(session: &Object) -> Result<UnixSeconds, ExtractError> {
    let end = session.text("expiresAt").and_then(Expiry::of_text);
    end.map(|end| end.floor).ok_or_else(ExtractError::malformed)
}

/// The time at which the app wrote the cache; `None` for the compact form of versions before 1.4, which lacks it.
fn written_at(cache: &Object) -> Result<Option<UnixSeconds>, ExtractError> {
    match cache.get("updatedAt") {
        Ok(Some(Value::Number(millis))) => {
            let millis = millis.as_i64().ok_or_else(ExtractError::malformed)?;
            Ok(Some(millis.div_euclid(1000)))
        }
        Ok(None) => jwt_times::date(cache, "iat"),
        Ok(Some(_)) | Err(_) => Err(ExtractError::malformed()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::contract;
    use crate::session::sections::testing::{NOW, answer, build, refused};
    use crate::session::types::SessionExtractor;
    use std::sync::Arc;

    const SECRET: &str = "hunter2-hunter2-hunter2-hunter2";

    fn extractor(more: &str) -> Arc<dyn SessionExtractor> {
        build("better_auth", &format!("secret = \"{SECRET}\"\n{more}")).unwrap()
    }

    fn signature(text: &str) -> String {
        URL_SAFE_NO_PAD.encode(hmac::sign(
            &hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes()),
            text.as_bytes(),
        ))
    }

    /// A compact cache as the library writes it, provided that `session` is serialized as in JavaScript.
    fn compact(session: &str, expires_at: i64) -> String {
        let signed = format!(
            "{},\"expiresAt\":{expires_at}}}",
            session.strip_suffix('}').unwrap()
        );
        wrapped(session, expires_at, &signature(&signed))
    }

    fn wrapped(session: &str, expires_at: i64, signature: &str) -> String {
        let json = format!(
            r#"{{"session":{session},"expiresAt":{expires_at},"signature":"{signature}"}}"#
        );
        URL_SAFE_NO_PAD.encode(json)
    }

    fn jwt(header: &str, claims: &str) -> String {
        let signed = format!(
            "{}.{}",
            URL_SAFE_NO_PAD.encode(header),
            URL_SAFE_NO_PAD.encode(claims)
        );
        format!("{signed}.{}", signature(&signed))
    }

    fn asked(more: &str, value: &str) -> Result<Option<String>, &'static str> {
        answer(
            &*extractor(more),
            &[("cookie", &format!("better-auth.session_data={value}"))],
        )
    }

    /// A session that expires one hour after [`NOW`], which is 2027-01-15T08:00:00Z.
    const SESSION: &str = concat!(
        r#"{"session":{"expiresAt":"2027-01-15T09:00:00.000Z"},"#,
        r#""user":{"id":"u-1"},"updatedAt":1800000000000}"#
    );
    const SOON: i64 = (NOW + 300) * 1000;

    #[tokio::test]
    async fn extractor_passes_the_contract_checks() {
        for strategy in ["compact", "jwt", "jwe"] {
            contract::check(
                &*extractor(&format!("strategy = \"{strategy}\"")),
                &[SECRET],
            )
            .await;
        }
    }

    #[test]
    fn signature_of_a_compact_cache_covers_its_exact_text() {
        let good = compact(SESSION, SOON);
        assert_eq!(asked("", &good), Ok(Some(SESSION.to_owned())));
        // Any spelling of numbers and escapes is accepted if the app has signed it.
        let odd = SESSION.replace("u-1\"", r#"u-1","n":1e+21,"e":"é\u2028\"""#);
        assert!(asked("", &compact(&odd, SOON)).unwrap().is_some());

        let user = r#""user":{"id":"u-1"},"#;
        let signed = signature(&format!(
            "{},\"expiresAt\":{SOON}}}",
            SESSION.strip_suffix('}').unwrap()
        ));
        for (case, session) in [
            (
                "members in another order",
                SESSION
                    .replace(user, "")
                    .replacen('{', &format!("{{{user}"), 1),
            ),
            ("a space", SESSION.replacen(':', ": ", 1)),
            (
                "a number in another spelling",
                SESSION.replace("1800000000000", "1.8e12"),
            ),
            ("a letter as an escape", SESSION.replace("u-1", "\\u0075-1")),
            ("another user", SESSION.replace("u-1", "u-2")),
        ] {
            assert_eq!(
                asked("", &wrapped(&session, SOON, &signed)),
                Err("bad_signature"),
                "{case}"
            );
        }
        assert_eq!(
            asked("", &wrapped(SESSION, SOON + 1, &signed)),
            Err("bad_signature"),
            "another expiry"
        );
        assert_eq!(
            asked("", &wrapped(SESSION, SOON, &format!("{signed}="))),
            Err("malformed")
        );
        assert_eq!(asked("", &format!("{good}=")), Err("malformed"));
        let ambiguous = SESSION.replacen('{', r#"{"expiresAt":1900000000000,"#, 1);
        assert_eq!(
            asked("", &compact(&ambiguous, SOON)),
            Err("malformed"),
            "two expiries"
        );
    }

    #[test]
    fn cache_expires_at_the_earliest_of_its_expiry_the_session_expiry_and_max_age() {
        let written =
            |seconds: i64| SESSION.replace("1800000000000", &format!("{}", seconds * 1000));
        for (case, session, expires_at, want) in [
            ("just written", SESSION.to_owned(), SOON, Ok(())),
            (
                "cache expired",
                SESSION.to_owned(),
                NOW * 1000,
                Err("expired"),
            ),
            (
                "session expired",
                SESSION.replace("T09", "T08"),
                SOON,
                Err("expired"),
            ),
            ("nearly max_age ago", written(NOW - 299), SOON, Ok(())),
            ("max_age ago", written(NOW - 300), SOON, Err("expired")),
            (
                "from the future, within the tolerance",
                written(NOW + 60),
                SOON,
                Ok(()),
            ),
            (
                "from the future",
                written(NOW + 61),
                SOON,
                Err("from_the_future"),
            ),
            (
                "no updatedAt",
                SESSION.replace(r#","updatedAt":1800000000000"#, ""),
                SOON,
                Ok(()),
            ),
            (
                "updatedAt is text",
                SESSION.replace("1800000000000", "\"now\""),
                SOON,
                Err("malformed"),
            ),
            (
                "session without expiry",
                SESSION.replace("expiresAt", "expires"),
                SOON,
                Err("malformed"),
            ),
            (
                "an invalid expiry",
                SESSION.replace("2027-01-15T09:00:00.000Z", "tomorrow"),
                SOON,
                Err("malformed"),
            ),
        ] {
            let answer = asked("", &compact(&session, expires_at)).map(|_| ());
            assert_eq!(answer, want, "{case}");
        }
        assert!(asked("max_age = \"1h\"", &compact(&written(NOW - 3000), SOON)).is_ok());
    }

    #[test]
    fn cache_of_a_session_that_the_session_token_does_not_name_is_refused() {
        let session = SESSION.replacen(r#"{"expiresAt""#, r#"{"token":"t.1","expiresAt""#, 1);
        let cache = compact(&session, SOON);
        for (names, token, want) in [
            ("better-auth", None, Ok(())),
            ("better-auth", Some(""), Ok(())),
            ("better-auth", Some("t.1.c2lnbmVk%3D"), Ok(())),
            (
                "better-auth",
                Some("t.2.c2lnbmVk%3D"),
                Err("ambiguous_identity"),
            ),
            ("better-auth", Some("t.1"), Err("ambiguous_identity")),
            ("__Secure-app", Some("t.1.c2lnbmVk"), Ok(())),
            (
                "__Secure-app",
                Some("t.2.c2lnbmVk"),
                Err("ambiguous_identity"),
            ),
        ] {
            let extractor = extractor(&format!("cookie = \"{names}.session_data\""));
            let mut cookies = format!("{names}.session_data={cache}");
            if let Some(token) = token {
                cookies = format!("{names}.session_token={token}; {cookies}");
            }
            let answer = answer(&*extractor, &[("cookie", &cookies)]).map(|_| ());
            assert_eq!(answer, want, "{names} {token:?}");
        }
        // The check is skipped if the cache's name does not end in `session_data`, or if the cache contains no token.
        let renamed = extractor("cookie = \"cache\"");
        let cookies = format!("cache={cache}; better-auth.session_token=t.2.c2lnbmVk");
        assert!(answer(&*renamed, &[("cookie", &cookies)]).is_ok());
        let cookies = format!(
            "better-auth.session_data={}; better-auth.session_token=t.2.c2lnbmVk",
            compact(SESSION, SOON)
        );
        assert!(answer(&*extractor(""), &[("cookie", &cookies)]).is_ok());
    }

    #[test]
    fn jwt_cache_that_is_not_a_valid_hs256_token_is_refused() {
        let claims = format!(
            r#"{},"exp":{}}}"#,
            SESSION.strip_suffix('}').unwrap(),
            NOW + 60
        );
        let strategy = "strategy = \"jwt\"";
        let good = jwt(r#"{"alg":"HS256"}"#, &claims);
        assert!(asked(strategy, &good).unwrap().is_some());
        for (case, token, want) in [
            ("none", jwt(r#"{"alg":"none"}"#, &claims), "alg_not_allowed"),
            ("no alg", jwt("{}", &claims), "alg_not_allowed"),
            (
                "repeated alg",
                jwt(r#"{"alg":"HS256","alg":"HS256"}"#, &claims),
                "alg_not_allowed",
            ),
            (
                "HS512",
                jwt(r#"{"alg":"HS512"}"#, &claims),
                "alg_not_allowed",
            ),
            (
                "crit",
                jwt(r#"{"alg":"HS256","crit":["b64"],"b64":false}"#, &claims),
                "header",
            ),
            ("no exp", jwt(r#"{"alg":"HS256"}"#, SESSION), "exp"),
            (
                "expired",
                jwt(
                    r#"{"alg":"HS256"}"#,
                    &claims.replace("1800000060", "1800000000"),
                ),
                "expired",
            ),
            ("a list", jwt(r#"{"alg":"HS256"}"#, "[]"), "malformed"),
            (
                "unsigned",
                good.rsplit_once('.').unwrap().0.to_owned(),
                "malformed",
            ),
            (
                "no signature",
                format!("{}.", good.rsplit_once('.').unwrap().0),
                "bad_signature",
            ),
            ("four parts", format!("{good}.e30"), "bad_signature"),
            ("a compact cache", compact(SESSION, SOON), "malformed"),
        ] {
            assert_eq!(asked(strategy, &token), Err(want), "{case}");
        }
        assert_eq!(
            asked("", &good),
            Err("malformed"),
            "a JWT under the strategy compact"
        );
    }

    #[test]
    fn invalid_section_is_refused_and_the_problem_names_the_key() {
        let with = |keys: &str| format!("secret = \"{SECRET}\"\n{keys}");
        refused(
            "better_auth",
            &[
                ("nothing", "", "secret"),
                ("strategy", &with("strategy = \"jws\""), "strategy"),
                ("max_age", &with("max_age = \"0s\""), "max_age"),
                ("cookie", &with("cookie = \"a;b\""), "cookie"),
            ],
        );
    }
}
