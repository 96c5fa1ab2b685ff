//! Reads the session id from a framework's cookie, and forms the key of the session in the framework's store.
//! An id whose signature is missing or wrong, or that has no valid form, is never looked up.

use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hmac;
use axum::http::HeaderMap;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};

use crate::config::{List, Problems, Section};
use crate::secret::Secret;
use crate::session::formats::hex;
use crate::session::formats::percent::{self, Plus};
use crate::session::reason::Reason;
use crate::session::sections::cookie::{self, Cookie};
use crate::session::sections::laravel::KeyFields as LaravelFields;
use crate::session::sections::{app_secret, laravel};
use crate::session::types::{CredentialSource, ExtractError};

/// The longest session id that is looked up, in bytes; frameworks make ids of up to 64 bytes.
const MAX_ID_BYTES: usize = 256;

/// The keys of a section that describe its cookie.
#[derive(Debug)]
pub struct CookieFields<'a> {
    pub cookie: &'a List<String>,
    pub cookie_format: &'a str,
    pub cookie_secrets: List<Secret>,
    pub key_hash: &'a str,
    pub laravel: laravel::KeyFields<'a>,
}

/// A cookie that contains a session id.
#[derive(Debug)]
pub struct SessionCookie {
    /// The possible names of the cookie; a request has one of them.
    cookies: Vec<Cookie>,
    format: Format,
    /// Whether the store's key is the SHA-256 of the id. Then a leak of the store does not reveal session ids.
    hashes_id: bool,
}

/// The form of the cookie, with the keys that verify it: the current key, then older ones that are still accepted.
#[derive(Debug)]
enum Format {
    /// The id itself.
    Plain,
    /// `s:ID.HMAC` of cookie-signature, as express-session writes it.
    ExpressSigned(Vec<hmac::Key>),
    /// `ID.HMAC` of better-call, as Better Auth writes it.
    BetterAuthSigned(Vec<hmac::Key>),
    /// The id, encrypted by Laravel's encrypter.
    Laravel(Arc<laravel::AppKeySet>),
}

impl Format {
    /// Reads the keys of the configured format, and refuses keys of other formats.
    fn read(section: &Section<'_>, keys: CookieFields<'_>, problems: &mut Problems) -> Self {
        let is_laravel = keys.cookie_format == "laravel";
        let LaravelFields {
            app_key,
            previous_keys,
            ..
        } = &keys.laravel;
        for (key, is_given) in [
            ("app_key", app_key.is_some()),
            ("previous_keys", !previous_keys.is_empty()),
        ] {
            let is_allowed = is_laravel || !is_given;
            problems.require(
                is_allowed,
                section.key(key),
                "is for cookie_format = \"laravel\"",
            );
        }
        let secrets = app_secret::listed(section, "cookie_secrets", keys.cookie_secrets, problems);
        let signing = |secrets: Vec<Secret>| {
            let key = |secret: &Secret| hmac::Key::new(hmac::HMAC_SHA256, secret.expose());
            secrets.iter().map(key).collect::<Vec<_>>()
        };
        let signs = matches!(keys.cookie_format, "express_signed" | "better_auth_signed");
        problems.require(
            signs || secrets.is_empty(),
            section.key("cookie_secrets"),
            "is for a signed cookie_format: set cookie_format, or remove this key",
        );
        problems.require(
            !signs || !secrets.is_empty(),
            section.key("cookie_secrets"),
            "is missing: copy the secret with which your app signs its cookies",
        );
        match keys.cookie_format {
            "plain" => Self::Plain,
            "express_signed" => Self::ExpressSigned(signing(secrets)),
            "better_auth_signed" => Self::BetterAuthSigned(signing(secrets)),
            "laravel" => Self::Laravel(Arc::new(laravel::AppKeySet::read(
                section,
                keys.laravel,
                problems,
            ))),
            _ => {
                problems.add(
                    section.key("cookie_format"),
                    "must be one of plain, express_signed, better_auth_signed, laravel",
                );
                Self::Plain
            }
        }
    }
}

impl SessionCookie {
    /// Reads and checks the keys of a section.
    pub fn read(section: &Section<'_>, keys: CookieFields<'_>, problems: &mut Problems) -> Self {
        problems.require(
            !keys.cookie.is_empty(),
            section.key("cookie"),
            "is missing: name the cookie that contains the session id, or set a preset",
        );
        let cookies = keys.cookie.iter();
        let cookies = cookies
            .filter_map(|name| Cookie::named(section, "cookie", name, problems))
            .collect();
        let hashes_id = match keys.key_hash {
            "none" => false,
            "sha256" => true,
            _ => {
                problems.add(section.key("key_hash"), "must be one of none, sha256");
                false
            }
        };
        Self {
            cookies,
            hashes_id,
            format: Format::read(section, keys, problems),
        }
    }

    /// Whether a client can choose any key of the store: the cookie is not signed, and the id is the key.
    pub fn takes_any_key(&self) -> bool {
        matches!(self.format, Format::Plain) && !self.hashes_id
    }

    /// Laravel's application keys, if the format is Laravel's.
    pub fn laravel(&self) -> Option<&Arc<laravel::AppKeySet>> {
        match &self.format {
            Format::Laravel(keys) => Some(keys),
            Format::Plain | Format::ExpressSigned(_) | Format::BetterAuthSigned(_) => None,
        }
    }

    /// The places that are read.
    pub fn places(&self) -> impl Iterator<Item = CredentialSource> {
        self.cookies
            .iter()
            .map(|cookie| CredentialSource::Cookie(cookie.name().to_owned()))
    }

    /// The key of the session in the store; `None` if the request has no such cookie.
    pub fn id(&self, headers: &HeaderMap) -> Result<Option<String>, ExtractError> {
        let Some((cookie, value)) = cookie::find_one_of(headers, &self.cookies)? else {
            return Ok(None);
        };
        let id = match &self.format {
            Format::Plain => value.to_owned(),
            Format::ExpressSigned(keys) => {
                let decoded = percent::decode(value, Plus::Plus).ok_or_else(malformed)?;
                let signed = decoded.strip_prefix("s:").ok_or_else(malformed)?;
                verified(keys, signed, |text| STANDARD_NO_PAD.decode(text).ok())?
            }
            Format::BetterAuthSigned(keys) => {
                let decoded = percent::decode(value, Plus::Plus).ok_or_else(malformed)?;
                verified(keys, &decoded, |text| STANDARD.decode(text).ok())?
            }
            Format::Laravel(keys) => keys.session_id(cookie.name(), value)?,
        };
        let is_id = match self.format {
            Format::Plain => is_visible(&id),
            // The app created and signed this id, so it may contain any characters.
            Format::ExpressSigned(_) | Format::BetterAuthSigned(_) | Format::Laravel(_) => true,
        };
        if !is_id || !(1..=MAX_ID_BYTES).contains(&id.len()) {
            return Err(malformed());
        }
        Ok(Some(if self.hashes_id {
            hex::encode(digest(&SHA256, id.as_bytes()))
        } else {
            id
        }))
    }
}

/// The text before the last dot, if the text after it is its HMAC-SHA-256 by one of the keys.
fn verified(
    keys: &[hmac::Key],
    signed: &str,
    decode: impl Fn(&str) -> Option<Vec<u8>>,
) -> Result<String, ExtractError> {
    let (id, signature) = signed.rsplit_once('.').ok_or_else(malformed)?;
    let signature = decode(signature).ok_or_else(malformed)?;
    let matches = |key| hmac::verify(key, id.as_bytes(), &signature).is_ok();
    let is_signed = keys.iter().fold(false, |found, key| found | matches(key));
    if is_signed {
        Ok(id.to_owned())
    } else {
        Err(ExtractError::rejected(Reason::BadSignature))
    }
}

/// Whether the text has no spaces or control characters. No app creates ids with such characters, so they are not
/// sent to a store.
fn is_visible(text: &str) -> bool {
    !text.chars().any(|c| c.is_control() || c.is_whitespace())
}

fn malformed() -> ExtractError {
    ExtractError::rejected(Reason::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::{HeaderValue, header};

    fn cookie(format: Format) -> SessionCookie {
        SessionCookie {
            cookies: vec![Cookie::of("sid")],
            format,
            hashes_id: false,
        }
    }

    fn keys(secrets: &[&str]) -> Vec<hmac::Key> {
        secrets
            .iter()
            .map(|secret| hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()))
            .collect()
    }

    fn id(cookie: &SessionCookie, value: &str) -> Result<Option<String>, &'static str> {
        let mut headers = HeaderMap::new();
        headers.append(
            header::COOKIE,
            HeaderValue::from_str(&format!("sid={value}")).unwrap(),
        );
        cookie.id(&headers).map_err(|error| error.reason().as_str())
    }

    fn signed(id: &str, secret: &str, padded: bool) -> String {
        let tag = hmac::sign(
            &hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()),
            id.as_bytes(),
        );
        let tag = if padded {
            STANDARD.encode(tag)
        } else {
            STANDARD_NO_PAD.encode(tag)
        };
        format!("{id}.{tag}")
            .bytes()
            .map(|byte| format!("%{byte:02X}"))
            .collect()
    }

    #[test]
    fn plain_id_is_visible_text_and_signed_id_is_any_text_of_256_bytes_at_most() {
        let plain = cookie(Format::Plain);
        let express = cookie(Format::ExpressSigned(keys(&["new", "old"])));
        let long = "x".repeat(257);
        for (name, text, good) in [
            ("plain", "3a327b5a-ae9f", true),
            ("wildcard", "*", true),
            ("injection", "'OR'1'='1", true),
            ("longest", &long[1..], true),
            ("too long", &long, false),
            ("space", "a b", false),
        ] {
            let taken = || Ok(Some(text.to_owned()));
            assert_eq!(
                id(&plain, text),
                if good { taken() } else { Err("malformed") },
                "{name}"
            );
            let want = if text.len() <= MAX_ID_BYTES {
                taken()
            } else {
                Err("malformed")
            };
            assert_eq!(
                id(&express, &format!("s:{}", signed(text, "old", false))),
                want,
                "{name}, signed"
            );
        }
        for text in ["a\0b", "a\r\nFLUSHALL", "a\u{85}b", "user:7 \u{e9}", "\t"] {
            let value = format!("s%3A{}", signed(text, "new", false));
            assert_eq!(id(&express, &value), Ok(Some(text.to_owned())), "{text:?}");
        }
        assert_eq!(
            id(&express, &format!("s%3A{}", signed("", "new", false))),
            Err("malformed")
        );
        assert_eq!(id(&plain, ""), Ok(None));
    }

    #[test]
    fn key_hash_sha256_gives_the_lower_case_hex_digest() {
        let hashing = SessionCookie {
            hashes_id: true,
            ..cookie(Format::Plain)
        };
        let want = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(id(&hashing, "abc"), Ok(Some(want.to_owned())));
        assert_eq!(id(&hashing, "a b"), Err("malformed"));
    }

    #[test]
    fn two_names_with_different_values_are_ambiguous_identity() {
        let both = SessionCookie {
            cookies: vec![Cookie::of("__Secure-sid"), Cookie::of("sid")],
            ..cookie(Format::Plain)
        };
        for (cookies, want) in [
            ("sid=a", Ok(Some("a"))),
            ("__Secure-sid=a", Ok(Some("a"))),
            ("sid=a; __Secure-sid=a", Ok(Some("a"))),
            ("sid=; __Secure-sid=a", Ok(Some("a"))),
            ("__Secure-sid=; x=1", Ok(None)),
            ("sid=a; __Secure-sid=b", Err("ambiguous_identity")),
            ("__Secure-sid=b; sid=a", Err("ambiguous_identity")),
            ("sid=a; sid=b", Err("ambiguous_identity")),
        ] {
            let mut headers = HeaderMap::new();
            headers.append(header::COOKIE, HeaderValue::from_static(cookies));
            let found = both.id(&headers).map_err(|error| error.reason().as_str());
            assert_eq!(found, want.map(|id| id.map(str::to_owned)), "{cookies}");
        }
    }

    #[test]
    fn signature_by_an_unknown_secret_is_bad_signature_and_a_damaged_value_is_malformed() {
        let express = cookie(Format::ExpressSigned(keys(&["new", "old"])));
        let better = cookie(Format::BetterAuthSigned(keys(&["new"])));
        for (cookie, value, want) in [
            (
                &express,
                format!("s%3a{}", signed("a.b", "new", false)),
                Ok(Some("a.b".to_owned())),
            ),
            (
                &express,
                format!("\"s:{}\"", signed("a", "old", false)),
                Ok(Some("a".to_owned())),
            ),
            (
                &express,
                format!("s:{}", signed("a", "gone", false)),
                Err("bad_signature"),
            ),
            (
                &express,
                format!("s:{}", signed("a", "new", true)),
                Err("malformed"),
            ),
            (&express, signed("a", "new", false), Err("malformed")),
            (&express, "s:a".to_owned(), Err("malformed")),
            (&express, "s:a.".to_owned(), Err("bad_signature")),
            (&express, "s:a.%G0".to_owned(), Err("malformed")),
            (&express, "s:a.%2".to_owned(), Err("malformed")),
            (&express, "s:%ff".to_owned(), Err("malformed")),
            (&better, signed("a", "new", true), Ok(Some("a".to_owned()))),
            (&better, signed("a", "new", false), Err("malformed")),
            (&better, signed("a", "old", true), Err("bad_signature")),
            (&better, signed("", "new", true), Err("malformed")),
        ] {
            assert_eq!(id(cookie, &value), want, "{value}");
        }
    }
}
