//! The secret that the app signs its cookies with, and the older ones that it still accepts.
//! How a key is made of it is each kind's own business.

use std::path::PathBuf;

use crate::config::{List, Problems, Section};
use crate::secret::Secret;

/// The app's one secret, under `key` or `key_file`. `setting` is what the app's framework calls it.
pub fn required(
    section: &Section<'_>,
    key: &str,
    value: Option<Secret>,
    file: Option<&PathBuf>,
    setting: &str,
    problems: &mut Problems,
) -> Option<Secret> {
    require_given(section, key, value.is_some() || file.is_some(), setting, problems);
    let secret = section.secret(key, value, file, problems);
    check(section, key, secret.as_slice(), problems);
    secret
}

/// A list of the app's secrets, under `key` or, one a line, in the file under `key_file`.
pub fn listed(
    section: &Section<'_>,
    key: &str,
    values: List<Secret>,
    file: Option<&PathBuf>,
    problems: &mut Problems,
) -> Vec<Secret> {
    let secrets = section.secrets(key, values, file, problems);
    check(section, key, &secrets, problems);
    secrets
}

/// Says that a required secret is missing.
pub fn require_given(section: &Section<'_>, key: &str, given: bool, setting: &str, problems: &mut Problems) {
    problems.require(
        given,
        section.key(key),
        format!("is missing: set it, or {key}_file, to the app's own {setting}"),
    );
}

/// A short secret passes here: the app lives by it already, and refusing it would protect nobody. One
/// that everybody knows does not.
fn check(section: &Section<'_>, key: &str, secrets: &[Secret], problems: &mut Problems) {
    let given = secrets.iter().filter(|secret| !secret.expose().is_empty());
    for placeholder in given.filter_map(Secret::placeholder) {
        problems.add(
            section.key(key),
            format!(
                "{placeholder}: anybody could sign a session. Give the app a random secret \
                 (`openssl rand -hex 32`), and the same one here"
            ),
        );
    }
}
