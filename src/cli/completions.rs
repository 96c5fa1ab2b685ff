//! `completions`: prints the shell script that completes the command line.

use std::io::{self, Write};

use clap::CommandFactory;
use clap_complete::Shell;

use super::{Cli, Failure, unwritten};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    shell: Shell,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let mut script = Vec::new();
    let mut command = Cli::command();
    let name = command.get_name().to_owned();
    // Generate into memory first, because the generator panics when standard output is closed.
    clap_complete::generate(args.shell, &mut command, name, &mut script);
    if args.shell == Shell::Bash {
        script = with_consistent_labels(script);
    }
    io::stdout()
        .write_all(&script)
        .map_err(|error| unwritten(&error))
}

/// Repairs the bash script. If the program's name contains a hyphen, `clap_complete` 4.6 sets a subcommand's state
/// under one name and reads it under another, so no subcommand would be completed.
fn with_consistent_labels(script: Vec<u8>) -> Vec<u8> {
    match String::from_utf8(script) {
        Ok(script) => script
            .replace("rollout__subcmd__token", "rollout__token")
            .into_bytes(),
        Err(error) => error.into_bytes(),
    }
}
