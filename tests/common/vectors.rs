//! The session vectors of `tests/vectors/`: how a case's configuration is written for this service,
//! what its request holds, and which outcomes are right. Running a case is the caller's business.

use std::path::Path;

use serde_json::Value;

/// One file of vectors.
#[derive(serde::Deserialize)]
pub struct Family {
    pub cases: Vec<Case>,
}

/// One request, the configuration it meets, and what must come of it.
#[derive(serde::Deserialize)]
pub struct Case {
    pub name: String,
    pub config: Value,
    pub request: Request,
    pub now: i64,
    expect: Value,
}

#[derive(serde::Deserialize)]
pub struct Request {
    #[serde(default)]
    cookies: serde_json::Map<String, Value>,
    #[serde(default)]
    headers: serde_json::Map<String, Value>,
}

/// What came of a case.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    Authenticated(String),
    Rejected,
    NotApplicable,
    /// Never right: everything that a case needs is in its configuration.
    Unavailable,
}

/// Which outcomes of a case are right.
pub struct Expectation {
    outcomes: Vec<String>,
    subject: Option<String>,
}

pub fn load(family: &str) -> Vec<Case> {
    let path = format!("{}/tests/vectors/{family}.json", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(path).expect("a file of vectors");
    serde_json::from_str::<Family>(&text).expect("vectors").cases
}

impl Expectation {
    pub fn allows(&self, outcome: &Outcome) -> bool {
        let (word, subject) = match outcome {
            Outcome::Authenticated(subject) => ("authenticated", Some(subject)),
            Outcome::Rejected => ("rejected", None),
            Outcome::NotApplicable => ("not_applicable", None),
            Outcome::Unavailable => return false,
        };
        self.outcomes.iter().any(|known| known == word)
            && subject.is_none_or(|subject| self.subject.as_ref() == Some(subject))
    }
}

impl Case {
    pub fn expectation(&self) -> Expectation {
        let also = self.expect["also_acceptable"].as_array().cloned().unwrap_or_default();
        let outcomes = std::iter::once(&self.expect["outcome"]).chain(&also).filter_map(Value::as_str);
        let subject =
            ["subject", "subject_if_authenticated"].into_iter().find_map(|key| self.expect.get(key));
        Expectation {
            outcomes: outcomes.map(str::to_owned).collect(),
            subject: subject.map(|subject| subject.as_str().map_or(subject.to_string(), str::to_owned)),
        }
    }

    /// The request's headers, with its cookies as one of them.
    pub fn headers(&self) -> Vec<(String, String)> {
        let text = |value: &Value| value.as_str().expect("text").to_owned();
        let mut headers: Vec<_> =
            self.request.headers.iter().map(|(name, value)| (name.clone(), text(value))).collect();
        let pairs = self.request.cookies.iter().map(|(name, value)| format!("{name}={}", text(value)));
        let cookies = pairs.collect::<Vec<_>>().join("; ");
        if !cookies.is_empty() {
            headers.push(("cookie".to_owned(), cookies));
        }
        headers
    }

    /// The keys of a `jwt` section for this case. Its JWK set goes into a file in `directory`.
    pub fn jwt_section(&self, directory: &Path) -> toml::Table {
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
        let places: Vec<&str> = list(places).into_iter().map(place).collect();
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
