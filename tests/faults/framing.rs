//! HTTP/1 framing: requests that two parsers could interpret differently, and requests beyond the size limits.

use std::io::Write as _;
use std::time::Duration;

use serde_json::json;

use crate::configs::by_jwt;
use crate::service::Service;
use crate::tokens::hs256;
use crate::wire::{LISTED, Wire, bearer, post, post_raw, request};

/// A request smuggled in the body of another request. The service must never respond to it.
pub const SMUGGLED: &str = "GET /x HTTP/1.1\r\nHost: app.example\r\n\r\n";

const BAD: &[&str] = &["400 bad_request"];

pub fn good() -> String {
    bearer(&hs256(&json!({})))
}

/// A token request with a valid bearer token and these header lines, followed by `rest`.
pub fn with(headers: &str, rest: &str) -> Vec<u8> {
    [
        post(&format!("{}{headers}", good())),
        rest.as_bytes().to_vec(),
    ]
    .concat()
}

#[tokio::test]
async fn content_length_with_transfer_encoding_is_400() {
    let s = Service::start(by_jwt()).await;
    for (label, headers) in [
        (
            "length first",
            "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n",
        ),
        (
            "coding first",
            "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n",
        ),
        (
            "zero",
            "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n",
        ),
    ] {
        s.expect(label, &with(headers, &format!("0\r\n\r\n{SMUGGLED}")), BAD)
            .await;
        s.expect(
            label,
            &with(headers, &format!("5\r\nabcde\r\n0\r\n\r\n{SMUGGLED}")),
            BAD,
        )
        .await;
    }
    s.finish().await;
}

#[tokio::test]
async fn two_different_content_lengths_are_400() {
    let s = Service::start(by_jwt()).await;
    for (label, headers) in [
        ("0 and 5", "Content-Length: 0\r\nContent-Length: 5\r\n"),
        ("5 and 0", "Content-Length: 5\r\nContent-Length: 0\r\n"),
        ("another case", "content-length: 0\r\nCONTENT-LENGTH: 5\r\n"),
    ] {
        s.expect(label, &with(headers, SMUGGLED), BAD).await;
    }
    // RFC 9110, section 8.6 allows a server to reject repeated identical lengths or to treat them as one.
    s.expect(
        "5 and 5",
        &with("Content-Length: 5\r\nContent-Length: 5\r\n", "abcde"),
        &["400 bad_request", "200"],
    )
    .await;
    s.finish().await;
}

#[tokio::test]
async fn content_length_other_than_digits_is_400() {
    let s = Service::start(by_jwt()).await;
    for value in [
        "+5", "-1", "0x5", "5, 5", "5 5", "", "5,", "5;", "5.0", "1e1", "٥", "５", "0 ", "\"5\"",
        "5\u{a0}", "0x0", "-0", "+0", "nan", "5\t6", ",5",
    ] {
        // White space after a field value is not part of the value (RFC 9110, section 5.5).
        let outcomes = if value == "0 " { &["200"][..] } else { BAD };
        let rest = if value == "0 " { "" } else { SMUGGLED };
        s.expect(
            value,
            &with(&format!("Content-Length: {value}\r\n"), rest),
            outcomes,
        )
        .await;
    }
    s.finish().await;
}

#[tokio::test]
async fn huge_content_length_is_refused_without_allocation() {
    let s = Service::start(by_jwt()).await;
    let before = s.usage().resident_kib;
    for value in [
        "18446744073709551616",
        "18446744073709551615",
        "9223372036854775808",
        &"9".repeat(400),
        "00000000000000018446744073709551616",
    ] {
        let refused = &[
            "400 bad_request",
            "413 body_too_large",
            "431 headers_too_large",
        ];
        s.expect(
            value,
            &with(&format!("Content-Length: {value}\r\n"), SMUGGLED),
            refused,
        )
        .await;
    }
    assert!(s.usage().resident_kib <= before + 1024);
    s.finish().await;
}

#[tokio::test]
async fn unsupported_or_ambiguous_transfer_encoding_is_400() {
    let s = Service::start(by_jwt()).await;
    for headers in [
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding: chunked, identity\r\n",
        "Transfer-Encoding: identity\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        "Transfer-Encoding : chunked\r\n",
        "Transfer-Encoding\t: chunked\r\n",
        "Transfer-Encoding: \tchunked\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: CHUNKED\r\n",
        "Transfer-Encoding: \"chunked\"\r\n",
        "Transfer-Encoding: chunked;q=1\r\n",
        "Transfer-Encoding:\r\n",
        "Transfer-Encoding: \u{b}chunked\r\n",
        " Transfer-Encoding: chunked\r\n",
        "X: y\r\n Transfer-Encoding: chunked\r\n",
        "TE: chunked\r\nTransfer-Encoding: chunked\r\n",
    ] {
        s.expect(
            headers,
            &with(headers, &format!("0\r\n\r\n{SMUGGLED}")),
            BAD,
        )
        .await;
    }
    let old = format!(
        "POST /rollout/token HTTP/1.0\r\nHost: a\r\n{}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        good()
    );
    s.expect("HTTP/1.0", old.as_bytes(), BAD).await;
    s.finish().await;
}

#[tokio::test]
async fn chunked_body_is_read_and_ignored() {
    let s = Service::start(by_jwt()).await;
    let chunked = "Transfer-Encoding: chunked\r\n";
    let (three, large) = (
        "1\r\na\r\n2\r\nbc\r\n0\r\n\r\n",
        format!("1000\r\n{}\r\n0\r\n\r\n", "x".repeat(4096)),
    );
    for (label, body) in [
        ("empty", "0\r\n\r\n"),
        ("three bytes", three),
        ("4 KiB", &large),
        (
            "a credential in the trailers",
            "0\r\nAuthorization: Bearer x\r\n\r\n",
        ),
    ] {
        s.expect(label, &with(chunked, body), &["200"]).await;
    }
    let trailers = "0\r\nCookie: session=x\r\n\r\n";
    let asked = [post(chunked), trailers.as_bytes().to_vec()].concat();
    s.expect("trailers are not headers", &asked, &["401 no_session"])
        .await;
    s.expect(
        "5 KiB",
        &with(
            chunked,
            &format!("1400\r\n{}\r\n0\r\n\r\n", "x".repeat(5120)),
        ),
        &["413 body_too_large"],
    )
    .await;
    s.finish().await;
}

#[tokio::test]
async fn chunked_body_that_looks_like_a_request_head_does_not_affect_the_next_request() {
    let s = Service::start(by_jwt()).await;
    // The body looks like the start of a request head whose target contains a `#`.
    let body = "POST /#x HTTP/1.1\r\nTransfer-Encoding: chunked";
    let first = format!(
        "POST /rollout/token HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n{}\r\n",
        good()
    );
    let body = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
    let next = with("Content-Length: 0\r\n", "");
    let mut wire = Wire::connect(s.address).await;
    wire.send(first.as_bytes()).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    wire.send(body.as_bytes()).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    wire.send(&next).await;
    let answers = wire
        .answers(&[first.into_bytes(), body.into_bytes(), next].concat())
        .await;
    let statuses: Vec<_> = answers.iter().map(|answer| answer.status).collect();
    assert_eq!(statuses, [200, 200]);
    s.count(&answers);
    s.finish().await;
}

#[tokio::test]
async fn invalid_chunk_size_is_400() {
    let s = Service::start(by_jwt()).await;
    for size in [
        "fffffffffffffffff",
        "-1",
        "0x5",
        "+5",
        "5;a=b",
        "",
        "g",
        "5 ",
        "\u{0}5",
        "5\u{a0}",
    ] {
        s.expect(
            size,
            &with(
                "Transfer-Encoding: chunked\r\n",
                &format!("{size}\r\n{SMUGGLED}"),
            ),
            BAD,
        )
        .await;
    }
    s.finish().await;
}

#[tokio::test]
async fn control_byte_or_folded_line_in_a_header_is_400() {
    let s = Service::start(by_jwt()).await;
    for byte in (0..0x20).chain([0x7f]) {
        if byte == b'\t' || byte == b'\n' {
            continue;
        }
        let value = [b"a", &[byte][..], b"b"].concat();
        for name in ["X-Thing", "Cookie", "Authorization", "Origin"] {
            s.expect(
                &format!("{name} with {byte:#x}"),
                &post_raw(name, &value),
                BAD,
            )
            .await;
        }
        let name = [
            b"POST /rollout/token HTTP/1.1\r\nHost: a\r\nX",
            &[byte][..],
            b": y\r\n\r\n",
        ]
        .concat();
        s.expect(&format!("{byte:#x} in a name"), &name, BAD).await;
    }
    for folded in [&b"a\r\n b"[..], b"a\r\n\tb", b"\r\n a"] {
        s.expect("folded", &post_raw("X-Thing", folded), BAD).await;
    }
    for name in ["X Y", "", "X(", "X\u{e9}", "X/Y", "X@", "X\"", "X,Y"] {
        let head = format!("POST /rollout/token HTTP/1.1\r\nHost: a\r\n{name}: y\r\n\r\n");
        s.expect(&format!("the name {name:?}"), head.as_bytes(), BAD)
            .await;
    }
    s.finish().await;
}

#[tokio::test]
async fn header_bytes_that_are_not_utf8_are_refused_without_a_panic() {
    let s = Service::start(by_jwt()).await;
    let refused = &[
        "401 no_session",
        "401 session_invalid",
        "403 origin_not_allowed",
    ];
    for name in [
        "Cookie",
        "Authorization",
        "Origin",
        "X-Request-Id",
        "Sec-Fetch-Site",
        "traceparent",
        "baggage",
        "Content-Type",
        "Connection",
        "User-Agent",
        "If-None-Match",
    ] {
        for value in [
            &b"\xff\xfe"[..],
            b"session=\xff\xfe",
            b"Bearer \xff\xfe",
            b"\x80",
            b"\xc3\x28",
            b"\xed\xa0\x80",
        ] {
            let answer = s.expect(name, &post_raw(name, value), refused).await;
            assert_ne!(
                answer.header("x-request-id").map(str::as_bytes),
                Some(value)
            );
        }
    }
    let host = b"POST /rollout/token HTTP/1.1\r\nHost: \xff\xfe\r\nConnection: close\r\n\r\n";
    s.expect("Host", host, BAD).await;
    s.expect(
        "path",
        b"POST /rollout/\xff\xfe HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        &["400 bad_request", "404 not_found"],
    )
    .await;
    s.finish().await;
}

#[tokio::test]
async fn missing_or_repeated_host_is_400() {
    let s = Service::start(by_jwt()).await;
    for (label, head) in [
        ("none", "POST /rollout/token HTTP/1.1\r\n\r\n"),
        (
            "two",
            "POST /rollout/token HTTP/1.1\r\nHost: app.example\r\nHost: app.example\r\n\r\n",
        ),
        (
            "two different",
            "POST /rollout/token HTTP/1.1\r\nHost: app.example\r\nHost: evil.example\r\n\r\n",
        ),
        (
            "a list",
            "POST /rollout/token HTTP/1.1\r\nHost: app.example, evil.example\r\n\r\n",
        ),
        (
            "two in 1.0",
            "POST /rollout/token HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n",
        ),
        ("none, elsewhere", "GET /healthz HTTP/1.1\r\n\r\n"),
    ] {
        s.expect(label, format!("{head}{SMUGGLED}").as_bytes(), BAD)
            .await;
    }
    s.finish().await;
}

#[tokio::test]
async fn malformed_host_is_400_and_not_echoed() {
    let s = Service::start(by_jwt()).await;
    let long = "a".repeat(300);
    for host in [
        "good.example:80@evil",
        "[::1",
        "",
        &long,
        "a b",
        "a/b",
        "a?b",
        "a#b",
        "a\\b",
        "a%00b",
        "<script>",
        "a:b",
        "a:99999",
        "a:",
        "[::1]x",
        "[fe80::1%25eth0]",
        "a,b",
        "*",
        "a;b",
        "'a'",
    ] {
        let head = format!(
            "POST /rollout/token HTTP/1.1\r\nHost: {host}\r\n{}\r\n",
            good()
        );
        let answer = s.expect(host, head.as_bytes(), BAD).await;
        assert!(
            host.len() < 3 || !String::from_utf8_lossy(&answer.body).contains(host),
            "{answer:?}"
        );
    }
    // A host name with a trailing dot is accepted, but not echoed.
    let dotted = format!(
        "POST /rollout/token HTTP/1.1\r\nHost: good.example.\r\nConnection: close\r\n{}\r\n",
        good()
    );
    let answer = s.expect("trailing dot", dotted.as_bytes(), &["200"]).await;
    assert!(!String::from_utf8_lossy(&answer.body).contains("good.example"));
    s.finish().await;
}

#[tokio::test]
async fn request_beyond_a_size_limit_is_431_or_414() {
    let s = Service::start(by_jwt()).await;
    let many = |count: usize| {
        (0..count)
            .map(|n| format!("X-{n}: y\r\n"))
            .collect::<String>()
    };
    let too_large = &["431 headers_too_large"];
    for count in [101, 102, 150, 1000, 5000] {
        s.expect(&format!("{count} headers"), &post(&many(count)), too_large)
            .await;
    }
    for kib in [33, 40, 48, 64, 256, 4096] {
        s.expect(
            &format!("{kib} KiB"),
            &post(&format!("X: {}\r\n", "y".repeat(kib * 1024))),
            too_large,
        )
        .await;
        let cookies: String = (0..kib)
            .map(|n| format!("Cookie: c{n}={}\r\n", "y".repeat(1024)))
            .collect();
        s.expect(&format!("{kib} KiB of cookies"), &post(&cookies), too_large)
            .await;
    }
    for length in [2049, 4096, 8192, 32_768, 65_534, 65_535, 100_000] {
        let line = format!("POST /{} HTTP/1.1", "a".repeat(length - 1));
        s.expect(
            &format!("a target of {length}"),
            &request(&line, ""),
            &["414 uri_too_long"],
        )
        .await;
        let line = format!("POST /rollout/token?{} HTTP/1.1", "a".repeat(length));
        s.expect(
            &format!("a query of {length}"),
            &request(&line, &good()),
            &["414 uri_too_long"],
        )
        .await;
    }
    // A request just below each limit is served.
    s.expect("95 headers", &with(&many(95), ""), &["200"]).await;
    s.expect(
        "30 KiB",
        &with(&format!("Cookie: a={}\r\n", "y".repeat(30 * 1024)), ""),
        &["200"],
    )
    .await;
    let line = format!("POST /rollout/token?{} HTTP/1.1", "a".repeat(2000));
    s.expect("2000", &request(&line, &good()), &["200"]).await;
    s.finish().await;
}

#[tokio::test]
async fn long_header_name_is_431_and_repeated_credential_is_401() {
    let s = Service::start(by_jwt()).await;
    s.expect(
        "long name",
        &post(&format!("{}: y\r\n", "x".repeat(32 * 1024))),
        &["431 headers_too_large"],
    )
    .await;
    s.expect(
        "longer name",
        &post(&format!("{}: y\r\n", "x".repeat(70 * 1024))),
        &["431 headers_too_large", "400 bad_request"],
    )
    .await;
    s.expect(
        "62 of one name",
        &post(&"Authorization: Bearer x\r\n".repeat(62)),
        &["401 session_invalid"],
    )
    .await;
    s.expect(
        "60 cookie headers",
        &post(&"Cookie: session=x\r\n".repeat(60)),
        &["401 session_invalid"],
    )
    .await;
    s.expect(
        "60 of another name",
        &with(&"X: y\r\n".repeat(60), ""),
        &["200"],
    )
    .await;
    s.finish().await;
}

#[tokio::test]
async fn expect_continue_with_a_10_gib_body_is_413_without_100_continue() {
    let s = Service::start(by_jwt()).await;
    let head = format!(
        "POST /rollout/token HTTP/1.1\r\nHost: a\r\n{}Expect: 100-continue\r\nContent-Length: 10737418240\r\n\r\n",
        good()
    );
    let mut wire = Wire::connect(s.address).await;
    wire.send(head.as_bytes()).await;
    let answers = String::from_utf8(wire.rest().await).expect("text");
    assert!(
        answers.starts_with("HTTP/1.1 413 ") && !answers.contains("HTTP/1.1 100"),
        "{answers}"
    );
    s.does_not_count();
    s.finish().await;
}

#[tokio::test]
async fn body_after_100_continue_is_read() {
    let s = Service::start(by_jwt()).await;
    let head = format!(
        "POST /rollout/token HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{}Expect: 100-continue\r\nContent-Length: 5\r\n\r\n",
        good()
    );
    let mut wire = Wire::connect(s.address).await;
    wire.send(head.as_bytes()).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    wire.send(b"hello").await;
    let answers = wire.answers(head.as_bytes()).await;
    assert_eq!(
        answers
            .iter()
            .map(|answer| answer.status)
            .collect::<Vec<_>>(),
        [200]
    );
    s.count(&answers);
    for expectation in ["200-ok", "100-continue, x", ""] {
        s.expect_or_close(
            expectation,
            &with(&format!("Expect: {expectation}\r\n"), ""),
            &["200", "400 bad_request"],
        )
        .await;
    }
    s.finish().await;
}

#[tokio::test]
async fn upgrade_header_is_ignored() {
    let s = Service::start(by_jwt()).await;
    for headers in [
        "Upgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n",
        "Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n",
        "Upgrade: TLS/1.0\r\n",
        "Upgrade: HTTP/3.0\r\n",
    ] {
        let head = format!(
            "POST /rollout/token HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings, close\r\n{}{headers}\r\n",
            good()
        );
        s.expect(headers, head.as_bytes(), &["200"]).await;
    }
    s.finish().await;
}

#[tokio::test]
async fn compressed_body_is_not_decompressed() {
    let s = Service::start(by_jwt()).await;
    let mut bomb = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    for _ in 0..1024 {
        bomb.write_all(&[0; 1024]).expect("memory");
    }
    let bomb = bomb.finish().expect("memory");
    let before = s.usage().resident_kib;
    for coding in ["gzip", "deflate", "br", "gzip, gzip"] {
        let headers = format!(
            "Content-Encoding: {coding}\r\nContent-Length: {}\r\n",
            bomb.len()
        );
        let asked = [post(&format!("{}{headers}", good())), bomb.clone()].concat();
        // The service ignores the body's content, so any content coding is accepted.
        s.expect(coding, &asked, &["200"]).await;
    }
    assert!(s.usage().resident_kib <= before + 1024);
    s.finish().await;
}

#[tokio::test]
async fn bare_cr_malformed_header_line_or_unsupported_http_version_is_400() {
    let s = Service::start(by_jwt()).await;
    let good = good();
    for (label, head, outcomes) in [
        (
            "bare LF",
            format!(
                "POST /rollout/token HTTP/1.1\nHost: a\nConnection: close\n{}\n",
                good.replace("\r\n", "\n")
            ),
            &["200", "400 bad_request"][..],
        ),
        (
            "bare CR",
            format!("POST /rollout/token HTTP/1.1\rHost: a\r{good}\r\r"),
            BAD,
        ),
        (
            "empty lines first",
            format!(
                "\r\n\r\nPOST /rollout/token HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{good}\r\n"
            ),
            &["200", "400 bad_request"],
        ),
        (
            "space before the colon",
            format!("POST /rollout/token HTTP/1.1\r\nHost : a\r\n{good}\r\n"),
            BAD,
        ),
        (
            "no colon",
            format!("POST /rollout/token HTTP/1.1\r\nHost: a\r\nX\r\n{good}\r\n"),
            BAD,
        ),
        (
            "1.2",
            format!("POST /rollout/token HTTP/1.2\r\nHost: a\r\nConnection: close\r\n{good}\r\n"),
            BAD,
        ),
        (
            "2.0",
            format!("POST /rollout/token HTTP/2.0\r\nHost: a\r\n{good}\r\n"),
            BAD,
        ),
        (
            "1.10",
            format!("POST /rollout/token HTTP/1.10\r\nHost: a\r\n{good}\r\n"),
            BAD,
        ),
        (
            "lower case",
            format!("POST /rollout/token http/1.1\r\nHost: a\r\n{good}\r\n"),
            BAD,
        ),
        (
            "1.0 closes",
            format!("POST /rollout/token HTTP/1.0\r\n{good}\r\n"),
            &["200"],
        ),
        (
            "leading space",
            format!("POST /rollout/token HTTP/1.1\r\n Host: a\r\n{good}\r\n"),
            BAD,
        ),
    ] {
        s.expect(label, head.as_bytes(), outcomes).await;
    }
    s.finish().await;
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let s = Service::start(by_jwt()).await;
    let mut asked = Vec::new();
    for n in 0..50 {
        let id = format!("X-Request-Id: n-{n}\r\n");
        let token = hs256(&json!({"sub": format!("user-{n}")}));
        let close = if n == 49 { "Connection: close\r\n" } else { "" };
        let body = if n % 3 == 0 {
            "Content-Length: 3\r\n\r\nabc"
        } else {
            "\r\n"
        };
        let auth = if n % 2 == 0 {
            bearer(&token)
        } else {
            String::new()
        };
        asked.extend(
            format!("POST /rollout/token HTTP/1.1\r\nHost: a\r\n{close}{id}{auth}{body}")
                .into_bytes(),
        );
    }
    let answers = s.exchange(&asked).await;
    assert_eq!(answers.len(), 50);
    for (n, answer) in answers.iter().enumerate() {
        assert_eq!(answer.header("x-request-id"), Some(&*format!("n-{n}")));
        if n % 2 == 0 {
            assert_eq!(answer.subject(), format!("user-{n}"));
        } else {
            assert_eq!(answer.outcome(), "401 no_session");
        }
    }
    // A client that has shut down its sending side still gets all responses.
    let mut wire = Wire::connect(s.address).await;
    wire.send(&asked).await;
    wire.half_close().await;
    let answers = wire.answers(&asked).await;
    assert_eq!(answers.len(), 50);
    s.count(&answers);
    s.finish().await;
}

#[tokio::test]
async fn request_sent_byte_by_byte_gets_a_token() {
    let s = Service::start(by_jwt()).await;
    let asked = with("Content-Length: 3\r\n", "abc");
    let mut wire = Wire::connect(s.address).await;
    for byte in &asked {
        wire.send(&[*byte]).await;
        tokio::task::yield_now().await;
    }
    let answers = wire.answers(&asked).await;
    assert_eq!(answers.len(), 1);
    assert_eq!(answers[0].subject(), "ann");
    s.count(&answers);
    s.finish().await;
}

#[tokio::test]
async fn absolute_or_malformed_target_is_400() {
    let s = Service::start(by_jwt()).await;
    for target in [
        "http://app.example/rollout/token",
        "https://evil/rollout/token",
        "HTTP://app.example/rollout/token",
        "app.example:80",
        "http:///rollout/token",
        "http://",
        "rollout/token",
        "#",
        "/a b",
        "file:///etc/passwd",
        "http://app.example:99999/",
        "://",
        "@",
    ] {
        s.expect_or_close(
            target,
            &request(&format!("POST {target} HTTP/1.1"), &good()),
            BAD,
        )
        .await;
    }
    s.expect(
        "*",
        &request("OPTIONS * HTTP/1.1", ""),
        &["404 not_found", "400 bad_request", "204"],
    )
    .await;
    s.expect(
        "fragment",
        &request("POST /rollout/token#x HTTP/1.1", &good()),
        BAD,
    )
    .await;
    s.finish().await;
}

#[tokio::test]
async fn repeated_header_is_refused_unless_it_is_harmless() {
    let s = Service::start(by_jwt()).await;
    let token = hs256(&json!({}));
    for (label, headers, outcome) in [
        (
            "Authorization",
            bearer(&token).repeat(2),
            "401 session_invalid",
        ),
        (
            "equal cookies",
            format!("Cookie: session={token}; session={token}\r\n"),
            "200",
        ),
        (
            "different cookies",
            format!("Cookie: session={token}; session=x\r\n"),
            "401 session_invalid",
        ),
        (
            "different cookie headers",
            format!("Cookie: session={token}\r\nCookie: session=x\r\n"),
            "401 session_invalid",
        ),
        (
            "Origin",
            format!("{}Origin: {LISTED}\r\nOrigin: {LISTED}\r\n", bearer(&token)),
            "403 origin_not_allowed",
        ),
        (
            "Sec-Fetch-Site",
            format!(
                "{}Sec-Fetch-Site: none\r\nSec-Fetch-Site: none\r\n",
                bearer(&token)
            ),
            "403 origin_not_allowed",
        ),
        (
            "X-Request-Id",
            format!("{}X-Request-Id: a\r\nX-Request-Id: b\r\n", bearer(&token)),
            "200",
        ),
        (
            "both places, one token",
            format!("{}Cookie: session=x\r\n", bearer(&token)),
            "200",
        ),
        (
            "tokens in both places, the first one invalid",
            format!("{}Cookie: session={token}\r\n", bearer("x.y.z")),
            "401 session_invalid",
        ),
    ] {
        s.expect(label, &post(&headers), &[outcome]).await;
    }
    s.finish().await;
}
