//! Requests and their responses.

use bytes::Bytes;
use greenroom::protocol::{ToClientTunnel, ToServer, ToServerTunnel};

use crate::actors::Stage;
use crate::gateway::{Gateway, Wire, request, stream};

#[tokio::test]
async fn a_whole_request_gets_a_whole_response() {
    let (mut wire, _stage) = running().await;
    wire.request(stream(1), "a", "/echo?x=%20", Some(Bytes::from_static(b"body"))).await;
    let (status, headers, body) = wire.response(stream(1)).await;
    assert_eq!((status, &body[..]), (200, &b"body"[..]));
    assert!(headers.contains(&("x-test".into(), "no".into())));
    assert_eq!(wire.get(stream(2), "a", "/nothing").await, (404, "no /nothing here".to_owned()));
}

#[tokio::test]
async fn a_body_that_comes_in_pieces_reaches_the_actor_whole() {
    let (mut wire, _stage) = running().await;
    wire.tunnel(stream(1), 0, request("a", "/echo", Some("one ".into()), true)).await;
    wire.tunnel(stream(1), 1, chunk("two ", false)).await;
    wire.tunnel(stream(1), 2, chunk("three", true)).await;
    let (status, _, body) = wire.response(stream(1)).await;
    assert_eq!((status, &body[..]), (200, &b"one two three"[..]));
}

#[tokio::test]
async fn a_client_that_goes_away_ends_its_request_and_nothing_else() {
    let (mut wire, stage) = running().await;
    wire.tunnel(stream(1), 0, request("a", "/length", Some("one".into()), true)).await;
    wire.request(stream(2), "a", "/never", None).await;
    stage.noted("never").await;
    wire.tunnel(stream(1), 1, ToClientTunnel::RequestAbort).await;
    wire.tunnel(stream(2), 1, ToClientTunnel::RequestAbort).await;
    stage.noted("cancelled").await;
    assert_eq!(wire.get(stream(3), "a", "/who").await.0, 200);
}

#[tokio::test]
async fn a_streamed_response_is_collected_for_a_gateway_that_takes_whole_ones() {
    let (mut wire, _stage) = running().await;
    assert_eq!(wire.get(stream(1), "a", "/pieces?3").await, (200, "piece 0;piece 1;piece 2;".to_owned()));
}

#[tokio::test]
async fn a_streamed_response_streams_to_a_gateway_that_grants_it() {
    let (mut wire, _stage) = running_with(Some("stream")).await;
    wire.request(stream(1), "a", "/pieces?2", None).await;
    let ToServerTunnel::ResponseStart { status: 200, stream: true, body: None, .. } = wire.answer(stream(1)).await
    else {
        panic!("not the start of a stream")
    };
    assert_eq!(wire.answer(stream(1)).await, response_chunk("piece 0;", false));
    assert_eq!(wire.answer(stream(1)).await, response_chunk("piece 1;", false));
    assert_eq!(wire.answer(stream(1)).await, response_chunk("", true));
}

#[tokio::test]
async fn a_response_that_breaks_off_is_aborted() {
    for features in [None, Some("stream")] {
        let (mut wire, _stage) = running_with(features).await;
        wire.request(stream(1), "a", "/breaks-off", None).await;
        let mut last = wire.answer(stream(1)).await;
        while matches!(last, ToServerTunnel::ResponseStart { .. } | ToServerTunnel::ResponseChunk { .. }) {
            last = wire.answer(stream(1)).await;
        }
        assert_eq!(last, ToServerTunnel::ResponseAbort);
    }
}

/// In one of these tries at least, all of them come before the first is handled.
#[tokio::test]
async fn a_request_does_not_wait_for_all_those_that_came_for_another_actor() {
    let (mut wire, _stage) = running().await;
    wire.run("b", 0, "probe").await;
    for attempt in 0..50 {
        let (first, patient) = (attempt * 100, stream(attempt * 100 + 99));
        for number in 0..99 {
            wire.request(stream(first + number), "a", "/who", None).await;
        }
        wire.request(patient, "b", "/who", None).await;
        let mut order = Vec::new();
        while order.len() < 100 {
            let response = wire.pick("a response", |message| match message {
                ToServer::Tunnel { id, message: ToServerTunnel::ResponseStart { status: 200, .. } } => Some(id.stream),
                _ => None,
            });
            order.push(response.await);
        }
        let many: Vec<_> = order.iter().copied().filter(|one| *one != patient).collect();
        assert_eq!(many, (0..99).map(|number| stream(first + number)).collect::<Vec<_>>());
        if order.iter().position(|one| *one == patient) < Some(30) {
            return;
        }
    }
    panic!("it always waits for more than 30 others");
}

#[tokio::test]
async fn repeated_headers_survive_in_both_directions() {
    let (mut wire, _stage) = running_with(Some("stream, repeated-headers")).await;
    let ToClientTunnel::RequestStart { actor_id, method, path, body, stream: more, .. } =
        request("a", "/headers", None, false)
    else {
        unreachable!()
    };
    let headers = vec![("accept".into(), "a\nb".into())];
    let with = ToClientTunnel::RequestStart { actor_id, method, path, headers, body, stream: more };
    wire.tunnel(stream(1), 0, with).await;
    let (_, headers, body) = wire.response(stream(1)).await;
    assert_eq!(&body[..], b"accept=a;accept=b");
    assert!(headers.contains(&("set-cookie".into(), "a=1\nb=2".into())), "{headers:?}");
}

#[tokio::test]
async fn a_response_above_20_mib_is_a_502_that_says_so_and_the_session_lives() {
    let (mut wire, _stage) = running().await;
    let limit = 20 << 20;
    let (status, text) = wire.get(stream(1), "a", &format!("/bytes?{}", limit + 1)).await;
    assert_eq!(status, 502);
    assert!(text.contains("larger than 20 MiB"), "{text}");
    let (status, body) = wire.get(stream(2), "a", &format!("/bytes?{limit}")).await;
    assert_eq!((status, body.len()), (200, limit));
}

#[tokio::test]
async fn a_response_above_20_mib_goes_in_pieces_where_the_gateway_takes_them() {
    let (mut wire, _stage) = running_with(Some("stream")).await;
    let bytes = (20 << 20) + 1;
    wire.request(stream(1), "a", &format!("/bytes?{bytes}"), None).await;
    let mut received = 0;
    loop {
        match wire.answer(stream(1)).await {
            ToServerTunnel::ResponseStart { status, stream: true, body: None, .. } => assert_eq!(status, 200),
            ToServerTunnel::ResponseChunk { body, finish } => {
                received += body.len();
                if finish {
                    break;
                }
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(received, bytes);
}

#[tokio::test]
async fn a_response_that_no_message_can_carry_is_a_502_that_says_so() {
    let (mut wire, _stage) = running().await;
    let (status, text) = wire.get(stream(1), "a", "/huge-head").await;
    assert_eq!(status, 502);
    assert!(text.contains("cannot be sent"), "{text}");
    assert_eq!(wire.get(stream(2), "a", "/who").await.0, 200);
}

#[tokio::test]
async fn a_handler_that_panics_costs_its_request_and_nothing_else() {
    let (mut wire, stage) = running().await;
    assert_eq!(wire.get(stream(1), "a", "/panic").await.0, 500);
    assert_eq!(wire.get(stream(2), "a", "/who").await.0, 200);
    assert_eq!(stage.take(), ["start a@0"]);
}

#[tokio::test]
async fn requests_wait_for_their_actor_to_start() {
    let gateway = Gateway::listen().await;
    let stage = Stage::new();
    let _runner = stage.runner(&gateway).start().unwrap();
    let mut wire = gateway.open().await;
    wire.start("a", 0, "gated").await;
    wire.request(stream(1), "a", "/who", None).await;
    stage.gate.add_permits(1);
    assert_eq!(wire.response(stream(1)).await.0, 200);
}

#[tokio::test]
async fn a_request_for_an_actor_that_is_not_here_is_given_back_so_that_the_gateway_tries_again() {
    let (mut wire, _stage) = running().await;
    wire.request(stream(1), "elsewhere", "/who", None).await;
    let ToServerTunnel::ResponseStart { status, headers, .. } = wire.answer(stream(1)).await else {
        panic!("a response is due");
    };
    assert_eq!(status, 503);
    assert!(headers.contains(&("x-rivet-error".into(), "guard.service_unavailable".into())));
}

#[tokio::test]
async fn a_stopped_actor_leaves_no_request_open() {
    let (mut wire, _stage) = running_actor("stubborn").await;
    wire.request(stream(1), "a", "/never", None).await;
    wire.open_socket(stream(2), "a", "/").await;
    wire.stop("a", 0).await;
    assert_eq!(wire.answer(stream(1)).await, ToServerTunnel::ResponseAbort);
    assert!(matches!(wire.answer(stream(2)).await, ToServerTunnel::WebSocketClose { .. }));
    assert_eq!(wire.stopped("a").await, None);
}

async fn running() -> (Wire, Stage) {
    running_with(None).await
}

async fn running_actor(name: &str) -> (Wire, Stage) {
    let gateway = Gateway::listen().await;
    let stage = Stage::new();
    stage.runner(&gateway).start().unwrap();
    let mut wire = gateway.open().await;
    wire.run("a", 0, name).await;
    (wire, stage)
}

async fn running_with(features: Option<&'static str>) -> (Wire, Stage) {
    let gateway = Gateway::listen().await;
    let stage = Stage::new();
    stage.runner(&gateway).start().unwrap();
    let mut wire = gateway.accept_granting(features).await;
    wire.greet().await;
    wire.run("a", 0, "probe").await;
    (wire, stage)
}

fn chunk(body: &'static str, finish: bool) -> ToClientTunnel {
    ToClientTunnel::RequestChunk { body: body.into(), finish }
}

fn response_chunk(body: &'static str, finish: bool) -> ToServerTunnel {
    ToServerTunnel::ResponseChunk { body: body.into(), finish }
}
