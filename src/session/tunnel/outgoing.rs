//! Answers on their way out: whole or in chunks, within limits, kept for a while when the gateway is away.

use bytes::{Bytes, BytesMut};
use bytestring::ByteString;
use greenroom_protocol::limits::PAYLOAD_MAX;
use greenroom_protocol::{Headers, MessageId, StreamId, ToServer, ToServerTunnel, serial};

use super::{Kind, headers};
use crate::session::{Effect, Session};

impl Session {
    pub(super) fn response(&mut self, id: StreamId, status: u16, headers: Headers, body: Bytes, more: bool) {
        let headers = headers::join(headers, self.link.features);
        let streams = self.link.features.stream;
        if !more && body.len() <= PAYLOAD_MAX {
            let body = (!body.is_empty()).then_some(body);
            return self.finish_stream(id, ToServerTunnel::ResponseStart { status, headers, body, stream: false });
        }
        if streams {
            self.set_kind(id, Kind::Streaming);
            self.continue_stream(id, ToServerTunnel::ResponseStart { status, headers, body: None, stream: true });
        } else {
            self.set_kind(id, Kind::Collecting { status, headers, body: BytesMut::new() });
        }
        self.response_chunk(id, body, !more);
    }

    pub(super) fn response_chunk(&mut self, id: StreamId, mut piece: Bytes, finish: bool) {
        let Some(stream) = self.tunnel.streams.get_mut(&id) else { return };
        match &mut stream.kind {
            Kind::Request | Kind::WebSocket { .. } => {}
            Kind::Streaming => {
                while piece.len() > CHUNK {
                    let body = piece.split_to(CHUNK);
                    self.continue_stream(id, ToServerTunnel::ResponseChunk { body, finish: false });
                }
                match finish {
                    true => self.finish_stream(id, ToServerTunnel::ResponseChunk { body: piece, finish: true }),
                    false if piece.is_empty() => {}
                    false => self.continue_stream(id, ToServerTunnel::ResponseChunk { body: piece, finish: false }),
                }
            }
            Kind::Collecting { status, headers, body } => {
                if body.len() + piece.len() > PAYLOAD_MAX {
                    return self.response_too_large(id);
                }
                body.extend_from_slice(&piece);
                if finish {
                    let (status, headers, body) = (*status, std::mem::take(headers), std::mem::take(body).freeze());
                    let body = (!body.is_empty()).then_some(body);
                    self.finish_stream(id, ToServerTunnel::ResponseStart { status, headers, body, stream: false });
                }
            }
        }
    }

    /// Sends the last message of a stream.
    pub(super) fn finish_stream(&mut self, id: StreamId, message: ToServerTunnel) {
        if let Some(stream) = self.tunnel.remove(id) {
            self.send_tunnel(id, stream.next_out, message);
        }
    }

    /// Sends a message of a stream that goes on.
    pub(super) fn continue_stream(&mut self, id: StreamId, message: ToServerTunnel) {
        if let Some(stream) = self.tunnel.streams.get_mut(&id) {
            let index = stream.next_out;
            stream.next_out = serial::next(index);
            self.send_tunnel(id, index, message);
        }
    }

    /// Sends a message, or keeps it until the gateway is back.
    pub(super) fn send_tunnel(&mut self, stream: StreamId, index: u16, message: ToServerTunnel) {
        let bytes = weight(&message);
        let message = ToServer::Tunnel { id: MessageId { stream, index }, message };
        if self.link.is_open() {
            self.effects.push_back(Effect::Send(message));
            return;
        }
        if self.link.is_over() {
            return;
        }
        let full =
            self.tunnel.offline.len() >= OFFLINE_MESSAGES_MAX || self.tunnel.offline_bytes + bytes > OFFLINE_BYTES_MAX;
        if full {
            // The stream cannot be continued without a gap, so it ends here.
            if self.tunnel.remove(stream).is_some() {
                self.effects.push_back(Effect::Cancel { stream });
            }
            return;
        }
        self.tunnel.offline_bytes += bytes;
        self.tunnel.offline.push_back(message);
    }

    /// Sends what was kept while the gateway was away.
    pub(in crate::session) fn resend_tunnel(&mut self) {
        self.tunnel.offline_bytes = 0;
        self.effects.extend(std::mem::take(&mut self.tunnel.offline).into_iter().map(Effect::Send));
    }

    fn set_kind(&mut self, id: StreamId, kind: Kind) {
        if let Some(stream) = self.tunnel.streams.get_mut(&id) {
            stream.kind = kind;
        }
    }

    fn response_too_large(&mut self, id: StreamId) {
        self.effects.push_back(Effect::Cancel { stream: id });
        let headers = vec![(ByteString::from_static("content-type"), ByteString::from_static("text/plain"))];
        let body = Some(Bytes::from_static(TOO_LARGE.as_bytes()));
        self.finish_stream(id, ToServerTunnel::ResponseStart { status: 502, headers, body, stream: false });
    }
}

/// What a kept message costs, about.
fn weight(message: &ToServerTunnel) -> usize {
    let body = match message {
        ToServerTunnel::ResponseStart { body, .. } => body.as_ref().map_or(0, Bytes::len),
        ToServerTunnel::ResponseChunk { body, .. } => body.len(),
        ToServerTunnel::WebSocketMessage { data, .. } => data.len(),
        ToServerTunnel::ResponseAbort
        | ToServerTunnel::WebSocketOpen { .. }
        | ToServerTunnel::WebSocketMessageAck { .. }
        | ToServerTunnel::WebSocketClose { .. } => 0,
    };
    body + 256
}

const TOO_LARGE: &str = "The actor's response is larger than 20 MiB, which is the most that this gateway's protocol \
                         carries in one piece.\n";

/// Larger pieces of a streamed body are cut into chunks of this size, so that other streams get their turn.
const CHUNK: usize = 256 * 1024;
/// The most messages kept while the gateway is away.
const OFFLINE_MESSAGES_MAX: usize = 65_536;
/// The most bytes kept while the gateway is away.
const OFFLINE_BYTES_MAX: usize = 64 * 1024 * 1024;
