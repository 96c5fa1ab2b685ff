//! A bounded set of connections to a session store, each lent to one request at a time.
//! What is said on a connection is the store's business.

use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};
use tracing::Instrument;

use crate::config::{HumanDuration, Problems, Section};
use crate::session::backends::Context;
use crate::session::backends::health::BackendHealth;
use crate::session::backends::waiting::Waiting;
use crate::session::types::{ExtractError, Readiness};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::spans;

/// A firewall in between forgets silent connections after minutes; younger ones are worth keeping.
const IDLE: Duration = Duration::from_secs(60);

/// What a pool connects to, and asks.
pub trait Store: fmt::Debug + Send + Sync + 'static {
    type Connection: Send + 'static;
    type Question: Sync + ?Sized;
    type Answer: Send;

    /// What it is, as traces name it.
    fn system(&self) -> &'static str;

    /// Which of its statements a question is, from 0 to 7: one may be refused while another is answered.
    fn statement(_: &Self::Question) -> u8 {
        0
    }

    fn connect(&self) -> impl Future<Output = Result<Self::Connection, Failure>> + Send;

    /// Asks one thing. `Ok` only after the whole answer was read: the connection is then used again.
    fn ask(
        &self,
        connection: &mut Self::Connection,
        question: &Self::Question,
    ) -> impl Future<Output = Result<Self::Answer, Failure>> + Send;
}

/// Why a store gave nothing to work with.
#[derive(Debug)]
pub enum Failure {
    /// The connection broke or makes no sense; the text is the transport's.
    Lost(String),
    /// The store answered, and this is what it means.
    Said(ExtractError),
    /// The same, after an answer so long that the connection is closed to free its buffer.
    Oversized(ExtractError),
}

/// How much one store may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub connections: usize,
    /// For a free connection, while all are lent.
    pub wait: Duration,
    /// For connecting, asking and reading the answer together.
    pub operation: Duration,
}

impl Limits {
    /// The limits of a section with the keys `max_connections`, `pool_wait` and `timeout`.
    pub fn read(
        section: &Section<'_>,
        connections: usize,
        wait: HumanDuration,
        operation: HumanDuration,
        problems: &mut Problems,
    ) -> Self {
        problems.require(
            (1..=256).contains(&connections),
            section.key("max_connections"),
            "must be from 1 to 256",
        );
        for (key, span) in [("pool_wait", wait), ("timeout", operation)] {
            problems.require(
                (Duration::from_millis(1)..=Duration::from_secs(10)).contains(&span.0),
                section.key(key),
                "must be from 1ms to 10s",
            );
        }
        section.check_timeouts(&[("pool_wait", wait)], problems);
        section.check_timeouts(&[("timeout", operation)], problems);
        Self {
            connections: connections.clamp(1, 256),
            wait: wait.0,
            operation: operation.0,
        }
    }
}

/// Lends connections. A request that is cancelled or runs out of time takes its connection with it:
/// an answer still on its way can never be read by the next request.
pub struct Pool<S: Store> {
    store: S,
    name: Arc<str>,
    limits: Limits,
    /// The requests that await the store, on a connection or for one.
    waiting: Arc<Waiting>,
    permits: Semaphore,
    idle: Mutex<Vec<(S::Connection, Instant)>>,
    health: BackendHealth,
    metrics: Arc<Metrics>,
}

/// Errors that mean the store is down, as opposed to busy or a bad query.
const DOWN: [&str; 3] = ["store_unreachable", "store_timeout", "store_refused"];

impl<S: Store> Pool<S> {
    /// A pool for the extractor of `section`; it connects when it is first asked.
    pub fn new(
        section: &Section<'_>,
        context: &Context,
        store: S,
        limits: Limits,
        waiting: Arc<Waiting>,
    ) -> Arc<Self> {
        Arc::new(Self {
            store,
            name: Arc::from(section.name()),
            limits,
            waiting,
            permits: Semaphore::new(limits.connections),
            idle: Mutex::default(),
            health: BackendHealth::new(section.name(), &context.clock),
            metrics: context.metrics.clone(),
        })
    }

    /// What the store says to `question`.
    pub async fn ask(&self, question: &S::Question) -> Result<S::Answer, ExtractError> {
        let started = Instant::now();
        let span = spans::store_span(self.store.system());
        let answer = self.ask_in_time(question).instrument(span.clone()).await;
        if let Err(ExtractError::Unavailable(cause)) = &answer {
            spans::record_failure(&span, cause.word);
        }
        let statement = S::statement(question);
        let result = match &answer {
            Err(ExtractError::Unavailable(cause)) => {
                if DOWN.contains(&cause.word) {
                    self.health
                        .failed(statement, cause.word, cause.detail.as_deref());
                }
                cause.word
            }
            // A session that is refused was still looked up well.
            Ok(_) | Err(ExtractError::NotMine(..) | ExtractError::Rejected(_)) => {
                self.health.answered(statement);
                "ok"
            }
        };
        self.metrics
            .backend_call(&self.name, result, started.elapsed());
        answer
    }

    /// `Stale` if the last call of one of the statements failed.
    pub fn readiness(&self) -> Readiness {
        self.health.readiness()
    }

    async fn ask_in_time(&self, question: &S::Question) -> Result<S::Answer, ExtractError> {
        let Some(_place) = self.waiting.enter() else {
            return Err(ExtractError::unavailable("store_busy")
                .because("max_waiting requests await the store"));
        };
        let Ok(Ok(_permit)) = timeout(self.limits.wait, self.permits.acquire()).await else {
            return Err(
                ExtractError::unavailable("store_busy").because("all connections are in use")
            );
        };
        match timeout(self.limits.operation, self.ask_twice(question)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(Failure::Said(error) | Failure::Oversized(error))) => Err(error),
            Ok(Err(Failure::Lost(text))) => {
                Err(ExtractError::unavailable("store_unreachable").because(text))
            }
            Err(_) => {
                Err(ExtractError::unavailable("store_timeout").because("no whole answer in time"))
            }
        }
    }

    /// A kept connection may have gone stale, which shows only when it is used: then a new one is tried.
    async fn ask_twice(&self, question: &S::Question) -> Result<S::Answer, Failure> {
        if let Some(kept) = self.take() {
            match self.ask_on(kept, question).await {
                Err(Failure::Lost(_)) => self.lock().clear(),
                answer => return answer,
            }
        }
        let new = self.store.connect().await?;
        self.ask_on(new, question).await
    }

    /// The connection is owned here until its whole answer was read, so it is dropped in all other cases.
    async fn ask_on(
        &self,
        mut connection: S::Connection,
        question: &S::Question,
    ) -> Result<S::Answer, Failure> {
        let answer = self.store.ask(&mut connection, question).await;
        if matches!(
            answer,
            Ok(_) | Err(Failure::Said(ExtractError::Rejected(_)))
        ) {
            self.keep(connection);
        }
        answer
    }

    /// Connects ahead of the first request. A store that is down is no reason not to start.
    pub fn warm(self: &Arc<Self>) {
        let pool = self.clone();
        tokio::spawn(async move {
            let Ok(_permit) = pool.permits.acquire().await else {
                return;
            };
            match timeout(pool.limits.operation, pool.store.connect()).await {
                Ok(Ok(connection)) => pool.keep(connection),
                Ok(Err(failure)) => {
                    pool.health
                        .failed(0, "store_unreachable", Some(&failure.to_string()));
                }
                Err(_) => pool.health.failed(0, "store_timeout", None),
            }
        });
    }

    fn take(&self) -> Option<S::Connection> {
        let mut idle = self.lock();
        idle.retain(|(_, since)| since.elapsed() < IDLE);
        idle.pop().map(|(connection, _)| connection)
    }

    fn keep(&self, connection: S::Connection) {
        self.lock().push((connection, Instant::now()));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<(S::Connection, Instant)>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: Store> fmt::Debug for Pool<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("store", &self.store)
            .finish_non_exhaustive()
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost(text) => f.write_str(text),
            Self::Said(ExtractError::Unavailable(cause))
            | Self::Oversized(ExtractError::Unavailable(cause)) => {
                f.write_str(cause.detail.as_deref().unwrap_or(cause.word))
            }
            Self::Said(error) | Self::Oversized(error) => f.write_str(error.word()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// Answers with the number of the connection; keys say what goes wrong.
    #[derive(Debug, Default)]
    struct Fake {
        connected: AtomicUsize,
        /// Connections up to this one are broken when they are used.
        broken: AtomicUsize,
    }

    impl Store for Fake {
        type Connection = usize;
        type Question = str;
        type Answer = usize;

        fn system(&self) -> &'static str {
            "fake"
        }

        fn statement(key: &str) -> u8 {
            u8::from(key.starts_with("the users' "))
        }

        async fn connect(&self) -> Result<usize, Failure> {
            Ok(self.connected.fetch_add(1, Ordering::SeqCst) + 1)
        }

        async fn ask(&self, connection: &mut usize, key: &str) -> Result<usize, Failure> {
            if *connection <= self.broken.load(Ordering::SeqCst) {
                return Err(Failure::Lost("broken".to_owned()));
            }
            match key {
                "never" => std::future::pending().await,
                "slow" => tokio::time::sleep(Duration::from_millis(200)).await,
                "wrong" => return Err(Failure::Said(ExtractError::rejected("session_corrupt"))),
                "long" => {
                    return Err(Failure::Oversized(ExtractError::rejected(
                        "session_corrupt",
                    )));
                }
                "down" | "the users' down" => {
                    return Err(Failure::Said(ExtractError::unavailable("store_refused")));
                }
                _ => {}
            }
            Ok(*connection)
        }
    }

    fn pool(connections: usize) -> Arc<Pool<Fake>> {
        pool_with(connections, Some(1000))
    }

    fn pool_with(connections: usize, max_waiting: Option<usize>) -> Arc<Pool<Fake>> {
        let limits = Limits {
            connections,
            wait: Duration::from_millis(250),
            operation: Duration::from_millis(500),
        };
        Arc::new(Pool {
            store: Fake::default(),
            name: Arc::from("test"),
            limits,
            waiting: Waiting::new(max_waiting, &Arc::default()),
            permits: Semaphore::new(connections),
            idle: Mutex::default(),
            health: BackendHealth::new("test", &Clock::system()),
            metrics: Arc::default(),
        })
    }

    fn word(answer: Result<usize, ExtractError>) -> Result<usize, &'static str> {
        answer.map_err(|error| error.word())
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_used_again_only_after_a_whole_answer() {
        let pool = pool(1);
        assert_eq!(word(pool.ask("a").await), Ok(1));
        assert_eq!(word(pool.ask("wrong").await), Err("session_corrupt"));
        assert_eq!(
            word(pool.ask("b").await),
            Ok(1),
            "a refused session is a whole answer"
        );
        assert_eq!(word(pool.ask("never").await), Err("store_timeout"));
        assert_eq!(
            word(pool.ask("c").await),
            Ok(2),
            "its answer may still come"
        );
        assert!(
            timeout(Duration::from_millis(1), pool.ask("slow"))
                .await
                .is_err(),
            "cancelled"
        );
        assert_eq!(word(pool.ask("d").await), Ok(3));
        assert_eq!(pool.readiness(), Readiness::Ready);
        assert_eq!(word(pool.ask("down").await), Err("store_refused"));
        assert_eq!(pool.readiness(), Readiness::Stale);
        assert_eq!(
            word(pool.ask("e").await),
            Ok(4),
            "another server may have taken over"
        );
        assert_eq!(pool.readiness(), Readiness::Ready);
        assert_eq!(word(pool.ask("long").await), Err("session_corrupt"));
        assert_eq!(
            word(pool.ask("f").await),
            Ok(5),
            "a long answer leaves a large buffer"
        );
        assert_eq!(pool.readiness(), Readiness::Ready);
    }

    #[tokio::test(start_paused = true)]
    async fn a_statement_that_is_refused_is_not_forgotten_for_another() {
        let pool = pool(1);
        for _ in 0..3 {
            assert_eq!(
                word(pool.ask("the users' down").await),
                Err("store_refused")
            );
            assert!(pool.ask("a").await.is_ok());
            assert_eq!(pool.readiness(), Readiness::Stale);
        }
        for _ in 0..3 {
            assert!(pool.ask("the users' a").await.is_ok());
            assert!(pool.ask("a").await.is_ok());
            assert_eq!(pool.readiness(), Readiness::Ready);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_stale_connection_is_replaced_once() {
        let pool = pool(2);
        assert_eq!(word(pool.ask("a").await), Ok(1));
        pool.store.broken.store(1, Ordering::SeqCst);
        assert_eq!(word(pool.ask("b").await), Ok(2));
        pool.store.broken.store(9, Ordering::SeqCst);
        assert_eq!(word(pool.ask("c").await), Err("store_unreachable"));
        assert_eq!(pool.store.connected.load(Ordering::SeqCst), 3);
        pool.store.broken.store(0, Ordering::SeqCst);
        assert_eq!(word(pool.ask("d").await), Ok(4));
        tokio::time::advance(IDLE).await;
        assert_eq!(word(pool.ask("e").await), Ok(5), "too old to be trusted");
    }

    #[tokio::test(start_paused = true)]
    async fn a_crowd_waits_within_bounds() {
        let pool = pool(8);
        let mut crowd = tokio::task::JoinSet::new();
        for _ in 0..1000 {
            let pool = pool.clone();
            crowd.spawn(async move { word(pool.ask("slow").await) });
        }
        let answers = crowd.join_all().await;
        assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 16);
        assert_eq!(
            answers
                .iter()
                .filter(|answer| **answer == Err("store_busy"))
                .count(),
            984
        );
        assert_eq!(pool.store.connected.load(Ordering::SeqCst), 8);
    }

    #[tokio::test(start_paused = true)]
    async fn requests_beyond_max_waiting_are_refused_without_a_wait() {
        let pool = pool_with(1, Some(2));
        let began = Instant::now();
        let (first, second, third) = tokio::join!(pool.ask("slow"), pool.ask("a"), async {
            let refused = pool.ask("b").await;
            (refused, began.elapsed())
        });
        assert_eq!((word(first), word(second)), (Ok(1), Ok(1)));
        assert_eq!(
            (word(third.0), third.1),
            (Err("store_busy"), Duration::ZERO)
        );
        assert_eq!(
            word(pool.ask("c").await),
            Ok(1),
            "the places are free again"
        );
    }
}
