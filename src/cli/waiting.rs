//! Prints on a terminal what a command is waiting for, a backend or standard input, so that the wait does not look like
//! a hung command. Also reads pasted requests and tokens.

use std::fs::File;
use std::io::{self, IsTerminal, Read};
use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

use super::{Failure, tell};
use crate::http::pasted;
use crate::session::chain::ConfiguredExtractor;
use crate::session::types::BackendCall;

/// The command prints a line for each wait that is longer than this.
const PATIENCE: Duration = Duration::from_secs(1);

/// A wait for a backend or for standard input, which ends when this value is dropped. If it is longer than [`PATIENCE`]
/// and standard error is a terminal, the command prints one line about it.
pub(super) struct WaitNotice {
    _until: Sender<()>,
}

impl WaitNotice {
    /// Starts the wait for a backend's response.
    pub(super) fn for_backend(call: &BackendCall) -> Self {
        Self::announced_by(format!(
            "waiting for {} ({} s of at most {} s)",
            call.backend,
            PATIENCE.as_secs(),
            call.at_most.as_secs_f64()
        ))
    }

    /// Starts the wait for an extractor. Returns `None` if the extractor calls no backend.
    pub(super) fn for_extractor(configured: &ConfiguredExtractor) -> Option<Self> {
        let call = configured.extractor.backend()?;
        Some(Self::for_backend(&call))
    }

    /// A separate thread prints the line, because the command may be blocked on standard input.
    fn announced_by(line: String) -> Self {
        let (until, ended) = channel();
        if io::stderr().is_terminal() {
            thread::spawn(move || {
                if ended.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
                    tell(&line);
                }
            });
        }
        Self { _until: until }
    }
}

/// Reads a pasted request from the file, or from standard input if the path is `-`. Reads up to one byte more than the
/// maximum, so that a longer request is detected.
pub(super) fn request(path: &Path) -> Result<Vec<u8>, Failure> {
    let limit = pasted::MAX_BYTES as u64 + 1;
    if path.as_os_str() == "-" {
        return standard_input("the request", limit);
    }
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(limit).read_to_end(&mut bytes))
        .map_err(|error| Failure::Runtime(format!("cannot read {}: {error}", path.display())))?;
    Ok(bytes)
}

pub(super) fn token_on_standard_input() -> Result<String, Failure> {
    let bytes = standard_input("the token", pasted::MAX_BYTES as u64)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn standard_input(what: &str, limit: u64) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let input = io::stdin();
    let _waiting = WaitNotice::announced_by(if input.is_terminal() {
        format!(
            "reading {what}: paste it here, then press Enter and Ctrl-D (a terminal cuts lines at 4095 characters)"
        )
    } else {
        format!("waiting for the end of {what} on standard input")
    });
    input
        .take(limit)
        .read_to_end(&mut bytes)
        .map_err(|error| Failure::Runtime(format!("cannot read standard input: {error}")))?;
    Ok(bytes)
}
