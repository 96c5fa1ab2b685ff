//! `sql_session`: the app keeps its sessions in a table; the cookie holds the key of a row.
//! The tables are defined by the frameworks' own sources: see `sql_session/presets.rs`.

mod database;
mod django;
mod presets;
mod statement;
mod users;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use axum::http::request::Parts;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};
use serde::{Deserialize, Serialize};

use super::shared::app_secret;
use super::shared::authority;
use super::shared::expiry::Expiry;
use super::shared::laravel::{self, KeyFields};
use super::shared::payload::MAX_STORED;
use super::shared::pool::{Limits, Pool};
use super::shared::session_cookie::{self, SessionCookie};
use super::{ExtractError, Extracted, Kind, Readiness, Session, SessionExtractor};
use crate::clock::{Clock, UnixSeconds};
use crate::config::{List, Problems, Section, Span};
use crate::secret::Secret;
use crate::value::{Object, Value};
use database::{Database, Dialect, Question, Rows, Table};
use statement::Statement;
use users::Users;

pub const KIND: Kind = Kind { build, subject: "{user_id}", presets: presets::PRESETS };

/// `[extractors.NAME]` with `kind = "sql_session"`
#[derive(Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Config {
    url: Option<Secret>,
    url_file: Option<PathBuf>,
    password: Option<Secret>,
    password_file: Option<PathBuf>,
    ca_file: Option<PathBuf>,
    query: Option<String>,
    user_query: Option<String>,
    time_zone: Option<String>,
    cookie: List<String>,
    cookie_format: String,
    cookie_secrets: List<Secret>,
    cookie_secrets_file: Option<PathBuf>,
    app_key: Option<Secret>,
    app_key_file: Option<PathBuf>,
    previous_keys: List<Secret>,
    previous_keys_file: Option<PathBuf>,
    cipher: String,
    payload: String,
    payload_column: Option<String>,
    expires_column: Option<String>,
    lifetime: Option<Span>,
    secret_key: Option<Secret>,
    secret_key_file: Option<PathBuf>,
    secret_key_fallbacks: List<Secret>,
    secret_key_fallbacks_file: Option<PathBuf>,
    max_connections: usize,
    pool_wait: Span,
    timeout: Span,
    /// For presets: the query for each database, by the name of its dialect.
    #[serde(skip_serializing)]
    queries: BTreeMap<String, String>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            url: None,
            url_file: None,
            password: None,
            password_file: None,
            ca_file: None,
            query: None,
            user_query: None,
            time_zone: None,
            cookie: List::default(),
            cookie_format: "plain".to_owned(),
            cookie_secrets: List::default(),
            cookie_secrets_file: None,
            app_key: None,
            app_key_file: None,
            previous_keys: List::default(),
            previous_keys_file: None,
            cipher: laravel::CIPHER.to_owned(),
            payload: "columns".to_owned(),
            payload_column: None,
            expires_column: None,
            lifetime: None,
            secret_key: None,
            secret_key_file: None,
            secret_key_fallbacks: List::default(),
            secret_key_fallbacks_file: None,
            max_connections: 8,
            pool_wait: Span::millis(250),
            timeout: Span::millis(500),
            queries: BTreeMap::new(),
        }
    }
}

#[derive(Debug)]
struct SqlSession {
    cookie: SessionCookie,
    pool: Arc<Pool<Rows>>,
    statement: Arc<Statement>,
    payload: Payload,
    users: Option<Users>,
    end: Option<End>,
    clock: Clock,
}

/// Where the session's attributes are, beside the row's own columns.
#[derive(Debug)]
enum Payload {
    Columns,
    /// JSON in this column, as text or as the database's own type.
    Json(String),
    Django(String, django::Keys),
    Laravel(String, Arc<laravel::Keys>),
}

/// The column that says when the session ends, if the query does not compare it.
#[derive(Debug)]
struct End {
    column: String,
    /// The column says when the session was last used, and it ends so many seconds later.
    lifetime: Option<UnixSeconds>,
}

fn build(section: &Section<'_>) -> Result<Arc<dyn SessionExtractor>, Problems> {
    let mut problems = Problems::default();
    let mut config: Config = section.read(&mut problems);
    let keys = session_cookie::Keys {
        cookie: &config.cookie,
        cookie_format: &config.cookie_format,
        cookie_secrets: std::mem::take(&mut config.cookie_secrets),
        cookie_secrets_file: config.cookie_secrets_file.as_ref(),
        laravel: KeyFields {
            app_key: config.app_key.take(),
            app_key_file: config.app_key_file.as_ref(),
            previous_keys: std::mem::take(&mut config.previous_keys),
            previous_keys_file: config.previous_keys_file.as_ref(),
            cipher: &config.cipher,
        },
    };
    let cookie = SessionCookie::read(section, keys, &mut problems);
    let secrets = django_secrets(section, &mut config, &mut problems);
    let payload = payload(section, &mut config, &secrets, cookie.laravel(), &mut problems);
    let limits =
        Limits::read(section, config.max_connections, config.pool_wait, config.timeout, &mut problems);
    let database = database(section, &mut config, limits, &mut problems);
    let dialect = database.as_ref().map(|(dialect, _)| *dialect);
    let statement = dialect.and_then(|dialect| session_query(section, &mut config, dialect, &mut problems));
    let users = users(section, &config, dialect, &secrets, &mut problems);
    let end = end(section, &mut config, &mut problems);
    match (database, statement, payload) {
        (Some((_, database)), Some(statement), Some(payload)) if problems.is_empty() => {
            let clock = section.context().clock.clone();
            Ok(Arc::new(SqlSession {
                cookie,
                pool: Pool::new(section, Rows::new(database, clock.clone()), limits),
                statement: Arc::new(statement),
                payload,
                users,
                end,
                clock,
            }))
        }
        _ => Err(problems),
    }
}

fn database(
    section: &Section<'_>,
    config: &mut Config,
    limits: Limits,
    problems: &mut Problems,
) -> Option<(Dialect, Database)> {
    let url = section.secret("url", config.url.take(), config.url_file.as_ref(), problems);
    let password =
        section.secret("password", config.password.take(), config.password_file.as_ref(), problems);
    let ca = authority::read(section, config.ca_file.as_ref(), problems);
    let Some(dialect) = url.as_ref().and_then(Dialect::of) else {
        problems.add(
            section.key("url"),
            "name the database: postgres://user@db.internal/app, mysql://… or sqlite:///path/to/file",
        );
        return None;
    };
    let time_zone = config.time_zone.take();
    problems.require(
        time_zone.is_none() || dialect == Dialect::Postgres,
        section.key("time_zone"),
        "is for PostgreSQL only",
    );
    let database = Database::new(&url?, dialect, password.as_ref(), ca, time_zone, limits.operation);
    Some((dialect, problems.accept(section.key("url"), database)?))
}

/// The query for the session, which a preset has for each database.
fn session_query(
    section: &Section<'_>,
    config: &mut Config,
    dialect: Dialect,
    problems: &mut Problems,
) -> Option<Statement> {
    let Some(query) = config.query.take().or_else(|| config.queries.remove(dialect.name())) else {
        problems.add(
            section.key("query"),
            format!("write how to look a session up in {}: SELECT … WHERE … = $1", dialect.name()),
        );
        return None;
    };
    problems.accept(section.key("query"), Statement::read(&query, dialect)).map(|read| read.limited(dialect))
}

/// `SECRET_KEY`, then `SECRET_KEY_FALLBACKS`.
fn django_secrets(section: &Section<'_>, config: &mut Config, problems: &mut Problems) -> Vec<Secret> {
    let current =
        section.secret("secret_key", config.secret_key.take(), config.secret_key_file.as_ref(), problems);
    let older = app_secret::listed(
        section,
        "secret_key_fallbacks",
        std::mem::take(&mut config.secret_key_fallbacks),
        config.secret_key_fallbacks_file.as_ref(),
        problems,
    );
    let is_django = config.payload == "django";
    let secrets: Vec<Secret> = current.into_iter().chain(older).collect();
    problems.require(
        is_django != secrets.is_empty(),
        section.key("secret_key"),
        if is_django {
            "is missing: copy SECRET_KEY of your settings"
        } else {
            "is for payload = \"django\""
        },
    );
    secrets
}

fn payload(
    section: &Section<'_>,
    config: &mut Config,
    secrets: &[Secret],
    laravel: Option<&Arc<laravel::Keys>>,
    problems: &mut Problems,
) -> Option<Payload> {
    match (config.payload.as_str(), config.payload_column.take()) {
        ("columns", None) => return Some(Payload::Columns),
        ("json", Some(column)) => return Some(Payload::Json(column)),
        ("django", Some(column)) => return Some(Payload::Django(column, django::Keys::new(secrets))),
        ("laravel", Some(column)) => {
            if let Some(keys) = laravel {
                return Some(Payload::Laravel(column, keys.clone()));
            }
            problems.add(section.key("payload"), "needs cookie_format = \"laravel\" as well");
        }
        ("columns", Some(_)) => {
            problems.add(section.key("payload_column"), "is not used with payload = \"columns\"");
        }
        ("json" | "django" | "laravel", None) => {
            problems.add(section.key("payload_column"), "name the column that holds the session's data");
        }
        _ => problems.add(section.key("payload"), "must be one of columns, json, django, laravel"),
    }
    None
}

fn users(
    section: &Section<'_>,
    config: &Config,
    dialect: Option<Dialect>,
    secrets: &[Secret],
    problems: &mut Problems,
) -> Option<Users> {
    let query = config.user_query.as_deref()?;
    problems.require(
        config.payload == "django",
        section.key("user_query"),
        "is for payload = \"django\"; elsewhere the query itself can join the users",
    );
    let dialect = dialect?;
    let statement = problems.accept(section.key("user_query"), Statement::read(query, dialect))?;
    Some(Users::new(statement.limited(dialect), secrets))
}

fn end(section: &Section<'_>, config: &mut Config, problems: &mut Problems) -> Option<End> {
    let lifetime = config.lifetime.map(|span| UnixSeconds::try_from(span.0.as_secs()).unwrap_or(0));
    problems.require(
        lifetime.is_none_or(|seconds| seconds > 0),
        section.key("lifetime"),
        "must be a second or longer",
    );
    let column = config.expires_column.take();
    problems.require(
        lifetime.is_none() || column.is_some(),
        section.key("lifetime"),
        "needs expires_column, the column that says when the session was last used",
    );
    column.map(|column| End { column, lifetime })
}

impl SessionExtractor for SqlSession {
    fn extract<'a>(&'a self, request: &'a Parts) -> BoxFuture<'a, Extracted> {
        match self.cookie.id(&request.headers) {
            Ok(Some(id)) => async move { self.session(&id).await.map(Some) }.boxed(),
            Ok(None) => ready(Ok(None)).boxed(),
            Err(error) => ready(Err(error)).boxed(),
        }
    }

    fn start(&self) {
        self.pool.warm();
    }

    fn readiness(&self) -> Readiness {
        self.pool.readiness()
    }
}

impl SqlSession {
    async fn session(&self, id: &str) -> Result<Session, ExtractError> {
        let question =
            Question { table: Table::Sessions, statement: self.statement.clone(), key: id.to_owned() };
        let Some(row) = self.pool.ask(&question).await? else {
            return Err(ExtractError::rejected("session_not_found").because("the query finds no row"));
        };
        let expires_at = self.end.as_ref().map_or(Ok(None), |end| end.check(&row, self.clock.now()))?;
        let session = self.payload.merge(row)?;
        if let Some(users) = &self.users
            && !users.are_signed_in(&session, &self.pool).await?
        {
            return Ok(Session { attributes: Value::Null, expires_at });
        }
        Ok(Session { attributes: Value::Object(session), expires_at })
    }
}

impl End {
    /// When the session ends; an error if that was before `now`, `None` if it never does.
    fn check(&self, row: &Object, now: UnixSeconds) -> Result<Option<UnixSeconds>, ExtractError> {
        let column = &self.column;
        let expiry = match row.get(column) {
            Ok(Some(Value::Null)) => return Ok(None),
            Ok(Some(value)) => Expiry::read(value),
            Ok(None) => return Err(misfit(format!("the query gives no {column}"))),
            Err(_) => return Err(misfit(format!("the query gives {column} twice"))),
        };
        let Some(expiry) = expiry else {
            return Err(misfit(format!("{column} is neither unix seconds nor a time in UTC")));
        };
        // The last second of a lifetime counts, as in Laravel.
        let expiry = self.lifetime.map_or(expiry, |seconds| expiry.plus(seconds.saturating_add(1)));
        expiry.check(now).map(Some)
    }
}

/// The row is not as the configuration says: no fault of whoever asks.
fn misfit(detail: String) -> ExtractError {
    ExtractError::unavailable("store_misfit").because(detail)
}

fn corrupt(detail: &'static str) -> ExtractError {
    ExtractError::rejected("session_corrupt").because(detail)
}

impl Payload {
    /// The row with its payload's members beside its columns. A name in both is there twice, and names
    /// nobody.
    fn merge(&self, row: Object) -> Result<Object, ExtractError> {
        let column = match self {
            Self::Columns => return Ok(row),
            Self::Json(column) | Self::Django(column, _) | Self::Laravel(column, _) => column,
        };
        let payload = match row.get(column) {
            Ok(Some(value)) => self.decode(value)?,
            Ok(None) => return Err(misfit(format!("the query gives no {column}"))),
            Err(_) => return Err(misfit(format!("the query gives {column} twice"))),
        };
        let columns = row.into_iter().filter(|(name, _)| name != column);
        Ok(columns.chain(payload).collect())
    }

    fn decode(&self, value: &Value) -> Result<Object, ExtractError> {
        if value.as_str().is_some_and(|text| text.len() > MAX_STORED) {
            return Err(corrupt("the payload is longer than 1 MiB"));
        }
        let payload = match (self, value) {
            (Self::Django(_, keys), Value::String(text)) => {
                let json = keys.open(text).map_err(ExtractError::rejected)?;
                Value::parse(&json).map_err(not_json)?
            }
            (Self::Laravel(_, keys), Value::String(text)) => {
                let data = STANDARD.decode(text).map_err(|_| corrupt("the payload is not in base64"))?;
                match keys.attributes(&data)? {
                    // That is how PHP writes an empty session.
                    Value::Array(items) if items.is_empty() => Value::Object(Object::default()),
                    attributes => attributes,
                }
            }
            (Self::Django(..) | Self::Laravel(..), _) => return Err(corrupt("the payload is no text")),
            (Self::Columns | Self::Json(_), Value::String(text)) => {
                Value::parse(text.as_bytes()).map_err(not_json)?
            }
            (Self::Columns | Self::Json(_), value) => value.clone(),
        };
        match payload {
            Value::Object(payload) => Ok(payload),
            _ => Err(corrupt("the payload is no object")),
        }
    }
}

fn not_json<E>(_: E) -> ExtractError {
    corrupt("the payload is not JSON")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::extractors::shared::testing::broken_certificate;
    use crate::extractors::{Context, Registry, contract};

    fn extractor(keys: &str) -> Result<Arc<dyn SessionExtractor>, Problems> {
        contract::build(&Registry::builtin(), "sql_session", keys, &Context::for_tests())
    }

    #[tokio::test]
    async fn keeps_the_contract_and_connects_to_nobody() {
        for keys in [
            "preset = \"connect-pg-simple\"\nurl = \"postgres://u:hunter2@h/db\"\ncookie_secrets = [\"the-cat\"]",
            "preset = \"django\"\nurl = \"mysql://u@h/db\"\npassword = \"hunter2\"\nsecret_key = \"the-cat\"",
            "preset = \"better-auth\"\nurl = \"sqlite:///nowhere/hunter2\"\ncookie_secrets = [\"the-cat\"]",
        ] {
            contract::check(&*extractor(keys).unwrap(), &["hunter2", "the-cat"]).await;
        }
    }

    #[tokio::test]
    async fn a_database_that_is_not_there_is_no_fault_of_the_cookie() {
        let extractor =
            |url: &str| extractor(&format!("preset = \"authjs-database\"\nurl = \"{url}\"")).unwrap();
        for url in ["postgres://127.0.0.1:1/db", "mysql://127.0.0.1:1/db", "sqlite:///nowhere/file"] {
            let request = contract::request(&[("cookie", "authjs.session-token=abc")]);
            let answer = extractor(url).extract(&request).await;
            assert!(matches!(answer, Err(ExtractError::Unavailable(_))), "{url}: {answer:?}");
        }
    }

    #[test]
    fn every_mistake_names_its_key_and_no_secret() {
        let query = "query = \"SELECT 1 WHERE 1 = $1\"";
        let broken = broken_certificate();
        for (case, keys, key) in [
            ("no url", format!("cookie = \"sid\"\n{query}"), "url"),
            ("scheme", format!("cookie = \"sid\"\nurl = \"oracle://u:hunter2@h\"\n{query}"), "url"),
            ("broken", format!("cookie = \"sid\"\nurl = \"postgres://u:hunter2@:x\"\n{query}"), "url"),
            (
                "two passwords",
                format!("cookie = \"sid\"\nurl = \"postgres://u:hunter2@h\"\npassword = \"x\"\n{query}"),
                "url",
            ),
            ("no query", "cookie = \"sid\"\nurl = \"postgres://h/db\"".to_owned(), "query"),
            (
                "no key",
                "cookie = \"sid\"\nurl = \"postgres://h/db\"\nquery = \"SELECT 1\"".to_owned(),
                "query",
            ),
            (
                "preset of another database",
                "url = \"mysql://h/db\"\npreset = \"connect-pg-simple\"\ncookie_secrets = [\"x\"]".to_owned(),
                "query",
            ),
            (
                "payload",
                format!("cookie = \"sid\"\nurl = \"mysql://h\"\npayload = \"php\"\n{query}"),
                "payload",
            ),
            (
                "no column",
                format!("cookie = \"sid\"\nurl = \"mysql://h\"\npayload = \"json\"\n{query}"),
                "payload_column",
            ),
            ("no key of Django", "url = \"mysql://h\"\npreset = \"django\"".to_owned(), "secret_key"),
            (
                "key for nothing",
                format!("cookie = \"sid\"\nurl = \"mysql://h\"\nsecret_key = \"hunter2\"\n{query}"),
                "secret_key",
            ),
            ("no key of Laravel", "url = \"mysql://h\"\npreset = \"laravel\"".to_owned(), "app_key"),
            (
                "payload alone",
                format!(
                    "cookie = \"sid\"\nurl = \"mysql://h\"\npayload = \"laravel\"\npayload_column = \"p\"\n{query}"
                ),
                "payload",
            ),
            (
                "users of others",
                format!("cookie = \"sid\"\nurl = \"mysql://h\"\nuser_query = \"SELECT 1 WHERE $1\"\n{query}"),
                "user_query",
            ),
            (
                "users by no key",
                "url = \"mysql://h\"\npreset = \"django\"\nsecret_key = \"hunter2\"\nuser_query = \"SELECT 1\""
                    .to_owned(),
                "user_query",
            ),
            (
                "lifetime of what",
                format!("cookie = \"sid\"\nurl = \"mysql://h\"\nlifetime = \"1h\"\n{query}"),
                "lifetime",
            ),
            (
                "broken CA",
                format!("cookie = \"sid\"\nurl = \"postgres://h\"\nca_file = \"{}\"\n{query}", broken.path().display()),
                "ca_file",
            ),
            (
                "no CA",
                format!("cookie = \"sid\"\nurl = \"mysql://h\"\nca_file = \"/dev/null\"\n{query}"),
                "ca_file",
            ),
            (
                "zone",
                format!("cookie = \"sid\"\nurl = \"mysql://h\"\ntime_zone = \"UTC\"\n{query}"),
                "time_zone",
            ),
        ] {
            let problems = extractor(&keys).map(|_| ()).expect_err(case).to_string();
            assert!(problems.starts_with(&format!("extractors.sql_session.{key}:")), "{case}: {problems}");
            assert!(!problems.contains("hunter2"), "{case}: {problems}");
        }
    }

    fn word(error: ExtractError) -> &'static str {
        match error {
            ExtractError::Rejected(reason) => reason.word,
            ExtractError::Unavailable(cause) => cause.word,
        }
    }

    fn row(json: &str) -> Object {
        match Value::parse(json.as_bytes()).unwrap() {
            Value::Object(row) => row,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_payload_stands_beside_the_columns_and_hides_none() {
        let payload = Payload::Json("data".to_owned());
        for (columns, want) in [
            (r#"{"id":1,"data":{"user":2}}"#, Ok(r#"{"id":1,"user":2}"#)),
            (r#"{"data":"{\"user\":9007199254740993}"}"#, Ok(r#"{"user":9007199254740993}"#)),
            (r#"{"data":"[1]"}"#, Err("session_corrupt")),
            (r#"{"data":"x"}"#, Err("session_corrupt")),
            (r#"{"data":""}"#, Err("session_corrupt")),
            (r#"{"data":null}"#, Err("session_corrupt")),
            (&format!(r#"{{"data":"{{}}{}"}}"#, " ".repeat(MAX_STORED - 1)), Err("session_corrupt")),
            (r#"{"id":1}"#, Err("store_misfit")),
            (r#"{"data":{},"data":{}}"#, Err("store_misfit")),
        ] {
            assert_eq!(payload.merge(row(columns)).map_err(word), want.map(row), "{columns}");
        }
        let twice = payload.merge(row(r#"{"user":1,"data":{"user":2}}"#)).unwrap();
        assert!(twice.get("user").is_err(), "neither may win");
    }

    /// What Django writes as `session_data`.
    fn django(session: &str, secret: &str) -> String {
        use base64::engine::general_purpose::URL_SAFE_NO_PAD;
        let key = super::super::shared::derive::django(
            &["django.contrib.sessions.SessionStore", "signer"],
            &Secret::new(secret),
        );
        let signed = format!("{}:1vNNNN", URL_SAFE_NO_PAD.encode(session));
        format!("{signed}:{}", URL_SAFE_NO_PAD.encode(aws_lc_rs::hmac::sign(&key, signed.as_bytes())))
    }

    /// `SQLite` keeps any text as a time. One that it cannot read is not the same as none.
    #[tokio::test]
    async fn an_end_that_sqlite_cannot_read_is_not_for_ever() {
        use sqlx::{ConnectOptions, sqlite::SqliteConnectOptions};
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("app.sqlite3");
        let options = SqliteConnectOptions::new().filename(&path).create_if_missing(true);
        let mut database = options.connect().await.unwrap();
        let table = "CREATE TABLE django_session (session_key, session_data, expire_date)";
        sqlx::query(table).execute(&mut database).await.unwrap();
        let keys =
            format!("preset = \"django\"\nurl = \"sqlite://{}\"\nsecret_key = \"the-cat\"", path.display());
        let extractor = extractor(&keys).unwrap();
        for (id, end, want) in [
            ("no-end-at-all", None, Ok(None)),
            ("as-django-writes-it", Some("2100-01-02 03:04:05.678901"), Ok(Some(4_102_542_245))),
            ("without-a-fraction", Some("2100-01-02 03:04:05"), Ok(Some(4_102_542_245))),
            ("with-a-zone", Some("2100-01-02 03:04:05+01:00"), Ok(Some(4_102_538_645))),
            ("it-is-over", Some("2000-01-02 03:04:05"), Err("expired")),
            ("is-a-word", Some("tomorrow"), Err("store_misfit")),
            ("empty-text", Some(""), Err("store_misfit")),
            ("another-order", Some("02/01/2100 03:04"), Err("store_misfit")),
            ("no-such-day", Some("2100-13-45 03:04:05"), Err("store_misfit")),
        ] {
            let insert = sqlx::query("INSERT INTO django_session VALUES (?, ?, ?)").bind(id);
            let insert = insert.bind(django(r#"{"_auth_user_id":"7"}"#, "the-cat")).bind(end);
            insert.execute(&mut database).await.unwrap();
            let request = contract::request(&[("cookie", &format!("sessionid={id}"))]);
            let answer = extractor.extract(&request).await.map(|session| session.unwrap().expires_at);
            assert_eq!(answer.map_err(word), want, "{id}");
        }
    }
}
