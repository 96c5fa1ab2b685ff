//! Keep-alive connections between a proxy and the service: the proxy closes idle connections before the service does,
//! and the proxy's request buffering does not change the response.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use tokio::time::sleep;

use crate::binary::{Process, good_session};
use crate::helpers::client;
use crate::proxy::{Proxy, free_address, haproxy_to, nginx_to, service, start_service};
use crate::smuggling::{Talk, talk};

/// The proxy's idle timeout. The default idle timeouts are 60 s in nginx and 75 s in the service; the tests use a
/// hundredth of each, so the proxy still closes idle connections before the service does.
const PROXY_KEEPS: Duration = Duration::from_millis(600);
const SERVICE_KEEPS: &str = "750ms";

#[tokio::test]
async fn request_near_the_proxys_idle_timeout_is_not_lost() {
    let address = free_address();
    let _service =
        Process::start(service(address).env("ROLLOUT__SERVER__IDLE_TIMEOUT", SERVICE_KEEPS));
    let nginx =
        nginx_to(&[address], "").replace("keepalive 16;", "keepalive 16; keepalive_timeout 600ms;");
    // By default, HAProxy closes half of its idle connections every 5 s; here it does so every 50 ms.
    let haproxy = haproxy_to(&[address], "");
    let haproxy = haproxy.replace(
        "http-reuse always",
        "http-reuse always\n default-server pool-purge-delay 50ms",
    );
    for proxy in [Proxy::nginx(&nginx), Proxy::haproxy(&haproxy)] {
        let url = proxy.url("/rollout/token");
        // The clients' pauses range from 420 ms, which is below the proxy's idle timeout, to 774 ms, which is above the
        // service's idle timeout.
        let clients = (0..60_u32).map(|n| {
            let (url, pause) = (url.clone(), PROXY_KEEPS * (70 + n) / 100);
            tokio::spawn(async move {
                let (http, session) = (client(), good_session());
                for _ in 0..5 {
                    let response = http
                        .post(&url)
                        .bearer_auth(&session)
                        .send()
                        .await
                        .expect("an answer");
                    assert_eq!(response.status(), 200, "after {pause:?}");
                    sleep(pause).await;
                }
            })
        });
        for client in clients.collect::<Vec<_>>() {
            client.await.expect("nothing lost");
        }
    }
}

#[tokio::test]
async fn answer_is_the_same_whether_the_proxy_buffers_or_streams_the_body() {
    let address = free_address();
    let _service = start_service(address);
    for buffering in ["on", "off"] {
        let proxy = Proxy::nginx(&nginx_to(
            &[address],
            &format!("proxy_request_buffering {buffering};"),
        ));
        let request = || {
            client()
                .post(proxy.url("/rollout/token"))
                .bearer_auth(good_session())
        };
        for (case, request, want) in [
            ("no body", request(), 200),
            (
                "an empty body",
                request().header("content-length", "0"),
                200,
            ),
            (
                "a small body",
                request()
                    .header("content-type", "application/json")
                    .body("{}"),
                200,
            ),
            (
                "a body above the size limit",
                request().body("x".repeat(5000)),
                413,
            ),
        ] {
            let response = request.send().await.expect("an answer");
            assert_eq!(
                response.status().as_u16(),
                want,
                "{case}, buffering {buffering}"
            );
            let type_ = response.headers()["content-type"]
                .to_str()
                .unwrap()
                .to_owned();
            assert!(type_.ends_with("json"), "{case}: {type_}");
            response.bytes().await.expect("the whole answer");
        }
        // With buffering, nginx forwards a chunked body with `Content-Length`; without buffering it forwards the
        // chunks.
        let asked = format!(
            "POST /rollout/token HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {}\r\nConnection: close\r\n\
             Transfer-Encoding: chunked\r\n\r\n2\r\n{{}}\r\n0\r\n\r\n",
            good_session()
        );
        let said = talk(proxy.address, asked.as_bytes(), Talk::Stay).await;
        assert!(
            said.starts_with("HTTP/1.1 200 "),
            "buffering {buffering}: {said}"
        );
        assert_eq!(
            request().send().await.expect("an answer").status(),
            200,
            "the next request gets a token too"
        );
    }
}

/// An HTTP/2 request needs no `Content-Length`. Without one, HAProxy forwards the body, even an empty one, as chunks.
#[tokio::test]
async fn http2_request_without_content_length_gets_a_token_behind_haproxy() {
    let address = free_address();
    let _service = start_service(address);
    let haproxy = haproxy_to(&[address], "");
    let proxy = Proxy::haproxy(&haproxy.replace("bind {listen}", "bind {listen} proto h2"));
    for body in ["", "{}", &"x".repeat(5000)] {
        let mut command = Command::new("curl");
        command
            .args(["-sS", "--http2-prior-knowledge", "-X", "POST", "-T", "-"])
            .args(["-o", "/dev/null", "-w", "%{http_version} %{http_code}"])
            .args(["-H", &format!("Authorization: Bearer {}", good_session())])
            .arg(proxy.url("/rollout/token"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = command.spawn().expect("curl");
        let mut stdin = child.stdin.take().expect("piped");
        stdin.write_all(body.as_bytes()).expect("curl reads");
        drop(stdin);
        let said = child.wait_with_output().expect("curl ends").stdout;
        let want = if body.len() > 4096 { "2 413" } else { "2 200" };
        assert_eq!(String::from_utf8_lossy(&said), want, "{} bytes", body.len());
    }
}
