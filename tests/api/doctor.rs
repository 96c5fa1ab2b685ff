//! Tests of the commands `doctor`, `credentials`, `inspect`, `config-schema` and `completions`. A fake server replaces
//! Rollout's API.

use std::process::Command;

use axum::http::HeaderMap;
use axum::routing::get;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rollout_token::session::registry::Registry;
use serde_json::{Value, json};

use crate::backend::{Backend, json as json_answer, respond};
use crate::binary::{binary, run};
use crate::commands::rollout_api;
use crate::helpers::{CLIENT_ID, CLIENT_SECRET, client_variables, file_of};
use crate::idp::Idp;

async fn run_off_thread(mut command: Command) -> (Option<i32>, String, String) {
    tokio::task::spawn_blocking(move || run(&mut command))
        .await
        .unwrap()
}

/// A command with this configuration file, the tests' client id and secret, and no other settings.
fn with_file(arguments: &[&str], toml: &str) -> (Command, tempfile::NamedTempFile) {
    let file = file_of(toml);
    let mut command = binary(arguments);
    command
        .env_clear()
        .envs(client_variables())
        .arg("--config")
        .arg(file.path());
    (command, file)
}

fn closed() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

#[tokio::test]
async fn doctor_calls_each_backend_and_prints_the_result() {
    let idp = Idp::start().await;
    let app = Backend::always(401, &[], "").await;
    let issuer = Backend::json(r#"{"active":false}"#).await;
    let folder = tempfile::tempdir().unwrap();
    let database = folder.path().join("app.sqlite");
    let pool = sqlx::SqlitePool::connect(&format!("sqlite://{}?mode=rwc", database.display()))
        .await
        .unwrap();
    sqlx::query("CREATE TABLE sessions (id text, user_id text)")
        .execute(&pool)
        .await
        .unwrap();
    pool.close().await;
    let toml = |table: &str, jwks: &str, app: &str| {
        format!(
            "session.extractors = ['idp', 'app', 'opaque', 'store', 'plain']\n\
             [extractors.idp]\nkind = 'jwt'\njwks_url = '{jwks}?key=s3cr3t'\nissuers = ['https://id.example']\n\
             allow_any_audience = true\n\
             [extractors.app]\nkind = 'session_endpoint'\nurl = '{app}/me'\ncookies = ['sid']\n\
             [extractors.opaque]\nkind = 'introspection'\nurl = '{}'\nclient_id = 'us'\n\
             client_secret = 'our secret:of 24 bytes'\nallow_any_client = true\nfrom = ['header:x-token']\n\
             [extractors.store]\nkind = 'sql_session'\nurl = 'sqlite://{}'\ncookie = 'id'\n\
             query = 'SELECT user_id FROM {table} WHERE id = $1'\n\
             [extractors.plain]\nkind = 'api_key'\nfrom = ['header:x-key']\n\
             keys = {{ backend = '{}' }}",
            issuer.url("/introspect"),
            database.display(),
            "0".repeat(63) + "1"
        )
    };
    let base = rollout_api(0, None).await;
    let app_url = app.url("");

    let arguments = ["doctor", "--base-url", &base];
    let (command, _file) = with_file(&arguments, &toml("sessions", &idp.jwks_url(), &app_url));
    let (code, out, err) = run_off_thread(command).await;
    assert_eq!(code, Some(0), "{out}{err}");
    for line in [
        format!("ok      Rollout at {base}/credentials: accepts the client id \"{CLIENT_ID}\""),
        format!("ok      idp: key set {}: 1 key (", idp.jwks_url()),
        format!(
            "ok      app: endpoint {app_url}/me: signed_out (the endpoint answered 401), as expected without a session ("
        ),
        "ok      opaque: introspection ".to_owned(),
        "ok      store: the query in sqlite: answered (".to_owned(),
    ] {
        assert!(out.contains(&line), "{line}\n{out}{err}");
    }
    assert!(
        !(out.clone() + &err).contains("s3cr3t") && out.contains(" ms)"),
        "{out}{err}"
    );

    let nowhere = closed();
    let arguments = ["doctor", "--json", "--base-url", &base];
    let broken = toml("absent", &format!("{nowhere}/jwks"), &nowhere);
    let (command, _file) = with_file(&arguments, &broken);
    let (code, out, err) = run_off_thread(command).await;
    assert_eq!(code, Some(1), "{out}{err}");
    assert!(err.contains("3 of 5 checks failed"), "{err}");
    let report: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        (&report["ok"], &report["clock_ahead_seconds"]),
        (&json!(false), &json!(0))
    );
    let failed: Vec<_> = report["checks"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|check| check["ok"] == false)
        .collect();
    let names: Vec<_> = failed
        .iter()
        .map(|check| check["extractor"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["idp", "app", "store"], "{out}");
    for (check, word) in failed
        .iter()
        .zip(["unreachable", "unreachable", "store_refused"])
    {
        assert!(check["detail"].as_str().unwrap().contains(word), "{check}");
        assert!(check["duration_ms"].is_number(), "{check}");
    }
    assert!(!out.contains("s3cr3t"), "{out}");
}

#[tokio::test]
async fn doctor_shows_the_location_of_a_redirect_and_fails_if_it_leads_to_the_endpoint_itself() {
    let base = rollout_api(0, None).await;
    for (location, code, want) in [
        (
            "/login?next=/me",
            Some(0),
            "ok      app: endpoint URL: signed_out (the endpoint answered 302 with Location /login), as expected",
        ),
        (
            "/me/",
            Some(1),
            "FAILED  app: endpoint URL: wrong_url: URL: the endpoint answered 302 with Location /me/: the path differs",
        ),
    ] {
        let app = Backend::always(302, &[("location", location)], "").await;
        let url = app.url("/me");
        let toml = format!(
            "session.extractors = ['app']\n\
             [extractors.app]\nkind = 'session_endpoint'\nurl = '{url}'\ncookies = ['sid']"
        );
        let (command, _file) = with_file(&["doctor", "--base-url", &base], &toml);
        let (found, out, err) = run_off_thread(command).await;
        assert_eq!(found, code, "{out}{err}");
        let want = want.replace("URL", &url);
        assert!(
            out.contains(&want) || err.contains(&want),
            "{want}\n{out}{err}"
        );
    }
}

#[tokio::test]
async fn doctor_without_extractors_calls_rollout_only() {
    let base = rollout_api(0, None).await;
    let mut command = binary(&["doctor", "--base-url", &base]);
    command.env_clear().envs(client_variables());
    let (code, out, err) = run_off_thread(command).await;
    assert_eq!(code, Some(0), "{err}");
    assert_eq!(out.lines().count(), 1, "{out}");

    // A configuration without extractors is accepted, but any other problem in it is reported.
    let (command, _file) = with_file(
        &["doctor", "--base-url", &base],
        "session.extractors = ['web']\n[extractors.web]\nkind = 'jwt'\nsecrt = 1",
    );
    let (code, _, err) = run_off_thread(command).await;
    assert!(
        code == Some(2) && err.contains("extractors.web.secrt"),
        "{err}"
    );
}

#[tokio::test]
async fn doctor_fails_if_an_issuer_accepts_a_made_up_token() {
    let issuer = Backend::json(r#"{"active":true,"sub":"ann","exp":4000000000}"#).await;
    let base = rollout_api(0, None).await;
    let (command, _file) = with_file(
        &["doctor", "--base-url", &base],
        &format!(
            "session.extractors = ['opaque']\n[extractors.opaque]\nkind = 'introspection'\nurl = '{}'\n\
             client_id = 'us'\nclient_secret = 'our secret:of 24 bytes'\nallow_any_client = true",
            issuer.url("/")
        ),
    );
    let (code, _, err) = run_off_thread(command).await;
    assert!(
        code == Some(1) && err.contains("a made-up token is active"),
        "{err}"
    );
}

/// Starts a fake of Rollout's API, and returns its URL. The fake answers with these credentials for the subject `ann`,
/// with an empty list for other subjects, and with 401 for an invalid token.
async fn api(credentials: &'static str) -> String {
    let answer = move |headers: HeaderMap| async move {
        let bearer = headers["authorization"].to_str().unwrap().to_owned();
        let token = bearer.strip_prefix("Bearer ").unwrap();
        let mut validation = jsonwebtoken::Validation::new(jsonwebtoken::Algorithm::HS512);
        validation.set_issuer(&[CLIENT_ID]);
        let key = jsonwebtoken::DecodingKey::from_secret(CLIENT_SECRET.as_bytes());
        match jsonwebtoken::decode::<Value>(token, &key, &validation) {
            Ok(token) if token.claims["sub"] == "ann" => json_answer(credentials),
            Ok(_) => json_answer("[]"),
            Err(_) => respond(401, &[], r#"{"errors":[{"message":"invalid token"}]}"#),
        }
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = axum::Router::new().route("/api/credentials", get(answer));
    tokio::spawn(async move { axum::serve(listener, router).await });
    format!("http://{address}/api")
}

#[tokio::test]
async fn credentials_lists_the_connected_apps_of_a_subject() {
    const LIST: &str = r#"[{"id":"cred_1","createdAt":"2026-01-02T03:04:05Z","appKey":"follow-up-boss","label":"Ann\u001b[31m"}]"#;
    const IN_DATA: &str = r#"{"data":[{"id":"cred_1","appKey":"follow-up-boss"}],"_metadata":{}}"#;
    let table = "APP             ID      CONNECTED             LABEL\n\
                 follow-up-boss  cred_1  2026-01-02T03:04:05Z  Ann\\u{1b}[31m\n";
    for (credentials, subject, arguments, want) in [
        (LIST, "ann", &[][..], table),
        (IN_DATA, "ann", &[], "follow-up-boss  cred_1  -"),
        (
            LIST,
            "bob",
            &[],
            "\"bob\" has no connected apps at Rollout.\n",
        ),
        (LIST, "ann", &["--json"], "\"appKey\": \"follow-up-boss\""),
        (LIST, "bob", &["--json"], "[]\n"),
    ] {
        let base = api(credentials).await;
        let mut command = binary(&["credentials", subject, "--base-url", &base]);
        command.args(arguments);
        let (code, out, err) = run_off_thread(command).await;
        assert_eq!(code, Some(0), "{subject}: {err}");
        assert!(out.contains(want), "{subject}: {out}");
        assert!(!out.contains('\u{1b}'), "{out}");
    }
}

#[tokio::test]
async fn credentials_reports_why_the_request_to_rollout_failed() {
    for (base, secret, subject, code, text) in [
        (
            api("[]").await,
            "another-secret-another-secret",
            "ann",
            1,
            "compare both",
        ),
        (
            api(r#""nothing""#).await,
            CLIENT_SECRET,
            "ann",
            1,
            "not a list of credentials",
        ),
        (closed(), CLIENT_SECRET, "ann", 1, "cannot reach 127.0.0.1"),
        (api("[]").await, CLIENT_SECRET, "", 2, "SUBJECT must be"),
    ] {
        let mut command = binary(&["credentials", subject, "--base-url", &base]);
        command.env("ROLLOUT_CLIENT_SECRET", secret);
        let (got, out, err) = run_off_thread(command).await;
        assert_eq!(got, Some(code), "{out}{err}");
        assert!(err.contains(text) && !err.contains(secret), "{err}");
    }
}

/// The error output of `inspect` for a token that is signed with `key`, if the client secret is `secret`.
fn inspect(secret: &str, key: &[u8], algorithm: jsonwebtoken::Algorithm) -> String {
    let claims = json!({"iss": CLIENT_ID, "sub": "ann", "iat": 1, "exp": 4_000_000_000_i64});
    let token = jsonwebtoken::encode(
        &jsonwebtoken::Header::new(algorithm),
        &claims,
        &jsonwebtoken::EncodingKey::from_secret(key),
    )
    .unwrap();
    let mut command = binary(&["inspect", &token]);
    command.env("ROLLOUT_CLIENT_SECRET", secret);
    let (code, out, err) = run(&mut command);
    assert_eq!(code, Some(1), "{out}{err}");
    assert!(!(out + &err).contains(secret));
    err
}

#[test]
fn inspect_shows_how_the_signer_misread_the_secret() {
    use jsonwebtoken::Algorithm::{HS256, HS512};
    let bytes = "0123456789abcdef-0123456789abcdef!".as_bytes();
    let (base64, hex) = (
        STANDARD.encode(bytes),
        "30313233343536373839616263646566ffee",
    );
    let decoded_hex = b"0123456789abcdef\xff\xee";
    let line = [CLIENT_SECRET.as_bytes(), b"\n"].concat();
    let (quoted, spaced) = (format!("\"{CLIENT_SECRET}\""), format!(" {CLIENT_SECRET}"));
    for (secret, key, text) in [
        (&*quoted, CLIENT_SECRET.as_bytes(), "without the quotes"),
        (
            &*spaced,
            CLIENT_SECRET.as_bytes(),
            "without the white space",
        ),
        (&base64[..], bytes, "decoded from base64"),
        (base64.trim_end_matches('='), bytes, "decoded from base64"),
        (hex, decoded_hex, "decoded from hexadecimal"),
        (CLIENT_SECRET, &line, "a line break after it"),
        (
            CLIENT_SECRET,
            b"quite another secret",
            "nor with the secret trimmed",
        ),
    ] {
        let said = inspect(secret, key, HS512);
        assert!(said.contains(text), "{text}: {said}");
    }
    // jjwt 0.9.1 base64-decodes the secret: it skips characters outside the alphabet, and drops an incomplete group.
    let (secret, key) = ("not_base64-at-all-of-27-ch", "notbase64atallof27ch");
    let said = inspect(secret, &STANDARD.decode(key).unwrap(), HS512);
    assert!(said.contains("Java") && said.contains("getBytes"), "{said}");
    let said = inspect(CLIENT_SECRET, CLIENT_SECRET.as_bytes(), HS256);
    assert!(
        said.contains("its alg is \"HS256\", but Rollout accepts only HS512"),
        "{said}"
    );
}

#[test]
fn config_schema_has_every_section_with_its_keys_and_every_kind() {
    let mut command = binary(&["config-schema"]);
    command.env_clear();
    let (code, out, err) = run(&mut command);
    assert_eq!(code, Some(0), "{err}");
    let schema: Value = serde_json::from_str(&out).unwrap();
    let effective = crate::helpers::load(crate::helpers::BY_HEADER).unwrap();
    for (section, keys) in effective.effective().as_object().unwrap() {
        let property = &schema["properties"][section];
        assert!(property.is_object(), "{section}");
        for (key, value) in keys.as_object().into_iter().flatten() {
            if section != "extractors" && section != "session" {
                assert_eq!(
                    property["properties"][key]["default"], *value,
                    "{section}.{key}"
                );
                assert!(
                    property["properties"][key]["description"].is_string() || key == "claims",
                    "{section}.{key}"
                );
            }
        }
    }
    let listen = &schema["properties"]["server"]["properties"]["max_headers"];
    assert_eq!(listen["type"], json!(["integer"]));
    assert_eq!(
        schema["properties"]["token"]["properties"]["ttl"]["type"],
        json!(["string"])
    );
    assert_eq!(
        schema["properties"]["client_secret_file"]["type"][0],
        "string"
    );
    let registry = Registry::builtin();
    for kind in registry.names() {
        let section = &schema["$defs"][kind]["properties"];
        assert_eq!(section["kind"], json!({"const": kind}));
        assert_eq!(section["subject"]["type"], json!(["string"]), "{kind}");
    }
    let jwt = &schema["$defs"]["jwt"]["properties"];
    assert!(
        jwt["preset"]["enum"]
            .as_array()
            .unwrap()
            .contains(&json!("clerk"))
    );
    assert!(jwt.get("provider_keys").is_none(), "a key of presets only");
    assert_eq!(jwt["secret_file"]["type"][0], "string");
}

#[test]
fn completions_are_printed_for_each_shell() {
    for (shell, text) in [
        ("bash", "_rollout__token()"),
        ("zsh", "#compdef rollout-token"),
        ("fish", "complete -c rollout-token"),
    ] {
        let mut command = binary(&["completions", shell]);
        command.env_clear();
        let (code, out, err) = run(&mut command);
        assert_eq!(code, Some(0), "{err}");
        assert!(
            out.contains(text) && out.contains("check-config"),
            "{shell}"
        );
    }
    let completed = |words: &str, position: usize| {
        let (_, script, _) = run(binary(&["completions", "bash"]).env_clear());
        let ask = format!(
            "{script}\nCOMP_WORDS=({words}); COMP_CWORD={position}\n\
             _rollout__token rollout-token \"${{COMP_WORDS[$COMP_CWORD]}}\" \"${{COMP_WORDS[$COMP_CWORD-1]}}\"\n\
             echo \"${{COMPREPLY[@]}}\""
        );
        let out = Command::new("bash").args(["-c", &ask]).output().unwrap();
        String::from_utf8(out.stdout).unwrap()
    };
    assert!(completed("rollout-token init --ap", 2).contains("--app"));
    assert!(completed("rollout-token init --app n", 3).contains("nginx"));
    assert!(completed("rollout-token check-config --pr", 2).contains("--print"));
    let (code, _, err) = run(&mut binary(&["completions", "tcsh"]));
    assert!(code == Some(2) && err.contains("bash"), "{err}");
}
