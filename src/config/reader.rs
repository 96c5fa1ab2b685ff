//! Reads a table of the configuration into typed values, and reports every problem under its key.

use std::collections::BTreeSet;
use std::path::Path;

use config::{Map, Value, ValueKind};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde::de::value::MapDeserializer;

use super::deserializer::{Error, FLAG, StrictValue, WHOLE_NUMBER};
use super::fingerprint::FileFingerprint;
use super::problems::Problems;
use super::structured::expand;
use super::suggest::unknown;
use super::value_origin::ValueOrigin;
use crate::secret::Secret;

/// A tree of values that record their origin.
pub(crate) type Table = Map<String, Value>;

/// The keys of a section, which are the fields of its struct. Keys that only presets may set are not serialized, so
/// they are not in this list.
pub(crate) fn keys_of<T: Default + Serialize>() -> Vec<String> {
    defaults_of::<T>().into_iter().map(|(key, _)| key).collect()
}

/// The keys of a section, with their defaults.
pub(super) fn defaults_of<T: Default + Serialize>() -> serde_json::Map<String, serde_json::Value> {
    match serde_json::to_value(T::default()) {
        Ok(serde_json::Value::Object(fields)) => fields,
        _ => serde_json::Map::new(),
    }
}

/// Reads a table into `T`, whose fields all have defaults.
///
/// Serde stops at the first error, so every key is first read on its own, which gives each invalid key its own line in
/// the report. Then the valid keys are read together. `more` lists keys of the section that the caller has already
/// removed from the table; they are suggested too when a key is misspelled.
///
/// For a key `X` whose type accepts bytes, such as a secret, the table may contain `X_file` instead: the name of a file
/// with the value, or a table that maps each member to a file name. The same applies to the keys of the tables in a
/// list. The files that are read are added to `files`.
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
            // The members in this table are read together with those in the `_file` table.
            continue;
        }
        let of_file = key
            .strip_suffix("_file")
            .filter(|of_file| !known.contains(key) && accepts_file::<T>(of_file, value));
        let (name, value, given) = if let Some(name) = of_file {
            let path = join(path, name);
            match read_named_files(&path, value, table.get(name), files, problems) {
                Some(content) => (name, value.clone(), content),
                None => continue,
            }
        } else {
            let takes = |probe| {
                !matches!(
                    read_key::<T>(key, StrictValue::Given(probe)),
                    Err(Error::UnknownKey(_) | Error::Type { .. })
                )
            };
            let expanded = expand(value, &takes, accepts_file::<T>(key, value));
            let Some(value) = problems.accept(join(path, key), expanded) else {
                continue;
            };
            let path = join(path, key);
            let given = read_items::<T>(&path, key, &value, files, problems);
            (key.as_str(), value, given)
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
            Err(error) => {
                let read = |kind| read_key::<T>(key, StrictValue::Given(with_kind(&value, kind)));
                let path = join(path, key);
                let cause = find_cause(&path, &value, &error, &read);
                let (path, invalid) = cause.unwrap_or((path, &value));
                problems.add(
                    path,
                    format!("{}{}", describe(&error, invalid), origin(invalid)),
                );
            }
        }
    }
    T::deserialize(MapDeserializer::new(good.into_iter())).unwrap_or_else(|error| {
        problems.add(path, error.to_string());
        T::default()
    })
}

/// Reads one key as `T`, which shows whether `T` accepts the value.
pub(super) fn read_key<T: DeserializeOwned>(key: &str, value: StrictValue) -> Result<(), Error> {
    T::deserialize(MapDeserializer::new(std::iter::once((key, value)))).map(drop)
}

/// Whether the value of this key can be read from a file, or from one file per member if `names` is a table.
pub(super) fn accepts_file<T: DeserializeOwned>(key: &str, names: &Value) -> bool {
    let content = StrictValue::FileContent(Secret::new(""));
    let is_table = matches!(names.kind, ValueKind::Table(_));
    accepts::<T>(key, content.clone())
        || is_table
            && accepts::<T>(
                key,
                StrictValue::Members(vec![("name".to_owned(), content)]),
            )
}

/// Whether the key accepts `content`, a placeholder for the content of one or more files.
fn accepts<T: DeserializeOwned>(key: &str, content: StrictValue) -> bool {
    !matches!(
        read_key::<T>(key, content),
        Err(Error::UnknownKey(_) | Error::NotFromFile | Error::Type { .. })
    )
}

/// The value of a key, with the content of the files that the tables of a list name: `X_file` in such a table names the
/// file with the value of `X`. A value of another form is returned unchanged.
fn read_items<T: DeserializeOwned>(
    path: &str,
    key: &str,
    value: &Value,
    files: &mut Vec<FileFingerprint>,
    problems: &mut Problems,
) -> StrictValue {
    let of_file = |member: &str| {
        let name = member.strip_suffix("_file")?.to_owned();
        let content = StrictValue::FileContent(Secret::new(""));
        let item = StrictValue::Members(vec![(name.clone(), content)]);
        accepts::<T>(key, StrictValue::Items(vec![item])).then_some(name)
    };
    let names_file = |item: &Value| matches!(&item.kind, ValueKind::Table(members) if members.keys().any(|member| of_file(member).is_some()));
    let items = match &value.kind {
        ValueKind::Array(items) if items.iter().any(names_file) => items,
        _ => return StrictValue::Given(value.clone()),
    };
    let items = items.iter().enumerate().map(|(index, item)| {
        let ValueKind::Table(table) = &item.kind else {
            return StrictValue::Given(item.clone());
        };
        let path = join(path, &index.to_string());
        let members = table.iter().filter_map(|(member, value)| {
            let Some(name) = of_file(member) else {
                return Some((member.clone(), StrictValue::Given(value.clone())));
            };
            let given = table.get(&name);
            let content = read_named_files(&join(&path, &name), value, given, files, problems)?;
            Some((name, content))
        });
        StrictValue::Members(members.collect())
    });
    StrictValue::Items(items.collect())
}

/// Reads the key at `path` from the file whose name is `names`, or from one file per member if `names` is a table.
/// `given` is the value that is set without a file.
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
            let content = problems.accept(file_key(path), read_named_file(names, files))?;
            return Some(StrictValue::FileContent(content));
        }
    };
    let mut members: Vec<_> = given
        .iter()
        .map(|(member, value)| (member.clone(), StrictValue::Given(value.clone())))
        .collect();
    for member in names.keys().collect::<BTreeSet<_>>() {
        if given.contains_key(member) {
            problems.add(join(path, member), BOTH);
            continue;
        }
        let key = join(&file_key(path), member);
        if let Some(content) = problems.accept(key, read_named_file(&names[member], files)) {
            members.push((member.clone(), StrictValue::FileContent(content)));
        }
    }
    Some(StrictValue::Members(members))
}

/// The key that names the file from which the key at `path` is read.
fn file_key(path: &str) -> String {
    format!("{path}_file")
}

/// Reads the content of the file that the value names.
fn read_named_file(value: &Value, files: &mut Vec<FileFingerprint>) -> Result<Secret, String> {
    let ValueKind::String(name) = &value.kind else {
        return Err(format!(
            "must be the name of a file, as a string in quotes, not {}{}",
            type_name(value),
            origin(value)
        ));
    };
    let path = Path::new(name);
    let content = FileFingerprint::read(path).map(|(bytes, fingerprint)| {
        files.push(fingerprint);
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

/// The innermost value that causes `error`, and its path. `read` reads the whole key with another value in place of
/// `value`. If an empty list or table in place of `value` causes the same error, `value` itself is the cause. Otherwise
/// its items or members are read one at a time, and `value` is the cause if none of them is. `None` if reading `value`
/// causes another error or none.
fn find_cause<'a>(
    path: &str,
    value: &'a Value,
    error: &Error,
    read: &dyn Fn(ValueKind) -> Result<(), Error>,
) -> Option<(String, &'a Value)> {
    let fails = |kind| read(kind).is_err_and(|found| found == *error);
    let inner = match &value.kind {
        ValueKind::Array(items) if !fails(ValueKind::Array(Vec::new())) => {
            items.iter().enumerate().find_map(|(index, item)| {
                let read = |kind| read(ValueKind::Array(vec![with_kind(item, kind)]));
                find_cause(&join(path, &index.to_string()), item, error, &read)
            })
        }
        ValueKind::Table(members) if !fails(ValueKind::Table(Table::new())) => {
            members.iter().find_map(|(name, member)| {
                let alone = |kind| [(name.clone(), with_kind(member, kind))].into();
                let read = |kind| read(ValueKind::Table(alone(kind)));
                find_cause(&join(path, name), member, error, &read)
            })
        }
        _ => None,
    };
    inner.or_else(|| fails(value.kind.clone()).then(|| (path.to_owned(), value)))
}

fn with_kind(value: &Value, kind: ValueKind) -> Value {
    let mut value = value.clone();
    value.kind = kind;
    value
}

/// Describes why a value was refused, without repeating the value.
fn describe(error: &Error, value: &Value) -> String {
    match error {
        Error::Type { expected, .. } => format!("must be {expected}, not {}", type_name(value)),
        error => error.to_string(),
    }
}

/// The message for a value where a section is expected.
pub(crate) fn no_section(path: &str, value: &Value) -> String {
    format!(
        "must be a section, [{path}], not {}{}",
        type_name(value),
        origin(value)
    )
}

fn origin(value: &Value) -> String {
    ValueOrigin::of(value)
        .map(|origin| format!(" (from {origin})"))
        .unwrap_or_default()
}

/// The type of a value. The value itself is left out, because it may be a secret under the wrong key.
pub(crate) fn type_name(value: &Value) -> &'static str {
    match value.kind {
        ValueKind::Nil => "nothing",
        ValueKind::Boolean(_) => FLAG,
        ValueKind::I64(_) | ValueKind::I128(_) | ValueKind::U64(_) | ValueKind::U128(_) => {
            WHOLE_NUMBER
        }
        ValueKind::Float(_) => "a number with a fraction",
        ValueKind::String(_) => "a string",
        ValueKind::Table(_) => "a table",
        ValueKind::Array(_) => "a list",
    }
}

/// Removes these keys from a table and returns them.
pub(crate) fn take(table: &mut Table, keys: &[&str]) -> Table {
    keys.iter()
        .filter_map(|key| table.remove_entry(*key))
        .collect()
}
