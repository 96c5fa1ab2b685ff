//! Tests the configuration on each page of `docs/providers/` with tokens in the format that the provider documents.
//! Only the values that depend on a reader's app are replaced: issuer, audience, other claim values, subject, and keys.

use std::path::Path;
use std::sync::Arc;

use axum::http::Request;
use rollout_token::clock::{Clock, ManualClock};
use rollout_token::session::backends::Context;
use rollout_token::session::registry::Registry;
use rollout_token::telemetry::metrics::Metrics;
use serde_json::Value;
use toml::Table;

use crate::helpers::{client_variables, load_from};

/// A page, the index of a configuration on the page, and the group of tokens that tests this configuration.
const PAGES: [(&str, usize, &str); 15] = [
    ("auth0", 0, "auth0"),
    ("clerk", 0, "clerk-v1"),
    ("clerk", 0, "clerk-v2"),
    ("cognito", 0, "cognito-access"),
    ("edge", 0, "cloudflare-access"),
    ("edge", 1, "google-iap"),
    ("edge", 2, "aws-alb"),
    ("entra", 0, "entra-v2"),
    ("firebase", 0, "firebase-id-token"),
    ("firebase", 1, "firebase-session-cookie"),
    ("keycloak", 0, "keycloak"),
    ("okta", 0, "okta"),
    ("supabase", 0, "supabase-es256"),
    ("supabase", 1, "supabase-hs256"),
    ("workos", 0, "workos"),
];

/// Like [`PAGES`], with the token classes of each provider: session, ID, refresh and machine tokens.
const CLASSES: [(&str, usize, &str); 12] = [
    ("auth0", 0, "auth0"),
    ("clerk", 0, "clerk"),
    ("cognito", 0, "cognito"),
    ("edge", 0, "cloudflare-access"),
    ("edge", 1, "google-iap"),
    ("edge", 2, "aws-alb"),
    ("entra", 0, "entra"),
    ("firebase", 0, "firebase"),
    ("keycloak", 0, "keycloak"),
    ("okta", 0, "okta"),
    ("supabase", 0, "supabase"),
    ("workos", 0, "workos"),
];

#[tokio::test]
async fn provider_page_configuration_accepts_valid_tokens_and_refuses_invalid_ones() {
    check_pages(&PAGES, include_str!("../vectors/idp-shapes.json")).await;
}

#[tokio::test]
async fn provider_page_configuration_accepts_only_tokens_that_are_user_sessions() {
    check_pages(&CLASSES, include_str!("../vectors/idp-token-classes.json")).await;
}

#[test]
fn supabase_page_lists_the_authorization_header_first() {
    for (page, block) in [("supabase", 0), ("supabase", 1)] {
        let table = shown(page, block);
        let section = &table["extractors"]["supabase"];
        assert_eq!(
            section["from"][0].as_str(),
            Some("header:authorization"),
            "{page} {block}"
        );
    }
}

async fn check_pages(pages: &[(&str, usize, &str)], vectors: &str) {
    let vectors: Value = serde_json::from_str(vectors).unwrap();
    let mut faults = Vec::new();
    for &(page, block, provider) in pages {
        let cases = vectors["cases"].as_array().unwrap().iter();
        let cases: Vec<&Value> = cases
            .filter(|case| case["config"]["provider"] == provider)
            .collect();
        let usual = &cases[0]["config"]["subject_path"];
        let (mut taken, mut refused) = (0, 0);
        for case in cases {
            let path = &case["config"]["subject_path"];
            let template = (path != usual).then(|| format!("{{{}}}", text(path)));
            let subject = subject(page, block, template, case).await;
            let (expect, name) = (&case["expect"], &case["name"]);
            match expect["outcome"].as_str().unwrap() {
                "authenticated" if subject.as_deref() == Some(&text(&expect["subject"])) => {
                    taken += 1;
                }
                // The result depends on settings outside the page's configuration, so both results are allowed.
                _ if !expect["also_acceptable"].is_null() => {}
                "authenticated" => {
                    faults.push(format!(
                        "{name}: the subject is {subject:?}, not {}",
                        expect["subject"]
                    ));
                }
                _ if subject.is_none() => refused += 1,
                _ => faults.push(format!(
                    "{name} must be refused, but is accepted as {subject:?}"
                )),
            }
        }
        if taken == 0 || refused == 0 {
            faults.push(format!(
                "{page}: too few cases: {taken} accepted, {refused} refused"
            ));
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

/// The subject that results from the page's configuration; `None` if the case gets no subject. If `template` is `None`,
/// the page's own template is used.
async fn subject(
    page: &str,
    block: usize,
    template: Option<String>,
    case: &Value,
) -> Option<String> {
    let folder = tempfile::tempdir().unwrap();
    let configuration = folder.path().join("page.toml");
    let table = configured(page, block, template, &case["config"], folder.path());
    std::fs::write(&configuration, table.to_string()).unwrap();
    let clock = Clock::new(ManualClock::at(case["now"].as_i64().unwrap()));
    let context = Context::new(clock, Arc::new(Metrics::new()));
    let settings = load_from(
        vec![configuration],
        client_variables(),
        &Registry::builtin(),
        &context,
    );
    let settings = settings.unwrap_or_else(|problems| panic!("{page}: {problems}"));
    let mut request = Request::builder();
    for (name, value) in case["request"]["headers"].as_object().into_iter().flatten() {
        request = request.header(name, value.as_str().unwrap());
    }
    for (name, value) in case["request"]["cookies"].as_object().into_iter().flatten() {
        request = request.header("cookie", format!("{name}={}", value.as_str().unwrap()));
    }
    let (head, ()) = request.body(()).unwrap().into_parts();
    settings
        .chain
        .authenticate(settings.chain.walk(&head))
        .await
        .ok()
        .map(|user| user.subject.to_string())
}

/// The TOML block with the index `block` on the page.
fn shown(page: &str, block: usize) -> Table {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("docs/providers/{page}.md"));
    let text = std::fs::read_to_string(page).unwrap();
    let toml = text
        .split("```toml\n")
        .nth(block + 1)
        .unwrap()
        .split("```")
        .next()
        .unwrap();
    toml.parse().unwrap()
}

/// The page's configuration with the case's values in place of the page's examples.
fn configured(
    page: &str,
    block: usize,
    template: Option<String>,
    case: &Value,
    folder: &Path,
) -> Table {
    let mut table = shown(page, block);
    let sections = table["extractors"].as_table_mut().unwrap();
    let section = sections
        .iter_mut()
        .next()
        .unwrap()
        .1
        .as_table_mut()
        .unwrap();
    for (ours, theirs) in [("issuers", "issuer"), ("audiences", "audience")] {
        if let (Some(list), Some(value)) = (section.get_mut(ours), case[theirs].as_str()) {
            *list = vec![value].into();
        }
    }
    for checks in ["claims", "header_claims"] {
        let Some(shown) = section.get_mut(checks).and_then(toml::Value::as_table_mut) else {
            continue;
        };
        // Remove the page's rules for claims for which the case has no rule, so that the preset's rules apply.
        shown.retain(|claim, _| !case[checks][claim].is_null());
        for (claim, value) in shown.iter_mut() {
            let theirs = &case[checks][claim.as_str()];
            let theirs = theirs.get("absent_or").unwrap_or(theirs);
            *value = theirs
                .as_str()
                .unwrap_or_else(|| panic!("no {claim} in {case}"))
                .into();
        }
    }
    if let Some(template) = template {
        section.insert("subject".to_owned(), template.into());
    }
    section.remove("jwks_url");
    if section.remove("secret_file").is_some() {
        section.insert(
            "secret".to_owned(),
            case["hs_secret"].as_str().unwrap().into(),
        );
    } else {
        let keys = folder.join("jwks.json");
        std::fs::write(&keys, case["jwks"].to_string()).unwrap();
        section.insert("jwks_file".to_owned(), keys.to_str().unwrap().into());
    }
    table
}

fn text(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}
