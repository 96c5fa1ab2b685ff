//! Clients for the backends that extractors call: HTTP endpoints, key sets and session stores. The clients limit
//! concurrent calls, waiting requests and memory. The extractors interpret the answers.

pub mod dns;
pub mod endpoint;
pub mod health;
pub mod http;
pub mod jwks;
pub mod jwks_source;
pub mod keys;
pub mod keys_by_kid;
pub mod lookup;
pub mod outgoing;
pub mod pool;
pub mod waiting;

use std::sync::Arc;

use crate::clock::Clock;
use crate::config::{List, Problems, PublicText, Section};
use crate::secret::Secret;
use crate::telemetry::metrics::Metrics;
use http::HttpClient;
use outgoing::OutgoingConfig;
use waiting::Backends;

/// The shared services that an extractor gets when it is built.
#[derive(Clone, Debug)]
pub struct Context {
    pub clock: Clock,
    pub metrics: Arc<Metrics>,
    pub http: HttpClient,
    /// The backends of the configuration that is being loaded.
    pub(crate) backends: Arc<Backends>,
    /// Whether dev mode is on, which allows kinds that check no credential, such as `static_user`.
    pub dev: bool,
}

impl Context {
    /// Creates a context with dev mode off and a new HTTP client.
    pub fn new(clock: Clock, metrics: Arc<Metrics>) -> Self {
        Self {
            clock,
            metrics,
            http: HttpClient::default(),
            backends: Arc::default(),
            dev: false,
        }
    }

    /// The context for one section. If `proxy`, `no_proxy` or `ca` changes the settings of outgoing calls, the section
    /// has its own HTTP client; otherwise it shares this context's client.
    #[must_use]
    pub(crate) fn through(
        &self,
        section: &Section<'_>,
        proxy: Option<Secret>,
        no_proxy: Option<List<String>>,
        ca: Option<PublicText>,
        problems: &mut Problems,
    ) -> Self {
        let config = OutgoingConfig {
            proxy,
            no_proxy,
            ca,
        };
        let outgoing = self.http.outgoing();
        let own = outgoing.with(&config, |key| section.key(key), problems);
        if own == *outgoing {
            return self.clone();
        }
        Self {
            http: HttpClient::new(own),
            ..self.clone()
        }
    }
}
