//! The secrets of the app's own framework, from the configuration: given, long enough, no placeholder.
//! What keys are made of them is the extractor's business.

use std::path::PathBuf;

use crate::config::{List, Problems, Section};
use crate::secret::Secret;

/// The one secret under `key` or `key_file`. `setting` is what the app calls it.
pub fn one(
    section: &Section<'_>,
    key: &str,
    value: Option<Secret>,
    file: Option<&PathBuf>,
    setting: &str,
    problems: &mut Problems,
) -> Option<Secret> {
    require_given(section, key, value.is_some() || file.is_some(), setting, problems);
    let secret = section.secret(key, value, file, problems)?;
    check(section, key, &secret, problems);
    Some(secret)
}

/// The secrets listed under `key`, or in the file `key_file`, one a line.
pub fn several(
    section: &Section<'_>,
    key: &str,
    values: List<Secret>,
    file: Option<&PathBuf>,
    problems: &mut Problems,
) -> Vec<Secret> {
    let secrets = match file {
        // Together with a value the file is refused as it is for a single secret.
        Some(_) => section
            .secret(key, values.first().cloned(), file, problems)
            .map_or_else(Vec::new, |text| lines(&text)),
        None => values.0,
    };
    let checked = secrets.into_iter().filter_map(|secret| section.secret(key, Some(secret), None, problems));
    let checked: Vec<Secret> = checked.collect();
    for secret in &checked {
        check(section, key, secret, problems);
    }
    checked
}

/// Says that a required secret is missing.
pub fn require_given(section: &Section<'_>, key: &str, given: bool, setting: &str, problems: &mut Problems) {
    problems.require(
        given,
        section.key(key),
        format!("is missing: set it, or {key}_file, to the app's own {setting}"),
    );
}

fn lines(text: &Secret) -> Vec<Secret> {
    let lines = text.expose().split(|&byte| byte == b'\n');
    let lines = lines.map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    lines.filter(|line| !line.is_empty()).map(Secret::new).collect()
}

/// Who can guess the app's secret can sign in as anybody, there and here. An empty one is reported by
/// the section.
fn check(section: &Section<'_>, key: &str, secret: &Secret, problems: &mut Problems) {
    if let Some(weakness) = secret.weakness().filter(|_| !secret.expose().is_empty()) {
        problems.add(
            section.key(key),
            format!(
                "{weakness}: anybody could make a session. Give the app a random secret \
                 (`openssl rand -hex 32`), and the same one here"
            ),
        );
    }
}
