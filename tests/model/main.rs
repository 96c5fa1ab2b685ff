//! Model tests of the service's own concurrent code, which shuttle runs with thousands of task schedules: no request
//! waits forever, identical calls do not overlap, no change is missed, and no partial state is visible.
//!
//! The files under test are compiled a second time, into this program, with a `crate::sync` that lets other tasks run
//! at every step. The backends and configuration files are fakes that let other tasks run too. The program does not
//! use the test harness, because the files under test contain unit tests that need the real `sync`.

#![allow(
    dead_code,
    unused_imports,
    reason = "the files under test are included whole, with code that the models do not use"
)]
#![allow(
    unfulfilled_lint_expectations,
    reason = "the expected lints occur only with the real `sync`"
)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::pedantic,
    reason = "a model reports failures by panicking"
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

/// The number of schedules that each scheduler runs for each model.
const ORDERS: usize = 2_000;

/// The name of a model, its function, and the schedulers that it can run with.
type Model = (&'static str, fn(), Schedule);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Schedule {
    /// A random scheduler, and PCT (probabilistic concurrency testing), which switches tasks at a few random points.
    Any,
    /// Only the random scheduler: the model contains a loop that ends only when another task runs, such as a loop with
    /// a timeout that may expire at any moment.
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
        // Shuttle runs every atomic operation as `SeqCst`, and would warn about any other ordering.
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
