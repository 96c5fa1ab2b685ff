//! The cache of look-up outcomes: the answers of one backend, limited in number and in bytes.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use super::{LookupOutcome, Question, interrupted};
use crate::clock::UnixSeconds;
use crate::json::Value;
use crate::session::types::{ExtractError, Session};

/// Limits of the caches: the numbers of sessions and of refusals per backend, the bytes of one answer, and the total
/// bytes for all backends.
const MAX_SESSIONS: usize = 10_000;
const MAX_REFUSALS: usize = 1000;
const MAX_CACHED_BYTES: usize = 8 * 1024;
pub(super) const MAX_CACHED_BYTES_IN_ALL: usize = 16 * 1024 * 1024;

/// The divisor for the bytes that are reserved for refusals: a sixteenth of a backend's bytes.
const REFUSALS_SHARE: usize = 16;

/// The memory that a cached answer needs in addition to its bytes, rounded up: the hash of its question and its expiry
/// time, in a map and in an ordered set, and the allocator's overhead.
const CACHED_OVERHEAD: usize = 320;

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

/// Cached outcomes. Refusals have their own room: a caller can cause any number of refusals with made-up credentials,
/// and these refusals must not evict the sessions of other callers.
pub(super) struct Cache {
    sessions: Room,
    refusals: Room,
}

/// A limited number of cached outcomes, in the order in which they expire.
struct Room {
    max_outcomes: usize,
    outcomes: HashMap<Question, (Duration, CachedOutcome)>,
    order: BTreeSet<(Duration, Question)>,
    bytes: usize,
}

impl Default for Cache {
    fn default() -> Self {
        Self {
            sessions: Room::new(MAX_SESSIONS),
            refusals: Room::new(MAX_REFUSALS),
        }
    }
}

impl Cache {
    pub(super) fn get(&self, question: Question, now: Duration) -> Option<CachedOutcome> {
        let session = self.sessions.get(question, now);
        session.or_else(|| self.refusals.get(question, now))
    }

    /// Adds an outcome. The sessions and the refusals together take at most `max_bytes`.
    pub(super) fn put(
        &mut self,
        question: Question,
        outcome: CachedOutcome,
        now: Duration,
        until: Duration,
        max_bytes: usize,
    ) {
        let for_refusals = max_bytes / REFUSALS_SHARE;
        let (room, max_bytes) = match outcome {
            Ok(_) => (&mut self.sessions, max_bytes - for_refusals),
            Err(_) => (&mut self.refusals, for_refusals),
        };
        room.put(question, outcome, now, until, max_bytes);
    }
}

impl Room {
    fn new(max_outcomes: usize) -> Self {
        Self {
            max_outcomes,
            outcomes: HashMap::new(),
            order: BTreeSet::new(),
            bytes: 0,
        }
    }

    fn get(&self, question: Question, now: Duration) -> Option<CachedOutcome> {
        let (until, outcome) = self.outcomes.get(&question)?;
        (now < *until).then(|| outcome.clone())
    }

    /// Adds an outcome, unless it alone exceeds `max_bytes`. First removes all expired outcomes, and then those that
    /// expire next, until `max_outcomes` and `max_bytes` allow one more.
    fn put(
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
        self.remove(question);
        while let Some(&(end, next)) = self.order.first() {
            let has_room = self.order.len() < self.max_outcomes && self.bytes + bytes <= max_bytes;
            if now < end && has_room {
                break;
            }
            self.remove(next);
        }
        self.bytes += bytes;
        self.outcomes.insert(question, (until, outcome));
        self.order.insert((until, question));
    }

    fn remove(&mut self, question: Question) {
        if let Some((until, outcome)) = self.outcomes.remove(&question) {
            self.order.remove(&(until, question));
            self.bytes -= size(&outcome);
        }
    }
}

fn size(outcome: &CachedOutcome) -> usize {
    let length = |session: &CachedSession| session.attributes.len();
    CACHED_OVERHEAD + outcome.as_ref().map_or(0, length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::reason::Reason;

    const A_WHILE: Duration = Duration::from_secs(5);

    fn question(text: &str) -> Question {
        Question::new([text.as_bytes()])
    }

    fn inactive() -> CachedOutcome {
        Err(ExtractError::rejected(Reason::Inactive))
    }

    #[test]
    fn at_most_10_000_sessions_and_1000_refusals_are_cached() {
        const TOKENS: usize = 100_000;
        const MOST: usize = MAX_CACHED_BYTES_IN_ALL;
        let session = to_cached(&Ok(Session::of_subject("ann"))).unwrap();
        let of = |n: usize| question(&n.to_string());
        for (answer, max) in [(session, MAX_SESSIONS), (inactive(), MAX_REFUSALS)] {
            let mut cache = Cache::default();
            let lengths = |cache: &Cache| {
                let rooms = [&cache.sessions, &cache.refusals];
                let outcomes: usize = rooms.iter().map(|room| room.outcomes.len()).sum();
                let order: usize = rooms.iter().map(|room| room.order.len()).sum();
                (outcomes, order)
            };
            for n in 0..TOKENS {
                let until = A_WHILE + Duration::from_micros(n as u64);
                cache.put(of(n), answer.clone(), Duration::ZERO, until, MOST);
            }
            assert_eq!(lengths(&cache), (max, max));
            assert!(
                cache.get(of(TOKENS - max - 1), Duration::ZERO).is_none(),
                "the one that expires first was evicted"
            );
            assert!(cache.get(of(TOKENS - max), Duration::ZERO).is_some());
            cache.put(of(0), answer.clone(), 2 * A_WHILE, 3 * A_WHILE, MOST);
            assert_eq!(lengths(&cache), (1, 1), "expired answers were evicted");
            cache.put(of(0), answer.clone(), 2 * A_WHILE, 4 * A_WHILE, MOST);
            let bytes = cache.sessions.bytes + cache.refusals.bytes;
            assert_eq!(bytes, size(&answer), "counted once");
        }
    }

    #[test]
    fn expired_session_is_evicted_before_a_live_one_that_is_older() {
        let session = to_cached(&Ok(Session::of_subject("ann"))).unwrap();
        let mut room = Room::new(2);
        let seconds = Duration::from_secs;
        for (name, now, until) in [("live", 0, 60), ("expired", 1, 2), ("new", 3, 60)] {
            room.put(
                question(name),
                session.clone(),
                seconds(now),
                seconds(until),
                MAX_CACHED_BYTES_IN_ALL,
            );
        }
        for (name, is_cached) in [("live", true), ("expired", false), ("new", true)] {
            let found = room.get(question(name), seconds(3));
            assert_eq!(found.is_some(), is_cached, "{name}");
        }
        assert_eq!(room.outcomes.len(), 2);
    }

    /// The sessions of 500 users are cached for 60 s, and a caller sends 250 made-up tokens a second, whose refusals
    /// are cached for 5 s.
    #[test]
    fn refusals_of_made_up_tokens_evict_no_session() {
        const MOST: usize = MAX_CACHED_BYTES_IN_ALL;
        let seconds = Duration::from_secs;
        let session = to_cached(&Ok(Session::of_subject("ann"))).unwrap();
        let mut cache = Cache::default();
        let user = |n: usize| question(&format!("user {n}"));
        for n in 0..500 {
            cache.put(user(n), session.clone(), Duration::ZERO, seconds(60), MOST);
        }
        for second in 0..60 {
            let now = seconds(second);
            for n in 0..250 {
                let made_up = question(&format!("made up {second} {n}"));
                cache.put(made_up, inactive(), now, now + A_WHILE, MOST);
                assert!(cache.get(made_up, now).is_some(), "refusals are cached");
            }
            let cached = (0..500).filter(|n| cache.get(user(*n), now).is_some());
            assert_eq!(cached.count(), 500, "after {second} s");
        }
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
        let sessions = cache.sessions.outcomes.len();
        assert!((1800..2000).contains(&sessions), "{sessions}");
        for n in 0..2 * MAX_REFUSALS {
            cache.put(
                question(&format!("made up {n}")),
                inactive(),
                Duration::ZERO,
                A_WHILE,
                MAX_CACHED_BYTES_IN_ALL,
            );
        }
        let mut sum = 0;
        for room in [&cache.sessions, &cache.refusals] {
            let bytes: usize = room.outcomes.values().map(|(_, answer)| size(answer)).sum();
            assert_eq!(room.bytes, bytes);
            sum += bytes;
        }
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
