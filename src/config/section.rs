//! The section of one extractor: its keys, its secrets, and the findings about it.

use std::cell::RefCell;
use std::fmt;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::fingerprint::FileFingerprint;
use super::problems::{Problems, Warnings};
use super::reader::{Table, join, read};
use super::schema::properties;
use super::values::{HumanDuration, List};
use crate::bytes::before;
use crate::secret::{Damage, Secret, damage};

/// The information that was collected about a section while its extractor was built, in addition to the problems.
#[derive(Default)]
pub(crate) struct Findings {
    /// The effective section, with presets and defaults applied and secrets redacted.
    pub(crate) effective: Option<serde_json::Value>,
    /// The files from which keys were read.
    pub(crate) fingerprints: Vec<FileFingerprint>,
    pub(crate) warnings: Warnings,
    /// The number of secrets in each list or table, with the full name of its configuration key.
    pub(crate) secret_counts: Vec<(String, usize)>,
    /// Builds the properties of the section's JSON Schema.
    pub(crate) properties: Option<Properties>,
}

type Properties = fn() -> serde_json::Map<String, serde_json::Value>;

/// Values that the checks of a section need, but that are set elsewhere in the configuration.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Elsewhere<'a> {
    /// The secret that signs the service's tokens. No section may use it.
    pub(crate) client_secret: Option<&'a Secret>,
    /// `server.request_timeout`, the upper bound for every timeout of a section.
    pub(crate) request_timeout: Duration,
    /// The value of `token.cap_to_session`.
    pub(crate) cap_to_session: bool,
}

impl Elsewhere<'_> {
    /// The values for a section that is not part of a whole configuration.
    pub(crate) const DEFAULT: Self = Self {
        client_secret: None,
        request_timeout: Duration::from_secs(5),
        cap_to_session: false,
    };
}

/// The section of one extractor, `[extractors.NAME]`, without the keys that all kinds have in common.
pub struct Section<'a> {
    path: String,
    table: Table,
    /// Keys that were already removed from the table. They are suggested too when a key is misspelled.
    common_keys: &'static [&'static str],
    elsewhere: Elsewhere<'a>,
    /// Whether the section itself sets `subject`, so that its value does not come from the preset or the kind.
    pub(crate) names_subject: bool,
    /// The subject template of the section, or of its preset or kind if the section sets none.
    pub(crate) subject: String,
    findings: RefCell<Findings>,
}

impl<'a> Section<'a> {
    pub(crate) fn new(
        path: String,
        table: Table,
        common_keys: &'static [&'static str],
        elsewhere: Elsewhere<'a>,
    ) -> Self {
        Self {
            path,
            table,
            common_keys,
            elsewhere,
            names_subject: false,
            subject: String::new(),
            findings: RefCell::default(),
        }
    }

    /// The extractor's name, as listed in `session.extractors`.
    pub fn name(&self) -> &str {
        last_name(&self.path)
    }

    /// The full name of `key` in this section, under which problems are reported.
    pub fn key(&self, key: &str) -> String {
        join(&self.path, key)
    }

    /// The subject template.
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// Whether tokens must not outlive the session, so that an extractor must also read the session's expiry from its
    /// store.
    pub fn cap_to_session(&self) -> bool {
        self.elsewhere.cap_to_session
    }

    /// Refuses a section that does not set `subject`. Kinds call this if no attribute identifies users in every app.
    /// `text` is the message, which tells the operator what to write.
    pub fn require_subject(&self, text: &str, problems: &mut Problems) {
        problems.require(self.names_subject, self.key("subject"), text);
    }

    /// Reads the section as `T`, a struct whose fields all have defaults and which denies unknown fields. An invalid
    /// key is reported and has its default value, so that later checks still run.
    pub fn read<T>(&self, problems: &mut Problems) -> T
    where
        T: DeserializeOwned + Default + Serialize,
    {
        let mut findings = self.findings.borrow_mut();
        let files = &mut findings.fingerprints;
        let config: T = read(&self.path, &self.table, self.common_keys, files, problems);
        findings.effective = serde_json::to_value(&config).ok();
        findings.properties = Some(properties::<T>);
        config
    }

    /// Validates the secret under `key`, if it is set, and returns it unchanged. An empty secret is a problem; a secret
    /// that seems damaged, for example by quotes, is a warning.
    ///
    /// A secret that verifies sessions must differ from the client secret, because the service's own tokens would
    /// otherwise be accepted as sessions.
    pub fn secret(
        &self,
        key: &str,
        value: Option<Secret>,
        problems: &mut Problems,
    ) -> Option<Secret> {
        value.inspect(|secret| self.check_secret(key, secret, problems))
    }

    /// Validates each secret in the list under `key`, as [`Self::secret`] does, and returns the secrets unchanged.
    /// Warns if the list as a whole seems damaged, and records the number of secrets.
    pub fn secrets(&self, key: &str, values: List<Secret>, problems: &mut Problems) -> Vec<Secret> {
        for secret in values.iter() {
            self.check_secret(key, secret, problems);
        }
        // If a whole list in an environment variable is quoted, the quotes become part of its first and last secret.
        if let [first, .., last] = &*values
            && [first, last]
                .iter()
                .all(|secret| self.damage_of(key, secret).is_none())
            && let Some(damage) = damage(&[first.expose(), last.expose()].concat(), &[])
        {
            self.warn(
                key,
                format!("the list as a whole {damage}: remove this from the variable's value"),
            );
        }
        self.count_secrets(key, values.len());
        values.0
    }

    /// Records how many secrets a list or table contains, so that the operator notices an extra or missing comma in an
    /// environment variable.
    pub fn count_secrets(&self, key: &str, count: usize) {
        if count > 0 {
            let counts = &mut self.findings.borrow_mut().secret_counts;
            counts.push((self.key(key), count));
        }
    }

    fn check_secret(&self, key: &str, secret: &Secret, problems: &mut Problems) {
        if secret.expose().is_empty() {
            problems.add(self.key(key), "is empty: set a value or leave the key out");
            return;
        }
        self.refuse_client_secret(key, secret.expose(), problems);
        // This is only a warning, because the app may read the same damaged value.
        if let Some(damage) = self.damage_of(key, secret) {
            self.warn(
                key,
                format!(
                    "{damage}: sessions are accepted only if the app uses exactly the same bytes"
                ),
            );
        }
    }

    fn damage_of(&self, key: &str, secret: &Secret) -> Option<Damage> {
        let path = self.key(key);
        let variable = format!("ROLLOUT__{}", path.replace('.', "__"));
        let names = [&variable, last_name(&path), name_in_front(secret.expose())];
        damage(secret.expose(), &names)
    }

    /// Refuses the client secret as a key that verifies sessions. `bytes` is the key in use, after decoding if the
    /// section contains it in encoded form.
    pub fn refuse_client_secret(&self, key: &str, bytes: &[u8], problems: &mut Problems) {
        if self
            .elsewhere
            .client_secret
            .is_some_and(|secret| secret.expose() == bytes)
        {
            problems.add(
                self.key(key),
                "is the same secret as client_secret, so the service's own tokens would be accepted as sessions: use another secret",
            );
        }
    }

    /// Checks that nested timeouts are in order: no timeout may be longer than the next timeout, nor than
    /// `server.request_timeout`, which would end the request first.
    pub fn check_timeouts(&self, timeouts: &[(&str, HumanDuration)], problems: &mut Problems) {
        let request = (
            "server.request_timeout".to_owned(),
            HumanDuration(self.elsewhere.request_timeout),
        );
        let next = timeouts
            .iter()
            .skip(1)
            .map(|(key, span)| (self.key(key), *span))
            .chain([request]);
        for ((key, span), (next_key, next)) in timeouts.iter().zip(next) {
            problems.require(
                *span <= next,
                self.key(key),
                format!("is {span}, longer than {next_key}, which is {next}: lower it, or raise {next_key}"),
            );
        }
    }

    /// Adds a warning about `key`: the value is accepted, but the operator should know its effect.
    pub fn warn(&self, key: &str, text: impl Into<String>) {
        let warnings = &mut self.findings.borrow_mut().warnings;
        warnings.add(self.key(key), text);
    }

    /// Returns the findings that were collected while the extractor was built.
    pub(crate) fn into_findings(self) -> Findings {
        self.findings.into_inner()
    }
}

fn last_name(path: &str) -> &str {
    path.rsplit_once('.').map_or(path, |(_, name)| name)
}

/// The name of an environment variable in front of a value, as in `AUTH_SECRET=…` or `export AUTH_SECRET=…`; an empty
/// string if there is none. Only upper-case names with an underscore are recognised.
fn name_in_front(value: &[u8]) -> &str {
    let value = value.strip_prefix(b"export ").unwrap_or(value);
    let name = before(value, b'=');
    let is_name = name.contains(&b'_')
        && name
            .iter()
            .all(|&byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_');
    str::from_utf8(name)
        .ok()
        .filter(|_| is_name)
        .unwrap_or_default()
}

impl fmt::Debug for Section<'_> {
    /// Leaves out the table, which contains secrets in plain text.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Section")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}
