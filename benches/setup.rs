//! Sets up the parts that the benchmarks measure, as the service does: the mint, and the whole service without sockets.
//! `request.rs` measures their time. `count.rs` repeats them, so that `count.py` can count their instructions.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use rollout_token::Secret;
use rollout_token::clock::Clock;
use rollout_token::config::Sources;
use rollout_token::http::app::{self, App};
use rollout_token::http::server::Drain;
use rollout_token::session::backends::Context;
use rollout_token::session::registry::Registry;
use rollout_token::settings;
use rollout_token::token::{ClaimTemplates, Minter, RolloutClient};

pub const CLIENT_SECRET: &str =
    "client-secret-client-secret-client-secret-client-secret-client-secret";
pub const SESSION_SECRET: &str = "session-secret-session-secret-session-secret";

pub fn minter() -> Minter {
    let client = RolloutClient {
        id: "client".to_owned(),
        secret: Secret::new(CLIENT_SECRET),
    };
    Minter::new(
        &client,
        Duration::from_secs(900),
        false,
        ClaimTemplates::default(),
    )
}

/// The service with the extractors in `toml`, and with rate limits that are too high for one user to reach.
pub fn service(toml: &str) -> Router {
    let environment: BTreeMap<_, _> = [
        ("ROLLOUT_CLIENT_ID", "client"),
        ("ROLLOUT_CLIENT_SECRET", CLIENT_SECRET),
        ("ROLLOUT__RATE_LIMIT__PER_MINUTE", "1000000000"),
        ("ROLLOUT__RATE_LIMIT__BURST", "1000000000"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into();
    let context = Context::new(Clock::system(), Arc::default());
    let sources = Sources {
        environment,
        base: Some(toml.to_owned()),
        ..Sources::default()
    };
    let registry = Registry::builtin();
    let settings = settings::load(&sources, &registry, &context).expect("a configuration");
    app::public(&App::new(settings, &registry, context, Drain::default()))
}

/// The configuration of one extractor, for session JWTs that are signed with [`SESSION_SECRET`].
pub fn hs256() -> String {
    format!(
        r#"
        [session]
        extractors = ["jwt"]
        [extractors.jwt]
        secret = "{SESSION_SECRET}"
        algorithms = ["HS256"]
        allow_any_audience = true
        "#
    )
}

/// A valid session for [`hs256`].
pub fn session() -> String {
    let claims =
        serde_json::json!({"sub": "user-1", "iat": 1_700_000_000, "exp": 4_000_000_000_i64});
    let key = jsonwebtoken::EncodingKey::from_secret(SESSION_SECRET.as_bytes());
    jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &key).expect("a session")
}

pub fn request(authorization: Option<&str>) -> Request<Body> {
    let mut request = Request::post("/rollout/token").header("host", "localhost");
    if let Some(value) = authorization {
        request = request.header("authorization", value);
    }
    request.body(Body::empty()).expect("a request")
}
