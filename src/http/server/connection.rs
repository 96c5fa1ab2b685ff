//! One connection, from accept to close.
//!
//! hyper serves the requests. A head that hyper cannot parse gets its JSON response from this module, because hyper's
//! own response has no body. After the last response, the service continues to read from the connection for a short
//! time: closing a socket with unread bytes resets the connection, and the peer may then lose the response.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use axum::Router;
use axum::extract::ConnectInfo;
use axum::http::Request;
use futures_util::future::poll_fn;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy, sink};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tower::Service;
use tracing::{debug, error};

use super::connection_state::{ConnectionState, Phase, TimedIo};
use crate::clock::Clock;
use crate::http::error::{Error, protect};
use crate::http::request_checks::AmbiguousHead;
use crate::http::request_id::RequestIds;
use crate::http::server::LiveSettings;
use crate::session::reason::Reason;
use crate::settings::ServerConfig;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::requests::RequestLog;

/// The space in the head buffer for the request line without its target, in bytes: the method, two spaces and the
/// version.
const REQUEST_LINE_BYTES: usize = 1024;
/// The smallest buffer size that hyper accepts.
const MIN_BUFFER_BYTES: usize = 8192;
/// The limits on reading from a connection after its last response.
const LINGER_TIMEOUT: Duration = Duration::from_secs(1);
const LINGER_BYTES: u64 = 64 * 1024;

/// The state that all connections of a listener share.
pub(super) struct Shared {
    router: Router,
    pub(super) settings: LiveSettings,
    /// Cancelled at shutdown, when each connection must end after its request in flight.
    pub(super) shutdown: CancellationToken,
    ids: RequestIds,
    clock: Clock,
    metrics: Arc<Metrics>,
    log: Arc<RequestLog>,
}

impl Shared {
    pub(super) fn new(
        router: Router,
        settings: LiveSettings,
        metrics: Arc<Metrics>,
        log: Arc<RequestLog>,
    ) -> Self {
        Self {
            router,
            settings,
            shutdown: CancellationToken::new(),
            ids: RequestIds::new(),
            clock: Clock::system(),
            metrics,
            log,
        }
    }
}

/// hyper's limits are just above the configured ones, so that `request_checks` refuses a head that is slightly too
/// large, with the same log line and CORS headers as every other refusal.
fn http1_builder(settings: &ServerConfig) -> http1::Builder {
    let head_bytes =
        settings.max_uri_bytes + settings.restart.max_header_bytes + REQUEST_LINE_BYTES;
    let mut http = http1::Builder::new();
    // A peer that closes its sending side after a complete request still receives its response.
    http.half_close(true)
        .header_read_timeout(None)
        .max_buf_size(head_bytes.max(MIN_BUFFER_BYTES))
        .max_headers(settings.restart.max_headers + 1);
    http
}

/// Serves one connection until it ends, with the settings that were in force when it was accepted.
pub(super) async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    peer: SocketAddr,
    state: Arc<ConnectionState>,
    shared: Arc<Shared>,
) {
    let answer = service_fn(|mut request: Request<Incoming>| {
        let exchange = state.begin_exchange();
        request.extensions_mut().insert(ConnectInfo(peer));
        if let Some(reason) = state.ambiguity() {
            request.extensions_mut().insert(AmbiguousHead(reason));
        }
        let mut router = shared.router.clone();
        Box::pin(async move {
            let Some(exchange) = exchange else {
                // The connection is evicted, so the acceptor aborts this task.
                return std::future::pending().await;
            };
            let response = router.call(request);
            // The response body owns the exchange. hyper drops both when it has consumed the whole body.
            let hold = move |error| {
                let _ = &exchange;
                error
            };
            Ok::<_, Infallible>(response.await?.map(|body| body.map_err(hold)))
        })
    });
    let io = TokioIo::new(TimedIo::new(stream, state.clone()));
    let mut http = http1_builder(&state.settings).serve_connection(io, answer);
    let result = tokio::select! {
        biased;
        result = poll_fn(|cx| http.poll_without_shutdown(cx)) => result,
        () = shared.shutdown.cancelled() => {
            match state.close() {
                Phase::Idle => return,
                // Do not request a graceful shutdown here, because hyper would then drop the incomplete head.
                Phase::Head => {}
                _ => std::pin::Pin::new(&mut http).graceful_shutdown(),
            }
            poll_fn(|cx| http.poll_without_shutdown(cx)).await
        }
    };
    let parts = http.into_parts();
    let TimedIo {
        mut stream,
        timed_out,
        ..
    } = parts.io.into_inner();
    match result {
        _ if timed_out => debug!(%peer, "connection timed out"),
        Ok(()) => linger(stream).await,
        Err(error) if error.is_parse() => {
            let refusal = refusal(&error, &parts.read_buf, &state.settings);
            let protocol = other_protocol(&parts.read_buf);
            drop(parts.read_buf);
            match refuse(&refusal, protocol, &shared) {
                Ok(answer) => {
                    if let Ok(Ok(())) = timeout(LINGER_TIMEOUT, stream.write_all(&answer)).await {
                        linger(stream).await;
                    }
                }
                Err(error) => error!(%error, "cannot build the response"),
            }
        }
        Err(error) => debug!(%peer, ?error, "connection failed"),
    }
}

/// Closes the sending side, then reads until the peer closes the connection or a limit is reached.
async fn linger<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S) {
    if stream.shutdown().await.is_ok() {
        let mut rest = stream.take(LINGER_BYTES);
        let _ = timeout(LINGER_TIMEOUT, copy(&mut rest, &mut sink())).await;
    }
}

/// The error for a head that hyper could not parse. `unparsed` contains the bytes that hyper has read but not
/// parsed.
fn refusal(error: &hyper::Error, unparsed: &[u8], limits: &ServerConfig) -> Error {
    if !error.is_parse_too_large() {
        return Error::BadRequest(Reason::Malformed);
    }
    let request_line = unparsed.iter().take_while(|byte| **byte != b'\n').count();
    if request_line > limits.max_uri_bytes {
        return Error::UriTooLong;
    }
    // hyper stops reading at the first header over the limit, so the head may contain more headers.
    let lines = unparsed[request_line..]
        .split(|byte| *byte == b'\n')
        .skip(1);
    let headers = lines.take_while(|line| !matches!(line, [] | [b'\r']));
    let (count, bytes) = headers.fold((0, 0), |(count, bytes), line| {
        (count + 1, bytes + line.len() + 1)
    });
    // hyper reports the same error for a `Content-Length` above the maximum that it supports.
    Error::of_headers(count, bytes, true, &limits.restart).unwrap_or(Error::BodyTooLarge)
}

/// Recognises protocols other than HTTP/1.1 by their first bytes (TLS: RFC 8446, section 5.1; HTTP/2: RFC 9113, section
/// 3.4; PROXY: `HAProxy`'s `proxy-protocol.txt`, sections 2.1 and 2.2). Returns the name and a hint for the operator.
fn other_protocol(unparsed: &[u8]) -> Option<(&'static str, &'static str)> {
    if unparsed.starts_with(b"\x16\x03") {
        let hint = "this address accepts plain HTTP only: terminate TLS in the proxy in front";
        Some(("TLS", hint))
    } else if unparsed.starts_with(b"PRI * HTTP/2") {
        Some(("HTTP/2", "let the proxy in front send HTTP/1.1"))
    } else if unparsed.starts_with(b"PROXY ") || unparsed.starts_with(b"\0\r\nQUIT\n") {
        // The parser has already skipped the two line breaks with which PROXY protocol version 2 begins.
        let hint = "switch off the PROXY protocol in the load balancer";
        Some(("PROXY", hint))
    } else {
        None
    }
}

/// Counts and logs a request that is refused before it reaches the application. Returns the bytes of the response.
fn refuse(
    error: &Error,
    other_protocol: Option<(&'static str, &'static str)>,
    shared: &Shared,
) -> Result<Vec<u8>, serde_json::Error> {
    let id = shared.ids.next();
    if let Some((protocol, hint)) = other_protocol {
        shared.log.other_protocol(protocol, hint);
    } else {
        let (log, reason) = (&shared.log, error.reason().as_str());
        log.refused_head(&id, error.code(), reason, error.cause());
    }
    shared.metrics.answered(None, error.code(), Duration::ZERO);

    let mut response = error.respond(&id);
    protect(response.headers_mut());
    let body = serde_json::to_vec(&error.problem(&id))?;
    // A time before 1970 is sent as 1970.
    let now = Duration::from_secs(u64::try_from(shared.clock.now()).unwrap_or(0));
    let date = httpdate::fmt_http_date(UNIX_EPOCH + now);
    let (status, length) = (response.status(), body.len());
    let mut answer = format!(
        "HTTP/1.1 {status}\r\ncontent-length: {length}\r\ndate: {date}\r\nx-request-id: {id}\r\n"
    )
    .into_bytes();
    for (name, value) in response.headers() {
        answer.extend_from_slice(
            &[name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat(),
        );
    }
    answer.extend_from_slice(&[b"\r\n", &*body].concat());
    Ok(answer)
}

#[cfg(test)]
mod tests;
