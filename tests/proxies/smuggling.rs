//! Requests that a proxy and the service might frame differently: no smuggled request reaches the service, and the next
//! caller gets the response to its own request.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::binary::good_session;
use crate::helpers::client;
use crate::proxy::{Proxy, free_address, haproxy_to, nginx_to, start_service};

const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: x\r\nX-Ignore: ";

/// Framing headers that two parsers may interpret differently (CL: `Content-Length`, TE: `Transfer-Encoding`).
const FRAMES: [(&str, &str); 14] = [
    (
        "CL and TE",
        "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n",
    ),
    (
        "TE and CL",
        "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n",
    ),
    (
        "another transfer coding",
        "Content-Length: 4\r\nTransfer-Encoding: xchunked\r\n",
    ),
    (
        "TE with a space before the colon",
        "Content-Length: 4\r\nTransfer-Encoding : chunked\r\n",
    ),
    (
        "TE with a tab",
        "Content-Length: 4\r\nTransfer-Encoding:\tchunked\r\n",
    ),
    (
        "TE with a vertical tab",
        "Content-Length: 4\r\nTransfer-Encoding: \x0bchunked\r\n",
    ),
    (
        "TE folded",
        "Content-Length: 4\r\nTransfer-Encoding:\r\n chunked\r\n",
    ),
    (
        "TE twice",
        "Content-Length: 4\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
    ),
    (
        "TE list",
        "Content-Length: 4\r\nTransfer-Encoding: identity, chunked\r\n",
    ),
    (
        "TE after a bare LF",
        "Content-Length: 4\r\nX: y\nTransfer-Encoding: chunked\r\n",
    ),
    ("two CL", "Content-Length: 4\r\nContent-Length: 0\r\n"),
    ("CL with a sign", "Content-Length: +4\r\n"),
    ("CL in a list", "Content-Length: 4, 4\r\n"),
    (
        "underscore",
        "Content_Length: 400\r\nTransfer_Encoding: chunked\r\n",
    ),
];

/// Bodies that end before the smuggled request for one parser, and after it for another parser.
fn bodies() -> [String; 3] {
    [
        format!("0\r\n\r\n{SMUGGLED}"),
        format!("1\r\nZ\r\n0\r\n\r\n{SMUGGLED}"),
        format!("5;\n{SMUGGLED}"),
    ]
}

/// What the client does after it has sent the request.
#[derive(PartialEq, Eq)]
pub enum Talk {
    /// Shuts down the sending side, so that the proxy does not wait for the rest of the body.
    HangUp,
    /// Keeps the sending side open.
    Stay,
}

/// Sends these bytes, and returns everything that the proxy sends until it closes the connection.
pub async fn talk(proxy: SocketAddr, bytes: &[u8], then: Talk) -> String {
    let mut stream = TcpStream::connect(proxy).await.unwrap();
    let _ = stream.write_all(bytes).await;
    if then == Talk::HangUp {
        let _ = stream.shutdown().await;
    }
    let mut answer = Vec::new();
    let _ = timeout(Duration::from_secs(20), stream.read_to_end(&mut answer))
        .await
        .expect("an end");
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn smuggled_request_does_not_reach_the_service_behind_a_proxy() {
    let address = free_address();
    let service = start_service(address);
    for (what, proxy) in [
        ("nginx", Proxy::nginx(&nginx_to(&[address], ""))),
        (
            "nginx without buffering",
            Proxy::nginx(&nginx_to(&[address], "proxy_request_buffering off;")),
        ),
        ("HAProxy", Proxy::haproxy(&haproxy_to(&[address], ""))),
        (
            "HAProxy with accept-invalid-http-request",
            Proxy::haproxy(&haproxy_to(
                &[address],
                "option accept-invalid-http-request",
            )),
        ),
    ] {
        for (case, frame) in FRAMES {
            for body in bodies() {
                let head = "POST /rollout/token HTTP/1.1\r\nHost: a\r\n";
                let said = talk(
                    proxy.address,
                    format!("{head}{frame}\r\n{body}").as_bytes(),
                    Talk::HangUp,
                )
                .await;
                assert!(!said.contains("HTTP/1.1 200"), "{what}, {case}: {said}");

                let id = "the-next-caller";
                let next = client()
                    .post(proxy.url("/rollout/token"))
                    .bearer_auth(good_session());
                let next = next
                    .header("x-request-id", id)
                    .send()
                    .await
                    .expect("an answer");
                assert_eq!(next.status(), 200, "{what}, after {case}");
                assert_eq!(
                    next.headers()["x-request-id"],
                    id,
                    "{what}, after {case}: the response has another request's id"
                );
            }
        }
    }
    let metrics = || async {
        let url = format!("http://{}/metrics", service.admin);
        client()
            .get(url)
            .send()
            .await
            .unwrap()
            .text()
            .await
            .unwrap()
    };
    let arrived = r#"outcome="not_found""#;
    assert!(
        !metrics().await.contains(arrived),
        "a smuggled request arrived"
    );
    client()
        .get(format!("http://{address}/smuggled"))
        .send()
        .await
        .unwrap();
    assert!(
        metrics().await.contains(arrived),
        "a request for /smuggled that is sent directly must be counted"
    );
}
