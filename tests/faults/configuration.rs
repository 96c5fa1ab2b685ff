//! Invalid configurations: the service must refuse to start, and its report must name the key.

use crate::configs::{by_endpoint_url, by_jwks_url, by_jwt};
use crate::sentinels::{UPSTREAM_SECRET, no_sentinel};
use crate::service::{Service, Setup, refuses};
use crate::upstream::{Act, Upstream};

#[tokio::test]
async fn unknown_duplicate_or_wrongly_typed_key_is_refused_at_start() {
    for (toml, key) in [
        (by_jwt().with("unknown = 1"), "unknown"),
        (
            by_jwt().with("server.lissten = '127.0.0.1:0'"),
            "server.lissten",
        ),
        (
            by_jwt().with("extractors.web.issuer = ['x']"),
            "extractors.web.issuer",
        ),
        (
            by_jwt().with("server.max_headers = 'many'"),
            "server.max_headers",
        ),
        (
            by_jwt().with("server.max_headers = -1"),
            "server.max_headers",
        ),
        (by_jwt().with("token = 5"), "token"),
        (
            by_jwt().with("extractors.web.issuers = 5"),
            "extractors.web.issuers",
        ),
        (
            by_jwt().with("extractors.other.kind = 'api_key'"),
            "extractors.other",
        ),
        (
            by_jwt().with("session.extractors = ['web', 'gone']"),
            "extractors.gone",
        ),
        (
            by_jwt().with("session.extractors = ['web', 'web']"),
            "session.extractors",
        ),
        (
            by_jwt().with("extractors.web.kind = 'jwtt'"),
            "extractors.web.kind",
        ),
        (
            by_jwt().with("extractors.web.preset = 'unknown'"),
            "extractors.web.preset",
        ),
    ] {
        refuses(toml, key).await;
    }
    refuses(format!("{}\nunused = 1\nunused = 2\n", by_jwt()), "line").await;
    for (name, key) in [
        ("ROLLOUT__SERVER__LISSTEN", "server.lissten"),
        ("ROLLOUT__SERVR__LISTEN", "servr"),
        ("ROLLOUT__EXTRACTORS__WEB__ISUERS", "extractors.web.isuers"),
    ] {
        let (code, text) = Setup::new(by_jwt()).env(name, Some("x")).refusal().await;
        assert!(code == 2 && text.contains(key), "{name}: {text}");
    }
    let (code, text) = Setup::new(by_jwt())
        .env("ROLLOUT_CLIENT_SECRET_FILE", Some("/etc/hostname"))
        .refusal()
        .await;
    assert!(code == 2 && text.contains("client_secret"), "{text}");
    // Kubernetes sets these variables if a Service is named `rollout`. The service ignores them.
    let s = Service::start_with(
        &Setup::new(by_jwt())
            .env("ROLLOUT_PORT", Some("tcp://10.0.0.1:80"))
            .env("ROLLOUT_SERVICE_HOST", Some("10.0.0.1")),
    )
    .await;
    s.finish().await;
}

#[tokio::test]
async fn missing_extractor_is_refused_at_start() {
    refuses("[session]\nextractors = []\n", "session.extractors").await;
    refuses("", "session.extractors").await;
    refuses("[extractors.web]\nkind = \"jwt\"\n", "session.extractors").await;
    refuses("session.extractors = \"jwt\"\n", "extractors.jwt").await;
}

#[tokio::test]
async fn plain_http_to_a_non_loopback_backend_is_refused_at_start() {
    for url in [
        "http://id.example/keys",
        "http://10.0.0.1/keys",
        "http://127.0.0.1.evil.example/keys",
        "http://localhost.evil/keys",
        "http://[2001:db8::1]/keys",
        "http://0.0.0.0/keys",
    ] {
        refuses(by_jwks_url(url), "extractors.web.jwks_url").await;
        refuses(by_endpoint_url(url), "extractors.app.url").await;
    }
}

#[tokio::test]
async fn unsafe_url_is_refused_at_start() {
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
        refuses(by_endpoint_url(&url), "extractors.app.url").await;
    }
}

#[tokio::test]
async fn invalid_duration_is_refused_at_start() {
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
            let (code, text) = Setup::new(by_jwt().with(format!("{section}.{key} = {value}")))
                .arguments(&["check-config"])
                .refusal()
                .await;
            assert!(
                code == 2 && text.contains(&format!("{section}.{key}")),
                "{key} = {value}: {text}"
            );
        }
    }
    for (toml, key) in [
        (
            by_jwt().with("server.drain_delay = '30s'"),
            "server.hard_stop",
        ),
        (
            by_jwt().with("server.request_timeout = '60s'"),
            "server.drain_timeout",
        ),
        (by_jwt().with("token.ttl = '16m'"), "token.ttl"),
        (by_jwt().with("token.ttl = '29s'"), "token.ttl"),
        (by_jwt().with("token.ttl = '30500ms'"), "token.ttl"),
    ] {
        refuses(toml, key).await;
    }
}

#[tokio::test]
async fn missing_issuer_or_audience_is_refused_at_start() {
    let public = || by_jwks_url("https://id.example/keys");
    for key in ["extractors.web.issuers", "extractors.web.audiences"] {
        refuses(public().without(key), key).await;
        refuses(public().with(format!("{key} = []")), key).await;
        refuses(public().with(format!("{key} = ['']")), key).await;
    }
}

#[tokio::test]
async fn check_config_makes_no_network_calls() {
    let trap = Upstream::start(Act::Hang).await;
    let config = by_jwks_url(&format!("http://127.0.0.1:{}/keys", trap.port));
    let (code, text) = Setup::new(config)
        .arguments(&["check-config"])
        .refusal()
        .await;
    assert_eq!(code, 0, "{text}");
    let (code, _) = Setup::new("garbage = [")
        .arguments(&["check-config"])
        .refusal()
        .await;
    assert_eq!(code, 2);
    assert_eq!(trap.connections(), 0);
    let (code, text) = Setup::new(by_jwt())
        .arguments(&["check-confg"])
        .refusal()
        .await;
    assert_eq!(code, 2, "{text}");
    no_sentinel("a report", text.as_bytes());
}
