//! How many tokens one subject may have per minute, in bounded memory.
//! What one hears who had too many is in `error.rs`.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use governor::clock::Clock as _;
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::keyed::DashMapStateStore;
use governor::{Quota, RateLimiter};

use crate::clock::Clock;
use crate::config::RateLimit;
use crate::subject::Subject;

/// Above this many subjects, those who have their full share again are forgotten: that changes
/// nothing for them.
const SUBJECTS_KEPT: usize = 10_000;
/// How many requests pass between two looks at the number of subjects.
const SWEEP_EVERY: u32 = 1024;

/// A limit per subject. Subjects are kept as 64-bit hashes under a random key.
pub struct SubjectLimiter {
    limiter: RateLimiter<u64, DashMapStateStore<u64>, LimiterClock, NoOpMiddleware<Nanos>>,
    hasher: RandomState,
    requests: AtomicU32,
}

impl SubjectLimiter {
    pub fn new(limit: RateLimit, clock: Clock) -> Self {
        let quota = Quota::per_minute(limit.per_minute).allow_burst(limit.burst);
        Self {
            limiter: RateLimiter::new(quota, DashMapStateStore::default(), LimiterClock(clock)),
            hasher: RandomState::new(),
            requests: AtomicU32::new(0),
        }
    }

    /// Takes one token from the subject's share.
    ///
    /// # Errors
    /// If the share is used up, with the time until the next token.
    pub fn check(&self, subject: &Subject) -> Result<(), Duration> {
        if self.requests.fetch_add(1, Ordering::Relaxed) % SWEEP_EVERY == SWEEP_EVERY - 1
            && self.limiter.len() > SUBJECTS_KEPT
        {
            self.limiter.retain_recent();
            self.limiter.shrink_to_fit();
        }
        let key = self.hasher.hash_one(subject.as_str());
        self.limiter.check_key(&key).map_err(|not_until| not_until.wait_time_from(self.limiter.clock().now()))
    }
}

impl std::fmt::Debug for SubjectLimiter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SubjectLimiter").finish_non_exhaustive()
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
    use std::num::NonZeroU32;

    fn limiter(clock: &std::sync::Arc<ManualClock>) -> SubjectLimiter {
        let limit =
            RateLimit { per_minute: NonZeroU32::new(60).unwrap(), burst: NonZeroU32::new(20).unwrap() };
        SubjectLimiter::new(limit, Clock::new(clock.clone()))
    }

    #[test]
    fn a_subject_gets_its_burst_then_one_a_second_and_others_are_not_touched() {
        let clock = ManualClock::at(0);
        let limiter = limiter(&clock);
        let (ann, bob) = (Subject::new("ann").unwrap(), Subject::new("bob").unwrap());
        assert_eq!((0..30).filter(|_| limiter.check(&ann).is_ok()).count(), 20);
        assert_eq!(limiter.check(&ann), Err(Duration::from_secs(1)));
        assert_eq!(limiter.check(&bob), Ok(()));
        clock.advance(Duration::from_secs(1));
        assert_eq!(limiter.check(&ann), Ok(()));
        assert!(limiter.check(&ann).is_err());
    }

    #[test]
    fn a_million_subjects_do_not_stay_in_memory() {
        let clock = ManualClock::at(0);
        let limiter = limiter(&clock);
        for n in 0..1_000_000 {
            if n % 1000 == 0 {
                clock.advance(Duration::from_secs(1));
            }
            limiter.check(&Subject::new(format!("user-{n}")).unwrap()).unwrap();
        }
        assert!(limiter.limiter.len() <= SUBJECTS_KEPT + 2 * SWEEP_EVERY as usize);
    }
}
