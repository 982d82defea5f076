//! Requests and sockets between clients and actors.

use bytes::Bytes;
use greenroom::gateway::core::{Features, Input};
use greenroom::gateway::{GatewayError, StreamHead, StreamUp, TunnelEvent};
use greenroom::protocol::{
    Checkpoint, Event, Headers, MessageId, StreamId, ToClientTunnel, ToServer, ToServerTunnel, Version,
};
use greenroom::store::CrashPolicy;

use crate::world::{OK, SECOND, World, get, init, response, socket, text};

#[test]
fn requests_wait_for_their_actor_and_are_sent_in_order() {
    let mut world = World::new();
    let runner = world.connect("key");
    let id = world.create(CrashPolicy::Sleep);
    let life = world.started(&runner);
    let requests: Vec<_> = (0..3).map(|_| world.open(&id)).collect();
    assert!(world.opened.is_empty());
    assert_eq!(world.core.health().waiting_streams, 3);
    world.tell(Input::ClientGone { stream: requests[1] });
    world.events(&runner, &life, 0, [Event::Running]);
    assert_eq!(world.opened, [requests[0], requests[2]]);
    let sent = world.tunnel(&runner);
    assert_eq!(sent[0].0, MessageId { stream: world.wire(requests[0]), index: 0 });
    assert!(matches!(&sent[0].1, ToClientTunnel::RequestStart { actor_id, stream: false, .. } if **actor_id == *id));
    assert_eq!(sent[1].0.stream, world.wire(requests[2]));
    assert_eq!(world.core.health().waiting_streams, 0);
}

#[test]
fn a_request_gives_up_after_half_a_minute() {
    let mut world = World::new();
    let runner = world.connect("key");
    let id = world.create(CrashPolicy::Sleep);
    world.live(&[&runner], 20 * SECOND);
    let request = world.open(&id);
    world.live(&[&runner], 5 * SECOND);
    let later = world.open(&id);
    world.live(&[&runner], 5 * SECOND);
    // Its start took too long as well, and it is started once more for those who wait.
    world.live(&[&runner], 20 * SECOND);
    assert!(matches!(world.refused[&request], GatewayError::ActorReadyTimeout { error: Some(_) }));
    assert!(!world.refused.contains_key(&later));
    world.live(&[&runner], 5 * SECOND);
    assert!(matches!(world.refused[&later], GatewayError::ActorReadyTimeout { .. }));
}

#[test]
fn waiting_is_limited_by_number_and_size() {
    let mut world = World::with(|settings| {
        settings.limits.waiting_per_actor = 2;
        settings.limits.waiting = 3;
        settings.limits.waiting_bytes = 10_000;
    });
    world.connect("key");
    let first = world.create(CrashPolicy::Sleep);
    let second = world.create(CrashPolicy::Sleep);
    let large = StreamHead::Request {
        method: "PUT".into(),
        path: "/".into(),
        headers: Vec::new(),
        body: Some(Bytes::from(vec![0; 10_000])),
        more: false,
    };
    let large = world.open_with(&first, large);
    assert!(matches!(world.refused[&large], GatewayError::Unavailable(_)));
    let of_first: Vec<_> = (0..3).map(|_| world.open(&first)).collect();
    assert_eq!(world.refused.get(&of_first[1]), None);
    assert!(matches!(world.refused[&of_first[2]], GatewayError::Unavailable(_)));
    let of_second: Vec<_> = (0..2).map(|_| world.open(&second)).collect();
    assert_eq!(world.refused.get(&of_second[0]), None);
    assert!(matches!(world.refused[&of_second[1]], GatewayError::Unavailable(_)));
}

#[test]
fn nobody_is_woken_for_a_client_that_is_gone() {
    let mut world = World::new();
    let runner = world.connect("key");
    let life = world.running(&runner, CrashPolicy::Sleep);
    world.events(&runner, &life, 1, [Event::SleepIntent, OK]);
    world.take_sent(runner.connection);
    world.slow_loads = true;
    let request = world.open(&life.actor_id);
    world.tell(Input::ClientGone { stream: request });
    world.answer_loads();
    assert!(world.commands(&runner).is_empty());
    assert_eq!(world.core.health().awake_actors, 0);
    let unknown = world.open("1oe70n6l4jcqg4a8w8zsyhhwkqcl00");
    assert_eq!(world.refused[&unknown], GatewayError::ActorNotFound);
}

#[test]
fn a_runner_hears_that_a_client_is_gone() {
    let mut world = World::new();
    let runner = world.connect("key");
    let life = world.running(&runner, CrashPolicy::Sleep);
    let request = world.open(&life.actor_id);
    world.tunnel(&runner);
    world.tell(Input::ClientGone { stream: request });
    let sent = world.tunnel(&runner);
    assert_eq!(sent, [(MessageId { stream: world.wire(request), index: 1 }, ToClientTunnel::RequestAbort)]);
    world.reply(&runner, request, response());
    assert!(world.got(request).is_empty(), "late");
    world.tell(Input::ClientGone { stream: request });
    assert!(world.tunnel(&runner).is_empty());
    assert_eq!(world.core.health().streams, 0);
}

#[test]
fn only_the_runner_that_holds_a_stream_may_answer_on_it() {
    let mut world = World::new();
    let runner = world.connect("key");
    let life = world.running(&runner, CrashPolicy::Sleep);
    let other = world.connect("other");
    let request = world.open(&life.actor_id);
    world.reply(&other, request, response());
    let stream = StreamId { gateway: [9, 9, 9, 9], ..world.wire(request) };
    world.say(&runner, ToServer::Tunnel { id: MessageId { stream, index: 0 }, message: response() });
    assert!(world.got(request).is_empty());
    world.reply(&runner, request, response());
    assert_eq!(world.got(request).len(), 1);
}

#[test]
fn a_response_is_taken_once_and_may_come_in_pieces() {
    let mut world = World::new();
    let runner = world.connect("key");
    let life = world.running(&runner, CrashPolicy::Sleep);
    let request = world.open(&life.actor_id);
    let chunk = |finish| ToServerTunnel::ResponseChunk { body: "x".into(), finish };
    world.reply(&runner, request, chunk(true));
    world.reply(&runner, request, ToServerTunnel::WebSocketOpen { can_hibernate: false });
    assert!(world.got(request).is_empty(), "nothing counts before the head");
    let head = || ToServerTunnel::ResponseStart { status: 200, headers: Vec::new(), body: None, stream: true };
    world.reply(&runner, request, head());
    world.reply(&runner, request, head());
    world.reply(&runner, request, chunk(false));
    world.reply(&runner, request, chunk(true));
    world.reply(&runner, request, chunk(true));
    let got = world.got(request);
    assert!(matches!(
        got[..],
        [
            TunnelEvent::Response { more: true, .. },
            TunnelEvent::Chunk { finish: false, .. },
            TunnelEvent::Chunk { finish: true, .. }
        ]
    ));
    let request = world.open(&life.actor_id);
    world.reply(&runner, request, head());
    world.reply(&runner, request, ToServerTunnel::ResponseAbort);
    assert_eq!(world.got(request)[1..], [TunnelEvent::Failed(GatewayError::RequestAborted)]);
}

#[test]
fn a_socket_is_open_when_its_actor_says_so() {
    let mut world = World::new();
    let runner = world.connect("key");
    let life = world.running(&runner, CrashPolicy::Sleep);
    let stream = world.open_with(&life.actor_id, socket());
    let message = || ToServerTunnel::WebSocketMessage { data: "m".into(), binary: false };
    world.reply(&runner, stream, message());
    assert!(world.got(stream).is_empty(), "not open yet");
    world.reply(&runner, stream, ToServerTunnel::WebSocketOpen { can_hibernate: true });
    world.reply(&runner, stream, message());
    world.reply(&runner, stream, ToServerTunnel::WebSocketMessageAck { index: 0 });
    let close = ToServerTunnel::WebSocketClose { code: Some(4001), reason: Some("r".into()), hibernate: false };
    world.reply(&runner, stream, close.clone());
    world.reply(&runner, stream, close);
    assert_eq!(
        world.got(stream),
        [
            TunnelEvent::Open { can_hibernate: true },
            TunnelEvent::Message { data: "m".into(), binary: false },
            TunnelEvent::Close { code: Some(4001), reason: Some("r".into()) },
        ]
    );
    world.up(stream, text("late"));
    assert_eq!(world.tunnel(&runner).len(), 1, "only the open");
}

#[test]
fn message_indexes_wrap() {
    let mut world = World::new();
    let runner = world.connect("key");
    let life = world.running(&runner, CrashPolicy::Sleep);
    let stream = world.open_with(&life.actor_id, socket());
    for _ in 0..65_536 {
        world.up(stream, text("m"));
    }
    let indexes: Vec<_> = world.tunnel(&runner).into_iter().map(|(id, _)| id.index).collect();
    assert_eq!(indexes.len(), 65_537);
    assert_eq!((indexes[0], indexes[65_535], indexes[65_536]), (0, 65_535, 0));
}

#[test]
fn streams_end_with_the_life_they_were_opened_to() {
    let mut world = World::new();
    let runner = world.connect("key");
    let life = world.running(&runner, CrashPolicy::Sleep);
    let request = world.open(&life.actor_id);
    let stream = world.open_with(&life.actor_id, socket());
    world.events(&runner, &life, 1, [Event::SleepIntent]);
    assert!(world.delivered.is_empty(), "what is open may finish");
    world.events(&runner, &life, 2, [OK]);
    for stream in [request, stream] {
        assert_eq!(world.got(stream), [TunnelEvent::Failed(GatewayError::ActorStopped)]);
    }
    let request = world.open(&life.actor_id);
    world.reply(&runner, request, response());
    assert!(world.got(request).is_empty(), "an answer before the actor serves");
    assert_eq!(world.core.health().streams, 0);
}

#[test]
fn a_runner_that_is_away_for_a_moment_misses_nothing() {
    let mut world = World::new();
    let runner = world.connect("key");
    let life = world.running(&runner, CrashPolicy::Sleep);
    let stream = world.open_with(&life.actor_id, socket());
    let closing = world.open_with(&life.actor_id, socket());
    let aborted = world.open(&life.actor_id);
    world.up(stream, text("before"));
    world.disconnect(&runner);
    world.up(stream, text("while 1"));
    world.up(stream, text("while 2"));
    world.up(closing, text("last"));
    world.up(closing, StreamUp::Close { code: Some(1000), reason: None });
    world.tell(Input::ClientGone { stream: aborted });
    let request = world.open(&life.actor_id);
    assert!(!world.opened.contains(&request), "it waits");
    assert!(world.delivered.is_empty());

    let runner = world.connect("key");
    assert!(world.opened.contains(&request));
    let sent = world.tunnel(&runner);
    let of = |world: &World, stream| {
        let wire = world.wire(stream);
        sent.iter()
            .filter(|(id, _)| id.stream == wire)
            .map(|(id, message)| (id.index, message.clone()))
            .collect::<Vec<_>>()
    };
    let message = |text: &'static str| ToClientTunnel::WebSocketMessage { data: text.into(), binary: false };
    assert_eq!(of(&world, stream), [(2, message("while 1")), (3, message("while 2"))]);
    let close = ToClientTunnel::WebSocketClose { code: Some(1000), reason: None };
    assert_eq!(of(&world, closing), [(1, message("last")), (2, close)]);
    assert_eq!(of(&world, aborted), [(1, ToClientTunnel::RequestAbort)]);
    assert_eq!(of(&world, request).len(), 1);
    assert_eq!(world.core.health().streams, 2);
    world.up(stream, text("after"));
    assert_eq!(world.tunnel(&runner)[0].0.index, 4);
}

#[test]
fn a_runner_that_is_away_costs_limited_memory() {
    let mut world = World::with(|settings| settings.limits.backlog_bytes = 10);
    let runner = world.connect("key");
    let life = world.running(&runner, CrashPolicy::Sleep);
    let stream = world.open_with(&life.actor_id, socket());
    world.disconnect(&runner);
    world.up(stream, text("123456"));
    world.up(stream, text("123456"));
    assert_eq!(world.got(stream), [TunnelEvent::Failed(GatewayError::TunnelClosed)]);
    let runner = world.connect("key");
    let sent = world.tunnel(&runner);
    assert!(matches!(sent[..], [(_, ToClientTunnel::WebSocketClose { code: Some(1011), .. })]), "{sent:?}");
    assert_eq!(world.core.health().streams, 0);
}

#[test]
fn requests_to_a_runner_that_is_lost_go_to_the_next_life() {
    let mut world = World::new();
    let runner = world.connect("key");
    let life = world.running(&runner, CrashPolicy::Restart);
    let reached = world.open(&life.actor_id);
    world.disconnect(&runner);
    let waiting = world.open(&life.actor_id);
    let other = world.connect("other");
    world.live(&[&other], 15 * SECOND);
    assert_eq!(world.got(reached), [TunnelEvent::Failed(GatewayError::ActorStopped)]);
    let life = world.started(&other);
    world.events(&other, &life, 0, [Event::Running]);
    assert!(world.opened.contains(&waiting));
    assert_eq!(world.tunnel(&other)[0].0.stream, world.wire(waiting));
}

#[test]
fn a_runner_gets_only_what_it_understands() {
    let mut world = World::new();
    let headers: Headers = vec![
        ("accept".into(), "a".into()),
        ("accept".into(), "b".into()),
        ("cookie".into(), "c=1".into()),
        ("cookie".into(), "d=2".into()),
    ];
    let head = |more| StreamHead::Request {
        method: "POST".into(),
        path: "/".into(),
        headers: headers.clone(),
        body: Some("b".into()),
        more,
    };
    let plain = world.connect("plain");
    let life = world.running(&plain, CrashPolicy::Sleep);
    let streamed = world.open_with(&life.actor_id, head(true));
    assert_eq!(world.refused[&streamed], GatewayError::WholeBodyNeeded);
    world.open_with(&life.actor_id, head(false));
    let [(_, ToClientTunnel::RequestStart { headers: joined, .. })] = &world.tunnel(&plain)[..] else {
        panic!("no request")
    };
    assert_eq!(*joined, [("accept".into(), "a, b".into()), ("cookie".into(), "c=1; d=2".into())]);

    let features = Features::ALL;
    world.say(&plain, ToServer::Stopping);
    let able = world.connect_as("able", init(10), features, Version::V7);
    let life = world.running(&able, CrashPolicy::Sleep);
    let streamed = world.open_with(&life.actor_id, head(true));
    let chunk = |finish| StreamUp::Chunk { body: "c".into(), finish };
    world.up(streamed, chunk(true));
    world.up(streamed, chunk(true));
    world.up(streamed, text("not for a request"));
    let sent = world.tunnel(&able);
    assert!(matches!(
        &sent[..],
        [
            (_, ToClientTunnel::RequestStart { stream: true, .. }),
            (_, ToClientTunnel::RequestChunk { finish: true, .. })
        ]
    ));
}

#[test]
fn what_is_too_large_ends_its_stream_and_nothing_else() {
    let mut world = World::new();
    let runner = world.connect("key");
    let life = world.running(&runner, CrashPolicy::Sleep);
    let request = world.open(&life.actor_id);
    let stream = world.open_with(&life.actor_id, socket());
    world.reply(&runner, stream, ToServerTunnel::WebSocketOpen { can_hibernate: false });
    world.tunnel(&runner);
    let large = Bytes::from(vec![0; 20 * 1024 * 1024 + 1]);
    let head =
        ToServerTunnel::ResponseStart { status: 200, headers: Vec::new(), body: Some(large.clone()), stream: false };
    world.reply(&runner, request, head);
    assert!(matches!(world.got(request)[..], [TunnelEvent::Failed(GatewayError::InvalidResponse(_))]));
    world.reply(&runner, stream, ToServerTunnel::WebSocketMessage { data: large, binary: true });
    assert!(matches!(world.got(stream)[..], [TunnelEvent::Open { .. }, TunnelEvent::Close { code: Some(1009), .. }]));
    let told = world.tunnel(&runner);
    assert!(matches!(
        told[..],
        [(_, ToClientTunnel::RequestAbort), (_, ToClientTunnel::WebSocketClose { code: Some(1009), .. })]
    ));
    assert!(world.closed.is_empty());
}

#[test]
fn nothing_reaches_a_runner_before_it_knows_who_it_is() {
    let mut world = World::new();
    let runner = world.connect("key");
    let life: Checkpoint = world.running(&runner, CrashPolicy::Sleep);
    world.disconnect(&runner);
    world.open_with(&life.actor_id, get());
    world.slow_disk = true;
    let connection = greenroom::gateway::core::ConnectionId(999);
    let hello = greenroom::gateway::core::Hello {
        namespace: "default".into(),
        key: "key".into(),
        version: Version::V7,
        features: Features::default(),
    };
    world.tell(Input::Connected { connection, hello });
    world.tell(Input::Received { connection, message: ToServer::Init(init(10)) });
    world.open_with(&life.actor_id, get());
    assert!(world.take_sent(connection).is_empty());
    world.disk_done();
    let sent = world.take_sent(connection);
    use greenroom::protocol::ToClient::{Commands, Init, Tunnel};
    assert!(matches!(sent[..], [Init { .. }, Commands(_), Tunnel { .. }, Tunnel { .. }]), "{sent:?}");
}

#[test]
fn a_client_that_skips_the_wait_reaches_an_actor_that_starts_or_stops() {
    let mut world = World::new();
    let runner = world.connect("key");
    let id = world.create(CrashPolicy::Sleep);
    let life = world.started(&runner);
    let eager = |name: &'static str, value: &'static str| StreamHead::WebSocket {
        path: "/".into(),
        headers: vec![(name.into(), value.into())],
    };
    let early = world.open_with(&id, eager("x-rivet-skip-ready-wait", "true"));
    assert_eq!(world.opened, [early]);
    world.open_with(&id, eager("x-rivet-skip-ready-wait", "false"));
    assert_eq!(world.opened, [early]);
    world.events(&runner, &life, 0, [Event::Running, Event::SleepIntent]);
    let late = world.open_with(&id, eager("sec-websocket-protocol", "rivet, rivet_skip_ready_wait"));
    assert_eq!(world.opened.last(), Some(&late));
    world.events(&runner, &life, 2, [OK]);
    // Asleep, it is woken and waited for as by anybody.
    assert_eq!(world.got(late), [TunnelEvent::Failed(GatewayError::ActorStopped)]);
}
