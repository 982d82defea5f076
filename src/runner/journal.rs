//! Which actors run here, on disk, for the next process of this runner.
//!
//! A file per life under `running/` in the data directory, made when the life starts and removed a while after its end
//! was told. What a starting runner finds there was lost in a crash, and stays noted for as long, since the next crash
//! may come before the gateway is told. The files are not synced: they are for a crash of the process, and after a
//! crash of the machine the gateway has long given the actors up.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use data_encoding::BASE32HEX_NOPAD;
use rustix::fs::{FlockOperation, flock};
use tracing::{info, warn};

use crate::actor::ActorKey;

/// The files, and the lock that keeps other runners out.
#[derive(Debug)]
pub(super) struct Journal {
    running: PathBuf,
    /// Lives that ended, oldest first.
    ended: VecDeque<(Instant, ActorKey)>,
    _lock: File,
}

/// The data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// Another process has it.
    #[error("{} is in use by another runner: give each its own --data-dir", .0.display())]
    InUse(PathBuf),
    /// It cannot be read or written.
    #[error("{}: {error} (--data-dir)", path.display())]
    Io {
        /// Which file or directory.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
}

impl Journal {
    /// Opens the journal of a data directory and answers with the lives that a former process left in it.
    pub(super) fn open(data_dir: &Path, now: Instant) -> Result<(Self, Vec<ActorKey>), JournalError> {
        let running = data_dir.join("running");
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&running).map_err(|error| at(&running, error))?;
        let lock_path = data_dir.join("runner.lock");
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&lock_path)
            .map_err(|error| at(&lock_path, error))?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(JournalError::InUse(data_dir.to_owned())),
            Err(error) => return Err(at(&lock_path, error.into())),
        }
        let mut lost = Vec::new();
        for entry in fs::read_dir(&running).map_err(|error| at(&running, error))? {
            let path = entry.map_err(|error| at(&running, error))?.path();
            match path.file_name().and_then(|name| key_of(name.to_str()?)) {
                Some(key) => lost.push(key),
                None => fs::remove_file(&path).map_err(|error| at(&path, error))?,
            }
        }
        if !lost.is_empty() {
            info!(actors = lost.len(), "a former process of this runner ended without a goodbye; reporting its actors");
        }
        let ended = lost.iter().map(|key| (now, key.clone())).collect();
        Ok((Journal { running, ended, _lock: lock }, lost))
    }

    /// A life starts.
    pub(super) fn started(&mut self, key: &ActorKey) {
        let path = self.path(key);
        if let Err(error) = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&path) {
            warn!(path = %path.display(), %error, "actor not noted; after a crash its end would not be reported");
        }
    }

    /// A life has ended. Its file stays until the gateway surely knows: for a while, and as long as the session
    /// remembers the life, because its end could not be told or not for long enough.
    pub(super) fn ended(&mut self, key: ActorKey, now: Instant, remembered: impl Fn(&ActorKey) -> bool) {
        self.ended.push_back((now, key));
        let over = |(since, key): &(Instant, ActorKey)| now.duration_since(*since) > KEEP && !remembered(key);
        while self.ended.front().is_some_and(over) {
            if let Some((_, key)) = self.ended.pop_front() {
                self.remove(&key);
            }
        }
    }

    /// The gateway knows everything.
    pub(super) fn clear(&mut self) {
        for (_, key) in std::mem::take(&mut self.ended) {
            self.remove(&key);
        }
    }

    fn remove(&self, key: &ActorKey) {
        let path = self.path(key);
        match fs::remove_file(&path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => warn!(path = %path.display(), %error, "note of an ended actor not removed"),
        }
    }

    fn path(&self, key: &ActorKey) -> PathBuf {
        // Ids come from the gateway, so they never become names of files as they are.
        let id = BASE32HEX_NOPAD.encode(key.id.as_bytes());
        self.running.join(format!("{}.{id}", key.generation))
    }
}

fn key_of(name: &str) -> Option<ActorKey> {
    let (generation, id) = name.split_once('.')?;
    let id = String::from_utf8(BASE32HEX_NOPAD.decode(id.as_bytes()).ok()?).ok()?;
    Some(ActorKey::new(id, generation.parse().ok()?))
}

fn at(path: &Path, error: io::Error) -> JournalError {
    JournalError::Io { path: path.to_owned(), error }
}

/// How long an ended life stays noted at least: as long as the session keeps it for redelivered commands, once its end
/// was told.
const KEEP: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_process_finds_what_was_running() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let hostile = ActorKey::new("../../x/\u{1F680}", 7);
        let now = Instant::now();
        let (mut journal, lost) = Journal::open(dir.path(), now).expect("opens");
        assert_eq!(lost, []);
        assert!(matches!(Journal::open(dir.path(), now), Err(JournalError::InUse(_))));
        journal.started(&hostile);
        journal.started(&ActorKey::new("done", 0));
        journal.ended(ActorKey::new("done", 0), now, |_| false);
        journal.clear();
        drop(journal);
        let (_journal, lost) = Journal::open(dir.path(), now).expect("opens again");
        assert_eq!(lost, [hostile]);
    }

    #[test]
    fn a_second_crash_before_the_gateway_was_told_loses_nothing() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let key = ActorKey::new("a", 0);
        let now = Instant::now();
        let (mut journal, _) = Journal::open(dir.path(), now).expect("opens");
        journal.started(&key);
        drop(journal);
        for _ in 0..2 {
            let (journal, lost) = Journal::open(dir.path(), now).expect("opens again");
            assert_eq!(lost, std::slice::from_ref(&key));
            drop(journal);
        }
        let (mut journal, _) = Journal::open(dir.path(), now).expect("opens again");
        let later = now + KEEP + Duration::from_secs(1);
        journal.ended(ActorKey::new("b", 0), later, |_| true);
        assert_eq!(journal.ended.len(), 2, "the gateway was away all the while");
        journal.ended(ActorKey::new("c", 0), later, |_| false);
        drop(journal);
        let (_journal, lost) = Journal::open(dir.path(), now).expect("opens again");
        assert_eq!(lost, []);
    }
}
