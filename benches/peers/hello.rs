//! The lower bound: axum as in its own documentation, with one route that says hello to every caller. It checks no
//! session and mints no token.

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
