//! `dev` treats every caller as signed in unless extractors are configured, so it must be reachable from this machine
//! only.

use crate::service::{Service, Setup, refuses};
use crate::wire::{post, request};

const FORBIDDEN: &[&str] = &["403 origin_not_allowed"];

fn dev() -> Setup {
    Setup::new("")
        .arguments(&["dev"])
        .env("ROLLOUT__LOG__FORMAT", "json")
        .env("ROLLOUT__SERVER__LISTEN", "127.0.0.1:0")
}

#[tokio::test]
async fn dev_mode_on_a_public_address_or_in_production_is_refused_at_start() {
    for (name, value) in [
        ("ROLLOUT__SERVER__LISTEN", "0.0.0.0:0"),
        ("ROLLOUT__SERVER__LISTEN", "[::]:0"),
        ("ROLLOUT__SERVER__ADMIN_LISTEN", "0.0.0.0:0"),
    ] {
        let (code, text) = dev().env(name, value).refusal().await;
        assert!(
            code == 2 && text.contains("loopback"),
            "{name}={value}: {text}"
        );
    }
    for name in ["ENV", "APP_ENV", "NODE_ENV", "RAILS_ENV"] {
        for value in ["production", "PRODUCTION"] {
            let (code, text) = dev().env(name, value).refusal().await;
            assert!(code == 2 && text.contains(name), "{name}={value}: {text}");
        }
    }
    let toml = "[session]\nextractors = [\"static_user\"]\n";
    refuses(toml, "static_user").await;
}

#[tokio::test]
async fn dev_mode_adds_x_rollout_dev_to_every_answer() {
    let s = Service::start_with(&dev()).await;
    for asked in [
        post(""),
        request("GET /healthz HTTP/1.1", ""),
        request("GET /nothing HTTP/1.1", ""),
        post("Origin: https://evil\r\n"),
        request("GET / HTTP/1.1", ""),
    ] {
        let asked = String::from_utf8(asked)
            .expect("text")
            .replace("Host: app.example", "Host: localhost");
        let answer = s.one(asked.as_bytes()).await;
        assert_eq!(answer.header("x-rollout-dev"), Some("1"), "{answer:?}");
    }
    assert_eq!(s.ready().await.json()["dev"], true);
    s.logs("\"dev\":true", 1).await;
    s.logs("Development mode", 1).await;
    s.does_not_count();
    s.finish().await;
}

#[tokio::test]
async fn foreign_origin_or_host_in_dev_mode_is_403() {
    let s = Service::start_with(&dev().env("ROLLOUT__ORIGINS__ALLOWED", None)).await;
    let at_home = |headers: &str| {
        String::from_utf8(post(headers))
            .expect("text")
            .replace("Host: app.example", "Host: localhost")
            .into_bytes()
    };
    for headers in [
        "Origin: https://evil\r\n",
        "Origin: null\r\n",
        "Sec-Fetch-Site: cross-site\r\n",
        "Sec-Fetch-Site: same-site\r\n",
        "Origin: http://localhost.evil\r\n",
        "Origin: http://10.0.0.1:9\r\n",
        "Origin: capacitor://localhost\r\n",
    ] {
        s.expect(headers, &at_home(headers), FORBIDDEN).await;
    }
    for headers in [
        "Sec-Fetch-Site: same-origin\r\n",
        "Origin: http://localhost:5173\r\nSec-Fetch-Site: same-site\r\n",
        "Origin: http://127.0.0.1:9\r\nSec-Fetch-Site: cross-site\r\n",
    ] {
        s.expect(headers, &at_home(headers), &["200"]).await;
    }
    // Only the dev page itself may call the endpoints under `/dev/`.
    let samples = request(
        "GET /dev/samples HTTP/1.1",
        "Origin: http://localhost:5173\r\n",
    );
    let samples = String::from_utf8(samples)
        .expect("text")
        .replace("Host: app.example", "Host: localhost");
    let answer = s.expect("samples", samples.as_bytes(), FORBIDDEN).await;
    assert_eq!(answer.header("access-control-allow-origin"), None);
    // A `Host` that is not a loopback host is refused, even if the name resolves to this machine.
    for host in [
        "evil.example",
        "localhost.evil.example",
        "127.0.0.1.nip.io",
        "10.0.0.1",
    ] {
        s.expect(
            host,
            &String::from_utf8(at_home(""))
                .expect("text")
                .replace("localhost", host)
                .into_bytes(),
            &["403 host_not_allowed"],
        )
        .await;
    }
    s.finish().await;
}
