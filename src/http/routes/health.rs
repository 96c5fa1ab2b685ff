//! Liveness, readiness and metrics. The metrics are defined in `telemetry/metrics.rs`.

use std::sync::{Arc, PoisonError};

use axum::Json;
use axum::extract::{Extension, State};
use axum::http::{HeaderMap, header};
use axum::response::IntoResponse;
use serde::Serialize;

use crate::clock;
use crate::http::app::{App, InForce, Live};
use crate::http::error::Error;
use crate::http::readiness::{ExtractorReport, InstanceState, Report};
use crate::session::types::Readiness;

#[derive(Debug, Serialize)]
pub struct Alive {
    pub(super) status: &'static str,
}

/// `GET /healthz`: shows that the process responds. It calls no backend, because an orchestrator restarts instances
/// that fail this probe.
pub async fn live() -> impl IntoResponse {
    Json(Alive { status: "ok" })
}

/// `GET /readyz`: ready once every extractor has fetched the data that it needs, provided that the clock is set and the
/// instance is not shutting down.
pub async fn ready(
    State(app): State<Arc<App>>,
    Extension(InForce { live, .. }): Extension<InForce>,
) -> Result<Json<Report>, Error> {
    report(&app, &live, None)
}

/// `GET /readyz` on the admin listener, which includes the fingerprint of the client secret.
pub async fn ready_for_operators(
    State(app): State<Arc<App>>,
    Extension(InForce { live, .. }): Extension<InForce>,
) -> Result<Json<Report>, Error> {
    let fingerprint = live.settings.secret_fingerprint();
    report(&app, &live, Some(fingerprint))
}

fn report(
    app: &App,
    live: &Live,
    secret_fingerprint: Option<String>,
) -> Result<Json<Report>, Error> {
    let chain = &live.settings.chain;
    let extractors = chain.extractors().iter().map(|configured| {
        let (state, missing) = match configured.extractor.readiness() {
            Readiness::Ready => ("ready", None),
            Readiness::Stale => ("stale", None),
            Readiness::Waiting(what) => ("waiting", Some(what)),
        };
        ExtractorReport {
            name: configured.name.clone(),
            kind: configured.kind,
            state,
            missing,
        }
    });
    let state = if app.drain.is_draining() {
        InstanceState::Draining
    } else if !clock::is_set(app.clock.now()) {
        InstanceState::ClockNotSet
    } else if chain.is_ready() {
        InstanceState::Ready
    } else {
        InstanceState::Waiting
    };
    let report = Report {
        state,
        extractors: extractors.collect(),
        secret_fingerprint,
        dev: app.dev,
    };
    match state {
        InstanceState::Ready => Ok(Json(report)),
        _ => Err(Error::Unready(Arc::new(report))),
    }
}

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const TEXT_FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// `GET /metrics`
pub async fn metrics(
    State(app): State<Arc<App>>,
    Extension(InForce { live, .. }): Extension<InForce>,
    headers: HeaderMap,
) -> impl IntoResponse {
    // The gauges of extractors are cleared and set again, which must not affect another scrape.
    let _guard = app.scrape.lock().unwrap_or_else(PoisonError::into_inner);
    live.settings.chain.observe(&app.metrics);
    app.metrics
        .in_flight
        .set(live.in_flight().try_into().unwrap_or(i64::MAX));
    let (content_type, text) = if prefers_open_metrics(&headers) {
        (OPEN_METRICS, app.metrics.render_open_metrics())
    } else {
        (TEXT_FORMAT, app.metrics.render())
    };
    ([(header::CONTENT_TYPE, content_type)], text)
}

/// Whether the caller accepts OpenMetrics and does not prefer plain text (RFC 9110, section 12.5.1).
fn prefers_open_metrics(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(header::ACCEPT).iter();
    let accepted = accepted
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','));
    let (mut open_metrics, mut text) = (0.0, 0.0);
    for range in accepted {
        let (media_type, parameters) = range.split_once(';').unwrap_or((range, ""));
        let media_type = media_type.trim().to_ascii_lowercase();
        let weight = parameters
            .split(';')
            .find_map(|part| part.trim().strip_prefix("q=")?.trim().parse().ok());
        let weight: f32 = weight.unwrap_or(1.0);
        match media_type.as_str() {
            "application/openmetrics-text" => open_metrics = weight.max(open_metrics),
            "text/plain" => text = weight.max(text),
            _ => {}
        }
    }
    open_metrics > 0.0 && open_metrics >= text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_metrics_is_sent_only_to_callers_that_prefer_it() {
        for (accept, want) in [
            (None, false),
            (Some(""), false),
            (Some("*/*"), false),
            (Some("text/plain"), false),
            (Some("application/openmetrics-text"), true),
            (Some("Application/OpenMetrics-Text; version=1.0.0"), true),
            // The form of Prometheus's `Accept` header: several formats, and OpenMetrics with the highest `q`.
            (
                Some(
                    "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.1",
                ),
                true,
            ),
            (
                Some("text/plain, application/openmetrics-text;q=0.5"),
                false,
            ),
            (Some("application/openmetrics-text;q=0"), false),
        ] {
            let headers = accept.map(|accept| (header::ACCEPT, accept.parse().unwrap()));
            let headers = HeaderMap::from_iter(headers);
            assert_eq!(prefers_open_metrics(&headers), want, "{accept:?}");
        }
    }
}
