//! Protects the memory of this process, and the secrets in it, from core dumps and, on Linux, from other unprivileged
//! processes. `secret.rs` keeps secrets out of logs and messages.

use std::io;

use rustix::process::{Resource, Rlimit, setrlimit};

/// Disables core dumps and, on Linux, makes the process non-dumpable: only processes with `CAP_SYS_PTRACE` may read
/// its memory or environment (prctl(2), `PR_SET_DUMPABLE`).
///
/// # Errors
/// The error of the system call, for example if a seccomp filter forbids it.
pub fn keep_memory_private() -> io::Result<()> {
    setrlimit(
        Resource::Core,
        Rlimit {
            current: Some(0),
            maximum: Some(0),
        },
    )?;
    #[cfg(target_os = "linux")]
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)?;
    Ok(())
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use rustix::process::{DumpableBehavior, dumpable_behavior, getrlimit};

    use super::*;

    #[test]
    fn core_dumps_are_disabled_and_the_process_is_not_dumpable() {
        keep_memory_private().unwrap();
        assert_eq!(
            getrlimit(Resource::Core),
            Rlimit {
                current: Some(0),
                maximum: Some(0)
            }
        );
        assert_eq!(dumpable_behavior().unwrap(), DumpableBehavior::NotDumpable);
    }
}
