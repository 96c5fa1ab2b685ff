//! Every session vector against the configuration that a user would write for it.
//! The mapping from a case to that configuration is in `common/vectors.rs`.

#![expect(clippy::expect_used, reason = "tests say what they expect by panicking")]

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;

use common::vectors::{Case, Outcome, load};
use rollout_token::clock::{Clock, ManualClock};
use rollout_token::config::{Sources, load as load_config};
use rollout_token::extractors::shared::http::HttpClient;
use rollout_token::extractors::{Context, Denial, Registry, contract};
use rollout_token::metrics::Metrics;

async fn run(case: &Case, section: toml::Table) -> Outcome {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("rollout.toml");
    let mut config: toml::Table = toml::from_str("session.extractors = [\"web\"]").expect("TOML");
    config
        .insert("extractors".to_owned(), toml::Table::from_iter([("web".to_owned(), section.into())]).into());
    std::fs::write(&file, config.to_string()).expect("a file");
    let environment = BTreeMap::from([
        ("ROLLOUT_CLIENT_ID".to_owned(), "client".to_owned()),
        ("ROLLOUT_CLIENT_SECRET".to_owned(), "c".repeat(64)),
    ]);
    let context = Context {
        clock: Clock::new(ManualClock::at(case.now)),
        metrics: Arc::new(Metrics::new()),
        http: HttpClient::default(),
        dev: false,
    };
    let sources = Sources { base: None, files: vec![file], environment };
    // A configuration that the service refuses lets nobody in.
    let Ok(settings) = load_config(&sources, &Registry::builtin(), &context) else {
        return Outcome::Rejected;
    };
    let headers = case.headers();
    let headers: Vec<(&str, &str)> =
        headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    match settings.chain.authenticate(&contract::request(&headers)).await {
        Ok(authenticated) => Outcome::Authenticated(authenticated.subject.to_string()),
        Err(denied) if denied.extractor.is_none() => Outcome::NotApplicable,
        Err(denied) => match denied.denial {
            Denial::Nobody(_) | Denial::Rejected(_) => Outcome::Rejected,
            Denial::Unavailable(_) => Outcome::Unavailable,
        },
    }
}

async fn check_all(family: &str) {
    let mut wrong = Vec::new();
    let cases = load(family);
    for case in &cases {
        let directory = tempfile::tempdir().expect("a directory");
        let outcome = run(case, case.jwt_section(directory.path())).await;
        if !case.expectation().allows(&outcome) {
            wrong.push(format!("{}: {outcome:?}", case.name));
        }
    }
    assert!(!cases.is_empty());
    assert!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

#[tokio::test]
async fn jwt() {
    check_all("jwt").await;
}

#[tokio::test]
async fn idp_shapes() {
    check_all("idp-shapes").await;
}
