//! Exports the spans of `spans.rs` as traces, with OTLP over HTTP.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use axum::http::{HeaderMap, Request, Response};
use opentelemetry::trace::{TraceContextExt, TracerProvider};
use opentelemetry::{Context, KeyValue};
use opentelemetry_http::{Bytes, HttpError};
use opentelemetry_otlp::{SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::resource::EnvResourceDetector;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tokio::runtime::Handle;
use tracing::Span;
use tracing::level_filters::LevelFilter;
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;

use crate::telemetry::BoxedLayer;
use crate::telemetry::spans::TRACES;
use crate::telemetry::trace_parent::TraceParent;
use crate::telemetry::traces::{SendTraces, TraceReceiver};

/// How long the process waits at exit for the export of the last spans.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

/// The exporter. By default, at most 2,048 spans wait to be sent; further spans are dropped.
#[derive(Debug)]
pub struct Traces(Option<SdkTracerProvider>);

impl Traces {
    /// Sends the remaining spans, for at most [`FLUSH_TIMEOUT`].
    pub async fn flush(self) {
        let Some(provider) = self.0 else { return };
        let ended =
            tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(FLUSH_TIMEOUT))
                .await;
        if !matches!(ended, Ok(Ok(()))) {
            tracing::warn!("the last spans could not be sent");
        }
    }
}

/// The layer that converts the trace spans of `spans.rs`, and no others, to OpenTelemetry spans.
pub(super) fn layer(
    receiver: Option<&TraceReceiver>,
    send: SendTraces,
) -> Result<(Option<BoxedLayer>, Traces), String> {
    let Some(receiver) = receiver else {
        return Ok((None, Traces(None)));
    };
    let transport = Transport {
        send,
        runtime: Handle::current(),
        failing: Arc::new(AtomicBool::new(false)),
    };
    let exporter = SpanExporter::builder()
        .with_http()
        .with_endpoint(receiver.endpoint.as_str())
        .with_http_client(transport)
        .build()
        .map_err(|error| error.to_string())?;
    let resource = Resource::builder_empty()
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .with_detector(Box::new(EnvResourceDetector::new()))
        .with_service_name(receiver.service.clone())
        .build();
    let provider = SdkTracerProvider::builder()
        .with_resource(resource)
        .with_batch_exporter(exporter)
        .build();
    let layer = tracing_opentelemetry::layer()
        .with_tracer(provider.tracer(env!("CARGO_PKG_NAME")))
        // Export no attributes other than those in `spans.rs`.
        .with_location(false)
        .with_threads(false)
        .with_level(false)
        .with_target(false)
        .with_tracked_inactivity(false)
        // Not needed: a span's parent is the current `tracing` span, and spawned tasks are instrumented with that span.
        .with_context_activation(false)
        .with_filter(Targets::new().with_target(TRACES, LevelFilter::INFO));
    Ok((Some(layer.boxed()), Traces(Some(provider))))
}

/// Makes the caller's span the parent of the request's span.
pub(super) fn set_parent(span: &Span, caller: Option<&TraceParent>) {
    let caller = caller.filter(|_| !span.is_disabled());
    if let Some(context) = caller.and_then(TraceParent::span_context) {
        // This fails only for a span that has already started.
        let _ = span.set_parent(Context::new().with_remote_span_context(context));
    }
}

/// The `traceparent` of a span, or `None` if the span is disabled because no collector is configured.
pub(super) fn trace_parent(span: &Span) -> Option<TraceParent> {
    if span.is_disabled() {
        return None;
    }
    TraceParent::of_span_context(span.context().span().span_context())
}

/// Adds the `traceparent` of the call's span to a request to a backend.
pub fn inject(span: &Span, headers: &mut HeaderMap) {
    if let Some(parent) = trace_parent(span) {
        parent.put_into(headers);
    }
}

/// The exporter's HTTP client. The exporter runs in its own thread, but its requests are sent in the service's runtime,
/// by the service's HTTP client.
#[derive(Clone, Debug)]
struct Transport {
    send: SendTraces,
    runtime: Handle,
    /// Whether the last export failed. Only the first of consecutive failures is logged.
    failing: Arc<AtomicBool>,
}

#[async_trait]
impl opentelemetry_http::HttpClient for Transport {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let request = reqwest::Request::try_from(request)?;
        let status = self.runtime.spawn((self.send.0)(request)).await?;
        let failure = match &status {
            Ok(status) if status.is_success() => None,
            Ok(status) => Some(format!("the answer's status is {}", status.as_u16())),
            Err(error) => Some(error.clone()),
        };
        self.log(failure.as_deref());
        let mut response = Response::new(Bytes::new());
        *response.status_mut() = status?;
        Ok(response)
    }
}

impl Transport {
    fn log(&self, failure: Option<&str>) {
        let was_failing = self.failing.swap(failure.is_some(), Ordering::Relaxed);
        match failure {
            Some(detail) if !was_failing => tracing::warn!(detail, "traces cannot be sent"),
            None if was_failing => tracing::info!("traces are sent again"),
            Some(_) | None => {}
        }
    }
}
