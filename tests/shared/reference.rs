//! The generated parts of `docs/`: keys, commands, errors, metrics. `make generate` writes them, and
//! `tests/api/reference.rs` checks that they are up to date.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::CommandFactory;
use rollout_token::Cli;
use rollout_token::http::error::Error;
use rollout_token::session::reason::Reason;
use rollout_token::session::registry::Registry;
use rollout_token::telemetry::metrics::Metrics;

const DEFAULTS: &str = include_str!("../../config/default.toml");

/// A page in `docs/`: the text found in the file, and the text with newly generated parts.
pub struct Page {
    pub path: PathBuf,
    pub found: String,
    pub generated: String,
}

/// All pages that have a generated part.
pub fn pages() -> Vec<Page> {
    [
        (
            "configuration.md",
            vec![("settings", settings()), ("kinds", kinds())],
        ),
        ("commands.md", vec![("commands", commands())]),
        (
            "errors.md",
            vec![("errors", errors()), ("reasons", reasons())],
        ),
        ("operations.md", vec![("metrics", metrics())]),
    ]
    .into_iter()
    .map(|(name, parts)| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("docs")
            .join(name);
        let found = std::fs::read_to_string(&path).unwrap();
        let generated = parts
            .iter()
            .fold(found.clone(), |page, (part, text)| renew(&page, part, text));
        Page {
            path,
            found,
            generated,
        }
    })
    .collect()
}

/// Replaces the text between the markers of this part of the page.
fn renew(page: &str, part: &str, text: &str) -> String {
    let begin = format!("<!-- {part}: written by `make generate` -->\n");
    let end = format!("<!-- end of {part} -->");
    let (before, rest) = page
        .split_once(&begin)
        .unwrap_or_else(|| panic!("no {begin}"));
    let (_, after) = rest.split_once(&end).unwrap_or_else(|| panic!("no {end}"));
    format!("{before}{begin}\n{}\n\n{end}{after}", text.trim())
}

/// Escapes text for a table cell.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    letters
        .next()
        .map(|first| first.to_uppercase().chain(letters).collect())
        .unwrap_or_default()
}

/// A key as `config/default.toml` presents it: `key = value  # meaning`.
struct Key {
    name: String,
    value: String,
    meaning: String,
}

impl Key {
    /// The keys in the lines of a section. A line that contains only a comment continues the meaning of the key
    /// above it.
    fn all(lines: &str) -> Vec<Self> {
        let mut keys: Vec<Self> = Vec::new();
        for line in lines.lines().filter(|line| !line.trim().is_empty()) {
            if let Some(more) = line.trim().strip_prefix('#') {
                let key = keys.last_mut().expect("the first line is a key");
                let more = more.trim();
                let stop = if more.starts_with(char::is_uppercase) {
                    "."
                } else {
                    ""
                };
                key.meaning = format!("{}{stop} {more}", key.meaning);
                continue;
            }
            let (name, rest) = line
                .split_once(" = ")
                .unwrap_or_else(|| panic!("not a key: {line}"));
            let (value, meaning) = rest.split_once(" # ").unwrap_or((rest, ""));
            keys.push(Self {
                name: name.to_owned(),
                value: value.trim().to_owned(),
                meaning: meaning.trim().to_owned(),
            });
        }
        keys
    }

    fn table(lines: &str) -> String {
        let mut table = "| key | default | meaning |\n| --- | --- | --- |\n".to_owned();
        for Self {
            name,
            value,
            meaning,
        } in Self::all(lines)
        {
            let value = format!("`{}`", cell(&value));
            let row = match cell(&meaning).strip_prefix("example: ") {
                Some(meaning) if value == "`[]`" => format!("{value} | {meaning}"),
                Some(meaning) => format!("none | {meaning}. Example: {value}"),
                None => format!("{value} | {}", cell(&meaning)),
            };
            writeln!(table, "| `{name}` | {row} |").unwrap();
        }
        table
    }
}

fn reasons() -> String {
    let mut table = "| reason | meaning |\n| --- | --- |\n".to_owned();
    for (reason, meaning) in Reason::ALL {
        writeln!(table, "| `{reason}` | {meaning} |").unwrap();
    }
    table
}

fn settings() -> String {
    let (settings, _) = DEFAULTS.split_once("\n# ---- Extractors").unwrap();
    let mut text = String::new();
    for section in settings.split("\n[").skip(1) {
        let (name, lines) = section.split_once("]\n").unwrap();
        // Skip the comments at the end, which describe the next section: the docs page has its own hand-written text
        // for them.
        let lines = lines.split("\n\n").next().unwrap();
        // Keys without a default are commented out in the file; the docs page lists them like the other keys.
        let lines: String = lines
            .lines()
            .map(|line| match line.strip_prefix("# ") {
                Some(key) if key.contains(" # example: ") => format!("{key}\n"),
                _ => format!("{line}\n"),
            })
            .collect();
        let lines = lines.as_str();
        writeln!(text, "### `[{name}]`\n").unwrap();
        if name == "token.claims" {
            let (before, _) = settings.split_once("\n[token.claims]").unwrap();
            let about: Vec<&str> = before.rsplit("\n\n").next().unwrap().lines().collect();
            let about = about
                .iter()
                .map(|line| line.trim_start_matches("# "))
                .collect::<Vec<_>>()
                .join(" ");
            let example = lines.trim_start_matches("# ").trim();
            writeln!(
                text,
                "{about} There are none by default. Example: `{example}`.\n"
            )
            .unwrap();
        } else {
            writeln!(text, "{}", Key::table(lines)).unwrap();
        }
    }
    text
}

fn kinds() -> String {
    let (_, kinds) = DEFAULTS.split_once("\n# ---- Extractors").unwrap();
    let registry = Registry::builtin();
    let mut text = String::new();
    for block in kinds.split("\n# [extractors.").skip(1) {
        let (head, lines) = block
            .split("\n\n")
            .next()
            .unwrap()
            .split_once('\n')
            .unwrap();
        let (kind, what) = head.split_once(']').unwrap();
        let what = what.trim().trim_start_matches("# ");
        let lines: String = lines
            .lines()
            .map(|line| format!("{}\n", line.trim_start_matches("# ")))
            .collect();
        let (_, entry) = registry.entry(kind).unwrap();
        writeln!(
            text,
            "### `{kind}`\n\n{}.\n\n{}",
            sentence(what),
            Key::table(&lines)
        )
        .unwrap();
        if !lines.contains("\nsubject = ") {
            writeln!(
                text,
                "`subject` defaults to `\"{}\"`.{}\n",
                entry.subject,
                if entry
                    .presets
                    .iter()
                    .any(|(_, keys)| keys.contains("subject = "))
                {
                    " A preset can change this default."
                } else {
                    ""
                }
            )
            .unwrap();
        }
        if !entry.presets.is_empty() {
            writeln!(text, "{}", presets(entry.presets)).unwrap();
        }
    }
    text
}

/// The keys that each preset sets, and its other effects. Keys that only presets use are not listed as keys, and
/// queries are not shown, because they are long.
fn presets(presets: &[(&str, &str)]) -> String {
    let internal = [
        "provider_keys",
        "audience_optional",
        "require_one_of",
        "recommend",
        "queries",
        "subject_missing",
        "path",
    ];
    let mut table =
        "| preset | keys that it sets | other effects |\n| --- | --- | --- |\n".to_owned();
    for (name, keys) in presets {
        let keys: toml::Table = toml::from_str(keys).unwrap();
        let set: Vec<String> = keys
            .iter()
            .filter(|(key, _)| !internal.contains(&key.as_str()))
            .map(|(key, value)| format!("`{key} = {}`", cell(&value.to_string())))
            .collect();
        let text = |key: &str| keys.get(key).map(|value| value.as_str().unwrap());
        let mut effects = Vec::new();
        if let Some(url) = text("provider_keys") {
            effects.push(format!("fetches keys from `{url}`"));
        }
        if let Some(path) = text("path") {
            effects.push(format!("appends `{path}` to a `url` without a path"));
        }
        if let Some(key) = text("recommend") {
            effects.push(format!("logs a warning if `{key}` is not set"));
        }
        if let Some(needed) = keys.get("require_one_of") {
            let needed: Vec<String> = needed
                .as_array()
                .unwrap()
                .iter()
                .map(|key| format!("`{}`", key.as_str().unwrap()))
                .collect();
            effects.push(format!("requires {}", needed.join(" or ")));
        }
        if let Some(queries) = keys.get("queries") {
            let databases: Vec<&str> = [
                ("postgres", "PostgreSQL"),
                ("mysql", "MySQL"),
                ("sqlite", "SQLite"),
            ]
            .into_iter()
            .filter(|(key, _)| queries.get(key).is_some())
            .map(|(_, database)| database)
            .collect();
            effects.push(format!("has queries for {}", databases.join(", ")));
        }
        writeln!(
            table,
            "| `{name}` | {} | {} |",
            set.join(", "),
            effects.join("; ")
        )
        .unwrap();
    }
    table
}

fn commands() -> String {
    let mut root = Cli::command();
    root.build();
    let mut text = format!("```text\n{}```\n", help(&root));
    for command in root
        .get_subcommands()
        .filter(|command| command.get_name() != "help")
    {
        let shown = help(command);
        writeln!(text, "\n## `{}`\n\n```text\n{shown}```", command.get_name()).unwrap();
    }
    text
}

fn help(command: &clap::Command) -> String {
    // Use a fixed width instead of the width of the current terminal.
    let lines = command.clone().term_width(100).render_long_help();
    let lines = lines.to_string();
    lines
        .lines()
        .map(|line| format!("{}\n", line.trim_end()))
        .collect()
}

fn errors() -> String {
    let mut errors = Error::every();
    errors.sort_by_key(Error::status);
    let mut table = "| status | code | title | header |\n| --- | --- | --- | --- |\n".to_owned();
    for error in errors {
        let header = error
            .header()
            .map(|name| format!("`{name}`"))
            .unwrap_or_default();
        writeln!(
            table,
            "| {} | `{}` | {} | {header} |",
            error.status().as_u16(),
            error.code(),
            error.title()
        )
        .unwrap();
    }
    table
}

fn metrics() -> String {
    let metrics = Metrics::new();
    let name: Arc<str> = Arc::from("web");
    // A metric shows its labels only if it has a sample.
    metrics.answered(Some(&name), "issued", Duration::ZERO);
    metrics.backend_call(&name, "ok", Duration::ZERO);
    metrics.jwks_refreshed(&name, "ok");
    metrics.jwks_age(&name, Duration::ZERO);
    metrics.jwks_unusable_keys(&name, 0);
    metrics.reloaded("ok");
    let rendered = metrics.render();
    let mut table = "| metric | type | labels | meaning |\n| --- | --- | --- | --- |\n".to_owned();
    for help in rendered
        .lines()
        .filter_map(|line| line.strip_prefix("# HELP "))
    {
        let (family, what) = help.split_once(' ').unwrap();
        let kind = rendered
            .lines()
            .find_map(|line| line.strip_prefix(&format!("# TYPE {family} ")))
            .unwrap();
        let sample = rendered
            .lines()
            .find(|line| line.starts_with(family))
            .unwrap();
        let series = sample.split(['{', ' ']).next().unwrap();
        let series = series
            .strip_suffix("_sum")
            .or(series.strip_suffix("_bucket"))
            .unwrap_or(series);
        let labels = sample
            .split_once('{')
            .and_then(|(_, rest)| rest.split_once('}'))
            .map(|(labels, _)| labels);
        let labels = labels
            .unwrap_or_default()
            .split(',')
            .filter_map(|label| label.split_once('='));
        let labels: Vec<String> = labels
            .filter(|(name, _)| *name != "le")
            .map(|(name, _)| format!("`{name}`"))
            .collect();
        writeln!(
            table,
            "| `{series}` | {kind} | {} | {} |",
            labels.join(", "),
            what.trim_end_matches('.')
        )
        .unwrap();
    }
    table
}
