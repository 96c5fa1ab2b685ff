//! Sessions of real libraries and providers (`tests/vectors/`), each sent through the front door to a
//! service that is configured as a user would configure it, at the case's own time.

use std::path::Path;

use serde_json::Value;

use crate::helpers::{Service, verified};

/// One file of vectors.
#[derive(serde::Deserialize)]
struct Family {
    cases: Vec<Case>,
}

/// One request, the configuration it meets, and what must come of it.
#[derive(serde::Deserialize)]
struct Case {
    name: String,
    config: Value,
    request: Request,
    now: i64,
    expect: Value,
}

#[derive(serde::Deserialize)]
struct Request {
    #[serde(default)]
    cookies: serde_json::Map<String, Value>,
    #[serde(default)]
    headers: serde_json::Map<String, Value>,
}

/// What came of a case.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Authenticated(String),
    Rejected,
    NotApplicable,
}

fn load(family: &str) -> Vec<Case> {
    let path = format!("{}/tests/vectors/{family}.json", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(path).expect("a file of vectors");
    serde_json::from_str::<Family>(&text).expect("vectors").cases
}

/// Sends a case's request to a service with this section for its only extractor.
async fn run(case: &Case, section: toml::Table) -> Outcome {
    let mut config: toml::Table = toml::from_str("session.extractors = [\"web\"]").expect("TOML");
    let sections = toml::Table::from_iter([("web".to_owned(), section.into())]);
    config.insert("extractors".to_owned(), sections.into());
    // A configuration that the service refuses lets nobody in.
    let Ok(service) = Service::try_start(&config.to_string()) else { return Outcome::Rejected };
    service.clock.set(case.now);

    let answer = service.raw(case.raw_request().as_bytes()).await;
    let status = answer.split(' ').nth(1).unwrap_or_default();
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    let body: Value = serde_json::from_str(body).unwrap_or_else(|_| panic!("{}: {answer}", case.name));
    match (status, body["code"].as_str()) {
        ("200", None) => {
            let claims = verified(&body);
            Outcome::Authenticated(claims["sub"].as_str().expect("sub is text").to_owned())
        }
        // `no_session` is also the answer to a session in which nobody is signed in; the metric's label
        // tells whether an extractor decided.
        ("401", Some("no_session")) if service.metrics().await.contains("extractor=\"none\"") => {
            Outcome::NotApplicable
        }
        // A token that is longer than a header may be never gets to an extractor.
        ("401" | "431", Some(_)) => Outcome::Rejected,
        _ => panic!("{}: {answer}", case.name),
    }
}

async fn check_all(family: &str) {
    let cases = load(family);
    let mut wrong = Vec::new();
    for case in &cases {
        let directory = tempfile::tempdir().expect("a directory");
        let outcome = run(case, case.jwt_section(directory.path())).await;
        if !case.allows(&outcome) {
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
async fn supabase_ssr() {
    check_all("supabase-ssr").await;
}

#[tokio::test]
async fn idp_shapes() {
    check_all("idp-shapes").await;
}

impl Case {
    fn allows(&self, outcome: &Outcome) -> bool {
        let (word, subject) = match outcome {
            Outcome::Authenticated(subject) => ("authenticated", Some(subject)),
            Outcome::Rejected => ("rejected", None),
            Outcome::NotApplicable => ("not_applicable", None),
        };
        let also = self.expect["also_acceptable"].as_array().cloned().unwrap_or_default();
        let expected = |subject: &String| {
            let keys = ["subject", "subject_if_authenticated"];
            let want = keys.into_iter().find_map(|key| self.expect.get(key)).expect("a subject");
            want.as_str().map_or(want.to_string(), str::to_owned) == *subject
        };
        (self.expect["outcome"] == word || also.iter().any(|known| known == word))
            && subject.is_none_or(expected)
    }

    /// The request as it goes over the wire.
    fn raw_request(&self) -> String {
        let text = |value: &Value| value.as_str().expect("text").to_owned();
        let headers = self.request.headers.iter().map(|(name, value)| format!("{name}: {}\r\n", text(value)));
        let mut request =
            "POST /rollout/token HTTP/1.1\r\nHost: app.example\r\nConnection: close\r\n".to_owned();
        request.extend(headers);
        let cookies = self.request.cookies.iter().map(|(name, value)| format!("{name}={}", text(value)));
        let cookies = cookies.collect::<Vec<_>>().join("; ");
        if !cookies.is_empty() {
            request = request + "Cookie: " + &cookies + "\r\n";
        }
        request + "\r\n"
    }

    /// The keys of a `jwt` section for this case. Its JWK set goes into a file in `directory`.
    fn jwt_section(&self, directory: &Path) -> toml::Table {
        let config = &self.config;
        let mut keys = toml::Table::from_iter([("kind".to_owned(), "jwt".into())]);
        let preset = config["provider"].as_str().map(preset);
        if let Some(preset) = preset {
            keys.insert("preset".to_owned(), preset.into());
        }
        if config["jwks"].is_object() {
            let file = directory.join("jwks.json");
            std::fs::write(&file, config["jwks"].to_string()).expect("a file for the keys");
            keys.insert("jwks_file".to_owned(), file.display().to_string().into());
        }
        if let Some(secret) = config["hs_secret"].as_str() {
            keys.insert("secret".to_owned(), secret.into());
        }
        keys.insert("algorithms".to_owned(), list(&config["algorithms"]).into());
        keys.insert("leeway".to_owned(), format!("{}s", config["leeway"]).into());
        if !config["issuer"].is_null() {
            keys.insert("issuers".to_owned(), list(&config["issuer"]).into());
        }
        if !config["audience"].is_null() {
            keys.insert("audiences".to_owned(), list(&config["audience"]).into());
        } else if preset.is_none() {
            keys.insert("allow_any_audience".to_owned(), true.into());
        }
        for name in ["claims", "header_claims"] {
            if config[name].is_object() {
                keys.insert(name.to_owned(), toml::Value::try_from(&config[name]).expect("rules"));
            }
        }
        let places = if config["locations"].is_array() { &config["locations"] } else { &config["location"] };
        let places: Vec<String> = match config["cookie_name"].as_str() {
            Some(cookie) => vec![format!("supabase:{cookie}")],
            None => list(places).into_iter().map(place).map(str::to_owned).collect(),
        };
        keys.insert("from".to_owned(), places.into());
        // A preset's own subject is left alone where it is the one the case asks for.
        let path = config["subject_path"].as_str().expect("a path");
        let own = match preset {
            Some("entra") => "/oid",
            Some("okta") => "/uid",
            _ => "/sub",
        };
        if path != own {
            keys.insert("subject".to_owned(), format!("{{{path}}}").into());
        }
        keys
    }
}

/// The preset for a provider of the vectors, whose names also tell its token formats apart.
fn preset(provider: &str) -> &str {
    const PRESETS: [&str; 12] = [
        "auth0",
        "aws-alb",
        "clerk",
        "cloudflare-access",
        "cognito",
        "entra",
        "firebase",
        "google-iap",
        "keycloak",
        "okta",
        "supabase",
        "workos",
    ];
    PRESETS.into_iter().find(|preset| provider.starts_with(preset)).expect("a preset for the provider")
}

/// One text or a list of them, as a list.
fn list(value: &Value) -> Vec<&str> {
    match value {
        Value::Array(items) => items.iter().filter_map(Value::as_str).collect(),
        one => vec![one.as_str().expect("text")],
    }
}

/// The vectors write `authorization` for the bearer token.
fn place(place: &str) -> &str {
    if place == "authorization" { "header:authorization" } else { place }
}
