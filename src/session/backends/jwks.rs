//! Caches of the keys that an identity provider publishes. All requests share a cache; at most one fetch of a
//! source is in flight. What a key is, and which one fits a token, is in `keys.rs`.

use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv4Addr;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use axum::http::{HeaderMap, header};
use reqwest::{Method, Request};
use url::{Host, Url};

use crate::json::Value;
use crate::session::backends::Context;
use crate::session::backends::health::BackendHealth;
use crate::session::backends::http::{Answer, CallError, CallLimits, check_url};
use crate::session::backends::keys::{KeySet, KeysError};
use crate::session::backends::waiting::{Waiting, WaitingPlace};
use crate::session::reason::Reason;
use crate::session::types::{ExtractError, Readiness};
use crate::sync::{ArcSwapOption, Mutex, MutexGuard, Semaphore, sleep, spawn, timeout, watch};

/// The limits of one fetch. Providers are reached over the internet, so the connect timeout is longer than that of
/// backends in the same network.
const LIMITS: CallLimits = CallLimits {
    connect: Duration::from_secs(2),
    total: Duration::from_secs(3),
    body: 512 * 1024,
    retry_closed: true,
};

/// How long keys are fresh if the response has no `max-age`, and the bounds of a `max-age`.
const DEFAULT_TTL: Duration = Duration::from_secs(10 * 60);
const MIN_TTL: Duration = Duration::from_secs(30);
const MAX_TTL: Duration = Duration::from_secs(60 * 60);

/// How long keys are used after their TTL while newer ones cannot be fetched.
const STALE_FOR: Duration = Duration::from_secs(60 * 60);

/// The minimum time between two fetches while the cache holds usable keys. Tokens with made-up key ids must not
/// cause more requests to the provider than this.
const COOLDOWN: Duration = Duration::from_secs(30);

/// The minimum time between two fetches while the cache is empty, when every request waits for a fetch.
const EMPTY_COOLDOWN: Duration = Duration::from_secs(1);

/// How often the background task of [`FetchedKeys::start`] looks whether the keys need a fetch.
const REFRESH_INTERVAL: Duration = Duration::from_secs(1);

/// The limits of [`KeysByKid`]: keys in the cache, concurrent look-ups, look-ups that start in one second, how long
/// an unknown key id stays in the negative cache, and how many ids that holds.
const MAX_KEYS: usize = 100;
const MAX_LOOKUPS: usize = 8;
const MAX_LOOKUPS_PER_SECOND: u32 = 50;
const ABSENT_FOR: Duration = Duration::from_secs(30);
const MAX_ABSENT: usize = 1000;

/// The placeholder for the key id in the URL template of [`KeysByKid`].
pub const KID_PLACEHOLDER: &str = "{kid}";

/// Where keys are published.
#[derive(Clone, Debug)]
pub enum Source {
    /// A JWK set.
    Jwks(Url),
    /// `OpenID` Connect Discovery: the issuer's document names the JWK set.
    Discovery {
        issuer: String,
        document: Url,
        allow_http: bool,
    },
    /// One public key in PEM.
    Pem(Url),
}

impl Source {
    /// Discovery for `issuer` (`OpenID` Connect Discovery 1.0, section 4).
    ///
    /// # Errors
    /// If the issuer is not a URL that may be called.
    pub fn discovery(issuer: &str, allow_http: bool) -> Result<Self, &'static str> {
        let document = format!(
            "{}/.well-known/openid-configuration",
            issuer.trim_end_matches('/')
        );
        let document = check_url(&document, allow_http)?;
        Ok(Self::Discovery {
            issuer: issuer.to_owned(),
            document,
            allow_http,
        })
    }
}

/// Why a fetch failed.
#[derive(Clone, Debug)]
enum FetchError {
    Call(CallError),
    Keys(KeysError),
    Discovery(&'static str),
    /// The task of the fetch was dropped: at the end of the process, or after a panic.
    Interrupted,
}

impl FetchError {
    /// Why, for metrics and logs.
    fn name(&self) -> &'static str {
        match self {
            Self::Call(error) => error.reason().as_str(),
            Self::Keys(KeysError::Malformed) => "malformed",
            Self::Keys(KeysError::NoUsableKey) => "no_usable_key",
            Self::Discovery(_) => "discovery",
            Self::Interrupted => "interrupted",
        }
    }

    /// Whether the status says that the document does not exist.
    fn is_not_found(&self) -> bool {
        matches!(self, Self::Call(CallError::Status(status)) if matches!(status.as_u16(), 403 | 404 | 410))
    }
}

impl fmt::Display for FetchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Call(error) => error.fmt(f),
            Self::Keys(error) => write!(f, "the answer {error}"),
            Self::Discovery(text) => f.write_str(text),
            Self::Interrupted => f.write_str("the fetch was interrupted"),
        }
    }
}

/// The result of a successful fetch.
#[derive(Debug)]
struct Loaded {
    keys: Arc<KeySet>,
    at: Duration,
    ttl: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Freshness {
    Fresh,
    /// Usable, with less than a fifth of the TTL left: fetch the next keys in the background.
    Due,
    /// Past the TTL, but within [`STALE_FOR`]: used while newer keys cannot be fetched.
    Stale,
    /// Not used any more.
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

/// What all caches of one extractor share.
#[derive(Clone)]
struct Provider {
    extractor: Arc<str>,
    context: Context,
    waiting: Arc<Waiting>,
    health: Arc<BackendHealth>,
    /// Limits concurrent fetches, where the extractor has many caches.
    permits: Option<Arc<Semaphore>>,
}

impl Provider {
    fn new(
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

/// Cache of one source's keys; at most one fetch is in flight.
struct JwksCache {
    provider: Provider,
    source: Source,
    loaded: ArcSwapOption<Loaded>,
    progress: Mutex<Progress>,
    /// The number of fetches that ended. A request that waits for a fetch waits for this to change.
    finished: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Progress {
    fetching: bool,
    /// When the last fetch ended, and its result.
    last: Option<(Duration, Result<(), FetchError>)>,
}

/// The keys for a token, or the fetch to wait for.
#[derive(Debug)]
pub enum Found {
    Keys(Arc<KeySet>),
    Wait(Wait),
}

/// A fetch in flight that may bring the key of a token, and the place of the waiting request.
#[derive(Debug)]
pub struct Wait {
    cache: Arc<JwksCache>,
    finished: watch::Receiver<u64>,
    _place: WaitingPlace,
}

impl Wait {
    /// Waits for the end of the fetch, and returns the keys to verify with.
    pub async fn keys(mut self, kid: Option<&str>) -> Result<Arc<KeySet>, ExtractError> {
        // This cannot fail: the sender is in the cache, which `self` keeps alive.
        let _ = self.finished.changed().await;
        self.cache
            .suitable(kid)
            .ok_or_else(|| self.cache.no_key_error())
    }
}

impl JwksCache {
    fn new(provider: Provider, source: Source) -> Arc<Self> {
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

    /// The keys for a token with this `kid`. Starts a fetch if one is needed; does not wait for it.
    fn get(self: &Arc<Self>, kid: Option<&str>) -> Result<Found, ExtractError> {
        self.refresh();
        if let Some(keys) = self.suitable(kid) {
            return Ok(Found::Keys(keys));
        }
        match self.fetch() {
            Some(finished) => {
                let place = self.provider.waiting.enter().ok_or_else(|| {
                    ExtractError::unavailable(Reason::JwksBusy)
                        .because("max_waiting requests wait for the keys")
                })?;
                Ok(Found::Wait(Wait {
                    cache: self.clone(),
                    finished,
                    _place: place,
                }))
            }
            // Another request's fetch may have ended since the check above.
            None => self
                .suitable(kid)
                .map(Found::Keys)
                .ok_or_else(|| self.no_key_error()),
        }
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

    /// Whether the fetch failed because there is no key with this id, as opposed to a failure of the provider.
    fn is_absent(&self, error: &FetchError) -> bool {
        matches!(self.source, Source::Pem(_)) && error.is_not_found()
    }

    /// The error for a token whose key is not in the cache. After a failed fetch it is `Unavailable`: the provider may
    /// have rotated to that key, and a 401 would sign its users out.
    fn no_key_error(&self) -> ExtractError {
        match &self.progress().last {
            Some((_, Ok(()))) => ExtractError::rejected(Reason::UnknownKey),
            Some((_, Err(error))) if self.is_absent(error) => {
                ExtractError::rejected(Reason::UnknownKey)
            }
            Some((_, Err(error))) => ExtractError::unavailable(Reason::JwksUnavailable)
                .because(format!("{}: {error}", error.name())),
            None => ExtractError::unavailable(Reason::JwksUnavailable),
        }
    }

    /// Starts a fetch in the background if there are keys and they are due or past their TTL.
    fn refresh(self: &Arc<Self>) {
        if self
            .freshness()
            .is_some_and(|freshness| freshness != Freshness::Fresh)
        {
            self.fetch();
        }
    }

    /// How old the keys are. `None` if none were ever fetched.
    fn freshness(&self) -> Option<Freshness> {
        let now = self.now();
        let loaded = self.loaded.load();
        loaded.as_ref().map(|loaded| loaded.freshness(now))
    }

    /// Joins the fetch in flight, or starts one. `None` within the cooldown of the last one.
    ///
    /// A fetch is a task of its own, so that it continues when the request that started it is dropped.
    fn fetch(self: &Arc<Self>) -> Option<watch::Receiver<u64>> {
        let now = self.now();
        let cooldown = if self.usable().is_some() {
            COOLDOWN
        } else {
            EMPTY_COOLDOWN
        };
        let mut progress = self.progress();
        // Subscribe under the lock and before the fetch starts, so that its end is not missed.
        let finished = self.finished.subscribe();
        if progress.fetching {
            return Some(finished);
        }
        if progress
            .last
            .as_ref()
            .is_some_and(|(at, _)| now.saturating_sub(*at) < cooldown)
        {
            return None;
        }
        progress.fetching = true;
        // Unlock first: a runtime that is shutting down drops the task inside `spawn`, and the drop takes the lock.
        drop(progress);
        spawn(Fetch::new(self.clone(), now).run());
        Some(finished)
    }

    async fn download(&self) -> Result<Loaded, FetchError> {
        let download = async {
            let _permit = match &self.provider.permits {
                Some(permits) => permits.acquire().await.ok(),
                None => None,
            };
            let answer = match &self.source {
                Source::Jwks(url) | Source::Pem(url) => self.call(url).await?,
                Source::Discovery {
                    issuer,
                    document,
                    allow_http,
                } => {
                    let document = self.call(document).await?;
                    self.call(&jwks_uri(&document.body, issuer, *allow_http)?)
                        .await?
                }
            };
            let keys = match &self.source {
                Source::Pem(_) => KeySet::from_pem(&answer.body),
                Source::Jwks(_) | Source::Discovery { .. } => KeySet::from_jwks(&answer.body),
            };
            let keys = Arc::new(keys.map_err(FetchError::Keys)?);
            Ok(Loaded {
                keys,
                at: self.now(),
                ttl: ttl(&answer.headers),
            })
        };
        // One timeout for the wait for a permit and both calls of discovery.
        timeout(LIMITS.total, download)
            .await
            .unwrap_or(Err(FetchError::Call(CallError::Timeout)))
    }

    async fn call(&self, url: &Url) -> Result<Answer, FetchError> {
        let request = Request::new(Method::GET, url.clone());
        self.provider
            .context
            .http
            .send(request, LIMITS)
            .await
            .and_then(Answer::ok)
            .map_err(FetchError::Call)
    }

    /// Records the result of a fetch. A failed fetch leaves the keys in the cache.
    fn finish(&self, started: Duration, outcome: Result<Loaded, FetchError>) {
        let now = self.now();
        let Provider {
            extractor,
            context,
            health,
            ..
        } = &self.provider;
        let result = outcome.as_ref().map_or_else(FetchError::name, |_| "ok");
        context.metrics.jwks_refreshed(extractor, result);
        context
            .metrics
            .backend_call(extractor, result, now.saturating_sub(started));
        match &outcome {
            Err(error) if !self.is_absent(error) => {
                health.failed(0, result, Some(&error.to_string()));
            }
            Ok(_) | Err(_) => health.answered(0),
        }
        let outcome = outcome.map(|loaded| self.loaded.store(Some(Arc::new(loaded))));
        let mut progress = self.progress();
        *progress = Progress {
            fetching: false,
            last: Some((now, outcome)),
        };
        self.finished.send_modify(|count| *count += 1);
    }

    /// A poisoned lock is used anyway: no code that holds it leaves the data inconsistent.
    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for JwksCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JwksCache")
            .field("extractor", &self.provider.extractor)
            .finish_non_exhaustive()
    }
}

/// A fetch in flight. Dropping it records the result, so that the requests that wait for it also learn of a panic or
/// of the end of the runtime.
struct Fetch {
    cache: Arc<JwksCache>,
    started: Duration,
    outcome: Result<Loaded, FetchError>,
}

impl Fetch {
    fn new(cache: Arc<JwksCache>, started: Duration) -> Self {
        Self {
            cache,
            started,
            outcome: Err(FetchError::Interrupted),
        }
    }

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

/// The URL of the JWK set in a discovery document, if the document is for `issuer`.
fn jwks_uri(document: &[u8], issuer: &str, allow_http: bool) -> Result<Url, FetchError> {
    let document =
        Value::parse(document).map_err(|_| FetchError::Discovery("the document is not JSON"))?;
    let text = |name| document.as_object()?.get(name).ok()??.as_str();
    if text("issuer") != Some(issuer) {
        return Err(FetchError::Discovery("the document is for another issuer"));
    }
    let uri = text("jwks_uri").ok_or(FetchError::Discovery("the document has no jwks_uri"))?;
    let uri = check_url(uri, allow_http)
        .map_err(|_| FetchError::Discovery("the document's jwks_uri may not be called"))?;
    let is_issuer_local = Url::parse(issuer).is_ok_and(|issuer| is_loopback(&issuer));
    if is_loopback(&uri) && !is_issuer_local {
        return Err(FetchError::Discovery(
            "the document's jwks_uri is on loopback, and the issuer is not",
        ));
    }
    Ok(uri)
}

/// Whether the URL's host is this machine, in any form that resolvers or the kernel accept.
fn is_loopback(url: &Url) -> bool {
    let is_loopback_v4 = |address: Ipv4Addr| address.is_loopback() || address.is_unspecified();
    match url.host() {
        Some(Host::Domain(name)) => {
            let name = name.trim_end_matches('.');
            name == "localhost" || name.ends_with(".localhost")
        }
        Some(Host::Ipv4(address)) => is_loopback_v4(address),
        Some(Host::Ipv6(address)) => {
            let is_loopback_v6 = address.is_loopback() || address.is_unspecified();
            is_loopback_v6 || address.to_ipv4_mapped().is_some_and(is_loopback_v4)
        }
        None => false,
    }
}

/// The `max-age` of a response (RFC 9111, section 5.2.2.1), within [`MIN_TTL`] and [`MAX_TTL`].
fn ttl(headers: &HeaderMap) -> Duration {
    let values = headers
        .get_all(header::CACHE_CONTROL)
        .iter()
        .filter_map(|value| value.to_str().ok());
    let seconds = values
        .flat_map(|value| value.split(','))
        .find_map(|directive| {
            let (name, seconds) = directive.split_once('=')?;
            let digits = seconds.trim().trim_matches('"');
            let is_max_age = name.trim().eq_ignore_ascii_case("max-age") && !digits.is_empty();
            // A number that overflows is the maximum, not the default.
            (is_max_age && digits.bytes().all(|byte| byte.is_ascii_digit()))
                .then(|| digits.parse().unwrap_or(u64::MAX))
        });
    seconds.map_or(DEFAULT_TTL, |seconds| {
        Duration::from_secs(seconds).clamp(MIN_TTL, MAX_TTL)
    })
}

/// The keys at one URL.
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
    /// `Rejected` if the provider has no such key, `Unavailable` if its keys cannot be fetched.
    pub fn get(&self, kid: Option<&str>) -> Result<Found, ExtractError> {
        self.0.get(kid)
    }

    /// Fetches the keys, and starts a task that fetches them again when a fetch failed or they are due. Requests are not
    /// enough: an instance without keys is not ready, so it gets none. The task ends with this value. Must be called
    /// inside the runtime.
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

    /// Sets the gauge for the age of the keys.
    pub fn observe(&self) {
        if let Some(loaded) = self.0.loaded.load().as_ref() {
            let age = self.0.now().saturating_sub(loaded.at);
            self.0
                .provider
                .context
                .metrics
                .jwks_age(&self.0.provider.extractor, age);
        }
    }

    /// `Waiting` until the first keys are there, `Stale` if they are old or the last fetch failed.
    pub fn readiness(&self) -> Readiness {
        match self.0.freshness() {
            Some(Freshness::Fresh | Freshness::Due) => self.0.provider.health.readiness(),
            // Never `Waiting` again: if all instances left the load balancer, one provider's outage would be an outage
            // for all users.
            Some(Freshness::Stale | Freshness::TooOld) => Readiness::Stale,
            None => Readiness::Waiting("jwks"),
        }
    }
}

/// Keys that each have a URL of their own with the key id in it. The id is taken from a token that is not verified yet,
/// so the number and rate of look-ups are limited, and a made-up id never evicts the key of a genuine one.
#[derive(Debug)]
pub struct KeysByKid {
    provider: Provider,
    template: String,
    caches: Mutex<CachesByKid>,
}

#[derive(Debug, Default)]
struct CachesByKid {
    by_kid: BTreeMap<String, Arc<JwksCache>>,
    /// The start of the current second, and the number of look-ups that started in it.
    second: (Duration, u32),
}

/// The state of the key in one cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The first fetch is in flight, or about to start.
    Fetching,
    /// Fetched at this time.
    Loaded(Duration),
    /// The provider answered at this time that it has no such key.
    Absent(Duration),
    /// The fetch failed less than [`EMPTY_COOLDOWN`] ago.
    Failed,
    /// The negative result or failure is too old to be used.
    Expired,
}

impl JwksCache {
    fn stage(&self, now: Duration) -> Stage {
        if let Some(loaded) = self.loaded.load().as_ref() {
            return Stage::Loaded(loaded.at);
        }
        let progress = self.progress();
        match &progress.last {
            Some((at, Err(error))) if !progress.fetching => {
                let age = now.saturating_sub(*at);
                match self.is_absent(error) {
                    true if age < ABSENT_FOR => Stage::Absent(*at),
                    false if age < EMPTY_COOLDOWN => Stage::Failed,
                    true | false => Stage::Expired,
                }
            }
            Some(_) | None => Stage::Fetching,
        }
    }
}

impl CachesByKid {
    /// Counts one more look-up. False if too many started in this second.
    fn may_look_up(&mut self, now: Duration) -> bool {
        let (start, count) = &mut self.second;
        if now.saturating_sub(*start) >= Duration::from_secs(1) {
            (*start, *count) = (now, 0);
        }
        *count += 1;
        *count <= MAX_LOOKUPS_PER_SECOND
    }

    /// Removes expired entries, and the oldest one where a limit is reached. Entries that are being fetched or failed
    /// need no limit of their own: [`MAX_LOOKUPS_PER_SECOND`] bounds them.
    fn make_room(&mut self, now: Duration) {
        self.by_kid
            .retain(|_, cache| cache.stage(now) != Stage::Expired);
        let (mut loaded, mut absent) = (Vec::new(), Vec::new());
        for (kid, cache) in &self.by_kid {
            match cache.stage(now) {
                Stage::Loaded(at) => loaded.push((at, kid.clone())),
                Stage::Absent(at) => absent.push((at, kid.clone())),
                Stage::Fetching | Stage::Failed | Stage::Expired => {}
            }
        }
        for (caches, most) in [(loaded, MAX_KEYS), (absent, MAX_ABSENT)] {
            if caches.len() >= most
                && let Some((_, oldest)) = caches.into_iter().min()
            {
                self.by_kid.remove(&oldest);
            }
        }
    }
}

impl KeysByKid {
    /// # Errors
    /// If the template is not a URL that may be called, with one `{kid}` in its path.
    pub fn new(
        extractor: &str,
        template: &str,
        allow_http: bool,
        context: &Context,
        waiting: Arc<Waiting>,
    ) -> Result<Self, &'static str> {
        let sample = check_url(
            &template.replace(KID_PLACEHOLDER, "kid-goes-here"),
            allow_http,
        )?;
        if sample.path().matches("kid-goes-here").count() != 1 {
            return Err("must have {kid} once, in the path");
        }
        Ok(Self {
            provider: Provider::new(extractor, context, waiting, Some(MAX_LOOKUPS)),
            template: template.to_owned(),
            caches: Mutex::default(),
        })
    }

    /// The key with this id, or the fetch to wait for.
    ///
    /// # Errors
    /// `Rejected` if the id is malformed or unknown, `Unavailable` if the provider cannot be asked now.
    pub fn get(&self, kid: Option<&str>) -> Result<Found, ExtractError> {
        let is_safe = |kid: &&str| {
            (1..=64).contains(&kid.len())
                && kid
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        };
        let kid = kid
            .filter(is_safe)
            .ok_or_else(|| ExtractError::rejected(Reason::UnknownKey))?;
        // The document is this one key, which need not repeat its id.
        self.cache(kid)?.get(None)
    }

    /// `Stale` if the last look-up failed. An unknown key is no failure.
    pub fn readiness(&self) -> Readiness {
        self.provider.health.readiness()
    }

    fn cache(&self, kid: &str) -> Result<Arc<JwksCache>, ExtractError> {
        let now = self.provider.context.clock.monotonic();
        let mut caches = self.caches.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(cache) = caches.by_kid.get(kid) {
            match cache.stage(now) {
                Stage::Fetching | Stage::Loaded(_) => return Ok(cache.clone()),
                Stage::Absent(_) | Stage::Failed => return Err(cache.no_key_error()),
                Stage::Expired => {}
            }
        }
        if !caches.may_look_up(now) {
            return Err(
                ExtractError::unavailable(Reason::JwksBusy).because("too many keys are looked up")
            );
        }
        let text = self.template.replace(KID_PLACEHOLDER, kid);
        let url = Url::parse(&text).map_err(|_| ExtractError::rejected(Reason::UnknownKey))?;
        caches.make_room(now);
        let cache = JwksCache::new(self.provider.clone(), Source::Pem(url));
        caches.by_kid.insert(kid.to_owned(), cache.clone());
        Ok(cache)
    }
}

impl fmt::Debug for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Provider")
            .field("extractor", &self.extractor)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn discovery_names_a_loopback_jwks_uri_only_if_the_issuer_is_on_loopback() {
        let found = |issuer: &str, uri: &str| {
            let document = format!(r#"{{"issuer":"{issuer}","jwks_uri":"{uri}"}}"#);
            jwks_uri(document.as_bytes(), issuer, true).is_ok()
        };
        for host in [
            "localhost",
            "localhost.",
            "LOCALHOST",
            "keys.localhost",
            "127.0.0.1",
            "127.1.2.3",
            "2130706433",
            "0.0.0.0",
            "[::1]",
            "[::]",
            "[::ffff:127.0.0.1]",
        ] {
            for scheme in ["http", "https"] {
                let uri = format!("{scheme}://{host}/keys");
                assert!(!found("https://idp.example", &uri), "{uri}");
                assert!(found("http://127.0.0.1:8080", &uri), "{uri}");
                assert!(found("https://localhost", &uri), "{uri}");
            }
        }
        assert!(found(
            "https://idp.example",
            "https://keys.idp.example/keys"
        ));
        assert!(found("http://localhost", "https://keys.idp.example/keys"));
        assert!(!found(
            "https://localhost.idp.example",
            "https://localhost/keys"
        ));
    }
}
