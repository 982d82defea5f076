//! Messages on streams that nobody knows any more: their client is gone, or an earlier gateway held it.

use std::collections::VecDeque;

use greenroom_protocol::{MessageId, StreamId, ToClient, ToClientTunnel, ToServerTunnel};

use super::tunnel::close_runner;
use super::{ConnectionId, Core};

/// The strays that were answered last, so that a stream is not ended with every message of it.
#[derive(Debug, Default)]
pub(super) struct Strays(VecDeque<StreamId>);

impl Core {
    /// Tells a runner that goes on with a stream for nobody to stop.
    pub(super) fn end_stray(&mut self, connection: ConnectionId, id: MessageId, message: &ToServerTunnel) {
        let ours = id.stream.gateway == self.settings.gateway_id;
        let answer = match message {
            ToServerTunnel::ResponseStart { stream: true, .. }
            | ToServerTunnel::ResponseChunk { finish: false, .. } => ToClientTunnel::RequestAbort,
            // Of every socket of its own this gateway has told the end; that may still be on its way to the actor.
            ToServerTunnel::WebSocketOpen { .. }
            | ToServerTunnel::WebSocketMessage { .. }
            | ToServerTunnel::WebSocketMessageAck { .. }
                if ours =>
            {
                return;
            }
            ToServerTunnel::WebSocketOpen { .. }
            | ToServerTunnel::WebSocketMessage { .. }
            | ToServerTunnel::WebSocketMessageAck { .. } => close_runner(1011, "ws.downstream_closed"),
            // These are the last of their stream.
            ToServerTunnel::ResponseStart { stream: false, .. }
            | ToServerTunnel::ResponseChunk { finish: true, .. }
            | ToServerTunnel::ResponseAbort
            | ToServerTunnel::WebSocketClose { .. } => return,
        };
        if self.strays.0.contains(&id.stream) {
            return;
        }
        if self.strays.0.len() >= REMEMBERED {
            self.strays.0.pop_front();
        }
        self.strays.0.push_back(id.stream);
        // Nobody knows how far its indexes had come; the end of a stream needs none.
        let id = MessageId { stream: id.stream, index: 0 };
        self.send_now(connection, ToClient::Tunnel { id, message: answer });
    }
}

/// Enough for the streams that end at about the same time.
const REMEMBERED: usize = 64;
