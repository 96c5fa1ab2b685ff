//! The trace collector, configured by the environment variables that OpenTelemetry defines.
//!
//! The names of the variables are standard in all languages, so the service has no configuration keys for traces. The
//! OpenTelemetry library itself reads the variables for headers, timeouts, batches and resource attributes. The
//! variables validated here are those whose invalid values the library silently ignores.

use std::collections::BTreeMap;

use crate::config::{Problems, Warnings};
use crate::session::backends::http::check_url;
use crate::telemetry::traces::TraceReceiver;

const TRACES_ENDPOINT: &str = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";

const SAMPLERS: [&str; 6] = [
    "always_on",
    "always_off",
    "traceidratio",
    "parentbased_always_on",
    "parentbased_always_off",
    "parentbased_traceidratio",
];

/// The environment variables. An empty variable is treated as unset.
struct Variables<'a>(&'a BTreeMap<String, String>);

impl<'a> Variables<'a> {
    fn get(&self, name: &str) -> Option<&'a str> {
        self.0
            .get(name)
            .map(|value| value.trim())
            .filter(|value| !value.is_empty())
    }

    /// The first of these variables that is set: the variable for traces takes precedence over the variable for all
    /// signals.
    fn first(&self, names: [&'static str; 2]) -> Option<(&'static str, &'a str)> {
        names
            .into_iter()
            .find_map(|name| Some((name, self.get(name)?)))
    }

    fn is_wanted(&self) -> bool {
        let disabled = self.get("OTEL_SDK_DISABLED");
        !disabled.is_some_and(|value| value.eq_ignore_ascii_case("true"))
            && self.get("OTEL_TRACES_EXPORTER") != Some("none")
    }
}

/// The configured collector, as [`read`] returns it. A build without the feature `otel` returns `None`, and warns if a
/// collector is configured.
pub(super) fn load(
    environment: &BTreeMap<String, String>,
    problems: &mut Problems,
    warnings: &mut Warnings,
) -> Option<TraceReceiver> {
    if cfg!(feature = "otel") {
        return read(environment, problems);
    }
    if read(environment, &mut Problems::default()).is_some() {
        warnings.add(
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            "configures traces, which this build does not send: build the service with --features otel, or set \
             OTEL_TRACES_EXPORTER=none",
        );
    }
    None
}

/// The configured collector; `None` if the variables name no collector or disable traces, or if the URL is invalid,
/// which is reported as a problem.
fn read(environment: &BTreeMap<String, String>, problems: &mut Problems) -> Option<TraceReceiver> {
    let variables = Variables(environment);
    let (name, text) = variables
        .first([TRACES_ENDPOINT, ENDPOINT])
        .filter(|_| variables.is_wanted())?;
    check(&variables, problems);
    // Traces contain no secrets, and collectors are usually in the same network, so plain HTTP is accepted.
    let mut endpoint = problems.accept(name, check_url(text, true))?;
    if name == ENDPOINT {
        let path = format!("{}/v1/traces", endpoint.path().trim_end_matches('/'));
        endpoint.set_path(&path);
    }
    let service = variables
        .get("OTEL_SERVICE_NAME")
        .unwrap_or(env!("CARGO_PKG_NAME"))
        .to_owned();
    Some(TraceReceiver { endpoint, service })
}

fn check(variables: &Variables<'_>, problems: &mut Problems) {
    const PROTOCOL: [&str; 2] = [
        "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
        "OTEL_EXPORTER_OTLP_PROTOCOL",
    ];
    const COMPRESSION: [&str; 2] = [
        "OTEL_EXPORTER_OTLP_TRACES_COMPRESSION",
        "OTEL_EXPORTER_OTLP_COMPRESSION",
    ];
    for (names, allowed) in [
        (["OTEL_TRACES_EXPORTER"; 2], &["otlp", "none"][..]),
        (PROTOCOL, &["http/protobuf"]),
        (COMPRESSION, &["none"]),
        (["OTEL_TRACES_SAMPLER"; 2], &SAMPLERS),
    ] {
        if let Some((name, value)) = variables.first(names) {
            let allowed_values = allowed.join(", ");
            problems.require(
                allowed.contains(&value),
                name,
                format!("must be one of {allowed_values}; this build supports no other value"),
            );
        }
    }
    if let Some(ratio) = variables.get("OTEL_TRACES_SAMPLER_ARG") {
        let sane = ratio
            .parse()
            .is_ok_and(|ratio: f64| (0.0..=1.0).contains(&ratio));
        problems.require(
            sane,
            "OTEL_TRACES_SAMPLER_ARG",
            "must be a ratio from 0.0 to 1.0",
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<Option<TraceReceiver>, String> {
        let pairs = pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let mut problems = Problems::default();
        let receiver = super::read(&pairs.collect(), &mut problems);
        if problems.is_empty() {
            Ok(receiver)
        } else {
            Err(problems.to_string())
        }
    }

    fn endpoint(pairs: &[(&str, &str)]) -> Option<String> {
        read(pairs)
            .unwrap()
            .map(|receiver| receiver.endpoint.into())
    }

    #[test]
    fn collector_is_read_from_the_standard_endpoint_variables() {
        let traces = |url: &str| Some(url.to_owned());
        for (pairs, want) in [
            (&[][..], None),
            (&[(ENDPOINT, "")], None),
            (
                &[(ENDPOINT, "http://c:4318")],
                traces("http://c:4318/v1/traces"),
            ),
            (
                &[(ENDPOINT, "http://c:4318/")],
                traces("http://c:4318/v1/traces"),
            ),
            (
                &[(ENDPOINT, "https://c/otlp/")],
                traces("https://c/otlp/v1/traces"),
            ),
            (
                &[(TRACES_ENDPOINT, "http://c:4318/mine")],
                traces("http://c:4318/mine"),
            ),
            (
                &[(ENDPOINT, "http://a"), (TRACES_ENDPOINT, "http://b/t")],
                traces("http://b/t"),
            ),
            (
                &[(ENDPOINT, "http://a"), ("OTEL_SDK_DISABLED", "True")],
                None,
            ),
            (
                &[(ENDPOINT, "http://a"), ("OTEL_TRACES_EXPORTER", "none")],
                None,
            ),
            (
                &[(ENDPOINT, "http://a"), ("OTEL_TRACES_EXPORTER", "otlp")],
                traces("http://a/v1/traces"),
            ),
        ] {
            assert_eq!(endpoint(pairs), want, "{pairs:?}");
        }
        let named = read(&[(ENDPOINT, "http://a"), ("OTEL_SERVICE_NAME", "tokens")])
            .unwrap()
            .unwrap();
        assert_eq!(named.service, "tokens");
        assert_eq!(
            read(&[(ENDPOINT, "http://a")]).unwrap().unwrap().service,
            "rollout-token"
        );
    }

    #[test]
    fn invalid_variable_is_reported_under_its_name_without_its_value() {
        let on = (ENDPOINT, "http://c:4318");
        for (pairs, name) in [
            (&[(ENDPOINT, "c:4318")][..], ENDPOINT),
            (
                &[(TRACES_ENDPOINT, "https://u:hunter2@c/")],
                TRACES_ENDPOINT,
            ),
            (
                &[on, ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")],
                "OTEL_EXPORTER_OTLP_PROTOCOL",
            ),
            (
                &[on, ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/json")],
                "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
            ),
            (
                &[on, ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")],
                "OTEL_EXPORTER_OTLP_COMPRESSION",
            ),
            (
                &[on, ("OTEL_TRACES_EXPORTER", "zipkin")],
                "OTEL_TRACES_EXPORTER",
            ),
            (
                &[on, ("OTEL_TRACES_SAMPLER", "sometimes")],
                "OTEL_TRACES_SAMPLER",
            ),
            (
                &[on, ("OTEL_TRACES_SAMPLER_ARG", "10%")],
                "OTEL_TRACES_SAMPLER_ARG",
            ),
            (
                &[on, ("OTEL_TRACES_SAMPLER_ARG", "NaN")],
                "OTEL_TRACES_SAMPLER_ARG",
            ),
        ] {
            let text = read(pairs).expect_err(name);
            assert!(
                text.starts_with(name) && !text.contains("hunter2"),
                "{text}"
            );
        }
    }
}
