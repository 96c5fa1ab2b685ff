//! The service's routes, for embedding in another axum app.

use std::sync::Arc;

use axum::Router;
use tracing::Level;

use crate::clock::Clock;
use crate::config::{Problems, Sources};
use crate::http::app::{self, App};
use crate::http::server::Drain;
use crate::session::backends::Context;
use crate::session::registry::Registry;
use crate::settings;
use crate::settings::log::LogConfig;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::requests::RequestLog;

/// Returns a router with `POST /rollout/token` and its related paths (`/rollout-token`, `/rollout/client.js`,
/// `/openapi.json`), to be merged into an axum app.
///
/// The configuration comes from `sources` and has the same keys as for the standalone service. The app remains
/// responsible for the whole process: it listens, it installs the `tracing` subscriber that receives the log lines, and
/// it exposes `metrics` (for example with [`Metrics::render`]). The subscriber determines the level and the format of
/// the lines, so of `[log]` only `subject` has an effect. `[reload]` and the keys of `[server]` for listeners,
/// connections and the drain have no effect: neither a changed file nor SIGHUP reloads the configuration.
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
/// If it is called outside a Tokio runtime, which its background tasks need.
pub fn router(
    sources: &Sources,
    registry: &Registry,
    metrics: Arc<Metrics>,
) -> Result<Router, Problems> {
    let context = Context::new(Clock::system(), metrics);
    let mut settings = settings::load(sources, registry, &context)?;
    settings.log = LogConfig {
        subject: settings.log.subject,
        level: Level::TRACE, // the app's subscriber filters the lines
        ..LogConfig::default()
    };
    settings.log_notes();
    let app = App::new(settings, registry, context, Drain::default());
    let live = app.live();
    live.settings.chain.start();
    // Sets the gauges of configured keys, which do not change.
    live.settings.chain.observe(&app.metrics);
    tokio::spawn(RequestLog::report_every_second(Arc::downgrade(&app.log)));
    Ok(app::embedded(&app))
}
