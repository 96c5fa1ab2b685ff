use super::*;
use crate::clock::Clock;
use std::sync::atomic::AtomicUsize;

/// A fake store that answers with the number of the connection. The question names the fault to simulate, if any.
#[derive(Debug, Default)]
struct Fake {
    connected: AtomicUsize,
    /// Connections with this number or a lower number fail when they are used.
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
        "the connection is reused, because the refusing answer was complete"
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
