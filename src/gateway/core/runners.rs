//! Runners: who they are, what they hold, and when they count as lost.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use bytestring::ByteString;
use greenroom_protocol::delivery::Outbox;
use greenroom_protocol::{Init, InitMetadata, ToClient, close};
use tracing::{info, warn};

use super::commands::Order;
use super::directory::{PoolId, json_object};
use super::peer::Life;
use super::placement::{self, Candidate};
use super::timers::Timer;
use super::{ConnectionId, Core, Effect, Now};
use crate::gateway::LiveRunner;
use crate::store::{ActorError, Change, RunnerConfigRecord, RunnerRecord};

/// The runners that are not lost.
#[derive(Debug, Default)]
pub(super) struct Runners {
    pub(super) by_id: BTreeMap<Arc<str>, Runner>,
    by_key: BTreeMap<(PoolId, Arc<str>), Arc<str>>,
    by_pool: BTreeMap<PoolId, BTreeSet<Arc<str>>>,
}

/// A runner.
#[derive(Debug)]
pub(super) struct Runner {
    pub(super) record: RunnerRecord,
    pub(super) link: Option<ConnectionId>,
    /// The actors placed on it.
    pub(super) actors: BTreeSet<Arc<str>>,
    /// Lives it was told to stop although their actor is elsewhere or gone, by actor and generation.
    pub(super) leftovers: BTreeMap<(Arc<str>, u32), Leftover>,
    /// Until when it may come back.
    lost_at: Option<Instant>,
    /// Until when its actors may stop.
    drained_at: Option<Instant>,
}

/// A life that only its runner may still know.
#[derive(Debug)]
pub(super) struct Leftover {
    pub(super) commands: Outbox<Order>,
    /// Until when it takes up a slot.
    until: Instant,
}

impl Runner {
    fn free(&self) -> u32 {
        let used = u32::try_from(self.actors.len() + self.leftovers.len()).unwrap_or(u32::MAX);
        self.record.total_slots.saturating_sub(used)
    }

    fn is_draining(&self) -> bool {
        self.record.drain_ts.is_some()
    }

    fn pool(&self) -> PoolId {
        PoolId { namespace_id: self.record.namespace_id.clone(), pool: self.record.pool.clone() }
    }

    fn deadline(&self) -> Option<Instant> {
        [self.lost_at, self.drained_at].into_iter().flatten().min()
    }
}

impl Leftover {
    fn new(command: i64, until: Instant) -> Self {
        let mut commands = Outbox::new(command, 1);
        commands.push_beyond(Order::Stop);
        Leftover { commands, until }
    }
}

impl Runners {
    pub(super) fn link(&self, runner_id: &str) -> Option<ConnectionId> {
        self.by_id.get(runner_id)?.link
    }

    pub(super) fn connected(&self) -> usize {
        self.by_id.values().filter(|runner| runner.link.is_some()).count()
    }

    /// Nobody can be told anything any more.
    pub(super) fn unlink_all(&mut self) {
        self.by_id.values_mut().for_each(|runner| runner.link = None);
    }

    /// Puts an actor on a runner; answers whether there is such a runner.
    pub(super) fn hold(&mut self, runner_id: &str, actor_id: &Arc<str>) -> bool {
        let Some(runner) = self.by_id.get_mut(runner_id) else { return false };
        runner.actors.insert(actor_id.clone());
        true
    }

    fn add(&mut self, runner: Runner) {
        let id = runner.record.id.clone();
        let pool = runner.pool();
        let key = (pool.clone(), runner.record.key.clone());
        let successor =
            self.by_key.get(&key).and_then(|id| self.by_id.get(id)).is_some_and(|other| !other.is_draining());
        if !(runner.is_draining() && successor) {
            self.by_key.insert(key, id.clone());
        }
        self.by_pool.entry(pool).or_default().insert(id.clone());
        self.by_id.insert(id, runner);
    }

    fn remove(&mut self, runner_id: &str) -> Option<Runner> {
        let runner = self.by_id.remove(runner_id)?;
        let pool = runner.pool();
        let by_key = (pool.clone(), runner.record.key.clone());
        // A draining runner may have a successor under its key.
        if self.by_key.get(&by_key).is_some_and(|id| **id == *runner_id) {
            self.by_key.remove(&by_key);
        }
        if let Some(ids) = self.by_pool.get_mut(&pool) {
            ids.remove(runner_id);
            if ids.is_empty() {
                self.by_pool.remove(&pool);
            }
        }
        Some(runner)
    }
}

impl Core {
    /// A runner that an earlier gateway knew has the usual time to come back.
    pub(super) fn resume_runner(&mut self, record: RunnerRecord, now: Now) {
        let lost_at = now.instant + self.settings.thresholds.runner_lost;
        self.timers.set(Timer::Runner(record.id.clone()), lost_at);
        self.runners.add(Runner {
            record,
            link: None,
            actors: BTreeSet::new(),
            leftovers: BTreeMap::new(),
            lost_at: Some(lost_at),
            drained_at: None,
        });
    }

    /// Finds out who the runner on a new connection is, and takes the place of its older connection.
    pub(super) fn register_runner(
        &mut self,
        connection: ConnectionId,
        namespace_id: Arc<str>,
        key: Arc<str>,
        init: &Init,
        now: Now,
    ) -> Arc<str> {
        let pool = PoolId { namespace_id, pool: Arc::from(&*init.name) };
        let metadata = json_object(init.metadata.as_deref().unwrap_or_default());
        let known = self.runners.by_key.get(&(pool.clone(), key.clone())).cloned();
        let evicted = known.as_ref().and_then(|id| self.runners.by_id.get_mut(id)?.link.take());
        if let Some(id) = &known
            && evicted.is_some()
        {
            self.break_bodies_off(id);
        }
        if let Some(id) = known
            && let Some(runner) = self.runners.by_id.get_mut(&id)
        {
            if !runner.is_draining() {
                runner.link = Some(connection);
                runner.lost_at = None;
                // What it said when it first came is what counts, except for this.
                runner.record.metadata = metadata;
                runner.record.last_connected_ts = now.wall_ms;
                self.out.change(Change::Runner(runner.record.clone()));
                self.timers.cancel(&Timer::Runner(id.clone()));
                if let Some(evicted) = evicted {
                    self.close(evicted, 1000, close::EVICTION);
                    self.forget_connection(&id);
                }
                self.note_prepopulated(&pool, init);
                return id;
            }
            // It has said goodbye; who comes with its key now is somebody new.
            if let Some(evicted) = evicted {
                self.close(evicted, 1000, close::EVICTION);
                self.forget_connection(&id);
            }
        }

        let record = RunnerRecord {
            id: self.random.id(),
            namespace_id: pool.namespace_id.clone(),
            pool: pool.pool.clone(),
            key,
            version: init.version,
            total_slots: init.total_slots,
            metadata,
            create_ts: now.wall_ms,
            last_connected_ts: now.wall_ms,
            last_ping_ts: now.wall_ms,
            drain_ts: None,
            stop_ts: None,
        };
        let id = record.id.clone();
        self.out.change(Change::Runner(record.clone()));
        self.runners.add(Runner {
            record,
            link: Some(connection),
            actors: BTreeSet::new(),
            leftovers: BTreeMap::new(),
            lost_at: None,
            drained_at: None,
        });
        self.note_prepopulated(&pool, init);
        self.drain_older_versions(&pool, init.version, now);
        id
    }

    /// Greets a runner and gives it everything it may have missed.
    pub(super) fn runner_connected(&mut self, connection: ConnectionId, runner_id: &Arc<str>, now: Now) {
        let thresholds = &self.settings.thresholds;
        let millis = |duration: std::time::Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        let message = ToClient::Init {
            runner_id: ByteString::from(&**runner_id),
            metadata: InitMetadata {
                runner_lost_threshold: millis(thresholds.runner_lost),
                actor_stop_threshold: Some(millis(thresholds.actor_stop)),
                serverless_drain_grace_period: None,
            },
        };
        self.out.push_gated(Effect::Send { connection, message, after: 0 });
        self.redeliver_commands(runner_id, connection);
        let actors = self.runners.by_id.get(runner_id).map(|runner| runner.actors.clone()).unwrap_or_default();
        for actor_id in &actors {
            self.send_backlogs(actor_id);
            self.resume_sockets(actor_id, now);
            self.serve_waiting(actor_id);
        }
        self.runner_has_room(runner_id);
    }

    pub(super) fn runner_disconnected(
        &mut self,
        runner_id: &Arc<str>,
        connection: ConnectionId,
        life: &Life,
        now: Now,
    ) {
        let lost_at = now.instant + self.settings.thresholds.runner_lost;
        let Some(runner) = self.runners.by_id.get_mut(runner_id) else { return };
        if runner.link != Some(connection) {
            return;
        }
        runner.link = None;
        runner.lost_at = Some(lost_at);
        runner.record.last_ping_ts = life.last_pong_ts;
        self.out.change(Change::Runner(runner.record.clone()));
        let gone = runner.is_draining() && runner.actors.is_empty();
        if let Some(deadline) = runner.deadline() {
            self.timers.set(Timer::Runner(runner_id.clone()), deadline);
        }
        self.forget_connection(runner_id);
        self.break_bodies_off(runner_id);
        if gone {
            info!(%runner_id, "drained runner left");
            self.retire_runner(runner_id, now);
        } else {
            info!(%runner_id, "runner disconnected");
        }
    }

    pub(super) fn runner_timeout(&mut self, runner_id: &Arc<str>, now: Now) {
        let Some(runner) = self.runners.by_id.get(runner_id) else { return };
        match runner.deadline() {
            Some(deadline) if deadline <= now.instant => self.retire_runner(runner_id, now),
            Some(deadline) => self.timers.set(Timer::Runner(runner_id.clone()), deadline),
            None => {}
        }
    }

    /// A runner wants to leave: it gets no new actors, and those it has are told to stop.
    pub(super) fn drain(&mut self, runner_id: &Arc<str>, now: Now) {
        let deadline = now.instant + self.settings.thresholds.runner_lost;
        let Some(runner) = self.runners.by_id.get_mut(runner_id) else { return };
        if runner.is_draining() {
            return;
        }
        runner.record.drain_ts = Some(now.wall_ms);
        runner.drained_at = Some(deadline);
        self.out.change(Change::Runner(runner.record.clone()));
        let actors = runner.actors.clone();
        info!(%runner_id, actors = actors.len(), "runner drains");
        self.timers.set_earlier(Timer::Runner(runner_id.clone()), deadline);
        for actor_id in &actors {
            self.move_actor(actor_id, now);
        }
        self.check_drained(runner_id, now);
    }

    /// Lets a draining runner go once it has no actor left.
    fn check_drained(&mut self, runner_id: &Arc<str>, now: Now) {
        let linger = now.instant + self.settings.thresholds.drained;
        let Some(runner) = self.runners.by_id.get_mut(runner_id) else { return };
        if runner.is_draining() && runner.actors.is_empty() {
            let deadline = runner.drained_at.map_or(linger, |drained_at| drained_at.min(linger));
            runner.drained_at = Some(deadline);
            self.timers.set_earlier(Timer::Runner(runner_id.clone()), deadline);
        }
    }

    /// Takes an actor off its runner. With `leftover` the runner is told to stop it, since it may still run there.
    pub(super) fn release(
        &mut self,
        runner_id: &Arc<str>,
        actor_id: &Arc<str>,
        leftover: Option<(u32, i64)>,
        now: Now,
    ) {
        let until = now.instant + self.settings.thresholds.actor_stop;
        let Some(runner) = self.runners.by_id.get_mut(runner_id) else { return };
        runner.actors.remove(actor_id);
        self.directory.freed.insert(runner.pool());
        if let Some((generation, next_command)) = leftover {
            runner.leftovers.insert((actor_id.clone(), generation), Leftover::new(next_command, until));
            self.timers.set_earlier(Timer::Leftovers(runner_id.clone()), until);
            self.send_leftover_stop(runner_id, actor_id, generation);
        }
        self.check_drained(runner_id, now);
    }

    /// A runner runs a life that is no actor's any more, perhaps since before this process began.
    pub(super) fn stop_stray(&mut self, runner_id: &Arc<str>, actor_id: &Arc<str>, generation: u32, now: Now) {
        let until = now.instant + self.settings.thresholds.actor_stop;
        let Some(runner) = self.runners.by_id.get_mut(runner_id) else { return };
        let key = (actor_id.clone(), generation);
        if runner.leftovers.contains_key(&key) || runner.leftovers.len() >= STRAYS_MAX {
            return;
        }
        warn!(%runner_id, %actor_id, generation, "runner runs an actor that is not placed on it");
        runner.leftovers.insert(key, Leftover::new(1, until));
        self.timers.set_earlier(Timer::Leftovers(runner_id.clone()), until);
        self.send_leftover_stop(runner_id, actor_id, generation);
    }

    /// A runner says that a life which is no actor's any more has ended.
    pub(super) fn leftover_ended(&mut self, runner_id: &str, actor_id: &str, generation: u32) {
        if let Some(runner) = self.runners.by_id.get_mut(runner_id)
            && runner.leftovers.remove(&(Arc::from(actor_id), generation)).is_some()
        {
            self.directory.freed.insert(runner.pool());
        }
    }

    pub(super) fn leftovers_timeout(&mut self, runner_id: &Arc<str>, now: Now) {
        let Some(runner) = self.runners.by_id.get_mut(runner_id) else { return };
        runner.leftovers.retain(|_, leftover| leftover.until > now.instant);
        self.directory.freed.insert(runner.pool());
        if let Some(next) = runner.leftovers.values().map(|leftover| leftover.until).min() {
            self.timers.set(Timer::Leftovers(runner_id.clone()), next);
        }
    }

    /// A runner that may have got room for those who wait.
    pub(super) fn runner_has_room(&mut self, runner_id: &str) {
        if let Some(runner) = self.runners.by_id.get(runner_id) {
            self.directory.freed.insert(runner.pool());
        }
    }

    /// The runner that gets the next actor of a pool.
    pub(super) fn choose_runner(&mut self, pool: &PoolId, now: Now) -> Option<Arc<str>> {
        let ids = self.runners.by_pool.get(pool)?;
        let eligible = self.settings.thresholds.eligible;
        let candidates = ids.iter().filter_map(|id| {
            let runner = self.runners.by_id.get(id)?;
            let peer = self.peers.by_id.get(&runner.link?)?;
            let alive = now.instant.duration_since(peer.life.last_pong) < eligible;
            (alive && !runner.is_draining()).then(|| Candidate {
                runner: id,
                version: runner.record.version,
                free: runner.free(),
            })
        });
        placement::choose(candidates, &mut self.random).cloned()
    }

    /// The connected runners.
    #[must_use]
    pub fn live_runners(&self) -> BTreeMap<Arc<str>, LiveRunner> {
        let live = self.runners.by_id.iter().filter_map(|(id, runner)| {
            let life = self.peers.by_id.get(&runner.link?)?.life;
            let live = LiveRunner {
                remaining_slots: runner.free(),
                last_ping_ts: life.last_pong_ts,
                last_rtt: life.round_trip,
            };
            Some((id.clone(), live))
        });
        live.collect()
    }

    /// A runner's id is used up; what it still has is lost.
    fn retire_runner(&mut self, runner_id: &Arc<str>, now: Now) {
        let Some(mut runner) = self.runners.remove(runner_id) else { return };
        self.timers.cancel(&Timer::Runner(runner_id.clone()));
        self.timers.cancel(&Timer::Leftovers(runner_id.clone()));
        if let Some(connection) = runner.link {
            self.close(connection, 1000, close::EVICTION);
        }
        runner.record.stop_ts = Some(now.wall_ms);
        self.out.change(Change::Runner(runner.record.clone()));
        if !runner.actors.is_empty() {
            warn!(%runner_id, actors = runner.actors.len(), "runner lost");
        }
        for actor_id in &runner.actors {
            let error = if runner.is_draining() {
                ActorError::RunnerDrainingTimeout { runner_id: runner_id.clone() }
            } else {
                ActorError::RunnerConnectionLost { runner_id: runner_id.clone() }
            };
            self.actor_lost(actor_id, error, now);
        }
        self.detach_sockets(runner_id);
    }

    /// What was sent on a connection that is gone counts as not sent.
    fn forget_connection(&mut self, runner_id: &str) {
        self.detach_sockets(runner_id);
        let Some(runner) = self.runners.by_id.get_mut(runner_id) else { return };
        for leftover in runner.leftovers.values_mut() {
            leftover.commands.disconnected();
        }
        for actor_id in &runner.actors {
            if let Some(actor) = self.directory.actors.get_mut(actor_id) {
                actor.commands.disconnected();
                actor.events.acknowledge_again();
            }
        }
    }

    fn note_prepopulated(&mut self, pool: &PoolId, init: &Init) {
        for (name, described) in init.prepopulate_actor_names.iter().flatten() {
            self.note_name(&pool.namespace_id, name, Some(&described.metadata));
        }
        if !self.directory.configs.contains_key(pool) {
            let config = RunnerConfigRecord {
                namespace_id: pool.namespace_id.clone(),
                pool: pool.pool.clone(),
                drain_on_version_upgrade: false,
                metadata: None,
            };
            self.out.change(Change::RunnerConfig(config.clone()));
            self.directory.configs.insert(pool.clone(), config);
        }
    }

    fn drain_older_versions(&mut self, pool: &PoolId, version: u32, now: Now) {
        if !self.directory.configs.get(pool).is_some_and(|config| config.drain_on_version_upgrade) {
            return;
        }
        let ids = self.runners.by_pool.get(pool).cloned().unwrap_or_default();
        for id in ids {
            if self.runners.by_id.get(&id).is_some_and(|runner| runner.record.version < version) {
                self.drain(&id, now);
            }
        }
    }
}

/// A runner that claims to run more lives than this which nobody placed on it makes them up.
const STRAYS_MAX: usize = 10_000;
