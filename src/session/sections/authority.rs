//! TLS for a session store: the key `ca_file` for a private certificate authority, and a warning if the URL does not
//! require TLS.

use crate::config::{Problems, PublicText, Section};
use crate::session::backends::Context;
use crate::session::backends::outgoing::{Outgoing, OutgoingConfig};
use crate::session::formats::loopback::is_loopback;

/// The CA certificates that a store's connections trust: those for all outgoing calls, and those of the section.
pub fn trust(
    section: &Section<'_>,
    context: &Context,
    ca: Option<&PublicText>,
    problems: &mut Problems,
) -> Outgoing {
    let config = OutgoingConfig {
        ca: ca.cloned(),
        ..OutgoingConfig::default()
    };
    let outgoing = context.http.outgoing();
    outgoing.with(&config, |key| section.key(key), problems)
}

/// Warns that the connection to `host` is not encrypted, unless `host` is this machine. The connection carries the
/// app's sessions and often a password. `fix` describes how to require TLS in the URL.
pub fn warn_without_tls(section: &Section<'_>, host: &str, fix: &str) {
    if !is_loopback(host) {
        section.warn(
            "url",
            format!("does not require TLS for connections to another host, so sessions and the password can be read on the network: {fix}"),
        );
    }
}
