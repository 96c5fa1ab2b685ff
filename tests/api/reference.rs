//! The parts of `docs/` that the code knows better: keys, commands, errors, metrics. They are written
//! here from the code; a page that differs is renewed by the test that finds it, which then fails.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::CommandFactory;
use reqwest::Method;
use rollout_token::Cli;
use rollout_token::http::error::Error;
use rollout_token::session::registry::Registry;
use rollout_token::telemetry::metrics::Metrics;

use crate::helpers::{BY_HEADER, Service, answer};

const DEFAULTS: &str = include_str!("../../config/default.toml");

fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs")
}

/// Holds the part of `page` between the marks of `name` to `text`.
fn renew(page: &str, name: &str, text: &str) {
    let path = docs().join(page);
    let old = std::fs::read_to_string(&path).unwrap();
    let (begin, end) = (
        format!("<!-- {name}: written by `cargo test --test api reference` -->\n"),
        format!("<!-- end of {name} -->"),
    );
    let (before, rest) = old
        .split_once(&begin)
        .unwrap_or_else(|| panic!("no {begin} in {page}"));
    let (_, after) = rest
        .split_once(&end)
        .unwrap_or_else(|| panic!("no {end} in {page}"));
    let new = format!("{before}{begin}\n{}\n\n{end}{after}", text.trim());
    if new != old {
        std::fs::write(&path, new).unwrap();
        panic!(
            "docs/{page} did not say what the code says. It is renewed: look at it, and commit it"
        );
    }
}

/// Text for a cell of a table.
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

/// A key as `config/default.toml` shows it: `key = value  # meaning`.
struct Key {
    name: String,
    value: String,
    meaning: String,
}

impl Key {
    /// The keys of a section's lines; a line that is a comment alone goes on with the one before.
    fn all(lines: &str) -> Vec<Self> {
        let mut keys: Vec<Self> = Vec::new();
        for line in lines.lines().filter(|line| !line.trim().is_empty()) {
            if let Some(more) = line.trim().strip_prefix('#') {
                let key = keys.last_mut().expect("a key comes first");
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
                Some(meaning) => format!("none | {meaning}. For example {value}"),
                None => format!("{value} | {}", cell(&meaning)),
            };
            writeln!(table, "| `{name}` | {row} |").unwrap();
        }
        table
    }
}

#[test]
fn reference_of_the_configuration() {
    let (settings, kinds) = DEFAULTS.split_once("\n# ---- Extractors").unwrap();
    let mut text = String::new();
    for section in settings.split("\n[").skip(1) {
        let (name, lines) = section.split_once("]\n").unwrap();
        // Comments before the next section belong to it, and are on the page by hand.
        let lines = lines.split("\n\n").next().unwrap();
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
            writeln!(text, "{about} None by default; for example `{example}`.\n").unwrap();
        } else {
            writeln!(text, "{}", Key::table(lines)).unwrap();
        }
    }
    renew("configuration.md", "settings", &text);

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
                "`subject` is `\"{}\"` unless the section or its preset says otherwise.\n",
                entry.subject
            )
            .unwrap();
        }
        if !entry.presets.is_empty() {
            writeln!(text, "{}", presets(entry.presets)).unwrap();
        }
    }
    renew("configuration.md", "kinds", &text);
}

/// What each preset fills in. Keys that only presets use are left out, and so are queries, which are long.
fn presets(presets: &[(&str, &str)]) -> String {
    let internal = [
        "provider_keys",
        "audience_optional",
        "require_one_of",
        "recommend",
        "queries",
        "path",
    ];
    let mut table = "| preset | fills in |\n| --- | --- |\n".to_owned();
    for (name, keys) in presets {
        let keys: toml::Table = toml::from_str(keys).unwrap();
        let shown = keys
            .iter()
            .filter(|(key, _)| !internal.contains(&key.as_str()));
        let mut shown: Vec<String> = shown
            .map(|(key, value)| format!("`{key} = {}`", cell(&value.to_string())))
            .collect();
        for (key, says) in [
            ("provider_keys", "keys from"),
            ("path", "asks"),
            ("recommend", "warns without"),
        ] {
            if let Some(value) = keys.get(key) {
                shown.push(format!("{says} `{}`", value.as_str().unwrap()));
            }
        }
        if let Some(needed) = keys.get("require_one_of") {
            let needed: Vec<String> = needed
                .as_array()
                .unwrap()
                .iter()
                .map(|key| format!("`{}`", key.as_str().unwrap()))
                .collect();
            shown.push(format!("needs {}", needed.join(" or ")));
        }
        if keys.contains_key("queries") {
            shown.push("a query for each database".to_owned());
        }
        writeln!(table, "| `{name}` | {} |", shown.join(", ")).unwrap();
    }
    table
}

#[test]
fn reference_of_the_commands() {
    let mut root = Cli::command();
    root.build();
    let mut text = format!("```text\n{}```\n", help(&mut root));
    for command in root
        .get_subcommands_mut()
        .filter(|command| command.get_name() != "help")
    {
        let shown = help(command);
        writeln!(text, "\n## `{}`\n\n```text\n{shown}```", command.get_name()).unwrap();
    }
    renew("commands.md", "commands", &text);
}

fn help(command: &mut clap::Command) -> String {
    let lines = command.render_long_help().to_string();
    lines
        .lines()
        .map(|line| format!("{}\n", line.trim_end()))
        .collect()
}

#[test]
fn reference_of_the_errors() {
    let mut errors = Error::every();
    errors.sort_by_key(|error| error.status());
    let mut table = "| status | code | title | header |\n| --- | --- | --- | --- |\n".to_owned();
    let mut codes = BTreeSet::new();
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
        codes.insert(error.code().to_owned());
    }
    renew("errors.md", "errors", &table);

    let page = std::fs::read_to_string(docs().join("errors.md")).unwrap();
    let headings = page.lines().filter(|line| line.starts_with("### "));
    let explained = headings
        .flat_map(|line| line.split('`').skip(1).step_by(2))
        .map(str::to_owned)
        .collect();
    assert_eq!(
        codes, explained,
        "every code has its heading in errors.md, and no other"
    );
}

/// Every word that can stand in the log as `reason` is explained: found in the sources, since nothing lists them.
#[test]
fn reference_of_the_reasons() {
    let mut used = BTreeSet::new();
    let mut spelled = String::new();
    for path in sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src")) {
        let text = std::fs::read_to_string(&path).unwrap();
        let code = text.split("#[cfg(test)]\nmod tests").next().unwrap();
        if path.ends_with("tests.rs")
            || path.ends_with("testing.rs")
            || path.ends_with("contract.rs")
        {
            continue;
        }
        for made in [
            "rejected(\"",
            "unavailable(\"",
            "BadRequest(\"",
            "Nobody(\"",
            "Invalid(\"",
            "Claim(\"",
        ] {
            let words = code
                .split(made)
                .skip(1)
                .filter_map(|rest| rest.split_once("\")"))
                .map(|(word, _)| word);
            used.extend(words.filter(|word| !word.is_empty()).map(str::to_owned));
        }
        spelled.push_str(code);
    }
    let page = std::fs::read_to_string(docs().join("errors.md")).unwrap();
    let (_, table) = page.split_once("\n## Reasons in the log").unwrap();
    let rows = table.lines().filter(|line| line.starts_with("| `"));
    let explained: BTreeSet<String> = rows
        .flat_map(|row| row.split('|').nth(1).unwrap().split('`').skip(1).step_by(2))
        .map(str::to_owned)
        .collect();
    let missing: Vec<_> = used.difference(&explained).collect();
    assert!(
        missing.is_empty(),
        "docs/errors.md does not explain {missing:?}"
    );
    let gone: Vec<_> = explained
        .iter()
        .filter(|word| !spelled.contains(&format!("\"{word}\"")))
        .collect();
    assert!(
        gone.is_empty(),
        "docs/errors.md explains {gone:?}, which nothing says any more"
    );
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

#[test]
fn reference_of_the_metrics() {
    let metrics = Metrics::new();
    let name: Arc<str> = Arc::from("web");
    // Families show their labels only with something in them.
    metrics.answered(Some(&name), "issued", Duration::ZERO);
    metrics.backend_call(&name, "ok", Duration::ZERO);
    metrics.jwks_refreshed(&name, "ok");
    metrics.jwks_age(&name, Duration::ZERO);
    metrics.reloaded("ok");
    let rendered = metrics.render();
    let mut table = "| metric | type | labels | what |\n| --- | --- | --- | --- |\n".to_owned();
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
    renew("operations.md", "metrics", &table);
}

#[tokio::test]
async fn reference_of_the_api() {
    let service = Service::start(BY_HEADER);
    let (status, described) = answer(
        service
            .request(Method::GET, "/openapi.json")
            .send()
            .await
            .unwrap(),
    )
    .await;
    assert_eq!(status, 200);
    let page = std::fs::read_to_string(docs().join("api.md")).unwrap();
    for path in described["paths"].as_object().unwrap().keys() {
        assert!(
            page.contains(&format!(" {path}`")),
            "docs/api.md does not name {path}"
        );
    }
    for member in described["components"]["schemas"]["TokenResponse"]["properties"]
        .as_object()
        .unwrap()
        .keys()
    {
        assert!(
            page.contains(&format!("\n| `{member}` |")),
            "docs/api.md does not explain {member}"
        );
    }
}
