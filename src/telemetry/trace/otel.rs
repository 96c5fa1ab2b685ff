//! Spans, and how they are sent: OTLP over HTTP, through the service's own client. A build without the
//! feature has `off.rs` in place of this.
//!
//! Not `tracing-opentelemetry`: it would send whatever any library calls a span or an event. What is
//! sent here is what is written here: never a header, a cookie, a path or query that a caller made up,
//! a token, a secret, or a subject but for its keyed hash.

use std::borrow::Cow;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use axum::extract::Request;
use axum::http::StatusCode;
use opentelemetry::context::FutureExt;
use opentelemetry::trace::{
    SpanContext, SpanKind, Status, TraceContextExt, TraceState, Tracer, TracerProvider,
};
use opentelemetry::{Context, KeyValue, SpanId, TraceFlags, TraceId};
use opentelemetry_http::{Bytes, HttpError};
use opentelemetry_otlp::{SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::resource::EnvResourceDetector;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};
use tokio::runtime::Handle;

use super::{Export, TraceParent};
use crate::http::error::Error;
use crate::http::routes::token::{self, Issued};
use crate::session::backends::http::{Answer, CallError, HttpClient, Limits};
use crate::session::chain::Denial;
use crate::session::types::{ExtractError, Reason};
use crate::telemetry::logs::SubjectLog;

/// One call to the receiver; what a library waits longer for is tried again with the next batch.
const LIMITS: Limits = Limits {
    connect: Duration::from_secs(2),
    total: Duration::from_secs(10),
    body: 64 * 1024,
    retry_closed: false,
};

/// How long the end of the process waits for the last spans to be taken.
const PATIENCE: Duration = Duration::from_secs(2);

/// Set once, if spans are sent at all. Whoever works has no request at hand to carry it, as with
/// the log's own subscriber.
static TRACER: OnceLock<SdkTracer> = OnceLock::new();

/// The spans on their way. At most 2,048 wait to be sent; more are dropped rather than waited for.
#[derive(Debug)]
pub struct Traces(Option<SdkTracerProvider>);

/// Starts sending spans, if there is somewhere to send them. Must be called inside the runtime.
///
/// # Errors
/// What the library dislikes about its variables.
pub fn start(export: Option<&Export>, http: &HttpClient) -> Result<Traces, String> {
    let Some(export) = export else { return Ok(Traces(None)) };
    let transport =
        Transport { http: http.clone(), runtime: Handle::current(), failing: AtomicBool::new(false) };
    let exporter = SpanExporter::builder()
        .with_http()
        .with_endpoint(export.endpoint.as_str())
        .with_http_client(transport)
        .build()
        .map_err(|error| error.to_string())?;
    let resource = Resource::builder_empty()
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .with_detector(Box::new(EnvResourceDetector::new()))
        .with_service_name(export.service.clone())
        .build();
    let provider = SdkTracerProvider::builder().with_resource(resource).with_batch_exporter(exporter).build();
    // A second start in one process keeps the first; only tests do that.
    let _ = TRACER.set(provider.tracer(env!("CARGO_PKG_NAME")));
    // Not the whole URL: its query may hold a key.
    tracing::info!(receiver = export.endpoint.origin().ascii_serialization(), "traces are sent");
    Ok(Traces(Some(provider)))
}

impl Traces {
    /// Sends what is left, but waits no longer than [`PATIENCE`].
    pub async fn flush(self) {
        let Some(provider) = self.0 else { return };
        let ended = tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(PATIENCE)).await;
        if !matches!(ended, Ok(Ok(()))) {
            tracing::warn!("the last spans could not be sent");
        }
    }
}

/// How the library's own thread sends: through our client with all its limits, in our runtime.
#[derive(Debug)]
struct Transport {
    http: HttpClient,
    runtime: Handle,
    /// The last try failed: one line in the log is enough for a row of failures.
    failing: AtomicBool,
}

#[async_trait]
impl opentelemetry_http::HttpClient for Transport {
    async fn send_bytes(
        &self,
        request: axum::http::Request<Bytes>,
    ) -> Result<axum::http::Response<Bytes>, HttpError> {
        let request = reqwest::Request::try_from(request)?;
        let http = self.http.clone();
        let sent = self.runtime.spawn(async move { http.send_untraced(request, LIMITS).await });
        let answer = sent.await?;
        self.note(&answer);
        let answer = answer.map_err(|error| error.to_string())?;
        let mut response = axum::http::Response::new(Bytes::from(answer.body));
        (*response.status_mut(), *response.headers_mut()) = (answer.status, answer.headers);
        Ok(response)
    }
}

impl Transport {
    fn note(&self, answer: &Result<Answer, CallError>) {
        let failure = match answer {
            Ok(answer) if answer.status.is_success() => None,
            Ok(answer) => Some(CallError::Status(answer.status)),
            Err(error) => Some(error.clone()),
        };
        let was_failing = self.failing.swap(failure.is_some(), Ordering::Relaxed);
        match failure {
            Some(error) if !was_failing => {
                tracing::warn!(reason = error.word(), detail = %error, "traces cannot be sent");
            }
            None if was_failing => tracing::info!("traces are sent again"),
            Some(_) | None => {}
        }
    }
}

/// The span of one request for a token. Others, such as probes, have none.
#[derive(Debug)]
pub struct RequestSpan(Option<Context>);

impl RequestSpan {
    pub fn begin(request: &Request, caller: Option<TraceParent>, request_id: &str) -> Self {
        Self(Self::try_begin(request, caller, request_id))
    }

    fn try_begin(request: &Request, caller: Option<TraceParent>, request_id: &str) -> Option<Context> {
        let tracer = TRACER.get()?;
        // Spelled by us: a caller's path may be anything.
        let route = [token::PATH, token::DOCS_PATH].into_iter().find(|path| *path == request.uri().path())?;
        let method = method(request.method());
        let parent = caller.map_or_else(Context::new, |caller| caller.as_context());
        let span = tracer
            .span_builder(format!("{method} {route}"))
            .with_kind(SpanKind::Server)
            .with_attributes([
                KeyValue::new("http.request.method", method),
                KeyValue::new("http.route", route),
                KeyValue::new("rollout.request_id", request_id.to_owned()),
            ])
            .start_with_context(tracer, &parent);
        Some(parent.with_span(span))
    }

    pub fn own(&self) -> Option<TraceParent> {
        self.0.as_ref().and_then(TraceParent::of_context)
    }

    pub fn over<F: Future>(&self, work: F) -> impl Future<Output = F::Output> + use<F> {
        work.with_context(self.0.clone().unwrap_or_default())
    }

    pub fn issued(&self, issued: &Issued, subjects: &SubjectLog) {
        let Some(context) = self.recording() else { return };
        context.span().set_attributes([
            status(StatusCode::OK),
            KeyValue::new("rollout.code", "issued"),
            KeyValue::new("rollout.extractor", issued.extractor.to_string()),
            KeyValue::new("enduser.pseudo.id", subjects.hash(&issued.subject)),
        ]);
    }

    pub fn refused(&self, error: &Error) {
        let Some(context) = self.recording() else { return };
        let span = context.span();
        span.set_attributes([
            status(error.status()),
            KeyValue::new("rollout.code", error.code()),
            KeyValue::new("rollout.reason", error.reason()),
        ]);
        span.set_attributes(
            error.extractor().map(|name| KeyValue::new("rollout.extractor", name.to_string())),
        );
        // A caller's fault is no failure of ours (OpenTelemetry's rule for servers).
        if error.status().is_server_error() {
            failed(context, error.code());
        }
    }

    fn recording(&self) -> Option<&Context> {
        self.0.as_ref().filter(|context| context.span().is_recording())
    }
}

/// One extractor at work for a request.
pub async fn extractor<T>(
    name: &str,
    kind: &'static str,
    asking: impl Future<Output = Result<Option<T>, Denial>>,
) -> Result<Option<T>, Denial> {
    // Outside a request for a token there is nothing to be a part of.
    let within = Context::current().has_active_span().then(|| child(name.to_owned(), SpanKind::Internal));
    let Some(context) = within.flatten() else { return asking.await };
    let answer = asking.with_context(context.clone()).await;
    let (outcome, reason) = match &answer {
        Ok(None) => ("not_present", None),
        Ok(Some(_)) => ("session", None),
        Err(Denial::Nobody(word)) => ("nobody", Some(*word)),
        Err(Denial::NotMine(reason, _)) => ("not_mine", Some(reason.word)),
        Err(Denial::Rejected(Reason { word, .. })) => ("rejected", Some(*word)),
        Err(Denial::Unavailable(cause)) => ("unavailable", Some(cause.word)),
    };
    let span = context.span();
    span.set_attributes([
        KeyValue::new("rollout.extractor", name.to_owned()),
        KeyValue::new("rollout.extractor.kind", kind),
        KeyValue::new("rollout.outcome", outcome),
    ]);
    span.set_attributes(reason.map(|reason| KeyValue::new("rollout.reason", reason)));
    if let Err(Denial::Unavailable(cause)) = &answer {
        failed(&context, cause.word);
    }
    answer
}

/// One call to a back end, which is told that it is part of the trace.
pub async fn call<F>(mut request: reqwest::Request, send: impl FnOnce(reqwest::Request) -> F) -> F::Output
where
    F: Future<Output = Result<Answer, CallError>>,
{
    let method = method(request.method());
    let Some(context) = child(method, SpanKind::Client) else { return send(request).await };
    let span = context.span();
    span.set_attribute(KeyValue::new("http.request.method", method));
    // The address is the operator's; a path or query may hold a key, or a part of a caller's token.
    let url = request.url();
    if let (Some(host), Some(port)) = (url.host_str(), url.port_or_known_default()) {
        span.set_attributes([
            KeyValue::new("server.address", host.to_owned()),
            KeyValue::new("server.port", i64::from(port)),
        ]);
    }
    if let Some(parent) = TraceParent::of_context(&context) {
        parent.put_into(request.headers_mut());
    }
    let answer = send(request).with_context(context.clone()).await;
    match &answer {
        Ok(answer) => {
            span.set_attribute(status(answer.status));
            // A 401 is how many a back end says no: an answer, not a failure.
            if answer.status.is_server_error() {
                failed(&context, answer.status.as_str().to_owned());
            }
        }
        Err(error) => failed(&context, error.word()),
    }
    answer
}

/// One question to a session store.
pub async fn store<T>(
    system: &'static str,
    asking: impl Future<Output = Result<T, ExtractError>>,
) -> Result<T, ExtractError> {
    let Some(context) = child(system, SpanKind::Client) else { return asking.await };
    let answer = asking.with_context(context.clone()).await;
    context.span().set_attribute(KeyValue::new("db.system.name", system));
    if let Err(ExtractError::Unavailable(cause)) = &answer {
        failed(&context, cause.word);
    }
    answer
}

/// Work that goes on in a task of its own, as a part of the trace in which it began.
pub fn carry<F: Future>(work: F) -> impl Future<Output = F::Output> + use<F> {
    work.with_current_context()
}

/// A span within the one that is at work here; the first of a trace if there is none.
fn child(name: impl Into<Cow<'static, str>>, kind: SpanKind) -> Option<Context> {
    let tracer = TRACER.get()?;
    let parent = Context::current();
    let span = tracer.span_builder(name).with_kind(kind).start_with_context(tracer, &parent);
    Some(parent.with_span(span))
}

fn failed(context: &Context, word: impl Into<Cow<'static, str>>) {
    let span = context.span();
    span.set_attribute(KeyValue::new("error.type", word.into()));
    span.set_status(Status::error(""));
}

fn status(status: StatusCode) -> KeyValue {
    KeyValue::new("http.response.status_code", i64::from(status.as_u16()))
}

/// The methods that there are; a caller can make up others.
fn method(method: &axum::http::Method) -> &'static str {
    ["GET", "POST", "OPTIONS", "HEAD", "PUT", "DELETE", "PATCH"]
        .into_iter()
        .find(|known| *known == method.as_str())
        .unwrap_or("_OTHER")
}

impl TraceParent {
    /// What spans are started below.
    fn as_context(&self) -> Context {
        let flags = u8::from_str_radix(self.text(53..55), 16).unwrap_or_default();
        let parent = SpanContext::new(
            TraceId::from_hex(self.trace_id()).unwrap_or(TraceId::INVALID),
            SpanId::from_hex(self.text(36..52)).unwrap_or(SpanId::INVALID),
            // Of the flags only this one has a meaning for us.
            TraceFlags::new(flags & TraceFlags::SAMPLED.to_u8()),
            true,
            TraceState::NONE,
        );
        Context::new().with_remote_span_context(parent)
    }

    /// The span at work in `context`, as others are told of it.
    fn of_context(context: &Context) -> Option<Self> {
        let span = context.span();
        let own = span.span_context();
        let text = format!("00-{}-{}-{:02x}", own.trace_id(), own.span_id(), own.trace_flags());
        Self::parse(text.as_bytes())
    }
}
