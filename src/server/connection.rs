//! One connection from its first byte to its close: requests for the application, and an answer of
//! our own for what is no HTTP. What its time-outs see is in `watch`.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody, to_bytes};
use axum::http::{Request, Response, header};
use futures_util::future::poll_fn;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::Service as HyperService;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy, sink};
use tokio::time::{Instant, timeout};
use tracing::debug;

use super::Answers;
use super::watch::{AnswerBody, Timeouts, Watch, Watched, head_in};
use crate::config::Server;
use crate::error::{Error, protect};
use crate::extractors::Peer;
use crate::metrics::Metrics;
use crate::request_id::{RequestIds, X_REQUEST_ID};
use crate::wire::FragmentInTarget;

/// A request line beside its target: a method, two spaces and the version.
const REQUEST_LINE_BYTES: usize = 1024;
/// The smallest buffer that hyper works with.
const MIN_BUFFER_BYTES: usize = 8192;
/// The number of headers that hyper has room for without an allocation for each request.
const FREE_HEADERS: usize = 100;
/// The most connections that keep their buffers through a short pause. With more than these each is put aside as
/// soon as it has its answer: memory that was once given out is not always given back.
const MAX_AWAKE: usize = 1024;
/// How much of a head is read before there is a hyper to read the rest.
const FIRST_BYTES: usize = 32;
/// How long, and for how many bytes, a peer is listened to that was told to go.
const LINGER_TIME: Duration = Duration::from_secs(1);
const LINGER_BYTES: u64 = 64 * 1024;

/// What all connections of a listener share.
#[derive(Debug)]
pub(super) struct Rules {
    http: http1::Builder,
    timeouts: Timeouts,
    max_uri_bytes: usize,
    ids: RequestIds,
    metrics: Arc<Metrics>,
    /// Connections that are not put aside.
    awake: AtomicUsize,
}

impl Rules {
    /// hyper's limits are just above ours, so that a head that is a little too large still gets its
    /// answer from `wire`, with the log line and CORS headers that come with it.
    pub(super) fn new(settings: &Server, metrics: Arc<Metrics>) -> Self {
        let head_bytes = settings.max_uri_bytes + settings.max_header_bytes + REQUEST_LINE_BYTES;
        let mut http = http1::Builder::new();
        // A peer that closed its sending side after a whole request still waits for the answer.
        http.half_close(true).header_read_timeout(None).max_buf_size(head_bytes.max(MIN_BUFFER_BYTES));
        // An answer is small: copying its body behind its head takes less than two buffers take the kernel.
        http.writev(false);
        if settings.max_headers >= FREE_HEADERS {
            http.max_headers(settings.max_headers + 1);
        }
        Self {
            http,
            timeouts: Timeouts::of(settings),
            max_uri_bytes: settings.max_uri_bytes,
            ids: RequestIds::new(),
            metrics,
            awake: AtomicUsize::new(0),
        }
    }

    fn wake(&self) -> Awake<'_> {
        self.awake.fetch_add(1, Ordering::Relaxed);
        Awake(self)
    }

    fn is_crowded(&self) -> bool {
        self.awake.load(Ordering::Relaxed) > MAX_AWAKE
    }

    /// The watch of a connection that has just been opened.
    pub(super) fn watch(&self) -> Arc<Watch> {
        Watch::new(self.timeouts)
    }
}

/// One of those that are counted in [`Rules::awake`].
struct Awake<'a>(&'a Rules);

impl Drop for Awake<'_> {
    fn drop(&mut self) {
        self.0.awake.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How the conversation with a peer ended.
enum End {
    /// One side said goodbye, or what came is no HTTP, or the connection broke.
    Http(hyper::Result<()>),
    /// The peer's time was over.
    TimedOut,
    /// Nothing is owed by anybody, and has not been for a while, or there are many like this one.
    Quiet,
    /// The service is to stop, and the peer is owed nothing.
    NotNeeded,
}

/// Serves one connection, in a task of its own, until it ends. [`Watch::close`] asks for its end after the
/// request under way.
///
/// Without a request under way or begun there is no hyper, which keeps buffers of many kilobytes for a
/// connection: silent and idle ones cost next to nothing.
pub(super) async fn serve<S>(
    mut stream: S,
    peer: SocketAddr,
    service: impl Answers,
    rules: Arc<Rules>,
    watch: Arc<Watch>,
) where
    S: AsyncRead + AsyncWrite + Unpin,
{
    watch.wakes_this_task().await;
    let mut unread = Bytes::new();
    let (end, read_buf) = loop {
        if unread.is_empty() {
            let Some(bytes) = first_bytes(&mut stream, &watch).await else { return };
            unread = bytes;
        }
        watch.received(&unread);
        let io = TokioIo::new(Watched::new(stream, unread, watch.clone()));
        let app = Application { service: service.clone(), peer, watch: watch.clone() };
        let _awake = rules.wake();
        let mut http = Box::new(rules.http.serve_connection(io, app));
        let end = converse(&mut http, &watch, &rules).await;
        let parts = http.into_parts();
        stream = parts.io.into_inner().into_inner();
        match end {
            // Bytes that are none would still hold the buffer in which they were.
            End::Quiet => {
                unread =
                    head_in(&parts.read_buf).map_or_else(Bytes::new, |head| parts.read_buf.slice_ref(head));
            }
            end => break (end, parts.read_buf),
        }
    };
    match end {
        End::Http(Ok(())) => {
            drop(read_buf);
            linger(stream).await;
        }
        End::Http(Err(error)) if error.is_parse() => {
            let refusal = refusal(&error, &read_buf, rules.max_uri_bytes);
            drop(read_buf);
            let answer = refuse(&refusal, &rules).await;
            if let Ok(Ok(())) = timeout(LINGER_TIME, stream.write_all(&answer)).await {
                linger(stream).await;
            }
        }
        End::Http(Err(error)) => debug!(%peer, %error, "connection broke"),
        End::TimedOut => debug!(%peer, "connection timed out"),
        End::NotNeeded | End::Quiet => {}
    }
}

/// Waits until a head begins, and gives what is there of it; `None` if there is no use in waiting any longer.
async fn first_bytes<S>(stream: &mut S, watch: &Watch) -> Option<Bytes>
where
    S: AsyncRead + Unpin,
{
    let mut bytes = [0; FIRST_BYTES];
    loop {
        let length = tokio::select! {
            biased;
            read = stream.read(&mut bytes) => read.ok()?,
            () = watch.closing() => return None,
            () = tokio::time::sleep_until(watch.deadline()) => return None,
        };
        if let Some(head) = head_in(&bytes[..length]) {
            return Some(Bytes::copy_from_slice(head));
        }
        // Whoever sends empty lines without a pause never lets the other branches have their turn.
        if length == 0 || watch.is_closing() || watch.is_over() {
            return None;
        }
    }
}

/// Drives hyper until the connection has no more to say or no more time.
async fn converse<S>(
    http: &mut http1::Connection<TokioIo<Watched<S>>, Application<impl Answers>>,
    watch: &Watch,
    rules: &Rules,
) -> End
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut timer = pin!(tokio::time::sleep_until(watch.next_look()));
    // The timer will wake this task. To tell it so again at every poll takes longer than to look at it.
    let mut is_set = false;
    let mut told_to_close = false;
    let begun = Instant::now();
    poll_fn(|cx| {
        loop {
            if let Poll::Ready(result) = Pin::new(&mut *http).poll(cx) {
                return Poll::Ready(End::Http(result));
            }
            if !told_to_close && watch.is_closing() {
                if watch.is_serving() {
                    told_to_close = true;
                    Pin::new(&mut *http).graceful_shutdown();
                    continue;
                }
                let Some(end) = watch.arrives_until(begun) else { return Poll::Ready(End::NotNeeded) };
                timer.as_mut().reset(end);
                is_set = false;
            }
            if watch.is_idle() && rules.is_crowded() {
                return Poll::Ready(End::Quiet);
            }
            if is_set && !timer.is_elapsed() {
                return Poll::Pending;
            }
            is_set = timer.as_mut().poll(cx).is_pending();
            if is_set {
                return Poll::Pending;
            }
            if watch.is_over() {
                return Poll::Ready(End::TimedOut);
            }
            if watch.is_quiet() {
                return Poll::Ready(End::Quiet);
            }
            timer.as_mut().reset(watch.next_look());
        }
    })
    .await
}

/// Ends our half of the connection, then hears the peer out for a while. Closing at once with bytes
/// of the peer unread would reset the connection, and a reset destroys the answer that was just sent.
async fn linger<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S) {
    if stream.shutdown().await.is_ok() {
        let mut rest = stream.take(LINGER_BYTES);
        // The peer closed, talked on, or fell silent: the connection is closed in any case.
        let _ = timeout(LINGER_TIME, copy(&mut rest, &mut sink())).await;
    }
}

/// What to say to a head that hyper could not parse, of which `unparsed` is left.
fn refusal(error: &hyper::Error, unparsed: &[u8], max_uri_bytes: usize) -> Error {
    if !error.is_parse_too_large() {
        return Error::BadRequest("malformed");
    }
    let line = unparsed.split(|byte| *byte == b'\n').next().unwrap_or_default();
    if line.len() > max_uri_bytes { Error::UriTooLong } else { Error::HeadersTooLarge }
}

/// The bytes of the whole answer. It never gets to the application, so it is counted and logged here.
async fn refuse(error: &Error, rules: &Rules) -> Vec<u8> {
    let id = rules.ids.next();
    debug!(code = error.code(), reason = error.reason(), request_id = id.as_str(), "request refused");
    rules.metrics.answered(None, error.code(), Duration::ZERO);

    let (mut head, body) = error.respond(id.as_str()).into_parts();
    // An error's body is in memory: nothing can fail to be read.
    let body = to_bytes(body, usize::MAX).await.unwrap_or_default();
    protect(&mut head.headers);
    head.headers.insert(X_REQUEST_ID, id.into_header());
    head.headers.insert(header::CONTENT_LENGTH, body.len().into());

    let mut answer = format!("HTTP/1.1 {}\r\n", head.status).into_bytes();
    for (name, value) in &head.headers {
        answer.extend_from_slice(name.as_str().as_bytes());
        answer.extend_from_slice(b": ");
        answer.extend_from_slice(value.as_bytes());
        answer.extend_from_slice(b"\r\n");
    }
    answer.extend_from_slice(b"\r\n");
    answer.extend_from_slice(&body);
    answer
}

/// The application as hyper sees it: it tells the watch about requests and them about their peer.
struct Application<A> {
    service: A,
    peer: SocketAddr,
    watch: Arc<Watch>,
}

impl<A: Answers> HyperService<Request<Incoming>> for Application<A> {
    type Response = Response<AnswerBody>;
    type Error = Infallible;
    type Future = Answering<A::Future>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        self.watch.request_started(!request.body().is_end_stream());
        request.extensions_mut().insert(Peer(self.peer));
        if self.watch.has_fragment() {
            request.extensions_mut().insert(FragmentInTarget);
        }
        // The service is always ready and cheap to clone. An answer under way is boxed, since hyper keeps
        // room for it in every connection, and most connections wait.
        let answer = Box::pin(self.service.clone().call(request.map(Body::new)));
        Answering { answer, watch: self.watch.clone() }
    }
}

struct Answering<F> {
    answer: Pin<Box<F>>,
    watch: Arc<Watch>,
}

impl<F: Future<Output = Result<Response<Body>, Infallible>>> Future for Answering<F> {
    type Output = Result<Response<AnswerBody>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let response = ready!(self.answer.as_mut().poll(cx))?;
        Poll::Ready(Ok(response.map(|body| AnswerBody::new(body, self.watch.clone()))))
    }
}

#[cfg(test)]
mod tests;
