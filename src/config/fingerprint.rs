//! The files of a configuration, and whether they still hold what was read from them. When to look is in
//! `reload.rs`.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{SHA256, digest};

/// A file and a hash of its content, so that it is the same however it got there: by a write, a rename, or
/// the swap of a symbolic link as Kubernetes does it.
#[derive(Clone, PartialEq, Eq)]
pub struct FileFingerprint {
    path: PathBuf,
    /// `None` for a file that cannot be read, and for a pipe: that can be read once, and not for this.
    content: Option<Vec<u8>>,
}

impl FileFingerprint {
    /// Reads the file. The hash is of the bytes that are given, so that every later change is seen, even one
    /// that is taken back.
    pub fn read(path: &Path) -> io::Result<(Vec<u8>, Self)> {
        let bytes = std::fs::read(path)?;
        let content = is_file(path).then(|| hash(&bytes));
        Ok((
            bytes,
            Self {
                path: path.to_owned(),
                content,
            },
        ))
    }

    pub fn has_changed(&self) -> bool {
        let bytes = is_file(&self.path)
            .then(|| std::fs::read(&self.path).ok())
            .flatten();
        bytes.as_deref().map(hash) != self.content
    }
}

fn is_file(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|metadata| metadata.is_file())
}

fn hash(bytes: &[u8]) -> Vec<u8> {
    digest(&SHA256, bytes).as_ref().to_vec()
}

impl fmt::Debug for FileFingerprint {
    /// Not the hash: a short secret could be found by it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("FileFingerprint").field(&self.path).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Write, pipe};
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn pipe_is_read_once_and_never_counts_as_changed() {
        let (reader, mut writer) = pipe().unwrap();
        writer.write_all(b"secret").unwrap();
        drop(writer);
        let path = PathBuf::from(format!("/dev/fd/{}", reader.as_raw_fd()));
        let (bytes, watched) = FileFingerprint::read(&path).unwrap();
        assert_eq!(bytes, b"secret");
        assert!(!watched.has_changed());
    }
}
