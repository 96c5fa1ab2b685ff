//! A soak test: `make soak` sends a million requests from a million users, and memory use must not grow.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::service::Service;
use crate::wire::HANG;

/// The number of different users.
const SUBJECTS: u64 = 1_000_000;
const LANES: u64 = 32;
/// The number of pipelined requests in one batch. A new connection is opened after every thousand batches.
const BATCH: u64 = 50;
const ROWS: u64 = 10;
/// The service's memory limit in KiB: 50 % above the memory use after a million requests from returning users. Here
/// every user is new, and the rate limiter keeps an entry for each new user for one second.
const BOUND: u64 = 24 * 1024;

/// With this configuration the rate limiter counts every user's requests but refuses none.
const TOML: &str = r#"
    rate_limit.per_minute = 60
    rate_limit.burst = 60
    log.level = "info"
    [session]
    extractors = ["proxy"]
    [extractors.proxy]
    kind = "trusted_header"
    header = "X-User"
    trusted_proxies = ["127.0.0.0/8"]
"#;

/// The number of requests: `SOAK_REQUESTS`, or 200,000 if it is not set.
#[expect(
    clippy::disallowed_methods,
    reason = "an environment variable sets the length of the soak test"
)]
fn requests() -> u64 {
    std::env::var("SOAK_REQUESTS").map_or(200_000, |count| {
        count.parse().expect("SOAK_REQUESTS: a number")
    })
}

mod alone {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn soak_loses_no_request_and_memory_does_not_grow() {
        soak(requests()).await;
    }
}

async fn soak(requests: u64) {
    let s = Service::start(TOML).await;
    let idle = s.usage().resident_kib;
    let (next, answered, lost) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let shared = Arc::new((next, answered, lost));
    let mut lanes = JoinSet::new();
    for _ in 0..LANES {
        let (shared, address) = (shared.clone(), s.address);
        lanes.spawn(async move {
            let (next, answered, lost) = &*shared;
            let mut stream = None;
            loop {
                let first = next.fetch_add(BATCH, Ordering::Relaxed);
                if first >= requests {
                    return;
                }
                if first % (BATCH * 1000) == 0 {
                    stream = None;
                }
                let mut open = match stream.take() {
                    Some(open) => open,
                    None => TcpStream::connect(address).await.expect("a connection"),
                };
                let count = BATCH.min(requests - first);
                let good = timeout(HANG, batch(&mut open, first, count))
                    .await
                    .unwrap_or(0);
                answered.fetch_add(good, Ordering::Relaxed);
                lost.fetch_add(count - good, Ordering::Relaxed);
                if good == count {
                    stream = Some(open);
                }
            }
        });
    }
    println!("   requests      lost   seconds   per second   resident KiB");
    let (started, mut table, mut row) = (Instant::now(), Vec::new(), 1);
    while row <= ROWS {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let (answered, lost) = (
            shared.1.load(Ordering::Relaxed),
            shared.2.load(Ordering::Relaxed),
        );
        if answered + lost >= requests * row / ROWS {
            let (seconds, resident) = (started.elapsed().as_secs_f64(), s.usage().resident_kib);
            let rate = answered as f64 / seconds;
            println!(
                "{:>11} {lost:>9} {seconds:>9.1} {rate:>12.0} {resident:>14}",
                answered + lost
            );
            table.push(resident);
            row += 1;
        }
    }
    lanes.join_all().await;
    let lost = shared.2.load(Ordering::Relaxed);
    s.does_not_count();
    let (early, last) = (table[1], table[table.len() - 1]);
    println!(
        "{idle} KiB at the start, {early} KiB after a fifth of the requests, {last} KiB at the end; {lost} of {requests} requests lost"
    );
    assert_eq!(lost, 0, "requests were lost");
    assert!(
        last <= early + 4096 && last <= BOUND,
        "memory use grew by more than 4 MiB after a fifth of the requests, or exceeds {BOUND} KiB"
    );
    s.finish().await;
}

/// Sends `count` requests in one write. Returns how many of them got a token.
async fn batch(stream: &mut TcpStream, first: u64, count: u64) -> u64 {
    let asked: String = (first..first + count)
        .map(|n| {
            format!(
                "POST /rollout/token HTTP/1.1\r\nHost: a\r\nX-User: user-{}\r\n\r\n",
                n % SUBJECTS
            )
        })
        .collect();
    if stream.write_all(asked.as_bytes()).await.is_err() {
        return 0;
    }
    let (mut unread, mut good) = (Vec::with_capacity(64 * 1024), 0);
    while good < count {
        match stream.read_buf(&mut unread).await {
            Ok(1..) => {}
            Ok(0) | Err(_) => return good,
        }
        let text = String::from_utf8_lossy(&unread);
        let mut rest = &*text;
        while let Some((head, after)) = rest.split_once("\r\n\r\n") {
            let length = head
                .split_once("content-length: ")
                .and_then(|(_, rest)| rest.split("\r\n").next()?.parse().ok());
            let Some(length) = length.filter(|length| after.len() >= *length) else {
                break;
            };
            if !head.starts_with("HTTP/1.1 200 ") || !after.starts_with("{\"token\":\"eyJ") {
                return good;
            }
            good += 1;
            rest = &after[length..];
        }
        let left = rest.len();
        unread.drain(..unread.len() - left);
    }
    good
}
