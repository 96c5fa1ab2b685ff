//! `static_user`: treats every request as signed in. This works only under `rollout-token dev`, which listens on
//! loopback only and refuses requests with a foreign `Host` (`http/app.rs`).

use std::sync::Arc;

use axum::http::HeaderName;
use axum::http::request::Parts;
use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};

use crate::config::{Problems, Section};
use crate::session::backends::Context;
use crate::session::formats::headers;
use crate::session::kind::{BuildResult, Kind};
use crate::session::types::{CredentialSource, Extracted, Reach, Session, SessionExtractor};

/// The header that names the user of one request.
const DEV_USER: HeaderName = HeaderName::from_static("x-dev-user");

/// `[extractors.NAME]` with `kind = "static_user"`
#[derive(Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct StaticUserConfig {
    /// The user of a request without `X-Dev-User`.
    user: String,
}

impl Default for StaticUserConfig {
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

pub const KIND: Kind = Kind::new(build);

fn build(section: &Section<'_>, context: &Context) -> BuildResult {
    let mut problems = Problems::default();
    let config: StaticUserConfig = section.read(&mut problems);
    problems.require(
        context.dev,
        section.key("kind"),
        "static_user treats every request as signed in, so it works under `rollout-token dev` only: use another kind",
    );
    problems.or(Arc::new(StaticUser { user: config.user }))
}

impl SessionExtractor for StaticUser {
    fn extract<'a>(&'a self, request: &'a Parts) -> BoxFuture<'a, Extracted> {
        Box::pin(async move {
            let user = headers::single(&request.headers, &DEV_USER)?;
            Ok(Some(Session::of_subject(user.unwrap_or(&self.user))))
        })
    }

    fn reach(&self) -> Reach {
        Reach::everything([CredentialSource::Header(DEV_USER)])
    }
}
