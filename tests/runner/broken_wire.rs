//! Connections that end before their time, and gateways that do not speak the protocol.

use std::time::Duration;

use bytes::Bytes;
use greenroom::protocol::{Event, ToClient, ToServer};
use greenroom::runner::{LinkStatus, Runner};
use greenroom::telemetry::metrics;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_tungstenite::tungstenite::Message;
use tracing::Level;

use crate::actors::Stage;
use crate::gateway::{End, Gateway, PATIENCE, request, start, stop, stream};
use crate::logs::Logs;

#[tokio::test]
async fn a_cut_connection_costs_no_actor_and_commands_given_again_start_none_twice() {
    let gateway = Gateway::listen().await;
    let stage = Stage::new();
    let _runner = stage.runner(&gateway).start().unwrap();
    let mut wire = gateway.open().await;
    wire.run("a", 0, "probe").await;
    wire.cut();

    let mut wire = gateway.open().await;
    wire.send(ToClient::Commands(vec![start("a", 0, "probe"), start("b", 0, "probe")])).await;
    wire.event("b", |event| *event == Event::Running).await;
    let acknowledged = |message: &ToServer| match message {
        // The repeat as well as the news; what was due before the cut comes on its own.
        ToServer::AckCommands(checkpoints) => (checkpoints.len() == 2).then_some(()),
        _ => None,
    };
    wire.pick("an acknowledgement of both", acknowledged).await;
    assert_eq!(wire.get(stream(1), "a", "/who").await.1, "a@0");
    assert_eq!(stage.take(), ["start a@0", "start b@0"]);
}

#[tokio::test]
async fn what_happened_while_the_gateway_was_away_is_told_when_it_is_back() {
    let gateway = Gateway::listen().await;
    let runner = Stage::new().runner(&gateway).start().unwrap();
    let mut wire = gateway.open().await;
    wire.run("a", 0, "probe").await;
    wire.request(stream(1), "a", "/echo", Some("x".into())).await;
    assert_eq!(wire.response(stream(1)).await.0, 200);
    wire.go_away().await;
    let context = runner.actor("a", None).await.unwrap().context;
    context.set_alarm(Some(5)).await.unwrap();
    let mut wire = gateway.open().await;
    // Not acknowledged, so everything comes again.
    assert_eq!(wire.event("a", |_| true).await, (0, Event::Running));
    assert_eq!(wire.event("a", |_| true).await, (1, Event::SetAlarm { at: Some(5) }));
}

#[tokio::test]
async fn garbage_closes_the_connection_with_a_reason_and_the_runner_comes_back() {
    let (logs, _guard) = Logs::capture();
    let gateway = Gateway::listen().await;
    let stage = Stage::new();
    let runner = stage.runner(&gateway).start().unwrap();
    let mut wire = gateway.open().await;
    wire.run("a", 0, "probe").await;
    wire.send_frame(Message::Binary(Bytes::from_static(&[0xff, 1, 2]))).await;
    assert_eq!(wire.end().await, End::Closed(1002, "runner.invalid_frame".to_owned()));

    let mut wire = gateway.open().await;
    wire.send(ToClient::Commands(vec![start("a", 0, "probe")])).await;
    assert_eq!(wire.get(stream(1), "a", "/who").await.1, "a@0");
    assert_eq!(stage.take(), ["start a@0"]);
    assert_eq!(runner.status().reason, None);
    let told = logs.at_least(Level::WARN);
    assert!(told.len() == 1 && told[0].contains("cannot be read"), "{told:?}");
}

#[tokio::test]
async fn garbage_that_nobody_answers_does_not_keep_the_runner_from_coming_back() {
    let gateway = Gateway::listen().await;
    let _runner = Stage::new().runner(&gateway).start().unwrap();
    let mut black_hole = gateway.open().await;
    black_hole.send_frame(Message::Binary(Bytes::new())).await;
    let mut wire = gateway.open().await;
    wire.run("a", 0, "probe").await;
}

#[tokio::test]
async fn a_text_message_is_ignored() {
    let gateway = Gateway::listen().await;
    let _runner = Stage::new().runner(&gateway).start().unwrap();
    let mut wire = gateway.open().await;
    wire.send_frame(Message::text("hello")).await;
    wire.send_frame(Message::Ping(Bytes::from_static(b"x"))).await;
    wire.send_frame(Message::Pong(Bytes::from_static(b"x"))).await;
    wire.send(ToClient::Ping { ts: 9 }).await;
    let frame = wire.pick_frame().await;
    assert_eq!(frame, Message::Pong(Bytes::from_static(b"x")));
    assert_eq!(wire.receive().await, ToServer::Pong { ts: 9 });
}

#[tokio::test]
async fn a_message_of_33_mib_is_taken_and_one_above_40_mib_ends_the_connection_only() {
    let gateway = Gateway::listen().await;
    let stage = Stage::new();
    let _runner = stage.runner(&gateway).start().unwrap();
    let mut wire = gateway.open().await;
    wire.run("a", 0, "probe").await;
    wire.tunnel(stream(1), 0, request("a", "/length", None, true)).await;
    wire.send_frame(Message::Binary(request_chunk(33 << 20))).await;
    assert_eq!(&wire.response(stream(1)).await.2[..], (33 << 20).to_string().as_bytes());

    wire.send_part_of_a_frame(41 << 20).await;
    let mut wire = gateway.open().await;
    assert_eq!(wire.get(stream(2), "a", "/who").await.0, 200);
    assert_eq!(stage.take(), ["start a@0"]);
}

#[tokio::test]
async fn a_gateway_that_falls_silent_is_dialled_again() {
    let gateway = Gateway::listen().await;
    let stage = Stage::new();
    let runner = stage.runner(&gateway).gateway_silence(Duration::from_millis(300)).start().unwrap();
    let mut silent = gateway.open().await;
    silent.run("a", 0, "probe").await;
    let mut status = runner.watch_status();
    let lost = status.wait_for(|status| status.link == LinkStatus::Waiting).await.unwrap().clone();
    assert!(lost.reason.as_ref().is_some_and(|reason| reason.contains("silent")), "{lost:?}");
    let mut wire = gateway.open().await;
    assert_eq!(wire.get(stream(1), "a", "/who").await.1, "a@0");
}

#[tokio::test]
async fn a_socket_that_answers_pings_is_measured_and_no_sign_of_a_gateway() {
    let gateway = Gateway::listen().await;
    let builder = Stage::new().runner(&gateway).gateway_pings(Duration::from_millis(20));
    let runner = builder.gateway_silence(Duration::from_millis(400)).start().unwrap();
    let mut silent = gateway.open().await;
    // Answered by the socket, as long as somebody reads from it.
    let reading = tokio::spawn(async move {
        assert!(matches!(silent.pick_frame().await, Message::Ping(_)));
        silent.end().await
    });
    let mut status = runner.watch_status();
    let lost = status.wait_for(|status| status.link == LinkStatus::Waiting).await.unwrap().clone();
    assert!(lost.reason.as_ref().is_some_and(|reason| reason.contains("silent")), "{lost:?}");
    assert_eq!(reading.await.unwrap(), End::Broken);
    let counted = metrics::runner().encode(metrics::Format::Text);
    assert!(!counted.contains("\ngreenroom_gateway_rtt_seconds_count 0\n"), "{counted}");
}

#[tokio::test]
async fn a_gateway_that_is_away_for_too_long_loses_its_actors_and_gets_them_told() {
    let gateway = Gateway::listen().await;
    let stage = Stage::new();
    let runner = stage.runner(&gateway).start().unwrap();
    let mut wire = gateway.accept().await;
    wire.greet_as("runner-1", 1000).await;
    wire.run("a", 0, "probe").await;
    let address = gateway.endpoint().authority();
    wire.cut();
    drop(gateway);
    let mut status = runner.watch_status();
    status.wait_for(|status| status.actors == 0).await.unwrap();
    assert_eq!(stage.take(), ["start a@0", "stop a@0 lost"]);

    let gateway = Gateway::at(&address).await;
    let mut wire = gateway.open().await;
    let reason = wire.stopped("a").await.expect("an error, so that the crash policy applies");
    assert!(reason.contains("away"), "{reason}");
}

#[tokio::test]
async fn a_gateway_that_knows_us_by_another_name_has_none_of_our_actors() {
    let gateway = Gateway::listen().await;
    let stage = Stage::new();
    let runner = stage.runner(&gateway).start().unwrap();
    let mut wire = gateway.open().await;
    wire.run("a", 0, "probe").await;
    wire.go_away().await;
    let mut wire = gateway.accept().await;
    wire.greet_as("runner-2", 15_000).await;
    let mut status = runner.watch_status();
    status.wait_for(|status| status.actors == 0).await.unwrap();
    assert_eq!(stage.take(), ["start a@0", "stop a@0 lost"]);
    wire.run("a", 1, "probe").await;
    assert_eq!(runner.status().runner_id.as_deref(), Some("runner-2"));
}

#[tokio::test]
async fn a_gateway_that_ends_before_its_greeting_is_dialled_again() {
    let gateway = Gateway::listen().await;
    let _runner = Stage::new().runner(&gateway).start().unwrap();
    let wire = gateway.accept().await;
    wire.go_away().await;
    let wire = gateway.accept().await;
    wire.cut();
    gateway.open().await;
}

#[tokio::test]
async fn a_stop_given_again_after_a_cut_is_answered_again() {
    let gateway = Gateway::listen().await;
    let stage = Stage::new();
    let _runner = stage.runner(&gateway).start().unwrap();
    let mut wire = gateway.open().await;
    wire.run("a", 0, "probe").await;
    wire.stop("a", 0).await;
    assert_eq!(wire.stopped("a").await, None);
    wire.go_away().await;
    let mut wire = gateway.open().await;
    wire.send(ToClient::Commands(vec![start("a", 0, "probe"), stop("a", 0)])).await;
    assert_eq!(wire.stopped("a").await, None);
    assert_eq!(stage.take(), ["start a@0", "stop a@0 stop"]);
}

#[tokio::test]
async fn an_endpoint_where_nobody_listens_is_one_warning_and_tried_for_ever() {
    let (logs, _guard) = Logs::capture();
    let port = {
        let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
        free.local_addr().unwrap().port()
    };
    let runner = Runner::builder(format!("http://127.0.0.1:{port}").parse().unwrap()).start().unwrap();
    let mut status = runner.watch_status();
    let waiting = status.wait_for(|status| status.link == LinkStatus::Waiting).await.unwrap().clone();
    let reason = waiting.reason.expect("a reason");
    assert!(reason.contains(&format!("cannot reach 127.0.0.1:{port}")) && reason.contains("--endpoint"), "{reason}");

    status.wait_for(|status| status.link == LinkStatus::Dialing).await.unwrap();
    status.wait_for(|status| status.link == LinkStatus::Waiting).await.unwrap();
    assert_eq!(logs.at_least(Level::WARN).len(), 1, "{:?}", logs.at_least(Level::WARN));

    let gateway = Gateway::at(&format!("127.0.0.1:{port}")).await;
    let mut wire = gateway.accept().await;
    wire.greet().await;
    assert!(runner.connected().await);
    assert_eq!(runner.status().reason, None);
}

#[tokio::test]
async fn an_endpoint_that_is_no_gateway_is_named_as_such() {
    let (logs, _guard) = Logs::capture();
    let gateway = Gateway::listen().await;
    let runner = Stage::new().runner(&gateway).start().unwrap();
    let mut tcp = gateway.accept_tcp().await;
    let mut head = [0; 1024];
    assert!(tcp.read(&mut head).await.unwrap() > 0);
    tcp.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n").await.unwrap();
    let mut status = runner.watch_status();
    let waiting = status.wait_for(|status| status.link == LinkStatus::Waiting).await.unwrap().clone();
    let reason = waiting.reason.expect("a reason");
    assert!(reason.contains("HTTP 404") && reason.contains("is this a gateway?"), "{reason}");
    let mut wire = tokio::time::timeout(PATIENCE, gateway.accept()).await.unwrap();
    wire.greet().await;
    assert!(runner.connected().await);
    assert_eq!(logs.at_least(Level::WARN).len(), 1);
}

/// The bytes of a request chunk for stream 1, larger than our own encoder would write.
fn request_chunk(bytes: usize) -> Bytes {
    let mut frame = vec![4];
    frame.extend(stream(1).gateway);
    frame.extend(stream(1).request);
    frame.extend(1u16.to_le_bytes());
    frame.push(1);
    let mut length = bytes;
    while length >= 0x80 {
        frame.push((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    frame.push(length as u8);
    frame.resize(frame.len() + bytes, b'x');
    frame.push(1);
    frame.into()
}
