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
    require_given(
        section,
        key,
        value.is_some() || file.is_some(),
        setting,
        problems,
    );
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

/// The same for a list that must hold one.
pub fn required_list(
    section: &Section<'_>,
    key: &str,
    values: List<Secret>,
    file: Option<&PathBuf>,
    setting: &str,
    problems: &mut Problems,
) -> Vec<Secret> {
    require_given(
        section,
        key,
        !values.is_empty() || file.is_some(),
        setting,
        problems,
    );
    listed(section, key, values, file, problems)
}

/// Says that a required secret is missing.
pub fn require_given(
    section: &Section<'_>,
    key: &str,
    given: bool,
    setting: &str,
    problems: &mut Problems,
) {
    problems.require(
        given,
        section.key(key),
        format!("is missing: set it, or {key}_file, to the app's own {setting}"),
    );
}

/// A weak secret is a warning: the app uses it already, and refusing it here would not make the app safer. A
/// placeholder is a problem.
pub fn check(section: &Section<'_>, key: &str, secrets: &[Secret], problems: &mut Problems) {
    let advice = "sessions can be forged by guessing it. Give the app a random secret (`openssl rand -hex 32`), and \
                  the same one here";
    for secret in secrets.iter().filter(|secret| !secret.expose().is_empty()) {
        if let Some(placeholder) = secret.placeholder() {
            problems.add(section.key(key), format!("{placeholder}: {advice}"));
        } else if let Some(weakness) = secret.weakness() {
            section.warn(key, format!("{weakness}: {advice}"));
        }
    }
}

/// The same for secrets that sign JWTs by these algorithms, whose names are as in a token's header: a secret should
/// have at least as many bytes as the hash (RFC 7518, section 3.2).
pub fn check_jwt(
    section: &Section<'_>,
    key: &str,
    secrets: &[Secret],
    algorithms: &[String],
    problems: &mut Problems,
) {
    check(section, key, secrets, problems);
    let hashes = [("HS512", 64), ("HS384", 48), ("HS256", 32)];
    let longest = hashes
        .into_iter()
        .find(|(name, _)| algorithms.iter().any(|algorithm| algorithm == name));
    let Some((name, length)) = longest else {
        return;
    };
    let short = |secret: &&Secret| {
        (16..length).contains(&secret.expose().len()) && secret.weakness().is_none()
    };
    for secret in secrets.iter().filter(short) {
        let found = secret.expose().len();
        section.warn(
            key,
            format!(
                "has {found} bytes, and RFC 7518, section 3.2 asks for at least {length} with {name}: use a longer one \
                 in the app and here"
            ),
        );
    }
}
