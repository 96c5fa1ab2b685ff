//! `sql_session`: the app keeps its sessions in a table; the cookie holds the key of a row.
//! The tables are defined by the frameworks' own sources: see `sql_session/presets.rs`.

mod config;
mod database;
mod django;
mod payload;
mod presets;
mod statement;
mod users;

use std::sync::Arc;

use axum::http::request::Parts;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};

use crate::clock::{Clock, UnixSeconds};
use crate::json::{Object, Value};
use crate::session::backends::pool::Pool;
use crate::session::formats::expiry::Expiry;
use crate::session::kind::Kind;
use crate::session::sections::session_cookie::SessionCookie;
use crate::session::types::{
    Authority, ExtractError, Extracted, Reach, Readiness, Session, SessionExtractor,
};
use database::{Question, Rows, Table};
use payload::Payload;
use statement::Statement;
use users::Users;

pub const KIND: Kind = Kind {
    build: config::build,
    subject: "{user_id}",
    presets: presets::PRESETS,
};

#[derive(Debug)]
struct SqlSession {
    cookie: SessionCookie,
    authority: Authority,
    pool: Arc<Pool<Rows>>,
    statement: Arc<Statement>,
    payload: Payload,
    users: Option<Users>,
    end: Option<End>,
    clock: Clock,
}

/// The column that says when the session ends, if the query does not compare it.
#[derive(Debug)]
struct End {
    column: String,
    /// The column says when the session was last used, and it ends so many seconds later.
    lifetime: Option<UnixSeconds>,
}

impl SessionExtractor for SqlSession {
    fn extract<'a>(&'a self, request: &'a Parts) -> BoxFuture<'a, Extracted> {
        match self.cookie.id(&request.headers) {
            Ok(Some(id)) => async move { self.session(&id).await.map(Some) }.boxed(),
            Ok(None) => ready(Ok(None)).boxed(),
            Err(error) => ready(Err(error)).boxed(),
        }
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
        let question = Question {
            table: Table::Sessions,
            statement: self.statement.clone(),
            key: id.to_owned(),
        };
        let Some(row) = self.pool.ask(&question).await? else {
            return Err(
                ExtractError::rejected("session_not_found").because("the query finds no row")
            );
        };
        let expires_at = self
            .end
            .as_ref()
            .map_or(Ok(None), |end| end.check(&row, self.clock.now()))?;
        let session = self.payload.merge(row)?;
        if let Some(users) = &self.users
            && !users.are_signed_in(&session, &self.pool).await?
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
            return Err(misfit(format!(
                "{column} is neither unix seconds nor a time in UTC"
            )));
        };
        // The last second of a lifetime counts, as in Laravel.
        let expiry = self
            .lifetime
            .map_or(expiry, |seconds| expiry.plus(seconds.saturating_add(1)));
        expiry.check(now).map(Some)
    }
}

/// The row is not as the configuration says: no fault of whoever asks.
fn misfit(detail: String) -> ExtractError {
    ExtractError::unavailable("store_misfit").because(detail)
}

#[cfg(test)]
mod tests;
