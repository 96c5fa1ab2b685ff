//! Embeds the token route in an axum app. Run it with
//!
//! ```text
//! export ROLLOUT_CLIENT_ID=my-client ROLLOUT_CLIENT_SECRET=$(openssl rand -hex 32)
//! export ROLLOUT__SESSION__EXTRACTORS=trusted_header ROLLOUT__EXTRACTORS__TRUSTED_HEADER__HEADER=X-User
//! export ROLLOUT__EXTRACTORS__TRUSTED_HEADER__TRUSTED_PROXIES=127.0.0.1
//! cargo run --example embed
//! curl -sS -X POST -H 'X-User: ann' http://127.0.0.1:3000/rollout/token
//! ```

use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::routing::get;
use rollout_token::{Metrics, Problems, Registry, Sources};
use tokio::net::TcpListener;

/// The router with the app's own routes and the token route. The token route supports the built-in extractor kinds.
fn app(sources: &Sources) -> Result<Router, Problems> {
    let metrics = Arc::new(Metrics::new());
    let rollout = rollout_token::router(sources, &Registry::builtin(), metrics.clone())?;
    Ok(Router::new()
        .route("/", get(|| async { "my app" }))
        // Do not expose the metrics publicly. The service itself serves them only on its admin listener.
        .route("/internal/metrics", get(async move || metrics.render()))
        .merge(rollout))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt::init();
    let app = app(&Sources::from_process(Vec::new()))?;
    let listener = TcpListener::bind("127.0.0.1:3000").await?;
    // `trusted_header` compares the peer's address, which it reads from `ConnectInfo`, with `trusted_proxies`.
    let service = app.into_make_service_with_connect_info::<SocketAddr>();
    axum::serve(listener, service).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use axum::body::{Body, to_bytes};
    use axum::extract::ConnectInfo;
    use axum::http::{Request, StatusCode};
    use tower::ServiceExt;

    use super::*;

    async fn send(peer: [u8; 4], request: axum::http::request::Builder) -> (StatusCode, String) {
        let mut sources = Sources::default();
        for (name, value) in [
            ("ROLLOUT_CLIENT_ID", "my-client"),
            ("ROLLOUT_CLIENT_SECRET", "1f9c0b7d52e84a36a1b09c4de7f35826"),
            ("ROLLOUT__SESSION__EXTRACTORS", "trusted_header"),
            ("ROLLOUT__EXTRACTORS__TRUSTED_HEADER__HEADER", "X-User"),
            (
                "ROLLOUT__EXTRACTORS__TRUSTED_HEADER__TRUSTED_PROXIES",
                "127.0.0.1",
            ),
        ] {
            sources
                .environment
                .insert(name.to_owned(), value.to_owned());
        }
        let peer = SocketAddr::from((Ipv4Addr::from(peer), 50_000));
        let request = request
            .extension(ConnectInfo(peer))
            .header("host", "app.example.com");
        let response = app(&sources)
            .unwrap()
            .oneshot(request.body(Body::empty()).unwrap())
            .await
            .unwrap();
        let status = response.status();
        let body = to_bytes(response.into_body(), 64 * 1024).await.unwrap();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn token_route_and_routes_of_the_app_are_served() {
        let token = Request::post("/rollout/token").header("x-user", "ann");
        let (status, body) = send([127, 0, 0, 1], token).await;
        assert_eq!(status, StatusCode::OK, "{body}");
        assert!(body.contains("\"token_type\":\"Bearer\""), "{body}");
        let (status, body) = send([127, 0, 0, 1], Request::get("/")).await;
        assert_eq!((status, &*body), (StatusCode::OK, "my app"));
    }

    #[tokio::test]
    async fn unknown_path_gets_the_apps_404_response() {
        let (status, body) = send([127, 0, 0, 1], Request::get("/nothing")).await;
        assert_eq!((status, &*body), (StatusCode::NOT_FOUND, ""));
    }

    #[tokio::test]
    async fn trusted_header_from_an_untrusted_peer_is_401_session_invalid() {
        let token = Request::post("/rollout/token").header("x-user", "ann");
        let (status, body) = send([10, 0, 0, 9], token).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED);
        assert!(body.contains("session_invalid"), "{body}");
    }
}
