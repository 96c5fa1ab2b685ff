//! `rails`: the session cookie of Ruby on Rails (`CookieStore`), or a cookie from `cookies.encrypted` or
//! `cookies.signed`. Format: Rails `actionpack/lib/action_dispatch/middleware/cookies.rs`,
//! `activesupport/lib/active_support/message_encryptor.rs`, `message_verifier.rs`, `messages/metadata.rb`. Sessions
//! must be JSON. Loading Marshal data can execute code, so such data is refused and never loaded.

mod reader;

use std::slice;
use std::sync::Once;

use axum::http::request::Parts;

use serde::{Deserialize, Serialize};

use crate::clock::UnixSeconds;
use crate::config::{HumanDuration, Problems, Section};
use crate::secret::Secret;
use crate::session::backends::Context;
use crate::session::formats::percent::{self, Plus};
use crate::session::formats::rails::{CookieValue, SERIALIZER_ADVICE};
use crate::session::kind::{BuildResult, Kind};
use crate::session::reason::Reason;
use crate::session::sections::app_secret;
use crate::session::sections::cookie::Cookie;
use crate::session::sections::session_cookie::{CookieFormat, SessionCookie};
use crate::session::sections::session_end::{ExpiresPath, SessionEnd};
use crate::session::types::{ExtractError, Extracted, Session};
use reader::{Reader, Recipe};

/// The default subject is the path where Devise stores the user's id.
pub const KIND: Kind = Kind::new(build).with_subject("{/warden.user.user.key/0/0}");

/// `[extractors.NAME]` with `kind = "rails"`
#[derive(Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RailsConfig {
    cookie: Option<String>,
    secret_key_base: Option<Secret>,
    scheme: String,
    digest: String,
    salt: Option<String>,
    signed_salt: String,
    hmac_digest: String,
    purpose: Option<String>,
    allow_missing_purpose: bool,
    rotations: Vec<RotationConfig>,
    expires_path: Option<ExpiresPath>,
    idle: Option<HumanDuration>,
}

impl Default for RailsConfig {
    fn default() -> Self {
        Self {
            cookie: None,
            secret_key_base: None,
            scheme: "encrypted".to_owned(),
            digest: "sha256".to_owned(),
            salt: None,
            signed_salt: "signed encrypted cookie".to_owned(),
            hmac_digest: "sha1".to_owned(),
            purpose: None,
            allow_missing_purpose: false,
            rotations: Vec::new(),
            expires_path: None,
            idle: None,
        }
    }
}

/// The settings with which the app wrote older cookies. A key that is not set has the section's value. If the
/// rotation's scheme differs from the section's, an unset `salt` has the default of the rotation's scheme.
#[derive(Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RotationConfig {
    secret_key_base: Option<Secret>,
    scheme: Option<String>,
    digest: Option<String>,
    salt: Option<String>,
    signed_salt: Option<String>,
    hmac_digest: Option<String>,
}

#[derive(Debug)]
struct Rails {
    /// The reader for current cookies first, then the readers for the rotations.
    readers: Vec<Reader>,
    purpose: String,
    allow_missing_purpose: bool,
    extractor: String,
    marshal_warning: Once,
}

fn build(section: &Section<'_>, context: &Context) -> BuildResult {
    let mut problems = Problems::default();
    let config: RailsConfig = section.read(&mut problems);
    let name = config.cookie.as_deref().unwrap_or_default();
    let cookie = Cookie::named(section, "cookie", name, &mut problems);
    problems.require(
        !is_row_of_generated_sign_in(&config.scheme, name, section.subject()),
        section.key("subject"),
        "is the value of the cookie session_id. In the sign-in that Rails 8 generates, this is the id of a row in the \
         table sessions, not of a user: use kind = \"sql_session\" with preset = \"rails8\"",
    );
    let key = "secret_key_base";
    let secret = config.secret_key_base.clone();
    let secret = app_secret::required(section, key, secret, key, &mut problems);
    let current = Recipe {
        scheme: &config.scheme,
        digest: &config.digest,
        salt: config.salt.as_deref(),
        signed_salt: &config.signed_salt,
        hmac_digest: &config.hmac_digest,
    };
    let mut readers = Vec::new();
    readers.extend(current.reader(section, "", secret.as_ref(), &mut problems));
    for (index, rotation) in config.rotations.iter().enumerate() {
        let path = format!("rotations.{index}.");
        let older = rotation
            .secret(section, &path, &mut problems)
            .or_else(|| secret.clone());
        let recipe = current.rotated(rotation);
        readers.extend(recipe.reader(section, &path, older.as_ref(), &mut problems));
    }
    let end = SessionEnd::read(section, config.expires_path, config.idle, &mut problems);
    let format = Rails {
        readers,
        purpose: config.purpose.unwrap_or_else(|| format!("cookie.{name}")),
        allow_missing_purpose: config.allow_missing_purpose,
        extractor: section.name().to_owned(),
        marshal_warning: Once::new(),
    };
    SessionCookie::build(context, cookie, format, end, problems)
}

/// Whether the subject would be the id of a session's row, which code from `bin/rails generate authentication` writes
/// into `cookies.signed[:session_id]`.
fn is_row_of_generated_sign_in(scheme: &str, cookie: &str, subject: &str) -> bool {
    let name = cookie
        .strip_prefix("__Host-")
        .or_else(|| cookie.strip_prefix("__Secure-"))
        .unwrap_or(cookie);
    scheme == "signed" && name == "session_id" && subject.contains("{}")
}

impl RotationConfig {
    fn secret(&self, section: &Section<'_>, path: &str, problems: &mut Problems) -> Option<Secret> {
        let key = format!("{path}secret_key_base");
        let secret = section.secret(&key, self.secret_key_base.clone(), problems)?;
        app_secret::check(section, &key, slice::from_ref(&secret), problems);
        Some(secret)
    }
}

impl<'a> Recipe<'a> {
    fn rotated(&self, rotation: &'a RotationConfig) -> Self {
        let scheme = rotation.scheme.as_deref().unwrap_or(self.scheme);
        let salt = self.salt.filter(|_| scheme == self.scheme);
        Self {
            scheme,
            digest: rotation.digest.as_deref().unwrap_or(self.digest),
            // Each scheme has its own default salt.
            salt: rotation.salt.as_deref().or(salt),
            signed_salt: rotation.signed_salt.as_deref().unwrap_or(self.signed_salt),
            hmac_digest: rotation.hmac_digest.as_deref().unwrap_or(self.hmac_digest),
        }
    }
}

impl CookieFormat for Rails {
    fn read(&self, _: &Cookie, value: &str, _: &Parts, now: UnixSeconds) -> Extracted {
        let text = percent::decode(value, Plus::Space).ok_or_else(ExtractError::malformed)?;
        let opened = self.readers.iter().find_map(|reader| reader.open(&text));
        let opened =
            opened.ok_or_else(|| ExtractError::other_secret(Reason::BadSeal, "secret_key_base"))?;
        let cookie = CookieValue::parse(&opened).inspect_err(|error| {
            if error.reason() == Reason::PayloadNotJson {
                self.marshal_warning.call_once(|| {
                    tracing::warn!(
                        extractor = self.extractor,
                        "the app's cookies are not JSON (they may be in the format of Ruby's Marshal), so all of them are refused: \
                         {SERIALIZER_ADVICE}"
                    );
                });
            }
        })?;
        cookie.check(&self.purpose, self.allow_missing_purpose, now)?;
        Ok(Some(Session {
            attributes: cookie.value,
            expires_at: cookie.expires_at,
        }))
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;

    use super::*;
    use crate::session::contract;
    use crate::session::formats::aes::seal;
    use crate::session::formats::hkdf;
    use crate::session::formats::rails::ITERATIONS;
    use crate::session::sections::testing::{answer, build, refused};
    use crate::session::types::SessionExtractor;
    use std::sync::Arc;

    const SECRET: &str = "hunter2hunter2hunter2hunter2hunter2hunter2";

    fn extractor(more: &str) -> Arc<dyn SessionExtractor> {
        build(
            "rails",
            &format!("cookie = \"_app\"\nsecret_key_base = \"{SECRET}\"\n{more}"),
        )
        .unwrap()
    }

    /// Encrypts this content into a cookie, as the app does.
    fn cookie(text: &[u8]) -> String {
        let salt = b"authenticated encrypted cookie";
        let key = hkdf::pbkdf2(
            aws_lc_rs::pbkdf2::PBKDF2_HMAC_SHA256,
            ITERATIONS,
            SECRET.as_bytes(),
            salt,
        );
        let (text, tag) = seal::gcm(&key, [3; 12], text, b"");
        let parts = [&text[..], &[3; 12], &tag].map(|part| STANDARD.encode(part));
        format!(
            "_app={}",
            parts
                .join("--")
                .replace('+', "%2B")
                .replace('/', "%2F")
                .replace('=', "%3D")
        )
    }

    fn metadata(message: &str, more: &str) -> Vec<u8> {
        format!(
            r#"{{"_rails":{{"message":"{}"{more}}}}}"#,
            STANDARD.encode(message)
        )
        .into_bytes()
    }

    const PURPOSE: &str = r#","exp":null,"pur":"cookie._app""#;

    #[tokio::test]
    async fn extractor_passes_the_contract_checks() {
        for scheme in ["encrypted", "signed", "encrypted_cbc"] {
            contract::check(&*extractor(&format!("scheme = \"{scheme}\"")), &[SECRET]).await;
        }
    }

    #[test]
    fn encrypted_value_is_refused_if_it_is_expired_malformed_or_for_another_purpose() {
        let extractor = extractor("");
        for (case, text, want) in [
            (
                "session",
                metadata(r#"{"user_id":7}"#, PURPOSE),
                Ok(Some(r#"{"user_id":7}"#.to_owned())),
            ),
            (
                "a single value",
                metadata("7", PURPOSE),
                Ok(Some("7".to_owned())),
            ),
            (
                "not yet expired",
                metadata(
                    "7",
                    r#","exp":"2027-01-15T08:00:01.000Z","pur":"cookie._app""#,
                ),
                Ok(Some("7".to_owned())),
            ),
            (
                "expired just now",
                metadata(
                    "7",
                    r#","exp":"2027-01-15T08:00:00.999Z","pur":"cookie._app""#,
                ),
                Err("expired"),
            ),
            (
                "invalid time",
                metadata("7", r#","exp":"tomorrow","pur":"cookie._app""#),
                Err("malformed"),
            ),
            (
                "numeric time",
                metadata("7", r#","exp":1900000000,"pur":"cookie._app""#),
                Err("malformed"),
            ),
            (
                "other cookie",
                metadata("7", r#","exp":null,"pur":"cookie._other""#),
                Err("purpose"),
            ),
            (
                "no purpose",
                metadata("7", r#","exp":null,"pur":null"#),
                Err("purpose"),
            ),
            (
                "two purposes",
                metadata("7", r#","pur":"cookie._app","pur":"x""#),
                Err("malformed"),
            ),
            ("no metadata", br#"{"user_id":7}"#.to_vec(), Err("purpose")),
            (
                "no message",
                br#"{"_rails":{"pur":"cookie._app"}}"#.to_vec(),
                Err("malformed"),
            ),
            (
                "metadata is text",
                br#"{"_rails":"x"}"#.to_vec(),
                Err("malformed"),
            ),
            (
                "message is not JSON",
                metadata("user", PURPOSE),
                Err("payload_not_json"),
            ),
            ("empty", Vec::new(), Err("payload_not_json")),
            (
                "Marshal",
                b"\x04\x08{\x06I\"\x0cuser_id\x06:\x06ETi\x0c".to_vec(),
                Err("payload_not_json"),
            ),
            (
                "Marshal inside",
                metadata("\u{4}\u{8}{\0", PURPOSE),
                Err("payload_not_json"),
            ),
        ] {
            assert_eq!(
                answer(&*extractor, &[("cookie", &cookie(&text))]),
                want,
                "{case}"
            );
        }
    }

    #[test]
    fn cookie_without_metadata_is_accepted_only_with_allow_missing_purpose() {
        let extractor = extractor("allow_missing_purpose = true");
        let session = br#"{"user_id":7}"#;
        assert!(
            answer(&*extractor, &[("cookie", &cookie(session))])
                .unwrap()
                .is_some()
        );
        let other = metadata("7", r#","exp":null,"pur":"cookie._other""#);
        assert_eq!(
            answer(&*extractor, &[("cookie", &cookie(&other))]),
            Err("purpose")
        );
    }

    #[test]
    fn signed_user_id_is_accepted_and_signed_session_id_is_refused_with_advice() {
        let keys =
            format!("secret_key_base = \"{SECRET}\"\nscheme = \"signed\"\nsubject = \"{{}}\"");
        assert!(build("rails", &format!("cookie = \"user_id\"\n{keys}")).is_ok());
        let sentence = build("rails", &format!("cookie = \"__Host-session_id\"\n{keys}"))
            .unwrap_err()
            .to_string();
        assert!(sentence.contains("preset = \"rails8\""), "{sentence}");
    }

    #[tokio::test]
    async fn marshal_cookie_is_refused_and_the_message_names_the_setting_to_change() {
        let request = contract::request(&[("cookie", &cookie(b"\x04\x08{\x00"))]);
        let answer = extractor("").extract(&request).await;
        let Err(ExtractError::Rejected(reason)) = answer else {
            panic!("{answer:?}")
        };
        assert!(
            reason
                .detail
                .unwrap()
                .contains("cookies_serializer = :json")
        );
    }

    #[test]
    fn rotation_inherits_missing_keys_from_its_section() {
        let text = metadata("7", PURPOSE);
        let with = |keys: &str| {
            let extractor = build("rails", &format!("cookie = \"_app\"\n{keys}")).unwrap();
            answer(&*extractor, &[("cookie", &cookie(&text))])
        };
        let new = "secret_key_base = \"the-new-secret-of-the-app\"";
        assert_eq!(with(new), Err("bad_seal"));
        assert!(
            with(&format!(
                "{new}\nrotations = [{{ secret_key_base = \"{SECRET}\" }}]"
            ))
            .is_ok()
        );
        let sha1 =
            format!("{new}\ndigest = \"sha1\"\nrotations = [{{ secret_key_base = \"{SECRET}\" }}]");
        assert_eq!(with(&sha1), Err("bad_seal"), "the digest of the section");
        let both = format!(
            "{new}\nscheme = \"signed\"\nsalt = \"x\"\ndigest = \"sha1\"\nrotations = [{{ secret_key_base = \
             \"{SECRET}\", digest = \"sha256\", scheme = \"encrypted\" }}]"
        );
        assert!(with(&both).is_ok(), "another scheme has its own salt");
    }

    #[test]
    fn invalid_section_is_refused_and_the_problem_names_the_key() {
        let with =
            |keys: &str| format!("cookie = \"_app\"\nsecret_key_base = \"{SECRET}\"\n{keys}");
        refused(
            "rails",
            &[
                ("nothing", "", "secret_key_base"),
                (
                    "no cookie",
                    "secret_key_base = \"hunter2-hunter2-hunter2\"",
                    "cookie",
                ),
                (
                    "id of a row",
                    &with("scheme = \"signed\"\nsubject = \"{}\"").replace("_app", "session_id"),
                    "subject",
                ),
                ("scheme", &with("scheme = \"plain\""), "scheme"),
                ("digest", &with("digest = \"md5\""), "digest"),
                ("hmac_digest", &with("hmac_digest = \"md5\""), "hmac_digest"),
                (
                    "rotation's digest",
                    &with("rotations = [{ digest = \"md5\" }]"),
                    "rotations.0.digest",
                ),
                (
                    "rotation's secret",
                    &with("rotations = [{}, { secret_key_base = \"changeme\" }]"),
                    "rotations.1.secret_key_base",
                ),
                (
                    "rotation's typo",
                    &with("rotations = [{ digset = \"sha1\" }]"),
                    "rotations.0.digset",
                ),
            ],
        );
    }
}
