//! Tests of extractors that call a backend: `session_endpoint` and `introspection`.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rollout_token::session::contract;
use rollout_token::session::registry::Registry;
use rollout_token::session::types::{ExtractError, Extracted, SessionExtractor};
use serde_json::json;
use tokio::io::AsyncWriteExt;

use crate::backend::{Backend, Seen, drip, json as json_answer, raw, raw_requests, respond};
use crate::configuration::context;
use crate::helpers::{NOW, Service, session_token};
use crate::settings::ConfigBuilder;

/// A `session_endpoint` section that forwards the cookie `sid` to `url`, with the additional keys in `more`.
fn by_endpoint(url: &str, more: &str) -> String {
    format!(
        "[session]\nextractors = [\"app\"]\n[extractors.app]\nkind = \"session_endpoint\"\nurl = \"{url}\"\n\
         cookies = [\"sid\"]\ntimeout = \"400ms\"\n{more}\n"
    )
}

const SID: (&str, &str) = ("cookie", "sid=s3cr3t-of-ann");

fn refused(status: u16, code: &str) -> Result<String, (u16, String)> {
    Err((status, code.to_owned()))
}

fn unavailable() -> Result<String, (u16, String)> {
    refused(503, "session_backend_unavailable")
}

#[tokio::test]
async fn endpoint_body_is_used_only_with_status_200_and_a_json_content_type() {
    const JSON: &[(&str, &str)] = &[("content-type", "application/json")];
    const USER: &str = r#"{"sub":"ann"}"#;
    let ann = Ok("ann".to_owned());
    let gone = || refused(401, "session_invalid");
    for (case, status, headers, body, want) in [
        ("a user", 200, JSON, USER, ann.clone()),
        (
            "a user as problem+json",
            200,
            &[("content-type", "application/me+json")],
            USER,
            ann.clone(),
        ),
        (
            "login page",
            200,
            &[("content-type", "text/html")],
            "<form action=/login>",
            unavailable(),
        ),
        (
            "JSON called HTML",
            200,
            &[("content-type", "text/html")],
            USER,
            unavailable(),
        ),
        (
            "JSON called text",
            200,
            &[("content-type", "text/plain")],
            USER,
            unavailable(),
        ),
        ("no content type", 200, &[], USER, unavailable()),
        ("created", 201, JSON, USER, unavailable()),
        ("accepted", 202, JSON, USER, unavailable()),
        ("no content", 204, &[], "", gone()),
        ("a part", 206, JSON, USER, unavailable()),
        ("not modified", 304, &[], "", unavailable()),
        ("301", 301, &[("location", "/login")], "", unavailable()),
        ("302", 302, &[("location", "/login")], USER, gone()),
        ("303", 303, &[("location", "/login")], "", gone()),
        ("307", 307, &[("location", "/login")], "", gone()),
        ("308", 308, &[("location", "/login")], "", unavailable()),
        ("401", 401, JSON, USER, gone()),
        ("403", 403, JSON, USER, gone()),
        ("404", 404, JSON, USER, unavailable()),
        ("410", 410, &[], "", gone()),
        ("400", 400, JSON, USER, unavailable()),
        ("405", 405, &[], "", unavailable()),
        ("429", 429, JSON, USER, unavailable()),
        ("500", 500, JSON, USER, unavailable()),
        ("502", 502, JSON, USER, unavailable()),
        ("503", 503, JSON, USER, unavailable()),
        ("504", 504, JSON, USER, unavailable()),
        ("not JSON", 200, JSON, "{", unavailable()),
        ("empty", 200, JSON, "", unavailable()),
        ("two", 200, JSON, "{}{}", unavailable()),
        ("deep", 200, JSON, &"[".repeat(30_000), unavailable()),
        (
            "long",
            200,
            JSON,
            &format!("{{\"sub\":\"ann\",\"x\":\"{}\"}}", "x".repeat(64 * 1024)),
            unavailable(),
        ),
        ("long, but no", 401, JSON, &"x".repeat(100_000), gone()),
        (
            "gzip",
            200,
            &[JSON[0], ("content-encoding", "gzip")],
            "\u{1f}\u{8b}\u{8}",
            unavailable(),
        ),
    ] {
        let app = Backend::always(status, headers, body).await;
        let service = Service::start(by_endpoint(&app.url("/me"), ""));
        assert_eq!(service.outcome(&[SID]).await, want, "{case}");
        let seen = app.seen();
        assert_eq!(
            seen.iter()
                .map(|seen| seen.path.as_str())
                .collect::<Vec<_>>(),
            ["/me"],
            "{case}: one call"
        );
    }
}

#[tokio::test]
async fn answer_without_a_user_is_no_session_and_a_malformed_id_is_session_invalid() {
    let no_session = || refused(401, "no_session");
    let invalid = || refused(401, "session_invalid");
    for (case, body, want) in [
        ("null user", r#"{"user":null}"#, no_session()),
        ("empty object", "{}", no_session()),
        ("empty list", "[]", no_session()),
        ("empty text", "\"\"", no_session()),
        ("null", "null", no_session()),
        ("false", "false", no_session()),
        ("null id", r#"{"user":{"id":null}}"#, no_session()),
        ("no id", r#"{"user":{"name":"Ann"}}"#, no_session()),
        ("empty id", r#"{"user":{"id":""}}"#, invalid()),
        ("zero", r#"{"user":{"id":0}}"#, no_session()),
        ("blank id", r#"{"user":{"id":"  "}}"#, invalid()),
        ("true", r#"{"user":{"id":true}}"#, invalid()),
        ("fraction", r#"{"user":{"id":1.5}}"#, invalid()),
        (
            "two users",
            r#"{"user":{"id":"ann"},"user":{"id":"bob"}}"#,
            invalid(),
        ),
        ("two ids", r#"{"user":{"id":"ann","id":"bob"}}"#, invalid()),
        ("a user", r#"{"user":{"id":7}}"#, Ok("7".to_owned())),
    ] {
        let app = Backend::json(body).await;
        let service = Service::start(by_endpoint(&app.url("/me"), "subject = \"{user.id}\""));
        assert_eq!(service.outcome(&[SID]).await, want, "{case}");
    }
}

#[tokio::test]
async fn retry_after_of_a_backend_is_clamped_between_1_and_60_seconds() {
    for (case, status, wait, want) in [
        ("429", 429, Some("17"), "17"),
        ("at once", 429, Some("0"), "1"),
        ("an hour", 429, Some("3600"), "60"),
        ("a date", 429, Some("Wed, 21 Oct 2026 07:28:00 GMT"), "2"),
        ("none", 429, None, "2"),
        ("503", 503, Some("5"), "5"),
    ] {
        let headers: Vec<_> = wait.map(|wait| ("retry-after", wait)).into_iter().collect();
        let app = Backend::always(status, &headers, "").await;
        let service = Service::start(by_endpoint(&app.url("/me"), ""));
        let response = service.post().header(SID.0, SID.1).send().await.unwrap();
        assert_eq!(response.headers()["retry-after"], want, "{case}");
        assert_eq!(crate::helpers::refused(response).await.0, 503, "{case}");
    }
}

#[tokio::test]
async fn redirect_from_the_endpoint_is_not_followed() {
    let elsewhere = Backend::json(r#"{"sub":"admin"}"#).await;
    let cases = [
        elsewhere.url("/"),
        format!("//{}/x", elsewhere.address),
        "https://127.0.0.1:1/".to_owned(),
    ];
    for location in cases {
        let out = || refused(401, "session_invalid");
        for (status, want) in [
            (301, unavailable()),
            (302, out()),
            (307, out()),
            (308, unavailable()),
        ] {
            let app = Backend::always(status, &[("location", &location)], "").await;
            let service = Service::start(by_endpoint(&app.url("/me"), "method = \"POST\""));
            assert_eq!(service.outcome(&[SID]).await, want, "{status} {location}");
            assert_eq!(app.visits(), 1);
        }
    }
    assert_eq!(elsewhere.visits(), 0);
}

#[tokio::test]
async fn malformed_slow_or_endless_backend_answer_is_503() {
    const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n";
    const FIXED: &[u8] =
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 50000\r\n\r\n";
    const CHUNKED: &[u8] =
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n";
    let servers = [
        (
            "silent",
            raw(|stream| async move { drop((std::future::pending::<()>().await, stream)) }).await,
        ),
        (
            "dripping head",
            raw(|stream| drip(stream, HEAD, b"x-a: b\r\n", true)).await,
        ),
        (
            "dripping body",
            raw(|stream| drip(stream, FIXED, b" ", true)).await,
        ),
        (
            "endless",
            raw(|stream| drip(stream, CHUNKED, b"5\r\n     \r\n", false)).await,
        ),
        (
            "huge",
            raw(|stream| {
                drip(
                    stream,
                    b"HTTP/1.1 200 OK\r\ncontent-length: 104857600\r\n\r\n",
                    b" ",
                    false,
                )
            })
            .await,
        ),
        ("closes", raw(|stream| async move { drop(stream) }).await),
        (
            "cut short",
            raw(|mut stream| async move { drop(stream.write_all(FIXED).await) }).await,
        ),
        (
            "no HTTP",
            raw(|mut stream| async move { drop(stream.write_all(b"SSH-2.0-x\r\n").await) }).await,
        ),
        ("refused", ([127, 0, 0, 1], 1).into()),
    ];
    for (case, address) in servers {
        let service = Service::start(by_endpoint(&format!("http://{address}/me"), ""));
        assert_eq!(service.outcome(&[SID]).await, unavailable(), "{case}");
    }
    let service = Service::start(by_endpoint("https://nowhere.invalid/me", ""));
    assert_eq!(service.outcome(&[SID]).await, unavailable(), "no such name");
    let plain = Backend::json(r#"{"sub":"ann"}"#).await;
    let service = Service::start(by_endpoint(
        &plain.url("/me").replace("http:", "https:"),
        "",
    ));
    assert_eq!(service.outcome(&[SID]).await, unavailable(), "no TLS");
    assert_eq!(plain.visits(), 0);
}

#[tokio::test]
async fn untrusted_certificate_is_503() {
    use rustls::pki_types::PrivatePkcs8KeyDer;
    let self_signed = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(
        rustls::crypto::aws_lc_rs::default_provider(),
    ))
    .with_safe_default_protocol_versions()
    .unwrap()
    .with_no_client_auth()
    .with_single_cert(
        vec![self_signed.cert.der().clone()],
        PrivatePkcs8KeyDer::from(self_signed.signing_key.serialize_der()).into(),
    )
    .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let visits = Arc::new(AtomicUsize::new(0));
    let counter = visits.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            if acceptor.accept(stream).await.is_ok() {
                counter.fetch_add(1, Ordering::SeqCst);
            }
        }
    });
    let service = Service::start(by_endpoint(&format!("https://localhost:{port}/me"), ""));
    assert_eq!(service.outcome(&[SID]).await, unavailable());
    assert_eq!(visits.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn only_configured_cookies_and_headers_are_forwarded_to_the_endpoint() {
    let app = Backend::json(r#"{"sub":"ann"}"#).await;
    let key = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(key.path(), "k3y\n").unwrap();
    let more =
        "forward_headers = [\"X-Tenant\"]\nadditional_headers_file = { X-Api-Key = \"KEY\" }";
    let more = more.replace("KEY", key.path().to_str().unwrap());
    let service = Service::start(by_endpoint(&app.url("/me?full=1"), &more));
    let others = |range: std::ops::Range<u32>| range.map(|n| format!("other{n}=v{n}; sid{n}=x; "));
    let cookie: String = others(0..20)
        .chain(["sid=a=b%20\"c\"; xsid=1; ".to_owned()])
        .chain(others(20..40))
        .collect();
    let headers = [
        ("cookie", cookie.as_str()),
        ("x-tenant", "t1"),
        ("set-cookie", "sid=evil"),
        ("authorization", "Bearer of-another-user"),
        ("x-forwarded-user", "admin"),
        ("range", "bytes=0-1"),
        ("accept-encoding", "gzip"),
        ("connection", "close, x-tenant"),
        ("x-api-key", "theirs"),
        ("accept", "text/html"),
        ("user-agent", "theirs"),
        ("referer", "https://app.example/"),
    ];
    assert_eq!(service.outcome(&headers).await.as_deref(), Ok("ann"));
    let seen: Seen = app.seen().remove(0);
    assert_eq!(
        (seen.method.as_str(), seen.path.as_str(), seen.body.len()),
        ("GET", "/me?full=1", 0)
    );
    assert_eq!(
        seen.names(),
        [
            "accept",
            "cookie",
            "host",
            "user-agent",
            "x-api-key",
            "x-forwarded-proto",
            "x-tenant"
        ]
    );
    assert_eq!(seen.header("cookie"), Some("sid=a=b%20\"c\""));
    assert_eq!(seen.header("host"), Some(app.address.to_string().as_str()));
    assert_eq!(
        (seen.header("x-api-key"), seen.header("x-tenant")),
        (Some("k3y"), Some("t1"))
    );
    assert_eq!(seen.header("accept"), Some("application/json"));
}

#[tokio::test]
async fn traceparent_is_forwarded_but_tracestate_and_baggage_are_not() {
    let app = Backend::json(r#"{"sub":"ann","active":true}"#).await;
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let introspection = format!(
        "[session]\nextractors = [\"api\"]\n[extractors.api]\nkind = \"introspection\"\nurl = \"{}\"\n\
         client_id = \"c\"\nclient_secret = \"introspection-secret\"\nallow_any_client = true\n",
        app.url("/introspect")
    );
    for (config, credential) in [
        (by_endpoint(&app.url("/me"), ""), SID),
        (introspection, ("authorization", "Bearer opaque")),
    ] {
        let service = Service::start(&config);
        for (case, value, want) in [
            ("theirs", parent, Some(parent)),
            ("nonsense", "00-SENTINEL", None),
            ("upper case", &parent.to_uppercase(), None),
        ] {
            let headers = [
                credential,
                ("traceparent", value),
                ("tracestate", "a=1"),
                ("baggage", "b=2"),
            ];
            assert_eq!(
                service.outcome(&headers).await.as_deref(),
                Ok("ann"),
                "{case}"
            );
            let seen = app.seen().pop().expect("a call");
            assert_eq!(seen.header("traceparent"), want, "{case}");
            assert_eq!(
                (seen.header("tracestate"), seen.header("baggage")),
                (None, None),
                "{case}"
            );
        }
    }
}

#[tokio::test]
async fn requests_with_different_traceparents_share_a_cached_answer() {
    let app = Backend::json(r#"{"sub":"ann"}"#).await;
    let service = Service::start(by_endpoint(&app.url("/me"), "cache_ttl = \"10s\""));
    for span in ["00f067aa0ba902b7", "00f067aa0ba902b8"] {
        let parent = format!("00-4bf92f3577b34da6a3ce929d0e0e4736-{span}-01");
        assert_eq!(
            service
                .outcome(&[SID, ("traceparent", &parent)])
                .await
                .as_deref(),
            Ok("ann")
        );
    }
    assert_eq!(app.visits(), 1);
}

#[tokio::test]
async fn missing_or_ambiguous_credential_is_401_without_a_backend_call() {
    let app = Backend::json(r#"{"sub":"ann"}"#).await;
    let service = Service::start(by_endpoint(
        &app.url("/me"),
        "forward_headers = [\"X-Token\"]",
    ));
    for (case, headers, want) in [
        ("nothing", &[][..], refused(401, "no_session")),
        (
            "others' cookies",
            &[("cookie", "a=1; Sid=2; sid2=3")],
            refused(401, "no_session"),
        ),
        (
            "empty cookie",
            &[("cookie", "sid=")],
            refused(401, "no_session"),
        ),
        (
            "empty header",
            &[("x-token", "")],
            refused(401, "no_session"),
        ),
        (
            "two cookies",
            &[("cookie", "sid=a; sid=b")],
            refused(401, "session_invalid"),
        ),
        (
            "two headers",
            &[("x-token", "a"), ("x-token", "b")],
            refused(401, "session_invalid"),
        ),
        (
            "one cookie, and one header with two values",
            &[SID, ("x-token", "a"), ("x-token", "b")],
            refused(401, "session_invalid"),
        ),
    ] {
        assert_eq!(service.outcome(headers).await, want, "{case}");
    }
    assert_eq!(app.visits(), 0);
    assert_eq!(
        service.outcome(&[("x-token", "a")]).await.as_deref(),
        Ok("ann")
    );
}

#[tokio::test]
async fn subject_and_expiry_are_read_from_the_configured_response_headers() {
    let user = "response_headers = [\"X-User\", \"X-Ends\"]\nsubject = \"{x-user}\"\nexpires_path = \"x-ends\"";
    let (ends, ended) = ((NOW + 60).to_string(), NOW.to_string());
    for (case, headers, want) in [
        (
            "there",
            &[("x-user", "ann"), ("x-ends", ends.as_str())][..],
            Ok("ann".to_owned()),
        ),
        (
            "an HTTP date",
            &[
                ("x-user", "ann"),
                ("x-ends", "Fri, 01 Jan 2100 00:00:00 GMT"),
            ],
            Ok("ann".to_owned()),
        ),
        ("no end", &[("x-user", "ann")], Ok("ann".to_owned())),
        (
            "over",
            &[("x-user", "ann"), ("x-ends", ended.as_str())],
            refused(401, "session_expired"),
        ),
        (
            "no time",
            &[("x-user", "ann"), ("x-ends", "soon")],
            unavailable(),
        ),
        (
            "absent",
            &[("x-ends", ends.as_str())],
            refused(401, "no_session"),
        ),
        ("empty", &[("x-user", "")], refused(401, "no_session")),
        (
            "twice",
            &[("x-user", "ann"), ("x-user", "bob")],
            unavailable(),
        ),
    ] {
        let app = Backend::always(200, headers, "").await;
        let service = Service::start(by_endpoint(&app.url("/me"), user));
        assert_eq!(service.outcome(&[SID]).await, want, "{case}");
    }
}

/// The fake app's JSON response: the value of the cookie `sid` as the subject, and an expiry 5 s after [`NOW`].
fn user_of(seen: &Seen) -> String {
    let cookie = seen.header("cookie").unwrap_or("sid=none");
    format!(
        r#"{{"sub":"{}","expires":"2027-01-15T08:00:05Z"}}"#,
        cookie.trim_start_matches("sid=")
    )
}

#[tokio::test]
async fn cached_answer_is_used_only_for_equal_credentials_and_until_the_session_expires() {
    let app = Backend::start(|seen| async move { json_answer(&user_of(&seen)) }).await;
    let keys = "cache_ttl = \"10s\"\nexpires_path = \"/expires\"\nforward_headers = [\"X-Org\"]";
    let service = Service::start(by_endpoint(&app.url("/me"), keys));
    let ask = async |cookie: &'static str, org: &'static str| {
        service.outcome(&[("cookie", cookie), ("x-org", org)]).await
    };
    for (cookie, org, user, visits) in [
        ("sid=ann", "1", "ann", 1),
        ("sid=ann", "1", "ann", 1),
        ("sid=bob", "1", "bob", 2),
        ("sid=ann", "2", "ann", 3),
        ("x=y; sid=ann", "1", "ann", 3),
    ] {
        assert_eq!(ask(cookie, org).await.as_deref(), Ok(user));
        assert_eq!(app.visits(), visits, "{cookie} {org}");
    }
    service.clock.advance(Duration::from_secs(4));
    assert!(ask("sid=ann", "1").await.is_ok());
    assert_eq!(app.visits(), 3, "kept");
    service.clock.advance(Duration::from_secs(1));
    assert_eq!(
        ask("sid=ann", "1").await,
        refused(401, "session_expired"),
        "not beyond its end"
    );
    assert_eq!(app.visits(), 4);
}

#[tokio::test]
async fn answer_whose_expiry_is_the_smallest_integer_is_expired() {
    let app = Backend::json(&format!(r#"{{"sub":"ann","expires":{}}}"#, i64::MIN)).await;
    let keys = "cache_ttl = \"10s\"\nexpires_path = \"/expires\"";
    let service = Service::start(by_endpoint(&app.url("/me"), keys));
    for visits in 1..=2 {
        let answer = service.outcome(&[("cookie", "sid=ann")]).await;
        assert_eq!(answer, refused(401, "session_expired"));
        assert_eq!(app.visits(), visits, "not cached");
    }
}

#[tokio::test]
async fn without_cache_ttl_every_request_calls_the_endpoint() {
    let signed_in = Arc::new(AtomicBool::new(true));
    let state = signed_in.clone();
    let app = Backend::start(move |_| {
        let body = if state.load(Ordering::SeqCst) {
            r#"{"sub":"ann"}"#
        } else {
            "null"
        };
        async move { json_answer(body) }
    })
    .await;
    let service = Service::start(by_endpoint(&app.url("/me"), ""));
    assert!(service.outcome(&[SID]).await.is_ok());
    signed_in.store(false, Ordering::SeqCst);
    assert_eq!(service.outcome(&[SID]).await, refused(401, "no_session"));
}

/// Builds an extractor without a service, so that the limits of the service do not apply.
fn extractor(kind: &str, keys: &str) -> Arc<dyn SessionExtractor> {
    contract::build(&Registry::builtin(), kind, keys, &context()).expect("good keys")
}

#[tokio::test]
async fn ten_thousand_identical_lookups_share_one_call() {
    let (app, open) = Backend::held(|seen| json_answer(&user_of(&seen))).await;
    let app_of = extractor(
        "session_endpoint",
        &format!(
            "url = \"{}\"\ncookies = [\"sid\"]\ntimeout = \"5s\"\nmax_waiting = 10000",
            app.url("/")
        ),
    );
    let request = contract::request(&[("cookie", "sid=ann")]);
    let all = futures_util::future::join_all((0..10_000).map(|_| app_of.extract(&request)));
    let (answers, ()) = tokio::join!(all, async { open.send(true).expect("the app lives") });
    assert_eq!(
        answers
            .iter()
            .filter(|answer| matches!(answer, Ok(Some(_))))
            .count(),
        10_000
    );
    assert_eq!(app.visits(), 1);
}

#[tokio::test]
async fn five_hundred_different_cookies_cause_at_most_64_concurrent_calls() {
    let app = Backend::start(|seen| async move {
        tokio::task::yield_now().await;
        json_answer(&user_of(&seen))
    })
    .await;
    let app_of = extractor(
        "session_endpoint",
        &format!("url = \"{}\"\ncookies = [\"sid\"]", app.url("/")),
    );
    let requests: Vec<_> = (0..500)
        .map(|n| contract::request(&[("cookie", &format!("sid=u{n}"))]))
        .collect();
    let answers =
        futures_util::future::join_all(requests.iter().map(|request| app_of.extract(request)))
            .await;
    for (n, answer) in answers.into_iter().enumerate() {
        match answer {
            Ok(Some(session)) => {
                let shown = serde_json::to_value(&session.attributes).unwrap();
                assert_eq!(
                    shown["sub"],
                    format!("u{n}"),
                    "each caller gets the answer for its own cookie"
                );
            }
            Err(ExtractError::Unavailable(_)) => {}
            other => panic!("{other:?}"),
        }
    }
    assert!(app.most_running.load(Ordering::SeqCst) <= 64);
}

/// The status of `/readyz`, and the state that it reports for the only extractor.
async fn ready(service: &Service) -> (u16, String) {
    let response = reqwest::get(format!("http://{}/readyz", service.admin))
        .await
        .unwrap();
    let status = response.status().as_u16();
    let body: serde_json::Value = response.json().await.unwrap();
    (
        status,
        body["extractors"][0]["state"].as_str().unwrap().to_owned(),
    )
}

#[tokio::test]
async fn first_request_after_a_backend_outage_gets_a_token() {
    let well = Arc::new(AtomicBool::new(false));
    let state = well.clone();
    let app = Backend::start(move |seen| {
        let answer = if state.load(Ordering::SeqCst) {
            json_answer(&user_of(&seen))
        } else {
            respond(503, &[], "")
        };
        async move { answer }
    })
    .await;
    let service = Service::start(by_endpoint(&app.url("/me"), ""));
    for _ in 0..50 {
        assert_eq!(service.outcome(&[SID]).await, unavailable());
    }
    assert_eq!(app.visits(), 50, "every request calls the endpoint");
    assert_eq!(ready(&service).await, (200, "stale".to_owned()));
    well.store(true, Ordering::SeqCst);
    assert!(service.outcome(&[SID]).await.is_ok());
    assert_eq!(ready(&service).await, (200, "ready".to_owned()));

    let metrics = service.metrics().await;
    for result in ["status", "ok"] {
        let line = format!(
            "rollout_token_backend_duration_seconds_count{{extractor=\"app\",result=\"{result}\"}}"
        );
        assert!(metrics.contains(&line), "{line}");
    }
    assert!(!metrics.contains("s3cr3t"));
}

/// How an app or issuer fails for one caller's credential.
#[derive(Clone, Copy, Debug)]
enum Fault {
    /// The status is 502, as from a gateway during an outage.
    Gateway,
    /// The status is 400, which means neither signed in nor signed out.
    Nonsense,
    /// The backend does not respond before the timeout.
    Hangs,
    /// The backend closes the connection without a response, as some servers do if a request head is too long.
    Closes,
}

/// A backend that fails for requests that contain `evil`, and responds with `body` to all others.
async fn failing_for_one(fault: Fault, body: &'static str) -> std::net::SocketAddr {
    raw_requests(move |mut stream, request| async move {
        let text = String::from_utf8_lossy(&request).into_owned();
        let answer = match (text.contains("evil"), fault) {
            (false, _) => format!(
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            ),
            (true, Fault::Gateway) => "HTTP/1.1 502 No\r\ncontent-length: 0\r\n\r\n".to_owned(),
            (true, Fault::Nonsense) => "HTTP/1.1 400 No\r\ncontent-length: 0\r\n\r\n".to_owned(),
            (true, Fault::Hangs) => return std::future::pending().await,
            (true, Fault::Closes) => return None,
        };
        stream.write_all(answer.as_bytes()).await.ok()?;
        Some(stream)
    })
    .await
}

#[tokio::test]
async fn failing_lookup_of_one_cookie_does_not_affect_other_callers() {
    let long = format!("sid=evil{}", "x".repeat(5000));
    for fault in [Fault::Gateway, Fault::Nonsense, Fault::Hangs, Fault::Closes] {
        let app = failing_for_one(fault, r#"{"sub":"ann"}"#).await;
        let service = Service::start(by_endpoint(&format!("http://{app}/me"), ""));
        for n in 0..10 {
            let cookie = format!("{long}{n}");
            let stranger = [("cookie", cookie.as_str())];
            let (evil, honest) = tokio::join!(service.outcome(&stranger), service.outcome(&[SID]));
            assert_eq!(evil, unavailable(), "{fault:?}");
            assert_eq!(
                honest.as_deref(),
                Ok("ann"),
                "{fault:?}, after {n} failures"
            );
        }
        assert!(service.outcome(&[SID]).await.is_ok(), "{fault:?}");
    }
}

#[tokio::test]
async fn failing_introspection_of_one_token_does_not_affect_other_callers() {
    for fault in [Fault::Gateway, Fault::Nonsense, Fault::Hangs, Fault::Closes] {
        let issuer = failing_for_one(fault, r#"{"active":true,"sub":"ann"}"#).await;
        let service = Service::start(by_introspection(
            &format!("http://{issuer}/"),
            "timeout = \"400ms\"",
        ));
        for n in 0..10 {
            let stranger = format!("Bearer evil{n}");
            let stranger = [("authorization", stranger.as_str())];
            let (evil, honest) =
                tokio::join!(service.outcome(&stranger), service.outcome(&[TOKEN]));
            assert_eq!(evil, unavailable(), "{fault:?}");
            assert_eq!(
                honest.as_deref(),
                Ok("ann"),
                "{fault:?}, after {n} failures"
            );
        }
    }
}

#[tokio::test]
async fn requests_waiting_for_a_hung_backend_do_not_block_other_extractors() {
    let (hung, mut calls) = Backend::hung().await;
    let other = Backend::json(r#"{"active":true,"sub":"bob"}"#).await;
    let config = ConfigBuilder::new(
        "server.max_in_flight = 16
        session.extractors = ['app', 'api', 'own']
        [extractors.app]
        kind = 'session_endpoint'
        cookies = ['sid']
        timeout = '5s'
        [extractors.api]
        kind = 'introspection'
        from = ['header:x-token']
        client_id = 'us'
        client_secret = 'our secret:of 24 bytes'
        allow_any_client = true
        [extractors.own]
        kind = 'trusted_header'
        header = 'x-user'
        trusted_proxies = ['127.0.0.1']",
    )
    .with(format!("extractors.app.url = '{}'", hung.url("/me")))
    .with(format!(
        "extractors.api.url = '{}'",
        other.url("/introspect")
    ));
    let service = Arc::new(Service::start(config));
    let mut strangers = tokio::task::JoinSet::new();
    for n in 0..16 {
        let service = service.clone();
        strangers.spawn(async move { service.outcome(&[("cookie", &format!("sid={n}"))]).await });
    }
    // `max_waiting` is 16 / (2 backends + 1), rounded down to 5, so the other 11 requests are refused at once.
    calls.wait_for(|count| *count == 5).await.unwrap();
    for _ in 0..11 {
        assert_eq!(strangers.join_next().await.unwrap().unwrap(), unavailable());
    }
    assert_eq!(
        service.outcome(&[("x-token", "t")]).await.as_deref(),
        Ok("bob"),
        "another backend"
    );
    assert_eq!(
        service.outcome(&[("x-user", "ann")]).await.as_deref(),
        Ok("ann"),
        "no backend"
    );
    assert_eq!(hung.visits(), 5);
}

#[tokio::test]
async fn requests_waiting_for_a_hung_store_do_not_block_other_extractors() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    // The kernel accepts the connections, but no program reads from them.
    for keys in [
        format!("kind = \"redis_session\"\nurl = \"redis://{address}\"\nkey_prefix = \"sess:\""),
        format!(
            "kind = \"sql_session\"\nurl = \"postgres://us@{address}/app?sslmode=disable\"\n\
             query = \"SELECT user_id FROM sessions WHERE id = $1\""
        ),
    ] {
        let service = Arc::new(Service::start(format!(
            "[server]\nmax_in_flight = 16\n[session]\nextractors = [\"store\", \"own\"]\n[extractors.store]\n{keys}\n\
             cookie = \"sid\"\npool_wait = \"5s\"\ntimeout = \"5s\"\n[extractors.own]\nkind = \"trusted_header\"\n\
             header = \"x-user\"\ntrusted_proxies = [\"127.0.0.1\"]\n"
        )));
        let mut strangers = tokio::task::JoinSet::new();
        for n in 0..16 {
            let service = service.clone();
            strangers.spawn(async move {
                service
                    .outcome(&[("cookie", &format!("sid=session-id-{n}"))])
                    .await
            });
        }
        // `max_waiting` is 16 / (1 backend + 1), which is 8, so the other 8 requests are refused at once.
        for _ in 0..8 {
            assert_eq!(
                strangers.join_next().await.unwrap().unwrap(),
                unavailable(),
                "{keys}"
            );
        }
        assert_eq!(
            service.outcome(&[("x-user", "ann")]).await.as_deref(),
            Ok("ann"),
            "{keys}"
        );
    }
}

#[tokio::test]
async fn forged_seals_do_not_block_other_extractors() {
    let service = Arc::new(Service::start(
        "[server]\nmax_in_flight = 16\n[rate_limit]\nper_minute = 0\n[session]\nextractors = [\"h3\", \"own\"]\n\
         [extractors.h3]\nkind = \"iron_session\"\nversion = \"raw\"\ncookie = \"sid\"\n\
         password = \"hunter2-hunter2-hunter2-hunter2-hunter2\"\n[extractors.own]\nkind = \"trusted_header\"\n\
         header = \"x-user\"\ntrusted_proxies = [\"127.0.0.1\"]\n",
    ));
    // 32 clients keep sending forged seals. At most 8 of their requests wait, because `max_waiting` is
    // 16 / (1 backend + 1).
    let (count, busy) = (Arc::new(AtomicUsize::new(0)), unavailable());
    let mut strangers = tokio::task::JoinSet::new();
    for _ in 0..32 {
        let (service, count, busy) = (service.clone(), count.clone(), busy.clone());
        strangers.spawn(async move {
            loop {
                let n = count.fetch_add(1, Ordering::Relaxed);
                let forged = format!("sid=Fe26.2**{n}*AAAA*AAAA**salt*AAAA");
                let outcome = service.outcome(&[("cookie", &forged)]).await;
                assert!(
                    outcome == busy || outcome == refused(401, "session_invalid"),
                    "{outcome:?}"
                );
            }
        });
    }
    while count.load(Ordering::Relaxed) < 64 {
        tokio::task::yield_now().await;
    }
    for _ in 0..50 {
        assert_eq!(
            service.outcome(&[("x-user", "ann")]).await.as_deref(),
            Ok("ann")
        );
    }
    assert!(strangers.try_join_next().is_none(), "a stranger stopped");
}

#[tokio::test]
async fn requests_above_max_waiting_are_refused_with_reason_backend_busy() {
    let (app, open) = Backend::held(|seen| json_answer(&user_of(&seen))).await;
    let keys = format!(
        "url = \"{}\"\ncookies = [\"sid\"]\ntimeout = \"5s\"\nmax_waiting = 3",
        app.url("/")
    );
    let app_of = extractor("session_endpoint", &keys);
    let request = contract::request(&[("cookie", "sid=ann")]);
    let waiting = futures_util::future::join_all((0..10).map(|_| app_of.extract(&request)));
    let (answers, ()) = tokio::join!(waiting, async { open.send(true).expect("the app lives") });
    let busy = |answer: &_| matches!(answer, Err(ExtractError::Unavailable(cause)) if cause.reason == "backend_busy");
    assert_eq!(
        answers
            .iter()
            .filter(|answer| matches!(answer, Ok(Some(_))))
            .count(),
        3
    );
    assert_eq!(answers.iter().filter(|answer| busy(answer)).count(), 7);
    for kind in ["session_endpoint", "introspection", "jwt"] {
        let more = "max_waiting = 0\nallow_any_audience = true\nissuers = [\"i\"]\njwks_url = \"https://a.example/\"";
        let more = if kind == "jwt" {
            more
        } else {
            "max_waiting = 0"
        };
        let problems = contract::build(&Registry::builtin(), kind, more, &context())
            .expect_err(kind)
            .to_string();
        assert!(
            problems.contains(&format!("{kind}.max_waiting: must be at least 1")),
            "{problems}"
        );
    }
}

/// Nothing listens on port 1. The error that the backend is unavailable therefore shows that the credential was read.
#[tokio::test]
async fn several_spaces_after_bearer_are_treated_like_one_space_by_every_kind() {
    let jwt = session_token(json!({}));
    let store = "from = [\"header:authorization\"]\nkey_hash = \"sha256\"";
    for (kind, header, keys) in [
        (
            "jwt",
            "authorization",
            "secret = \"session-secret-session-secret-session-secret\"\nallow_any_audience = true\n\
             algorithms = [\"HS256\"]".to_owned(),
        ),
        (
            "jwt",
            "x-token",
            "from = [\"header:x-token\"]\nallow_any_audience = true\nalgorithms = [\"HS256\"]\n\
             secret = \"session-secret-session-secret-session-secret\""
                .to_owned(),
        ),
        (
            "introspection",
            "authorization",
            "url = \"http://127.0.0.1:1/\"\nclient_id = \"c\"\nclient_secret = \"another-secret-of-the-issuer\"\n\
             allow_any_client = true"
                .to_owned(),
        ),
        (
            "api_key",
            "authorization",
            format!("keys = {{ a = \"{}\" }}\nallowed_subjects = [\"*\"]", "0".repeat(64)),
        ),
        (
            "authjs",
            "authorization",
            "version = \"v4\"\naccept_bearer = true\nsecrets = [\"hunter2-hunter2-hunter2\"]".to_owned(),
        ),
        (
            "iron_session",
            "x-sid-session",
            "version = \"raw\"\ncookie = \"sid\"\npassword = \"hunter2-hunter2-hunter2-hunter2-hunter2\"".to_owned(),
        ),
        (
            "redis_session",
            "authorization",
            format!("url = \"redis://127.0.0.1:1\"\n{store}"),
        ),
        (
            "sql_session",
            "authorization",
            format!(
                "url = \"postgres://u@127.0.0.1:1/app?sslmode=disable\"\n{store}\n\
                 query = \"SELECT user_id FROM sessions WHERE id = $1\""
            ),
        ),
    ] {
        let extractor = extractor(kind, &keys);
        for token in [jwt.as_str(), "0123456789abcdef0123456789abcdef01234567"] {
            let outcomes = ["Bearer ", "Bearer  ", "bearer   "].map(|scheme| {
                let request = contract::request(&[(header, &format!("{scheme}{token}"))]);
                let extractor = extractor.clone();
                async move { outcome_in_words(extractor.extract(&request).await) }
            });
            let [one, two, three] = futures_util::future::join_all(outcomes)
                .await
                .try_into()
                .expect("three outcomes");
            assert_ne!(one, "absent", "{kind}, {header}");
            assert_eq!((&two, &three), (&one, &one), "{kind}, {header}");
        }
    }
}

fn outcome_in_words(extracted: Extracted) -> String {
    match extracted {
        Ok(None) => "absent".to_owned(),
        Ok(Some(_)) => "a session".to_owned(),
        Err(ExtractError::NotMine(why, _)) => format!("not mine: {}", why.reason),
        Err(error) => error.reason().to_string(),
    }
}

#[tokio::test]
async fn credential_above_16_kib_is_401_and_not_forwarded() {
    let app = Backend::json(r#"{"sub":"ann","active":true}"#).await;
    let keys = "forward_headers = [\"X-Token\"]";
    let by_cookie = Service::start(format!(
        "{}[server]\nmax_header_bytes = 65536",
        by_endpoint(&app.url("/me"), keys)
    ));
    let by_token = Service::start(format!(
        "{}[server]\nmax_header_bytes = 65536",
        by_introspection(&app.url("/"), "")
    ));
    let (half, most) = ("x".repeat(8 * 1024), "x".repeat(16 * 1024));
    for (case, service, headers, is_good) in [
        (
            "cookie and header",
            &by_cookie,
            vec![("cookie", format!("sid={half}")), ("x-token", half.clone())],
            true,
        ),
        (
            "one byte more",
            &by_cookie,
            vec![
                ("cookie", format!("sid={half}y")),
                ("x-token", half.clone()),
            ],
            false,
        ),
        (
            "token",
            &by_token,
            vec![("authorization", format!("Bearer {most}"))],
            true,
        ),
        (
            "one byte more",
            &by_token,
            vec![("authorization", format!("Bearer {most}y"))],
            false,
        ),
    ] {
        let headers: Vec<_> = headers
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        let want = if is_good {
            Ok("ann".to_owned())
        } else {
            refused(401, "session_invalid")
        };
        assert_eq!(service.outcome(&headers).await, want, "{case}");
    }
    assert_eq!(app.visits(), 2);
}

/// A server that responds to the first request on each connection, closes the connection when a second request arrives,
/// and counts the requests. Returns its address and the count.
async fn closing_at_the_second_request() -> (std::net::SocketAddr, Arc<AtomicUsize>) {
    let requests = Arc::new(AtomicUsize::new(0));
    let counter = requests.clone();
    let served = Arc::new(Mutex::new(std::collections::HashSet::new()));
    let address = raw_requests(move |mut stream, _| {
        counter.fetch_add(1, Ordering::SeqCst);
        let is_first = served
            .lock()
            .unwrap()
            .insert(stream.peer_addr().expect("a peer"));
        async move {
            if !is_first {
                return None;
            }
            let body = r#"{"sub":"ann","active":true}"#;
            let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n";
            let answer = format!("{head}content-length: {}\r\n\r\n{body}", body.len());
            stream.write_all(answer.as_bytes()).await.ok()?;
            Some(stream)
        }
    })
    .await;
    (address, requests)
}

#[tokio::test]
async fn get_and_introspection_requests_are_retried_once_if_a_keep_alive_connection_was_closed() {
    let at = |address| format!("http://{address}/");
    let (app, by_get) = closing_at_the_second_request().await;
    let get = Service::start(by_endpoint(&at(app), ""));
    let (issuer, by_introspecting) = closing_at_the_second_request().await;
    let introspection = Service::start(by_introspection(&at(issuer), ""));
    for _ in 0..10 {
        assert_eq!(get.outcome(&[SID]).await.as_deref(), Ok("ann"));
        assert_eq!(introspection.outcome(&[TOKEN]).await.as_deref(), Ok("ann"));
    }
    for requests in [by_get, by_introspecting] {
        assert!(
            (11..=20).contains(&requests.load(Ordering::SeqCst)),
            "{requests:?}"
        );
    }
    let (app, by_post) = closing_at_the_second_request().await;
    let post = Service::start(by_endpoint(&at(app), "method = \"POST\""));
    assert_eq!(post.outcome(&[SID]).await.as_deref(), Ok("ann"));
    assert_eq!(
        post.outcome(&[SID]).await,
        unavailable(),
        "a POST is not retried, because the first attempt may have changed state"
    );
    assert_eq!(by_post.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn new_connection_closed_without_an_answer_is_503_without_a_retry() {
    let requests = Arc::new(AtomicUsize::new(0));
    let counter = requests.clone();
    let app = raw_requests(move |_, _| {
        counter.fetch_add(1, Ordering::SeqCst);
        async { None }
    })
    .await;
    let service = Service::start(by_endpoint(&format!("http://{app}/me"), ""));
    assert_eq!(service.outcome(&[SID]).await, unavailable());
    assert_eq!(requests.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn requests_succeed_if_the_backend_closes_the_connection_after_each_answer() {
    const ANSWER: &[u8] =
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 13\r\n\r\n\
                            {\"sub\":\"ann\"}";
    let app = raw(|mut stream| async move { drop(stream.write_all(ANSWER).await) }).await;
    let app_of = extractor(
        "session_endpoint",
        &format!("url = \"http://{app}/\"\ncookies = [\"sid\"]"),
    );
    let app_of = &*app_of;
    let callers = (0..3).map(|caller| async move {
        for n in 0..100 {
            let request = contract::request(&[("cookie", &format!("sid={caller}-{n}"))]);
            let answer = app_of.extract(&request).await;
            assert!(matches!(answer, Ok(Some(_))), "{caller}-{n}: {answer:?}");
        }
    });
    futures_util::future::join_all(callers).await;
}

#[tokio::test]
async fn response_that_means_signed_out_is_401_and_any_other_non_200_response_is_503() {
    let out = || refused(401, "session_invalid");
    let (https, elsewhere) = (
        "https://app.example:8443/me?full=1",
        "https://app.example/login?next=%2Fme",
    );
    let listed = "signed_out = [404, 302, 400]";
    for (case, keys, status, location, want) in [
        ("204", "", 204, None, out()),
        ("401", "", 401, None, out()),
        ("403", "", 403, None, out()),
        ("410", "", 410, None, out()),
        ("302 to a login page", "", 302, Some("/login"), out()),
        (
            "302 to a login page over https",
            "",
            302,
            Some(elsewhere),
            out(),
        ),
        ("303 without Location", "", 303, None, out()),
        (
            "307 to the same path with another query",
            "",
            307,
            Some("https://app.example/me?full=2"),
            out(),
        ),
        ("302 to https", "", 302, Some(https), unavailable()),
        ("303 to https", "", 303, Some(https), unavailable()),
        ("307 to https", "", 307, Some(https), unavailable()),
        ("301", "", 301, Some("/me/"), unavailable()),
        ("308", "", 308, Some("/me/"), unavailable()),
        ("300", "", 300, None, unavailable()),
        ("304", "", 304, None, unavailable()),
        ("404", "", 404, None, unavailable()),
        ("405", "", 405, None, unavailable()),
        ("402", "", 402, None, unavailable()),
        ("listed 404", listed, 404, None, out()),
        ("listed 400", listed, 400, None, out()),
        ("listed 302 to https", listed, 302, Some(https), out()),
        ("401, which is not listed", listed, 401, None, unavailable()),
        (
            "303, which is not listed",
            listed,
            303,
            Some("/login"),
            unavailable(),
        ),
    ] {
        let headers: Vec<_> = location
            .map(|location| ("location", location))
            .into_iter()
            .collect();
        let app = Backend::always(status, &headers, "").await;
        let service = Service::start(by_endpoint(&app.url("/me?full=1"), keys));
        assert_eq!(service.outcome(&[SID]).await, want, "{case}");
    }
}

#[tokio::test]
async fn error_detail_for_a_redirect_has_its_status_and_location_without_the_query() {
    let app = Backend::always(
        302,
        &[(
            "location",
            "https://u:hunter2@app.example/me?hunter2#hunter2",
        )],
        "",
    )
    .await;
    let app_of = extractor(
        "session_endpoint",
        &format!("url = \"{}\"\ncookies = [\"sid\"]", app.url("/me?hunter2")),
    );
    let answer = app_of.extract(&contract::request(&[SID])).await;
    let Err(ExtractError::Unavailable(cause)) = answer else {
        panic!("{answer:?}")
    };
    let detail = cause.detail.unwrap();
    assert_eq!(cause.reason, "wrong_url");
    assert!(
        detail.contains("302") && detail.contains("https://app.example/me:"),
        "{detail}"
    );
    assert!(!detail.contains("hunter2"), "{detail}");
}

#[test]
fn signed_out_status_outside_201_to_499_is_refused_at_start() {
    for status in ["200", "500", "503", "100"] {
        let keys = format!(
            "url = \"http://127.0.0.1:9/\"\ncookies = [\"sid\"]\nsigned_out = [401, {status}]"
        );
        let built = contract::build(&Registry::builtin(), "session_endpoint", &keys, &context());
        let problems = built.expect_err(status).to_string();
        assert!(
            problems.contains("session_endpoint.signed_out: must be"),
            "{problems}"
        );
    }
}

/// A fake app with these answers (path, cookie or session token, status, body), and a service with a `session_endpoint`
/// section that sets only the preset, the URL and, for `authjs`, the subject.
async fn product(
    preset: &str,
    answers: Vec<(&'static str, &'static str, u16, &'static str)>,
) -> (Service, Backend) {
    let app = Backend::start(move |seen: Seen| {
        let known = answers.iter().find(|(path, cookie, ..)| {
            let given = seen.header("cookie").or(seen.header("x-session-token"));
            seen.path == *path && given == Some(cookie)
        });
        let (status, body) = known.map_or((404, ""), |(_, _, status, body)| (*status, *body));
        let json = [(
            "content-type".to_owned(),
            "application/json; charset=utf-8".to_owned(),
        )];
        async move { respond(status, &json, body) }
    })
    .await;
    // An app with Auth.js chooses where it stores the user's id, so `subject` is required.
    let subject = if preset == "authjs" {
        "subject = \"{user.id}\"\n"
    } else {
        ""
    };
    let service = Service::start(format!(
        "[session]\nextractors = [\"app\"]\n[extractors.app]\nkind = \"session_endpoint\"\npreset = \"{preset}\"\n\
         {subject}url = \"{}\"\n",
        app.url("")
    ));
    (service, app)
}

#[tokio::test]
async fn kratos_preset_forwards_the_cookie_or_session_token_and_reads_identity_id() {
    const WHOAMI: &str = r#"{"id":"f0b2","active":true,"expires_at":"2027-01-15T08:00:01.123456Z",
        "authenticated_at":"2027-01-14T08:00:00Z","authenticator_assurance_level":"aal1",
        "identity":{"id":"9f42","schema_id":"default","traits":{"email":"ann@example.com"}},"devices":[]}"#;
    const NO_SESSION: &str = r#"{"error":{"code":401,"status":"Unauthorized","reason":"No valid session cookie found."}}"#;
    const AAL2: &str = r#"{"error":{"id":"session_aal2_required","code":403}}"#;
    let path = "/sessions/whoami";
    let (service, app) = product(
        "kratos",
        vec![
            (path, "ory_kratos_session=good", 200, WHOAMI),
            (path, "native", 200, WHOAMI),
            (path, "ory_kratos_session=out", 401, NO_SESSION),
            (path, "ory_kratos_session=half", 403, AAL2),
        ],
    )
    .await;
    for (headers, want) in [
        (
            ("cookie", "csrf_token_x=1; ory_kratos_session=good"),
            Ok("9f42".to_owned()),
        ),
        (("x-session-token", "native"), Ok("9f42".to_owned())),
        (
            ("cookie", "ory_kratos_session=out"),
            refused(401, "session_invalid"),
        ),
        (
            ("cookie", "ory_kratos_session=half"),
            refused(401, "session_invalid"),
        ),
        (("cookie", "other=1"), refused(401, "no_session")),
    ] {
        assert_eq!(service.outcome(&[headers]).await, want, "{headers:?}");
    }
    assert_eq!(app.visits(), 4);
    service.clock.advance(Duration::from_secs(1));
    let over = service
        .outcome(&[("cookie", "ory_kratos_session=good")])
        .await;
    assert_eq!(over, refused(401, "session_expired"));
}

#[tokio::test]
async fn better_auth_preset_forwards_the_session_token_cookie_and_reads_user_id() {
    const SESSION: &str = r#"{"session":{"id":"s1","token":"t","userId":"u-7","expiresAt":"2027-01-22T08:00:00.000Z"},
        "user":{"id":"u-7","email":"ann@example.com","emailVerified":true,"name":"Ann"}}"#;
    let path = "/api/auth/get-session";
    let (service, _) = product(
        "better-auth",
        vec![
            (path, "better-auth.session_token=t.sig%3D", 200, SESSION),
            (
                path,
                "__Secure-better-auth.session_token=t.sig%3D",
                200,
                SESSION,
            ),
            (path, "better-auth.session_token=out", 200, "null"),
            // Without the cookie `dont_remember`, the app would make this user's session cookie persistent.
            (
                path,
                "better-auth.session_token=brief; better-auth.dont_remember=true.sig",
                200,
                SESSION,
            ),
        ],
    )
    .await;
    for (cookie, want) in [
        (
            "better-auth.session_token=t.sig%3D; better-auth.session_data=cached",
            Ok("u-7".to_owned()),
        ),
        (
            "better-auth.dont_remember=true.sig; better-auth.session_token=brief",
            Ok("u-7".to_owned()),
        ),
        (
            "__Secure-better-auth.session_token=t.sig%3D",
            Ok("u-7".to_owned()),
        ),
        ("better-auth.session_token=out", refused(401, "no_session")),
        (
            "better-auth.session_data=cached",
            refused(401, "no_session"),
        ),
    ] {
        assert_eq!(
            service.outcome(&[("cookie", cookie)]).await,
            want,
            "{cookie}"
        );
    }
}

#[tokio::test]
async fn authjs_preset_forwards_single_and_chunked_cookies_and_reads_user_id() {
    const SESSION: &str = r#"{"user":{"name":"Ann","email":"ann@example.com","image":null,"id":"u-7"},
        "expires":"2027-02-14T08:00:00.000Z"}"#;
    const NO_ID: &str =
        r#"{"user":{"name":"Ann","email":"ann@example.com"},"expires":"2027-02-14T08:00:00.000Z"}"#;
    let path = "/api/auth/session";
    let (service, _) = product(
        "authjs",
        vec![
            (path, "authjs.session-token=good", 200, SESSION),
            (
                path,
                "__Secure-authjs.session-token.0=go; __Secure-authjs.session-token.1=od",
                200,
                SESSION,
            ),
            (path, "next-auth.session-token=good", 200, SESSION),
            (path, "authjs.session-token=plain", 200, NO_ID),
            (path, "authjs.session-token=out", 200, "null"),
            (path, "next-auth.session-token=out", 200, "{}"),
        ],
    )
    .await;
    for (cookie, want) in [
        (
            "authjs.csrf-token=x; authjs.session-token=good",
            Ok("u-7".to_owned()),
        ),
        (
            "__Secure-authjs.session-token.1=od; __Secure-authjs.session-token.0=go",
            Ok("u-7".to_owned()),
        ),
        ("next-auth.session-token=good", Ok("u-7".to_owned())),
        ("authjs.session-token=plain", refused(401, "no_session")),
        ("authjs.session-token=out", refused(401, "no_session")),
        ("next-auth.session-token=out", refused(401, "no_session")),
    ] {
        assert_eq!(
            service.outcome(&[("cookie", cookie)]).await,
            want,
            "{cookie}"
        );
    }
}

#[tokio::test]
async fn oauth2_proxy_preset_forwards_single_and_chunked_cookies_and_reads_user() {
    const USER: &str = r#"{"user":"248289","email":"ann@example.com","preferredUsername":"ann"}"#;
    let path = "/oauth2/userinfo";
    let (service, _) = product(
        "oauth2-proxy",
        vec![
            (path, "_oauth2_proxy=good", 200, USER),
            (path, "_oauth2_proxy_0=go; _oauth2_proxy_1=od", 200, USER),
            (path, "_oauth2_proxy=out", 401, ""),
        ],
    )
    .await;
    for (cookie, want) in [
        ("_oauth2_proxy=good", Ok("248289".to_owned())),
        (
            "_oauth2_proxy_0=go; _oauth2_proxy_1=od",
            Ok("248289".to_owned()),
        ),
        ("_oauth2_proxy=out", refused(401, "session_invalid")),
    ] {
        assert_eq!(
            service.outcome(&[("cookie", cookie)]).await,
            want,
            "{cookie}"
        );
    }
}

/// An `introspection` section for `url`, with the additional keys in `more`. If `more` has no `client_ids`, tokens of
/// any client are accepted.
fn by_introspection(url: &str, more: &str) -> String {
    let any = if more.contains("client_ids") {
        ""
    } else {
        "allow_any_client = true"
    };
    format!(
        "[session]\nextractors = [\"api\"]\n[extractors.api]\nkind = \"introspection\"\nurl = \"{url}\"\n\
         client_id = \"our app\"\nclient_secret = \"our secret:of 24 bytes\"\n{any}\n{more}\n"
    )
}

const TOKEN: (&str, &str) = ("authorization", "Bearer 0paque+token/=");

#[tokio::test]
async fn introspection_request_follows_rfc_7662() {
    let issuer = Backend::json(r#"{"active":true,"sub":"ann"}"#).await;
    let service = Service::start(by_introspection(&issuer.url("/introspect"), ""));
    assert_eq!(
        service
            .outcome(&[TOKEN, ("cookie", "a=b")])
            .await
            .as_deref(),
        Ok("ann")
    );
    let seen = issuer.seen().remove(0);
    assert_eq!(
        (seen.method.as_str(), seen.path.as_str()),
        ("POST", "/introspect")
    );
    assert_eq!(
        seen.names(),
        [
            "accept",
            "authorization",
            "content-length",
            "content-type",
            "host",
            "user-agent"
        ]
    );
    assert_eq!(
        seen.header("content-type"),
        Some("application/x-www-form-urlencoded")
    );
    // The base64 encoding of our+app:our+secret%3Aof+24+bytes.
    assert_eq!(
        seen.header("authorization"),
        Some("Basic b3VyK2FwcDpvdXIrc2VjcmV0JTNBb2YrMjQrYnl0ZXM=")
    );
    assert_eq!(
        seen.body,
        "token=0paque%2Btoken%2F%3D&token_type_hint=access_token"
    );
    assert_eq!(service.outcome(&[]).await, refused(401, "no_session"));
    assert_eq!(issuer.visits(), 1);
}

#[tokio::test]
async fn introspected_token_that_is_inactive_expired_or_fails_a_check_is_401() {
    let checks = "required_scopes = [\"read\", \"crm\"]\nissuers = [\"https://id.example\"]\n\
                  audiences = [\"us\"]\nclient_ids = [\"web\"]";
    let good = json!({
        "active": true, "sub": "ann", "scope": "openid read crm", "iss": "https://id.example", "aud": ["x", "us"],
        "client_id": "web", "token_type": "Bearer", "exp": NOW + 60, "nbf": NOW, "iat": NOW
    });
    let invalid = || refused(401, "session_invalid");
    for (case, change, want) in [
        ("active", json!({}), Ok("ann".to_owned())),
        ("false", json!({"active": false}), invalid()),
        ("missing", json!({"active": "(remove)"}), invalid()),
        ("text", json!({"active": "true"}), invalid()),
        ("number", json!({"active": 1}), invalid()),
        ("null", json!({"active": null}), invalid()),
        (
            "no sub",
            json!({"sub": "(remove)"}),
            refused(401, "no_session"),
        ),
        ("null sub", json!({"sub": null}), refused(401, "no_session")),
        (
            "only a name",
            json!({"sub": "(remove)", "username": "ann"}),
            refused(401, "no_session"),
        ),
        ("over", json!({"exp": NOW}), refused(401, "session_expired")),
        (
            "long over",
            json!({"exp": NOW - 3600}),
            refused(401, "session_expired"),
        ),
        ("exp in text", json!({"exp": "1900000000"}), invalid()),
        ("no exp", json!({"exp": "(remove)"}), Ok("ann".to_owned())),
        ("not yet", json!({"nbf": NOW + 31}), invalid()),
        (
            "clocks apart",
            json!({"nbf": NOW + 29}),
            Ok("ann".to_owned()),
        ),
        ("issuer", json!({"iss": "https://id.example/"}), invalid()),
        ("no issuer", json!({"iss": "(remove)"}), invalid()),
        ("audience", json!({"aud": "them"}), invalid()),
        ("one audience", json!({"aud": "us"}), Ok("ann".to_owned())),
        ("no audience", json!({"aud": []}), invalid()),
        ("client", json!({"client_id": "other"}), invalid()),
        (
            "refresh token",
            json!({"token_type": "refresh_token"}),
            invalid(),
        ),
        (
            "refresh token of Hydra",
            json!({"token_use": "refresh_token"}),
            invalid(),
        ),
        ("ID token of Keycloak", json!({"typ": "ID"}), invalid()),
        (
            "refresh token of Keycloak",
            json!({"typ": "Refresh"}),
            invalid(),
        ),
        (
            "offline token of Keycloak",
            json!({"typ": "Offline"}),
            invalid(),
        ),
        (
            "token_type is Bearer, but typ is ID",
            json!({"token_type": "Bearer", "typ": "ID"}),
            invalid(),
        ),
        ("typ no text", json!({"typ": ["Bearer"]}), invalid()),
        (
            "access token of Keycloak",
            json!({"typ": "Bearer"}),
            Ok("ann".to_owned()),
        ),
        (
            "access token of RFC 9068",
            json!({"typ": "AT+JWT"}),
            Ok("ann".to_owned()),
        ),
        ("typ null", json!({"typ": null}), Ok("ann".to_owned())),
        (
            "proof of possession",
            json!({"token_type": "DPoP"}),
            invalid(),
        ),
        ("bound to a key", json!({"cnf": {"jkt": "x"}}), invalid()),
        (
            "no type",
            json!({"token_type": "(remove)"}),
            Ok("ann".to_owned()),
        ),
        (
            "scopes in scp",
            json!({"scope": "(remove)", "scp": ["read", "crm"]}),
            Ok("ann".to_owned()),
        ),
        ("scope missing", json!({"scope": "read"}), invalid()),
        (
            "scope as a prefix",
            json!({"scope": "read crm2"}),
            invalid(),
        ),
        ("no scope", json!({"scope": "(remove)"}), invalid()),
        (
            "scopes in a list",
            json!({"scope": ["read", "crm"]}),
            Ok("ann".to_owned()),
        ),
    ] {
        let mut claims = good.clone();
        for (name, value) in change.as_object().unwrap() {
            if value == "(remove)" {
                claims.as_object_mut().unwrap().remove(name);
            } else {
                claims[name] = value.clone();
            }
        }
        let issuer = Backend::json(&claims.to_string()).await;
        let service = Service::start(by_introspection(&issuer.url("/"), checks));
        assert_eq!(service.outcome(&[TOKEN]).await, want, "{case}");
    }
}

#[tokio::test]
async fn introspected_token_that_fails_a_claim_rule_is_401() {
    let checks = "client_ids = [\"web\"]\n[extractors.api.claims]\n\"realm_access.roles\" = \"crm\"\n\
                  groups = { absent_or = \"CN=Sales,DC=corp\" }";
    let invalid = || refused(401, "session_invalid");
    for (case, more, want) in [
        (
            "a role",
            json!({"realm_access": {"roles": ["x", "crm"]}}),
            Ok("ann".to_owned()),
        ),
        (
            "another role",
            json!({"realm_access": {"roles": ["x"]}}),
            invalid(),
        ),
        ("no role", json!({}), invalid()),
        (
            "the group",
            json!({"realm_access": {"roles": ["crm"]}, "groups": ["CN=Sales,DC=corp"]}),
            Ok("ann".to_owned()),
        ),
        (
            "a part of the group",
            json!({"realm_access": {"roles": ["crm"]}, "groups": "DC=corp"}),
            invalid(),
        ),
    ] {
        let mut claims = json!({"active": true, "sub": "ann", "client_id": "web"});
        claims
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        let issuer = Backend::json(&claims.to_string()).await;
        let service = Service::start(by_introspection(&issuer.url("/"), checks));
        assert_eq!(service.outcome(&[TOKEN]).await, want, "{case}");
    }
}

#[tokio::test]
async fn keycloak_service_account_is_401_in_introspection() {
    let user = json!({
        "active": true, "sub": "ann", "iss": "https://kc.example/realms/main", "typ": "Bearer", "azp": "web",
        "client_id": "web", "sid": "s-1", "scope": "openid profile", "username": "ann", "preferred_username": "ann",
        "token_type": "Bearer", "exp": NOW + 60
    });
    let service_account =
        json!({"username": "service-account-web", "preferred_username": "service-account-web"});
    let invalid = || refused(401, "session_invalid");
    for (case, change, want) in [
        ("a user", json!({}), Ok("ann".to_owned())),
        ("a service account", service_account, invalid()),
        (
            "a service account, recognised by its user name",
            json!({"username": "service-account-web"}),
            invalid(),
        ),
        (
            "a service account, recognised by its client address",
            json!({"clientHost": "10.0.0.7", "clientAddress": "10.0.0.7"}),
            invalid(),
        ),
        (
            "without any scope",
            json!({"sid": null, "username": null, "preferred_username": null, "scope": null}),
            invalid(),
        ),
    ] {
        let mut claims = user.clone();
        claims
            .as_object_mut()
            .unwrap()
            .extend(change.as_object().unwrap().clone());
        claims
            .as_object_mut()
            .unwrap()
            .retain(|_, value| !value.is_null());
        let issuer = Backend::json(&claims.to_string()).await;
        let keys = by_introspection(
            &issuer.url("/"),
            "preset = \"keycloak\"\nclient_ids = [\"web\"]",
        );
        assert_eq!(
            Service::start(&keys).outcome(&[TOKEN]).await,
            want,
            "{case}"
        );
    }
}

#[tokio::test]
async fn unusable_introspection_answer_is_503_and_not_cached() {
    const JSON: &[(&str, &str)] = &[("content-type", "application/json")];
    const YES: &str = r#"{"active":true,"sub":"ann"}"#;
    for (case, status, headers, body) in [
        ("401", 401, JSON, r#"{"error":"invalid_client"}"#),
        ("403", 403, JSON, YES),
        ("400", 400, JSON, YES),
        ("404", 404, JSON, YES),
        ("302", 302, &[("location", "/login")], ""),
        ("201", 201, JSON, YES),
        ("204", 204, &[], ""),
        ("429", 429, JSON, YES),
        ("500", 500, JSON, YES),
        ("no JSON", 200, &[("content-type", "text/html")], YES),
        (
            "a JWT",
            200,
            &[("content-type", "application/token-introspection+jwt")],
            YES,
        ),
        ("broken", 200, JSON, "{\"active\":true"),
        ("null", 200, JSON, "null"),
        ("a list", 200, JSON, "[]"),
        ("true", 200, JSON, "true"),
    ] {
        let issuer = Backend::always(status, headers, body).await;
        let service = Service::start(by_introspection(&issuer.url("/"), "cache_ttl = \"60s\""));
        for _ in 0..2 {
            assert_eq!(service.outcome(&[TOKEN]).await, unavailable(), "{case}");
        }
        assert_eq!(issuer.visits(), 2, "{case}: not kept");
        if status == 401 {
            let result = "result=\"introspection_client_rejected\"";
            assert!(service.metrics().await.contains(result), "{case}");
        }
    }
    let twice = Backend::json(r#"{"active":true,"active":false,"sub":"ann"}"#).await;
    let service = Service::start(by_introspection(&twice.url("/"), ""));
    assert_eq!(
        service.outcome(&[TOKEN]).await,
        refused(401, "session_invalid"),
        "active twice"
    );
}

/// An issuer whose response the test can change.
async fn changing() -> (Backend, Arc<Mutex<String>>) {
    let answer = Arc::new(Mutex::new(String::new()));
    let shared = answer.clone();
    let issuer = Backend::start(move |_| {
        let body = shared.lock().unwrap().clone();
        async move { json_answer(&body) }
    })
    .await;
    (issuer, answer)
}

#[tokio::test]
async fn introspection_answer_is_cached_until_cache_ttl_or_exp() {
    let (yes, no) = (r#"{"active":true,"sub":"ann"}"#, r#"{"active":false}"#);
    let (ann, invalid) = (Ok("ann".to_owned()), refused(401, "session_invalid"));
    let (issuer, answer) = changing().await;
    let service = Service::start(by_introspection(&issuer.url("/"), "cache_ttl = \"60s\""));
    let say = |text: &str| text.clone_into(&mut answer.lock().unwrap());
    let pass = |seconds| service.clock.advance(Duration::from_secs(seconds));

    say(yes);
    assert_eq!(service.outcome(&[TOKEN]).await, ann);
    say(no);
    pass(59);
    assert_eq!(service.outcome(&[TOKEN]).await, ann, "cached");
    pass(1);
    assert_eq!(
        service.outcome(&[TOKEN]).await,
        invalid,
        "revoked token is refused after 60 s"
    );
    say(yes);
    pass(4);
    assert_eq!(service.outcome(&[TOKEN]).await, invalid, "cached");
    pass(1);
    assert_eq!(
        service.outcome(&[TOKEN]).await,
        ann,
        "active token is accepted after 5 s"
    );
    assert_eq!(issuer.visits(), 3);

    say(&format!(
        r#"{{"active":true,"sub":"ann","exp":{}}}"#,
        NOW + 70 + 60
    ));
    pass(60);
    assert_eq!(service.outcome(&[TOKEN]).await, ann);
    pass(5);
    assert_eq!(
        service.outcome(&[TOKEN]).await,
        refused(401, "session_expired"),
        "not cached beyond exp"
    );
    assert_eq!(
        service.outcome(&[("authorization", "Bearer other")]).await,
        refused(401, "session_expired")
    );
}

#[tokio::test]
async fn introspection_cache_is_separate_per_issuer() {
    let one = Backend::json(r#"{"active":true,"sub":"ann"}"#).await;
    let two = Backend::json(r#"{"active":false}"#).await;
    let section = |name: &str, issuer: &Backend, place: &str| {
        format!(
            "[extractors.{name}]\nkind = 'introspection'\nurl = '{}'\nfrom = ['{place}']\nclient_id = 'us'\n\
             client_secret = 'our secret:of 24 bytes'\nallow_any_client = true\ncache_ttl = '60s'",
            issuer.url("/")
        )
    };
    let service = Service::start(
        ConfigBuilder::new("session.extractors = ['one', 'two']")
            .with(section("one", &one, "header:x-one"))
            .with(section("two", &two, "header:x-two")),
    );
    assert!(service.outcome(&[("x-one", "t")]).await.is_ok());
    assert_eq!(
        service.outcome(&[("x-two", "t")]).await,
        refused(401, "session_invalid")
    );
    assert_eq!((one.visits(), two.visits()), (1, 1));
}

/// A `session_endpoint` section that forwards the cookie `sid` to the app, as environment variables.
fn endpoint_variables(app: &Backend) -> Vec<(&'static str, String)> {
    let url = app.url("/me");
    let kind = "session_endpoint".to_owned();
    vec![
        ("ROLLOUT__SESSION__EXTRACTORS", kind),
        ("ROLLOUT__EXTRACTORS__SESSION_ENDPOINT__URL", url),
        (
            "ROLLOUT__EXTRACTORS__SESSION_ENDPOINT__COOKIES",
            "sid".to_owned(),
        ),
    ]
}

/// The output of `rollout-token explain` for this header, with these environment variables.
async fn explain(header: &'static str, variables: Vec<(&'static str, String)>) -> String {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_rollout-token"));
    command
        .args(["explain", "-H", header])
        .env_clear()
        .envs(crate::helpers::client_variables())
        .envs(variables);
    let output = tokio::task::spawn_blocking(move || command.output())
        .await
        .expect("no panic")
        .expect("it runs");
    String::from_utf8(output.stdout).expect("UTF-8")
}

#[tokio::test]
async fn proxy_environment_variables_are_not_used() {
    let app = Backend::json(r#"{"sub":"ann"}"#).await;
    let proxy = Backend::json(r#"{"sub":"admin"}"#).await;
    let mut variables = endpoint_variables(&app);
    for name in [
        "HTTP_PROXY",
        "http_proxy",
        "HTTPS_PROXY",
        "ALL_PROXY",
        "all_proxy",
    ] {
        variables.push((name, proxy.url("")));
    }
    let said = explain("Cookie: sid=s3cr3t", variables).await;
    assert!(
        said.contains("session_endpoint (session_endpoint): subject = \"ann\""),
        "{said}"
    );
    assert_eq!((app.visits(), proxy.visits()), (1, 0));
}

#[tokio::test]
async fn explain_shows_the_backend_status_and_no_secret() {
    for (status, word, detail) in [
        (401, "signed_out", "the endpoint answered 401"),
        (500, "status", "the endpoint answered 500"),
        (200, "malformed", "the content type must be JSON"),
    ] {
        let app = Backend::always(status, &[], "s3cr3t").await;
        let said = explain("Cookie: sid=s3cr3t", endpoint_variables(&app)).await;
        assert!(
            said.contains(word) && said.contains(detail),
            "{status}: {said}"
        );
        assert!(!said.contains("s3cr3t"), "{said}");
    }
}
