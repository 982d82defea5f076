//! What an actor wants of its sockets at any time.

use bytes::Bytes;
use greenroom_protocol::StreamId;
use greenroom_protocol::limits::PAYLOAD_MAX;

use super::outbox::Held;
use super::socket::Phase;
use super::{Effect, Instant, Outgoing, SocketError, SocketInfo, StreamReply, Table};

impl Table {
    /// The open sockets, those with the tag when one is given.
    pub(in crate::host::events) fn list(&self, tag: Option<&str>) -> Vec<SocketInfo> {
        let open = self.sockets.iter().filter(|(_, socket)| socket.is_open() && socket.has_tag(tag));
        open.map(|(id, socket)| socket.info(*id)).collect()
    }

    /// One open socket.
    pub(in crate::host::events) fn info(&self, id: StreamId) -> Result<SocketInfo, SocketError> {
        match self.sockets.get(&id) {
            Some(socket) if socket.is_open() => Ok(socket.info(id)),
            Some(socket) if matches!(socket.phase, Phase::Asked { .. }) => Err(SocketError::NotOpen),
            Some(_) | None => Err(SocketError::Unknown),
        }
    }

    /// Sends a frame, behind what is held back for the socket. One whose client is not there at the moment loses it.
    pub(in crate::host::events) fn send(&mut self, id: StreamId, frame: Outgoing) -> Result<(), SocketError> {
        self.info(id)?;
        if frame.data.len() > PAYLOAD_MAX {
            return Err(SocketError::TooLarge("a frame has at most 20 MiB"));
        }
        let Some(socket) = self.sockets.get_mut(&id) else { return Err(SocketError::Unknown) };
        if let Phase::Taken { .. } = socket.phase {
            return Err(SocketError::NotOpen);
        }
        let Some(stream) = socket.stream else { return Ok(()) };
        if socket.outbox.is_empty() {
            let reply = StreamReply::Message { data: frame.data, binary: frame.binary };
            self.effects.push_back(Effect::Reply { stream, reply });
        } else if socket.outbox.len() < OUTBOX_MAX {
            socket.outbox.hold(Held { ack: None, reply: Some(frame), close: None });
        } else {
            return Err(SocketError::Busy);
        }
        Ok(())
    }

    /// Sends a frame to every open socket, or to those with the tag; gives how many there are.
    pub(in crate::host::events) fn broadcast(
        &mut self,
        tag: Option<&str>,
        frame: &Outgoing,
    ) -> Result<usize, SocketError> {
        if frame.data.len() > PAYLOAD_MAX {
            return Err(SocketError::TooLarge("a frame has at most 20 MiB"));
        }
        let open = self.sockets.iter().filter(|(_, socket)| socket.is_open() && socket.has_tag(tag));
        let ids: Vec<StreamId> = open.map(|(id, _)| *id).collect();
        Ok(ids.into_iter().filter(|id| self.send(*id, frame.clone()).is_ok()).count())
    }

    /// Closes a socket, behind what is held back for it. The actor is told of the close like of any other.
    pub(in crate::host::events) fn close(
        &mut self,
        id: StreamId,
        code: u16,
        reason: &str,
        now: Instant,
    ) -> Result<(), SocketError> {
        self.info(id)?;
        match self.sockets.get_mut(&id).map(|socket| &mut socket.phase) {
            // It is closed when it has been opened.
            Some(Phase::Taken { close, .. }) => *close = Some((code, reason.into())),
            Some(Phase::Asked { .. } | Phase::Open | Phase::Ending(_)) | None => {
                self.end_by_us(id, code, reason, now);
            }
        }
        Ok(())
    }

    /// What is attached to a socket.
    pub(in crate::host::events) fn attachment(&self, id: StreamId) -> Result<Bytes, SocketError> {
        self.info(id).map(|info| info.attachment)
    }
}

/// What may wait for the storage on one socket; beyond it sends are refused.
const OUTBOX_MAX: usize = 1024;
