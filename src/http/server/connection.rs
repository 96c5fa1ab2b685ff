//! One connection, from accept to close.
//!
//! hyper serves the requests. What it cannot parse gets a JSON answer from here, because hyper's own has no
//! body. A connection that ends after an answer lingers: closing a socket with bytes of the peer unread resets
//! it, and a reset destroys the answer on its way.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use axum::Router;
use axum::body::to_bytes;
use axum::http::{HeaderValue, Request, header};
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
use tracing::debug;

use super::connection_state::{ConnectionState, Phase, TimedIo};
use crate::clock::Clock;
use crate::http::error::{Error, protect};
use crate::http::request_checks::FragmentInTarget;
use crate::http::request_id::{RequestIds, X_REQUEST_ID};
use crate::http::server::LiveSettings;
use crate::session::types::Peer;
use crate::settings::ServerConfig;
use crate::telemetry::metrics::Metrics;

/// The request line beside its target: a method, two spaces and the version.
const REQUEST_LINE_BYTES: usize = 1024;
/// The smallest buffer that hyper works with.
const MIN_BUFFER_BYTES: usize = 8192;
/// How long, and for how many bytes, the peer is read from after its last answer.
const LINGER_TIMEOUT: Duration = Duration::from_secs(1);
const LINGER_BYTES: u64 = 64 * 1024;

/// What all connections of a listener share.
pub(super) struct Shared {
    router: Router,
    pub(super) settings: LiveSettings,
    /// Cancelled when connections are to end after the request in progress.
    pub(super) shutdown: CancellationToken,
    ids: RequestIds,
    clock: Clock,
    metrics: Arc<Metrics>,
}

impl Shared {
    pub(super) fn new(router: Router, settings: LiveSettings, metrics: Arc<Metrics>) -> Self {
        Self {
            router,
            settings,
            shutdown: CancellationToken::new(),
            ids: RequestIds::new(),
            clock: Clock::system(),
            metrics,
        }
    }
}

/// hyper's limits are just above ours, so that a head that is a little too large is refused by `request_checks`,
/// with the log line and the CORS headers of every other refusal.
fn http1_builder(settings: &ServerConfig) -> http1::Builder {
    let head_bytes =
        settings.max_uri_bytes + settings.restart.max_header_bytes + REQUEST_LINE_BYTES;
    let mut http = http1::Builder::new();
    // A peer that closed its sending side after a whole request still gets its answer.
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
        request.extensions_mut().insert(Peer(peer));
        if state.has_fragment() {
            request.extensions_mut().insert(FragmentInTarget);
        }
        let response = shared.router.clone().call(request);
        Box::pin(async move {
            // The body owns the exchange. hyper drops both when it has taken the whole body.
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
                // hyper would drop the head of a later request of which it has only a part.
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
            let answer = refuse(&refusal(&error, &parts.read_buf, &state.settings), &shared).await;
            drop(parts.read_buf);
            if let Ok(Ok(())) = timeout(LINGER_TIMEOUT, stream.write_all(&answer)).await {
                linger(stream).await;
            }
        }
        Err(error) => debug!(%peer, ?error, "connection broke"),
    }
}

/// Ends our half of the connection, then reads until the peer ends its own, or has sent or waited too long.
async fn linger<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S) {
    if stream.shutdown().await.is_ok() {
        let mut rest = stream.take(LINGER_BYTES);
        let _ = timeout(LINGER_TIMEOUT, copy(&mut rest, &mut sink())).await;
    }
}

/// Why a head is refused that hyper could not parse and of which `unparsed` is left.
fn refusal(error: &hyper::Error, unparsed: &[u8], limits: &ServerConfig) -> Error {
    if !error.is_parse_too_large() {
        return Error::BadRequest("malformed");
    }
    let line = unparsed
        .split(|byte| *byte == b'\n')
        .next()
        .unwrap_or_default();
    if line.len() > limits.max_uri_bytes {
        Error::UriTooLong
    } else {
        Error::HeadersTooLarge
    }
}

/// Counts and logs a refusal that the application does not see. Returns the bytes of the answer.
async fn refuse(error: &Error, shared: &Shared) -> Vec<u8> {
    let id = shared.ids.next();
    debug!(code = error.code(), reason = error.reason(), request_id = %id, "request refused");
    shared.metrics.answered(None, error.code(), Duration::ZERO);

    let (mut head, body) = error.respond(&id).into_parts();
    // An error's body is in memory, so reading it cannot fail.
    let body = to_bytes(body, usize::MAX).await.unwrap_or_default();
    let now = Duration::from_secs(shared.clock.now().try_into().unwrap_or_default());
    let date = httpdate::fmt_http_date(UNIX_EPOCH + now);
    protect(&mut head.headers);
    head.headers
        .extend(HeaderValue::try_from(id).map(|id| (X_REQUEST_ID, id)));
    head.headers
        .insert(header::CONNECTION, HeaderValue::from_static("close"));
    head.headers
        .insert(header::CONTENT_LENGTH, body.len().into());
    head.headers
        .extend(HeaderValue::from_str(&date).map(|date| (header::DATE, date)));

    let mut answer = format!("HTTP/1.1 {}\r\n", head.status).into_bytes();
    for (name, value) in &head.headers {
        answer.extend_from_slice(
            &[name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat(),
        );
    }
    answer.extend_from_slice(&[b"\r\n", &*body].concat());
    answer
}

#[cfg(test)]
mod tests;
