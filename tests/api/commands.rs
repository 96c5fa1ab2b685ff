//! Tests of the binary as a user sees it: commands, exit codes, signals and output.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::binary::{FAR, Process, binary, good_session, run};
use crate::helpers::{CLIENT_ID, CLIENT_SECRET, answer, client, sign_session, verified};
use crate::idp::Idp;

#[test]
fn check_config_exits_with_0_for_a_valid_and_2_for_an_invalid_configuration() {
    let (code, out, err) = run(&mut binary(&["check-config"]));
    assert_eq!(
        (code, out.as_str(), err.as_str()),
        (Some(0), "The configuration is valid.\n", "")
    );

    let (code, out, _) = run(&mut binary(&["check-config", "--print"]));
    let shown: toml::Table = toml::from_str(&out).expect("TOML");
    assert_eq!(code, Some(0));
    assert_eq!(shown["server"]["idle_timeout"].as_str(), Some("75s"));
    assert_eq!(shown["client_secret"].as_str(), Some("[REDACTED]"));
    assert_eq!(
        shown["extractors"]["bearer"]["secret"].as_str(),
        Some("[REDACTED]")
    );

    let (code, out, err) = run(binary(&["check-config"])
        .env("ROLLOUT__SERVER__PROT", "1")
        .env("ROLLOUT__TOKEN__TTL", "5")
        .env("ROLLOUT__EXTRACTORS__BEARER__ALGORITHMS", "HS257"));
    assert_eq!((code, out.as_str()), (Some(2), ""));
    for key in [
        "server.prot:",
        "token.ttl:",
        "extractors.bearer.algorithms:",
    ] {
        assert!(err.contains(key), "{key} in {err}");
    }
    for secret in [CLIENT_SECRET, crate::helpers::SESSION_SECRET] {
        assert!(!err.contains(secret));
    }
}

#[test]
fn check_config_and_explain_work_without_a_client_id_and_secret() {
    let without_client = |arguments: &[&str]| {
        let mut command = binary(arguments);
        command
            .env_remove("ROLLOUT_CLIENT_ID")
            .env_remove("ROLLOUT_CLIENT_SECRET");
        command
    };
    let (code, out, err) = run(&mut without_client(&["check-config"]));
    assert_eq!(
        (code, out.as_str()),
        (Some(0), "The configuration is valid.\n")
    );
    for key in ["client_id: is not set", "client_secret: is not set"] {
        assert!(err.contains(key), "{key} in {err}");
    }
    let (code, out, _) = run(&mut without_client(&["check-config", "--print"]));
    let shown: toml::Table = toml::from_str(&out).expect("TOML");
    assert_eq!(code, Some(0));
    assert!(!shown.contains_key("client_id") && !shown.contains_key("client_secret"));

    let cookie = format!("session={}", good_session());
    let (code, out, err) = run(&mut without_client(&["explain", "-b", &cookie]));
    assert_eq!((code, err.as_str()), (Some(0), ""), "{out}");
    assert!(out.contains("user-1"), "{out}");

    // A client id or secret that is set must be valid, and `serve` requires both.
    let (code, _, err) =
        run(without_client(&["check-config"]).env("ROLLOUT_CLIENT_ID", "your-client-id"));
    assert!(code == Some(2) && err.contains("client_id: "), "{err}");
    let (code, _, err) = run(&mut without_client(&["serve"]));
    assert!(
        code == Some(2) && err.contains("client_id: ") && err.contains("client_secret: "),
        "{err}"
    );
}

#[tokio::test]
async fn warning_is_printed_by_check_config_and_logged_at_start_and_after_a_reload() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("secret");
    std::fs::write(&file, "keyboard cat").unwrap();
    let variable = "ROLLOUT__EXTRACTORS__COOKIE__SECRET";
    let with_file = |command: &mut Command| {
        command
            .env_remove(variable)
            .env(format!("{variable}_FILE"), &file);
    };
    let mut command = binary(&["check-config"]);
    with_file(&mut command);
    let (code, out, err) = run(&mut command);
    assert_eq!(
        (code, out.as_str()),
        (Some(0), "The configuration is valid.\n")
    );
    let warning = "extractors.cookie.secret: is an example from documentation";
    assert!(
        err.starts_with(warning) && err.lines().count() == 1,
        "{err}"
    );

    let mut command = binary(&["serve"]);
    with_file(&mut command);
    let mut process = Process::start(&mut command);
    process.signal(rustix::process::Signal::HUP);
    process.line_with(warning);
    process.line_with("config_reloaded");
    process.signal(rustix::process::Signal::INT);
    process.signal(rustix::process::Signal::INT);
    let (_, log) = process.end();
    assert_eq!(
        log.matches(warning).count(),
        2,
        "the warning is logged once at start and once after the reload: {log}"
    );
    assert!(!log.contains("keyboard"), "{log}");
}

#[test]
fn printed_configuration_is_valid_toml_without_unset_keys() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let key = "0123456789abcdef".repeat(8);
    let toml = format!(
        "[session]\nextractors = [\"rails\"]\n[extractors.rails]\ncookie = \"_app_session\"\nsecret_key_base = \"{key}\"\n\
         rotations = [{{ digest = \"sha1\" }}]"
    );
    std::fs::write(file.path(), toml).unwrap();
    let printed = run(Command::new(env!("CARGO_BIN_EXE_rollout-token"))
        .args([
            "check-config",
            "--print",
            "--config",
            file.path().to_str().unwrap(),
        ])
        .env_clear()
        .envs([
            ("ROLLOUT_CLIENT_ID", CLIENT_ID),
            ("ROLLOUT_CLIENT_SECRET", CLIENT_SECRET),
        ]));
    assert_eq!((printed.0, printed.2.as_str()), (Some(0), ""));
    let shown: toml::Table = toml::from_str(&printed.1).expect("TOML");
    let rotation = &shown["extractors"]["rails"]["rotations"][0];
    assert_eq!(
        rotation.as_table().map(toml::Table::len),
        Some(1),
        "only the key that was set is printed: {rotation}"
    );
}

#[test]
fn config_flag_is_accepted_before_and_after_the_command() {
    let file = |text: &str| {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        file
    };
    let files = [
        file("log.level = \"warn\"\nlog.subject = \"plain\""),
        file("log.level = \"error\""),
    ];
    let [first, second] = files.each_ref().map(|file| file.path().to_str().unwrap());
    for arguments in [
        &[
            "--config",
            first,
            "check-config",
            "--print",
            "--config",
            second,
        ][..],
        &[
            "--config",
            first,
            "--config",
            second,
            "check-config",
            "--print",
        ],
        &[
            "check-config",
            "--print",
            "--config",
            first,
            "--config",
            second,
        ],
    ] {
        let (code, out, err) = run(&mut binary(arguments));
        assert_eq!(code, Some(0), "{err}");
        let shown: toml::Table = toml::from_str(&out).expect("TOML");
        let log = &shown["log"];
        assert_eq!(
            (log["level"].as_str(), log["subject"].as_str()),
            (Some("error"), Some("plain")),
            "{arguments:?}"
        );
    }
}

#[test]
fn dev_reads_a_configuration_from_a_pipe() {
    let (reader, mut writer) = std::io::pipe().unwrap();
    writer.write_all(b"prot = 8080").unwrap();
    drop(writer);
    let (code, _, err) = run(binary(&["dev", "--config", "/dev/stdin"]).stdin(reader));
    assert!(code == Some(2) && err.contains("prot: "), "{err}");
}

#[test]
fn only_variables_of_the_service_must_be_utf8() {
    use std::os::unix::ffi::OsStrExt;
    let not_text = std::ffi::OsStr::from_bytes(b"\xff");
    let with = |name: &str| run(binary(&["check-config"]).env(name, not_text));
    assert_eq!(with("ROLLOUT_PORT").0, Some(0));
    for name in ["ROLLOUT_CLIENT_SECRET", "ROLLOUT__SERVER__LISTEN"] {
        let (code, _, err) = with(name);
        assert!(
            code == Some(2) && err.contains(&format!("{name}: is not UTF-8")),
            "{err}"
        );
    }
}

/// `tests/traces` tests a build with the feature `otel`.
#[cfg(not(feature = "otel"))]
#[test]
fn otlp_endpoint_is_a_warning_in_a_build_without_the_otel_feature() {
    let asks = |name, value| {
        run(binary(&["check-config"])
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318")
            .env(name, value))
    };
    let (code, _, err) = asks("OTEL_SERVICE_NAME", "tokens");
    assert_eq!(code, Some(0));
    assert!(
        err.contains("OTEL_EXPORTER_OTLP_ENDPOINT: ") && err.contains("--features otel"),
        "{err}"
    );
    for (name, value) in [
        ("OTEL_SDK_DISABLED", "true"),
        ("OTEL_TRACES_EXPORTER", "none"),
    ] {
        assert_eq!(asks(name, value).2, "", "{name}");
    }
}

#[test]
fn usage_error_or_missing_config_file_exits_with_code_2() {
    assert_eq!(run(&mut binary(&["serv"])).0, Some(2));
    assert_eq!(run(&mut binary(&["mint"])).0, Some(2));
    assert_eq!(
        run(&mut binary(&["--config", "/nowhere.toml", "check-config"])).0,
        Some(2)
    );
}

#[test]
fn mint_and_inspect_need_only_the_client_id_and_secret() {
    let only_client = |arguments: &[&str], secret: &str| {
        run(Command::new(env!("CARGO_BIN_EXE_rollout-token"))
            .args(arguments)
            .env_clear()
            .env("ROLLOUT_CLIENT_ID", CLIENT_ID)
            .env("ROLLOUT_CLIENT_SECRET", secret))
    };
    let (code, token, _) = only_client(&["mint", "user-1"], CLIENT_SECRET);
    assert_eq!(code, Some(0));
    assert_eq!(verified(&json!({"token": token.trim()}))["sub"], "user-1");

    let (code, out, _) = only_client(&["inspect", token.trim()], CLIENT_SECRET);
    assert_eq!(code, Some(0));
    for text in [
        "\"sub\": \"user-1\"",
        "HS512",
        "signature is good",
        "expires in ",
    ] {
        assert!(out.contains(text), "{text} in {out}");
    }
    let (code, _, err) = only_client(&["inspect", token.trim()], "another-secret-another-secret");
    assert_eq!(code, Some(1));
    assert!(!err.contains("another-secret") && !err.contains(token.trim()));
    let (code, _, err) = run(Command::new(env!("CARGO_BIN_EXE_rollout-token"))
        .args(["inspect", token.trim()])
        .env_clear()
        .env("ROLLOUT_CLIENT_ID", "other-client")
        .env("ROLLOUT_CLIENT_SECRET", CLIENT_SECRET));
    assert_eq!(code, Some(1));
    let both = format!("the token's iss is \"{CLIENT_ID}\", but the client id is \"other-client\"");
    assert!(err.contains(&both), "{err}");
    assert_eq!(
        only_client(&["mint", "bad\u{202e}subject"], CLIENT_SECRET).0,
        Some(2)
    );
}

#[test]
fn inspect_reads_standard_input_and_reports_an_expired_token() {
    for exp in [901, i64::MIN] {
        reports_expired(&json!({"iss": CLIENT_ID, "sub": "u", "iat": 1, "exp": exp}));
    }
}

fn reports_expired(claims: &Value) {
    let key = jsonwebtoken::EncodingKey::from_secret(CLIENT_SECRET.as_bytes());
    let header = jsonwebtoken::Header::new(jsonwebtoken::Algorithm::HS512);
    let token = jsonwebtoken::encode(&header, claims, &key).unwrap();
    let mut child = binary(&["inspect", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    writeln!(child.stdin.take().unwrap(), "{token}").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stdout).contains("signature is good"));
    assert!(String::from_utf8_lossy(&output.stderr).contains("expired"));
}

#[test]
fn explain_shows_the_outcome_of_each_extractor_and_which_one_decides() {
    let expired = sign_session(&json!({"sub": "user-1", "exp": 1_000}));
    let cookie = format!("Cookie: session={expired}");
    let bearer = format!("Authorization: Bearer {}", good_session());
    let (code, out, _) = run(&mut binary(&["explain", "-H", &cookie, "-H", &bearer]));
    assert_eq!(code, Some(0));
    let lines: Vec<&str> = out.lines().collect();
    assert!(
        lines[1].starts_with("cookie (jwt): rejected with reason expired"),
        "{out}"
    );
    assert!(lines[1].ends_with("<- decides"), "{out}");
    assert_eq!(lines[2], "bearer (jwt): subject = \"user-1\"");
    assert_eq!(lines[3], "    the session has {exp: number, sub: text}");
    assert_eq!(lines[4], "answer: 401 session_expired");
    for token in [&expired, &good_session()] {
        assert!(
            !out.contains(token.rsplit('.').next().unwrap()),
            "a signature in {out}"
        );
    }

    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(
        file.path(),
        format!("POST /rollout/token HTTP/1.1\r\nHost: a\r\n{bearer}\r\n\r\nbody: x"),
    )
    .unwrap();
    let (_, out, _) = run(&mut binary(&[
        "explain",
        "--raw",
        file.path().to_str().unwrap(),
    ]));
    assert!(
        out.contains("cookie (jwt): not present\nbearer (jwt): subject = \"user-1\"  <- decides"),
        "{out}"
    );
    assert!(out.ends_with("answer: 200, a token\n"), "{out}");
    let (_, out, _) = run(&mut binary(&["explain", "https://app.example/"]));
    assert!(
        out.starts_with("origin: allowed, the client is not a browser\n"),
        "{out}"
    );
    assert!(out.ends_with("answer: 401 no_session\n"), "{out}");

    let good = format!("session={}", good_session());
    let copied = [
        "-X",
        "POST",
        "-H",
        "accept: */*",
        "-b",
        &good,
        "--data-raw",
        "",
        "--compressed",
        "--insecure",
    ];
    let (_, out, _) = run(&mut binary(
        &[
            &["explain", "https://app.example/rollout/token"],
            &copied[..],
        ]
        .concat(),
    ));
    assert!(
        out.ends_with("answer: 200, a token\n"),
        "a cURL command copied from a browser is accepted: {out}"
    );
}

#[test]
fn health_exits_with_0_if_the_service_is_up_and_1_if_it_is_down() {
    let process = Process::start(&mut binary(&["serve"]));
    let listen = process.address.to_string();
    assert_eq!(
        run(binary(&["health"]).env("ROLLOUT__SERVER__LISTEN", &listen)).0,
        Some(0)
    );
    drop(process);
    let (code, _, err) = run(binary(&["health"]).env("ROLLOUT__SERVER__LISTEN", &listen));
    assert_eq!(code, Some(1));
    assert!(err.contains("cannot reach"), "{err}");
}

#[test]
fn dev_refuses_public_addresses_and_production_environments() {
    for (name, value) in [
        ("ROLLOUT__SERVER__LISTEN", "0.0.0.0:0"),
        ("ROLLOUT__SERVER__ADMIN_LISTEN", "[::]:0"),
    ] {
        let (code, _, err) = run(binary(&["dev"]).env(name, value));
        assert_eq!(code, Some(2), "{name}");
        assert!(err.contains("loopback"), "{err}");
    }
    let prod = run(binary(&["dev"]).env("APP_ENV", "prod"));
    assert!(
        prod.0 == Some(2) && prod.2.contains("APP_ENV"),
        "{}",
        prod.2
    );
    for name in ["ENV", "APP_ENV", "NODE_ENV"] {
        let (code, _, err) = run(binary(&["dev"]).env(name, "production"));
        assert_eq!(code, Some(2), "{name}");
        assert!(err.contains(name), "{err}");
    }
}

/// The banner of `dev`, up to the empty line at its end.
fn banner(command: &mut Command) -> String {
    let mut child = command.stdout(Stdio::piped()).spawn().expect("it starts");
    let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let banner: Vec<String> = lines
        .map_while(Result::ok)
        .skip_while(|line| !line.contains("Development mode"))
        .take_while(|line| !line.is_empty())
        .collect();
    child.kill().expect("it runs");
    child.wait().expect("an exit");
    banner.join("\n")
}

#[test]
fn curl_command_in_the_dev_banner_sends_the_credential_that_the_first_extractor_reads() {
    for (order, want) in [
        ("cookie,bearer", "curl -sS -X POST -b 'session=…' http://"),
        (
            "bearer,cookie",
            "curl -sS -X POST -H 'Authorization: Bearer …' http://",
        ),
    ] {
        let shown = banner(binary(&["dev"]).env("ROLLOUT__SESSION__EXTRACTORS", order));
        assert!(shown.contains(want), "{shown}");
    }
}

#[test]
fn config_file_in_the_current_folder_is_suggested_if_no_extractors_are_configured() {
    let directory = tempfile::tempdir().unwrap();
    let hint = "rollout-token.toml is in this folder: add --config rollout-token.toml";
    let without_extractors = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rollout-token"));
        command
            .args(arguments)
            .env_clear()
            .env("ROLLOUT__SERVER__LISTEN", "127.0.0.1:0")
            .env("ROLLOUT__SERVER__ADMIN_LISTEN", "127.0.0.1:0")
            .current_dir(directory.path());
        command
    };
    let commands: [&[&str]; 3] = [&["serve"], &["check-config"], &["explain", "-b", "a=b"]];
    for arguments in commands {
        let (code, _, err) = run(&mut without_extractors(arguments));
        assert!(code == Some(2) && !err.contains(hint), "{err}");
    }
    let shown = banner(&mut without_extractors(&["dev"]));
    assert!(!shown.contains(hint), "{shown}");

    std::fs::write(directory.path().join("rollout-token.toml"), "").unwrap();
    for arguments in commands {
        let (code, _, err) = run(&mut without_extractors(arguments));
        assert!(
            code == Some(2) && err.contains(&format!("session.extractors: {hint}\n")),
            "{err}"
        );
    }
    let shown = banner(&mut without_extractors(&["dev"]));
    assert!(shown.contains(hint), "{shown}");
    let shown = banner(binary(&["dev"]).current_dir(directory.path()));
    assert!(!shown.contains(hint), "{shown}");
}

#[test]
fn closed_output_pipe_ends_a_command_with_exit_code_0_and_no_error() {
    let commands: [&[&str]; 4] = [
        &["check-config", "--print"],
        &["config-schema"],
        &["completions", "bash"],
        &["detect", "-b", "session_id=0123456789abcdef"],
    ];
    for arguments in commands {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let (code, _, err) = run(binary(arguments).stdout(writer));
        assert_eq!(code, Some(0), "{arguments:?}: {err}");
        assert!(!err.contains("cannot write"), "{arguments:?}: {err}");
    }
}

#[test]
fn port_in_use_is_reported_as_an_error() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (code, _, err) = run(binary(&["serve"]).env("ROLLOUT__SERVER__LISTEN", &address));
    assert_eq!(code, Some(1));
    assert!(
        err.contains("server.listen") && err.contains(&address),
        "{err}"
    );
}

#[tokio::test]
async fn service_configured_by_variables_logs_no_secret_at_level_trace() {
    let mut process = Process::start(
        binary(&[])
            .env("ROLLOUT__LOG__LEVEL", "trace")
            .env("RUST_LOG", "trace")
            .env("RUST_BACKTRACE", "full"),
    );
    let session = good_session();
    let client = client();
    let response = client
        .post(format!("{}?access_token=SENTINEL-query", process.url()))
        .bearer_auth(&session)
        .header("x-request-id", "my-id")
        .header("user-agent", "SENTINEL-agent")
        .header(
            "traceparent",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        )
        .header("baggage", "SENTINEL-baggage")
        .send()
        .await
        .unwrap();
    let (status, body) = answer(response).await;
    assert_eq!(status, 200);
    let issued: Value =
        serde_json::from_str(&process.line_with("my-id")).expect("one line of JSON");
    assert_eq!(issued["message"], "token.issued");
    assert_eq!(issued["trace_id"], "4bf92f3577b34da6a3ce929d0e0e4736");
    assert_eq!(
        (issued["extractor"].as_str(), issued["code"].as_str()),
        (Some("bearer"), Some("issued"))
    );
    assert!(issued["duration_ms"].is_number());
    assert_eq!(
        issued["subject"].as_str().unwrap().len(),
        16,
        "hashed: {issued}"
    );

    let cookie = format!("session={session}x; other=SENTINEL-cookie");
    let response = client
        .post(process.url())
        .header("cookie", cookie)
        .header("x-request-id", "id-2")
        .header("x-api-key", "SENTINEL-key");
    assert_eq!(answer(response.send().await.unwrap()).await.0, 401);
    let refused: Value =
        serde_json::from_str(&process.line_with("id-2")).expect("one line of JSON");
    assert_eq!(refused["message"], "token.refused");
    assert_eq!(
        refused.get("trace_id"),
        None,
        "the log line of a request without traceparent has no trace_id: {refused}"
    );
    assert_eq!(
        (refused["extractor"].as_str(), refused["code"].as_str()),
        (Some("cookie"), Some("session_invalid"))
    );
    assert!(refused["reason"].is_string());

    let again = || {
        client
            .post(process.url())
            .bearer_auth(&session)
            .header("x-request-id", "id-3")
            .send()
    };
    while answer(again().await.unwrap()).await.0 == 200 {}
    let limited = loop {
        let line: Value =
            serde_json::from_str(&process.line_with("id-3")).expect("one line of JSON");
        if line["code"] == "rate_limited" {
            break line;
        }
    };
    assert_eq!(
        limited["subject"], issued["subject"],
        "the log line names the rate-limited subject"
    );

    process.signal(rustix::process::Signal::INT);
    process.signal(rustix::process::Signal::INT);
    let (_, log) = process.end();
    let token = body["token"].as_str().unwrap();
    for secret in [
        token,
        &session,
        "SENTINEL",
        CLIENT_SECRET,
        crate::helpers::SESSION_SECRET,
        "user-1",
    ] {
        assert!(!log.contains(secret), "{secret} in {log}");
    }
    for line in log.lines() {
        serde_json::from_str::<Value>(line).unwrap_or_else(|error| panic!("{line}: {error}"));
    }
}

#[tokio::test]
async fn shutdown_under_load_loses_no_request() {
    let process = Process::start(
        binary(&["serve"])
            .env("ROLLOUT__SERVER__DRAIN_DELAY", "5s")
            .env("ROLLOUT__RATE_LIMIT__PER_MINUTE", "0"),
    );
    let (url, session) = (process.url(), good_session());
    // Like a load balancer, the client sends requests for a while after the instance has reported that it is draining.
    let load = |reuse: bool| {
        let (url, session) = (url.clone(), session.clone());
        tokio::spawn(async move {
            let idle = usize::from(reuse);
            let client = reqwest::Client::builder()
                .no_proxy()
                .pool_max_idle_per_host(idle)
                .build()
                .unwrap();
            let mut after_notice = 0;
            while after_notice < 100 {
                let response = client
                    .post(&url)
                    .bearer_auth(&session)
                    .send()
                    .await
                    .expect("an answer");
                assert_eq!(response.status(), 200);
                let leaving = response
                    .headers()
                    .get("connection")
                    .is_some_and(|value| value == "close");
                after_notice += usize::from(leaving);
                assert!(
                    leaving || after_notice == 0,
                    "every answer during the drain has Connection: close"
                );
                assert!(response.json::<Value>().await.unwrap()["token"].is_string());
            }
        })
    };
    let loads = [load(true), load(true), load(false), load(false)];
    let probe = client();
    for _ in 0..20 {
        assert_eq!(
            probe
                .post(&url)
                .bearer_auth(&session)
                .send()
                .await
                .unwrap()
                .status(),
            200
        );
    }
    process.signal(rustix::process::Signal::TERM);
    for load in loads {
        load.await.expect("no request lost");
    }
    let (code, log) = process.end();
    assert_eq!(code, Some(0), "{log}");
}

#[tokio::test]
async fn second_signal_ends_the_process_at_once() {
    let process = Process::start(
        binary(&["serve"])
            .env("ROLLOUT__SERVER__DRAIN_DELAY", "15s")
            .env("ROLLOUT__SERVER__HARD_STOP", "60s"),
    );
    process.signal(rustix::process::Signal::TERM);
    let ready = format!("http://{}/readyz", process.address);
    let mut tries = 0;
    while client().get(&ready).send().await.unwrap().status() != 503 {
        tries += 1;
        assert!(tries < 1000, "never draining");
        tokio::task::yield_now().await;
    }
    process.signal(rustix::process::Signal::TERM);
    assert_eq!(process.end().0, Some(1));
}

#[tokio::test]
async fn sighup_reloads_and_usr1_usr2_winch_and_pipe_signals_are_ignored() {
    use rustix::process::Signal;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(
        file.path(),
        "[origins]\nallowed = [\"https://old.example\"]",
    )
    .unwrap();
    let mut process = Process::start(&mut binary(&[
        "--config",
        file.path().to_str().unwrap(),
        "serve",
    ]));
    for signal in [Signal::USR1, Signal::USR2, Signal::WINCH, Signal::PIPE] {
        process.signal(signal);
    }
    let ask = |origin: &'static str| {
        let request = client()
            .post(process.url())
            .bearer_auth(good_session())
            .header("origin", origin);
        async { request.send().await.unwrap().status().as_u16() }
    };
    assert_eq!(
        (
            ask("https://old.example").await,
            ask("https://new.example").await
        ),
        (200, 403)
    );

    std::fs::write(file.path(), "[origins]\nallowed = [\"*\"]").unwrap();
    process.signal(Signal::HUP);
    let failed = process.line_with("config_reload_failed");
    let failed: Value = serde_json::from_str(&failed).unwrap();
    let problems = failed["problems"].as_str().unwrap();
    assert!(
        problems.starts_with("origins.allowed:") && problems.trim() == problems,
        "{failed}"
    );
    let url = process.url();
    let ask = |origin: &'static str| {
        let request = client()
            .post(&url)
            .bearer_auth(good_session())
            .header("origin", origin);
        async { request.send().await.unwrap().status().as_u16() }
    };
    assert_eq!(
        ask("https://old.example").await,
        200,
        "the old configuration stays"
    );

    std::fs::write(
        file.path(),
        "[origins]\nallowed = [\"https://new.example\"]",
    )
    .unwrap();
    process.signal(Signal::HUP);
    let reloaded: Value = serde_json::from_str(&process.line_with("config_reloaded")).unwrap();
    assert_eq!(reloaded["trigger"], "signal");
    let fingerprint = reloaded["secret_fingerprint"].as_str().unwrap();
    assert!(!fingerprint.is_empty() && !CLIENT_SECRET.contains(fingerprint));
    assert_eq!(
        (
            ask("https://old.example").await,
            ask("https://new.example").await
        ),
        (403, 200)
    );
}

#[tokio::test]
async fn jwt_section_configured_by_variables_alone_verifies_provider_tokens() {
    let idp = Idp::start().await;
    let variables = [
        ("ROLLOUT_CLIENT_ID", CLIENT_ID),
        ("ROLLOUT_CLIENT_SECRET", CLIENT_SECRET),
        ("ROLLOUT__SERVER__LISTEN", "127.0.0.1:0"),
        ("ROLLOUT__SERVER__ADMIN_LISTEN", "127.0.0.1:0"),
        ("ROLLOUT__SESSION__EXTRACTORS", "jwt"),
        ("ROLLOUT__EXTRACTORS__JWT__JWKS_URL", &idp.jwks_url()),
        ("ROLLOUT__EXTRACTORS__JWT__ISSUERS", "https://idp.example"),
        ("ROLLOUT__EXTRACTORS__JWT__AUDIENCES", "my-app"),
        (
            "ROLLOUT__EXTRACTORS__JWT__FROM",
            "header:authorization,cookie:__session",
        ),
    ];
    let process = Process::start(
        Command::new(env!("CARGO_BIN_EXE_rollout-token"))
            .env_clear()
            .envs(variables),
    );
    let claims =
        json!({"iss": "https://idp.example", "aud": "my-app", "sub": "user-1", "exp": FAR});
    let with = |name: &str, value: Value| {
        let mut claims = claims.clone();
        claims[name] = value;
        idp.token(&claims)
    };
    let good = idp.token(&claims);
    for (case, header, value, want) in [
        (
            "bearer",
            "authorization",
            format!("Bearer {good}"),
            Ok("user-1"),
        ),
        (
            "cookie",
            "cookie",
            format!("__session={good}"),
            Ok("user-1"),
        ),
        (
            "expired",
            "authorization",
            format!("Bearer {}", with("exp", json!(1))),
            Err("session_expired"),
        ),
        (
            "other audience",
            "authorization",
            format!("Bearer {}", with("aud", json!("x"))),
            Err("session_invalid"),
        ),
        (
            "other issuer",
            "cookie",
            format!("__session={}", with("iss", json!("x"))),
            Err("session_invalid"),
        ),
        (
            "tampered",
            "authorization",
            format!("Bearer {good}A"),
            Err("session_invalid"),
        ),
        (
            "no credential",
            "accept",
            "*/*".to_owned(),
            Err("no_session"),
        ),
    ] {
        let response = client()
            .post(process.url())
            .header(header, value)
            .send()
            .await
            .unwrap();
        let (status, body) = answer(response).await;
        match want {
            Ok(subject) => assert_eq!(verified(&body)["sub"], subject, "{case}"),
            Err(code) => assert_eq!(
                (status.as_u16(), body["code"].as_str()),
                (401, Some(code)),
                "{case}"
            ),
        }
    }
    assert_eq!(
        idp.visits.load(std::sync::atomic::Ordering::SeqCst),
        1,
        "the keys were fetched once"
    );
    let ready: Value = client()
        .get(format!("http://{}/readyz", process.address))
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(ready["state"], "ready");
}

/// A fake of Rollout's API that verifies a token's signature, `iss`, `iat` and `exp`, or always responds with the
/// status `broken`. Its clock is `ahead` seconds ahead of the machine's clock. Returns its URL.
pub async fn rollout_api(ahead: i64, broken: Option<u16>) -> String {
    use axum::http::{HeaderMap, StatusCode, header};
    let credentials = move |headers: HeaderMap| async move {
        let seconds = rollout_token::clock::Clock::system().now() + ahead;
        let now = std::time::UNIX_EPOCH + Duration::from_secs(seconds.unsigned_abs());
        let bearer = headers[header::AUTHORIZATION]
            .to_str()
            .unwrap()
            .strip_prefix("Bearer ")
            .unwrap();
        let mut validation = jsonwebtoken::Validation::new(jsonwebtoken::Algorithm::HS512);
        validation.set_issuer(&[CLIENT_ID]);
        validation.validate_exp = false;
        let key = jsonwebtoken::DecodingKey::from_secret(CLIENT_SECRET.as_bytes());
        let good = jsonwebtoken::decode::<Value>(bearer, &key, &validation).is_ok_and(|token| {
            token.claims["iat"].as_i64().unwrap() <= seconds + 1
                && token.claims["exp"].as_i64().unwrap() > seconds
        });
        let status = broken.unwrap_or(if good { 200 } else { 401 });
        let date = [(header::DATE, httpdate::fmt_http_date(now))];
        (
            StatusCode::from_u16(status).unwrap(),
            date,
            axum::Json(json!([])),
        )
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = axum::Router::new().route("/api/credentials", axum::routing::get(credentials));
    tokio::spawn(async move { axum::serve(listener, router).await });
    format!("http://{address}/api")
}

/// A server that returns an HTML page for every path, in place of Rollout's API. Returns its URL.
async fn web_page() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router =
        axum::Router::new().fallback(|| async { axum::response::Html("<h1>Rollout</h1>") });
    tokio::spawn(async move { axum::serve(listener, router).await });
    format!("http://{address}")
}

#[tokio::test]
async fn doctor_reports_why_the_request_to_rollout_failed() {
    const OTHER: &str = "another-secret-another-secret";
    let closed = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let accepted: &[&str] = &["accepts the client id"];
    for (case, base, secret, code, words) in [
        (
            "accepted",
            rollout_api(0, None).await,
            CLIENT_SECRET,
            0,
            accepted,
        ),
        (
            "accepted, clock behind",
            rollout_api(60, None).await,
            CLIENT_SECRET,
            0,
            &["accepts the client id", "s behind"],
        ),
        (
            "other secret",
            rollout_api(0, None).await,
            OTHER,
            1,
            &["compare both"],
        ),
        (
            "another secret, and the clock is slightly behind",
            rollout_api(60, None).await,
            OTHER,
            1,
            &["compare both", "besides", "s behind"],
        ),
        (
            "clock ahead",
            rollout_api(-60, None).await,
            CLIENT_SECRET,
            1,
            &["s ahead", "set the clock"],
        ),
        (
            "clock far behind",
            rollout_api(1200, None).await,
            CLIENT_SECRET,
            1,
            &["s behind", "set the clock"],
        ),
        (
            "broken",
            rollout_api(0, Some(503)).await,
            CLIENT_SECRET,
            1,
            &["answered 503"],
        ),
        (
            "not there",
            format!("http://{closed}/api"),
            CLIENT_SECRET,
            1,
            &["cannot reach 127.0.0.1"],
        ),
        (
            "a page for people",
            web_page().await,
            CLIENT_SECRET,
            1,
            &["check that --base-url is the address"],
        ),
        (
            "no URL",
            "rollout.com".to_owned(),
            CLIENT_SECRET,
            2,
            &["--base-url"],
        ),
        (
            "plain http",
            "http://rollout.example/api".to_owned(),
            CLIENT_SECRET,
            2,
            &["--base-url"],
        ),
    ] {
        let mut command = binary(&["doctor", "--base-url", &base]);
        command.env("ROLLOUT_CLIENT_SECRET", secret);
        let (got, out, err) = tokio::task::spawn_blocking(move || run(&mut command))
            .await
            .unwrap();
        assert_eq!(got, Some(code), "{case}: {out}{err}");
        for word in words {
            assert!(format!("{out}{err}").contains(word), "{case}: {out}{err}");
        }
        assert!(!format!("{out}{err}").contains(secret), "{case}");
    }
    let mut command = binary(&["doctor", "--base-url", &rollout_api(0, None).await]);
    command.env("ROLLOUT_CLIENT_ID", "another-client");
    let (code, _, err) = tokio::task::spawn_blocking(move || run(&mut command))
        .await
        .unwrap();
    assert_eq!(code, Some(1));
    assert!(
        err.contains("compare both") && err.contains("another-client"),
        "{err}"
    );
}

#[cfg(target_os = "linux")]
#[test]
fn process_with_secrets_writes_no_core_dump() {
    let process = Process::start(&mut binary(&["serve"]));
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", process.id())).unwrap();
    let core = limits
        .lines()
        .find(|line| line.starts_with("Max core file size"))
        .expect("a limit");
    assert_eq!(
        core.split_whitespace().skip(4).collect::<Vec<_>>(),
        ["0", "0", "bytes"]
    );
}

#[test]
fn address_that_the_machine_does_not_have_is_reported_as_an_error() {
    for key in ["LISTEN", "ADMIN_LISTEN"] {
        // These addresses are reserved for documentation (RFC 5737, RFC 3849), so no machine has them.
        for address in ["192.0.2.1:0", "[2001:db8::1]:0"] {
            let (code, _, err) =
                run(binary(&["serve"]).env(format!("ROLLOUT__SERVER__{key}"), address));
            assert_eq!(code, Some(1), "{address}");
            let key = format!("server.{}", key.to_lowercase());
            assert!(
                err.contains(&key) && err.contains(address) && err.contains("otherwise change"),
                "{err}"
            );
        }
    }
}

#[test]
fn each_stop_signal_ends_the_process_with_exit_code_0() {
    use rustix::process::Signal;
    for signal in [Signal::TERM, Signal::INT, Signal::QUIT] {
        let process = Process::start(binary(&["serve"]).env("ROLLOUT__SERVER__DRAIN_DELAY", "0s"));
        process.signal(signal);
        let (code, log) = process.end();
        assert!(
            code == Some(0) && log.contains("drained"),
            "{signal:?}: {log}"
        );
    }
}
