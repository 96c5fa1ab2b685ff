//! The layers of a configuration (defaults of `dev`, files, variables), and how they are merged: a later layer wins.
//! `reader.rs` makes typed values of the result.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use config::{FileFormat, Format, Value, ValueKind};

use super::fingerprint::FileFingerprint;
use super::problems::Problems;
use super::reader::{Table, join, type_name};

/// The three names of Rollout's own docs, and the keys they stand for.
const ROLLOUT_NAMES: [(&str, &str); 3] = [
    ("ROLLOUT_CLIENT_ID", "client_id"),
    ("ROLLOUT_CLIENT_SECRET", "client_secret"),
    ("ROLLOUT_CLIENT_SECRET_FILE", "client_secret_file"),
];

/// How all other variables begin. Kubernetes makes some of its own for a service called `rollout`, with one `_`.
pub(crate) const PREFIX: &str = "ROLLOUT__";

/// Whether a variable that other programs read as well is of interest: those that OpenTelemetry defines, proxies, and the
/// system's certificates.
fn is_common(name: &str) -> bool {
    name.starts_with("OTEL_")
        || matches!(name, "SSL_CERT_FILE" | "GOOGLE_CLOUD_PROJECT")
        || name.to_ascii_lowercase().ends_with("_proxy")
}

/// Where the configuration comes from. The environment is an argument, so that tests need no process.
#[derive(Clone, Default)]
pub struct Sources {
    /// TOML below everything else: what `dev` changes about the defaults.
    pub base: Option<String>,
    /// TOML files; the later wins.
    pub files: Vec<PathBuf>,
    /// Variables: `ROLLOUT__SECTION__KEY`, the three names of Rollout's docs, and those that other
    /// programs read as well, such as OpenTelemetry's `OTEL_…`.
    pub environment: BTreeMap<String, String>,
    /// Variables of ours that are not UTF-8: they cannot be taken as they are.
    pub not_text: Vec<String>,
}

/// All layers as one, and the files among them.
pub(crate) struct Merged {
    pub(crate) tree: Table,
    pub(crate) files: Vec<FileFingerprint>,
}

impl fmt::Debug for Sources {
    /// Variables and files hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sources")
            .field("files", &self.files)
            .finish_non_exhaustive()
    }
}

impl Sources {
    /// These files and the process's environment.
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that reads the environment"
    )]
    pub fn from_process(files: Vec<PathBuf>) -> Self {
        let mut sources = Self {
            files,
            ..Self::default()
        };
        for (name, value) in std::env::vars_os() {
            // A name that is not UTF-8 is none of ours.
            let Ok(name) = name.into_string() else {
                continue;
            };
            let own = name.starts_with(PREFIX) || ROLLOUT_NAMES.iter().any(|(own, _)| name == *own);
            if !own && !is_common(&name) {
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

    /// Lays the layers over each other; `None` if one of them cannot be read.
    ///
    /// Not by `config::Config::builder()`: there a section replaces a value of another layer silently.
    pub(crate) fn merge(&self, problems: &mut Problems) -> Option<Merged> {
        for name in &self.not_text {
            problems.add(
                name,
                "is not UTF-8: put such a secret into a file, and name the file with _FILE",
            );
        }
        let base = parse(self.base.as_deref().unwrap_or_default(), None);
        let mut tree = problems.accept("base", base).unwrap_or_default();
        let read = self.files.iter().filter_map(|path| file(path, problems));
        let (layers, files): (Vec<_>, Vec<_>) = read.unzip();
        if !problems.is_empty() {
            return None;
        }
        let mut above = Table::new();
        for layer in layers.into_iter().chain(self.variables()) {
            lay(layer, &mut above, "", problems);
        }
        // `client_secret` in the base is the throwaway one of `dev`. It gives way to a secret of the operator's.
        if above.contains_key("client_secret_file") {
            tree.remove("client_secret");
        }
        lay(above, &mut tree, "", problems);
        Some(Merged { tree, files })
    }

    /// A layer for each variable; Rollout's own names are the last.
    fn variables(&self) -> impl Iterator<Item = Table> {
        let ours = self.environment.iter().filter_map(|(name, text)| {
            let path = name.strip_prefix(PREFIX)?.to_lowercase();
            Some(variable(name, &path, text))
        });
        let rollouts = ROLLOUT_NAMES.into_iter().filter_map(|(name, key)| {
            let (name, text) = self.environment.get_key_value(name)?;
            Some(variable(name, key, text))
        });
        ours.chain(rollouts)
    }
}

/// The layer of a file; `None` after its problem was added.
fn file(path: &Path, problems: &mut Problems) -> Option<(Table, FileFingerprint)> {
    let name = path.display().to_string();
    let layer = FileFingerprint::read(path)
        .map_err(|error| format!("cannot be read: {error}"))
        .and_then(|(bytes, watched)| {
            let text = str::from_utf8(&bytes).map_err(|_| "is not UTF-8 text".to_owned())?;
            Ok((parse(text, Some(&name))?, watched))
        });
    problems.accept(name, layer)
}

/// TOML as a tree whose values know where they are from.
pub(crate) fn parse(text: &str, origin: Option<&String>) -> Result<Table, String> {
    // The parser's own report prints the offending line, which may hold a secret.
    toml::from_str::<toml::Table>(text).map_err(|error| {
        let line = error
            .span()
            .map_or(0, |span| text[..span.start].matches('\n').count() + 1);
        let message = error.message().lines().next().unwrap_or_default();
        format!("line {line} is not TOML: {message}")
    })?;
    FileFormat::Toml
        .parse(origin, text)
        .map_err(|_| "is not TOML".to_owned())
}

/// The layer of one variable, whose path is `server__listen` for `listen` in `[server]`.
fn variable(name: &String, path: &str, text: &str) -> Table {
    let (key, value) = match path.split_once("__") {
        Some((section, rest)) => (section, Value::new(Some(name), variable(name, rest, text))),
        None => (path, Value::new(Some(name), text)),
    };
    Table::from([(key.to_owned(), value)])
}

/// Lays one layer over another.
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

/// A key that is given as a value and as a section is wrong in one of the two places, unless the value is one of
/// ours, as in a preset.
fn refuse_hidden(value: &Value, section: &Value, path: String, problems: &mut Problems) {
    if let (Some(one), Some(other)) = (value.origin(), section.origin()) {
        let text = format!(
            "is {} in {one}, and a section in {other}: keep one of the two",
            type_name(value)
        );
        problems.add(path, text);
    }
}
