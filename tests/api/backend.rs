//! A fake backend for extractors. It sends the responses that the test chooses, and records the requests.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, Request, Response};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// A request that the backend received.
#[derive(Clone, Debug)]
pub struct Seen {
    pub method: String,
    pub path: String,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Seen {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .get(name)
            .map(|value| value.to_str().expect("text"))
    }

    /// The names of all headers, in alphabetical order.
    pub fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.headers.keys().map(|name| name.as_str()).collect();
        names.sort_unstable();
        names
    }
}

#[derive(Clone)]
pub struct Backend {
    pub address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    pub running: Arc<AtomicUsize>,
    pub most_running: Arc<AtomicUsize>,
}

impl Backend {
    /// Starts a backend that responds to every request with the result of `answer`.
    pub async fn start<F>(answer: impl Fn(Seen) -> F + Clone + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Response<Body>> + Send,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let backend = Self {
            address: listener.local_addr().expect("an address"),
            seen: Arc::default(),
            running: Arc::default(),
            most_running: Arc::default(),
        };
        let shared = backend.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let (answer, shared) = (answer.clone(), shared.clone());
            async move {
                let (head, body) = request.into_parts();
                let seen = Seen {
                    method: head.method.to_string(),
                    path: head.uri.to_string(),
                    headers: head.headers,
                    body: axum::body::to_bytes(body, 1 << 20).await.expect("a body"),
                };
                shared.seen.lock().unwrap().push(seen.clone());
                let running = shared.running.fetch_add(1, Ordering::SeqCst) + 1;
                shared.most_running.fetch_max(running, Ordering::SeqCst);
                let response = answer(seen).await;
                shared.running.fetch_sub(1, Ordering::SeqCst);
                Ok::<_, Infallible>(response)
            }
        });
        let router = axum::Router::new().fallback_service(service);
        tokio::spawn(async move { axum::serve(listener, router).await });
        backend
    }

    /// Starts a backend that sends the same response to every request.
    pub async fn always(status: u16, headers: &[(&str, &str)], body: &str) -> Self {
        let headers: Vec<_> = headers
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        let body = body.to_owned();
        Self::start(move |_| {
            let response = respond(status, &headers, body.clone());
            async move { response }
        })
        .await
    }

    /// Starts a backend that responds to every request with this JSON.
    pub async fn json(body: &str) -> Self {
        Self::always(200, &[("content-type", "application/json")], body).await
    }

    /// Starts a backend that answers no request before `true` is sent to the returned channel.
    pub async fn held(
        answer: impl Fn(Seen) -> Response<Body> + Clone + Send + Sync + 'static,
    ) -> (Self, watch::Sender<bool>) {
        let (open, gate) = watch::channel(false);
        let backend = Self::start(move |seen| {
            let (mut gate, answer) = (gate.clone(), answer.clone());
            async move {
                gate.wait_for(|open| *open).await.expect("the test lives");
                answer(seen)
            }
        })
        .await;
        (backend, open)
    }

    /// Starts a backend that answers no request. The returned channel contains the number of requests.
    pub async fn hung() -> (Self, watch::Receiver<usize>) {
        let (arrived, calls) = watch::channel(0);
        let backend = Self::start(move |_| {
            arrived.send_modify(|count| *count += 1);
            std::future::pending()
        })
        .await;
        (backend, calls)
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    pub fn visits(&self) -> usize {
        self.seen.lock().unwrap().len()
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }
}

pub fn respond(status: u16, headers: &[(String, String)], body: impl Into<Body>) -> Response<Body> {
    let mut response = Response::builder().status(status);
    for (name, value) in headers {
        response = response.header(name, value);
    }
    response.body(body.into()).expect("a response")
}

pub fn json(body: &str) -> Response<Body> {
    respond(
        200,
        &[("content-type".to_owned(), "application/json".to_owned())],
        body.to_owned(),
    )
}

/// Starts a server that reads one request from each connection and passes the connection to `misbehave`. Returns the
/// server's address.
pub async fn raw<F>(
    misbehave: impl Fn(TcpStream) -> F + Clone + Send + Sync + 'static,
) -> SocketAddr
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let misbehave = misbehave.clone();
            tokio::spawn(async move {
                let mut request = [0; 4096];
                if stream.read(&mut request).await.is_ok() {
                    misbehave(stream).await;
                }
            });
        }
    });
    address
}

/// Starts a server that passes each request (head and body) and its connection to `answer`. The connection stays open
/// if `answer` returns it. Returns the server's address.
pub async fn raw_requests<F>(
    answer: impl Fn(TcpStream, Vec<u8>) -> F + Clone + Send + Sync + 'static,
) -> SocketAddr
where
    F: Future<Output = Option<TcpStream>> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let answer = answer.clone();
            tokio::spawn(async move {
                while let Some(request) = read_request(&mut stream).await {
                    match answer(stream, request).await {
                        Some(kept) => stream = kept,
                        None => return,
                    }
                }
            });
        }
    });
    address
}

/// Reads one whole request. Returns `None` if the peer closed the connection.
async fn read_request(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut request = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&request).to_ascii_lowercase();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "));
            if body.len() >= length.map_or(0, |length| length.parse().expect("a length")) {
                return Some(request);
            }
        }
        if stream.read_buf(&mut request).await.ok()? == 0 {
            return None;
        }
    }
}

/// Writes `head`, and then `again` repeatedly until the peer closes the connection, with a pause of 20 ms after each
/// write if `pause` is set.
pub async fn drip(mut stream: TcpStream, head: &'static [u8], again: &'static [u8], pause: bool) {
    if stream.write_all(head).await.is_err() {
        return;
    }
    while stream.write_all(again).await.is_ok() {
        if pause {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }
}
