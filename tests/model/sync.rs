//! Replaces `src/sync.rs` in a model: at every step that other tasks can observe, another task may run. Channels and
//! semaphores are the real types.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use arc_swap::Guard;
pub use shuttle::future::spawn;
use shuttle::rand::{Rng, thread_rng};
use shuttle::sync::atomic::AtomicUsize;
pub use shuttle::sync::{Mutex, MutexGuard};
pub use tokio::sync::{Semaphore, mpsc};

/// Whether timeouts may expire. If so, they may expire at any moment.
static TIME_PASSES: AtomicBool = AtomicBool::new(false);

pub fn let_time_pass(passes: bool) {
    TIME_PASSES.store(passes, Ordering::SeqCst);
}

/// Lets another task run, as every use of a lock or an atomic does.
fn step() {
    AtomicUsize::new(0).load(Ordering::SeqCst);
}

#[derive(Debug)]
pub struct Elapsed;

pub async fn timeout<F: Future>(_: Duration, work: F) -> Result<F::Output, Elapsed> {
    if !TIME_PASSES.load(Ordering::SeqCst) {
        return Ok(work.await);
    }
    let mut work = pin!(work);
    std::future::poll_fn(|cx| match work.as_mut().poll(cx) {
        Poll::Ready(output) => Poll::Ready(Ok(output)),
        Poll::Pending if thread_rng().gen_bool(0.2) => Poll::Ready(Err(Elapsed)),
        Poll::Pending => {
            cx.waker().wake_by_ref();
            Poll::Pending
        }
    })
    .await
}

/// Runs `work` after other tasks have had a chance to run.
pub async fn spawn_blocking<T>(work: impl FnOnce() -> T) -> Result<T, Elapsed> {
    shuttle::future::yield_now().await;
    Ok(work())
}

pub async fn sleep(_: Duration) {
    shuttle::future::yield_now().await;
}

/// The real `ArcSwapOption`. Other tasks may run before each of its operations.
#[derive(Debug)]
pub struct ArcSwapOption<T>(arc_swap::ArcSwapOption<T>);

impl<T> ArcSwapOption<T> {
    pub const fn const_empty() -> Self {
        Self(arc_swap::ArcSwapOption::const_empty())
    }

    pub fn load(&self) -> Guard<Option<Arc<T>>> {
        step();
        self.0.load()
    }

    pub fn load_full(&self) -> Option<Arc<T>> {
        step();
        self.0.load_full()
    }

    pub fn store(&self, value: Option<Arc<T>>) {
        step();
        self.0.store(value);
    }
}

/// The real channel. Other tasks may run before each of its operations.
pub mod watch {
    pub use tokio::sync::watch::Receiver;

    use super::step;

    #[derive(Debug)]
    pub struct Sender<T>(tokio::sync::watch::Sender<T>);

    pub fn channel<T>(first: T) -> (Sender<T>, Receiver<T>) {
        let (sender, receiver) = tokio::sync::watch::channel(first);
        (Sender(sender), receiver)
    }

    impl<T> Sender<T> {
        pub fn new(first: T) -> Self {
            Self(tokio::sync::watch::Sender::new(first))
        }

        pub fn receiver_count(&self) -> usize {
            step();
            self.0.receiver_count()
        }

        pub fn subscribe(&self) -> Receiver<T> {
            step();
            self.0.subscribe()
        }

        pub fn send_modify(&self, modify: impl FnOnce(&mut T)) {
            step();
            self.0.send_modify(modify);
        }

        pub fn send_replace(&self, value: T) -> T {
            step();
            self.0.send_replace(value)
        }
    }
}
