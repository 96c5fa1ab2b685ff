//! Tests of the rate limit, the limit on in-flight requests, the bounded number of time series, and readiness.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use axum::http::request::Parts;
use futures_util::future::{BoxFuture, join_all};
use rollout_token::clock::{Clock, ManualClock};
use rollout_token::config::{Problems, Section, Sources};
use rollout_token::http::app::{self, App};
use rollout_token::http::server::Drain;
use rollout_token::session::backends::Context;
use rollout_token::session::kind::Kind;
use rollout_token::session::registry::Registry;
use rollout_token::session::types::{Extracted, Session, SessionExtractor};
use rollout_token::settings::reload::Reloadable;
use rollout_token::telemetry::metrics::Metrics;
use tokio::sync::Notify;
use tokio::time::timeout;
use tower::ServiceExt;

use crate::backend::{Backend, json};
use crate::helpers::{BY_HEADER, NOW, Service, client_variables, load_with, refused};

#[tokio::test]
async fn caller_above_burst_is_429_and_other_callers_are_served() {
    let service = Service::start(format!("[rate_limit]\nburst = 3\n{BY_HEADER}"));
    for _ in 0..3 {
        assert_eq!(service.ask(&[("x-user", "ann")]).await.0, 200);
    }
    let response = service.post().header("x-user", "ann").send().await.unwrap();
    let wait: u64 = response.headers()["retry-after"]
        .to_str()
        .unwrap()
        .parse()
        .unwrap();
    assert!((1..=2).contains(&wait));
    assert_eq!(refused(response).await, (429, "rate_limited".to_owned()));
    assert_eq!(service.ask(&[("x-user", "bob")]).await.0, 200);
    service.clock.advance(Duration::from_secs(wait));
    assert_eq!(service.ask(&[("x-user", "ann")]).await.0, 200);
}

#[tokio::test]
async fn rate_limit_of_0_per_minute_disables_the_limit() {
    let service = Service::start(format!("[rate_limit]\nper_minute = 0\n{BY_HEADER}"));
    for _ in 0..100 {
        assert_eq!(service.ask(&[("x-user", "ann")]).await.0, 200);
    }
}

/// An extractor whose backend never answers.
#[derive(Debug)]
struct Hung;

impl SessionExtractor for Hung {
    fn extract<'a>(&'a self, _: &'a Parts) -> BoxFuture<'a, Extracted> {
        Box::pin(async {
            std::future::pending::<()>().await;
            Ok(Some(Session::of_subject("never")))
        })
    }
}

fn hung(_: &Section<'_>, _: &Context) -> Result<Arc<dyn SessionExtractor>, Problems> {
    Ok(Arc::new(Hung))
}

#[tokio::test]
async fn hung_backend_is_503_and_requests_above_max_in_flight_are_refused_at_once() {
    let config = "[server]\nmax_in_flight = 4\nrequest_timeout = \"300ms\"\n[session]\nextractors = [\"hung\"]";
    let service = Service::with(
        config,
        Registry::builtin().with("hung", Kind::new(hung)),
        false,
    );
    let answers = join_all((0..12).map(|_| async {
        let response = service.post().send().await.unwrap();
        assert!(response.headers().contains_key("retry-after"));
        refused(response).await
    }))
    .await;
    let count = |code: &str| {
        answers
            .iter()
            .filter(|answer| **answer == (503, code.to_owned()))
            .count()
    };
    assert_eq!(
        (count("session_backend_unavailable"), count("overloaded")),
        (4, 8)
    );
    let metrics = service.metrics().await;
    assert!(metrics.contains("rollout_token_in_flight 0"), "{metrics}");
}

#[tokio::test]
async fn metric_labels_contain_no_request_text() {
    let service = Service::start(BY_HEADER);
    for n in 0..200 {
        let name = format!("sentinel-{n}");
        service
            .ask(&[("x-user", &name), ("x-request-id", &name)])
            .await;
        service
            .request(reqwest::Method::GET, &format!("/{name}"))
            .send()
            .await
            .unwrap();
    }
    let metrics = service.metrics().await;
    assert!(!metrics.contains("sentinel"));
    assert!(
        metrics
            .lines()
            .filter(|line| !line.starts_with('#'))
            .count()
            <= 300
    );
    for line in [
        "rollout_token_requests_total{extractor=\"proxy\",outcome=\"issued\"} 200",
        "rollout_token_requests_total{extractor=\"none\",outcome=\"not_found\"} 200",
        "rollout_token_in_flight 0",
        "rollout_token_panics_total 0",
    ] {
        assert!(metrics.contains(line), "{line} in {metrics}");
    }
    for name in ["request_duration_seconds", "connections", "build_info"] {
        assert!(metrics.contains(&format!("rollout_token_{name}")), "{name}");
    }
}

#[tokio::test]
async fn readiness_probe_of_an_unready_instance_is_not_counted_as_a_token_request() {
    let service = Service::start(
        r#"
        [session]
        extractors = ["jwt"]
        [extractors.jwt]
        jwks_url = "http://127.0.0.1:1/keys"
        issuers = ["https://idp.example"]
        allow_any_audience = true
        "#,
    );
    let ready = || service.request(reqwest::Method::GET, "/readyz").send();
    assert_eq!(
        refused(ready().await.unwrap()).await,
        (503, "session_backend_unavailable".to_owned())
    );
    service.drain.begin();
    assert_eq!(
        refused(ready().await.unwrap()).await,
        (503, "draining".to_owned())
    );
    let metrics = service.metrics().await;
    assert!(
        !metrics.contains("rollout_token_requests_total{"),
        "{metrics}"
    );
    assert!(
        metrics.contains("rollout_token_request_duration_seconds_count 0"),
        "{metrics}"
    );
}

#[tokio::test]
async fn key_set_is_fetched_at_start_and_its_gauges_are_set_when_metrics_are_read() {
    let fetched = Arc::new(Notify::new());
    let fetch = fetched.clone();
    let idp = Backend::start(move |_| {
        fetch.notify_one();
        async { json(r#"{"keys":[]}"#) }
    })
    .await;
    let service = Service::start(format!(
        "[session]\nextractors = ['idp']\n[extractors.idp]\nkind = 'jwt'\njwks_url = '{}'\n\
         issuers = ['https://idp.example']\nallow_any_audience = true",
        idp.url("/jwks")
    ));
    let limit = Duration::from_secs(30);
    timeout(limit, fetched.notified())
        .await
        .expect("a fetch without a request");
    let metrics = service.metrics().await;
    assert!(
        metrics.contains("rollout_token_jwks_unusable_keys{extractor=\"idp\"} 0"),
        "{metrics}"
    );
}

#[tokio::test]
async fn gauges_of_a_removed_extractor_disappear_after_a_reload() {
    let unusable = r#"{ "kty": "EC", "crv": "P-521", "kid": "p521", "x": "AA", "y": "AA" }"#;
    let usable = r#"{ "kty": "EC", "crv": "P-256", "kid": "p256",
        "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0" }"#;
    let section = |name: &str| {
        format!(
            "[session]\nextractors = ['{name}']\n[extractors.{name}]\nkind = 'jwt'\n\
             jwks = '''{{\"keys\":[{unusable},{usable}]}}'''\n\
             issuers = ['https://idp.example']\nallow_any_audience = true"
        )
    };
    let (metrics, registry) = (Arc::new(Metrics::new()), Registry::builtin());
    let context = Context::new(Clock::new(ManualClock::at(NOW)), metrics.clone());
    let load = |name| load_with(&section(name), &registry, &context).unwrap();
    let app = App::new(load("old"), &registry, context.clone(), Drain::default());
    let scrape = async || {
        let request = Request::get("/metrics").header("host", "a");
        let request = request.body(Body::empty()).unwrap();
        let response = app::admin(&app).oneshot(request).await.unwrap();
        let text = axum::body::to_bytes(response.into_body(), usize::MAX).await;
        String::from_utf8(text.unwrap().to_vec()).unwrap()
    };
    metrics.jwks_age(&Arc::from("old"), Duration::from_secs(1));
    let text = scrape().await;
    let gauge = "rollout_token_jwks_unusable_keys{extractor=\"old\"} 1";
    assert!(text.contains(gauge), "{text}");

    app.replace(load("new"));
    let text = scrape().await;
    let gauge = "rollout_token_jwks_unusable_keys{extractor=\"new\"} 1";
    assert!(text.contains(gauge), "{text}");
    assert!(!text.contains("extractor=\"old\""), "{text}");

    let sources = Sources {
        environment: client_variables(),
        base: Some(section("embedded")),
        ..Sources::default()
    };
    let _router = rollout_token::router(&sources, &registry, metrics.clone()).unwrap();
    let gauge = "rollout_token_jwks_unusable_keys{extractor=\"embedded\"} 1";
    assert!(metrics.render().contains(gauge), "{}", metrics.render());
}

#[tokio::test]
async fn while_draining_healthz_is_200_and_readyz_is_503() {
    let service = Service::start(BY_HEADER);
    let get = |path: &str| service.request(reqwest::Method::GET, path).send();
    assert_eq!(get("/healthz").await.unwrap().status(), 200);
    let ready: serde_json::Value = get("/readyz").await.unwrap().json().await.unwrap();
    assert_eq!(ready["state"], "ready");
    assert_eq!(ready["extractors"][0]["name"], "proxy");
    assert_eq!(
        ready.get("secret_fingerprint"),
        None,
        "a public fingerprint could be used to check guesses of a weak secret"
    );
    let admin = format!("http://{}/readyz", service.admin);
    let ready: serde_json::Value = crate::helpers::client()
        .get(&admin)
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(
        ready["secret_fingerprint"].as_str().unwrap().len(),
        16,
        "for operators"
    );

    service.drain.begin();
    assert_eq!(get("/healthz").await.unwrap().status(), 200);
    let draining = get("/readyz").await.unwrap();
    assert_eq!(draining.headers()["connection"], "close");
    let draining: serde_json::Value = draining.json().await.unwrap();
    assert_eq!(
        (&draining["code"], draining.get("secret_fingerprint")),
        (&"draining".into(), None)
    );
    // Requests are still served during the drain delay, because load balancers need time to stop sending them.
    assert_eq!(service.ask(&[("x-user", "ann")]).await.0, 200);
}
