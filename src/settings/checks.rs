//! What the values of each section must be, and how they go together.
//! How they are written and their defaults are in `raw.rs`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::Path;
use std::time::Duration;

use crate::config::{FileFingerprint, HumanDuration, Problems, Warnings};
use crate::secret::Secret;
use crate::settings::{Origin, RateLimit, Server, raw, traces};
use crate::telemetry::logs::{LogConfig, LogFormat};
use crate::telemetry::traces::TraceReceiver;
use crate::token::RolloutClient;

/// The client, with the file that its secret was read from, if there is one.
pub(super) fn check_client(
    client: raw::Client,
    problems: &mut Problems,
) -> Option<(RolloutClient, Option<FileFingerprint>)> {
    let id = client.client_id.unwrap_or_default();
    if id.trim().is_empty() || id.trim() != id {
        problems.add(
            "client_id",
            "set ROLLOUT_CLIENT_ID to the client id from your Rollout dashboard",
        );
    }
    let mut file = None;
    let read = |path: &Path| {
        let (bytes, watched) = FileFingerprint::read(path)?;
        file = Some(watched);
        Ok(bytes)
    };
    let given = Secret::from_value_or_file(
        client.client_secret,
        client.client_secret_file.as_ref(),
        read,
    );
    let Some(secret) = problems.accept("client_secret", given)? else {
        problems.add(
            "client_secret",
            "set ROLLOUT_CLIENT_SECRET, or ROLLOUT_CLIENT_SECRET_FILE to the name of a file that holds it",
        );
        return None;
    };
    if let Some(weakness) = secret.weakness() {
        problems.add(
            "client_secret",
            format!("{weakness}: copy the client secret from your Rollout dashboard"),
        );
    }
    Some((RolloutClient { id, secret }, file))
}

pub(super) fn address(key: &str, text: &str, problems: &mut Problems) -> Option<SocketAddr> {
    problems.parse(
        key,
        text,
        "an IP address with a port, such as 0.0.0.0:8080 or [::1]:8080",
    )
}

pub(super) fn positive(key: &str, span: HumanDuration, problems: &mut Problems) -> Duration {
    problems.require(!span.0.is_zero(), key, "must be longer than nothing");
    span.0
}

pub(super) fn check_server(
    server: &raw::Server,
    dev: bool,
    problems: &mut Problems,
) -> Option<Server> {
    for (key, value) in [
        ("server.max_header_bytes", server.max_header_bytes),
        ("server.max_headers", server.max_headers),
        ("server.max_uri_bytes", server.max_uri_bytes),
        ("server.max_connections", server.max_connections),
        ("server.max_in_flight", server.max_in_flight),
    ] {
        problems.require(value > 0, key, "must be at least 1");
    }
    for (key, value, most) in [
        ("server.max_uri_bytes", server.max_uri_bytes, 60_000),
        ("server.max_connections", server.max_connections, 1_000_000),
        ("server.max_in_flight", server.max_in_flight, 1_000_000),
        ("server.max_header_bytes", server.max_header_bytes, 65_536),
        ("server.max_headers", server.max_headers, 200),
    ] {
        problems.require(value <= most, key, format!("must be at most {most}"));
    }
    let (delay, drain, hard) = (
        server.drain_delay.0,
        server.drain_timeout.0,
        server.hard_stop.0,
    );
    problems.require(
        delay + drain <= hard,
        "server.hard_stop",
        "must be at least server.drain_delay and server.drain_timeout together",
    );
    problems.require(
        server.request_timeout <= server.drain_timeout,
        "server.drain_timeout",
        "must be at least server.request_timeout, so that requests under way can finish",
    );
    let listen = address("server.listen", &server.listen, problems);
    let admin_listen = address("server.admin_listen", &server.admin_listen, problems);
    problems.require(
        listen != admin_listen || listen.is_none_or(|address| address.port() == 0),
        "server.admin_listen",
        "must be another address than server.listen",
    );
    for (key, address) in [
        ("server.listen", listen),
        ("server.admin_listen", admin_listen),
    ] {
        problems.require(
            !dev || address.is_none_or(|address| address.ip().is_loopback()),
            key,
            "must be a loopback address under `dev`, which gives a token to anybody: use 127.0.0.1",
        );
    }
    let header_timeout = positive("server.header_timeout", server.header_timeout, problems);
    let idle_timeout = positive("server.idle_timeout", server.idle_timeout, problems);
    let body_timeout = positive("server.body_timeout", server.body_timeout, problems);
    let request_timeout = positive("server.request_timeout", server.request_timeout, problems);
    let hard_stop = positive("server.hard_stop", server.hard_stop, problems);
    Some(Server {
        listen: listen?,
        admin_listen: admin_listen?,
        docs_alias: server.docs_alias,
        header_timeout,
        idle_timeout,
        body_timeout,
        request_timeout,
        max_header_bytes: server.max_header_bytes,
        max_headers: server.max_headers,
        max_uri_bytes: server.max_uri_bytes,
        max_body_bytes: server.max_body_bytes,
        max_connections: server.max_connections,
        max_in_flight: server.max_in_flight,
        drain_delay: delay,
        drain_timeout: drain,
        hard_stop,
    })
}

pub(super) fn check_ttl(ttl: HumanDuration, problems: &mut Problems) -> Duration {
    let whole = ttl.0.subsec_nanos() == 0;
    problems.require(
        whole && (30..=900).contains(&ttl.0.as_secs()),
        "token.ttl",
        "must be whole seconds from 30s to 15m: Rollout's tokens live at most 15 minutes",
    );
    ttl.0
}

pub(super) fn check_origins(allowed: &[String], problems: &mut Problems) -> Vec<Origin> {
    let parsed = allowed.iter().zip(1..).map(|(text, number)| {
        Origin::parse(text).map_err(|error| format!("entry {number}: {error}"))
    });
    parsed
        .filter_map(|origin| problems.accept("origins.allowed", origin))
        .collect()
}

pub(super) fn check_rate_limit(
    limit: &raw::RateLimit,
    problems: &mut Problems,
) -> Option<RateLimit> {
    let per_minute = NonZeroU32::new(limit.per_minute)?;
    let burst = NonZeroU32::new(limit.burst);
    problems.require(
        burst.is_some(),
        "rate_limit.burst",
        "must be at least 1; to switch the limit off set rate_limit.per_minute = 0",
    );
    Some(RateLimit {
        per_minute,
        burst: burst?,
    })
}

/// Whoever asks a build without traces for them is told so.
pub(super) fn check_traces(
    environment: &BTreeMap<String, String>,
    problems: &mut Problems,
    warnings: &mut Warnings,
) -> Option<TraceReceiver> {
    if cfg!(feature = "otel") {
        return traces::read(environment, problems);
    }
    if traces::read(environment, &mut Problems::default()).is_some() {
        warnings.add(
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            "asks for traces, which this build does not send: build it with --features otel, or set \
             OTEL_TRACES_EXPORTER=none",
        );
    }
    None
}

pub(super) fn check_log(log: &raw::Log, problems: &mut Problems) -> Option<LogConfig> {
    let format = match log.format.as_str() {
        "json" => Some(LogFormat::Json),
        "pretty" => Some(LogFormat::Pretty),
        _ => {
            problems.add("log.format", "must be \"json\" or \"pretty\"");
            None
        }
    };
    let level = problems.parse(
        "log.level",
        &log.level,
        "one of error, warn, info, debug, trace",
    );
    problems.require(
        matches!(log.subject.as_str(), "hash" | "plain"),
        "log.subject",
        "must be \"hash\" or \"plain\"",
    );
    Some(LogConfig {
        format: format?,
        level: level?,
        plain_subject: log.subject == "plain",
    })
}
