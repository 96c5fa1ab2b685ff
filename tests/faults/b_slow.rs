//! Group B: slow clients, floods, and what the machine runs out of.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::Group;
use crate::a_framing::BY_JWT;
use crate::report::{count_faults, count_lost, count_requests};
use crate::service::{Service, Setup};
use crate::tokens::hs256;
use crate::upstream::{Act, Upstream};
use crate::wire::{Answer, Wire, bearer, post};

pub async fn group() -> Group {
    let s = Service::start(&BY_JWT.replace("trace", "info")).await;
    let mut group = Group::new("B", Some(s.clone()));
    group.quick("B8 a body beyond the limit", b8(s.clone()));
    group.quick("B9 five thousand cookies", b9(s.clone()));
    group.quick("B10 separators, escapes and quotes without end", b10(s.clone()));
    group.quick("B13 ten thousand resets", b13(s.clone()));
    group.quick("B8+ more after the end of a body", after_the_body(s.clone()));
    group.waiting("B1 silence", 12, b1());
    group.waiting("B1+ silence, with short time-outs", 4, short_silence());
    group.waiting("B3 a header byte a second", 12, b3());
    group.waiting("B4 a body byte every five seconds", 7, b4());
    group.waiting("B6 an idle connection", 80, b6());
    group.waiting("B6+ a peer that does not take its answers", 25, deaf());
    group.waiting("B7 four times more silent connections than there is room for", 20, b7());
    group.waiting("B7+ connections that idle after a request", 8, b7_idle());
    group.waiting("B7+ with few files the service serves as many as it can", 6, few_files());
    group.heavy("B14 ten thousand requests to a hung back end", 15, b14());
    group.heavy("B14+ ten thousand connections that wait", 15, ten_thousand());
    group.heavy("B17 two thousand connections a second", 70, b17());
    group
}

fn good() -> Vec<u8> {
    post(&bearer(&hs256(&json!({}))))
}

async fn b8(s: Arc<Service>) {
    let over = [post("Content-Length: 4097\r\n"), vec![b'x'; 4097]].concat();
    s.expect("by length", &over, &["413 body_too_large"]).await;
    s.expect("announced only", &post("Content-Length: 4097\r\n"), &["413 body_too_large"]).await;
    s.expect(
        "at the limit",
        &[post("Content-Length: 4096\r\n"), vec![b'x'; 4096]].concat(),
        &["401 no_session"],
    )
    .await;
    // Endless, in chunks: how much of it is taken before the connection is closed.
    let before = s.usage().resident_kib;
    for head in ["Transfer-Encoding: chunked\r\n", "Content-Length: 1000000000\r\n"] {
        let stream = TcpStream::connect(s.address).await.expect("a connection");
        let mut sent = 0_usize;
        let chunk =
            [format!("{:x}\r\n", 16 * 1024).into_bytes(), vec![b'x'; 16 * 1024], b"\r\n".to_vec()].concat();
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
        timeout(Duration::from_secs(10), flood).await.expect("the connection is not closed");
        // What the kernel's buffers hold on both sides was never read.
        assert!(sent < 8 * 1024 * 1024, "{sent} bytes were taken");
    }
    assert!(s.usage().resident_kib < before + 1024);
    s.does_not_count();
    count_requests(2);
}

/// Asks often enough to measure, and gives the processor time of one request in microseconds.
async fn cost(s: &Service, asked: &[u8], outcomes: &[&str]) -> u64 {
    const TIMES: u64 = 200;
    let before = s.usage().ticks;
    for _ in 0..TIMES {
        s.expect("a costly request", asked, outcomes).await;
    }
    (s.usage().ticks - before) * 10_000 / TIMES
}

async fn b9(s: Arc<Service>) {
    let cookies = |count: usize| post(&format!("Cookie: {}\r\n", "a=b;".repeat(count)));
    let (half, whole) = (
        cost(&s, &cookies(3500), &["401 no_session"]).await,
        cost(&s, &cookies(7000), &["401 no_session"]).await,
    );
    assert!(whole <= 5000 && whole <= half * 4 + 500, "{half} µs and {whole} µs");
}

async fn b10(s: Arc<Service>) {
    for (label, value) in [
        ("separators", ";".repeat(30 * 1024)),
        ("escapes", format!("session={}", "%25".repeat(9000))),
        ("escaped escapes", format!("session=%{}", "25".repeat(9000))),
        ("quotes", format!("session={}", "\"".repeat(8000))),
        ("equals", format!("session{}", "=".repeat(28_000))),
        ("spaces", format!("session={}x", " \t".repeat(14_000))),
        ("the name again and again", "session".repeat(4000)),
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
            &["401 no_session", "401 session_invalid", "403 origin_not_allowed"],
        )
        .await;
        assert!(each <= 5000, "{label}: {each} µs");
    }
}

async fn b13(s: Arc<Service>) {
    let lines = |text: &str| {
        text.lines().filter(|line| line.contains("\"ERROR\"") || line.contains("\"WARN\"")).count()
    };
    let before = lines(&s.whole_log().await);
    let mut crowd = JoinSet::new();
    for part in 0..20 {
        let (address, asked) = (s.address, good());
        crowd.spawn(async move {
            for n in 0..500 {
                let mut wire = Wire::connect(address).await;
                // Nothing, a part, or a whole request before the reset.
                match (n + part) % 3 {
                    0 => {}
                    1 => drop(wire.send(&asked[..asked.len() / 2]).await),
                    _ => drop(wire.send(&asked).await),
                }
                wire.reset();
            }
        });
    }
    while let Some(done) = crowd.join_next().await {
        done.expect("a connection");
    }
    count_requests(10_000);
    s.does_not_count();
    s.healthy().await;
    assert_eq!(lines(&s.whole_log().await), before);
}

async fn after_the_body(s: Arc<Service>) {
    let head = |length: usize| {
        format!("POST /rollout/token HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n")
    };
    // Too short a body takes from the next request; too long a one is the next request.
    let answers = s.talk(format!("{}abGET /healthz HTTP/1.1\r\n\r\n", head(1)).as_bytes()).await;
    assert_eq!(answers[0].outcome(), "401 no_session");
    assert!(answers[1..].iter().all(|answer| matches!(answer.status, 400 | 404)), "{answers:?}");
    let mut wire = Wire::connect(s.address).await;
    let asked = head(10);
    wire.send(format!("{asked}abc").as_bytes()).await;
    wire.half_close().await;
    let answers = wire.answers(asked.as_bytes()).await;
    assert!(answers.iter().all(|answer| answer.status == 400), "{answers:?}");
    s.count(&answers);
}

/// Seconds until the service closes without a word.
async fn silence(wire: &mut Wire) -> f64 {
    let started = Instant::now();
    wire.closed().await;
    started.elapsed().as_secs_f64()
}

async fn b1() {
    let s = Service::start(BY_JWT).await;
    let mut silent = JoinSet::new();
    for _ in 0..200 {
        let mut wire = Wire::connect(s.address).await;
        silent.spawn(async move { silence(&mut wire).await });
    }
    while let Some(took) = silent.join_next().await {
        let took = took.expect("a connection");
        assert!((9.0..=11.5).contains(&took), "closed after {took} s");
    }
    s.finish().await;
}

async fn short_silence() {
    let s =
        Service::start(&format!("server.header_timeout = \"1s\"\nserver.idle_timeout = \"2s\"\n{BY_JWT}"))
            .await;
    for bytes in [&b""[..], b"P", b"POST /rollout/token HTTP/1.1\r\nHost: a\r\nX: ", b"\r\n"] {
        let mut wire = Wire::connect(s.address).await;
        wire.send(bytes).await;
        let took = silence(&mut wire).await;
        assert!((0.5..=2.5).contains(&took), "closed after {took} s");
    }
    let mut wire = Wire::connect(s.address).await;
    let asked = "GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n";
    for _ in 0..3 {
        wire.send(asked.as_bytes()).await;
        assert_eq!(wire.answer(asked.as_bytes()).await.expect("an answer").status, 200);
        sleep(Duration::from_millis(500)).await;
    }
    let took = silence(&mut wire).await;
    assert!((1.0..=3.0).contains(&took), "closed after {took} s");
    s.finish().await;
}

async fn b3() {
    let s = Service::start(BY_JWT).await;
    let mut wire = Wire::connect(s.address).await;
    let started = Instant::now();
    for byte in good() {
        if !wire.send(&[byte]).await || started.elapsed() > Duration::from_secs(12) {
            break;
        }
        sleep(Duration::from_secs(1)).await;
    }
    assert!(started.elapsed() < Duration::from_secs(12), "still open after {:?}", started.elapsed());
    count_requests(1);
    s.finish().await;
}

async fn b4() {
    let s = Service::start(BY_JWT).await;
    let asked =
        String::from_utf8(good()).expect("text").replace("\r\n\r\n", "\r\nContent-Length: 10\r\n\r\n");
    let mut wire = Wire::connect(s.address).await;
    let started = Instant::now();
    wire.send(asked.as_bytes()).await;
    wire.send(b"x").await;
    let answers = wire.answers(asked.as_bytes()).await;
    let took = started.elapsed().as_secs_f64();
    assert_eq!(answers.iter().map(Answer::outcome).collect::<Vec<_>>(), ["408 request_timeout"]);
    assert!((4.0..=6.5).contains(&took), "answered after {took} s");
    s.count(&answers);
    s.finish().await;
}

async fn b6() {
    let s = Service::start(BY_JWT).await;
    let asked = String::from_utf8(good()).expect("text").replace("Connection: close\r\n", "");
    let mut wire = Wire::connect(s.address).await;
    wire.send(asked.as_bytes()).await;
    let answer = wire.answer(asked.as_bytes()).await.expect("an answer");
    s.count(&[answer]);
    let started = Instant::now();
    // The reader's own patience is shorter than this time-out.
    while timeout(Duration::from_secs(30), wire.closed()).await.is_err() {}
    let took = started.elapsed().as_secs_f64();
    assert!((73.9..=76.5).contains(&took), "closed after {took} s");
    s.finish().await;
}

/// Requests without end, and nobody reads the answers: the service stops reading, then closes.
async fn deaf() {
    let s = Service::start(&BY_JWT.replace("trace", "info")).await;
    let asked = String::from_utf8(good()).expect("text").replace("Connection: close\r\n", "");
    let mut deaf = JoinSet::new();
    for _ in 0..20 {
        let stream = TcpStream::connect(s.address).await.expect("a connection");
        let asked = asked.clone();
        deaf.spawn(async move {
            let started = Instant::now();
            loop {
                let writable = timeout(Duration::from_secs(35), stream.writable()).await;
                assert!(writable.is_ok(), "still open after {:?}", started.elapsed());
                match stream.try_write(asked.as_bytes()) {
                    Err(error) if error.kind() != std::io::ErrorKind::WouldBlock => return,
                    _ => {}
                }
            }
        });
    }
    while let Some(done) = deaf.join_next().await {
        done.expect("closed in the end");
    }
    s.does_not_count();
    s.finish().await;
}

/// Honest requests, ten a second: how long each took, or `None` where it was lost.
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
            count_requests(1);
            let answered = timeout(Duration::from_secs(15), answered).await.ok().flatten();
            count_lost(u64::from(answered.is_none()));
            answered.map_or((n, None), |(n, took)| (n, Some(took)))
        });
    }
    let mut all = asking.join_all().await;
    all.sort_by_key(|(n, _)| *n);
    all.into_iter().map(|(_, took)| took).collect()
}

/// At least 99 of 100 got their token, and those after the first round of time-outs got it within a second.
fn assert_served(took: &[Option<Duration>], first_round: Duration) {
    let served = took.iter().flatten().count();
    assert!(served * 100 >= took.len() * 99, "{served} of {} were served", took.len());
    let after = usize::try_from(first_round.as_millis() / 100).expect("a number");
    let mut later: Vec<Duration> = took[after.min(took.len() - 1)..].iter().flatten().copied().collect();
    later.sort();
    let slowest = later[(later.len() * 99 / 100).min(later.len() - 1)];
    assert!(slowest <= Duration::from_secs(1), "{slowest:?} at the 99th percentile");
}

async fn b7() {
    const CAP: usize = 512;
    let s =
        Service::start(&format!("server.max_connections = {CAP}\n{}", BY_JWT.replace("trace", "info"))).await;
    let mut silent = Vec::new();
    for _ in 0..4 * CAP {
        silent.push(TcpStream::connect(s.address).await.expect("a connection"));
    }
    count_faults(4 * CAP as u64);
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

/// The same by connections that made one request each, and hold their place for the idle time.
async fn b7_idle() {
    const CAP: usize = 256;
    let s =
        Service::start(&format!("server.max_connections = {CAP}\n{}", BY_JWT.replace("trace", "info"))).await;
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
    count_faults(2 * CAP as u64);
    sleep(Duration::from_millis(1500)).await;
    assert_served(&honest(&s, 3).await, Duration::from_secs(2));
    drop(idle);
    s.does_not_count();
    s.finish().await;
}

async fn few_files() {
    let me = Upstream::start(crate::upstream::ok("{\"sub\":\"ann\"}")).await;
    let toml = format!(
        "rate_limit.per_minute = 0\n[session]\nextractors = [\"app\"]\n[extractors.app]\nkind = \"session_endpoint\"\n\
         url = \"http://127.0.0.1:{}/me\"\ncookies = [\"sid\"]\n",
        me.port
    );
    let s = Service::start_with(&Setup::new(&toml).launcher(&["prlimit", "--nofile=64:64"])).await;
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
        let answer = timeout(Duration::from_secs(20), s.one(&asked)).await.expect("an answer");
        answered += u32::from(answer.status == 200);
    }
    assert_eq!(answered, 20, "{}", crate::service::tail(&s.log()));
    drop(silent);
    assert!(s.is_alive());
    // The files of calls to the back end may stay for a while.
    s.stop().await;
}

async fn b14() {
    let hung = Upstream::start(Act::Hang).await;
    let toml = format!(
        "server.max_connections = 10100\nrate_limit.per_minute = 0\n[session]\nextractors = [\"app\"]\n[extractors.app]\n\
         kind = \"session_endpoint\"\nurl = \"http://127.0.0.1:{}/me\"\ncookies = [\"sid\"]\nmax_waiting = 10000\n",
        hung.port
    );
    let s = Service::start(&toml).await;
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
    count_requests(10_000);
    let codes = |code: &str| answers.iter().filter(|answer| answer.outcome() == code).count();
    let (shed, unknown) = (codes("503 overloaded"), codes("503 session_backend_unavailable"));
    println!(
        "      {shed} were shed, {unknown} waited; {connected} KiB with the connections, {idle} KiB without"
    );
    assert_eq!(shed + unknown, 10_000, "an answer of another kind");
    assert!(most <= 512.0, "{most} in flight");
    assert!(shed > 1000, "{shed} were shed");
    s.count(&answers);
    let log = s.whole_log().await;
    let slow = slow_refusals(&log);
    assert!(slow.is_empty(), "shed, but not at once: {slow:?}");
    assert!(s.usage().resident_kib <= connected.max(idle) + 64 * 1024);
    s.settles_within(96 * 1024).await;
    s.stop().await;
}

/// Silent ones, and then such as had a request and are kept for the next.
async fn ten_thousand() {
    const BOUND: u64 = 160 * 1024;
    let toml = format!(
        "server.max_connections = 10100\nserver.header_timeout = \"60s\"\n{}",
        BY_JWT.replace("trace", "info")
    );
    let s = Service::start(&toml).await;
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
    let asked = String::from_utf8(good()).expect("text").replace("Connection: close\r\n", "");
    for wire in &mut wires {
        wire.send(asked.as_bytes()).await;
    }
    for wire in &mut wires {
        assert_eq!(wire.answer(asked.as_bytes()).await.expect("an answer").status, 200);
    }
    count_requests(10_000);
    let idle = s.usage().resident_kib;
    println!("      ten thousand connections: {silent} KiB while silent, {idle} KiB after a request each");
    assert!(silent <= BOUND && idle <= BOUND, "{silent} and {idle} KiB");
    drop(wires);
    s.does_not_count();
    s.settles().await;
    s.stop().await;
}

/// Logged refusals for overload that took the service more than 100 ms.
fn slow_refusals(log: &str) -> Vec<&str> {
    let shed = log.lines().filter(|line| line.contains("\"overloaded\""));
    shed.filter(|line| {
        let line: serde_json::Value = serde_json::from_str(line).expect("JSON");
        line["duration_ms"].as_f64().expect("a duration") > 100.0
    })
    .collect()
}

async fn b17() {
    let s = Service::start(&BY_JWT.replace("trace", "info")).await;
    let mut table = Vec::new();
    let started = Instant::now();
    let mut made = 0_u64;
    while started.elapsed() < Duration::from_secs(66) {
        let mut crowd = JoinSet::new();
        for n in 0..200_u64 {
            let (address, asked) = (s.address, good());
            crowd.spawn(async move {
                let from = [127, 0, 2, u8::try_from(n % 200).expect("small") + 1];
                let mut wire = Wire::connect_from(from, address).await;
                wire.send(&asked).await;
                let answer = wire.answer(&asked).await.expect("an answer");
                assert_eq!(answer.status, 200);
            });
        }
        while let Some(done) = crowd.join_next().await {
            done.expect("a connection");
        }
        made += 200;
        let due = Duration::from_millis(made / 2);
        if let Some(early) = due.checked_sub(started.elapsed()) {
            sleep(early).await;
        }
        if table.last().is_none_or(|(at, _): &(u64, u64)| started.elapsed().as_secs() >= at + 6) {
            table.push((started.elapsed().as_secs(), s.usage().resident_kib));
        }
    }
    count_requests(made);
    s.does_not_count();
    let rate = made / started.elapsed().as_secs();
    println!("      {rate} connections a second; resident KiB by second: {table:?}");
    let warm = table[1];
    let last = *table.last().expect("a row");
    assert!(last.1 <= warm.1 + 1024 * (last.0 - warm.0).div_ceil(60).max(1), "{table:?}");
    s.finish().await;
}

impl Wire {
    /// A connection from another loopback address, which has ports of its own.
    pub async fn connect_from(from: [u8; 4], to: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind((from, 0).into()).expect("a loopback address");
        Self::of(socket.connect(to).await.expect("a connection"))
    }
}
