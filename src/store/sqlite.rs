//! A store in one SQLite file.
//!
//! The file is in WAL mode with `synchronous=FULL`, so a commit that returned survives a crash of the process and of
//! the machine. Checkpoints run on a second connection in the background: inside a commit they would make one write
//! in many wait for all of them. Key-value entries live in a table of their own under a number that stands for the
//! actor's id; dropping the storage of an actor gives the number up, whatever its size, and the entries are removed
//! piece by piece later ([`Store::tidy`]).

mod actors;
mod checkpoint;
mod entries;
mod lock;
mod places;
mod retention;
mod schema;

use std::path::{Path, PathBuf};

use greenroom_protocol::{KvRequest, KvResponse};
use rusqlite::{Connection, ErrorCode};
use tracing::error;

use super::{Change, Found, Phase, Query, Store, StoreError, kv};
use checkpoint::Checkpointer;
use entries::SqlEntries;
use lock::DirectoryLock;
use retention::Pass;

pub use retention::Retention;

/// A store in the file `gateway.db` of a directory, which it locks for as long as it lives.
#[derive(Debug)]
pub struct SqliteStore {
    // Dropped in this order: the last connection to close folds the log into the file, and only then the lock goes.
    checkpointer: Checkpointer,
    connection: Connection,
    path: PathBuf,
    quota: u64,
    /// Entries of dropped storages may be left.
    untidy: bool,
    wrote: bool,
    retention: Retention,
    /// Records that are being removed because they have been kept long enough.
    expiring: Option<Pass>,
    _lock: DirectoryLock,
}

impl SqliteStore {
    /// Opens the store in a directory, and creates what is missing: the directory and the file for their owner only.
    ///
    /// # Errors
    /// [`StoreError`] when another gateway uses the directory, when the file is damaged, not ours or written by a newer
    /// greenroom, or when the disk refuses. The text names the path.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        lock::create_private_directory(dir)?;
        let lock = DirectoryLock::take(dir)?;
        let path = dir.join(FILE);
        lock::create_private_file(&path)?;
        let connection = open(&path).map_err(|refusal| refusal.at(&path))?;
        let checkpointer = Checkpointer::start(&path)?;
        Ok(Self {
            checkpointer,
            connection,
            path,
            quota: kv::QUOTA,
            untidy: true,
            wrote: false,
            retention: Retention::default(),
            expiring: None,
            _lock: lock,
        })
    }

    /// Sets the most storage an actor may use, in bytes, instead of the engine's 10 GiB.
    #[must_use]
    pub fn with_quota(mut self, bytes: u64) -> Self {
        self.quota = bytes;
        self
    }

    /// Sets how long records are kept of what is gone.
    #[must_use]
    pub fn with_retention(mut self, retention: Retention) -> Self {
        self.retention = retention;
        self
    }

    /// Limits the file to a size in bytes, rounded up to whole pages; beyond it, writes fail as on a full disk. A file
    /// that is larger already does not grow. Lasts until the store is dropped.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn limit_size(&mut self, bytes: u64) -> Result<(), StoreError> {
        let limited: rusqlite::Result<()> = self.page_size().and_then(|page| {
            let pages = i64::try_from(bytes.div_ceil(page)).unwrap_or(i64::MAX).min(i64::from(u32::MAX) - 1);
            self.connection.query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(()))
        });
        limited.map_err(|error| self.failed(error))
    }

    /// The size of the database file, in bytes, without its log.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn size(&self) -> Result<u64, StoreError> {
        let pages: rusqlite::Result<i64> = self.connection.pragma_query_value(None, "page_count", |row| row.get(0));
        let size = pages.and_then(|pages| Ok(u64::try_from(pages).unwrap_or(0) * self.page_size()?));
        size.map_err(|error| self.failed(error))
    }

    fn page_size(&self) -> rusqlite::Result<u64> {
        let size: i64 = self.connection.pragma_query_value(None, "page_size", |row| row.get(0))?;
        Ok(u64::try_from(size).unwrap_or(4096))
    }

    fn apply_change(&mut self, change: &Change) -> rusqlite::Result<()> {
        let connection = &self.connection;
        match change {
            Change::Namespace(record) => places::put_namespace(connection, record),
            Change::Actor(record) => {
                actors::put(connection, record)?;
                if record.phase == Phase::Destroyed {
                    self.drop_kv(&record.id)?;
                }
                Ok(())
            }
            Change::DropKv(actor_id) => self.drop_kv(actor_id),
            Change::Runner(record) => places::put_runner(connection, record),
            Change::ActorName(record) => places::put_actor_name(connection, record),
            Change::RunnerConfig(record) => places::put_runner_config(connection, record),
            Change::DropRunnerConfig(namespace_id, pool) => places::drop_runner_config(connection, namespace_id, pool),
        }
    }

    fn drop_kv(&mut self, actor_id: &str) -> rusqlite::Result<()> {
        use kv::Entries;
        SqlEntries::of(&self.connection, actor_id)?.clear()?;
        self.untidy = true;
        Ok(())
    }

    fn find(&self, query: &Query) -> rusqlite::Result<Found> {
        let connection = &self.connection;
        match query {
            Query::Actor(id) => actors::by_id(connection, id).map(Found::Actor),
            Query::ActorByKey { namespace_id, name, key } => {
                actors::by_key(connection, namespace_id, name, key).map(Found::Actor)
            }
            Query::Actors { namespace_id, name, key, include_destroyed, created_before, limit } => {
                let page = actors::Page { created_before: *created_before, limit: *limit };
                actors::list(connection, namespace_id, name, key.as_deref(), *include_destroyed, page)
                    .map(Found::Actors)
            }
            Query::AwakeActors => actors::awake(connection).map(Found::Actors),
            Query::DueAlarms(now_ms) => actors::due(connection, *now_ms).map(Found::Actors),
            Query::NextAlarm => actors::next_alarm(connection).map(Found::Alarm),
            Query::Runners => places::runners(connection).map(Found::Runners),
            Query::RunnersOf { namespace_id, pool, include_stopped, limit, created_before } => {
                let page = actors::Page { created_before: *created_before, limit: *limit };
                places::runners_of(connection, namespace_id, pool.as_deref(), *include_stopped, page)
                    .map(Found::Runners)
            }
            Query::Namespaces => places::namespaces(connection).map(Found::Namespaces),
            Query::ActorNames { namespace_id, after, limit } => {
                places::actor_names(connection, namespace_id, after.as_deref(), *limit).map(Found::ActorNames)
            }
            Query::RunnerConfigs { namespace_id } => {
                places::runner_configs(connection, namespace_id).map(Found::RunnerConfigs)
            }
            Query::KvValue { actor_id, key } => {
                use kv::Entries;
                let entry = SqlEntries::of(connection, actor_id)?.get(key)?;
                Ok(Found::KvValue(entry.map(|entry| (entry.value, entry.update_ts))))
            }
        }
    }

    fn failed(&self, error: rusqlite::Error) -> StoreError {
        Refusal::Sqlite(error).at(&self.path)
    }
}

impl Store for SqliteStore {
    fn begin(&mut self) -> Result<(), StoreError> {
        self.connection.execute_batch("BEGIN IMMEDIATE").map_err(|error| self.failed(error))
    }

    fn commit(&mut self) -> Result<(), StoreError> {
        self.connection.execute_batch("COMMIT").map_err(|error| self.failed(error))?;
        if std::mem::take(&mut self.wrote) {
            self.checkpointer.written();
        }
        Ok(())
    }

    fn rollback(&mut self) {
        self.wrote = false;
        self.untidy = true;
        // A failed statement may have rolled back by itself.
        if self.connection.is_autocommit() {
            return;
        }
        if let Err(error) = self.connection.execute_batch("ROLLBACK") {
            error!(%error, path = %self.path.display(), "cannot roll back");
        }
    }

    fn apply(&mut self, change: &Change) -> Result<(), StoreError> {
        self.wrote = true;
        self.apply_change(change).map_err(|error| self.failed(error))
    }

    fn kv(&mut self, actor_id: &str, request: &KvRequest, now_ms: i64) -> Result<KvResponse, StoreError> {
        match request {
            KvRequest::Get { .. } | KvRequest::List { .. } => {}
            KvRequest::Drop => {
                self.wrote = true;
                self.untidy = true;
            }
            KvRequest::Put { .. } | KvRequest::Delete { .. } | KvRequest::DeleteRange { .. } => self.wrote = true,
        }
        SqlEntries::of(&self.connection, actor_id)
            .and_then(|mut entries| kv::answer(&mut entries, request, now_ms, self.quota))
            .map_err(|error| self.failed(error))
    }

    fn read(&mut self, query: &Query) -> Result<Found, StoreError> {
        self.find(query).map_err(|error| self.failed(error))
    }

    fn untidy(&self) -> bool {
        self.untidy
    }

    fn tidy(&mut self) -> Result<(), StoreError> {
        self.untidy = entries::tidy(&self.connection).map_err(|error| self.failed(error))?;
        self.wrote |= self.untidy;
        Ok(())
    }

    fn expires(&self) -> bool {
        true
    }

    fn expire(&mut self, now_ms: i64) -> Result<bool, StoreError> {
        let step = || {
            let pass = match self.expiring {
                Some(pass) => pass,
                None => Pass::begin(&self.connection, self.retention, now_ms)?,
            };
            Ok::<_, rusqlite::Error>((pass, pass.step(&self.connection)?))
        };
        let (pass, removed) = step().map_err(|error| self.failed(error))?;
        self.expiring = removed.more.then_some(pass);
        self.wrote |= removed.any;
        Ok(removed.more)
    }
}

/// Why a file could not be used; [`Refusal::at`] adds which.
#[derive(Debug)]
enum Refusal {
    Sqlite(rusqlite::Error),
    Said(String),
}

impl Refusal {
    fn at(&self, path: &Path) -> StoreError {
        let path = path.display();
        StoreError(match self {
            Self::Said(text) => format!("{path} {text}"),
            Self::Sqlite(error) => match error.sqlite_error_code() {
                Some(ErrorCode::DiskFull) => format!("{path}: the disk is full, or the file is as large as it may be"),
                Some(ErrorCode::NotADatabase) => format!("{path} is damaged, or not a database at all"),
                Some(ErrorCode::DatabaseCorrupt) => format!("{path} is damaged: {error}"),
                _ => format!("{path}: {error}"),
            },
        })
    }
}

impl From<rusqlite::Error> for Refusal {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

fn open(path: &Path) -> Result<Connection, Refusal> {
    let mut connection = Connection::open(path)?;
    schema::prepare(&mut connection)?;
    Ok(connection)
}

const FILE: &str = "gateway.db";

/// How SQLite would perform a query, one step per line.
#[cfg(test)]
fn plan(connection: &Connection, query: &str) -> String {
    let mut statement = connection.prepare(&format!("EXPLAIN QUERY PLAN {query}")).unwrap();
    let nothing = vec![rusqlite::types::Null; statement.parameter_count()];
    let steps = statement.query_map(rusqlite::params_from_iter(nothing), |row| row.get::<_, String>("detail")).unwrap();
    steps.map(Result::unwrap).collect::<Vec<_>>().join("\n")
}
