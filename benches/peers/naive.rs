//! A minimal token route with axum and jsonwebtoken, as a developer writes it in an afternoon: without limits, logs
//! or metrics. `hello.rs` is the lower bound. The other servers in this folder implement the token route in other
//! languages.

#![expect(
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a server for comparison in benchmarks only"
)]

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::routing::post;
use axum::{Json, Router};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation, decode, encode};
use serde::{Deserialize, Serialize};

struct Keys {
    session: DecodingKey,
    validation: Validation,
    client_id: String,
    client: EncodingKey,
}

#[derive(Clone, Deserialize)]
struct Session {
    sub: String,
}

#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    sub: &'a str,
    iat: u64,
    exp: u64,
}

#[derive(Serialize)]
struct Answer {
    token: String,
    expires_in: u64,
}

async fn token(
    State(keys): State<Arc<Keys>>,
    headers: HeaderMap,
) -> Result<Json<Answer>, StatusCode> {
    let bearer = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    let session = bearer.ok_or(StatusCode::UNAUTHORIZED)?;
    let session = decode::<Session>(session, &keys.session, &keys.validation)
        .map_err(|_| StatusCode::UNAUTHORIZED)?;
    let iat = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("after 1970")
        .as_secs();
    let claims = Claims {
        iss: &keys.client_id,
        sub: &session.claims.sub,
        iat,
        exp: iat + 900,
    };
    let token = encode(&Header::new(Algorithm::HS512), &claims, &keys.client)
        .map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
    Ok(Json(Answer {
        token,
        expires_in: 900,
    }))
}

#[tokio::main]
async fn main() {
    let variable = |name| std::env::var(name).expect(name);
    let algorithm = std::env::var("SESSION_ALGORITHM").unwrap_or("HS256".to_owned());
    let algorithm = algorithm.parse().expect("an algorithm");
    let key = variable("SESSION_SECRET");
    let session = match algorithm {
        Algorithm::RS256 => DecodingKey::from_rsa_pem(key.as_bytes()),
        Algorithm::ES256 => DecodingKey::from_ec_pem(key.as_bytes()),
        Algorithm::EdDSA => DecodingKey::from_ed_pem(key.as_bytes()),
        _ => Ok(DecodingKey::from_secret(key.as_bytes())),
    };
    let keys = Keys {
        session: session.expect("a key"),
        validation: Validation::new(algorithm),
        client_id: variable("ROLLOUT_CLIENT_ID"),
        client: EncodingKey::from_secret(variable("ROLLOUT_CLIENT_SECRET").as_bytes()),
    };
    let router = Router::new()
        .route("/rollout/token", post(token))
        .with_state(Arc::new(keys));
    let address = format!("127.0.0.1:{}", variable("PORT"));
    let listener = tokio::net::TcpListener::bind(address)
        .await
        .expect("a free port");
    axum::serve(listener, router).await.expect("serving");
}
