//! Tries a request until the actor answers it.
//!
//! An actor may be asleep, on its way to another runner, or just being stopped; then the next attempt finds it ready.
//! The engine repeats every request alike. Here a request that may change something is repeated only when it is known
//! not to have run.

use bytes::Bytes;
use bytestring::ByteString;
use greenroom_protocol::Headers;
use hyper::http::request::Parts;
use hyper::{Method, StatusCode};
use serde_json::json;
use tokio::time::timeout;
use tracing::debug;

use super::patience::Patience;
use super::request_body::{RequestBody, Unread};
use super::response::Head;
use super::target::ActorTarget;
use super::upload::{Pump, Upload};
use super::{Ingress, headers};
use crate::gateway::refusal::{RIVET_ERROR, Refusal};
use crate::gateway::{GatewayError, Id, OpenStream, StreamEvents, StreamHead, TunnelEvent, stream_events};

/// What came of one attempt.
enum Attempt {
    /// The actor answered.
    Answered(Head),
    /// The runner or the actor answered that another attempt may help; its words are the client's when none follows.
    Deferred { head: Head, code: String, ran: Ran },
    /// No answer.
    Failed { error: GatewayError, ran: Ran },
    /// Not all of the request came.
    Cut(Refusal),
}

/// The first that an actor says of its answer.
struct Beginning {
    status: u16,
    headers: Headers,
    body: Bytes,
    /// More of the body follows.
    more: bool,
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Unanswered {
    /// Nobody answers.
    Refused(Refusal),
    /// Not all of the request came.
    Unread(Unread),
}

/// Whether the actor may have acted on a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ran {
    No,
    Maybe,
}

/// Why an attempt was not the last one.
struct Last {
    code: String,
    status: StatusCode,
}

impl Ingress {
    /// The actor's answer.
    ///
    /// # Errors
    /// What to tell the client when there is none.
    pub(super) async fn ask(
        &self,
        parts: &Parts,
        target: &ActorTarget,
        body: &mut RequestBody,
        ray: Id,
    ) -> Result<Head, Unanswered> {
        let repeatable = is_repeatable(parts);
        let mut attempt = 1;
        loop {
            let outcome = self.attempt(parts, target, body, ray).await;
            let mut again = |ran| (ran == Ran::No || repeatable) && body.rewind();
            let last = match outcome {
                Attempt::Answered(head) => return Ok(head),
                Attempt::Cut(refusal) => return Err(Unanswered::Refused(refusal)),
                Attempt::Failed { error: GatewayError::WholeBodyNeeded, .. } => {
                    let _ = body.rewind();
                    let whole = body.make_whole(&self.body_memory, self.patience.body_pause).await;
                    whole.map_err(Unanswered::Unread)?;
                    continue;
                }
                Attempt::Deferred { head, ran, .. } if !again(ran) => return Ok(head),
                Attempt::Deferred { head, code, .. } => {
                    Last { code, status: StatusCode::from_u16(head.status).unwrap_or(StatusCode::SERVICE_UNAVAILABLE) }
                }
                Attempt::Failed { error, ran } if !is_passing(&error) || !again(ran) => {
                    return Err(Unanswered::Refused(refusal(error, target.actor)));
                }
                Attempt::Failed { error, .. } => {
                    let refusal = Refusal::from(error);
                    Last { status: refusal.guard_status(), code: format!("{}.{}", refusal.group, refusal.code) }
                }
            };
            if attempt >= self.patience.request_attempts {
                return Err(Unanswered::Refused(exhausted(attempt, &last)));
            }
            debug!(%ray, attempt, reason = last.code, "trying a request again");
            tokio::time::sleep(Patience::wait_after(&self.patience, attempt)).await;
            attempt += 1;
        }
    }

    async fn attempt(&self, parts: &Parts, target: &ActorTarget, body: &mut RequestBody, ray: Id) -> Attempt {
        let (sender, mut events) = stream_events(BACKLOG);
        let (first, more) = match body {
            RequestBody::Whole(whole) => ((!whole.bytes.is_empty()).then(|| whole.bytes.clone()), false),
            RequestBody::Upload(upload) => (upload.first(&events.upload()), true),
            RequestBody::Sent => (None, false),
        };
        let head = StreamHead::Request {
            method: method(&parts.method),
            path: target.path.clone(),
            headers: headers::to_actor(&parts.headers, ray),
            body: first,
            more,
        };
        let open = OpenStream { actor_id: target.actor.as_str().into(), head, events: sender };
        // Only who has more to send must wait for the stream to be open.
        let link = match more {
            true => self.gateway.open_stream(open).await,
            false => self.gateway.begin_stream(open).await,
        };
        let link = match link {
            Ok(link) => link,
            Err(error) => return Attempt::Failed { error, ran: Ran::No },
        };
        let mut pump = match std::mem::replace(body, RequestBody::Sent) {
            RequestBody::Upload(upload) => Some(upload.start(link.uplink(), events.upload(), &self.tasks)),
            whole => {
                *body = whole;
                None
            }
        };
        let answer = loop {
            let progress = |pump: &Option<Pump>| pump.as_ref().map(Pump::progress);
            let before = (progress(&pump), events.is_open());
            match timeout(self.patience.response_start, beginning(&mut events)).await {
                Ok(answer) => break answer,
                // As long as the request moves on, or waits for its actor, nobody can expect an answer.
                Err(_) if !before.1 || before != (progress(&pump), true) => {}
                Err(_) => break Err((GatewayError::ResponseStartTimeout, Ran::Maybe)),
            }
        };
        let cut = pump.as_mut().and_then(Pump::failure);
        let attempt = match answer {
            Ok(Beginning { status, headers, body, more }) => {
                let rest = if more {
                    Some((events, link))
                } else {
                    if pump.is_none() {
                        link.over();
                    }
                    None
                };
                let head = Head { status, headers, body, rest, upload: None };
                match deferral(&head) {
                    Some((code, ran)) => Attempt::Deferred { head, code, ran },
                    None => return Attempt::Answered(Head { upload: pump, ..head }),
                }
            }
            Err((error, ran)) => match cut {
                Some(refusal) => Attempt::Cut(refusal),
                None => Attempt::Failed { error, ran },
            },
        };
        if let Some(upload) = stopped(pump).await {
            *body = RequestBody::Upload(Box::new(upload));
        }
        attempt
    }
}

/// Waits for the answer to begin. Cancel safe.
async fn beginning(events: &mut StreamEvents) -> Result<Beginning, (GatewayError, Ran)> {
    loop {
        match events.recv().await {
            Some(TunnelEvent::Response { status, headers, body, more }) => {
                return Ok(Beginning { status, headers, body: body.unwrap_or_default(), more });
            }
            Some(TunnelEvent::Failed(error)) => return Err((error, Ran::Maybe)),
            None => {
                let refusal = events.refusal().map(|error| (error.clone(), Ran::No));
                return Err(refusal.unwrap_or((GatewayError::TunnelClosed, Ran::Maybe)));
            }
            // Nothing else can begin a response; the engine drops it too.
            Some(
                TunnelEvent::Chunk { .. }
                | TunnelEvent::Open { .. }
                | TunnelEvent::Message { .. }
                | TunnelEvent::Close { .. },
            ) => {}
        }
    }
}

/// The upload of a pump that is needed no more.
async fn stopped(pump: Option<Pump>) -> Option<Upload> {
    pump?.stop().await
}

/// Whether repeating the request does what sending it once does: by its method, or by its sender's word.
fn is_repeatable(parts: &Parts) -> bool {
    parts.method.is_idempotent() || parts.headers.contains_key("idempotency-key")
}

/// Whether the cause may be gone at the next attempt.
fn is_passing(error: &GatewayError) -> bool {
    match error {
        GatewayError::ActorStopped | GatewayError::RequestAborted | GatewayError::TunnelClosed => true,
        // The driver has waited long enough for these, or they will not change.
        GatewayError::ActorReadyTimeout { .. }
        | GatewayError::ResponseStartTimeout
        | GatewayError::Unavailable(_)
        | GatewayError::ActorNotFound
        | GatewayError::ActorDestroyed
        | GatewayError::DuplicateKey { .. }
        | GatewayError::NamespaceNotFound
        | GatewayError::NamespaceNameNotUnique
        | GatewayError::NoRunnerConfig { .. }
        | GatewayError::InvalidResponse(_)
        | GatewayError::WholeBodyNeeded
        | GatewayError::Internal(_) => false,
    }
}

/// Whether an answer asks for another attempt: 503 or 504 with one of these in `x-rivet-error`.
fn deferral(head: &Head) -> Option<(String, Ran)> {
    if head.status != 503 && head.status != 504 {
        return None;
    }
    let (_, error) = head.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case(RIVET_ERROR.as_str()))?;
    let ran = match error.strip_prefix("guard.")? {
        "service_unavailable" | "actor_ready_timeout" | "tunnel_request_aborted" => Ran::No,
        "actor_stopped_while_waiting"
        | "tunnel_message_timeout"
        | "tunnel_response_closed"
        | "gateway_response_start_timeout" => Ran::Maybe,
        _ => return None,
    };
    Some((error.to_string(), ran))
}

/// What a client is told of a failure on the way to an actor.
pub(super) fn refusal(error: GatewayError, actor: Id) -> Refusal {
    let named = matches!(error, GatewayError::ActorReadyTimeout { .. } | GatewayError::ActorStopped);
    let refusal = match error {
        GatewayError::ActorDestroyed => Refusal::actor_not_found(),
        error => Refusal::from(error),
    };
    match named {
        true => refusal.with(json!({ "actor_id": actor.as_str() })),
        false => refusal,
    }
}

fn exhausted(attempts: u32, last: &Last) -> Refusal {
    let message = format!("All {attempts} attempts failed. Last error: {}.", last.code);
    Refusal::new("guard", "retry_attempts_exceeded", message).with(json!({
        "attempts": attempts,
        "last_error_code": last.code,
        "last_status": last.status.as_u16(),
        "last_target_kind": "actor",
    }))
}

fn method(method: &Method) -> ByteString {
    match *method {
        Method::GET => ByteString::from_static("GET"),
        Method::POST => ByteString::from_static("POST"),
        Method::PUT => ByteString::from_static("PUT"),
        Method::DELETE => ByteString::from_static("DELETE"),
        Method::HEAD => ByteString::from_static("HEAD"),
        Method::PATCH => ByteString::from_static("PATCH"),
        _ => ByteString::from(method.as_str()),
    }
}

/// How far a client may lag behind its actor, in bytes: more than the largest answer that comes whole.
const BACKLOG: usize = 32 * 1024 * 1024;
