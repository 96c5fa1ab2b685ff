//! The service behind nginx and HAProxy from Debian: a rolling restart loses no request, no response is cached, and no
//! header or request can be smuggled in. tinyproxy is between the service and its backends. `make proxies`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::needless_pass_by_value,
    clippy::unnecessary_wraps,
    clippy::redundant_closure_for_method_calls,
    clippy::doc_markdown,
    dead_code,
    reason = "a test fails by panicking; the harness is shared with other tests"
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
