//! Questions to the store about actors that are not in memory.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::directory::KeyId;
use super::{CallId, Core, Effect, LoadId, Now, StreamRef};
use crate::gateway::{CreateActor, GatewayError};
use crate::store::{ActorRecord, Found, Query};

/// What is asked and why.
#[derive(Debug, Default)]
pub(super) struct Loads {
    next: u64,
    open: BTreeMap<LoadId, Load>,
    actors: BTreeMap<Arc<str>, LoadId>,
    keys: BTreeMap<KeyId, LoadId>,
    /// Actors that left the memory while something was being asked, with the commit that holds their last state:
    /// an older answer about them is worthless.
    left: BTreeMap<Arc<str>, u64>,
}

#[derive(Debug)]
struct Load {
    /// The last commit that the answer is sure to include.
    seq: u64,
    purpose: Purpose,
}

#[derive(Debug)]
enum Purpose {
    Actor { id: Arc<str>, then: Vec<ForActor> },
    Key { key: KeyId, then: Vec<(CallId, bool, CreateActor)> },
    DueAlarms,
    NextAlarm,
}

/// What to do with an actor once it is known.
#[derive(Debug)]
pub(super) enum ForActor {
    Open {
        stream: StreamRef,
    },
    Destroy {
        call: CallId,
        namespace_id: Arc<str>,
    },
    /// The sockets of this actor keep something for it.
    Wake(Arc<str>),
}

impl Loads {
    fn add(&mut self, seq: u64, purpose: Purpose) -> LoadId {
        self.next += 1;
        let id = LoadId(self.next);
        self.open.insert(id, Load { seq, purpose });
        id
    }

    /// Notes that an actor left the memory and that its last state is in the commit `seq`.
    pub(super) fn actor_left(&mut self, actor_id: &Arc<str>, seq: u64) {
        if !self.open.is_empty() {
            self.left.insert(actor_id.clone(), seq);
        }
    }

    fn is_stale(&self, actor_id: &str, seq: u64) -> bool {
        self.left.get(actor_id).is_some_and(|left| *left > seq)
    }
}

impl Core {
    /// Asks for an actor that is not in memory.
    pub(super) fn load_actor(&mut self, actor_id: Arc<str>, then: ForActor) {
        if let Some(load) = self.loads.actors.get(&actor_id)
            && let Some(Load { purpose: Purpose::Actor { then: others, .. }, .. }) = self.loads.open.get_mut(load)
        {
            if matches!(then, ForActor::Wake(_)) {
                // Once is enough, and there is always room for it.
                if !others.iter().any(|other| matches!(other, ForActor::Wake(_))) {
                    others.push(then);
                }
            } else if others.len() < self.settings.limits.waiting_per_actor {
                others.push(then);
            } else {
                self.refuse(then, GatewayError::Unavailable("too many requests wait for this actor"));
            }
            return;
        }
        if self.loads.open.len() >= self.settings.limits.loads {
            return self.refuse(then, GatewayError::Unavailable("too many sleeping actors are asked for at once"));
        }
        self.ask_for_actor(actor_id, vec![then]);
    }

    /// Asks who holds a key, on behalf of a call that creates.
    pub(super) fn load_key(&mut self, key: KeyId, call: CallId, get: bool, actor: CreateActor) {
        if let Some(load) = self.loads.keys.get(&key)
            && let Some(Load { purpose: Purpose::Key { then, .. }, .. }) = self.loads.open.get_mut(load)
        {
            then.push((call, get, actor));
            return;
        }
        if self.loads.open.len() >= self.settings.limits.loads {
            return self.answer(call, Err(GatewayError::Unavailable("too many actors are created at once")));
        }
        self.ask_for_key(key, vec![(call, get, actor)]);
    }

    pub(super) fn load_due_alarms(&mut self, now: Now) {
        let load = self.loads.add(self.out.seq(), Purpose::DueAlarms);
        self.out.push(Effect::Load { load, query: Query::DueAlarms(now.wall_ms) });
    }

    pub(super) fn loaded(&mut self, load: LoadId, found: Found, now: Now) {
        let Some(Load { seq, purpose }) = self.loads.open.remove(&load) else { return };
        match (purpose, found) {
            (Purpose::Actor { id, then }, Found::Actor(record)) => {
                self.loads.actors.remove(&id);
                if self.loads.is_stale(&id, seq) && !self.directory.actors.contains_key(&id) {
                    self.ask_for_actor(id, then);
                } else {
                    for then in then {
                        // Who came first may have destroyed it; who comes next finds it so.
                        let latest = self.out.last_record(&id).cloned();
                        self.with_actor(&id, latest.as_ref().or(record.as_deref()), then, now);
                    }
                    self.leave_if_asleep(&id);
                }
            }
            (Purpose::Key { key, then }, Found::Actor(record)) => {
                self.loads.keys.remove(&key);
                self.with_key(key, record.as_deref(), seq, then, now);
            }
            (Purpose::DueAlarms, Found::Actors(records)) => {
                for record in records {
                    if !self.loads.is_stale(&record.id, seq) {
                        self.alarm_due(record, now);
                    }
                }
                let load = self.loads.add(self.out.seq(), Purpose::NextAlarm);
                // Behind the commit that wakes these, or they would be found again.
                self.out.push_gated(Effect::Load { load, query: Query::NextAlarm });
            }
            (Purpose::NextAlarm, Found::Alarm(at)) => self.arm_alarm(at, now),
            (purpose, found) => {
                tracing::error!(?purpose, ?found, "the store answered another question");
            }
        }
        if self.loads.open.is_empty() {
            self.loads.left.clear();
        }
    }

    fn ask_for_actor(&mut self, id: Arc<str>, then: Vec<ForActor>) {
        let load = self.loads.add(self.out.seq(), Purpose::Actor { id: id.clone(), then });
        self.loads.actors.insert(id.clone(), load);
        self.out.push(Effect::Load { load, query: Query::Actor(id) });
    }

    fn ask_for_key(&mut self, key: KeyId, then: Vec<(CallId, bool, CreateActor)>) {
        let load = self.loads.add(self.out.seq(), Purpose::Key { key: key.clone(), then });
        self.loads.keys.insert(key.clone(), load);
        let query = Query::ActorByKey { namespace_id: key.namespace_id, name: key.name, key: key.key };
        self.out.push(Effect::Load { load, query });
    }

    fn with_actor(&mut self, id: &Arc<str>, record: Option<&ActorRecord>, then: ForActor, now: Now) {
        if !self.directory.actors.contains_key(id) {
            let Some(record) = record else { return self.refuse(then, GatewayError::ActorNotFound) };
            if record.destroy_ts.is_some() {
                return match then {
                    ForActor::Open { .. } | ForActor::Wake(_) => self.refuse(then, GatewayError::ActorNotFound),
                    ForActor::Destroy { call, namespace_id } => {
                        self.answer_destroyed(call, *namespace_id == *record.namespace_id);
                    }
                };
            }
            if let ForActor::Destroy { namespace_id, .. } = &then
                && **namespace_id != *record.namespace_id
            {
                return self.refuse(then, GatewayError::ActorNotFound);
            }
            self.take_in(record.clone());
        }
        match then {
            ForActor::Open { stream } => self.join_queue(stream, id, now),
            ForActor::Destroy { call, namespace_id } => self.destroy_in_memory(call, id, &namespace_id, now),
            ForActor::Wake(_) => self.wake_for_sockets(id, now),
        }
    }

    fn with_key(
        &mut self,
        key: KeyId,
        record: Option<&ActorRecord>,
        seq: u64,
        then: Vec<(CallId, bool, CreateActor)>,
        now: Now,
    ) {
        let mut holder = record.cloned();
        if let Some(record) = &holder {
            if let Some(actor) = self.directory.actors.get(&record.id) {
                holder = Some(actor.record.clone());
            } else if self.loads.is_stale(&record.id, seq) {
                return self.ask_for_key(key, then);
            }
        }
        for (call, get, actor) in then {
            match &holder {
                Some(record) if get => self.answer_actor(call, record.clone(), false),
                Some(record) => {
                    let error =
                        GatewayError::DuplicateKey { existing_actor_id: record.id.clone(), key: key.key.clone() };
                    self.answer(call, Err(error));
                }
                None => holder = self.create(call, actor, now),
            }
        }
    }

    fn refuse(&mut self, then: ForActor, error: GatewayError) {
        match then {
            ForActor::Open { stream } => self.refuse_waiting(stream, error),
            ForActor::Destroy { call, .. } => self.answer(call, Err(error)),
            ForActor::Wake(actor_id) if error == GatewayError::ActorNotFound => {
                self.close_sockets_of(&actor_id);
            }
            ForActor::Wake(actor_id) => self.give_up_waking(&actor_id, "guard.service_unavailable"),
        }
    }
}
