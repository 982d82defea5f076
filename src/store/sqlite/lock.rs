//! One gateway per directory, readable by its owner only.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use crate::store::StoreError;

/// Held as long as a gateway uses a directory; the system releases it when the process ends, however it ends.
#[derive(Debug)]
pub(super) struct DirectoryLock {
    _file: File,
}

impl DirectoryLock {
    /// Takes the lock, or says who has it.
    pub(super) fn take(dir: &Path) -> Result<Self, StoreError> {
        let path = dir.join(FILE);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(|error| refused(&path, "cannot open the lock file", &error))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut owner = String::new();
                // Only for the message: a lock without a readable owner is still taken.
                let _ = file.read_to_string(&mut owner);
                let owner =
                    owner.trim().parse::<u32>().map_or_else(|_| String::new(), |pid| format!(" (process {pid})"));
                return Err(StoreError(format!(
                    "{}: another gateway{owner} uses this data directory; stop it, or choose another --data-dir",
                    dir.display()
                )));
            }
            Err(TryLockError::Error(error)) => return Err(refused(&path, "cannot lock", &error)),
        }
        // The owner is for people; failing to name it does not weaken the lock.
        let _ = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| writeln!(file, "{}", std::process::id()));
        Ok(Self { _file: file })
    }
}

/// Creates a directory that only its owner may enter. One that exists stays as it is: its owner has chosen.
pub(super) fn create_private_directory(dir: &Path) -> Result<(), StoreError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(|error| refused(dir, "cannot create the data directory", &error))
}

/// Creates a file that only its owner may read, durably. SQLite gives the files it adds beside it the same mode.
pub(super) fn create_private_file(path: &Path) -> Result<(), StoreError> {
    let create = || {
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?.sync_all()?;
        match path.parent() {
            Some(dir) => File::open(dir)?.sync_all(),
            None => Ok(()),
        }
    };
    match create() {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(refused(path, "cannot create", &error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn refused(path: &Path, what: &str, error: &io::Error) -> StoreError {
    StoreError(format!("{}: {what}: {error}", path.display()))
}

const FILE: &str = "gateway.lock";
