//! What callers of the public API want done.

use std::sync::Arc;

use super::directory::{KeyId, PoolId};
use super::lifecycle::Wanted;
use super::loads::ForActor;
use super::{Answer, CallId, CallRequest, Core, Effect, Now};
use crate::gateway::{CreateActor, GatewayError};
use crate::store::{ActorError, ActorRecord, Change, Phase, RunnerConfigRecord};

impl Core {
    pub(super) fn call(&mut self, call: CallId, request: CallRequest, now: Now) {
        if self.stopping {
            return self.answer(call, Err(STOPPING));
        }
        match request {
            CallRequest::Create(actor) => self.create_call(call, false, actor, now),
            CallRequest::GetOrCreate(actor) => self.create_call(call, true, actor, now),
            CallRequest::Destroy { namespace, actor_id } => self.destroy_call(call, &namespace, actor_id, now),
            CallRequest::CreateNamespace { name, display_name } => {
                if self.directory.namespaces.contains_key(&name) {
                    return self.answer(call, Err(GatewayError::NamespaceNameNotUnique));
                }
                let record = self.create_namespace(name, display_name, now);
                self.answer(call, Ok(Answer::Namespace(record)));
            }
            CallRequest::PutRunnerConfig { namespace, pool, drain_on_version_upgrade, metadata } => {
                let Some(pool) = self.pool_of(&namespace, pool) else {
                    return self.answer(call, Err(GatewayError::NamespaceNotFound));
                };
                let record = RunnerConfigRecord {
                    namespace_id: pool.namespace_id.clone(),
                    pool: pool.pool.clone(),
                    drain_on_version_upgrade,
                    metadata,
                };
                let changed = self.directory.configs.get(&pool) != Some(&record);
                if changed {
                    self.out.change(Change::RunnerConfig(record.clone()));
                    self.directory.configs.insert(pool, record);
                }
                self.answer(call, Ok(Answer::ConfigPut { changed }));
            }
            CallRequest::DropRunnerConfig { namespace, pool } => {
                let Some(pool) = self.pool_of(&namespace, pool) else {
                    return self.answer(call, Err(GatewayError::NamespaceNotFound));
                };
                if self.directory.configs.remove(&pool).is_some() {
                    self.out.change(Change::DropRunnerConfig(pool.namespace_id, pool.pool));
                }
                self.answer(call, Ok(Answer::Done));
            }
            CallRequest::Settle => self.answer(call, Ok(Answer::Done)),
        }
    }

    /// Creates an actor whose key, if it has one, is free.
    pub(super) fn create(&mut self, call: CallId, actor: CreateActor, now: Now) -> Option<ActorRecord> {
        let Some(pool) = self.pool_of(&actor.namespace, actor.pool) else {
            self.answer(call, Err(GatewayError::NamespaceNotFound));
            return None;
        };
        if !self.directory.configs.contains_key(&pool) {
            self.answer(call, Err(GatewayError::NoRunnerConfig { pool: pool.pool }));
            return None;
        }
        let id = self.random.id();
        self.note_name(&pool.namespace_id, &actor.name, None);
        self.take_in(ActorRecord {
            id: id.clone(),
            namespace_id: pool.namespace_id,
            name: actor.name,
            key: actor.key,
            pool: pool.pool,
            crash_policy: actor.crash_policy,
            input: actor.input,
            phase: Phase::Pending,
            generation: 0,
            runner_id: None,
            next_command: 0,
            command_acknowledged: false,
            last_event: None,
            alarm_at: None,
            wake_after_stop: false,
            restarts: 0,
            error: None,
            create_ts: now.wall_ms,
            start_ts: None,
            pending_allocation_ts: None,
            connectable_ts: None,
            sleep_ts: None,
            reschedule_ts: None,
            destroy_ts: None,
        });
        self.out.touch(&id);
        let created = self.directory.actors.get(&id).map(|actor| actor.record.clone());
        self.start(&id, Wanted::New, now);
        let record = match self.directory.actors.get(&id) {
            Some(actor) => actor.record.clone(),
            // There was no runner for it, and it is not of the kind that waits.
            None => ActorRecord {
                phase: Phase::Sleeping,
                sleep_ts: Some(now.wall_ms),
                error: Some(ActorError::NoCapacity),
                ..created?
            },
        };
        self.answer_actor(call, record.clone(), true);
        Some(record)
    }

    /// Somebody wants the end of an actor that is in memory.
    pub(super) fn destroy_in_memory(&mut self, call: CallId, actor_id: &Arc<str>, namespace_id: &str, now: Now) {
        let Some(actor) = self.directory.actors.get_mut(actor_id) else {
            return self.answer_destroyed(call, true);
        };
        if *actor.record.namespace_id != *namespace_id {
            return self.answer(call, Err(GatewayError::ActorNotFound));
        }
        actor.destroyers.push(call);
        self.delete(actor_id, now);
    }

    pub(super) fn answer_destroyed(&mut self, call: CallId, in_namespace: bool) {
        self.answer(call, if in_namespace { Ok(Answer::Done) } else { Err(GatewayError::ActorNotFound) });
    }

    pub(super) fn answer_actor(&mut self, call: CallId, record: ActorRecord, created: bool) {
        self.answer(call, Ok(Answer::Actor { record: Box::new(record), created }));
    }

    pub(super) fn answer(&mut self, call: CallId, answer: Result<Answer, GatewayError>) {
        self.out.push_gated(Effect::Answer { call, answer, after: 0 });
    }

    fn create_call(&mut self, call: CallId, get: bool, actor: CreateActor, now: Now) {
        let Some(pool) = self.pool_of(&actor.namespace, actor.pool.clone()) else {
            return self.answer(call, Err(GatewayError::NamespaceNotFound));
        };
        match (actor.key.clone(), get) {
            (Some(key), _) => {
                let key = KeyId { namespace_id: pool.namespace_id, name: actor.name.clone(), key };
                self.load_key(key, call, get, actor);
            }
            (None, true) => self.answer(call, Err(GatewayError::Internal("a key is needed".to_owned()))),
            (None, false) => {
                self.create(call, actor, now);
            }
        }
    }

    fn destroy_call(&mut self, call: CallId, namespace: &str, actor_id: Arc<str>, now: Now) {
        let Some(namespace) = self.directory.namespaces.get(namespace) else {
            return self.answer(call, Err(GatewayError::NamespaceNotFound));
        };
        let namespace_id = namespace.id.clone();
        if self.directory.actors.contains_key(&actor_id) {
            self.destroy_in_memory(call, &actor_id, &namespace_id, now);
        } else {
            self.load_actor(actor_id, ForActor::Destroy { call, namespace_id });
        }
    }

    fn pool_of(&self, namespace: &str, pool: Arc<str>) -> Option<PoolId> {
        let namespace_id = self.directory.namespaces.get(namespace)?.id.clone();
        Some(PoolId { namespace_id, pool })
    }
}

/// The answer to everything while the gateway stops.
pub(super) const STOPPING: GatewayError = GatewayError::Unavailable("the gateway is shutting down");
