//! `check-config`: loads the configuration without using the network, and reports its problems.

use super::{Failure, context, say, tell, with_throwaway_client};
use crate::config::Sources;
use crate::session::registry::Registry;
use crate::settings;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Prints the effective configuration, with secrets redacted.
    #[arg(long)]
    print: bool,
}

pub(super) fn run(args: &Args, sources: Sources, registry: &Registry) -> Result<(), Failure> {
    let (sources, throwaway) = with_throwaway_client(sources, "")?;
    let mut settings = settings::load(&sources, registry, &context())?;
    let missing = [
        (
            "client_id",
            settings.client.id == throwaway.id,
            "ROLLOUT_CLIENT_ID",
        ),
        (
            "client_secret",
            settings.client.secret == throwaway.secret,
            "ROLLOUT_CLIENT_SECRET or ROLLOUT_CLIENT_SECRET_FILE",
        ),
    ];
    let missing = || missing.iter().filter(|(_, is_missing, _)| *is_missing);
    for (key, _, variable) in missing() {
        let text = format!("is not set, and `serve` does not start without it: set {variable}");
        settings.warnings.add(*key, text);
    }
    if args.print {
        let mut effective = settings.effective().clone();
        if let Some(keys) = effective.as_object_mut() {
            missing().for_each(|(key, ..)| drop(keys.remove(*key)));
        }
        drop_nulls(&mut effective);
        let shown = toml::to_string(&effective).map_err(|error| {
            Failure::Runtime(format!("cannot print the configuration: {error}"))
        })?;
        say(shown.trim_end())?;
    } else {
        say("The configuration is valid.")?;
        for (key, count) in &settings.secret_counts {
            let secrets = if *count == 1 { "secret" } else { "secrets" };
            say(format_args!("{key}: {count} {secrets}"))?;
        }
    }
    settings.warnings.lines().for_each(|line| tell(&line));
    Ok(())
}

/// Removes the keys without a value, because TOML has no null.
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
