//! Logs, metrics and traces. They take plain fields and know nothing of routes.

pub mod logs;
pub mod metrics;
pub mod trace;
mod writer;
