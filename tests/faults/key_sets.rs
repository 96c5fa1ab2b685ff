//! Fetches of identity providers' key sets (JWKS): outages, malformed responses and key rotation.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use aws_lc_rs::rsa::KeySize;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::clock::{Clocks, Timed};
use crate::configs::by_jwks_url;
use crate::sentinels::UPSTREAM_SECRET;
use crate::service::{Service, tail};
use crate::settings::ConfigBuilder;
use crate::tokens::{Signer, claims, encode, jwks, now};
use crate::upstream::{Act, Upstream, answer, json as json_answer, ok};
use crate::wire::{Answer, bearer, post};

const INVALID: &[&str] = &["401 session_invalid"];
const UNKNOWN: &[&str] = &["503 session_backend_unavailable"];

fn config(port: u16) -> ConfigBuilder {
    by_jwks_url(&format!("http://127.0.0.1:{port}/keys")).with("log.level = 'info'")
}

/// A response with a key set and `max-age=0`, which the service raises to its minimum cache lifetime.
fn keys(signers: &[&Signer]) -> Act {
    let body = jwks(
        &signers
            .iter()
            .map(|signer| signer.jwk())
            .collect::<Vec<_>>(),
    );
    Act::Say(answer(
        "200 OK",
        "Content-Type: application/json\r\nCache-Control: max-age=0\r\n",
        &body,
    ))
}

fn by(signer: &Signer) -> Vec<u8> {
    // The token must not expire when a test sets the clock ahead.
    post(&bearer(&signer.token(&json!({"exp": now() + 100_000}))))
}

fn made_up(kid: &str) -> Vec<u8> {
    let header = json!({"alg": "ES256", "kid": kid}).to_string();
    let token = format!(
        "{}.{}.{}",
        encode(header),
        encode(claims(&json!({})).to_string()),
        encode([7; 64])
    );
    post(&bearer(&token))
}

/// Repeats the request until it has this outcome, because keys are fetched in the background.
async fn until(s: &Service, asked: &[u8], outcome: &str) -> Answer {
    for _ in 0..200 {
        let answer = s.one(asked).await;
        if answer.outcome() == outcome {
            return answer;
        }
        sleep(Duration::from_millis(20)).await;
    }
    panic!("never {outcome}: {}", tail(&s.log()));
}

#[tokio::test]
async fn ten_thousand_made_up_kids_cause_one_fetch_per_cooldown() {
    let signer = Signer::p256("good");
    let provider = Upstream::start(keys(&[&signer])).await;
    let s = Service::start(config(provider.port)).await;
    until(&s, &by(&signer), "200").await;
    let (before, started) = (s.usage().ticks, Instant::now());
    let mut tasks = JoinSet::new();
    for part in 0..20 {
        let s = s.clone();
        tasks.spawn(async move {
            let mut busy = 0;
            for n in 0..500 {
                let asked = made_up(&format!("made-up-{part}-{n}"));
                let answer = s
                    .expect(
                        "made up",
                        &asked,
                        &["401 session_invalid", "503 session_backend_unavailable"],
                    )
                    .await;
                busy += usize::from(answer.status == 503);
            }
            busy
        });
    }
    let busy: usize = tasks.join_all().await.iter().sum();
    // The service may make one initial fetch, and one fetch for unknown key ids per cooldown of 30 s.
    let allowed = 2 + usize::try_from(started.elapsed().as_secs() / 30).expect("a number");
    let fetches = provider.take_requests().len();
    assert!(fetches <= allowed, "{fetches} fetches, {allowed} allowed");
    assert!(busy <= 100, "{busy} got 503");
    let each = (s.usage().ticks - before) * 10_000 / 10_000;
    assert!(each <= 5000, "{each} µs each");
    s.expect("good", &by(&signer), &["200"]).await;
    drop(provider);
    s.finish().await;
}

#[tokio::test]
async fn thousand_requests_without_cached_keys_share_one_fetch() {
    let signer = Signer::p256("good");
    let Act::Say(set) = keys(&[&signer]) else {
        panic!("`keys` must return `Act::Say`")
    };
    let provider = Upstream::start(Act::Late(Duration::from_millis(700), set)).await;
    // At most half of `max_in_flight` requests may wait for the provider.
    let s = Service::start(config(provider.port).with("server.max_in_flight = 4000")).await;
    let asked = Arc::new(by(&signer));
    let mut tasks = JoinSet::new();
    for _ in 0..1000 {
        let (s, asked) = (s.clone(), asked.clone());
        tasks.spawn(async move { s.expect("cold", &asked, &["200"]).await });
    }
    tasks.join_all().await;
    assert_eq!(provider.take_requests().len(), 1);
    drop(provider);
    s.finish().await;
}

#[tokio::test]
async fn rotated_key_is_accepted_after_the_fetch_cooldown() {
    let (old, new) = (Signer::p256("old"), Signer::p256("new"));
    let provider = Upstream::start(keys(&[&old])).await;
    let t = Timed::start(config(provider.port), Clocks::Both).await;
    let s = &t.service;
    until(s, &by(&old), "200").await;
    provider.does(keys(&[&old, &new]));
    // During the cooldown the keys are not fetched again.
    s.expect("too early", &by(&new), INVALID).await;
    t.ahead(31).await;
    until(s, &by(&new), "200").await;
    s.expect("the old one", &by(&old), &["200"]).await;
    // The provider withdraws the old key: its key set no longer contains it.
    provider.does(keys(&[&new]));
    t.ahead(70).await;
    until(s, &by(&old), "401 session_invalid").await;
    s.expect("the new one", &by(&new), &["200"]).await;
    drop(provider);
    s.finish().await;
}

#[tokio::test]
async fn stale_keys_are_used_during_an_outage_until_they_are_too_old() {
    let signer = Signer::p256("good");
    let provider = Upstream::start(Act::Close).await;
    let t = Timed::start(config(provider.port), Clocks::Both).await;
    let s = &t.service;
    s.expect("never loaded", &by(&signer), UNKNOWN).await;
    let ready = s.ready().await;
    assert_eq!(ready.outcome(), "503 session_backend_unavailable");
    provider.does(keys(&[&signer]));
    t.ahead(2).await;
    until(s, &by(&signer), "200").await;
    provider.does(Act::Close);
    s.expect("down, fresh", &by(&signer), &["200"]).await;
    t.ahead(40).await;
    s.expect("down, stale", &by(&signer), &["200"]).await;
    t.ahead(1000).await;
    s.expect("down for 1,000 s, stale", &by(&signer), &["200"])
        .await;
    sleep(Duration::from_millis(200)).await;
    assert!(
        s.metric("rollout_token_jwks_refresh_total", &["unreachable"])
            .await
            >= 1.0
    );
    assert!(s.metric("rollout_token_jwks_age_seconds", &[]).await >= 900.0);
    assert_eq!(s.ready().await.status, 200);
    t.ahead(4000).await;
    until(s, &by(&signer), "503 session_backend_unavailable").await;
    s.expect("down, keys too old", &by(&signer), UNKNOWN).await;
    provider.does(keys(&[&signer]));
    t.ahead(4040).await;
    until(s, &by(&signer), "200").await;
    drop(provider);
    s.finish().await;
}

/// Checks that a service with usable keys keeps them if the next fetches get these responses. For each response, the
/// clock is set ahead, so that a fetch is due.
async fn keeps_its_keys(bad: Vec<(&'static str, Act)>) {
    let signer = Signer::p256("good");
    let provider = Upstream::start(keys(&[&signer])).await;
    let t = Timed::start(config(provider.port), Clocks::Both).await;
    let s = &t.service;
    until(s, &by(&signer), "200").await;
    // All responses together may increase memory use by at most 1 MiB per response.
    let (bound, mut ahead) = (s.usage().resident_kib + 1024 * bad.len() as u64, 0);
    for (label, act) in bad {
        provider.does(act);
        provider.take_requests();
        let failed = s.metric("rollout_token_jwks_refresh_total", &[]).await;
        ahead += 35;
        t.ahead(ahead).await;
        for _ in 0..300 {
            s.expect(label, &by(&signer), &["200"]).await;
            let refreshes = s.metric("rollout_token_jwks_refresh_total", &[]).await;
            if refreshes > failed {
                break;
            }
            sleep(Duration::from_millis(20)).await;
        }
        assert!(
            s.metric("rollout_token_jwks_refresh_total", &[]).await > failed,
            "{label}: no fetch"
        );
        assert_eq!(provider.take_requests().len(), 1, "{label}");
        s.expect(label, &by(&signer), &["200"]).await;
    }
    assert!(
        s.metric("rollout_token_jwks_refresh_total", &["result=\"ok\""])
            .await
            < 2.0,
        "an unusable key set was counted as a successful refresh"
    );
    assert!(s.usage().resident_kib < bound);
    provider.does(keys(&[&signer]));
    t.ahead(ahead + 35).await;
    until(s, &by(&signer), "200").await;
    drop(provider);
    s.finish().await;
}

#[tokio::test]
async fn old_keys_stay_in_use_after_an_unusable_key_set_answer() {
    let other = Signer::p256("other");
    let set = jwks(&[other.jwk()]);
    let page = answer(
        "200 OK",
        "Content-Type: text/html\r\n",
        "<html>maintenance</html>",
    );
    let cut = json_answer(&set)[..200].to_vec();
    let text = |text: &str| Act::SayAndClose(text.as_bytes().to_vec());
    keeps_its_keys(vec![
        ("500", Act::Say(answer("500 Oops", "", &set))),
        ("404", Act::Say(answer("404 Not Found", "", &set))),
        (
            "302",
            Act::Say(answer("302 Found", "Location: /elsewhere\r\n", &set)),
        ),
        ("204", Act::Say(answer("204 No Content", "", ""))),
        ("206", Act::Say(answer("206 Partial Content", "", &set))),
        ("a page", Act::Say(page)),
        ("{}", ok("{}")),
        ("no keys", ok("{\"keys\":[]}")),
        ("null", ok("null")),
        ("keys null", ok("{\"keys\":null}")),
        ("keys twice", ok(&format!("{{\"keys\":[],{}", &set[1..]))),
        ("keys a map", ok("{\"keys\":{}}")),
        ("numbers", ok("{\"keys\":[1,2,3]}")),
        ("truncated", Act::SayAndClose(cut)),
        (
            "longer than announced",
            text(&format!(
                "HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n{set}"
            )),
        ),
        (
            "shorter than announced",
            text(&format!(
                "HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n{set}"
            )),
        ),
        (
            "two lengths",
            text(&format!(
                "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 9\r\n\r\n{set}"
            )),
        ),
        ("no HTTP", text("keys, please")),
        ("reset", Act::Reset),
        ("closed", Act::Close),
        ("deep", ok(&format!("{{\"keys\":{}", "[".repeat(100_000)))),
        (
            "not UTF-8",
            Act::Say(
                [
                    b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n".as_slice(),
                    b"\xff\xfe{}",
                ]
                .concat(),
            ),
        ),
    ])
    .await;
}

#[tokio::test]
async fn endless_key_set_answer_is_aborted_and_the_old_keys_stay_in_use() {
    let head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n";
    let with = |more: &[u8]| [head.as_slice(), more].concat();
    let long = with(format!("Content-Length: {}\r\n\r\n", 10 * 1024 * 1024).as_bytes());
    keeps_its_keys(vec![
        ("10 MiB", Act::Flood(long, vec![b' '; 64 * 1024])),
        ("endless", Act::Flood(with(b"\r\n"), vec![b' '; 64 * 1024])),
        (
            "endless chunks",
            Act::Flood(
                with(b"Transfer-Encoding: chunked\r\n\r\n"),
                [b"10000\r\n".as_slice(), &vec![b' '; 0x10000], b"\r\n"].concat(),
            ),
        ),
        (
            "endless headers",
            Act::Flood(with(b""), b"X-A: b\r\n".repeat(1000)),
        ),
        (
            "a byte a second",
            Act::Drip(
                with(b"Content-Length: 100\r\n\r\n"),
                vec![b' '; 100],
                Duration::from_secs(1),
            ),
        ),
        (
            "a response head that arrives byte by byte",
            Act::Drip(Vec::new(), with(b"\r\n"), Duration::from_millis(200)),
        ),
        ("hangs", Act::Hang),
        (
            "gzip",
            Act::Say(
                [
                    with(b"Content-Encoding: gzip\r\nContent-Length: 10\r\n\r\n"),
                    b"\x1f\x8b\x08\0\0\0\0\0\0\0".to_vec(),
                ]
                .concat(),
            ),
        ),
    ])
    .await;
}

#[tokio::test]
async fn usable_keys_are_used_despite_invalid_duplicate_or_excess_keys() {
    let (good, twin) = (Signer::p256("good"), Signer::p256("good"));
    let rsa = Signer::rsa("rsa", KeySize::Rsa2048);
    let broken = [
        json!({}),
        json!(5),
        json!(null),
        json!({"kty": "EC"}),
        json!({"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA", "kid": "short"}),
        json!({"kty": "RSA", "n": "", "e": ""}),
        json!({"kty": 5}),
        json!([]),
    ];
    let set: Vec<Value> = broken.into_iter().chain([good.jwk(), rsa.jwk()]).collect();
    let provider = Upstream::start(ok(&jwks(&set))).await;
    let s = Service::start(config(provider.port)).await;
    until(&s, &by(&good), "200").await;
    s.expect("a usable key after unusable keys", &by(&rsa), &["200"])
        .await;
    s.expect(
        "an unusable key",
        &made_up("short"),
        &["401 session_invalid", "503 session_backend_unavailable"],
    )
    .await;
    drop(provider);
    s.finish().await;

    // Two keys have the same `kid`, as in a rotation that reuses it: a token signed with either key is accepted.
    let provider = Upstream::start(ok(&jwks(&[good.jwk(), twin.jwk()]))).await;
    let s = Service::start(config(provider.port)).await;
    until(&s, &by(&good), "200").await;
    s.expect("the twin", &by(&twin), &["200"]).await;
    s.expect("neither", &by(&Signer::p256("good")), INVALID)
        .await;
    drop(provider);
    s.finish().await;

    // A key set with 5,000 of these small keys is shorter than the limit of 512 KiB; with 10,000 it is longer.
    let small = |n: usize| json!({"kty": "OKP", "crv": "Ed25519", "x": "A".repeat(43), "kid": n.to_string()});
    let many: Vec<Value> = [good.jwk()]
        .into_iter()
        .chain((0..5000).map(small))
        .collect();
    let provider = Upstream::start(ok(&jwks(&many))).await;
    let s = Service::start(config(provider.port)).await;
    until(&s, &by(&good), "200").await;
    s.expect(
        "a key after the hundredth",
        &made_up("4000"),
        &["401 session_invalid", "503 session_backend_unavailable"],
    )
    .await;
    assert!(s.usage().resident_kib < s.baseline().resident_kib + 8192);
    drop(provider);
    s.finish().await;
    let vast: Vec<Value> = [good.jwk()]
        .into_iter()
        .chain((0..10_000).map(small))
        .collect();
    let provider = Upstream::start(ok(&jwks(&vast))).await;
    let s = Service::start(config(provider.port)).await;
    s.expect("longer than 512 KiB", &by(&good), UNKNOWN).await;
    drop(provider);
    s.finish().await;
}

#[tokio::test]
async fn token_without_kid_is_verified_with_at_most_three_keys() {
    let (one, other) = (Signer::p256("one"), Signer::p256("other"));
    let rsa = Signer::rsa("rsa", KeySize::Rsa2048);
    let nameless = |signer: &Signer| {
        let header = json!({"alg": signer.alg()}).to_string();
        post(&bearer(
            &signer.token_raw(&header, claims(&json!({})).to_string()),
        ))
    };
    let provider = Upstream::start(ok(&jwks(&[one.jwk()]))).await;
    let s = Service::start(config(provider.port)).await;
    until(&s, &nameless(&one), "200").await;
    s.expect("another key", &nameless(&other), INVALID).await;
    s.expect("another type", &nameless(&rsa), INVALID).await;
    drop(provider);
    s.finish().await;

    let many = [
        rsa.jwk(),
        other.jwk(),
        one.jwk(),
        Signer::p256("a").jwk(),
        Signer::p256("b").jwk(),
    ];
    let provider = Upstream::start(ok(&jwks(&many))).await;
    let s = Service::start(config(provider.port)).await;
    for signer in [&rsa, &one, &other] {
        until(&s, &nameless(signer), "200").await;
    }
    drop(provider);
    s.finish().await;
    // If four keys match, the fourth is not tried.
    let many: Vec<Value> = (0..3)
        .map(|n| Signer::p256(&n.to_string()).jwk())
        .chain([one.jwk()])
        .collect();
    let provider = Upstream::start(ok(&jwks(&many))).await;
    let s = Service::start(config(provider.port)).await;
    until(&s, &by(&one), "200").await;
    s.expect("the fourth", &nameless(&one), INVALID).await;
    drop(provider);
    s.finish().await;
}

#[tokio::test]
async fn no_request_fails_during_a_key_refresh() {
    let always = Arc::new(Signer::p256("always"));
    let (even, odd) = (Signer::p256("even"), Signer::p256("odd"));
    let (even, odd) = (
        jwks(&[always.jwk(), even.jwk()]),
        jwks(&[odd.jwk(), always.jwk()]),
    );
    let count = Arc::new(AtomicUsize::new(0));
    let provider = Upstream::start(Act::Close).await;
    provider.decides(move |_| {
        let body = if count.fetch_add(1, Ordering::SeqCst).is_multiple_of(2) {
            &even
        } else {
            &odd
        };
        Act::Late(
            Duration::from_millis(100),
            answer("200 OK", "Cache-Control: max-age=0\r\n", body),
        )
    });
    let t = Timed::start(config(provider.port), Clocks::Both).await;
    let s = t.service.clone();
    let asked = Arc::new(by(&always));
    until(&s, &asked, "200").await;
    for round in 1..6 {
        t.ahead(round * 40).await;
        let mut tasks = JoinSet::new();
        for _ in 0..300 {
            let (s, asked) = (s.clone(), asked.clone());
            tasks.spawn(async move { s.expect("during a refresh", &asked, &["200"]).await });
        }
        tasks.join_all().await;
    }
    assert!(provider.take_requests().len() >= 4);
    drop(provider);
    s.finish().await;
}

#[tokio::test]
async fn key_set_cache_lifetime_is_at_least_30_s_and_at_most_1_h() {
    for (header, fresh_at, due_at) in [
        ("max-age=0", 20, 31),
        ("max-age=1", 20, 31),
        ("no-store", 400, 601),
        ("max-age=315360000", 2000, 3601),
        ("max-age=99999999999999999999999", 2000, 3601),
        ("max-age=-1", 400, 601),
        ("public, max-age=\"60\"", 40, 61),
        ("max-age=x", 400, 601),
        ("s-maxage=5", 400, 601),
    ] {
        let signer = Signer::p256("good");
        let body = jwks(&[signer.jwk()]);
        let provider = Upstream::start(Act::Say(answer(
            "200 OK",
            &format!("Cache-Control: {header}\r\n"),
            &body,
        )))
        .await;
        let t = Timed::start(config(provider.port), Clocks::Both).await;
        let s = &t.service;
        until(s, &by(&signer), "200").await;
        t.ahead(fresh_at).await;
        s.expect(header, &by(&signer), &["200"]).await;
        sleep(Duration::from_millis(50)).await;
        assert_eq!(
            provider.take_requests().len(),
            1,
            "{header}: the keys were fetched again after {fresh_at} s"
        );
        t.ahead(due_at).await;
        s.expect(header, &by(&signer), &["200"]).await;
        sleep(Duration::from_millis(150)).await;
        assert_eq!(
            provider.take_requests().len(),
            1,
            "{header}: the keys were not fetched again after {due_at} s"
        );
        drop(provider);
        s.finish().await;
    }
}

#[tokio::test]
async fn private_or_symmetric_key_in_a_key_set_is_not_used_or_logged() {
    let (good, bad) = (Signer::p256("good"), Signer::p256("bad"));
    for name in ["d", "k", "p", "q", "dp", "dq", "qi", "oth"] {
        let mut jwk = bad.jwk();
        jwk[name] = UPSTREAM_SECRET.into();
        let secret = json!({"kty": "oct", "kid": "oct", "alg": "HS256", "k": UPSTREAM_SECRET});
        let provider = Upstream::start(ok(&jwks(&[jwk, secret, good.jwk()]))).await;
        let s = Service::start(config(provider.port)).await;
        until(&s, &by(&good), "200").await;
        s.expect(
            name,
            &by(&bad),
            &["401 session_invalid", "503 session_backend_unavailable"],
        )
        .await;
        drop(provider);
        s.finish().await;
    }
}

#[tokio::test]
async fn unusual_but_valid_key_set_answer_is_accepted() {
    let signer = Signer::p256("good");
    let set = jwks(&[signer.jwk()]);
    let length = set.len();
    for (label, text) in [
        (
            "interim answers",
            format!(
                "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{set}"
            ),
        ),
        ("until the end", format!("HTTP/1.1 200 OK\r\n\r\n{set}")),
        ("1.0", format!("HTTP/1.0 200 OK\r\n\r\n{set}")),
        (
            "chunks and trailers",
            format!(
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{length:x}\r\n{set}\r\n0\r\nX-Trailer: y\r\n\r\n"
            ),
        ),
        (
            "no reason",
            format!("HTTP/1.1 200\r\nContent-Length: {length}\r\n\r\n{set}"),
        ),
        (
            "cookies",
            format!("HTTP/1.1 200 OK\r\nSet-Cookie: a=b\r\nContent-Length: {length}\r\n\r\n{set}"),
        ),
    ] {
        let provider = Upstream::start(Act::SayAndClose(text.into_bytes())).await;
        let s = Service::start(config(provider.port)).await;
        let asked = by(&signer);
        for _ in 0..50 {
            if s.one(&asked).await.status == 200 {
                break;
            }
            sleep(Duration::from_millis(20)).await;
        }
        s.expect(label, &asked, &["200"]).await;
        drop(provider);
        s.finish().await;
    }
}

#[tokio::test]
async fn discovery_document_with_wrong_issuer_or_unsafe_jwks_uri_is_503() {
    let signer = Signer::p256("good");
    let trap = Upstream::start(ok(&jwks(&[signer.jwk()]))).await;
    let provider = Upstream::start(Act::Close).await;
    let issuer = format!("http://127.0.0.1:{}", provider.port);
    let config = config(provider.port)
        .without("extractors.web.jwks_url")
        .without("extractors.web.issuers")
        .with(format!("extractors.web.oidc_issuer = '{issuer}'"));
    let token = post(&bearer(&signer.token(&json!({"iss": issuer}))));
    let document = |issuer: &str, uri: &str| json!({"issuer": issuer, "jwks_uri": uri}).to_string();
    for (label, body) in [
        (
            "another issuer",
            document("https://evil.example", &format!("{issuer}/keys")),
        ),
        (
            "plain http elsewhere",
            document(&issuer, "http://keys.example/keys"),
        ),
        ("a file", document(&issuer, "file:///etc/passwd")),
        (
            "a password",
            document(&issuer, &format!("http://u:p@127.0.0.1:{}/keys", trap.port)),
        ),
        ("no uri", json!({"issuer": issuer}).to_string()),
        (
            "a list",
            json!({"issuer": issuer, "jwks_uri": [format!("{issuer}/keys")]}).to_string(),
        ),
        (
            "twice",
            format!(
                "{{\"issuer\":\"{issuer}\",\"jwks_uri\":\"{issuer}/a\",\"jwks_uri\":\"{issuer}/b\"}}"
            ),
        ),
        ("not JSON", "<html>".to_owned()),
    ] {
        provider.does(ok(&body));
        let s = Service::start(&config).await;
        s.expect(label, &token, UNKNOWN).await;
        s.finish().await;
    }
    assert_eq!(trap.connections(), 0);
    let (good, set) = (
        document(&issuer, &format!("{issuer}/keys")),
        jwks(&[signer.jwk()]),
    );
    provider.decides(move |request| {
        if request.starts_with("GET /.well-known/") {
            ok(&good)
        } else {
            ok(&set)
        }
    });
    let s = Service::start(&config).await;
    until(&s, &token, "200").await;
    drop(trap);
    drop(provider);
    s.finish().await;
}
