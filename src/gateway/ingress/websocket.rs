//! Clients' sockets.
//!
//! A socket is accepted before its actor is asked: a browser shows its page nothing of a refused upgrade, but it does
//! show code and reason of a close frame. What the client sends meanwhile is kept ([`early`]) while the socket is
//! opened at the actor ([`open`]); then frames go both ways ([`relay`]) until either side closes.

mod early;
mod open;
mod relay;

use std::future::{Future, ready};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use greenroom_protocol::Headers;
use greenroom_protocol::close::{GOING_AWAY, clip};
use hyper::body::Incoming;
use hyper::header::{HeaderMap, HeaderValue, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE};
use hyper::upgrade::OnUpgrade;
use hyper::{Request, Response, StatusCode};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::server::create_response_with_body;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};
use tracing::debug;

use self::relay::{Open, Opened};
use super::target::{ActorTarget, Target, subprotocols};
use super::{Ingress, headers, response};
use crate::gateway::listener::{Place, ResponseBody, plain};
use crate::gateway::refusal::Refusal;
use crate::gateway::{Id, StreamHead};
use crate::telemetry::metrics;

type Socket = WebSocketStream<TcpStream>;

/// How a client's socket ends.
#[derive(Debug)]
enum Ending {
    /// The client closed it or is gone; there is nobody left to tell.
    ByClient,
    /// It is closed from our side with this code and reason.
    ByGateway(u16, String),
    /// The client sent a frame that cannot be read to its end.
    Unreadable(u16, String),
}

/// What has become of a client that wanted a socket.
enum Admitted {
    /// Its actor has taken it.
    Open(Box<Open>),
    /// It is to be closed.
    Refused(Box<Socket>, Ending),
}

impl Ending {
    /// The gateway gives up, for this reason.
    fn refused(refusal: &Refusal, ray: Id) -> Self {
        metrics::gateway().rejected(refusal.rejection());
        Ending::ByGateway(GATEWAY_FAILURE, refusal.close_reason(ray))
    }

    /// As [`Ending::refused`], where a refusal has only a name.
    fn named(code: u16, name: &str, ray: Id) -> Self {
        Ending::ByGateway(code, format!("{name}#{ray}"))
    }

    /// The gateway stops. Clients that tell codes apart may come back in a moment.
    fn going_away(ray: Id) -> Self {
        Ending::named(SERVICE_RESTART, GOING_AWAY, ray)
    }
}

/// Whether the client wants a socket.
pub(super) fn is_upgrade<B>(request: &Request<B>) -> bool {
    request.headers().get(UPGRADE).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"))
}

impl Ingress {
    /// Accepts the upgrade and serves the socket from a task of its own.
    pub(super) fn serve_socket(
        self: &Arc<Self>,
        mut request: Request<Incoming>,
        target: Target,
        ray: Id,
    ) -> Response<ResponseBody> {
        let mut response = match create_response_with_body(&request, Bytes::new) {
            Ok(response) => response,
            Err(error) => return malformed(&error.to_string()),
        };
        if let Some(protocol) = answered_protocol(request.headers()) {
            response.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, protocol);
        }
        // The socket takes over the place of its connection.
        let place = request.extensions().get::<Place>().cloned();
        let upgrade = hyper::upgrade::on(&mut request);
        let headers = headers::to_actor(request.headers(), ray);
        let ingress = Arc::clone(self);
        // What is boxed here and below is gone while frames flow, which may be for days and for very many sockets.
        let admission = Box::pin({
            let ingress = Arc::clone(self);
            async move { ingress.admit(upgrade, target, headers, ray).await }
        });
        self.tasks.spawn(async move {
            // Named, and so kept until the end, without room for it a second time.
            let _ = &place;
            let mut open = match admission.await {
                Some(Admitted::Open(open)) => open,
                Some(Admitted::Refused(socket, ending)) => {
                    return Box::pin(ingress.part(*socket, ending, ray)).await;
                }
                None => return,
            };
            let ending = ingress.relay(&mut open, &ray).await;
            Box::pin(ingress.part(open.into_socket(), ending, ray)).await;
        });
        response.map(response::whole)
    }

    /// Waits for the client's socket and for its actor to take it. `None` when the client has left meanwhile.
    async fn admit(&self, upgrade: OnUpgrade, target: Target, headers: Headers, ray: Id) -> Option<Admitted> {
        let upgraded = match upgrade.await {
            Ok(upgraded) => upgraded,
            Err(error) => {
                debug!(%ray, %error, "client left during the upgrade");
                return None;
            }
        };
        let (stream, read) = plain(upgraded)?;
        let mut socket = WebSocketStream::from_partially_read(stream, read, Role::Server, Some(config())).await;
        let opened = match target {
            Target::Actor(target) => self.meet(&mut socket, ready(Ok(target)), headers, ray).await,
            Target::Query(target) => self.meet(&mut socket, self.find(target), headers, ray).await,
            Target::Unclear(refusal) => Err(Ending::refused(&refusal, ray)),
            Target::Api => Err(Ending::named(GATEWAY_FAILURE, "guard.websocket_not_supported", ray)),
        };
        Some(match opened {
            Ok(opened) => Admitted::Open(Box::new(Open::new(socket, opened))),
            Err(ending) => Admitted::Refused(Box::new(socket), ending),
        })
    }

    /// Says goodbye to the client, for as long as there is patience with it.
    async fn part(&self, socket: Socket, ending: Ending, ray: Id) {
        debug!(%ray, ?ending, "client socket ends");
        if timeout(self.patience.close, finish(socket, ending)).await.is_err() {
            debug!(%ray, "client did not answer the close frame");
        }
    }

    /// Finds the actor and opens the socket there, unless the gateway stops.
    async fn meet(
        &self,
        socket: &mut Socket,
        target: impl Future<Output = Result<ActorTarget, Refusal>>,
        headers: Headers,
        ray: Id,
    ) -> Result<Opened, Ending> {
        let opening = async {
            match target.await {
                Ok(ActorTarget { actor, path }) => {
                    self.connect(socket, actor, StreamHead::WebSocket { path, headers }, ray).await
                }
                Err(refusal) => Err(Ending::refused(&refusal, ray)),
            }
        };
        tokio::select! {
            opened = opening => opened,
            () = self.stopping.cancelled() => Err(Ending::going_away(ray)),
        }
    }
}

/// Says goodbye and waits for the client to do so, too: a connection that is closed at once may lose the close frame.
async fn finish(mut socket: Socket, ending: Ending) {
    let (code, reason, readable) = match ending {
        Ending::ByClient => {
            // Reading on sends the answer to the client's close frame.
            while let Some(Ok(_)) = socket.next().await {}
            return;
        }
        Ending::ByGateway(code, reason) => (code, reason, true),
        Ending::Unreadable(code, reason) => (code, reason, false),
    };
    let frame = CloseFrame { code: code.into(), reason: Utf8Bytes::from(clip(&reason)) };
    if socket.send(Message::Close(Some(frame))).await.is_err() {
        return;
    }
    if readable {
        while let Some(Ok(_)) = socket.next().await {}
    } else {
        discard(socket.get_mut()).await;
    }
}

/// Reads what a client still sends, without making sense of it.
async fn discard(io: &mut (impl AsyncRead + Unpin)) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(1..) = io.read(&mut buffer).await {}
}

/// The answer to an upgrade that is none.
fn malformed(why: &str) -> Response<ResponseBody> {
    let mut response = Refusal::bad_request(why).into_guard_response();
    if why.contains("Sec-WebSocket-Version") {
        *response.status_mut() = StatusCode::UPGRADE_REQUIRED;
        response.headers_mut().insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        response.headers_mut().insert(UPGRADE, HeaderValue::from_static("websocket"));
    }
    response.map(response::whole)
}

/// The subprotocol to answer with: `rivet` for a client that knows it; else the first offered, which is the actor's
/// language; none for a client that offers none. The engine answers `rivet` to all of them, and strict clients give up.
fn answered_protocol(headers: &HeaderMap) -> Option<HeaderValue> {
    let mut first = None;
    for protocol in subprotocols(headers) {
        if protocol == "rivet" {
            return Some(HeaderValue::from_static("rivet"));
        }
        if first.is_none() && !protocol.starts_with("rivet_") {
            first = Some(protocol);
        }
    }
    first.and_then(|protocol| HeaderValue::from_str(protocol).ok())
}

fn config() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(BUFFER)
        .write_buffer_size(BUFFER)
        .max_message_size(Some(CLIENT_FRAME_MAX))
        .max_frame_size(Some(CLIENT_FRAME_MAX))
}

/// What the engine takes from a client in one message, in bytes.
const CLIENT_FRAME_MAX: usize = 32 * 1024 * 1024;

/// Every socket has this much for what it reads, however quiet it is; a larger message gets its own room, and is read in
/// pieces of this size.
const BUFFER: usize = 256;

/// The close code for whatever is not the actor's or the client's doing, as in the engine.
const GATEWAY_FAILURE: u16 = 1011;

/// The close code for a client that may come back at once: what it had open is nobody's fault. The engine says 1011,
/// which clients take for a failure of their actor.
const SERVICE_RESTART: u16 = 1012;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_gets_a_subprotocol_it_offered() {
        let answer = |offered: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(offered));
            answered_protocol(&headers)
        };
        assert_eq!(answer("rivet_token.x, rivet"), Some(HeaderValue::from_static("rivet")));
        assert_eq!(answer("chat, superchat"), Some(HeaderValue::from_static("chat")));
        assert_eq!(answer("rivet_target.actor, chat"), Some(HeaderValue::from_static("chat")));
        assert_eq!(answer(""), None);
        assert_eq!(answered_protocol(&HeaderMap::new()), None);
    }
}
