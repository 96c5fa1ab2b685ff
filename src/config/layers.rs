//! The layers of a configuration (the command's own defaults, files, `ROLLOUT_CONFIG`, other environment variables),
//! and how they are merged: a later layer takes precedence. `reader.rs` converts the result to typed values.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use config::{FileFormat, Format, Value, ValueKind};

use super::fingerprint::FileFingerprint;
use super::problems::Problems;
use super::reader::{Table, join, type_name};
use super::structured::from_json;
use super::value_origin::ValueOrigin;
use crate::json;

/// The environment variables that set the client id and secret, and their keys.
const ROLLOUT_NAMES: [(&str, &str); 3] = [
    ("ROLLOUT_CLIENT_ID", "client_id"),
    ("ROLLOUT_CLIENT_SECRET", "client_secret"),
    ("ROLLOUT_CLIENT_SECRET_FILE", "client_secret_file"),
];

/// The environment variable that contains a whole configuration, for platforms that support variables but no files.
const WHOLE: &str = "ROLLOUT_CONFIG";

/// The environment variable in which many platforms pass the port to listen on.
pub(crate) const PORT: &str = "PORT";

/// The prefix of the environment variables that set one key each. The double `_` distinguishes them from the variables
/// that Kubernetes sets for a service called `rollout`, which have a single `_`.
const PREFIX: &str = "ROLLOUT__";

/// Whether this is one of the shared environment variables that the service reads: for OpenTelemetry, for proxies, for
/// the system's certificates, and for the Google Cloud project.
fn is_common(name: &str) -> bool {
    name.starts_with("OTEL_")
        || matches!(name, "SSL_CERT_FILE" | "GOOGLE_CLOUD_PROJECT")
        || name.to_ascii_lowercase().ends_with("_proxy")
}

/// The sources of the configuration. The environment is a field, so that tests can set variables without starting a
/// process.
#[derive(Clone, Default)]
pub struct Sources {
    /// The lowest layer, as TOML: the defaults of `dev`, and the throwaway client id and secret of a command.
    pub base: Option<String>,
    /// TOML files; a later file takes precedence.
    pub files: Vec<PathBuf>,
    /// Environment variables: `ROLLOUT_CONFIG`, `ROLLOUT__SECTION__KEY`, those for the client id and secret, `PORT`,
    /// and those that other programs read as well, such as OpenTelemetry's `OTEL_…`.
    pub environment: BTreeMap<String, String>,
    /// The names of the service's own environment variables whose values are not valid UTF-8, which is an error.
    pub not_text: Vec<String>,
    /// The names of other environment variables that begin with `ROLLOUT_` (case-insensitive). They may be misspelled.
    pub foreign: Vec<String>,
}

impl fmt::Debug for Sources {
    /// Shows only the names of the files, because their contents and the variables contain secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sources")
            .field("files", &self.files)
            .finish_non_exhaustive()
    }
}

impl Sources {
    /// The sources: these files, and the environment of this process.
    #[expect(
        clippy::disallowed_methods,
        reason = "only this function reads the configuration from the environment"
    )]
    pub fn from_process(files: Vec<PathBuf>) -> Self {
        let mut sources = Self {
            files,
            ..Self::default()
        };
        for (name, value) in std::env::vars_os() {
            // A variable whose name is not valid UTF-8 does not belong to the service.
            let Ok(name) = name.into_string() else {
                continue;
            };
            let own = name.starts_with(PREFIX)
                || [WHOLE, PORT].contains(&&*name)
                || ROLLOUT_NAMES.iter().any(|(own, _)| name == *own);
            if !own && !is_common(&name) {
                if name.to_ascii_uppercase().starts_with("ROLLOUT_") {
                    sources.foreign.push(name);
                }
                continue;
            }
            match value.into_string() {
                Ok(value) => {
                    sources.environment.insert(name, value);
                }
                Err(_) if own => sources.not_text.push(name),
                Err(_) => {}
            }
        }
        sources
    }

    /// Merges the layers. Also returns the files that were read. Returns `None` if one of the layers cannot be read, or
    /// if the name of a variable is malformed, or two variables set the same key.
    ///
    /// Does not use `config::Config::builder()`, which lets a section silently replace another layer's value.
    pub(crate) fn merge(&self, problems: &mut Problems) -> Option<(Table, Vec<FileFingerprint>)> {
        for name in &self.not_text {
            problems.add(
                name,
                "is not UTF-8: put such a secret into a file, and set the variable with the suffix _FILE to the file name",
            );
        }
        let base = parse(self.base.as_deref().unwrap_or_default(), None);
        let mut tree = problems.accept("base", base).unwrap_or_default();
        let read = self.files.iter().filter_map(|path| file(path, problems));
        let (mut layers, files): (Vec<_>, Vec<_>) = read.unzip();
        layers.extend(self.whole(problems));
        let variables = self.variables(problems);
        if !problems.is_empty() {
            return None;
        }
        let mut above = Table::new();
        for layer in layers.into_iter().chain(variables) {
            lay(layer, &mut above, "", problems);
        }
        // In the base layer, `client_secret` is a throwaway secret. It is removed if the operator names a secret file,
        // because a secret that is set by value and by file is refused.
        if above.contains_key("client_secret_file") {
            tree.remove("client_secret");
        }
        lay(above, &mut tree, "", problems);
        Some((tree, files))
    }

    /// The layer of `ROLLOUT_CONFIG`, if it is set.
    fn whole(&self, problems: &mut Problems) -> Option<Table> {
        let text = self.environment.get(WHOLE)?.trim_start_matches('\u{feff}');
        let origin = ValueOrigin::Document(WHOLE.to_owned());
        if !text.contains(['=', '{', '[', '\n']) && !text.trim().is_empty() {
            problems.add(
                WHOLE,
                "contains neither TOML nor JSON: it must be the configuration itself; for a file, use --config FILE",
            );
            return None;
        }
        let layer = if text.trim_start().starts_with('{') {
            parse_json(text, &origin)
        } else {
            parse(text, Some(&origin))
        };
        problems.accept(WHOLE, layer)
    }

    /// One layer for each environment variable that sets one key. The variables in [`ROLLOUT_NAMES`] come last, so they
    /// take precedence.
    fn variables(&self, problems: &mut Problems) -> Vec<Table> {
        let mut names: BTreeMap<Vec<String>, &String> = BTreeMap::new();
        let mut layers = Vec::new();
        for (name, text) in &self.environment {
            let Some(path) = name.strip_prefix(PREFIX) else {
                continue;
            };
            let path = fold(path);
            if path.iter().any(String::is_empty) {
                problems.add(
                    name,
                    "has an empty part in its name: write two underscores between two parts",
                );
            }
            layers.push(variable(name, &path, text));
            if let Some(other) = names.insert(path, name) {
                problems.add(
                    name,
                    format!("sets the same key as {other}: keep one of the two"),
                );
            }
        }
        let rollouts = ROLLOUT_NAMES.into_iter().filter_map(|(name, key)| {
            let (name, text) = self.environment.get_key_value(name)?;
            Some(variable(name, &[key.to_owned()], text))
        });
        layers.extend(rollouts);
        layers
    }
}

/// Splits the name of an environment variable into its path: `ROLLOUT__SERVER__LISTEN` becomes `server`, `listen`.
/// Sections and keys are case-insensitive. A name below a key, such as a claim's name, is the operator's choice. Many
/// platforms convert variable names to upper case, so such a name keeps its case only if it contains a lower-case
/// letter.
fn fold(path: &str) -> Vec<String> {
    let parts: Vec<&str> = path.split("__").collect();
    // In `[extractors]`, the name of the section precedes the key.
    let keys = if parts[0].eq_ignore_ascii_case("extractors") {
        3
    } else {
        2
    };
    let folded = parts.iter().enumerate().map(|(depth, part)| {
        let is_free = depth >= keys && part.contains(char::is_lowercase);
        if is_free {
            (*part).to_owned()
        } else {
            part.to_lowercase()
        }
    });
    folded.collect()
}

/// Reads the layer of a file. If that fails, adds the problem and returns `None`.
fn file(path: &Path, problems: &mut Problems) -> Option<(Table, FileFingerprint)> {
    let name = path.display().to_string();
    let layer = FileFingerprint::read(path)
        .map_err(|error| format!("cannot be read: {error}"))
        .and_then(|(bytes, fingerprint)| {
            let text = str::from_utf8(&bytes).map_err(|_| "is not UTF-8 text".to_owned())?;
            let origin = ValueOrigin::Document(name.clone());
            Ok((parse(text, Some(&origin))?, fingerprint))
        });
    problems.accept(name, layer)
}

/// Parses TOML into a tree whose values record their origin.
pub(crate) fn parse(text: &str, origin: Option<&ValueOrigin>) -> Result<Table, String> {
    // The parser's own message quotes the line, which may contain a secret.
    toml::from_str::<toml::Table>(text).map_err(|error| {
        let line = error
            .span()
            .map_or(0, |span| text[..span.start].matches('\n').count() + 1);
        let message = error.message();
        let message = message.split_once('\n').map_or(message, |(first, _)| first);
        let message = match error.span() {
            Some(span) if is_bare_text(text, span.start) => {
                "text must be in quotes, as in key = \"text\""
            }
            _ => message,
        };
        format!("line {line} is not TOML: {message}")
    })?;
    FileFormat::Toml
        .parse(origin.map(ValueOrigin::stored).as_ref(), text)
        .map_err(|_| "is not TOML".to_owned())
}

/// Whether the value in which the parser failed at `position` is text without quotes. The parser's message for such a
/// value depends on its first letter: for `flask`, the parser expects `false`.
fn is_bare_text(text: &str, position: usize) -> bool {
    let (before, after) = text.split_at(position);
    let line = before.rsplit_once('\n').map_or(before, |(_, line)| line);
    let rest = after.split(['\n', '#', ',', ']', '}']).next();
    let value = line
        .rsplit_once(['=', '[', ','])
        .map(|(_, start)| start.to_owned() + rest.unwrap_or_default());
    let is_bare = |value: String| !value.contains(['"', '\'', '=', '[', '{']);
    !line.trim_start().starts_with('[') && value.is_some_and(is_bare)
}

/// Parses a JSON object into a tree whose values record their origin.
fn parse_json(text: &str, origin: &ValueOrigin) -> Result<Table, String> {
    let value = json::Value::parse(text.as_bytes()).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        format!("line {line}, column {column} is not JSON")
    })?;
    if value.has_duplicates() {
        return Err("has an object with two members of the same name: keep one".to_owned());
    }
    match from_json(value, origin).kind {
        ValueKind::Table(table) => Ok(table),
        _ => Err("is not an object".to_owned()),
    }
}

/// The layer of one environment variable, whose name was split into `path`.
fn variable(name: &str, path: &[String], text: &str) -> Table {
    let origin = ValueOrigin::Variable(name.to_owned());
    let (key, value) = match path {
        [section, rest @ ..] if !rest.is_empty() => {
            (section.clone(), origin.value(variable(name, rest, text)))
        }
        path => (path.concat(), origin.value(text)),
    };
    Table::from([(key, value)])
}

/// Merges the layer `above` into `below`; the values of `above` take precedence.
pub(crate) fn lay(above: Table, below: &mut Table, path: &str, problems: &mut Problems) {
    for (key, value) in above {
        let path = join(path, &key);
        match (below.get_mut(&key), value) {
            (
                Some(Value {
                    kind: ValueKind::Table(below),
                    ..
                }),
                Value {
                    kind: ValueKind::Table(above),
                    ..
                },
            ) => {
                lay(above, below, &path, problems);
            }
            (hidden, value) => {
                if let (Some(hidden), ValueKind::Table(_)) = (hidden, &value.kind) {
                    refuse_hidden(hidden, &value, path, problems);
                }
                below.insert(key, value);
            }
        }
    }
}

/// Reports a key that is a value in one layer and a section in a later one, because one of the two must be a mistake. A
/// value that the service itself provides, as in a preset, is not reported.
fn refuse_hidden(value: &Value, section: &Value, path: String, problems: &mut Problems) {
    if let (Some(one), Some(other)) = (ValueOrigin::of(value), ValueOrigin::of(section)) {
        let text = format!(
            "is {} in {one}, and a section in {other}: keep one of the two",
            type_name(value)
        );
        problems.add(path, text);
    }
}
