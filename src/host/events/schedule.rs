//! Which alarms an actor has, and which of them is due when: plain data, time comes in.
//!
//! Times are milliseconds since the epoch, by the wall clock: alarms are kept over lives and machines. An alarm that
//! is being told is noted with the time of its next try first, so that a crash in the middle leads to another try,
//! later and with a higher attempt, and not to an endless quick loop.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;

/// One alarm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Alarm {
    /// When it is due.
    pub(super) at: i64,
    /// It is due again after each of these periods, in milliseconds; never 0.
    pub(super) every_ms: Option<u64>,
    /// What the actor is told with it.
    pub(super) data: Bytes,
    /// How often the actor was told and has not taken it.
    pub(super) attempt: u32,
    /// When it is told next: `at`, or later after a try that failed.
    pub(super) next: i64,
}

/// The alarms of one actor.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    alarms: BTreeMap<String, Entry>,
    revisions: u64,
}

#[derive(Debug)]
struct Entry {
    alarm: Alarm,
    /// Never the same for two settings: what becomes of a telling must not touch an alarm that was set meanwhile.
    revision: u64,
}

/// An alarm that is to be told now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Due {
    pub(super) name: String,
    pub(super) data: Bytes,
    /// From 1.
    pub(super) attempt: u32,
    /// Periods that passed before this one without being told.
    pub(super) missed: u32,
    /// How much later than set this is, in milliseconds; for one that repeats, since the last period.
    pub(super) late_ms: u64,
    /// Which setting of the alarm it was.
    pub(super) revision: u64,
    /// What is to be noted before it is told.
    pub(super) noted: Alarm,
}

/// What is to be noted of an alarm after a telling.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// It has gone.
    Remove,
    /// It stands like this from now on.
    Put(Alarm),
    /// Nothing: it was set or removed meanwhile, or its next try is noted already.
    None,
}

impl Alarm {
    /// An alarm that nobody was told of.
    pub(super) fn new(at: i64, every_ms: Option<u64>, data: Bytes) -> Self {
        Alarm { at, every_ms: every_ms.filter(|period| *period > 0), data, attempt: 0, next: at }
    }

    /// How long ago it was due last, in milliseconds.
    fn late_ms(&self, now: i64) -> u64 {
        let late = now.saturating_sub(self.at).max(0).unsigned_abs();
        self.every_ms.map_or(late, |period| late % period.max(1))
    }

    /// How many periods have passed at this time since it was due.
    fn missed(&self, now: i64) -> u64 {
        match self.every_ms {
            Some(period) => now.saturating_sub(self.at).max(0).unsigned_abs() / period.max(1),
            None => 0,
        }
    }
}

impl Schedule {
    /// The schedule with what was noted.
    pub(super) fn new(alarms: impl IntoIterator<Item = (String, Alarm)>) -> Self {
        let mut schedule = Schedule::default();
        for (name, alarm) in alarms {
            schedule.set(name, alarm);
        }
        schedule
    }

    pub(super) fn len(&self) -> usize {
        self.alarms.len()
    }

    pub(super) fn contains(&self, name: &str) -> bool {
        self.alarms.contains_key(name)
    }

    /// By name.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &Alarm)> {
        self.alarms.iter().map(|(name, entry)| (name.as_str(), &entry.alarm))
    }

    /// Sets an alarm; one of the same name is replaced.
    pub(super) fn set(&mut self, name: String, alarm: Alarm) {
        self.revisions += 1;
        self.alarms.insert(name, Entry { alarm, revision: self.revisions });
    }

    /// Removes an alarm. Whether it was there.
    pub(super) fn remove(&mut self, name: &str) -> bool {
        self.alarms.remove(name).is_some()
    }

    /// When the next alarm is told. The wire is to wake the actor then: an alarm that is being told counts with its
    /// next try.
    pub(super) fn next(&self) -> Option<i64> {
        self.alarms.values().map(|entry| entry.alarm.next).min()
    }

    /// The alarms that are due and not among those being told, at most this many, and the longest due first.
    pub(super) fn due(&self, now: i64, busy: impl Fn(&str) -> bool, most: usize) -> Vec<Due> {
        let mut due: Vec<_> =
            self.alarms.iter().filter(|(name, entry)| entry.alarm.next <= now && !busy(name)).collect();
        due.sort_by_key(|(_, entry)| entry.alarm.next);
        due.truncate(most);
        let due = due.into_iter().map(|(name, entry)| {
            let alarm = &entry.alarm;
            let attempt = alarm.attempt.saturating_add(1);
            Due {
                name: name.clone(),
                data: alarm.data.clone(),
                attempt,
                missed: u32::try_from(alarm.missed(now)).unwrap_or(u32::MAX),
                late_ms: alarm.late_ms(now),
                revision: entry.revision,
                noted: Alarm { attempt, next: now.saturating_add(pause_ms(attempt)), ..alarm.clone() },
            }
        });
        due.collect()
    }

    /// When the next alarm that is not being told is due.
    pub(super) fn next_due(&self, busy: impl Fn(&str) -> bool) -> Option<i64> {
        let free = self.alarms.iter().filter(|(name, _)| !busy(name));
        free.map(|(_, entry)| entry.alarm.next).min()
    }

    /// Notes that an alarm is about to be told. Whether it still stands as it was when it was due.
    pub(super) fn begin(&mut self, due: &Due) -> bool {
        match self.alarms.get_mut(&due.name) {
            Some(entry) if entry.revision == due.revision => {
                entry.alarm = due.noted.clone();
                true
            }
            Some(_) | None => false,
        }
    }

    /// Tells what becomes of an alarm after it was told. The next try of one that was not taken counts from the end of
    /// this one.
    pub(super) fn told(&mut self, due: &Due, taken: bool, now: i64) -> Change {
        let Some(entry) = self.alarms.get_mut(&due.name).filter(|entry| entry.revision == due.revision) else {
            return Change::None;
        };
        let alarm = &mut entry.alarm;
        match (taken, alarm.every_ms) {
            (true, None) => {
                self.alarms.remove(&due.name);
                Change::Remove
            }
            (true, Some(period)) => {
                let periods = u64::from(due.missed).saturating_add(1);
                let ahead = i64::try_from(period.saturating_mul(periods)).unwrap_or(i64::MAX);
                alarm.at = alarm.at.saturating_add(ahead);
                alarm.next = alarm.at;
                alarm.attempt = 0;
                Change::Put(alarm.clone())
            }
            (false, _) => {
                let next = now.saturating_add(pause_ms(due.attempt));
                if next == alarm.next {
                    return Change::None;
                }
                alarm.next = next;
                Change::Put(alarm.clone())
            }
        }
    }

    /// The wall clock was set back so far that a try would come much later than it was meant: it comes after its usual
    /// pause instead. What an actor asked for by the wall clock stays.
    pub(super) fn clock_set_back(&mut self, now: i64) {
        for entry in self.alarms.values_mut() {
            let alarm = &mut entry.alarm;
            if alarm.attempt > 0 {
                alarm.next = alarm.next.min(now.saturating_add(pause_ms(alarm.attempt)));
            }
        }
    }
}

/// How long after a try that failed the next one is made: 2 s, doubling, at most an hour.
fn pause_ms(attempt: u32) -> i64 {
    let doubled = FIRST_PAUSE.saturating_mul(1u32.checked_shl(attempt.saturating_sub(1)).unwrap_or(u32::MAX));
    i64::try_from(doubled.min(LONGEST_PAUSE).as_millis()).unwrap_or(i64::MAX)
}

/// The pause after the first try.
const FIRST_PAUSE: Duration = Duration::from_secs(2);

/// An actor whose alarm fails for days is woken once an hour for it.
const LONGEST_PAUSE: Duration = Duration::from_secs(60 * 60);

#[cfg(test)]
mod tests;
