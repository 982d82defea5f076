//! Events: numbered within a life, kept until acknowledged, sent in order.

use std::time::Instant;

use greenroom_protocol::{Checkpoint, Event, EventWrapper, ToServer, Version};

use super::actors::{Life, Phase, UNACKED_MAX};
use crate::actor::ActorKey;
use crate::session::{Effect, Session};

impl Session {
    /// Everything that was not sent on this connection, up to a batch.
    pub(super) fn collect_events(&mut self, now: Instant) -> Option<Vec<EventWrapper>> {
        let mut events = Vec::new();
        while let Some(key) = self.actors.unsent.pop_front() {
            let Some(life) = self.actors.life_mut(&key) else { continue };
            while events.len() < BATCH
                && let Some((index, event)) = life.events.send_next()
            {
                let checkpoint = Checkpoint { actor_id: life.actor_id.clone(), generation: life.key.generation, index };
                events.push(EventWrapper { checkpoint, event: event.clone() });
            }
            if !life.events.all_sent() {
                self.actors.unsent.push_front(key);
                break;
            }
            self.actors.settle(&key, now);
        }
        (!events.is_empty()).then_some(events)
    }

    /// Says once more of every life that runs that it does, after a reconnect. A gateway of ours that was started again
    /// may have forgotten a life that it had told to stop, and would never hear of it: what was acknowledged is not sent
    /// again. Of what it knows, this is a repeat.
    pub(super) fn affirm_running(&mut self) {
        if self.link.features.are_none() {
            return;
        }
        let affirmed: Vec<EventWrapper> = self.actors.iter().filter_map(Life::affirmation).collect();
        for batch in affirmed.chunks(BATCH) {
            self.effects.push_back(Effect::Send(ToServer::Events(batch.to_vec())));
        }
    }

    pub(super) fn acknowledge_events(&mut self, checkpoints: &[Checkpoint]) {
        for checkpoint in checkpoints {
            let generation = match self.settings.version {
                Version::V4 => self.actors.acknowledged_unnamed(&checkpoint.actor_id),
                Version::V5 | Version::V6 | Version::V7 => Some(checkpoint.generation),
            };
            let Some(generation) = generation else { continue };
            if let Some(life) = self.actors.generation_mut(&checkpoint.actor_id, generation)
                && life.events.acknowledge(checkpoint.index) > 0
                && life.held_alarm.is_some()
            {
                let key = life.key.clone();
                self.send_held_alarm(&key);
            }
        }
    }

    pub(super) fn set_alarm(&mut self, key: &ActorKey, at: Option<i64>) {
        let Some(life) = self.actors.life_mut(key) else { return };
        if matches!(life.phase, Phase::Waiting(_) | Phase::Ended) || life.orphan {
            return;
        }
        if life.events.len() >= UNACKED_MAX {
            life.held_alarm = Some(at);
            return;
        }
        self.actors.push_event(key, Event::SetAlarm { at });
    }

    /// Sends an alarm that was held back.
    pub(super) fn send_held_alarm(&mut self, key: &ActorKey) {
        let held = self.actors.life_mut(key).and_then(|life| life.held_alarm.take());
        if let Some(at) = held {
            self.actors.push_event(key, Event::SetAlarm { at });
        }
    }

    /// Every event was acknowledged.
    pub(super) fn events_acknowledged(&self) -> bool {
        self.actors.iter().all(|life| life.events.is_empty())
    }
}

impl Life {
    /// The acknowledged event that says that it runs, if it still does.
    fn affirmation(&self) -> Option<EventWrapper> {
        let index = self.running_at.filter(|_| matches!(self.phase, Phase::Running) && !self.orphan)?;
        let acknowledged = self.events.iter().next().is_none_or(|(first, _)| first > index);
        let checkpoint = Checkpoint { actor_id: self.actor_id.clone(), generation: self.key.generation, index };
        acknowledged.then_some(EventWrapper { checkpoint, event: Event::Running })
    }
}

/// The most events of one message; the rest follows in the next.
const BATCH: usize = 1024;
