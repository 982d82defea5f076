//! Who asks too much, too slowly, or under a strange name.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use futures_util::SinkExt;
use greenroom::gateway::callers::AllowedHosts;
use greenroom::gateway::listener::{ListenerSettings, RateLimit};
use greenroom::gateway::public_api::PublicApi;
use greenroom::gateway::{CreateActor, GatewayOptions, RunningGateway};
use greenroom::protocol::{Event, ToClientTunnel, ToServerTunnel, Version};
use greenroom::store::{CrashPolicy, MemoryStore};
use secrecy::SecretString;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;

use crate::raw_runner::{PATIENCE, RawRunner, options};

#[tokio::test]
async fn a_client_gets_as_many_requests_as_the_limit_says_and_then_429() {
    let limit = RateLimit { requests: 5, loopback: true, ..RateLimit::default() };
    let gateway = start(|options| options.listener.rate_limit = Some(limit)).await;
    for _ in 0..5 {
        assert!(say(gateway.local_addr(), &get("/health", "x: y")).await.starts_with("HTTP/1.1 200"));
    }
    let refused = say(gateway.local_addr(), &get("/health", "origin: http://site.test")).await;
    assert!(refused.starts_with("HTTP/1.1 429"), "{refused}");
    for part in ["x-rivet-error: guard.rate_limit", "retry-after: ", "x-rivet-ray-id: ", "http://site.test"] {
        assert!(refused.contains(part), "{part}: {refused}");
    }
    assert!(refused.contains(r#""group":"guard","code":"rate_limit""#), "{refused}");
    let actor = say(gateway.local_addr(), &get("/gateway/x/", "x: y")).await;
    assert!(actor.starts_with("HTTP/1.1 429"), "{actor}");
    gateway.stop().await.expect("a clean stop");
}

#[tokio::test]
async fn programs_of_this_machine_are_not_counted_by_default() {
    let limit = RateLimit { requests: 1, ..RateLimit::default() };
    let gateway = start(|options| options.listener.rate_limit = Some(limit)).await;
    for _ in 0..5 {
        assert!(say(gateway.local_addr(), &get("/health", "x: y")).await.starts_with("HTTP/1.1 200"));
    }
    gateway.stop().await.expect("a clean stop");
}

#[tokio::test]
async fn a_client_gets_as_many_answers_at_once_as_the_limit_says() {
    let limit = RateLimit { in_flight: 2, loopback: true, ..RateLimit::default() };
    let gateway = start(|options| options.listener.rate_limit = Some(limit)).await;
    let address = gateway.local_addr();
    // Requests whose body does not end are being answered for as long as one likes.
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut stream = TcpStream::connect(address).await.expect("a connection");
        let head = "POST /actors?namespace=default HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
                    content-length: 100\r\n\r\n{";
        stream.write_all(head.as_bytes()).await.expect("sent");
        held.push(stream);
    }
    let begin = Instant::now();
    loop {
        let answer = say(address, &get("/health", "x: y")).await;
        if answer.starts_with("HTTP/1.1 429") {
            break;
        }
        assert!(begin.elapsed() < PATIENCE, "{answer}");
    }
    held.pop();
    while !say(address, &get("/health", "x: y")).await.starts_with("HTTP/1.1 200") {
        assert!(begin.elapsed() < PATIENCE, "a client that is gone still counts");
    }
    drop(held);
    gateway.stop().await.expect("a clean stop");
}

#[tokio::test]
async fn connections_beyond_the_limit_are_told_so() {
    let gateway = start(|options| options.listener.connections = 2).await;
    let address = gateway.local_addr();
    let mut first = TcpStream::connect(address).await.expect("a connection");
    let mut second = TcpStream::connect(address).await.expect("a connection");
    for stream in [&mut first, &mut second] {
        stream.write_all(get("/health", "x: y").as_bytes()).await.expect("sent");
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await.expect("an answer");
        assert_eq!(&answer, b"HTTP/1.1 200");
    }
    let mut third = TcpStream::connect(address).await.expect("a connection");
    let refused = rest(&mut third).await;
    assert!(refused.starts_with("HTTP/1.1 503") && refused.contains("guard.service_unavailable"), "{refused}");
    drop(first);
    let begin = Instant::now();
    loop {
        let mut stream = TcpStream::connect(address).await.expect("a connection");
        // Refused ones may be closed already.
        let _ = stream.write_all(get("/health", "connection: close").as_bytes()).await;
        if rest(&mut stream).await.starts_with("HTTP/1.1 200") {
            break;
        }
        assert!(begin.elapsed() < PATIENCE, "a closed connection still counts");
    }
    gateway.stop().await.expect("a clean stop");
}

#[tokio::test]
async fn a_head_that_does_not_come_to_its_end_ends_the_connection() {
    let gateway = start(|options| options.listener.head_timeout = Duration::from_millis(200)).await;
    let mut stream = TcpStream::connect(gateway.local_addr()).await.expect("a connection");
    // A first request is answered, and the connection stays open after it for longer than a head may take.
    stream.write_all(get("/health", "x: y").as_bytes()).await.expect("sent");
    let mut answer = vec![0; 4_096];
    let length = stream.read(&mut answer).await.expect("an answer");
    assert!(answer[..length].starts_with(b"HTTP/1.1 200"));
    let silent = tokio::time::timeout(Duration::from_millis(400), stream.read(&mut answer)).await;
    assert!(silent.is_err(), "a silent connection is kept: {silent:?}");

    stream.write_all(b"GET /health HTTP/1.1\r\nhost:").await.expect("sent");
    let ended = tokio::time::timeout(PATIENCE, stream.read(&mut answer)).await.expect("in time");
    assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
    gateway.stop().await.expect("a clean stop");
}

#[tokio::test]
async fn a_connection_without_requests_ends_after_a_while() {
    let gateway = start(|options| options.listener.idle_timeout = Duration::from_millis(300)).await;
    let silent = TcpStream::connect(gateway.local_addr()).await.expect("a connection");
    let mut busy = TcpStream::connect(gateway.local_addr()).await.expect("a connection");
    let mut answer = vec![0; 4_096];
    let begin = Instant::now();
    // Each request in time, all of them together longer than a connection may be silent.
    while begin.elapsed() < Duration::from_millis(500) {
        busy.write_all(get("/health", "x: y").as_bytes()).await.expect("sent");
        let length = busy.read(&mut answer).await.expect("an answer");
        assert!(answer[..length].starts_with(b"HTTP/1.1 200"));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for mut stream in [silent, busy] {
        let ended = tokio::time::timeout(PATIENCE, stream.read(&mut answer)).await.expect("in time");
        assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
    }
    gateway.stop().await.expect("a clean stop");
}

#[tokio::test]
async fn a_socket_is_no_slow_head() {
    let gateway = start(|options| options.listener.head_timeout = Duration::from_millis(50)).await;
    let (mut runner, _) = RawRunner::connect(&gateway, "pool", "key", Version::V7).await;
    let actor = CreateActor {
        namespace: "default".into(),
        name: "counter".into(),
        key: None,
        pool: "pool".into(),
        crash_policy: CrashPolicy::Sleep,
        input: None,
    };
    let actor = gateway.handle().create_actor(actor).await.expect("created");
    let life = runner.commands().await[0].checkpoint.clone();
    runner.event(&life, 0, Event::Running).await;
    let url = format!("ws://{}/gateway/{}/", gateway.local_addr(), actor.id);
    let (mut client, _) = tokio_tungstenite::connect_async(url).await.expect("a socket");
    let (id, _) = runner.tunnel().await;
    runner.answer(id, ToServerTunnel::WebSocketOpen { can_hibernate: false }).await;
    for text in ["one", "two"] {
        // Silent between two frames for longer than a head may take.
        tokio::time::sleep(Duration::from_millis(150)).await;
        client.send(Message::text(text)).await.expect("sent");
        let (_, message) = runner.tunnel().await;
        assert_eq!(message, ToClientTunnel::WebSocketMessage { data: text.into(), binary: false });
    }
    gateway.stop().await.expect("a clean stop");
}

#[tokio::test]
async fn a_hundred_headers_are_taken_and_one_more_is_not() {
    let gateway = start(|_| {}).await;
    let request = |count: usize| {
        let headers: String = (0..count - 2).map(|number| format!("x-{number}: y\r\n")).collect();
        format!("GET /health HTTP/1.1\r\nhost: x\r\n{headers}\r\n")
    };
    assert!(say(gateway.local_addr(), &request(100)).await.starts_with("HTTP/1.1 200"));
    assert!(say(gateway.local_addr(), &request(101)).await.starts_with("HTTP/1.1 431"));
    gateway.stop().await.expect("a clean stop");
}

#[tokio::test]
async fn bodies_of_the_api_take_a_bounded_memory() {
    let gateway = start(|_| {}).await;
    let address = gateway.local_addr();
    let head = |length: usize| {
        format!(
            "POST /actors?namespace=default HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
             content-length: {length}\r\n\r\n"
        )
    };
    let mut held = Vec::new();
    for _ in 0..PublicApi::BODY_MEMORY / PublicApi::BODY_MAX {
        let mut stream = TcpStream::connect(address).await.expect("a connection");
        stream.write_all(head(PublicApi::BODY_MAX).as_bytes()).await.expect("sent");
        held.push(stream);
    }
    let body = format!("{}{}", head(20_000), " ".repeat(20_000));
    let begin = Instant::now();
    while !say(address, &body).await.starts_with("HTTP/1.1 503") {
        assert!(begin.elapsed() < PATIENCE, "the memory is not taken");
    }
    let small = say(address, &format!("{}{{}}", head(2))).await;
    assert!(small.starts_with("HTTP/1.1 400"), "a small body is always read: {small}");
    held.pop();
    while !say(address, &body).await.starts_with("HTTP/1.1 400") {
        assert!(begin.elapsed() < PATIENCE, "a client that is gone still holds its share");
    }
    drop(held);
    gateway.stop().await.expect("a clean stop");
}

#[tokio::test]
async fn without_a_token_only_names_of_this_machine_are_answered() {
    let gateway = start(|options| options.allowed_hosts = AllowedHosts::local_and(&["ui.test".to_owned()])).await;
    let address = gateway.local_addr();
    let api = "/actors?namespace=default&name=x";
    for headers in [
        "host: localhost:1234".to_owned(),
        format!("host: {address}"),
        "host: ui.test\r\norigin: https://ui.test".to_owned(),
        "host: localhost\r\norigin: http://localhost:5173".to_owned(),
    ] {
        let answer = say(address, &request(api, &headers)).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{headers}: {answer}");
    }
    for headers in ["host: evil.test", "host: localhost\r\norigin: http://evil.test", "host: localhost\r\norigin: null"]
    {
        let answer = say(address, &request(api, headers)).await;
        assert!(answer.starts_with("HTTP/1.1 403") && answer.contains("--allowed-hosts"), "{headers}: {answer}");
        // Whoever reaches actors is the actors' business, and health is nobody's secret.
        assert!(say(address, &request("/health", headers)).await.starts_with("HTTP/1.1 200"));
        assert!(!say(address, &request("/gateway/x/", headers)).await.starts_with("HTTP/1.1 403"));
    }
    // A page that would be a runner.
    let upgrade = "host: localhost\r\norigin: http://evil.test\r\nupgrade: websocket\r\nconnection: upgrade\r\n\
                   sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==";
    let path = "/runners/connect?namespace=default&runner_key=k&protocol_version=7";
    let answer = say_raw(address, &request(path, upgrade)).await;
    assert!(String::from_utf8_lossy(&answer).contains("api.forbidden"), "{answer:?}");
    gateway.stop().await.expect("a clean stop");
}

#[tokio::test]
async fn with_a_token_any_name_is_answered() {
    let gateway = start(|options| {
        options.allowed_hosts = AllowedHosts::local_and(&[]);
        options.admin_token = Some(SecretString::from("secret"));
    })
    .await;
    let headers = "host: gateway.test\r\norigin: http://site.test\r\nauthorization: Bearer secret";
    let answer = say(gateway.local_addr(), &request("/actors?namespace=default&name=x", headers)).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let headers = "host: localhost";
    let answer = say(gateway.local_addr(), &request("/actors?namespace=default&name=x", headers)).await;
    assert!(answer.starts_with("HTTP/1.1 403") && answer.contains("Token not provided"), "{answer}");
    gateway.stop().await.expect("a clean stop");
}

async fn start(change: impl FnOnce(&mut GatewayOptions)) -> RunningGateway {
    let mut options = GatewayOptions { listener: ListenerSettings::default(), ..options() };
    change(&mut options);
    RunningGateway::start_with(MemoryStore::new(), options).await.expect("a gateway")
}

fn get(path: &str, header: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n{header}\r\n\r\n")
}

fn request(path: &str, headers: &str) -> String {
    format!("GET {path} HTTP/1.1\r\n{headers}\r\n\r\n")
}

/// What is answered to a request on a connection of its own.
async fn say(address: SocketAddr, request: &str) -> String {
    let request = request.replacen("\r\n\r\n", "\r\nconnection: close\r\n\r\n", 1);
    String::from_utf8(say_raw(address, &request).await).expect("text")
}

async fn say_raw(address: SocketAddr, request: &str) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = Vec::new();
    let mut piece = [0; 4_096];
    // An upgraded connection says goodbye and waits; its last words are enough.
    while let Ok(Ok(length @ 1..)) = tokio::time::timeout(Duration::from_secs(2), stream.read(&mut piece)).await {
        answer.extend_from_slice(&piece[..length]);
    }
    answer
}

async fn rest(stream: &mut TcpStream) -> String {
    let mut text = Vec::new();
    // A connection that is reset has said what it had to say.
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut text)).await;
    String::from_utf8(text).expect("text")
}
