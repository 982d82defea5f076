//! One process for all actors of a name.
//!
//! It starts with the first actor, serves all that come, and is stopped in order when there has been none for a while.
//! When it crashes, the lives of all its actors have crashed; the next one starts it again, after a pause that grows
//! with every crash. A task per process keeps it; the lives hold leases.

use std::ffi::OsStr;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use secrecy::SecretString;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use tracing::{info, warn};

use super::directories::Directories;
use super::environment::environment;
use super::listen::Listening;
use super::process::{Process, shown};
use super::{Roots, Settings, Shared};
use crate::actor::{ActorKey, StartReason, StopReason};
use crate::backoff::Backoff;
use crate::host::http::Site;
use crate::host::tenant::{NoEntry, Place, Tenant};
use crate::host::{ActorContext, ActorHost, Doors, EventSettings, HostedActor, StartActor, StartError};
use crate::telemetry::output;

/// The host of the actors of one name, all in one process.
#[derive(Debug)]
pub struct SharedProcess {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Arc<Shared>,
    /// How long the process waits for another actor when it has none.
    linger: Duration,
    state: Mutex<State>,
}

struct State {
    current: Option<Arc<Running>>,
    backoff: Backoff,
    /// A process that crashed is not started again before this.
    not_before: Option<Instant>,
}

/// A process that starts or runs, with those who use it.
struct Running {
    phase: watch::Sender<Phase>,
    users: watch::Sender<usize>,
}

#[derive(Clone)]
enum Phase {
    Starting,
    Serving(Arc<Server>),
    Failed(StartError),
}

/// A process that serves. Fields are dropped in order: first the process goes, then its files.
struct Server {
    process: Process,
    site: Site,
    command: String,
    _listening: Listening,
    _directories: Directories,
}

/// A use of a process; while there is one, the process is not stopped.
struct Lease(Arc<Running>);

/// What an actor life has of the process.
struct Stay {
    inner: Arc<Inner>,
    server: Arc<Server>,
    lease: Mutex<Option<Lease>>,
    /// The process ends with this life.
    last: AtomicBool,
}

impl SharedProcess {
    /// A host that runs this command once for all actors, keeps its files under these roots, and tells it of these
    /// doors. The process must listen: `Listen::Pull` is for one actor.
    #[must_use]
    pub fn new(settings: Settings, roots: Roots, doors: Doors) -> Self {
        Self::lingering(settings, roots, doors, LINGER)
    }

    /// [`SharedProcess::new`] whose process stays for this long when its last actor has gone, instead of 30 s.
    #[must_use]
    pub fn lingering(settings: Settings, roots: Roots, doors: Doors, linger: Duration) -> Self {
        let command = shown(&settings.command);
        let shared = Arc::new(Shared { settings, roots, doors, command });
        let backoff = Backoff::new(BACKOFF_FIRST, BACKOFF_MOST, rand::random());
        let state = Mutex::new(State { current: None, backoff, not_before: None });
        SharedProcess { inner: Arc::new(Inner { shared, linger, state }) }
    }
}

impl ActorHost for SharedProcess {
    fn start(
        &self,
        start: Arc<StartActor>,
        context: ActorContext,
    ) -> BoxFuture<'static, Result<Arc<dyn HostedActor>, StartError>> {
        let inner = self.inner.clone();
        async move {
            let deadline = Instant::now() + inner.shared.settings.start_timeout;
            let lease = inner.lease(&start.name);
            let server = lease.server().await?;
            let (site, gone) = (server.site.clone(), server.process.gone().clone());
            let stay =
                Stay { inner: inner.clone(), server, lease: Mutex::new(Some(lease)), last: AtomicBool::new(false) };
            let place = (Arc::new(stay) as Arc<dyn Place>, gone);
            match Tenant::enter(&site, &start, context, &inner.shared.doors, place, deadline).await {
                Ok(tenant) => Ok(tenant as Arc<dyn HostedActor>),
                Err(NoEntry::Gone(why)) => Err(StartError(why)),
                Err(NoEntry::Away(why) | NoEntry::Refused(why)) => {
                    Err(StartError(format!("`{}` {why}", inner.shared.command)))
                }
            }
        }
        .boxed()
    }

    fn start_timeout(&self) -> Duration {
        self.inner.shared.settings.start_timeout
    }

    fn stop_grace(&self) -> Duration {
        self.inner.shared.settings.stop_grace
    }

    fn events(&self) -> EventSettings {
        self.inner.shared.events()
    }
}

impl Inner {
    /// A use of the process, which is started when there is none.
    fn lease(self: &Arc<Self>, name: &Arc<str>) -> Lease {
        let mut state = self.state();
        let running = match &state.current {
            Some(running) => running.clone(),
            None => {
                let running =
                    Arc::new(Running { phase: watch::Sender::new(Phase::Starting), users: watch::Sender::new(0) });
                state.current = Some(running.clone());
                let keep = keep(self.clone(), running.clone(), name.clone(), state.not_before);
                tokio::spawn(keep);
                running
            }
        };
        running.users.send_modify(|users| *users += 1);
        Lease(running)
    }

    /// Takes a process that nobody uses out of use, so that it can be ended.
    fn retire(&self, running: &Arc<Running>) -> bool {
        let mut state = self.state();
        let unused = *running.users.borrow() == 0;
        let retires = unused && state.is_current(running);
        if retires {
            state.current = None;
        }
        retires
    }

    /// The process is no more, unasked, or did not start.
    fn crashed(&self, running: &Arc<Running>, began: Instant) {
        let mut state = self.state();
        if state.is_current(running) {
            state.current = None;
            if began.elapsed() > STABLE {
                state.backoff.reset();
            }
            let delay = state.backoff.next_delay().min(self.shared.settings.start_timeout / 2);
            state.not_before = Some(Instant::now() + delay);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn is_current(&self, running: &Arc<Running>) -> bool {
        self.current.as_ref().is_some_and(|current| Arc::ptr_eq(current, running))
    }
}

impl Lease {
    /// Resolves when the process serves, or has failed to.
    async fn server(&self) -> Result<Arc<Server>, StartError> {
        let mut phase = self.0.phase.subscribe();
        let settled = phase.wait_for(|phase| !matches!(phase, Phase::Starting)).await.map(|phase| phase.clone());
        match settled {
            Ok(Phase::Serving(server)) => Ok(server),
            Ok(Phase::Failed(error)) => Err(error),
            Ok(Phase::Starting) | Err(_) => Err(StartError("the start of the process was given up".to_owned())),
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.0.users.send_modify(|users| *users -= 1);
    }
}

/// Starts a process and keeps it until it ends, or nobody has used it for a while.
async fn keep(inner: Arc<Inner>, running: Arc<Running>, name: Arc<str>, not_before: Option<Instant>) {
    let deadline = Instant::now() + inner.shared.settings.start_timeout;
    if let Some(not_before) = not_before {
        sleep_until(not_before).await;
    }
    let began = Instant::now();
    let server = match Server::start(&inner.shared, &name, deadline).await {
        Ok(server) => Arc::new(server),
        Err(error) => {
            warn!(%name, %error, "the process of an actor name did not start");
            inner.crashed(&running, began);
            running.phase.send_replace(Phase::Failed(error));
            return;
        }
    };
    info!(%name, pid = server.process.group().as_raw_nonzero().get(), "the process of an actor name runs");
    running.phase.send_replace(Phase::Serving(server.clone()));
    let mut users = running.users.subscribe();
    loop {
        tokio::select! {
            biased;
            why = server.ended() => {
                if !server.process.end_is_expected() {
                    warn!(%name, reason = why, "the process of an actor name crashed");
                }
                return inner.crashed(&running, began);
            }
            () = unused(&mut users, inner.linger) => {
                if inner.retire(&running) {
                    info!(%name, "no actor uses the process of this name; stopping it");
                    return server.end(inner.shared.settings.stop_grace).await;
                }
            }
        }
    }
}

/// Resolves when there was no user for this long.
async fn unused(users: &mut watch::Receiver<usize>, linger: Duration) {
    loop {
        // The other end is the caller's.
        let _ = users.wait_for(|users| *users == 0).await;
        if timeout(linger, users.wait_for(|users| *users > 0)).await.is_err() {
            return;
        }
    }
}

impl Server {
    /// Spawns the process and resolves when it accepts connections. Dropped in between, nothing stays behind.
    async fn start(shared: &Arc<Shared>, name: &Arc<str>, deadline: Instant) -> Result<Self, StartError> {
        let (spawner, name) = (shared.clone(), name.clone());
        let spawning = tokio::task::spawn_blocking(move || Server::spawn(&spawner, name));
        let spawned = spawning.await;
        let (server, place) =
            spawned.unwrap_or_else(|error| Err(StartError(format!("spawning the process failed: {error}"))))?;
        let command = &server.command;
        let listens = tokio::select! {
            biased;
            end = server.process.ended() => {
                let words = server.process.last_words();
                return Err(StartError(format!("`{command}` {end} before it could {place}{words}")));
            }
            listens = timeout_at(deadline, server.site.listens()) => listens,
        };
        if listens.is_ok() {
            return Ok(server);
        }
        let within = shared.settings.start_timeout;
        let words = server.process.last_words();
        let error = format!("`{command}` did not {place} within {within:?} (start_timeout){words}");
        server.process.kill();
        server.process.ended().await;
        Err(StartError(error))
    }

    fn spawn(shared: &Shared, name: Arc<str>) -> Result<(Self, String), StartError> {
        let start = Arc::new(StartActor {
            key: ActorKey::new(output::process_of(&name), 0),
            name,
            actor_key: None,
            create_ts: 0,
            input: None,
            reason: StartReason::Create,
            hibernating: Vec::new(),
        });
        // Tokens are for actors, and come with their requests.
        let directories =
            Directories::make(&shared.roots, &start.key, &SecretString::from(""), shared.settings.user())?;
        let (listening, fd) = Listening::prepare(shared.settings.listen, directories.socket())?;
        let Some(address) = listening.address() else {
            return Err(StartError("listen = \"pull\" is for processes of one actor".to_owned()));
        };
        let mut variables = environment(&shared.settings, &start, &shared.doors, &directories, &listening)?;
        variables.retain(|name, _| !OF_ONE_ACTOR.iter().any(|one| name == OsStr::new(one)));
        let process = Process::spawn(&shared.settings, variables, fd, &directories, &start)?;
        directories.note(process.group());
        let place = listening.describe();
        let (site, command) = (Site::of_many(address), shared.command.clone());
        Ok((Server { process, site, command, _listening: listening, _directories: directories }, place))
    }

    /// Resolves when the process is no more, with how it ended.
    async fn ended(&self) -> String {
        let end = self.process.ended().await;
        let unasked = if end.is_success() { ", without being asked to stop" } else { "" };
        format!("`{}` {end}{unasked}{}", self.command, self.process.last_words())
    }

    /// Ends the process in order, or after this time by force.
    async fn end(&self, grace: Duration) {
        self.process.expect_end();
        self.process.terminate();
        if timeout(grace, self.process.ended()).await.is_err() {
            self.process.kill();
            self.process.ended().await;
        }
    }
}

impl Place for Stay {
    fn gone(&self) -> BoxFuture<'_, String> {
        self.server.ended().boxed()
    }

    fn left(&self, reason: Option<StopReason>) -> BoxFuture<'_, ()> {
        async move {
            let lease = self.lease.lock().unwrap_or_else(PoisonError::into_inner).take();
            let Some(running) = lease.map(|lease| lease.0.clone()) else { return };
            // A runner that drains may be gone before the process has lingered.
            if reason == Some(StopReason::Drain) && self.inner.retire(&running) {
                self.last.store(true, Ordering::Release);
                self.server.end(self.inner.shared.settings.stop_grace).await;
            }
        }
        .boxed()
    }

    fn kill(&self) {
        if self.last.load(Ordering::Acquire) {
            self.server.process.kill();
        }
    }
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inner").field("shared", &self.shared).field("linger", &self.linger).finish_non_exhaustive()
    }
}

/// Variables that say which actor a process is; one process for many is told with every request.
const OF_ONE_ACTOR: [&str; 5] = ["ACTOR_ID", "ACTOR_KEY", "ACTOR_GENERATION", "ACTOR_START_REASON", "ACTOR_TOKEN_FILE"];

/// How long a process waits for another actor: longer than a client that comes back after a short sleep of its actor.
const LINGER: Duration = Duration::from_secs(30);

/// The pause before a process that crashed is started again; actors wait for it within their own start timeout.
const BACKOFF_FIRST: Duration = Duration::from_millis(250);

/// The longest such pause.
const BACKOFF_MOST: Duration = Duration::from_secs(5);

/// A process that ran for this long has not crashed for the reason of the crash before.
const STABLE: Duration = Duration::from_secs(60);
