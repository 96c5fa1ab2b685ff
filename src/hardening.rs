//! What keeps the memory of this process, and with it the secrets, from others on the machine.
//! What keeps them out of texts is `secret.rs`.

use std::io;

use rustix::process::{Resource, Rlimit, setrlimit};

/// No core dump is written when the process dies, and nobody without the right to trace every process
/// may read its memory or environment (prctl(2), `PR_SET_DUMPABLE`).
///
/// # Errors
/// The kernel's, as from a filter on system calls that knows neither.
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
    fn no_core_is_dumped_and_the_memory_is_nobodys_business() {
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
