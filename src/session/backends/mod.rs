//! Backends that extractors ask: HTTP endpoints, key sets, session stores. Each has its limits on calls,
//! waiting requests and memory. What an answer means is decided in `extractors`.

pub mod dns;
pub mod endpoint;
pub mod health;
pub mod http;
pub mod jwks;
pub mod keys;
pub mod lookup;
pub mod pool;
pub mod waiting;

use std::sync::Arc;

use crate::clock::Clock;
use crate::telemetry::metrics::Metrics;
use http::HttpClient;
use waiting::Backends;

/// What the service lends to extractors when they are built.
#[derive(Clone, Debug)]
pub struct Context {
    pub clock: Clock,
    pub metrics: Arc<Metrics>,
    pub http: HttpClient,
    /// The backends of the configuration that is read.
    pub backends: Arc<Backends>,
    /// `rollout-token dev`: kinds that trust everybody are allowed.
    pub dev: bool,
}

impl Context {
    /// The context of a service that is not `dev`, with the machine's clocks.
    pub fn new(clock: Clock, metrics: Arc<Metrics>) -> Self {
        Self {
            clock,
            metrics,
            http: HttpClient::default(),
            backends: Arc::default(),
            dev: false,
        }
    }
}
