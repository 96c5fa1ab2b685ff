//! `iron_session`: the session of iron-session v8 or v9, encrypted and signed ("sealed") in one cookie.
//! Format: @hapi/iron `lib/index.js` (`Fe26.2`), iron-session `src/core.ts` for the suffix and the cookies.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::Arc;

use aws_lc_rs::{hmac, pbkdf2};
use axum::http::request::Parts;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};

use crate::clock::{Clock, UnixSeconds};
use crate::config::{HumanDuration, Problems, Section};
use crate::json::Value;
use crate::secret::Secret;
use crate::session::backends::Context;
use crate::session::formats::aes::Cbc;
use crate::session::formats::hkdf;
use crate::session::kind::Kind;
use crate::session::reason::Reason;
use crate::session::sections::app_secret;
use crate::session::sections::cookie::Cookie;
use crate::session::sections::one_or_map::OneOrMap;
use crate::session::sections::session_end::SessionEnd;
use crate::session::types::{ExtractError, Extracted, Reach, Session, SessionExtractor};

/// The app decides what a session contains. The default subject follows the library's README and examples.
pub const KIND: Kind = Kind {
    build,
    subject: "{user.id}",
    presets: &[],
};

/// The version of the seal, at the beginning.
const PREFIX: &str = "Fe26.2";
/// The version of the data's layout, at the end, outside of the MAC. v8 reads any other layout as that of v6, and v9
/// ignores it. Neither version writes another one, so any other is refused here.
const LAYOUT: &str = "~2";
/// The library's id for a single password.
const SINGLE_ID: &str = "1";
/// The library's own minimum length of a password.
const MIN_PASSWORD: usize = 32;
/// The library's `timestampSkewSec`.
const SKEW: UnixSeconds = 60;
/// The most parts that v9 writes and reads.
const MAX_PARTS: usize = 4;

/// `[extractors.NAME]` with `kind = "iron_session"`
#[derive(Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct IronSessionConfig {
    cookie: Option<String>,
    password: Option<OneOrMap<Secret>>,
    version: String,
    expires_path: Option<String>,
    idle: Option<HumanDuration>,
}

impl Default for IronSessionConfig {
    fn default() -> Self {
        Self {
            cookie: None,
            password: None,
            version: "v9".to_owned(),
            expires_path: None,
            idle: None,
        }
    }
}

#[derive(Debug)]
struct IronSession {
    cookie: Cookie,
    /// By the id in the seal. Each seal has its own salts, so keys cannot be derived in advance.
    passwords: BTreeMap<String, Secret>,
    /// v9 splits a long seal into numbered cookies.
    reads_parts: bool,
    end: SessionEnd,
    clock: Clock,
}

fn build(section: &Section<'_>, context: &Context) -> Result<Arc<dyn SessionExtractor>, Problems> {
    let mut problems = Problems::default();
    let config: IronSessionConfig = section.read(&mut problems);
    let cookie = Cookie::named(
        section,
        "cookie",
        config.cookie.as_deref().unwrap_or_default(),
        &mut problems,
    );
    problems.require(
        matches!(config.version.as_str(), "v8" | "v9"),
        section.key("version"),
        "must be \"v9\" or \"v8\"",
    );
    let passwords = passwords(section, config.password, &mut problems);
    let end = SessionEnd::read(
        section,
        config.expires_path.as_deref(),
        config.idle,
        &mut problems,
    );
    let Some(cookie) = cookie else {
        return Err(problems);
    };
    let reads_parts = config.version == "v9";
    problems.or(Arc::new(IronSession {
        cookie,
        passwords,
        reads_parts,
        end,
        clock: context.clock.clone(),
    }))
}

/// The passwords by id.
fn passwords(
    section: &Section<'_>,
    values: Option<OneOrMap<Secret>>,
    problems: &mut Problems,
) -> BTreeMap<String, Secret> {
    app_secret::require_given(section, "password", values.is_some(), "password", problems);
    let values = values
        .map(|values| values.by_id(SINGLE_ID))
        .unwrap_or_default();
    let mut passwords = BTreeMap::new();
    for (id, value) in values {
        let key = if id == SINGLE_ID {
            "password".to_owned()
        } else {
            format!("password.{id}")
        };
        let Some(password) = app_secret::required(section, &key, Some(value), "password", problems)
        else {
            continue;
        };
        problems.require(
            password.expose().len() >= MIN_PASSWORD,
            section.key(&key),
            "is shorter than 32 characters, the minimum of iron-session: copy the app's password",
        );
        let is_valid = !id.is_empty()
            && id
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        problems.require(
            is_valid,
            section.key("password"),
            "must have ids of letters, digits and `_`",
        );
        passwords.insert(id, password);
    }
    passwords
}

/// A seal, split at its `*`.
struct Seal<'a> {
    /// The text that the MAC covers.
    covered: &'a str,
    id: &'a str,
    salt: &'a str,
    iv: Vec<u8>,
    ciphertext: Vec<u8>,
    /// Unix milliseconds; `None` for a seal that does not expire.
    expires_at: Option<i64>,
    mac_salt: &'a str,
    mac: Vec<u8>,
}

impl<'a> Seal<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let seal = text.strip_suffix(LAYOUT)?;
        let parts: Vec<&str> = seal.splitn(9, '*').collect();
        let &[prefix, id, salt, iv, ciphertext, expires_at, mac_salt, mac] = parts.as_slice()
        else {
            return None;
        };
        let uncovered = "*".len() + mac_salt.len() + "*".len() + mac.len();
        if prefix != PREFIX || salt.is_empty() || mac_salt.is_empty() {
            return None;
        }
        let expires_at = match expires_at {
            "" => None,
            digits if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                Some(digits.parse().ok()?)
            }
            _ => return None,
        };
        let decode = |text: &str| URL_SAFE_NO_PAD.decode(text).ok();
        Some(Self {
            covered: seal.get(..seal.len() - uncovered)?,
            id,
            salt,
            iv: decode(iv)?,
            ciphertext: decode(ciphertext)?,
            expires_at,
            mac_salt,
            mac: decode(mac)?,
        })
    }

    /// The decrypted text; `None` if the seal was not made with this password. The salts are used as text: their
    /// hexadecimal digits are not decoded.
    fn open(&self, password: &Secret) -> Option<Vec<u8>> {
        let derive = |salt: &str| {
            hkdf::pbkdf2::<32>(
                pbkdf2::PBKDF2_HMAC_SHA1,
                NonZeroU32::MIN,
                password.expose(),
                salt.as_bytes(),
            )
        };
        let mac = hmac::Key::new(hmac::HMAC_SHA256, &derive(self.mac_salt));
        hmac::verify(&mac, self.covered.as_bytes(), &self.mac).ok()?;
        Cbc::new(&derive(self.salt))?.open(&self.iv, self.ciphertext.clone())
    }
}

impl IronSession {
    fn session(&self, request: &Parts) -> Extracted {
        let Some(text) = self.text(request)? else {
            return Ok(None);
        };
        let malformed = || ExtractError::rejected(Reason::Malformed);
        let seal = Seal::parse(&text).ok_or_else(malformed)?;
        let password = self
            .passwords
            .get(seal.id)
            .ok_or_else(|| ExtractError::rejected(Reason::UnknownKey))?;
        let opened = seal
            .open(password)
            .ok_or_else(|| ExtractError::rejected(Reason::BadSeal))?;
        let expires_at = seal.expires_at.map(|millis| millis.div_euclid(1000));
        if seal
            .expires_at
            .is_some_and(|millis| millis <= (self.clock.now() - SKEW).saturating_mul(1000))
        {
            return Err(ExtractError::expired());
        }
        match Value::parse(&opened) {
            Ok(attributes @ Value::Object(_)) => Ok(Some(Session {
                attributes,
                expires_at,
            })),
            _ => Err(malformed()),
        }
    }

    /// The seal. As in the library, a whole cookie takes precedence over parts.
    fn text<'a>(&self, request: &'a Parts) -> Result<Option<Cow<'a, str>>, ExtractError> {
        match self.cookie.find(request)? {
            Some(whole) => Ok(Some(Cow::Borrowed(whole))),
            None if self.reads_parts => {
                Ok(self.cookie.find_chunks(request, MAX_PARTS)?.map(Cow::Owned))
            }
            None => Ok(None),
        }
    }
}

impl SessionExtractor for IronSession {
    fn extract<'a>(&'a self, request: &'a Parts) -> BoxFuture<'a, Extracted> {
        Box::pin(async move { self.end.apply(self.session(request), self.clock.now()) })
    }

    fn reach(&self) -> Reach {
        Reach::cookie(self.cookie.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::contract;
    use crate::session::formats::aes::seal;
    use crate::session::sections::testing::{NOW, answer, build, refused};

    const PASSWORD: &str = "hunter2-hunter2-hunter2-hunter2-hunter2";

    fn extractor(more: &str) -> Arc<dyn SessionExtractor> {
        build(
            "iron_session",
            &format!("cookie = \"sid\"\npassword = \"{PASSWORD}\"\n{more}"),
        )
        .unwrap()
    }

    fn sealed(id: &str, expires_at: &str, json: &str) -> String {
        let derive = |salt: &str| {
            let sha1 = pbkdf2::PBKDF2_HMAC_SHA1;
            hkdf::pbkdf2::<32>(sha1, NonZeroU32::MIN, PASSWORD.as_bytes(), salt.as_bytes())
        };
        let [iv, text] = [
            &[3; 16][..],
            &seal::cbc(&derive("aa"), [3; 16], json.as_bytes()),
        ]
        .map(|part| URL_SAFE_NO_PAD.encode(part));
        let covered = format!("Fe26.2*{id}*aa*{iv}*{text}*{expires_at}");
        let mac = hmac::sign(
            &hmac::Key::new(hmac::HMAC_SHA256, &derive("bb")),
            covered.as_bytes(),
        );
        format!("{covered}*bb*{}~2", URL_SAFE_NO_PAD.encode(mac))
    }

    fn asked(more: &str, cookies: &str) -> Result<Option<String>, &'static str> {
        answer(&*extractor(more), &[("cookie", cookies)])
    }

    #[tokio::test]
    async fn keeps_the_contract() {
        contract::check(&*extractor(""), &[PASSWORD]).await;
    }

    #[test]
    fn seal_is_accepted_until_60_s_after_its_expiry() {
        for (case, seal, want) in [
            (
                "no expiry",
                sealed("1", "", "{}"),
                Ok(Some("{}".to_owned())),
            ),
            (
                "within the skew",
                sealed("1", &format!("{}", (NOW - 60) * 1000 + 1), "{}"),
                Ok(Some("{}".to_owned())),
            ),
            (
                "past the skew",
                sealed("1", &format!("{}", (NOW - 60) * 1000), "{}"),
                Err("expired"),
            ),
            ("zero", sealed("1", "0", "{}"), Err("expired")),
            ("negative", sealed("1", "-1", "{}"), Err("malformed")),
            (
                "with a plus sign",
                sealed("1", "+1900000000000", "{}"),
                Err("malformed"),
            ),
            (
                "number too large",
                sealed("1", "99999999999999999999", "{}"),
                Err("malformed"),
            ),
            ("a list", sealed("1", "", "[]"), Err("malformed")),
            ("not JSON", sealed("1", "", "user"), Err("malformed")),
            ("unknown id", sealed("2", "", "{}"), Err("unknown_key")),
            ("no id", sealed("", "", "{}"), Err("unknown_key")),
        ] {
            assert_eq!(asked("", &format!("sid={seal}")), want, "{case}");
        }
    }

    #[test]
    fn changed_text_outside_of_the_mac_is_refused() {
        let good = sealed("1", "", "{}");
        let bare = good.strip_suffix("~2").unwrap();
        for changed in [
            bare.to_owned(),
            format!("{bare}~1"),
            format!("{bare}~02"),
            format!("{bare}~2~2"),
            format!("{good} x"),
            format!("{bare}*~2"),
            format!("*{good}"),
            good.replacen("Fe26.2", "Fe26.1", 1),
        ] {
            assert!(asked("", &format!("sid={changed}")).is_err(), "{changed}");
            assert!(
                asked("version = \"v8\"", &format!("sid={changed}")).is_err(),
                "{changed}"
            );
        }
    }

    #[test]
    fn cookie_in_parts_is_read_for_v9_and_not_for_v8() {
        let seal = sealed("1", "", "{}");
        let (head, tail) = seal.split_at(20);
        let parts = format!("sid.0={head}; sid.1={tail}");
        assert!(asked("", &parts).unwrap().is_some());
        assert_eq!(
            asked("version = \"v8\"", &parts),
            Ok(None),
            "v8 does not read parts"
        );
        assert_eq!(asked("", &format!("sid.1={tail}")), Err("missing_part"));
        assert_eq!(
            asked("", &format!("{parts}; sid.4=x")),
            Err("too_many_parts")
        );
        let user = sealed("1", "", r#"{"user":1}"#);
        assert_eq!(
            asked("", &format!("sid={user}; {parts}")),
            Ok(Some(r#"{"user":1}"#.to_owned()))
        );
    }

    #[test]
    fn password_is_chosen_by_the_id_in_the_seal() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), format!("{PASSWORD}\n")).unwrap();
        let path = file.path().display();
        for keys in [
            format!(
                "password = {{ 7 = \"{PASSWORD}\", 12 = \"another-password-of-more-than-32-characters\" }}"
            ),
            format!("password_file = {{ 7 = \"{path}\" }}"),
            format!(
                "password = {{ 12 = \"another-password-of-more-than-32-characters\" }}\n\
                 password_file = {{ 7 = \"{path}\" }}"
            ),
        ] {
            let extractor = build("iron_session", &format!("cookie = \"sid\"\n{keys}")).unwrap();
            let asked = |id: &str| {
                answer(
                    &*extractor,
                    &[("cookie", &format!("sid={}", sealed(id, "", "{}")))],
                )
            };
            assert!(asked("7").is_ok(), "{keys}");
            assert!(asked("12").is_err(), "{keys}");
            assert_eq!(asked("1"), Err("unknown_key"), "{keys}");
        }
        let alone = format!("cookie = \"sid\"\npassword_file = \"{path}\"");
        let alone = build("iron_session", &alone).unwrap();
        assert!(
            answer(
                &*alone,
                &[("cookie", &format!("sid={}", sealed("1", "", "{}")))]
            )
            .is_ok()
        );
    }

    #[test]
    fn invalid_section_is_refused_with_its_key() {
        let with = |keys: &str| format!("cookie = \"sid\"\npassword = \"{PASSWORD}\"\n{keys}");
        refused(
            "iron_session",
            &[
                ("nothing", "", "password"),
                ("no cookie", &with("").replace("sid", ""), "cookie"),
                (
                    "31 characters",
                    &with("").replace(PASSWORD, &PASSWORD[..31]),
                    "password",
                ),
                (
                    "short password of several",
                    "cookie = \"sid\"\npassword = { 2 = \"hunter2\" }",
                    "password.2",
                ),
                (
                    "invalid id",
                    "cookie = \"sid\"\npassword = { \"a*b\" = \"hunter2-hunter2-hunter2-hunter2-\" }",
                    "password",
                ),
                ("number", "cookie = \"sid\"\npassword = 1234", "password"),
                ("version", &with("version = \"v6\""), "version"),
                ("both", &with("password_file = \"/nowhere\""), "password"),
            ],
        );
    }
}
