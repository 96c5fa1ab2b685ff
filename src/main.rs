//! Parses the command line, runs the command, and turns a failure into a message and an exit code. The commands are in
//! `src/cli`.

use std::io::{self, Write};
use std::process::ExitCode;

use mimalloc::MiMalloc;
use rollout_token::{Cli, Registry};

/// After 6,000 connections with unfinished heads, the process holds 38 MiB with mimalloc and 62 MiB with the C
/// library's allocator. The CPU time is the same.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    // On a usage error, clap prints its message and exits with code 2.
    let cli = Cli::parse();
    match cli.run(&Registry::builtin()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // `eprintln!` is not used, because it panics if standard error is closed.
            let _ = writeln!(io::stderr(), "rollout-token: {failure}");
            failure.exit_code()
        }
    }
}
