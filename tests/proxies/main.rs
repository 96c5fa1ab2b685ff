//! The service behind Debian's nginx and HAProxy: a rolling restart loses no request, no response is cached, and no
//! header or request can be smuggled. One test calls a backend through tinyproxy. `make proxies` runs the tests.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::needless_pass_by_value,
    clippy::unnecessary_wraps,
    clippy::redundant_closure_for_method_calls,
    clippy::doc_markdown,
    dead_code,
    reason = "a test fails by panicking; other test binaries use the rest of the harness"
)]

#[path = "../api/binary.rs"]
mod binary;
#[path = "../api/helpers.rs"]
mod helpers;
mod keep_alive;
mod outgoing;
mod proxy;
mod restart;
mod smuggling;
mod trust;
