//! Clients of actors and of the API, through a real listener, to a runner that speaks raw protocol.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use greenroom::gateway::RunningGateway;
use greenroom::gateway::core::Thresholds;
use greenroom::protocol::{Checkpoint, Command, Event, KvRequest, MessageId, ToClientTunnel, ToServerTunnel, Version};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use crate::raw_runner::{PATIENCE, RawRunner, gateway, options, response};

#[tokio::test]
async fn an_actor_lives_as_the_api_tells() {
    let gateway = gateway().await;
    let (mut runner, runner_id) = RawRunner::connect(&gateway, "pool", "key", Version::V7).await;
    let (actor, life) = start_actor(&gateway, &mut runner, "one").await;
    runner.kv(&life, 1, KvRequest::Put { keys: vec!["count".into()], values: vec!["7".into()] }).await;
    runner.kv_answer().await;

    let listed = api(&gateway, "GET", &format!("/actors?namespace=default&actor_ids={actor}"), Value::Null).await;
    assert_eq!(listed["actors"][0]["name"], "counter");
    assert!(listed["actors"][0]["connectable_ts"].is_number(), "{listed}");
    let names = api(&gateway, "GET", "/actors/names?namespace=default", Value::Null).await;
    assert_eq!(names["names"]["counter"], json!({ "metadata": {} }));
    let value =
        api(&gateway, "GET", &format!("/actors/{actor}/kv/keys/Y291bnQ%3D?namespace=default"), Value::Null).await;
    assert_eq!(value["value"], "Nw==");
    let runners = api(&gateway, "GET", "/runners?namespace=default", Value::Null).await;
    assert_eq!(runners["runners"][0]["runner_id"], runner_id);
    assert_eq!(runners["runners"][0]["remaining_slots"], 9);
    assert_eq!(runners["runners"][0]["metadata"], json!({ "a": 1 }));
    let configs = api(&gateway, "GET", "/runner-configs?namespace=default", Value::Null).await;
    assert!(configs["runner_configs"]["pool"]["datacenters"]["default"]["normal"].is_object(), "{configs}");
    let same = api(&gateway, "PUT", "/actors?namespace=default", create("one")).await;
    assert_eq!((&same["created"], &same["actor"]["actor_id"]), (&json!(false), &json!(actor)));
    let twice = api(&gateway, "POST", "/actors?namespace=default", create("one")).await;
    assert_eq!((&twice["code"], &twice["metadata"]["existing_actor_id"]), (&json!("duplicate_key"), &json!(actor)));
    assert_eq!(api(&gateway, "GET", "/health", Value::Null).await["status"], "ok");

    let path = format!("/actors/{actor}?namespace=default");
    let address = gateway.local_addr();
    let destroying = tokio::spawn(async move { http(address, Request::delete(path), "").await.status() });
    let stop = runner.commands().await;
    assert_eq!(stop[0].command, Command::Stop);
    runner.event(&life, 1, Event::StoppedOk { message: None }).await;
    assert_eq!(destroying.await.expect("no panic"), 200);
    let gone = http(address, Request::get(format!("/gateway/{actor}/")), "").await;
    assert_eq!(gone.status(), 404);
    assert_eq!(gone.headers()["x-rivet-error"], "actor.not_found");
}

#[tokio::test]
async fn a_request_reaches_its_actor_and_comes_back() {
    let gateway = gateway().await;
    let (mut runner, _) = RawRunner::connect(&gateway, "pool", "key", Version::V7).await;
    let (actor, _) = start_actor(&gateway, &mut runner, "one").await;
    let request = Request::post(format!("/gateway/{actor}@token/a?b=c%20d")).header("cookie", "a=b");
    let client = tokio::spawn(http(gateway.local_addr(), request, "hello"));
    let (id, message) = runner.tunnel().await;
    let ToClientTunnel::RequestStart { actor_id, method, path, headers, body, stream } = message else {
        panic!("no request")
    };
    assert_eq!((&*actor_id, &*method, &*path), (actor.as_str(), "POST", "/a?b=c%20d"));
    assert_eq!((body.as_deref(), stream), (Some(&b"hello"[..]), false));
    assert!(headers.iter().any(|(name, value)| name == "cookie" && value == "a=b"), "{headers:?}");
    assert!(headers.iter().any(|(name, value)| name == "x-rivet-ray-id" && value.len() == 30), "{headers:?}");
    runner.answer(id, response(201, "world")).await;
    let response = client.await.expect("no panic");
    assert_eq!(response.status(), 201);
    assert_eq!(response.headers()["content-type"], "text/plain");
    assert_eq!(response.headers()["x-rivet-ray-id"].len(), 30);
    assert_eq!(body_of(response).await, "world");
}

#[tokio::test]
async fn a_response_in_pieces_arrives_in_pieces() {
    let gateway = gateway().await;
    let (mut runner, _) = RawRunner::connect(&gateway, "pool", "key", Version::V7).await;
    let (actor, _) = start_actor(&gateway, &mut runner, "one").await;
    let client = tokio::spawn(http(gateway.local_addr(), Request::get(format!("/gateway/{actor}/")), ""));
    let (id, _) = runner.tunnel().await;
    let start = ToServerTunnel::ResponseStart { status: 200, headers: Vec::new(), body: None, stream: true };
    runner.answer(id, start).await;
    let mut response = client.await.expect("no panic");
    for piece in ["one", "two"] {
        let body = Bytes::from(piece);
        runner.answer(id, ToServerTunnel::ResponseChunk { body, finish: false }).await;
        let frame = response.body_mut().frame().await.expect("a frame").expect("a piece");
        assert_eq!(frame.into_data().expect("data"), piece);
    }
    runner.answer(id, ToServerTunnel::ResponseAbort).await;
    response.into_body().collect().await.expect_err("broken off");
}

#[tokio::test]
async fn a_client_that_leaves_is_told_to_the_runner() {
    let gateway = gateway().await;
    let (mut runner, _) = RawRunner::connect(&gateway, "pool", "key", Version::V7).await;
    let (actor, _) = start_actor(&gateway, &mut runner, "one").await;
    let client = tokio::spawn(http(gateway.local_addr(), Request::get(format!("/gateway/{actor}/")), ""));
    let (id, _) = runner.tunnel().await;
    client.abort();
    let (abort, message) = runner.tunnel().await;
    assert_eq!((abort.stream, message), (id.stream, ToClientTunnel::RequestAbort));
}

#[tokio::test]
async fn a_request_is_tried_again_when_the_runner_gives_up() {
    let gateway = gateway().await;
    let (mut runner, _) = RawRunner::connect(&gateway, "pool", "key", Version::V7).await;
    let (actor, _) = start_actor(&gateway, &mut runner, "one").await;
    let client = tokio::spawn(http(gateway.local_addr(), Request::put(format!("/gateway/{actor}/")), "body"));
    let (first, _) = runner.tunnel().await;
    runner.answer(first, ToServerTunnel::ResponseAbort).await;
    let (second, message) = runner.tunnel().await;
    assert!(matches!(message, ToClientTunnel::RequestStart { body: Some(body), .. } if body == "body"));
    runner.answer(second, response(200, "at last")).await;
    assert_eq!(body_of(client.await.expect("no panic")).await, "at last");
}

#[tokio::test]
async fn a_sleeping_actor_is_woken_by_a_request() {
    let gateway = gateway().await;
    let (mut runner, _) = RawRunner::connect(&gateway, "pool", "key", Version::V7).await;
    let (actor, life) = start_actor(&gateway, &mut runner, "one").await;
    runner.event(&life, 1, Event::SleepIntent).await;
    runner.commands().await;
    runner.event(&life, 2, Event::StoppedOk { message: None }).await;
    let client = tokio::spawn(http(gateway.local_addr(), Request::get(format!("/gateway/{actor}/")), ""));
    let started = runner.commands().await;
    assert_eq!(started[0].checkpoint.generation, life.generation + 1);
    runner.event(&started[0].checkpoint, 0, Event::Running).await;
    let (id, _) = runner.tunnel().await;
    runner.answer(id, response(200, "awake")).await;
    assert_eq!(body_of(client.await.expect("no panic")).await, "awake");
}

#[tokio::test]
async fn an_actor_that_does_not_become_ready_is_told_with_its_reason() {
    let mut options = options();
    options.thresholds = Thresholds { actor_ready: Duration::from_millis(100), ..Thresholds::default() };
    let store = greenroom::store::MemoryStore::new();
    let gateway = RunningGateway::start_with(store, options).await.expect("starts");
    let settings = json!({ "datacenters": { "default": { "normal": {} } } });
    api(&gateway, "PUT", "/runner-configs/pool?namespace=default", settings).await;
    let created = api(&gateway, "POST", "/actors?namespace=default", create("one")).await;
    let actor = created["actor"]["actor_id"].as_str().expect("an id").to_owned();
    let response = http(gateway.local_addr(), Request::get(format!("/gateway/{actor}/")), "").await;
    assert_eq!(response.status(), 503);
    assert_eq!(response.headers()["x-rivet-error"], "guard.actor_ready_timeout");
    let body: Value = serde_json::from_str(&body_of(response).await).expect("JSON");
    assert_eq!(body["metadata"], json!({ "actor_id": actor }));
    assert!(body["message"].as_str().is_some_and(|message| message.contains("free slot")), "{body}");
}

#[tokio::test]
async fn frames_go_both_ways() {
    let gateway = gateway().await;
    let (mut runner, _) = RawRunner::connect(&gateway, "pool", "key", Version::V7).await;
    let (actor, _) = start_actor(&gateway, &mut runner, "one").await;
    let mut client = socket(&gateway, &format!("/gateway/{actor}/ws?x")).await;
    client.send(Message::text("early")).await.expect("sent");
    let id = open_socket(&mut runner, "/ws?x").await;
    assert_eq!(from_client(&mut runner).await, ("early".into(), false));
    client.send(Message::binary("late")).await.expect("sent");
    assert_eq!(from_client(&mut runner).await, ("late".into(), true));
    for number in 0..100 {
        let data = Bytes::from(number.to_string());
        runner.answer(id, ToServerTunnel::WebSocketMessage { data, binary: false }).await;
    }
    let close = ToServerTunnel::WebSocketClose { code: Some(4000), reason: Some("bye".into()), hibernate: false };
    runner.answer(id, close).await;
    for number in 0..100 {
        assert_eq!(receive(&mut client).await, Message::text(number.to_string()));
    }
    assert_eq!(closed(&mut client).await, (4000, "bye".to_owned()));
}

#[tokio::test]
async fn a_socket_ends_with_its_client_its_actor_and_its_gateway() {
    let gateway = gateway().await;
    let (mut runner, _) = RawRunner::connect(&gateway, "pool", "key", Version::V7).await;
    let (actor, life) = start_actor(&gateway, &mut runner, "one").await;
    let path = format!("/gateway/{actor}/");

    let client = socket(&gateway, &path).await;
    open_socket(&mut runner, "/").await;
    drop(client);
    let (_, message) = runner.tunnel().await;
    let reason = Some("ws.downstream_closed".into());
    assert_eq!(message, ToClientTunnel::WebSocketClose { code: Some(1011), reason });

    let mut client = socket(&gateway, &path).await;
    open_socket(&mut runner, "/").await;
    runner.event(&life, 1, Event::StoppedOk { message: None }).await;
    assert_eq!(closed(&mut client).await, (1000, "actor.stopped".to_owned()));

    let (actor, _) = start_actor(&gateway, &mut runner, "two").await;
    let mut client = socket(&gateway, &format!("/gateway/{actor}/")).await;
    let id = open_socket(&mut runner, "/").await;
    runner.answer(id, ToServerTunnel::WebSocketMessage { data: "open".into(), binary: false }).await;
    assert_eq!(receive(&mut client).await, Message::text("open"));
    drop(runner);
    let stopping = tokio::spawn(gateway.stop());
    assert_eq!(closed(&mut client).await, (1012, "ws.going_away".to_owned()));
    stopping.await.expect("no panic").expect("stopped");
}

#[tokio::test]
async fn whatever_is_wrong_with_a_socket_is_told_by_a_close_frame() {
    let gateway = gateway().await;
    for (path, reason) in [
        ("/gateway/53heuibpefzx3lj3skyt2h5xuwal00/", "actor.not_found"),
        ("/gateway/garbage/", "core.internal_error"),
        ("/health", "guard.websocket_not_supported"),
    ] {
        let mut client = socket(&gateway, path).await;
        assert_eq!(closed(&mut client).await, (1011, reason.to_owned()), "{path}");
    }
}

/// Creates an actor, and starts it on the runner.
async fn start_actor(gateway: &RunningGateway, runner: &mut RawRunner, key: &str) -> (String, Checkpoint) {
    let created = api(gateway, "POST", "/actors?namespace=default", create(key)).await;
    let actor = created["actor"]["actor_id"].as_str().unwrap_or_else(|| panic!("{created}")).to_owned();
    let life = runner
        .expect(|message| match message {
            greenroom::protocol::ToClient::Commands(commands) => {
                let start = commands.iter().find(|command| *command.checkpoint.actor_id == *actor)?;
                Some(start.checkpoint.clone())
            }
            _ => None,
        })
        .await;
    runner.event(&life, 0, Event::Running).await;
    (actor, life)
}

fn create(key: &str) -> Value {
    json!({ "name": "counter", "key": key, "runner_name_selector": "pool", "crash_policy": "sleep" })
}

async fn api(gateway: &RunningGateway, method: &str, path: &str, body: Value) -> Value {
    let mut request = Request::builder().method(method).uri(path);
    let mut text = String::new();
    if !body.is_null() {
        request = request.header("content-type", "application/json");
        text = body.to_string();
    }
    let response = http(gateway.local_addr(), request, &text).await;
    serde_json::from_str(&body_of(response).await).expect("JSON")
}

async fn http(address: SocketAddr, request: hyper::http::request::Builder, body: &str) -> Response<Incoming> {
    let body = Full::new(Bytes::from(body.to_owned()));
    let request = request.header("host", "test").body(body).expect("a request");
    let stream = TcpStream::connect(address).await.expect("a connection");
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("a handshake");
    let connection = tokio::spawn(connection);
    let answer = tokio::time::timeout(PATIENCE, sender.send_request(request)).await.expect("in time");
    // The connection is wanted until the body is read; it ends with the response.
    drop(connection);
    answer.expect("a response")
}

async fn body_of(response: Response<Incoming>) -> String {
    let body = response.into_body().collect().await.expect("a body").to_bytes();
    String::from_utf8(body.to_vec()).expect("text")
}

type Client = WebSocketStream<MaybeTlsStream<TcpStream>>;

async fn socket(gateway: &RunningGateway, path: &str) -> Client {
    let (client, _) = connect_async(format!("ws://{}{path}", gateway.local_addr())).await.expect("a socket");
    client
}

/// The runner takes the next socket.
async fn open_socket(runner: &mut RawRunner, expected: &str) -> MessageId {
    let (id, message) = runner.tunnel().await;
    let ToClientTunnel::WebSocketOpen { path, .. } = message else { panic!("no socket: {message:?}") };
    assert_eq!(path, expected);
    runner.answer(id, ToServerTunnel::WebSocketOpen { can_hibernate: false }).await;
    id
}

async fn from_client(runner: &mut RawRunner) -> (Bytes, bool) {
    let (_, message) = runner.tunnel().await;
    let ToClientTunnel::WebSocketMessage { data, binary } = message else { panic!("no frame: {message:?}") };
    (data, binary)
}

async fn receive(client: &mut Client) -> Message {
    tokio::time::timeout(PATIENCE, client.next()).await.expect("in time").expect("a frame").expect("a frame")
}

/// Code and reason of the close frame, without the ray.
async fn closed(client: &mut Client) -> (u16, String) {
    let Message::Close(Some(frame)) = receive(client).await else { panic!("no close frame") };
    // Reading on answers it.
    while let Some(Ok(_)) = tokio::time::timeout(PATIENCE, client.next()).await.expect("in time") {}
    (frame.code.into(), frame.reason.split('#').next().unwrap_or_default().to_owned())
}
