//! Sessions in stores, as real frameworks left them (`tests/vectors/`): each is loaded into a store and
//! its request sent through the front door of a service that is configured as a user would do it.

use std::collections::BTreeMap;
use std::ops::AsyncFnMut;

use serde_json::Value;

use crate::helpers::{Service, verified};

/// One file of vectors.
#[derive(serde::Deserialize)]
struct Family {
    cases: Vec<Case>,
}

/// One request, the configuration it meets, what is in the store, and what must come of it.
#[derive(serde::Deserialize)]
pub struct Case {
    pub name: String,
    pub config: Value,
    request: Request,
    #[serde(default)]
    pub store: Value,
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
    Authenticated { subject: String, org: Value },
    Rejected,
    NotApplicable,
}

/// How many cases were run, and how many are for another kind or store.
#[derive(Debug, PartialEq, Eq)]
pub struct Count {
    pub run: usize,
    pub skipped: usize,
}

/// Runs a family: `store` is told to hold what a case says, and gives the URL under which it does;
/// `None` if that is not the store for it.
///
/// # Panics
/// If a case comes out otherwise than it must.
pub async fn check_all(family: &str, mut store: impl AsyncFnMut(&Case) -> Option<String>) -> Count {
    let path = format!("{}/tests/vectors/{family}.json", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(path).expect("a file of vectors");
    let cases = serde_json::from_str::<Family>(&text).expect("vectors").cases;

    // Cases of one configuration share a service, and with it the connections to the store.
    let mut services = BTreeMap::new();
    let mut wrong = Vec::new();
    let mut count = Count { run: 0, skipped: 0 };
    for case in &cases {
        let url = if case.is_for_others() { None } else { store(case).await };
        let Some(url) = url else {
            count.skipped += 1;
            continue;
        };
        count.run += 1;
        let config = case.configuration(&url).to_string();
        let service = services.entry(config).or_insert_with_key(|config| Service::start(config));
        let outcome = case.run(service).await;
        if !case.allows(&outcome) {
            wrong.push(format!("{}: {outcome:?}", case.name));
        }
    }
    assert!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
    count
}

impl Case {
    /// The cookie cache of Better Auth is a kind of its own. Whether a password was changed since a
    /// Django session began is told by a table that this kind does not read.
    fn is_for_others(&self) -> bool {
        self.config["scheme"] == "better-auth-cache" || self.config["verify_auth_hash"] == true
    }

    async fn run(&self, service: &Service) -> Outcome {
        service.clock.set(self.now);
        let nobody = not_applicable(service).await;
        let answer = service.raw(self.raw_request().as_bytes()).await;
        let status = answer.split(' ').nth(1).unwrap_or_default();
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        let body: Value = serde_json::from_str(body).unwrap_or_else(|_| panic!("{}: {answer}", self.name));
        match (status, body["code"].as_str()) {
            ("200", None) => {
                let mut claims = verified(&body);
                let subject = claims["sub"].as_str().expect("sub is text").to_owned();
                Outcome::Authenticated { subject, org: claims["org"].take() }
            }
            ("401", Some(_)) if not_applicable(service).await > nobody => Outcome::NotApplicable,
            ("401" | "431", Some(_)) => Outcome::Rejected,
            _ => panic!("{}: {answer}", self.name),
        }
    }

    fn allows(&self, outcome: &Outcome) -> bool {
        // Frameworks take the first or the last of two cookies; SPEC refuses both.
        if self.name.contains("duplicate") {
            return *outcome == Outcome::Rejected;
        }
        let (word, authenticated) = match outcome {
            Outcome::Authenticated { subject, org } => ("authenticated", Some((subject, org))),
            Outcome::Rejected => ("rejected", None),
            Outcome::NotApplicable => ("not_applicable", None),
        };
        let also = self.expect["also_acceptable"].as_array().cloned().unwrap_or_default();
        let expected = |(subject, org): (&String, &Value)| {
            let keys = ["subject", "subject_if_authenticated"];
            let want = keys.into_iter().find_map(|key| self.expect.get(key)).expect("a subject");
            want.as_str().map_or(want.to_string(), str::to_owned) == *subject && self.expect["org"] == *org
        };
        (self.expect["outcome"] == word || also.iter().any(|known| known == word))
            && authenticated.is_none_or(expected)
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

    fn configuration(&self, url: &str) -> toml::Table {
        let mut config: toml::Table =
            toml::from_str("session.extractors = [\"web\"]\nrate_limit.per_subject_per_minute = 0").unwrap();
        let web = toml::Table::from_iter([("web".to_owned(), self.section(url).into())]);
        config.insert("extractors".to_owned(), web.into());
        if let Some(path) = self.config["org_path"].as_str() {
            let claims = toml::Table::from_iter([("org".to_owned(), format!("{{{path}}}").into())]);
            let token = toml::Table::from_iter([("claims".to_owned(), claims.into())]);
            config.insert("token".to_owned(), token.into());
        }
        config
    }

    /// The section that a user would write: a preset, where the store is, and the secrets.
    fn section(&self, url: &str) -> toml::Table {
        let config = &self.config;
        let kind = if url.starts_with("redis") { "redis_session" } else { "sql_session" };
        let (preset, secrets) = match (config["scheme"].as_str().unwrap(), kind) {
            ("express-session", "redis_session") => ("connect-redis", &config["secrets"]),
            ("express-session", _) => ("connect-pg-simple", &config["secrets"]),
            ("django-db", _) => ("django", &Value::Null),
            ("authjs-database", _) => ("authjs-database", &Value::Null),
            ("better-auth", _) => ("better-auth", &config["secret"]),
            (scheme, _) => panic!("{scheme}"),
        };
        let mut keys = toml::Table::new();
        let mut set = |key: &str, value: &Value| {
            if !value.is_null() {
                keys.insert(key.to_owned(), toml::Value::try_from(value).expect("a value"));
            }
        };
        set("kind", &kind.into());
        set("preset", &preset.into());
        set("url", &url.into());
        set("cookie", &config["cookie_name"]);
        let is_list = secrets.is_null() || secrets.is_array();
        set("cookie_secrets", if is_list { secrets } else { &config["secret"] });
        set("key_prefix", &config["prefix"]);
        set("secret_key", &config["secret_key"]);
        set("secret_key_fallbacks", &config["secret_key_fallbacks"]);
        set("subject", &format!("{{{}}}", config["subject_path"].as_str().unwrap()).into());
        // Some adapters keep times as numbers, which the preset's own query for PostgreSQL does not.
        if kind == "sql_session" && self.rows().any(|row| row["expiresAt"].is_number()) {
            let query = "SELECT *, \"expiresAt\" AS session_expires_at FROM \"session\" WHERE \"token\" = $1";
            set("query", &query.into());
        }
        keys
    }

    /// The rows of the store's tables.
    pub fn rows(&self) -> impl Iterator<Item = &Value> {
        self.store["rows"].as_array().into_iter().flatten()
    }
}

/// How many requests no extractor found a credential in.
async fn not_applicable(service: &Service) -> u64 {
    let metrics = service.metrics().await;
    let mut lines = metrics.lines().filter(|line| line.starts_with("rollout_token_requests_total"));
    let line = lines.find(|line| line.contains("extractor=\"none\""));
    line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or(0)
}
