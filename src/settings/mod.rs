//! Converts the layers (defaults, files, environment variables) to typed settings, and reports all problems at once.
//! `config/default.toml` documents the keys, and `session/extractors` contains the extractor kinds.

mod client;
pub mod log;
mod look_alikes;
mod origins;
mod outgoing;
mod rate_limit;
pub mod reload;
pub(crate) mod schema;
mod server;
mod session;
mod token;
mod traces;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use ::config::{Value, ValueKind};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::config::{
    Elsewhere, FileFingerprint, HumanDuration, PORT, Problems, Sources, Table, ValueOrigin,
    Warnings, join, keys_of, no_section, read, take, unknown,
};
use crate::session::backends::Context;
use crate::session::backends::http::HttpClient;
use crate::session::backends::outgoing::OutgoingConfig;
use crate::session::backends::waiting::Backends;
use crate::session::builder::{Builder, BuiltFrom};
use crate::session::chain::{Chain, ConfiguredExtractor};
use crate::session::registry::Registry;
use crate::telemetry::logs::fingerprint;
use crate::telemetry::traces::TraceReceiver;
use crate::token::{Minter, RolloutClient};
use client::ClientConfig;
use log::LogConfig;
use origins::OriginsConfig;
use reload::ReloadConfig;
use session::SessionConfig;
use token::TokenConfig;

pub use origins::{Origin, OriginPattern, Origins, is_loopback};
pub use rate_limit::RateLimitConfig;
pub use server::{ServerConfig, ServerRestartConfig};

const CLIENT_KEYS: [&str; 3] = ["client_id", "client_secret", "client_secret_file"];
const SECTIONS: [&str; 9] = [
    "server",
    "token",
    "origins",
    "outgoing",
    "session",
    "extractors",
    "rate_limit",
    "log",
    "reload",
];

/// The validated settings of the service.
#[derive(Debug)]
pub struct Settings {
    pub client: RolloutClient,
    pub minter: Minter,
    pub server: Arc<ServerConfig>,
    /// The file or environment variable that sets the port of `server.listen`, or `default`.
    pub port_from: String,
    pub origins: Origins,
    /// The HTTP client for calls that belong to no extractor.
    pub http: HttpClient,
    pub chain: Chain,
    pub rate_limit: RateLimitConfig,
    pub log: LogConfig,
    pub reload: ReloadConfig,
    /// The trace collector. A reload does not change it.
    pub traces: Option<TraceReceiver>,
    /// Warnings about accepted values, for the operator.
    pub warnings: Warnings,
    /// The number of secrets in each list or table, with the full name of its configuration key.
    pub secret_counts: Vec<(String, usize)>,
    effective: serde_json::Value,
    /// The configuration files, and the files that `SSL_CERT_FILE` and keys outside the extractors' sections name.
    files: Vec<FileFingerprint>,
    backends: Arc<Backends>,
    /// The inputs from which each extractor was built, keyed by the extractor's name.
    built_from: BTreeMap<String, BuiltFrom>,
}

/// Loads and validates the whole configuration. Reads files, but never uses the network.
///
/// # Errors
/// All problems, each beginning with its key. If a layer cannot be read, only the problems of the layers are reported.
pub fn load(
    sources: &Sources,
    registry: &Registry,
    context: &Context,
) -> Result<Settings, Problems> {
    merge_and_read(sources, |sections, problems| {
        read_settings(sections, sources, registry, context, problems)
    })
}

/// Like [`load`], but also accepts a configuration that lists no extractors yet.
///
/// # Errors
/// As for [`load`], unless the only problem is that no extractors are listed.
pub fn load_even_without_extractors(
    sources: &Sources,
    registry: &Registry,
    context: &Context,
) -> Result<Settings, Problems> {
    merge_and_read(sources, |sections, problems| {
        let settings = read_settings(sections, sources, registry, context, problems)?;
        if settings.chain.extractors().is_empty() && problems.are_only_about("session.extractors") {
            *problems = Problems::default();
        }
        Some(settings)
    })
}

/// Like [`load_client`], but also accepts a damaged secret, such as one in quotes, so that `inspect` can try the secret
/// without the damage.
///
/// # Errors
/// Any problem with the client id or secret, except damage to the secret, or with a layer that cannot be read.
pub fn load_client_as_given(sources: &Sources) -> Result<RolloutClient, Problems> {
    merge_and_read(sources, |mut sections, problems| {
        sections.client(problems).read_as_given(problems)
    })
}

/// Loads only what `mint` and `inspect` need: the client id and secret.
///
/// # Errors
/// Any problem with the client id or secret, or with a layer that cannot be read.
pub fn load_client(sources: &Sources) -> Result<RolloutClient, Problems> {
    merge_and_read(sources, |mut sections, problems| {
        let client = sections.client(problems);
        client.check(problems, &mut Warnings::default())
    })
}

/// Loads only what the commands that call Rollout need: the client id and secret, and the settings of outgoing calls.
///
/// # Errors
/// The problems of these keys, or of a layer that cannot be read.
pub fn load_client_and_http(sources: &Sources) -> Result<(RolloutClient, HttpClient), Problems> {
    merge_and_read(sources, |mut sections, problems| {
        let warnings = &mut Warnings::default();
        let client = sections.client(problems).check(problems, warnings);
        let http = sections.http(&sources.environment, problems, warnings);
        Some((client?, http))
    })
}

/// Loads only what `health` needs: the listen address, and the source of its port as in [`Settings::port_from`].
///
/// # Errors
/// The problems of `[server]` and `PORT`, or of a layer that cannot be read.
pub fn load_listen(sources: &Sources) -> Result<(SocketAddr, String), Problems> {
    merge_and_read(sources, |mut sections, problems| {
        let (server, port_from) = sections.server(&sources.environment, false, problems);
        Some((server.restart.listen, port_from))
    })
}

/// Merges the layers, and reads from them what a command needs. A command does this once, because a file may be a pipe,
/// which can be read only once.
///
/// If a layer cannot be read, only that problem is reported, because a key that seems to be missing may be in that
/// layer.
fn merge_and_read<T>(
    sources: &Sources,
    read: impl FnOnce(Sections, &mut Problems) -> Option<T>,
) -> Result<T, Problems> {
    let mut problems = Problems::default();
    let loaded = sources.merge(&mut problems).and_then(|(tree, files)| {
        let sections = Sections {
            tree,
            effective: serde_json::Map::new(),
            files,
        };
        read(sections, &mut problems)
    });
    match loaded {
        Some(loaded) if problems.is_empty() => Ok(loaded),
        _ => Err(problems),
    }
}

/// Reads all sections. The result has default values for keys that have problems; `None` if the client, the origins or
/// `[token.claims]` cannot be built.
fn read_settings(
    mut sections: Sections,
    sources: &Sources,
    registry: &Registry,
    context: &Context,
    problems: &mut Problems,
) -> Option<Settings> {
    let mut warnings = Warnings::default();
    let client = sections.client(problems);
    let (server, port_from) = sections.server(&sources.environment, context.dev, problems);
    let token: TokenConfig = sections.read("token", problems);
    let origins: OriginsConfig = sections.read("origins", problems);
    let http = sections.http(&sources.environment, problems, &mut warnings);
    let session: SessionConfig = sections.read("session", problems);
    let rate_limit: RateLimitConfig = sections.read("rate_limit", problems);
    let log: LogConfig = sections.read("log", problems);
    let reload: ReloadConfig = sections.read("reload", problems);
    let extractors = sections.table("extractors", problems);
    // The sections that were not read are unknown.
    for key in sections.tree.keys().collect::<BTreeSet<_>>() {
        problems.add(key, unknown_at_top(key));
    }
    let Sections {
        mut effective,
        files,
        ..
    } = sections;
    let misspelled = look_alikes::find(&sources.foreign, &effective);
    for (name, text) in &misspelled {
        warnings.add(*name, text.as_str());
    }

    let client = client.check(problems, &mut warnings);
    let elsewhere = Elsewhere {
        client_secret: client.as_ref().map(|client| &client.secret),
        request_timeout: server.request_timeout.0,
        cap_to_session: token.cap_to_session,
    };
    let context = &Context {
        http: http.clone(),
        backends: Arc::new(context.backends.of_reload()),
        ..context.clone()
    };
    let builder = Builder {
        registry,
        elsewhere,
        context,
    };
    let built = builder.chain(&session.extractors, extractors, problems);
    effective.insert("extractors".to_owned(), built.effective.into());
    warnings.extend(built.warnings);
    server.check(&port_from, context.dev, problems);
    let claims = token.check(problems);
    let origins = origins.check(&built.chain, context.dev, problems, &mut warnings);
    rate_limit.check(problems);
    require_positive("reload.poll_interval", reload.poll_interval, problems);
    let traces = traces::load(&sources.environment, problems, &mut warnings);

    if !problems.is_empty() {
        // A misspelled variable is often the cause of the other problems.
        for (name, text) in misspelled {
            problems.add(name, text);
        }
    }
    let client = client?;
    Some(Settings {
        minter: Minter::new(&client, token.ttl.0, token.cap_to_session, claims?),
        client,
        server: Arc::new(server),
        port_from,
        origins: origins?,
        http,
        chain: built.chain,
        rate_limit,
        log,
        reload,
        traces,
        warnings,
        secret_counts: built.secret_counts,
        effective: effective.into(),
        files,
        backends: context.backends.clone(),
        built_from: built.sources,
    })
}

impl Settings {
    /// Whether a file has changed since it was read, which is a reason to reload.
    pub fn are_outdated(&self) -> bool {
        let of_extractors = self.built_from.values().flat_map(|from| &from.files);
        self.files
            .iter()
            .chain(of_extractors)
            .any(FileFingerprint::has_changed)
    }

    /// Reuses the extractors of `old` whose inputs (`BuiltFrom`) are unchanged, so that their caches and connections
    /// are kept. Returns the other extractors, which are not started yet.
    pub fn keep_unchanged(&mut self, old: &Self) -> Chain {
        let (mut extractors, mut new) = (Vec::new(), Vec::new());
        for configured in self.chain.extractors() {
            let same = old.chain.extractors().iter().find(|earlier| {
                earlier.name == configured.name
                    && old.built_from.get(&*configured.name)
                        == self.built_from.get(&*configured.name)
            });
            if let Some(same) = same {
                extractors.push(ConfiguredExtractor {
                    extractor: same.extractor.clone(),
                    ..configured.clone()
                });
            } else {
                extractors.push(configured.clone());
                new.push(configured.clone());
            }
        }
        self.chain = Chain::new(extractors);
        Chain::new(new)
    }

    /// Divides the limits of the service among its backends, including those of extractors that
    /// [`Self::keep_unchanged`] reuses. Called when these settings take effect.
    pub fn share_limits(&self) {
        self.backends.share(self.server.max_in_flight);
    }

    /// Keeps the current values of all keys that are read at start only. Returns the names of the keys that have
    /// changed.
    pub fn keep_restart_keys(&mut self, current: &Self) -> Vec<String> {
        let current = &current.server.restart;
        let (old, new) = (json!(current), json!(self.server.restart));
        let keys = keys_of::<ServerRestartConfig>().into_iter();
        let changed = keys.filter(|key| old[key] != new[key]);
        let changed = changed.map(|key| join("server", &key)).collect();
        Arc::make_mut(&mut self.server).restart = current.clone();
        changed
    }

    /// The client secret's fingerprint, which identifies the secret in logs and on the admin listener's `/readyz`.
    pub fn secret_fingerprint(&self) -> String {
        fingerprint(&self.client.secret)
    }

    /// Logs each warning, and how many secrets each list or table contains, at start and after a reload.
    pub fn log_notes(&self) {
        for (key, count) in &self.secret_counts {
            tracing::info!(key, count, "secrets loaded");
        }
        for warning in self.warnings.lines() {
            tracing::warn!("{warning}");
        }
    }

    /// The effective configuration, with all defaults applied and all secrets redacted.
    pub fn effective(&self) -> &serde_json::Value {
        &self.effective
    }
}

/// The message for a name that is neither a section nor a top-level key.
fn unknown_at_top(key: &str) -> String {
    let joined = SECTIONS
        .iter()
        .find_map(|section| Some((section, key.strip_prefix(section)?.strip_prefix('_')?)));
    match joined {
        Some((section, rest)) => format!(
            "is not a section: did you mean {section}.{rest}? In a variable's name, two underscores separate the parts: ROLLOUT__{}__{}",
            section.to_uppercase(),
            rest.to_uppercase()
        ),
        None => unknown(
            "section or key",
            key,
            SECTIONS.into_iter().chain(CLIENT_KEYS),
        ),
    }
}

/// The sections of a configuration. Each section is removed from the tree when it is read.
struct Sections {
    tree: Table,
    /// The effective sections, for `check-config --print`.
    effective: serde_json::Map<String, serde_json::Value>,
    /// The configuration files, and the files named by `SSL_CERT_FILE` and by keys such as `client_secret_file`.
    files: Vec<FileFingerprint>,
}

impl Sections {
    /// Reads the top-level keys: `client_id`, `client_secret` and `client_secret_file`.
    fn client(&mut self, problems: &mut Problems) -> ClientConfig {
        let table = take(&mut self.tree, &CLIENT_KEYS);
        let client = read("", &table, &[], &mut self.files, problems);
        self.effective.extend(shown(&client));
        client
    }

    /// The table called `name`; an empty table if it does not exist. If it is not a table, reports a problem and
    /// returns an empty table.
    fn table(&mut self, name: &str, problems: &mut Problems) -> Table {
        let text = match self.tree.remove(name) {
            None => return Table::new(),
            Some(Value {
                kind: ValueKind::Table(table),
                ..
            }) => return table,
            Some(_) if name == "extractors" => {
                "must consist of sections such as [extractors.NAME], whose names are listed in session.extractors"
                    .to_owned()
            }
            Some(value) => no_section(name, &value),
        };
        problems.add(name, text);
        Table::new()
    }

    fn read<T>(&mut self, name: &str, problems: &mut Problems) -> T
    where
        T: DeserializeOwned + Serialize + Default,
    {
        let table = self.table(name, problems);
        let section = read(name, &table, &[], &mut self.files, problems);
        self.effective
            .insert(name.to_owned(), shown(&section).into());
        section
    }

    /// Reads a section whose keys are the fields of two structs.
    fn read_in_two<A, B>(&mut self, name: &str, problems: &mut Problems) -> (A, B)
    where
        A: DeserializeOwned + Serialize + Default,
        B: DeserializeOwned + Serialize + Default,
    {
        let mut table = self.table(name, problems);
        let keys = keys_of::<A>();
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        let first = read(
            name,
            &take(&mut table, &keys),
            &[],
            &mut self.files,
            problems,
        );
        let second = read(name, &table, &keys, &mut self.files, problems);
        let mut keys = shown(&first);
        keys.extend(shown(&second));
        self.effective.insert(name.to_owned(), keys.into());
        (first, second)
    }

    /// The client for outgoing calls, with the settings in `[outgoing]`.
    fn http(
        &mut self,
        environment: &BTreeMap<String, String>,
        problems: &mut Problems,
        warnings: &mut Warnings,
    ) -> HttpClient {
        let config: OutgoingConfig = self.read("outgoing", problems);
        let files = &mut self.files;
        let outgoing = outgoing::check(&config, environment, files, problems, warnings);
        HttpClient::new(outgoing)
    }

    /// Reads `[server]`. Also returns the source of the port of `listen`, as in [`Settings::port_from`].
    fn server(
        &mut self,
        environment: &BTreeMap<String, String>,
        dev: bool,
        problems: &mut Problems,
    ) -> (ServerConfig, String) {
        if !dev && let Some(port) = environment.get(PORT).filter(|port| !port.is_empty()) {
            self.take_port(port, problems);
        }
        let origin = self.listen().and_then(ValueOrigin::of);
        let port_from = origin.map_or_else(|| "default".to_owned(), |origin| origin.to_string());
        let (restart, server) = self.read_in_two("server", problems);
        (ServerConfig { restart, ..server }, port_from)
    }

    fn listen(&self) -> Option<&Value> {
        match &self.tree.get("server")?.kind {
            ValueKind::Table(server) => server.get("listen"),
            _ => None,
        }
    }

    /// Uses `PORT` as the port of `server.listen` if that key is unset.
    fn take_port(&mut self, port: &str, problems: &mut Problems) {
        if self.listen().is_some() {
            return;
        }
        let port: Option<u16> =
            problems.parse(PORT, port.trim(), "a port: a number from 0 to 65535");
        let server = self
            .tree
            .entry("server".to_owned())
            .or_insert_with(|| Table::new().into());
        if let (Some(port), ValueKind::Table(server)) = (port, &mut server.kind) {
            let listen = ValueOrigin::Variable(PORT.to_owned()).value(i64::from(port));
            server.insert("listen".to_owned(), listen);
        }
    }
}

/// The keys of a section that have a value.
fn shown(section: &impl Serialize) -> serde_json::Map<String, serde_json::Value> {
    match json!(section) {
        serde_json::Value::Object(mut keys) => {
            keys.retain(|_, value| !value.is_null());
            keys
        }
        _ => serde_json::Map::new(),
    }
}

fn require_positive(key: &str, duration: HumanDuration, problems: &mut Problems) {
    problems.require(!duration.0.is_zero(), key, "must be greater than 0s");
}
