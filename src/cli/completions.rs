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
        // If the program's name contains a hyphen, `clap_complete` 4.6 sets a subcommand's state under one name and
        // reads it under another, so no subcommand would be completed.
        let text = String::from_utf8_lossy(&script);
        script = text
            .replace("rollout__subcmd__token", "rollout__token")
            .into();
    }
    io::stdout()
        .write_all(&script)
        .map_err(|error| unwritten(&error))
}
