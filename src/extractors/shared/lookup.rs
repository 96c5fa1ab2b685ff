//! Asking a back end about a credential without asking too much: identical questions share one call,
//! answers may be kept for a moment, and a back end that is down is left alone.
//! What is asked, and what an answer means, is the extractor's business.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use aws_lc_rs::digest::{Context as Hasher, SHA256};

use crate::extractors::{Context, ExtractError, Readiness, Session};
use crate::sync::{Mutex, MutexGuard, Semaphore, spawn, timeout, watch};

/// The most calls to one back end at a time. More wait for their turn.
pub const MAX_CALLS: usize = 64;

/// How long a question waits for its turn, and how many may be open. Callers that went away leave
/// their question behind, so the number of requests does not bound it.
const MAX_WAIT: Duration = Duration::from_secs(1);
const MAX_OPEN: usize = 1024;

/// The most answers that are kept, and how long a text an answer may have been to be one of them:
/// together they bound the memory.
const MAX_KEPT: usize = 10_000;
pub const MAX_KEPT_BYTES: usize = 8 * 1024;

/// A back end that failed this often in a row is asked once a second only, until it answers.
const MAX_FAILURES: u32 = 5;
const PROBE_INTERVAL: Duration = Duration::from_secs(1);

/// What is asked, as a hash over all of it: a question never shares an answer with another one, and no
/// credential is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Question([u8; 32]);

impl Question {
    /// Every part that the answer may depend on. Lengths are hashed too, so that no two lists of parts
    /// read the same.
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

/// What became of a question.
pub type Outcome = Result<Session, ExtractError>;

/// What one call to the back end brought.
#[derive(Debug)]
pub enum Verdict {
    /// It decided. The answer may be kept for so long; zero is not at all.
    Decided(Outcome, Duration),
    /// It said nothing usable about this credential; about others it may.
    Unclear(ExtractError),
    /// It does not work, whoever is asked about.
    Down(ExtractError),
}

/// Everything that is known and under way between one extractor and its back end.
pub struct Lookups(Arc<Desk>);

struct Desk {
    extractor: Arc<str>,
    context: Context,
    calls: Semaphore,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    flights: HashMap<Question, watch::Receiver<Option<Outcome>>>,
    kept: Kept,
    breaker: Breaker,
}

impl Lookups {
    pub fn new(extractor: &str, context: &Context) -> Self {
        Self(Arc::new(Desk {
            extractor: Arc::from(extractor),
            context: context.clone(),
            calls: Semaphore::new(MAX_CALLS),
            state: Mutex::default(),
        }))
    }

    /// The answer to `question`: a kept one, that of a call under way, or that of a new `call`. A session that is
    /// over by now is refused.
    ///
    /// A call is a task of its own: it goes on for the others when the request that began it is dropped.
    pub async fn ask<F>(&self, question: Question, call: impl FnOnce() -> F) -> Outcome
    where
        F: Future<Output = Verdict> + Send + 'static,
    {
        let outcome = match self.0.join(question, call) {
            Ok(mut landing) => {
                // A flight tells its outcome however it ends; that it is gone is the end of the process.
                let outcome =
                    landing.wait_for(Option::is_some).await.ok().and_then(|outcome| outcome.clone());
                outcome.unwrap_or_else(|| Err(interrupted()))
            }
            Err(outcome) => *outcome,
        };
        // It may have been kept for longer than the session lives.
        let now = self.0.context.clock.now();
        outcome.and_then(|session| match session.expires_at {
            Some(end) if end <= now => Err(ExtractError::expired()),
            Some(_) | None => Ok(session),
        })
    }

    /// The name of the extractor that asks.
    pub fn extractor(&self) -> &str {
        &self.0.extractor
    }

    /// Always ready: nobody is helped if all instances leave because the back end did.
    pub fn readiness(&self) -> Readiness {
        if self.0.state().breaker.is_open() { Readiness::Stale } else { Readiness::Ready }
    }
}

impl fmt::Debug for Lookups {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lookups").field("extractor", &self.0.extractor).finish_non_exhaustive()
    }
}

impl Desk {
    /// The flight that will bring the answer, or the answer itself if it is there already.
    fn join<F>(
        self: &Arc<Self>,
        question: Question,
        call: impl FnOnce() -> F,
    ) -> Result<watch::Receiver<Option<Outcome>>, Box<Outcome>>
    where
        F: Future<Output = Verdict> + Send + 'static,
    {
        let now = self.context.clock.monotonic();
        let mut state = self.state();
        if let Some(outcome) = state.kept.get(question, now) {
            return Err(Box::new(outcome));
        }
        if let Some(flight) = state.flights.get(&question) {
            return Ok(flight.clone());
        }
        if state.flights.len() >= MAX_OPEN {
            return Err(Box::new(Err(busy())));
        }
        state.breaker.admit(now).map_err(|error| Box::new(Err(error)))?;
        let (sender, flight) = watch::channel(None);
        state.flights.insert(question, flight.clone());
        // A runtime that is shutting down drops what it is given at once, and that takes the lock.
        drop(state);
        let started = Flight { desk: self.clone(), question, sender, verdict: None };
        spawn(started.run(call()));
        Ok(flight)
    }

    /// Takes note of how a flight ended.
    fn land(&self, question: Question, verdict: Verdict) -> Outcome {
        let now = self.context.clock.monotonic();
        let mut state = self.state();
        state.flights.remove(&question);
        match verdict {
            Verdict::Decided(outcome, keep_for) => {
                state.breaker.close(&self.extractor);
                if !keep_for.is_zero() {
                    state.kept.put(question, &outcome, now, now.saturating_add(keep_for));
                }
                outcome
            }
            Verdict::Unclear(error) => Err(error),
            Verdict::Down(error) => {
                state.breaker.fail(&self.extractor, now, &error);
                Err(error)
            }
        }
    }

    /// Nothing panics while it holds the lock; if something did, the data would still be whole.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A call under way. However its task ends, the desk and all who wait learn of it.
struct Flight {
    desk: Arc<Desk>,
    question: Question,
    sender: watch::Sender<Option<Outcome>>,
    verdict: Option<Verdict>,
}

impl Flight {
    async fn run(mut self, call: impl Future<Output = Verdict> + Send) {
        let turn = timeout(MAX_WAIT, self.desk.calls.acquire()).await;
        let Ok(Ok(turn)) = turn else {
            self.verdict = Some(Verdict::Unclear(busy()));
            return;
        };
        let began = self.desk.context.clock.monotonic();
        let verdict = call.await;
        let took = self.desk.context.clock.monotonic().saturating_sub(began);
        let result = match &verdict {
            Verdict::Unclear(ExtractError::Unavailable(cause))
            | Verdict::Down(ExtractError::Unavailable(cause)) => cause.word,
            Verdict::Decided(..) | Verdict::Unclear(_) | Verdict::Down(_) => "ok",
        };
        self.desk.context.metrics.backend_call(&self.desk.extractor, result, took);
        drop(turn);
        self.verdict = Some(verdict);
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        let verdict = self.verdict.take().unwrap_or_else(|| Verdict::Unclear(interrupted()));
        let outcome = self.desk.land(self.question, verdict);
        self.sender.send_replace(Some(outcome));
    }
}

fn busy() -> ExtractError {
    ExtractError::unavailable("backend_busy").because("too many calls are under way")
}

fn interrupted() -> ExtractError {
    ExtractError::unavailable("interrupted")
}

/// Answers that may be given again, in the order in which they came.
#[derive(Default)]
struct Kept {
    answers: HashMap<Question, (Duration, Outcome)>,
    order: VecDeque<(Duration, Question)>,
}

impl Kept {
    fn get(&self, question: Question, now: Duration) -> Option<Outcome> {
        let (until, outcome) = self.answers.get(&question)?;
        (now < *until).then(|| outcome.clone())
    }

    /// Makes room first: for what is over, and then for the oldest.
    fn put(&mut self, question: Question, outcome: &Outcome, now: Duration, until: Duration) {
        while let Some((end, oldest)) = self.order.front().copied() {
            if now < end && self.order.len() < MAX_KEPT {
                break;
            }
            self.order.pop_front();
            if self.answers.get(&oldest).is_some_and(|(until, _)| *until == end) {
                self.answers.remove(&oldest);
            }
        }
        self.answers.insert(question, (until, outcome.clone()));
        self.order.push_back((until, question));
    }
}

/// Counts failures in a row. Open, it lets one question a second through to see whether the back end
/// is well again.
#[derive(Default)]
struct Breaker {
    failures: u32,
    last: Option<ExtractError>,
    next_probe: Duration,
}

impl Breaker {
    fn is_open(&self) -> bool {
        self.failures >= MAX_FAILURES
    }

    /// # Errors
    /// The last failure, if the back end is not to be asked now.
    fn admit(&mut self, now: Duration) -> Result<(), ExtractError> {
        match &self.last {
            Some(error) if self.failures >= MAX_FAILURES && now < self.next_probe => {
                Err(error.clone().because("it failed again and again and is asked once a second only"))
            }
            Some(_) | None => {
                self.next_probe = now.saturating_add(PROBE_INTERVAL);
                Ok(())
            }
        }
    }

    fn fail(&mut self, extractor: &str, now: Duration, error: &ExtractError) {
        self.failures = self.failures.saturating_add(1);
        self.last = Some(error.clone());
        if self.failures == MAX_FAILURES {
            self.next_probe = now.saturating_add(PROBE_INTERVAL);
            tracing::warn!(
                extractor,
                "the session back end fails; it is asked once a second until it answers"
            );
        }
    }

    fn close(&mut self, extractor: &str) {
        if self.is_open() {
            tracing::info!(extractor, "the session back end answers again");
        }
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::clock::{Clock, ManualClock};
    use crate::extractors::Session;
    use futures_util::FutureExt;

    const A_WHILE: Duration = Duration::from_secs(5);

    fn lookups() -> (Lookups, Arc<ManualClock>) {
        let clock = ManualClock::at(1_800_000_000);
        let context = Context::new(Clock::new(clock.clone()), Arc::default());
        (Lookups::new("test", &context), clock)
    }

    fn question(text: &str) -> Question {
        Question::new([text.as_bytes()])
    }

    fn decided(user: &str, keep_for: Duration) -> Verdict {
        Verdict::Decided(Ok(Session::of_subject(user)), keep_for)
    }

    fn word(outcome: Outcome) -> Result<String, &'static str> {
        match outcome {
            Ok(session) => Ok(serde_json::to_string(&session.attributes).unwrap()),
            Err(ExtractError::Rejected(reason)) => Err(reason.word),
            Err(ExtractError::Unavailable(cause)) => Err(cause.word),
        }
    }

    fn down() -> Verdict {
        Verdict::Down(ExtractError::unavailable("timeout"))
    }

    #[test]
    fn the_same_bytes_in_other_parts_are_another_question() {
        let of = |parts: &[&str]| Question::new(parts.iter().map(|part| part.as_bytes()));
        assert!(of(&["ab", "c"]) == of(&["ab", "c"]));
        for other in [&["a", "bc"][..], &["abc"], &["ab", "c", ""], &["", "ab", "c"], &["c", "ab"]] {
            assert!(of(&["ab", "c"]) != of(other), "{other:?}");
        }
    }

    #[tokio::test]
    async fn identical_questions_share_a_call_that_survives_who_began_it() {
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
        let mut waiting: Vec<_> = (0..10_000).map(|_| Box::pin(lookups.ask(question("a"), call))).collect();
        for one in &mut waiting {
            assert!(one.now_or_never().is_none());
        }
        release.send_replace(true);
        for one in waiting {
            assert_eq!(word(one.await).as_deref(), Ok(r#"{"sub":"ann"}"#));
        }
        assert_eq!(calls.load(Ordering::SeqCst), 1);
        assert_eq!(lookups.0.state().flights.len(), 0);
    }

    #[tokio::test]
    async fn calls_are_capped_and_so_are_open_questions() {
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
        assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), MAX_OPEN);
        assert_eq!(word(outcomes[MAX_OPEN].clone()), Err("backend_busy"));
        assert_eq!(most.load(Ordering::SeqCst), MAX_CALLS);
    }

    #[tokio::test]
    async fn a_call_that_panics_is_an_answer_too() {
        let (lookups, _) = lookups();
        let outcome = lookups.ask(question("a"), || async { panic!("a bug") }).await;
        assert_eq!(word(outcome), Err("interrupted"));
        let outcome = lookups.ask(question("a"), || async { decided("ann", Duration::ZERO) }).await;
        assert!(outcome.is_ok());
    }

    #[tokio::test]
    async fn an_answer_is_kept_for_its_time_and_for_its_question() {
        let (lookups, clock) = lookups();
        let ask = |text: &str, user: &'static str| {
            let question = question(text);
            let lookups = &lookups;
            async move { word(lookups.ask(question, || async move { decided(user, A_WHILE) }).await).unwrap() }
        };
        assert!(ask("a", "ann").await.contains("ann"));
        assert!(ask("a", "bob").await.contains("ann"), "kept");
        assert!(ask("b", "bob").await.contains("bob"), "another question");
        clock.advance(A_WHILE);
        assert!(ask("a", "cid").await.contains("cid"), "over");
    }

    #[test]
    fn j9_neither_kept_answers_nor_their_order_grow_without_bound() {
        const TOKENS: usize = 1_000_000;
        let (mut kept, answer) = (Kept::default(), Ok(Session::of_subject("ann")));
        let of = |n: usize| question(&n.to_string());
        for n in 0..TOKENS {
            kept.put(of(n), &answer, Duration::ZERO, A_WHILE);
        }
        assert_eq!((kept.answers.len(), kept.order.len()), (MAX_KEPT, MAX_KEPT));
        assert!(kept.get(of(0), Duration::ZERO).is_none(), "the oldest made room");
        assert!(kept.get(of(TOKENS - 1), Duration::ZERO).is_some());
        kept.put(of(0), &answer, A_WHILE, 2 * A_WHILE);
        assert_eq!((kept.answers.len(), kept.order.len()), (1, 1), "what is over made room");
    }

    #[tokio::test]
    async fn an_open_breaker_asks_once_a_second_and_closes_on_an_answer() {
        let (lookups, clock) = lookups();
        let calls = AtomicUsize::new(0);
        let ask = async |n: u32, verdict: fn() -> Verdict| {
            let call = || {
                calls.fetch_add(1, Ordering::SeqCst);
                async move { verdict() }
            };
            word(lookups.ask(question(&n.to_string()), call).await)
        };
        let well: fn() -> Verdict = || decided("ann", Duration::ZERO);
        for n in 0..100 {
            assert_eq!(ask(n, down).await, Err("timeout"));
        }
        assert_eq!(calls.load(Ordering::SeqCst), 5, "fast and without a call from the sixth on");
        assert_eq!(lookups.readiness(), Readiness::Stale);

        clock.advance(PROBE_INTERVAL);
        assert_eq!(ask(1, down).await, Err("timeout"));
        assert_eq!(ask(2, well).await, Err("timeout"), "one probe a second");
        assert_eq!(calls.load(Ordering::SeqCst), 6);

        clock.advance(PROBE_INTERVAL);
        assert!(ask(3, well).await.is_ok());
        assert!(ask(4, well).await.is_ok(), "closed again");
        assert_eq!(lookups.readiness(), Readiness::Ready);
        assert_eq!(ask(5, down).await, Err("timeout"));
        assert!(ask(6, well).await.is_ok(), "one failure is none");
    }

    #[tokio::test]
    async fn nonsense_about_one_credential_does_not_open_the_breaker() {
        let (lookups, _) = lookups();
        for n in 0..20 {
            let call = || async { Verdict::Unclear(ExtractError::unavailable("malformed")) };
            assert!(lookups.ask(question(&n.to_string()), call).await.is_err());
        }
        let call = || async { decided("ann", Duration::ZERO) };
        assert!(lookups.ask(question("other"), call).await.is_ok());
    }
}
