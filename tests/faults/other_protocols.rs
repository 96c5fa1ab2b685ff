//! Bytes that are not HTTP/1: TLS, HTTP/2, the PROXY protocol, and random bytes.

use crate::configs::by_jwt;
use crate::framing::with;
use crate::service::Service;

const BAD: &[&str] = &["400 bad_request"];

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

#[tokio::test]
async fn tls_ssh_redis_and_random_bytes_get_an_error_or_a_closed_connection() {
    let s = Service::start(by_jwt()).await;
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
            &[
                "400 bad_request",
                "431 headers_too_large",
                "414 uri_too_long",
            ],
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
    s.finish().await;
}

#[tokio::test]
async fn http2_rapid_reset_is_400_or_closed() {
    let s = Service::start(by_jwt()).await;
    let reset = b"\0\0\x05\x01\x05\0\0\0\x01\x82\x84\x86\x41\x00\0\0\x04\x03\0\0\0\0\x01\0\0\0\x08"
        .repeat(10_000);
    s.expect_or_close("rapid reset", &[PREFACE, &reset].concat(), BAD)
        .await;
    s.healthy().await;
    s.finish().await;
}

#[tokio::test]
async fn http2_endless_continuation_frames_use_less_than_1_mib() {
    let s = Service::start(by_jwt()).await;
    let before = s.usage().resident_kib;
    let mut frame = b"\0\x40\0\x09\0\0\0\0\x01".to_vec();
    frame.resize(9 + 0x4000, b'x');
    s.expect_or_close("continuation", &[PREFACE, &frame.repeat(640)].concat(), BAD)
        .await;
    assert!(s.usage().resident_kib <= before + 1024);
    s.finish().await;
}

#[tokio::test]
async fn http2_prior_knowledge_is_400_or_closed() {
    let s = Service::start(by_jwt()).await;
    s.expect_or_close("prior knowledge", PREFACE, BAD).await;
    s.expect_or_close("part of it", b"PRI * HTTP/2.0\r\n\r\n", BAD)
        .await;
    s.finish().await;
}

#[tokio::test]
async fn proxy_protocol_is_400_or_closed() {
    let s = Service::start(by_jwt()).await;
    let good = String::from_utf8(with("", "")).expect("text");
    for line in [
        "PROXY TCP4 10.0.0.1 127.0.0.1 5 6",
        "PROXY UNKNOWN",
        "PROXY TCP6 ::1 ::1 1 2",
    ] {
        s.expect(line, format!("{line}\r\n{good}").as_bytes(), BAD)
            .await;
    }
    let binary = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x7f\0\0\x01\x7f\0\0\x01\0\x01\0\x02";
    s.expect_or_close("binary", &[binary, good.as_bytes()].concat(), BAD)
        .await;
    s.finish().await;
}
