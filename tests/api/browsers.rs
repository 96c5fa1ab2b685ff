//! Tests of requests from browsers: which pages may request a token, with which methods and on which paths.

use std::sync::Arc;

use reqwest::Method;
use reqwest::header::HeaderMap;
use rollout_token::{Context, Kind, Problems, Registry, Section, SessionExtractor};
use serde_json::{Value, json};

use crate::helpers::{BY_HEADER, Service, refused, session_token, verified, with_headers};

fn config() -> String {
    format!(
        "[origins]\nallowed = [\"https://App.Example/\", \"http://localhost:3000\"]\n{BY_HEADER}"
    )
}

fn allowed_for(headers: &HeaderMap) -> Option<&str> {
    let origin = headers.get("access-control-allow-origin")?;
    assert_eq!(headers["access-control-allow-credentials"], "true");
    assert_eq!(
        headers["access-control-expose-headers"],
        "X-Request-Id, Retry-After"
    );
    origin.to_str().ok()
}

#[tokio::test]
async fn listed_origin_can_read_tokens_and_errors() {
    let service = Service::start(config());
    for user in [Some("ann"), None] {
        for site in [None, Some("cross-site"), Some("same-site")] {
            let mut request = service.post().header("origin", "https://app.example");
            request = user
                .iter()
                .fold(request, |request, user| request.header("x-user", *user));
            request = site.iter().fold(request, |request, site| {
                request.header("sec-fetch-site", *site)
            });
            let response = request.send().await.unwrap();
            assert_eq!(
                response.status().as_u16(),
                if user.is_some() { 200 } else { 401 }
            );
            assert_eq!(allowed_for(response.headers()), Some("https://app.example"));
            assert_eq!(response.headers()["vary"], "Origin");
        }
    }
    for path in ["/nowhere", "/healthz"] {
        let response = service
            .request(Method::GET, path)
            .header("origin", "https://app.example")
            .send()
            .await
            .unwrap();
        assert_eq!(
            allowed_for(response.headers()),
            Some("https://app.example"),
            "{path}"
        );
    }
}

#[tokio::test]
async fn unlisted_origin_is_403_before_any_extractor_runs() {
    let service = Service::start(config());
    for (case, headers) in [
        ("evil", &[("origin", "https://evil.example")][..]),
        ("suffix", &[("origin", "https://app.example.evil")]),
        ("prefix", &[("origin", "https://evilapp.example")]),
        ("http", &[("origin", "http://app.example")]),
        ("port", &[("origin", "https://app.example:8443")]),
        ("trailing dot", &[("origin", "https://app.example.")]),
        ("slash", &[("origin", "https://app.example/")]),
        ("case", &[("origin", "https://APP.example")]),
        ("null", &[("origin", "null")]),
        (
            "list",
            &[("origin", "https://app.example, https://app.example")],
        ),
        (
            "two",
            &[
                ("origin", "https://app.example"),
                ("origin", "https://app.example"),
            ],
        ),
        (
            "cross-site without Origin",
            &[("sec-fetch-site", "cross-site")],
        ),
        (
            "same-site without Origin",
            &[("sec-fetch-site", "same-site")],
        ),
        (
            "sibling",
            &[
                ("origin", "https://sub.app.example"),
                ("sec-fetch-site", "same-site"),
            ],
        ),
    ] {
        // Valid and invalid sessions get the same response, because no extractor runs.
        for user in ["ann", "ann, bob"] {
            let request = with_headers(service.post(), headers);
            let response = request.header("x-user", user).send().await.unwrap();
            assert_eq!(allowed_for(response.headers()), None, "{case}");
            assert_eq!(
                refused(response).await,
                (403, "origin_not_allowed".to_owned()),
                "{case}"
            );
        }
    }
}

#[tokio::test]
async fn request_from_the_same_origin_or_without_an_origin_is_allowed() {
    let service = Service::start(config());
    let own = format!("http://{}", service.address);
    for headers in [
        &[][..],
        &[("sec-fetch-site", "same-origin")],
        &[
            ("origin", "https://behind.tls.example"),
            ("sec-fetch-site", "same-origin"),
        ],
        &[("origin", own.as_str())],
    ] {
        let request = with_headers(service.post(), headers);
        let response = request.header("x-user", "ann").send().await.unwrap();
        assert_eq!(
            (response.status().as_u16(), allowed_for(response.headers())),
            (200, None),
            "{headers:?}"
        );
    }
}

#[tokio::test]
async fn preflight_is_204_for_listed_origins_and_403_for_others() {
    let service = Service::start(config());
    let preflight = |origin: &str| {
        service
            .request(Method::OPTIONS, "/rollout/token")
            .header("origin", origin)
            .header("access-control-request-method", "POST")
            .header(
                "access-control-request-headers",
                "authorization,content-type",
            )
            .send()
    };
    let good = preflight("http://localhost:3000").await.unwrap();
    assert_eq!(good.status(), 204);
    assert_eq!(allowed_for(good.headers()), Some("http://localhost:3000"));
    assert!(
        good.headers()["access-control-allow-methods"]
            .to_str()
            .unwrap()
            .contains("POST")
    );
    assert!(
        good.headers()["access-control-allow-headers"]
            .to_str()
            .unwrap()
            .contains("Authorization")
    );
    assert!(
        !good.headers()["access-control-allow-headers"]
            .to_str()
            .unwrap()
            .contains("X-Dev-User")
    );
    assert_eq!(good.headers()["access-control-max-age"], "7200");
    assert_eq!(good.text().await.unwrap(), "");

    let bad = preflight("https://evil.example").await.unwrap();
    assert_eq!(allowed_for(bad.headers()), None);
    assert_eq!(refused(bad).await.0, 403);
    let plain = service
        .request(Method::OPTIONS, "/rollout/token")
        .send()
        .await
        .unwrap();
    assert_eq!(
        (
            plain.status().as_u16(),
            plain.headers()["allow"].to_str().unwrap()
        ),
        (204, "POST, OPTIONS")
    );
}

/// A section that reads a bearer token, the header `X-Token` or a cookie, and a section that trusts a proxy's header.
const BEARER_COOKIE_OR_PROXY: &str = r#"
    [session]
    extractors = ["web", "proxy"]
    [extractors.web]
    kind = "jwt"
    from = ["header:authorization", "header:x-token", "cookie:session"]
    secret = "session-secret-session-secret-session-secret"
    algorithms = ["HS256"]
    allow_any_audience = true
    [extractors.proxy]
    kind = "trusted_header"
    header = "X-User"
    trusted_proxies = ["127.0.0.1"]
"#;

#[tokio::test]
async fn listed_origin_of_a_native_app_or_browser_extension_is_allowed() {
    let listed = [
        "capacitor://localhost",
        "tauri://localhost",
        "app://-",
        "chrome-extension://gcbommkclmclpchllfjekcdonpmejbdp",
        "moz-extension://2e2b8f3c-6a54-4f0a-9d3b-0c8f5b1f7d11",
    ];
    let service = Service::start(format!("[origins]\nallowed = {listed:?}\n{BY_HEADER}"));
    for origin in listed {
        let request = service.post().header("origin", origin);
        let request = request.header("sec-fetch-site", "cross-site");
        let response = request.header("x-user", "ann").send().await.unwrap();
        assert_eq!(response.status(), 200, "{origin}");
        assert_eq!(allowed_for(response.headers()), Some(origin));
    }
    for origin in [
        "ionic://localhost",
        "capacitor://localhost:8080",
        "chrome-extension://aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        "null",
    ] {
        let response = service
            .post()
            .header("origin", origin)
            .send()
            .await
            .unwrap();
        assert_eq!(refused(response).await.0, 403, "{origin}");
    }
    for (entry, found) in [
        ("null", "sandboxed"),
        ("file:///index.html", "`null` for files"),
        ("*", "`*`"),
        ("https://*.vercel.app", "The only supported pattern form"),
        ("capacitor:localhost", "scheme, host and port"),
    ] {
        let config = format!("[origins]\nallowed = [\"{entry}\"]\n{BY_HEADER}");
        let problems = crate::helpers::load(&config).expect_err(entry).to_string();
        assert!(
            problems.contains("origins.allowed: entry 1") && problems.contains(found),
            "{problems}"
        );
    }
}

#[tokio::test]
async fn localhost_in_the_allowed_origins_is_a_warning() {
    let config = format!(
        "[origins]\nallowed = [\"http://localhost:3000\", \"capacitor://localhost\"]\n{BY_HEADER}"
    );
    let settings = crate::helpers::load(&config).expect("settings");
    let warnings: Vec<String> = settings.warnings.lines().collect();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(
        warnings[0].starts_with("origins.allowed: entry 1: http://localhost:3000 "),
        "{warnings:?}"
    );
}

#[tokio::test]
async fn page_allowed_by_a_pattern_gets_a_token_only_with_a_bearer_token() {
    let config =
        format!("[origins]\nallowed = [\"https://*-team.vercel.app\"]\n{BEARER_COOKIE_OR_PROXY}");
    let service = Service::start(config);
    let token = session_token(json!({}));
    let (bearer, cookie) = (format!("Bearer {token}"), format!("session={token}"));
    let origin = "https://app-git-x-team.vercel.app";
    for (case, headers, want) in [
        ("bearer", &[("authorization", bearer.as_str())][..], 200),
        (
            "a bearer token with an invalid cookie",
            &[("authorization", &bearer), ("cookie", "session=x")],
            200,
        ),
        ("cookie", &[("cookie", &cookie)], 401),
        ("proxy's header", &[("x-user", "ann")], 401),
        ("another header", &[("x-token", &token)], 401),
        (
            "no bearer",
            &[("authorization", "Basic dTpw"), ("cookie", &cookie)],
            401,
        ),
        (
            "an invalid bearer token with a valid cookie",
            &[("authorization", "Bearer x.y.z"), ("cookie", &cookie)],
            401,
        ),
    ] {
        let request = service
            .post()
            .header("origin", origin)
            .header("sec-fetch-site", "cross-site");
        let request = with_headers(request, headers);
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), want, "{case}");
        assert_eq!(response.headers()["access-control-allow-origin"], origin);
        assert!(
            !response
                .headers()
                .contains_key("access-control-allow-credentials"),
            "{case}"
        );
    }
    let preflight = service
        .request(Method::OPTIONS, "/rollout/token")
        .header("origin", origin)
        .header("access-control-request-method", "POST")
        .send()
        .await
        .unwrap();
    assert_eq!(preflight.status(), 204);
    assert_eq!(preflight.headers()["access-control-allow-origin"], origin);
    assert!(
        !preflight
            .headers()
            .contains_key("access-control-allow-credentials")
    );
    for origin in [
        "https://x.app-team.vercel.app",
        "https://team.vercel.app",
        "https://a-team.vercel.app.evil.example",
        "http://a-team.vercel.app",
    ] {
        let request = service.post().header("origin", origin);
        let response = request.bearer_auth(&token).send().await.unwrap();
        assert_eq!(refused(response).await.0, 403, "{origin}");
    }
}

/// An operator pastes requests that were sent to the app, so a request with another host or path is not refused.
#[tokio::test]
async fn dev_explain_checks_origin_and_fetch_metadata_before_the_extractors() {
    let token = session_token(json!({}));
    let config =
        format!("[origins]\nallowed = [\"https://*-team.vercel.app\"]\n{BEARER_COOKIE_OR_PROXY}");
    let dev = Service::start_dev(config);
    let cookie = format!("Cookie: session={token}");
    let bearer = format!("Authorization: Bearer {token}");
    let preview = "Origin: https://app-git-x-team.vercel.app";
    for (request, answer, check) in [
        (
            format!("GET /me HTTP/1.1\nHost: app.example\n{cookie}"),
            "200",
            "origin: allowed, the client is not a browser",
        ),
        (
            format!("curl 'https://app.example/me' -H 'Origin: https://app.example' -H '{cookie}'"),
            "200",
            "origin: allowed, the page has the service's own origin",
        ),
        (
            format!(":authority: app.example\n:path: /\norigin: https://app.example\n{cookie}"),
            "200",
            "origin: allowed, the page has the service's own origin",
        ),
        (
            format!("Host: app.example\nOrigin: https://evil.example\n{cookie}"),
            "403 origin_not_allowed",
            "origin: refused with reason origin_is_not_host, so no extractor would run (Origin: \
             https://evil.example, Host: app.example)",
        ),
        (
            format!("Host: app.example\nSec-Fetch-Mode: navigate\n{cookie}"),
            "403 not_a_fetch",
            "request: refused (not made by a script with fetch) with reason navigation, so no extractor \
             would run (Origin: none, Host: app.example)",
        ),
        (
            format!("{preview}\n{bearer}"),
            "200",
            "origin: allowed, the page's origin matches a pattern, so only a bearer token identifies \
             the user",
        ),
        (
            format!("{preview}\n{cookie}"),
            "401 no_session",
            "origin: allowed, the page's origin matches a pattern, so only a bearer token identifies \
             the user",
        ),
    ] {
        let explained = dev_explain(&dev, &request).await;
        let explained = &explained["request"];
        assert_eq!(explained["answer"], answer, "{request}\n{explained}");
        assert_eq!(explained["checks"][0], check, "{request}");
        let refused = answer.starts_with("403");
        assert_eq!(explained["refused"], refused, "{request}");
        assert_eq!(explained["subject"].is_string(), answer == "200");
        // The extractors are tried even if the request is refused, but then none of them decides.
        let steps = explained["steps"].as_array().unwrap();
        let decides = steps.iter().any(|step| step["decides"] == true);
        assert_eq!(decides, answer == "200", "{request}");
        let reached = steps.iter().any(|step| step["reached"] == "subject");
        assert_eq!(reached, answer != "401 no_session", "{request}");
    }
}

#[tokio::test]
async fn dev_explain_suggests_only_kinds_and_presets_in_the_registry() {
    fn build(_: &Section<'_>, _: &Context) -> Result<Arc<dyn SessionExtractor>, Problems> {
        Err(Problems::of("extractors", "is not used"))
    }
    let own = Registry::builtin().with("trusted_header", Kind::new(build));
    let toml = "[session]\nextractors = [\"static_user\"]";
    for (registry, found) in [(Registry::builtin(), 1), (own, 0)] {
        let dev = Service::with(toml, registry, true);
        let explained = dev_explain(&dev, "Remote-User: ann").await;
        let credentials = explained["request"]["credentials"].as_array().unwrap();
        assert_eq!(credentials.len(), found, "{explained}");
    }
}

async fn dev_explain(dev: &Service, request: &str) -> Value {
    let response = dev.dev_explain(request).send().await.unwrap();
    response.json().await.unwrap()
}

#[tokio::test]
async fn origin_equal_to_host_is_allowed_unless_sec_fetch_site_is_same_site_or_cross_site() {
    let service = Service::start(config());
    for (site, want) in [
        (None, 200),
        (Some("none"), 200),
        (Some("same-site"), 403),
        (Some("cross-site"), 403),
    ] {
        let request = service.post().header("x-user", "ann");
        let request = request
            .header("host", "own.example")
            .header("origin", "https://own.example");
        let request = site.iter().fold(request, |request, site| {
            request.header("sec-fetch-site", *site)
        });
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), want, "{site:?}");
        assert_eq!(allowed_for(response.headers()), None);
    }
}

#[tokio::test]
async fn null_origin_is_allowed_only_with_sec_fetch_site_same_origin() {
    let service = Service::start(config());
    for (site, want) in [
        (Some("same-origin"), 200),
        (Some("cross-site"), 403),
        (Some("same-site"), 403),
        (Some("none"), 403),
        (None, 403),
    ] {
        let request = service
            .post()
            .header("origin", "null")
            .header("x-user", "ann");
        let request = site.iter().fold(request, |request, site| {
            request.header("sec-fetch-site", *site)
        });
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), want, "{site:?}");
        assert_eq!(allowed_for(response.headers()), None);
    }
}

/// The names of the headers that a page of a listed origin may send.
async fn allowed_headers(service: &Service) -> Vec<String> {
    let preflight = service
        .request(Method::OPTIONS, "/rollout/token")
        .header("origin", "https://app.example")
        .header("access-control-request-method", "POST")
        .send()
        .await
        .unwrap();
    assert_eq!(preflight.status(), 204);
    let names = preflight.headers()["access-control-allow-headers"]
        .to_str()
        .unwrap();
    names.split(", ").map(str::to_lowercase).collect()
}

#[tokio::test]
async fn preflight_allows_the_headers_in_which_clients_send_credentials() {
    const ALWAYS: [&str; 9] = [
        "authorization",
        "content-type",
        "x-request-id",
        "x-csrf-token",
        "x-requested-with",
        "traceparent",
        "tracestate",
        "baggage",
        "sentry-trace",
    ];
    let config = r#"
        [origins]
        allowed = ["https://app.example"]
        allowed_headers = ["X-Tenant", "x-csrf-token"]
        [session]
        extractors = ["key", "web", "edge", "ory", "proxy", "nuxt"]
        [extractors.key]
        kind = "api_key"
        keys = { a = "6b7d3c1f0a9e8d2c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a69788796a5b4" }
        [extractors.web]
        kind = "jwt"
        from = ["header:authorization", "header:x-token", "cookie:session"]
        secret = "session-secret-session-secret-session-secret"
        algorithms = ["HS256"]
        allow_any_audience = true
        [extractors.edge]
        kind = "jwt"
        preset = "cloudflare-access"
        issuers = ["https://team.cloudflareaccess.com"]
        audiences = ["a"]
        [extractors.ory]
        kind = "session_endpoint"
        preset = "kratos"
        url = "http://127.0.0.1:4433"
        [extractors.proxy]
        kind = "trusted_header"
        header = "X-User"
        trusted_proxies = ["127.0.0.1"]
        shared_secret_header = "X-Proxy-Secret"
        shared_secret = "a-secret-shared-with-the-proxy-of-these-tests"
        [extractors.nuxt]
        kind = "iron_session"
        version = "raw"
        cookie = "nuxt-session"
        password = "a-password-of-these-tests-with-32-characters"
    "#;
    let service = Service::start(config);
    let mut names = allowed_headers(&service).await;
    assert_eq!(names[..9], ALWAYS);
    names.drain(..9);
    names.sort_unstable();
    assert_eq!(
        names,
        [
            "x-api-key",
            "x-nuxt-session-session",
            "x-session-token",
            "x-tenant",
            "x-token"
        ]
    );

    let dev = Service::start_dev(
        "[origins]\nallowed = [\"https://app.example\"]\n[session]\nextractors = [\"static_user\"]",
    );
    assert_eq!(allowed_headers(&dev).await[9..], ["x-dev-user"]);

    for entry in ["*", "X Y", ""] {
        let config = format!("[origins]\nallowed_headers = [\"{entry}\"]\n{BY_HEADER}");
        let problems = crate::helpers::load(&config).expect_err(entry).to_string();
        assert!(
            problems.contains("origins.allowed_headers: entry 1"),
            "{problems}"
        );
    }
}

#[tokio::test]
async fn loopback_origin_is_allowed_under_dev_except_on_paths_of_the_dev_page() {
    let service = Service::start_dev(
        "[server]\ndocs_alias = true\n[session]\nextractors = [\"static_user\"]",
    );
    for origin in [
        "http://localhost:5173",
        "http://127.0.0.1:3000",
        "http://[::1]:3000",
        "http://app.localhost:3000",
        "https://localhost",
    ] {
        for (method, path) in [
            (Method::POST, "/rollout/token"),
            (Method::GET, "/rollout/token"),
            (Method::GET, "/rollout-token"),
            (Method::GET, "/rollout/client.js"),
        ] {
            let request = service.request(method, path).header("origin", origin);
            let request = request.header("sec-fetch-site", "cross-site");
            let response = request.send().await.unwrap();
            assert_eq!(response.status(), 200, "{path} {origin}");
            assert_eq!(allowed_for(response.headers()), Some(origin), "{path}");
        }
        let request = service.request(Method::GET, "/dev/samples");
        let response = request.header("origin", origin).send().await.unwrap();
        assert_eq!(allowed_for(response.headers()), None);
        assert_eq!(refused(response).await.0, 403, "{origin}");
    }
    for host in ["app.localhost", "localhost:5173", "127.0.0.2:80"] {
        let response = service.post().header("host", host).send().await.unwrap();
        assert_eq!(response.status(), 200, "{host}");
    }
    let served = Service::start(config());
    let request = served.post().header("origin", "http://localhost:5173");
    let response = request.header("x-user", "ann").send().await.unwrap();
    assert_eq!(refused(response).await.0, 403, "outside of dev");
}

#[tokio::test]
async fn get_with_docs_alias_is_403_without_an_allowed_origin_or_a_bearer_credential() {
    let service = Service::start(format!("[server]\ndocs_alias = true\n{}", config()));
    for path in [
        "/rollout-token",
        "/rollout/token",
        "/rollout-token?userId=bob",
        "/rollout/token?user_id=bob",
    ] {
        for (case, headers, want) in [
            ("own page", &[("sec-fetch-site", "same-origin")][..], 200),
            ("listed page", &[("origin", "http://localhost:3000")], 200),
            ("a bearer credential", &[("authorization", "Bearer x")], 200),
            (
                "a credential that browsers add",
                &[("authorization", "Basic dTpw")],
                403,
            ),
            ("curl with a cookie only", &[("cookie", "a=b")], 403),
            (
                "a URL typed into the address bar",
                &[("sec-fetch-site", "none")],
                403,
            ),
            (
                "other page",
                &[
                    ("origin", "https://evil.example"),
                    ("authorization", "Bearer x"),
                ],
                403,
            ),
            (
                "a link on another page",
                &[("sec-fetch-site", "cross-site")],
                403,
            ),
        ] {
            let request = service.request(Method::GET, path).header("x-user", "ann");
            let request = with_headers(request, headers);
            let response = request.send().await.unwrap();
            assert_eq!(response.status().as_u16(), want, "{path}: {case}");
            if want == 403 {
                assert_eq!(refused(response).await.1, "origin_not_allowed", "{case}");
            } else {
                let body = response.json().await.unwrap();
                assert_eq!(verified(&body)["sub"], "ann", "the query is ignored");
            }
        }
    }
    let post = service
        .request(Method::POST, "/rollout-token")
        .send()
        .await
        .unwrap();
    assert_eq!(post.headers()["allow"], "GET, OPTIONS");
    assert_eq!(refused(post).await.0, 405);
}

#[tokio::test]
async fn head_on_a_token_path_is_405_and_get_is_served_only_with_docs_alias() {
    for docs_alias in [true, false] {
        let service = Service::start(format!("[server]\ndocs_alias = {docs_alias}\n{}", config()));
        let status = async |method: Method, path: &str| {
            let request = service.request(method, path).header("x-user", "ann");
            let request = request.header("sec-fetch-site", "same-origin");
            request.send().await.unwrap().status().as_u16()
        };
        for path in ["/rollout/token", "/rollout-token"] {
            assert_eq!(status(Method::HEAD, path).await, 405, "{path} {docs_alias}");
        }
        let (at_path, at_docs_path) = if docs_alias { (200, 200) } else { (405, 404) };
        assert_eq!(status(Method::GET, "/rollout/token").await, at_path);
        assert_eq!(status(Method::GET, "/rollout-token").await, at_docs_path);
        let options = service.request(Method::OPTIONS, "/rollout/token");
        let options = options.send().await.unwrap();
        let methods = if docs_alias {
            "GET, POST, OPTIONS"
        } else {
            "POST, OPTIONS"
        };
        assert_eq!(options.headers()["allow"], methods);
        let put = service.request(Method::PUT, "/rollout-token");
        let put = put.send().await.unwrap();
        let allow = put
            .headers()
            .get("allow")
            .map(|allow| allow.to_str().unwrap());
        assert_eq!(allow, docs_alias.then_some("GET, OPTIONS"));
        assert_eq!(put.status(), if docs_alias { 405 } else { 404 });
    }
}

#[tokio::test]
async fn get_is_200_without_an_origin_and_403_from_a_foreign_page_under_dev_with_docs_alias() {
    let service = Service::start_dev(
        "[server]\ndocs_alias = true\n[session]\nextractors = [\"static_user\"]",
    );
    for path in ["/rollout-token?userId=bob", "/rollout/token"] {
        let response = service.request(Method::GET, path).send().await.unwrap();
        assert_eq!(response.status(), 200, "{path}");
        let body = response.json().await.unwrap();
        assert_eq!(verified(&body)["sub"], "dev-user");
        let response = service
            .request(Method::GET, path)
            .header("origin", "https://evil.example")
            .send()
            .await
            .unwrap();
        assert_eq!(refused(response).await.0, 403, "{path}");
    }
}

/// The requests of `RolloutHQ`'s email-demo, activity-dashboard and nextjs-universal-api-demo, as the development
/// servers of Vite (with and without `changeOrigin`) and Next.js forward them.
#[tokio::test]
async fn requests_of_rollouts_demo_apps_get_a_token_under_dev() {
    let service = Service::start_dev(
        "[server]\nbase_path = \"/api\"\ndocs_alias = true\n[session]\nextractors = [\"static_user\"]",
    );
    let own = service.address.to_string();
    for (path, host) in [
        ("/api/rollout/token", own.as_str()),
        ("/api/rollout/token?userId=user123", "localhost:5173"),
        ("/api/rollout-token?userId=ann", "localhost:3000"),
        ("/api/rollout-token?userId=ann", &own),
    ] {
        let request = service.request(Method::GET, path).header("host", host);
        let request = request
            .header("referer", format!("http://{host}/"))
            .header("sec-fetch-site", "same-origin")
            .header("sec-fetch-mode", "cors")
            .header("sec-fetch-dest", "empty");
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200, "{path} {host}");
        let body = response.json().await.unwrap();
        assert_eq!(verified(&body)["sub"], "dev-user", "{path}");
    }
}

#[tokio::test]
async fn base_path_precedes_every_public_path_except_the_probes() {
    let service = Service::start_dev(
        "[server]\nbase_path = \"/api\"\ndocs_alias = true\n[session]\nextractors = [\"static_user\"]",
    );
    for path in [
        "/rollout/token",
        "/rollout-token",
        "/rollout/client.js",
        "/openapi.json",
        "/",
        "/dev.js",
        "/dev.css",
        "/dev.svg",
        "/dev/samples",
    ] {
        let get = async |path: &str| {
            let response = service.request(Method::GET, path).send().await.unwrap();
            response.status().as_u16()
        };
        assert_eq!(get(&format!("/api{path}")).await, 200, "{path}");
        assert_eq!(get(path).await, 404, "{path}");
        assert_eq!(get(&format!("/API{path}")).await, 404, "{path}");
    }
    for (path, want) in [
        ("/healthz", 200),
        ("/readyz", 200),
        ("/api/healthz", 404),
        ("/api/readyz", 404),
    ] {
        let response = service.request(Method::GET, path).send().await.unwrap();
        assert_eq!(response.status(), want, "{path}");
    }
    let post = service.request(Method::POST, "/api/rollout/token");
    let response = post
        .header("origin", "http://localhost:5173")
        .send()
        .await
        .unwrap();
    assert_eq!(
        allowed_for(response.headers()),
        Some("http://localhost:5173")
    );
    assert_eq!(response.status(), 200);
    let document = service.request(Method::GET, "/api/openapi.json");
    let document: serde_json::Value = document.send().await.unwrap().json().await.unwrap();
    assert_eq!(document["servers"][0]["url"], "/api");
    assert_eq!(document["paths"]["/healthz"]["servers"][0]["url"], "/");
    let metrics = service.metrics().await;
    assert!(metrics.contains(r#"outcome="issued"} "#), "{metrics}");
}

#[tokio::test]
async fn dev_mode_sets_x_rollout_dev_and_refuses_foreign_hosts_and_origins() {
    let service = Service::start_dev("[session]\nextractors = [\"static_user\"]");
    let response = service
        .post()
        .header("x-dev-user", "ann")
        .send()
        .await
        .unwrap();
    assert_eq!(
        (
            response.status().as_u16(),
            response.headers()["x-rollout-dev"].to_str().unwrap()
        ),
        (200, "1")
    );
    let page = service.request(Method::GET, "/").send().await.unwrap();
    assert_eq!(page.headers()["content-type"], "text/html; charset=utf-8");
    assert!(page.headers().contains_key("content-security-policy"));
    for host in ["evil.example", "localhost.evil.example", "192.0.2.1"] {
        let response = service.post().header("host", host).send().await.unwrap();
        assert_eq!(response.headers()["x-rollout-dev"], "1");
        assert_eq!(
            refused(response).await,
            (403, "host_not_allowed".to_owned()),
            "{host}"
        );
    }
    for (name, value) in [
        ("origin", "https://evil"),
        ("origin", "null"),
        ("sec-fetch-site", "cross-site"),
    ] {
        let response = service.post().header(name, value).send().await.unwrap();
        assert_eq!(refused(response).await.0, 403, "{name}: {value}");
    }
}
