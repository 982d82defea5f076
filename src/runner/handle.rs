//! The owner's door to a running runner.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};

use crate::actor::{ActorKey, Outcome};
use crate::config::Endpoint;
use crate::host::{ActorContext, ActorHost, Call, CallSender, Gone, StartActor};
use crate::runner::{ActorLife, Census};
use crate::session::{Exit, LinkStatus, Settings};
use crate::socket::Target;

/// A running runner. Cheap to clone; dropping it does not stop the runner.
#[derive(Clone, Debug)]
pub struct RunnerHandle {
    pub(super) calls: CallSender,
    pub(super) commands: mpsc::Sender<Command>,
    pub(super) status: watch::Receiver<Status>,
    pub(super) exit: watch::Receiver<Option<Exit>>,
    pub(super) identity: Arc<Identity>,
}

/// How a runner is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// The link to the gateway.
    pub link: LinkStatus,
    /// The identity the gateway gave, once it did.
    pub runner_id: Option<Arc<str>>,
    /// How long the gateway keeps the actors of a runner that is away, once it has said so.
    pub lost_after: Option<Duration>,
    /// Why the link is not open, in words.
    pub reason: Option<String>,
    /// Actors that have not ended.
    pub actors: usize,
    /// The runner stops and takes no new actors.
    pub draining: bool,
}

/// Who a runner is, and whose.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Its gateway.
    pub endpoint: Endpoint,
    /// The namespace there.
    pub namespace: String,
    /// The pool that actors are matched to.
    pub pool: String,
    /// Its identity in the pool.
    pub key: String,
    /// The version of its actors.
    pub version: u32,
    /// Actors at once.
    pub slots: u32,
    /// The version of the runner protocol.
    pub protocol_version: u16,
}

/// An actor of this runner.
#[derive(Clone, Debug)]
pub struct ActorInfo {
    /// What it was started with.
    pub start: Arc<StartActor>,
    /// It serves.
    pub running: bool,
    /// What can be done in its name: storage, alarm, sleep, destroy.
    pub context: ActorContext,
}

/// What the owner wants.
pub(super) enum Command {
    Actor { id: Arc<str>, generation: Option<u32>, reply: oneshot::Sender<Option<ActorInfo>> },
    Actors { reply: oneshot::Sender<Vec<ActorInfo>> },
    Lives { reply: oneshot::Sender<Vec<ActorLife>> },
    Census { reply: oneshot::Sender<Census> },
    WaitStarted { key: ActorKey, reply: oneshot::Sender<bool> },
    SetHosts { hosts: BTreeMap<Arc<str>, Arc<dyn ActorHost>> },
    Drain { within: Duration },
    StopNow,
}

impl RunnerHandle {
    /// An actor by id, and by generation when one is given, else its newest life.
    pub async fn actor(&self, id: impl Into<Arc<str>>, generation: Option<u32>) -> Option<ActorInfo> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(Command::Actor { id: id.into(), generation, reply }).await.ok()?;
        answer.await.ok().flatten()
    }

    /// All actors that have not ended.
    pub async fn actors(&self) -> Vec<ActorInfo> {
        let (reply, answer) = oneshot::channel();
        if self.commands.send(Command::Actors { reply }).await.is_err() {
            return Vec::new();
        }
        answer.await.unwrap_or_default()
    }

    /// Every life that has not ended, and after them the last ones that have; nothing when the runner has stopped.
    pub async fn lives(&self) -> Option<Vec<ActorLife>> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(Command::Lives { reply }).await.ok()?;
        answer.await.ok()
    }

    /// How many actors there are, by name; nothing when the runner has stopped.
    pub async fn census(&self) -> Option<Census> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(Command::Census { reply }).await.ok()?;
        answer.await.ok()
    }

    /// Who this runner is.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Waits until this life serves; `false` when it ended first or is not here.
    pub async fn started(&self, key: &ActorKey) -> bool {
        let (reply, answer) = oneshot::channel();
        if self.commands.send(Command::WaitStarted { key: key.clone(), reply }).await.is_err() {
            return false;
        }
        answer.await.unwrap_or(false)
    }

    /// Asks for an actor's sleep, as the actor itself could.
    ///
    /// # Errors
    /// [`Gone`] when the runner has stopped.
    pub async fn sleep(&self, key: &ActorKey) -> Result<(), Gone> {
        self.call(Call::Sleep(key.clone())).await
    }

    /// Stops an actor. The outcome decides what the gateway does: after [`Outcome::Wanted`] it destroys the actor with
    /// its state, after [`Outcome::Failed`] its crash policy applies.
    ///
    /// # Errors
    /// [`Gone`] when the runner has stopped.
    pub async fn stop(&self, key: &ActorKey, outcome: Outcome) -> Result<(), Gone> {
        self.call(Call::Stop(key.clone(), outcome)).await
    }

    /// Ends an actor without asking it; its crash policy applies.
    ///
    /// # Errors
    /// [`Gone`] when the runner has stopped.
    pub async fn force_stop(&self, key: &ActorKey) -> Result<(), Gone> {
        self.call(Call::Kill(key.clone())).await
    }

    /// How the runner is doing now.
    #[must_use]
    pub fn status(&self) -> Status {
        self.status.borrow().clone()
    }

    /// Every change of how the runner is doing: connected, disconnected, draining.
    #[must_use]
    pub fn watch_status(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }

    /// Waits until the session is initialised; `false` when the runner ended first.
    pub async fn connected(&self) -> bool {
        self.status.clone().wait_for(|status| status.link == LinkStatus::Open).await.is_ok()
    }

    /// Runs actors on these hosts from now on. Actors that run go on as they are, also when their name is gone: only new
    /// lives start by what is said here. The gateway learns new names when the runner is started again, or when an actor
    /// of the name is made.
    pub async fn set_hosts(&self, hosts: impl IntoIterator<Item = (String, Arc<dyn ActorHost>)>) {
        let hosts = hosts.into_iter().map(|(name, host)| (Arc::from(name), host)).collect();
        // A runner that has ended starts nothing.
        let _ = self.commands.send(Command::SetHosts { hosts }).await;
    }

    /// Stops politely, within about this time. [`RunnerHandle::wait`] tells the end.
    pub async fn drain(&self, within: Duration) {
        // A runner that is gone has nothing left to drain.
        let _ = self.commands.send(Command::Drain { within }).await;
    }

    /// Stops at once: actors are killed, the gateway learns of it when it can.
    pub async fn stop_now(&self) {
        // A runner that is gone has stopped.
        let _ = self.commands.send(Command::StopNow).await;
    }

    /// Waits for the end and says how it came.
    pub async fn wait(&self) -> Exit {
        let mut exit = self.exit.clone();
        match exit.wait_for(Option::is_some).await {
            Ok(exit) => exit.clone().unwrap_or(Exit::Drained),
            Err(_) => Exit::Refused("the runner's driver ended unexpectedly".to_owned()),
        }
    }

    async fn call(&self, call: Call) -> Result<(), Gone> {
        self.calls.send(call).await.map_err(|_| Gone)
    }
}

impl Identity {
    pub(super) fn new(target: &Target, settings: &Settings) -> Self {
        Identity {
            endpoint: target.endpoint.clone(),
            namespace: target.namespace.clone(),
            pool: settings.init.name.to_string(),
            key: target.runner_key.clone(),
            version: settings.init.version,
            slots: settings.init.total_slots,
            protocol_version: settings.version as u16,
        }
    }
}
