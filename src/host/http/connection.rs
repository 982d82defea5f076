//! One connection to an app, and the few that are kept for the next request.
//!
//! A connection has no task of its own: whoever waits for something on it also drives it. So a request that is
//! cancelled takes its connection along, nothing is left to clean up, and a request costs no hop between tasks.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpStream, UnixStream};
use tokio::task::AbortHandle;
use tokio::time::Instant;
use tokio_util::either::Either;

use super::remote::{Remote, Tcp};
use crate::host::{Body, BodyError};

/// Where an app listens.
#[derive(Clone, Debug)]
pub(in crate::host) enum Address {
    Unix(PathBuf),
    Tcp(SocketAddr),
    Remote(Arc<Remote>),
}

pub(in crate::host) type Io = Either<UnixStream, Tcp>;

impl Address {
    /// Connects once.
    pub(in crate::host) async fn connect(&self) -> io::Result<Io> {
        match self {
            Address::Unix(path) => Ok(Either::Left(UnixStream::connect(path).await?)),
            Address::Tcp(address) => Ok(Either::Right(Either::Left(usable(TcpStream::connect(address).await?)?))),
            Address::Remote(remote) => Ok(Either::Right(remote.connect().await?)),
        }
    }

    /// Connects, and waits while the app's queue of connections is full.
    pub(super) async fn connect_patiently(&self) -> io::Result<Io> {
        let deadline = Instant::now() + QUEUE_PATIENCE;
        let mut pause = Duration::from_millis(1);
        loop {
            match self.connect().await {
                // This is how a full queue of a Unix socket shows.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && Instant::now() < deadline => {
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(QUEUE_PAUSE_MAX);
                }
                done => return done,
            }
        }
    }
}

/// A connection that was just made, made ready for small messages.
pub(super) fn usable(stream: TcpStream) -> io::Result<TcpStream> {
    if stream.local_addr()? == stream.peer_addr()? {
        // Nobody listens, and the kernel has given us the very port we dialled.
        return Err(io::ErrorKind::ConnectionRefused.into());
    }
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// A request's body on its way to the app: as long as it was declared to be, or an error.
#[derive(Debug)]
pub(in crate::host) struct Outbound {
    body: Body,
    left: Option<u64>,
}

impl Outbound {
    /// This body; with a length, a body in pieces must have exactly that many bytes.
    pub(super) fn new(body: Body, length: Option<u64>) -> Self {
        let left = match body {
            Body::Whole(_) => None,
            Body::Pieces(_) => length,
        };
        Outbound { body, left }
    }

    pub(in crate::host) fn whole(bytes: Bytes) -> Self {
        Outbound { body: Body::Whole(bytes), left: None }
    }
}

impl HttpBody for Outbound {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = std::task::ready!(Pin::new(&mut self.body).poll_frame(context));
        let Some(left) = &mut self.left else { return Poll::Ready(frame) };
        let size = match &frame {
            Some(Ok(frame)) => frame.data_ref().map_or(0, |data| data.len() as u64),
            Some(Err(_)) => return Poll::Ready(frame),
            None if *left == 0 => return Poll::Ready(None),
            None => return Poll::Ready(Some(Err(BodyError))),
        };
        match left.checked_sub(size) {
            Some(rest) => *left = rest,
            None => return Poll::Ready(Some(Err(BodyError))),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.left == Some(0) || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(|| self.body.size_hint(), SizeHint::with_exact)
    }
}

/// An open connection that carries one request at a time.
pub(super) struct Connection {
    sender: SendRequest<Outbound>,
    driver: Driver<http1::Connection<TokioIo<Io>, Outbound>>,
    used: bool,
}

/// The state machine of a connection; nothing moves while nobody polls it.
pub(in crate::host) struct Driver<D>(Option<Pin<Box<D>>>);

/// Why a request got no response.
pub(super) enum SendError {
    /// The connection had closed before the request was sent; here it is.
    Unsent(Box<Request<Outbound>>),
    /// It may have been sent.
    Failed(hyper::Error),
}

impl Connection {
    pub(super) async fn open(io: Io) -> hyper::Result<Self> {
        let (sender, driver) = http1::Builder::new().handshake(TokioIo::new(io)).await?;
        Ok(Connection { sender, driver: Driver::new(driver), used: false })
    }

    /// Whether it has carried a request before.
    pub(super) fn was_used(&self) -> bool {
        self.used
    }

    /// Sends a request and waits for the head of its response.
    pub(super) async fn send(&mut self, request: Request<Outbound>) -> Result<Response<Incoming>, SendError> {
        self.used = true;
        let sent = self.sender.try_send_request(request);
        self.driver.while_waiting_for(sent).await.map_err(|mut error| match error.take_message() {
            Some(request) => SendError::Unsent(Box::new(request)),
            None => SendError::Failed(error.into_error()),
        })
    }

    /// The next piece of a response's body, `None` at its end. Trailers are left out.
    pub(super) async fn piece(&mut self, body: &mut Incoming) -> Option<hyper::Result<Bytes>> {
        loop {
            let frame = poll_fn(|context| Pin::new(&mut *body).poll_frame(context));
            match self.driver.while_waiting_for(frame).await? {
                Ok(frame) => match frame.into_data() {
                    Ok(data) if data.is_empty() => {}
                    Ok(data) => return Some(Ok(data)),
                    Err(_) => {}
                },
                Err(error) => return Some(Err(error)),
            }
        }
    }

    /// Whether it can carry a request now: the last exchange is over in both directions and the app has not closed.
    async fn is_ready(&mut self) -> bool {
        let sender = &mut self.sender;
        let ready = poll_fn(|context| Poll::Ready(matches!(sender.poll_ready(context), Poll::Ready(Ok(())))));
        self.driver.while_waiting_for(ready).await
    }
}

impl<D: Future> Driver<D> {
    pub(in crate::host) fn new(driver: D) -> Self {
        Driver(Some(Box::pin(driver)))
    }

    /// Waits for something that happens on the connection, and moves the connection meanwhile.
    pub(in crate::host) async fn while_waiting_for<F: Future>(&mut self, future: F) -> F::Output {
        let mut future = pin!(future);
        poll_fn(|context| {
            if let Some(driver) = &mut self.0 {
                // How it ended reaches whoever waits for the exchange.
                if driver.as_mut().poll(context).is_ready() {
                    self.0 = None;
                }
            }
            future.as_mut().poll(context)
        })
        .await
    }
}

/// Connections that wait for their next request, for a short while.
pub(super) struct Pool {
    shelf: Arc<Mutex<Shelf>>,
    /// How many may wait.
    most: usize,
}

#[derive(Default)]
struct Shelf {
    idle: Vec<(Instant, Connection)>,
    sweeper: Option<AbortHandle>,
}

impl Pool {
    /// An empty one that keeps at most this many.
    pub(super) fn new(most: usize) -> Self {
        Pool { shelf: Arc::default(), most }
    }

    /// A connection that is still good, the one used last first.
    pub(super) async fn take(&self) -> Option<Connection> {
        loop {
            let (since, mut connection) = self.lock().idle.pop()?;
            if since.elapsed() < IDLE_MAX && connection.is_ready().await {
                return Some(connection);
            }
        }
    }

    /// Takes a connection back after an exchange; one that is not ready for the next is closed.
    pub(super) async fn put_back(&self, mut connection: Connection) {
        if !connection.is_ready().await {
            return;
        }
        let mut shelf = self.lock();
        if shelf.idle.len() < self.most {
            shelf.idle.push((Instant::now(), connection));
            if shelf.sweeper.is_none() {
                shelf.sweeper = Some(tokio::spawn(sweep(self.shelf.clone())).abort_handle());
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Shelf> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        if let Some(sweeper) = self.lock().sweeper.take() {
            sweeper.abort();
        }
    }
}

/// Closes connections that have waited too long, until there are none.
async fn sweep(shelf: Arc<Mutex<Shelf>>) {
    loop {
        tokio::time::sleep(IDLE_MAX).await;
        let mut shelf = shelf.lock().unwrap_or_else(PoisonError::into_inner);
        shelf.idle.retain(|(since, _)| since.elapsed() < IDLE_MAX);
        if shelf.idle.is_empty() {
            shelf.sweeper = None;
            return;
        }
    }
}

/// How long a connection waits for its next request: below the keep-alive timeouts of common servers (the shortest
/// known is 2 s), so that a request rarely meets one that is just being closed.
const IDLE_MAX: Duration = Duration::from_secs(1);

/// How long a request waits while the app's queue of connections is full: then it is overloaded, or stuck.
const QUEUE_PATIENCE: Duration = Duration::from_secs(10);

/// The longest pause between two looks at a full queue.
const QUEUE_PAUSE_MAX: Duration = Duration::from_millis(50);
