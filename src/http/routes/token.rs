//! `POST /rollout/token`: exchanges a session for a token. `session` identifies the user, and `token` mints the token.

use std::fmt;
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
use crate::http::explain::{Beginning, Explaining};
use crate::http::origin::{self, Caller};
use crate::session::chain::{Authenticated, Denial, Denied};
use crate::session::credential_source;
use crate::session::reason::Reason;
use crate::session::types::Rejection;
use crate::settings::Origins;
use crate::token::MintError;

/// The path of the token route.
pub const PATH: &str = "/rollout/token";
const METHODS: &str = "POST, OPTIONS";
const METHODS_WITH_GET: &str = "GET, POST, OPTIONS";

/// The path used in the snippets of Rollout's docs.
pub const DOCS_PATH: &str = "/rollout-token";
const DOCS_METHODS: &str = "GET, OPTIONS";

/// The response to a signed-in user. `Debug` does not show the token.
#[derive(Serialize)]
pub struct TokenResponse {
    token: String,
    /// Always `Bearer` (RFC 6750).
    token_type: &'static str,
    /// The token's lifetime in seconds, from now.
    expires_in: i64,
    /// The token's `exp`, in seconds since 1970.
    expires_at: i64,
    /// The number of seconds from now after which a front end should fetch the next token.
    refresh_in: i64,
}

impl fmt::Debug for TokenResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenResponse")
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}

/// `POST /rollout/token`
pub async fn issue(
    State(app): State<Arc<App>>,
    Extension(in_force): Extension<InForce>,
    request: Request,
) -> Result<Json<TokenResponse>, Error> {
    let (head, _) = request.into_parts();
    let caller = check_caller(&in_force.live.settings.origins, &head.headers)?;
    token_for(&app, &in_force, &head, caller).await
}

/// `GET /rollout-token`, as the snippets in Rollout's docs call it: 404 unless `server.docs_alias` is set.
pub async fn issue_at_docs_path(
    State(app): State<Arc<App>>,
    Extension(in_force): Extension<InForce>,
    request: Request,
) -> Result<Json<TokenResponse>, Error> {
    docs_methods(&in_force.live)?;
    issue_by_get(&app, &in_force, request).await
}

/// `GET /rollout/token`, as Rollout's demo apps call it: 405 unless `server.docs_alias` is set.
pub async fn issue_at_path(
    State(app): State<Arc<App>>,
    Extension(in_force): Extension<InForce>,
    request: Request,
) -> Result<Json<TokenResponse>, Error> {
    if !in_force.live.settings.server.docs_alias {
        return Err(Error::MethodNotAllowed(METHODS));
    }
    issue_by_get(&app, &in_force, request).await
}

/// Any page can cause a GET request, so either the browser's headers must identify an allowed origin, or the request
/// must contain a credential that browsers do not add automatically. Under `dev`, clients other than browsers need
/// neither.
async fn issue_by_get(
    app: &App,
    in_force: &InForce,
    request: Request,
) -> Result<Json<TokenResponse>, Error> {
    let (head, _) = request.into_parts();
    let caller = check_caller(&in_force.live.settings.origins, &head.headers)?;
    let is_program = app.dev || credential_source::has_bearer(&head.headers);
    if caller == Caller::NoBrowser && !is_program {
        return Err(Error::OriginNotAllowed(Reason::GetWithoutOrigin));
    }
    token_for(app, in_force, &head, caller).await
}

/// `OPTIONS /rollout/token`
pub async fn preflight(
    State(app): State<Arc<App>>,
    Extension(in_force): Extension<InForce>,
    request: Request,
) -> Result<Response, Error> {
    answer_options(&app, &in_force, &request, methods(&in_force.live))
}

/// `OPTIONS /rollout-token`
pub async fn docs_preflight(
    State(app): State<Arc<App>>,
    Extension(in_force): Extension<InForce>,
    request: Request,
) -> Result<Response, Error> {
    let methods = docs_methods(&in_force.live)?;
    answer_options(&app, &in_force, &request, methods)
}

pub async fn method_not_allowed(Extension(in_force): Extension<InForce>) -> Error {
    Error::MethodNotAllowed(methods(&in_force.live))
}

pub async fn docs_method_not_allowed(Extension(in_force): Extension<InForce>) -> Error {
    docs_methods(&in_force.live).map_or_else(|error| error, Error::MethodNotAllowed)
}

/// `HEAD /rollout-token` gets 405. Without this handler, axum would answer HEAD with the GET handler, which mints a
/// token.
pub async fn docs_head() -> Error {
    Error::MethodNotAllowed(DOCS_METHODS)
}

fn methods(live: &Live) -> &'static str {
    if live.settings.server.docs_alias {
        METHODS_WITH_GET
    } else {
        METHODS
    }
}

fn docs_methods(live: &Live) -> Result<&'static str, Error> {
    if live.settings.server.docs_alias {
        Ok(DOCS_METHODS)
    } else {
        Err(Error::WrongPath(Reason::DocsAliasOff))
    }
}

/// Checks that the request is a fetch from an allowed origin, and returns the kind of caller.
///
/// # Errors
/// If the request is not a fetch, or pages of its origin may not request tokens.
pub fn check_caller(origins: &Origins, headers: &HeaderMap) -> Result<Caller, Error> {
    origin::check_fetch(headers).map_err(Error::NotAFetch)?;
    origin::check(origins, headers).map_err(Error::OriginNotAllowed)
}

/// Authenticates the request and mints a token for its subject.
async fn token_for(
    app: &App,
    in_force: &InForce,
    head: &Parts,
    caller: Caller,
) -> Result<Json<TokenResponse>, Error> {
    let live = &*in_force.live;
    // The clock is checked before any session is read: with a clock that was never set, expired sessions would be
    // accepted, and new sessions would be refused as not yet valid.
    if !clock::is_set(app.clock.now()) {
        return Err(Error::ClockNotSet);
    }
    if let Some(explaining) = head.extensions.get::<Explaining>() {
        explaining.record(Beginning::Reached(head.clone(), caller));
        return Err(Error::Internal); // ignored, because the result is recorded
    }
    let _permit = live.admit()?;
    let chain = &live.settings.chain;
    let walk = if caller == Caller::ListedByPattern {
        chain.walk_with_bearer_alone(head)
    } else {
        chain.walk(head)
    };
    let user = chain.authenticate(walk).await?;
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

/// The number of seconds from now until the next token should be fetched, which is 60 s before expiry, or 5 % of the
/// lifetime before expiry if that is longer. At least 0.
fn refresh_in(expires_in: i64) -> i64 {
    (expires_in - (expires_in / 20).max(60)).max(0)
}

/// The error for a valid session for which no token can be minted.
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

/// Answers a preflight from a page of a listed origin, or an OPTIONS request without `Origin`. Refuses an OPTIONS
/// request with any other `Origin`.
fn answer_options(
    app: &App,
    in_force: &InForce,
    request: &Request,
    methods: &'static str,
) -> Result<Response, Error> {
    let headers = request.headers();
    let origins = &in_force.live.settings.origins;
    let mut response = StatusCode::NO_CONTENT.into_response();
    response
        .headers_mut()
        .insert(header::ALLOW, HeaderValue::from_static(methods));
    if !headers.contains_key(header::ORIGIN) {
        return Ok(response);
    }
    if origin::listed(origins, headers).is_none() {
        let reason = origin::check(origins, headers).err();
        return Err(Error::OriginNotAllowed(
            reason.unwrap_or(Reason::OriginNotListed),
        ));
    }
    origin::allow_preflight(response.headers_mut(), methods, origins);
    if let Some((reason, asked)) = origin::refused_preflight(headers, methods, origins) {
        app.refused_preflight(in_force, reason, asked);
        if let Some(explaining) = request.extensions().get::<Explaining>() {
            explaining.record(Beginning::RefusedPreflight(response.status(), reason));
        }
    }
    Ok(response)
}

impl From<Denied> for Error {
    fn from(denied: Denied) -> Self {
        Self::Denied(denied)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::{TokenResponse, refresh_in};

    pub(crate) fn sample() -> TokenResponse {
        TokenResponse {
            token: String::new(),
            token_type: "Bearer",
            expires_in: 900,
            expires_at: 0,
            refresh_in: 840,
        }
    }

    #[test]
    fn debug_output_does_not_contain_the_token() {
        let mut response = sample();
        response.token = "s3cr3t".to_owned();
        assert!(!format!("{response:?}").contains("s3cr3t"));
    }

    #[test]
    fn refresh_in_is_60_seconds_or_5_percent_before_expiry_and_at_least_0() {
        for (lifetime, want) in [(900, 840), (3600, 3420), (61, 1), (60, 0), (30, 0)] {
            assert_eq!(refresh_in(lifetime), want, "{lifetime}");
        }
    }
}
