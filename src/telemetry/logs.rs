//! Logs: how they are written, and the one event per request. Metrics are in `metrics.rs`.
//!
//! No event holds a header, a cookie, a query, a token or a secret; a subject stands in it as a keyed
//! hash unless the operator asks for the plain text.

use std::fs::File;
use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use aws_lc_rs::hmac;
use tracing::Level;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt};

use crate::clock::Clock;
use crate::http::error::Error;
use crate::secret::Secret;
use crate::session::subject::Subject;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::writer::LogWriter;
pub use crate::telemetry::writer::LastLines;

/// What is logged, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogConfig {
    pub format: LogFormat,
    pub level: tracing::Level,
    pub plain_subject: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    Json,
    Pretty,
}

/// Starts logging to standard output, and makes panics say where they happened and nothing else. The
/// last lines are written when the result is dropped.
///
/// # Errors
/// If logging was started before, or the system gives no thread for it.
pub fn init(log: LogConfig, metrics: Arc<Metrics>) -> io::Result<LastLines> {
    // A handle of its own, so that the lock of `io::stdout` is held by nobody who may have to wait.
    let out = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    let (writer, last_lines) = LogWriter::start(out, metrics.log_lines_lost.clone())?;
    let targets = Targets::new()
        // Libraries write whole requests at the finer levels; those must never reach a log.
        .with_default(log.level.min(Level::WARN))
        .with_target(env!("CARGO_CRATE_NAME"), log.level);
    let layer = match log.format {
        LogFormat::Json => fmt::layer().json().flatten_event(true).with_writer(writer).boxed(),
        LogFormat::Pretty => {
            let colours = io::stdout().is_terminal();
            fmt::layer().compact().with_target(false).with_ansi(colours).with_writer(writer).boxed()
        }
    };
    std::panic::set_hook(Box::new(move |panic| {
        metrics.panics.inc();
        let location = panic.location().map(ToString::to_string).unwrap_or_default();
        // Not the message: it may quote what was being worked on.
        tracing::error!(location, "panic");
    }));
    tracing_subscriber::registry().with(layer.with_filter(targets)).try_init().map_err(io::Error::other)?;
    Ok(last_lines)
}

/// How subjects appear in the log: plain, or with a key as 64 bits of HMAC-SHA-256, the same on every
/// instance with the same client secret.
#[derive(Debug)]
pub struct SubjectLog {
    plain: bool,
    key: hmac::Key,
}

impl SubjectLog {
    pub fn new(plain: bool, client_secret: &Secret) -> Self {
        Self { plain, key: derived_key(client_secret, b"log subject") }
    }

    fn show(&self, subject: &Subject) -> String {
        if self.plain { subject.to_string() } else { self.hash(subject) }
    }

    /// The hash, also where the log is plain.
    pub fn hash(&self, subject: &Subject) -> String {
        short_hex(hmac::sign(&self.key, subject.as_str().as_bytes()).as_ref())
    }
}

/// Equal on instances with the same client secret. It shows nothing of a secret that is random; guesses of a weak one
/// can be tried on it, so that only operators see it.
pub fn fingerprint(client_secret: &Secret) -> String {
    let key = derived_key(client_secret, b"fingerprint");
    short_hex(hmac::sign(&key, b"").as_ref())
}

/// The client secret's own key signs tokens only; for everything else one is derived from it.
fn derived_key(client_secret: &Secret, purpose: &[u8]) -> hmac::Key {
    let root = hmac::Key::new(hmac::HMAC_SHA256, client_secret.expose());
    let message = [b"rollout-token ", purpose].concat();
    hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(&root, &message).as_ref())
}

fn short_hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().take(8).fold(String::with_capacity(16), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The event of a request that got a token.
pub fn issued(extractor: &str, subject: &Subject, log: &SubjectLog, duration: Duration) {
    if tracing::enabled!(Level::INFO) {
        let (subject, duration_ms) = (log.show(subject), millis(duration));
        tracing::info!(extractor, code = "issued", subject, duration_ms, "token.issued");
    }
}

/// The event of a request that got none.
pub fn refused(
    error: &Error,
    log: &SubjectLog,
    duration: Duration,
    request_id: &str,
    trace_id: Option<&str>,
    budget: &LogBudget,
    clock: &Clock,
) {
    let server_fault = error.status().is_server_error();
    if !(server_fault && tracing::enabled!(Level::WARN) || tracing::enabled!(Level::INFO)) {
        return;
    }
    let Some(suppressed) = budget.take(clock) else { return };
    if suppressed > 0 {
        tracing::warn!(suppressed, "too many refused requests to log each one");
    }
    let extractor = error.extractor().map_or("none", |name| name);
    let (code, reason, cause) = (error.code(), error.reason(), error.cause());
    let duration_ms = millis(duration);
    if server_fault {
        tracing::warn!(extractor, code, reason, cause, duration_ms, request_id, trace_id, "token.refused");
    } else {
        let subject = error.subject().map(|subject| log.show(subject));
        tracing::info!(extractor, code, reason, subject, duration_ms, request_id, trace_id, "token.refused");
    }
}

fn millis(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

/// At most [`LogBudget::PER_SECOND`] refused requests are logged in a second: whoever sends a flood
/// must not be able to fill the disk. Counts what it suppressed.
#[derive(Debug, Default)]
pub struct LogBudget {
    second: AtomicU64,
    taken: AtomicU64,
    suppressed: AtomicU64,
}

impl LogBudget {
    const PER_SECOND: u64 = 100;

    /// `None` if this second's lines are used up, else how many were suppressed since the last line.
    fn take(&self, clock: &Clock) -> Option<u64> {
        let now = clock.monotonic().as_secs();
        if self.second.swap(now, Ordering::Relaxed) != now {
            self.taken.store(0, Ordering::Relaxed);
        }
        if self.taken.fetch_add(1, Ordering::Relaxed) >= Self::PER_SECOND {
            self.suppressed.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        Some(self.suppressed.swap(0, Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    #[test]
    fn a_flood_is_cut_and_counted() {
        let manual = ManualClock::at(0);
        let clock = Clock::new(manual.clone());
        let budget = LogBudget::default();
        let lines = (0..1000).filter(|_| budget.take(&clock).is_some()).count();
        assert_eq!(lines as u64, LogBudget::PER_SECOND);
        manual.advance(Duration::from_secs(1));
        assert_eq!(budget.take(&clock), Some(1000 - LogBudget::PER_SECOND));
        assert_eq!(budget.take(&clock), Some(0));
    }

    #[test]
    fn a_subject_is_hashed_unless_asked_for() {
        let secret = Secret::new("0123456789abcdef");
        let subject = Subject::new("ann@example.com").unwrap();
        let hashed = SubjectLog::new(false, &secret).show(&subject);
        assert!(hashed.len() == 16 && !hashed.contains("ann"));
        assert_eq!(hashed, SubjectLog::new(false, &secret).show(&subject));
        assert_ne!(hashed, SubjectLog::new(false, &Secret::new("fedcba9876543210")).show(&subject));
        assert_eq!(SubjectLog::new(true, &secret).show(&subject), "ann@example.com");
    }
}
