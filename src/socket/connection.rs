//! An open socket. It has no task of its own: whoever holds it writes and reads by waiting for it, so that a message
//! costs no wake-up between the wire and the runner.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::BytesMut;
use futures_util::{SinkExt, StreamExt};
use greenroom_protocol::{EncodeError, Features, ToClient, ToServer, Version, close};
use tokio::time::{Instant, Sleep, sleep_until, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message};
use tracing::{debug, warn};

use super::dial::{Patience, Stream};
use super::round_trip::RoundTrip;

/// An open socket. Dropped, it is gone without a goodbye.
///
/// It is written to and read from, and the gateway's pings are answered, only while [`Connection::receive`] or
/// [`Connection::eased`] is waited for; both may be given up at any time without loss.
#[derive(Debug)]
pub struct Connection {
    /// What the gateway grants beyond the protocol.
    pub granted: Features,
    socket: WebSocketStream<Box<dyn Stream>>,
    version: Version,
    /// What the socket has had no room for.
    outbox: VecDeque<Message>,
    outbox_bytes: usize,
    writing: Writing,
    /// What was received last was handed over before something was written.
    held_back: bool,
    /// The goodbye is in the outbox or written: what is said later is dropped.
    closing: bool,
    inbox: Vec<Received>,
    inbox_bytes: usize,
    reading: Reading,
    /// Since when the gateway has been listened to and said nothing.
    silent_since: Instant,
    silence: Duration,
    round_trip: RoundTrip,
    timer: Pin<Box<Sleep>>,
}

/// Something from the gateway.
#[derive(Debug)]
pub enum Received {
    /// A message.
    Message(ToClient),
    /// The socket is gone; nothing follows.
    Closed(Closed),
}

/// How a socket ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Closed {
    /// The gateway closed it.
    ByGateway {
        /// WebSocket close code.
        code: u16,
        /// WebSocket close reason.
        reason: String,
    },
    /// It broke; the text says how.
    Broken(String),
}

/// What becomes of what is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Writing {
    Flushed,
    /// The socket has taken something that is not on its way yet.
    Unflushed,
    /// Nothing can be written any more; the reading side sees the end and reports it.
    Over,
}

/// What is done with what the gateway says.
#[derive(Debug)]
enum Reading {
    Open,
    /// It is read and dropped until the gateway has had time to read our goodbye.
    Leaving {
        why: String,
        until: Instant,
    },
    /// The end was reported, or we are deaf for ever.
    Over,
}

impl Connection {
    pub(super) fn new(
        socket: WebSocketStream<Box<dyn Stream>>,
        version: Version,
        patience: Patience,
        granted: Features,
    ) -> Self {
        let round_trip = RoundTrip::every(patience.pings);
        let now = Instant::now();
        Connection {
            granted,
            socket,
            version,
            outbox: VecDeque::new(),
            outbox_bytes: 0,
            writing: Writing::Flushed,
            held_back: false,
            closing: false,
            inbox: Vec::new(),
            inbox_bytes: 0,
            reading: Reading::Open,
            silent_since: now,
            silence: patience.silence,
            timer: Box::pin(sleep_until(round_trip.due().min(now + patience.silence))),
            round_trip,
        }
    }

    /// Says a message, as soon as the connection is waited for. Never waits itself: who says much asks
    /// [`Connection::is_behind`] first.
    ///
    /// # Errors
    /// [`EncodeError`] when no message can say this in the version spoken; nothing was said then.
    pub fn send(&mut self, message: &ToServer) -> Result<(), EncodeError> {
        let mut frame = BytesMut::new();
        message.encode(self.version, &mut frame)?;
        self.say(Message::Binary(frame.freeze()));
        Ok(())
    }

    /// Closes the socket after everything said so far. What is said later is dropped.
    pub fn close(&mut self, code: u16, reason: &'static str) {
        let reason = close::clip(reason).into();
        self.say(Message::Close(Some(CloseFrame { code: CloseCode::from(code), reason })));
        self.closing = true;
    }

    /// More is waiting to be written than should be: stop taking work that makes more, and wait for
    /// [`Connection::eased`].
    #[must_use]
    pub fn is_behind(&self) -> bool {
        self.outbox_bytes > BACKLOG && self.writing != Writing::Over
    }

    /// Writes, and resolves when there is something from the gateway: at least one thing, and so many at most.
    ///
    /// When something waits to be written and only a `few` things have come, they are handed over first: their answers
    /// go out with what waits, at the next call, which holds nothing back again.
    pub async fn receive(&mut self, most: usize, few: usize) -> Vec<Received> {
        poll_fn(|context| {
            if !std::mem::take(&mut self.held_back) && !self.outbox.is_empty() {
                self.read(context, most);
                let is_open = matches!(self.reading, Reading::Open);
                self.held_back = is_open && (1..=few).contains(&self.inbox.len());
            }
            if !self.held_back {
                // What is there already is enough for now.
                let more = if self.inbox.is_empty() { most } else { 0 };
                self.poll(context, more);
            }
            if self.inbox.is_empty() { Poll::Pending } else { Poll::Ready(self.received()) }
        })
        .await
    }

    /// What was received last was handed over while something waits to be written.
    #[must_use]
    pub fn holds_back(&self) -> bool {
        self.held_back
    }

    /// Writes, and resolves at once, with what there is from the gateway: nothing, or so many at most.
    pub async fn look(&mut self, most: usize) -> Vec<Received> {
        poll_fn(|context| {
            self.poll(context, most);
            Poll::Ready(self.received())
        })
        .await
    }

    /// Writes, and resolves when there is room again, or nothing will ever be written again. What the gateway says
    /// meanwhile is kept for later, up to a bound.
    pub async fn eased(&mut self) {
        poll_fn(|context| {
            self.poll(context, INBOX);
            if self.is_behind() { Poll::Pending } else { Poll::Ready(()) }
        })
        .await;
    }

    /// Says everything that was to be said and a goodbye, and waits for the gateway's, within this time.
    pub async fn finish(mut self, code: u16, reason: &'static str, within: Duration) {
        self.close(code, reason);
        let closed = async {
            let is_end = |received: &Received| matches!(received, Received::Closed(_));
            while !self.receive(INBOX, 0).await.iter().any(is_end) {}
        };
        // A gateway that does not answer is left without its goodbye.
        let _ = timeout(within, closed).await;
    }

    fn received(&mut self) -> Vec<Received> {
        self.inbox_bytes = 0;
        std::mem::take(&mut self.inbox)
    }

    fn say(&mut self, message: Message) {
        // When nothing can be written the reading side reports the end of the socket.
        if !self.closing && self.writing != Writing::Over {
            self.outbox_bytes += message.len();
            self.outbox.push_back(message);
        }
    }

    /// Writes and reads as far as possible, and sees to it that the task is woken when there is more to do.
    fn poll(&mut self, context: &mut Context<'_>, most: usize) {
        self.write(context);
        self.read(context, most);
        while self.timer.as_mut().poll(context).is_ready() {
            self.time_passed(Instant::now());
        }
        if self.inbox.is_empty() && !self.outbox.is_empty() {
            // Pings and pongs. With something in the inbox there will be more to write in a moment.
            self.write(context);
        }
    }

    fn write(&mut self, context: &mut Context<'_>) {
        if self.writing == Writing::Over {
            return;
        }
        if let Err(error) = self.try_write(context) {
            // The reading side sees the same end and reports it.
            debug!(%error, "socket not writable");
            self.writing = Writing::Over;
            self.outbox.clear();
            self.outbox_bytes = 0;
        }
    }

    fn try_write(&mut self, context: &mut Context<'_>) -> Result<(), Error> {
        while !self.outbox.is_empty() {
            let Poll::Ready(ready) = self.socket.poll_ready_unpin(context) else { return Ok(()) };
            ready?;
            let Some(message) = self.outbox.pop_front() else { break };
            self.outbox_bytes -= message.len();
            self.writing = Writing::Unflushed;
            self.socket.start_send_unpin(message)?;
        }
        if self.writing == Writing::Unflushed
            && let Poll::Ready(flushed) = self.socket.poll_flush_unpin(context)
        {
            flushed?;
            self.writing = Writing::Flushed;
        }
        Ok(())
    }

    fn read(&mut self, context: &mut Context<'_>, most: usize) {
        let mut heard = false;
        while self.inbox.len() < most
            && self.inbox_bytes < INBOX_BYTES
            && !matches!(self.reading, Reading::Over)
            && let Poll::Ready(frame) = self.socket.poll_next_unpin(context)
        {
            match (frame, &self.reading) {
                (Some(Ok(_)), Reading::Leaving { .. }) => {}
                // A pong comes from the gateway's end of the socket, whatever is behind that, so it is no word.
                (Some(Ok(Message::Pong(payload))), _) => self.round_trip.answered(&payload),
                (Some(Ok(frame)), _) => {
                    heard = true;
                    self.take(frame);
                }
                (None, _) => self.end(Closed::Broken("the connection ended without a goodbye".to_owned())),
                (Some(Err(error)), _) => self.end(Closed::Broken(format!("the connection broke: {error}"))),
            }
        }
        if heard {
            self.silent_since = Instant::now();
        }
    }

    fn take(&mut self, frame: Message) {
        let bytes = match frame {
            Message::Binary(bytes) => bytes,
            Message::Close(frame) => {
                let (code, reason) =
                    frame.map_or((1005, String::new()), |frame| (frame.code.into(), frame.reason.to_string()));
                return self.end(Closed::ByGateway { code, reason });
            }
            Message::Text(_) => return warn!("the gateway sent a text message, which the protocol does not have"),
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => return,
        };
        let length = bytes.len();
        match ToClient::decode(bytes, self.version) {
            Ok(ToClient::Ping { ts }) => {
                let sent = self.send(&ToServer::Pong { ts });
                debug_assert_eq!(sent, Ok(()), "every version has a pong");
            }
            Ok(message) => {
                self.inbox_bytes += length;
                self.inbox.push(Received::Message(message));
            }
            Err(error) => {
                // Skipping it could lose a command; after a reconnect the gateway sends unacknowledged ones again.
                self.close(1002, "runner.invalid_frame");
                let why = format!("the gateway sent a message that cannot be read: {error}");
                // A gateway that takes longer sees the connection end without its answer.
                let until = Instant::now() + GOODBYE;
                self.reading = Reading::Leaving { why, until };
                self.timer.as_mut().reset(until);
            }
        }
    }

    /// Reports the end; a message that cannot be read is the reason for whatever came after it.
    fn end(&mut self, closed: Closed) {
        let closed = match std::mem::replace(&mut self.reading, Reading::Over) {
            Reading::Leaving { why, .. } => Closed::Broken(why),
            Reading::Open | Reading::Over => closed,
        };
        debug!(?closed, "socket closed");
        self.inbox.push(Received::Closed(closed));
    }

    /// Does what is due, and sets the timer to what comes next.
    fn time_passed(&mut self, now: Instant) {
        if !self.inbox.is_empty() {
            // Time in which nobody listened is no silence.
            self.silent_since = now;
        }
        let due = match &self.reading {
            Reading::Leaving { until, .. } => *until,
            Reading::Open => self.silent_since + self.silence,
            Reading::Over => now + FAR,
        };
        if due <= now {
            self.end(Closed::Broken(format!("the gateway was silent for {} s", self.silence.as_secs())));
            return self.time_passed(now);
        }
        if self.round_trip.due() <= now {
            let ping = self.round_trip.ask();
            self.say(Message::Ping(ping));
        }
        self.timer.as_mut().reset(due.min(self.round_trip.due()));
    }
}

/// How long the gateway may take to answer a close.
const GOODBYE: Duration = Duration::from_secs(1);
/// The most that is kept for later while the way out is full.
const INBOX: usize = 1024;
/// No more is read while messages of this many bytes wait for the runner.
const INBOX_BYTES: usize = 64 * 1024 * 1024;
/// Bytes waiting to be written from which on the runner takes no new work, in bytes.
const BACKLOG: usize = 16 * 1024 * 1024;
/// When nothing is due.
const FAR: Duration = Duration::from_secs(3600);

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use tokio::io::{DuplexStream, duplex};
    use tokio_tungstenite::tungstenite::protocol::Role;

    use super::*;

    /// A connection and the gateway's end of it.
    async fn pair() -> (Connection, WebSocketStream<DuplexStream>) {
        let (ours, theirs) = duplex(1 << 20);
        let ours: Box<dyn Stream> = Box::new(ours);
        let patience = Patience { silence: FAR, pings: FAR };
        let socket = WebSocketStream::from_raw_socket(ours, Role::Client, None).await;
        let connection = Connection::new(socket, Version::V7, patience, Features::default());
        (connection, WebSocketStream::from_raw_socket(theirs, Role::Server, None).await)
    }

    async fn say(gateway: &mut WebSocketStream<DuplexStream>, times: usize) {
        for _ in 0..times {
            let mut frame = BytesMut::new();
            ToClient::AckEvents(vec![]).encode(Version::V7, &mut frame).expect("it encodes");
            gateway.send(Message::Binary(frame.freeze())).await.expect("there is room");
        }
    }

    /// Whether something was written.
    async fn hears(gateway: &mut WebSocketStream<DuplexStream>) -> bool {
        gateway.next().now_or_never().is_some()
    }

    #[tokio::test]
    async fn little_that_is_there_is_received_before_something_is_written_but_only_once() {
        let (mut connection, mut gateway) = pair().await;
        connection.send(&ToServer::Pong { ts: 1 }).expect("it encodes");
        say(&mut gateway, 2).await;
        assert_eq!(connection.receive(8, 4).await.len(), 2);
        assert!(connection.holds_back());
        assert!(!hears(&mut gateway).await);
        say(&mut gateway, 1).await;
        assert_eq!(connection.receive(8, 4).await.len(), 1);
        assert!(!connection.holds_back());
        assert!(hears(&mut gateway).await);
    }

    #[tokio::test]
    async fn nothing_waits_to_be_written_behind_much_or_behind_the_end() {
        let (mut connection, mut gateway) = pair().await;
        connection.send(&ToServer::Pong { ts: 1 }).expect("it encodes");
        say(&mut gateway, 5).await;
        assert_eq!(connection.receive(8, 4).await.len(), 5);
        assert!(hears(&mut gateway).await);
        connection.send(&ToServer::Pong { ts: 2 }).expect("it encodes");
        gateway.close(None).await.expect("it closes");
        assert!(matches!(connection.receive(8, 4).await[..], [Received::Closed(Closed::ByGateway { .. })]));
        assert!(!connection.holds_back());
    }
}
