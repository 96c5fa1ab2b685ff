//! Maps the errors of databases to outcomes, and decides which of their messages are logged: never one that could
//! contain the key or a value of a row.

use sqlx::error::DatabaseError;
use sqlx::mysql::MySqlDatabaseError;
use sqlx::postgres::{PgDatabaseError, PgErrorPosition};

use crate::session::backends::outgoing::with_advice;
use crate::session::backends::pool::StoreError;
use crate::session::reason::Reason;
use crate::session::types::ExtractError;

/// SQLSTATE codes that mean that the key is not valid for the statement: it is not a UUID, time or number; it is a
/// number out of range for its type; it contains characters that the database's character set lacks; it is too short
/// for a substring; or it is not valid hexadecimal or base64.
const BAD_KEY: [&str; 9] = [
    "22P02", "22003", "22007", "22008", "22009", "22021", "22P05", "22011", "22023",
];

/// The error numbers of `MySQL` and `MariaDB` that mean an invalid key and have no SQLSTATE of their own: the key
/// contains characters that the column's character set lacks (1267; 3854 and 3988 in newer versions), or is not a UUID
/// (1411).
const BAD_KEY_NUMBERS: [u16; 4] = [1267, 3854, 3988, 1411];

/// `PostgreSQL`'s codes for a prepared statement that does not exist, or already exists.
const LOST_STATEMENT: [&str; 2] = ["26000", "42P05"];

/// Why a prepared statement is lost, and the fix.
pub const POOLER: &str = "a connection pooler in transaction mode does not keep prepared statements: use its session mode, \
                      or PgBouncer 1.21 or later with max_prepared_statements";

/// The SQLSTATE classes whose messages describe the connection, the transaction or the state of the server.
const ABOUT_THE_SERVER: [&str; 6] = ["08", "25", "40", "53", "57", "70"];

/// `MySQL`'s errors for a missing permission on a database, table, column or function.
const MISSING_PERMISSION: [u16; 4] = [1044, 1142, 1143, 1370];

/// `SQLite`'s result codes whose messages may quote a value: functions in the query, and constraints, compose them.
const SQLITE_ERROR: u32 = 1;
const SQLITE_CONSTRAINT: u32 = 19;

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        before_key(&error)
    }
}

/// Maps an error from before the database has received the key. Its message is logged: it can quote only what the
/// operator wrote.
pub fn before_key(error: &sqlx::Error) -> StoreError {
    match error {
        sqlx::Error::Database(database) => refused(&**database, true),
        _ => StoreError::Lost(with_advice(error)),
    }
}

/// Maps an error of a statement that was run with the key of a row. The error's message is logged only if it names
/// schema objects, permissions or the state of the server, or is one of `SQLite`'s fixed texts. Any other message of a
/// database can quote the key or a value of the row, possibly in another form than the one that was sent or stored.
pub fn with_key(error: &sqlx::Error) -> StoreError {
    match error {
        sqlx::Error::Database(database) if is_bad_key(&**database) => {
            let (code, _) = codes(&**database);
            let detail = format!(
                "the database cannot convert this session id, or a value of its row, to the type in the query (error {code})"
            );
            StoreError::Said(ExtractError::malformed().because(detail))
        }
        sqlx::Error::Database(database) => refused(&**database, quotes_no_value(&**database)),
        _ => StoreError::Lost(with_advice(error)),
    }
}

fn refused(database: &dyn DatabaseError, shows_message: bool) -> StoreError {
    let (code, state) = codes(database);
    let mut text = if shows_message {
        format!("error {code}: {}", database.message())
    } else {
        format!(
            "error {code}: the message is only in the database's own log, because it can contain the key or a value of \
             the row"
        )
    };
    if LOST_STATEMENT.contains(&&*state) {
        text = format!("{text}: {POOLER}");
    }
    // The server is starting up or shutting down, or has closed the connection.
    if state.starts_with("57P") || state.starts_with("08") {
        return StoreError::Lost(text);
    }
    StoreError::Said(ExtractError::unavailable(Reason::StoreRefused).because(text))
}

/// The error's code for the log, and its SQLSTATE. `MySQL` has a number for each error, and one SQLSTATE for many
/// numbers. `SQLite` has a result code only.
fn codes(error: &dyn DatabaseError) -> (String, String) {
    let state = error.code().unwrap_or_default().into_owned();
    let code = match error.try_downcast_ref::<MySqlDatabaseError>() {
        Some(error) => format!("{} ({state})", error.number()),
        None => state.clone(),
    };
    (code, state)
}

fn is_bad_key(error: &dyn DatabaseError) -> bool {
    let number = error
        .try_downcast_ref::<MySqlDatabaseError>()
        .map(MySqlDatabaseError::number);
    let code = error.code().unwrap_or_default();
    BAD_KEY.contains(&&*code) || number.is_some_and(|number| BAD_KEY_NUMBERS.contains(&number))
}

/// Whether the message of a statement that was run with its key quotes neither the key nor a value of a row.
///
/// Class 42 contains errors in names and syntax, and 42501 is a missing permission. `PostgreSQL` also uses this class
/// for values that a query converts to a name or an expression, such as `$1::regclass`, but only an error in the text
/// of the query itself has a position in it. `MySQL` also uses 42000 for invalid arguments of functions, so only its
/// codes that begin with 42S and its numbers for a missing permission count.
fn quotes_no_value(error: &dyn DatabaseError) -> bool {
    let code = error.code().unwrap_or_default();
    let is_about_the_server = ABOUT_THE_SERVER.iter().any(|class| code.starts_with(class));
    if let Some(error) = error.try_downcast_ref::<PgDatabaseError>() {
        let is_in_query = matches!(error.position(), Some(PgErrorPosition::Original(_)));
        is_about_the_server || code == "42501" || (code.starts_with("42") && is_in_query)
    } else if let Some(error) = error.try_downcast_ref::<MySqlDatabaseError>() {
        is_about_the_server
            || code.starts_with("42S")
            || MISSING_PERMISSION.contains(&error.number())
    } else {
        // The low byte of an extended result code is the result code.
        let code = code.parse().map_or(SQLITE_ERROR, |code: u32| code & 0xff);
        ![SQLITE_ERROR, SQLITE_CONSTRAINT].contains(&code)
    }
}
