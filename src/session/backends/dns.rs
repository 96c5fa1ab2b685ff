//! Look-ups of backends' names with the system's resolver.
//!
//! The system's resolver blocks a thread until the name server answers, which may be long after the timeout of
//! the call that asked. So all calls of a name within a second share one look-up: a silent name server holds a
//! few threads, however many requests there are. After a second another look-up begins, because a resolver
//! that lost one packet repeats it only after several.

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tokio::sync::watch;
use tokio::time::Instant;

/// How long a look-up serves the calls that come after it began.
const SHARED_FOR: Duration = Duration::from_secs(1);

type Found = Result<Vec<SocketAddr>, Arc<io::Error>>;

/// The latest look-up of each name. The names are those of the configuration and of discovery documents.
#[derive(Debug, Default)]
pub(super) struct Resolver(Mutex<HashMap<String, (Instant, watch::Receiver<Found>)>>);

impl Resolver {
    fn look_up(&self, name: &str) -> watch::Receiver<Found> {
        let mut latest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((begun, found)) = latest.get(name)
            && begun.elapsed() < SHARED_FOR
        {
            return found.clone();
        }
        let (sender, found) = watch::channel(Ok(Vec::new()));
        latest.insert(name.to_owned(), (Instant::now(), found.clone()));
        let name = name.to_owned();
        tokio::task::spawn_blocking(move || {
            let addresses = (&*name, 0)
                .to_socket_addrs()
                .map(Iterator::collect)
                .map_err(Arc::new);
            let _ = sender.send(addresses);
        });
        found
    }
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let mut found = self.look_up(name.as_str());
        Box::pin(async move {
            // The kept receiver has seen nothing, so its clones learn of an answer that is older than they.
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
    async fn calls_within_a_second_share_a_look_up() {
        let resolver = Resolver::default();
        let first = resolver.look_up("localhost");
        assert!(first.same_channel(&resolver.look_up("localhost")));
        assert!(!first.same_channel(&resolver.look_up("127.0.0.1")));
        tokio::time::advance(SHARED_FOR).await;
        assert!(!first.same_channel(&resolver.look_up("localhost")));
    }

    #[tokio::test]
    async fn later_calls_get_the_answer_of_an_earlier_look_up() {
        let resolver = Resolver::default();
        for _ in 0..2 {
            let addresses = resolver
                .resolve("127.0.0.1".parse().expect("a name"))
                .await
                .expect("addresses");
            assert_eq!(
                addresses.collect::<Vec<_>>(),
                [SocketAddr::from(([127, 0, 0, 1], 0))]
            );
        }
    }
}
