//! Public keys that a provider publishes one by one, each at its own URL. The cache of one key is in `jwks.rs`.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use url::Url;

use crate::session::backends::Context;
use crate::session::backends::http::check_url;
use crate::session::backends::jwks::{EMPTY_COOLDOWN, Found, JwksCache, LIMITS, Provider};
use crate::session::backends::jwks_source::Source;
use crate::session::backends::keys::KeySet;
use crate::session::backends::waiting::Waiting;
use crate::session::reason::Reason;
use crate::session::types::{BackendCall, BackendReport, ExtractError, Readiness};
use crate::sync::Mutex;

/// The limits of [`KeysByKid`]: keys in the cache, concurrent look-ups, look-ups that start in one second, how long an
/// unknown key id stays in the negative cache, and how many ids the negative cache holds.
const MAX_KEYS: usize = 100;
const MAX_LOOKUPS: usize = 8;
const MAX_LOOKUPS_PER_SECOND: u32 = 50;
const ABSENT_FOR: Duration = Duration::from_secs(30);
const MAX_ABSENT: usize = 1000;

/// The placeholder for the key id in the URL template of [`KeysByKid`].
pub const KID_PLACEHOLDER: &str = "{kid}";

/// Keys that a provider publishes one by one, each at a URL that contains the key id. The id is taken from an
/// unverified token, so the number and rate of look-ups are limited. Keys and unknown ids have separate limits in the
/// cache: however many ids a client makes up, they evict at most one key, the oldest of [`MAX_KEYS`].
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

/// The state of the key in one cache entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The first fetch is in flight, or about to start.
    Fetching,
    /// The key was fetched at this time.
    Loaded(Duration),
    /// At this time, the provider answered that the key does not exist.
    Absent(Duration),
    /// The fetch failed less than [`EMPTY_COOLDOWN`] ago.
    Failed,
    /// The negative result or the failure is too old to be used.
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
    /// Counts one more look-up. Returns false if too many have started in the current second.
    fn may_look_up(&mut self, now: Duration) -> bool {
        let (start, count) = &mut self.second;
        if now.saturating_sub(*start) >= Duration::from_secs(1) {
            (*start, *count) = (now, 0);
        }
        *count += 1;
        *count <= MAX_LOOKUPS_PER_SECOND
    }

    /// Removes expired entries, the oldest key if there are [`MAX_KEYS`] keys, and the oldest unknown id if there are
    /// [`MAX_ABSENT`] unknown ids. [`MAX_LOOKUPS_PER_SECOND`] bounds the number of entries whose fetch is in flight or
    /// has failed.
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
    /// The description of a look-up, as commands such as `doctor` print it.
    pub fn call(&self) -> BackendCall {
        let template = &*self.template;
        let address = template
            .split_once('?')
            .map_or(template, |(address, _)| address);
        BackendCall {
            backend: format!("key {address}"),
            at_most: LIMITS.total,
        }
    }

    /// The report for `doctor`. No call is made, because the URL of a key contains the key id of a token.
    pub async fn probe(&self) -> BackendReport {
        let text = "not called, because the URL contains the key id of a token. `explain` with a token calls the provider";
        BackendReport::of(self.call().backend, async { Ok(text.to_owned()) }).await
    }

    /// # Errors
    /// If the template is not a URL that may be called, or does not contain `{kid}` exactly once in its path.
    pub fn new(
        extractor: &str,
        template: &str,
        allow_http: bool,
        context: &Context,
        waiting: Arc<Waiting>,
    ) -> Result<Self, &'static str> {
        let sample = template.replace(KID_PLACEHOLDER, "kid-goes-here");
        let sample = check_url(&sample, allow_http)?;
        if sample.path().matches("kid-goes-here").count() != 1 {
            return Err("must contain {kid} exactly once, in the path");
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
    /// `Rejected` if the id is malformed or unknown. `Unavailable` if the fetch of this key has just failed, or if too
    /// many look-ups have started or too many requests wait for one.
    pub fn get(&self, kid: Option<&str>) -> Result<Found, ExtractError> {
        let is_safe = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        let kid = kid.filter(|kid| (1..=64).contains(&kid.len()) && kid.bytes().all(is_safe));
        let kid = kid.ok_or_else(|| ExtractError::rejected(Reason::UnknownKey))?;
        // The document contains only this key, and need not repeat the key's id.
        self.cache(kid)?.get(None)
    }

    /// The key with this id if it was fetched after `than`, or the fetch to wait for: see [`JwksCache::newer`].
    pub fn newer(&self, kid: Option<&str>, than: &Arc<KeySet>) -> Option<Found> {
        self.cache(kid?).ok()?.newer(than)
    }

    /// `Stale` if the last look-up failed. An unknown key is not a failure.
    pub fn readiness(&self) -> Readiness {
        self.provider.health.readiness()
    }

    fn cache(&self, kid: &str) -> Result<Arc<JwksCache>, ExtractError> {
        let now = self.provider.context.clock.monotonic();
        let mut caches = self.caches.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(cache) = caches.by_kid.get(kid) {
            match cache.stage(now) {
                Stage::Fetching | Stage::Loaded(_) => return Ok(cache.clone()),
                Stage::Absent(_) | Stage::Failed => return Err(cache.no_key_error(None)),
                Stage::Expired => {}
            }
        }
        if !caches.may_look_up(now) {
            return Err(ExtractError::unavailable(Reason::JwksBusy)
                .because("too many keys were looked up in this second"));
        }
        let text = self.template.replace(KID_PLACEHOLDER, kid);
        let url = Url::parse(&text).map_err(|_| ExtractError::rejected(Reason::UnknownKey))?;
        caches.make_room(now);
        let cache = JwksCache::new(self.provider.clone(), Source::Pem(url));
        caches.by_kid.insert(kid.to_owned(), cache.clone());
        Ok(cache)
    }
}
