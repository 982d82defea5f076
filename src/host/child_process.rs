//! Actors as child processes: any language, one process per actor life.
//!
//! The process is a web server. It is told where to listen and where its runner's API is through its environment
//! (Actor Process Contract v1), is ready when its socket accepts, and is asked to stop by an event, by SIGTERM and at
//! last by SIGKILL to its whole process group. What it writes to its outputs becomes log records.

mod cgroup;
mod directories;
mod door;
mod end;
mod environment;
mod isolation;
mod leftovers;
mod listen;
mod logs;
mod orphans;
mod process;
mod settings;
mod shared;

use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::time::{Instant, timeout, timeout_at};
use tracing::{debug, warn};

pub use cgroup::{Cgroups, Limits};
pub use directories::Roots;
pub use isolation::{Isolation, landlock, launch, may_change_user};
pub use leftovers::end_leftovers;
pub use orphans::Orphans;
pub use settings::{Listen, START_TIMEOUT, STOP_GRACE, Settings, WebSocketMode};
pub use shared::SharedProcess;

use crate::actor::StopReason;
use crate::host::doors::Token;
use crate::host::http::{App, AppError, hook_answer, hook_details};
use crate::host::{
    ActorContext, ActorHost, Delivery, Doors, EventAnswer, EventError, EventSettings, HostedActor, Request, Responder,
    StartActor, StartError, WebSocket, WebSocketRequest,
};
use directories::Directories;
use door::{Door, Pulling};
use end::End;
use environment::environment;
use listen::Listening;
use process::{Process, shown};

/// The host of the actors of one name, each in a process of its own.
#[derive(Debug)]
pub struct ChildProcess {
    shared: Arc<Shared>,
}

struct Shared {
    settings: Settings,
    roots: Roots,
    doors: Doors,
    /// The command for messages.
    command: String,
}

impl ChildProcess {
    /// A host that runs this command, keeps its files under these roots, and tells its processes of these doors.
    #[must_use]
    pub fn new(settings: Settings, roots: Roots, doors: Doors) -> Self {
        let command = shown(&settings.command);
        ChildProcess { shared: Arc::new(Shared { settings, roots, doors, command }) }
    }
}

impl ActorHost for ChildProcess {
    fn start(
        &self,
        start: Arc<StartActor>,
        context: ActorContext,
    ) -> BoxFuture<'static, Result<Arc<dyn HostedActor>, StartError>> {
        let shared = self.shared.clone();
        async move {
            let deadline = Instant::now() + shared.settings.start_timeout;
            let life = Life::spawn(shared, start, context).await?;
            match life.ready(deadline).await {
                Ok(()) => Ok(Arc::new(life) as Arc<dyn HostedActor>),
                Err(error) => {
                    life.process.kill();
                    life.process.ended().await;
                    life.clean_up().await;
                    Err(error)
                }
            }
        }
        .boxed()
    }

    fn start_timeout(&self) -> Duration {
        self.shared.settings.start_timeout
    }

    fn stop_grace(&self) -> Duration {
        self.shared.settings.stop_grace
    }

    fn events(&self) -> EventSettings {
        self.shared.events()
    }
}

impl Shared {
    /// What the actors take as events.
    fn events(&self) -> EventSettings {
        let settings = &self.settings;
        EventSettings {
            sockets: settings.websocket == WebSocketMode::Events,
            alarms: true,
            sleep_after: settings.sleep_after,
            concurrency: settings.concurrency,
            handler_timeout: settings.handler_timeout,
        }
    }
}

/// One process and what it was given. Fields are dropped in order: first the process goes, then its files.
struct Life {
    process: Process,
    door: Door,
    listening: Listening,
    start: Arc<StartActor>,
    context: ActorContext,
    shared: Arc<Shared>,
    reason: OnceLock<StopReason>,
    belongings: Mutex<Option<Belongings>>,
}

/// What a life has until its end is seen.
struct Belongings {
    directories: Directories,
    _token: Token,
}

impl Life {
    /// Makes the places of a life and spawns its process. Dropped in between, nothing stays behind.
    async fn spawn(shared: Arc<Shared>, start: Arc<StartActor>, context: ActorContext) -> Result<Self, StartError> {
        let spawning = tokio::task::spawn_blocking(move || {
            let token = Token::issue(shared.doors.tokens.clone(), context.clone());
            let directories = Directories::make(&shared.roots, &start.key, token.secret(), shared.settings.user())?;
            let (listening, fd) = Listening::prepare(shared.settings.listen, directories.socket())?;
            let variables = environment(&shared.settings, &start, &shared.doors, &directories, &listening)?;
            let process = Process::spawn(&shared.settings, variables, fd, &directories, &start)?;
            directories.note(process.group());
            let gone = process.gone().clone();
            let door = match listening.address() {
                Some(address) => Door::Web(App::new(address, &start, gone)),
                None => Door::Pull(Pulling::new(context.events().pull_or_new(), &start, gone)),
            };
            let belongings = Mutex::new(Some(Belongings { directories, _token: token }));
            Ok(Life { process, door, listening, start, context, shared, reason: OnceLock::new(), belongings })
        });
        spawning.await.unwrap_or_else(|error| Err(StartError(format!("spawning the process failed: {error}"))))
    }

    /// Resolves when the process serves.
    async fn ready(&self, deadline: Instant) -> Result<(), StartError> {
        let command = &self.shared.command;
        let within = format!("within {:?} (start_timeout)", self.shared.settings.start_timeout);
        let place = self.listening.describe();
        let listens = tokio::select! {
            biased;
            end = self.process.ended() => {
                let words = self.process.last_words();
                return Err(StartError(format!("`{command}` {end} before it could {place}{words}")));
            }
            listens = timeout_at(deadline, self.door.opens()) => listens,
        };
        if listens.is_err() {
            let words = self.process.last_words();
            return Err(StartError(format!("`{command}` did not {place} {within}{words}")));
        }
        let left = deadline.saturating_duration_since(Instant::now());
        let started = tokio::select! {
            biased;
            end = self.process.ended() => {
                let words = self.process.last_words();
                return Err(StartError(format!("`{command}` {end} while it started{words}")));
            }
            started = timeout(left, self.hook("start", self.start.reason.as_str(), left)) => started,
        };
        let text = match started {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(text)) => format!("`{command}` {text}"),
            Err(_) => format!("`{command}` accepts connections and did not answer the start event {within}"),
        };
        Err(StartError(format!("{text}{}", self.process.last_words())))
    }

    /// Tells the app of its start or stop. An app without such a hook is fine; the error is a refusal.
    async fn hook(&self, event: &'static str, reason: &str, left: Duration) -> Result<(), String> {
        match self.door.hook(event, &hook_details(reason, left)).await {
            Ok((status, answer)) => hook_answer(event, status, &answer),
            Err(AppError::Malformed(error)) => Err(format!("does not speak HTTP/1.1: {error}")),
            Err(error @ (AppError::Silent | AppError::Unreachable(_) | AppError::ClientGone | AppError::Busy)) => {
                debug!(%error, event, "an app did not answer an event");
                // A server may close on what it does not know. One that is just crashing is caught by its end.
                self.door.is_gone().await;
                Ok(())
            }
        }
    }

    /// How the process ended, as the runner wants to know it.
    fn verdict(&self, end: End) -> Result<(), String> {
        let words = self.process.last_words();
        let command = &self.shared.command;
        let expected = self.process.end_is_expected() || self.context.wants_to_leave();
        match (end.is_success(), expected) {
            (true, true) => Ok(()),
            (true, false) => Err(format!("`{command}` {end}, without being asked to stop{words}")),
            (false, _) => Err(format!("`{command}` {end}{words}")),
        }
    }

    /// Takes the token back and removes the files.
    async fn clean_up(&self) {
        let belongings = self.belongings.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(Belongings { directories, _token }) = belongings else { return };
        let destroyed = self.reason.get() == Some(&StopReason::Destroy);
        let removal = tokio::task::spawn_blocking(move || {
            if destroyed {
                directories.forget_state();
            }
        });
        if let Err(error) = removal.await {
            warn!(%error, "removing the files of an actor failed");
        }
    }
}

impl HostedActor for Life {
    fn request(self: Arc<Self>, request: Request, responder: Responder) -> BoxFuture<'static, ()> {
        async move { self.door.serve(request, responder).await }.boxed()
    }

    fn websocket(self: Arc<Self>, request: WebSocketRequest, socket: WebSocket) -> BoxFuture<'static, ()> {
        async move { self.door.websocket(request, socket).await }.boxed()
    }

    fn event(self: Arc<Self>, delivery: Delivery) -> BoxFuture<'static, Result<EventAnswer, EventError>> {
        async move { self.door.tell(delivery).await }.boxed()
    }

    fn ended(self: Arc<Self>) -> BoxFuture<'static, Result<(), String>> {
        async move {
            let end = self.process.ended().await;
            self.clean_up().await;
            self.verdict(end)
        }
        .boxed()
    }

    fn stop(self: Arc<Self>, reason: StopReason, grace: Duration) -> BoxFuture<'static, ()> {
        async move {
            // Somebody who asks twice has still asked for the first reason.
            let _ = self.reason.set(reason);
            self.process.expect_end();
            match timeout(grace / 2, self.hook("stop", reason.as_str(), grace)).await {
                Ok(Ok(())) => {}
                Ok(Err(text)) => debug!(text, "an app refused its stop event"),
                Err(_) => debug!("an app did not answer its stop event"),
            }
            self.process.terminate();
        }
        .boxed()
    }

    fn kill(&self) {
        self.process.expect_end();
        self.process.kill();
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("settings", &self.settings).field("roots", &self.roots).finish_non_exhaustive()
    }
}
