//! Tests of the configuration: its layers, the report of its problems, and the documented defaults.

use std::collections::BTreeMap;
use std::sync::Arc;

use rollout_token::clock::Clock;
use rollout_token::config::Sources;
use rollout_token::session::backends::Context;
use rollout_token::session::builder::keys_of_kind;
use rollout_token::session::registry::Registry;
use rollout_token::settings::log::LogSubject;
use rollout_token::settings::{self, Settings};
use rollout_token::telemetry::metrics::Metrics;
use serde_json::Value;

use crate::helpers::{BY_HEADER, CLIENT_SECRET, client_variables, load, load_from};

const DEFAULTS: &str = include_str!("../../config/default.toml");

pub fn context() -> Context {
    Context::new(Clock::system(), Arc::new(Metrics::new()))
}

pub fn problems(toml: &str) -> String {
    load(toml).map(|_| ()).expect_err("a refusal").to_string()
}

/// Loads [`BY_HEADER`] with additional environment variables; the value `(unset)` removes a variable. There is no
/// configuration file, so [`Settings::are_outdated`] checks only the files that the variables name.
pub fn load_variables(variables: &[(&str, &str)]) -> Result<Settings, String> {
    let mut environment = client_variables();
    for (name, value) in variables {
        if value == &"(unset)" {
            environment.remove(*name);
        } else {
            environment.insert((*name).to_owned(), (*value).to_owned());
        }
    }
    let sources = Sources {
        base: Some(BY_HEADER.to_owned()),
        environment,
        ..Sources::default()
    };
    settings::load(&sources, &Registry::builtin(), &context())
        .map_err(|problems| problems.to_string())
}

#[test]
fn every_problem_is_in_one_report_without_secrets() {
    let secret = "hunter2-hunter2-hunter2-hunter2";
    let report = problems(&format!(
        r#"
        client_secret_file = "/{secret}"
        [server]
        listen = "localhost"
        prot = 8080
        header_timeout = "10"
        [token]
        ttl = "1h"
        [origins]
        allowed = ["*"]
        [session]
        extractors = ["web"]
        [extractors.web]
        kind = "trusted_header"
        header = "X-User"
        shared_secret_header = "X-Secret"
        shared_secret = "{secret}"
        shared_secret_file = "/nowhere"
        "#,
    ));
    let keys: Vec<&str> = report
        .lines()
        .map(|line| line.split(':').next().unwrap())
        .collect();
    for key in [
        "server.listen",
        "server.prot",
        "server.header_timeout",
        "token.ttl",
        "origins.allowed",
        "extractors.web.shared_secret",
        "client_secret",
    ] {
        assert!(keys.contains(&key), "{key} in\n{report}");
    }
    assert!(!report.contains("hunter2"), "{report}");
}

#[test]
fn every_problem_begins_with_its_key() {
    let with = |toml: &str| format!("{toml}\n{BY_HEADER}");
    let endpoint = |keys: &str| {
        section(&format!(
            "kind = \"session_endpoint\"\nurl = \"https://app.example/me\"\n{keys}"
        ))
    };
    let redis = |keys: &str| section(&format!("kind = \"redis_session\"\n{keys}"));
    for (case, toml, key) in [
        (
            "unknown section",
            with("[sever]\nlisten = \"0.0.0.0:1\""),
            "sever:",
        ),
        ("unknown key", with("[log]\nlevle = \"info\""), "log.levle:"),
        (
            "wrong type",
            with("[server]\nmax_headers = \"many\""),
            "server.max_headers:",
        ),
        ("not a section", with("server = 1"), "server:"),
        ("no extractor", String::new(), "session.extractors:"),
        (
            "missing section",
            "[session]\nextractors = [\"web\"]".to_owned(),
            "extractors.web:",
        ),
        (
            "unused section",
            with("[extractors.other]\nkind = \"api_key\""),
            "extractors.other:",
        ),
        (
            "unknown kind",
            "[session]\nextractors = [\"web\"]\n[extractors.web]\nkind = \"jtw\"".to_owned(),
            "extractors.web.kind:",
        ),
        (
            "twice",
            BY_HEADER.replace("[\"proxy\"]", "[\"proxy\", \"proxy\"]"),
            "session.extractors:",
        ),
        (
            "unknown preset",
            BY_HEADER.replace("header = ", "preset = \"x\"\nheader = "),
            "extractors.proxy.preset:",
        ),
        (
            "fixed subject",
            BY_HEADER.replace("header = ", "subject = \"all\"\nheader = "),
            "extractors.proxy.subject:",
        ),
        (
            "bad subject",
            BY_HEADER.replace("header = ", "subject = \"{sub\"\nheader = "),
            "extractors.proxy.subject:",
        ),
        (
            "unknown key of a kind",
            BY_HEADER.replace("header = ", "heder = 1\nheader = "),
            "extractors.proxy.heder:",
        ),
        (
            "static_user",
            "[session]\nextractors = [\"static_user\"]".to_owned(),
            "extractors.static_user.kind:",
        ),
        (
            "capital letters",
            "[session]\nextractors = [\"Web\"]\n[extractors.Web]\nkind = \"api_key\"".to_owned(),
            "extractors.Web:",
        ),
        (
            "too large",
            with("[server]\nmax_in_flight = 9223372036854775807"),
            "server.max_in_flight:",
        ),
        (
            "too large for the read buffer",
            with("[server]\nmax_uri_bytes = 9223372036854775807"),
            "server.max_uri_bytes:",
        ),
        (
            "one address twice",
            with("[server]\nlisten = \"127.0.0.1:8081\""),
            "server.admin_listen:",
        ),
        (
            "zero",
            with("[server]\nidle_timeout = \"0s\""),
            "server.idle_timeout:",
        ),
        (
            "negative",
            with("[server]\nidle_timeout = \"-1s\""),
            "server.idle_timeout:",
        ),
        (
            "huge",
            with("[server]\nidle_timeout = \"1000000000000000000s\""),
            "server.idle_timeout:",
        ),
        (
            "no unit",
            with("[server]\nidle_timeout = 5"),
            "server.idle_timeout:",
        ),
        (
            "order of time-outs",
            with("[server]\nhard_stop = \"10s\""),
            "server.hard_stop:",
        ),
        (
            "drain before requests",
            with("[server]\nrequest_timeout = \"20s\""),
            "server.drain_timeout:",
        ),
        (
            "a session endpoint's",
            endpoint("timeout = \"6s\""),
            "extractors.web.timeout:",
        ),
        (
            "connecting",
            endpoint("timeout = \"1s\"\nconnect_timeout = \"2s\""),
            "extractors.web.connect_timeout:",
        ),
        (
            "shorter requests",
            endpoint("[server]\nrequest_timeout = \"1s\""),
            "extractors.web.timeout:",
        ),
        (
            "an introspection endpoint's",
            section("kind = \"introspection\"\nurl = \"https://idp.example/i\"\ntimeout = \"6s\""),
            "extractors.web.timeout:",
        ),
        (
            "a store's",
            redis("timeout = \"6s\""),
            "extractors.web.timeout:",
        ),
        (
            "a database's",
            section("kind = \"sql_session\"\ntimeout = \"6s\""),
            "extractors.web.timeout:",
        ),
        (
            "a free connection's",
            redis("pool_wait = \"6s\""),
            "extractors.web.pool_wait:",
        ),
        (
            "ttl too short",
            with("[token]\nttl = \"29s\""),
            "token.ttl:",
        ),
        (
            "ttl too long",
            with("[token]\nttl = \"901s\""),
            "token.ttl:",
        ),
        (
            "claim of ours",
            with("[token.claims]\nsub = \"x\""),
            "token.claims:",
        ),
        (
            "star",
            with("[origins]\nallowed = [\"*\"]"),
            "origins.allowed:",
        ),
        (
            "null",
            with("[origins]\nallowed = [\"null\"]"),
            "origins.allowed:",
        ),
        (
            "no origin",
            with("[origins]\nallowed = [\"app.example\"]"),
            "origins.allowed:",
        ),
        (
            "burst",
            with("[rate_limit]\nburst = 0"),
            "rate_limit.burst:",
        ),
        ("format", with("[log]\nformat = \"xml\""), "log.format:"),
        ("level", with("[log]\nlevel = \"loud\""), "log.level:"),
        (
            "subject",
            with("[log]\nsubject = \"secret\""),
            "log.subject:",
        ),
    ] {
        let report = problems(&toml);
        assert!(
            report.lines().any(|line| line.starts_with(key)),
            "{case}: {key} in\n{report}"
        );
    }
}

/// Loads configuration files with these contents, and environment variables: the tests' client id and secret, and
/// `variables`.
pub fn load_files(texts: &[&str], variables: &[(&str, &str)]) -> Result<Settings, String> {
    let folder = tempfile::tempdir().unwrap();
    let files = texts.iter().enumerate().map(|(number, text)| {
        let path = folder.path().join(format!("{number}.toml"));
        std::fs::write(&path, text).unwrap();
        path
    });
    let mut environment = client_variables();
    environment.extend(
        variables
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned())),
    );
    load_from(
        files.collect(),
        environment,
        &Registry::builtin(),
        &context(),
    )
    .map_err(|problems| problems.to_string())
}

#[test]
fn section_and_scalar_for_one_key_in_two_layers_are_refused_and_both_sources_are_named() {
    let server = ("ROLLOUT__SERVER__DOCS_ALIAS", "true");
    let below = |toml: &str| format!("{toml}\n{BY_HEADER}");
    for (case, files, variables, key, places) in [
        (
            "a variable",
            vec![&below("server = 5")[..]],
            &[server][..],
            "server",
            ["0.toml", server.0],
        ),
        (
            "a file",
            vec!["server = true", &below("[server]")],
            &[],
            "server",
            ["0.toml", "1.toml"],
        ),
        (
            "variables",
            vec![BY_HEADER],
            &[("ROLLOUT__SERVER", "x"), server],
            "server",
            ["ROLLOUT__SERVER,", server.0],
        ),
        (
            "an extractor",
            vec!["[extractors]\nproxy = \"x\"", BY_HEADER],
            &[],
            "extractors.proxy",
            ["0.toml", "1.toml"],
        ),
        (
            "deeper",
            vec![&below("[token]\nclaims = 5")],
            &[("ROLLOUT__TOKEN__CLAIMS__ROLE", "x")],
            "token.claims",
            ["0.toml", "ROLLOUT__TOKEN__CLAIMS__ROLE"],
        ),
    ] {
        let report = load_files(&files, variables).map(|_| ()).expect_err(case);
        let line = report
            .lines()
            .find(|line| line.starts_with(&format!("{key}: ")))
            .expect(case);
        assert!(
            places.iter().all(|place| line.contains(place)),
            "{case}: {report}"
        );
    }
    let report = load_files(&[&below("server = 5")], &[])
        .map(|_| ())
        .unwrap_err();
    assert!(
        report.starts_with("server: must be a section, [server], not a whole number (from /"),
        "{report}"
    );
}

#[test]
fn string_in_a_later_layer_replaces_a_table_if_the_key_accepts_both() {
    let iron = |password: &str| {
        format!(
            "[session]\nextractors = [\"iron_session\"]\n[extractors.iron_session]\ncookie = \"c\"\n{password}"
        )
    };
    let first =
        iron("[extractors.iron_session.password]\n1 = \"0123456789abcdef0123456789abcdef\"");
    let name = "ROLLOUT__EXTRACTORS__IRON_SESSION__PASSWORD";
    let settings = load_files(&[&first], &[(name, "fedcba9876543210fedcba9876543210")]).unwrap();
    assert_eq!(
        settings.effective()["extractors"]["iron_session"]["password"],
        "[REDACTED]"
    );
}

#[test]
fn value_of_the_wrong_type_is_refused_and_the_expected_type_is_named() {
    for (keys, line) in [
        (
            "max_headers = true",
            "server.max_headers: must be a whole number, not true or false (from /",
        ),
        (
            "max_headers = 1.5",
            "server.max_headers: must be a whole number, not a number with a fraction (from /",
        ),
        (
            "max_headers = \"many\"",
            "server.max_headers: must be a whole number, not a string (from /",
        ),
        (
            "max_headers = -1",
            "server.max_headers: is out of range (from /",
        ),
        (
            "docs_alias = 2",
            "server.docs_alias: must be true or false, not a whole number (from /",
        ),
        (
            "docs_alias = \"maybe\"",
            "server.docs_alias: must be true or false, not a string (from /",
        ),
        (
            "admin_listen = 8080",
            "server.admin_listen: must be a string in quotes, not a whole number (from /",
        ),
        (
            "listen = [\"a\"]",
            "server.listen: must be a port, or an IP address with a port in quotes, not a list (from /",
        ),
        (
            "idle_timeout = true",
            "server.idle_timeout: must be a duration with its unit, such as ",
        ),
        (
            "idle_timeout = 60",
            "server.idle_timeout: must be a duration with its unit: write \"60s\" for seconds, or \"60ms\" for \
             milliseconds (from /",
        ),
        (
            "idle_timeout = \"60\"",
            "server.idle_timeout: must be a duration with its unit: write \"60s\" for seconds, or",
        ),
        (
            "idle_timeout = 271828182",
            "server.idle_timeout: must be a duration with its unit, such as ",
        ),
    ] {
        let report = problems(&format!("[server]\n{keys}\n{BY_HEADER}"));
        assert!(report.starts_with(line), "{line} in {report}");
    }
    for (toml, line) in [
        (
            "[rate_limit]\nburst = 5000000000",
            "rate_limit.burst: is out of range (from /",
        ),
        (
            "[origins]\nallowed = [5]",
            "origins.allowed.0: must be a string in quotes, not a whole number (from /",
        ),
        (
            "[token]\nclaims = \"x\"",
            "token.claims: must be a table, not a string (from /",
        ),
    ] {
        let report = problems(&format!("{toml}\n{BY_HEADER}"));
        assert!(report.starts_with(line), "{line} in {report}");
    }
    let report = load_variables(&[("ROLLOUT__SERVER__MAX_HEADERS", "many")])
        .map(|_| ())
        .unwrap_err();
    assert!(
        report.contains("not a string (from ROLLOUT__SERVER__MAX_HEADERS)"),
        "{report}"
    );
}

#[test]
fn invalid_address_does_not_hide_other_problems() {
    let report = problems(&format!(
        "[server]\nlisten = \"x\"\nidle_timeout = \"0s\"\nhard_stop = \"0s\"\n{BY_HEADER}"
    ));
    for key in [
        "server.listen:",
        "server.idle_timeout:",
        "server.hard_stop: must be greater than 0s",
    ] {
        assert!(report.contains(key), "{key} in {report}");
    }
}

#[test]
fn misspelled_key_or_kind_is_refused_with_the_closest_name() {
    let section =
        |keys: &str| format!("[session]\nextractors = [\"web\"]\n[extractors.web]\n{keys}");
    for (toml, line) in [
        (
            section("kind = \"clerk\""),
            "extractors.web.kind: must be a kind, but clerk is a preset: write kind = \"jwt\", preset = \"clerk\"",
        ),
        (
            section("preset = \"kratos\""),
            "extractors.web.kind: must be a kind, but kratos is a preset: write kind = \"session_endpoint\", preset = \"kratos\"",
        ),
        (
            section("kind = \"better-auth\""),
            "extractors.web.kind: must be spelled with underscores: write kind = \"better_auth\"",
        ),
        (
            section("kind = \"redis\""),
            "extractors.web.kind: is not a kind: did you mean redis_session?",
        ),
        (
            section("url = \"x\""),
            "extractors.web.kind: is missing, and the section's name web is not a kind. The kinds are api_key, ",
        ),
        (
            section("kind = \"jwt\"\nissuer = \"x\""),
            "extractors.web.issuer: is not a key of this section: did you mean issuers?",
        ),
        (
            section("kind = \"jwt\"\nsubjct = \"x\""),
            "extractors.web.subjct: is not a key of this section: did you mean subject?",
        ),
        (
            "[extractor.web]\nkind = \"jwt\"".to_owned(),
            "extractor: is not a section or key: did you mean extractors?",
        ),
        (
            "extractors = [\"web\"]".to_owned(),
            "extractors: must consist of sections such as [extractors.NAME], ",
        ),
    ] {
        let report = problems(&toml);
        assert!(
            report.lines().any(|found| found.starts_with(line)),
            "{line} in\n{report}"
        );
    }
    let hidden = problems(&section("kind = \"jwt\"\nzzz = 1"));
    assert!(
        hidden.contains("token_types") && !hidden.contains("provider_keys"),
        "keys that only presets use are not suggested: {hidden}"
    );
    let report = load_variables(&[("ROLLOUT__SESSION_EXTRACTORS", "web")])
        .map(|_| ())
        .unwrap_err();
    assert!(
        report.contains("did you mean session.extractors?"),
        "{report}"
    );
}

#[test]
fn reload_ignores_changed_start_only_keys_and_names_them() {
    let changed = format!(
        r#"
        [server]
        listen = "127.0.0.1:1"
        admin_listen = "127.0.0.1:2"
        base_path = "/api"
        header_timeout = "1s"
        idle_timeout = "1s"
        max_header_bytes = 1
        max_headers = 1
        max_connections = 1
        max_uri_bytes = 1
        [log]
        level = "warn"
        format = "pretty"
        subject = "plain"
        {BY_HEADER}"#
    );
    let current = load(BY_HEADER).unwrap();
    let mut new = load(&changed).unwrap();
    let mut names = new.keep_restart_keys(&current);
    names.sort();
    let all = [
        "server.admin_listen",
        "server.base_path",
        "server.header_timeout",
        "server.idle_timeout",
        "server.listen",
        "server.max_connections",
        "server.max_header_bytes",
        "server.max_headers",
    ];
    assert_eq!(names, all);
    assert_eq!(new.server.restart, current.server.restart);
    assert_eq!(new.server.max_uri_bytes, 1, "live");
    assert_eq!(new.log.subject, LogSubject::Plain, "live");
    assert_eq!(new.log.level, tracing::Level::WARN, "live");
    assert_eq!(
        load(BY_HEADER).unwrap().keep_restart_keys(&current),
        [""; 0]
    );

    let page = include_str!("../../docs/configuration.md");
    let (_, text) = page.split_once("are read at start only").unwrap();
    let (text, _) = text.split_once("If one of").unwrap();
    let mut documented: Vec<&str> = text.split('`').skip(1).step_by(2).collect();
    documented.sort_unstable();
    assert_eq!(documented, all);
}

#[test]
fn malformed_toml_file_is_refused_with_the_line_number_but_without_its_content() {
    let report = problems("[server]\n# fine\nsecret = \"hunter2\n");
    assert!(report.contains("line 3 is not TOML"), "{report}");
    assert!(!report.contains("hunter2"), "{report}");
    let report = problems("[server]\nlisten = \"a\"\nlisten = \"b\"\n");
    assert!(
        report.contains("line 3 is not TOML: duplicate key"),
        "{report}"
    );
}

#[test]
fn unquoted_string_is_refused_with_the_file_the_line_and_the_fix() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().to_str().unwrap();
    let report_of = |line: &str| {
        let toml = format!("[extractors.web]\n{line}\nsubject = \"{{id}}\"\n");
        std::fs::write(file.path(), toml).unwrap();
        let files = vec![file.path().to_owned()];
        load_from(files, client_variables(), &Registry::builtin(), &context())
            .map(|_| ())
            .unwrap_err()
            .to_string()
    };
    for line in [
        "kind = flask",
        "kind = None",
        "kind = inverse # a comment",
        "max_age = 14d",
        "trusted_proxies = [\"10.0.0.1/32\", 10.0.0.0/8]",
        "from = [  flask, \"b\"]",
        "kind = ",
    ] {
        let want =
            format!("{path}: line 2 is not TOML: text must be in quotes, as in key = \"text\"\n");
        assert_eq!(report_of(line), want, "{line}");
    }
    for line in [
        "kind = \"flask",
        "kind = \"flask\" \"x\"",
        "kind = \"a\"\nkind = \"a\"",
        "claims = { a = true, a = true }",
        "[extractors",
        "kind: flask",
    ] {
        let report = report_of(line);
        assert!(!report.contains("quotes"), "{line}: {report}");
        assert!(report.contains(" is not TOML: "), "{line}: {report}");
    }
}

#[test]
fn client_id_and_secret_are_read_from_the_variables_in_rollouts_docs() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), format!("{CLIENT_SECRET}\n")).unwrap();
    let path = file.path().to_str().unwrap();
    let settings = load_variables(&[
        ("ROLLOUT_CLIENT_SECRET", "(unset)"),
        ("ROLLOUT_CLIENT_SECRET_FILE", path),
    ])
    .unwrap();
    assert_eq!(
        settings.client.secret.expose(),
        CLIENT_SECRET.as_bytes(),
        "one trailing newline is dropped"
    );
    assert!(!settings.are_outdated());
    std::fs::write(file.path(), "another secret of sufficient length\n").unwrap();
    assert!(settings.are_outdated());
    std::fs::write(file.path(), format!("{CLIENT_SECRET}\n")).unwrap();
    assert!(!settings.are_outdated());

    for (case, variables, key) in [
        (
            "both",
            &[("ROLLOUT_CLIENT_SECRET_FILE", path)][..],
            "client_secret:",
        ),
        (
            "neither",
            &[("ROLLOUT_CLIENT_SECRET", "(unset)")],
            "client_secret:",
        ),
        ("empty", &[("ROLLOUT_CLIENT_SECRET", "")], "client_secret:"),
        (
            "blank",
            &[("ROLLOUT_CLIENT_SECRET", "                    ")],
            "client_secret:",
        ),
        (
            "placeholder",
            &[("ROLLOUT_CLIENT_SECRET", "your-client-secret")],
            "client_secret:",
        ),
        (
            "short",
            &[("ROLLOUT_CLIENT_SECRET", "fifteen-bytes-1")],
            "client_secret:",
        ),
        ("no id", &[("ROLLOUT_CLIENT_ID", "(unset)")], "client_id:"),
        ("empty id", &[("ROLLOUT_CLIENT_ID", "")], "client_id:"),
        (
            "no file",
            &[
                ("ROLLOUT_CLIENT_SECRET", "(unset)"),
                ("ROLLOUT_CLIENT_SECRET_FILE", "/nowhere"),
            ],
            "client_secret_file:",
        ),
        (
            "empty file name",
            &[
                ("ROLLOUT_CLIENT_SECRET", "(unset)"),
                ("ROLLOUT_CLIENT_SECRET_FILE", ""),
            ],
            "client_secret_file:",
        ),
    ] {
        let report = load_variables(variables).map(|_| ()).expect_err(case);
        assert!(report.starts_with(key), "{case}: {report}");
        assert!(!report.contains("fifteen"), "{case}: {report}");
    }
}

#[test]
fn secret_from_a_variable_is_used_byte_for_byte() {
    for secret in [
        "0012345678901234567890",
        "dHJ1ZQ==ZmFsc2U=dHJ1ZQ==",
        "spaces  inside of it",
        "true-false-true-false",
    ] {
        let settings = load_variables(&[("ROLLOUT_CLIENT_SECRET", secret)]).unwrap();
        assert_eq!(settings.client.secret.expose(), secret.as_bytes());
    }
}

#[test]
fn client_secret_under_64_bytes_is_a_warning() {
    let short = load_variables(&[("ROLLOUT_CLIENT_SECRET", "0123456789abcdef")]).unwrap();
    let warnings: Vec<String> = short.warnings.lines().collect();
    assert!(
        warnings[0].starts_with("client_secret: is shorter than the 64 bytes"),
        "{warnings:?}"
    );
    assert!(load_variables(&[]).unwrap().warnings.is_empty());
}

/// Loads this configuration, which must be valid. Returns the warnings about it.
pub fn warnings(toml: &str) -> Vec<String> {
    load(toml)
        .unwrap_or_else(|problems| panic!("{toml}\n{problems}"))
        .warnings
        .lines()
        .collect()
}

pub fn section(keys: &str) -> String {
    format!("session.extractors = [\"web\"]\n[extractors.web]\n{keys}")
}

#[test]
fn keys_that_hold_a_secret_accept_a_file_and_other_keys_do_not() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let with = |content: &[u8], keys: &str| {
        std::fs::write(file.path(), content).unwrap();
        let toml = section(&format!("kind = \"flask\"\nsubject = \"{{id}}\"\n{keys}"));
        let toml = toml.replace("FILE", &format!("{:?}", file.path()));
        // The configuration is in a variable, so `Settings::are_outdated` checks only the secret's file.
        let mut environment = client_variables();
        environment.insert("ROLLOUT_CONFIG".to_owned(), toml);
        load_from(Vec::new(), environment, &Registry::builtin(), &context())
            .map_err(|problems| problems.to_string())
    };
    let secret_key = "secret_key_file = FILE\n";
    let settings = with(b"not UTF-8 \xff, and long enough\n", secret_key).unwrap();
    assert!(!settings.are_outdated());
    std::fs::write(file.path(), "another").unwrap();
    assert!(settings.are_outdated(), "the file is watched");

    let client = format!("{CLIENT_SECRET}\r\n");
    for (case, content, keys, line) in [
        (
            "one newline is dropped",
            client.as_bytes(),
            secret_key,
            "secret_key: is the same secret as client_secret",
        ),
        (
            "both",
            b"a-secret-long-enough",
            "secret_key_file = FILE\nsecret_key = \"a-secret-long-enough\"",
            "secret_key: is given both by value and by file",
        ),
        (
            "no text",
            b"",
            "secret_key_file = 5",
            "secret_key_file: must be the name of a file, as a string in quotes, not a whole number (from ROLLOUT_CONFIG",
        ),
        (
            "no name",
            b"",
            "secret_key_file = \"\"",
            "secret_key_file: the file name is empty",
        ),
        (
            "unreadable",
            b"",
            "secret_key_file = \"/nowhere/at/all\"",
            "secret_key_file: cannot read",
        ),
        (
            "no secret",
            b"x",
            "cookie_file = FILE",
            "cookie_file: is not a key of this section",
        ),
        (
            "no secret's type",
            b"1h",
            "max_age_file = FILE",
            "max_age_file: is not a key of this section",
        ),
        (
            "no key",
            b"x",
            "secrt_file = FILE",
            "secrt_file: is not a key of this section",
        ),
    ] {
        let report = with(content, keys).map(|_| ()).expect_err(case);
        let line = format!("extractors.web.{line}");
        let lines: Vec<_> = report
            .lines()
            .filter(|line| {
                line.starts_with("extractors.web.secret_key: ")
                    || line.starts_with("extractors.web.secret_key_file: ")
            })
            .collect();
        assert!(
            report.lines().any(|found| found.starts_with(&line)),
            "{case}: {report}"
        );
        assert!(lines.len() < 2, "{case}: {report}");
    }
}

#[test]
fn secret_in_a_list_of_tables_accepts_a_file_and_other_keys_do_not() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "the-older-secret-of-the-app\n").unwrap();
    let with = |rotation: &str| {
        let rotation = rotation.replace("FILE", &format!("{:?}", file.path()));
        let mut environment = client_variables();
        environment.insert(
            "ROLLOUT_CONFIG".to_owned(),
            section(&format!(
                "kind = \"rails\"\ncookie = \"_app\"\nsecret_key_base = \"the-current-secret-of-the-app\"\n\
                 rotations = [{{ digest = \"sha1\" }}, {{ {rotation} }}]"
            )),
        );
        load_from(Vec::new(), environment, &Registry::builtin(), &context())
            .map_err(|problems| problems.to_string())
    };
    let settings = with("secret_key_base_file = FILE").unwrap();
    assert!(!settings.are_outdated());
    std::fs::write(file.path(), CLIENT_SECRET).unwrap();
    assert!(settings.are_outdated(), "the file is watched");

    for (rotation, line) in [
        (
            "secret_key_base_file = FILE",
            ".1.secret_key_base: is the same secret as client_secret",
        ),
        (
            "secret_key_base_file = FILE, secret_key_base = \"x\"",
            ".1.secret_key_base: is given both by value and by file: keep one",
        ),
        (
            "secret_key_base_file = \"/nowhere/at/all\"",
            ".1.secret_key_base_file: cannot read",
        ),
        (
            "secret_key_base_file = FILE, digest = 5",
            ".1.digest: must be a string in quotes, not a whole number",
        ),
        (
            "digest_file = FILE",
            ".1.digest_file: is not a key of its table",
        ),
    ] {
        let report = with(rotation).map(|_| ()).expect_err(rotation);
        let line = format!("extractors.web.rotations{line}");
        assert!(
            report.lines().any(|found| found.starts_with(&line)),
            "{rotation}: {report}"
        );
    }
}

#[test]
fn weak_session_secret_is_a_warning_that_names_the_key_but_not_the_secret() {
    let jwt = |algorithm: &str, secret: &str| {
        let keys = format!(
            "algorithms = [\"{algorithm}\"]\nallow_any_audience = true\nsecret = \"{secret}\""
        );
        section(&format!("kind = \"jwt\"\n{keys}"))
    };
    let flask = |secret: &str| {
        section(&format!(
            "kind = \"flask\"\nsubject = \"{{id}}\"\nsecret_key = \"{secret}\""
        ))
    };
    let express = |secret: &str| {
        section(&format!(
            "kind = \"cookie_session\"\nsubject = \"{{id}}\"\nkeys = [\"{secret}\"]"
        ))
    };
    let django = |secret: &str| {
        section(&format!(
            "kind = \"django_signed\"\nsubject = \"{{id}}\"\nsecret_key = \"{secret}\""
        ))
    };
    let long = "q7".repeat(10) + "0123456789abcdefghijklmnop";
    for (case, toml, key, secret, words) in [
        (
            "Express",
            express("keyboard cat"),
            "keys",
            "keyboard cat",
            "an example from documentation",
        ),
        (
            "Flask",
            flask("dev"),
            "secret_key",
            "\"dev\"",
            "an example from documentation",
        ),
        (
            "Django",
            django("django-insecure-x8k$2l@v0p!q9w3e5r7t"),
            "secret_key",
            "django-insecure-x",
            "an example from documentation",
        ),
        (
            "short",
            flask("5hort-secret"),
            "secret_key",
            "5hort",
            "shorter than 16 bytes",
        ),
        (
            "repeated",
            flask("abc1abc1abc1abc1abc1"),
            "secret_key",
            "abc1",
            "repeats a pattern",
        ),
        (
            "jwt.io",
            jwt("HS256", "your-256-bit-secret"),
            "secret",
            "your-256",
            "an example from documentation",
        ),
        (
            "a short secret that signs JWTs",
            jwt("HS256", "5hort-secret"),
            "secret",
            "5hort",
            "shorter than 16 bytes",
        ),
        (
            "HS256",
            jwt("HS256", &long[..31]),
            "secret",
            "q7q7",
            "has 31 bytes, and RFC 7518, section 3.2 requires at least 32",
        ),
        (
            "HS384",
            jwt("HS384", &long),
            "secret",
            "q7q7",
            "has 46 bytes, and RFC 7518, section 3.2 requires at least 48",
        ),
        (
            "HS512",
            jwt("HS512", &long),
            "secret",
            "q7q7",
            "at least 64 for HS512",
        ),
    ] {
        let warnings = warnings(&toml);
        let [warning] = warnings.as_slice() else {
            panic!("{case}: {warnings:?}")
        };
        assert!(
            warning.starts_with(&format!("extractors.web.{key}: ")),
            "{case}: {warning}"
        );
        assert!(
            warning.contains(words) && !warning.contains(secret),
            "{case}: {warning}"
        );
    }
    for (case, toml) in [
        ("HS256", jwt("HS256", &long)),
        ("a random one", flask("mX3v9QwL0aTz7RkB")),
        ("no secret of a session", BY_HEADER.to_owned()),
    ] {
        assert_eq!(warnings(&toml), [""; 0], "{case}");
    }
}

/// Tests each key whose value is a list of secrets and that also accepts a file (`KEY_file`).
#[test]
fn empty_file_for_a_list_of_secrets_is_refused_in_every_kind() {
    let registry = Registry::builtin();
    let documented = documented_kinds();
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut lists = Vec::new();
    for kind in registry.names() {
        let keys = keys_of_kind(&registry, kind, &context()).unwrap();
        let keys = keys.as_object().unwrap();
        for (key, _) in keys.iter().filter(|(_, default)| default.is_array()) {
            if !documented[kind].0.contains_key(&format!("{key}_file")) {
                continue;
            }
            lists.push(format!("{kind}.{key}"));
            for content in ["", "\n", "\n\r\n\n"] {
                std::fs::write(file.path(), content).unwrap();
                // These keys are valid only with certain cookie formats.
                let form = match (kind, key.as_str()) {
                    ("redis_session" | "sql_session", "cookie_secrets") => {
                        "cookie_format = \"express_signed\""
                    }
                    ("redis_session" | "sql_session", "previous_keys") => {
                        "cookie_format = \"laravel\""
                    }
                    _ => "",
                };
                let report = problems(&section(&format!(
                    "kind = \"{kind}\"\n{form}\n{key}_file = {:?}",
                    file.path()
                )));
                let line =
                    format!("extractors.web.{key}: the file of {key}_file contains no secret");
                assert!(
                    report.lines().any(|found| found.starts_with(&line)),
                    "{kind} {content:?}: {report}"
                );
            }
        }
    }
    for known in [
        "authjs.secrets",
        "cookie_session.keys",
        "flask.secret_key_fallbacks",
        "redis_session.cookie_secrets",
    ] {
        assert!(
            lists.iter().any(|list| list == known),
            "{known} in {lists:?}"
        );
    }
}

#[test]
fn variables_override_files_and_kubernetes_service_variables_are_ignored() {
    let settings = load_variables(&[
        ("ROLLOUT__SERVER__LISTEN", "127.0.0.1:9"),
        ("ROLLOUT__SERVER__MAX_HEADERS", "10"),
        ("ROLLOUT__SERVER__DOCS_ALIAS", "true"),
        (
            "ROLLOUT__EXTRACTORS__PROXY__TRUSTED_PROXIES",
            "10.0.0.0/8, 192.0.2.1",
        ),
        (
            "ROLLOUT__ORIGINS__ALLOWED",
            "https://a.example,https://b.example",
        ),
        // Environment variables that Kubernetes sets for a service called "rollout".
        ("ROLLOUT_PORT", "tcp://10.0.0.1:80"),
        ("ROLLOUT_SERVICE_HOST", "10.0.0.1"),
    ])
    .unwrap();
    assert_eq!(
        settings.server.restart.listen,
        "127.0.0.1:9".parse().unwrap()
    );
    assert_eq!(
        (
            settings.server.restart.max_headers,
            settings.server.docs_alias
        ),
        (10, true)
    );
    let shown = settings.effective();
    assert_eq!(
        shown["extractors"]["proxy"]["trusted_proxies"],
        serde_json::json!(["10.0.0.0/8", "192.0.2.1"])
    );
    assert_eq!(
        shown["origins"]["allowed"],
        serde_json::json!(["https://a.example", "https://b.example"])
    );

    let report = load_variables(&[("ROLLOUT__SERVER__PROT", "1")])
        .map(|_| ())
        .unwrap_err();
    assert!(report.starts_with("server.prot:"), "{report}");
}

#[test]
fn configuration_from_environment_variables_alone_is_accepted() {
    let mut environment = client_variables();
    for (name, value) in [
        ("ROLLOUT__SESSION__EXTRACTORS", "proxy"),
        ("ROLLOUT__EXTRACTORS__PROXY__KIND", "trusted_header"),
        ("ROLLOUT__EXTRACTORS__PROXY__PRESET", "oauth2-proxy"),
        ("ROLLOUT__EXTRACTORS__PROXY__TRUSTED_PROXIES", "10.0.0.1"),
    ] {
        environment.insert(name.to_owned(), value.to_owned());
    }
    let settings = load_from(Vec::new(), environment, &Registry::builtin(), &context()).unwrap();
    assert_eq!(
        settings.effective()["extractors"]["proxy"]["header"],
        "X-Forwarded-User"
    );
}

#[test]
fn client_secret_as_the_secret_of_a_section_is_refused() {
    let report = problems(&format!(
        "{}shared_secret_header = \"X-S\"\nshared_secret = \"{CLIENT_SECRET}\"",
        BY_HEADER.replace("    ", "")
    ));
    assert!(
        report.starts_with("extractors.proxy.shared_secret: is the same secret as client_secret"),
        "{report}"
    );
    assert!(!report.contains(CLIENT_SECRET));
}

#[test]
fn printed_configuration_redacts_secrets() {
    let toml = format!(
        "{}shared_secret_header = \"X-S\"\nshared_secret = \"hunter2-hunter3-hunter4\"",
        BY_HEADER.replace("    ", "")
    );
    let settings = load(&toml).unwrap();
    for shown in [settings.effective().to_string(), format!("{settings:?}")] {
        for secret in ["hunter2", CLIENT_SECRET] {
            assert!(!shown.contains(secret));
        }
    }
    assert!(settings.effective().to_string().contains("[REDACTED]"));
}

#[test]
fn secret_under_a_wrong_key_is_not_repeated_in_the_report() {
    const SECRET: &str = "hunter2-hunter2-hunter2";
    for (name, value) in [
        ("ROLLOUT_CLIENT_SECRET_FILE", SECRET),
        (
            "ROLLOUT_CLIENT_SECRET_FILE",
            &format!("aB3/{SECRET}+x/4==")[..],
        ),
        ("ROLLOUT_CLIENT_SECRET_FILE", &format!("/{SECRET}")),
        ("ROLLOUT_CLIENT_SECRET_FILE", &format!("//{SECRET}")),
        (
            "ROLLOUT__ORIGINS__ALLOWED",
            &format!("https://u:{SECRET}@a.example")[..],
        ),
        ("ROLLOUT__SERVER__MAX_HEADERS", SECRET),
        ("ROLLOUT__SERVER__LISTEN", SECRET),
        ("ROLLOUT__TOKEN__CLAIMS", SECRET),
        ("ROLLOUT__RELOAD", SECRET),
        ("ROLLOUT__LOG__LEVEL", SECRET),
        ("ROLLOUT__RELOAD__POLL_INTERVAL", SECRET),
    ] {
        let mut variables = vec![(name, value)];
        if name.starts_with("ROLLOUT_CLIENT") {
            variables.push(("ROLLOUT_CLIENT_SECRET", "(unset)"));
        }
        let report = load_variables(&variables).map(|_| ()).expect_err(name);
        assert!(!report.contains("hunter2"), "{name}: {report}");
    }
}

#[test]
fn debug_output_of_sources_shows_no_secret() {
    let sources = rollout_token::config::Sources {
        environment: client_variables(),
        ..rollout_token::config::Sources::default()
    };
    assert!(!format!("{sources:?}").contains(CLIENT_SECRET));
}

#[test]
fn documented_defaults_equal_the_defaults_in_the_code() {
    let mut documented: Value =
        serde_json::to_value(toml::from_str::<toml::Table>(DEFAULTS).unwrap()).unwrap();
    let mut real = load(BY_HEADER).unwrap().effective().clone();
    real["session"] = serde_json::json!({"extractors": []});
    for (section, value) in documented.as_object_mut().unwrap() {
        assert_eq!(*value, real[section.as_str()].take(), "[{section}]");
    }
    for section in ["client_id", "client_secret", "extractors", "session"] {
        real.as_object_mut().unwrap().remove(section);
    }
    assert!(
        real.as_object().unwrap().values().all(Value::is_null),
        "undocumented: {real}"
    );
}

/// The commented-out blocks of `default.toml`: for each kind, its keys with their values, and the names of the keys
/// whose value is an example and not the default.
fn documented_kinds() -> BTreeMap<String, (toml::Table, Vec<String>)> {
    let mut kinds = BTreeMap::new();
    let mut blocks = DEFAULTS.split("\n# [extractors.").skip(1);
    for block in &mut blocks {
        let block = block.split("\n\n").next().unwrap();
        let (kind, lines) = block.split_once('\n').unwrap();
        let kind = kind.split(']').next().unwrap().to_owned();
        let text: String = lines
            .lines()
            .map(|line| format!("{}\n", line.trim_start_matches("# ")))
            .collect();
        let examples = text.lines().filter(|line| line.contains("# example"));
        let examples = examples
            .map(|line| line.split(" = ").next().unwrap().trim().to_owned())
            .collect();
        let keys = toml::from_str(&text).unwrap_or_else(|error| panic!("{kind}: {error}"));
        assert!(kinds.insert(kind, (keys, examples)).is_none());
    }
    kinds
}

#[test]
fn every_kind_and_each_of_its_keys_is_documented_with_its_default() {
    let registry = Registry::builtin();
    let mut documented = documented_kinds();
    for kind in registry.names() {
        let (keys, examples) = documented
            .remove(kind)
            .unwrap_or_else(|| panic!("{kind} is not documented"));
        let real = keys_of_kind(&registry, kind, &context()).unwrap();
        let real = real.as_object().unwrap();
        for (key, value) in &keys {
            if key == "preset" || key == "subject" {
                continue;
            }
            let of_file = key.strip_suffix("_file").unwrap_or(key);
            let default = real
                .get(key)
                .or_else(|| real.get(of_file))
                .unwrap_or_else(|| panic!("{kind} has no key {key}"));
            let shown = serde_json::to_value(value).unwrap();
            if examples.contains(key) {
                let none = default.is_null()
                    || [serde_json::json!([]), serde_json::json!({})].contains(default);
                assert!(
                    none,
                    "{kind}.{key} is shown as an example, but its default is {default}"
                );
            } else {
                assert_eq!(shown, *default, "{kind}.{key}");
            }
        }
        for key in real.keys() {
            let documented = keys.contains_key(key) || keys.contains_key(&format!("{key}_file"));
            assert!(documented, "{kind}.{key} is not documented");
        }
    }
    assert!(
        documented.is_empty(),
        "default.toml documents kinds that do not exist: {:?}",
        documented.keys()
    );
}

#[test]
fn invalid_value_of_any_key_is_not_repeated_in_the_report() {
    let registry = Registry::builtin();
    for kind in registry.names() {
        let keys = keys_of_kind(&registry, kind, &context()).unwrap();
        let own = keys
            .as_object()
            .unwrap()
            .keys()
            .flat_map(|key| [key.clone(), format!("{key}_file")]);
        for key in own.chain(["kind", "subject", "preset", "other"].map(str::to_owned)) {
            for value in [
                "\"{hunter2, hunter2\"",
                "\"https://u:hunter2@a.example/\"",
                "271828182",
                "2718.28182",
                "[\"hunter2\", 271828182, { a = \"hunter2\" }]",
                "{ a = \"hunter2\", b = 271828182, c = { d = [\"hunter2\"] } }",
            ] {
                let kind = if key == "kind" {
                    String::new()
                } else {
                    format!("kind = \"{kind}\"")
                };
                let toml = format!(
                    "session.extractors = [\"web\"]\n[extractors.web]\n{kind}\n{key} = {value}"
                );
                let report =
                    load(&toml).map_or_else(|problems| problems.to_string(), |_| String::new());
                assert!(
                    !report.contains("hunter2") && !report.contains("2718"),
                    "{kind} {key} {value}: {report}"
                );
            }
        }
    }
}

/// Loads a configuration with this section, which must be valid. Returns the warnings about it.
fn section_warnings(section: &str) -> Vec<String> {
    warnings(&format!(
        "[session]\nextractors = [\"web\"]\n[extractors.web]\n{section}"
    ))
}

#[test]
fn store_on_another_host_without_tls_is_a_warning_that_hides_the_password() {
    let redis = "kind = \"redis_session\"\npreset = \"connect-redis\"\ncookie_secrets = [\"a-secret-of-the-app\"]\n";
    let sql = "kind = \"sql_session\"\npreset = \"authjs-database\"\n";
    let ca = tempfile::NamedTempFile::new().unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let pem = rcgen::CertificateParams::default()
        .self_signed(&key)
        .unwrap()
        .pem();
    std::fs::write(ca.path(), pem).unwrap();
    let ca = format!("ca_file = \"{}\"\n", ca.path().display());
    for (section, url, more, is_warned) in [
        (redis, "redis://:hunter2@redis.internal", "", true),
        (redis, "redis://:hunter2@10.1.2.3:6379/0", "", true),
        (redis, "rediss://:hunter2@redis.internal", "", false),
        (redis, "redis://:hunter2@localhost", "", false),
        (redis, "redis://:hunter2@127.0.0.1", "", false),
        (redis, "redis://:hunter2@[::1]", "", false),
        (sql, "postgres://u:hunter2@db.internal/app", "", true),
        (
            sql,
            "postgres://u:hunter2@db.internal/app?sslmode=prefer",
            "",
            true,
        ),
        (
            sql,
            "postgres://u:hunter2@db.internal/app?sslmode=verify-full",
            "",
            false,
        ),
        (sql, "postgres://u:hunter2@db.internal/app", &*ca, false),
        (sql, "postgres://u:hunter2@localhost/app", "", false),
        (sql, "mysql://u:hunter2@db.internal/app", "", true),
        (
            sql,
            "mysql://u:hunter2@db.internal/app?ssl-mode=VERIFY_IDENTITY",
            "",
            false,
        ),
        (sql, "mysql://u:hunter2@db.internal/app", &*ca, false),
        (sql, "mysql://u:hunter2@[::1]/app", "", false),
        (sql, "sqlite:///var/lib/app.sqlite3", "", false),
    ] {
        let lines = section_warnings(&format!("{section}url = \"{url}\"\n{more}"));
        let found = lines
            .iter()
            .filter(|line| line.starts_with("extractors.web.url: does not require TLS"));
        assert_eq!(found.count(), usize::from(is_warned), "{url}: {lines:?}");
        assert!(
            lines.iter().all(|line| !line.contains("hunter2")),
            "{lines:?}"
        );
    }
}

#[test]
fn unsigned_redis_session_id_needs_a_prefix_or_hash_and_an_empty_prefix_alone_is_a_warning() {
    let plain = "kind = \"redis_session\"\nurl = \"redis://localhost\"\ncookie = \"sid\"\n";
    let problems = problems(&format!(
        "[session]\nextractors = [\"web\"]\n[extractors.web]\n{plain}"
    ));
    assert!(
        problems
            .starts_with("extractors.web.key_prefix: is missing: the session's id is not signed"),
        "{problems}"
    );
    for (more, is_warned) in [
        ("key_prefix = \"sess:\"", false),
        ("key_hash = \"sha256\"", false),
        ("key_hash = \"sha256\"\nkey_prefix = \"\"", false),
        ("key_prefix = \"\"", true),
    ] {
        let lines = section_warnings(&format!("{plain}{more}"));
        let found = lines
            .iter()
            .filter(|line| line.starts_with("extractors.web.key_prefix: is empty"));
        assert_eq!(found.count(), usize::from(is_warned), "{more}: {lines:?}");
    }
}

#[test]
fn auth_js_section_without_a_subject_is_refused_with_a_suggestion() {
    let endpoint =
        "kind = \"session_endpoint\"\npreset = \"authjs\"\nurl = \"https://app.example\"\n";
    let cookie = "kind = \"authjs\"\nsecrets = [\"a-secret-of-the-app\"]\n";
    for (section, subject) in [(endpoint, "{user.id}"), (cookie, "{userId}")] {
        let toml = format!("[session]\nextractors = [\"web\"]\n[extractors.web]\n{section}");
        let report = problems(&toml);
        assert!(
            report.starts_with("extractors.web.subject: is missing"),
            "{report}"
        );
        for text in [
            "account.providerAccountId",
            &format!("subject = \"{subject}\""),
        ] {
            assert!(report.contains(text), "{text}: {report}");
        }
        assert_eq!(report.lines().count(), 1, "{report}");
        assert!(load(&format!("{toml}subject = \"{subject}\"")).is_ok());
    }
    let report = problems(&format!(
        "[session]\nextractors = [\"web\"]\n[extractors.web]\n{endpoint}subject = \"{{id}}\"\nsubject_missing = \"x\""
    ));
    assert!(
        report.starts_with("extractors.web.subject_missing: is not a key"),
        "{report}"
    );
}
