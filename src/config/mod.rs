//! From layers of text to typed settings: defaults, files, environment, and every problem at once.
//! What a key means is in `config/default.toml`; which kinds of extractors exist is in `extractors`.

mod chain;
mod problems;
mod raw;
mod section;
mod suggest;
mod values;
mod watched;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use config::{Config, Environment, File, FileFormat, ValueKind};

use chain::Builder;
pub(crate) use chain::build_extractor;
pub use chain::keys_of_kind;
pub use problems::Problems;
pub use section::Section;
use section::{Table, read};
use suggest::unknown;
pub use values::{List, Span};
pub use watched::Watched;

use crate::extractors::{Chain, Context, Registry};
use crate::origin::{Origin, Origins};
use crate::secret::Secret;
use crate::token::{ClaimTemplates, Minter};
use crate::trace::{self, Export};

/// The three names of Rollout's own docs, and the keys they stand for.
const ROLLOUT_NAMES: [(&str, &str); 3] = [
    ("ROLLOUT_CLIENT_ID", "client_id"),
    ("ROLLOUT_CLIENT_SECRET", "client_secret"),
    ("ROLLOUT_CLIENT_SECRET_FILE", "client_secret_file"),
];

const CLIENT_KEYS: [&str; 3] = ["client_id", "client_secret", "client_secret_file"];
const SECTIONS: [&str; 8] =
    ["server", "token", "origins", "session", "extractors", "rate_limit", "log", "reload"];

/// Where the configuration comes from. The environment is an argument, so that tests need no process.
#[derive(Clone, Default)]
pub struct Sources {
    /// TOML below everything else: what `dev` changes about the defaults.
    pub base: Option<String>,
    /// TOML files; the later wins.
    pub files: Vec<PathBuf>,
    /// Variables: `ROLLOUT__SECTION__KEY`, the three names of Rollout's docs, and OpenTelemetry's `OTEL_…`.
    pub environment: BTreeMap<String, String>,
    /// Variables of ours that are not UTF-8: they cannot be taken as they are.
    pub not_text: Vec<String>,
}

impl fmt::Debug for Sources {
    /// Variables and files hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sources").field("files", &self.files).finish_non_exhaustive()
    }
}

impl Sources {
    /// These files and the process's environment.
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the environment")]
    pub fn from_process(files: Vec<PathBuf>) -> Self {
        let mut sources = Self { files, ..Self::default() };
        for (name, value) in std::env::vars_os() {
            // Other names are nobody's business here.
            let Ok(name) = name.into_string() else { continue };
            let own = name.starts_with("ROLLOUT");
            if !own && !name.starts_with(trace::PREFIX) {
                continue;
            }
            match value.into_string() {
                Ok(value) => {
                    sources.environment.insert(name, value);
                }
                Err(_) if own => sources.not_text.push(name),
                Err(_) => {}
            }
        }
        sources
    }
}

/// Everything that the service needs to know, checked.
#[derive(Debug)]
pub struct Settings {
    pub client: Client,
    pub minter: Minter,
    pub server: Server,
    pub origins: Origins,
    pub chain: Chain,
    pub rate_limit: Option<RateLimit>,
    pub log: Log,
    pub poll_interval: Duration,
    /// Read at the start only.
    pub traces: Option<Export>,
    /// The files that secrets and keys were read from: a change of one reloads the configuration.
    pub watched: Vec<Watched>,
    /// Good, but worth a line in the log.
    pub warnings: Vec<String>,
    effective: serde_json::Value,
}

/// Who we are at Rollout.
#[derive(Clone, Debug)]
pub struct Client {
    pub id: String,
    pub secret: Secret,
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

/// What is logged, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Log {
    pub format: LogFormat,
    pub level: tracing::Level,
    pub plain_subject: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    Json,
    Pretty,
}

/// Loads and checks the whole configuration. Reads files, but never the network.
///
/// # Errors
/// Every problem of every layer, each beginning with its key.
pub fn load(sources: &Sources, registry: &Registry, context: &Context) -> Result<Settings, Problems> {
    let mut problems = Problems::default();
    let mut tree = merge(sources, &mut problems);
    // A layer that could not be read would only bring problems that are not there.
    if !problems.is_empty() {
        return Err(problems);
    }
    let mut effective = serde_json::Map::new();

    let client_table = take(&mut tree, &CLIENT_KEYS);
    let client: raw::Client = read("", &client_table, &[], &mut problems);
    let secret_file = client.client_secret_file.as_deref().map(Watched::now);
    let server: raw::Server = section(&mut tree, "server", &mut problems, &mut effective);
    let token: raw::Token = section(&mut tree, "token", &mut problems, &mut effective);
    let origins: raw::Origins = section(&mut tree, "origins", &mut problems, &mut effective);
    let session: raw::Session = section(&mut tree, "session", &mut problems, &mut effective);
    let rate_limit: raw::RateLimit = section(&mut tree, "rate_limit", &mut problems, &mut effective);
    let log: raw::Log = section(&mut tree, "log", &mut problems, &mut effective);
    let reload: raw::Reload = section(&mut tree, "reload", &mut problems, &mut effective);
    let extractors = table(&mut tree, "extractors", &mut problems);
    for key in tree.keys() {
        problems.add(key, unknown_at_top(key));
    }
    if let serde_json::Value::Object(keys) = serde_json::to_value(&client).unwrap_or_default() {
        effective.extend(keys.into_iter().filter(|(_, value)| !value.is_null()));
    }

    let client = check_client(client, &mut problems);
    let client_secret = client.as_ref().map(|client| &client.secret);
    let builder = Builder { registry, client_secret, context };
    let built = builder.chain(&session.extractors, extractors, &mut problems);
    effective.insert("extractors".to_owned(), built.effective.into());
    let server = check_server(&server, context.dev, &mut problems);
    let ttl = check_ttl(token.ttl, &mut problems);
    let claims = problems.accept("token.claims", ClaimTemplates::parse(token.claims));
    let origins = check_origins(&origins.allowed, &mut problems);
    let log = check_log(&log, &mut problems);
    let poll_interval = positive("reload.poll_interval", reload.poll_interval, &mut problems);
    let rate_limit = check_rate_limit(&rate_limit, &mut problems);
    let mut warnings = Vec::new();
    let traces = check_traces(&sources.environment, &mut problems, &mut warnings);

    let (Some(client), Some(server), Some(claims), Some(log), true) =
        (client, server, claims, log, problems.is_empty())
    else {
        return Err(problems);
    };
    if client.secret.expose().len() < 64 {
        warnings.push(
            "client_secret: is shorter than the 64 bytes that RFC 7518, section 3.2 asks for with HS512; \
             Rollout chooses it, so this is only for your information"
                .to_owned(),
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
        watched: built.watched.into_iter().chain(secret_file).collect(),
        warnings,
        effective: effective.into(),
    })
}

/// Loads only what `mint` and `inspect` need: the client id and secret.
///
/// # Errors
/// What is wrong with either.
pub fn load_client(sources: &Sources) -> Result<Client, Problems> {
    let mut problems = Problems::default();
    let mut tree = merge(sources, &mut problems);
    let client = read("", &take(&mut tree, &CLIENT_KEYS), &[], &mut problems);
    let client = check_client(client, &mut problems);
    match client {
        Some(client) if problems.is_empty() => Ok(client),
        _ => Err(problems),
    }
}

/// Whether a file or variable names a client secret.
///
/// # Errors
/// What keeps the sources from being read.
pub fn names_client_secret(sources: &Sources) -> Result<bool, Problems> {
    let mut problems = Problems::default();
    let tree = merge(sources, &mut problems);
    problems.or(["client_secret", "client_secret_file"].iter().any(|key| tree.contains_key(*key)))
}

/// Loads only what `health` needs: the address that the service listens on.
///
/// # Errors
/// What is wrong with `[server]`.
pub fn load_listen(sources: &Sources) -> Result<SocketAddr, Problems> {
    let mut problems = Problems::default();
    let mut tree = merge(sources, &mut problems);
    let server: raw::Server = section(&mut tree, "server", &mut problems, &mut serde_json::Map::new());
    let listen = address("server.listen", &server.listen, &mut problems);
    match listen {
        Some(listen) if problems.is_empty() => Ok(listen),
        _ => Err(problems),
    }
}

impl Settings {
    /// Whether a file that secrets or keys were read from says something else now.
    pub fn are_outdated(&self) -> bool {
        self.watched.iter().any(Watched::has_changed)
    }

    /// The configuration as it was understood: every default filled in, every secret redacted.
    pub fn effective(&self) -> &serde_json::Value {
        &self.effective
    }
}

/// Lays the layers over each other.
fn merge(sources: &Sources, problems: &mut Problems) -> Table {
    for name in &sources.not_text {
        problems.add(name, "is not UTF-8: put such a secret into a file, and name the file with _FILE");
    }
    let mut builder = Config::builder();
    if let Some(base) = &sources.base {
        builder = builder.add_source(File::from_str(base, FileFormat::Toml));
    }
    for path in &sources.files {
        let key = path.display().to_string();
        let read = std::fs::read_to_string(path).map_err(|error| format!("cannot be read: {error}"));
        let Some(text) = problems.accept(&key, read) else { continue };
        // The parser's own report prints the offending line, which may hold a secret.
        match toml::from_str::<toml::Table>(&text) {
            Ok(_) => builder = builder.add_source(File::from_str(&text, FileFormat::Toml)),
            Err(error) => {
                let line = error.span().map_or(0, |span| text[..span.start].matches('\n').count() + 1);
                let message = error.message().lines().next().unwrap_or_default();
                problems.add(key, format!("line {line} is not TOML: {message}"));
            }
        }
    }
    let variables = sources.environment.clone().into_iter().collect();
    builder = builder.add_source(
        Environment::with_prefix("ROLLOUT").prefix_separator("__").separator("__").source(Some(variables)),
    );
    for (name, key) in ROLLOUT_NAMES {
        if let Some(value) = sources.environment.get(name) {
            builder = match builder.set_override(key, value.as_str()) {
                Ok(builder) => builder,
                Err(error) => {
                    problems.add(key, error.to_string());
                    return Table::new();
                }
            };
        }
    }
    match builder.build().map(|config| config.cache.kind) {
        Ok(ValueKind::Table(tree)) => tree,
        Ok(_) => Table::new(),
        Err(error) => {
            problems.add("environment", error.to_string());
            Table::new()
        }
    }
}

/// What is wrong with a name that is neither a section nor a key before the first one.
fn unknown_at_top(key: &str) -> String {
    let joined =
        SECTIONS.iter().find_map(|section| Some((section, key.strip_prefix(section)?.strip_prefix('_')?)));
    match joined {
        Some((section, rest)) => format!(
            "is not a section: did you mean {section}.{rest}? In a variable's name two underscores stand between \
             the parts: ROLLOUT__{}__{}",
            section.to_uppercase(),
            rest.to_uppercase()
        ),
        None => unknown("section or key", key, SECTIONS.into_iter().chain(CLIENT_KEYS)),
    }
}

fn take(tree: &mut Table, keys: &[&str]) -> Table {
    keys.iter().filter_map(|key| tree.remove_entry(*key)).collect()
}

/// The table called `name`, empty if it is not there.
fn table(tree: &mut Table, name: &str, problems: &mut Problems) -> Table {
    match tree.remove(name).map(|value| value.kind) {
        None => Table::new(),
        Some(ValueKind::Table(table)) => table,
        Some(_) if name == "extractors" => {
            problems.add(
                name,
                "must be sections, [extractors.NAME]; the list of their names is session.extractors",
            );
            Table::new()
        }
        Some(_) => {
            problems.add(name, format!("must be a section, [{name}]"));
            Table::new()
        }
    }
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
    effective.insert(name.to_owned(), serde_json::to_value(&section).unwrap_or_default());
    section
}

fn check_client(client: raw::Client, problems: &mut Problems) -> Option<Client> {
    let id = client.client_id.unwrap_or_default();
    if id.trim().is_empty() || id.trim() != id {
        problems.add("client_id", "set ROLLOUT_CLIENT_ID to the client id from your Rollout dashboard");
    }
    let given = Secret::from_value_or_file(client.client_secret, client.client_secret_file.as_ref());
    let Some(secret) = problems.accept("client_secret", given)? else {
        problems.add(
            "client_secret",
            "set ROLLOUT_CLIENT_SECRET, or ROLLOUT_CLIENT_SECRET_FILE to the name of a file that holds it",
        );
        return None;
    };
    if let Some(weakness) = secret.weakness() {
        problems
            .add("client_secret", format!("{weakness}: copy the client secret from your Rollout dashboard"));
    }
    Some(Client { id, secret })
}

fn address(key: &str, text: &str, problems: &mut Problems) -> Option<SocketAddr> {
    problems.parse(key, text, "an IP address with a port, such as 0.0.0.0:8080 or [::1]:8080")
}

fn positive(key: &str, span: Span, problems: &mut Problems) -> Duration {
    problems.require(!span.0.is_zero(), key, "must be longer than nothing");
    span.0
}

fn check_server(server: &raw::Server, dev: bool, problems: &mut Problems) -> Option<Server> {
    for (key, value) in [
        ("server.max_header_bytes", server.max_header_bytes),
        ("server.max_headers", server.max_headers),
        ("server.max_uri_bytes", server.max_uri_bytes),
        ("server.max_connections", server.max_connections),
        ("server.max_in_flight", server.max_in_flight),
    ] {
        problems.require(value > 0, key, "must be at least 1");
    }
    for (key, value, most) in [
        ("server.max_uri_bytes", server.max_uri_bytes, 60_000),
        ("server.max_connections", server.max_connections, 1_000_000),
        ("server.max_in_flight", server.max_in_flight, 1_000_000),
        ("server.max_header_bytes", server.max_header_bytes, 65_536),
        ("server.max_headers", server.max_headers, 200),
    ] {
        problems.require(value <= most, key, format!("must be at most {most}"));
    }
    let (delay, drain, hard) = (server.drain_delay.0, server.drain_timeout.0, server.hard_stop.0);
    problems.require(
        delay + drain <= hard,
        "server.hard_stop",
        "must be at least server.drain_delay and server.drain_timeout together",
    );
    problems.require(
        server.request_timeout <= server.drain_timeout,
        "server.drain_timeout",
        "must be at least server.request_timeout, so that requests under way can finish",
    );
    let listen = address("server.listen", &server.listen, problems);
    let admin_listen = address("server.admin_listen", &server.admin_listen, problems);
    problems.require(
        listen != admin_listen || listen.is_none_or(|address| address.port() == 0),
        "server.admin_listen",
        "must be another address than server.listen",
    );
    let checked = Server {
        listen: listen?,
        admin_listen: admin_listen?,
        docs_alias: server.docs_alias,
        header_timeout: positive("server.header_timeout", server.header_timeout, problems),
        idle_timeout: positive("server.idle_timeout", server.idle_timeout, problems),
        body_timeout: positive("server.body_timeout", server.body_timeout, problems),
        request_timeout: positive("server.request_timeout", server.request_timeout, problems),
        max_header_bytes: server.max_header_bytes,
        max_headers: server.max_headers,
        max_uri_bytes: server.max_uri_bytes,
        max_body_bytes: server.max_body_bytes,
        max_connections: server.max_connections,
        max_in_flight: server.max_in_flight,
        drain_delay: delay,
        drain_timeout: drain,
        hard_stop: positive("server.hard_stop", server.hard_stop, problems),
    };
    if dev {
        for (key, address) in
            [("server.listen", checked.listen), ("server.admin_listen", checked.admin_listen)]
        {
            problems.require(
                address.ip().is_loopback(),
                key,
                "must be a loopback address under `dev`, which gives a token to anybody: use 127.0.0.1",
            );
        }
    }
    Some(checked)
}

fn check_ttl(ttl: Span, problems: &mut Problems) -> Duration {
    let whole = ttl.0.subsec_nanos() == 0;
    problems.require(
        whole && (30..=900).contains(&ttl.0.as_secs()),
        "token.ttl",
        "must be whole seconds from 30s to 15m: Rollout's tokens live at most 15 minutes",
    );
    ttl.0
}

fn check_origins(allowed: &[String], problems: &mut Problems) -> Origins {
    let parsed = allowed
        .iter()
        .zip(1..)
        .map(|(text, number)| Origin::parse(text).map_err(|error| format!("entry {number}: {error}")));
    Origins::new(parsed.filter_map(|origin| problems.accept("origins.allowed", origin)).collect())
}

fn check_rate_limit(limit: &raw::RateLimit, problems: &mut Problems) -> Option<RateLimit> {
    let per_minute = NonZeroU32::new(limit.per_subject_per_minute)?;
    let burst = NonZeroU32::new(limit.burst);
    problems.require(
        burst.is_some(),
        "rate_limit.burst",
        "must be at least 1; to switch the limit off set rate_limit.per_subject_per_minute = 0",
    );
    Some(RateLimit { per_minute, burst: burst? })
}

/// Whoever asks a build without traces for them is told so.
fn check_traces(
    environment: &BTreeMap<String, String>,
    problems: &mut Problems,
    warnings: &mut Vec<String>,
) -> Option<Export> {
    if cfg!(feature = "otel") {
        return Export::read(environment, problems);
    }
    if Export::read(environment, &mut Problems::default()).is_some() {
        warnings.push(
            "OTEL_EXPORTER_OTLP_ENDPOINT: asks for traces, which this build does not send: build it with \
             --features otel, or set OTEL_TRACES_EXPORTER=none"
                .to_owned(),
        );
    }
    None
}

fn check_log(log: &raw::Log, problems: &mut Problems) -> Option<Log> {
    let format = match log.format.as_str() {
        "json" => Some(LogFormat::Json),
        "pretty" => Some(LogFormat::Pretty),
        _ => {
            problems.add("log.format", "must be \"json\" or \"pretty\"");
            None
        }
    };
    let level = problems.parse("log.level", &log.level, "one of error, warn, info, debug, trace");
    problems.require(
        matches!(log.subject.as_str(), "hash" | "plain"),
        "log.subject",
        "must be \"hash\" or \"plain\"",
    );
    Some(Log { format: format?, level: level?, plain_subject: log.subject == "plain" })
}
