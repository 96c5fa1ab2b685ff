//! The service's routes, for embedding in another axum app.

use std::sync::Arc;

use axum::Router;

use crate::clock::Clock;
use crate::config::{Problems, Sources};
use crate::http::app::{self, App};
use crate::http::server::Drain;
use crate::session::backends::Context;
use crate::session::registry::Registry;
use crate::settings;
use crate::telemetry::metrics::Metrics;

/// Returns a router with `POST /rollout/token` and its related paths (`/rollout-token`, `/rollout/client.js`,
/// `/openapi.json`), to be merged into an axum app.
///
/// The configuration comes from `sources` and has the same keys as for the standalone service. The app remains
/// responsible for the whole process: it listens, it installs the `tracing` subscriber that receives the log lines, and
/// it exposes `metrics` (for example with [`Metrics::render`]). `[log]` affects only the log lines of requests.
/// `[reload]` and the listener keys of `[server]` have no effect: neither a changed file nor SIGHUP reloads the
/// configuration.
///
/// `trusted_proxies` of a `trusted_header` section needs the peer's address: serve the app with
/// `into_make_service_with_connect_info::<SocketAddr>()`.
///
/// `examples/embed.rs` is a complete app.
///
/// # Errors
/// Returns every problem of the configuration. Each message begins with the configuration key.
///
/// # Panics
/// If it is called outside a Tokio runtime, because the extractors start to fetch keys.
pub fn router(
    sources: &Sources,
    registry: &Registry,
    metrics: Arc<Metrics>,
) -> Result<Router, Problems> {
    let context = Context::new(Clock::system(), metrics);
    let settings = settings::load(sources, registry, &context)?;
    settings.log_notes();
    let app = App::new(settings, context, Drain::default());
    app.live().settings.chain.start();
    tokio::spawn(app.log.clone().report_every_second());
    Ok(app::embedded(&app))
}
