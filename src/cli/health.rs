//! `health`: checks that the service on this machine answers its liveness probe.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

use super::Failure;
use super::waiting::WaitNotice;
use crate::config::Sources;
use crate::session::types::BackendCall;
use crate::settings;

/// The timeout of each step: connecting, writing the request, and reading the response.
const TIMEOUT: Duration = Duration::from_secs(2);

pub(super) fn run(sources: &Sources) -> Result<(), Failure> {
    let (listen, port_from) = settings::load_listen(sources)?;
    let mut failures = Vec::new();
    for address in reachable(listen) {
        let waiting = WaitNotice::for_backend(&BackendCall {
            backend: format!("the service at {address}"),
            at_most: 2 * TIMEOUT,
        });
        let answer = ask_health(address);
        drop(waiting);
        match answer {
            Ok(true) => return Ok(()),
            Ok(false) => failures.push(format!(
                "the service at {address} did not answer GET /healthz with status 200"
            )),
            Err(error) => failures.push(format!("cannot reach the service at {address}: {error}")),
        }
    }
    Err(Failure::Runtime(format!(
        "{} (server.listen is {listen}; source of its port: {port_from})",
        failures.join("; ")
    )))
}

/// The addresses at which a service that listens on `address` can be reached from this machine.
fn reachable(address: SocketAddr) -> Vec<SocketAddr> {
    let port = address.port();
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => vec![(Ipv4Addr::LOCALHOST, port).into()],
        // A service that listens on `[::]` accepts IPv4 and IPv6 connections.
        IpAddr::V6(ip) if ip.is_unspecified() => vec![
            (Ipv4Addr::LOCALHOST, port).into(),
            (Ipv6Addr::LOCALHOST, port).into(),
        ],
        _ => vec![address],
    }
}

fn ask_health(address: SocketAddr) -> io::Result<bool> {
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut status = [0; 12];
    stream.read_exact(&mut status)?;
    Ok(&status == b"HTTP/1.1 200")
}
