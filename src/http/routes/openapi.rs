//! `GET /openapi.json`: the API description (`OpenAPI` 3.1). The document is a file in the repository; the tests below
//! compare it with the types and errors in the code.

use std::borrow::Cow;
use std::sync::Arc;

use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;

use crate::http::app::App;

const DOCUMENT: &str = include_str!("openapi.json");

/// The member that contains the base URL of the paths. The probes are not below the base path, so they have their own
/// `servers` member.
const SERVERS: &str = r#""servers": [{"url": "/"}]"#;

pub async fn openapi(State(app): State<Arc<App>>) -> impl IntoResponse {
    let document = if app.base_path.is_empty() {
        DOCUMENT.into()
    } else {
        let servers = format!(r#""servers": [{{"url": "{}"}}]"#, app.base_path);
        Cow::Owned(DOCUMENT.replacen(SERVERS, &servers, 1))
    };
    ([(header::CONTENT_TYPE, "application/json")], document)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use serde::Serialize;
    use serde_json::Value;

    use super::DOCUMENT;
    use crate::http::error::Error;
    use crate::http::readiness::{InstanceState, Report};
    use crate::http::routes::{health, token};

    fn document() -> Value {
        serde_json::from_str(DOCUMENT).unwrap()
    }

    #[test]
    fn document_version_is_the_package_version() {
        assert_eq!(document()["info"]["version"], env!("CARGO_PKG_VERSION"));
    }

    #[test]
    fn every_reference_in_the_document_resolves() {
        let document = document();
        let references = DOCUMENT.split("\"$ref\": \"#").skip(1);
        let mut pointers = references
            .map(|reference| reference.split('"').next().unwrap())
            .peekable();
        assert!(pointers.peek().is_some());
        for pointer in pointers {
            assert!(document.pointer(pointer).is_some(), "{pointer}");
        }
    }

    #[test]
    fn every_error_is_described_with_its_http_status_error_code_and_header() {
        let mut codes: BTreeMap<u64, BTreeSet<String>> = BTreeMap::new();
        let document = document();
        for response in document["components"]["responses"]
            .as_object()
            .unwrap()
            .values()
        {
            let schema = &response["content"]["application/problem+json"]["schema"]["allOf"][1]["properties"];
            let status = schema["status"]["const"].as_u64().unwrap();
            let listed = schema["code"]["enum"].as_array().unwrap();
            let listed = listed.iter().map(|code| code.as_str().unwrap().to_owned());
            codes.entry(status).or_default().extend(listed);
            for error in Error::every()
                .iter()
                .filter(|error| u64::from(error.status().as_u16()) == status)
            {
                let name = error.header().map(|name| name.to_string());
                let headers = response["headers"].as_object().unwrap();
                let has = |name: &str| {
                    headers
                        .keys()
                        .any(|header| header.eq_ignore_ascii_case(name))
                };
                assert!(
                    name.as_deref().is_none_or(has),
                    "{}: {name:?}",
                    error.code()
                );
            }
        }
        let mut expected: BTreeMap<u64, BTreeSet<String>> = BTreeMap::new();
        for error in Error::every() {
            expected
                .entry(error.status().as_u16().into())
                .or_default()
                .insert(error.code().to_owned());
        }
        assert_eq!(codes, expected);
    }

    #[test]
    fn only_the_readiness_probe_answers_draining() {
        let document = document();
        for (path, methods) in document["paths"].as_object().unwrap() {
            for method in methods.as_object().unwrap().values() {
                let Some(reference) = method["responses"]["503"]["$ref"].as_str() else {
                    continue;
                };
                let response = document.pointer(reference.trim_start_matches('#')).unwrap();
                let is_listed = response.to_string().contains("\"draining\"");
                assert_eq!(is_listed, path == "/readyz", "{path}");
            }
        }
    }

    fn assert_describes(schema: &str, sample: impl Serialize) {
        let document = document();
        let described = document["components"]["schemas"][schema]["properties"]
            .as_object()
            .unwrap();
        let sample = serde_json::to_value(sample).unwrap();
        for field in sample.as_object().unwrap().keys() {
            assert!(
                described.contains_key(field),
                "{schema} does not describe {field}"
            );
        }
        let required = document["components"]["schemas"][schema]["required"]
            .as_array()
            .unwrap();
        for field in required.iter().map(|field| field.as_str().unwrap()) {
            assert!(
                sample.get(field).is_some(),
                "{schema} requires {field}, which is not sent"
            );
        }
    }

    #[test]
    fn schemas_describe_the_types_that_are_sent() {
        assert_describes("TokenResponse", token::tests::sample());
        assert_describes("Alive", health::Alive { status: "ok" });
        assert_describes("Report", Report::of(InstanceState::Draining));
        assert_describes("Problem", Error::NotFound.problem("id"));
    }
}
