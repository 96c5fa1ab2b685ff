//! Start, shutdown, configuration reloads, panics, and restricted environments.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::clock::{Clocks, Timed};
use crate::configs::{by_endpoint, by_endpoint_url, by_jwt, one_extractor};
use crate::service::{Service, Setup, tail};
use crate::settings::ConfigBuilder;
use crate::tokens::{hs256, minted};
use crate::upstream::{Act, Upstream, json as json_answer, ok};
use crate::wire::{LISTED, Wire, bearer, post, request};

fn good(subject: &str) -> Vec<u8> {
    post(&bearer(&hs256(&json!({"sub": subject}))))
}

/// Sends requests on separate connections, and waits until all of them are waiting for the backend. Returns the tasks
/// that receive the response statuses.
async fn under_way(s: &Arc<Service>, count: usize) -> JoinSet<Option<u16>> {
    let mut tasks = JoinSet::new();
    for n in 0..count {
        let address = s.address;
        tasks.spawn(async move {
            let mut wire = Wire::connect(address).await;
            let asked = post(&format!("Cookie: sid=s{n}\r\n"));
            wire.send(&asked).await;
            wire.answer(&asked).await.map(|answer| answer.status)
        });
    }
    for _ in 0..500 {
        if s.metric("rollout_token_in_flight", &[]).await >= count as f64 {
            return tasks;
        }
        sleep(Duration::from_millis(10)).await;
    }
    panic!(
        "fewer requests than expected are in flight: {}",
        tail(&s.log())
    );
}

#[tokio::test]
async fn unfinished_body_is_aborted_after_the_drain_timeout() {
    let app = Upstream::start(Act::Hang).await;
    let more = "server.drain_delay = \"100ms\"\nserver.drain_timeout = \"2s\"\nserver.request_timeout = \"2s\"\nserver.hard_stop = \"3s\"\nserver.body_timeout = \"10s\"";
    let s = Service::start(by_endpoint(app.port).with(more)).await;
    // The client never sends the rest of the body, so the request is still unfinished after the drain timeout.
    let mut wire = Wire::connect(s.address).await;
    wire.send(&post("Cookie: sid=a\r\nContent-Length: 10\r\n"))
        .await;
    sleep(Duration::from_millis(200)).await;
    let started = Instant::now();
    s.signal(Signal::TERM);
    let exit = s.exit().await;
    assert!(
        started.elapsed() < Duration::from_secs(6),
        "{:?}",
        started.elapsed()
    );
    assert_eq!(exit.code(), Some(1));
    assert!(s.log().contains("drain_forced"), "{}", tail(&s.log()));
}

#[tokio::test]
async fn second_termination_signal_stops_the_process_at_once() {
    for second in [Signal::TERM, Signal::INT] {
        let app = Upstream::start(Act::Hang).await;
        let s = Service::start(by_endpoint(app.port)).await;
        let _crowd = under_way(&s, 3).await;
        s.signal(Signal::TERM);
        sleep(Duration::from_millis(200)).await;
        let started = Instant::now();
        s.signal(second);
        let exit = s.exit().await;
        assert!(
            started.elapsed() < Duration::from_secs(1) && exit.code() == Some(1),
            "{:?} {exit:?}",
            started.elapsed()
        );
    }
}

#[tokio::test]
async fn silent_connections_do_not_delay_the_shutdown() {
    let s = Service::start(by_jwt().with("server.drain_delay = '200ms'")).await;
    let mut wires = Vec::new();
    for n in 0..100 {
        let mut wire = Wire::connect(s.address).await;
        if n % 3 == 1 {
            wire.send(b"POST /rollout/token HTTP/1.1\r\nHost: a").await;
        } else if n % 3 == 2 {
            let asked = b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n";
            wire.send(asked).await;
            wire.answer(asked).await;
        }
        wires.push(wire);
    }
    let started = Instant::now();
    s.signal(Signal::TERM);
    let exit = s.exit().await;
    assert!(
        exit.code() == Some(0) && started.elapsed() < Duration::from_secs(2),
        "{exit:?} after {:?}",
        started.elapsed()
    );
}

#[tokio::test]
async fn keep_alive_connection_is_closed_after_its_next_answer_during_the_drain() {
    let s = Service::start(by_jwt().with("server.drain_delay = '2s'")).await;
    let asked = String::from_utf8(good("ann"))
        .expect("text")
        .replace("Connection: close\r\n", "");
    let mut wire = Wire::connect(s.address).await;
    wire.send(asked.as_bytes()).await;
    assert_eq!(
        wire.answer(asked.as_bytes())
            .await
            .expect("an answer")
            .header("connection"),
        None
    );
    s.signal(Signal::TERM);
    sleep(Duration::from_millis(100)).await;
    wire.send(asked.as_bytes()).await;
    let answer = wire.answer(asked.as_bytes()).await.expect("an answer");
    assert_eq!(
        (answer.status, answer.header("connection")),
        (200, Some("close"))
    );
    wire.closed().await;
    assert_eq!(s.exit().await.code(), Some(0));
}

/// The metric that counts configuration reloads, by `result`.
const RELOADS: &str = "rollout_token_config_reloads_total";

async fn with_file(toml: &str) -> (Arc<Service>, tempfile::NamedTempFile) {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), toml).expect("a file");
    let setup = Setup::new("")
        .arguments(&["--config", &file.path().display().to_string()])
        .env("ROLLOUT__ORIGINS__ALLOWED", None);
    (Service::start_with(&setup).await, file)
}

fn with_origin(origin: &str) -> ConfigBuilder {
    by_jwt().with(format!(
        "log.level = 'info'\norigins.allowed = ['{origin}']"
    ))
}

#[tokio::test]
async fn invalid_reload_keeps_the_old_configuration() {
    let (s, file) = with_file(&with_origin(LISTED).to_string()).await;
    for (n, bad) in [
        "garbage = [".to_owned(),
        String::new(),
        "server.listen = 5".to_owned(),
        with_origin("*").to_string(),
        by_jwt()
            .with("extractors.web.algorithms = ['none']")
            .to_string(),
    ]
    .into_iter()
    .enumerate()
    {
        std::fs::write(file.path(), bad).expect("a file");
        s.signal(Signal::HUP);
        s.logs("config_reload_failed", n + 1).await;
        let asked = post(&format!(
            "{}Origin: {LISTED}\r\n",
            bearer(&hs256(&json!({})))
        ));
        s.expect("the old one", &asked, &["200"]).await;
    }
    assert!(
        s.metric("rollout_token_config_reloads_total", &["error"])
            .await
            >= 5.0
    );
    std::fs::write(
        file.path(),
        with_origin("https://other.example").to_string(),
    )
    .expect("a file");
    s.signal(Signal::HUP);
    s.logs("config_reloaded", 1).await;
    s.expect(
        "the new one",
        &request(
            "POST /rollout/token HTTP/1.1",
            &format!(
                "{}Origin: https://third.example\r\n",
                bearer(&hs256(&json!({})))
            ),
        ),
        &["403 origin_not_allowed"],
    )
    .await;
    s.finish().await;
}

#[tokio::test]
async fn no_answer_mixes_old_and_new_configuration_during_a_reload() {
    // Each reload changes the allowed origin and a claim: no response may combine an old value with a new one.
    let config = |version: &str| {
        with_origin(&format!("https://{version}.example"))
            .with(format!("token.claims.version = '{version}'"))
            .to_string()
    };
    let (s, file) = with_file(&config("one")).await;
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let mut load = JoinSet::new();
    for lane in 0..8 {
        let (address, stop) = (s.address, stop.clone());
        load.spawn(async move {
            let (mut seen, version) = (0, if lane % 2 == 0 { "one" } else { "two" });
            while !stop.load(std::sync::atomic::Ordering::SeqCst) {
                let mut stream = TcpStream::connect(address).await.expect("a connection");
                let asked = post(&format!(
                    "{}Origin: https://{version}.example\r\n",
                    bearer(&hs256(&json!({})))
                ));
                stream.write_all(&asked).await.expect("a request");
                let mut answer = String::new();
                stream.read_to_string(&mut answer).await.expect("an answer");
                let allowed = answer.contains(&format!(
                    "access-control-allow-origin: https://{version}.example"
                ));
                assert_eq!(answer.starts_with("HTTP/1.1 200"), allowed, "{answer}");
                if allowed {
                    let body = answer.split_once("\r\n\r\n").expect("a body").1;
                    let token = minted(&serde_json::from_str(body).expect("JSON"));
                    assert_eq!(token["version"], version);
                    seen += 1;
                }
            }
            seen
        });
    }
    for n in 0..4 {
        let reloads = s.metric(RELOADS, &["ok"]).await;
        std::fs::write(file.path(), config(if n % 2 == 0 { "two" } else { "one" }))
            .expect("a file");
        // A hundred SIGHUPs at once cause only a few reloads.
        for _ in 0..100 {
            s.signal(Signal::HUP);
        }
        // The new configuration is used once two reads of the file, one second apart, return the same content.
        while s.metric(RELOADS, &["ok"]).await <= reloads {
            sleep(Duration::from_millis(20)).await;
        }
    }
    stop.store(true, std::sync::atomic::Ordering::SeqCst);
    let seen = load.join_all().await;
    assert!(seen.iter().all(|seen| *seen > 0), "{seen:?}");
    s.does_not_count();
    s.finish().await;
}

/// Starts a service with an extractor that panics on request. The release binary does not contain this extractor.
pub async fn panicking_service() -> Arc<Service> {
    let mut setup = Setup::new(one_extractor("panics", "panics", ""));
    setup.program = env!("CARGO_BIN_EXE_panicking-service").into();
    Service::start_with(&setup).await
}

#[tokio::test]
async fn panic_is_500_and_the_next_request_is_served() {
    let s = panicking_service().await;
    for _ in 0..5 {
        s.expect(
            "in an extractor",
            &post("X-Panic: at-once\r\n"),
            &["500 internal"],
        )
        .await;
        s.expect(
            "after a wait",
            &post("X-Panic: later\r\n"),
            &["500 internal"],
        )
        .await;
        s.expect(
            "in a task",
            &post("X-Panic: in-a-task\r\n"),
            &["503 session_backend_unavailable"],
        )
        .await;
        s.expect(
            "under a lock",
            &post("X-Panic: locked\r\n"),
            &["500 internal"],
        )
        .await;
        s.expect("then", &post("X-Panic: no\r\n"), &["200"]).await;
    }
    assert!(s.metric("rollout_token_panics_total", &[]).await >= 20.0);
    s.logs("\"location\"", 20).await;
    s.finish().await;
}

/// The test sets the service's clocks ahead instead of waiting for ten minutes.
#[tokio::test]
async fn service_stays_ready_during_a_backend_outage_of_ten_minutes() {
    let app = Upstream::start(Act::Reset).await;
    let t = Timed::start(by_endpoint(app.port), Clocks::Both).await;
    let s = &t.service;
    for seconds in (0..=600).step_by(10) {
        t.ahead(seconds).await;
        s.expect(
            "down",
            &post("Cookie: sid=a\r\n"),
            &["503 session_backend_unavailable"],
        )
        .await;
        assert_eq!(s.ready().await.status, 200);
    }
    app.does(ok("{\"sub\":\"ann\"}"));
    t.ahead(605).await;
    assert_eq!(
        s.expect("back", &post("Cookie: sid=a\r\n"), &["200"])
            .await
            .subject(),
        "ann"
    );
    drop(app);
    s.finish().await;
}

#[tokio::test]
async fn metrics_and_debug_paths_on_the_public_port_are_404() {
    let s = Service::start(by_jwt()).await;
    for path in [
        "/metrics",
        "/debug",
        "/config",
        "/debug/pprof",
        "/admin",
        "/env",
        "/actuator",
        "/status",
        "/server-status",
        "/dev/samples",
        "/dev.js",
        "/metrics/",
    ] {
        s.expect(
            path,
            &request(&format!("GET {path} HTTP/1.1"), ""),
            &["404 not_found"],
        )
        .await;
    }
    // The admin listener does not serve the token route.
    let mut wire = Wire::connect(s.admin).await;
    let asked = good("ann");
    wire.send(&asked).await;
    let answer = wire.answer(&asked).await.expect("an answer");
    assert_eq!(answer.outcome(), "404 not_found");
    s.count(&[answer]);
    assert!(s.admin.ip().is_loopback());
    s.finish().await;
}

#[tokio::test]
async fn signals_other_than_termination_do_not_stop_the_service() {
    let s = Service::start(by_jwt()).await;
    for signal in [
        Signal::PIPE,
        Signal::USR1,
        Signal::USR2,
        Signal::WINCH,
        Signal::CHILD,
        Signal::URG,
        Signal::CONT,
    ] {
        s.signal(signal);
        s.expect("after a signal", &good("ann"), &["200"]).await;
    }
    let own = Service::start(by_jwt().with("server.drain_delay = '100ms'")).await;
    own.signal(Signal::QUIT);
    assert_eq!(own.exit().await.code(), Some(0));
    s.finish().await;
}

#[tokio::test]
async fn service_answers_without_writable_files_and_with_a_tenth_of_a_cpu() {
    // The service cannot write to files, and has no home or temporary directory. Later, SIGSTOP and SIGCONT limit it
    // to a tenth of a CPU.
    let setup = Setup::new(by_jwt())
        .launcher(&["env", "-C", "/proc", "prlimit", "--fsize=0", "--core=0"])
        .env("TMPDIR", Some("/nonexistent"))
        .env("HOME", Some("/nonexistent"));
    let s = Service::start_with(&setup).await;
    for n in 0..50 {
        s.expect("in a narrow place", &good(&format!("user-{n}")), &["200"])
            .await;
    }
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let (slowed, stopping) = (s.clone(), stop.clone());
    let slowing = tokio::spawn(async move {
        while !stopping.load(std::sync::atomic::Ordering::SeqCst) {
            slowed.signal(Signal::STOP);
            sleep(Duration::from_millis(90)).await;
            slowed.signal(Signal::CONT);
            sleep(Duration::from_millis(10)).await;
        }
    });
    for n in 0..30 {
        let answer = timeout(Duration::from_secs(5), s.one(&good(&format!("user-{n}"))))
            .await
            .expect("an answer");
        assert_eq!(answer.status, 200);
    }
    stop.store(true, std::sync::atomic::Ordering::SeqCst);
    slowing.await.expect("the end");
    assert!(s.usage().resident_kib < 64 * 1024);
    s.finish().await;
}

#[tokio::test]
async fn port_in_use_is_a_clear_error_with_exit_code_1() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0")
        .expect("a port")
        .local_addr()
        .expect("an address");
    let held = std::net::TcpListener::bind(taken).expect("the port");
    for name in ["ROLLOUT__SERVER__LISTEN", "ROLLOUT__SERVER__ADMIN_LISTEN"] {
        let mut setup = Setup::new(by_jwt()).env(name, None);
        setup.environment.push((name.to_owned(), taken.to_string()));
        let (code, text) = setup.refusal().await;
        assert!(
            code == 1 && text.contains("server.") && text.contains("cannot listen"),
            "{code}: {text}"
        );
    }
    drop(held);
    for address in ["192.0.2.1:0", "[2001:db8::1]:0"] {
        let mut setup = Setup::new(by_jwt()).env("ROLLOUT__SERVER__LISTEN", None);
        setup
            .environment
            .push(("ROLLOUT__SERVER__LISTEN".to_owned(), address.to_owned()));
        let (code, text) = setup.refusal().await;
        assert!(
            code == 1 && text.contains("server.listen"),
            "{code}: {text}"
        );
    }
    // The service starts even if a backend's host name does not resolve.
    let s = Service::start(by_endpoint_url("https://app.invalid/me")).await;
    s.expect(
        "no name",
        &post("Cookie: sid=a\r\n"),
        &["503 session_backend_unavailable"],
    )
    .await;
    s.finish().await;
}

#[tokio::test]
async fn two_thousand_queued_connections_are_answered_after_sigcont() {
    let limits = "server.max_connections = 2100\nlog.level = 'info'";
    let s = Service::start(by_jwt().with(limits)).await;
    // The process is stopped (SIGSTOP), so all connections wait in the kernel's accept queue.
    s.signal(Signal::STOP);
    let mut tasks = JoinSet::new();
    for n in 0..2000_usize {
        let (address, asked) = (s.address, good("ann"));
        tasks.spawn(async move {
            let from = [127, 0, 4, u8::try_from(n % 200).expect("small") + 1];
            let mut wire = Wire::connect_from(from, address).await;
            wire.send(&asked).await;
            wire.answer(&asked).await.map(|answer| answer.status)
        });
    }
    sleep(Duration::from_secs(1)).await;
    s.signal(Signal::CONT);
    let answers = tasks.join_all().await;
    let lost = answers
        .iter()
        .filter(|status| **status != Some(200))
        .count();
    assert_eq!(lost, 0);
    s.does_not_count();
    s.finish().await;
}

mod slow {
    use super::*;

    #[tokio::test]
    async fn in_flight_requests_finish_after_sigterm() {
        let app = Upstream::start(Act::Late(
            Duration::from_millis(1500),
            json_answer("{\"sub\":\"ann\"}"),
        ))
        .await;
        let s = Service::start(by_endpoint(app.port).with("server.drain_delay = '3s'")).await;
        // At most 64 backend calls run concurrently, so none of these 60 requests waits in the queue.
        let mut tasks = under_way(&s, 60).await;
        app.does(ok("{\"sub\":\"ann\"}"));
        s.signal(Signal::TERM);
        for _ in 0..200 {
            if s.ready().await.outcome() == "503 draining" {
                break;
            }
            sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(s.ready().await.outcome(), "503 draining");
        // New requests are answered during the drain delay, because load balancers need time to stop sending them.
        for n in 0..40 {
            let answer = s
                .expect(
                    "during the delay",
                    &post(&format!("Cookie: sid=late-{n}\r\n")),
                    &["200"],
                )
                .await;
            assert_eq!(answer.header("connection"), Some("close"));
        }
        while let Some(status) = tasks.join_next().await {
            let status = status.expect("a request");
            assert_eq!(status, Some(200));
        }
        let exit = s.exit().await;
        assert_eq!(exit.code(), Some(0), "{}", tail(&s.log()));
        assert!(TcpStream::connect(s.address).await.is_err());
    }

    /// A simulated load balancer sends 500 requests per second, and stops using an instance one second after SIGTERM.
    #[tokio::test]
    async fn rolling_restart_loses_no_request() {
        let config = by_jwt().with("server.drain_delay = '2s'\nlog.level = 'info'");
        let mut instances = vec![Service::start(&config).await, Service::start(&config).await];
        let addresses = Arc::new(std::sync::Mutex::new(vec![
            instances[0].address,
            instances[1].address,
        ]));
        let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let mut load = JoinSet::new();
        for lane in 0..25_usize {
            let (addresses, stop) = (addresses.clone(), stop.clone());
            load.spawn(async move {
                let (mut sent, mut lost) = (0_u64, 0_u64);
                let asked = String::from_utf8(good(&format!("user-{lane}")))
                    .expect("text")
                    .replace("Connection: close\r\n", "");
                let mut kept: Option<(std::net::SocketAddr, Wire)> = None;
                let mut tick = tokio::time::interval(Duration::from_millis(50));
                while !stop.load(std::sync::atomic::Ordering::SeqCst) {
                    tick.tick().await;
                    let address = {
                        let all = addresses.lock().expect("addresses");
                        all[(lane + usize::try_from(sent).expect("small")) % all.len()]
                    };
                    // Reuse the kept connection if it goes to this instance.
                    let mut wire = match kept.take() {
                        Some((of, wire)) if of == address => wire,
                        _ => {
                            let Ok(wire) = Wire::try_connect(address).await else {
                                (sent, lost) = (sent + 1, lost + 1);
                                continue;
                            };
                            wire
                        }
                    };
                    wire.send(asked.as_bytes()).await;
                    let answer = wire.answer(asked.as_bytes()).await;
                    sent += 1;
                    match answer {
                        Some(answer) if answer.status == 200 => {
                            if answer.header("connection") != Some("close") {
                                kept = Some((address, wire));
                            }
                        }
                        _ => lost += 1,
                    }
                }
                (sent, lost)
            });
        }
        for _ in 0..2 {
            sleep(Duration::from_secs(1)).await;
            let new = Service::start(&config).await;
            let old = instances.remove(0);
            old.signal(Signal::TERM);
            sleep(Duration::from_secs(1)).await;
            {
                let mut all = addresses.lock().expect("addresses");
                all.retain(|address| *address != old.address);
                all.push(new.address);
            }
            instances.push(new);
            assert_eq!(old.exit().await.code(), Some(0), "{}", tail(&old.log()));
        }
        sleep(Duration::from_millis(500)).await;
        stop.store(true, std::sync::atomic::Ordering::SeqCst);
        let (sent, lost) = load
            .join_all()
            .await
            .into_iter()
            .fold((0, 0), |(sent, lost), (s, l)| (sent + s, lost + l));
        println!("{sent} requests during two restarts, {lost} of them lost");
        assert!(lost == 0 && sent > 1000, "{lost} of {sent} lost");
        for instance in instances {
            instance.does_not_count();
            instance.finish().await;
        }
    }
}
