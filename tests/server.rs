//! Tests of the server and the request checks from the outside, with raw bytes over real sockets. `tests/api` tests
//! the application.
#![expect(
    clippy::too_many_lines,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use rollout_token::clock::Clock;
use rollout_token::config::HumanDuration;
use rollout_token::http::error::{Error, protect};
use rollout_token::http::request_checks::{check_head, discard_body};
use rollout_token::http::request_id::{RequestIds, X_REQUEST_ID};
use rollout_token::http::server::{self, Drain, DrainOutcome, Listener, LiveSettings};
use rollout_token::settings::{ServerConfig, ServerRestartConfig};
use rollout_token::telemetry::logs::LogFormat;
use rollout_token::telemetry::metrics::Metrics;
use rollout_token::telemetry::requests::RequestLog;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tracing::Level;

/// The upper bound of every wait. If a test reaches it, the server hangs.
const HANG: Duration = Duration::from_secs(20);
const LONG: HumanDuration = HumanDuration::secs(60);
const SHORT: HumanDuration = HumanDuration::millis(150);

fn settings() -> ServerConfig {
    let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
    ServerConfig {
        restart: ServerRestartConfig {
            listen: any_port,
            admin_listen: any_port,
            header_timeout: LONG,
            idle_timeout: LONG,
            max_headers: 64,
            max_connections: 64,
            ..ServerRestartConfig::default()
        },
        body_timeout: LONG,
        request_timeout: LONG,
        drain_delay: HumanDuration::secs(0),
        drain_timeout: HumanDuration(HANG),
        hard_stop: LONG,
        ..ServerConfig::default()
    }
}

/// The settings with changes to keys that are read at start only.
fn restarted(change: impl FnOnce(&mut ServerRestartConfig)) -> ServerConfig {
    let mut settings = settings();
    change(&mut settings.restart);
    settings
}

struct App {
    settings: ServerConfig,
    ids: RequestIds,
    drain: Drain,
    /// A request to `/slow` waits for a permit.
    gate: Arc<Semaphore>,
    /// Each request that arrives at `/slow` adds a permit.
    arrived: Arc<Semaphore>,
}

struct Service {
    address: SocketAddr,
    app: Arc<App>,
    metrics: Arc<Metrics>,
    ended: JoinHandle<DrainOutcome>,
}

/// The application's middleware, reduced to the steps that these tests need, in the same order.
async fn outermost(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let (head, body) = request.into_parts();
    let id = app.ids.next();
    let settings = &app.settings;
    let checked = match check_head(&head, settings, settings.max_body_bytes) {
        Ok(()) => discard_body(body, settings).await,
        Err(error) => Err(error),
    };
    let mut response = match checked {
        Ok(()) => {
            next.run(Request::from_parts(head, axum::body::Body::empty()))
                .await
        }
        Err(error) => error.respond(&id),
    };
    if let Some(error) = response.extensions().get::<Error>() {
        response = error.respond(&id);
    }
    if app.drain.is_draining() {
        response
            .headers_mut()
            .insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    protect(response.headers_mut());
    response
        .headers_mut()
        .insert(X_REQUEST_ID, HeaderValue::try_from(id).unwrap());
    response
}

fn start(settings: ServerConfig) -> Service {
    let app = Arc::new(App {
        settings: settings.clone(),
        ids: RequestIds::new(),
        drain: Drain::default(),
        gate: Arc::new(Semaphore::new(0)),
        arrived: Arc::new(Semaphore::new(0)),
    });
    let (gate, arrived) = (app.gate.clone(), app.arrived.clone());
    let slow = move || async move {
        arrived.add_permits(1);
        gate.acquire().await.unwrap().forget();
        "slow"
    };
    let router = Router::new()
        .route(
            "/",
            post(|| async { "ok" })
                .fallback(|| async { Error::MethodNotAllowed("POST").into_response() }),
        )
        .route("/slow", get(slow))
        .fallback(|| async { Error::NotFound })
        .layer(from_fn_with_state(app.clone(), outermost));
    let public = Listener {
        socket: server::bind(settings.restart.listen).unwrap(),
        router,
    };
    let address = public.socket.local_addr().unwrap();
    let admin = Listener {
        socket: server::bind(settings.restart.admin_listen).unwrap(),
        router: Router::new(),
    };
    let metrics = Arc::new(Metrics::new());
    let log = Arc::new(RequestLog::new(
        Clock::system(),
        Level::INFO,
        LogFormat::Json,
        &metrics,
    ));
    let (counted, drain) = (metrics.clone(), app.drain.clone());
    let settings = Arc::new(settings);
    let live: LiveSettings = Arc::new(move || settings.clone());
    let ended =
        tokio::spawn(async move { server::run(public, admin, live, counted, log, &drain).await });
    Service {
        address,
        app,
        metrics,
        ended,
    }
}

impl Service {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Sends these bytes. Returns everything that the server sends until it closes the connection.
    async fn talk(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect().await;
        // Writing fails if the server refuses the request before it has read everything.
        let _ = stream.write_all(bytes).await;
        read_to_close(&mut stream).await
    }

    async fn outcome(self) -> DrainOutcome {
        timeout(HANG, self.ended)
            .await
            .expect("the drain hangs")
            .unwrap()
    }

    /// The number of open connections to the public listener, according to the metrics.
    fn connections(&self) -> i64 {
        let metrics = self.metrics.render();
        let line = metrics
            .lines()
            .find_map(|line| line.strip_prefix("rollout_token_connections "));
        line.unwrap().parse().unwrap()
    }

    async fn wait_for_connections(&self, count: i64) {
        let reached = async {
            while self.connections() != count {
                tokio::task::yield_now().await;
            }
        };
        timeout(HANG, reached)
            .await
            .expect("connections are not counted");
    }
}

async fn read_to_close(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    timeout(HANG, stream.read_to_end(&mut answer))
        .await
        .expect("the server does not close the connection")
        .unwrap();
    String::from_utf8(answer).unwrap()
}

/// Reads one response on a connection that stays open. The response must arrive in one read.
async fn read_answer(stream: &mut TcpStream) -> String {
    let mut answer = vec![0; 4096];
    let length = timeout(HANG, stream.read(&mut answer))
        .await
        .expect("no answer")
        .unwrap();
    String::from_utf8(answer[..length].to_vec()).unwrap()
}

/// Asserts that there is exactly one response, with one of these statuses, and with the headers and JSON members that
/// every refusal has.
fn assert_refused(name: &str, answer: &str, statuses: &[u16]) {
    assert_eq!(
        answer.to_lowercase().matches("x-request-id: ").count(),
        1,
        "{name}: {answer:?}"
    );
    let status: u16 = answer[9..12].parse().unwrap();
    assert!(statuses.contains(&status), "{name}: {answer:?}");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let json: serde_json::Value =
        serde_json::from_str(body).unwrap_or_else(|_| panic!("{name}: {answer:?}"));
    assert_eq!(json["status"], status, "{name}");
    let head = head.to_lowercase();
    for header in [
        "content-type: application/problem+json",
        "cache-control: no-store",
        "x-content-type-options: nosniff",
        "date: ",
        &format!("x-request-id: {}", json["request_id"].as_str().unwrap()),
        &format!("content-length: {}", body.len()),
    ] {
        assert!(head.contains(header), "{name} lacks {header}: {head}");
    }
}

const HOST: &str = "Host: app.example\r\n";

fn post_with(headers: &str, body: &str) -> Vec<u8> {
    format!("POST / HTTP/1.1\r\n{HOST}{headers}\r\n{body}").into_bytes()
}

#[tokio::test]
async fn malformed_request_gets_one_json_error_and_the_connection_is_closed() {
    let service = start(settings());
    let smuggled = "GET /x HTTP/1.1\r\nHost: app.example\r\n\r\n";
    let chunked = |size: &str| {
        post_with(
            "Transfer-Encoding: chunked\r\n",
            &format!("{size}\r\n{smuggled}"),
        )
    };
    let with_length = |value: &str| post_with(&format!("Content-Length: {value}\r\n"), smuggled);
    let with_coding = |value: &str| post_with(&format!("Transfer-Encoding: {value}\r\n"), smuggled);
    let with_host =
        |value: &str| format!("POST / HTTP/1.1\r\nHost: {value}\r\n\r\n{smuggled}").into_bytes();
    let raw_header =
        |value: &[u8]| [b"POST / HTTP/1.1\r\nHost: a\r\nX: ", value, b"\r\n\r\n"].concat();
    let headers = |count: usize| {
        (0..count)
            .map(|n| format!("X-{n}: y\r\n"))
            .collect::<Vec<_>>()
            .concat()
    };
    let bad: &[u16] = &[400];
    let cases: Vec<(&str, Vec<u8>, &[u16])> = vec![
        (
            "both framings",
            post_with(
                "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n",
                "0\r\n\r\nGET /x",
            ),
            bad,
        ),
        (
            "two lengths",
            post_with("Content-Length: 0\r\nContent-Length: 5\r\n", smuggled),
            bad,
        ),
        ("plus", with_length("+5"), bad),
        ("minus", with_length("-1"), bad),
        ("hex", with_length("0x5"), bad),
        ("list", with_length("5, 5"), bad),
        ("space", with_length("5 5"), bad),
        ("empty", with_length(""), bad),
        (
            "2^64",
            with_length("18446744073709551616"),
            &[400, 413, 431],
        ),
        ("2^64-1", with_length("18446744073709551615"), &[413]),
        ("xchunked", with_coding("xchunked"), bad),
        ("chunked, identity", with_coding("chunked, identity"), bad),
        ("identity", with_coding("identity"), bad),
        (
            "two",
            post_with(
                "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
                smuggled,
            ),
            bad,
        ),
        (
            "in 1.0",
            format!("POST / HTTP/1.0\r\n{HOST}Transfer-Encoding: chunked\r\n\r\n{smuggled}").into(),
            bad,
        ),
        (
            "space before colon",
            post_with("Transfer-Encoding : chunked\r\n", smuggled),
            bad,
        ),
        ("chunked, with another letter", with_coding("Chunked"), bad),
        ("huge chunk", chunked("fffffffffffffffff"), bad),
        ("negative chunk", chunked("-1"), bad),
        ("hex chunk", chunked("0x5"), bad),
        ("plus chunk", chunked("+5"), bad),
        ("NUL", raw_header(b"a\0b"), bad),
        ("control", raw_header(b"a\x01b"), bad),
        ("DEL", raw_header(b"a\x7fb"), bad),
        ("bare CR", raw_header(b"a\rb"), bad),
        ("folded", raw_header(b"a\r\n b"), bad),
        (
            "no host",
            format!("POST / HTTP/1.1\r\n\r\n{smuggled}").into(),
            bad,
        ),
        ("two hosts", post_with(HOST, smuggled), bad),
        ("user info", with_host("good.example:80@evil"), bad),
        ("bracket", with_host("[::1"), bad),
        ("long", with_host(&"a".repeat(300)), bad),
        ("empty", with_host(""), bad),
        ("header count", post_with(&headers(65), smuggled), &[431]),
        (
            "more than hyper accepts",
            post_with(&headers(150), smuggled),
            &[431],
        ),
        (
            "header bytes",
            post_with(&format!("X: {}\r\n", "y".repeat(33 * 1024)), smuggled),
            &[431],
        ),
        (
            "more bytes than hyper accepts",
            post_with(&format!("X: {}\r\n", "y".repeat(50_000)), ""),
            &[431],
        ),
        (
            "long target",
            format!("POST /{} HTTP/1.1\r\n{HOST}\r\n", "a".repeat(2048)).into(),
            &[414],
        ),
        (
            "65,535",
            format!("POST /{} HTTP/1.1\r\n{HOST}\r\n", "a".repeat(65_534)).into(),
            &[414],
        ),
        (
            "long name",
            post_with(&format!("{}: y\r\n", "x".repeat(32 * 1024)), smuggled),
            &[431],
        ),
        (
            "TLS",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".repeat(20),
            bad,
        ),
        (
            "noise",
            (0..65_536_u32)
                .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8 | 0x80)
                .collect(),
            bad,
        ),
        (
            "10 GiB",
            post_with(
                "Expect: 100-continue\r\nContent-Length: 10737418240\r\n",
                "",
            ),
            &[413],
        ),
        (
            "too long",
            post_with("Content-Length: 4097\r\n", &"x".repeat(4097)),
            &[413],
        ),
        (
            "HTTP/2 preface",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec(),
            bad,
        ),
        (
            "PROXY",
            b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\nPOST / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(),
            bad,
        ),
        (
            "absolute target",
            format!("POST http://evil/ HTTP/1.1\r\n{HOST}\r\n{smuggled}").into(),
            bad,
        ),
        (
            "authority target",
            format!("POST evil:80 HTTP/1.1\r\n{HOST}\r\n{smuggled}").into(),
            bad,
        ),
        (
            "bad method",
            format!("P@ST / HTTP/1.1\r\n{HOST}\r\n{smuggled}").into(),
            bad,
        ),
    ];
    for (name, bytes, statuses) in cases {
        let answer = service.talk(&bytes).await;
        assert_refused(name, &answer, statuses);
        assert!(
            answer.to_lowercase().contains("connection: close"),
            "{name}: {answer:?}"
        );
    }
}

#[tokio::test]
async fn unusual_but_valid_requests_are_answered_on_one_connection() {
    let service = start(settings());
    let mut stream = service.connect().await;
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("plain", post_with("", ""), "200"),
        (
            "body",
            post_with("Content-Length: 4096\r\n", &"x".repeat(4096)),
            "200",
        ),
        (
            "bytes in headers",
            b"POST / HTTP/1.1\r\nHost: a\r\nCookie: \xff\xfe\r\nX-Request-Id: \xff\r\n\r\n"
                .to_vec(),
            "200",
        ),
        (
            "64 headers of one name",
            post_with(&"X: y\r\n".repeat(63), ""),
            "200",
        ),
        (
            "lowercase method",
            format!("post / HTTP/1.1\r\n{HOST}\r\n").into(),
            "405",
        ),
        (
            "CONNECT",
            format!("CONNECT evil:80 HTTP/1.1\r\n{HOST}\r\n").into(),
            "405",
        ),
        (
            "websocket",
            post_with("Connection: upgrade\r\nUpgrade: websocket\r\n", ""),
            "200",
        ),
        (
            "h2c",
            post_with(
                "Connection: upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n",
                "",
            ),
            "200",
        ),
        (
            "double slash",
            format!("POST // HTTP/1.1\r\n{HOST}\r\n").into(),
            "404",
        ),
        ("after all that", post_with("", ""), "200"),
    ];
    for (name, bytes, status) in cases {
        stream.write_all(&bytes).await.unwrap();
        let answer = read_answer(&mut stream).await;
        assert_eq!(&answer[9..12], status, "{name}: {answer:?}");
    }
}

#[tokio::test]
async fn request_before_malformed_bytes_is_answered_and_the_malformed_bytes_get_400() {
    let service = start(settings());
    let answer = service
        .talk(&[post_with("", ""), b"\0\0\0\0\r\n\r\n".to_vec()].concat())
        .await;
    let second = answer.find("HTTP/1.1 400").unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer:?}");
    assert_refused("the garbage", &answer[second..], &[400]);
}

#[tokio::test]
async fn half_closed_connection_still_gets_its_answer() {
    let service = start(settings());
    let mut stream = service.connect().await;
    stream.write_all(&post_with("", "")).await.unwrap();
    stream.shutdown().await.unwrap();
    assert!(read_to_close(&mut stream).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn silent_connections_and_incomplete_heads_are_closed_after_header_timeout() {
    let service = start(restarted(|keys| keys.header_timeout = SHORT));
    for (name, bytes) in [
        ("silent", &b""[..]),
        ("half a head", b"POST / HTTP/1.1\r\nHost: a"),
    ] {
        assert_eq!(service.talk(bytes).await, "", "{name}");
    }
    // A connection with an incomplete head after an answered request is closed too.
    let mut stream = service.connect().await;
    stream.write_all(&post_with("", "")).await.unwrap();
    read_answer(&mut stream).await;
    stream.write_all(b"POST /").await.unwrap();
    assert_eq!(read_to_close(&mut stream).await, "");
}

#[tokio::test]
async fn idle_keep_alive_connection_is_closed_after_idle_timeout() {
    let service = start(restarted(|keys| keys.idle_timeout = SHORT));
    let mut stream = service.connect().await;
    stream.write_all(&post_with("", "")).await.unwrap();
    assert!(read_to_close(&mut stream).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn idle_connection_stays_open_longer_than_header_timeout() {
    let service = start(restarted(|keys| keys.header_timeout = SHORT));
    let mut idle = service.connect().await;
    idle.write_all(&post_with("", "")).await.unwrap();
    read_answer(&mut idle).await;
    // This second connection sends nothing, so it is closed after `header_timeout`. The idle connection is older.
    assert_eq!(service.talk(b"").await, "");
    idle.write_all(&post_with("Connection: close\r\n", ""))
        .await
        .unwrap();
    assert!(read_to_close(&mut idle).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn slow_body_is_408() {
    let service = start(ServerConfig {
        body_timeout: SHORT,
        ..settings()
    });
    assert_refused(
        "a slow body",
        &service
            .talk(&post_with("Content-Length: 10\r\n", "x"))
            .await,
        &[408],
    );
}

#[tokio::test]
async fn connection_over_the_limit_is_served_when_another_ends() {
    let service = start(restarted(|keys| keys.max_connections = 1));
    let first = service.connect().await;
    service.wait_for_connections(1).await;
    let mut second = service.connect().await;
    second
        .write_all(&post_with("Connection: close\r\n", ""))
        .await
        .unwrap();
    assert_eq!(service.connections(), 1);
    drop(first);
    assert!(read_to_close(&mut second).await.starts_with("HTTP/1.1 200"));
    service.wait_for_connections(0).await;
}

#[tokio::test]
async fn silent_connection_is_closed_when_all_connections_are_taken() {
    let service = start(restarted(|keys| keys.max_connections = 1));
    let mut silent = service.connect().await;
    service.wait_for_connections(1).await;
    let answer = service.talk(&post_with("Connection: close\r\n", "")).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer:?}");
    assert_eq!(read_to_close(&mut silent).await, "");
}

#[tokio::test]
async fn silent_connection_is_closed_before_an_idle_one_when_all_connections_are_taken() {
    let service = start(restarted(|keys| keys.max_connections = 2));
    // If the idle connection becomes a second old just before the silent one, only the idle one can be closed. In that
    // case, another pair is opened.
    for _ in 0..20 {
        let mut idle = service.connect().await;
        idle.write_all(&post_with("", "")).await.unwrap();
        read_answer(&mut idle).await;
        let mut silent = service.connect().await;
        service.wait_for_connections(2).await;
        let answer = service.talk(&post_with("Connection: close\r\n", "")).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer:?}");
        tokio::select! {
            silent_answer = read_to_close(&mut silent) => {
                assert_eq!(silent_answer, "");
                idle.write_all(&post_with("", "")).await.unwrap();
                assert!(read_answer(&mut idle).await.starts_with("HTTP/1.1 200"));
                return;
            }
            idle_answer = read_to_close(&mut idle) => assert_eq!(idle_answer, ""),
        }
        drop(silent);
        service.wait_for_connections(0).await;
    }
    panic!("the idle connection was always closed first");
}

#[tokio::test]
async fn request_in_a_handler_is_not_aborted_when_all_connections_are_taken() {
    let service = start(restarted(|keys| keys.max_connections = 2));
    let mut slow = service.connect().await;
    slow.write_all(format!("GET /slow HTTP/1.1\r\n{HOST}Connection: close\r\n\r\n").as_bytes())
        .await
        .unwrap();
    service.app.arrived.acquire().await.unwrap().forget();
    let mut silent = service.connect().await;
    service.wait_for_connections(2).await;
    // To accept this connection, the server waits until the silent one is a second old, and closes it. The slow one is
    // older, but a handler is processing its request.
    let answer = service.talk(&post_with("Connection: close\r\n", "")).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer:?}");
    assert_eq!(read_to_close(&mut silent).await, "");
    service.app.gate.add_permits(1);
    assert!(read_to_close(&mut slow).await.starts_with("HTTP/1.1 200"));
}

/// Opens 200 connections that send only these bytes to a server with a limit of 64 connections. Asserts that two more
/// clients are served while some of these connections are still open. The timeouts of these connections are longer than
/// [`HANG`], so the server closes them only to accept others.
async fn assert_served_behind(bytes: &[u8]) {
    let service = start(settings());
    let mut held = Vec::new();
    for _ in 0..200 {
        let mut stream = service.connect().await;
        stream.write_all(bytes).await.unwrap();
        held.push(stream);
    }
    // Once the 65th connection is closed, the second batch of 64 is being closed. The third batch is closed a second
    // later, and then the two clients are accepted.
    let closed = timeout(HANG, held[64].read(&mut [0; 4096]))
        .await
        .expect("not closed");
    assert!(!matches!(closed, Ok(length) if length > 0), "answered");
    let honest = post_with("Connection: close\r\n", "");
    for answer in <[String; 2]>::from(tokio::join!(service.talk(&honest), service.talk(&honest))) {
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer:?}");
    }
    let open = service.connections();
    assert!((3..=64).contains(&open), "{open} connections are open");
}

#[tokio::test]
async fn two_clients_are_served_while_200_silent_connections_compete_for_64_connections() {
    assert_served_behind(b"").await;
}

#[tokio::test]
async fn two_clients_are_served_while_200_incomplete_heads_compete_for_64_connections() {
    assert_served_behind(b"POST / HTTP/1.1\r\nHost: app.example\r\nX: ").await;
}

#[tokio::test]
async fn two_clients_are_served_while_200_incomplete_heads_of_34_kb_compete_for_64_connections() {
    let head = [
        &b"POST / HTTP/1.1\r\nHost: app.example\r\nX: "[..],
        &vec![b'y'; 34_000],
    ]
    .concat();
    assert_served_behind(&head).await;
}

#[tokio::test]
async fn two_clients_are_served_while_200_incomplete_bodies_compete_for_64_connections() {
    assert_served_behind(&post_with("Content-Length: 1\r\n", "")).await;
}

#[tokio::test]
async fn drain_answers_requests_in_flight_and_closes_all_other_connections() {
    let service = start(settings());
    let (mut silent, mut half, mut idle) = (
        service.connect().await,
        service.connect().await,
        service.connect().await,
    );
    half.write_all(b"GET / HTTP/1.1\r\nHost:").await.unwrap();
    idle.write_all(&post_with("", "")).await.unwrap();
    read_answer(&mut idle).await;
    let mut slow = service.connect().await;
    slow.write_all(format!("GET /slow HTTP/1.1\r\n{HOST}\r\n").as_bytes())
        .await
        .unwrap();
    service.app.arrived.acquire().await.unwrap().forget();
    let mut arriving = service.connect().await;
    arriving.write_all(b"POST / HTTP/1.1\r\n").await.unwrap();

    service.app.drain.begin();
    assert!(service.app.drain.is_draining());
    arriving
        .write_all(format!("{HOST}\r\n").as_bytes())
        .await
        .unwrap();
    let answer = read_to_close(&mut arriving).await;
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.contains("connection: close"),
        "{answer:?}"
    );
    for stream in [&mut silent, &mut half, &mut idle] {
        let mut rest = Vec::new();
        let closed = timeout(HANG, stream.read_to_end(&mut rest))
            .await
            .expect("not closed");
        assert!(closed.is_err() || rest.is_empty());
    }
    service.wait_for_connections(1).await;
    service.app.gate.add_permits(1);
    let answer = read_to_close(&mut slow).await;
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.contains("connection: close"),
        "{answer:?}"
    );
    assert!(TcpStream::connect(service.address).await.is_err());
    drop(slow);
    assert_eq!(service.outcome().await, DrainOutcome::Clean);
}

#[tokio::test]
async fn connections_are_accepted_during_the_drain_delay() {
    let service = start(ServerConfig {
        drain_delay: HumanDuration::millis(500),
        ..settings()
    });
    service.app.drain.begin();
    let answer = service.talk(&post_with("", "")).await;
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.contains("connection: close"),
        "{answer:?}"
    );
    assert_eq!(service.outcome().await, DrainOutcome::Clean);
}

#[tokio::test]
async fn request_still_running_after_drain_timeout_is_aborted() {
    let service = start(ServerConfig {
        drain_timeout: SHORT,
        ..settings()
    });
    let mut hung = service.connect().await;
    hung.write_all(format!("GET /slow HTTP/1.1\r\n{HOST}\r\n").as_bytes())
        .await
        .unwrap();
    service.app.arrived.acquire().await.unwrap().forget();
    service.app.drain.begin();
    assert_eq!(service.outcome().await, DrainOutcome::Forced(1));
}
