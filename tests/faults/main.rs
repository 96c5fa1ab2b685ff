//! Attacks on the release binary over real sockets; `make faults` runs them. docs/threat-cases.md lists each attack and
//! its required result; tests/README.md describes how to add one.
//!
//! Tests in modules named `slow` take several seconds or longer, mostly because they wait. Tests in modules named
//! `alone` run one at a time, because they need the whole machine.

#![allow(
    clippy::too_many_lines,
    clippy::cast_precision_loss,
    clippy::similar_names,
    reason = "case tables are long, counts fit into f64, and related variables have similar names"
)]
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]
#![allow(
    clippy::wildcard_imports,
    reason = "the modules `slow` and `alone` use all items of their file"
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
#[allow(dead_code, reason = "only the store tests use the whole module")]
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
