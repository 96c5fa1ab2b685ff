//! Checks the result of `detect` for every valid request in `tests/vectors/`, without a secret, a store or the name of
//! the framework. The cookie of a stored session does not show which store contains the session, so a result is right
//! if one of its drafts is for that store.

use std::collections::{BTreeMap, BTreeSet};

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use rollout_token::session::Registry;
use rollout_token::session::detect::{Confidence, Detected, DraftKey, detect};

use crate::helpers::Service;
use crate::vectors::{Case, directory, join, load};

/// The kind and preset that read the case's session.
fn expected(case: &Case, files: &std::path::Path) -> (String, Option<String>) {
    let url = match case.text("scheme") {
        "express-session" | "better-auth" if case.config["store"] == "redis" => {
            Some("redis://localhost")
        }
        "express-session" | "better-auth" | "django-db" | "authjs-database" => {
            Some("postgres://localhost/app")
        }
        "laravel" if case.config["driver"] != "cookie" => Some("mysql://localhost/app"),
        _ => None,
    };
    let section = case.section(url, files);
    let text = |key: &str| section.get(key).and_then(|value| value.as_str());
    let preset = match case.text("scheme") {
        // The vectors use no preset for this case, but `detect` drafts the preset `supabase`, which is stricter.
        "supabase-ssr" => Some("supabase"),
        _ => text("preset"),
    };
    (
        text("kind").expect("a kind").to_owned(),
        preset.map(str::to_owned),
    )
}

fn headers(case: &Case) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in &case.request.headers {
        let name = HeaderName::from_bytes(name.as_bytes()).expect("a header name");
        headers.append(
            name,
            HeaderValue::from_bytes(value.as_bytes()).expect("a value"),
        );
    }
    let cookies = join(&case.cookies());
    if !cookies.is_empty() {
        headers.append(header::COOKIE, cookies.parse().expect("a value"));
    }
    headers
}

/// Every valid case, with the first result of `detect`.
fn genuine() -> Vec<(String, Case, Option<Detected>)> {
    let registry = Registry::builtin();
    let mut found = Vec::new();
    let files = std::fs::read_dir(directory()).expect("vectors");
    let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
    let mut families: Vec<String> = names
        .filter_map(|name| name.strip_suffix(".json").map(str::to_owned))
        .collect();
    families.sort();
    for family in families {
        for case in load(&family) {
            if case.expect["outcome"] != "authenticated" {
                continue;
            }
            let detected = detect(&headers(&case), &registry).into_iter().next();
            found.push((format!("{family}: {}", case.name), case, detected));
        }
    }
    found
}

#[test]
fn detect_is_right_for_at_least_97_percent_and_certain_but_wrong_for_at_most_0_3_percent() {
    let files = tempfile::tempdir().expect("a directory");
    let all = genuine();
    let (mut right, mut wrong_and_certain) = (0, 0);
    let mut wrong = Vec::new();
    for (name, case, detected) in &all {
        let (kind, preset) = expected(case, files.path());
        let seen = detected.as_ref();
        // The cookie does not show which store contains the session, so `detect` drafts a section for each store, with
        // the likelier store first. The right store may be any of them, but must be the first if the result is certain.
        let is_right = seen.is_some_and(|seen| {
            let draft = seen.drafts.iter().find(|draft| draft.kind == kind);
            draft.is_some_and(|draft| draft.preset == preset.as_deref())
        });
        let is_first = seen.is_some_and(|seen| seen.kinds.first() == Some(&kind.as_str()));
        right += usize::from(is_right);
        if !is_right || !is_first {
            let certain = seen.is_some_and(|seen| seen.confidence == Confidence::Certain);
            wrong_and_certain += usize::from(certain);
        }
        if !is_right {
            let seen = seen.map(|seen| (&seen.place, &seen.kinds, seen.preset, seen.confidence));
            wrong.push(format!(
                "{name}: expected {kind} {preset:?}, found {seen:?}"
            ));
        }
    }
    println!(
        "{right} of {} results are right, {wrong_and_certain} are certain but wrong",
        all.len()
    );
    assert!(
        right * 100 >= all.len() * 97 && wrong_and_certain * 1000 <= all.len() * 3,
        "{right} of {} results are right, {wrong_and_certain} are certain but wrong:\n{}",
        all.len(),
        wrong.join("\n")
    );
}

#[test]
fn h3_sealed_session_is_detected_in_a_header_and_in_a_chunked_cookie() {
    let registry = Registry::builtin();
    for (name, place) in [
        ("h3-v1-header", "header:x-nuxt-session-session"),
        ("h3-v2-chunks", "cookie:h3"),
        ("h3-v2-old-chunk-left", "cookie:h3"),
    ] {
        let case = load("iron-raw").into_iter().find(|it| it.name == name);
        let found = detect(&headers(&case.expect(name)), &registry);
        let seen: Vec<_> = found
            .iter()
            .map(|it| (&*it.place, &*it.kinds, it.confidence, it.page))
            .collect();
        let want: (_, &[&str], _, _) = (
            place,
            &["iron_session"],
            Confidence::Certain,
            "docs/recipes/h3.md",
        );
        assert_eq!(seen, [want], "{name}");
    }
}

#[tokio::test]
async fn every_section_drafted_by_detect_is_valid_once_its_secrets_are_set() {
    let mut seen = BTreeSet::new();
    let mut refused = BTreeMap::new();
    let secret = |key: &DraftKey| {
        let value = match &*key.name {
            "app_key" => "base64:eI5d8RkzVWrk4l5UREkGvTjUwS4L3a3y7MAR4DpRHyw=",
            _ => "5b1f2c9e7d3a48f6b0c2e4d6f8a1b3c5d7e9f0a2b4c6d8e0f1a3b5c7d9e1f3a5",
        };
        Some(format!("{} = {value:?}", key.name))
    };
    for (name, _, detected) in genuine() {
        for draft in detected.iter().flat_map(|detected| &detected.drafts) {
            let text = draft.to_toml(secret);
            if seen.insert(text.clone())
                && let Err(problems) = Service::try_start(&text)
            {
                refused.insert(text, format!("{name}: {problems}"));
            }
        }
    }
    assert!(seen.len() > 30 && refused.is_empty(), "{refused:#?}");
}
