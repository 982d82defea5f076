//! Alarms with names: kept in the actor's storage, told while it is awake, and the earliest one at the gateway, which
//! wakes the actor for it.
//!
//! One task per life that has alarms owns them: it keeps the storage, the gateway's one alarm and the timer in step.
//! An alarm is noted with its next try before it is told, and taken out or moved on after the answer.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use greenroom_protocol::{KvRequest, limits};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tracing::{debug, warn};

use super::delivery::{Teller, Told};
use super::reserved::{self, ALARMS};
use super::row::Row;
use super::schedule::{Alarm, Change, Due, Schedule};
use crate::actor::StartReason;
use crate::host::{ActorContext, Delivery, Event, KvError};
use crate::telemetry::metrics;

/// The alarms of one actor life. Their task starts with the first one.
#[derive(Debug)]
pub(in crate::host) struct Clock {
    /// The way to the task, once it runs.
    commands: OnceLock<mpsc::Sender<Command>>,
    /// Empty until the actor runs; made when there is somebody to tell, or something to tell of.
    teller: OnceLock<watch::Sender<Option<Teller>>>,
    /// When the next alarm is told; [`i64::MAX`] for none.
    next: AtomicI64,
}

/// What an actor can do with its alarms.
#[derive(Clone, Copy, Debug)]
pub struct Alarms<'a> {
    context: &'a ActorContext,
}

/// An alarm as it stands. Times are milliseconds since the epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AlarmInfo {
    /// Its name, unique within the actor.
    pub name: String,
    /// When it is, or was, due.
    pub at: i64,
    /// Its period, when it repeats.
    pub every_ms: Option<u64>,
    /// What the actor is told with it.
    pub data: Bytes,
    /// How often the actor was told and has not taken it.
    pub attempt: u32,
    /// When the actor is told next.
    pub next_at: i64,
}

/// Why an alarm was not set or read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AlarmError {
    /// Actors of this kind take no alarms.
    #[error("this actor takes no events, so nobody could tell it of an alarm")]
    NotServed,
    /// Too many.
    #[error("an actor has at most {ALARMS_MAX} alarms")]
    TooMany,
    /// The name cannot be used.
    #[error("the name of an alarm has 1 to {NAME_MAX} bytes")]
    BadName,
    /// The data is too large.
    #[error("the data of an alarm has at most {DATA_MAX} bytes, this has {0}")]
    TooLarge(usize),
    /// The period is too short.
    #[error("an alarm repeats every {PERIOD_MIN_MS} ms at most")]
    TooOften,
    /// It could not be stored or read.
    #[error(transparent)]
    Storage(#[from] KvError),
}

#[derive(Debug)]
enum Command {
    List {
        answer: oneshot::Sender<Vec<AlarmInfo>>,
    },
    Set {
        name: String,
        alarm: Alarm,
        answer: oneshot::Sender<Result<(), AlarmError>>,
    },
    Remove {
        name: String,
        answer: oneshot::Sender<Result<(), AlarmError>>,
    },
    /// Tells the gateway the earliest alarm, whatever it knows already.
    Rearm {
        answer: oneshot::Sender<()>,
    },
}

impl<'a> Alarms<'a> {
    pub(in crate::host) fn new(context: &'a ActorContext) -> Self {
        Alarms { context }
    }

    /// Sets an alarm, replacing one of the same name; it is durable when this returns. `at` is in milliseconds since
    /// the epoch; a time that has passed is due at once. With a period the alarm is due again after each.
    ///
    /// # Errors
    /// [`AlarmError`].
    pub async fn set(
        self,
        name: &str,
        at: i64,
        every: Option<Duration>,
        data: impl Into<Bytes>,
    ) -> Result<(), AlarmError> {
        let (name, data) = (checked(name)?, data.into());
        if data.len() > DATA_MAX {
            return Err(AlarmError::TooLarge(data.len()));
        }
        let every_ms = every.map(|every| u64::try_from(every.as_millis()).unwrap_or(u64::MAX));
        if every_ms.is_some_and(|period| period < PERIOD_MIN_MS) {
            return Err(AlarmError::TooOften);
        }
        let alarm = Alarm::new(at, every_ms, data);
        self.ask(|answer| Command::Set { name, alarm, answer }).await?
    }

    /// Sets an alarm that is due this long from now.
    ///
    /// # Errors
    /// [`AlarmError`].
    pub async fn set_in(self, name: &str, delay: Duration, data: impl Into<Bytes>) -> Result<(), AlarmError> {
        let delay = i64::try_from(delay.as_millis()).unwrap_or(i64::MAX);
        self.set(name, now_ms().saturating_add(delay), None, data).await
    }

    /// Removes an alarm; it need not exist.
    ///
    /// # Errors
    /// [`AlarmError`].
    pub async fn remove(self, name: &str) -> Result<(), AlarmError> {
        let name = checked(name)?;
        self.ask(|answer| Command::Remove { name, answer }).await?
    }

    /// All of them, by name.
    ///
    /// # Errors
    /// [`AlarmError`].
    pub async fn list(self) -> Result<Vec<AlarmInfo>, AlarmError> {
        self.ask(|answer| Command::List { answer }).await
    }

    async fn ask<T>(self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, AlarmError> {
        if !self.context.events().settings().alarms {
            return Err(AlarmError::NotServed);
        }
        let clock = self.context.events().clock();
        let (answer, answered) = oneshot::channel();
        // The task ends with the life.
        clock.start(self.context, None).send(command(answer)).await.map_err(|_| AlarmError::Storage(KvError::Stale))?;
        answered.await.map_err(|_| AlarmError::Storage(KvError::Stale))
    }
}

impl Clock {
    pub(in crate::host) fn new() -> Self {
        Clock { commands: OnceLock::new(), teller: OnceLock::new(), next: AtomicI64::new(i64::MAX) }
    }

    /// The actor runs and is told its alarms from now on; the notes are those of earlier lives.
    pub(in crate::host) fn begin(&self, teller: Teller, context: &ActorContext, notes: &[(Bytes, Bytes)]) {
        self.teller().send_replace(Some(teller));
        let rows: Vec<_> = notes.iter().filter(|(key, _)| key.starts_with(ALARMS)).cloned().collect();
        if !rows.is_empty() {
            self.start(context, Some(rows));
        }
    }

    /// The life is over: what it holds of the actor goes, or neither would ever be freed.
    pub(in crate::host) fn end(&self) {
        if let Some(teller) = self.teller.get() {
            teller.send_replace(None);
        }
    }

    fn teller(&self) -> &watch::Sender<Option<Teller>> {
        self.teller.get_or_init(|| watch::Sender::new(None))
    }

    /// When the actor is told of its next alarm, in milliseconds since the epoch.
    pub(in crate::host) fn next(&self) -> Option<i64> {
        Some(self.next.load(Ordering::Relaxed)).filter(|next| *next != i64::MAX)
    }

    /// Makes sure that the gateway wakes the actor for its earliest alarm: one whose time passed while the actor was
    /// awake is forgotten there.
    pub(in crate::host) async fn rearm(&self) {
        let Some(commands) = self.commands.get() else { return };
        let (answer, answered) = oneshot::channel();
        if commands.send(Command::Rearm { answer }).await.is_ok() {
            // The task may end with the life.
            let _ = answered.await;
        }
    }

    fn start(&self, context: &ActorContext, rows: Option<Vec<(Bytes, Bytes)>>) -> &mpsc::Sender<Command> {
        self.commands.get_or_init(|| {
            let (commands, inbox) = mpsc::channel(COMMANDS);
            let keeper = Keeper {
                context: context.clone(),
                schedule: Schedule::default(),
                teller: self.teller().subscribe(),
                tellings: JoinSet::new(),
                busy: BTreeSet::new(),
                unstored: BTreeMap::new(),
                armed: None,
                not_before: Instant::now(),
                last_look: now_ms(),
                pending: Pending::default(),
            };
            context.events().spawn(keeper.run(inbox, rows));
            commands
        })
    }
}

/// The task that owns the alarms of one life.
struct Keeper {
    context: ActorContext,
    schedule: Schedule,
    teller: watch::Receiver<Option<Teller>>,
    tellings: JoinSet<(Due, Told)>,
    /// The names of those that are being told.
    busy: BTreeSet<String>,
    /// What was decided and not stored yet, by name; nothing for those that have gone.
    unstored: BTreeMap<String, Option<Alarm>>,
    /// What the gateway knows.
    armed: Option<i64>,
    /// After a failure storage is left alone for a moment.
    not_before: Instant,
    last_look: i64,
    pending: Pending,
}

/// How many alarms of a life count as pending.
#[derive(Default)]
struct Pending(i64);

impl Keeper {
    async fn run(mut self, mut inbox: mpsc::Receiver<Command>, rows: Option<Vec<(Bytes, Bytes)>>) {
        let rows = match rows {
            Some(rows) => rows,
            None if self.context.start().reason == StartReason::Create => Vec::new(),
            None => match reserved::read_patiently(&self.context, LOAD_WITHIN).await {
                Ok(rows) => rows,
                Err(error) => return warn!(%error, "the alarms of an actor cannot be read; it is told none"),
            },
        };
        self.schedule = Schedule::new(rows.iter().filter_map(|(key, value)| read_row(key, value)));
        loop {
            self.tell_due().await;
            self.arm(false).await;
            self.pending.set(self.schedule.len());
            let pause = self.pause();
            tokio::select! {
                command = inbox.recv() => match command {
                    Some(command) => self.obey(command).await,
                    None => return,
                },
                Some(told) = self.tellings.join_next() => match told {
                    Ok((due, told)) => self.told(due, told).await,
                    // The code of the actor is caught where it runs; the rest is ours.
                    Err(error) => tracing::error!(%error, "telling an alarm failed"),
                },
                Ok(()) = self.teller.changed() => {}
                () = sleep(pause) => {}
            }
        }
    }

    async fn obey(&mut self, command: Command) {
        // Whoever asked may have given up waiting.
        match command {
            Command::List { answer } => {
                let list = self.schedule.iter().map(|(name, alarm)| AlarmInfo {
                    name: name.to_owned(),
                    at: alarm.at,
                    every_ms: alarm.every_ms,
                    data: alarm.data.clone(),
                    attempt: alarm.attempt,
                    next_at: alarm.next,
                });
                let _ = answer.send(list.collect());
            }
            Command::Set { name, alarm, answer } => {
                let _ = answer.send(self.set(name, alarm).await);
            }
            Command::Remove { name, answer } => {
                let _ = answer.send(self.remove(&name).await);
            }
            Command::Rearm { answer } => {
                self.arm(true).await;
                let _ = answer.send(());
            }
        }
    }

    async fn set(&mut self, name: String, alarm: Alarm) -> Result<(), AlarmError> {
        if self.schedule.len() >= ALARMS_MAX && !self.schedule.contains(&name) {
            return Err(AlarmError::TooMany);
        }
        // The gateway is told first: by the time the alarm is stored it knows when to wake the actor.
        self.arm_at(self.schedule.next().into_iter().chain([alarm.next]).min()).await;
        let request = KvRequest::Put { keys: vec![key_of(&name)], values: vec![encoded(&alarm)] };
        self.context.kv_with_notes(request).await?;
        self.unstored.remove(&name);
        self.schedule.set(name, alarm);
        Ok(())
    }

    async fn remove(&mut self, name: &str) -> Result<(), AlarmError> {
        if self.schedule.contains(name) {
            self.context.kv_with_notes(KvRequest::Delete { keys: vec![key_of(name)] }).await?;
            self.unstored.remove(name);
            self.schedule.remove(name);
        }
        Ok(())
    }

    /// Tells what is due, after it was noted.
    async fn tell_due(&mut self) {
        let now = now_ms();
        if now + CLOCK_SLACK_MS < self.last_look {
            self.schedule.clock_set_back(now);
        }
        self.last_look = now;
        if Instant::now() < self.not_before || !self.store().await || self.context.events().gate().is_shut() {
            return;
        }
        let Some(teller) = self.teller.borrow_and_update().clone() else { return };
        let places = AT_ONCE.saturating_sub(self.busy.len());
        let mut due = self.schedule.due(now, |name| self.busy.contains(name), places);
        if due.is_empty() {
            return;
        }
        let keys = due.iter().map(|due| key_of(&due.name)).collect();
        let values = due.iter().map(|due| encoded(&due.noted)).collect();
        if !self.stored(KvRequest::Put { keys, values }).await {
            return;
        }
        due.retain(|due| self.schedule.begin(due));
        for first in due.iter().filter(|due| due.attempt == 1) {
            metrics::runner().alarm_lateness.observe(Duration::from_millis(first.late_ms));
        }
        self.arm(false).await;
        for due in due {
            debug!(alarm = due.name, attempt = due.attempt, missed = due.missed, "telling an alarm");
            self.busy.insert(due.name.clone());
            let teller = teller.clone();
            self.tellings.spawn(async move {
                let event = Event::Alarm { name: due.name.clone().into(), data: due.data.clone(), missed: due.missed };
                let told = teller.tell(Delivery { event, attempt: due.attempt }).await;
                (due, told)
            });
        }
    }

    async fn told(&mut self, due: Due, told: Told) {
        self.busy.remove(&due.name);
        if let Err(error) = &told.result {
            warn!(alarm = due.name, attempt = due.attempt, %error, "an alarm was not taken; it is told again later");
        }
        match self.schedule.told(&due, told.result.is_ok(), now_ms()) {
            Change::Remove => drop(self.unstored.insert(due.name, None)),
            Change::Put(alarm) => drop(self.unstored.insert(due.name, Some(alarm))),
            Change::None => {}
        }
        self.store().await;
        // Whoever waits for events to be answered waits for this to be stored.
        drop(told);
    }

    /// Stores what was decided. Whether all of it is.
    async fn store(&mut self) -> bool {
        while let Some((name, alarm)) = self.unstored.first_key_value() {
            let (name, key) = (name.clone(), key_of(name));
            let request = match alarm {
                Some(alarm) => KvRequest::Put { keys: vec![key], values: vec![encoded(alarm)] },
                None => KvRequest::Delete { keys: vec![key] },
            };
            if !self.stored(request).await {
                return false;
            }
            self.unstored.remove(&name);
        }
        true
    }

    async fn stored(&mut self, request: KvRequest) -> bool {
        match self.context.kv_with_notes(request).await {
            Ok(_) => true,
            Err(error) => {
                debug!(%error, "an alarm could not be stored yet");
                self.not_before = Instant::now() + STORE_PAUSE;
                false
            }
        }
    }

    /// Lets the gateway know the earliest alarm; `always` also when it should know it.
    async fn arm(&mut self, always: bool) {
        let next = self.schedule.next();
        if always && next.is_some() {
            self.armed = None;
        }
        self.arm_at(next).await;
    }

    async fn arm_at(&mut self, next: Option<i64>) {
        self.context.events().clock().next.store(next.unwrap_or(i64::MAX), Ordering::Relaxed);
        if self.armed != next {
            self.armed = next;
            // Without a runner nobody is to be woken.
            let _ = self.context.set_alarm(next).await;
        }
    }

    /// How long to do nothing, by the monotonic clock: the wall clock is looked at again at least once a minute.
    fn pause(&self) -> Duration {
        let blocked = self.not_before.saturating_duration_since(Instant::now());
        if !blocked.is_zero() {
            return blocked;
        }
        if self.busy.len() >= AT_ONCE || self.teller.borrow().is_none() {
            return LOOK_AGAIN;
        }
        let Some(next) = self.schedule.next_due(|name| self.busy.contains(name)) else { return LOOK_AGAIN };
        let ahead = Duration::from_millis(next.saturating_sub(now_ms()).max(0).unsigned_abs());
        // What is due and was not told meets a gate that is shut.
        if ahead.is_zero() { STORE_PAUSE } else { ahead.min(LOOK_AGAIN) }
    }
}

impl Pending {
    fn set(&mut self, alarms: usize) {
        let alarms = i64::try_from(alarms).unwrap_or(i64::MAX);
        if alarms != self.0 {
            metrics::runner().alarms_pending.inc_by(alarms - self.0);
            self.0 = alarms;
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.set(0);
    }
}

/// An alarm as it is stored.
#[derive(Serialize, Deserialize)]
struct AlarmRow {
    at: i64,
    every_ms: Option<u64>,
    attempt: u32,
    next: i64,
    data: Vec<u8>,
}

impl Row for AlarmRow {
    const VERSION: u8 = 1;
}

fn encoded(alarm: &Alarm) -> Bytes {
    let Alarm { at, every_ms, attempt, next, ref data } = *alarm;
    AlarmRow { at, every_ms, attempt, next, data: data.to_vec() }.encode()
}

fn key_of(name: &str) -> Bytes {
    [ALARMS, name.as_bytes()].concat().into()
}

fn read_row(key: &[u8], value: &[u8]) -> Option<(String, Alarm)> {
    let name = std::str::from_utf8(key.strip_prefix(ALARMS)?).ok()?;
    match AlarmRow::decode(value) {
        Ok(AlarmRow { at, every_ms, attempt, next, data }) => Some((
            name.to_owned(),
            Alarm { at, every_ms: every_ms.filter(|period| *period > 0), data: data.into(), attempt, next },
        )),
        Err(error) => {
            warn!(alarm = name, error, "an alarm that was kept cannot be read; it is left alone");
            None
        }
    }
}

fn checked(name: &str) -> Result<String, AlarmError> {
    if name.is_empty() || name.len() > NAME_MAX { Err(AlarmError::BadName) } else { Ok(name.to_owned()) }
}

/// The wall clock, in milliseconds since the epoch.
#[must_use]
pub fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// The most alarms of one actor.
pub const ALARMS_MAX: usize = 1000;

/// The longest name of an alarm, in bytes: it is part of a key.
pub const NAME_MAX: usize = 256;

/// The most data of one alarm, in bytes: all alarms are read when an actor wakes, in pages that must fit into a
/// message.
pub const DATA_MAX: usize = 16 * 1024;

/// The shortest period, in milliseconds: every telling is stored twice.
pub const PERIOD_MIN_MS: u64 = 100;

/// How many alarms of an actor are told at once, at most; their notes fit into one put.
const AT_ONCE: usize = 32;
const _: () = assert!(AT_ONCE * (DATA_MAX + 1024) < limits::KV_PUT_MAX && AT_ONCE <= limits::KV_KEYS_MAX);

/// Commands that may wait; beyond this their senders wait.
const COMMANDS: usize = 16;

/// How long storage is left alone after a failure, and how soon a shut gate is looked at again.
const STORE_PAUSE: Duration = Duration::from_secs(1);

/// The wall clock may jump: it is looked at this often.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// A step back by less than this is a clock being adjusted, not set.
const CLOCK_SLACK_MS: i64 = 1000;

/// How long the first alarm of a life may wait for those of earlier ones to be read.
const LOAD_WITHIN: Duration = Duration::from_secs(20);
