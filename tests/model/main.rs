//! The service's own concurrent code, run by shuttle in thousands of orders: nobody waits for ever, nothing
//! is fetched or asked twice, no change is missed, nobody sees half of anything.
//!
//! The files under test are compiled a second time, into this program, with a `crate::sync` that gives other
//! tasks a turn at every step. Back ends and files are stand-ins that do the same. It is no test harness's
//! program, since those files bring tests of their own, which need the real `sync`.

#![allow(
    dead_code,
    unused_imports,
    reason = "each file under test is here whole, its tests' helpers too"
)]
#![allow(
    unfulfilled_lint_expectations,
    reason = "they are about the real `sync`"
)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::pedantic,
    reason = "a model says what it expects by panicking"
)]

mod files;
mod jwks;
mod lookup;
mod reload;
mod sync;
mod world;

pub use rollout_token::clock;
pub use rollout_token::json;
use shuttle::scheduler::{PctScheduler, RandomScheduler};
use shuttle::{Config, Runner};
pub use world::{config, session, settings};

/// In how many orders each model runs.
const ORDERS: usize = 2_000;

/// A name, what runs, and whether it needs a fair scheduler: a time-out that may strike at any moment is a
/// loop that only the turn of another task ends.
type Model = (&'static str, fn(), Schedule);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Schedule {
    /// At random, and also with few changes of turn at the worst places.
    Any,
    Fair,
}

fn main() {
    let models = [&jwks::MODELS[..], &lookup::MODELS, &reload::MODELS].concat();
    let wanted = std::env::args()
        .skip(1)
        .find(|argument| !argument.starts_with('-'))
        .unwrap_or_default();
    let (mut passed, mut failed) = (0, 0);
    for (name, model, schedule) in models {
        if !name.contains(&wanted) {
            continue;
        }
        let mut config = Config::new();
        // It warns of relaxed atomics: ours is a bound that may be a little off.
        config.silence_warnings = true;
        let outcome = std::panic::catch_unwind(|| {
            Runner::new(RandomScheduler::new(ORDERS), config.clone()).run(model);
            if schedule == Schedule::Any {
                Runner::new(PctScheduler::new(3, ORDERS), config).run(model);
            }
        });
        println!(
            "model {name} ... {}",
            if outcome.is_ok() { "ok" } else { "FAILED" }
        );
        *if outcome.is_ok() {
            &mut passed
        } else {
            &mut failed
        } += 1;
    }
    println!("{passed} passed, {failed} failed");
    std::process::exit(i32::from(failed > 0));
}
