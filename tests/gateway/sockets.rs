//! The gateway over real sockets: how connections begin and end, and that everything reaches its place.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use greenroom::gateway::core::Thresholds;
use greenroom::gateway::listener::ListenerSettings;
use greenroom::gateway::{
    CreateActor, GatewayError, GatewayFailure, GatewayOptions, OpenStream, RunningGateway, StreamEvents, StreamHead,
    StreamLink, StreamUp, TunnelEvent, stream_events,
};
use greenroom::protocol::{
    Checkpoint, Command, Event, KvRequest, KvResponse, ToClient, ToClientTunnel, ToServer, ToServerTunnel, Version,
};
use greenroom::store::{Change, CrashPolicy, Found, MemoryStore, Query, Store, StoreError};
use secrecy::SecretString;
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::Message;

use crate::raw_runner::{Closed, PATIENCE, RawRunner, gateway, init, options, response};

#[tokio::test]
async fn every_version_can_run_an_actor_and_serve_a_request() {
    let gateway = gateway().await;
    for version in Version::ALL {
        let pool = format!("pool-{version}");
        let (mut runner, _) = RawRunner::connect(&gateway, &pool, "key", version).await;
        let actor = gateway.handle().create_actor(create(&pool)).await.expect("created");

        let commands = runner.commands().await;
        assert_eq!(commands.len(), 1);
        let life = commands[0].checkpoint.clone();
        assert_eq!((&*life.actor_id, life.generation, life.index), (&*actor.id, 0, 0));
        let Command::Start { config, hibernating } = &commands[0].command else { panic!("no start") };
        assert_eq!((&*config.name, hibernating.len()), ("counter", 0));
        runner.event(&life, 0, Event::Running).await;

        let (opening, mut answers) = open(&gateway, &actor.id, get("/path?q=1"));
        let (id, message) = runner.tunnel().await;
        let ToClientTunnel::RequestStart { actor_id, method, path, body, stream, .. } = message else {
            panic!("no request")
        };
        assert_eq!((&*actor_id, &*method, &*path, body, stream), (&*actor.id, "GET", "/path?q=1", None, false));
        let link = opened(opening).await;
        runner.answer(id, response(201, "hello")).await;
        let Some(TunnelEvent::Response { status, body, more, .. }) = answers.recv().await else { panic!("no answer") };
        assert_eq!((status, body.as_deref(), more), (201, Some(&b"hello"[..]), false));
        assert_eq!(answers.recv().await, None);
        drop(link);

        runner.kv(&life, u32::MAX, KvRequest::Put { keys: vec!["k".into()], values: vec!["v".into()] }).await;
        assert_eq!(runner.kv_answer().await, (u32::MAX, KvResponse::Put));
        runner.kv(&life, 0, KvRequest::Get { keys: vec!["k".into()] }).await;
        let (0, KvResponse::Get { values, .. }) = runner.kv_answer().await else { panic!("no value") };
        assert_eq!(values, ["v"]);

        runner.event(&life, 1, Event::SleepIntent).await;
        let stop = runner.commands().await;
        assert_eq!((stop[0].checkpoint.index, &stop[0].command), (1, &Command::Stop));
        runner.event(&life, 2, Event::StoppedOk { message: None }).await;
        let acknowledged = runner.expect(|message| match message {
            ToClient::AckEvents(checkpoints) => Some(checkpoints[0].index),
            _ => None,
        });
        assert_eq!(acknowledged.await, 2);
    }
    gateway.stop().await.expect("stops");
}

#[tokio::test]
async fn a_socket_speaks_both_ways_and_its_end_is_told() {
    let gateway = gateway().await;
    let (mut runner, _) = RawRunner::connect(&gateway, "pool", "key", Version::V7).await;
    let (actor_id, _) = running_actor(&gateway, &mut runner, "pool").await;
    let head = StreamHead::WebSocket { path: "/ws".into(), headers: vec![("a".into(), "1".into())] };

    let (opening, mut answers) = open(&gateway, &actor_id, head.clone());
    let (id, ToClientTunnel::WebSocketOpen { path, headers, .. }) = runner.tunnel().await else { panic!("no open") };
    assert_eq!((&*path, id.index, headers), ("/ws", 0, vec![("a".into(), "1".into())]));
    let link = opened(opening).await;
    runner.answer(id, ToServerTunnel::WebSocketOpen { can_hibernate: false }).await;
    assert_eq!(answers.recv().await, Some(TunnelEvent::Open { can_hibernate: false }));
    let text = || Bytes::from_static("text".as_bytes());
    link.send(StreamUp::Message { data: text(), binary: false }).await.expect("sent");
    let (second, ToClientTunnel::WebSocketMessage { data, binary: false }) = runner.tunnel().await else {
        panic!("no message")
    };
    assert_eq!((second.stream, second.index, data), (id.stream, 1, text()));
    runner.answer(id, ToServerTunnel::WebSocketMessage { data: text(), binary: true }).await;
    assert_eq!(answers.recv().await, Some(TunnelEvent::Message { data: text(), binary: true }));
    link.send(StreamUp::Close { code: Some(4000), reason: Some("bye".into()) }).await.expect("sent");
    let (third, message) = runner.tunnel().await;
    assert_eq!(third.index, 2);
    assert_eq!(message, ToClientTunnel::WebSocketClose { code: Some(4000), reason: Some("bye".into()) });
    drop(link);

    // A client that goes without a word.
    let (opening, _answers) = open(&gateway, &actor_id, head);
    let (id, _) = runner.tunnel().await;
    drop(opened(opening).await);
    let (gone, message) = runner.tunnel().await;
    assert_eq!((gone.stream, gone.index), (id.stream, 1));
    assert_eq!(
        message,
        ToClientTunnel::WebSocketClose { code: Some(1011), reason: Some("ws.downstream_closed".into()) }
    );
}

#[tokio::test]
async fn what_two_greenrooms_understand_is_granted_and_used() {
    let gateway = gateway().await;
    let query = "protocol_version=7&namespace=default&runner_key=k";
    let offer = [("x-greenroom-features", "stream, repeated-headers, credit, something-new")];
    let (mut runner, headers) = RawRunner::dial(&gateway, query, "rivet", &offer).await;
    let header = |name: &str| headers.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str());
    assert_eq!(header("x-greenroom-features"), Some("stream, repeated-headers, credit"));
    assert_eq!(header("sec-websocket-protocol"), Some("rivet"));
    runner.send(ToServer::Init(init("pool"))).await;
    let ToClient::Init { .. } = runner.next().await else { panic!("no init") };
    let (actor_id, _) = running_actor(&gateway, &mut runner, "pool").await;

    let head = StreamHead::Request {
        method: "POST".into(),
        path: "/".into(),
        headers: vec![("x".into(), "1".into()), ("x".into(), "2".into())],
        body: Some("first".into()),
        more: true,
    };
    let (opening, mut answers) = open(&gateway, &actor_id, head);
    let (id, ToClientTunnel::RequestStart { headers, stream: true, .. }) = runner.tunnel().await else {
        panic!("no streamed request")
    };
    assert_eq!(headers, vec![("x".into(), "1\n2".into())]);
    let link = opened(opening).await;
    link.send(StreamUp::Chunk { body: "last".into(), finish: true }).await.expect("sent");
    let (_, message) = runner.tunnel().await;
    assert_eq!(message, ToClientTunnel::RequestChunk { body: "last".into(), finish: true });

    let headers = vec![("set-cookie".into(), "a=1\nb=2".into())];
    runner.answer(id, ToServerTunnel::ResponseStart { status: 200, headers, body: None, stream: true }).await;
    let Some(TunnelEvent::Response { headers, more: true, .. }) = answers.recv().await else { panic!("no answer") };
    assert_eq!(headers, vec![("set-cookie".into(), "a=1".into()), ("set-cookie".into(), "b=2".into())]);
    runner.answer(id, ToServerTunnel::ResponseChunk { body: "end".into(), finish: true }).await;
    assert_eq!(answers.recv().await, Some(TunnelEvent::Chunk { body: "end".into(), finish: true }));
}

#[tokio::test]
async fn a_url_that_is_wrong_is_refused_by_name() {
    let gateway = gateway().await;
    for (query, reason) in [
        ("", "ws.invalid_url"),
        ("namespace=default&runner_key=k", "ws.invalid_url"),
        ("protocol_version=7&namespace=default", "ws.invalid_url"),
        ("protocol_version=seven&namespace=default&runner_key=k", "ws.invalid_url"),
        ("protocol_version=3&namespace=default&runner_key=k", "ws.unsupported_protocol_version"),
        ("protocol_version=8&namespace=default&runner_key=k", "ws.unsupported_protocol_version"),
        ("protocol_version=7&namespace=nowhere&runner_key=k", "namespace.not_found"),
    ] {
        let (mut runner, _) = RawRunner::dial(&gateway, query, "rivet", &[]).await;
        assert_eq!(runner.closed().await, closed(1011, reason), "{query}");
    }
}

#[tokio::test]
async fn a_first_message_that_is_no_introduction_ends_the_connection() {
    let gateway = gateway().await;
    let query = "protocol_version=7&namespace=default&runner_key=";
    let cases = [
        (Message::Binary(Bytes::from_static(&[255, 1, 2])), "ws.invalid_packet"),
        (Message::Binary(Bytes::new()), "ws.invalid_packet"),
        (Message::Text("hello".into()), "ws.invalid_initial_packet"),
        // ToServerStopping
        (Message::Binary(Bytes::from_static(&[3])), "ws.invalid_initial_packet"),
    ];
    for (frame, reason) in cases {
        let (mut runner, _) = RawRunner::dial(&gateway, query, "rivet", &[]).await;
        runner.send_frame(frame).await;
        assert_eq!(runner.closed().await, closed(1011, reason));
    }
    let (mut runner, _) = RawRunner::dial(&gateway, query, "rivet", &[]).await;
    let mut nothing = init("pool");
    nothing.total_slots = 0;
    runner.send(ToServer::Init(nothing)).await;
    assert_eq!(runner.closed().await, closed(1011, "ws.invalid_total_slots"));
}

#[tokio::test]
async fn who_says_nothing_or_answers_no_ping_is_let_go() {
    let quick = Thresholds {
        init: Duration::from_millis(100),
        ping_interval: Duration::from_millis(50),
        ping_timeout: Duration::from_millis(300),
        ..Thresholds::default()
    };
    let gateway = start(GatewayOptions { thresholds: quick, ..options() }).await;
    let query = "protocol_version=7&namespace=default&runner_key=k";
    let (mut silent, _) = RawRunner::dial(&gateway, query, "rivet", &[]).await;
    assert_eq!(silent.closed().await, closed(1011, "ws.timed_out_waiting_for_init"));

    let (mut deaf, runner_id) = RawRunner::connect(&gateway, "pool", "k", Version::V7).await;
    // Reads the pings and answers none.
    assert_eq!(deaf.closed().await, closed(1011, "core.internal_error"));
    let (_, again) = RawRunner::connect(&gateway, "pool", "k", Version::V7).await;
    assert_eq!(again, runner_id, "within the threshold it is the same runner");
}

#[tokio::test]
async fn later_nonsense_is_dropped_and_the_connection_stays() {
    let gateway = gateway().await;
    let (mut runner, _) = RawRunner::connect(&gateway, "pool", "k", Version::V7).await;
    for frame in [
        Message::Binary(Bytes::from_static(&[200])),
        Message::Binary(Bytes::from_static(&[5, 1, 2, 3])),
        Message::Text("what".into()),
        Message::Ping(Bytes::new()),
    ] {
        runner.send_frame(frame).await;
    }
    // A second introduction, an event and a storage request of nobody, an answer to nothing.
    runner.send(ToServer::Init(init("other"))).await;
    let nobody = Checkpoint { actor_id: "nobody".into(), generation: 0, index: i64::MAX };
    runner.event(&nobody, i64::MAX, Event::StopIntent).await;
    runner.kv(&nobody, 1, KvRequest::Drop).await;
    let (1, KvResponse::Error { message }) = runner.kv_answer().await else { panic!("no refusal") };
    assert!(message.starts_with("unsupported ID version"), "{message}");
    running_actor(&gateway, &mut runner, "pool").await;
}

#[tokio::test]
async fn a_frame_beyond_the_limit_ends_one_connection_only() {
    let gateway = gateway().await;
    let (mut other, _) = RawRunner::connect(&gateway, "pool", "other", Version::V7).await;
    let (mut runner, _) = RawRunner::connect(&gateway, "pool", "k", Version::V7).await;
    let sent = runner.send_frame_or_break(Message::Binary(vec![0; 41 * 1024 * 1024].into())).await;
    // The gateway stops reading in the middle: the sender may see that before the close.
    if sent {
        assert_eq!(runner.closed().await, closed(1009, "ws.message_too_large"));
    }
    other.send(ToServer::Pong { ts: 0 }).await;
    let live = || async { gateway.handle().live_runners().await.expect("answers").len() };
    until(async || live().await == 1).await;
}

#[tokio::test]
async fn a_token_is_asked_for_when_there_is_one() {
    let gateway = start(GatewayOptions { admin_token: Some(SecretString::from("secret")), ..options() }).await;
    let query = "protocol_version=7&namespace=default&runner_key=k";
    for (protocols, reason) in [("rivet", "guard.missing_header"), ("rivet, rivet_token.secre", "api.forbidden")] {
        let (mut runner, _) = RawRunner::dial(&gateway, query, protocols, &[]).await;
        assert_eq!(runner.closed().await, closed(1011, reason));
    }
    let (mut runner, _) = RawRunner::dial(&gateway, query, "rivet, rivet_token.secret", &[]).await;
    runner.send(ToServer::Init(init("pool"))).await;
    assert!(matches!(runner.next().await, ToClient::Init { .. }));
}

#[tokio::test]
async fn a_second_connection_under_the_same_key_evicts_the_first() {
    let gateway = gateway().await;
    let (mut first, runner_id) = RawRunner::connect(&gateway, "pool", "k", Version::V7).await;
    let (_elsewhere, other_id) = RawRunner::connect(&gateway, "other", "k", Version::V7).await;
    assert_ne!(runner_id, other_id, "another pool is another runner");
    let (_second, again) = RawRunner::connect(&gateway, "pool", "k", Version::V7).await;
    assert_eq!(again, runner_id);
    assert_eq!(first.closed().await, closed(1000, "ws.eviction"));
}

#[tokio::test]
async fn a_gateway_that_stops_sends_its_runners_away_for_now() {
    let gateway = gateway().await;
    let (mut runner, _) = RawRunner::connect(&gateway, "pool", "k", Version::V7).await;
    let (actor_id, _) = running_actor(&gateway, &mut runner, "pool").await;
    let (opening, mut answers) = open(&gateway, &actor_id, get("/"));
    let link = opened(opening).await;
    let stopping = tokio::spawn(gateway.stop());
    assert_eq!(runner.closed().await, closed(1011, "ws.going_away"));
    assert!(matches!(answers.recv().await, Some(TunnelEvent::Failed(_))));
    drop(link);
    drop(runner);
    stopping.await.expect("no panic").expect("stops");
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_a_restart() {
    let dir = tempfile::tempdir().expect("directory");
    let quick = Thresholds { destroy_grace: Duration::from_millis(50), ..Thresholds::default() };
    let options = GatewayOptions { data_dir: dir.path().to_owned(), thresholds: quick, ..options() };
    let gateway = RunningGateway::start(options.clone()).await.expect("starts");
    let (mut runner, runner_id) = RawRunner::connect(&gateway, "pool", "k", Version::V7).await;
    let (actor_id, life) = running_actor(&gateway, &mut runner, "pool").await;
    runner.kv(&life, 7, KvRequest::Put { keys: vec!["k".into()], values: vec!["v".into()] }).await;
    assert_eq!(runner.kv_answer().await, (7, KvResponse::Put));
    drop(runner);
    gateway.stop().await.expect("stops");

    let gateway = RunningGateway::start(options).await.expect("starts");
    assert_eq!(gateway.handle().namespace("default").expect("default").display_name, "Default");
    let (mut runner, again) = RawRunner::connect(&gateway, "pool", "k", Version::V7).await;
    assert_eq!(again, runner_id);
    // The start was never acknowledged.
    let commands = runner.commands().await;
    assert_eq!(commands[0].checkpoint, Checkpoint { index: 0, ..life.clone() });
    let (opening, mut answers) = open(&gateway, &actor_id, get("/"));
    let (id, _) = runner.tunnel().await;
    let _link = opened(opening).await;
    runner.answer(id, response(200, "")).await;
    assert!(answers.recv().await.is_some());
    runner.kv(&life, 8, KvRequest::Get { keys: vec!["k".into()] }).await;
    let (8, KvResponse::Get { values, .. }) = runner.kv_answer().await else { panic!("no value") };
    assert_eq!(values, ["v"]);

    gateway.handle().destroy_actor("default", &actor_id).await.expect("destroyed");
    let Found::Actor(Some(record)) = gateway.handle().read(Query::Actor(actor_id.into())).await.expect("read") else {
        panic!("no record")
    };
    assert!(record.destroy_ts.is_some());
}

#[tokio::test]
async fn a_caller_that_stops_waiting_gives_its_stream_up() {
    let gateway = gateway().await;
    let (mut runner, _) = RawRunner::connect(&gateway, "pool", "k", Version::V7).await;
    let actor = gateway.handle().create_actor(create("pool")).await.expect("created");
    let life = runner.commands().await[0].checkpoint.clone();
    let waiting = async || gateway.handle().health().await.expect("answers").waiting_streams;
    let (given_up, _answers) = open(&gateway, &actor.id, get("/given-up"));
    until(async || waiting().await == 1).await;
    given_up.abort();
    until(async || waiting().await == 0).await;
    let (kept, _answers) = open(&gateway, &actor.id, get("/kept"));
    until(async || waiting().await == 1).await;
    runner.event(&life, 0, Event::Running).await;
    opened(kept).await;
    let (_, ToClientTunnel::RequestStart { path, .. }) = runner.tunnel().await else { panic!("no request") };
    assert_eq!(path, "/kept");
}

#[tokio::test]
async fn a_runner_that_does_not_read_loses_its_connection() {
    let listener = ListenerSettings { write_timeout: Duration::from_millis(200), ..ListenerSettings::default() };
    let gateway = start(GatewayOptions { listener, ..options() }).await;
    let (mut runner, _) = RawRunner::connect(&gateway, "pool", "k", Version::V7).await;
    let (actor_id, _) = running_actor(&gateway, &mut runner, "pool").await;
    let head = StreamHead::WebSocket { path: "/".into(), headers: Vec::new() };
    let (opening, _answers) = open(&gateway, &actor_id, head);
    let link = opened(opening).await;
    // More than the sockets in between hold.
    for _ in 0..20 {
        let data = Bytes::from(vec![0; 1024 * 1024]);
        link.send(StreamUp::Message { data, binary: true }).await.expect("sent");
    }
    until(async || gateway.handle().health().await.expect("answers").connected_runners == 0).await;
}

#[tokio::test]
async fn nothing_is_promised_when_the_disk_fails() {
    let broken = Arc::new(AtomicBool::new(false));
    let disk = Disk { store: MemoryStore::new(), broken: broken.clone() };
    let mut gateway = RunningGateway::start_with(disk, options()).await.expect("starts");
    let (mut runner, _) = RawRunner::connect(&gateway, "pool", "k", Version::V7).await;
    broken.store(true, Ordering::Relaxed);
    let created = gateway.handle().create_actor(create("pool")).await;
    assert!(matches!(created, Err(GatewayError::Unavailable(_))), "{created:?}");
    assert!(matches!(gateway.failed().await, GatewayFailure::Store(_)));
    assert!(runner.is_gone().await, "and the runner was told nothing");
    drop(runner);
    assert!(gateway.stop().await.is_err());
}

#[tokio::test]
async fn plain_http_on_the_runners_path_gets_a_notice() {
    let gateway = gateway().await;
    let answer = plain_get(&gateway, "/runners/connect/").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    assert!(answer.contains("text/plain") && answer.contains("Runners connect here"), "{answer}");
    let health = plain_get(&gateway, "/health").await;
    assert!(health.starts_with("HTTP/1.1 200 OK"), "{health}");
}

/// A store whose disk breaks when told to.
struct Disk {
    store: MemoryStore,
    broken: Arc<AtomicBool>,
}

impl Store for Disk {
    fn begin(&mut self) -> Result<(), StoreError> {
        self.store.begin()
    }

    fn commit(&mut self) -> Result<(), StoreError> {
        if self.broken.load(Ordering::Relaxed) {
            self.store.rollback();
            return Err(StoreError("the disk is full".to_owned()));
        }
        self.store.commit()
    }

    fn rollback(&mut self) {
        self.store.rollback();
    }

    fn apply(&mut self, change: &Change) -> Result<(), StoreError> {
        self.store.apply(change)
    }

    fn kv(&mut self, actor_id: &str, request: &KvRequest, now_ms: i64) -> Result<KvResponse, StoreError> {
        self.store.kv(actor_id, request, now_ms)
    }

    fn read(&mut self, query: &Query) -> Result<Found, StoreError> {
        self.store.read(query)
    }
}

async fn start(options: GatewayOptions) -> RunningGateway {
    RunningGateway::start_with(MemoryStore::new(), options).await.expect("starts")
}

/// An actor that serves, on the runner.
async fn running_actor(gateway: &RunningGateway, runner: &mut RawRunner, pool: &str) -> (String, Checkpoint) {
    let actor = gateway.handle().create_actor(create(pool)).await.expect("created");
    let commands = runner.commands().await;
    let life = commands[0].checkpoint.clone();
    assert_eq!(*life.actor_id, *actor.id);
    runner.event(&life, 0, Event::Running).await;
    (actor.id.to_string(), life)
}

fn create(pool: &str) -> CreateActor {
    CreateActor {
        namespace: "default".into(),
        name: "counter".into(),
        key: None,
        pool: pool.into(),
        crash_policy: CrashPolicy::Sleep,
        input: None,
    }
}

fn get(path: &str) -> StreamHead {
    StreamHead::Request { method: "GET".into(), path: path.into(), headers: Vec::new(), body: None, more: false }
}

type Opening = JoinHandle<Result<StreamLink, greenroom::gateway::GatewayError>>;

fn open(gateway: &RunningGateway, actor_id: &str, head: StreamHead) -> (Opening, StreamEvents) {
    let (events, answers) = stream_events(1_000_000);
    let open = OpenStream { actor_id: actor_id.into(), head, events };
    let handle = gateway.handle().clone();
    (tokio::spawn(async move { handle.open_stream(open).await }), answers)
}

async fn opened(opening: Opening) -> StreamLink {
    tokio::time::timeout(PATIENCE, opening).await.expect("in time").expect("no panic").expect("opened")
}

fn closed(code: u16, reason: &str) -> Closed {
    Closed { code, reason: reason.to_owned() }
}

async fn until(condition: impl AsyncFn() -> bool) {
    let waiting = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.expect("in time");
}

async fn plain_get(gateway: &RunningGateway, path: &str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut socket = tokio::net::TcpStream::connect(gateway.local_addr()).await.expect("connects");
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.expect("read");
    answer
}
