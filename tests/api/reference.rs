//! Compares `docs/` with the code: the generated parts are up to date, and the other parts cover every error code, path
//! and member of the token response.

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
fn every_error_code_has_a_heading_in_errors_md() {
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
        "errors.md must have one heading for each error code"
    );
}

#[tokio::test]
async fn api_md_documents_every_path_and_token_response_member() {
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
    let document = include_bytes!("../../src/http/routes/openapi.json");
    assert!(
        !rollout_token::json::Value::parse(document)
            .unwrap()
            .has_duplicates()
    );
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
