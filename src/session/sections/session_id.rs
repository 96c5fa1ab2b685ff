//! The formats in which frameworks write a session id into a cookie or header, and the keys that verify it. An id is
//! unsigned, signed by cookie-signature (express-session), `@fastify/cookie` (`@fastify/session`), better-call (Better
//! Auth), itsdangerous (Flask-Session) or Rails' `cookies.signed`, or encrypted by Laravel.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::{hmac, pbkdf2};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD};

use crate::clock::UnixSeconds;
use crate::config::{Problems, Section};
use crate::json::Value;
use crate::secret::Secret;
use crate::session::formats::hkdf;
use crate::session::formats::percent::{self, Plus};
use crate::session::formats::rails::{self, CookieValue};
use crate::session::formats::signatures::verifies_any;
use crate::session::formats::signed_timestamp::{HMAC_SHA1, itsdangerous_key};
use crate::session::reason::Reason;
use crate::session::sections::session_credential::CredentialFields;
use crate::session::sections::{app_secret, laravel};
use crate::session::types::{CredentialSource, ExtractError};

/// The salt with which Flask-Session signs ids (`flask_session/base.py`).
const FLASK_SESSION_SALT: &str = "flask-session";

/// The message for an unknown `cookie_format`, which lists all formats.
const FORMATS: &str = "must be one of plain, express_signed, fastify_signed, better_auth_signed, flask_signed, \
                       rails_signed, laravel";

/// The format of a session id, with the keys that verify it: the current key, then older keys that are still accepted.
#[derive(Debug)]
pub enum Format {
    /// The id itself, without a signature.
    Plain,
    /// `s:ID.HMAC` of cookie-signature, as express-session writes it.
    ExpressSigned(Vec<hmac::Key>),
    /// `ID.HMAC` of `@fastify/cookie`.
    FastifySigned(Vec<hmac::Key>),
    /// `ID.HMAC` of better-call, as Better Auth writes it. In a header, Better Auth's bearer plugin also accepts the id
    /// alone.
    BetterAuthSigned(Vec<hmac::Key>),
    /// `ID.HMAC` of itsdangerous, as Flask-Session writes it with `SESSION_USE_SIGNER`.
    FlaskSigned(Vec<hmac::Key>),
    /// The id in a cookie from Rails' `cookies.signed`.
    RailsSigned(Vec<hmac::Key>),
    /// The id in a value that is encrypted by Laravel's encrypter.
    Laravel(Arc<laravel::AppKeySet>),
}

/// A session id. `is_signed` is true if its signature has been verified or it has been decrypted. `Debug` does not
/// show the id.
pub struct Opened {
    pub id: String,
    pub is_signed: bool,
    pub expires_at: Option<UnixSeconds>,
}

impl fmt::Debug for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opened")
            .field("is_signed", &self.is_signed)
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}

impl Opened {
    fn new(id: impl Into<String>, is_signed: bool) -> Self {
        Self {
            id: id.into(),
            is_signed,
            expires_at: None,
        }
    }
}

impl Format {
    /// Reads the keys of the configured format, and reports keys that belong to other formats.
    pub fn read(
        section: &Section<'_>,
        keys: CredentialFields<'_>,
        problems: &mut Problems,
    ) -> Self {
        let is_laravel = keys.cookie_format == "laravel";
        for (key, is_given) in [
            ("app_key", keys.app_key.is_some()),
            ("previous_keys", !keys.previous_keys.is_empty()),
        ] {
            problems.require(
                is_laravel || !is_given,
                section.key(key),
                "needs cookie_format = \"laravel\": set it, or remove this key",
            );
        }
        let secrets = app_secret::listed(section, "cookie_secrets", keys.cookie_secrets, problems);
        let signs = keys.cookie_format.ends_with("_signed");
        problems.require(
            signs || secrets.is_empty(),
            section.key("cookie_secrets"),
            "needs a signed cookie_format: set cookie_format, or remove this key",
        );
        problems.require(
            !signs || !secrets.is_empty(),
            section.key("cookie_secrets"),
            "is missing: copy the secret with which your app signs its cookies",
        );
        match keys.cookie_format {
            "plain" => Self::Plain,
            "laravel" => Self::Laravel(Arc::new(laravel::AppKeySet::read(
                section,
                keys.app_key,
                keys.previous_keys,
                keys.cipher,
                problems,
            ))),
            signed => Self::signed(signed, &secrets).unwrap_or_else(|| {
                problems.add(section.key("cookie_format"), FORMATS);
                Self::Plain
            }),
        }
    }

    /// The signed format called `name`, with the keys derived from the secrets; `None` if no signed format has this
    /// name.
    pub fn signed(name: &str, secrets: &[Secret]) -> Option<Self> {
        let sha256 = || {
            let key = |secret: &Secret| hmac::Key::new(hmac::HMAC_SHA256, secret.expose());
            secrets.iter().map(key).collect::<Vec<_>>()
        };
        let format = match name {
            "express_signed" => Self::ExpressSigned(sha256()),
            "fastify_signed" => Self::FastifySigned(sha256()),
            "better_auth_signed" => Self::BetterAuthSigned(sha256()),
            "flask_signed" => {
                let key = |secret| itsdangerous_key(HMAC_SHA1, secret, FLASK_SESSION_SALT);
                Self::FlaskSigned(secrets.iter().map(key).collect())
            }
            "rails_signed" => Self::RailsSigned(secrets.iter().flat_map(rails_keys).collect()),
            _ => return None,
        };
        Some(format)
    }

    /// Whether an unsigned id is accepted; `in_header` is true for an id in a header.
    pub fn takes_unsigned(&self, in_header: bool) -> bool {
        match self {
            Self::Plain => true,
            Self::BetterAuthSigned(_) => in_header,
            _ => false,
        }
    }

    /// Laravel's application keys, if this is Laravel's format.
    pub fn laravel(&self) -> Option<&Arc<laravel::AppKeySet>> {
        match self {
            Self::Laravel(keys) => Some(keys),
            _ => None,
        }
    }

    /// The session id in the value of a cookie or header.
    ///
    /// # Errors
    /// `Rejected` if the value is malformed, has a wrong signature, was not encrypted with the keys, was made for
    /// another cookie, or has expired.
    pub fn open(
        &self,
        place: &CredentialSource,
        value: &str,
        now: UnixSeconds,
    ) -> Result<Opened, ExtractError> {
        let id = match self {
            Self::Plain => return Ok(Opened::new(percent::decode_or_raw(value), false)),
            Self::ExpressSigned(keys) => {
                let text = percent::decode_or_raw(value);
                let unsigned = || {
                    ExtractError::malformed()
                        .because("expected s:ID.SIGNATURE, as express-session writes it")
                };
                let signed = text
                    .strip_prefix("s:")
                    .filter(|signed| signed.contains('.'));
                verified(keys, signed.ok_or_else(unsigned)?, |tag| {
                    STANDARD_NO_PAD.decode(tag).ok()
                })?
            }
            Self::FastifySigned(keys) => verified(keys, &percent::decode_or_raw(value), |tag| {
                STANDARD_NO_PAD.decode(tag).ok()
            })?,
            Self::BetterAuthSigned(keys) => {
                let text = percent::decode_or_raw(value);
                if place.header().is_some() && !text.contains('.') {
                    return Ok(Opened::new(text, false));
                }
                verified(keys, &text, |tag| STANDARD.decode(tag).ok())?
            }
            Self::FlaskSigned(keys) => {
                verified(keys, value, |tag| URL_SAFE_NO_PAD.decode(tag).ok())?
            }
            Self::RailsSigned(keys) => return rails_signed(keys, place, value, now),
            Self::Laravel(keys) => match place {
                CredentialSource::Cookie(name) => keys.session_id(name, value)?,
                _ => return Err(ExtractError::malformed()),
            },
        };
        Ok(Opened::new(id, true))
    }
}

/// The text before the last dot, provided that the text after the dot is its HMAC with one of the keys.
fn verified(
    keys: &[hmac::Key],
    signed: &str,
    decode: impl Fn(&str) -> Option<Vec<u8>>,
) -> Result<String, ExtractError> {
    let unsigned = || ExtractError::malformed().because("expected ID.SIGNATURE");
    let (id, signature) = signed.rsplit_once('.').ok_or_else(unsigned)?;
    let signature = decode(signature).ok_or_else(ExtractError::malformed)?;
    if verifies_any(keys, id, &signature) {
        Ok(id.to_owned())
    } else {
        Err(wrong_secret())
    }
}

/// The keys of `cookies.signed` for a `secret_key_base`. The hash for the key derivation depends on `load_defaults`,
/// and the hash for the signature on the setting `signed_cookie_digest`. All combinations are tried, which is safe,
/// because every such key is derived from the secret.
fn rails_keys(secret: &Secret) -> impl Iterator<Item = hmac::Key> {
    let derivations = [pbkdf2::PBKDF2_HMAC_SHA256, pbkdf2::PBKDF2_HMAC_SHA1];
    let keys = derivations
        .map(|hash| hkdf::pbkdf2::<64>(hash, rails::ITERATIONS, secret.expose(), b"signed cookie"));
    keys.into_iter().flat_map(|key| {
        [HMAC_SHA1, hmac::HMAC_SHA256, hmac::HMAC_SHA512].map(|hash| hmac::Key::new(hash, &key))
    })
}

/// The id, a string or an integer, in a cookie from `cookies.signed`. The purpose in its metadata must name the cookie.
fn rails_signed(
    keys: &[hmac::Key],
    place: &CredentialSource,
    value: &str,
    now: UnixSeconds,
) -> Result<Opened, ExtractError> {
    let CredentialSource::Cookie(name) = place else {
        return Err(ExtractError::malformed());
    };
    let text = percent::decode(value, Plus::Space).ok_or_else(ExtractError::malformed)?;
    if !text.contains("--") {
        return Err(ExtractError::malformed());
    }
    let opened = keys.iter().find_map(|key| rails::verify(key, &text));
    let opened = opened.ok_or_else(wrong_secret)?;
    let cookie = CookieValue::parse(&opened)?;
    cookie.check(&format!("cookie.{name}"), false, now)?;
    let id = match cookie.value {
        Value::String(id) => id,
        Value::Number(id) if !id.is_f64() => id.to_string(),
        _ => {
            return Err(ExtractError::malformed()
                .because("the cookie contains neither a string nor an integer"));
        }
    };
    Ok(Opened {
        expires_at: cookie.expires_at,
        ..Opened::new(id, true)
    })
}

fn wrong_secret() -> ExtractError {
    ExtractError::other_secret(Reason::BadSignature, "cookie_secrets")
}
