//! Moves what was committed from the log into the database file, beside the commits.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rusqlite::Connection;
use tracing::{debug, warn};

use super::Refusal;
use crate::store::StoreError;

/// The thread that checkpoints while there is something to checkpoint. It ends when this is dropped.
#[derive(Debug)]
pub(super) struct Checkpointer {
    signal: Arc<Signal>,
    thread: Option<JoinHandle<()>>,
}

impl Checkpointer {
    /// Starts the thread with a connection of its own.
    pub(super) fn start(path: &Path) -> Result<Self, StoreError> {
        let connection = connect(path).map_err(|refusal| refusal.at(path))?;
        let signal = Arc::new(Signal::default());
        let shared = Arc::clone(&signal);
        let log = Log { connection, path: path.to_owned(), failing: false };
        let thread = thread::Builder::new()
            .name("checkpoint".to_owned())
            .spawn(move || run(&shared, log))
            .map_err(|error| StoreError(format!("{}: cannot start the checkpoint thread: {error}", path.display())))?;
        Ok(Self { signal, thread: Some(thread) })
    }

    /// Tells the thread that the log has grown.
    pub(super) fn written(&self) {
        self.signal.update(|state| state.written = true);
    }
}

impl Drop for Checkpointer {
    fn drop(&mut self) {
        self.signal.update(|state| state.stop = true);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            warn!("the checkpoint thread had panicked");
        }
    }
}

#[derive(Debug, Default)]
struct Signal {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    written: bool,
    stop: bool,
}

impl Signal {
    fn update(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut state);
        self.changed.notify_one();
    }

    /// Waits for a write, then lets more of them gather. False: stop.
    fn wait(&self) -> bool {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let state = self
            .changed
            .wait_while(state, |state| !state.written && !state.stop)
            .unwrap_or_else(PoisonError::into_inner);
        let (mut state, _) = self
            .changed
            .wait_timeout_while(state, INTERVAL, |state| !state.stop)
            .unwrap_or_else(PoisonError::into_inner);
        state.written = false;
        !state.stop
    }
}

struct Log {
    connection: Connection,
    path: PathBuf,
    failing: bool,
}

fn run(signal: &Signal, mut log: Log) {
    while signal.wait() {
        match log.checkpoint() {
            Ok(()) if log.failing => {
                log.failing = false;
                debug!(path = %log.path.display(), "checkpoints work again");
            }
            Ok(()) => {}
            // Nothing is lost: what was committed is in the log. But the log grows until a checkpoint works.
            Err(error) if !log.failing => {
                log.failing = true;
                warn!(path = %log.path.display(), %error, "cannot checkpoint the store; its log grows");
            }
            Err(_) => {}
        }
    }
}

impl Log {
    /// Checkpoints beside the writer. Under load that never reaches the end of the log, so a log that has become too
    /// long is begun anew, which holds writers up; only when little is left to copy, so that it is short.
    fn checkpoint(&self) -> rusqlite::Result<()> {
        let mut log = self.run("PASSIVE")?;
        if log.pages <= LOG_PAGES_MAX {
            return Ok(());
        }
        for _ in 0..CATCH_UPS {
            if log.pages - log.copied <= LEFT_MAX {
                break;
            }
            log = self.run("PASSIVE")?;
        }
        self.run("RESTART")?;
        Ok(())
    }

    fn run(&self, mode: &str) -> rusqlite::Result<Progress> {
        let mut statement = self.connection.prepare_cached(&format!("PRAGMA wal_checkpoint({mode})"))?;
        statement.query_row([], |row| Ok(Progress { pages: row.get(1)?, copied: row.get(2)? }))
    }
}

/// How far a checkpoint came.
struct Progress {
    /// In the log.
    pages: i64,
    /// Of these, in the file.
    copied: i64,
}

fn connect(path: &Path) -> Result<Connection, Refusal> {
    let connection = Connection::open(path)?;
    // How long a new beginning of the log waits for a reader; commits wait as long.
    connection.busy_timeout(Duration::from_secs(1))?;
    connection.execute_batch(
        "PRAGMA synchronous = FULL; PRAGMA fullfsync = ON; PRAGMA checkpoint_fullfsync = ON; PRAGMA wal_autocheckpoint = 0;",
    )?;
    Ok(connection)
}

/// Between checkpoints. Often enough that little is left to copy when the log must be begun anew.
const INTERVAL: Duration = Duration::from_millis(100);

/// A log of more pages, 256 MiB, is begun anew: without a cap it grew to gigabytes under load, and opening took seconds.
const LOG_PAGES_MAX: i64 = 65_536;

/// So many pages, 8 MiB, are copied while writers wait.
const LEFT_MAX: i64 = 2_048;

/// How often a checkpoint is repeated to get there. A writer that is still faster then must wait.
const CATCH_UPS: u32 = 4;
