//! `react_router`: the session of `createCookieSessionStorage` in React Router and Remix, as signed JSON in one cookie.
//! Format: React Router `packages/react-router/lib/server-runtime/cookies.ts` and `crypto.ts`; Remix
//! `packages/remix-server-runtime/cookies.ts`, with the npm package cookie-signature.

use aws_lc_rs::hmac;
use axum::http::request::Parts;
use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;

use serde::{Deserialize, Serialize};

use crate::clock::UnixSeconds;
use crate::config::{HumanDuration, List, Problems, Section};
use crate::json::Value;
use crate::secret::Secret;
use crate::session::backends::Context;
use crate::session::formats::payload;
use crate::session::formats::percent::{self, Plus};
use crate::session::formats::signatures::verifies_any;
use crate::session::kind::{BuildResult, Kind};
use crate::session::reason::Reason;
use crate::session::sections::app_secret;
use crate::session::sections::cookie::Cookie;
use crate::session::sections::session_cookie::{CookieFormat, SessionCookie};
use crate::session::sections::session_end::{ExpiresPath, SessionEnd};
use crate::session::types::{ExtractError, Extracted, Session};

/// The app decides what a session contains. The default subject follows React Router's documentation.
pub const KIND: Kind = Kind::new(build).with_subject("{userId}");

/// `[extractors.NAME]` with `kind = "react_router"`
#[derive(Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct ReactRouterConfig {
    cookie: String,
    secrets: List<Secret>,
    expires_path: Option<ExpiresPath>,
    idle: Option<HumanDuration>,
}

impl Default for ReactRouterConfig {
    fn default() -> Self {
        Self {
            cookie: "__session".to_owned(),
            secrets: List::default(),
            expires_path: None,
            idle: None,
        }
    }
}

#[derive(Debug)]
struct ReactRouter {
    keys: Vec<hmac::Key>,
}

fn build(section: &Section<'_>, context: &Context) -> BuildResult {
    let mut problems = Problems::default();
    let config: ReactRouterConfig = section.read(&mut problems);
    let setting = "`secrets` of its session cookie (in an app without secrets, any client can forge a session)";
    let secrets =
        app_secret::required_list(section, "secrets", config.secrets, setting, &mut problems);
    let end = SessionEnd::read(section, config.expires_path, config.idle, &mut problems);
    let cookie = Cookie::named(section, "cookie", &config.cookie, &mut problems);
    let key = |secret: &Secret| hmac::Key::new(hmac::HMAC_SHA256, secret.expose());
    let format = ReactRouter {
        keys: secrets.iter().map(key).collect(),
    };
    SessionCookie::build(context, cookie, format, end, problems)
}

impl CookieFormat for ReactRouter {
    fn read(&self, _: &Cookie, value: &str, _: &Parts, _: UnixSeconds) -> Extracted {
        let text = percent::decode(value, Plus::Plus).ok_or_else(ExtractError::malformed)?;
        // If the app has no secrets, it writes only the payload.
        let (payload, signature) = text
            .rsplit_once('.')
            .ok_or_else(|| ExtractError::rejected(Reason::Unsigned))?;
        let is_signed = STANDARD_NO_PAD
            .decode(signature)
            .is_ok_and(|signature| verifies_any(&self.keys, payload, &signature));
        if !is_signed {
            return Err(ExtractError::other_secret(Reason::BadSignature, "secrets"));
        }
        let json = payload::base64(payload)?;
        match Value::parse(&json) {
            Ok(attributes @ Value::Object(_)) => Ok(Some(Session {
                attributes,
                expires_at: None,
            })),
            Ok(Value::String(_)) => Err(ExtractError::malformed().because(
                "the cookie holds only an id, as createSessionStorage writes it: use \
                 kind = \"session_endpoint\" instead",
            )),
            Ok(_) => Err(ExtractError::malformed()),
            Err(_) => Err(ExtractError::rejected(Reason::PayloadNotJson)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::contract;
    use crate::session::sections::testing::{NOW, answer, build, refused};
    use crate::session::types::SessionExtractor;
    use base64::engine::general_purpose::STANDARD;
    use std::sync::Arc;

    const SECRET: &str = "hunter2-hunter2-hunter2-hunter2";

    fn extractor(more: &str) -> Arc<dyn SessionExtractor> {
        build("react_router", &format!("secrets = [\"{SECRET}\"]\n{more}")).unwrap()
    }

    /// A payload with its signature, before percent-encoding.
    fn signed(secret: &str, payload: &str) -> String {
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
        let signature = hmac::sign(&key, payload.as_bytes());
        format!("{payload}.{}", STANDARD_NO_PAD.encode(signature))
    }

    fn session(json: &str) -> String {
        signed(SECRET, &STANDARD.encode(json))
    }

    fn asked(more: &str, value: &str) -> Result<Option<String>, &'static str> {
        answer(
            &*extractor(more),
            &[("cookie", &format!("__session={value}"))],
        )
    }

    #[tokio::test]
    async fn extractor_passes_the_contract_checks() {
        contract::check(&*extractor(""), &[SECRET]).await;
    }

    #[test]
    fn only_a_signed_json_object_is_accepted_as_a_session() {
        let good = session(r#"{"userId":7}"#);
        for (case, value, want) in [
            (
                "as it is",
                good.clone(),
                Ok(Some(r#"{"userId":7}"#.to_owned())),
            ),
            (
                "percent-encoded",
                good.replace('=', "%3D")
                    .replace('+', "%2b")
                    .replace('.', "%2E"),
                Ok(Some(r#"{"userId":7}"#.to_owned())),
            ),
            ("empty", String::new(), Ok(None)),
            (
                "without signature",
                STANDARD.encode(r#"{"userId":7}"#),
                Err("unsigned"),
            ),
            (
                "another secret",
                signed("other", &STANDARD.encode("{}")),
                Err("bad_signature"),
            ),
            ("padded signature", format!("{good}="), Err("bad_signature")),
            (
                "two signatures",
                format!("{good}.{good}"),
                Err("bad_signature"),
            ),
            ("empty payload", signed(SECRET, ""), Err("payload_not_json")),
            ("not base64", signed(SECRET, "!!!"), Err("malformed")),
            ("unpadded base64", signed(SECRET, "e30"), Err("malformed")),
            ("an id", session("\"3f1c\""), Err("malformed")),
            ("a list", session("[]"), Err("malformed")),
            ("null", session("null"), Err("malformed")),
            ("not JSON", session("user"), Err("payload_not_json")),
            ("cut percent", format!("{good}%4"), Err("malformed")),
        ] {
            assert_eq!(asked("", &value), want, "{case}");
        }
    }

    #[test]
    fn cookie_signed_with_an_old_secret_is_accepted_only_while_the_secret_is_listed() {
        let old = signed("an-older-secret-of-the-app", &STANDARD.encode("{}"));
        assert_eq!(asked("", &old), Err("bad_signature"));
        let keys = format!("secrets = [\"{SECRET}\", \"an-older-secret-of-the-app\"]");
        let rotated = build("react_router", &keys).unwrap();
        let cookie = format!("__session={old}");
        assert!(answer(&*rotated, &[("cookie", &cookie)]).is_ok());
    }

    #[test]
    fn session_expires_at_the_time_found_at_expires_path() {
        let keys = "expires_path = \"expiresAt\"";
        let at = |millis: i64| session(&format!(r#"{{"expiresAt":{millis}}}"#));
        assert!(asked(keys, &at((NOW + 1) * 1000)).is_ok());
        assert_eq!(asked(keys, &at(NOW * 1000)), Err("expired"));
    }

    #[test]
    fn invalid_section_is_refused_and_the_problem_names_the_key() {
        let with = |keys: &str| format!("secrets = [\"{SECRET}\"]\n{keys}");
        refused(
            "react_router",
            &[
                ("nothing", "", "secrets"),
                ("no secret", "secrets = []", "secrets"),
                ("empty secret", "secrets = [\"\"]", "secrets"),
                ("placeholder", "secrets = [\"changeme\"]", "secrets"),
                ("cookie", &with("cookie = \"a;b\""), "cookie"),
                ("idle alone", &with("idle = \"30m\""), "idle"),
            ],
        );
    }
}
