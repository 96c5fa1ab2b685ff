//! The spans of a request: one for the log, whose fields every line inside it has, and those that are sent
//! as traces.
//!
//! Spans for traces have the target [`TRACES`]. They exist only while a receiver is configured, and are all
//! that is ever sent: no span or event of a library, no line of the log. Their fields are the attributes
//! that OpenTelemetry defines, and ours under `rollout.`: never a header, a cookie, a path or query that a
//! caller made up, a token, a secret, or a subject other than its keyed hash.

use axum::http::{HeaderValue, Method, Request, StatusCode, Uri, header};
use tracing::field::Empty;
use tracing::instrument::Instrumented;
use tracing::{Instrument, Span};
use url::Url;

pub use crate::telemetry::trace_parent::{TraceParent, pass_on};
pub use crate::telemetry::traces::inject;

use crate::telemetry::traces;

/// The target of spans that are sent as traces.
pub(super) const TRACES: &str = "rollout::traces";

/// The spans of one request. Everything that happens inside [`RequestSpan::instrument`] is part of them.
#[derive(Debug)]
pub struct RequestSpan {
    /// An `error_span!`, so that it exists at every level of the log.
    pub(super) log: Span,
    /// Requests for a token only.
    pub(super) trace: Span,
    pub(super) asks_for_token: bool,
    pub(super) head: RequestHead,
}

/// What the log says of a request that is refused before an extractor is asked. It shares the buffers of the
/// request.
#[derive(Debug)]
pub(super) struct RequestHead {
    pub(super) method: Method,
    pub(super) uri: Uri,
    pub(super) host: Option<HeaderValue>,
    pub(super) origin: Option<HeaderValue>,
}

/// Begins the spans of a request. `token_route` is the route's own path if the request asks for a token: a
/// caller's path may be anything.
pub fn request_span<B>(
    request: &Request<B>,
    request_id: &str,
    token_route: Option<&'static str>,
) -> RequestSpan {
    let headers = request.headers();
    let caller = TraceParent::of(headers);
    let trace = token_route.map_or_else(Span::none, |route| {
        let method = known(request.method());
        tracing::info_span!(
            target: TRACES,
            parent: None,
            "request",
            otel.name = %format_args!("{method} {route}"),
            otel.kind = "server",
            otel.status_code = Empty,
            http.request.method = method,
            http.route = route,
            http.response.status_code = Empty,
            rollout.request_id = request_id,
            rollout.code = Empty,
            rollout.reason = Empty,
            rollout.extractor = Empty,
            enduser.pseudo.id = Empty,
            error.type = Empty,
        )
    });
    traces::set_parent(&trace, caller);
    let parent = traces::trace_parent(&trace).or(caller);
    let trace_id = parent.as_ref().map(TraceParent::trace_id);
    let log =
        tracing::error_span!(parent: &trace, "request", request_id, trace_id, extractor = Empty);
    let head = RequestHead {
        method: request.method().clone(),
        uri: request.uri().clone(),
        host: headers.get(header::HOST).cloned(),
        origin: headers.get(header::ORIGIN).cloned(),
    };
    RequestSpan {
        log,
        trace,
        asks_for_token: token_route.is_some(),
        head,
    }
}

impl RequestSpan {
    /// Makes `work` a part of this request.
    pub fn instrument<F: Future>(&self, work: F) -> Instrumented<Instrumented<F>> {
        work.instrument(self.log.clone())
            .instrument(self.trace.clone())
    }
}

/// Gives the request's span, which must be the current one, the name of the extractor that is asked now.
pub fn record_extractor(name: &str) {
    Span::current().record("extractor", name);
}

/// The span of one extractor that is asked.
pub fn extractor_span(name: &str, kind: &'static str) -> Span {
    tracing::info_span!(
        target: TRACES,
        "extractor",
        otel.name = name,
        otel.status_code = Empty,
        rollout.extractor = name,
        rollout.extractor.kind = kind,
        rollout.outcome = Empty,
        rollout.reason = Empty,
        error.type = Empty,
    )
}

/// What the extractor answered.
pub fn record_outcome(extractor: &Span, outcome: &'static str, reason: Option<&'static str>) {
    extractor.record("rollout.outcome", outcome);
    extractor.record("rollout.reason", reason);
}

/// The span of one call to a backend. Path and query are left out: they may hold a key, or a part of a
/// caller's token.
pub fn call_span(method: &Method, url: &Url) -> Span {
    let method = known(method);
    tracing::info_span!(
        target: TRACES,
        "call",
        otel.name = method,
        otel.kind = "client",
        otel.status_code = Empty,
        http.request.method = method,
        http.response.status_code = Empty,
        server.address = url.host_str(),
        server.port = url.port_or_known_default(),
        error.type = Empty,
    )
}

/// The status that a backend answered with. A 401, by which many say "not signed in", is no failure.
pub fn record_status(call: &Span, status: StatusCode) {
    call.record("http.response.status_code", status.as_u16());
    if status.is_server_error() {
        record_failure(call, status.as_str());
    }
}

/// The span of one question to a session store.
pub fn store_span(system: &'static str) -> Span {
    tracing::info_span!(
        target: TRACES,
        "store",
        otel.name = system,
        otel.kind = "client",
        otel.status_code = Empty,
        db.system.name = system,
        error.type = Empty,
    )
}

/// Something of ours failed. That a caller is refused is not a failure (OpenTelemetry's rule for servers).
pub fn record_failure(span: &Span, error_type: &str) {
    span.record("error.type", error_type);
    span.record("otel.status_code", "ERROR");
}

/// A caller can make up methods; this gives those that exist.
fn known(method: &Method) -> &'static str {
    ["GET", "POST", "OPTIONS", "HEAD", "PUT", "DELETE", "PATCH"]
        .into_iter()
        .find(|known| *known == method.as_str())
        .unwrap_or("_OTHER")
}
