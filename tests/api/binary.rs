//! Runs the binary as a process with a fixed set of environment variables, which a test can extend, reads its output,
//! and sends it signals.

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use serde_json::{Value, json};

use crate::helpers::{CLIENT_ID, CLIENT_SECRET, SESSION_SECRET, sign_session};

/// An expiry in the far future, because the binary uses the machine's clock.
pub const FAR: i64 = 4_000_000_000;

const ENVIRONMENT: [(&str, &str); 14] = [
    ("ROLLOUT_CLIENT_ID", CLIENT_ID),
    ("ROLLOUT_CLIENT_SECRET", CLIENT_SECRET),
    ("ROLLOUT__SERVER__LISTEN", "127.0.0.1:0"),
    ("ROLLOUT__SERVER__ADMIN_LISTEN", "127.0.0.1:0"),
    ("ROLLOUT__SESSION__EXTRACTORS", "cookie,bearer"),
    ("ROLLOUT__EXTRACTORS__COOKIE__KIND", "jwt"),
    ("ROLLOUT__EXTRACTORS__COOKIE__FROM", "cookie:session"),
    ("ROLLOUT__EXTRACTORS__BEARER__KIND", "jwt"),
    ("ROLLOUT__EXTRACTORS__BEARER__SECRET", SESSION_SECRET),
    ("ROLLOUT__EXTRACTORS__BEARER__ALGORITHMS", "HS256"),
    ("ROLLOUT__EXTRACTORS__BEARER__ALLOW_ANY_AUDIENCE", "true"),
    ("ROLLOUT__EXTRACTORS__COOKIE__SECRET", SESSION_SECRET),
    ("ROLLOUT__EXTRACTORS__COOKIE__ALGORITHMS", "HS256"),
    ("ROLLOUT__EXTRACTORS__COOKIE__ALLOW_ANY_AUDIENCE", "true"),
];

const NOWHERE: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0));

/// A command that runs the binary with these arguments. Its environment contains only the variables in `ENVIRONMENT`.
pub fn binary(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rollout-token"));
    command.args(arguments).env_clear().envs(ENVIRONMENT);
    command
}

pub fn run(command: &mut Command) -> (Option<i32>, String, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().expect("the binary runs");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    (status.code(), text(stdout), text(stderr))
}

/// A running process. It is killed when the test ends.
pub struct Process {
    child: Child,
    lines: Receiver<String>,
    seen: Vec<String>,
    pub address: SocketAddr,
    pub admin: SocketAddr,
}

impl Process {
    pub fn start(command: &mut Command) -> Self {
        let (mut process, stdout) = Self::start_unread(command);
        let (sender, lines) = channel();
        process.lines = lines;
        std::thread::spawn(move || {
            stdout
                .lines()
                .map_while(Result::ok)
                .try_for_each(|line| sender.send(line))
        });
        process
    }

    /// Starts the process, and reads its output up to the log line with the service's addresses.
    pub fn start_unread(command: &mut Command) -> (Self, BufReader<ChildStdout>) {
        let mut process = Self::start_silent(command.stdout(Stdio::piped()));
        let mut stdout = BufReader::new(process.child.stdout.take().expect("piped"));
        let mut line = String::new();
        while !line.contains("listening") {
            line.clear();
            let count = stdout.read_line(&mut line).expect("text");
            assert!(count > 0, "it ended after {:#?}", process.seen);
            process.seen.push(line.trim_end().to_owned());
        }
        let listening: Value =
            serde_json::from_str(&line).unwrap_or_else(|error| panic!("{line}: {error}"));
        process.address = listening["address"].as_str().unwrap().parse().unwrap();
        process.admin = listening["admin_address"]
            .as_str()
            .unwrap()
            .parse()
            .unwrap();
        (process, stdout)
    }

    /// Starts the process without waiting for output.
    pub fn start_silent(command: &mut Command) -> Self {
        let child = command.stderr(Stdio::inherit()).spawn().expect("it starts");
        Self {
            child,
            lines: channel().1,
            seen: Vec::new(),
            address: NOWHERE,
            admin: NOWHERE,
        }
    }

    pub fn line_with(&mut self, text: &str) -> String {
        loop {
            let line = self.lines.recv_timeout(Duration::from_secs(20));
            let line =
                line.unwrap_or_else(|_| panic!("no line contains {text:?} after {:#?}", self.seen));
            self.seen.push(line.clone());
            if line.contains(text) {
                return line;
            }
        }
    }

    /// The log line that names the addresses on which the service listens.
    pub fn start_line(&self) -> &str {
        let line = self.seen.iter().find(|line| line.contains("listening"));
        line.expect("the start line")
    }

    /// The line of `/metrics` that counts successful reloads; empty before the first reload.
    pub async fn reloads_metric(&self) -> String {
        let answer = crate::helpers::client()
            .get(format!("http://{}/metrics", self.admin))
            .send()
            .await;
        let text = answer.expect("an answer").text().await.expect("text");
        let of_reloads =
            |line: &&str| line.starts_with("rollout_token_config_reloads_total{result=\"ok\"");
        text.lines().find(of_reloads).unwrap_or_default().to_owned()
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = i32::try_from(self.id())
            .ok()
            .and_then(rustix::process::Pid::from_raw)
            .expect("a pid");
        rustix::process::kill_process(pid, signal).expect("it lives");
    }

    /// Waits for the process to exit. Returns the exit code and the whole output.
    pub fn end(mut self) -> (Option<i32>, String) {
        let status = self.child.wait().expect("it ends");
        self.seen.extend(self.lines.iter());
        (status.code(), self.seen.join("\n"))
    }

    pub fn url(&self) -> String {
        format!("http://{}/rollout/token", self.address)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

pub fn good_session() -> String {
    sign_session(&json!({"sub": "user-1", "exp": FAR}))
}
