//! The synchronization primitives of the files that are model-checked. `tests/model` compiles
//! `session/backends/jwks.rs`, `session/backends/lookup.rs` and `settings/reload.rs` a second time, with another module
//! of this name, which runs their tasks in thousands of different orders.

pub(crate) use std::sync::{Mutex, MutexGuard};

pub(crate) use arc_swap::ArcSwapOption;
pub(crate) use tokio::sync::{Semaphore, mpsc, watch};
pub(crate) use tokio::task::spawn_blocking;
pub(crate) use tokio::time::{sleep, timeout};
use tracing::{Instrument, Span};

/// Spawns a task in the current span, so that its log lines have the id of the request that spawned it.
pub(crate) fn spawn<F>(work: F) -> tokio::task::JoinHandle<F::Output>
where
    F: Future<Output: Send + 'static> + Send + 'static,
{
    tokio::spawn(work.instrument(Span::current()))
}
