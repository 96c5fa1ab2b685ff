//! Listens, accepts connections up to a limit, and shuts down gracefully.
//!
//! Each connection runs in its own task (`connection`). When the limit is reached, the next connection is accepted but
//! not served until another one ends. Meanwhile the acceptor closes connections that have waited too long for their
//! peer (`connection_state`).

mod connection;
mod connection_state;
mod drain;
mod fd_limit;
mod head_scan;

use std::collections::HashMap;
use std::convert::Infallible;
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use prometheus_client::metrics::gauge::Gauge;
use rustix::io::Errno;
use rustix::net::sockopt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::{AbortHandle, Id, JoinError, JoinSet};
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, error, info, warn};

pub use drain::{Drain, Signals};
pub use fd_limit::{Room, make_room};

use crate::settings::ServerConfig;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::requests::RequestLog;
use connection::Shared;
use connection_state::ConnectionState;

/// The length of the kernel's queue of connections that have not been accepted yet.
const BACKLOG: u32 = 4096;
/// The connection limit of the admin listener.
const ADMIN_CONNECTIONS: usize = 64;
/// The pause after `accept` fails, for example because the process has no file descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long a connection may wait for its peer when the connection limit is reached.
const MAX_WAIT_WHEN_FULL: Duration = Duration::from_secs(1);
/// How often the acceptor looks for a connection to close when the connection limit is reached.
const EVICTION_INTERVAL: Duration = Duration::from_millis(20);
/// The minimum time between two log lines that report the connection limit.
const FULL_LOG_INTERVAL: Duration = Duration::from_secs(60);

/// Returns the settings in force, which a reload replaces. A connection keeps the settings that were in force when it
/// was accepted.
pub type LiveSettings = Arc<dyn Fn() -> Arc<ServerConfig> + Send + Sync>;

/// A listening socket and the router that it serves.
#[derive(Debug)]
pub struct Listener {
    pub socket: TcpListener,
    pub router: Router,
}

/// How the drain ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DrainOutcome {
    /// All connections ended in time.
    Clean,
    /// This number of connections was cut off at the end of the drain.
    Forced(usize),
}

/// Listens on an address; port 0 lets the kernel choose a port. `[::]` means all IPv4 and IPv6 addresses or, on a
/// machine without IPv6, all IPv4 addresses. Must be called inside a Tokio runtime.
///
/// # Errors
/// If the address is in use, belongs to no interface, or needs a privilege.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    match listen(address) {
        Err(error) if address.ip() == Ipv6Addr::UNSPECIFIED && is_without_ipv6(&error) => {
            listen((Ipv4Addr::UNSPECIFIED, address.port()).into())
        }
        listening => listening,
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()
    } else {
        TcpSocket::new_v6()
    }?;
    if address.ip() == Ipv6Addr::UNSPECIFIED {
        // This option is set explicitly, because its default depends on a setting of the machine.
        sockopt::set_ipv6_v6only(&socket, false)?;
    }
    // Without this option, a restart would fail while connections of the old process are in TIME_WAIT.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Whether the error means that the kernel has no IPv6 support or no IPv6 address.
fn is_without_ipv6(error: &io::Error) -> bool {
    error.kind() == ErrorKind::AddrNotAvailable
        || error.raw_os_error() == Some(Errno::AFNOSUPPORT.raw_os_error())
}

/// Serves one request from memory, as if on a connection from `peer`. Returns the bytes of the response, which are
/// empty if the request head is incomplete.
pub async fn answer_once(
    router: Router,
    settings: LiveSettings,
    metrics: Arc<Metrics>,
    log: Arc<RequestLog>,
    peer: SocketAddr,
    request: &[u8],
) -> Vec<u8> {
    let state = ConnectionState::new(settings());
    let shared = Shared::new(router, settings, metrics, log);
    let (client, stream) = tokio::io::duplex(64 * 1024);
    let (mut answers, mut requests) = tokio::io::split(client);
    let send = async {
        // The write may fail, because the service may answer and close the connection before it has read the whole
        // request.
        let _ = requests.write_all(request).await;
        let _ = requests.shutdown().await;
    };
    let mut answer = Vec::new();
    let receive = async {
        let _ = answers.read_to_end(&mut answer).await;
    };
    let serve = connection::serve(stream, peer, state, Arc::new(shared));
    tokio::join!(send, receive, serve);
    answer
}

/// Serves both listeners until the drain is over.
///
/// A drain has three steps:
/// 1. For `server.drain_delay`, requests are still served, but `/readyz` returns 503, so that load balancers stop
///    sending requests.
/// 2. The public listener is closed and idle connections end. Requests in flight have `server.drain_timeout` to finish.
/// 3. Connections that are still open after that time, or `server.hard_stop` after the drain began, are cut off.
///
/// The admin listener is served until the end.
pub async fn run(
    public: Listener,
    admin: Listener,
    settings: LiveSettings,
    metrics: Arc<Metrics>,
    log: Arc<RequestLog>,
    drain: &Drain,
) -> DrainOutcome {
    let room = make_room(settings().restart.max_connections);
    if let Some(warning) = &room.warning {
        warn!("{warning}");
    }
    let gauge = metrics.connections.clone();
    let shared = Shared::new(
        public.router,
        settings.clone(),
        metrics.clone(),
        log.clone(),
    );
    let acceptor = Acceptor::new(shared, room.connections, gauge);
    let mut admin_acceptor = Acceptor::new(
        Shared::new(admin.router, settings.clone(), metrics, log),
        ADMIN_CONNECTIONS,
        Gauge::default(), // not a metric
    );
    tokio::select! {
        outcome = serve_until_drained(public.socket, acceptor, &settings, drain) => outcome,
        never = admin_acceptor.accept_from(&admin.socket) => match never {},
    }
}

async fn serve_until_drained(
    socket: TcpListener,
    mut acceptor: Acceptor,
    settings: &LiveSettings,
    drain: &Drain,
) -> DrainOutcome {
    let drain_delay = async {
        drain.begun().await;
        let (start, settings) = (Instant::now(), settings());
        sleep(settings.drain_delay.0).await;
        (start, settings)
    };
    let (start, settings) = tokio::select! {
        start = drain_delay => start,
        never = acceptor.accept_from(&socket) => match never {},
    };
    drop(socket);
    let time_left = settings
        .drain_timeout
        .0
        .min(settings.hard_stop.0.saturating_sub(start.elapsed()));
    let outcome = acceptor.close(time_left).await;
    match outcome {
        DrainOutcome::Clean => info!("drained"),
        DrainOutcome::Forced(connections) => warn!(connections, "drain_forced"),
    }
    outcome
}

/// Accepts the connections of one listener, and tracks the open connections.
struct Acceptor {
    shared: Arc<Shared>,
    max_connections: usize,
    tasks: JoinSet<()>,
    /// The open connections, keyed by task id.
    open: HashMap<Id, (AbortHandle, Arc<ConnectionState>)>,
    /// A connection that was accepted, but cannot be served until another one ends.
    accepted: Option<(TcpStream, SocketAddr)>,
    gauge: Gauge,
    /// The time at which the log last reported that the limit is reached.
    full_logged: Option<Instant>,
    /// Whether the last `accept` failed. Only the first of consecutive failures is logged.
    is_failing: bool,
}

impl Acceptor {
    fn new(shared: Shared, max_connections: usize, gauge: Gauge) -> Self {
        Self {
            shared: Arc::new(shared),
            max_connections: max_connections.max(1),
            tasks: JoinSet::new(),
            open: HashMap::new(),
            accepted: None,
            gauge,
            full_logged: None,
            is_failing: false,
        }
    }

    /// Accepts connections and serves them until the future is dropped. If it is dropped while it waits for room,
    /// [`Self::close`] serves the accepted connection.
    async fn accept_from(&mut self, socket: &TcpListener) -> Infallible {
        loop {
            tokio::select! {
                accepted = socket.accept() => match accepted {
                    Ok(accepted) => {
                        self.is_failing = false;
                        self.accepted = Some(accepted);
                        self.make_room().await;
                        self.serve_accepted();
                    }
                    Err(error) => self.accept_failed(&error).await,
                },
                Some(ended) = self.tasks.join_next_with_id() => self.ended(&ended),
            }
        }
    }

    /// Waits until fewer connections than the limit are open. Meanwhile closes connections that wait for their peer:
    /// see [`Self::evict`].
    async fn make_room(&mut self) {
        while self.tasks.len() >= self.max_connections {
            self.evict();
            tokio::select! {
                Some(ended) = self.tasks.join_next_with_id() => self.ended(&ended),
                () = sleep(EVICTION_INTERVAL) => {}
            }
        }
    }

    /// Closes the connection that has waited longest for its peer, if it has waited for longer than
    /// [`MAX_WAIT_WHEN_FULL`]. Connections on which no request was answered are closed first, because a proxy may keep
    /// the others alive for later requests.
    fn evict(&mut self) {
        let now = Instant::now();
        let waiting = self
            .open
            .values()
            .filter_map(|(task, state)| Some((state.waiting()?, state, task)));
        let too_long =
            waiting.filter(|((_, since), ..)| now.duration_since(*since) >= MAX_WAIT_WHEN_FULL);
        let Some((rank, state, task)) = too_long.min_by_key(|(rank, ..)| *rank) else {
            return;
        };
        // If a request has arrived since, another connection is selected after `EVICTION_INTERVAL`.
        if !state.evict(rank) {
            return;
        }
        task.abort();
        if self
            .full_logged
            .is_none_or(|logged| now - logged >= FULL_LOG_INTERVAL)
        {
            self.full_logged = Some(now);
            warn!(
                limit = self.max_connections,
                "connection limit reached; closing connections that have waited for their peer for more than 1 s"
            );
        }
    }

    fn serve_accepted(&mut self) {
        let Some((stream, peer)) = self.accepted.take() else {
            return;
        };
        // Nagle's algorithm would delay the response. The call fails if the peer has closed the connection, which the
        // first read reports too.
        let _ = stream.set_nodelay(true);
        // A dual-stack socket reports IPv4 peers as `::ffff:10.0.0.1`.
        let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
        let state = ConnectionState::new((self.shared.settings)());
        let task = self.tasks.spawn(connection::serve(
            stream,
            peer,
            state.clone(),
            self.shared.clone(),
        ));
        self.open.insert(task.id(), (task, state));
        self.count();
    }

    async fn accept_failed(&mut self, error: &io::Error) {
        if matches!(
            error.kind(),
            ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset
        ) {
            debug!(%error, "the peer closed the connection before it was accepted");
            return;
        }
        if !self.is_failing {
            warn!(%error, "cannot accept connections; retrying");
            self.is_failing = true;
        }
        sleep(ACCEPT_PAUSE).await;
    }

    fn ended(&mut self, ended: &Result<(Id, ()), JoinError>) {
        let id = match ended {
            Ok((id, ())) => *id,
            Err(error) => {
                if error.is_panic() {
                    error!("the task of a connection panicked");
                }
                error.id()
            }
        };
        self.open.remove(&id);
        self.count();
    }

    fn count(&self) {
        let open = self.tasks.len().try_into().unwrap_or(i64::MAX);
        self.gauge.set(open);
    }

    /// Closes idle connections at once, and other connections after the request that is in flight or arriving. Cuts off
    /// connections that take longer than `time_left`.
    async fn close(mut self, time_left: Duration) -> DrainOutcome {
        self.serve_accepted();
        self.shared.shutdown.cancel();
        let all_ended = async {
            while let Some(ended) = self.tasks.join_next_with_id().await {
                self.ended(&ended);
            }
        };
        match timeout(time_left, all_ended).await {
            Ok(()) => DrainOutcome::Clean,
            Err(_) => DrainOutcome::Forced(self.tasks.len()),
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tracing::Level;

    use super::*;
    use crate::clock::Clock;
    use crate::telemetry::logs::LogFormat;

    #[tokio::test]
    async fn connection_that_waits_for_room_is_served_when_the_drain_closes_the_listener() {
        let router = Router::new()
            .route("/", get(|| async { "x" }))
            .route("/never", get(std::future::pending::<()>));
        let metrics = Arc::new(Metrics::new());
        let log = RequestLog::new(Clock::system(), Level::INFO, LogFormat::Json, &metrics);
        let settings: LiveSettings = Arc::new(Arc::<ServerConfig>::default);
        let shared = Shared::new(router, settings, metrics, Arc::new(log));
        let mut acceptor = Acceptor::new(shared, 1, Gauge::default());
        let socket = bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let mut clients = Vec::new();
        for path in ["/never", "/"] {
            let mut client = TcpStream::connect(socket.local_addr().unwrap())
                .await
                .unwrap();
            let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
            client.write_all(request.as_bytes()).await.unwrap();
            clients.push(client);
        }
        // The first connection, which is in a handler, takes the only place.
        while acceptor.accepted.is_none() {
            tokio::select! {
                biased;
                never = acceptor.accept_from(&socket) => match never {},
                () = tokio::task::yield_now() => {}
            }
        }
        drop(socket);
        let mut answer = [0; 12];
        tokio::select! {
            outcome = acceptor.close(Duration::from_secs(20)) => panic!("{outcome:?}"),
            read = clients[1].read_exact(&mut answer) => assert_eq!(read.unwrap(), 12),
        }
        assert_eq!(&answer, b"HTTP/1.1 200");
    }
}
