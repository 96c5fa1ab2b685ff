//! Measures one request without sockets: the mint, the whole service, refusals, and the cost of each additional
//! extractor in the chain. Compare only figures from the same run, because the machine's speed varies between runs.

#![expect(
    clippy::expect_used,
    reason = "a benchmark that cannot be set up has nothing to measure"
)]

mod setup;

use std::fmt::Write;
use std::hint::black_box;

use aws_lc_rs::hmac;
use axum::Router;
use axum::http::StatusCode;
use criterion::measurement::WallTime;
use criterion::{BatchSize, BenchmarkGroup, Criterion, criterion_group, criterion_main};
use rollout_token::session::subject::Subject;
use rollout_token::session::types::Session;
use tower::ServiceExt;

fn mint(criterion: &mut Criterion) {
    let minter = setup::minter();
    let subject = Subject::new("user-1").expect("a subject");
    let session = Session::of_subject("user-1");
    let key = hmac::Key::new(hmac::HMAC_SHA512, setup::CLIENT_SECRET.as_bytes());
    let token = minter
        .mint(&subject, &session, 1_800_000_000)
        .expect("a token")
        .token;
    let signed = token.rsplit_once('.').expect("a signature").0.to_owned();

    let mut group = criterion.benchmark_group("mint");
    group.bench_function("HMAC-SHA512 of the token's signing input", |b| {
        b.iter(|| hmac::sign(&key, black_box(signed.as_bytes())));
    });
    group.bench_function("token", |b| {
        b.iter(|| minter.mint(&subject, &session, black_box(1_800_000_000)));
    });
    group.finish();
}

fn router(criterion: &mut Criterion) {
    let service = setup::service(&setup::hs256());
    let genuine = format!("Bearer {}", setup::session());
    let forged = format!("{genuine}A");
    let mut group = criterion.benchmark_group("router");
    ask(
        &mut group,
        "HS256 session in, token out",
        &service,
        Some(&genuine),
        StatusCode::OK,
    );
    ask(
        &mut group,
        "no session",
        &service,
        None,
        StatusCode::UNAUTHORIZED,
    );
    ask(
        &mut group,
        "a forged session",
        &service,
        Some(&forged),
        StatusCode::UNAUTHORIZED,
    );
    group.finish();
}

/// Benchmarks chains of several lengths. The last extractor finds the session; each of the others looks for a cookie.
fn chain(criterion: &mut Criterion) {
    let genuine = format!("Bearer {}", setup::session());
    let mut group = criterion.benchmark_group("chain");
    for length in [1, 3, 10] {
        let others: Vec<_> = (1..length).map(|n| format!("other{n}")).collect();
        let mut names = others.clone();
        names.push("jwt".to_owned());
        let toml = setup::hs256().replace(r#"["jwt"]"#, &format!("{names:?}"));
        let toml = others.iter().fold(toml, |mut toml, name| {
            let secret = setup::SESSION_SECRET;
            // Writing to a string cannot fail.
            let _ = write!(
                toml,
                "\n[extractors.{name}]\nkind = \"starlette\"\ncookie = \"{name}\"\nsecret_key = \"{secret}\"\n"
            );
            toml
        });
        let service = setup::service(&toml);
        ask(
            &mut group,
            &format!("{length} extractors"),
            &service,
            Some(&genuine),
            StatusCode::OK,
        );
    }
    group.finish();
}

fn ask(
    group: &mut BenchmarkGroup<'_, WallTime>,
    name: &str,
    service: &Router,
    authorization: Option<&str>,
    want: StatusCode,
) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let answer = runtime
        .block_on(service.clone().oneshot(setup::request(authorization)))
        .expect("an answer");
    assert_eq!(answer.status(), want, "{name}");
    group.bench_function(name, |b| {
        b.to_async(&runtime).iter_batched(
            || (service.clone(), setup::request(authorization)),
            |(service, request)| async { black_box(service.oneshot(request).await) },
            BatchSize::SmallInput,
        );
    });
}

criterion_group!(benches, mint, router, chain);
criterion_main!(benches);
