//! The one loop that owns the core: feeds it what happened, performs what it decides, keeps back what has to wait for
//! the disk.

use std::collections::{BTreeMap, HashMap};
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytestring::ByteString;
use greenroom_protocol::{KvResponse, ToClient, ToServer};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tracing::{debug, error};

use super::connection::Outlet;
use super::core::{Answer, CallId, CallRequest, ConnectionId, Core, Effect, Hello, Input, LoadId, Now, StreamRef};
use super::handle::Namespaces;
use super::{GatewayError, GatewayHealth, LiveRunner, OpenStream, StreamEventSender, StreamUp, TunnelEvent};
use crate::store::{Found, StoreError, StoreHandle};
use crate::telemetry::metrics;

/// What others want of the driver. Bounded: who has to wait stops reading from its socket.
#[derive(Debug)]
pub(super) enum Order {
    /// A runner's socket is open.
    Connected { hello: Hello, outlet: Outlet, connection: ConnectionId },
    /// A runner said something.
    Received { connection: ConnectionId, message: ToServer, _memory: Option<OwnedSemaphorePermit> },
    /// A runner said something that cannot be read.
    Malformed { connection: ConnectionId, text: bool },
    /// A runner's socket is gone.
    Disconnected { connection: ConnectionId },
    /// A client wants a stream. Without a reply, the events say whether it is open.
    Open { stream: StreamRef, open: OpenStream, reply: Option<oneshot::Sender<Result<(), GatewayError>>> },
    /// A client says more.
    Client { stream: StreamRef, up: StreamUp, memory: Option<OwnedSemaphorePermit> },
    /// A client is gone.
    ClientGone { stream: StreamRef },
    /// Somebody wants something done.
    Call { request: CallRequest, reply: oneshot::Sender<Result<Answer, GatewayError>> },
    /// Somebody asks about the runners.
    LiveRunners { reply: oneshot::Sender<BTreeMap<Arc<str>, LiveRunner>> },
    /// Somebody asks how the gateway does.
    Health { reply: oneshot::Sender<GatewayHealth> },
    /// The gateway is to stop.
    Shutdown { done: oneshot::Sender<()> },
}

/// What must reach the driver at once, from those that cannot wait. There is at most one per commit and question, and a
/// few per stream.
#[derive(Debug)]
pub(super) enum Aside {
    /// A commit is durable, or failed.
    Committed { seq: u64, result: Result<(), StoreError> },
    /// The store answered.
    Loaded { load: LoadId, result: Result<Found, StoreError> },
    /// A client has taken as much of a response as one grant of credit is for; at most a window's worth per stream.
    ClientTook { stream: StreamRef },
    /// A client is gone.
    ClientGone { stream: StreamRef },
}

/// The way to a runner, and what is to be said there when everything at hand has been dealt with: its writer is woken
/// once, for all of it, and writes it at once.
#[derive(Debug)]
struct Connection {
    outlet: Outlet,
    unsent: Vec<(ToClient, Option<OwnedSemaphorePermit>)>,
}

/// Whom a stream is for.
#[derive(Debug)]
struct Client {
    events: StreamEventSender,
    /// Waits until the stream is open, or is not going to be.
    opening: Option<oneshot::Sender<Result<(), GatewayError>>>,
}

/// The loop and everything it owns.
#[derive(Debug)]
pub(super) struct Driver {
    core: Core,
    store: StoreHandle,
    namespaces: Arc<Namespaces>,
    asides_sender: mpsc::UnboundedSender<Aside>,
    connections: HashMap<ConnectionId, Connection>,
    /// Connections with messages that have not been handed over yet.
    unsent: Vec<ConnectionId>,
    clients: HashMap<StreamRef, Client>,
    calls: HashMap<CallId, oneshot::Sender<Result<Answer, GatewayError>>>,
    next_call: u64,
    /// The last commit that is durable.
    durable: u64,
    /// What waits for a later one.
    held: BTreeMap<u64, Vec<Effect>>,
    /// The memory of what a client just said, for the message that carries it on.
    carried: Option<OwnedSemaphorePermit>,
    /// Clients that turned out to be gone while something was handed to them.
    gone: Vec<StreamRef>,
}

impl Driver {
    pub(super) fn new(
        core: Core,
        store: StoreHandle,
        namespaces: Arc<Namespaces>,
        asides_sender: mpsc::UnboundedSender<Aside>,
    ) -> Self {
        Driver {
            core,
            store,
            namespaces,
            asides_sender,
            connections: HashMap::new(),
            unsent: Vec::new(),
            clients: HashMap::new(),
            calls: HashMap::new(),
            next_call: 0,
            durable: 0,
            held: BTreeMap::new(),
            carried: None,
            gone: Vec::new(),
        }
    }

    /// Runs until told to stop.
    ///
    /// # Errors
    /// When the store failed: nothing that was not durable has been told to anyone, and nothing more can be done.
    pub(super) async fn run(
        mut self,
        mut orders: mpsc::Receiver<Order>,
        mut asides: mpsc::UnboundedReceiver<Aside>,
    ) -> Result<(), StoreError> {
        let ended = self.serve(&mut orders, &mut asides).await;
        // After a failure the core can no longer close them.
        for connection in self.connections.values_mut() {
            connection.close(1011, "core.internal_error");
        }
        ended
    }

    async fn serve(
        &mut self,
        orders: &mut mpsc::Receiver<Order>,
        asides: &mut mpsc::UnboundedReceiver<Aside>,
    ) -> Result<(), StoreError> {
        let mut order_batch = Vec::with_capacity(BATCH);
        let mut aside_batch = Vec::with_capacity(BATCH);
        let mut stopping = None;
        // Moved only when what is due changes: most turns of the loop leave it where it is.
        let mut alarm = pin!(tokio::time::sleep(Duration::ZERO));
        let mut alarm_at = None;
        // What the core decided when it was made.
        self.perform_all(now());
        self.hand_over();
        loop {
            if stopping.is_some() && self.held.is_empty() {
                return Ok(());
            }
            let due = self.core.poll_timeout();
            if let Some(due) = due.filter(|_| due != alarm_at) {
                alarm.as_mut().reset(due.into());
            }
            alarm_at = due;
            let room = self.store.has_room();
            tokio::select! {
                biased;
                count = asides.recv_many(&mut aside_batch, BATCH) => if count == 0 { return Ok(()) },
                count = orders.recv_many(&mut order_batch, BATCH), if room => if count == 0 { return Ok(()) },
                // What is due is done below in any case; this is only for when nothing else happens.
                () = alarm.as_mut(), if due.is_some() => {}
                () = self.store.room(), if !room => continue,
            }
            let now = now();
            if due.is_some_and(|due| due <= now.instant) {
                self.core.handle_timeout(now);
                self.perform_all(now);
            }
            for aside in aside_batch.drain(..) {
                self.aside(aside, now)?;
                self.perform_all(now);
            }
            for order in order_batch.drain(..) {
                if let Order::Shutdown { done } = order {
                    self.core.handle(Input::Shutdown, now);
                    stopping = Some(done);
                } else {
                    self.order(order, now);
                }
                self.perform_all(now);
                self.carried = None;
            }
            self.hand_over();
        }
    }

    fn order(&mut self, order: Order, now: Now) {
        match order {
            Order::Connected { hello, outlet, connection } => {
                self.connections.insert(connection, Connection { outlet, unsent: Vec::new() });
                self.core.handle(Input::Connected { connection, hello }, now);
            }
            Order::Received { connection, message, _memory } => {
                self.core.handle(Input::Received { connection, message }, now);
            }
            Order::Malformed { connection, text } => self.core.handle(Input::Malformed { connection, text }, now),
            Order::Disconnected { connection } => {
                self.connections.remove(&connection);
                self.core.handle(Input::Disconnected { connection }, now);
            }
            Order::Open { stream, open: OpenStream { actor_id, head, events }, reply } => {
                if reply.as_ref().map_or_else(|| events.is_closed(), oneshot::Sender::is_closed) {
                    return;
                }
                let client = Client { events, opening: reply };
                if self.core.has_stream(stream) {
                    // Four billion streams later, one of the first is still open.
                    return client.refuse(GatewayError::Unavailable("try again"));
                }
                self.clients.insert(stream, client);
                self.core.handle(Input::Open { stream, actor_id, head }, now);
            }
            Order::Client { stream, up, memory } => {
                self.carried = memory;
                self.core.handle(Input::Client { stream, up }, now);
            }
            Order::ClientGone { stream } => self.client_gone(stream, now),
            Order::Call { request, reply } => {
                self.next_call += 1;
                let call = CallId(self.next_call);
                self.calls.insert(call, reply);
                self.core.handle(Input::Call { call, request }, now);
            }
            Order::LiveRunners { reply } => {
                // Who asked may be gone; so here and below.
                let _ = reply.send(self.core.live_runners());
            }
            Order::Health { reply } => {
                let _ = reply.send(self.core.health());
            }
            // Dealt with by the loop, which it ends.
            Order::Shutdown { done } => drop(done),
        }
    }

    fn aside(&mut self, aside: Aside, now: Now) -> Result<(), StoreError> {
        match aside {
            Aside::Committed { seq, result } => {
                if let Err(error) = result {
                    error!(%error, "the store failed; stopping, since nothing can be promised any more");
                    return Err(error);
                }
                self.durable = seq;
                while let Some(entry) = self.held.first_entry()
                    && *entry.key() <= seq
                {
                    for effect in entry.remove() {
                        self.perform(effect);
                    }
                }
            }
            Aside::Loaded { load, result } => self.core.handle(Input::Loaded { load, found: result? }, now),
            Aside::ClientTook { stream } => self.core.handle(Input::ClientTook { stream }, now),
            Aside::ClientGone { stream } => self.client_gone(stream, now),
        }
        Ok(())
    }

    fn client_gone(&mut self, stream: StreamRef, now: Now) {
        self.clients.remove(&stream);
        self.core.handle(Input::ClientGone { stream }, now);
    }

    fn perform_all(&mut self, now: Now) {
        loop {
            while let Some(effect) = self.core.poll_effect() {
                let after = effect.after();
                if after > self.durable {
                    self.held.entry(after).or_default().push(effect);
                } else {
                    self.perform(effect);
                }
            }
            let Some(stream) = self.gone.pop() else { return };
            self.client_gone(stream, now);
        }
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Commit { seq, changes } => {
                let asides = self.asides_sender.clone();
                // A driver that is gone waits for nothing; so below.
                self.store.submit_commit(changes, move |result| {
                    let _ = asides.send(Aside::Committed { seq, result });
                });
            }
            Effect::Load { load, query } => {
                let asides = self.asides_sender.clone();
                self.store.submit_read(query, move |result| {
                    let _ = asides.send(Aside::Loaded { load, result });
                });
            }
            Effect::Kv { connection, request_id, actor_id, request } => {
                let Some(outlet) = self.connections.get(&connection).map(|to| to.outlet.clone()) else { return };
                let operation = (&request).into();
                self.store.submit_kv(actor_id, request, move |result| {
                    let response = result.unwrap_or_else(|error| {
                        error!(%error, "storage request failed");
                        KvResponse::Error { message: ByteString::from_static("the gateway's storage failed") }
                    });
                    metrics::gateway().kv(operation, matches!(response, KvResponse::Error { .. }));
                    outlet.send(ToClient::Kv { request_id, response });
                });
            }
            Effect::Send { connection, message, after: _ } => {
                if let Some(to) = self.connections.get_mut(&connection) {
                    if to.unsent.is_empty() {
                        self.unsent.push(connection);
                    }
                    to.unsent.push((message, self.carried.take()));
                }
            }
            Effect::Close { connection, code, reason, after: _ } => {
                if let Some(mut to) = self.connections.remove(&connection) {
                    to.close(code, reason);
                }
            }
            Effect::Opened { stream } => {
                if let Some(client) = self.clients.get_mut(&stream) {
                    client.opened();
                }
            }
            Effect::Refused { stream, error } => {
                if let Some(client) = self.clients.remove(&stream) {
                    client.refuse(error);
                }
            }
            Effect::Deliver { stream, event } => self.deliver(stream, event),
            Effect::Granted { stream } => {
                if let Some(client) = self.clients.get(&stream) {
                    client.events.grant();
                }
            }
            Effect::Answer { call, answer, after: _ } => {
                if let Some(reply) = self.calls.remove(&call) {
                    let _ = reply.send(answer);
                }
            }
            Effect::Namespace { record, after: _ } => self.namespaces.add(record),
        }
    }

    fn deliver(&mut self, stream: StreamRef, event: TunnelEvent) {
        let sent = if event.is_last() {
            self.clients.remove(&stream).map(|client| client.events.try_send(event))
        } else {
            self.clients.get(&stream).map(|client| client.events.try_send(event))
        };
        if let Some(Err(_)) = sent {
            debug!(stream = stream.0, "client gone or too slow, stream given up");
            self.clients.remove(&stream);
            self.gone.push(stream);
        }
    }

    /// Hands the writers what was said.
    fn hand_over(&mut self) {
        for connection in self.unsent.drain(..) {
            if let Some(connection) = self.connections.get_mut(&connection) {
                connection.hand_over();
            }
        }
    }
}

impl Connection {
    fn hand_over(&mut self) {
        for (message, memory) in self.unsent.drain(..) {
            self.outlet.send_holding(message, memory);
        }
    }

    fn close(&mut self, code: u16, reason: &'static str) {
        self.hand_over();
        self.outlet.close(code, reason);
    }
}

impl Client {
    fn opened(&mut self) {
        self.events.opened();
        if let Some(reply) = self.opening.take() {
            // Who asked may be gone; so below.
            let _ = reply.send(Ok(()));
        }
    }

    fn refuse(self, error: GatewayError) {
        match self.opening {
            Some(reply) => drop(reply.send(Err(error))),
            None => self.events.refuse(error),
        }
    }
}

/// Reads both clocks.
pub(super) fn now() -> Now {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let wall_ms = i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX);
    Now { instant: Instant::now(), wall_ms }
}

/// Inputs taken at once: enough to share the cost of waking up, few enough to look at the clock often.
const BATCH: usize = 128;
