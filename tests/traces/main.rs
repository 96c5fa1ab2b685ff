//! Tests of the traces that a binary with the feature `otel` exports to an OTLP/HTTP collector: `make traces`.

#![allow(
    clippy::too_many_lines,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::needless_pass_by_value,
    clippy::unnecessary_wraps,
    clippy::redundant_closure_for_method_calls,
    dead_code,
    reason = "a test fails by panicking; the harness is shared with other tests"
)]

#[path = "../api/backend.rs"]
mod backend;
#[path = "../api/binary.rs"]
mod binary;
#[path = "../api/helpers.rs"]
mod helpers;
#[path = "../api/idp.rs"]
mod idp;
mod receiver;
#[path = "../shared/settings.rs"]
mod settings;

use std::process::Command;

use axum::http::HeaderMap;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use reqwest::StatusCode;
use rustix::process::Signal;
use serde_json::{Value, json};
use sqlx::ConnectOptions;

use backend::{Backend, drip};
use binary::{FAR, Process, binary, good_session, run};
use helpers::{CLIENT_SECRET, SESSION_SECRET, answer, client, verified};
use idp::Idp;
use receiver::{Receiver, Span};
use settings::ConfigBuilder;

const CALLERS_TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLERS_SPAN: &str = "00f067aa0ba902b7";

fn traceparent(flags: &str) -> String {
    format!("00-{CALLERS_TRACE}-{CALLERS_SPAN}-{flags}")
}

/// A command that runs `serve` with this configuration and exports its traces to `endpoint`, and the configuration's
/// file, which is deleted when it is dropped.
fn traced(endpoint: &str, toml: &str) -> (Command, tempfile::NamedTempFile) {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), toml).expect("written");
    let mut command = Command::new(env!("CARGO_BIN_EXE_rollout-token"));
    command
        .args(["serve", "--config", file.path().to_str().unwrap()])
        .env_clear()
        .env("ROLLOUT_CLIENT_ID", helpers::CLIENT_ID)
        .env("ROLLOUT_CLIENT_SECRET", CLIENT_SECRET)
        .env("ROLLOUT__SERVER__LISTEN", "127.0.0.1:0")
        .env("ROLLOUT__SERVER__ADMIN_LISTEN", "127.0.0.1:0")
        .env("ROLLOUT__SERVER__DRAIN_DELAY", "1ms")
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint);
    (command, file)
}

/// Starts the service, sends one request and stops the service, which flushes all spans. Returns the response and the
/// log.
async fn one_request(
    endpoint: &str,
    toml: &str,
    headers: &[(&str, &str)],
) -> ((StatusCode, Value), String) {
    let (mut command, _file) = traced(endpoint, toml);
    let process = Process::start(&mut command);
    let request = headers
        .iter()
        .fold(client().post(process.url()), |request, (name, value)| {
            request.header(*name, *value)
        });
    let answer = answer(request.send().await.expect("an answer")).await;
    (answer, ended(process).await)
}

async fn ended(process: Process) -> String {
    process.signal(Signal::TERM);
    let (code, log) = tokio::task::spawn_blocking(move || process.end())
        .await
        .unwrap();
    assert_eq!(code, Some(0), "{log}");
    log
}

fn attributes(span: &Span) -> Value {
    json!(span.attributes)
}

/// The trace id and span id in a `traceparent`.
fn ids(headers: &HeaderMap) -> (String, String) {
    let value = headers["traceparent"].to_str().unwrap();
    let parts: Vec<&str> = value.split('-').collect();
    assert_eq!(
        (parts[0], parts[3], parts.len()),
        ("00", "01", 4),
        "{value}"
    );
    (parts[1].to_owned(), parts[2].to_owned())
}

/// A `jwt` section, followed by a `session_endpoint` section that calls this app.
fn by_jwt_and_endpoint(app: &Backend) -> String {
    let url = app.url("/me/SENTINEL-path?key=SENTINEL-key");
    ConfigBuilder::new(helpers::BY_JWT)
        .with("session.extractors = ['web', 'app']")
        .with(format!(
            "[extractors.app]\nkind = 'session_endpoint'\nurl = '{url}'\ncookies = ['sid']"
        ))
        .to_string()
}

#[tokio::test]
async fn request_yields_a_span_tree_below_the_callers_span_without_secrets() {
    let (receiver, app) = (
        Receiver::start().await,
        Backend::json(r#"{"sub":"ann@example.com"}"#).await,
    );
    let (answer, log) = one_request(
        &receiver.url(),
        &by_jwt_and_endpoint(&app),
        &[
            ("cookie", "sid=SENTINEL-sid; other=SENTINEL-cookie"),
            ("traceparent", &traceparent("01")),
            ("tracestate", "vendor=SENTINEL-state"),
            ("baggage", "user=SENTINEL-baggage"),
            ("user-agent", "SENTINEL-agent"),
            ("x-api-key", "SENTINEL-api-key"),
            ("x-request-id", "my-id"),
        ],
    )
    .await;
    assert_eq!(answer.0, 200);
    assert_eq!(verified(&answer.1)["sub"], "ann@example.com");

    let spans = receiver.spans();
    assert_eq!(spans.len(), 4, "{spans:#?}");
    assert!(
        spans
            .iter()
            .all(|span| span.trace == CALLERS_TRACE && !span.failed)
    );
    let [request, web, own, call] =
        ["POST /rollout/token", "web", "app", "GET"].map(|name| receiver.span(name));
    let tree = [&request, &web, &own, &call].map(|span| (span.kind, span.parent.as_str()));
    assert_eq!(
        tree,
        [
            ("server", CALLERS_SPAN),
            ("internal", &*request.id),
            ("internal", &*request.id),
            ("client", &*own.id)
        ]
    );
    let logged: Value = log
        .lines()
        .find(|line| line.contains("token.issued"))
        .unwrap()
        .parse()
        .unwrap();
    assert_eq!(logged["trace_id"], CALLERS_TRACE);
    assert_eq!(
        attributes(&request),
        json!({
            "http.request.method": "POST", "http.route": "/rollout/token", "http.response.status_code": "200",
            "rollout.code": "issued", "rollout.extractor": "app", "rollout.request_id": "my-id",
            "enduser.pseudo.id": logged["subject"],
        })
    );
    assert_eq!(
        attributes(&web),
        json!({
            "rollout.extractor": "web", "rollout.extractor.kind": "jwt", "rollout.outcome": "not_present"
        })
    );
    assert_eq!(
        attributes(&own),
        json!({
            "rollout.extractor": "app", "rollout.extractor.kind": "session_endpoint", "rollout.outcome": "session",
        })
    );
    assert_eq!(
        attributes(&call),
        json!({
            "http.request.method": "GET", "server.address": "127.0.0.1",
            "server.port": app.address.port().to_string(), "http.response.status_code": "200",
        })
    );

    let asked = app.seen().remove(0);
    assert_eq!(
        ids(&asked.headers),
        (CALLERS_TRACE.to_owned(), call.id),
        "the backend gets the trace id and the span id of the call"
    );
    assert_eq!(
        (asked.header("tracestate"), asked.header("baggage")),
        (None, None)
    );

    let token = answer.1["token"].as_str().unwrap();
    for request in receiver.requests() {
        assert_eq!(
            (request.method.as_str(), request.path.as_str()),
            ("POST", "/v1/traces")
        );
        assert_eq!(
            request.header("traceparent"),
            None,
            "the export itself is not traced"
        );
        let sent = String::from_utf8_lossy(&request.body).into_owned();
        for secret in [
            "SENTINEL",
            "ann@example.com",
            CLIENT_SECRET,
            SESSION_SECRET,
            token,
        ] {
            assert!(!sent.contains(secret), "{secret}");
        }
    }
}

#[tokio::test]
async fn request_without_valid_traceparent_starts_a_trace_whose_id_is_in_the_log() {
    let receiver = Receiver::start().await;
    for parent in [
        None,
        Some("00-nonsense"),
        Some("00-00000000000000000000000000000000-00f067aa0ba902b7-01"),
    ] {
        let bearer = format!(
            "Bearer {}",
            helpers::sign_session(&json!({"sub": "ann", "exp": FAR}))
        );
        let mut headers = vec![("authorization", bearer.as_str())];
        headers.extend(parent.map(|parent| ("traceparent", parent)));
        let ((status, _), log) = one_request(&receiver.url(), helpers::BY_JWT, &headers).await;
        assert_eq!(status, 200);
        let request = receiver.last("POST /rollout/token");
        assert_eq!(request.parent, "");
        let logged: Value = log
            .lines()
            .find(|line| line.contains("token.issued"))
            .unwrap()
            .parse()
            .unwrap();
        assert_eq!(logged["trace_id"], request.trace);
    }
}

#[tokio::test]
async fn span_of_a_refusal_has_its_reason_and_is_an_error_only_for_5xx() {
    let (receiver, app) = (Receiver::start().await, Backend::always(503, &[], "").await);
    let config = by_jwt_and_endpoint(&app);
    for (headers, code, reason, failed) in [
        (("accept", "*/*"), "no_session", "no_credential", None),
        (
            ("authorization", "Bearer a.b.c"),
            "session_invalid",
            "not_a_jwt",
            None,
        ),
        (
            ("cookie", "sid=1"),
            "session_backend_unavailable",
            "status",
            Some("session_backend_unavailable"),
        ),
    ] {
        let ((status, body), _) = one_request(&receiver.url(), &config, &[headers]).await;
        let request = receiver.last("POST /rollout/token");
        assert_eq!(
            request.attributes["http.response.status_code"],
            status.as_str()
        );
        assert_eq!(
            (&body["code"], request.attributes["rollout.code"].as_str()),
            (&json!(code), code)
        );
        assert_eq!(request.attributes["rollout.reason"], reason, "{code}");
        assert_eq!(
            request.attributes.get("error.type").map(String::as_str),
            failed
        );
        assert_eq!(request.failed, failed.is_some());
        assert!(!request.attributes.contains_key("enduser.pseudo.id"));
    }
    let call = receiver.span("GET");
    assert_eq!(
        (call.failed, call.attributes["error.type"].as_str()),
        (true, "503")
    );
    let own = receiver.last("app");
    assert_eq!(
        (own.failed, own.attributes["rollout.outcome"].as_str()),
        (true, "unavailable")
    );
    assert_eq!(
        (
            own.attributes["rollout.reason"].as_str(),
            own.attributes["error.type"].as_str()
        ),
        ("status", "status")
    );
}

#[tokio::test]
async fn key_fetches_and_store_queries_are_client_spans() {
    let (receiver, idp) = (Receiver::start().await, Idp::start().await);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("app.sqlite3");
    let options = sqlx::sqlite::SqliteConnectOptions::new()
        .filename(&path)
        .create_if_missing(true);
    let mut database = options.connect().await.unwrap();
    let rows = "CREATE TABLE s (id, user); INSERT INTO s VALUES ('SENTINEL-sid', 'ann')";
    sqlx::raw_sql(rows).execute(&mut database).await.unwrap();
    let config = format!(
        "[session]\nextractors = [\"jwt\", \"db\"]\n\
         [extractors.jwt]\njwks_url = \"{}\"\nissuers = [\"https://idp.example\"]\naudiences = [\"my-app\"]\n\
         [extractors.db]\nkind = \"sql_session\"\ncookie = \"sid\"\nsubject = \"{{user}}\"\npayload = \"columns\"\n\
         url = \"sqlite://{}\"\nquery = \"SELECT user FROM s WHERE id = $1\"\n",
        idp.jwks_url(),
        path.display()
    );
    let (mut command, _file) = traced(&receiver.url(), &config);
    let process = Process::start(&mut command);
    // The keys are fetched at start, outside any request.
    let ready = format!("http://{}/readyz", process.address);
    for _ in 0..1000 {
        if client().get(&ready).send().await.unwrap().status() == 200 {
            break;
        }
    }
    let request = client()
        .post(process.url())
        .header("cookie", "sid=SENTINEL-sid");
    assert_eq!(request.send().await.unwrap().status(), 200);
    ended(process).await;
    let (own, store) = (receiver.span("db"), receiver.span("sqlite"));
    assert_eq!((store.kind, &store.parent), ("client", &own.id));
    assert_eq!(attributes(&store), json!({"db.system.name": "sqlite"}));
    let fetch = receiver.span("GET");
    assert_eq!((fetch.kind, fetch.parent.as_str()), ("client", ""));
    for request in receiver.requests() {
        assert!(!String::from_utf8_lossy(&request.body).contains("SENTINEL"));
    }
}

/// With `{kid}` in `jwks_url`, a key is fetched in a separate task on behalf of the request that needs it.
#[tokio::test]
async fn key_fetch_in_a_spawned_task_has_the_trace_and_request_id_of_its_request() {
    let receiver = Receiver::start().await;
    let closed = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let config = format!(
        "[session]\nextractors = [\"keys\"]\n[extractors.keys]\nkind = \"jwt\"\nallow_any_audience = true\n\
         jwks_url = \"http://{closed}/{{kid}}\"\nissuers = [\"https://idp.example\"]\n",
    );
    let part = |json: Value| URL_SAFE_NO_PAD.encode(json.to_string());
    let header = part(json!({"alg": "RS256", "kid": "one"}));
    let payload = part(json!({"sub": "ann", "iss": "https://idp.example", "exp": FAR}));
    let bearer = format!("Bearer {header}.{payload}.AAAA");
    let headers = [
        ("authorization", &*bearer),
        ("traceparent", &*traceparent("01")),
        ("x-request-id", "my-id"),
    ];
    let ((status, _), log) = one_request(&receiver.url(), &config, &headers).await;
    assert_eq!(status, 503);
    let (extractor, fetch) = (receiver.span("keys"), receiver.span("GET"));
    assert_eq!(
        (&fetch.trace[..], &fetch.parent),
        (CALLERS_TRACE, &extractor.id)
    );
    assert_eq!(
        (fetch.failed, fetch.attributes["error.type"].as_str()),
        (true, "unreachable")
    );
    let line: Value = log
        .lines()
        .find(|line| line.contains("calls to the backend fail"))
        .unwrap()
        .parse()
        .unwrap();
    assert_eq!(
        (&line["request_id"], &line["trace_id"], &line["extractor"]),
        (&json!("my-id"), &json!(CALLERS_TRACE), &json!("keys"))
    );
    assert!(
        !line
            .as_object()
            .unwrap()
            .keys()
            .any(|name| name.contains('.')),
        "{line}"
    );
}

#[tokio::test]
async fn unsampled_request_exports_no_span_but_forwards_its_trace_id() {
    let (receiver, app) = (
        Receiver::start().await,
        Backend::json(r#"{"sub":"ann"}"#).await,
    );
    let headers = [("cookie", "sid=1"), ("traceparent", &*traceparent("00"))];
    let ((status, _), log) =
        one_request(&receiver.url(), &by_jwt_and_endpoint(&app), &headers).await;
    assert_eq!((status, receiver.spans().len()), (StatusCode::OK, 0));
    let asked = app.seen().remove(0);
    let parent = asked.header("traceparent").unwrap();
    assert!(
        parent.starts_with(&format!("00-{CALLERS_TRACE}-")) && parent.ends_with("-00"),
        "{parent}"
    );
    assert!(log.contains(CALLERS_TRACE));
}

#[tokio::test]
async fn probes_and_unknown_paths_have_no_spans() {
    let receiver = Receiver::start().await;
    let (mut command, _file) = traced(&receiver.url(), helpers::BY_JWT);
    let process = Process::start(&mut command);
    for path in ["/healthz", "/readyz", "/SENTINEL"] {
        client()
            .get(format!("http://{}{path}", process.address))
            .send()
            .await
            .unwrap();
    }
    client()
        .get(format!("http://{}/metrics", process.admin))
        .send()
        .await
        .unwrap();
    client()
        .request("SENTINEL".parse().unwrap(), process.url())
        .send()
        .await
        .unwrap();
    ended(process).await;
    let spans = receiver.spans();
    assert_eq!(spans.len(), 1, "{spans:#?}");
    assert_eq!(spans[0].name, "_OTHER /rollout/token");
}

#[tokio::test]
async fn otel_variables_set_the_service_name_and_the_collector() {
    let receiver = Receiver::start().await;
    let (mut command, _file) = traced("http://127.0.0.1:1", helpers::BY_JWT);
    command
        .env(
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
            receiver.url() + "/mine?key=SENTINEL-key",
        )
        .env("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=SENTINEL-header")
        .env(
            "OTEL_RESOURCE_ATTRIBUTES",
            "deployment.environment.name=test,service.name=other",
        )
        .env("OTEL_SERVICE_NAME", "tokens");
    let process = Process::start(&mut command);
    client().post(process.url()).send().await.unwrap();
    let log = ended(process).await;
    let sent = receiver.requests().remove(0);
    assert_eq!(
        (sent.path.as_str(), sent.header("x-tenant")),
        ("/mine?key=SENTINEL-key", Some("SENTINEL-header"))
    );
    assert!(!log.contains("SENTINEL"), "{log}");
    assert_eq!(
        json!(receiver.resource()),
        json!({
            "service.name": "tokens", "service.version": env!("CARGO_PKG_VERSION"),
            "deployment.environment.name": "test",
        })
    );
}

/// Checks that requests are served while the collector at `endpoint` accepts no traces. Returns the log.
async fn serves_although_receiver_fails(endpoint: &str) -> String {
    let (mut command, _file) = traced(endpoint, helpers::BY_JWT);
    // Batches are sent while requests arrive, and the queue is soon full.
    command
        .env("OTEL_BSP_SCHEDULE_DELAY", "10")
        .env("OTEL_BSP_MAX_QUEUE_SIZE", "16");
    command.env("ROLLOUT__RATE_LIMIT__PER_MINUTE", "0");
    let process = Process::start(&mut command);
    let (client, session) = (client(), good_session());
    for _ in 0..200 {
        let response = client
            .post(process.url())
            .bearer_auth(&session)
            .send()
            .await
            .unwrap();
        assert_eq!(response.status(), 200);
    }
    ended(process).await
}

#[tokio::test]
async fn unreachable_collector_delays_no_request_and_is_logged_once() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let log = serves_although_receiver_fails(&format!("http://{closed}")).await;
    assert_eq!(log.matches("traces cannot be sent").count(), 1, "{log}");
}

#[tokio::test]
async fn silent_slow_or_refusing_collector_delays_no_request() {
    let silent = backend::raw(|_stream| std::future::pending()).await;
    serves_although_receiver_fails(&format!("http://{silent}")).await;
    let slow = backend::raw(|stream| drip(stream, b"HTTP/1.1 200 OK\r\n", b"x", true)).await;
    serves_although_receiver_fails(&format!("http://{slow}")).await;
    let refusing = Backend::always(400, &[], "SENTINEL-body").await;
    let log = serves_although_receiver_fails(&refusing.url("")).await;
    assert!(
        log.contains("the answer's status is 400") && !log.contains("SENTINEL"),
        "{log}"
    );
}

#[tokio::test]
async fn exit_after_a_second_signal_does_not_wait_for_the_last_spans() {
    let silent = Backend::start(|_| std::future::pending()).await;
    let (mut command, _file) = traced(&silent.url(""), helpers::BY_JWT);
    let process = Process::start(&mut command);
    client().post(process.url()).send().await.unwrap();
    process.signal(Signal::TERM);
    while silent.visits() == 0 {
        tokio::task::yield_now().await;
    }
    process.signal(Signal::TERM);
    let (code, log) = tokio::task::spawn_blocking(move || process.end())
        .await
        .unwrap();
    assert_eq!(code, Some(1), "{log}");
    assert!(
        log.contains("stopped by a second signal") && !log.contains("spans could not be sent"),
        "{log}"
    );
}

#[test]
fn unsupported_otel_variable_value_is_exit_code_2() {
    for (name, value) in [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4317"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ("OTEL_TRACES_SAMPLER", "sometimes"),
    ] {
        let mut command = binary(&["check-config"]);
        command
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318")
            .env(name, value);
        let (code, _, err) = run(&mut command);
        assert_eq!(code, Some(2), "{name}");
        assert!(err.contains(&format!("{name}: ")), "{err}");
    }
}
