//! Sockets that outlive their actor's process.

use bytes::Bytes;
use greenroom::gateway::core::{CallRequest, Features, Input, StreamRef};
use greenroom::gateway::{GatewayError, StreamUp, TunnelEvent};
use greenroom::protocol::{
    Checkpoint, Command, Event, MessageId, StreamId, ToClientTunnel, ToServer, ToServerTunnel, Version,
};
use greenroom::store::{CrashPolicy, Phase};

use crate::world::{OK, Peer, SECOND, World, failed, get, init, response, socket, text};

#[test]
fn a_message_is_kept_until_it_is_acknowledged_and_sent_again_to_the_next_life() {
    let (mut world, runner, life, client) = chat(CrashPolicy::Sleep);
    world.up(client, text("one"));
    world.up(client, text("two"));
    assert_eq!(world.heard(&runner, client), ["1 one", "2 two"]);
    world.acknowledge_message(&runner, client, 1);
    world.events(&runner, &life, 1, [Event::SleepIntent]);
    world.told_to_stop(&runner);
    // The actor stops without having taken the second.
    world.events(&runner, &life, 2, [OK]);
    let (life, sockets) = world.started_with(&runner);
    assert_eq!((life.generation, sockets), (1, vec![world.wire(client)]));
    assert!(world.heard(&runner, client).is_empty(), "not before it serves");
    world.up(client, text("three"));
    world.events(&runner, &life, 0, [Event::Running]);
    assert_eq!(world.heard(&runner, client), ["2 two", "3 three"]);
    world.acknowledge_message(&runner, client, 3);
    assert_eq!(world.core.health().kept_bytes, 0);
    assert!(world.got(client).is_empty(), "the client noticed nothing");
}

#[test]
fn an_actor_that_took_everything_sleeps_until_its_client_speaks() {
    let (mut world, runner, life, client) = chat(CrashPolicy::Sleep);
    world.say_and_take(&runner, client, "one", 1);
    world.sleep(&runner, &life, 1);
    assert_eq!(world.phase(&life.actor_id), Phase::Sleeping);
    let health = world.core.health();
    assert_eq!((health.awake_actors, health.streams, health.lasting_sockets, health.kept_bytes), (0, 1, 1, 0));
    world.live(&[&runner], 1_000 * SECOND);
    assert!(world.commands(&runner).is_empty());
    assert!(world.got(client).is_empty());

    world.up(client, text("wake"));
    let (life, sockets) = world.started_with(&runner);
    assert_eq!(sockets, [world.wire(client)]);
    world.events(&runner, &life, 0, [Event::Running]);
    assert_eq!(world.heard(&runner, client), ["2 wake"], "no new open, and the counter goes on");
    world.reply(&runner, client, message("hello"));
    assert_eq!(world.got(client), [TunnelEvent::Message { data: "hello".into(), binary: false }]);
}

#[test]
fn what_a_broken_connection_may_have_lost_is_sent_again() {
    let (mut world, runner, life, client) = chat(CrashPolicy::Sleep);
    world.acknowledge(&runner, &life, 0);
    world.up(client, text("one"));
    world.up(client, text("two"));
    world.heard(&runner, client);
    world.disconnect(&runner);
    world.up(client, text("three"));
    let runner = world.connect("key");
    assert_eq!(world.heard(&runner, client), ["1 one", "2 two", "3 three"]);
    // The first had arrived before the connection broke.
    world.acknowledge_message(&runner, client, 1);
    let runner = world.reconnect(&runner);
    assert_eq!(world.heard(&runner, client), ["2 two", "3 three"]);
    world.acknowledge_message(&runner, client, 3);
    let runner = world.reconnect(&runner);
    assert!(world.heard(&runner, client).is_empty());
}

#[test]
fn every_start_names_the_live_sockets_and_no_others() {
    let (mut world, runner, life, client) = chat(CrashPolicy::Sleep);
    let second = world.lasting_socket(&runner, &life);
    let ordinary = world.open_with(&life.actor_id, socket());
    world.reply(&runner, ordinary, ToServerTunnel::WebSocketOpen { can_hibernate: false });
    // Redelivered: the start was not acknowledged.
    let runner = world.reconnect(&runner);
    assert_eq!(world.started_with(&runner).1, [world.wire(client), world.wire(second)]);
    world.reply(&runner, second, close(1000, false));
    let runner = world.reconnect(&runner);
    assert_eq!(world.started_with(&runner).1, [world.wire(client)]);
    world.events(&runner, &life, 1, [failed("crash")]);
    assert_eq!(world.phase(&life.actor_id), Phase::Sleeping, "nothing is kept, so it stays asleep");
    assert_eq!(world.got(ordinary).last(), Some(&TunnelEvent::Failed(GatewayError::ActorStopped)));
    world.open(&life.actor_id);
    assert_eq!(world.started_with(&runner).1, [world.wire(client)]);
    assert!(world.got(client).is_empty());
}

#[test]
fn sockets_survive_a_lost_runner_and_move_with_their_actor() {
    let (mut world, runner, _, client) = chat(CrashPolicy::Restart);
    world.up(client, text("one"));
    let other = world.connect("other");
    world.disconnect(&runner);
    world.live(&[&other], 15 * SECOND);
    let (life, sockets) = world.started_with(&other);
    assert_eq!((life.generation, sockets), (1, vec![world.wire(client)]));
    world.events(&other, &life, 0, [Event::Running]);
    assert_eq!(world.heard(&other, client), ["1 one"]);
    world.acknowledge_message(&other, client, 1);
    // The old runner is not heard any more.
    let runner = world.connect("key");
    world.reply(&runner, client, close(1000, false));
    world.reply(&runner, client, message("stale"));
    assert!(world.got(client).is_empty());
    // A drain moves the actor on.
    world.say(&other, ToServer::Stopping);
    world.told_to_stop(&other);
    world.events(&other, &life, 1, [OK]);
    let (life, sockets) = world.started_with(&runner);
    assert_eq!((life.generation, sockets), (2, vec![world.wire(client)]));
}

#[test]
fn a_client_that_leaves_a_sleeping_actor_is_reported_once() {
    let (mut world, runner, life, client) = chat(CrashPolicy::Sleep);
    world.sleep(&runner, &life, 1);
    world.up(client, StreamUp::Close { code: Some(4000), reason: Some("bye".into()) });
    world.tell(Input::ClientGone { stream: client });
    let (life, sockets) = world.started_with(&runner);
    assert_eq!(sockets, [world.wire(client)], "it is known until its end is");
    world.events(&runner, &life, 0, [Event::Running]);
    let bye = ToClientTunnel::WebSocketClose { code: Some(4000), reason: Some("bye".into()) };
    assert_eq!(world.tunnel(&runner), [(MessageId { stream: world.wire(client), index: 1 }, bye)]);
    // It was told before it was told to stop.
    world.sleep(&runner, &life, 1);
    assert_eq!(world.phase(&life.actor_id), Phase::Sleeping);
    assert_eq!(world.core.health().streams, 0);
}

#[test]
fn a_goodbye_that_a_broken_connection_may_have_lost_is_said_again() {
    let (mut world, runner, life, client) = chat(CrashPolicy::Sleep);
    world.acknowledge(&runner, &life, 0);
    world.up(client, text("last words"));
    world.tell(Input::ClientGone { stream: client });
    assert_eq!(world.tunnel(&runner).len(), 2);
    let runner = world.reconnect(&runner);
    let sent = world.tunnel(&runner);
    assert_eq!(sent[0].0.index, 1);
    let gone = ToClientTunnel::WebSocketClose { code: Some(1011), reason: Some("ws.downstream_closed".into()) };
    assert_eq!((sent[1].0.index, &sent[1].1), (2, &gone));
    world.live(&[&runner], 5 * SECOND);
    assert_eq!(world.core.health().streams, 1, "its last words are not taken yet");
    world.acknowledge_message(&runner, client, 1);
    world.live(&[&runner], 5 * SECOND);
    assert_eq!(world.core.health().streams, 0, "a runner that answers a later ping has read it");
    let runner = world.reconnect(&runner);
    assert!(world.tunnel(&runner).is_empty());
}

#[test]
fn nobody_is_woken_for_ever_to_hear_a_goodbye() {
    assert_eq!(lives_without_success(&[]), 4);
}

#[test]
fn what_a_client_said_before_it_left_is_tried_as_often_as_if_it_had_stayed() {
    assert_eq!(lives_without_success(&["last words"]), 9);
}

/// How many lives are tried for a client that said this and left, when each of them ends without taking anything.
fn lives_without_success(said: &[&'static str]) -> usize {
    let (mut world, runner, life, client) = chat(CrashPolicy::Sleep);
    world.sleep(&runner, &life, 1);
    for text in said {
        world.up(client, self::text(text));
    }
    world.tell(Input::ClientGone { stream: client });
    let mut lives = 0;
    for _ in 0..400 {
        if let Some(command) = world.commands(&runner).first() {
            lives += 1;
            let life = command.checkpoint.clone();
            world.events(&runner, &life, 0, [Event::Running, failed("takes nothing")]);
        }
        world.live(&[&runner], SECOND);
    }
    assert_eq!((world.phase(&life.actor_id), world.core.health().streams), (Phase::Sleeping, 0));
    lives
}

#[test]
fn a_message_that_crashes_its_actor_ends_its_socket_and_not_the_machine() {
    for policy in [CrashPolicy::Sleep, CrashPolicy::Restart] {
        let (mut world, runner, life, client) = chat(policy);
        let quiet = world.lasting_socket(&runner, &life);
        world.up(client, text("poison"));
        world.events(&runner, &life, 1, [failed("poison")]);
        let mut lives = 1;
        for _ in 0..400 {
            let starts = world.commands(&runner);
            if let Some(command) = starts.first() {
                let life = command.checkpoint.clone();
                lives += 1;
                if world.core.health().kept_bytes > 0 {
                    world.events(&runner, &life, 0, [Event::Running, failed("poison")]);
                } else {
                    world.events(&runner, &life, 0, [Event::Running]);
                }
            }
            world.live(&[&runner], SECOND);
        }
        assert!(lives <= 11, "{lives} lives of {policy:?}");
        let reason = Some("guard.actor_wake_retries_exceeded".into());
        assert_eq!(world.got(client), [TunnelEvent::Close { code: Some(1011), reason }]);
        assert!(world.got(quiet).is_empty(), "who said nothing stays");
        assert_eq!(world.core.health().lasting_sockets, 1);
    }
}

#[test]
fn an_actor_that_takes_nothing_loses_the_socket_but_not_while_it_is_away() {
    let (mut world, runner, life, client) = chat(CrashPolicy::Restart);
    world.acknowledge(&runner, &life, 0);
    world.up(client, text("one"));
    world.live(&[&runner], 20 * SECOND);
    // Away for a while, which does not count.
    world.disconnect(&runner);
    world.pass(12 * SECOND);
    let runner = world.connect("key");
    world.live(&[&runner], 20 * SECOND);
    world.up(client, text("two"));
    world.acknowledge_message(&runner, client, 1);
    world.live(&[&runner], 29 * SECOND);
    assert!(world.got(client).is_empty(), "it goes on, if slowly");
    world.tunnel(&runner);
    world.live(&[&runner], 2 * SECOND);
    let reason = Some("guard.websocket_garbage_collected".into());
    assert_eq!(world.got(client), [TunnelEvent::Close { code: Some(1011), reason: reason.clone() }]);
    let sent = world.tunnel(&runner);
    assert_eq!(sent[0].1, ToClientTunnel::WebSocketClose { code: Some(1011), reason });
    world.live(&[&runner], 5 * SECOND);
    assert_eq!((world.core.health().streams, world.core.health().kept_bytes), (0, 0));
}

#[test]
fn what_is_kept_is_limited_and_the_count_goes_down() {
    let (mut world, runner, life, client) = chat(CrashPolicy::Sleep);
    let large = || StreamUp::Message { data: Bytes::from(vec![0; 30 * 1024 * 1024]), binary: true };
    // More than the limit altogether, but never at once.
    for index in 1..=8 {
        world.up(client, large());
        world.acknowledge_message(&runner, client, index);
    }
    assert_eq!(world.core.health().kept_bytes, 0);
    world.sleep(&runner, &life, 1);
    for _ in 0..4 {
        world.up(client, large());
    }
    assert!(world.got(client).is_empty());
    world.up(client, large());
    let reason = Some("guard.websocket_pending_limit_reached".into());
    assert_eq!(world.got(client), [TunnelEvent::Close { code: Some(1011), reason: reason.clone() }]);
    assert!(world.core.health().kept_bytes < 1000);
    let (life, _) = world.started_with(&runner);
    world.events(&runner, &life, 0, [Event::Running]);
    assert_eq!(world.tunnel(&runner)[0].1, ToClientTunnel::WebSocketClose { code: Some(1011), reason });
}

#[test]
fn all_sockets_together_are_limited_too() {
    let mut world = World::with(|settings| settings.limits.kept_bytes = 10_000);
    let runner = world.connect("key");
    let life = world.running(&runner, CrashPolicy::Sleep);
    let clients: Vec<_> = (0..3).map(|_| world.lasting_socket(&runner, &life)).collect();
    for client in &clients {
        world.up(*client, StreamUp::Message { data: Bytes::from(vec![0; 4_500]), binary: true });
    }
    assert!(world.got(clients[0]).is_empty() && world.got(clients[1]).is_empty());
    assert!(matches!(world.got(clients[2])[..], [TunnelEvent::Close { code: Some(1011), .. }]));
}

#[test]
fn more_than_may_be_on_its_way_follows_the_acknowledgements() {
    let (mut world, runner, _, client) = chat(CrashPolicy::Sleep);
    for _ in 0..40_000 {
        world.up(client, text("m"));
    }
    let mut next = 1;
    while next <= 40_000 {
        let heard = world.heard(&runner, client);
        assert!(!heard.is_empty() && heard.len() < 32_768, "{}", heard.len());
        for message in &heard {
            assert_eq!(*message, format!("{next} m"));
            next += 1;
        }
        let last = u16::try_from(next - 1).expect("small");
        world.acknowledge_message(&runner, client, last);
    }
    assert_eq!(world.core.health().kept_bytes, 0);
}

#[test]
fn a_runner_is_not_sent_more_than_it_can_take_at_once() {
    let (mut world, runner, life, first) = chat(CrashPolicy::Sleep);
    let mut clients = vec![first];
    clients.extend((0..9).map(|_| world.lasting_socket(&runner, &life)));
    world.sleep(&runner, &life, 1);
    for client in &clients {
        world.up(*client, StreamUp::Message { data: Bytes::from(vec![0; 15 * 1024 * 1024]), binary: true });
    }
    let (life, _) = world.started_with(&runner);
    world.events(&runner, &life, 0, [Event::Running]);
    let mut seen = 0;
    while seen < clients.len() {
        let sent = world.tunnel(&runner);
        assert!((1..=6).contains(&sent.len()), "{}", sent.len());
        seen += sent.len();
        for (id, _) in sent {
            world.say(
                &runner,
                ToServer::Tunnel { id, message: ToServerTunnel::WebSocketMessageAck { index: id.index } },
            );
        }
    }
    assert_eq!(world.core.health().kept_bytes, 0);
}

#[test]
fn an_actor_may_close_its_socket_whenever_it_has_a_runner() {
    // Between the start and the moment it serves, which the engine loses.
    let (mut world, runner, life, client) = chat(CrashPolicy::Sleep);
    world.sleep(&runner, &life, 1);
    world.up(client, text("wake"));
    let (life, _) = world.started_with(&runner);
    world.reply(&runner, client, close(4001, false));
    assert_eq!(world.got(client), [TunnelEvent::Close { code: Some(4001), reason: None }]);
    world.events(&runner, &life, 0, [Event::Running]);
    assert!(world.tunnel(&runner).is_empty(), "what it said is of no interest to anyone");
    // And after it has stopped, if its runner is that late.
    let second = world.lasting_socket(&runner, &life);
    world.sleep(&runner, &life, 1);
    world.reply(&runner, second, close(4002, false));
    assert_eq!(world.got(second), [TunnelEvent::Close { code: Some(4002), reason: None }]);
    assert_eq!(world.core.health().streams, 0);
}

#[test]
fn a_close_that_hibernates_keeps_a_lasting_socket_and_closes_an_ordinary_one() {
    let (mut world, runner, life, client) = chat(CrashPolicy::Sleep);
    let ordinary = world.open_with(&life.actor_id, socket());
    world.reply(&runner, ordinary, ToServerTunnel::WebSocketOpen { can_hibernate: false });
    world.got(ordinary);
    world.reply(&runner, ordinary, close(1000, true));
    assert_eq!(world.got(ordinary), [TunnelEvent::Close { code: Some(1000), reason: None }]);
    world.up(client, text("one"));
    world.heard(&runner, client);
    world.reply(&runner, client, close(1000, true));
    assert_eq!(world.heard(&runner, client), ["1 one"], "it runs, so it is attached again");
    assert!(world.got(client).is_empty());
    for _ in 0..10 {
        world.reply(&runner, client, close(1000, true));
    }
    assert!(matches!(world.got(client)[..], [TunnelEvent::Close { code: Some(1011), .. }]), "not for ever");
}

#[test]
fn the_end_of_an_actor_is_the_end_of_its_sockets() {
    for asleep in [false, true] {
        let (mut world, runner, life, client) = chat(CrashPolicy::Sleep);
        let request = world.open(&life.actor_id);
        if asleep {
            world.reply(&runner, request, response());
            world.sleep(&runner, &life, 1);
        }
        world.tunnel(&runner);
        world.call(CallRequest::Destroy { namespace: "default".into(), actor_id: (&*life.actor_id).into() });
        if !asleep {
            world.told_to_stop(&runner);
            world.events(&runner, &life, 1, [OK]);
            assert_eq!(world.got(request), [TunnelEvent::Failed(GatewayError::ActorDestroyed)]);
        }
        let reason = Some("actor.destroyed".into());
        assert_eq!(world.got(client), [TunnelEvent::Close { code: Some(1000), reason }]);
        assert_eq!(world.core.health().streams, 0);
        world.up(client, text("late"));
        assert!(world.commands(&runner).is_empty());
    }
}

#[test]
fn a_client_that_waits_for_a_runner_that_never_comes_is_told() {
    let (mut world, runner, life, client) = chat(CrashPolicy::Sleep);
    let quiet = world.lasting_socket(&runner, &life);
    world.sleep(&runner, &life, 1);
    world.disconnect(&runner);
    world.pass(60 * SECOND);
    world.up(client, text("anybody?"));
    world.pass(59 * SECOND);
    assert!(world.got(client).is_empty());
    world.pass(2 * SECOND);
    let reason = Some("guard.actor_ready_timeout".into());
    assert_eq!(world.got(client), [TunnelEvent::Close { code: Some(1011), reason }]);
    let runner = world.connect("key");
    world.up(quiet, text("hello"));
    assert_eq!(world.started_with(&runner).1, [world.wire(quiet)]);
}

#[test]
fn a_runner_that_begins_a_life_anew_gets_everything_anew() {
    let (mut world, runner, life, client) = chat(CrashPolicy::Sleep);
    world.up(client, text("one"));
    let runner = world.reconnect(&runner);
    assert_eq!(world.started_with(&runner).1, [world.wire(client)]);
    // It takes the repeated start for a new one, as the TypeScript runner does.
    world.events(&runner, &life, 0, [Event::Running]);
    assert_eq!(world.heard(&runner, client), ["1 one"]);
}

#[test]
fn a_message_while_the_actor_falls_asleep_wakes_it_again() {
    let (mut world, runner, life, client) = chat(CrashPolicy::Sleep);
    world.events(&runner, &life, 1, [Event::SleepIntent]);
    world.told_to_stop(&runner);
    world.up(client, text("wait"));
    assert!(world.tunnel(&runner).is_empty());
    world.reply(&runner, client, message("good night"));
    assert_eq!(world.got(client).len(), 1, "it may speak until it has stopped");
    world.events(&runner, &life, 2, [OK]);
    let (life, _) = world.started_with(&runner);
    world.events(&runner, &life, 0, [Event::Running]);
    assert_eq!(world.heard(&runner, client), ["1 wait"]);
}

#[test]
fn a_runner_that_goes_on_with_a_forgotten_stream_is_told_to_stop() {
    let (mut world, runner, life, client) = chat(CrashPolicy::Sleep);
    let runner = {
        world.disconnect(&runner);
        world.connect_as("key", init(10), Features { stream: true, ..Features::default() }, Version::V7)
    };
    world.events(&runner, &life, 0, [Event::Running]);
    let request = world.open_with(&life.actor_id, get());
    world.tell(Input::ClientGone { stream: request });
    world.tunnel(&runner);
    let chunk = || ToServerTunnel::ResponseChunk { body: "more".into(), finish: false };
    world.reply(&runner, request, chunk());
    world.reply(&runner, request, chunk());
    let sent = world.tunnel(&runner);
    assert_eq!(sent.len(), 1, "once: {sent:?}");
    assert_eq!((sent[0].0.stream, &sent[0].1), (world.wire(request), &ToClientTunnel::RequestAbort));
    // Sockets of a gateway that was killed.
    let stream = StreamId { gateway: [9, 9, 9, 9], ..world.wire(client) };
    world.say(&runner, ToServer::Tunnel { id: MessageId { stream, index: 7 }, message: message("hello?") });
    let sent = world.tunnel(&runner);
    assert_eq!(sent[0].0.stream, stream);
    assert!(matches!(sent[0].1, ToClientTunnel::WebSocketClose { code: Some(1011), .. }));
}

/// An actor that runs, and a client whose socket outlives it.
fn chat(policy: CrashPolicy) -> (World, Peer, Checkpoint, StreamRef) {
    let mut world = World::new();
    let runner = world.connect("key");
    let life = world.running(&runner, policy);
    let client = world.lasting_socket(&runner, &life);
    (world, runner, life, client)
}

fn message(text: &'static str) -> ToServerTunnel {
    ToServerTunnel::WebSocketMessage { data: text.into(), binary: false }
}

fn close(code: u16, hibernate: bool) -> ToServerTunnel {
    ToServerTunnel::WebSocketClose { code: Some(code), reason: None, hibernate }
}

impl World {
    fn lasting_socket(&mut self, runner: &Peer, life: &Checkpoint) -> StreamRef {
        let stream = self.open_with(&life.actor_id, socket());
        self.reply(runner, stream, ToServerTunnel::WebSocketOpen { can_hibernate: true });
        assert_eq!(self.got(stream), [TunnelEvent::Open { can_hibernate: true }]);
        self.take_sent(runner.connection);
        stream
    }

    /// The messages of a client that a runner was sent since it was last looked at, behind their indexes.
    fn heard(&mut self, runner: &Peer, client: StreamRef) -> Vec<String> {
        let wire = self.wire(client);
        let sent = self.tunnel(runner).into_iter().filter(|(id, _)| id.stream == wire);
        sent.map(|(id, message)| match message {
            ToClientTunnel::WebSocketMessage { data, .. } => {
                format!("{} {}", id.index, String::from_utf8_lossy(&data))
            }
            other => panic!("{other:?}"),
        })
        .collect()
    }

    fn acknowledge_message(&mut self, runner: &Peer, client: StreamRef, index: u16) {
        self.reply(runner, client, ToServerTunnel::WebSocketMessageAck { index });
    }

    fn say_and_take(&mut self, runner: &Peer, client: StreamRef, what: &'static str, index: u16) {
        self.up(client, text(what));
        assert_eq!(self.heard(runner, client), [format!("{index} {what}")]);
        self.acknowledge_message(runner, client, index);
    }

    /// The actor sleeps because it wants to.
    fn sleep(&mut self, runner: &Peer, life: &Checkpoint, next_event: i64) {
        self.events(runner, life, next_event, [Event::SleepIntent]);
        self.told_to_stop(runner);
        self.events(runner, life, next_event + 1, [OK]);
    }

    /// The life that the only new command starts, and the sockets it is told of.
    fn started_with(&mut self, runner: &Peer) -> (Checkpoint, Vec<StreamId>) {
        let commands = self.commands(runner);
        assert_eq!(commands.len(), 1, "{commands:?}");
        let Command::Start { hibernating, .. } = &commands[0].command else { panic!("{commands:?}") };
        (commands[0].checkpoint.clone(), hibernating.clone())
    }
}
