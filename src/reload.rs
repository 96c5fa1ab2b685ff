//! Reloading the configuration on SIGHUP, or when a file that holds a secret changes.
//! A reload is all or nothing: what does not load changes nothing.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{Digest, SHA256, digest};
use tokio::sync::mpsc;

use crate::app::App;
use crate::config::{self, Problems, Settings, Sources};
use crate::extractors::{Chain, Context, Registry};

/// How long the extractors of a new configuration may take to fetch what they need.
const WARM_UP: Duration = Duration::from_secs(5);
const WARM_UP_STEP: Duration = Duration::from_millis(50);

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
    ///
    /// Files are watched by their content: it is the same however it got there, by a write, a rename
    /// or the swap of a symbolic link as Kubernetes does it.
    pub fn spawn(self) -> mpsc::Sender<()> {
        let (ask, mut asked) = mpsc::channel(1);
        tokio::spawn(async move {
            let mut loaded = self.watched();
            loop {
                let interval = self.app.live().settings.poll_interval;
                let asked = tokio::time::timeout(interval, asked.recv()).await;
                // Looked at before the files are read: what changes meanwhile is seen the next time.
                let seen = self.watched();
                let trigger = match asked {
                    Ok(Some(())) => "signal",
                    Ok(None) => return,
                    Err(_) if seen == loaded => continue,
                    Err(_) => "file",
                };
                // After a failure the files still differ from those in force, so it is tried again.
                if self.reload(trigger).await {
                    loaded = seen;
                }
            }
        });
        ask
    }

    /// Whether the new configuration is in force.
    async fn reload(&self, trigger: &'static str) -> bool {
        match self.load().await {
            Ok(settings) => {
                self.app.replace(settings);
                self.app.metrics.reloaded("ok");
                tracing::info!(trigger, "config_reloaded");
                true
            }
            Err(problems) => {
                self.app.metrics.reloaded("error");
                tracing::error!(trigger, %problems, "config_reload_failed");
                false
            }
        }
    }

    /// The new settings, with extractors that work if those in force do: an identity provider that is
    /// down must not turn a reload into an outage.
    async fn load(&self) -> Result<Settings, Problems> {
        let settings = config::load(&self.sources, &self.registry, &self.context)?;
        let live = self.app.live();
        if live.settings.server != settings.server || live.settings.log != settings.log {
            tracing::warn!("[server] and [log] have changed: not all of it is in force before a restart");
        }
        for warning in &settings.warnings {
            tracing::warn!("{warning}");
        }
        settings.chain.start();
        let in_time = tokio::time::timeout(WARM_UP, until_ready(&settings.chain)).await;
        if in_time.is_err() && live.settings.chain.is_ready() {
            let text = "an extractor could not fetch what it needs in 5s, while those in force can";
            return Err(Problems::of("session.extractors", text));
        }
        Ok(settings)
    }

    /// The content of every watched file, as a hash; `None` for a file that cannot be read.
    fn watched(&self) -> Vec<(PathBuf, Option<Vec<u8>>)> {
        let hash = |path: &PathBuf| -> Option<Digest> { Some(digest(&SHA256, &std::fs::read(path).ok()?)) };
        let live = self.app.live();
        let files = live.settings.watched_files.iter();
        files.map(|path| (path.clone(), hash(path).map(|hash| hash.as_ref().to_vec()))).collect()
    }
}

async fn until_ready(chain: &Chain) {
    while !chain.is_ready() {
        tokio::time::sleep(WARM_UP_STEP).await;
    }
}
