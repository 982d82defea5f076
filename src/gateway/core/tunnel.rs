//! Open streams between clients and actors.

mod bodies;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytestring::ByteString;
use greenroom_protocol::credit::Window;
use greenroom_protocol::limits::{MESSAGE_MAX, PAYLOAD_MAX};
use greenroom_protocol::{MessageId, StreamId, ToClient, ToClientTunnel, ToServerTunnel, headers, serial};
use tracing::debug;

use super::calls::STOPPING;
use super::{ConnectionId, Core, Effect, Now, StreamRef};
use crate::gateway::{GatewayError, StreamHead, StreamUp, TunnelEvent};

/// All open streams.
#[derive(Debug, Default)]
pub(super) struct Tunnel {
    streams: BTreeMap<StreamRef, Stream>,
}

/// A stream that has reached its runner.
#[derive(Debug)]
struct Stream {
    /// The life it was opened to; the runner of another has no say in it.
    actor_id: Arc<str>,
    runner_id: Arc<str>,
    kind: Kind,
    /// Bodies travel as far as there is credit for them.
    credit: bool,
    /// While more of the response is to come on credit: what may come.
    download: Option<Window>,
    /// The index of the next message to the runner.
    next_index: u16,
    /// Messages that wait for the runner to come back.
    backlog: VecDeque<ToClientTunnel>,
    backlog_bytes: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// A request.
    Request {
        /// The client sends more of the body.
        uploads: bool,
        /// The response has begun.
        answered: bool,
    },
    /// A socket.
    WebSocket {
        /// The actor has taken it.
        open: bool,
    },
    /// Nobody waits for it any more; its runner has yet to be told.
    Over,
}

impl Tunnel {
    pub(super) fn has(&self, stream: StreamRef) -> bool {
        self.streams.contains_key(&stream)
    }

    pub(super) fn len(&self) -> usize {
        self.streams.len()
    }
}

impl Core {
    /// Sends the first message of a stream to the runner that serves its actor.
    pub(super) fn open_on(
        &mut self,
        connection: ConnectionId,
        stream: StreamRef,
        actor_id: &Arc<str>,
        head: StreamHead,
    ) {
        let Some(actor) = self.directory.actors.get_mut(actor_id) else { return };
        let (Some(runner_id), Some(peer)) = (actor.record.runner_id.clone(), self.peers.by_id.get(&connection)) else {
            return;
        };
        if self.tunnel.len() + self.hibernation.len() >= self.settings.limits.streams {
            let error = GatewayError::Unavailable("too many streams are open");
            return self.out.push(Effect::Refused { stream, error });
        }
        let (kind, message) = match head {
            StreamHead::Request { more: true, .. } if !peer.features.credit => {
                return self.out.push(Effect::Refused { stream, error: GatewayError::WholeBodyNeeded });
            }
            StreamHead::Request { method, path, headers, body, more } => {
                let headers = headers::join(headers, peer.features);
                let actor_id = actor.wire_id.clone();
                let message = ToClientTunnel::RequestStart { actor_id, method, path, headers, body, stream: more };
                (Kind::Request { uploads: more, answered: false }, message)
            }
            StreamHead::WebSocket { path, headers } => {
                let headers = headers::join(headers, peer.features);
                let message = ToClientTunnel::WebSocketOpen { actor_id: actor.wire_id.clone(), path, headers };
                (Kind::WebSocket { open: false }, message)
            }
        };
        actor.streams.insert(stream);
        // The copy that all streams of the actor share, whoever asked for it by another.
        let actor_id = actor.record.id.clone();
        let (greeted_by, credit) = (peer.greeted_by, peer.features.credit);
        let id = self.message_id(stream, 0);
        let entry = Stream {
            actor_id,
            runner_id,
            kind,
            credit,
            download: None,
            next_index: serial::next(0),
            backlog: VecDeque::new(),
            backlog_bytes: 0,
        };
        self.tunnel.streams.insert(stream, entry);
        let message = ToClient::Tunnel { id, message };
        self.out.push_after(greeted_by, Effect::Send { connection, message, after: 0 });
        self.out.push(Effect::Opened { stream });
    }

    /// The client says more.
    pub(super) fn client(&mut self, stream: StreamRef, up: StreamUp, now: Now) {
        if self.hibernation.has(stream) {
            return self.socket_said(stream, up, now);
        }
        let Some(entry) = self.tunnel.streams.get_mut(&stream) else { return };
        match (up, entry.kind) {
            (StreamUp::Chunk { body, finish }, Kind::Request { uploads: true, answered }) => {
                entry.kind = Kind::Request { uploads: !finish, answered };
                self.send_to_runner(stream, ToClientTunnel::RequestChunk { body, finish });
            }
            (StreamUp::Message { data, .. }, Kind::WebSocket { .. }) if data.len() > CLIENT_MESSAGE_MAX => {
                self.deliver(stream, closed(1009, "ws.message_too_large"));
                self.end(stream, close_runner(1009, "ws.message_too_large"));
            }
            (StreamUp::Message { data, binary }, Kind::WebSocket { .. }) => {
                self.send_to_runner(stream, ToClientTunnel::WebSocketMessage { data, binary });
            }
            (StreamUp::Close { code, reason }, Kind::WebSocket { .. }) => {
                self.end(stream, ToClientTunnel::WebSocketClose { code: code.or(Some(1000)), reason });
            }
            // Late, or not for this kind of stream.
            (
                StreamUp::Chunk { .. } | StreamUp::Message { .. } | StreamUp::Close { .. },
                Kind::Request { .. } | Kind::WebSocket { .. } | Kind::Over,
            ) => {}
        }
    }

    /// The client is gone.
    pub(super) fn client_gone(&mut self, stream: StreamRef, now: Now) {
        if self.hibernation.has(stream) {
            return self.socket_left(stream, now);
        }
        if self.waiting.remove(stream).is_some() {
            return;
        }
        match self.tunnel.streams.get(&stream).map(|entry| entry.kind) {
            Some(Kind::Request { .. }) => self.end(stream, ToClientTunnel::RequestAbort),
            Some(Kind::WebSocket { .. }) => self.end(stream, close_runner(1011, "ws.downstream_closed")),
            Some(Kind::Over) | None => {}
        }
    }

    /// A runner says something on a stream.
    pub(super) fn take_from_runner(
        &mut self,
        connection: ConnectionId,
        runner_id: &Arc<str>,
        id: MessageId,
        message: ToServerTunnel,
        now: Now,
    ) {
        let stream = StreamRef(u32::from_be_bytes(id.stream.request));
        if id.stream.gateway == self.settings.gateway_id && self.hibernation.has(stream) {
            return self.take_on_socket(runner_id, stream, message, now);
        }
        let ours = id.stream.gateway == self.settings.gateway_id;
        let Some(entry) = self.tunnel.streams.get_mut(&stream).filter(|_| ours) else {
            return self.end_stray(connection, id, &message);
        };
        if entry.runner_id != *runner_id {
            debug!(%runner_id, "answer on a stream that the runner does not hold");
            return;
        }
        let took = matches!(&message, ToServerTunnel::ResponseChunk { body, finish: false } if body.is_empty());
        if took && entry.credit {
            return self.runner_took(stream);
        }
        let event = match (message, &mut entry.kind) {
            (ToServerTunnel::ResponseStart { status, headers, body, stream: more }, Kind::Request { answered, .. })
                if !*answered =>
            {
                *answered = true;
                let features = self.peers.by_id.get(&connection).map(|peer| peer.features).unwrap_or_default();
                TunnelEvent::Response { status, headers: headers::split(headers, features), body, more }
            }
            (ToServerTunnel::ResponseChunk { body, finish }, Kind::Request { answered: true, .. }) => {
                TunnelEvent::Chunk { body, finish }
            }
            (ToServerTunnel::ResponseAbort, Kind::Request { .. }) => TunnelEvent::Failed(GatewayError::RequestAborted),
            (ToServerTunnel::WebSocketOpen { can_hibernate }, Kind::WebSocket { open }) if !*open => {
                *open = true;
                TunnelEvent::Open { can_hibernate }
            }
            (ToServerTunnel::WebSocketMessage { data, binary }, Kind::WebSocket { open: true }) => {
                TunnelEvent::Message { data, binary }
            }
            (ToServerTunnel::WebSocketClose { code, reason, hibernate: _ }, Kind::WebSocket { .. }) => {
                TunnelEvent::Close { code, reason }
            }
            // Late, out of order, or not for this kind of stream.
            (
                ToServerTunnel::ResponseStart { .. }
                | ToServerTunnel::ResponseChunk { .. }
                | ToServerTunnel::ResponseAbort
                | ToServerTunnel::WebSocketOpen { .. }
                | ToServerTunnel::WebSocketMessage { .. }
                | ToServerTunnel::WebSocketMessageAck { .. }
                | ToServerTunnel::WebSocketClose { .. },
                Kind::Request { .. } | Kind::WebSocket { .. } | Kind::Over,
            ) => return,
        };
        if payload(&event) > PAYLOAD_MAX {
            let (failed, over) = match entry.kind {
                Kind::Request { .. } | Kind::Over => {
                    let error = GatewayError::InvalidResponse("The actor's response is larger than 20 MiB.");
                    (TunnelEvent::Failed(error), ToClientTunnel::RequestAbort)
                }
                Kind::WebSocket { .. } => {
                    (closed(1009, "ws.message_too_large"), close_runner(1009, "ws.message_too_large"))
                }
            };
            self.deliver(stream, failed);
            return self.end(stream, over);
        }
        if !entry.has_credit_for(&event) {
            return self.overrun(stream);
        }
        if event == (TunnelEvent::Open { can_hibernate: true })
            && let Some(entry) = self.remove_stream(stream)
        {
            self.keep_socket(stream, entry.actor_id, entry.runner_id, entry.next_index);
        }
        if event.is_last() {
            self.remove_stream(stream);
        }
        self.deliver(stream, event);
    }

    /// The runner is back: what waited for it is sent.
    pub(super) fn send_backlogs(&mut self, actor_id: &Arc<str>) {
        let Some(actor) = self.directory.actors.get(actor_id) else { return };
        for stream in actor.streams.clone() {
            let Some(entry) = self.tunnel.streams.get_mut(&stream) else { continue };
            entry.backlog_bytes = 0;
            let over = entry.kind == Kind::Over;
            for message in std::mem::take(&mut entry.backlog) {
                self.send_to_runner(stream, message);
            }
            if over {
                self.remove_stream(stream);
            }
        }
    }

    /// The life is over: so are its streams.
    pub(super) fn fail_streams_of(&mut self, actor_id: &Arc<str>, error: &GatewayError) {
        let Some(actor) = self.directory.actors.get_mut(actor_id) else { return };
        for stream in std::mem::take(&mut actor.streams) {
            match self.tunnel.streams.remove(&stream).map(|entry| entry.kind) {
                Some(Kind::Request { .. } | Kind::WebSocket { .. }) => {
                    self.deliver(stream, TunnelEvent::Failed(error.clone()));
                }
                Some(Kind::Over) | None => {}
            }
        }
    }

    pub(super) fn fail_all_streams(&mut self) {
        self.close_all_sockets(&STOPPING);
        for (stream, entry) in std::mem::take(&mut self.tunnel.streams) {
            if let Some(actor) = self.directory.actors.get_mut(&entry.actor_id) {
                actor.streams.remove(&stream);
            }
            match entry.kind {
                Kind::Request { .. } | Kind::WebSocket { .. } => {
                    self.deliver(stream, TunnelEvent::Failed(STOPPING));
                }
                Kind::Over => {}
            }
        }
    }

    /// Sends a message that needs nothing durable but the runner's own introduction.
    pub(super) fn send_now(&mut self, connection: ConnectionId, message: ToClient) {
        if let Some(peer) = self.peers.by_id.get(&connection) {
            self.out.push_after(peer.greeted_by, Effect::Send { connection, message, after: 0 });
        }
    }

    /// Sends the last message of a stream; for a runner that is away it waits.
    fn end(&mut self, stream: StreamRef, message: ToClientTunnel) {
        let Some(entry) = self.tunnel.streams.get_mut(&stream) else { return };
        if self.runners.link(&entry.runner_id).is_some() {
            self.send_to_runner(stream, message);
            self.remove_stream(stream);
        } else {
            entry.kind = Kind::Over;
            // What a socket's client said before it left is still said; half a request is not.
            if message == ToClientTunnel::RequestAbort {
                entry.backlog.clear();
            }
            entry.backlog.push_back(message);
        }
    }

    fn send_to_runner(&mut self, stream: StreamRef, message: ToClientTunnel) {
        let Some(entry) = self.tunnel.streams.get_mut(&stream) else { return };
        if let Some(connection) = self.runners.link(&entry.runner_id) {
            let index = entry.next_index;
            entry.next_index = serial::next(index);
            let id = self.message_id(stream, index);
            return self.send_now(connection, ToClient::Tunnel { id, message });
        }
        let limits = &self.settings.limits;
        entry.backlog_bytes += message.payload_len();
        if entry.backlog.len() < limits.backlog && entry.backlog_bytes <= limits.backlog_bytes {
            return entry.backlog.push_back(message);
        }
        // More than the runner's absence is worth.
        entry.backlog.clear();
        entry.backlog_bytes = 0;
        let over = match entry.kind {
            Kind::Request { .. } | Kind::Over => ToClientTunnel::RequestAbort,
            Kind::WebSocket { .. } => close_runner(1011, "ws.downstream_closed"),
        };
        self.deliver(stream, TunnelEvent::Failed(GatewayError::TunnelClosed));
        self.end(stream, over);
    }

    pub(super) fn deliver(&mut self, stream: StreamRef, event: TunnelEvent) {
        self.out.push(Effect::Deliver { stream, event });
    }

    fn remove_stream(&mut self, stream: StreamRef) -> Option<Stream> {
        let entry = self.tunnel.streams.remove(&stream)?;
        if let Some(actor) = self.directory.actors.get_mut(&entry.actor_id) {
            actor.streams.remove(&stream);
        }
        Some(entry)
    }

    fn message_id(&self, stream: StreamRef, index: u16) -> MessageId {
        MessageId { stream: StreamId { gateway: self.settings.gateway_id, request: stream.0.to_be_bytes() }, index }
    }
}

fn payload(event: &TunnelEvent) -> usize {
    match event {
        TunnelEvent::Response { body, .. } => body.as_ref().map_or(0, |body| body.len()),
        TunnelEvent::Chunk { body, .. } => body.len(),
        TunnelEvent::Message { data, .. } => data.len(),
        TunnelEvent::Open { .. } | TunnelEvent::Close { .. } | TunnelEvent::Failed(_) => 0,
    }
}

pub(super) fn closed(code: u16, reason: &'static str) -> TunnelEvent {
    TunnelEvent::Close { code: Some(code), reason: Some(ByteString::from_static(reason)) }
}

pub(super) fn close_runner(code: u16, reason: &'static str) -> ToClientTunnel {
    ToClientTunnel::WebSocketClose { code: Some(code), reason: Some(ByteString::from_static(reason)) }
}

/// What leaves room for the rest of the message within [`MESSAGE_MAX`], which the TypeScript runner enforces.
pub(super) const CLIENT_MESSAGE_MAX: usize = MESSAGE_MAX - 1024;
