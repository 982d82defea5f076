//! Clients and callers: what they ask for, and what they are told.

mod bodies;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use greenroom::gateway::core::{Answer, CallId, CallRequest, Input, StreamRef};
use greenroom::gateway::{CreateActor, GatewayError, StreamHead, StreamUp, TunnelEvent};
use greenroom::protocol::StreamId;
use greenroom::store::{CrashPolicy, Phase};

use super::{Happening, World, note};
use crate::dice::place;
use crate::laws::Law;
use bodies::Body;

/// Everybody outside.
#[derive(Debug, Default)]
pub struct Clients {
    /// Open or waiting streams.
    pub streams: BTreeMap<StreamRef, Client>,
    requests: BTreeMap<u64, Request>,
    pub calls: BTreeMap<CallId, Call>,
    /// Actors that were created, and of these the ones whose end was asked for or seen.
    pub actors: Vec<Arc<str>>,
    pub destroyed: BTreeSet<Arc<str>>,
}

/// One stream.
#[derive(Debug)]
pub struct Client {
    pub actor: Arc<str>,
    kind: Kind,
    /// The runner has it.
    opened: bool,
    /// An answer has begun, or the socket is open.
    begun: bool,
    pub lasting: bool,
    /// How many messages the client has sent.
    pub said: u32,
    /// How many pieces of the body are to come.
    uploads: u32,
    /// A body that travels on credit.
    body: Option<Body>,
    heard: u64,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    /// One try of a request.
    Ask {
        number: u64,
    },
    Socket,
}

/// A request, over all its tries.
#[derive(Debug)]
struct Request {
    actor: Arc<str>,
    repeatable: bool,
    tries: u32,
    runs: u32,
    over: bool,
}

/// A call without an answer.
#[derive(Debug)]
pub enum Call {
    Create,
    Destroy(Arc<str>),
}

impl Clients {
    /// The actor of a socket that hibernates.
    pub fn actor_of_lasting(&self, gateway: [u8; 4], id: StreamId) -> Option<Arc<str>> {
        let client = self.streams.get(&StreamRef(u32::from_be_bytes(id.request)))?;
        (id.gateway == gateway && client.lasting).then(|| client.actor.clone())
    }

    /// What has not ended and should have.
    pub fn unfinished(&self) -> Option<String> {
        let call = self.calls.iter().next().map(|(call, what)| format!("{call:?} {what:?}"));
        let stream = self.streams.iter().find(|(_, client)| !client.begun || matches!(client.kind, Kind::Ask { .. }));
        call.or_else(|| stream.map(|(stream, client)| format!("{stream:?} {client:?}")))
    }
}

impl World {
    pub fn create(&mut self, key: Option<u8>, policy: u8) {
        let policies = [CrashPolicy::Restart, CrashPolicy::Sleep, CrashPolicy::Destroy];
        let actor = CreateActor {
            namespace: "default".into(),
            name: "counter".into(),
            key: key.map(|key| key.to_string().into()),
            pool: self.any_pool().into(),
            crash_policy: policies[usize::from(policy) % 3],
            input: None,
        };
        let request = if key.is_some() { CallRequest::GetOrCreate(actor) } else { CallRequest::Create(actor) };
        self.call(Call::Create, request);
    }

    fn any_pool(&mut self) -> &'static str {
        let pools = self.conditions.pools;
        let number = if pools > 1 { place(self.dice.roll(), pools) } else { 0 };
        self.conditions.pool_of(number)
    }

    pub fn destroy(&mut self, pick: u64) {
        if let Some(actor) = self.any_actor(pick) {
            let request = CallRequest::Destroy { namespace: "default".into(), actor_id: actor.clone() };
            self.call(Call::Destroy(actor), request);
        }
    }

    fn call(&mut self, what: Call, request: CallRequest) {
        if self.gateway.is_up() {
            let call = CallId(self.number());
            self.clients.calls.insert(call, what);
            self.tell_gateway(Input::Call { call, request });
        }
    }

    pub fn call_answered(&mut self, call: CallId, answer: Result<Answer, GatewayError>) {
        note!(self, "{call:?} is answered: {answer:?}");
        let Some(what) = self.clients.calls.remove(&call) else {
            return self.broken(Law::ACallIsAnswered, format!("{call:?} was answered twice"));
        };
        match (what, answer) {
            (Call::Create, Ok(Answer::Actor { record, .. })) => {
                let durable = self.conditions.engine || self.record(&record.id).is_some();
                self.hold(Law::NothingIsToldBeforeItIsDurable, durable, || format!("{} is not on disk", record.id));
                if !self.clients.actors.contains(&record.id) {
                    self.clients.actors.push(record.id);
                }
            }
            (Call::Destroy(actor), Ok(_)) => {
                let ended = self.record(&actor).is_none_or(|record| record.phase == Phase::Destroyed);
                self.hold(Law::NothingIsToldBeforeItIsDurable, ended || self.conditions.engine, || {
                    format!("{actor} is still there")
                });
                self.clients.destroyed.insert(actor);
            }
            (Call::Create, Ok(answer)) => self.broken(Law::ACallIsAnswered, format!("{answer:?} is no answer")),
            (Call::Create | Call::Destroy(_), Err(error)) => self.check_reason(&error),
        }
    }

    fn check_reason(&mut self, error: &GatewayError) {
        let reason = error.to_string();
        self.hold(Law::ARefusalHasAReason, reason.len() > 5, || format!("{error:?}: {reason}"));
    }

    fn any_actor(&self, pick: u64) -> Option<Arc<str>> {
        let actors = &self.clients.actors;
        // Some ask for actors that are no more.
        let living: Vec<&Arc<str>> = actors.iter().filter(|actor| !self.clients.destroyed.contains(*actor)).collect();
        match living.is_empty() || pick.is_multiple_of(13) {
            true if actors.is_empty() => None,
            true => Some(actors[place(pick / 13, actors.len())].clone()),
            false => Some(living[place(pick, living.len())].clone()),
        }
    }

    pub fn ask(&mut self, pick: u64, repeatable: bool) {
        if let Some(actor) = self.any_actor(pick) {
            self.ask_actor(actor, repeatable);
        }
    }

    pub fn ask_actor(&mut self, actor: Arc<str>, repeatable: bool) {
        let number = self.new_request(&actor, repeatable, 0);
        self.client_retries(number);
    }

    fn new_request(&mut self, actor: &Arc<str>, repeatable: bool, tries: u32) -> u64 {
        let number = self.number();
        let request = Request { actor: actor.clone(), repeatable, tries, runs: 0, over: false };
        self.clients.requests.insert(number, request);
        number
    }

    /// The next try of a request.
    pub fn client_retries(&mut self, number: u64) {
        let Some(request) = self.clients.requests.get_mut(&number).filter(|request| !request.over) else { return };
        if !self.gateway.is_up() {
            request.over = true;
            return;
        }
        request.tries += 1;
        let actor = request.actor.clone();
        let head = StreamHead::Request {
            method: "GET".into(),
            path: format!("/ask/{number}").into(),
            headers: Vec::new(),
            body: None,
            more: false,
        };
        self.open(actor, Kind::Ask { number }, head);
    }

    /// A request whose body comes in pieces. It is tried once, since nobody has kept what was sent.
    pub fn upload(&mut self, pick: u64, pieces: u32) {
        let Some(actor) = self.any_actor(pick).filter(|_| self.gateway.is_up() && !self.conditions.engine) else {
            return;
        };
        let number = self.new_request(&actor, false, TRIES_MAX);
        let head = StreamHead::Request {
            method: "POST".into(),
            path: format!("/ask/{number}").into(),
            headers: Vec::new(),
            body: Some(format!("{pieces}.").into()),
            more: true,
        };
        let stream = self.open(actor, Kind::Ask { number }, head);
        if let Some(client) = self.clients.streams.get_mut(&stream) {
            client.uploads = pieces;
        }
    }

    pub fn upload_more(&mut self, pick: u64) {
        let uploads = self.clients.streams.iter().filter(|(_, client)| client.uploads > 0);
        let all: Vec<StreamRef> = uploads.map(|(stream, _)| *stream).collect();
        if !all.is_empty() {
            self.send_piece(all[place(pick, all.len())]);
        }
    }

    /// Sends the next piece of a body; each says how many follow.
    pub fn send_piece(&mut self, stream: StreamRef) {
        if self.clients.streams.get(&stream).is_some_and(|client| client.body.is_some()) {
            return self.send_on_credit(stream);
        }
        let Some(client) = self.clients.streams.get_mut(&stream).filter(|client| client.uploads > 0 && client.opened)
        else {
            return;
        };
        client.uploads -= 1;
        let left = client.uploads;
        let up = StreamUp::Chunk { body: format!("{left}.").into(), finish: left == 0 };
        if left > 0 {
            let after = self.dice.millis(0, 800);
            self.later(after, Happening::Piece(stream));
        }
        self.tell_gateway(Input::Client { stream, up });
    }

    /// Every client sends what it has.
    pub fn finish_uploads(&mut self) {
        for stream in self.clients.streams.keys().copied().collect::<Vec<_>>() {
            for _ in 0..10 {
                self.send_piece(stream);
            }
        }
    }

    pub fn open_socket(&mut self, pick: u64, lasting: bool) {
        if let Some(actor) = self.any_actor(pick)
            && self.gateway.is_up()
        {
            let path = if lasting { "/ws/lasting" } else { "/ws/short" };
            self.open(actor, Kind::Socket, StreamHead::WebSocket { path: path.into(), headers: Vec::new() });
        }
    }

    fn open(&mut self, actor: Arc<str>, kind: Kind, head: StreamHead) -> StreamRef {
        self.open_with(actor, kind, head, None)
    }

    fn open_with(&mut self, actor: Arc<str>, kind: Kind, head: StreamHead, body: Option<Body>) -> StreamRef {
        let stream = StreamRef(u32::try_from(self.number()).expect("few"));
        let client = Client {
            actor: actor.clone(),
            kind,
            opened: false,
            begun: false,
            lasting: false,
            said: 0,
            uploads: 0,
            body,
            heard: 0,
        };
        self.clients.streams.insert(stream, client);
        self.tell_gateway(Input::Open { stream, actor_id: actor, head });
        stream
    }

    pub fn stream_opened(&mut self, stream: StreamRef) {
        let Some(client) = self.clients.streams.get_mut(&stream) else { return };
        client.opened = true;
        if client.uploads > 0 || client.body.is_some() {
            let after = self.dice.millis(0, 800);
            self.later(after, Happening::Piece(stream));
        }
        let patience = self.conditions.patience;
        self.later(patience, Happening::ClientWaited(stream));
    }

    /// A client does not wait for ever for an answer to begin, nor for the rest of it.
    pub fn client_waited(&mut self, stream: StreamRef) {
        let Some(client) = self.clients.streams.get_mut(&stream) else { return };
        if client.body.as_ref().is_some_and(|body| body.calm) {
            return;
        }
        if !client.begun || matches!(client.kind, Kind::Ask { .. }) {
            note!(self, "the client of {stream:?} gives up");
            self.end_client(stream, false);
            self.tell_gateway(Input::ClientGone { stream });
        }
    }

    pub fn stream_refused(&mut self, stream: StreamRef, error: &GatewayError) {
        note!(self, "{stream:?} is refused: {error}");
        self.check_reason(error);
        let Some(client) = self.clients.streams.get(&stream) else { return };
        self.hold(Law::NotTakenMeansNotRun, !client.opened, || format!("{stream:?} was refused after it was opened"));
        self.hold(Law::NotTakenMeansNotRun, !self.ledger.given.contains_key(&stream.0), || {
            format!("{stream:?} was refused and has run")
        });
        self.end_client(stream, false);
    }

    pub fn client_hears(&mut self, stream: StreamRef, event: TunnelEvent) {
        note!(self, "the client of {stream:?} hears {event:?}");
        let Some(client) = self.clients.streams.get_mut(&stream) else { return };
        let given = self.ledger.given.get(&stream.0);
        let lasting = client.lasting;
        // The engine asks again who has not answered, and takes the answer to the first question for one to the last,
        // which another process under the same key was asked.
        let confused = self.conditions.engine && self.tally.doubles > 0;
        let (mut over, mut again) = (event.is_last(), false);
        match (event, client.kind) {
            (TunnelEvent::Response { status: 503, headers, .. }, Kind::Ask { .. }) => {
                let says_so = headers.iter().any(|(name, _)| &**name == "x-rivet-error");
                again = says_so;
                self.hold(Law::NotTakenMeansNotRun, says_so && given.is_none(), || {
                    format!("{stream:?} was not taken and has run")
                });
            }
            (TunnelEvent::Response { body, more, .. }, Kind::Ask { .. }) if client.body.is_some() => {
                client.begun = true;
                self.tally.answers += 1;
                if !more {
                    self.client_has_whole(stream, body.map_or(0, |body| body.len()));
                }
            }
            (TunnelEvent::Chunk { body, finish }, Kind::Ask { .. }) if client.body.is_some() => {
                self.client_is_sent(stream, body.len(), finish);
            }
            (TunnelEvent::Response { body, .. }, Kind::Ask { .. }) => {
                client.begun = true;
                let body = body.map(|body| String::from_utf8_lossy(&body).into_owned()).unwrap_or_default();
                let own = given.is_some_and(|lives| {
                    // A streamed answer has its body in the pieces that follow.
                    body.is_empty()
                        || lives.iter().any(|life| body.trim_end_matches('!') == format!("{} {life}", stream.0))
                });
                self.tally.answers += 1;
                self.hold(Law::AnAnswerIsToItsRequest, own, || format!("{stream:?} is answered with {body}"));
            }
            (TunnelEvent::Chunk { .. }, Kind::Ask { .. }) => {}
            (TunnelEvent::Failed(error), kind) => {
                again = match (kind, &error) {
                    (
                        Kind::Ask { number },
                        GatewayError::ActorStopped | GatewayError::RequestAborted | GatewayError::TunnelClosed,
                    ) => self.clients.requests.get(&number).is_some_and(|request| request.repeatable),
                    _ => false,
                };
                self.check_reason(&error);
            }
            (TunnelEvent::Open { can_hibernate }, Kind::Socket) => {
                client.begun = true;
                client.lasting = can_hibernate;
            }
            (TunnelEvent::Message { data, .. }, Kind::Socket) => {
                let number: u64 = std::str::from_utf8(&data).ok().and_then(|text| text.parse().ok()).unwrap_or(0);
                let before = std::mem::replace(&mut client.heard, number);
                self.hold(Law::AClientHearsInOrder, number > before, || format!("{stream:?}: {number} after {before}"));
            }
            (TunnelEvent::Close { code, reason }, Kind::Socket) => {
                self.hold(Law::ASocketStaysOpen, code != Some(1008) || !lasting || confused, || {
                    format!("{stream:?} was closed because messages were lost")
                });
                let plain = code.is_none_or(|code| code == 1000 || code >= 4000);
                let says_why = plain || reason.as_ref().is_some_and(|reason| !reason.is_empty());
                self.hold(Law::ARefusalHasAReason, says_why, || format!("{stream:?} closed with {code:?}"));
            }
            (event, kind) => {
                over = true;
                self.broken(Law::AnAnswerIsToItsRequest, format!("{kind:?} hears {event:?}"));
            }
        }
        if over {
            self.end_client(stream, again);
        }
    }

    fn end_client(&mut self, stream: StreamRef, again: bool) {
        let Some(client) = self.clients.streams.remove(&stream) else { return };
        let Kind::Ask { number } = client.kind else { return };
        let Some(request) = self.clients.requests.get_mut(&number) else { return };
        if again && request.tries < TRIES_MAX {
            let after = Duration::from_millis(100 << request.tries);
            self.later(after, Happening::ClientRetries { number });
        } else {
            request.over = true;
        }
    }

    /// An actor works on a request.
    pub fn request_runs(&mut self, path: &str) {
        let number: u64 = path.rsplit('/').next().and_then(|number| number.parse().ok()).expect("a number");
        let Some(request) = self.clients.requests.get_mut(&number) else { return };
        request.runs += 1;
        // The engine repeats every request alike.
        let (runs, repeatable, engine) = (request.runs, request.repeatable, self.conditions.engine);
        self.hold(Law::ARequestRunsOnce, runs == 1 || repeatable || engine, || {
            format!("request {number} runs {runs} times")
        });
    }

    /// One of the sockets that are open.
    fn any_socket(&self, pick: u64) -> Option<StreamRef> {
        let sockets = self.clients.streams.iter().filter(|(_, client)| matches!(client.kind, Kind::Socket));
        let open: Vec<StreamRef> = sockets.filter(|(_, client)| client.begun).map(|(stream, _)| *stream).collect();
        (!open.is_empty()).then(|| open[place(pick, open.len())])
    }

    pub fn say(&mut self, pick: u64) {
        if let Some(stream) = self.any_socket(pick) {
            self.say_on(stream);
        }
    }

    pub fn say_on(&mut self, stream: StreamRef) {
        let Some(client) = self.clients.streams.get_mut(&stream) else { return };
        client.said += 1;
        let data = client.said.to_string().into();
        self.tell_gateway(Input::Client { stream, up: StreamUp::Message { data, binary: false } });
    }

    pub fn leave(&mut self, pick: u64, politely: bool) {
        let streams: Vec<StreamRef> = self.clients.streams.keys().copied().collect();
        if streams.is_empty() {
            return;
        }
        let stream = streams[place(pick, streams.len())];
        let client = &self.clients.streams[&stream];
        let socket = client.begun && matches!(client.kind, Kind::Socket);
        self.end_client(stream, false);
        if politely && socket {
            let up = StreamUp::Close { code: Some(1000), reason: None };
            self.tell_gateway(Input::Client { stream, up });
        } else {
            self.tell_gateway(Input::ClientGone { stream });
        }
    }

    /// The gateway's process is gone, and every connection of a client with it.
    pub fn clients_lose_gateway(&mut self) {
        self.clients.streams.clear();
        self.clients.calls.clear();
        for request in self.clients.requests.values_mut() {
            request.over = true;
        }
    }
}

/// How often a request is tried.
const TRIES_MAX: u32 = 4;
