//! Reads the session id from a framework's cookie or from a header, and derives the session's key in the framework's
//! store. An id that is malformed, or that lacks a valid signature although its format requires one, is never looked
//! up. `session_id.rs` verifies the signatures.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use axum::http::HeaderMap;

use crate::clock::UnixSeconds;
use crate::config::{List, Problems, Section};
use crate::secret::Secret;
use crate::session::formats::{hex, jwt_form};
use crate::session::reason::Reason;
use crate::session::sections::cookie::{self, Cookie};
use crate::session::sections::laravel;
use crate::session::sections::session_id::{Format, Opened};
use crate::session::types::{CredentialSource, ExtractError};

/// The maximum length of a session id, in bytes. Frameworks create ids of up to 64 bytes.
const MAX_ID_BYTES: usize = 256;

/// The keys of a section that configure where its session ids are read, and in which format.
#[derive(Debug)]
pub struct CredentialFields<'a> {
    pub from: &'a List<String>,
    pub cookie: &'a List<String>,
    pub cookie_format: &'a str,
    pub cookie_secrets: List<Secret>,
    pub key_hash: &'a str,
    pub app_key: Option<Secret>,
    pub previous_keys: List<Secret>,
    pub cipher: &'a str,
}

/// A cookie or header that contains a session id.
#[derive(Debug)]
pub struct SessionCredential {
    /// The places listed in `from`, in order. The credential in the first place that holds one is used.
    places: Vec<CredentialSource>,
    /// The possible names of the cookie, which is read after `places`. Different values under two of the names are
    /// refused.
    cookies: Vec<Cookie>,
    format: Format,
    /// Whether the store's key is the SHA-256 of the id, so that a leak of the store does not reveal session ids.
    hashes_id: bool,
}

/// A session's key in the store, derived from the session id. `Debug` does not show the key.
#[derive(PartialEq, Eq)]
pub struct StoreKey {
    pub key: String,
    /// The id of the row, which precedes the session id in formats such as Laravel Sanctum's tokens, `ROW|ID`.
    pub row: Option<String>,
    /// The expiry of the credential itself. The session in the store may expire earlier.
    pub expires_at: Option<UnixSeconds>,
}

impl fmt::Debug for StoreKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreKey")
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}

impl SessionCredential {
    /// Reads and checks the keys of a section.
    pub fn read(
        section: &Section<'_>,
        fields: CredentialFields<'_>,
        problems: &mut Problems,
    ) -> Self {
        problems.require(
            !fields.cookie.is_empty() || !fields.from.is_empty(),
            section.key("cookie"),
            "is missing: name the cookie that contains the session id, name a header in from, or set a preset",
        );
        let places: Vec<CredentialSource> = fields
            .from
            .iter()
            .filter_map(|text| problems.accept(section.key("from"), text.parse()))
            .collect();
        let holds_tokens = |place: &CredentialSource| {
            matches!(
                place,
                CredentialSource::Supabase(_) | CredentialSource::Amplify(_)
            )
        };
        problems.require(
            !places.iter().any(holds_tokens),
            section.key("from"),
            "must name headers or cookies, such as \"header:authorization\"",
        );
        let is_bound_to_name = matches!(fields.cookie_format, "laravel" | "rails_signed");
        problems.require(
            !is_bound_to_name || places.iter().all(|place| place.header().is_none()),
            section.key("from"),
            "names a header, but a value in this cookie_format is valid only in the cookie for which it was made: set \
             cookie instead",
        );
        let cookies = fields.cookie.iter();
        let cookies: Vec<Cookie> = cookies
            .filter_map(|name| Cookie::named(section, "cookie", name, problems))
            .collect();
        let hashes_id = match fields.key_hash {
            "none" => Ok(false),
            "sha256" => Ok(true),
            _ => Err("must be one of none, sha256"),
        };
        let hashes_id = problems.accept(section.key("key_hash"), hashes_id);
        Self {
            places,
            cookies,
            hashes_id: hashes_id.unwrap_or_default(),
            format: Format::read(section, fields, problems),
        }
    }

    /// Whether a client can choose any key of the store, because unsigned ids are used as keys.
    pub fn takes_any_key(&self) -> bool {
        let reads_header = self.places.iter().any(|place| place.header().is_some());
        self.format.takes_unsigned(reads_header) && !self.hashes_id
    }

    /// Laravel's application keys, if the ids have Laravel's format.
    pub fn laravel(&self) -> Option<&Arc<laravel::AppKeySet>> {
        self.format.laravel()
    }

    /// The places from which ids are read.
    pub fn places(&self) -> impl Iterator<Item = CredentialSource> {
        let cookies = self.cookies.iter();
        let cookies = cookies.map(|cookie| CredentialSource::Cookie(cookie.name().to_owned()));
        self.places.iter().cloned().chain(cookies)
    }

    /// The session's key in the store; `None` if the request has none of the cookies and headers.
    ///
    /// # Errors
    /// `NotMine` for a JWT in a header, otherwise `Rejected`.
    pub fn key(
        &self,
        headers: &HeaderMap,
        now: UnixSeconds,
    ) -> Result<Option<StoreKey>, ExtractError> {
        let Some((place, value)) = self.find(headers)? else {
            return Ok(None);
        };
        if place.header().is_some() && jwt_form::is_jwt(value) {
            return Err(ExtractError::not_mine(Reason::SignedJwt, &place)
                .because("the header contains a JWT, not a session id"));
        }
        let opened = self.format.open(&place, value, now)?;
        let is_allowed = opened.is_signed || is_visible(&opened.id);
        if !is_allowed || !(1..=MAX_ID_BYTES).contains(&opened.id.len()) {
            return Err(ExtractError::malformed());
        }
        Ok(Some(self.store_key(opened)))
    }

    fn store_key(&self, opened: Opened) -> StoreKey {
        let Opened { id, expires_at, .. } = opened;
        if !self.hashes_id {
            return StoreKey {
                key: id,
                row: None,
                expires_at,
            };
        }
        let (row, id) = match id.split_once('|') {
            Some((row, id)) => (Some(row.to_owned()), id),
            None => (None, &*id),
        };
        StoreKey {
            key: hex::encode(digest(&SHA256, id.as_bytes())),
            row,
            expires_at,
        }
    }

    /// The credential in the first of the `places`, and then of the `cookies`, that holds one.
    fn find<'a>(
        &self,
        headers: &'a HeaderMap,
    ) -> Result<Option<(CredentialSource, &'a str)>, ExtractError> {
        for place in &self.places {
            let value = match place {
                CredentialSource::Cookie(name) => cookie::find(headers, name)?,
                // `Token` is the scheme of Django REST framework.
                _ => place.opaque(headers, &["bearer", "token"])?,
            };
            if let Some(value) = value {
                return Ok(Some((place.clone(), value)));
            }
        }
        let found = cookie::find_one_of(headers, &self.cookies)?;
        let source = |cookie: &Cookie| CredentialSource::Cookie(cookie.name().to_owned());
        Ok(found.map(|(cookie, value)| (source(cookie), value)))
    }
}

/// Whether the text has no spaces or control characters. No app creates unsigned ids with such characters, so an id
/// that contains one is not sent to a store.
fn is_visible(text: &str) -> bool {
    !text.chars().any(|c| c.is_control() || c.is_whitespace())
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::hmac;
    use axum::http::{HeaderName, HeaderValue, header};
    use base64::Engine;
    use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD};

    use super::*;
    use crate::session::formats::percent;
    use crate::session::formats::signed_timestamp::{HMAC_SHA1, itsdangerous_key};

    #[test]
    fn debug_does_not_show_the_session_id() {
        let opened = Opened {
            id: "s3cr3t".to_owned(),
            is_signed: true,
            expires_at: None,
        };
        let key = StoreKey {
            key: "s3cr3t".to_owned(),
            row: Some("s3cr3t".to_owned()),
            expires_at: None,
        };
        let shown = format!("{opened:?} {key:?}");
        assert!(!shown.contains("s3cr3t"), "{shown}");
    }

    fn cookie(format: Format) -> SessionCredential {
        SessionCredential {
            places: Vec::new(),
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

    fn id(cookie: &SessionCredential, value: &str) -> Result<Option<String>, &'static str> {
        let mut headers = HeaderMap::new();
        headers.append(
            header::COOKIE,
            HeaderValue::from_str(&format!("sid={value}")).unwrap(),
        );
        key(cookie, &headers)
    }

    fn key(
        cookie: &SessionCredential,
        headers: &HeaderMap,
    ) -> Result<Option<String>, &'static str> {
        match cookie.key(headers, 1_800_000_000) {
            Ok(found) => Ok(found.map(|found| found.key)),
            Err(error) => Err(error.reason().as_str()),
        }
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
    fn plain_id_must_be_visible_characters_and_signed_id_may_be_any_string_up_to_256_bytes() {
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
    fn key_hash_sha256_makes_the_store_key_the_lower_case_hex_digest() {
        let hashing = SessionCredential {
            hashes_id: true,
            ..cookie(Format::Plain)
        };
        let want = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(id(&hashing, "abc"), Ok(Some(want.to_owned())));
        assert_eq!(id(&hashing, "a b"), Err("malformed"));
    }

    #[test]
    fn two_cookie_names_with_different_values_are_ambiguous_identity() {
        let both = SessionCredential {
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
            assert_eq!(
                key(&both, &headers),
                want.map(|id| id.map(str::to_owned)),
                "{cookies}"
            );
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

    #[test]
    fn percent_encoded_plain_id_is_decoded_and_an_undecodable_id_is_unchanged() {
        let plain = cookie(Format::Plain);
        for (value, want) in [
            ("a%2Cb", Ok("a,b")),
            ("a%2fb%3D", Ok("a/b=")),
            ("a+b", Ok("a+b")),
            ("100%", Ok("100%")),
            ("%C3%A9", Ok("\u{e9}")),
            ("a%20b", Err("malformed")),
            ("a%0Ab", Err("malformed")),
        ] {
            assert_eq!(
                id(&plain, value),
                want.map(|id| Some(id.to_owned())),
                "{value}"
            );
        }
    }

    #[test]
    fn fastify_and_flask_ids_are_accepted_only_with_a_valid_signature() {
        let fastify = cookie(Format::FastifySigned(keys(&["new", "old"])));
        let key = |secret: &str| itsdangerous_key(HMAC_SHA1, &Secret::new(secret), "flask-session");
        let flask = cookie(Format::FlaskSigned(vec![key("new"), key("old")]));
        let by_flask = |id: &str, secret: &str| {
            let tag = URL_SAFE_NO_PAD.encode(hmac::sign(&key(secret), id.as_bytes()));
            format!("{id}.{tag}")
        };
        for (cookie, value, want) in [
            (&fastify, signed("a.b", "new", false), Ok("a.b")),
            (
                &fastify,
                signed("z\u{f6}e b", "old", false),
                Ok("z\u{f6}e b"),
            ),
            (
                &fastify,
                format!("s%3A{}", signed("a", "new", false)),
                Err("bad_signature"),
            ),
            (&fastify, signed("a", "new", true), Err("malformed")),
            (&fastify, signed("a", "gone", false), Err("bad_signature")),
            (&fastify, signed("", "new", false), Err("malformed")),
            (&fastify, "a".to_owned(), Err("malformed")),
            (&flask, by_flask("a_B-7", "new"), Ok("a_B-7")),
            (&flask, by_flask("a.b", "old"), Ok("a.b")),
            (&flask, by_flask("a", "gone"), Err("bad_signature")),
            (
                &flask,
                by_flask("a", "new").replace("a.", "b."),
                Err("bad_signature"),
            ),
            (
                &flask,
                format!("{}=", by_flask("a", "new")),
                Err("malformed"),
            ),
            (&flask, signed("a", "new", false), Err("malformed")),
            (&flask, "a.".to_owned(), Err("bad_signature")),
            (&flask, "a".to_owned(), Err("malformed")),
        ] {
            assert_eq!(
                id(cookie, &value),
                want.map(|id| Some(id.to_owned())),
                "{value}"
            );
        }
    }

    fn header(
        credential: &SessionCredential,
        name: &str,
        value: &str,
    ) -> Result<Option<StoreKey>, ExtractError> {
        let mut headers = HeaderMap::new();
        let name = HeaderName::try_from(name).unwrap();
        headers.append(name, HeaderValue::from_str(value).unwrap());
        credential.key(&headers, 1_800_000_000)
    }

    #[test]
    fn sanctum_token_is_looked_up_by_the_hash_of_the_part_after_its_row_id() {
        let sanctum = SessionCredential {
            places: vec![CredentialSource::Bearer],
            cookies: Vec::new(),
            format: Format::Plain,
            hashes_id: true,
        };
        let key = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        for (value, row) in [("Bearer abc", None), ("Bearer 7|abc", Some("7"))] {
            let found = header(&sanctum, "authorization", value);
            let want = StoreKey {
                key: key.to_owned(),
                row: row.map(str::to_owned),
                expires_at: None,
            };
            assert_eq!(found, Ok(Some(want)), "{value}");
        }
        let other = header(&sanctum, "authorization", "Bearer 7|abc|d")
            .unwrap()
            .unwrap();
        assert_ne!(other.key, key);
        assert_eq!(header(&sanctum, "authorization", "Basic YTpi"), Ok(None));
        assert_eq!(header(&sanctum, "cookie", "sid=abc"), Ok(None));
    }

    #[test]
    fn header_takes_precedence_over_the_cookie_and_a_jwt_in_the_header_is_not_mine() {
        let both = SessionCredential {
            places: vec![CredentialSource::Bearer],
            ..cookie(Format::Plain)
        };
        let jwt = "eyJhbGciOiJIUzI1NiJ9.e30.c2ln";
        let mut headers = HeaderMap::new();
        headers.append(header::COOKIE, HeaderValue::from_static("sid=from-cookie"));
        assert_eq!(key(&both, &headers), Ok(Some("from-cookie".to_owned())));
        headers.insert(
            header::AUTHORIZATION,
            HeaderValue::from_static("Token from-header"),
        );
        assert_eq!(key(&both, &headers), Ok(Some("from-header".to_owned())));
        headers.append(
            header::AUTHORIZATION,
            HeaderValue::from_static("Token from-header"),
        );
        assert_eq!(key(&both, &headers), Err("duplicate_header"));
        let found = header(&both, "authorization", &format!("Bearer {jwt}"));
        assert!(
            matches!(
                found,
                Err(ExtractError::NotMine(_, CredentialSource::Bearer))
            ),
            "{found:?}"
        );
        assert_eq!(
            id(&both, jwt),
            Ok(Some(jwt.to_owned())),
            "a cookie is looked up"
        );
    }

    #[test]
    fn better_auth_accepts_an_unsigned_token_only_in_a_header() {
        let better = SessionCredential {
            places: vec![CredentialSource::Bearer],
            ..cookie(Format::BetterAuthSigned(keys(&["new"])))
        };
        assert!(better.takes_any_key());
        assert!(!cookie(Format::BetterAuthSigned(keys(&["new"]))).takes_any_key());
        let whole = signed("tok", "new", true);
        let raw = percent::decode_or_raw(&whole).into_owned();
        for (value, want) in [
            ("tok", Ok("tok")),
            (&*whole, Ok("tok")),
            (&raw, Ok("tok")),
            (&signed("tok", "old", true), Err("bad_signature")),
            ("tok.", Err("bad_signature")),
            ("tok.x", Err("malformed")),
        ] {
            let found = header(&better, "authorization", &format!("Bearer {value}"));
            let found = found.map(|found| found.unwrap().key);
            let found = found.map_err(|error| error.reason().as_str());
            assert_eq!(found, want.map(str::to_owned), "{value}");
        }
        assert_eq!(id(&better, "tok"), Err("malformed"));
    }
}
