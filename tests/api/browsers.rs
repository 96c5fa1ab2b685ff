//! The origin rule: pages that may ask for a token, and pages that may not.

use reqwest::Method;
use reqwest::header::HeaderMap;

use crate::helpers::{BY_HEADER, Service, refused};

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
        // A valid and an invalid session get the same answer: no extractor ran.
        for user in ["ann", "ann, bob"] {
            let request = headers
                .iter()
                .fold(service.post(), |request, (name, value)| {
                    request.header(*name, *value)
                });
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
async fn same_origin_page_and_program_without_an_origin_are_allowed() {
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
        let request = headers
            .iter()
            .fold(service.post(), |request, (name, value)| {
                request.header(*name, *value)
            });
        let response = request.header("x-user", "ann").send().await.unwrap();
        assert_eq!(
            (response.status().as_u16(), allowed_for(response.headers())),
            (200, None),
            "{headers:?}"
        );
    }
}

#[tokio::test]
async fn preflight_is_allowed_for_listed_origins_and_paths_only() {
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

#[tokio::test]
async fn docs_alias_needs_an_allowed_origin_or_a_bearer() {
    let service = Service::start(format!("[server]\ndocs_alias = true\n{}", config()));
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
            "typed into the address bar",
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
        let request = service
            .request(Method::GET, "/rollout-token")
            .header("x-user", "ann");
        let request = headers.iter().fold(request, |request, (name, value)| {
            request.header(*name, *value)
        });
        assert_eq!(
            request.send().await.unwrap().status().as_u16(),
            want,
            "{case}"
        );
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
async fn dev_mode_marks_answers_and_refuses_foreign_hosts() {
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
