//! Fakes for the modules that the files under test depend on: the HTTP client for backends, file reads and the
//! settings.

/// Replaces `src/session`: the real modules, except those that call backends or read the configuration.
pub mod session {
    pub use rollout_token::session::{reason, types};

    pub mod backends {
        pub use rollout_token::session::backends::{health, http, jwks_source, keys, waiting};

        pub use crate::world::fakes::Context;
    }

    pub mod chain {
        pub use crate::world::fakes::Chain;
    }

    pub mod registry {
        pub use crate::world::fakes::Registry;
    }
}

/// A fake provider, and a configuration without extractors.
pub mod fakes {
    use std::sync::Arc;

    use axum::http::HeaderMap;
    use reqwest::{Request, StatusCode};
    use rollout_token::session::backends::http::{Answer, CallError, CallLimits};

    use crate::clock::Clock;
    use crate::sync::Mutex;

    #[derive(Clone, Debug)]
    pub struct Context {
        pub clock: Clock,
        pub metrics: Arc<rollout_token::telemetry::metrics::Metrics>,
        pub http: Arc<Provider>,
    }

    impl Context {
        pub fn new(clock: Clock, metrics: Arc<rollout_token::telemetry::metrics::Metrics>) -> Self {
            Self {
                clock,
                metrics,
                http: Arc::default(),
            }
        }
    }

    /// Responds to every call with the same body, or fails every call with a timeout, and counts the calls.
    #[derive(Debug, Default)]
    pub struct Provider(Mutex<State>);

    #[derive(Debug, Default)]
    struct State {
        body: Option<&'static str>,
        calls: usize,
        under_way: usize,
    }

    impl Provider {
        pub fn publish(&self, body: Option<&'static str>) {
            self.0.lock().unwrap().body = body;
        }

        pub fn calls(&self) -> usize {
            self.0.lock().unwrap().calls
        }

        pub async fn send(&self, _: Request, _: CallLimits) -> Result<Answer, CallError> {
            {
                let mut state = self.0.lock().unwrap();
                state.calls += 1;
                state.under_way += 1;
                assert_eq!(state.under_way, 1, "two calls at a time");
            }
            shuttle::future::yield_now().await;
            let mut state = self.0.lock().unwrap();
            state.under_way -= 1;
            let body = state
                .body
                .ok_or(CallError::Timeout(std::time::Duration::ZERO))?;
            Ok(Answer {
                status: StatusCode::OK,
                headers: HeaderMap::new(),
                body: body.into(),
            })
        }
    }

    /// A registry without extractor kinds.
    #[derive(Debug)]
    pub struct Registry;

    #[derive(Clone, Debug)]
    pub struct Chain;

    impl Chain {
        pub fn start(&self) {}

        pub fn is_ready(&self) -> bool {
            true
        }
    }
}

/// Replaces `src/config`.
pub mod config {
    use std::sync::Arc;

    pub use rollout_token::config::{HumanDuration, Problems};

    use crate::sync::Mutex;

    /// Two files that are always replaced together. The content 0 stands for a half-written file.
    #[derive(Clone, Debug, Default)]
    pub struct Sources(Arc<Mutex<[u32; 2]>>);

    impl Sources {
        pub fn replace(&self, content: u32) {
            *self.0.lock().unwrap() = [content; 2];
        }

        pub fn read(&self, file: usize) -> u32 {
            self.0.lock().unwrap()[file]
        }
    }
}

/// Replaces `src/settings`: settings are read from two files, one after the other.
pub mod settings {
    use super::config::{HumanDuration, Problems, Sources};
    use super::fakes::{Chain, Context, Registry};
    use crate::files::reload::ReloadConfig;

    #[derive(Debug)]
    pub struct Settings {
        pub files: [u32; 2],
        pub client: u8,
        sources: Sources,
        pub chain: Chain,
        pub reload: ReloadConfig,
    }

    impl Settings {
        /// Whether a file has changed since it was loaded. Reads each file again, as `FileFingerprint` does.
        pub fn are_outdated(&self) -> bool {
            (0..2).any(|file| self.sources.read(file) != self.files[file])
        }

        pub fn log_notes(&self) {}

        pub fn secret_fingerprint(&self) -> String {
            self.client.to_string()
        }

        pub fn keep_restart_keys(&mut self, _: &Self) -> Vec<String> {
            Vec::new()
        }

        pub fn keep_unchanged(&mut self, _: &Self) -> Chain {
            Chain
        }
    }

    pub fn load(sources: &Sources, _: &Registry, _: &Context) -> Result<Settings, Problems> {
        let files = [sources.read(0), sources.read(1)];
        if files.contains(&0) {
            return Err(Problems::of("client_secret", "is half written"));
        }
        Ok(Settings {
            files,
            client: 0,
            sources: sources.clone(),
            chain: Chain,
            reload: ReloadConfig {
                poll_interval: HumanDuration::secs(0),
            },
        })
    }
}

/// A substitute for the application. It holds only the settings, which a reload replaces.
pub mod app {
    use std::sync::Arc;

    use crate::files::reload::Reloadable;
    use crate::settings::Settings;
    use crate::sync::Mutex;

    #[derive(Debug)]
    pub struct App(Mutex<Arc<Settings>>);

    impl App {
        pub fn new(settings: Settings) -> Arc<Self> {
            Arc::new(Self(Mutex::new(Arc::new(settings))))
        }
    }

    impl Reloadable for App {
        fn settings(&self) -> Arc<Settings> {
            self.0.lock().unwrap().clone()
        }

        fn replace(&self, settings: Settings) {
            *self.0.lock().unwrap() = Arc::new(settings);
        }
    }
}
