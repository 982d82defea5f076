//! What a client sends before its actor has taken the socket.

use std::collections::VecDeque;

use bytes::Bytes;
use bytestring::ByteString;
use futures_util::{Stream, StreamExt};
use greenroom_protocol::close::sendable_code;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::error::{CapacityError, Error, ProtocolError};

use super::{Ending, GATEWAY_FAILURE};
use crate::gateway::{Id, StreamUp};

/// Frames in order, the close frame last.
#[derive(Debug, Default)]
pub(super) struct Early {
    frames: VecDeque<StreamUp>,
    bytes: usize,
}

/// What a client did.
#[derive(Debug)]
pub(super) enum ClientSaid {
    /// It sent this.
    Frame(StreamUp),
    /// It closed the socket, or is gone. This is what the actor is told of it.
    Goodbye(StreamUp),
    /// It sent something that cannot be taken.
    Unreadable(Ending),
}

impl Early {
    /// The most frames that are kept.
    const FRAMES_MAX: usize = 1024;

    /// The most bytes that are kept.
    const BYTES_MAX: usize = 16 * 1024 * 1024;

    /// Keeps a frame.
    ///
    /// # Errors
    /// How the socket ends when the client sends more than is kept.
    pub(super) fn keep(&mut self, frame: StreamUp, ray: Id) -> Result<(), Ending> {
        let size = match &frame {
            StreamUp::Message { data, .. } => data.len(),
            StreamUp::Chunk { .. } | StreamUp::Close { .. } => 0,
        };
        self.bytes += size;
        if self.frames.len() >= Self::FRAMES_MAX || self.bytes > Self::BYTES_MAX {
            return Err(Ending::named(POLICY, "guard.websocket_pending_limit_reached", ray));
        }
        self.frames.push_back(frame);
        Ok(())
    }

    /// Whether nothing was sent.
    pub(super) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// The next frame, oldest first.
    pub(super) fn take(&mut self) -> Option<StreamUp> {
        self.frames.pop_front()
    }
}

/// Waits for the client's next word. Pings are answered by the socket itself.
pub(super) async fn listen(client: &mut (impl Stream<Item = Result<Message, Error>> + Unpin), ray: &Id) -> ClientSaid {
    loop {
        match client.next().await {
            Some(Ok(Message::Text(text))) => {
                return ClientSaid::Frame(StreamUp::Message { data: Bytes::from(text), binary: false });
            }
            Some(Ok(Message::Binary(data))) => {
                return ClientSaid::Frame(StreamUp::Message { data, binary: true });
            }
            Some(Ok(Message::Close(frame))) => {
                let (code, reason) = match frame {
                    Some(frame) => (sendable_code(Some(frame.code.into())), Some(ByteString::from(&*frame.reason))),
                    None => (1000, None),
                };
                return ClientSaid::Goodbye(StreamUp::Close { code: Some(code), reason });
            }
            Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
            Some(Err(Error::Capacity(CapacityError::MessageTooLong { .. }))) => {
                let reason = format!("guard.websocket_message_too_large#{ray}");
                return ClientSaid::Unreadable(Ending::Unreadable(GATEWAY_FAILURE, reason));
            }
            Some(Err(Error::Utf8(_))) => {
                return ClientSaid::Unreadable(Ending::Unreadable(1007, format!("ws.invalid_utf8#{ray}")));
            }
            Some(Err(Error::Protocol(ProtocolError::ResetWithoutClosingHandshake))) => {
                return ClientSaid::Goodbye(gone());
            }
            Some(Err(Error::Protocol(_))) => {
                return ClientSaid::Unreadable(Ending::Unreadable(1002, format!("ws.protocol_error#{ray}")));
            }
            Some(Err(_)) | None => return ClientSaid::Goodbye(gone()),
        }
    }
}

/// What an actor is told of a client that left without a word.
pub(super) fn gone() -> StreamUp {
    StreamUp::Close { code: Some(GATEWAY_FAILURE), reason: Some(ByteString::from_static("ws.downstream_closed")) }
}

/// The close code for a client that does what is not allowed.
const POLICY: u16 = 1008;

#[cfg(test)]
mod tests {
    use super::*;

    fn message(size: usize) -> StreamUp {
        StreamUp::Message { data: Bytes::from(vec![0; size]), binary: true }
    }

    #[test]
    fn frames_are_kept_in_order_up_to_a_bound() {
        let ray = Id::from_random([0; 16]);
        let mut early = Early::default();
        for size in 0..Early::FRAMES_MAX {
            early.keep(message(size % 10), ray).expect("room");
        }
        assert!(early.keep(message(1), ray).is_err());
        assert_eq!(early.take(), Some(message(0)));
        assert_eq!(early.take(), Some(message(1)));
    }

    #[test]
    fn bytes_are_bounded_too() {
        let ray = Id::from_random([0; 16]);
        let mut early = Early::default();
        early.keep(message(Early::BYTES_MAX), ray).expect("room");
        assert!(early.keep(message(1), ray).is_err());
    }
}
