//! `dev`: serves on loopback with a throwaway client, and signs every caller in.

use std::io::{self, Write};
use std::net::SocketAddr;

use aws_lc_rs::rand;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::{Failure, block_on, context, serve};
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
    let banner = |address: SocketAddr| print_banner(address, throwaway.as_ref());
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

/// The sources with the layer of `dev` below all others. It also has a throwaway client, which is used if the
/// operator names none. Gives that client's secret too.
pub(super) fn dev_sources(sources: Sources) -> Result<(Sources, Secret), Failure> {
    let mut bytes = [0; 48];
    rand::fill(&mut bytes)
        .map_err(|_| Failure::Runtime("no random numbers to be had".to_owned()))?;
    let secret = URL_SAFE_NO_PAD.encode(bytes);
    let base = format!("client_id = \"dev-client\"\nclient_secret = \"{secret}\"\n{DEV_BASE}");
    Ok((
        Sources {
            base: Some(base),
            ..sources
        },
        Secret::new(secret),
    ))
}

fn print_banner(address: SocketAddr, throwaway: Option<&Secret>) {
    let throwaway = throwaway.map(|secret| String::from_utf8_lossy(secret.expose()));
    let secret =
        throwaway.map(|secret| format!("  Secret    {secret}   (throwaway, for this run)\n"));
    // That standard output is closed does not matter to the service.
    let _ = write!(
        io::stdout(),
        "
  Development mode: every caller is signed in. Loopback only.
  Page      http://{address}/
  A token   curl -sS -X POST -H 'X-Dev-User: ann' http://{address}/rollout/token
{}
",
        secret.unwrap_or_default()
    );
}
