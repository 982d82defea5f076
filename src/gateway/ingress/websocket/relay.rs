//! Frames between a client and the actor that has taken its socket.

use futures_util::{Sink, SinkExt, Stream, StreamExt};
use greenroom_protocol::close::{GOING_AWAY, clip, sendable_code};
use tokio::io::AsyncWriteExt;
use tokio_tungstenite::tungstenite::error::Error;
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

use super::early::{ClientSaid, Early, gone, listen};
use super::{Ending, GATEWAY_FAILURE, Socket};
use crate::gateway::ingress::Ingress;
use crate::gateway::ingress::attempts::refusal;
use crate::gateway::{GatewayError, Id, StreamEvents, StreamHead, StreamLink, StreamUp, TunnelEvent};

impl Ingress {
    /// Connects a client with its actor until either leaves, and says how to part from the client.
    pub(super) async fn connect(&self, socket: &mut Socket, actor: Id, head: StreamHead, ray: Id) -> Ending {
        let mut early = Early::default();
        let mut left = false;
        let (link, events) = {
            let mut opening = Box::pin(self.open(actor, &head, ray));
            loop {
                let said = tokio::select! {
                    opened = &mut opening => match opened {
                        Ok(opened) => break opened,
                        Err(_) if left => return Ending::ByClient,
                        Err(ending) => return ending,
                    },
                    said = listen(socket, ray), if !left => said,
                };
                let kept = match said {
                    ClientSaid::Frame(frame) => early.keep(frame, ray),
                    ClientSaid::Unreadable(ending) => Err(ending),
                    // Nobody waits for the actor any more, and nothing waits for it either.
                    ClientSaid::Goodbye(_) if early.is_empty() => return Ending::ByClient,
                    ClientSaid::Goodbye(close) => {
                        left = true;
                        // The client's goodbye is answered now and not when the actor is there. A client that is
                        // gone altogether makes this fail, which changes nothing.
                        let _ = socket.flush().await;
                        let _ = socket.get_mut().shutdown().await;
                        early.keep(close, ray)
                    }
                };
                if let Err(ending) = kept {
                    return ending;
                }
            }
        };
        relay(socket, link, events, early, actor, ray).await
    }
}

async fn relay(
    socket: &mut Socket,
    link: StreamLink,
    mut events: StreamEvents,
    mut early: Early,
    actor: Id,
    ray: Id,
) -> Ending {
    while let Some(frame) = early.take() {
        let last = matches!(frame, StreamUp::Close { .. });
        if link.send(frame).await.is_err() {
            return going_away(ray);
        }
        if last {
            return Ending::ByClient;
        }
    }
    let overflow = events.overflow();
    let (mut to_client, mut from_client) = socket.split();
    tokio::select! {
        ending = upwards(&mut from_client, &link, ray) => ending,
        ending = downwards(&mut events, &mut to_client, actor, ray) => match ending {
            Ok(ending) => ending,
            Err(_) => {
                // The driver may be stopping; then the actor is told by it.
                let _ = link.send(gone()).await;
                Ending::ByClient
            }
        },
        () = overflow => Ending::named(TRY_AGAIN_LATER, "guard.websocket_client_too_slow", ray),
    }
}

/// The client's frames to the actor. Waiting for the driver is what slows a client down.
async fn upwards(
    client: &mut (impl Stream<Item = Result<Message, Error>> + Unpin),
    link: &StreamLink,
    ray: Id,
) -> Ending {
    loop {
        let (frame, ending) = match listen(client, ray).await {
            ClientSaid::Frame(frame) => (frame, None),
            ClientSaid::Goodbye(close) => (close, Some(Ending::ByClient)),
            ClientSaid::Unreadable(ending) => (gone(), Some(ending)),
        };
        if link.send(frame).await.is_err() {
            return going_away(ray);
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
    actor: Id,
    ray: Id,
) -> Result<Ending, Error> {
    let ending = loop {
        if events.is_empty() {
            client.flush().await?;
        }
        match events.recv().await {
            Some(TunnelEvent::Message { data, binary: true }) => client.feed(Message::Binary(data)).await?,
            Some(TunnelEvent::Message { data, binary: false }) => {
                let text = Utf8Bytes::try_from(data.clone())
                    .unwrap_or_else(|_| String::from_utf8_lossy(&data).into_owned().into());
                client.feed(Message::Text(text)).await?;
            }
            Some(TunnelEvent::Close { code: None, .. }) => break Ending::named(1000, "ws.closed", ray),
            Some(TunnelEvent::Close { code, reason }) => {
                let reason = reason.as_deref().map_or("", clip).to_owned();
                break Ending::ByGateway(sendable_code(code), reason);
            }
            Some(TunnelEvent::Failed(GatewayError::ActorStopped | GatewayError::ActorDestroyed)) => {
                break Ending::named(1000, "actor.stopped", ray);
            }
            Some(TunnelEvent::Failed(GatewayError::Unavailable(_))) => break going_away(ray),
            Some(TunnelEvent::Failed(error)) => break Ending::refused(&refusal(error, actor), ray),
            None => break Ending::named(GATEWAY_FAILURE, "guard.tunnel_response_closed", ray),
            // Nothing of a request belongs here, and the socket is open already.
            Some(TunnelEvent::Response { .. } | TunnelEvent::Chunk { .. } | TunnelEvent::Open { .. }) => {}
        }
    };
    // The half that is dropped with this future may still hold a frame.
    client.flush().await?;
    Ok(ending)
}

/// The gateway stops: an open socket has nothing else to be unavailable for.
fn going_away(ray: Id) -> Ending {
    Ending::named(GATEWAY_FAILURE, GOING_AWAY, ray)
}

/// The close code for a client that may come back when it is faster.
const TRY_AGAIN_LATER: u16 = 1013;
