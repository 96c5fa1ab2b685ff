//! Tests of key sets from a real HTTP server that counts its requests and sends the responses that the test chooses.
//! Each test sets the clock itself, so no test waits for time to pass.

#![expect(clippy::expect_used, reason = "a test fails by panicking")]
#![expect(clippy::too_many_lines, reason = "test-case tables are long")]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Response, Uri};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_util::{FutureExt, StreamExt, future, stream};
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, crypto};
use rollout_token::clock::{Clock, ManualClock};
use rollout_token::session::backends::Context;
use rollout_token::session::contract;
use rollout_token::session::registry::Registry;
use rollout_token::session::types::{ExtractError, Readiness, SessionExtractor};
use rollout_token::telemetry::metrics::Metrics;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

const NOW: i64 = 1_800_000_000;
const TTL: Duration = Duration::from_secs(600);
const COOLDOWN: Duration = Duration::from_secs(30);
const STALE_FOR: Duration = Duration::from_secs(3600);
const SECOND: Duration = Duration::from_secs(1);

/// A provider's key, which signs tokens.
struct Signer {
    kid: &'static str,
    pair: rcgen::KeyPair,
    key: EncodingKey,
}

impl Signer {
    fn new(kid: &'static str) -> Self {
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("a key");
        let key = EncodingKey::from_ec_der(&pair.serialize_der());
        Self { kid, pair, key }
    }

    fn jwk(&self) -> Value {
        let jwk = Jwk::from_encoding_key(&self.key, Algorithm::ES256).expect("a JWK");
        let mut jwk = serde_json::to_value(jwk).expect("JSON");
        jwk["kid"] = self.kid.into();
        jwk
    }

    fn token(&self) -> String {
        self.token_with(&json!({ "typ": "JWT", "alg": "ES256", "kid": self.kid }))
    }

    fn token_with(&self, header: &Value) -> String {
        self.token_of("https://issuer", header)
    }

    fn token_of(&self, issuer: &str, header: &Value) -> String {
        // The token expires after the end of every test, so only the age of the keys matters.
        let claims = json!({ "iss": issuer, "sub": "u-1", "exp": NOW + 100_000 });
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(header), part(&claims));
        let signature =
            crypto::sign(signed.as_bytes(), &self.key, Algorithm::ES256).expect("a signature");
        format!("{signed}.{signature}")
    }
}

fn set(signers: &[&Signer]) -> Reply {
    let keys: Vec<Value> = signers.iter().map(|signer| signer.jwk()).collect();
    Reply::ok(json!({ "keys": keys }).to_string())
}

#[derive(Clone)]
struct Reply {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: String,
    endless: bool,
    /// If set, only paths that end with this suffix get this response; all other paths get 403.
    only_at: Option<&'static str>,
}

impl Reply {
    fn ok(body: impl Into<String>) -> Self {
        Self {
            status: 200,
            headers: Vec::new(),
            body: body.into(),
            endless: false,
            only_at: None,
        }
    }

    fn status(status: u16) -> Self {
        Self {
            status,
            ..Self::ok("")
        }
    }

    fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

struct Server {
    base: String,
    hits: Arc<AtomicUsize>,
    reply: Arc<Mutex<Reply>>,
    /// Each response takes one permit. A test delays responses by taking the permits away.
    gate: Arc<Semaphore>,
}

impl Server {
    async fn start(reply: Reply) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port");
        let server = Self {
            base: format!("http://{}", listener.local_addr().expect("an address")),
            hits: Arc::default(),
            reply: Arc::new(Mutex::new(reply)),
            gate: Arc::new(Semaphore::new(Semaphore::MAX_PERMITS)),
        };
        let (hits, reply, gate) = (
            server.hits.clone(),
            server.reply.clone(),
            server.gate.clone(),
        );
        let router = Router::new().fallback(move |uri: Uri| {
            hits.fetch_add(1, Ordering::SeqCst);
            let (reply, gate) = (reply.clone(), gate.clone());
            async move {
                gate.acquire().await.expect("an open gate").forget();
                let mut reply = reply.lock().expect("a reply").clone();
                if reply.only_at.is_some_and(|end| !uri.path().ends_with(end)) {
                    reply = Reply::status(403);
                }
                let mut response = Response::builder().status(reply.status);
                for (name, value) in reply.headers {
                    response = response.header(name, value);
                }
                let chunk = "x".repeat(64 * 1024);
                let body = if reply.endless {
                    Body::from_stream(stream::repeat(chunk).map(Ok::<_, std::io::Error>))
                } else {
                    Body::from(reply.body)
                };
                response
                    .body(body)
                    .unwrap_or_else(|_| Response::new(Body::empty()))
            }
        });
        tokio::spawn(async move { axum::serve(listener, router).await });
        server
    }

    fn answers(&self, reply: Reply) {
        *self.reply.lock().expect("a reply") = reply;
    }

    fn hits(&self) -> usize {
        self.hits.load(Ordering::SeqCst)
    }
}

/// An extractor that fetches its keys from a [`Server`], and its clock and metrics.
struct Subject {
    clock: Arc<ManualClock>,
    metrics: Arc<Metrics>,
    extractor: Arc<dyn SessionExtractor>,
}

impl Subject {
    fn new(server: &Server) -> Self {
        Self::with(&format!("jwks_url = \"{}/keys\"", server.base))
    }

    fn with(source: &str) -> Self {
        let clock = ManualClock::at(NOW);
        let metrics = Arc::new(Metrics::new());
        let context = Context::new(Clock::new(clock.clone()), metrics.clone());
        let issuers = if source.contains("oidc_issuer") {
            ""
        } else {
            "issuers = [\"https://issuer\"]"
        };
        let toml = format!("{source}\n{issuers}\nallow_any_audience = true");
        let built = contract::build(&Registry::builtin(), "jwt", &toml, &context);
        Self {
            clock,
            metrics,
            extractor: built.expect("a good section"),
        }
    }

    /// Returns `ok`, `absent` or the reason for the refusal.
    async fn ask(&self, token: &str) -> &'static str {
        let request = contract::request(&[("authorization", &format!("Bearer {token}"))]);
        match self.extractor.extract(&request).await {
            Ok(Some(_)) => "ok",
            Ok(None) => "absent",
            Err(error) => error.reason().as_str(),
        }
    }

    /// The detail of the refusal, which the log and `explain` show.
    async fn detail(&self, token: &str) -> String {
        let request = contract::request(&[("authorization", &format!("Bearer {token}"))]);
        let detail = match self
            .extractor
            .extract(&request)
            .await
            .expect_err("a refusal")
        {
            ExtractError::NotMine(rejection, _) | ExtractError::Rejected(rejection) => {
                rejection.detail
            }
            ExtractError::Unavailable(cause) => cause.detail,
        };
        detail.unwrap_or_default()
    }

    /// The metrics, with the gauges of the extractor.
    fn observed(&self) -> String {
        self.extractor.observe(&Arc::from("jwt"), &self.metrics);
        self.metrics.render()
    }

    /// Waits until the metrics count at least this many fetches.
    async fn until_fetched(&self, count: usize) {
        let counted = || {
            let text = self.metrics.render();
            let lines = text
                .lines()
                .filter(|line| line.starts_with("rollout_token_jwks_refresh_total"));
            lines
                .filter_map(|line| line.rsplit(' ').next()?.parse::<usize>().ok())
                .sum::<usize>()
        };
        while counted() < count {
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test]
async fn rotated_key_is_fetched_by_the_first_request_after_the_cooldown() {
    let (old, new) = (Signer::new("old"), Signer::new("new"));
    let server = Server::start(set(&[&old])).await;
    let subject = Subject::new(&server);
    assert_eq!(subject.ask(&old.token()).await, "ok");

    server.answers(set(&[&old, &new]));
    assert_eq!(subject.ask(&new.token()).await, "unknown_key");
    subject.clock.advance(COOLDOWN);
    assert_eq!(subject.ask(&new.token()).await, "ok");
    assert_eq!(subject.ask(&old.token()).await, "ok");
    assert_eq!(server.hits(), 2);
}

#[tokio::test]
async fn key_replaced_under_the_same_kid_is_fetched_once_per_cooldown() {
    let (old, new, forger) = (Signer::new("k"), Signer::new("k"), Signer::new("k"));
    let no_kid = json!({ "alg": "ES256" });
    let server = Server::start(set(&[&old])).await;
    let subject = Subject::new(&server);
    assert_eq!(subject.ask(&old.token()).await, "ok");

    server.answers(set(&[&new]));
    assert_eq!(subject.ask(&new.token()).await, "bad_signature");
    assert_eq!(server.hits(), 1);
    subject.clock.advance(COOLDOWN);
    assert_eq!(subject.ask(&new.token()).await, "ok");
    assert_eq!(subject.ask(&old.token()).await, "bad_signature");
    assert_eq!(subject.ask(&new.token_with(&no_kid)).await, "ok");
    for _ in 0..100 {
        assert_eq!(subject.ask(&forger.token()).await, "bad_signature");
    }
    assert_eq!(server.hits(), 2);

    // A forged token gets 401, not 503, while the provider is down.
    server.answers(Reply::status(503));
    subject.clock.advance(COOLDOWN);
    assert_eq!(
        subject.ask(&forger.token_with(&no_kid)).await,
        "bad_signature"
    );
    assert_eq!(server.hits(), 3);
    assert_eq!(subject.ask(&new.token()).await, "ok");
}

#[tokio::test]
async fn key_replaced_at_its_per_kid_url_is_fetched_once_per_cooldown() {
    let (old, new) = (Signer::new("k"), Signer::new("k"));
    let server = Server::start(Reply::ok(old.pair.public_key_pem())).await;
    let subject = Subject::with(&format!("jwks_url = \"{}/{{kid}}\"", server.base));
    assert_eq!(subject.ask(&old.token()).await, "ok");
    server.answers(Reply::ok(new.pair.public_key_pem()));
    assert_eq!(subject.ask(&new.token()).await, "bad_signature");
    subject.clock.advance(COOLDOWN);
    assert_eq!(subject.ask(&new.token()).await, "ok");
    assert_eq!(subject.ask(&old.token()).await, "bad_signature");
    assert_eq!(server.hits(), 2);
}

#[tokio::test]
async fn unusable_keys_are_counted_and_never_replace_a_good_set() {
    let signer = Signer::new("k");
    let p521 = json!({ "kty": "EC", "crv": "P-521", "kid": "p521", "x": "AA", "y": "AA" });
    let keys = |keys: &[Value]| Reply::ok(format!("\u{feff}{}", json!({ "keys": keys })));
    let count = |subject: &Subject| {
        let text = subject.observed();
        let line = text
            .lines()
            .find(|line| line.starts_with("rollout_token_jwks_unusable_keys{"));
        line.and_then(|line| line.rsplit(' ').next()?.parse::<usize>().ok())
    };
    let server = Server::start(keys(&[signer.jwk(), p521.clone()])).await;
    let subject = Subject::new(&server);
    assert_eq!(subject.ask(&signer.token()).await, "ok");
    assert_eq!(count(&subject), Some(1));
    assert_eq!(
        subject.extractor.notes(),
        ["a key cannot be used: kid p521: the curve P-521 is not supported"]
    );
    let unknown = signer.token_with(&json!({ "alg": "ES256", "kid": "p521" }));
    assert_eq!(subject.ask(&unknown).await, "unknown_key");

    for reply in [
        keys(&[]),
        keys(&[p521.clone(), p521.clone()]),
        Reply::ok("{}"),
    ] {
        server.answers(reply);
        subject.clock.advance(COOLDOWN);
        let hits = server.hits();
        assert_eq!(subject.ask(&unknown).await, "jwks_unavailable");
        assert_eq!(server.hits(), hits + 1);
        assert_eq!(subject.ask(&signer.token()).await, "ok");
    }
    assert_eq!(count(&subject), Some(2));
}

#[tokio::test]
async fn token_is_verified_with_the_certificate_of_its_kid() {
    let (one, other) = (Signer::new("one"), Signer::new("other"));
    let certificate = |signer: &Signer| {
        let certificate = rcgen::CertificateParams::default().self_signed(&signer.pair);
        certificate.expect("a certificate").pem()
    };
    let document = json!({ "one": certificate(&one), "other": certificate(&other) });
    let server = Server::start(Reply::ok(document.to_string())).await;
    let subject = Subject::new(&server);
    assert_eq!(subject.ask(&one.token()).await, "ok");
    assert_eq!(subject.ask(&other.token()).await, "ok");
    let swapped = one.token_with(&json!({ "alg": "ES256", "kid": "other" }));
    assert_eq!(subject.ask(&swapped).await, "bad_signature");
}

#[tokio::test]
async fn ten_thousand_unknown_kids_cause_one_fetch_per_cooldown() {
    let signer = Signer::new("k");
    let server = Server::start(set(&[&signer])).await;
    let subject = Subject::new(&server);
    assert_eq!(subject.ask(&signer.token()).await, "ok");
    subject.clock.advance(COOLDOWN);
    // The signature does not matter: the key is looked up first.
    let good = signer.token();
    let (_, rest) = good.split_once('.').expect("a header");
    for number in 0..10_000 {
        let header = json!({ "alg": "ES256", "kid": format!("made-up-{number}") }).to_string();
        let token = format!("{}.{rest}", URL_SAFE_NO_PAD.encode(header));
        assert_eq!(subject.ask(&token).await, "unknown_key");
    }
    assert_eq!(server.hits(), 2);
    assert_eq!(subject.ask(&signer.token()).await, "ok");
}

#[tokio::test]
async fn cold_start_under_load_causes_one_fetch() {
    let signer = Signer::new("k");
    let server = Server::start(set(&[&signer])).await;
    server.gate.forget_permits(Semaphore::MAX_PERMITS);
    let subject = Subject::with(&format!(
        "jwks_url = \"{}/keys\"\nmax_waiting = 1000",
        server.base
    ));
    let token = signer.token();
    let requests = future::join_all((0..1000).map(|_| subject.ask(&token)));
    // The gate opens only after the fetch has arrived. No request is answered before that.
    let open = async {
        while server.hits() == 0 {
            tokio::task::yield_now().await;
        }
        server.gate.add_permits(10);
    };
    let (answers, ()) = future::join(requests, open).await;
    assert!(answers.iter().all(|answer| *answer == "ok"));
    assert_eq!(server.hits(), 1);
}

#[tokio::test]
async fn cancelled_request_does_not_cancel_the_shared_fetch() {
    let signer = Signer::new("k");
    let server = Server::start(set(&[&signer])).await;
    server.gate.forget_permits(Semaphore::MAX_PERMITS);
    let subject = Subject::new(&server);
    let token = signer.token();
    {
        let request = std::pin::pin!(subject.ask(&token));
        assert!(request.now_or_never().is_none());
    }
    server.gate.add_permits(10);
    subject.until_fetched(1).await;
    assert_eq!(subject.ask(&token).await, "ok");
    assert_eq!(server.hits(), 1);
}

#[tokio::test]
async fn stale_keys_are_used_during_an_outage_until_an_hour_after_their_lifetime() {
    let (signer, new) = (Signer::new("k"), Signer::new("new"));
    let server = Server::start(set(&[&signer])).await;
    let subject = Subject::new(&server);
    let token = signer.token();
    assert_eq!(subject.ask(&token).await, "ok");
    assert_eq!(subject.extractor.readiness(), Readiness::Ready);

    server.answers(Reply::status(503));
    subject.clock.advance(Duration::from_secs(599));
    assert_eq!(subject.ask(&token).await, "ok", "fresh");
    subject.until_fetched(2).await;
    // A new key cannot be fetched while the provider is down.
    assert_eq!(subject.ask(&new.token()).await, "jwks_unavailable");

    subject.clock.advance(STALE_FOR);
    assert_eq!(subject.ask(&token).await, "ok", "stale");
    subject.until_fetched(3).await;
    assert_eq!(subject.extractor.readiness(), Readiness::Stale);
    let metrics = subject.observed();
    assert!(
        metrics.contains("jwks_age_seconds{extractor=\"jwt\"} 4199"),
        "{metrics}"
    );

    subject.clock.advance(SECOND);
    assert_eq!(subject.ask(&token).await, "jwks_unavailable", "too old");
    assert_eq!(subject.extractor.readiness(), Readiness::Stale);

    server.answers(set(&[&signer]));
    subject.clock.advance(SECOND);
    assert_eq!(subject.ask(&token).await, "ok", "back again");
    assert_eq!(subject.extractor.readiness(), Readiness::Ready);
}

#[tokio::test]
async fn failed_initial_jwks_fetch_is_retried_at_most_once_a_second() {
    let signer = Signer::new("k");
    let server = Server::start(Reply::status(500)).await;
    let subject = Subject::new(&server);
    let token = signer.token();
    for _ in 0..100 {
        assert_eq!(subject.ask(&token).await, "jwks_unavailable");
    }
    assert_eq!(server.hits(), 1);
    assert_eq!(subject.extractor.readiness(), Readiness::Waiting("jwks"));

    server.answers(set(&[&signer]));
    subject.clock.advance(SECOND);
    assert_eq!(subject.ask(&token).await, "ok");
    assert_eq!(subject.extractor.readiness(), Readiness::Ready);
    assert_eq!(server.hits(), 2);
}

#[tokio::test]
async fn readiness_check_starts_no_fetch() {
    let signer = Signer::new("k");
    let server = Server::start(set(&[&signer])).await;
    let subject = Subject::new(&server);
    assert_eq!(subject.extractor.readiness(), Readiness::Waiting("jwks"));
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert_eq!(server.hits(), 0);
    assert_eq!(subject.ask(&signer.token()).await, "ok");
    subject.clock.advance(TTL);
    assert_eq!(subject.extractor.readiness(), Readiness::Stale);
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert_eq!(server.hits(), 1);
}

#[tokio::test]
async fn failed_first_fetch_is_repeated_without_a_request_until_the_instance_is_ready() {
    let signer = Signer::new("k");
    let server = Server::start(Reply::status(500)).await;
    let subject = Subject::new(&server);
    subject.extractor.start();
    subject.until_fetched(1).await;
    assert_eq!(subject.extractor.readiness(), Readiness::Waiting("jwks"));

    server.answers(set(&[&signer]));
    subject.clock.advance(SECOND);
    subject.until_fetched(2).await;
    assert_eq!(subject.extractor.readiness(), Readiness::Ready);
}

#[tokio::test]
async fn keys_are_fetched_at_start_and_refreshed_in_the_background_when_due() {
    let (old, new) = (Signer::new("old"), Signer::new("new"));
    let server = Server::start(set(&[&old])).await;
    let subject = Subject::new(&server);
    subject.extractor.start();
    subject.until_fetched(1).await;
    assert_eq!(subject.extractor.readiness(), Readiness::Ready);

    server.answers(set(&[&new]));
    subject.clock.advance(Duration::from_secs(479));
    assert_eq!(subject.ask(&old.token()).await, "ok", "not due");
    assert_eq!(server.hits(), 1);
    subject.clock.advance(SECOND);
    assert_eq!(
        subject.ask(&old.token()).await,
        "ok",
        "the refresh is due, and the cached keys are used meanwhile"
    );
    subject.until_fetched(2).await;
    assert_eq!(subject.ask(&new.token()).await, "ok");
    assert_eq!(subject.ask(&old.token()).await, "unknown_key");
}

#[tokio::test]
async fn old_keys_stay_in_use_after_an_unusable_answer() {
    let signer = Signer::new("k");
    let private = {
        let mut jwk = signer.jwk();
        jwk["d"] = "AAAA".into();
        json!({ "keys": [jwk] }).to_string()
    };
    let whole = json!({ "keys": [signer.jwk()] }).to_string();
    let cases = [
        ("500", "status", Reply::status(500)),
        ("404", "status", Reply::status(404)),
        (
            "redirect",
            "status",
            Reply::status(302).header("location", "/elsewhere"),
        ),
        ("204", "status", Reply::status(204)),
        (
            "HTML",
            "malformed",
            Reply::ok("<html>").header("content-type", "text/html"),
        ),
        ("no keys", "malformed", Reply::ok("{}")),
        ("keys no list", "malformed", Reply::ok(r#"{"keys":{}}"#)),
        (
            "keys twice",
            "malformed",
            Reply::ok(r#"{"keys":[],"keys":[]}"#),
        ),
        ("empty set", "no_usable_key", Reply::ok(r#"{"keys":[]}"#)),
        ("private key", "no_usable_key", Reply::ok(private)),
        (
            "truncated",
            "malformed",
            Reply::ok(&whole[..whole.len() - 5]),
        ),
        (
            "10 MiB",
            "too_large",
            Reply::ok(" ".repeat(10 * 1024 * 1024)),
        ),
        (
            "endless",
            "too_large",
            Reply {
                endless: true,
                ..Reply::ok("")
            },
        ),
        (
            "gzip",
            "malformed",
            Reply::ok("\u{1f}\u{b}").header("content-encoding", "gzip"),
        ),
    ];
    for (name, word, reply) in cases {
        let server = Server::start(set(&[&signer])).await;
        let subject = Subject::new(&server);
        assert_eq!(subject.ask(&signer.token()).await, "ok", "{name}");
        server.answers(reply);
        subject.clock.advance(TTL);
        assert_eq!(subject.ask(&signer.token()).await, "ok", "{name}");
        subject.until_fetched(2).await;
        assert_eq!(subject.ask(&signer.token()).await, "ok", "{name}");
        // In the case `redirect`, following the redirect would be a third request.
        assert_eq!(server.hits(), 2, "{name}");
        let metrics = subject.metrics.render();
        let line = format!("jwks_refresh_total{{extractor=\"jwt\",result=\"{word}\"}} 1");
        assert!(metrics.contains(&line), "{name}: {metrics}");
    }
}

#[tokio::test]
async fn usable_keys_of_a_set_are_used_despite_unusable_keys() {
    let signer = Signer::new("k");
    let mut keys: Vec<Value> = vec![
        json!(7),
        json!({}),
        json!({ "kty": "EC", "crv": "P-256", "kid": "k", "x": "!", "y": "!" }),
        json!({ "kty": "RSA", "kid": "k", "n": "AQAB", "e": "AQAB" }),
        json!({ "kty": "AKP", "kid": "k", "pub": "AAAA" }),
        json!({ "kty": "oct", "kid": "k", "k": "AAAA" }),
    ];
    keys.push(signer.jwk());
    let server = Server::start(Reply::ok(json!({ "keys": keys }).to_string())).await;
    assert_eq!(Subject::new(&server).ask(&signer.token()).await, "ok");

    // The first 100 keys are kept; later ones are not.
    let mut many: Vec<Value> = vec![Signer::new("first").jwk(); 100];
    many.push(signer.jwk());
    server.answers(Reply::ok(json!({ "keys": many }).to_string()));
    assert_eq!(
        Subject::new(&server).ask(&signer.token()).await,
        "unknown_key"
    );
}

#[tokio::test]
async fn cache_control_max_age_is_clamped_between_30_seconds_and_1_hour() {
    for (value, ttl) in [
        ("max-age=0", 30),
        ("max-age=60", 60),
        ("public, MAX-AGE=120, must-revalidate", 120),
        ("max-age=315360000", 3600),
        ("max-age=99999999999999999999999999", 3600),
        ("max-age=-1", 600),
        ("max-age=x", 600),
        ("no-cache", 600),
    ] {
        let signer = Signer::new("k");
        let server = Server::start(set(&[&signer]).header("cache-control", value)).await;
        let subject = Subject::new(&server);
        assert_eq!(subject.ask(&signer.token()).await, "ok", "{value}");
        server.answers(Reply::status(500));
        subject.clock.advance(Duration::from_secs(ttl - 1));
        assert_eq!(subject.extractor.readiness(), Readiness::Ready, "{value}");
        subject.clock.advance(SECOND);
        assert_eq!(subject.extractor.readiness(), Readiness::Stale, "{value}");
    }
}

#[tokio::test]
async fn key_url_in_the_token_header_is_never_fetched() {
    let (signer, stranger) = (Signer::new("k"), Signer::new("k"));
    let server = Server::start(set(&[&signer])).await;
    let trap = Server::start(set(&[&stranger])).await;
    let subject = Subject::new(&server);
    for (name, value) in [
        ("jku", json!(trap.base)),
        ("x5u", json!(trap.base)),
        ("x5c", json!(["AAAA"])),
        ("jwk", stranger.jwk()),
    ] {
        let header = json!({ "alg": "ES256", "kid": "k", name: value });
        assert_eq!(
            subject.ask(&stranger.token_with(&header)).await,
            "bad_signature",
            "{name}"
        );
        assert_eq!(
            subject.ask(&signer.token_with(&header)).await,
            "ok",
            "{name}"
        );
    }
    assert_eq!((server.hits(), trap.hits()), (1, 0));
}

#[tokio::test]
async fn detail_of_a_key_failure_names_the_found_and_the_expected_value() {
    let signer = Signer::new("k");
    let document = |issuer: &str, uri: &str| {
        Reply::ok(json!({ "issuer": issuer, "jwks_uri": uri }).to_string())
    };
    let p521 =
        json!({ "keys": [{ "kty": "EC", "crv": "P-521", "kid": "big", "x": "AA", "y": "AA" }] });
    for (case, is_discovery, reply, want) in [
        (
            "trailing slash",
            true,
            document("BASE/", "https://idp.example/keys"),
            "its issuer is BASE/, but the configured issuer is BASE",
        ),
        (
            "plain http",
            true,
            document("BASE", "http://idp.example/keys?token=1"),
            "jwks_uri is http://idp.example/keys, which must begin with https://",
        ),
        (
            "loopback elsewhere",
            true,
            Reply::ok("{}"),
            "its issuer is missing",
        ),
        (
            "no JSON",
            true,
            Reply::ok("<html>"),
            "openid-configuration is not JSON (its content type is missing)",
        ),
        (
            "redirect of the document",
            true,
            Reply::status(301).header("location", "/new?secret=1"),
            "BASE/.well-known/openid-configuration: the answer is 301, a redirect to BASE/new. Redirects are not",
        ),
        (
            "redirect of the keys",
            false,
            Reply::status(302).header("location", "https://login.example/"),
            "BASE/keys: the answer is 302, a redirect to https://login.example/",
        ),
        (
            "not found",
            false,
            Reply::status(404),
            "BASE/keys: the status of the answer is 404",
        ),
        (
            "a discovery document",
            false,
            document("BASE", "BASE/keys"),
            "is a JSON object whose member `keys` is missing, repeated or not a list",
        ),
        (
            "no usable key",
            false,
            Reply::ok(p521.to_string()),
            "found kid big: the curve P-521 is not supported",
        ),
        (
            "HTML",
            false,
            Reply::ok("<html>").header("content-type", "text/html; charset=utf-8"),
            "BASE/keys: the answer is not JSON (its content type is text/html: a login page?)",
        ),
    ] {
        let server = Server::start(Reply::status(500)).await;
        let reply = Reply {
            body: reply.body.replace("BASE", &server.base),
            ..reply
        };
        server.answers(reply);
        let subject = if is_discovery {
            Subject::with(&format!("oidc_issuer = \"{}\"", server.base))
        } else {
            Subject::new(&server)
        };
        let issuer = if is_discovery {
            server.base.as_str()
        } else {
            "https://issuer"
        };
        let token = signer.token_of(issuer, &json!({ "alg": "ES256", "kid": "k" }));
        let found = subject.detail(&token).await;
        let want = want.replace("BASE", &server.base);
        assert!(found.contains(&want), "{case}: {found}");
        assert!(
            !found.contains("secret=1") && !found.contains("token=1"),
            "{case}: {found}"
        );
    }

    let server = Server::start(set(&[&signer, &Signer::new("other")])).await;
    let subject = Subject::new(&server);
    let unknown = signer.token_with(&json!({ "alg": "ES256", "kid": "new" }));
    assert_eq!(
        subject.detail(&unknown).await,
        "kid is new, and the kids in the set are k, other"
    );
    let other_alg = signer.token_with(&json!({ "alg": "RS256", "kid": "k" }));
    assert_eq!(
        subject.detail(&other_alg).await,
        "alg is RS256, and no key can be used with it"
    );
    let forged = Signer::new("k").token_with(&json!({ "alg": "ES256", "kid": "k" }));
    assert_eq!(
        subject.detail(&forged).await,
        format!(
            "the token has alg ES256 and kid k; the keys that were tried are from key set {}/keys",
            server.base
        )
    );
}

#[tokio::test]
async fn discovery_url_as_oidc_issuer_accepts_an_issuer_with_or_without_trailing_slash() {
    let signer = Signer::new("k");
    let keys = Server::start(set(&[&signer])).await;
    for slash in ["", "/"] {
        let issuer = Server::start(Reply::status(404)).await;
        let name = format!("{}{slash}", issuer.base);
        let uri = format!("{}/keys", keys.base);
        issuer.answers(Reply::ok(
            json!({ "issuer": name, "jwks_uri": uri }).to_string(),
        ));
        let subject = Subject::with(&format!(
            "oidc_issuer = \"{}/.well-known/openid-configuration\"",
            issuer.base
        ));
        let header = json!({ "alg": "ES256", "kid": "k" });
        assert_eq!(
            subject.ask(&signer.token_of(&name, &header)).await,
            "ok",
            "{slash}"
        );
        assert_eq!(
            subject
                .ask(&signer.token_of("https://other", &header))
                .await,
            "issuer",
            "{slash}"
        );
    }
}

#[tokio::test]
async fn discovery_document_with_another_issuer_or_an_unsafe_jwks_uri_is_refused() {
    let signer = Signer::new("k");
    let keys = Server::start(set(&[&signer])).await;
    let issuer = Server::start(Reply::status(404)).await;
    let document = |issuer: &str, uri: &str| {
        Reply::ok(json!({ "issuer": issuer, "jwks_uri": uri }).to_string())
    };
    let uri = format!("{}/keys", keys.base);
    for (name, reply, word) in [
        ("good", document(&issuer.base, &uri), "ok"),
        (
            "other issuer",
            document("https://issuer", &uri),
            "jwks_unavailable",
        ),
        (
            "trailing slash",
            document(&format!("{}/", issuer.base), &uri),
            "jwks_unavailable",
        ),
        (
            "plain http",
            document(&issuer.base, "http://10.0.0.1/keys"),
            "jwks_unavailable",
        ),
        (
            "userinfo",
            document(&issuer.base, "https://u:p@127.0.0.1/keys"),
            "jwks_unavailable",
        ),
        (
            "file",
            document(&issuer.base, "file:///etc/passwd"),
            "jwks_unavailable",
        ),
        (
            "no uri",
            Reply::ok(json!({ "issuer": issuer.base }).to_string()),
            "jwks_unavailable",
        ),
        ("no JSON", Reply::ok("<html>"), "jwks_unavailable"),
    ] {
        issuer.answers(reply);
        let subject = Subject::with(&format!("oidc_issuer = \"{}\"", issuer.base));
        let token = signer.token_of(&issuer.base, &json!({ "alg": "ES256", "kid": "k" }));
        assert_eq!(subject.ask(&token).await, word, "{name}");
        let hits = issuer.hits();
        assert_eq!(
            subject.ask(&signer.token()).await,
            "issuer",
            "of another issuer: {name}"
        );
        assert_eq!(
            issuer.hits(),
            hits,
            "nothing is fetched for another issuer's token: {name}"
        );
    }
    assert_eq!(keys.hits(), 1);
}

#[tokio::test]
async fn key_url_with_kid_placeholder_is_fetched_once_per_kid() {
    let signer = Signer::new("11111111-2222");
    let server = Server::start(Reply::ok(signer.pair.public_key_pem())).await;
    let subject = Subject::with(&format!("jwks_url = \"{}/{{kid}}\"", server.base));
    assert_eq!(subject.ask(&signer.token()).await, "ok");
    assert_eq!(subject.ask(&signer.token()).await, "ok");
    assert_eq!(server.hits(), 1);

    for kid in ["", "../x", "a/b", "a%2fb", "a?b", &"x".repeat(65)] {
        let token = signer.token_with(&json!({ "alg": "ES256", "kid": kid }));
        assert_eq!(subject.ask(&token).await, "unknown_key", "{kid}");
    }
    let nameless = signer.token_with(&json!({ "alg": "ES256" }));
    assert_eq!(subject.ask(&nameless).await, "unknown_key");

    assert_eq!(server.hits(), 1);
    assert_eq!(subject.ask(&signer.token()).await, "ok");
}

/// A provider that serves one key, at a URL with the key's `kid`, and an extractor that fetches the key.
async fn key_by_kid(signer: &Signer, more: &str) -> (Server, Subject) {
    let reply = Reply {
        only_at: Some(signer.kid),
        ..Reply::ok(signer.pair.public_key_pem())
    };
    let server = Server::start(reply).await;
    let subject = Subject::with(&format!("jwks_url = \"{}/{{kid}}\"\n{more}", server.base));
    (server, subject)
}

/// A token whose header names the key `kid`. Its signature does not matter: the key is looked up first.
fn made_up(signer: &Signer, kid: &str) -> String {
    let good = signer.token();
    let (_, rest) = good.split_once('.').expect("a header");
    let header = json!({ "alg": "ES256", "kid": kid, "signer": "us" }).to_string();
    format!("{}.{rest}", URL_SAFE_NO_PAD.encode(header))
}

#[tokio::test]
async fn genuine_token_is_accepted_while_made_up_kids_are_looked_up() {
    let signer = Signer::new("genuine");
    let (server, subject) = key_by_kid(&signer, "").await;
    for second in 0..40 {
        for number in 0..30 {
            let token = made_up(&signer, &format!("made-up-{second}-{number}"));
            assert_eq!(subject.ask(&token).await, "unknown_key");
            if number == 15 {
                assert_eq!(subject.ask(&signer.token()).await, "ok", "second {second}");
            }
        }
        subject.clock.advance(SECOND);
    }
    assert_eq!(server.hits(), 40 * 30 + 1);
    assert_eq!(
        subject.extractor.readiness(),
        Readiness::Ready,
        "a missing key is not a failed fetch"
    );
}

#[tokio::test]
async fn at_most_8_kids_are_looked_up_at_a_time() {
    let signer = Signer::new("genuine");
    let (server, subject) = key_by_kid(&signer, "").await;
    server.gate.forget_permits(Semaphore::MAX_PERMITS);
    let tokens: Vec<String> = (0..20)
        .map(|n| made_up(&signer, &format!("made-up-{n}")))
        .collect();
    let genuine = signer.token();
    let others = future::join_all(tokens.iter().map(|token| subject.ask(token)));
    let open = async {
        while server.hits() < 8 {
            tokio::task::yield_now().await;
        }
        for _ in 0..1000 {
            tokio::task::yield_now().await;
        }
        assert_eq!(server.hits(), 8);
        server.gate.add_permits(100);
    };
    let (others, honest, ()) = future::join3(others, subject.ask(&genuine), open).await;
    assert!(
        others.iter().all(|answer| *answer == "unknown_key"),
        "{others:?}"
    );
    assert_eq!(honest, "ok");
}

#[tokio::test]
async fn at_most_50_kids_are_looked_up_per_second() {
    let signer = Signer::new("genuine");
    let (server, subject) = key_by_kid(&signer, "").await;
    let ask = async |n: usize| {
        subject
            .ask(&made_up(&signer, &format!("made-up-{n}")))
            .await
    };
    for n in 0..50 {
        assert_eq!(ask(n).await, "unknown_key");
    }
    assert_eq!(ask(50).await, "jwks_busy");
    assert_eq!(ask(7).await, "unknown_key", "the missing kid is cached");
    assert_eq!(server.hits(), 50);
    subject.clock.advance(SECOND);
    assert_eq!(ask(50).await, "unknown_key");
}

#[tokio::test]
async fn missing_kids_are_cached_for_30_seconds_and_at_most_1000_at_a_time() {
    let signer = Signer::new("genuine");
    let (server, subject) = key_by_kid(&signer, "").await;
    let ask = async |n: usize| {
        subject
            .ask(&made_up(&signer, &format!("made-up-{n}")))
            .await
    };
    for _ in 0..100 {
        assert_eq!(ask(0).await, "unknown_key");
    }
    assert_eq!(server.hits(), 1);
    subject.clock.advance(Duration::from_secs(29));
    assert_eq!((ask(0).await, server.hits()), ("unknown_key", 1));
    subject.clock.advance(SECOND);
    assert_eq!((ask(0).await, server.hits()), ("unknown_key", 2));
    // 50 missing kids in each of 21 seconds exceed the capacity of the cache before any of them expires.
    for n in 1..=1050 {
        if n % 50 == 0 {
            subject.clock.advance(SECOND);
        }
        assert_eq!(ask(n).await, "unknown_key", "{n}");
    }
    subject.clock.advance(SECOND);
    let before = server.hits();
    assert_eq!((ask(1050).await, server.hits()), ("unknown_key", before));
    assert_eq!(
        (ask(0).await, server.hits()),
        ("unknown_key", before + 1),
        "the oldest was removed"
    );
}

#[tokio::test]
async fn header_rules_are_checked_before_a_kid_is_looked_up() {
    let signer = Signer::new("genuine");
    let (server, subject) = key_by_kid(&signer, "header_claims = { signer = \"them\" }").await;
    assert_eq!(subject.ask(&made_up(&signer, "made-up")).await, "claim");
    assert_eq!(server.hits(), 0);
}

#[tokio::test]
async fn failed_kid_lookup_is_retried_after_a_second() {
    let signer = Signer::new("genuine");
    let (server, subject) = key_by_kid(&signer, "").await;
    server.answers(Reply::status(500));
    for _ in 0..10 {
        assert_eq!(subject.ask(&signer.token()).await, "jwks_unavailable");
    }
    assert_eq!(
        (server.hits(), subject.extractor.readiness()),
        (1, Readiness::Stale)
    );
    server.answers(Reply::ok(signer.pair.public_key_pem()));
    subject.clock.advance(SECOND);
    assert_eq!(subject.ask(&signer.token()).await, "ok");
    assert_eq!(subject.extractor.readiness(), Readiness::Ready);
}

#[tokio::test]
async fn readiness_is_stale_after_a_failed_fetch_until_a_fetch_succeeds() {
    let (signer, new) = (Signer::new("k"), Signer::new("new"));
    let server = Server::start(set(&[&signer])).await;
    let subject = Subject::new(&server);
    assert_eq!(subject.ask(&signer.token()).await, "ok");
    server.answers(Reply::status(500));
    subject.clock.advance(COOLDOWN);
    assert_eq!(subject.ask(&new.token()).await, "jwks_unavailable");
    assert_eq!(subject.extractor.readiness(), Readiness::Stale);
    server.answers(set(&[&signer, &new]));
    subject.clock.advance(COOLDOWN);
    assert_eq!(subject.ask(&new.token()).await, "ok");
    assert_eq!(subject.extractor.readiness(), Readiness::Ready);
}

#[tokio::test]
async fn failed_tls_handshake_is_jwks_unavailable_without_a_fallback_to_http() {
    // The server does not speak TLS, and the extractor does not fall back to plain HTTP.
    let signer = Signer::new("k");
    let server = Server::start(set(&[&signer])).await;
    let subject = Subject::with(&format!(
        "jwks_url = \"{}\"",
        server.base.replace("http:", "https:")
    ));
    assert_eq!(subject.ask(&signer.token()).await, "jwks_unavailable");
    assert_eq!(server.hits(), 0);
}
