//! The databases that can be asked, and how a row of each becomes a session's attributes.
//! The query is in `statement.rs`.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use sqlx::error::DatabaseError;
use sqlx::mysql::{MySqlConnectOptions, MySqlDatabaseError, MySqlRow, MySqlSslMode};
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use sqlx::sqlite::{SqliteConnectOptions, SqliteRow};
use sqlx::{
    AssertSqlSafe, Column, ConnectOptions, Database as Driver, Encode, Executor, IntoArguments,
    MySql, MySqlConnection, PgConnection, Postgres, Row, SqlSafeStr, Sqlite, SqliteConnection,
    Statement as _, Type, TypeInfo, ValueRef,
};

use super::statement::{Parameter, Statement};
use crate::clock::{Clock, UnixSeconds};
use crate::json::{Object, Value};
use crate::secret::Secret;
use crate::session::backends::pool::{Failure, Store};
use crate::session::formats::payload::MAX_STORED;
use crate::session::types::ExtractError;

/// Errors of a statement that cannot take its key (SQLSTATE): text that is no UUID, time or number, or a
/// number too large for its type; characters that the database's set lacks; text too short to cut, or that
/// is not in hexadecimal or base64.
const BAD_KEY: [&str; 9] = [
    "22P02", "22003", "22007", "22008", "22009", "22021", "22P05", "22011", "22023",
];

/// The same by the numbers of `MySQL` and `MariaDB`, which have no state for them: characters that the
/// column's set lacks (1267; 3854 and 3988 in newer ones), and text that is no UUID.
const BAD_KEY_NUMBERS: [u16; 4] = [1267, 3854, 3988, 1411];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    Postgres,
    MySql,
    Sqlite,
}

impl Dialect {
    /// Told by the scheme of a URL.
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
}

/// How to connect. Statements can only read, and the server itself ends those that take too long.
#[derive(Clone)]
pub enum Database {
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

impl Database {
    /// # Errors
    /// What is wrong with the URL, in words that repeat no part of it: it may hold a password.
    pub fn new(
        url: &Secret,
        dialect: Dialect,
        password: Option<&Secret>,
        ca: Option<Vec<u8>>,
        time_zone: Option<String>,
        timeout: Duration,
    ) -> Result<Self, &'static str> {
        const HELP: &str = "must be a URL such as postgres://user@db.internal/app";
        let text = std::str::from_utf8(url.expose()).map_err(|_| HELP)?;
        let has_password = url::Url::parse(text).is_ok_and(|url| url.password().is_some());
        let password =
            password.map(|password| std::str::from_utf8(password.expose()).map_err(|_| HELP));
        let password = match password.transpose()? {
            Some(_) if has_password => {
                return Err("holds a password beside the key password: keep one");
            }
            password => password,
        };
        match dialect {
            Dialect::Postgres => {
                let options = PgConnectOptions::from_str(text).map_err(|_| HELP)?;
                let options = password
                    .into_iter()
                    .fold(options, PgConnectOptions::password);
                let settings = [
                    ("default_transaction_read_only", "on".to_owned()),
                    ("statement_timeout", timeout.as_millis().to_string()),
                ];
                let options = ca.into_iter().fold(options, |options, ca| {
                    options
                        .ssl_mode(PgSslMode::VerifyFull)
                        .ssl_root_cert_from_pem(ca)
                });
                let options = options
                    .application_name("rollout-token")
                    .extra_float_digits(None);
                let options = options.options(settings).disable_statement_logging();
                Ok(Self::Postgres { options, time_zone })
            }
            Dialect::MySql => {
                let options = MySqlConnectOptions::from_str(text).map_err(|_| HELP)?;
                let options = password
                    .into_iter()
                    .fold(options, MySqlConnectOptions::password);
                let options = ca.into_iter().fold(options, |options, ca| {
                    options
                        .ssl_mode(MySqlSslMode::VerifyIdentity)
                        .ssl_ca_from_pem(ca)
                });
                Ok(Self::MySql {
                    options: options.disable_statement_logging(),
                    timeout,
                })
            }
            Dialect::Sqlite if ca.is_some() => Err("names a file, for which there is no ca_file"),
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
}

impl Database {
    /// The host, if the connection may do without TLS, and how the URL asks for it.
    pub fn without_tls(&self) -> Option<(&str, &'static str)> {
        match self {
            Self::Postgres { options, .. } => {
                // A host that is a path is the folder of a socket.
                let is_socket =
                    options.get_socket().is_some() || options.get_host().starts_with('/');
                let mode = options.get_ssl_mode();
                let is_required = matches!(
                    mode,
                    PgSslMode::Require | PgSslMode::VerifyCa | PgSslMode::VerifyFull
                );
                let fix = "add sslmode=verify-full, and ca_file if your own authority signed its certificate";
                (!is_socket && !is_required).then_some((options.get_host(), fix))
            }
            Self::MySql { options, .. } => {
                let mode = options.get_ssl_mode();
                let is_required = matches!(
                    mode,
                    MySqlSslMode::Required | MySqlSslMode::VerifyCa | MySqlSslMode::VerifyIdentity
                );
                let fix = "add ssl-mode=VERIFY_IDENTITY, and ca_file if your own authority signed its certificate";
                (options.get_socket().is_none() && !is_required)
                    .then_some((options.get_host(), fix))
            }
            Self::Sqlite(_) => None,
        }
    }
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Database").finish_non_exhaustive()
    }
}

/// A connection of either kind.
#[derive(Debug)]
pub enum Connection {
    Postgres(PgConnection),
    MySql(MySqlConnection),
    Sqlite(SqliteConnection),
}

/// Looks rows up by their key.
#[derive(Debug)]
pub struct Rows {
    database: Database,
    clock: Clock,
}

/// What the rows are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    Sessions,
    Users,
}

/// Which row is looked for.
#[derive(Debug)]
pub struct Question {
    pub table: Table,
    pub statement: Arc<Statement>,
    pub key: String,
}

impl Rows {
    pub fn new(database: Database, clock: Clock) -> Self {
        Self { database, clock }
    }

    /// The rows that the database finds. It is given the key only after it took the statement, so that a
    /// mistake in the statement is not put down to the key.
    async fn find<DB: Driver>(
        &self,
        connection: &mut DB::Connection,
        question: &Question,
    ) -> Result<Vec<DB::Row>, Failure>
    where
        for<'c> &'c mut DB::Connection: Executor<'c, Database = DB>,
        String: for<'q> Encode<'q, DB> + Type<DB>,
        UnixSeconds: for<'q> Encode<'q, DB> + Type<DB>,
        DB::Arguments: IntoArguments<DB>,
    {
        let Statement { sql, parameters } = &*question.statement;
        let types = parameters.iter().map(|parameter| match parameter {
            Parameter::Key => <String as Type<DB>>::type_info(),
            Parameter::Now => <UnixSeconds as Type<DB>>::type_info(),
        });
        let types: Vec<_> = types.collect();
        let sql = AssertSqlSafe(sql.clone()).into_sql_str();
        let statement = connection
            .prepare_with(sql, &types)
            .await
            .map_err(|error| failure(&error, None))?;
        let query = parameters
            .iter()
            .fold(statement.query(), |query, parameter| match parameter {
                Parameter::Key => query.bind(question.key.clone()),
                Parameter::Now => query.bind(self.clock.now()),
            });
        connection
            .fetch_all(query)
            .await
            .map_err(|error| failure(&error, Some(&question.key)))
    }
}

impl Store for Rows {
    type Connection = Connection;
    type Question = Question;
    type Answer = Option<Object>;

    fn system(&self) -> &'static str {
        match self.database {
            Database::Postgres { .. } => "postgresql",
            Database::MySql { .. } => "mysql",
            Database::Sqlite(_) => "sqlite",
        }
    }

    fn statement(question: &Question) -> u8 {
        match question.table {
            Table::Sessions => 0,
            Table::Users => 1,
        }
    }

    async fn connect(&self) -> Result<Connection, Failure> {
        match &self.database {
            Database::Postgres { options, time_zone } => {
                let mut connection = options
                    .connect()
                    .await
                    .map_err(|error| failure(&error, None))?;
                if let Some(time_zone) = time_zone {
                    let set =
                        sqlx::query("SELECT set_config('TimeZone', $1, false)").bind(time_zone);
                    connection
                        .execute(set)
                        .await
                        .map_err(|error| failure(&error, None))?;
                }
                Ok(Connection::Postgres(connection))
            }
            Database::MySql { options, timeout } => {
                let mut connection = options
                    .connect()
                    .await
                    .map_err(|error| failure(&error, None))?;
                restrict(&mut connection, *timeout)
                    .await
                    .map_err(|error| failure(&error, None))?;
                Ok(Connection::MySql(connection))
            }
            Database::Sqlite(options) => {
                let connection = options
                    .connect()
                    .await
                    .map_err(|error| failure(&error, None))?;
                Ok(Connection::Sqlite(connection))
            }
        }
    }

    async fn ask(
        &self,
        connection: &mut Connection,
        question: &Question,
    ) -> Result<Option<Object>, Failure> {
        let failed = |error: sqlx::Error| failure(&error, None);
        match connection {
            Connection::Postgres(connection) => {
                let rows = self.find::<Postgres>(connection, question).await?;
                only(rows)?
                    .map(|row| of_json(row.try_get(0).map_err(failed)?))
                    .transpose()
            }
            Connection::MySql(connection) => {
                let rows = self.find::<MySql>(connection, question).await?;
                only(rows)?
                    .map(|row| bounded(of_mysql(&row).map_err(failed)?))
                    .transpose()
            }
            Connection::Sqlite(connection) => {
                let rows = self.find::<Sqlite>(connection, question).await?;
                only(rows)?
                    .map(|row| bounded(of_sqlite(&row).map_err(failed)?))
                    .transpose()
            }
        }
    }
}

/// `MySQL` and `MariaDB` have different names for the longest time of a statement, and units.
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

fn only<R>(rows: Vec<R>) -> Result<Option<R>, Failure> {
    let mut rows = rows.into_iter();
    match (rows.next(), rows.next()) {
        (row, None) => Ok(row),
        (_, Some(_)) => Err(Failure::Said(
            ExtractError::unavailable("store_ambiguous")
                .because("the query finds several rows for one key"),
        )),
    }
}

/// What an error means; `key` is what the statement was given, if it was. The database's text is kept
/// unless it repeats the key.
fn failure(error: &sqlx::Error, key: Option<&str>) -> Failure {
    let sqlx::Error::Database(database) = error else {
        return Failure::Lost(error.to_string());
    };
    let code = database.code().unwrap_or_default();
    if key.is_some() && is_bad_key(&**database, &code) {
        let detail = format!("the query takes no key that looks like this one (error {code})");
        return Failure::Said(ExtractError::rejected("malformed").because(detail));
    }
    let text = match key {
        Some(key) if database.message().contains(key) => format!("error {code}"),
        _ => format!("error {code}: {}", database.message()),
    };
    // The server is shutting down, or ended the connection.
    if code.starts_with("57P") || code.starts_with("08") {
        return Failure::Lost(text);
    }
    Failure::Said(ExtractError::unavailable("store_refused").because(text))
}

fn is_bad_key(error: &dyn DatabaseError, code: &str) -> bool {
    let number = error
        .try_downcast_ref::<MySqlDatabaseError>()
        .map(MySqlDatabaseError::number);
    BAD_KEY.contains(&code) || number.is_some_and(|number| BAD_KEY_NUMBERS.contains(&number))
}

fn too_long() -> ExtractError {
    ExtractError::rejected("session_corrupt").because("the row is longer than 1 MiB")
}

/// A row that came whole, however long it is: only a query can cut the columns that it selects.
fn bounded((row, length): (Object, usize)) -> Result<Object, Failure> {
    if length > MAX_STORED {
        Err(Failure::Oversized(too_long()))
    } else {
        Ok(row)
    }
}

/// A row that the database cut behind the longest one that is taken.
fn of_json(text: &str) -> Result<Object, Failure> {
    if text.len() > MAX_STORED {
        return Err(Failure::Said(too_long()));
    }
    match Value::parse(text.as_bytes()) {
        Ok(Value::Object(row)) => Ok(row),
        // PostgreSQL keeps json as it was written, and takes deeper nesting than we do.
        _ => Err(Failure::Said(
            ExtractError::rejected("session_corrupt").because("the row is not JSON"),
        )),
    }
}

/// The columns of a row, and how long their texts are together. Columns of other types are left out: the query
/// can cast them to text.
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
                let Ok(text) = String::from_utf8(bytes) else {
                    continue;
                };
                Value::String(text)
            }
            _ => continue,
        };
        columns.push((column.name().to_owned(), value));
    }
    Ok((columns.into_iter().collect(), length))
}

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
            _ => continue,
        };
        columns.push((column.name().to_owned(), value));
    }
    Ok((columns.into_iter().collect(), length))
}
