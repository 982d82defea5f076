//! What actors and their hosts tell the runner.

use greenroom_protocol::{KvRequest, KvResponse, StreamId};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};

use crate::actor::{ActorKey, Outcome};
use crate::host::Gone;
use crate::kv::KvError;
use crate::stream::{StreamKey, StreamReply};

/// The bounded way into the runner: a sender that has to wait is how a slow gateway slows its actors.
pub type CallSender = mpsc::Sender<Call>;

/// Something that an actor life did or wants. Calls of a life that is over change nothing.
#[derive(Debug)]
pub enum Call {
    /// It serves.
    Running(ActorKey),
    /// It knows these sockets from before its life began; comes before `Running`.
    Restored {
        /// Which life.
        actor: ActorKey,
        /// Sockets it goes on with, each with the index of the last client message it has taken.
        sockets: Vec<(StreamId, u16)>,
        /// Sockets that the gateway has kept and the actor does not know: they are closed.
        unknown: Vec<StreamId>,
    },
    /// It is no more, with everything it started.
    Ended(ActorKey, Outcome),
    /// It wants to sleep.
    Sleep(ActorKey),
    /// It wants to be destroyed.
    Destroy(ActorKey),
    /// Somebody with a handle wants it stopped, and says how the gateway is to take it.
    Stop(ActorKey, Outcome),
    /// Somebody with a handle wants it gone at once.
    Kill(ActorKey),
    /// It wants to be woken at this time, in milliseconds since the epoch.
    SetAlarm(ActorKey, Option<i64>),
    /// It reads or writes its storage.
    Kv {
        /// Who asks.
        actor: ActorKey,
        /// What.
        request: KvRequest,
        /// Gets exactly one answer.
        reply: oneshot::Sender<Result<KvResponse, KvError>>,
    },
    /// It answers on one of its streams.
    Stream {
        /// The life the stream was opened to.
        actor: ActorKey,
        /// Which opening of which stream.
        stream: StreamKey,
        /// What it says.
        reply: StreamReply,
    },
}

/// Sends, and waits only where there is no room: the way is hardly ever full, and a future that waits has to be made and
/// carried about.
pub(super) async fn send(calls: &CallSender, call: Call) -> Result<(), Gone> {
    match calls.try_send(call) {
        Ok(()) => Ok(()),
        Err(TrySendError::Closed(_)) => Err(Gone),
        Err(TrySendError::Full(call)) => Box::pin(calls.send(call)).await.map_err(|_| Gone),
    }
}

/// Sends without waiting where there is room, else from a task: a guard must not lose its word.
pub(super) fn send_from_drop(calls: &CallSender, call: Call) {
    match calls.try_send(call) {
        Ok(()) | Err(TrySendError::Closed(_)) => {}
        Err(TrySendError::Full(call)) => {
            let calls = calls.clone();
            if let Ok(runtime) = tokio::runtime::Handle::try_current() {
                runtime.spawn(async move {
                    // The runner may have stopped meanwhile, and then nobody waits for this.
                    let _ = calls.send(call).await;
                });
            }
        }
    }
}
