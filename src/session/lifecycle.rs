//! How lives begin and end, and how the gateway is to take each end.

use std::sync::Arc;
use std::time::Instant;

use greenroom_protocol::Event;

use super::actors::{Life, Phase, Wish};
use crate::actor::{ActorKey, Outcome, StartReason, StopReason};
use crate::session::{Effect, Session, StartCommand};

impl Session {
    pub(super) fn actor_running(&mut self, key: &ActorKey, now: Instant) {
        let Some(life) = self.actors.life_mut(key) else { return };
        match life.phase {
            Phase::Starting => {
                life.phase = Phase::Running;
                life.running_at = Some(life.events.next_index());
                self.actors.push_event(key, Event::Running);
                self.sockets_of_running(key, now);
            }
            // A stop overtook the start; its end is on the way.
            Phase::Stopping(_) | Phase::Running | Phase::Waiting(_) | Phase::Ended => {}
        }
    }

    /// Starts a life, or lets it wait until the older ones of its actor have ended.
    pub(super) fn start_life(&mut self, mut command: StartCommand) {
        let key = command.key.clone();
        let older: Vec<ActorKey> = self
            .actors
            .lives_of(&key.id)
            .iter()
            .filter(|life| life.is_live() && life.key.generation < key.generation)
            .map(|life| life.key.clone())
            .collect();
        command.reason = self.start_reason(&key);
        if older.is_empty() {
            self.actors.add(Life::new(key, Phase::Starting, 0));
            self.effects.push_back(Effect::Start(command));
            return;
        }
        self.actors.add(Life::new(key, Phase::Waiting(Box::new(command)), 0));
        for key in older {
            self.stop_life(&key, StopReason::Replaced);
        }
    }

    /// Stops a life, whatever it is doing. One that is stopping already goes on as it was told first.
    pub(super) fn stop_life(&mut self, key: &ActorKey, reason: StopReason) {
        let Some(life) = self.actors.life_mut(key) else { return };
        match &life.phase {
            Phase::Waiting(_) => {
                let outcome = life.outcome_of_stop(reason);
                self.finish_life(key, outcome);
            }
            Phase::Starting | Phase::Running => {
                life.phase = Phase::Stopping(reason);
                self.effects.push_back(Effect::Stop { key: key.clone(), reason });
            }
            Phase::Stopping(_) | Phase::Ended => {}
        }
    }

    /// Stops every life that has not ended.
    pub(super) fn stop_all(&mut self, reason: StopReason) {
        for key in self.actors.live_keys() {
            self.stop_life(&key, reason);
        }
    }

    pub(super) fn wish(&mut self, key: &ActorKey, wish: Wish) {
        let Some(life) = self.actors.life_mut(key) else { return };
        match life.phase {
            Phase::Starting | Phase::Running if life.wish.is_none() => {
                life.wish = Some(wish);
                match wish {
                    Wish::Sleep => {
                        life.sleep_held = true;
                        self.tell_sleep(key);
                    }
                    Wish::Destroy => self.actors.push_event(key, Event::StopIntent),
                }
            }
            Phase::Starting | Phase::Running | Phase::Stopping(_) | Phase::Waiting(_) | Phase::Ended => {}
        }
    }

    /// Tells a wish to sleep that was held back.
    pub(super) fn release_sleep(&mut self, key: &ActorKey) {
        if let Some(life) = self.actors.life_mut(key)
            && std::mem::take(&mut life.sleep_held)
        {
            self.actors.push_event(key, Event::SleepIntent);
        }
    }

    pub(super) fn stop_from_here(&mut self, key: &ActorKey, outcome: Outcome) {
        if let Some(life) = self.actors.life_mut(key) {
            life.told_outcome = Some(outcome);
            self.stop_life(key, StopReason::Stop);
        }
    }

    /// The runner's owner ends a life at once. Unless it was stopping anyway, nobody wanted that end: the gateway's
    /// crash policy is to apply.
    pub(super) fn kill(&mut self, key: &ActorKey) {
        let Some(life) = self.actors.life_mut(key) else { return };
        match life.phase {
            Phase::Waiting(_) => self.finish_life(key, killed()),
            Phase::Starting | Phase::Running => {
                life.told_outcome = Some(killed());
                life.phase = Phase::Stopping(StopReason::Stop);
                self.effects.push_back(Effect::Kill { key: key.clone() });
            }
            Phase::Stopping(_) => self.effects.push_back(Effect::Kill { key: key.clone() }),
            Phase::Ended => {}
        }
    }

    /// A host reports the end of a life: says so to the gateway and lets a waiting newer life begin.
    pub(super) fn life_ended(&mut self, key: &ActorKey, outcome: Outcome) {
        let Some(life) = self.actors.life_mut(key) else { return };
        let outcome = match (&life.phase, life.wish, outcome) {
            (Phase::Ended | Phase::Waiting(_), _, _) => return,
            // Whatever the process did when told to stop, it did what was wanted.
            (&Phase::Stopping(reason), _, _) => life.outcome_of_stop(reason),
            (Phase::Starting, None, Outcome::Wanted) => Outcome::Failed("the actor ended before it served".to_owned()),
            (Phase::Running, None, Outcome::Wanted) => {
                // A process that ends itself without an error has nothing to do. Taken as a plain stop, the gateway
                // would destroy the actor with its state; so it sleeps.
                self.wish(key, Wish::Sleep);
                Outcome::Wanted
            }
            (Phase::Starting | Phase::Running, _, outcome) => outcome,
        };
        self.finish_life(key, outcome);
    }

    fn finish_life(&mut self, key: &ActorKey, outcome: Outcome) {
        let Some(life) = self.actors.life(key) else { return };
        let orphan = life.orphan;
        if life.sockets_outlive(&outcome) {
            self.hibernate_sockets_of(key);
        }
        self.close_streams_of(key);
        self.farewells_of_ended(key);
        self.release_sleep(key);
        self.send_held_alarm(key);
        self.actors.push_event(key, stopped(outcome));
        self.actors.end(key);
        if orphan {
            self.actors.remove(key);
        }
        self.start_waiting(&key.id);
    }

    fn start_waiting(&mut self, actor_id: &Arc<str>) {
        let lives = self.actors.lives_of(actor_id);
        let Some(next) = lives.iter().find(|life| life.is_live()) else { return };
        if !matches!(next.phase, Phase::Waiting(_)) {
            return;
        }
        let key = next.key.clone();
        if let Some(life) = self.actors.life_mut(&key)
            && let Phase::Waiting(command) = std::mem::replace(&mut life.phase, Phase::Starting)
        {
            self.effects.push_back(Effect::Start(*command));
        }
    }

    fn start_reason(&self, key: &ActorKey) -> StartReason {
        if key.generation == 0 {
            return StartReason::Create;
        }
        let before = self.actors.lives_of(&key.id).iter().rev().find(|life| life.key.generation < key.generation);
        match before {
            Some(life) if !life.is_live() && life.wish == Some(Wish::Sleep) => StartReason::Wake,
            Some(_) => StartReason::Restart,
            None => StartReason::Wake,
        }
    }
}

impl Life {
    /// Whether the gateway keeps the sockets that can hibernate when the life ends like this.
    fn sockets_outlive(&self, outcome: &Outcome) -> bool {
        match (self.wish, outcome) {
            (Some(Wish::Sleep), _) | (_, Outcome::Failed(_)) => true,
            // It is destroyed.
            (Some(Wish::Destroy), Outcome::Wanted) => false,
            // The gateway knows why it stops the actor: to move it, or to destroy it, which we have asked. An end that
            // is plainly well and was not asked for destroys it.
            (None, Outcome::Wanted) => self.stop_commanded,
        }
    }

    /// How the gateway is to take the end of a life that was told to stop. An end that neither the actor nor the gateway
    /// nor the owner asked for is an error: after a plain stop the gateway would destroy the actor.
    fn outcome_of_stop(&mut self, reason: StopReason) -> Outcome {
        if let Some(outcome) = self.told_outcome.take() {
            return outcome;
        }
        let unasked = match reason {
            StopReason::Sleep | StopReason::Destroy | StopReason::Stop => return Outcome::Wanted,
            StopReason::Lost => "the gateway was away for longer than it keeps actors",
            StopReason::Drain => "the runner stopped before the gateway moved the actor",
            StopReason::Replaced => "a newer generation of the actor took its place",
        };
        match self.wish {
            Some(Wish::Sleep | Wish::Destroy) => Outcome::Wanted,
            None => Outcome::Failed(unasked.to_owned()),
        }
    }
}

fn killed() -> Outcome {
    Outcome::Failed("ended by the runner's owner".to_owned())
}

fn stopped(outcome: Outcome) -> Event {
    match outcome {
        Outcome::Wanted => Event::StoppedOk { message: None },
        Outcome::Failed(reason) => Event::StoppedError { message: Some(clip(reason).into()) },
    }
}

/// Cuts a reason to what is worth storing beside an actor.
fn clip(mut reason: String) -> String {
    let mut end = reason.len().min(REASON_MAX);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    reason.truncate(end);
    reason
}

/// The longest stop reason sent, in bytes.
const REASON_MAX: usize = 4096;
