//! A rolling restart under 500 requests per second loses no request, although the load balancer reacts late.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::process::Signal;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::binary::{Process, good_session};
use crate::helpers::client;
use crate::proxy::{Proxy, free_address, haproxy_to, nginx_to, service};

const PER_SECOND: u32 = 500;

/// How long the load balancer keeps sending requests to an instance that is draining.
const LAG: Duration = Duration::from_secs(1);

/// Starts an instance with a drain delay of 3 s, longer than [`LAG`]. The default is 5 s.
fn start(address: SocketAddr) -> Process {
    Process::start(service(address).env("ROLLOUT__SERVER__DRAIN_DELAY", "3s"))
}

struct Load {
    stop: Arc<AtomicBool>,
    sent: JoinHandle<Vec<Result<u16, String>>>,
}

impl Load {
    fn on(proxy: &Proxy, reuse: bool) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (url, stopped) = (proxy.url("/rollout/token"), stop.clone());
        let http = if reuse { client() } else { one_time_client() };
        let sent = tokio::spawn(async move {
            let session = good_session();
            let mut ticks = interval(Duration::from_secs(1) / PER_SECOND);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let mut requests = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                ticks.tick().await;
                let request = http.post(&url).bearer_auth(&session);
                requests.push(tokio::spawn(async move {
                    let response = request.send().await.map_err(|error| format!("{error:?}"))?;
                    let status = response.status().as_u16();
                    response
                        .bytes()
                        .await
                        .map_err(|error| format!("{error:?}"))?;
                    Ok(status)
                }));
            }
            let mut outcomes = Vec::new();
            for request in requests {
                outcomes.push(request.await.unwrap());
            }
            outcomes
        });
        Self { stop, sent }
    }

    async fn end(self, replaced: usize) {
        self.stop.store(true, Ordering::Relaxed);
        let outcomes = self.sent.await.unwrap();
        let lost: Vec<_> = outcomes
            .iter()
            .filter(|outcome| **outcome != Ok(200))
            .collect();
        println!(
            "{} requests, {} of them lost, while {replaced} instances were replaced",
            outcomes.len(),
            lost.len()
        );
        assert!(lost.is_empty(), "{:?} …", &lost[..lost.len().min(5)]);
        assert!(outcomes.len() > 1000);
    }
}

/// A client that opens a new connection for each request: nginx closes idle client connections when it is reconfigured,
/// which the service cannot prevent.
fn one_time_client() -> reqwest::Client {
    reqwest::Client::builder()
        .no_proxy()
        .pool_max_idle_per_host(0)
        .build()
        .unwrap()
}

/// Waits until this instance has issued a token, which shows that the load balancer uses it.
async fn until_used(process: &Process) {
    let url = format!("http://{}/metrics", process.admin);
    let issued = |metrics: String| {
        metrics
            .lines()
            .any(|line| line.contains(r#"outcome="issued""#))
    };
    while !issued(
        client()
            .get(&url)
            .send()
            .await
            .unwrap()
            .text()
            .await
            .unwrap(),
    ) {
        sleep(Duration::from_millis(50)).await;
    }
}

async fn ends_well(process: Process) {
    process.signal(Signal::TERM);
    let (code, log) = tokio::task::spawn_blocking(|| process.end()).await.unwrap();
    assert_eq!(code, Some(0), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn rolling_restart_behind_haproxy_health_checks_loses_no_request() {
    let addresses = [free_address(), free_address()];
    let mut instances = Vec::from(addresses.map(start));
    let proxy = Proxy::haproxy(&haproxy_to(&addresses, ""));
    let load = Load::on(&proxy, true);
    for n in 0..2 {
        until_used(&instances[1 - n]).await;
        let address = addresses[n];
        ends_well(instances.remove(n)).await;
        instances.insert(n, start(address));
        until_used(&instances[n]).await;
    }
    load.end(2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn rolling_restart_behind_nginx_with_a_stale_endpoint_list_loses_no_request() {
    let mut addresses = [free_address(), free_address()];
    let mut instances = addresses.map(start);
    let proxy = Proxy::nginx(&nginx_to(&addresses, ""));
    let load = Load::on(&proxy, false);
    for n in 0..2 {
        // As in a Kubernetes Deployment, the new instance starts before the old one stops.
        let new = free_address();
        let old = std::mem::replace(&mut instances[n], start(new));
        let left = addresses[1 - n];
        proxy.reconfigure(&nginx_to(&[left, addresses[n], new], ""));
        until_used(&instances[n]).await;
        let ended = tokio::spawn(ends_well(old));
        sleep(LAG).await;
        addresses[n] = new;
        proxy.reconfigure(&nginx_to(&addresses, ""));
        ended.await.expect("the old instance exits with code 0");
    }
    load.end(2).await;
}
