//! placeholder
pub mod clock;
pub mod config;
pub mod cookies;
pub mod error;
pub mod extractors;
pub mod metrics;
pub mod origin;
pub mod request_id;
pub mod secret;
pub mod server;
pub mod subject;
pub mod token;
pub mod value;
pub mod wire;
