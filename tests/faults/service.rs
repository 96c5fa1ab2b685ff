//! Starts, observes and stops the release binary as a process. Each test starts its own service and ends with
//! [`Service::finish`], which checks the invariants that hold after every attack.

use std::fmt::Display;
use std::fs::File;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Once, PoisonError};
use std::time::Duration;

use rustix::fs::Dir;
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit};
use tempfile::TempDir;
use tokio::time::{Instant, sleep, timeout};

use crate::sentinels::{CLIENT_SECRET, no_sentinel};
use crate::tokens::CLIENT_ID;
use crate::wire::{Answer, HANG, LISTED, Wire};

/// The memory limit in the shipped deployment files, in KiB.
const SHIPPED_LIMIT: u64 = 192 * 1024;

/// The memory that ten thousand connections may use, in KiB. The allocator keeps this memory after they close.
pub const TEN_THOUSAND_CONNECTIONS: u64 = 160 * 1024;

/// The service's memory limit in KiB: the limit in the shipped deployment files, plus 72 KiB for each connection that
/// `max_connections` allows above its default.
fn memory_limit(toml: &str) -> u64 {
    let table: toml::Table = toml::from_str(toml).expect("TOML");
    let server = table.get("server").and_then(toml::Value::as_table);
    let most = server.and_then(|server| server.get("max_connections")?.as_integer());
    let above = most.map_or(0, |most| {
        u64::try_from(most).expect("a number").saturating_sub(1024)
    });
    SHIPPED_LIMIT + 72 * above
}

/// The binary under test, which `make faults` builds.
fn binary() -> PathBuf {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/release/rollout-token");
    assert!(
        path.exists(),
        "{} is missing: run `cargo build --release`",
        path.display()
    );
    path
}

/// Raises this process's soft limit on open files to the hard limit, because some attacks hold 10,000 connections open.
fn raise_file_limit() {
    static RAISED: Once = Once::new();
    RAISED.call_once(|| {
        let limit = getrlimit(Resource::Nofile);
        let raised = Rlimit {
            current: limit.maximum,
            maximum: limit.maximum,
        };
        setrlimit(Resource::Nofile, raised).expect("a limit");
    });
}

/// The configuration, environment variables and command line of a service.
pub struct Setup {
    pub toml: String,
    pub environment: Vec<(String, String)>,
    pub arguments: Vec<String>,
    /// A program that launches the service under special conditions, such as `prlimit --nofile=64`.
    pub launcher: Vec<String>,
    pub program: PathBuf,
}

impl Setup {
    pub fn new(toml: impl Display) -> Self {
        let pairs = [
            ("ROLLOUT_CLIENT_ID", CLIENT_ID),
            ("ROLLOUT_CLIENT_SECRET", CLIENT_SECRET),
            ("ROLLOUT__SERVER__LISTEN", "127.0.0.1:0"),
            ("ROLLOUT__SERVER__ADMIN_LISTEN", "127.0.0.1:0"),
            ("ROLLOUT__ORIGINS__ALLOWED", LISTED),
            // `log.level` sets the service's log level. The service must ignore `RUST_LOG`.
            ("RUST_LOG", "trace"),
            ("RUST_BACKTRACE", "full"),
        ];
        let environment = pairs.map(|(name, value)| (name.to_owned(), value.to_owned()));
        Self {
            toml: toml.to_string(),
            environment: environment.into(),
            arguments: Vec::new(),
            launcher: Vec::new(),
            program: binary(),
        }
    }

    /// Sets an environment variable, or removes it if the value is `None`.
    pub fn env(mut self, name: &str, value: impl Into<Option<&'static str>>) -> Self {
        self.environment.retain(|(known, _)| known != name);
        self.environment.extend(
            value
                .into()
                .map(|value| (name.to_owned(), value.to_owned())),
        );
        self
    }

    pub fn arguments(mut self, arguments: &[&str]) -> Self {
        self.arguments = arguments
            .iter()
            .map(|&argument| argument.to_owned())
            .collect();
        self
    }

    pub fn log_format(self, format: &'static str) -> Self {
        self.env("ROLLOUT__LOG__FORMAT", format)
    }

    pub fn launcher(mut self, words: &[&str]) -> Self {
        self.launcher = words.iter().map(|&word| word.to_owned()).collect();
        self
    }

    /// Spawns the process. Returns it with its directory `/proc/PID/fd` and its configuration directory.
    fn spawn(&self) -> (Child, Dir, TempDir) {
        // The shell waits for a line before it executes the service, so that `/proc/PID/fd` can be opened first: the
        // service makes its `/proc` files accessible to root only.
        const GATE: &str = "read _ && exec \"$@\" </dev/null";
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("service.toml");
        std::fs::write(&file, &self.toml).expect("a file");
        raise_file_limit();
        let mut command = Command::new("sh");
        command
            .args(["-c", GATE, "sh"])
            .args(&self.launcher)
            .arg(&self.program);
        command.args(&self.arguments).arg("--config").arg(&file);
        command
            .env_clear()
            .envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let files = File::open(format!("/proc/{}/fd", child.id())).expect("a process");
        child
            .stdin
            .take()
            .expect("a pipe")
            .write_all(b"\n")
            .expect("a shell");
        (child, Dir::new(files).expect("a directory"), directory)
    }

    /// Runs a command that must exit by itself, such as a service that refuses to start. Returns its exit code and its
    /// output.
    pub async fn refusal(&self) -> (i32, String) {
        let (mut child, _, _directory) = self.spawn();
        let output = Output::of(&mut child);
        let status = timeout(HANG, exit_of(&Mutex::new(child)))
            .await
            .expect("the service must refuse to start, but it keeps running");
        output.complete().await;
        let text = output.text();
        no_sentinel("a refusal to start", text.as_bytes());
        (status.code().unwrap_or(-1), text)
    }
}

/// Checks that the service and `check-config` refuse this configuration, and that their reports name the key.
pub async fn refuses(toml: impl Display, key: &str) {
    let setup = Setup::new(toml);
    let (code, text) = setup.refusal().await;
    assert!(
        code == 2 && text.contains(key),
        "expected exit code 2 and a report that names {key}, found exit code {code}: {text}"
    );
    let (code, text) = setup.arguments(&["check-config"]).refusal().await;
    assert!(
        code == 2 && text.contains(key),
        "check-config: exit {code}: {text}"
    );
}

/// Waits for the process to exit, without blocking a thread.
async fn exit_of(child: &Mutex<Child>) -> ExitStatus {
    loop {
        let ended = child
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .try_wait()
            .expect("a child");
        match ended {
            Some(status) => return status,
            None => sleep(Duration::from_millis(10)).await,
        }
    }
}

/// The standard output and standard error of a process.
#[derive(Clone, Default)]
struct Output {
    bytes: Arc<Mutex<Vec<u8>>>,
    open: Arc<AtomicU64>,
}

impl Output {
    fn of(child: &mut Child) -> Self {
        let output = Self::default();
        let pipes: [Option<Box<dyn Read + Send>>; 2] = [
            child.stdout.take().map(|pipe| Box::new(pipe) as _),
            child.stderr.take().map(|pipe| Box::new(pipe) as _),
        ];
        for mut pipe in pipes.into_iter().flatten() {
            let output = output.clone();
            output.open.fetch_add(1, Ordering::SeqCst);
            std::thread::spawn(move || {
                let mut bytes = vec![0; 64 * 1024];
                while let Ok(length @ 1..) = pipe.read(&mut bytes) {
                    output.lock().extend_from_slice(&bytes[..length]);
                }
                output.open.fetch_sub(1, Ordering::SeqCst);
            });
        }
        output
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<u8>> {
        self.bytes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.lock()).into_owned()
    }

    async fn complete(&self) {
        while self.open.load(Ordering::SeqCst) > 0 {
            sleep(Duration::from_millis(5)).await;
        }
    }
}

/// The resources that a process uses.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    pub resident_kib: u64,
    pub peak_kib: u64,
    pub files: usize,
    /// CPU time, in hundredths of a second.
    pub ticks: u64,
}

/// A running service.
pub struct Service {
    pub address: SocketAddr,
    pub admin: SocketAddr,
    pub pid: u32,
    child: Mutex<Child>,
    files: Mutex<Dir>,
    output: Output,
    /// The number of output bytes that have already been searched for secrets.
    scanned: Mutex<usize>,
    baseline: Usage,
    /// The memory limit that docs/operations.md recommends for this `max_connections`, in KiB.
    memory_limit: u64,
    /// The number of responses that the test has read, and that the service's metrics must therefore count.
    answered: AtomicU64,
    is_exact: AtomicBool,
    is_finished: AtomicBool,
    outcomes: AtomicU64,
    _directory: TempDir,
}

impl Service {
    pub async fn start(toml: impl Display) -> Arc<Self> {
        Self::start_with(&Setup::new(toml)).await
    }

    pub async fn start_with(setup: &Setup) -> Arc<Self> {
        let (mut child, files, directory) = setup.spawn();
        let (pid, output) = (child.id(), Output::of(&mut child));
        let listening = async {
            loop {
                let text = output.text();
                let line = text
                    .lines()
                    .find(|line| line.contains("admin_address"))
                    .map(str::to_owned);
                if let Some(line) = line {
                    return line;
                }
                assert!(
                    child.try_wait().expect("a child").is_none(),
                    "the service exited during startup: {text}"
                );
                sleep(Duration::from_millis(5)).await;
            }
        };
        let line = timeout(HANG, listening)
            .await
            .expect("the service did not log its addresses in time");
        let address =
            |name: &str| address_in(&line, name).unwrap_or_else(|| panic!("no {name} in {line}"));
        let mut service = Self {
            address: address("address"),
            admin: address("admin_address"),
            pid,
            child: Mutex::new(child),
            files: Mutex::new(files),
            output,
            scanned: Mutex::new(0),
            baseline: Usage {
                resident_kib: 0,
                peak_kib: 0,
                files: 0,
                ticks: 0,
            },
            memory_limit: memory_limit(&setup.toml),
            answered: AtomicU64::new(0),
            is_exact: AtomicBool::new(true),
            is_finished: AtomicBool::new(false),
            outcomes: AtomicU64::new(0),
            _directory: directory,
        };
        // The first requests allocate memory that is never freed, such as buffers, HTTP clients and certificates.
        for _ in 0..8 {
            service.healthy().await;
            service.metrics().await;
        }
        service.baseline = service.usage();
        service
            .outcomes
            .store(service.outcomes_now().await, Ordering::SeqCst);
        Arc::new(service)
    }

    /// Sends these bytes on a new connection. Returns all responses that arrive before the service closes it.
    pub async fn exchange(&self, bytes: &[u8]) -> Vec<Answer> {
        let mut wire = Wire::connect(self.address).await;
        wire.send(bytes).await;
        let answers = wire.answers(bytes).await;
        self.count(&answers);
        answers
    }

    /// Adds responses that the test has read to the number that the metrics must show.
    pub fn count(&self, answers: &[Answer]) {
        let counted = answers.iter().filter(|answer| answer.is_counted()).count();
        self.answered.fetch_add(counted as u64, Ordering::SeqCst);
    }

    /// Sends these bytes, expects exactly one response, and returns it.
    pub async fn one(&self, bytes: &[u8]) -> Answer {
        let mut answers = self.exchange(bytes).await;
        assert_eq!(
            answers.len(),
            1,
            "answers to {}: {answers:?}",
            bytes[..bytes.len().min(300)].escape_ascii()
        );
        answers.remove(0)
    }

    /// Sends these bytes, and expects exactly one response, with one of these outcomes, such as `200` or
    /// `401 no_session`.
    pub async fn expect(&self, label: &str, bytes: &[u8], outcomes: &[&str]) -> Answer {
        let answer = self.one(bytes).await;
        let outcome = answer.outcome();
        assert!(
            outcomes.contains(&&*outcome),
            "{label}: the outcome is {outcome}, not one of {outcomes:?}: {answer:?}"
        );
        answer
    }

    /// Sends these bytes, and expects one response with one of these outcomes, or a closed connection without a
    /// response.
    pub async fn expect_or_close(&self, label: &str, bytes: &[u8], outcomes: &[&str]) {
        let answers = self.exchange(bytes).await;
        let known = answers
            .iter()
            .all(|answer| outcomes.contains(&&*answer.outcome()));
        assert!(known && answers.len() <= 1, "{label}: {answers:?}");
    }

    /// Skips the next comparison of the metrics with the number of responses, because some are left unread.
    pub fn does_not_count(&self) {
        self.is_exact.store(false, Ordering::SeqCst);
    }

    /// The complete log lines written so far.
    pub fn log(&self) -> String {
        let mut text = self.output.text();
        text.truncate(text.rfind('\n').map_or(0, |end| end + 1));
        text
    }

    /// Waits until no more log lines arrive, and returns the log. The service writes the lines in a thread of their own,
    /// so they can arrive after the response.
    pub async fn whole_log(&self) -> String {
        loop {
            let before = self.output.lock().len();
            sleep(Duration::from_millis(60)).await;
            if self.output.lock().len() == before {
                return self.log();
            }
        }
    }

    /// Waits until the log contains `word` at least this many times.
    pub async fn logs(&self, word: &str, times: usize) {
        for _ in 0..500 {
            if self.log().matches(word).count() >= times {
                return;
            }
            sleep(Duration::from_millis(10)).await;
        }
        panic!("never {word}: {}", tail(&self.log()));
    }

    pub fn usage(&self) -> Usage {
        let read = |name: &str| {
            std::fs::read_to_string(format!("/proc/{}/{name}", self.pid)).expect("a process")
        };
        let status = read("status");
        let kib = |name: &str| -> u64 {
            let line = status
                .lines()
                .find(|line| line.starts_with(name))
                .expect("a line");
            line.split_whitespace()
                .nth(1)
                .and_then(|number| number.parse().ok())
                .expect("a number")
        };
        let peak_kib = kib("VmHWM");
        assert!(
            peak_kib <= self.memory_limit,
            "the peak memory is {peak_kib} KiB, but the limit in docs/operations.md is {} KiB",
            self.memory_limit
        );
        let files = {
            let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
            files.rewind();
            files.by_ref().count() - 2 // `.` and `..`
        };
        Usage {
            resident_kib: kib("VmRSS"),
            peak_kib,
            files,
            ticks: ticks(&read("stat")),
        }
    }

    pub fn baseline(&self) -> Usage {
        self.baseline
    }

    pub fn is_alive(&self) -> bool {
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        child.try_wait().expect("a child").is_none()
    }

    /// Checks that `/healthz` responds with `200` and the status `ok`.
    pub async fn healthy(&self) {
        let asked = request_of("GET /healthz HTTP/1.1");
        let mut wire = Wire::connect(self.address).await;
        wire.send(&asked).await;
        let answer = wire.answer(&asked).await.expect("an answer");
        assert_eq!(
            (answer.status, answer.json()["status"].as_str()),
            (200, Some("ok"))
        );
    }

    pub async fn ready(&self) -> Answer {
        self.get_admin("/readyz").await
    }

    async fn get_admin(&self, path: &str) -> Answer {
        let asked = request_of(&format!("GET {path} HTTP/1.1"));
        let mut wire = Wire::connect(self.admin).await;
        wire.send(&asked).await;
        wire.answer(&asked).await.expect("an answer")
    }

    pub async fn metrics(&self) -> String {
        String::from_utf8(self.get_admin("/metrics").await.body).expect("text")
    }

    /// The sum of all series of this metric that have these labels.
    pub async fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        sum(&self.metrics().await, name, labels)
    }

    async fn outcomes_now(&self) -> u64 {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a count"
        )]
        let count = self.metric("rollout_token_requests_total", &[]).await as u64;
        count
    }

    /// Checks the invariants that hold at any time: the process is running and responds, no secret has leaked, and the
    /// metrics have at most 300 series and count each response exactly once.
    pub async fn check_invariants(&self) {
        assert!(
            self.is_alive(),
            "the process has exited: {}",
            tail(&self.log())
        );
        timeout(Duration::from_secs(5), self.healthy())
            .await
            .expect("/healthz does not answer");
        let metrics = self.metrics().await;
        let series = metrics
            .lines()
            .filter(|line| !line.starts_with('#'))
            .count();
        assert!(series <= 300, "{series} series of metrics");
        self.scan();
        let (answered, now) = (
            self.answered.swap(0, Ordering::SeqCst),
            self.outcomes_now().await,
        );
        let before = self.outcomes.swap(now, Ordering::SeqCst);
        if self.is_exact.swap(true, Ordering::SeqCst) {
            assert_eq!(
                now - before,
                answered,
                "the metrics (left) and the test (right) have counted different numbers of responses"
            );
        }
    }

    /// Checks the invariants that hold after every attack: those of [`Self::check_invariants`], no more open files than
    /// at the start, memory at most 64 MiB above the start, and no busy thread. Then kills the process.
    pub async fn finish(&self) {
        self.finish_within(64 * 1024).await;
    }

    /// Like [`Self::finish`], but memory may be this many KiB above the start.
    pub async fn finish_within(&self, kib: u64) {
        self.check_invariants().await;
        let deadline = Instant::now() + Duration::from_secs(15);
        while self.usage().files > self.baseline.files {
            let (now, then) = (self.usage().files, self.baseline.files);
            assert!(
                Instant::now() < deadline,
                "{now} files are open, but only {then} were open at the start"
            );
            sleep(Duration::from_millis(50)).await;
        }
        let (now, then) = (self.usage().resident_kib, self.baseline.resident_kib);
        assert!(
            now <= then + kib,
            "resident memory is {now} KiB; it was {then} KiB at the start, and may grow by {kib} KiB"
        );
        self.becomes_idle().await;
        self.signal(Signal::KILL);
        self.exit().await;
    }

    /// Waits up to five seconds for all threads to become idle.
    async fn becomes_idle(&self) {
        for _ in 0..25 {
            let before = self.threads();
            sleep(Duration::from_millis(200)).await;
            let after = self.threads();
            let busy = after.iter().any(|(thread, ticks)| {
                before
                    .iter()
                    .any(|(known, then)| known == thread && ticks - then > 18)
            });
            if !busy {
                return;
            }
        }
        panic!("a thread is still busy five seconds after the attack");
    }

    pub fn threads(&self) -> Vec<(String, u64)> {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.pid)).expect("a process");
        let tasks = tasks.filter_map(Result::ok).filter_map(|task| {
            let stat = std::fs::read_to_string(task.path().join("stat")).ok()?;
            Some((
                task.file_name().to_string_lossy().into_owned(),
                ticks(&stat),
            ))
        });
        tasks.collect()
    }

    /// Searches the output since the last call, and the 256 bytes before it, for secrets and bearer tokens.
    fn scan(&self) {
        let mut scanned = self.scanned.lock().unwrap_or_else(PoisonError::into_inner);
        let output = self.output.lock();
        let from = scanned.saturating_sub(256);
        no_sentinel("the log", &output[from..]);
        assert!(
            !output[from..].windows(8).any(|part| part == b"Bearer e"),
            "a token is in the log"
        );
        *scanned = output.len();
    }

    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.pid).expect("a pid")).expect("a pid");
        kill_process(pid, signal).expect("a process of ours");
    }

    /// Waits for the process to exit after a signal.
    pub async fn exit(&self) -> ExitStatus {
        let status = timeout(HANG, exit_of(&self.child))
            .await
            .expect("the process does not exit");
        self.output.complete().await;
        self.scan();
        self.is_finished.store(true, Ordering::SeqCst);
        status
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        child.kill().ok();
        child.wait().ok();
        let is_checked = self.is_finished.load(Ordering::SeqCst) || std::thread::panicking();
        assert!(
            is_checked,
            "the test ended without `finish` or `exit`, so the invariants were not checked"
        );
    }
}

/// The socket address in the field `name` of a log line, in any log format.
fn address_in(line: &str, name: &str) -> Option<SocketAddr> {
    let is_quote = |c: char| matches!(c, '"' | ' ' | ',' | '}');
    let words: Vec<&str> = line
        .split(|c: char| is_quote(c) || c == '=')
        .filter(|word| !word.is_empty())
        .collect();
    let at = words
        .iter()
        .position(|word| word.trim_end_matches(':') == name)?;
    words[at + 1..].iter().find_map(|word| word.parse().ok())
}

/// A request with `Host: localhost`, which `dev` accepts too.
fn request_of(line: &str) -> Vec<u8> {
    format!("{line}\r\nHost: localhost\r\nConnection: close\r\n\r\n").into_bytes()
}

/// The sum of the user and system CPU time in a line of `/proc/PID/stat`, in hundredths of a second. The last `)` ends
/// the program name, which may contain any characters.
fn ticks(stat: &str) -> u64 {
    let fields: Vec<&str> = stat
        .rsplit_once(')')
        .expect("a name")
        .1
        .split_whitespace()
        .collect();
    fields[11].parse::<u64>().expect("ticks") + fields[12].parse::<u64>().expect("ticks")
}

/// The sum of all series of this metric that have all of these labels.
pub fn sum(metrics: &str, name: &str, labels: &[&str]) -> f64 {
    let lines = metrics
        .lines()
        .filter(|line| line.split(['{', ' ']).next() == Some(name));
    let lines = lines.filter(|line| labels.iter().all(|label| line.contains(label)));
    lines
        .filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok())
        .sum()
}

pub fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(10)..].join("\n")
}
