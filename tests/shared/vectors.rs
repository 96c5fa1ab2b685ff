//! Tests the service with sessions that real frameworks, libraries and providers created (`tests/vectors/`). Each
//! session is sent over a socket to a service with an operator's configuration and its clock set to the case's own
//! time. The test that calls [`check_all`] decides into which store a case is loaded, and how.

use std::collections::BTreeMap;
use std::ops::AsyncFnMut;
use std::path::{Path, PathBuf};

use rollout_token::json::Value as Ordered;
use serde_json::{Value, json};
use toml::Table;

use crate::helpers::{NOW, Service, verified};

/// The maximum length of a session, in bytes of JSON, that fits with the other claims into a token of at most 4 KiB.
/// For longer sessions, only the subject and the outcome are compared.
const MAX_SHOWN: usize = 2_500;

/// One file of vectors.
#[derive(serde::Deserialize)]
struct Family {
    cases: Vec<Case>,
}

/// One request, the configuration, the content of the store, and the expected outcome.
#[derive(Clone, serde::Deserialize)]
pub struct Case {
    pub name: String,
    pub config: Value,
    pub request: Request,
    #[serde(default)]
    pub store: Value,
    /// The time of the request in Unix seconds. Some cases without a session have no time, which is read as 0.
    #[serde(default)]
    pub now: i64,
    pub expect: Value,
}

#[derive(Clone, serde::Deserialize)]
pub struct Request {
    #[serde(default = "nothing")]
    cookies: Ordered,
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
}

fn nothing() -> Ordered {
    Ordered::Null
}

/// Where a case's sessions are stored.
pub enum Place {
    /// In the request itself.
    Cookie,
    /// In the store at this URL.
    Store(String),
    /// In a store that this test does not provide.
    Elsewhere,
}

/// The outcome of a case.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Authenticated(Value),
    Rejected,
    NotApplicable,
}

/// Numbers of cases.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    pub run: usize,
    /// The cases that were run and got a token.
    pub signed_in: usize,
    /// The cases that were not run, because this test does not provide their store.
    pub elsewhere: usize,
}

pub fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors")
}

pub fn load(family: &str) -> Vec<Case> {
    let text =
        std::fs::read(directory().join(format!("{family}.json"))).expect("a file of vectors");
    serde_json::from_slice::<Family>(&text)
        .expect("vectors")
        .cases
}

/// Runs a family of vectors, and returns how many cases ran, got a token, or were not run. `place` fills the store with
/// a case's content and returns the case's [`Place`].
///
/// # Panics
/// If a case has an unexpected outcome.
pub async fn check_all(family: &str, mut place: impl AsyncFnMut(&Case) -> Place) -> Count {
    let files = tempfile::tempdir().expect("a directory");
    // Cases with the same configuration share a service, and with it the connections to the store.
    let mut services = BTreeMap::new();
    let mut wrong = Vec::new();
    let mut count = Count::default();
    for case in load(family) {
        let url = match place(&case).await {
            Place::Cookie => None,
            Place::Store(url) => Some(url),
            Place::Elsewhere => {
                count.elsewhere += 1;
                continue;
            }
        };
        count.run += 1;
        let config = case
            .configuration(case.section(url.as_deref(), files.path()))
            .to_string();
        let service = services
            .entry(config)
            .or_insert_with_key(|config| Service::try_start(config));
        let outcome = match service {
            Ok(service) => case.run(service).await,
            // The list of algorithms mixes symmetric and asymmetric ones: the configuration is refused, so no request
            // gets a token.
            Err(_) if case.config["scheme"] == "jwt" => Outcome::Rejected,
            Err(problems) => panic!("{}: {problems}", case.name),
        };
        count.signed_in += usize::from(matches!(outcome, Outcome::Authenticated(_)));
        if let Some(fault) = case.fault(&outcome) {
            wrong.push(format!("{}: {fault}", case.name));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {} cases:\n{}",
        wrong.len(),
        count.run,
        wrong.join("\n")
    );
    count
}

impl Case {
    pub fn text(&self, key: &str) -> &str {
        self.config[key]
            .as_str()
            .unwrap_or_else(|| panic!("{}: {key}", self.name))
    }

    /// Whether the cookie contains only the id of the session's row. The kind `rails` refuses this id as a subject;
    /// `sql_session` with the preset `rails8` reads the row.
    pub fn is_row_of_rails8(&self) -> bool {
        self.text("scheme") == "rails-signed"
            && self.config["cookie_name"] == "session_id"
            && self.text("subject_path").is_empty()
    }

    async fn run(&self, service: &Service) -> Outcome {
        // In a case without a session, the time is missing, and is deserialized as 0.
        service
            .clock
            .set(if self.now == 0 { NOW } else { self.now });
        let before = not_applicable(service).await;
        let answer = service.raw(self.raw_request().as_bytes()).await;
        let status = answer.split(' ').nth(1).unwrap_or_default();
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        let body: Value =
            serde_json::from_str(body).unwrap_or_else(|_| panic!("{}: {answer}", self.name));
        match (status, body["code"].as_str()) {
            ("200", None) => Outcome::Authenticated(verified(&body)),
            // `no_session` can also mean that the session has no signed-in user. The metric distinguishes the two
            // cases.
            ("401", Some(_)) if not_applicable(service).await > before => Outcome::NotApplicable,
            // A token longer than the header limit never reaches an extractor.
            ("401" | "431", Some(_)) => Outcome::Rejected,
            _ => panic!("{}: {answer}", self.name),
        }
    }

    /// The difference between this outcome and the expected one, if there is any.
    fn fault(&self, outcome: &Outcome) -> Option<String> {
        // If two cookies have the same name and different values, frameworks use the first or the last one; the service
        // refuses both.
        if self.names_its_cookie_twice() {
            return (*outcome != Outcome::Rejected)
                .then(|| format!("two cookies with one name must be refused: {outcome:?}"));
        }
        let word = match outcome {
            Outcome::Authenticated(_) => "authenticated",
            Outcome::Rejected => "rejected",
            Outcome::NotApplicable => "not_applicable",
        };
        let also = self.expect["also_acceptable"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        if self.expect["outcome"] != word && !also.iter().any(|known| known == word) {
            return Some(format!("{} expected: {outcome:?}", self.expect["outcome"]));
        }
        let Outcome::Authenticated(claims) = outcome else {
            return None;
        };
        let subjects = ["subject", "subject_if_authenticated"].map(|key| &self.expect[key]);
        // A case that may also be refused can omit the subject. The subject in its store is then expected.
        let stored = self
            .stored_subject()
            .filter(|_| subjects.iter().all(|subject| subject.is_null()));
        let is_expected = subjects
            .into_iter()
            .chain(&stored)
            .any(|subject| match subject {
                Value::String(text) => claims["sub"] == **text,
                Value::Number(number) => claims["sub"] == number.to_string(),
                _ => false,
            });
        if !is_expected {
            return Some(format!("the subject is {}", claims["sub"]));
        }
        if self.expect["outcome"] == word && self.expect["org"] != claims["org"] {
            return Some(format!("the organisation is {}", claims["org"]));
        }
        // Stores add columns to the session, so additional members are ignored. If the row itself is the session, no
        // member is compared, because a query need not return every column, and databases format times differently.
        let is_row = self.rows().any(|row| {
            row.get(self.text("subject_path").trim_start_matches('/'))
                .is_some()
        });
        let session = self.expect["session"]
            .as_object()
            .filter(|_| !is_row && claims["session"].is_object());
        let session = session.into_iter().flatten();
        let changed = session.filter(|(name, value)| !holds(&claims["session"][name], value));
        let changed: Vec<_> = changed.collect();
        (!changed.is_empty()).then(|| format!("{changed:?}, not as in {}", claims["session"]))
    }

    /// The subject in the session that is stored in Redis as JSON.
    fn stored_subject(&self) -> Option<Value> {
        let (_, value) = self.store["redis"].as_object()?.iter().next()?;
        let session: Value = serde_json::from_str(value.as_str()?).ok()?;
        session.pointer(self.text("subject_path")).cloned()
    }

    /// Whether the request contains the session cookie twice. Only a case with a whole `Cookie` header can do so.
    fn names_its_cookie_twice(&self) -> bool {
        let (Some(name), Some(header)) = (
            self.config["cookie_name"].as_str(),
            self.request.headers.get("cookie"),
        ) else {
            return false;
        };
        let prefix = format!("{name}=");
        header
            .split(';')
            .filter(|pair| pair.trim().starts_with(&prefix))
            .count()
            > 1
    }

    /// The cookies in the order of the file, which is their order in the header.
    pub fn cookies(&self) -> Vec<(String, String)> {
        let Ordered::Object(cookies) = self.request.cookies.clone() else {
            return Vec::new();
        };
        let text = |value: Ordered| value.as_str().expect("text").to_owned();
        cookies
            .into_iter()
            .map(|(name, value)| (name, text(value)))
            .collect()
    }

    /// The request as it is sent over the socket.
    fn raw_request(&self) -> String {
        let headers = self
            .request
            .headers
            .iter()
            .map(|(name, value)| format!("{name}: {value}\r\n"));
        let mut request =
            "POST /rollout/token HTTP/1.1\r\nHost: app.example\r\nConnection: close\r\n".to_owned();
        request.extend(headers);
        let cookies = join(&self.cookies());
        if !cookies.is_empty() {
            request = request + "Cookie: " + &cookies + "\r\n";
        }
        request + "\r\n"
    }

    fn rows(&self) -> impl Iterator<Item = &Value> {
        self.store["rows"].as_array().into_iter().flatten()
    }

    /// The rows of this table in the store.
    pub fn rows_of(&self, table: &str) -> impl Iterator<Item = &Value> {
        self.rows().filter(move |row| row["table"] == table)
    }

    /// The whole configuration that contains this section. A claim of the minted token contains the session's
    /// attributes, unless they are longer than [`MAX_SHOWN`].
    pub fn configuration(&self, section: Table) -> Table {
        let mut claims = Table::new();
        if self.expect["session"].to_string().len() <= MAX_SHOWN {
            claims.insert("session".to_owned(), "{}".into());
        }
        if let Some(path) = self.config["org_path"].as_str() {
            claims.insert("org".to_owned(), format!("{{{path}}}").into());
        }
        let mut config = toml::toml! {
            [session]
            extractors = ["web"]
            [rate_limit]
            per_minute = 0
            [server]
            max_header_bytes = 65536
        };
        config.insert(
            "extractors".to_owned(),
            Table::from_iter([("web".to_owned(), section.into())]).into(),
        );
        config.insert(
            "token".to_owned(),
            Table::from_iter([("claims".to_owned(), claims.into())]).into(),
        );
        config
    }

    /// The section that an operator would write. Keys with default values are left out, so that the defaults are tested
    /// too. The values of keys that name a file are written to `files`.
    pub fn section(&self, url: Option<&str>, files: &Path) -> Table {
        let config = &self.config;
        let mut keys = match url {
            Some(url) => self.stored(url),
            None => match self.text("scheme") {
                "jwt" | "supabase-ssr" => self.jwt(files),
                "cookie-session"
                | "django-signed-cookies"
                | "flask"
                | "koa-session"
                | "react-router"
                | "starlette" => self.signed(),
                _ => self.sealed(),
            },
        };
        let keys = keys.as_object_mut().expect("keys");
        if let Some(name) = config["cookie_name"].as_str()
            && !["authjs.session-token", "next-auth.session-token"]
                .iter()
                .any(|usual| name.ends_with(usual))
            && keys["kind"] != "jwt"
        {
            keys.insert("cookie".to_owned(), name.into());
        }
        let path = self.text("subject_path");
        let usual = match (
            keys["kind"].as_str(),
            keys.get("preset").and_then(Value::as_str),
        ) {
            (Some("jwt"), Some("entra")) => "/oid",
            (Some("jwt"), Some("okta")) => "/uid",
            (Some("jwt"), _) => "/sub",
            (_, Some("django")) => "/_auth_user_id",
            (_, Some("laravel")) => "/login_web_59ba36addc2b2f9401580f014c7f58ea4e30989d",
            _ => "(none)",
        };
        if path != usual {
            keys.insert("subject".to_owned(), format!("{{{path}}}").into());
        }
        for key in ["expires_path", "idle"] {
            keys.insert(key.to_owned(), config[key].clone());
        }
        keys.retain(|_, value| !value.is_null());
        Table::try_from(&*keys).expect("a section")
    }

    fn signed(&self) -> Value {
        let config = &self.config;
        let max_age = config["max_age"]
            .as_i64()
            .map_or_else(|| "none".to_owned(), |age| format!("{age}s"));
        match self.text("scheme") {
            "cookie-session" => json!({
                "kind": "cookie_session",
                "keys": config["keys"],
                "algorithm": config["algorithm"],
                "encoding": config["encoding"],
            }),
            "koa-session" => json!({ "kind": "cookie_session", "keys": config["keys"] }),
            "react-router" => json!({ "kind": "react_router", "secrets": config["secrets"] }),
            "django-signed-cookies" => json!({
                "kind": "django_signed",
                "secret_key": config["secret_key"],
                "secret_key_fallbacks": config["secret_key_fallbacks"],
                "salt": config["salt"],
                "max_age": max_age,
            }),
            "flask" => json!({
                "kind": "flask",
                "secret_key": config["secret_key"],
                "secret_key_fallbacks": config["secret_key_fallbacks"],
                "salt": config["salt"],
                "digest": config["digest"],
                "max_age": max_age,
            }),
            _ => {
                json!({ "kind": "starlette", "secret_key": config["secret_key"], "max_age": max_age })
            }
        }
    }

    fn sealed(&self) -> Value {
        let config = &self.config;
        match self.text("scheme") {
            scheme @ ("authjs-v5" | "nextauth-v4") => {
                let secrets = config["secret"].as_array().cloned();
                let salt = self.text("salt");
                let usual = [self.text("cookie_name"), ""].contains(&salt);
                json!({
                    "kind": "authjs",
                    "version": scheme[scheme.len() - 2..],
                    "secrets": secrets.unwrap_or_else(|| vec![config["secret"].clone()]),
                    "salt": if usual { Value::Null } else { salt.into() },
                    "accept_bearer": config["accept_bearer"],
                })
            }
            "iron-raw" | "iron-session" => json!({
                "kind": "iron_session",
                "password": config["password"],
                "version": config["version"],
            }),
            "better-auth-cache" => json!({
                "kind": "better_auth",
                "secret": config["secret"],
                "strategy": config["strategy"],
                "max_age": format!("{}s", config["max_age"]),
            }),
            "laravel" => json!({
                "kind": "laravel",
                "app_key": config["app_key"],
                "previous_keys": config["previous_keys"],
                "cipher": config["cipher"],
                "lifetime": format!("{}m", config["lifetime_minutes"]),
            }),
            scheme => {
                let renamed = |rotation: &Value| json!({ "secret_key_base": rotation["secret_key_base"], "digest": rotation["kdf_digest"] });
                let rotations = config["rotations"].as_array();
                json!({
                    "kind": "rails",
                    "scheme": scheme.strip_prefix("rails-").expect("a scheme of ours").replace('-', "_"),
                    "secret_key_base": config["secret_key_base"],
                    "digest": config["kdf_digest"],
                    "salt": config["salt"],
                    "signed_salt": config["signed_salt"],
                    "hmac_digest": config["hmac_digest"],
                    "purpose": config["purpose"],
                    "allow_missing_purpose": config["allow_missing_purpose"],
                    "rotations": rotations.map(|list| list.iter().map(renamed).collect::<Vec<_>>()),
                })
            }
        }
    }

    /// The keys for a stored session: a preset, the URL of the store, and the secrets.
    fn stored(&self, url: &str) -> Value {
        let config = &self.config;
        let is_redis = url.starts_with("redis");
        let mut keys = json!({
            "kind": if is_redis { "redis_session" } else { "sql_session" },
            "url": url,
            "key_prefix": config["prefix"],
            // The timeouts are longer than the defaults, so that a busy machine does not cause 503.
            "timeout": "5s",
            "pool_wait": "5s",
        });
        let more = match self.text("scheme") {
            "express-session" if is_redis => {
                json!({ "preset": "connect-redis", "cookie_secrets": config["secrets"] })
            }
            "express-session" => {
                json!({ "preset": "connect-pg-simple", "cookie_secrets": config["secrets"] })
            }
            "django-db" => json!({
                "preset": "django",
                "secret_key": config["secret_key"],
                "secret_key_fallbacks": config["secret_key_fallbacks"],
                "user_query": self.user_query(url),
            }),
            "authjs-database" => json!({ "preset": "authjs-database" }),
            "better-auth" => json!({
                "preset": "better-auth",
                "cookie_secrets": [config["secret"]],
                "query": self.better_auth_query(),
            }),
            "laravel" => json!({
                "preset": "laravel",
                "app_key": config["app_key"],
                "previous_keys": config["previous_keys"],
                "cipher": config["cipher"],
                "lifetime": (!is_redis).then(|| format!("{}m", config["lifetime_minutes"])),
            }),
            scheme => panic!("{scheme}"),
        };
        for (key, value) in more.as_object().expect("keys") {
            keys[key] = value.clone();
        }
        keys
    }

    fn user_query(&self, url: &str) -> Option<&'static str> {
        let is_postgres = url.starts_with("postgres");
        let query = if is_postgres {
            "SELECT password FROM auth_user WHERE id = $1::bigint"
        } else {
            "SELECT password FROM auth_user WHERE id = $1"
        };
        (self.config["verify_auth_hash"] == true).then_some(query)
    }

    /// The query for an adapter that stores times as numbers, which the preset's query for PostgreSQL does not expect;
    /// `None` for other adapters.
    fn better_auth_query(&self) -> Option<&'static str> {
        let query =
            "SELECT *, \"expiresAt\" AS session_expires_at FROM \"session\" WHERE \"token\" = $1";
        self.rows()
            .any(|row| row["expiresAt"].is_number())
            .then_some(query)
    }

    fn jwt(&self, files: &Path) -> Value {
        let config = &self.config;
        let preset = config["provider"].as_str().map(preset);
        let jwks = config["jwks"].is_object().then(|| {
            let text = config["jwks"].to_string();
            let file = files.join(format!("{:x}.json", text.bytes().fold(0_u64, checksum)));
            std::fs::write(&file, text).expect("a file for the keys");
            file.display().to_string()
        });
        let places = if config["locations"].is_array() {
            &config["locations"]
        } else {
            &config["location"]
        };
        let places: Vec<String> = match config["cookie_name"].as_str() {
            Some(cookie) => vec![format!("supabase:{cookie}")],
            // The preset's default for `from` applies.
            None if places.is_null() => Vec::new(),
            None => list(places)
                .into_iter()
                .map(location)
                .map(str::to_owned)
                .collect(),
        };
        let mut claims = config["claims"].clone();
        if config["provider"] == "cognito-id" {
            // `docs/providers/cognito.md` states this rule for ID tokens.
            claims["username"] = json!({ "any": true });
        }
        let any_audience = config["audience"].is_null() && preset.is_none();
        json!({
            "kind": "jwt",
            "preset": preset,
            "jwks_file": jwks,
            "secret": config["hs_secret"],
            "algorithms": list(&config["algorithms"]),
            "leeway": format!("{}s", config["leeway"]),
            "issuers": config["issuer"].is_string().then(|| list(&config["issuer"])),
            "audiences": (!config["audience"].is_null()).then(|| list(&config["audience"])),
            "allow_any_audience": any_audience.then_some(true),
            "claims": claims,
            "header_claims": config["header_claims"],
            "from": (!places.is_empty()).then_some(places),
        })
    }
}

/// Whether the value equals the expected one; an object may have more members than expected. The vectors contain large
/// numbers as strings.
fn holds(actual: &Value, expected: &Value) -> bool {
    match (actual, expected) {
        (Value::Object(actual), Value::Object(expected)) => {
            expected.iter().all(|(name, expected)| {
                actual
                    .get(name)
                    .is_some_and(|actual| holds(actual, expected))
            })
        }
        (Value::Number(number), Value::String(text)) => number.to_string() == *text,
        (Value::Number(actual), Value::Number(expected)) => actual.as_f64() == expected.as_f64(),
        _ => actual == expected,
    }
}

fn checksum(sum: u64, byte: u8) -> u64 {
    sum.wrapping_mul(31).wrapping_add(u64::from(byte))
}

pub fn join(cookies: &[(String, String)]) -> String {
    cookies
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect::<Vec<_>>()
        .join("; ")
}

/// The preset for a provider's name in the vectors. The name begins with the preset's name; suffixes tell the token
/// formats of a provider apart.
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
    PRESETS
        .into_iter()
        .find(|preset| provider.starts_with(preset))
        .expect("a preset for the provider")
}

/// Returns the strings of `value`, which is one string or an array of strings.
fn list(value: &Value) -> Vec<&str> {
    match value {
        Value::Array(items) => items.iter().filter_map(Value::as_str).collect(),
        one => vec![one.as_str().expect("text")],
    }
}

/// Converts a location in the vectors to an entry of the key `from`. The vectors write `authorization` for the header
/// that carries the bearer token.
fn location(place: &str) -> &str {
    if place == "authorization" {
        "header:authorization"
    } else {
        place
    }
}

/// The number of requests in which no extractor found a credential.
async fn not_applicable(service: &Service) -> u64 {
    let metrics = service.metrics().await;
    // Search for the line with this outcome: a refusal for an oversized header is counted under `extractor="none"` with
    // another outcome, and the lines have no fixed order.
    let line = "rollout_token_requests_total{extractor=\"none\",outcome=\"no_session\"} ";
    metrics
        .lines()
        .find_map(|seen| seen.strip_prefix(line)?.parse().ok())
        .unwrap_or(0)
}
