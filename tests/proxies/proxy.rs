//! Starts a real nginx or HAProxy on a free port with a temporary directory, and stops it when dropped.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::binary::{Process, binary};

/// A loopback address with a free port. The proxy's configuration needs the services' addresses before they start.
pub fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
}

/// The command of a service that accepts bearer tokens, and `X-Forwarded-User` from a proxy on loopback.
pub fn service(address: SocketAddr) -> Command {
    let mut command = binary(&["serve"]);
    command
        .env("ROLLOUT__SERVER__LISTEN", address.to_string())
        .env("ROLLOUT__SERVER__DOCS_ALIAS", "true")
        .env("ROLLOUT__RATE_LIMIT__PER_MINUTE", "0")
        .env("ROLLOUT__SESSION__EXTRACTORS", "bearer,proxy")
        .env("ROLLOUT__EXTRACTORS__PROXY__KIND", "trusted_header")
        .env("ROLLOUT__EXTRACTORS__PROXY__HEADER", "X-Forwarded-User")
        .env("ROLLOUT__EXTRACTORS__PROXY__TRUSTED_PROXIES", "127.0.0.1");
    for name in ["KIND", "FROM", "SECRET", "ALGORITHMS", "ALLOW_ANY_AUDIENCE"] {
        command.env_remove(format!("ROLLOUT__EXTRACTORS__COOKIE__{name}"));
    }
    command
}

/// Starts the service at this address. A thread reads the log of the returned process.
pub fn start_service(address: SocketAddr) -> Process {
    Process::start(&mut service(address))
}

pub struct Proxy {
    pub address: SocketAddr,
    child: Child,
    directory: TempDir,
    program: &'static str,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // Terminate the proxy instead of killing it, so that its worker processes exit too.
        if let Ok(None) = self.child.try_wait() {
            self.signal(rustix::process::Signal::TERM);
        }
        self.child.wait().ok();
    }
}

impl Proxy {
    /// Starts nginx with these directives at the end of its `http` block. `{listen}` stands for nginx's own address.
    pub fn nginx(http: &str) -> Self {
        Self::nginx_at(free_address(), http)
    }

    /// Like [`Self::nginx`], but listens on this address.
    pub fn nginx_at(address: SocketAddr, http: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        write_nginx(&directory, address, http);
        let at = directory.path();
        let mut command = Command::new("/usr/sbin/nginx");
        command
            .arg("-p")
            .arg(at)
            .arg("-c")
            .arg(at.join("proxy.conf"))
            .arg("-e")
            .arg(at.join("error.log"));
        Self::start("nginx", command, directory, address)
    }

    /// Starts HAProxy with these sections after `defaults`. `{listen}` stands for HAProxy's own address.
    pub fn haproxy(sections: &str) -> Self {
        let (directory, address) = (tempfile::tempdir().unwrap(), free_address());
        let text = format!(
            "defaults
                mode http
                timeout connect 5s
                timeout client 30s
                timeout server 30s
                timeout http-request 10s
                # The proxy must not hide lost requests by retries.
                retries 0
            {}\n",
            sections.replace("{listen}", &address.to_string())
        );
        fs::write(directory.path().join("proxy.conf"), text).unwrap();
        let mut command = Command::new("/usr/sbin/haproxy");
        command
            .arg("-db")
            .arg("-f")
            .arg(directory.path().join("proxy.conf"));
        Self::start("haproxy", command, directory, address)
    }

    fn start(
        program: &'static str,
        mut command: Command,
        directory: TempDir,
        address: SocketAddr,
    ) -> Self {
        let command = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::inherit());
        let child = command
            .spawn()
            .unwrap_or_else(|error| panic!("{program}: {error}; run `make tools`"));
        let mut proxy = Self {
            address,
            child,
            directory,
            program,
        };
        while TcpStream::connect(address).is_err() {
            let ended = proxy.child.try_wait().unwrap();
            assert!(
                ended.is_none(),
                "{program} exited during startup: {ended:?}"
            );
            std::thread::yield_now();
        }
        proxy
    }

    /// Reloads nginx with another configuration, as an ingress controller does when the endpoints change.
    pub fn reconfigure(&self, http: &str) {
        assert_eq!(self.program, "nginx");
        write_nginx(&self.directory, self.address, http);
        self.signal(rustix::process::Signal::HUP);
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let pid = i32::try_from(self.child.id())
            .ok()
            .and_then(rustix::process::Pid::from_raw)
            .unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }
}

fn write_nginx(directory: &TempDir, address: SocketAddr, http: &str) {
    let at = directory.path().display();
    // If nginx runs as root, its workers would switch to a user without write access to this directory.
    let user = if rustix::process::geteuid().is_root() {
        "user root;"
    } else {
        ""
    };
    let text = format!(
        "{user}
        daemon off;
        worker_processes 1;
        pid {at}/pid;
        events {{ worker_connections 4096; }}
        http {{
            access_log off;
            client_body_temp_path {at}/body;
            proxy_temp_path {at}/proxy;
            fastcgi_temp_path {at}/fastcgi;
            uwsgi_temp_path {at}/uwsgi;
            scgi_temp_path {at}/scgi;
            proxy_cache_path {at}/cache keys_zone=answers:1m;
            {}
        }}",
        http.replace("{listen}", &address.to_string())
    );
    fs::write(directory.path().join("new.conf"), text).unwrap();
    fs::rename(
        directory.path().join("new.conf"),
        directory.path().join("proxy.conf"),
    )
    .unwrap();
}

/// An nginx configuration with keep-alive connections to these services, without retries, and with the directives
/// `more` in its location.
pub fn nginx_to(services: &[SocketAddr], more: &str) -> String {
    let servers: String = services
        .iter()
        .map(|address| format!("server {address} max_fails=0;"))
        .collect();
    format!(
        "upstream services {{ {servers} keepalive 16; }}
        server {{
            listen {{listen}};
            location / {{
                proxy_pass http://services;
                proxy_http_version 1.1;
                proxy_next_upstream off;
                proxy_set_header Connection \"\";
                proxy_set_header Host $host;
                {more}
            }}
        }}"
    )
}

/// A HAProxy configuration with keep-alive connections to these services, without retries, and with the directives
/// `more` in its frontend.
pub fn haproxy_to(services: &[SocketAddr], more: &str) -> String {
    let servers: Vec<_> = services
        .iter()
        .enumerate()
        .map(|(n, address)| format!("server s{n} {address} check inter 300ms fall 3 rise 1"))
        .collect();
    format!(
        "frontend front
            bind {{listen}}
            {more}
            default_backend services
        backend services
            option httpchk GET /readyz
            http-check expect status 200
            http-reuse always
            {}",
        servers.join("\n            ")
    )
}
