//! Tests of `session_endpoint`: the request to the app, and the parts of its response that are returned to the caller.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use reqwest::Response;
use rollout_token::session::contract;
use rollout_token::session::explain::explain;

use crate::backend::{Backend, respond};
use crate::binary::{binary, run};
use crate::helpers::{NOW, Service, client_variables, file_of, load, verified};
use crate::settings::ConfigBuilder;

/// A `session_endpoint` section that forwards the cookie `sid` to `url`.
fn by_endpoint(url: &str) -> ConfigBuilder {
    ConfigBuilder::new(
        "session.extractors = ['app']
        [extractors.app]
        kind = 'session_endpoint'
        cookies = ['sid']
        timeout = '400ms'",
    )
    .with(format!("extractors.app.url = '{url}'"))
}

const ANN: &str = r#"{"sub":"ann"}"#;

/// The status of a response, and its `Set-Cookie` lines.
fn cookies_of(response: &Response) -> (u16, Vec<String>) {
    let lines = response.headers().get_all("set-cookie").iter();
    let lines = lines.map(|line| String::from_utf8_lossy(line.as_bytes()).into_owned());
    (response.status().as_u16(), lines.collect())
}

/// An app that responds with this body and these `Set-Cookie` lines.
async fn app_that_sets(lines: &[&str], status: u16, body: &str) -> Backend {
    let mut headers = vec![("content-type", "application/json")];
    headers.extend(lines.iter().map(|line| ("set-cookie", *line)));
    Backend::always(status, &headers, body).await
}

#[tokio::test]
async fn set_cookie_lines_of_configured_cookies_are_passed_on_unchanged() {
    let lines = [
        "sid=new\"1\"; Path=/; HttpOnly; SameSite=Lax",
        "other=1; Path=/",
        "sid.0=a; Path=/",
        "sid.1=; Path=/; Max-Age=0",
        "sid_2=c",
        "sidC1=d",
        "sidx=e",
        "SID=f",
    ];
    let app = app_that_sets(&lines, 200, ANN).await;
    let service = Service::start(by_endpoint(&app.url("/me")));
    let answer = service.send(&[("cookie", "sid=old")]).await;
    let want = [lines[0], lines[2], lines[3], lines[4], lines[5]].map(str::to_owned);
    assert_eq!(cookies_of(&answer), (200, want.to_vec()));
    assert_eq!(answer.headers()["cache-control"], "no-store");
    assert_eq!(verified(&answer.json().await.unwrap())["sub"], "ann");

    let off =
        Service::start(by_endpoint(&app.url("/me")).with("extractors.app.pass_set_cookie = false"));
    let answer = off.send(&[("cookie", "sid=old")]).await;
    assert_eq!(cookies_of(&answer), (200, Vec::new()));
}

#[tokio::test]
async fn set_cookie_lines_are_passed_on_only_if_the_answer_has_a_subject() {
    let line = "sid=new; Path=/";
    for (case, status, body, want) in [
        ("a subject", 200, ANN, (200, true)),
        ("nobody", 200, "null", (401, false)),
        ("no usable id", 200, r#"{"sub":true}"#, (401, false)),
        ("signed out", 401, ANN, (401, false)),
        ("a redirect", 302, ANN, (401, false)),
        ("down", 503, ANN, (503, false)),
        ("no JSON", 200, "<html>", (503, false)),
        (
            "a subject whose session has a fractional expiry time",
            200,
            &format!(r#"{{"sub":"ann","end":{}.5}}"#, NOW + 60),
            (200, true),
        ),
        (
            "a subject whose session has expired",
            200,
            &format!(r#"{{"sub":"ann","end":{}}}"#, NOW - 1),
            (401, true),
        ),
        (
            "nobody, and over",
            200,
            &format!(r#"{{"end":{}}}"#, NOW - 1),
            (401, false),
        ),
    ] {
        let app = app_that_sets(&[line], status, body).await;
        let service = Service::start(
            by_endpoint(&app.url("/me")).with("extractors.app.expires_path = 'end'"),
        );
        let answer = service.send(&[("cookie", "sid=old")]).await;
        let (status, lines) = cookies_of(&answer);
        assert_eq!((status, lines == [line]), want, "{case}");
        assert!(want.1 || lines.is_empty(), "{case}: {lines:?}");
    }
}

#[tokio::test]
async fn set_cookie_lines_of_a_signed_in_user_are_passed_on_even_if_no_token_is_minted() {
    let body = format!(r#"{{"sub":"ann","text":"{}"}}"#, "x".repeat(5000));
    let app = app_that_sets(&["sid=new"], 200, &body).await;
    let config = by_endpoint(&app.url("/me"));
    let limited = config
        .clone()
        .with("rate_limit = { per_minute = 1, burst = 1 }");
    let large = config.with("token.claims = { text = '{text}' }");
    for (case, config, statuses) in [
        ("limited", limited, [200, 429, 429]),
        ("claims_too_large", large, [401, 401, 401]),
    ] {
        let service = Service::start(config);
        for want in statuses {
            let answer = service.send(&[("cookie", "sid=old")]).await;
            let want = (want, vec!["sid=new".to_owned()]);
            assert_eq!(cookies_of(&answer), want, "{case}");
        }
    }
}

/// An app that renews the session at each call: the first call with a cookie gets the next cookie, and a later call
/// with the same cookie is refused. While the returned sender holds `false`, the app does not answer.
async fn app_with_one_use_cookies() -> (Backend, tokio::sync::watch::Sender<bool>) {
    let used = Arc::new(AtomicUsize::new(0));
    let (open, gate) = tokio::sync::watch::channel(true);
    let app = Backend::start(move |seen| {
        let (used, mut gate) = (used.clone(), gate.clone());
        async move {
            gate.wait_for(|open| *open).await.expect("the test lives");
            let expected = format!("sid={}", used.load(Ordering::SeqCst));
            if seen.header("cookie") != Some(&expected) {
                return respond(401, &[], "");
            }
            let next = used.fetch_add(1, Ordering::SeqCst) + 1;
            let headers = [
                ("content-type".to_owned(), "application/json".to_owned()),
                ("set-cookie".to_owned(), format!("sid={next}")),
            ];
            respond(200, &headers, ANN)
        }
    })
    .await;
    (app, open)
}

#[tokio::test]
async fn set_cookie_lines_are_returned_to_every_caller_of_a_shared_call() {
    let (app, open) = app_with_one_use_cookies().await;
    let service =
        Service::start(by_endpoint(&app.url("/me")).with("extractors.app.timeout = '5s'"));
    open.send(false).expect("the app lives");
    let callers =
        futures_util::future::join_all((0..8).map(|_| service.send(&[("cookie", "sid=0")])));
    let all_wait = async {
        while !service
            .metrics()
            .await
            .contains("rollout_token_in_flight 8")
        {
            tokio::task::yield_now().await;
        }
        open.send(true).expect("the app lives");
    };
    let (answers, ()) = tokio::join!(callers, all_wait);
    for answer in &answers {
        assert_eq!(cookies_of(answer), (200, vec!["sid=1".to_owned()]));
    }
    assert_eq!(app.visits(), 1);
}

#[tokio::test]
async fn answer_that_sets_a_configured_cookie_is_not_cached() {
    let (app, _open) = app_with_one_use_cookies().await;
    let keys = "extractors.app.cache_ttl = '10s'";
    let service = Service::start(by_endpoint(&app.url("/me")).with(keys));
    for (cookie, want) in [
        ("sid=0", (200, vec!["sid=1".to_owned()])),
        ("sid=0", (401, Vec::new())),
        ("sid=1", (200, vec!["sid=2".to_owned()])),
    ] {
        assert_eq!(cookies_of(&service.send(&[("cookie", cookie)]).await), want);
    }
    let other = app_that_sets(&["theme=dark"], 200, ANN).await;
    let service = Service::start(by_endpoint(&other.url("/me")).with(keys));
    for _ in 0..3 {
        let answer = service.send(&[("cookie", "sid=0")]).await;
        assert_eq!(cookies_of(&answer), (200, Vec::new()));
    }
    assert_eq!(
        other.visits(),
        1,
        "a Set-Cookie line of another cookie does not prevent caching"
    );
}

/// Made-up cookies would otherwise fill the cache and evict the sessions of other callers.
#[tokio::test]
async fn answer_with_status_200_that_names_no_subject_is_not_cached() {
    for (body, subject, status, visits) in [
        (ANN, "{sub}", 200, 1),
        (r#"{"user":{"id":7}}"#, "id-{user.id}", 200, 1),
        ("null", "{sub}", 401, 2),
        ("{}", "{sub}", 401, 2),
        (r#"{"sub":null}"#, "{sub}", 401, 2),
        (r#"{"sub":0}"#, "{sub}", 401, 2),
        (r#"{"user":null,"sub":"x"}"#, "id-{user.id}", 401, 2),
    ] {
        let app = Backend::json(body).await;
        let keys =
            format!("extractors.app.cache_ttl = '10s'\nextractors.app.subject = '{subject}'");
        let service = Service::start(by_endpoint(&app.url("/me")).with(keys));
        for _ in 0..2 {
            let answer = service.send(&[("cookie", "sid=1")]).await;
            assert_eq!(answer.status(), status, "{body}");
        }
        assert_eq!(app.visits(), visits, "{body}");
    }
}

#[tokio::test]
async fn caller_without_a_configured_cookie_gets_no_set_cookie_lines() {
    let app = app_that_sets(&["sid=new"], 200, ANN).await;
    let keys = "extractors.app.forward_headers = ['Authorization']";
    let service = Service::start(by_endpoint(&app.url("/me")).with(keys));
    for (headers, want) in [
        (&[("authorization", "Bearer x")][..], 0),
        (
            &[("authorization", "Bearer x"), ("cookie", "theme=dark")],
            0,
        ),
        (&[("authorization", "Bearer x"), ("cookie", "sid=old")], 1),
        (&[("cookie", "sid.0=old")], 1),
    ] {
        let (status, lines) = cookies_of(&service.send(headers).await);
        assert_eq!((status, lines.len()), (200, want), "{headers:?}");
    }
}

#[tokio::test]
async fn foreign_credential_in_a_header_is_forwarded_with_context_headers_but_without_cookies() {
    let app = app_that_sets(&["sid=new"], 200, ANN).await;
    let config = by_endpoint(&app.url("/me")).with(
        "session.extractors = ['backend', 'app']
        extractors.app.forward_headers = ['Authorization', 'X-Token']
        extractors.app.context_headers = ['User-Agent']
        extractors.backend.kind = 'api_key'
        extractors.backend.keys.crm = '6b7d3c1f0a9e8d2c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a69788796a5b4'",
    );
    let service = Service::start(config);
    let headers = [
        ("authorization", "Bearer of-the-app"),
        ("cookie", "sid=old"),
        ("x-token", "t"),
        ("user-agent", "theirs"),
    ];
    assert_eq!(cookies_of(&service.send(&headers).await), (200, Vec::new()));
    let seen = app.seen().remove(0);
    assert_eq!(seen.header("authorization"), Some("Bearer of-the-app"));
    assert_eq!(
        (seen.header("cookie"), seen.header("x-token")),
        (None, None)
    );
    assert_eq!(seen.header("user-agent"), Some("theirs"));
}

#[tokio::test]
async fn x_forwarded_headers_have_the_scheme_of_the_request_or_the_configured_scheme_and_host() {
    let app = Backend::json(ANN).await;
    let url = "'https://app.example.com:8443'";
    for (forwarded, origin, host, proto, forwarded_host) in [
        ("true", None, "app.example", Some("https"), None),
        ("true", None, "localhost:3000", Some("http"), None),
        (
            "true",
            Some("http://app.example"),
            "app.example",
            Some("http"),
            None,
        ),
        (
            "true",
            Some("https://app.example"),
            "app.example",
            Some("https"),
            None,
        ),
        (
            "true",
            Some("https://localhost"),
            "localhost",
            Some("https"),
            None,
        ),
        (
            "false",
            Some("https://app.example"),
            "app.example",
            None,
            None,
        ),
        (
            url,
            Some("http://app.example"),
            "app.example",
            Some("https"),
            Some("app.example.com:8443"),
        ),
    ] {
        let keys = format!("extractors.app.forwarded = {forwarded}");
        let service = Service::start(by_endpoint(&app.url("/me")).with(keys));
        let theirs = [
            ("x-forwarded-proto", "gopher"),
            ("x-forwarded-host", "evil.example"),
            ("x-forwarded-for", "203.0.113.7"),
            ("x-forwarded-port", "1"),
            ("forwarded", "proto=gopher"),
        ];
        let headers = [("cookie", "sid=1"), ("host", host)].into_iter();
        let headers: Vec<_> = headers
            .chain(origin.map(|origin| ("origin", origin)))
            .chain(theirs)
            .collect();
        assert_eq!(service.send(&headers).await.status(), 200, "{headers:?}");
        let seen = app.seen().pop().expect("a call");
        assert_eq!(
            seen.header("x-forwarded-proto"),
            proto,
            "{forwarded} {origin:?} {host}"
        );
        assert_eq!(
            seen.header("x-forwarded-host"),
            forwarded_host,
            "{forwarded}"
        );
        for name in ["x-forwarded-for", "x-forwarded-port", "forwarded"] {
            assert_eq!(seen.header(name), None, "{name}");
        }
        assert_eq!(seen.header("host"), Some(app.address.to_string().as_str()));
    }
}

#[tokio::test]
async fn requests_with_different_schemes_or_context_headers_do_not_share_an_answer() {
    let app = Backend::json(ANN).await;
    let keys = "extractors.app.cache_ttl = '10s'
        extractors.app.context_headers = ['User-Agent', 'X-Forwarded-For']";
    let service = Service::start(by_endpoint(&app.url("/me")).with(keys));
    for (headers, visits) in [
        (&[("host", "localhost")][..], 1),
        (&[("host", "localhost:1")], 1),
        (&[("host", "app.example")], 2),
        (&[("host", "localhost"), ("user-agent", "other")], 3),
        (
            &[("host", "localhost"), ("x-forwarded-for", "203.0.113.7")],
            4,
        ),
        (&[("host", "localhost"), ("x-other", "1")], 4),
    ] {
        let headers: Vec<_> = headers
            .iter()
            .copied()
            .chain([("cookie", "sid=1")])
            .collect();
        assert_eq!(service.send(&headers).await.status(), 200);
        assert_eq!(app.visits(), visits, "{headers:?}");
    }
}

#[tokio::test]
async fn context_headers_are_forwarded_but_are_not_credentials() {
    let app = Backend::json(ANN).await;
    let keys = "extractors.app.context_headers = ['User-Agent', 'X-Forwarded-For', 'X-Tenant']";
    let service = Service::start(by_endpoint(&app.url("/me")).with(keys));
    let context = [
        ("user-agent", "theirs"),
        ("x-forwarded-for", "203.0.113.7, 10.0.0.1"),
        ("x-tenant", "t1"),
    ];
    let answer = service.send(&context).await;
    assert_eq!(
        crate::helpers::refused(answer).await,
        (401, "no_session".to_owned())
    );
    assert_eq!(app.visits(), 0);
    let headers: Vec<_> = context.into_iter().chain([("cookie", "sid=1")]).collect();
    assert_eq!(service.send(&headers).await.status(), 200);
    let seen = app.seen().remove(0);
    assert_eq!(seen.header("user-agent"), Some("theirs"));
    assert_eq!(
        seen.header("x-forwarded-for"),
        Some("203.0.113.7, 10.0.0.1, 127.0.0.1")
    );
    assert_eq!(seen.header("x-tenant"), Some("t1"));
}

#[tokio::test]
async fn post_to_the_endpoint_has_content_length_0_and_get_has_none() {
    let app = Backend::json(ANN).await;
    for (method, want) in [("POST", Some("0")), ("GET", None)] {
        let keys = format!("extractors.app.method = '{method}'");
        let service = Service::start(by_endpoint(&app.url("/me")).with(keys));
        assert_eq!(service.send(&[("cookie", "sid=1")]).await.status(), 200);
        let seen = app.seen().pop().expect("a call");
        assert_eq!(
            (seen.method.as_str(), seen.header("content-length")),
            (method, want)
        );
        assert_eq!(seen.header("transfer-encoding"), None);
    }
}

#[tokio::test]
async fn additional_headers_replace_the_headers_of_the_service() {
    let app = Backend::json(ANN).await;
    let keys = "extractors.app.additional_headers = { Accept = 'application/vnd.api+json', User-Agent = 'ours', \
                Host = 'app.example', x-forwarded-proto = 'http', X-Forwarded-Host = 'app.example' }
                extractors.app.forwarded = 'https://other.example'";
    let service = Service::start(by_endpoint(&app.url("/me")).with(keys));
    assert_eq!(
        service
            .send(&[("cookie", "sid=1"), ("accept", "text/html")])
            .await
            .status(),
        200
    );
    let seen = app.seen().remove(0);
    for (name, want) in [
        ("accept", "application/vnd.api+json"),
        ("user-agent", "ours"),
        ("host", "app.example"),
        ("x-forwarded-proto", "http"),
        ("x-forwarded-host", "app.example"),
    ] {
        let values: Vec<_> = seen.headers.get_all(name).iter().collect();
        assert_eq!(values, [want], "{name}");
    }
}

#[tokio::test]
async fn chunks_of_a_configured_cookie_are_forwarded() {
    let app = Backend::json(ANN).await;
    let service = Service::start(
        by_endpoint(&app.url("/me")).with("extractors.app.cookies = ['sid', 'sid.1']"),
    );
    let cookie = "a=1; sid.1=y; sid.0=x; sid_0=z; sidC1=c; sid.x=no; sid_20270115=no; sid.1=y";
    assert_eq!(service.send(&[("cookie", cookie)]).await.status(), 200);
    assert_eq!(
        app.seen()[0].header("cookie"),
        Some("sid.0=x; sid.1=y; sidC1=c; sid_0=z")
    );
    let answer = service.send(&[("cookie", "sid.0=x; sid.0=y")]).await;
    assert_eq!(
        crate::helpers::refused(answer).await,
        (401, "session_invalid".to_owned())
    );
    assert_eq!(app.visits(), 1);
}

#[tokio::test]
async fn redirect_to_the_endpoint_itself_is_503_unless_its_status_is_in_signed_out() {
    for (status, location, want) in [
        (302, "https://app.example/me?full=1", 503),
        (302, "https://app.example:8443/me?full=1", 503),
        (303, "https://127.0.0.1/me?full=1", 503),
        (307, "https://app.example/me?full=1", 503),
        (301, "https://app.example/me?full=1", 503),
        (308, "/login", 503),
        (404, "", 503),
        (405, "", 503),
        (307, "/me/?full=1", 503),
        (302, "/me/", 503),
        (303, "me/?full=1", 503),
        (307, "http://127.0.0.1/me/?full=1", 503),
        (307, "https://app.example/me/?full=1", 503),
        (307, "http://app.example/me/?full=1", 401),
        (302, "/me//", 401),
        (302, "/me/login", 401),
        (302, "https://app.example/me", 401),
        (302, "https://app.example/me?full=2", 401),
        (302, "https://app.example/login?next=/me", 401),
        (302, "/me?full=1", 401),
        (307, "http://app.example/me?full=1", 401),
        (302, "", 401),
    ] {
        let app = Backend::always(status, &[("location", location)], "").await;
        let config = by_endpoint(&app.url("/me?full=1"));
        let service = Service::start(config.clone());
        let answer = service.send(&[("cookie", "sid=1")]).await;
        assert_eq!(answer.status(), want, "{status} {location}");
        let listed = Service::start(config.with(format!("extractors.app.signed_out = [{status}]")));
        let answer = listed.send(&[("cookie", "sid=1")]).await;
        assert_eq!(answer.status(), 401, "{status} {location}, listed");
    }
}

/// Runs `explain` for a request with the cookie `sid`, and returns its output.
async fn explained(config: &ConfigBuilder) -> String {
    let file = file_of(&config.to_string());
    let mut command = binary(&["explain", "-b", "sid=s3cr3t", "--config"]);
    command
        .env_clear()
        .envs(client_variables())
        .arg(file.path());
    let (code, out, err) = tokio::task::spawn_blocking(move || run(&mut command))
        .await
        .expect("no panic");
    assert_eq!(code, Some(0), "{err}");
    assert!(!out.contains("s3cr3t"), "{out}");
    out
}

#[tokio::test]
async fn explain_shows_the_location_of_a_redirect_without_its_query() {
    let to = |location: &'static str| async move {
        let app = Backend::always(302, &[("location", location)], "").await;
        explained(&by_endpoint(&app.url("/me"))).await
    };
    for (location, want) in [
        (
            "/login?s3cr3t#s3cr3t",
            "rejected with reason signed_out (the endpoint answered 302 with Location /login)",
        ),
        (
            "https://u:s3cr3t@id.example/login?s3cr3t",
            "signed_out (the endpoint answered 302 with Location https://id.example/login)",
        ),
        (
            "//u:s3cr3t@id.example/login",
            "signed_out (the endpoint answered 302 with Location http://id.example/login)",
        ),
        (
            "/me/?s3cr3t",
            "/me: the endpoint answered 302 with Location /me/: the path differs only in its trailing slash: \
             in url, write the path from the Location)",
        ),
    ] {
        let said = to(location).await;
        assert!(said.contains(want), "{location}: {said}");
    }
    let slash = Backend::start(|seen| async move {
        if seen.path == "/me/" {
            crate::backend::json(ANN)
        } else {
            let headers = [("location".to_owned(), "/me/".to_owned())];
            respond(307, &headers, "")
        }
    })
    .await;
    let said = explained(&by_endpoint(&slash.url("/me/"))).await;
    assert!(said.contains("subject = \"ann\""), "{said}");
}

#[tokio::test]
async fn explain_shows_an_endpoint_error_with_url_status_content_type_and_fix() {
    for (status, content_type, want) in [
        (
            500,
            "text/html",
            "reason status (URL: the endpoint answered 500)",
        ),
        (
            422,
            "application/json",
            "reason status (URL: the endpoint answered 422: if this status means that the caller is not \
             signed in, add it to signed_out)",
        ),
        (429, "", "reason status (URL: the endpoint answered 429)"),
        (
            200,
            "text/html; charset=utf-8",
            "reason malformed (URL: the content type must be JSON, but is text/html: a login page?)",
        ),
        (
            200,
            "text/x-s",
            "reason malformed (URL: the content type must be JSON, but is text/x-s)",
        ),
        (
            200,
            "application/json",
            "reason malformed (URL: the answer is not JSON)",
        ),
    ] {
        let app = Backend::always(status, &[("content-type", content_type)], "<html>s3cr3t").await;
        let said = explained(&by_endpoint(&app.url("/me?key=s3cr3t"))).await;
        let want = want.replace("URL", &app.url("/me"));
        assert!(said.contains(&want), "{want}\n{said}");
    }
    let silent = Backend::start(|_| std::future::pending()).await;
    let closed = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        format!("http://{}", listener.local_addr().expect("an address"))
    };
    for (base, want) in [
        (
            silent.url(""),
            "reason timeout (URL: no complete answer within 400ms (set by the key timeout))",
        ),
        (closed, "reason unreachable (URL: "),
    ] {
        let said = explained(&by_endpoint(&format!("{base}/me?key=s3cr3t"))).await;
        let want = want.replace("URL", &format!("{base}/me"));
        assert!(said.contains(&want), "{want}\n{said}");
    }
}

#[tokio::test]
async fn configured_signed_out_statuses_replace_the_default() {
    for (status, want) in [(400, 401), (422, 401), (401, 503), (204, 503), (302, 503)] {
        let app = Backend::always(status, &[], "").await;
        let keys = "extractors.app.signed_out = [400, 422]";
        let service = Service::start(by_endpoint(&app.url("/me")).with(keys));
        let answer = service.send(&[("cookie", "sid=1")]).await;
        assert_eq!(answer.status(), want, "{status}");
    }
}

#[tokio::test]
async fn invalid_forwarded_value_and_reserved_or_duplicate_headers_are_refused_at_start() {
    for (keys, key) in [
        ("forwarded = 'app.example.com'", "forwarded"),
        ("forwarded = 'https://app.example.com/path'", "forwarded"),
        (
            "forwarded = 'https://ann:hunter2@app.example.com'",
            "forwarded",
        ),
        ("forwarded = 1", "forwarded"),
        ("forwarded = 'maybe'", "forwarded"),
        ("forward_headers = ['X-Forwarded-For']", "forward_headers"),
        ("forward_headers = ['X-Forwarded-User']", "forward_headers"),
        ("context_headers = ['X-Forwarded-Proto']", "context_headers"),
        ("context_headers = ['Forwarded']", "context_headers"),
        ("context_headers = ['Cookie']", "context_headers"),
        ("context_headers = ['Host']", "context_headers"),
        ("context_headers = ['Transfer-Encoding']", "context_headers"),
        (
            "forward_headers = ['X-A']\ncontext_headers = ['x-a']",
            "context_headers",
        ),
        (
            "context_headers = ['X-A']\nadditional_headers = { x-a = 'v' }",
            "additional_headers.x-a",
        ),
    ] {
        let config =
            by_endpoint("https://app.example/me").with(format!("[extractors.app]\n{keys}"));
        let problems = load(&config.to_string())
            .map(|_| ())
            .expect_err(keys)
            .to_string();
        assert!(
            problems.contains(&format!("extractors.app.{key}:")),
            "{keys}: {problems}"
        );
        assert!(!problems.contains("hunter2"), "{keys}: {problems}");
    }
    for keys in [
        "forwarded = true",
        "forwarded = false",
        "forwarded = 'false'",
        "forwarded = 'http://localhost:3000/'",
    ] {
        let config =
            by_endpoint("https://app.example/me").with(format!("[extractors.app]\n{keys}"));
        assert!(load(&config.to_string()).is_ok(), "{keys}");
    }
}

#[tokio::test]
async fn explain_names_the_cookies_set_by_the_app_but_not_their_values() {
    for (body, want) in [(ANN, 1), ("null", 0)] {
        let app = app_that_sets(&["sid=s3cr3t; Path=/", "other=1"], 200, body).await;
        let settings = load(&by_endpoint(&app.url("/me")).to_string()).expect("good keys");
        let request = contract::request(&[("cookie", "sid=old")]);
        let explanation = explain(&settings.chain, &request, false, |_| ()).await;
        let notes = &explanation.steps[0].notes;
        assert_eq!(notes.len(), want, "{notes:?}");
        assert!(
            notes
                .iter()
                .all(|note| note.starts_with("the app's answer sets cookies (sid)")),
            "{notes:?}"
        );
    }
}

/// Strangers can register host names that match a pattern, so cookies from such a page are not accepted as credentials.
#[tokio::test]
async fn cookie_of_a_page_allowed_by_a_pattern_is_not_forwarded_and_not_renewed() {
    let app = app_that_sets(&["sid=renewed; Path=/"], 200, ANN).await;
    let config = by_endpoint(&app.url("/me"))
        .with("extractors.app.forward_headers = ['Authorization', 'X-Session-Token']")
        .with("origins.allowed = ['https://*-team.vercel.app', 'https://app.example']");
    let service = Service::start(config);
    let credentials = [
        ("authorization", "Bearer anns"),
        ("cookie", "sid=bobs; sid.0=bobs"),
        ("x-session-token", "bobs"),
    ];
    let from = async |origin: &str| {
        let mut headers = credentials.to_vec();
        headers.extend([("origin", origin), ("sec-fetch-site", "cross-site")]);
        let answer = service.send(&headers).await;
        (
            cookies_of(&answer),
            app.seen().pop().expect("the app was called"),
        )
    };

    let (answer, seen) = from("https://x-team.vercel.app").await;
    assert_eq!(answer, (200, Vec::new()));
    assert_eq!(seen.header("authorization"), Some("Bearer anns"));
    assert_eq!(
        (seen.header("cookie"), seen.header("x-session-token")),
        (None, None)
    );

    let (answer, seen) = from("https://app.example").await;
    assert_eq!(answer, (200, vec!["sid=renewed; Path=/".to_owned()]));
    assert_eq!(seen.header("cookie"), Some("sid=bobs; sid.0=bobs"));

    // From a page whose origin is allowed only by a pattern, only a bearer token is accepted. This request has none, so
    // the app is not called.
    let visits = app.visits();
    let headers = [
        ("origin", "https://x-team.vercel.app"),
        ("cookie", "sid=bobs"),
        ("x-session-token", "bobs"),
    ];
    let answer = service.send(&headers).await;
    assert_eq!(cookies_of(&answer), (401, Vec::new()));
    assert_eq!(app.visits(), visits);
}
