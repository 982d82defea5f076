//! The runner's end of open streams: the tasks that serve them and the ways to feed them.

use bytes::Bytes;
use tokio::sync::mpsc::error::TrySendError;

use crate::credit::Credit;
use crate::host::{BodyError, BodySender, Frame, StreamKey, StreamTask, WebSocketFeed};
use crate::number_map::NumberMap;

/// Open streams. Only the driver holds it.
#[derive(Debug, Default)]
pub(super) struct Streams {
    open: NumberMap<StreamKey, Open>,
}

#[derive(Debug)]
struct Open {
    task: StreamTask,
    feed: Feed,
    /// What the response travels on.
    credit: Option<Credit>,
}

/// What an open stream takes from its client.
#[derive(Debug)]
pub(super) enum Feed {
    /// Nothing more.
    Nothing,
    /// The rest of the request's body.
    Body(BodySender),
    /// Frames.
    Frames(WebSocketFeed),
}

/// The actor does not keep up with its client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Behind;

impl Streams {
    /// No more can be open at once.
    pub(super) fn is_full(&self) -> bool {
        self.open.len() >= OPEN_MAX
    }

    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    pub(super) fn add(&mut self, key: StreamKey, task: StreamTask, feed: Feed, credit: Option<Credit>) {
        self.open.insert(key, Open { task, feed, credit });
    }

    /// The client has taken some of the response.
    pub(super) fn granted(&mut self, key: StreamKey) {
        if let Some(credit) = self.open.get(&key).and_then(|open| open.credit.as_ref()) {
            credit.grant();
        }
    }

    /// The stream has its last answer.
    pub(super) fn finish(&mut self, key: StreamKey) {
        self.open.remove(&key);
    }

    /// Nobody waits for the stream any more.
    pub(super) fn cancel(&mut self, key: StreamKey) {
        if let Some(open) = self.open.remove(&key) {
            if let Feed::Body(body) = &open.feed {
                // A full body is cut by the end of its channel as well.
                let _ = body.try_send(Err(BodyError));
            }
            open.task.cancel();
        }
    }

    /// Hands on a piece of a request's body.
    pub(super) fn body(&mut self, key: StreamKey, piece: Bytes, finish: bool) -> Result<(), Behind> {
        let Some(open) = self.open.get_mut(&key) else { return Ok(()) };
        let Feed::Body(body) = &open.feed else { return Ok(()) };
        // The end is told by an empty piece.
        let pieces = [(!piece.is_empty()).then_some(piece), finish.then(Bytes::new)];
        for piece in pieces.into_iter().flatten() {
            match body.try_send(Ok(piece)) {
                // An actor that does not read its request's body is free to do so.
                Ok(()) | Err(TrySendError::Closed(_)) => {}
                Err(TrySendError::Full(_)) => return Err(Behind),
            }
        }
        if finish {
            open.feed = Feed::Nothing;
        }
        Ok(())
    }

    /// Hands on a frame; after [`Frame::Closed`] the stream is done on this side.
    pub(super) fn frame(&mut self, key: StreamKey, frame: Frame) -> Result<(), Behind> {
        let Some(open) = self.open.get(&key) else { return Ok(()) };
        let Feed::Frames(frames) = &open.feed else { return Ok(()) };
        let last = matches!(frame, Frame::Closed { .. });
        let sent = frames.try_send(frame);
        if last {
            self.open.remove(&key);
            return Ok(());
        }
        match sent {
            Ok(()) | Err(TrySendError::Closed(_)) => Ok(()),
            Err(TrySendError::Full(_)) => Err(Behind),
        }
    }
}

/// Requests and sockets open at once, beyond which new ones are refused: far more than any gateway has clients for one
/// runner, and few enough for the memory of a small machine.
const OPEN_MAX: usize = 262_144;
