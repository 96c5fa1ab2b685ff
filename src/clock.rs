//! Sources of time, which are passed as arguments. Only this module reads the system's wall clock. Tests use a
//! [`ManualClock`].

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Seconds since 1970-01-01T00:00:00Z (a JWT `NumericDate`, RFC 7519, section 2).
pub type UnixSeconds = i64;

/// 2020-01-01T00:00:00Z. A clock that shows an earlier time was never set.
const EARLIEST_SET: UnixSeconds = 1_577_836_800;

/// 9999-12-31T23:59:59Z, the last second that RFC 3339 can represent.
const LATEST_RFC3339: UnixSeconds = 253_402_300_799;

/// Whether the clock that shows `now` was set. Boards without a battery start in 1970: tokens minted with such a clock
/// have already expired according to every other clock, and expired sessions would be accepted.
pub fn is_set(now: UnixSeconds) -> bool {
    now >= EARLIEST_SET
}

/// The time in RFC 3339; `None` before 1970 and after the year 9999.
pub fn rfc3339(time: UnixSeconds) -> Option<String> {
    let since = Duration::from_secs(time.try_into().ok()?);
    let is_in_range = time <= LATEST_RFC3339;
    is_in_range.then(|| humantime::format_rfc3339_seconds(UNIX_EPOCH + since).to_string())
}

/// A source of time.
pub trait TimeSource: fmt::Debug + Send + Sync + 'static {
    /// The wall-clock time, rounded down to a second. `iat`, `exp` and `nbf` are compared with it.
    fn now(&self) -> UnixSeconds;
    /// The time on a monotonic clock, for durations such as the age of a cache entry.
    fn monotonic(&self) -> Duration;
}

/// A shared handle to a source of time.
#[derive(Clone, Debug)]
pub struct Clock(Arc<dyn TimeSource>);

impl Clock {
    /// The system's clocks.
    pub fn system() -> Self {
        Self(Arc::new(SystemTimeSource {
            start: Instant::now(),
        }))
    }

    pub fn new(source: Arc<dyn TimeSource>) -> Self {
        Self(source)
    }

    pub fn now(&self) -> UnixSeconds {
        self.0.now()
    }

    pub fn monotonic(&self) -> Duration {
        self.0.monotonic()
    }
}

#[derive(Debug)]
struct SystemTimeSource {
    start: Instant,
}

impl TimeSource for SystemTimeSource {
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that reads the wall clock"
    )]
    fn now(&self) -> UnixSeconds {
        // A time before 1970 is read as 1970, for which `is_set` is also false.
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        since.as_secs().try_into().unwrap_or(UnixSeconds::MAX)
    }

    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }
}

/// A clock for tests: it changes only when `set` or `advance` is called.
#[derive(Debug)]
pub struct ManualClock {
    now: AtomicI64,
    monotonic_ms: AtomicU64,
}

impl ManualClock {
    pub fn at(now: UnixSeconds) -> Arc<Self> {
        Arc::new(Self {
            now: AtomicI64::new(now),
            monotonic_ms: AtomicU64::new(0),
        })
    }

    /// Sets the wall clock alone, as an administrator or NTP would.
    pub fn set(&self, now: UnixSeconds) {
        self.now.store(now, Ordering::SeqCst);
    }

    /// Advances both clocks.
    pub fn advance(&self, by: Duration) {
        let seconds = UnixSeconds::try_from(by.as_secs()).unwrap_or(UnixSeconds::MAX);
        self.now.fetch_add(seconds, Ordering::SeqCst);
        let millis = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
        self.monotonic_ms.fetch_add(millis, Ordering::SeqCst);
    }
}

impl TimeSource for ManualClock {
    fn now(&self) -> UnixSeconds {
        self.now.load(Ordering::SeqCst)
    }

    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.monotonic_ms.load(Ordering::SeqCst))
    }
}
