//! The current phase of a connection, and the time at which the phase began. The phase decides which timeout applies,
//! and whether the connection may be closed when the connection limit is reached.
//!
//! [`TimedIo`] is a layer between hyper and the socket, and derives the phase from hyper's calls:
//! - The first byte on an idle connection starts a request head, unless it belongs to an empty line.
//! - When hyper calls the application, an [`Exchange`] starts.
//! - During an exchange, hyper reads from the socket only while the body is incomplete, so a pending read means that
//!   the rest of the body has not arrived.
//! - When hyper has written the whole response and the socket is flushed, the connection is idle again.
//!
//! A read or write that is pending for longer than the phase allows fails with `TimedOut`, which ends the connection.
//!
//! hyper's `header_read_timeout` is disabled: it starts at the end of the previous response, so it would also close
//! idle connections.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use super::head_scan::HeadScan;
use crate::session::reason::Reason;
use crate::settings::ServerConfig;

/// How long a peer may take to receive its response.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// The timeout for an incomplete head during shutdown.
const HEAD_TIMEOUT_WHEN_CLOSING: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// The request head is incomplete. A new connection starts in this phase.
    Head,
    /// The application handles the request.
    Handler,
    /// The application waits for the rest of the request body.
    Body,
    /// The response is complete, but not yet sent.
    Answer,
    /// The connection waits for the next request.
    Idle,
}

/// The state shared by the connection's task, which changes it, and the acceptor, which selects connections to close.
#[derive(Debug)]
pub(super) struct ConnectionState {
    pub(super) settings: Arc<ServerConfig>,
    current: Mutex<Current>,
}

#[derive(Debug)]
struct Current {
    phase: Phase,
    since: Instant,
    /// Whether at least one request was answered.
    answered: bool,
    /// Whether the connection ends after the request that is in flight or arriving.
    closing: bool,
    /// Whether the acceptor closes the connection, so that no request on it may start.
    evicted: bool,
    /// The result of [`HeadScan`] for the head that is arriving or was last received.
    ambiguity: Option<Reason>,
}

impl Current {
    fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        self.since = Instant::now();
    }

    fn waiting(&self) -> Option<(bool, Instant)> {
        (self.phase != Phase::Handler).then_some((self.answered, self.since))
    }
}

impl ConnectionState {
    pub(super) fn new(settings: Arc<ServerConfig>) -> Arc<Self> {
        let current = Current {
            phase: Phase::Head,
            since: Instant::now(),
            answered: false,
            closing: false,
            evicted: false,
            ambiguity: None,
        };
        Arc::new(Self {
            settings,
            current: Mutex::new(current),
        })
    }

    fn current(&self) -> MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a request on the connection was answered, and when the connection began to wait for its peer. At the
    /// connection limit, connections are closed in the order of this pair. `None` while the application handles a
    /// request.
    pub(super) fn waiting(&self) -> Option<(bool, Instant)> {
        self.current().waiting()
    }

    /// Prevents further requests, unless the connection has changed since [`Self::waiting`] returned this value.
    /// Returns whether the caller may close the connection: no request is in a handler or enters one from now on.
    pub(super) fn evict(&self, waiting: (bool, Instant)) -> bool {
        let mut current = self.current();
        current.evicted |= current.waiting() == Some(waiting);
        current.evicted
    }

    /// Makes the connection end after the request that is in flight or arriving. Returns the current phase.
    pub(super) fn close(&self) -> Phase {
        let mut current = self.current();
        current.closing = true;
        current.phase
    }

    /// Starts an exchange and returns its guard, which hyper drops when it has taken the whole response. Returns `None`
    /// if the connection is evicted.
    pub(super) fn begin_exchange(self: &Arc<Self>) -> Option<Exchange> {
        let mut current = self.current();
        if current.evicted {
            return None;
        }
        current.enter(Phase::Handler);
        Some(Exchange(self.clone()))
    }

    /// Why the head of this request, or of a request pipelined after it, is ambiguous; `None` if no head is ambiguous.
    pub(super) fn ambiguity(&self) -> Option<Reason> {
        self.current().ambiguity
    }

    /// Scans the bytes that were read, and updates the phase. Returns `Pending` without a wake-up if the connection is
    /// evicted, because its task is about to be aborted.
    fn received(&self, bytes: &[u8], scan: &mut HeadScan) -> Poll<()> {
        let mut current = self.current();
        if current.evicted {
            return Poll::Pending;
        }
        // The next request on the connection may come from another caller, so the result for the last request does not
        // apply to it.
        if current.phase == Phase::Idle {
            (current.ambiguity, *scan) = (None, HeadScan::default());
        }
        current.ambiguity = current.ambiguity.or(scan.finds(bytes));
        match current.phase {
            Phase::Body => current.phase = Phase::Handler,
            // Empty lines before a request line are ignored (RFC 9112, section 2.2).
            Phase::Idle if bytes.iter().any(|byte| !matches!(byte, b'\r' | b'\n')) => {
                current.enter(Phase::Head);
            }
            _ => {}
        }
        Poll::Ready(())
    }

    fn read_waits(&self) {
        let mut current = self.current();
        if current.phase == Phase::Handler {
            current.phase = Phase::Body;
        }
    }

    fn flushed(&self) {
        let mut current = self.current();
        if current.phase == Phase::Answer {
            current.answered = true;
            current.enter(Phase::Idle);
        }
    }

    fn is_in_exchange(&self) -> bool {
        !matches!(self.current().phase, Phase::Head | Phase::Idle)
    }

    fn deadline(&self) -> Instant {
        let (settings, current) = (&self.settings, self.current());
        let header_timeout = settings.restart.header_timeout.0;
        let timeout = match current.phase {
            Phase::Head if current.closing => header_timeout.min(HEAD_TIMEOUT_WHEN_CLOSING),
            Phase::Head => header_timeout,
            Phase::Handler | Phase::Body => {
                settings.body_timeout.0 + settings.request_timeout.0 + ANSWER_TIMEOUT
            }
            Phase::Answer => ANSWER_TIMEOUT,
            Phase::Idle if current.closing => Duration::ZERO,
            Phase::Idle => settings.restart.idle_timeout.0,
        };
        current.since + timeout
    }
}

/// The guard of an exchange, which lasts from hyper's call of the application until hyper has taken the whole response.
#[derive(Debug)]
pub(super) struct Exchange(Arc<ConnectionState>);

impl Drop for Exchange {
    fn drop(&mut self) {
        self.0.current().enter(Phase::Answer);
    }
}

/// The socket as seen by hyper.
///
/// Outside an exchange, hyper writes only its own body-less response to a head that it cannot parse. These bytes are
/// discarded, because `connection` writes a JSON response instead.
#[derive(Debug)]
pub(super) struct TimedIo<S> {
    pub(super) stream: S,
    pub(super) timed_out: bool,
    state: Arc<ConnectionState>,
    scan: HeadScan,
    timer: Pin<Box<Sleep>>,
}

impl<S> TimedIo<S> {
    pub(super) fn new(stream: S, state: Arc<ConnectionState>) -> Self {
        let timer = Box::pin(sleep_until(state.deadline()));
        Self {
            stream,
            timed_out: false,
            state,
            scan: HeadScan::default(),
            timer,
        }
    }

    fn poll_timeout<T>(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        let deadline = self.state.deadline();
        if self.timer.deadline() != deadline {
            self.timer.as_mut().reset(deadline);
        }
        ready!(self.timer.as_mut().poll(cx));
        self.timed_out = true;
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for TimedIo<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let Poll::Ready(read) = Pin::new(&mut self.stream).poll_read(cx, buf) else {
            self.state.read_waits();
            return self.poll_timeout(cx);
        };
        let Self { state, scan, .. } = &mut *self;
        ready!(state.received(&buf.filled()[before..], scan));
        Poll::Ready(read)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for TimedIo<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if !self.state.is_in_exchange() {
            return Poll::Ready(Ok(buf.len()));
        }
        let Poll::Ready(written) = Pin::new(&mut self.stream).poll_write(cx, buf) else {
            return self.poll_timeout(cx);
        };
        Poll::Ready(written)
    }

    /// hyper calls this after each write that empties its buffer.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        self.state.flushed();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
