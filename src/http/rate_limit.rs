//! How many tokens are given out per minute for one credential and for one subject, in bounded memory.
//! The answer to a caller over the limit is in `error.rs`.

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

/// A subject has this many times the share of one of its credentials. Many people may share a subject, such as
/// an organisation; a loop whose credential changes with each call ends here.
const CREDENTIALS_PER_SUBJECT: NonZeroU32 = NonZeroU32::new(20).expect("20 is not 0");
/// Above this many keys, those with their full share again are dropped, which changes nothing for them. One
/// request lengthens the life of its key by the time for one token, so a limiter holds no more than the
/// requests of that time and these.
const KEYS_KEPT: usize = 10_000;
/// How many requests pass between two looks at the number of keys.
const SWEEP_EVERY: u32 = 1024;

type Keyed = RateLimiter<u64, DashMapStateStore<u64>, LimiterClock, NoOpMiddleware<Nanos>>;

/// A limit for each credential of a subject, and one for the subject as a whole. Both are kept as 64-bit hashes
/// under a random key.
pub struct TokenLimiter {
    credentials: Keyed,
    subjects: Keyed,
    hasher: RandomState,
    requests: AtomicU32,
}

impl TokenLimiter {
    /// `None` if the limit is switched off.
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
        let times = |share: NonZeroU32| share.saturating_mul(CREDENTIALS_PER_SUBJECT);
        Some(Self {
            credentials: keyed(per_minute, burst),
            subjects: keyed(times(per_minute), times(burst)),
            hasher: RandomState::new(),
            requests: AtomicU32::new(0),
        })
    }

    /// Takes one token from the share of the credential, given as it was sent, and one from the subject's. A
    /// credential over its limit takes nothing from the subject. Without a credential the subject is one itself.
    ///
    /// # Errors
    /// If a share is used up, with the time until the next token.
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
    fn credential_over_its_burst_gets_one_token_a_second_and_others_are_served() {
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
            "another credential of the subject"
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
    fn refused_credential_takes_nothing_from_its_subject() {
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
    fn changing_credentials_of_one_subject_end_at_twenty_times_the_share() {
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
    fn subject_without_credential_has_the_share_of_one() {
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
    fn a_million_subjects_and_credentials_do_not_stay_in_memory() {
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
