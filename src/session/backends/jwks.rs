//! The cache of the keys that an identity provider publishes. All requests share it, and at most one fetch per source
//! is in flight. `jwks_source.rs` defines where keys are published; `keys.rs` parses keys and selects those for a
//! token.

use std::fmt;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use reqwest::{Method, Request};
use url::Url;

use crate::session::backends::Context;
use crate::session::backends::health::BackendHealth;
use crate::session::backends::http::{Answer, CallLimits};
use crate::session::backends::jwks_source::{FetchError, Source, Step, read_jwks, ttl};
use crate::session::backends::keys::{KeySet, UnusableKey};
use crate::session::backends::waiting::{Waiting, WaitingPlace};
use crate::session::reason::Reason;
use crate::session::types::{BackendCall, BackendReport, ExtractError, Readiness};
use crate::sync::{ArcSwapOption, Mutex, MutexGuard, Semaphore, sleep, spawn, timeout, watch};

/// The limits of one fetch. Providers are reached over the internet, so the connect timeout is longer than for backends
/// in the same network.
pub(super) const LIMITS: CallLimits = CallLimits {
    connect: Duration::from_secs(2),
    total: Duration::from_secs(3),
    body: 512 * 1024,
    retry_closed: true,
};

/// How long keys are used after the end of their TTL if newer keys cannot be fetched.
const STALE_FOR: Duration = Duration::from_secs(60 * 60);

/// The minimum time between two fetches while the cache holds usable keys. Tokens with made-up key ids must not cause
/// more frequent requests to the provider.
const COOLDOWN: Duration = Duration::from_secs(30);

/// The minimum time between two fetches while the cache holds no usable keys. It is short, because no token can be
/// verified until a fetch succeeds.
pub(super) const EMPTY_COOLDOWN: Duration = Duration::from_secs(1);

/// The maximum number of unusable keys that are logged one by one.
const MAX_WARNINGS: usize = 10;

/// How often the background task of [`FetchedKeys::start`] checks whether the keys must be fetched again.
const REFRESH_INTERVAL: Duration = Duration::from_secs(1);

/// The result of a successful fetch.
#[derive(Debug)]
pub(super) struct Loaded {
    keys: Arc<KeySet>,
    pub(super) at: Duration,
    ttl: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Freshness {
    Fresh,
    /// Usable, but at most a fifth of the TTL is left: newer keys are fetched in the background.
    Due,
    /// Past the TTL by less than [`STALE_FOR`]: used until newer keys can be fetched.
    Stale,
    /// Older than the TTL plus [`STALE_FOR`]: no longer used.
    TooOld,
}

impl Loaded {
    fn freshness(&self, now: Duration) -> Freshness {
        let age = now.saturating_sub(self.at);
        if age < self.ttl * 4 / 5 {
            Freshness::Fresh
        } else if age < self.ttl {
            Freshness::Due
        } else if age < self.ttl + STALE_FOR {
            Freshness::Stale
        } else {
            Freshness::TooOld
        }
    }
}

/// The state that all caches of one extractor share.
#[derive(Clone, Debug)]
pub(super) struct Provider {
    extractor: Arc<str>,
    pub(super) context: Context,
    waiting: Arc<Waiting>,
    pub(super) health: Arc<BackendHealth>,
    /// Limits the concurrent fetches of an extractor with many caches; `None` if it has only one cache.
    permits: Option<Arc<Semaphore>>,
}

impl Provider {
    pub(super) fn new(
        extractor: &str,
        context: &Context,
        waiting: Arc<Waiting>,
        permits: Option<usize>,
    ) -> Self {
        Self {
            extractor: Arc::from(extractor),
            context: context.clone(),
            waiting,
            health: Arc::new(BackendHealth::new(extractor, &context.clock)),
            permits: permits.map(|permits| Arc::new(Semaphore::new(permits))),
        }
    }
}

/// The cache of one source's keys. At most one fetch is in flight.
pub(super) struct JwksCache {
    provider: Provider,
    source: Source,
    pub(super) loaded: ArcSwapOption<Loaded>,
    progress: Mutex<Progress>,
    /// The number of fetches that have ended. A request that waits for a fetch waits for this number to change.
    finished: watch::Sender<u64>,
}

#[derive(Debug, Default)]
pub(super) struct Progress {
    pub(super) fetching: bool,
    /// The time at which the last fetch ended, and its result.
    pub(super) last: Option<(Duration, Result<(), FetchError>)>,
    /// The keys of the last answer that were meant for signatures but cannot be used.
    unusable: Vec<UnusableKey>,
}

/// The keys for a token, or the fetch to wait for.
#[derive(Debug)]
pub enum Found {
    Keys(Arc<KeySet>),
    Wait(Wait),
}

/// A fetch in flight that may return the key for a token, and the request's place among the waiting requests, which
/// `max_waiting` limits.
#[derive(Debug)]
pub struct Wait {
    cache: Arc<JwksCache>,
    finished: watch::Receiver<u64>,
    _place: WaitingPlace,
}

impl Wait {
    /// Waits for the end of the fetch, and returns the keys to verify with.
    pub async fn keys(mut self, kid: Option<&str>) -> Result<Arc<KeySet>, ExtractError> {
        // This cannot fail: `self` keeps the cache alive, and the cache owns the sender.
        let _ = self.finished.changed().await;
        self.cache
            .suitable(kid)
            .ok_or_else(|| self.cache.no_key_error(kid))
    }
}

impl JwksCache {
    pub(super) fn new(provider: Provider, source: Source) -> Arc<Self> {
        Arc::new(Self {
            provider,
            source,
            loaded: ArcSwapOption::const_empty(),
            progress: Mutex::default(),
            finished: watch::Sender::new(0),
        })
    }

    fn now(&self) -> Duration {
        self.provider.context.clock.monotonic()
    }

    /// Returns the keys for a token with this `kid`, or the fetch to wait for. Starts a fetch if one is needed, but
    /// does not wait for it.
    pub(super) fn get(self: &Arc<Self>, kid: Option<&str>) -> Result<Found, ExtractError> {
        self.refresh();
        if let Some(keys) = self.suitable(kid) {
            return Ok(Found::Keys(keys));
        }
        match self.fetch() {
            Some(finished) => self.wait(finished).map(Found::Wait),
            // Another request's fetch may have ended since the check above.
            None => self
                .suitable(kid)
                .map(Found::Keys)
                .ok_or_else(|| self.no_key_error(kid)),
        }
    }

    /// Returns keys that were fetched after `old`, or the fetch to wait for. Called when no key in `old` verifies the
    /// signature, because a provider may replace a key and keep its id. Returns `None` within the cooldown, or if
    /// too many requests wait.
    pub(super) fn newer(self: &Arc<Self>, old: &Arc<KeySet>) -> Option<Found> {
        let is_newer = |loaded: &Arc<Loaded>| !Arc::ptr_eq(&loaded.keys, old);
        if let Some(loaded) = self.usable().filter(is_newer) {
            return Some(Found::Keys(loaded.keys.clone()));
        }
        self.wait(self.fetch()?).ok().map(Found::Wait)
    }

    fn wait(self: &Arc<Self>, finished: watch::Receiver<u64>) -> Result<Wait, ExtractError> {
        let place = self.provider.waiting.enter().ok_or_else(|| {
            ExtractError::unavailable(Reason::JwksBusy)
                .because("max_waiting is reached: too many requests wait for the keys")
        })?;
        Ok(Wait {
            cache: self.clone(),
            finished,
            _place: place,
        })
    }

    /// The keys in the cache, unless they are too old or none of them has this `kid`.
    fn suitable(&self, kid: Option<&str>) -> Option<Arc<KeySet>> {
        let loaded = self.usable()?;
        kid.is_none_or(|kid| loaded.keys.knows(kid))
            .then(|| loaded.keys.clone())
    }

    fn usable(&self) -> Option<Arc<Loaded>> {
        let now = self.now();
        self.loaded
            .load_full()
            .filter(|loaded| loaded.freshness(now) != Freshness::TooOld)
    }

    pub(super) fn is_absent(&self, error: &FetchError) -> bool {
        self.source.is_absent(error)
    }

    /// The error for a token whose key is not in the cache: `Rejected` if the last fetch succeeded, or if the provider
    /// answered that the key does not exist. Otherwise `Unavailable`, because the provider may have rotated to that
    /// key, and a 401 would sign users out.
    pub(super) fn no_key_error(&self, kid: Option<&str>) -> ExtractError {
        match &self.progress().last {
            Some((_, Ok(()))) => {
                let error = ExtractError::rejected(Reason::UnknownKey);
                match (kid, self.usable()) {
                    (Some(kid), Some(loaded)) => error.because(loaded.keys.describe_unknown(kid)),
                    _ => error,
                }
            }
            Some((_, Err(error))) if self.is_absent(error) => {
                ExtractError::rejected(Reason::UnknownKey)
            }
            Some((_, Err(error))) => ExtractError::unavailable(Reason::JwksUnavailable)
                .because(format!("{}: {error}", error.reason())),
            None => ExtractError::unavailable(Reason::JwksUnavailable),
        }
    }

    /// Starts a fetch in the background if the cached keys are no longer fresh.
    fn refresh(self: &Arc<Self>) {
        let freshness = self.freshness();
        if freshness.is_some_and(|freshness| freshness != Freshness::Fresh) {
            self.fetch();
        }
    }

    /// The freshness of the keys. `None` if no keys have been fetched yet.
    fn freshness(&self) -> Option<Freshness> {
        let now = self.now();
        let loaded = self.loaded.load();
        loaded.as_ref().map(|loaded| loaded.freshness(now))
    }

    /// Joins the fetch in flight, or starts a fetch. Returns `None` within the cooldown after the last fetch.
    ///
    /// Each fetch runs in its own task, so that it continues when the request that started it is dropped.
    fn fetch(self: &Arc<Self>) -> Option<watch::Receiver<u64>> {
        let now = self.now();
        let cooldown = if self.usable().is_some() {
            COOLDOWN
        } else {
            EMPTY_COOLDOWN
        };
        let mut progress = self.progress();
        // Subscribe under the lock and before the fetch starts, so that the end of the fetch is not missed.
        let finished = self.finished.subscribe();
        if progress.fetching {
            return Some(finished);
        }
        let last = progress.last.as_ref();
        if last.is_some_and(|(at, _)| now.saturating_sub(*at) < cooldown) {
            return None;
        }
        progress.fetching = true;
        // Release the lock first: a runtime that is shutting down drops the task inside `spawn`, and that drop takes
        // the lock.
        drop(progress);
        let fetch = Fetch {
            cache: self.clone(),
            started: now,
            outcome: Err(FetchError::Interrupted),
        };
        spawn(fetch.run());
        Some(finished)
    }

    async fn download(&self) -> Result<Loaded, FetchError> {
        let download = async {
            let _permit = match &self.provider.permits {
                Some(permits) => permits.acquire().await.ok(),
                None => None,
            };
            let mut answer = self.call(self.source.url()).await?;
            let keys = match self.source.read(&answer)? {
                Step::Done(keys) => keys,
                Step::Call(url) => {
                    answer = self.call(&url).await?;
                    read_jwks(&url, &answer)?
                }
            };
            Ok(Loaded {
                keys: Arc::new(keys),
                at: self.now(),
                ttl: ttl(&answer.headers),
            })
        };
        // One timeout covers the wait for a permit and all calls of the fetch.
        timeout(LIMITS.total, download)
            .await
            .unwrap_or_else(|_| Err(FetchError::timeout(self.source.url(), LIMITS.total)))
    }

    async fn call(&self, url: &Url) -> Result<Answer, FetchError> {
        let request = Request::new(Method::GET, url.clone());
        FetchError::ok(url, self.provider.context.http.send(request, LIMITS).await)
    }

    /// Records the result of a fetch. A failed fetch leaves the keys in the cache.
    fn finish(&self, started: Duration, outcome: Result<Loaded, FetchError>) {
        let now = self.now();
        let (extractor, health) = (&self.provider.extractor, &self.provider.health);
        let metrics = &self.provider.context.metrics;
        let result = match &outcome {
            Ok(_) => "ok",
            Err(error) => error.reason().as_str(),
        };
        metrics.jwks_refreshed(extractor, result);
        metrics.backend_call(extractor, result, now.saturating_sub(started));
        match &outcome {
            Err(error) if !self.is_absent(error) => {
                health.failed(0, error.reason(), Some(&error.to_string()));
            }
            Ok(_) | Err(_) => health.answered(0),
        }
        let unusable = match &outcome {
            Ok(loaded) => Some(loaded.keys.unusable()),
            Err(error) => error.unusable(),
        };
        let faults =
            |keys: &[UnusableKey]| keys.iter().filter(|key| key.is_fault()).cloned().collect();
        let unusable: Option<Vec<UnusableKey>> = unusable.map(faults);
        let outcome = outcome.map(|loaded| self.loaded.store(Some(Arc::new(loaded))));
        let mut progress = self.progress();
        progress.fetching = false;
        progress.last = Some((now, outcome));
        if let Some(unusable) = unusable
            && unusable != progress.unusable
        {
            warn_unusable(extractor, &unusable);
            progress.unusable = unusable;
        }
        self.finished.send_modify(|count| *count += 1);
    }

    /// Locks the progress, even after a panic: no code that holds the lock leaves the data inconsistent.
    pub(super) fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Logs the first [`MAX_WARNINGS`] keys that cannot be used, and how many more there are. Called only when they have
/// changed, because the set is fetched every few minutes.
fn warn_unusable(extractor: &str, keys: &[UnusableKey]) {
    for key in keys.iter().take(MAX_WARNINGS) {
        let (kid, reason) = (key.kid(), key.why());
        tracing::warn!(
            extractor,
            kid,
            reason,
            "a key of the provider cannot be used"
        );
    }
    if let Some(more @ 1..) = keys.len().checked_sub(MAX_WARNINGS) {
        tracing::warn!(extractor, more, "more keys of the provider cannot be used");
    }
}

impl fmt::Debug for JwksCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JwksCache")
            .field("extractor", &self.provider.extractor)
            .finish_non_exhaustive()
    }
}

/// A fetch in flight. Dropping it records the result, so that waiting requests are also notified of a panic or of the
/// runtime's shutdown.
struct Fetch {
    cache: Arc<JwksCache>,
    started: Duration,
    outcome: Result<Loaded, FetchError>,
}

impl Fetch {
    async fn run(mut self) {
        self.outcome = self.cache.download().await;
    }
}

impl Drop for Fetch {
    fn drop(&mut self) {
        let outcome = std::mem::replace(&mut self.outcome, Err(FetchError::Interrupted));
        self.cache.finish(self.started, outcome);
    }
}

/// The number of usable keys, and each signature key that cannot be used, as `doctor` prints them.
fn describe(keys: &KeySet) -> String {
    let faults = keys.faults().map(|key| format!("; not usable: {key}"));
    let faults: String = faults.collect();
    match keys.len() {
        1 => format!("1 key{faults}"),
        count => format!("{count} keys{faults}"),
    }
}

/// The cached keys of one [`Source`].
#[derive(Debug)]
pub struct FetchedKeys(Arc<JwksCache>);

impl FetchedKeys {
    pub fn new(extractor: &str, source: Source, context: &Context, waiting: Arc<Waiting>) -> Self {
        Self(JwksCache::new(
            Provider::new(extractor, context, waiting, None),
            source,
        ))
    }

    /// The keys for a token with this `kid`, or the fetch to wait for.
    ///
    /// # Errors
    /// `Rejected` if the provider has no such key, `Unavailable` if its keys cannot be fetched, or if too many requests
    /// wait for them.
    pub fn get(&self, kid: Option<&str>) -> Result<Found, ExtractError> {
        self.0.get(kid)
    }

    /// Keys that were fetched after `old`, or the fetch to wait for: see [`JwksCache::newer`].
    pub fn newer(&self, old: &Arc<KeySet>) -> Option<Found> {
        self.0.newer(old)
    }

    /// The keys of the last answer that were meant for signatures but cannot be used.
    pub fn unusable(&self) -> Vec<UnusableKey> {
        self.0.progress().unusable.clone()
    }

    /// Fetches the keys, and starts a task that fetches them again after a failure or when they are due. Fetching on
    /// requests is not enough, because an instance without keys is not ready and therefore gets no requests. The task
    /// ends when this value is dropped. Must be called inside the runtime.
    pub fn start(&self) {
        self.0.fetch();
        let cache = Arc::downgrade(&self.0);
        spawn(async move {
            loop {
                sleep(REFRESH_INTERVAL).await;
                let Some(cache) = cache.upgrade() else { return };
                if cache.freshness() != Some(Freshness::Fresh) {
                    cache.fetch();
                }
            }
        });
    }

    /// The description of a fetch, as commands such as `doctor` print it.
    pub fn call(&self) -> BackendCall {
        BackendCall {
            backend: self.0.source.name(),
            at_most: LIMITS.total,
        }
    }

    /// Fetches the keys once, for `doctor`.
    pub async fn probe(&self) -> BackendReport {
        let cache = &self.0;
        BackendReport::of(self.call().backend, async {
            match cache.download().await {
                Ok(loaded) => Ok(describe(&loaded.keys)),
                Err(error) => Err(format!("{}: {error}", error.reason())),
            }
        })
        .await
    }

    /// The age of the current keys; `None` until the first keys have been fetched.
    pub fn age(&self) -> Option<Duration> {
        let loaded = self.0.loaded.load();
        loaded
            .as_ref()
            .map(|loaded| self.0.now().saturating_sub(loaded.at))
    }

    /// `Waiting` until the first keys have been fetched, `Stale` if the keys are past their TTL or the last fetch
    /// failed, and otherwise `Ready`.
    pub fn readiness(&self) -> Readiness {
        match self.0.freshness() {
            Some(Freshness::Fresh | Freshness::Due) => self.0.provider.health.readiness(),
            // Never `Waiting` again: the load balancer would remove all instances, and one provider's outage would
            // become an outage for all users.
            Some(Freshness::Stale | Freshness::TooOld) => Readiness::Stale,
            None => Readiness::Waiting("jwks"),
        }
    }
}
