//! Raises the limit on open files as far as `server.max_connections` requires and the hard limit allows. The acceptor
//! in `server/mod.rs` enforces the number of connections that fit.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The number of file descriptors reserved for purposes other than client connections: listeners, the runtime, and
/// connections to backends.
const OTHER_FILES: u64 = 256;

/// The number of connections that fit under the limit, and a warning if the number is lower than configured.
#[derive(Debug, PartialEq, Eq)]
pub struct Room {
    pub connections: usize,
    pub warning: Option<String>,
}

/// Raises the soft limit on open files as far as `wanted` connections require and the hard limit allows. Returns how
/// many connections fit then.
pub fn make_room(wanted: usize) -> Room {
    let limit = getrlimit(Resource::Nofile);
    let needed = (wanted as u64).saturating_add(OTHER_FILES);
    let mut allowed = limit.current.unwrap_or(u64::MAX);
    if allowed < needed {
        let raised = needed.min(limit.maximum.unwrap_or(u64::MAX));
        let asked = setrlimit(
            Resource::Nofile,
            Rlimit {
                current: Some(raised),
                maximum: limit.maximum,
            },
        );
        if asked.is_ok() {
            allowed = raised;
        }
    }
    fit(wanted, allowed)
}

fn fit(wanted: usize, allowed: u64) -> Room {
    // If the limit is small, a quarter of it is reserved for other files.
    let free = allowed - OTHER_FILES.min(allowed / 4);
    let connections = usize::try_from(free)
        .unwrap_or(usize::MAX)
        .min(wanted)
        .max(1);
    let warning = (connections < wanted).then(|| {
        format!(
            "server.max_connections: {wanted} connections do not fit into the limit of {allowed} open files; \
             serving at most {connections} (raise the limit with `ulimit -n`)"
        )
    });
    Room {
        connections,
        warning,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_over_the_open_file_limit_are_capped_with_a_warning() {
        for (wanted, allowed, connections) in [
            (8192, 65_536, 8192),
            (8192, 8448, 8192),
            (8192, 1024, 768),
            (8192, 64, 48),
            (10, 1, 1),
            (5, 0, 1),
        ] {
            let room = fit(wanted, allowed);
            assert_eq!(room.connections, connections, "{wanted} of {allowed}");
            assert_eq!(
                room.warning.is_some(),
                connections < wanted,
                "{wanted} of {allowed}"
            );
        }
    }

    #[test]
    fn sixteen_connections_fit_without_a_warning() {
        assert_eq!(
            make_room(16),
            Room {
                connections: 16,
                warning: None
            }
        );
    }
}
