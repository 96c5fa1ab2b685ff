//! Measures how long each extractor kind takes to read a session, from a real framework's cookie to the attributes.

#![expect(
    clippy::expect_used,
    reason = "a benchmark that cannot be set up has nothing to measure"
)]

#[path = "../tests/shared/samples.rs"]
mod samples;

use criterion::{Criterion, criterion_group, criterion_main};
use futures_util::FutureExt;
use rollout_token::session::contract;
use samples::SAMPLES;

fn sessions(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("session");
    for sample in &SAMPLES {
        let extractor = sample.extractor();
        let cookies: Vec<_> = sample
            .cookies()
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        let request = contract::request(&[("cookie", &cookies.join("; "))]);
        let look = || {
            extractor
                .extract(&request)
                .now_or_never()
                .expect("no waiting")
        };
        assert!(
            matches!(look(), Ok(Some(_))),
            "{} is no session: {:?}",
            sample.name(),
            look()
        );
        group.bench_function(sample.name(), |b| b.iter(look));
    }
    group.finish();
}

criterion_group!(benches, sessions);
criterion_main!(benches);
