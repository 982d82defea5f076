//! An actor's way through its lives.

use std::sync::Arc;
use std::time::Duration;

use greenroom_protocol::delivery::{Cursor, Outbox};
use tracing::{debug, info};

use super::commands::Order;
use super::directory::{Actor, is_placed};
use super::rules::{self, Ending, Next};
use super::timers::Timer;
use super::{Core, Now};
use crate::gateway::GatewayError;
use crate::store::{ActorError, Change, CrashPolicy, Phase};

/// Why an actor is to be awake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// It is new.
    New,
    /// Somebody asks for it, or its alarm is due.
    Asked,
    /// Its policy says so.
    Again,
}

impl Core {
    /// Starts an actor that has no runner, or lets it wait for one.
    pub(super) fn start(&mut self, actor_id: &Arc<str>, wanted: Wanted, now: Now) {
        let Some(actor) = self.directory.actors.get(actor_id) else { return };
        let pool = actor.pool();
        // Who waits longer comes first.
        let queue_is_empty = self.directory.queues.get(&pool).is_none_or(std::collections::BTreeSet::is_empty);
        if queue_is_empty && let Some(runner_id) = self.choose_runner(&pool, now) {
            return self.start_on(actor_id, &runner_id, now);
        }
        let Some(actor) = self.directory.actors.get_mut(actor_id) else { return };
        if actor.record.error.is_none() {
            actor.record.error = Some(ActorError::NoCapacity);
        }
        match (actor.record.crash_policy, wanted) {
            (CrashPolicy::Sleep, Wanted::New | Wanted::Again) => {
                actor.record.error = Some(ActorError::NoCapacity);
                self.fall_asleep(actor_id, now);
            }
            (CrashPolicy::Sleep, Wanted::Asked) => {
                self.timers.set(Timer::Actor(actor_id.clone()), now.instant + self.settings.thresholds.queue);
                self.queue(actor_id, now);
            }
            (CrashPolicy::Restart | CrashPolicy::Destroy, Wanted::New | Wanted::Asked | Wanted::Again) => {
                self.timers.cancel(&Timer::Actor(actor_id.clone()));
                self.queue(actor_id, now);
            }
        }
    }

    /// Gives free slots to those who wait for them.
    pub(super) fn fill_freed_slots(&mut self, now: Now) {
        while let Some(pool) = self.directory.freed.pop_first() {
            while let Some((_, actor_id)) = self.directory.queues.get(&pool).and_then(|queue| queue.first()).cloned() {
                let Some(runner_id) = self.choose_runner(&pool, now) else { break };
                self.start_on(&actor_id, &runner_id, now);
            }
        }
    }

    /// The actor serves.
    pub(super) fn actor_running(&mut self, actor_id: &Arc<str>, now: Now) {
        let Some(actor) = self.directory.actors.get_mut(actor_id) else { return };
        if actor.record.phase != Phase::Starting {
            return;
        }
        actor.record.phase = Phase::Running;
        actor.record.connectable_ts = Some(now.wall_ms);
        actor.record.start_ts.get_or_insert(now.wall_ms);
        actor.record.error = None;
        actor.rewakes = 0;
        debug!(%actor_id, generation = actor.record.generation, "actor runs");
        self.timers.cancel(&Timer::Actor(actor_id.clone()));
        self.out.touch(actor_id);
        self.serve_waiting(actor_id);
        self.resume_sockets(actor_id, now);
    }

    /// The actor wants to sleep.
    pub(super) fn sleep_intent(&mut self, actor_id: &Arc<str>, now: Now) {
        let Some(actor) = self.directory.actors.get_mut(actor_id) else { return };
        if !matches!(actor.record.phase, Phase::Starting | Phase::Running | Phase::StoppingToMove) {
            return;
        }
        actor.record.sleep_ts = Some(now.wall_ms);
        if actor.record.alarm_at.is_some_and(|at| at <= now.wall_ms) {
            // It went off while the actor was awake, where the runner keeps the time.
            actor.record.alarm_at = None;
        }
        self.stop(actor_id, Phase::StoppingToSleep, now);
    }

    /// The actor wants to be destroyed.
    pub(super) fn stop_intent(&mut self, actor_id: &Arc<str>, now: Now) {
        if self.directory.actors.get(actor_id).is_some_and(|actor| !actor.is_deleted()) {
            self.stop(actor_id, Phase::StoppingToDestroy, now);
        }
    }

    /// The actor's runner leaves.
    pub(super) fn move_actor(&mut self, actor_id: &Arc<str>, now: Now) {
        let Some(actor) = self.directory.actors.get(actor_id) else { return };
        if matches!(actor.record.phase, Phase::Starting | Phase::Running) {
            self.stop(actor_id, Phase::StoppingToMove, now);
        }
    }

    /// Somebody outside wants the actor destroyed; it is in memory.
    pub(super) fn delete(&mut self, actor_id: &Arc<str>, now: Now) {
        let Some(actor) = self.directory.actors.get_mut(actor_id) else { return };
        if actor.is_deleted() {
            return;
        }
        info!(%actor_id, "actor is destroyed on request");
        actor.record.destroy_ts = Some(now.wall_ms);
        if !is_placed(actor.record.phase) {
            return self.destroy(actor_id, None, now);
        }
        self.stop(actor_id, Phase::StoppingToDestroy, now);
        self.timers.set(Timer::Actor(actor_id.clone()), now.instant + self.settings.thresholds.destroy_grace);
        self.refuse_waiting_of(actor_id, &GatewayError::ActorNotFound);
    }

    /// The runner says that a life has ended.
    pub(super) fn actor_stopped(&mut self, actor_id: &Arc<str>, ending: Ending, now: Now) {
        self.life_ended(actor_id, ending, None, now);
    }

    /// The runner is gone.
    pub(super) fn actor_lost(&mut self, actor_id: &Arc<str>, error: ActorError, now: Now) {
        self.life_ended(actor_id, Ending::Lost(error), None, now);
    }

    /// The actor's runner is one that nobody knows any more.
    pub(super) fn actor_lost_with_runner(&mut self, actor_id: &Arc<str>, now: Now) {
        let Some(actor) = self.directory.actors.get(actor_id) else { return };
        let runner_id = actor.record.runner_id.clone().unwrap_or_else(|| Arc::from(""));
        self.actor_lost(actor_id, ActorError::RunnerConnectionLost { runner_id }, now);
    }

    pub(super) fn actor_timeout(&mut self, actor_id: &Arc<str>, now: Now) {
        let Some(actor) = self.directory.actors.get_mut(actor_id) else { return };
        match actor.record.phase {
            Phase::Starting | Phase::StoppingToSleep | Phase::StoppingToDestroy | Phase::StoppingToMove => {
                let leftover = (actor.record.generation, actor.record.next_command);
                let runner_id = actor.record.runner_id.clone().unwrap_or_else(|| Arc::from(""));
                info!(%actor_id, %runner_id, phase = ?actor.record.phase, "runner did not answer a command in time");
                let ending = Ending::Lost(ActorError::RunnerNoResponse { runner_id });
                self.life_ended(actor_id, ending, Some(leftover), now);
            }
            Phase::Pending => {
                actor.record.error = Some(ActorError::NoCapacity);
                self.fall_asleep(actor_id, now);
            }
            Phase::Backoff => self.backoff_over(actor_id, now),
            Phase::Running | Phase::Sleeping | Phase::Destroyed => {}
        }
    }

    fn start_on(&mut self, actor_id: &Arc<str>, runner_id: &Arc<str>, now: Now) {
        self.leave_queue(actor_id);
        let Some(actor) = self.directory.actors.get_mut(actor_id) else { return };
        let record = &mut actor.record;
        if record.next_command > 0 {
            record.generation += 1;
        }
        record.phase = Phase::Starting;
        record.runner_id = Some(runner_id.clone());
        record.last_event = None;
        record.wake_after_stop = false;
        record.pending_allocation_ts = None;
        record.sleep_ts = None;
        record.reschedule_ts = None;
        record.connectable_ts = None;
        if record.error == Some(ActorError::NoCapacity) {
            record.error = None;
        }
        if record.alarm_at.is_some_and(|at| at <= now.wall_ms) {
            record.alarm_at = None;
        }
        actor.commands = Outbox::new(0, 2);
        actor.start_repeated = false;
        actor.events = Cursor::default();
        actor.order(Order::Start { create_ts: now.wall_ms });
        debug!(%actor_id, %runner_id, generation = actor.record.generation, "actor starts");
        self.runners.hold(runner_id, actor_id);
        self.place_sockets(actor_id, runner_id);
        self.timers.set(Timer::Actor(actor_id.clone()), now.instant + self.settings.thresholds.actor_start);
        self.out.touch(actor_id);
        self.send_commands(actor_id);
    }

    /// Tells the runner to stop an actor, unless it was told already.
    fn stop(&mut self, actor_id: &Arc<str>, phase: Phase, now: Now) {
        let Some(actor) = self.directory.actors.get_mut(actor_id) else { return };
        let told = match actor.record.phase {
            Phase::Starting | Phase::Running => false,
            Phase::StoppingToSleep | Phase::StoppingToDestroy | Phase::StoppingToMove => true,
            Phase::Pending | Phase::Backoff | Phase::Sleeping | Phase::Destroyed => return,
        };
        actor.record.phase = phase;
        if phase != Phase::StoppingToDestroy {
            // Shown for a destroyed actor still.
            actor.record.connectable_ts = None;
        }
        if !actor.waiting.is_empty() {
            actor.record.wake_after_stop = true;
        }
        if !told {
            actor.order(Order::Stop);
            self.timers.set(Timer::Actor(actor_id.clone()), now.instant + self.settings.thresholds.actor_stop);
        }
        self.out.touch(actor_id);
        self.send_commands(actor_id);
    }

    fn life_ended(&mut self, actor_id: &Arc<str>, ending: Ending, leftover: Option<(u32, i64)>, now: Now) {
        let Some(actor) = self.directory.actors.get_mut(actor_id) else { return };
        let (phase, deleted, policy) = (actor.record.phase, actor.is_deleted(), actor.record.crash_policy);
        let runner_id = actor.record.runner_id.take();
        actor.commands = Outbox::new(actor.record.next_command, 2);
        actor.record.command_acknowledged = true;
        let memory = i64::try_from(self.settings.thresholds.crash_memory.as_millis()).unwrap_or(i64::MAX);
        let served_long = actor.record.connectable_ts.is_some_and(|since| now.wall_ms.saturating_sub(since) >= memory);
        if served_long || ending == Ending::Ok {
            actor.record.restarts = 0;
        }
        if matches!(phase, Phase::Starting | Phase::Running)
            && actor.record.alarm_at.is_some_and(|at| at <= now.wall_ms)
        {
            actor.record.alarm_at = None;
        }
        debug!(%actor_id, ?phase, ?ending, "actor stopped");
        self.out.touch(actor_id);
        self.timers.cancel(&Timer::Actor(actor_id.clone()));
        let answered = !matches!(ending, Ending::Lost(_));
        let next = rules::after(phase, deleted, policy, ending);
        let told = match &next {
            Next::Destroy(_) => GatewayError::ActorDestroyed,
            Next::Sleep(_) | Next::Restart(_) | Next::Move => GatewayError::ActorStopped,
        };
        self.fail_streams_of(actor_id, &told);
        if !matches!(next, Next::Destroy(_)) {
            // It was told to stop after everything else, so a runner that has done so has read it.
            let asked = matches!(phase, Phase::StoppingToSleep | Phase::StoppingToDestroy | Phase::StoppingToMove);
            self.hibernate_sockets(actor_id, asked && answered);
        }
        if let Some(runner_id) = runner_id {
            self.release(&runner_id, actor_id, leftover, now);
        }
        match next {
            Next::Destroy(error) => self.destroy(actor_id, error, now),
            Next::Move => self.start(actor_id, Wanted::Again, now),
            Next::Restart(error) => self.restart(actor_id, error, now),
            Next::Sleep(error) => self.sleep_or_wake(actor_id, error, now),
        }
    }

    fn restart(&mut self, actor_id: &Arc<str>, error: ActorError, now: Now) {
        let Some(actor) = self.directory.actors.get_mut(actor_id) else { return };
        actor.fail(error);
        self.start_after_backoff(actor_id, now);
    }

    /// Starts an actor that has failed: at once the first time, later and later then.
    fn start_after_backoff(&mut self, actor_id: &Arc<str>, now: Now) {
        let Some(actor) = self.directory.actors.get_mut(actor_id) else { return };
        let delay = rules::restart_delay(actor.record.restarts, &mut self.random);
        actor.record.restarts = actor.record.restarts.saturating_add(1);
        if delay == Duration::ZERO {
            return self.backoff_over(actor_id, now);
        }
        actor.record.phase = Phase::Backoff;
        actor.record.connectable_ts = None;
        let at = now.after(delay);
        actor.record.reschedule_ts = Some(at.wall_ms);
        self.timers.set(Timer::Actor(actor_id.clone()), at.instant);
    }

    fn backoff_over(&mut self, actor_id: &Arc<str>, now: Now) {
        let Some(actor) = self.directory.actors.get(actor_id) else { return };
        match actor.record.crash_policy {
            CrashPolicy::Restart | CrashPolicy::Destroy => self.start(actor_id, Wanted::Again, now),
            // It would sleep if nobody had said anything to it.
            CrashPolicy::Sleep if self.sockets_want(actor_id) || !actor.waiting.is_empty() => {
                self.start(actor_id, Wanted::Asked, now);
            }
            CrashPolicy::Sleep => self.fall_asleep(actor_id, now),
        }
    }

    fn sleep_or_wake(&mut self, actor_id: &Arc<str>, error: Option<ActorError>, now: Now) {
        let Some(actor) = self.directory.actors.get_mut(actor_id) else { return };
        let failed = error.is_some();
        if let Some(error) = error {
            actor.fail(error);
        }
        let due = actor.record.alarm_at.is_some_and(|at| at <= now.wall_ms);
        let asked = !actor.waiting.is_empty() || actor.record.wake_after_stop;
        let mut at_once = due || asked;
        if failed && asked {
            actor.rewakes += 1;
            if actor.rewakes > REWAKES_MAX {
                // It does not come up: those who wait had better know why.
                let error = GatewayError::ActorReadyTimeout { error: actor.record.error.clone() };
                self.refuse_waiting_of(actor_id, &error);
                at_once = false;
            }
        }
        let said = self.sockets_want(actor_id);
        if at_once || said && !failed {
            self.start(actor_id, Wanted::Asked, now);
        } else if said {
            // What was said may be what it failed at.
            self.start_after_backoff(actor_id, now);
        } else {
            self.fall_asleep(actor_id, now);
        }
    }

    /// The actor has no process, no runner and nobody who waits for it; its storage stays.
    fn fall_asleep(&mut self, actor_id: &Arc<str>, now: Now) {
        self.leave_queue(actor_id);
        let Some(actor) = self.directory.actors.get_mut(actor_id) else { return };
        let record = &mut actor.record;
        record.phase = Phase::Sleeping;
        record.runner_id = None;
        record.sleep_ts.get_or_insert(now.wall_ms);
        record.pending_allocation_ts = None;
        record.connectable_ts = None;
        record.reschedule_ts = None;
        record.wake_after_stop = false;
        let (alarm, error) = (record.alarm_at, record.error.clone());
        debug!(%actor_id, "actor sleeps");
        self.refuse_waiting_of(actor_id, &GatewayError::ActorReadyTimeout { error });
        self.give_up_waking(actor_id, "guard.actor_ready_timeout");
        self.let_go(actor_id);
        self.arm_alarm(alarm, now);
    }

    /// The actor is gone for good, with its storage.
    fn destroy(&mut self, actor_id: &Arc<str>, error: Option<ActorError>, now: Now) {
        self.leave_queue(actor_id);
        let Some(actor) = self.directory.actors.get_mut(actor_id) else { return };
        let record = &mut actor.record;
        record.phase = Phase::Destroyed;
        record.destroy_ts.get_or_insert(now.wall_ms);
        record.runner_id = None;
        record.pending_allocation_ts = None;
        record.reschedule_ts = None;
        record.alarm_at = None;
        record.wake_after_stop = false;
        if error.is_some() {
            record.error = error;
        }
        let destroyers = std::mem::take(&mut actor.destroyers);
        info!(%actor_id, "actor destroyed");
        self.refuse_waiting_of(actor_id, &GatewayError::ActorDestroyed);
        self.close_sockets_of(actor_id);
        self.out.change(Change::DropKv(actor_id.clone()));
        self.let_go(actor_id);
        for call in destroyers {
            self.answer_destroyed(call, true);
        }
    }

    fn queue(&mut self, actor_id: &Arc<str>, now: Now) {
        let Some(actor) = self.directory.actors.get_mut(actor_id) else { return };
        actor.record.phase = Phase::Pending;
        actor.record.reschedule_ts = None;
        actor.record.connectable_ts = None;
        let since = *actor.record.pending_allocation_ts.get_or_insert(now.wall_ms);
        let pool = actor.pool();
        debug!(%actor_id, pool = %pool.pool, "actor waits for a runner with a free slot");
        self.directory.queues.entry(pool).or_default().insert((since, actor_id.clone()));
        self.out.touch(actor_id);
    }

    fn leave_queue(&mut self, actor_id: &Arc<str>) {
        let Some(actor) = self.directory.actors.get(actor_id) else { return };
        let Some(since) = actor.record.pending_allocation_ts else { return };
        let pool = actor.pool();
        if let Some(queue) = self.directory.queues.get_mut(&pool) {
            queue.remove(&(since, actor_id.clone()));
            if queue.is_empty() {
                self.directory.queues.remove(&pool);
            }
        }
    }
}

impl Actor {
    /// Notes what went wrong. That a runner failed says more than the crash that follows from it.
    fn fail(&mut self, error: ActorError) {
        let crashed = matches!(error, ActorError::Crashed { .. });
        match &self.record.error {
            Some(
                ActorError::RunnerNoResponse { .. }
                | ActorError::RunnerConnectionLost { .. }
                | ActorError::RunnerDrainingTimeout { .. },
            ) if crashed => {}
            None | Some(_) => self.record.error = Some(error),
        }
    }
}

/// How often an actor that fails is started again only because somebody waits for it.
const REWAKES_MAX: u32 = 1;
