//! What the tests of several kinds do: build an extractor at a fixed time, and ask it.
//! What every extractor has to pass is in `contract.rs`.

use std::sync::Arc;

use futures_util::FutureExt;

use crate::clock::{Clock, ManualClock, UnixSeconds};
use crate::config::Problems;
use crate::session::backends::Context;
use crate::session::contract;
use crate::session::registry::Registry;
use crate::session::types::{Extracted, SessionExtractor};

pub const NOW: UnixSeconds = 1_800_000_000;

/// An extractor of `kind` whose clock stands still.
pub(in crate::session) fn build(
    kind: &str,
    keys: &str,
) -> Result<Arc<dyn SessionExtractor>, Problems> {
    build_at(NOW, kind, keys)
}

/// The same at another time.
pub(in crate::session) fn build_at(
    now: UnixSeconds,
    kind: &str,
    keys: &str,
) -> Result<Arc<dyn SessionExtractor>, Problems> {
    let context = Context::new(Clock::new(ManualClock::at(now)), Arc::default());
    contract::build(&Registry::builtin(), kind, keys, &context)
}

/// What an extractor with these keys says at that time about a cookie, `NAME=VALUE`.
pub(in crate::session) fn extract_at(
    now: UnixSeconds,
    kind: &str,
    keys: &str,
    cookie: &str,
) -> Extracted {
    let extractor = build_at(now, kind, keys).expect("good keys");
    extractor
        .extract(&contract::request(&[("cookie", cookie)]))
        .now_or_never()
        .expect("no waiting")
}

/// The word of a refusal.
pub(in crate::session) fn word(extracted: Extracted) -> &'static str {
    extracted.expect_err("a refusal").word()
}

/// The attributes of the session as JSON, or the word of the refusal.
pub(in crate::session) fn answer(
    extractor: &dyn SessionExtractor,
    headers: &[(&str, &str)],
) -> Result<Option<String>, &'static str> {
    match extractor
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

/// Checks that every case is refused with a line for its key and without the secret in it.
pub(in crate::session) fn refused(kind: &str, cases: &[(&str, &str, &str)]) {
    for (case, keys, key) in cases {
        let problems = build(kind, keys).map(|_| ()).expect_err(case).to_string();
        assert!(
            problems.contains(&format!("extractors.{kind}.{key}:")),
            "{case}: {problems}"
        );
        assert!(!problems.contains("hunter2"), "{case}: {problems}");
    }
}

/// Checks that every case is refused with one line, which begins with its key and says what to mend.
pub(in crate::session) fn mended(kind: &str, cases: &[(&str, &str, &str)]) {
    for (case, keys, line) in cases {
        let problems = build(kind, keys).map(|_| ()).expect_err(case).to_string();
        assert!(
            problems.starts_with(&format!("extractors.{kind}.{line}")),
            "{case}: {problems}"
        );
        assert_eq!(problems.lines().count(), 1, "{case}: {problems}");
    }
}

/// A file that looks like a certificate.
pub(in crate::session) fn broken_certificate() -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(
        file.path(),
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    )
    .unwrap();
    file
}
