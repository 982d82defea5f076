//! How a process is told things: as requests to its server, or by its own asking.

use std::sync::Arc;

use bytes::Bytes;
use greenroom_protocol::Headers;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::StatusCode;
use hyper::header::{ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderName, HeaderValue, USER_AGENT};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::host::events::pull::{Pull, PullReply};
use crate::host::http::{
    App, AppError, Identity, answer_of, client_request, event_of, from_app, hook_headers, is_reserved,
};
use crate::host::{
    Delivery, EventAnswer, EventError, Gone, Request, Responder, StartActor, WebSocket, WebSocketRequest,
};

/// The way into one process.
pub(super) enum Door {
    /// It is a web server.
    Web(App),
    /// It asks.
    Pull(Pulling),
}

/// A process that asks for its events.
pub(super) struct Pulling {
    pull: Arc<Pull>,
    identity: Identity,
    gone: CancellationToken,
}

impl Door {
    /// Resolves when the process can be told things.
    pub(super) async fn opens(&self) {
        match self {
            Door::Web(app) => app.listens().await,
            Door::Pull(pulling) => pulling.pull.asked().await,
        }
    }

    /// Tells the process of its start or stop.
    pub(super) async fn hook(
        &self,
        event: &'static str,
        more: &[(&'static str, String)],
    ) -> Result<(StatusCode, Bytes), AppError> {
        match self {
            Door::Web(app) => app.event(event, more).await,
            Door::Pull(pulling) => {
                let mut headers = hook_headers(event, more);
                pulling.identity.add_to(&mut headers);
                let reply = pulling.ask(headers, Bytes::new()).await?;
                Ok((StatusCode::from_u16(reply.status).unwrap_or(StatusCode::OK), reply.body))
            }
        }
    }

    /// Tells an event.
    pub(super) async fn tell(&self, delivery: Delivery) -> Result<EventAnswer, EventError> {
        match self {
            Door::Web(app) => app.tell(delivery).await,
            Door::Pull(pulling) => {
                let (headers, body) = event_of(delivery, &pulling.identity)?;
                let reply = pulling.ask(headers, body).await.map_err(|error| EventError::Failed(error.to_string()))?;
                let status = StatusCode::from_u16(reply.status).unwrap_or(StatusCode::OK);
                answer_of(status, &reply.headers, reply.body)
            }
        }
    }

    /// Passes a client's request on, and the answer back.
    pub(super) async fn serve(&self, request: Request, responder: Responder) {
        match self {
            Door::Web(app) => app.serve(request, responder).await,
            // Without a runner there is no client to tell.
            Door::Pull(pulling) => drop(pulling.serve(request, responder).await),
        }
    }

    /// Hands a client's socket on.
    pub(super) async fn websocket(&self, request: WebSocketRequest, socket: WebSocket) {
        match self {
            Door::Web(app) => app.proxy_websocket(request, socket).await,
            Door::Pull(_) => {
                // Without a runner there is no client to tell.
                let _ = socket.close(1011, "an actor with listen = \"pull\" takes no sockets of its own").await;
            }
        }
    }

    /// Whether the process ends about now.
    pub(super) async fn is_gone(&self) -> bool {
        match self {
            Door::Web(app) => app.is_gone().await,
            Door::Pull(pulling) => pulling.gone.is_cancelled(),
        }
    }
}

impl Pulling {
    pub(super) fn new(pull: Arc<Pull>, start: &StartActor, gone: CancellationToken) -> Self {
        Pulling { pull, identity: Identity::new(start), gone }
    }

    async fn ask(&self, headers: hyper::HeaderMap, body: Bytes) -> Result<PullReply, AppError> {
        let asked = self.gone.run_until_cancelled(self.pull.offer(headers, body)).await;
        let mut reply = asked.ok_or(AppError::Silent)?.ok_or(AppError::Busy)?;
        // What `curl -d` says of every body says nothing.
        let form = |kind: &HeaderValue| kind == "application/x-www-form-urlencoded";
        if reply.headers.get(CONTENT_TYPE).is_some_and(form) {
            let text = std::str::from_utf8(&reply.body).is_ok();
            let kind = if text { "text/plain; charset=utf-8" } else { "application/octet-stream" };
            reply.headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        }
        Ok(reply)
    }

    async fn serve(&self, request: Request, responder: Responder) -> Result<(), Gone> {
        if is_reserved(&request.path) {
            return refuse(responder, 404, "not found").await;
        }
        let head = *request.method == *"HEAD";
        let headers =
            match client_request(&self.identity, &request.method, &request.path, &request.headers, request.stream) {
                Ok(headers) => headers,
                Err(text) => return refuse(responder, 400, &text).await,
            };
        let body = match Limited::new(request.body, REQUEST_MAX).collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) if error.is::<LengthLimitError>() => {
                return refuse(responder, 413, "an actor with listen = \"pull\" takes bodies up to 1 MiB").await;
            }
            Err(_) => {
                responder.abort();
                return Ok(());
            }
        };
        let mut reply = match self.ask(headers, body).await {
            Ok(reply) => reply,
            Err(AppError::Busy) => return refuse(responder, 503, "too many requests wait for this actor").await,
            Err(error) => {
                // It is no more: the gateway tries the actor's next life.
                debug!(%error, "gave a request up");
                responder.abort();
                return Ok(());
            }
        };
        for name in NOT_PASSED_ON {
            reply.headers.remove(name);
        }
        let mut headers = from_app(&reply.headers);
        headers.retain(|(name, _)| !name.starts_with("actor-"));
        headers.push(("content-length".into(), reply.body.len().to_string().into()));
        responder.respond(reply.status, headers, if head { Bytes::new() } else { reply.body }).await
    }
}

async fn refuse(responder: Responder, status: u16, text: &str) -> Result<(), Gone> {
    let headers: Headers = vec![("content-type".into(), "text/plain; charset=utf-8".into())];
    responder.respond(status, headers, Bytes::copy_from_slice(text.as_bytes())).await
}

/// What a call to the API carries for the API and not for the client.
const NOT_PASSED_ON: [HeaderName; 5] = [HOST, AUTHORIZATION, USER_AGENT, ACCEPT, ACCEPT_ENCODING];

/// The largest body of a request, in bytes: it is held in memory until the program asks.
const REQUEST_MAX: usize = 1024 * 1024;
