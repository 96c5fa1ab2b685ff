//! A service whose clocks the test sets with a preloaded library (`libfaketime`), so that no test has to wait for an
//! hour.

use std::fmt::Display;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tempfile::NamedTempFile;
use tokio::time::sleep;

use crate::service::{Service, Setup};

/// The paths of the library on Debian systems.
const LIBRARY: [&str; 2] = [
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
];

/// The clocks of the process that the test sets.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Clocks {
    Both,
    /// The wall clock only, as when an administrator sets it.
    Wall,
}

pub struct Timed {
    pub service: Arc<Service>,
    file: NamedTempFile,
}

impl Timed {
    pub async fn start(toml: impl Display, clocks: Clocks) -> Self {
        let library = LIBRARY
            .into_iter()
            .find(|library| Path::new(library).exists());
        let library = library.expect("libfaketime is missing: apt-get install faketime");
        let file = NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), "+0").expect("a file");
        let mut setup = Setup::new(toml)
            .env("LD_PRELOAD", library)
            .env("FAKETIME_NO_CACHE", "1");
        if clocks == Clocks::Wall {
            setup = setup.env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        }
        let path = file.path().display().to_string();
        setup
            .environment
            .push(("FAKETIME_TIMESTAMP_FILE".to_owned(), path));
        Self {
            service: Service::start_with(&setup).await,
            file,
        }
    }

    /// Sets the process's clocks this many seconds ahead of the machine's clocks.
    pub async fn ahead(&self, seconds: i64) {
        std::fs::write(self.file.path(), format!("{seconds:+}")).expect("a file");
        // The runtime sleeps until a time on the old clock; a request wakes it up.
        self.service.healthy().await;
        sleep(Duration::from_millis(20)).await;
    }
}
