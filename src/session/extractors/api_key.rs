//! `api_key`: the app's own back end asks for a user, and proves itself by a key.
//! What may stand in a header that names a user is in `shared/headers.rs`.

use std::collections::BTreeMap;
use std::sync::Arc;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use axum::http::HeaderName;
use axum::http::request::Parts;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};
use serde::{Deserialize, Serialize};

use crate::config::{List, Problems, Section};
use crate::session::backends::Context;
use crate::session::credential_source;
use crate::session::formats::glob::matches_glob;
use crate::session::formats::headers;
use crate::session::kind::Kind;
use crate::session::types::{
    CredentialSource, ExtractError, Extracted, Reach, Session, SessionExtractor,
};

pub const KIND: Kind = Kind {
    build,
    subject: "{sub}",
    presets: &[],
};

/// Keys that people leave in place; a key like that protects nothing.
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
struct Config {
    from: List<String>,
    keys: BTreeMap<String, String>,
    subject_header: String,
    allowed_subjects: List<String>,
}

impl Default for Config {
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
    /// SHA-256 of each key: the keys themselves are never here.
    hashes: Vec<[u8; 32]>,
    subject_header: HeaderName,
    allowed_subjects: Vec<String>,
}

fn build(section: &Section<'_>, _: &Context) -> Result<Arc<dyn SessionExtractor>, Problems> {
    let mut problems = Problems::default();
    let config: Config = section.read(&mut problems);
    problems.require(
        !config.keys.is_empty(),
        section.key("keys"),
        "add at least one: NAME = the SHA-256, in hex, of a random key (`openssl rand -hex 32 | tee key | \
         tr -d '\\n' | sha256sum`)",
    );
    let mut hashes = Vec::new();
    for (name, hex) in &config.keys {
        let key = section.key(&format!("keys.{name}"));
        match parse_hash(hex) {
            None => problems.add(
                key,
                "must be the 64 hex digits of the key's SHA-256, not the key itself",
            ),
            Some(hash)
                if DEFAULT_KEYS
                    .iter()
                    .any(|weak| sha256(weak.as_bytes()) == hash) =>
            {
                problems.add(
                    key,
                    "is the hash of a well-known default: make a random key of 32 bytes",
                );
            }
            Some(hash) => hashes.push(hash),
        }
    }
    problems.require(
        !config.from.is_empty(),
        section.key("from"),
        "names no place to look for a key",
    );
    let places = config.from.iter().map(|text| text.parse());
    let places = places
        .filter_map(|place| problems.accept(section.key("from"), place))
        .collect();
    let subject_header = problems.parse(
        section.key("subject_header"),
        &config.subject_header,
        "the name of a header",
    );
    problems.require(
        !config.allowed_subjects.is_empty(),
        section.key("allowed_subjects"),
        "allows nobody: list subjects, with * for any text",
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

fn parse_hash(hex: &str) -> Option<[u8; 32]> {
    if hex.len() != 64 || !hex.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    let mut hash = [0; 32];
    for (byte, digits) in hash.iter_mut().zip(hex.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(hash)
}

impl ApiKey {
    fn session(&self, request: &Parts) -> Extracted {
        let Some(key) = credential_source::find(&self.places, request)? else {
            return Ok(None);
        };
        if !self.knows(&key.text) {
            // Tokens of every kind stand in Authorization; the other places are for keys alone.
            return Err(match key.place {
                CredentialSource::Bearer => ExtractError::not_mine("unknown_key", key.place),
                _ => ExtractError::rejected("unknown_key"),
            });
        }
        if headers::has_twin(&request.headers, &self.subject_header)
            || headers::is_hop_by_hop(&request.headers, &self.subject_header)
        {
            return Err(ExtractError::rejected("ambiguous_identity"));
        }
        // A known key without a subject is a session in which nobody is signed in.
        let Some(subject) = headers::single(&request.headers, &self.subject_header)
            .map_err(|_| ExtractError::rejected("ambiguous_identity"))?
        else {
            return Ok(Some(Session {
                attributes: serde_json::json!({}).into(),
                expires_at: None,
            }));
        };
        if !self
            .allowed_subjects
            .iter()
            .any(|glob| matches_glob(glob, subject))
        {
            return Err(ExtractError::rejected("subject_not_allowed"));
        }
        Ok(Some(Session::of_subject(subject)))
    }

    /// Compares with every key, so that the time does not tell which came close.
    fn knows(&self, key: &str) -> bool {
        let hash = sha256(key.as_bytes());
        self.hashes.iter().fold(false, |known, one| {
            known | verify_slices_are_equal(one, &hash).is_ok()
        })
    }
}

impl SessionExtractor for ApiKey {
    fn extract<'a>(&'a self, request: &'a Parts) -> BoxFuture<'a, Extracted> {
        ready(self.session(request)).boxed()
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
    use crate::session::backends::Context;
    use crate::session::contract;
    use crate::session::registry::Registry;

    const KEY: &str = "3f1c8a5e0b7d49c2a6e8f0d1b3c5a7e9f1d3b5c7";

    fn extractor(keys: &str) -> Result<Arc<dyn SessionExtractor>, Problems> {
        contract::build(&Registry::builtin(), "api_key", keys, &Context::for_tests())
    }

    fn good() -> Arc<dyn SessionExtractor> {
        let hash: String = sha256(KEY.as_bytes())
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        extractor(&format!(
            "allowed_subjects = [\"user-*\"]\nkeys = {{ backend = \"{hash}\" }}"
        ))
        .unwrap()
    }

    fn answer(headers: &[(&str, &str)]) -> Result<Option<String>, &'static str> {
        match good()
            .extract(&contract::request(headers))
            .now_or_never()
            .expect("no waiting")
        {
            Ok(session) => {
                Ok(session.map(|session| serde_json::to_string(&session.attributes).unwrap()))
            }
            Err(error) => Err(error.word()),
        }
    }

    #[tokio::test]
    async fn keeps_the_contract() {
        contract::check(&*good(), &[KEY]).await;
    }

    #[test]
    fn the_exact_key_asks_for_an_allowed_subject() {
        let user = [("x-api-key", KEY), ("x-rollout-subject", "user-7")];
        assert_eq!(answer(&user), Ok(Some(r#"{"sub":"user-7"}"#.to_owned())));
        assert_eq!(
            answer(&[("x-rollout-subject", "user-7")]),
            Ok(None),
            "a subject alone is nothing"
        );
        assert_eq!(
            answer(&[("x-api-key", KEY)]),
            Ok(Some("{}".to_owned())),
            "nobody asked for"
        );
        let bearer = format!("Bearer {KEY}");
        assert!(
            answer(&[("authorization", &bearer), ("x-rollout-subject", "user-7")])
                .unwrap()
                .is_some()
        );
        assert_eq!(
            answer(&[("authorization", "Bearer a.b.c")]),
            Err("unknown_key")
        );
        let other = [("x-api-key", KEY), ("x-rollout-subject", "admin")];
        assert_eq!(answer(&other), Err("subject_not_allowed"));
        let twin = [
            ("x-api-key", KEY),
            ("x-rollout-subject", "user-7"),
            ("x_rollout_subject", "user-8"),
        ];
        assert_eq!(answer(&twin), Err("ambiguous_identity"));
        let two = [
            ("x-api-key", KEY),
            ("x-rollout-subject", "user-7"),
            ("x-rollout-subject", "user-8"),
        ];
        assert_eq!(answer(&two), Err("ambiguous_identity"));
    }

    #[test]
    fn any_other_key_is_refused() {
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
                assert_eq!(answer(&headers), Err("unknown_key"), "{case} in {name}");
            }
        }
        let nbsp = [
            ("x-api-key", &format!("{KEY}\u{a0}")[..]),
            ("x-rollout-subject", "user-7"),
        ];
        assert_eq!(answer(&nbsp), Err("malformed"));
        let twice = [
            ("x-api-key", KEY),
            ("x-api-key", KEY),
            ("x-rollout-subject", "user-7"),
        ];
        assert_eq!(answer(&twice), Err("duplicate_header"));
    }

    #[test]
    fn an_unknown_bearer_is_not_mine_and_an_unknown_key_elsewhere_is_rejected() {
        let extractor = good();
        let ask = |headers: &[(&str, &str)]| {
            extractor
                .extract(&contract::request(headers))
                .now_or_never()
                .expect("no waiting")
        };
        for bearer in ["Bearer opaque", "Bearer a.b.c"] {
            let answer = ask(&[("authorization", bearer)]);
            assert!(
                matches!(
                    answer,
                    Err(ExtractError::NotMine(_, CredentialSource::Bearer))
                ),
                "{answer:?}"
            );
        }
        let answer = ask(&[("x-api-key", "a.b.c")]);
        assert!(
            matches!(answer, Err(ExtractError::Rejected(_))),
            "{answer:?}"
        );
    }

    #[test]
    fn it_does_not_start_with_a_key_in_plain_or_a_default_one() {
        let changeme: String = sha256(b"changeme")
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        for (case, keys, key) in [
            ("no keys", "", "keys"),
            ("plain", "keys = { a = \"hunter2\" }", "keys.a"),
            (
                "default",
                &format!("keys = {{ a = \"{changeme}\" }}"),
                "keys.a",
            ),
        ] {
            let problems = extractor(keys).map(|_| ()).expect_err(case).to_string();
            assert!(
                problems.contains(&format!("extractors.api_key.{key}:")),
                "{case}: {problems}"
            );
            assert!(!problems.contains("hunter2"), "{case}");
        }
    }
}
