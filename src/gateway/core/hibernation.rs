//! Sockets that outlive their actor's process.
//!
//! Once an actor takes a socket this way, its client stays connected whatever becomes of the actor, until the actor
//! or the client closes it, the actor is destroyed, or the gateway gives it up with a reason. What the client says is
//! kept until the actor acknowledges it and is sent again, under the same index, to every life and over every
//! connection that may have missed it; the client's goodbye likewise. An actor that sleeps is woken for what is kept
//! and for nothing else.
//!
//! While an actor sleeps this table is all that the gateway has of its sockets.

mod socket;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytestring::ByteString;
use greenroom_protocol::limits::PAYLOAD_MAX;
use greenroom_protocol::{MessageId, StreamId, ToClient, ToServerTunnel};
use tracing::debug;

use self::socket::Socket;
use super::directory::is_placed;
use super::lifecycle::Wanted;
use super::loads::ForActor;
use super::timers::Timer;
use super::tunnel::{CLIENT_MESSAGE_MAX, closed};
use super::{ConnectionId, Core, Effect, Now, StreamRef};
use crate::gateway::{GatewayError, StreamUp, TunnelEvent};
use crate::store::Phase;

/// All sockets that outlive their actor's process.
#[derive(Debug, Default)]
pub(super) struct Hibernation {
    sockets: BTreeMap<StreamRef, Socket>,
    by_actor: BTreeSet<(Arc<str>, StreamRef)>,
    /// What is kept for all of them, in bytes.
    bytes: usize,
    /// By runner, as long as it is connected.
    traffic: BTreeMap<Arc<str>, Traffic>,
    /// When to look whether a socket's actor still takes anything.
    watch: BTreeSet<(Instant, StreamRef)>,
}

/// What is on its way to a runner.
#[derive(Debug, Default)]
struct Traffic {
    /// In bytes.
    in_flight: usize,
    /// Sockets that have more to send as soon as less is on its way.
    stalled: BTreeSet<StreamRef>,
    /// Goodbyes of clients, with the wall time at which they were sent. They are not acknowledged; a runner that
    /// answers a later ping has read them.
    goodbyes: BTreeMap<StreamRef, i64>,
}

impl Hibernation {
    pub(super) fn has(&self, stream: StreamRef) -> bool {
        self.sockets.contains_key(&stream)
    }

    pub(super) fn len(&self) -> usize {
        self.sockets.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The sockets of an actor.
    fn of(&self, actor_id: &Arc<str>) -> Vec<StreamRef> {
        let all = (actor_id.clone(), StreamRef(0))..=(actor_id.clone(), StreamRef(u32::MAX));
        self.by_actor.range(all).map(|(_, stream)| *stream).collect()
    }

    /// The sockets of an actor, as a runner is told of them.
    pub(super) fn ids(&self, actor_id: &Arc<str>, gateway: [u8; 4]) -> Vec<StreamId> {
        self.of(actor_id).into_iter().map(|StreamRef(request)| wire_id(gateway, request)).collect()
    }

    /// Something is kept that the actor has to be awake for.
    fn wants(&self, actor_id: &Arc<str>) -> bool {
        self.of(actor_id).into_iter().any(|stream| self.sockets.get(&stream).is_some_and(Socket::wants))
    }

    fn remove(&mut self, stream: StreamRef) {
        self.detach(stream);
        if let Some(socket) = self.sockets.remove(&stream) {
            self.bytes -= socket.bytes();
            self.by_actor.remove(&(socket.actor_id, stream));
        }
    }

    /// Nothing of the socket is on its way to anyone any more.
    fn detach(&mut self, stream: StreamRef) {
        let Some(socket) = self.sockets.get_mut(&stream) else { return };
        if let Some(traffic) = self.traffic.get_mut(&socket.runner_id) {
            traffic.in_flight -= socket.in_flight();
            traffic.stalled.remove(&stream);
            traffic.goodbyes.remove(&stream);
        }
        socket.detach();
    }

    /// The client is gone; what it said last is kept for the actor behind everything else.
    fn say_goodbye(&mut self, stream: StreamRef, code: u16, reason: Option<ByteString>) {
        let Some(socket) = self.sockets.get_mut(&stream) else { return };
        let before = socket.bytes();
        socket.closing = true;
        socket.keep(StreamUp::Close { code: Some(code), reason });
        self.bytes += socket.bytes() - before;
    }
}

impl Core {
    /// The actor has taken a socket that may outlive its process.
    pub(super) fn keep_socket(&mut self, stream: StreamRef, actor_id: Arc<str>, runner_id: Arc<str>, next_index: u16) {
        self.hibernation.by_actor.insert((actor_id.clone(), stream));
        self.hibernation.sockets.insert(stream, Socket::new(actor_id, runner_id, next_index));
    }

    /// The client of such a socket says something.
    pub(super) fn socket_said(&mut self, stream: StreamRef, up: StreamUp, now: Now) {
        let kept = self.hibernation.bytes;
        let Some(socket) = self.hibernation.sockets.get_mut(&stream) else { return };
        if socket.closing {
            return;
        }
        match up {
            StreamUp::Message { data, .. } if data.len() > CLIENT_MESSAGE_MAX => {
                return self.give_up_socket(stream, 1009, "ws.message_too_large", now);
            }
            StreamUp::Message { ref data, .. }
                if socket.has_no_room_for(data.len())
                    || kept.saturating_add(data.len()) > self.settings.limits.kept_bytes =>
            {
                return self.give_up_socket(stream, 1011, PENDING_LIMIT_REACHED, now);
            }
            StreamUp::Message { .. } => {
                let before = socket.bytes();
                socket.keep(up);
                self.hibernation.bytes += socket.bytes() - before;
            }
            StreamUp::Close { code, reason } => self.hibernation.say_goodbye(stream, code.unwrap_or(1000), reason),
            // Nothing of a request belongs here.
            StreamUp::Chunk { .. } => return,
        }
        self.pass_on(stream, now);
    }

    /// The client of such a socket is gone without a word.
    pub(super) fn socket_left(&mut self, stream: StreamRef, now: Now) {
        let reason = Some(ByteString::from_static("ws.downstream_closed"));
        self.socket_said(stream, StreamUp::Close { code: Some(1011), reason }, now);
    }

    /// The runner says something on such a socket.
    pub(super) fn take_on_socket(
        &mut self,
        runner_id: &Arc<str>,
        stream: StreamRef,
        message: ToServerTunnel,
        now: Now,
    ) {
        let Some(socket) = self.hibernation.sockets.get(&stream) else { return };
        let actor = self.directory.actors.get(&socket.actor_id);
        let placed = actor.is_some_and(|actor| is_placed(actor.record.phase));
        if socket.runner_id != *runner_id {
            debug!(%runner_id, "message on a socket that the runner does not hold");
            return;
        }
        match message {
            ToServerTunnel::WebSocketMessage { data, .. } if data.len() > PAYLOAD_MAX => {
                self.give_up_socket(stream, 1009, "ws.message_too_large", now);
            }
            ToServerTunnel::WebSocketMessage { data, binary } => {
                if placed && !socket.closing {
                    self.deliver(stream, TunnelEvent::Message { data, binary });
                }
            }
            ToServerTunnel::WebSocketMessageAck { index } => self.socket_taken(stream, index, now),
            ToServerTunnel::WebSocketClose { hibernate: true, .. } => {
                // While the actor runs, this only says that it wants anew what it has not taken; else it is stopping
                // and would get it anew in any case.
                if actor.and_then(|actor| self.serving(actor)).is_some() && self.tire(stream) {
                    self.hibernation.detach(stream);
                    self.pass_on(stream, now);
                }
            }
            ToServerTunnel::WebSocketClose { code, reason, hibernate: false } => {
                if !socket.closing {
                    self.deliver(stream, TunnelEvent::Close { code, reason });
                }
                self.hibernation.remove(stream);
            }
            // Late, or not for a socket.
            ToServerTunnel::WebSocketOpen { .. }
            | ToServerTunnel::ResponseStart { .. }
            | ToServerTunnel::ResponseChunk { .. }
            | ToServerTunnel::ResponseAbort => {}
        }
    }

    /// A new life of the actor begins at this runner.
    pub(super) fn place_sockets(&mut self, actor_id: &Arc<str>, runner_id: &Arc<str>) {
        for stream in self.hibernation.of(actor_id) {
            self.hibernation.detach(stream);
            if let Some(socket) = self.hibernation.sockets.get_mut(&stream) {
                socket.runner_id = runner_id.clone();
            }
        }
    }

    /// The actor serves, or its runner is back: what it has not taken is sent.
    pub(super) fn resume_sockets(&mut self, actor_id: &Arc<str>, now: Now) {
        let Some(connection) = self.directory.actors.get(actor_id).and_then(|actor| self.serving(actor)) else {
            return;
        };
        for stream in self.hibernation.of(actor_id) {
            self.send_kept(connection, stream, now);
        }
    }

    /// The runner has begun the actor's life once more: nothing that was sent before counts.
    pub(super) fn resend_sockets(&mut self, actor_id: &Arc<str>, now: Now) {
        for stream in self.hibernation.of(actor_id) {
            self.hibernation.detach(stream);
        }
        self.resume_sockets(actor_id, now);
    }

    /// The runner's connection is gone, with everything that was on its way.
    pub(super) fn detach_sockets(&mut self, runner_id: &str) {
        let actors = self.runners.by_id.get(runner_id).map(|runner| runner.actors.clone()).unwrap_or_default();
        for actor_id in &actors {
            for stream in self.hibernation.of(actor_id) {
                self.hibernation.detach(stream);
            }
        }
        self.hibernation.traffic.remove(runner_id);
    }

    /// The actor's life is over, its sockets are not. `heard` says that the runner has read everything it was sent.
    pub(super) fn hibernate_sockets(&mut self, actor_id: &Arc<str>, heard: bool) {
        for stream in self.hibernation.of(actor_id) {
            let Some(socket) = self.hibernation.sockets.get(&stream) else { continue };
            let traffic = self.hibernation.traffic.get(&socket.runner_id).filter(|_| socket.wants_only_goodbye());
            if heard && traffic.is_some_and(|traffic| traffic.goodbyes.contains_key(&stream)) {
                self.hibernation.remove(stream);
            } else if self.tire(stream) {
                self.hibernation.detach(stream);
            }
        }
    }

    /// Whether a sleeping actor has to be woken for its sockets.
    pub(super) fn sockets_want(&self, actor_id: &Arc<str>) -> bool {
        self.hibernation.wants(actor_id)
    }

    /// The actor cannot be woken: who waits for it is told so, who is quiet stays.
    pub(super) fn give_up_waking(&mut self, actor_id: &Arc<str>, reason: &'static str) {
        for stream in self.hibernation.of(actor_id) {
            if self.hibernation.sockets.get(&stream).is_some_and(Socket::wants) {
                self.drop_socket(stream, closed(1011, reason));
            }
        }
    }

    /// The actor is gone for good.
    pub(super) fn close_sockets_of(&mut self, actor_id: &Arc<str>) {
        for stream in self.hibernation.of(actor_id) {
            self.drop_socket(stream, closed(1000, "actor.destroyed"));
        }
    }

    pub(super) fn close_all_sockets(&mut self, error: &GatewayError) {
        for stream in self.hibernation.sockets.keys().copied().collect::<Vec<_>>() {
            self.drop_socket(stream, TunnelEvent::Failed(error.clone()));
        }
    }

    /// The runner has answered a ping of this time, and so has read everything that was sent before.
    pub(super) fn goodbyes_heard(&mut self, runner_id: &str, ping_ts: i64) {
        let Some(traffic) = self.hibernation.traffic.get(runner_id) else { return };
        let heard = traffic.goodbyes.iter().filter(|(_, sent)| **sent < ping_ts);
        for stream in heard.map(|(stream, _)| *stream).collect::<Vec<_>>() {
            if self.hibernation.sockets.get(&stream).is_some_and(Socket::wants_only_goodbye) {
                self.hibernation.remove(stream);
            }
        }
    }

    /// Looks for actors that were given something and take nothing.
    pub(super) fn unacknowledged_timeout(&mut self, now: Now) {
        let patience = self.settings.thresholds.unacknowledged;
        while let Some((due, stream)) = self.hibernation.watch.first().copied() {
            if due > now.instant {
                return self.timers.set(Timer::Unacknowledged, due);
            }
            self.hibernation.watch.pop_first();
            let Some(socket) = self.hibernation.sockets.get_mut(&stream) else { continue };
            socket.watched = false;
            match socket.waits_since {
                // A runner need not acknowledge what it takes of a socket after it has heard of its end.
                Some(since) if since + patience <= now.instant && socket.closing => self.hibernation.remove(stream),
                Some(since) if since + patience <= now.instant => {
                    self.give_up_socket(stream, 1011, "guard.websocket_garbage_collected", now);
                }
                Some(since) => self.hibernation.watch_from(stream, since, patience),
                None => {}
            }
        }
    }

    /// Sends what is kept if the actor serves, and wakes it if it sleeps. Whatever else it does, it comes by what is
    /// kept in time.
    fn pass_on(&mut self, stream: StreamRef, now: Now) {
        let Some(actor_id) = self.hibernation.sockets.get(&stream).map(|socket| socket.actor_id.clone()) else {
            return;
        };
        let Some(actor) = self.directory.actors.get(&actor_id) else {
            return self.load_actor(actor_id.clone(), ForActor::Wake(actor_id));
        };
        if actor.record.phase == Phase::Sleeping {
            self.start(&actor_id, Wanted::Asked, now);
        } else if let Some(connection) = self.serving(actor) {
            self.send_kept(connection, stream, now);
        }
    }

    /// An actor that sleeps is in memory, because of what its sockets keep.
    pub(super) fn wake_for_sockets(&mut self, actor_id: &Arc<str>, now: Now) {
        let asleep = self.directory.actors.get(actor_id).is_some_and(|actor| actor.record.phase == Phase::Sleeping);
        if asleep && self.hibernation.wants(actor_id) {
            self.start(actor_id, Wanted::Asked, now);
        }
    }

    fn send_kept(&mut self, connection: ConnectionId, stream: StreamRef, now: Now) {
        let Some(greeted_by) = self.peers.by_id.get(&connection).map(|peer| peer.greeted_by) else { return };
        let Some(socket) = self.hibernation.sockets.get_mut(&stream) else { return };
        let traffic = self.hibernation.traffic.entry(socket.runner_id.clone()).or_default();
        loop {
            if traffic.in_flight >= TRAFFIC_MAX {
                traffic.stalled.insert(stream);
                break;
            }
            let Some((index, message, weight)) = socket.send_next() else { break };
            traffic.in_flight += weight;
            if matches!(message, greenroom_protocol::ToClientTunnel::WebSocketClose { .. }) {
                traffic.goodbyes.insert(stream, now.wall_ms);
            }
            let id = MessageId { stream: wire_id(self.settings.gateway_id, stream.0), index };
            let message = ToClient::Tunnel { id, message };
            self.out.push_after(greeted_by, Effect::Send { connection, message, after: 0 });
        }
        if socket.is_sending() && socket.waits_since.is_none() {
            socket.waits_since = Some(now.instant);
            self.hibernation.watch_from(stream, now.instant, self.settings.thresholds.unacknowledged);
            if let Some((due, _)) = self.hibernation.watch.first() {
                self.timers.set_earlier(Timer::Unacknowledged, *due);
            }
        }
    }

    /// The actor has taken everything up to this index.
    fn socket_taken(&mut self, stream: StreamRef, index: u16, now: Now) {
        let Some(socket) = self.hibernation.sockets.get_mut(&stream) else { return };
        let freed = socket.take(index);
        if freed.messages == 0 {
            return;
        }
        socket.fruitless = 0;
        socket.waits_since = socket.is_sending().then_some(now.instant);
        let runner_id = socket.runner_id.clone();
        self.hibernation.bytes -= freed.bytes;
        if socket.closing && !socket.wants() {
            self.hibernation.remove(stream);
        }
        let Some(connection) = self.runners.link(&runner_id) else { return };
        if let Some(traffic) = self.hibernation.traffic.get_mut(&runner_id) {
            traffic.in_flight -= freed.in_flight;
        }
        self.send_more(connection, &runner_id, stream, now);
    }

    /// There is room on the way to a runner: this socket is sent more, and those that had to wait.
    fn send_more(&mut self, connection: ConnectionId, runner_id: &Arc<str>, stream: StreamRef, now: Now) {
        let mut next = Some(stream);
        while let Some(stream) = next.take() {
            let actor = self.hibernation.sockets.get(&stream).map(|socket| &socket.actor_id);
            let actor = actor.and_then(|actor_id| self.directory.actors.get(actor_id));
            if actor.and_then(|actor| self.serving(actor)) == Some(connection) {
                self.send_kept(connection, stream, now);
            }
            if let Some(traffic) = self.hibernation.traffic.get_mut(runner_id)
                && traffic.in_flight < TRAFFIC_MAX
            {
                next = traffic.stalled.pop_first();
            }
        }
    }

    /// Notes that something ended without the actor taking what is kept; a socket of which that happens too often is
    /// given up. Answers whether it goes on.
    fn tire(&mut self, stream: StreamRef) -> bool {
        let Some(socket) = self.hibernation.sockets.get_mut(&stream) else { return false };
        if !socket.wants() {
            return true;
        }
        socket.fruitless = socket.fruitless.saturating_add(1);
        // A client that has left still wants to have been heard.
        if socket.fruitless <= if socket.wants_only_goodbye() { GOODBYES_MAX } else { FRUITLESS_MAX } {
            return true;
        }
        debug!(actor_id = %socket.actor_id, "actor takes nothing from a socket, socket given up");
        self.drop_socket(stream, closed(1011, "guard.actor_wake_retries_exceeded"));
        false
    }

    /// Closes a socket towards both sides; what the client said and the actor has not taken is lost.
    fn give_up_socket(&mut self, stream: StreamRef, code: u16, reason: &'static str, now: Now) {
        let Some(socket) = self.hibernation.sockets.get_mut(&stream) else { return };
        let was_closing = socket.closing;
        let bytes = socket.bytes();
        self.hibernation.detach(stream);
        let Some(socket) = self.hibernation.sockets.get_mut(&stream) else { return };
        socket.forget();
        self.hibernation.bytes -= bytes;
        if !was_closing {
            debug!(stream = stream.0, reason, "socket given up");
            self.deliver(stream, closed(code, reason));
        }
        self.hibernation.say_goodbye(stream, code, Some(ByteString::from_static(reason)));
        self.pass_on(stream, now);
    }

    /// Tells the client, unless it is gone, and forgets the socket. A runner that still knows it learns from the list
    /// of the actor's next start that it is no more.
    fn drop_socket(&mut self, stream: StreamRef, event: TunnelEvent) {
        if self.hibernation.sockets.get(&stream).is_some_and(|socket| !socket.closing) {
            self.deliver(stream, event);
        }
        self.hibernation.remove(stream);
    }
}

impl Hibernation {
    /// Has somebody look at the socket when its actor has taken nothing for as long as that.
    fn watch_from(&mut self, stream: StreamRef, since: Instant, patience: Duration) {
        if let Some(socket) = self.sockets.get_mut(&stream)
            && !socket.watched
        {
            socket.watched = true;
            self.watch.insert((since + patience, stream));
        }
    }
}

fn wire_id(gateway: [u8; 4], request: u32) -> StreamId {
    StreamId { gateway, request: request.to_be_bytes() }
}

const PENDING_LIMIT_REACHED: &str = "guard.websocket_pending_limit_reached";
/// After this many lives that took nothing of a socket it is closed, as the engine does with what it rewakes for.
const FRUITLESS_MAX: u8 = 8;
/// After this many lives that did not hear of a client's goodbye, and of nothing else, no further one is woken for it.
const GOODBYES_MAX: u8 = 3;
/// What may be on its way to a runner from all of these sockets, in bytes: well within what its connection may lag
/// behind.
const TRAFFIC_MAX: usize = 64 * 1024 * 1024;
