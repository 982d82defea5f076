//! How HTTP handlers reach the gateway's driver.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use super::core::{Answer, CallRequest, StreamRef};
use super::driver::{Aside, Order};
use super::{CreateActor, GatewayError, GatewayHealth, LiveRunner, StreamEventSender, StreamHead, StreamUp};
use crate::store::{ActorRecord, Found, NamespaceRecord, Query, RunnerConfigRecord, StoreHandle};

/// The door to the driver; cheap to clone.
#[derive(Clone, Debug)]
pub struct GatewayHandle(Arc<Door>);

#[derive(Debug)]
struct Door {
    orders: mpsc::Sender<Order>,
    asides: mpsc::UnboundedSender<Aside>,
    store: StoreHandle,
    namespaces: Arc<Namespaces>,
    memory: LargeMessages,
    uploads: LargeMessages,
    next_stream: AtomicU32,
}

/// A stream a client wants to an actor. One attempt: retrying is the caller's.
#[derive(Debug)]
pub struct OpenStream {
    /// The actor's id.
    pub actor_id: Arc<str>,
    /// What is opened.
    pub head: StreamHead,
    /// Where the answers go; bounded by the caller. A client that lets this fill up loses its stream.
    pub events: StreamEventSender,
}

/// The client's side of an open stream; dropped, it tells the actor that the client is gone.
#[derive(Debug)]
pub struct StreamLink {
    uplink: Uplink,
    over: bool,
}

/// What a client sends goes this way; dropped, it says nothing.
#[derive(Clone, Debug)]
pub struct Uplink {
    stream: StreamRef,
    door: Arc<Door>,
}

/// An actor somebody named, with what a handler must know to answer about it.
#[derive(Clone, Debug, PartialEq)]
pub struct ActorIdentity {
    /// The record as it stands on disk.
    pub record: ActorRecord,
    /// The name of its namespace.
    pub namespace: Arc<str>,
}

/// The namespaces that exist, for everyone to look up; the driver writes it.
#[derive(Debug, Default)]
pub(super) struct Namespaces {
    by_name: RwLock<BTreeMap<Arc<str>, NamespaceRecord>>,
}

/// Bounds the memory of large messages on their way to the driver. Small ones are bounded by its inbox.
#[derive(Clone, Debug)]
pub(super) struct LargeMessages {
    left: Arc<Semaphore>,
    kib: usize,
}

impl GatewayHandle {
    pub(super) fn new(
        orders: mpsc::Sender<Order>,
        asides: mpsc::UnboundedSender<Aside>,
        store: StoreHandle,
        namespaces: Arc<Namespaces>,
    ) -> Self {
        // An answer to a stream of an earlier process must not be taken for one to a stream of this.
        let next_stream = AtomicU32::new(rand::random());
        GatewayHandle(Arc::new(Door {
            orders,
            asides,
            store,
            namespaces,
            memory: LargeMessages::new(LARGE_KIB),
            uploads: LargeMessages::new(UPLOADS_KIB),
            next_stream,
        }))
    }

    /// Creates an actor and answers once it is durable; it starts on its own.
    ///
    /// # Errors
    /// [`GatewayError::NamespaceNotFound`], [`GatewayError::NoRunnerConfig`], [`GatewayError::DuplicateKey`],
    /// [`GatewayError::Unavailable`].
    pub async fn create_actor(&self, actor: CreateActor) -> Result<ActorRecord, GatewayError> {
        match self.call(CallRequest::Create(actor)).await? {
            Answer::Actor { record, .. } => Ok(*record),
            other => Err(unexpected(&other)),
        }
    }

    /// The actor that holds the key, or a new one; the flag says that it was created by this call.
    ///
    /// # Errors
    /// As [`GatewayHandle::create_actor`], without [`GatewayError::DuplicateKey`]; [`GatewayError::Internal`] when no
    /// key is given.
    pub async fn get_or_create_actor(&self, actor: CreateActor) -> Result<(ActorRecord, bool), GatewayError> {
        match self.call(CallRequest::GetOrCreate(actor)).await? {
            Answer::Actor { record, created } => Ok((*record, created)),
            other => Err(unexpected(&other)),
        }
    }

    /// Destroys an actor and answers once it is gone for good. An actor that is destroyed already is fine.
    ///
    /// # Errors
    /// [`GatewayError::NamespaceNotFound`]; [`GatewayError::ActorNotFound`] also when it lives in another namespace.
    pub async fn destroy_actor(&self, namespace: &str, actor_id: &str) -> Result<(), GatewayError> {
        let request = CallRequest::Destroy { namespace: namespace.into(), actor_id: actor_id.into() };
        self.call(request).await.map(|_| ())
    }

    /// Wakes the actor if it sleeps, waits until it serves, and sends it the first message of the stream. An error
    /// means that nothing of it has reached the actor.
    ///
    /// # Errors
    /// [`GatewayError::ActorNotFound`], [`GatewayError::ActorDestroyed`], [`GatewayError::ActorReadyTimeout`],
    /// [`GatewayError::WholeBodyNeeded`], [`GatewayError::Unavailable`].
    pub async fn open_stream(&self, stream: OpenStream) -> Result<StreamLink, GatewayError> {
        let (reply, opened) = oneshot::channel();
        let link = self.order_stream(stream, Some(reply)).await?;
        opened.await.map_err(|_| stopped())??;
        Ok(link)
    }

    /// As [`GatewayHandle::open_stream`], but does not wait until the stream is open: its events say whether it is, and
    /// why it is not, so that whoever has nothing to do in between is woken once, by the answer.
    ///
    /// # Errors
    /// [`GatewayError::Unavailable`].
    pub async fn begin_stream(&self, stream: OpenStream) -> Result<StreamLink, GatewayError> {
        self.order_stream(stream, None).await
    }

    async fn order_stream(
        &self,
        stream: OpenStream,
        reply: Option<oneshot::Sender<Result<(), GatewayError>>>,
    ) -> Result<StreamLink, GatewayError> {
        // The link exists before the stream does: a caller that stops waiting gives the stream up.
        let link = StreamLink {
            uplink: Uplink {
                stream: StreamRef(self.0.next_stream.fetch_add(1, Ordering::Relaxed)),
                door: Arc::clone(&self.0),
            },
            over: false,
        };
        let order = Order::Open { stream: link.uplink.stream, open: stream, reply };
        self.0.orders.send(order).await.map_err(|_| stopped())?;
        Ok(link)
    }

    /// An actor by id, also a sleeping or destroyed one.
    ///
    /// # Errors
    /// [`GatewayError::ActorNotFound`], [`GatewayError::Internal`] when the store fails.
    pub async fn actor(&self, actor_id: &str) -> Result<ActorIdentity, GatewayError> {
        let Found::Actor(Some(record)) = self.read(Query::Actor(actor_id.into())).await? else {
            return Err(GatewayError::ActorNotFound);
        };
        let namespace = self.namespace_by_id(&record.namespace_id).ok_or(GatewayError::NamespaceNotFound)?.name;
        Ok(ActorIdentity { record: *record, namespace })
    }

    /// Asks the store; the answer includes everything acknowledged before.
    ///
    /// # Errors
    /// [`GatewayError::Internal`] when the store fails.
    pub async fn read(&self, query: Query) -> Result<Found, GatewayError> {
        self.0.store.read(query).await.map_err(|error| GatewayError::Internal(error.to_string()))
    }

    /// A namespace by name; answers from memory.
    #[must_use]
    pub fn namespace(&self, name: &str) -> Option<NamespaceRecord> {
        self.0.namespaces.by_name.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    /// A namespace by id; answers from memory.
    #[must_use]
    pub fn namespace_by_id(&self, id: &str) -> Option<NamespaceRecord> {
        let namespaces = self.0.namespaces.by_name.read().unwrap_or_else(PoisonError::into_inner);
        namespaces.values().find(|namespace| *namespace.id == *id).cloned()
    }

    /// Creates a namespace. The caller checks the form of its names.
    ///
    /// # Errors
    /// [`GatewayError::NamespaceNameNotUnique`].
    pub async fn create_namespace(&self, name: &str, display_name: &str) -> Result<NamespaceRecord, GatewayError> {
        let request = CallRequest::CreateNamespace { name: name.into(), display_name: display_name.to_owned() };
        match self.call(request).await? {
            Answer::Namespace(record) => Ok(record),
            other => Err(unexpected(&other)),
        }
    }

    /// The settings of the pools of a namespace, by pool name.
    ///
    /// # Errors
    /// [`GatewayError::NamespaceNotFound`].
    pub async fn runner_configs(&self, namespace: &str) -> Result<Vec<RunnerConfigRecord>, GatewayError> {
        let namespace_id = self.namespace(namespace).ok_or(GatewayError::NamespaceNotFound)?.id;
        match self.read(Query::RunnerConfigs { namespace_id }).await? {
            Found::RunnerConfigs(mut configs) => {
                configs.sort_by(|a, b| a.pool.cmp(&b.pool));
                Ok(configs)
            }
            _ => Err(GatewayError::Internal("the store answered another question".to_owned())),
        }
    }

    /// Sets the settings of a pool; answers whether they differ from before.
    ///
    /// # Errors
    /// [`GatewayError::NamespaceNotFound`].
    pub async fn put_runner_config(
        &self,
        namespace: &str,
        pool: &str,
        drain_on_version_upgrade: bool,
        metadata: Option<String>,
    ) -> Result<bool, GatewayError> {
        let (namespace, pool) = (namespace.into(), pool.into());
        let request = CallRequest::PutRunnerConfig { namespace, pool, drain_on_version_upgrade, metadata };
        match self.call(request).await? {
            Answer::ConfigPut { changed } => Ok(changed),
            other => Err(unexpected(&other)),
        }
    }

    /// Removes the settings of a pool; none there is fine.
    ///
    /// # Errors
    /// [`GatewayError::NamespaceNotFound`].
    pub async fn delete_runner_config(&self, namespace: &str, pool: &str) -> Result<(), GatewayError> {
        let request = CallRequest::DropRunnerConfig { namespace: namespace.into(), pool: pool.into() };
        self.call(request).await.map(|_| ())
    }

    /// The connected runners by id.
    ///
    /// # Errors
    /// [`GatewayError::Unavailable`] when the gateway stops.
    pub async fn live_runners(&self) -> Result<BTreeMap<Arc<str>, LiveRunner>, GatewayError> {
        let (reply, answer) = oneshot::channel();
        self.0.orders.send(Order::LiveRunners { reply }).await.map_err(|_| stopped())?;
        answer.await.map_err(|_| stopped())
    }

    /// How the gateway does.
    ///
    /// # Errors
    /// [`GatewayError::Unavailable`] when the gateway stops.
    pub async fn health(&self) -> Result<GatewayHealth, GatewayError> {
        let (reply, answer) = oneshot::channel();
        self.0.orders.send(Order::Health { reply }).await.map_err(|_| stopped())?;
        answer.await.map_err(|_| stopped())
    }

    /// Waits until everything decided so far is durable.
    pub(super) async fn settle(&self) -> Result<(), GatewayError> {
        self.call(CallRequest::Settle).await.map(|_| ())
    }

    pub(super) fn orders(&self) -> &mpsc::Sender<Order> {
        &self.0.orders
    }

    pub(super) fn memory(&self) -> &LargeMessages {
        &self.0.memory
    }

    async fn call(&self, request: CallRequest) -> Result<Answer, GatewayError> {
        let (reply, answer) = oneshot::channel();
        self.0.orders.send(Order::Call { request, reply }).await.map_err(|_| stopped())?;
        answer.await.map_err(|_| stopped())?
    }
}

impl Uplink {
    /// Sends on the stream, waiting while the driver is busy or much is on its way to runners.
    ///
    /// # Errors
    /// [`GatewayError::Unavailable`] when the gateway stops. That the stream has ended is told by its events only.
    pub async fn send(&self, up: StreamUp) -> Result<(), GatewayError> {
        let bytes = match &up {
            StreamUp::Chunk { body, .. } => body.len(),
            StreamUp::Message { data, .. } => data.len(),
            StreamUp::Close { .. } => 0,
        };
        let memory = self.door.uploads.take(bytes).await;
        let order = Order::Client { stream: self.stream, up, memory };
        self.door.orders.send(order).await.map_err(|_| stopped())
    }

    /// Gives the stream up; its events end.
    pub(super) async fn abandon(&self) {
        // A driver that is gone has no stream left to end.
        let _ = self.door.orders.send(Order::ClientGone { stream: self.stream }).await;
    }
}

impl StreamLink {
    /// Sends on the stream, waiting while the driver is busy.
    ///
    /// # Errors
    /// [`GatewayError::Unavailable`] when the gateway stops. That the stream has ended is told by its events only.
    pub async fn send(&self, up: StreamUp) -> Result<(), GatewayError> {
        self.uplink.send(up).await
    }

    /// The way for what the client sends, for a task of its own.
    #[must_use]
    pub fn uplink(&self) -> Uplink {
        self.uplink.clone()
    }

    /// Both ends have said their last: the driver has forgotten the stream and need not be told.
    pub(super) fn over(mut self) {
        self.over = true;
    }

    /// The client has taken as much of the response as one grant of credit is for.
    pub(super) fn took(&self) {
        // A driver that is gone sends nothing more.
        let _ = self.uplink.door.asides.send(Aside::ClientTook { stream: self.uplink.stream });
    }
}

impl Drop for StreamLink {
    fn drop(&mut self) {
        if self.over {
            return;
        }
        // Behind what was sent before, when there is room; otherwise past it, rather than not at all.
        if self.uplink.door.orders.try_send(Order::ClientGone { stream: self.uplink.stream }).is_err() {
            // A driver that is gone has no stream left to end.
            let _ = self.uplink.door.asides.send(Aside::ClientGone { stream: self.uplink.stream });
        }
    }
}

impl Namespaces {
    pub(super) fn add(&self, record: NamespaceRecord) {
        let mut namespaces = self.by_name.write().unwrap_or_else(PoisonError::into_inner);
        namespaces.insert(record.name.clone(), record);
    }
}

impl LargeMessages {
    fn new(kib: usize) -> Self {
        LargeMessages { left: Arc::new(Semaphore::new(kib)), kib }
    }

    /// A share for a message of this size, which it holds until the driver has dealt with it, or the runner's socket has taken it.
    pub(super) async fn take(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        if bytes < SMALL {
            return None;
        }
        let kib = u32::try_from((bytes / 1024).min(self.kib)).unwrap_or(u32::MAX);
        // The semaphore is never closed.
        self.left.clone().acquire_many_owned(kib).await.ok()
    }
}

fn stopped() -> GatewayError {
    GatewayError::Unavailable("the gateway has stopped")
}

fn unexpected(answer: &Answer) -> GatewayError {
    GatewayError::Internal(format!("unexpected answer {answer:?}"))
}

/// Messages below this are not counted: a full inbox of them is some tens of megabytes.
const SMALL: usize = 16 * 1024;
/// All large messages of clients on their way to runners together, in KiB: less than may wait for one runner, which
/// would lose its connection over it.
const UPLOADS_KIB: usize = 64 * 1024;
/// All large messages of runners on their way to the driver together, in KiB.
const LARGE_KIB: usize = 256 * 1024;
