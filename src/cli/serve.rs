//! `serve`: starts the service from a configuration, and runs it until a signal stops it. `http/server` accepts
//! connections and performs the drain.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use sd_notify::NotifyState;

use super::{Failure, block_on, context};
use crate::config::Sources;
use crate::http::app::{self, App};
use crate::http::server::{self, Drain, DrainOutcome, Listener, Signals};
use crate::session::backends::Context;
use crate::session::backends::http::{CallLimits, HttpClient};
use crate::session::registry::Registry;
use crate::settings::reload::{Reloadable, Reloader};
use crate::settings::{self, Settings};
use crate::telemetry;
use crate::telemetry::logs::{LastLines, LogControl, LogOptions, LogWriter};
use crate::telemetry::requests::RequestLog;
use crate::telemetry::traces::SendTraces;

pub(super) fn run(sources: Sources, registry: &Registry) -> Result<(), Failure> {
    let context = context();
    let settings = settings::load(&sources, registry, &context)?;
    let (writer, _last_lines) = start_log(&context)?;
    block_on(serve(settings, sources, registry, context, writer, |_| {}))?
}

pub(super) fn start_log(context: &Context) -> Result<(LogWriter, LastLines), Failure> {
    LogWriter::start(&context.metrics)
        .map_err(|error| Failure::Runtime(format!("cannot start logging: {error}")))
}

/// The limits of one call to the trace collector. After a timeout, the library continues with the next batch.
const TRACES: CallLimits = CallLimits {
    connect: Duration::from_secs(2),
    total: Duration::from_secs(10),
    body: 64 * 1024,
    retry_closed: false,
};

/// Sends traces with the HTTP client that uses the proxy and certificates in `[outgoing]`.
fn send_traces(http: HttpClient) -> SendTraces {
    SendTraces(Arc::new(move |request| {
        let http = http.clone();
        async move {
            let answer = http.send_untraced(request, TRACES).await;
            answer
                .map(|answer| answer.status)
                .map_err(|error| error.to_string())
        }
        .boxed()
    }))
}

/// The app and the log, whose settings a reload replaces.
#[derive(Debug)]
struct LiveService {
    app: Arc<App>,
    log: LogControl,
}

impl Reloadable for LiveService {
    fn settings(&self) -> Arc<Settings> {
        self.app.settings()
    }

    fn replace(&self, settings: Settings) {
        self.log.set(settings.log.format, settings.log.level);
        self.app.replace(settings);
    }
}

/// Binds the listeners, starts the extractors, and serves until a signal stops the process.
pub(super) async fn serve(
    settings: Settings,
    sources: Sources,
    registry: &Registry,
    context: Context,
    writer: LogWriter,
    announce: impl FnOnce(SocketAddr),
) -> Result<(), Failure> {
    let (receiver, send) = (settings.traces.as_ref(), send_traces(settings.http.clone()));
    let log = settings.log;
    let project = sources.environment.get("GOOGLE_CLOUD_PROJECT").cloned();
    let log = LogOptions {
        format: log.format,
        level: log.level,
        google_cloud_project: project.filter(|project| !project.is_empty()),
    };
    let (traces, log) = telemetry::start(log, writer, receiver, send, context.metrics.clone())
        .map_err(|error| Failure::Runtime(format!("cannot start logging or traces: {error}")))?;
    let signals = Signals::install()
        .map_err(|error| Failure::Runtime(format!("cannot install signal handlers: {error}")))?;
    let public = bind("server.listen", settings.server.restart.listen)?;
    let admin = bind("server.admin_listen", settings.server.restart.admin_listen)?;
    settings.log_notes();
    let drain = Drain::default();
    let app = App::new(settings, registry, context.clone(), drain.clone());
    app.live().settings.chain.start();
    let reports = tokio::spawn(RequestLog::report_every_second(Arc::downgrade(&app.log)));

    let (address, admin_address) = (local(&public)?, local(&admin)?);
    log_start(&app, address, admin_address);
    announce(address);
    // Notify systemd (`Type=notify`) if systemd started this process.
    if let Err(error) = sd_notify::notify(&[NotifyState::Ready]) {
        tracing::warn!(%error, "cannot notify systemd that the service is ready");
    }

    let service = Arc::new(LiveService {
        app: app.clone(),
        log,
    });
    let reload = Reloader::new(service, sources, registry.clone(), context).spawn();
    let second_signal = tokio::spawn(signals.obey(drain.clone(), move || {
        // If a reload is already pending, it covers this signal too.
        let _ = reload.try_send(());
    }));

    let public = Listener {
        socket: public,
        router: app::public(&app),
    };
    let admin = Listener {
        socket: admin,
        router: app::admin(&app),
    };
    let settings = app.server_settings();
    let served = async {
        let (metrics, log) = (app.metrics.clone(), app.log.clone());
        let outcome = server::run(public, admin, settings, metrics, log, &drain).await;
        traces.flush().await;
        outcome
    };
    let ended = tokio::select! {
        outcome = served => Some(outcome),
        _ = second_signal => None,
    };
    reports.abort();
    app.log.report();
    match ended {
        Some(DrainOutcome::Clean) => Ok(()),
        Some(DrainOutcome::Forced(open)) => Err(Failure::Runtime(format!(
            "stopped: {open} connections were closed before they had finished"
        ))),
        None => Err(Failure::Runtime("stopped by a second signal".to_owned())),
    }
}

fn log_start(app: &App, address: SocketAddr, admin_address: SocketAddr) {
    let live = app.live();
    let names: Vec<&str> = live
        .settings
        .chain
        .extractors()
        .iter()
        .map(|configured| &*configured.name)
        .collect();
    tracing::info!(
        %address,
        %admin_address,
        version = env!("CARGO_PKG_VERSION"),
        extractors = names.join(","),
        secret_fingerprint = live.settings.secret_fingerprint(),
        dev = app.dev,
        port_from = live.settings.port_from,
        "listening"
    );
}

fn bind(key: &str, address: SocketAddr) -> Result<tokio::net::TcpListener, Failure> {
    server::bind(address).map_err(|error| {
        Failure::Runtime(format!(
            "{key}: cannot listen on {address}: {error}; if the port is in use, free it, and otherwise change {key}"
        ))
    })
}

fn local(listener: &tokio::net::TcpListener) -> Result<SocketAddr, Failure> {
    listener
        .local_addr()
        .map_err(|error| Failure::Runtime(format!("cannot get the listening address: {error}")))
}
