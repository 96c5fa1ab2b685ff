//! The log's reader stops reading, goes away, or has no room: the service goes on, and says what was
//! lost. And no caller writes a line of their own. What else stands in the lines is tested in `commands.rs`.

use std::fs::File;
use std::io::{BufRead, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::binary::{FAR, Process, binary, good_session};
use crate::helpers::sign_session;

/// A service that lets one subject ask without end: every answer is a line in the log.
fn talkative() -> Command {
    let mut command = binary(&["serve"]);
    command.env("ROLLOUT__RATE_LIMIT__PER_MINUTE", "0").env("ROLLOUT__SERVER__DRAIN_DELAY", "0s");
    command
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("a connection");
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream
}

/// Asks for so many tokens on one connection, many at a time, and checks that all of them come.
fn ask(address: SocketAddr, times: usize) {
    let mut stream = connect(address);
    let request = |close: &str| {
        format!(
            "POST /rollout/token HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {}\r\n\
             X-Request-Id: {}\r\n{close}\r\n",
            good_session(),
            "x".repeat(64)
        )
    };
    let mut writer = stream.try_clone().unwrap();
    let requests = request("").repeat(times - 1) + &request("Connection: close\r\n");
    let writing = std::thread::spawn(move || writer.write_all(requests.as_bytes()));
    let mut answers = String::new();
    stream.read_to_string(&mut answers).expect("the service answers");
    writing.join().unwrap().expect("the service reads");
    assert_eq!(answers.matches("HTTP/1.1 200 OK\r\n").count(), times);
}

/// A port that is free now, for a service that cannot tell which one it took.
fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn until_listening(address: SocketAddr) {
    while TcpStream::connect(address).is_err() {
        std::thread::yield_now();
    }
}

fn lost(admin: SocketAddr) -> usize {
    let mut stream = connect(admin);
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
    let mut metrics = String::new();
    stream.read_to_string(&mut metrics).unwrap();
    let line = metrics.lines().find_map(|line| line.strip_prefix("rollout_token_log_lines_lost_total "));
    line.expect("the metric").parse().unwrap()
}

/// The service writes a little later than it answers.
fn wait_until_lost(admin: SocketAddr, count: usize) {
    for _ in 0..10_000 {
        if lost(admin) >= count {
            return;
        }
    }
    panic!("{} lines lost, not {count}", lost(admin));
}

#[test]
fn a_log_that_nobody_reads_holds_no_request_up() {
    // More than the pipe, the queue and a batch on its way between them hold.
    const TIMES: usize = 12_000;
    let (process, stdout) = Process::start_unread(&mut talkative());
    ask(process.address, TIMES);
    let missed = lost(process.admin);
    assert!(missed > 0);

    // Somebody reads again: what was kept comes, and then the word about what was not.
    let mut lines = stdout.lines().map(|line| line.expect("text"));
    let told = |line: &String| line.contains("log lines were lost");
    let kept = lines.by_ref().take_while(|line| !told(line)).filter(|line| line.contains("token.issued"));
    assert_eq!(kept.count() + missed, TIMES);
    ask(process.address, 1);
    assert!(lines.next().expect("a line").contains("token.issued"));
}

#[test]
fn a_log_whose_reader_has_gone_stops_nothing() {
    let (process, stdout) = Process::start_unread(&mut talkative());
    drop(stdout);
    ask(process.address, 100);
    wait_until_lost(process.admin, 100);
    process.signal(rustix::process::Signal::TERM);
    assert_eq!(process.end().0, Some(0));
}

#[test]
fn a_log_on_a_full_disk_stops_nothing() {
    let (address, admin) = (free(), free());
    let full = File::options().write(true).open("/dev/full").unwrap();
    let process = Process::start_silent(
        talkative()
            .env("ROLLOUT__SERVER__LISTEN", address.to_string())
            .env("ROLLOUT__SERVER__ADMIN_LISTEN", admin.to_string())
            .stdout(full),
    );
    until_listening(admin);
    ask(address, 100);
    wait_until_lost(admin, 100);
    process.signal(rustix::process::Signal::TERM);
    assert_eq!(process.end().0, Some(0));
}

#[test]
fn a_stopped_reader_does_not_keep_the_process_from_ending() {
    let (process, stdout) = Process::start_unread(&mut talkative());
    ask(process.address, 1_000);
    process.signal(rustix::process::Signal::TERM);
    assert_eq!(process.end().0, Some(0));
    drop(stdout);
}

/// Line breaks and terminal escapes of a caller are escaped: one event is one line.
#[test]
fn no_caller_writes_a_line_of_their_own() {
    let forged = "x\r\n{\"level\":\"ERROR\",\"message\":\"forged\"}\u{1b}[31m\u{9b}2J";
    let escaped = serde_json::to_string(forged).unwrap();
    let encoded = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let header = encoded(&format!(r#"{{"alg":"HS256","kid":{escaped},"typ":{escaped}}}"#));
    let payload = encoded(&format!(r#"{{"sub":{escaped},"iss":{escaped},"exp":4000000000}}"#));
    let sessions = [
        sign_session(&json!({"sub": forged, "exp": FAR})),
        sign_session(&json!({"sub": "\"}, {\"message\": \"forged\"", "exp": FAR})),
        format!("{header}.{payload}.AAAA"),
        forged.replace(['\r', '\n'], " "),
    ];
    for format in ["json", "pretty"] {
        let (address, admin) = (free(), free());
        let output = tempfile::NamedTempFile::new().unwrap();
        let process = Process::start_silent(
            talkative()
                .env("ROLLOUT__SERVER__LISTEN", address.to_string())
                .env("ROLLOUT__SERVER__ADMIN_LISTEN", admin.to_string())
                .env("ROLLOUT__LOG__FORMAT", format)
                .env("ROLLOUT__LOG__LEVEL", "trace")
                .env("ROLLOUT__LOG__SUBJECT", "plain")
                .stdout(output.reopen().unwrap()),
        );
        until_listening(address);
        for session in &sessions {
            for (path, name) in [
                ("/rollout/token", "Authorization: Bearer "),
                ("/rollout/token?x=%0d%0aforged", "Cookie: session="),
                ("/%0d%0aforged%1b[31m", "User-Agent: "),
                ("/rollout/token", "X-Request-Id: "),
                ("/rollout/token", "Origin: "),
                ("/forged\u{1b}[31m", "traceparent: "),
            ] {
                let mut stream = connect(address);
                let head = format!(
                    "POST {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{name}{session}\r\n\r\n"
                );
                stream.write_all(head.as_bytes()).unwrap();
                let mut answer = Vec::new();
                stream.read_to_end(&mut answer).unwrap();
                assert!(answer.starts_with(b"HTTP/1.1 "), "{path} {name}");
            }
        }
        process.signal(rustix::process::Signal::TERM);
        assert_eq!(process.end().0, Some(0));
        let log = std::fs::read_to_string(output.path()).unwrap();
        assert!(log.contains("token.issued") && log.contains("token.refused"), "{log}");
        assert!(!log.contains(|c: char| c.is_control() && c != '\n'), "{log:?}");
        for line in log.lines() {
            assert!(!line.trim_start().starts_with('{') || format == "json", "{line}");
            if format == "json" {
                let line: Value =
                    serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"));
                assert_ne!(line["message"], "forged");
            }
        }
    }
}
