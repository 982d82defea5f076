//! Doing what the session decided.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use bytestring::ByteString;
use greenroom_protocol::{ToServer, ToServerTunnel};
use tracing::{debug, error, info, warn};

use crate::actor::{ActorKey, Outcome};
use crate::credit::Credit;
use crate::host::{Body, Frame, Grants, Request, Responder, StartActor, WebSocket, WebSocketRequest, supervise};
use crate::runner::driver::{Driver, Hosted, SocketState};
use crate::runner::observer::StreamKind;
use crate::runner::streams::Feed;
use crate::session::{Effect, Exit, Input, StartCommand};
use crate::stream::{StreamKey, StreamReply};
use crate::telemetry::metrics::Overrun;

impl Driver {
    /// Performs effects until there are none.
    pub(super) fn perform_effects(&mut self, now: Instant) {
        while let Some(effect) = self.session.poll_effect(now) {
            self.perform(effect);
        }
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Dial => self.socket = SocketState::dial(&self.target),
            Effect::Hangup { code, reason } => {
                if let SocketState::Open(connection) = &mut self.socket {
                    connection.close(code, reason);
                }
            }
            Effect::Send(message) => {
                if let ToServer::Events(events) = &message {
                    self.observer.events_sent(events);
                }
                self.send(&message);
            }
            Effect::Start(command) => self.start(command),
            Effect::Stop { key, reason } => {
                self.observer.stopping(&key, Some(reason));
                info!(actor_id = %key.id, generation = key.generation, reason = reason.as_str(), "stopping actor");
                if let Some(hosted) = self.actors.get(&key) {
                    hosted.handle.stop(reason);
                }
            }
            Effect::Kill { key } => {
                self.observer.stopping(&key, None);
                info!(actor_id = %key.id, generation = key.generation, "killing actor");
                if let Some(hosted) = self.actors.get(&key) {
                    hosted.handle.kill();
                }
            }
            Effect::Request { actor, stream, method, path, headers, body, more, credit } => {
                self.observer.opened(&actor, stream, StreamKind::Request);
                self.observer.body_in(body.as_ref().map_or(0, Bytes::len));
                let grants = (more && credit).then(|| Grants::new(actor.clone(), stream, self.calls.clone()));
                let (body, feed) = request_body(body, more, grants);
                let request = Request { stream: stream.id, method, path, headers, body };
                let credit = credit.then(Credit::new);
                let mut responder = Responder::new(actor.clone(), stream, self.calls.clone());
                if let Some(credit) = &credit {
                    responder = responder.on_credit(credit.clone());
                }
                let hosted = self.actors.get(&actor).filter(|_| self.has_room());
                if let Some(task) = hosted.and_then(|hosted| hosted.handle.request(request, responder)) {
                    self.streams.add(stream, task, feed, credit);
                }
            }
            Effect::RequestChunk { stream, body, finish } => {
                self.observer.body_in(body.len());
                if self.streams.body(stream, body, finish).is_err() {
                    self.observer.overrun(Overrun::RequestBody);
                    self.observer.given_up(stream);
                    self.streams.cancel(stream);
                }
            }
            Effect::Granted { stream } => self.streams.granted(stream),
            Effect::WebSocket { actor, stream, path, headers, index } => {
                self.observer.opened(&actor, stream, StreamKind::WebSocket);
                let request = WebSocketRequest { stream: stream.id, path, headers, index };
                let (feed, socket) = WebSocket::new(actor.clone(), stream, self.calls.clone());
                let hosted = self.actors.get(&actor).filter(|_| self.has_room());
                if let Some(task) = hosted.and_then(|hosted| hosted.handle.websocket(request, socket)) {
                    self.streams.add(stream, task, Feed::Frames(feed), None);
                }
            }
            Effect::WebSocketRestored { actor, stream } => {
                self.observer.opened(&actor, stream, StreamKind::WebSocket);
                let (feed, socket) = WebSocket::restored(actor.clone(), stream, self.calls.clone());
                let hosted = self.actors.get(&actor).filter(|_| self.has_room());
                if let Some(task) = hosted.and_then(|hosted| hosted.handle.restored(socket)) {
                    self.streams.add(stream, task, Feed::Frames(feed), None);
                }
            }
            Effect::WebSocketMessage { stream, data, binary, index } => {
                self.observer.message_in(data.len());
                if self.streams.frame(stream, Frame::Message { data, binary, index }).is_err() {
                    self.close_slow_socket(stream);
                }
            }
            Effect::WebSocketClosed { stream, code, reason } => {
                self.observer.finished(stream);
                // Nothing follows, so a backlog is no matter.
                let _ = self.streams.frame(stream, Frame::Closed { code, reason });
            }
            Effect::Cancel { stream } => {
                self.observer.given_up(stream);
                self.streams.cancel(stream);
            }
            Effect::KvDone { ticket, result } => {
                self.observer.kv_answered(ticket, &result);
                if let Some(reply) = self.storage.remove(&ticket) {
                    // The actor may have stopped waiting.
                    let _ = reply.send(result);
                }
            }
            Effect::Connected { runner_id, lost_after } => {
                self.observer.connected();
                info!(%runner_id, lost_after_ms = lost_after.as_millis(), "connected to the gateway");
                self.status.send_modify(|status| {
                    status.runner_id = Some(runner_id);
                    status.lost_after = Some(lost_after);
                    status.reason = None;
                });
            }
            Effect::Disconnected { reason, retry_in } => {
                self.observer.disconnected();
                self.tell_disconnected(reason, retry_in);
            }
            Effect::Lost => {
                error!(
                    actors = self.actors.len(),
                    "the gateway has been away for longer than it keeps actors; stopping them all"
                );
            }
            Effect::Exit(exit) => {
                match &exit {
                    Exit::Drained => info!("drained"),
                    Exit::DrainTimeout { actors } => warn!(actors, "stopped before the gateway knew of every end"),
                    Exit::Refused(reason) => error!(%reason, "refused by the gateway"),
                }
                self.exit = Some(exit);
            }
        }
    }

    /// Whether one more stream may be open.
    fn has_room(&self) -> bool {
        let full = self.streams.is_full();
        if full {
            self.observer.overrun(Overrun::Streams);
        }
        !full
    }

    /// Sends a message; in place of a response that no message can carry, it sends one that says so.
    fn send(&mut self, message: &ToServer) {
        let SocketState::Open(connection) = &mut self.socket else { return };
        let Err(error) = connection.send(message) else { return };
        warn!(%error, "message not sent");
        if let ToServer::Tunnel { id, message: ToServerTunnel::ResponseStart { .. } } = message {
            let body = Some(format!("The actor's response cannot be sent: {error}\n").into());
            let headers = vec![(ByteString::from_static("content-type"), ByteString::from_static("text/plain"))];
            let instead = ToServerTunnel::ResponseStart { status: 502, headers, body, stream: false };
            let sent = connection.send(&ToServer::Tunnel { id: *id, message: instead });
            debug_assert_eq!(sent, Ok(()), "a short message fits");
        }
    }

    fn start(&mut self, command: StartCommand) {
        let StartCommand { key, name, actor_key, create_ts, input, reason, hibernating } = command;
        info!(actor_id = %key.id, generation = key.generation, %name, reason = reason.as_str(), "starting actor");
        let Some(host) = self.hosts.get(&name) else {
            let known: Vec<&str> = self.hosts.keys().map(|name| &**name).collect();
            let why = format!("this runner has no actor named `{name}`, only: {} (--actors)", known.join(", "));
            warn!(actor_id = %key.id, %name, "start refused: no such actor here");
            self.observer.refused(&name, reason.as_str());
            return self.ended_at_once(key, why);
        };
        if let Some(journal) = &mut self.journal {
            journal.started(&key);
        }
        let start = StartActor { key: key.clone(), name, actor_key, create_ts, input, reason, hibernating };
        let start = Arc::new(start);
        self.observer.started(&start);
        let handle = supervise(host.clone(), start.clone(), self.calls.clone());
        self.actors.insert(key, Hosted { handle, start, running: false, waiting: Vec::new() });
    }

    fn ended_at_once(&mut self, key: ActorKey, why: String) {
        self.session.handle(Input::Ended(key, Outcome::Failed(why)), Instant::now());
    }

    fn close_slow_socket(&mut self, stream: StreamKey) {
        debug!(%stream, "closing a socket whose actor does not keep up");
        self.observer.overrun(Overrun::WebSocket);
        self.observer.given_up(stream);
        self.streams.cancel(stream);
        let reply = StreamReply::Close {
            code: Some(1013),
            reason: Some(ByteString::from_static("the actor does not keep up")),
        };
        self.session.handle(Input::Reply { stream, reply }, Instant::now());
    }

    /// The first loss of a link is worth a look, what follows until it is back is not.
    fn tell_disconnected(&mut self, reason: String, retry_in: std::time::Duration) {
        self.socket = SocketState::None;
        let retry_ms = retry_in.as_millis();
        let before = self.status.borrow().reason.clone();
        match before {
            None => warn!(%reason, retry_ms, "not connected to the gateway"),
            Some(before) if before == reason => debug!(%reason, retry_ms, "still not connected to the gateway"),
            Some(_) => info!(%reason, retry_ms, "still not connected to the gateway"),
        }
        self.status.send_modify(|status| status.reason = Some(reason));
    }
}

fn request_body(body: Option<Bytes>, more: bool, grants: Option<Grants>) -> (Body, Feed) {
    let first = body.unwrap_or_default();
    if !more {
        return (Body::Whole(first), Feed::Nothing);
    }
    let (sender, body) = Body::upload(grants);
    if !first.is_empty() {
        // The channel is new, so there is room.
        let _ = sender.try_send(Ok(first));
    }
    (body, Feed::Body(sender))
}
