//! `sql_session`: the app stores its sessions in a table, and the cookie or header contains the key of a row. The
//! presets for frameworks' tables are in `sql_session/presets.rs`.

mod config;
mod database;
mod django;
mod errors;
mod payload;
mod presets;
mod statement;
mod users;

use std::sync::Arc;

use axum::http::request::Parts;
use futures_util::future::BoxFuture;

use crate::clock::{Clock, UnixSeconds};
use crate::json::{DuplicateMember, Object, Value};
use crate::session::backends::pool::Pool;
use crate::session::formats::expiry::Expiry;
use crate::session::kind::Kind;
use crate::session::reason::Reason;
use crate::session::sections::session_credential::{SessionCredential, StoreKey};
use crate::session::sections::session_end::SessionEnd;
use crate::session::types::{
    Authority, BackendCall, BackendReport, ExtractError, Extracted, Reach, Readiness, Session,
    SessionExtractor,
};
use database::{RowLookup, RowQuery, Table};
use payload::Payload;
use statement::Alternatives;
use users::UserCheck;

pub const KIND: Kind = Kind::new(config::build)
    .with_subject("{user_id}")
    .with_presets(presets::PRESETS);

#[derive(Debug)]
struct SqlSession {
    credential: SessionCredential,
    /// The prefix of the key in the table.
    key_prefix: String,
    authority: Authority,
    pool: Arc<Pool<RowLookup>>,
    statements: Arc<Alternatives>,
    payload: Payload,
    /// Checks that the session's user exists, and that the password was not changed after the session was created.
    /// `None` if `user_query` is not set.
    user_check: Option<UserCheck>,
    expiry_column: Option<ExpiryColumn>,
    /// An expiry in the session itself, which applies in addition to the expiry in the column.
    end: SessionEnd,
    clock: Clock,
}

/// The column that contains the session's expiry. Without such a column and without `expires_path`, the query itself
/// must exclude expired sessions.
#[derive(Debug)]
struct ExpiryColumn {
    column: String,
    /// If set, the column contains the time of last use, and the session expires this many seconds later.
    lifetime: Option<UnixSeconds>,
}

impl SessionExtractor for SqlSession {
    fn extract<'a>(&'a self, request: &'a Parts) -> BoxFuture<'a, Extracted> {
        Box::pin(async move {
            match self.credential.key(&request.headers, self.clock.now())? {
                Some(id) => {
                    let session = self.session(id).await.map(Some);
                    self.end.apply(session, self.clock.now())
                }
                None => Ok(None),
            }
        })
    }

    fn reach(&self) -> Reach {
        Reach {
            authority: Some(self.authority.clone()),
            ..Reach::opaque(self.credential.places())
        }
    }

    fn start(&self) {
        self.pool.warm();
    }

    fn readiness(&self) -> Readiness {
        self.pool.readiness()
    }

    fn backend(&self) -> Option<BackendCall> {
        Some(self.pool.call(1 + u32::from(self.user_check.is_some())))
    }

    fn probe(&self) -> BoxFuture<'_, Vec<BackendReport>> {
        Box::pin(async move {
            let query = RowQuery {
                table: Table::Sessions,
                statements: self.statements.clone(),
                key: "rollout-token-doctor".to_owned(),
            };
            let mut reports = vec![self.pool.probe("the query", &query).await];
            if let Some(check) = &self.user_check {
                let query = check.query("0");
                reports.push(self.pool.probe("the query for users", &query).await);
            }
            reports
        })
    }
}

impl SqlSession {
    async fn session(&self, id: StoreKey) -> Result<Session, ExtractError> {
        let query = RowQuery {
            table: Table::Sessions,
            statements: self.statements.clone(),
            key: format!("{}{}", self.key_prefix, id.key),
        };
        let not_found = |detail| ExtractError::rejected(Reason::SessionNotFound).because(detail);
        let Some(row) = self.pool.ask(&query).await? else {
            return Err(not_found("the query finds no row"));
        };
        if id.row.is_some_and(|id| !may_have_id(&row, &id)) {
            return Err(not_found(
                "the id of the row differs from the id in the token",
            ));
        }
        let ends_at = match &self.expiry_column {
            Some(column) => column.check(&row, self.clock.now())?,
            None => None,
        };
        let expires_at = ends_at.into_iter().chain(id.expires_at).min();
        let mut attributes = self.payload.merge(row)?;
        if let (Some(check), Value::Object(session)) = (&self.user_check, &attributes)
            && !check.is_signed_in(session, &self.pool).await?
        {
            attributes = Value::Null;
        }
        Ok(Session {
            attributes,
            expires_at,
        })
    }
}

/// Whether the row's column `id` has this value. True if the query returns no such column.
fn may_have_id(row: &Object, id: &str) -> bool {
    match row.get("id") {
        Ok(None) => true,
        Ok(Some(Value::String(text))) => text == id,
        Ok(Some(Value::Number(number))) => number.to_string() == id,
        Ok(Some(_)) | Err(_) => false,
    }
}

impl ExpiryColumn {
    /// The expiry according to the column; `None` if the column is NULL, so that it sets no expiry.
    ///
    /// # Errors
    /// If the session has expired at `now`, or if the column is missing, occurs twice or is not a time.
    fn check(&self, row: &Object, now: UnixSeconds) -> Result<Option<UnixSeconds>, ExtractError> {
        let column = &self.column;
        let expiry = match value_of(row, column)? {
            Value::Null => return Ok(None),
            value => Expiry::read(value),
        };
        let Some(expiry) = expiry else {
            return Err(misfit(format!(
                "{column} is not a time: expected Unix seconds or milliseconds, or a date and time"
            )));
        };
        // As in Laravel, the session is still valid in the second in which its lifetime ends.
        let expiry = self
            .lifetime
            .map_or(expiry, |seconds| expiry.plus(seconds.saturating_add(1)));
        expiry.check(now).map(Some)
    }
}

/// The value in the row's column called `name`.
fn value_of<'a>(row: &'a Object, name: &str) -> Result<&'a Value, ExtractError> {
    match row.get(name) {
        Ok(Some(value)) => Ok(value),
        Ok(None) => Err(misfit(format!("the query returns no column named {name}"))),
        Err(DuplicateMember) => Err(misfit(format!(
            "the query returns two columns named {name}"
        ))),
    }
}

/// The error for a row that does not fit the configuration. It is `Unavailable`, because such a row does not show
/// whether the caller is signed in.
fn misfit(detail: String) -> ExtractError {
    ExtractError::unavailable(Reason::StoreMisfit).because(detail)
}

#[cfg(test)]
mod tests;
