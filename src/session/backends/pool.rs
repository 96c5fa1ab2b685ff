//! A pool of connections to a session store. Each connection is used by one request at a time. The extractor implements
//! the store's protocol.

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::Instrument;

use crate::config::{HumanDuration, Problems, Section};
use crate::session::backends::Context;
use crate::session::backends::health::BackendHealth;
use crate::session::backends::waiting::Waiting;
use crate::session::reason::Reason;
use crate::session::types::{BackendCall, BackendReport, ExtractError, Readiness};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::spans;

/// Idle connections are closed after this time. Firewalls drop the state of silent connections after some minutes, and
/// the first query on such a connection would time out.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// The store behind a pool, which opens connections and runs queries on them.
pub trait Store: fmt::Debug + Send + Sync + 'static {
    type Connection: Send + 'static;
    type Question: Sync + ?Sized;
    type Answer: Send;

    /// The value of the attribute `db.system.name` in traces.
    fn system(&self) -> &'static str;

    /// The number of the statement, from 0 to 7. The health of each statement is tracked separately, because a store
    /// may refuse one statement (for example for lack of privileges) and answer another.
    fn statement(_: &Self::Question) -> u8 {
        0
    }

    /// The host and port, or the file, without user name and password, for logs.
    fn address(&self) -> String;

    /// Advice that is added to the error if the store accepts no connection in time.
    fn connect_advice(&self) -> &'static str {
        ""
    }

    fn connect(&self) -> impl Future<Output = Result<Self::Connection, StoreError>> + Send;

    /// Runs one query. Returns `Ok` only after reading the complete answer, because the connection is then reused.
    fn ask(
        &self,
        connection: &mut Self::Connection,
        question: &Self::Question,
    ) -> impl Future<Output = Result<Self::Answer, StoreError>> + Send;
}

/// Why a query failed.
#[derive(Debug)]
pub enum StoreError {
    /// The connection broke, or the store's data violates its protocol. The text is the error message.
    Lost(String),
    /// The store answered, and this is the error that follows from the answer.
    Said(ExtractError),
    /// Like `Said`, but the answer was so long that the connection is closed to free its buffer.
    Oversized(ExtractError),
}

/// The limits of one pool.
#[derive(Clone, Copy, Debug)]
pub struct PoolLimits {
    pub connections: usize,
    /// The timeout for waiting for a free connection.
    pub wait: Duration,
    /// The total timeout for connecting, sending the query and reading the answer.
    pub operation: Duration,
}

impl PoolLimits {
    /// Validates the keys `max_connections`, `pool_wait` and `timeout` of a section.
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
        for (key, duration) in [("pool_wait", wait), ("timeout", operation)] {
            problems.require(
                (Duration::from_millis(1)..=Duration::from_secs(10)).contains(&duration.0),
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

/// Connections that are opened on demand and reused. If a request is cancelled or times out, its connection is closed,
/// so that the next request can never read an answer that is still in transit.
pub struct Pool<S: Store> {
    store: S,
    name: Arc<str>,
    limits: PoolLimits,
    /// Limits the requests that use a connection or wait for a free one.
    waiting: Arc<Waiting>,
    permits: Semaphore,
    idle: SharedIdle<S::Connection>,
    health: BackendHealth,
    metrics: Arc<Metrics>,
}

type SharedIdle<C> = Arc<Mutex<Idle<C>>>;

/// The idle connections, each with the time at which it became idle, in the order of these times.
struct Idle<C> {
    connections: VecDeque<(C, Instant)>,
    /// The task that closes connections at their idle timeout. It runs while there are idle connections, and is aborted
    /// when the pool is dropped.
    closer: Option<AbortHandle>,
}

impl<C> Default for Idle<C> {
    fn default() -> Self {
        Self {
            connections: VecDeque::new(),
            closer: None,
        }
    }
}

impl<C> Drop for Idle<C> {
    fn drop(&mut self) {
        if let Some(closer) = &self.closer {
            closer.abort();
        }
    }
}

/// Errors that mean the store is down, as opposed to busy or a bad query.
const DOWN: [Reason; 3] = [
    Reason::StoreUnreachable,
    Reason::StoreTimeout,
    Reason::StoreRefused,
];

impl<S: Store> Pool<S> {
    /// Creates the pool for the extractor of `section`. It connects on the first query, or in [`Self::warm`].
    pub fn new(
        section: &Section<'_>,
        context: &Context,
        store: S,
        limits: PoolLimits,
        waiting: Arc<Waiting>,
    ) -> Arc<Self> {
        Arc::new(Self {
            store,
            name: Arc::from(section.name()),
            limits,
            waiting,
            permits: Semaphore::new(limits.connections),
            idle: Arc::default(),
            health: BackendHealth::new(section.name(), &context.clock),
            metrics: context.metrics.clone(),
        })
    }

    /// Runs one query within the limits, and records its result in metrics, traces and health.
    pub async fn ask(&self, question: &S::Question) -> Result<S::Answer, ExtractError> {
        let started = Instant::now();
        let span = spans::store_span(self.store.system());
        let answer = self.ask_in_time(question).instrument(span.clone()).await;
        if let Err(ExtractError::Unavailable(cause)) = &answer {
            spans::record_failure(&span, cause.reason.as_str());
        }
        let statement = S::statement(question);
        let result = match &answer {
            Err(ExtractError::Unavailable(cause)) => {
                if DOWN.contains(&cause.reason) {
                    self.health
                        .failed(statement, cause.reason.as_str(), cause.detail.as_deref());
                }
                cause.reason.as_str()
            }
            // A refused session is not a failure of the store.
            Ok(_) | Err(ExtractError::NotMine(..) | ExtractError::Rejected(_)) => {
                self.health.answered(statement);
                "ok"
            }
        };
        self.metrics
            .backend_call(&self.name, result, started.elapsed());
        answer
    }

    /// The description of a request's queries, as `doctor` and `explain` print it.
    pub fn call(&self, queries: u32) -> BackendCall {
        BackendCall {
            backend: self.store.system().to_owned(),
            at_most: (self.limits.wait + self.limits.operation) * queries,
        }
    }

    /// Sends `question`, which is for a session that does not exist, and reports the answer to `doctor`.
    pub async fn probe(&self, what: &str, question: &S::Question) -> BackendReport {
        let asking = async {
            match self.ask(question).await {
                Err(ExtractError::Unavailable(cause)) => Err(cause.to_string()),
                Err(error) => Ok(format!("it answers ({})", error.reason().as_str())),
                Ok(_) => Ok("it answers".to_owned()),
            }
        };
        BackendReport::of(format!("{what} in {}", self.store.system()), asking).await
    }

    /// `Stale` if the last call with any statement failed.
    pub fn readiness(&self) -> Readiness {
        self.health.readiness()
    }

    async fn ask_in_time(&self, question: &S::Question) -> Result<S::Answer, ExtractError> {
        let Some(_place) = self.waiting.enter() else {
            return Err(ExtractError::unavailable(Reason::StoreBusy)
                .because("max_waiting is reached: too many requests wait for the store"));
        };
        let Ok(Ok(_permit)) = timeout(self.limits.wait, self.permits.acquire()).await else {
            return Err(
                ExtractError::unavailable(Reason::StoreBusy).because("all connections are in use")
            );
        };
        let connected = AtomicBool::new(false);
        match timeout(self.limits.operation, self.ask_twice(question, &connected)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(StoreError::Said(error) | StoreError::Oversized(error))) => Err(error),
            Ok(Err(StoreError::Lost(text))) => {
                Err(ExtractError::unavailable(Reason::StoreUnreachable)
                    .because(format!("{}: {text}", self.store.address())))
            }
            Err(_) => {
                let address = self.store.address();
                let limit = HumanDuration(self.limits.operation);
                let (what, advice) = if connected.into_inner() {
                    ("no complete answer", "")
                } else {
                    ("no connection", self.store.connect_advice())
                };
                let detail =
                    format!("{address}: {what} within {limit} (set by the key timeout){advice}");
                Err(ExtractError::unavailable(Reason::StoreTimeout).because(detail))
            }
        }
    }

    /// Tries an idle connection first. The store may have closed it, which is detected only when the connection is
    /// used. The query is then repeated on a new connection, and the other idle connections are dropped, because they
    /// are probably closed too.
    async fn ask_twice(
        &self,
        question: &S::Question,
        connected: &AtomicBool,
    ) -> Result<S::Answer, StoreError> {
        if let Some(idle) = self.take() {
            connected.store(true, Ordering::Relaxed);
            match self.ask_on(idle, question).await {
                Err(StoreError::Lost(_)) => lock(&self.idle).connections.clear(),
                answer => return answer,
            }
        }
        connected.store(false, Ordering::Relaxed);
        let new = self.store.connect().await?;
        connected.store(true, Ordering::Relaxed);
        self.ask_on(new, question).await
    }

    /// Runs a query on `connection`, and keeps the connection only after a complete answer. After any other outcome the
    /// connection is dropped, which closes it.
    async fn ask_on(
        &self,
        mut connection: S::Connection,
        question: &S::Question,
    ) -> Result<S::Answer, StoreError> {
        let answer = self.store.ask(&mut connection, question).await;
        if matches!(
            answer,
            Ok(_) | Err(StoreError::Said(ExtractError::Rejected(_)))
        ) {
            self.keep(connection);
        }
        answer
    }

    /// Opens the first connection in the background, so that the service starts even if the store is down.
    pub fn warm(self: &Arc<Self>) {
        let pool = self.clone();
        tokio::spawn(async move {
            let Ok(_permit) = pool.permits.acquire().await else {
                return;
            };
            match timeout(pool.limits.operation, pool.store.connect()).await {
                Ok(Ok(connection)) => pool.keep(connection),
                Ok(Err(failure)) => {
                    let detail = format!("{}: {failure}", pool.store.address());
                    pool.health.failed(0, "store_unreachable", Some(&detail));
                }
                Err(_) => {
                    let detail = format!(
                        "{}: no connection within {} (set by the key timeout){}",
                        pool.store.address(),
                        HumanDuration(pool.limits.operation),
                        pool.store.connect_advice()
                    );
                    pool.health.failed(0, "store_timeout", Some(&detail));
                }
            }
        });
    }

    /// Takes the most recently used idle connection, so that the other connections can reach their idle timeout.
    fn take(&self) -> Option<S::Connection> {
        let (connection, since) = lock(&self.idle).connections.pop_back()?;
        (since.elapsed() < IDLE_TIMEOUT).then_some(connection)
    }

    fn keep(&self, connection: S::Connection) {
        let mut idle = lock(&self.idle);
        idle.connections.push_back((connection, Instant::now()));
        if idle.closer.is_none() {
            let closer = tokio::spawn(close_in_time(Arc::downgrade(&self.idle)));
            idle.closer = Some(closer.abort_handle());
        }
    }
}

/// Closes each idle connection when it reaches its idle timeout. Returns when no idle connection is left.
async fn close_in_time<C>(idle: Weak<Mutex<Idle<C>>>) {
    while let Some(next) = close_expired(&idle) {
        sleep_until(next).await;
    }
}

/// Closes the connections that have reached their idle timeout. Returns the time at which the next connection reaches
/// it.
fn close_expired<C>(idle: &Weak<Mutex<Idle<C>>>) -> Option<Instant> {
    let idle = idle.upgrade()?;
    let mut idle = lock(&idle);
    let is_young = |(_, since): &(C, Instant)| since.elapsed() < IDLE_TIMEOUT;
    while idle
        .connections
        .pop_front_if(|first| !is_young(first))
        .is_some()
    {}
    let next = idle
        .connections
        .front()
        .map(|(_, since)| *since + IDLE_TIMEOUT);
    if next.is_none() {
        idle.closer = None;
    }
    next
}

/// Locks the list, even after a panic: no code that holds the lock leaves the data inconsistent.
fn lock<C>(idle: &Mutex<Idle<C>>) -> MutexGuard<'_, Idle<C>> {
    idle.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<S: Store> fmt::Debug for Pool<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("store", &self.store)
            .finish_non_exhaustive()
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost(text) => f.write_str(text),
            Self::Said(ExtractError::Unavailable(cause))
            | Self::Oversized(ExtractError::Unavailable(cause)) => {
                f.write_str(cause.detail.as_deref().unwrap_or(cause.reason.as_str()))
            }
            Self::Said(error) | Self::Oversized(error) => f.write_str(error.reason().as_str()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use std::sync::atomic::AtomicUsize;

    /// A fake store that answers with the number of the connection. The question names the fault to simulate, if any.
    #[derive(Debug, Default)]
    struct Fake {
        connected: AtomicUsize,
        /// Connections with a number up to this one fail when they are used.
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

        fn address(&self) -> String {
            "fake:1".to_owned()
        }

        async fn connect(&self) -> Result<usize, StoreError> {
            Ok(self.connected.fetch_add(1, Ordering::SeqCst) + 1)
        }

        async fn ask(&self, connection: &mut usize, key: &str) -> Result<usize, StoreError> {
            if *connection <= self.broken.load(Ordering::SeqCst) {
                return Err(StoreError::Lost("broken".to_owned()));
            }
            match key {
                "never" => std::future::pending().await,
                "slow" => tokio::time::sleep(Duration::from_millis(200)).await,
                "wrong" => {
                    return Err(StoreError::Said(ExtractError::rejected(
                        Reason::SessionCorrupt,
                    )));
                }
                "long" => {
                    return Err(StoreError::Oversized(ExtractError::rejected(
                        Reason::SessionCorrupt,
                    )));
                }
                "down" | "the users' down" => {
                    return Err(StoreError::Said(ExtractError::unavailable(
                        Reason::StoreRefused,
                    )));
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
        let limits = PoolLimits {
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
            idle: Arc::default(),
            health: BackendHealth::new("test", &Clock::system()),
            metrics: Arc::default(),
        })
    }

    fn word(answer: Result<usize, ExtractError>) -> Result<usize, &'static str> {
        answer.map_err(|error| error.reason().as_str())
    }

    #[tokio::test(start_paused = true)]
    async fn connection_is_reused_only_after_a_complete_answer() {
        let pool = pool(1);
        assert_eq!(word(pool.ask("a").await), Ok(1));
        assert_eq!(word(pool.ask("wrong").await), Err("session_corrupt"));
        assert_eq!(
            word(pool.ask("b").await),
            Ok(1),
            "the answer about a refused session is complete"
        );
        assert_eq!(word(pool.ask("never").await), Err("store_timeout"));
        assert_eq!(
            word(pool.ask("c").await),
            Ok(2),
            "the answer to the timed-out query may still arrive"
        );
        assert!(
            timeout(Duration::from_millis(1), pool.ask("slow"))
                .await
                .is_err(),
            "the request is cancelled"
        );
        assert_eq!(word(pool.ask("d").await), Ok(3));
        assert_eq!(pool.readiness(), Readiness::Ready);
        assert_eq!(word(pool.ask("down").await), Err("store_refused"));
        assert_eq!(pool.readiness(), Readiness::Stale);
        assert_eq!(
            word(pool.ask("e").await),
            Ok(4),
            "after a failover, only a new connection reaches another server"
        );
        assert_eq!(pool.readiness(), Readiness::Ready);
        assert_eq!(word(pool.ask("long").await), Err("session_corrupt"));
        assert_eq!(
            word(pool.ask("f").await),
            Ok(5),
            "the connection with the large buffer is closed"
        );
        assert_eq!(pool.readiness(), Readiness::Ready);
    }

    #[tokio::test(start_paused = true)]
    async fn refused_statement_keeps_the_pool_stale_while_another_statement_is_answered() {
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
    async fn query_on_a_broken_idle_connection_is_repeated_once_on_a_new_connection() {
        let pool = pool(2);
        assert_eq!(word(pool.ask("a").await), Ok(1));
        pool.store.broken.store(1, Ordering::SeqCst);
        assert_eq!(word(pool.ask("b").await), Ok(2));
        pool.store.broken.store(9, Ordering::SeqCst);
        assert_eq!(word(pool.ask("c").await), Err("store_unreachable"));
        assert_eq!(pool.store.connected.load(Ordering::SeqCst), 3);
        pool.store.broken.store(0, Ordering::SeqCst);
        assert_eq!(word(pool.ask("d").await), Ok(4));
        tokio::time::advance(IDLE_TIMEOUT).await;
        assert_eq!(word(pool.ask("e").await), Ok(5), "past its idle timeout");
    }

    #[tokio::test(start_paused = true)]
    async fn idle_connection_is_closed_after_60_seconds_even_if_there_is_no_further_request() {
        let pool = pool(2);
        let idle = |pool: &Pool<Fake>| lock(&pool.idle).connections.len();
        let (first, second) = tokio::join!(pool.ask("slow"), pool.ask("a"));
        assert_eq!((word(first), word(second)), (Ok(1), Ok(2)));
        assert_eq!(idle(&pool), 2);
        tokio::time::sleep(Duration::from_millis(59_900)).await;
        assert_eq!(
            idle(&pool),
            1,
            "the other connection became idle 200 ms later"
        );
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert_eq!(idle(&pool), 0);
        assert!(lock(&pool.idle).closer.is_none(), "the task has ended");
        assert_eq!(word(pool.ask("b").await), Ok(3));
        assert!(lock(&pool.idle).closer.is_some(), "and is started again");
    }

    #[tokio::test(start_paused = true)]
    async fn task_that_closes_idle_connections_ends_when_the_pool_is_dropped() {
        let pool = pool(1);
        assert_eq!(word(pool.ask("a").await), Ok(1));
        let closer = lock(&pool.idle).closer.clone().expect("a task");
        drop(pool);
        tokio::task::yield_now().await;
        assert!(closer.is_finished());
    }

    #[tokio::test(start_paused = true)]
    async fn requests_that_get_no_connection_within_pool_wait_are_store_busy() {
        let pool = pool(8);
        let mut requests = tokio::task::JoinSet::new();
        for _ in 0..1000 {
            let pool = pool.clone();
            requests.spawn(async move { word(pool.ask("slow").await) });
        }
        let answers = requests.join_all().await;
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
    async fn requests_beyond_max_waiting_are_store_busy_at_once() {
        let pool = pool_with(1, Some(2));
        let started = Instant::now();
        let (first, second, third) = tokio::join!(pool.ask("slow"), pool.ask("a"), async {
            let refused = pool.ask("b").await;
            (refused, started.elapsed())
        });
        assert_eq!((word(first), word(second)), (Ok(1), Ok(1)));
        assert_eq!(
            (word(third.0), third.1),
            (Err("store_busy"), Duration::ZERO)
        );
        assert_eq!(
            word(pool.ask("c").await),
            Ok(1),
            "the places are free again after the requests"
        );
    }
}
