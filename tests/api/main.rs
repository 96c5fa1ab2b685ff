//! The service as a black box, over real sockets. One file a subject; the harness is in `helpers.rs`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test says what it expects by panicking"
)]

mod browsers;
mod commands;
mod configuration;
mod errors;
mod helpers;
mod idp;
mod limits;
mod sessions;
mod subjects;
mod tokens;
