//! Tests of `[outgoing]`: calls through a proxy, and servers whose certificate is not signed by a public CA.

use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::backend::Backend;
use crate::binary::{binary, run};
use crate::helpers::{CLIENT_ID, CLIENT_SECRET, Service};
use crate::settings::ConfigBuilder;

/// A certificate as `openssl req -x509` creates it: self-signed, marked as a CA, and without a host name.
fn plain_openssl() -> (rcgen::Certificate, KeyPair) {
    let mut parameters = CertificateParams::default();
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    (parameters.self_signed(&key).unwrap(), key)
}

async fn head(stream: &mut (impl AsyncReadExt + Unpin)) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => break,
        }
    }
    String::from_utf8(head).unwrap()
}

/// A TLS server on loopback that responds to every request with this JSON. Returns its port.
async fn tls_server(certificate: &rcgen::Certificate, key: &KeyPair, json: &'static str) -> u16 {
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                // A client that does not trust the certificate aborts the handshake.
                let Ok(mut stream) = acceptor.accept(stream).await else {
                    return;
                };
                head(&mut stream).await;
                let answer = format!(
                    "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{json}",
                    json.len()
                );
                stream.write_all(answer.as_bytes()).await.ok();
                stream.shutdown().await.ok();
            });
        }
    });
    port
}

/// A proxy that connects every host name to loopback, and records the request heads.
struct Proxy {
    url: String,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let heads = Arc::new(Mutex::new(Vec::new()));
        let seen = heads.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(Self::lead(stream, seen.clone()));
            }
        });
        Self {
            url: format!("http://user:p%40ss@{address}"),
            heads,
        }
    }

    async fn lead(mut stream: TcpStream, seen: Arc<Mutex<Vec<String>>>) {
        let head = head(&mut stream).await;
        let target = head.split(' ').nth(1).unwrap().to_owned();
        let authority = target.trim_start_matches("http://").split('/').next();
        let port = authority.and_then(|text| text.rsplit(':').next()).unwrap();
        let mut server = TcpStream::connect(("127.0.0.1", port.parse().unwrap()))
            .await
            .unwrap();
        if head.starts_with("CONNECT ") {
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
        } else {
            server.write_all(head.as_bytes()).await.unwrap();
        }
        seen.lock().unwrap().push(head);
        copy_bidirectional(&mut stream, &mut server).await.ok();
    }

    fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }
}

/// A `session_endpoint` section for this URL, with timeouts long enough for a handshake on a busy machine.
fn by_endpoint(url: &str) -> ConfigBuilder {
    ConfigBuilder::new("session.extractors = ['app']").with(format!(
        "[extractors.app]\nkind = 'session_endpoint'\nurl = '{url}'\ncookies = ['sid']\n\
         timeout = '5s'\nconnect_timeout = '5s'"
    ))
}

async fn outcome(toml: ConfigBuilder) -> u16 {
    let service = Service::start(toml);
    service.ask(&[("cookie", "sid=1")]).await.0.as_u16()
}

#[tokio::test]
async fn https_call_goes_through_a_connect_tunnel_with_the_proxy_password() {
    let (certificate, key) = plain_openssl();
    let port = tls_server(&certificate, &key, r#"{"sub":"ann"}"#).await;
    let proxy = Proxy::start().await;
    let toml = by_endpoint(&format!("https://app.internal:{port}/me"))
        .with(format!("outgoing.proxy = '{}'", proxy.url))
        .with(format!("outgoing.ca = '''{}'''", certificate.pem()));
    assert_eq!(outcome(toml).await, 200);
    let heads = proxy.heads();
    assert!(
        heads[0].starts_with(&format!("CONNECT app.internal:{port} HTTP/1.1\r\n")),
        "{heads:?}"
    );
    // The base64 encoding of user:p@ss, in lower case.
    let password = "proxy-authorization: basic dxnlcjpwqhnz";
    assert!(heads[0].to_lowercase().contains(password), "{heads:?}");
    assert!(!heads[0].contains("sid="), "{heads:?}");
}

#[tokio::test]
async fn doctor_and_credentials_read_the_whole_configuration_from_a_pipe() {
    for arguments in [&["doctor"][..], &["credentials", "ann"]] {
        // The proxy refuses the tunnel, so the test needs no TLS handshake, which the command's fixed timeouts would
        // cut off on a busy machine.
        let proxy = Backend::always(502, &[], "").await;
        let toml = format!(
            "client_id = '{CLIENT_ID}'\nclient_secret = '{CLIENT_SECRET}'\n[outgoing]\nproxy = '{}'\n",
            proxy.url("")
        );
        let mut command = binary(arguments);
        command
            .env_clear()
            .args(["--base-url", "https://api.invalid/api"])
            .args(["--config", "/dev/stdin"]);
        let (code, out, err) = tokio::task::spawn_blocking(move || {
            let (reader, mut writer) = std::io::pipe().unwrap();
            writer.write_all(toml.as_bytes()).unwrap();
            drop(writer);
            run(command.stdin(reader))
        })
        .await
        .unwrap();
        let said = out + &err;
        assert_eq!(code, Some(1), "{arguments:?}: {said}");
        assert!(
            said.contains("cannot reach api.invalid"),
            "{arguments:?}: {said}"
        );
        assert_eq!(proxy.visits(), 1, "{arguments:?}: {said}");
    }
}

#[tokio::test]
async fn plain_http_call_goes_through_the_proxy() {
    let app = Backend::json(r#"{"sub":"ann"}"#).await;
    let proxy = Proxy::start().await;
    let url = app.url("/me").replace("127.0.0.1", "app.internal");
    let toml = by_endpoint(&url)
        .with("extractors.app.allow_http = true")
        .with(format!("extractors.app.proxy = '{}'", proxy.url));
    assert_eq!(outcome(toml).await, 200);
    assert!(proxy.heads()[0].starts_with(&format!("GET {url} HTTP/1.1\r\n")));
}

#[tokio::test]
async fn call_is_direct_if_its_host_is_loopback_or_in_no_proxy_or_if_the_section_proxy_is_empty() {
    let app = Backend::json(r#"{"sub":"ann"}"#).await;
    let proxy = Proxy::start().await;
    for host in ["127.0.0.1", "localhost"] {
        let toml = by_endpoint(&app.url("/me").replace("127.0.0.1", host))
            .with(format!("outgoing.proxy = '{}'", proxy.url));
        assert_eq!(outcome(toml).await, 200, "{host}");
    }
    let url = app.url("/me").replace("127.0.0.1", "app.invalid");
    for direct in [
        "outgoing.no_proxy = ['.invalid']",
        "extractors.app.no_proxy = ['app.invalid']",
        "extractors.app.proxy = ''",
    ] {
        let toml = by_endpoint(&url)
            .with("extractors.app.allow_http = true")
            .with(format!("outgoing.proxy = '{}'", proxy.url))
            .with(direct);
        assert_eq!(outcome(toml).await, 503, "{direct}");
    }
    assert_eq!((app.visits(), proxy.heads()), (2, vec![]));
}

#[tokio::test]
async fn status_407_from_the_outgoing_proxy_is_503() {
    let proxy = Backend::always(407, &[], "").await;
    let toml =
        by_endpoint("https://app.invalid/me").with(format!("outgoing.proxy = '{}'", proxy.url("")));
    assert_eq!(outcome(toml).await, 503);
}

#[tokio::test]
async fn self_signed_certificate_is_trusted_only_if_it_is_configured_as_a_ca() {
    let (certificate, key) = plain_openssl();
    let (other, _) = plain_openssl();
    let port = tls_server(&certificate, &key, r#"{"sub":"ann","active":true}"#).await;
    let url = format!("https://127.0.0.1:{port}/");
    let introspection = ConfigBuilder::new("session.extractors = ['app']").with(format!(
        "[extractors.app]\nkind = 'introspection'\nurl = '{url}'\nfrom = ['cookie:sid']\nclient_id = 'us'\n\
         client_secret = 'our secret:of 24 bytes'\nallow_any_client = true\ntimeout = '5s'\nconnect_timeout = '5s'"
    ));
    for toml in [by_endpoint(&url), introspection] {
        for (case, more, want) in [
            ("nothing given", String::new(), 503),
            (
                "for all",
                format!("outgoing.ca = '''{}'''", certificate.pem()),
                200,
            ),
            (
                "for one",
                format!("extractors.app.ca = '''{}'''", certificate.pem()),
                200,
            ),
            (
                "another",
                format!("outgoing.ca = '''{}'''", other.pem()),
                503,
            ),
        ] {
            let toml = ConfigBuilder::new(&toml.to_string()).with(more);
            assert_eq!(outcome(toml).await, want, "{case}");
        }
    }
}

#[tokio::test]
async fn key_set_is_fetched_over_tls_if_the_server_certificate_is_configured_as_a_ca() {
    const KEYS: &str = r#"{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"k1","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;
    let (certificate, key) = plain_openssl();
    let port = tls_server(&certificate, &key, KEYS).await;
    let toml = ConfigBuilder::new("session.extractors = ['app']").with(format!(
        "[extractors.app]\nkind = 'jwt'\njwks_url = 'https://localhost:{port}/jwks'\nissuers = ['https://id.example']\n\
         allow_any_audience = true"
    ));
    // The set has no key with the token's kid: the response is 401 if the set can be fetched, and 503 otherwise.
    let token = "eyJhbGciOiJFZERTQSIsImtpZCI6ImsyIn0.eyJpc3MiOiJodHRwczovL2lkLmV4YW1wbGUiLCJzdWIiOiJhbm4iLCJleHAiOjQwMDAwMDAwMDB9.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    let bearer = format!("Bearer {token}");
    let given = ConfigBuilder::new(&toml.to_string())
        .with(format!("extractors.app.ca = '''{}'''", certificate.pem()));
    let service = Service::start(given);
    let mut status = service.ask(&[("authorization", &bearer)]).await.0;
    // On a busy machine, a handshake may take longer than the fixed timeout of a fetch.
    for _ in 0..10 {
        if status == 503 {
            service.clock.advance(Duration::from_secs(1));
            status = service.ask(&[("authorization", &bearer)]).await.0;
        }
    }
    assert_eq!(status, 401);
    let service = Service::start(toml);
    assert_eq!(service.ask(&[("authorization", &bearer)]).await.0, 503);
}

/// The exit code and output of `explain` for a session endpoint at this URL, with one additional environment variable.
async fn explain(url: &str, name: &str, value: &Path) -> (Option<i32>, String) {
    let mut command = binary(&["explain", "-H", "Cookie: sid=1"]);
    command
        .env_clear()
        .env("ROLLOUT__SESSION__EXTRACTORS", "app")
        .env("ROLLOUT__EXTRACTORS__APP__KIND", "session_endpoint")
        .env("ROLLOUT__EXTRACTORS__APP__URL", url)
        .env("ROLLOUT__EXTRACTORS__APP__COOKIES", "sid")
        .env("ROLLOUT__EXTRACTORS__APP__TIMEOUT", "5s")
        .env("ROLLOUT__EXTRACTORS__APP__CONNECT_TIMEOUT", "5s")
        .envs(crate::helpers::client_variables())
        .env(name, value);
    let (code, out, err) = tokio::task::spawn_blocking(move || run(&mut command))
        .await
        .unwrap();
    (code, out + &err)
}

#[tokio::test]
async fn ssl_cert_file_is_used_and_exit_code_is_2_if_it_is_missing_or_has_no_certificate() {
    let (certificate, key) = plain_openssl();
    let issuer = {
        let mut parameters = CertificateParams::default();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        rcgen::Issuer::new(parameters, key)
    };
    let key = KeyPair::generate().unwrap();
    let named = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let leaf = named.signed_by(&key, &issuer).unwrap();
    let port = tls_server(&leaf, &key, r#"{"sub":"ann"}"#).await;
    let url = format!("https://localhost:{port}/me");
    let folder = tempfile::tempdir().unwrap();
    let (good, empty) = (
        folder.path().join("ca.pem"),
        folder.path().join("empty.pem"),
    );
    std::fs::write(&good, certificate.pem()).unwrap();
    std::fs::write(&empty, "nothing").unwrap();

    let (code, said) = explain(&url, "SSL_CERT_FILE", &good).await;
    assert!(code == Some(0) && said.contains("\"ann\""), "{said}");
    for (path, text) in [
        (folder.path().join("absent.pem"), "cannot be read"),
        (empty, "contains no PEM certificate"),
    ] {
        let (code, said) = explain(&url, "SSL_CERT_FILE", &path).await;
        assert_eq!(code, Some(2), "{said}");
        assert!(
            said.contains("SSL_CERT_FILE: names ") && said.contains(text),
            "{said}"
        );
    }
}

#[tokio::test]
async fn untrusted_certificate_is_reported_with_advice() {
    let (certificate, key) = plain_openssl();
    let named = {
        let key = KeyPair::generate().unwrap();
        let parameters = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        (parameters.self_signed(&key).unwrap(), key)
    };
    for (certificate, key, text) in [
        (
            &certificate,
            &key,
            "set ca_file to exactly this certificate",
        ),
        (
            &named.0,
            &named.1,
            "no trusted CA issued the server's certificate",
        ),
    ] {
        let port = tls_server(certificate, key, "{}").await;
        let url = format!("https://localhost:{port}/me");
        let (_, said) = explain(&url, "UNUSED", Path::new("")).await;
        assert!(said.contains(text), "{said}");
    }
}

#[test]
fn https_proxy_variable_without_outgoing_proxy_is_a_warning() {
    for (own, want) in [
        (None, true),
        (Some(""), false),
        (Some("http://127.0.0.1:3128"), false),
    ] {
        let mut command = binary(&["check-config"]);
        command.env("HTTPS_PROXY", "http://user:hunter2@127.0.0.1:3128");
        command.envs(own.map(|proxy| ("ROLLOUT__OUTGOING__PROXY", proxy)));
        let (code, out, err) = run(&mut command);
        assert_eq!(code, Some(0), "{err}");
        assert_eq!(
            err.contains("HTTPS_PROXY: is set but not used") && err.contains("outgoing.proxy"),
            want,
            "{err}"
        );
        assert!(!(out + &err).contains("hunter2"));
    }
}

#[test]
fn proxy_password_is_not_printed() {
    let mut command = binary(&["check-config", "--print"]);
    command.env(
        "ROLLOUT__OUTGOING__PROXY",
        "http://user:hunter2@127.0.0.1:3128",
    );
    command.env(
        "ROLLOUT__OUTGOING__NO_PROXY",
        "localhost, .internal,10.0.0.0/8",
    );
    let (code, out, err) = run(&mut command);
    assert_eq!(code, Some(0), "{err}");
    assert!(
        out.contains("[outgoing]") && out.contains("10.0.0.0/8"),
        "{out}"
    );
    assert!(!(out + &err).contains("hunter2"));
}

#[test]
fn documented_keys_of_outgoing_are_accepted() {
    let documented = include_str!("../../config/default.toml");
    let (_, section) = documented.split_once("\n[outgoing]\n").unwrap();
    let section = section.split("\n\n").next().unwrap();
    let uncommented: String = section
        .lines()
        .map(|line| format!("{}\n", line.trim_start_matches("# ")))
        .collect();
    // Keys that name files are left out, because the files do not exist here.
    let toml = uncommented
        .replace("ca_file =", "no =")
        .replace("no = ", "#");
    let settings = crate::helpers::load(&format!(
        "{}\n[outgoing]\n{toml}",
        crate::helpers::BY_HEADER
    ));
    let settings = settings.unwrap_or_else(|problems| panic!("{problems}"));
    assert!(uncommented.contains("ca_file ="));
    assert_eq!(
        settings.effective()["outgoing"]["no_proxy"],
        serde_json::json!([".internal"])
    );
}
