//! The spans of a request: one span for the log, whose fields appear on every line inside it, and the spans that are
//! exported as traces.
//!
//! Trace spans have the target [`TRACES`]. They are enabled only if a trace collector is configured. Nothing else is
//! exported: no spans or events of libraries, and no log lines. The fields of trace spans are attributes that
//! OpenTelemetry defines, and additional attributes with the prefix `rollout.`. Apart from the request id, they never
//! contain a header, a cookie, a caller's path or query, a token, a secret, or a subject in plain text.

use axum::http::{HeaderValue, Method, Request, StatusCode, Uri, header};
use tracing::field::Empty;
use tracing::instrument::Instrumented;
use tracing::{Instrument, Span};
use url::Url;

pub use crate::telemetry::trace_parent::{TraceParent, pass_on};
pub use crate::telemetry::traces::inject;

use crate::telemetry::traces;

/// The target of spans that are exported as traces.
pub(super) const TRACES: &str = "rollout::traces";

/// The spans of one request. [`RequestSpan::instrument`] runs work inside them.
#[derive(Debug)]
pub struct RequestSpan {
    /// Created with `error_span!`, so that it is enabled at every log level.
    pub(super) log: Span,
    /// Disabled unless the request is for a token and the subscriber enables [`TRACES`].
    pub(super) trace: Span,
    pub(super) asks_for_token: bool,
    pub(super) head: RequestHead,
}

/// The parts of the request head that a log line may contain. They share the request's buffers.
#[derive(Debug)]
pub(super) struct RequestHead {
    pub(super) method: Method,
    pub(super) uri: Uri,
    pub(super) host: Option<HeaderValue>,
    pub(super) origin: Option<HeaderValue>,
}

/// Creates the spans of a request. `token_route` is the path of the matched route if this is a token request. It
/// becomes an attribute; the path that the caller sent must not become one.
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
    traces::set_parent(&trace, caller.as_ref());
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
    /// Runs `work` inside both spans.
    pub fn instrument<F: Future>(&self, work: F) -> Instrumented<Instrumented<F>> {
        work.instrument(self.log.clone())
            .instrument(self.trace.clone())
    }
}

/// Records the name of the extractor that is being tried. The log span of the request must be the current span.
pub fn record_extractor(name: &str) {
    Span::current().record("extractor", name);
}

/// The span of one extractor call.
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

/// Records what the extractor returned.
pub fn record_outcome(extractor: &Span, outcome: &'static str, reason: Option<&'static str>) {
    extractor.record("rollout.outcome", outcome);
    extractor.record("rollout.reason", reason);
}

/// The span of one HTTP call to a backend. It has no path or query, because these may contain an API key or part of a
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

/// Records the status of a backend's response. A 4xx status is not a failure: many backends answer 401 for "not signed
/// in".
pub fn record_status(call: &Span, status: StatusCode) {
    call.record("http.response.status_code", status.as_u16());
    if status.is_server_error() {
        record_failure(call, status.as_str());
    }
}

/// The span of one query to a session store.
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

/// Marks the span as failed. A refused caller is not a failure (OpenTelemetry's convention for server spans).
pub fn record_failure(span: &Span, error_type: &str) {
    span.record("error.type", error_type);
    span.record("otel.status_code", "ERROR");
}

/// The method if it is common, otherwise `_OTHER`, because a string from a caller must not become an attribute.
fn known(method: &Method) -> &'static str {
    ["GET", "POST", "OPTIONS", "HEAD", "PUT", "DELETE", "PATCH"]
        .into_iter()
        .find(|known| *known == method.as_str())
        .unwrap_or("_OTHER")
}
