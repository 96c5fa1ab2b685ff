//! Single-flight look-ups at a backend: identical look-ups share one call, the numbers of calls and of waiting requests
//! are limited, and answers may be cached for a short time. The extractor decides what is sent and what an answer
//! means.
//!
//! There is no circuit breaker: a call may fail because of the credential that it sends, and one caller's failing calls
//! must not cause other callers to be refused.

// `tests/model` includes this file by its path. Without `path`, the compiler would then look in another folder.
#[path = "lookup/cache.rs"]
mod cache;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use aws_lc_rs::digest::{Context as Hasher, SHA256};

use crate::session::backends::Context;
use crate::session::backends::health::BackendHealth;
use crate::session::backends::waiting::{Waiting, WaitingPlace};
use crate::session::reason::Reason;
use crate::session::types::{ExtractError, OfferedCookies, Readiness, Session};
use crate::sync::{Mutex, MutexGuard, Semaphore, spawn, timeout, watch};
use cache::{Cache, CachedOutcome, MAX_CACHED_BYTES_IN_ALL, to_cached};

/// The maximum number of concurrent calls to one backend. Further calls wait for a permit.
pub const MAX_CALLS: usize = 64;

/// The maximum length of a credential that is sent to a backend, in bytes.
pub const MAX_CREDENTIAL: usize = 16 * 1024;

/// How long a call waits for a permit, and how many calls may run or wait for a permit. A call continues to wait even
/// if the requests that share it are dropped, so `max_waiting` does not limit the number of waiting calls.
const MAX_WAIT: Duration = Duration::from_secs(1);
const MAX_OPEN: usize = 1024;

/// The identity of a look-up: a hash of everything in the call that the answer may depend on. The credential itself is
/// not stored, and different look-ups never share an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Question([u8; 32]);

impl Question {
    /// Hashes all parts that the answer may depend on. The length of each part is hashed too, so that different lists
    /// whose concatenated bytes are equal have different hashes.
    pub fn new<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut hasher = Hasher::new(&SHA256);
        for part in parts {
            hasher.update(&part.len().to_be_bytes());
            hasher.update(part);
        }
        let mut hash = [0; 32];
        hash.copy_from_slice(hasher.finish().as_ref());
        Self(hash)
    }
}

/// The result of a look-up.
pub type LookupOutcome = Result<Session, ExtractError>;

/// The result of one call to the backend.
#[derive(Debug)]
pub struct Verdict {
    /// `Unavailable` if the call failed.
    pub outcome: LookupOutcome,
    /// How long the outcome is cached for identical look-ups; zero disables caching.
    pub keep_for: Duration,
    /// The cookies that the answer sets. An outcome with cookies is not cached, because the cookies are meant only for
    /// the requests that share this call.
    pub cookies: Option<Arc<OfferedCookies>>,
}

/// The result of a look-up, as every request that shares the call receives it.
#[derive(Clone, Debug)]
pub struct SharedOutcome {
    pub outcome: LookupOutcome,
    pub cookies: Option<Arc<OfferedCookies>>,
}

impl From<LookupOutcome> for SharedOutcome {
    fn from(outcome: LookupOutcome) -> Self {
        Self {
            outcome,
            cookies: None,
        }
    }
}

/// Looks up sessions of one extractor at its backend.
pub struct Lookups(Arc<BackendLookup>);

struct BackendLookup {
    extractor: Arc<str>,
    context: Context,
    waiting: Arc<Waiting>,
    calls: Semaphore,
    health: BackendHealth,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    flights: HashMap<Question, watch::Receiver<Option<SharedOutcome>>>,
    cache: Cache,
}

/// The source of a request's answer.
enum Joined {
    Cached(CachedOutcome),
    /// The call in flight, and the request's place among the requests that wait for the backend.
    Flight(watch::Receiver<Option<SharedOutcome>>, WaitingPlace),
}

impl Lookups {
    pub fn new(extractor: &str, context: &Context, waiting: Arc<Waiting>) -> Self {
        Self(Arc::new(BackendLookup {
            extractor: Arc::from(extractor),
            context: context.clone(),
            waiting,
            calls: Semaphore::new(MAX_CALLS),
            health: BackendHealth::new(extractor, &context.clock),
            state: Mutex::default(),
        }))
    }

    /// Answers `question` from the cache, from an identical call in flight, or from a new `call`. A session that has
    /// expired in the meantime is refused.
    ///
    /// Each call runs in its own task, so that it continues when the request that started it is dropped. Only a call
    /// that still waits for a permit is given up, if all its requests have been dropped.
    pub async fn ask<F>(&self, question: Question, call: impl FnOnce() -> F) -> LookupOutcome
    where
        F: Future<Output = Verdict> + Send + 'static,
    {
        self.ask_with_cookies(question, call).await.outcome
    }

    /// Like [`Self::ask`], but also returns the cookies that the answer sets.
    pub async fn ask_with_cookies<F>(
        &self,
        question: Question,
        call: impl FnOnce() -> F,
    ) -> SharedOutcome
    where
        F: Future<Output = Verdict> + Send + 'static,
    {
        let mut shared = match self.0.join(question, call) {
            Err(error) => return Err(error).into(),
            Ok(Joined::Cached(cached)) => cached.and_then(|session| session.parse()).into(),
            Ok(Joined::Flight(mut result, _place)) => {
                // A flight sends an outcome even when it is dropped early, by a panic or by the runtime's shutdown, so
                // the wait succeeds. `interrupted` below is only a fallback.
                let shared = result.wait_for(Option::is_some).await;
                let shared = shared.ok().and_then(|shared| shared.clone());
                shared.unwrap_or_else(|| Err(interrupted()).into())
            }
        };
        // The session may have expired while it was cached.
        let now = self.0.context.clock.now();
        shared.outcome = shared.outcome.and_then(|session| match session.expires_at {
            Some(end) if end <= now => Err(ExtractError::expired_at(end, now)),
            Some(_) | None => Ok(session),
        });
        shared
    }

    /// The name of the extractor that makes the look-ups.
    pub fn extractor(&self) -> &str {
        &self.0.extractor
    }

    /// `Stale` if the last call failed, otherwise `Ready`.
    pub fn readiness(&self) -> Readiness {
        self.0.health.readiness()
    }
}

impl fmt::Debug for Lookups {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lookups")
            .field("extractor", &self.0.extractor)
            .finish_non_exhaustive()
    }
}

impl BackendLookup {
    /// Finds the answer in the cache, joins the identical call in flight, or starts a new call.
    ///
    /// # Errors
    /// If too many requests wait for the backend, or too many calls are open.
    fn join<F>(
        self: &Arc<Self>,
        question: Question,
        call: impl FnOnce() -> F,
    ) -> Result<Joined, ExtractError>
    where
        F: Future<Output = Verdict> + Send + 'static,
    {
        let now = self.context.clock.monotonic();
        let mut state = self.state();
        if let Some(outcome) = state.cache.get(question, now) {
            return Ok(Joined::Cached(outcome));
        }
        let place = self.waiting.enter().ok_or_else(|| {
            busy("max_waiting is reached: too many requests wait for the backend")
        })?;
        if let Some(flight) = state.flights.get(&question) {
            return Ok(Joined::Flight(flight.clone(), place));
        }
        if state.flights.len() >= MAX_OPEN {
            return Err(busy("too many calls to the backend are queued"));
        }
        let (sender, flight) = watch::channel(None);
        state.flights.insert(question, flight.clone());
        // Release the lock first: a runtime that is shutting down drops the task inside `spawn`, and that drop takes
        // the lock.
        drop(state);
        let started = Flight {
            lookup: self.clone(),
            question,
            sender,
            verdict: None,
            is_abandoned: false,
        };
        spawn(started.run(call()));
        Ok(Joined::Flight(flight, place))
    }

    /// Ends a flight, caches its result if the verdict allows it, and returns the result for the requests.
    fn finish(&self, question: Question, verdict: Verdict) -> SharedOutcome {
        let now = self.context.clock.monotonic();
        let Verdict {
            outcome,
            keep_for,
            cookies,
        } = verdict;
        let cached = if keep_for.is_zero() || cookies.is_some() {
            None
        } else {
            to_cached(&outcome)
        };
        let mut state = self.state();
        state.flights.remove(&question);
        if let Some(cached) = cached {
            let max_bytes = self.waiting.share_of(MAX_CACHED_BYTES_IN_ALL);
            let until = now.saturating_add(keep_for);
            state.cache.put(question, cached, now, until, max_bytes);
        }
        SharedOutcome { outcome, cookies }
    }

    /// Locks the state, even after a panic: no code that holds the lock leaves the data inconsistent.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A call in flight. Dropping it sends the result, so that waiting requests are also notified of a panic or of the
/// runtime's shutdown.
struct Flight {
    lookup: Arc<BackendLookup>,
    question: Question,
    sender: watch::Sender<Option<SharedOutcome>>,
    verdict: Option<Verdict>,
    is_abandoned: bool,
}

impl Flight {
    async fn run(mut self, call: impl Future<Output = Verdict> + Send) {
        let lookup = self.lookup.clone();
        let Ok(Ok(_permit)) = timeout(MAX_WAIT, lookup.calls.acquire()).await else {
            let error = busy("the call was queued for 1 s behind other calls");
            self.verdict = Some(failed(error));
            return;
        };
        if self.abandon() {
            return;
        }
        let started = lookup.context.clock.monotonic();
        let verdict = call.await;
        let took = lookup.context.clock.monotonic().saturating_sub(started);
        let result = match &verdict.outcome {
            Err(ExtractError::Unavailable(cause)) => {
                lookup
                    .health
                    .failed(0, cause.reason, cause.detail.as_deref());
                cause.reason.as_str()
            }
            Ok(_) | Err(ExtractError::NotMine(..) | ExtractError::Rejected(_)) => {
                lookup.health.answered(0);
                "ok"
            }
        };
        let metrics = &lookup.context.metrics;
        metrics.backend_call(&lookup.extractor, result, took);
        self.verdict = Some(verdict);
    }

    /// Ends the flight without a call to the backend if every request that waited for it has been dropped. Returns
    /// whether the flight has ended.
    fn abandon(&mut self) -> bool {
        let mut state = self.lookup.state();
        // `flights` holds one receiver, and further receivers are created only under the lock.
        if self.sender.receiver_count() <= 1 {
            state.flights.remove(&self.question);
            self.is_abandoned = true;
        }
        self.is_abandoned
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        if self.is_abandoned {
            return;
        }
        let verdict = self.verdict.take().unwrap_or_else(|| failed(interrupted()));
        let shared = self.lookup.finish(self.question, verdict);
        self.sender.send_replace(Some(shared));
    }
}

fn failed(error: ExtractError) -> Verdict {
    Verdict {
        outcome: Err(error),
        keep_for: Duration::ZERO,
        cookies: None,
    }
}

fn busy(detail: &str) -> ExtractError {
    ExtractError::unavailable(Reason::BackendBusy).because(detail)
}

fn interrupted() -> ExtractError {
    ExtractError::unavailable(Reason::Interrupted)
}

#[cfg(test)]
#[path = "lookup/tests.rs"]
mod tests;
