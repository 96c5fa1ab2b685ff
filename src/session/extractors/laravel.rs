//! `laravel`: Laravel with the session driver `cookie`. One encrypted cookie contains the session's id; a second
//! cookie, whose name is that id, contains the session. Format: Laravel
//! `src/Illuminate/Session/CookieSessionHandler.php`. Sessions stored in a database or in Redis are read by
//! `sql_session` and `redis_session`.

use axum::http::request::Parts;

use serde::{Deserialize, Serialize};

use crate::clock::UnixSeconds;
use crate::config::{HumanDuration, List, Problems, Section};
use crate::json::{Object, Value};
use crate::secret::Secret;
use crate::session::backends::Context;
use crate::session::kind::{BuildResult, Kind};
use crate::session::reason::Reason;
use crate::session::sections::cookie::{self, Cookie};
use crate::session::sections::laravel::{self, AppKeySet};
use crate::session::sections::session_cookie::{CookieFormat, SessionCookie};
use crate::session::sections::session_end::{ExpiresPath, SessionEnd};
use crate::session::types::{ExtractError, Extracted, Session};

/// The default subject is the member in which the guard `web` stores the user's id. The digits are the SHA-1 of the
/// guard's class name.
pub const KIND: Kind =
    Kind::new(build).with_subject("{login_web_59ba36addc2b2f9401580f014c7f58ea4e30989d}");

/// The tolerated clock skew of the app, in seconds.
const SKEW: UnixSeconds = 60;

/// `[extractors.NAME]` with `kind = "laravel"`
#[derive(Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct LaravelConfig {
    cookie: String,
    app_key: Option<Secret>,
    previous_keys: List<Secret>,
    cipher: String,
    lifetime: HumanDuration,
    expires_path: Option<ExpiresPath>,
    idle: Option<HumanDuration>,
}

impl Default for LaravelConfig {
    fn default() -> Self {
        Self {
            cookie: laravel::COOKIE.to_owned(),
            app_key: None,
            previous_keys: List::default(),
            cipher: laravel::CIPHER.to_owned(),
            lifetime: HumanDuration::secs(120 * 60),
            expires_path: None,
            idle: None,
        }
    }
}

#[derive(Debug)]
struct Laravel {
    keys: AppKeySet,
    lifetime: UnixSeconds,
}

fn build(section: &Section<'_>, context: &Context) -> BuildResult {
    let mut problems = Problems::default();
    let config: LaravelConfig = section.read(&mut problems);
    let cookie = Cookie::named(section, "cookie", &config.cookie, &mut problems);
    let keys = AppKeySet::read(
        section,
        config.app_key,
        config.previous_keys,
        &config.cipher,
        &mut problems,
    );
    problems.require(
        !config.lifetime.0.is_zero(),
        section.key("lifetime"),
        "must be greater than 0s",
    );
    let end = SessionEnd::read(section, config.expires_path, config.idle, &mut problems);
    let lifetime = config.lifetime.whole_seconds();
    SessionCookie::build(context, cookie, Laravel { keys, lifetime }, end, problems)
}

impl CookieFormat for Laravel {
    fn read(&self, cookie: &Cookie, value: &str, request: &Parts, now: UnixSeconds) -> Extracted {
        let id = self.keys.session_id(cookie.name(), value)?;
        let Some(cookie) = cookie::find(&request.headers, &id)? else {
            return Err(ExtractError::rejected(Reason::NoSessionCookie).because(
                "the cookie whose name is the session's id is missing: check that the app has SESSION_DRIVER=cookie",
            ));
        };
        let record = self.keys.open_cookie(&id, cookie)?;
        let record = Object::parse(record.as_bytes()).ok_or_else(ExtractError::malformed)?;
        let (Some(data), Ok(Some(Value::Number(expires)))) =
            (record.text("data"), record.get("expires"))
        else {
            return Err(ExtractError::malformed());
        };
        let expires_at = expires.as_i64().ok_or_else(ExtractError::malformed)?;
        self.check_time(expires_at, now)?;
        Ok(Some(Session {
            attributes: self.keys.attributes(data.as_bytes())?,
            expires_at: Some(expires_at),
        }))
    }
}

impl Laravel {
    /// Refuses a session that has expired. The app sets `expires` to the time of the last request plus its lifetime, so
    /// an `expires` later than now plus `lifetime` is refused too: the configured `lifetime` differs from the app's.
    fn check_time(&self, expires_at: UnixSeconds, now: UnixSeconds) -> Result<(), ExtractError> {
        if now > expires_at {
            return Err(ExtractError::expired_at(expires_at, now));
        }
        if expires_at > now.saturating_add(self.lifetime).saturating_add(SKEW) {
            return Err(ExtractError::rejected(Reason::FromTheFuture).because(
                "the session expires more than `lifetime` from now: set lifetime to the app's SESSION_LIFETIME",
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::session::contract;
    use crate::session::sections::laravel::sealing::{app_key, encrypted, sealed};
    use crate::session::sections::testing::{NOW, answer, build, refused};
    use crate::session::types::SessionExtractor;
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use std::sync::Arc;

    const ID: &str = "LfHKH7U7PrF74NUjNJ4fFXSkyKiYkAJKuXWJQYbx";

    fn extractor() -> Arc<dyn SessionExtractor> {
        build("laravel", &format!("app_key = \"{}\"", app_key())).unwrap()
    }

    fn cookies(record: &str) -> String {
        format!(
            "laravel_session={}; {ID}={}",
            sealed("laravel_session", ID),
            sealed(ID, record)
        )
    }

    fn record(data: &str, expires: i64) -> String {
        serde_json::json!({"data": data, "expires": expires}).to_string()
    }

    const DATA: &str = "a:1:{s:5:\"login\";i:42;}";

    #[tokio::test]
    async fn extractor_passes_the_contract_checks() {
        contract::check(&*extractor(), &[&app_key(), "hunter2"]).await;
    }

    #[test]
    fn session_that_is_expired_or_not_plain_data_is_refused() {
        for (case, record, want) in [
            ("PHP", record(DATA, NOW), Ok(Some(r#"{"login":42}"#))),
            (
                "JSON",
                record(r#"{"login":42}"#, NOW + 7200),
                Ok(Some(r#"{"login":42}"#)),
            ),
            ("not signed in", record("a:0:{}", NOW), Ok(Some("[]"))),
            (
                "expired a second ago",
                record(DATA, NOW - 1),
                Err("expired"),
            ),
            (
                "longer than the lifetime",
                record(DATA, NOW + 7261),
                Err("from_the_future"),
            ),
            ("far future", record(DATA, i64::MAX), Err("from_the_future")),
            (
                "object in another member",
                record(
                    "a:2:{s:6:\"errors\";O:1:\"A\":0:{}s:5:\"login\";i:42;}",
                    NOW,
                ),
                Ok(Some(r#"{"errors":null,"login":42}"#)),
            ),
            (
                "encrypted",
                record(&encrypted(format!("s:{}:\"{DATA}\";", DATA.len())), NOW),
                Ok(Some(r#"{"login":42}"#)),
            ),
            (
                "encrypted, with a name that is not UTF-8",
                record(
                    &encrypted(b"s:42:\"a:2:{s:4:\"name\";s:1:\"\xff\";s:5:\"login\";i:42;}\";"),
                    NOW,
                ),
                Ok(Some(r#"{"name":[],"login":42}"#)),
            ),
            (
                "encrypted, not a string",
                record(&encrypted(DATA), NOW),
                Err("payload_not_plain"),
            ),
            (
                "encrypted, cut off",
                record(&encrypted(DATA)[..40], NOW),
                Err("malformed"),
            ),
            (
                "object",
                record("O:8:\"stdClass\":0:{}", NOW),
                Err("payload_not_plain"),
            ),
            (
                "not a session",
                record("i:42;", NOW),
                Err("payload_not_plain"),
            ),
            (
                "invalid PHP",
                record("a:1:{", NOW),
                Err("payload_not_plain"),
            ),
            (
                "no expiry",
                r#"{"data":"a:0:{}"}"#.to_owned(),
                Err("malformed"),
            ),
            (
                "expiry is text",
                r#"{"data":"a:0:{}","expires":"1900000000"}"#.to_owned(),
                Err("malformed"),
            ),
            (
                "two expiries",
                r#"{"data":"a:0:{}","expires":1,"expires":1800000001}"#.to_owned(),
                Err("malformed"),
            ),
            ("not JSON", DATA.to_owned(), Err("malformed")),
        ] {
            let answer = answer(&*extractor(), &[("cookie", &cookies(&record))]);
            assert_eq!(
                answer,
                want.map(|session| session.map(str::to_owned)),
                "{case}"
            );
        }
    }

    #[test]
    fn value_sealed_for_another_cookie_or_session_or_with_a_malformed_id_is_refused() {
        let second = format!("{ID}={}", sealed(ID, &record(DATA, NOW)));
        for (case, first, want) in [
            ("no name prefix", encrypted(ID), "cookie_name"),
            (
                "another cookie's name prefix",
                sealed("theme", ID),
                "cookie_name",
            ),
            (
                "short id",
                sealed("laravel_session", &ID[1..]),
                "session_id",
            ),
            (
                "another cookie's name",
                sealed("laravel_session", "theme"),
                "session_id",
            ),
            (
                "id with a dot",
                sealed("laravel_session", &ID.replace('L', ".")),
                "session_id",
            ),
            (
                "another session",
                sealed("laravel_session", &"a".repeat(40)),
                "no_session_cookie",
            ),
        ] {
            let cookies = format!("laravel_session={first}; {second}");
            assert_eq!(
                answer(&*extractor(), &[("cookie", &cookies)]),
                Err(want),
                "{case}"
            );
        }
        let swapped = format!(
            "laravel_session={}; {ID}={}",
            sealed("laravel_session", ID),
            sealed("laravel_session", &record(DATA, NOW))
        );
        assert_eq!(
            answer(&*extractor(), &[("cookie", &swapped)]),
            Err("cookie_name"),
            "the second cookie's name prefix"
        );
        let other = sealed(ID, &record(DATA, NOW + 1));
        let twice = format!("{}; {ID}={other}", cookies(&record(DATA, NOW)));
        assert_eq!(
            answer(&*extractor(), &[("cookie", &twice)]),
            Err("ambiguous_identity")
        );
    }

    #[test]
    fn ambiguous_envelope_is_malformed() {
        let good = STANDARD
            .decode(sealed("laravel_session", ID).replace("%3D", "="))
            .unwrap();
        let good = String::from_utf8(good).unwrap();
        for (case, json) in [
            ("iv twice", good.replacen('{', r#"{"iv":"AAAA","#, 1)),
            (
                "tag twice",
                good.replace(r#""tag":"""#, r#""tag":"","tag":"""#),
            ),
            (
                "tag together with CBC",
                good.replace(r#""tag":"""#, r#""tag":"AAAAAAAAAAAAAAAAAAAAAA==""#),
            ),
            ("tag is null", good.replace(r#""tag":"""#, r#""tag":null"#)),
        ] {
            let cookie = format!("laravel_session={}", STANDARD.encode(json));
            assert_eq!(
                answer(&*extractor(), &[("cookie", &cookie)]),
                Err("malformed"),
                "{case}"
            );
        }
    }

    #[test]
    fn invalid_section_is_refused_and_the_problem_names_the_key() {
        let good = app_key();
        let with = |keys: &str| format!("app_key = \"{good}\"\n{keys}");
        refused(
            "laravel",
            &[
                ("no key", "", "app_key"),
                ("short", "app_key = \"base64:aHVudGVyMg==\"", "app_key"),
                (
                    "not base64",
                    "app_key = \"base64:hunter2-hunter2-hunter2\"",
                    "app_key",
                ),
                (
                    "too short for its cipher",
                    "app_key = \"hunter2-hunter2-\"",
                    "app_key",
                ),
                ("placeholder", "app_key = \"changeme\"", "app_key"),
                (
                    "too long for its cipher",
                    &with("cipher = \"aes-128-cbc\""),
                    "app_key",
                ),
                ("cipher", &with("cipher = \"aes-256-ctr\""), "cipher"),
                (
                    "previous",
                    &with("previous_keys = [\"base64:aHVudGVyMmh1bnRlcjI=\"]"),
                    "previous_keys",
                ),
                ("lifetime", &with("lifetime = \"0s\""), "lifetime"),
                ("cookie", &with("cookie = \"\""), "cookie"),
            ],
        );
        assert!(
            build("laravel", &with("cipher = \"AES-256-GCM\"")).is_ok(),
            "as config/app.php writes it"
        );
    }
}
