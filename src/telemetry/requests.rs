//! What is logged of each request: at most one event, and at most [`LINES_PER_SECOND`] of those that were
//! refused for the same reason.
//!
//! No event holds a header but the `Host` and `Origin` of a refused request, a query, a token or a secret; a
//! subject is a keyed hash unless the operator asks for the plain text.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::http::{HeaderValue, StatusCode};
use tracing::Level;

use crate::clock::Clock;
use crate::telemetry::logs::SubjectLog;
use crate::telemetry::lost_lines::LostLines;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::spans::{self, RequestSpan};

/// A flood of requests must not fill the disk, and one kind of refusal must not hide another.
const LINES_PER_SECOND: u32 = 100;

/// The longest path, host or origin that is logged, in bytes.
const MAX_TEXT: usize = 256;

/// How a request ended, in plain fields.
#[derive(Clone, Copy, Debug)]
pub struct Outcome<'a> {
    /// The status that was answered.
    pub status: StatusCode,
    /// `issued`, or an error's code.
    pub code: &'static str,
    /// Why no token was issued.
    pub reason: Option<&'static str>,
    /// More about a failing backend.
    pub cause: Option<&'a str>,
    /// The extractor that decided.
    pub extractor: Option<&'a str>,
    /// Whom the session is for, where it is genuine.
    pub subject: Option<&'a str>,
    /// It was refused before an extractor was asked: the log says which request it was.
    pub before_extractors: bool,
    /// What the operator may have to fix.
    pub hint: Option<&'static str>,
    pub duration: Duration,
}

/// Writes the events of requests.
#[derive(Debug)]
pub struct RequestLog {
    clock: Clock,
    /// Not asked by `tracing::enabled!`: with several layers it can make the next span or event disappear.
    level: Level,
    lost: LostLines,
    budgets: Mutex<BTreeMap<&'static str, Budget>>,
}

/// The lines of one reason in the second that began at `second` of the clock.
#[derive(Debug, Default)]
struct Budget {
    second: u64,
    written: u32,
    suppressed: u64,
}

impl RequestLog {
    pub fn new(clock: Clock, level: Level, metrics: &Metrics) -> Self {
        Self {
            clock,
            level,
            lost: metrics.log_lines_lost.clone(),
            budgets: Mutex::default(),
        }
    }

    /// A request was answered: completes its span for traces, and logs it.
    pub fn answered(&self, span: &RequestSpan, outcome: &Outcome<'_>, subjects: &SubjectLog) {
        record(span, outcome, subjects);
        let server_fault = outcome.status.is_server_error();
        let level = if server_fault {
            Level::WARN
        } else {
            Level::INFO
        };
        if level > self.level
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
        let _entered = span.log.enter();
        if reason.is_none() {
            tracing::info!(extractor, code, subject, duration_ms, "token.issued");
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
        if server_fault {
            tracing::warn!(
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
                "{event}"
            );
        } else {
            tracing::info!(
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
                "{event}"
            );
        }
    }

    /// Logs what was left out since the last call.
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

    /// Reports every second, until the runtime stops.
    pub async fn report_every_second(self: Arc<Self>) {
        let mut seconds = tokio::time::interval(Duration::from_secs(1));
        loop {
            seconds.tick().await;
            self.report();
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

    /// Nothing panics while it holds the lock; if something did, the counts would still be whole.
    fn budgets(&self) -> MutexGuard<'_, BTreeMap<&'static str, Budget>> {
        self.budgets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The attributes of the request's span for traces.
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

/// At most [`MAX_TEXT`] bytes of a caller's text, with everything escaped that is not printable ASCII.
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
    fn each_reason_has_its_own_lines_and_what_is_left_out_is_counted() {
        let manual = ManualClock::at(0);
        let log = RequestLog::new(Clock::new(manual.clone()), Level::INFO, &Metrics::new());
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
    fn a_callers_text_is_cut_and_made_printable() {
        assert_eq!(printable(b"app.example:80"), "app.example:80");
        assert_eq!(
            printable("\u{9b}31m\u{1b}\"".as_bytes()),
            r#"\xc2\x9b31m\x1b\""#
        );
        assert_eq!(printable(&[b'x'; 300]), "x".repeat(256));
    }
}
