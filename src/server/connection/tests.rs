//! One connection over a socket in memory, while time is still: its time-outs, its end, and what is no request.
//! Real sockets and the drain as a whole are in `tests/server.rs`.

use axum::Router;
use axum::routing::get;
use tokio::io::{DuplexStream, duplex, join, repeat};

use super::*;

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";

fn settings() -> Server {
    let seconds = Duration::from_secs;
    Server {
        listen: ([127, 0, 0, 1], 0).into(),
        admin_listen: ([127, 0, 0, 1], 0).into(),
        docs_alias: false,
        header_timeout: seconds(10),
        idle_timeout: seconds(75),
        body_timeout: seconds(5),
        request_timeout: seconds(5),
        max_header_bytes: 32 * 1024,
        max_headers: 64,
        max_uri_bytes: 2048,
        max_body_bytes: 4096,
        max_connections: 1,
        max_in_flight: 1,
        drain_delay: seconds(5),
        drain_timeout: seconds(15),
        hard_stop: seconds(25),
    }
}

/// The peer's end of a served connection. The socket between them holds 64 bytes.
fn connect() -> DuplexStream {
    connect_by(64, rules()).0
}

fn connect_by(socket_bytes: usize, rules: Rules) -> (DuplexStream, Arc<Watch>) {
    let (ours, theirs) = duplex(socket_bytes);
    let watch = rules.watch();
    tokio::spawn(serve_by(ours, rules, watch.clone()));
    (theirs, watch)
}

async fn serve_by(stream: impl AsyncRead + AsyncWrite + Unpin, rules: Rules, watch: Arc<Watch>) {
    let router = Router::new().route("/", get(|| async { "x".repeat(1000) }));
    serve(stream, ([127, 0, 0, 1], 1).into(), router, Arc::new(rules), watch).await;
}

fn rules() -> Rules {
    Rules::new(&settings(), Arc::new(Metrics::new()))
}

fn crowded() -> Rules {
    let rules = rules();
    rules.awake.store(MAX_AWAKE, Ordering::Relaxed);
    rules
}

async fn pass(millis: u64) {
    tokio::time::sleep(Duration::from_millis(millis)).await;
}

async fn seconds_to_close(peer: &mut DuplexStream) -> u64 {
    let start = Instant::now();
    copy(peer, &mut sink()).await.unwrap();
    start.elapsed().as_secs()
}

#[tokio::test(start_paused = true)]
async fn a_silent_connection_is_closed_after_the_header_timeout() {
    assert_eq!(seconds_to_close(&mut connect()).await, 10);
}

#[tokio::test(start_paused = true)]
async fn a_dribbled_head_is_closed_after_the_header_timeout() {
    let mut peer = connect();
    let start = Instant::now();
    while peer.write_all(b"a").await.is_ok() {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert!((10..=11).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_closed_after_the_idle_timeout() {
    let mut peer = connect();
    peer.write_all(REQUEST).await.unwrap();
    assert_eq!(seconds_to_close(&mut peer).await, 75);
}

#[tokio::test(start_paused = true)]
async fn a_head_after_an_idle_time_has_the_header_timeout_of_its_own() {
    let mut peer = connect();
    peer.write_all(REQUEST).await.unwrap();
    let _ = timeout(Duration::from_secs(33), copy(&mut peer, &mut sink())).await;
    peer.write_all(b"GET").await.unwrap();
    assert_eq!(seconds_to_close(&mut peer).await, 10);
}

#[tokio::test(start_paused = true)]
async fn empty_lines_leave_an_idle_connection_idle_and_give_it_no_more_time() {
    for (case, rules, with_request, later) in [
        ("with the request", rules(), "\r\n", &[][..]),
        ("soon", rules(), "", &[(500, "\r\n")]),
        ("put aside", rules(), "", &[(5000, "\r\n")]),
        (
            "dribbled",
            rules(),
            "\n",
            &[(100, "\r"), (100, "\n"), (5000, "\r"), (30_000, "\n"), (30_000, "\n")],
        ),
        ("crowded", crowded(), "\r\n", &[(500, "\r\n"), (40_000, "\r\n")]),
    ] {
        let (mut peer, _) = connect_by(4096, rules);
        let start = Instant::now();
        peer.write_all(&[REQUEST, with_request.as_bytes()].concat()).await.unwrap();
        for (millis, text) in later {
            pass(*millis).await;
            peer.write_all(text.as_bytes()).await.unwrap();
        }
        copy(&mut peer, &mut sink()).await.unwrap();
        assert_eq!(start.elapsed().as_secs(), 75, "{case}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_after_empty_lines_is_answered() {
    for (case, pause, lines) in
        [("first", None, "\r\n\r\n"), ("next", Some(500), "\r\n"), ("later", Some(5000), "\r\n\n\r\n")]
    {
        let (mut peer, _) = connect_by(4096, rules());
        let mut answers = Vec::new();
        if let Some(millis) = pause {
            peer.write_all(REQUEST).await.unwrap();
            pass(millis).await;
        }
        peer.write_all(&[lines.repeat(20).as_bytes(), REQUEST].concat()).await.unwrap();
        peer.read_to_end(&mut answers).await.unwrap();
        let count = String::from_utf8(answers).unwrap().matches("HTTP/1.1 200").count();
        assert_eq!(count, 1 + usize::from(pause.is_some()), "{case}");
    }
}

#[tokio::test]
async fn empty_lines_without_a_pause_stop_neither_the_clock_nor_the_service() {
    for (case, header_timeout, is_closing) in [("time", 0, false), ("closing", 1000, true)] {
        let header_timeout = Duration::from_secs(header_timeout);
        let rules = Rules::new(&Server { header_timeout, ..settings() }, Arc::new(Metrics::new()));
        let watch = rules.watch();
        if is_closing {
            watch.close();
        }
        let served = serve_by(join(repeat(b'\n'), sink()), rules, watch);
        assert!(timeout(Duration::from_secs(20), served).await.is_ok(), "{case}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_head_that_arrives_while_the_service_stops_gets_its_answer() {
    let (first, rest) = REQUEST.split_at(9);
    for (case, before) in [("the first", &[][..]), ("a later one", REQUEST)] {
        let (mut peer, watch) = connect_by(4096, rules());
        let mut answers = Vec::new();
        peer.write_all(before).await.unwrap();
        pass(5000).await;
        peer.write_all(first).await.unwrap();
        pass(100).await;
        watch.close();
        pass(800).await;
        peer.write_all(rest).await.unwrap();
        peer.read_to_end(&mut answers).await.unwrap();
        let answers = String::from_utf8(answers).unwrap();
        assert_eq!(answers.matches("HTTP/1.1 200").count(), 1 + usize::from(!before.is_empty()), "{case}");
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_else_keeps_the_service_from_stopping() {
    for (case, sent, pause, wait) in [
        ("nothing", &b""[..], 0, 0),
        ("an empty line", b"\r\n", 0, 0),
        ("a head that began long ago", b"GET / HT", 2000, 0),
        ("a head that does not go on", b"GET / HT", 0, 1000),
        ("an idle connection", REQUEST, 0, 0),
        ("an idle connection with an empty line", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n\r\n", 0, 0),
    ] {
        let (mut peer, watch) = connect_by(4096, rules());
        peer.write_all(sent).await.unwrap();
        tokio::task::yield_now().await;
        pass(pause).await;
        let start = Instant::now();
        watch.close();
        copy(&mut peer, &mut sink()).await.unwrap();
        assert_eq!(start.elapsed().as_millis(), wait, "{case}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_does_not_take_its_answer_is_closed_too() {
    let mut peer = connect();
    peer.write_all(REQUEST).await.unwrap();
    let start = Instant::now();
    // The next request is not even read: the write ends when the connection does.
    assert!(peer.write_all(&REQUEST.repeat(1000)).await.is_err());
    assert_eq!(start.elapsed().as_secs(), 20);
}

#[tokio::test(start_paused = true)]
async fn the_rest_of_a_refused_body_is_no_request_among_many_connections() {
    let (mut peer, _) = connect_by(4096, crowded());
    let head = format!("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", REQUEST.len());
    peer.write_all(head.as_bytes()).await.unwrap();
    let mut answers = vec![0];
    peer.read_exact(&mut answers).await.unwrap();
    peer.write_all(REQUEST).await.unwrap();
    peer.read_to_end(&mut answers).await.unwrap();
    assert_eq!(String::from_utf8(answers).unwrap().matches("HTTP/1.1 200").count(), 1);
}
