//! The baseline: axum's hello-world example, with one route that answers every request with a constant text. It checks
//! no session and mints no token, so its CPU time per request is the lower bound for the other servers.

#![expect(
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a server for comparison in benchmarks only"
)]

use axum::Router;
use axum::routing::any;

#[tokio::main]
async fn main() {
    let router = Router::new().route("/rollout/token", any(|| async { "Hello, world!" }));
    let port = std::env::var("PORT").expect("PORT");
    let listener = tokio::net::TcpListener::bind(format!("127.0.0.1:{port}"))
        .await
        .expect("a free port");
    axum::serve(listener, router).await.expect("serving");
}
