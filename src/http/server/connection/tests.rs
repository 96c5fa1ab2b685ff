//! Tests one connection over an in-memory socket, with paused time: its timeouts, how it ends, and heads that cannot be
//! parsed. The tests of real sockets, of the connection limit and of the drain are in `tests/server.rs`.

use std::io::{self, Write};
use std::sync::Mutex;

use axum::routing::{get, post};
use tokio::io::{DuplexStream, duplex, join, repeat};
use tokio::time::Instant;
use tracing::Level;

use super::*;
use crate::clock::ManualClock;
use crate::telemetry::logs::LogFormat;

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";

fn router() -> Router {
    Router::new()
        .route("/", get(|| async { "x".repeat(1000) }))
        .route("/body", post(|body: String| async { body }))
        .route("/never", get(std::future::pending::<()>))
}

fn shared() -> Arc<Shared> {
    shared_with(Arc::new(Arc::<ServerConfig>::default))
}

fn shared_with(settings: LiveSettings) -> Arc<Shared> {
    let metrics = Arc::new(Metrics::new());
    let clock = Clock::new(ManualClock::at(0));
    let log = Arc::new(RequestLog::new(
        clock,
        Level::INFO,
        LogFormat::Json,
        &metrics,
    ));
    Arc::new(Shared::new(router(), settings, metrics, log))
}

/// The peer's end of a served connection.
struct Peer {
    stream: DuplexStream,
    state: Arc<ConnectionState>,
    shared: Arc<Shared>,
}

impl Peer {
    /// Connects through an in-memory socket with a buffer of `socket_bytes`.
    fn connect(socket_bytes: usize) -> Self {
        Self::connect_to(shared(), socket_bytes)
    }

    fn connect_to(shared: Arc<Shared>, socket_bytes: usize) -> Self {
        let (ours, theirs) = duplex(socket_bytes);
        let state = ConnectionState::new((shared.settings)());
        tokio::spawn(serve(
            ours,
            ([127, 0, 0, 1], 1).into(),
            state.clone(),
            shared.clone(),
        ));
        Self {
            stream: theirs,
            state,
            shared,
        }
    }

    async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
        settle().await;
    }

    /// Reads all responses until the service closes the connection.
    async fn rest(&mut self) -> String {
        let mut answers = Vec::new();
        self.stream.read_to_end(&mut answers).await.unwrap();
        String::from_utf8(answers).unwrap()
    }

    async fn seconds_to_close(&mut self) -> u64 {
        let start = Instant::now();
        copy(&mut self.stream, &mut sink()).await.unwrap();
        start.elapsed().as_secs()
    }
}

/// Lets the service run until it is idle.
async fn settle() {
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
}

async fn pass(millis: u64) {
    tokio::time::sleep(Duration::from_millis(millis)).await;
}

#[tokio::test(start_paused = true)]
async fn new_connection_has_the_settings_of_the_last_reload() {
    let live = Arc::new(Mutex::new(Arc::<ServerConfig>::default()));
    let settings = live.clone();
    let shared = shared_with(Arc::new(move || settings.lock().unwrap().clone()));
    let target = "a".repeat(50_000);
    let request = format!("GET /?{target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    for (max_uri_bytes, status) in [(2048, "414"), (60_000, "200")] {
        *live.lock().unwrap() = Arc::new(ServerConfig {
            max_uri_bytes,
            ..ServerConfig::default()
        });
        let mut peer = Peer::connect_to(shared.clone(), 64 * 1024);
        peer.send(request.as_bytes()).await;
        let answer = peer.rest().await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}")),
            "{answer}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn silent_connection_is_closed_after_header_timeout() {
    assert_eq!(Peer::connect(64).seconds_to_close().await, 10);
}

#[tokio::test(start_paused = true)]
async fn connection_with_a_dribbled_head_is_closed_after_header_timeout() {
    let mut peer = Peer::connect(64);
    let start = Instant::now();
    while peer.stream.write_all(b"a").await.is_ok() {
        pass(1000).await;
    }
    assert!(
        (10..=11).contains(&start.elapsed().as_secs()),
        "{:?}",
        start.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn idle_connection_is_closed_after_idle_timeout() {
    let mut peer = Peer::connect(64);
    peer.stream.write_all(REQUEST).await.unwrap();
    assert_eq!(peer.seconds_to_close().await, 75);
}

#[tokio::test(start_paused = true)]
async fn head_after_an_idle_period_has_the_full_header_timeout() {
    let mut peer = Peer::connect(4096);
    peer.send(REQUEST).await;
    pass(33_000).await;
    peer.send(b"GET").await;
    assert_eq!(peer.seconds_to_close().await, 10);
}

#[tokio::test(start_paused = true)]
async fn empty_lines_do_not_extend_idle_timeout() {
    for (case, with_request, later) in [
        ("with the request", "\r\n", &[][..]),
        ("later", "", &[(5000, "\r\n")]),
        (
            "dribbled",
            "\n",
            &[(100, "\r"), (5000, "\n"), (30_000, "\r"), (30_000, "\n")],
        ),
    ] {
        let mut peer = Peer::connect(4096);
        let start = Instant::now();
        peer.send(&[REQUEST, with_request.as_bytes()].concat())
            .await;
        for (millis, text) in later {
            pass(*millis).await;
            peer.send(text.as_bytes()).await;
        }
        peer.rest().await;
        assert_eq!(start.elapsed().as_secs(), 75, "{case}");
    }
}

#[tokio::test(start_paused = true)]
async fn request_after_empty_lines_is_answered() {
    for (case, first, lines) in [
        ("first", &b""[..], "\r\n\r\n"),
        ("later", REQUEST, "\r\n\n\r\n"),
    ] {
        let mut peer = Peer::connect(4096);
        peer.send(first).await;
        pass(5000).await;
        peer.send(&[lines.repeat(20).as_bytes(), REQUEST].concat())
            .await;
        let count = peer.rest().await.matches("HTTP/1.1 200").count();
        assert_eq!(count, 1 + usize::from(!first.is_empty()), "{case}");
    }
}

#[tokio::test]
async fn endless_empty_lines_end_the_connection() {
    let shared = shared();
    let state = ConnectionState::new((shared.settings)());
    let served = serve(
        join(repeat(b'\n'), sink()),
        ([127, 0, 0, 1], 1).into(),
        state,
        shared,
    );
    assert!(timeout(Duration::from_secs(20), served).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn connection_counts_as_waiting_for_its_peer_except_while_a_handler_runs() {
    let owed = b"POST /body HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n";
    for (case, before, sent, expected) in [
        ("silent", &b""[..], &b""[..], Some(false)),
        ("half a head", b"", b"GET / HT", Some(false)),
        ("body owed", b"", owed, Some(false)),
        ("idle", REQUEST, b"", Some(true)),
        ("half a later head", REQUEST, b"GET / HT", Some(true)),
        ("body owed later", REQUEST, owed, Some(true)),
        (
            "in a handler",
            b"",
            b"GET /never HTTP/1.1\r\nHost: a\r\n\r\n",
            None,
        ),
        (
            "in a handler later",
            REQUEST,
            b"GET /never HTTP/1.1\r\nHost: a\r\n\r\n",
            None,
        ),
    ] {
        let mut peer = Peer::connect(4096);
        peer.send(before).await;
        peer.send(sent).await;
        assert_eq!(
            peer.state.waiting().map(|(answered, _)| answered),
            expected,
            "{case}"
        );
    }
    let mut peer = Peer::connect(64);
    peer.send(REQUEST).await;
    assert_eq!(
        peer.state.waiting().map(|(answered, _)| answered),
        Some(false),
        "an unread answer"
    );
}

#[tokio::test(start_paused = true)]
async fn dribbled_head_or_body_does_not_reset_the_waiting_time() {
    for (case, sent) in [
        ("a head", &b"POST /body HTTP/1.1\r\nHost: a\r\nX: "[..]),
        (
            "a body",
            b"POST /body HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n",
        ),
    ] {
        let mut peer = Peer::connect(4096);
        peer.send(sent).await;
        let (_, since) = peer.state.waiting().unwrap();
        for _ in 0..9 {
            pass(300).await;
            peer.send(b"x").await;
        }
        assert_eq!(peer.state.waiting(), Some((false, since)), "{case}");
    }
}

#[tokio::test(start_paused = true)]
async fn head_that_arrives_during_shutdown_is_answered() {
    let (first, rest) = REQUEST.split_at(9);
    for (case, before) in [("the first", &b""[..]), ("a later one", REQUEST)] {
        let mut peer = Peer::connect(4096);
        peer.send(before).await;
        pass(if before.is_empty() { 0 } else { 5000 }).await;
        peer.send(first).await;
        pass(100).await;
        peer.shared.shutdown.cancel();
        pass(800).await;
        peer.send(rest).await;
        let answers = peer.rest().await;
        assert_eq!(
            answers.matches("HTTP/1.1 200").count(),
            1 + usize::from(!before.is_empty()),
            "{case}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn shutdown_waits_at_most_one_second_for_a_connection_without_a_request() {
    for (case, sent, pause, wait) in [
        ("silent", &b""[..], 300, 700),
        ("silent for long", b"", 2000, 0),
        ("a head that began long ago", b"GET / HT", 2000, 0),
        ("a head that stops arriving", b"GET / HT", 0, 1000),
        ("idle", REQUEST, 0, 0),
        (
            "idle with an empty line",
            b"GET / HTTP/1.1\r\nHost: a\r\n\r\n\r\n",
            0,
            0,
        ),
    ] {
        let mut peer = Peer::connect(4096);
        peer.send(sent).await;
        pass(pause).await;
        let start = Instant::now();
        peer.shared.shutdown.cancel();
        peer.rest().await;
        assert_eq!(start.elapsed().as_millis(), wait, "{case}");
    }
}

#[tokio::test(start_paused = true)]
async fn request_in_progress_is_answered_during_shutdown_with_connection_close() {
    let mut peer = Peer::connect(4096);
    peer.send(b"POST /body HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\na")
        .await;
    peer.shared.shutdown.cancel();
    pass(3000).await;
    peer.send(b"b").await;
    let answer = peer.rest().await;
    assert!(
        answer.contains("connection: close") && answer.ends_with("\r\n\r\nab"),
        "{answer}"
    );
}

#[tokio::test(start_paused = true)]
async fn connection_is_closed_if_the_peer_does_not_read_the_response() {
    let mut peer = Peer::connect(64);
    let start = Instant::now();
    // The service does not read the following requests, so the write fails when the connection ends.
    assert!(peer.stream.write_all(&REQUEST.repeat(1000)).await.is_err());
    assert_eq!(start.elapsed().as_secs(), 10);
}

#[tokio::test(start_paused = true)]
async fn unread_body_is_not_parsed_as_a_request() {
    let mut peer = Peer::connect(4096);
    let head = format!(
        "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n",
        REQUEST.len()
    );
    peer.send(head.as_bytes()).await;
    peer.send(REQUEST).await;
    assert_eq!(peer.rest().await.matches("HTTP/1.1 200").count(), 1);
}

#[tokio::test(start_paused = true)]
async fn unparsable_head_is_refused_with_a_json_body_a_date_and_connection_close() {
    for (sent, status) in [
        (b"\x16\x03\x01\x02\x00\x01".to_vec(), "HTTP/1.1 400"),
        (
            [b"GET / HTTP/1.1\r\nX: ".to_vec(), vec![b'y'; 40_000]].concat(),
            "HTTP/1.1 431",
        ),
        (
            [b"GET /".to_vec(), vec![b'y'; 40_000]].concat(),
            "HTTP/1.1 414",
        ),
    ] {
        let mut peer = Peer::connect(64 * 1024);
        peer.send(&sent).await;
        let answer = peer.rest().await;
        assert!(answer.starts_with(status), "{answer}");
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        for header in [
            "connection: close",
            "content-type: application/problem+json",
        ] {
            assert!(head.contains(header), "{head}");
        }
        let date = head
            .lines()
            .find_map(|line| line.strip_prefix("date: "))
            .unwrap();
        assert!(httpdate::parse_http_date(date).is_ok(), "{date}");
        assert!(
            serde_json::from_str::<serde_json::Value>(body).is_ok(),
            "{body}"
        );
    }
}

#[derive(Clone, Default)]
struct Output(Arc<Mutex<Vec<u8>>>);

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Serves one connection for each head, and returns the log.
async fn log_of(heads: &[&[u8]]) -> String {
    let output = Output::default();
    let writer = output.clone();
    let log = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(log);
    let shared = shared();
    for head in heads {
        let state = ConnectionState::new((shared.settings)());
        let (ours, mut theirs) = duplex(4096);
        theirs.write_all(head).await.unwrap();
        theirs.shutdown().await.unwrap();
        serve(ours, ([127, 0, 0, 1], 1).into(), state, shared.clone()).await;
    }
    shared.log.report();
    String::from_utf8(output.0.lock().unwrap().clone()).unwrap()
}

fn lines(log: &str, part: &str) -> usize {
    log.lines().filter(|line| line.contains(part)).count()
}

#[tokio::test(start_paused = true)]
async fn flood_of_unparsable_heads_logs_100_lines_and_the_number_of_suppressed_lines() {
    let log = log_of(&[&b"\x01\x02\r\n\r\n"[..]; 300]).await;
    assert_eq!(lines(&log, "request.refused"), 100, "{log}");
    assert_eq!(
        lines(&log, "reason=\"malformed\" suppressed=200"),
        1,
        "{log}"
    );
}

#[tokio::test(start_paused = true)]
async fn connections_of_another_protocol_are_logged_once_per_protocol() {
    let heads: [&[u8]; 5] = [
        b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03",
        b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c",
    ];
    let log = log_of(&heads).await;
    for protocol in ["TLS", "HTTP/2", "PROXY"] {
        let field = format!("protocol=\"{protocol}\"");
        assert_eq!(lines(&log, &field), 1, "{log}");
    }
    assert_eq!(lines(&log, "request.refused"), 0, "{log}");
}

#[tokio::test(start_paused = true)]
async fn evicted_connection_starts_no_request() {
    let (start, rest) = REQUEST.split_at(10);
    let post = b"POST /body HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nx";
    for (start, rest) in [(start, rest), (&post[..], &b"y"[..])] {
        let mut peer = Peer::connect(4096);
        peer.send(start).await;
        let waiting = peer.state.waiting().expect("no handler runs yet");
        assert!(peer.state.evict(waiting));
        peer.send(rest).await;
        assert_eq!(peer.state.waiting(), Some(waiting), "a request started");
    }
}

#[tokio::test(start_paused = true)]
async fn connection_is_not_evicted_if_a_request_has_arrived_since_it_was_selected() {
    for (path, is_answered) in [("/never", false), ("/", true)] {
        let mut peer = Peer::connect(4096);
        let waiting = peer.state.waiting().expect("a new connection waits");
        pass(1).await;
        let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
        peer.send(request.as_bytes()).await;
        assert_eq!(peer.state.waiting().is_some(), is_answered, "{path}");
        assert!(!peer.state.evict(waiting), "{path}");
    }
}
