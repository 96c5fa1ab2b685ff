//! `GET /openapi.json`: the API's description (`OpenAPI` 3.1), made from the types and errors that answer.
//! What they say is with them.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use axum::Json;
use axum::http::{HeaderName, StatusCode, header};
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::{health, token};
use crate::http::error::{Error, Problem};

pub async fn openapi() -> Json<&'static Value> {
    static DOCUMENT: OnceLock<Value> = OnceLock::new();
    Json(DOCUMENT.get_or_init(document))
}

fn document() -> Value {
    // JSON Schema 2020-12 is what OpenAPI 3.1 is made of; its definitions have their own place there.
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
    });
    let mut schemas = settings.into_generator();
    let token = schemas.subschema_for::<token::TokenResponse>();
    let alive = schemas.subschema_for::<health::Alive>();
    let report = schemas.subschema_for::<health::Report>();
    let problem = schemas.subschema_for::<Problem<'static>>();

    let errors = errors_by_status(&json!(problem));
    let only = |statuses: &[u16]| {
        let wanted = |(status, _): &(&u16, &Value)| statuses.contains(status);
        errors.iter().filter(wanted).map(|(status, answer)| (status.to_string(), answer.clone())).collect()
    };
    let anywhere: Map<String, Value> = only(&[400, 403, 408, 413, 414, 431, 500, 503]);
    let anything: Map<String, Value> = only(&[400, 401, 403, 404, 405, 408, 413, 414, 429, 431, 500, 503]);
    // 404: the alias may be off.
    let preflighted: Map<String, Value> = only(&[400, 403, 404, 408, 413, 414, 431, 500, 503]);
    let with = |errors: &Map<String, Value>, status: StatusCode, success: Value| {
        let mut answers = errors.clone();
        answers.insert(status.as_u16().to_string(), success);
        answers
    };
    let ask = |summary: &str, id: &str| {
        json!({
            "operationId": id,
            "summary": summary,
            "parameters": [
                parameter("X-Request-Id", "An id of your own for the request: `[A-Za-z0-9._-]{1,64}`, else one is made up"),
            ],
            "description": "Recognises the session in the request (which header or cookie holds it is configured), \
                and answers with a fresh token. The request needs no body; one that is there is not looked at.",
            "security": [{}, {"bearer": []}],
            "responses": with(&anything, StatusCode::OK, success("A token", &json!(token))),
        })
    };
    let look = |summary: &str, id: &str, answer: Value| {
        json!({
            "operationId": id, "summary": summary,
            "responses": with(&anywhere, StatusCode::OK, answer),
        })
    };
    let preflight = |id: &str| {
        json!({
            "operationId": id,
            "summary": "The methods that are allowed, and a browser's preflight before a page of another origin may ask",
            "responses": with(&preflighted, StatusCode::NO_CONTENT, json!({
                "description": "The methods; to pages of allowed origins also what they may send",
                "headers": preflight_headers(),
            })),
        })
    };
    let mut helper = with(&anywhere, StatusCode::OK, module());
    helper.insert("304".to_owned(), json!({"description": "You have it already", "headers": file_headers()}));
    let any_json = json!({"type": "object"});
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "rollout-token",
            "version": env!("CARGO_PKG_VERSION"),
            "description": env!("CARGO_PKG_DESCRIPTION"),
            "license": {"name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "paths": {
            "/rollout/token": {
                "post": ask("A Rollout auth token for the signed-in user", "issueToken"),
                "options": preflight("askToIssueToken"),
            },
            "/rollout-token": {
                "get": ask(
                    "The same, as the snippets in Rollout's docs ask for it, if server.docs_alias is on",
                    "issueTokenAsDocumented",
                ),
                "options": preflight("askToIssueTokenAsDocumented"),
            },
            "/rollout/client.js": {"get": {
                "operationId": "browserHelper",
                "summary": "The browser helper, to import into a page: it asks for tokens, keeps them and renews them",
                "parameters": [parameter("If-None-Match", "The ETag of what you have")],
                "responses": helper,
            }},
            "/healthz": {"get": look("Whether the process is alive", "alive", success("Alive", &json!(alive)))},
            "/readyz": {"get": look(
                "Whether this instance should get requests", "ready", success("Ready", &json!(report)),
            )},
            "/openapi.json": {"get": look("This description", "describe", success("OpenAPI 3.1", &any_json))},
        },
        "components": {
            "schemas": schemas.take_definitions(true),
            "headers": headers(),
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
        },
    })
}

fn success(description: &str, schema: &Value) -> Value {
    json!({
        "description": description,
        "headers": common_headers(),
        "content": {"application/json": {"schema": schema}},
    })
}

fn module() -> Value {
    json!({
        "description": "An ES module",
        "headers": file_headers(),
        "content": {"text/javascript": {"schema": {"type": "string"}}},
    })
}

/// The answers of all errors, those with one status together.
fn errors_by_status(problem: &Value) -> BTreeMap<u16, Value> {
    let mut by_status: BTreeMap<u16, Vec<Error>> = BTreeMap::new();
    for error in Error::every() {
        by_status.entry(error.status().as_u16()).or_default().push(error);
    }
    by_status.into_iter().map(|(status, errors)| (status, answer(&errors, problem))).collect()
}

fn answer(errors: &[Error], problem: &Value) -> Value {
    let mut headers = common_headers();
    for name in errors.iter().filter_map(Error::header) {
        headers.insert(name.to_string(), described(true, purpose(&name)));
    }
    let codes: Vec<&str> = errors.iter().map(Error::code).collect();
    let titles: Vec<String> =
        errors.iter().map(|error| format!("`{}`: {}", error.code(), error.title())).collect();
    json!({
        "description": titles.join(". "),
        "headers": headers,
        "content": {"application/problem+json": {"schema": {
            "allOf": [problem, {"properties": {"code": {"enum": codes}}}],
        }}},
    })
}

/// Every answer's headers with what they say; those of CORS only where the page's origin is allowed.
const COMMON: [(&str, bool, &str); 7] = [
    ("x-request-id", true, "The request's id: the caller's own if it was harmless"),
    ("cache-control", true, "no-store; no-cache for embedded files, which may be kept but not used unasked"),
    ("vary", true, "Always Origin"),
    ("x-content-type-options", true, "Always nosniff"),
    ("access-control-allow-origin", false, "The page's origin, if it is listed in origins.allowed"),
    ("access-control-allow-credentials", false, "true, if the page's origin is listed"),
    ("access-control-expose-headers", false, "X-Request-Id, Retry-After, if the page's origin is listed"),
];

fn headers() -> Map<String, Value> {
    COMMON.iter().map(|(name, required, text)| ((*name).to_owned(), described(*required, text))).collect()
}

fn described(required: bool, description: &str) -> Value {
    json!({"required": required, "description": description, "schema": {"type": "string"}})
}

/// What an error's own header says.
fn purpose(name: &HeaderName) -> &'static str {
    match *name {
        header::RETRY_AFTER => "Seconds after which to ask again",
        header::WWW_AUTHENTICATE => {
            "Bearer, with error=\"invalid_token\" if a credential was there (RFC 6750)"
        }
        _ => "The methods of this path",
    }
}

fn parameter(name: &str, description: &str) -> Value {
    json!({"name": name, "in": "header", "description": description, "schema": {"type": "string"}})
}

fn common_headers() -> Map<String, Value> {
    let reference = |name: &str| json!({"$ref": format!("#/components/headers/{name}")});
    COMMON.iter().map(|(name, ..)| ((*name).to_owned(), reference(name))).collect()
}

fn file_headers() -> Map<String, Value> {
    let mut headers = common_headers();
    headers.insert("etag".to_owned(), described(true, "Names this content"));
    headers
}

fn preflight_headers() -> Map<String, Value> {
    let mut headers = common_headers();
    headers.insert("allow".to_owned(), described(true, "The methods"));
    for name in ["access-control-allow-methods", "access-control-allow-headers", "access-control-max-age"] {
        headers.insert(name.to_owned(), described(false, "To pages of allowed origins"));
    }
    headers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reference_leads_somewhere_and_every_code_is_described() {
        let document = document();
        let text = document.to_string();
        for reference in text.split("\"$ref\":\"#").skip(1) {
            let pointer = reference.split('"').next().unwrap();
            assert!(document.pointer(pointer).is_some(), "{pointer}");
        }
        for code in [
            "bad_request",
            "no_session",
            "session_expired",
            "session_invalid",
            "origin_not_allowed",
            "host_not_allowed",
            "not_found",
            "method_not_allowed",
            "request_timeout",
            "body_too_large",
            "uri_too_long",
            "headers_too_large",
            "rate_limited",
            "internal",
            "session_backend_unavailable",
            "overloaded",
            "draining",
        ] {
            assert!(text.contains(&format!("\"{code}\"")), "{code}");
        }
    }
}
