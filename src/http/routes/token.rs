//! `POST /rollout/token`: from a session to a token, in one straight line.
//! Who the user is comes from `extractors`, the token from `token.rs` beside this folder.

use std::fmt::Write;
use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;

use crate::clock;
use crate::http::app::{App, Live};
use crate::http::error::Error;
use crate::http::origin::{self, Caller, Forbidden, NotAFetch};
use crate::session::credential_source;
use crate::session::chain::{Authenticated, Denial, Denied};
use crate::session::subject::Subject;
use crate::session::types::Reason;
use crate::token::{MintError, Minted};

/// The route of this service's own contract.
pub const PATH: &str = "/rollout/token";

/// The route of the snippets in Rollout's docs.
pub const DOCS_PATH: &str = "/rollout-token";

/// The most that an answer has: room for them is made once.
const USUAL_HEADERS: usize = 8;

/// The answer to a signed-in user.
#[derive(JsonSchema)]
#[cfg_attr(test, derive(serde::Serialize))]
pub(super) struct TokenResponse {
    token: String,
    /// Always `Bearer`: how the token is to be sent (RFC 6750).
    token_type: &'static str,
    /// Seconds from now.
    expires_in: i64,
    /// The token's `exp`, in seconds since 1970.
    expires_at: i64,
    /// Seconds from now after which a front end should ask again.
    refresh_in: i64,
}

/// Goes out with the answer for the log, and no further.
#[derive(Clone, Debug)]
pub struct Issued {
    pub extractor: Arc<str>,
    pub subject: Subject,
}

/// The route of this service's own contract.
pub async fn issue(app: &App, live: &Live, head: &Parts) -> Result<Response, Error> {
    match head.method {
        Method::POST => issue_token(app, live, head, |_| true).await,
        Method::OPTIONS => options(app, live, head, "POST, OPTIONS"),
        _ => Err(Error::MethodNotAllowed("POST, OPTIONS")),
    }
}

/// The route of the snippets in Rollout's docs, `fetch("/rollout-token")`. A GET can be caused by any
/// page, so it takes a browser's word for its origin, or a credential that no browser adds by itself.
pub async fn issue_as_documented(
    State(app): State<Arc<App>>,
    Extension(live): Extension<Arc<Live>>,
    request: Request,
) -> Result<Response, Error> {
    if !live.settings.server.docs_alias {
        return Err(Error::NotFound);
    }
    let (head, _) = request.into_parts();
    let bearer = has_bearer(&head.headers);
    match head.method {
        Method::GET => issue_token(&app, &live, &head, |caller| bearer || caller != Caller::NoBrowser).await,
        Method::OPTIONS => options(&app, &live, &head, "GET, OPTIONS"),
        _ => Err(Error::MethodNotAllowed("GET, OPTIONS")),
    }
}

/// Whether there is a bearer token. Credentials of the scheme Basic do not count: a browser that once
/// asked its user for them sends them by itself.
fn has_bearer(headers: &HeaderMap) -> bool {
    let scheme = headers.get(header::AUTHORIZATION).and_then(|value| value.as_bytes().get(..7));
    scheme.is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"bearer "))
}

async fn issue_token(
    app: &App,
    live: &Live,
    head: &Parts,
    may_ask: impl FnOnce(Caller) -> bool,
) -> Result<Response, Error> {
    origin::check_fetch(&head.headers)?;
    let caller = live.settings.origins.check(&head.headers)?;
    if !may_ask(caller) {
        return Err(Error::OriginNotAllowed);
    }
    // Before any session is judged: by a clock that was never set, expired ones are good and others not yet valid.
    if !clock::is_set(app.clock.now()) {
        return Err(Error::ClockNotSet);
    }
    let _place = app.admit()?;
    let user = live.settings.chain.authenticate(head).await?;
    if let Some(limiter) = &live.limiter {
        let credential = credential_source::sent(&user.places, &head.headers);
        limiter.check(&user.subject, credential).map_err(|retry_after| Error::RateLimited {
            extractor: user.extractor.clone(),
            subject: Some(user.subject.clone()),
            retry_after,
        })?;
    }
    let minted = live
        .settings
        .minter
        .mint(&user.subject, &user.session, app.clock.now())
        .map_err(|error| not_mintable(error, &user))?;
    Ok(token_response(minted, user))
}

fn token_response(minted: Minted, user: Authenticated) -> Response {
    let expires_in = minted.expires_at - minted.issued_at;
    let body = TokenResponse {
        token: minted.token,
        token_type: "Bearer",
        expires_in,
        expires_at: minted.expires_at,
        refresh_in: refresh_in(expires_in),
    };
    let mut response = Response::new(Body::from(body.to_json()));
    response.headers_mut().reserve(USUAL_HEADERS);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.extensions_mut().insert(Issued { extractor: user.extractor, subject: user.subject });
    response
}

impl TokenResponse {
    /// A token is base64url and dots, so that nothing in here needs escaping, and a serializer would look
    /// for it at every byte.
    fn to_json(&self) -> String {
        let Self { token, token_type, expires_in, expires_at, refresh_in } = self;
        let mut json = String::with_capacity(token.len() + 128);
        json.push_str(r#"{"token":""#);
        json.push_str(token);
        // Writing to a string cannot fail.
        let _ = write!(
            json,
            r#"","token_type":"{token_type}","expires_in":{expires_in},"expires_at":{expires_at},"refresh_in":{refresh_in}}}"#
        );
        json
    }
}

/// A minute before the end, or 5 % of the life if that is longer, but never in the past.
fn refresh_in(expires_in: i64) -> i64 {
    (expires_in - (expires_in / 20).max(60)).max(0)
}

/// A session that is genuine and yet gives no token.
fn not_mintable(error: MintError, user: &Authenticated) -> Error {
    let (word, expired) = match error {
        MintError::ClockNotSet => return Error::ClockNotSet,
        MintError::SessionOver => ("session_over", true),
        MintError::Claim(word) => (word, false),
    };
    let denial = Denial::Rejected(Reason { word, expired, detail: None });
    Error::Denied(Denied { extractor: Some(user.extractor.clone()), denial })
}

/// `OPTIONS`: a preflight of a listed page, or anybody asking for the methods.
fn options(app: &App, live: &Live, head: &Parts, methods: &'static str) -> Result<Response, Error> {
    let mut response = StatusCode::NO_CONTENT.into_response();
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(methods));
    if head.headers.contains_key(header::ORIGIN) {
        live.settings.origins.listed(&head.headers).ok_or(Error::OriginNotAllowed)?;
        origin::allow_preflight(response.headers_mut(), HeaderValue::from_static(methods), app.dev);
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
    use super::{TokenResponse, refresh_in};

    #[test]
    fn the_answer_is_what_a_serializer_would_write() {
        let answer = TokenResponse {
            token: "eyJ0.eyJp-_.c2ln".to_owned(),
            token_type: "Bearer",
            expires_in: 900,
            expires_at: 1_795_565_228,
            refresh_in: 840,
        };
        assert_eq!(answer.to_json(), serde_json::to_string(&answer).unwrap());
    }

    #[test]
    fn a_front_end_is_told_to_ask_again_before_the_end() {
        for (life, want) in [(900, 840), (3600, 3420), (61, 1), (60, 0), (30, 0)] {
            assert_eq!(refresh_in(life), want, "{life}");
        }
    }
}
