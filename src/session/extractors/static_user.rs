//! `static_user`: everybody is signed in. For `rollout-token dev` and nothing else.
//! That nobody else can reach `dev` is seen to in `config` and `routes/dev.rs`.

use std::sync::Arc;

use axum::http::HeaderName;
use axum::http::request::Parts;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};
use serde::{Deserialize, Serialize};

use crate::config::{Problems, Section};
use crate::session::backends::Context;
use crate::session::formats::headers;
use crate::session::kind::Kind;
use crate::session::types::{CredentialSource, Extracted, Reach, Session, SessionExtractor};

/// Chooses the user per request.
const DEV_USER: HeaderName = HeaderName::from_static("x-dev-user");

/// `[extractors.static_user]`
#[derive(Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Config {
    /// The user of a request that names none in `X-Dev-User`.
    user: String,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            user: "dev-user".to_owned(),
        }
    }
}

#[derive(Debug)]
struct StaticUser {
    user: String,
}

pub const KIND: Kind = Kind {
    build,
    subject: "{sub}",
    presets: &[],
};

fn build(section: &Section<'_>, context: &Context) -> Result<Arc<dyn SessionExtractor>, Problems> {
    let mut problems = Problems::default();
    let config: Config = section.read(&mut problems);
    problems.require(
        context.dev,
        section.key("kind"),
        "static_user signs everybody in and works under `rollout-token dev` only: use another kind",
    );
    problems.or(Arc::new(StaticUser { user: config.user }))
}

impl SessionExtractor for StaticUser {
    fn extract<'a>(&'a self, request: &'a Parts) -> BoxFuture<'a, Extracted> {
        let user = headers::single(&request.headers, &DEV_USER);
        ready(user.map(|user| Some(Session::of_subject(user.unwrap_or(&self.user))))).boxed()
    }

    fn reach(&self) -> Reach {
        Reach::everything([CredentialSource::Header(DEV_USER)])
    }
}
