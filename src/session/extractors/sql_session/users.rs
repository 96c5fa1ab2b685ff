//! Django's check of every session against its user (`django/contrib/auth/__init__.py`, `get_user`): a session is
//! refused if it is older than the user's last password change, or if its user no longer exists.

use std::sync::Arc;

use aws_lc_rs::hmac;

use super::database::{RowLookup, RowQuery, Table};
use super::misfit;
use super::statement::{Alternatives, Statement};
use crate::json::{Object, Value};
use crate::secret::Secret;
use crate::session::backends::pool::Pool;
use crate::session::formats::signatures::verifies_any;
use crate::session::formats::{hex, hkdf};
use crate::session::reason::Reason;
use crate::session::types::ExtractError;

/// The salt with which `AbstractBaseUser.get_session_auth_hash` signs the password hash.
const SALT: &str = "django.contrib.auth.models.AbstractBaseUser.get_session_auth_hash";

/// Looks up the user of a session, and verifies the session's HMAC of the user's password hash.
#[derive(Debug)]
pub struct UserCheck {
    /// The query that returns the column `password` for a user's id.
    statements: Arc<Alternatives>,
    keys: Vec<hmac::Key>,
}

impl UserCheck {
    pub fn new(statement: Statement, secrets: &[Secret]) -> Self {
        Self {
            statements: Arc::new(Alternatives::new(vec![statement])),
            keys: secrets
                .iter()
                .map(|secret| hkdf::django(&[SALT], secret))
                .collect(),
        }
    }

    /// The query for the user with this id.
    pub fn query(&self, id: &str) -> RowQuery {
        RowQuery {
            table: Table::Users,
            statements: self.statements.clone(),
            key: id.to_owned(),
        }
    }

    /// Whether the session belongs to a user.
    ///
    /// # Errors
    /// If the session's user no longer exists, or has changed the password since the session was created.
    pub async fn is_signed_in(
        &self,
        session: &Object,
        pool: &Pool<RowLookup>,
    ) -> Result<bool, ExtractError> {
        let text = |name| session.get(name).ok().flatten().and_then(Value::as_str);
        let Some(id) = text("_auth_user_id") else {
            return Ok(false);
        };
        let hash = text("_auth_user_hash")
            .and_then(hex::decode)
            .unwrap_or_default();
        let Some(user) = pool.ask(&self.query(id)).await? else {
            return Err(
                ExtractError::rejected(Reason::UserNotFound).because("user_query finds no row")
            );
        };
        let Ok(Some(Value::String(password))) = user.get("password") else {
            return Err(misfit(
                "user_query returns no text column called password".to_owned(),
            ));
        };
        if verifies_any(&self.keys, password, &hash) {
            return Ok(true);
        }
        Err(ExtractError::rejected(Reason::PasswordChanged)
            .because("the session was created before the user's last password change"))
    }
}
