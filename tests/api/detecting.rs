//! Tests of `detect` and `init` as a user sees them: they turn a pasted request into a working configuration.

use std::io::Write;
use std::process::{Command, Stdio};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::binary::{good_session, run};
use crate::helpers::SESSION_SECRET;

/// A command that runs the binary without any configuration.
fn bare(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rollout-token"));
    command.args(arguments).env_clear();
    command
}

fn run_with_input(command: &mut Command, input: &str) -> (Option<i32>, String, String) {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    let mut stdin = child.stdin.take().expect("standard input");
    stdin.write_all(input.as_bytes()).expect("written");
    drop(stdin);
    let output = child.wait_with_output().expect("an exit");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

/// The cookies of a `cookie-session` session, which never expires, and the key that signs them.
fn cookie_session() -> (String, String) {
    let text = include_str!("../vectors/cookie-session.json");
    let vectors: Value = serde_json::from_str(text).expect("JSON");
    let case = &vectors["cases"][0];
    let cookies = case["request"]["cookies"].as_object().expect("cookies");
    let pairs: Vec<String> = cookies
        .iter()
        .map(|(name, value)| format!("{name}={}", value.as_str().expect("text")))
        .collect();
    let key = case["config"]["keys"][0].as_str().expect("a key");
    (pairs.join("; "), key.to_owned())
}

const EXPRESS: &str =
    "connect.sid=s%3AlToMmI05ARo5cCChpO-Fbpt33tmnkyGQ.eSXXn2vfaqFsqltzA9MIcuyN7G0vDTkWFDG59GH9PAo";

#[test]
fn detect_names_the_credential_in_a_curl_command_raw_request_or_cookie_line() {
    let want = json!({"credentials": [{
        "place": "cookie:connect.sid",
        "kinds": ["redis_session", "sql_session"],
        "preset": "connect-redis",
        "confidence": "likely",
        "needs": ["cookie_secrets"],
        "page": "docs/recipes/express-session.md",
    }]});
    let curl = format!(
        "https://app.example/me|-H|accept: */*|-H|Cookie: theme=dark; {EXPRESS}|--compressed"
    );
    let mut arguments = vec!["detect", "--json", "curl"];
    arguments.extend(curl.split('|'));
    let (code, out, err) = run(&mut bare(&arguments));
    let seen: Value = serde_json::from_str(&out).expect(&err);
    assert_eq!((code, seen), (Some(0), want.clone()));
    for text in [
        format!("curl 'https://app.example/me' \\\n  -H 'cookie: {EXPRESS}' --insecure\n"),
        format!("GET /me HTTP/1.1\r\nHost: app.example\r\nCookie: {EXPRESS}\r\n\r\n"),
        format!("Cookie: {EXPRESS}\n"),
    ] {
        let (code, out, err) =
            run_with_input(&mut bare(&["detect", "--json", "--raw", "-"]), &text);
        let seen: Value = serde_json::from_str(&out).expect(&err);
        assert_eq!((code, &seen), (Some(0), &want), "{text}");
    }
}

#[test]
fn detect_prints_the_section_as_a_file_and_as_equivalent_variables() {
    let (code, out, _) = run(&mut bare(&["detect", "-b", EXPRESS]));
    assert_eq!(code, Some(0));
    let (_, forms) = out.split_once("As a file:\n").expect("a file");
    let (file, rest) = forms.split_once("As variables:\n").expect("variables");
    let (variables, _) = rest.split_once("Nothing was sent").expect("an end");
    let directory = tempfile::tempdir().expect("a directory");
    let secret = directory.path().join("secret");
    std::fs::write(&secret, SESSION_SECRET).expect("written");
    let file = file.replace(
        "/run/secrets/cookie_secrets",
        secret.to_str().expect("UTF-8"),
    );
    let path = directory.path().join("rollout-token.toml");
    std::fs::write(&path, file).expect("written");

    let config = path.to_str().expect("UTF-8");
    let mut by_file = bare(&["--config", config, "check-config", "--print"]);
    let mut by_variables = bare(&["check-config", "--print"]);
    let is_variable = |line: &&str| !line.is_empty() && !line.starts_with("# ");
    for line in variables.lines().filter(is_variable) {
        let (name, value) = line.split_once('=').expect("a variable");
        let value = if value.is_empty() {
            SESSION_SECRET
        } else {
            value.trim_matches('\'')
        };
        by_variables.env(name, value);
    }
    for command in [&mut by_file, &mut by_variables] {
        command
            .env("ROLLOUT_CLIENT_ID", crate::helpers::CLIENT_ID)
            .env("ROLLOUT_CLIENT_SECRET", crate::helpers::CLIENT_SECRET);
    }
    let (code, printed, err) = run(&mut by_file);
    assert_eq!(code, Some(0), "{err}");
    assert!(printed.contains("key_prefix = [\"sess:\"]"));
    assert_eq!(run(&mut by_variables).1, printed);
}

#[test]
fn detect_with_the_secret_shows_the_session_and_the_token_subject() {
    let (cookies, key) = cookie_session();
    let set = format!("keys={key}");
    let (code, out, err) = run(&mut bare(&["detect", "-b", &cookies, "--set", &set]));
    assert_eq!(code, Some(0), "{err}");
    for part in [
        "session   {userId: text, user: {id: text, name: text",
        "subject   {userId} or {user.id}",
        "token for \"u-1001\"",
    ] {
        assert!(out.contains(part), "{part} in {out}");
    }
    assert!(!out.contains(&key) && !out.contains("Ada"), "{out}");

    let (code, out, _) = run(&mut bare(&[
        "detect",
        "-b",
        &cookies,
        "--set",
        &set,
        "--set",
        "subject={user.name}",
    ]));
    assert!(
        code == Some(0) && out.contains("token for \"Ada\""),
        "{out}"
    );

    let (code, _, err) = run(&mut bare(&[
        "detect",
        "-b",
        &cookies,
        "--set",
        "keys=n0t-the-key",
    ]));
    assert_eq!(code, Some(1));
    assert!(
        err.contains("bad_signature") && !err.contains("n0t-the-key"),
        "{err}"
    );

    let bearer = format!("Authorization: Bearer {}", good_session());
    let set = format!("secret={SESSION_SECRET}");
    let (code, out, err) = run(&mut bare(&["detect", "-H", &bearer, "--set", &set]));
    assert!(
        code == Some(0) && out.contains("token for \"user-1\""),
        "{out}{err}"
    );
}

/// `detect` fetches an issuer's keys only if the operator names their URL.
#[test]
fn detect_without_jwks_url_fetches_no_keys_and_suggests_jwks_file() {
    let token = "eyJhbGciOiJSUzI1NiIsImtpZCI6IjEifQ.eyJpc3MiOiJodHRwOi8vMTI3LjAuMC4xOjEvIiwic3ViIjoidSJ9.c2ln";
    let bearer = format!("Authorization: Bearer {token}");
    let (code, _, err) = run(&mut bare(&[
        "detect",
        "-H",
        &bearer,
        "--set",
        "subject={sub}",
    ]));
    assert_eq!(code, Some(2));
    assert!(err.contains("--set jwks_file=PATH"), "{err}");
}

#[test]
fn detect_reports_a_request_without_a_known_credential_or_without_headers() {
    let (code, out, _) = run(&mut bare(&["detect", "-b", "theme=dark; lang=de"]));
    assert!(
        code == Some(0) && out.starts_with("No known credential found."),
        "{out}"
    );
    let (code, out, _) = run(&mut bare(&["detect", "--json", "-b", "theme=dark"]));
    assert_eq!(
        (code, out.as_str()),
        (Some(0), "{\n  \"credentials\": []\n}\n")
    );
    let (code, _, err) = run(&mut bare(&["detect"]));
    assert!(
        code == Some(2) && err.contains("the request has no header"),
        "{err}"
    );
}

fn init(directory: &std::path::Path, arguments: &[&str]) -> Command {
    let mut command = bare(&["init"]);
    command.args(arguments).current_dir(directory);
    command
}

#[test]
fn init_writes_a_configuration_that_is_valid_once_the_secrets_are_set() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path();
    let (cookies, key) = cookie_session();
    let text = format!("curl 'https://app.example/' -H 'Cookie: {cookies}'");
    let arguments = ["--from", "-", "--app", "express"];
    let (code, out, err) = run_with_input(&mut init(path, &arguments), &text);
    assert_eq!(code, Some(0), "{err}");
    for part in [
        "Written: rollout-token.toml and .env.example, for cookie_session.\nSee ",
        "docs/recipes/express.md",
        "app.use(createProxyMiddleware({ target: \"http://127.0.0.1:8080\", pathFilter: \"/rollout\" }));",
        "ROLLOUT__EXTRACTORS__WEB__KEYS",
        "check-config: the configuration is valid once",
    ] {
        assert!(out.contains(part), "{part} in {out}");
    }
    let example = std::fs::read_to_string(path.join(".env.example")).expect("the example");
    assert!(
        example.contains(": keep the single quotes; a comma separates two secrets\n")
            && example.contains("ROLLOUT__EXTRACTORS__WEB__KEYS_FILE=")
            && example.contains("\nROLLOUT__EXTRACTORS__WEB__KEYS=''\n"),
        "{example}"
    );
    assert!(example.contains("\n# ROLLOUT_CLIENT_ID=''\n"), "{example}");

    let config = path.join("rollout-token.toml");
    let written = std::fs::read_to_string(&config).expect("the configuration");
    assert!(
        !written.contains(&key) && !written.contains("eyJ"),
        "{written}"
    );
    assert!(written.starts_with("#:schema ./"), "{written}");
    let config = config.to_str().expect("UTF-8");
    let mut explain = bare(&["--config", config, "explain", "-b", &cookies]);
    let (code, out, err) = run(explain.env("ROLLOUT__EXTRACTORS__WEB__KEYS", &key));
    assert!(
        code == Some(0) && out.contains("subject = \"u-1001\""),
        "{out}{err}"
    );

    let (code, _, err) = run(&mut init(path, &["--preset", "clerk"]));
    assert_eq!(code, Some(2));
    assert!(
        err.contains("because rollout-token.toml and .env.example already exist:"),
        "{err}"
    );
    let unchanged = std::fs::read_to_string(config).expect("the configuration");
    assert_eq!(unchanged, written);
    let (code, _, err) = run(&mut init(path, &["--preset", "clerk", "--force"]));
    assert_eq!(code, Some(0), "{err}");
    let replaced = std::fs::read_to_string(config).expect("the configuration");
    assert!(replaced.contains("preset = \"clerk\""), "{replaced}");
}

#[test]
fn init_writes_a_valid_configuration_for_every_app_and_every_kind_and_preset() {
    let registry = rollout_token::Registry::builtin();
    let mut all: Vec<Vec<&str>> = ["express", "next", "vite", "nginx", "caddy", "django"]
        .map(|app| vec!["--app", app])
        .into();
    for kind in registry.names().filter(|kind| *kind != "static_user") {
        all.push(vec!["--kind", kind]);
        let (_, entry) = registry.entry(kind).expect("a kind");
        for (preset, _) in entry.presets {
            all.push(vec!["--kind", kind, "--preset", preset]);
        }
    }
    let mut wrong = Vec::new();
    for arguments in &all {
        let directory = tempfile::tempdir().expect("a directory");
        let (code, out, err) = run(&mut init(directory.path(), arguments));
        if code != Some(0) || !out.contains("check-config: the configuration is valid") {
            wrong.push(format!("{arguments:?}: {err}"));
        }
    }
    assert!(all.len() > 40 && wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn init_writes_keys_from_set_options_and_refuses_secrets() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path();
    let arguments = [
        "--app",
        "express",
        "--set",
        "subject={userId}",
        "--set",
        "url=redis://localhost:6380",
    ];
    let (code, _, err) = run(&mut init(path, &arguments));
    assert_eq!(code, Some(0), "{err}");
    let written = std::fs::read_to_string(path.join("rollout-token.toml")).expect("a file");
    for line in ["subject = \"{userId}\"", "url = \"redis://localhost:6380\""] {
        assert!(written.contains(line), "{written}");
    }
    let (code, _, err) = run(&mut init(
        path,
        &[
            "--app",
            "express",
            "--force",
            "--set",
            "cookie_secrets=s3cr3t",
        ],
    ));
    assert_eq!(code, Some(2));
    assert!(
        err.contains("ROLLOUT__EXTRACTORS__WEB__COOKIE_SECRETS") && !err.contains("s3cr3t"),
        "{err}"
    );
}

#[test]
fn detect_shows_why_a_subject_template_yields_no_token_and_lists_candidates() {
    let (cookies, key) = cookie_session();
    let set = format!("keys={key}");
    for (subject, want) in [
        (
            "{passport.user}",
            "no token: {passport.user}: the session has no such member. Candidates: {userId}, {user.id}",
        ),
        (
            "{user}",
            "no token: {user}: rejected with reason subject_type. Candidates: {userId}, {user.id}",
        ),
    ] {
        let subject = format!("subject={subject}");
        let arguments = ["detect", "-b", &cookies, "--set", &set, "--set", &subject];
        let (code, out, err) = run(&mut bare(&arguments));
        assert!(code == Some(0) && out.contains(want), "{out}{err}");
        assert!(out.contains("--set subject='{userId}'"), "{out}");
    }
}

#[test]
fn detect_without_the_store_address_suggests_set_url() {
    let (code, _, err) = run(&mut bare(&[
        "detect",
        "-b",
        EXPRESS,
        "--set",
        "cookie_secrets=n0t-the-secret",
    ]));
    assert_eq!(code, Some(2));
    assert!(
        err.contains("--set url=redis://localhost:6379") && !err.contains("n0t-the-secret"),
        "{err}"
    );
}

/// `setsid` starts the command without a controlling terminal.
#[test]
fn detect_without_a_terminal_suggests_a_file_for_the_secret() {
    let mut command = Command::new("setsid");
    command
        .args(["--wait", env!("CARGO_BIN_EXE_rollout-token")])
        .args(["detect", "-b", EXPRESS, "--set", "cookie_secrets"])
        .stdin(Stdio::null());
    let (code, _, err) = run(&mut command);
    assert_eq!(code, Some(1));
    assert!(err.contains("use --set cookie_secrets_file=PATH"), "{err}");
}

/// A JWT with this issuer, the algorithm RS256 and an invalid signature.
fn token_of(issuer: &str) -> String {
    let encode = |text: String| URL_SAFE_NO_PAD.encode(text);
    format!(
        "{}.{}.c2ln",
        encode(r#"{"alg":"RS256","kid":"1"}"#.to_owned()),
        encode(format!(r#"{{"iss":"{issuer}","aud":"app","sub":"u-1"}}"#))
    )
}

#[test]
fn init_derives_urls_from_the_request_and_marks_every_guess() {
    let opaque = "Cookie: sid=0123456789abcdef0123456789abcdef";
    let bearer = |issuer| format!("Authorization: Bearer {}", token_of(issuer));
    for (request, line, guesses) in [
        (
            format!("curl 'https://shop.example.com/me?x=1' -H '{opaque}'"),
            "url = \"https://shop.example.com/me\"",
            "url, subject",
        ),
        (
            format!("GET /orders HTTP/1.1\r\nHost: shop.example.com\r\n{opaque}\r\n\r\n"),
            "url = \"https://shop.example.com/api/me\"",
            "url, subject",
        ),
        (
            format!("curl http://localhost:4000/ -H '{opaque}'"),
            "url = \"http://localhost:4000/api/me\"",
            "url, subject",
        ),
        (
            format!("{opaque}\n"),
            "url = \"http://localhost:3000/api/me\"",
            "url, subject",
        ),
        (
            format!(
                "curl https://shop.example.com -H '{}'",
                bearer("http://127.0.0.1:7001")
            ),
            "jwks_url = \"http://127.0.0.1:7001/.well-known/jwks.json\"",
            "jwks_url",
        ),
        (
            format!("curl https://shop.example.com -H '{}'", bearer("shop")),
            "jwks_url = \"https://shop.example.com/.well-known/jwks.json\"",
            "jwks_url",
        ),
    ] {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path();
        let (code, out, err) = run_with_input(&mut init(path, &["--from", "-"]), &request);
        assert_eq!(code, Some(0), "{request}: {err}");
        let written = std::fs::read_to_string(path.join("rollout-token.toml")).expect("a file");
        let found = written.lines().find(|written| written.starts_with(line));
        assert!(
            found.is_some_and(|line| line.contains("# an example: replace it")),
            "{request}: {written}"
        );
        let want =
            format!("\nCheck the example values of these keys before you start: {guesses}\n");
        assert!(out.contains(&want), "{request}: {out}");
    }

    let directory = tempfile::tempdir().expect("a directory");
    let (_, out, _) = run(&mut init(directory.path(), &["--kind", "jwt"]));
    let want = "Check the example values of these keys before you start: oidc_issuer, audiences\n";
    assert!(out.contains(want), "{out}");
    let arguments = [
        "--kind",
        "session_endpoint",
        "--set",
        "url=https://app.example.com/me",
        "--set",
        "cookies=sid",
        "--set",
        "subject={id}",
        "--force",
    ];
    let (code, out, err) = run(&mut init(directory.path(), &arguments));
    assert!(
        code == Some(0) && !out.contains("Check the example values"),
        "{out}{err}"
    );
}

#[test]
fn env_example_written_by_init_keeps_special_characters_when_a_shell_reads_it() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path();
    let (code, out, err) = run(&mut init(path, &["--app", "express"]));
    assert_eq!(code, Some(0), "{err}");
    let next = "Next:\n  cp .env.example .env  # then fill in the values\n  set -a; . ./.env; set +a\n  rollout-token --config rollout-token.toml dev\n";
    assert!(out.ends_with(next), "{out}");
    let example = std::fs::read_to_string(path.join(".env.example")).expect("the example");
    let name = "ROLLOUT__EXTRACTORS__WEB__COOKIE_SECRETS";
    let secret = "a$HOME #b `c` \"d\"";
    let filled = example.replace(&format!("{name}=''"), &format!("{name}='{secret}'"));
    std::fs::write(path.join(".env"), filled).expect("written");
    let mut shell = Command::new("sh");
    let script = format!("set -a; . ./.env; set +a; printenv {name}");
    let (_, printed, err) = run(shell.args(["-c", &script]).current_dir(path));
    assert_eq!(printed.trim_end_matches('\n'), secret, "{err}");
}

#[test]
fn init_writes_nothing_if_a_key_is_misspelled() {
    let directory = tempfile::tempdir().expect("a directory");
    let arguments = ["--app", "express", "--set", "subjct=abc", "--force"];
    let (code, out, err) = run(&mut init(directory.path(), &arguments));
    assert_eq!((code, out.as_str()), (Some(2), ""));
    assert!(err.contains("extractors.web.subjct"), "{err}");
    let files = std::fs::read_dir(directory.path()).expect("a directory");
    assert_eq!(files.count(), 0);
}

#[test]
fn init_names_the_other_credentials_in_the_request() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path();
    let (cookies, _) = cookie_session();
    let text = format!("Cookie: {EXPRESS}; {cookies}\n");
    let (code, out, err) = run_with_input(&mut init(path, &["--from", "-"]), &text);
    assert_eq!(code, Some(0), "{err}");
    assert!(
        out.contains("Also found: cookie:connect.sid (express-session")
            && out.contains("; choose with --kind redis_session.\n"),
        "{out}"
    );
    let arguments = ["--from", "-", "--kind", "redis_session", "--force"];
    let (code, out, err) = run_with_input(&mut init(path, &arguments), &text);
    assert_eq!(code, Some(0), "{err}");
    assert!(
        out.contains("Found cookie:connect.sid") && !out.contains("Also found"),
        "{out}"
    );
}

#[test]
fn library_name_as_kind_or_preset_is_refused_with_the_kinds_and_presets_to_use() {
    let directory = tempfile::tempdir().expect("a directory");
    for flag in ["--preset", "--kind"] {
        for arguments in [
            &[flag, "express-session"][..],
            &[flag, "express-session", "--from", "-"],
        ] {
            let mut command = init(directory.path(), arguments);
            let (code, _, err) = run(command.stdin(Stdio::null()));
            assert_eq!(code, Some(2));
            assert!(
                err.contains("use --kind redis_session --preset connect-redis, or --kind sql_session --preset connect-pg-simple"),
                "{err}"
            );
        }
    }
    let mut check = bare(&["check-config"]);
    check
        .env("ROLLOUT__SESSION__EXTRACTORS", "web")
        .env("ROLLOUT__EXTRACTORS__WEB__KIND", "express-session");
    let (code, _, err) = run(&mut check);
    assert_eq!(code, Some(2));
    assert!(
        err.contains(
            "write kind = \"redis_session\", preset = \"connect-redis\", or kind = \"sql_session\", preset = \"connect-pg-simple\""
        ),
        "{err}"
    );
}

#[test]
fn completion_offers_kinds_and_presets_and_an_unknown_kind_is_refused_with_the_list_of_kinds() {
    for shell in ["bash", "zsh", "fish"] {
        let (_, script, _) = run(&mut bare(&["completions", shell]));
        for name in ["redis_session", "connect-pg-simple"] {
            assert!(script.contains(name), "{name} in the script for {shell}");
        }
    }
    let directory = tempfile::tempdir().expect("a directory");
    let (_, _, err) = run(&mut init(directory.path(), &["--kind", "mine"]));
    assert!(err.contains("mine is not a kind. The kinds are"), "{err}");
}
