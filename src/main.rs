//! Reads the command line, runs the command, and turns a failure into a message and an exit code. What each command
//! does is in `rollout_token::cli`.

use std::io::{self, Write};
use std::process::ExitCode;

use mimalloc::MiMalloc;
use rollout_token::cli::Cli;
use rollout_token::session::registry::Registry;

/// A request is some forty small allocations: the C library's took a tenth of its time.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    // A wrong command line ends here, with clap's own words and exit code 2.
    let cli = Cli::parse();
    match cli.run(&Registry::builtin()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // Not `eprintln!`, which panics when standard error is closed.
            let _ = writeln!(io::stderr(), "rollout-token: {failure}");
            failure.exit_code()
        }
    }
}
