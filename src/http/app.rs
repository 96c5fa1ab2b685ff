//! The application: its state, its routers with every route, and the middleware in the order in which it runs. `server`
//! handles connections, and `error.rs` defines the statuses and codes.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, Uri, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, any, get, post};
use tokio::sync::{Semaphore, SemaphorePermit};
use tower::ServiceBuilder;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::request_id::{PropagateRequestIdLayer, SetRequestIdLayer};

use crate::clock::Clock;
use crate::http::error::{self, Error};
use crate::http::explain::{Beginning, Explaining};
use crate::http::origin::{self, Listing};
use crate::http::pasted;
use crate::http::rate_limit::TokenLimiter;
use crate::http::request_checks;
use crate::http::request_id::{self, RequestIds, X_REQUEST_ID};
use crate::http::routes::dev::session::RecentRequests;
use crate::http::routes::{assets, dev, health, openapi, token};
use crate::http::server::{Drain, LiveSettings};
use crate::session::backends::Context;
use crate::session::chain::Authenticated;
use crate::session::reason::Reason;
use crate::session::registry::Registry;
use crate::session::subject::Subject;
use crate::session::types::ResponseCookies;
use crate::settings::log::LogSubject;
use crate::settings::reload::Reloadable;
use crate::settings::{RateLimitConfig, ServerConfig, Settings};
use crate::telemetry::logs::SubjectLog;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::requests::{Outcome, RequestLog};
use crate::telemetry::spans::{RequestSpan, request_span};

const METRICS_PATH: &str = "/metrics";
const X_ROLLOUT_DEV: HeaderName = HeaderName::from_static("x-rollout-dev");

/// The state that all requests share.
#[derive(Debug)]
pub struct App {
    live: ArcSwap<Live>,
    pub clock: Clock,
    pub metrics: Arc<Metrics>,
    /// Held while the metrics are collected.
    pub scrape: Mutex<()>,
    pub drain: Drain,
    pub dev: bool,
    pub recent: RecentRequests,
    /// The kinds of extractors, for the dev page.
    pub registry: Registry,
    /// `server.base_path`, which a reload cannot change.
    pub base_path: String,
    request_ids: RequestIds,
    pub log: Arc<RequestLog>,
}

/// The part of the state that a reload replaces.
#[derive(Debug)]
pub struct Live {
    pub settings: Arc<Settings>,
    pub limiter: Option<Arc<TokenLimiter>>,
    in_flight: Arc<Semaphore>,
    subject_log: SubjectLog,
}

/// The state of one request: its span, and the settings in force when it started, which a reload does not change.
#[derive(Clone, Debug)]
pub struct InForce {
    pub live: Arc<Live>,
    span: Arc<RequestSpan>,
    /// The time on the monotonic clock at which the request started.
    started: Duration,
}

impl App {
    pub fn new(
        settings: Settings,
        registry: &Registry,
        context: Context,
        drain: Drain,
    ) -> Arc<Self> {
        settings.share_limits();
        let live = Live {
            limiter: limiter(settings.rate_limit, &context.clock),
            in_flight: Arc::new(Semaphore::new(settings.server.max_in_flight)),
            subject_log: subject_log(&settings),
            settings: Arc::new(settings),
        };
        let base_path = live.settings.server.restart.base_path.clone();
        let log = RequestLog::new(
            context.clock.clone(),
            live.settings.log.level,
            live.settings.log.format,
            &context.metrics,
        );
        Arc::new(Self {
            live: ArcSwap::from_pointee(live),
            log: Arc::new(log),
            base_path,
            clock: context.clock,
            metrics: context.metrics,
            scrape: Mutex::default(),
            drain,
            dev: context.dev,
            recent: RecentRequests::default(),
            registry: registry.clone(),
            request_ids: RequestIds::new(),
        })
    }

    /// Whether `path` is the given route below `server.base_path`.
    fn is_route(&self, path: &str, route: &str) -> bool {
        path.strip_prefix(&*self.base_path) == Some(route)
    }

    /// The settings in force now.
    pub fn live(&self) -> Arc<Live> {
        self.live.load_full()
    }

    /// The `[server]` settings in force, for the listeners.
    pub fn server_settings(self: &Arc<Self>) -> LiveSettings {
        let app = self.clone();
        Arc::new(move || app.live().settings.server.clone())
    }
}

impl Reloadable for App {
    fn settings(&self) -> Arc<Settings> {
        self.live().settings.clone()
    }

    /// Applies new settings to requests that start from now on. If its limits have not changed, the rate limiter is
    /// kept, so that credentials and subjects over their quota stay limited. If `server.max_in_flight` has not changed,
    /// its permits are kept, so that requests in flight still count.
    fn replace(&self, settings: Settings) {
        let old = self.live();
        let limiter = if old.settings.rate_limit == settings.rate_limit {
            old.limiter.clone()
        } else {
            limiter(settings.rate_limit, &self.clock)
        };
        let in_flight = if old.settings.server.max_in_flight == settings.server.max_in_flight {
            old.in_flight.clone()
        } else {
            Arc::new(Semaphore::new(settings.server.max_in_flight))
        };
        let subject_log = subject_log(&settings);
        self.log.set(settings.log.format, settings.log.level);
        settings.share_limits();
        self.live.store(Arc::new(Live {
            settings: Arc::new(settings),
            limiter,
            in_flight,
            subject_log,
        }));
    }
}

impl Live {
    /// A permit for one token request. Requests above `server.max_in_flight` are refused and not queued.
    ///
    /// # Errors
    /// `Overloaded` if all permits are taken.
    pub fn admit(&self) -> Result<SemaphorePermit<'_>, Error> {
        self.in_flight.try_acquire().map_err(|_| Error::Overloaded)
    }

    /// The number of token requests in flight.
    pub fn in_flight(&self) -> usize {
        self.settings.server.max_in_flight - self.in_flight.available_permits()
    }
}

fn limiter(config: RateLimitConfig, clock: &Clock) -> Option<Arc<TokenLimiter>> {
    TokenLimiter::new(config, clock).map(Arc::new)
}

fn subject_log(settings: &Settings) -> SubjectLog {
    let plain = settings.log.subject == LogSubject::Plain;
    SubjectLog::new(plain, &settings.client.secret)
}

/// The router of the public listener.
pub fn public(app: &Arc<App>) -> Router {
    let mut routes = token_routes(app)
        .route("/healthz", read_only(get(health::live)))
        .route("/readyz", read_only(get(health::ready)))
        .fallback(not_found);
    if app.dev {
        routes = routes.merge(at_base_path(app, dev::routes()));
    }
    with_middleware(routes, app)
}

/// The router to be merged into another axum app, whose own paths and fallback stay in effect.
pub fn embedded(app: &Arc<App>) -> Router {
    with_middleware(token_routes(app), app)
}

fn token_routes(app: &Arc<App>) -> Router<Arc<App>> {
    let routes = [
        (
            token::PATH,
            post(token::issue)
                .get(token::issue_at_path)
                .head(token::method_not_allowed)
                .options(token::preflight)
                .fallback(token::method_not_allowed),
        ),
        (
            token::DOCS_PATH,
            // With `fallback` instead of `any`, axum would add `Allow` to the 404 that is returned if
            // `server.docs_alias` is off.
            any(token::docs_method_not_allowed)
                .get(token::issue_at_docs_path)
                .head(token::docs_head)
                .options(token::docs_preflight),
        ),
        ("/openapi.json", read_only(get(openapi::openapi))),
        (assets::CLIENT_PATH, read_only(get(assets::client))),
    ];
    at_base_path(app, routes)
}

/// The routes below `server.base_path`. They are not nested, because a nested route for `/` would not match `/api/`.
fn at_base_path(
    app: &App,
    routes: impl IntoIterator<Item = (&'static str, MethodRouter<Arc<App>>)>,
) -> Router<Arc<App>> {
    routes
        .into_iter()
        .fold(Router::new(), |all, (path, route)| {
            all.route(&format!("{}{path}", app.base_path), route)
        })
}

/// The router of the admin listener.
pub fn admin(app: &Arc<App>) -> Router {
    let routes = Router::new()
        .route(METRICS_PATH, read_only(get(health::metrics)))
        .route("/healthz", read_only(get(health::live)))
        .route("/readyz", read_only(get(health::ready_for_operators)))
        .fallback(not_found_on_admin);
    with_middleware(routes, app)
}

/// The service's public paths that begin with `/rollout`, without the base path.
const BELOW_ROLLOUT: [&str; 3] = [token::PATH, token::DOCS_PATH, assets::CLIENT_PATH];

async fn not_found(State(app): State<Arc<App>>, uri: Uri) -> Error {
    if uri.path() == METRICS_PATH {
        return Error::WrongPath(Reason::OtherListener);
    }
    let path = uri.path().trim_end_matches('/');
    let known = BELOW_ROLLOUT.iter().find(|known| path.ends_with(**known));
    match known {
        Some(known) if app.is_route(path, known) => Error::WrongPath(Reason::TrailingSlash),
        Some(_) => Error::WrongPath(Reason::PathPrefix),
        None => Error::NotFound,
    }
}

async fn not_found_on_admin(State(app): State<Arc<App>>, uri: Uri) -> Error {
    let mut known = BELOW_ROLLOUT.iter();
    if known.any(|known| app.is_route(uri.path(), known)) {
        Error::WrongPath(Reason::OtherListener)
    } else {
        Error::NotFound
    }
}

/// Makes the route answer methods other than GET and HEAD with a JSON error.
pub fn read_only(route: MethodRouter<Arc<App>>) -> MethodRouter<Arc<App>> {
    route.fallback(|| async { Error::MethodNotAllowed("GET, HEAD") })
}

/// Adds the middleware of all routes. A request passes through the layers from top to bottom, and its response from
/// bottom to top.
fn with_middleware(routes: Router<Arc<App>>, app: &Arc<App>) -> Router {
    routes.with_state(app.clone()).layer(
        ServiceBuilder::new()
            .map_request(|request| request_id::drop_malformed(request_checks::measured(request)))
            .layer(SetRequestIdLayer::x_request_id(app.request_ids.clone()))
            .layer(PropagateRequestIdLayer::x_request_id())
            .layer(from_fn_with_state(app.clone(), finish))
            .layer(CatchPanicLayer::custom(|_| Error::Internal.into_response())),
    )
}

/// Builds the response to every error, adds the headers that all responses have, the CORS headers and the cookies of
/// the app, and logs refusals.
async fn finish(
    State(app): State<Arc<App>>,
    route: Option<MatchedPath>,
    mut request: Request,
    next: Next,
) -> Response {
    let started = app.clock.monotonic();
    let live = app.live();
    let listed = origin::listed(&live.settings.origins, request.headers())
        .map(|(origin, listing)| (origin.clone(), listing));
    let id = request.headers().get(X_REQUEST_ID).cloned();
    let id = id
        .as_ref()
        .and_then(|id| id.to_str().ok())
        .unwrap_or("unknown");
    // The pattern of the matched route, never the caller's path. It begins with `server.base_path` and, if another app
    // nests the router, with that app's prefix. It is absent if no route matched.
    let matches = |path: &str| {
        route
            .as_ref()
            .is_some_and(|route| route.as_str().ends_with(path))
    };
    let token_route = [token::PATH, token::DOCS_PATH]
        .into_iter()
        .find(|path| matches(path));
    let span = Arc::new(request_span(&request, id, token_route));
    // Under `dev`, pages of every loopback origin may call the token routes and `client.js`, but not the routes of the
    // dev page.
    let is_for_apps = token_route.is_some() || matches(assets::CLIENT_PATH);
    let path_ends_in_token = request.uri().path().ends_with("token");
    let explaining = request.extensions().get::<Explaining>().cloned();
    let cookies = ResponseCookies::default();
    request.extensions_mut().insert(cookies.clone());
    request.extensions_mut().insert(InForce {
        live: live.clone(),
        span: span.clone(),
        started,
    });

    let mut response = span
        .instrument(checked(&app, &live.settings.server, request, next))
        .await
        .into_response();

    if let Some(error) = response.extensions_mut().remove::<Error>() {
        if let Some(explaining) = explaining {
            explaining.record(Beginning::Refused(error.clone()));
        }
        let duration = app.clock.monotonic().saturating_sub(started);
        app.refused(
            &error,
            &span,
            &live.subject_log,
            duration,
            path_ends_in_token,
        );
        response = error.respond(id);
    }
    let headers = response.headers_mut();
    error::protect(headers);
    for line in cookies.lines() {
        headers.append(header::SET_COOKIE, line);
    }
    if let Some((origin, listing)) = listed
        && (listing != Listing::Loopback || is_for_apps)
    {
        origin::allow_reading(headers, origin, listing);
    }
    if app.dev {
        headers.insert(X_ROLLOUT_DEV, HeaderValue::from_static("1"));
    }
    if app.drain.is_draining() {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// Refuses malformed and oversized requests and, under `dev`, requests to a host that is not loopback. Applies
/// `server.request_timeout` to the others.
async fn checked(
    app: &App,
    limits: &ServerConfig,
    request: Request,
    next: Next,
) -> Result<Response, Error> {
    let request = if app.dev && app.is_route(request.uri().path(), dev::EXPLAIN_PATH) {
        request_checks::check_with_body(request, limits, pasted::MAX_BYTES).await?
    } else {
        request_checks::check(request, limits).await?
    };
    if app.dev && !dev::is_local(request.headers()) {
        return Err(Error::HostNotAllowed);
    }
    tokio::time::timeout(limits.request_timeout.0, next.run(request))
        .await
        .map_err(|_| Error::DeadlineExceeded)
}

impl App {
    /// Logs and counts a request for which a token was issued.
    pub fn issued(&self, user: &Authenticated, in_force: &InForce) {
        let duration = self.clock.monotonic().saturating_sub(in_force.started);
        self.metrics
            .answered(Some(&user.extractor), "issued", duration);
        let outcome = Outcome {
            status: StatusCode::OK,
            code: "issued",
            reason: None,
            cause: None,
            extractor: Some(&user.extractor),
            subject: Some(user.subject.as_str()),
            before_extractors: false,
            hint: None,
            duration,
        };
        self.show(&outcome);
        self.log
            .answered(&in_force.span, &outcome, &in_force.live.subject_log);
    }

    /// Logs a refused preflight from a listed origin: the browser will not send the request that it announced.
    pub fn refused_preflight(&self, in_force: &InForce, reason: Reason, asked: &HeaderValue) {
        self.log
            .refused_preflight(&in_force.span, reason.as_str(), asked);
    }

    /// Logs and counts a refused request. A failed readiness probe is neither logged nor counted.
    fn refused(
        &self,
        error: &Error,
        span: &RequestSpan,
        subjects: &SubjectLog,
        duration: Duration,
        path_ends_in_token: bool,
    ) {
        if matches!(error, Error::Unready(_)) {
            return;
        }
        self.metrics
            .answered(error.extractor(), error.code(), duration);
        let outcome = Outcome {
            status: error.status(),
            code: error.code(),
            reason: Some(error.reason().as_str()),
            cause: error.cause(),
            extractor: error.extractor().map(|name| &**name),
            subject: error.subject().map(Subject::as_str),
            before_extractors: error.is_before_extractors(),
            hint: error.hint(path_ends_in_token),
            duration,
        };
        if path_ends_in_token {
            self.show(&outcome);
        }
        self.log.answered(span, &outcome, subjects);
    }

    /// Under `dev`, lists a token request on the dev page.
    fn show(&self, outcome: &Outcome<'_>) {
        if self.dev {
            self.recent.record(self.clock.now(), outcome);
        }
    }
}
