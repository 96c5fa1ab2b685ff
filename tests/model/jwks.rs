//! Models of a provider's key set: at most one fetch is in flight, and every request that waits for it is notified when
//! it ends.

use std::sync::Arc;
use std::time::Duration;

use shuttle::future::{block_on, spawn, yield_now};

use crate::Model;
use crate::Schedule;
use crate::clock::{Clock, ManualClock};
use crate::files::jwks::{FetchedKeys, Found};
use crate::session::backends::Context;
use crate::session::backends::jwks_source::Source;
use crate::session::backends::waiting::Waiting;
use crate::session::types::{ExtractError, Readiness};
use crate::sync;

pub const MODELS: [Model; 5] = [
    (
        "jwks_requests_at_a_cold_start_share_one_fetch",
        cold_start,
        Schedule::Any,
    ),
    (
        "jwks_rotated_key_is_fetched_once_and_old_keys_stay_usable",
        rotation,
        Schedule::Any,
    ),
    (
        "jwks_failed_fetch_fails_all_waiting_requests_and_is_repeated_after_the_cooldown",
        failure,
        Schedule::Any,
    ),
    (
        "jwks_fetch_continues_when_its_first_request_is_dropped",
        abandoned,
        Schedule::Any,
    ),
    (
        "jwks_failed_first_fetch_is_repeated_without_a_request",
        repeated,
        Schedule::Fair,
    ),
];

const REQUESTS: usize = 3;

/// A key set with the P-256 key `old`; [`BOTH`] also contains `new`. Their points are from RFC 7515, appendix A.3, and
/// RFC 7517, appendix A.1.
const OLD: &str = r#"{"keys":[{"kty":"EC","crv":"P-256","kid":"old",
    "x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}]}"#;
const BOTH: &str = r#"{"keys":[{"kty":"EC","crv":"P-256","kid":"old",
    "x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"},
    {"kty":"EC","crv":"P-256","kid":"new",
    "x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4","y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"}]}"#;

struct World {
    keys: Arc<FetchedKeys>,
    context: Context,
    clock: Arc<ManualClock>,
}

fn world(body: Option<&'static str>) -> World {
    sync::let_time_pass(false);
    let clock = ManualClock::at(0);
    let context = Context::new(Clock::new(clock.clone()), Arc::default());
    context.http.publish(body);
    let url = "https://idp.example/jwks".parse().unwrap();
    let waiting = Waiting::new(Some(REQUESTS), &Arc::default());
    World {
        keys: Arc::new(FetchedKeys::new(
            "jwt",
            Source::Jwks(url),
            &context,
            waiting,
        )),
        context,
        clock,
    }
}

/// Looks up the key for a token with this `kid` in the same way as the extractor.
async fn verify(keys: Arc<FetchedKeys>, kid: &'static str) -> Result<(), ExtractError> {
    let keys = match keys.get(Some(kid))? {
        Found::Keys(keys) => keys,
        Found::Wait(wait) => wait.keys(Some(kid)).await?,
    };
    assert!(keys.knows(kid));
    Ok(())
}

impl World {
    /// Makes [`REQUESTS`] concurrent requests, whose tokens use these `kid`s in turn.
    fn requests(&self, kids: &[&'static str]) -> Vec<Result<(), ExtractError>> {
        let kids = kids.iter().cycle().take(REQUESTS);
        let tasks: Vec<_> = kids
            .map(|kid| spawn(verify(self.keys.clone(), kid)))
            .collect();
        tasks
            .into_iter()
            .map(|task| block_on(task).unwrap())
            .collect()
    }
}

fn cold_start() {
    let world = world(Some(OLD));
    world.keys.start();
    for answer in world.requests(&["old"]) {
        answer.expect("keys");
    }
    assert_eq!(world.context.http.calls(), 1);
}

fn rotation() {
    let world = world(Some(OLD));
    block_on(verify(world.keys.clone(), "old")).expect("keys");
    world.context.http.publish(Some(BOTH));
    world.clock.advance(Duration::from_secs(30));
    for answer in world.requests(&["new", "old"]) {
        answer.expect("keys");
    }
    assert_eq!(world.context.http.calls(), 2);
}

fn failure() {
    let world = world(None);
    for answer in world.requests(&["old"]) {
        assert!(
            matches!(answer, Err(ExtractError::Unavailable(_))),
            "{answer:?}"
        );
    }
    assert_eq!(world.context.http.calls(), 1);
    world.context.http.publish(Some(OLD));
    world.clock.advance(Duration::from_secs(1));
    for answer in world.requests(&["old"]) {
        answer.expect("keys");
    }
    assert_eq!(world.context.http.calls(), 2);
}

fn repeated() {
    let world = world(None);
    world.keys.start();
    block_on(async {
        while world.context.http.calls() == 0 {
            yield_now().await;
        }
        world.context.http.publish(Some(OLD));
        while world.keys.readiness() != Readiness::Ready {
            world.clock.advance(Duration::from_secs(1));
            yield_now().await;
        }
    });
}

fn abandoned() {
    let world = world(Some(OLD));
    let first = spawn(verify(world.keys.clone(), "old"));
    let other = spawn(verify(world.keys.clone(), "old"));
    first.abort();
    block_on(other).unwrap().expect("keys");
    assert!(world.context.http.calls() <= 1);
}
