//! A gateway from start to stop.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use secrecy::SecretString;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tracing::info;

use super::GatewayHandle;
use super::callers::AllowedHosts;
use super::core::{Boot, Core, Limits, Settings, Thresholds};
use super::driver::{self, Driver, Order};
use super::handle::Namespaces;
use super::ingress::{Ingress, Patience};
use super::listener::{Listener, ListenerSettings};
use super::public_api::{ApiSettings, PublicApi};
use crate::store::{Committer, Found, Query, SqliteStore, Store, StoreError, StoreHandle};

/// What a gateway is started with.
#[derive(Clone, Debug)]
pub struct GatewayOptions {
    /// Where it listens; port 0 lets the system choose.
    pub listen: SocketAddr,
    /// Where its database is; created when missing.
    pub data_dir: PathBuf,
    /// What the callers of the API and the runners must present; without it everyone is let in.
    pub admin_token: Option<SecretString>,
    /// How long runners and actors may take.
    pub thresholds: Thresholds,
    /// How much may wait.
    pub limits: Limits,
    /// How long clients are kept waiting.
    pub patience: Patience,
    /// What the listener takes; its token and names are those of these options.
    pub listener: ListenerSettings,
    /// What callers of the API and runners may call it by when there is no token.
    pub allowed_hosts: AllowedHosts,
}

/// Why a gateway did not start, or did not go on. The text says what to look at.
#[derive(Debug, thiserror::Error)]
pub enum GatewayFailure {
    /// The database cannot be used.
    #[error("{0} (--data-dir)")]
    Store(#[from] StoreError),
    /// Nobody could reach it.
    #[error("cannot listen on {address}: {error} (--listen)")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        error: io::Error,
    },
    /// The system gives no thread.
    #[error("cannot start the store's thread: {0}")]
    Thread(io::Error),
    /// A bug in greenroom.
    #[error("the gateway ended unexpectedly: {0}")]
    Panicked(String),
}

/// A gateway that serves.
#[derive(Debug)]
pub struct RunningGateway {
    handle: GatewayHandle,
    local_addr: SocketAddr,
    ingress: Arc<Ingress>,
    listener: Arc<Listener>,
    accepting: JoinHandle<()>,
    driver: JoinHandle<Result<(), StoreError>>,
    committer: Committer,
}

impl GatewayOptions {
    /// A gateway with the defaults of the Rivet engine.
    #[must_use]
    pub fn new(listen: SocketAddr, data_dir: impl Into<PathBuf>) -> Self {
        GatewayOptions {
            listen,
            data_dir: data_dir.into(),
            admin_token: None,
            thresholds: Thresholds::default(),
            limits: Limits::default(),
            patience: Patience::default(),
            listener: ListenerSettings::default(),
            allowed_hosts: AllowedHosts::Any,
        }
    }
}

impl RunningGateway {
    /// Starts a gateway on the database of its data directory. It serves when this returns.
    ///
    /// # Errors
    /// [`GatewayFailure`] when the database or the address cannot be used.
    pub async fn start(options: GatewayOptions) -> Result<Self, GatewayFailure> {
        let begin = Instant::now();
        let dir = options.data_dir.clone();
        let store = tokio::task::spawn_blocking(move || SqliteStore::open(&dir)).await;
        let store = store.map_err(|error| GatewayFailure::Panicked(error.to_string()))??;
        let gateway = Self::start_with(store, options).await?;
        let startup_ms = u64::try_from(begin.elapsed().as_millis()).unwrap_or(u64::MAX);
        info!(address = %gateway.local_addr, startup_ms, "gateway serves");
        Ok(gateway)
    }

    /// As [`RunningGateway::start`], on a store of the caller's.
    ///
    /// # Errors
    /// [`GatewayFailure`].
    pub async fn start_with(store: impl Store, options: GatewayOptions) -> Result<Self, GatewayFailure> {
        // Before anything is changed on disk: a second gateway fails here.
        let address = options.listen;
        let listen = |error| GatewayFailure::Listen { address, error };
        let socket = TcpListener::bind(address).await.map_err(listen)?;
        let local_addr = socket.local_addr().map_err(listen)?;

        let (store, committer) = Committer::start(store).map_err(GatewayFailure::Thread)?;
        let boot = match boot(&store).await {
            Ok(boot) => boot,
            Err(error) => {
                stop_committer(committer).await?;
                return Err(error.into());
            }
        };
        info!(address = %local_addr, actors = boot.actors.len(), runners = boot.runners.len(), "gateway starts");
        let settings = Settings {
            thresholds: options.thresholds,
            limits: options.limits,
            gateway_id: rand::random(),
            seed: [rand::random(), rand::random()],
        };
        let core = Core::new(settings, boot, driver::now());
        let namespaces = Arc::new(Namespaces::default());
        let (orders, inbox) = mpsc::channel(INBOX);
        // Unbounded, because who sends here cannot wait, and bounded all the same: there is at most one per commit and
        // question that the store has, whose queue has a budget, and one per open stream, of which there is a limit.
        let (asides, aside_inbox) = mpsc::unbounded_channel();
        let handle = GatewayHandle::new(orders, asides.clone(), store.clone(), namespaces.clone());
        let driver = Driver::new(core, store, namespaces, asides);
        let driver = tokio::spawn(driver.run(inbox, aside_inbox));
        // From here on the namespaces can be looked up. Should the store fail already, `failed` says so.
        let _ = handle.settle().await;

        let allowed_hosts = if options.admin_token.is_some() { AllowedHosts::Any } else { options.allowed_hosts };
        let api = ApiSettings {
            admin_token: options.admin_token.clone(),
            allowed_hosts: allowed_hosts.clone(),
            public_url: None,
        };
        let ingress = Ingress::new(handle.clone(), PublicApi::new(handle.clone(), api), options.patience);
        let settings = ListenerSettings { admin_token: options.admin_token, allowed_hosts, ..options.listener };
        let listener = Listener::new(handle.clone(), settings, ingress.routes());
        let accepting = tokio::spawn(Arc::clone(&listener).serve(socket));
        Ok(RunningGateway { handle, local_addr, ingress, listener, accepting, driver, committer })
    }

    /// Where it listens.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// The door to its driver.
    #[must_use]
    pub fn handle(&self) -> &GatewayHandle {
        &self.handle
    }

    /// Resolves when the gateway cannot go on: its store failed.
    pub async fn failed(&mut self) -> GatewayFailure {
        match (&mut self.driver).await {
            Ok(Ok(())) => GatewayFailure::Panicked("its driver stopped".to_owned()),
            Ok(Err(error)) => error.into(),
            Err(error) => GatewayFailure::Panicked(error.to_string()),
        }
    }

    /// Stops: no new requests, runners are told to come back, clients that something went wrong, and everything that
    /// was promised is on disk.
    ///
    /// # Errors
    /// [`GatewayFailure`] when the last writes failed.
    pub async fn stop(self) -> Result<(), GatewayFailure> {
        self.listener.close();
        // It only waits for connections.
        let _ = self.accepting.await;
        let (done, stopped) = oneshot::channel();
        if self.handle.orders().send(Order::Shutdown { done }).await.is_ok() {
            // Dropped by the driver when it has ended.
            let _ = stopped.await;
        }
        let _ = tokio::time::timeout(GOODBYE, self.ingress.stop()).await;
        self.listener.finish(GOODBYE).await;
        let driver = if self.driver.is_finished() { Ok(()) } else { self.driver.await.unwrap_or(Ok(())) };
        stop_committer(self.committer).await?;
        driver?;
        info!("gateway stopped");
        Ok(())
    }
}

/// Runs a gateway until `shutdown` resolves or it cannot go on; `ready` hears of it when it serves.
///
/// # Errors
/// [`GatewayFailure`].
pub async fn run(
    options: GatewayOptions,
    ready: impl FnOnce(&RunningGateway),
    shutdown: impl Future<Output = ()>,
) -> Result<(), GatewayFailure> {
    let mut gateway = RunningGateway::start(options).await?;
    ready(&gateway);
    let failure = tokio::select! {
        () = shutdown => None,
        failure = gateway.failed() => Some(failure),
    };
    match failure {
        None => gateway.stop().await,
        Some(failure) => {
            // What can still be said to anyone is said; the first failure is the one that counts.
            let _ = gateway.stop().await;
            Err(failure)
        }
    }
}

/// What the core must know of the past.
async fn boot(store: &StoreHandle) -> Result<Boot, StoreError> {
    let mut boot = Boot::default();
    if let Found::Namespaces(namespaces) = store.read(Query::Namespaces).await? {
        boot.namespaces = namespaces;
    }
    for namespace in &boot.namespaces {
        let namespace_id = namespace.id.clone();
        if let Found::RunnerConfigs(configs) = store.read(Query::RunnerConfigs { namespace_id }).await? {
            boot.runner_configs.extend(configs);
        }
        let names = Query::ActorNames { namespace_id: namespace.id.clone(), after: None, limit: usize::MAX };
        if let Found::ActorNames(names) = store.read(names).await? {
            boot.actor_names.extend(names);
        }
    }
    if let Found::Runners(runners) = store.read(Query::Runners).await? {
        boot.runners = runners;
    }
    if let Found::Actors(actors) = store.read(Query::AwakeActors).await? {
        boot.actors = actors;
    }
    if let Found::Alarm(alarm) = store.read(Query::NextAlarm).await? {
        boot.next_alarm = alarm;
    }
    Ok(boot)
}

async fn stop_committer(committer: Committer) -> Result<(), GatewayFailure> {
    let stopped = tokio::task::spawn_blocking(move || committer.stop()).await;
    Ok(stopped.map_err(|error| GatewayFailure::Panicked(error.to_string()))??)
}

/// Orders that may wait for the driver.
const INBOX: usize = 4_096;
/// How long clients and runners may take to say goodbye.
const GOODBYE: Duration = Duration::from_secs(5);
