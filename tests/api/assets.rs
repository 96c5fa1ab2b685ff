//! The embedded files: caching, and access from other origins.

use reqwest::{Method, StatusCode};

use crate::helpers::{BY_HEADER, Service, refused};

#[tokio::test]
async fn client_js_is_a_module_with_an_etag_and_is_revalidated() {
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
async fn client_js_is_readable_by_listed_origins_and_other_methods_are_405() {
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
    let parts = ["/", "/dev.js", "/dev.css", "/dev.svg", "/dev/samples"];
    let dev = Service::start_dev("[session]\nextractors = [\"static_user\"]");
    for path in parts {
        let response = dev.request(Method::GET, path).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK, "{path}");
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
async fn sample_answers_of_the_dev_page_match_the_service() {
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
