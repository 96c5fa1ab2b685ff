//! Limits the tokens per minute for each credential and for each subject, in bounded memory. The response to a caller
//! over the limit is in `error.rs`.

use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use governor::clock::Clock as _;
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::keyed::DashMapStateStore;
use governor::{Quota, RateLimiter};

use crate::clock::Clock;
use crate::session::subject::Subject;
use crate::settings::RateLimitConfig;

/// The limit of a subject is this many times the limit of a credential, because many users may share a subject, such as
/// an organisation. The subject's limit stops a loop that uses a different credential for each request.
const CREDENTIALS_PER_SUBJECT: NonZeroU32 = NonZeroU32::new(20).expect("20 is not 0");
/// If a limiter has more keys than this, the keys whose full burst is available again are removed, which does not
/// change their limit. The other keys were used recently, so their number is limited by the rate of requests.
const KEYS_KEPT: usize = 10_000;
/// The number of requests between two checks of the number of keys.
const SWEEP_EVERY: u32 = 1024;

type Keyed = RateLimiter<u64, DashMapStateStore<u64>, LimiterClock, NoOpMiddleware<Nanos>>;

/// One limit for each credential of a subject, and one for all credentials of the subject together. The keys of both
/// limits are 64-bit hashes with a random seed.
pub struct TokenLimiter {
    credentials: Keyed,
    subjects: Keyed,
    hasher: RandomState,
    requests: AtomicU32,
}

impl TokenLimiter {
    /// Returns `None` if the limit is disabled.
    pub fn new(config: RateLimitConfig, clock: &Clock) -> Option<Self> {
        let per_minute = NonZeroU32::new(config.per_minute)?;
        let burst = NonZeroU32::new(config.burst)?;
        let keyed = |per_minute: NonZeroU32, burst| {
            let quota = Quota::per_minute(per_minute).allow_burst(burst);
            RateLimiter::new(
                quota,
                DashMapStateStore::default(),
                LimiterClock(clock.clone()),
            )
        };
        let times = |limit: NonZeroU32| limit.saturating_mul(CREDENTIALS_PER_SUBJECT);
        Some(Self {
            credentials: keyed(per_minute, burst),
            subjects: keyed(times(per_minute), times(burst)),
            hasher: RandomState::new(),
            requests: AtomicU32::new(0),
        })
    }

    /// Counts one token against the credential's limit, and one against the subject's. The credential is hashed in the
    /// form in which it was sent. A request over the credential's limit does not count against the subject. If there is
    /// no credential, the subject has the limit of one credential.
    ///
    /// # Errors
    /// If one of the limits is reached. The error is the time until the next token is allowed.
    pub fn check<'a>(
        &self,
        subject: &Subject,
        credential: impl Iterator<Item = &'a [u8]>,
    ) -> Result<(), Duration> {
        if self.requests.fetch_add(1, Ordering::Relaxed) % SWEEP_EVERY == SWEEP_EVERY - 1 {
            sweep(&self.credentials);
            sweep(&self.subjects);
        }
        let mut hasher = self.hasher.build_hasher();
        subject.hash(&mut hasher);
        let whole = hasher.finish();
        credential.for_each(|piece| piece.hash(&mut hasher));
        take(&self.credentials, hasher.finish())?;
        take(&self.subjects, whole)
    }
}

fn take(limiter: &Keyed, key: u64) -> Result<(), Duration> {
    limiter
        .check_key(&key)
        .map_err(|not_until| not_until.wait_time_from(limiter.clock().now()))
}

fn sweep(limiter: &Keyed) {
    if limiter.len() > KEYS_KEPT {
        limiter.retain_recent();
        limiter.shrink_to_fit();
    }
}

impl std::fmt::Debug for TokenLimiter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenLimiter").finish_non_exhaustive()
    }
}

#[derive(Clone)]
struct LimiterClock(Clock);

impl governor::clock::Clock for LimiterClock {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        self.0.monotonic().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    fn limiter(clock: &std::sync::Arc<ManualClock>) -> TokenLimiter {
        let config = RateLimitConfig {
            per_minute: 60,
            burst: 20,
        };
        TokenLimiter::new(config, &Clock::new(clock.clone())).unwrap()
    }

    fn check(limiter: &TokenLimiter, subject: &str, credential: &str) -> Result<(), Duration> {
        let credential = Some(credential.as_bytes()).filter(|credential| !credential.is_empty());
        limiter.check(&Subject::new(subject).unwrap(), credential.into_iter())
    }

    #[test]
    fn credential_over_its_burst_gets_one_token_per_second_and_other_credentials_are_served() {
        let clock = ManualClock::at(0);
        let limiter = limiter(&clock);
        assert_eq!(
            (0..30)
                .filter(|_| check(&limiter, "org", "ann").is_ok())
                .count(),
            20
        );
        assert_eq!(check(&limiter, "org", "ann"), Err(Duration::from_secs(1)));
        assert_eq!(
            check(&limiter, "org", "bob"),
            Ok(()),
            "another credential of the same subject"
        );
        assert_eq!(
            check(&limiter, "other", "ann"),
            Ok(()),
            "the same credential with another subject"
        );
        clock.advance(Duration::from_secs(1));
        assert_eq!(check(&limiter, "org", "ann"), Ok(()));
        assert!(check(&limiter, "org", "ann").is_err());
    }

    #[test]
    fn refused_requests_of_a_credential_do_not_count_against_its_subject() {
        let clock = ManualClock::at(0);
        let limiter = limiter(&clock);
        let looping = (0..10_000)
            .filter(|_| check(&limiter, "org", "loop").is_ok())
            .count();
        let honest = (0..120)
            .filter(|n| check(&limiter, "org", &format!("agent-{n}")).is_ok())
            .count();
        assert_eq!((looping, honest), (20, 120));
    }

    #[test]
    fn subject_with_changing_credentials_gets_twenty_times_the_limit_of_one_credential() {
        let clock = ManualClock::at(0);
        let limiter = limiter(&clock);
        let given = |from: u32| {
            (from..from + 1000)
                .filter(|n| check(&limiter, "org", &format!("session-{n}")).is_ok())
                .count()
        };
        assert_eq!(given(0), 400);
        assert_eq!(check(&limiter, "other", "session-0"), Ok(()));
        clock.advance(Duration::from_secs(1));
        assert_eq!(given(1000), 20);
    }

    #[test]
    fn subject_without_credential_has_the_limit_of_one_credential() {
        let clock = ManualClock::at(0);
        let limiter = limiter(&clock);
        assert_eq!(
            (0..30)
                .filter(|_| check(&limiter, "ann", "").is_ok())
                .count(),
            20
        );
        assert_eq!(check(&limiter, "bob", ""), Ok(()));
    }

    #[test]
    fn number_of_limiter_keys_is_bounded_for_a_million_subjects_and_credentials() {
        let clock = ManualClock::at(0);
        let limiter = limiter(&clock);
        for n in 0..1_000_000 {
            if n % 1000 == 0 {
                clock.advance(Duration::from_secs(1));
            }
            check(&limiter, &format!("user-{n}"), &format!("session-{n}")).unwrap();
        }
        let most = KEYS_KEPT + 2 * SWEEP_EVERY as usize;
        assert!(limiter.subjects.len() <= most && limiter.credentials.len() <= most);
    }
}
