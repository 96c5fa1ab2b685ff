//! The command line. Each command has a file of the same name.

mod check_config;
mod completions;
mod config_schema;
mod credentials;
mod detect;
mod dev;
mod doctor;
mod explain;
mod health;
mod init;
mod inspect;
mod mint;
mod names;
mod rollout;
mod serve;
mod waiting;

use std::fmt;
use std::future::Future;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use aws_lc_rs::rand;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::clock::Clock;
use crate::config::{Problems, Sources};
use crate::hardening;
use crate::secret::Secret;
use crate::session::backends::Context;
use crate::session::registry::Registry;
use crate::session::subject::Subject;
use crate::telemetry::metrics::Metrics;
use crate::token::RolloutClient;

/// Mints short-lived Rollout auth tokens for the session your users already have.
///
/// The configuration is read from files and from environment variables ROLLOUT__SECTION__KEY. The client id can also be
/// in ROLLOUT_CLIENT_ID, and the client secret in ROLLOUT_CLIENT_SECRET or in the file that ROLLOUT_CLIENT_SECRET_FILE
/// names.
///
/// Exit codes: 0 success, 1 failure at run time, 2 invalid configuration or usage.
#[derive(Parser)]
#[command(
    version,
    after_help = "To try it without any configuration: rollout-token dev"
)]
#[expect(
    clippy::doc_markdown,
    reason = "this is the help text, and backticks would be printed"
)]
pub struct Cli {
    /// A TOML file with settings. A later file overrides an earlier file, and environment variables override files.
    #[arg(long, value_name = "FILE", global = true)]
    config: Vec<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Serves tokens (the default).
    ///
    /// On SIGTERM, SIGINT or SIGQUIT the service finishes the requests in flight and stops. On SIGHUP it reads the
    /// configuration again.
    Serve,
    /// For development: serves on loopback and, if no extractors are configured, treats every caller as signed in.
    ///
    /// The user is dev-user, or the user named in the header X-Dev-User. A page at / shows what the service does. Your
    /// own settings, client id and secret are used if they are set. Otherwise the tokens are signed with a throwaway
    /// secret, and Rollout does not accept them. Listening addresses other than loopback are refused.
    Dev,
    /// Checks the configuration without using the network; exit code 2 if it has a problem.
    ///
    /// Warnings go to standard error, one per line, and do not change the exit code. The client id and secret are not
    /// needed.
    CheckConfig(check_config::Args),
    /// Checks that the service on this machine is alive (for Docker's HEALTHCHECK).
    Health,
    /// Prints a token for SUBJECT.
    Mint(mint::Args),
    /// Verifies a token with the client secret and prints its content.
    Inspect(inspect::Args),
    /// Checks that Rollout's API accepts the client id and secret, and that every backend answers.
    ///
    /// Calls GET /credentials with a new token, which changes nothing at Rollout, and compares the clocks. Then calls
    /// the identity providers and the app, and sends the configured query to the session stores, without a user's
    /// credential.
    Doctor(doctor::Args),
    /// Recognises the kind of session in a request, and prints the configuration section for it.
    ///
    /// Needs no configuration and no network. With --set, it opens the session with the given secret or store, and
    /// prints the subject that a token would have.
    Detect(detect::Args),
    /// Writes rollout-token.toml and .env.example, from a pasted request or from flags.
    ///
    /// Prints the lines with which the app's server forwards /rollout/ to the service, and checks the configuration.
    Init(init::Args),
    /// Lists the apps that SUBJECT has connected at Rollout.
    Credentials(credentials::Args),
    /// Prints the JSON Schema of the configuration, for editors.
    ConfigSchema,
    /// Prints the script that completes this command in SHELL.
    ///
    /// Save it as ~/.local/share/bash-completion/completions/rollout-token for bash, as
    /// ~/.config/fish/completions/rollout-token.fish for fish, or as _rollout-token in a folder of $fpath for zsh. The
    /// Debian package installs all three.
    Completions(completions::Args),
    /// Shows the result of each extractor for a request.
    ///
    /// No token is minted, and the client id and secret are not needed. Apps, identity providers and stores are called
    /// as for a token request. The exit code is 0 even if the request would be refused.
    Explain(explain::Args),
}

/// The name of the configuration file that `init` writes into the current folder.
const CONFIG: &str = "rollout-token.toml";

/// The hint for a command that was run without `--config` in a folder that contains [`CONFIG`]. This file is not read
/// by default.
fn unread_config(files: &[PathBuf]) -> Option<String> {
    (files.is_empty() && Path::new(CONFIG).is_file())
        .then(|| format!("{CONFIG} is in this folder: add --config {CONFIG}"))
}

/// Why a command failed. The variant determines the exit code.
#[derive(Debug)]
pub enum Failure {
    /// Exit code 2: the configuration is invalid.
    Config(Problems),
    /// Exit code 2: the command line is invalid.
    Usage(String),
    /// Exit code 1: any other failure.
    Runtime(String),
    /// The reader of standard output has closed it, as `head` does. The command ends silently, with exit code 0.
    OutputClosed,
}

impl Failure {
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Config(_) | Self::Usage(_) => ExitCode::from(2),
            Self::Runtime(_) => ExitCode::from(1),
            Self::OutputClosed => ExitCode::SUCCESS,
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
            Self::OutputClosed => f.write_str("standard output is closed"),
        }
    }
}

impl From<Problems> for Failure {
    fn from(problems: Problems) -> Self {
        Self::Config(problems)
    }
}

/// Does not show the arguments: tokens, credentials and secrets can be among them.
impl fmt::Debug for Cli {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cli").finish_non_exhaustive()
    }
}

impl Cli {
    /// Parses the command line. If it is invalid, the process exits with clap's own message and exit code 2.
    ///
    /// Replaces clap's own `parse`, which ignores a global flag before the command if the same flag also follows the
    /// command.
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

    /// Runs the command with the extractor kinds of `registry`.
    pub fn run(self, registry: &Registry) -> Result<(), Failure> {
        // Core dumps are disabled before the configuration, which contains secrets, is read.
        if let Err(error) = hardening::keep_memory_private() {
            tell(&format!(
                "note: core dumps of this process cannot be disabled: {error}"
            ));
        }
        let unread = unread_config(&self.config);
        let sources = Sources::from_process(self.config);
        let result = match self.command.unwrap_or(Command::Serve) {
            Command::Serve => serve::run(sources, registry),
            Command::Dev => dev::run(sources, registry),
            Command::CheckConfig(args) => check_config::run(&args, sources, registry),
            Command::Health => health::run(&sources),
            Command::Mint(args) => mint::run(&args, &sources),
            Command::Inspect(args) => inspect::run(args, &sources),
            Command::Init(args) => init::run(&args, registry),
            Command::Detect(args) => detect::run(&args, registry),
            Command::Doctor(args) => doctor::run(&args, &sources, registry),
            Command::Credentials(args) => credentials::run(&args, &sources),
            Command::ConfigSchema => config_schema::run(registry),
            Command::Completions(args) => completions::run(&args),
            Command::Explain(args) => explain::run(&args, sources, registry),
        };
        match (result, unread) {
            (Err(Failure::OutputClosed), _) => Ok(()),
            (Err(Failure::Config(mut problems)), Some(hint))
                if problems.are_about("session.extractors") =>
            {
                problems.add("session.extractors", hint);
                Err(Failure::Config(problems))
            }
            (result, _) => result,
        }
    }
}

fn context() -> Context {
    Context::new(Clock::system(), Arc::new(Metrics::new()))
}

/// Adds a client id, a random secret and the TOML in `more` as the lowest layer, for commands that do not need the
/// operator's id and secret. Also returns the id and the secret.
fn with_throwaway_client(
    sources: Sources,
    more: &str,
) -> Result<(Sources, RolloutClient), Failure> {
    let mut bytes = [0; 48];
    rand::fill(&mut bytes)
        .map_err(|_| Failure::Runtime("the system cannot generate random numbers".to_owned()))?;
    let (id, secret) = ("dev-client", URL_SAFE_NO_PAD.encode(bytes));
    let base = Some(format!(
        "client_id = \"{id}\"\nclient_secret = \"{secret}\"\n{more}"
    ));
    let client = RolloutClient {
        id: id.to_owned(),
        secret: Secret::new(secret),
    };
    Ok((Sources { base, ..sources }, client))
}

/// Runs `work` to completion and returns its output, without waiting for background work of libraries, such as an
/// unanswered DNS query.
fn block_on<T>(work: impl Future<Output = T>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::Runtime(format!("cannot start the runtime: {error}")))?;
    let done = runtime.block_on(work);
    runtime.shutdown_background();
    Ok(done)
}

/// Parses a subject from the command line.
fn subject_of(text: &str) -> Result<Subject, Failure> {
    Subject::new(text).map_err(|_| {
        Failure::Usage(
            "SUBJECT must be 1 to 256 bytes without control or invisible characters".to_owned(),
        )
    })
}

/// Writes a line to standard error. `eprintln!` panics if standard error is closed.
fn tell(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// Writes a line to standard output. `println!` panics if standard output is closed.
fn say(line: impl fmt::Display) -> Result<(), Failure> {
    writeln!(io::stdout(), "{line}").map_err(|error| unwritten(&error))
}

/// Converts an error from writing to standard output.
fn unwritten(error: &io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::BrokenPipe => Failure::OutputClosed,
        _ => Failure::Runtime(format!("cannot write: {error}")),
    }
}
