//! Clients' way to actors: HTTP requests and WebSockets, and everything else to the public API.
//!
//! A request names its actor by id (`target`) or by key (`query_target`, `lookup`), a small body is read whole
//! (`request_body`) and a larger one follows in pieces (`upload`), it is tried until the actor answers (`attempts`), and the answer is passed on as it comes (`response`). A socket is accepted at once and
//! then connected with its actor (`websocket`). Whatever goes wrong, the client is told why, in the engine's form.

mod attempts;
mod cbor;
pub(in crate::gateway) mod cors;
pub mod headers;
mod lookup;
mod patience;
mod query_target;
mod request_body;
mod response;
mod span;
mod target;
#[cfg(test)]
mod tests;
mod upload;
mod websocket;

use std::future::{Future, ready};
use std::sync::Arc;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::{CONNECTION, HeaderName, HeaderValue, ORIGIN};
use hyper::http::request::Parts;
use hyper::{Method, Request, Response};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use patience::Patience;
pub use query_target::{CreateBy, QueryTarget};
pub use target::{ActorTarget, Target};

use self::attempts::Unanswered;
use self::request_body::{BodyMemory, RequestBody, Unread};
use super::listener::{ResponseBody, Routes};
use super::public_api::PublicApi;
use super::refusal::{RIVET_RAY, Refusal};
use super::{GatewayHandle, Id};
use crate::telemetry::metrics;

/// Serves every request that is not a runner's.
#[derive(Debug)]
pub struct Ingress {
    gateway: GatewayHandle,
    api: PublicApi,
    patience: Patience,
    body_memory: BodyMemory,
    tasks: TaskTracker,
    stopping: CancellationToken,
}

impl Ingress {
    /// The most memory that request bodies may take together, in bytes.
    pub const BODY_MEMORY: usize = 256 * 1024 * 1024;

    /// An ingress to the actors of a gateway.
    #[must_use]
    pub fn new(gateway: GatewayHandle, api: PublicApi, patience: Patience) -> Arc<Self> {
        Arc::new(Ingress {
            gateway,
            api,
            patience,
            body_memory: BodyMemory::new(Self::BODY_MEMORY),
            tasks: TaskTracker::new(),
            stopping: CancellationToken::new(),
        })
    }

    /// What the listener hands its requests to.
    #[must_use]
    pub fn routes(self: &Arc<Self>) -> Routes {
        let ingress = Arc::clone(self);
        Arc::new(move |request| Box::pin(Arc::clone(&ingress).serve(request)))
    }

    /// Serves one request.
    pub async fn serve(self: Arc<Self>, request: Request<Incoming>) -> Response<ResponseBody> {
        let ray = Id::from_random(rand::random());
        let mut response = self.route(request, ray).await;
        response.headers_mut().insert(RIVET_RAY, ray.into());
        response
    }

    /// Closes all clients' sockets and returns when they are closed.
    pub async fn stop(&self) {
        self.stopping.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    async fn route(self: &Arc<Self>, mut request: Request<Incoming>, ray: Id) -> Response<ResponseBody> {
        let socket = websocket::is_upgrade(&request);
        let target = Target::of(&request, socket);
        if matches!(&target, Target::Query(QueryTarget { skip_ready_wait: true, .. })) {
            // In the form in which it goes on.
            request.headers_mut().insert(SKIP_READY_WAIT, HeaderValue::from_static("true"));
        }
        if socket {
            return self.serve_socket(request, target, ray);
        }
        let preflight = *request.method() == Method::OPTIONS;
        match target {
            // Boxed, so that a request to an actor carries no room for it: that one is moved around.
            Target::Api => Box::pin(self.api.serve(request)).await.map(response::whole),
            Target::Actor(_) | Target::Query(_) | Target::Unclear(_) if preflight => {
                cors::preflight(request.headers()).map(response::whole)
            }
            Target::Unclear(refusal) => {
                let origin = request.headers().get(ORIGIN).cloned();
                refuse(refusal, origin)
            }
            Target::Actor(target) => self.serve_actor(request, ready(Ok(target)), ray).await,
            Target::Query(target) => Box::pin(self.serve_actor(request, self.find(target), ray)).await,
        }
    }

    /// Serves a request to an actor, which is looked up only when the request is there, or much of it.
    async fn serve_actor(
        &self,
        request: Request<Incoming>,
        target: impl Future<Output = Result<ActorTarget, Refusal>>,
        ray: Id,
    ) -> Response<ResponseBody> {
        let (mut parts, body) = request.into_parts();
        let mut span = span::begin(&mut parts);
        let response = self.answer_for_actor(&parts, body, target, ray).await;
        span.status(response.status().as_u16());
        span::until_sent(span, response)
    }

    async fn answer_for_actor(
        &self,
        parts: &Parts,
        body: Incoming,
        target: impl Future<Output = Result<ActorTarget, Refusal>>,
        ray: Id,
    ) -> Response<ResponseBody> {
        let origin = parts.headers.get(ORIGIN).cloned();
        let mut body = match RequestBody::begin(body, &self.body_memory, self.patience.body_pause).await {
            Ok(body) => body,
            Err(unread) => return self.leave_unread(unread, origin),
        };
        let answer = match target.await {
            Ok(target) => self.ask(parts, &target, &mut body, ray).await,
            Err(refusal) => Err(Unanswered::Refused(refusal)),
        };
        let answer = match (answer, body.into_unread()) {
            (Err(Unanswered::Unread(unread)), _) => return self.leave_unread(unread, origin),
            (Err(Unanswered::Refused(refusal)), Some(rest)) => {
                return self.leave_unread(Unread { refusal, rest }, origin);
            }
            (Err(Unanswered::Refused(refusal)), None) => Err(refusal),
            (Ok(head), rest) => {
                if let Some(rest) = rest {
                    self.tasks.spawn(Unread::drain(rest));
                }
                Ok(head)
            }
        };
        match answer.and_then(|head| response::response(head, &parts.method)) {
            Ok(mut response) => {
                cors::allow(response.headers_mut(), origin);
                response
            }
            Err(refusal) => refuse(refusal, origin),
        }
    }

    /// Refuses a request whose body is not read, and reads it all the same for a while.
    fn leave_unread(&self, unread: Unread, origin: Option<HeaderValue>) -> Response<ResponseBody> {
        self.tasks.spawn(Unread::drain(unread.rest));
        let mut response = refuse(unread.refusal, origin);
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        response
    }
}

/// Asks to reach an actor that does not serve, because it is starting or stopping.
const SKIP_READY_WAIT: HeaderName = HeaderName::from_static("x-rivet-skip-ready-wait");

fn refuse(refusal: Refusal, origin: Option<HeaderValue>) -> Response<ResponseBody> {
    metrics::gateway().rejected(refusal.rejection());
    let mut response: Response<Bytes> = refusal.into_guard_response();
    cors::allow(response.headers_mut(), origin);
    response.map(response::whole)
}
