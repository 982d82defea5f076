//! Commands of the gateway: each is applied once and acknowledged soon, replays included.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use bytestring::ByteString;
use greenroom_protocol::{Checkpoint, Command, CommandWrapper, ToServer};

use super::actors::{Phase, Wish};
use crate::actor::{ActorKey, StartReason, StopReason};
use crate::session::{Effect, Session, StartCommand};

/// Acknowledgements that wait for their batch.
#[derive(Debug, Default)]
pub(super) struct Acknowledgements {
    due: BTreeMap<ActorKey, i64>,
    at: Option<Instant>,
}

impl Session {
    pub(super) fn commands(&mut self, commands: Vec<CommandWrapper>, now: Instant) {
        for CommandWrapper { checkpoint, command } in commands {
            let key = ActorKey::new(&*checkpoint.actor_id, checkpoint.generation);
            match command {
                Command::Start { config, hibernating } => {
                    // Copied, because an actor may keep them for long and a slice keeps its whole frame.
                    let start = StartCommand {
                        key: key.clone(),
                        name: (&*config.name).into(),
                        actor_key: config.key.map(|key| ByteString::from(&*key)),
                        create_ts: config.create_ts,
                        input: config.input.map(|input| Bytes::copy_from_slice(&input)),
                        reason: StartReason::Create,
                        hibernating,
                    };
                    self.start_command(start);
                }
                Command::Stop => self.stop_command(&key),
            }
            self.note_command(&key, checkpoint.index, now);
        }
    }

    /// Acknowledges what has been noted so far.
    pub(super) fn flush_acknowledgements(&mut self) {
        let acknowledgements = &mut self.link.acknowledgements;
        acknowledgements.at = None;
        if acknowledgements.due.is_empty() {
            return;
        }
        let checkpoints = std::mem::take(&mut acknowledgements.due)
            .into_iter()
            .map(|(key, index)| Checkpoint { actor_id: ByteString::from(&*key.id), generation: key.generation, index })
            .collect();
        self.effects.push_back(Effect::Send(ToServer::AckCommands(checkpoints)));
    }

    pub(super) fn acknowledgements_due(&self) -> Option<Instant> {
        self.link.acknowledgements.at
    }

    fn start_command(&mut self, command: StartCommand) {
        let key = &command.key;
        if self.actors.life(key).is_some() {
            // A replay. If the life has ended, its end is among the events that are sent again.
            return;
        }
        if self.actors.newest(&key.id).is_some_and(|life| life.key.generation > key.generation) {
            self.actors.add_ended(key.clone(), "a newer generation of this actor is here already");
        } else if self.drain.is_some() {
            self.actors.add_ended(key.clone(), "the runner drains and takes no new actors");
        } else {
            self.start_life(command);
        }
    }

    fn stop_command(&mut self, key: &ActorKey) {
        let Some(life) = self.actors.life(key) else {
            // The gateway waits for the end of a life that this process knows nothing of: an earlier process had it,
            // or it was never started. An error never destroys an actor by surprise.
            return self.actors.add_ended(key.clone(), "this runner does not have the actor");
        };
        let asked_for = life.wish.is_some();
        let reason = match life.wish {
            Some(Wish::Sleep) => StopReason::Sleep,
            Some(Wish::Destroy) => StopReason::Destroy,
            // The gateway answers our drain with a stop for every actor; that is as wanted as any other.
            None => StopReason::Stop,
        };
        if !asked_for {
            self.ask_whether_destroyed(key);
        }
        self.stop_life(key, reason);
        if let Some(life) = self.actors.life_mut(key) {
            life.stop_commanded = true;
        }
        // One that stops already, because we drain or thought the gateway lost, now stops as wanted.
        if let Some(life) = self.actors.life_mut(key)
            && let Phase::Stopping(known) = &mut life.phase
        {
            *known = reason;
        }
    }

    fn note_command(&mut self, key: &ActorKey, index: i64, now: Instant) {
        let Some(life) = self.actors.life_mut(key) else { return };
        life.last_command = life.last_command.max(index);
        let highest = life.last_command;
        let acknowledgements = &mut self.link.acknowledgements;
        acknowledgements.due.insert(key.clone(), highest);
        acknowledgements.at.get_or_insert(now + BATCH);
    }
}

/// Acknowledgements within this time travel together.
const BATCH: Duration = Duration::from_millis(100);
