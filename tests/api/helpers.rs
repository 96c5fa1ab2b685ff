//! The test harness: a running service in this process, and requests to it.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use reqwest::{Method, RequestBuilder, Response, StatusCode};
use rollout_token::clock::{Clock, ManualClock};
use rollout_token::config::{Problems, Sources};
use rollout_token::http::app::{self, App};
use rollout_token::http::server::{self, Drain, Listener};
use rollout_token::session::backends::Context;
use rollout_token::session::registry::Registry;
use rollout_token::settings::{self, Settings};
use rollout_token::telemetry::metrics::Metrics;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use url::form_urlencoded;

pub const CLIENT_ID: &str = "test-client";
pub const CLIENT_SECRET: &str =
    "client-secret-client-secret-client-secret-client-secret-client-secret";
pub const SESSION_SECRET: &str = "session-secret-session-secret-session-secret";
pub const NOW: i64 = 1_800_000_000;

/// A section that accepts HS256 session tokens, as a bearer token or in a cookie.
pub const BY_JWT: &str = r#"
    [session]
    extractors = ["web"]
    [extractors.web]
    kind = "jwt"
    from = ["header:authorization", "cookie:session"]
    secret = "session-secret-session-secret-session-secret"
    algorithms = ["HS256"]
    allow_any_audience = true
"#;

/// A section that trusts `X-User` from the peer 127.0.0.1.
pub const BY_HEADER: &str = r#"
    [session]
    extractors = ["proxy"]
    [extractors.proxy]
    kind = "trusted_header"
    header = "X-User"
    trusted_proxies = ["127.0.0.1"]
"#;

/// A service on free ports, which stops when the test ends. Only the test advances the service's clock.
pub struct Service {
    pub address: SocketAddr,
    pub admin: SocketAddr,
    pub clock: Arc<ManualClock>,
    pub drain: Drain,
    http: reqwest::Client,
}

impl Service {
    pub fn start(toml: impl Display) -> Self {
        Self::with(toml, Registry::builtin(), false)
    }

    pub fn start_dev(toml: impl Display) -> Self {
        Self::with(toml, Registry::builtin(), true)
    }

    pub fn with(toml: impl Display, registry: Registry, dev: bool) -> Self {
        Self::try_with(toml, registry, dev).expect("a valid configuration")
    }

    /// Like [`Service::start`], but returns the problems of an invalid configuration.
    #[allow(
        dead_code,
        reason = "some test programs that include this harness do not call it"
    )]
    pub fn try_start(toml: impl Display) -> Result<Self, Problems> {
        Self::try_with(toml, Registry::builtin(), false)
    }

    fn try_with(toml: impl Display, registry: Registry, dev: bool) -> Result<Self, Problems> {
        let clock = ManualClock::at(NOW);
        let mut context = Context::new(Clock::new(clock.clone()), Arc::new(Metrics::new()));
        context.dev = dev;
        let mut variables = client_variables();
        for name in ["ROLLOUT__SERVER__LISTEN", "ROLLOUT__SERVER__ADMIN_LISTEN"] {
            variables.insert(name.to_owned(), "127.0.0.1:0".to_owned());
        }
        let file = file_of(&toml.to_string());
        let settings = load_from(vec![file.path().to_owned()], variables, &registry, &context)?;
        let addresses = &settings.server.restart;
        let public = server::bind(addresses.listen).expect("a free port");
        let admin = server::bind(addresses.admin_listen).expect("a free port");
        let (address, admin_address) = (public.local_addr().unwrap(), admin.local_addr().unwrap());
        let drain = Drain::default();
        let app = App::new(settings, &registry, context, drain.clone());
        app.live().settings.chain.start();
        let public = Listener {
            socket: public,
            router: app::public(&app),
        };
        let admin = Listener {
            socket: admin,
            router: app::admin(&app),
        };
        let (live, draining) = (app.server_settings(), drain.clone());
        let (metrics, log) = (app.metrics.clone(), app.log.clone());
        tokio::spawn(
            async move { server::run(public, admin, live, metrics, log, &draining).await },
        );
        let http = client();
        Ok(Self {
            address,
            admin: admin_address,
            clock,
            drain,
            http,
        })
    }

    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http
            .request(method, format!("http://{}{path}", self.address))
    }

    pub fn post(&self) -> RequestBuilder {
        self.request(Method::POST, "/rollout/token")
    }

    /// The dev page's request to explain a pasted request.
    #[allow(
        dead_code,
        reason = "some test programs that include this harness do not call it"
    )]
    pub fn dev_explain(&self, pasted: &str) -> RequestBuilder {
        let form = form_urlencoded::Serializer::new(String::new())
            .append_pair("request", pasted)
            .finish();
        self.request(Method::POST, "/dev/explain").body(form)
    }

    pub async fn metrics(&self) -> String {
        self.http
            .get(format!("http://{}/metrics", self.admin))
            .send()
            .await
            .unwrap()
            .text()
            .await
            .unwrap()
    }

    /// Sends these bytes on a new connection, and closes the sending side. Returns everything that the service sends
    /// until it closes the connection.
    pub async fn raw(&self, bytes: &[u8]) -> String {
        let mut stream = TcpStream::connect(self.address)
            .await
            .expect("a connection");
        stream.write_all(bytes).await.expect("the service reads");
        stream.shutdown().await.ok();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.ok();
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// Sends a POST with these headers.
    pub async fn send(&self, headers: &[(&str, &str)]) -> Response {
        let request = with_headers(self.post(), headers);
        request.send().await.expect("an answer")
    }

    /// Sends a POST with these headers. Returns the response's status and body.
    pub async fn ask(&self, headers: &[(&str, &str)]) -> (StatusCode, Value) {
        answer(self.send(headers).await).await
    }

    /// Sends a POST with these headers. Returns the token's subject, or the status and code of the refusal.
    #[allow(
        dead_code,
        reason = "some test programs that include this harness do not call it"
    )]
    pub async fn outcome(&self, headers: &[(&str, &str)]) -> Result<String, (u16, String)> {
        let (status, body) = self.ask(headers).await;
        let text = |value: &Value| value.as_str().expect("text").to_owned();
        if status == StatusCode::OK {
            return Ok(text(&verified(&body)["sub"]));
        }
        assert!(body.get("token").is_none(), "a token in a refusal");
        Err((status.as_u16(), text(&body["code"])))
    }
}

/// Adds these headers to a request.
pub fn with_headers(request: RequestBuilder, headers: &[(&str, &str)]) -> RequestBuilder {
    headers.iter().fold(request, |request, (name, value)| {
        request.header(*name, *value)
    })
}

/// An HTTP client that neither follows redirects nor uses the machine's proxies or certificates.
pub fn client() -> reqwest::Client {
    reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .tls_certs_only([])
        .build()
        .expect("a client")
}

/// Loads a configuration file with this content, and the tests' client id and secret.
pub fn load(toml: &str) -> Result<Settings, Problems> {
    let context = Context::new(Clock::new(ManualClock::at(NOW)), Arc::new(Metrics::new()));
    load_with(toml, &Registry::builtin(), &context)
}

pub fn load_with(toml: &str, registry: &Registry, context: &Context) -> Result<Settings, Problems> {
    let file = file_of(toml);
    load_from(
        vec![file.path().to_owned()],
        client_variables(),
        registry,
        context,
    )
}

pub fn file_of(toml: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), toml).expect("a writable file");
    file
}

pub fn load_from(
    files: Vec<PathBuf>,
    environment: BTreeMap<String, String>,
    registry: &Registry,
    context: &Context,
) -> Result<Settings, Problems> {
    settings::load(
        &Sources {
            files,
            environment,
            ..Sources::default()
        },
        registry,
        context,
    )
}

pub fn client_variables() -> BTreeMap<String, String> {
    BTreeMap::from([
        ("ROLLOUT_CLIENT_ID".to_owned(), CLIENT_ID.to_owned()),
        ("ROLLOUT_CLIENT_SECRET".to_owned(), CLIENT_SECRET.to_owned()),
    ])
}

/// A session token that [`BY_JWT`] accepts, unless `claims` replaces a valid claim with an invalid one.
pub fn session_token(claims: Value) -> String {
    let mut all = json!({"sub": "user-1", "exp": NOW + 600});
    for (name, value) in claims.as_object().expect("claims") {
        all[name] = value.clone();
    }
    sign_session(&all)
}

pub fn sign_session(claims: &Value) -> String {
    let key = jsonwebtoken::EncodingKey::from_secret(SESSION_SECRET.as_bytes());
    jsonwebtoken::encode(&jsonwebtoken::Header::default(), claims, &key).expect("a token")
}

/// The claims of the minted token in `body`, after the JWT library has verified its signature.
pub fn verified(body: &Value) -> Value {
    let mut validation = jsonwebtoken::Validation::new(jsonwebtoken::Algorithm::HS512);
    validation.validate_exp = false;
    let key = jsonwebtoken::DecodingKey::from_secret(CLIENT_SECRET.as_bytes());
    let token = body["token"]
        .as_str()
        .unwrap_or_else(|| panic!("no token in {body}"));
    jsonwebtoken::decode(token, &key, &validation)
        .expect("a token signed with the client secret")
        .claims
}

pub async fn answer(response: Response) -> (StatusCode, Value) {
    let status = response.status();
    let body = response
        .json()
        .await
        .unwrap_or_else(|error| panic!("{status} without JSON: {error}"));
    (status, body)
}

/// Checks the headers and body members that every refusal must have. Returns its status and code.
pub async fn refused(response: Response) -> (u16, String) {
    let (status, headers) = (response.status(), response.headers().clone());
    assert_eq!(headers["content-type"], "application/problem+json");
    assert_eq!(headers["cache-control"], "no-store");
    assert_eq!(headers["x-content-type-options"], "nosniff");
    assert_eq!(headers["vary"], "Origin");
    let body: Value = response.json().await.expect("a JSON body");
    assert_eq!(body["status"], status.as_u16());
    assert_eq!(
        body["request_id"],
        headers["x-request-id"].to_str().unwrap()
    );
    for member in ["type", "title", "detail"] {
        assert!(body[member].is_string(), "{member} in {body}");
    }
    assert!(body.get("token").is_none(), "a token in a refusal");
    (
        status.as_u16(),
        body["code"].as_str().expect("a code").to_owned(),
    )
}
