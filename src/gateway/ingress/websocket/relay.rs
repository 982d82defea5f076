//! Frames between a client and the actor that has taken its socket.

use std::pin::pin;
use std::time::Duration;

use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{Sink, SinkExt, Stream, StreamExt};
use greenroom_protocol::close::{clip, sendable_code};
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::error::Error;
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

use super::early::{ClientSaid, Early, gone, listen};
use super::{Ending, GATEWAY_FAILURE, Socket};
use crate::gateway::ingress::Ingress;
use crate::gateway::ingress::attempts::refusal;
use crate::gateway::{GatewayError, Id, StreamEvents, StreamHead, StreamLink, StreamUp, TunnelEvent};

/// What an actor that has taken a socket is connected with.
pub(super) struct Opened {
    actor: Id,
    link: StreamLink,
    events: StreamEvents,
    early: Early,
}

/// A client's socket and its actor's end.
pub(super) struct Open {
    to_client: SplitSink<Socket, Message>,
    from_client: SplitStream<Socket>,
    actor: Opened,
}

impl Open {
    pub(super) fn new(socket: Socket, actor: Opened) -> Self {
        let (to_client, from_client) = socket.split();
        Open { to_client, from_client, actor }
    }

    /// The client's socket alone; the actor learns that the client is gone.
    pub(super) fn into_socket(self) -> Socket {
        self.from_client.reunite(self.to_client).expect("both are halves of one socket")
    }
}

impl Ingress {
    /// Opens the socket at the actor and keeps what the client says meanwhile.
    ///
    /// # Errors
    /// How to part from the client when there is nothing to open.
    pub(super) async fn connect(
        &self,
        socket: &mut Socket,
        actor: Id,
        head: StreamHead,
        ray: Id,
    ) -> Result<Opened, Ending> {
        let mut early = Early::default();
        let mut left = false;
        let mut opening = Box::pin(self.open(actor, &head, ray));
        loop {
            let said = tokio::select! {
                opened = &mut opening => match opened {
                    Ok((link, events)) => return Ok(Opened { actor, link, events, early }),
                    Err(_) if left => return Err(Ending::ByClient),
                    Err(ending) => return Err(ending),
                },
                said = listen(socket, &ray), if !left => said,
            };
            let kept = match said {
                ClientSaid::Frame(frame) => early.keep(frame, ray),
                ClientSaid::Unreadable(ending) => Err(ending),
                // Nobody waits for the actor any more, and nothing waits for it either.
                ClientSaid::Goodbye(_) if early.is_empty() => Err(Ending::ByClient),
                ClientSaid::Goodbye(close) => {
                    left = true;
                    // The client's goodbye is answered now and not when the actor is there. A client that is gone
                    // altogether makes this fail, which changes nothing.
                    let _ = socket.flush().await;
                    let _ = socket.get_mut().shutdown().await;
                    early.keep(close, ray)
                }
            };
            kept?;
        }
    }
}

impl Ingress {
    /// Passes frames both ways until either side leaves or the gateway stops, and says how to part from the client.
    ///
    /// Ids are borrowed: each copy would be part of what every quiet socket takes.
    pub(super) async fn relay(&self, open: &mut Open, ray: &Id) -> Ending {
        let Open { to_client, from_client, actor: Opened { actor, link, events, early } } = open;
        let overflow = events.overflow();
        let mut upwards = pin!(upwards(from_client, link, early, ray));
        let written = tokio::select! {
            ending = &mut upwards => return ending,
            written = downwards(events, to_client, actor, ray) => written,
            () = overflow => return Ending::named(TRY_AGAIN_LATER, "guard.websocket_client_too_slow", *ray),
            () = self.stopping.cancelled() => return Ending::going_away(*ray),
        };
        match written {
            Ok(ending) => ending,
            // A client that takes nothing any more may have said something before, its goodbye for one.
            Err(_) => match Box::pin(timeout(LAST_WORDS, upwards)).await {
                Ok(ending) => ending,
                Err(_) => {
                    // The driver may be stopping; then the actor is told by it.
                    let _ = Box::pin(link.send(gone())).await;
                    Ending::ByClient
                }
            },
        }
    }
}

/// The client's frames to the actor. Waiting for the driver is what slows a client down.
async fn upwards(
    client: &mut (impl Stream<Item = Result<Message, Error>> + Unpin),
    link: &StreamLink,
    early: &mut Early,
    ray: &Id,
) -> Ending {
    while let Some(frame) = early.take() {
        let last = matches!(frame, StreamUp::Close { .. });
        // The wait takes memory only while it lasts: most sockets wait for their client.
        if Box::pin(link.send(frame)).await.is_err() {
            return Ending::going_away(*ray);
        }
        if last {
            return Ending::ByClient;
        }
    }
    *early = Early::default();
    loop {
        let (frame, ending) = match listen(client, ray).await {
            ClientSaid::Frame(frame) => (frame, None),
            ClientSaid::Goodbye(close) => (close, Some(Ending::ByClient)),
            ClientSaid::Unreadable(ending) => (gone(), Some(ending)),
        };
        if Box::pin(link.send(frame)).await.is_err() {
            return Ending::going_away(*ray);
        }
        if let Some(ending) = ending {
            return ending;
        }
    }
}

/// The actor's frames to the client. What is there is written before it is flushed, so that many small frames share a
/// packet and none waits for another.
async fn downwards(
    events: &mut StreamEvents,
    client: &mut (impl Sink<Message, Error = Error> + Unpin),
    actor: &Id,
    ray: &Id,
) -> Result<Ending, Error> {
    let ending = loop {
        if events.is_empty() {
            client.flush().await?;
        }
        let message = match events.recv().await {
            Some(TunnelEvent::Message { data, binary: true }) => Message::Binary(data),
            Some(TunnelEvent::Message { data, binary: false }) => Message::Text(
                Utf8Bytes::try_from(data.clone())
                    .unwrap_or_else(|_| String::from_utf8_lossy(&data).into_owned().into()),
            ),
            Some(TunnelEvent::Close { code: None, .. }) => break Ending::named(1000, "ws.closed", *ray),
            Some(TunnelEvent::Close { code, reason }) => {
                let reason = reason.as_deref().map_or("", clip).to_owned();
                break Ending::ByGateway(sendable_code(code), reason);
            }
            Some(TunnelEvent::Failed(GatewayError::ActorStopped | GatewayError::ActorDestroyed)) => {
                break Ending::named(1000, "actor.stopped", *ray);
            }
            Some(TunnelEvent::Failed(GatewayError::Unavailable(_))) => break Ending::going_away(*ray),
            Some(TunnelEvent::Failed(error)) => break Ending::refused(&refusal(error, *actor), *ray),
            None => break Ending::named(GATEWAY_FAILURE, "guard.tunnel_response_closed", *ray),
            // Nothing of a request belongs here, and the socket is open already.
            Some(TunnelEvent::Response { .. } | TunnelEvent::Chunk { .. } | TunnelEvent::Open { .. }) => continue,
        };
        // Outside of the match, or there would be room for what was received as well while this waits.
        client.feed(message).await?;
    };
    // The half that is dropped with this future may still hold a frame.
    client.flush().await?;
    Ok(ending)
}

/// The close code for a client that may come back when it is faster.
const TRY_AGAIN_LATER: u16 = 1013;

/// How long what a client said before its connection broke may take to be read.
const LAST_WORDS: Duration = Duration::from_secs(5);
