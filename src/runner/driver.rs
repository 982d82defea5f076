//! The one loop that owns the session.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use greenroom_protocol::{KvResponse, ToClient, close};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::Sleep;
use tracing::{Instrument, info};

use crate::actor::ActorKey;
use crate::host::{ActorHandle, ActorHost, Call, CallSender, KvError, StartActor};
use crate::number_map::NumberMap;
use crate::runner::gathering::Gathering;
use crate::runner::handle::Command;
use crate::runner::journal::Journal;
use crate::runner::observer::{LifeWish, Observer};
use crate::runner::streams::Streams;
use crate::runner::{ActorInfo, Identity, RunnerHandle, Status};
use crate::session::{DialFailure, Disconnect, Exit, Input, LinkStatus, Session, Settings, Turns, When};
use crate::socket::{Closed, Connection, DialError, Received, Target, dial};
use crate::stream::StreamReply;

/// Everything a runner holds.
pub(super) struct Driver {
    pub(super) session: Session,
    pub(super) target: Target,
    pub(super) hosts: BTreeMap<Arc<str>, Arc<dyn ActorHost>>,
    pub(super) actors: BTreeMap<ActorKey, Hosted>,
    pub(super) streams: Streams,
    pub(super) storage: NumberMap<u64, oneshot::Sender<Result<KvResponse, KvError>>>,
    pub(super) socket: SocketState,
    pub(super) calls: CallSender,
    pub(super) journal: Option<Journal>,
    pub(super) observer: Observer,
    pub(super) status: watch::Sender<Status>,
    pub(super) exit: Option<Exit>,
    /// Calls taken and not handled yet, because the socket is behind.
    held_calls: VecDeque<Call>,
    /// Messages for actors that were read and are not handled yet.
    turns: Turns,
    /// Who gets a turn before the socket is written to.
    gathering: Gathering,
    next_ticket: u64,
    stop_by: Option<Instant>,
}

/// An actor life on its host.
pub(super) struct Hosted {
    pub(super) handle: ActorHandle,
    pub(super) start: Arc<StartActor>,
    pub(super) running: bool,
    pub(super) waiting: Vec<oneshot::Sender<bool>>,
}

/// The socket, of which there is one at most.
pub(super) enum SocketState {
    None,
    Dialing(JoinHandle<Result<Box<Connection>, DialError>>),
    Open(Box<Connection>),
}

/// What woke the loop.
enum Event {
    Dialed(Result<Box<Connection>, DialError>),
    Received(Vec<Received>),
    Calls(Vec<Call>),
    Command(Command),
    Tick,
}

impl Driver {
    pub(super) fn spawn(
        settings: Settings,
        target: Target,
        hosts: BTreeMap<Arc<str>, Arc<dyn ActorHost>>,
        journal: Option<Journal>,
    ) -> RunnerHandle {
        let (calls, calls_in) = mpsc::channel(CALLS);
        let (commands, commands_in) = mpsc::channel(COMMANDS);
        let (status, status_out) = watch::channel(Status {
            link: LinkStatus::Dialing,
            runner_id: None,
            lost_after: None,
            reason: None,
            actors: 0,
            draining: false,
        });
        let (exit, exit_out) = watch::channel(None);
        let identity = Arc::new(Identity::new(&target, &settings));
        let observer = Observer::new(settings.init.total_slots, hosts.keys().cloned());
        let span = tracing::info_span!("runner", runner_name = %settings.init.name);
        let driver = Driver {
            session: Session::new(settings),
            target,
            hosts,
            actors: BTreeMap::new(),
            streams: Streams::default(),
            storage: NumberMap::default(),
            socket: SocketState::None,
            calls: calls.clone(),
            journal,
            observer,
            status,
            exit: None,
            held_calls: VecDeque::new(),
            turns: Turns::default(),
            gathering: Gathering::default(),
            next_ticket: 0,
            stop_by: None,
        };
        tokio::spawn(
            async move {
                let outcome = driver.run(calls_in, commands_in).await;
                exit.send_replace(Some(outcome));
            }
            .instrument(span),
        );
        RunnerHandle { calls, commands, status: status_out, exit: exit_out, identity }
    }

    async fn run(mut self, mut calls: mpsc::Receiver<Call>, mut commands: mpsc::Receiver<Command>) -> Exit {
        let timer = tokio::time::sleep(Duration::ZERO);
        tokio::pin!(timer);
        loop {
            self.perform_effects(Instant::now());
            if let Some(exit) = self.exit.take() {
                return self.finish(exit, &mut calls).await;
            }
            self.publish_status();
            let event = self.next_event(&mut calls, &mut commands, timer.as_mut()).await;
            self.take_event(event);
            self.session.handle_timeout(Instant::now());
            if self.stop_by.is_some_and(|by| by <= Instant::now() || self.actors.is_empty()) {
                self.exit = Some(Exit::DrainTimeout { actors: self.actors.len() });
            }
        }
    }

    async fn next_event(
        &mut self,
        calls: &mut mpsc::Receiver<Call>,
        commands: &mut mpsc::Receiver<Command>,
        mut timer: std::pin::Pin<&mut Sleep>,
    ) -> Event {
        let due = [self.session.poll_timeout(), self.stop_by].into_iter().flatten().min();
        if let Some(due) = due
            && timer.deadline() != due.into()
        {
            timer.as_mut().reset(due.into());
        }
        let behind = self.is_behind();
        if !behind && !self.held_calls.is_empty() {
            return Event::Calls(Vec::new());
        }
        let anybody = !self.streams.is_empty() || !self.turns.is_empty();
        if !behind && anybody {
            let taken = self.gathering.gather(calls, BATCH).await;
            if !taken.is_empty() {
                return Event::Calls(taken);
            }
        }
        let mut taken = Vec::new();
        let room = self.turns.room();
        if !behind && !self.turns.is_empty() {
            return match commands.try_recv() {
                Ok(command) => Event::Command(command),
                Err(_) => Event::Received(self.socket.look(room).await),
            };
        }
        tokio::select! {
            // A gateway that does not take our answers is not asked for more work either, or the streams would pile up.
            event = self.socket.next(behind, room) => event,
            count = calls.recv_many(&mut taken, BATCH), if !behind => {
                debug_assert!(count > 0, "the driver holds a sender itself");
                self.gathering.called(&taken);
                Event::Calls(taken)
            }
            // When every handle is gone the runner goes on until it is refused.
            Some(command) = commands.recv() => Event::Command(command),
            () = timer, if due.is_some() => Event::Tick,
        }
    }

    fn take_event(&mut self, event: Event) {
        let now = Instant::now();
        match event {
            Event::Dialed(Ok(connection)) => {
                let features = connection.granted;
                self.socket = SocketState::Open(connection);
                self.session.handle(Input::Dialed { features }, now);
            }
            Event::Dialed(Err(error)) => {
                self.socket = SocketState::None;
                self.session.handle(Input::DialFailed(DialFailure(error.to_string())), now);
            }
            Event::Received(received) => self.take_received(received, now),
            Event::Calls(calls) => {
                self.held_calls.extend(calls);
                while !self.is_behind()
                    && let Some(call) = self.held_calls.pop_front()
                {
                    self.take_call(call, now);
                    self.perform_effects(now);
                }
            }
            Event::Command(command) => self.take_command(command, now),
            Event::Tick => {}
        }
    }

    fn take_received(&mut self, received: Vec<Received>, now: Instant) {
        self.gathering.received();
        let few = self.turns.is_empty() && received.len() <= FEW;
        for received in received {
            match received {
                Received::Message(ToClient::Tunnel { id, message }) if few => {
                    self.gathering.handles(id, &message, true);
                    self.take_message(ToClient::Tunnel { id, message }, now);
                }
                Received::Message(message) if few => self.take_message(message, now),
                Received::Message(message) => match self.turns.take_in(message, &self.session) {
                    When::InTurn => {}
                    When::Now(message) => self.take_message(message, now),
                    When::Last(message) => {
                        self.take_all_turns(now);
                        self.take_message(message, now);
                    }
                },
                Received::Closed(closed) => {
                    self.take_all_turns(now);
                    self.socket = SocketState::None;
                    self.session.handle(Input::Disconnected(disconnect(closed)), now);
                    self.perform_effects(now);
                }
            }
        }
        let holds_back = matches!(&self.socket, SocketState::Open(connection) if connection.holds_back());
        if holds_back || !self.turns.is_empty() {
            self.gathering.want();
        }
        if !self.turns.is_empty() {
            self.turns.begin_batch();
            while let Some((id, message)) = self.turns.next_of_batch() {
                self.gathering.handles(id, &message, false);
                self.take_message(ToClient::Tunnel { id, message }, now);
            }
        }
    }

    fn take_all_turns(&mut self, now: Instant) {
        while let Some((id, message)) = self.turns.take() {
            self.take_message(ToClient::Tunnel { id, message }, now);
        }
    }

    fn take_message(&mut self, message: ToClient, now: Instant) {
        self.session.handle(Input::Received(message), now);
        self.perform_effects(now);
    }

    /// More waits to be written than should be.
    fn is_behind(&self) -> bool {
        match &self.socket {
            SocketState::Open(connection) => connection.is_behind(),
            SocketState::None | SocketState::Dialing(_) => false,
        }
    }

    fn take_call(&mut self, call: Call, now: Instant) {
        let input = match call {
            Call::Running(key) => {
                self.observer.running(&key);
                if let Some(hosted) = self.actors.get_mut(&key) {
                    hosted.running = true;
                    for waiter in hosted.waiting.drain(..) {
                        // Whoever waited may have given up.
                        let _ = waiter.send(true);
                    }
                }
                Input::Running(key)
            }
            Call::Restored { actor, sockets, unknown } => Input::Restored { actor, sockets, unknown },
            Call::Ended(key, outcome) => {
                self.actors.remove(&key);
                self.observer.ended(&key, &outcome);
                if let Some(journal) = &mut self.journal {
                    journal.ended(key.clone(), now, |key| self.session.remembers(key));
                }
                Input::Ended(key, outcome)
            }
            Call::Sleep(key) => {
                self.observer.wished(&key, LifeWish::Sleep);
                Input::Sleep(key)
            }
            Call::Destroy(key) => {
                self.observer.wished(&key, LifeWish::Destroy);
                Input::Destroy(key)
            }
            Call::Stop(key, outcome) => Input::Stop(key, outcome),
            Call::Kill(key) => Input::Kill(key),
            Call::SetAlarm(key, at) => {
                self.observer.alarm_changed();
                Input::SetAlarm(key, at)
            }
            Call::Kv { actor, request, reply } => {
                let ticket = self.next_ticket;
                self.next_ticket += 1;
                self.storage.insert(ticket, reply);
                self.observer.kv_asked(ticket, &request);
                Input::Kv { actor, ticket, request }
            }
            Call::Stream { stream, reply, .. } => {
                self.observer.reply(stream, &reply);
                match &reply {
                    StreamReply::Response { more: false, .. }
                    | StreamReply::Chunk { finish: true, .. }
                    | StreamReply::Abort
                    | StreamReply::Close { .. } => self.streams.finish(stream),
                    StreamReply::Response { more: true, .. }
                    | StreamReply::Chunk { finish: false, .. }
                    | StreamReply::Grant
                    | StreamReply::Open { .. }
                    | StreamReply::Message { .. }
                    | StreamReply::MessageAck { .. } => {}
                }
                Input::Reply { stream, reply }
            }
        };
        self.session.handle(input, now);
    }

    fn take_command(&mut self, command: Command, now: Instant) {
        match command {
            Command::Actor { id, generation, reply } => {
                let first = ActorKey { id: id.clone(), generation: generation.unwrap_or(0) };
                let last = ActorKey { id, generation: generation.unwrap_or(u32::MAX) };
                let found = self.actors.range(first..=last).next_back().map(|(_, hosted)| self.info(hosted));
                // Whoever asked may have given up.
                let _ = reply.send(found);
            }
            Command::Actors { reply } => {
                let _ = reply.send(self.actors.values().map(|hosted| self.info(hosted)).collect());
            }
            Command::Lives { reply } => {
                let mut lives = self.observer.lives();
                for life in &mut lives {
                    if let Some(hosted) = self.actors.get(&life.start.key).filter(|hosted| hosted.running) {
                        life.awake_because = hosted.handle.context().awake_because();
                    }
                }
                let _ = reply.send(lives);
            }
            Command::Census { reply } => {
                self.observer.backlog(self.session.unacknowledged_events(), self.session.unacknowledged_messages());
                let _ = reply.send(self.observer.census());
            }
            Command::WaitStarted { key, reply } => match self.actors.get_mut(&key) {
                Some(hosted) if !hosted.running => hosted.waiting.push(reply),
                hosted => {
                    let _ = reply.send(hosted.is_some());
                }
            },
            Command::SetHosts { hosts } => {
                self.observer.know(hosts.keys().cloned());
                self.hosts = hosts;
            }
            Command::Drain { within } => {
                info!(within_ms = within.as_millis(), actors = self.actors.len(), "draining");
                self.status.send_modify(|status| status.draining = true);
                self.session.handle(Input::Drain { within }, now);
            }
            Command::StopNow => {
                info!(actors = self.actors.len(), "stopping at once");
                for key in self.actors.keys() {
                    self.session.handle(Input::Kill(key.clone()), now);
                }
                self.stop_by = Some(now + STOP_NOW);
            }
        }
    }

    fn info(&self, hosted: &Hosted) -> ActorInfo {
        ActorInfo { start: hosted.start.clone(), running: hosted.running, context: hosted.handle.context().clone() }
    }

    fn publish_status(&self) {
        let (link, actors) = (self.session.link_status(), self.session.live_actors());
        self.status.send_if_modified(|status| {
            let changed = status.link != link || status.actors != actors;
            (status.link, status.actors) = (link, actors);
            changed
        });
    }

    /// Ends what is left and answers everyone who still waits.
    async fn finish(mut self, exit: Exit, calls: &mut mpsc::Receiver<Call>) -> Exit {
        match std::mem::replace(&mut self.socket, SocketState::None) {
            SocketState::None => {}
            SocketState::Dialing(task) => task.abort(),
            SocketState::Open(connection) => connection.finish(1000, close::RUNNER_SHUTDOWN, GOODBYE).await,
        }
        for hosted in self.actors.values() {
            hosted.handle.kill();
        }
        let ended = async {
            while !self.actors.is_empty() {
                match calls.recv().await {
                    Some(Call::Ended(key, _)) => drop(self.actors.remove(&key)),
                    Some(_) => {}
                    None => break,
                }
            }
        };
        let in_time = tokio::time::timeout(STOP_NOW, ended).await.is_ok();
        if let Some(journal) = &mut self.journal
            && exit == Exit::Drained
        {
            journal.clear();
        }
        for (_, reply) in self.storage.drain() {
            let _ = reply.send(Err(KvError::Unavailable));
        }
        if !in_time {
            tracing::warn!(actors = self.actors.len(), "actors left behind");
        }
        self.status.send_modify(|status| {
            status.link = LinkStatus::Closed;
            status.actors = self.actors.len();
            if let Exit::Refused(reason) = &exit {
                status.reason = Some(reason.clone());
            }
        });
        exit
    }
}

impl SocketState {
    /// The next things from the socket, so many at most; when it is `behind`, that there is room again.
    async fn next(&mut self, behind: bool, most: usize) -> Event {
        match self {
            SocketState::None => std::future::pending().await,
            SocketState::Dialing(task) => {
                let dialed = task.await.unwrap_or_else(|_| Err(DialError::Settings("dialing was cancelled")));
                Event::Dialed(dialed)
            }
            SocketState::Open(connection) if behind => {
                connection.eased().await;
                Event::Tick
            }
            SocketState::Open(connection) => Event::Received(connection.receive(most, FEW).await),
        }
    }

    /// What there is from the socket, so many at most, and nothing when there is nothing.
    async fn look(&mut self, most: usize) -> Vec<Received> {
        match self {
            SocketState::None | SocketState::Dialing(_) => Vec::new(),
            SocketState::Open(connection) => connection.look(most).await,
        }
    }

    pub(super) fn dial(target: &Target) -> Self {
        let target = target.clone();
        SocketState::Dialing(tokio::spawn(async move { dial(&target, DIAL_TIMEOUT).await }))
    }
}

fn disconnect(closed: Closed) -> Disconnect {
    match closed {
        Closed::ByGateway { code, reason } => Disconnect::Closed { code, reason },
        Closed::Broken(text) => Disconnect::Broken(text),
    }
}

/// Calls of actors that may wait for the driver; beyond this the actors wait.
const CALLS: usize = 4096;
/// Commands of the owner that may wait.
const COMMANDS: usize = 64;
/// Calls taken in one turn: few enough that the first answers are on their way while the gateway has more to say.
const BATCH: usize = 32;
/// So few messages that they are handled as they came, since turns would change next to nothing, and that their answers
/// go along with what waits to be written.
const FEW: usize = 4;
/// How long opening a socket may take.
const DIAL_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the gateway may take to read the rest.
const GOODBYE: Duration = Duration::from_millis(500);
/// What ending processes may take at the very end.
const STOP_NOW: Duration = Duration::from_secs(2);
