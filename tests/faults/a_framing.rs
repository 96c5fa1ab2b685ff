//! Group A: HTTP/1 framing and routing; group T: HTTP/2, which is not spoken; G16 stands with them, as bytes
//! that are no HTTP.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use crate::Group;
use crate::report::{COOKIE_VALUE, QUERY_VALUE, count_requests};
use crate::service::Service;
use crate::tokens::hs256;
use crate::wire::{LISTED, Wire, bearer, post, post_raw, request};

/// A service that takes HS256 session tokens, as bearer and as cookie.
pub const BY_JWT: &str = r#"
    rate_limit.per_minute = 0
    log.level = "trace"
    [session]
    extractors = ["web"]
    [extractors.web]
    kind = "jwt"
    from = ["header:authorization", "cookie:session"]
    secret = "session+secret/sentinel:Kd81Qw-0123456789-0123456789"
    algorithms = ["HS256"]
    issuers = ["https://issuer.example"]
    audiences = ["our-app"]
"#;

/// What a smuggler hides behind a request. It is never answered.
const SMUGGLED: &str = "GET /x HTTP/1.1\r\nHost: app.example\r\n\r\n";

const BAD: &[&str] = &["400 bad_request"];

pub async fn group() -> Group {
    let s = Service::start(BY_JWT).await;
    let mut group = Group::new("A", Some(s.clone()));
    group.quick("A1 both framings", a1(s.clone()));
    group.quick("A3 two lengths", a3(s.clone()));
    group.quick("A5 odd lengths", a5(s.clone()));
    group.quick("A6 huge lengths", a6(s.clone()));
    group.quick("A7 odd transfer codings", a7(s.clone()));
    group.quick("A8 chunked and empty", a8(s.clone()));
    group.quick("A9 odd chunk sizes", a9(s.clone()));
    group.quick("A13 control bytes in a header", a13(s.clone()));
    group.quick("A14 bytes that are no text", a14(s.clone()));
    group.quick("A15 no Host, two Hosts", a15(s.clone()));
    group.quick("A17 odd Hosts", a17(s.clone()));
    group.quick("A18 more and longer than allowed", a18(s.clone()));
    group.quick("A19 a long name, one name often", a19(s.clone()));
    group.quick("A20 other spellings of the path", a20(s.clone()));
    group.quick("A21 a credential in the query", a21(s.clone()));
    group.quick("A23 other methods", a23(s.clone()));
    group.quick("A24 TRACE and CONNECT", a24(s.clone()));
    group.quick("A25 a method in disguise", a25(s.clone()));
    group.quick("A26 no HTTP at all", a26(s.clone()));
    group.quick("A27 ten gigabytes announced", a27(s.clone()));
    group.quick("A28 upgrades", a28(s.clone()));
    group.quick("A30 bodies of every type", a30(s.clone()));
    group.quick("A31 nothing is compressed", a31(s.clone()));
    group.quick("A32 a body that would inflate", a32(s.clone()));
    group.quick("A1+ line ends, spaces and versions that two parsers read differently", line_ends(s.clone()));
    group.quick("A1+ answers come in order, and to their own request", pipelined(s.clone()));
    group.quick("A27+ a body after 100 Continue", continued(s.clone()));
    group.quick("A1+ one byte at a time", bytewise(s.clone()));
    group.quick("A17+ targets in every other form", targets(s.clone()));
    group.quick("A14+ every header twice", twice(s.clone()));
    group.quick("T1 rapid reset", t1(s.clone()));
    group.quick("T3 endless continuation", t3(s.clone()));
    group.quick("T8 prior knowledge", t8(s.clone()));
    group.quick("G16 PROXY protocol", g16(s.clone()));
    group
}

fn good() -> String {
    bearer(&hs256(&json!({})))
}

/// A request that would get a token, with these header lines and this after its head.
fn with(headers: &str, rest: &str) -> Vec<u8> {
    [post(&format!("{}{headers}", good())), rest.as_bytes().to_vec()].concat()
}

async fn a1(s: Arc<Service>) {
    for (label, headers) in [
        ("length first", "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n"),
        ("coding first", "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n"),
        ("zero", "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n"),
    ] {
        s.expect(label, &with(headers, &format!("0\r\n\r\n{SMUGGLED}")), BAD).await;
        s.expect(label, &with(headers, &format!("5\r\nabcde\r\n0\r\n\r\n{SMUGGLED}")), BAD).await;
    }
}

async fn a3(s: Arc<Service>) {
    for (label, headers) in [
        ("0 and 5", "Content-Length: 0\r\nContent-Length: 5\r\n"),
        ("5 and 0", "Content-Length: 5\r\nContent-Length: 0\r\n"),
        ("another case", "content-length: 0\r\nCONTENT-LENGTH: 5\r\n"),
    ] {
        s.expect(label, &with(headers, SMUGGLED), BAD).await;
    }
    // RFC 9112, section 6.3 lets the same length twice be refused or be one.
    s.expect(
        "5 and 5",
        &with("Content-Length: 5\r\nContent-Length: 5\r\n", "abcde"),
        &["400 bad_request", "200"],
    )
    .await;
}

async fn a5(s: Arc<Service>) {
    for value in [
        "+5", "-1", "0x5", "5, 5", "5 5", "", "5,", "5;", "5.0", "1e1", "٥", "５", "0 ", "\"5\"", "5\u{a0}",
        "0x0", "-0", "+0", "nan", "5\t6", ",5",
    ] {
        // A space around the value is not part of it.
        let outcomes = if value == "0 " { &["200"][..] } else { BAD };
        let rest = if value == "0 " { "" } else { SMUGGLED };
        s.expect(value, &with(&format!("Content-Length: {value}\r\n"), rest), outcomes).await;
    }
}

async fn a6(s: Arc<Service>) {
    let before = s.usage().resident_kib;
    for value in [
        "18446744073709551616",
        "18446744073709551615",
        "9223372036854775808",
        &"9".repeat(400),
        "00000000000000018446744073709551616",
    ] {
        let refused = &["400 bad_request", "413 body_too_large", "431 headers_too_large"];
        s.expect(value, &with(&format!("Content-Length: {value}\r\n"), SMUGGLED), refused).await;
    }
    assert!(s.usage().resident_kib <= before + 1024);
}

async fn a7(s: Arc<Service>) {
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
        s.expect(headers, &with(headers, &format!("0\r\n\r\n{SMUGGLED}")), BAD).await;
    }
    let old = format!(
        "POST /rollout/token HTTP/1.0\r\nHost: a\r\n{}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        good()
    );
    s.expect("HTTP/1.0", old.as_bytes(), BAD).await;
}

async fn a8(s: Arc<Service>) {
    s.expect("empty", &with("Transfer-Encoding: chunked\r\n", "0\r\n\r\n"), BAD).await;
    s.expect(
        "trailers",
        &with("Transfer-Encoding: chunked\r\n", "0\r\nAuthorization: Bearer x\r\n\r\n"),
        BAD,
    )
    .await;
}

async fn a9(s: Arc<Service>) {
    for size in ["fffffffffffffffff", "-1", "0x5", "+5", "5;a=b", "", "g", "5 ", "\u{0}5", "5\u{a0}"] {
        s.expect(size, &with("Transfer-Encoding: chunked\r\n", &format!("{size}\r\n{SMUGGLED}")), BAD).await;
    }
}

async fn a13(s: Arc<Service>) {
    for byte in (0..0x20).chain([0x7f]) {
        if byte == b'\t' || byte == b'\n' {
            continue;
        }
        let value = [b"a", &[byte][..], b"b"].concat();
        for name in ["X-Thing", "Cookie", "Authorization", "Origin"] {
            s.expect(&format!("{name} with {byte:#x}"), &post_raw(name, &value), BAD).await;
        }
        let name = [b"POST /rollout/token HTTP/1.1\r\nHost: a\r\nX", &[byte][..], b": y\r\n\r\n"].concat();
        s.expect(&format!("{byte:#x} in a name"), &name, BAD).await;
    }
    for folded in [&b"a\r\n b"[..], b"a\r\n\tb", b"\r\n a"] {
        s.expect("folded", &post_raw("X-Thing", folded), BAD).await;
    }
    for name in ["X Y", "", "X(", "X\u{e9}", "X/Y", "X@", "X\"", "X,Y"] {
        let head = format!("POST /rollout/token HTTP/1.1\r\nHost: a\r\n{name}: y\r\n\r\n");
        s.expect(&format!("the name {name:?}"), head.as_bytes(), BAD).await;
    }
}

async fn a14(s: Arc<Service>) {
    let refused = &["401 no_session", "401 session_invalid", "403 origin_not_allowed"];
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
        for value in
            [&b"\xff\xfe"[..], b"session=\xff\xfe", b"Bearer \xff\xfe", b"\x80", b"\xc3\x28", b"\xed\xa0\x80"]
        {
            let answer = s.expect(name, &post_raw(name, value), refused).await;
            assert_ne!(answer.header("x-request-id").map(str::as_bytes), Some(value));
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
}

async fn a15(s: Arc<Service>) {
    for (label, head) in [
        ("none", "POST /rollout/token HTTP/1.1\r\n\r\n"),
        ("two", "POST /rollout/token HTTP/1.1\r\nHost: app.example\r\nHost: app.example\r\n\r\n"),
        ("two different", "POST /rollout/token HTTP/1.1\r\nHost: app.example\r\nHost: evil.example\r\n\r\n"),
        ("a list", "POST /rollout/token HTTP/1.1\r\nHost: app.example, evil.example\r\n\r\n"),
        ("two in 1.0", "POST /rollout/token HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n"),
        ("none, elsewhere", "GET /healthz HTTP/1.1\r\n\r\n"),
    ] {
        s.expect(label, format!("{head}{SMUGGLED}").as_bytes(), BAD).await;
    }
}

async fn a17(s: Arc<Service>) {
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
        let head = format!("POST /rollout/token HTTP/1.1\r\nHost: {host}\r\n{}\r\n", good());
        let answer = s.expect(host, head.as_bytes(), BAD).await;
        assert!(host.len() < 3 || !String::from_utf8_lossy(&answer.body).contains(host), "{answer:?}");
    }
    // A trailing dot is the same name. It is no page's own origin, and never echoed.
    let dotted =
        format!("POST /rollout/token HTTP/1.1\r\nHost: good.example.\r\nConnection: close\r\n{}\r\n", good());
    let answer = s.expect("trailing dot", dotted.as_bytes(), &["200"]).await;
    assert!(!String::from_utf8_lossy(&answer.body).contains("good.example"));
}

async fn a18(s: Arc<Service>) {
    let many = |count: usize| (0..count).map(|n| format!("X-{n}: y\r\n")).collect::<String>();
    let too_large = &["431 headers_too_large"];
    for count in [101, 102, 150, 1000, 5000] {
        s.expect(&format!("{count} headers"), &post(&many(count)), too_large).await;
    }
    for kib in [33, 40, 48, 64, 256, 4096] {
        s.expect(&format!("{kib} KiB"), &post(&format!("X: {}\r\n", "y".repeat(kib * 1024))), too_large)
            .await;
        let cookies: String = (0..kib).map(|n| format!("Cookie: c{n}={}\r\n", "y".repeat(1024))).collect();
        s.expect(&format!("{kib} KiB of cookies"), &post(&cookies), too_large).await;
    }
    for length in [2049, 4096, 8192, 32_768, 65_534, 65_535, 100_000] {
        let line = format!("POST /{} HTTP/1.1", "a".repeat(length - 1));
        s.expect(&format!("a target of {length}"), &request(&line, ""), &["414 uri_too_long"]).await;
        let line = format!("POST /rollout/token?{} HTTP/1.1", "a".repeat(length));
        s.expect(&format!("a query of {length}"), &request(&line, &good()), &["414 uri_too_long"]).await;
    }
    // Just below each limit all is well.
    s.expect("95 headers", &with(&many(95), ""), &["200"]).await;
    s.expect("30 KiB", &with(&format!("Cookie: a={}\r\n", "y".repeat(30 * 1024)), ""), &["200"]).await;
    let line = format!("POST /rollout/token?{} HTTP/1.1", "a".repeat(2000));
    s.expect("2000", &request(&line, &good()), &["200"]).await;
}

async fn a19(s: Arc<Service>) {
    s.expect("long name", &post(&format!("{}: y\r\n", "x".repeat(32 * 1024))), &["431 headers_too_large"])
        .await;
    s.expect(
        "longer name",
        &post(&format!("{}: y\r\n", "x".repeat(70 * 1024))),
        &["431 headers_too_large", "400 bad_request"],
    )
    .await;
    s.expect("64 of one name", &post(&"Authorization: Bearer x\r\n".repeat(62)), &["401 session_invalid"])
        .await;
    s.expect("60 cookies headers", &post(&"Cookie: session=x\r\n".repeat(60)), &["401 session_invalid"])
        .await;
    s.expect("62 of another", &with(&"X: y\r\n".repeat(60), ""), &["200"]).await;
}

async fn a20(s: Arc<Service>) {
    for path in [
        "//rollout/token",
        "/rollout/./token",
        "/x/../rollout/token",
        "/rollout%2ftoken",
        "/rollout/%74oken",
        "/rollout/token/",
        "/ROLLOUT/token",
        "/rollout/token;a",
        "/rollout//token",
        "/rollout/token%00",
        "/rollout/token%20",
        "/rollout/token%3f",
        "/rollout\\token",
        "/rollout/token.json",
        "/./rollout/token",
        "/%2e/rollout/token",
        "/rollout/toke%6E",
        "/rollout-token",
        "/rollout/token%0d%0aX:y",
        "/rollout/TOKEN",
        "/",
        "/rollout",
        "/metrics",
        "/debug",
        "/config",
        "/.env",
        "/rollout/token/../token",
    ] {
        for method in ["POST", "GET"] {
            let line = format!("{method} {path} HTTP/1.1");
            s.expect(path, &request(&line, &good()), &["404 not_found"]).await;
        }
    }
}

async fn a21(s: Arc<Service>) {
    let token = hs256(&json!({}));
    for query in [
        format!("access_token={QUERY_VALUE}"),
        "sub=admin".to_owned(),
        format!("access_token={token}"),
        format!("token={token}"),
        format!("jwt={token}"),
        format!("session={token}"),
        "callback=alert".to_owned(),
        "user=admin&user=bob".to_owned(),
        QUERY_VALUE.to_owned(),
        "?".to_owned(),
        "%".to_owned(),
        "%00=%ff".to_owned(),
    ] {
        let line = format!("POST /rollout/token?{query} HTTP/1.1");
        s.expect(&query, &request(&line, ""), &["401 no_session"]).await;
        let answer = s.expect(&query, &request(&line, &good()), &["200"]).await;
        assert_eq!(answer.subject(), "ann");
    }
    assert!(!s.whole_log().await.contains("access_token"));
}

async fn a23(s: Arc<Service>) {
    for method in [
        "GET",
        "HEAD",
        "PUT",
        "DELETE",
        "PATCH",
        "post",
        "Post",
        "POSTS",
        "POS",
        "PROPFIND",
        "LOCK",
        "SEARCH",
        "QUERY",
        "X",
        &"M".repeat(500),
    ] {
        let answer = s.one(&request(&format!("{method} /rollout/token HTTP/1.1"), &good())).await;
        assert_eq!(answer.status, 405, "{method}");
        assert_eq!(answer.header("allow"), Some("POST, OPTIONS"), "{method}");
    }
    for line in [
        "P@ST /rollout/token HTTP/1.1",
        "POST  /rollout/token HTTP/1.1",
        "POST /rollout/token  HTTP/1.1",
        " POST /rollout/token HTTP/1.1",
        "POST\t/rollout/token HTTP/1.1",
        "POST /rollout/token",
        "POST",
        "P\u{e9}ST /rollout/token HTTP/1.1",
    ] {
        s.expect_or_close(line, &request(line, &good()), BAD).await;
    }
    s.expect(
        "a method of 40 KiB",
        &request(&format!("{} / HTTP/1.1", "M".repeat(40 * 1024)), ""),
        &[
            "400 bad_request",
            "405 method_not_allowed",
            "414 uri_too_long",
            "431 headers_too_large",
            "404 not_found",
        ],
    )
    .await;
    for path in ["/healthz", "/readyz", "/openapi.json", "/rollout/client.js"] {
        for method in ["POST", "DELETE", "PUT"] {
            let answer = s.one(&request(&format!("{method} {path} HTTP/1.1"), "")).await;
            assert_eq!((answer.status, answer.header("allow")), (405, Some("GET, HEAD")), "{method} {path}");
        }
    }
}

async fn a24(s: Arc<Service>) {
    let cookie = format!("Cookie: session={COOKIE_VALUE}\r\n");
    s.expect("TRACE", &request("TRACE /rollout/token HTTP/1.1", &cookie), &["405 method_not_allowed"]).await;
    s.expect(
        "TRACE *",
        &request("TRACE * HTTP/1.1", &cookie),
        &["404 not_found", "405 method_not_allowed", "400 bad_request"],
    )
    .await;
    for line in
        ["CONNECT evil:80 HTTP/1.1", "CONNECT 127.0.0.1:22 HTTP/1.1", "CONNECT app.example:443 HTTP/1.1"]
    {
        let answer = s.one(&[request(line, &cookie), SMUGGLED.into()].concat()).await;
        assert_eq!(answer.outcome(), "405 method_not_allowed", "{line}");
    }
}

async fn a25(s: Arc<Service>) {
    for header in
        ["X-HTTP-Method-Override: GET", "X-HTTP-Method: DELETE", "X-Method-Override: PUT", "_method: GET"]
    {
        s.expect(header, &with(&format!("{header}\r\n"), ""), &["200"]).await;
        s.expect(
            header,
            &request(
                "GET /rollout/token HTTP/1.1",
                &format!("{}{}\r\n", good(), header.replace("GET", "POST")),
            ),
            &["405 method_not_allowed"],
        )
        .await;
    }
    let body = "_method=GET";
    s.expect(
        "in a form",
        &with(
            &format!("Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n", body.len()),
            body,
        ),
        &["200"],
    )
    .await;
}

async fn a26(s: Arc<Service>) {
    let hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".repeat(20);
    s.expect_or_close("TLS", &hello, BAD).await;
    let mut state = 88_172_645_463_325_252_u64;
    for round in 0..20 {
        let noise: Vec<u8> = (0..65_536)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                state.to_le_bytes()[3]
            })
            .collect();
        s.expect_or_close(
            &format!("noise {round}"),
            &noise,
            &["400 bad_request", "431 headers_too_large", "414 uri_too_long"],
        )
        .await;
    }
    for (label, bytes) in [
        ("SSH", &b"SSH-2.0-OpenSSH_9.9\r\n"[..]),
        ("SMTP", b"EHLO evil\r\n\r\n"),
        ("Redis", b"*1\r\n$4\r\nPING\r\n\r\n"),
        ("SOCKS", b"\x05\x01\x00\r\n\r\n"),
        ("a NUL", b"\0\r\n\r\n"),
        ("HTTP/0.9", b"GET /healthz\r\n\r\n"),
        ("ICY", b"GET / ICY/1.0\r\n\r\n"),
    ] {
        s.expect_or_close(label, bytes, BAD).await;
    }
}

async fn a27(s: Arc<Service>) {
    let head = format!(
        "POST /rollout/token HTTP/1.1\r\nHost: a\r\n{}Expect: 100-continue\r\nContent-Length: 10737418240\r\n\r\n",
        good()
    );
    let mut wire = Wire::connect(s.address).await;
    wire.send(head.as_bytes()).await;
    count_requests(1);
    let answers = String::from_utf8(wire.rest().await).expect("text");
    assert!(answers.starts_with("HTTP/1.1 413 ") && !answers.contains("HTTP/1.1 100"), "{answers}");
    s.does_not_count();
}

async fn continued(s: Arc<Service>) {
    let head = format!(
        "POST /rollout/token HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{}Expect: 100-continue\r\nContent-Length: 5\r\n\r\n",
        good()
    );
    let mut wire = Wire::connect(s.address).await;
    wire.send(head.as_bytes()).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    wire.send(b"hello").await;
    let answers = wire.answers(head.as_bytes()).await;
    assert_eq!(answers.iter().map(|answer| answer.status).collect::<Vec<_>>(), [200]);
    s.count(&answers);
    for expectation in ["200-ok", "100-continue, x", ""] {
        s.expect_or_close(
            expectation,
            &with(&format!("Expect: {expectation}\r\n"), ""),
            &["200", "400 bad_request"],
        )
        .await;
    }
}

async fn a28(s: Arc<Service>) {
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
}

async fn a30(s: Arc<Service>) {
    for kind in [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/json",
        "",
        "x",
        "application/xml",
    ] {
        for body in ["{}", "", "null", r#"{"sub":"admin"}"#, "sub=admin", "{", "\u{0}", "[1,2"] {
            let headers = format!("Content-Type: {kind}\r\nContent-Length: {}\r\n", body.len());
            let answer = s.expect(kind, &with(&headers, body), &["200"]).await;
            assert_eq!(answer.subject(), "ann");
            s.expect(kind, &[post(&headers), body.into()].concat(), &["401 no_session"]).await;
        }
    }
}

async fn a31(s: Arc<Service>) {
    let headers =
        "Accept-Encoding: gzip, br, zstd, deflate\r\nX-Request-Id: reflected-reflected-reflected\r\n";
    let answer = s.expect("gzip", &with(headers, ""), &["200"]).await;
    assert_eq!(answer.header("content-encoding"), None);
    s.expect("refusal", &post(headers), &["401 no_session"]).await;
}

async fn a32(s: Arc<Service>) {
    use std::io::Write;
    let mut bomb = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    for _ in 0..1024 {
        bomb.write_all(&[0; 1024]).expect("memory");
    }
    let bomb = bomb.finish().expect("memory");
    let before = s.usage().resident_kib;
    for coding in ["gzip", "deflate", "br", "gzip, gzip"] {
        let headers = format!("Content-Encoding: {coding}\r\nContent-Length: {}\r\n", bomb.len());
        let asked = [post(&format!("{}{headers}", good())), bomb.clone()].concat();
        // The body is never looked at: it is as good as any other.
        s.expect(coding, &asked, &["200"]).await;
    }
    assert!(s.usage().resident_kib <= before + 1024);
}

async fn line_ends(s: Arc<Service>) {
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
        ("bare CR", format!("POST /rollout/token HTTP/1.1\rHost: a\r{good}\r\r"), BAD),
        (
            "empty lines first",
            format!("\r\n\r\nPOST /rollout/token HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{good}\r\n"),
            &["200", "400 bad_request"],
        ),
        ("space before the colon", format!("POST /rollout/token HTTP/1.1\r\nHost : a\r\n{good}\r\n"), BAD),
        ("no colon", format!("POST /rollout/token HTTP/1.1\r\nHost: a\r\nX\r\n{good}\r\n"), BAD),
        ("1.2", format!("POST /rollout/token HTTP/1.2\r\nHost: a\r\nConnection: close\r\n{good}\r\n"), BAD),
        ("2.0", format!("POST /rollout/token HTTP/2.0\r\nHost: a\r\n{good}\r\n"), BAD),
        ("1.10", format!("POST /rollout/token HTTP/1.10\r\nHost: a\r\n{good}\r\n"), BAD),
        ("lower case", format!("POST /rollout/token http/1.1\r\nHost: a\r\n{good}\r\n"), BAD),
        ("1.0 closes", format!("POST /rollout/token HTTP/1.0\r\n{good}\r\n"), &["200"]),
        ("leading space", format!("POST /rollout/token HTTP/1.1\r\n Host: a\r\n{good}\r\n"), BAD),
    ] {
        s.expect(label, head.as_bytes(), outcomes).await;
    }
}

async fn pipelined(s: Arc<Service>) {
    let mut asked = Vec::new();
    for n in 0..50 {
        let id = format!("X-Request-Id: n-{n}\r\n");
        let token = hs256(&json!({"sub": format!("user-{n}")}));
        let close = if n == 49 { "Connection: close\r\n" } else { "" };
        let body = if n % 3 == 0 { "Content-Length: 3\r\n\r\nabc" } else { "\r\n" };
        let auth = if n % 2 == 0 { bearer(&token) } else { String::new() };
        asked.extend(
            format!("POST /rollout/token HTTP/1.1\r\nHost: a\r\n{close}{id}{auth}{body}").into_bytes(),
        );
    }
    let answers = s.talk(&asked).await;
    assert_eq!(answers.len(), 50);
    for (n, answer) in answers.iter().enumerate() {
        assert_eq!(answer.header("x-request-id"), Some(&*format!("n-{n}")));
        if n % 2 == 0 {
            assert_eq!(answer.subject(), format!("user-{n}"));
        } else {
            assert_eq!(answer.outcome(), "401 no_session");
        }
    }
    // The half-closed side of a peer does not cost it its answers.
    let mut wire = Wire::connect(s.address).await;
    wire.send(&asked).await;
    wire.half_close().await;
    let answers = wire.answers(&asked).await;
    assert_eq!(answers.len(), 50);
    s.count(&answers);
}

async fn bytewise(s: Arc<Service>) {
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
}

async fn targets(s: Arc<Service>) {
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
        s.expect_or_close(target, &request(&format!("POST {target} HTTP/1.1"), &good()), BAD).await;
    }
    s.expect("*", &request("OPTIONS * HTTP/1.1", ""), &["404 not_found", "400 bad_request", "204"]).await;
    s.expect(
        "fragment",
        &request("POST /rollout/token#x HTTP/1.1", &good()),
        &["400 bad_request", "404 not_found", "200"],
    )
    .await;
}

async fn twice(s: Arc<Service>) {
    let token = hs256(&json!({}));
    for (label, headers, outcome) in [
        ("Authorization", bearer(&token).repeat(2), "401 session_invalid"),
        ("cookie", format!("Cookie: session={token}; session={token}\r\n"), "401 session_invalid"),
        ("cookies", format!("Cookie: session={token}\r\nCookie: session={token}\r\n"), "401 session_invalid"),
        (
            "Origin",
            format!("{}Origin: {LISTED}\r\nOrigin: {LISTED}\r\n", bearer(&token)),
            "403 origin_not_allowed",
        ),
        (
            "Sec-Fetch-Site",
            format!("{}Sec-Fetch-Site: none\r\nSec-Fetch-Site: none\r\n", bearer(&token)),
            "403 origin_not_allowed",
        ),
        ("X-Request-Id", format!("{}X-Request-Id: a\r\nX-Request-Id: b\r\n", bearer(&token)), "200"),
        ("both places, one token", format!("{}Cookie: session=x\r\n", bearer(&token)), "200"),
        (
            "both places, the first bad",
            format!("{}Cookie: session={token}\r\n", bearer("x.y.z")),
            "401 session_invalid",
        ),
    ] {
        s.expect(label, &post(&headers), &[outcome]).await;
    }
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

async fn t1(s: Arc<Service>) {
    let reset =
        b"\0\0\x05\x01\x05\0\0\0\x01\x82\x84\x86\x41\x00\0\0\x04\x03\0\0\0\0\x01\0\0\0\x08".repeat(10_000);
    s.expect_or_close("rapid reset", &[PREFACE, &reset].concat(), BAD).await;
    s.healthy().await;
}

async fn t3(s: Arc<Service>) {
    let before = s.usage().resident_kib;
    let mut frame = b"\0\x40\0\x09\0\0\0\0\x01".to_vec();
    frame.resize(9 + 0x4000, b'x');
    s.expect_or_close("continuation", &[PREFACE, &frame.repeat(640)].concat(), BAD).await;
    assert!(s.usage().resident_kib <= before + 1024);
}

async fn t8(s: Arc<Service>) {
    s.expect_or_close("prior knowledge", PREFACE, BAD).await;
    s.expect_or_close("part of it", b"PRI * HTTP/2.0\r\n\r\n", BAD).await;
}

async fn g16(s: Arc<Service>) {
    let good = String::from_utf8(with("", "")).expect("text");
    for line in ["PROXY TCP4 10.0.0.1 127.0.0.1 5 6", "PROXY UNKNOWN", "PROXY TCP6 ::1 ::1 1 2"] {
        s.expect(line, format!("{line}\r\n{good}").as_bytes(), BAD).await;
    }
    let binary = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x7f\0\0\x01\x7f\0\0\x01\0\x01\0\x02";
    s.expect_or_close("binary", &[binary, good.as_bytes()].concat(), BAD).await;
}
