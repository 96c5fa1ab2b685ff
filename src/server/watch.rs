//! What one connection is doing and how long it may go on: the time-outs that hyper does not have.
//! Which time-outs there are is in `config`; ending a connection is in `connection`.
//!
//! hyper's `header_read_timeout` is also its limit on idle connections, so it is either too long for
//! a peer that dribbles its head or too short for a balancer that keeps connections for later.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use futures_util::future::poll_fn;
use futures_util::task::AtomicWaker;
use hyper::body::{Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::target::TargetScan;
use crate::config::Server;

/// Beyond the time-outs of the request itself: for a peer that takes its answer slowly.
const ANSWER_GRACE: Duration = Duration::from_secs(10);

/// How long a connection must be idle to be put aside. Short pauses are not worth it.
const QUIET: Duration = Duration::from_secs(1);

/// For how long a head that has begun is waited for where the connection is to be closed: it may be on its way.
const ARRIVAL: Duration = Duration::from_secs(1);

/// What of these bytes belongs to a head. Empty lines before it do not (RFC 9112, section 2.2).
pub(super) fn head_in(bytes: &[u8]) -> Option<&[u8]> {
    let start = bytes.iter().position(|byte| !matches!(byte, b'\r' | b'\n'))?;
    Some(&bytes[start..])
}

/// How long a connection may stay in each phase.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timeouts {
    head: Duration,
    serving: Duration,
    idle: Duration,
}

impl Timeouts {
    pub(super) fn of(settings: &Server) -> Self {
        Self {
            head: settings.header_timeout,
            serving: settings.body_timeout + settings.request_timeout + ANSWER_GRACE,
            idle: settings.idle_timeout,
        }
    }

    fn shortest(&self) -> Duration {
        self.head.min(self.serving).min(self.idle).min(QUIET)
    }
}

/// Waiting for the rest of a head; a new connection owes one at once.
const HEAD: u8 = 0;
/// A request is being answered.
const SERVING: u8 = 1;
/// The answer is complete and on its way to the peer.
const ANSWERED: u8 = 2;
/// Nothing is owed by anybody.
const IDLE: u8 = 3;

/// A connection without a request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wait {
    /// It had a request before, and owes none.
    pub(super) is_idle: bool,
    /// For so long.
    pub(super) time: Duration,
}

/// The phase of one connection and the end of its patience. It is shared by the parts that see the
/// phase change, which all run in the connection's task: nothing there orders anything between threads.
/// Others may look, see what was a moment ago, and ask for the end.
#[derive(Debug)]
pub(super) struct Watch {
    opened: Instant,
    timeouts: Timeouts,
    phase: AtomicU8,
    /// In milliseconds after `opened`.
    deadline: AtomicU64,
    /// The last request has a body. What of it the application left unread hyper looks at only after the
    /// answer is out.
    has_body: AtomicBool,
    /// A request's target came with a `#`.
    fragment: AtomicBool,
    /// The connection is to end after the request under way.
    closing: AtomicBool,
    /// The connection's task.
    task: AtomicWaker,
}

impl Watch {
    pub(super) fn new(timeouts: Timeouts) -> Arc<Self> {
        let watch = Self {
            opened: Instant::now(),
            timeouts,
            phase: AtomicU8::new(HEAD),
            deadline: AtomicU64::new(0),
            has_body: AtomicBool::new(false),
            fragment: AtomicBool::new(false),
            closing: AtomicBool::new(false),
            task: AtomicWaker::new(),
        };
        watch.enter(HEAD, timeouts.head);
        Arc::new(watch)
    }

    fn enter(&self, phase: u8, patience: Duration) {
        let deadline = (self.opened.elapsed() + patience).as_millis();
        self.deadline.store(u64::try_from(deadline).unwrap_or(u64::MAX), Ordering::Relaxed);
        self.phase.store(phase, Ordering::Relaxed);
    }

    fn is_in(&self, phase: u8) -> bool {
        self.phase.load(Ordering::Relaxed) == phase
    }

    /// Makes the task that calls it, whose waker stays the same, the one that [`Self::close`] wakes.
    pub(super) fn wakes_this_task(&self) -> impl Future<Output = ()> {
        poll_fn(|cx| {
            self.task.register(cx.waker());
            Poll::Ready(())
        })
    }

    /// Asks the connection to end after the request under way.
    pub(super) fn close(&self) {
        self.closing.store(true, Ordering::Release);
        self.task.wake();
    }

    pub(super) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    /// Returns in the connection's task once it is asked to end.
    pub(super) fn closing(&self) -> impl Future<Output = ()> {
        poll_fn(|_| if self.is_closing() { Poll::Ready(()) } else { Poll::Pending })
    }

    /// The application got a request.
    pub(super) fn request_started(&self, has_body: bool) {
        self.has_body.store(has_body, Ordering::Relaxed);
        self.enter(SERVING, self.timeouts.serving);
    }

    /// Whether a target came with a `#`: that of this request, or of one that was sent right behind it.
    pub(super) fn has_fragment(&self) -> bool {
        self.fragment.load(Ordering::Relaxed)
    }

    /// Whether a request is being answered, up to the last byte of its answer.
    pub(super) fn is_serving(&self) -> bool {
        self.is_in(SERVING) || self.is_in(ANSWERED)
    }

    /// How the connection waits for a request; `None` while one is being answered.
    pub(super) fn waits(&self, now: Instant) -> Option<Wait> {
        let is_idle = match self.phase.load(Ordering::Relaxed) {
            HEAD => false,
            IDLE => true,
            _ => return None,
        };
        let patience = if is_idle { self.timeouts.idle } else { self.timeouts.head };
        Some(Wait { is_idle, time: patience.saturating_sub(self.deadline().saturating_duration_since(now)) })
    }

    /// These bytes came. With the first of the next head, that is owed.
    pub(super) fn received(&self, bytes: &[u8]) {
        if self.is_in(IDLE) && head_in(bytes).is_some() {
            self.enter(HEAD, self.timeouts.head);
        }
    }

    /// The peer's time to take the answer is what is left of `serving`.
    fn answer_completed(&self) {
        self.phase.store(ANSWERED, Ordering::Relaxed);
    }

    fn flushed(&self) {
        if self.is_in(ANSWERED) {
            self.enter(IDLE, self.timeouts.idle);
        }
    }

    /// When the connection has to have got further.
    pub(super) fn deadline(&self) -> Instant {
        self.opened + Duration::from_millis(self.deadline.load(Ordering::Relaxed))
    }

    /// Until when a head that has begun is waited for although the connection is to be closed; `None` if there is
    /// none, or it had its time. Before `begun` there was none: a new connection owes one from the start.
    pub(super) fn arrives_until(&self, begun: Instant) -> Option<Instant> {
        let now = Instant::now();
        let wait = self.waits(now).filter(|wait| !wait.is_idle)?;
        let left = ARRIVAL.saturating_sub(wait.time.min(now - begun));
        (!left.is_zero()).then(|| self.deadline().min(now + left))
    }

    /// Whether nothing is owed by anybody, and nothing of the last request can be left.
    pub(super) fn is_idle(&self) -> bool {
        self.is_in(IDLE) && !self.has_body.load(Ordering::Relaxed)
    }

    /// Whether nothing was owed by anybody for a while.
    pub(super) fn is_quiet(&self) -> bool {
        self.waits(Instant::now()).is_some_and(|wait| wait.is_idle && wait.time >= QUIET)
    }

    pub(super) fn is_over(&self) -> bool {
        Instant::now() >= self.deadline()
    }

    /// When to look at the connection again. Never further away than the shortest time-out: whatever
    /// phase comes next, its deadline is not missed, and no request has to touch a timer.
    pub(super) fn next_look(&self) -> Instant {
        self.deadline().min(Instant::now() + self.timeouts.shortest())
    }
}

/// The socket as hyper sees it.
///
/// It notes when a head begins and when an answer is out, and it keeps two things from the peer.
/// What hyper writes while no request is being served is its own answer to a head that it could not
/// parse; that one has no body, so `connection` writes a better one. And the end of the stream is for
/// `connection` to send, after that answer.
#[derive(Debug)]
pub(super) struct Watched<S> {
    stream: S,
    /// What was read of the stream before.
    unread: Bytes,
    targets: TargetScan,
    watch: Arc<Watch>,
}

impl<S> Watched<S> {
    pub(super) fn new(stream: S, unread: Bytes, watch: Arc<Watch>) -> Self {
        Self { stream, unread, targets: TargetScan::default(), watch }
    }

    /// hyper gets these bytes.
    fn scan(&mut self, bytes: &[u8]) {
        if self.targets.finds_fragment(bytes) {
            self.watch.fragment.store(true, Ordering::Relaxed);
        }
    }

    pub(super) fn into_inner(self) -> S {
        self.stream
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        if !self.unread.is_empty() {
            let length = self.unread.len().min(buf.remaining());
            buf.put_slice(&self.unread.split_to(length));
            // Most often the rest is there as well, and one look at it is enough.
            let read = Pin::new(&mut self.stream).poll_read(cx, buf);
            self.scan(&buf.filled()[before..]);
            return match read {
                Poll::Pending => Poll::Ready(Ok(())),
                read @ Poll::Ready(_) => read,
            };
        }
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        self.watch.received(&buf.filled()[before..]);
        self.scan(&buf.filled()[before..]);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if !self.watch.is_serving() {
            return Poll::Ready(Ok(buf.len()));
        }
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if !self.watch.is_serving() {
            return Poll::Ready(Ok(bufs.iter().map(|buf| buf.len()).sum()));
        }
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// hyper calls this once everything that it had to write is written.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        self.watch.flushed();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// An answer's body, which hyper drops when it has taken the last of it.
#[derive(Debug)]
pub(super) struct AnswerBody {
    body: Body,
    watch: Arc<Watch>,
}

impl AnswerBody {
    pub(super) fn new(body: Body, watch: Arc<Watch>) -> Self {
        Self { body, watch }
    }
}

impl Drop for AnswerBody {
    fn drop(&mut self) {
        self.watch.answer_completed();
    }
}

impl HttpBody for AnswerBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
