//! Tests of `client.js`, and of the dev page and its endpoints: caching, access from other origins, and size limits.

use reqwest::{Method, StatusCode};

use crate::helpers::{BY_HEADER, Service, refused};

#[tokio::test]
async fn client_js_has_an_etag_and_a_matching_if_none_match_is_304() {
    for service in [
        Service::start(BY_HEADER),
        Service::start_dev("[session]\nextractors = [\"static_user\"]"),
    ] {
        let get = |etag: Option<String>| {
            let request = service.request(Method::GET, "/rollout/client.js");
            etag.into_iter()
                .fold(request, |request, etag| {
                    request.header("if-none-match", etag)
                })
                .send()
        };
        let first = get(None).await.unwrap();
        assert_eq!(first.status(), StatusCode::OK);
        let headers = first.headers().clone();
        for (name, want) in [
            ("content-type", "text/javascript; charset=utf-8"),
            ("cache-control", "no-cache"),
            ("x-content-type-options", "nosniff"),
            ("vary", "Origin"),
        ] {
            assert_eq!(headers[name], want, "{name}");
        }
        assert!(!headers.contains_key("pragma"));
        assert!(headers.contains_key("x-request-id"));
        let etag = headers["etag"].to_str().unwrap().to_owned();
        assert!(
            etag.starts_with('"') && etag.ends_with('"') && etag.len() == 45,
            "{etag}"
        );
        assert_eq!(
            first.text().await.unwrap(),
            include_str!("../../web/client.js")
        );

        for known in [
            etag.clone(),
            format!("W/{etag}"),
            format!("\"other\", {etag}"),
            "*".to_owned(),
        ] {
            let again = get(Some(known.clone())).await.unwrap();
            assert_eq!(again.status(), StatusCode::NOT_MODIFIED, "{known}");
            assert_eq!(again.headers()["etag"], etag.as_str());
            assert_eq!(again.headers()["cache-control"], "no-cache");
            assert_eq!(again.text().await.unwrap(), "");
        }
        for other in [
            "\"other\"".to_owned(),
            etag.trim_matches('"').to_owned(),
            String::new(),
        ] {
            assert_eq!(
                get(Some(other.clone())).await.unwrap().status(),
                StatusCode::OK,
                "{other}"
            );
        }
    }
}

#[tokio::test]
async fn client_js_has_cors_headers_for_listed_origins_only_and_post_is_405() {
    let service = Service::start(format!(
        "[origins]\nallowed = [\"https://app.example\"]\n{BY_HEADER}"
    ));
    for (origin, want) in [
        ("https://app.example", Some("https://app.example")),
        ("https://evil.example", None),
    ] {
        let request = service
            .request(Method::GET, "/rollout/client.js")
            .header("origin", origin);
        let response = request.send().await.unwrap();
        let allowed = response.headers().get("access-control-allow-origin");
        assert_eq!(allowed.map(|value| value.to_str().unwrap()), want);
    }
    let head = service
        .request(Method::HEAD, "/rollout/client.js")
        .send()
        .await
        .unwrap();
    assert_eq!(head.status(), StatusCode::OK);
    assert!(head.headers().contains_key("etag"));
    let post = service
        .request(Method::POST, "/rollout/client.js")
        .send()
        .await
        .unwrap();
    assert_eq!(post.headers()["allow"], "GET, HEAD");
    assert_eq!(refused(post).await, (405, "method_not_allowed".to_owned()));
}

#[tokio::test]
async fn dev_page_and_its_assets_are_404_outside_dev_mode() {
    let parts = [
        "/",
        "/dev.js",
        "/dev.css",
        "/dev.svg",
        "/dev/samples",
        "/dev/extractors",
        "/dev/requests",
    ];
    let dev = Service::start_dev("[session]\nextractors = [\"static_user\"]");
    for path in parts {
        let response = dev.request(Method::GET, path).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        assert_eq!(response.headers()["cache-control"], "no-store", "{path}");
    }
    let page = dev.request(Method::GET, "/").send().await.unwrap();
    let policy = page.headers()["content-security-policy"].to_str().unwrap();
    assert!(
        policy.starts_with("default-src 'none';") && !policy.contains("unsafe"),
        "{policy}"
    );

    let service = Service::start(BY_HEADER);
    for path in parts {
        let response = service.request(Method::GET, path).send().await.unwrap();
        assert_eq!(
            refused(response).await,
            (404, "not_found".to_owned()),
            "{path}"
        );
    }
}

#[tokio::test]
async fn dev_explain_answers_same_origin_requests_up_to_64_kib() {
    let dev = Service::start_dev("[session]\nextractors = [\"static_user\"]");
    let cookie = "Cookie: connect.sid=s%3Aabc.2Zb6Z4mYx0QkqzQJw0cX8p9cQk0Yp3mB1s7sYk1xv5E";
    let response = dev.dev_explain(cookie).send().await.unwrap();
    let explained: serde_json::Value = response.json().await.unwrap();
    let request = &explained["request"];
    assert_eq!(request["subject"], "dev-user", "{explained}");
    assert_eq!(request["credentials"][0]["place"], "cookie:connect.sid");
    assert_eq!(request["credentials"][0]["preset"], "connect-redis");
    assert_eq!(request["steps"][0]["reached"], "subject");

    let response = dev.dev_explain("curl http://localhost/").send().await;
    let explained: serde_json::Value = response.unwrap().json().await.unwrap();
    assert!(explained["problem"].is_string(), "{explained}");

    for origin in ["https://evil.example", "http://localhost:5173"] {
        let foreign = dev.dev_explain(cookie).header("origin", origin);
        assert_eq!(refused(foreign.send().await.unwrap()).await.0, 403);
    }
    let largest = "x".repeat(64 * 1024 - "request=".len());
    let response = dev.dev_explain(&largest).send().await.unwrap();
    assert_eq!(response.status(), 200);
    let too_large = dev.dev_explain(&(largest + "x")).send().await.unwrap();
    assert_eq!(refused(too_large).await.0, 413);
    let elsewhere = dev.request(Method::POST, "/rollout/token");
    let elsewhere = elsewhere.body("x".repeat(5 * 1024)).send().await.unwrap();
    assert_eq!(
        refused(elsewhere).await.0,
        413,
        "max_body_bytes still applies to other routes"
    );

    let service = Service::start(BY_HEADER);
    let response = service.request(Method::POST, "/dev/explain");
    assert_eq!(refused(response.send().await.unwrap()).await.0, 404);
}

/// Head and body are sent together, because the scan for ambiguous heads then reads the body too. It finds nothing
/// there: the form percent-encodes `#` and line breaks.
#[tokio::test]
async fn dev_explain_accepts_a_request_that_the_service_would_refuse_as_ambiguous() {
    let dev = Service::start_dev("[session]\nextractors = [\"static_user\"]");
    let pasted = "POST /app#part HTTP/1.1\nContent-Length: 3\nTransfer-Encoding:\tchunked\nX-Dev-User: ann\n";
    let request = dev.dev_explain(pasted).build().unwrap();
    let body = request.body().unwrap().as_bytes().unwrap();
    let head = format!(
        "POST /dev/explain HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let answer = dev.raw(&[head.as_bytes(), body].concat()).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(answer.contains("\"subject\":\"ann\""), "{answer}");
}

#[tokio::test]
async fn dev_explain_answers_400_to_an_incomplete_body_and_413_to_one_over_64_kib() {
    let dev = Service::start_dev("[session]\nextractors = [\"static_user\"]");
    let head = "POST /dev/explain HTTP/1.1\r\nHost: localhost\r\n";
    let chunked = format!("{head}Transfer-Encoding: chunked\r\n\r\n");
    let long = "x".repeat(64 * 1024 + 1);
    for (request, want) in [
        (format!("{head}Content-Length: 9\r\n\r\nCookie"), "400"),
        (format!("{chunked}6\r\nCookie"), "400"),
        (format!("{chunked}10001\r\n{long}\r\n0\r\n\r\n"), "413"),
    ] {
        let answer = dev.raw(request.as_bytes()).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {want} ")), "{answer}");
    }
}

#[tokio::test]
async fn dev_requests_lists_token_requests_with_subject_or_reason_latest_first() {
    let dev = Service::start_dev(BY_HEADER);
    dev.post().header("x-user", "ann").send().await.unwrap();
    dev.post().send().await.unwrap();
    let answer = dev.request(Method::GET, "/dev/requests").send().await;
    let requests: serde_json::Value = answer.unwrap().json().await.unwrap();
    assert_eq!(requests[0]["reason"], "no_credential", "{requests}");
    assert_eq!(requests[1]["subject"], "ann", "{requests}");
    assert_eq!(requests[1]["reason"], serde_json::Value::Null);
    let answer = dev.request(Method::GET, "/dev/extractors").send().await;
    let in_force: serde_json::Value = answer.unwrap().json().await.unwrap();
    assert_eq!(in_force["every_caller_signed_in"], false, "{in_force}");
}

#[tokio::test]
async fn origin_not_allowed_sample_of_the_dev_page_equals_the_real_answer() {
    let dev = Service::start_dev("[session]\nextractors = [\"static_user\"]");
    let samples: serde_json::Value = dev
        .request(Method::GET, "/dev/samples")
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    let sample = samples
        .as_array()
        .unwrap()
        .iter()
        .find(|sample| sample["code"] == "origin_not_allowed")
        .unwrap();
    let answer = dev
        .post()
        .header("origin", "https://evil.example")
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status().as_u16(), sample["status"]);
    for (name, value) in sample["headers"].as_object().unwrap() {
        assert_eq!(answer.headers()[name], value.as_str().unwrap(), "{name}");
    }
    let id = answer.headers()["x-request-id"]
        .to_str()
        .unwrap()
        .to_owned();
    assert_eq!(
        answer.text().await.unwrap().replace(&id, "sample"),
        sample["body"]
    );
}
