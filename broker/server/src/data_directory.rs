//! The data directory: one process at a time.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use waypost_core::{Code, codes};

/// Where `run` keeps what must survive, unless told otherwise.
pub(crate) const DEFAULT: &str = "waypost-data";

/// The file that is locked. It stays when the process ends, the lock does not.
const LOCK_FILE: &str = "lock";

/// A data directory that this process alone uses, until this is dropped.
#[derive(Debug)]
pub(crate) struct DataDirectory {
    _lock: File,
}

/// Why the data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DataDirectoryError {
    #[error(
        "the data directory {} is used by another Waypost process; stop that process, or pass another directory \
         with --data-dir", .path.display()
    )]
    Locked { path: PathBuf },
    #[error(
        "the data directory {} cannot be {doing}: {reason}; give this user the right to write there, or pass another \
         directory with --data-dir", .path.display()
    )]
    Unusable { path: PathBuf, doing: &'static str, reason: io::Error },
}

impl DataDirectoryError {
    pub(crate) fn code(&self) -> Code {
        match self {
            Self::Locked { .. } => codes::DATA_DIRECTORY_LOCKED,
            Self::Unusable { .. } => codes::DATA_DIRECTORY_UNUSABLE,
        }
    }
}

impl DataDirectory {
    /// Creates the directory where it is not there, and takes it for this process.
    pub(crate) fn take(path: &Path) -> Result<Self, DataDirectoryError> {
        let unusable =
            |doing| move |reason| DataDirectoryError::Unusable { path: path.to_owned(), doing, reason };
        std::fs::create_dir_all(path).map_err(unusable("created"))?;
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path.join(LOCK_FILE))
            .map_err(unusable("written to"))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(DataDirectoryError::Locked { path: path.to_owned() }),
            Err(TryLockError::Error(reason)) => Err(unusable("locked")(reason)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_holder_is_refused_until_the_first_is_gone() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("new").join("data");
        let first = DataDirectory::take(&path).unwrap();
        let refused = DataDirectory::take(&path).unwrap_err();
        assert_eq!(refused.code(), codes::DATA_DIRECTORY_LOCKED);
        assert!(refused.to_string().contains(&path.display().to_string()));
        drop(first);
        DataDirectory::take(&path).unwrap();
    }

    #[test]
    fn a_file_in_the_way_is_told() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("file");
        std::fs::write(&path, "").unwrap();
        assert_eq!(DataDirectory::take(&path).unwrap_err().code(), codes::DATA_DIRECTORY_UNUSABLE);
    }
}
