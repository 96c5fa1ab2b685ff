//! Connects to the supported databases, queries one row, and converts it to JSON. The query is in `statement.rs`, and
//! `errors.rs` maps the databases' errors.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use sqlx::mysql::{MySqlConnectOptions, MySqlRow, MySqlSslMode};
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use sqlx::sqlite::{SqliteConnectOptions, SqliteRow};
use sqlx::{
    AssertSqlSafe, Column, ConnectOptions, Database as Driver, Encode, Executor, IntoArguments,
    MySql, MySqlConnection, PgConnection, Postgres, Row, SqlSafeStr, Sqlite, SqliteConnection,
    Statement as _, Type, TypeInfo, ValueRef,
};

use super::errors;
use super::statement::{Alternatives, Parameter, Statement};
use crate::clock::{Clock, UnixSeconds};
use crate::json::{Object, Value};
use crate::secret::Secret;
use crate::session::backends::pool::{Store, StoreError};
use crate::session::formats::hex;
use crate::session::formats::payload::MAX_STORED;
use crate::session::reason::Reason;
use crate::session::types::ExtractError;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    Postgres,
    MySql,
    Sqlite,
}

impl Dialect {
    /// The dialect of a URL, by its scheme; `None` if the scheme is not supported.
    pub fn of(url: &Secret) -> Option<Self> {
        let text = std::str::from_utf8(url.expose()).ok()?;
        match text.split_once(':')?.0 {
            "postgres" | "postgresql" => Some(Self::Postgres),
            "mysql" | "mariadb" => Some(Self::MySql),
            "sqlite" => Some(Self::Sqlite),
            _ => None,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::MySql => "mysql",
            Self::Sqlite => "sqlite",
        }
    }

    /// The quoted name of a table or column. `SQLite` reads an unknown name in double quotes as a string, so its names
    /// are quoted with backticks, like those of `MySQL`.
    pub fn quoted(self, name: &str) -> String {
        match self {
            Self::Postgres => format!("\"{name}\""),
            Self::MySql | Self::Sqlite => format!("`{name}`"),
        }
    }
}

/// The certificates in PEM that are trusted in addition to the public CAs.
#[derive(Debug, Default)]
pub struct Trust {
    pub pem: Option<Vec<u8>>,
    /// Whether the connection must use TLS, because the section sets its own `ca`.
    pub is_required: bool,
}

/// The settings of connections. Connections are read-only, and database servers cancel statements that exceed the
/// timeout.
#[derive(Clone)]
pub enum ConnectConfig {
    Postgres {
        options: PgConnectOptions,
        time_zone: Option<String>,
    },
    MySql {
        options: MySqlConnectOptions,
        timeout: Duration,
    },
    Sqlite(SqliteConnectOptions),
}

impl ConnectConfig {
    /// # Errors
    /// If the URL is invalid, if it and `password` both contain a password, if the password is not UTF-8, or if the
    /// section sets its own `ca` for `SQLite`. The message contains no part of the URL, because the URL may contain a
    /// password.
    pub fn new(
        url: &Secret,
        dialect: Dialect,
        password: Option<&Secret>,
        trust: Trust,
        time_zone: Option<String>,
        timeout: Duration,
    ) -> Result<Self, &'static str> {
        const HELP: &str = "must be a URL such as postgres://user@db.internal/app";
        let text = std::str::from_utf8(url.expose()).map_err(|_| HELP)?;
        let parsed = url::Url::parse(text).ok();
        let has_password = parsed.as_ref().is_some_and(|url| url.password().is_some());
        // Certificates named in the URL take precedence over those of `[outgoing]`, but not over the section's own
        // `ca`.
        let names_certificates = parsed.is_some_and(|url| {
            url.query_pairs()
                .any(|(name, _)| matches!(&*name, "sslrootcert" | "ssl-root-cert" | "ssl-ca"))
        });
        let pem = trust
            .pem
            .filter(|_| trust.is_required || !names_certificates);
        if password.is_some() && has_password {
            return Err("contains a password, and the section sets password too: keep one");
        }
        let password = password.map(|password| std::str::from_utf8(password.expose()));
        let password = password
            .transpose()
            .map_err(|_| "needs a password in UTF-8")?;
        match dialect {
            Dialect::Postgres => {
                let mut options = PgConnectOptions::from_str(text)
                    .map_err(|_| HELP)?
                    .application_name("rollout-token")
                    .extra_float_digits(None)
                    .options([
                        ("default_transaction_read_only", "on".to_owned()),
                        ("statement_timeout", timeout.as_millis().to_string()),
                    ])
                    .disable_statement_logging();
                if let Some(password) = password {
                    options = options.password(password);
                }
                if trust.is_required {
                    options = options.ssl_mode(PgSslMode::VerifyFull);
                }
                if let Some(pem) = pem {
                    options = options.ssl_root_cert_from_pem(pem);
                }
                Ok(Self::Postgres { options, time_zone })
            }
            Dialect::MySql => {
                let mut options = MySqlConnectOptions::from_str(text)
                    .map_err(|_| HELP)?
                    .disable_statement_logging();
                if let Some(password) = password {
                    options = options.password(password);
                }
                if trust.is_required {
                    options = options.ssl_mode(MySqlSslMode::VerifyIdentity);
                }
                if let Some(pem) = pem {
                    options = options.ssl_ca_from_pem(pem);
                }
                Ok(Self::MySql { options, timeout })
            }
            Dialect::Sqlite if trust.is_required => {
                Err("names a file, so ca_file has no effect: remove it")
            }
            Dialect::Sqlite => {
                let options = SqliteConnectOptions::from_str(text).map_err(|_| HELP)?;
                let options = options
                    .read_only(true)
                    .create_if_missing(false)
                    .busy_timeout(timeout);
                Ok(Self::Sqlite(options.disable_statement_logging()))
            }
        }
    }

    /// The host, and how to require TLS in the URL; `None` if the connection uses a Unix socket or a file, or already
    /// requires TLS.
    pub fn without_tls(&self) -> Option<(&str, &'static str)> {
        match self {
            Self::Postgres { options, .. } => {
                // A host that is a path names the directory of a Unix socket.
                let is_socket =
                    options.get_socket().is_some() || options.get_host().starts_with('/');
                let mode = options.get_ssl_mode();
                let is_required = matches!(
                    mode,
                    PgSslMode::Require | PgSslMode::VerifyCa | PgSslMode::VerifyFull
                );
                let fix = "add sslmode=verify-full, and ca_file if your own CA issued the server's certificate";
                (!is_socket && !is_required).then_some((options.get_host(), fix))
            }
            Self::MySql { options, .. } => {
                let mode = options.get_ssl_mode();
                let is_required = matches!(
                    mode,
                    MySqlSslMode::Required | MySqlSslMode::VerifyCa | MySqlSslMode::VerifyIdentity
                );
                let fix = "add ssl-mode=VERIFY_IDENTITY, and ca_file if your own CA issued the server's certificate";
                (options.get_socket().is_none() && !is_required)
                    .then_some((options.get_host(), fix))
            }
            Self::Sqlite(_) => None,
        }
    }
}

impl fmt::Debug for ConnectConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectConfig").finish_non_exhaustive()
    }
}

/// An open connection.
#[derive(Debug)]
pub enum Connection {
    Postgres(PgConnection),
    MySql(MySqlConnection),
    Sqlite(SqliteConnection),
}

/// Finds rows by their key.
#[derive(Debug)]
pub struct RowLookup {
    config: ConnectConfig,
    clock: Clock,
}

/// The table that a query reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    Sessions,
    Users,
}

/// A query for one row. It has no `Debug`, which could show the key.
pub struct RowQuery {
    pub table: Table,
    pub statements: Arc<Alternatives>,
    pub key: String,
}

impl RowLookup {
    pub fn new(config: ConnectConfig, clock: Clock) -> Self {
        Self { config, clock }
    }

    /// The rows that the query finds. The statement is prepared before the key is sent, so that an error in the
    /// statement is not mistaken for an error in the key, and a statement for another schema is skipped.
    async fn find<DB: Driver>(
        &self,
        connection: &mut DB::Connection,
        row_query: &RowQuery,
    ) -> Result<Vec<DB::Row>, StoreError>
    where
        for<'c> &'c mut DB::Connection: Executor<'c, Database = DB>,
        String: for<'q> Encode<'q, DB> + Type<DB>,
        UnixSeconds: for<'q> Encode<'q, DB> + Type<DB>,
        DB::Arguments: IntoArguments<DB>,
    {
        let mut refused = None;
        for (number, Statement { sql, parameters }) in row_query.statements.iter() {
            let types = parameters.iter().map(|parameter| match parameter {
                Parameter::Key => <String as Type<DB>>::type_info(),
                Parameter::Now => <UnixSeconds as Type<DB>>::type_info(),
            });
            let types: Vec<_> = types.collect();
            let sql = AssertSqlSafe(sql.clone()).into_sql_str();
            match connection.prepare_with(sql, &types).await {
                Ok(statement) => {
                    row_query.statements.accept(number);
                    let query = statement.query();
                    let query = parameters.iter().fold(query, |query, it| match it {
                        Parameter::Key => query.bind(row_query.key.clone()),
                        Parameter::Now => query.bind(self.clock.now()),
                    });
                    let rows = connection.fetch_all(query).await;
                    return rows.map_err(|error| errors::with_key(&error));
                }
                Err(error) => match errors::before_key(&error) {
                    error @ StoreError::Said(_) => {
                        refused.get_or_insert(error);
                    }
                    lost => return Err(lost),
                },
            }
        }
        Err(refused.unwrap_or_else(|| StoreError::Lost("there is no statement".to_owned())))
    }
}

impl Store for RowLookup {
    type Connection = Connection;
    type Question = RowQuery;
    type Answer = Option<Object>;

    fn system(&self) -> &'static str {
        match self.config {
            ConnectConfig::Postgres { .. } => "postgresql",
            ConnectConfig::MySql { .. } => "mysql",
            ConnectConfig::Sqlite(_) => "sqlite",
        }
    }

    fn statement(query: &RowQuery) -> u8 {
        match query.table {
            Table::Sessions => 0,
            Table::Users => 1,
        }
    }

    fn address(&self) -> String {
        let at = |socket: Option<&PathBuf>, host: &str, port: u16| match socket {
            Some(socket) => socket.display().to_string(),
            None => format!("{host}:{port}"),
        };
        match &self.config {
            ConnectConfig::Postgres { options, .. } => {
                at(options.get_socket(), options.get_host(), options.get_port())
            }
            ConnectConfig::MySql { options, .. } => {
                at(options.get_socket(), options.get_host(), options.get_port())
            }
            ConnectConfig::Sqlite(options) => options.get_filename().display().to_string(),
        }
    }

    async fn connect(&self) -> Result<Connection, StoreError> {
        match &self.config {
            ConnectConfig::Postgres { options, time_zone } => {
                let mut connection = options.connect().await?;
                if let Some(time_zone) = time_zone {
                    let set = sqlx::query("SELECT set_config('TimeZone', $1, false)");
                    connection.execute(set.bind(time_zone)).await?;
                }
                Ok(Connection::Postgres(connection))
            }
            ConnectConfig::MySql { options, timeout } => {
                let mut connection = options.connect().await?;
                restrict(&mut connection, *timeout).await?;
                Ok(Connection::MySql(connection))
            }
            ConnectConfig::Sqlite(options) => Ok(Connection::Sqlite(options.connect().await?)),
        }
    }

    async fn ask(
        &self,
        connection: &mut Connection,
        query: &RowQuery,
    ) -> Result<Option<Object>, StoreError> {
        match connection {
            Connection::Postgres(connection) => {
                let rows = self.find::<Postgres>(connection, query).await?;
                let Some(row) = only(rows)? else {
                    return Ok(None);
                };
                let mark = row.try_get(1)?;
                if !query.statements.iter().any(|(_, it)| it.has_mark(mark)) {
                    return Err(StoreError::Lost(format!(
                        "another query was run: {}",
                        errors::POOLER
                    )));
                }
                of_json(row.try_get(0)?).map(Some)
            }
            Connection::MySql(connection) => {
                let rows = self.find::<MySql>(connection, query).await?;
                only(rows)?.map(|row| bounded(of_mysql(&row)?)).transpose()
            }
            Connection::Sqlite(connection) => {
                let rows = self.find::<Sqlite>(connection, query).await?;
                only(rows)?.map(|row| bounded(of_sqlite(&row)?)).transpose()
            }
        }
    }
}

/// Makes a connection read-only and limits the duration of statements. The name and unit of that limit differ between
/// `MySQL` and `MariaDB`.
async fn restrict(connection: &mut MySqlConnection, timeout: Duration) -> Result<(), sqlx::Error> {
    connection
        .execute("SET SESSION TRANSACTION READ ONLY")
        .await?;
    let mysql = format!("SET SESSION max_execution_time = {}", timeout.as_millis());
    match connection.execute(AssertSqlSafe(mysql)).await {
        Err(sqlx::Error::Database(_)) => {
            let mariadb = format!("SET SESSION max_statement_time = {}", timeout.as_secs_f64());
            connection.execute(AssertSqlSafe(mariadb)).await.map(drop)
        }
        answer => answer.map(drop),
    }
}

/// The only row; `None` if there is no row. Several rows are an error, because they may belong to different users.
fn only<R>(rows: Vec<R>) -> Result<Option<R>, StoreError> {
    let mut rows = rows.into_iter();
    match (rows.next(), rows.next()) {
        (row, None) => Ok(row),
        (_, Some(_)) => Err(StoreError::Said(
            ExtractError::unavailable(Reason::StoreAmbiguous)
                .because("the query finds several rows for one key"),
        )),
    }
}

fn too_long() -> ExtractError {
    ExtractError::rejected(Reason::SessionCorrupt).because("the row is longer than 1 MiB")
}

/// Checks the length of a row of `MySQL` or `SQLite`. Such rows are read completely, because only the configured query
/// could truncate their columns.
fn bounded((row, length): (Object, usize)) -> Result<Object, StoreError> {
    if length > MAX_STORED {
        Err(StoreError::Oversized(too_long()))
    } else {
        Ok(row)
    }
}

/// Parses a row of `PostgreSQL`, which the query truncates one character beyond the maximum length.
fn of_json(text: &str) -> Result<Object, StoreError> {
    if text.len() > MAX_STORED {
        return Err(StoreError::Said(too_long()));
    }
    // PostgreSQL stores values of type json as they were written, and accepts deeper nesting than this service's
    // parser.
    Object::parse(text.as_bytes()).ok_or_else(|| {
        StoreError::Said(
            ExtractError::rejected(Reason::SessionCorrupt)
                .because("the row is not a JSON object, or is nested too deeply"),
        )
    })
}

/// The columns of a row, and the total length of their text and binary data. Columns of types that are not listed
/// below are left out; the query can cast them to text.
fn of_mysql(row: &MySqlRow) -> Result<(Object, usize), sqlx::Error> {
    let mut columns = Vec::new();
    let mut length = 0;
    for (index, column) in row.columns().iter().enumerate() {
        let value = row.try_get_raw(index)?;
        let kind = value.type_info().name().to_owned();
        let value = match kind.as_str() {
            _ if value.is_null() => Value::Null,
            "BOOLEAN" => Value::Bool(row.try_get_unchecked::<i8, _>(index)? != 0),
            "TINYINT" | "SMALLINT" | "INT" | "MEDIUMINT" | "BIGINT" => {
                Value::Number(row.try_get_unchecked::<i64, _>(index)?.into())
            }
            "TINYINT UNSIGNED" | "SMALLINT UNSIGNED" | "INT UNSIGNED" | "MEDIUMINT UNSIGNED"
            | "BIGINT UNSIGNED" => Value::Number(row.try_get_unchecked::<u64, _>(index)?.into()),
            "CHAR" | "VARCHAR" | "TINYTEXT" | "TEXT" | "MEDIUMTEXT" | "LONGTEXT" | "ENUM"
            | "JSON" => {
                let text: String = row.try_get_unchecked(index)?;
                length += text.len();
                Value::String(text)
            }
            "BINARY" | "VARBINARY" | "TINYBLOB" | "BLOB" | "MEDIUMBLOB" | "LONGBLOB" => {
                let bytes: Vec<u8> = row.try_get_unchecked(index)?;
                length += bytes.len();
                Value::String(text_or_hex(bytes))
            }
            _ => continue,
        };
        columns.push((column.name().to_owned(), value));
    }
    Ok((columns.into_iter().collect(), length))
}

/// Like [`of_mysql`], for `SQLite`.
fn of_sqlite(row: &SqliteRow) -> Result<(Object, usize), sqlx::Error> {
    let mut columns = Vec::new();
    let mut length = 0;
    for (index, column) in row.columns().iter().enumerate() {
        let value = row.try_get_raw(index)?;
        let kind = value.type_info().name().to_owned();
        let value = match kind.as_str() {
            _ if value.is_null() => Value::Null,
            "INTEGER" => Value::Number(row.try_get_unchecked::<i64, _>(index)?.into()),
            "TEXT" => {
                let text: String = row.try_get_unchecked(index)?;
                length += text.len();
                Value::String(text)
            }
            "BLOB" => {
                let bytes: Vec<u8> = row.try_get_unchecked(index)?;
                length += bytes.len();
                Value::String(text_or_hex(bytes))
            }
            _ => continue,
        };
        columns.push((column.name().to_owned(), value));
    }
    Ok((columns.into_iter().collect(), length))
}

/// Binary data as text. Data that is not UTF-8 is written as `PostgreSQL` writes `bytea`: `\x` and hexadecimal digits.
fn text_or_hex(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap_or_else(|error| format!("\\x{}", hex::encode(error.as_bytes())))
}
