//! The wish to stop, and the signals that bring it.
//! What happens then is the story in `server::run`.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;
use tracing::{info, warn};

/// A handle by which anybody can ask the service to stop, or see that it was asked.
#[derive(Clone, Debug, Default)]
pub struct Drain(Arc<Wish>);

/// Every request looks at it, so it takes no lock.
#[derive(Debug, Default)]
struct Wish {
    has_begun: AtomicBool,
    told: Notify,
}

impl Drain {
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks the service to stop, gently. Asking again changes nothing.
    pub fn begin(&self) {
        self.0.has_begun.store(true, Ordering::Release);
        self.0.told.notify_waiters();
    }

    /// Whether to tell balancers and clients to go elsewhere: true from the moment of `begin`, which
    /// is `server.drain_delay` before the last connection is accepted.
    pub fn is_draining(&self) -> bool {
        self.0.has_begun.load(Ordering::Acquire)
    }

    /// Returns once the service was asked to stop.
    pub async fn begun(&self) {
        // It hears of what comes after this line, and whatever came before is there to be seen.
        let told = self.0.told.notified();
        if !self.is_draining() {
            told.await;
        }
    }
}

/// The signals that the process understands. From their installation on, none of them kills it.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    /// A shell's `Ctrl-\`: stops like the other two. There is no core to dump.
    quit: Signal,
    hangup: Signal,
}

impl Signals {
    /// # Errors
    /// The kernel's, which does not refuse these signals in practice.
    pub fn install() -> io::Result<Self> {
        // Nothing is done on these, but their default is to kill, and a handler outlives its stream.
        // SIGPIPE is ignored by Rust's runtime, SIGWINCH by the kernel.
        let _ = signal(SignalKind::user_defined1())?;
        let _ = signal(SignalKind::user_defined2())?;
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Obeys signals: the first that asks to stop begins the drain, SIGHUP calls `reload`. Returns at the
    /// second that asks to stop: whoever sent it wants the end at once.
    pub async fn obey(mut self, drain: Drain, reload: impl Fn()) {
        let mut asked = false;
        loop {
            tokio::select! {
                _ = self.hangup.recv() => {
                    reload();
                    continue;
                }
                _ = self.terminate.recv() => {}
                _ = self.interrupt.recv() => {}
                _ = self.quit.recv() => {}
            }
            if asked {
                warn!("stopped by a second signal");
                return;
            }
            info!("asked to stop: draining");
            asked = true;
            drain.begin();
        }
    }
}
