//! A fault-injecting proxy in front of a store. It applies the current fault to each reply, so a fault can begin and
//! end while connections are open.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    None,
    /// Each reply is delayed by this duration.
    Delay(Duration),
    /// Replies are forwarded one byte at a time, with this delay before each byte.
    Drip(Duration),
    /// The connection is closed when a reply arrives, and the reply is not forwarded.
    Reset,
    /// Replies are discarded, and the connection stays open.
    BlackHole,
    /// The first byte of a reply is forwarded, and the connection is closed.
    Truncate,
    /// Each reply is replaced by this text.
    Say(&'static str),
}

/// All faults except [`Fault::None`] and [`Fault::Say`].
pub const FAULTS: [Fault; 5] = [
    Fault::Delay(Duration::from_secs(2)),
    Fault::Drip(Duration::from_millis(300)),
    Fault::Reset,
    Fault::BlackHole,
    Fault::Truncate,
];

pub struct Proxy {
    pub port: u16,
    fault: watch::Sender<Fault>,
    most: Arc<AtomicUsize>,
    closed: Arc<AtomicUsize>,
    relayed: Arc<AtomicUsize>,
}

impl Proxy {
    pub async fn start(upstream: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let (fault, seen) = watch::channel(Fault::None);
        let (open, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (closed, relayed) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (counted, highest) = (open, most.clone());
        let (ended, bytes) = (closed.clone(), relayed.clone());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (seen, counted) = (seen.clone(), counted.clone());
                let (ended, bytes) = (ended.clone(), bytes.clone());
                highest.fetch_max(counted.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                tokio::spawn(async move {
                    relay(client, upstream, seen, &bytes).await;
                    counted.fetch_sub(1, Ordering::SeqCst);
                    ended.fetch_add(1, Ordering::SeqCst);
                });
            }
        });
        Self {
            port,
            fault,
            most,
            closed,
            relayed,
        }
    }

    pub fn set(&self, fault: Fault) {
        self.fault.send_replace(fault);
    }

    /// The number of connections that have been closed.
    pub fn closed(&self) -> usize {
        self.closed.load(Ordering::SeqCst)
    }

    /// The number of reply bytes that were forwarded with [`Fault::None`] or [`Fault::Delay`].
    pub fn relayed(&self) -> usize {
        self.relayed.load(Ordering::SeqCst)
    }

    /// The maximum number of connections that were open at the same time.
    pub fn most(&self) -> usize {
        self.most.load(Ordering::SeqCst)
    }
}

async fn relay(
    client: TcpStream,
    upstream: u16,
    fault: watch::Receiver<Fault>,
    relayed: &AtomicUsize,
) {
    let Ok(server) = TcpStream::connect(("127.0.0.1", upstream)).await else {
        return;
    };
    let ((from_client, to_client), (from_server, to_server)) =
        (client.into_split(), server.into_split());
    // When either side closes its connection, close the other one too.
    tokio::select! {
        () = questions(from_client, to_server) => {}
        () = answers(from_server, to_client, fault, relayed) => {}
    }
}

async fn questions(mut from: OwnedReadHalf, mut to: OwnedWriteHalf) {
    tokio::io::copy(&mut from, &mut to).await.ok();
}

async fn answers(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    fault: watch::Receiver<Fault>,
    relayed: &AtomicUsize,
) {
    let mut bytes = vec![0; 16 * 1024];
    while let Ok(length @ 1..) = from.read(&mut bytes).await {
        let fault = *fault.borrow();
        match fault {
            Fault::None => {}
            Fault::Delay(by) => tokio::time::sleep(by).await,
            Fault::Drip(by) => {
                for byte in &bytes[..length] {
                    tokio::time::sleep(by).await;
                    if to.write_all(&[*byte]).await.is_err() {
                        return;
                    }
                }
                continue;
            }
            Fault::Reset => return,
            Fault::BlackHole => continue,
            Fault::Say(text) => {
                if to.write_all(text.as_bytes()).await.is_err() {
                    return;
                }
                continue;
            }
            Fault::Truncate => {
                to.write_all(&bytes[..1]).await.ok();
                return;
            }
        }
        if to.write_all(&bytes[..length]).await.is_err() {
            return;
        }
        relayed.fetch_add(length, Ordering::SeqCst);
    }
}
