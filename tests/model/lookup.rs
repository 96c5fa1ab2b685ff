//! Models of backend look-ups: identical look-ups share a call, and every request that waits for it is notified when it
//! ends.

use std::sync::Arc;
use std::time::Duration;

use shuttle::future::{block_on, spawn, yield_now};
use shuttle::sync::atomic::{AtomicUsize, Ordering};

use crate::Model;
use crate::Schedule;
use crate::clock::{Clock, ManualClock};
use crate::files::lookup::{LookupOutcome, Lookups, Question, Verdict};
use crate::session::backends::Context;
use crate::session::backends::waiting::Waiting;
use crate::session::reason::Reason;
use crate::session::types::{ExtractError, Session};
use crate::sync;

pub const MODELS: [Model; 5] = [
    (
        "lookup_identical_questions_share_a_call",
        shared,
        Schedule::Any,
    ),
    (
        "lookup_cached_answer_needs_no_second_call",
        kept,
        Schedule::Any,
    ),
    (
        "lookup_failed_call_fails_all_waiting_requests",
        down,
        Schedule::Any,
    ),
    (
        "lookup_frees_the_waiting_places_of_finished_and_dropped_requests",
        places,
        Schedule::Any,
    ),
    (
        "lookup_continues_when_its_first_request_is_dropped",
        abandoned,
        Schedule::Any,
    ),
];

/// The maximum number of requests that may wait for the backend at a time.
const MAX_WAITING: usize = 3;

#[derive(Default)]
struct Backend {
    calls: AtomicUsize,
    under_way: AtomicUsize,
}

struct World {
    lookups: Arc<Lookups>,
    backend: Arc<Backend>,
}

fn world() -> World {
    sync::let_time_pass(false);
    let context = Context::new(Clock::new(ManualClock::at(0)), Arc::default());
    let waiting = Waiting::new(Some(MAX_WAITING), &Arc::default());
    World {
        lookups: Arc::new(Lookups::new("web", &context, waiting)),
        backend: Arc::default(),
    }
}

impl World {
    /// Makes a request, to which the backend responds with this verdict. All requests have the same credential.
    fn ask(
        &self,
        verdict: fn() -> Verdict,
    ) -> impl Future<Output = LookupOutcome> + Send + 'static {
        let (lookups, backend) = (self.lookups.clone(), self.backend.clone());
        async move {
            let call = || async move {
                backend.calls.fetch_add(1, Ordering::SeqCst);
                assert_eq!(
                    backend.under_way.fetch_add(1, Ordering::SeqCst),
                    0,
                    "two calls at a time"
                );
                yield_now().await;
                backend.under_way.fetch_sub(1, Ordering::SeqCst);
                verdict()
            };
            lookups.ask(Question::new([&b"credential"[..]]), call).await
        }
    }

    fn ask_three_times(&self, verdict: fn() -> Verdict) -> Vec<LookupOutcome> {
        let tasks: Vec<_> = (0..3).map(|_| spawn(self.ask(verdict))).collect();
        tasks
            .into_iter()
            .map(|task| block_on(task).unwrap())
            .collect()
    }

    fn calls(&self) -> usize {
        self.backend.calls.load(Ordering::SeqCst)
    }
}

fn decided(keep_for: Duration) -> Verdict {
    Verdict {
        outcome: Ok(Session::of_subject("ann")),
        keep_for,
        cookies: None,
    }
}

fn shared() {
    let world = world();
    for answer in world.ask_three_times(|| decided(Duration::ZERO)) {
        answer.expect("a session");
    }
    assert!((1..=3).contains(&world.calls()));
}

fn kept() {
    let world = world();
    for answer in world.ask_three_times(|| decided(Duration::from_secs(5))) {
        answer.expect("a session");
    }
    assert_eq!(world.calls(), 1);
}

fn down() {
    let world = world();
    let down = || Verdict {
        outcome: Err(ExtractError::unavailable(Reason::Timeout)),
        keep_for: Duration::ZERO,
        cookies: None,
    };
    for answer in world.ask_three_times(down) {
        assert!(
            matches!(answer, Err(ExtractError::Unavailable(_))),
            "{answer:?}"
        );
    }
}

fn abandoned() {
    let world = world();
    let first = spawn(world.ask(|| decided(Duration::ZERO)));
    let other = spawn(world.ask(|| decided(Duration::ZERO)));
    first.abort();
    block_on(other).unwrap().expect("a session");
}

fn places() {
    let world = world();
    let first = spawn(world.ask(|| decided(Duration::ZERO)));
    let others: Vec<_> = (1..MAX_WAITING)
        .map(|_| spawn(world.ask(|| decided(Duration::ZERO))))
        .collect();
    first.abort();
    for other in others {
        block_on(other).unwrap().expect("a session");
    }
    let _ = block_on(first);
    for answer in world.ask_three_times(|| decided(Duration::ZERO)) {
        answer.expect("a session");
    }
}
