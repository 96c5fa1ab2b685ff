//! Keys that a provider publishes: fetched, kept, refreshed, and shared by all requests.
//! What a key is, and which one fits a token, is in `keys.rs`.

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
use crate::session::backends::http::{Answer, CallError, Limits, check_url};
use crate::session::backends::keys::{KeySet, KeysError};
use crate::session::backends::waiting::{Waiting, WaitingPlace};
use crate::session::types::{ExtractError, Readiness};
use crate::sync::{ArcSwapOption, Mutex, MutexGuard, Semaphore, spawn, timeout, watch};

/// One whole fetch. Providers may be far away, so connecting may take longer than to a neighbour.
const LIMITS: Limits = Limits {
    connect: Duration::from_secs(2),
    total: Duration::from_secs(3),
    body: 512 * 1024,
    retry_closed: true,
};

/// How long keys are fresh if the provider does not say, and the bounds of what it may say.
const DEFAULT_TTL: Duration = Duration::from_secs(10 * 60);
const MIN_TTL: Duration = Duration::from_secs(30);
const MAX_TTL: Duration = Duration::from_secs(60 * 60);

/// How long keys serve beyond their time while no newer ones can be had.
const STALE_FOR: Duration = Duration::from_secs(60 * 60);

/// The least time between two fetches while there are keys to work with: made-up key ids must not become a
/// flood at the provider.
const COOLDOWN: Duration = Duration::from_secs(30);

/// The same while there are none, when every request waits for a fetch.
const EMPTY_COOLDOWN: Duration = Duration::from_secs(1);

/// Where each key has a URL of its own: how many keys are kept, how many look-ups are made at a time and
/// begin in a second, how long a key that was not there is remembered, and how many of them are.
const MAX_KEYS: usize = 100;
const MAX_LOOKUPS: usize = 8;
const MAX_LOOKUPS_PER_SECOND: u32 = 50;
const ABSENT_FOR: Duration = Duration::from_secs(30);
const MAX_ABSENT: usize = 1000;

/// What stands for the key's id in the URL of [`KeysByKid`].
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

/// Why a fetch brought no keys.
#[derive(Clone, Debug)]
enum FetchError {
    Call(CallError),
    Keys(KeysError),
    Discovery(&'static str),
    /// The task that fetched went away, as at the end of the process or after a panic.
    Interrupted,
}

impl FetchError {
    fn word(&self) -> &'static str {
        match self {
            Self::Call(error) => error.word(),
            Self::Keys(KeysError::Malformed) => "malformed",
            Self::Keys(KeysError::NoUsableKey) => "no_usable_key",
            Self::Discovery(_) => "discovery",
            Self::Interrupted => "interrupted",
        }
    }

    /// Whether the server said that there is no such document.
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

/// Keys as they were fetched.
#[derive(Debug)]
struct Loaded {
    keys: Arc<KeySet>,
    at: Duration,
    ttl: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Freshness {
    Fresh,
    /// Still fresh, but it is time to fetch the next ones in the background.
    Due,
    Stale,
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

/// What the cells of one extractor share.
#[derive(Clone)]
struct Provider {
    extractor: Arc<str>,
    context: Context,
    waiting: Arc<Waiting>,
    health: Arc<BackendHealth>,
    /// Turns for fetches, where there are many cells.
    turns: Option<Arc<Semaphore>>,
}

impl Provider {
    fn new(
        extractor: &str,
        context: &Context,
        waiting: Arc<Waiting>,
        turns: Option<usize>,
    ) -> Self {
        Self {
            extractor: Arc::from(extractor),
            context: context.clone(),
            waiting,
            health: Arc::new(BackendHealth::new(extractor, &context.clock)),
            turns: turns.map(|turns| Arc::new(Semaphore::new(turns))),
        }
    }
}

/// Cache of one source's keys; at most one fetch is in flight.
struct Cell {
    provider: Provider,
    source: Source,
    loaded: ArcSwapOption<Loaded>,
    progress: Mutex<Progress>,
    /// Counts the fetches that ended; requests that need one wait for the next count.
    finished: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Progress {
    fetching: bool,
    /// When the last fetch ended, and how.
    last: Option<(Duration, Result<(), FetchError>)>,
}

/// What a request that needs keys gets.
#[derive(Debug)]
pub enum Found {
    Keys(Arc<KeySet>),
    /// A fetch is under way.
    Wait(Wait),
}

/// A fetch under way, which may bring the keys for one token.
#[derive(Debug)]
pub struct Wait {
    cell: Arc<Cell>,
    finished: watch::Receiver<u64>,
    _place: WaitingPlace,
}

impl Wait {
    /// The keys to verify with, once the fetch has ended.
    pub async fn keys(mut self, kid: Option<&str>) -> Result<Arc<KeySet>, ExtractError> {
        // The sender lives in the cell, which `self` keeps alive.
        let _ = self.finished.changed().await;
        self.cell.suitable(kid).ok_or_else(|| self.cell.verdict())
    }
}

impl Cell {
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

    /// The keys for a token that names `kid`. Does not wait; at most it starts a fetch.
    fn get(self: &Arc<Self>, kid: Option<&str>) -> Result<Found, ExtractError> {
        self.keep_fresh();
        if let Some(keys) = self.suitable(kid) {
            return Ok(Found::Keys(keys));
        }
        match self.fetch() {
            Some(finished) => {
                let place = self.provider.waiting.enter().ok_or_else(|| {
                    ExtractError::unavailable("jwks_busy")
                        .because("max_waiting requests await the keys")
                })?;
                Ok(Found::Wait(Wait {
                    cell: self.clone(),
                    finished,
                    _place: place,
                }))
            }
            // A fetch may have ended since the look above.
            None => self
                .suitable(kid)
                .map(Found::Keys)
                .ok_or_else(|| self.verdict()),
        }
    }

    /// The keys in use, unless they are too old or do not know `kid`.
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

    /// Whether the fetch failed because there is no key of this id, rather than because of the provider.
    fn is_absent(&self, error: &FetchError) -> bool {
        matches!(self.source, Source::Pem(_)) && error.is_not_found()
    }

    /// What to tell a request for which there are no keys. While the provider cannot be reached, an
    /// unknown key may be one that it has just begun to use: that must not sign users out.
    fn verdict(&self) -> ExtractError {
        match &self.progress().last {
            Some((_, Ok(()))) => ExtractError::rejected("unknown_key"),
            Some((_, Err(error))) if self.is_absent(error) => ExtractError::rejected("unknown_key"),
            Some((_, Err(error))) => ExtractError::unavailable("jwks_unavailable")
                .because(format!("{}: {error}", error.word())),
            None => ExtractError::unavailable("jwks_unavailable"),
        }
    }

    /// Starts a fetch in the background if the keys in use are about to be, or are, past their time.
    fn keep_fresh(self: &Arc<Self>) {
        let now = self.now();
        let loaded = self.loaded.load();
        if loaded
            .as_ref()
            .is_some_and(|loaded| loaded.freshness(now) != Freshness::Fresh)
        {
            self.fetch();
        }
    }

    /// Joins the fetch that is under way, or starts one; `None` if it is too early for another.
    ///
    /// A fetch is a task of its own: it goes on when the request that began it is dropped.
    fn fetch(self: &Arc<Self>) -> Option<watch::Receiver<u64>> {
        let now = self.now();
        let cooldown = if self.usable().is_some() {
            COOLDOWN
        } else {
            EMPTY_COOLDOWN
        };
        let mut progress = self.progress();
        // Subscribed under the lock and before the fetch begins, so that its end cannot be missed.
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
        // A runtime that is shutting down drops what it is given at once, and that takes the lock.
        drop(progress);
        spawn(Attempt::of(self.clone(), now).run());
        Some(finished)
    }

    async fn download(&self) -> Result<Loaded, FetchError> {
        let download = async {
            let _turn = match &self.provider.turns {
                Some(turns) => turns.acquire().await.ok(),
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
        // Waiting for a turn and both calls of discovery share the time of one call.
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

    /// Takes note of how a fetch ended. Only good keys replace those in use.
    fn finish(&self, began: Duration, outcome: Result<Loaded, FetchError>) {
        let now = self.now();
        let Provider {
            extractor,
            context,
            health,
            ..
        } = &self.provider;
        let result = outcome.as_ref().map_or_else(FetchError::word, |_| "ok");
        context.metrics.jwks_refreshed(extractor, result);
        context
            .metrics
            .backend_call(extractor, result, now.saturating_sub(began));
        match &outcome {
            Err(error) if !self.is_absent(error) => {
                health.failed(0, result, Some(&error.to_string()))
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

    /// Nothing panics while it holds the lock; if something did, the data would still be whole.
    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cell")
            .field("extractor", &self.provider.extractor)
            .finish_non_exhaustive()
    }
}

/// A fetch under way. However its task ends, the cell learns of it: requests wait for that.
struct Attempt {
    cell: Arc<Cell>,
    began: Duration,
    outcome: Result<Loaded, FetchError>,
}

impl Attempt {
    fn of(cell: Arc<Cell>, began: Duration) -> Self {
        Self {
            cell,
            began,
            outcome: Err(FetchError::Interrupted),
        }
    }

    async fn run(mut self) {
        let outcome = self.cell.download().await;
        self.end(outcome);
    }

    fn end(&mut self, outcome: Result<Loaded, FetchError>) {
        self.outcome = outcome;
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        let outcome = std::mem::replace(&mut self.outcome, Err(FetchError::Interrupted));
        self.cell.finish(self.began, outcome);
    }
}

/// The address of the JWK set in a discovery document, if the document is about `issuer`.
fn jwks_uri(document: &[u8], issuer: &str, allow_http: bool) -> Result<Url, FetchError> {
    let document =
        Value::parse(document).map_err(|_| FetchError::Discovery("the document is not JSON"))?;
    let text = |name| document.as_object()?.get(name).ok()??.as_str();
    if text("issuer") != Some(issuer) {
        return Err(FetchError::Discovery(
            "the document is about another issuer",
        ));
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

/// Whether the URL names this machine in any of the ways that resolvers and the system know.
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

/// How long an answer is fresh (RFC 9111, section 5.2.2.1), within our bounds.
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
            // More digits than fit are a long time, not no time.
            (is_max_age && digits.bytes().all(|byte| byte.is_ascii_digit()))
                .then(|| digits.parse().unwrap_or(u64::MAX))
        });
    seconds.map_or(DEFAULT_TTL, |seconds| {
        Duration::from_secs(seconds).clamp(MIN_TTL, MAX_TTL)
    })
}

/// A set of keys at one address.
#[derive(Debug)]
pub struct FetchedKeys(Arc<Cell>);

impl FetchedKeys {
    pub fn new(extractor: &str, source: Source, context: &Context, waiting: Arc<Waiting>) -> Self {
        Self(Cell::new(
            Provider::new(extractor, context, waiting, None),
            source,
        ))
    }

    /// The keys for a token that names `kid`: at hand, or on their way.
    ///
    /// # Errors
    /// `Rejected` if the provider has no such key, `Unavailable` if it cannot be asked.
    pub fn get(&self, kid: Option<&str>) -> Result<Found, ExtractError> {
        self.0.get(kid)
    }

    /// Fetches ahead of the first request.
    pub fn start(&self) {
        self.0.fetch();
    }

    /// Sets the gauge of the keys' age.
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

    /// Whether there are keys. Asking also keeps them coming: an instance without keys is not ready,
    /// so no request would reach it that could set off the next fetch. Needs the runtime around it.
    pub fn readiness(&self) -> Readiness {
        let now = self.0.now();
        let freshness = self
            .0
            .loaded
            .load()
            .as_ref()
            .map(|loaded| loaded.freshness(now));
        if freshness != Some(Freshness::Fresh) {
            self.0.fetch();
        }
        match freshness {
            Some(Freshness::Fresh | Freshness::Due) => self.0.provider.health.readiness(),
            // Once it had keys, an instance stays ready: if all instances left the balancer, one provider's
            // outage would be an outage for all users.
            Some(Freshness::Stale | Freshness::TooOld) => Readiness::Stale,
            None => Readiness::Waiting("jwks"),
        }
    }
}

/// Keys that have a URL each, with their id in it. The id comes from a token that is not verified yet, so that
/// look-ups are bounded in number and pace, and no made-up id keeps a genuine one from being looked up.
#[derive(Debug)]
pub struct KeysByKid {
    provider: Provider,
    template: String,
    cells: Mutex<Cells>,
}

#[derive(Debug, Default)]
struct Cells {
    by_kid: BTreeMap<String, Arc<Cell>>,
    /// When the current second of look-ups began, and how many began in it.
    second: (Duration, u32),
}

/// What is known of the key of one cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Its first fetch is in flight, or about to be.
    Fetching,
    /// Loaded at this time.
    Loaded(Duration),
    /// The provider had no such key at this time.
    Absent(Duration),
    /// The fetch failed a moment ago.
    Failed,
    /// Nothing that still counts.
    Over,
}

impl Cell {
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
                    true | false => Stage::Over,
                }
            }
            Some(_) | None => Stage::Fetching,
        }
    }
}

impl Cells {
    /// Counts one more look-up; false if too many began in this second.
    fn may_look_up(&mut self, now: Duration) -> bool {
        let (began, count) = &mut self.second;
        if now.saturating_sub(*began) >= Duration::from_secs(1) {
            (*began, *count) = (now, 0);
        }
        *count += 1;
        *count <= MAX_LOOKUPS_PER_SECOND
    }

    /// Forgets what does not count any more and, where there are too many, the oldest. Fetches in flight and
    /// failed ones are as few as look-ups may begin in the time of one.
    fn make_room(&mut self, now: Duration) {
        self.by_kid.retain(|_, cell| cell.stage(now) != Stage::Over);
        let (mut loaded, mut absent) = (Vec::new(), Vec::new());
        for (kid, cell) in &self.by_kid {
            match cell.stage(now) {
                Stage::Loaded(at) => loaded.push((at, kid.clone())),
                Stage::Absent(at) => absent.push((at, kid.clone())),
                Stage::Fetching | Stage::Failed | Stage::Over => {}
            }
        }
        for (cells, most) in [(loaded, MAX_KEYS), (absent, MAX_ABSENT)] {
            if cells.len() >= most
                && let Some((_, oldest)) = cells.into_iter().min()
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
            cells: Mutex::default(),
        })
    }

    /// The key called `kid`: at hand, or on its way.
    ///
    /// # Errors
    /// `Rejected` if there can be no such key, `Unavailable` if the provider cannot be asked now.
    pub fn get(&self, kid: Option<&str>) -> Result<Found, ExtractError> {
        let is_safe = |kid: &&str| {
            (1..=64).contains(&kid.len())
                && kid
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        };
        let kid = kid
            .filter(is_safe)
            .ok_or_else(|| ExtractError::rejected("unknown_key"))?;
        // The whole document is this one key: it need not repeat its name.
        self.cell(kid)?.get(None)
    }

    /// `Stale` if the last look-up failed. That a key is not there is no failure.
    pub fn readiness(&self) -> Readiness {
        self.provider.health.readiness()
    }

    fn cell(&self, kid: &str) -> Result<Arc<Cell>, ExtractError> {
        let now = self.provider.context.clock.monotonic();
        let mut cells = self.cells.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(cell) = cells.by_kid.get(kid) {
            match cell.stage(now) {
                Stage::Fetching | Stage::Loaded(_) => return Ok(cell.clone()),
                Stage::Absent(_) | Stage::Failed => return Err(cell.verdict()),
                Stage::Over => {}
            }
        }
        if !cells.may_look_up(now) {
            return Err(
                ExtractError::unavailable("jwks_busy").because("too many keys are looked up")
            );
        }
        let text = self.template.replace(KID_PLACEHOLDER, kid);
        let url = Url::parse(&text).map_err(|_| ExtractError::rejected("unknown_key"))?;
        cells.make_room(now);
        let cell = Cell::new(self.provider.clone(), Source::Pem(url));
        cells.by_kid.insert(kid.to_owned(), cell.clone());
        Ok(cell)
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
