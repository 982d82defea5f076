//! The hosts: lives that come up or do not, serve, crash, and stop or have to be killed.

mod bodies;
mod sockets;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use greenroom::actor::{ActorKey, Outcome};
use greenroom::kv::KvError;
use greenroom::protocol::{KvListQuery, KvRequest, KvResponse, StreamId};
use greenroom::session::{Input, StartCommand};
use greenroom::stream::{StreamKey, StreamReply};

use super::durable::{WRITTEN, read_number};
use super::runners::Ticket;
use super::{World, note};
use crate::dice::place;
use crate::laws::Law;

pub use bodies::HostBody;
pub use sockets::HostSocket;

/// A life on its host.
#[derive(Debug)]
pub struct Life {
    /// The sockets that its start listed.
    listed: Vec<StreamId>,
    pub serves: bool,
    pub told_stop: bool,
    /// It has said that it wants to leave.
    wants_out: bool,
    /// It does not stop when it is told to.
    deaf: bool,
    pub sockets: BTreeMap<StreamId, HostSocket>,
    /// What is noted of sockets that outlive it: how far each was taken, as index and number.
    rows: BTreeMap<StreamId, (u16, u32)>,
}

/// Something that a host does in its own time.
#[derive(Clone, Debug)]
pub enum Act {
    Load(ActorKey),
    Ready(ActorKey),
    Over(ActorKey, Outcome),
    Answer {
        actor: ActorKey,
        stream: StreamKey,
        request: u32,
        whole: bool,
    },
    Finish {
        stream: StreamKey,
    },
    Abort {
        stream: StreamKey,
    },
    Open {
        actor: ActorKey,
        stream: StreamKey,
    },
    /// Reads, or sends, the next piece of a body.
    ReadPiece {
        stream: StreamKey,
    },
    SendPiece {
        stream: StreamKey,
    },
    /// Goes on with what a socket has to make durable.
    Take {
        actor: ActorKey,
        socket: StreamId,
    },
    /// A socket of which nothing was heard is given up.
    Stale {
        actor: ActorKey,
        socket: StreamId,
    },
}

/// Why storage is asked.
#[derive(Clone, Debug)]
pub enum Ask {
    Rows,
    Write(u64),
    Read { least: u64 },
    Open(StreamKey, u16),
    Take { socket: StreamId, index: u16, number: u32 },
    Forget { socket: StreamId, says: bool },
}

impl World {
    pub fn start_life(&mut self, runner: usize, command: StartCommand) {
        let key = command.key;
        self.tally.starts += 1;
        let history = self.ledger.history(&key);
        let again = std::mem::replace(&mut history.started, true);
        self.hold(Law::AGenerationStartsOnce, !again, || format!("{key} was started again"));
        let other = self.runners[runner].lives.keys().find(|other| other.id == key.id).cloned();
        self.hold(Law::OneLifeOnARunner, other.is_none(), || format!("{key} beside {other:?}"));
        let hosts = self.conditions.hosts.clone();
        let (bad, deaf) = (self.dice.below(100), self.dice.percent(hosts.deaf) && !self.calm);
        let life = Life {
            listed: command.hibernating,
            serves: false,
            told_stop: false,
            wants_out: false,
            deaf,
            sockets: BTreeMap::new(),
            rows: BTreeMap::new(),
        };
        self.runners[runner].lives.insert(key.clone(), life);
        let soon = self.dice.millis(0, 300);
        if self.calm || bad >= hosts.fails + hosts.never_ready {
            if !self.calm && self.dice.percent(hosts.crashes) {
                let after = self.dice.millis(0, 20_000);
                self.host_later(runner, after, Act::Over(key.clone(), failed("crashed")));
            }
            self.host_later(runner, soon, Act::Load(key));
        } else if bad < hosts.fails {
            self.host_later(runner, soon, Act::Over(key, failed("did not come up")));
        } else {
            self.host_later(runner, hosts.start_timeout, Act::Over(key, failed("was not ready in time")));
        }
    }

    pub fn stop_life(&mut self, runner: usize, key: &ActorKey) {
        let Some(life) = self.runners[runner].lives.get_mut(key) else {
            return self.broken(Law::AStopIsToldOnce, format!("{key} is not there"));
        };
        let again = std::mem::replace(&mut life.told_stop, true);
        let deaf = life.deaf;
        self.hold(Law::AStopIsToldOnce, !again, || format!("{key} was told before"));
        let after = if deaf { self.conditions.hosts.stop_grace } else { self.dice.millis(0, 400) };
        self.host_later(runner, after, Act::Over(key.clone(), Outcome::Wanted));
    }

    pub fn kill_life(&mut self, runner: usize, key: &ActorKey) {
        let Some(life) = self.runners[runner].lives.get_mut(key) else {
            return self.broken(Law::AStopIsToldOnce, format!("{key} is killed and not there"));
        };
        life.told_stop = true;
        let after = self.dice.millis(0, 20);
        self.host_later(runner, after, Act::Over(key.clone(), failed("killed")));
    }

    pub fn act(&mut self, runner: usize, process: u64, act: Act) {
        if self.runners[runner].process != process || self.runners[runner].session.is_none() {
            return;
        }
        note!(self, "{}: {act:?}", self.runners[runner].key);
        match act {
            Act::Load(key) => {
                if self.runners[runner].lives.get(&key).is_some_and(|life| !life.told_stop) {
                    let request = KvRequest::List { query: KvListQuery::All, reverse: None, limit: None };
                    self.ask_storage(runner, &key, Ask::Rows, request);
                }
            }
            Act::Ready(key) => self.ready(runner, &key),
            Act::Over(key, outcome) => self.life_is_over(runner, &key, outcome),
            Act::Answer { actor, stream, request, whole } => {
                // A life that is over may still say something; nobody hears it.
                let body = Bytes::from(format!("{request} {actor}"));
                let reply = StreamReply::Response { status: 200, headers: Vec::new(), body, more: !whole };
                self.tell_runner(runner, Input::Reply { stream, reply });
                if !whole {
                    let after = self.dice.millis(0, 500);
                    self.host_later(runner, after, Act::Finish { stream });
                }
            }
            Act::Finish { stream } => {
                let reply = StreamReply::Chunk { body: Bytes::from_static(b"!"), finish: true };
                self.tell_runner(runner, Input::Reply { stream, reply });
            }
            Act::Abort { stream } => self.tell_runner(runner, Input::Reply { stream, reply: StreamReply::Abort }),
            Act::ReadPiece { stream } => self.host_reads(runner, stream),
            Act::SendPiece { stream } => self.host_sends(runner, stream),
            Act::Open { actor, stream } => self.open_taken(runner, &actor, stream),
            Act::Take { actor, socket } => self.take_next(runner, &actor, socket),
            Act::Stale { actor, socket } => self.socket_stale(runner, &actor, socket),
        }
    }

    fn ready(&mut self, runner: usize, key: &ActorKey) {
        let Some(life) = self.runners[runner].lives.get_mut(key).filter(|life| !life.told_stop) else { return };
        life.serves = true;
        let sockets: Vec<(StreamId, u16)> = life.rows.iter().map(|(id, (index, _))| (*id, *index)).collect();
        let unknown = life.listed.iter().copied().filter(|id| !life.rows.contains_key(id)).collect();
        let stale: Vec<StreamId> = life.rows.keys().copied().filter(|id| !life.listed.contains(id)).collect();
        self.ledger.history(key).serves = true;
        self.tell_runner(runner, Input::Restored { actor: key.clone(), sockets, unknown });
        self.tell_runner(runner, Input::Running(key.clone()));
        for socket in stale {
            self.host_later(runner, STALE_AFTER, Act::Stale { actor: key.clone(), socket });
        }
    }

    pub fn host_is_asked(
        &mut self,
        runner: usize,
        actor: &ActorKey,
        stream: StreamKey,
        path: &str,
        upload: Option<Bytes>,
        credit: bool,
    ) {
        self.check_stream(runner, actor, stream);
        let request = u32::from_be_bytes(stream.id.request);
        self.ledger.given.entry(request).or_default().push(actor.clone());
        self.request_runs(path);
        if self.host_begins_body(runner, actor, stream, path, credit) {
            return;
        }
        if let Some(first) = upload {
            let first = String::from_utf8_lossy(&first).into_owned();
            self.runners[runner].uploads.insert(stream, (actor.clone(), first));
            return;
        }
        self.answer_some_time(runner, actor, stream, request);
    }

    /// A piece of a body: each says how many follow, so that none can be missing or come twice unseen.
    pub fn host_is_sent(&mut self, runner: usize, stream: StreamKey, body: &[u8], finish: bool) {
        if self.host_is_sent_piece(runner, stream, body.len(), finish) {
            return;
        }
        let Some((actor, mut whole)) = self.runners[runner].uploads.remove(&stream) else {
            return self.broken(Law::AStreamHasOneLife, format!("a piece of a body on {stream}, which is not open"));
        };
        let number = |text: &str| text.trim_end_matches('.').rsplit('.').next().and_then(|last| last.parse().ok());
        let before: Option<u32> = number(&whole);
        whole.push_str(&String::from_utf8_lossy(body));
        let fits = before.is_some_and(|before| before > 0 && number(&whole) == Some(before - 1));
        self.hold(Law::ABodyIsWhole, fits && finish == (number(&whole) == Some(0)), || format!("{stream}: {whole}"));
        if finish {
            self.answer_some_time(runner, &actor, stream, u32::from_be_bytes(stream.id.request));
        } else {
            self.runners[runner].uploads.insert(stream, (actor, whole));
        }
    }

    fn answer_some_time(&mut self, runner: usize, actor: &ActorKey, stream: StreamKey, request: u32) {
        let fate = if self.calm { 0 } else { self.dice.below(100) };
        let after = if self.calm { self.dice.millis(0, 50) } else { self.dice.millis(0, 2_000) };
        let actor = actor.clone();
        match fate {
            0..75 => self.host_later(runner, after, Act::Answer { actor, stream, request, whole: true }),
            75..87 => self.host_later(runner, after, Act::Answer { actor, stream, request, whole: false }),
            87..94 => self.host_later(runner, after, Act::Abort { stream }),
            // It never answers.
            _ => {}
        }
    }

    fn check_stream(&mut self, runner: usize, actor: &ActorKey, stream: StreamKey) {
        let life = self.runners[runner].lives.get(actor);
        let admits = life.is_some_and(|life| !life.told_stop);
        self.hold(Law::AStreamHasOneLife, admits, || format!("{stream} for {actor}, which is not there or stops"));
        let newer =
            self.runners[runner].lives.keys().any(|key| key.id == actor.id && key.generation > actor.generation);
        self.hold(Law::AStreamHasOneLife, !newer, || format!("{stream} for {actor}, which is not the newest"));
    }

    pub fn host_has_answer(&mut self, runner: usize, ticket: Ticket, result: Result<KvResponse, KvError>) {
        let Ticket { actor, ask, .. } = ticket;
        if !self.runners[runner].lives.contains_key(&actor) {
            return;
        }
        match (ask, result) {
            (Ask::Rows, Ok(KvResponse::List { keys, values, .. })) => self.rows_loaded(runner, &actor, &keys, &values),
            (Ask::Rows, result) => {
                let why = format!("its notes cannot be read: {result:?}");
                self.host_later(runner, Duration::ZERO, Act::Over(actor, Outcome::Failed(why)));
            }
            (Ask::Write(number), Ok(KvResponse::Put)) => {
                let writes = self.ledger.writes.entry(actor.id.clone()).or_default();
                writes.acknowledged = writes.acknowledged.max(number);
                self.tally.writes += 1;
                self.check_write(&actor.id);
            }
            (Ask::Read { least }, Ok(KvResponse::Get { values, .. })) => {
                let issued = self.ledger.writes.get(&actor.id).map_or(0, |writes| writes.issued);
                let found = values.first().map_or(0, |value| read_number(value));
                self.hold(Law::AnAcknowledgedWriteStays, (least..=issued).contains(&found), || {
                    format!("{actor} reads {found} after {least} was acknowledged and {issued} written")
                });
            }
            (Ask::Write(_) | Ask::Read { .. }, Ok(KvResponse::Error { message })) => {
                self.hold(Law::ARefusalHasAReason, !message.is_empty(), || "storage refuses without a reason".into());
            }
            (Ask::Write(_) | Ask::Read { .. }, Ok(response)) => {
                self.broken(Law::AStorageRequestIsAnswered, format!("{actor}: {response:?} is no answer"));
            }
            (Ask::Write(_) | Ask::Read { .. }, Err(_)) => {}
            (ask @ (Ask::Open(..) | Ask::Take { .. } | Ask::Forget { .. }), result) => {
                self.socket_stored(runner, &actor, ask, result);
            }
        }
    }

    pub fn crash_life(&mut self, pick: u64) {
        if let Some((runner, key)) = self.any_life(pick) {
            let well = pick.is_multiple_of(4) && self.runners[runner].lives[&key].serves;
            self.life_is_over(runner, &key, if well { Outcome::Wanted } else { failed("crashed") });
        }
    }

    pub fn wish(&mut self, pick: u64, sleep: bool) {
        let Some((runner, key)) = self.any_life(pick) else { return };
        let Some(life) = self.runners[runner].lives.get_mut(&key).filter(|life| life.serves && !life.told_stop) else {
            return;
        };
        life.wants_out = true;
        let history = self.ledger.history(&key);
        if sleep {
            history.wants_sleep = true;
        } else {
            history.wants_end = true;
        }
        self.tell_runner(runner, if sleep { Input::Sleep(key) } else { Input::Destroy(key) });
    }

    pub fn set_alarm(&mut self, pick: u64, millis: u64) {
        let Some((runner, key)) = self.any_life(pick) else { return };
        let at = millis.checked_rem(7).filter(|rest| *rest > 0);
        let at = at.map(|_| self.now.wall_ms + i64::try_from(millis).expect("small"));
        self.ledger.history(&key).alarms.insert(at);
        self.tell_runner(runner, Input::SetAlarm(key, at));
    }

    pub fn write(&mut self, pick: u64) {
        let Some((runner, key)) = self.any_life(pick) else { return };
        let writes = self.ledger.writes.entry(Arc::clone(&key.id)).or_default();
        writes.issued += 1;
        let number = writes.issued;
        let (keys, values) = (vec![Bytes::from_static(WRITTEN)], vec![number.to_be_bytes().to_vec().into()]);
        self.ask_storage(runner, &key, Ask::Write(number), KvRequest::Put { keys, values });
    }

    pub fn read(&mut self, pick: u64) {
        let Some((runner, key)) = self.any_life(pick) else { return };
        let least = self.ledger.writes.get(&key.id).map_or(0, |writes| writes.acknowledged);
        let keys = vec![Bytes::from_static(WRITTEN)];
        self.ask_storage(runner, &key, Ask::Read { least }, KvRequest::Get { keys });
    }

    /// One of all sockets that actors have, and whose it is.
    fn any_host_socket(&self, pick: u64) -> Option<(usize, ActorKey, StreamId)> {
        let mut all = Vec::new();
        for (number, runner) in (0..).zip(&self.runners) {
            for (key, life) in &runner.lives {
                all.extend(life.sockets.keys().map(|id| (number, key.clone(), *id)));
            }
        }
        (!all.is_empty()).then(|| all.swap_remove(place(pick, all.len())))
    }
}

pub fn failed(why: &str) -> Outcome {
    Outcome::Failed(why.to_owned())
}

/// How long an actor keeps a socket of which nothing is heard.
const STALE_AFTER: Duration = Duration::from_secs(20);
