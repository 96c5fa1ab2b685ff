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
fn same_bytes_split_into_different_parts_are_different_questions() {
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
async fn identical_questions_share_one_call_even_if_the_first_request_is_dropped() {
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
