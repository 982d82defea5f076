//! Effects on their way out, and what they have to wait for.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use super::Effect;
use crate::store::{ActorRecord, Change};

/// What one input leads to is collected here: first the commit of everything it changed, then what may only be told
/// when that is durable.
#[derive(Debug, Default)]
pub(super) struct Outbound {
    ready: VecDeque<Effect>,
    gated: Vec<Effect>,
    changes: Vec<Change>,
    changed_actors: BTreeSet<Arc<str>>,
    seq: u64,
}

impl Outbound {
    /// To be done at once.
    pub(super) fn push(&mut self, effect: Effect) {
        self.ready.push_back(effect);
    }

    /// To be done when everything changed so far, this input included, is durable.
    pub(super) fn push_gated(&mut self, effect: Effect) {
        self.gated.push(effect);
    }

    /// To be done when the commit `seq` is durable.
    pub(super) fn push_after(&mut self, seq: u64, mut effect: Effect) {
        if seq > self.seq {
            // It is this input's own commit that it waits for, behind what this input has said before.
            self.gated.push(effect);
        } else {
            effect.wait_for(seq);
            self.ready.push_back(effect);
        }
    }

    /// A change that this input makes.
    pub(super) fn change(&mut self, change: Change) {
        self.changes.push(change);
    }

    /// An actor in memory that this input changes; its record is taken when the input is dealt with.
    pub(super) fn touch(&mut self, actor_id: &Arc<str>) {
        if !self.changed_actors.contains(actor_id) {
            self.changed_actors.insert(actor_id.clone());
        }
    }

    /// The last record of an actor that leaves the memory.
    pub(super) fn last_change(&mut self, record: ActorRecord) {
        self.changed_actors.remove(&record.id);
        self.changes.push(Change::Actor(Box::new(record)));
    }

    /// What this input wrote of an actor that it took out of the memory.
    pub(super) fn last_record(&self, actor_id: &str) -> Option<&ActorRecord> {
        self.changes.iter().rev().find_map(|change| match change {
            Change::Actor(record) if *record.id == *actor_id => Some(&**record),
            _ => None,
        })
    }

    /// The number of the commit that the current input makes, provided that it changes something.
    pub(super) fn next_seq(&self) -> u64 {
        self.seq + 1
    }

    /// The number of the last commit.
    pub(super) fn seq(&self) -> u64 {
        self.seq
    }

    pub(super) fn pop(&mut self) -> Option<Effect> {
        self.ready.pop_front()
    }

    /// Commits what was changed and lets out what waited for it.
    pub(super) fn flush(&mut self, record: impl Fn(&str) -> Option<ActorRecord>) {
        let mut changes = std::mem::take(&mut self.changes);
        for id in std::mem::take(&mut self.changed_actors) {
            changes.extend(record(&id).map(|record| Change::Actor(Box::new(record))));
        }
        if !changes.is_empty() {
            self.seq += 1;
            self.ready.push_back(Effect::Commit { seq: self.seq, changes });
        }
        for mut effect in self.gated.drain(..) {
            effect.wait_for(self.seq);
            self.ready.push_back(effect);
        }
    }
}
