//! What the actors file says about actors that are child processes.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::Isolation;
use crate::config::SystemUser;
use crate::host::events::{CONCURRENCY, HANDLER_TIMEOUT};

/// How to run the actors of one name. `Settings::new` has the defaults of the actors file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The program, then its arguments; no shell is involved. A program without a slash is looked up in `PATH`, one
    /// with a slash is relative to `cwd`.
    pub command: Vec<String>,
    /// The working directory; absolute.
    pub cwd: PathBuf,
    /// Variables for the process, on top of `env_file`, `PATH`, `HOME`, `LANG` and `TZ`. Names that the contract
    /// gives out itself (`ACTOR_…`, `LISTEN_…`, `HOST`, `PORT`, `TMPDIR`) are overwritten.
    pub env: BTreeMap<String, String>,
    /// A file of `NAME=value` lines, read at every start; absolute.
    pub env_file: Option<PathBuf>,
    /// Where the process listens.
    pub listen: Listen,
    /// What becomes of client WebSockets.
    pub websocket: WebSocketMode,
    /// How many events the process is told at once.
    pub concurrency: usize,
    /// How long the process may take to answer an event.
    pub handler_timeout: Duration,
    /// Asks for sleep after this long without work; nothing for never.
    pub sleep_after: Option<Duration>,
    /// How long it may take from the spawn until the process accepts connections.
    pub start_timeout: Duration,
    /// How long a stop may take before the process group is killed.
    pub stop_grace: Duration,
    /// What the process is kept from. By default it is a plain process with the rights of the runner, because only a
    /// program that can be its own launcher has the means to restrict it; `greenroom` is one.
    pub isolation: Option<Isolation>,
}

/// Where an actor's process listens for requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Listen {
    /// On the Unix socket that `ACTOR_SOCKET` names.
    #[default]
    Unix,
    /// On the loopback address that `HOST` and `PORT` name.
    Port,
    /// On file descriptor 3, a Unix socket that already listens (`LISTEN_FDS`).
    Fd,
    /// Nowhere: it asks its API for requests and events, and is ready when it first does.
    Pull,
}

/// What becomes of an actor's client WebSockets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WebSocketMode {
    /// The app gets one HTTP call per frame, and sockets outlive its process.
    #[default]
    Events,
    /// The app gets real sockets; the actor stays awake while one is open.
    Proxy,
}

impl Settings {
    /// The defaults, for this command in this directory.
    #[must_use]
    pub fn new(command: Vec<String>, cwd: PathBuf) -> Self {
        Settings {
            command,
            cwd,
            env: BTreeMap::new(),
            env_file: None,
            listen: Listen::default(),
            websocket: WebSocketMode::default(),
            concurrency: CONCURRENCY,
            sleep_after: None,
            handler_timeout: HANDLER_TIMEOUT,
            start_timeout: START_TIMEOUT,
            stop_grace: STOP_GRACE,
            isolation: None,
        }
    }

    /// Who the processes run as, when that is not the user of this one.
    pub(super) fn user(&self) -> Option<&SystemUser> {
        self.isolation.as_ref().and_then(|isolation| isolation.user.as_ref())
    }
}

/// The default of `start_timeout`: below the 30 s after which a Rivet engine gives a start up.
pub const START_TIMEOUT: Duration = Duration::from_secs(20);

/// The default of `stop_grace`: below the default drain timeout of the runner.
pub const STOP_GRACE: Duration = Duration::from_secs(10);
