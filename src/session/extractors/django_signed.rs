//! `django_signed`: Django with the session engine `signed_cookies`, which stores the whole session in one cookie.
//! Format: Django `contrib/sessions/backends/signed_cookies.py`, `core/signing.py`. Sessions that Django stores in a
//! database are read by `sql_session`.

use serde::{Deserialize, Serialize};

use crate::clock::UnixSeconds;
use crate::config::{HumanDuration, List, Problems, Section};
use crate::secret::Secret;
use crate::session::backends::Context;
use crate::session::formats::hkdf;
use crate::session::formats::signed_timestamp::SignedTimestampVerifier;
use crate::session::kind::{BuildResult, Kind};
use crate::session::sections::app_secret;
use crate::session::sections::cookie::Cookie;
use crate::session::sections::session_cookie::SessionCookie;
use crate::session::sections::session_end::{ExpiresPath, SessionEnd};
use crate::session::sections::signed_timestamp::{MaxAge, PickleWarning, SignedTimestampSession};

/// The default subject is the member in which `django.contrib.auth.login` stores the user's primary key, as text even
/// if the key is a number.
pub const KIND: Kind = Kind::new(build).with_subject("{_auth_user_id}");

/// How far a timestamp may be in the future, in seconds, because the app's clock may be ahead of the service's clock.
/// Django itself does not check this.
const LEEWAY: UnixSeconds = 30;

/// `[extractors.NAME]` with `kind = "django_signed"`
#[derive(Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct DjangoSignedConfig {
    cookie: String,
    secret_key: Option<Secret>,
    secret_key_fallbacks: List<Secret>,
    salt: String,
    max_age: MaxAge,
    expires_path: Option<ExpiresPath>,
    idle: Option<HumanDuration>,
}

impl Default for DjangoSignedConfig {
    fn default() -> Self {
        Self {
            cookie: "sessionid".to_owned(),
            secret_key: None,
            secret_key_fallbacks: List::default(),
            salt: "django.contrib.sessions.backends.signed_cookies".to_owned(),
            max_age: MaxAge::days(14),
            expires_path: None,
            idle: None,
        }
    }
}

fn build(section: &Section<'_>, context: &Context) -> BuildResult {
    let mut problems = Problems::default();
    let config: DjangoSignedConfig = section.read(&mut problems);
    let (current, fallbacks) = (config.secret_key, config.secret_key_fallbacks);
    let secrets = app_secret::with_fallbacks(section, current, fallbacks, &mut problems);
    config.max_age.require(section, &mut problems);
    let end = SessionEnd::read(section, config.expires_path, config.idle, &mut problems);
    let cookie = Cookie::named(section, "cookie", &config.cookie, &mut problems);
    let key = |secret: &Secret| hkdf::django(&[&config.salt, "signer"], secret);
    let verifier = SignedTimestampVerifier {
        separator: ':',
        keys: secrets.iter().map(key).collect(),
        parse_timestamp: base62,
        max_age: config.max_age.seconds(),
        leeway: LEEWAY,
    };
    let pickle = PickleWarning::new(
        section.name(),
        "set the app's SESSION_SERIALIZER to django.contrib.sessions.serializers.JSONSerializer",
    );
    let format = SignedTimestampSession { verifier, pickle };
    SessionCookie::build(context, cookie, format, end, problems)
}

/// Decodes a Django timestamp: Unix seconds in base 62 (`b62_encode`), with the digits in the order 0-9, A-Z, a-z.
fn base62(stamp: &str) -> Option<UnixSeconds> {
    if stamp.is_empty() {
        return None;
    }
    stamp.bytes().try_fold(0, |seconds: UnixSeconds, byte| {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'A'..=b'Z' => byte - b'A' + 10,
            b'a'..=b'z' => byte - b'a' + 36,
            _ => return None,
        };
        seconds.checked_mul(62)?.checked_add(digit.into())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::contract;
    use crate::session::sections::testing::{assert_single_problem, build_at, extract_at, word};
    use crate::session::types::Extracted;
    use aws_lc_rs::hmac;
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    // The test vector `own-key-user_id`: {"user_id":1}, signed by Django.
    const COOKIE: &str = "eyJ1c2VyX2lkIjoxfQ:1xW0i3:LH3ztPauLvBbkpYG7CoV7v73Cdjc8Z8lin6bbmaFHZ8";
    const STAMP: i64 = 1_795_565_883;
    const SECRET: &str = "django-insecure-public-0123456789abcdefghijklmnopqrstu";

    fn extract(keys: &str, now: i64, cookie: &str) -> Extracted {
        extract_at(now, "django_signed", keys, &format!("sessionid={cookie}"))
    }

    fn key(secret: &str) -> String {
        format!("secret_key = \"{secret}\"")
    }

    #[tokio::test]
    async fn extractor_passes_the_contract_checks() {
        contract::check(
            &*build_at(STAMP, "django_signed", &key(SECRET)).unwrap(),
            &[SECRET],
        )
        .await;
    }

    #[test]
    fn signed_cookie_expires_after_max_age() {
        let session = extract(&key(SECRET), STAMP, COOKIE).unwrap().unwrap();
        assert_eq!(
            serde_json::to_string(&session.attributes).unwrap(),
            r#"{"user_id":1}"#
        );
        assert_eq!(session.expires_at, Some(STAMP + 14 * 86_400));
        assert_eq!(
            word(extract(&key(SECRET), STAMP + 14 * 86_400 + 1, COOKIE)),
            "expired"
        );
    }

    #[test]
    fn timestamp_up_to_30_s_ahead_is_accepted() {
        assert!(extract(&key(SECRET), STAMP - 30, COOKIE).is_ok());
        assert_eq!(
            word(extract(&key(SECRET), STAMP - 31, COOKIE)),
            "from_the_future"
        );
    }

    #[test]
    fn value_signed_with_another_salt_is_refused() {
        for salt in [
            "",
            "django.core.signing",
            "django.contrib.sessions.SessionStore",
        ] {
            let keys = format!("{}\nsalt = \"{salt}\"", key(SECRET));
            assert_eq!(
                word(extract(&keys, STAMP, COOKIE)),
                "bad_signature",
                "{salt}"
            );
        }
    }

    #[test]
    fn cookie_signed_with_a_listed_key_is_accepted_and_with_a_removed_key_is_refused() {
        let rotated = format!(
            "{}\nsecret_key_fallbacks = [\"older\", \"{SECRET}\"]",
            key("new")
        );
        assert!(extract(&rotated, STAMP, COOKIE).is_ok());
        assert_eq!(word(extract(&key("new"), STAMP, COOKIE)), "bad_signature");
    }

    #[test]
    fn signed_pickle_is_refused() {
        let salt = "django.contrib.sessions.backends.signed_cookies";
        let text = format!(
            "{}:1xW0i3",
            URL_SAFE_NO_PAD.encode(b"\x80\x04cos\nsystem\n(S'id'\ntR.")
        );
        let tag = hmac::sign(
            &hkdf::django(&[salt, "signer"], &Secret::new(SECRET)),
            text.as_bytes(),
        );
        let cookie = format!("{text}:{}", URL_SAFE_NO_PAD.encode(tag));
        assert_eq!(
            word(extract(&key(SECRET), STAMP, &cookie)),
            "payload_not_json"
        );
    }

    #[test]
    fn base62_timestamp_is_decoded() {
        for (stamp, want) in [
            ("1xW0i3", Some(STAMP)),
            ("0", Some(0)),
            ("A", Some(10)),
            ("a", Some(36)),
            ("z", Some(61)),
            ("10", Some(62)),
            ("", None),
            ("-1", None),
            ("1xW0i3 ", None),
            ("zzzzzzzzzzzz", None),
        ] {
            assert_eq!(base62(stamp), want, "{stamp}");
        }
    }

    #[test]
    fn invalid_section_is_refused_and_the_problem_names_the_key() {
        let with = |more: &str| format!("{}\n{more}", key(SECRET));
        assert_single_problem(
            "django_signed",
            &[
                ("no key", "", "secret_key: is missing"),
                (
                    "placeholder",
                    &key("<your-secret>"),
                    "secret_key: is still a placeholder",
                ),
                (
                    "age",
                    &with("max_age = \"none\""),
                    "max_age: must be a duration",
                ),
                (
                    "fallback",
                    &with("secret_key_fallbacks = [\"\"]"),
                    "secret_key_fallbacks: is empty",
                ),
            ],
        );
    }
}
