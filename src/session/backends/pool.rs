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

/// The store behind a pool. It opens connections, and runs queries on them.
pub trait Store: fmt::Debug + Send + Sync + 'static {
    type Connection: Send + 'static;
    type Question: Sync + ?Sized;
    type Answer: Send;

    /// The value of the attribute `db.system.name` in traces.
    fn system(&self) -> &'static str;

    /// The number, from 0 to 7, of the statement that this question uses. The health of each statement is tracked
    /// separately, because a store may refuse one statement (for example for lack of privileges) and answer another.
    fn statement(_: &Self::Question) -> u8 {
        0
    }

    /// The store's host and port, or its file, for logs. Contains no user name and no password.
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
    /// The connection could not be opened or broke, or the store sent an unexpected answer. The string is the error
    /// message.
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
    /// Validates the keys `max_connections`, `pool_wait` and `timeout` of a section, and returns them as limits.
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

/// The reasons that count as a failure of the store. Others do not, such as a busy pool or unexpected columns.
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
        let statement = S::statement(question);
        let result = match &answer {
            Err(ExtractError::Unavailable(cause)) => {
                let (reason, detail) = (cause.reason, cause.detail.as_deref());
                spans::record_failure(&span, reason.as_str());
                if DOWN.contains(&reason) {
                    self.health.failed(statement, reason, detail);
                }
                reason.as_str()
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

    /// The description of a request's queries, as commands such as `doctor` print it.
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
                Err(error) => Ok(format!("answered ({})", error.reason().as_str())),
                Ok(_) => Ok("answered".to_owned()),
            }
        };
        BackendReport::of(format!("{what} in {}", self.store.system()), asking).await
    }

    /// `Stale` if at least one statement failed in its last call.
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
            Err(_) => Err(ExtractError::unavailable(Reason::StoreTimeout)
                .because(self.timed_out(connected.into_inner()))),
        }
    }

    fn timed_out(&self, is_connected: bool) -> String {
        let address = self.store.address();
        let limit = HumanDuration(self.limits.operation);
        let (what, advice) = if is_connected {
            ("no complete answer", "")
        } else {
            ("no connection", self.store.connect_advice())
        };
        format!("{address}: {what} within {limit} (set by the key timeout){advice}")
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

    /// Runs a query on `connection`, and keeps the connection if the query succeeds or the session is rejected. After
    /// any other outcome, such as an error of the store or an oversized answer, the connection is dropped, which closes
    /// it.
    async fn ask_on(
        &self,
        mut connection: S::Connection,
        question: &S::Question,
    ) -> Result<S::Answer, StoreError> {
        let answer = self.store.ask(&mut connection, question).await;
        if let Ok(_) | Err(StoreError::Said(ExtractError::Rejected(_))) = answer {
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
                    pool.health
                        .failed(0, Reason::StoreUnreachable, Some(&detail));
                }
                Err(_) => {
                    let detail = pool.timed_out(false);
                    pool.health.failed(0, Reason::StoreTimeout, Some(&detail));
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
/// it; `None` if no idle connection is left.
fn close_expired<C>(idle: &Weak<Mutex<Idle<C>>>) -> Option<Instant> {
    let idle = idle.upgrade()?;
    let mut idle = lock(&idle);
    let is_young = |(_, since): &(C, Instant)| since.elapsed() < IDLE_TIMEOUT;
    while idle
        .connections
        .pop_front_if(|first| !is_young(first))
        .is_some()
    {}
    let next = idle.connections.front();
    let next = next.map(|(_, since)| *since + IDLE_TIMEOUT);
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
mod tests;
