//! Detects whether the files of a configuration have changed since they were read. `reload.rs` decides when to check.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{SHA256, digest};

/// A file and a hash of its content. The hash detects every way of changing the file: a write, a rename, or the
/// replacement of a symbolic link, as in Kubernetes.
#[derive(Clone, PartialEq, Eq)]
pub struct FileFingerprint {
    path: PathBuf,
    /// `None` if this is not a regular file, for example a pipe, which can be read only once.
    content: Option<Vec<u8>>,
}

impl FileFingerprint {
    /// Reads the file. The hash is computed from the returned bytes, so that every later change is detected.
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
    /// Leaves out the hash, from which a short secret could be guessed.
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
        let (bytes, fingerprint) = FileFingerprint::read(&path).unwrap();
        assert_eq!(bytes, b"secret");
        assert!(!fingerprint.has_changed());
    }
}
