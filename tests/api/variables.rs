//! Tests of configuration by environment variables: a whole configuration in one variable, names in any letter case,
//! and values that are lists or tables.

use rollout_token::settings::Settings;
use serde_json::json;

use crate::binary::{binary, run};
use crate::configuration::{load_files, load_variables};
use crate::helpers::client_variables;

/// Loads a configuration from these environment variables and the tests' client id and secret, without a file.
fn load(variables: &[(&str, &str)]) -> Result<Settings, String> {
    load_files(&[], variables)
}

const TOML: &str = r#"
    session.extractors = ["web"]
    [server]
    listen = "127.0.0.1:9000"
    [token.claims]
    Org = "{org}"
    [extractors.web]
    kind = "cookie_session"
    keys = ["one, two", "three"]
"#;

#[test]
fn rollout_config_overrides_files_and_single_variables_override_rollout_config() {
    let json = serde_json::to_string_pretty(&toml::from_str::<toml::Table>(TOML).unwrap()).unwrap();
    for text in [TOML, &json, &format!("\u{feff}{json}")] {
        let settings =
            load(&[("ROLLOUT_CONFIG", text)]).unwrap_or_else(|report| panic!("{text}: {report}"));
        assert_eq!(settings.server.restart.listen.port(), 9000);
        let shown = settings.effective();
        assert_eq!(shown["token"]["claims"], json!({"Org": "{org}"}));
        assert_eq!(
            shown["extractors"]["web"]["keys"].as_array().unwrap().len(),
            2
        );

        // `ROLLOUT_CONFIG` has lower precedence than a single variable, and higher precedence than a file.
        let settings = load(&[
            ("ROLLOUT_CONFIG", text),
            ("ROLLOUT__SERVER__LISTEN", "127.0.0.1:9001"),
        ]);
        assert_eq!(settings.unwrap().server.restart.listen.port(), 9001);
    }
    let settings =
        load_variables(&[("ROLLOUT_CONFIG", "[extractors.proxy]\nheader = \"X-Other\"")]).unwrap();
    assert_eq!(
        settings.effective()["extractors"]["proxy"]["header"],
        "X-Other"
    );
    assert!(load_variables(&[("ROLLOUT_CONFIG", "")]).is_ok());
    // The variable `ROLLOUT_CLIENT_ID` overrides a client id in `ROLLOUT_CONFIG`.
    let settings = load_variables(&[("ROLLOUT_CONFIG", r#"{"client_id": "other"}"#)]).unwrap();
    assert_eq!(settings.client.id, crate::helpers::CLIENT_ID);
}

#[test]
fn malformed_rollout_config_is_refused_and_the_problem_does_not_quote_it() {
    for (text, want) in [
        ("client_secret = hunter2", "line 1 is not TOML"),
        ("[server]\nlisten = \"hunter2", "line 2 is not TOML"),
        (
            "{\"client_secret\": hunter2}",
            "line 1, column 19 is not JSON",
        ),
        (
            "{\"client_id\": \"hunter2\", \"client_id\": \"b\"}",
            "two members of the same name",
        ),
        ("'{\"client_secret\": \"hunter2\"}'", "is not TOML"),
    ] {
        let report = load(&[("ROLLOUT_CONFIG", text)])
            .map(|_| ())
            .expect_err(text);
        assert!(
            report.starts_with("ROLLOUT_CONFIG: ") && report.contains(want),
            "{text}: {report}"
        );
        assert!(!report.contains("hunter2"), "{report}");
    }
    let report = load(&[("ROLLOUT_CONFIG", "[server]\nlistn = \":1\"")])
        .map(|_| ())
        .expect_err("a refusal");
    assert!(report.contains("server.listn: "), "{report}");
}

const JWT: [(&str, &str); 4] = [
    ("ROLLOUT__SESSION__EXTRACTORS", "web"),
    ("ROLLOUT__EXTRACTORS__WEB__KIND", "jwt"),
    (
        "ROLLOUT__EXTRACTORS__WEB__OIDC_ISSUER",
        "https://idp.example",
    ),
    ("ROLLOUT__EXTRACTORS__WEB__AUDIENCES", "api"),
];

fn claims(variables: &[(&str, &str)]) -> serde_json::Value {
    let settings = load(&[&JWT, variables].concat())
        .unwrap_or_else(|report| panic!("{variables:?}: {report}"));
    settings.effective()["extractors"]["web"]["claims"].clone()
}

#[test]
fn case_of_section_and_key_names_is_ignored_but_mixed_case_claim_names_are_kept() {
    for (name, want) in [
        ("ROLLOUT__EXTRACTORS__WEB__CLAIMS__AZP", "azp"),
        ("ROLLOUT__EXTRACTORS__WEB__CLAIMS__orgId", "orgId"),
        ("ROLLOUT__Extractors__web__Claims__ORG_ID", "org_id"),
        (
            "ROLLOUT__extractors__WEB__claims__realm_access.roles",
            "realm_access.roles",
        ),
        (
            "ROLLOUT__EXTRACTORS__WEB__CLAIMS__Https://App/Role",
            "Https://App/Role",
        ),
    ] {
        assert_eq!(claims(&[(name, "x")]), json!({want: ["x"]}), "{name}");
    }
    let settings = load(
        &[
            &JWT[..],
            &[
                ("ROLLOUT__TOKEN__CLAIMS__authData", "{org}"),
                ("ROLLOUT__token__claims__PLAN", "1"),
            ],
        ]
        .concat(),
    );
    assert_eq!(
        settings.unwrap().effective()["token"]["claims"],
        json!({"authData": "{org}", "plan": "1"})
    );

    let report = load(
        &[
            &JWT[..],
            &[
                ("ROLLOUT__EXTRACTORS__WEB__LEEWAY", "1s"),
                ("ROLLOUT__EXTRACTORS__WEB__leeway", "2s"),
            ],
        ]
        .concat(),
    );
    let report = report.map(|_| ()).expect_err("a refusal");
    assert!(
        report.contains("sets the same key as ROLLOUT__EXTRACTORS__WEB__LEEWAY"),
        "{report}"
    );
}

#[test]
fn list_or_table_in_a_variable_is_parsed_if_the_key_accepts_one() {
    for (name, value, want) in [
        ("ROLE", "user,admin", json!({"role": ["user", "admin"]})),
        ("ROLE", r#"["a,b", "c"]"#, json!({"role": ["a,b", "c"]})),
        ("ROLE", "['a,b', 'c',]", json!({"role": ["a,b", "c"]})),
        (
            "ROLE",
            r#"{"absent_or": "user"}"#,
            json!({"role": {"absent_or": ["user"]}}),
        ),
        (
            "ROLE",
            "{ absent_or = \"a,b\" }",
            json!({"role": {"absent_or": ["a,b"]}}),
        ),
        (
            "ROLE",
            "{ present = true }",
            json!({"role": {"present": true}}),
        ),
        // The value as a whole is not a list, so it is split at its commas.
        ("ROLE", "[a,b", json!({"role": ["[a", "b"]})),
        (
            "ROLE",
            "[\"a\"] or more",
            json!({"role": ["[\"a\"] or more"]}),
        ),
    ] {
        let name = format!("ROLLOUT__EXTRACTORS__WEB__CLAIMS__{name}");
        assert_eq!(claims(&[(&name, value)]), want, "{value}");
    }
    let whole = (
        "ROLLOUT__EXTRACTORS__WEB__CLAIMS",
        r#"{"orgId": "7", "role": ["a", "b"]}"#,
    );
    assert_eq!(
        claims(&[whole]),
        json!({"orgId": ["7"], "role": ["a", "b"]})
    );

    for (value, want) in [
        ("{org}", json!("{org}")),
        ("[org]", json!("[org]")),
        ("12", json!("12")),
        ("a,b", json!("a,b")),
        (r#"{"a": ["{org}", 1]}"#, json!({"a": ["{org}", 1]})),
        ("{ a = true }", json!({"a": true})),
        ("[1, \"{sub}\"]", json!([1, "{sub}"])),
    ] {
        let settings = load(&[&JWT[..], &[("ROLLOUT__TOKEN__CLAIMS__DATA", value)]].concat());
        let settings = settings.unwrap_or_else(|report| panic!("{value}: {report}"));
        assert_eq!(
            settings.effective()["token"]["claims"]["data"],
            want,
            "{value}"
        );
    }
    // A key that expects a string keeps the value unchanged.
    let variables = [
        ("ROLLOUT__EXTRACTORS__WEB__SUBJECT", "{sub}"),
        ("ROLLOUT__TOKEN__TTL", "[1]"),
    ];
    let report = load(&[&JWT[..], &variables].concat())
        .map(|_| ())
        .expect_err("a refusal");
    assert!(
        report.contains("token.ttl: must be a duration") && !report.contains("subject"),
        "{report}"
    );
}

#[test]
fn secrets_with_commas_are_read_from_a_list_and_a_malformed_list_is_refused() {
    let session = |value: &str| {
        load(&[
            ("ROLLOUT__SESSION__EXTRACTORS", "cookie_session"),
            ("ROLLOUT__EXTRACTORS__COOKIE_SESSION__KEYS", value),
        ])
    };
    for (value, count) in [
        ("mX3v9QwL0aTz7RkB", 1),
        ("mX3v9QwL0aTz7RkB,nX3v9QwL0aTz7RkC", 2),
        (r#"["mX3v9,QwL0aTz7RkB"]"#, 1),
        (r#"["mX3v9,QwL0aTz7RkB", "[nX3v9QwL0aTz7RkC"]"#, 2),
        ("['mX3v9,QwL0aTz7RkB']", 1),
        ("{mX3v9QwL0aTz7RkB", 1),
    ] {
        let settings = session(value).unwrap_or_else(|report| panic!("{value}: {report}"));
        let want = [("extractors.cookie_session.keys".to_owned(), count)];
        assert_eq!(settings.secret_counts, want, "{value}");
        assert_eq!(
            settings.warnings.lines().collect::<Vec<_>>(),
            [""; 0],
            "{value}"
        );
    }
    for value in [
        "[mX3v9QwL0aTz7RkB",
        "[mX3v9,QwL0aTz7RkB]",
        r#"["mX3v9QwL0aTz7RkB"#,
    ] {
        let report = session(value).map(|_| ()).expect_err(value);
        let want = "extractors.cookie_session.keys: begins with `[` but is not a list";
        assert!(
            report.starts_with(want) && !report.contains("mX3v9"),
            "{report}"
        );
    }
    // Docker's `--env-file` keeps the quotes around the list, so a warning suggests removing them.
    let settings = session("\"mX3v9QwL0aTz7RkB,nX3v9QwL0aTz7RkC\"").unwrap();
    assert!(
        settings
            .warnings
            .lines()
            .any(|line| line.contains("the list as a whole is wrapped in double quotes"))
    );

    let password = |value: &str| {
        load(&[
            ("ROLLOUT__SESSION__EXTRACTORS", "iron_session"),
            ("ROLLOUT__EXTRACTORS__IRON_SESSION__COOKIE", "app"),
            ("ROLLOUT__EXTRACTORS__IRON_SESSION__PASSWORD", value),
        ])
    };
    let one = "mX3v9QwL0aTz7RkBmX3v9QwL0aTz7RkC";
    let table = format!(r#"{{"1": "{one}", "2": "{one}"}}"#);
    let counts = |value: &str| password(value).map(|settings| settings.secret_counts);
    assert_eq!(
        counts(&table),
        Ok(vec![("extractors.iron_session.password".to_owned(), 2)])
    );
    for text in [one.to_owned(), format!("[{one}]"), format!("{one},{one}")] {
        assert_eq!(counts(&text), Ok(Vec::new()), "{text}");
    }
    let report = counts(&format!("{{{one}}}")).expect_err("a refusal");
    assert!(
        report.contains("password: begins with `{` but is not a table")
            && !report.contains("mX3v9"),
        "{report}"
    );
}

#[test]
fn jwks_and_public_key_variables_may_contain_escaped_line_breaks() {
    let jwks = r#"{"keys":[{"kty":"EC","crv":"P-256","kid":"k","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}]}"#;
    let pem = "-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEf83OJ3D2xF1Bg8vub9tLe1gHMzV7\n6e8Tus9uPHvRVEXH8UTNG72bfocs3+257rn0s2ldbqkLJK2KRiMohYjlrQ==\n-----END PUBLIC KEY-----\n";
    for (key, value) in [
        ("JWKS", jwks.to_owned()),
        ("JWKS", jwks.replace("[{", "[\\n{")),
        ("JWKS", jwks.replace("[{", "[\n{")),
        ("PUBLIC_KEY", pem.to_owned()),
        ("PUBLIC_KEY", pem.replace('\n', "\\n")),
        ("PUBLIC_KEY", pem.replace('\n', "\r\n")),
    ] {
        let name = format!("ROLLOUT__EXTRACTORS__WEB__{key}");
        let settings = load(&[
            ("ROLLOUT__SESSION__EXTRACTORS", "web"),
            ("ROLLOUT__EXTRACTORS__WEB__KIND", "jwt"),
            ("ROLLOUT__EXTRACTORS__WEB__ISSUERS", "https://idp.example"),
            ("ROLLOUT__EXTRACTORS__WEB__AUDIENCES", "api"),
            (&name, &value),
        ]);
        assert!(settings.is_ok(), "{value}: {:?}", settings.map(|_| ()));
    }
}

#[test]
fn string_in_a_file_whose_name_looks_like_a_variable_is_not_split_at_commas() {
    let directory = tempfile::tempdir().unwrap();
    let file = "ROLLOUT__EXTRACTORS__WEB__KEYS";
    let toml = "session.extractors = ['web']\n[extractors.web]\nkind = 'cookie_session'\nsubject = '{id}'\n\
                keys = 'one-secret-of-the-app,with-a-comma'\n";
    std::fs::write(directory.path().join(file), toml).unwrap();
    let mut command = binary(&["check-config", "--config", file]);
    command
        .env_clear()
        .envs(client_variables())
        .current_dir(&directory);
    let (code, out, err) = run(&mut command);
    assert_eq!(code, Some(0), "{err}");
    assert!(out.contains("extractors.web.keys: 1 secret\n"), "{out}");
}

#[test]
fn misspelled_variable_is_named_beside_the_problems_that_it_causes() {
    let registry = rollout_token::Registry::builtin();
    let sources = rollout_token::config::Sources {
        environment: client_variables(),
        foreign: vec!["ROLLOUT_SESSION_EXTRACTORS".to_owned()],
        ..rollout_token::config::Sources::default()
    };
    let report =
        rollout_token::settings::load(&sources, &registry, &crate::configuration::context())
            .expect_err("no extractors")
            .to_string();
    assert!(report.contains("session.extractors: is empty"), "{report}");
    assert!(
        report.contains("did you mean ROLLOUT__SESSION__EXTRACTORS?"),
        "{report}"
    );
}

#[test]
fn variable_with_missing_or_extra_underscores_is_refused_with_a_hint() {
    let report = load(&[("ROLLOUT__EXTRACTORS____WEB__KIND", "flask")]).unwrap_err();
    assert!(
        report.contains("ROLLOUT__EXTRACTORS____WEB__KIND: has an empty part"),
        "{report}"
    );
    let report = load(&[
        ("ROLLOUT__SESSION__EXTRACTORS", "flask"),
        (
            "ROLLOUT__EXTRACTORS__FLASK_SECRET_KEY",
            "public-secret-0123456789",
        ),
    ])
    .unwrap_err();
    assert!(
        report.contains("did you mean ROLLOUT__EXTRACTORS__FLASK__SECRET_KEY?"),
        "{report}"
    );
}

#[test]
fn file_name_in_rollout_config_is_refused_with_a_hint_to_use_the_config_flag() {
    let report = load(&[("ROLLOUT_CONFIG", "rollout-token.toml")]).unwrap_err();
    assert!(report.contains("use --config FILE"), "{report}");
}

#[test]
fn several_origins_in_one_string_are_refused_with_a_hint_to_write_a_list() {
    let toml = "origins.allowed = \"https://a.example, https://b.example\"";
    let report = load(&[("ROLLOUT_CONFIG", toml)]).unwrap_err();
    assert!(report.contains("write a list"), "{report}");
}
