//! Checks the consistency of the repository: the versions in its lock file, the Docker build context, the tests that
//! `SECURITY.md` and `docs/threat-cases.md` name, the docs pages, and the public API that the examples use. No test in
//! this file runs the service.
#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

#[path = "shared/recipes.rs"]
mod recipes;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use rollout_token::session::registry::Registry;

/// For each package, the first version that fixes a vulnerability that would affect the service. `make audit` checks
/// for more vulnerabilities but needs a network, and its database lacks the first entry.
const FLOORS: [(&str, [u64; 3], &str); 5] = [
    (
        "jsonwebtoken",
        [10, 3, 0],
        "CVE-2026-25537: a claim of the wrong type counts as absent",
    ),
    (
        "rustls-webpki",
        [0, 103, 12],
        "RUSTSEC-2026-0099: wildcard certificates bypass name constraints",
    ),
    (
        "aws-lc-sys",
        [0, 39, 0],
        "RUSTSEC-2026-0044: a wildcard common name bypasses name constraints",
    ),
    (
        "bytes",
        [1, 11, 1],
        "RUSTSEC-2026-0007: overflow in BytesMut::reserve",
    ),
    (
        "time",
        [0, 3, 47],
        "RUSTSEC-2026-0009: parsing a date exhausts the stack",
    ),
];

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The numbers of a version. A suffix after `-` or `+` is ignored.
fn version(text: &str) -> Vec<u64> {
    let numbers = text.split(['-', '+']).next().unwrap_or_default();
    numbers
        .split('.')
        .map(|number| number.parse().expect("a number"))
        .collect()
}

#[test]
fn every_dependency_includes_the_fixes_of_known_vulnerabilities() {
    let lock: toml::Table = read("Cargo.lock").parse().expect("TOML");
    let packages = lock["package"].as_array().expect("packages");
    for (name, floor, flaw) in FLOORS {
        let mut versions = packages
            .iter()
            .filter(|package| package["name"].as_str() == Some(name))
            .map(|package| version(package["version"].as_str().expect("a version")))
            .peekable();
        assert!(
            versions.peek().is_some(),
            "{name} is no longer a dependency: remove its row in FLOORS"
        );
        for version in versions {
            assert!(version >= floor.to_vec(), "{name} {version:?} has {flaw}");
        }
    }
}

/// Collects the names of all functions in a folder, including the tests, and the names of the models. A model's name is
/// a string in a table of `tests/model`.
fn tests_in(folder: &Path, names: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            tests_in(&path, names);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).expect("text");
            let functions = text
                .split("fn ")
                .skip(1)
                .filter_map(|rest| rest.split('(').next());
            let models = text.split('(').skip(1).filter_map(|rest| {
                let (name, _) = rest.trim_start().strip_prefix('"')?.split_once("\",")?;
                Some(name)
            });
            names.extend(functions.chain(models).map(str::to_owned));
        }
    }
}

/// Collects the files that the sources in `folder` include at compile time.
fn included_by(folder: &Path, files: &mut BTreeSet<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder of the sources") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            included_by(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).expect("a source");
            for (_, rest) in text
                .match_indices("include_str!(\"")
                .map(|(at, begin)| text.split_at(at + begin.len()))
            {
                let name = rest.split('"').next().expect("a name");
                let file = folder.join(name).canonicalize();
                files.insert(file.unwrap_or_else(|error| panic!("{name}: {error}")));
            }
        }
    }
}

#[test]
fn every_file_included_by_the_sources_is_in_the_docker_build_context() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .canonicalize()
        .expect("the root");
    let mut files = BTreeSet::new();
    included_by(&root.join("src"), &mut files);
    let ignored = read(".dockerignore");
    let kept: Vec<_> = ignored
        .lines()
        .filter_map(|line| line.strip_prefix('!'))
        .map(|name| root.join(name))
        .collect();
    files.retain(|file| !kept.iter().any(|kept| file.starts_with(kept)));
    assert!(files.is_empty(), "add to .dockerignore: {files:?}");
}

#[test]
fn every_promise_in_security_md_names_existing_tests() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut tests = BTreeSet::new();
    for folder in ["src", "tests"] {
        tests_in(&root.join(folder), &mut tests);
    }
    let page = read("SECURITY.md");
    let (_, promises) = page.split_once("## What we promise").expect("promises");
    let (promises, _) = promises
        .split_once("\n## ")
        .expect("a section after the promises");
    let promises: Vec<&str> = promises
        .lines()
        .filter(|line| line.starts_with("- "))
        .collect();
    assert!(
        promises.len() > 15,
        "SECURITY.md makes fewer promises than expected"
    );
    for promise in promises {
        // Code in backticks with more than two underscores is a test's name; other code has fewer.
        let named = promise
            .split('`')
            .skip(1)
            .step_by(2)
            .filter(|name| name.matches('_').count() > 2);
        let named: Vec<&str> = named.collect();
        assert!(!named.is_empty(), "the promise names no test: {promise}");
        for name in named {
            assert!(tests.contains(name), "there is no test {name}: {promise}");
        }
    }
}

/// The names of the attacks: all test functions below `tests/faults`.
fn attacks() -> BTreeSet<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/faults");
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let text = fs::read_to_string(entry.expect("an entry").path()).expect("text");
        let tests = text
            .split("#[tokio::test")
            .skip(1)
            .filter_map(|rest| rest.split_once("fn "));
        names.extend(
            tests
                .filter_map(|(_, rest)| rest.split('(').next())
                .map(str::to_owned),
        );
    }
    names
}

#[test]
fn every_threat_case_names_a_test_and_every_attack_has_a_threat_case() {
    let page = read("docs/threat-cases.md");
    let rows = page
        .lines()
        .filter(|line| line.starts_with("| "))
        .map(|line| line.trim_matches(['|', ' ']));
    let rows =
        rows.filter(|row| *row != "attack | required result | test" && !row.starts_with("---"));
    let named: BTreeSet<String> = rows
        .map(|row| {
            let test = row.rsplit(" | ").next().unwrap_or_default();
            assert!(
                test.starts_with('`') && test.ends_with('`'),
                "the row names no test: {row}"
            );
            test.trim_matches('`').to_owned()
        })
        .collect();
    let attacks = attacks();
    assert!(attacks.len() > 200, "the attacks were not found");
    let missing: Vec<_> = attacks.difference(&named).collect();
    assert!(
        missing.is_empty(),
        "attacks without a row in docs/threat-cases.md: {missing:?}"
    );
    // A row may also name a test outside `tests/faults`.
    let mut tests = BTreeSet::new();
    for folder in ["src", "tests"] {
        tests_in(
            &Path::new(env!("CARGO_MANIFEST_DIR")).join(folder),
            &mut tests,
        );
    }
    let unknown: Vec<_> = named.difference(&tests).collect();
    assert!(
        unknown.is_empty(),
        "docs/threat-cases.md names tests that do not exist: {unknown:?}"
    );
}

/// Users start at `docs/choosing.md`, so it must link to every page about a kind or product, and name every kind and
/// preset.
#[test]
fn choosing_md_links_every_recipe_and_provider_and_names_every_kind_and_preset() {
    let choosing = read("docs/choosing.md");
    let mut missing = Vec::new();
    for folder in ["recipes", "providers"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("docs")
            .join(folder);
        for page in fs::read_dir(path).expect("a folder") {
            let name = page.expect("a page").file_name();
            let link = format!("{folder}/{}", name.to_str().expect("text"));
            if !choosing.contains(&format!("]({link})")) {
                missing.push(link);
            }
        }
    }
    let registry = Registry::builtin();
    for name in registry.names() {
        let (_, kind) = registry.entry(name).expect("a kind");
        let link = format!("| [`{name}`](configuration.md#{name}) |");
        let Some(row) = choosing.lines().find(|line| line.starts_with(&link)) else {
            missing.push(format!("the kind {name}"));
            continue;
        };
        let presets = kind.presets.iter().map(|(preset, _)| preset);
        let unlinked = presets.filter(|preset| !row.contains(&format!("[`{preset}`](")));
        missing.extend(unlinked.map(|preset| format!("the preset {preset} of the kind {name}")));
    }
    assert!(missing.is_empty(), "not linked: {missing:?}");
}

/// `detect` and other commands print the docs page to read next.
#[test]
fn every_docs_page_named_in_the_sources_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut named = BTreeSet::new();
    pages_in(&root.join("src"), &mut named);
    assert!(named.len() > 20, "the sources were not found: {named:?}");
    let missing: Vec<_> = named
        .iter()
        .filter(|page| !root.join(page).is_file())
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
}

fn pages_in(folder: &Path, pages: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            pages_in(&path, pages);
        } else if let Ok(text) = fs::read_to_string(&path) {
            let starts = text.match_indices("docs/").map(|(start, _)| &text[start..]);
            let is_path = |c: char| c.is_ascii_alphanumeric() || "/-_.".contains(c);
            let names = starts.filter_map(|rest| rest.split(|c| !is_path(c)).next());
            pages.extend(
                names
                    .filter(|name| Path::new(name).extension().is_some_and(|end| end == "md"))
                    .map(str::to_owned),
            );
        }
    }
}

/// The first name in each path of this crate in `text`: `a` and `B` in `use rollout_token::{a::C, B};`.
fn names_from_crate(text: &str) -> Vec<&str> {
    let is_in_name = |c: char| c.is_alphanumeric() || c == '_';
    let mut names = Vec::new();
    for rest in text.split("rollout_token::").skip(1) {
        let (mut depth, mut begins) = (0, true);
        for (at, c) in rest.char_indices() {
            if begins && is_in_name(c) {
                let name = rest[at..].split(|c| !is_in_name(c)).next();
                names.push(name.expect("split gives at least one item"));
                begins = false;
            }
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' => begins = depth == 1,
                _ => {}
            }
            if depth == 0 && !is_in_name(c) {
                break;
            }
        }
    }
    names
}

#[test]
fn names_from_crate_are_found_in_paths_and_in_groups() {
    for (text, want) in [
        ("use rollout_token::session::Kind;", &["session"][..]),
        (
            "use rollout_token::{\n    Cli, config::{List, Section}, single_header,\n};\nuse serde::{a, b};",
            &["Cli", "config", "single_header"],
        ),
        ("use rollout_token::{Cli, json};", &["Cli", "json"]),
        ("rollout_token::router(a, b)", &["router"]),
        ("use rollout_token as other;", &[]),
    ] {
        assert_eq!(names_from_crate(text), want, "{text}");
    }
}

#[test]
fn examples_and_extending_md_use_only_the_public_api() {
    let lib = read("src/lib.rs");
    let (_, modules) = lib.split_once("\npub use ").expect("the public API");
    let modules = modules.split("mod ").skip(1);
    let modules: BTreeSet<&str> = modules
        .filter_map(|rest| rest.split_once(';').map(|(name, _)| name))
        .collect();
    assert!(modules.contains("session"), "{modules:?}");

    let page = read("docs/extending.md");
    let blocks = page.split("```rust").skip(1);
    let mut sources: Vec<(String, String)> = blocks
        .map(|rest| {
            let (block, _) = rest.split_once("```").expect("the end of a code block");
            ("docs/extending.md".to_owned(), block.to_owned())
        })
        .collect();
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    for entry in fs::read_dir(examples).expect("the examples") {
        let path = entry.expect("an entry").path();
        if path.extension().is_some_and(|extension| extension == "rs") {
            let source = fs::read_to_string(&path).expect("a source");
            sources.push((path.display().to_string(), source));
        }
    }
    for (place, source) in sources {
        let names = names_from_crate(&source);
        assert!(!names.is_empty(), "{place} uses nothing from the crate");
        for name in names {
            assert!(
                !modules.contains(name),
                "{place}: the module rollout_token::{name} is not part of the API: export the item in src/lib.rs"
            );
        }
    }
}
