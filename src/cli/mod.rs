//! The commands. `serve` and `dev` are in `serve.rs`, `explain` and `doctor` in files
//! of their names; the small ones are here.

mod doctor;
mod explain;
mod serve;

use std::fmt;
use std::future::Future;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};

use crate::clock::{Clock, UnixSeconds};
use crate::config::{Problems, Sources};
use crate::hardening;
use crate::session::backends::Context;
use crate::session::registry::Registry;
use crate::session::subject::Subject;
use crate::session::types::Session;
use crate::settings;
use crate::telemetry::metrics::Metrics;
use crate::token::{ClaimTemplates, MintError, Minter, RolloutClient};

/// Mints short-lived Rollout auth tokens for the session your users already have.
///
/// Configured by files and by environment variables ROLLOUT__SECTION__KEY; the client id and secret
/// come from ROLLOUT_CLIENT_ID and ROLLOUT_CLIENT_SECRET or ROLLOUT_CLIENT_SECRET_FILE.
///
/// Exit codes: 0 fine, 1 failed at run time, 2 configuration or usage.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "To see it work, without any configuration: rollout-token dev"
)]
#[expect(
    clippy::doc_markdown,
    reason = "this is the help text, and backticks would be printed"
)]
pub struct Cli {
    /// A TOML file with settings. Of several the later wins, and variables win over files.
    #[arg(long, value_name = "FILE", global = true)]
    config: Vec<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serves tokens (the default).
    ///
    /// SIGTERM finishes what is under way and stops, SIGHUP reads the configuration again.
    Serve,
    /// Serves on loopback with a throwaway client, signing everybody in: for development.
    ///
    /// Callers are dev-user, or whom their header X-Dev-User names. A page at / shows what the service does. Settings
    /// and a client of your own are used if they are there; addresses that others can reach are refused.
    Dev,
    /// Checks the configuration without any network; exit code 2 if something is wrong.
    ///
    /// Warnings go to standard error, one a line, and leave the exit code 0.
    CheckConfig {
        /// Prints the configuration as it was understood, secrets redacted.
        #[arg(long)]
        print: bool,
    },
    /// Asks the running service on this machine whether it is alive (for HEALTHCHECK).
    Health,
    /// Prints a token for SUBJECT.
    Mint {
        /// Who the token is for, as your sessions would say it: up to 256 bytes.
        subject: String,
    },
    /// Checks a token with the client secret and prints what it says.
    Inspect {
        /// The token, or - to read it from standard input, where others on the machine do not see it.
        token: String,
    },
    /// Asks Rollout's API whether it accepts the client id and secret.
    ///
    /// Sends a fresh token with GET /credentials, which changes nothing there, and compares the clocks.
    Doctor(doctor::Args),
    /// Shows what each extractor makes of a request.
    ///
    /// No token is minted, but apps, identity providers and stores are asked as they would be for a token.
    Explain(explain::Args),
}

/// Why a command failed, and with which exit code.
#[derive(Debug)]
pub enum Failure {
    /// 2: the configuration.
    Config(Problems),
    /// 2: what stands on the command line.
    Usage(String),
    /// 1: everything else.
    Runtime(String),
}

impl Failure {
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Config(_) | Self::Usage(_) => ExitCode::from(2),
            Self::Runtime(_) => ExitCode::from(1),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(problems) => {
                write!(
                    f,
                    "the configuration has problems:\n{}",
                    problems.to_string().trim_end()
                )
            }
            Self::Usage(text) | Self::Runtime(text) => f.write_str(text),
        }
    }
}

impl From<Problems> for Failure {
    fn from(problems: Problems) -> Self {
        Self::Config(problems)
    }
}

impl Cli {
    /// Reads the command line; a wrong one ends the process with clap's own words and exit code 2.
    ///
    /// In place of clap's own `parse`: of a global flag before and behind the command it forgets what stands before.
    pub fn parse() -> Self {
        let command = Self::command().mut_arg("config", |config| config.global(false));
        let config = command
            .get_arguments()
            .find(|argument| argument.get_id() == "config")
            .cloned();
        let matches = command
            .mut_subcommands(|command| command.args(&config))
            .get_matches();
        let mut cli = Self::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
        if let Some((_, behind)) = matches.subcommand() {
            cli.config
                .extend(behind.get_many("config").into_iter().flatten().cloned());
        }
        cli
    }

    /// Runs the command with these kinds of extractors.
    pub fn run(self, registry: &Registry) -> Result<(), Failure> {
        // Before there is a secret in memory.
        if let Err(error) = hardening::keep_memory_private() {
            let _ = writeln!(
                io::stderr(),
                "note: a core dump of this process may be possible: {error}"
            );
        }
        let sources = Sources::from_process(self.config);
        match self.command.unwrap_or(Command::Serve) {
            Command::Serve => serve::serve(sources, registry),
            Command::Dev => serve::dev(sources, registry),
            Command::CheckConfig { print } => check_config(&sources, registry, print),
            Command::Health => health(&sources),
            Command::Mint { subject } => mint(&sources, &subject),
            Command::Inspect { token } => inspect(&sources, token),
            Command::Doctor(args) => doctor::run(&args, &sources),
            Command::Explain(args) => explain::run(&args, sources, registry),
        }
    }
}

fn context() -> Context {
    Context::new(Clock::system(), Arc::new(Metrics::new()))
}

/// Runs to the end, and then does not wait for what a library still does in the background, such as
/// the look-up of a name that nobody answers.
fn block_on<T>(work: impl Future<Output = T>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::Runtime(format!("cannot start the runtime: {error}")))?;
    let done = runtime.block_on(work);
    runtime.shutdown_background();
    Ok(done)
}

/// Writes a line to standard output. Not `println!`, which panics when the reader has gone.
fn say(line: impl fmt::Display) -> Result<(), Failure> {
    writeln!(io::stdout(), "{line}")
        .map_err(|error| Failure::Runtime(format!("cannot write: {error}")))
}

fn check_config(sources: &Sources, registry: &Registry, print: bool) -> Result<(), Failure> {
    let settings = settings::load(sources, registry, &context())?;
    if print {
        let mut effective = settings.effective().clone();
        drop_nulls(&mut effective);
        let shown = toml::to_string(&effective).map_err(|error| {
            Failure::Runtime(format!("cannot print the configuration: {error}"))
        })?;
        say(shown.trim_end())?;
    } else {
        say("The configuration is good.")?;
    }
    let mut err = io::stderr().lock();
    for warning in settings.warnings.lines() {
        // Not `eprintln!`, which panics when the reader has gone.
        let _ = writeln!(err, "{warning}");
    }
    Ok(())
}

/// TOML has no null: a key without a value is left out.
fn drop_nulls(value: &mut serde_json::Value) {
    match value {
        serde_json::Value::Object(members) => {
            members.retain(|_, value| !value.is_null());
            members.values_mut().for_each(drop_nulls);
        }
        serde_json::Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

fn health(sources: &Sources) -> Result<(), Failure> {
    let mut address = settings::load_listen(sources)?;
    if address.ip().is_unspecified() {
        address.set_ip(match address.ip() {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    match ask_health(address) {
        Ok(true) => Ok(()),
        Ok(false) => Err(Failure::Runtime(format!(
            "the service at {address} is not well"
        ))),
        Err(error) => Err(Failure::Runtime(format!(
            "cannot reach the service at {address}: {error}"
        ))),
    }
}

fn ask_health(address: SocketAddr) -> io::Result<bool> {
    let patience = Duration::from_secs(2);
    let mut stream = TcpStream::connect_timeout(&address, patience)?;
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut status = [0; 12];
    stream.read_exact(&mut status)?;
    Ok(&status == b"HTTP/1.1 200")
}

fn mint(sources: &Sources, subject: &str) -> Result<(), Failure> {
    let client = settings::load_client(sources)?;
    let subject = Subject::new(subject).map_err(|_| {
        Failure::Usage(
            "SUBJECT must be 1 to 256 bytes without control or invisible characters".to_owned(),
        )
    })?;
    say(mint_for(&client, &subject, &Clock::system())?)
}

/// Seconds.
const TOKEN_LIFE: UnixSeconds = 900;

/// A token with the four claims of every token; `[token]` does not matter to the commands.
fn mint_for(client: &RolloutClient, subject: &Subject, clock: &Clock) -> Result<String, Failure> {
    let minter = Minter::new(
        client,
        Duration::from_secs(TOKEN_LIFE.unsigned_abs()),
        false,
        ClaimTemplates::default(),
    );
    minter
        .mint(subject, &Session::of_subject(subject.as_str()), clock.now())
        .map(|minted| minted.token)
        .map_err(|error| {
            Failure::Runtime(match error {
                MintError::ClockNotSet => {
                    "cannot mint: the machine's clock is before 2020: set it".to_owned()
                }
                MintError::SessionOver | MintError::Claim(_) => format!("cannot mint: {error:?}"),
            })
        })
}

fn inspect(sources: &Sources, token: String) -> Result<(), Failure> {
    let client = settings::load_client(sources)?;
    let token = if token == "-" { read_stdin()? } else { token };
    let mut validation = Validation::new(Algorithm::HS512);
    // An expired token is still shown; its end is judged below.
    validation.validate_exp = false;
    validation.validate_aud = false;
    validation.required_spec_claims.clear();
    let key = DecodingKey::from_secret(client.secret.expose());
    let decoded = jsonwebtoken::decode::<serde_json::Value>(token.trim(), &key, &validation)
        // Not the library's own words: they can quote the token.
        .map_err(|_| {
            Failure::Runtime("this is not a token signed with this client secret".to_owned())
        })?;

    say(format_args!(
        "header  {}",
        serde_json::to_string(&decoded.header).unwrap_or_default()
    ))?;
    say(format_args!("claims  {:#}", decoded.claims))?;
    say("signature is good")?;
    if decoded.claims["iss"] != client.id.as_str() {
        return Err(Failure::Runtime("iss is not this client id".to_owned()));
    }
    let now = Clock::system().now();
    match decoded.claims["exp"].as_i64() {
        Some(exp) if exp > now => say(format_args!("expires in {} s", exp - now)),
        Some(exp) => Err(Failure::Runtime(format!("expired {} s ago", now - exp))),
        None => Err(Failure::Runtime("it has no exp".to_owned())),
    }
}

fn read_stdin() -> Result<String, Failure> {
    io::read_to_string(io::stdin())
        .map_err(|error| Failure::Runtime(format!("cannot read standard input: {error}")))
}
