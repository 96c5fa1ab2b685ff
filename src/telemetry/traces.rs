//! The export of traces. With the feature `otel`, `otel.rs` implements it; without it, these functions do nothing.

use std::fmt;
use std::sync::Arc;

use axum::http::StatusCode;
use futures_util::future::BoxFuture;
use url::Url;

#[cfg(feature = "otel")]
pub use crate::telemetry::otel::{Traces, inject};
#[cfg(feature = "otel")]
pub(super) use crate::telemetry::otel::{layer, set_parent, trace_parent};

/// The collector that receives the traces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceReceiver {
    pub endpoint: Url,
    /// The attribute `service.name`.
    pub service: String,
}

/// Sends one batch of traces, with the proxy and certificates in `[outgoing]`. Returns the status of the response, or
/// why there is no response.
#[derive(Clone)]
pub struct SendTraces(pub Arc<dyn Fn(reqwest::Request) -> Sent + Send + Sync>);

pub type Sent = BoxFuture<'static, Result<StatusCode, String>>;

impl fmt::Debug for SendTraces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SendTraces")
    }
}

#[cfg(not(feature = "otel"))]
pub use without::*;

#[cfg(not(feature = "otel"))]
mod without {
    use axum::http::HeaderMap;
    use tracing::Span;

    use super::{SendTraces, TraceReceiver};
    use crate::telemetry::BoxedLayer;
    use crate::telemetry::trace_parent::TraceParent;

    #[derive(Debug)]
    pub struct Traces;

    impl Traces {
        #[expect(clippy::unused_async, reason = "async with the feature `otel`")]
        pub async fn flush(self) {}
    }

    #[expect(clippy::unnecessary_wraps, reason = "fallible with the feature `otel`")]
    pub(in crate::telemetry) fn layer(
        _: Option<&TraceReceiver>,
        _: SendTraces,
    ) -> Result<(Option<BoxedLayer>, Traces), String> {
        Ok((None, Traces))
    }

    pub(in crate::telemetry) fn set_parent(_: &Span, _: Option<&TraceParent>) {}

    pub(in crate::telemetry) fn trace_parent(_: &Span) -> Option<TraceParent> {
        None
    }

    pub fn inject(_: &Span, _: &mut HeaderMap) {}
}
