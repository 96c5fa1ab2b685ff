//! `flask`: Flask's own session cookie, signed by itsdangerous' `URLSafeTimedSerializer`. Format: Flask `sessions.py`
//! (`SecureCookieSessionInterface`), itsdangerous `url_safe.py`, `timed.py`. Flask's tags for values that JSON cannot
//! represent, such as `{" u": …}` for a UUID, are not converted.

use serde::{Deserialize, Serialize};

use crate::config::{HumanDuration, List, Problems, Section};
use crate::secret::Secret;
use crate::session::backends::Context;
use crate::session::formats::signed_timestamp::{self, SignedTimestampVerifier, itsdangerous_key};
use crate::session::kind::{BuildResult, Kind};
use crate::session::sections::cookie::Cookie;
use crate::session::sections::session_cookie::SessionCookie;
use crate::session::sections::session_end::{ExpiresPath, SessionEnd};
use crate::session::sections::signed_timestamp::{MaxAge, PickleWarning, SignedTimestampSession};
use crate::session::sections::{app_secret, hmac_algorithm};

/// The default subject is the member in which Flask-Login stores the user's id.
pub const KIND: Kind = Kind::new(build).with_subject("{_user_id}");

/// `[extractors.NAME]` with `kind = "flask"`
#[derive(Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct FlaskConfig {
    cookie: String,
    secret_key: Option<Secret>,
    secret_key_fallbacks: List<Secret>,
    salt: String,
    digest: String,
    max_age: MaxAge,
    expires_path: Option<ExpiresPath>,
    idle: Option<HumanDuration>,
}

impl Default for FlaskConfig {
    fn default() -> Self {
        Self {
            cookie: "session".to_owned(),
            secret_key: None,
            secret_key_fallbacks: List::default(),
            salt: "cookie-session".to_owned(),
            digest: "sha1".to_owned(),
            max_age: MaxAge::days(31),
            expires_path: None,
            idle: None,
        }
    }
}

fn build(section: &Section<'_>, context: &Context) -> BuildResult {
    let mut problems = Problems::default();
    let config: FlaskConfig = section.read(&mut problems);
    // Flask 3.1.0 signs with the last fallback key, so fallback keys are accepted in the same way as the current key.
    let (current, fallbacks) = (config.secret_key, config.secret_key_fallbacks);
    let secrets = app_secret::with_fallbacks(section, current, fallbacks, &mut problems);
    config.max_age.require(section, &mut problems);
    let end = SessionEnd::read(section, config.expires_path, config.idle, &mut problems);
    let cookie = Cookie::named(section, "cookie", &config.cookie, &mut problems);
    let digest = hmac_algorithm::read(section, "digest", &config.digest, &mut problems);
    let Some(digest) = digest else {
        return Err(problems);
    };
    let verifier = SignedTimestampVerifier {
        separator: '.',
        keys: secrets
            .iter()
            .map(|key| itsdangerous_key(digest, key, &config.salt))
            .collect(),
        parse_timestamp: signed_timestamp::itsdangerous_timestamp,
        max_age: config.max_age.seconds(),
        // itsdangerous refuses a timestamp in the future.
        leeway: 0,
    };
    let pickle = PickleWarning::new(
        section.name(),
        "use Flask's own session interface in the app, which writes JSON, instead of one that writes pickles",
    );
    let format = SignedTimestampSession { verifier, pickle };
    SessionCookie::build(context, cookie, format, end, problems)
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::hmac;

    use super::*;
    use crate::session::contract;
    use crate::session::reason::Reason;
    use crate::session::sections::testing::{assert_single_problem, build_at, extract_at, word};
    use crate::session::types::Extracted;
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    // The test vector `rotation-old-key-in-fallbacks`: {"user_id":"17"}, signed by Flask with OLD.
    const SIGNED_WITH_OLD: &str = "eyJ1c2VyX2lkIjoiMTcifQ.awYoqA.elcqynrr2fZ7f_aRZLcGCO5rQlA";
    const STAMP: i64 = 1_795_565_736;
    const OLD: &str = "dev-public-flask-secret-0000";
    const NEW: &str = "dev-public-flask-secret-0001";

    fn extract(keys: &str, now: i64, cookie: &str) -> Extracted {
        extract_at(now, "flask", keys, &format!("session={cookie}"))
    }

    /// A cookie with this payload, signed as Flask does.
    fn sign(secret: &str, payload: &str) -> String {
        let key = itsdangerous_key(
            signed_timestamp::HMAC_SHA1,
            &Secret::new(secret),
            "cookie-session",
        );
        let text = format!("{payload}.awYoqA");
        format!(
            "{text}.{}",
            URL_SAFE_NO_PAD.encode(hmac::sign(&key, text.as_bytes()))
        )
    }

    fn key(secret: &str) -> String {
        format!("secret_key = \"{secret}\"")
    }

    #[tokio::test]
    async fn extractor_passes_the_contract_checks() {
        let keys = format!("{}\nsecret_key_fallbacks = [\"{OLD}\"]", key(NEW));
        contract::check(&*build_at(STAMP, "flask", &keys).unwrap(), &[NEW, OLD]).await;
    }

    #[test]
    fn cookie_signed_with_a_listed_key_is_accepted_and_with_a_removed_key_is_refused() {
        let session = extract(&key(OLD), STAMP, SIGNED_WITH_OLD).unwrap().unwrap();
        assert_eq!(
            serde_json::to_string(&session.attributes).unwrap(),
            r#"{"user_id":"17"}"#
        );
        assert_eq!(session.expires_at, Some(STAMP + 31 * 86_400));
        let rotated = format!(
            "{}\nsecret_key_fallbacks = [\"older\", \"{OLD}\"]",
            key(NEW)
        );
        assert!(extract(&rotated, STAMP, SIGNED_WITH_OLD).is_ok());
        assert_eq!(
            word(extract(&key(NEW), STAMP, SIGNED_WITH_OLD)),
            "bad_signature"
        );
    }

    #[test]
    fn cookie_signed_with_another_salt_or_digest_is_refused() {
        for other in ["salt = \"activate-account\"", "digest = \"sha256\""] {
            assert_eq!(
                word(extract(
                    &format!("{}\n{other}", key(OLD)),
                    STAMP,
                    SIGNED_WITH_OLD
                )),
                "bad_signature"
            );
        }
    }

    #[test]
    fn timestamp_one_second_too_old_or_ahead_is_refused() {
        let keys = format!("{}\nmax_age = \"60s\"", key(OLD));
        assert!(extract(&keys, STAMP + 60, SIGNED_WITH_OLD).is_ok());
        let late = extract(&keys, STAMP + 61, SIGNED_WITH_OLD);
        assert_eq!(late.unwrap_err().reason(), Reason::Expired);
        let early = extract(&keys, STAMP - 1, SIGNED_WITH_OLD);
        assert_eq!(early.unwrap_err().reason(), Reason::FromTheFuture);
    }

    #[test]
    fn signed_pickle_is_refused() {
        let pickle = URL_SAFE_NO_PAD.encode(b"\x80\x04cos\nsystem\n(S'id'\ntR.");
        assert_eq!(
            word(extract(&key(NEW), STAMP, &sign(NEW, &pickle))),
            "payload_not_json"
        );
    }

    #[test]
    fn payload_is_decoded_only_after_the_signature_is_verified() {
        assert_eq!(
            word(extract(&key(NEW), STAMP, &sign("other", "!!!"))),
            "bad_signature"
        );
        assert_eq!(
            word(extract(&key(NEW), STAMP, &sign(NEW, "!!!"))),
            "malformed"
        );
    }

    #[test]
    fn invalid_section_is_refused_and_the_problem_names_the_key() {
        let with = |more: &str| format!("{}\n{more}", key(NEW));
        assert_single_problem(
            "flask",
            &[
                (
                    "no key",
                    "",
                    "secret_key: is missing: set it to the app's own SECRET_KEY, or set secret_key_file",
                ),
                ("empty", &key(""), "secret_key: is empty"),
                (
                    "placeholder",
                    &key("changeme"),
                    "secret_key: is still a placeholder",
                ),
                (
                    "no file",
                    "secret_key_file = \"/nowhere\"",
                    "secret_key_file: cannot read",
                ),
                (
                    "fallback",
                    &with("secret_key_fallbacks = \"password\""),
                    "secret_key_fallbacks: is still",
                ),
                (
                    "digest",
                    &with("digest = \"md5\""),
                    "digest: must be one of",
                ),
                (
                    "age",
                    &with("max_age = \"none\""),
                    "max_age: must be a duration",
                ),
                (
                    "no unit",
                    &with("max_age = \"2678400\""),
                    "max_age: must be a duration with its unit: write \"2678400s\" for seconds",
                ),
                (
                    "a number",
                    &with("max_age = 2678400"),
                    "max_age: must be a duration with its unit: write \"2678400s\" for seconds",
                ),
                ("cookie", &with("cookie = \"\""), "cookie: must be"),
            ],
        );
    }
}
