//! What one request costs, without sockets: the mint, and the whole way through the router.
//! Compare figures of one run with each other; the machine's noise is in all of them.

#![expect(clippy::expect_used, reason = "a benchmark that cannot be set up has nothing to measure")]

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::hmac;
use axum::body::Body;
use axum::http::Request;
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use rollout_token::app::{self, App};
use rollout_token::clock::Clock;
use rollout_token::config::{self, Client, Sources};
use rollout_token::extractors::{Context, Registry, Session};
use rollout_token::secret::Secret;
use rollout_token::server::Drain;
use rollout_token::subject::Subject;
use rollout_token::token::{ClaimTemplates, Minter};
use tower::ServiceExt;

const CLIENT_SECRET: &str = "client-secret-client-secret-client-secret-client-secret-client-secret";
const SESSION_SECRET: &str = "session-secret-session-secret-session-secret";

fn mint(criterion: &mut Criterion) {
    let client = Client { id: "client".to_owned(), secret: Secret::new(CLIENT_SECRET) };
    let minter = Minter::new(&client, Duration::from_secs(900), false, ClaimTemplates::default());
    let subject = Subject::new("user-1").expect("a subject");
    let session = Session::of_subject("user-1");
    let key = hmac::Key::new(hmac::HMAC_SHA512, CLIENT_SECRET.as_bytes());
    let token = minter.mint(&subject, &session, 1_800_000_000).expect("a token").token;
    let signed = token.rsplit_once('.').expect("a signature").0.to_owned();

    let mut group = criterion.benchmark_group("mint");
    group.bench_function("raw HMAC-SHA512 of the same bytes", |b| {
        b.iter(|| hmac::sign(&key, black_box(signed.as_bytes())));
    });
    group.bench_function("token", |b| b.iter(|| minter.mint(&subject, &session, black_box(1_800_000_000))));
    group.finish();
}

fn router(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let variables = [
        ("ROLLOUT_CLIENT_ID", "client"),
        ("ROLLOUT_CLIENT_SECRET", CLIENT_SECRET),
        ("ROLLOUT__SESSION__EXTRACTORS", "jwt"),
        ("ROLLOUT__EXTRACTORS__JWT__SECRET", SESSION_SECRET),
        ("ROLLOUT__EXTRACTORS__JWT__ALGORITHMS", "HS256"),
        ("ROLLOUT__EXTRACTORS__JWT__ALLOW_ANY_AUDIENCE", "true"),
        ("ROLLOUT__RATE_LIMIT__PER_SUBJECT_PER_MINUTE", "1000000000"),
    ];
    let environment: BTreeMap<_, _> =
        variables.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let context = Context::new(Clock::system(), Arc::default());
    let sources = Sources { environment, ..Sources::default() };
    let settings = config::load(&sources, &Registry::builtin(), &context).expect("a configuration");
    let app = App::new(settings, context, Drain::default());
    let router = app::public(&app);

    let claims = serde_json::json!({"sub": "user-1", "exp": 4_000_000_000_i64});
    let key = jsonwebtoken::EncodingKey::from_secret(SESSION_SECRET.as_bytes());
    let session = jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &key).expect("a session");
    let request = |authorization: Option<String>| {
        let mut request = Request::post("/rollout/token").header("host", "localhost");
        if let Some(value) = authorization {
            request = request.header("authorization", value);
        }
        request.body(Body::empty()).expect("a request")
    };
    let mut group = criterion.benchmark_group("router");
    for (name, authorization) in [
        ("HS256 session in, token out", Some(format!("Bearer {session}"))),
        ("no session", None),
        ("a forged session", Some(format!("Bearer {session}A"))),
    ] {
        group.bench_function(name, |b| {
            b.to_async(&runtime).iter_batched(
                || (router.clone(), request(authorization.clone())),
                |(router, request)| async { black_box(router.oneshot(request).await) },
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, mint, router);
criterion_main!(benches);
