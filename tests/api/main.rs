//! Tests the service from the outside, mostly over real sockets, and the commands of the binary. The harness is in
//! `helpers.rs`.

#![allow(
    clippy::too_many_lines,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::needless_pass_by_value,
    clippy::unnecessary_wraps,
    clippy::redundant_closure_for_method_calls,
    reason = "a test fails by panicking"
)]

mod assets;
mod backend;
mod backend_calls;
mod binary;
mod browsers;
mod commands;
mod configuration;
mod detecting;
mod doctor;
mod errors;
mod explaining;
mod helpers;
mod identity;
mod idp;
mod limits;
mod listen;
mod logs;
mod outgoing;
#[path = "../shared/reference.rs"]
mod pages;
mod providers;
mod reference;
mod rotation;
mod secrets;
mod session_endpoint;
mod sessions;
#[path = "../shared/settings.rs"]
mod settings;
mod subjects;
mod token_sections;
mod tokens;
mod variables;
mod waiting;
