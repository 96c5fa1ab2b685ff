//! Asking a backend about a credential without asking too much: identical look-ups share one call, calls and
//! waiting requests are bounded, and answers may be kept for a moment.
//! What is asked, and what an answer means, is the extractor's business.
//!
//! There is no circuit breaker. A call may fail because of the credential in it, so that one caller's
//! failing calls must not decide for another.

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
use crate::session::types::{ExtractError, Readiness, Session};
use crate::sync::{Mutex, MutexGuard, Semaphore, spawn, timeout, watch};

/// The most calls to one backend at a time. More wait for their turn.
pub const MAX_CALLS: usize = 64;

/// The longest credential that is sent to a backend, in bytes.
pub const MAX_CREDENTIAL: usize = 16 * 1024;

/// How long a call waits for its turn, and how many may be open. Callers that went away leave their call
/// behind until it has its turn, so that the number of waiting requests does not bound it.
const MAX_WAIT: Duration = Duration::from_secs(1);
const MAX_OPEN: usize = 1024;

/// The bounds of what is kept: answers of one backend, bytes of one answer, bytes of all backends together.
const MAX_KEPT: usize = 10_000;
const MAX_KEPT_BYTES: usize = 8 * 1024;
const MAX_KEPT_BYTES_IN_ALL: usize = 16 * 1024 * 1024;

/// What a kept answer takes beside its bytes, rounded up: its hash in a map and a queue, times, allocations.
const KEPT_OVERHEAD: usize = 256;

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

/// What one call to the backend brought.
#[derive(Debug)]
pub struct Verdict {
    /// `Unavailable` if the call failed.
    pub outcome: Outcome,
    /// For how long other requests may have the same outcome; zero is not at all.
    pub keep_for: Duration,
}

/// Everything that is known and under way between one extractor and its backend.
pub struct Lookups(Arc<Desk>);

struct Desk {
    extractor: Arc<str>,
    context: Context,
    waiting: Arc<Waiting>,
    calls: Semaphore,
    health: BackendHealth,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    flights: HashMap<Question, watch::Receiver<Option<Outcome>>>,
    kept: Kept,
}

/// Where a request finds its answer.
enum Joined {
    Kept(KeptOutcome),
    /// The call that will bring it, and the request's place among those that await the backend.
    Flight(watch::Receiver<Option<Outcome>>, WaitingPlace),
}

impl Lookups {
    pub fn new(extractor: &str, context: &Context, waiting: Arc<Waiting>) -> Self {
        Self(Arc::new(Desk {
            extractor: Arc::from(extractor),
            context: context.clone(),
            waiting,
            calls: Semaphore::new(MAX_CALLS),
            health: BackendHealth::new(extractor, &context.clock),
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
        let outcome = match self.0.join(question, call)? {
            Joined::Kept(kept) => kept.and_then(|session| session.parse()),
            Joined::Flight(mut landing, _place) => {
                // A flight tells its outcome however it ends; that it is gone is the end of the process.
                let outcome = landing
                    .wait_for(Option::is_some)
                    .await
                    .ok()
                    .and_then(|outcome| outcome.clone());
                outcome.unwrap_or_else(|| Err(interrupted()))
            }
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

impl Desk {
    /// Where the answer is, or will be.
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
        if let Some(outcome) = state.kept.get(question, now) {
            return Ok(Joined::Kept(outcome));
        }
        let place = self
            .waiting
            .enter()
            .ok_or_else(|| busy("max_waiting requests await the backend"))?;
        if let Some(flight) = state.flights.get(&question) {
            return Ok(Joined::Flight(flight.clone(), place));
        }
        if state.flights.len() >= MAX_OPEN {
            return Err(busy("too many calls wait for their turn"));
        }
        let (sender, flight) = watch::channel(None);
        state.flights.insert(question, flight.clone());
        // A runtime that is shutting down drops what it is given at once, and that takes the lock.
        drop(state);
        let started = Flight {
            desk: self.clone(),
            question,
            sender,
            verdict: None,
            is_abandoned: false,
        };
        spawn(started.run(call()));
        Ok(Joined::Flight(flight, place))
    }

    /// Takes note of how a flight ended.
    fn land(&self, question: Question, verdict: Verdict) -> Outcome {
        let now = self.context.clock.monotonic();
        let Verdict { outcome, keep_for } = verdict;
        let kept = if keep_for.is_zero() {
            None
        } else {
            keep(&outcome)
        };
        let mut state = self.state();
        state.flights.remove(&question);
        if let Some(kept) = kept {
            let most = self.waiting.share_of(MAX_KEPT_BYTES_IN_ALL);
            state
                .kept
                .put(question, kept, now, now.saturating_add(keep_for), most);
        }
        outcome
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
    is_abandoned: bool,
}

impl Flight {
    async fn run(mut self, call: impl Future<Output = Verdict> + Send) {
        let desk = self.desk.clone();
        let Ok(Ok(_turn)) = timeout(MAX_WAIT, desk.calls.acquire()).await else {
            self.verdict = Some(failed(busy("no call ended in time for this one's turn")));
            return;
        };
        if self.abandon() {
            return;
        }
        let began = desk.context.clock.monotonic();
        let verdict = call.await;
        let took = desk.context.clock.monotonic().saturating_sub(began);
        let result = match &verdict.outcome {
            Err(ExtractError::Unavailable(cause)) => {
                desk.health.failed(0, cause.word, cause.detail.as_deref());
                cause.word
            }
            Ok(_) | Err(ExtractError::NotMine(..) | ExtractError::Rejected(_)) => {
                desk.health.answered(0);
                "ok"
            }
        };
        desk.context
            .metrics
            .backend_call(&desk.extractor, result, took);
        self.verdict = Some(verdict);
    }

    /// Ends the flight if every request that awaited it went away before its turn.
    fn abandon(&mut self) -> bool {
        let mut state = self.desk.state();
        // One of the receivers is the desk's own, and others are made only under its lock.
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
        let outcome = self.desk.land(self.question, verdict);
        self.sender.send_replace(Some(outcome));
    }
}

fn failed(error: ExtractError) -> Verdict {
    Verdict {
        outcome: Err(error),
        keep_for: Duration::ZERO,
    }
}

fn busy(detail: &str) -> ExtractError {
    ExtractError::unavailable("backend_busy").because(detail)
}

fn interrupted() -> ExtractError {
    ExtractError::unavailable("interrupted")
}

/// A kept outcome. A parsed session takes seventeen times its bytes, so that it is kept as JSON.
type KeptOutcome = Result<KeptSession, ExtractError>;

#[derive(Clone)]
struct KeptSession {
    attributes: Arc<[u8]>,
    expires_at: Option<UnixSeconds>,
}

impl KeptSession {
    fn parse(&self) -> Outcome {
        let attributes = Value::parse(&self.attributes).map_err(|_| interrupted())?;
        Ok(Session {
            attributes,
            expires_at: self.expires_at,
        })
    }
}

/// The outcome in the form in which it is kept. `None` if it is too long, or if a member's name is there
/// twice, which JSON that is written here never has.
fn keep(outcome: &Outcome) -> Option<KeptOutcome> {
    let session = match outcome {
        Ok(session) => session,
        Err(error) => return Some(Err(error.clone())),
    };
    let attributes = serde_json::to_vec(&session.attributes).ok()?;
    let is_short = attributes.len() <= MAX_KEPT_BYTES;
    is_short.then(|| {
        Ok(KeptSession {
            attributes: attributes.into(),
            expires_at: session.expires_at,
        })
    })
}

/// Answers that may be given again, in the order in which they came.
#[derive(Default)]
struct Kept {
    answers: HashMap<Question, (Duration, KeptOutcome)>,
    order: VecDeque<(Duration, Question)>,
    bytes: usize,
}

impl Kept {
    fn get(&self, question: Question, now: Duration) -> Option<KeptOutcome> {
        let (until, outcome) = self.answers.get(&question)?;
        (now < *until).then(|| outcome.clone())
    }

    /// Makes room first, for what is over, and then for the oldest: all together stay within `most` bytes.
    fn put(
        &mut self,
        question: Question,
        outcome: KeptOutcome,
        now: Duration,
        until: Duration,
        most: usize,
    ) {
        let bytes = size(&outcome);
        if bytes > most {
            return;
        }
        while let Some((end, oldest)) = self.order.front().copied() {
            if now < end && self.order.len() < MAX_KEPT && self.bytes + bytes <= most {
                break;
            }
            self.order.pop_front();
            if self
                .answers
                .get(&oldest)
                .is_some_and(|(until, _)| *until == end)
            {
                self.remove(oldest);
            }
        }
        self.remove(question);
        self.bytes += bytes;
        self.answers.insert(question, (until, outcome));
        self.order.push_back((until, question));
    }

    fn remove(&mut self, question: Question) {
        if let Some((_, outcome)) = self.answers.remove(&question) {
            self.bytes -= size(&outcome);
        }
    }
}

fn size(outcome: &KeptOutcome) -> usize {
    KEPT_OVERHEAD
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
        }
    }

    fn word(outcome: Outcome) -> Result<String, &'static str> {
        match outcome {
            Ok(session) => Ok(serde_json::to_string(&session.attributes).unwrap()),
            Err(error) => Err(error.word()),
        }
    }

    fn down() -> Verdict {
        failed(ExtractError::unavailable("timeout"))
    }

    #[test]
    fn the_same_bytes_in_other_parts_are_another_question() {
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
        let mut waiting: Vec<_> = (0..10_000)
            .map(|_| Box::pin(lookups.ask(question("a"), call)))
            .collect();
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
        assert_eq!(
            outcomes.iter().filter(|outcome| outcome.is_ok()).count(),
            MAX_OPEN
        );
        assert_eq!(word(outcomes[MAX_OPEN].clone()), Err("backend_busy"));
        assert_eq!(most.load(Ordering::SeqCst), MAX_CALLS);
    }

    #[tokio::test]
    async fn a_call_that_panics_is_an_answer_too() {
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
    async fn an_answer_is_kept_for_its_time_and_for_its_question() {
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
        assert!(ask("a", "bob").await.contains("ann"), "kept");
        assert!(ask("b", "bob").await.contains("bob"), "another question");
        clock.advance(A_WHILE);
        assert!(ask("a", "cid").await.contains("cid"), "over");
    }

    #[tokio::test]
    async fn kept_answer_is_given_when_no_place_is_free() {
        let (lookups, _) = lookups_with(1);
        let kept = || async { decided("ann", A_WHILE) };
        assert!(lookups.ask(question("a"), kept).await.is_ok());
        let mut hangs = Box::pin(lookups.ask(question("b"), std::future::pending::<Verdict>));
        assert!((&mut hangs).now_or_never().is_none());
        assert_eq!(
            word(lookups.ask(question("c"), kept).await),
            Err("backend_busy")
        );
        assert!(lookups.ask(question("a"), kept).await.is_ok());
        drop(hangs);
        assert!(
            lookups.ask(question("c"), kept).await.is_ok(),
            "the place is free again"
        );
    }

    #[tokio::test]
    async fn call_whose_requests_went_away_before_its_turn_is_not_made() {
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
        assert!(under_way.await.iter().all(Outcome::is_ok));
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
    fn kept_answers_and_their_order_are_bounded() {
        const TOKENS: usize = 1_000_000;
        const MOST: usize = MAX_KEPT_BYTES_IN_ALL;
        let (mut kept, answer) = (
            Kept::default(),
            keep(&Ok(Session::of_subject("ann"))).unwrap(),
        );
        let of = |n: usize| question(&n.to_string());
        for n in 0..TOKENS {
            kept.put(of(n), answer.clone(), Duration::ZERO, A_WHILE, MOST);
        }
        assert_eq!((kept.answers.len(), kept.order.len()), (MAX_KEPT, MAX_KEPT));
        assert!(
            kept.get(of(0), Duration::ZERO).is_none(),
            "the oldest made room"
        );
        assert!(kept.get(of(TOKENS - 1), Duration::ZERO).is_some());
        kept.put(of(0), answer.clone(), A_WHILE, 2 * A_WHILE, MOST);
        assert_eq!(
            (kept.answers.len(), kept.order.len()),
            (1, 1),
            "what is over made room"
        );
        kept.put(of(0), answer.clone(), A_WHILE, 3 * A_WHILE, MOST);
        assert_eq!(kept.bytes, size(&answer), "counted once");
    }

    #[test]
    fn kept_answers_are_at_most_16_mib_of_json_in_all() {
        let session = |text: &str| Session::of_subject(&text.repeat(1000));
        let mut kept = Kept::default();
        for n in 0..9000 {
            let answer = keep(&Ok(session("8 bytes "))).expect("short enough");
            kept.put(
                question(&n.to_string()),
                answer,
                Duration::ZERO,
                A_WHILE,
                MAX_KEPT_BYTES_IN_ALL,
            );
        }
        assert!(
            (1900..2100).contains(&kept.answers.len()),
            "{}",
            kept.answers.len()
        );
        let sum: usize = kept.answers.values().map(|(_, answer)| size(answer)).sum();
        assert_eq!(kept.bytes, sum);
        assert!(sum <= MAX_KEPT_BYTES_IN_ALL);
        assert!(
            keep(&Ok(session("9 bytes. "))).is_none(),
            "longer than 8 KiB"
        );
    }

    #[test]
    fn kept_session_is_parsed_as_it_was_and_one_with_a_duplicate_member_is_not_kept() {
        let json =
            r#"{"id":9007199254740993,"name":"Zoë \u0000","list":[1,null,true,1.5,{"a":{}}]}"#;
        let session = |json: &str| Session {
            attributes: Value::parse(json.as_bytes()).unwrap(),
            expires_at: Some(7),
        };
        let Some(Ok(kept)) = keep(&Ok(session(json))) else {
            panic!("kept")
        };
        let parsed = kept.parse().unwrap();
        assert_eq!(
            (parsed.attributes, parsed.expires_at),
            (session(json).attributes, Some(7))
        );
        assert!(keep(&Ok(session(r#"{"id":1,"a":{"b":1,"b":2}}"#))).is_none());
    }

    #[tokio::test]
    async fn failing_calls_of_one_caller_do_not_decide_for_another() {
        let (lookups, _) = lookups();
        for n in 0..100 {
            let stranger = lookups
                .ask(question(&n.to_string()), || async { down() })
                .await;
            assert_eq!(word(stranger), Err("timeout"));
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
