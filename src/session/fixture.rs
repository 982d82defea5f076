//! A session for tests.

use std::time::{Duration, Instant};

use greenroom_protocol::{ActorConfig, Checkpoint, Command, CommandWrapper, Init, InitMetadata, ToClient, Version};

use super::{Features, Input, Session, Settings};

/// A session that is connected, has been told to start the actor `a`, and has nothing to do.
pub(super) fn open_with_actor(now: Instant) -> Session {
    let init = Init { name: "pool".into(), version: 1, total_slots: 1, prepopulate_actor_names: None, metadata: None };
    let kv_timeout = Duration::from_secs(30);
    let mut session = Session::new(Settings { init, version: Version::V7, kv_timeout, lost_lives: vec![], seed: 1 });
    session.handle(Input::Dialed { features: Features::default() }, now);
    let metadata =
        InitMetadata { runner_lost_threshold: 15_000, actor_stop_threshold: None, serverless_drain_grace_period: None };
    session.handle(Input::Received(ToClient::Init { runner_id: "r".into(), metadata }), now);
    session.handle(Input::Received(start()), now);
    while session.poll_effect(now).is_some() {}
    session
}

/// Tells the runner to start the actor `a`.
pub(super) fn start() -> ToClient {
    let config = ActorConfig { name: "n".into(), key: None, create_ts: 0, input: None };
    let command = Command::Start { config, hibernating: vec![] };
    let checkpoint = Checkpoint { actor_id: "a".into(), generation: 0, index: 0 };
    ToClient::Commands(vec![CommandWrapper { checkpoint, command }])
}
