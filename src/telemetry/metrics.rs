//! The metrics of the service. Label values are only configured names and fixed values, never strings from a caller.

use std::fmt::{self, Write as _};
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use crate::telemetry::lost_lines::LostLines;

/// Upper bounds of the histogram buckets, in seconds: most responses take well under a millisecond, and a slow backend
/// takes seconds.
const DURATION_BUCKETS: [f64; 11] = [
    0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 2.5, 5.0,
];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    extractor: Arc<str>,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ExtractorLabels {
    extractor: Arc<str>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabels {
    extractor: Arc<str>,
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReloadLabels {
    result: &'static str,
}

/// All metrics of the process.
pub struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    request_duration: Histogram,
    backend_duration: Family<ResultLabels, Histogram>,
    jwks_age: Family<ExtractorLabels, Gauge>,
    jwks_refresh: Family<ResultLabels, Counter>,
    jwks_unusable_keys: Family<ExtractorLabels, Gauge>,
    config_reloads: Family<ReloadLabels, Counter>,
    /// Token requests in flight.
    pub(crate) in_flight: Gauge,
    /// Open connections to the public listener.
    pub(crate) connections: Gauge,
    /// Panics that were caught.
    pub(crate) panics: Counter,
    pub(super) log_lines_lost: LostLines,
}

impl Metrics {
    pub fn new() -> Self {
        let histogram: fn() -> Histogram = || Histogram::new(DURATION_BUCKETS);
        let mut metrics = Self {
            registry: Registry::with_prefix("rollout_token"),
            requests: Family::default(),
            request_duration: histogram(),
            backend_duration: Family::new_with_constructor(histogram),
            jwks_age: Family::default(),
            jwks_refresh: Family::default(),
            jwks_unusable_keys: Family::default(),
            config_reloads: Family::default(),
            in_flight: Gauge::default(),
            connections: Gauge::default(),
            panics: Counter::default(),
            log_lines_lost: LostLines::default(),
        };
        let registry = &mut metrics.registry;
        registry.register(
            "requests",
            "Issued tokens and refused requests by outcome",
            metrics.requests.clone(),
        );
        registry.register_with_unit(
            "request_duration",
            "Time from the request head to the response",
            Unit::Seconds,
            metrics.request_duration.clone(),
        );
        registry.register_with_unit(
            "backend_duration",
            "Duration of calls to backends",
            Unit::Seconds,
            metrics.backend_duration.clone(),
        );
        registry.register_with_unit(
            "jwks_age",
            "Age of the signing keys in use",
            Unit::Seconds,
            metrics.jwks_age.clone(),
        );
        registry.register(
            "jwks_refresh",
            "Fetches of signing keys",
            metrics.jwks_refresh.clone(),
        );
        registry.register(
            "jwks_unusable_keys",
            "Signing keys that cannot be used",
            metrics.jwks_unusable_keys.clone(),
        );
        registry.register(
            "config_reloads",
            "Reloads of the configuration",
            metrics.config_reloads.clone(),
        );
        registry.register(
            "in_flight",
            "Token requests in flight",
            metrics.in_flight.clone(),
        );
        registry.register(
            "connections",
            "Open connections to the public listener",
            metrics.connections.clone(),
        );
        registry.register("panics", "Panics caught", metrics.panics.clone());
        registry.register_collector(Box::new(metrics.log_lines_lost.clone()));
        let version = vec![("version", env!("CARGO_PKG_VERSION"))];
        registry.register(
            "build",
            "Version of the running service",
            Info::new(version),
        );
        metrics
    }

    /// Records the duration of a call by the section `extractor` to its backend: `result` is `ok` or the reason for the
    /// failure.
    pub fn backend_call(&self, extractor: &Arc<str>, result: &'static str, duration: Duration) {
        let labels = ResultLabels {
            extractor: extractor.clone(),
            result,
        };
        self.backend_duration
            .get_or_create(&labels)
            .observe(duration.as_secs_f64());
    }

    /// All metrics in the Prometheus text format 0.0.4.
    pub fn render(&self) -> String {
        to_text_format(&self.render_open_metrics())
    }

    /// All metrics in the OpenMetrics text format 1.0.0.
    pub fn render_open_metrics(&self) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

/// Recorders for the service's own modules. They are public only because `tests/model` and the generator of the docs,
/// which are other crates, call them too.
#[doc(hidden)]
impl Metrics {
    /// Counts an answered request: `outcome` is `issued` or an error code.
    pub fn answered(
        &self,
        extractor: Option<&Arc<str>>,
        outcome: &'static str,
        duration: Duration,
    ) {
        let extractor = extractor.cloned().unwrap_or_else(|| Arc::from("none"));
        self.requests
            .get_or_create(&RequestLabels { extractor, outcome })
            .inc();
        self.request_duration.observe(duration.as_secs_f64());
    }

    /// Counts a fetch of signing keys: `result` is `ok` or the reason for the failure.
    pub fn jwks_refreshed(&self, extractor: &Arc<str>, result: &'static str) {
        self.jwks_refresh
            .get_or_create(&ResultLabels {
                extractor: extractor.clone(),
                result,
            })
            .inc();
    }

    /// Removes the gauges of all extractors. Called before the current extractors set them again, so that the gauges of
    /// removed extractors disappear.
    pub fn clear_extractor_gauges(&self) {
        self.jwks_age.clear();
        self.jwks_unusable_keys.clear();
    }

    /// Sets the age of the current signing keys. Called before metrics are read.
    pub fn jwks_age(&self, extractor: &Arc<str>, age: Duration) {
        let seconds = i64::try_from(age.as_secs()).unwrap_or(i64::MAX);
        self.jwks_age
            .get_or_create(&ExtractorLabels {
                extractor: extractor.clone(),
            })
            .set(seconds);
    }

    /// Sets the number of unusable signing keys. Called before metrics are read.
    pub fn jwks_unusable_keys(&self, extractor: &Arc<str>, count: usize) {
        self.jwks_unusable_keys
            .get_or_create(&ExtractorLabels {
                extractor: extractor.clone(),
            })
            .set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// Counts a reload of the configuration: `result` is `ok` or `error`.
    pub fn reloaded(&self, result: &'static str) {
        self.config_reloads
            .get_or_create(&ReloadLabels { result })
            .inc();
    }
}

/// Converts OpenMetrics to the text format 0.0.4 without changing the samples. In this format, the family names of
/// counters and of `info` metrics include the suffix of their samples, and there is no `info` type, no unit and no end
/// mark.
fn to_text_format(open_metrics: &str) -> String {
    let mut text = String::with_capacity(open_metrics.len());
    let mut help = "";
    for line in open_metrics.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = rest.split_once(' ').map_or("", |(_, help)| help);
        } else if let Some((family, kind)) = line
            .strip_prefix("# TYPE ")
            .and_then(|rest| rest.split_once(' '))
        {
            let (suffix, kind) = match kind {
                "counter" => ("_total", kind),
                "info" => ("_info", "gauge"),
                _ => ("", kind),
            };
            // Writing to a string cannot fail.
            let _ = write!(
                text,
                "# HELP {family}{suffix} {help}\n# TYPE {family}{suffix} {kind}\n"
            );
        } else if !line.starts_with('#') {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}
