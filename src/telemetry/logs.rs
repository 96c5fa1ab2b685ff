//! The log: its writer to standard output, its format and its level. The log lines of requests are in `requests.rs`.

use std::fmt::{self, Debug, Formatter};
use std::fs::File;
use std::io::{self, ErrorKind, IsTerminal, Write};
use std::os::fd::AsFd;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use aws_lc_rs::hmac;
use serde::{Deserialize, Serialize};
use tracing::Level;
use tracing::level_filters::LevelFilter;
use tracing_appender::non_blocking::{NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::{Layer, Registry, reload};

use crate::secret::Secret;
use crate::telemetry::BoxedLayer;
use crate::telemetry::json_lines::{FieldNames, JsonLines};
use crate::telemetry::lost_lines::LostLines;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::spans;

/// The capacity, in lines, of the queue between the service and the writer: about 2 MB. Lines that do not fit are
/// dropped and counted.
const QUEUED_LINES: usize = 4096;

/// Queued lines are written together, up to about this many bytes at a time.
const BATCH: usize = 64 * 1024;

/// How long the process waits at exit for the last lines to be written.
const LAST_LINES_TIMEOUT: Duration = Duration::from_millis(500);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    Json,
    Pretty,
    /// JSON with Google Cloud's field names.
    Gcp,
}

/// The level and the format of the log.
#[derive(Debug)]
pub struct LogOptions {
    pub format: LogFormat,
    pub level: Level,
    /// The id of the Google Cloud project, if it is known. Google Cloud names a trace `projects/PROJECT/traces/ID`.
    pub google_cloud_project: Option<String>,
}

/// A writer that never blocks: a thread of `tracing-appender` writes the lines to standard output.
#[derive(Debug)]
pub struct LogWriter(NonBlocking);

impl LogWriter {
    /// Starts the thread. Dropping the returned [`LastLines`] writes the last lines.
    ///
    /// # Errors
    /// If the file descriptor of standard output cannot be duplicated.
    pub fn start(metrics: &Metrics) -> io::Result<(Self, LastLines)> {
        // Use a duplicate descriptor, so that a blocked write does not hold the lock of `io::stdout`.
        let file = File::from(io::stdout().as_fd().try_clone_to_owned()?);
        let lost = metrics.log_lines_lost.clone();
        let (writer, guard) = NonBlockingBuilder::default()
            .lossy(true)
            .buffered_lines_limit(QUEUED_LINES)
            .thread_name("log")
            .finish(Lines::new(file, lost.clone()));
        lost.watch(writer.error_counter());
        Ok((Self(writer), LastLines(Some(guard))))
    }
}

/// Collects queued lines, writes them together, and counts those that could not be written. `tracing-appender` itself
/// writes each line separately and ignores errors.
struct Lines<W> {
    out: W,
    batch: Vec<u8>,
    /// Whether the last write ended inside a line, so that the next write must start with a line break.
    torn: bool,
    lost: LostLines,
}

impl<W> Lines<W> {
    fn new(out: W, lost: LostLines) -> Self {
        Self {
            out,
            batch: Vec::new(),
            torn: false,
            lost,
        }
    }
}

impl<W: Write> Write for Lines<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.batch.extend_from_slice(line);
        if self.batch.len() >= BATCH {
            self.flush()?;
        }
        Ok(line.len())
    }

    /// `tracing-appender` calls this when the queue is empty, and `write` calls it when the batch is full.
    fn flush(&mut self) -> io::Result<()> {
        if self.torn {
            self.batch.insert(0, b'\n');
        }
        let written = write_as_much_as_possible(&mut self.out, &self.batch);
        let lost = self.batch[written..]
            .split(|&byte| byte == b'\n')
            .filter(|line| !line.is_empty())
            .count();
        self.lost.add_failed(lost as u64);
        if let Some(last) = written.checked_sub(1) {
            self.torn = self.batch[last] != b'\n';
        }
        self.batch.clear();
        Ok(())
    }
}

fn write_as_much_as_possible(out: &mut impl Write, bytes: &[u8]) -> usize {
    let mut written = 0;
    while written < bytes.len() {
        match out.write(&bytes[written..]) {
            Ok(0) => break,
            Ok(count) => written += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // Another process that shares the pipe made it non-blocking.
            Err(error) if error.kind() == ErrorKind::WouldBlock => pause(),
            Err(_) => break,
        }
    }
    written
}

#[expect(
    clippy::disallowed_methods,
    reason = "this is the log's own thread, which no request waits for"
)]
fn pause() {
    thread::sleep(Duration::from_millis(10));
}

/// Dropping this value writes the last lines, and waits for at most [`LAST_LINES_TIMEOUT`].
#[derive(Debug)]
pub struct LastLines(Option<WorkerGuard>);

impl Drop for LastLines {
    fn drop(&mut self) {
        // Use a thread: if the queue is full, the guard prints to standard output, which blocks if no process reads it.
        // The process would then not exit.
        let guard = self.0.take();
        let (sender, written) = mpsc::channel::<()>();
        let flush = move || {
            drop(guard);
            drop(sender);
        };
        if thread::Builder::new().spawn(flush).is_ok() {
            let _ = written.recv_timeout(LAST_LINES_TIMEOUT);
        }
    }
}

/// Changes the format and level of the log while the service runs.
pub struct LogControl {
    layer: reload::Handle<BoxedLayer, Registry>,
    filter: reload::Handle<Targets, Registry>,
    formats: Formats,
}

impl LogControl {
    pub fn set(&self, format: LogFormat, level: Level) {
        // These calls fail only after the subscriber has been dropped.
        let _ = self.layer.reload(self.formats.layer(format));
        let _ = self.filter.reload(self.formats.targets(format, level));
    }
}

impl Debug for LogControl {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogControl").finish_non_exhaustive()
    }
}

/// The settings that the layers of all formats share.
#[derive(Debug)]
struct Formats {
    writer: LogWriter,
    google_cloud_project: Option<String>,
    with_traces: bool,
}

impl Formats {
    fn layer(&self, format: LogFormat) -> BoxedLayer {
        let writer = self.writer.0.clone();
        let names = match format {
            LogFormat::Json => FieldNames::Own,
            LogFormat::Gcp => FieldNames::GoogleCloud {
                project: self.google_cloud_project.clone(),
            },
            LogFormat::Pretty => {
                return tracing_subscriber::fmt::layer()
                    .compact()
                    .with_target(false)
                    .with_ansi(io::stdout().is_terminal())
                    .with_writer(writer)
                    .boxed();
            }
        };
        JsonLines { writer, names }.boxed()
    }

    /// The targets that this format accepts. With `with_traces`, the request span is inside a trace span, so the JSON
    /// layer must see both to add the request's fields to the log lines.
    fn targets(&self, format: LogFormat, level: Level) -> Targets {
        let traces = match format {
            LogFormat::Json | LogFormat::Gcp if self.with_traces => LevelFilter::INFO,
            // The pretty format would print the attributes of trace spans.
            _ => LevelFilter::OFF,
        };
        Targets::new()
            // At levels more verbose than warn, libraries log whole requests, which may contain credentials.
            .with_default(level.min(Level::WARN))
            .with_target(env!("CARGO_CRATE_NAME"), level)
            // Notices of PostgreSQL may quote a value of a row.
            .with_target("sqlx::postgres::notice", LevelFilter::OFF)
            .with_target(spans::TRACES, traces)
    }
}

/// The layer that writes the log, and the control that changes its format and level.
pub(super) fn layer(
    log: LogOptions,
    writer: LogWriter,
    with_traces: bool,
) -> (BoxedLayer, LogControl) {
    let formats = Formats {
        writer,
        google_cloud_project: log.google_cloud_project,
        with_traces,
    };
    let (filter, filter_handle) = reload::Layer::new(formats.targets(log.format, log.level));
    let (layer, layer_handle) = reload::Layer::new(formats.layer(log.format));
    let control = LogControl {
        layer: layer_handle,
        filter: filter_handle,
        formats,
    };
    (layer.with_filter(filter).boxed(), control)
}

/// The form of subjects in the log: plain text, or 64 bits of a keyed hash (HMAC-SHA-256), which is the same on all
/// instances that use the same client secret.
#[derive(Debug)]
pub struct SubjectLog {
    plain: bool,
    key: hmac::Key,
}

impl SubjectLog {
    pub fn new(plain: bool, client_secret: &Secret) -> Self {
        Self {
            plain,
            key: derived_key(client_secret, b"log subject"),
        }
    }

    pub(super) fn show(&self, subject: &str) -> String {
        if self.plain {
            subject.to_owned()
        } else {
            self.hash(subject)
        }
    }

    /// The keyed hash, even if subjects are logged in plain text.
    pub(super) fn hash(&self, subject: &str) -> String {
        short_hex(hmac::sign(&self.key, subject.as_bytes()))
    }
}

/// A fingerprint that is the same on all instances with this client secret. It reveals nothing about a random secret.
/// Guesses of a weak secret can be checked against it, so only operators may see it.
pub fn fingerprint(client_secret: &Secret) -> String {
    let key = derived_key(client_secret, b"fingerprint");
    short_hex(hmac::sign(&key, b""))
}

/// Derives the key for one purpose from the client secret, so that no hash in the log uses the key that signs tokens.
fn derived_key(client_secret: &Secret, purpose: &[u8]) -> hmac::Key {
    let root = hmac::Key::new(hmac::HMAC_SHA256, client_secret.expose());
    let message = [b"rollout-token ", purpose].concat();
    hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(&root, &message).as_ref())
}

/// The first 64 bits of a MAC, in hexadecimal.
fn short_hex(mac: hmac::Tag) -> String {
    let bytes = mac.as_ref().iter().take(8);
    let bits = bytes.fold(0, |bits: u64, byte| bits << 8 | u64::from(*byte));
    format!("{bits:016x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subject_is_hashed_unless_plain_is_configured() {
        let secret = Secret::new("0123456789abcdef");
        let hashed = SubjectLog::new(false, &secret).show("ann@example.com");
        assert!(hashed.len() == 16 && !hashed.contains("ann"));
        assert_eq!(
            hashed,
            SubjectLog::new(false, &secret).show("ann@example.com")
        );
        assert_ne!(
            hashed,
            SubjectLog::new(false, &Secret::new("fedcba9876543210")).show("ann@example.com")
        );
        assert_eq!(
            SubjectLog::new(true, &secret).show("ann@example.com"),
            "ann@example.com"
        );
    }

    /// A writer whose `write` returns the next of these answers: the number of bytes that it accepts, or an error.
    struct Script {
        answers: std::vec::IntoIter<Result<usize, ErrorKind>>,
        written: Vec<u8>,
    }

    impl Write for Script {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let count = self
                .answers
                .next()
                .unwrap_or(Ok(usize::MAX))?
                .min(bytes.len());
            self.written.extend(&bytes[..count]);
            Ok(count)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn written(answers: Vec<Result<usize, ErrorKind>>) -> (String, String) {
        let metrics = Metrics::new();
        let script = Script {
            answers: answers.into_iter(),
            written: Vec::new(),
        };
        let mut lines = Lines::new(script, metrics.log_lines_lost.clone());
        for line in ["one\n", "two\n", "three\n"] {
            lines.write_all(line.as_bytes()).unwrap();
        }
        lines.flush().unwrap();
        lines.write_all(b"four\n").unwrap();
        lines.flush().unwrap();
        let rendered = metrics.render();
        let lost = rendered
            .lines()
            .find(|line| line.starts_with("rollout_token_log_lines_lost_total"))
            .unwrap();
        (
            String::from_utf8(lines.out.written).unwrap(),
            lost.split(' ').nth(1).unwrap().to_owned(),
        )
    }

    #[test]
    fn notices_of_postgres_are_not_logged() {
        let (writer, _guard) = tracing_appender::non_blocking(io::sink());
        let formats = Formats {
            writer: LogWriter(writer),
            google_cloud_project: None,
            with_traces: false,
        };
        let targets = formats.targets(LogFormat::Json, Level::TRACE);
        for (target, level, is_logged) in [
            ("sqlx::postgres::notice", Level::ERROR, false),
            ("sqlx::pool", Level::WARN, true),
            ("rollout_token::session", Level::TRACE, true),
        ] {
            assert_eq!(targets.would_enable(target, &level), is_logged, "{target}");
        }
    }

    #[test]
    fn unwritable_log_lines_are_counted_and_later_lines_are_written() {
        let all = ("one\ntwo\nthree\nfour\n".to_owned(), "0".to_owned());
        assert_eq!(written(vec![]), all);
        assert_eq!(
            written(vec![
                Err(ErrorKind::Interrupted),
                Err(ErrorKind::WouldBlock),
                Ok(2)
            ]),
            all
        );
        assert_eq!(
            written(vec![Err(ErrorKind::StorageFull)]),
            ("four\n".to_owned(), "3".to_owned())
        );
        assert_eq!(
            written(vec![Ok(4), Err(ErrorKind::BrokenPipe)]),
            ("one\nfour\n".to_owned(), "2".to_owned())
        );
        assert_eq!(
            written(vec![Ok(5), Err(ErrorKind::StorageFull)]),
            ("one\nt\nfour\n".to_owned(), "2".to_owned())
        );
    }
}
