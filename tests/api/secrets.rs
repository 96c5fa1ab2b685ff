//! Tests of secrets and the client id: placeholders, values damaged in transit, and missing files.

use crate::configuration::{load_variables, problems, section, warnings};
use crate::helpers::CLIENT_SECRET;

/// The example values in our docs, configuration files and manifests, for all keys whose names suggest a secret or the
/// client id.
fn example_values() -> Vec<String> {
    fn files(path: &std::path::Path, found: &mut Vec<std::path::PathBuf>) {
        if path.is_dir() {
            for entry in std::fs::read_dir(path).unwrap() {
                files(&entry.unwrap().path(), found);
            }
        } else {
            found.push(path.to_owned());
        }
    }
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths = Vec::new();
    for name in [
        "README.md",
        "SECURITY.md",
        "docker-compose.yml",
        "config",
        "deploy",
        "docs",
        "examples",
    ] {
        files(&root.join(name), &mut paths);
    }
    // Skip files that contain prose or code instead of configuration values.
    paths.retain(|path| {
        let extension = path.extension().and_then(|extension| extension.to_str());
        !path.ends_with("openapi.json")
            && !matches!(extension, Some("mjs" | "js" | "jsx" | "sh" | "rs"))
    });
    let mut values = Vec::new();
    for path in paths {
        let Ok(text) = std::fs::read_to_string(&path) else {
            continue;
        };
        for line in text.lines() {
            let Some((names, value)) = line.split_once(['=', ':']) else {
                continue;
            };
            let name = names
                .trim()
                .rsplit([' ', '{', '`', '#', '"'])
                .find(|word| !word.is_empty())
                .unwrap_or_default();
            let name = name.to_ascii_lowercase();
            let is_secret = ["secret", "password", "client_id", "keys", "_key"]
                .iter()
                .any(|word| name.contains(word));
            if is_secret {
                let value = value.split(" #").next().unwrap_or_default().trim();
                let quoted: Vec<_> = value
                    .split('"')
                    .skip(1)
                    .step_by(2)
                    .filter(|text| !text.is_empty())
                    .collect();
                if quoted.is_empty() && !value.starts_with(['$', '<']) {
                    values.extend(
                        value
                            .split_whitespace()
                            .next()
                            .map(|word| word.trim_matches('`').to_owned()),
                    );
                } else if quoted.is_empty() {
                    values.push(value.to_owned());
                } else {
                    values.extend(quoted.into_iter().map(str::to_owned));
                }
            }
        }
    }
    values
}

#[test]
fn example_value_or_placeholder_is_refused_as_the_client_secret() {
    let mut values = example_values();
    for seen in [
        "from your Rollout dashboard",
        "/run/secrets/rollout_client_secret",
    ] {
        assert!(
            values.iter().any(|value| value == seen),
            "{seen} in {values:#?}"
        );
    }
    values.extend(
        [
            "your-client-secret-from-rollout-dashboard",
            "<paste your client secret>",
            "your_rollout_client_secret_goes_here",
            "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
            "abcd1234abcd1234abcd1234abcd1234",
        ]
        .map(str::to_owned),
    );
    let mut accepted = Vec::new();
    for value in values {
        match load_variables(&[("ROLLOUT_CLIENT_SECRET", &value)]) {
            Ok(_) => accepted.push(value),
            Err(report) => assert!(report.starts_with("client_secret: "), "{value:?}: {report}"),
        }
    }
    assert_eq!(accepted, [""; 0]);
}

/// Damaged variants of the value, as Docker's `--env-file`, an editor, Windows or pasting a whole line may produce
/// them, each with the words that the report must contain.
fn damaged(name: &str, value: &str) -> Vec<(String, &'static str)> {
    [
        (format!("\"{value}\""), "double quotes"),
        (format!("'{value}'"), "single quotes"),
        (format!("{value}\r"), "carriage return (CR)"),
        (format!("{value}\n\n"), "line feed (LF)"),
        (format!("{value} "), "ends with a space"),
        (format!("\t{value}"), "begins with a tab"),
        (format!("{value}\u{7f}"), "invisible character (U+007F)"),
        (format!("\u{feff}{value}"), "byte order mark"),
        (format!("{name}={value}"), "its own name"),
        (format!("{name}=\"{value}\"\r"), "double quotes"),
    ]
    .into()
}

#[test]
fn damaged_client_id_or_secret_is_refused_with_the_cause_but_without_its_value() {
    let mut cases = Vec::new();
    for (name, key, value) in [
        ("ROLLOUT_CLIENT_ID", "client_id", "Cl13nt-7f3a"),
        ("ROLLOUT_CLIENT_SECRET", "client_secret", CLIENT_SECRET),
    ] {
        for (damaged, want) in damaged(name, value) {
            let report = load_variables(&[(name, &damaged)]).map(|_| ());
            cases.push((damaged, key, want, report.expect_err(want)));
        }
    }
    // A value in a file may be damaged in the same ways, or be UTF-16; one line break at the end is allowed.
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().to_str().unwrap();
    let from_file = |content: &[u8]| {
        std::fs::write(file.path(), content).unwrap();
        let variables = [
            ("ROLLOUT_CLIENT_SECRET", "(unset)"),
            ("ROLLOUT_CLIENT_SECRET_FILE", path),
        ];
        load_variables(&variables).map(|settings| settings.client.secret)
    };
    for (damaged, want) in damaged("ROLLOUT_CLIENT_SECRET", CLIENT_SECRET) {
        let report = from_file(damaged.as_bytes()).map(|_| ());
        cases.push((damaged, "client_secret", want, report.expect_err(want)));
    }
    let utf16 = |mark: &str| -> Vec<u8> {
        format!("{mark}{CLIENT_SECRET}\r\n")
            .encode_utf16()
            .flat_map(u16::to_le_bytes)
            .collect()
    };
    for (bytes, want) in [(utf16("\u{feff}"), "UTF-16"), (utf16(""), "NUL bytes")] {
        let report = from_file(&bytes).map(|_| ()).expect_err(want);
        cases.push((want.to_owned(), "client_secret", want, report));
    }
    for (damaged, key, want, report) in cases {
        assert!(
            report.starts_with(&format!("{key}: ")),
            "{damaged:?}: {report}"
        );
        assert!(report.contains(want), "{damaged:?}: {report}");
        for value in ["7f3a", &CLIENT_SECRET[..13]] {
            assert!(!report.contains(value), "{damaged:?}: {report}");
        }
    }
    for intact in [
        format!("{CLIENT_SECRET}\n"),
        format!("{CLIENT_SECRET}\r\n"),
        CLIENT_SECRET.to_owned(),
    ] {
        assert_eq!(
            from_file(intact.as_bytes()).unwrap().expose(),
            CLIENT_SECRET.as_bytes()
        );
    }
}

#[test]
fn placeholder_as_the_client_id_is_refused() {
    for id in [
        "your-client-id",
        "<client id>",
        "from your Rollout dashboard",
        "${ROLLOUT_CLIENT_ID}",
        "…",
        "changeme",
    ] {
        let report = load_variables(&[("ROLLOUT_CLIENT_ID", id)])
            .map(|_| ())
            .expect_err(id);
        assert!(report.starts_with("client_id: "), "{id}: {report}");
    }
    for id in [
        "test-client",
        "rollout-token",
        "7f3a9c52-91d0-4b7e-8a55-0c1d2e3f4a5b",
        "client_01HXYZ",
    ] {
        load_variables(&[("ROLLOUT_CLIENT_ID", id)]).expect(id);
    }
}

/// The app may read the same damaged value, so the service still starts.
#[test]
fn damaged_session_secret_is_a_warning() {
    const VALUE: &str = "mX3v9QwL0aTz7RkBmX3v9QwL0aTz7RkC";
    let quoted = |text: &str| toml::Value::from(text).to_string();
    for (name, key, keys) in [
        (
            "SECRET_KEY",
            "secret_key",
            "kind = \"flask\"\nsecret_key = VALUE",
        ),
        (
            "AUTH_SECRET",
            "secrets",
            "kind = \"authjs\"\nsubject = \"{id}\"\nsecrets = [VALUE]",
        ),
        (
            "PASSWORD",
            "password",
            "kind = \"iron_session\"\ncookie = \"c\"\npassword = VALUE",
        ),
        (
            "ROLLOUT__EXTRACTORS__WEB__SHARED_SECRET",
            "shared_secret",
            "kind = \"trusted_header\"\nheader = \"X-User\"\nshared_secret_header = \"X-S\"\nshared_secret = VALUE",
        ),
    ] {
        let load = |value: &str| warnings(&section(&keys.replace("VALUE", &quoted(value))));
        assert_eq!(load(VALUE), [""; 0], "{key}");
        for (damaged, want) in damaged(name, VALUE) {
            let warnings = load(&damaged);
            let found = warnings.iter().find(|warning| warning.contains(want));
            let found = found.unwrap_or_else(|| panic!("{key}, {want}: {warnings:?}"));
            assert!(
                found.starts_with(&format!("extractors.web.{key}: ")),
                "{found}"
            );
            assert!(!found.contains("mX3v9"), "{found}");
        }
    }
}

#[test]
fn missing_secret_file_or_directory_in_its_place_is_refused_with_a_hint() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("rollout").to_str().unwrap().to_owned();
    let directory = folder.path().to_str().unwrap();
    for (path, want) in [
        ("/run/secrets/rollout_client_secret", "Is it mounted there?"),
        ("/vault/secrets/rollout", "Is it mounted there?"),
        ("/mnt/keys/client", "Is it mounted there?"),
        (&missing, "Is it mounted there?"),
        (directory, "Name the file in this directory"),
    ] {
        let report = load_variables(&[
            ("ROLLOUT_CLIENT_SECRET", "(unset)"),
            ("ROLLOUT_CLIENT_SECRET_FILE", path),
        ]);
        let report = report.map(|_| ()).expect_err(path);
        assert!(
            report.starts_with("client_secret_file: ")
                && report.contains(path)
                && report.contains(want),
            "{report}"
        );
        let report = problems(&section(&format!(
            "kind = \"flask\"\nsecret_key_file = {path:?}"
        )));
        assert!(
            report.starts_with("extractors.web.secret_key_file: "),
            "{report}"
        );
        assert!(report.contains(path) && report.contains(want), "{report}");
    }
    for secret in [
        "/3Zx0dY8vQ1kT5bN+7wLrA==",
        "/aB3cD4eF5gH6/iJ7kL8mN9oP0q",
        "Zx0dY8vQ1kT5bN7wLrA",
    ] {
        let report = load_variables(&[
            ("ROLLOUT_CLIENT_SECRET", "(unset)"),
            ("ROLLOUT_CLIENT_SECRET_FILE", secret),
        ]);
        let report = report.map(|_| ()).expect_err(secret);
        assert!(
            !report.contains(secret) && report.contains("expects the name of a file"),
            "{report}"
        );
    }
}

#[test]
fn base64_encoded_client_secret_as_a_section_secret_is_refused() {
    const SECRET: &str = "0123456789abcdef0123456789abcdeF";
    let encoded = "base64:MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZUY=";
    let report = load_variables(&[
        ("ROLLOUT_CLIENT_SECRET", SECRET),
        ("ROLLOUT__SESSION__EXTRACTORS", "laravel"),
        ("ROLLOUT__EXTRACTORS__LARAVEL__APP_KEY", encoded),
    ]);
    let report = report.map(|_| ()).expect_err("a refusal");
    assert!(
        report.contains("extractors.laravel.app_key: is the same secret as client_secret"),
        "{report}"
    );
}
