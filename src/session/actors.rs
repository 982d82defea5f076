//! The ledger: every actor life this runner has taken on, until the gateway is sure to know its end.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytestring::ByteString;
use greenroom_protocol::delivery::Outbox;
use greenroom_protocol::{Event, Version};

use crate::actor::{ActorKey, Outcome, StopReason};
use crate::session::{Session, StartCommand};

/// All lives, by actor. Usually one life an actor, two while a newer one waits for an older to end.
#[derive(Debug, Default)]
pub(super) struct Actors {
    lives: BTreeMap<Arc<str>, Vec<Life>>,
    live: usize,
    /// How many lives were added so far.
    added: u64,
    /// Lives to look at before the next wait, in this order: those with events that were not sent on this connection,
    /// and those that ended and are not settled on it.
    pub(super) unsent: VecDeque<ActorKey>,
    /// Ended lives by the time their end was sent, so that they can be forgotten in order.
    settled: BTreeSet<(Instant, ActorKey)>,
}

/// One life.
#[derive(Debug)]
pub(super) struct Life {
    pub(super) key: ActorKey,
    /// Tells it from all other lives, faster than its key does.
    pub(super) number: u64,
    /// The actor's id as messages carry it, one copy for all of them.
    pub(super) actor_id: ByteString,
    pub(super) phase: Phase,
    pub(super) wish: Option<Wish>,
    /// Its wish to sleep has yet to be told: something of its sockets has to be said before.
    pub(super) sleep_held: bool,
    /// The gateway wants it stopped.
    pub(super) stop_commanded: bool,
    pub(super) events: Outbox<Event>,
    /// The index of the event that says that it runs.
    pub(super) running_at: Option<i64>,
    /// An alarm that found no room among the unacknowledged events; the last one counts.
    pub(super) held_alarm: Option<Option<i64>>,
    /// The highest command index seen.
    pub(super) last_command: i64,
    /// How the gateway is to take the end, when the runner's owner decided that.
    pub(super) told_outcome: Option<Outcome>,
    /// The gateway gave us another identity since: it does not know this life any more.
    pub(super) orphan: bool,
    /// Storage requests in flight.
    pub(super) kv_in_flight: usize,
    settled_at: Option<Instant>,
}

/// Where a life is.
#[derive(Debug)]
pub(super) enum Phase {
    /// An older life of the same actor has to end first.
    Waiting(Box<StartCommand>),
    /// Its host was told to start it.
    Starting,
    /// It serves.
    Running,
    /// Its host was told to stop it.
    Stopping(StopReason),
    /// It is no more.
    Ended,
}

/// What an actor asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    /// To sleep.
    Sleep,
    /// To be destroyed.
    Destroy,
}

impl Actors {
    pub(super) fn life(&self, key: &ActorKey) -> Option<&Life> {
        let lives = self.lives.get(&key.id)?;
        lives.get(place(lives, key.generation).ok()?)
    }

    pub(super) fn life_mut(&mut self, key: &ActorKey) -> Option<&mut Life> {
        self.generation_mut(&key.id, key.generation)
    }

    pub(super) fn generation_mut(&mut self, actor_id: &str, generation: u32) -> Option<&mut Life> {
        let lives = self.lives.get_mut(actor_id)?;
        let place = place(lives, generation).ok()?;
        lives.get_mut(place)
    }

    /// The newest life of an actor.
    pub(super) fn newest(&self, actor_id: &str) -> Option<&Life> {
        self.lives.get(actor_id)?.last()
    }

    /// Which life is meant by an acknowledgement that does not say so, as in version 4: the newest, unless events of older
    /// ones are on their way. A gateway reads in order, and is done with a life before it starts the next, so the first
    /// acknowledgement is for all of those.
    pub(super) fn acknowledged_unnamed(&mut self, actor_id: &str) -> Option<u32> {
        let (newest, older) = self.lives.get_mut(actor_id)?.split_last_mut()?;
        let on_their_way = older.iter_mut().filter(|life| life.events.in_flight() > 0);
        let told: usize = on_their_way.map(|life| life.events.acknowledge(i64::MAX)).sum();
        (told == 0).then_some(newest.key.generation)
    }

    /// All lives of an actor, oldest first.
    pub(super) fn lives_of(&self, actor_id: &str) -> &[Life] {
        self.lives.get(actor_id).map_or(&[], Vec::as_slice)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Life> {
        self.lives.values().flatten()
    }

    fn iter_mut(&mut self) -> impl Iterator<Item = &mut Life> {
        self.lives.values_mut().flatten()
    }

    /// The lives that have not ended.
    pub(super) fn live_keys(&self) -> Vec<ActorKey> {
        self.iter().filter(|life| life.is_live()).map(|life| life.key.clone()).collect()
    }

    pub(super) fn live(&self) -> usize {
        self.live
    }

    /// Adds a life that is not here yet.
    pub(super) fn add(&mut self, mut life: Life) {
        life.number = self.added;
        self.added += 1;
        let lives = self.lives.entry(life.key.id.clone()).or_default();
        if let Err(place) = place(lives, life.key.generation) {
            if lives.is_empty() {
                // Most actors have one life at a time; a vector that grows takes room for four.
                lives.reserve_exact(1);
            }
            self.live += usize::from(life.is_live());
            lives.insert(place, life);
        }
    }

    /// Adds a life that never was one here, or is one no more: all there is to it is this end.
    pub(super) fn add_ended(&mut self, key: ActorKey, reason: &'static str) {
        self.add(Life::new(key.clone(), Phase::Ended, UNKNOWN_HISTORY));
        self.push_event(&key, Event::StoppedError { message: Some(ByteString::from_static(reason)) });
    }

    /// Adds a life that an earlier process of this runner left behind: its end is news to the gateway.
    pub(super) fn add_lost(&mut self, key: ActorKey) {
        if self.life(&key).is_none() {
            self.add_ended(key, "the runner was restarted and the actor's process is gone");
        }
    }

    pub(super) fn end(&mut self, key: &ActorKey) {
        if let Some(life) = self.life_mut(key)
            && life.is_live()
        {
            life.phase = Phase::Ended;
            self.live -= 1;
        }
    }

    /// Numbers an event and sees to it that it is sent.
    pub(super) fn push_event(&mut self, key: &ActorKey, event: Event) {
        let Some(life) = self.life_mut(key) else { return };
        if life.orphan {
            return;
        }
        let was_sent = life.events.all_sent();
        life.events.push_beyond(event);
        if was_sent {
            self.unsent.push_back(key.clone());
        }
    }

    /// Nothing sent counts as sent any more. No ended life may be forgotten before it has been settled again: the
    /// gateway may not have had the acknowledgement of its start, and gives the command once more.
    pub(super) fn disconnected(&mut self) {
        self.settled.clear();
        self.unsent.clear();
        for life in self.lives.values_mut().flatten() {
            life.settled_at = None;
            life.events.disconnected();
            if !life.orphan && (!life.is_live() || !life.events.is_empty()) {
                self.unsent.push_back(life.key.clone());
            }
        }
    }

    /// How many lives have events that were not sent on this connection.
    pub(super) fn untold(&self) -> usize {
        self.iter().filter(|life| !life.events.all_sent()).count()
    }

    /// How many lives have events that were not acknowledged.
    pub(super) fn unacknowledged(&self) -> usize {
        self.iter().filter(|life| !life.events.is_empty()).count()
    }

    /// Everything of an ended life was sent on this connection; it is kept a while for redelivered commands.
    pub(super) fn settle(&mut self, key: &ActorKey, now: Instant) {
        let Some(life) = self.life_mut(key) else { return };
        if life.settled_at.is_none() && !life.is_live() && life.events.all_sent() {
            life.settled_at = Some(now);
            self.settled.insert((now, key.clone()));
        }
        while self.settled.len() > SETTLED_MAX {
            self.forget_oldest();
        }
    }

    fn oldest_settled(&self) -> Option<Instant> {
        self.settled.first().map(|(since, _)| *since)
    }

    pub(super) fn remove(&mut self, key: &ActorKey) {
        let Some(lives) = self.lives.get_mut(&key.id) else { return };
        if let Ok(place) = place(lives, key.generation) {
            let life = lives.remove(place);
            self.live -= usize::from(life.is_live());
            if let Some(since) = life.settled_at {
                self.settled.remove(&(since, life.key));
            }
        }
        if lives.is_empty() {
            self.lives.remove(&key.id);
        }
    }

    /// The gateway gave us another identity: it forgot all lives so far, and we stop telling it about them.
    pub(super) fn orphan_all(&mut self) {
        let ended: Vec<ActorKey> = self.iter().filter(|life| !life.is_live()).map(|life| life.key.clone()).collect();
        for key in &ended {
            self.remove(key);
        }
        for life in self.iter_mut() {
            life.orphan = true;
            life.held_alarm = None;
            life.events.clear();
        }
        self.unsent.clear();
    }

    pub(super) fn forget_oldest(&mut self) {
        if let Some((_, key)) = self.settled.pop_first() {
            self.remove(&key);
        }
    }
}

impl Life {
    pub(super) fn new(key: ActorKey, phase: Phase, first_event: i64) -> Self {
        Life {
            actor_id: ByteString::from(&*key.id),
            key,
            number: 0,
            phase,
            wish: None,
            sleep_held: false,
            stop_commanded: false,
            events: Outbox::new(first_event, UNACKED_MAX),
            running_at: None,
            held_alarm: None,
            last_command: -1,
            told_outcome: None,
            orphan: false,
            kv_in_flight: 0,
            settled_at: None,
        }
    }

    /// It has not ended.
    pub(super) fn is_live(&self) -> bool {
        match self.phase {
            Phase::Waiting(_) | Phase::Starting | Phase::Running | Phase::Stopping(_) => true,
            Phase::Ended => false,
        }
    }

    /// It may be given requests; while it starts its host keeps them.
    pub(super) fn admits(&self) -> bool {
        match self.phase {
            Phase::Starting | Phase::Running => true,
            Phase::Waiting(_) | Phase::Stopping(_) | Phase::Ended => false,
        }
    }
}

impl Session {
    /// When the next ended life may be forgotten. In version 4 acknowledgements carry no generation, the Rivet engine
    /// redelivers some commands for ever, and only their number bounds the lives remembered.
    pub(super) fn next_forget(&self) -> Option<Instant> {
        match self.settings.version {
            Version::V4 => None,
            Version::V5 | Version::V6 | Version::V7 => self.actors.oldest_settled().map(|since| since + KEEP_SETTLED),
        }
    }

    pub(super) fn forget_settled(&mut self, now: Instant) {
        while self.next_forget().is_some_and(|due| due <= now) {
            self.actors.forget_oldest();
        }
    }
}

/// Where a generation stands among the lives of an actor, or where it would.
fn place(lives: &[Life], generation: u32) -> Result<usize, usize> {
    lives.binary_search_by_key(&generation, |life| life.key.generation)
}

/// The first event index of a life whose earlier events are not known: beyond any that could have been sent, because
/// the gateway drops what it takes for a repeat, and gaps are fine.
const UNKNOWN_HISTORY: i64 = 1 << 40;

/// Beyond this the gateway is not acknowledging: alarm changes are folded into the last one. State changes are few and
/// always kept.
pub(super) const UNACKED_MAX: usize = 10_000;

/// Ended lives are kept this long after their end was sent on a connection that stayed open: longer than any gateway
/// takes to read it.
const KEEP_SETTLED: Duration = Duration::from_secs(60);

/// More ended lives than this are not remembered; the oldest go first.
const SETTLED_MAX: usize = 65_536;
