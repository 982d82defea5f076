//! Client sockets.

use bytes::Bytes;
use greenroom::protocol::{StreamId, ToClientTunnel, ToServerTunnel};

use crate::actors::Stage;
use crate::gateway::{Gateway, Wire, stream};

#[tokio::test]
async fn frames_come_back_in_order_and_of_their_kind() {
    let (mut wire, _stage) = running().await;
    wire.open_socket(stream(1), "a", "/").await;
    for index in 1..=300u16 {
        let binary = index % 2 == 0;
        message(&mut wire, stream(1), index, &index.to_string(), binary).await;
    }
    for index in 1..=300u16 {
        let data = Bytes::from(index.to_string());
        let expected = ToServerTunnel::WebSocketMessage { data, binary: index % 2 == 0 };
        assert_eq!(wire.answer(stream(1)).await, expected);
    }
}

#[tokio::test]
async fn a_closed_client_is_told_to_the_actor_once() {
    let (mut wire, stage) = running().await;
    wire.open_socket(stream(1), "a", "/").await;
    let close = ToClientTunnel::WebSocketClose { code: Some(4004), reason: Some("off".into()) };
    wire.tunnel(stream(1), 1, close.clone()).await;
    wire.tunnel(stream(1), 2, close).await;
    assert_eq!(wire.get(stream(2), "a", "/who").await.0, 200);
    stage.noted("closed Some(4004) off").await;
    assert_eq!(stage.take().iter().filter(|line| line.starts_with("closed")).count(), 1);
}

#[tokio::test]
async fn an_actor_closes_and_refuses_with_its_own_words() {
    let (mut wire, _stage) = running().await;
    wire.open_socket(stream(1), "a", "/").await;
    message(&mut wire, stream(1), 1, "close", false).await;
    assert_eq!(wire.answer(stream(1)).await, close(4000, "as asked"));

    let open = ToClientTunnel::WebSocketOpen { actor_id: "a".into(), path: "/refuse".into(), headers: vec![] };
    wire.tunnel(stream(2), 0, open).await;
    // Accepted first: the Rivet engine takes a close before that for a failure and opens the socket again, 8 times.
    assert_eq!(wire.answer(stream(2)).await, ToServerTunnel::WebSocketOpen { can_hibernate: false });
    assert_eq!(wire.answer(stream(2)).await, close(4001, "not you"));
}

#[tokio::test]
async fn a_handler_that_panics_closes_its_socket_with_1011() {
    let (mut wire, _stage) = running().await;
    wire.open_socket(stream(1), "a", "/").await;
    wire.open_socket(stream(2), "a", "/").await;
    message(&mut wire, stream(1), 1, "panic", false).await;
    assert_eq!(wire.answer(stream(1)).await, close(1011, "Server Error"));
    message(&mut wire, stream(2), 1, "still here", false).await;
    let echo = ToServerTunnel::WebSocketMessage { data: "still here".into(), binary: false };
    assert_eq!(wire.answer(stream(2)).await, echo);
}

#[tokio::test]
async fn a_socket_whose_actor_does_not_keep_up_is_closed_with_1013_and_no_other() {
    let (mut wire, _stage) = running().await;
    wire.open_socket(stream(1), "a", "/deaf").await;
    wire.open_socket(stream(2), "a", "/").await;
    for index in 1..=2000u16 {
        message(&mut wire, stream(1), index, "x", true).await;
    }
    let ToServerTunnel::WebSocketClose { code: Some(1013), reason, .. } = wire.answer(stream(1)).await else {
        panic!("not closed for its slowness")
    };
    assert!(reason.expect("a reason").contains("keep up"));
    message(&mut wire, stream(2), 1, "y", true).await;
    let echo = ToServerTunnel::WebSocketMessage { data: "y".into(), binary: true };
    assert_eq!(wire.answer(stream(2)).await, echo);
}

#[tokio::test]
async fn a_skipped_message_closes_the_socket_instead_of_hiding_the_gap() {
    let (mut wire, _stage) = running().await;
    wire.open_socket(stream(1), "a", "/").await;
    message(&mut wire, stream(1), 3, "late", false).await;
    assert_eq!(wire.answer(stream(1)).await, close(1008, "ws.message_index_skip"));
}

async fn running() -> (Wire, Stage) {
    let gateway = Gateway::listen().await;
    let stage = Stage::new();
    stage.runner(&gateway).start().unwrap();
    let mut wire = gateway.open().await;
    wire.run("a", 0, "probe").await;
    (wire, stage)
}

async fn message(wire: &mut Wire, stream: StreamId, index: u16, text: &str, binary: bool) {
    let data = Bytes::copy_from_slice(text.as_bytes());
    wire.tunnel(stream, index, ToClientTunnel::WebSocketMessage { data, binary }).await;
}

fn close(code: u16, reason: &'static str) -> ToServerTunnel {
    ToServerTunnel::WebSocketClose { code: Some(code), reason: Some(reason.into()), hibernate: false }
}
