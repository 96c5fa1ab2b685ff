//! What threads and tasks wait for each other with, in the places whose order is checked by a model:
//! `tests/model` compiles `shared/jwks.rs`, `shared/lookup.rs`, `reload.rs` and `telemetry/writer.rs` a
//! second time, against a module of this name that runs them in every order it can find.

pub(crate) use std::sync::{Condvar, Mutex, MutexGuard};
pub(crate) use std::thread;

pub(crate) use arc_swap::ArcSwapOption;
pub(crate) use tokio::sync::{Semaphore, mpsc, watch};
pub(crate) use tokio::task::spawn_blocking;
pub(crate) use tokio::time::{sleep, timeout};

/// A task of its own, yet a part of the trace in which it began.
pub(crate) fn spawn<F>(work: F) -> tokio::task::JoinHandle<F::Output>
where
    F: Future<Output: Send + 'static> + Send + 'static,
{
    tokio::spawn(crate::telemetry::trace::carry(work))
}
