//! The configuration of a `sql_session` section: its keys, their validation, and the construction of the extractor.
//! `sql_session.rs` looks up sessions.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::database::{ConnectConfig, Dialect, RowLookup, Trust};
use super::django::DjangoKeys;
use super::payload::Payload;
use super::statement::{Alternatives, Names, Statement, columns_of, is_name};
use super::users::UserCheck;
use super::{ExpiryColumn, SqlSession};
use crate::config::{HumanDuration, List, Problems, PublicText, Section};
use crate::secret::Secret;
use crate::session::backends::Context;
use crate::session::backends::pool::{Pool, PoolLimits};
use crate::session::backends::waiting::Waiting;
use crate::session::kind::BuildResult;
use crate::session::sections::laravel;
use crate::session::sections::session_credential::{CredentialFields, SessionCredential};
use crate::session::sections::session_end::{ExpiresPath, SessionEnd};
use crate::session::sections::stored_session::{StoredFormat, StoredSession};
use crate::session::sections::{app_secret, authority};
use crate::session::types::Authority;

/// `[extractors.NAME]` with `kind = "sql_session"`
#[derive(Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct SqlSessionConfig {
    url: Option<Secret>,
    password: Option<Secret>,
    ca: Option<PublicText>,
    query: Option<String>,
    table: Option<String>,
    columns: BTreeMap<String, String>,
    user_query: Option<String>,
    time_zone: Option<String>,
    from: List<String>,
    cookie: List<String>,
    cookie_format: String,
    cookie_secrets: List<Secret>,
    app_key: Option<Secret>,
    previous_keys: List<Secret>,
    cipher: String,
    key_prefix: String,
    key_hash: String,
    payload: String,
    payload_column: Option<String>,
    expires_path: Option<ExpiresPath>,
    expires_column: Option<String>,
    lifetime: Option<HumanDuration>,
    secret_key: Option<Secret>,
    secret_key_fallbacks: List<Secret>,
    max_waiting: Option<usize>,
    max_connections: usize,
    pool_wait: HumanDuration,
    timeout: HumanDuration,
    /// For presets: the query for each dialect and its alternatives, keyed by the dialect's name.
    #[serde(skip_serializing)]
    queries: BTreeMap<String, Vec<String>>,
}

impl Default for SqlSessionConfig {
    fn default() -> Self {
        Self {
            url: None,
            password: None,
            ca: None,
            query: None,
            table: None,
            columns: BTreeMap::new(),
            user_query: None,
            time_zone: None,
            from: List::default(),
            cookie: List::default(),
            cookie_format: "plain".to_owned(),
            cookie_secrets: List::default(),
            app_key: None,
            previous_keys: List::default(),
            cipher: laravel::CIPHER.to_owned(),
            key_prefix: String::new(),
            key_hash: "none".to_owned(),
            payload: "columns".to_owned(),
            payload_column: None,
            expires_path: None,
            expires_column: None,
            lifetime: None,
            secret_key: None,
            secret_key_fallbacks: List::default(),
            max_waiting: None,
            max_connections: 8,
            pool_wait: HumanDuration::millis(250),
            timeout: HumanDuration::millis(500),
            queries: BTreeMap::new(),
        }
    }
}

pub fn build(section: &Section<'_>, context: &Context) -> BuildResult {
    let mut problems = Problems::default();
    let mut config: SqlSessionConfig = section.read(&mut problems);
    let fields = CredentialFields {
        from: &config.from,
        cookie: &config.cookie,
        cookie_format: &config.cookie_format,
        cookie_secrets: std::mem::take(&mut config.cookie_secrets),
        key_hash: &config.key_hash,
        app_key: config.app_key.take(),
        previous_keys: std::mem::take(&mut config.previous_keys),
        cipher: &config.cipher,
    };
    let credential = SessionCredential::read(section, fields, &mut problems);
    let secrets = django_secrets(section, &mut config, &mut problems);
    let laravel = credential.laravel();
    let payload = payload(section, &mut config, &secrets, laravel, &mut problems);
    let (connections, wait) = (config.max_connections, config.pool_wait);
    let limits = PoolLimits::read(section, connections, wait, config.timeout, &mut problems);
    let waiting = Waiting::read(section, context, config.max_waiting, &mut problems);
    let database = database(section, context, &mut config, limits, &mut problems);
    let dialect = database.as_ref().map(|(dialect, ..)| *dialect);
    let statements =
        dialect.and_then(|dialect| session_query(section, &mut config, dialect, &mut problems));
    let user_check = user_check(section, &config, dialect, &secrets, &mut problems);
    let expiry_column = expiry_column(section, &mut config, &mut problems);
    let end = SessionEnd::read(section, config.expires_path.take(), None, &mut problems);
    match (database, statements, payload) {
        (Some((_, authority, database)), Some(statements), Some(payload))
            if problems.is_empty() =>
        {
            let clock = context.clock.clone();
            let lookup = RowLookup::new(database, clock.clone());
            Ok(Arc::new(SqlSession {
                credential,
                key_prefix: config.key_prefix,
                authority,
                pool: Pool::new(section, context, lookup, limits, waiting),
                statements: Arc::new(Alternatives::new(statements)),
                payload,
                user_check,
                expiry_column,
                end,
                clock,
            }))
        }
        _ => Err(problems),
    }
}

fn database(
    section: &Section<'_>,
    context: &Context,
    config: &mut SqlSessionConfig,
    limits: PoolLimits,
    problems: &mut Problems,
) -> Option<(Dialect, Authority, ConnectConfig)> {
    let url = section.secret("url", config.url.take(), problems);
    let password = section.secret("password", config.password.take(), problems);
    let trust = authority::trust(section, context, config.ca.as_ref(), problems);
    let Some(dialect) = url.as_ref().and_then(Dialect::of) else {
        problems.add(
            section.key("url"),
            "must be the database's URL: postgres://user@db.internal/app, mysql://… or sqlite:///path/to/file",
        );
        return None;
    };
    let time_zone = config.time_zone.take();
    problems.require(
        time_zone.is_none() || dialect == Dialect::Postgres,
        section.key("time_zone"),
        "is supported for PostgreSQL only: remove it",
    );
    let url = url?;
    let trust = Trust {
        pem: trust.pem(),
        is_required: config.ca.is_some(),
    };
    let (password, timeout) = (password.as_ref(), limits.operation);
    let database = ConnectConfig::new(&url, dialect, password, trust, time_zone, timeout);
    let database = problems.accept(section.key("url"), database)?;
    if let Some((host, fix)) = database.without_tls() {
        authority::warn_without_tls(section, host, fix);
    }
    Some((dialect, Authority::store(&url), database))
}

/// The query for the session: the section's own query, or the preset's query for this database with its alternatives.
fn session_query(
    section: &Section<'_>,
    config: &mut SqlSessionConfig,
    dialect: Dialect,
    problems: &mut Problems,
) -> Option<Vec<Statement>> {
    let queries = match config.query.take() {
        Some(query) => {
            for (key, is_set) in [
                ("table", config.table.is_some()),
                ("columns", !config.columns.is_empty()),
            ] {
                problems.require(
                    !is_set,
                    section.key(key),
                    "applies only to a preset's query: write the name into query, or remove query",
                );
            }
            vec![query]
        }
        None => preset_queries(section, config, dialect, problems)?,
    };
    let statements = queries.iter().map(|query| {
        problems
            .accept(section.key("query"), Statement::read(query, dialect))
            .map(|read| read.limited(dialect))
    });
    statements.collect()
}

const NAME_HELP: &str = "must be a name without quotes or backslashes";

/// The preset's queries, filled with the table and column names that the section sets.
fn preset_queries(
    section: &Section<'_>,
    config: &mut SqlSessionConfig,
    dialect: Dialect,
    problems: &mut Problems,
) -> Option<Vec<String>> {
    let Some(mut queries) = config.queries.remove(dialect.name()) else {
        problems.add(
            section.key("query"),
            format!(
                "is missing: write the query that finds a session in {}, such as SELECT … WHERE … = $1",
                dialect.name()
            ),
        );
        return None;
    };
    let names = Names {
        table: config.table.as_deref(),
        columns: &config.columns,
    };
    problems.require(
        names
            .table
            .is_none_or(|table| table.split('.').all(is_name)),
        section.key("table"),
        NAME_HELP,
    );
    let known: BTreeSet<&str> = queries.iter().flat_map(|query| columns_of(query)).collect();
    let list = known.iter().copied().collect::<Vec<_>>().join(", ");
    for (name, column) in names.columns {
        let key = section.key(&format!("columns.{name}"));
        problems.require(
            known.contains(&**name),
            key.clone(),
            format!("is not a column of the preset's query, whose columns are {list}"),
        );
        problems.require(is_name(column), key, NAME_HELP);
    }
    for query in &mut queries {
        *query = names.fill(query, dialect);
    }
    queries.dedup();
    Some(queries)
}

/// Django's `SECRET_KEY`, followed by its `SECRET_KEY_FALLBACKS`. They are used only with `payload = "django"`.
fn django_secrets(
    section: &Section<'_>,
    config: &mut SqlSessionConfig,
    problems: &mut Problems,
) -> Vec<Secret> {
    let current = section.secret("secret_key", config.secret_key.take(), problems);
    app_secret::check(section, "secret_key", current.as_slice(), problems);
    let older = std::mem::take(&mut config.secret_key_fallbacks);
    let older = app_secret::listed(section, "secret_key_fallbacks", older, problems);
    let is_django = config.payload == "django";
    let secrets: Vec<Secret> = current.into_iter().chain(older).collect();
    problems.require(
        is_django != secrets.is_empty(),
        section.key("secret_key"),
        if is_django {
            "is missing: set it to SECRET_KEY of the Django settings"
        } else {
            "is used with payload = \"django\" only: remove it"
        },
    );
    secrets
}

fn payload(
    section: &Section<'_>,
    config: &mut SqlSessionConfig,
    secrets: &[Secret],
    laravel: Option<&Arc<laravel::AppKeySet>>,
    problems: &mut Problems,
) -> Option<Payload> {
    let (name, column) = (config.payload.as_str(), config.payload_column.take());
    if name == "columns" {
        problems.require(
            column.is_none(),
            section.key("payload_column"),
            "is not used with payload = \"columns\": remove it",
        );
        return Some(Payload::Columns);
    }
    let format = StoredFormat::named(name);
    if format.is_none() && !["django", "laravel"].contains(&name) {
        problems.add(
            section.key("payload"),
            "must be one of columns, json, msgpack, php, text, django, laravel",
        );
        return None;
    }
    let column = column.ok_or("is missing: name the column that contains the session's data");
    let column = problems.accept(section.key("payload_column"), column)?;
    if let Some(format) = format {
        let format = StoredSession::new(section, format, problems);
        return Some(Payload::Stored(column, format));
    }
    if name == "django" {
        return Some(Payload::Django(column, DjangoKeys::new(secrets)));
    }
    let keys = laravel.ok_or("is \"laravel\", which needs cookie_format = \"laravel\" as well");
    let keys = problems.accept(section.key("payload"), keys)?;
    Some(Payload::Laravel(column, keys.clone()))
}

fn user_check(
    section: &Section<'_>,
    config: &SqlSessionConfig,
    dialect: Option<Dialect>,
    secrets: &[Secret],
    problems: &mut Problems,
) -> Option<UserCheck> {
    let query = config.user_query.as_deref()?;
    problems.require(
        config.payload == "django",
        section.key("user_query"),
        "is used with payload = \"django\" only: join the users' table in query instead",
    );
    let dialect = dialect?;
    let statement = problems.accept(section.key("user_query"), Statement::read(query, dialect))?;
    Some(UserCheck::new(statement.limited(dialect), secrets))
}

fn expiry_column(
    section: &Section<'_>,
    config: &mut SqlSessionConfig,
    problems: &mut Problems,
) -> Option<ExpiryColumn> {
    let lifetime = config.lifetime.map(HumanDuration::whole_seconds);
    problems.require(
        lifetime.is_none_or(|seconds| seconds > 0),
        section.key("lifetime"),
        "must be at least 1s",
    );
    let column = config.expires_column.take();
    problems.require(
        lifetime.is_none() || column.is_some(),
        section.key("lifetime"),
        "needs expires_column, the column with the time of the last use",
    );
    column.map(|column| ExpiryColumn { column, lifetime })
}
