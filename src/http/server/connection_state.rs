//! What one connection is doing, and since when: its idle timeout, its head timeout, and whether it may be
//! closed when all connections are taken.
//!
//! [`TimedIo`] stands between hyper and the socket and sees the phase change. The first byte after an idle time
//! begins a head. A request that hyper hands to the application begins an [`Exchange`]. hyper reads the socket
//! during an exchange only while the body is incomplete, so a read that has to wait means that the peer owes
//! the rest of it. When hyper has taken the whole answer and the socket is flushed, the connection is idle
//! again. A read or write that has to wait longer than its phase allows fails with `TimedOut`, which ends the
//! connection.
//!
//! hyper's `header_read_timeout` is off: it runs from the end of the previous answer, so that it would close
//! idle connections as well.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use super::target::TargetScan;
use crate::settings::ServerConfig;

/// How long a peer may take to receive its answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a head that has begun is waited for while the service stops.
const HEAD_TIMEOUT_WHEN_CLOSING: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// A head has begun to arrive. A new connection starts here.
    Head,
    /// The application has a request.
    Handler,
    /// The application waits for the rest of the request's body.
    Body,
    /// The answer is complete; the peer has yet to receive it.
    Answer,
    /// Between two requests.
    Idle,
}

/// Shared by the connection's task, which changes it, and the acceptor, which looks for connections to close.
#[derive(Debug)]
pub(super) struct ConnectionState {
    pub(super) settings: Arc<ServerConfig>,
    current: Mutex<Current>,
}

#[derive(Debug)]
struct Current {
    phase: Phase,
    since: Instant,
    /// The connection has had an answer.
    answered: bool,
    /// The connection ends after the request that is in progress or arriving.
    closing: bool,
    /// A request target arrived with a `#`.
    fragment: bool,
}

impl Current {
    fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        self.since = Instant::now();
    }
}

impl ConnectionState {
    pub(super) fn new(settings: Arc<ServerConfig>) -> Arc<Self> {
        let current = Current {
            phase: Phase::Head,
            since: Instant::now(),
            answered: false,
            closing: false,
            fragment: false,
        };
        Arc::new(Self {
            settings,
            current: Mutex::new(current),
        })
    }

    fn current(&self) -> MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Since when the connection has waited for its peer, after whether it has had an answer: connections that
    /// compare as less are closed first. `None` while the application works on a request.
    pub(super) fn waiting(&self) -> Option<(bool, Instant)> {
        let current = self.current();
        (current.phase != Phase::Handler).then_some((current.answered, current.since))
    }

    /// Ends the connection after the request that is in progress or arriving. Returns the phase it is in.
    pub(super) fn close(&self) -> Phase {
        let mut current = self.current();
        current.closing = true;
        current.phase
    }

    /// Begins an exchange, which lasts until the guard is dropped.
    pub(super) fn begin_exchange(self: &Arc<Self>) -> Exchange {
        self.current().enter(Phase::Handler);
        Exchange(self.clone())
    }

    /// Whether a target arrived with a `#`: that of this request, or of one that was pipelined behind it.
    pub(super) fn has_fragment(&self) -> bool {
        self.current().fragment
    }

    fn received(&self, bytes: &[u8]) {
        let mut current = self.current();
        match current.phase {
            Phase::Body => current.phase = Phase::Handler,
            // Empty lines before a head are no part of it (RFC 9112, section 2.2).
            Phase::Idle if bytes.iter().any(|byte| !matches!(byte, b'\r' | b'\n')) => {
                current.enter(Phase::Head);
            }
            _ => {}
        }
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

/// A request from its head to the last byte of its answer.
#[derive(Debug)]
pub(super) struct Exchange(Arc<ConnectionState>);

impl Drop for Exchange {
    fn drop(&mut self) {
        self.0.current().enter(Phase::Answer);
    }
}

/// The socket as hyper sees it.
///
/// What hyper writes outside an exchange is its own answer to a head that it could not parse, without a body.
/// It is discarded, because `connection` writes a JSON answer in its place.
#[derive(Debug)]
pub(super) struct TimedIo<S> {
    pub(super) stream: S,
    pub(super) timed_out: bool,
    state: Arc<ConnectionState>,
    targets: TargetScan,
    timer: Pin<Box<Sleep>>,
}

impl<S> TimedIo<S> {
    pub(super) fn new(stream: S, state: Arc<ConnectionState>) -> Self {
        let timer = Box::pin(sleep_until(state.deadline()));
        Self {
            stream,
            timed_out: false,
            state,
            targets: TargetScan::default(),
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
        let received = &buf.filled()[before..];
        self.state.received(received);
        if self.targets.finds_fragment(received) {
            self.state.current().fragment = true;
        }
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

    /// hyper calls this after each write that emptied its buffer.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        self.state.flushed();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
