//! `health`: asks the running service on this machine whether it is alive.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

use super::Failure;
use crate::config::Sources;
use crate::settings;

pub(super) fn run(sources: &Sources) -> Result<(), Failure> {
    let mut address = settings::load_listen(sources)?;
    if address.ip().is_unspecified() {
        address.set_ip(match address.ip() {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    match ask_health(address) {
        Ok(true) => Ok(()),
        Ok(false) => Err(Failure::Runtime(format!(
            "the service at {address} is not well"
        ))),
        Err(error) => Err(Failure::Runtime(format!(
            "cannot reach the service at {address}: {error}"
        ))),
    }
}

fn ask_health(address: SocketAddr) -> io::Result<bool> {
    let timeout = Duration::from_secs(2);
    let mut stream = TcpStream::connect_timeout(&address, timeout)?;
    stream.set_read_timeout(Some(timeout))?;
    stream.set_write_timeout(Some(timeout))?;
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut status = [0; 12];
    stream.read_exact(&mut status)?;
    Ok(&status == b"HTTP/1.1 200")
}
