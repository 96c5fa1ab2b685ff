//! The start-up story: read the command line, run the command, turn a failure into words and an exit
//! code. What each command does is in `rollout_token::cli`.

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
            // Not `eprintln!`, which panics when the reader has gone.
            let _ = writeln!(io::stderr(), "rollout-token: {failure}");
            failure.exit_code()
        }
    }
}
