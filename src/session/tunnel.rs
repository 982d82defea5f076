//! Requests and sockets of clients, each tied to the actor life it was opened to.

mod headers;
mod outgoing;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::{Bytes, BytesMut};
use bytestring::ByteString;
use greenroom_protocol::limits::PAYLOAD_MAX;
use greenroom_protocol::{Headers, MessageId, StreamId, ToClientTunnel, ToServer, ToServerTunnel, close, serial};

use crate::actor::ActorKey;
use crate::session::{Effect, Session};
use crate::stream::StreamReply;

/// Open streams, and what could not be sent while the gateway is away.
#[derive(Debug, Default)]
pub(super) struct Tunnel {
    streams: BTreeMap<StreamId, Stream>,
    by_actor: BTreeMap<ActorKey, BTreeSet<StreamId>>,
    offline: VecDeque<ToServer>,
    offline_bytes: usize,
}

#[derive(Debug)]
struct Stream {
    actor: ActorKey,
    next_out: u16,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    /// No response has begun.
    Request,
    /// The response goes out in chunks.
    Streaming,
    /// The gateway takes whole responses only: this one is being collected.
    Collecting { status: u16, headers: Headers, body: BytesMut },
    /// A socket, with the index of the client's last message.
    WebSocket { last_in: u16 },
}

impl Tunnel {
    fn add(&mut self, id: StreamId, stream: Stream) {
        self.by_actor.entry(stream.actor.clone()).or_default().insert(id);
        self.streams.insert(id, stream);
    }

    fn remove(&mut self, id: StreamId) -> Option<Stream> {
        let stream = self.streams.remove(&id)?;
        if let Some(streams) = self.by_actor.get_mut(&stream.actor) {
            streams.remove(&id);
            if streams.is_empty() {
                self.by_actor.remove(&stream.actor);
            }
        }
        Some(stream)
    }
}

impl Session {
    pub(super) fn tunnel_message(&mut self, id: MessageId, message: ToClientTunnel) {
        let stream = id.stream;
        match message {
            ToClientTunnel::RequestStart { actor_id, method, path, headers, body, stream: more } => {
                let Some(actor) = self.admitting(&actor_id) else {
                    return self.send_tunnel(stream, 0, ToServerTunnel::ResponseAbort);
                };
                self.replace_stream(stream, Stream { actor: actor.clone(), next_out: 0, kind: Kind::Request });
                let headers = headers::split(headers, self.link.features);
                self.effects.push_back(Effect::Request { actor, stream, method, path, headers, body, more });
            }
            ToClientTunnel::RequestChunk { body, finish } => {
                if self.tunnel.streams.contains_key(&stream) {
                    self.effects.push_back(Effect::RequestChunk { stream, body, finish });
                }
            }
            ToClientTunnel::RequestAbort => self.cancel(stream),
            ToClientTunnel::WebSocketOpen { actor_id, path, headers } => {
                let Some(actor) = self.admitting(&actor_id) else {
                    return self.send_tunnel(stream, 0, websocket_close(1011, "Actor not found"));
                };
                // A retried open may have any index; what follows counts on from it.
                let kind = Kind::WebSocket { last_in: id.index };
                self.replace_stream(stream, Stream { actor: actor.clone(), next_out: 0, kind });
                let headers = headers::split(headers, self.link.features);
                self.effects.push_back(Effect::WebSocket { actor, stream, path, headers });
            }
            ToClientTunnel::WebSocketMessage { data, binary } => self.websocket_message(id, data, binary),
            ToClientTunnel::WebSocketClose { code, reason } => {
                if self.tunnel.remove(stream).is_some() {
                    self.effects.push_back(Effect::WebSocketClosed { stream, code, reason });
                }
            }
        }
    }

    pub(super) fn reply(&mut self, actor: &ActorKey, id: StreamId, reply: StreamReply) {
        let Some(stream) = self.tunnel.streams.get_mut(&id).filter(|stream| stream.actor == *actor) else {
            // Late, or from a life that is over: the stream belongs to nobody or to somebody else now.
            return;
        };
        match reply {
            StreamReply::Response { status, headers, body, more } => match stream.kind {
                Kind::Request => self.response(id, status, headers, body, more),
                Kind::Streaming | Kind::Collecting { .. } | Kind::WebSocket { .. } => {}
            },
            StreamReply::Chunk { body, finish } => self.response_chunk(id, body, finish),
            StreamReply::Abort => match stream.kind {
                Kind::Request | Kind::Streaming | Kind::Collecting { .. } => {
                    self.finish_stream(id, ToServerTunnel::ResponseAbort);
                }
                Kind::WebSocket { .. } => {}
            },
            StreamReply::Open { can_hibernate } => match stream.kind {
                Kind::WebSocket { .. } => self.continue_stream(id, ToServerTunnel::WebSocketOpen { can_hibernate }),
                Kind::Request | Kind::Streaming | Kind::Collecting { .. } => {}
            },
            StreamReply::Message { data, binary } => match stream.kind {
                Kind::WebSocket { .. } if data.len() > PAYLOAD_MAX => {
                    self.close_websocket(id, 1009, "the actor's message is larger than 20 MiB");
                }
                Kind::WebSocket { .. } => {
                    self.continue_stream(id, ToServerTunnel::WebSocketMessage { data, binary });
                }
                Kind::Request | Kind::Streaming | Kind::Collecting { .. } => {}
            },
            StreamReply::MessageAck { index } => match stream.kind {
                Kind::WebSocket { .. } => {
                    self.continue_stream(id, ToServerTunnel::WebSocketMessageAck { index });
                }
                Kind::Request | Kind::Streaming | Kind::Collecting { .. } => {}
            },
            StreamReply::Close { code, reason } => match stream.kind {
                Kind::WebSocket { .. } => {
                    let reason = reason.map(|reason| ByteString::from(close::clip(&reason)));
                    let code = Some(close::sendable_code(code));
                    self.finish_stream(id, ToServerTunnel::WebSocketClose { code, reason, hibernate: false });
                }
                Kind::Request | Kind::Streaming | Kind::Collecting { .. } => {}
            },
        }
    }

    /// Ends every stream of a life, with a word to each client. Comes before the life's end is told.
    pub(super) fn close_streams_of(&mut self, actor: &ActorKey) {
        let ids = self.tunnel.by_actor.get(actor).cloned().unwrap_or_default();
        for id in ids {
            let Some(stream) = self.tunnel.streams.get(&id) else { continue };
            match stream.kind {
                Kind::Request | Kind::Streaming | Kind::Collecting { .. } => {
                    self.effects.push_back(Effect::Cancel { stream: id });
                    self.finish_stream(id, ToServerTunnel::ResponseAbort);
                }
                Kind::WebSocket { .. } => self.close_websocket(id, 1000, "actor.stopped"),
            }
        }
    }

    /// Ends every stream without a word: the gateway is gone or has forgotten them.
    pub(super) fn drop_streams(&mut self) {
        for id in self.tunnel.streams.keys().copied().collect::<Vec<_>>() {
            self.cancel(id);
        }
        self.tunnel.offline.clear();
        self.tunnel.offline_bytes = 0;
    }

    /// The life that serves a stream.
    #[must_use]
    pub fn actor_of(&self, id: StreamId) -> Option<ActorKey> {
        self.tunnel.streams.get(&id).map(|stream| stream.actor.clone())
    }

    /// The newest life of the actor, when it takes requests.
    fn admitting(&self, actor_id: &str) -> Option<ActorKey> {
        let life = self.actors.newest(actor_id)?;
        life.admits().then(|| life.key.clone())
    }

    /// Opens a stream; an older one under the same id was given up by the gateway.
    fn replace_stream(&mut self, id: StreamId, stream: Stream) {
        self.cancel(id);
        self.tunnel.add(id, stream);
    }

    fn cancel(&mut self, id: StreamId) {
        if self.tunnel.remove(id).is_some() {
            self.effects.push_back(Effect::Cancel { stream: id });
        }
    }

    fn websocket_message(&mut self, id: MessageId, data: Bytes, binary: bool) {
        let Some(Stream { kind: Kind::WebSocket { last_in }, .. }) = self.tunnel.streams.get_mut(&id.stream) else {
            return;
        };
        if id.index == serial::next(*last_in) {
            *last_in = id.index;
            let effect = Effect::WebSocketMessage { stream: id.stream, data, binary, index: id.index };
            self.effects.push_back(effect);
        } else if serial::newer(id.index, *last_in) {
            // Messages were lost on the way, for example while we were disconnected. An actor that believes to have
            // read everything would be worse off than one whose client has to come back.
            self.close_websocket(id.stream, 1008, "ws.message_index_skip");
        }
    }

    fn close_websocket(&mut self, id: StreamId, code: u16, reason: &'static str) {
        let effect =
            Effect::WebSocketClosed { stream: id, code: Some(code), reason: Some(ByteString::from_static(reason)) };
        self.effects.push_back(effect);
        self.finish_stream(id, websocket_close(code, reason));
    }
}

fn websocket_close(code: u16, reason: &'static str) -> ToServerTunnel {
    ToServerTunnel::WebSocketClose { code: Some(code), reason: Some(ByteString::from_static(reason)), hibernate: false }
}
