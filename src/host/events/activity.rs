//! Whether an actor has anything to do, and how long it has not.
//!
//! Counters that requests, sockets and events raise and lower as they pass; nobody holds a lock for it. Leases keep an
//! actor awake for what no counter sees, and end by themselves.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};
use tracing::info;

use super::alarms::now_ms;
use crate::host::ActorContext;

/// Something that keeps an actor awake while it goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// A client's request.
    Request,
    /// A socket that the actor holds itself.
    Socket,
    /// An event that is told, or waits to be.
    Event,
    /// A workflow with something to do now.
    Workflow,
    /// A job.
    Job,
}

/// Why an actor is awake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AwakeReason {
    /// This many of these go on.
    Work(Work, usize),
    /// A lease holds it, for this long at most.
    KeepAwake(String, Duration),
    /// An alarm is due at this time, in milliseconds since the epoch, which is too soon to sleep.
    AlarmSoon(i64),
    /// It has had nothing to do for this long, and sleeps after `of`.
    IdleFor {
        /// For how long.
        idle: Duration,
        /// Its `sleep_after`.
        of: Duration,
    },
    /// It never sleeps by itself: its `sleep_after` is `never`.
    NeverSleeps,
}

/// What goes on in one actor life.
#[derive(Debug)]
pub(in crate::host) struct Activity {
    began: Instant,
    counts: [AtomicUsize; Work::ALL.len()],
    /// When the last work ended, in milliseconds since `began`.
    last_end: AtomicU64,
    /// How much work began, ever: tells whether there was any in between.
    begun: AtomicU64,
    ended: Notify,
    leases: Mutex<BTreeMap<String, Instant>>,
}

/// Work that goes on until this is dropped.
#[derive(Debug)]
pub struct Working {
    activity: Arc<Activity>,
    work: Work,
}

/// A lease that is given back when this is dropped, and ends by itself after its time.
#[derive(Debug)]
#[must_use = "dropping it gives the lease back"]
pub struct KeepAwake {
    activity: Arc<Activity>,
    name: String,
}

/// Why there is no lease.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LeaseError {
    /// Too many.
    #[error("an actor has at most {LEASES_MAX} keep-awake leases")]
    TooMany,
    /// The name cannot be used.
    #[error("the name of a keep-awake lease has 1 to {LEASE_NAME_MAX} bytes")]
    BadName,
    /// The time is too long.
    #[error("a keep-awake lease lasts at most {} s; renew it before it ends", LEASE_MAX.as_secs())]
    TooLong,
}

impl Work {
    const ALL: [Work; 5] = [Work::Request, Work::Socket, Work::Event, Work::Workflow, Work::Job];

    /// The word used in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Work::Request => "requests",
            Work::Socket => "sockets",
            Work::Event => "events",
            Work::Workflow => "workflows",
            Work::Job => "jobs",
        }
    }
}

impl Activity {
    pub(in crate::host) fn new() -> Arc<Self> {
        Arc::new(Activity {
            began: Instant::now(),
            counts: Default::default(),
            last_end: AtomicU64::new(0),
            begun: AtomicU64::new(0),
            ended: Notify::new(),
            leases: Mutex::default(),
        })
    }

    /// Counts work until the guard is dropped.
    pub(in crate::host) fn working(self: &Arc<Self>, work: Work) -> Working {
        self.begun.fetch_add(1, Ordering::SeqCst);
        self.counts[work as usize].fetch_add(1, Ordering::SeqCst);
        Working { activity: self.clone(), work }
    }

    /// Takes or renews a lease.
    ///
    /// # Errors
    /// [`LeaseError`].
    pub(in crate::host) fn lease(&self, name: &str, lasts: Duration, now: Instant) -> Result<(), LeaseError> {
        if name.is_empty() || name.len() > LEASE_NAME_MAX {
            return Err(LeaseError::BadName);
        }
        if lasts > LEASE_MAX {
            return Err(LeaseError::TooLong);
        }
        let mut leases = self.leases.lock().unwrap_or_else(PoisonError::into_inner);
        leases.retain(|_, until| *until > now);
        if leases.len() >= LEASES_MAX && !leases.contains_key(name) {
            return Err(LeaseError::TooMany);
        }
        leases.insert(name.to_owned(), now + lasts);
        Ok(())
    }

    /// Gives a lease back; it need not be held.
    pub(in crate::host) fn release(&self, name: &str, now: Instant) {
        let released = self.leases.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
        if released.is_some_and(|until| until > now) {
            self.note_end(now);
        }
    }

    /// What goes on now; a lease that has ended counts as work that ended then.
    fn reasons(&self, now: Instant) -> Vec<AwakeReason> {
        let counts = Work::ALL.into_iter().map(|work| (work, self.counts[work as usize].load(Ordering::SeqCst)));
        let mut reasons: Vec<_> =
            counts.filter(|(_, count)| *count > 0).map(|(work, count)| AwakeReason::Work(work, count)).collect();
        let leases = self.leases.lock().unwrap_or_else(PoisonError::into_inner);
        let held = leases.iter().filter(|(_, until)| **until > now);
        reasons.extend(held.map(|(name, until)| AwakeReason::KeepAwake(name.clone(), *until - now)));
        reasons
    }

    /// Since when nothing has gone on. Only meaningful while nothing goes on.
    fn idle_since(&self, now: Instant) -> Instant {
        let last_end = self.began + Duration::from_millis(self.last_end.load(Ordering::SeqCst));
        let leases = self.leases.lock().unwrap_or_else(PoisonError::into_inner);
        let last_lease = leases.values().filter(|until| **until <= now).max();
        last_end.max(last_lease.copied().unwrap_or(self.began))
    }

    fn note_end(&self, now: Instant) {
        let end = u64::try_from((now - self.began).as_millis()).unwrap_or(u64::MAX);
        self.last_end.fetch_max(end, Ordering::SeqCst);
        self.ended.notify_one();
    }
}

/// Why this actor is awake; empty only for a moment.
pub(in crate::host) fn awake_because(context: &ActorContext) -> Vec<AwakeReason> {
    let events = context.events();
    let (activity, now) = (events.activity(), Instant::now());
    let mut reasons = activity.reasons(now);
    reasons.extend(alarm_soon(context).map(AwakeReason::AlarmSoon));
    match events.settings().sleep_after {
        None => reasons.push(AwakeReason::NeverSleeps),
        Some(of) if reasons.is_empty() => {
            let idle = now.saturating_duration_since(activity.idle_since(now));
            reasons.push(AwakeReason::IdleFor { idle, of });
        }
        Some(_) => {}
    }
    reasons
}

/// Asks for the actor's sleep whenever it has had nothing to do for this long. Runs until the life ends.
pub(in crate::host) async fn sleep_when_idle(context: ActorContext, after: Duration) {
    let activity = context.events().activity().clone();
    loop {
        let begun = activity.begun.load(Ordering::SeqCst);
        let now = Instant::now();
        let pause = match &activity.reasons(now)[..] {
            [] => match alarm_soon(&context) {
                Some(at) => Duration::from_millis(at.saturating_sub(now_ms()).max(0).unsigned_abs()) + LOOK_PAUSE,
                None => (activity.idle_since(now) + after).saturating_duration_since(now),
            },
            // An end is told; the end of a lease is not.
            reasons => {
                let leases = reasons.iter().filter_map(|reason| match reason {
                    AwakeReason::KeepAwake(_, left) => Some(*left),
                    _ => None,
                });
                let _ = timeout(leases.max().unwrap_or(LEASE_MAX) + LOOK_PAUSE, activity.ended.notified()).await;
                continue;
            }
        };
        if !pause.is_zero() {
            sleep(pause).await;
            continue;
        }
        if context.wants_to_leave() || context.events().gate().is_shut() {
            sleep(AFTER_WISH).await;
            continue;
        }
        context.events().quiesce().await;
        let still_idle = activity.begun.load(Ordering::SeqCst) == begun && activity.reasons(Instant::now()).is_empty();
        if !still_idle {
            context.events().resume();
            continue;
        }
        info!(idle_ms = u64::try_from(after.as_millis()).unwrap_or(u64::MAX), "nothing to do; asking to sleep");
        if context.sleep().await.is_err() {
            return;
        }
        sleep(AFTER_WISH).await;
    }
}

/// The next alarm, when it is too soon to sleep before it.
fn alarm_soon(context: &ActorContext) -> Option<i64> {
    let soon = now_ms().saturating_add(i64::try_from(SOON.as_millis()).unwrap_or(i64::MAX));
    context.events().clock().next().filter(|at| *at <= soon)
}

impl Drop for Working {
    fn drop(&mut self) {
        self.activity.note_end(Instant::now());
        self.activity.counts[self.work as usize].fetch_sub(1, Ordering::SeqCst);
        self.activity.ended.notify_one();
    }
}

impl KeepAwake {
    pub(in crate::host) fn new(activity: Arc<Activity>, name: &str, lasts: Duration) -> Result<Self, LeaseError> {
        activity.lease(name, lasts, Instant::now())?;
        Ok(KeepAwake { activity, name: name.to_owned() })
    }

    /// Makes the lease last this long from now on.
    ///
    /// # Errors
    /// [`LeaseError`].
    pub fn renew(&self, lasts: Duration) -> Result<(), LeaseError> {
        self.activity.lease(&self.name, lasts, Instant::now())
    }
}

impl Drop for KeepAwake {
    fn drop(&mut self) {
        self.activity.release(&self.name, Instant::now());
    }
}

impl fmt::Display for AwakeReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AwakeReason::Work(work, count) => write!(f, "{count} {}", work.as_str()),
            AwakeReason::KeepAwake(name, left) => write!(f, "keep-awake lease {name:?} for {} s", left.as_secs()),
            AwakeReason::AlarmSoon(at) => write!(f, "an alarm is due at {at}"),
            AwakeReason::IdleFor { idle, of } => write!(f, "idle for {} s of {} s", idle.as_secs(), of.as_secs()),
            AwakeReason::NeverSleeps => f.write_str("sleep_after = \"never\""),
        }
    }
}

/// The longest lease.
pub const LEASE_MAX: Duration = Duration::from_secs(60 * 60);

/// The most leases of one actor.
pub const LEASES_MAX: usize = 100;

/// The longest name of a lease, in bytes.
pub const LEASE_NAME_MAX: usize = 256;

/// An actor does not go to sleep for less than this.
const SOON: Duration = Duration::from_secs(1);

/// How long after a moment that was waited for it is looked at.
const LOOK_PAUSE: Duration = Duration::from_millis(5);

/// How long after a wish to sleep, if nothing came of it, the actor is looked at again.
const AFTER_WISH: Duration = Duration::from_secs(15);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_and_leases_keep_awake_and_count_from_their_end() {
        let activity = Activity::new();
        let at = |seconds| activity.began + Duration::from_secs(seconds);
        let idle = |now| activity.reasons(now).is_empty().then(|| (now - activity.idle_since(now)).as_secs());
        assert_eq!(idle(at(7)), Some(7), "an actor that was never asked for anything");
        let (request, event) = (activity.working(Work::Request), activity.working(Work::Event));
        let both = [AwakeReason::Work(Work::Request, 1), AwakeReason::Work(Work::Event, 1)];
        assert_eq!(activity.reasons(at(7)), both);
        drop(request);
        drop(event);
        activity.note_end(at(5));
        assert_eq!(idle(at(8)), Some(3));
        activity.lease("upload", Duration::from_secs(10), at(8)).unwrap();
        activity.lease("upload", Duration::from_secs(10), at(14)).unwrap();
        assert_eq!(idle(at(23)), None, "it was renewed");
        assert_eq!(idle(at(27)), Some(3), "a lease that was left ends by itself");
        activity.lease("guard", Duration::from_secs(60), at(30)).unwrap();
        assert_eq!(idle(at(40)), None);
        activity.release("guard", at(40));
        assert_eq!(idle(at(41)), Some(1));
        activity.release("guard", at(50));
        assert_eq!(idle(at(51)), Some(11), "giving back what is not held is nothing");
    }

    #[test]
    fn a_guard_gives_its_lease_back() {
        let activity = Activity::new();
        let guard = KeepAwake::new(activity.clone(), "guard", Duration::from_secs(60)).unwrap();
        guard.renew(Duration::from_secs(600)).unwrap();
        assert!(matches!(&activity.reasons(Instant::now())[..], [AwakeReason::KeepAwake(name, _)] if name == "guard"));
        drop(guard);
        assert_eq!(activity.reasons(Instant::now()), []);
    }

    #[test]
    fn leases_are_bounded_in_number_and_time() {
        let activity = Activity::new();
        let (now, minute) = (Instant::now(), Duration::from_secs(60));
        for number in 0..LEASES_MAX {
            activity.lease(&number.to_string(), minute, now).unwrap();
        }
        assert_eq!(activity.lease("one more", minute, now), Err(LeaseError::TooMany));
        assert_eq!(activity.lease("0", minute, now), Ok(()), "renewing is always possible");
        assert_eq!(activity.lease("x", LEASE_MAX + minute, now), Err(LeaseError::TooLong));
        assert_eq!(activity.lease("", minute, now), Err(LeaseError::BadName));
        assert_eq!(activity.lease("one more", minute, now + minute * 2), Ok(()), "those that ended leave room");
    }
}
