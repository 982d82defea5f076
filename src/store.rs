//! What a gateway remembers, durably.
//!
//! [`Store`] is the storage itself, used by one thread; `Committer` is that thread: it takes work from a bounded
//! queue, applies whatever has queued up as one transaction, makes it durable, and only then answers each. Work is
//! applied in the order it was submitted, so a read submitted after a write sees it.

#[cfg(feature = "gateway")]
mod committer;
mod kv;
mod memory;
mod record;
#[cfg(feature = "gateway")]
mod sqlite;

use std::sync::Arc;

use bytes::Bytes;
use greenroom_protocol::{KvRequest, KvResponse};

pub use record::{
    ActorError, ActorName, ActorRecord, CrashPolicy, NamespaceRecord, Phase, RunnerConfigRecord, RunnerRecord,
};

#[cfg(feature = "gateway")]
pub use committer::{Activity, Committer, StoreHandle};
pub use memory::{CommitFault, MemoryStore};
#[cfg(feature = "gateway")]
pub use sqlite::{Retention, SqliteStore};

/// Durable storage. Everything between [`Store::begin`] and [`Store::commit`] happens or does not happen as a whole,
/// and is on disk when `commit` returns.
pub trait Store: Send + 'static {
    /// Opens a transaction.
    ///
    /// # Errors
    /// [`StoreError`]; nothing is open then.
    fn begin(&mut self) -> Result<(), StoreError>;

    /// Makes the transaction durable.
    ///
    /// # Errors
    /// [`StoreError`]; nothing of the transaction happened then.
    fn commit(&mut self) -> Result<(), StoreError>;

    /// Undoes the open transaction.
    fn rollback(&mut self);

    /// Applies a change inside the transaction.
    ///
    /// # Errors
    /// [`StoreError`]; the transaction must be rolled back then.
    fn apply(&mut self, change: &Change) -> Result<(), StoreError>;

    /// Performs a key-value request of an actor inside the transaction. Does not ask whether the actor lives: who does
    /// submits the change that destroys it behind every request it let through, and lets none through after that; since
    /// a store is used in the order of submission, a destroyed actor has no entries. A refusal for its content, such as a key that
    /// is too long, is a [`KvResponse::Error`] that changes nothing and names the limit.
    ///
    /// # Errors
    /// [`StoreError`]; the transaction must be rolled back then.
    fn kv(&mut self, actor_id: &str, request: &KvRequest, now_ms: i64) -> Result<KvResponse, StoreError>;

    /// Reads.
    ///
    /// # Errors
    /// [`StoreError`].
    fn read(&mut self, query: &Query) -> Result<Found, StoreError>;

    /// Whether [`Store::tidy`] has something to do.
    fn untidy(&self) -> bool {
        false
    }

    /// Removes a bounded part of what nobody can read any more, inside the transaction.
    ///
    /// # Errors
    /// [`StoreError`]; the transaction must be rolled back then.
    fn tidy(&mut self) -> Result<(), StoreError> {
        Ok(())
    }

    /// Whether [`Store::expire`] can ever have something to do.
    fn expires(&self) -> bool {
        false
    }

    /// Removes a bounded part of what has been kept long enough: records of destroyed actors and stopped runners. Inside
    /// the transaction. True: there is more.
    ///
    /// # Errors
    /// [`StoreError`]; the transaction must be rolled back then.
    fn expire(&mut self, now_ms: i64) -> Result<bool, StoreError> {
        let _ = now_ms;
        Ok(false)
    }
}

/// A change of what is remembered. Records replace their predecessor with the same identity.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// A namespace.
    Namespace(NamespaceRecord),
    /// An actor, by id. Once it is destroyed its key-value storage is gone.
    Actor(Box<ActorRecord>),
    /// Everything in the key-value storage of an actor is removed.
    DropKv(Arc<str>),
    /// A runner, by id.
    Runner(RunnerRecord),
    /// A name that actors of a namespace can have.
    ActorName(ActorName),
    /// The settings of a pool.
    RunnerConfig(RunnerConfigRecord),
    /// The settings of a pool are removed, by namespace and pool name.
    DropRunnerConfig(Arc<str>, Arc<str>),
}

/// A question to the store. Lists answer newest first.
#[derive(Clone, Debug, PartialEq)]
pub enum Query {
    /// One actor by id, also a destroyed one.
    Actor(Arc<str>),
    /// The actor that holds a key, not a destroyed one.
    ActorByKey {
        /// Namespace id.
        namespace_id: Arc<str>,
        /// Actor name.
        name: Arc<str>,
        /// Actor key.
        key: Arc<str>,
    },
    /// Actors of a name, without their inputs.
    Actors {
        /// Namespace id.
        namespace_id: Arc<str>,
        /// Actor name.
        name: Arc<str>,
        /// Only the one(s) with this key.
        key: Option<Arc<str>>,
        /// Destroyed ones too.
        include_destroyed: bool,
        /// Only those created before this time, in milliseconds.
        created_before: Option<i64>,
        /// At most this many.
        limit: usize,
    },
    /// Every actor that is neither asleep nor destroyed: what a gateway must know after a restart.
    AwakeActors,
    /// Sleeping actors whose alarm is due at this time, in milliseconds; oldest first, at most 1,000.
    DueAlarms(i64),
    /// The earliest alarm of a sleeping actor.
    NextAlarm,
    /// Runners not expired.
    Runners,
    /// Runners of a namespace, also stopped ones.
    RunnersOf {
        /// Namespace id.
        namespace_id: Arc<str>,
        /// Only of this pool.
        pool: Option<Arc<str>>,
        /// Stopped ones too.
        include_stopped: bool,
        /// At most this many.
        limit: usize,
        /// Only those created before this time, in milliseconds.
        created_before: Option<i64>,
    },
    /// All namespaces.
    Namespaces,
    /// Actor names of a namespace, in name order, after the given one.
    ActorNames {
        /// Namespace id.
        namespace_id: Arc<str>,
        /// Only names after this one.
        after: Option<Arc<str>>,
        /// At most this many.
        limit: usize,
    },
    /// Pool settings of a namespace.
    RunnerConfigs {
        /// Namespace id.
        namespace_id: Arc<str>,
    },
    /// One stored value of an actor: value and the time of its last put, in milliseconds.
    KvValue {
        /// Actor id.
        actor_id: Arc<str>,
        /// The key.
        key: Bytes,
    },
}

/// The answer to a [`Query`].
#[derive(Clone, Debug, PartialEq)]
pub enum Found {
    /// For [`Query::Actor`] and [`Query::ActorByKey`].
    Actor(Option<Box<ActorRecord>>),
    /// For the queries after several actors.
    Actors(Vec<ActorRecord>),
    /// For [`Query::NextAlarm`].
    Alarm(Option<i64>),
    /// For the queries after runners.
    Runners(Vec<RunnerRecord>),
    /// For [`Query::Namespaces`].
    Namespaces(Vec<NamespaceRecord>),
    /// For [`Query::ActorNames`].
    ActorNames(Vec<ActorName>),
    /// For [`Query::RunnerConfigs`].
    RunnerConfigs(Vec<RunnerConfigRecord>),
    /// For [`Query::KvValue`].
    KvValue(Option<(Bytes, i64)>),
}

/// The storage failed: a full or dead disk, or a damaged file. The text names the file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct StoreError(pub String);
