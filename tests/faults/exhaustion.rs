//! Slow clients, request floods and low system limits: legitimate requests are still served.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::configs::{by_endpoint, by_jwt};
use crate::service::{Service, Setup, TEN_THOUSAND_CONNECTIONS, tail};
use crate::tokens::hs256;
use crate::upstream::{Act, Upstream, ok};
use crate::wire::{Answer, Wire, bearer, post};

fn good() -> Vec<u8> {
    post(&bearer(&hs256(&json!({}))))
}

#[tokio::test]
async fn body_beyond_the_limit_is_413_and_the_rest_is_not_read() {
    let s = Service::start(by_jwt().with("log.level = 'info'")).await;
    let over = [post("Content-Length: 4097\r\n"), vec![b'x'; 4097]].concat();
    s.expect("by length", &over, &["413 body_too_large"]).await;
    s.expect(
        "announced only",
        &post("Content-Length: 4097\r\n"),
        &["413 body_too_large"],
    )
    .await;
    s.expect(
        "at the limit",
        &[post("Content-Length: 4096\r\n"), vec![b'x'; 4096]].concat(),
        &["401 no_session"],
    )
    .await;
    // For endless bodies, count the bytes that the service accepts before it closes the connection.
    let before = s.usage().resident_kib;
    for head in [
        "Transfer-Encoding: chunked\r\n",
        "Content-Length: 1000000000\r\n",
    ] {
        let stream = TcpStream::connect(s.address).await.expect("a connection");
        let mut sent = 0_usize;
        let chunk = [
            format!("{:x}\r\n", 16 * 1024).into_bytes(),
            vec![b'x'; 16 * 1024],
            b"\r\n".to_vec(),
        ]
        .concat();
        let mut bytes = post(head);
        let flood = async {
            loop {
                stream.writable().await.ok();
                match stream.try_write(&bytes) {
                    Ok(length) => {
                        sent += length;
                        bytes.clone_from(&chunk);
                    }
                    Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                    Err(_) => return,
                }
            }
        };
        timeout(Duration::from_secs(10), flood)
            .await
            .expect("the connection is still open after 10 s");
        // The bound allows for bytes in the kernel's socket buffers, which the service has not read.
        assert!(sent < 8 * 1024 * 1024, "{sent} bytes were accepted");
    }
    assert!(s.usage().resident_kib < before + 1024);
    s.does_not_count();
    s.finish().await;
}

/// The service's mean CPU time per request, in microseconds.
async fn cost(s: &Service, asked: &[u8], outcomes: &[&str]) -> u64 {
    const TIMES: u64 = 200;
    let before = s.usage().ticks;
    for _ in 0..TIMES {
        s.expect("a costly request", asked, outcomes).await;
    }
    (s.usage().ticks - before) * 10_000 / TIMES
}

#[tokio::test]
async fn seven_thousand_cookies_are_parsed_in_linear_time() {
    let s = Service::start(by_jwt().with("log.level = 'info'")).await;
    let cookies = |count: usize| post(&format!("Cookie: {}\r\n", "a=b;".repeat(count)));
    let (half, whole) = (
        cost(&s, &cookies(3500), &["401 no_session"]).await,
        cost(&s, &cookies(7000), &["401 no_session"]).await,
    );
    assert!(
        whole <= 5000 && whole <= half * 4 + 500,
        "{half} µs and {whole} µs"
    );
    s.finish().await;
}

#[tokio::test]
async fn thirty_kib_of_separators_or_escapes_is_parsed_in_5_ms() {
    let s = Service::start(by_jwt().with("log.level = 'info'")).await;
    for (label, value) in [
        ("separators", ";".repeat(30 * 1024)),
        ("escapes", format!("session={}", "%25".repeat(9000))),
        ("escaped escapes", format!("session=%{}", "25".repeat(9000))),
        ("quotes", format!("session={}", "\"".repeat(8000))),
        ("equals", format!("session{}", "=".repeat(28_000))),
        ("spaces", format!("session={}x", " \t".repeat(14_000))),
        ("the same name repeatedly", "session".repeat(4000)),
        ("the name, nearly", "sessio=x; ".repeat(3000)),
        ("commas", ",".repeat(30 * 1024)),
    ] {
        let asked = post(&format!("Cookie: {value}\r\n"));
        let each = cost(&s, &asked, &["401 no_session", "401 session_invalid"]).await;
        assert!(each <= 5000, "{label}: {each} µs");
    }
    for (label, header) in [
        ("Origin", "Origin"),
        ("Authorization", "Authorization"),
        ("Connection", "Connection"),
        ("X-Request-Id", "X-Request-Id"),
        ("Expect", "Expect"),
    ] {
        let each = cost(
            &s,
            &post(&format!("{header}: {}\r\n", ", ".repeat(15_000))),
            &[
                "401 no_session",
                "401 session_invalid",
                "403 origin_not_allowed",
            ],
        )
        .await;
        assert!(each <= 5000, "{label}: {each} µs");
    }
    s.finish().await;
}

#[tokio::test]
async fn ten_thousand_connection_resets_leak_no_files_and_log_no_warning() {
    let s =
        Service::start(by_jwt().with("server.max_connections = 10100\nlog.level = 'info'")).await;
    let warnings = |log: &str| -> Vec<String> {
        let lines = log.lines().map(str::to_owned);
        lines
            .filter(|line| line.contains("\"ERROR\"") || line.contains("\"WARN\""))
            .collect()
    };
    let before = warnings(&s.whole_log().await);
    let mut tasks = JoinSet::new();
    for part in 0..20 {
        let (address, asked) = (s.address, good());
        tasks.spawn(async move {
            for n in 0..500 {
                let mut wire = Wire::connect(address).await;
                // Before the reset, send nothing, half of a request, or a whole request.
                match (n + part) % 3 {
                    0 => {}
                    1 => drop(wire.send(&asked[..asked.len() / 2]).await),
                    _ => drop(wire.send(&asked).await),
                }
                wire.reset();
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.expect("a connection");
    }
    s.does_not_count();
    s.healthy().await;
    assert_eq!(warnings(&s.whole_log().await), before);
    s.finish().await;
}

#[tokio::test]
async fn bytes_after_a_body_are_parsed_as_the_next_request() {
    let s = Service::start(by_jwt().with("log.level = 'info'")).await;
    let head = |length: usize| {
        format!("POST /rollout/token HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n")
    };
    // If `Content-Length` is too small, the rest of the body is parsed as the next request. If it is too large, the
    // body is incomplete, so the response is 400.
    let answers = s
        .exchange(format!("{}abGET /healthz HTTP/1.1\r\n\r\n", head(1)).as_bytes())
        .await;
    assert_eq!(answers[0].outcome(), "401 no_session");
    assert!(
        answers[1..]
            .iter()
            .all(|answer| matches!(answer.status, 400 | 404)),
        "{answers:?}"
    );
    let mut wire = Wire::connect(s.address).await;
    let asked = head(10);
    wire.send(format!("{asked}abc").as_bytes()).await;
    wire.half_close().await;
    let answers = wire.answers(asked.as_bytes()).await;
    assert!(
        answers.iter().all(|answer| answer.status == 400),
        "{answers:?}"
    );
    s.count(&answers);
    s.finish().await;
}

/// Waits until the service closes the connection without a response. Returns the number of seconds that this took.
async fn seconds_until_closed(wire: &mut Wire) -> f64 {
    let started = Instant::now();
    wire.closed().await;
    started.elapsed().as_secs_f64()
}

#[tokio::test]
async fn incomplete_head_and_idle_connection_have_separate_timeouts() {
    let s =
        Service::start(by_jwt().with("server.header_timeout = '1s'\nserver.idle_timeout = '2s'"))
            .await;
    for bytes in [
        &b""[..],
        b"P",
        b"POST /rollout/token HTTP/1.1\r\nHost: a\r\nX: ",
        b"\r\n",
    ] {
        let mut wire = Wire::connect(s.address).await;
        wire.send(bytes).await;
        let took = seconds_until_closed(&mut wire).await;
        assert!((0.5..=2.5).contains(&took), "closed after {took} s");
    }
    let mut wire = Wire::connect(s.address).await;
    let asked = "GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n";
    for _ in 0..3 {
        wire.send(asked.as_bytes()).await;
        assert_eq!(
            wire.answer(asked.as_bytes())
                .await
                .expect("an answer")
                .status,
            200
        );
        sleep(Duration::from_millis(500)).await;
    }
    let took = seconds_until_closed(&mut wire).await;
    assert!((1.0..=3.0).contains(&took), "closed after {took} s");
    s.finish().await;
}

#[tokio::test]
async fn stalled_body_is_408() {
    let s = Service::start(by_jwt()).await;
    let asked = String::from_utf8(good())
        .expect("text")
        .replace("\r\n\r\n", "\r\nContent-Length: 10\r\n\r\n");
    let mut wire = Wire::connect(s.address).await;
    let started = Instant::now();
    wire.send(asked.as_bytes()).await;
    wire.send(b"x").await;
    let answers = wire.answers(asked.as_bytes()).await;
    let took = started.elapsed().as_secs_f64();
    assert_eq!(
        answers.iter().map(Answer::outcome).collect::<Vec<_>>(),
        ["408 request_timeout"]
    );
    assert!((4.0..=6.5).contains(&took), "answered after {took} s");
    s.count(&answers);
    s.finish().await;
}

/// Sends ten legitimate requests per second for `seconds`. Returns the duration of each request that got a token, and
/// `None` for the others.
async fn honest(s: &Service, seconds: u64) -> Vec<Option<Duration>> {
    let mut asking = JoinSet::new();
    for n in 0..seconds * 10 {
        let (address, asked) = (s.address, good());
        asking.spawn(async move {
            sleep(Duration::from_millis(n * 100)).await;
            let started = Instant::now();
            let answered = async {
                let mut wire = Wire::try_connect(address).await.ok()?;
                wire.send(&asked).await;
                let answer = wire.answer(&asked).await?;
                (answer.status == 200).then(|| (n, started.elapsed()))
            };
            let answered = timeout(Duration::from_secs(15), answered)
                .await
                .ok()
                .flatten();
            answered.map_or((n, None), |(n, took)| (n, Some(took)))
        });
    }
    let mut all = asking.join_all().await;
    all.sort_by_key(|(n, _)| *n);
    all.into_iter().map(|(_, took)| took).collect()
}

/// Asserts that at least 99 % of the requests got a token, and that 99 % of the tokens that were requested after
/// `first_round` came within a second.
fn assert_served(took: &[Option<Duration>], first_round: Duration) {
    let served = took.iter().flatten().count();
    assert!(
        served * 100 >= took.len() * 99,
        "{served} of {} were served",
        took.len()
    );
    let after = usize::try_from(first_round.as_millis() / 100).expect("a number");
    let mut later: Vec<Duration> = took[after.min(took.len() - 1)..]
        .iter()
        .flatten()
        .copied()
        .collect();
    later.sort();
    let slowest = later[(later.len() * 99 / 100).min(later.len() - 1)];
    assert!(
        slowest <= Duration::from_secs(1),
        "{slowest:?} at the 99th percentile"
    );
}

/// Like `honest_requests_are_served_despite_silent_connections_over_the_limit`, but each connection sends one request
/// and is then idle.
#[tokio::test]
async fn honest_requests_are_served_despite_idle_connections_over_the_limit() {
    const CAP: usize = 256;
    let s = Service::start(by_jwt().with(format!(
        "server.max_connections = {CAP}\nlog.level = 'info'"
    )))
    .await;
    let mut idle = JoinSet::new();
    for _ in 0..2 * CAP {
        let address = s.address;
        idle.spawn(async move {
            let mut wire = Wire::connect(address).await;
            wire.send(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n").await;
            wire
        });
    }
    let idle = idle.join_all().await;
    sleep(Duration::from_millis(1500)).await;
    assert_served(&honest(&s, 3).await, Duration::from_secs(2));
    drop(idle);
    s.does_not_count();
    s.finish().await;
}

/// [`Service::usage`] asserts that the peak memory stays within the limit in the shipped deployment files.
#[tokio::test(flavor = "multi_thread")]
async fn unfinished_requests_on_6000_connections_stay_within_the_shipped_memory_limit() {
    let head = "POST /rollout/token HTTP/1.1\r\nHost: a\r\n";
    let half_head = format!("{head}Cookie: a={}", "x".repeat(30_000));
    let owed_body = format!("{head}Content-Length: 4096\r\n\r\n{}", "x".repeat(4000));
    for (case, count, bytes) in [
        ("half heads", 3000, &half_head),
        ("half heads", 6000, &half_head),
        ("bodies", 6000, &owed_body),
    ] {
        let s = Service::start(by_jwt().with("log.level = 'info'")).await;
        let mut parts = JoinSet::new();
        for part in 0..20_u8 {
            let (address, bytes) = (s.address, bytes.clone());
            parts.spawn(async move {
                let mut wires = Vec::new();
                for _ in 0..count / 20 {
                    let mut wire = Wire::connect_from([127, 0, 6, part + 1], address).await;
                    wire.send(bytes.as_bytes()).await;
                    wires.push(wire);
                }
                wires
            });
        }
        let wires = parts.join_all().await;
        let peak_kib = s.usage().peak_kib;
        println!("{count} connections, {case}: {peak_kib} KiB at the peak");
        s.expect("honest", &good(), &["200"]).await;
        drop(wires);
        s.does_not_count();
        s.finish_within(128 * 1024).await;
    }
}

#[tokio::test]
async fn honest_requests_are_served_with_a_limit_of_64_open_files() {
    let app = Upstream::start(ok("{\"sub\":\"ann\"}")).await;
    let s = Service::start_with(
        &Setup::new(by_endpoint(app.port)).launcher(&["prlimit", "--nofile=64:64"]),
    )
    .await;
    s.logs("connections do not fit into the limit", 1).await;
    let mut silent = Vec::new();
    for _ in 0..500 {
        silent.push(TcpStream::connect(s.address).await.expect("a connection"));
    }
    sleep(Duration::from_millis(500)).await;
    assert!(s.usage().files <= 64);
    let mut answered = 0;
    for n in 0..20 {
        let asked = post(&format!("Cookie: sid=s{n}\r\n"));
        let answer = timeout(Duration::from_secs(20), s.one(&asked))
            .await
            .expect("an answer");
        answered += u32::from(answer.status == 200);
    }
    assert_eq!(answered, 20, "{}", tail(&s.log()));
    drop(silent);
    assert!(s.is_alive());
    drop(app);
    s.finish().await;
}

/// The log lines of requests that were refused as `overloaded` after more than 100 ms.
fn slow_refusals(log: &str) -> Vec<&str> {
    let shed = log.lines().filter(|line| line.contains("\"overloaded\""));
    shed.filter(|line| {
        let line: serde_json::Value = serde_json::from_str(line).expect("JSON");
        // The line that reports suppressed lines has no `duration_ms`.
        line["duration_ms"]
            .as_f64()
            .is_some_and(|duration| duration > 100.0)
    })
    .collect()
}

impl Wire {
    /// Connects from the address `from`: each source address has its own range of ephemeral ports.
    pub async fn connect_from(from: [u8; 4], to: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind((from, 0).into()).expect("a loopback address");
        Self::of(socket.connect(to).await.expect("a connection"))
    }
}

mod slow {
    use super::*;

    #[tokio::test]
    async fn silent_connection_is_closed_at_the_header_timeout() {
        let s = Service::start(by_jwt()).await;
        let mut silent = JoinSet::new();
        for _ in 0..200 {
            let mut wire = Wire::connect(s.address).await;
            silent.spawn(async move { seconds_until_closed(&mut wire).await });
        }
        while let Some(took) = silent.join_next().await {
            let took = took.expect("a connection");
            assert!((9.0..=11.5).contains(&took), "closed after {took} s");
        }
        s.finish().await;
    }

    #[tokio::test]
    async fn connection_that_sends_one_header_byte_a_second_is_closed_at_the_header_timeout() {
        let s = Service::start(by_jwt()).await;
        let mut wire = Wire::connect(s.address).await;
        let started = Instant::now();
        for byte in good() {
            if !wire.send(&[byte]).await || started.elapsed() > Duration::from_secs(12) {
                break;
            }
            sleep(Duration::from_secs(1)).await;
        }
        assert!(
            started.elapsed() < Duration::from_secs(12),
            "still open after {:?}",
            started.elapsed()
        );
        s.finish().await;
    }

    #[tokio::test]
    async fn idle_connection_is_closed_at_the_idle_timeout() {
        let s = Service::start(by_jwt()).await;
        let asked = String::from_utf8(good())
            .expect("text")
            .replace("Connection: close\r\n", "");
        let mut wire = Wire::connect(s.address).await;
        wire.send(asked.as_bytes()).await;
        let answer = wire.answer(asked.as_bytes()).await.expect("an answer");
        s.count(&[answer]);
        let started = Instant::now();
        // `Wire::closed` panics after `HANG`, which is less than the idle timeout, so the wait is restarted every 30 s.
        while timeout(Duration::from_secs(30), wire.closed())
            .await
            .is_err()
        {}
        let took = started.elapsed().as_secs_f64();
        assert!((73.9..=76.5).contains(&took), "closed after {took} s");
        s.finish().await;
    }

    /// The client keeps sending requests and reads no response: the service stops reading, then closes the connection.
    #[tokio::test]
    async fn connection_is_closed_if_the_client_reads_no_answers() {
        let s = Service::start(by_jwt().with("log.level = 'info'")).await;
        let asked = String::from_utf8(good())
            .expect("text")
            .replace("Connection: close\r\n", "");
        let mut clients = JoinSet::new();
        for _ in 0..2 {
            // Small socket buffers fill quickly.
            let socket = TcpSocket::new_v4().expect("a socket");
            socket.set_recv_buffer_size(4096).expect("a size");
            socket.set_send_buffer_size(4096).expect("a size");
            let stream = socket.connect(s.address).await.expect("a connection");
            let asked = asked.clone();
            clients.spawn(async move {
                let (started, mut sent) = (Instant::now(), 0);
                loop {
                    let writable = timeout(Duration::from_secs(35), stream.writable()).await;
                    assert!(writable.is_ok(), "still open after {:?}", started.elapsed());
                    // If only part of a request was written, the next write continues it.
                    match stream.try_write(&asked.as_bytes()[sent..]) {
                        Ok(length) => sent = (sent + length) % asked.len(),
                        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                        Err(_) => return,
                    }
                }
            });
        }
        while let Some(done) = clients.join_next().await {
            done.expect("the connection is closed");
        }
        s.does_not_count();
        s.finish().await;
    }

    #[tokio::test]
    async fn honest_requests_are_served_despite_silent_connections_over_the_limit() {
        const CAP: usize = 512;
        let s = Service::start(by_jwt().with(format!(
            "server.max_connections = {CAP}\nlog.level = 'info'"
        )))
        .await;
        let mut silent = Vec::new();
        for _ in 0..4 * CAP {
            silent.push(TcpStream::connect(s.address).await.expect("a connection"));
        }
        let watching = async {
            for _ in 0..28 {
                sleep(Duration::from_millis(500)).await;
                let open = s.metric("rollout_token_connections", &[]).await;
                assert!(open <= CAP as f64, "{open} connections are open");
            }
        };
        let (took, ()) = tokio::join!(honest(&s, 14), watching);
        assert_served(&took, Duration::from_secs(10));
        drop(silent);
        s.does_not_count();
        s.finish().await;
    }
}

mod alone {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn requests_beyond_max_in_flight_to_a_hung_backend_are_503_overloaded() {
        let hung = Upstream::start(Act::Hang).await;
        let limits = "server.max_connections = 10100\nextractors.app.max_waiting = 10000\nlog.level = 'info'";
        let config = by_endpoint(hung.port).with(limits);
        let s = Service::start(config).await;
        let idle = s.usage().resident_kib;
        let mut wires = JoinSet::new();
        for part in 0..20_u8 {
            let address = s.address;
            wires.spawn(async move {
                let mut wires = Vec::new();
                for n in 0..500 {
                    wires.push((n, Wire::connect_from([127, 0, 1, part + 1], address).await));
                }
                (part, wires)
            });
        }
        let wires = wires.join_all().await;
        let connected = s.usage().resident_kib;
        let mut asking = JoinSet::new();
        for (part, wires) in wires {
            for (n, mut wire) in wires {
                asking.spawn(async move {
                    let asked = post(&format!("Cookie: sid=s-{part}-{n}\r\n"));
                    wire.send(&asked).await;
                    wire.answer(&asked).await.expect("an answer")
                });
            }
        }
        let watching = async {
            let mut most = 0.0_f64;
            for _ in 0..10 {
                sleep(Duration::from_millis(300)).await;
                most = most.max(s.metric("rollout_token_in_flight", &[]).await);
            }
            most
        };
        let (answers, most) = tokio::join!(asking.join_all(), watching);
        let codes = |code: &str| {
            answers
                .iter()
                .filter(|answer| answer.outcome() == code)
                .count()
        };
        let (shed, unknown) = (
            codes("503 overloaded"),
            codes("503 session_backend_unavailable"),
        );
        println!(
            "{shed} requests were shed, {unknown} timed out; memory: {idle} KiB at the start, {connected} KiB with connections"
        );
        assert_eq!(shed + unknown, 10_000, "some requests had another outcome");
        assert!(most <= 512.0, "{most} in flight");
        assert!(shed > 1000, "{shed} were shed");
        s.count(&answers);
        let log = s.whole_log().await;
        let slow = slow_refusals(&log);
        assert!(
            slow.is_empty(),
            "requests shed after more than 100 ms: {slow:?}"
        );
        assert!(s.usage().resident_kib <= connected.max(idle) + 64 * 1024);
        drop(hung);
        s.finish_within(TEN_THOUSAND_CONNECTIONS).await;
    }

    /// Opens connections that are first silent, and then idle after one request each.
    #[tokio::test(flavor = "multi_thread")]
    async fn ten_thousand_silent_or_idle_connections_use_at_most_160_mib() {
        let limits =
            "server.max_connections = 10100\nserver.header_timeout = '60s'\nlog.level = 'info'";
        let s = Service::start(by_jwt().with(limits)).await;
        let mut parts = JoinSet::new();
        for part in 0..20_u8 {
            let address = s.address;
            parts.spawn(async move {
                let mut wires = Vec::new();
                for _ in 0..500 {
                    wires.push(Wire::connect_from([127, 0, 5, part + 1], address).await);
                }
                wires
            });
        }
        let mut wires: Vec<Wire> = parts.join_all().await.into_iter().flatten().collect();
        while s.metric("rollout_token_connections", &[]).await < 10_000.0 {
            sleep(Duration::from_millis(20)).await;
        }
        let silent = s.usage().resident_kib;
        let asked = String::from_utf8(good())
            .expect("text")
            .replace("Connection: close\r\n", "");
        for wire in &mut wires {
            wire.send(asked.as_bytes()).await;
        }
        for wire in &mut wires {
            assert_eq!(
                wire.answer(asked.as_bytes())
                    .await
                    .expect("an answer")
                    .status,
                200
            );
        }
        let idle = s.usage().resident_kib;
        println!(
            "ten thousand connections: {silent} KiB while silent, {idle} KiB after one request each"
        );
        assert!(
            silent.max(idle) <= TEN_THOUSAND_CONNECTIONS,
            "{silent} and {idle} KiB"
        );
        drop(wires);
        s.does_not_count();
        s.finish_within(TEN_THOUSAND_CONNECTIONS).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn memory_does_not_grow_under_two_thousand_connections_a_second() {
        let s = Service::start(by_jwt().with("log.level = 'info'")).await;
        let mut table = Vec::new();
        let started = Instant::now();
        let mut made = 0_u64;
        while started.elapsed() < Duration::from_secs(66) {
            let mut tasks = JoinSet::new();
            for n in 0..200_u64 {
                let (address, asked) = (s.address, good());
                tasks.spawn(async move {
                    let from = [127, 0, 2, u8::try_from(n % 200).expect("small") + 1];
                    let mut wire = Wire::connect_from(from, address).await;
                    wire.send(&asked).await;
                    let answer = wire.answer(&asked).await.expect("an answer");
                    assert_eq!(answer.status, 200);
                });
            }
            while let Some(done) = tasks.join_next().await {
                done.expect("a connection");
            }
            made += 200;
            let due = Duration::from_millis(made / 2);
            if let Some(early) = due.checked_sub(started.elapsed()) {
                sleep(early).await;
            }
            if table
                .last()
                .is_none_or(|(at, _): &(u64, u64)| started.elapsed().as_secs() >= at + 6)
            {
                table.push((started.elapsed().as_secs(), s.usage().resident_kib));
            }
        }
        s.does_not_count();
        let rate = made / started.elapsed().as_secs();
        println!("{rate} connections per second; (second, resident KiB): {table:?}");
        // The memory of in-flight requests varies, so the minima of both halves of the samples are compared.
        let least = |rows: &[(u64, u64)]| rows.iter().map(|row| row.1).min().expect("a row");
        let (early, late) = table[1..].split_at(table.len() / 2);
        assert!(least(late) <= least(early) + 1024, "{table:?}");
        s.finish().await;
    }
}
