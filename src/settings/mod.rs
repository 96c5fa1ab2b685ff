//! From layers of text to typed settings: defaults, files, environment, and every problem at once.
//! What a key means is in `config/default.toml`; which kinds of extractors exist is in `extractors`.

mod checks;
mod origins;
mod raw;
pub mod reload;
mod traces;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use config::{Value, ValueKind};

use checks::{
    address, check_client, check_log, check_origins, check_rate_limit, check_server, check_traces,
    check_ttl, positive,
};

use crate::config::{
    Elsewhere, FileFingerprint, Merged, Problems, Sources, Table, Warnings, no_section, read, take,
    unknown,
};
use crate::session::backends::Context;
use crate::session::backends::waiting::Backends;
use crate::session::builder::{Builder, BuiltFrom};
use crate::session::chain::{Chain, ConfiguredExtractor};
use crate::session::registry::Registry;
use crate::telemetry::logs::LogConfig;
use crate::telemetry::traces::TraceReceiver;
use crate::token::{ClaimTemplates, Minter, RolloutClient};

pub use origins::Origin;

const CLIENT_KEYS: [&str; 3] = ["client_id", "client_secret", "client_secret_file"];
const SECTIONS: [&str; 8] = [
    "server",
    "token",
    "origins",
    "session",
    "extractors",
    "rate_limit",
    "log",
    "reload",
];

/// Everything that the service needs to know, checked.
#[derive(Debug)]
pub struct Settings {
    pub client: RolloutClient,
    pub minter: Minter,
    pub server: Server,
    pub origins: Vec<Origin>,
    pub chain: Chain,
    pub rate_limit: Option<RateLimit>,
    pub log: LogConfig,
    pub poll_interval: Duration,
    /// Read at the start only.
    pub traces: Option<TraceReceiver>,
    /// What is accepted, but what the operator should know.
    pub warnings: Warnings,
    effective: serde_json::Value,
    /// The files that `--config` names.
    config_files: Vec<FileFingerprint>,
    /// The file of the client secret.
    secret_file: Option<FileFingerprint>,
    /// What each extractor was built from, by its name.
    built_from: BTreeMap<String, BuiltFrom>,
}

/// How connections and requests are served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    pub listen: SocketAddr,
    pub admin_listen: SocketAddr,
    pub docs_alias: bool,
    pub header_timeout: Duration,
    pub idle_timeout: Duration,
    pub body_timeout: Duration,
    pub request_timeout: Duration,
    pub max_header_bytes: usize,
    pub max_headers: usize,
    pub max_uri_bytes: usize,
    pub max_body_bytes: u64,
    pub max_connections: usize,
    pub max_in_flight: usize,
    pub drain_delay: Duration,
    pub drain_timeout: Duration,
    pub hard_stop: Duration,
}

/// Tokens per subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    pub per_minute: NonZeroU32,
    pub burst: NonZeroU32,
}

/// Loads and checks the whole configuration. Reads files, but never the network.
///
/// # Errors
/// Every problem of every layer, each beginning with its key.
pub fn load(
    sources: &Sources,
    registry: &Registry,
    context: &Context,
) -> Result<Settings, Problems> {
    let mut problems = Problems::default();
    // What a layer that cannot be read would say is not missing.
    let Some(Merged { mut tree, files }) = sources.merge(&mut problems) else {
        return Err(problems);
    };
    let mut effective = serde_json::Map::new();

    let client_table = take(&mut tree, &CLIENT_KEYS);
    let client: raw::Client = read("", &client_table, &[], &mut problems);
    let server: raw::Server = section(&mut tree, "server", &mut problems, &mut effective);
    let token: raw::Token = section(&mut tree, "token", &mut problems, &mut effective);
    let origins: raw::Origins = section(&mut tree, "origins", &mut problems, &mut effective);
    let session: raw::Session = section(&mut tree, "session", &mut problems, &mut effective);
    let rate_limit: raw::RateLimit =
        section(&mut tree, "rate_limit", &mut problems, &mut effective);
    let log: raw::Log = section(&mut tree, "log", &mut problems, &mut effective);
    let reload: raw::Reload = section(&mut tree, "reload", &mut problems, &mut effective);
    let extractors = table(&mut tree, "extractors", &mut problems);
    for key in tree.keys().collect::<BTreeSet<_>>() {
        problems.add(key, unknown_at_top(key));
    }
    if let serde_json::Value::Object(keys) = serde_json::to_value(&client).unwrap_or_default() {
        effective.extend(keys.into_iter().filter(|(_, value)| !value.is_null()));
    }

    let client = check_client(client, &mut problems);
    let client_secret = client.as_ref().map(|(client, _)| &client.secret);
    let elsewhere = Elsewhere {
        client_secret,
        request_timeout: server.request_timeout.0,
        cap_to_session: token.cap_to_session,
    };
    let context = &Context {
        backends: Arc::new(Backends::new(server.max_in_flight)),
        ..context.clone()
    };
    let builder = Builder {
        registry,
        elsewhere,
        context,
        max_in_flight: server.max_in_flight,
    };
    let built = builder.chain(&session.extractors, extractors, &mut problems);
    effective.insert("extractors".to_owned(), built.effective.into());
    let server = check_server(&server, context.dev, &mut problems);
    let ttl = check_ttl(token.ttl, &mut problems);
    let claims = problems.accept("token.claims", ClaimTemplates::parse(token.claims));
    let origins = check_origins(&origins.allowed, &mut problems);
    let log = check_log(&log, &mut problems);
    let poll_interval = positive("reload.poll_interval", reload.poll_interval, &mut problems);
    let rate_limit = check_rate_limit(&rate_limit, &mut problems);
    let mut warnings = built.warnings;
    let traces = check_traces(&sources.environment, &mut problems, &mut warnings);

    let (Some((client, secret_file)), Some(server), Some(claims), Some(log), true) =
        (client, server, claims, log, problems.is_empty())
    else {
        return Err(problems);
    };
    if client.secret.expose().len() < 64 {
        warnings.add(
            "client_secret",
            "is shorter than the 64 bytes that RFC 7518, section 3.2 asks for with HS512; Rollout chooses it, \
             so this is only for your information",
        );
    }
    Ok(Settings {
        minter: Minter::new(&client, ttl, token.cap_to_session, claims),
        client,
        server,
        origins,
        chain: built.chain,
        rate_limit,
        log,
        poll_interval,
        traces,
        warnings,
        effective: effective.into(),
        config_files: files,
        secret_file,
        built_from: built.sources,
    })
}

/// Loads only what `mint` and `inspect` need: the client id and secret.
///
/// # Errors
/// What is wrong with either.
pub fn load_client(sources: &Sources) -> Result<RolloutClient, Problems> {
    let mut problems = Problems::default();
    let Some(Merged { mut tree, .. }) = sources.merge(&mut problems) else {
        return Err(problems);
    };
    let client = read("", &take(&mut tree, &CLIENT_KEYS), &[], &mut problems);
    let client = check_client(client, &mut problems);
    match client {
        Some((client, _)) if problems.is_empty() => Ok(client),
        _ => Err(problems),
    }
}

/// Loads only what `health` needs: the address that the service listens on.
///
/// # Errors
/// What is wrong with `[server]`.
pub fn load_listen(sources: &Sources) -> Result<SocketAddr, Problems> {
    let mut problems = Problems::default();
    let Some(Merged { mut tree, .. }) = sources.merge(&mut problems) else {
        return Err(problems);
    };
    let server: raw::Server = section(
        &mut tree,
        "server",
        &mut problems,
        &mut serde_json::Map::new(),
    );
    let listen = address("server.listen", &server.listen, &mut problems);
    match listen {
        Some(listen) if problems.is_empty() => Ok(listen),
        _ => Err(problems),
    }
}

impl Settings {
    /// Whether a file of secrets or keys holds something else now, which is a reason to reload.
    pub fn are_outdated(&self) -> bool {
        let of_extractors = self.built_from.values().flat_map(|from| &from.files);
        self.secret_file
            .iter()
            .chain(of_extractors)
            .any(FileFingerprint::has_changed)
    }

    /// Whether every file still holds what was read from it.
    pub fn match_their_files(&self) -> bool {
        !self.are_outdated() && !self.config_files.iter().any(FileFingerprint::has_changed)
    }

    /// Replaces each extractor whose section and files are the same in `old` by the one there, so that it keeps
    /// its caches and connections. Gives the others, which have yet to be started.
    pub fn keep_unchanged(&mut self, old: &Self) -> Chain {
        let (mut links, mut new) = (Vec::new(), Vec::new());
        for link in self.chain.extractors() {
            let same = old.chain.extractors().iter().find(|old_link| {
                old_link.name == link.name
                    && old.built_from.get(&*link.name) == self.built_from.get(&*link.name)
            });
            if let Some(same) = same {
                links.push(ConfiguredExtractor {
                    extractor: same.extractor.clone(),
                    ..link.clone()
                });
            } else {
                links.push(link.clone());
                new.push(link.clone());
            }
        }
        self.chain = Chain::new(links);
        Chain::new(new)
    }

    /// Logs each warning, at start and after a reload.
    pub fn log_warnings(&self) {
        for warning in self.warnings.lines() {
            tracing::warn!("{warning}");
        }
    }

    /// The configuration as it was understood: every default filled in, every secret redacted.
    pub fn effective(&self) -> &serde_json::Value {
        &self.effective
    }
}

/// What is wrong with a name that is neither a section nor a key before the first one.
fn unknown_at_top(key: &str) -> String {
    let joined = SECTIONS
        .iter()
        .find_map(|section| Some((section, key.strip_prefix(section)?.strip_prefix('_')?)));
    match joined {
        Some((section, rest)) => format!(
            "is not a section: did you mean {section}.{rest}? In a variable's name two underscores stand between \
             the parts: ROLLOUT__{}__{}",
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

/// The table called `name`, empty if it is not there.
fn table(tree: &mut Table, name: &str, problems: &mut Problems) -> Table {
    let text = match tree.remove(name) {
        None => return Table::new(),
        Some(Value {
            kind: ValueKind::Table(table),
            ..
        }) => return table,
        Some(_) if name == "extractors" => {
            "must be sections, [extractors.NAME]; the list of their names is session.extractors"
                .to_owned()
        }
        Some(value) => no_section(name, &value),
    };
    problems.add(name, text);
    Table::new()
}

fn section<T>(
    tree: &mut Table,
    name: &str,
    problems: &mut Problems,
    effective: &mut serde_json::Map<String, serde_json::Value>,
) -> T
where
    T: serde::de::DeserializeOwned + serde::Serialize + Default,
{
    let table = table(tree, name, problems);
    let section = read(name, &table, &[], problems);
    effective.insert(
        name.to_owned(),
        serde_json::to_value(&section).unwrap_or_default(),
    );
    section
}
