//! The sockets of one actor life: what the actor has been told of each, what is durable, and what comes next.
//!
//! A state machine: what happens comes in through methods, what is to be done comes out of [`Table::poll_effect`]. Holds
//! no channel, starts no task, never reads the clock.
//!
//! A frame goes `queue → told → taken → durable → acknowledged`. The answer to it is held until the frame is durably
//! taken: a crash in between lets the gateway send the frame again, and the client must not get two answers. One write
//! to the storage is under way at a time and carries whatever has gathered for all sockets.

mod outbox;
mod socket;
mod storing;
mod wishes;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;
use bytestring::ByteString;
use greenroom_protocol::{StreamId, close};

use super::reserved::Note;
use super::row::{ClosedRow, IndexRow, Row, SocketRow};
use crate::backoff::Backoff;
use crate::host::{
    Delivery, Event, EventAnswer, EventError, Frame, Outgoing, StreamKey, StreamReply, WebSocketRequest,
};
use outbox::Held;
use socket::{Ending, Phase, Socket, Telling};
use storing::Storing;

/// All sockets of an actor.
#[derive(Debug)]
pub(super) struct Table {
    sockets: BTreeMap<StreamId, Socket>,
    storing: Storing,
    /// Those whose retry or staleness is due then; one that changed its mind is only looked at.
    timers: BTreeSet<(Instant, StreamId)>,
    effects: VecDeque<Effect>,
    /// Bytes of all frames that wait.
    waiting_bytes: usize,
    flushes: Vec<Ticket>,
    rules: Rules,
    seed: u64,
}

/// Numbers that tests make smaller.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    /// How long a socket that the gateway has not confirmed counts as open.
    pub(super) stale_after: Duration,
    /// How long after the last one a further frame of a client that is gone may come.
    pub(super) frames_within: Duration,
    /// How often a frame is told before its socket is closed.
    pub(super) attempts: u32,
    /// The first delay between two tellings.
    pub(super) retry_first: Duration,
}

/// Something to do.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// Tell the actor, and come back with [`Table::told`].
    Tell { socket: StreamId, delivery: Delivery },
    /// Write, and come back with [`Table::stored`].
    Store(Vec<(Bytes, Bytes)>),
    /// Delete, and come back with [`Table::stored`].
    Erase(Vec<Bytes>),
    /// Say this on a stream.
    Reply { stream: StreamKey, reply: StreamReply },
    /// Somebody who waited gets an answer.
    Answer { ticket: Ticket, result: Result<(), SocketError> },
}

/// Who waits for an answer.
pub(super) type Ticket = u64;

/// What earlier lives have left, as [`Table::restore`] finds it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Restored {
    /// Sockets the life goes on with, each with the index of its last frame that was taken.
    pub(super) sockets: Vec<(StreamId, u16)>,
    /// Sockets that only the gateway knows.
    pub(super) unknown: Vec<StreamId>,
}

/// A socket as its actor sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketInfo {
    /// The socket.
    pub id: StreamId,
    /// Path and query of the upgrade, not decoded.
    pub path: String,
    /// What the actor gave it when it took it.
    pub tags: Vec<String>,
    /// What the actor has attached to it; empty when nothing.
    pub attachment: Bytes,
    /// The gateway is known to hold it. One that is not is soon told as closed.
    pub connected: bool,
}

/// Why a socket did not do what the actor wanted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SocketError {
    /// There is none with this id, or it has closed.
    #[error("there is no such socket, or it has closed")]
    Unknown,
    /// Its `open` was not answered yet.
    #[error("the socket is not open before its open event is answered")]
    NotOpen,
    /// The frame or attachment is larger than it may be.
    #[error("too large: {0}")]
    TooLarge(&'static str),
    /// The gateway does not confirm what was written, and what waits for it is as much as may wait.
    #[error("too much waits for the gateway")]
    Busy,
    /// This actor takes no sockets as events.
    #[error("this actor takes no sockets as events")]
    NotServed,
    /// The life is over.
    #[error("this generation of the actor has ended")]
    Over,
}

impl Table {
    /// A table with what the notes of earlier lives say, seen beside what the gateway has kept.
    pub(super) fn restore(
        notes: &[(Bytes, Bytes)],
        hibernating: &[StreamId],
        rules: Rules,
        seed: u64,
        now: Instant,
    ) -> (Self, Restored) {
        let mut table = Table {
            sockets: BTreeMap::new(),
            storing: Storing::new(seed),
            timers: BTreeSet::new(),
            effects: VecDeque::new(),
            waiting_bytes: 0,
            flushes: Vec::new(),
            rules,
            seed,
        };
        let mut rests = Vec::new();
        let hibernating: BTreeSet<StreamId> = hibernating.iter().copied().collect();
        let mut found: BTreeMap<StreamId, Notes> = BTreeMap::new();
        for (key, value) in notes {
            let Some((note, id)) = Note::parse(key) else { continue };
            if let Err(error) = found.entry(id).or_default().read(note, value) {
                tracing::warn!(socket = %id, %error, "a note about a socket cannot be read; the socket is closed");
            }
        }
        let mut restored = Restored::default();
        for (id, Notes { socket, index, closed, attachment }) in found {
            let (Some(row), Some(index)) = (socket, index) else {
                rests.push(id);
                continue;
            };
            let mut socket = Socket::new(row, index, attachment);
            match closed {
                Some(closed) => {
                    let mut ending = Ending::told_before(closed);
                    ending.awaited = !ending.by_us && hibernating.contains(&id);
                    tracing::debug!(socket = %id, awaited = ending.awaited, "a socket closed before this life");
                    if ending.awaited {
                        let until = now + rules.frames_within;
                        socket.stale_at = Some(until);
                        table.timers.insert((until, id));
                        restored.sockets.push((id, index.taken));
                    }
                    socket.phase = Phase::Ending(ending);
                    table.sockets.insert(id, socket);
                    table.advance(id, now);
                }
                None => {
                    if !hibernating.contains(&id) {
                        socket.stale_at = Some(now + rules.stale_after);
                        table.timers.insert((now + rules.stale_after, id));
                    }
                    socket.phase = Phase::Open;
                    restored.sockets.push((id, index.taken));
                    table.sockets.insert(id, socket);
                }
            }
        }
        let goes_on = |id: &StreamId| {
            let phase = table.sockets.get(id).map(|socket| &socket.phase);
            phase.is_some_and(|phase| matches!(phase, Phase::Open) || phase.awaits_frames())
        };
        restored.unknown = hibernating.into_iter().filter(|id| !goes_on(id)).collect();
        for id in rests {
            table.storing.erase(id);
        }
        table.store();
        (table, restored)
    }

    /// A client wants a socket, or its gateway asks again.
    pub(super) fn opened(&mut self, request: WebSocketRequest, stream: StreamKey) {
        let id = request.stream;
        if let Some(socket) = self.sockets.get_mut(&id) {
            if matches!(socket.phase, Phase::Ending(_)) {
                // It is being told as closed; by the gateway's next try it is forgotten.
                return self.reply(stream, StreamReply::Close { code: Some(1011), reason: None });
            }
            // The actor has taken it, or is just being asked.
            socket.stream = Some(stream);
            socket.taken = request.index;
            socket.stale_at = None;
            match &mut socket.phase {
                Phase::Asked { client_gone } => *client_gone = None,
                Phase::Open => {
                    socket.dirty.insert(Note::Index);
                    socket.phase = Phase::Taken { first: None, close: None };
                    self.storing.dirty(id);
                    self.store();
                }
                Phase::Taken { .. } | Phase::Ending(_) => {}
            }
            return;
        }
        if request.path.len() > PATH_MAX {
            return self.refuse(stream, 1008, "the path is longer than 32 KiB");
        }
        let row = SocketRow { path: request.path.to_string(), tags: Vec::new() };
        let mut socket = Socket::new(row, IndexRow { taken: request.index, next_seq: 0 }, Bytes::new());
        socket.stream = Some(stream);
        socket.telling = Telling::begin(self.next_backoff());
        self.sockets.insert(id, socket);
        let event = Event::Open { socket: id, path: request.path, headers: request.headers };
        self.effects.push_back(Effect::Tell { socket: id, delivery: Delivery { event, attempt: 1 } });
    }

    /// The gateway holds a socket that an earlier life took.
    pub(super) fn reattached(&mut self, stream: StreamKey) {
        match self.sockets.get_mut(&stream.id) {
            Some(socket) if matches!(socket.phase, Phase::Open) || socket.phase.awaits_frames() => {
                socket.stream = Some(stream);
            }
            Some(_) | None => self.reply(stream, stale()),
        }
    }

    /// A frame or the close of a client.
    pub(super) fn frame(&mut self, stream: StreamKey, frame: Frame, now: Instant) {
        let frames_within = now + self.rules.frames_within;
        let Some(socket) = self.attached(stream) else { return };
        let awaited = socket.phase.awaits_frames();
        socket.stale_at = awaited.then_some(frames_within);
        match frame {
            Frame::Message { data, binary, index } => {
                if !matches!(socket.phase, Phase::Open | Phase::Taken { .. }) && !awaited {
                    return;
                }
                if awaited {
                    self.timers.insert((frames_within, stream.id));
                }
                let full = self.sockets.get(&stream.id).is_some_and(|socket| socket.waiting.len() >= WAITING_MAX);
                let size = data.len();
                if full || (self.waiting_bytes + size > WAITING_BYTES_MAX && self.waiting_bytes > 0) {
                    return self.end_by_us(stream.id, 1013, "the actor does not keep up", now);
                }
                self.waiting_bytes += size;
                if let Some(socket) = self.sockets.get_mut(&stream.id) {
                    socket.waiting.push_back(socket::Waiting { data, binary, index });
                }
                self.advance(stream.id, now);
            }
            Frame::Closed { code, reason } => {
                socket.stream = None;
                let (code, reason) = (code.unwrap_or(1005), reason.unwrap_or_default());
                self.ended_by_client(stream.id, code, &reason, now);
            }
        }
    }

    /// The stream of a socket is no more, without a word about the client.
    pub(super) fn detached(&mut self, stream: StreamKey, now: Instant) {
        let stale_at = now + self.rules.stale_after;
        let Some(socket) = self.attached(stream) else { return };
        socket.stream = None;
        socket.stale_at = Some(stale_at);
        self.timers.insert((stale_at, stream.id));
    }

    /// The actor answered what it was told of a socket.
    pub(super) fn told(&mut self, id: StreamId, result: Result<EventAnswer, EventError>, now: Instant) {
        let Some(socket) = self.sockets.get_mut(&id) else { return };
        match &socket.phase {
            Phase::Asked { .. } => self.open_told(id, result, now),
            Phase::Taken { .. } | Phase::Open => self.message_told(id, result, now),
            Phase::Ending(ending) if ending.telling_close => self.close_told(id, result, now),
            Phase::Ending(_) => self.message_told(id, result, now),
        }
    }

    fn open_told(&mut self, id: StreamId, result: Result<EventAnswer, EventError>, now: Instant) {
        let Some(socket) = self.sockets.get_mut(&id) else { return };
        let Phase::Asked { client_gone } = &mut socket.phase else { return };
        let client_gone = client_gone.take();
        let stream = socket.stream;
        let refusal = match result {
            Ok(answer) => {
                socket.telling = Telling::Nothing;
                match tags(&answer.tags) {
                    Ok(tags) => {
                        socket.row.tags = tags;
                        if let Some((code, reason)) = client_gone {
                            // Nobody is there any more; the actor is told, and nothing needs to be noted.
                            socket.phase = Phase::Ending(Ending::without_note(code, &reason));
                            return self.advance(id, now);
                        }
                        socket.phase = Phase::Taken { first: answer.reply, close: answer.close };
                        socket.dirty.extend([Note::Socket, Note::Index]);
                        self.storing.dirty(id);
                        return self.store();
                    }
                    Err(problem) => Some((1011, problem.to_owned())),
                }
            }
            Err(EventError::Refused { status, text }) => {
                let code = if status < 500 { 1008 } else { 1011 };
                let text = text.trim();
                let colon = if text.is_empty() { "" } else { ": " };
                Some((code, format!("the actor refused the socket: {status}{colon}{text}")))
            }
            Err(EventError::NotServed) => Some((1003, "this actor takes no WebSockets".to_owned())),
            Err(EventError::Failed(_)) => None,
        };
        self.sockets.remove(&id);
        match (stream, refusal) {
            (Some(stream), Some((code, reason))) => self.refuse(stream, code, &reason),
            // A close before the open: the gateway asks again.
            (Some(stream), None) => self.reply(stream, StreamReply::Close { code: Some(1011), reason: None }),
            (None, _) => {}
        }
    }

    fn message_told(&mut self, id: StreamId, result: Result<EventAnswer, EventError>, now: Instant) {
        let rules = self.rules;
        let Some(socket) = self.sockets.get_mut(&id) else { return };
        match result {
            Ok(answer) => {
                socket.telling = Telling::Nothing;
                let Some(frame) = socket.waiting.pop_front() else { return self.advance(id, now) };
                self.waiting_bytes -= frame.data.len();
                socket.taken = frame.index;
                socket.next_seq += 1;
                socket.dirty.insert(Note::Index);
                self.storing.dirty(id);
                socket.outbox.hold(Held { ack: Some(frame.index), reply: answer.reply, close: None });
                match answer.close {
                    Some((code, reason)) => self.end_by_us(id, code, &reason, now),
                    None => self.advance(id, now),
                }
                self.store();
            }
            Err(error) => {
                let attempt = socket.telling.attempt();
                tracing::debug!(socket = %id, attempt, %error, "a frame was not taken");
                if attempt >= rules.attempts {
                    tracing::warn!(socket = %id, attempt, %error, "a frame was not taken; closing its socket");
                    self.drop_waiting(id);
                    self.end_by_us(id, 1011, "the actor did not take a message", now);
                    return self.advance(id, now);
                }
                let at = now + socket.telling.put_off(now);
                self.timers.insert((at, id));
            }
        }
    }

    fn close_told(&mut self, id: StreamId, result: Result<EventAnswer, EventError>, now: Instant) {
        let attempts = self.rules.attempts;
        let Some(socket) = self.sockets.get_mut(&id) else { return };
        if let Err(EventError::Failed(error)) = &result {
            let attempt = socket.telling.attempt();
            if attempt < attempts {
                let at = now + socket.telling.put_off(now);
                self.timers.insert((at, id));
                return;
            }
            tracing::warn!(socket = %id, attempt, %error, "the actor could not be told that a socket has closed");
        }
        if !socket.outbox.is_empty()
            && let Phase::Ending(ending) = &mut socket.phase
        {
            // Its client is still to hear something; that is said when it is durable.
            ending.told = true;
            return;
        }
        self.forget(id);
        self.store();
    }

    /// Ends a socket from this side, behind what its client is still to get.
    fn end_by_us(&mut self, id: StreamId, code: u16, reason: &str, now: Instant) {
        let Some(socket) = self.sockets.get_mut(&id) else { return };
        if matches!(socket.phase, Phase::Ending(_)) {
            return;
        }
        let (code, reason) = (close::sendable_code(Some(code)), close::clip(reason));
        if socket.stream.is_some() {
            socket.outbox.hold(Held { ack: None, reply: None, close: Some((code, ByteString::from(reason))) });
        }
        if socket.telling.is_under_way() {
            // A frame that is being told stays until its answer comes.
            for frame in socket.waiting.drain(1.min(socket.waiting.len())..) {
                self.waiting_bytes -= frame.data.len();
            }
        } else {
            self.drop_waiting(id);
        }
        self.end(id, Ending::by_us(code, reason), now);
    }

    /// Drops the frames that wait for the actor.
    fn drop_waiting(&mut self, id: StreamId) {
        let Some(socket) = self.sockets.get_mut(&id) else { return };
        socket.telling = Telling::Nothing;
        for frame in socket.waiting.drain(..) {
            self.waiting_bytes -= frame.data.len();
        }
    }

    fn ended_by_client(&mut self, id: StreamId, code: u16, reason: &str, now: Instant) {
        let Some(socket) = self.sockets.get_mut(&id) else { return };
        if let Phase::Asked { client_gone } = &mut socket.phase {
            *client_gone = Some((code, reason.to_owned()));
            return;
        }
        self.end(id, Ending::new(code, reason), now);
    }

    fn end(&mut self, id: StreamId, ending: Ending, now: Instant) {
        let Some(socket) = self.sockets.get_mut(&id) else { return };
        if let Phase::Ending(noted) = &mut socket.phase {
            if std::mem::take(&mut noted.awaited) {
                // It is as it was noted; all frames from before it have come.
                self.advance(id, now);
            }
            return;
        }
        socket.phase = Phase::Ending(ending);
        socket.dirty.insert(Note::Closed);
        // The close is noted with the socket, also of one that was just taken.
        self.storing.dirty(id);
        self.advance(id, now);
        self.store();
    }

    /// Tells the actor what is next on a socket, when it is its turn.
    fn advance(&mut self, id: StreamId, now: Instant) {
        let backoff = self.next_backoff();
        let Some(socket) = self.sockets.get_mut(&id) else { return };
        match &socket.telling {
            Telling::UnderWay { .. } => return,
            Telling::PutOff { until, .. } if *until > now => return,
            Telling::PutOff { .. } | Telling::Nothing => {}
        }
        let event = match (&mut socket.phase, socket.waiting.front()) {
            (Phase::Asked { .. } | Phase::Taken { .. }, _) | (Phase::Open, None) => return,
            (Phase::Open | Phase::Ending(_), Some(frame)) => {
                if socket.outbox.len() >= HELD_MAX {
                    return;
                }
                let (data, binary) = (frame.data.clone(), frame.binary);
                Event::Message { socket: id, seq: socket.next_seq, data, binary }
            }
            (Phase::Ending(Ending { awaited: true, .. } | Ending { durable: false, .. }), None) => return,
            // A frame before the close is taken, and that is not durable yet.
            (Phase::Ending(_), None) if !socket.outbox.is_empty() => return,
            (Phase::Ending(ending), None) => {
                if !ending.telling_close {
                    ending.telling_close = true;
                    socket.telling = Telling::Nothing;
                }
                Event::Close { socket: id, code: ending.code, reason: ending.reason.as_str().into() }
            }
        };
        let told_before = matches!(&socket.phase, Phase::Ending(ending) if ending.told_before && ending.telling_close);
        let attempt = socket.telling.next(backoff) + u32::from(told_before);
        self.effects.push_back(Effect::Tell { socket: id, delivery: Delivery { event, attempt } });
    }

    /// Forgets a socket, with its notes.
    fn forget(&mut self, id: StreamId) {
        let Some(socket) = self.sockets.remove(&id) else { return };
        for frame in &socket.waiting {
            self.waiting_bytes -= frame.data.len();
        }
        for ticket in socket.waiters.iter().chain(&socket.stored_waiters) {
            self.effects.push_back(Effect::Answer { ticket: *ticket, result: Err(SocketError::Unknown) });
        }
        let leaves_notes = match &socket.phase {
            Phase::Ending(ending) => ending.noted,
            Phase::Asked { .. } => false,
            Phase::Taken { .. } | Phase::Open => true,
        };
        if leaves_notes {
            self.storing.erase(id);
        }
    }

    /// Handles what is due.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        while let Some(&(at, id)) = self.timers.first() {
            if at > now {
                break;
            }
            self.timers.pop_first();
            let Some(socket) = self.sockets.get_mut(&id) else { continue };
            if socket.stale_at.is_some_and(|at| at <= now) {
                socket.stale_at = None;
                if let Phase::Asked { .. } = socket.phase {
                    self.ended_by_client(id, 1006, STALE, now);
                } else if let Phase::Ending(ending) = &mut socket.phase {
                    if std::mem::take(&mut ending.awaited) {
                        // Nothing came; a client that is there after all hears what the actor is told.
                        let (code, reason) = (ending.code, ByteString::from(ending.reason.as_str()));
                        if let Some(stream) = socket.stream.take() {
                            let code = Some(close::sendable_code(Some(code)));
                            self.reply(stream, StreamReply::Close { code, reason: Some(reason) });
                        }
                    }
                    self.advance(id, now);
                } else {
                    if let Some(stream) = socket.stream.take() {
                        // A gateway that knows it after all must not keep a client whom nobody hears.
                        self.reply(stream, stale());
                    }
                    self.end(id, Ending::by_us(1006, STALE), now);
                }
            } else {
                self.advance(id, now);
            }
        }
        if self.storing.is_due(now) {
            self.store();
        }
    }

    /// When [`Table::handle_timeout`] has something to do.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        [self.timers.first().map(|(at, _)| *at), self.storing.retry_at()].into_iter().flatten().min()
    }

    /// The next thing to do.
    pub(super) fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    fn attached(&mut self, stream: StreamKey) -> Option<&mut Socket> {
        self.sockets.get_mut(&stream.id).filter(|socket| socket.stream == Some(stream))
    }

    fn reply(&mut self, stream: StreamKey, reply: StreamReply) {
        self.effects.push_back(Effect::Reply { stream, reply });
    }

    /// Opens and closes: a gateway tries again what is closed before it is open.
    fn refuse(&mut self, stream: StreamKey, code: u16, reason: &str) {
        self.reply(stream, StreamReply::Open { can_hibernate: false });
        let reason = Some(ByteString::from(close::clip(reason)));
        self.reply(stream, StreamReply::Close { code: Some(code), reason });
    }

    fn next_backoff(&mut self) -> Backoff {
        self.seed = self.seed.wrapping_add(1);
        Backoff::new(self.rules.retry_first, self.rules.retry_first * 100, self.seed)
    }
}

impl Default for Rules {
    fn default() -> Self {
        Rules {
            stale_after: Duration::from_secs(30),
            frames_within: Duration::from_secs(10),
            attempts: 10,
            retry_first: Duration::from_millis(50),
        }
    }
}

/// What the storage has about a socket.
#[derive(Debug, Default)]
struct Notes {
    socket: Option<SocketRow>,
    index: Option<IndexRow>,
    closed: Option<ClosedRow>,
    attachment: Bytes,
}

impl Notes {
    fn read(&mut self, note: Note, value: &Bytes) -> Result<(), String> {
        match note {
            Note::Socket => self.socket = Some(SocketRow::decode(value)?),
            Note::Index => self.index = Some(IndexRow::decode(value)?),
            Note::Closed => self.closed = Some(ClosedRow::decode(value)?),
            Note::Attachment => self.attachment = value.clone(),
        }
        Ok(())
    }
}

fn tags(tags: &[ByteString]) -> Result<Vec<String>, &'static str> {
    if tags.len() > TAGS_MAX || tags.iter().any(|tag| tag.len() > TAG_MAX) {
        return Err("the actor gave more than 64 tags, or one above 256 bytes");
    }
    Ok(tags.iter().map(ToString::to_string).collect())
}

/// What the gateway is told of a socket that this life has given up.
fn stale() -> StreamReply {
    StreamReply::Close { code: Some(1000), reason: Some(ByteString::from_static(STALE)) }
}

/// Why a socket is closed that the gateway has not confirmed.
const STALE: &str = "ws.stale_metadata";

/// Frames of one socket that may wait for the actor; beyond it the socket is closed with 1013. Above what the runner
/// hands on in one go, and what a client sends while an actor starts.
const WAITING_MAX: usize = 8192;

/// Bytes of all frames of an actor that may wait for it; beyond it the socket that brings more is closed with 1013.
const WAITING_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Answers to frames of one socket that may wait for the storage; beyond it the next frame waits too.
const HELD_MAX: usize = 128;

/// The longest path, in bytes, that fits into a note with its tags.
const PATH_MAX: usize = 32 * 1024;

/// Tags per socket, and bytes per tag.
const TAGS_MAX: usize = 64;
const TAG_MAX: usize = 256;

#[cfg(test)]
mod tests;
