//! `dev`: serves on loopback with a throwaway client, and signs every caller in.

use std::io::{self, Write};
use std::net::SocketAddr;

use super::{Failure, block_on, context, serve, with_throwaway_client};
use crate::config::{Problems, Sources};
use crate::secret::Secret;
use crate::session::registry::Registry;
use crate::settings;

const DEV_BASE: &str = include_str!("../../config/dev.toml");

/// Variables by which deployments say what they are for.
const STAGE_VARIABLES: [&str; 5] = [
    "ENV",
    "APP_ENV",
    "NODE_ENV",
    "RAILS_ENV",
    "ROLLOUT_TOKEN_ENV",
];

pub(super) fn run(sources: Sources, registry: &Registry) -> Result<(), Failure> {
    refuse_in_production()?;
    let mut context = context();
    context.dev = true;
    let (sources, throwaway) = dev_sources(sources)?;
    let settings = settings::load(&sources, registry, &context)?;
    let (writer, _last_lines) = serve::start_log(&context)?;
    let throwaway = Some(throwaway).filter(|secret| *secret == settings.client.secret);
    let base_path = settings.server.restart.base_path.clone();
    let banner = move |address: SocketAddr| {
        print_banner(&format!("http://{address}{base_path}"), throwaway.as_ref());
    };
    block_on(serve::serve(
        settings, sources, registry, context, writer, banner,
    ))?
}

/// `dev` signs every caller in, so it refuses to run where a variable says that this is production.
#[expect(
    clippy::disallowed_methods,
    reason = "asks the process itself what it is for"
)]
fn refuse_in_production() -> Result<(), Failure> {
    for name in STAGE_VARIABLES {
        let stage = std::env::var(name).unwrap_or_default().to_ascii_lowercase();
        if matches!(stage.as_str(), "production" | "prod") {
            return Err(Failure::Config(Problems::of(
                name,
                "is production, and `dev` signs every caller in: use `serve`",
            )));
        }
    }
    Ok(())
}

/// The sources with the layer of `dev` below all others, and with a throwaway client, whose secret is given too.
pub(super) fn dev_sources(sources: Sources) -> Result<(Sources, Secret), Failure> {
    let (sources, client) = with_throwaway_client(sources)?;
    let base = sources.base.unwrap_or_default() + DEV_BASE;
    let base = Some(base);
    Ok((Sources { base, ..sources }, client.secret))
}

fn print_banner(url: &str, throwaway: Option<&Secret>) {
    let throwaway = throwaway.map(|secret| String::from_utf8_lossy(secret.expose()));
    let secret =
        throwaway.map(|secret| format!("  Secret    {secret}   (throwaway, for this run)\n"));
    // That standard output is closed does not matter to the service.
    let _ = write!(
        io::stdout(),
        "
  Development mode: every caller is signed in. Loopback only.
  Page      {url}/
  A token   curl -sS -X POST -H 'X-Dev-User: ann' {url}/rollout/token
{}
",
        secret.unwrap_or_default()
    );
}
