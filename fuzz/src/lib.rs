//! Code that the fuzz targets share. Most targets pass the fuzzer's bytes to an extractor, as a cookie or as a
//! backend's response.

#[path = "../../tests/shared/samples.rs"]
mod samples;

use std::sync::{Arc, Mutex, OnceLock};

use axum::http::{HeaderValue, header};
use rollout_token::clock::{Clock, ManualClock};
use rollout_token::json::Value;
use rollout_token::session::backends::Context;
use rollout_token::session::contract;
use rollout_token::session::registry::Registry;
use rollout_token::session::types::{ExtractError, Extracted, SessionExtractor};
use samples::{SAMPLES, Sample};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufStream};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;

/// A TOML table, re-exported for the targets.
pub use toml::Table;

/// The current time in all targets except those that fuzz a framework's cookie.
pub const NOW: i64 = 1_800_000_000;

/// The secret that signs the sessions that [`jwt`] accepts.
pub const JWT_SECRET: &str = "public-jwt-secret-with-more-than-32-characters";

/// Builds an extractor of `kind` with the TOML in `keys`.
pub fn build(kind: &str, keys: &str) -> Arc<dyn SessionExtractor> {
    let context = Context::new(Clock::new(ManualClock::at(NOW)), Arc::default());
    contract::build(&Registry::builtin(), kind, keys, &context).expect("good keys")
}

/// Builds a `jwt` extractor for HS256 session tokens, with the additional keys in `more`.
pub fn jwt(more: &str) -> Arc<dyn SessionExtractor> {
    let keys = "algorithms = [\"HS256\"]\nallow_any_audience = true";
    build("jwt", &format!("secret = \"{JWT_SECRET}\"\n{keys}\n{more}"))
}

/// An extractor that calls a backend, and that backend.
pub struct Asking {
    runtime: Runtime,
    extractor: Arc<dyn SessionExtractor>,
    body: Arc<Mutex<Vec<u8>>>,
}

impl Asking {
    /// Starts a backend, and builds an extractor of `kind` with the backend's `url` and the TOML in `keys`.
    pub fn of(kind: &str, keys: &str) -> Self {
        let runtime = Runtime::new().expect("a runtime");
        let body = Arc::default();
        let listener = runtime
            .block_on(TcpListener::bind("127.0.0.1:0"))
            .expect("a port");
        let url = format!("http://{}/", listener.local_addr().expect("an address"));
        runtime.spawn(backend(listener, Arc::clone(&body)));
        let extractor = build(kind, &format!("url = \"{url}\"\n{keys}"));
        Self {
            runtime,
            extractor,
            body,
        }
    }

    /// The outcome of a request with the header `header` if the backend responds with `body`.
    pub fn answer(&self, header: [(&str, &str); 1], body: &[u8]) -> Extracted {
        *self.body.lock().expect("no panic before") = body.to_vec();
        let request = contract::request(&header);
        self.runtime.block_on(self.extractor.extract(&request))
    }
}

async fn backend(listener: TcpListener, body: Arc<Mutex<Vec<u8>>>) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(converse(BufStream::new(stream), body.clone()));
    }
}

/// Answers every request on a connection with the current body.
async fn converse(mut stream: BufStream<TcpStream>, body: Arc<Mutex<Vec<u8>>>) -> Option<()> {
    loop {
        let mut length = 0;
        loop {
            let mut line = String::new();
            stream
                .read_line(&mut line)
                .await
                .ok()
                .filter(|&count| count > 0)?;
            let line = line.trim_end().to_ascii_lowercase();
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse().ok()?;
            }
            if line.is_empty() {
                break;
            }
        }
        stream.read_exact(&mut vec![0; length]).await.ok()?;
        let body = body.lock().ok()?.clone();
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream
            .write_all(&[head.as_bytes(), &body].concat())
            .await
            .ok()?;
        stream.flush().await.ok()?;
    }
}

/// Returns the sample whose kind or vector file is called `name`. A sample contains a valid session of a framework, and
/// the initial corpus contains the session's cookie.
pub fn sample(name: &str) -> &'static Sample {
    let is_named = |sample: &&Sample| sample.kind == name || sample.family == name;
    SAMPLES
        .iter()
        .find(is_named)
        .expect("a sample of that name")
}

/// An extractor under test, and the cookies and attributes of a valid session.
struct Subject {
    /// The runtime is needed, because `iron_session` derives some keys on other threads.
    runtime: Runtime,
    extractor: Arc<dyn SessionExtractor>,
    cookies: Vec<(String, String)>,
    attributes: Value,
}

impl Subject {
    fn of(name: &str) -> Self {
        let (extractor, cookies) = (sample(name).extractor(), sample(name).cookies());
        let mut request = contract::request(&[]);
        for (name, value) in &cookies {
            let pair = HeaderValue::try_from(format!("{name}={value}")).expect("a cookie");
            request.headers.append(header::COOKIE, pair);
        }
        let runtime = Runtime::new().expect("a runtime");
        let session = runtime.block_on(extractor.extract(&request));
        let attributes = session
            .expect("a genuine session")
            .expect("a session")
            .attributes;
        Self {
            runtime,
            extractor,
            cookies,
            attributes,
        }
    }
}

/// Passes the bytes as a cookie to the extractor of the sample called `name`. The extractor must not panic, and may
/// accept only the valid session.
pub fn cookie(name: &str, bytes: &[u8]) {
    static SUBJECT: OnceLock<Subject> = OnceLock::new();
    let subject = SUBJECT.get_or_init(|| Subject::of(name));
    let mut request = contract::request(&[]);
    // The fuzzer's bytes replace the first cookie. A second cookie, such as a signature, is left unchanged.
    for (number, (name, value)) in subject.cookies.iter().enumerate() {
        let value = if number == 0 { bytes } else { value.as_bytes() };
        let pair = [name.as_bytes(), b"=", value].concat();
        let Ok(pair) = HeaderValue::from_bytes(&pair) else {
            return;
        };
        request.headers.append(header::COOKIE, pair);
    }
    match subject
        .runtime
        .block_on(subject.extractor.extract(&request))
    {
        Ok(None) | Err(ExtractError::NotMine(..) | ExtractError::Rejected(_)) => {}
        Ok(Some(session)) => assert_eq!(
            session.attributes, subject.attributes,
            "accepted a session other than the valid one"
        ),
        Err(ExtractError::Unavailable(cause)) => {
            panic!("this extractor calls no backend, so none can be unavailable: {cause:?}")
        }
    }
}
