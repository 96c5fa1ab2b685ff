//! `cookie_session`: Express with the cookie-session middleware. The cookie NAME contains the session itself, and the
//! cookie NAME.sig contains its Keygrip signature. Format: cookie-session `index.js`, cookies `index.js`, keygrip
//! `index.js`.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac;
use axum::http::request::Parts;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use serde::{Deserialize, Serialize};

use crate::clock::UnixSeconds;
use crate::config::{HumanDuration, List, Problems, Section};
use crate::secret::Secret;
use crate::session::backends::Context;
use crate::session::formats::{hex, payload};
use crate::session::kind::{BuildResult, Kind};
use crate::session::reason::Reason;
use crate::session::sections::cookie::{self, Cookie};
use crate::session::sections::session_cookie::{CookieFormat, SessionCookie};
use crate::session::sections::session_end::{ExpiresPath, SessionEnd};
use crate::session::sections::{app_secret, hmac_algorithm};
use crate::session::types::{ExtractError, Extracted, Session};

/// The default subject is the path where Passport stores the value that the app's `serializeUser` returns. Without
/// Passport, there is no common path.
pub const KIND: Kind = Kind::new(build).with_subject("{passport.user}");

/// `[extractors.NAME]` with `kind = "cookie_session"`
#[derive(Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct CookieSessionConfig {
    cookie: String,
    keys: List<Secret>,
    algorithm: String,
    encoding: String,
    expires_path: Option<ExpiresPath>,
    idle: Option<HumanDuration>,
}

impl Default for CookieSessionConfig {
    fn default() -> Self {
        Self {
            cookie: "session".to_owned(),
            keys: List::default(),
            algorithm: "sha1".to_owned(),
            encoding: "base64url".to_owned(),
            expires_path: None,
            idle: None,
        }
    }
}

#[derive(Debug)]
struct CookieSession {
    keys: Vec<hmac::Key>,
    encode: fn(&[u8]) -> String,
}

fn build(section: &Section<'_>, context: &Context) -> BuildResult {
    let mut problems = Problems::default();
    let config: CookieSessionConfig = section.read(&mut problems);
    let setting = "keys or single secret";
    let secrets = app_secret::required_list(section, "keys", config.keys, setting, &mut problems);
    let cookie = Cookie::named(section, "cookie", &config.cookie, &mut problems);
    let algorithm = hmac_algorithm::read(section, "algorithm", &config.algorithm, &mut problems);
    let encode = encoder(&config.encoding)
        .ok_or("must be one of base64url, base64, hex: the encoding that the app passes to Keygrip, whose default is base64");
    let encode = problems.accept(section.key("encoding"), encode);
    let end = SessionEnd::read(section, config.expires_path, config.idle, &mut problems);
    let (Some(algorithm), Some(encode)) = (algorithm, encode) else {
        return Err(problems);
    };
    let keys = secrets
        .iter()
        .map(|secret| hmac::Key::new(algorithm, secret.expose()))
        .collect();
    SessionCookie::build(
        context,
        cookie,
        CookieSession { keys, encode },
        end,
        problems,
    )
}

/// For `base64`, Keygrip writes the URL-safe alphabet without padding, so both names mean the same encoding.
fn encoder(name: &str) -> Option<fn(&[u8]) -> String> {
    match name {
        "base64url" | "base64" => Some(|bytes| URL_SAFE_NO_PAD.encode(bytes)),
        "hex" => Some(|bytes| hex::encode(bytes)),
        _ => None,
    }
}

impl CookieFormat for CookieSession {
    fn read(&self, cookie: &Cookie, value: &str, request: &Parts, _: UnixSeconds) -> Extracted {
        let name = cookie.name();
        // An app with `signed: false` sends no signature, so any client could forge such a session.
        let signature = cookie::find(&request.headers, &format!("{name}.sig"))?
            .ok_or_else(|| ExtractError::rejected(Reason::Unsigned))?;
        if !self.is_signed(&format!("{name}={value}"), signature) {
            return Err(ExtractError::other_secret(Reason::BadSignature, "keys"));
        }
        let attributes = payload::json(&payload::base64(value)?)?;
        Ok(Some(Session {
            attributes,
            expires_at: None,
        }))
    }
}

impl CookieSession {
    /// Whether one of the keys made the signature. Signs the text with every key, and compares each signature with the
    /// given one as text, in constant time, as Keygrip does.
    fn is_signed(&self, text: &str, signature: &str) -> bool {
        let signs = |key| {
            let own = (self.encode)(hmac::sign(key, text.as_bytes()).as_ref());
            verify_slices_are_equal(own.as_bytes(), signature.as_bytes()).is_ok()
        };
        self.keys
            .iter()
            .fold(false, |signed, key| signed | signs(key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::contract;
    use crate::session::sections::testing::{self, assert_single_problem, build};
    use crate::session::types::SessionExtractor;
    use std::sync::Arc;

    // The test vector `default-0-anonymous`: {"views":3}, signed by Keygrip.
    const VALUE: &str = "eyJ2aWV3cyI6M30=";
    const SIGNATURE: &str = "tAYRp_NqmQwb7KMEFDJ6ioMO_dE";
    const KEYS: &str = "keys = [\"keyboard cat\"]";

    fn extractor(keys: &str) -> Arc<dyn SessionExtractor> {
        build("cookie_session", keys).expect("a good section")
    }

    fn answer(keys: &str, cookies: &str) -> Result<Option<String>, &'static str> {
        testing::answer(&*extractor(keys), &[("cookie", cookies)])
    }

    #[tokio::test]
    async fn extractor_passes_the_contract_checks() {
        contract::check(&*extractor(KEYS), &["keyboard cat"]).await;
    }

    #[test]
    fn signed_cookie_is_a_session_and_unsigned_or_ambiguous_cookie_is_refused() {
        let good = format!("session={VALUE}; session.sig={SIGNATURE}");
        assert_eq!(answer(KEYS, &good), Ok(Some("{\"views\":3}".to_owned())));
        for (case, cookies, want) in [
            (
                "together with malformed cookies",
                format!("foo; =x; a=\"b; {good}"),
                Ok(Some("{\"views\":3}".to_owned())),
            ),
            ("no cookie", format!("session.sig={SIGNATURE}"), Ok(None)),
            (
                "empty",
                format!("session=; session.sig={SIGNATURE}"),
                Ok(None),
            ),
            ("no signature", format!("session={VALUE}"), Err("unsigned")),
            (
                "empty signature",
                format!("session={VALUE}; session.sig="),
                Err("unsigned"),
            ),
            ("padded signature", format!("{good}="), Err("bad_signature")),
            (
                "twice",
                format!("{good}; session=e30="),
                Err("ambiguous_identity"),
            ),
            (
                "two signatures",
                format!("{good}; session.sig=x"),
                Err("ambiguous_identity"),
            ),
            (
                "the same twice",
                format!("{good}; {good}"),
                Ok(Some("{\"views\":3}".to_owned())),
            ),
            (
                "too long",
                format!("{good}; session={}", "A".repeat(8193)),
                Err("ambiguous_identity"),
            ),
            (
                "too long",
                format!("session={}", "A".repeat(8193)),
                Err("too_large"),
            ),
        ] {
            assert_eq!(answer(KEYS, &cookies), want, "{case}");
        }
    }

    #[test]
    fn signature_made_for_another_cookie_name_is_refused() {
        let other = format!("{KEYS}\ncookie = \"other\"");
        assert_eq!(
            answer(&other, &format!("other={VALUE}; other.sig={SIGNATURE}")),
            Err("bad_signature")
        );
    }

    #[test]
    fn cookie_signed_with_a_listed_key_is_accepted_and_with_a_removed_key_is_refused() {
        let good = format!("session={VALUE}; session.sig={SIGNATURE}");
        assert!(answer("keys = [\"the new cat\", \"keyboard cat\"]", &good).is_ok());
        // A string in a configuration file is one key. Only in an environment variable do commas separate keys.
        assert_eq!(
            answer("keys = \"the new cat,keyboard cat\"", &good),
            Err("bad_signature")
        );
        assert_eq!(
            answer("keys = [\"the new cat\"]", &good),
            Err("bad_signature")
        );

        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "the new cat\r\n\nkeyboard cat\n").unwrap();
        assert!(answer(&format!("keys_file = {:?}", file.path()), &good).is_ok());
    }

    #[test]
    fn signature_in_each_keygrip_encoding_is_accepted() {
        let key = hmac::Key::new(hmac::HMAC_SHA512, b"keyboard cat");
        let tag = hmac::sign(&key, format!("session={VALUE}").as_bytes());
        let hex = hex::encode(tag);
        let keys = format!("{KEYS}\nalgorithm = \"sha512\"\nencoding = \"hex\"");
        assert!(answer(&keys, &format!("session={VALUE}; session.sig={hex}")).is_ok());
        let upper = hex.to_uppercase();
        assert_eq!(
            answer(&keys, &format!("session={VALUE}; session.sig={upper}")),
            Err("bad_signature")
        );

        let base64 = format!("{KEYS}\nencoding = \"base64\"");
        assert!(
            answer(
                &base64,
                &format!("session={VALUE}; session.sig={SIGNATURE}")
            )
            .is_ok()
        );
    }

    #[test]
    fn invalid_section_is_refused_and_the_problem_names_the_key() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let empty = format!("keys_file = {:?}", file.path());
        let both = format!("{KEYS}\nkeys_file = {:?}", file.path());
        let cases = [
            ("no keys", "", "keys: is missing"),
            ("an empty list", "keys = []", "keys: is missing"),
            (
                "an empty file",
                &empty,
                "keys: the file of keys_file contains no secret",
            ),
            ("both", &both, "keys: is given both"),
            (
                "no file",
                "keys_file = \"/nowhere\"",
                "keys_file: cannot read",
            ),
            ("an empty key", "keys = [\"\"]", "keys: is empty"),
            (
                "a placeholder",
                "keys = [\"keyboard cat\", \"secret\"]",
                "keys: is still a placeholder",
            ),
            (
                "algorithm",
                &format!("{KEYS}\nalgorithm = \"md5\""),
                "algorithm: must be one of",
            ),
            (
                "encoding",
                &format!("{KEYS}\nencoding = \"latin1\""),
                "encoding: must be one of",
            ),
            (
                "cookie",
                &format!("{KEYS}\ncookie = \"a=b\""),
                "cookie: must be",
            ),
        ];
        assert_single_problem("cookie_session", &cases);
    }
}
