//! A session on a stage: a clock moved by hand, and short words for what a gateway and a host do.

use std::time::{Duration, Instant};

use bytes::Bytes;
use greenroom::actor::{ActorKey, Outcome, StopReason};
use greenroom::kv::KvError;
use greenroom::protocol::{
    ActorConfig, Checkpoint, Command, CommandWrapper, Event, Init, InitMetadata, KvRequest, KvResponse, MessageId,
    StreamId, ToClient, ToClientTunnel, ToServer, ToServerTunnel, Version,
};
use greenroom::session::{Disconnect, Effect, Exit, Features, Input, LinkStatus, Session, Settings};
use greenroom::stream::{StreamKey, StreamReply};

pub struct Stage {
    pub session: Session,
    pub now: Instant,
    /// What the next connections grant.
    pub features: Features,
    pub runner_id: &'static str,
    next_ticket: u64,
}

/// How long the gateway of the stage keeps actors.
pub const LOST_AFTER: Duration = Duration::from_secs(15);
/// How long a storage request may take on the stage.
pub const KV_TIMEOUT: Duration = Duration::from_secs(30);
/// What our own gateway grants.
pub const OURS: Features = Features::ALL;

impl Stage {
    /// A session that has not dialled.
    pub fn new() -> Self {
        Self::with(|_| {})
    }

    pub fn with(change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = Settings {
            init: Init {
                name: "pool".into(),
                version: 1,
                total_slots: 10,
                prepopulate_actor_names: None,
                metadata: None,
            },
            version: Version::V7,
            kv_timeout: KV_TIMEOUT,
            lost_lives: Vec::new(),
            seed: 7,
        };
        change(&mut settings);
        let session = Session::new(settings);
        Stage { session, now: Instant::now(), features: OURS, runner_id: "runner-1", next_ticket: 0 }
    }

    /// A session whose link is open.
    pub fn open() -> Self {
        Self::new().opened()
    }

    pub fn open_to(features: Features) -> Self {
        let mut stage = Self::new();
        stage.features = features;
        stage.opened()
    }

    /// An open session with the running actor `a`, generation 0.
    pub fn with_actor() -> Self {
        Self::open().and_actor()
    }

    pub fn and_actor(mut self) -> Self {
        self.start("a", 0, 0);
        self.run("a", 0);
        self
    }

    pub fn opened(mut self) -> Self {
        assert_eq!(self.effects(), [Effect::Dial]);
        self.connect();
        self
    }

    pub fn handle(&mut self, input: Input) -> Vec<Effect> {
        self.session.handle(input, self.now);
        self.effects()
    }

    pub fn receive(&mut self, message: ToClient) -> Vec<Effect> {
        self.handle(Input::Received(message))
    }

    pub fn effects(&mut self) -> Vec<Effect> {
        std::iter::from_fn(|| self.session.poll_effect(self.now)).collect()
    }

    /// Lets time pass, with every timer when it is due.
    pub fn pass(&mut self, time: Duration) -> Vec<Effect> {
        let until = self.now + time;
        let mut effects = Vec::new();
        while let Some(due) = self.session.poll_timeout()
            && due <= until
        {
            self.now = self.now.max(due);
            self.session.handle_timeout(self.now);
            effects.extend(self.effects());
            let next = self.session.poll_timeout();
            assert!(next.is_none_or(|next| next > self.now), "a timer was due and nothing came of it");
        }
        self.now = until;
        effects
    }

    /// Answers the dial in progress, up to the gateway's init.
    pub fn connect(&mut self) -> Vec<Effect> {
        let features = self.features;
        let mut effects = self.handle(Input::Dialed { features });
        effects.extend(self.greet());
        effects
    }

    pub fn greet(&mut self) -> Vec<Effect> {
        let init = init(self.runner_id);
        self.handle(init)
    }

    pub fn cut(&mut self) -> Vec<Effect> {
        self.handle(Input::Disconnected(Disconnect::Broken("cut".into())))
    }

    pub fn close(&mut self, code: u16, reason: &str) -> Vec<Effect> {
        self.handle(Input::Disconnected(Disconnect::Closed { code, reason: reason.into() }))
    }

    /// Waits for the next dial and answers it.
    pub fn reconnect(&mut self) -> Vec<Effect> {
        let mut effects = self.until_dial();
        effects.extend(self.connect());
        effects
    }

    pub fn until_dial(&mut self) -> Vec<Effect> {
        let mut effects = Vec::new();
        while self.session.link_status() != LinkStatus::Dialing {
            let due = self.session.poll_timeout().expect("a dial is to follow");
            self.now = self.now.max(due);
            self.session.handle_timeout(self.now);
            effects.extend(self.effects());
        }
        effects
    }

    pub fn start(&mut self, actor: &str, generation: u32, index: i64) -> Vec<Effect> {
        self.receive(ToClient::Commands(vec![start(actor, generation, index)]))
    }

    pub fn stop(&mut self, actor: &str, generation: u32, index: i64) -> Vec<Effect> {
        self.receive(ToClient::Commands(vec![stop(actor, generation, index)]))
    }

    pub fn run(&mut self, actor: &str, generation: u32) -> Vec<Effect> {
        self.handle(Input::Running(key(actor, generation)))
    }

    pub fn end(&mut self, actor: &str, generation: u32) -> Vec<Effect> {
        self.handle(Input::Ended(key(actor, generation), Outcome::Wanted))
    }

    pub fn crash(&mut self, actor: &str, generation: u32) -> Vec<Effect> {
        self.handle(Input::Ended(key(actor, generation), Outcome::Failed("boom".into())))
    }

    pub fn acknowledge(&mut self, actor: &str, generation: u32, index: i64) -> Vec<Effect> {
        self.receive(ToClient::AckEvents(vec![checkpoint(actor, generation, index)]))
    }

    /// Asks the storage; answers with the ticket and what followed.
    pub fn kv(&mut self, actor: &str, generation: u32, request: KvRequest) -> (u64, Vec<Effect>) {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        let effects = self.handle(Input::Kv { actor: key(actor, generation), ticket, request });
        (ticket, effects)
    }

    pub fn kv_answer(&mut self, request_id: u32, response: KvResponse) -> Vec<Effect> {
        self.receive(ToClient::Kv { request_id, response })
    }

    pub fn tunnel(&mut self, stream: StreamId, index: u16, message: ToClientTunnel) -> Vec<Effect> {
        self.receive(ToClient::Tunnel { id: MessageId { stream, index }, message })
    }

    /// Sends a request of a client; answers with its key when it reached an actor.
    pub fn request(&mut self, stream: StreamId, actor: &str) -> Option<StreamKey> {
        opened(&self.tunnel(stream, 0, request_start(actor)))
    }

    pub fn websocket(&mut self, stream: StreamId, index: u16, actor: &str) -> Option<StreamKey> {
        let open = ToClientTunnel::WebSocketOpen { actor_id: actor.into(), path: "/ws".into(), headers: vec![] };
        opened(&self.tunnel(stream, index, open))
    }

    pub fn frame(&mut self, stream: StreamId, index: u16) -> Vec<Effect> {
        self.tunnel(stream, index, ToClientTunnel::WebSocketMessage { data: Bytes::from_static(b"hi"), binary: false })
    }

    pub fn reply(&mut self, stream: StreamKey, reply: StreamReply) -> Vec<Effect> {
        self.handle(Input::Reply { stream, reply })
    }

    pub fn drain(&mut self, within: Duration) -> Vec<Effect> {
        self.handle(Input::Drain { within })
    }
}

pub fn init(runner_id: &str) -> Input {
    let metadata = InitMetadata {
        runner_lost_threshold: i64::try_from(LOST_AFTER.as_millis()).expect("small"),
        actor_stop_threshold: Some(1_800_000),
        serverless_drain_grace_period: None,
    };
    Input::Received(ToClient::Init { runner_id: runner_id.into(), metadata })
}

pub fn key(actor: &str, generation: u32) -> ActorKey {
    ActorKey::new(actor, generation)
}

pub fn checkpoint(actor: &str, generation: u32, index: i64) -> Checkpoint {
    Checkpoint { actor_id: actor.into(), generation, index }
}

pub fn start(actor: &str, generation: u32, index: i64) -> CommandWrapper {
    let config = ActorConfig { name: "counter".into(), key: None, create_ts: 1, input: None };
    let command = Command::Start { config, hibernating: Vec::new() };
    CommandWrapper { checkpoint: checkpoint(actor, generation, index), command }
}

pub fn stop(actor: &str, generation: u32, index: i64) -> CommandWrapper {
    CommandWrapper { checkpoint: checkpoint(actor, generation, index), command: Command::Stop }
}

pub fn stream(number: u8) -> StreamId {
    StreamId { gateway: [9; 4], request: [number; 4] }
}

pub fn request_start(actor: &str) -> ToClientTunnel {
    ToClientTunnel::RequestStart {
        actor_id: actor.into(),
        method: "GET".into(),
        path: "/".into(),
        headers: vec![],
        body: None,
        stream: false,
    }
}

/// The key of the stream that was handed to an actor.
pub fn opened(effects: &[Effect]) -> Option<StreamKey> {
    effects.iter().find_map(|effect| match effect {
        Effect::Request { stream, .. } | Effect::WebSocket { stream, .. } => Some(*stream),
        _ => None,
    })
}

pub fn sent(effects: &[Effect]) -> Vec<&ToServer> {
    effects.iter().filter_map(|effect| if let Effect::Send(message) = effect { Some(message) } else { None }).collect()
}

/// Events among what was sent: generation, index and event.
pub fn events_of(effects: &[Effect], actor: &str) -> Vec<(u32, i64, Event)> {
    let events = sent(effects).into_iter().filter_map(|message| match message {
        ToServer::Events(events) => Some(events),
        _ => None,
    });
    events
        .flatten()
        .filter(|event| *event.checkpoint.actor_id == *actor)
        .map(|event| (event.checkpoint.generation, event.checkpoint.index, event.event.clone()))
        .collect()
}

/// Acknowledgements among what was sent: actor, generation and index.
pub fn acks_of(effects: &[Effect]) -> Vec<(String, u32, i64)> {
    let acks = sent(effects).into_iter().filter_map(|message| match message {
        ToServer::AckCommands(checkpoints) => Some(checkpoints),
        _ => None,
    });
    acks.flatten().map(|ack| (ack.actor_id.to_string(), ack.generation, ack.index)).collect()
}

/// Tunnel messages among what was sent.
pub fn tunnelled(effects: &[Effect]) -> Vec<(StreamId, u16, ToServerTunnel)> {
    sent(effects)
        .into_iter()
        .filter_map(|message| match message {
            ToServer::Tunnel { id, message } => Some((id.stream, id.index, message.clone())),
            _ => None,
        })
        .collect()
}

/// Storage requests among what was sent: id and request.
pub fn asked(effects: &[Effect]) -> Vec<(u32, KvRequest)> {
    sent(effects)
        .into_iter()
        .filter_map(|message| match message {
            ToServer::Kv { request_id, request, .. } => Some((*request_id, request.clone())),
            _ => None,
        })
        .collect()
}

/// Answers to storage requests: ticket and result.
pub fn answers(effects: &[Effect]) -> Vec<(u64, Result<KvResponse, KvError>)> {
    effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::KvDone { ticket, result } => Some((*ticket, result.clone())),
            _ => None,
        })
        .collect()
}

pub fn started(effects: &[Effect]) -> Vec<ActorKey> {
    effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Start(command) => Some(command.key.clone()),
            _ => None,
        })
        .collect()
}

pub fn stopped(effects: &[Effect]) -> Vec<(ActorKey, StopReason)> {
    effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Stop { key, reason } => Some((key.clone(), *reason)),
            _ => None,
        })
        .collect()
}

pub fn exit_of(effects: &[Effect]) -> Option<Exit> {
    effects.iter().find_map(|effect| match effect {
        Effect::Exit(exit) => Some(exit.clone()),
        _ => None,
    })
}

pub fn stopped_ok() -> Event {
    Event::StoppedOk { message: None }
}

pub fn is_error(event: &Event) -> bool {
    matches!(event, Event::StoppedError { message: Some(_) })
}

pub fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub fn millis(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}
