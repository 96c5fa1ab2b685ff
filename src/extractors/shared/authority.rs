//! A certificate authority of the operator's own, which vouches for a store.
//! Connecting to a store is with its kind.

use std::path::PathBuf;

use crate::config::{Problems, Section};

/// The certificates in PEM in the file under `ca_file`, if that is given.
pub fn read(section: &Section<'_>, file: Option<&PathBuf>, problems: &mut Problems) -> Option<Vec<u8>> {
    const BEGIN: &[u8] = b"-----BEGIN CERTIFICATE-----";
    let file = file?;
    section.watch(file);
    let pem = std::fs::read(file).map_err(|error| format!("cannot read {}: {error}", file.display()));
    let pem = problems.accept(section.key("ca_file"), pem)?;
    let holds_one = pem.windows(BEGIN.len()).any(|bytes| bytes == BEGIN);
    problems.require(holds_one, section.key("ca_file"), "holds no certificate in PEM");
    holds_one.then_some(pem)
}
