//! Bodies in pieces: the credit they travel on, and what a broken connection does to them.

use std::sync::Arc;

use bytes::Bytes;
use greenroom_protocol::ToClientTunnel;
use greenroom_protocol::credit::Window;

use super::{Kind, Stream};
use crate::gateway::core::{Core, Effect, StreamRef};
use crate::gateway::{GatewayError, TunnelEvent};

impl Stream {
    /// Counts what comes of a response; `false` when the runner ignores its credit.
    pub(super) fn has_credit_for(&mut self, event: &TunnelEvent) -> bool {
        let (bytes, more) = match event {
            TunnelEvent::Response { body, more, .. } => {
                self.download = (self.credit && *more).then(Window::default);
                match body {
                    Some(body) => (body.len(), *more),
                    None => return true,
                }
            }
            TunnelEvent::Chunk { body, finish } => (body.len(), !finish),
            TunnelEvent::Open { .. }
            | TunnelEvent::Message { .. }
            | TunnelEvent::Close { .. }
            | TunnelEvent::Failed(_) => return true,
        };
        let fits = self.download.as_mut().is_none_or(|window| window.came(bytes, !more).is_ok());
        if !more {
            self.download = None;
        }
        fits
    }

    /// Something of a body is under way, in either direction.
    fn carries_a_body(&self) -> bool {
        match self.kind {
            Kind::Request { uploads, .. } => self.credit && (uploads || self.download.is_some()),
            Kind::WebSocket { .. } | Kind::Over => false,
        }
    }
}

impl Core {
    /// The client has taken as much of the response as one grant is for.
    pub(in crate::gateway::core) fn client_took(&mut self, stream: StreamRef) {
        let Some(entry) = self.tunnel.streams.get_mut(&stream) else { return };
        if entry.download.as_mut().is_some_and(Window::grant) {
            self.send_to_runner(stream, ToClientTunnel::RequestChunk { body: Bytes::new(), finish: false });
        }
    }

    /// The runner gives credit for more of the request.
    pub(super) fn runner_took(&mut self, stream: StreamRef) {
        self.out.push(Effect::Granted { stream });
    }

    /// A runner ignores the credit it has: its response cannot be kept within bounds.
    pub(super) fn overrun(&mut self, stream: StreamRef) {
        let error = GatewayError::InvalidResponse("The actor's runner sent more of the response than it may.");
        self.deliver(stream, TunnelEvent::Failed(error));
        self.end(stream, ToClientTunnel::RequestAbort);
    }

    /// The connection broke: bodies on their way in either direction are broken off, since nobody knows which of their
    /// pieces and grants were lost with it. The runner does the same, and is told as soon as it is back.
    pub(in crate::gateway::core) fn break_bodies_off(&mut self, runner_id: &Arc<str>) {
        let Some(runner) = self.runners.by_id.get(runner_id) else { return };
        let actors = runner.actors.iter().filter_map(|id| self.directory.actors.get(id));
        let broken = actors
            .flat_map(|actor| &actor.streams)
            .filter(|stream| self.tunnel.streams.get(stream).is_some_and(Stream::carries_a_body))
            .copied();
        for stream in broken.collect::<Vec<_>>() {
            self.deliver(stream, TunnelEvent::Failed(GatewayError::TunnelClosed));
            self.end(stream, ToClientTunnel::RequestAbort);
        }
    }
}
