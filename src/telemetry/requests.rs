//! The log lines of requests: at most one per request, and at most [`LINES_PER_SECOND`] refusals a second per reason.
//!
//! No line contains a query, a whole token or a secret. The only header values in a line are the request id, the trace
//! id, the `Host` and `Origin` of a refused request, and the method or headers that a preflight requests. The cause may
//! quote a claim or a header parameter of a refused token, escaped and truncated. A subject is a keyed hash, unless
//! `log.subject` is `plain`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::http::{HeaderValue, StatusCode};
use tracing::Level;

use crate::clock::Clock;
use crate::telemetry::logs::{LogFormat, SubjectLog};
use crate::telemetry::lost_lines::LostLines;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::spans::{self, RequestSpan};

/// The maximum number of lines per second for each reason. It prevents a flood of requests from filling the disk, and
/// one kind of refusal from hiding another.
const LINES_PER_SECOND: u32 = 100;

const OTHER_PROTOCOL_INTERVAL: Duration = Duration::from_secs(60);

/// The maximum length of a text from the request in the log, such as a path, host or origin, in bytes before escaping.
const MAX_TEXT: usize = 256;

/// The result of a request, in plain fields.
#[derive(Clone, Copy, Debug)]
pub struct Outcome<'a> {
    /// The status of the response.
    pub status: StatusCode,
    /// `issued`, or an error code.
    pub code: &'static str,
    /// Why no token was issued.
    pub reason: Option<&'static str>,
    /// What was found and what was expected, or the details of a backend's failure.
    pub cause: Option<&'a str>,
    /// The extractor that decided the result.
    pub extractor: Option<&'a str>,
    /// The subject of a valid session.
    pub subject: Option<&'a str>,
    /// Whether the request was refused before any extractor was tried. If so, the log line contains its method, path,
    /// host and origin.
    pub before_extractors: bool,
    /// What the operator may have to fix.
    pub hint: Option<&'static str>,
    pub duration: Duration,
}

/// Writes the log lines of requests, and counts the lines over the limit.
#[derive(Debug)]
pub struct RequestLog {
    clock: Clock,
    /// The configured format and level, which a reload may change. `tracing::enabled!` is not used, because with
    /// several layers it can disable the next span or event.
    settings: ArcSwap<(LogFormat, Level)>,
    lost: LostLines,
    budgets: Mutex<BTreeMap<&'static str, Budget>>,
    /// For each protocol other than HTTP/1.1, the time on the monotonic clock at which it was last logged.
    other_protocols: Mutex<BTreeMap<&'static str, Duration>>,
}

/// The log lines with one reason. `second` is the time of the last line in whole seconds of the monotonic clock,
/// `written` is the number of lines in that second, and `suppressed` is the number left out since the last report.
#[derive(Debug, Default)]
struct Budget {
    second: u64,
    written: u32,
    suppressed: u64,
}

impl RequestLog {
    pub fn new(clock: Clock, level: Level, format: LogFormat, metrics: &Metrics) -> Self {
        Self {
            clock,
            settings: ArcSwap::from_pointee((format, level)),
            lost: metrics.log_lines_lost.clone(),
            budgets: Mutex::default(),
            other_protocols: Mutex::default(),
        }
    }

    pub fn set(&self, format: LogFormat, level: Level) {
        self.settings.store(Arc::new((format, level)));
    }

    fn level(&self) -> Level {
        self.settings.load().1
    }

    /// Completes the trace span of an answered request, and logs the request unless the log level or the limit of lines
    /// for its reason suppresses the line.
    pub fn answered(&self, span: &RequestSpan, outcome: &Outcome<'_>, subjects: &SubjectLog) {
        record(span, outcome, subjects);
        let server_fault = outcome.status.is_server_error();
        let level = if server_fault {
            Level::WARN
        } else {
            Level::INFO
        };
        if level > self.level()
            || outcome
                .reason
                .is_some_and(|reason| !self.takes_line_for(reason))
        {
            return;
        }
        let extractor = outcome.extractor.unwrap_or("none");
        let subject = outcome.subject.map(|subject| subjects.show(subject));
        let duration_ms = milliseconds(outcome.duration);
        let Outcome {
            code,
            reason,
            cause,
            hint,
            ..
        } = *outcome;
        // Google Cloud shows these fields with every request. In other formats they are `None`, and thus omitted.
        let in_cloud = (self.settings.load().0 == LogFormat::Gcp).then_some(&span.head);
        let http_method = in_cloud.map(|head| printable(head.method.as_str().as_bytes()));
        let http_path = in_cloud.map(|head| printable(head.uri.path().as_bytes()));
        let http_status = in_cloud.map(|_| outcome.status.as_u16());
        let _entered = span.log.enter();
        if reason.is_none() {
            tracing::info!(
                extractor,
                code,
                subject,
                duration_ms,
                http.method = http_method,
                http.path = http_path,
                http.status = http_status,
                "token.issued"
            );
            return;
        }
        let head = outcome.before_extractors.then_some(&span.head);
        let header =
            |value: &Option<HeaderValue>| value.as_ref().map(|value| printable(value.as_bytes()));
        let method = head.map(|head| printable(head.method.as_str().as_bytes()));
        let path = head.map(|head| printable(head.uri.path().as_bytes()));
        let host = head.and_then(|head| header(&head.host));
        let origin = head.and_then(|head| header(&head.origin));
        let event = if span.asks_for_token {
            "token.refused"
        } else {
            "request.refused"
        };
        // `tracing` requires a level that is known at compile time.
        macro_rules! log_refusal {
            ($level:ident) => {
                tracing::$level!(
                    extractor,
                    code,
                    reason,
                    cause,
                    subject,
                    duration_ms,
                    method,
                    path,
                    host,
                    origin,
                    hint,
                    http.method = http_method,
                    http.path = http_path,
                    http.status = http_status,
                    "{event}"
                )
            };
        }
        if server_fault {
            log_refusal!(warn);
        } else {
            log_refusal!(info);
        }
    }

    /// Logs that a preflight was answered, but requested a method or headers that the response does not allow.
    pub fn refused_preflight(&self, span: &RequestSpan, reason: &'static str, asked: &HeaderValue) {
        if self.level() < Level::INFO || !self.takes_line_for(reason) {
            return;
        }
        let text = |value: &HeaderValue| printable(value.as_bytes());
        let _entered = span.log.enter();
        tracing::info!(
            reason,
            asked = text(asked),
            method = "OPTIONS",
            path = printable(span.head.uri.path().as_bytes()),
            host = span.head.host.as_ref().map(text),
            origin = span.head.origin.as_ref().map(text),
            "preflight.refused"
        );
    }

    /// Logs that a request head was refused because it is malformed or exceeds a limit. The line has no span, method,
    /// path or host.
    pub fn refused_head(
        &self,
        request_id: &str,
        code: &'static str,
        reason: &'static str,
        cause: Option<&str>,
    ) {
        if self.level() >= Level::INFO && self.takes_line_for(reason) {
            tracing::info!(
                request_id,
                extractor = "none",
                code,
                reason,
                cause,
                "request.refused"
            );
        }
    }

    /// Logs that a peer used a protocol other than HTTP/1.1: at most one line per minute for each protocol.
    pub fn other_protocol(&self, protocol: &'static str, hint: &'static str) {
        if self.level() >= Level::WARN && self.is_due(protocol) {
            tracing::warn!(
                protocol,
                hint,
                "a peer did not send HTTP/1.1; this warning is logged at most once a minute for each protocol"
            );
        }
    }

    fn is_due(&self, protocol: &'static str) -> bool {
        let now = self.clock.monotonic();
        let mut logged = self
            .other_protocols
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let last = logged.get(protocol).copied();
        let is_due = last.is_none_or(|last| now.saturating_sub(last) >= OTHER_PROTOCOL_INTERVAL);
        if is_due {
            logged.insert(protocol, now);
        }
        is_due
    }

    /// Logs, for each reason, how many lines were left out since the last call. Also logs the number of lost lines if
    /// it has changed.
    pub fn report(&self) {
        let suppressed: Vec<(&str, u64)> = self
            .budgets()
            .iter_mut()
            .map(|(reason, budget)| (*reason, std::mem::take(&mut budget.suppressed)))
            .filter(|(_, suppressed)| *suppressed > 0)
            .collect();
        for (reason, suppressed) in suppressed {
            tracing::warn!(
                reason,
                suppressed,
                "log lines were left out: more than {LINES_PER_SECOND} a second for this reason"
            );
        }
        self.lost.report();
    }

    /// Calls [`Self::report`] every second, until the log is dropped or the runtime stops.
    pub async fn report_every_second(log: Weak<Self>) {
        let mut seconds = tokio::time::interval(Duration::from_secs(1));
        loop {
            seconds.tick().await;
            let Some(log) = log.upgrade() else { return };
            log.report();
        }
    }

    fn takes_line_for(&self, reason: &'static str) -> bool {
        let second = self.clock.monotonic().as_secs();
        let mut budgets = self.budgets();
        let budget = budgets.entry(reason).or_default();
        if budget.second != second {
            (budget.second, budget.written) = (second, 0);
        }
        if budget.written == LINES_PER_SECOND {
            budget.suppressed += 1;
            return false;
        }
        budget.written += 1;
        true
    }

    /// Locks the budgets, even after a panic: no code that holds the lock leaves the data inconsistent.
    fn budgets(&self) -> MutexGuard<'_, BTreeMap<&'static str, Budget>> {
        self.budgets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sets the attributes of the request's trace span, and marks the span as failed if the status is 5xx.
fn record(span: &RequestSpan, outcome: &Outcome<'_>, subjects: &SubjectLog) {
    let trace = &span.trace;
    if trace.is_disabled() {
        return;
    }
    trace.record("http.response.status_code", outcome.status.as_u16());
    trace.record("rollout.code", outcome.code);
    trace.record("rollout.reason", outcome.reason);
    trace.record("rollout.extractor", outcome.extractor);
    trace.record(
        "enduser.pseudo.id",
        outcome.subject.map(|subject| subjects.hash(subject)),
    );
    if outcome.status.is_server_error() {
        spans::record_failure(trace, outcome.code);
    }
}

/// The first [`MAX_TEXT`] bytes of a string from a caller. Quotes, backslashes, and bytes other than printable ASCII
/// are escaped.
fn printable(bytes: &[u8]) -> String {
    bytes[..bytes.len().min(MAX_TEXT)]
        .escape_ascii()
        .to_string()
}

fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    #[test]
    fn each_reason_has_a_budget_of_100_lines_a_second_and_lines_over_it_are_counted() {
        let manual = ManualClock::at(0);
        let log = RequestLog::new(
            Clock::new(manual.clone()),
            Level::INFO,
            LogFormat::Json,
            &Metrics::new(),
        );
        let lines = |reason| (0..300).filter(|_| log.takes_line_for(reason)).count();
        assert_eq!(lines("not_found"), 100);
        assert!(
            log.takes_line_for("expired"),
            "another reason is not affected"
        );
        assert_eq!(log.budgets()["not_found"].suppressed, 200);
        manual.advance(Duration::from_secs(1));
        assert_eq!(lines("not_found"), 100);
        assert_eq!(log.budgets()["not_found"].suppressed, 400);
        log.report();
        assert_eq!(log.budgets()["not_found"].suppressed, 0);
    }

    #[test]
    fn each_protocol_other_than_http_1_1_is_logged_once_a_minute() {
        let manual = ManualClock::at(0);
        let log = RequestLog::new(
            Clock::new(manual.clone()),
            Level::INFO,
            LogFormat::Json,
            &Metrics::new(),
        );
        assert!(log.is_due("TLS") && log.is_due("PROXY"));
        manual.advance(Duration::from_secs(59));
        assert!(!log.is_due("TLS"));
        manual.advance(Duration::from_secs(1));
        assert!(log.is_due("TLS"));
        assert!(!log.is_due("TLS"));
    }

    #[test]
    fn string_from_a_caller_is_truncated_to_256_bytes_and_escaped() {
        assert_eq!(printable(b"app.example:80"), "app.example:80");
        assert_eq!(
            printable("\u{9b}31m\u{1b}\"".as_bytes()),
            r#"\xc2\x9b31m\x1b\""#
        );
        assert_eq!(printable(&[b'x'; 300]), "x".repeat(256));
    }
}
