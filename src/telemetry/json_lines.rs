//! The JSON format of the log: one object per line, with the fields of the event and of its spans at the top level. An
//! event's field overrides a span's, and an inner span's field overrides an outer span's.
//!
//! Neither of the two existing crates fits: the JSON layer of `tracing-subscriber` writes span fields into a nested
//! object, where operators' log queries do not find `request_id`; `json-subscriber` 0.3 adds the span's name to every
//! line, and writes a field twice if both the event and the span have it.

use std::fmt;
use std::io::Write;

use serde::{Serialize, Serializer};
use serde_json::Value;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

use crate::telemetry::gcp;

pub(super) struct JsonLines<W> {
    pub(super) writer: W,
    pub(super) names: FieldNames,
}

/// The field names of a line.
#[derive(Debug)]
pub(super) enum FieldNames {
    Own,
    /// Google Cloud's names. `project` is `None` if the project is unknown.
    GoogleCloud {
        project: Option<String>,
    },
}

/// The fields of a span or a line, in the order in which they were recorded.
#[derive(Debug, Default)]
struct Fields(Vec<(&'static str, Value)>);

impl Fields {
    fn set(&mut self, name: &'static str, value: Value) {
        match self.0.iter_mut().find(|(known, _)| *known == name) {
            Some((_, old)) => *old = value,
            None => self.0.push((name, value)),
        }
    }

    fn record(&mut self, field: &Field, value: impl Into<Value>) {
        self.set(field.name(), value.into());
    }

    /// Adds the outer span's fields that are missing here.
    fn inherit(&mut self, outer: &Self) {
        for (name, value) in &outer.0 {
            if !self.0.iter().any(|(known, _)| known == name) {
                self.0.push((name, value.clone()));
            }
        }
    }
}

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.record(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.record(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.record(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.record(field, value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.record(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record(field, format!("{value:?}"));
    }
}

impl Serialize for Fields {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // A name with a dot is an attribute for traces, or a field for Google Cloud's format, so the line omits it.
        let own = self.0.iter().filter(|(name, _)| !name.contains('.'));
        serializer.collect_map(own.map(|(name, value)| (name, value)))
    }
}

impl<S, W> Layer<S> for JsonLines<W>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'a> MakeWriter<'a> + 'static,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        span.extensions_mut().insert(fields);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        if let Some(fields) = span.extensions_mut().get_mut::<Fields>() {
            values.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut line = Fields::default();
        line.set("timestamp", now().into());
        line.set("level", event.metadata().level().as_str().into());
        event.record(&mut line);
        for span in context.event_scope(event).into_iter().flatten() {
            if let Some(fields) = span.extensions().get::<Fields>() {
                line.inherit(fields);
            }
        }
        line.set("target", event.metadata().target().into());
        let text = match &self.names {
            FieldNames::Own => serde_json::to_vec(&line),
            FieldNames::GoogleCloud { project } => {
                serde_json::to_vec(&gcp::rename(line.0, project.as_deref()))
            }
        };
        let Ok(mut text) = text else { return };
        text.push(b'\n');
        // The writer itself counts lost lines.
        let _ = self.writer.make_writer().write_all(&text);
    }
}

fn now() -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = SystemTime.format_time(&mut Writer::new(&mut text));
    text
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use tracing::field::Empty;
    use tracing::{Instrument, info, info_span};
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    #[derive(Clone, Default)]
    struct Output(Arc<Mutex<Vec<u8>>>);

    impl Write for Output {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// The lines that are written while `work` runs.
    fn lines(work: impl FnOnce()) -> Vec<Value> {
        let output = Output::default();
        let writer = output.clone();
        let layer = JsonLines {
            writer: move || writer.clone(),
            names: FieldNames::Own,
        };
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), work);
        let text = String::from_utf8(output.0.lock().unwrap().clone()).unwrap();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    #[test]
    fn log_line_has_each_field_of_its_event_and_its_spans_once() {
        let lines = lines(|| {
            let request = info_span!(
                "request",
                request_id = "1",
                extractor = Empty,
                http.route = "/x"
            );
            request.record("extractor", "web");
            let inner = info_span!(parent: &request, "inner", extractor = "app", count = 2);
            info!(parent: &inner, ready = true, ratio = 0.5, count = 3, "hello {}", "there");
            info!(parent: &request, "a\nb\u{1b}");
            info!("outside");
        });
        let shown = |line: &Value, name: &str| line.get(name).cloned();
        assert_eq!(shown(&lines[0], "message"), Some("hello there".into()));
        assert_eq!(shown(&lines[0], "request_id"), Some("1".into()));
        assert_eq!(
            shown(&lines[0], "extractor"),
            Some("app".into()),
            "the inner span's"
        );
        assert_eq!(shown(&lines[0], "count"), Some(3.into()), "the event's");
        assert_eq!(
            (&lines[0]["ready"], &lines[0]["ratio"]),
            (&true.into(), &0.5.into())
        );
        assert_eq!(
            (&lines[0]["level"], shown(&lines[0], "http.route")),
            (&"INFO".into(), None)
        );
        assert!(lines[0]["timestamp"].as_str().unwrap().ends_with('Z'));
        assert_eq!(lines[0]["target"], module_path!());
        assert_eq!(
            (&lines[1]["extractor"], &lines[1]["message"]),
            (&"web".into(), &"a\nb\u{1b}".into())
        );
        assert_eq!((lines.len(), shown(&lines[2], "request_id")), (3, None));
    }

    #[test]
    fn lines_of_a_spawned_task_have_the_fields_of_the_request_span() {
        let lines = lines(|| {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .build()
                .unwrap();
            let request = info_span!("request", request_id = "1");
            let spawning = async {
                crate::sync::spawn(async { info!("fetched") })
                    .await
                    .unwrap();
            };
            runtime.block_on(spawning.instrument(request));
        });
        assert!(
            lines.len() == 1 && lines.iter().all(|line| line["request_id"] == "1"),
            "{lines:?}"
        );
    }
}
