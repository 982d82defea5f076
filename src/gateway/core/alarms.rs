//! Alarms of sleeping actors. While an actor is awake, its runner keeps the time.

use std::sync::Arc;
use std::time::Duration;

use super::lifecycle::Wanted;
use super::timers::Timer;
use super::{Core, Now};
use crate::store::{ActorRecord, Phase};

impl Core {
    pub(super) fn set_alarm(&mut self, actor_id: &Arc<str>, at: Option<i64>) {
        if let Some(actor) = self.directory.actors.get_mut(actor_id) {
            actor.record.alarm_at = at;
            self.out.touch(actor_id);
        }
    }

    /// Some sleeping actor is to be woken at this time. The store is asked at the latest after a while: a clock that is
    /// set right meanwhile must not make the alarm late by as much.
    pub(super) fn arm_alarm(&mut self, at: Option<i64>, now: Now) {
        if let Some(at) = at {
            self.timers.set_earlier(Timer::Alarm, now.instant_of(at).min(now.instant + LOOK_AFTER));
        }
    }

    /// The store says that this sleeping actor's alarm is due.
    pub(super) fn alarm_due(&mut self, record: ActorRecord, now: Now) {
        if record.phase != Phase::Sleeping || self.directory.actors.contains_key(&record.id) {
            return;
        }
        let id = record.id.clone();
        self.take_in(record);
        self.start(&id, Wanted::Asked, now);
    }
}

/// The longest that the clock of the system is trusted to go as steadily as the one that never goes back.
const LOOK_AFTER: Duration = Duration::from_secs(60);
