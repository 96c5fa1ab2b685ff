//! Tests the configurations in `docs/recipes` and `docs/providers`. A page shows a configuration in up to three forms,
//! which must all load and be equivalent: with the values in the file, as environment variables only, and with the
//! secrets in files. The rules are in CONTRIBUTING.md, "How to write docs".

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rollout_token::clock::Clock;
use rollout_token::config::Sources;
use rollout_token::session::backends::Context;
use rollout_token::session::registry::Registry;
use rollout_token::settings;
use rollout_token::telemetry::metrics::Metrics;
use toml::{Table, Value};

/// The folder in which the pages place their secret files.
const SECRETS: &str = "/run/secrets";

/// A code block that contains a whole configuration.
#[derive(Debug)]
enum Form {
    File(String),
    Variables(BTreeMap<String, String>),
}

impl Form {
    fn names_files(&self) -> bool {
        match self {
            Self::File(toml) => toml.contains("_file"),
            Self::Variables(variables) => variables.keys().any(|name| name.ends_with("_FILE")),
        }
    }
}

fn whole_configurations(page: &str) -> Vec<Form> {
    let mut found = Vec::new();
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        let indent = line.len() - line.trim_start().len();
        let Some(language) = line.trim_start().strip_prefix("```") else {
            continue;
        };
        let block: Vec<&str> = lines
            .by_ref()
            .take_while(|line| line.trim() != "```")
            .map(|line| line.get(indent..).unwrap_or_default())
            .collect();
        let text = block.join("\n");
        match language {
            "toml" if text.contains("[session]") => found.push(Form::File(text)),
            // Skip a block in which a value is the output of a command: only `make docs-test` runs it.
            "sh" if text.contains("ROLLOUT__SESSION__EXTRACTORS=") && !text.contains("$(") => {
                found.push(Form::Variables(block.into_iter().map(variable).collect()));
            }
            _ => {}
        }
    }
    found
}

/// Parses a line that a reader can use in a shell and, if its value has no quotes, in a file for
/// `docker run --env-file`: Docker would make quotes part of the value. Asserts that a value is quoted if and only if a
/// shell requires it.
fn variable(line: &str) -> (String, String) {
    let line = line.strip_prefix("export ").unwrap_or(line);
    let (name, value) = line.split_once('=').expect("NAME=value");
    let unquoted = value
        .strip_prefix('\'')
        .and_then(|value| value.strip_suffix('\''));
    let needs_quotes = value.contains([' ', '(', ')', '&', ';', '|', '<', '>', '$', '"', '*']);
    assert_eq!(
        unquoted.is_some(),
        needs_quotes,
        "a value must be quoted if and only if a shell needs the quotes: {line}"
    );
    (name.to_owned(), unquoted.unwrap_or(value).to_owned())
}

/// Writes the files that `files` names. Their content is the value that `values` has for the same key without `_file`.
fn write_files(files: &Table, values: &Table, folder: &Path) {
    for (key, value) in files {
        match (value, key.strip_suffix("_file")) {
            (Value::String(path), Some(key)) => write_file(path, &values[key], folder),
            (Value::Table(paths), Some(key)) => {
                for (member, path) in paths {
                    write_file(path.as_str().expect("a path"), &values[key][member], folder);
                }
            }
            (Value::Table(files), None) => {
                write_files(files, values[key].as_table().expect("a table"), folder);
            }
            _ => {}
        }
    }
}

fn write_file(path: &str, value: &Value, folder: &Path) {
    let name = path.strip_prefix(SECRETS).expect(SECRETS);
    let content = match value {
        Value::String(text) => format!("{text}\n"),
        Value::Array(items) => items
            .iter()
            .map(|item| format!("{}\n", item.as_str().expect("text")))
            .collect(),
        other => panic!("{other} in a file"),
    };
    fs::write(folder.join(name.trim_start_matches('/')), content).expect("a writable file");
}

/// The effective configuration, as `check-config --print` shows it.
fn understood(form: &Form, values: Option<&Table>) -> Result<serde_json::Value, String> {
    let folder = tempfile::tempdir().expect("a folder");
    let mut sources = Sources {
        environment: BTreeMap::from([
            ("ROLLOUT_CLIENT_ID".to_owned(), "client-1".to_owned()),
            (
                "ROLLOUT_CLIENT_SECRET".to_owned(),
                "q7V3nX9wLr2Kd8Tz5Yb1Mc6Hs4Jf0Pg-q7V3nX9wLr2Kd8Tz5Yb1Mc6Hs4Jf0Pg9".to_owned(),
            ),
        ]),
        ..Sources::default()
    };
    match form {
        Form::File(toml) => {
            if let Some(values) = values {
                write_files(&toml.parse().expect("TOML"), values, folder.path());
            }
            let here = folder.path().to_str().expect("UTF-8");
            let file = folder.path().join("rollout-token.toml");
            fs::write(&file, toml.replace(SECRETS, here)).expect("a writable file");
            sources.files.push(file);
        }
        Form::Variables(variables) => sources.environment.extend(variables.clone()),
    }
    let context = Context::new(Clock::system(), Arc::new(Metrics::new()));
    settings::load(&sources, &Registry::builtin(), &context)
        .map(|settings| settings.effective().clone())
        .map_err(|problems| problems.to_string())
}

fn pages(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut pages: Vec<_> = fs::read_dir(&folder)
        .expect("a folder")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    pages.sort();
    pages
}

/// Checks that each block of environment variables on a page is equivalent to the configuration file before it and, if
/// it contains a secret, to the configuration file with `_file` keys after it. Returns the number of such blocks.
fn check_page(page: &Path) -> usize {
    let forms = whole_configurations(&fs::read_to_string(page).expect("text"));
    let mut count = 0;
    for (index, form) in forms.iter().enumerate() {
        let Form::Variables(_) = form else { continue };
        count += 1;
        let place = format!("{}, variables {count}", page.display());
        let Some(Form::File(first)) = index.checked_sub(1).map(|index| &forms[index]) else {
            panic!("{place}: a file with the same configuration must precede the variables");
        };
        assert!(
            !form.names_files() && !forms[index - 1].names_files(),
            "{place}: the variables and the file before them must contain the values themselves"
        );
        let load = |form, values| {
            understood(form, values)
                .unwrap_or_else(|problems| panic!("{place}: {form:#?}\n{problems}"))
        };
        let want = load(&forms[index - 1], None);
        assert_eq!(load(form, None), want, "{place}");
        if want["extractors"].to_string().contains("[REDACTED]") {
            let behind = forms.get(index + 1).filter(|form| form.names_files());
            let behind = behind.unwrap_or_else(|| {
                panic!("{place}: a file with `_file` keys for the secrets must follow")
            });
            let values: Table = first.parse().expect("TOML");
            assert_eq!(load(behind, Some(&values)), want, "{place}, with files");
        }
    }
    count
}

#[test]
fn all_forms_of_the_configuration_on_a_page_are_equivalent() {
    for page in pages("docs/recipes") {
        assert!(
            check_page(&page) > 0,
            "{}: no configuration as variables",
            page.display()
        );
        let forms = whole_configurations(&fs::read_to_string(&page).expect("text"));
        assert!(
            matches!(&forms[..2], [Form::File(_), Form::Variables(_)]),
            "{}: the page must begin with a file that contains the values, and the same configuration as variables",
            page.display()
        );
    }
    for page in pages("docs/providers") {
        check_page(&page);
    }
}
