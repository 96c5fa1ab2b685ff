//! Replaces the service's field names with those of Google Cloud's structured logging. Google Cloud reads the severity,
//! time, HTTP request and trace of a `LogEntry` from the renamed fields; all other fields become its payload.

use serde_json::{Map, Value};

const TRACE: &str = "logging.googleapis.com/trace";

/// Renames the fields of a line. The trace id becomes `projects/PROJECT/traces/ID` if the project is known.
pub(super) fn rename(
    fields: Vec<(&'static str, Value)>,
    project: Option<&str>,
) -> Map<String, Value> {
    let mut line = Map::new();
    let mut request = Map::new();
    for (name, value) in fields {
        if let ("duration_ms", Some(milliseconds)) = (name, value.as_f64()) {
            let latency = format!("{:.6}s", milliseconds / 1000.0);
            request.insert("latency".to_owned(), latency.into());
        }
        let (object, name, value) = match (name, value) {
            ("level", level) => (&mut line, "severity", severity(&level).into()),
            ("timestamp", time) => (&mut line, "time", time),
            ("trace_id", Value::String(id)) => {
                let trace = match project {
                    Some(project) => format!("projects/{project}/traces/{id}"),
                    None => id,
                };
                (&mut line, TRACE, trace.into())
            }
            ("http.method", method) => (&mut request, "requestMethod", method),
            ("http.path", path) => (&mut request, "requestUrl", path),
            ("http.status", status) => (&mut request, "status", status),
            // Any other name with a dot is an attribute for traces. The log line omits it.
            (name, _) if name.contains('.') => continue,
            (name, value) => (&mut line, name, value),
        };
        object.insert(name.to_owned(), value);
    }
    if request.contains_key("status") {
        line.insert("httpRequest".to_owned(), request.into());
    }
    line
}

/// The severity for a level: <https://cloud.google.com/logging/docs/reference/v2/rest/v2/LogEntry#LogSeverity>
fn severity(level: &Value) -> &'static str {
    match level.as_str() {
        Some("ERROR") => "ERROR",
        Some("WARN") => "WARNING",
        Some("INFO") => "INFO",
        _ => "DEBUG",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn fields_are_renamed_for_google_cloud_logging() {
        let fields = vec![
            ("timestamp", json!("2026-11-29T03:00:00Z")),
            ("level", json!("WARN")),
            ("message", json!("token.refused")),
            ("duration_ms", json!(1.5)),
            ("http.method", json!("POST")),
            ("http.path", json!("/rollout/token")),
            ("http.status", json!(503)),
            ("trace_id", json!("4bf92f3577b34da6a3ce929d0e0e4736")),
        ];
        let want = json!({
            "time": "2026-11-29T03:00:00Z",
            "severity": "WARNING",
            "message": "token.refused",
            "duration_ms": 1.5,
            "httpRequest": {
                "requestMethod": "POST",
                "requestUrl": "/rollout/token",
                "status": 503,
                "latency": "0.001500s",
            },
            "logging.googleapis.com/trace": "4bf92f3577b34da6a3ce929d0e0e4736",
        });
        assert_eq!(Value::from(rename(fields.clone(), None)), want);
        let trace = &rename(fields, Some("my-project"))[TRACE];
        assert_eq!(
            trace,
            "projects/my-project/traces/4bf92f3577b34da6a3ce929d0e0e4736"
        );
    }

    #[test]
    fn each_log_level_maps_to_a_google_cloud_severity() {
        for (level, want) in [
            ("ERROR", "ERROR"),
            ("WARN", "WARNING"),
            ("INFO", "INFO"),
            ("DEBUG", "DEBUG"),
            ("TRACE", "DEBUG"),
        ] {
            assert_eq!(severity(&level.into()), want);
        }
    }
}
