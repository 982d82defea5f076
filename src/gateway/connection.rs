//! The two tasks of a runner's socket.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt, poll};
use greenroom_protocol::{KvResponse, ToClient, ToClientTunnel, ToServer, Version, close};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::error::Elapsed;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::Id;
use super::core::{ConnectionId, Hello};
use super::driver::Order;
use super::handle::LargeMessages;

/// The way to a runner. Never waits: a runner that takes too little of what it is sent loses its connection.
#[derive(Clone, Debug)]
pub(super) struct Outlet {
    /// Unbounded by number, since the driver cannot wait; bounded by [`BACKLOG_MAX`] bytes, of which every message has
    /// some: beyond that the connection is ended, and what is sent to one that has ended is dropped.
    frames: mpsc::UnboundedSender<Out>,
    backlog: Arc<AtomicUsize>,
    ended: CancellationToken,
}

#[derive(Debug)]
enum Out {
    /// With its share of the memory for what clients send, held until it is written.
    Message(ToClient, Option<OwnedSemaphorePermit>),
    Close {
        code: u16,
        reason: &'static str,
    },
}

/// Where a connection's messages go.
#[derive(Debug)]
pub(super) struct Inlet {
    pub(super) orders: mpsc::Sender<Order>,
    pub(super) memory: LargeMessages,
    pub(super) connection: ConnectionId,
    /// How long a runner may take to read what it is sent.
    pub(super) write_timeout: Duration,
}

impl Outlet {
    /// Sends a message.
    pub(super) fn send(&self, message: ToClient) {
        self.send_holding(message, None);
    }

    /// Sends a message that holds its share of memory until it is written.
    pub(super) fn send_holding(&self, message: ToClient, memory: Option<OwnedSemaphorePermit>) {
        let before = self.backlog.fetch_add(weight(&message), Ordering::Relaxed);
        if before > BACKLOG_MAX && !self.ended.is_cancelled() {
            warn!(bytes = before, "runner does not read what it is sent, connection dropped");
            self.ended.cancel();
        }
        // A writer that is gone needs no message.
        let _ = self.frames.send(Out::Message(message, memory));
    }

    /// Closes the socket after everything sent so far.
    pub(super) fn close(&self, code: u16, reason: &'static str) {
        let _ = self.frames.send(Out::Close { code, reason });
    }
}

/// Serves a runner's socket until it is gone.
pub(super) async fn serve<S>(socket: WebSocketStream<S>, hello: Hello, inlet: Inlet, ended: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let (frames, out) = mpsc::unbounded_channel();
    let backlog = Arc::new(AtomicUsize::new(0));
    let outlet = Outlet { frames, backlog: backlog.clone(), ended: ended.clone() };
    let (sink, stream) = socket.split();
    let version = hello.version;
    let connection = inlet.connection;
    let oversize = outlet.clone();
    if inlet.orders.send(Order::Connected { hello, outlet, connection }).await.is_err() {
        return;
    }
    let both = async {
        // The reader ends when the socket does; the writer ends some time after it has closed it.
        tokio::select! {
            () = read(stream, &inlet, version, &oversize) => {}
            () = write(sink, out, &backlog, version, inlet.write_timeout) => {}
        }
    };
    ended.run_until_cancelled(both).await;
    // The driver may be gone; then nobody needs to know.
    let _ = inlet.orders.send(Order::Disconnected { connection }).await;
}

/// Closes a socket that never becomes a connection.
pub(super) async fn refuse<S>(mut socket: WebSocketStream<S>, code: u16, reason: &'static str)
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let goodbye = async {
        socket.close(Some(close_frame(code, reason))).await?;
        while let Some(Ok(_)) = socket.next().await {}
        Ok::<(), Error>(())
    };
    // Whoever does not take the goodbye goes without.
    let _ = timeout(GOODBYE, goodbye).await;
}

async fn read<S>(mut stream: SplitStream<WebSocketStream<S>>, inlet: &Inlet, version: Version, outlet: &Outlet)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let connection = inlet.connection;
    loop {
        let order = match stream.next().await {
            Some(Ok(Message::Binary(frame))) => {
                let memory = inlet.memory.take(frame.len()).await;
                match ToServer::decode(frame, version) {
                    Ok(message) => Order::Received { connection, message, _memory: memory },
                    Err(error) => {
                        debug!(%error, "message of a runner cannot be read");
                        Order::Malformed { connection, text: false }
                    }
                }
            }
            Some(Ok(Message::Text(_))) => Order::Malformed { connection, text: true },
            Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => continue,
            Some(Ok(Message::Close(_))) | None => return,
            Some(Err(Error::Capacity(error))) => {
                warn!(%error, "runner sent a frame that is too large, connection closed");
                outlet.close(1009, "ws.message_too_large");
                // The runner is gone as far as the driver is concerned. The rest of the frame cannot be read past, so
                // there is no answer to wait for; the writer gets a moment for the goodbye.
                let _ = inlet.orders.send(Order::Disconnected { connection }).await;
                return tokio::time::sleep(LAST_WORDS).await;
            }
            Some(Err(error)) => {
                debug!(%error, "runner's socket broke");
                return;
            }
        };
        // When the driver is gone the socket is being closed; what comes until then is of no interest.
        let _ = inlet.orders.send(order).await;
    }
}

async fn write<S>(
    mut sink: SplitSink<WebSocketStream<S>, Message>,
    mut out: mpsc::UnboundedReceiver<Out>,
    backlog: &AtomicUsize,
    version: Version,
    patience: Duration,
) where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut batch = Vec::with_capacity(BATCH);
    let mut buffer = BytesMut::with_capacity(BUFFER);
    loop {
        if out.recv_many(&mut batch, BATCH).await == 0 {
            return;
        }
        for frame in batch.drain(..) {
            let (message, last, _memory) = match frame {
                Out::Message(message, memory) => {
                    backlog.fetch_sub(weight(&message), Ordering::Relaxed);
                    match message.encode(version, &mut buffer) {
                        Ok(()) => (Message::Binary(take(&mut buffer)), false, memory),
                        Err(error) => {
                            warn!(%error, "message for a runner cannot be written");
                            continue;
                        }
                    }
                }
                Out::Close { code, reason } => (Message::Close(Some(close_frame(code, reason))), true, None),
            };
            let sent = within(patience, async {
                sink.feed(message).await?;
                if last { sink.flush().await } else { Ok(()) }
            });
            if !went_out(sent.await) {
                return;
            }
            if last {
                // Time for the goodbye to be answered: the reader sees that and ends first.
                return tokio::time::sleep(GOODBYE).await;
            }
        }
        if !went_out(within(patience, sink.flush()).await) {
            return;
        }
    }
}

/// As [`timeout`], without a timer for what is done at once.
async fn within<T>(patience: Duration, what: impl Future<Output = T>) -> Result<T, Elapsed> {
    let mut what = pin!(what);
    match poll!(what.as_mut()) {
        Poll::Ready(done) => Ok(done),
        Poll::Pending => timeout(patience, what).await,
    }
}

fn went_out(sent: Result<Result<(), Error>, Elapsed>) -> bool {
    match sent {
        Ok(Ok(())) => true,
        Ok(Err(Error::Io(error))) if error.kind() == io::ErrorKind::BrokenPipe => false,
        Ok(Err(error)) => {
            debug!(%error, "runner's socket broke");
            false
        }
        Err(_) => {
            warn!("runner does not read what it is sent, connection dropped");
            false
        }
    }
}

/// The encoded message, without giving up a buffer that has room for more.
fn take(buffer: &mut BytesMut) -> Bytes {
    let frame = buffer.split().freeze();
    if buffer.capacity() < BUFFER / 4 {
        buffer.reserve(BUFFER);
    }
    frame
}

fn close_frame(code: u16, reason: &'static str) -> CloseFrame {
    let ray = Id::from_random(rand::random());
    let text = format!("{reason}#{ray}");
    CloseFrame { code: CloseCode::from(code), reason: close::clip(&text).into() }
}

/// What a message costs in memory, roughly.
fn weight(message: &ToClient) -> usize {
    let content = match message {
        ToClient::Tunnel { message, .. } => match message {
            ToClientTunnel::RequestStart { body, headers, .. } => {
                body.as_ref().map_or(0, Bytes::len) + headers.len() * HEADER
            }
            ToClientTunnel::RequestChunk { body, .. } => body.len(),
            ToClientTunnel::WebSocketMessage { data, .. } => data.len(),
            ToClientTunnel::WebSocketOpen { headers, .. } => headers.len() * HEADER,
            ToClientTunnel::RequestAbort | ToClientTunnel::WebSocketClose { .. } => 0,
        },
        ToClient::Kv { response, .. } => match response {
            KvResponse::Get { keys, values, .. } | KvResponse::List { keys, values, .. } => {
                keys.iter().chain(values).map(|item| item.len() + HEADER).sum()
            }
            KvResponse::Error { .. } | KvResponse::Put | KvResponse::Delete | KvResponse::Drop => 0,
        },
        ToClient::Commands(commands) => commands.len() * HEADER,
        ToClient::AckEvents(checkpoints) => checkpoints.len() * HEADER,
        ToClient::Init { .. } | ToClient::Ping { .. } => 0,
    };
    content + size_of::<ToClient>()
}

/// Messages encoded before the socket is flushed.
const BATCH: usize = 64;
/// Room for many small messages: they share an allocation.
const BUFFER: usize = 64 * 1024;
/// What may wait for a runner that does not read, in bytes: several of the largest messages.
const BACKLOG_MAX: usize = 128 * 1024 * 1024;
/// How long the answer to a close may take.
const GOODBYE: Duration = Duration::from_secs(5);
/// How long a goodbye may take to be written that will not be answered.
const LAST_WORDS: Duration = Duration::from_millis(500);
/// A header with its value, or an entry's overhead, roughly.
const HEADER: usize = 64;
