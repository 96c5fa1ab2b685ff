//! Handles the process's signals, and records whether a drain has begun. `server::run` performs the drain.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// A handle that begins a drain, checks whether it has begun, or waits until it has begun.
#[derive(Clone, Debug, Default)]
pub struct Drain(CancellationToken);

impl Drain {
    /// Begins the drain. A second call changes nothing.
    pub fn begin(&self) {
        self.0.cancel();
    }

    /// Whether [`Self::begin`] was called. Connections are still accepted for `server.drain_delay` after the call.
    pub fn is_draining(&self) -> bool {
        self.0.is_cancelled()
    }

    /// Returns once the drain has begun.
    pub async fn begun(&self) {
        self.0.cancelled().await;
    }
}

/// The signal handlers. Once they are installed, none of these signals kills the process.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    /// SIGQUIT, which `Ctrl-\` in a terminal sends. Stops the process like SIGTERM and SIGINT, without a core dump.
    quit: Signal,
    hangup: Signal,
}

impl Signals {
    /// # Errors
    /// If the kernel refuses a handler, which does not happen for these signals.
    pub fn install() -> io::Result<Self> {
        // SIGUSR1 and SIGUSR2 are ignored, because their default action kills the process. The handler stays installed
        // after the stream is dropped. Rust's runtime already ignores SIGPIPE, and the kernel ignores SIGWINCH.
        let _ = signal(SignalKind::user_defined1())?;
        let _ = signal(SignalKind::user_defined2())?;
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Handles signals: SIGHUP calls `reload`, and the first stop signal begins the drain. Returns at the second stop
    /// signal, so that the process ends at once.
    pub async fn obey(mut self, drain: Drain, reload: impl Fn()) {
        let mut stopping = false;
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
            if stopping {
                warn!("stopped by a second signal");
                return;
            }
            info!("stop signal received: draining");
            stopping = true;
            drain.begin();
        }
    }
}
