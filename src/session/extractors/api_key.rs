//! `api_key`: the app's own backend authenticates with a key and names the user in a header, which `formats/headers.rs`
//! reads.

use std::collections::BTreeMap;
use std::sync::Arc;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use axum::http::HeaderName;
use axum::http::request::Parts;
use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};

use crate::config::{List, Problems, Section};
use crate::session::backends::Context;
use crate::session::credential_source;
use crate::session::formats::glob::matches_glob;
use crate::session::formats::{headers, hex};
use crate::session::kind::{BuildResult, Kind};
use crate::session::reason::Reason;
use crate::session::types::{
    CredentialSource, ExtractError, Extracted, Reach, Session, SessionExtractor,
};

pub const KIND: Kind = Kind::new(build);

/// Well-known default keys, which anyone can guess.
const DEFAULT_KEYS: [&str; 8] = [
    "",
    "changeme",
    "secret",
    "password",
    "test",
    "api-key",
    "apikey",
    "your-api-key",
];

/// `[extractors.NAME]` with `kind = "api_key"`
#[derive(Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct ApiKeyConfig {
    from: List<String>,
    keys: BTreeMap<String, String>,
    subject_header: String,
    allowed_subjects: List<String>,
}

impl Default for ApiKeyConfig {
    fn default() -> Self {
        Self {
            from: List::of(&["header:x-api-key", "header:authorization"]),
            keys: BTreeMap::new(),
            subject_header: "X-Rollout-Subject".to_owned(),
            allowed_subjects: List::of(&["*"]),
        }
    }
}

#[derive(Debug)]
struct ApiKey {
    places: Vec<CredentialSource>,
    /// The SHA-256 of each key. The service does not have the keys themselves.
    hashes: Vec<[u8; 32]>,
    subject_header: HeaderName,
    allowed_subjects: Vec<String>,
}

fn build(section: &Section<'_>, _: &Context) -> BuildResult {
    let mut problems = Problems::default();
    let config: ApiKeyConfig = section.read(&mut problems);
    problems.require(
        !config.keys.is_empty(),
        section.key("keys"),
        "is empty: add at least one entry NAME = \"HASH\", where HASH is the SHA-256 of a random key in hex \
         (`openssl rand -hex 32 | tee key | tr -d '\\n' | sha256sum`)",
    );
    let weak = DEFAULT_KEYS.map(|key| sha256(key.as_bytes()));
    let mut hashes = Vec::new();
    for (name, hex) in &config.keys {
        let key = section.key(&format!("keys.{name}"));
        let hash = parse_hash(hex)
            .ok_or("must be the SHA-256 of the key as 64 hex digits, not the key itself");
        let hash = problems.accept(&*key, hash);
        problems.require(
            hash.is_none_or(|hash| !weak.contains(&hash)),
            key,
            "is the hash of a well-known default key: generate a random key of 32 bytes",
        );
        hashes.extend(hash);
    }
    let places = credential_source::read_from(section, &config.from, &mut problems);
    let subject_header = problems.parse(
        section.key("subject_header"),
        &config.subject_header,
        "the name of a header",
    );
    problems.require(
        !config.allowed_subjects.is_empty(),
        section.key("allowed_subjects"),
        "is empty, so no subject is allowed: list subjects, with * for any text",
    );
    match subject_header {
        Some(subject_header) => problems.or(Arc::new(ApiKey {
            places,
            hashes,
            subject_header,
            allowed_subjects: config.allowed_subjects.0,
        })),
        None => Err(problems),
    }
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, bytes).as_ref());
    hash
}

fn parse_hash(text: &str) -> Option<[u8; 32]> {
    hex::decode(&text.to_ascii_lowercase())?.try_into().ok()
}

impl ApiKey {
    fn session(&self, request: &Parts) -> Extracted {
        let Some(key) = credential_source::find(&self.places, request)? else {
            return Ok(None);
        };
        if !self.knows(&key.text) {
            // Authorization may hold tokens of other kinds; the other places hold only keys.
            return Err(match key.place {
                CredentialSource::Bearer => ExtractError::not_mine(Reason::UnknownKey, key.place),
                _ => ExtractError::rejected(Reason::UnknownKey),
            });
        }
        if headers::has_twin(&request.headers, &self.subject_header)
            || headers::is_hop_by_hop(&request.headers, &self.subject_header)
        {
            return Err(ExtractError::rejected(Reason::AmbiguousIdentity));
        }
        // A request with a valid key but no subject header yields a session without attributes. Its subject is absent,
        // so the response is `no_session`.
        let Some(subject) = headers::single(&request.headers, &self.subject_header)
            .map_err(|_| ExtractError::rejected(Reason::AmbiguousIdentity))?
        else {
            return Ok(Some(Session {
                attributes: serde_json::json!({}).into(),
                expires_at: None,
            }));
        };
        let mut allowed = self.allowed_subjects.iter();
        if !allowed.any(|glob| matches_glob(glob, subject)) {
            return Err(ExtractError::rejected(Reason::SubjectNotAllowed));
        }
        Ok(Some(Session::of_subject(subject)))
    }

    /// Whether the key is configured. Compares its hash with every configured hash, in constant time.
    fn knows(&self, key: &str) -> bool {
        let hash = sha256(key.as_bytes());
        self.hashes.iter().fold(false, |known, other| {
            known | verify_slices_are_equal(other, &hash).is_ok()
        })
    }
}

impl SessionExtractor for ApiKey {
    fn extract<'a>(&'a self, request: &'a Parts) -> BoxFuture<'a, Extracted> {
        Box::pin(async move { self.session(request) })
    }

    fn reach(&self) -> Reach {
        Reach {
            places: self.places.clone().into(),
            ..Reach::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::contract;
    use crate::session::sections::testing::{answer, build, refused};

    const KEY: &str = "3f1c8a5e0b7d49c2a6e8f0d1b3c5a7e9f1d3b5c7";

    fn extractor() -> Arc<dyn SessionExtractor> {
        let hash = hex::encode(sha256(KEY.as_bytes()));
        let keys = format!("allowed_subjects = [\"user-*\"]\nkeys = {{ backend = \"{hash}\" }}");
        build("api_key", &keys).unwrap()
    }

    fn asked(headers: &[(&str, &str)]) -> Result<Option<String>, &'static str> {
        answer(&*extractor(), headers)
    }

    #[tokio::test]
    async fn extractor_passes_the_contract_checks() {
        contract::check(&*extractor(), &[KEY]).await;
    }

    #[test]
    fn known_key_yields_a_session_for_allowed_subjects_only() {
        let user = [("x-api-key", KEY), ("x-rollout-subject", "user-7")];
        assert_eq!(asked(&user), Ok(Some(r#"{"sub":"user-7"}"#.to_owned())));
        assert_eq!(
            asked(&[("x-rollout-subject", "user-7")]),
            Ok(None),
            "a subject without a key"
        );
        assert_eq!(
            asked(&[("x-api-key", KEY)]),
            Ok(Some("{}".to_owned())),
            "a key without a subject"
        );
        let bearer = format!("Bearer {KEY}");
        assert!(
            asked(&[("authorization", &bearer), ("x-rollout-subject", "user-7")])
                .unwrap()
                .is_some()
        );
        assert_eq!(
            asked(&[("authorization", "Bearer a.b.c")]),
            Err("unknown_key")
        );
        let other = [("x-api-key", KEY), ("x-rollout-subject", "admin")];
        assert_eq!(asked(&other), Err("subject_not_allowed"));
        let twin = [
            ("x-api-key", KEY),
            ("x-rollout-subject", "user-7"),
            ("x_rollout_subject", "user-8"),
        ];
        assert_eq!(asked(&twin), Err("ambiguous_identity"));
        let two = [
            ("x-api-key", KEY),
            ("x-rollout-subject", "user-7"),
            ("x-rollout-subject", "user-8"),
        ];
        assert_eq!(asked(&two), Err("ambiguous_identity"));
    }

    #[test]
    fn wrong_malformed_or_duplicate_key_is_refused() {
        for (case, key) in [
            ("wrong", "0000000000000000000000000000000000000000"),
            ("prefix", &KEY[..KEY.len() - 1]),
            ("longer", &format!("{KEY}x")),
            ("other case", &KEY.to_uppercase()),
        ] {
            for (name, value) in [
                ("x-api-key", key.to_owned()),
                ("authorization", format!("Bearer {key}")),
            ] {
                let headers = [(name, value.as_str()), ("x-rollout-subject", "user-7")];
                assert_eq!(asked(&headers), Err("unknown_key"), "{case} in {name}");
            }
        }
        let nbsp = [
            ("x-api-key", &format!("{KEY}\u{a0}")[..]),
            ("x-rollout-subject", "user-7"),
        ];
        assert_eq!(asked(&nbsp), Err("malformed"));
        let twice = [
            ("x-api-key", KEY),
            ("x-api-key", KEY),
            ("x-rollout-subject", "user-7"),
        ];
        assert_eq!(asked(&twice), Err("duplicate_header"));
    }

    #[tokio::test]
    async fn unknown_key_is_not_mine_in_authorization_and_rejected_in_another_header() {
        let extractor = extractor();
        for bearer in ["Bearer opaque", "Bearer a.b.c"] {
            let request = contract::request(&[("authorization", bearer)]);
            let answer = extractor.extract(&request).await;
            assert!(
                matches!(
                    answer,
                    Err(ExtractError::NotMine(_, CredentialSource::Bearer))
                ),
                "{answer:?}"
            );
        }
        let request = contract::request(&[("x-api-key", "a.b.c")]);
        let answer = extractor.extract(&request).await;
        assert!(
            matches!(answer, Err(ExtractError::Rejected(_))),
            "{answer:?}"
        );
    }

    #[test]
    fn missing_unhashed_or_default_key_is_refused() {
        let changeme = hex::encode(sha256(b"changeme"));
        refused(
            "api_key",
            &[
                ("no keys", "", "keys"),
                ("plain", "keys = { a = \"hunter2\" }", "keys.a"),
                (
                    "default",
                    &format!("keys = {{ a = \"{changeme}\" }}"),
                    "keys.a",
                ),
            ],
        );
    }
}
