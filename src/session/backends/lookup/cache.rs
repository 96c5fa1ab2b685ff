//! The cache of look-up outcomes: the answers of one backend, limited in number and in bytes.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::{LookupOutcome, Question, interrupted};
use crate::clock::UnixSeconds;
use crate::json::Value;
use crate::session::types::{ExtractError, Session};

/// Limits of the caches: the number of answers per backend, the bytes of one answer, and the total bytes for all
/// backends.
const MAX_CACHED: usize = 10_000;
const MAX_CACHED_BYTES: usize = 8 * 1024;
pub(super) const MAX_CACHED_BYTES_IN_ALL: usize = 16 * 1024 * 1024;

/// The memory that a cached answer needs in addition to its bytes, rounded up: its hash and its expiry time, in a map
/// and in a queue, and the allocator's overhead.
const CACHED_OVERHEAD: usize = 256;

/// A cached outcome. The session is cached as JSON, because a parsed session takes seventeen times as much memory.
pub(super) type CachedOutcome = Result<CachedSession, ExtractError>;

#[derive(Clone)]
pub(super) struct CachedSession {
    attributes: Arc<[u8]>,
    expires_at: Option<UnixSeconds>,
}

impl CachedSession {
    pub(super) fn parse(&self) -> LookupOutcome {
        let attributes = Value::parse(&self.attributes).map_err(|_| interrupted())?;
        Ok(Session {
            attributes,
            expires_at: self.expires_at,
        })
    }
}

/// Converts the outcome to its cached form. `None` if the session is too long, or has a duplicate member, which cannot
/// be serialized.
pub(super) fn to_cached(outcome: &LookupOutcome) -> Option<CachedOutcome> {
    let session = match outcome {
        Ok(session) => session,
        Err(error) => return Some(Err(error.clone())),
    };
    let attributes = serde_json::to_vec(&session.attributes).ok()?;
    let is_short = attributes.len() <= MAX_CACHED_BYTES;
    is_short.then(|| {
        Ok(CachedSession {
            attributes: attributes.into(),
            expires_at: session.expires_at,
        })
    })
}

/// Cached outcomes, and the order in which they were added.
#[derive(Default)]
pub(super) struct Cache {
    outcomes: HashMap<Question, (Duration, CachedOutcome)>,
    order: VecDeque<(Duration, Question)>,
    bytes: usize,
}

impl Cache {
    pub(super) fn get(&self, question: Question, now: Duration) -> Option<CachedOutcome> {
        let (until, outcome) = self.outcomes.get(&question)?;
        (now < *until).then(|| outcome.clone())
    }

    /// Adds an outcome, unless it alone exceeds `max_bytes`. First removes the oldest outcomes while the oldest has
    /// expired, or while [`MAX_CACHED`] and `max_bytes` do not allow one more.
    pub(super) fn put(
        &mut self,
        question: Question,
        outcome: CachedOutcome,
        now: Duration,
        until: Duration,
        max_bytes: usize,
    ) {
        let bytes = size(&outcome);
        if bytes > max_bytes {
            return;
        }
        while let Some((end, oldest)) = self.order.front().copied() {
            if now < end && self.order.len() < MAX_CACHED && self.bytes + bytes <= max_bytes {
                break;
            }
            self.order.pop_front();
            if self
                .outcomes
                .get(&oldest)
                .is_some_and(|(until, _)| *until == end)
            {
                self.remove(oldest);
            }
        }
        self.remove(question);
        self.bytes += bytes;
        self.outcomes.insert(question, (until, outcome));
        self.order.push_back((until, question));
    }

    fn remove(&mut self, question: Question) {
        if let Some((_, outcome)) = self.outcomes.remove(&question) {
            self.bytes -= size(&outcome);
        }
    }
}

fn size(outcome: &CachedOutcome) -> usize {
    CACHED_OVERHEAD
        + outcome
            .as_ref()
            .map_or(0, |session| session.attributes.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    const A_WHILE: Duration = Duration::from_secs(5);

    fn question(text: &str) -> Question {
        Question::new([text.as_bytes()])
    }

    #[test]
    fn at_most_10_000_answers_are_cached() {
        const TOKENS: usize = 1_000_000;
        const MOST: usize = MAX_CACHED_BYTES_IN_ALL;
        let (mut cache, answer) = (
            Cache::default(),
            to_cached(&Ok(Session::of_subject("ann"))).unwrap(),
        );
        let of = |n: usize| question(&n.to_string());
        for n in 0..TOKENS {
            cache.put(of(n), answer.clone(), Duration::ZERO, A_WHILE, MOST);
        }
        assert_eq!(
            (cache.outcomes.len(), cache.order.len()),
            (MAX_CACHED, MAX_CACHED)
        );
        assert!(
            cache.get(of(0), Duration::ZERO).is_none(),
            "the oldest was evicted"
        );
        assert!(cache.get(of(TOKENS - 1), Duration::ZERO).is_some());
        cache.put(of(0), answer.clone(), A_WHILE, 2 * A_WHILE, MOST);
        assert_eq!(
            (cache.outcomes.len(), cache.order.len()),
            (1, 1),
            "expired answers were evicted"
        );
        cache.put(of(0), answer.clone(), A_WHILE, 3 * A_WHILE, MOST);
        assert_eq!(cache.bytes, size(&answer), "counted once");
    }

    #[test]
    fn cached_answers_use_at_most_16_mib() {
        let session = |text: &str| Session::of_subject(&text.repeat(1000));
        let mut cache = Cache::default();
        for n in 0..9000 {
            let answer = to_cached(&Ok(session("8 bytes "))).expect("short enough");
            cache.put(
                question(&n.to_string()),
                answer,
                Duration::ZERO,
                A_WHILE,
                MAX_CACHED_BYTES_IN_ALL,
            );
        }
        assert!(
            (1900..2100).contains(&cache.outcomes.len()),
            "{}",
            cache.outcomes.len()
        );
        let sum: usize = cache
            .outcomes
            .values()
            .map(|(_, answer)| size(answer))
            .sum();
        assert_eq!(cache.bytes, sum);
        assert!(sum <= MAX_CACHED_BYTES_IN_ALL);
        assert!(
            to_cached(&Ok(session("9 bytes. "))).is_none(),
            "longer than 8 KiB"
        );
    }

    #[test]
    fn session_is_cached_unchanged_unless_it_has_a_duplicate_member() {
        let json =
            r#"{"id":9007199254740993,"name":"Zoë \u0000","list":[1,null,true,1.5,{"a":{}}]}"#;
        let session = |json: &str| Session {
            attributes: Value::parse(json.as_bytes()).unwrap(),
            expires_at: Some(7),
        };
        let Some(Ok(cached)) = to_cached(&Ok(session(json))) else {
            panic!("not cached")
        };
        let parsed = cached.parse().unwrap();
        assert_eq!(
            (parsed.attributes, parsed.expires_at),
            (session(json).attributes, Some(7))
        );
        assert!(to_cached(&Ok(session(r#"{"id":1,"a":{"b":1,"b":2}}"#))).is_none());
    }
}
