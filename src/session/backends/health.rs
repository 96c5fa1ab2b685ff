//! The health of a backend according to its last calls, used only for `/readyz` and the log. Requests are sent even to
//! a failing backend, because one caller's failing calls must not cause other callers to be refused.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clock::Clock;
use crate::session::reason::Reason;
use crate::session::types::Readiness;

/// The minimum time between two warnings about the failing calls to one backend.
const WARNING_INTERVAL: Duration = Duration::from_secs(60);

/// Tracks whether the last call to one backend failed.
#[derive(Debug)]
pub struct BackendHealth {
    extractor: Arc<str>,
    clock: Clock,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// One bit per statement (see [`BackendHealth::failed`]), set if the last call with that statement failed.
    failing: u8,
    /// The number of failures since the last warning.
    failures: u64,
    warned_at: Option<Duration>,
    /// Whether a warning has been logged since the last message that the backend answers again.
    warned: bool,
}

impl BackendHealth {
    pub fn new(extractor: &str, clock: &Clock) -> Self {
        Self {
            extractor: Arc::from(extractor),
            clock: clock.clone(),
            state: Mutex::default(),
        }
    }

    /// Records a failed call. `statement` is the number of the statement, from 0 to 7: a backend can have several, and
    /// one may fail while another succeeds. The first failure logs a warning; later failures log at most one a minute.
    pub fn failed(&self, statement: u8, reason: Reason, detail: Option<&str>) {
        let now = self.clock.monotonic();
        let mut state = self.state();
        state.failing |= 1 << statement;
        state.failures += 1;
        if state
            .warned_at
            .is_some_and(|at| now.saturating_sub(at) < WARNING_INTERVAL)
        {
            return;
        }
        state.warned_at = Some(now);
        state.warned = true;
        let failures = std::mem::take(&mut state.failures);
        drop(state);
        tracing::warn!(
            extractor = %self.extractor, reason = reason.as_str(), detail, failures,
            "calls to the backend fail; this warning is logged at most once a minute"
        );
    }

    /// Records a call that was answered, regardless of what the answer says about the caller.
    pub fn answered(&self, statement: u8) {
        let mut state = self.state();
        state.failing &= !(1 << statement);
        if state.failing == 0 && std::mem::take(&mut state.warned) {
            drop(state);
            tracing::info!(extractor = %self.extractor, "the backend answers again");
        }
    }

    /// `Stale` if at least one statement failed in its last call. Never `Waiting`: the load balancer would then remove
    /// all instances during the backend's outage, and none could serve requests when the backend recovers.
    pub fn readiness(&self) -> Readiness {
        if self.state().failing == 0 {
            Readiness::Ready
        } else {
            Readiness::Stale
        }
    }

    /// Locks the state, even after a panic: no code that holds the lock leaves the data inconsistent.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::clock::ManualClock;

    /// A writer that keeps the log output in memory.
    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn failing_calls_log_at_most_one_warning_a_minute_with_the_number_of_failures() {
        let clock = ManualClock::at(0);
        let health = BackendHealth::new("web", &Clock::new(clock.clone()));
        let lines = Lines::default();
        let writer = lines.clone();
        let log = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .finish();
        tracing::subscriber::with_default(log, || {
            for _ in 0..100 {
                health.failed(
                    0,
                    Reason::Timeout,
                    Some("no complete answer before the timeout"),
                );
                // A success between two failures must not allow another warning within the minute.
                health.answered(0);
            }
            clock.advance(WARNING_INTERVAL);
            health.failed(0, Reason::Status, None);
        });
        let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        let warnings: Vec<_> = text.lines().filter(|line| line.contains("WARN")).collect();
        assert_eq!(warnings.len(), 2, "{text}");
        assert!(
            warnings[0].contains("failures=1") && warnings[0].contains("timeout"),
            "{text}"
        );
        assert!(
            warnings[1].contains("failures=100") && warnings[1].contains("status"),
            "{text}"
        );
        assert_eq!(
            text.lines()
                .filter(|line| line.contains("answers again"))
                .count(),
            1,
            "{text}"
        );
    }

    #[test]
    fn failed_statement_keeps_the_backend_stale_while_another_statement_is_answered() {
        let health = BackendHealth::new("web", &Clock::system());
        assert_eq!(health.readiness(), Readiness::Ready);
        health.failed(1, Reason::StoreRefused, None);
        health.answered(0);
        assert_eq!(health.readiness(), Readiness::Stale);
        health.answered(1);
        assert_eq!(health.readiness(), Readiness::Ready);
    }
}
