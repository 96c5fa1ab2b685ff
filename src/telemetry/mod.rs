//! Logs, metrics and traces. This module receives plain fields and does not depend on routes, errors or extractors.

mod gcp;
mod json_lines;
pub mod logs;
mod lost_lines;
pub mod metrics;
#[cfg(feature = "otel")]
mod otel;
pub mod requests;
pub(crate) mod spans;
mod trace_parent;
pub(crate) mod traces;

use std::iter;
use std::sync::Arc;

use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry};

use crate::telemetry::logs::{LogControl, LogOptions, LogWriter};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::traces::{SendTraces, TraceReceiver, Traces};

/// A layer that writes the log or exports traces.
type BoxedLayer = Box<dyn Layer<Registry> + Send + Sync>;

/// Starts logging to `writer`, and exporting traces if a collector is configured. Installs a panic hook that counts the
/// panic and logs its location. Returns the trace exporter, and the handle that changes the log's format and level.
/// Must be called inside a Tokio runtime.
///
/// # Errors
/// If logging was already started, or the trace exporter cannot be built.
pub fn start(
    log: LogOptions,
    writer: LogWriter,
    receiver: Option<&TraceReceiver>,
    send: SendTraces,
    metrics: Arc<Metrics>,
) -> Result<(Traces, LogControl), String> {
    let (trace_layer, traces) = traces::layer(receiver, send)?;
    let (log_layer, control) = logs::layer(log, writer, receiver.is_some());
    let layers: Vec<_> = iter::once(log_layer).chain(trace_layer).collect();
    tracing_subscriber::registry()
        .with(layers)
        .try_init()
        .map_err(|error| error.to_string())?;
    std::panic::set_hook(Box::new(move |panic| {
        metrics.panics.inc();
        let location = panic.location().map(tracing::field::display);
        // The message is not logged, because it may quote the data that was being processed.
        tracing::error!(location, "panic");
    }));
    if let Some(receiver) = receiver {
        // Log only the origin, because the query may contain an API key.
        tracing::info!(
            receiver = receiver.endpoint.origin().ascii_serialization(),
            "traces are sent"
        );
    }
    Ok((traces, control))
}
