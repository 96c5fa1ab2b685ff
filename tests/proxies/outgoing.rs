//! Outgoing calls through a real HTTP proxy (tinyproxy) to an app with a self-signed certificate.

use std::fs;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::thread;

use crate::binary::{binary, run};
use crate::proxy::{Proxy, free_address};

/// A tinyproxy that requires a password. It is stopped when this value is dropped.
struct TinyProxy {
    address: SocketAddr,
    child: Child,
    directory: tempfile::TempDir,
}

impl TinyProxy {
    fn start() -> Self {
        let (directory, address) = (tempfile::tempdir().unwrap(), free_address());
        let log = directory.path().join("log");
        let text = format!(
            "Port {}\nListen 127.0.0.1\nTimeout 60\nLogFile \"{}\"\nLogLevel Connect\nBasicAuth user p4ss\n",
            address.port(),
            log.display()
        );
        let configuration = directory.path().join("tinyproxy.conf");
        fs::write(&configuration, text).unwrap();
        let child = Command::new("tinyproxy")
            .arg("-d")
            .arg("-c")
            .arg(configuration)
            .stdout(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("tinyproxy: {error}; run `make tools`"));
        while std::net::TcpStream::connect(address).is_err() {
            thread::yield_now();
        }
        Self {
            address,
            child,
            directory,
        }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }
}

impl Drop for TinyProxy {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Runs `explain` with a session endpoint at this URL. Returns its exit code and output.
fn explain(url: &str, ca: &str, variables: &[(&str, String)]) -> (Option<i32>, String) {
    let mut command = binary(&["explain", "-H", "Cookie: sid=1"]);
    command
        .env_clear()
        .env("ROLLOUT__SESSION__EXTRACTORS", "app")
        .env("ROLLOUT__EXTRACTORS__APP__KIND", "session_endpoint")
        .env("ROLLOUT__EXTRACTORS__APP__URL", url)
        .env("ROLLOUT__EXTRACTORS__APP__COOKIES", "sid")
        .env("ROLLOUT__EXTRACTORS__APP__TIMEOUT", "5s")
        .env("ROLLOUT__EXTRACTORS__APP__CONNECT_TIMEOUT", "5s")
        .env("ROLLOUT__OUTGOING__CA_FILE", ca)
        .envs(crate::helpers::client_variables())
        .envs(variables.iter().map(|(name, value)| (name, value)));
    let (code, out, err) = run(&mut command);
    (code, out + &err)
}

#[test]
fn session_endpoint_with_a_self_signed_certificate_is_called_through_tinyproxy() {
    let directory = tempfile::tempdir().unwrap();
    let (certificate, key) = (
        directory.path().join("app.pem"),
        directory.path().join("app.key"),
    );
    let made = Command::new("openssl")
        .args([
            "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
        ])
        .args(["-subj", "/CN=an app", "-keyout"])
        .arg(&key)
        .arg("-out")
        .arg(&certificate)
        .stderr(Stdio::null())
        .status()
        .expect("openssl is missing: run `make tools`");
    assert!(made.success());
    // The URL contains the machine's host name, because calls to `localhost` never use the proxy.
    let name = run(&mut Command::new("hostname")).1.trim().to_owned();
    let address = free_address();
    let port = address.port();
    let app = Proxy::nginx_at(
        address,
        &format!(
            "server {{
            listen {port} ssl;
            listen [::]:{port} ssl;
            ssl_certificate {};
            ssl_certificate_key {};
            location = /me {{ default_type application/json; return 200 '{{\"sub\":\"ann\"}}'; }}
        }}",
            certificate.display(),
            key.display()
        ),
    );
    let url = format!("https://{name}:{port}/me");
    let ca = certificate.to_str().unwrap();
    let proxy = TinyProxy::start();
    let through = |password: &str| {
        let url = format!("http://user:{password}@{}", proxy.address);
        vec![("ROLLOUT__OUTGOING__PROXY", url)]
    };

    let (code, said) = explain(&url, ca, &through("p4ss"));
    assert!(
        code == Some(0) && said.contains("\"ann\""),
        "{said}\n{}",
        proxy.log()
    );
    let connected = format!("CONNECT {name}:{port}");
    assert_eq!(
        proxy.log().matches(&connected).count(),
        1,
        "{}",
        proxy.log()
    );

    let (_, said) = explain(&url, ca, &through("wrong"));
    assert!(
        said.contains("unreachable") && !said.contains("wrong"),
        "{said}"
    );

    let mut direct = through("p4ss");
    direct.push(("ROLLOUT__OUTGOING__NO_PROXY", name.clone()));
    let before = proxy.log();
    let (code, said) = explain(&url, ca, &direct);
    assert!(code == Some(0) && said.contains("\"ann\""), "{said}");
    assert_eq!(proxy.log(), before);
    drop(app);
}
