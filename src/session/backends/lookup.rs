//! Single-flight look-ups at a backend: identical look-ups share one call, the numbers of calls and of waiting requests
//! are limited, and answers may be cached for a short time. The extractor decides what is sent and what an answer
//! means.
//!
//! There is no circuit breaker: a call may fail because of the credential that it sends, and one caller's failing calls
//! must not cause other callers to be refused.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use aws_lc_rs::digest::{Context as Hasher, SHA256};

use crate::clock::UnixSeconds;
use crate::json::Value;
use crate::session::backends::Context;
use crate::session::backends::health::BackendHealth;
use crate::session::backends::waiting::{Waiting, WaitingPlace};
use crate::session::reason::Reason;
use crate::session::types::{ExtractError, OfferedCookies, Readiness, Session};
use crate::sync::{Mutex, MutexGuard, Semaphore, spawn, timeout, watch};

/// The maximum number of concurrent calls to one backend. Further calls wait for a permit.
pub const MAX_CALLS: usize = 64;

/// The maximum length of a credential that is sent to a backend, in bytes.
pub const MAX_CREDENTIAL: usize = 16 * 1024;

/// How long a call waits for a permit, and how many calls may run or wait for a permit. A call continues to wait even
/// if the requests that share it are dropped, so `max_waiting` does not limit the number of waiting calls.
const MAX_WAIT: Duration = Duration::from_secs(1);
const MAX_OPEN: usize = 1024;

/// Limits of the caches: the number of answers per backend, the bytes of one answer, and the total bytes for all
/// backends.
const MAX_CACHED: usize = 10_000;
const MAX_CACHED_BYTES: usize = 8 * 1024;
const MAX_CACHED_BYTES_IN_ALL: usize = 16 * 1024 * 1024;

/// The memory that a cached answer needs in addition to its bytes, rounded up: its hash and its expiry time, in a map
/// and in a queue, and the allocator's overhead.
const CACHED_OVERHEAD: usize = 256;

/// The identity of a look-up: a hash of everything that is sent to the backend. The credential itself is not stored, and
/// different look-ups never share an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
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
    /// Each call runs in its own task, so that it continues when the request that started it is dropped.
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
                // A dropped flight also sends its outcome, so the channel closes only when the runtime shuts down.
                let shared = result
                    .wait_for(Option::is_some)
                    .await
                    .ok()
                    .and_then(|shared| shared.clone());
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

    /// `Stale` if the last call failed.
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
    /// Finds the answer in the cache, joins the call in flight, or starts a new call.
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

    /// Ends a flight, and caches its result if the verdict allows it.
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
            state.cache.put(
                question,
                cached,
                now,
                now.saturating_add(keep_for),
                max_bytes,
            );
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
            self.verdict = Some(failed(busy(
                "the call was queued for 1 s behind other calls",
            )));
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
                    .failed(0, cause.reason.as_str(), cause.detail.as_deref());
                cause.reason.as_str()
            }
            Ok(_) | Err(ExtractError::NotMine(..) | ExtractError::Rejected(_)) => {
                lookup.health.answered(0);
                "ok"
            }
        };
        lookup
            .context
            .metrics
            .backend_call(&lookup.extractor, result, took);
        self.verdict = Some(verdict);
    }

    /// Ends the flight without a call to the backend if every request that waited for it has been dropped.
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

/// A cached outcome. The session is cached as JSON, because a parsed session takes seventeen times as much memory.
type CachedOutcome = Result<CachedSession, ExtractError>;

#[derive(Clone)]
struct CachedSession {
    attributes: Arc<[u8]>,
    expires_at: Option<UnixSeconds>,
}

impl CachedSession {
    fn parse(&self) -> LookupOutcome {
        let attributes = Value::parse(&self.attributes).map_err(|_| interrupted())?;
        Ok(Session {
            attributes,
            expires_at: self.expires_at,
        })
    }
}

/// Converts the outcome to its cached form. `None` if the session is too long, or has a duplicate member, which cannot
/// be serialized.
fn to_cached(outcome: &LookupOutcome) -> Option<CachedOutcome> {
    let session = match outcome {
        Ok(session) => session,
        Err(error) => return Some(Err(error.clone())),
    };
    let attributes = serde_json::to_vec(&session.attributes).ok()?;
    let is_short = attributes.len() <= MAX_CACHED_BYTES;
    is_short.then(|| {
        Ok(CachedSession {
            attributes: attributes.into(),
            expires_at: session.expires_at,
        })
    })
}

/// Cached outcomes, and the order in which they were added.
#[derive(Default)]
struct Cache {
    outcomes: HashMap<Question, (Duration, CachedOutcome)>,
    order: VecDeque<(Duration, Question)>,
    bytes: usize,
}

impl Cache {
    fn get(&self, question: Question, now: Duration) -> Option<CachedOutcome> {
        let (until, outcome) = self.outcomes.get(&question)?;
        (now < *until).then(|| outcome.clone())
    }

    /// Adds an outcome. First removes expired outcomes, and then the oldest outcomes until [`MAX_CACHED`] and
    /// `max_bytes` allow one more.
    fn put(
        &mut self,
        question: Question,
        outcome: CachedOutcome,
        now: Duration,
        until: Duration,
        max_bytes: usize,
    ) {
        let bytes = size(&outcome);
        if bytes > max_bytes {
            return;
        }
        while let Some((end, oldest)) = self.order.front().copied() {
            if now < end && self.order.len() < MAX_CACHED && self.bytes + bytes <= max_bytes {
                break;
            }
            self.order.pop_front();
            if self
                .outcomes
                .get(&oldest)
                .is_some_and(|(until, _)| *until == end)
            {
                self.remove(oldest);
            }
        }
        self.remove(question);
        self.bytes += bytes;
        self.outcomes.insert(question, (until, outcome));
        self.order.push_back((until, question));
    }

    fn remove(&mut self, question: Question) {
        if let Some((_, outcome)) = self.outcomes.remove(&question) {
            self.bytes -= size(&outcome);
        }
    }
}

fn size(outcome: &CachedOutcome) -> usize {
    CACHED_OVERHEAD
        + outcome
            .as_ref()
            .map_or(0, |session| session.attributes.len())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::clock::{Clock, ManualClock};
    use crate::session::types::Session;
    use futures_util::FutureExt;

    const A_WHILE: Duration = Duration::from_secs(5);

    fn lookups() -> (Lookups, Arc<ManualClock>) {
        lookups_with(20_000)
    }

    fn lookups_with(max_waiting: usize) -> (Lookups, Arc<ManualClock>) {
        let clock = ManualClock::at(1_800_000_000);
        let context = Context::new(Clock::new(clock.clone()), Arc::default());
        (
            Lookups::new(
                "test",
                &context,
                Waiting::new(Some(max_waiting), &Arc::default()),
            ),
            clock,
        )
    }

    fn question(text: &str) -> Question {
        Question::new([text.as_bytes()])
    }

    fn decided(user: &str, keep_for: Duration) -> Verdict {
        Verdict {
            outcome: Ok(Session::of_subject(user)),
            keep_for,
            cookies: None,
        }
    }

    fn word(outcome: LookupOutcome) -> Result<String, &'static str> {
        match outcome {
            Ok(session) => Ok(serde_json::to_string(&session.attributes).unwrap()),
            Err(error) => Err(error.reason().as_str()),
        }
    }

    fn down() -> Verdict {
        failed(ExtractError::unavailable(Reason::Timeout))
    }

    #[test]
    fn questions_with_equal_bytes_in_different_parts_differ() {
        let of = |parts: &[&str]| Question::new(parts.iter().map(|part| part.as_bytes()));
        assert!(of(&["ab", "c"]) == of(&["ab", "c"]));
        for other in [
            &["a", "bc"][..],
            &["abc"],
            &["ab", "c", ""],
            &["", "ab", "c"],
            &["c", "ab"],
        ] {
            assert!(of(&["ab", "c"]) != of(other), "{other:?}");
        }
    }

    #[tokio::test]
    async fn identical_questions_share_one_call_even_if_its_first_request_is_dropped() {
        let (lookups, _) = lookups();
        let calls = AtomicUsize::new(0);
        let (release, gate) = watch::channel(false);
        let call = || {
            calls.fetch_add(1, Ordering::SeqCst);
            let mut gate = gate.clone();
            async move {
                let _ = gate.wait_for(|open| *open).await;
                decided("ann", Duration::ZERO)
            }
        };
        {
            let first = std::pin::pin!(lookups.ask(question("a"), call));
            assert!(first.now_or_never().is_none());
        }
        let mut waiting: Vec<_> = (0..10_000)
            .map(|_| Box::pin(lookups.ask(question("a"), call)))
            .collect();
        for request in &mut waiting {
            assert!(request.now_or_never().is_none());
        }
        release.send_replace(true);
        for request in waiting {
            assert_eq!(word(request.await).as_deref(), Ok(r#"{"sub":"ann"}"#));
        }
        assert_eq!(calls.load(Ordering::SeqCst), 1);
        assert_eq!(lookups.0.state().flights.len(), 0);
    }

    #[tokio::test]
    async fn at_most_64_calls_run_and_at_most_1024_run_or_wait_for_a_permit() {
        let (lookups, _) = lookups();
        let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let call = || {
            let (running, most) = (running.clone(), most.clone());
            async move {
                most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                tokio::task::yield_now().await;
                running.fetch_sub(1, Ordering::SeqCst);
                decided("ann", Duration::ZERO)
            }
        };
        let asked = (0..=MAX_OPEN).map(|n| lookups.ask(question(&n.to_string()), call));
        let outcomes = futures_util::future::join_all(asked).await;
        assert_eq!(
            outcomes.iter().filter(|outcome| outcome.is_ok()).count(),
            MAX_OPEN
        );
        assert_eq!(word(outcomes[MAX_OPEN].clone()), Err("backend_busy"));
        assert_eq!(most.load(Ordering::SeqCst), MAX_CALLS);
    }

    #[tokio::test]
    async fn panicking_call_fails_with_reason_interrupted_and_the_next_call_succeeds() {
        let (lookups, _) = lookups();
        let outcome = lookups
            .ask(question("a"), || async { panic!("a bug") })
            .await;
        assert_eq!(word(outcome), Err("interrupted"));
        let outcome = lookups
            .ask(question("a"), || async { decided("ann", Duration::ZERO) })
            .await;
        assert!(outcome.is_ok());
    }

    #[tokio::test]
    async fn answer_is_cached_for_its_question_until_it_expires() {
        let (lookups, clock) = lookups();
        let ask = |text: &str, user: &'static str| {
            let question = question(text);
            let lookups = &lookups;
            async move {
                word(
                    lookups
                        .ask(question, || async move { decided(user, A_WHILE) })
                        .await,
                )
                .unwrap()
            }
        };
        assert!(ask("a", "ann").await.contains("ann"));
        assert!(ask("a", "bob").await.contains("ann"), "cached");
        assert!(ask("b", "bob").await.contains("bob"), "another question");
        clock.advance(A_WHILE);
        assert!(ask("a", "cid").await.contains("cid"), "expired");
    }

    #[tokio::test]
    async fn cached_answer_is_returned_even_if_max_waiting_is_reached() {
        let (lookups, _) = lookups_with(1);
        let cached = || async { decided("ann", A_WHILE) };
        assert!(lookups.ask(question("a"), cached).await.is_ok());
        let mut hangs = Box::pin(lookups.ask(question("b"), std::future::pending::<Verdict>));
        assert!((&mut hangs).now_or_never().is_none());
        assert_eq!(
            word(lookups.ask(question("c"), cached).await),
            Err("backend_busy")
        );
        assert!(lookups.ask(question("a"), cached).await.is_ok());
        drop(hangs);
        assert!(
            lookups.ask(question("c"), cached).await.is_ok(),
            "the place is free again"
        );
    }

    #[tokio::test]
    async fn call_is_not_made_if_its_requests_are_dropped_before_it_has_a_permit() {
        let (lookups, _) = lookups();
        let calls = AtomicUsize::new(0);
        let (release, gate) = watch::channel(false);
        let call = || {
            calls.fetch_add(1, Ordering::SeqCst);
            let mut gate = gate.clone();
            async move {
                let _ = gate.wait_for(|open| *open).await;
                decided("ann", Duration::ZERO)
            }
        };
        let under_way: Vec<_> = (0..MAX_CALLS)
            .map(|n| Box::pin(lookups.ask(question(&n.to_string()), call)))
            .collect();
        let mut under_way = futures_util::future::join_all(under_way);
        assert!((&mut under_way).now_or_never().is_none());
        let made = Arc::new(AtomicUsize::new(0));
        for n in MAX_CALLS..MAX_OPEN {
            let made = made.clone();
            let call = || async move {
                made.fetch_add(1, Ordering::SeqCst);
                decided("bob", Duration::ZERO)
            };
            let gone = std::pin::pin!(lookups.ask(question(&n.to_string()), call));
            assert!(gone.now_or_never().is_none());
        }
        release.send_replace(true);
        assert!(under_way.await.iter().all(LookupOutcome::is_ok));
        assert!(
            lookups
                .ask(question("honest"), || async {
                    decided("ann", Duration::ZERO)
                })
                .await
                .is_ok()
        );
        assert_eq!(made.load(Ordering::SeqCst), 0);
        assert_eq!(lookups.0.state().flights.len(), 0);
    }

    #[test]
    fn at_most_10_000_answers_are_cached() {
        const TOKENS: usize = 1_000_000;
        const MOST: usize = MAX_CACHED_BYTES_IN_ALL;
        let (mut cache, answer) = (
            Cache::default(),
            to_cached(&Ok(Session::of_subject("ann"))).unwrap(),
        );
        let of = |n: usize| question(&n.to_string());
        for n in 0..TOKENS {
            cache.put(of(n), answer.clone(), Duration::ZERO, A_WHILE, MOST);
        }
        assert_eq!(
            (cache.outcomes.len(), cache.order.len()),
            (MAX_CACHED, MAX_CACHED)
        );
        assert!(
            cache.get(of(0), Duration::ZERO).is_none(),
            "the oldest was evicted"
        );
        assert!(cache.get(of(TOKENS - 1), Duration::ZERO).is_some());
        cache.put(of(0), answer.clone(), A_WHILE, 2 * A_WHILE, MOST);
        assert_eq!(
            (cache.outcomes.len(), cache.order.len()),
            (1, 1),
            "expired answers were evicted"
        );
        cache.put(of(0), answer.clone(), A_WHILE, 3 * A_WHILE, MOST);
        assert_eq!(cache.bytes, size(&answer), "counted once");
    }

    #[test]
    fn cached_answers_use_at_most_16_mib() {
        let session = |text: &str| Session::of_subject(&text.repeat(1000));
        let mut cache = Cache::default();
        for n in 0..9000 {
            let answer = to_cached(&Ok(session("8 bytes "))).expect("short enough");
            cache.put(
                question(&n.to_string()),
                answer,
                Duration::ZERO,
                A_WHILE,
                MAX_CACHED_BYTES_IN_ALL,
            );
        }
        assert!(
            (1900..2100).contains(&cache.outcomes.len()),
            "{}",
            cache.outcomes.len()
        );
        let sum: usize = cache
            .outcomes
            .values()
            .map(|(_, answer)| size(answer))
            .sum();
        assert_eq!(cache.bytes, sum);
        assert!(sum <= MAX_CACHED_BYTES_IN_ALL);
        assert!(
            to_cached(&Ok(session("9 bytes. "))).is_none(),
            "longer than 8 KiB"
        );
    }

    #[test]
    fn session_is_cached_unchanged_unless_it_has_a_duplicate_member() {
        let json =
            r#"{"id":9007199254740993,"name":"Zoë \u0000","list":[1,null,true,1.5,{"a":{}}]}"#;
        let session = |json: &str| Session {
            attributes: Value::parse(json.as_bytes()).unwrap(),
            expires_at: Some(7),
        };
        let Some(Ok(cached)) = to_cached(&Ok(session(json))) else {
            panic!("not cached")
        };
        let parsed = cached.parse().unwrap();
        assert_eq!(
            (parsed.attributes, parsed.expires_at),
            (session(json).attributes, Some(7))
        );
        assert!(to_cached(&Ok(session(r#"{"id":1,"a":{"b":1,"b":2}}"#))).is_none());
    }

    #[tokio::test]
    async fn failing_calls_of_one_caller_do_not_affect_calls_of_another_caller() {
        let (lookups, _) = lookups();
        for n in 0..100 {
            let failing = lookups
                .ask(question(&n.to_string()), || async { down() })
                .await;
            assert_eq!(word(failing), Err("timeout"));
            assert_eq!(
                lookups.readiness(),
                Readiness::Stale,
                "the last call failed"
            );
            let honest = lookups
                .ask(question("honest"), || async {
                    decided("ann", Duration::ZERO)
                })
                .await;
            assert!(honest.is_ok());
            assert_eq!(
                lookups.readiness(),
                Readiness::Ready,
                "the last call was answered"
            );
        }
    }
}
