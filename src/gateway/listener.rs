//! The HTTP server: runners connect here, every other request goes to the routes it was given.

mod accept;
mod held;
mod patient;
mod rates;
mod upgrade;

use std::error::Error;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use hyper::body::Incoming;
use hyper::{Request, Response};
use secrecy::SecretString;
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::rates::Rates;
use super::GatewayHandle;
use super::callers::AllowedHosts;
use super::core::ConnectionId;

pub(super) use self::held::Held;
pub use self::rates::RateLimit;
pub(super) use self::upgrade::plain;

/// Whatever a response body can fail with.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// The body of a response of the routes.
pub type ResponseBody = BoxBody<Bytes, BoxError>;

/// Answers everything that is not a runner's connection: the public API, clients' requests and sockets. A request for a
/// socket carries a [`Place`] extension, and `hyper::upgrade::on` works on it.
pub type Routes =
    Arc<dyn Fn(Request<Incoming>) -> Pin<Box<dyn Future<Output = Response<ResponseBody>> + Send>> + Send + Sync>;

/// A connection's place among those there may be, which whoever takes the connection over keeps; an extension of each
/// request that may do so.
#[derive(Clone, Debug)]
pub struct Place {
    _permit: Arc<OwnedSemaphorePermit>,
}

/// How the listener is set up.
#[derive(Clone, Debug)]
pub struct ListenerSettings {
    /// What runners must present; without it everyone is let in.
    pub admin_token: Option<SecretString>,
    /// What runners may call it by when there is no token.
    pub allowed_hosts: AllowedHosts,
    /// How long a runner may take to read what it is sent.
    pub write_timeout: Duration,
    /// What one client may ask; without it, anything.
    pub rate_limit: Option<RateLimit>,
    /// Open connections, runners' and clients' sockets among them.
    pub connections: usize,
    /// From the first byte of a request to the end of its head.
    pub head_timeout: Duration,
    /// From the end of a response to the head of the next request.
    pub idle_timeout: Duration,
}

/// The HTTP server of a gateway.
pub struct Listener {
    gateway: GatewayHandle,
    settings: ListenerSettings,
    routes: Routes,
    connections: AtomicU64,
    rates: Option<Arc<Rates>>,
    places: Arc<Semaphore>,
    /// HTTP connections and runners' sockets.
    tasks: TaskTracker,
    /// No new requests.
    closing: CancellationToken,
    /// Nothing more at all.
    ended: CancellationToken,
}

impl Default for ListenerSettings {
    fn default() -> Self {
        ListenerSettings {
            admin_token: None,
            allowed_hosts: AllowedHosts::Any,
            write_timeout: Duration::from_secs(30),
            rate_limit: Some(RateLimit::default()),
            connections: 100_000,
            head_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_mins(2),
        }
    }
}

impl Listener {
    /// A server that hands what is not a runner's to `routes`.
    #[must_use]
    pub fn new(gateway: GatewayHandle, settings: ListenerSettings, routes: Routes) -> Arc<Self> {
        Arc::new(Listener {
            gateway,
            rates: settings.rate_limit.map(|limit| Rates::new(limit, Instant::now())),
            places: Arc::new(Semaphore::new(settings.connections.min(Semaphore::MAX_PERMITS))),
            settings,
            routes,
            connections: AtomicU64::new(0),
            tasks: TaskTracker::new(),
            closing: CancellationToken::new(),
            ended: CancellationToken::new(),
        })
    }

    /// Accepts connections until [`Listener::close`].
    pub async fn serve(self: Arc<Self>, socket: TcpListener) {
        accept::run(&self, socket).await;
    }

    /// Accepts no more connections, and no more requests on those there are.
    pub fn close(&self) {
        self.closing.cancel();
    }

    /// Waits until every connection has ended, at most for `within`; then ends those that are left.
    pub async fn finish(&self, within: Duration) {
        self.closing.cancel();
        self.tasks.close();
        if tokio::time::timeout(within, self.tasks.wait()).await.is_err() {
            self.ended.cancel();
            self.tasks.wait().await;
        }
    }

    fn next_connection(&self) -> ConnectionId {
        ConnectionId(self.connections.fetch_add(1, Ordering::Relaxed) + 1)
    }
}

impl Place {
    fn new(permit: OwnedSemaphorePermit) -> Self {
        Place { _permit: Arc::new(permit) }
    }
}

impl std::fmt::Debug for Listener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Listener").field("settings", &self.settings).finish_non_exhaustive()
    }
}
