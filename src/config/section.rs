//! The reader of one section: from a table to typed values, with every problem reported under its key.
//! Which keys there are is in `settings`, and with each kind of extractor.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::path::Path;
use std::time::Duration;

use config::{Map, Value, ValueKind};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde::de::value::MapDeserializer;

use super::deserializer::{Error, FLAG, StrictValue, WHOLE_NUMBER, is_container};
use super::fingerprint::FileFingerprint;
use super::problems::{Problems, Warnings};
use super::suggest::unknown;
use super::values::{HumanDuration, List};
use crate::secret::Secret;

/// A tree of values that know where they are from.
pub(crate) type Table = Map<String, Value>;

/// The keys of a section, which are the fields of its struct. Keys that only presets may set are not serialized, and
/// are left out here.
pub(crate) fn keys_of<T: Default + Serialize>() -> Vec<String> {
    match serde_json::to_value(T::default()) {
        Ok(serde_json::Value::Object(fields)) => fields.into_iter().map(|(key, _)| key).collect(),
        _ => Vec::new(),
    }
}

/// Reads a table into `T`, whose fields all have defaults.
///
/// Serde stops at the first error. So every key is read alone first, which gives each wrong key its own line in the
/// report. The good keys are then read together. `more` are keys of the section that were taken out of the table
/// before; they are suggested for a misspelled key.
///
/// Instead of a key `X` whose type accepts bytes, as a secret does, the table may have `X_file`, the name of a file
/// with the value, or a table of such names by member. The files that are read are added to `files`.
pub(crate) fn read<T>(
    path: &str,
    table: &Table,
    more: &[&str],
    files: &mut Vec<FileFingerprint>,
    problems: &mut Problems,
) -> T
where
    T: DeserializeOwned + Default + Serialize,
{
    let known = keys_of::<T>();
    let mut good = Vec::new();
    let mut keys: Vec<_> = table.iter().collect();
    keys.sort_unstable_by_key(|(key, _)| *key);
    for (key, value) in keys {
        let named_by = format!("{key}_file");
        if let (Some(file), ValueKind::Table(_)) = (table.get(&named_by), &value.kind)
            && matches!(file.kind, ValueKind::Table(_))
            && !known.contains(&named_by)
            && accepts_file::<T>(key, file)
        {
            // Its members are read together with those of its files.
            continue;
        }
        let of_file = key
            .strip_suffix("_file")
            .filter(|of_file| !known.contains(key) && accepts_file::<T>(of_file, value));
        let (name, given) = if let Some(name) = of_file {
            let path = join(path, name);
            match read_named_files(&path, value, table.get(name), files, problems) {
                Some(content) => (name, content),
                None => continue,
            }
        } else {
            (key.as_str(), StrictValue::Given(value.clone()))
        };
        match read_key::<T>(name, given.clone()) {
            Ok(()) => good.push((name, given)),
            Err(Error::UnknownKey(_)) if !known.contains(key) => {
                let known = more.iter().copied().chain(known.iter().map(String::as_str));
                problems.add(join(path, key), unknown("key of this section", key, known));
            }
            Err(error) if of_file.is_some() => {
                let whose = match given {
                    StrictValue::FileContent(_) => format!("the file of {key} "),
                    _ => String::new(),
                };
                problems.add(join(path, name), format!("{whose}{error}"));
            }
            Err(error) => problems.add(join(path, key), describe(&error, value)),
        }
    }
    T::deserialize(MapDeserializer::new(good.into_iter())).unwrap_or_else(|error| {
        problems.add(path, error.to_string());
        T::default()
    })
}

/// Whether `T` takes this value of one key.
fn read_key<T: DeserializeOwned>(key: &str, value: StrictValue) -> Result<(), Error> {
    T::deserialize(MapDeserializer::new(std::iter::once((key, value)))).map(drop)
}

/// Whether files may hold the value of this key: one, or one for each member if `names` is a table.
fn accepts_file<T: DeserializeOwned>(key: &str, names: &Value) -> bool {
    let accepts = |value| {
        !matches!(
            read_key::<T>(key, value),
            Err(Error::UnknownKey(_) | Error::NotFromFile | Error::Type { .. })
        )
    };
    let content = StrictValue::FileContent(Secret::new(""));
    let is_table = matches!(names.kind, ValueKind::Table(_));
    accepts(content.clone())
        || is_table && accepts(StrictValue::Members(vec![("name".to_owned(), content)]))
}

/// The value of the key at `path`, whose file or whose members' files are in `names`. `given` is the key's own value.
fn read_named_files(
    path: &str,
    names: &Value,
    given: Option<&Value>,
    files: &mut Vec<FileFingerprint>,
    problems: &mut Problems,
) -> Option<StrictValue> {
    const BOTH: &str = "is given both by value and by file: keep one";
    let none = Table::new();
    let (names, given) = match (&names.kind, given.map(|given| &given.kind)) {
        (ValueKind::Table(names), None) => (names, &none),
        (ValueKind::Table(names), Some(ValueKind::Table(given))) => (names, given),
        (_, Some(_)) => {
            problems.add(path, BOTH);
            return None;
        }
        (_, None) => {
            let content = problems.accept(path, read_named_file(names, files))?;
            return Some(StrictValue::FileContent(content));
        }
    };
    let mut members: Vec<_> = given
        .iter()
        .map(|(member, value)| (member.clone(), StrictValue::Given(value.clone())))
        .collect();
    for member in names.keys().collect::<BTreeSet<_>>() {
        let key = join(path, member);
        if given.contains_key(member) {
            problems.add(key, BOTH);
        } else if let Some(content) = problems.accept(key, read_named_file(&names[member], files)) {
            members.push((member.clone(), StrictValue::FileContent(content)));
        }
    }
    Some(StrictValue::Members(members))
}

/// The content of the file that the value names.
fn read_named_file(value: &Value, files: &mut Vec<FileFingerprint>) -> Result<Secret, String> {
    let ValueKind::String(name) = &value.kind else {
        return Err(format!(
            "the name of its file must be text in quotes, not {}{}",
            type_name(value),
            origin(value)
        ));
    };
    let path = Path::new(name);
    let content = FileFingerprint::read(path).map(|(bytes, watched)| {
        files.push(watched);
        bytes
    });
    Secret::from_file(path, content)
}

pub(crate) fn join(path: &str, key: &str) -> String {
    if path.is_empty() {
        key.to_owned()
    } else {
        format!("{path}.{key}")
    }
}

/// What is wrong with a value, without the value itself.
fn describe(error: &Error, value: &Value) -> String {
    let text = match error {
        Error::Type {
            expected,
            is_container: false,
        } if is_container(value) => {
            format!("is {} that must hold {expected}", type_name(value))
        }
        Error::Type { expected, .. } => format!("must be {expected}, not {}", type_name(value)),
        error => error.to_string(),
    };
    format!("{text}{}", origin(value))
}

/// What is wrong with a value where a section has to be.
pub(crate) fn no_section(path: &str, value: &Value) -> String {
    format!(
        "must be a section, [{path}], not {}{}",
        type_name(value),
        origin(value)
    )
}

fn origin(value: &Value) -> String {
    value
        .origin()
        .map(|origin| format!(" (from {origin})"))
        .unwrap_or_default()
}

/// The type of a value, without the value: it may be a secret under the wrong key.
pub(crate) fn type_name(value: &Value) -> &'static str {
    match value.kind {
        ValueKind::Nil => "nothing",
        ValueKind::Boolean(_) => FLAG,
        ValueKind::I64(_) | ValueKind::I128(_) | ValueKind::U64(_) | ValueKind::U128(_) => {
            WHOLE_NUMBER
        }
        ValueKind::Float(_) => "a number",
        ValueKind::String(_) => "text",
        ValueKind::Table(_) => "a table",
        ValueKind::Array(_) => "a list",
    }
}

/// What building an extractor tells about its section, beside the extractor and its problems.
pub(crate) struct Findings {
    /// The section as it was understood, presets and defaults filled in and secrets redacted.
    pub(crate) effective: Option<serde_json::Value>,
    /// The files that keys were read from.
    pub(crate) watched: Vec<FileFingerprint>,
    pub(crate) warnings: Warnings,
}

/// Takes these keys out of a table.
pub(crate) fn take(table: &mut Table, keys: &[&str]) -> Table {
    keys.iter()
        .filter_map(|key| table.remove_entry(*key))
        .collect()
}

/// The values outside a section that its own are checked against.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Elsewhere<'a> {
    /// The secret that signs our tokens, which no section may use.
    pub(crate) client_secret: Option<&'a Secret>,
    /// `server.request_timeout`, which bounds every timeout of a section.
    pub(crate) request_timeout: Duration,
    /// `token.cap_to_session`
    pub(crate) cap_to_session: bool,
}

impl Elsewhere<'_> {
    /// For a section without a whole configuration around it.
    pub(crate) const DEFAULT: Self = Self {
        client_secret: None,
        request_timeout: Duration::from_secs(5),
        cap_to_session: false,
    };
}

/// The section of one extractor, `[extractors.NAME]`, without the keys that all kinds share.
pub struct Section<'a> {
    path: String,
    table: Table,
    /// Keys that were taken out of the table before: a typo of one is answered with its name.
    common_keys: &'static [&'static str],
    elsewhere: Elsewhere<'a>,
    /// The section itself has a `subject`, beside those of its preset and its kind.
    pub(crate) names_subject: bool,
    effective: RefCell<Option<serde_json::Value>>,
    watched: RefCell<Vec<FileFingerprint>>,
    warnings: RefCell<Warnings>,
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
            effective: RefCell::default(),
            watched: RefCell::default(),
            warnings: RefCell::default(),
        }
    }

    /// The extractor's name, as in `session.extractors`.
    pub fn name(&self) -> &str {
        self.path.rsplit('.').next().unwrap_or_default()
    }

    /// The full key of `key` in this section, for a problem's first words.
    pub fn key(&self, key: &str) -> String {
        join(&self.path, key)
    }

    /// Whether tokens end with the session, so that a store has to tell when that is.
    pub fn cap_to_session(&self) -> bool {
        self.elsewhere.cap_to_session
    }

    /// Refuses a section without a `subject` of its own: there is no attribute that identifies the users of
    /// every app. `text` says what to write.
    pub fn require_subject(&self, text: &str, problems: &mut Problems) {
        problems.require(self.names_subject, self.key("subject"), text);
    }

    /// The section as `T`: a struct whose fields all have defaults and which denies unknown fields.
    /// Keys that do not fit are reported and take their default, so that later checks still run.
    pub fn read<T>(&self, problems: &mut Problems) -> T
    where
        T: DeserializeOwned + Default + Serialize,
    {
        let mut files = Vec::new();
        let config: T = read(
            &self.path,
            &self.table,
            self.common_keys,
            &mut files,
            problems,
        );
        self.watched.borrow_mut().extend(files);
        *self.effective.borrow_mut() = serde_json::to_value(&config).ok();
        config
    }

    /// The secret under `key`, if it is given; an empty one is a problem.
    ///
    /// A secret that verifies sessions must not be the one that signs our tokens: such a token
    /// would then be accepted as a session.
    pub fn secret(
        &self,
        key: &str,
        value: Option<Secret>,
        problems: &mut Problems,
    ) -> Option<Secret> {
        let secret = value?;
        self.check_secret(key, &secret, problems);
        Some(secret)
    }

    /// The secrets listed under `key`. Each is checked as [`Self::secret`] checks one.
    pub fn secrets(&self, key: &str, values: List<Secret>, problems: &mut Problems) -> Vec<Secret> {
        for secret in values.iter() {
            self.check_secret(key, secret, problems);
        }
        values.0
    }

    fn check_secret(&self, key: &str, secret: &Secret, problems: &mut Problems) {
        if secret.expose().is_empty() {
            problems.add(
                self.key(key),
                "is empty: give it a value or leave the key out",
            );
        } else if self.elsewhere.client_secret == Some(secret) {
            problems.add(
                self.key(key),
                "is the same secret as client_secret: our own tokens would pass as sessions. Use another",
            );
        }
    }

    /// Checks that time-outs, each a part of the next, are in order: none is longer than the next one, or than
    /// `server.request_timeout`, which would strike first.
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

    /// Reads a file of secrets or keys. From then on a change of it reloads the configuration.
    pub fn read_file(&self, path: &Path) -> io::Result<Vec<u8>> {
        let (bytes, watched) = FileFingerprint::read(path)?;
        self.watched.borrow_mut().push(watched);
        Ok(bytes)
    }

    /// Adds a warning about `key`: the value is accepted, but the operator should know what it means.
    pub fn warn(&self, key: &str, text: impl Into<String>) {
        self.warnings.borrow_mut().add(self.key(key), text);
    }

    /// What was found out about the section while its extractor was built.
    pub(crate) fn into_findings(self) -> Findings {
        Findings {
            effective: self.effective.into_inner(),
            watched: self.watched.into_inner(),
            warnings: self.warnings.into_inner(),
        }
    }
}

impl fmt::Debug for Section<'_> {
    /// The table still holds secrets as plain text.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Section")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}
