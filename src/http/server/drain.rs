//! The request to stop, and the signals that make it. What happens then is in `server::run`.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// A handle to begin a drain, and to see that it has begun.
#[derive(Clone, Debug, Default)]
pub struct Drain(CancellationToken);

impl Drain {
    pub fn new() -> Self {
        Self::default()
    }

    /// Begins the drain. A second call changes nothing.
    pub fn begin(&self) {
        self.0.cancel();
    }

    /// Whether balancers and clients are told to go elsewhere: true from the moment of [`Self::begin`], which
    /// is `server.drain_delay` before the last connection is accepted.
    pub fn is_draining(&self) -> bool {
        self.0.is_cancelled()
    }

    /// Returns once the drain has begun.
    pub async fn begun(&self) {
        self.0.cancelled().await;
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

    /// Obeys signals: SIGHUP calls `reload`, the first request to stop begins the drain. Returns at the second,
    /// which asks for the end at once.
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
