//! Requests and sockets at the engine's guard.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytestring::ByteString;
use greenroom::gateway::core::{ConnectionId, Effect, Now, StreamRef};
use greenroom::gateway::{GatewayError, StreamHead, StreamUp, TunnelEvent};
use greenroom::protocol::{MessageId, StreamId, ToClient, ToClientTunnel, ToServerTunnel, serial};

use super::actors::Phase;
use super::{Engine, Timer, millis};

/// A request, or a socket that does not hibernate, or not yet.
#[derive(Debug)]
pub struct Stream {
    actor: Arc<str>,
    head: StreamHead,
    /// The actor has taken the socket.
    open: bool,
    /// It waits for its actor to serve.
    waits: bool,
    told_opened: bool,
    tries: u32,
    next_index: u16,
    /// What the client said before the socket was open.
    queued: Vec<StreamUp>,
}

/// A socket that hibernates.
#[derive(Debug)]
pub struct Kept {
    actor: Arc<str>,
    /// What the client said and the actor has not acknowledged.
    pub said: VecDeque<(u16, StreamUp)>,
    next_index: u16,
    /// What the runner says on it is heard.
    attached: bool,
    /// The client is gone.
    closing: bool,
    oldest: Option<Instant>,
}

impl Stream {
    fn is_socket(&self) -> bool {
        matches!(self.head, StreamHead::WebSocket { .. })
    }
}

impl Engine {
    pub fn open(&mut self, stream: StreamRef, actor: Arc<str>, head: StreamHead, now: Now) {
        if self.actors.get(&actor).is_none_or(super::Actor::is_gone) {
            return self.effects.push_back(Effect::Refused { stream, error: GatewayError::ActorNotFound });
        }
        let entry = Stream {
            actor,
            head,
            open: false,
            waits: false,
            told_opened: false,
            tries: 0,
            next_index: 0,
            queued: Vec::new(),
        };
        self.streams.insert(stream, entry);
        self.send_or_wait(stream, now);
    }

    fn send_or_wait(&mut self, id: StreamRef, now: Now) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        let Some(actor) = self.actors.get(&stream.actor) else { return };
        if actor.phase != Phase::Running {
            stream.waits = true;
            let actor = stream.actor.clone();
            self.later(now.instant + self.thresholds.actor_ready, Timer::Ready(id));
            return self.wake(&actor, now);
        }
        let away = actor.runner.as_ref().and_then(|runner| self.runners.get(runner)?.link).is_none();
        if !std::mem::replace(&mut stream.told_opened, true) {
            self.effects.push_back(Effect::Opened { stream: id });
        }
        if away && stream.is_socket() {
            let after = Duration::from_millis(500);
            return self.later(now.instant + after, Timer::Retry(id));
        }
        (stream.waits, stream.tries) = (false, stream.tries + 1);
        let index = stream.next_index;
        stream.next_index = serial::next(index);
        let actor_id = ByteString::from(&*stream.actor);
        let message = match &stream.head {
            StreamHead::Request { method, path, headers, body, .. } => ToClientTunnel::RequestStart {
                actor_id,
                method: method.clone(),
                path: path.clone(),
                headers: headers.clone(),
                body: body.clone(),
                stream: false,
            },
            StreamHead::WebSocket { path, headers } => {
                ToClientTunnel::WebSocketOpen { actor_id, path: path.clone(), headers: headers.clone() }
            }
        };
        let (actor, tries) = (stream.actor.clone(), stream.tries);
        self.say(&actor, id, index, message);
        self.later(now.instant + OPEN_WITHIN, Timer::OpenLate(id, tries));
    }

    /// Says something to the runner that has an actor. While that is away, it is lost.
    fn say(&mut self, actor: &Arc<str>, stream: StreamRef, index: u16, message: ToClientTunnel) {
        let link = self.actors.get(actor).and_then(|actor| self.runners.get(actor.runner.as_ref()?)?.link);
        if let Some(link) = link {
            self.say_on(link, stream, index, message);
        }
    }

    fn say_on(&mut self, link: ConnectionId, stream: StreamRef, index: u16, message: ToClientTunnel) {
        let id = MessageId { stream: self.wire_id(stream), index };
        self.send(link, ToClient::Tunnel { id, message });
    }

    fn wire_id(&self, stream: StreamRef) -> StreamId {
        StreamId { gateway: self.gateway_id, request: stream.0.to_be_bytes() }
    }

    fn deliver(&mut self, stream: StreamRef, event: TunnelEvent) {
        self.effects.push_back(Effect::Deliver { stream, event });
    }

    pub fn ready_timeout(&mut self, id: StreamRef) {
        if self.streams.get(&id).is_some_and(|stream| stream.waits) {
            self.give_up(id, GatewayError::ActorReadyTimeout { error: None });
        }
    }

    fn give_up(&mut self, stream: StreamRef, error: GatewayError) {
        let Some(entry) = self.streams.remove(&stream) else { return };
        if entry.told_opened {
            self.deliver(stream, TunnelEvent::Failed(error));
        } else {
            self.effects.push_back(Effect::Refused { stream, error });
        }
    }

    pub fn fail_waiting(&mut self, actor: &Arc<str>) {
        let waiting = self.streams.iter().filter(|(_, stream)| stream.actor == *actor && stream.waits);
        for id in waiting.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.give_up(id, GatewayError::ActorDestroyed);
        }
    }

    fn retry_later(&mut self, id: StreamRef, now: Now) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        if stream.tries >= TRIES_MAX {
            return self.give_up(id, GatewayError::Unavailable("all attempts failed"));
        }
        stream.open = false;
        let after = Duration::from_millis(150 << stream.tries);
        self.later(now.instant + after, Timer::Retry(id));
    }

    pub fn retry(&mut self, id: StreamRef, now: Now) {
        let Some(stream) = self.streams.get(&id) else { return };
        // Of one that was destroyed nobody is told; the client gives up some time.
        if !self.actors.get(&stream.actor).is_none_or(super::Actor::is_gone) {
            self.send_or_wait(id, now);
        }
    }

    pub fn open_late(&mut self, id: StreamRef, tries: u32, now: Now) {
        let late = |stream: &Stream| stream.is_socket() && !stream.open && !stream.waits && stream.tries == tries;
        if self.streams.get(&id).is_some_and(late) {
            // It may have forgotten by then that it asked before, and begins to count again.
            if let Some(stream) = self.streams.get_mut(&id).filter(|_| tries.is_multiple_of(2)) {
                stream.next_index = 0;
            }
            self.retry_later(id, now);
        }
    }

    pub fn actor_serves(&mut self, actor: &Arc<str>, now: Now) {
        let waiting = self.streams.iter().filter(|(_, stream)| stream.actor == *actor && stream.waits);
        for id in waiting.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.send_or_wait(id, now);
        }
        let kept = self.kept.iter().filter(|(_, kept)| kept.actor == *actor);
        for id in kept.map(|(id, _)| *id).collect::<Vec<_>>() {
            let deaf = millis(&mut self.dice, 10, 50);
            self.later(now.instant + deaf, Timer::Attach(id));
        }
    }

    pub fn actor_stopped(&mut self, actor: &Arc<str>, now: Now) {
        let streams = self.streams.iter().filter(|(_, stream)| stream.actor == *actor && !stream.waits);
        for id in streams.map(|(id, _)| *id).collect::<Vec<_>>() {
            if self.streams[&id].open {
                self.streams.remove(&id);
                self.deliver(id, closed(1000, "actor.stopped"));
            } else {
                self.retry_later(id, now);
            }
        }
        for kept in self.kept.values_mut().filter(|kept| kept.actor == *actor) {
            kept.attached = false;
        }
    }

    /// The sockets that a start lists.
    pub fn sockets_of(&mut self, actor: &Arc<str>) -> Vec<StreamId> {
        // After some ways to hibernate the list is empty.
        if self.dice.percent(10) {
            return Vec::new();
        }
        let kept = self.kept.iter().filter(|(_, kept)| kept.actor == *actor && !kept.closing);
        kept.map(|(id, _)| self.wire_id(*id)).collect()
    }

    /// Something is kept that a sleeping actor is woken for.
    pub fn socket_wants(&self, actor: &Arc<str>) -> bool {
        self.kept.values().any(|kept| kept.actor == *actor && (kept.closing || !kept.said.is_empty()))
    }

    /// Sockets of sleeping actors on which nothing is under way, and the next index of each.
    pub fn quiet_sockets(&self) -> Vec<(StreamRef, Arc<str>, u16)> {
        let sleeps = |kept: &Kept| self.actors.get(&kept.actor).is_some_and(|actor| actor.phase == Phase::Sleeping);
        let quiet = self.kept.iter().filter(|(_, kept)| kept.said.is_empty() && !kept.closing && sleeps(kept));
        quiet.map(|(id, kept)| (*id, kept.actor.clone(), kept.next_index)).collect()
    }

    /// As if there had been that many more messages.
    pub fn age(&mut self, stream: StreamRef, messages: u16) {
        if let Some(kept) = self.kept.get_mut(&stream) {
            kept.next_index = kept.next_index.wrapping_add(messages);
        }
    }

    pub fn client(&mut self, stream: StreamRef, up: StreamUp, now: Now) {
        if let StreamUp::Close { code, reason } = up {
            return self.client_leaves(stream, code.or(Some(1000)), reason, now);
        }
        if let Some(kept) = self.kept.get_mut(&stream) {
            let index = kept.next_index;
            kept.next_index = serial::next(index);
            kept.said.push_back((index, up.clone()));
            if kept.oldest.is_none() {
                kept.oldest = Some(now.instant);
                self.later(now.instant + COLLECT_EVERY, Timer::Collect(stream));
            }
            let Some(kept) = self.kept.get(&stream) else { return };
            let (actor, attached) = (kept.actor.clone(), kept.attached);
            if attached {
                self.say_kept(&actor, stream, index, up);
            } else if self.actors.get(&actor).is_none_or(super::Actor::is_gone) {
                self.kept.remove(&stream);
                self.deliver(stream, closed(1011, "actor.not_found"));
            } else {
                self.wake(&actor, now);
            }
            return;
        }
        let Some(entry) = self.streams.get_mut(&stream) else { return };
        if entry.open {
            let index = entry.next_index;
            entry.next_index = serial::next(index);
            let actor = entry.actor.clone();
            self.say(&actor, stream, index, frame(up));
        } else {
            entry.queued.push(up);
        }
    }

    fn say_kept(&mut self, actor: &Arc<str>, stream: StreamRef, index: u16, up: StreamUp) {
        // Its queues lose something now and then.
        if self.calm || self.dice.percent(98) {
            self.say(actor, stream, index, frame(up));
        }
    }

    pub fn client_gone(&mut self, stream: StreamRef, now: Now) {
        self.client_leaves(stream, Some(1011), Some("ws.downstream_closed".into()), now);
    }

    fn client_leaves(&mut self, stream: StreamRef, code: Option<u16>, reason: Option<ByteString>, now: Now) {
        let close = ToClientTunnel::WebSocketClose { code, reason };
        if let Some(kept) = self.kept.get_mut(&stream) {
            kept.closing = true;
            let (actor, index) = (kept.actor.clone(), kept.next_index);
            if kept.attached {
                self.kept.remove(&stream);
                self.say(&actor, stream, index, close);
            } else {
                self.wake(&actor, now);
            }
            return;
        }
        // Nobody tells a runner that the client of a request is gone.
        if let Some(entry) = self.streams.remove(&stream)
            && entry.is_socket()
            && entry.open
        {
            self.say(&entry.actor, stream, entry.next_index, close);
        }
    }

    /// From now on what the runner says on a socket is heard, and it is sent everything that is kept.
    pub fn attach(&mut self, stream: StreamRef, now: Now) {
        let Some(kept) = self.kept.get_mut(&stream) else { return };
        let actor = kept.actor.clone();
        if self.actors.get(&actor).is_none_or(|actor| actor.phase != Phase::Running) {
            return;
        }
        kept.attached = true;
        let (said, index, closing) = (kept.said.clone(), kept.next_index, kept.closing);
        if !said.is_empty() {
            kept.oldest = Some(now.instant);
        }
        for (index, up) in said {
            self.say_kept(&actor, stream, index, up);
        }
        if closing {
            self.kept.remove(&stream);
            self.say(&actor, stream, index, ToClientTunnel::WebSocketClose { code: Some(1000), reason: None });
        }
    }

    /// A socket of which nothing is acknowledged for long is closed.
    pub fn collect(&mut self, stream: StreamRef, now: Now) {
        let Some(kept) = self.kept.get(&stream) else { return };
        let Some(oldest) = kept.oldest else { return };
        if now.instant.duration_since(oldest) < self.thresholds.unacknowledged {
            return self.later(now.instant + COLLECT_EVERY, Timer::Collect(stream));
        }
        let (actor, index, closing) = (kept.actor.clone(), kept.next_index, kept.closing);
        self.kept.remove(&stream);
        if !closing {
            self.deliver(stream, closed(1011, "guard.websocket_garbage_collected"));
        }
        let reason = Some("guard.websocket_garbage_collected".into());
        self.say(&actor, stream, index, ToClientTunnel::WebSocketClose { code: Some(1011), reason });
    }

    pub fn tunnel(&mut self, link: ConnectionId, id: MessageId, message: ToServerTunnel, now: Now) {
        if id.stream.gateway != self.gateway_id {
            return;
        }
        let stream = StreamRef(u32::from_be_bytes(id.stream.request));
        if self.kept.contains_key(&stream) {
            return self.kept_hears(link, stream, message, now);
        }
        let Some(entry) = self.streams.get_mut(&stream).filter(|entry| !entry.waits) else { return };
        match message {
            ToServerTunnel::ResponseStart { status, headers, body, .. } if !entry.is_socket() => {
                let again = status == 503 && headers.iter().any(|(name, _)| &**name == "x-rivet-error");
                if again {
                    return self.retry_later(stream, now);
                }
                self.streams.remove(&stream);
                self.deliver(stream, TunnelEvent::Response { status, headers, body, more: false });
            }
            ToServerTunnel::ResponseAbort if !entry.is_socket() => self.retry_later(stream, now),
            ToServerTunnel::WebSocketOpen { can_hibernate } if entry.is_socket() && !entry.open => {
                entry.open = true;
                let queued = std::mem::take(&mut entry.queued);
                self.deliver(stream, TunnelEvent::Open { can_hibernate });
                if can_hibernate && let Some(entry) = self.streams.remove(&stream) {
                    let kept = Kept {
                        actor: entry.actor,
                        said: VecDeque::new(),
                        next_index: entry.next_index,
                        attached: true,
                        closing: false,
                        oldest: None,
                    };
                    self.kept.insert(stream, kept);
                }
                for up in queued {
                    self.client(stream, up, now);
                }
            }
            ToServerTunnel::WebSocketMessage { data, binary } if entry.open => {
                self.deliver(stream, TunnelEvent::Message { data, binary });
            }
            ToServerTunnel::WebSocketClose { .. } if entry.is_socket() && !entry.open => self.retry_later(stream, now),
            ToServerTunnel::WebSocketClose { code, reason, .. } if entry.open => {
                let index = entry.next_index;
                self.streams.remove(&stream);
                self.deliver(stream, TunnelEvent::Close { code, reason });
                self.say_on(link, stream, index, ToClientTunnel::WebSocketClose { code: Some(1000), reason: None });
            }
            _ => {}
        }
    }

    fn kept_hears(&mut self, link: ConnectionId, stream: StreamRef, message: ToServerTunnel, now: Now) {
        let Some(kept) = self.kept.get_mut(&stream) else { return };
        let gone = self.actors.get(&kept.actor).is_none_or(super::Actor::is_gone);
        if !kept.attached {
            // Lost, whatever it is.
            return;
        }
        match message {
            ToServerTunnel::WebSocketMessage { data, binary } => {
                self.deliver(stream, TunnelEvent::Message { data, binary });
            }
            ToServerTunnel::WebSocketMessageAck { index } => {
                kept.said.retain(|(said, _)| serial::newer(*said, index));
                kept.oldest = (!kept.said.is_empty()).then_some(now.instant);
            }
            ToServerTunnel::WebSocketClose { hibernate: true, .. } if gone => {
                self.kept.remove(&stream);
                self.deliver(stream, closed(1011, "actor.not_found"));
            }
            ToServerTunnel::WebSocketClose { hibernate: true, .. } => {
                kept.attached = false;
                let deaf = millis(&mut self.dice, 4, 10);
                self.later(now.instant + deaf, Timer::Attach(stream));
            }
            ToServerTunnel::WebSocketClose { code, reason, hibernate: false } => {
                let index = kept.next_index;
                self.kept.remove(&stream);
                self.deliver(stream, TunnelEvent::Close { code: code.or(Some(1000)), reason });
                self.say_on(link, stream, index, ToClientTunnel::WebSocketClose { code: Some(1000), reason: None });
            }
            ToServerTunnel::WebSocketOpen { .. }
            | ToServerTunnel::ResponseStart { .. }
            | ToServerTunnel::ResponseChunk { .. }
            | ToServerTunnel::ResponseAbort => {}
        }
    }
}

fn frame(up: StreamUp) -> ToClientTunnel {
    match up {
        StreamUp::Message { data, binary } => ToClientTunnel::WebSocketMessage { data, binary },
        StreamUp::Close { code, reason } => ToClientTunnel::WebSocketClose { code, reason },
        StreamUp::Chunk { body, finish } => ToClientTunnel::RequestChunk { body, finish },
    }
}

fn closed(code: u16, reason: &'static str) -> TunnelEvent {
    TunnelEvent::Close { code: Some(code), reason: Some(ByteString::from_static(reason)) }
}

/// How long a runner may take to answer an open.
const OPEN_WITHIN: Duration = Duration::from_secs(15);
const COLLECT_EVERY: Duration = Duration::from_secs(15);
/// How often a request is sent.
const TRIES_MAX: u32 = 7;
