//! `rollout-token` recognises the session that a user already has in an app, and answers with a short-lived Rollout
//! auth token.
//!
//! # One request, step by step
//!
//! 1. `http/server/mod.rs` accepts the connection, and `http/server/connection.rs` serves it with hyper. They apply the
//!    connection limit and the timeouts for slow and idle clients.
//! 2. `http/app.rs` contains the router with every route. Its middleware sets the request id, opens the request's span,
//!    builds the response to every error, and writes the log line of a refused request.
//! 3. `http/request_checks.rs` refuses requests that are malformed, ambiguous or too large, and discards the body.
//! 4. `http/routes/token.rs` handles `POST /rollout/token`. `http/origin.rs` decides whether pages of the request's
//!    origin may request tokens.
//! 5. `session/chain.rs` tries the extractors in the order of `session.extractors`. The first extractor that finds a
//!    credential of its kind and issuer decides.
//! 6. `session/extractors/` has one file per kind. Kinds that need a key set, an HTTP endpoint or a store reach it
//!    through `session/backends/`.
//! 7. `session/subject.rs` builds the subject from the attributes of the session.
//! 8. `http/rate_limit.rs` limits the tokens per minute for each credential and for each subject.
//! 9. `token/mod.rs` mints the token.
//! 10. `http/error.rs` maps an error in any of these steps to a status, a code and a message.
//! 11. `telemetry/` writes the log line, metrics and traces.
//!
//! The settings that all steps read are in `settings/`; a reload replaces them as a whole. `docs/architecture.md`
//! describes the layers.
//!
//! # Write a session extractor
//!
//! Implement [`SessionExtractor`], and run the command line with a registry that contains its [`Kind`]:
//!
//! ```no_run
//! use std::sync::Arc;
//!
//! use axum::http::HeaderName;
//! use axum::http::request::Parts;
//! use futures_util::FutureExt;
//! use futures_util::future::{BoxFuture, ready};
//! use rollout_token::{
//!     Cli, Context, CredentialSource, ExtractError, Extracted, Kind, Problems, Reach, Reason, Registry, Section,
//!     Session, SessionExtractor,
//! };
//! use serde::{Deserialize, Serialize};
//!
//! const HEADER: HeaderName = HeaderName::from_static("x-user");
//!
//! /// The keys of a section with `kind = "my_header"`.
//! #[derive(Default, Serialize, Deserialize)]
//! #[serde(default, deny_unknown_fields)]
//! struct MyHeaderConfig {
//!     users: Vec<String>,
//! }
//!
//! #[derive(Debug)]
//! struct MyHeader {
//!     users: Vec<String>,
//! }
//!
//! impl SessionExtractor for MyHeader {
//!     fn extract<'a>(&'a self, request: &'a Parts) -> BoxFuture<'a, Extracted> {
//!         let session = match request.headers.get(HEADER).map(|user| user.to_str()) {
//!             None => Ok(None),
//!             Some(Ok(user)) if self.users.iter().any(|known| known == user) => Ok(Some(Session::of_subject(user))),
//!             Some(_) => Err(ExtractError::rejected(Reason::Malformed)),
//!         };
//!         ready(session).boxed()
//!     }
//!
//!     fn reach(&self) -> Reach {
//!         Reach::everything([CredentialSource::Header(HEADER)])
//!     }
//! }
//!
//! fn build(section: &Section<'_>, _: &Context) -> Result<Arc<dyn SessionExtractor>, Problems> {
//!     let mut problems = Problems::default();
//!     let MyHeaderConfig { users } = section.read(&mut problems);
//!     problems.require(!users.is_empty(), section.key("users"), "must have at least one user");
//!     problems.or(Arc::new(MyHeader { users }))
//! }
//!
//! let registry = Registry::builtin().with("my_header", Kind::new(build));
//! if let Err(failure) = Cli::parse().run(&registry) {
//!     eprintln!("{failure}");
//! }
//! ```
//!
//! [`single_header`] and [`single_cookie`] read a credential, and refuse a request in which it is ambiguous. With the
//! feature `testing`, the module `contract` checks the rules that every extractor must follow.
//!
//! `examples/custom_extractor.rs` is a complete extractor with a secret and with tests.
//!
//! # Call a backend
//!
//! [`Context::http`] is the client for outgoing HTTP calls. [`SessionExtractor::backend`] returns a
//! description of the call, which commands print while they wait, and [`SessionExtractor::probe`] makes the call once
//! for `doctor`:
//!
//! ```
//! use std::time::Duration;
//!
//! use axum::http::request::Parts;
//! use futures_util::FutureExt;
//! use futures_util::future::BoxFuture;
//! use reqwest::{Method, Request, Url};
//! use rollout_token::{
//!     Answer, BackendCall, BackendReport, CallError, CallLimits, ExtractError, Extracted, HttpClient, Reason, Session,
//!     SessionExtractor,
//! };
//!
//! const LIMITS: CallLimits = CallLimits {
//!     connect: Duration::from_millis(300),
//!     total: Duration::from_secs(2),
//!     body: 64 * 1024,
//!     retry_closed: true,
//! };
//!
//! #[derive(Debug)]
//! struct MyEndpoint {
//!     http: HttpClient,
//!     url: Url,
//! }
//!
//! impl MyEndpoint {
//!     async fn call(&self, cookie: Option<&axum::http::HeaderValue>) -> Result<Answer, CallError> {
//!         let mut request = Request::new(Method::GET, self.url.clone());
//!         if let Some(cookie) = cookie {
//!             request.headers_mut().insert("cookie", cookie.clone());
//!         }
//!         self.http.send(request, LIMITS).await
//!     }
//! }
//!
//! impl SessionExtractor for MyEndpoint {
//!     fn extract<'a>(&'a self, request: &'a Parts) -> BoxFuture<'a, Extracted> {
//!         async move {
//!             let Some(cookie) = request.headers.get("cookie") else {
//!                 return Ok(None);
//!             };
//!             match self.call(Some(cookie)).await {
//!                 Ok(answer) if answer.status == 200 => {
//!                     Ok(Some(Session::of_subject(&String::from_utf8_lossy(&answer.body))))
//!                 }
//!                 Ok(answer) if answer.status == 401 => Err(ExtractError::rejected(Reason::SignedOut)),
//!                 Ok(_) => Err(ExtractError::unavailable(Reason::Status)),
//!                 Err(error) => Err(ExtractError::unavailable(error.reason()).because(error.to_string())),
//!             }
//!         }
//!         .boxed()
//!     }
//!
//!     fn backend(&self) -> Option<BackendCall> {
//!         Some(BackendCall {
//!             backend: "my endpoint".to_owned(),
//!             at_most: LIMITS.total,
//!         })
//!     }
//!
//!     fn probe(&self) -> BoxFuture<'_, Vec<BackendReport>> {
//!         async move {
//!             let asking = async {
//!                 let answer = self.call(None).await.map_err(|error| error.to_string())?;
//!                 Ok(format!("answered {}", answer.status))
//!             };
//!             vec![BackendReport::of("my endpoint", asking).await]
//!         }
//!         .boxed()
//!     }
//! }
//! ```

// The public API, for extractors outside this crate and for apps that embed the service.
pub use cli::{Cli, Failure};
pub use clock::{Clock, TimeSource, UnixSeconds};
pub use config::{HumanDuration, List, Problems, Section, Sources};
pub use http::embed::router;
pub use json::{DuplicateMember, Object, Value};
pub use secret::Secret;
pub use session::backends::Context;
pub use session::backends::http::{Answer, CallError, CallLimits, HttpClient};
pub use session::formats::cookies::find as single_cookie;
pub use session::formats::headers::single as single_header;
pub use session::kind::Build;
pub use session::reason::Reason;
pub use session::types::{Authority, BackendCall, BackendReport, Cause, Rejection};
pub use session::{
    CredentialSource, ExtractError, Extracted, Kind, Reach, Readiness, Registry, Session,
    SessionExtractor,
};
pub use telemetry::metrics::Metrics;

// For the tests of extractors outside this crate.
#[cfg(any(test, feature = "testing"))]
pub use clock::ManualClock;
#[cfg(any(test, feature = "testing"))]
pub use session::contract;

// The hidden modules are public because this project's tests, benchmarks and fuzz targets, which are other crates, call
// their functions directly. They are not part of the API.
mod bytes;
mod cli;
#[doc(hidden)]
pub mod clock;
#[doc(hidden)]
pub mod config;
mod hardening;
mod headers;
#[doc(hidden)]
pub mod http;
#[doc(hidden)]
pub mod json;
mod secret;
#[doc(hidden)]
pub mod session;
#[doc(hidden)]
pub mod settings;
mod sync;
#[doc(hidden)]
pub mod telemetry;
#[doc(hidden)]
pub mod token;
