//! A fake backend (session endpoint, JWKS or introspection endpoint) that responds or fails as the test specifies.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::sleep;

/// How the backend reacts to a request.
#[derive(Clone, Debug)]
pub enum Act {
    /// Sends these bytes and then reads the next request.
    Say(Vec<u8>),
    /// Sends these bytes after a delay, and then reads the next request.
    Late(Duration, Vec<u8>),
    /// Sends these bytes and closes the connection.
    SayAndClose(Vec<u8>),
    /// Sends the first part at once, and the second part one byte per interval.
    Drip(Vec<u8>, Vec<u8>, Duration),
    /// Sends the first part once, and then repeats the second part until the peer closes the connection.
    Flood(Vec<u8>, Vec<u8>),
    /// Sends no response and keeps the connection open.
    Hang,
    Close,
    Reset,
}

/// Responds with status 200 and this JSON body.
pub fn ok(body: &str) -> Act {
    Act::Say(json(body))
}

pub fn json(body: &str) -> Vec<u8> {
    answer("200 OK", "Content-Type: application/json\r\n", body)
}

/// The bytes of a response with a correct `Content-Length`.
pub fn answer(status: &str, headers: &str, body: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

type Script = Arc<dyn Fn(&str) -> Act + Send + Sync>;

struct State {
    script: Mutex<Script>,
    requests: Mutex<Vec<String>>,
    connections: AtomicUsize,
    under_way: AtomicUsize,
    most: AtomicUsize,
}

impl State {
    fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
        mutex.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A running backend, which closes its connections when it is dropped. Tests drop it before `Service::finish`, which
/// waits until the service has no more open files than at its start.
pub struct Upstream {
    pub port: u16,
    state: Arc<State>,
    tasks: Arc<Mutex<JoinSet<()>>>,
}

impl Drop for Upstream {
    fn drop(&mut self) {
        State::lock(&self.tasks).abort_all();
    }
}

impl Upstream {
    pub async fn start(act: Act) -> Self {
        let (upstream, listener) = Self::bind(act).await;
        upstream.accept(listener, serve_plain);
        upstream
    }

    /// Like [`Self::start`], but with TLS.
    pub async fn start_tls(act: Act, tls: Arc<rustls::ServerConfig>) -> Self {
        let (upstream, listener) = Self::bind(act).await;
        let acceptor = tokio_rustls::TlsAcceptor::from(tls);
        upstream.accept(listener, move |stream, state| {
            let acceptor = acceptor.clone();
            async move {
                if let Ok(mut stream) = acceptor.accept(stream).await {
                    serve(&mut stream, &state).await;
                }
            }
        });
        upstream
    }

    /// Serves each connection in its own task.
    fn accept<F>(
        &self,
        listener: TcpListener,
        serve: impl Fn(TcpStream, Arc<State>) -> F + Send + 'static,
    ) where
        F: Future<Output = ()> + Send + 'static,
    {
        let (state, tasks) = (self.state.clone(), self.tasks.clone());
        let accepting = async move {
            while let Ok((stream, _)) = listener.accept().await {
                state.connections.fetch_add(1, Ordering::SeqCst);
                State::lock(&tasks).spawn(serve(stream, state.clone()));
            }
        };
        State::lock(&self.tasks).spawn(accepting);
    }

    async fn bind(act: Act) -> (Self, TcpListener) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let state = State {
            script: Mutex::new(Arc::new(move |_| act.clone())),
            requests: Mutex::default(),
            connections: AtomicUsize::new(0),
            under_way: AtomicUsize::new(0),
            most: AtomicUsize::new(0),
        };
        (
            Self {
                port,
                state: Arc::new(state),
                tasks: Arc::default(),
            },
            listener,
        )
    }

    /// Sets the reaction to every request from now on.
    pub fn does(&self, act: Act) {
        self.decides(move |_| act.clone());
    }

    /// Sets a function that chooses the reaction to each request.
    pub fn decides(&self, script: impl Fn(&str) -> Act + Send + Sync + 'static) {
        *State::lock(&self.state.script) = Arc::new(script);
    }

    /// Returns the requests received since the last call.
    pub fn take_requests(&self) -> Vec<String> {
        std::mem::take(&mut *State::lock(&self.state.requests))
    }

    pub fn connections(&self) -> usize {
        self.state.connections.load(Ordering::SeqCst)
    }

    /// Returns the largest number of concurrent requests since the last call.
    pub fn take_most(&self) -> usize {
        self.state.most.swap(0, Ordering::SeqCst)
    }
}

async fn serve_plain(mut stream: TcpStream, state: Arc<State>) {
    stream.set_nodelay(true).ok();
    if serve(&mut stream, &state).await {
        stream.set_zero_linger().ok();
    }
}

/// Serves one connection. Returns whether it ends with a reset.
async fn serve(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), state: &State) -> bool {
    let mut unread = Vec::new();
    while let Some(request) = next_request(stream, &mut unread).await {
        let script = State::lock(&state.script).clone();
        let act = script(&request);
        State::lock(&state.requests).push(request);
        state.most.fetch_max(
            state.under_way.fetch_add(1, Ordering::SeqCst) + 1,
            Ordering::SeqCst,
        );
        let more = perform(stream, &act).await;
        state.under_way.fetch_sub(1, Ordering::SeqCst);
        if !more {
            return matches!(act, Act::Reset);
        }
    }
    false
}

async fn next_request(
    stream: &mut (impl AsyncRead + Unpin),
    unread: &mut Vec<u8>,
) -> Option<String> {
    let mut bytes = [0; 4096];
    loop {
        if let Some(end) = unread.windows(4).position(|part| part == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&unread[..end]).to_ascii_lowercase();
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
            let whole = end + 4 + length.unwrap_or(0_usize);
            if unread.len() >= whole {
                return Some(
                    String::from_utf8_lossy(&unread.drain(..whole).collect::<Vec<_>>())
                        .into_owned(),
                );
            }
        }
        match stream.read(&mut bytes).await {
            Ok(length @ 1..) => unread.extend_from_slice(&bytes[..length]),
            Ok(0) | Err(_) => return None,
        }
    }
}

/// Performs one reaction. Returns whether the connection stays open.
async fn perform(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), act: &Act) -> bool {
    match act {
        Act::Say(bytes) => stream.write_all(bytes).await.is_ok() && stream.flush().await.is_ok(),
        Act::Late(by, bytes) => {
            sleep(*by).await;
            stream.write_all(bytes).await.is_ok()
        }
        Act::SayAndClose(bytes) => {
            stream.write_all(bytes).await.ok();
            stream.shutdown().await.ok();
            false
        }
        Act::Drip(first, second, by) => {
            let mut going = stream.write_all(first).await.is_ok();
            for byte in second {
                sleep(*by).await;
                going = going && stream.write_all(&[*byte]).await.is_ok();
                if !going {
                    break;
                }
            }
            going
        }
        Act::Flood(first, second) => {
            let mut going = stream.write_all(first).await.is_ok();
            while going {
                going = stream.write_all(second).await.is_ok();
            }
            false
        }
        // Wait until the peer closes the connection, or sends another byte.
        Act::Hang => {
            let mut byte = [0; 1];
            stream.read(&mut byte).await.is_ok_and(|length| length > 0)
        }
        Act::Close | Act::Reset => false,
    }
}
