//! A store that forgets when the process ends, for tests and simulation.
//!
//! It means the same as the one on disk, transactions included: what [`Store::commit`] did not confirm is undone. It
//! can be told to let a commit fail, in both ways a disk can: nothing was written, or everything was and the
//! confirmation got lost.

mod entries;
mod table;

use std::cmp::Reverse;
use std::sync::Arc;

use bytes::Bytes;
use greenroom_protocol::{KvRequest, KvResponse};

use super::kv::{self, Entries};
use super::{
    ActorName, ActorRecord, Change, Found, NamespaceRecord, Phase, Query, RunnerConfigRecord, RunnerRecord, Store,
    StoreError,
};
use entries::{MemoryEntries, Stored};
use table::{End, Table};

/// A store in memory.
#[derive(Debug)]
pub struct MemoryStore {
    namespaces: Table<Arc<str>, Numbered<NamespaceRecord>>,
    actors: Table<Arc<str>, Numbered<ActorRecord>>,
    runners: Table<Arc<str>, Numbered<RunnerRecord>>,
    actor_names: Table<(Arc<str>, Arc<str>), ActorName>,
    runner_configs: Table<(Arc<str>, Arc<str>), RunnerConfigRecord>,
    kv: Table<(Arc<str>, Bytes), Stored>,
    kv_used: Table<Arc<str>, u64>,
    open: bool,
    /// The number of the next record that is new.
    next: u64,
    quota: u64,
    commits: u64,
    fault: Option<(u64, CommitFault)>,
}

/// How a commit fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommitFault {
    /// Nothing of the transaction happened, as on a full disk.
    NothingWritten,
    /// All of the transaction happened, and whoever asked hears that it failed, as when a disk dies while it confirms.
    ConfirmationLost,
}

/// A record with the number it got when it was new: of two of the same time, the higher is the newer.
#[derive(Clone, Debug)]
struct Numbered<R> {
    number: u64,
    record: R,
}

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self {
            namespaces: Table::new(),
            actors: Table::new(),
            runners: Table::new(),
            actor_names: Table::new(),
            runner_configs: Table::new(),
            kv: Table::new(),
            kv_used: Table::new(),
            open: false,
            next: 0,
            quota: kv::QUOTA,
            commits: 0,
            fault: None,
        }
    }

    /// Sets the most storage an actor may use, in bytes, instead of the engine's 10 GiB.
    #[must_use]
    pub fn with_quota(mut self, bytes: u64) -> Self {
        self.quota = bytes;
        self
    }

    /// Lets one commit fail, after this many more have succeeded.
    pub fn fail_commit_after(&mut self, commits: u64, fault: CommitFault) {
        self.fault = Some((commits, fault));
    }

    /// What a crash of the process leaves: everything confirmed, nothing of an open transaction.
    pub fn crash(&mut self) {
        if self.open {
            self.rollback();
        }
    }

    /// How many commits have happened.
    #[must_use]
    pub fn commits(&self) -> u64 {
        self.commits
    }

    fn put_namespace(&mut self, record: &NamespaceRecord) -> Result<(), StoreError> {
        if self.namespaces.rows().any(|other| other.record.name == record.name && other.record.id != record.id) {
            return Err(StoreError(format!("memory: a namespace `{}` exists already", record.name)));
        }
        let number = self.number(self.namespaces.get(&record.id).map(|row| row.number));
        self.namespaces.set(record.id.clone(), Some(Numbered { number, record: record.clone() }));
        Ok(())
    }

    fn put_actor(&mut self, record: &ActorRecord) -> Result<(), StoreError> {
        let rival = |other: &&Numbered<ActorRecord>| other.record.id != record.id && same_holder(&other.record, record);
        if let Some(rival) = self.actors.rows().find(rival) {
            return Err(StoreError(format!("memory: actor {} has the same key", rival.record.id)));
        }
        let number = self.number(self.actors.get(&record.id).map(|row| row.number));
        self.actors.set(record.id.clone(), Some(Numbered { number, record: record.clone() }));
        if record.phase == Phase::Destroyed {
            self.drop_kv(&record.id);
        }
        Ok(())
    }

    fn put_runner(&mut self, record: &RunnerRecord) {
        let number = self.number(self.runners.get(&record.id).map(|row| row.number));
        self.runners.set(record.id.clone(), Some(Numbered { number, record: record.clone() }));
    }

    fn drop_kv(&mut self, actor_id: &Arc<str>) {
        match self.entries(actor_id).clear() {
            Ok(()) => {}
            Err(never) => match never {},
        }
    }

    fn entries(&mut self, actor_id: &Arc<str>) -> MemoryEntries<'_> {
        MemoryEntries { actor_id: actor_id.clone(), rows: &mut self.kv, used: &mut self.kv_used }
    }

    fn number(&mut self, known: Option<u64>) -> u64 {
        known.unwrap_or_else(|| {
            self.next += 1;
            self.next
        })
    }

    fn actors_where(&self, wanted: impl Fn(&ActorRecord) -> bool) -> Vec<ActorRecord> {
        newest_first(self.actors.rows().filter(|row| wanted(&row.record)), |record| record.create_ts)
    }

    fn runners_where(&self, wanted: impl Fn(&RunnerRecord) -> bool) -> Vec<RunnerRecord> {
        newest_first(self.runners.rows().filter(|row| wanted(&row.record)), |record| record.create_ts)
    }

    fn sleeping_alarms(&self) -> impl Iterator<Item = (i64, &Numbered<ActorRecord>)> {
        self.actors
            .rows()
            .filter(|row| row.record.phase == Phase::Sleeping)
            .filter_map(|row| row.record.alarm_at.map(|at| (at, row)))
    }

    fn due(&self, now_ms: i64) -> Vec<ActorRecord> {
        let mut due: Vec<_> = self.sleeping_alarms().filter(|(at, _)| *at <= now_ms).collect();
        due.sort_by_key(|(at, row)| (*at, row.number));
        due.into_iter().take(1000).map(|(_, row)| row.record.clone()).collect()
    }

    fn end(&mut self, how: End) {
        self.namespaces.end(how);
        self.actors.end(how);
        self.runners.end(how);
        self.actor_names.end(how);
        self.runner_configs.end(how);
        self.kv.end(how);
        self.kv_used.end(how);
        self.open = false;
    }
}

impl Store for MemoryStore {
    fn begin(&mut self) -> Result<(), StoreError> {
        if self.open {
            return Err(StoreError("memory: a transaction is open already".to_owned()));
        }
        self.open = true;
        Ok(())
    }

    fn commit(&mut self) -> Result<(), StoreError> {
        let fault = match &mut self.fault {
            Some((0, fault)) => Some(*fault),
            Some((left, _)) => {
                *left -= 1;
                None
            }
            None => None,
        };
        if fault.is_some() {
            self.fault = None;
        }
        match fault {
            None => {
                self.end(End::Keep);
                self.commits += 1;
                Ok(())
            }
            Some(CommitFault::NothingWritten) => Err(StoreError("memory: the disk is full (simulated)".to_owned())),
            Some(CommitFault::ConfirmationLost) => {
                self.end(End::Keep);
                self.commits += 1;
                Err(StoreError("memory: the disk died while it confirmed (simulated)".to_owned()))
            }
        }
    }

    fn rollback(&mut self) {
        self.end(End::Undo);
    }

    fn apply(&mut self, change: &Change) -> Result<(), StoreError> {
        match change {
            Change::Namespace(record) => self.put_namespace(record)?,
            Change::Actor(record) => self.put_actor(record)?,
            Change::DropKv(actor_id) => self.drop_kv(actor_id),
            Change::Runner(record) => self.put_runner(record),
            Change::ActorName(record) => {
                self.actor_names.set((record.namespace_id.clone(), record.name.clone()), Some(record.clone()));
            }
            Change::RunnerConfig(record) => {
                self.runner_configs.set((record.namespace_id.clone(), record.pool.clone()), Some(record.clone()));
            }
            Change::DropRunnerConfig(namespace_id, pool) => {
                self.runner_configs.set((namespace_id.clone(), pool.clone()), None);
            }
        }
        Ok(())
    }

    fn kv(&mut self, actor_id: &str, request: &KvRequest, now_ms: i64) -> Result<KvResponse, StoreError> {
        let quota = self.quota;
        match kv::answer(&mut self.entries(&actor_id.into()), request, now_ms, quota) {
            Ok(response) => Ok(response),
            Err(never) => match never {},
        }
    }

    fn read(&mut self, query: &Query) -> Result<Found, StoreError> {
        Ok(match query {
            Query::Actor(id) => Found::Actor(self.actors.get(id).map(|row| Box::new(row.record.clone()))),
            Query::ActorByKey { namespace_id, name, key } => {
                let holder = self.actors.rows().find(|row| {
                    let actor = &row.record;
                    actor.namespace_id == *namespace_id
                        && actor.name == *name
                        && actor.key.as_ref() == Some(key)
                        && actor.phase != Phase::Destroyed
                });
                Found::Actor(holder.map(|row| Box::new(row.record.clone())))
            }
            Query::Actors { namespace_id, name, key, include_destroyed, created_before, limit } => {
                let mut actors = self.actors_where(|actor| {
                    actor.namespace_id == *namespace_id
                        && actor.name == *name
                        && (key.is_none() || actor.key == *key)
                        && (*include_destroyed || actor.phase != Phase::Destroyed)
                        && created_before.is_none_or(|before| actor.create_ts < before)
                });
                actors.truncate(*limit);
                for actor in &mut actors {
                    actor.input = None;
                }
                Found::Actors(actors)
            }
            Query::AwakeActors => {
                Found::Actors(self.actors_where(|actor| !matches!(actor.phase, Phase::Sleeping | Phase::Destroyed)))
            }
            Query::DueAlarms(now_ms) => Found::Actors(self.due(*now_ms)),
            Query::NextAlarm => Found::Alarm(self.sleeping_alarms().map(|(at, _)| at).min()),
            Query::Runners => Found::Runners(self.runners_where(|runner| runner.stop_ts.is_none())),
            Query::RunnersOf { namespace_id, pool, include_stopped, limit, created_before } => {
                let mut runners = self.runners_where(|runner| {
                    runner.namespace_id == *namespace_id
                        && pool.as_ref().is_none_or(|pool| runner.pool == *pool)
                        && (*include_stopped || runner.stop_ts.is_none())
                        && created_before.is_none_or(|before| runner.create_ts < before)
                });
                runners.truncate(*limit);
                Found::Runners(runners)
            }
            Query::Namespaces => Found::Namespaces(newest_first(self.namespaces.rows(), |record| record.create_ts)),
            Query::ActorNames { namespace_id, after, limit } => Found::ActorNames(
                self.actor_names
                    .rows()
                    .filter(|row| row.namespace_id == *namespace_id)
                    .filter(|row| after.as_ref().is_none_or(|after| row.name > *after))
                    .take(*limit)
                    .cloned()
                    .collect(),
            ),
            Query::RunnerConfigs { namespace_id } => Found::RunnerConfigs(
                self.runner_configs.rows().filter(|row| row.namespace_id == *namespace_id).cloned().collect(),
            ),
            Query::KvValue { actor_id, key } => match self.entries(actor_id).get(key) {
                Ok(entry) => Found::KvValue(entry.map(|entry| (entry.value, entry.update_ts))),
                Err(never) => match never {},
            },
        })
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

/// Whether both are living holders of one key.
fn same_holder(one: &ActorRecord, other: &ActorRecord) -> bool {
    let identity = |actor: &ActorRecord| (actor.namespace_id.clone(), actor.name.clone(), actor.key.clone());
    let living = |actor: &ActorRecord| actor.phase != Phase::Destroyed;
    one.key.is_some() && identity(one) == identity(other) && living(one) && living(other)
}

fn newest_first<'a, R: Clone + 'a>(
    rows: impl Iterator<Item = &'a Numbered<R>>,
    create_ts: impl Fn(&R) -> i64,
) -> Vec<R> {
    let mut rows: Vec<_> = rows.collect();
    rows.sort_by_key(|row| Reverse((create_ts(&row.record), row.number)));
    rows.into_iter().map(|row| row.record.clone()).collect()
}
