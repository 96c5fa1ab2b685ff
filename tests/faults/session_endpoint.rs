//! Tests of session endpoints with malformed, late or partial responses, or with certificates that must not be trusted.
//! Also tests which parts of a request are forwarded to an endpoint.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::net::UdpSocket;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::configs::by_endpoint_url;
use crate::sentinels::{COOKIE_VALUE, UPSTREAM_SECRET};
use crate::service::{Service, Setup, TEN_THOUSAND_CONNECTIONS};
use crate::settings::ConfigBuilder;
use crate::upstream::{Act, Upstream, answer, json as json_answer, ok};
use crate::wire::{Answer, post};

const UNKNOWN: &[&str] = &["503 session_backend_unavailable"];
const NO: &[&str] = &["401 no_session", "401 session_invalid"];

struct Stage {
    s: Arc<Service>,
    app: Upstream,
    count: AtomicUsize,
}

fn config(url: &str) -> ConfigBuilder {
    let keys = "[extractors.app]\nsubject = '{id}'\nadditional_headers.X-Api-Key = ";
    by_endpoint_url(url).with(format!("{keys}'{UPSTREAM_SECRET}'"))
}

fn local(app: &Upstream) -> ConfigBuilder {
    config(&format!("http://127.0.0.1:{}/me", app.port))
}

fn with_cookie(value: &str) -> Vec<u8> {
    post(&format!("Cookie: sid={value}\r\n"))
}

impl Stage {
    async fn start() -> Self {
        let app = Upstream::start(ok("{\"id\":\"ann\"}")).await;
        Self {
            s: Service::start(local(&app)).await,
            app,
            count: AtomicUsize::new(0),
        }
    }

    async fn finish(self) {
        drop(self.app);
        self.s.finish().await;
    }

    /// Sends a request with a new cookie, to which the backend reacts with `act`, and expects one of these outcomes.
    async fn ask(&self, label: &str, act: Act, want: &[&str]) -> Answer {
        self.app.does(act);
        let n = self.count.fetch_add(1, Ordering::SeqCst);
        self.s
            .expect(label, &with_cookie(&format!("{COOKIE_VALUE}-{n}")), want)
            .await
    }

    /// Makes the backend respond normally again, and checks that a token is issued.
    async fn recovers(&self) {
        let answer = self
            .ask("recovered", ok("{\"id\":\"ann\"}"), &["200"])
            .await;
        assert_eq!(answer.subject(), "ann");
    }
}

#[tokio::test]
async fn session_endpoint_answer_without_a_user_is_401() {
    let s = Stage::start().await;
    for body in [
        "{\"user\":null}",
        "{}",
        "[]",
        "\"\"",
        "null",
        "{\"id\":null}",
        "{\"id\":\"\"}",
        "{\"id\":0}",
        "{\"id\":false}",
        "{\"id\":true}",
        "{\"id\":[]}",
        "{\"id\":{}}",
        "{\"id\":[\"ann\"]}",
        "{\"id\":\" \"}",
        "{\"id\":1.5}",
        "true",
        "5",
        "\"ann\"",
        "[{\"id\":\"ann\"}]",
        "{\"user\":{\"id\":\"ann\"}}",
        "{\"ID\":\"ann\"}",
    ] {
        s.ask(body, ok(body), NO).await;
    }
    s.recovers().await;
    let answer = s.ask("a number", ok("{\"id\":42}"), &["200"]).await;
    assert_eq!(answer.subject(), "42");
    s.finish().await;
}

#[tokio::test]
async fn session_endpoint_status_200_without_json_is_503() {
    let s = Stage::start().await;
    for (label, headers, body) in [
        (
            "a login page",
            "Content-Type: text/html\r\n",
            "<html>please log in</html>",
        ),
        (
            "JSON as text",
            "Content-Type: text/plain\r\n",
            "{\"id\":\"ann\"}",
        ),
        ("no type", "", "{\"id\":\"ann\"}"),
        (
            "HTML with the content type application/json",
            "Content-Type: application/json\r\n",
            "<html></html>",
        ),
        ("an empty body", "Content-Type: application/json\r\n", ""),
        (
            "a script",
            "Content-Type: application/javascript\r\n",
            "{\"id\":\"ann\"}",
        ),
        (
            "two types",
            "Content-Type: text/html\r\nContent-Type: application/json\r\n",
            "{\"id\":\"ann\"}",
        ),
        (
            "JSON with trailing bytes",
            "Content-Type: application/json\r\n",
            "{\"id\":\"ann\"}{\"id\":\"bob\"}",
        ),
        (
            "JSONP",
            "Content-Type: application/json\r\n",
            "cb({\"id\":\"ann\"})",
        ),
        (
            "a guard",
            "Content-Type: application/json\r\n",
            ")]}',\n{\"id\":\"ann\"}",
        ),
        (
            "UTF-16",
            "Content-Type: application/json\r\n",
            "{\0\"\0i\0d\0\"\0:\0\"\0a\0\"\0}\0",
        ),
        (
            "a byte order mark first",
            "Content-Type: application/json\r\n",
            "\u{feff}{\"id\":\"ann\"}",
        ),
    ] {
        s.ask(label, Act::Say(answer("200 OK", headers, body)), UNKNOWN)
            .await;
        s.recovers().await;
    }
    s.finish().await;
}

#[tokio::test]
async fn user_in_an_answer_with_a_status_other_than_200_gets_no_token() {
    let s = Stage::start().await;
    let body = "{\"id\":\"ann\"}";
    for status in [
        "201 Created",
        "202 Accepted",
        "203 Non-Authoritative",
        "206 Partial Content",
        "226 IM Used",
        "299 Odd",
        "400 Bad Request",
        "405 No",
        "408 Late",
        "418 Teapot",
        "451 No",
        "600 Odd",
        "999 Odd",
    ] {
        s.ask(
            status,
            Act::SayAndClose(answer(
                status,
                "Content-Type: application/json\r\nConnection: close\r\n",
                body,
            )),
            &["401 session_invalid", "503 session_backend_unavailable"],
        )
        .await;
        s.recovers().await;
    }
    for (text, want) in [
        (
            "HTTP/1.1 204 No Content\r\nContent-Type: application/json\r\n\r\n",
            NO,
        ),
        (
            "HTTP/1.1 304 Not Modified\r\nContent-Type: application/json\r\n\r\n",
            UNKNOWN,
        ),
    ] {
        s.ask(
            text,
            Act::SayAndClose(format!("{text}{body}").into_bytes()),
            want,
        )
        .await;
        s.recovers().await;
    }
    s.finish().await;
}

#[tokio::test]
async fn redirect_is_refused_and_not_followed() {
    let s = Stage::start().await;
    for status in [300, 301, 302, 303, 305, 307, 308] {
        s.app.take_requests();
        let headers = "Location: /login\r\nContent-Type: application/json\r\n";
        let want = if [302, 303, 307].contains(&status) {
            NO
        } else {
            UNKNOWN
        };
        s.ask(
            "a redirect",
            Act::Say(answer(
                &format!("{status} Moved"),
                headers,
                "{\"id\":\"ann\"}",
            )),
            want,
        )
        .await;
        let requests = s.app.take_requests();
        assert!(
            requests.len() == 1 && !requests[0].contains("/login"),
            "{requests:?}"
        );
    }
    s.finish().await;
}

#[tokio::test]
async fn cookie_is_not_sent_to_the_target_of_a_redirect() {
    let s = Stage::start().await;
    let trap = Upstream::start(ok("{\"id\":\"admin\"}")).await;
    for target in [
        format!("http://127.0.0.1:{}/", trap.port),
        format!("https://127.0.0.1:{}/", trap.port),
        format!("//127.0.0.1:{}/x", trap.port),
        format!("http://localhost:{}", trap.port),
        "file:///etc/passwd".to_owned(),
        "http://169.254.169.254/latest/meta-data".to_owned(),
    ] {
        for (status, want) in [
            ("301 Moved", UNKNOWN),
            ("307 Moved", NO),
            ("308 Moved", UNKNOWN),
        ] {
            s.ask(
                &target,
                Act::Say(answer(
                    status,
                    &format!("Location: {target}\r\nRefresh: 0; url={target}\r\n"),
                    "",
                )),
                want,
            )
            .await;
        }
    }
    assert_eq!(trap.connections(), 0);
    drop(trap);
    s.finish().await;
}

#[tokio::test]
async fn session_endpoint_status_401_or_403_is_401() {
    let s = Stage::start().await;
    for status in ["401 Unauthorized", "403 Forbidden"] {
        let act = Act::Say(answer(
            status,
            "WWW-Authenticate: Basic realm=\"upstream\"\r\nContent-Type: application/json\r\n",
            "{\"id\":\"ann\"}",
        ));
        let answer = s.ask(status, act, NO).await;
        assert!(
            !answer
                .header("www-authenticate")
                .expect("a challenge")
                .contains("upstream")
        );
    }
    s.finish().await;
}

#[tokio::test]
async fn session_endpoint_status_429_is_503_with_clamped_retry_after() {
    let s = Stage::start().await;
    for (wait, want) in [
        ("7", "7"),
        ("3600", "60"),
        ("0", "1"),
        ("-5", "2"),
        ("soon", "2"),
        ("99999999999999999999", "60"),
        ("7, 9", "2"),
        ("7.5", "2"),
    ] {
        let act = Act::Say(answer(
            "429 Too Many",
            &format!("Retry-After: {wait}\r\n"),
            "slow down",
        ));
        let answer = s.ask(wait, act, UNKNOWN).await;
        assert_eq!(answer.header("retry-after"), Some(want), "{wait}");
    }
    s.finish().await;
}

#[tokio::test]
async fn session_endpoint_status_5xx_is_503_without_a_second_call() {
    let s = Stage::start().await;
    for status in [
        "500 Oops",
        "501 No",
        "502 Bad Gateway",
        "503 Unavailable",
        "504 Late",
        "520 Odd",
    ] {
        s.app.take_requests();
        s.ask(
            status,
            Act::Say(answer(
                status,
                "Content-Type: application/json\r\n",
                "{\"id\":\"ann\"}",
            )),
            UNKNOWN,
        )
        .await;
        assert_eq!(
            s.app.take_requests().len(),
            1,
            "{status}: the call was repeated"
        );
        s.recovers().await;
    }
    s.finish().await;
}

#[tokio::test]
async fn slow_session_endpoint_is_503_at_the_deadline() {
    let s = Stage::start().await;
    let head =
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 12\r\n\r\n".to_vec();
    let body = b"{\"id\":\"ann\"}".to_vec();
    for (label, act) in [
        ("nothing", Act::Hang),
        (
            "the response head, byte by byte",
            Act::Drip(Vec::new(), head.clone(), Duration::from_millis(100)),
        ),
        (
            "the body, a byte a second",
            Act::Drip(head.clone(), body.clone(), Duration::from_secs(1)),
        ),
        (
            "too late",
            Act::Late(Duration::from_millis(2500), json_answer("{\"id\":\"ann\"}")),
        ),
    ] {
        let started = Instant::now();
        s.ask(label, act, UNKNOWN).await;
        let took = started.elapsed().as_secs_f64();
        assert!(
            (1.8..=3.5).contains(&took),
            "{label}: answered after {took} s"
        );
        s.recovers().await;
    }
    // A slow response that ends before the deadline is accepted.
    s.ask(
        "a little late",
        Act::Late(Duration::from_millis(800), json_answer("{\"id\":\"ann\"}")),
        &["200"],
    )
    .await;
    s.ask(
        "byte by byte, but complete before the deadline",
        Act::Drip(head, body, Duration::from_millis(20)),
        &["200"],
    )
    .await;
    s.finish().await;
}

#[tokio::test]
async fn endless_session_endpoint_answer_is_503_in_bounded_memory() {
    let s = Stage::start().await;
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n";
    let with = |more: &str| format!("{head}{more}").into_bytes();
    s.recovers().await;
    let mut bound = s.s.usage().resident_kib;
    let deep = format!("{{\"id\":\"ann\",\"x\":{}", "[".repeat(60_000));
    let chunk = [b"10000\r\n".as_slice(), &vec![b' '; 0x10000], b"\r\n"].concat();
    for (label, act) in [
        (
            "100 MiB",
            Act::Flood(
                with("Content-Length: 104857600\r\n\r\n"),
                vec![b' '; 64 * 1024],
            ),
        ),
        (
            "2^64",
            Act::Flood(
                with("Content-Length: 18446744073709551615\r\n\r\n"),
                vec![b' '; 64 * 1024],
            ),
        ),
        ("endless", Act::Flood(with("\r\n"), vec![b' '; 64 * 1024])),
        (
            "endless chunks",
            Act::Flood(with("Transfer-Encoding: chunked\r\n\r\n"), chunk),
        ),
        (
            "chunks of one byte",
            Act::Flood(
                with("Transfer-Encoding: chunked\r\n\r\n"),
                b"1\r\n \r\n".repeat(1000),
            ),
        ),
        (
            "chunks with extensions",
            Act::Flood(
                with("Transfer-Encoding: chunked\r\n\r\n"),
                format!("1;{}\r\n \r\n", "x".repeat(10_000)).into_bytes(),
            ),
        ),
        (
            "endless headers",
            Act::Flood(with(""), b"X-A: b\r\n".repeat(1000)),
        ),
        (
            "an endless header",
            Act::Flood(with("X: "), vec![b'x'; 64 * 1024]),
        ),
        (
            "endless interim answers",
            Act::Flood(
                Vec::new(),
                b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n".repeat(100),
            ),
        ),
        (
            "an endless reason",
            Act::Flood(b"HTTP/1.1 200 ".to_vec(), vec![b'x'; 64 * 1024]),
        ),
        (
            "gzip",
            Act::Say(
                [
                    with("Content-Encoding: gzip\r\nContent-Length: 12\r\n\r\n"),
                    b"\x1f\x8b\x08\0\0\0\0\0\0\x03\xab\x56".to_vec(),
                ]
                .concat(),
            ),
        ),
        ("deep", ok(&deep)),
        (
            "just too long",
            ok(&format!(
                "{{\"id\":\"ann\",\"x\":\"{}\"}}",
                "x".repeat(64 * 1024)
            )),
        ),
    ] {
        s.ask(label, act, UNKNOWN).await;
        s.recovers().await;
        // Each response may increase memory use by at most 1 MiB.
        bound += 1024;
        let now = s.s.usage().resident_kib;
        assert!(
            now < bound,
            "{label}: {now} KiB in use, {bound} KiB allowed"
        );
    }
    let fits = format!("{{\"id\":\"ann\",\"x\":\"{}\"}}", "x".repeat(60 * 1024));
    s.ask("just short enough", ok(&fits), &["200"]).await;
    let members: String = (0..6000).map(|n| format!("\"m{n}\":{n},")).collect();
    let before = s.s.usage().ticks;
    for _ in 0..20 {
        s.ask(
            "six thousand members",
            ok(&format!("{{{members}\"id\":\"ann\"}}")[..]),
            &["200", "503 session_backend_unavailable"],
        )
        .await;
    }
    assert!(s.s.usage().ticks - before < 20, "more than 10 ms each");
    s.finish().await;
}

#[tokio::test]
async fn only_configured_headers_are_forwarded() {
    let s = Stage::start().await;
    s.app.does(ok("{\"id\":\"ann\"}"));
    s.app.take_requests();
    let headers = format!(
        "Cookie: sid=one; other=two\r\nSet-Cookie: sid=x\r\nAuthorization: Bearer {COOKIE_VALUE}\r\nX-Forwarded-User: admin\r\nX-User: admin\r\n\
         Content-Length: 5\r\nRange: bytes=0-1\r\nAccept-Encoding: gzip\r\nForwarded: for=10.0.0.1\r\nX-Forwarded-For: 10.0.0.1\r\nTE: trailers\r\n\
         X-Api-Key: mine\r\nReferer: https://evil\r\nUser-Agent: evil\r\nAccept: text/html\r\nIf-None-Match: *\r\nX-HTTP-Method-Override: DELETE\r\n\
         traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\nbaggage: a={COOKIE_VALUE}\r\nProxy-Authorization: x\r\n"
    );
    s.s.expect(
        "headers",
        &[post(&headers), b"hello".to_vec()].concat(),
        &["200"],
    )
    .await;
    let requests = s.app.take_requests();
    let request = requests[0].to_ascii_lowercase();
    let mut names: Vec<&str> = request
        .lines()
        .skip(1)
        .filter_map(|line| Some(line.split_once(':')?.0))
        .collect();
    names.sort_unstable();
    names.retain(|name| !matches!(*name, "traceparent"));
    assert_eq!(
        names,
        [
            "accept",
            "cookie",
            "host",
            "user-agent",
            "x-api-key",
            "x-forwarded-proto"
        ],
        "{request}"
    );
    assert!(request.starts_with("get /me http/1.1\r\n"), "{request}");
    assert!(
        request.contains(&format!("host: 127.0.0.1:{}\r\n", s.app.port))
            && request.contains("cookie: sid=one\r\n"),
        "{request}"
    );
    assert!(
        request.contains(&UPSTREAM_SECRET.to_ascii_lowercase())
            && !request.contains("evil")
            && !request.contains("mine"),
        "{request}"
    );
    for upgrade in [
        "Connection: X-Api-Key, close\r\n",
        "Connection: close, Cookie\r\n",
        "Upgrade: h2c\r\n",
    ] {
        s.s.expect(
            upgrade,
            &post(&format!("Cookie: sid=two{}\r\n{upgrade}", upgrade.len())),
            &["200"],
        )
        .await;
        let requests = s.app.take_requests();
        assert!(
            requests[0].contains(UPSTREAM_SECRET)
                && !requests[0].to_ascii_lowercase().contains("upgrade"),
            "{requests:?}"
        );
    }
    s.finish().await;
}

#[tokio::test]
async fn only_the_listed_cookie_is_forwarded() {
    let s = Stage::start().await;
    s.app.does(ok("{\"id\":\"ann\"}"));
    s.app.take_requests();
    let others: String = (0..40)
        .map(|n| format!("other{n}={COOKIE_VALUE}; "))
        .collect();
    for header in [
        format!("{others}sid=a"),
        format!("sid=b; {others}"),
        format!("{others}sid=c; {others}"),
        "xsid=1; sid=d; sidx=2; SID=3; sid2=4".to_owned(),
    ] {
        s.s.expect(
            "many cookies",
            &post(&format!("Cookie: {header}\r\n")),
            &["200"],
        )
        .await;
        let requests = s.app.take_requests();
        let line = requests[0]
            .lines()
            .find(|line| line.to_ascii_lowercase().starts_with("cookie:"))
            .expect("a cookie");
        assert!(
            line.len() == "cookie: sid=a".len()
                && line.to_ascii_lowercase().starts_with("cookie: sid="),
            "{line}"
        );
    }
    for odd in ["sid=a\u{b}b", "sid=a; sid=b", "sid=\u{e9}"] {
        s.s.expect(
            odd,
            &post(&format!("Cookie: {odd}\r\n")),
            &["401 session_invalid", "400 bad_request"],
        )
        .await;
    }
    assert_eq!(s.app.take_requests().len(), 0);
    // A cookie value cannot add a header to the call.
    for value in [
        "a, b",
        "a\tb",
        "\"a\\\"b\"",
        "a%0d%0aX-Evil: y",
        "a=b=c",
        "$Version=1",
    ] {
        s.s.expect(value, &with_cookie(value), &["200", "401 session_invalid"])
            .await;
        for request in s.app.take_requests() {
            assert_eq!(
                request
                    .lines()
                    .filter(|line| line.contains("X-Evil"))
                    .count(),
                usize::from(value.contains("X-Evil"))
            );
            assert!(
                !request.lines().any(|line| line.starts_with("X-Evil")),
                "{request}"
            );
        }
    }
    s.finish().await;
}

#[tokio::test]
async fn malformed_http_answer_of_the_session_endpoint_is_503() {
    let s = Stage::start().await;
    let json = "Content-Type: application/json\r\n";
    let body = "{\"id\":\"ann\"}";
    let text = |text: String| Act::SayAndClose(text.into_bytes());
    for (label, act) in [
        ("no HTTP", text("who is there?\r\n\r\n".to_owned())),
        ("nothing", Act::Close),
        ("a reset", Act::Reset),
        ("half a line", text("HTTP/1.1 20".to_owned())),
        (
            "half a head",
            text(format!("HTTP/1.1 200 OK\r\n{json}Content-Le")),
        ),
        (
            "half a body",
            text(format!(
                "HTTP/1.1 200 OK\r\n{json}Content-Length: 12\r\n\r\n{{\"id\":"
            )),
        ),
        (
            "a body shorter than Content-Length",
            text(format!(
                "HTTP/1.1 200 OK\r\n{json}Content-Length: 500\r\n\r\n{body}"
            )),
        ),
        (
            "a body longer than Content-Length",
            text(format!(
                "HTTP/1.1 200 OK\r\n{json}Content-Length: 6\r\n\r\n{body}"
            )),
        ),
        (
            "two lengths",
            text(format!(
                "HTTP/1.1 200 OK\r\n{json}Content-Length: 12\r\nContent-Length: 5\r\n\r\n{body}"
            )),
        ),
        (
            "no length",
            text(format!(
                "HTTP/1.1 200 OK\r\n{json}Content-Length: x\r\n\r\n{body}"
            )),
        ),
        (
            "a negative length",
            text(format!(
                "HTTP/1.1 200 OK\r\n{json}Content-Length: -1\r\n\r\n{body}"
            )),
        ),
        (
            "half a chunk",
            text(format!(
                "HTTP/1.1 200 OK\r\n{json}Transfer-Encoding: chunked\r\n\r\n20\r\n{body}"
            )),
        ),
        (
            "no last chunk",
            text(format!(
                "HTTP/1.1 200 OK\r\n{json}Transfer-Encoding: chunked\r\n\r\nc\r\n{body}\r\n"
            )),
        ),
        (
            "a malformed chunk size",
            text(format!(
                "HTTP/1.1 200 OK\r\n{json}Transfer-Encoding: chunked\r\n\r\nzz\r\n{body}\r\n0\r\n\r\n"
            )),
        ),
        (
            "a huge chunk size",
            text(format!(
                "HTTP/1.1 200 OK\r\n{json}Transfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n{body}"
            )),
        ),
        (
            "HTTP/2",
            Act::SayAndClose(
                b"\0\0\x12\x04\0\0\0\0\0\0\x03\0\0\0\x80\0\x04\0\x01\0\0\0\x05\0\xff\xff\xff"
                    .to_vec(),
            ),
        ),
        (
            "HTTP/3.0",
            text(format!(
                "HTTP/3.0 200 OK\r\n{json}Content-Length: 12\r\n\r\n{body}"
            )),
        ),
        (
            "a switch",
            text(format!(
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n{body}"
            )),
        ),
        (
            "a status of four digits",
            text(format!(
                "HTTP/1.1 2000 OK\r\n{json}Content-Length: 12\r\n\r\n{body}"
            )),
        ),
        (
            "NUL",
            text(format!(
                "HTTP/1.1 200 OK\r\n{json}X: \0\r\nContent-Length: 12\r\n\r\n{body}"
            )),
        ),
        (
            "hundreds of headers",
            text(format!(
                "HTTP/1.1 200 OK\r\n{json}{}Content-Length: 12\r\n\r\n{body}",
                "X: y\r\n".repeat(300)
            )),
        ),
        (
            "a TLS alert",
            Act::SayAndClose(b"\x15\x03\x01\0\x02\x02\x46".to_vec()),
        ),
    ] {
        s.ask(label, act, UNKNOWN).await;
        s.recovers().await;
    }
    s.finish().await;
}

#[tokio::test]
async fn unusual_but_valid_session_endpoint_answer_is_accepted() {
    let s = Stage::start().await;
    // Without `Connection: close`, the service might send the next call on a connection that the server has closed.
    let json = "Content-Type: application/json\r\nConnection: close\r\n";
    let body = "{\"id\":\"ann\"}";
    for (label, text) in [
        (
            "interim answers",
            format!(
                "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 200 OK\r\n{json}Content-Length: 12\r\n\r\n{body}"
            ),
        ),
        (
            "trailers",
            format!(
                "HTTP/1.1 200 OK\r\n{json}Transfer-Encoding: chunked\r\n\r\n5\r\n{}\r\n7\r\n{}\r\n0\r\nX-Trailer: y\r\n\r\n",
                &body[..5],
                &body[5..]
            ),
        ),
        (
            "a body until the close",
            format!("HTTP/1.1 200 OK\r\n{json}\r\n{body}"),
        ),
        ("1.0", format!("HTTP/1.0 200 OK\r\n{json}\r\n{body}")),
        (
            "Set-Cookie for a cookie that is not listed",
            format!(
                "HTTP/1.1 200 OK\r\n{json}Set-Cookie: other=stolen\r\nContent-Length: 12\r\n\r\n{body}"
            ),
        ),
        (
            "a long header",
            format!(
                "HTTP/1.1 200 OK\r\n{json}X: {}\r\nContent-Length: 12\r\n\r\n{body}",
                "y".repeat(16 * 1024)
            ),
        ),
        (
            "a content type with parameters",
            format!(
                "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: application/json; charset=\"utf-8\"\r\nContent-Length: 12\r\n\r\n{body}"
            ),
        ),
        (
            "no reason",
            format!("HTTP/1.1 200\r\n{json}Content-Length: 12\r\n\r\n{body}"),
        ),
    ] {
        let answer = s
            .ask(label, Act::SayAndClose(text.into_bytes()), &["200"])
            .await;
        assert_eq!(answer.subject(), "ann", "{label}");
    }
    s.finish().await;
}

#[tokio::test]
async fn duplicate_or_malformed_user_id_is_refused() {
    let s = Stage::start().await;
    for (body, outcome) in [
        ("{\"id\":\"ann\",\"id\":\"admin\"}", "401 session_invalid"),
        (
            "{\"id\":\"ann\",\"\\u0069d\":\"admin\"}",
            "401 session_invalid",
        ),
        ("{\"id\":\"ann\",\"id\":\"ann\"}", "401 session_invalid"),
        ("{\"id\":\"ann\",\"other\":1,\"other\":2}", "200"),
        ("{\"id\":\"a\\u0000b\"}", "401 session_invalid"),
        ("{\"id\":\"\\ud800\"}", "503 session_backend_unavailable"),
        ("{\"id\":1e0}", "401 session_invalid"),
        ("{\"id\":1.0}", "401 session_invalid"),
        ("{\"id\":99999999999999999999}", "401 session_invalid"),
        ("{\"id\":01}", "503 session_backend_unavailable"),
        ("{\"id\":\"ann\",}", "503 session_backend_unavailable"),
        ("{\"id\":\"\u{202e}nna\"}", "401 session_invalid"),
        ("{id:\"ann\"}", "503 session_backend_unavailable"),
    ] {
        s.ask(body, ok(body), &[outcome]).await;
        s.recovers().await;
    }
    s.finish().await;
}

/// The backend sends more bytes than `Content-Length` announces. The extra bytes must not become the response to the
/// next call.
#[tokio::test]
async fn bytes_after_an_answer_do_not_reach_the_next_caller() {
    let s = Stage::start().await;
    let second = json_answer("{\"id\":\"admin\"}");
    for n in 0..40 {
        let one = json_answer("{\"id\":\"ann\"}");
        let act = match n % 3 {
            0 => Act::Say([one, second.clone()].concat()),
            1 => Act::Say([one, b"\r\n".to_vec(), second.clone()].concat()),
            _ => Act::Say([one, second[..20].to_vec()].concat()),
        };
        let answer = s
            .ask(
                "with a second answer",
                act,
                &["200", "503 session_backend_unavailable"],
            )
            .await;
        assert!(
            answer.status != 200 || answer.subject() == "ann",
            "{answer:?}"
        );
        let answer = s
            .ask(
                "the next caller",
                ok("{\"id\":\"bob\"}"),
                &["200", "503 session_backend_unavailable"],
            )
            .await;
        assert!(
            answer.status != 200 || answer.subject() == "bob",
            "another caller's answer ({n}): {answer:?}"
        );
        s.recovers().await;
    }
    s.finish().await;
}

/// A private certificate authority, and TLS servers with certificates that it issued.
mod tls {
    use std::sync::Arc;

    use rcgen::{
        BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType, date_time_ymd,
    };
    use rustls::ServerConfig;
    use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

    pub struct Authority {
        pub pem: String,
        issuer: Issuer<'static, KeyPair>,
    }

    impl Authority {
        pub fn new() -> Self {
            let key = KeyPair::generate().expect("a key");
            let mut params = CertificateParams::new(Vec::new()).expect("parameters");
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.distinguished_name.push(DnType::CommonName, "faults");
            let pem = params.self_signed(&key).expect("a certificate").pem();
            Self {
                pem,
                issuer: Issuer::new(params, key),
            }
        }

        /// The TLS configuration of a server with a certificate for these names. `change` can modify the certificate.
        pub fn server(
            &self,
            names: Vec<SanType>,
            change: impl FnOnce(&mut CertificateParams),
        ) -> Arc<ServerConfig> {
            let key = KeyPair::generate().expect("a key");
            let mut params = CertificateParams::new(Vec::new()).expect("parameters");
            params.subject_alt_names = names;
            change(&mut params);
            let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
            serving(certificate.der().clone(), &key)
        }
    }

    pub fn self_signed(names: Vec<SanType>) -> Arc<ServerConfig> {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.subject_alt_names = names;
        serving(
            params
                .self_signed(&key)
                .expect("a certificate")
                .der()
                .clone(),
            &key,
        )
    }

    fn serving(
        certificate: rustls::pki_types::CertificateDer<'static>,
        key: &KeyPair,
    ) -> Arc<ServerConfig> {
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions");
        Arc::new(
            config
                .with_no_client_auth()
                .with_single_cert(vec![certificate], key)
                .expect("a certificate"),
        )
    }

    pub fn dns(name: &str) -> SanType {
        SanType::DnsName(name.try_into().expect("a name"))
    }

    pub fn loopback() -> SanType {
        SanType::IpAddress([127, 0, 0, 1].into())
    }

    pub fn expired(params: &mut CertificateParams) {
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2021, 1, 1);
    }

    pub fn not_yet(params: &mut CertificateParams) {
        params.not_before = date_time_ymd(2090, 1, 1);
        params.not_after = date_time_ymd(2091, 1, 1);
    }
}

/// Checks the outcome if the service trusts this authority and the session endpoint uses this TLS configuration.
async fn over_tls(
    authority: &tls::Authority,
    label: &str,
    tls: Arc<rustls::ServerConfig>,
    host: &str,
    outcome: &str,
) {
    let app = Upstream::start_tls(ok("{\"id\":\"ann\"}"), tls).await;
    let roots = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(roots.path(), &authority.pem).expect("a file");
    // TLS handshakes are slow while many tests start services, so the timeouts are longer than the defaults.
    let config = config(&format!("https://{host}:{}/me", app.port))
        .with("[extractors.app]\nconnect_timeout = '4s'\ntimeout = '4s'");
    let mut setup = Setup::new(config);
    setup.environment.push((
        "SSL_CERT_FILE".to_owned(),
        roots.path().display().to_string(),
    ));
    let s = Service::start_with(&setup).await;
    s.expect(label, &with_cookie(COOKIE_VALUE), &[outcome])
        .await;
    assert_eq!(
        app.take_requests().len(),
        usize::from(outcome == "200"),
        "{label}: wrong number of requests with the cookie"
    );
    drop(app);
    s.finish().await;
}

#[tokio::test]
async fn unreachable_backend_or_invalid_certificate_is_503() {
    let (authority, stranger) = (tls::Authority::new(), tls::Authority::new());
    let unknown = "503 session_backend_unavailable";
    let (both, name) = (
        || vec![tls::dns("localhost"), tls::loopback()],
        || vec![tls::dns("localhost")],
    );
    for (label, config, host, outcome) in [
        ("good", authority.server(both(), |_| {}), "localhost", "200"),
        (
            "good, by address",
            authority.server(both(), |_| {}),
            "127.0.0.1",
            "200",
        ),
        (
            "expired",
            authority.server(name(), tls::expired),
            "localhost",
            unknown,
        ),
        (
            "not yet valid",
            authority.server(name(), tls::not_yet),
            "localhost",
            unknown,
        ),
        (
            "another host",
            authority.server(vec![tls::dns("app.example")], |_| {}),
            "localhost",
            unknown,
        ),
        (
            "another address",
            authority.server(name(), |_| {}),
            "127.0.0.1",
            unknown,
        ),
        (
            "another authority",
            stranger.server(name(), |_| {}),
            "localhost",
            unknown,
        ),
    ] {
        over_tls(&authority, label, config, host, outcome).await;
    }

    let plain = Upstream::start(ok("{\"id\":\"ann\"}")).await;
    let closed = std::net::TcpListener::bind("127.0.0.1:0")
        .expect("a port")
        .local_addr()
        .expect("an address");
    for (label, url) in [
        ("refused", format!("http://{closed}/me")),
        (
            "no TLS there",
            format!("https://127.0.0.1:{}/me", plain.port),
        ),
        ("no such name", "https://app.invalid/me".to_owned()),
    ] {
        let s = Service::start(config(&url)).await;
        let started = Instant::now();
        s.expect(label, &with_cookie("a"), UNKNOWN).await;
        assert!(
            started.elapsed() < Duration::from_secs(4),
            "{label}: {:?}",
            started.elapsed()
        );
        s.finish().await;
    }
}

/// The DNS response that resolves the queried name to 127.0.0.1 only.
fn this_machine(question: &[u8]) -> Vec<u8> {
    let end = 12
        + question[12..]
            .iter()
            .position(|&byte| byte == 0)
            .expect("a name")
        + 5;
    let is_ipv4 = question[end - 3] == 1;
    let head = [
        &question[..2],
        b"\x81\x80\0\x01\0",
        &[u8::from(is_ipv4)],
        b"\0\0\0\0",
    ]
    .concat();
    let record: &[u8] = if is_ipv4 {
        b"\xc0\x0c\0\x01\0\x01\0\0\0\0\0\x04\x7f\0\0\x01"
    } else {
        b""
    };
    [&head, &question[12..end], record].concat()
}

#[tokio::test]
async fn self_signed_or_misnamed_certificate_is_503() {
    let authority = tls::Authority::new();
    let unknown = "503 session_backend_unavailable";
    over_tls(
        &authority,
        "self-signed",
        tls::self_signed(vec![tls::dns("localhost")]),
        "localhost",
        unknown,
    )
    .await;
    for name in [
        "localhost\0.evil.example",
        "*",
        "*.localhost",
        "local*",
        "LOCALHOST.evil",
        "localhost.",
    ] {
        let outcome = if name == "localhost." {
            &["200", unknown][..]
        } else {
            &[unknown]
        };
        let app = Upstream::start_tls(
            ok("{\"id\":\"ann\"}"),
            authority.server(vec![tls::dns(name)], |_| {}),
        )
        .await;
        let roots = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(roots.path(), &authority.pem).expect("a file");
        let mut setup = Setup::new(config(&format!("https://localhost:{}/me", app.port)));
        setup.environment.push((
            "SSL_CERT_FILE".to_owned(),
            roots.path().display().to_string(),
        ));
        let s = Service::start_with(&setup).await;
        s.expect(name, &with_cookie("a"), outcome).await;
        drop(app);
        s.finish().await;
    }
    // The host name is in the certificate's common name only, which verifiers must ignore (RFC 9525).
    let by_name = authority.server(Vec::new(), |params| {
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, "localhost");
    });
    over_tls(
        &authority,
        "only a common name",
        by_name,
        "localhost",
        unknown,
    )
    .await;
}

#[tokio::test]
async fn proxy_environment_variables_are_ignored() {
    let trap = Upstream::start(ok("{\"id\":\"admin\"}")).await;
    let app = Upstream::start(ok("{\"id\":\"ann\"}")).await;
    let proxy = format!("http://127.0.0.1:{}", trap.port);
    let mut setup = Setup::new(local(&app));
    for name in [
        "HTTP_PROXY",
        "http_proxy",
        "HTTPS_PROXY",
        "https_proxy",
        "ALL_PROXY",
        "all_proxy",
    ] {
        setup.environment.push((name.to_owned(), proxy.clone()));
    }
    let s = Service::start_with(&setup).await;
    let answer = s
        .expect("past the proxy", &with_cookie("a"), &["200"])
        .await;
    assert_eq!((answer.subject().as_str(), trap.connections()), ("ann", 0));
    drop(trap);
    drop(app);
    s.finish().await;
}

#[tokio::test]
async fn hung_backend_is_503_until_it_answers() {
    let app = Upstream::start(Act::Hang).await;
    let s = Service::start(local(&app)).await;
    let mut tasks = JoinSet::new();
    for n in 0..8 {
        let s = s.clone();
        tasks.spawn(async move {
            s.expect("hung", &with_cookie(&format!("a-{n}")), UNKNOWN)
                .await
        });
    }
    tasks.join_all().await;
    assert_eq!(s.ready().await.json()["extractors"][0]["state"], "stale");
    app.does(ok("{\"id\":\"ann\"}"));
    for n in 0..20 {
        s.expect("recovered", &with_cookie(&format!("b-{n}")), &["200"])
            .await;
    }
    assert_eq!(s.ready().await.json()["extractors"][0]["state"], "ready");
    drop(app);
    s.finish().await;
}

mod slow {
    use super::*;

    /// The service uses the test's name server, which first sends no response and later resolves names to 127.0.0.1.
    #[tokio::test]
    async fn hung_name_server_is_503_until_it_answers() {
        // A loopback address on which no other name server listens.
        const SERVER: &str = "127.11.53.53";
        let names = Arc::new(
            UdpSocket::bind((SERVER, 53))
                .await
                .expect("port 53, which needs root"),
        );
        let configuration = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(configuration.path(), format!("nameserver {SERVER}\n")).expect("a file");
        // The app sends `Connection: close`, so that each call resolves the name again.
        let user = answer(
            "200 OK",
            "Content-Type: application/json\r\nConnection: close\r\n",
            "{\"id\":\"ann\"}",
        );
        let app = Upstream::start(Act::SayAndClose(user)).await;
        let config = config(&format!("http://app.example:{}/me", app.port))
            .with("server.drain_delay = '100ms'\nextractors.app.allow_http = true");
        let s = Service::start_with(&Setup::new(config).launcher(&[
            "unshare",
            "--mount",
            "sh",
            "-c",
            "mount --bind \"$0\" /etc/resolv.conf && exec \"$@\"",
            &configuration.path().display().to_string(),
        ]))
        .await;
        let threads = s.threads().len();
        for n in 0..20 {
            let started = Instant::now();
            s.expect("hung", &with_cookie(&format!("a-{n}")), UNKNOWN)
                .await;
            assert!(
                started.elapsed() < Duration::from_secs(2),
                "{:?}",
                started.elapsed()
            );
        }
        // Blocked look-ups occupy a limited number of threads, although each takes longer than its caller waits.
        let mut tasks = JoinSet::new();
        for n in 0..500 {
            let (s, asked) = (s.clone(), with_cookie(&format!("b-{n}")));
            tasks.spawn(async move { s.expect("hung", &asked, UNKNOWN).await });
        }
        tasks.join_all().await;
        assert!(
            s.threads().len() <= threads + 16,
            "{} threads, {threads} before",
            s.threads().len()
        );

        let server = names.clone();
        let answering = tokio::spawn(async move {
            let mut question = [0; 512];
            while let Ok((length, from)) = server.recv_from(&mut question).await {
                server
                    .send_to(&this_machine(&question[..length]), from)
                    .await
                    .expect("an answer");
            }
        });
        let healed = Instant::now();
        while s.one(&with_cookie("c")).await.status != 200 {
            assert!(
                healed.elapsed() < Duration::from_secs(5),
                "no token five seconds after the name server recovered"
            );
            sleep(Duration::from_millis(50)).await;
        }
        s.check_invariants().await;

        // A hung name server does not delay the shutdown.
        answering.abort();
        s.expect("hung again", &with_cookie("d"), UNKNOWN).await;
        s.signal(rustix::process::Signal::TERM);
        let told = Instant::now();
        assert_eq!(s.exit().await.code(), Some(0));
        assert!(
            told.elapsed() < Duration::from_secs(3),
            "{:?}",
            told.elapsed()
        );
    }
}

mod alone {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn ten_thousand_requests_with_one_cookie_share_backend_calls() {
        let app = Upstream::start(Act::Late(
            Duration::from_millis(300),
            json_answer("{\"id\":\"ann\"}"),
        ))
        .await;
        // The backend is slow while this process opens 10,000 connections, so the timeout is longer.
        let limits = "server.max_connections = 10100\nserver.max_in_flight = 20200\nlog.level = 'info'\n\
                      extractors.app.timeout = '5s'";
        let s = Service::start(local(&app).with(limits)).await;
        let ask_at_once = async |count: usize, cookie: fn(usize) -> String| {
            let mut tasks = JoinSet::new();
            for n in 0..count {
                let (s, asked) = (s.clone(), with_cookie(&cookie(n)));
                tasks.spawn(async move { s.one(&asked).await });
            }
            tasks.join_all().await
        };
        let started = Instant::now();
        let same = ask_at_once(10_000, |_| "the-same".to_owned()).await;
        let refused = same.iter().find(|answer| answer.status != 200);
        assert!(refused.is_none(), "{refused:?}");
        assert!(same.iter().all(|answer| answer.subject() == "ann"));
        // Calls for one cookie run one after another; all requests that arrive during a call share its result.
        let (asked, most) = (
            app.take_requests().len() as u128,
            started.elapsed().as_millis() / 300 + 1,
        );
        assert!(
            asked <= most,
            "the backend got {asked} calls, but at most {most} are allowed"
        );
        app.take_most();
        let different = ask_at_once(2000, |n| format!("another-{n}")).await;
        let known = different.iter().all(|answer| {
            matches!(
                &*answer.outcome(),
                "200" | "503 session_backend_unavailable"
            )
        });
        assert!(known && app.take_most() <= 64);
        drop(app);
        s.finish_within(TEN_THOUSAND_CONNECTIONS).await;
    }
}
