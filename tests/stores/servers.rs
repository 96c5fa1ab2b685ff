//! Starts real Redis, PostgreSQL and MariaDB servers on free ports with temporary data, and stops them when dropped.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use sqlx::{Connection, MySqlConnection, PgConnection};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::TcpStream;

/// How long [`eventually`] retries. Servers start slowly on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .expect("a free port")
        .local_addr()
        .expect("an address")
        .port()
}

/// Repeats `attempt` until it succeeds. Panics after [`PATIENCE`].
pub async fn eventually<T, E: std::fmt::Debug>(
    what: &str,
    mut attempt: impl AsyncFnMut() -> Result<T, E>,
) -> T {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        match attempt().await {
            Ok(value) => return value,
            Err(error) if tokio::time::Instant::now() > deadline => panic!("{what}: {error:?}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

/// A process that is killed when this value is dropped.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn start(command: &mut Command) -> Server {
    let command = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    Server(
        command
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}; run `make tools`")),
    )
}

pub struct Redis {
    pub port: u16,
    extra: Vec<String>,
    server: Option<Server>,
    directory: TempDir,
}

impl Redis {
    pub async fn start(extra: &[&str]) -> Self {
        let extra = extra.iter().map(|&argument| argument.to_owned()).collect();
        let directory = tempfile::tempdir().expect("a directory");
        let mut redis = Self {
            port: free_port(),
            extra,
            server: None,
            directory,
        };
        redis.restart();
        redis.connection().await;
        redis
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub fn kill(&mut self) {
        self.server = None;
    }

    pub fn restart(&mut self) {
        let port = self.port.to_string();
        let mut command = Command::new("redis-server");
        command.args([
            "--bind",
            "127.0.0.1",
            "--port",
            &port,
            "--save",
            "",
            "--dir",
        ]);
        self.server = Some(start(command.arg(self.directory.path()).args(&self.extra)));
    }

    /// Opens a connection for the test itself, which does not pass through the service.
    pub async fn connection(&self) -> redis::aio::MultiplexedConnection {
        let client = redis::Client::open(self.url()).expect("a URL");
        eventually("redis-server", async || {
            let mut connection = client.get_multiplexed_async_connection().await?;
            // The server is also up if it requires a password, or is a replica whose primary is down.
            match redis::cmd("PING").exec_async(&mut connection).await {
                Err(error) if matches!(error.code(), Some("NOAUTH" | "MASTERDOWN")) => {
                    Ok(connection)
                }
                answer => answer.map(|()| connection),
            }
        })
        .await
    }

    pub async fn run(&self, words: &[&str]) {
        let mut command = redis::Cmd::new();
        for word in words {
            command.arg(word);
        }
        command
            .exec_async(&mut self.connection().await)
            .await
            .expect("a command that works");
    }
}

impl Redis {
    pub async fn get(&self, key: &str) -> Option<String> {
        redis::cmd("GET")
            .arg(key)
            .query_async(&mut self.connection().await)
            .await
            .ok()
    }

    /// Records all commands that Redis receives from now on (MONITOR).
    pub async fn monitor(&self) -> Monitor {
        let stream = TcpStream::connect(("127.0.0.1", self.port))
            .await
            .expect("a connection");
        let mut monitor = Monitor {
            lines: BufReader::new(stream).lines(),
            port: self.port,
        };
        monitor
            .lines
            .get_mut()
            .write_all(b"MONITOR\r\n")
            .await
            .expect("a command");
        assert_eq!(monitor.next().await, "+OK");
        monitor
    }
}

pub struct Monitor {
    lines: Lines<BufReader<TcpStream>>,
    port: u16,
}

impl Monitor {
    async fn next(&mut self) -> String {
        self.lines
            .next_line()
            .await
            .expect("Redis is there")
            .expect("a line")
    }

    /// The commands since the last call, without CLIENT and HELLO, which clients send when they connect.
    pub async fn commands(&mut self) -> Vec<String> {
        let mut marker = TcpStream::connect(("127.0.0.1", self.port))
            .await
            .expect("a connection");
        marker
            .write_all(b"ECHO end-of-commands\r\n")
            .await
            .expect("a command");
        let mut commands = Vec::new();
        loop {
            let line = self.next().await;
            let (_, command) = line
                .split_once("] ")
                .expect("a MONITOR line with a time and an address before the command");
            match command {
                r#""ECHO" "end-of-commands""# => return commands,
                _ if command.starts_with(r#""CLIENT""#) || command.starts_with(r#""HELLO""#) => {}
                _ => commands.push(command.to_owned()),
            }
        }
    }
}

pub struct Postgres {
    pub port: u16,
    _server: Server,
    _directory: TempDir,
}

impl Postgres {
    pub async fn start(extra: &[&str]) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let is_root = give_to("postgres", directory.path());
        let data = directory.path().join("data");
        let unprivileged = |program: &str| {
            let program = programs().join(program);
            if !is_root {
                return Command::new(program);
            }
            // PostgreSQL refuses to run as root, so run it as the user `postgres`.
            let mut command = Command::new("setpriv");
            command
                .args(["--reuid=postgres", "--regid=postgres", "--clear-groups"])
                .arg(program);
            command
        };
        let mut initdb = unprivileged("initdb");
        run(initdb
            .args(["--auth=trust", "--username=postgres", "--no-sync", "-D"])
            .arg(&data));
        let port = free_port();
        let mut postgres = unprivileged("postgres");
        postgres.arg("-D").arg(&data).args([
            "-p",
            &port.to_string(),
            "-c",
            "listen_addresses=127.0.0.1",
        ]);
        postgres.args(["-c", "unix_socket_directories=", "-c", "fsync=off"]);
        postgres.args(extra.iter().flat_map(|setting| ["-c", *setting]));
        let server = start(&mut postgres);
        let postgres = Self {
            port,
            _server: server,
            _directory: directory,
        };
        postgres.connection("postgres").await;
        postgres
    }

    pub fn url(&self, database: &str) -> String {
        format!(
            "postgres://postgres@127.0.0.1:{}/{database}?sslmode=disable",
            self.port
        )
    }

    /// Opens a connection for the test itself, which does not pass through the service.
    pub async fn connection(&self, database: &str) -> PgConnection {
        let url = self.url(database);
        eventually("postgres", async || PgConnection::connect(&url).await).await
    }

    pub async fn run(&self, database: &str, sql: &'static str) {
        let mut connection = self.connection(database).await;
        sqlx::raw_sql(sql)
            .execute(&mut connection)
            .await
            .expect("SQL that works");
    }
}

pub struct MariaDb {
    pub port: u16,
    _server: Server,
    _directory: TempDir,
}

impl MariaDb {
    pub async fn start(extra: &[&str]) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let data = format!("--datadir={}", directory.path().join("data").display());
        let socket = format!("--socket={}", directory.path().join("socket").display());
        // MariaDB refuses to run as root unless a user is passed explicitly.
        let user = give_to("mysql", directory.path()).then_some("--user=mysql");
        let mut install = Command::new("mariadb-install-db");
        install.args([
            "--no-defaults",
            &data,
            "--auth-root-authentication-method=normal",
            "--skip-test-db",
        ]);
        // Set a separate TMPDIR, because concurrent installations use the same names for temporary tables.
        run(install.args(user).env("TMPDIR", directory.path()));
        let port = free_port();
        // Debian installs mariadbd in /usr/sbin, which is not on every user's `PATH`.
        let mut mariadb = Command::new("/usr/sbin/mariadbd");
        mariadb.args([
            "--no-defaults",
            &data,
            &socket,
            &format!("--port={port}"),
            "--bind-address=127.0.0.1",
        ]);
        mariadb.args([
            "--innodb-buffer-pool-size=16M",
            "--innodb-flush-log-at-trx-commit=0",
            "--skip-name-resolve",
        ]);
        let server = start(
            mariadb
                .args(user)
                .args(extra)
                .env("TMPDIR", directory.path()),
        );
        let mariadb = Self {
            port,
            _server: server,
            _directory: directory,
        };
        mariadb.connection().await;
        mariadb
    }

    pub fn url(&self) -> String {
        format!(
            "mysql://root@127.0.0.1:{}/mysql?ssl-mode=disabled",
            self.port
        )
    }

    /// Opens a connection for the test itself, which does not pass through the service.
    pub async fn connection(&self) -> MySqlConnection {
        let url = self.url();
        eventually("mariadbd", async || MySqlConnection::connect(&url).await).await
    }

    pub async fn run(&self, sql: &'static str) {
        let mut connection = self.connection().await;
        sqlx::raw_sql(sql)
            .execute(&mut connection)
            .await
            .expect("SQL that works");
    }
}

/// PEM files with a certificate for `localhost`, its key, and the certificate authority that issued it.
pub struct Certificate {
    pub authority: PathBuf,
    pub chain: PathBuf,
    pub key: PathBuf,
    _directory: TempDir,
}

impl Certificate {
    /// Issues a certificate. `user` owns the key file, because PostgreSQL refuses a key that other users can read.
    pub fn issue(user: &str) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let mut parameters = rcgen::CertificateParams::default();
        parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        parameters.distinguished_name.push(
            rcgen::DnType::CommonName,
            "the test's certificate authority",
        );
        let authority_key = rcgen::KeyPair::generate().expect("a key");
        let authority = parameters
            .self_signed(&authority_key)
            .expect("a certificate");
        let issuer = rcgen::Issuer::new(parameters, authority_key);
        let key = rcgen::KeyPair::generate().expect("a key");
        let parameters =
            rcgen::CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
        let certificate = parameters.signed_by(&key, &issuer).expect("a certificate");
        let write = |name: &str, text: String| {
            let path = directory.path().join(name);
            std::fs::write(&path, text).expect("a file");
            path
        };
        let certificate = Self {
            authority: write("ca.pem", authority.pem()),
            chain: write("server.pem", certificate.pem()),
            key: write("server.key", key.serialize_pem()),
            _directory: directory,
        };
        run(Command::new("chmod").arg("600").arg(&certificate.key));
        run(Command::new("chmod")
            .arg("755")
            .arg(certificate.key.parent().expect("a folder")));
        give_to(user, &certificate.key);
        certificate
    }
}

impl Certificate {
    /// A self-signed certificate, created with `openssl req -x509` as in most guides.
    pub fn plain_openssl() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let (chain, key) = (
            directory.path().join("server.pem"),
            directory.path().join("server.key"),
        );
        run(Command::new("openssl")
            .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes"])
            .args(["-days", "2", "-subj", "/CN=a server", "-keyout"])
            .arg(&key)
            .arg("-out")
            .arg(&chain));
        Self {
            authority: chain.clone(),
            chain,
            key,
            _directory: directory,
        }
    }
}

/// If the tests run as root, changes the owner of the path to `user`, which the server runs as. Returns whether the
/// tests run as root.
fn give_to(user: &str, directory: &Path) -> bool {
    let is_root = run(Command::new("id").arg("-u")) == "0";
    if is_root {
        run(Command::new("chown").arg(user).arg(directory));
    }
    is_root
}

/// Debian's directory of PostgreSQL server programs, which is not on `PATH`.
fn programs() -> PathBuf {
    let versions =
        std::fs::read_dir("/usr/lib/postgresql").expect("PostgreSQL is missing: run `make tools`");
    let mut versions: Vec<_> = versions
        .map(|entry| entry.expect("an entry").path().join("bin"))
        .collect();
    versions.retain(|path| path.join("initdb").exists());
    versions.sort();
    versions
        .pop()
        .expect("PostgreSQL's server programs are missing: run `make tools`")
}

fn run(command: &mut Command) -> String {
    let output = command
        .stderr(Stdio::piped())
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}
