//! Answers on their way out: whole or in chunks, within limits, kept for a while when the gateway is away.

use bytes::{Bytes, BytesMut};
use bytestring::ByteString;
use greenroom_protocol::limits::PAYLOAD_MAX;
use greenroom_protocol::{Headers, MessageId, StreamId, ToServer, ToServerTunnel, headers, serial};

use super::{Kind, Stream, websocket_close};
use crate::session::{Effect, Session};

/// A response but for its body.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) status: u16,
    pub(super) headers: Headers,
    /// It answers a request for headers only.
    pub(super) head: bool,
}

/// A response that is being collected, because the gateway takes whole ones only.
#[derive(Debug)]
pub(in crate::session) struct Collected {
    head: Head,
    body: BytesMut,
}

impl Collected {
    pub(super) fn len(&self) -> usize {
        self.body.len()
    }
}

impl Session {
    pub(super) fn response(&mut self, id: StreamId, mut head: Head, body: Bytes, more: bool) {
        head.headers = headers::join(head.headers, self.link.features);
        if !more && body.len() <= PAYLOAD_MAX {
            return self.finish_stream(id, whole(head, body));
        }
        let streams = self.link.features.stream;
        let Some(stream) = self.tunnel.streams.get_mut(&id) else { return };
        if streams {
            stream.kind = Kind::Streaming;
            let Head { status, headers, .. } = head;
            self.continue_stream(id, ToServerTunnel::ResponseStart { status, headers, body: None, stream: true });
        } else {
            stream.kind = Kind::Collecting(Box::new(Collected { head, body: BytesMut::new() }));
        }
        self.response_chunk(id, body, !more);
    }

    pub(super) fn response_chunk(&mut self, id: StreamId, mut piece: Bytes, finish: bool) {
        let Some(stream) = self.tunnel.streams.get_mut(&id) else { return };
        match &mut stream.kind {
            Kind::Request { .. } | Kind::WebSocket { .. } => {}
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
            Kind::Collecting(collected) => {
                if collected.len() + piece.len() > PAYLOAD_MAX {
                    return self.refuse_response(id, 502, TOO_LARGE);
                }
                if self.tunnel.collected_bytes + piece.len() > COLLECTED_MAX {
                    return self.refuse_response(id, 503, TOO_MANY);
                }
                self.tunnel.collected_bytes += piece.len();
                collected.body.extend_from_slice(&piece);
                if finish {
                    self.finish_collected(id);
                }
            }
        }
    }

    /// Sends the last message of a stream.
    pub(in crate::session) fn finish_stream(&mut self, id: StreamId, message: ToServerTunnel) {
        match self.tunnel.remove(id) {
            Some(stream) if stream.is_held_back() => self.bid_farewell(id, stream, message),
            Some(stream) => self.send_tunnel(id, stream.next_out, message),
            None => {}
        }
    }

    /// Sends a message of a stream that goes on.
    pub(in crate::session) fn continue_stream(&mut self, id: StreamId, message: ToServerTunnel) {
        if let Some(stream) = self.tunnel.streams.get_mut(&id) {
            if stream.is_held_back() {
                return self.hold_back(id, message);
            }
            let index = stream.next_out;
            stream.next_out = serial::next(index);
            self.send_tunnel(id, index, message);
        }
    }

    /// Sends a message, or keeps it until the gateway is back.
    pub(in crate::session) fn send_tunnel(&mut self, id: StreamId, index: u16, mut message: ToServerTunnel) {
        let tunnel = |message| ToServer::Tunnel { id: MessageId { stream: id, index }, message };
        if self.link.is_open() {
            self.effects.push_back(Effect::Send(tunnel(message)));
            return;
        }
        if self.link.is_gone() {
            return;
        }
        let full = self.tunnel.offline.len() >= OFFLINE_MESSAGES_MAX
            || self.tunnel.offline_bytes + weight(&message) > OFFLINE_BYTES_MAX;
        if full {
            // The stream cannot go on without a gap, so it ends here. Its last word is kept all the same: no streams
            // open while the gateway is away, so there is one at most for each that was open.
            self.drop_unsendable(id, 1013, AWAY_TOO_LONG);
            message = last_word(message);
        }
        self.tunnel.offline_bytes += weight(&message);
        self.tunnel.offline.push_back(tunnel(message));
    }

    /// Sends what was kept while the gateway was away.
    pub(in crate::session) fn resend_tunnel(&mut self) {
        self.tunnel.offline_bytes = 0;
        self.effects.extend(std::mem::take(&mut self.tunnel.offline).into_iter().map(Effect::Send));
    }

    fn finish_collected(&mut self, id: StreamId) {
        if let Some(Stream { next_out, kind: Kind::Collecting(collected), .. }) = self.tunnel.remove(id) {
            let Collected { head, body } = *collected;
            self.send_tunnel(id, next_out, whole(head, body.freeze()));
        }
    }

    /// Answers in the actor's stead, once, and lets the actor know that it may stop.
    fn refuse_response(&mut self, id: StreamId, status: u16, why: &'static str) {
        if let Some(stream) = self.tunnel.request(id) {
            self.effects.push_back(Effect::Cancel { stream });
        }
        let headers = vec![(ByteString::from_static("content-type"), ByteString::from_static("text/plain"))];
        let body = Some(Bytes::from_static(why.as_bytes()));
        self.finish_stream(id, ToServerTunnel::ResponseStart { status, headers, body, stream: false });
    }
}

/// A response in one piece.
fn whole(Head { status, mut headers, head }: Head, body: Bytes) -> ToServerTunnel {
    let bodiless = head || status == 304;
    if !(bodiless && body.is_empty()) {
        fit_length(&mut headers, body.len());
    }
    let body = (!body.is_empty()).then_some(body);
    ToServerTunnel::ResponseStart { status, headers, body, stream: false }
}

/// What ends a stream in place of a message that could not be kept.
fn last_word(message: ToServerTunnel) -> ToServerTunnel {
    match message {
        ToServerTunnel::ResponseStart { .. } | ToServerTunnel::ResponseChunk { .. } | ToServerTunnel::ResponseAbort => {
            ToServerTunnel::ResponseAbort
        }
        ToServerTunnel::WebSocketOpen { .. }
        | ToServerTunnel::WebSocketMessage { .. }
        | ToServerTunnel::WebSocketMessageAck { .. } => websocket_close(1013, AWAY_TOO_LONG),
        close @ ToServerTunnel::WebSocketClose { .. } => close,
    }
}

/// What a kept message costs, about.
pub(in crate::session) fn weight(message: &ToServerTunnel) -> usize {
    let content = match message {
        ToServerTunnel::ResponseStart { body, headers, .. } => {
            let headers: usize = headers.iter().map(|(name, value)| name.len() + value.len() + 64).sum();
            headers + body.as_ref().map_or(0, Bytes::len)
        }
        ToServerTunnel::ResponseChunk { body, .. } => body.len(),
        ToServerTunnel::WebSocketMessage { data, .. } => data.len(),
        ToServerTunnel::ResponseAbort
        | ToServerTunnel::WebSocketOpen { .. }
        | ToServerTunnel::WebSocketMessageAck { .. }
        | ToServerTunnel::WebSocketClose { .. } => 0,
    };
    content + 256
}

const AWAY_TOO_LONG: &str = "the gateway was away for too long";
const TOO_LARGE: &str = "The actor's response is larger than 20 MiB, which is the most that this gateway's protocol \
                         carries in one piece.\n";
const TOO_MANY: &str = "The runner holds as much of unfinished responses as it may. Try again later.\n";

/// Larger pieces of a streamed body are cut into chunks of this size, so that other streams get their turn.
const CHUNK: usize = 256 * 1024;
/// The bytes of all responses together that are collected at once: a dozen of the largest.
const COLLECTED_MAX: usize = 256 * 1024 * 1024;
/// The most messages kept while the gateway is away.
const OFFLINE_MESSAGES_MAX: usize = 65_536;
/// The most bytes kept while the gateway is away.
const OFFLINE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Corrects a wrong content length: gateways pass it on as it is, and a client would wait for what never comes or take
/// the rest for the next response.
fn fit_length(headers: &mut Headers, length: usize) {
    for (_, value) in headers.iter_mut().filter(|(name, _)| name.eq_ignore_ascii_case("content-length")) {
        if value.parse() != Ok(length) {
            *value = ByteString::from(length.to_string());
        }
    }
}
