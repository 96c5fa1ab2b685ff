//! Listening, accepting, and stopping without losing a request. What is served is in `app`; one
//! connection is in `connection`, its time-outs in `watch`.

mod connection;
mod drain;
mod limits;
mod target;
mod watch;

use std::collections::HashMap;
use std::convert::Infallible;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::Request;
use axum::response::Response;
use prometheus_client::metrics::gauge::Gauge;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tower::Service;
use tracing::{debug, error, info, warn};

pub use drain::{Drain, Signals};
pub use limits::{Room, make_room};

use crate::config::Server;
use crate::metrics::Metrics;
use connection::Rules;
use watch::Watch;

/// Connections that the kernel keeps for us while we are busy.
const BACKLOG: u32 = 4096;
/// Scrapers and the odd engineer.
const ADMIN_CONNECTIONS: usize = 64;
/// How long to wait for files or memory before the next try to accept a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long a connection may be without a request while others wait for its place.
const PATIENCE_WHEN_FULL: Duration = Duration::from_secs(1);
/// How often to look for such connections, and which share of all may be closed at one look.
const LOOK_WHEN_FULL: Duration = Duration::from_millis(100);
const SHARE_AT_ONCE: usize = 8;
/// How often the log says that all places are taken.
const SAY_FULL_EVERY: Duration = Duration::from_secs(60);

/// What an endpoint serves: a router, or anything else that has an answer to every request.
pub trait Answers:
    Service<Request, Response = Response, Error = Infallible, Future: Send> + Clone + Send + Sync + 'static
{
}

impl<S> Answers for S where
    S: Service<Request, Response = Response, Error = Infallible, Future: Send>
        + Clone
        + Send
        + Sync
        + 'static
{
}

/// A bound address and what is served there.
#[derive(Debug)]
pub struct Endpoint<S> {
    pub listener: TcpListener,
    pub service: S,
}

/// How the service stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Every request that was accepted got its answer.
    Clean,
    /// This many connections had to be cut off.
    Forced(usize),
}

/// Listens on an address; port 0 lets the kernel choose one. Must be called inside the runtime.
///
/// # Errors
/// The address is in use, is not ours, or is not allowed.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // A restart need not wait for the old process's connections to time out.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Serves both endpoints until the drain is over.
///
/// A drain takes three steps. For `server.drain_delay` everything goes on as before, but readiness
/// says no, so that balancers stop sending. Then nothing is accepted any more and idle connections
/// are closed, while requests under way have `server.drain_timeout` to finish. What is left then, or
/// `server.hard_stop` after the drain began, is cut off. The admin endpoint is served to the end.
pub async fn run(
    public: Endpoint<impl Answers>,
    admin: Endpoint<impl Answers>,
    settings: &Server,
    metrics: Arc<Metrics>,
    drain: &Drain,
) -> Outcome {
    let room = make_room(settings.max_connections);
    if let Some(warning) = &room.warning {
        warn!("{warning}");
    }
    let gauge = metrics.connections.clone();
    let acceptor = Acceptor::new(public.service, room.connections, settings, &metrics, Some(gauge));
    let mut admin_acceptor = Acceptor::new(admin.service, ADMIN_CONNECTIONS, settings, &metrics, None);
    tokio::select! {
        outcome = serve_until_drained(public.listener, acceptor, settings, drain) => outcome,
        never = admin_acceptor.accept_from(&admin.listener) => match never {},
    }
}

async fn serve_until_drained(
    listener: TcpListener,
    mut acceptor: Acceptor<impl Answers>,
    settings: &Server,
    drain: &Drain,
) -> Outcome {
    tokio::select! {
        () = drain.begun() => {}
        never = acceptor.accept_from(&listener) => match never {},
    }
    let begun = Instant::now();
    // Accepting never ends by itself, so what comes back is always the time-out.
    let _ = timeout(settings.drain_delay, acceptor.accept_from(&listener)).await;
    let patience = settings.drain_timeout.min(settings.hard_stop.saturating_sub(begun.elapsed()));
    drop(listener);
    let outcome = acceptor.close(patience).await;
    match outcome {
        Outcome::Clean => info!("drained"),
        Outcome::Forced(connections) => warn!(connections, "drain_forced"),
    }
    outcome
}

/// The open connections of one endpoint, and how new ones are taken up.
struct Acceptor<S> {
    service: S,
    max_connections: usize,
    rules: Arc<Rules>,
    open: JoinSet<()>,
    /// The open connections by the task that serves each, as they look from outside.
    guests: HashMap<Id, Arc<Watch>>,
    look_at: Instant,
    said_full: Option<Instant>,
    gauge: Option<Gauge>,
    /// The last try to accept failed: one line in the log is enough for a row of failures.
    failing: bool,
}

impl<S: Answers> Acceptor<S> {
    fn new(
        service: S,
        max_connections: usize,
        settings: &Server,
        metrics: &Arc<Metrics>,
        gauge: Option<Gauge>,
    ) -> Self {
        Self {
            service,
            max_connections: max_connections.max(1),
            rules: Arc::new(Rules::new(settings, metrics.clone())),
            open: JoinSet::new(),
            guests: HashMap::new(),
            look_at: Instant::now(),
            said_full: None,
            gauge,
            failing: false,
        }
    }

    /// Accepts connections while there is room for them. May be dropped and called again: open
    /// connections are served in tasks of their own.
    async fn accept_from(&mut self, listener: &TcpListener) -> Infallible {
        loop {
            let has_room = self.open.len() < self.max_connections;
            tokio::select! {
                Some(ended) = self.open.join_next_with_id() => self.ended(&ended),
                accepted = listener.accept(), if has_room => {
                    match accepted {
                        Ok((stream, peer)) => self.accepted(stream, peer),
                        Err(error) => self.not_accepted(&error).await,
                    }
                }
                () = sleep_until(self.look_at), if !has_room => self.make_room(),
            }
        }
    }

    fn accepted(&mut self, stream: TcpStream, peer: SocketAddr) {
        self.failing = false;
        // An answer is one small write, and waiting for another would only delay it. The peer that
        // is gone already makes this fail, and is noticed soon enough.
        let _ = stream.set_nodelay(true);
        let service = self.service.clone();
        let watch = self.rules.watch();
        let task =
            self.open.spawn(connection::serve(stream, peer, service, self.rules.clone(), watch.clone()));
        self.guests.insert(task.id(), watch);
        self.count();
    }

    /// Closes some of the connections that have been without a request for too long: whoever opens many
    /// and says nothing must not keep everybody else out. Those that never made one go before those
    /// that balancers keep for later.
    fn make_room(&mut self) {
        let now = Instant::now();
        self.look_at = now + LOOK_WHEN_FULL;
        let waiting = self.guests.values().filter_map(|guest| Some((guest.waits(now)?, guest)));
        let mut waiting: Vec<_> = waiting.filter(|(wait, _)| wait.time >= PATIENCE_WHEN_FULL).collect();
        waiting.sort_unstable_by_key(|(wait, _)| (wait.is_idle, std::cmp::Reverse(wait.time)));
        waiting.truncate((self.max_connections / SHARE_AT_ONCE).max(1));
        for (_, guest) in &waiting {
            guest.close();
        }
        if !waiting.is_empty() && self.said_full.is_none_or(|said| now - said >= SAY_FULL_EVERY) {
            self.said_full = Some(now);
            warn!(
                connections = self.max_connections,
                "all connections that may be open are: those without a request are closed after a second"
            );
        }
    }

    async fn not_accepted(&mut self, error: &io::Error) {
        if matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset) {
            debug!(%error, "a peer left before it was accepted");
            return;
        }
        if !self.failing {
            warn!(%error, "cannot accept connections; trying again");
            self.failing = true;
        }
        sleep(ACCEPT_PAUSE).await;
    }

    fn ended(&mut self, ended: &Result<(Id, ()), JoinError>) {
        let id = match ended {
            Ok((id, ())) => *id,
            Err(error) => {
                if error.is_panic() {
                    error!("a connection's task panicked");
                }
                error.id()
            }
        };
        self.guests.remove(&id);
        self.count();
    }

    fn count(&self) {
        if let Some(gauge) = &self.gauge {
            gauge.set(self.open.len().try_into().unwrap_or(i64::MAX));
        }
    }

    /// Ends what is idle, and waits for the rest.
    async fn close(mut self, patience: Duration) -> Outcome {
        self.guests.values().for_each(|guest| guest.close());
        match timeout(patience, self.all_ended()).await {
            Ok(()) => Outcome::Clean,
            Err(_) => Outcome::Forced(self.open.len()),
        }
    }

    async fn all_ended(&mut self) {
        while let Some(ended) = self.open.join_next_with_id().await {
            self.ended(&ended);
        }
    }
}
