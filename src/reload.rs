//! Reloading the configuration on SIGHUP, or when a file that holds a secret changes.
//! A reload is all or nothing: what does not load changes nothing.

use std::sync::Arc;
use std::time::Duration;

use crate::app::App;
use crate::config::{self, Problems, Settings, Sources};
use crate::extractors::{Chain, Context, Registry};
use crate::sync::{mpsc, sleep, spawn, timeout};

/// How long the extractors of a new configuration may take to fetch what they need.
const WARM_UP: Duration = Duration::from_secs(5);
const WARM_UP_STEP: Duration = Duration::from_millis(50);

/// How often files are read again that changed while they were read.
const MAX_READS: usize = 5;

/// Loads the configuration again from where it came.
#[derive(Debug)]
pub struct Reloader {
    app: Arc<App>,
    sources: Sources,
    registry: Registry,
    context: Context,
}

impl Reloader {
    pub fn new(app: Arc<App>, sources: Sources, registry: Registry, context: Context) -> Self {
        Self { app, sources, registry, context }
    }

    /// Starts reloading in the background; a message asks for it at once.
    pub fn spawn(self) -> mpsc::Sender<()> {
        let (ask, mut asked) = mpsc::channel(1);
        let this = Arc::new(self);
        spawn(async move {
            loop {
                let interval = this.app.live().settings.poll_interval;
                let trigger = match timeout(interval, asked.recv()).await {
                    Ok(Some(())) => "signal",
                    Ok(None) => return,
                    // After a failure the files still differ from those in force, so it is tried again.
                    Err(_) if this.app.live().settings.are_outdated() => "file",
                    Err(_) => continue,
                };
                // In a task of its own: a bug in it must not be the end of all reloads.
                if spawn(this.clone().reload(trigger)).await.is_err() {
                    this.app.metrics.reloaded("error");
                }
            }
        });
        ask
    }

    async fn reload(self: Arc<Self>, trigger: &'static str) {
        match self.load().await {
            Ok(settings) => {
                self.app.replace(settings);
                self.app.metrics.reloaded("ok");
                tracing::info!(trigger, "config_reloaded");
            }
            Err(problems) => {
                self.app.metrics.reloaded("error");
                tracing::error!(trigger, %problems, "config_reload_failed");
            }
        }
    }

    /// The new settings, with extractors that work if those in force do: an identity provider that is
    /// down must not turn a reload into an outage.
    async fn load(&self) -> Result<Settings, Problems> {
        let settings = self.read()?;
        let live = self.app.live();
        if live.settings.server != settings.server || live.settings.log != settings.log {
            tracing::warn!("[server] and [log] have changed: not all of it is in force before a restart");
        }
        settings.log_warnings();
        settings.chain.start();
        let in_time = timeout(WARM_UP, until_ready(&settings.chain)).await;
        if in_time.is_err() && live.settings.chain.is_ready() {
            let text = "an extractor could not fetch what it needs in 5s, while those in force can";
            return Err(Problems::of("session.extractors", text));
        }
        Ok(settings)
    }

    /// The settings as the files say them together. Files are read one after the other and may be swapped
    /// meanwhile: half of the old ones and half of the new would be neither.
    fn read(&self) -> Result<Settings, Problems> {
        for _ in 0..MAX_READS {
            let settings = config::load(&self.sources, &self.registry, &self.context)?;
            if !settings.are_outdated() {
                return Ok(settings);
            }
        }
        Err(Problems::of("reload", "the files of secrets change faster than they can be read"))
    }
}

async fn until_ready(chain: &Chain) {
    while !chain.is_ready() {
        sleep(WARM_UP_STEP).await;
    }
}
