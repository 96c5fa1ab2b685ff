//! Checks the layers of `src/` from docs/architecture.md: a file imports only from its own layer or from lower layers,
//! and an extractor does not import another extractor. Test modules may import anything.

#![expect(clippy::expect_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};

/// The top-level modules, from the top layer down. Modules that are not listed belong to the lowest layer.
const ROOMS: [&str; 7] = [
    "cli",
    "http",
    "settings",
    "token",
    "session",
    "telemetry",
    "config",
];

/// The modules inside `session`, from the top layer down. Modules in the same row may import each other.
const SESSION_ROOMS: [&[&str]; 6] = [
    &[
        "builder", "chain", "contract", "detect", "explain", "registry",
    ],
    &["extractors"],
    &["kind"],
    &["sections", "credential_source"],
    &["backends"],
    &["formats"],
];

/// One import: its position, the module that contains it, and the path that it names.
struct Import {
    place: String,
    from: Vec<String>,
    path: Vec<String>,
}

fn rust_files(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            rust_files(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs")
            && path
                .file_stem()
                .is_some_and(|stem| stem != "tests" && stem != "testing")
        {
            files.push(path);
        }
    }
}

/// The path after `crate::` on this line, if it contains one.
fn crate_path(line: &str) -> Option<Vec<String>> {
    let (_, rest) = line.split_once("crate::")?;
    let is_path = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let path = rest
        .split(|c| !is_path(c))
        .next()
        .expect("split gives at least one item");
    Some(
        path.split("::")
            .filter(|name| !name.is_empty())
            .map(str::to_owned)
            .collect(),
    )
}

fn imports() -> Vec<Import> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    rust_files(&src, &mut files);
    let mut imports = Vec::new();
    for file in files {
        let relative = file
            .strip_prefix(&src)
            .expect("a file below src")
            .with_extension("");
        let from: Vec<String> = relative
            .iter()
            .map(|name| name.to_string_lossy().into_owned())
            .collect();
        let text = fs::read_to_string(&file).expect("a source file");
        let code = text
            .split("#[cfg(test)]\nmod tests {")
            .next()
            .expect("split gives at least one item");
        let lines = code
            .lines()
            .zip(1..)
            .filter(|(line, _)| !line.trim_start().starts_with("//"));
        imports.extend(lines.filter_map(|(line, number)| {
            let place = format!("src/{}.rs:{number}: {}", relative.display(), line.trim());
            crate_path(line).map(|path| Import {
                place,
                from: from.clone(),
                path,
            })
        }));
    }
    assert!(imports.len() > 200, "the sources were not found");
    imports
}

fn layer(room: Option<&String>) -> usize {
    ROOMS
        .iter()
        .position(|name| room.is_some_and(|room| room == name))
        .unwrap_or(ROOMS.len())
}

fn session_layer(room: Option<&String>) -> usize {
    let position = SESSION_ROOMS
        .iter()
        .position(|row| room.is_some_and(|room| row.contains(&room.as_str())));
    position.unwrap_or(SESSION_ROOMS.len())
}

fn offending(points_up: impl Fn(&Import) -> bool) -> String {
    imports()
        .into_iter()
        .filter(points_up)
        .map(|import| import.place + "\n")
        .collect()
}

#[test]
fn no_file_imports_from_a_higher_layer() {
    let up = offending(|import| {
        let entry_point =
            import.from.len() == 1 && ["lib", "main"].contains(&import.from[0].as_str());
        !entry_point && layer(import.path.first()) < layer(import.from.first())
    });
    assert!(
        up.is_empty(),
        "imports from a higher layer (see docs/architecture.md):\n{up}"
    );
}

#[test]
fn no_session_module_imports_from_a_higher_session_layer() {
    let up = offending(|import| {
        let inside = import.from[0] == "session"
            && import.path.first().is_some_and(|room| room == "session");
        inside
            && import.from.get(1).is_some_and(|room| room != "mod")
            && session_layer(import.path.get(1)) < session_layer(import.from.get(1))
    });
    assert!(
        up.is_empty(),
        "imports from a higher layer (see docs/architecture.md):\n{up}"
    );
}

#[test]
fn no_extractor_imports_another_extractor() {
    let sideways = offending(|import| {
        let room = ["session", "extractors"];
        let is_inside = |path: &[String]| {
            path.len() > 2 && path.iter().zip(room).all(|(name, room)| name == room)
        };
        is_inside(&import.from) && is_inside(&import.path) && import.from[2] != import.path[2]
    });
    assert!(
        sideways.is_empty(),
        "extractors that import another extractor:\n{sideways}"
    );
}
