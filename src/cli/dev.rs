//! `dev`: serves on loopback. By default, it uses a throwaway client id and secret, and treats every caller as signed
//! in.

use std::io::{self, Write};
use std::net::SocketAddr;

use super::detect::shell_quoted;
use super::{Failure, block_on, context, serve, unread_config, with_throwaway_client};
use crate::config::{Problems, Sources};
use crate::secret::Secret;
use crate::session::registry::Registry;
use crate::session::types::CredentialSource;
use crate::settings::{self, Settings};

/// The defaults of `dev`.
pub(super) const DEV_BASE: &str = include_str!("../../config/dev.toml");

/// The environment variables in which deployments name their stage, such as `production`.
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
    let (sources, throwaway) = with_throwaway_client(sources, DEV_BASE)?;
    let settings = settings::load(&sources, registry, &context)?;
    let (writer, _last_lines) = serve::start_log(&context)?;
    let throwaway = Some(throwaway.secret).filter(|secret| *secret == settings.client.secret);
    let base_path = settings.server.restart.base_path.clone();
    let own = in_force(&settings);
    let unread = unread_config(&sources.files).filter(|_| own.is_none());
    let banner = move |address: SocketAddr| {
        let url = format!("http://{address}{base_path}");
        print_banner(&url, own.as_ref(), unread.as_deref(), throwaway.as_ref());
    };
    block_on(serve::serve(
        settings, sources, registry, context, writer, banner,
    ))?
}

/// Refuses to run `dev` if one of [`STAGE_VARIABLES`] is `production` or `prod`, in upper or lower case: without
/// configured extractors, `dev` signs every caller in.
#[expect(
    clippy::disallowed_methods,
    reason = "these variables are not part of the configuration"
)]
fn refuse_in_production() -> Result<(), Failure> {
    for name in STAGE_VARIABLES {
        let stage = std::env::var(name).unwrap_or_default().to_ascii_lowercase();
        if matches!(stage.as_str(), "production" | "prod") {
            return Err(Failure::Config(Problems::of(
                name,
                "is production, and `dev` is only for development: use `serve`",
            )));
        }
    }
    Ok(())
}

/// The operator's own extractors, for the banner.
struct Own {
    /// The extractors' names and kinds, such as `web (jwt)`.
    names: String,
    /// The curl flag that sends a credential to the first extractor.
    flag: String,
}

/// The operator's own extractors, or `None` if every extractor has the kind `static_user`.
fn in_force(settings: &Settings) -> Option<Own> {
    let extractors = settings.chain.extractors();
    if extractors.iter().all(|one| one.kind == "static_user") {
        return None;
    }
    let names = extractors
        .iter()
        .map(|one| format!("{} ({})", one.name, one.kind));
    let mut places = settings
        .chain
        .with_reaches()
        .flat_map(|(_, reach)| &*reach.places);
    Some(Own {
        names: names.collect::<Vec<_>>().join(", "),
        flag: curl_flag(places.next()),
    })
}

/// The curl flag, with its value, that sends a credential in this place. If no place is known, the value is an example
/// of a cookie.
fn curl_flag(place: Option<&CredentialSource>) -> String {
    let (flag, value) = match place {
        Some(CredentialSource::Bearer) => ("-H", "Authorization: Bearer …".to_owned()),
        Some(CredentialSource::Header(name)) => ("-H", format!("{name}: …")),
        Some(CredentialSource::Cookie(name) | CredentialSource::Supabase(name)) => {
            ("-b", format!("{name}=…"))
        }
        Some(CredentialSource::Amplify(client)) => {
            ("-b", format!("CognitoIdentityServiceProvider.{client}.…"))
        }
        None => ("-b", "COOKIE-OF-YOUR-APP=…".to_owned()),
    };
    format!("{flag} {}", shell_quoted(&value))
}

fn print_banner(url: &str, own: Option<&Own>, unread: Option<&str>, throwaway: Option<&Secret>) {
    let who = match own {
        None => "every caller is signed in".to_owned(),
        Some(own) => format!("sessions are read by {}", own.names),
    };
    // With the operator's own extractors, only a request with a session of the app gets a token.
    let request = match own {
        None => format!("curl -sS -X POST -H 'X-Dev-User: ann' {url}/rollout/token"),
        Some(own) => format!("curl -sS -X POST {} {url}/rollout/token", own.flag),
    };
    let note = unread.map(|hint| format!("  Note      {hint}\n"));
    let throwaway = throwaway.map(|secret| String::from_utf8_lossy(secret.expose()));
    let secret =
        throwaway.map(|secret| format!("  Secret    {secret}   (valid for this run only)\n"));
    // The service continues if standard output is closed.
    let _ = write!(
        io::stdout(),
        "
  Development mode: {who}. Loopback only.
  Page      {url}/
  A token   {request}
{}{}
",
        secret.unwrap_or_default(),
        note.unwrap_or_default()
    );
}
