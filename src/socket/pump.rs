//! The two tasks of an open socket.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use greenroom_protocol::{EncodeError, Features, ToClient, ToServer, Version, close};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tracing::{debug, warn};

use super::dial::{Patience, Stream};
use super::round_trip::RoundTrip;

type Socket = WebSocketStream<Box<dyn Stream>>;

/// An open socket. Dropped, it is gone without a goodbye.
#[derive(Debug)]
pub struct Connection {
    /// What the gateway grants beyond the protocol.
    pub granted: Features,
    /// What the gateway says, ending with [`Received::Closed`]. Not read, it stops the socket from being read.
    pub incoming: mpsc::Receiver<Received>,
    /// The way out.
    pub outgoing: Outgoing,
    tasks: [JoinHandle<()>; 2],
}

/// Something from the gateway.
#[derive(Debug)]
pub enum Received {
    /// A message, with its share of the memory for large ones.
    Message(ToClient, Option<OwnedSemaphorePermit>),
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

/// The way out of a socket. Never waits: who sends much asks [`Outgoing::is_behind`] first.
#[derive(Clone, Debug)]
pub struct Outgoing {
    frames: mpsc::UnboundedSender<Out>,
    backlog: Arc<Backlog>,
    version: Version,
}

#[derive(Debug)]
enum Out {
    Frame(Bytes),
    Ping(Bytes),
    Close { code: u16, reason: &'static str },
}

/// What was handed to the writer and has not been written.
#[derive(Debug, Default)]
struct Backlog {
    bytes: AtomicUsize,
    /// The writer has ended.
    over: AtomicBool,
    eased: Notify,
}

impl Connection {
    pub(super) fn start(socket: Socket, version: Version, patience: Patience, granted: Features) -> Self {
        let (sink, stream) = socket.split();
        let (frames, out) = mpsc::unbounded_channel();
        let (inbox, incoming) = mpsc::channel(INBOX);
        let backlog = Arc::new(Backlog::default());
        let outgoing = Outgoing { frames, backlog: backlog.clone(), version };
        let round_trip = RoundTrip::every(patience.pings);
        let silence = patience.silence;
        let reader = Reader { stream, inbox, outgoing: outgoing.clone(), version, silence, round_trip };
        let tasks = [tokio::spawn(reader.run()), tokio::spawn(write(sink, out, EaseOnDrop(backlog)))];
        Connection { granted, incoming, outgoing, tasks }
    }

    /// Says everything sent so far and a goodbye, and waits for the gateway's, within this time.
    pub async fn finish(mut self, code: u16, reason: &'static str, within: Duration) {
        self.outgoing.close(code, reason);
        let closed = async { while !matches!(self.incoming.recv().await, None | Some(Received::Closed(_))) {} };
        // A gateway that does not answer is left without its goodbye.
        let _ = tokio::time::timeout(within, closed).await;
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl Outgoing {
    /// Sends a message.
    ///
    /// # Errors
    /// [`EncodeError`] when no message can say this in the version spoken; nothing was sent then.
    pub fn send(&self, message: &ToServer) -> Result<(), EncodeError> {
        let mut frame = BytesMut::new();
        message.encode(self.version, &mut frame)?;
        self.push(frame.freeze());
        Ok(())
    }

    /// Closes the socket after everything sent so far.
    pub fn close(&self, code: u16, reason: &'static str) {
        // A writer that is gone has nothing left to close.
        let _ = self.frames.send(Out::Close { code, reason });
    }

    /// More is waiting to be written than should be: stop taking work that makes more.
    #[must_use]
    pub fn is_behind(&self) -> bool {
        self.backlog.bytes.load(Ordering::Relaxed) > BACKLOG && !self.backlog.over.load(Ordering::Relaxed)
    }

    /// Resolves when there is room again, or nothing will ever be written again.
    pub async fn eased(&self) {
        loop {
            let eased = self.backlog.eased.notified();
            if !self.is_behind() {
                return;
            }
            eased.await;
        }
    }

    fn ping(&self, payload: Bytes) {
        // When the writer is gone the reader reports the end of the socket.
        let _ = self.frames.send(Out::Ping(payload));
    }

    fn push(&self, frame: Bytes) {
        self.backlog.bytes.fetch_add(frame.len(), Ordering::Relaxed);
        // When the writer is gone the reader reports the end of the socket.
        let _ = self.frames.send(Out::Frame(frame));
    }
}

/// Ends the backlog with its writer: what was not written then is gone, and who waits for room is let go to see it.
struct EaseOnDrop(Arc<Backlog>);

impl Drop for EaseOnDrop {
    fn drop(&mut self) {
        self.0.over.store(true, Ordering::Relaxed);
        self.0.eased.notify_waiters();
    }
}

struct Reader {
    stream: SplitStream<Socket>,
    inbox: mpsc::Sender<Received>,
    outgoing: Outgoing,
    version: Version,
    silence: Duration,
    round_trip: RoundTrip,
}

impl Reader {
    async fn run(mut self) {
        let large = Arc::new(Semaphore::new(LARGE_KIB));
        let closed = loop {
            let frame = match self.frame().await {
                Ok(frame) => frame,
                Err(closed) => break closed,
            };
            let bytes = match frame {
                Message::Binary(bytes) => bytes,
                Message::Close(frame) => {
                    let (code, reason) =
                        frame.map_or((1005, String::new()), |frame| (frame.code.into(), frame.reason.to_string()));
                    break Closed::ByGateway { code, reason };
                }
                Message::Text(_) => {
                    warn!("the gateway sent a text message, which the protocol does not have");
                    continue;
                }
                Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => continue,
            };
            let permit = match u32::try_from(bytes.len() / 1024) {
                Ok(kib @ LARGE_FROM_KIB..) => large.clone().acquire_many_owned(kib.min(LARGE_MOST_KIB)).await.ok(),
                Ok(_) | Err(_) => None,
            };
            let message = match ToClient::decode(bytes, self.version) {
                Ok(ToClient::Ping { ts }) => {
                    let sent = self.outgoing.send(&ToServer::Pong { ts });
                    debug_assert_eq!(sent, Ok(()), "every version has a pong");
                    continue;
                }
                Ok(message) => message,
                Err(error) => {
                    // Skipping it could lose a command; after a reconnect the gateway sends unacknowledged ones again.
                    self.outgoing.close(1002, "runner.invalid_frame");
                    self.read_to_end().await;
                    break Closed::Broken(format!("the gateway sent a message that cannot be read: {error}"));
                }
            };
            if self.inbox.send(Received::Message(message, permit)).await.is_err() {
                return;
            }
        };
        debug!(?closed, "socket closed");
        // The runner may have dropped the connection already.
        let _ = self.inbox.send(Received::Closed(closed)).await;
    }

    /// The gateway's next frame. A pong comes from its end of the socket, whatever is behind that, so it is no word.
    async fn frame(&mut self) -> Result<Message, Closed> {
        // Time in which nobody listened is no silence.
        let began = Instant::now();
        loop {
            let due = self.round_trip.due().min(began + self.silence);
            match tokio::time::timeout_at(due, self.stream.next()).await {
                Err(_) if began.elapsed() < self.silence => self.outgoing.ping(self.round_trip.ask()),
                Err(_) => {
                    let text = format!("the gateway was silent for {} s", self.silence.as_secs());
                    return Err(Closed::Broken(text));
                }
                Ok(None) => return Err(Closed::Broken("the connection ended without a goodbye".to_owned())),
                Ok(Some(Err(error))) => return Err(Closed::Broken(format!("the connection broke: {error}"))),
                Ok(Some(Ok(Message::Pong(payload)))) => self.round_trip.answered(&payload),
                Ok(Some(Ok(frame))) => return Ok(frame),
            }
        }
    }

    /// Leaves the gateway a moment to read our goodbye and say its own.
    async fn read_to_end(&mut self) {
        let end = async { while let Some(Ok(_)) = self.stream.next().await {} };
        // A gateway that takes longer sees the connection end without its answer.
        let _ = tokio::time::timeout(GOODBYE, end).await;
    }
}

async fn write(mut sink: SplitSink<Socket, Message>, mut out: mpsc::UnboundedReceiver<Out>, backlog: EaseOnDrop) {
    let mut batch = Vec::with_capacity(BATCH);
    while out.recv_many(&mut batch, BATCH).await > 0 {
        let mut written = 0;
        for item in batch.drain(..) {
            let (message, last) = match item {
                Out::Frame(frame) => {
                    written += frame.len();
                    (Message::Binary(frame), false)
                }
                Out::Ping(payload) => (Message::Ping(payload), false),
                Out::Close { code, reason } => {
                    let code = CloseCode::from(code);
                    (Message::Close(Some(CloseFrame { code, reason: close::clip(reason).into() })), true)
                }
            };
            if let Err(error) = sink.feed(message).await {
                // The reader sees the same end and reports it.
                debug!(%error, "socket not writable");
                return;
            }
            if last {
                // What was said before is out when the closing frame is.
                if let Err(error) = sink.flush().await {
                    debug!(%error, "socket not writable");
                }
                return;
            }
        }
        if let Err(error) = sink.flush().await {
            debug!(%error, "socket not writable");
            return;
        }
        backlog.0.bytes.fetch_sub(written, Ordering::Relaxed);
        backlog.0.eased.notify_waiters();
    }
}

/// How long the gateway may take to answer a close.
const GOODBYE: Duration = Duration::from_secs(1);
/// Messages that may wait for the runner.
const INBOX: usize = 1024;
/// Messages from this size on count against [`LARGE_KIB`].
const LARGE_FROM_KIB: u32 = 64;
/// The memory that large messages waiting for the runner may hold, in KiB.
const LARGE_KIB: usize = 128 * 1024;
/// What one message takes of it at most, so that the largest always fits.
const LARGE_MOST_KIB: u32 = 64 * 1024;
/// Bytes waiting to be written from which on the runner takes no new work, in bytes.
const BACKLOG: usize = 16 * 1024 * 1024;
/// Frames gathered before a flush.
const BATCH: usize = 256;
