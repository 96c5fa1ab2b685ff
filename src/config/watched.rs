//! Files that hold secrets or keys, and whether they still say what was read from them. When to look is
//! in `reload.rs`.

use std::fmt;
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{SHA256, digest};

/// A file and a hash of its content, so that it is the same however it got there: by a write, a rename, or
/// the swap of a symbolic link as Kubernetes does it.
#[derive(Clone, PartialEq, Eq)]
pub struct Watched {
    path: PathBuf,
    /// `None` for a file that cannot be read.
    content: Option<Vec<u8>>,
}

impl Watched {
    /// The file as it is now. To be called before the file is read: what changes in between is then seen as
    /// a change rather than missed.
    pub fn now(path: &Path) -> Self {
        let content = std::fs::read(path).ok().map(|bytes| digest(&SHA256, &bytes).as_ref().to_vec());
        Self { path: path.to_owned(), content }
    }

    pub fn has_changed(&self) -> bool {
        Self::now(&self.path) != *self
    }
}

impl fmt::Debug for Watched {
    /// Not the hash: a short secret could be found by it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Watched").field(&self.path).finish()
    }
}
