//! What exists: namespaces, pools, names, and the actors that are awake.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytestring::ByteString;
use greenroom_protocol::delivery::{Cursor, Outbox};

use super::commands::{self, Order};
use super::rules;
use super::timers::Timer;
use super::{Boot, CallId, Core, Effect, Now, StreamRef};
use crate::store::{ActorName, ActorRecord, Change, CrashPolicy, NamespaceRecord, Phase, RunnerConfigRecord};

/// What exists.
#[derive(Debug, Default)]
pub(super) struct Directory {
    /// By name.
    pub(super) namespaces: BTreeMap<Arc<str>, NamespaceRecord>,
    pub(super) configs: BTreeMap<PoolId, RunnerConfigRecord>,
    /// By namespace id and name.
    pub(super) names: BTreeSet<(Arc<str>, Arc<str>)>,
    /// Actors that are neither asleep nor destroyed.
    pub(super) actors: BTreeMap<Arc<str>, Actor>,
    /// Actors that wait for a runner, oldest first.
    pub(super) queues: BTreeMap<PoolId, BTreeSet<(i64, Arc<str>)>>,
    /// Pools that may have room for those in their queue.
    pub(super) freed: BTreeSet<PoolId>,
}

/// An actor in memory.
#[derive(Debug)]
pub(super) struct Actor {
    pub(super) record: ActorRecord,
    /// The id as it goes over the wire, without copying it for every request.
    pub(super) wire_id: ByteString,
    /// The commands of this generation that its runner has not acknowledged.
    pub(super) commands: Outbox<Order>,
    /// The start command was sent more than once; its runner may have started the actor anew and count events from 0.
    pub(super) start_repeated: bool,
    /// The events of this generation.
    pub(super) events: Cursor,
    /// Open streams of this generation.
    pub(super) streams: BTreeSet<StreamRef>,
    /// Streams that wait until it serves, oldest first; those that are gone are skipped.
    pub(super) waiting: VecDeque<StreamRef>,
    /// How often it was started only because somebody waits.
    pub(super) rewakes: u32,
    /// Who is to be told of its end.
    pub(super) destroyers: Vec<CallId>,
}

/// A pool of runners.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct PoolId {
    pub(super) namespace_id: Arc<str>,
    pub(super) pool: Arc<str>,
}

/// What only one living actor may have.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct KeyId {
    pub(super) namespace_id: Arc<str>,
    pub(super) name: Arc<str>,
    pub(super) key: Arc<str>,
}

impl Actor {
    pub(super) fn new(record: ActorRecord) -> Self {
        Actor {
            wire_id: ByteString::from(&*record.id),
            commands: commands::outstanding(&record),
            start_repeated: false,
            events: Cursor::resumed(record.last_event),
            streams: BTreeSet::new(),
            waiting: VecDeque::new(),
            rewakes: 0,
            destroyers: Vec::new(),
            record,
        }
    }

    /// Whether this runner has this life of it.
    pub(super) fn is_held_by(&self, runner_id: &str, generation: u32) -> bool {
        self.record.generation == generation && self.record.runner_id.as_deref() == Some(runner_id)
    }

    /// Somebody asked for its destruction from outside.
    pub(super) fn is_deleted(&self) -> bool {
        self.record.destroy_ts.is_some()
    }

    pub(super) fn pool(&self) -> PoolId {
        PoolId { namespace_id: self.record.namespace_id.clone(), pool: self.record.pool.clone() }
    }
}

/// Whether a runner has the actor.
pub(super) fn is_placed(phase: Phase) -> bool {
    match phase {
        Phase::Starting
        | Phase::Running
        | Phase::StoppingToSleep
        | Phase::StoppingToDestroy
        | Phase::StoppingToMove => true,
        Phase::Pending | Phase::Backoff | Phase::Sleeping | Phase::Destroyed => false,
    }
}

impl Core {
    pub(super) fn boot(&mut self, boot: Boot, now: Now) {
        for record in boot.namespaces {
            self.add_namespace(record);
        }
        if !self.directory.namespaces.contains_key(DEFAULT_NAMESPACE) {
            self.create_namespace(DEFAULT_NAMESPACE.into(), "Default".to_owned(), now);
        }
        for config in boot.runner_configs {
            let pool = PoolId { namespace_id: config.namespace_id.clone(), pool: config.pool.clone() };
            self.directory.configs.insert(pool, config);
        }
        self.directory.names = boot.actor_names.into_iter().map(|name| (name.namespace_id, name.name)).collect();
        for runner in boot.runners {
            self.resume_runner(runner, now);
        }
        for actor in boot.actors {
            self.resume_actor(actor, now);
        }
        self.arm_alarm(boot.next_alarm, now);
    }

    /// An actor that an earlier gateway knew to be awake.
    fn resume_actor(&mut self, record: ActorRecord, now: Now) {
        let id = record.id.clone();
        let thresholds = &self.settings.thresholds;
        let wait = match record.phase {
            Phase::Starting => Some(thresholds.actor_start),
            Phase::StoppingToDestroy if record.destroy_ts.is_some() => Some(thresholds.destroy_grace),
            Phase::StoppingToSleep | Phase::StoppingToDestroy | Phase::StoppingToMove => Some(thresholds.actor_stop),
            Phase::Running => None,
            Phase::Pending => {
                let actor = self.take_in(record);
                let queue = (actor.record.pending_allocation_ts.unwrap_or(now.wall_ms), id.clone());
                let (pool, policy) = (actor.pool(), actor.record.crash_policy);
                self.directory.queues.entry(pool).or_default().insert(queue);
                if policy == CrashPolicy::Sleep {
                    self.timers.set(Timer::Actor(id), now.instant + self.settings.thresholds.queue);
                }
                return;
            }
            Phase::Backoff => {
                // A clock that was set back meanwhile makes no delay longer than the longest.
                let due = now.instant_of(record.reschedule_ts.unwrap_or(now.wall_ms));
                let due = due.min(now.instant + rules::RESTART_DELAY_MAX);
                self.take_in(record);
                self.timers.set(Timer::Actor(id), due);
                return;
            }
            Phase::Sleeping | Phase::Destroyed => return,
        };
        let runner_id = record.runner_id.clone().unwrap_or_else(|| Arc::from(""));
        self.take_in(record);
        if self.runners.hold(&runner_id, &id) {
            if let Some(wait) = wait {
                self.timers.set(Timer::Actor(id), now.instant + wait);
            }
        } else {
            self.actor_lost_with_runner(&id, now);
        }
    }

    /// Puts an actor into memory.
    pub(super) fn take_in(&mut self, record: ActorRecord) -> &mut Actor {
        let id = record.id.clone();
        let actor = Actor::new(record);
        self.directory.actors.entry(id).or_insert(actor)
    }

    /// Takes an actor out of memory and commits its last state.
    pub(super) fn let_go(&mut self, actor_id: &str) -> Option<Actor> {
        let actor = self.directory.actors.remove(actor_id)?;
        self.timers.cancel(&Timer::Actor(actor.record.id.clone()));
        self.timers.cancel(&Timer::Waiting(actor.record.id.clone()));
        self.loads.actor_left(&actor.record.id, self.out.next_seq());
        self.out.last_change(actor.record.clone());
        Some(actor)
    }

    /// Takes an actor out of memory that came in for nothing: it still sleeps, as the store knows.
    pub(super) fn leave_if_asleep(&mut self, actor_id: &str) {
        if self.directory.actors.get(actor_id).is_some_and(|actor| actor.record.phase == Phase::Sleeping) {
            self.directory.actors.remove(actor_id);
        }
    }

    pub(super) fn create_namespace(&mut self, name: Arc<str>, display_name: String, now: Now) -> NamespaceRecord {
        let record = NamespaceRecord { id: self.random.id(), name, display_name, create_ts: now.wall_ms };
        self.out.change(Change::Namespace(record.clone()));
        self.add_namespace(record.clone());
        record
    }

    fn add_namespace(&mut self, record: NamespaceRecord) {
        self.out.push_gated(Effect::Namespace { record: record.clone(), after: 0 });
        self.directory.namespaces.insert(record.name.clone(), record);
    }

    /// Makes a name known; what is known about it already stays unless `metadata` is given.
    pub(super) fn note_name(&mut self, namespace_id: &Arc<str>, name: &str, metadata: Option<&str>) {
        let entry = (namespace_id.clone(), Arc::<str>::from(name));
        if self.directory.names.contains(&entry) && metadata.is_none() {
            return;
        }
        let record = ActorName {
            namespace_id: namespace_id.clone(),
            name: entry.1.clone(),
            metadata: json_object(metadata.unwrap_or_default()),
        };
        self.out.change(Change::ActorName(record));
        self.directory.names.insert(entry);
    }
}

/// The text when it is a JSON object, else an empty one.
pub(super) fn json_object(text: &str) -> String {
    match serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(text) {
        Ok(_) => text.to_owned(),
        Err(_) => "{}".to_owned(),
    }
}

/// Exists from the first start on.
const DEFAULT_NAMESPACE: &str = "default";
