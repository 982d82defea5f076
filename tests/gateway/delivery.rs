//! Commands and events across connections that break, runners that leave, and a gateway that is killed.

use greenroom::gateway::GatewayError;
use greenroom::gateway::core::{CallRequest, Features, Hello, Input};
use greenroom::protocol::{
    ActorName, Checkpoint, Command, Event, Init, KvRequest, KvResponse, ToClient, ToServer, Version,
};
use greenroom::store::{ActorError, CrashPolicy, Found, Phase, Query, Store};

use crate::world::{MILLI, OK, Peer, SECOND, World, failed, init};

#[test]
fn commands_come_again_until_they_are_acknowledged() {
    let mut world = World::new();
    let runner = world.connect("key");
    let life = world.running(&runner, CrashPolicy::Sleep);
    world.live(&[&runner], 5 * SECOND);
    assert!(world.commands(&runner).is_empty(), "a live socket is not told twice");

    let runner = world.reconnect(&runner);
    let again = world.commands(&runner);
    assert_eq!(again.len(), 1);
    assert_eq!(again[0].checkpoint, Checkpoint { index: 0, ..life.clone() });
    let Command::Start { config, .. } = &again[0].command else { panic!("{again:?}") };
    assert!(config.create_ts < world.now.wall_ms, "the start keeps its time");

    world.events(&runner, &life, 1, [Event::SleepIntent]);
    world.commands(&runner);
    let runner = world.reconnect(&runner);
    let both: Vec<_> = world.commands(&runner).into_iter().map(|command| command.checkpoint.index).collect();
    assert_eq!(both, [0, 1]);
    world.acknowledge(&runner, &life, 0);
    let runner = world.reconnect(&runner);
    assert_eq!(world.told_to_stop(&runner).index, 1);
    assert!(!world.record(&life.actor_id).command_acknowledged);
    world.acknowledge(&runner, &life, 1);
    assert!(world.record(&life.actor_id).command_acknowledged);
    let runner = world.reconnect(&runner);
    assert!(world.commands(&runner).is_empty());
}

#[test]
fn an_acknowledgement_of_version_4_means_the_life_the_runner_has() {
    let mut world = World::new();
    let runner = world.connect_as("key", init(10), Features::default(), Version::V4);
    let mut life = world.running(&runner, CrashPolicy::Restart);
    world.events(&runner, &life, 1, [failed("once")]);
    life = world.started(&runner);
    assert_eq!(life.generation, 1);
    world.acknowledge(&runner, &Checkpoint { generation: 0, ..life.clone() }, 0);
    assert!(world.record(&life.actor_id).command_acknowledged);
}

#[test]
fn nobody_is_told_what_is_not_on_disk_yet() {
    let mut world = World::new();
    let runner = world.connect("key");
    world.disconnect(&runner);
    world.disconnect(&runner);
    let other = world.connect("other");
    world.slow_disk = true;
    let call = world.call(CallRequest::Create(crate::world::actor()));
    assert!(!world.answers.contains_key(&call), "nothing is promised that is not on disk");
    assert!(world.commands(&other).is_empty());
    world.disk_done();
    assert!(world.answers.contains_key(&call));
    let life = world.started(&other);
    let other = world.reconnect_as("other", &other);
    assert_eq!(world.started(&other), life);
}

#[test]
fn events_count_once_and_are_acknowledged_soon() {
    let mut world = World::new();
    let runner = world.connect("key");
    let life = world.running(&runner, CrashPolicy::Sleep);
    let alarm = |at| Event::SetAlarm { at: Some(at) };
    let far = world.now.wall_ms + 1_000_000;
    world.events(&runner, &life, 1, [alarm(far)]);
    world.events(&runner, &life, 1, [alarm(far + 1)]);
    assert_eq!(world.record(&life.actor_id).alarm_at, Some(far), "a repeat changes nothing");
    world.events(&runner, &life, 9, [alarm(far + 2)]);
    assert_eq!(world.record(&life.actor_id).alarm_at, Some(far + 2), "a gap is fine");
    assert_eq!(world.acknowledged(&runner), []);
    world.pass(SECOND);
    assert_eq!(world.acknowledged(&runner), [(0, 9)]);
    world.events(&runner, &life, 10, (0..50).map(|n| alarm(far + n)));
    assert_eq!(world.acknowledged(&runner), [(0, 59)], "at once when there are many");
    world.events(&runner, &life, 3, [alarm(far)]);
    world.pass(SECOND);
    assert_eq!(world.acknowledged(&runner), [(0, 3)], "a repeat is acknowledged again");
}

#[test]
fn the_end_of_a_life_is_acknowledged_before_the_next_begins() {
    let mut world = World::new();
    let runner = world.connect("key");
    let life = world.running(&runner, CrashPolicy::Restart);
    world.events(&runner, &life, 1, [failed("why")]);
    let sent = world.take_sent(runner.connection);
    assert!(matches!(sent[..], [ToClient::AckEvents(_), ToClient::Commands(_)]), "{sent:?}");
}

#[test]
fn events_of_another_life_or_from_another_runner_change_nothing() {
    let mut world = World::new();
    let runner = world.connect("key");
    let life = world.running(&runner, CrashPolicy::Restart);
    let other = world.connect("other");
    world.events(&other, &life, 1, [OK]);
    world.events(&runner, &Checkpoint { generation: 1, ..life.clone() }, 1, [OK]);
    assert_eq!(world.phase(&life.actor_id), Phase::Running);
    assert_eq!(world.acknowledged(&other), [(0, 1)], "but whoever sent them may forget them");

    // A runner that runs what it should not is told to stop it, once.
    world.take_sent(other.connection);
    world.events(&other, &life, 1, [Event::Running]);
    world.events(&other, &life, 2, [Event::Running]);
    assert_eq!(world.told_to_stop(&other), Checkpoint { index: 1, ..life });
}

#[test]
fn a_runner_that_starts_anew_on_a_repeated_start_is_still_heard() {
    let mut world = World::new();
    let runner = world.connect("key");
    let life = world.running(&runner, CrashPolicy::Sleep);
    world.events(&runner, &life, 1, [Event::SetAlarm { at: None }, Event::SetAlarm { at: None }]);
    let runner = world.reconnect(&runner);
    world.commands(&runner);
    // The TypeScript runner makes a new actor of it, which counts from 0.
    world.events(&runner, &life, 0, [Event::Running, Event::SleepIntent, OK]);
    assert_eq!(world.phase(&life.actor_id), Phase::Sleeping);
}

#[test]
fn a_runner_is_lost_exactly_at_the_threshold() {
    let mut world = World::new();
    let runner = world.connect("key");
    let life = world.running(&runner, CrashPolicy::Sleep);
    world.live(&[&runner], 7 * SECOND);
    world.disconnect(&runner);
    world.pass(15 * SECOND - MILLI);
    assert_eq!(world.phase(&life.actor_id), Phase::Running);
    assert_eq!(world.core.health().connected_runners, 0);
    let back = world.connect("key");
    assert_eq!(back.runner_id, runner.runner_id);
    world.disconnect(&back);
    world.pass(15 * SECOND);
    let record = world.record(&life.actor_id);
    assert_eq!(record.phase, Phase::Sleeping);
    assert_eq!(record.error, Some(ActorError::RunnerConnectionLost { runner_id: (*runner.runner_id).into() }));
    assert_ne!(world.connect("key").runner_id, runner.runner_id, "a lost id is used up");
}

#[test]
fn a_runner_that_answers_no_ping_gets_no_actors_and_then_no_connection() {
    let mut world = World::new();
    let runner = world.connect("key");
    world.pass(3 * SECOND + 127 * MILLI);
    let Some(ToClient::Ping { ts }) = world.take_sent(runner.connection).pop() else { panic!("no ping") };
    world.pass(5 * MILLI);
    world.say(&runner, ToServer::Pong { ts });
    let live = world.core.live_runners()[&*runner.runner_id];
    let rtt = std::time::Duration::from_millis(u64::try_from(world.now.wall_ms - ts).expect("positive"));
    assert_eq!((live.last_rtt, live.last_ping_ts, live.remaining_slots), (rtt, world.now.wall_ms, 10));

    world.pass(10 * SECOND);
    let waiting = world.create(CrashPolicy::Restart);
    assert_eq!(world.phase(&waiting), Phase::Pending);
    world.say(&runner, ToServer::Pong { ts: world.now.wall_ms });
    assert_eq!(world.phase(&waiting), Phase::Starting);
    world.pass(15 * SECOND - MILLI);
    assert!(world.closed.is_empty());
    world.pass(MILLI);
    assert_eq!(world.closed[&runner.connection], (1011, "core.internal_error"));
    world.pass(14 * SECOND);
    assert_eq!(world.connect("key").runner_id, runner.runner_id);
}

#[test]
fn a_newer_connection_takes_over_without_disturbing_actors() {
    let mut world = World::new();
    let first = world.connect("key");
    let life = world.running(&first, CrashPolicy::Sleep);
    let second = world.connect_as("key", init(99), Features::default(), Version::V7);
    assert_eq!(second.runner_id, first.runner_id);
    assert_eq!(world.closed[&first.connection], (1000, "ws.eviction"));
    // What the old one still says is not heard, and that it is gone now is no loss.
    world.events(&first, &life, 1, [OK]);
    world.disconnect(&first);
    world.live(&[&second], 60 * SECOND);
    assert_eq!(world.phase(&life.actor_id), Phase::Running);
    let live = world.core.live_runners()[&*first.runner_id];
    assert_eq!(live.remaining_slots, 9, "what it said when it first came is what counts");
}

#[test]
fn a_draining_runner_gets_nothing_new_and_goes_when_it_is_empty() {
    let mut world = World::new();
    let runner = world.connect("key");
    let life = world.running(&runner, CrashPolicy::Restart);
    world.say(&runner, ToServer::Stopping);
    assert_eq!(world.told_to_stop(&runner).actor_id, life.actor_id);
    let waiting = world.create(CrashPolicy::Restart);
    assert_eq!(world.phase(&waiting), Phase::Pending);
    world.live(&[&runner], 14 * SECOND);
    assert!(world.closed.is_empty());
    world.events(&runner, &life, 1, [OK]);
    assert_eq!(world.phase(&life.actor_id), Phase::Pending);
    world.pass(SECOND);
    assert_eq!(world.closed[&runner.connection], (1000, "ws.eviction"));

    let next = world.connect("key");
    assert_ne!(next.runner_id, runner.runner_id);
    assert_eq!((world.phase(&life.actor_id), world.phase(&waiting)), (Phase::Starting, Phase::Starting));
}

#[test]
fn a_drain_that_takes_too_long_ends_with_its_actors_lost() {
    let mut world = World::new();
    let runner = world.connect("key");
    let life = world.running(&runner, CrashPolicy::Sleep);
    world.say(&runner, ToServer::Stopping);
    world.live(&[&runner], 15 * SECOND - MILLI);
    assert!(world.closed.is_empty());
    world.pass(MILLI);
    assert_eq!(world.closed[&runner.connection], (1000, "ws.eviction"));
    let record = world.record(&life.actor_id);
    assert_eq!(record.error, Some(ActorError::RunnerDrainingTimeout { runner_id: (*runner.runner_id).into() }));
}

#[test]
fn who_comes_back_while_draining_is_somebody_new() {
    let mut world = World::new();
    let runner = world.connect("key");
    let life = world.running(&runner, CrashPolicy::Restart);
    world.say(&runner, ToServer::Stopping);
    let next = world.connect("key");
    assert_ne!(next.runner_id, runner.runner_id);
    assert_eq!(world.closed[&runner.connection], (1000, "ws.eviction"));
    assert_eq!(world.phase(&life.actor_id), Phase::StoppingToMove);
    world.live(&[&next], 15 * SECOND);
    let record = world.record(&life.actor_id);
    assert_eq!((record.phase, record.runner_id.as_deref()), (Phase::Starting, Some(&*next.runner_id)));
    // A drained runner that hangs up by itself is gone at once.
    world.events(&next, &Checkpoint { generation: 1, ..life }, 0, [Event::Running]);
    let empty = world.connect("empty");
    world.say(&empty, ToServer::Stopping);
    world.disconnect(&empty);
    let Found::Runners(left) = world.store.read(&Query::Runners).expect("reads") else { panic!("no runners") };
    assert!(left.iter().all(|record| *record.id != *empty.runner_id));
}

#[test]
fn a_killed_gateway_does_not_take_a_runner_for_the_one_that_drained_before_it() {
    let mut world = World::new();
    let runner = world.connect("key");
    world.running(&runner, CrashPolicy::Restart);
    world.say(&runner, ToServer::Stopping);
    let next = world.connect("key");
    let mut world = world.restart();
    assert_eq!(world.connect("key").runner_id, next.runner_id);
}

#[test]
fn a_newer_version_gets_the_actors_and_may_drain_the_older() {
    let mut world = World::new();
    let old = world.connect("old");
    let life = world.running(&old, CrashPolicy::Restart);
    let new = world.connect_as("new", Init { version: 2, ..init(10) }, Features::default(), Version::V7);
    assert!(world.commands(&old).is_empty(), "unless it is told to, it drains nothing");
    for _ in 0..5 {
        world.create(CrashPolicy::Restart);
    }
    assert_eq!(world.commands(&new).len(), 5);
    let request = CallRequest::PutRunnerConfig {
        namespace: "default".into(),
        pool: "pool".into(),
        drain_on_version_upgrade: true,
        metadata: None,
    };
    let call = world.call(request);
    assert!(world.answer(call).is_ok());
    let newest = world.connect_as("newest", Init { version: 3, ..init(10) }, Features::default(), Version::V7);
    assert_eq!(world.told_to_stop(&old).actor_id, life.actor_id);
    assert_eq!(world.commands(&new).len(), 5);
    world.events(&old, &life, 1, [OK]);
    assert_eq!(world.started(&newest).generation, 1);
}

#[test]
fn a_killed_gateway_goes_on_where_its_disk_says() {
    let mut world = World::new();
    let runner = world.connect_as("key", init(3), Features::default(), Version::V7);
    let unheard = world.create(CrashPolicy::Restart);
    world.commands(&runner);
    let stopping = world.running(&runner, CrashPolicy::Sleep);
    world.acknowledge(&runner, &stopping, 0);
    world.events(&runner, &stopping, 1, [Event::SleepIntent]);
    world.commands(&runner);
    let serving = world.running(&runner, CrashPolicy::Sleep);
    world.acknowledge(&runner, &serving, 0);
    let queued = world.create(CrashPolicy::Restart);

    let mut world = world.restart();
    let other = world.connect("nobody's");
    assert_eq!(world.started(&other).actor_id, *queued, "who waited is still waiting");
    world.pass(10 * SECOND);
    let runner = Peer { runner_id: runner.runner_id, ..world.connect("key") };
    let commands = world.commands(&runner);
    let mut told: Vec<_> = commands.iter().map(|c| (c.checkpoint.actor_id.to_string(), c.checkpoint.index)).collect();
    told.sort();
    let mut expected = vec![(unheard.to_string(), 0), (stopping.actor_id.to_string(), 1)];
    expected.sort();
    assert_eq!(told, expected);
    // Events that were stored are recognised, new ones taken.
    world.events(&runner, &stopping, 1, [Event::SleepIntent, OK]);
    assert_eq!(world.phase(&stopping.actor_id), Phase::Sleeping);
    world.open(&serving.actor_id);
    assert_eq!(world.opened.len(), 1);

    let mut world = world.restart();
    world.pass(15 * SECOND);
    assert_eq!(world.phase(&serving.actor_id), Phase::Sleeping, "nobody came back");
    assert_eq!(world.phase(&unheard), Phase::Pending);
}

#[test]
fn only_the_runner_that_holds_an_actor_reaches_its_storage() {
    let mut world = World::new();
    let runner = world.connect("key");
    let other = world.connect("other");
    world.say(&other, ToServer::Stopping);
    let life = world.running(&runner, CrashPolicy::Sleep);
    let put = || KvRequest::Put { keys: vec!["k".into()], values: vec!["v".into()] };
    let refused = |text: &str| KvResponse::Error { message: text.into() };
    assert_eq!(world.kv(&runner, &life.actor_id, put()), KvResponse::Put);
    assert_eq!(world.kv(&other, &life.actor_id, put()), refused("actor does not belong to runner"));
    assert!(matches!(world.kv(&runner, "?", put()), KvResponse::Error { .. }));
    world.events(&runner, &life, 1, [Event::SleepIntent]);
    assert_eq!(world.kv(&runner, &life.actor_id, put()), KvResponse::Put, "it may save while it stops");
    world.events(&runner, &life, 2, [OK]);
    assert_eq!(world.kv(&runner, &life.actor_id, put()), refused("actor does not exist"));
}

#[test]
fn what_a_runner_says_about_itself_is_kept() {
    let mut world = World::new();
    let described = |metadata: &'static str| ActorName { metadata: metadata.into() };
    let names = vec![("good".into(), described(r#"{"a":1}"#)), ("bad".into(), described("[1]"))];
    let init = Init { prepopulate_actor_names: Some(names), metadata: Some("not json".into()), ..init(10) };
    let runner = world.connect_as("key", init, Features::default(), Version::V7);
    let Found::Runners(runners) = world.store.read(&Query::Runners).expect("reads") else { panic!("no runners") };
    assert_eq!((&*runners[0].id, &*runners[0].metadata), (&*runner.runner_id, "{}"));
    world.create(CrashPolicy::Sleep);
    let namespace_id = runners[0].namespace_id.clone();
    let names = Query::ActorNames { namespace_id, after: None, limit: 10 };
    let Found::ActorNames(names) = world.store.read(&names).expect("reads") else { panic!("no names") };
    let names: Vec<_> = names.iter().map(|name| (&*name.name, &*name.metadata)).collect();
    assert_eq!(names, [("bad", "{}"), ("counter", "{}"), ("good", r#"{"a":1}"#)]);
}

#[test]
fn connections_are_limited_and_refused_by_name() {
    let mut world = World::with(|settings| settings.limits.connections = 1);
    let hello = |namespace: &str| Hello {
        namespace: namespace.into(),
        key: "k".into(),
        version: Version::V7,
        features: Features::default(),
    };
    let connection = greenroom::gateway::core::ConnectionId;
    world.tell(Input::Connected { connection: connection(901), hello: hello("nowhere") });
    assert_eq!(world.closed[&connection(901)], (1011, "namespace.not_found"));
    world.connect("key");
    world.tell(Input::Connected { connection: connection(902), hello: hello("default") });
    assert_eq!(world.closed[&connection(902)], (1011, "guard.service_unavailable"));
}

#[test]
fn a_gateway_that_stops_says_nothing_to_runners_whose_connections_it_has_closed() {
    let mut world = World::new();
    let runner = world.connect("key");
    world.create(CrashPolicy::Sleep);
    world.tell(Input::Shutdown);
    // The start runs out of time; the world fails when that is told on the closed connection.
    world.pass(120 * SECOND);
    assert!(world.closed.contains_key(&runner.connection));
}

#[test]
fn a_gateway_that_stops_takes_nothing_new() {
    let mut world = World::new();
    let runner = world.connect("key");
    let life = world.running(&runner, CrashPolicy::Sleep);
    world.tell(Input::Shutdown);
    assert_eq!(world.closed[&runner.connection], (1011, "ws.going_away"));
    let request = world.open(&life.actor_id);
    assert!(matches!(world.refused[&request], GatewayError::Unavailable(_)));
    assert!(matches!(world.create_with(crate::world::actor()), Err(GatewayError::Unavailable(_))));
}

impl World {
    pub fn reconnect(&mut self, peer: &Peer) -> Peer {
        self.reconnect_as("key", peer)
    }

    fn reconnect_as(&mut self, key: &str, peer: &Peer) -> Peer {
        self.disconnect(peer);
        self.pass(SECOND);
        let back = self.connect(key);
        assert_eq!(back.runner_id, peer.runner_id);
        back
    }

    pub fn acknowledge(&mut self, peer: &Peer, life: &Checkpoint, index: i64) {
        self.say(peer, ToServer::AckCommands(vec![Checkpoint { index, ..life.clone() }]));
    }

    /// Generation and index of the acknowledgements sent since the connection was last looked at.
    fn acknowledged(&mut self, peer: &Peer) -> Vec<(u32, i64)> {
        let sent = self.take_sent(peer.connection).into_iter();
        let checkpoints = sent.filter_map(|m| if let ToClient::AckEvents(c) = m { Some(c) } else { None }).flatten();
        checkpoints.map(|checkpoint| (checkpoint.generation, checkpoint.index)).collect()
    }

    fn kv(&mut self, peer: &Peer, actor_id: &str, request: KvRequest) -> KvResponse {
        self.take_sent(peer.connection);
        self.say(peer, ToServer::Kv { actor_id: actor_id.into(), request_id: 7, request });
        match self.take_sent(peer.connection).pop() {
            Some(ToClient::Kv { request_id: 7, response }) => response,
            other => panic!("{other:?}"),
        }
    }
}
