//! placeholder
pub mod clock;
pub mod config;
pub mod cookies;
pub mod error;
pub mod extractors;
pub mod limiter;
pub mod metrics;
pub mod origin;
pub mod secret;
pub mod subject;
pub mod telemetry;
pub mod token;
pub mod value;
