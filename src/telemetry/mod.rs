//! Logs, metrics and traces. This room takes plain fields and knows nothing of routes, errors or extractors.

mod json_lines;
pub mod logs;
mod lost_lines;
pub mod metrics;
#[cfg(feature = "otel")]
mod otel;
pub mod requests;
pub mod spans;
mod trace_parent;
pub mod traces;

use std::sync::Arc;

use tracing::Level;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry};

use crate::telemetry::logs::{LogFormat, LogWriter};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::traces::{SendTraces, TraceReceiver, Traces};

/// One of the outputs of spans and events.
type BoxedLayer = Box<dyn Layer<Registry> + Send + Sync>;

/// Starts logging to `writer`, and sending traces if there is a receiver. A panic is counted, and logged
/// with its place and nothing else. Must be called inside the runtime.
///
/// # Errors
/// If logging was started before, or the exporter of traces cannot be built.
pub fn start(
    format: LogFormat,
    level: Level,
    writer: LogWriter,
    receiver: Option<&TraceReceiver>,
    send: SendTraces,
    metrics: Arc<Metrics>,
) -> Result<Traces, String> {
    let (trace_layer, traces) = traces::layer(receiver, send)?;
    let mut layers = vec![logs::layer(format, level, writer, receiver.is_some())];
    layers.extend(trace_layer);
    tracing_subscriber::registry()
        .with(layers)
        .try_init()
        .map_err(|error| error.to_string())?;
    std::panic::set_hook(Box::new(move |panic| {
        metrics.panics.inc();
        let location = panic
            .location()
            .map(ToString::to_string)
            .unwrap_or_default();
        // Not the message: it may quote the data that was being processed.
        tracing::error!(location, "panic");
    }));
    if let Some(receiver) = receiver {
        // Not the whole URL: its query may hold a key.
        tracing::info!(
            receiver = receiver.endpoint.origin().ascii_serialization(),
            "traces are sent"
        );
    }
    Ok(traces)
}
