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
    /// `None` for a file that cannot be read, and for a pipe: that can be read once, and not for this.
    content: Option<Vec<u8>>,
}

impl Watched {
    /// The file as it is now. To be called before the file is read: what changes in between is then seen as
    /// a change rather than missed.
    pub fn now(path: &Path) -> Self {
        let is_file = std::fs::metadata(path).is_ok_and(|metadata| metadata.is_file());
        let content = is_file.then(|| std::fs::read(path).ok()).flatten();
        let content = content.map(|bytes| digest(&SHA256, &bytes).as_ref().to_vec());
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

#[cfg(test)]
mod tests {
    use std::io::{Write, pipe, read_to_string};
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn a_pipe_is_left_to_who_wants_the_secret() {
        let (reader, mut writer) = pipe().unwrap();
        writer.write_all(b"secret").unwrap();
        drop(writer);
        let path = PathBuf::from(format!("/dev/fd/{}", reader.as_raw_fd()));
        assert!(!Watched::now(&path).has_changed());
        assert_eq!(read_to_string(reader).unwrap(), "secret");
    }
}
