//! Tests of the log lines of requests, of the limit on lines per second, and of a log that no process reads: the
//! service continues and counts the lost lines. `commands.rs` tests the lines of one accepted and one refused request.
//! Also tests the formats of the metrics.

use std::fs::File;
use std::io::{self, BufRead, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::Request;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rollout_token::{Registry, Sources};
use rustix::process::Signal;
use serde_json::{Value, json};
use tower::ServiceExt;
use tracing::instrument::WithSubscriber;

use crate::binary::{FAR, Process, binary, good_session};
use crate::helpers::{BY_HEADER, client_variables, sign_session};

/// The command of a service without a rate limit, which would refuse many of the requests, and without a drain delay.
fn without_rate_limit() -> Command {
    let mut command = binary(&["serve"]);
    command
        .env("ROLLOUT__RATE_LIMIT__PER_MINUTE", "0")
        .env("ROLLOUT__SERVER__DRAIN_DELAY", "0s");
    command
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("a connection");
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    stream
}

/// Sends this many pipelined token requests on one connection, and checks that each gets a token.
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
    stream
        .read_to_string(&mut answers)
        .expect("the service answers");
    writing.join().unwrap().expect("the service reads");
    assert_eq!(answers.matches("HTTP/1.1 200 OK\r\n").count(), times);
}

/// A loopback address with a free port, for tests that cannot read the service's address from its log.
fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
}

fn until_listening(address: SocketAddr) {
    while TcpStream::connect(address).is_err() {
        std::thread::yield_now();
    }
}

fn lost(admin: SocketAddr) -> usize {
    let mut stream = connect(admin);
    stream
        .write_all(b"GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        .unwrap();
    let mut metrics = String::new();
    stream.read_to_string(&mut metrics).unwrap();
    let line = metrics
        .lines()
        .find_map(|line| line.strip_prefix("rollout_token_log_lines_lost_total "));
    line.expect("the metric").parse().unwrap()
}

/// Waits until the metric reports at least this many lost lines, because the service writes its log after it has
/// responded.
fn wait_until_lost(admin: SocketAddr, count: usize) {
    for _ in 0..10_000 {
        if lost(admin) >= count {
            return;
        }
    }
    panic!("{} lines lost, not {count}", lost(admin));
}

#[test]
fn unread_log_delays_no_request_and_the_lost_lines_are_counted() {
    // More lines than fit into the pipe, the queue and one batch together.
    const TIMES: usize = 12_000;
    let (process, stdout) = Process::start_unread(&mut without_rate_limit());
    ask(process.address, TIMES);
    let missed = lost(process.admin);
    assert!(missed > 0);

    // The test reads the log again: first come the queued lines, then, within a second, the number of lost lines.
    let mut lines = stdout.lines().map(|line| line.expect("text"));
    let told = |line: &String| line.contains("log lines were lost");
    let kept = lines
        .by_ref()
        .take_while(|line| !told(line))
        .filter(|line| line.contains("token.issued"));
    let total = kept.count() + missed;
    // A report of lost lines that is itself lost also counts as a lost line.
    assert!((TIMES..TIMES + 20).contains(&total), "{total}");
    ask(process.address, 1);
    assert!(lines.next().expect("a line").contains("token.issued"));
}

#[test]
fn service_answers_after_its_log_pipe_is_closed() {
    let (process, stdout) = Process::start_unread(&mut without_rate_limit());
    drop(stdout);
    ask(process.address, 100);
    wait_until_lost(process.admin, 100);
    process.signal(Signal::TERM);
    assert_eq!(process.end().0, Some(0));
}

#[test]
fn service_answers_while_the_log_disk_is_full() {
    let (address, admin) = (free(), free());
    let full = File::options().write(true).open("/dev/full").unwrap();
    let process = Process::start_silent(
        without_rate_limit()
            .env("ROLLOUT__SERVER__LISTEN", address.to_string())
            .env("ROLLOUT__SERVER__ADMIN_LISTEN", admin.to_string())
            .stdout(full),
    );
    until_listening(admin);
    ask(address, 100);
    wait_until_lost(admin, 100);
    process.signal(Signal::TERM);
    assert_eq!(process.end().0, Some(0));
}

#[test]
fn unread_log_does_not_delay_the_exit() {
    // 1,000 lines fit into the queue; 12,000 do not.
    for times in [1_000, 12_000] {
        let (process, stdout) = Process::start_unread(&mut without_rate_limit());
        ask(process.address, times);
        process.signal(Signal::TERM);
        assert_eq!(process.end().0, Some(0));
        drop(stdout);
    }
}

#[test]
fn last_log_lines_are_written_when_a_second_signal_ends_the_process() {
    const TIMES: usize = 500;
    let (process, mut stdout) = Process::start_unread(&mut without_rate_limit());
    // An incomplete request keeps the process running after the first signal.
    let mut unfinished = connect(process.address);
    unfinished
        .write_all(b"POST /rollout/token HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n")
        .unwrap();
    ask(process.address, TIMES);
    process.signal(Signal::TERM);
    let mut log = String::new();
    while !log.contains("draining") {
        stdout.read_line(&mut log).unwrap();
    }
    process.signal(Signal::TERM);
    stdout.read_to_string(&mut log).unwrap();
    assert_eq!(process.end().0, Some(1));
    assert_eq!(log.matches("token.issued").count(), TIMES);
    assert!(log.contains("stopped by a second signal"));
}

/// Sends `head`, followed by `Connection: close`. Returns everything that the service sends.
fn send(address: SocketAddr, head: &str) -> String {
    let mut stream = connect(address);
    stream
        .write_all(format!("{head}Connection: close\r\n\r\n").as_bytes())
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn json(line: &str) -> Value {
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"))
}

#[test]
fn startup_log_line_has_version_extractors_addresses_and_fingerprint() {
    let output = tempfile::NamedTempFile::new().unwrap();
    let admin = free();
    let process = Process::start_silent(
        without_rate_limit()
            .env("ROLLOUT__SERVER__ADMIN_LISTEN", admin.to_string())
            .stdout(output.reopen().unwrap()),
    );
    until_listening(admin);
    let ready = send(admin, "GET /readyz HTTP/1.1\r\nHost: a\r\n");
    process.signal(Signal::TERM);
    assert_eq!(process.end().0, Some(0));
    let log = std::fs::read_to_string(output.path()).unwrap();
    let line = json(log.lines().find(|line| line.contains("listening")).unwrap());
    assert_eq!(line["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(
        (&line["extractors"], &line["admin_address"]),
        (&json!("cookie,bearer"), &json!(admin.to_string()))
    );
    assert!(
        ready.contains(line["secret_fingerprint"].as_str().unwrap()),
        "{ready}"
    );
    assert!(
        line["address"].is_string() && line["dev"] == false,
        "{line}"
    );
}

/// Sends a request with this header, and checks that it is refused with 401 and this reason. Returns the cause in its
/// log line.
fn cause(process: &mut Process, id: &str, header: &str, reason: &str) -> String {
    let head =
        format!("POST /rollout/token HTTP/1.1\r\nHost: a\r\nX-Request-Id: {id}\r\n{header}\r\n");
    assert!(
        send(process.address, &head).starts_with("HTTP/1.1 401"),
        "{id}"
    );
    let line = json(&process.line_with(&format!("\"{id}\"")));
    assert_eq!(line["reason"], reason, "{line}");
    line["cause"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn cause_of_a_refusal_contains_the_values_that_explain_it() {
    let mut command = without_rate_limit();
    command.env("ROLLOUT__EXTRACTORS__BEARER__SUBJECT", "{user.id}");
    let mut process = Process::start(&mut command);
    let bearer = |claims: &Value| format!("Authorization: Bearer {}\r\n", sign_session(claims));

    let expired = bearer(&json!({"user": {"id": "u"}, "exp": 1_700_000_000}));
    let found = cause(&mut process, "expired", &expired, "expired");
    assert!(
        found.starts_with("expired at 2023-11-14T22:13:20Z, ") && found.ends_with(" ago"),
        "{found}"
    );

    let early = bearer(&json!({"user": {"id": "u"}, "exp": FAR, "nbf": FAR - 9}));
    let found = cause(&mut process, "early", &early, "not_yet_valid");
    assert!(
        found.starts_with("nbf is ")
            && found.ends_with("s ahead of the service's clock, and the leeway is 30s"),
        "{found}"
    );

    let token = sign_session(&json!({"user": {"id": "u"}, "exp": FAR}));
    let (signed, _) = token.rsplit_once('.').unwrap();
    let forged = format!("Authorization: Bearer {signed}.{}\r\n", "A".repeat(43));
    assert_eq!(
        cause(&mut process, "forged", &forged, "bad_signature"),
        "the token has alg HS256 and no kid; the keys that were tried are from the section's secret"
    );

    let guest = bearer(&json!({"userId": "ann@example.com", "exp": FAR}));
    assert_eq!(
        cause(&mut process, "guest", &guest, "no_subject"),
        "no value at {user.id}; candidates: {userId}"
    );
    let nothing = bearer(&json!({"user": {"id": 0}, "exp": FAR}));
    assert_eq!(
        cause(&mut process, "nothing", &nothing, "no_subject"),
        "no value at {user.id}"
    );

    let many: String = (0..99).map(|n| format!("X-{n}: y\r\n")).collect();
    let head = format!("POST /rollout/token HTTP/1.1\r\nHost: a\r\n{many}");
    assert!(send(process.address, &head).starts_with("HTTP/1.1 431"));
    let line = json(&process.line_with("headers_too_large"));
    assert_eq!(
        line["cause"],
        "The request has 101 headers, and server.max_headers is 100."
    );
}

#[test]
fn wrong_secret_is_logged_with_its_configuration_key_and_unsigned_id_with_the_expected_form() {
    let mut command = without_rate_limit();
    command
        .env("ROLLOUT__SESSION__EXTRACTORS", "store,flask,cookie,bearer")
        .env("ROLLOUT__EXTRACTORS__STORE__KIND", "redis_session")
        .env("ROLLOUT__EXTRACTORS__STORE__PRESET", "connect-redis")
        .env("ROLLOUT__EXTRACTORS__STORE__URL", "redis://127.0.0.1:1")
        .env(
            "ROLLOUT__EXTRACTORS__STORE__COOKIE_SECRETS",
            "s3cr3t of 24 bytes, or so",
        )
        .env(
            "ROLLOUT__EXTRACTORS__FLASK__SECRET_KEY",
            "s3cr3t of 24 bytes or more",
        );
    let mut process = Process::start(&mut command);
    for (id, cookie, reason, want) in [
        (
            "unsigned",
            "connect.sid=abc",
            "malformed",
            "expected s:ID.SIGNATURE, as express-session writes it",
        ),
        (
            "no-signature",
            "connect.sid=s%3Aabc",
            "malformed",
            "expected s:ID.SIGNATURE, as express-session writes it",
        ),
        (
            "other",
            "connect.sid=s%3Aabc.AAAA",
            "bad_signature",
            "the app's secret differs from cookie_secrets, or the credential was changed",
        ),
        (
            "flask",
            "session=e30.aaaa.AAAA",
            "bad_signature",
            "the app's secret differs from secret_key, or the credential was changed",
        ),
    ] {
        let header = format!("Cookie: {cookie}\r\n");
        assert_eq!(cause(&mut process, id, &header, reason), want);
    }
}

#[test]
fn refused_token_is_logged_with_the_failed_check_and_the_expected_value() {
    let mut command = without_rate_limit();
    command
        .env("ROLLOUT__EXTRACTORS__BEARER__ALLOW_ANY_AUDIENCE", "false")
        .env("ROLLOUT__EXTRACTORS__BEARER__AUDIENCES", "app")
        .env("ROLLOUT__EXTRACTORS__BEARER__CLAIMS__PLAN", "pro");
    let mut process = Process::start(&mut command);
    for (id, claims, reason, cause) in [
        (
            "audience",
            json!({"sub": "user-1", "exp": FAR, "aud": ["x", "y"]}),
            "audience",
            "aud is x, y, but audiences allows only app",
        ),
        (
            "claim",
            json!({"sub": "user-1", "exp": FAR, "aud": "app", "plan": "ann@example.com"}),
            "claim",
            "plan has a value that does not satisfy the rule; its rule requires: pro",
        ),
        (
            "bound",
            json!({"sub": "user-1", "exp": FAR, "aud": "app", "cnf": {"jkt": "x"}}),
            "sender_constrained",
            "the token is bound to a key that its sender holds (cnf), and allow_sender_constrained is false",
        ),
    ] {
        let head = format!(
            "POST /rollout/token HTTP/1.1\r\nHost: a\r\nX-Request-Id: {id}\r\nAuthorization: Bearer {}\r\n",
            sign_session(&claims)
        );
        assert!(
            send(process.address, &head).starts_with("HTTP/1.1 401"),
            "{id}"
        );
        let line = json(&process.line_with(&format!("\"{id}\"")));
        assert_eq!(
            (&line["reason"], &line["cause"]),
            (&json!(reason), &json!(cause))
        );
    }
}

#[test]
fn flood_of_refusals_with_one_reason_is_suppressed_and_counted_and_other_refusals_are_logged() {
    let mut process = Process::start(&mut without_rate_limit());
    // The requests are pipelined on one connection.
    let flood = "GET /nothing HTTP/1.1\r\nHost: a\r\n\r\n".repeat(299);
    let answers = send(
        process.address,
        &format!("{flood}GET /nothing HTTP/1.1\r\nHost: a\r\n"),
    );
    assert_eq!(answers.matches("HTTP/1.1 404").count(), 300);
    let refused = "POST /rollout/token HTTP/1.1\r\nHost: a\r\nX-Request-Id: real\r\n";
    assert!(send(process.address, refused).starts_with("HTTP/1.1 401"));
    let line = json(&process.line_with("\"real\""));
    assert_eq!(
        (&line["message"], &line["reason"]),
        (&json!("token.refused"), &json!("no_credential"))
    );
    // The number of suppressed lines is reported although no further request is refused for this reason.
    let line = json(&process.line_with("suppressed"));
    assert_eq!(
        (&line["level"], &line["reason"]),
        (&json!("WARN"), &json!("not_found"))
    );
    let suppressed = line["suppressed"].as_u64().unwrap();
    assert!((1..=200).contains(&suppressed), "{suppressed}");
}

#[test]
fn each_cause_of_403_is_logged_with_a_separate_reason_and_with_origin_and_host() {
    let mut command = without_rate_limit();
    command
        .env("ROLLOUT__SERVER__DOCS_ALIAS", "true")
        .env("ROLLOUT__ORIGINS__ALLOWED", "https://app.example");
    let mut process = Process::start(&mut command);
    let address = process.address;
    let mut logged = |line: &str, headers: &str| {
        send(
            address,
            &format!(
                "{line} HTTP/1.1\r\nHost: tokens.example\r\nX-Request-Id: this-one\r\n{headers}"
            ),
        );
        json(&process.line_with("this-one"))
    };
    let post = "POST /rollout/token";
    for (line, headers, code, reason) in [
        (
            post,
            "Origin: https://other.example\r\nSec-Fetch-Site: cross-site\r\n",
            "origin_not_allowed",
            "origin_not_listed",
        ),
        (
            post,
            "Origin: http://tokens.example:8080\r\n",
            "origin_not_allowed",
            "origin_is_not_host",
        ),
        (
            post,
            "Origin: null\r\n",
            "origin_not_allowed",
            "null_origin",
        ),
        (
            post,
            "Origin: https://a.example\r\nOrigin: https://b.example\r\n",
            "origin_not_allowed",
            "two_origins",
        ),
        (
            post,
            "Sec-Fetch-Site: cross-site\r\n",
            "origin_not_allowed",
            "cross_site",
        ),
        (
            post,
            "Sec-Fetch-Site: same-site\r\n",
            "origin_not_allowed",
            "same_site",
        ),
        (
            post,
            "Sec-Fetch-Site: x\r\n",
            "origin_not_allowed",
            "sec_fetch_site",
        ),
        (
            "GET /rollout/token",
            "Cookie: a=b\r\n",
            "origin_not_allowed",
            "get_without_origin",
        ),
        (
            "OPTIONS /rollout/token",
            "Origin: https://other.example\r\nSec-Fetch-Site: cross-site\r\n",
            "origin_not_allowed",
            "origin_not_listed",
        ),
        (
            post,
            "Sec-Fetch-Mode: navigate\r\n",
            "not_a_fetch",
            "navigation",
        ),
        (post, "Sec-Fetch-Dest: image\r\n", "not_a_fetch", "embedded"),
    ] {
        let line = logged(line, headers);
        assert_eq!(
            (&line["message"], &line["code"], &line["reason"]),
            (&json!("token.refused"), &json!(code), &json!(reason)),
            "{headers}"
        );
        assert_eq!(line["host"], "tokens.example", "{headers}");
        let origin = headers
            .split_once("Origin: ")
            .map(|(_, rest)| rest.split('\r').next().unwrap());
        assert_eq!(line["origin"].as_str(), origin, "{headers}");
    }
    // After these preflights, the browser does not send the actual request.
    for (asked, reason) in [
        (
            "Access-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: x-tenant\r\n",
            "preflight_header",
        ),
        (
            "Access-Control-Request-Method: DELETE\r\n",
            "preflight_method",
        ),
    ] {
        let line = logged(
            "OPTIONS /rollout/token",
            &format!("Origin: https://app.example\r\n{asked}"),
        );
        assert_eq!(
            (&line["message"], &line["reason"], &line["origin"]),
            (
                &json!("preflight.refused"),
                &json!(reason),
                &json!("https://app.example")
            )
        );
        assert!(asked.contains(line["asked"].as_str().unwrap()), "{line}");
    }
}

#[test]
fn refusal_before_any_extractor_runs_is_logged_with_method_path_host_and_origin() {
    let mut process = Process::start(&mut without_rate_limit());
    let mut logged = |head: &str| {
        send(
            process.address,
            &format!("{head}X-Request-Id: this-one\r\n"),
        );
        json(&process.line_with("this-one"))
    };
    let line = logged(
        "POST /rollout/token?key=SENTINEL HTTP/1.1\r\nHost: app.example\r\nOrigin: https://other.example\r\n",
    );
    assert_eq!(
        (&line["message"], &line["code"]),
        (&json!("token.refused"), &json!("origin_not_allowed"))
    );
    assert_eq!(
        (&line["method"], &line["path"]),
        (&json!("POST"), &json!("/rollout/token"))
    );
    assert_eq!(
        (&line["host"], &line["origin"]),
        (&json!("app.example"), &json!("https://other.example"))
    );
    assert!(!line.to_string().contains("SENTINEL"));

    let line = logged(&format!(
        "GET /{} HTTP/1.1\r\nHost: a\r\n",
        "x".repeat(1000)
    ));
    assert_eq!(
        (&line["message"], &line["code"]),
        (&json!("request.refused"), &json!("not_found"))
    );
    assert_eq!(
        (line["path"].as_str().map(str::len), line.get("hint")),
        (Some(256), None)
    );

    let line = logged("POST /token HTTP/1.1\r\nHost: a\r\n");
    assert_eq!(
        (&line["message"], &line["reason"]),
        (&json!("request.refused"), &json!("not_found"))
    );
    assert!(
        line["hint"].as_str().unwrap().contains("remove `/rollout`"),
        "{line}"
    );

    for (path, reason, hint) in [
        ("/api/rollout/token", "path_prefix", "server.base_path"),
        ("/api/rollout/client.js", "path_prefix", "server.base_path"),
        ("/rollout-token", "docs_alias_off", "server.docs_alias"),
        ("/rollout/token/", "trailing_slash", "without the slash"),
        ("/metrics", "other_listener", "server.admin_listen"),
    ] {
        let line = logged(&format!("GET {path} HTTP/1.1\r\nHost: a\r\n"));
        assert_eq!(
            (&line["code"], &line["reason"]),
            (&json!("not_found"), &json!(reason)),
            "{line}"
        );
        assert!(line["hint"].as_str().unwrap().contains(hint), "{line}");
    }

    // The log line of a refusal by an extractor has no path.
    let line = logged("POST /rollout/token HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer a.b.c\r\n");
    assert_eq!(
        (&line["message"], &line["extractor"]),
        (&json!("token.refused"), &json!("bearer"))
    );
    assert_eq!((line.get("path"), line.get("host")), (None, None));

    send(
        process.admin,
        "POST /rollout/token HTTP/1.1\r\nHost: a\r\nX-Request-Id: to-admin\r\n",
    );
    let line = json(&process.line_with("to-admin"));
    assert_eq!(line["reason"], json!("other_listener"), "{line}");
}

/// At level `warn`, the span of a request still exists, so a warning inherits the fields of the span.
#[test]
fn log_line_of_a_failed_key_fetch_has_the_request_id_and_the_extractor() {
    let (address, output) = (free(), tempfile::NamedTempFile::new().unwrap());
    let mut command = without_rate_limit();
    command
        .env("ROLLOUT__LOG__LEVEL", "warn")
        .env("ROLLOUT__SERVER__LISTEN", address.to_string())
        .env("ROLLOUT__SESSION__EXTRACTORS", "cookie,bearer,keys")
        .env("ROLLOUT__EXTRACTORS__KEYS__KIND", "jwt")
        .env("ROLLOUT__EXTRACTORS__KEYS__FROM", "header:x-assertion")
        .env("ROLLOUT__EXTRACTORS__KEYS__ISSUERS", "https://idp.example")
        .env("ROLLOUT__EXTRACTORS__KEYS__ALLOW_ANY_AUDIENCE", "true")
        .env(
            "ROLLOUT__EXTRACTORS__KEYS__JWKS_URL",
            format!("http://{}/{{kid}}", free()),
        )
        .stdout(output.reopen().unwrap());
    let process = Process::start_silent(&mut command);
    until_listening(address);
    let part = |json: &str| URL_SAFE_NO_PAD.encode(json);
    let header = part(r#"{"alg":"RS256","kid":"one"}"#);
    let payload = part(r#"{"sub":"ann","iss":"https://idp.example","exp":4000000000}"#);
    let head = "POST /rollout/token HTTP/1.1\r\nHost: a\r\nX-Request-Id: this-one\r\n";
    let answer = send(
        address,
        &format!("{head}X-Assertion: {header}.{payload}.AAAA\r\n"),
    );
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    process.signal(Signal::TERM);
    assert_eq!(process.end().0, Some(0));
    let log = std::fs::read_to_string(output.path()).unwrap();
    let lines: Vec<Value> = log
        .lines()
        .map(json)
        .filter(|line| line["request_id"] == "this-one")
        .collect();
    let messages: Vec<&str> = lines
        .iter()
        .map(|line| line["message"].as_str().unwrap())
        .collect();
    assert_eq!(
        messages,
        [
            "calls to the backend fail; this warning is logged at most once a minute",
            "token.refused"
        ],
        "{log}"
    );
    assert!(
        lines
            .iter()
            .all(|line| line["extractor"] == "keys" && line["level"] == "WARN"),
        "{log}"
    );
}

/// Line breaks and terminal escapes in a request are escaped in the log, so each event stays one line.
#[test]
fn request_text_cannot_forge_a_log_line() {
    let forged = "x\r\n{\"level\":\"ERROR\",\"message\":\"forged\"}\u{1b}[31m\u{9b}2J";
    let escaped = serde_json::to_string(forged).unwrap();
    let encoded = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let header = encoded(&format!(
        r#"{{"alg":"HS256","kid":{escaped},"typ":{escaped}}}"#
    ));
    let payload = encoded(&format!(
        r#"{{"sub":{escaped},"iss":{escaped},"exp":4000000000}}"#
    ));
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
            without_rate_limit()
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
        process.signal(Signal::TERM);
        assert_eq!(process.end().0, Some(0));
        let log = std::fs::read_to_string(output.path()).unwrap();
        assert!(
            log.contains("token.issued") && log.contains("token.refused"),
            "{log}"
        );
        assert!(
            !log.contains(|c: char| c.is_control() && c != '\n'),
            "{log:?}"
        );
        for line in log.lines() {
            assert!(
                !line.trim_start().starts_with('{') || format == "json",
                "{line}"
            );
            if format == "json" {
                let line: Value =
                    serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"));
                assert_ne!(line["message"], "forged");
            }
        }
    }
}

/// Sends one POST with this header line, and waits for the response.
fn post(address: SocketAddr, path: &str, header: &str) {
    let mut stream = connect(address);
    let head = format!("POST {path} HTTP/1.1\r\nHost: a\r\n{header}\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    stream.read_to_string(&mut String::new()).unwrap();
}

/// The field names are documented at <https://cloud.google.com/logging/docs/structured-logging>.
#[test]
fn format_gcp_has_the_field_names_of_google_cloud() {
    let mut command = without_rate_limit();
    command
        .env("ROLLOUT__LOG__FORMAT", "gcp")
        .env("GOOGLE_CLOUD_PROJECT", "my-project");
    let mut process = Process::start(&mut command);
    let trace = "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let bearer = format!("Authorization: Bearer {}\r\n{trace}", good_session());
    for (path, header, message, status, severity) in [
        (
            "/rollout/token?secret=1",
            &bearer[..],
            "token.issued",
            200,
            "INFO",
        ),
        (
            "/rollout/token?secret=1",
            trace,
            "token.refused",
            401,
            "INFO",
        ),
        (
            "/api/rollout/token?secret=1",
            trace,
            "request.refused",
            404,
            "INFO",
        ),
    ] {
        post(process.address, path, header);
        let line: Value = serde_json::from_str(&process.line_with(message)).unwrap();
        assert_eq!(
            (&line["message"], &line["severity"]),
            (&json!(message), &json!(severity))
        );
        let time = line["time"].as_str().unwrap();
        assert!(time.ends_with('Z') && time.contains('T'), "{line}");
        let request = &line["httpRequest"];
        assert_eq!(request["requestMethod"], "POST", "{line}");
        assert_eq!(
            request["requestUrl"],
            path.split('?').next().unwrap(),
            "{line}"
        );
        assert_eq!(request["status"], status, "{line}");
        let latency = request["latency"]
            .as_str()
            .unwrap()
            .strip_suffix('s')
            .unwrap();
        assert!(
            latency.parse::<f64>().is_ok_and(|seconds| seconds < 60.0),
            "{line}"
        );
        assert_eq!(
            line["logging.googleapis.com/trace"],
            "projects/my-project/traces/4bf92f3577b34da6a3ce929d0e0e4736",
            "{line}"
        );
        for absent in ["level", "timestamp", "trace_id", "http.status"] {
            assert!(line.get(absent).is_none(), "{line}");
        }
        assert!(!line.to_string().contains("secret=1"), "{line}");
    }
}

#[test]
fn metrics_are_in_the_text_format_unless_the_caller_accepts_open_metrics() {
    let process = Process::start(&mut without_rate_limit());
    ask(process.address, 1);
    for (accept, content_type, counter, end) in [
        (
            "*/*",
            "text/plain; version=0.0.4; charset=utf-8",
            "# TYPE rollout_token_requests_total counter\n",
            false,
        ),
        (
            "application/openmetrics-text;version=1.0.0,text/plain;q=0.5",
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
            "# TYPE rollout_token_requests counter\n",
            true,
        ),
    ] {
        let mut stream = connect(process.admin);
        let head = format!(
            "GET /metrics HTTP/1.1\r\nHost: a\r\nAccept: {accept}\r\nConnection: close\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(
            answer.contains(&format!("content-type: {content_type}\r\n")),
            "{answer}"
        );
        assert!(answer.contains(counter), "{answer}");
        assert_eq!(answer.contains("# EOF"), end, "{answer}");
        let sample = "rollout_token_requests_total{extractor=\"bearer\",outcome=\"issued\"} 1\n";
        assert!(answer.contains(sample), "{answer}");
        assert!(
            answer.contains("rollout_token_build_info{version="),
            "{answer}"
        );
    }
}

/// A writer whose lines the test reads.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn only_matched_token_routes_are_token_requests_in_a_merged_or_nested_router() {
    let sources = Sources {
        environment: client_variables(),
        base: Some(BY_HEADER.to_owned()),
        ..Sources::default()
    };
    let rollout = || rollout_token::router(&sources, &Registry::builtin(), Arc::default()).unwrap();
    let apps = [
        ("", Router::new().merge(rollout())),
        ("/api", Router::new().nest("/api", rollout())),
        ("/api", Router::new().nest_service("/api", rollout())),
    ];
    for (prefix, app) in apps {
        for (path, status, is_token_request) in [
            ("/rollout/token", 401, true),
            ("/rollout/client.js", 405, false),
            ("/rollout/tokens", 404, false),
            ("/other/rollout/token", 404, false),
        ] {
            let lines = Lines::default();
            let writer = lines.clone();
            let subscriber = tracing_subscriber::fmt()
                .with_ansi(false)
                .with_writer(move || writer.clone())
                .finish();
            let request = Request::post(format!("{prefix}{path}")).header("host", "a");
            let request = request.body(Body::empty()).unwrap();
            let answer = app.clone().oneshot(request);
            let response = answer.with_subscriber(subscriber).await.unwrap();
            assert_eq!(response.status(), status, "{prefix}{path}");
            let written = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
            for sign in ["token.refused", "http.route=\"/rollout/token\""] {
                let found = written.contains(sign);
                assert_eq!(found, is_token_request, "{prefix}{path}: {written}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn log_level_and_format_are_ignored_in_an_embedding_app_but_log_subject_applies() {
    let mut sources = Sources {
        environment: client_variables(),
        ..Sources::default()
    };
    for (name, value) in [
        ("LOG__LEVEL", "error"),
        ("LOG__FORMAT", "gcp"),
        ("LOG__SUBJECT", "plain"),
    ] {
        let name = format!("ROLLOUT__{name}");
        sources.environment.insert(name, value.to_owned());
    }
    sources.base = Some(BY_HEADER.to_owned());
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false);
    let subscriber = subscriber.with_writer(move || writer.clone()).finish();
    let _subscriber = tracing::subscriber::set_default(subscriber);

    let router = rollout_token::router(&sources, &Registry::builtin(), Arc::default()).unwrap();
    let request = Request::post("/rollout/token")
        .header("host", "a")
        .header("x-user", "ann")
        .extension(ConnectInfo(SocketAddr::from(([127, 0, 0, 1], 50_000))));
    let request = request.body(Body::empty()).unwrap();
    let response = router.oneshot(request).await.unwrap();
    assert_eq!(response.status(), 200);
    drop(response);

    let written = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    let issued = written.lines().find(|line| line.contains("token.issued"));
    let issued = issued.unwrap_or_else(|| panic!("no line with token.issued: {written}"));
    assert!(issued.contains("subject=\"ann\""), "{issued}");
    assert!(!issued.contains("http.status"), "{issued}");

    // The router has been dropped, so the task that reports suppressed lines every second must end.
    let tasks = tokio::runtime::Handle::current().metrics();
    assert_eq!(tasks.num_alive_tasks(), 1);
    tokio::time::advance(Duration::from_secs(2)).await;
    tokio::task::yield_now().await;
    assert_eq!(tasks.num_alive_tasks(), 0);
}
