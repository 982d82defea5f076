//! The admin server: its thread, its port and its Unix socket.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::serve::Listener;
use secrecy::SecretString;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::doors::Door;
use super::state::Shared;
use crate::local_socket;
use crate::runner::RunnerHandle;
use crate::telemetry::fields;

/// The admin server while it serves. Dropped, it stops.
#[derive(Debug)]
pub struct Admin {
    over: CancellationToken,
    address: Option<SocketAddr>,
    socket: Bound,
}

/// Where and how the admin server serves.
#[derive(Clone, Debug)]
pub struct AdminOptions {
    /// The address; nothing for the Unix socket alone.
    pub address: Option<SocketAddr>,
    /// When the address is taken, do not start, instead of serving on the Unix socket alone.
    pub insisted: bool,
    /// The Unix socket; its directory is made when it is not there.
    pub socket: PathBuf,
    /// What callers over the address must present to change something; without it nobody can.
    pub write_token: Option<SecretString>,
    /// How long a drain that is asked for may take.
    pub drain_timeout: Duration,
}

/// Why the admin server did not start. The text names the address or path and the setting to look at.
#[derive(Debug, thiserror::Error)]
pub enum AdminFailure {
    /// The port cannot be used.
    #[error("cannot listen on {address}: {error} (--admin; off for none)")]
    Tcp {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        error: io::Error,
    },
    /// The Unix socket cannot be used.
    #[error("cannot listen on {}: {error} (--runtime-dir)", path.display())]
    Unix {
        /// The path.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The system gives no thread.
    #[error("no thread for the admin server: {0}")]
    Thread(io::Error),
}

/// The port and the socket, before anybody is let in: bound first, a runner that could not be asked never dials.
#[derive(Debug)]
pub struct AdminDoors {
    options: AdminOptions,
    unix: std::os::unix::net::UnixListener,
    tcp: Option<std::net::TcpListener>,
    bound: Bound,
}

impl AdminDoors {
    /// Binds both. Must be called on a tokio runtime.
    ///
    /// # Errors
    /// [`AdminFailure`]; nothing is bound then.
    pub async fn bind(options: AdminOptions) -> Result<Self, AdminFailure> {
        let unix_failure = |error| AdminFailure::Unix { path: options.socket.clone(), error };
        let unix = local_socket::bind(&options.socket).map_err(unix_failure)?;
        let bound = Bound(options.socket.clone());
        let unix = unix.into_std().map_err(unix_failure)?;
        let tcp = tcp(&options).await?;
        // Whoever comes from now on waits until the runner is there, and what the runner logs comes after this.
        match tcp.as_ref().and_then(|tcp| tcp.local_addr().ok()) {
            Some(address) => info!({ fields::ADDRESS } = %address, "admin address serves"),
            None => debug!({ fields::PATH } = %options.socket.display(), "admin socket serves"),
        }
        Ok(AdminDoors { options, unix, tcp, bound })
    }

    /// Serves for this runner, on a thread of its own, until the result is dropped.
    ///
    /// # Errors
    /// [`AdminFailure::Thread`].
    pub fn serve(self, runner: RunnerHandle) -> Result<Admin, AdminFailure> {
        let AdminDoors { options, unix, tcp, bound } = self;
        let address = tcp.as_ref().and_then(|tcp| tcp.local_addr().ok());
        let shared = Shared::new(runner, options.write_token, options.drain_timeout);
        let over = CancellationToken::new();
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(AdminFailure::Thread)?;
        let until = over.clone();
        let serving = async move {
            if let Some(Err(error)) = until.run_until_cancelled(serve(shared, unix, tcp)).await {
                warn!({ fields::ERROR } = %error, "the admin server stopped");
            }
        };
        std::thread::Builder::new()
            .name("admin".to_owned())
            .spawn(move || runtime.block_on(serving))
            .map_err(AdminFailure::Thread)?;
        Ok(Admin { over, address, socket: bound })
    }
}

impl Admin {
    /// The address it serves on, when it does.
    #[must_use]
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.address
    }

    /// The Unix socket.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket.0
    }
}

impl Drop for Admin {
    fn drop(&mut self) {
        self.over.cancel();
    }
}

/// A Unix socket that is ours to remove.
#[derive(Debug)]
struct Bound(PathBuf);

impl Drop for Bound {
    fn drop(&mut self) {
        // It may be gone with its directory.
        let _ = fs::remove_file(&self.0);
    }
}

async fn tcp(options: &AdminOptions) -> Result<Option<std::net::TcpListener>, AdminFailure> {
    let Some(address) = options.address else { return Ok(None) };
    let bound = match TcpListener::bind(address).await {
        Ok(listener) => listener.into_std(),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && !options.insisted => {
            warn!(
                { fields::ADDRESS } = %address,
                { fields::PATH } = %options.socket.display(),
                "another process has the admin address; only the admin socket serves (--admin gives another address)"
            );
            return Ok(None);
        }
        Err(error) => Err(error),
    };
    if !address.ip().is_loopback() && options.write_token.is_none() {
        info!({ fields::ADDRESS } = %address, "the admin address can be read by everyone who reaches it");
    }
    bound.map(Some).map_err(|error| AdminFailure::Tcp { address, error })
}

async fn serve(
    shared: Shared,
    unix: std::os::unix::net::UnixListener,
    tcp: Option<std::net::TcpListener>,
) -> io::Result<()> {
    tokio::spawn(shared.clone().watch_link());
    let unix = Bounded::new(Trusted(UnixListener::from_std(unix)?));
    let unix = axum::serve(unix, super::router(shared.clone(), Door::Unix));
    let Some(tcp) = tcp else { return unix.await };
    let tcp = TcpListener::from_std(tcp)?;
    let door = if tcp.local_addr()?.ip().is_loopback() { Door::Loopback } else { Door::Network };
    let tcp = axum::serve(Bounded::new(tcp), super::router(shared, door));
    tokio::select! {
        ended = unix => ended,
        ended = tcp => ended,
    }
}

/// Accepts only processes of this user and of root.
struct Trusted(UnixListener);

impl Listener for Trusted {
    type Io = tokio::net::UnixStream;
    type Addr = tokio::net::unix::SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let (stream, address) = Listener::accept(&mut self.0).await;
            if local_socket::is_trusted(&stream) {
                return (stream, address);
            }
            warn!("another user's process came to the admin socket and was sent away");
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.0.local_addr()
    }
}

/// Accepts only so many connections at once; more wait at the system's door.
struct Bounded<L> {
    listener: L,
    places: Arc<Semaphore>,
}

impl<L> Bounded<L> {
    fn new(listener: L) -> Self {
        Bounded { listener, places: Arc::new(Semaphore::new(CONNECTIONS_MAX)) }
    }
}

impl<L: Listener> Listener for Bounded<L> {
    type Io = Placed<L::Io>;
    type Addr = L::Addr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        // The semaphore is never closed.
        let place = self.places.clone().acquire_owned().await.ok();
        let (io, address) = self.listener.accept().await;
        (Placed { io, _place: place }, address)
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

/// A connection with its place among those that may be open.
struct Placed<I> {
    io: I,
    _place: Option<OwnedSemaphorePermit>,
}

impl<I: AsyncRead + Unpin> AsyncRead for Placed<I> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buffer)
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Placed<I> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// Connections at once on each door: probes, scrapers, and operators who follow logs.
const CONNECTIONS_MAX: usize = 64;
