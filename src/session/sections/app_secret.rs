//! Configuration keys for the app's secrets: the current secret, and older secrets that the app still accepts. Each
//! kind derives its own cryptographic keys from them.

use crate::config::{List, Problems, Section};
use crate::secret::Secret;

/// A required secret of the app, under `key`. `setting` is the secret's name in the app's framework.
pub fn required(
    section: &Section<'_>,
    key: &str,
    value: Option<Secret>,
    setting: &str,
    problems: &mut Problems,
) -> Option<Secret> {
    require_given(section, key, value.is_some(), setting, problems);
    let secret = section.secret(key, value, problems);
    check(section, key, secret.as_slice(), problems);
    secret
}

/// A list of the app's secrets, under `key`.
pub fn listed(
    section: &Section<'_>,
    key: &str,
    values: List<Secret>,
    problems: &mut Problems,
) -> Vec<Secret> {
    let secrets = section.secrets(key, values, problems);
    check(section, key, &secrets, problems);
    secrets
}

/// Like [`listed`], for a list that must not be empty.
pub fn required_list(
    section: &Section<'_>,
    key: &str,
    values: List<Secret>,
    setting: &str,
    problems: &mut Problems,
) -> Vec<Secret> {
    require_given(section, key, !values.is_empty(), setting, problems);
    listed(section, key, values, problems)
}

/// The secrets under the configuration keys `secret_key` and `secret_key_fallbacks`, which are named after the settings
/// of Flask and Django. The current secret comes first.
pub fn with_fallbacks(
    section: &Section<'_>,
    current: Option<Secret>,
    fallbacks: List<Secret>,
    problems: &mut Problems,
) -> Vec<Secret> {
    let current = required(section, "secret_key", current, "SECRET_KEY", problems);
    let fallbacks = listed(section, "secret_key_fallbacks", fallbacks, problems);
    current.into_iter().chain(fallbacks).collect()
}

/// Reports a problem if a required secret is missing, unless a problem with this key has already been reported.
pub fn require_given(
    section: &Section<'_>,
    key: &str,
    given: bool,
    setting: &str,
    problems: &mut Problems,
) {
    problems.require(
        given || problems.are_about(&section.key(key)),
        section.key(key),
        format!("is missing: set it to the app's own {setting}, or set {key}_file to a file that contains it"),
    );
}

/// Checks the strength of secrets. A weak secret causes only a warning, because the app already uses it and refusing it
/// here would not make the app safer. A placeholder is a problem.
pub fn check(section: &Section<'_>, key: &str, secrets: &[Secret], problems: &mut Problems) {
    let advice = "sessions can be forged by guessing the secret. Set a random secret (`openssl rand -hex 32`) in the app and here";
    for secret in secrets.iter().filter(|secret| !secret.expose().is_empty()) {
        if let Some(placeholder) = secret.placeholder() {
            problems.add(section.key(key), format!("{placeholder}: {advice}"));
        } else if let Some(weakness) = secret.weakness() {
            section.warn(key, format!("{weakness}: {advice}"));
        }
    }
}

/// Like [`check`], for secrets that sign JWTs with one of `algorithms`, which are values of `alg`. Warns about a secret
/// that is shorter than the longest hash output of these algorithms (RFC 7518, section 3.2).
pub fn check_jwt(
    section: &Section<'_>,
    key: &str,
    secrets: &[Secret],
    algorithms: &[String],
    problems: &mut Problems,
) {
    check(section, key, secrets, problems);
    let hashes = [("HS512", 64), ("HS384", 48), ("HS256", 32)];
    let longest_hash = hashes
        .into_iter()
        .find(|(name, _)| algorithms.iter().any(|algorithm| algorithm == name));
    let Some((name, length)) = longest_hash else {
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
                "has {found} bytes, and RFC 7518, section 3.2 requires at least {length} for {name}: use a longer \
                 secret in the app and here"
            ),
        );
    }
}
