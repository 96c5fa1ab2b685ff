//! Django's own check of every session against its user: one from before the last change of password is
//! over (`django/contrib/auth/__init__.py`, `get_user`). So is one whose user is not found any more.

use std::sync::Arc;

use aws_lc_rs::hmac;

use super::database::{Question, Rows, Table};
use super::misfit;
use super::statement::Statement;
use crate::json::{Object, Value};
use crate::secret::Secret;
use crate::session::backends::pool::Pool;
use crate::session::formats::{hex, hkdf};
use crate::session::types::ExtractError;

/// What `AbstractBaseUser.get_session_auth_hash` signs the password's hash with.
const SALT: &str = "django.contrib.auth.models.AbstractBaseUser.get_session_auth_hash";

/// Looks up the user of a session.
#[derive(Debug)]
pub struct Users {
    /// Finds the column `password` by the user's id.
    statement: Arc<Statement>,
    keys: Vec<hmac::Key>,
}

impl Users {
    pub fn new(statement: Statement, secrets: &[Secret]) -> Self {
        Self {
            statement: Arc::new(statement),
            keys: secrets
                .iter()
                .map(|secret| hkdf::django(&[SALT], secret))
                .collect(),
        }
    }

    /// Whether the session is somebody's; an error if it was once.
    pub async fn are_signed_in(
        &self,
        session: &Object,
        pool: &Pool<Rows>,
    ) -> Result<bool, ExtractError> {
        let text = |name| session.get(name).ok().flatten().and_then(Value::as_str);
        let Some(id) = text("_auth_user_id") else {
            return Ok(false);
        };
        let hash = text("_auth_user_hash")
            .and_then(hex::decode)
            .unwrap_or_default();
        let question = Question {
            table: Table::Users,
            statement: self.statement.clone(),
            key: id.to_owned(),
        };
        let Some(user) = pool.ask(&question).await? else {
            return Err(ExtractError::rejected("user_not_found").because("user_query finds no row"));
        };
        let Ok(Some(Value::String(password))) = user.get("password") else {
            return Err(misfit(
                "user_query gives no text called password".to_owned(),
            ));
        };
        let fits = |key| hmac::verify(key, password.as_bytes(), &hash).is_ok();
        if self.keys.iter().fold(false, |found, key| found | fits(key)) {
            return Ok(true);
        }
        Err(ExtractError::rejected("password_changed")
            .because("the session is older than the user's password"))
    }
}
