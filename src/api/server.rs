//! The API's sockets.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::serve::ListenerExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tracing::{debug, warn};

use super::tokens::Tokens;
use crate::egress::Egress;
use crate::host::Doors;
use crate::local_socket;
use crate::reporter::Metadata;

/// The API while it serves. Dropped, it stops.
#[derive(Debug)]
pub struct Api {
    doors: Doors,
    tasks: [JoinHandle<()>; 2],
}

/// What the API passes calls on to, beside the runner.
#[derive(Clone, Debug, Default)]
pub struct Services {
    /// Calls to servers outside.
    pub egress: Arc<Egress>,
    /// What actors add to the worker's state.
    pub metadata: Arc<Metadata>,
}

/// Why the API did not start. The text names the address or path and the setting to look at.
#[derive(Debug, thiserror::Error)]
pub enum ApiFailure {
    /// The port cannot be used.
    #[error("cannot listen on {address}: {error} (--api)")]
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
}

impl Api {
    /// Serves on an address and on `api.sock` in the runtime directory, which is made when it is not there.
    ///
    /// # Errors
    /// [`ApiFailure`]; nothing serves then.
    pub async fn start(address: SocketAddr, runtime_dir: &Path) -> Result<Self, ApiFailure> {
        Self::start_with(address, runtime_dir, Services::default()).await
    }

    /// As [`Api::start`], with servers outside to call and somebody who hears what actors tell of themselves.
    ///
    /// # Errors
    /// [`ApiFailure`]; nothing serves then.
    pub async fn start_with(address: SocketAddr, runtime_dir: &Path, services: Services) -> Result<Self, ApiFailure> {
        let tcp_failure = |error| ApiFailure::Tcp { address, error };
        let tcp = TcpListener::bind(address).await.map_err(tcp_failure)?;
        let local = tcp.local_addr().map_err(tcp_failure)?;
        let path = runtime_dir.join("api.sock");
        let unix = local_socket::bind(&path).map_err(|error| ApiFailure::Unix { path: path.clone(), error })?;
        let tokens = Arc::new(Tokens::default());
        let router = super::router(tokens.clone(), services);
        debug!(address = %local, path = %path.display(), "actor API serves");
        let tasks = [
            tokio::spawn(told("tcp", axum::serve(tcp.tap_io(no_delay), router.clone()).into_future())),
            tokio::spawn(told("unix", axum::serve(unix, router).into_future())),
        ];
        Ok(Api { doors: Doors { tcp: local, unix: path, tokens }, tasks })
    }

    /// What hosts tell their actors.
    #[must_use]
    pub fn doors(&self) -> &Doors {
        &self.doors
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
        // It may be gone with its directory.
        let _ = fs::remove_file(&self.doors.unix);
    }
}

/// Pieces of a stream must not wait for each other's acknowledgement.
fn no_delay(stream: &mut TcpStream) {
    let _ = stream.set_nodelay(true);
}

async fn told(socket: &str, serving: impl Future<Output = io::Result<()>>) {
    if let Err(error) = serving.await {
        warn!(%error, socket, "actor API stopped");
    }
}
