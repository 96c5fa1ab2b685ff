//! `completions`: prints the shell script that completes the command line.

use std::io::{self, Write};

use clap::CommandFactory;
use clap_complete::Shell;

use super::{Cli, Failure};

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
    io::stdout()
        .write_all(&script)
        .map_err(|error| Failure::Runtime(format!("cannot write: {error}")))
}
