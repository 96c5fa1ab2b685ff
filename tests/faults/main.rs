//! Attacks on the release binary from the outside, over real sockets: `make faults`. docs/threat-cases.md lists each
//! attack and its expected result; tests/README.md describes how to run them.
//!
//! A test in a module `slow` takes longer than ten seconds, mostly waiting. A test in a module `alone` needs the whole
//! machine, so no other test runs at the same time.

#![allow(
    clippy::too_many_lines,
    clippy::cast_precision_loss,
    clippy::similar_names,
    reason = "figures are small, names are many, and tables of cases are long"
)]
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]
#![allow(
    clippy::wildcard_imports,
    reason = "modules `slow` and `alone` are parts of their file"
)]

mod api_key;
mod browsers;
mod claims;
mod clock;
mod configs;
mod configuration;
mod dev_mode;
mod exhaustion;
mod framework_cookies;
mod framing;
mod introspection;
mod jwt_signatures;
mod key_sets;
mod lifecycle;
mod logs;
mod other_protocols;
#[allow(dead_code, reason = "the tests of the stores use more of it")]
#[path = "../stores/proxy.rs"]
mod proxy;
mod routing;
mod sentinels;
mod service;
mod session_endpoint;
mod session_stores;
#[path = "../shared/settings.rs"]
mod settings;
mod soak;
mod subjects;
mod tokens;
mod trusted_header;
mod upstream;
mod wire;
