//! `starlette`: the cookie of Starlette's `SessionMiddleware`, which `FastAPI` uses too.
//! Format: Starlette `middleware/sessions.py`, itsdangerous `timed.py`.

use aws_lc_rs::{digest, hmac};
use axum::http::request::Parts;

use serde::{Deserialize, Serialize};

use crate::clock::UnixSeconds;
use crate::config::{HumanDuration, Problems, Section};
use crate::secret::Secret;
use crate::session::backends::Context;
use crate::session::formats::payload;
use crate::session::formats::signed_timestamp::{self, SignedTimestampVerifier};
use crate::session::kind::{BuildResult, Kind};
use crate::session::sections::app_secret;
use crate::session::sections::cookie::Cookie;
use crate::session::sections::session_cookie::{CookieFormat, SessionCookie};
use crate::session::sections::session_end::{ExpiresPath, SessionEnd};
use crate::session::sections::signed_timestamp::MaxAge;
use crate::session::types::{Extracted, Session};

/// The middleware has no concept of users. The default subject is the member in which most apps store the user's id.
pub const KIND: Kind = Kind::new(build).with_subject("{user_id}");

/// The cookie's value after the session has been cleared. The middleware sets it unsigned, with an expiry in the past.
const SIGNED_OUT: &str = "null";

/// `[extractors.NAME]` with `kind = "starlette"`
#[derive(Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct StarletteConfig {
    cookie: String,
    secret_key: Option<Secret>,
    max_age: MaxAge,
    expires_path: Option<ExpiresPath>,
    idle: Option<HumanDuration>,
}

impl Default for StarletteConfig {
    fn default() -> Self {
        Self {
            cookie: "session".to_owned(),
            secret_key: None,
            max_age: MaxAge::days(14),
            expires_path: None,
            idle: None,
        }
    }
}

#[derive(Debug)]
struct Starlette(SignedTimestampVerifier);

fn build(section: &Section<'_>, context: &Context) -> BuildResult {
    let mut problems = Problems::default();
    let config: StarletteConfig = section.read(&mut problems);
    let setting = "secret_key";
    let secret = app_secret::required(
        section,
        "secret_key",
        config.secret_key,
        setting,
        &mut problems,
    );
    let end = SessionEnd::read(section, config.expires_path, config.idle, &mut problems);
    let cookie = Cookie::named(section, "cookie", &config.cookie, &mut problems);
    let verifier = SignedTimestampVerifier {
        separator: '.',
        keys: secret.iter().map(derive).collect(),
        parse_timestamp: signed_timestamp::itsdangerous_timestamp,
        max_age: config.max_age.seconds(),
        // itsdangerous refuses a timestamp in the future.
        leeway: 0,
    };
    SessionCookie::build(context, cookie, Starlette(verifier), end, problems)
}

/// Derives the key with the defaults of itsdangerous, which Starlette uses: the derivation `django-concat` and the
/// salt `itsdangerous.Signer`.
fn derive(secret: &Secret) -> hmac::Key {
    let mut context = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    context.update(b"itsdangerous.Signer");
    context.update(b"signer");
    context.update(secret.expose());
    hmac::Key::new(signed_timestamp::HMAC_SHA1, context.finish().as_ref())
}

impl CookieFormat for Starlette {
    fn read(&self, _: &Cookie, value: &str, _: &Parts, now: UnixSeconds) -> Extracted {
        if value == SIGNED_OUT {
            return Ok(None);
        }
        let opened = self.0.open(value, now)?;
        let attributes = payload::json(&payload::base64(opened.payload)?)?;
        Ok(Some(Session {
            attributes,
            expires_at: opened.expires_at,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::contract;
    use crate::session::reason::Reason;
    use crate::session::sections::testing::{assert_single_problem, build_at, extract_at};

    // The test vector `anonymous`: {"flash": "x"}, signed by Starlette.
    const COOKIE: &str = "eyJmbGFzaCI6ICJ4In0=.awYoqw.8iWWRmODvgvyV-eSk3shcmxT48M";
    const STAMP: i64 = 1_795_565_739;
    const KEY: &str = "secret_key = \"public-starlette-secret\"";

    fn extract(keys: &str, now: i64, cookie: &str) -> Extracted {
        extract_at(now, "starlette", keys, &format!("session={cookie}"))
    }

    #[tokio::test]
    async fn extractor_passes_the_contract_checks() {
        contract::check(
            &*build_at(STAMP, "starlette", KEY).unwrap(),
            &["public-starlette-secret"],
        )
        .await;
    }

    #[test]
    fn signed_cookie_expires_after_max_age() {
        let session = extract(KEY, STAMP, COOKIE).unwrap().unwrap();
        assert_eq!(
            serde_json::to_string(&session.attributes).unwrap(),
            r#"{"flash":"x"}"#
        );
        assert_eq!(session.expires_at, Some(STAMP + 14 * 86_400));
        let late = extract(KEY, STAMP + 14 * 86_400 + 1, COOKIE);
        assert_eq!(late.unwrap_err().reason(), Reason::Expired);
        let early = extract(KEY, STAMP - 1, COOKIE);
        assert_eq!(early.unwrap_err().reason(), Reason::FromTheFuture);
    }

    #[test]
    fn max_age_none_disables_expiry_but_a_future_timestamp_is_refused() {
        let keys = format!("{KEY}\nmax_age = \"none\"");
        let session = extract(&keys, STAMP + 999_999_999, COOKIE)
            .unwrap()
            .unwrap();
        assert_eq!(session.expires_at, None);
        let early = extract(&keys, STAMP - 1, COOKIE);
        assert_eq!(early.unwrap_err().reason(), Reason::FromTheFuture);
    }

    #[test]
    fn cookie_with_value_null_is_not_signed_in_and_similar_values_are_refused() {
        for signed_out in ["null", "\"null\""] {
            assert!(matches!(extract(KEY, STAMP, signed_out), Ok(None)));
        }
        for other in ["NULL", "null.", "bnVsbA=="] {
            assert!(extract(KEY, STAMP, other).is_err(), "{other}");
        }
    }

    #[test]
    fn invalid_section_is_refused_and_the_problem_names_the_key() {
        assert_single_problem(
            "starlette",
            &[
                ("no key", "", "secret_key: is missing"),
                (
                    "placeholder",
                    "secret_key = \"secret\"",
                    "secret_key: is still a placeholder",
                ),
                (
                    "age",
                    &format!("{KEY}\nmax_age = \"never\""),
                    "max_age: must be a duration",
                ),
                (
                    "no fallbacks",
                    &format!("{KEY}\nsecret_key_fallbacks = []"),
                    "secret_key_fallbacks:",
                ),
            ],
        );
    }
}
