//! One actor life, from its start to its end.
//!
//! A task per life starts the actor under a deadline, opens it to requests and sockets, notices that it ended, and
//! stops it in order. The [`ActorHandle`] is the runner's end: none of its methods waits, and once the actor runs a
//! request costs one task and nothing else.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{Instrument, debug, error, info, warn};

use crate::actor::{ActorKey, Outcome, StopReason};
use crate::host::call::send;
use crate::host::events::activity::{Activity, Work};
use crate::host::events::engine::forward;
use crate::host::events::{Events, reserved};
use crate::host::panics::caught;
use crate::host::{
    ActorContext, ActorHost, Call, CallSender, HostedActor, Request, Responder, StartActor, StartError, WebSocket,
    WebSocketRequest,
};

/// Starts one actor life and returns at once; what becomes of it arrives as [`Call`]s.
///
/// [`Call::Running`] comes at most once, [`Call::Ended`] exactly once and last: by then everything the life started is
/// gone. Must be called on a tokio runtime.
#[must_use = "dropping the last handle kills the actor"]
pub fn supervise(host: Arc<dyn ActorHost>, start: Arc<StartActor>, calls: CallSender) -> ActorHandle {
    let span =
        tracing::info_span!("actor", actor_id = %start.key.id, generation = start.key.generation, name = %start.name);
    let context = ActorContext::with_events(start, calls, Events::new(host.events()));
    let admission = Arc::new(Admission::new(context.events().activity().clone()));
    let life = Life { host: host.clone(), admission: admission.clone(), context: context.clone() };
    tokio::spawn(life.run().instrument(span));
    ActorHandle { inner: Arc::new(Inner { host, context, admission }) }
}

/// The runner's end of one actor life. Cheap to clone; dropping the last one kills the actor.
#[derive(Clone)]
pub struct ActorHandle {
    inner: Arc<Inner>,
}

struct Inner {
    host: Arc<dyn ActorHost>,
    context: ActorContext,
    admission: Arc<Admission>,
}

impl ActorHandle {
    /// Identity and generation.
    #[must_use]
    pub fn key(&self) -> &ActorKey {
        self.inner.context.key()
    }

    /// What can be done in the actor's name.
    #[must_use]
    pub fn context(&self) -> &ActorContext {
        &self.inner.context
    }

    /// Hands a request to the actor; while it starts, up to [`WAITING_MAX`] wait.
    ///
    /// `None` when the actor takes no more: the responder was dropped and has aborted the request.
    #[must_use = "the task is how the request is cancelled when its client goes away"]
    pub fn request(&self, request: Request, responder: Responder) -> Option<StreamTask> {
        self.inner.admission.admit(Kind::Request, |actor| actor.request(request, responder))
    }

    /// Hands a client's socket to the actor; while it starts, up to [`WAITING_MAX`] wait.
    ///
    /// `None` when the actor takes no more: the socket was dropped and has closed.
    #[must_use = "the task is how the socket is cancelled when its client goes away"]
    pub fn websocket(&self, request: WebSocketRequest, socket: WebSocket) -> Option<StreamTask> {
        let Inner { host, context, admission } = &*self.inner;
        if context.events().settings().sockets && host.takes_as_events(&request) {
            return self.event_socket(Some(request), socket);
        }
        admission.admit(Kind::Socket, |actor| actor.websocket(request, socket))
    }

    /// Hands the actor a socket that an earlier life of it took.
    ///
    /// `None` when the actor takes no more, or no sockets as events; the gateway keeps the socket.
    #[must_use = "the task is how the socket is cancelled when its client goes away"]
    pub fn restored(&self, socket: WebSocket) -> Option<StreamTask> {
        if !self.inner.context.events().settings().sockets {
            return None;
        }
        self.event_socket(None, socket)
    }

    fn event_socket(&self, request: Option<WebSocketRequest>, socket: WebSocket) -> Option<StreamTask> {
        let context = self.inner.context.clone();
        let serve = move |actor| forward(context.events().engine(&actor, &context), request, socket);
        self.inner.admission.admit(Kind::EventSocket, serve)
    }

    /// Stops the actor in order. Nothing is admitted from now on; only the first reason counts.
    pub fn stop(&self, reason: StopReason) {
        self.inner.admission.wish(Wish::Stop(reason));
    }

    /// Ends the actor now, also in the middle of a stop.
    pub fn kill(&self) {
        self.inner.admission.wish(Wish::Kill);
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Without a runner nobody wants the actor any more.
        self.admission.wish(Wish::Kill);
    }
}

impl fmt::Debug for ActorHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ActorHandle({})", self.key())
    }
}

/// The task that serves one request or socket. Dropping this leaves the task alone.
#[derive(Debug)]
pub struct StreamTask(AbortHandle);

impl StreamTask {
    /// Ends the task: the client went away, or the answer is of no use any more.
    pub fn cancel(&self) {
        self.0.abort();
    }

    /// Whether the task is over.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.0.is_finished()
    }
}

/// What the runner wants of a life; it only ever rises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wish {
    Run,
    Stop(StopReason),
    Kill,
}

impl Wish {
    fn rank(self) -> u8 {
        match self {
            Wish::Run => 0,
            Wish::Stop(_) => 1,
            Wish::Kill => 2,
        }
    }
}

/// Who gets in, the tasks of those who did, and when it is over.
struct Admission {
    wish: Mutex<Wish>,
    wished: Notify,
    phase: RwLock<Phase>,
    phase_changed: Notify,
    waiting: AtomicUsize,
    requests: TaskTracker,
    sockets: TaskTracker,
    over: CancellationToken,
    activity: Arc<Activity>,
}

enum Phase {
    Starting,
    Running(Arc<dyn HostedActor>),
    Closed,
}

enum Kind {
    Request,
    /// One that the actor holds itself.
    Socket,
    /// One whose frames come as events.
    EventSocket,
}

impl Admission {
    fn new(activity: Arc<Activity>) -> Self {
        Admission {
            activity,
            wish: Mutex::new(Wish::Run),
            wished: Notify::new(),
            phase: RwLock::new(Phase::Starting),
            phase_changed: Notify::new(),
            waiting: AtomicUsize::new(0),
            requests: TaskTracker::new(),
            sockets: TaskTracker::new(),
            over: CancellationToken::new(),
        }
    }

    /// Spawns the task that serves a stream, while the phase is held: a task is tracked before the phase can change,
    /// so nothing slips in behind a stop.
    fn admit<F>(
        self: &Arc<Self>,
        kind: Kind,
        serve: impl FnOnce(Arc<dyn HostedActor>) -> F + Send + 'static,
    ) -> Option<StreamTask>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (tasks, work) = match kind {
            Kind::Request => (&self.requests, Some(Work::Request)),
            Kind::Socket => (&self.sockets, Some(Work::Socket)),
            Kind::EventSocket => (&self.sockets, None),
        };
        let working = work.map(|work| self.activity.working(work));
        let over = self.over.clone();
        let task = match &*self.phase.read().unwrap_or_else(PoisonError::into_inner) {
            Phase::Running(actor) => {
                // Made here and not in the task, which would keep what it is made of as well.
                let served = serve(actor.clone());
                tasks.spawn(async move {
                    let _working = working;
                    over.run_until_cancelled(served).await;
                })
            }
            Phase::Starting => {
                let place = Place::take(self)?;
                tasks.spawn(async move {
                    let _working = working;
                    over.run_until_cancelled(async move {
                        let actor = place.0.started().await;
                        drop(place);
                        if let Some(actor) = actor {
                            serve(actor).await;
                        }
                    })
                    .await;
                })
            }
            Phase::Closed => return None,
        };
        Some(StreamTask(task.abort_handle()))
    }

    /// Waits until it is open; nothing when it is closed.
    async fn started(&self) -> Option<Arc<dyn HostedActor>> {
        loop {
            let changed = self.phase_changed.notified();
            match &*self.phase.read().unwrap_or_else(PoisonError::into_inner) {
                Phase::Starting => {}
                Phase::Running(actor) => return Some(actor.clone()),
                Phase::Closed => return None,
            }
            changed.await;
        }
    }

    /// Opens to everyone who waits, unless a stop came first.
    fn open(&self, actor: Arc<dyn HostedActor>) {
        let mut phase = self.phase.write().unwrap_or_else(PoisonError::into_inner);
        if matches!(*phase, Phase::Starting) {
            *phase = Phase::Running(actor);
            drop(phase);
            self.phase_changed.notify_waiters();
        }
    }

    fn close(&self) {
        *self.phase.write().unwrap_or_else(PoisonError::into_inner) = Phase::Closed;
        self.phase_changed.notify_waiters();
        self.requests.close();
        self.sockets.close();
    }

    /// Admits nothing more, and wants the end at least like this.
    fn wish(&self, wish: Wish) {
        self.close();
        let mut wanted = self.wish.lock().unwrap_or_else(PoisonError::into_inner);
        if wish.rank() > wanted.rank() {
            *wanted = wish;
            // Only the life waits for it, and finds it when it does so later.
            self.wished.notify_one();
        }
    }

    /// Resolves when the end is wanted at least like this.
    async fn wished(&self, least: Wish) -> Wish {
        loop {
            let wish = *self.wish.lock().unwrap_or_else(PoisonError::into_inner);
            if wish.rank() >= least.rank() {
                return wish;
            }
            self.wished.notified().await;
        }
    }

    /// Cancels what is left and waits until it is gone.
    async fn end(&self, events: &Events) {
        self.close();
        self.over.cancel();
        events.cancel();
        events.tasks().close();
        let gone = async {
            self.requests.wait().await;
            self.sockets.wait().await;
            events.tasks().wait().await;
        };
        tokio::pin!(gone);
        while timeout(PATIENCE, &mut gone).await.is_err() {
            let tasks = self.requests.len() + self.sockets.len() + events.tasks().len();
            warn!(tasks, "requests of an ended actor do not yield; its end is not reported before they do");
        }
    }
}

/// One of the places to wait in while an actor starts.
struct Place(Arc<Admission>);

impl Place {
    fn take(admission: &Arc<Admission>) -> Option<Self> {
        let more = |waiting| (waiting < WAITING_MAX).then_some(waiting + 1);
        admission.waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(Place(admission.clone()))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

/// An actor that serves, and what earlier lives have noted.
type Started = (Arc<dyn HostedActor>, Vec<(Bytes, Bytes)>);

/// The task of one life.
struct Life {
    host: Arc<dyn ActorHost>,
    admission: Arc<Admission>,
    context: ActorContext,
}

impl Life {
    /// What is boxed here and below is gone while the actor just runs, which may be for days and for very many actors.
    async fn run(self) {
        let outcome = caught(self.live()).await.unwrap_or_else(Outcome::Failed);
        Box::pin(self.admission.end(self.context.events())).await;
        // Without a runner nobody is left to tell.
        let _ = send(self.context.calls(), Call::Ended(self.context.key().clone(), outcome)).await;
    }

    async fn live(&self) -> Outcome {
        let began = Instant::now();
        let (actor, notes) = match Box::pin(self.start()).await {
            Ok(Some(started)) => started,
            Ok(None) => {
                info!("stopped before it was ready");
                return Outcome::Wanted;
            }
            Err(StartError(reason)) => {
                warn!(%reason, "actor did not start");
                return Outcome::Failed(reason);
            }
        };
        info!(start_ms = millis(began.elapsed()), "actor runs");
        // Whoever drops this life, the actor does not stay behind.
        let guard = EndOnDrop(Some((actor.clone(), self.context.events().clone())));
        let (key, calls, events) = (self.context.key(), self.context.calls(), self.context.events());
        let (sockets, unknown) = events.begin(&actor, &self.context, &notes);
        if !sockets.is_empty() || !unknown.is_empty() {
            let _ = send(calls, Call::Restored { actor: key.clone(), sockets, unknown }).await;
        }
        let _ = send(calls, Call::Running(key.clone())).await;
        self.admission.open(actor.clone());
        events.open(&actor, &self.context, &notes);
        drop(notes);
        let outcome = self.serve(&actor).await;
        guard.disarm();
        outcome
    }

    /// Starts the actor, and reads meanwhile what earlier lives have noted; `Ok(None)` when a stop came first.
    async fn start(&self) -> Result<Option<Started>, StartError> {
        let limit = self.host.start_timeout();
        let (start, events) = (self.context.shared_start(), self.context.events());
        let may_have_notes = events.may_have_notes(start);
        // Made inside, or a host that panics in making it would not be caught.
        let starting = caught(async { self.host.start(start.clone(), self.context.clone()).await });
        let mut actor = None;
        let both = async {
            let starting = async {
                actor = Some(starting.await.unwrap_or_else(|panic| Err(StartError(format!("the start {panic}"))))?);
                Ok(())
            };
            let notes = async {
                if may_have_notes { reserved::read_patiently(&self.context, limit).await } else { Ok(Vec::new()) }
            };
            tokio::try_join!(starting, notes)
        };
        let started = tokio::select! {
            biased;
            _ = self.admission.wished(Wish::Stop(StopReason::Stop)) => Ok(None),
            both = timeout(limit + START_SLACK, both) => match both {
                Ok(Ok(((), notes))) => Ok(Some(notes)),
                Ok(Err(error)) => Err(error),
                Err(_) => Err(StartError(format!("not ready within {limit:?}; see start_timeout"))),
            },
        };
        match (started, actor) {
            (Ok(Some(notes)), Some(actor)) => Ok(Some((actor, notes))),
            (Ok(_), None) => Ok(None),
            (Err(error), None) => Err(error),
            (failed, Some(actor)) => {
                // It has started, and then its notes could not be read, or a stop came.
                kill(&actor);
                // How it ended after that is no news.
                let _ = caught(actor.ended()).await;
                failed.map(|_| None)
            }
        }
    }

    /// From ready to gone.
    async fn serve(&self, actor: &Arc<dyn HostedActor>) -> Outcome {
        let context = &self.context;
        let ended = caught(actor.clone().ended());
        tokio::pin!(ended);
        let wish = tokio::select! {
            biased;
            end = &mut ended => {
                // What it has taken before it crashed becomes durable, and the clients hear the answers.
                let _ = Box::pin(timeout(SETTLE, context.events().quiesce())).await;
                return unasked(end, actor, context);
            }
            wish = self.admission.wished(Wish::Stop(StopReason::Stop)) => wish,
        };
        if let Wish::Stop(reason) = wish {
            let deadline = Instant::now() + self.host.stop_grace();
            info!(reason = reason.as_str(), grace_ms = millis(self.host.stop_grace()), "stopping actor");
            let stopping = Box::pin(self.admission.clone().stop(actor.clone(), context.events(), reason, deadline));
            tokio::select! {
                biased;
                end = &mut ended => return asked(end),
                () = async { stopping.await; std::future::pending().await } => {}
                () = sleep_until(deadline) => warn!("actor did not stop within stop_grace; killing it"),
                _ = self.admission.wished(Wish::Kill) => warn!("killing the stopping actor"),
            }
        } else {
            info!("killing actor");
        }
        kill(actor);
        while timeout(PATIENCE, &mut ended).await.map(asked).is_err() {
            warn!("a killed actor is still there; its end is not reported before it is gone");
        }
        Outcome::Wanted
    }
}

impl Admission {
    /// Lets requests and events in flight finish for at most half of the time, then asks the actor to end.
    async fn stop(
        self: Arc<Self>,
        actor: Arc<dyn HostedActor>,
        events: &Events,
        reason: StopReason,
        deadline: Instant,
    ) {
        self.close();
        let half = deadline.saturating_duration_since(Instant::now()) / 2;
        if timeout(half, async { tokio::join!(self.requests.wait(), events.quiesce()) }).await.is_err() {
            let (requests, events) = (self.requests.len(), events.gate().in_flight());
            debug!(requests, events, "stopping with work in flight");
        }
        let rest = deadline.saturating_duration_since(Instant::now());
        if let Err(panic) = caught(async move { actor.stop(reason, rest).await }).await {
            error!(%panic, "the stop of an actor failed");
        }
    }
}

/// The end of an actor that nobody told to stop.
fn unasked(end: Result<Result<(), String>, String>, actor: &Arc<dyn HostedActor>, context: &ActorContext) -> Outcome {
    match end {
        Ok(Ok(())) if context.wants_to_leave() => {
            info!("actor ended on its own wish");
            Outcome::Wanted
        }
        Ok(Ok(())) => {
            // A gateway destroys an actor that ends well without a word, with all its state; an exit that was no wish
            // must not do that.
            let reason = "ended by itself, without having asked to sleep or to be destroyed";
            warn!(reason, "actor ended");
            Outcome::Failed(reason.to_owned())
        }
        Ok(Err(reason)) => {
            warn!(%reason, "actor crashed");
            Outcome::Failed(reason)
        }
        Err(panic) => {
            error!(%panic, "the watch over an actor failed; killing it");
            kill(actor);
            Outcome::Failed(panic)
        }
    }
}

/// The end of an actor that was told to stop.
fn asked(end: Result<Result<(), String>, String>) -> Outcome {
    match end {
        Ok(Ok(())) => info!("actor stopped"),
        Ok(Err(reason)) => info!(%reason, "actor stopped, not in order"),
        Err(panic) => error!(%panic, "the watch over an actor failed while it stopped"),
    }
    Outcome::Wanted
}

fn kill(actor: &Arc<dyn HostedActor>) {
    if std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| actor.kill())).is_err() {
        error!("killing an actor failed");
    }
}

/// Ends the actor when its life is dropped with the runtime, or by a panic: kills it, and lets go of what its events hold
/// of it, or neither would ever be freed.
struct EndOnDrop(Option<(Arc<dyn HostedActor>, Events)>);

impl EndOnDrop {
    fn disarm(mut self) {
        self.0 = None;
    }
}

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        if let Some((actor, events)) = self.0.take() {
            kill(&actor);
            events.cancel();
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// How many requests and sockets may wait for one actor to start. Beyond it they are refused so that the gateway tries
/// again: a start that takes that long is not helped by a longer queue.
pub const WAITING_MAX: usize = 1024;

/// What a start may take above its deadline: a host that keeps the deadline itself can say more about what is missing.
const START_SLACK: Duration = Duration::from_secs(1);

/// How long the end of a crashed actor waits for the storage: a few round trips to a gateway that is there.
const SETTLE: Duration = Duration::from_secs(1);

/// How long something that should be gone may take before the log says so, again and again.
const PATIENCE: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests;
