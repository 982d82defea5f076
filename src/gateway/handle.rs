//! How HTTP handlers reach the gateway's driver.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{CreateActor, GatewayError, GatewayHealth, LiveRunner, StreamEventSender, StreamHead, StreamUp};
use crate::store::{ActorRecord, Found, NamespaceRecord, Query, RunnerConfigRecord};

/// The door to the driver; cheap to clone.
#[derive(Clone, Debug)]
pub struct GatewayHandle {}

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
pub struct StreamLink {}

/// An actor somebody named, with what a handler must know to answer about it.
#[derive(Clone, Debug, PartialEq)]
pub struct ActorIdentity {
    /// The record as it stands on disk.
    pub record: ActorRecord,
    /// The name of its namespace.
    pub namespace: Arc<str>,
}

impl GatewayHandle {
    /// Creates an actor and answers once it is durable; it starts on its own.
    ///
    /// # Errors
    /// [`GatewayError::NamespaceNotFound`], [`GatewayError::NoRunnerConfig`], [`GatewayError::DuplicateKey`],
    /// [`GatewayError::Unavailable`].
    pub async fn create_actor(&self, _actor: CreateActor) -> Result<ActorRecord, GatewayError> {
        todo!()
    }

    /// The actor that holds the key, or a new one; the flag says that it was created by this call.
    ///
    /// # Errors
    /// As [`GatewayHandle::create_actor`], without [`GatewayError::DuplicateKey`]; [`GatewayError::Internal`] when no
    /// key is given.
    pub async fn get_or_create_actor(&self, _actor: CreateActor) -> Result<(ActorRecord, bool), GatewayError> {
        todo!()
    }

    /// Destroys an actor and answers once it is gone for good. An actor that is destroyed already is fine.
    ///
    /// # Errors
    /// [`GatewayError::NamespaceNotFound`]; [`GatewayError::ActorNotFound`] also when it lives in another namespace.
    pub async fn destroy_actor(&self, _namespace: &str, _actor_id: &str) -> Result<(), GatewayError> {
        todo!()
    }

    /// Wakes the actor if it sleeps, waits until it serves, and sends it the first message of the stream. An error
    /// means that nothing of it has reached the actor.
    ///
    /// # Errors
    /// [`GatewayError::ActorNotFound`], [`GatewayError::ActorDestroyed`], [`GatewayError::ActorReadyTimeout`],
    /// [`GatewayError::WholeBodyNeeded`], [`GatewayError::Unavailable`].
    pub async fn open_stream(&self, _stream: OpenStream) -> Result<StreamLink, GatewayError> {
        todo!()
    }

    /// An actor by id, also a sleeping or destroyed one.
    ///
    /// # Errors
    /// [`GatewayError::ActorNotFound`], [`GatewayError::Internal`] when the store fails.
    pub async fn actor(&self, _actor_id: &str) -> Result<ActorIdentity, GatewayError> {
        todo!()
    }

    /// Asks the store; the answer includes everything acknowledged before.
    ///
    /// # Errors
    /// [`GatewayError::Internal`] when the store fails.
    pub async fn read(&self, _query: Query) -> Result<Found, GatewayError> {
        todo!()
    }

    /// A namespace by name; answers from memory.
    #[must_use]
    pub fn namespace(&self, _name: &str) -> Option<NamespaceRecord> {
        todo!()
    }

    /// A namespace by id; answers from memory.
    #[must_use]
    pub fn namespace_by_id(&self, _id: &str) -> Option<NamespaceRecord> {
        todo!()
    }

    /// Creates a namespace. The caller checks the form of its names.
    ///
    /// # Errors
    /// [`GatewayError::NamespaceNameNotUnique`].
    pub async fn create_namespace(&self, _name: &str, _display_name: &str) -> Result<NamespaceRecord, GatewayError> {
        todo!()
    }

    /// The settings of the pools of a namespace, by pool name.
    ///
    /// # Errors
    /// [`GatewayError::NamespaceNotFound`].
    pub async fn runner_configs(&self, _namespace: &str) -> Result<Vec<RunnerConfigRecord>, GatewayError> {
        todo!()
    }

    /// Sets the settings of a pool; answers whether they differ from before.
    ///
    /// # Errors
    /// [`GatewayError::NamespaceNotFound`].
    pub async fn put_runner_config(
        &self,
        _namespace: &str,
        _pool: &str,
        _drain_on_version_upgrade: bool,
        _metadata: Option<String>,
    ) -> Result<bool, GatewayError> {
        todo!()
    }

    /// Removes the settings of a pool; none there is fine.
    ///
    /// # Errors
    /// [`GatewayError::NamespaceNotFound`].
    pub async fn delete_runner_config(&self, _namespace: &str, _pool: &str) -> Result<(), GatewayError> {
        todo!()
    }

    /// The connected runners by id.
    ///
    /// # Errors
    /// [`GatewayError::Unavailable`] when the gateway stops.
    pub async fn live_runners(&self) -> Result<BTreeMap<Arc<str>, LiveRunner>, GatewayError> {
        todo!()
    }

    /// How the gateway does.
    ///
    /// # Errors
    /// [`GatewayError::Unavailable`] when the gateway stops.
    pub async fn health(&self) -> Result<GatewayHealth, GatewayError> {
        todo!()
    }
}

impl StreamLink {
    /// Sends on the stream, waiting while the driver is busy.
    ///
    /// # Errors
    /// [`GatewayError::Unavailable`] when the gateway stops. That the stream has ended is told by its events only.
    pub async fn send(&self, _up: StreamUp) -> Result<(), GatewayError> {
        todo!()
    }
}
