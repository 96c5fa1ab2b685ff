//! Measures how long each extractor kind that reads a framework's cookie takes, from a real cookie to the session. For
//! sessions in a store, it measures the two parts around the query: the session id in the cookie, and the stored value.

#![expect(
    clippy::expect_used,
    reason = "a benchmark that cannot be set up has nothing to measure"
)]

#[path = "../tests/shared/samples.rs"]
mod samples;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use criterion::{Criterion, criterion_group, criterion_main};
use futures_util::FutureExt;
use rollout_token::Secret;
use rollout_token::json::Value;
use rollout_token::session::contract;
use rollout_token::session::formats::{msgpack, php};
use rollout_token::session::sections::session_id::Format;
use rollout_token::session::types::CredentialSource;
use samples::SAMPLES;

const NOW: i64 = 1_800_000_000;

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

/// For each signed format: its name, the secret, and the cookie's name and value, from `tests/stores/vectors/`.
#[rustfmt::skip]
const SIGNED_IDS: [(&str, &str, &str, &str); 5] = [
    ("express_signed", "public-secret-one", "connect.sid",
        "s%3Aabc-123.QxZ9JZWtw%2Fgrh6DMZieYikgHnn9DrBKibakTuU2WZ34"),
    ("fastify_signed", "public-secret-of-32-characters-at-least", "sessionId",
        "VQfcI1JRy4wLspMI9iyclau3enQ6ddjJ.lodAkLhQo+Ib2NAIhFNB4eqnxeuuhDBZu/DgaFOiEyM"),
    ("better_auth_signed", "public-better-auth-secret-0123456789abcd", "better-auth.session_token",
        "N14qWYRsIbCnRwIbmjR59LDwH9wknlul.57VWacXlFawJvJStdeT%2Fep8UvE8Ic2t3BGAo2mJP%2B%2BI%3D"),
    ("flask_signed", "public-flask-secret-0001", "session",
        "GpXETpurG0aaynrjpTp0-RE49b0yawD8xtxwtfepotw.y1y0eFrVTz41nbc8cwo11PchHn4"),
    ("rails_signed", "pub0c1d0pub0c1d0pub0c1d0pub0c1d0pub0c1d0pub0c1d0pub0c1d0pub0c1d0pub0c1d0pub0c1d0pub0c1d0pub0c1d0pub0c1d0pub0c1d0pub0c1d0pub0c1d0",
        "session_id", "eyJfcmFpbHMiOnsibWVzc2FnZSI6Ik1RPT0iLCJleHAiOm51bGwsInB1ciI6ImNvb2tpZS5zZXNzaW9uX2lkIn19--679bacde2bdae77c17f238e1a4acf20b5f4a8231"),
];

fn signed_ids(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("session id");
    for (name, secret, cookie, value) in SIGNED_IDS {
        let format = Format::signed(name, &[Secret::new(secret)]).expect("a signed format");
        let place = CredentialSource::Cookie(cookie.to_owned());
        let open = || format.open(&place, value, NOW);
        assert!(open().is_ok(), "{name}: {:?}", open());
        group.bench_function(name, |b| b.iter(open));
    }
    group.finish();
}

type Parse = fn(&[u8]) -> Option<Value>;

/// The parsers for `payload = "json"`, `"msgpack"` and `"php"`, each with the name of the test vector whose value it
/// parses.
const STORED: [(&str, &str, Parse); 4] = [
    ("json", "flask-session-json", |value| {
        Value::parse(value).ok()
    }),
    ("msgpack", "flask-session-msgpack", msgpack::parse),
    ("php, handler php", "phpredis-php", php::session),
    (
        "php, handler php_serialize",
        "phpredis-php_serialize",
        php::session,
    ),
];

fn stored_values(criterion: &mut Criterion) {
    let vectors = include_bytes!("../tests/stores/vectors/redis-stores.json");
    let vectors: serde_json::Value = serde_json::from_slice(vectors).expect("JSON");
    let mut group = criterion.benchmark_group("stored value");
    for (name, case, parse) in STORED {
        let mut cases = vectors["cases"].as_array().expect("cases").iter();
        let case = cases.find(|found| found["name"] == case).expect("the case");
        let mut values = case["redis"].as_object().expect("keys and values").values();
        let value = values.find_map(|value| value.as_str());
        let value = STANDARD.decode(value.expect("a value")).expect("base64");
        assert!(parse(&value).is_some(), "{name}");
        group.bench_function(name, |b| b.iter(|| parse(&value)));
    }
    group.finish();
}

criterion_group!(benches, sessions, signed_ids, stored_values);
criterion_main!(benches);
