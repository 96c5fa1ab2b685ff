//! What the files under test need of the service, as far as they need it: a back end to call, files to
//! read, settings to replace.

/// What stands for `src/extractors`.
pub mod extractors {
    use std::sync::Arc;

    use axum::http::HeaderMap;
    use reqwest::{Request, StatusCode};
    use rollout_token::session::backends::http::{Answer, CallError, Limits};
    pub use rollout_token::session::types::{ExtractError, Readiness, Session};

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
            Self { clock, metrics, http: Arc::default() }
        }
    }

    /// What every call gets: a body, or no answer at all. Counts the calls.
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

        pub async fn send(&self, _: Request, _: Limits) -> Result<Answer, CallError> {
            {
                let mut state = self.0.lock().unwrap();
                state.calls += 1;
                state.under_way += 1;
                assert_eq!(state.under_way, 1, "two calls at a time");
            }
            shuttle::future::yield_now().await;
            let mut state = self.0.lock().unwrap();
            state.under_way -= 1;
            let body = state.body.ok_or(CallError::Timeout)?;
            Ok(Answer { status: StatusCode::OK, headers: HeaderMap::new(), body: body.into() })
        }
    }

    /// No kinds of extractors: configurations have none here.
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

/// What stands for `src/config`: settings are read from two files, one after the other.
pub mod config {
    use std::sync::Arc;
    use std::time::Duration;

    pub use rollout_token::config::Problems;

    use super::extractors::{Chain, Context, Registry};
    use crate::sync::Mutex;

    /// Two files that are always replaced together. Zero is a file half written.
    #[derive(Clone, Debug, Default)]
    pub struct Sources(Arc<Mutex<[u32; 2]>>);

    impl Sources {
        pub fn replace(&self, content: u32) {
            *self.0.lock().unwrap() = [content; 2];
        }

        fn read(&self, file: usize) -> u32 {
            self.0.lock().unwrap()[file]
        }
    }

    #[derive(Debug)]
    pub struct Settings {
        pub files: [u32; 2],
        pub client: u8,
        sources: Sources,
        pub chain: Chain,
        pub server: u8,
        pub log: u8,
        pub poll_interval: Duration,
    }

    impl Settings {
        /// As `Watched` does it: each file is looked at again.
        pub fn are_outdated(&self) -> bool {
            (0..2).any(|file| self.sources.read(file) != self.files[file])
        }

        pub fn match_their_files(&self) -> bool {
            !self.are_outdated()
        }

        pub fn log_warnings(&self) {}

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
            server: 0,
            log: 0,
            poll_interval: Duration::ZERO,
        })
    }
}

/// What stands for `src/app.rs`.
pub mod app {
    use std::sync::Arc;

    use rollout_token::telemetry::metrics::Metrics;

    use super::config::Settings;
    use crate::sync::Mutex;

    #[derive(Debug)]
    pub struct App {
        live: Mutex<Arc<Live>>,
        pub metrics: Metrics,
    }

    #[derive(Debug)]
    pub struct Live {
        pub settings: Settings,
    }

    impl App {
        pub fn new(settings: Settings) -> Arc<Self> {
            Arc::new(Self { live: Mutex::new(Arc::new(Live { settings })), metrics: Metrics::new() })
        }

        pub fn live(&self) -> Arc<Live> {
            self.live.lock().unwrap().clone()
        }

        pub fn replace(&self, settings: Settings) {
            *self.live.lock().unwrap() = Arc::new(Live { settings });
        }
    }
}
