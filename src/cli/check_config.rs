//! `check-config`: loads the configuration without any network, and says what is wrong with it.

use std::io::{self, Write};

use super::{Failure, context, say};
use crate::config::Sources;
use crate::session::registry::Registry;
use crate::settings;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Prints the configuration as it was understood, secrets redacted.
    #[arg(long)]
    print: bool,
}

pub(super) fn run(args: &Args, sources: &Sources, registry: &Registry) -> Result<(), Failure> {
    let settings = settings::load(sources, registry, &context())?;
    if args.print {
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
        // Not `eprintln!`, which panics when standard error is closed.
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
