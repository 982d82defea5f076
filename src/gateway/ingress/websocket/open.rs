//! Opens a client's socket at its actor, in as many attempts as it takes.

use greenroom_protocol::close::{clip, sendable_code};
use tokio::time::timeout;
use tracing::debug;

use super::Ending;
use crate::gateway::ingress::Ingress;
use crate::gateway::ingress::attempts::refusal;
use crate::gateway::refusal::Refusal;
use crate::gateway::{GatewayError, Id, OpenStream, StreamEvents, StreamHead, StreamLink, TunnelEvent, stream_events};

/// What came of one attempt.
enum Attempt {
    /// The actor took the socket.
    Opened(StreamLink, StreamEvents),
    /// Not this time.
    Failed(Refusal),
    /// Not ever.
    Refused(Ending),
}

impl Ingress {
    /// Opens the socket.
    ///
    /// # Errors
    /// How the socket ends when the actor does not take it.
    pub(super) async fn open(
        &self,
        actor: Id,
        head: &StreamHead,
        ray: Id,
    ) -> Result<(StreamLink, StreamEvents), Ending> {
        let mut attempt = 1;
        loop {
            let failure = match self.open_once(actor, head, ray).await {
                Attempt::Opened(link, events) => return Ok((link, events)),
                Attempt::Refused(ending) => return Err(ending),
                Attempt::Failed(refusal) => refusal,
            };
            if attempt >= self.patience.socket_attempts {
                return Err(Ending::refused(&failure, ray));
            }
            debug!(%ray, attempt, reason = failure.code, "opening a socket again");
            tokio::time::sleep(self.patience.wait_after(attempt)).await;
            attempt += 1;
        }
    }

    async fn open_once(&self, actor: Id, head: &StreamHead, ray: Id) -> Attempt {
        let (sender, mut events) = stream_events(BACKLOG);
        let open = OpenStream { actor_id: actor.as_str().into(), head: head.clone(), events: sender };
        let link = match self.gateway.open_stream(open).await {
            Ok(link) => link,
            Err(error) => return failed(error, actor, ray),
        };
        let answer = timeout(self.patience.socket_open, async {
            loop {
                match events.recv().await {
                    // An actor that speaks before it has taken the socket is not heard, as in the engine.
                    Some(TunnelEvent::Message { .. } | TunnelEvent::Response { .. } | TunnelEvent::Chunk { .. }) => {}
                    event => return event,
                }
            }
        });
        match answer.await {
            Err(_) => Attempt::Failed(Refusal::new(
                "guard",
                "websocket_open_timeout",
                "The actor did not take the socket in time.",
            )),
            Ok(Some(TunnelEvent::Open { .. })) => Attempt::Opened(link, events),
            Ok(Some(TunnelEvent::Close { code: Some(code), reason })) if is_meant_for_the_client(code) => {
                let reason = reason.as_deref().map_or("", clip).to_owned();
                Attempt::Refused(Ending::ByGateway(sendable_code(Some(code)), reason))
            }
            Ok(Some(TunnelEvent::Failed(error))) => failed(error, actor, ray),
            Ok(_) => Attempt::Failed(Refusal::new(
                "guard",
                "websocket_closed_before_open",
                "The actor closed the socket before it took it.",
            )),
        }
    }
}

/// Opening a socket changes nothing that cannot be repeated, so whatever may pass is tried again.
fn failed(error: GatewayError, actor: Id, ray: Id) -> Attempt {
    match error {
        GatewayError::ActorStopped | GatewayError::RequestAborted | GatewayError::TunnelClosed => {
            Attempt::Failed(refusal(error, actor))
        }
        error => Attempt::Refused(Ending::refused(&refusal(error, actor), ray)),
    }
}

/// An application that refuses a socket says so in its own codes, or with 1008; that is an answer, and asking again
/// would get the same. Any other code before the socket is open is a runner in trouble.
fn is_meant_for_the_client(code: u16) -> bool {
    code == 1008 || (3000..=4999).contains(&code)
}

/// How far a client may lag behind its actor, in bytes.
const BACKLOG: usize = 32 * 1024 * 1024;
