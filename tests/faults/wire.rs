//! Sends raw bytes to a service, and checks its responses more strictly than ordinary clients do.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::sentinels::no_sentinel;
use crate::tokens;

/// How long a test waits for the service: longer than every timeout except `server.idle_timeout`.
pub const HANG: Duration = Duration::from_secs(40);

/// The origin in `origins.allowed`.
pub const LISTED: &str = "https://app.example";

/// The documented statuses, and the error codes that each may have.
const CODES: [(u16, &[&str]); 14] = [
    (400, &["bad_request"]),
    (401, &["no_session", "session_expired", "session_invalid"]),
    (
        403,
        &["origin_not_allowed", "host_not_allowed", "not_a_fetch"],
    ),
    (404, &["not_found"]),
    (405, &["method_not_allowed"]),
    (408, &["request_timeout"]),
    (413, &["body_too_large"]),
    (414, &["uri_too_long"]),
    (429, &["rate_limited"]),
    (431, &["headers_too_large"]),
    (500, &["internal"]),
    (
        503,
        &["session_backend_unavailable", "overloaded", "draining"],
    ),
    (200, &[]),
    (204, &[]),
];

/// A token request with these header lines and `Connection: close`.
pub fn post(headers: &str) -> Vec<u8> {
    request("POST /rollout/token HTTP/1.1", headers)
}

/// A request with this request line, these header lines and `Connection: close`.
pub fn request(line: &str, headers: &str) -> Vec<u8> {
    format!("{line}\r\nHost: app.example\r\nConnection: close\r\n{headers}\r\n").into_bytes()
}

/// A token request with one more header, whose value may be any bytes.
pub fn post_raw(name: &str, value: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST /rollout/token HTTP/1.1\r\nHost: app.example\r\nConnection: close\r\n{name}: "
    );
    [head.as_bytes(), value, b"\r\n\r\n"].concat()
}

/// The header line `Authorization: Bearer` with this token.
pub fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}\r\n")
}

/// A complete response whose framing has been checked.
#[derive(Clone)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    /// The value of a header, which must occur at most once.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.iter().filter(|(known, _)| known == name);
        let first = values.next().map(|(_, value)| value.as_str());
        assert!(values.next().is_none(), "two {name} in {self:?}");
        first
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }

    /// The status, followed by the error code if there is one, such as `200` or `401 session_invalid`.
    pub fn outcome(&self) -> String {
        if matches!(self.status, 200 | 204 | 304) {
            return self.status.to_string();
        }
        format!(
            "{} {}",
            self.status,
            self.json()["code"].as_str().unwrap_or("without a code")
        )
    }

    /// Checks the token in this response, and returns its subject.
    pub fn subject(&self) -> String {
        assert_eq!(self.status, 200, "{self:?}");
        tokens::minted(&self.json())["sub"]
            .as_str()
            .expect("a subject")
            .to_owned()
    }

    /// Checks the rules for every response: documented status, headers, no secret, CORS and the error body.
    fn check(&self, asked: &[u8]) {
        no_sentinel("an answer", &self.all());
        let codes = CODES.iter().find(|(status, _)| *status == self.status);
        let codes = codes
            .unwrap_or_else(|| panic!("an undocumented status: {self:?}"))
            .1;
        assert_eq!(
            self.header("x-content-type-options"),
            Some("nosniff"),
            "{self:?}"
        );
        assert_eq!(self.header("vary"), Some("Origin"), "{self:?}");
        assert!(
            self.header("x-request-id").is_some_and(|id| !id.is_empty()),
            "{self:?}"
        );
        for name in [
            "server",
            "set-cookie",
            "age",
            "content-encoding",
            "location",
            "via",
            "x-powered-by",
        ] {
            assert_eq!(self.header(name), None, "{self:?}");
        }
        let is_asset = self.header("cache-control") == Some("no-cache");
        assert!(
            is_asset || self.header("cache-control") == Some("no-store"),
            "{self:?}"
        );
        assert!(
            is_asset || self.header("pragma") == Some("no-cache"),
            "{self:?}"
        );
        assert!(is_asset || self.header("etag").is_none(), "{self:?}");
        self.check_cors(asked);
        if self.status >= 400 {
            self.check_problem(asked, codes);
        }
    }

    fn check_problem(&self, asked: &[u8], codes: &[&str]) {
        assert_eq!(
            self.header("content-type"),
            Some("application/problem+json"),
            "{self:?}"
        );
        let needs = match self.status {
            401 => "www-authenticate",
            405 => "allow",
            429 | 503 => "retry-after",
            _ => "x-request-id",
        };
        let value = self
            .header(needs)
            .unwrap_or_else(|| panic!("no {needs} in {self:?}"));
        if needs == "retry-after" {
            assert!(
                value
                    .parse::<u32>()
                    .is_ok_and(|wait| (1..=60).contains(&wait)),
                "{self:?}"
            );
        }
        // A response to HEAD has no body.
        if asked.starts_with(b"HEAD ") {
            return;
        }
        let json = self.json();
        let Value::Object(members) = &json else {
            panic!("no object: {self:?}")
        };
        assert!(
            codes.contains(&json["code"].as_str().unwrap_or_default()),
            "{self:?}"
        );
        assert_eq!(json["status"], self.status, "{self:?}");
        assert_eq!(
            json["request_id"].as_str(),
            self.header("x-request-id"),
            "{self:?}"
        );
        assert!(
            !members.contains_key("token") && !self.all().windows(3).any(|part| part == b"eyJ"),
            "{self:?}"
        );
    }

    /// Checks CORS: a page of a listed origin can read every response, even errors, unless the request could not be
    /// parsed. Under `dev`, pages on loopback origins can read some responses.
    fn check_cors(&self, asked: &[u8]) {
        let asked = String::from_utf8_lossy(asked);
        let head = asked.split("\r\n\r\n").next().unwrap_or_default();
        let origins: Vec<&str> = head
            .lines()
            .filter(|line| line.to_ascii_lowercase().starts_with("origin:"))
            .collect();
        let is_listed = origins.len() == 1 && origins[0] == format!("Origin: {LISTED}");
        let parsed = !matches!(self.status, 400 | 414 | 431);
        let allowed = self.header("access-control-allow-origin");
        if is_listed && parsed {
            assert_eq!(allowed, Some(LISTED), "{self:?}");
            assert_eq!(
                self.header("access-control-allow-credentials"),
                Some("true"),
                "{self:?}"
            );
        } else if self.header("x-rollout-dev").is_some() && allowed.is_some() {
            let origin = allowed.unwrap_or_default();
            assert!(
                origin.starts_with("http://localhost:") || origin.starts_with("http://127.0.0.1:")
            );
            assert_eq!(origins, [format!("Origin: {origin}")], "{self:?}");
        } else if !is_listed {
            assert_eq!(allowed, None, "{self:?}");
            assert_eq!(
                self.header("access-control-allow-credentials"),
                None,
                "{self:?}"
            );
        }
    }

    fn all(&self) -> Vec<u8> {
        let head: String = self
            .headers
            .iter()
            .map(|(name, value)| format!("{name}: {value}\n"))
            .collect();
        [head.as_bytes(), &self.body].concat()
    }

    /// Whether the service counts this response in `rollout_token_requests_total`.
    pub fn is_counted(&self) -> bool {
        self.status >= 400 || self.body.starts_with(br#"{"token":"#)
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} {:?} {}",
            self.status,
            self.headers,
            self.body.escape_ascii()
        )
    }
}

/// One connection to a service.
pub struct Wire {
    stream: TcpStream,
    unread: Vec<u8>,
}

impl Wire {
    pub async fn connect(address: SocketAddr) -> Self {
        Self::try_connect(address).await.expect("a connection")
    }

    pub async fn try_connect(address: SocketAddr) -> std::io::Result<Self> {
        let stream = timeout(HANG, TcpStream::connect(address)).await??;
        Ok(Self::of(stream))
    }

    pub fn of(stream: TcpStream) -> Self {
        stream.set_nodelay(true).ok();
        Self {
            stream,
            unread: Vec::new(),
        }
    }

    /// Sends these bytes. Returns false if the service closed the connection before all of them were written, or did
    /// not read them within [`HANG`].
    pub async fn send(&mut self, bytes: &[u8]) -> bool {
        matches!(
            timeout(HANG, self.stream.write_all(bytes)).await,
            Ok(Ok(()))
        )
    }

    pub async fn half_close(&mut self) {
        self.stream.shutdown().await.ok();
    }

    /// Closes the connection with a TCP reset.
    pub fn reset(self) {
        self.stream.set_zero_linger().expect("a socket option");
    }

    /// Reads the next final response to `asked`. Returns `None` if the service closed the connection instead.
    pub async fn answer(&mut self, asked: &[u8]) -> Option<Answer> {
        loop {
            let answer = self.unchecked(asked).await?;
            // A 100 (Continue) response precedes the final response (RFC 9110, section 15.2.1).
            if answer.status == 100 {
                assert!(
                    asked.windows(12).any(|part| part == b"100-continue"),
                    "{answer:?}"
                );
                continue;
            }
            answer.check(asked);
            return Some(answer);
        }
    }

    async fn unchecked(&mut self, asked: &[u8]) -> Option<Answer> {
        let end = loop {
            if let Some(end) = self.unread.windows(4).position(|part| part == b"\r\n\r\n") {
                break end;
            }
            if !self.read().await {
                let shown = String::from_utf8_lossy(&self.unread);
                assert!(
                    self.unread.is_empty(),
                    "the connection was closed within a response head: {shown}"
                );
                return None;
            }
        };
        let head =
            String::from_utf8(self.unread.drain(..end + 4).collect()).expect("a head of text");
        let mut lines = head.trim_end_matches("\r\n").split("\r\n");
        let line = lines.next().unwrap_or_default();
        let old = asked.windows(10).any(|part| part == b" HTTP/1.0\r");
        let is_known = line.starts_with("HTTP/1.1 ") || (old && line.starts_with("HTTP/1.0 "));
        assert!(is_known && line.len() >= 13, "no status line: {line:?}");
        let status = line[9..12]
            .parse()
            .unwrap_or_else(|_| panic!("no status: {line:?}"));
        let headers = lines.map(|line| {
            let (name, value) = line
                .split_once(": ")
                .unwrap_or_else(|| panic!("no header: {line:?}"));
            assert!(
                !name.is_empty()
                    && name
                        .bytes()
                        .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            );
            assert!(
                !value.bytes().any(|byte| byte.is_ascii_control()),
                "{line:?}"
            );
            (name.to_ascii_lowercase(), value.to_owned())
        });
        let mut answer = Answer {
            status,
            headers: headers.collect(),
            body: Vec::new(),
        };
        assert_eq!(answer.header("transfer-encoding"), None, "{answer:?}");
        let length: Option<usize> = answer
            .header("content-length")
            .map(|text| text.parse().expect("a length"));
        assert!(
            length.is_some() || matches!(status, 100 | 204 | 304),
            "no length: {answer:?}"
        );
        let length = if asked.starts_with(b"HEAD ") {
            0
        } else {
            length.unwrap_or(0)
        };
        while self.unread.len() < length {
            assert!(
                self.read().await,
                "the connection was closed within a response body: {answer:?}"
            );
        }
        answer.body = self.unread.drain(..length).collect();
        Some(answer)
    }

    /// Reads once. Returns false if the connection was closed or reset.
    async fn read(&mut self) -> bool {
        let read = timeout(HANG, self.stream.read_buf(&mut self.unread)).await;
        let length = read
            .expect("the service neither responds nor closes the connection")
            .unwrap_or_default();
        length > 0
    }

    /// Reads all responses until the service closes the connection.
    pub async fn answers(&mut self, asked: &[u8]) -> Vec<Answer> {
        let mut answers = Vec::new();
        while let Some(answer) = self.answer(asked).await {
            answers.push(answer);
        }
        answers
    }

    /// Waits until the service closes the connection without a response.
    pub async fn closed(&mut self) {
        assert!(
            !self.read().await,
            "the service sent more bytes before it closed the connection: {}",
            String::from_utf8_lossy(&self.unread)
        );
    }

    /// Reads the raw bytes until the service closes the connection.
    pub async fn rest(&mut self) -> Vec<u8> {
        while self.read().await {}
        std::mem::take(&mut self.unread)
    }
}
