//! Actors of the engine.

use std::sync::Arc;
use std::time::Duration;

use bytestring::ByteString;
use greenroom::gateway::core::Now;
use greenroom::protocol::{ActorConfig, Checkpoint, Command, CommandWrapper, Event, ToClient};
use greenroom::store::CrashPolicy;

use super::{Arrived, Engine, Timer, millis};

/// An actor.
#[derive(Debug)]
pub struct Actor {
    policy: CrashPolicy,
    pub pool: Arc<str>,
    pub key: Option<Arc<str>>,
    pub phase: Phase,
    pub generation: u32,
    started: bool,
    /// The index of the next start: 1 after the actor was lost.
    first_index: i64,
    next_index: i64,
    pub runner: Option<Arc<str>>,
    last_event: i64,
    acknowledged: i64,
    pub alarm_at: Option<i64>,
    wake: bool,
    restarts: u32,
    /// Which command is waited for.
    command: u32,
}

/// Where an actor is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Pending,
    Starting,
    Running,
    /// It was told to stop, and will sleep, be destroyed, or move.
    Stopping(Then),
    Backoff,
    Sleeping,
    Destroyed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    Sleep,
    Destroy,
    Move,
}

/// How a life ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    Ok,
    Failed,
    Lost,
}

impl Actor {
    pub fn new(policy: CrashPolicy, key: Option<Arc<str>>, pool: Arc<str>) -> Self {
        Actor {
            policy,
            pool,
            key,
            phase: Phase::Pending,
            generation: 0,
            started: false,
            first_index: 0,
            next_index: 0,
            runner: None,
            last_event: -1,
            acknowledged: -1,
            alarm_at: None,
            wake: false,
            restarts: 0,
            command: 0,
        }
    }

    pub fn is_gone(&self) -> bool {
        self.phase == Phase::Destroyed
    }
}

impl Engine {
    /// Starts an actor where there is room, or lets it wait or sleep.
    pub fn allocate(&mut self, id: &Arc<str>, now: Now) {
        let Some(pool) = self.actors.get(id).map(|actor| actor.pool.clone()) else { return };
        let runner = self.free_runner(&pool, now);
        let Some(actor) = self.actors.get_mut(id) else { return };
        let Some(runner) = runner else {
            if actor.policy == CrashPolicy::Sleep && !actor.wake {
                return self.sleep(id, now);
            }
            actor.phase = Phase::Pending;
            return;
        };
        if actor.started {
            actor.generation += 1;
        }
        actor.started = true;
        (actor.phase, actor.runner, actor.wake) = (Phase::Starting, Some(runner.clone()), false);
        (actor.last_event, actor.acknowledged) = (-1, -1);
        if actor.alarm_at.is_some_and(|at| at <= now.wall_ms) {
            actor.alarm_at = None;
        }
        let index = std::mem::take(&mut actor.first_index);
        actor.next_index = index + 1;
        actor.command += 1;
        let (number, generation) = (actor.command, actor.generation);
        let config = ActorConfig { name: "counter".into(), key: None, create_ts: now.wall_ms, input: None };
        let command = Command::Start { config, hibernating: self.sockets_of(id) };
        self.later(now.instant + self.thresholds.actor_start, Timer::Command(id.clone(), number));
        self.command(&runner, wrap(id, generation, index, command));
    }

    pub fn allocate_waiting(&mut self, now: Now) {
        let waiting = self.actors.iter().filter(|(_, actor)| actor.phase == Phase::Pending);
        for id in waiting.map(|(id, _)| id.clone()).collect::<Vec<_>>() {
            self.allocate(&id, now);
        }
    }

    /// Somebody wants the actor awake.
    pub fn wake(&mut self, id: &Arc<str>, now: Now) {
        let Some(actor) = self.actors.get_mut(id) else { return };
        actor.wake = true;
        if actor.phase == Phase::Sleeping {
            self.allocate(id, now);
        }
    }

    fn stop(&mut self, id: &Arc<str>, then: Then, now: Now) {
        let Some(actor) = self.actors.get_mut(id) else { return };
        let told = match actor.phase {
            Phase::Starting | Phase::Running => false,
            // What was wanted first stays, but for a sleep of one that moves.
            Phase::Stopping(Then::Move) => true,
            Phase::Stopping(_) | Phase::Pending | Phase::Backoff | Phase::Sleeping | Phase::Destroyed => return,
        };
        actor.phase = Phase::Stopping(then);
        let (Some(runner), false) = (actor.runner.clone(), told) else { return };
        let (generation, index) = (actor.generation, actor.next_index);
        actor.next_index += 1;
        actor.command += 1;
        let number = actor.command;
        self.later(now.instant + self.thresholds.actor_stop, Timer::Command(id.clone(), number));
        self.command(&runner, wrap(id, generation, index, Command::Stop));
    }

    pub fn move_actors_of(&mut self, runner: &Arc<str>, now: Now) {
        let held = self.actors.iter().filter(|(_, actor)| actor.runner.as_ref() == Some(runner));
        for id in held.map(|(id, _)| id.clone()).collect::<Vec<_>>() {
            self.stop(&id, Then::Move, now);
        }
    }

    /// The events of an actor that have arrived. Which of them are repeats is judged by what was known before.
    pub fn batch(&mut self, id: &Arc<str>, now: Now) {
        let events = self.arrived.remove(id).unwrap_or_default();
        let Some(actor) = self.actors.get(id) else { return };
        let (known, generation, holder) = (actor.last_event, actor.generation, actor.runner.clone());
        for Arrived { runner, generation: of, index, event } in events {
            let Some(actor) = self.actors.get_mut(id) else { return };
            let held = holder.as_ref() == Some(&runner) && actor.runner == holder && actor.generation == generation;
            if of != generation || index <= known || !held {
                continue;
            }
            actor.last_event = actor.last_event.max(index);
            match event {
                Event::Running if actor.phase == Phase::Starting => {
                    actor.phase = Phase::Running;
                    self.actor_serves(id, now);
                }
                Event::Running => {}
                Event::SleepIntent => self.stop(id, Then::Sleep, now),
                Event::StopIntent => self.stop(id, Then::Destroy, now),
                Event::SetAlarm { at } => actor.alarm_at = at,
                Event::StoppedOk { .. } => self.ended(id, Ending::Ok, now),
                Event::StoppedError { .. } => self.ended(id, Ending::Failed, now),
            }
        }
        let Some(actor) = self.actors.get_mut(id) else { return };
        if actor.generation == generation && actor.last_event - actor.acknowledged > self.acknowledge_after {
            actor.acknowledged = actor.last_event;
            let at = Checkpoint { actor_id: ByteString::from(&**id), generation, index: actor.last_event };
            let link = holder.and_then(|runner| self.runners.get(&runner)?.link);
            if let Some(link) = link {
                self.send(link, ToClient::AckEvents(vec![at]));
            }
        }
    }

    /// Its runner is gone, or does not answer a command: it is told to stop by the index of the first start.
    pub fn actor_lost(&mut self, id: &Arc<str>, now: Now) {
        let Some(actor) = self.actors.get_mut(id) else { return };
        let (generation, runner) = (actor.generation, actor.runner.clone());
        actor.first_index = 1;
        if let Some(runner) = runner {
            self.command(&runner, wrap(id, generation, 0, Command::Stop));
        }
        self.ended(id, Ending::Lost, now);
    }

    pub fn command_timeout(&mut self, id: &Arc<str>, number: u32, now: Now) {
        let Some(actor) = self.actors.get(id) else { return };
        if actor.command == number && matches!(actor.phase, Phase::Starting | Phase::Stopping(_)) {
            self.actor_lost(id, now);
        }
    }

    fn ended(&mut self, id: &Arc<str>, ending: Ending, now: Now) {
        let Some(actor) = self.actors.get_mut(id) else { return };
        let (phase, policy) = (actor.phase, actor.policy);
        actor.runner = None;
        self.actor_stopped(id, now);
        match (phase, ending, policy) {
            (Phase::Destroyed, ..) => {}
            (Phase::Stopping(Then::Sleep), ..) => self.sleep(id, now),
            (Phase::Stopping(Then::Move), _, CrashPolicy::Restart) => self.allocate(id, now),
            (Phase::Stopping(Then::Move), _, CrashPolicy::Sleep) => self.sleep(id, now),
            (_, Ending::Ok, _) | (_, _, CrashPolicy::Destroy) => self.destroyed(id),
            (_, Ending::Failed | Ending::Lost, CrashPolicy::Sleep) => self.sleep(id, now),
            (_, Ending::Failed | Ending::Lost, CrashPolicy::Restart) => self.restart(id, now),
        }
        self.allocate_waiting(now);
    }

    fn restart(&mut self, id: &Arc<str>, now: Now) {
        let Some(actor) = self.actors.get_mut(id) else { return };
        let delay = match actor.restarts {
            0 => Duration::from_millis(100),
            further => Duration::from_millis(2_000 << (further - 1).min(4)),
        };
        actor.restarts += 1;
        actor.phase = Phase::Backoff;
        self.later(now.instant + delay, Timer::Backoff(id.clone()));
    }

    pub fn backoff_over(&mut self, id: &Arc<str>, now: Now) {
        if self.actors.get(id).is_some_and(|actor| actor.phase == Phase::Backoff) {
            self.allocate(id, now);
        }
    }

    fn sleep(&mut self, id: &Arc<str>, now: Now) {
        let wanted = self.socket_wants(id);
        let Some(actor) = self.actors.get_mut(id) else { return };
        actor.phase = Phase::Sleeping;
        let wake = std::mem::take(&mut actor.wake);
        if let Some(at) = actor.alarm_at {
            let after = Duration::from_millis(u64::try_from((at - now.wall_ms).max(0)).expect("not negative"));
            self.later(now.instant + after, Timer::Alarm(id.clone()));
        }
        if wake || wanted {
            let after = millis(&mut self.dice, 1, 50);
            if let Some(actor) = self.actors.get_mut(id) {
                actor.wake = true;
                actor.phase = Phase::Backoff;
            }
            self.later(now.instant + after, Timer::Backoff(id.clone()));
        }
    }

    pub fn alarm(&mut self, id: &Arc<str>, now: Now) {
        let Some(actor) = self.actors.get(id) else { return };
        if actor.phase == Phase::Sleeping && actor.alarm_at.is_some_and(|at| at <= now.wall_ms) {
            self.wake(id, now);
        }
    }

    /// Somebody deletes an actor: it is gone at once, and its life is told to stop.
    pub fn delete(&mut self, id: &Arc<str>, now: Now) {
        let Some(actor) = self.actors.get(id) else { return };
        if actor.is_gone() {
            return;
        }
        self.stop(id, Then::Destroy, now);
        if let Some(actor) = self.actors.get_mut(id) {
            actor.runner = None;
        }
        self.destroyed(id);
        self.allocate_waiting(now);
    }

    /// The actor is no more. Sockets that hibernate stay open, and as attached as they were.
    fn destroyed(&mut self, id: &Arc<str>) {
        if let Some(actor) = self.actors.get_mut(id) {
            actor.phase = Phase::Destroyed;
        }
        self.drop_storage(id);
        self.fail_waiting(id);
    }
}

fn wrap(id: &Arc<str>, generation: u32, index: i64, command: Command) -> CommandWrapper {
    let checkpoint = Checkpoint { actor_id: ByteString::from(&**id), generation, index };
    CommandWrapper { checkpoint, command }
}
