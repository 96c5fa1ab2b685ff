//! What threads and tasks wait for each other with, in the places whose order is checked by a model:
//! `tests/model` compiles `session/backends/jwks.rs`, `session/backends/lookup.rs` and `settings/reload.rs` a
//! second time, against a module of this name that runs them in every order it can find.

pub(crate) use std::sync::{Mutex, MutexGuard};

pub(crate) use arc_swap::ArcSwapOption;
pub(crate) use tokio::sync::{Semaphore, mpsc, watch};
pub(crate) use tokio::task::spawn_blocking;
pub(crate) use tokio::time::{sleep, timeout};
use tracing::{Instrument, Span};

/// A task of its own that is still part of the request that spawned it: its log lines have the request's id.
pub(crate) fn spawn<F>(work: F) -> tokio::task::JoinHandle<F::Output>
where
    F: Future<Output: Send + 'static> + Send + 'static,
{
    tokio::spawn(work.instrument(Span::current()))
}
