//! A fake OTLP collector over HTTP that decodes and records the traces it receives.

use std::collections::BTreeMap;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use prost::Message;

use crate::backend::{Backend, Seen};

pub struct Receiver(Backend);

/// A received span, with its ids as hexadecimal digits.
#[derive(Clone, Debug)]
pub struct Span {
    pub trace: String,
    pub id: String,
    pub parent: String,
    pub name: String,
    pub kind: &'static str,
    pub attributes: BTreeMap<String, String>,
    pub failed: bool,
}

impl Receiver {
    pub async fn start() -> Self {
        Self(Backend::always(200, &[("content-type", "application/x-protobuf")], "").await)
    }

    pub fn url(&self) -> String {
        self.0.url("")
    }

    pub fn requests(&self) -> Vec<Seen> {
        self.0.seen()
    }

    fn exports(&self) -> impl Iterator<Item = ExportTraceServiceRequest> {
        self.requests().into_iter().map(|request| {
            ExportTraceServiceRequest::decode(request.body).expect("OTLP in protobuf")
        })
    }

    pub fn resource(&self) -> BTreeMap<String, String> {
        let export = self.exports().next().expect("an export");
        attributes(
            &export.resource_spans[0]
                .resource
                .as_ref()
                .expect("a resource")
                .attributes,
        )
    }

    pub fn spans(&self) -> Vec<Span> {
        let resources = self.exports().flat_map(|export| export.resource_spans);
        let scopes = resources.flat_map(|resource| resource.scope_spans);
        scopes.flat_map(|scope| scope.spans).map(read).collect()
    }

    /// The latest span with this name.
    pub fn last(&self, name: &str) -> Span {
        self.spans()
            .into_iter()
            .rfind(|span| span.name == name)
            .unwrap_or_else(|| panic!("no {name:?}"))
    }

    /// The only span with this name.
    pub fn span(&self, name: &str) -> Span {
        let mut spans = self.spans().into_iter().filter(|span| span.name == name);
        let span = spans
            .next()
            .unwrap_or_else(|| panic!("no {name:?} in {:#?}", self.spans()));
        assert!(
            spans.next().is_none(),
            "more than one {name:?} in {:#?}",
            self.spans()
        );
        span
    }
}

fn read(span: opentelemetry_proto::tonic::trace::v1::Span) -> Span {
    assert!(span.end_time_unix_nano >= span.start_time_unix_nano && span.start_time_unix_nano > 0);
    assert!(span.trace_state.is_empty() && span.events.is_empty() && span.links.is_empty());
    let kind = match span.kind() {
        SpanKind::Server => "server",
        SpanKind::Client => "client",
        SpanKind::Internal => "internal",
        other => panic!("{other:?}"),
    };
    let status = span.status.as_ref();
    assert!(
        status.is_none_or(|status| status.message.is_empty()),
        "an unexpected status message: {status:?}"
    );
    Span {
        trace: hex(&span.trace_id),
        id: hex(&span.span_id),
        parent: hex(&span.parent_span_id),
        kind,
        attributes: attributes(&span.attributes),
        failed: status.is_some_and(|status| status.code() == StatusCode::Error),
        name: span.name,
    }
}

fn attributes(list: &[KeyValue]) -> BTreeMap<String, String> {
    list.iter()
        .map(|pair| (pair.key.clone(), text(pair.value.as_ref())))
        .collect()
}

fn text(value: Option<&AnyValue>) -> String {
    match value.and_then(|value| value.value.as_ref()) {
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::IntValue(number)) => number.to_string(),
        other => panic!("neither a string nor an integer: {other:?}"),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
