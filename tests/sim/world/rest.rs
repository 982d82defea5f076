//! When everything works again: what was accepted comes to an end, and everybody agrees.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use greenroom::session::LinkStatus;
use greenroom::store::{CommitFault, Found, Phase, Query, Store};

use super::World;
use super::clients::Client;
use crate::engine;
use crate::laws::Law;

impl World {
    /// Lets everything work again, waits as long as anything may take, and looks.
    pub fn rest(&mut self) {
        self.calm = true;
        self.gateway.calm_down();
        self.finish_uploads();
        for runner in &mut self.runners {
            runner.refused_dials = 0;
        }
        self.gateway.store.fail_commit_after(u64::MAX, CommitFault::NothingWritten);
        // What is dead is missed by then, what was lost is given up.
        self.pass(LONG);
        let lasting = self.clients.streams.iter().filter(|(_, client)| client.lasting);
        let lasting: Vec<_> = lasting.map(|(stream, client)| (*stream, client.actor.clone())).collect();
        for (stream, _) in &lasting {
            self.say_on(*stream);
        }
        for actor in self.clients.actors.clone() {
            self.ask_actor(actor.clone(), true);
            if self.conditions.encoded {
                self.send_body_to(actor.clone(), PIECES);
                self.fetch_body_from(actor, PIECES);
            }
        }
        let mut unsettled = None;
        for _ in 0..ROUNDS {
            self.pass(ROUND);
            if self.breach.is_some() {
                return;
            }
            self.check_books();
            unsettled = self.unsettled();
            if unsettled.is_none() {
                break;
            }
        }
        if let Some((law, what)) = unsettled {
            return self.broken(law, what);
        }
        // Who finds no slot is not woken, and its clients are told.
        let room = self.room();
        let confused = self.conditions.engine && self.tally.doubles > 0;
        for (stream, actor) in lasting.into_iter().filter(|_| room && !confused) {
            let closed = self.ledger.closed_by_actor.contains(&self.wire_id(stream));
            let open = closed || self.clients.streams.contains_key(&stream);
            let gone = self.is_destroyed(&actor);
            self.hold(Law::ASocketStaysOpen, open || gone, || format!("{stream:?} of {actor}"));
        }
        self.check_everything_durable();
        self.nothing_is_said_twice();
    }

    /// What is not as it should be at last.
    fn unsettled(&mut self) -> Option<(Law, String)> {
        if let Some(what) = self.clients.unfinished() {
            return Some((Law::ARequestEnds, what));
        }
        for runner in &self.runners {
            let Some(session) = &runner.session else {
                return Some((Law::EverybodyAgrees, format!("{} is down", runner.key)));
            };
            if session.link_status() != LinkStatus::Open {
                return Some((Law::OneConnection, format!("{}: {:?}", runner.key, session.link_status())));
            }
            let kept = session.unacknowledged_events();
            if kept > 0 && !self.conditions.engine {
                return Some((Law::NoEventIsSkipped, format!("{} keeps {kept} events", runner.key)));
            }
            if !runner.tickets.is_empty() {
                return Some((Law::AStorageRequestIsAnswered, format!("{:?}", runner.tickets)));
            }
        }
        if self.conditions.engine { self.engine_unsettled() } else { self.gateway_unsettled() }
    }

    /// What the model of the engine leaves open.
    fn engine_unsettled(&mut self) -> Option<(Law, String)> {
        let engine = self.gateway.engine()?;
        let mut waits = false;
        for (id, actor) in &engine.actors {
            let lives = self.runners.iter().flat_map(|runner| &runner.lives).filter(|(key, _)| key.id == *id);
            let lives: Vec<_> = lives.map(|(key, life)| (key.clone(), life.serves, life.told_stop)).collect();
            let fits = match actor.phase {
                engine::Phase::Running => {
                    lives.len() == 1 && lives[0].0.generation == actor.generation && lives[0].1 && !lives[0].2
                }
                engine::Phase::Sleeping => {
                    let late = actor.alarm_at.is_some_and(|at| at + ALARM_SLACK_MS < self.now.wall_ms);
                    lives.is_empty() && !late
                }
                engine::Phase::Destroyed => lives.is_empty(),
                engine::Phase::Pending => {
                    waits = true;
                    lives.is_empty()
                }
                engine::Phase::Starting | engine::Phase::Stopping(_) | engine::Phase::Backoff => false,
            };
            if !fits {
                return Some((Law::EverybodyAgrees, format!("{id} {actor:?}, and on runners {lives:?}")));
            }
        }
        let left = self.clients.streams.iter().find(|(_, client)| client.lasting && self.clients_actor_gone(client));
        if let Some((stream, client)) = left {
            return Some((Law::ARequestEnds, format!("{stream:?} {client:?}, whose actor was deleted")));
        }
        if waits {
            return None;
        }
        engine.untaken().map(|what| (Law::ASocketIsReadInOrder, what)).or_else(|| self.rows_unsettled(&BTreeSet::new()))
    }

    fn clients_actor_gone(&self, client: &Client) -> bool {
        self.gateway.engine().is_some_and(|engine| engine.actors.get(&client.actor).is_none_or(engine::Actor::is_gone))
    }

    /// What clients have said and actors that do not wait for a slot have not taken.
    fn rows_unsettled(&mut self, pending: &BTreeSet<Arc<str>>) -> Option<(Law, String)> {
        let open = self.clients.streams.iter().filter(|(_, client)| client.lasting && !pending.contains(&client.actor));
        let open: Vec<_> = open.map(|(stream, client)| (*stream, client.actor.clone(), client.said)).collect();
        for (stream, actor, said) in open {
            let id = self.wire_id(stream);
            let taken = self.row(&actor, id);
            if taken.is_none_or(|(_, taken)| taken != said) {
                let what = format!("{id} of {actor}: {said} said and {taken:?} taken");
                return Some((Law::ASocketIsReadInOrder, what));
            }
        }
        None
    }

    fn gateway_unsettled(&mut self) -> Option<(Law, String)> {
        let health = self.gateway.core()?.health();
        let free_in = self.free_slots();
        let free = free_in.values().sum::<u32>();
        let (mut running, mut pending) = (0, BTreeSet::new());
        for actor in self.everybody() {
            let Some(record) = self.record(&actor) else { continue };
            let lives = self.runners.iter().flat_map(|runner| &runner.lives).filter(|(key, _)| key.id == actor);
            let lives: Vec<_> = lives.map(|(key, life)| (key.clone(), life.serves, life.told_stop)).collect();
            let fits = match record.phase {
                Phase::Running => {
                    running += 1;
                    lives.len() == 1 && lives[0].0.generation == record.generation && lives[0].1 && !lives[0].2
                }
                Phase::Sleeping => {
                    let late = record.alarm_at.is_some_and(|at| at + ALARM_SLACK_MS < self.now.wall_ms);
                    if late && free_in.get(&record.pool).is_some_and(|free| *free > 0) {
                        return Some((Law::AnAlarmRings, format!("{record:?} at {}", self.now.wall_ms)));
                    }
                    lives.is_empty()
                }
                Phase::Destroyed => lives.is_empty(),
                Phase::Pending => {
                    pending.insert(actor.clone());
                    lives.is_empty() && free_in.get(&record.pool).is_none_or(|free| *free == 0)
                }
                Phase::Starting
                | Phase::StoppingToSleep
                | Phase::StoppingToDestroy
                | Phase::StoppingToMove
                | Phase::Backoff => false,
            };
            if !fits {
                return Some((
                    Law::EverybodyAgrees,
                    format!("{record:?}, and on runners {lives:?}, {free} slots free"),
                ));
            }
        }
        let slots = self.conditions.slots * u32::try_from(self.runners.len()).expect("few");
        if free + running != slots {
            return Some((Law::EverybodyAgrees, format!("{free} slots free and {running} in use of {slots}")));
        }
        let left_over = health.streams > self.clients.streams.len() && pending.is_empty();
        if health.waiting_streams > 0 || left_over {
            return Some((Law::ARequestEnds, format!("{health:?} with {} clients", self.clients.streams.len())));
        }
        // Who waits for a slot takes nothing.
        let kept = if pending.is_empty() { health.kept_bytes } else { 0 };
        self.sockets_unsettled(health.lasting_sockets, kept, &pending)
    }

    /// Free slots of runners that are there, by pool.
    fn free_slots(&mut self) -> BTreeMap<Arc<str>, u32> {
        let live = self.gateway.core().map(greenroom::gateway::core::Core::live_runners).unwrap_or_default();
        let mut free = BTreeMap::new();
        if let Ok(Found::Runners(known)) = self.gateway.store.read(&Query::Runners) {
            for runner in known {
                let slots = live.get(&runner.id).map_or(0, |live| live.remaining_slots);
                *free.entry(runner.pool).or_default() += slots;
            }
        }
        free
    }

    /// Whether every actor that there is could be awake.
    fn room(&mut self) -> bool {
        let slots = usize::try_from(self.conditions.slots).expect("few");
        let mut room: BTreeMap<&str, usize> = BTreeMap::new();
        for number in 0..self.runners.len() {
            *room.entry(self.conditions.pool_of(number)).or_default() += slots;
        }
        let pools: Vec<Arc<str>> = self.everybody().iter().filter_map(|actor| self.pool_of_living(actor)).collect();
        pools.iter().all(|pool| {
            let awake = pools.iter().filter(|other| *other == pool).count();
            room.get(&**pool).is_some_and(|room| awake <= *room)
        })
    }

    fn pool_of_living(&mut self, actor: &Arc<str>) -> Option<Arc<str>> {
        if self.is_destroyed(actor) {
            return None;
        }
        match self.gateway.engine() {
            Some(engine) => engine.actors.get(actor).map(|actor| actor.pool.clone()),
            None => self.record(actor).map(|record| record.pool),
        }
    }

    /// All actors: those that clients know, and those of which nobody was told because the gateway was killed.
    fn everybody(&mut self) -> BTreeSet<Arc<str>> {
        let mut all: BTreeSet<Arc<str>> = self.clients.actors.iter().cloned().collect();
        if let Ok(Found::Actors(awake)) = self.gateway.store.read(&Query::AwakeActors) {
            all.extend(awake.into_iter().map(|record| record.id));
        }
        all
    }

    fn sockets_unsettled(
        &mut self,
        lasting: usize,
        kept: usize,
        pending: &BTreeSet<Arc<str>>,
    ) -> Option<(Law, String)> {
        let open = self.clients.streams.values().filter(|client| client.lasting).count();
        if lasting < open || lasting > open && pending.is_empty() || kept > 0 {
            let what = format!("{lasting} sockets with {kept} bytes, and {open} clients");
            return Some((Law::ASocketIsReadInOrder, what));
        }
        self.rows_unsettled(pending)
    }

    /// Everybody has acknowledged everything: after a cut, nothing is told again.
    fn nothing_is_said_twice(&mut self) {
        if self.conditions.engine {
            return;
        }
        self.ledger.nothing_owed = true;
        for runner in 0..self.runners.len() {
            self.half_open(runner, false);
        }
        self.pass(Duration::from_secs(5));
        self.ledger.nothing_owed = false;
    }
}

/// More than any patience, threshold and silence together.
const LONG: Duration = Duration::from_secs(100);
/// For backoffs, which double.
const ROUND: Duration = Duration::from_secs(60);
const ROUNDS: usize = 30;
/// More than there is credit for at once.
const PIECES: u32 = 7;
/// How late an alarm may be.
const ALARM_SLACK_MS: i64 = 5_000;
