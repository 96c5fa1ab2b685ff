//! `POST /rollout/token`: from a session to a token. `session` recognises the user; `token` mints.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Extension, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::clock;
use crate::http::app::{App, InForce, Live};
use crate::http::error::Error;
use crate::http::origin::{self, Caller, Forbidden, NotAFetch};
use crate::session::chain::{Authenticated, Denial, Denied};
use crate::session::credential_source;
use crate::session::reason::Reason;
use crate::session::types::Rejection;
use crate::token::MintError;

/// The path of the API.
pub const PATH: &str = "/rollout/token";
const METHODS: &str = "POST, OPTIONS";

/// The path in the snippets of Rollout's docs.
pub const DOCS_PATH: &str = "/rollout-token";
const DOCS_METHODS: &str = "GET, OPTIONS";

/// The answer to a signed-in user.
#[derive(Debug, Serialize)]
pub struct TokenResponse {
    token: String,
    /// Always `Bearer` (RFC 6750).
    token_type: &'static str,
    /// Seconds from now.
    expires_in: i64,
    /// The token's `exp`, in seconds since 1970.
    expires_at: i64,
    /// Seconds from now after which a front end should fetch the next token.
    refresh_in: i64,
}

impl TokenResponse {
    #[cfg(test)]
    pub(super) fn sample() -> Self {
        Self {
            token: String::new(),
            token_type: "Bearer",
            expires_in: 900,
            expires_at: 0,
            refresh_in: 840,
        }
    }
}

/// `POST /rollout/token`
pub async fn issue(
    State(app): State<Arc<App>>,
    Extension(in_force): Extension<InForce>,
    request: Request,
) -> Result<Json<TokenResponse>, Error> {
    let (head, _) = request.into_parts();
    origin::check_fetch(&head.headers)?;
    origin::check(&in_force.live.settings.origins, &head.headers)?;
    token_for(&app, &in_force, &head).await
}

/// `GET /rollout-token`, as the snippets in Rollout's docs call it. Any page can cause a GET, so either the browser names
/// an allowed origin, or the request has a credential that browsers do not add by themselves.
pub async fn issue_as_documented(
    State(app): State<Arc<App>>,
    Extension(in_force): Extension<InForce>,
    request: Request,
) -> Result<Json<TokenResponse>, Error> {
    require_docs_alias(&in_force.live)?;
    let (head, _) = request.into_parts();
    origin::check_fetch(&head.headers)?;
    let caller = origin::check(&in_force.live.settings.origins, &head.headers)?;
    if caller == Caller::NoBrowser && !has_bearer(&head.headers) {
        return Err(Error::OriginNotAllowed);
    }
    token_for(&app, &in_force, &head).await
}

/// `OPTIONS /rollout/token`
pub async fn preflight(
    State(app): State<Arc<App>>,
    Extension(in_force): Extension<InForce>,
    headers: HeaderMap,
) -> Result<Response, Error> {
    answer_options(&app, &in_force.live, &headers, METHODS)
}

/// `OPTIONS /rollout-token`
pub async fn docs_preflight(
    State(app): State<Arc<App>>,
    Extension(in_force): Extension<InForce>,
    headers: HeaderMap,
) -> Result<Response, Error> {
    require_docs_alias(&in_force.live)?;
    answer_options(&app, &in_force.live, &headers, DOCS_METHODS)
}

pub async fn method_not_allowed() -> Error {
    Error::MethodNotAllowed(METHODS)
}

pub async fn docs_method_not_allowed(Extension(in_force): Extension<InForce>) -> Result<(), Error> {
    require_docs_alias(&in_force.live)?;
    Err(Error::MethodNotAllowed(DOCS_METHODS))
}

fn require_docs_alias(live: &Live) -> Result<(), Error> {
    if live.settings.server.docs_alias {
        Ok(())
    } else {
        Err(Error::NotFound)
    }
}

/// Whether there is a bearer token. The scheme `Basic` does not count: a browser sends such credentials by itself once
/// its user has entered them.
fn has_bearer(headers: &HeaderMap) -> bool {
    let scheme = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.as_bytes().get(..7));
    scheme.is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"bearer "))
}

/// Authenticates the request and mints a token for its subject.
async fn token_for(
    app: &App,
    in_force: &InForce,
    head: &Parts,
) -> Result<Json<TokenResponse>, Error> {
    let live = &*in_force.live;
    // Before any session is checked: with a clock that was never set, expired sessions would be accepted,
    // and new ones refused as not valid yet.
    if !clock::is_set(app.clock.now()) {
        return Err(Error::ClockNotSet);
    }
    let _permit = live.admit()?;
    let user = live.settings.chain.authenticate(head).await?;
    if let Some(limiter) = &live.limiter {
        let credential = credential_source::sent(&user.places, &head.headers);
        limiter
            .check(&user.subject, credential)
            .map_err(|retry_after| Error::RateLimited {
                extractor: user.extractor.clone(),
                subject: Some(user.subject.clone()),
                retry_after,
            })?;
    }
    let now = app.clock.now();
    let minted = live
        .settings
        .minter
        .mint(&user.subject, &user.session, now)
        .map_err(|error| not_mintable(error, &user))?;

    app.issued(&user, in_force);
    let expires_in = minted.expires_at - minted.issued_at;
    Ok(Json(TokenResponse {
        token: minted.token,
        token_type: "Bearer",
        expires_in,
        expires_at: minted.expires_at,
        refresh_in: refresh_in(expires_in),
    }))
}

/// One minute before the token expires, or 5 % of its lifetime if that is longer, but at least 0.
fn refresh_in(expires_in: i64) -> i64 {
    (expires_in - (expires_in / 20).max(60)).max(0)
}

/// The error for a genuine session for which no token can be minted.
fn not_mintable(error: MintError, user: &Authenticated) -> Error {
    let reason = match error {
        MintError::ClockNotSet => return Error::ClockNotSet,
        MintError::SessionOver => Reason::SessionOver,
        MintError::Claim(reason) => reason,
    };
    let denial = Denial::Rejected(Rejection {
        reason,
        detail: None,
    });
    Error::Denied(Denied {
        extractor: Some(user.extractor.clone()),
        denial,
    })
}

/// Answers the preflight of a listed page, or a plain OPTIONS request.
fn answer_options(
    app: &App,
    live: &Live,
    headers: &HeaderMap,
    methods: &'static str,
) -> Result<Response, Error> {
    let mut response = StatusCode::NO_CONTENT.into_response();
    response
        .headers_mut()
        .insert(header::ALLOW, HeaderValue::from_static(methods));
    if headers.contains_key(header::ORIGIN) {
        origin::listed(&live.settings.origins, headers).ok_or(Error::OriginNotAllowed)?;
        origin::allow_preflight(
            response.headers_mut(),
            HeaderValue::from_static(methods),
            app.dev,
        );
    }
    Ok(response)
}

impl From<Forbidden> for Error {
    fn from(Forbidden: Forbidden) -> Self {
        Self::OriginNotAllowed
    }
}

impl From<NotAFetch> for Error {
    fn from(NotAFetch: NotAFetch) -> Self {
        Self::NotAFetch
    }
}

impl From<Denied> for Error {
    fn from(denied: Denied) -> Self {
        Self::Denied(denied)
    }
}

#[cfg(test)]
mod tests {
    use super::refresh_in;

    #[test]
    fn refresh_in_is_60_seconds_or_5_percent_before_the_end_and_at_least_0() {
        for (lifetime, want) in [(900, 840), (3600, 3420), (61, 1), (60, 0), (30, 0)] {
            assert_eq!(refresh_in(lifetime), want, "{lifetime}");
        }
    }
}
