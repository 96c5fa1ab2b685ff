//! Reloading the configuration on SIGHUP, or when a file that holds a secret changes.
//! A reload is all or nothing: what does not load changes nothing.

use std::path::PathBuf;
use std::sync::Arc;

use aws_lc_rs::digest::{Digest, SHA256, digest};
use tokio::sync::mpsc;

use crate::app::App;
use crate::config::{self, Sources};
use crate::extractors::{Context, Registry};

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
            let mut seen = self.watched();
            loop {
                let interval = self.app.live().settings.poll_interval;
                match tokio::time::timeout(interval, asked.recv()).await {
                    Ok(Some(())) => self.reload("signal"),
                    Ok(None) => return,
                    Err(_) if self.watched() == seen => continue,
                    Err(_) => self.reload("secret file"),
                }
                seen = self.watched();
            }
        });
        ask
    }

    fn reload(&self, trigger: &'static str) {
        match config::load(&self.sources, &self.registry, &self.context) {
            Ok(settings) => {
                let old = &self.app.live().settings.server;
                if (old.listen, old.admin_listen) != (settings.server.listen, settings.server.admin_listen) {
                    tracing::warn!("server.listen and server.admin_listen change only with a restart");
                }
                settings.chain.start();
                self.app.replace(settings);
                self.app.metrics.reloaded("ok");
                tracing::info!(trigger, "config_reloaded");
            }
            Err(problems) => {
                self.app.metrics.reloaded("error");
                tracing::error!(trigger, problems = %problems, "config_reload_failed");
            }
        }
    }

    /// The content of every watched file, as a hash; `None` for a file that cannot be read.
    fn watched(&self) -> Vec<(PathBuf, Option<Vec<u8>>)> {
        let hash = |path: &PathBuf| -> Option<Digest> { Some(digest(&SHA256, &std::fs::read(path).ok()?)) };
        let live = self.app.live();
        let files = live.settings.secret_files.iter();
        files.map(|path| (path.clone(), hash(path).map(|hash| hash.as_ref().to_vec()))).collect()
    }
}
