//! Clients' sockets.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message, WebSocketConfig};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use super::{hasty, path, start};
use crate::gateway::core::Answer;
use crate::gateway::fake::{ACTOR, Opened, record, serve, soon};
use crate::gateway::ingress::Patience;
use crate::gateway::public_api::ApiSettings;
use crate::gateway::{GatewayError, StreamHead, StreamUp, TunnelEvent};

type Client = WebSocketStream<TcpStream>;

#[tokio::test]
async fn frames_go_both_ways_in_order_and_keep_their_kind() {
    let (address, mut driver, _) = start().await;
    let mut client = dial(address, &path("/chat?room=1"), &[]).await;
    let mut stream = driver.open().await;
    let StreamHead::WebSocket { path, .. } = &stream.head else {
        panic!("not a socket");
    };
    assert_eq!(path, "/chat?room=1");
    assert_eq!(stream.header("upgrade"), Some("websocket"));
    assert!(stream.header("sec-websocket-key").is_some());
    assert_eq!(stream.header("x-rivet-ray-id").map(str::len), Some(30));
    open(&stream);
    client.send(Message::text("hello")).await.expect("sent");
    client.send(Message::binary(vec![1, 2])).await.expect("sent");
    assert_eq!(stream.up().await, message("hello", false));
    assert_eq!(stream.up().await, message("\u{1}\u{2}", true));
    stream.send(TunnelEvent::Message { data: Bytes::from("world"), binary: false });
    stream.send(TunnelEvent::Message { data: Bytes::from(vec![3]), binary: true });
    assert_eq!(receive(&mut client).await, Message::text("world"));
    assert_eq!(receive(&mut client).await, Message::binary(vec![3]));
}

#[tokio::test]
async fn frames_sent_before_the_socket_is_open_are_kept() {
    let (address, mut driver, _) = start().await;
    let mut client = dial(address, &path("/"), &[]).await;
    let wanted = driver.wanted().await;
    for number in 0..100 {
        client.send(Message::text(number.to_string())).await.expect("sent");
    }
    ping(&mut client).await;
    let mut stream = wanted.open();
    open(&stream);
    for number in 0..100 {
        assert_eq!(stream.up().await, message(&number.to_string(), false));
    }
}

#[tokio::test]
async fn a_client_that_sends_too_much_too_early_is_closed() {
    let (address, mut driver, _) = start().await;
    let mut client = dial(address, &path("/"), &[]).await;
    let _wanted = driver.wanted().await;
    for _ in 0..1_025 {
        client.feed(Message::text("x")).await.expect("sent");
    }
    client.flush().await.expect("sent");
    check_close(&mut client, 1008, "guard.websocket_pending_limit_reached").await;
}

#[tokio::test]
async fn pings_are_answered_here() {
    let (address, mut driver, _) = start().await;
    let mut client = dial(address, &path("/"), &[]).await;
    let mut stream = driver.open().await;
    open(&stream);
    ping(&mut client).await;
    client.send(Message::text("after")).await.expect("sent");
    assert_eq!(stream.up().await, message("after", false));
}

#[tokio::test]
async fn text_that_is_no_text_is_repaired() {
    let (address, mut driver, _) = start().await;
    let mut client = dial(address, &path("/"), &[]).await;
    let stream = driver.open().await;
    open(&stream);
    stream.send(TunnelEvent::Message { data: Bytes::from(vec![b'a', 0xff]), binary: false });
    assert_eq!(receive(&mut client).await, Message::text("a\u{fffd}"));
}

#[tokio::test]
async fn the_actors_close_reaches_the_client_in_a_form_it_understands() {
    let (address, mut driver, _) = start().await;
    let long = "ü".repeat(100);
    for (code, reason, expected, text) in [
        (Some(4001), Some("bye"), 4001, "bye"),
        (Some(1011), None, 1011, ""),
        (Some(0), Some("odd"), 1000, "odd"),
        (Some(1005), Some("odd"), 1000, "odd"),
        (Some(1006), None, 1000, ""),
        (Some(4000), Some(long.as_str()), 4000, &long[..122]),
        (None, None, 1000, "ws.closed"),
    ] {
        let mut client = dial(address, &path("/"), &[]).await;
        let mut stream = driver.open().await;
        open(&stream);
        stream.send(TunnelEvent::Message { data: Bytes::from("last"), binary: false });
        stream.send(TunnelEvent::Close { code, reason: reason.map(Into::into) });
        assert_eq!(receive(&mut client).await, Message::text("last"));
        check_close(&mut client, expected, text).await;
        stream.dropped().await;
    }
}

#[tokio::test]
async fn the_clients_close_reaches_the_actor() {
    let (address, mut driver, _) = start().await;
    let frame = |code: u16, reason: &'static str| Some(CloseFrame { code: code.into(), reason: reason.into() });
    for (sent, code, reason) in [(frame(4002, "done"), 4002, Some("done")), (None, 1000, None)] {
        let mut client = dial(address, &path("/"), &[]).await;
        let mut stream = driver.open().await;
        open(&stream);
        client.close(sent).await.expect("sent");
        assert_eq!(stream.up().await, StreamUp::Close { code: Some(code), reason: reason.map(Into::into) });
        stream.dropped().await;
        // The close is answered, and then the connection ends.
        while let Some(Ok(_)) = soon(client.next()).await {}
    }
}

#[tokio::test]
async fn a_client_that_vanishes_is_reported() {
    let (address, mut driver, _) = start().await;
    let client = dial(address, &path("/"), &[]).await;
    let mut stream = driver.open().await;
    open(&stream);
    drop(client);
    let gone = StreamUp::Close { code: Some(1011), reason: Some("ws.downstream_closed".into()) };
    assert_eq!(stream.up().await, gone);
    stream.dropped().await;
}

#[tokio::test]
async fn a_client_that_leaves_before_the_socket_is_open_drops_the_stream() {
    let (address, mut driver, _) = start().await;
    let client = dial(address, &path("/"), &[]).await;
    let mut stream = driver.open().await;
    drop(client);
    stream.dropped().await;
    assert!(driver.is_idle());
}

#[tokio::test]
async fn what_was_sent_before_leaving_is_delivered() {
    let (address, mut driver, _) = start().await;
    let mut client = dial(address, &path("/"), &[]).await;
    let wanted = driver.wanted().await;
    client.send(Message::text("note")).await.expect("sent");
    client.close(None).await.expect("sent");
    // The close is answered though the actor is not there yet.
    while let Some(Ok(_)) = soon(client.next()).await {}
    let mut stream = wanted.open();
    open(&stream);
    assert_eq!(stream.up().await, message("note", false));
    assert_eq!(stream.up().await, StreamUp::Close { code: Some(1000), reason: None });
}

#[tokio::test]
async fn a_client_that_leaves_while_its_actor_speaks_is_heard_to_the_end() {
    let (address, mut driver, _) = start().await;
    for _ in 0..50 {
        let mut client = dial(address, &path("/"), &[]).await;
        let mut stream = driver.open().await;
        open(&stream);
        // What the client has not read when it leaves breaks the connection, and with it what the gateway writes.
        stream.send(TunnelEvent::Message { data: Bytes::from_static(b"unread"), binary: true });
        client.get_ref().peek(&mut [0]).await.expect("it has come");
        client.feed(Message::text("last words")).await.expect("sent");
        let frame = CloseFrame { code: 4001.into(), reason: "enough".into() };
        client.send(Message::Close(Some(frame))).await.expect("sent");
        stream.send(TunnelEvent::Message { data: Bytes::from_static(b"more"), binary: true });
        drop(client);
        assert_eq!(stream.up().await, message("last words", false));
        assert_eq!(stream.up().await, StreamUp::Close { code: Some(4001), reason: Some("enough".into()) });
    }
}

#[tokio::test]
async fn opening_is_tried_again() {
    let (address, mut driver, _) = start().await;
    let mut client = dial(address, &path("/"), &[]).await;
    for event in [
        TunnelEvent::Close { code: None, reason: None },
        TunnelEvent::Close { code: Some(1011), reason: Some("Actor not found".into()) },
        TunnelEvent::Failed(GatewayError::ActorStopped),
        TunnelEvent::Failed(GatewayError::TunnelClosed),
    ] {
        driver.open().await.send(event);
    }
    let stream = driver.open().await;
    stream.send(TunnelEvent::Message { data: Bytes::from("not heard"), binary: false });
    open(&stream);
    stream.send(TunnelEvent::Message { data: Bytes::from("heard"), binary: false });
    assert_eq!(receive(&mut client).await, Message::text("heard"));
}

#[tokio::test]
async fn opening_is_given_up_after_eight_attempts() {
    let (address, mut driver, _) = start().await;
    let mut client = dial(address, &path("/"), &[]).await;
    for _ in 0..8 {
        driver.open().await.send(TunnelEvent::Close { code: None, reason: None });
    }
    check_close(&mut client, 1011, "guard.websocket_closed_before_open").await;
    assert!(driver.is_idle());

    let patience = Patience { socket_open: Duration::from_millis(10), socket_attempts: 2, ..hasty() };
    let (address, mut driver, _) = serve(patience, ApiSettings::default()).await;
    let mut client = dial(address, &path("/"), &[]).await;
    let streams = [driver.open().await, driver.open().await];
    check_close(&mut client, 1011, "guard.websocket_open_timeout").await;
    drop(streams);
}

#[tokio::test]
async fn an_application_that_refuses_a_socket_is_heard_at_once() {
    let (address, mut driver, _) = start().await;
    for code in [1008, 3000, 4401] {
        let mut client = dial(address, &path("/"), &[]).await;
        driver.open().await.send(TunnelEvent::Close { code: Some(code), reason: Some("who are you".into()) });
        check_close(&mut client, code, "who are you").await;
        assert!(driver.is_idle());
    }
}

#[tokio::test]
async fn every_failure_is_a_close_frame() {
    let (address, mut driver, _) = start().await;
    for (error, reason) in [
        (GatewayError::ActorNotFound, "actor.not_found"),
        (GatewayError::ActorReadyTimeout { error: None }, "guard.actor_ready_timeout"),
        (GatewayError::Unavailable("busy"), "guard.service_unavailable"),
    ] {
        let mut client = dial(address, &path("/"), &[]).await;
        driver.wanted().await.refuse(error);
        check_close(&mut client, 1011, reason).await;
    }
    for (path, reason) in [
        ("/gateway/garbage/", "core.internal_error"),
        ("/gateway/x/?rvt-method=get", "guard.query_invalid_params"),
        ("/gateway/x/?rvt-method=get&rvt-namespace=default", "actor.not_found"),
        ("/actors", "guard.websocket_not_supported"),
        ("/nowhere", "guard.websocket_not_supported"),
    ] {
        let mut client = dial(address, path, &[]).await;
        check_close(&mut client, 1011, reason).await;
    }
    for (error, code, reason) in [
        (GatewayError::ActorStopped, 1000, "actor.stopped"),
        (GatewayError::ActorDestroyed, 1000, "actor.stopped"),
        (GatewayError::TunnelClosed, 1011, "guard.tunnel_response_closed"),
        (GatewayError::Unavailable("stopping"), 1012, "ws.going_away"),
    ] {
        let mut client = dial(address, &path("/"), &[]).await;
        let stream = driver.open().await;
        open(&stream);
        stream.send(TunnelEvent::Failed(error));
        check_close(&mut client, code, reason).await;
    }
}

#[tokio::test]
async fn a_socket_names_its_actor_by_key() {
    let (address, mut driver, _) = start().await;
    let target = "/gateway/counter/chat?rvt-namespace=default&rvt-method=getOrCreate&rvt-pool=pool&rvt-key=one&room=1";
    let mut client = dial(address, target, &[]).await;
    client.send(Message::text("early")).await.expect("sent");
    let (_, reply) = driver.call().await;
    reply.send(Ok(Answer::Actor { record: Box::new(record(ACTOR)), created: true })).expect("somebody waits");
    let wanted = driver.wanted().await;
    assert_eq!(&*wanted.actor_id, ACTOR);
    let mut stream = wanted.open();
    assert!(matches!(&stream.head, StreamHead::WebSocket { path, .. } if path == "/chat?room=1"));
    open(&stream);
    assert_eq!(stream.up().await, message("early", false));

    let mut client = dial(address, target, &[]).await;
    let (_, reply) = driver.call().await;
    reply.send(Err(GatewayError::NoRunnerConfig { pool: "pool".into() })).expect("somebody waits");
    check_close(&mut client, 1011, "actor.no_runner_config_configured").await;
}

#[tokio::test]
async fn subprotocols_are_answered_with_one_that_was_offered() {
    let (address, mut driver, _) = start().await;
    let target = format!("rivet, rivet_target.actor, rivet_actor.{ACTOR}");
    let stream = TcpStream::connect(address).await.expect("a connection");
    let mut request = format!("ws://{address}/any/where").into_client_request().expect("request");
    request.headers_mut().insert("sec-websocket-protocol", target.parse().expect("value"));
    let (_client, response) = client_async_with_config(request, stream, None).await.expect("a socket");
    assert_eq!(response.headers()["sec-websocket-protocol"], "rivet");
    let stream = driver.open().await;
    assert!(matches!(&stream.head, StreamHead::WebSocket { path, .. } if path == "/any/where"));
    assert_eq!(stream.header("sec-websocket-protocol"), Some(target.as_str()));
    // Strict clients refuse a subprotocol they did not offer, and want one if they did.
    dial(address, &path("/"), &[("sec-websocket-protocol", "graphql-ws, other")]).await;
    dial(address, &path("/"), &[]).await;
}

#[tokio::test]
async fn a_message_of_32_mib_is_taken_and_a_larger_one_closes_the_socket() {
    let (address, mut driver, _) = start().await;
    let largest = 32 * 1024 * 1024;
    let mut client = dial(address, &path("/"), &[]).await;
    let mut stream = driver.open().await;
    open(&stream);
    client.send(Message::binary(vec![0; largest])).await.expect("sent");
    assert!(matches!(stream.up().await, StreamUp::Message { data, .. } if data.len() == largest));
    let (mut sink, mut read) = client.split();
    let sending = tokio::spawn(async move { sink.send(Message::binary(vec![0; largest + 1])).await });
    let close = loop {
        if let Message::Close(frame) = soon(read.next()).await.expect("a frame").expect("a frame") {
            break frame.expect("a reason");
        }
    };
    assert_eq!(u16::from(close.code), 1011);
    assert!(close.reason.starts_with("guard.websocket_message_too_large#"), "{}", close.reason);
    let gone = StreamUp::Close { code: Some(1011), reason: Some("ws.downstream_closed".into()) };
    assert_eq!(stream.up().await, gone);
    // Whether all of it could be sent depends on the buffers in between.
    let _ = soon(sending).await;
}

#[tokio::test]
async fn damaged_frames_close_the_socket_with_the_right_code() {
    let (address, mut driver, _) = start().await;
    // Unmasked; a reserved opcode; a fragmented ping; text that is no text; a length no frame has.
    for (frame, code) in [
        (&b"\x81\x01a"[..], 1002),
        (b"\x83\x80\0\0\0\0", 1002),
        (b"\x09\x80\0\0\0\0", 1002),
        (b"\x81\x81\0\0\0\0\xff", 1007),
        (b"\x82\xff\x7f\xff\xff\xff\xff\xff\xff\xff\0\0\0\0", 1011),
    ] {
        let mut client = dial(address, &path("/"), &[]).await;
        let stream = driver.open().await;
        open(&stream);
        client.get_mut().write_all(frame).await.expect("sent");
        let close = soon(client.next()).await.expect("a frame").expect("a frame");
        let Message::Close(Some(close)) = close else {
            panic!("{close:?}");
        };
        assert_eq!(u16::from(close.code), code, "{frame:?}");
    }
}

#[tokio::test]
async fn a_client_that_does_not_read_loses_its_socket() {
    let patience = Patience { close: Duration::from_millis(100), ..hasty() };
    let (address, mut driver, _) = serve(patience, ApiSettings::default()).await;
    let mut client = dial(address, &path("/"), &[]).await;
    let mut stream = driver.open().await;
    open(&stream);
    let piece = Bytes::from(vec![0; 1024 * 1024]);
    let mut sent = 0;
    while stream.events.try_send(TunnelEvent::Message { data: piece.clone(), binary: true }).is_ok() {
        sent += 1;
        assert!(sent < 1_000, "bounded");
        tokio::task::yield_now().await;
    }
    stream.dropped().await;
    // The patience with a client that does not read is over when it begins to; it gets what was sent in time.
    let mut frames = 0;
    while let Some(Ok(frame)) = soon(client.next()).await {
        frames += usize::from(frame.is_binary());
    }
    assert!(frames < sent);
}

#[tokio::test]
async fn stopping_closes_all_sockets() {
    let (address, mut driver, ingress) = start().await;
    let mut client = dial(address, &path("/"), &[]).await;
    let mut stream = driver.open().await;
    open(&stream);
    let stopping = tokio::spawn(async move { ingress.stop().await });
    check_close(&mut client, 1012, "ws.going_away").await;
    stream.dropped().await;
    soon(stopping).await.expect("stopped");
}

fn open(stream: &Opened) {
    stream.send(TunnelEvent::Open { can_hibernate: false });
}

fn message(text: &str, binary: bool) -> StreamUp {
    StreamUp::Message { data: Bytes::from(text.to_owned()), binary }
}

async fn dial(address: SocketAddr, path: &str, headers: &[(&'static str, &str)]) -> Client {
    let stream = TcpStream::connect(address).await.expect("a connection");
    let mut request = format!("ws://{address}{path}").into_client_request().expect("request");
    for (name, value) in headers {
        request.headers_mut().insert(*name, value.parse().expect("value"));
    }
    let config = WebSocketConfig::default().max_message_size(None).max_frame_size(None);
    let (client, _) = soon(client_async_with_config(request, stream, Some(config))).await.expect("a socket");
    client
}

async fn receive(client: &mut Client) -> Message {
    soon(client.next()).await.expect("a frame").expect("a frame")
}

async fn ping(client: &mut Client) {
    client.send(Message::Ping(Bytes::from("are you there"))).await.expect("sent");
    assert_eq!(receive(client).await, Message::Pong(Bytes::from("are you there")));
}

/// The socket closes with this code and a reason that begins like this; reasons of the gateway end with a ray.
#[track_caller]
fn check_reason(frame: &CloseFrame, code: u16, reason: &str) {
    assert_eq!(u16::from(frame.code), code, "{}", frame.reason);
    let name = frame.reason.split('#').next().unwrap_or_default();
    assert_eq!(name, reason);
}

async fn check_close(client: &mut Client, code: u16, reason: &str) {
    match receive(client).await {
        Message::Close(Some(frame)) => check_reason(&frame, code, reason),
        other => panic!("{other:?}"),
    }
    assert!(!matches!(soon(client.next()).await, Some(Ok(_))));
}
