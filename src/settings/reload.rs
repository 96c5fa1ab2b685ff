//! `[reload]`, and reloading the configuration on SIGHUP or when one of its files changes. A reload applies all keys
//! except those that are read at start only. If the configuration has a problem, or a new extractor does not become
//! ready, it applies none.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::{HumanDuration, Problems, Sources};
use crate::session::backends::Context;
use crate::session::chain::Chain;
use crate::session::registry::Registry;
use crate::settings::{self, Settings};
use crate::sync::{Semaphore, mpsc, sleep, spawn, spawn_blocking, timeout};

/// How long the extractors of a new configuration may take to fetch what they depend on, such as a provider's keys.
const WARM_UP: Duration = Duration::from_secs(5);
const WARM_UP_STEP: Duration = Duration::from_millis(50);

/// How long files must stay unchanged before they are used, because a write may be in progress.
const SETTLE: Duration = Duration::from_secs(1);

/// The maximum number of times that the files are read if they keep changing during a reload.
const MAX_READS: usize = 10;

/// How long reading the files may take. A network file system may hang forever.
const READ_TIMEOUT: Duration = Duration::from_secs(10);

/// `[reload]`
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ReloadConfig {
    /// How often the files are checked.
    pub poll_interval: HumanDuration,
}

impl Default for ReloadConfig {
    fn default() -> Self {
        Self {
            poll_interval: HumanDuration::secs(10),
        }
    }
}

/// A service whose settings can be replaced while it runs.
pub trait Reloadable: fmt::Debug + Send + Sync + 'static {
    /// The current settings.
    fn settings(&self) -> Arc<Settings>;

    /// Uses `settings` for all requests that begin from now on.
    fn replace(&self, settings: Settings);
}

/// Loads the configuration again from its sources.
#[derive(Debug)]
pub struct Reloader {
    app: Arc<dyn Reloadable>,
    sources: Sources,
    registry: Registry,
    context: Context,
    /// A single permit, for the thread that reads files.
    reading: Arc<Semaphore>,
}

impl Reloader {
    pub fn new(
        app: Arc<dyn Reloadable>,
        sources: Sources,
        registry: Registry,
        context: Context,
    ) -> Self {
        Self {
            app,
            sources,
            registry,
            context,
            reading: Arc::new(Semaphore::new(1)),
        }
    }

    /// Starts the task that reloads. A message on the returned channel requests a reload at once.
    pub fn spawn(self) -> mpsc::Sender<()> {
        let (ask, mut asked) = mpsc::channel(1);
        let this = Arc::new(self);
        spawn(async move {
            loop {
                let interval = this.app.settings().reload.poll_interval.0;
                let triggered = match timeout(interval, asked.recv()).await {
                    Ok(Some(())) => spawn(this.clone().reload("signal")),
                    Ok(None) => return,
                    Err(_) => spawn(this.clone().reload_if_outdated()),
                };
                // Each reload runs in its own task, so that a panic does not prevent later reloads.
                if triggered.await.is_err() {
                    this.context.metrics.reloaded("error");
                }
            }
        });
        ask
    }

    /// Reloads if a file has changed. After a failed reload, the files still differ from those in use, so the reload is
    /// tried again.
    async fn reload_if_outdated(self: Arc<Self>) {
        match self
            .blocking(|this| this.app.settings().are_outdated())
            .await
        {
            Ok(true) => self.reload("file").await,
            Ok(false) => {}
            Err(problems) => self.failed("file", &problems),
        }
    }

    async fn reload(self: Arc<Self>, trigger: &'static str) {
        match self.load().await {
            Ok(settings) => {
                settings.log_notes();
                let secret_fingerprint = settings.secret_fingerprint();
                self.app.replace(settings);
                self.context.metrics.reloaded("ok");
                tracing::info!(trigger, secret_fingerprint, "config_reloaded");
            }
            Err(problems) => self.failed(trigger, &problems),
        }
    }

    fn failed(&self, trigger: &'static str, problems: &Problems) {
        self.context.metrics.reloaded("error");
        let problems = problems.to_string();
        tracing::error!(
            trigger,
            problems = problems.trim_end(),
            "config_reload_failed"
        );
    }

    /// Loads the new settings, and keeps the current extractor of each section whose inputs (`BuiltFrom`) did not
    /// change. If the current extractors are ready, the new extractors must be ready too, so that a provider that is
    /// down does not turn a reload into an outage. If the client id or secret has changed, the new settings are used
    /// in any case, because Rollout may no longer accept tokens with the old client id and signature.
    async fn load(self: &Arc<Self>) -> Result<Settings, Problems> {
        let mut settings = self.read_settled().await?;
        let current = self.app.settings();
        let changed = settings.keep_restart_keys(&current);
        if !changed.is_empty() {
            tracing::warn!(
                keys = changed.join(", "),
                "these keys have changed, and take effect only after a restart"
            );
        }
        let new = settings.keep_unchanged(&current);
        new.start();
        let in_time = timeout(WARM_UP, until_ready(&new)).await;
        let same_client = current.client == settings.client;
        if in_time.is_err() && same_client && current.chain.is_ready() {
            let text = "a new extractor could not fetch the data that it needs within 5s; the current extractors are ready, so they stay in use";
            return Err(Problems::of("session.extractors", text));
        }
        Ok(settings)
    }

    /// Reads the files until two reads, [`SETTLE`] apart, give the same result, which may be a list of problems. During
    /// one read, a file may be half written. Files are also read one after the other, so one read may return a mix of
    /// old and new files.
    async fn read_settled(self: &Arc<Self>) -> Result<Settings, Problems> {
        let mut last = None;
        for _ in 0..MAX_READS {
            let read = self.blocking(Self::read).await?;
            if let Err(problems) = &read
                && last.as_ref() == Some(problems)
            {
                return read;
            }
            sleep(SETTLE).await;
            match read {
                Ok(settings) => {
                    let check = move |_: &Self| (!settings.are_outdated()).then_some(settings);
                    if let Some(settled) = self.blocking(check).await? {
                        return Ok(settled);
                    }
                    last = None;
                }
                Err(problems) => last = Some(problems),
            }
        }
        Err(Problems::of(
            "reload",
            "the files change faster than they can be read: replace each file in one step",
        ))
    }

    fn read(&self) -> Result<Settings, Problems> {
        settings::load(&self.sources, &self.registry, &self.context)
    }

    /// Runs `work`, which reads files, outside the async workers. A file system that does not answer blocks only one
    /// thread, because the next call waits for that thread. If the work takes longer than [`READ_TIMEOUT`], the result
    /// is a problem.
    async fn blocking<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> T + Send + 'static,
    ) -> Result<T, Problems> {
        let this = self.clone();
        let done = async move {
            let permit = this.reading.clone().acquire_owned().await;
            spawn_blocking(move || {
                let _permit = permit;
                work(&this)
            })
            .await
        };
        match timeout(READ_TIMEOUT, done).await {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(_)) => Err(Problems::of(
                "reload",
                "reading the configuration panicked: the log contains the location of the panic",
            )),
            Err(_) => Err(Problems::of(
                "reload",
                "the files cannot be read within 10s: check their file system",
            )),
        }
    }
}

async fn until_ready(chain: &Chain) {
    while !chain.is_ready() {
        sleep(WARM_UP_STEP).await;
    }
}
