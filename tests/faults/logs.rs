//! Logs, metrics and error responses contain no secret, and a request cannot forge a log line.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::configs::{by_endpoint, by_jwt};
use crate::lifecycle::panicking_service;
use crate::sentinels::{
    API_KEY, CLIENT_SECRET, COOKIE_VALUE, QUERY_VALUE, SESSION_SECRET, UPSTREAM_SECRET,
};
use crate::service::{Service, Setup};
use crate::tokens::{HS256, claims, hs256, hs256_raw};
use crate::upstream::{Act, Upstream, ok};
use crate::wire::{bearer, post, post_raw, request};

/// Asserts that every line is a JSON object with a level and a timestamp.
fn all_json(log: &str) {
    for line in log.lines() {
        let line: Value =
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(
            line["level"].is_string() && line["timestamp"].is_string(),
            "{line}"
        );
    }
}

#[tokio::test]
async fn line_break_in_a_request_does_not_split_a_log_line() {
    let s = Service::start(by_jwt()).await;
    let evil = "x\r\n{\"level\":\"ERROR\",\"message\":\"forged\"}\nforged";
    for kid in [
        evil,
        "\u{2028}forged",
        "a\u{0}b",
        "\\n{}",
        "\"}\n{\"a\":\"b",
    ] {
        let token = hs256_raw(
            &json!({"alg": "none", "kid": kid}).to_string(),
            claims(&json!({"sub": kid})).to_string(),
            SESSION_SECRET.as_bytes(),
        );
        s.expect(kid, &post(&bearer(&token)), &["401 session_invalid"])
            .await;
        let good = hs256(&json!({"sub": "ann", "iss": kid}));
        s.expect(kid, &post(&bearer(&good)), &["401 session_invalid"])
            .await;
    }
    for name in [
        "User-Agent",
        "X-Request-Id",
        "Origin",
        "Cookie",
        "Referer",
        "traceparent",
    ] {
        for value in [
            &b"a\\r\\n{\"level\":\"ERROR\"}"[..],
            b"a\"}{\"b\":\"c",
            b"a\xc2\x85b",
            b"a\xe2\x80\xa8b",
            b"a\tb",
            b"%0d%0aforged",
        ] {
            let answer = s.one(&post_raw(name, value)).await;
            assert!(matches!(answer.status, 400 | 401 | 403), "{answer:?}");
            assert_ne!(
                answer.header("x-request-id").map(str::as_bytes),
                Some(value)
            );
        }
    }
    for path in [
        "/%0d%0aX-Evil:%20y",
        "/a%0aforged",
        "/%00",
        "/{\"level\":\"ERROR\"}",
        "/\"}",
    ] {
        s.expect_or_close(
            path,
            &request(&format!("GET {path} HTTP/1.1"), ""),
            &["404 not_found", "400 bad_request"],
        )
        .await;
    }
    let log = s.whole_log().await;
    all_json(&log);
    assert!(!log.lines().any(|line| line.starts_with("forged")));
    s.finish().await;
}

#[tokio::test]
async fn terminal_escape_sequence_is_escaped_in_the_log() {
    let escape = "\u{1b}[31m\u{1b}]0;owned\u{7}\u{9b}31m\u{202e}";
    let config = by_jwt().with("log = { level = 'info', subject = 'plain' }");
    for format in ["json", "pretty"] {
        let s = Service::start_with(&Setup::new(&config).log_format(format)).await;
        for (kid, sub) in [(escape, "ann"), ("k", escape)] {
            let header = json!({"alg": "HS256", "kid": kid}).to_string();
            let payload = claims(&json!({"sub": sub})).to_string();
            s.one(&post(&bearer(&hs256_raw(
                &header,
                payload,
                SESSION_SECRET.as_bytes(),
            ))))
            .await;
        }
        s.one(&post_raw("X-Request-Id", "a\u{9b}31m".as_bytes()))
            .await;
        let log = s.whole_log().await;
        assert!(
            !log.contains(['\u{1b}', '\u{7}', '\u{9b}']),
            "{}",
            log.escape_debug()
        );
        s.finish().await;
    }
    // Configuration problems at startup are escaped too, although they are plain text in every log format.
    let (_, text) = Setup::new(by_jwt().with("extractors.web.\"k\\u001b[31mx\" = 1"))
        .refusal()
        .await;
    assert!(!text.contains('\u{1b}'), "{}", text.escape_debug());
    let (_, text) = Setup::new(by_jwt().with("extractors.web.algorithms = [\"\\u001b[31m\"]"))
        .refusal()
        .await;
    assert!(!text.contains('\u{1b}'), "{}", text.escape_debug());
}

#[tokio::test]
async fn no_secret_is_logged_at_any_level() {
    let app = Upstream::start(ok("{\"sub\":\"ann\"}")).await;
    let config = by_endpoint(app.port).with(format!(
        "[extractors.app]\nforward_headers = ['Authorization']\nadditional_headers = {{ X-Api-Key = '{UPSTREAM_SECRET}' }}"
    ));
    let s = Service::start_with(&Setup::new(config).env(
        "RUST_LOG",
        "trace,hyper=trace,h2=trace,reqwest=trace,rustls=trace",
    ))
    .await;
    for headers in [
        format!("Cookie: sid={COOKIE_VALUE}\r\n"),
        format!("{}X-Api-Key: {API_KEY}\r\n", bearer(COOKIE_VALUE)),
        format!(
            "Cookie: sid=a; other={COOKIE_VALUE}\r\nX-Token: {API_KEY}\r\nReferer: https://x/?{QUERY_VALUE}\r\n"
        ),
    ] {
        s.one(&post(&headers)).await;
        s.one(&request(
            &format!("POST /rollout/token?token={QUERY_VALUE} HTTP/1.1"),
            &headers,
        ))
        .await;
        s.one(&request(
            &format!("GET /nothing?{QUERY_VALUE} HTTP/1.1"),
            &headers,
        ))
        .await;
    }
    app.does(Act::Close);
    s.one(&post(&format!("Cookie: sid={COOKIE_VALUE}-2\r\n")))
        .await;
    app.does(Act::SayAndClose(
        format!("HTTP/1.1 200 OK\r\nX: {UPSTREAM_SECRET}\r\nContent-Type: text/html\r\n\r\n{COOKIE_VALUE}")
            .into_bytes(),
    ));
    s.one(&post(&format!("Cookie: sid={COOKIE_VALUE}-3\r\n")))
        .await;
    // `check_invariants` searches the output for all secrets.
    s.check_invariants().await;
    all_json(&s.whole_log().await);
    s.finish().await;
}

#[tokio::test]
async fn check_config_print_redacts_secrets() {
    let config = by_jwt().with("session.extractors = ['web', 'idp']").with(format!(
        "[extractors.idp]\nkind = 'introspection'\nurl = 'https://id.example/x'\nclient_id = 'us'\nclient_secret = '{UPSTREAM_SECRET}'\nallow_any_client = true"
    ));
    let (code, text) = Setup::new(config)
        .arguments(&["check-config", "--print"])
        .refusal()
        .await;
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("[REDACTED]"), "{text}");
}

#[tokio::test]
async fn panic_is_logged_with_its_location_and_without_its_message() {
    let s = panicking_service().await;
    for how in ["at-once", "later", "in-a-task", "locked"] {
        s.one(&post(&format!("X-Panic: {how}\r\n"))).await;
    }
    // `check_invariants` searches the output for the secret that each panic message contains.
    s.check_invariants().await;
    let log = s.whole_log().await;
    let panics = log
        .lines()
        .filter(|line| line.contains("\"message\":\"panic\""));
    assert_eq!(
        panics
            .filter(|line| line.contains("panicking_service.rs:"))
            .count(),
        4,
        "{log}"
    );
    s.finish().await;
}

#[tokio::test]
async fn secret_of_the_wrong_type_or_under_another_key_is_not_printed() {
    let secret = SESSION_SECRET;
    for (label, toml) in [
        (
            "as a number",
            "extractors.web.secret = 1234567890123456789".to_owned(),
        ),
        ("as a list", format!("extractors.web.secret = ['{secret}']")),
        ("as a time", format!("extractors.web.leeway = '{secret}'")),
        (
            "as a flag",
            format!("extractors.web.allow_http = '{secret}'"),
        ),
        ("as a URL", format!("extractors.web.jwks_url = '{secret}'")),
        (
            "as an algorithm",
            format!("extractors.web.algorithms = ['{secret}']"),
        ),
        ("as an address", format!("server.listen = '{secret}'")),
        ("as a kind", format!("extractors.web.kind = '{secret}'")),
        (
            "as a subject",
            format!("extractors.web.subject = '{secret}'"),
        ),
    ] {
        let mut setup = Setup::new(by_jwt().with(toml));
        if label == "as an address" {
            setup = setup.env("ROLLOUT__SERVER__LISTEN", None);
        }
        let (code, text) = setup.refusal().await;
        assert_eq!(code, 2, "{label}: {text}");
    }
    let (code, text) = Setup::new(format!("secret = {secret}\n{}", by_jwt()))
        .refusal()
        .await;
    assert_eq!(code, 2, "in broken TOML: {text}");
    for (name, value) in [
        ("ROLLOUT_CLIENT_SECRET_FILE", CLIENT_SECRET),
        ("ROLLOUT__SERVER__IDLE_TIMEOUT", CLIENT_SECRET),
        ("ROLLOUT__LOG__LEVEL", API_KEY),
        ("ROLLOUT__RATE_LIMIT__BURST", API_KEY),
        ("ROLLOUT__ORIGINS__ALLOWED", API_KEY),
    ] {
        let (code, text) = Setup::new(by_jwt()).env(name, Some(value)).refusal().await;
        assert_eq!(code, 2, "{name}: {text}");
    }
}

#[tokio::test]
async fn error_answer_contains_no_library_names_file_names_or_addresses() {
    let s = Service::start(by_jwt()).await;
    let forbidden = [
        "hyper",
        "axum",
        "tokio",
        "serde",
        "jsonwebtoken",
        "reqwest",
        "rust",
        "src/",
        ".rs",
        "panicked",
        "127.0.0.1",
        "expected",
        "line 1",
        "column",
        "invalid type",
        "HS256",
        "issuer.example",
    ];
    for asked in [
        post(""),
        post(&bearer("x.y.z")),
        post(&bearer(&hs256(&json!({"iss": "https://evil.example"})))),
        post(&bearer(&hs256(&json!({"exp": "x"})))),
        post(&bearer(&hs256_raw(HS256, "{", SESSION_SECRET.as_bytes()))),
        request("GET /nothing HTTP/1.1", ""),
        request("GET /rollout/token HTTP/1.1", ""),
        request("BAD", ""),
        post("Content-Length: x\r\n"),
        post("Content-Length: 9999\r\n"),
        post("Origin: https://evil\r\n"),
        request(&format!("GET /{} HTTP/1.1", "a".repeat(5000)), ""),
        post(&format!("X: {}\r\n", "y".repeat(40_000))),
        b"\x16\x03\x01\r\n\r\n".to_vec(),
    ] {
        let answer = s.one(&asked).await;
        let text = format!("{answer:?}").replace("rollout", "").to_lowercase();
        for word in forbidden {
            assert!(!text.contains(word), "{word} in {answer:?}");
        }
        assert!(answer.status >= 400);
    }
    s.finish().await;
}

#[tokio::test]
async fn metric_labels_contain_no_text_from_requests() {
    let s = Service::start(by_jwt()).await;
    let mut tasks = JoinSet::new();
    for part in 0..10 {
        let s = s.clone();
        tasks.spawn(async move {
            for n in 0..1000 {
                let evil = format!("label-{part}-{n}");
                let asked = match n % 6 {
                    0 => request(&format!("GET /{evil} HTTP/1.1"), ""),
                    1 => request(&format!("M{part}X{n} /rollout/token HTTP/1.1"), ""),
                    2 => post(&format!("Origin: https://{evil}\r\n")),
                    3 => post(&bearer(&hs256(&json!({"iss": evil})))),
                    4 => post(&bearer(&hs256(&json!({"sub": evil})))),
                    _ => post(&format!(
                        "Host2: {evil}\r\n{evil}: x\r\nContent-Length: {evil}\r\n"
                    )),
                };
                s.one(&asked).await;
            }
        });
    }
    tasks.join_all().await;
    let metrics = s.metrics().await;
    assert!(
        !metrics.contains("label-") && metrics.lines().count() < 300,
        "{metrics}"
    );
    s.finish().await;
}

#[tokio::test]
async fn log_lines_for_one_refusal_reason_are_limited_to_100_per_second() {
    let s = Service::start(by_jwt().with("log.level = 'info'")).await;
    let started = Instant::now();
    let mut tasks = JoinSet::new();
    for _ in 0..8 {
        let s = s.clone();
        tasks.spawn(async move {
            while started.elapsed() < Duration::from_secs(4) {
                s.one(&post("")).await;
                s.one(&post("Content-Length: x\r\n")).await;
                s.one(&request("GET /x HTTP/1.1", "")).await;
            }
        });
    }
    tasks.join_all().await;
    let seconds = started.elapsed().as_secs() + 2;
    let log = s.whole_log().await;
    for reason in ["no_credential", "malformed_request", "not_found"] {
        let word = format!("\"reason\":\"{reason}\"");
        let lines = log.lines().filter(|line| line.contains(&word)).count() as u64;
        assert!(
            lines <= seconds * 101,
            "{reason}: {lines} lines in {seconds} s"
        );
    }
    let lines = log.lines().count() as u64;
    assert!(lines <= seconds * 303, "{lines} lines in {seconds} s");
    s.logs("log lines were left out", 1).await;
    s.finish().await;
}

#[tokio::test]
async fn baggage_is_neither_logged_nor_returned() {
    let s = Service::start(by_jwt()).await;
    let headers = format!(
        "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\ntracestate: a={COOKIE_VALUE}\r\nbaggage: user={COOKIE_VALUE},b={API_KEY}\r\n"
    );
    s.expect("refused", &post(&headers), &["401 no_session"])
        .await;
    let answer = s
        .expect(
            "issued",
            &post(&format!("{headers}{}", bearer(&hs256(&json!({}))))),
            &["200"],
        )
        .await;
    assert!(answer.header("baggage").is_none() && answer.header("tracestate").is_none());
    for odd in [
        "00-0-0-0",
        "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "x",
        "",
        "00-00000000000000000000000000000000-0000000000000000-00",
    ] {
        s.expect(
            odd,
            &post(&format!("traceparent: {odd}\r\n")),
            &["401 no_session"],
        )
        .await;
    }
    s.finish().await;
}
