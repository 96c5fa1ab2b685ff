//! The parts of `docs/` that follow from the code are as `make generate` writes them, and what is written by hand
//! there names everything that the code has.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use reqwest::Method;
use rollout_token::http::error::Error;

use crate::helpers::{BY_HEADER, Service, answer};
use crate::pages;

fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs")
}

#[test]
fn generated_parts_of_the_docs_are_up_to_date() {
    for page in pages::pages() {
        assert!(
            page.generated == page.found,
            "{} differs from the code: run `make generate`, and commit what it writes",
            page.path.display()
        );
    }
}

#[test]
fn every_code_has_its_heading_in_the_docs() {
    let codes: BTreeSet<String> = Error::every()
        .iter()
        .map(|error| error.code().to_owned())
        .collect();
    let page = std::fs::read_to_string(docs().join("errors.md")).unwrap();
    let headings = page.lines().filter(|line| line.starts_with("### "));
    let explained = headings
        .flat_map(|line| line.split('`').skip(1).step_by(2))
        .map(str::to_owned)
        .collect();
    assert_eq!(
        codes, explained,
        "every code has its heading in errors.md, and no other"
    );
}

/// Every word that can stand in the log as `reason` is explained: found in the sources, since nothing lists them.
#[test]
fn reference_of_the_reasons() {
    let mut used = BTreeSet::new();
    let mut spelled = String::new();
    for path in sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src")) {
        let text = std::fs::read_to_string(&path).unwrap();
        let code = text.split("#[cfg(test)]\nmod tests").next().unwrap();
        if path.ends_with("tests.rs")
            || path.ends_with("testing.rs")
            || path.ends_with("contract.rs")
        {
            continue;
        }
        for made in [
            "rejected(\"",
            "unavailable(\"",
            "BadRequest(\"",
            "Nobody(\"",
            "Invalid(\"",
            "Claim(\"",
        ] {
            let words = code
                .split(made)
                .skip(1)
                .filter_map(|rest| rest.split_once("\")"))
                .map(|(word, _)| word);
            used.extend(words.filter(|word| !word.is_empty()).map(str::to_owned));
        }
        spelled.push_str(code);
    }
    let page = std::fs::read_to_string(docs().join("errors.md")).unwrap();
    let (_, table) = page.split_once("\n## Reasons in the log").unwrap();
    let rows = table.lines().filter(|line| line.starts_with("| `"));
    let explained: BTreeSet<String> = rows
        .flat_map(|row| row.split('|').nth(1).unwrap().split('`').skip(1).step_by(2))
        .map(str::to_owned)
        .collect();
    let missing: Vec<_> = used.difference(&explained).collect();
    assert!(
        missing.is_empty(),
        "docs/errors.md does not explain {missing:?}"
    );
    let gone: Vec<_> = explained
        .iter()
        .filter(|word| !spelled.contains(&format!("\"{word}\"")))
        .collect();
    assert!(
        gone.is_empty(),
        "docs/errors.md explains {gone:?}, which the code does not give"
    );
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

#[tokio::test]
async fn reference_of_the_api() {
    let service = Service::start(BY_HEADER);
    let (status, described) = answer(
        service
            .request(Method::GET, "/openapi.json")
            .send()
            .await
            .unwrap(),
    )
    .await;
    assert_eq!(status, 200);
    let page = std::fs::read_to_string(docs().join("api.md")).unwrap();
    for path in described["paths"].as_object().unwrap().keys() {
        assert!(
            page.contains(&format!(" {path}`")),
            "docs/api.md does not name {path}"
        );
    }
    for member in described["components"]["schemas"]["TokenResponse"]["properties"]
        .as_object()
        .unwrap()
        .keys()
    {
        assert!(
            page.contains(&format!("\n| `{member}` |")),
            "docs/api.md does not explain {member}"
        );
    }
}
