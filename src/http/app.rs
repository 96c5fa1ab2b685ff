//! The application: its state, its routes, and the layers around them in order.
//! Sockets are in `server`; statuses and codes are in `error.rs`.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use prometheus_client::metrics::gauge::Gauge;
use tokio::time::sleep;
use tower::{Service, service_fn};
use tower_http::catch_panic::CatchPanic;

use crate::clock::Clock;
use crate::http::{origin, request_checks};
use crate::http::error::{self, Error};
use crate::http::rate_limit::TokenLimiter;
use crate::http::request_id::{RequestIds, X_REQUEST_ID};
use crate::http::routes::{assets, dev, health, openapi, token};
use crate::http::server::Drain;
use crate::session::backends::Context;
use crate::settings::{RateLimit, Settings};
use crate::telemetry::logs::{self, LogBudget, SubjectLog};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::trace::Trace;

const X_ROLLOUT_DEV: header::HeaderName = header::HeaderName::from_static("x-rollout-dev");

/// What all requests share.
#[derive(Debug)]
pub struct App {
    live: ArcSwap<Live>,
    pub clock: Clock,
    pub metrics: Arc<Metrics>,
    pub drain: Drain,
    pub dev: bool,
    max_in_flight: i64,
    ids: RequestIds,
    /// Of lines about callers' faults, and of lines about our own: the first must not use up the second.
    caller_lines: LogBudget,
    fault_lines: LogBudget,
}

/// What a reload replaces. A request takes it once, at its beginning, and sees nothing else.
#[derive(Debug)]
pub struct Live {
    pub settings: Settings,
    pub limiter: Option<Arc<TokenLimiter>>,
    subject_log: SubjectLog,
}

impl Live {
    fn new(settings: Settings, limiter: Option<Arc<TokenLimiter>>) -> Self {
        Self {
            limiter,
            subject_log: SubjectLog::new(settings.log.plain_subject, &settings.client.secret),
            settings,
        }
    }
}

impl App {
    pub fn new(settings: Settings, context: Context, drain: Drain) -> Arc<Self> {
        let limiter = limiter(settings.rate_limit, &context.clock);
        Arc::new(Self {
            max_in_flight: settings.server.max_in_flight.try_into().unwrap_or(i64::MAX),
            live: ArcSwap::from_pointee(Live::new(settings, limiter)),
            clock: context.clock,
            metrics: context.metrics,
            drain,
            dev: context.dev,
            ids: RequestIds::new(),
            caller_lines: LogBudget::default(),
            fault_lines: LogBudget::default(),
        })
    }

    /// The settings in force now.
    pub fn live(&self) -> Arc<Live> {
        self.live.load_full()
    }

    /// Puts other settings in force for the requests that begin from now on.
    pub fn replace(&self, settings: Settings) {
        let old = self.live();
        // Keep the limiter, so that callers over their limit stay limited.
        let limiter = if old.settings.rate_limit == settings.rate_limit {
            old.limiter.clone()
        } else {
            limiter(settings.rate_limit, &self.clock)
        };
        self.live.store(Arc::new(Live::new(settings, limiter)));
    }

    /// A place among the requests under way, which the gauge counts and limits at once.
    ///
    /// # Errors
    /// If there is none: the caller is told at once rather than queued.
    pub fn admit(&self) -> Result<Admitted<'_>, Error> {
        let before = self.metrics.in_flight.inc();
        let place = Admitted(&self.metrics.in_flight);
        if before < self.max_in_flight { Ok(place) } else { Err(Error::Overloaded) }
    }
}

fn limiter(limit: Option<RateLimit>, clock: &Clock) -> Option<Arc<TokenLimiter>> {
    limit.map(|limit| Arc::new(TokenLimiter::new(limit, clock)))
}

/// A request's place; dropping it gives the place free.
#[derive(Debug)]
pub struct Admitted<'a>(&'a Gauge);

impl Drop for Admitted<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// What a listener serves.
struct Served {
    app: Arc<App>,
    routes: Router,
    /// `/rollout/token` as well. It goes without the router, whose boxes and copies take longer than all that is
    /// checked of a request before.
    tokens: bool,
}

/// What the public listener serves. Around the routes, from the outside in: [`answer`] (id, time,
/// headers, log), panics, [`guard`] (head, body, deadline).
pub fn public(app: &Arc<App>) -> Router {
    let mut routes = Router::new()
        .route(token::DOCS_PATH, any(token::issue_as_documented))
        .route("/healthz", get(health::live).fallback(read_only))
        .route("/readyz", get(health::ready).fallback(read_only))
        .route("/openapi.json", get(openapi::openapi).fallback(read_only))
        .route("/rollout/client.js", get(assets::client).fallback(read_only));
    if app.dev {
        routes = routes
            .route("/", get(dev::page).fallback(read_only))
            .route("/dev.js", get(dev::script).fallback(read_only))
            .route("/dev.css", get(dev::style).fallback(read_only))
            .route("/dev.svg", get(dev::icon).fallback(read_only))
            .route("/dev/samples", get(dev::samples).fallback(read_only));
    }
    around(routes, true, app)
}

/// What the admin listener serves.
pub fn admin(app: &Arc<App>) -> Router {
    let routes = Router::new()
        .route("/metrics", get(health::metrics).fallback(read_only))
        .route("/healthz", get(health::live).fallback(read_only))
        .route("/readyz", get(health::ready_for_operators).fallback(read_only));
    around(routes, false, app)
}

/// Not by layers of axum: each of them boxes the request's future and copies the boxed service below,
/// and three of them took longer than what they did.
fn around(routes: Router<Arc<App>>, tokens: bool, app: &Arc<App>) -> Router {
    let routes = routes.fallback(|| async { Error::NotFound }).with_state(app.clone());
    let served = Arc::new(Served { app: app.clone(), routes, tokens });
    Router::new().fallback_service(service_fn(move |request| {
        let served = served.clone();
        async move { Ok::<_, Infallible>(answer(&served, request).await) }
    }))
}

async fn read_only() -> Error {
    Error::MethodNotAllowed("GET, HEAD")
}

/// Gives every answer its id and headers, whatever made it, and writes it down.
async fn answer(served: &Served, request: Request) -> Response {
    let app = &*served.app;
    let started = app.clock.monotonic();
    let live = app.live();
    let id = app.ids.of(request.headers());
    let trace = Trace::begin(&request, id.as_str());
    let listed = live.settings.origins.listed(request.headers()).cloned();

    let guarded = service_fn(|request| guard(served, &live, request));
    let mut guarded = CatchPanic::custom(guarded, |_| Error::Internal.into_response());
    let answered = trace.over(guarded.call(request)).await;
    let mut response = answered.map_or_else(IntoResponse::into_response, |response| response.map(Body::new));

    let duration = app.clock.monotonic().saturating_sub(started);
    if let Some(error) = response.extensions_mut().remove::<Error>() {
        trace.refused(&error);
        app.refused(&error, &live.subject_log, duration, id.as_str(), trace.id());
        response = error.respond(id.as_str());
    } else if let Some(issued) = response.extensions_mut().remove::<token::Issued>() {
        app.metrics.answered(Some(&issued.extractor), "issued", duration);
        trace.issued(&issued, &live.subject_log);
        logs::issued(&issued, &live.subject_log, duration, id.as_str(), trace.id());
    }
    let headers = response.headers_mut();
    error::protect(headers);
    if let Some(origin) = listed {
        origin::allow_reading(headers, origin);
    }
    if app.dev {
        headers.insert(X_ROLLOUT_DEV, HeaderValue::from_static("1"));
    }
    if app.drain.is_draining() {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    headers.insert(X_REQUEST_ID, id.into_header());
    response
}

/// Lets only well-formed requests through, and none that takes for ever.
async fn guard(served: &Served, live: &Arc<Live>, request: Request) -> Result<Response, Error> {
    let app = &*served.app;
    let limits = &live.settings.server;
    let (mut head, body) = request.into_parts();
    request_checks::check_head(&head, limits)?;
    if app.dev && !dev::is_local(&head.headers) {
        return Err(Error::HostNotAllowed);
    }
    request_checks::discard_body(body, limits).await?;
    let work = async {
        if served.tokens && head.uri.path() == token::PATH {
            return token::issue(app, live, &head).await;
        }
        head.extensions.insert(live.clone());
        let answered = served.routes.clone().call(Request::from_parts(head, Body::empty())).await;
        Ok(answered.into_response())
    };
    tokio::select! {
        biased;
        answered = work => answered,
        // Begins with the first wait, which most requests never come to: no clock is read for those.
        () = async { sleep(limits.request_timeout).await } => Err(Error::DeadlineExceeded),
    }
}

impl App {
    fn refused(
        &self,
        error: &Error,
        log: &SubjectLog,
        duration: Duration,
        request_id: &str,
        trace_id: Option<&str>,
    ) {
        // A probe asks for no token. What an instance waits for is logged where it fails.
        if matches!(error, Error::Unready(_)) {
            return;
        }
        self.metrics.answered(error.extractor(), error.code(), duration);
        let lines = if error.status().is_server_error() { &self.fault_lines } else { &self.caller_lines };
        logs::refused(error, log, duration, request_id, trace_id, lines, &self.clock);
    }
}
