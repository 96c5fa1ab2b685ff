//! Connects to the Redis server, reads a key and, if `token.cap_to_session` needs it, its expiry, and maps the server's
//! errors. `redis_session.rs` interprets the value.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ConnectionInfo, ErrorKind,
    IntoConnectionInfo, RedisError,
};
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::sync::OnceCell;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::task::AbortOnDropHandle;

use super::corrupt;
use crate::clock::UnixSeconds;
use crate::config::{PublicText, Section};
use crate::secret::Secret;
use crate::session::backends::outgoing::{Outgoing, with_advice};
use crate::session::backends::pool::{Store, StoreError};
use crate::session::formats::payload::MAX_STORED;
use crate::session::reason::Reason;
use crate::session::sections::authority;
use crate::session::types::ExtractError;

/// A Redis or Redis-compatible server.
pub struct RedisServer {
    client: Client,
    /// The trusted certificates for `rediss://`. They are loaded on first use, because loading also reads the system's
    /// certificates.
    outgoing: Outgoing,
    tls: OnceCell<TlsConnector>,
    extractor: Arc<str>,
    /// Whether the key's expiry is read together with its value. True if `token.cap_to_session` is set.
    reads_expiry: bool,
    /// Whether the server refuses `GETRANGE`, which limits how much of a value is sent. If so, `GET` is used.
    getrange_is_refused: AtomicBool,
}

/// An open connection. Dropping it closes the socket, even while a response is outstanding.
pub struct Connection {
    commands: MultiplexedConnection,
    /// The task that reads and writes on a TLS connection. For other connections, the library starts such a task
    /// itself.
    _driver: Option<AbortOnDropHandle<()>>,
}

/// The value of a key. It has no `Debug`, which could show the session.
pub struct Stored {
    pub value: Vec<u8>,
    /// Seconds until the key expires, rounded down; `None` if it does not expire, or if the expiry was not read.
    pub seconds_left: Option<UnixSeconds>,
}

impl RedisServer {
    /// # Errors
    /// If the URL or the password is invalid, or if the URL contradicts `password` or `ca`. The message contains no
    /// part of the URL, because the URL may contain a password.
    pub fn new(
        section: &Section<'_>,
        url: &Secret,
        password: Option<&Secret>,
        ca: Option<&PublicText>,
        outgoing: Outgoing,
    ) -> Result<Self, &'static str> {
        const HELP: &str =
            "must be a URL such as redis://user@redis.internal:6379/0, or rediss:// for TLS";
        let text = std::str::from_utf8(url.expose()).map_err(|_| HELP)?;
        if !text.starts_with("redis://") && !text.starts_with("rediss://") {
            return Err(HELP);
        }
        let info = text.into_connection_info().map_err(|_| HELP)?;
        if matches!(info.addr(), ConnectionAddr::TcpTls { insecure: true, .. }) {
            return Err("must not end in #insecure: the server's certificate is always verified");
        }
        let info = match password {
            Some(_) if info.redis_settings().password().is_some() => {
                return Err("contains a password, and the section sets password too: keep one");
            }
            Some(password) => with_password(info, password)?,
            None => info,
        };
        if let ConnectionAddr::Tcp(host, _) = info.addr() {
            authority::warn_without_tls(section, host, "begin it with rediss://");
        }
        if ca.is_some() && !matches!(info.addr(), ConnectionAddr::TcpTls { .. }) {
            return Err("must begin with rediss:// (TLS), because ca is set");
        }
        Ok(Self {
            client: Client::open(info).map_err(|_| HELP)?,
            outgoing,
            tls: OnceCell::new(),
            extractor: Arc::from(section.name()),
            reads_expiry: section.cap_to_session(),
            getrange_is_refused: AtomicBool::new(false),
        })
    }

    /// Opens a connection with TLS. The client library itself would trust only the system's certificates.
    async fn connect_tls(&self, host: &str, port: u16) -> io::Result<TlsStream<TcpStream>> {
        let load = || async {
            let tls = self.outgoing.load_tls().await?;
            io::Result::Ok(TlsConnector::from(Arc::new(tls)))
        };
        let tls = self.tls.get_or_try_init(load).await?;
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        let stream = TcpStream::connect((host, port)).await?;
        stream.set_nodelay(true)?;
        tls.connect(name, stream).await
    }

    /// Sends `command` and, if the expiry is needed, `PTTL`. The answers may be error replies of the server.
    async fn send(
        &self,
        connection: &mut Connection,
        command: Cmd,
        key: &str,
    ) -> Result<Vec<redis::Value>, StoreError> {
        let mut commands = redis::pipe();
        commands.ignore_errors().add_command(command);
        if self.reads_expiry {
            commands.cmd("PTTL").arg(key);
        }
        Ok(commands.query_async(&mut connection.commands).await?)
    }

    /// Records that the server refuses `GETRANGE` but allows `GET`, and logs one warning.
    fn use_get_only(&self) {
        if !self.getrange_is_refused.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                extractor = &*self.extractor,
                "the store refuses GETRANGE, so sessions are read whole, however long they are: allow the command \
                 (ACL SETUSER … +getrange), then restart this service"
            );
        }
    }
}

/// Whether the server refused the command itself, because it is forbidden or unknown.
fn is_refused_command(answer: Option<&redis::Value>) -> bool {
    matches!(answer, Some(redis::Value::ServerError(error)) if matches!(error.code(), "NOPERM" | "ERR"))
}

/// The stored value in the answers to `GETRANGE` or `GET` and, if it was sent, `PTTL`; `None` if the key does not exist
/// or its value is empty.
///
/// # Errors
/// If the server returned an error, or if the answers do not fit these commands.
fn stored(answers: Vec<redis::Value>) -> Result<Option<Stored>, StoreError> {
    let mut answers = answers.into_iter().map(redis::Value::extract_error);
    let value = answers.next().transpose()?;
    let left = answers.next().transpose();
    let left = left.map_err(|error| match failure(&error) {
        StoreError::Said(error) => StoreError::Said(error.because(
            "the store refuses PTTL, which token.cap_to_session needs (ACL SETUSER … +pttl)",
        )),
        other => other,
    })?;
    let value = match value {
        Some(redis::Value::BulkString(bytes)) => bytes,
        Some(redis::Value::Nil) => return Ok(None),
        _ => {
            return Err(StoreError::Lost(
                "an unexpected answer to GETRANGE or GET".to_owned(),
            ));
        }
    };
    let seconds_left = match left {
        None | Some(redis::Value::Int(-1)) => None,
        // The key expired after its value was read.
        Some(redis::Value::Int(-2)) => return Ok(None),
        Some(redis::Value::Int(milliseconds @ 0..)) => Some(milliseconds / 1000),
        Some(_) => return Err(StoreError::Lost("an unexpected answer to PTTL".to_owned())),
    };
    // `GETRANGE` returns the same answer for a missing key and for an empty value.
    Ok((!value.is_empty()).then_some(Stored {
        value,
        seconds_left,
    }))
}

fn with_password(info: ConnectionInfo, password: &Secret) -> Result<ConnectionInfo, &'static str> {
    let text = std::str::from_utf8(password.expose()).map_err(|_| "needs a password in UTF-8")?;
    let settings = info.redis_settings().clone().set_password(text);
    Ok(info.set_redis_settings(settings))
}

impl fmt::Debug for RedisServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisServer").finish_non_exhaustive()
    }
}

impl Store for RedisServer {
    type Connection = Connection;
    type Question = str;
    type Answer = Option<Stored>;

    fn system(&self) -> &'static str {
        "redis"
    }

    fn address(&self) -> String {
        self.client.get_connection_info().addr().to_string()
    }

    fn connect_advice(&self) -> &'static str {
        match self.client.get_connection_info().addr() {
            ConnectionAddr::TcpTls { .. } => {
                ", and the server sent no TLS answer: if the server does not use TLS, write redis:// in url"
            }
            _ => "",
        }
    }

    async fn connect(&self) -> Result<Connection, StoreError> {
        // The pool's own timeout covers connecting and querying together.
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(None)
            .set_response_timeout(None);
        let info = self.client.get_connection_info();
        let ConnectionAddr::TcpTls { host, port, .. } = info.addr() else {
            let client = &self.client;
            let commands = client
                .get_multiplexed_async_connection_with_config(&config)
                .await;
            return Ok(Connection {
                commands: commands.map_err(|error| connect_failure(&error))?,
                _driver: None,
            });
        };
        // In a URL, an IPv6 address is in brackets.
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let stream = self.connect_tls(host, *port).await;
        let stream = stream.map_err(|error| StoreError::Lost(with_advice(&error)))?;
        let settings = info.redis_settings();
        let connecting = MultiplexedConnection::new_with_config(settings, stream, config);
        let (commands, driver) = connecting.await.map_err(|error| connect_failure(&error))?;
        Ok(Connection {
            commands,
            _driver: Some(AbortOnDropHandle::new(tokio::spawn(driver))),
        })
    }

    async fn ask(
        &self,
        connection: &mut Connection,
        key: &str,
    ) -> Result<Self::Answer, StoreError> {
        let too_long = || corrupt("the value is longer than 1 MiB");
        let is_too_long = |stored: &Stored| stored.value.len() > MAX_STORED;
        if !self.getrange_is_refused.load(Ordering::Relaxed) {
            let range = redis::cmd("GETRANGE")
                .arg(key)
                .arg(0)
                .arg(MAX_STORED)
                .take();
            let answers = self.send(connection, range, key).await?;
            if !is_refused_command(answers.first()) {
                return match stored(answers)? {
                    Some(stored) if is_too_long(&stored) => Err(StoreError::Said(too_long())),
                    stored => Ok(stored),
                };
            }
        }
        let get = redis::cmd("GET").arg(key).take();
        let stored = stored(self.send(connection, get, key).await?)?;
        self.use_get_only();
        match stored {
            Some(stored) if is_too_long(&stored) => Err(StoreError::Oversized(too_long())),
            stored => Ok(stored),
        }
    }
}

/// The server's messages, without the error code, that are logged if a connection cannot be opened. Any other message
/// can quote an argument of a command, such as the password.
const FIXED_MESSAGES: [&str; 6] = [
    "Authentication required.",
    "DB index is out of range",
    "Redis is loading the dataset in memory",
    "SELECT is not allowed in cluster mode",
    "invalid DB index",
    "max number of clients reached",
];

/// Maps an error of a command that opens a connection, such as AUTH or SELECT. Like [`failure`], but adds the server's
/// message if it is one of [`FIXED_MESSAGES`], and otherwise advice.
fn connect_failure(error: &RedisError) -> StoreError {
    let failure = failure(error);
    let StoreError::Said(ExtractError::Unavailable(cause)) = failure else {
        return failure;
    };
    let message = error.detail().map(str::trim);
    let message = message
        .filter(|message| FIXED_MESSAGES.contains(message))
        .unwrap_or("check the user and the database number in url, and the password in url, password or password_file");
    let detail = format!("{}: {message}", cause.detail.unwrap_or_default());
    StoreError::Said(ExtractError::unavailable(cause.reason).because(detail))
}

impl From<RedisError> for StoreError {
    fn from(error: RedisError) -> Self {
        failure(&error)
    }
}

/// Maps an error of the client library. The server's own message is left out, because it may contain the key, and so
/// are the library's messages about an answer, because they may quote the answer.
fn failure(error: &RedisError) -> StoreError {
    match (error.kind(), error.code()) {
        (_, Some("WRONGTYPE")) => {
            StoreError::Said(corrupt("the key holds something other than a string"))
        }
        (ErrorKind::Server(_) | ErrorKind::Extension | ErrorKind::AuthenticationFailed, code) => {
            let text = format!(
                "the store answered {}",
                code.unwrap_or("that it does not accept this service's credentials")
            );
            StoreError::Said(ExtractError::unavailable(Reason::StoreRefused).because(text))
        }
        (ErrorKind::Parse | ErrorKind::UnexpectedReturnType, _) => {
            StoreError::Lost("the answer is not a valid answer of Redis".to_owned())
        }
        _ => StoreError::Lost(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use redis::ServerErrorKind;

    use super::*;

    #[test]
    fn message_of_the_server_is_logged_only_if_it_is_a_fixed_text() {
        for (message, want) in [
            (
                "DB index is out of range",
                "the store answered ERR: DB index is out of range",
            ),
            (
                "unknown command AUTH, with args: hunter2",
                "the store answered ERR: check the user and the database number in url, and the password in url, password or password_file",
            ),
        ] {
            let kind = ErrorKind::Server(ServerErrorKind::ResponseError);
            let error = RedisError::from((kind, "refused", message.to_owned()));
            let failure = connect_failure(&error).to_string();
            assert!(failure.contains(want), "{failure}");
            assert!(!failure.contains("hunter2"), "{failure}");
        }
        let parsing = RedisError::from((ErrorKind::Parse, "Unexpected", "s3cr3t".to_owned()));
        assert!(!failure(&parsing).to_string().contains("s3cr3t"));
    }

    #[test]
    fn get_and_pttl_answers_become_a_value_with_its_ttl_no_value_or_a_lost_connection() {
        use redis::Value::{BulkString, Int, Nil, Okay};
        let bytes = |text: &str| BulkString(text.as_bytes().to_vec());
        for (answers, want) in [
            (vec![Nil], Ok(None)),
            (vec![bytes("")], Ok(None)),
            (vec![bytes("{}")], Ok(Some(None))),
            (vec![bytes("{}"), Int(-1)], Ok(Some(None))),
            (vec![bytes("{}"), Int(-2)], Ok(None)),
            (vec![bytes(""), Int(-2)], Ok(None)),
            (vec![bytes("{}"), Int(0)], Ok(Some(Some(0)))),
            (vec![bytes("{}"), Int(59_999)], Ok(Some(Some(59)))),
            (
                vec![bytes("{}"), Int(-3)],
                Err("an unexpected answer to PTTL"),
            ),
            (vec![bytes("{}"), Nil], Err("an unexpected answer to PTTL")),
            (vec![Int(1)], Err("an unexpected answer to GETRANGE or GET")),
            (vec![Okay], Err("an unexpected answer to GETRANGE or GET")),
            (vec![], Err("an unexpected answer to GETRANGE or GET")),
        ] {
            let shown = format!("{answers:?}");
            let found = stored(answers).map(|stored| stored.map(|stored| stored.seconds_left));
            assert_eq!(
                found.map_err(|failure| failure.to_string()),
                want.map_err(str::to_owned),
                "{shown}"
            );
        }
    }
}
