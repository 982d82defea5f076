//! Why a sleeping actor may be woken: by its alarm, or because somebody wants it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use greenroom::gateway::core::{Input, Now, StreamRef};
use greenroom::store::{Change, Phase};

use super::World;
use crate::laws::Law;

/// What is known of those who sleep.
#[derive(Debug, Default)]
pub struct Alarms {
    asleep: BTreeMap<Arc<str>, Asleep>,
    /// Whom each stream is for.
    streams: BTreeMap<StreamRef, Arc<str>>,
    /// Actors that somebody wanted something of since they were woken last.
    wanted: BTreeSet<Arc<str>>,
    /// What the wall clock showed when it was set back, and when that was.
    peaks: Vec<(Instant, i64)>,
}

/// An actor that sleeps, as it stands on disk.
#[derive(Debug)]
struct Asleep {
    since: Instant,
    alarm_at: Option<i64>,
}

impl super::durable::Ledger {
    /// What clients do is a reason to wake an actor.
    pub fn note_reason(&mut self, input: &Input) {
        let actor = match input {
            Input::Open { stream, actor_id, .. } => {
                self.alarms.streams.insert(*stream, actor_id.clone());
                Some(actor_id)
            }
            Input::Client { stream, .. } | Input::ClientGone { stream } => self.alarms.streams.get(stream),
            Input::Connected { .. }
            | Input::Received { .. }
            | Input::Malformed { .. }
            | Input::Disconnected { .. }
            | Input::ClientTook { .. }
            | Input::Call { .. }
            | Input::Loaded { .. }
            | Input::Shutdown => None,
        };
        self.alarms.wanted.extend(actor.cloned());
    }

    pub fn clock_set_back(&mut self, now: Now) {
        self.alarms.peaks.push((now.instant, now.wall_ms));
    }
}

impl World {
    /// Looks at what a commit says of those who slept.
    pub fn check_sleepers(&mut self, changes: &[Change]) {
        for change in changes {
            let Change::Actor(record) = change else { continue };
            match record.phase {
                Phase::Sleeping => {
                    let asleep = Asleep { since: self.now.instant, alarm_at: record.alarm_at };
                    self.ledger.alarms.asleep.insert(record.id.clone(), asleep);
                }
                Phase::Destroyed => drop(self.ledger.alarms.asleep.remove(&record.id)),
                Phase::Pending
                | Phase::Starting
                | Phase::Running
                | Phase::StoppingToSleep
                | Phase::StoppingToDestroy
                | Phase::StoppingToMove
                | Phase::Backoff => {
                    if let Some(asleep) = self.ledger.alarms.asleep.remove(&record.id) {
                        self.check_woken(&record.id, &asleep);
                    }
                }
            }
        }
    }

    fn check_woken(&mut self, actor: &Arc<str>, asleep: &Asleep) {
        let wanted = self.ledger.alarms.wanted.remove(actor)
            || self.clients.streams.values().any(|client| client.actor == *actor);
        // It was decided before it was durable.
        let peaks = self.ledger.alarms.peaks.iter().filter(|(at, _)| *at + DECIDED_WITHIN >= asleep.since);
        let latest = peaks.map(|(_, wall_ms)| *wall_ms).fold(self.now.wall_ms, i64::max);
        let rings = asleep.alarm_at.is_some_and(|at| at <= latest);
        self.hold(Law::AnAlarmIsNotEarly, wanted || rings, || {
            format!("{actor} is woken and its alarm is at {:?}", asleep.alarm_at)
        });
    }
}

/// More than a commit ever takes.
const DECIDED_WITHIN: Duration = Duration::from_secs(30);
