//! Resolves the host names of backends with the system's resolver.
//!
//! The system's resolver blocks a thread until the name server answers, which may be long after the call has timed out.
//! Calls of one HTTP client to the same host therefore share a look-up in progress, so that a silent name server blocks
//! only a few threads, however many requests there are. After one second, the next call starts another look-up, because
//! the resolver itself resends a lost query only after several seconds.

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tokio::sync::watch;
use tokio::time::Instant;

/// The time after the start of a look-up during which further calls share it.
const SHARED_FOR: Duration = Duration::from_secs(1);

type Found = Result<Vec<SocketAddr>, Arc<io::Error>>;

#[derive(Debug)]
pub(super) struct Resolver {
    system: fn(&str) -> io::Result<Vec<SocketAddr>>,
    /// The latest look-up of each name. Names come only from the configuration and from discovery documents, so the map
    /// stays small.
    latest: Mutex<HashMap<String, (Instant, watch::Receiver<Found>)>>,
}

impl Resolver {
    pub(super) fn system() -> Self {
        Self::with(|name| Ok((name, 0).to_socket_addrs()?.collect()))
    }

    fn with(system: fn(&str) -> io::Result<Vec<SocketAddr>>) -> Self {
        Self {
            system,
            latest: Mutex::default(),
        }
    }

    fn look_up(&self, name: &str) -> watch::Receiver<Found> {
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((begun, found)) = latest.get(name)
            && begun.elapsed() < SHARED_FOR
            && matches!(found.has_changed(), Ok(false))
        {
            return found.clone();
        }
        let (sender, found) = watch::channel(Ok(Vec::new()));
        latest.insert(name.to_owned(), (Instant::now(), found.clone()));
        let (system, name) = (self.system, name.to_owned());
        tokio::task::spawn_blocking(move || {
            let _ = sender.send(system(&name).map_err(Arc::new));
        });
        found
    }
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let mut found = self.look_up(name.as_str());
        Box::pin(async move {
            found.changed().await?;
            let addresses = found.borrow().clone()?;
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn calls_to_the_same_host_within_a_second_share_a_look_up_in_progress() {
        static SILENT: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
        let resolver = Resolver::with(|_| {
            drop(SILENT.blocking_lock());
            Ok(vec![SocketAddr::from(([127, 0, 0, 1], 0))])
        });
        let silent = SILENT.lock().await;
        let first = resolver.look_up("a.example");
        assert!(first.same_channel(&resolver.look_up("a.example")));
        assert!(!first.same_channel(&resolver.look_up("b.example")));
        tokio::time::advance(SHARED_FOR).await;
        let second = resolver.look_up("a.example");
        assert!(!first.same_channel(&second));
        drop(silent);
        for mut found in [first, second.clone()] {
            found.changed().await.expect("an answer");
        }
        assert!(!second.same_channel(&resolver.look_up("a.example")));
    }

    #[tokio::test]
    async fn system_resolver_finds_the_addresses_of_a_name() {
        let name = "localhost".parse().expect("a name");
        let mut addresses = Resolver::system().resolve(name).await.expect("addresses");
        assert!(addresses.all(|address| address.ip().is_loopback()));
    }
}
