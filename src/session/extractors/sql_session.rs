//! `sql_session`: the app keeps its sessions in a table, and the cookie contains the key of a row.
//! The tables of frameworks are in `sql_session/presets.rs`.

mod config;
mod database;
mod django;
mod payload;
mod presets;
mod statement;
mod users;

use std::sync::Arc;

use axum::http::request::Parts;
use futures_util::future::BoxFuture;

use crate::clock::{Clock, UnixSeconds};
use crate::json::{Object, Value};
use crate::session::backends::pool::Pool;
use crate::session::formats::expiry::Expiry;
use crate::session::kind::Kind;
use crate::session::reason::Reason;
use crate::session::sections::session_cookie::SessionCookie;
use crate::session::types::{
    Authority, ExtractError, Extracted, Reach, Readiness, Session, SessionExtractor,
};
use database::{RowLookup, RowQuery, Table};
use payload::Payload;
use statement::Statement;
use users::UserCheck;

pub const KIND: Kind = Kind {
    build: config::build,
    subject: "{user_id}",
    presets: presets::PRESETS,
};

#[derive(Debug)]
struct SqlSession {
    cookie: SessionCookie,
    authority: Authority,
    pool: Arc<Pool<RowLookup>>,
    statement: Arc<Statement>,
    payload: Payload,
    /// Checks the session against its user, where `user_query` is set.
    user_check: Option<UserCheck>,
    expiry_column: Option<ExpiryColumn>,
    clock: Clock,
}

/// The column with the session's expiry. Without one the query itself must compare the expiry.
#[derive(Debug)]
struct ExpiryColumn {
    column: String,
    /// If set, the column is the time of the last use, and the session ends this many seconds later.
    lifetime: Option<UnixSeconds>,
}

impl SessionExtractor for SqlSession {
    fn extract<'a>(&'a self, request: &'a Parts) -> BoxFuture<'a, Extracted> {
        Box::pin(async move {
            match self.cookie.id(&request.headers)? {
                Some(id) => self.session(&id).await.map(Some),
                None => Ok(None),
            }
        })
    }

    fn reach(&self) -> Reach {
        let authority = Some(self.authority.clone());
        Reach {
            jwts_of: None,
            authority,
            ..Reach::everything(self.cookie.places())
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
        let query = RowQuery {
            table: Table::Sessions,
            statement: self.statement.clone(),
            key: id.to_owned(),
        };
        let Some(row) = self.pool.ask(&query).await? else {
            return Err(
                ExtractError::rejected(Reason::SessionNotFound).because("the query finds no row")
            );
        };
        let expires_at = match &self.expiry_column {
            Some(column) => column.check(&row, self.clock.now())?,
            None => None,
        };
        let session = self.payload.merge(row)?;
        if let Some(check) = &self.user_check
            && !check.is_signed_in(&session, &self.pool).await?
        {
            return Ok(Session {
                attributes: Value::Null,
                expires_at,
            });
        }
        Ok(Session {
            attributes: Value::Object(session),
            expires_at,
        })
    }
}

impl ExpiryColumn {
    /// When the session ends; `None` if it does not expire.
    ///
    /// # Errors
    /// If the session has expired at `now`, or if the column is missing or not a time.
    fn check(&self, row: &Object, now: UnixSeconds) -> Result<Option<UnixSeconds>, ExtractError> {
        let column = &self.column;
        let expiry = match row.get(column) {
            Ok(Some(Value::Null)) => return Ok(None),
            Ok(Some(value)) => Expiry::read(value),
            Ok(None) => return Err(misfit(format!("the query returns no column {column}"))),
            Err(_) => return Err(misfit(format!("the query returns two columns {column}"))),
        };
        let Some(expiry) = expiry else {
            return Err(misfit(format!(
                "{column} is neither Unix seconds nor a time in UTC"
            )));
        };
        // The session is still valid in the last second of its lifetime, as in Laravel.
        let expiry = self
            .lifetime
            .map_or(expiry, |seconds| expiry.plus(seconds.saturating_add(1)));
        expiry.check(now).map(Some)
    }
}

/// The row does not fit the configuration. This says nothing about the caller, so it is `Unavailable`.
fn misfit(detail: String) -> ExtractError {
    ExtractError::unavailable(Reason::StoreMisfit).because(detail)
}

#[cfg(test)]
mod tests;
