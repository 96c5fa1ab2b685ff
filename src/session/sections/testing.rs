//! Helpers for the kinds' tests: they build an extractor at a fixed time and run it. `contract.rs` contains the checks
//! that every extractor has to pass.

use std::sync::Arc;

use futures_util::FutureExt;

use crate::clock::{Clock, ManualClock, UnixSeconds};
use crate::config::Problems;
use crate::session::backends::Context;
use crate::session::contract;
use crate::session::registry::Registry;
use crate::session::types::{Extracted, SessionExtractor};

pub const NOW: UnixSeconds = 1_800_000_000;

/// Builds an extractor of `kind` with the clock at [`NOW`].
pub(in crate::session) fn build(
    kind: &str,
    keys: &str,
) -> Result<Arc<dyn SessionExtractor>, Problems> {
    build_at(NOW, kind, keys)
}

/// Like [`build`], at another time.
pub(in crate::session) fn build_at(
    now: UnixSeconds,
    kind: &str,
    keys: &str,
) -> Result<Arc<dyn SessionExtractor>, Problems> {
    let context = Context::new(Clock::new(ManualClock::at(now)), Arc::default());
    contract::build(&Registry::builtin(), kind, keys, &context)
}

/// The outcome of an extractor with these keys at this time, for a request with the cookie `NAME=VALUE`.
pub(in crate::session) fn extract_at(
    now: UnixSeconds,
    kind: &str,
    keys: &str,
    cookie: &str,
) -> Extracted {
    let extractor = build_at(now, kind, keys).expect("good keys");
    extract(&*extractor, &[("cookie", cookie)])
}

fn extract(extractor: &dyn SessionExtractor, headers: &[(&str, &str)]) -> Extracted {
    let outcome = extractor
        .extract(&contract::request(headers))
        .now_or_never();
    outcome.expect("an outcome without waiting")
}

/// The reason for the rejection.
pub(in crate::session) fn word(extracted: Extracted) -> &'static str {
    extracted.expect_err("a refusal").reason().as_str()
}

/// The attributes of the session as JSON, or the reason for the rejection.
pub(in crate::session) fn answer(
    extractor: &dyn SessionExtractor,
    headers: &[(&str, &str)],
) -> Result<Option<String>, &'static str> {
    let session = extract(extractor, headers).map_err(|error| error.reason().as_str())?;
    Ok(session.map(|session| serde_json::to_string(&session.attributes).unwrap()))
}

/// Checks that each case reports a problem under its key, and that the report does not contain the secret.
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

/// Checks that each case reports exactly one problem, which begins with this key and message.
pub(in crate::session) fn assert_single_problem(kind: &str, cases: &[(&str, &str, &str)]) {
    for (case, keys, line) in cases {
        let problems = build(kind, keys).map(|_| ()).expect_err(case).to_string();
        assert!(
            problems.starts_with(&format!("extractors.{kind}.{line}")),
            "{case}: {problems}"
        );
        assert_eq!(problems.lines().count(), 1, "{case}: {problems}");
    }
}

/// A PEM file with an unparsable certificate.
pub(in crate::session) fn broken_certificate() -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(
        file.path(),
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    )
    .unwrap();
    file
}
