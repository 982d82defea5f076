//! A driver played by a test, and a server in front of it.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::header::HOST;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::core::{Answer, CallRequest, StreamRef};
use super::driver::{Aside, Order};
use super::handle::Namespaces;
use super::ingress::{Ingress, Patience};
use super::public_api::{ApiSettings, PublicApi};
use super::{
    GatewayError, GatewayHandle, GatewayHealth, LiveRunner, StreamEventSender, StreamHead, StreamUp, TunnelEvent,
};
use crate::store::{ActorRecord, Change, Committer, CrashPolicy, MemoryStore, NamespaceRecord, Phase, StoreHandle};

/// An actor that every test may ask.
pub const ACTOR: &str = "53heuibpefzx3lj3skyt2h5xuwal00";

/// The id of namespace `default`.
pub const NAMESPACE: &str = "1g8x3os3wnrgrhpquqedf1p8mral00";

/// The id of namespace `second`.
pub const SECOND: &str = "thg2ipapmhboyj9xfg126lhy68dl00";

/// The driver. What it remembers is a real store.
pub struct FakeDriver {
    asked: mpsc::UnboundedReceiver<Asked>,
    store: StoreHandle,
}

/// What the driver is asked for.
pub enum Asked {
    Open(Wanted),
    Call(CallRequest, oneshot::Sender<Result<Answer, GatewayError>>),
    LiveRunners(oneshot::Sender<BTreeMap<Arc<str>, LiveRunner>>),
    Health(oneshot::Sender<GatewayHealth>),
}

/// A stream somebody wants.
pub struct Wanted {
    pub actor_id: Arc<str>,
    pub head: StreamHead,
    events: StreamEventSender,
    ups: mpsc::UnboundedReceiver<StreamUp>,
    took: Arc<AtomicUsize>,
    reply: Option<oneshot::Sender<Result<(), GatewayError>>>,
}

/// A stream that is open.
pub struct Opened {
    pub head: StreamHead,
    pub events: StreamEventSender,
    ups: mpsc::UnboundedReceiver<StreamUp>,
    took: Arc<AtomicUsize>,
}

/// A driver and its handle.
pub async fn driver() -> (GatewayHandle, FakeDriver) {
    let (store, _) = Committer::start(MemoryStore::new()).expect("a thread");
    let namespaces = Arc::new(Namespaces::default());
    let mut changes = Vec::new();
    for (id, name, create_ts) in [(NAMESPACE, "default", 1), (SECOND, "second", 2)] {
        let display_name = name.to_uppercase();
        let record = NamespaceRecord { id: id.into(), name: name.into(), display_name, create_ts };
        namespaces.add(record.clone());
        changes.push(Change::Namespace(record));
    }
    let (orders, inbox) = mpsc::channel(64);
    let (asides, aside_inbox) = mpsc::unbounded_channel();
    let (sender, asked) = mpsc::unbounded_channel();
    tokio::spawn(sort(inbox, aside_inbox, sender));
    let driver = FakeDriver { asked, store: store.clone() };
    driver.remember(changes).await;
    (GatewayHandle::new(orders, asides, store, namespaces), driver)
}

/// Hands what clients say to their streams, and everything else to the test.
async fn sort(
    mut orders: mpsc::Receiver<Order>,
    mut asides: mpsc::UnboundedReceiver<Aside>,
    asked: mpsc::UnboundedSender<Asked>,
) {
    let mut streams: HashMap<StreamRef, (mpsc::UnboundedSender<StreamUp>, Arc<AtomicUsize>)> = HashMap::new();
    loop {
        let order = tokio::select! {
            order = orders.recv() => match order {
                Some(order) => order,
                None => return,
            },
            Some(aside) = asides.recv() => match aside {
                Aside::ClientGone { stream } => Order::ClientGone { stream },
                Aside::ClientTook { stream } => {
                    let _ = streams.get(&stream).map(|(_, took)| took.fetch_add(1, Ordering::Relaxed));
                    continue;
                }
                other => panic!("not for a fake: {other:?}"),
            },
        };
        let question = match order {
            Order::Open { stream, open, reply } => {
                let (sender, ups) = mpsc::unbounded_channel();
                let took = Arc::new(AtomicUsize::new(0));
                streams.insert(stream, (sender, Arc::clone(&took)));
                Asked::Open(Wanted { actor_id: open.actor_id, head: open.head, events: open.events, ups, took, reply })
            }
            Order::Client { stream, up, .. } => {
                // The test may have dropped its end.
                let _ = streams.get(&stream).map(|(stream, _)| stream.send(up));
                continue;
            }
            Order::ClientGone { stream } => {
                streams.remove(&stream);
                continue;
            }
            Order::Call { request, reply } => Asked::Call(request, reply),
            Order::LiveRunners { reply } => Asked::LiveRunners(reply),
            Order::Health { reply } => Asked::Health(reply),
            other => panic!("not for a fake: {other:?}"),
        };
        if asked.send(question).is_err() {
            return;
        }
    }
}

/// A server with an ingress over a fake driver.
pub async fn serve(patience: Patience, settings: ApiSettings) -> (SocketAddr, FakeDriver, Arc<Ingress>) {
    let (handle, driver) = driver().await;
    let ingress = Ingress::new(handle.clone(), PublicApi::new(handle, settings), patience);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let served = Arc::clone(&ingress);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.expect("accept");
            let ingress = Arc::clone(&served);
            let service = service_fn(move |request| {
                let ingress = Arc::clone(&ingress);
                async move { Ok::<_, std::convert::Infallible>(ingress.serve(request).await) }
            });
            // A client that breaks its connection is part of some tests.
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service).with_upgrades());
        }
    });
    (address, driver, ingress)
}

impl FakeDriver {
    /// The next thing asked for.
    pub async fn asked(&mut self) -> Asked {
        soon(self.asked.recv()).await.expect("the ingress is there")
    }

    /// The next stream wanted.
    pub async fn wanted(&mut self) -> Wanted {
        let Asked::Open(wanted) = self.asked().await else { panic!("not a stream") };
        wanted
    }

    /// The next call, to be answered.
    pub async fn call(&mut self) -> (CallRequest, oneshot::Sender<Result<Answer, GatewayError>>) {
        let Asked::Call(request, reply) = self.asked().await else { panic!("not a call") };
        (request, reply)
    }

    /// Answers a question for the connected runners.
    pub async fn live_runners(&mut self, runners: BTreeMap<Arc<str>, LiveRunner>) {
        let Asked::LiveRunners(reply) = self.asked().await else { panic!("not about runners") };
        reply.send(runners).expect("somebody waits");
    }

    /// Somebody asks how the gateway does; dropped, it does not answer.
    pub async fn health(&mut self) -> oneshot::Sender<GatewayHealth> {
        let Asked::Health(reply) = self.asked().await else { panic!("not about health") };
        reply
    }

    /// Puts something into the store.
    pub async fn remember(&self, changes: Vec<Change>) {
        self.store.commit(changes).await.expect("stored");
    }

    /// The store itself.
    pub fn store(&self) -> &StoreHandle {
        &self.store
    }

    /// The next stream wanted, opened.
    pub async fn open(&mut self) -> Opened {
        self.wanted().await.open()
    }

    /// Nothing was asked for.
    pub fn is_idle(&mut self) -> bool {
        self.asked.try_recv().is_err()
    }
}

impl Wanted {
    /// Refuses the stream.
    pub fn refuse(self, error: GatewayError) {
        match self.reply {
            Some(reply) => reply.send(Err(error)).expect("somebody waits"),
            None => self.events.refuse(error),
        }
    }

    /// Opens the stream.
    pub fn open(self) -> Opened {
        // A client may have left meanwhile.
        let _ = self.reply.map(|reply| reply.send(Ok(())));
        self.events.opened();
        Opened { head: self.head, events: self.events, ups: self.ups, took: self.took }
    }
}

impl Opened {
    /// Sends an event.
    pub fn send(&self, event: TunnelEvent) {
        self.events.try_send(event).expect("room");
    }

    /// Answers with a whole response.
    pub fn respond(&self, status: u16, headers: &[(&str, &str)], body: &'static str) {
        let headers = headers.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        let body = (!body.is_empty()).then(|| Bytes::from_static(body.as_bytes()));
        self.send(TunnelEvent::Response { status, headers, body, more: false });
    }

    /// Waits until the client is gone.
    pub async fn dropped(&mut self) {
        while soon(self.ups.recv()).await.is_some() {}
    }

    /// How many grants of credit the client's reading was worth so far.
    pub fn took(&self) -> usize {
        self.took.load(Ordering::Relaxed)
    }

    /// What the client says next.
    pub async fn up(&mut self) -> StreamUp {
        soon(self.ups.recv()).await.expect("the client is there")
    }

    /// Method, path, and whole body of a request.
    pub fn request(&self) -> (&str, &str, &[u8]) {
        match &self.head {
            StreamHead::Request { method, path, body, .. } => (method, path, body.as_deref().unwrap_or_default()),
            StreamHead::WebSocket { .. } => panic!("not a request"),
        }
    }

    /// The value of a header as the actor gets it.
    pub fn header(&self, name: &str) -> Option<&str> {
        let (StreamHead::Request { headers, .. } | StreamHead::WebSocket { headers, .. }) = &self.head;
        headers.iter().find(|(known, _)| known == name).map(|(_, value)| &**value)
    }
}

/// An actor that nothing has happened to yet.
pub fn record(id: &str) -> ActorRecord {
    ActorRecord {
        id: id.into(),
        namespace_id: NAMESPACE.into(),
        name: "counter".into(),
        key: Some("one".into()),
        pool: "pool".into(),
        crash_policy: CrashPolicy::Sleep,
        input: None,
        phase: Phase::Pending,
        generation: 0,
        runner_id: None,
        next_command: 0,
        command_acknowledged: false,
        last_event: None,
        alarm_at: None,
        wake_after_stop: false,
        restarts: 0,
        error: None,
        create_ts: 1_000,
        start_ts: None,
        pending_allocation_ts: None,
        connectable_ts: None,
        sleep_ts: None,
        reschedule_ts: None,
        destroy_ts: None,
    }
}

/// A request; the response with its whole body.
pub async fn http(address: SocketAddr, request: hyper::http::request::Builder, body: &str) -> Response<Bytes> {
    let request = request.header(HOST, "test").body(Full::new(Bytes::from(body.to_owned()))).expect("a request");
    let (mut sender, connection) = connect(address).await;
    tokio::spawn(connection);
    let response = soon(sender.send_request(request)).await.expect("a response");
    let (parts, body) = response.into_parts();
    Response::from_parts(parts, soon(body.collect()).await.expect("a body").to_bytes())
}

/// A connection for requests by hand.
pub async fn connect(
    address: SocketAddr,
) -> (
    hyper::client::conn::http1::SendRequest<Full<Bytes>>,
    hyper::client::conn::http1::Connection<TokioIo<TcpStream>, Full<Bytes>>,
) {
    let stream = TcpStream::connect(address).await.expect("a connection");
    hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("a handshake")
}

/// A GET without a body.
pub async fn get(address: SocketAddr, path: &str) -> Response<Bytes> {
    http(address, Request::get(path), "").await
}

/// Bytes as they are, and everything that comes back until the server closes.
pub async fn raw(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    // The server may close before it has read everything.
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let _ = soon(stream.read_to_end(&mut answer)).await;
    String::from_utf8_lossy(&answer).into_owned()
}

/// A JSON body.
pub fn json(response: &Response<Bytes>) -> Value {
    serde_json::from_slice(response.body()).expect("JSON")
}

/// The `group.code` of a refusal.
pub fn code(response: &Response<Bytes>) -> String {
    let body = json(response);
    format!("{}.{}", body["group"].as_str().expect("group"), body["code"].as_str().expect("code"))
}

/// Fails a test that would hang.
pub async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(20), future).await.expect("in time")
}
