//! Streams that wait until their actor serves.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use super::calls::STOPPING;
use super::directory::{Actor, is_placed};
use super::lifecycle::Wanted;
use super::loads::ForActor;
use super::timers::Timer;
use super::{ConnectionId, Core, Effect, Now, StreamRef};
use crate::gateway::{GatewayError, StreamHead};
use crate::store::Phase;

/// Streams that wait.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    streams: BTreeMap<StreamRef, WaitingStream>,
    bytes: usize,
}

#[derive(Debug)]
struct WaitingStream {
    head: StreamHead,
    until: Instant,
}

impl Waiting {
    pub(super) fn has(&self, stream: StreamRef) -> bool {
        self.streams.contains_key(&stream)
    }

    pub(super) fn len(&self) -> usize {
        self.streams.len()
    }

    fn add(&mut self, stream: StreamRef, head: StreamHead, until: Instant) {
        self.bytes += weight(&head);
        self.streams.insert(stream, WaitingStream { head, until });
    }

    pub(super) fn remove(&mut self, stream: StreamRef) -> Option<StreamHead> {
        let waiting = self.streams.remove(&stream)?;
        self.bytes -= weight(&waiting.head);
        Some(waiting.head)
    }
}

impl Core {
    /// A client wants a stream.
    pub(super) fn open(&mut self, stream: StreamRef, actor_id: Arc<str>, head: StreamHead, now: Now) {
        if self.stopping {
            return self.out.push(Effect::Refused { stream, error: STOPPING });
        }
        if let Some(actor) = self.directory.actors.get(&actor_id)
            && let Some(connection) =
                self.serving(actor).or_else(|| self.reachable(actor).filter(|_| skips_waiting(&head)))
        {
            return self.open_on(connection, stream, &actor_id, head);
        }
        let limits = &self.settings.limits;
        if self.waiting.len() >= limits.waiting
            || self.waiting.bytes.saturating_add(weight(&head)) > limits.waiting_bytes
        {
            let error = GatewayError::Unavailable("too many requests wait for actors");
            return self.out.push(Effect::Refused { stream, error });
        }
        self.waiting.add(stream, head, now.instant + self.settings.thresholds.actor_ready);
        if self.directory.actors.contains_key(&actor_id) {
            self.join_queue(stream, &actor_id, now);
        } else {
            self.load_actor(actor_id, ForActor::Open { stream });
        }
    }

    /// A waiting stream's actor is in memory: the stream waits for it to serve, and it is woken if need be.
    pub(super) fn join_queue(&mut self, stream: StreamRef, actor_id: &Arc<str>, now: Now) {
        let Some(waiting) = self.waiting.streams.get(&stream) else { return };
        let Some(actor) = self.directory.actors.get_mut(actor_id) else {
            return self.refuse_waiting(stream, GatewayError::ActorNotFound);
        };
        if actor.is_deleted() {
            return self.refuse_waiting(stream, GatewayError::ActorNotFound);
        }
        if actor.waiting.len() >= self.settings.limits.waiting_per_actor {
            return self.refuse_waiting(stream, GatewayError::Unavailable("too many requests wait for this actor"));
        }
        if actor.waiting.is_empty() {
            self.timers.set(Timer::Waiting(actor_id.clone()), waiting.until);
        }
        actor.waiting.push_back(stream);
        match actor.record.phase {
            Phase::Sleeping => self.start(actor_id, Wanted::Asked, now),
            Phase::StoppingToSleep if !actor.record.wake_after_stop => {
                actor.record.wake_after_stop = true;
                self.out.touch(actor_id);
            }
            // Its runner is away, or it became ready while this was on its way.
            Phase::Running => self.serve_waiting(actor_id),
            Phase::Pending
            | Phase::Starting
            | Phase::StoppingToSleep
            | Phase::StoppingToDestroy
            | Phase::StoppingToMove
            | Phase::Backoff
            | Phase::Destroyed => {}
        }
    }

    /// The actor may serve now: what waits for it is sent.
    pub(super) fn serve_waiting(&mut self, actor_id: &Arc<str>) {
        let Some(actor) = self.directory.actors.get(actor_id) else { return };
        let Some(connection) = self.serving(actor) else { return };
        let Some(actor) = self.directory.actors.get_mut(actor_id) else { return };
        let streams = std::mem::take(&mut actor.waiting);
        if streams.is_empty() {
            return;
        }
        self.timers.cancel(&Timer::Waiting(actor_id.clone()));
        for stream in streams {
            if let Some(head) = self.waiting.remove(stream) {
                self.open_on(connection, stream, actor_id, head);
            }
        }
    }

    /// Those who waited long enough are told so.
    pub(super) fn waiting_timeout(&mut self, actor_id: &Arc<str>, now: Now) {
        while let Some(actor) = self.directory.actors.get_mut(actor_id) {
            let Some(stream) = actor.waiting.front().copied() else { return };
            match self.waiting.streams.get(&stream).map(|waiting| waiting.until) {
                Some(until) if until > now.instant => {
                    return self.timers.set(Timer::Waiting(actor_id.clone()), until);
                }
                Some(_) => {
                    actor.waiting.pop_front();
                    let error = actor.record.error.clone();
                    self.refuse_waiting(stream, GatewayError::ActorReadyTimeout { error });
                }
                None => {
                    actor.waiting.pop_front();
                }
            }
        }
    }

    /// Tells a waiting stream that it will not be opened.
    pub(super) fn refuse_waiting(&mut self, stream: StreamRef, error: GatewayError) {
        if self.waiting.remove(stream).is_some() {
            self.out.push(Effect::Refused { stream, error });
        }
    }

    pub(super) fn refuse_waiting_of(&mut self, actor_id: &Arc<str>, error: &GatewayError) {
        let Some(actor) = self.directory.actors.get_mut(actor_id) else { return };
        let streams = std::mem::take(&mut actor.waiting);
        self.timers.cancel(&Timer::Waiting(actor_id.clone()));
        for stream in streams {
            self.refuse_waiting(stream, error.clone());
        }
    }

    pub(super) fn refuse_all_waiting(&mut self) {
        for stream in self.waiting.streams.keys().copied().collect::<Vec<_>>() {
            self.refuse_waiting(stream, STOPPING);
        }
    }

    /// The connection to the runner that has an actor, whether it serves yet, or still.
    fn reachable(&self, actor: &Actor) -> Option<ConnectionId> {
        let runner_id = actor.record.runner_id.as_deref().filter(|_| is_placed(actor.record.phase))?;
        self.runners.link(runner_id)
    }

    /// The connection over which an actor serves right now.
    pub(super) fn serving(&self, actor: &Actor) -> Option<ConnectionId> {
        match actor.record.phase {
            Phase::Running => self.runners.link(actor.record.runner_id.as_deref()?),
            Phase::Pending
            | Phase::Starting
            | Phase::StoppingToSleep
            | Phase::StoppingToDestroy
            | Phase::StoppingToMove
            | Phase::Backoff
            | Phase::Sleeping
            | Phase::Destroyed => None,
        }
    }
}

/// Whether the client wants to reach its actor also while that is starting or stopping.
fn skips_waiting(head: &StreamHead) -> bool {
    let (StreamHead::Request { headers, .. } | StreamHead::WebSocket { headers, .. }) = head;
    headers.iter().any(|(name, value)| match &**name {
        "x-rivet-skip-ready-wait" => matches!(&**value, "true" | "1"),
        "sec-websocket-protocol" => value.split(',').any(|protocol| protocol.trim() == "rivet_skip_ready_wait"),
        _ => false,
    })
}

/// What a waiting stream costs in memory, roughly.
fn weight(head: &StreamHead) -> usize {
    let (path, headers, body) = match head {
        StreamHead::Request { path, headers, body, .. } => (path, headers, body.as_ref().map_or(0, |body| body.len())),
        StreamHead::WebSocket { path, headers } => (path, headers, 0),
    };
    let headers: usize = headers.iter().map(|(name, value)| name.len() + value.len()).sum();
    path.len() + headers + body + size_of::<WaitingStream>()
}
