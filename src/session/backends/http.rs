//! The client for outgoing HTTP calls, and the validation of their URLs. Every call has timeouts and a size limit.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::error::Error as _;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use std::{fmt, io};

use axum::http::{Extensions, HeaderMap, StatusCode, header};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::{Connected, Connection, HttpInfo};
use reqwest::{Client, Request, Response, redirect, retry};
use rustls::ClientConfig;
use tokio::sync::OnceCell;
use tower::util::MapResponseLayer;
use tracing::Instrument;
use url::Url;

use crate::config::HumanDuration;
use crate::session::backends::dns::Resolver;
use crate::session::backends::outgoing::{Outgoing, certificate_advice};
use crate::session::formats::loopback::is_loopback;
use crate::session::formats::shown::shown;
use crate::session::reason::Reason;
use crate::telemetry::spans;

const USER_AGENT: &str = concat!("rollout-token/", env!("CARGO_PKG_VERSION"));

/// Idle connections are closed after this time, because Node.js servers close theirs after five seconds, and a request
/// that is sent at that moment is lost.
const IDLE_TIMEOUT: Duration = Duration::from_secs(4);

tokio::task_local! {
    /// The local address of the connection that was opened for this task's request.
    static OPENED: Cell<Option<SocketAddr>>;
}

/// The client for all outgoing HTTP calls. It follows no redirects, uses the proxy and the certificates of
/// `[outgoing]`, ignores proxy variables such as `HTTPS_PROXY`, stores no cookies, requests no compression, uses
/// HTTP/1.1 only, and retries only as [`CallLimits::retry_closed`] describes. Cheap to clone.
///
/// The reqwest clients are built on first use, because loading the system's CA certificates would add milliseconds to
/// the start-up time.
#[derive(Clone, Default)]
pub struct HttpClient(Arc<Shared>);

/// The state that the clones of a client share.
#[derive(Default)]
struct Shared {
    outgoing: Outgoing,
    tls: OnceCell<ClientConfig>,
    clients: Mutex<BTreeMap<ClientKind, Client>>,
}

/// The settings that differ between the reqwest clients.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct ClientKind {
    connect_timeout: Duration,
    /// Whether idle connections are kept for later requests.
    keeps_connections: bool,
}

/// The limits of one call.
#[derive(Clone, Copy, Debug)]
pub struct CallLimits {
    /// The timeout from the DNS look-up to the end of the TLS handshake.
    pub connect: Duration,
    /// The timeout from the DNS look-up to the last byte of the body.
    pub total: Duration,
    /// The maximum length of the body, in bytes.
    pub body: usize,
    /// Whether a request is repeated once, on a new connection, if it was sent on an idle connection that was closed
    /// before the response. The backend may have received the first request, so the request must not change any state
    /// there.
    pub retry_closed: bool,
}

/// An HTTP response with any status. `Debug` shows only the status, because the rest may contain the session.
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    /// Empty unless the status is 200. Error pages are not interpreted, and an error page over the size limit must not
    /// hide the status.
    pub body: Vec<u8>,
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer")
            .field("status", &self.status)
            .finish_non_exhaustive()
    }
}

/// Why a call failed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CallError {
    /// The certificates could not be loaded, the connection could not be opened, its TLS handshake failed, it broke, or
    /// the answer is not well-formed HTTP. The string is the error message without the URL.
    Unreachable(String),
    /// There was no complete answer within this time.
    Timeout(Duration),
    Status(StatusCode),
    /// The body is longer than this limit in bytes.
    TooLarge(usize),
}

impl CallError {
    /// The reason that metrics and logs report for this error.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Unreachable(_) => Reason::Unreachable,
            Self::Timeout(_) => Reason::Timeout,
            Self::Status(_) => Reason::Status,
            Self::TooLarge(_) => Reason::TooLarge,
        }
    }

    fn transport(error: reqwest::Error) -> Self {
        Self::of(&error.without_url())
    }

    /// Converts an error to `Unreachable`, with the messages of the error and of its causes. Adds advice if a
    /// certificate is the cause.
    fn of(error: &(dyn std::error::Error + 'static)) -> Self {
        let mut text = error.to_string();
        for cause in causes(error) {
            text = format!("{text}: {cause}");
        }
        if let Some(advice) = certificate_advice(error) {
            text = format!("{text}: {advice}");
        }
        Self::Unreachable(text)
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(text) => f.write_str(text),
            Self::Timeout(limit) => {
                write!(f, "no complete answer within {}", HumanDuration(*limit))
            }
            Self::Status(status) => write!(f, "the status of the answer is {}", status.as_u16()),
            Self::TooLarge(limit) => write!(f, "the answer is longer than {limit} bytes"),
        }
    }
}

impl Answer {
    /// Returns the answer if its status is 200; no other status means success.
    pub fn ok(self) -> Result<Self, CallError> {
        if self.status == StatusCode::OK {
            Ok(self)
        } else {
            Err(CallError::Status(self.status))
        }
    }
}

impl HttpClient {
    pub(crate) fn new(outgoing: Outgoing) -> Self {
        Self(Arc::new(Shared {
            outgoing,
            ..Shared::default()
        }))
    }

    /// The proxy and the certificates that this client's calls use.
    pub(crate) fn outgoing(&self) -> &Outgoing {
        &self.0.outgoing
    }

    /// Sends one request and reads the complete answer within `limits`.
    pub async fn send(
        &self,
        mut request: Request,
        limits: CallLimits,
    ) -> Result<Answer, CallError> {
        let span = spans::call_span(request.method(), request.url());
        spans::inject(&span, request.headers_mut());
        let answer = self
            .send_untraced(request, limits)
            .instrument(span.clone())
            .await;
        match &answer {
            Ok(answer) => spans::record_status(&span, answer.status),
            Err(error) => spans::record_failure(&span, error.reason().as_str()),
        }
        answer
    }

    /// Like [`Self::send`], but without a trace span, because the export of traces must not itself be traced.
    pub(crate) async fn send_untraced(
        &self,
        request: Request,
        limits: CallLimits,
    ) -> Result<Answer, CallError> {
        let kind = ClientKind {
            connect_timeout: limits.connect,
            keeps_connections: true,
        };
        // The first call builds the client. The time for this does not count towards the timeout.
        let client = self.client(kind).await?;
        let answer = self.exchange(&client, kind, request, limits);
        tokio::time::timeout(limits.total, answer)
            .await
            .unwrap_or(Err(CallError::Timeout(limits.total)))
    }

    async fn exchange(
        &self,
        client: &Client,
        kind: ClientKind,
        request: Request,
        limits: CallLimits,
    ) -> Result<Answer, CallError> {
        let again = if limits.retry_closed {
            request.try_clone()
        } else {
            None
        };
        let (response, opened) = OPENED
            .scope(Cell::new(None), async {
                let response = client.execute(request).await;
                (response, OPENED.with(Cell::get))
            })
            .await;
        let response = match (response, again) {
            (Err(error), Some(again))
                if is_closed(&error) && is_on_idle_connection(&error, opened) =>
            {
                let kind = ClientKind {
                    keeps_connections: false,
                    ..kind
                };
                self.client(kind).await?.execute(again).await
            }
            (response, _) => response,
        };
        read_answer(response.map_err(CallError::transport)?, limits.body).await
    }

    async fn client(&self, kind: ClientKind) -> Result<Client, CallError> {
        if let Some(client) = self.clients().get(&kind) {
            return Ok(client.clone());
        }
        let load = || async {
            let mut tls = self.0.outgoing.load_tls().await?;
            tls.alpn_protocols = vec![b"http/1.1".to_vec()];
            Ok(tls)
        };
        let tls = self.0.tls.get_or_try_init(load).await;
        let tls = tls.map_err(|error: io::Error| CallError::of(&error))?;
        let client = self.build(kind, tls.clone())?;
        // Another call may have added a client in the meantime. That client is used, because it may have idle
        // connections.
        Ok(self.clients().entry(kind).or_insert(client).clone())
    }

    fn clients(&self) -> MutexGuard<'_, BTreeMap<ClientKind, Client>> {
        self.0
            .clients
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn build(&self, kind: ClientKind, tls: ClientConfig) -> Result<Client, CallError> {
        let max_idle = if kind.keeps_connections {
            usize::MAX
        } else {
            0
        };
        let mut builder = Client::builder()
            .user_agent(USER_AGENT)
            .connect_timeout(kind.connect_timeout)
            .connector_layer(MapResponseLayer::new(opened))
            .dns_resolver(Resolver::system())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(max_idle)
            .redirect(redirect::Policy::none())
            .referer(false)
            .retry(retry::never())
            .no_proxy()
            .http1_only()
            .tls_backend_preconfigured(tls);
        if let Some(proxy) = self.0.outgoing.proxy() {
            builder = builder.proxy(proxy.map_err(CallError::transport)?);
        }
        builder.build().map_err(CallError::transport)
    }
}

/// Called for each new connection, to record its local address for the request that opened it. If that request was sent
/// on a connection that became idle in the meantime, this function runs outside the request's task and records nothing.
fn opened<C: Connection>(connection: C) -> C {
    let _ = OPENED.try_with(|opened| opened.set(local_address(&connection.connected())));
    connection
}

fn local_address(connection: &Connected) -> Option<SocketAddr> {
    let mut extras = Extensions::new();
    connection.get_extras(&mut extras);
    extras.get::<HttpInfo>().map(HttpInfo::local_addr)
}

/// Whether the request was sent on an idle connection. `opened` is the local address of the connection that was opened
/// for the request.
fn is_on_idle_connection(error: &reqwest::Error, opened: Option<SocketAddr>) -> bool {
    let error = error
        .source()
        .and_then(|cause| cause.downcast_ref::<legacy::Error>());
    let used = error
        .and_then(legacy::Error::connect_info)
        .and_then(local_address);
    used.is_some() && used != opened
}

/// Whether the connection was closed before the complete response head was received.
fn is_closed(error: &reqwest::Error) -> bool {
    use io::ErrorKind as Kind;
    for cause in causes(error) {
        if cause.downcast_ref::<hyper::Error>().is_some_and(|error| {
            error.is_incomplete_message() || error.is_canceled() || error.is_closed()
        }) {
            return true;
        }
        if let Some(error) = cause.downcast_ref::<io::Error>() {
            return matches!(
                error.kind(),
                Kind::BrokenPipe
                    | Kind::ConnectionAborted
                    | Kind::ConnectionReset
                    | Kind::NotConnected
                    | Kind::UnexpectedEof
            );
        }
    }
    false
}

fn causes<'a>(
    error: &'a dyn std::error::Error,
) -> impl Iterator<Item = &'a (dyn std::error::Error + 'static)> {
    std::iter::successors(error.source(), |&cause| cause.source())
}

impl fmt::Debug for HttpClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpClient").finish_non_exhaustive()
    }
}

async fn read_answer(mut response: Response, limit: usize) -> Result<Answer, CallError> {
    let (status, headers) = (response.status(), std::mem::take(response.headers_mut()));
    // A body within the limit is always read, because otherwise the connection cannot be reused.
    let body = read(response, limit).await;
    let body = if status == StatusCode::OK {
        body?
    } else {
        Vec::new()
    };
    Ok(Answer {
        status,
        headers,
        body,
    })
}

async fn read(mut response: Response, limit: usize) -> Result<Vec<u8>, CallError> {
    let is_too_long = |length| usize::try_from(length).map_or(true, |length| length > limit);
    if response.content_length().is_some_and(is_too_long) {
        return Err(CallError::TooLarge(limit));
    }
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(CallError::transport)? {
        if body.len() + chunk.len() > limit {
            return Err(CallError::TooLarge(limit));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// Describes the media type of an answer, for messages about an unexpected media type.
pub fn content_type(headers: &HeaderMap) -> String {
    match media_type(headers) {
        "" => "missing".to_owned(),
        html if html.eq_ignore_ascii_case("text/html") => format!("{html}: a login page?"),
        other => shown(other),
    }
}

/// The media type of an answer, without parameters; empty if it is missing.
pub fn media_type(headers: &HeaderMap) -> &str {
    let value = headers.get(header::CONTENT_TYPE);
    let value = value
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    value
        .split_once(';')
        .map_or(value, |(media_type, _)| media_type)
        .trim()
}

/// Parses the URL of an outgoing call. The scheme must be https, or may be http if the host is loopback or `allow_http`
/// is set. The URL must not contain a user name, a password, a fragment or port 0.
///
/// # Errors
/// If the URL is malformed or not allowed. The message contains no part of the URL, which may contain a password.
pub fn check_url(text: &str, allow_http: bool) -> Result<Url, &'static str> {
    let url = Url::parse(text).map_err(|_| "must be a URL, such as https://id.example.com/keys")?;
    let loopback = url.host_str().is_some_and(is_loopback);
    if !url.username().is_empty() || url.password().is_some() {
        Err("must not contain a user name or a password")
    } else if !matches!(url.scheme(), "https" | "http") {
        Err("must begin with https://")
    } else if url.fragment().is_some() {
        Err("must not have a fragment (#)")
    } else if url.port() == Some(0) {
        Err("must not have port 0")
    } else if url.scheme() == "http" && !loopback && !allow_http {
        Err(
            "must begin with https://: http is allowed only for loopback hosts, unless allow_http is true",
        )
    } else {
        Ok(url)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;
    use axum::http::header;
    use axum::routing::get;
    use futures_util::{FutureExt, StreamExt, stream};
    use reqwest::Method;

    use crate::session::backends::endpoint::CONNECT_TIMEOUT;

    #[test]
    fn debug_output_of_an_answer_shows_only_its_status() {
        let answer = Answer {
            status: StatusCode::OK,
            headers: HeaderMap::from_iter([(header::SET_COOKIE, "s3cr3t".parse().unwrap())]),
            body: b"s3cr3t".to_vec(),
        };
        assert_eq!(format!("{answer:?}"), "Answer { status: 200, .. }");
    }

    const LIMITS: CallLimits = CallLimits {
        connect: CONNECT_TIMEOUT.0,
        total: Duration::from_millis(200),
        body: 16 * 1024,
        retry_closed: true,
    };

    #[test]
    fn url_must_be_https_unless_loopback_or_allow_http_and_must_have_no_credentials() {
        for (url, allow_http, good) in [
            ("https://id.example.com/keys?v=1", false, true),
            ("https://id.example.com:8443/keys", false, true),
            ("http://127.0.0.1:9/keys", false, true),
            ("http://127.9.9.9/keys", false, true),
            ("http://[::1]:9/keys", false, true),
            ("http://localhost/keys", false, true),
            ("http://keys.localhost/", false, true),
            ("http://[::ffff:127.0.0.1]/", false, true),
            ("http://id.example.com/keys", true, true),
            ("http://id.example.com/keys", false, false),
            ("http://localhost.example.com/keys", false, false),
            ("http://127.0.0.1.example.com/keys", false, false),
            ("http://10.0.0.1/keys", false, false),
            ("https://user:hunter2@id.example.com/", false, false),
            ("https://hunter2@id.example.com/", true, false),
            ("https://id.example.com/#part", false, false),
            ("https://id.example.com:0/", false, false),
            ("file:///etc/passwd", true, false),
            ("gopher://id.example.com/", true, false),
            ("id.example.com/keys", true, false),
            ("", true, false),
        ] {
            match check_url(url, allow_http) {
                Ok(_) => assert!(good, "{url}"),
                Err(text) => assert!(!good && !text.contains("hunter2"), "{url}: {text}"),
            }
        }
    }

    #[test]
    fn certificates_are_loaded_outside_the_async_workers() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .max_blocking_threads(1)
            .build()
            .unwrap();
        runtime.block_on(async {
            let (release, wait) = std::sync::mpsc::channel::<()>();
            let busy = tokio::task::spawn_blocking(move || wait.recv());
            let http = HttpClient::default();
            let kind = ClientKind {
                connect_timeout: LIMITS.connect,
                keeps_connections: true,
            };
            assert!(http.client(kind).now_or_never().is_none(), "not loaded yet");
            release.send(()).unwrap();
            busy.await.unwrap().unwrap();
            assert!(http.client(kind).await.is_ok());
            assert!(http.client(kind).now_or_never().is_some(), "loaded once");
        });
    }

    async fn serve() -> String {
        let endless = || async {
            Body::from_stream(stream::repeat("x".repeat(1000)).map(Ok::<_, std::io::Error>))
        };
        let router = axum::Router::new()
            .route(
                "/seen",
                get(|headers: HeaderMap| async move { format!("{headers:?}") }),
            )
            .route(
                "/moved",
                get(|| async { (StatusCode::FOUND, [(header::LOCATION, "/seen")]) }),
            )
            .route(
                "/hangs",
                get(|| async { std::future::pending::<()>().await }),
            )
            .route("/long", get(|| async { "x".repeat(17 * 1024) }))
            .route(
                "/lost",
                get(|| async { (StatusCode::NOT_FOUND, "x".repeat(17 * 1024)) }),
            )
            .route("/endless", get(endless));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port");
        let address = listener.local_addr().expect("an address");
        tokio::spawn(async move { axum::serve(listener, router).await });
        format!("http://{address}")
    }

    async fn call(url: &str) -> Result<Answer, CallError> {
        let request = Request::new(Method::GET, url.parse().expect("a URL"));
        HttpClient::default().send(request, LIMITS).await
    }

    #[tokio::test]
    async fn failed_call_is_reported_with_its_reason_and_without_the_query() {
        let base = serve().await;
        let seen = call(&format!("{base}/seen"))
            .await
            .and_then(Answer::ok)
            .expect("an answer");
        let seen = String::from_utf8_lossy(&seen.body).into_owned();
        assert!(
            seen.contains("rollout-token/") && !seen.contains("accept-encoding"),
            "{seen}"
        );

        let closed = {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
            listener.local_addr().expect("an address")
        };
        for (url, word) in [
            (format!("{base}/moved"), "status"),
            (format!("{base}/absent"), "status"),
            (format!("{base}/lost"), "status"),
            (format!("{base}/hangs"), "timeout"),
            (format!("{base}/long"), "too_large"),
            (format!("{base}/endless"), "too_large"),
            (format!("http://{closed}/?key=hunter2"), "unreachable"),
        ] {
            let error = call(&url).await.and_then(Answer::ok).expect_err(&url);
            assert_eq!(error.reason().as_str(), word, "{url}: {error}");
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
    }
}
