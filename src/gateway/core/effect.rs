//! What a gateway wants done.

use std::sync::Arc;

use greenroom_protocol::{KvRequest, ToClient};

use super::{CallId, ConnectionId, LoadId, StreamRef};
use crate::gateway::{GatewayError, TunnelEvent};
use crate::store::{ActorRecord, Change, NamespaceRecord, Query};

/// Something to do. Effects are performed in order, except that one with an `after` waits until the commit of that
/// number is durable (0: nothing to wait for); those that wait for the same commit keep their order.
///
/// The store's effects ([`Effect::Commit`], [`Effect::Load`], [`Effect::Kv`]) reach the store in this order.
#[derive(Debug, PartialEq)]
pub enum Effect {
    /// Make changes durable. When that fails nothing that waits for it may happen, and the gateway must stop.
    Commit {
        /// Rises by one with each.
        seq: u64,
        /// All or none.
        changes: Vec<Change>,
    },
    /// Ask the store; answer with `Loaded`.
    Load {
        /// Comes back with the answer.
        load: LoadId,
        /// The question.
        query: Query,
    },
    /// Ask the storage of an actor and send the answer on the socket, if it is still there.
    Kv {
        /// The socket that asked.
        connection: ConnectionId,
        /// As in the runner's request.
        request_id: u32,
        /// The actor.
        actor_id: Arc<str>,
        /// The operation.
        request: KvRequest,
    },
    /// Send a message to a runner.
    Send {
        /// Its socket.
        connection: ConnectionId,
        /// The message.
        message: ToClient,
        /// The commit it waits for.
        after: u64,
    },
    /// Close a runner's socket after what was sent before. Its inputs are of no interest any more.
    Close {
        /// The socket.
        connection: ConnectionId,
        /// WebSocket close code.
        code: u16,
        /// `group.code`; the ray is added by who performs this.
        reason: &'static str,
        /// The commit it waits for.
        after: u64,
    },
    /// The stream has reached its runner, or will without further ado.
    Opened {
        /// The stream.
        stream: StreamRef,
    },
    /// The stream is not opened; nothing of it has reached a runner.
    Refused {
        /// The stream.
        stream: StreamRef,
        /// Why.
        error: GatewayError,
    },
    /// Hand something to a client. After the last event of a stream the core knows nothing of it any more.
    Deliver {
        /// The client's stream.
        stream: StreamRef,
        /// What.
        event: TunnelEvent,
    },
    /// A runner's actor has taken as much of a client's request as one grant of credit is for.
    Granted {
        /// The client's stream.
        stream: StreamRef,
    },
    /// Answer a call.
    Answer {
        /// The call.
        call: CallId,
        /// The answer.
        answer: Result<Answer, GatewayError>,
        /// The commit it waits for.
        after: u64,
    },
    /// A namespace exists from now on.
    Namespace {
        /// Which.
        record: NamespaceRecord,
        /// The commit it waits for.
        after: u64,
    },
}

/// What a successful call is answered with.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// To `Create` and `GetOrCreate`.
    Actor {
        /// The actor.
        record: Box<ActorRecord>,
        /// It was created by this call.
        created: bool,
    },
    /// To `CreateNamespace`.
    Namespace(NamespaceRecord),
    /// To `Destroy`, `DropRunnerConfig` and `Settle`.
    Done,
    /// To `PutRunnerConfig`.
    ConfigPut {
        /// The settings differ from before.
        changed: bool,
    },
}

impl Effect {
    /// The commit to wait for.
    #[must_use]
    pub fn after(&self) -> u64 {
        match self {
            Effect::Send { after, .. }
            | Effect::Close { after, .. }
            | Effect::Answer { after, .. }
            | Effect::Namespace { after, .. } => *after,
            Effect::Commit { .. }
            | Effect::Load { .. }
            | Effect::Kv { .. }
            | Effect::Opened { .. }
            | Effect::Refused { .. }
            | Effect::Deliver { .. }
            | Effect::Granted { .. } => 0,
        }
    }

    /// Makes it wait for a commit.
    pub(super) fn wait_for(&mut self, seq: u64) {
        match self {
            Effect::Send { after, .. }
            | Effect::Close { after, .. }
            | Effect::Answer { after, .. }
            | Effect::Namespace { after, .. } => *after = seq,
            Effect::Commit { .. }
            | Effect::Load { .. }
            | Effect::Kv { .. }
            | Effect::Opened { .. }
            | Effect::Refused { .. }
            | Effect::Deliver { .. }
            | Effect::Granted { .. } => {}
        }
    }
}
