//! Streams and lives: who gets what, and how each ends.

use bytes::Bytes;
use greenroom::protocol::{StreamId, ToClientTunnel, ToServer, ToServerTunnel};
use greenroom::session::{Effect, Features};
use greenroom::stream::StreamReply;

use crate::stage::*;

#[test]
fn a_request_reaches_its_actor_and_the_answer_the_gateway() {
    let mut stage = Stage::with_actor();
    let start = ToClientTunnel::RequestStart {
        actor_id: "a".into(),
        method: "POST".into(),
        path: "/x?y=1".into(),
        headers: vec![("accept".into(), "a\nb".into()), ("host".into(), "h".into())],
        body: Some(Bytes::from_static(b"ping")),
        stream: false,
    };
    let effects = stage.tunnel(stream(1), 0, start);
    let [Effect::Request { actor, stream: opened, method, path, headers, body, more, credit: true }] = &effects[..]
    else {
        panic!("{effects:?}")
    };
    assert_eq!((actor, opened.id, &**method, &**path, *more), (&key("a", 0), stream(1), "POST", "/x?y=1", false));
    assert_eq!(body.as_deref(), Some(&b"ping"[..]));
    let pairs: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (&**name, &**value)).collect();
    assert_eq!(pairs, [("accept", "a"), ("accept", "b"), ("host", "h")], "repeated headers are taken apart");

    let headers = vec![("set-cookie".into(), "a=1".into()), ("set-cookie".into(), "b=2".into())];
    let body = Bytes::from_static(b"pong");
    let effects = stage.reply(*opened, StreamReply::Response { status: 201, headers, body, more: false });
    let expected = ToServerTunnel::ResponseStart {
        status: 201,
        headers: vec![("set-cookie".into(), "a=1\nb=2".into())],
        body: Some(Bytes::from_static(b"pong")),
        stream: false,
    };
    assert_eq!(tunnelled(&effects), [(stream(1), 0, expected)]);
    assert_eq!(stage.reply(*opened, whole("again")), [], "answered once");
}

#[test]
fn a_request_for_nobody_here_is_given_back_so_that_the_gateway_tries_again() {
    let mut stage = Stage::with_actor();
    stage.start("stopping", 0, 0);
    stage.stop("stopping", 0, 1);
    stage.start("waiting", 0, 0);
    stage.start("waiting", 1, 0);
    stage.start("ended", 0, 0);
    stage.crash("ended", 0);
    for actor in ["unknown", "stopping", "waiting", "ended"] {
        let effects = stage.tunnel(stream(1), 0, request_start(actor));
        assert!(is_given_back(&tunnelled(&effects), stream(1)), "{actor}: {effects:?}");
        assert_eq!(effects.len(), 1);
        assert_eq!(stage.tunnel(stream(1), 1, chunk(b"rest", true)), [], "{actor}");

        let open = ToClientTunnel::WebSocketOpen { actor_id: actor.into(), path: "/".into(), headers: vec![] };
        let effects = stage.tunnel(stream(2), 0, open);
        assert_eq!(tunnelled(&effects), [(stream(2), 0, close(1011, "Actor not found"))], "{actor}");
        assert_eq!(stage.frame(stream(2), 1), [], "{actor}");
    }
}

#[test]
fn a_starting_actor_is_given_its_requests() {
    let mut stage = Stage::open();
    stage.start("a", 0, 0);
    assert!(stage.request(stream(1), "a").is_some());
}

#[test]
fn requests_stream_in_with_their_bodies() {
    let mut stage = Stage::with_actor();
    let start = ToClientTunnel::RequestStart {
        actor_id: "a".into(),
        method: "PUT".into(),
        path: "/".into(),
        headers: vec![],
        body: Some(Bytes::from_static(b"one")),
        stream: true,
    };
    let effects = stage.tunnel(stream(1), 0, start);
    let [Effect::Request { stream: opened, more: true, .. }] = effects[..] else { panic!("{effects:?}") };
    let effects = stage.tunnel(stream(1), 1, chunk(b"two", false));
    let body = Bytes::from_static(b"two");
    assert_eq!(effects, [Effect::RequestChunk { stream: opened, body, finish: false }]);
    assert_eq!(stage.tunnel(stream(1), 2, chunk(b"", true)).len(), 1);
    assert_eq!(tunnelled(&stage.reply(opened, whole("done"))).len(), 1);
    assert_eq!(stage.tunnel(stream(1), 3, chunk(b"stray", true)), []);
}

#[test]
fn an_abort_of_the_client_cancels_the_work() {
    let mut stage = Stage::with_actor();
    let opened = stage.request(stream(1), "a").expect("admitted");
    assert_eq!(stage.tunnel(stream(1), 1, ToClientTunnel::RequestAbort), [Effect::Cancel { stream: opened }]);
    assert_eq!(stage.reply(opened, whole("late")), []);
    assert_eq!(stage.tunnel(stream(1), 2, ToClientTunnel::RequestAbort), []);
}

#[test]
fn an_abort_of_the_actor_reaches_the_gateway() {
    let mut stage = Stage::with_actor();
    let opened = stage.request(stream(1), "a").expect("admitted");
    let effects = stage.reply(opened, StreamReply::Abort);
    assert_eq!(tunnelled(&effects), [(stream(1), 0, ToServerTunnel::ResponseAbort)]);
    assert_eq!(stage.reply(opened, StreamReply::Abort), []);
}

#[test]
fn answers_of_a_former_life_never_reach_a_stream_of_the_next() {
    let mut stage = Stage::with_actor();
    let old = stage.request(stream(1), "a").expect("admitted");
    let old_socket = stage.websocket(stream(2), 0, "a").expect("admitted");
    stage.start("a", 1, 0);
    stage.end("a", 0);
    // The gateway tries both again, under the same ids.
    let new = stage.request(stream(1), "a").expect("admitted");
    let new_socket = stage.websocket(stream(2), 4, "a").expect("admitted");
    assert_eq!(stage.reply(old, whole("from the past")), []);
    assert_eq!(stage.reply(old_socket, StreamReply::Open { can_hibernate: false }), []);
    assert_eq!(stage.reply(old_socket, StreamReply::Close { code: None, reason: None }), []);
    assert_eq!(tunnelled(&stage.reply(new, whole("fresh"))).len(), 1);
    assert_eq!(tunnelled(&stage.reply(new_socket, StreamReply::Open { can_hibernate: false })).len(), 1);
}

#[test]
fn the_end_of_an_abandoned_try_does_not_end_the_next_one_at_the_same_life() {
    let mut stage = Stage::with_actor();
    let first = stage.request(stream(1), "a").expect("admitted");
    let effects = stage.tunnel(stream(1), 1, request_start("a"));
    assert_eq!(effects[0], Effect::Cancel { stream: first });
    let second = opened(&effects).expect("admitted");
    // What was cancelled says its last word, as it always does.
    assert_eq!(stage.reply(first, StreamReply::Abort), []);
    assert_eq!(tunnelled(&stage.reply(second, whole("answer"))).len(), 1);

    let first = stage.websocket(stream(2), 0, "a").expect("admitted");
    let second = stage.websocket(stream(2), 1, "a").expect("admitted");
    assert_eq!(stage.reply(first, StreamReply::Close { code: Some(1000), reason: None }), []);
    let effects = stage.reply(second, StreamReply::Open { can_hibernate: false });
    assert_eq!(tunnelled(&effects), [(stream(2), 0, ToServerTunnel::WebSocketOpen { can_hibernate: false })]);
}

#[test]
fn an_ending_life_closes_its_streams_before_it_says_so() {
    let mut stage = Stage::with_actor();
    stage.start("b", 0, 0);
    let request = stage.request(stream(1), "a").expect("admitted");
    let socket = stage.websocket(stream(2), 0, "a").expect("admitted");
    let other = stage.websocket(stream(3), 0, "b").expect("admitted");
    let effects = stage.end("a", 0);
    assert!(effects.contains(&Effect::Cancel { stream: request }));
    let gone = Some("actor.stopped".into());
    assert!(effects.contains(&Effect::WebSocketClosed { stream: socket, code: Some(1000), reason: gone }));
    let (abort, closed) = (ToServerTunnel::ResponseAbort, close(1000, "actor.stopped"));
    assert_eq!(tunnelled(&effects), [(stream(1), 0, abort), (stream(2), 0, closed)]);
    let stopped = sent(&effects).iter().position(|message| matches!(message, ToServer::Events(_)));
    assert_eq!(stopped, Some(2), "after both");
    assert_eq!(tunnelled(&stage.reply(other, StreamReply::Open { can_hibernate: false })).len(), 1);
}

#[test]
fn socket_messages_flow_both_ways_in_order() {
    let mut stage = Stage::with_actor();
    let opened = stage.websocket(stream(1), 0, "a").expect("admitted");
    let open = StreamReply::Open { can_hibernate: false };
    let message = StreamReply::Message { data: Bytes::from_static(b"yo"), binary: true };
    stage.reply(opened, open);
    let sent = tunnelled(&stage.reply(opened, message));
    let expected = ToServerTunnel::WebSocketMessage { data: Bytes::from_static(b"yo"), binary: true };
    assert_eq!(sent, [(stream(1), 1, expected)]);
    for index in 1..4 {
        let data = Bytes::from_static(b"hi");
        let expected = Effect::WebSocketMessage { stream: opened, data, binary: false, index };
        assert_eq!(stage.frame(stream(1), index), [expected]);
    }
    let effects = stage.reply(opened, StreamReply::MessageAck { index: 3 });
    assert_eq!(tunnelled(&effects), [(stream(1), 2, ToServerTunnel::WebSocketMessageAck { index: 3 })]);
}

#[test]
fn a_retried_open_may_begin_anywhere() {
    let mut stage = Stage::with_actor();
    let opened = stage.websocket(stream(1), 40_000, "a").expect("admitted");
    assert!(
        matches!(stage.frame(stream(1), 40_001)[..], [Effect::WebSocketMessage { stream, .. }] if stream == opened)
    );
    assert_eq!(stage.frame(stream(1), 40_001), [], "taken once");
    assert_eq!(stage.frame(stream(1), 39_000), [], "older ones never");
}

#[test]
fn message_indexes_wrap() {
    let mut stage = Stage::with_actor();
    stage.websocket(stream(1), u16::MAX - 1, "a").expect("admitted");
    for index in [u16::MAX, 0, 1] {
        assert_eq!(stage.frame(stream(1), index).len(), 1, "{index}");
    }
    for index in [u16::MAX - 1, u16::MAX, 0, 1] {
        assert_eq!(stage.frame(stream(1), index), [], "{index} again");
    }
    assert_eq!(stage.frame(stream(1), 2).len(), 1);
}

#[test]
fn a_gap_closes_the_socket_instead_of_hiding_it() {
    for (first, then) in [(0, 2), (u16::MAX - 1, 0), (u16::MAX, 1)] {
        let mut stage = Stage::with_actor();
        let opened = stage.websocket(stream(1), first, "a").expect("admitted");
        let effects = stage.frame(stream(1), then);
        let reason = Some("ws.message_index_skip".into());
        assert_eq!(effects[0], Effect::WebSocketClosed { stream: opened, code: Some(1008), reason });
        assert_eq!(tunnelled(&effects), [(stream(1), 0, close(1008, "ws.message_index_skip"))]);
        assert_eq!(stage.frame(stream(1), then.wrapping_add(1)), [], "closed is closed");
    }
}

#[test]
fn a_close_of_the_client_reaches_the_actor_once() {
    let mut stage = Stage::with_actor();
    let opened = stage.websocket(stream(1), 0, "a").expect("admitted");
    let bye = || ToClientTunnel::WebSocketClose { code: Some(1001), reason: Some("bye".into()) };
    let effects = stage.tunnel(stream(1), 1, bye());
    assert_eq!(effects, [Effect::WebSocketClosed { stream: opened, code: Some(1001), reason: Some("bye".into()) }]);
    assert_eq!(stage.tunnel(stream(1), 2, bye()), []);
    assert_eq!(stage.reply(opened, StreamReply::Close { code: None, reason: None }), [], "it knows already");
}

#[test]
fn a_close_of_the_actor_is_made_fit_for_every_client() {
    for (code, sent_code) in [(None, 1000), (Some(1005), 1000), (Some(0), 1000), (Some(4001), 4001)] {
        let mut stage = Stage::with_actor();
        let opened = stage.websocket(stream(1), 0, "a").expect("admitted");
        let reason = Some("x".repeat(200).into());
        let effects = stage.reply(opened, StreamReply::Close { code, reason });
        let [(_, _, ToServerTunnel::WebSocketClose { code, reason: Some(reason), hibernate: false })] =
            &tunnelled(&effects)[..]
        else {
            panic!("{effects:?}")
        };
        assert_eq!((*code, reason.len()), (Some(sent_code), 123));
    }
}

#[test]
fn messages_of_the_wrong_kind_leave_a_stream_alone() {
    let mut stage = Stage::with_actor();
    let request = stage.request(stream(1), "a").expect("admitted");
    let socket = stage.websocket(stream(2), 0, "a").expect("admitted");
    for message in [
        ToClientTunnel::WebSocketClose { code: None, reason: None },
        ToClientTunnel::WebSocketMessage { data: Bytes::new(), binary: true },
    ] {
        assert_eq!(stage.tunnel(stream(1), 1, message), []);
    }
    for message in [ToClientTunnel::RequestAbort, chunk(b"x", true)] {
        assert_eq!(stage.tunnel(stream(2), 1, message), []);
    }
    for reply in [
        StreamReply::Chunk { body: Bytes::new(), finish: true },
        StreamReply::Open { can_hibernate: true },
        StreamReply::Message { data: Bytes::new(), binary: true },
        StreamReply::MessageAck { index: 0 },
        StreamReply::Close { code: None, reason: None },
    ] {
        assert_eq!(stage.reply(request, reply), []);
    }
    for reply in [whole("x"), StreamReply::Chunk { body: Bytes::new(), finish: true }, StreamReply::Abort] {
        assert_eq!(stage.reply(socket, reply), []);
    }
    assert_eq!(tunnelled(&stage.reply(request, whole("x"))).len(), 1);
    assert_eq!(stage.frame(stream(2), 1).len(), 1);
}

#[test]
fn what_is_answered_while_the_gateway_is_away_follows_in_order_before_the_end() {
    let mut stage = Stage::with_actor();
    let request = stage.request(stream(1), "a").expect("admitted");
    let socket = stage.websocket(stream(2), 0, "a").expect("admitted");
    stage.cut();
    assert_eq!(stage.reply(request, whole("kept")), []);
    assert_eq!(stage.reply(socket, StreamReply::Open { can_hibernate: false }), []);
    assert_eq!(tunnelled(&stage.end("a", 0)), []);
    let effects = stage.reconnect();
    let sent: Vec<_> = tunnelled(&effects).into_iter().map(|(id, index, _)| (id, index)).collect();
    assert_eq!(sent, [(stream(1), 0), (stream(2), 0), (stream(2), 1)]);
    assert_eq!(tunnelled(&effects)[2].2, close(1000, "actor.stopped"));
    let place = |wanted: fn(&ToServer) -> bool| {
        effects.iter().rposition(|effect| matches!(effect, Effect::Send(message) if wanted(message)))
    };
    let tunnel = place(|message| matches!(message, ToServer::Tunnel { .. }));
    assert!(tunnel < place(|message| matches!(message, ToServer::Events(_))));
}

#[test]
fn what_is_kept_while_the_gateway_is_away_is_bounded_and_every_stream_still_ends() {
    let mut stage = Stage::with_actor();
    let socket = stage.websocket(stream(1), 0, "a").expect("admitted");
    let streaming = stage.request(stream(2), "a").expect("admitted");
    let unanswered = stage.request(stream(3), "a").expect("admitted");
    stage.cut();
    stage.reply(streaming, head(200));
    let data = Bytes::from(vec![0; 1024 * 1024]);
    let mut kept = 0;
    while stage.reply(socket, StreamReply::Message { data: data.clone(), binary: true }).is_empty() {
        kept += 1;
        assert!(kept <= 64);
    }
    assert!(kept >= 60, "{kept}");
    // The rest does not fit either.
    let chunk = StreamReply::Chunk { body: data.clone(), finish: false };
    assert_eq!(stage.reply(streaming, chunk), [Effect::Cancel { stream: streaming }]);
    stage.reply(unanswered, StreamReply::Response { status: 200, headers: vec![], body: data, more: false });

    let sent = tunnelled(&stage.reconnect());
    let last = |id: StreamId| sent.iter().rev().find(|(other, ..)| *other == id).map(|(_, _, message)| message.clone());
    assert_eq!(last(stream(1)), Some(close(1013, "the gateway was away for too long")));
    assert_eq!(last(stream(2)), Some(ToServerTunnel::ResponseAbort));
    assert_eq!(last(stream(3)), Some(ToServerTunnel::ResponseAbort));
}

#[test]
fn a_lost_gateway_takes_its_streams_with_it() {
    let mut stage = Stage::open_to(Features::default()).and_actor();
    let request = stage.request(stream(1), "a").expect("admitted");
    let answered = stage.request(stream(2), "a").expect("admitted");
    stage.cut();
    stage.reply(answered, whole("kept for a while"));
    let effects = stage.pass(LOST_AFTER);
    assert!(effects.contains(&Effect::Cancel { stream: request }));
    assert_eq!(tunnelled(&stage.reconnect()), []);
}

#[test]
fn only_so_many_streams_are_open_at_once() {
    let mut stage = Stage::with_actor();
    let number = |number: u32| StreamId { gateway: [1; 4], request: number.to_be_bytes() };
    let admitted = (0..70_000).take_while(|n| stage.request(number(*n), "a").is_some()).count();
    assert_eq!(admitted, 65_536);
    let effects = stage.tunnel(number(99_999), 0, request_start("a"));
    assert!(is_given_back(&tunnelled(&effects), number(99_999)), "{effects:?}");
    stage.tunnel(number(0), 1, ToClientTunnel::RequestAbort);
    assert!(stage.request(number(99_999), "a").is_some());
}

fn whole(body: &'static str) -> StreamReply {
    StreamReply::Response { status: 200, headers: vec![], body: Bytes::from_static(body.as_bytes()), more: false }
}

fn head(status: u16) -> StreamReply {
    StreamReply::Response { status, headers: vec![], body: Bytes::new(), more: true }
}

fn chunk(body: &'static [u8], finish: bool) -> ToClientTunnel {
    ToClientTunnel::RequestChunk { body: Bytes::from_static(body), finish }
}

fn close(code: u16, reason: &'static str) -> ToServerTunnel {
    ToServerTunnel::WebSocketClose { code: Some(code), reason: Some(reason.into()), hibernate: false }
}

/// A request nobody was given: the one answer that gateways take for "it has not run".
fn is_given_back(messages: &[(StreamId, u16, ToServerTunnel)], id: StreamId) -> bool {
    let [(stream, 0, ToServerTunnel::ResponseStart { status: 503, headers, stream: false, .. })] = messages else {
        return false;
    };
    *stream == id && headers.contains(&("x-rivet-error".into(), "guard.service_unavailable".into()))
}
