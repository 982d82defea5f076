//! Sockets that outlive an actor's process.
//!
//! The gateway keeps what a client says until the actor has taken it for good. A life that starts says which sockets
//! its earlier lives have taken, and up to where; it goes on with them as if nothing had happened.
//!
//! The Rivet engine has two habits that would cost messages. What it sent while we were disconnected it keeps, and does
//! not send again; but a close that is marked as hibernation makes it attach the socket anew and send everything that
//! it keeps. And until it has attached a socket it loses what is said on it, which goes for a while after each such
//! close and after each start. So we ask for what may be missing, and hold back what would be lost.

mod destroyed;
mod farewells;
mod missing;
mod recent;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;
use bytestring::ByteString;
use greenroom_protocol::{MessageId, StreamId, ToServerTunnel, close, serial};

use super::actors::{Life, Phase};
use super::tunnel::{Kind, STREAMS_MAX, Stream, weight};
use crate::actor::ActorKey;
use crate::session::{Effect, Session};
use crate::stream::StreamKey;
use destroyed::Destroyed;
use farewells::Farewell;
use missing::{ASKED_MAX, OPENINGS_MAX, SENT_AGAIN};
use recent::Recent;

/// What is known of sockets beside those that are open, and when to look at which.
#[derive(Debug, Default)]
pub(super) struct Hibernation {
    /// When to take for granted that the gateway listens to a socket.
    attaching: BTreeSet<(Instant, StreamId)>,
    /// Sockets to ask the gateway for, or have attached anew, after a reconnect, some at a time.
    renewals: VecDeque<StreamId>,
    next_renewals: Option<Instant>,
    farewells: Recent<Farewell>,
    farewells_due: BTreeSet<(Instant, StreamId)>,
    /// Farewells that were never said, by life.
    unsaid: BTreeMap<ActorKey, BTreeSet<StreamId>>,
    /// Sockets of lives that are over, and sockets that closed when nobody was there.
    gone: Recent<Gone>,
    destroyed: Destroyed,
}

/// What makes a socket one that may outlive its actor's process.
#[derive(Debug)]
pub(super) struct Lasting {
    /// The actor has taken the client's messages up to here.
    taken: u16,
    /// The gateway has yet to be told so, or told again.
    ack_due: bool,
    attachment: Attachment,
    /// What is said before the gateway listens.
    held: VecDeque<ToServerTunnel>,
    /// Nothing has arrived since an earlier life.
    fresh: bool,
    /// Something arrived that the life was not given, because it wants to end.
    unheard: bool,
    /// For all that is known, its client has said nothing since it was opened.
    unread: bool,
    /// The newest message that arrived behind a gap.
    beyond: Option<u16>,
    /// The oldest one, and how often it arrived.
    oldest_beyond: Option<(u16, u8)>,
    /// How often the gateway was asked for what is missing since a message arrived in order.
    asked: u8,
}

/// Whether the gateway passes on what is said on a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Attachment {
    /// It does.
    Sure,
    /// It will when the life runs.
    WhenRunning,
    /// It has been given the reason to, and this is when that is taken for granted.
    Expected(Instant),
}

/// A socket that nobody here has.
#[derive(Debug, Default)]
struct Gone {
    /// The life that had it.
    actor: Option<ActorKey>,
    /// It has closed since.
    closed: Option<(Option<u16>, Option<ByteString>)>,
    /// How often the gateway was told that nobody has it.
    told: u8,
}

impl Hibernation {
    pub(super) fn timeout(&self) -> Option<Instant> {
        let first = |due: &BTreeSet<(Instant, StreamId)>| due.first().map(|(due, _)| *due);
        let dues = [first(&self.attaching), first(&self.farewells_due), self.next_renewals, self.destroyed.timeout()];
        dues.into_iter().flatten().min()
    }

    /// What the gateway was asked on this connection it will not answer on another.
    pub(super) fn disconnected(&mut self) {
        self.renewals.clear();
        self.next_renewals = None;
        self.destroyed.disconnected();
    }

    /// Notes that a socket closed which nobody has.
    fn note_closed(&mut self, id: StreamId, code: Option<u16>, reason: Option<&ByteString>) {
        // Copied, because a slice keeps its whole frame.
        let closed = Some((code, reason.map(|reason| ByteString::from(close::clip(reason)))));
        match self.gone.get_mut(id) {
            Some(gone) => gone.closed = closed,
            // Whatever is forgotten for it is older.
            None => drop(self.gone.note(id, Gone { closed, ..Gone::default() })),
        }
    }

    /// A farewell was said, or will not be.
    fn said(&mut self, actor: &ActorKey, id: StreamId) {
        if let Some(unsaid) = self.unsaid.get_mut(actor) {
            unsaid.remove(&id);
            if unsaid.is_empty() {
                self.unsaid.remove(actor);
            }
        }
    }
}

impl Lasting {
    fn new(taken: u16, attachment: Attachment) -> Self {
        Lasting {
            taken,
            ack_due: false,
            attachment,
            held: VecDeque::new(),
            fresh: false,
            unheard: false,
            unread: false,
            beyond: None,
            oldest_beyond: None,
            asked: 0,
        }
    }

    /// What is held back, in bytes.
    pub(super) fn held_bytes(&self) -> usize {
        weight_of(&self.held)
    }
}

impl Stream {
    /// The gateway would lose what is said on it now.
    pub(super) fn is_held_back(&self) -> bool {
        self.lasting().is_some_and(|lasting| lasting.attachment != Attachment::Sure)
    }

    /// A message arrived behind a gap, and the gateway has had its time to fill it.
    fn misses_messages(&self) -> bool {
        match &self.kind {
            Kind::WebSocket { last_in, lasting: Some(lasting) } => {
                let behind = lasting.beyond.is_some_and(|beyond| serial::newer(beyond, *last_in));
                behind && lasting.attachment == Attachment::Sure
            }
            Kind::WebSocket { lasting: None, .. } | Kind::Request { .. } | Kind::Streaming | Kind::Collecting(_) => {
                false
            }
        }
    }

    /// Its client has said something that the actor has not taken.
    fn misses_taking(&self) -> bool {
        match &self.kind {
            Kind::WebSocket { last_in, lasting: Some(lasting) } => lasting.unheard || lasting.taken != *last_in,
            Kind::WebSocket { lasting: None, .. } | Kind::Request { .. } | Kind::Streaming | Kind::Collecting(_) => {
                false
            }
        }
    }

    /// How many frames its actor was given and has not taken; none when they are nobody's to keep.
    pub(super) fn untaken(&self) -> u16 {
        match &self.kind {
            Kind::WebSocket { last_in, lasting: Some(lasting) } => last_in.wrapping_sub(lasting.taken),
            Kind::WebSocket { lasting: None, .. } | Kind::Request { .. } | Kind::Streaming | Kind::Collecting(_) => 0,
        }
    }

    fn lasting(&self) -> Option<&Lasting> {
        match &self.kind {
            Kind::WebSocket { lasting, .. } => lasting.as_deref(),
            Kind::Request { .. } | Kind::Streaming | Kind::Collecting(_) => None,
        }
    }

    fn lasting_mut(&mut self) -> Option<&mut Lasting> {
        match &mut self.kind {
            Kind::WebSocket { lasting, .. } => lasting.as_deref_mut(),
            Kind::Request { .. } | Kind::Streaming | Kind::Collecting(_) => None,
        }
    }
}

impl Life {
    /// Whether it is given more of what clients say. One that wants to sleep would be stopped over it; the gateway
    /// keeps it for the next life.
    fn listens(&self) -> bool {
        self.wish.is_none() && self.admits()
    }
}

impl Session {
    /// A life that starts says which of its clients' sockets it knows.
    pub(super) fn restore(
        &mut self,
        actor: &ActorKey,
        sockets: Vec<(StreamId, u16)>,
        unknown: Vec<StreamId>,
        now: Instant,
    ) {
        let Some(life) = self.actors.life(actor) else { return };
        let attachment = match life.phase {
            Phase::Starting | Phase::Running if !self.link.features.are_none() => Attachment::Sure,
            Phase::Starting => Attachment::WhenRunning,
            Phase::Running => Attachment::Expected(now + ATTACHING),
            Phase::Waiting(_) | Phase::Stopping(_) | Phase::Ended => return,
        };
        for (id, last_in) in sockets {
            if self.is_of(id, actor) {
                // The gateway has opened it anew for this life.
            } else if self.tunnel.streams.len() >= STREAMS_MAX {
                self.refuse_socket(id, actor, 1011, "ws.restore_error", now);
            } else {
                self.restore_socket(id, actor, last_in, attachment);
            }
        }
        for id in unknown {
            if !self.is_of(id, actor) {
                self.refuse_socket(id, actor, 1000, "ws.meta_not_found_during_restore", now);
            }
        }
    }

    /// What a socket has from an earlier opening that this life has taken for later lives, too. The engine may take that
    /// answer for the one to the later opening, and keeps the socket before that is answered.
    pub(super) fn lasting_before(&self, id: MessageId, actor: &ActorKey) -> Option<Box<Lasting>> {
        let known = self.tunnel.streams.get(&id.stream).filter(|known| known.actor == *actor)?;
        let kept = known.lasting().is_some() && self.link.features.are_none();
        kept.then(|| Box::new(Lasting { unread: true, ..Lasting::new(id.index, Attachment::Sure) }))
    }

    /// The actor takes a socket for this and later lives.
    pub(super) fn make_lasting(&mut self, id: StreamId) {
        if let Some(Stream { first_in, kind: Kind::WebSocket { last_in, lasting: lasting @ None }, .. }) =
            self.tunnel.streams.get_mut(&id)
        {
            let unread = first_in == last_in;
            *lasting = Some(Box::new(Lasting { unread, ..Lasting::new(*first_in, Attachment::Sure) }));
        }
    }

    /// A message of a client on a socket that may outlive the life.
    pub(super) fn lasting_message(&mut self, id: MessageId, data: Bytes, binary: bool, now: Instant) {
        let MessageId { stream: id, index } = id;
        let Some(stream) = self.tunnel.streams.get_mut(&id) else { return };
        if !self.actors.life(&stream.actor).is_some_and(Life::listens) {
            if let Some(lasting) = stream.lasting_mut() {
                lasting.unheard = true;
            }
            return;
        }
        let Kind::WebSocket { last_in, lasting: Some(lasting) } = &mut stream.kind else { return };
        let numbered_by_engine = self.link.features.are_none();
        if numbered_by_engine && lasting.unread && !lasting.fresh && !serial::newer(index, *last_in) {
            // The engine has opened it once more and began to count again, and that opening was lost.
            (*last_in, lasting.taken) = (0, 0);
        }
        let attached = if index == serial::next(*last_in) {
            *last_in = index;
            // It fills a gap, or follows a start: the gateway has attached the socket since.
            let attached = lasting.fresh || lasting.beyond.is_some();
            (lasting.fresh, lasting.unread) = (false, false);
            (lasting.asked, lasting.oldest_beyond) = (0, None);
            lasting.beyond = lasting.beyond.filter(|beyond| serial::newer(*beyond, index));
            let stream = StreamKey { id, opening: stream.opening };
            self.effects.push_back(Effect::WebSocketMessage { stream, data, binary, index });
            attached
        } else if serial::newer(index, *last_in) {
            let times = lasting.note_beyond(index);
            if times > 1 && numbered_by_engine && lasting.unread && index <= OPENINGS_MAX {
                // All that is kept has come and began with this, unless what is before it was lost every time.
                if times > SENT_AGAIN {
                    (*last_in, lasting.taken) = (index - 1, index - 1);
                    return self.lasting_message(MessageId { stream: id, index }, data, binary, now);
                }
                self.attached(id);
                self.renew(id, now, ATTACHING);
            } else if lasting.attachment == Attachment::Sure {
                self.ask_for_missing(id, now);
            }
            false
        } else {
            lasting.unread = false;
            // Everything kept comes again, so the last one that was taken comes too if its acknowledgement was lost.
            lasting.ack_due |= index == lasting.taken;
            true
        };
        if attached {
            self.attached(id);
        }
    }

    /// The actor has taken a client's messages up to this index.
    pub(super) fn taken(&mut self, id: StreamId, index: u16) {
        let Some(stream) = self.tunnel.streams.get_mut(&id) else { return };
        let Kind::WebSocket { last_in, lasting: Some(lasting) } = &mut stream.kind else {
            return self.continue_stream(id, ToServerTunnel::WebSocketMessageAck { index });
        };
        if !serial::newer(index, lasting.taken) || serial::newer(index, *last_in) {
            return;
        }
        lasting.taken = index;
        lasting.ack_due = true;
        let actor = stream.actor.clone();
        self.acknowledge_taken(id);
        self.tell_sleep(&actor);
    }

    pub(super) fn websocket_closed(&mut self, id: StreamId, code: Option<u16>, reason: Option<ByteString>) {
        let Some(key) = self.tunnel.websocket(id) else {
            // Our own gateway says it only to a life that serves; here that life has heard it before. It keeps what was
            // said before the close, and repeats both to the next life.
            if !self.forget_farewell(id) && self.link.features.are_none() {
                self.hibernation.note_closed(id, code, reason.as_ref());
            }
            return;
        };
        let Some(stream) = self.tunnel.remove(id) else { return };
        // Our own gateway sends the next life what was not taken, and the close behind it.
        let comes_again = !self.link.features.are_none() && stream.misses_taking();
        let listens = self.actors.life(&stream.actor).is_some_and(Life::listens);
        if stream.lasting().is_some() && !listens && !comes_again {
            // The life may end before it takes note; then the next one is told.
            self.hibernation.note_closed(id, code, reason.as_ref());
        }
        self.effects.push_back(Effect::WebSocketClosed { stream: key, code, reason });
        self.tell_sleep(&stream.actor);
    }

    /// A message on a socket that nobody has. If its actor is no more, the engine finds that out when it attaches the
    /// socket anew, and closes it.
    pub(super) fn stray_message(&mut self, id: StreamId) {
        if self.repeat_farewell(id) || !self.link.features.are_none() {
            return;
        }
        let Some(Gone { actor: Some(actor), told, .. }) = self.hibernation.gone.get_mut(id) else { return };
        let lives = self.actors.newest(&actor.id).is_some_and(Life::is_live);
        if !lives && *told < ASKED_MAX {
            *told += 1;
            self.send_tunnel(id, 0, attach_anew());
        }
    }

    /// A socket is opened by the gateway, or by a life that knows it.
    pub(super) fn socket_opened(&mut self, id: StreamId) {
        self.forget_farewell(id);
        self.hibernation.gone.take(id);
    }

    /// Keeps something until the gateway listens.
    pub(super) fn hold_back(&mut self, id: StreamId, message: ToServerTunnel) {
        let bytes = weight(&message);
        let Some(lasting) = self.tunnel.streams.get_mut(&id).and_then(Stream::lasting_mut) else { return };
        if lasting.held.len() < HELD_MAX && self.tunnel.held_bytes + bytes <= HELD_BYTES_MAX {
            lasting.held.push_back(message);
            self.tunnel.held_bytes += bytes;
            return;
        }
        self.tunnel.held_bytes -= weight_of(&std::mem::take(&mut lasting.held));
        self.close_websocket(id, 1013, "more was sent than can wait for the gateway");
    }

    /// A stream ends because a message on it can neither be sent nor kept.
    pub(super) fn drop_unsendable(&mut self, id: StreamId, code: u16, reason: &'static str) {
        let lasting = self.tunnel.streams.get(&id).is_some_and(|stream| stream.lasting().is_some());
        let Some(stream) = self.tunnel.websocket(id).filter(|_| lasting) else { return self.cancel(id) };
        // It would be in the actor's books for ever.
        self.tunnel.remove(id);
        let reason = Some(ByteString::from_static(reason));
        self.effects.push_back(Effect::WebSocketClosed { stream, code: Some(code), reason });
    }

    /// The gateway learns that the life runs.
    pub(super) fn sockets_of_running(&mut self, actor: &ActorKey, now: Instant) {
        for id in self.streams_of(actor) {
            if let Some(lasting) = self.tunnel.streams.get_mut(&id).and_then(Stream::lasting_mut)
                && lasting.attachment == Attachment::WhenRunning
            {
                lasting.attachment = Attachment::Expected(now + ATTACHING);
                self.hibernation.attaching.insert((now + ATTACHING, id));
            }
        }
        self.farewells_of_running(actor, now);
    }

    /// The gateway is back. The engine keeps what it could not send and does not send it again by itself.
    pub(super) fn resume_sockets(&mut self, now: Instant) {
        for id in self.tunnel.ids(|stream| stream.lasting().is_some()) {
            let Some(stream) = self.tunnel.streams.get_mut(&id) else { continue };
            let actor = stream.actor.clone();
            let Some(lasting) = stream.lasting_mut() else { continue };
            match lasting.attachment {
                Attachment::WhenRunning => {}
                Attachment::Expected(_) => {
                    lasting.attachment = Attachment::Expected(now + ATTACHING);
                    self.hibernation.attaching.insert((now + ATTACHING, id));
                }
                Attachment::Sure => {
                    self.acknowledge_taken(id);
                    self.tell_sleep(&actor);
                    if self.link.features.are_none() {
                        self.hibernation.renewals.push_back(id);
                        self.hibernation.next_renewals = Some(now + RENEWALS_PACE);
                    }
                }
            }
        }
        if !self.link.features.are_none() {
            self.hibernation.renewals = self.tunnel.ids(|stream| stream.kind.is_websocket()).into();
            self.hibernation.next_renewals = Some(now + RENEWALS_PACE);
        }
    }

    pub(super) fn hibernation_timeout(&mut self, now: Instant) {
        if !self.link.is_open() {
            return;
        }
        while let Some((due, id)) = self.hibernation.attaching.first().copied()
            && due <= now
        {
            self.hibernation.attaching.pop_first();
            let lasting = self.tunnel.streams.get(&id).and_then(Stream::lasting);
            if lasting.is_some_and(|lasting| lasting.attachment == Attachment::Expected(due)) {
                self.attached(id);
            }
            // What a life that wants to end is not given the next one will be.
            let missed = self.tunnel.streams.get(&id).filter(|stream| stream.misses_messages());
            if missed.is_some_and(|stream| self.actors.life(&stream.actor).is_some_and(Life::listens)) {
                self.ask_for_missing(id, now);
            }
        }
        self.farewells_timeout(now);
        self.destroyed_timeout(now);
        if self.hibernation.next_renewals.is_some_and(|due| due <= now) {
            for _ in 0..RENEWALS {
                let Some(id) = self.hibernation.renewals.pop_front() else { break };
                let Some(stream) = self.tunnel.streams.get(&id) else { continue };
                if !self.link.features.are_none() {
                    self.ask_whether_held(id);
                    continue;
                }
                let sure = stream.lasting().is_some_and(|lasting| lasting.attachment == Attachment::Sure);
                if sure && self.actors.life(&stream.actor).is_some_and(Life::listens) {
                    self.renew(id, now, ATTACHING);
                }
            }
            self.hibernation.next_renewals = (!self.hibernation.renewals.is_empty()).then_some(now + RENEWALS_PACE);
        }
    }

    /// Forgets the sockets that outlive a life, without a word to their clients, after what there still was to say.
    pub(super) fn hibernate_sockets_of(&mut self, actor: &ActorKey) {
        for id in self.streams_of(actor) {
            let Some(lasting) = self.tunnel.streams.get_mut(&id).and_then(Stream::lasting_mut) else { continue };
            if lasting.attachment != Attachment::WhenRunning {
                self.say_held(id);
            }
            let Some(stream) = self.tunnel.streams.get_mut(&id) else { continue };
            let opening = stream.opening;
            if let Some(lasting) = stream.lasting_mut()
                && std::mem::take(&mut lasting.ack_due)
            {
                lasting.attachment = Attachment::Sure;
                let index = lasting.taken;
                self.continue_stream(id, ToServerTunnel::WebSocketMessageAck { index });
            }
            if self.tunnel.remove(id).is_some() {
                self.effects.push_back(Effect::Cancel { stream: StreamKey { id, opening } });
            }
            // Whatever is forgotten for it is older.
            drop(self.hibernation.gone.note(id, Gone { actor: Some(actor.clone()), ..Gone::default() }));
        }
    }

    /// Tells a wish to sleep as soon as nothing has to be said on the actor's sockets before: a gateway that misses an
    /// acknowledgement wakes the actor at once.
    pub(super) fn tell_sleep(&mut self, actor: &ActorKey) {
        let Some(life) = self.actors.life(actor) else { return };
        if !life.sleep_held || self.hibernation.unsaid.contains_key(actor) {
            return;
        }
        let speaks = |id| {
            let lasting = self.tunnel.streams.get(&id).and_then(Stream::lasting);
            lasting.is_some_and(|lasting| lasting.ack_due || !lasting.held.is_empty())
        };
        if !self.streams_of(actor).into_iter().any(speaks) {
            self.release_sleep(actor);
        }
    }

    /// Opens a socket that the gateway believes open, for a life that knows it from an earlier one.
    fn restore_socket(&mut self, id: StreamId, actor: &ActorKey, last_in: u16, attachment: Attachment) {
        let Some(life) = self.actors.life(actor).map(|life| life.number) else { return };
        let closed = self.hibernation.gone.take(id).and_then(|gone| gone.closed);
        let lasting = Lasting { fresh: true, unread: true, ..Lasting::new(last_in, attachment) };
        let kind = Kind::WebSocket { last_in, lasting: Some(Box::new(lasting)) };
        let stream = self.open_stream(id, actor.clone(), life, kind);
        self.effects.push_back(Effect::WebSocketRestored { actor: actor.clone(), stream });
        if let Attachment::Expected(due) = attachment {
            self.hibernation.attaching.insert((due, id));
        }
        if let Some((code, reason)) = closed {
            self.tunnel.remove(id);
            self.effects.push_back(Effect::WebSocketClosed { stream, code, reason });
        }
    }

    fn is_of(&self, id: StreamId, actor: &ActorKey) -> bool {
        self.tunnel.streams.get(&id).is_some_and(|stream| stream.actor == *actor)
    }

    /// Makes the gateway attach a socket anew and send everything it keeps, which it is given this long for.
    fn renew(&mut self, id: StreamId, now: Instant, patience: Duration) {
        self.continue_stream(id, attach_anew());
        if let Some(lasting) = self.tunnel.streams.get_mut(&id).and_then(Stream::lasting_mut) {
            lasting.attachment = Attachment::Expected(now + patience);
            self.hibernation.attaching.insert((now + patience, id));
        }
    }

    /// Our own gateway may have been started again, and would say nothing of a socket on which nothing is said: an
    /// acknowledgement that changes nothing makes it close what it does not know.
    fn ask_whether_held(&mut self, id: StreamId) {
        let index = match self.tunnel.streams.get(&id).map(|stream| &stream.kind) {
            Some(Kind::WebSocket { lasting: Some(lasting), .. }) => lasting.taken,
            Some(Kind::WebSocket { last_in, lasting: None }) => *last_in,
            Some(Kind::Request { .. } | Kind::Streaming | Kind::Collecting(_)) | None => return,
        };
        self.continue_stream(id, ToServerTunnel::WebSocketMessageAck { index });
    }

    /// The gateway listens.
    fn attached(&mut self, id: StreamId) {
        self.say_held(id);
        self.acknowledge_taken(id);
        if let Some(stream) = self.tunnel.streams.get(&id) {
            let actor = stream.actor.clone();
            self.tell_sleep(&actor);
        }
    }

    /// Says what was held back.
    fn say_held(&mut self, id: StreamId) {
        let Some(lasting) = self.tunnel.streams.get_mut(&id).and_then(Stream::lasting_mut) else { return };
        lasting.attachment = Attachment::Sure;
        let held = std::mem::take(&mut lasting.held);
        self.tunnel.held_bytes -= weight_of(&held);
        for message in held {
            self.continue_stream(id, message);
        }
    }

    /// Tells the gateway what was taken, if it has yet to know and listens.
    fn acknowledge_taken(&mut self, id: StreamId) {
        if !self.link.is_open() {
            return;
        }
        let Some(lasting) = self.tunnel.streams.get_mut(&id).and_then(Stream::lasting_mut) else { return };
        if lasting.attachment == Attachment::Sure && std::mem::take(&mut lasting.ack_due) {
            let index = lasting.taken;
            self.continue_stream(id, ToServerTunnel::WebSocketMessageAck { index });
        }
    }
}

/// The close that makes a gateway attach a socket anew.
fn attach_anew() -> ToServerTunnel {
    ToServerTunnel::WebSocketClose { code: None, reason: None, hibernate: true }
}

fn weight_of(held: &VecDeque<ToServerTunnel>) -> usize {
    held.iter().map(weight).sum()
}

/// How long the engine may take to listen to a socket after it had reason to; a few milliseconds, on a busy machine
/// fifty. What arrives on the socket proves it sooner.
const ATTACHING: Duration = Duration::from_millis(500);
/// Sockets are asked for and attached anew after a reconnect this many at a time, because the engine loses messages of bursts: ten
/// thousand are through in half of the time that a gateway waits for an acknowledgement.
const RENEWALS: usize = 64;
const RENEWALS_PACE: Duration = Duration::from_millis(100);
/// The most messages held back for one socket.
const HELD_MAX: usize = 1024;
/// The most bytes held back for all sockets.
const HELD_BYTES_MAX: usize = 64 * 1024 * 1024;
