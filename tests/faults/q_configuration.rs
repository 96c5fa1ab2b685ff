//! Groups N and Q: what must not be seen, and configurations that must not start.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::Group;
use crate::a_framing::BY_JWT;
use crate::c_tokens::refuses;
use crate::report::{
    API_KEY, CLIENT_SECRET, COOKIE_VALUE, QUERY_VALUE, SESSION_SECRET, UPSTREAM_SECRET, no_sentinel,
};
use crate::service::{Service, Setup};
use crate::tokens::{HS256, claims, hs256, hs256_raw};
use crate::wire::{bearer, post, post_raw, request};

pub async fn group() -> Group {
    let s = Service::start(BY_JWT).await;
    let other = Service::start(BY_JWT).await;
    let mut group = Group::new("N", Some(s.clone()));
    group.quick("N1 lines inside of lines", n1(s.clone()));
    group.quick("N2 sequences for terminals", n2());
    group.quick("N3 every level of every library", n3());
    group.quick("N4 the configuration, printed", n4());
    group.quick("N5 a panic with a secret in its hands", n5());
    group.quick("N6 a secret that is a bad value", n6());
    group.quick("N9 what an answer gives away", n9(other));
    group.quick("N10 metrics after ten thousand hostile requests", n10(s.clone()));
    group.waiting("N14 a flood of refusals", 6, n14());
    group.quick("N15 baggage", n15(s.clone()));
    group.quick("Q1 keys that are unknown, twice or of another type", q1());
    group.quick("Q2 nobody to ask", q2());
    group.quick("Q3 plain http to elsewhere", q3());
    group.quick("Q4 URLs that must not be called", q4());
    group.quick("Q5 times that are none", q5());
    group.quick("Q8 nobody issued it, and for nobody", q8());
    group.quick("Q10 check-config on each of them", q10());
    group
}

/// Every line is one event.
fn all_json(log: &str) {
    for line in log.lines() {
        let line: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(line["level"].is_string() && line["timestamp"].is_string(), "{line}");
    }
}

async fn n1(s: Arc<Service>) {
    let evil = "x\r\n{\"level\":\"ERROR\",\"message\":\"forged\"}\nforged";
    for kid in [evil, "\u{2028}forged", "a\u{0}b", "\\n{}", "\"}\n{\"a\":\"b"] {
        let token = hs256_raw(
            &json!({"alg": "none", "kid": kid}).to_string(),
            claims(&json!({"sub": kid})).to_string(),
            SESSION_SECRET.as_bytes(),
        );
        s.expect(kid, &post(&bearer(&token)), &["401 session_invalid"]).await;
        let good = hs256(&json!({"sub": "ann", "iss": kid}));
        s.expect(kid, &post(&bearer(&good)), &["401 session_invalid"]).await;
    }
    for name in ["User-Agent", "X-Request-Id", "Origin", "Cookie", "Referer", "traceparent"] {
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
            assert_ne!(answer.header("x-request-id").map(str::as_bytes), Some(value));
        }
    }
    for path in ["/%0d%0aX-Evil:%20y", "/a%0aforged", "/%00", "/{\"level\":\"ERROR\"}", "/\"}"] {
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
}

async fn n2() {
    let escape = "\u{1b}[31m\u{1b}]0;owned\u{7}\u{9b}31m\u{202e}";
    let toml = format!("{}\n[log]\nsubject = \"plain\"\n", BY_JWT.replace("log.level = \"trace\"", ""));
    for format in ["json", "pretty"] {
        let s = Service::start_with(&Setup::new(&toml).log_format(format)).await;
        for (kid, sub) in [(escape, "ann"), ("k", escape)] {
            let header = json!({"alg": "HS256", "kid": kid}).to_string();
            let payload = claims(&json!({"sub": sub})).to_string();
            s.one(&post(&bearer(&hs256_raw(&header, payload, SESSION_SECRET.as_bytes())))).await;
        }
        s.one(&post_raw("X-Request-Id", "a\u{9b}31m".as_bytes())).await;
        let log = s.whole_log().await;
        assert!(!log.contains(['\u{1b}', '\u{7}', '\u{9b}']), "{}", log.escape_debug());
        s.holds().await;
        s.stop().await;
    }
    // Start-up problems are text in any case.
    let (_, text) = Setup::new(&BY_JWT.replace("kind =", "\"k\\u001b[31mx\" = 1\nkind =")).refusal().await;
    assert!(!text.contains('\u{1b}'), "{}", text.escape_debug());
    let (_, text) = Setup::new(&BY_JWT.replace("\"HS256\"", "\"\\u001b[31m\"")).refusal().await;
    assert!(!text.contains('\u{1b}'), "{}", text.escape_debug());
}

async fn n3() {
    let app = crate::upstream::Upstream::start(crate::upstream::ok("{\"sub\":\"ann\"}")).await;
    let toml = format!(
        "log.level = \"trace\"\n[session]\nextractors = [\"app\"]\n[extractors.app]\nkind = \"session_endpoint\"\nurl = \"http://127.0.0.1:{}/me\"\n\
         cookies = [\"sid\"]\nforward_headers = [\"Authorization\"]\nadditional_headers = {{ X-Api-Key = \"{UPSTREAM_SECRET}\" }}\n",
        app.port
    );
    let s = Service::start_with(
        &Setup::new(&toml).env("RUST_LOG", "trace,hyper=trace,h2=trace,reqwest=trace,rustls=trace"),
    )
    .await;
    for headers in [
        format!("Cookie: sid={COOKIE_VALUE}\r\n"),
        format!("{}X-Api-Key: {API_KEY}\r\n", bearer(COOKIE_VALUE)),
        format!(
            "Cookie: sid=a; other={COOKIE_VALUE}\r\nX-Token: {API_KEY}\r\nReferer: https://x/?{QUERY_VALUE}\r\n"
        ),
    ] {
        s.one(&post(&headers)).await;
        s.one(&request(&format!("POST /rollout/token?token={QUERY_VALUE} HTTP/1.1"), &headers)).await;
        s.one(&request(&format!("GET /{QUERY_VALUE} HTTP/1.1"), &headers)).await;
    }
    app.does(crate::upstream::Act::Close);
    s.one(&post(&format!("Cookie: sid={COOKIE_VALUE}-2\r\n"))).await;
    app.does(crate::upstream::Act::SayAndClose(
        format!("HTTP/1.1 200 OK\r\nX: {UPSTREAM_SECRET}\r\nContent-Type: text/html\r\n\r\n{COOKIE_VALUE}")
            .into_bytes(),
    ));
    s.one(&post(&format!("Cookie: sid={COOKIE_VALUE}-3\r\n"))).await;
    // `holds` looks for all of it in what was written.
    s.holds().await;
    all_json(&s.whole_log().await);
    s.stop().await;
}

async fn n4() {
    let toml = format!("{BY_JWT}\n").replace("[\"web\"]", "[\"web\", \"idp\"]")
        + &format!(
            "[extractors.idp]\nkind = \"introspection\"\nurl = \"https://id.example/x\"\nclient_id = \"us\"\nclient_secret = \"{UPSTREAM_SECRET}\"\nallow_any_client = true\n"
        );
    let (code, text) = Setup::new(&toml).arguments(&["check-config", "--print"]).refusal().await;
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("[REDACTED]"), "{text}");
}

/// What the log says of a panic is where it was: see P13 for the panics themselves.
async fn n5() {
    let s = crate::p_lifecycle::panicking_service().await;
    for how in ["at-once", "later", "in-a-task", "locked"] {
        s.one(&post(&format!("X-Panic: {how}\r\n"))).await;
    }
    // `holds` looks for the secret that each of these panics had in its text.
    s.holds().await;
    let log = s.whole_log().await;
    let panics = log.lines().filter(|line| line.contains("\"message\":\"panic\""));
    assert_eq!(panics.filter(|line| line.contains("panicking.rs:")).count(), 4, "{log}");
    s.stop().await;
}

async fn n6() {
    for (label, toml) in [
        ("as a number", BY_JWT.replace(&format!("\"{SESSION_SECRET}\""), "12345678901234567890")),
        ("as a list", BY_JWT.replace(&format!("\"{SESSION_SECRET}\""), &format!("[\"{SESSION_SECRET}\"]"))),
        ("as a time", BY_JWT.replace("issuers =", &format!("leeway = \"{SESSION_SECRET}\"\nissuers ="))),
        ("as a flag", BY_JWT.replace("issuers =", &format!("allow_http = \"{SESSION_SECRET}\"\nissuers ="))),
        ("as a URL", BY_JWT.replace("secret =", "jwks_url =")),
        ("in broken TOML", BY_JWT.replace("algorithms", &format!("x = {SESSION_SECRET}\nalgorithms"))),
        ("as an algorithm", BY_JWT.replace("\"HS256\"", &format!("\"{SESSION_SECRET}\""))),
        ("as an address", format!("server.listen = \"{SESSION_SECRET}\"\n{BY_JWT}")),
        ("as a kind", BY_JWT.replace("\"jwt\"", &format!("\"{SESSION_SECRET}\""))),
        ("as a subject", BY_JWT.replace("issuers =", &format!("subject = \"{SESSION_SECRET}\"\nissuers ="))),
    ] {
        let mut setup = Setup::new(&toml);
        if label == "as an address" {
            setup = setup.env("ROLLOUT__SERVER__LISTEN", None);
        }
        let (code, text) = setup.refusal().await;
        assert_eq!(code, 2, "{label}: {text}");
    }
    for (name, value) in [
        ("ROLLOUT_CLIENT_SECRET_FILE", CLIENT_SECRET),
        ("ROLLOUT__SERVER__IDLE_TIMEOUT", CLIENT_SECRET),
        ("ROLLOUT__LOG__LEVEL", API_KEY),
        ("ROLLOUT__RATE_LIMIT__BURST", API_KEY),
        ("ROLLOUT__ORIGINS__ALLOWED", API_KEY),
    ] {
        let (code, text) = Setup::new(BY_JWT).env(name, Some(value)).refusal().await;
        assert_eq!(code, 2, "{name}: {text}");
    }
}

async fn n9(s: Arc<Service>) {
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
    s.holds().await;
    s.stop().await;
}

async fn n10(s: Arc<Service>) {
    let mut crowd = JoinSet::new();
    for part in 0..10 {
        let s = s.clone();
        crowd.spawn(async move {
            for n in 0..1000 {
                let evil = format!("label-{part}-{n}");
                let asked = match n % 6 {
                    0 => request(&format!("GET /{evil} HTTP/1.1"), ""),
                    1 => request(&format!("M{part}X{n} /rollout/token HTTP/1.1"), ""),
                    2 => post(&format!("Origin: https://{evil}\r\n")),
                    3 => post(&bearer(&hs256(&json!({"iss": evil})))),
                    4 => post(&bearer(&hs256(&json!({"sub": evil})))),
                    _ => post(&format!("Host2: {evil}\r\n{evil}: x\r\nContent-Length: {evil}\r\n")),
                };
                s.one(&asked).await;
            }
        });
    }
    crowd.join_all().await;
    let metrics = s.metrics().await;
    assert!(!metrics.contains("label-") && metrics.lines().count() < 300, "{metrics}");
}

async fn n14() {
    let s = Service::start(&BY_JWT.replace("trace", "info")).await;
    let started = Instant::now();
    let mut crowd = JoinSet::new();
    for _ in 0..8 {
        let s = s.clone();
        crowd.spawn(async move {
            while started.elapsed() < Duration::from_secs(4) {
                s.one(&post("")).await;
                s.one(&post("Content-Length: x\r\n")).await;
                s.one(&request("GET /x HTTP/1.1", "")).await;
            }
        });
    }
    crowd.join_all().await;
    let seconds = started.elapsed().as_secs() + 2;
    let lines = s.whole_log().await.lines().count() as u64;
    assert!(lines <= seconds * 200, "{lines} lines in {seconds} s");
    s.logs("too many refused requests", 1).await;
    s.holds().await;
    s.stop().await;
}

async fn n15(s: Arc<Service>) {
    let headers = format!(
        "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\ntracestate: a={COOKIE_VALUE}\r\nbaggage: user={COOKIE_VALUE},b={API_KEY}\r\n"
    );
    s.expect("refused", &post(&headers), &["401 no_session"]).await;
    let answer =
        s.expect("issued", &post(&format!("{headers}{}", bearer(&hs256(&json!({}))))), &["200"]).await;
    assert!(answer.header("baggage").is_none() && answer.header("tracestate").is_none());
    for odd in [
        "00-0-0-0",
        "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "x",
        "",
        "00-00000000000000000000000000000000-0000000000000000-00",
    ] {
        s.expect(odd, &post(&format!("traceparent: {odd}\r\n")), &["401 no_session"]).await;
    }
}

async fn q1() {
    for (toml, key) in [
        (format!("unknown = 1\n{BY_JWT}"), "unknown"),
        (format!("server.lissten = \"127.0.0.1:0\"\n{BY_JWT}"), "server.lissten"),
        (BY_JWT.replace("issuers", "issuer"), "extractors.web.issuer"),
        (format!("server.max_headers = \"many\"\n{BY_JWT}"), "server.max_headers"),
        (format!("server.max_headers = -1\n{BY_JWT}"), "server.max_headers"),
        (format!("token = 5\n{BY_JWT}"), "token"),
        (BY_JWT.replace("issuers = [\"https://issuer.example\"]", "issuers = 5"), "extractors.web.issuers"),
        (format!("{BY_JWT}\nissuers = []\n"), "line"),
        (format!("{BY_JWT}\n[extractors.other]\nkind = \"api_key\"\n"), "extractors.other"),
        (BY_JWT.replace("[\"web\"]", "[\"web\", \"gone\"]"), "extractors.gone"),
        (BY_JWT.replace("[\"web\"]", "[\"web\", \"web\"]"), "session.extractors"),
        (BY_JWT.replace("\"jwt\"", "\"jwtt\""), "extractors.web.kind"),
        (BY_JWT.replace("kind = \"jwt\"", "kind = \"jwt\"\npreset = \"nobody\""), "extractors.web.preset"),
    ] {
        refuses(&toml, key).await;
    }
    for (name, key) in [
        ("ROLLOUT__SERVER__LISSTEN", "server.lissten"),
        ("ROLLOUT__SERVR__LISTEN", "servr"),
        ("ROLLOUT__EXTRACTORS__WEB__ISUERS", "extractors.web.isuers"),
    ] {
        let (code, text) = Setup::new(BY_JWT).env(name, Some("x")).refusal().await;
        assert!(code == 2 && text.contains(key), "{name}: {text}");
    }
    let (code, text) =
        Setup::new(BY_JWT).env("ROLLOUT_CLIENT_SECRET_FILE", Some("/etc/hostname")).refusal().await;
    assert!(code == 2 && text.contains("client_secret"), "{text}");
    // What Kubernetes puts into every container is not ours.
    let s = Service::start_with(
        &Setup::new(BY_JWT)
            .env("ROLLOUT_PORT", Some("tcp://10.0.0.1:80"))
            .env("ROLLOUT_SERVICE_HOST", Some("10.0.0.1")),
    )
    .await;
    s.holds().await;
    s.stop().await;
}

async fn q2() {
    refuses("[session]\nextractors = []\n", "session.extractors").await;
    refuses("", "session.extractors").await;
    refuses("[extractors.web]\nkind = \"jwt\"\n", "session.extractors").await;
    refuses("session.extractors = \"jwt\"\n", "extractors.jwt").await;
}

async fn q3() {
    let secret = format!("secret = \"{SESSION_SECRET}\"");
    for url in [
        "http://id.example/keys",
        "http://10.0.0.1/keys",
        "http://127.0.0.1.evil.example/keys",
        "http://localhost.evil/keys",
        "http://[2001:db8::1]/keys",
        "http://0.0.0.0/keys",
    ] {
        refuses(
            &BY_JWT.replace(&secret, &format!("jwks_url = \"{url}\"")).replace("[\"HS256\"]", "[\"RS256\"]"),
            "extractors.web.jwks_url",
        )
        .await;
        let whoami = format!(
            "[session]\nextractors = [\"app\"]\n[extractors.app]\nkind = \"session_endpoint\"\nurl = \"{url}\"\ncookies = [\"sid\"]\n"
        );
        refuses(&whoami, "extractors.app.url").await;
    }
}

async fn q4() {
    for url in [
        format!("https://ann:{UPSTREAM_SECRET}@app.example/me"),
        format!("https://{UPSTREAM_SECRET}@app.example/"),
        "file:///etc/passwd".to_owned(),
        "gopher://app.example/".to_owned(),
        "https://app.example:0/".to_owned(),
        "ftp://app.example/".to_owned(),
        "https://".to_owned(),
        "data:text/plain,x".to_owned(),
        "//app.example/me".to_owned(),
        "https://app.example:99999/".to_owned(),
    ] {
        let toml = format!(
            "[session]\nextractors = [\"app\"]\n[extractors.app]\nkind = \"session_endpoint\"\nurl = \"{url}\"\ncookies = [\"sid\"]\n"
        );
        refuses(&toml, "extractors.app.url").await;
    }
}

async fn q5() {
    for (key, section) in [
        ("header_timeout", "server"),
        ("request_timeout", "server"),
        ("idle_timeout", "server"),
        ("body_timeout", "server"),
        ("hard_stop", "server"),
        ("poll_interval", "reload"),
    ] {
        for value in [
            "\"0s\"",
            "\"-5s\"",
            "\"1000000000000000000s\"",
            "\"5\"",
            "5",
            "0",
            "\"\"",
            "\"5 parsecs\"",
            "true",
            "\"1e9s\"",
            "5.5",
        ] {
            let (code, text) = Setup::new(&format!("{section}.{key} = {value}\n{BY_JWT}"))
                .arguments(&["check-config"])
                .refusal()
                .await;
            assert!(code == 2 && text.contains(&format!("{section}.{key}")), "{key} = {value}: {text}");
        }
    }
    for (toml, key) in [
        (format!("server.drain_delay = \"30s\"\n{BY_JWT}"), "server.hard_stop"),
        (format!("server.request_timeout = \"60s\"\n{BY_JWT}"), "server.drain_timeout"),
        (format!("token.ttl = \"16m\"\n{BY_JWT}"), "token.ttl"),
        (format!("token.ttl = \"29s\"\n{BY_JWT}"), "token.ttl"),
        (format!("token.ttl = \"30500ms\"\n{BY_JWT}"), "token.ttl"),
    ] {
        refuses(&toml, key).await;
    }
}

async fn q8() {
    let secret = format!("secret = \"{SESSION_SECRET}\"");
    let public = BY_JWT
        .replace(&secret, "jwks_url = \"https://id.example/keys\"")
        .replace("algorithms = [\"HS256\"]", "");
    for (toml, key) in [
        (public.replace("issuers = [\"https://issuer.example\"]", ""), "extractors.web.issuers"),
        (public.replace("\"https://issuer.example\"", ""), "extractors.web.issuers"),
        (public.replace("\"https://issuer.example\"", "\"\""), "extractors.web.issuers"),
        (public.replace("audiences = [\"our-app\"]", ""), "extractors.web.audiences"),
        (public.replace("\"our-app\"", "\"\""), "extractors.web.audiences"),
        (public.replace("[\"our-app\"]", "[]"), "extractors.web.audiences"),
    ] {
        refuses(&toml, key).await;
    }
}

async fn q10() {
    // Each refusal above was one of `check-config` too. It asks nobody, whatever is configured.
    let trap = crate::upstream::Upstream::start(crate::upstream::Act::Hang).await;
    let secret = format!("secret = \"{SESSION_SECRET}\"");
    let toml = BY_JWT
        .replace(&secret, &format!("jwks_url = \"http://127.0.0.1:{}/keys\"", trap.port))
        .replace("algorithms = [\"HS256\"]", "");
    let (code, text) = Setup::new(&toml).arguments(&["check-config"]).refusal().await;
    assert_eq!(code, 0, "{text}");
    let (code, _) = Setup::new("garbage = [").arguments(&["check-config"]).refusal().await;
    assert_eq!(code, 2);
    assert_eq!(trap.connections(), 0);
    let (code, text) = Setup::new(BY_JWT).arguments(&["check-confg"]).refusal().await;
    assert_eq!(code, 2, "{text}");
    no_sentinel("a report", text.as_bytes());
}
