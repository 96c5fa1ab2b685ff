//! Django's check of every session against its user (`django/contrib/auth/__init__.py`, `get_user`): a session is
//! refused if it is older than the user's last password change, or if its user no longer exists.

use std::sync::Arc;

use aws_lc_rs::hmac;

use super::database::{RowLookup, RowQuery, Table};
use super::misfit;
use super::statement::{Alternatives, Statement};
use crate::json::Object;
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

    /// Whether the session has a signed-in user.
    ///
    /// # Errors
    /// `Rejected` if `user_query` finds no row for the session's user, or if the session's HMAC is missing or wrong
    /// because the user's password was changed after the session was created. `Unavailable` if the query fails or has
    /// no text column `password`.
    pub async fn is_signed_in(
        &self,
        session: &Object,
        pool: &Pool<RowLookup>,
    ) -> Result<bool, ExtractError> {
        let Some(id) = session.text("_auth_user_id") else {
            return Ok(false);
        };
        let hash = session.text("_auth_user_hash").and_then(hex::decode);
        let Some(user) = pool.ask(&self.query(id)).await? else {
            let error = ExtractError::rejected(Reason::UserNotFound);
            return Err(error.because("user_query finds no row"));
        };
        let Some(password) = user.text("password") else {
            let text = "user_query returns no text column called password";
            return Err(misfit(text.to_owned()));
        };
        if verifies_any(&self.keys, password, &hash.unwrap_or_default()) {
            return Ok(true);
        }
        Err(ExtractError::rejected(Reason::PasswordChanged)
            .because("the session was created before the user's last password change"))
    }
}
