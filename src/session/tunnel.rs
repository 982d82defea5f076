//! Requests and sockets of clients, each tied to the actor life it was opened to.

mod outgoing;

use std::collections::{BTreeSet, VecDeque};
use std::time::Instant;

use bytes::Bytes;
use bytestring::ByteString;
use greenroom_protocol::credit::Window;
use greenroom_protocol::limits::PAYLOAD_MAX;
use greenroom_protocol::{MessageId, StreamId, ToClientTunnel, ToServer, ToServerTunnel, close, headers, serial};

use super::hibernation::{Hibernation, Lasting};
use crate::actor::ActorKey;
use crate::number_map::NumberMap;
use crate::session::{Effect, Session};
use crate::stream::{StreamKey, StreamReply};
use outgoing::Collected;
pub(super) use outgoing::weight;

/// Open streams, and what could not be sent while the gateway is away.
#[derive(Debug, Default)]
pub(super) struct Tunnel {
    pub(super) streams: NumberMap<StreamId, Stream>,
    /// The streams of each life, by its number.
    by_life: BTreeSet<(u64, StreamId)>,
    /// How many streams were opened so far.
    openings: u64,
    /// The bytes of all responses that are being collected.
    collected_bytes: usize,
    /// The bytes of everything held back until the gateway listens.
    pub(super) held_bytes: usize,
    offline: VecDeque<ToServer>,
    offline_bytes: usize,
}

#[derive(Debug)]
pub(super) struct Stream {
    pub(super) actor: ActorKey,
    life: u64,
    pub(super) opening: u64,
    pub(super) next_out: u16,
    /// The index of a socket's opening, or of the last message that an earlier life has taken.
    pub(super) first_in: u16,
    pub(super) kind: Kind,
    /// Bodies travel as far as there is credit for them.
    credit: bool,
    /// While more of the request's body is to come on credit: what may come.
    upload: Option<Window>,
}

#[derive(Debug)]
pub(super) enum Kind {
    /// No response has begun.
    Request {
        /// The client wants headers only: a length without a body is no mistake.
        head: bool,
    },
    /// The response goes out in chunks.
    Streaming,
    /// The gateway takes whole responses only: this one is being collected.
    Collecting(Box<Collected>),
    /// A socket.
    WebSocket {
        /// The index of the client's last message that the actor was given.
        last_in: u16,
        /// What more there is to one that may outlive the actor's process.
        lasting: Option<Box<Lasting>>,
    },
}

impl Tunnel {
    /// The stream, when it is an open request.
    fn request(&self, id: StreamId) -> Option<StreamKey> {
        let stream = self.streams.get(&id)?;
        (!stream.kind.is_websocket()).then_some(StreamKey { id, opening: stream.opening })
    }

    /// The stream, when it is an open socket.
    pub(super) fn websocket(&self, id: StreamId) -> Option<StreamKey> {
        let stream = self.streams.get(&id)?;
        stream.kind.is_websocket().then_some(StreamKey { id, opening: stream.opening })
    }

    fn add(&mut self, id: StreamId, actor: ActorKey, life: u64, kind: Kind) -> StreamKey {
        let opening = self.openings;
        self.openings += 1;
        let first_in = match &kind {
            Kind::WebSocket { last_in, .. } => *last_in,
            Kind::Request { .. } | Kind::Streaming | Kind::Collecting(_) => 0,
        };
        self.by_life.insert((life, id));
        self.streams
            .insert(id, Stream { actor, life, opening, next_out: 0, first_in, kind, credit: false, upload: None });
        StreamKey { id, opening }
    }

    pub(super) fn remove(&mut self, id: StreamId) -> Option<Stream> {
        let stream = self.streams.remove(&id)?;
        self.by_life.remove(&(stream.life, id));
        match &stream.kind {
            Kind::Collecting(collected) => self.collected_bytes -= collected.len(),
            Kind::WebSocket { lasting: Some(lasting), .. } => self.held_bytes -= lasting.held_bytes(),
            Kind::WebSocket { lasting: None, .. } | Kind::Request { .. } | Kind::Streaming => {}
        }
        Some(stream)
    }

    /// The streams that are wanted, in order.
    pub(super) fn ids(&self, wanted: impl Fn(&Stream) -> bool) -> Vec<StreamId> {
        let mut ids: Vec<_> = self.streams.iter().filter(|(_, stream)| wanted(stream)).map(|(id, _)| *id).collect();
        ids.sort_unstable();
        ids
    }

    fn of_life(&self, life: u64) -> Vec<StreamId> {
        let from = (life, StreamId { gateway: [0; 4], request: [0; 4] });
        self.by_life.range(from..).take_while(|(other, _)| *other == life).map(|(_, id)| *id).collect()
    }
}

impl Kind {
    pub(super) fn is_websocket(&self) -> bool {
        match self {
            Kind::WebSocket { .. } => true,
            Kind::Request { .. } | Kind::Streaming | Kind::Collecting(_) => false,
        }
    }
}

impl Session {
    /// The message opens a stream under the id of one that is open: whatever came for that one has to be handled before.
    pub(super) fn reopens(&self, id: MessageId, message: &ToClientTunnel) -> bool {
        message.opens() && self.tunnel.streams.contains_key(&id.stream)
    }

    /// The number of the life that a message is for, as far as that is known before it is handled.
    pub(super) fn life_of(&self, id: MessageId, message: &ToClientTunnel) -> Option<u64> {
        match message {
            ToClientTunnel::RequestStart { actor_id, .. } | ToClientTunnel::WebSocketOpen { actor_id, .. } => {
                self.actors.newest(actor_id).map(|life| life.number)
            }
            ToClientTunnel::RequestChunk { .. }
            | ToClientTunnel::RequestAbort
            | ToClientTunnel::WebSocketMessage { .. }
            | ToClientTunnel::WebSocketClose { .. } => self.tunnel.streams.get(&id.stream).map(|stream| stream.life),
        }
    }

    pub(super) fn tunnel_message(&mut self, id: MessageId, message: ToClientTunnel, now: Instant) {
        match message {
            ToClientTunnel::RequestStart { actor_id, method, path, headers, body, stream: more } => {
                let Some((actor, life)) = self.admitting(&actor_id) else {
                    return self.send_tunnel(id.stream, 0, not_taken());
                };
                let kind = Kind::Request { head: &*method == "HEAD" };
                let stream = self.open_stream(id.stream, actor.clone(), life, kind);
                let features = self.link.features;
                let credit = features.credit;
                if let Some(open) = self.tunnel.streams.get_mut(&id.stream) {
                    open.credit = credit;
                    open.upload = (credit && more).then(Window::default);
                }
                let first = body.as_ref().map_or(0, Bytes::len);
                let headers = headers::split(headers, features);
                self.effects.push_back(Effect::Request { actor, stream, method, path, headers, body, more, credit });
                if more && first > 0 {
                    self.count_upload(id.stream, first, false);
                }
            }
            ToClientTunnel::RequestChunk { body, finish } => self.request_chunk(id.stream, body, finish),
            ToClientTunnel::RequestAbort => {
                if self.tunnel.request(id.stream).is_some() {
                    self.cancel(id.stream);
                }
            }
            ToClientTunnel::WebSocketOpen { actor_id, path, headers } => {
                let Some((actor, life)) = self.admitting(&actor_id) else {
                    return self.send_tunnel(id.stream, 0, websocket_close(1011, "Actor not found"));
                };
                // A retried open may have any index; what follows counts on from it.
                let kind = Kind::WebSocket { last_in: id.index, lasting: self.lasting_before(id, &actor) };
                let stream = self.open_stream(id.stream, actor.clone(), life, kind);
                let headers = headers::split(headers, self.link.features);
                self.effects.push_back(Effect::WebSocket { actor, stream, path, headers, index: id.index });
            }
            ToClientTunnel::WebSocketMessage { data, binary } => self.websocket_message(id, data, binary, now),
            ToClientTunnel::WebSocketClose { code, reason } => self.websocket_closed(id.stream, code, reason),
        }
    }

    pub(super) fn reply(&mut self, stream: StreamKey, reply: StreamReply) {
        let id = stream.id;
        let Some(stream) = self.tunnel.streams.get_mut(&id).filter(|open| open.opening == stream.opening) else {
            // Late, from an abandoned try or from a life that is over: the stream belongs to nobody or to somebody else.
            return;
        };
        match (reply, &stream.kind) {
            (StreamReply::Response { status, headers, body, more }, &Kind::Request { head }) => {
                self.response(id, outgoing::Head { status, headers, head }, body, more);
            }
            (StreamReply::Chunk { body, finish }, Kind::Streaming | Kind::Collecting(_)) => {
                self.response_chunk(id, body, finish);
            }
            (StreamReply::Grant, Kind::Request { .. } | Kind::Streaming) => {
                if stream.upload.as_mut().is_some_and(Window::grant) {
                    self.continue_stream(id, ToServerTunnel::ResponseChunk { body: Bytes::new(), finish: false });
                }
            }
            (StreamReply::Abort, Kind::Request { .. } | Kind::Streaming | Kind::Collecting(_)) => {
                self.finish_stream(id, ToServerTunnel::ResponseAbort);
            }
            (StreamReply::Open { can_hibernate }, Kind::WebSocket { .. }) => {
                self.continue_stream(id, ToServerTunnel::WebSocketOpen { can_hibernate });
                if can_hibernate {
                    self.make_lasting(id);
                }
            }
            (StreamReply::Message { data, .. }, Kind::WebSocket { .. }) if data.len() > PAYLOAD_MAX => {
                self.close_websocket(id, 1009, "the actor's message is larger than 20 MiB");
            }
            (StreamReply::Message { data, binary }, Kind::WebSocket { .. }) => {
                self.continue_stream(id, ToServerTunnel::WebSocketMessage { data, binary });
            }
            (StreamReply::MessageAck { index }, Kind::WebSocket { .. }) => self.taken(id, index),
            (StreamReply::Close { code, reason }, Kind::WebSocket { .. }) => {
                let reason = reason.map(|reason| ByteString::from(close::clip(&reason)));
                let code = Some(close::sendable_code(code));
                self.finish_stream(id, ToServerTunnel::WebSocketClose { code, reason, hibernate: false });
            }
            // Answers of a kind that the stream does not take, or not now.
            (
                StreamReply::Response { .. }
                | StreamReply::Chunk { .. }
                | StreamReply::Grant
                | StreamReply::Abort
                | StreamReply::Open { .. }
                | StreamReply::Message { .. }
                | StreamReply::MessageAck { .. }
                | StreamReply::Close { .. },
                Kind::Request { .. } | Kind::Streaming | Kind::Collecting(_) | Kind::WebSocket { .. },
            ) => {}
        }
    }

    /// Ends every stream of a life, with a word to each client. Comes before the life's end is told. Sockets that
    /// outlive it, if any does, were taken away before.
    pub(super) fn close_streams_of(&mut self, actor: &ActorKey) {
        for id in self.streams_of(actor) {
            self.close_websocket(id, 1000, "actor.stopped");
            self.abort_request(id);
        }
    }

    /// The connection broke: bodies on their way in either direction are broken off, since nobody knows which of their
    /// pieces and grants were lost with it.
    pub(super) fn break_bodies_off(&mut self) {
        let broken =
            |stream: &Stream| stream.upload.is_some() || (stream.credit && matches!(stream.kind, Kind::Streaming));
        for id in self.tunnel.ids(broken) {
            self.abort_request(id);
        }
    }

    /// Ends every stream without a word: the gateway is gone or has forgotten them.
    pub(super) fn drop_streams(&mut self) {
        for id in self.tunnel.ids(|_| true) {
            self.cancel(id);
        }
        self.tunnel.offline.clear();
        self.tunnel.offline_bytes = 0;
        self.tunnel.held_bytes = 0;
        self.hibernation = Hibernation::default();
    }

    /// The streams of a life.
    pub(super) fn streams_of(&self, actor: &ActorKey) -> Vec<StreamId> {
        self.actors.life(actor).map_or_else(Vec::new, |life| self.tunnel.of_life(life.number))
    }

    /// The newest life of the actor and its number, when it takes requests and there is room for one more stream.
    fn admitting(&self, actor_id: &str) -> Option<(ActorKey, u64)> {
        let life = self.actors.newest(actor_id)?;
        (life.admits() && self.tunnel.streams.len() < STREAMS_MAX).then(|| (life.key.clone(), life.number))
    }

    /// Opens a stream; an older one under the same id was given up by the gateway.
    pub(super) fn open_stream(&mut self, id: StreamId, actor: ActorKey, life: u64, kind: Kind) -> StreamKey {
        self.cancel(id);
        self.socket_opened(id);
        self.tunnel.add(id, actor, life, kind)
    }

    fn request_chunk(&mut self, id: StreamId, body: Bytes, finish: bool) {
        let Some(stream) = self.tunnel.request(id) else { return };
        if body.is_empty() && !finish && self.tunnel.streams.get(&id).is_some_and(|open| open.credit) {
            return self.effects.push_back(Effect::Granted { stream });
        }
        if self.count_upload(id, body.len(), finish) {
            self.effects.push_back(Effect::RequestChunk { stream, body, finish });
        }
    }

    /// Counts a piece of a request's body. A gateway that ignores its credit loses the stream.
    fn count_upload(&mut self, id: StreamId, bytes: usize, finish: bool) -> bool {
        let Some(open) = self.tunnel.streams.get_mut(&id) else { return false };
        let fits = open.upload.as_mut().is_none_or(|window| window.came(bytes, finish).is_ok());
        if finish {
            open.upload = None;
        }
        if !fits {
            self.abort_request(id);
        }
        fits
    }

    pub(super) fn cancel(&mut self, id: StreamId) {
        if let Some(stream) = self.tunnel.remove(id) {
            self.effects.push_back(Effect::Cancel { stream: StreamKey { id, opening: stream.opening } });
        }
    }

    fn websocket_message(&mut self, id: MessageId, data: Bytes, binary: bool, now: Instant) {
        let Some(Stream { kind: Kind::WebSocket { last_in, lasting }, opening, .. }) =
            self.tunnel.streams.get_mut(&id.stream)
        else {
            return self.stray_message(id.stream);
        };
        if lasting.is_some() {
            return self.lasting_message(id, data, binary, now);
        }
        if id.index == serial::next(*last_in) {
            *last_in = id.index;
            let stream = StreamKey { id: id.stream, opening: *opening };
            self.effects.push_back(Effect::WebSocketMessage { stream, data, binary, index: id.index });
        } else if serial::newer(id.index, *last_in) {
            // Messages were lost on the way, for example while we were disconnected. An actor that believes to have
            // read everything would be worse off than one whose client has to come back.
            self.close_websocket(id.stream, 1008, MESSAGES_LOST);
        }
    }

    fn abort_request(&mut self, id: StreamId) {
        let Some(stream) = self.tunnel.request(id) else { return };
        self.effects.push_back(Effect::Cancel { stream });
        self.finish_stream(id, ToServerTunnel::ResponseAbort);
    }

    pub(super) fn close_websocket(&mut self, id: StreamId, code: u16, reason: &'static str) {
        let Some(stream) = self.tunnel.websocket(id) else { return };
        let told = Some(ByteString::from_static(reason));
        self.effects.push_back(Effect::WebSocketClosed { stream, code: Some(code), reason: told });
        self.finish_stream(id, websocket_close(code, reason));
    }
}

/// The answer to a request that no actor here was given. Gateways try it again, because it says that nothing ran; an
/// abort does not say so.
fn not_taken() -> ToServerTunnel {
    let header = |name, value| (ByteString::from_static(name), ByteString::from_static(value));
    ToServerTunnel::ResponseStart {
        status: 503,
        headers: vec![
            header("x-rivet-error", "guard.service_unavailable"),
            header("content-type", "text/plain"),
            header("retry-after", "1"),
        ],
        body: Some(Bytes::from_static(b"The actor is not on this runner, or stops.\n")),
        stream: false,
    }
}

pub(super) fn websocket_close(code: u16, reason: &'static str) -> ToServerTunnel {
    ToServerTunnel::WebSocketClose { code: Some(code), reason: Some(ByteString::from_static(reason)), hibernate: false }
}

/// What the client of a socket is told of which messages were lost.
pub(super) const MESSAGES_LOST: &str = "ws.message_index_skip";

/// The most requests and sockets open at once. Beyond it the gateway is told to try again, as for an actor that is not
/// here.
pub(super) const STREAMS_MAX: usize = 65_536;
