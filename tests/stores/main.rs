//! Tests with real session stores: each test starts its own Redis, PostgreSQL or MariaDB. `make stores` runs them.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::needless_pass_by_value,
    clippy::doc_markdown,
    clippy::unnecessary_wraps,
    clippy::redundant_closure_for_method_calls,
    dead_code,
    reason = "a test fails by panicking; other test binaries use the rest of the harness"
)]

mod faults;
mod frameworks;
#[path = "../api/helpers.rs"]
mod helpers;
mod libraries;
mod proxy;
mod servers;
mod sizes;
mod values;
#[path = "../shared/vectors.rs"]
mod vectors;
