//! The service with an additional extractor that panics on request, with a secret in the panic message. No
//! configuration makes the release binary panic, so the attacks in `lifecycle.rs` and `logs.rs` start this binary.

#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "the purpose of this program is to panic"
)]

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use axum::http::request::Parts;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use rollout_token::Cli;
use rollout_token::Registry;
use rollout_token::config::{Problems, Section};
use rollout_token::session::Kind;
use rollout_token::session::backends::Context;
use rollout_token::session::reason::Reason;
use rollout_token::session::types::{ExtractError, Extracted, Session, SessionExtractor};

/// The same secret as in `sentinels.rs`; the attacks search all output for it.
const SESSION_SECRET: &str = "session+secret/sentinel:Kd81Qw-0123456789-0123456789";

struct Panics {
    lock: Mutex<u32>,
}

impl fmt::Debug for Panics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Panics").finish_non_exhaustive()
    }
}

impl SessionExtractor for Panics {
    fn extract<'a>(&'a self, request: &'a Parts) -> BoxFuture<'a, Extracted> {
        let how = request
            .headers
            .get("x-panic")
            .and_then(|how| how.to_str().ok())
            .unwrap_or_default();
        assert_ne!(how, "at-once", "{SESSION_SECRET}");
        async move {
            tokio::task::yield_now().await;
            assert_ne!(how, "later", "{SESSION_SECRET}");
            if how == "in-a-task" {
                let task = tokio::spawn(async { panic!("{SESSION_SECRET}") });
                task.await
                    .map_err(|_| ExtractError::unavailable(Reason::Custom("task_panicked")))?;
            }
            let count = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
            assert_ne!(how, "locked", "{SESSION_SECRET}");
            drop(count);
            Ok(Some(Session::of_subject("ann")))
        }
        .boxed()
    }
}

fn build(section: &Section<'_>, _: &Context) -> Result<Arc<dyn SessionExtractor>, Problems> {
    let mut problems = Problems::default();
    let _: Empty = section.read(&mut problems);
    problems.or(Arc::new(Panics {
        lock: Mutex::new(0),
    }))
}

#[derive(Default, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Empty {}

fn main() {
    Cli::parse()
        .run(&Registry::builtin().with("panics", Kind::new(build)))
        .expect("a service");
}
