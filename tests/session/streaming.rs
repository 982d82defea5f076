//! Responses on their way out: whole, in chunks, too large.

use bytes::Bytes;
use greenroom::protocol::credit::{GRANT, WINDOW};
use greenroom::protocol::limits::PAYLOAD_MAX;
use greenroom::protocol::{ToClientTunnel, ToServerTunnel};
use greenroom::session::{Effect, Features};
use greenroom::stream::{StreamKey, StreamReply};

use crate::stage::*;

#[test]
fn to_our_own_gateway_a_response_travels_in_chunks() {
    let (mut stage, opened) = asked_by(OURS);
    let sent = tunnelled(&stage.reply(opened, head(200, &[("x", "1")])));
    let start = ToServerTunnel::ResponseStart {
        status: 200,
        headers: vec![("x".into(), "1".into())],
        body: None,
        stream: true,
    };
    assert_eq!(sent, [(stream(1), 0, start)]);
    let sent = tunnelled(&stage.reply(opened, chunk(b"one", false)));
    assert_eq!(sent, [(stream(1), 1, sent_chunk(b"one", false))]);
    assert_eq!(stage.reply(opened, chunk(b"", false)), [], "nothing to say");
    let sent = tunnelled(&stage.reply(opened, chunk(b"", true)));
    assert_eq!(sent, [(stream(1), 2, sent_chunk(b"", true))]);
    assert_eq!(stage.reply(opened, chunk(b"late", true)), []);
}

#[test]
fn large_pieces_are_cut_so_that_others_get_their_turn() {
    let (mut stage, opened) = asked_by(OURS);
    let body = Bytes::from(vec![7; PAYLOAD_MAX + 1]);
    let sent =
        tunnelled(&stage.reply(opened, StreamReply::Response { status: 200, headers: vec![], body, more: false }));
    let mut total = 0;
    for (place, (_, index, message)) in sent.iter().enumerate() {
        assert_eq!(usize::from(*index), place);
        if let ToServerTunnel::ResponseChunk { body, finish } = message {
            assert!(body.len() <= 256 * 1024);
            total += body.len();
            assert_eq!(*finish, place + 1 == sent.len());
        }
    }
    assert_eq!(total, PAYLOAD_MAX + 1);
}

#[test]
fn to_others_a_response_is_collected_and_sent_whole() {
    let (mut stage, opened) = asked_by(Features::default());
    assert_eq!(stage.reply(opened, head(200, &[])), []);
    assert_eq!(stage.reply(opened, chunk(b"one ", false)), []);
    let sent = tunnelled(&stage.reply(opened, chunk(b"two", true)));
    assert_eq!(sent, [(stream(1), 0, whole(&[], b"one two"))]);
    assert_eq!(stage.reply(opened, chunk(b"late", true)), []);
}

#[test]
fn a_response_of_just_the_limit_is_sent_and_one_byte_more_is_refused_once() {
    for (over, status) in [(0, 200), (1, 502)] {
        let (mut stage, opened) = asked_by(Features::default());
        let body = Bytes::from(vec![7; PAYLOAD_MAX + over]);
        let effects = stage.reply(opened, StreamReply::Response { status: 200, headers: vec![], body, more: false });
        let [(_, 0, ToServerTunnel::ResponseStart { status: sent, stream: false, .. })] = tunnelled(&effects)[..]
        else {
            panic!("one answer")
        };
        assert_eq!(sent, status);
        assert_eq!(effects.contains(&Effect::Cancel { stream: opened }), over > 0, "the actor may stop");
        assert_eq!(stage.reply(opened, chunk(b"x", true)), []);
    }
}

#[test]
fn a_collected_response_that_grows_too_large_is_refused_once() {
    let (mut stage, opened) = asked_by(Features::default());
    stage.reply(opened, head(200, &[]));
    let half = Bytes::from(vec![7; PAYLOAD_MAX / 2]);
    let mut effects = Vec::new();
    for _ in 0..4 {
        effects.extend(stage.reply(opened, StreamReply::Chunk { body: half.clone(), finish: false }));
    }
    assert_eq!(effects.len(), 2, "{}", effects.len());
    assert_eq!(effects[0], Effect::Cancel { stream: opened });
    assert!(matches!(tunnelled(&effects)[..], [(_, 0, ToServerTunnel::ResponseStart { status: 502, .. })]));
}

#[test]
fn all_collected_responses_together_are_bounded() {
    let mut stage = Stage::open_to(Features::default()).and_actor();
    let piece = Bytes::from(vec![7; PAYLOAD_MAX]);
    let mut open = Vec::new();
    let refused = loop {
        let opened = stage.request(stream(u8::try_from(open.len()).expect("few")), "a").expect("admitted");
        stage.reply(opened, head(200, &[]));
        let effects = stage.reply(opened, StreamReply::Chunk { body: piece.clone(), finish: false });
        if !effects.is_empty() {
            break effects;
        }
        open.push(opened);
    };
    assert!(matches!(tunnelled(&refused)[..], [(_, 0, ToServerTunnel::ResponseStart { status: 503, .. })]));
    assert_eq!(open.len(), 12);
    // Each way to end one makes room for another.
    stage.reply(open[0], chunk(b"", true));
    stage.reply(open[1], StreamReply::Abort);
    stage.tunnel(open[2].id, 1, ToClientTunnel::RequestAbort);
    for number in 100..103 {
        let opened = stage.request(stream(number), "a").expect("admitted");
        stage.reply(opened, head(200, &[]));
        assert_eq!(stage.reply(opened, StreamReply::Chunk { body: piece.clone(), finish: false }), []);
    }
    stage.end("a", 0);
}

#[test]
fn an_abort_in_the_middle_of_a_response_reaches_the_gateway() {
    for features in [OURS, Features::default()] {
        let (mut stage, opened) = asked_by(features);
        stage.reply(opened, head(200, &[]));
        stage.reply(opened, chunk(b"part", false));
        let sent = tunnelled(&stage.reply(opened, StreamReply::Abort));
        assert!(matches!(sent[..], [(_, _, ToServerTunnel::ResponseAbort)]), "{sent:?}");
    }
}

#[test]
fn a_crash_in_the_middle_of_a_response_aborts_it() {
    for features in [OURS, Features::default()] {
        let (mut stage, opened) = asked_by(features);
        stage.reply(opened, head(200, &[]));
        stage.reply(opened, chunk(b"part", false));
        let effects = stage.crash("a", 0);
        assert!(effects.contains(&Effect::Cancel { stream: opened }));
        assert!(matches!(tunnelled(&effects)[..], [(_, _, ToServerTunnel::ResponseAbort)]));
    }
}

#[test]
fn a_wrong_content_length_never_leaves() {
    for (method, status, said, body, fitted) in [
        ("GET", 200, "3", "five!", "5"),
        ("GET", 200, "9", "five!", "5"),
        ("GET", 200, "x", "five!", "5"),
        ("GET", 200, "5", "five!", "5"),
        ("GET", 200, "7", "", "0"),
        ("HEAD", 200, "7", "", "7"),
        ("GET", 304, "7", "", "7"),
    ] {
        let mut stage = Stage::with_actor();
        let start = ToClientTunnel::RequestStart {
            actor_id: "a".into(),
            method: method.into(),
            path: "/".into(),
            headers: vec![],
            body: None,
            stream: false,
        };
        let opened = opened(&stage.tunnel(stream(1), 0, start)).expect("admitted");
        let headers = vec![("content-length".into(), said.into())];
        let body = Bytes::from_static(body.as_bytes());
        let effects = stage.reply(opened, StreamReply::Response { status, headers, body, more: false });
        let [(_, _, ToServerTunnel::ResponseStart { headers, .. })] = &tunnelled(&effects)[..] else { panic!() };
        assert_eq!(&*headers[0].1, fitted, "{method} {status} {said}");
    }
}

#[test]
fn a_socket_message_above_the_limit_closes_the_socket_and_nothing_else() {
    let mut stage = Stage::with_actor();
    let large = stage.websocket(stream(1), 0, "a").expect("admitted");
    let other = stage.websocket(stream(2), 0, "a").expect("admitted");
    let data = Bytes::from(vec![0; PAYLOAD_MAX]);
    let message = |data| StreamReply::Message { data, binary: true };
    assert!(matches!(
        tunnelled(&stage.reply(large, message(data)))[..],
        [(_, 0, ToServerTunnel::WebSocketMessage { .. })]
    ));
    let effects = stage.reply(large, message(Bytes::from(vec![0; PAYLOAD_MAX + 1])));
    assert!(matches!(effects[0], Effect::WebSocketClosed { stream, code: Some(1009), .. } if stream == large));
    assert!(matches!(tunnelled(&effects)[..], [(_, 1, ToServerTunnel::WebSocketClose { code: Some(1009), .. })]));
    assert_eq!(tunnelled(&stage.reply(other, message(Bytes::new()))).len(), 1);
}

#[test]
fn what_a_client_takes_is_told_to_the_actor() {
    let (mut stage, opened) = asked_by(OURS);
    let grant = || ToClientTunnel::RequestChunk { body: Bytes::new(), finish: false };
    assert_eq!(stage.tunnel(opened.id, 1, grant()), [Effect::Granted { stream: opened }]);
    stage.reply(opened, head(200, &[]));
    assert_eq!(stage.tunnel(opened.id, 2, grant()), [Effect::Granted { stream: opened }]);
    stage.reply(opened, chunk(b"", true));
    assert_eq!(stage.tunnel(opened.id, 3, grant()), []);
    // Without credit it is a piece like any other.
    let (mut stage, opened) = asked_by(Features { stream: true, ..Features::default() });
    assert!(matches!(stage.tunnel(opened.id, 1, grant())[..], [Effect::RequestChunk { .. }]));
}

#[test]
fn what_an_actor_takes_of_a_request_is_granted_to_the_gateway_and_no_more() {
    let (mut stage, opened) = uploading();
    assert_eq!(stage.reply(opened, StreamReply::Grant), [], "nothing came yet");
    stage.tunnel(opened.id, 1, upload(GRANT, false));
    assert_eq!(tunnelled(&stage.reply(opened, StreamReply::Grant)), [(opened.id, 0, sent_chunk(b"", false))]);
    assert_eq!(stage.reply(opened, StreamReply::Grant), []);
    stage.tunnel(opened.id, 2, upload(GRANT, true));
    assert_eq!(stage.reply(opened, StreamReply::Grant), [], "nothing follows");
}

#[test]
fn a_gateway_that_ignores_its_credit_loses_the_stream() {
    let (mut stage, opened) = uploading();
    for index in 0..WINDOW / GRANT {
        assert_eq!(stage.tunnel(opened.id, u16::try_from(index).unwrap() + 1, upload(GRANT, false)).len(), 1);
    }
    let effects = stage.tunnel(opened.id, 9, upload(1, false));
    assert_eq!(effects[0], Effect::Cancel { stream: opened });
    assert!(matches!(tunnelled(&effects)[..], [(_, _, ToServerTunnel::ResponseAbort)]));
}

#[test]
fn bodies_on_their_way_break_off_with_the_connection_and_everything_else_goes_on() {
    let (mut stage, upload) = uploading();
    let download = stage.request(stream(2), "a").expect("admitted");
    let unanswered = stage.request(stream(3), "a").expect("admitted");
    stage.reply(download, head(200, &[]));
    let effects = stage.cut();
    for stream in [upload, download] {
        assert!(effects.contains(&Effect::Cancel { stream }), "{effects:?}");
    }
    assert!(!effects.contains(&Effect::Cancel { stream: unanswered }));
    // What begins while the gateway is away cannot have lost anything.
    stage.reply(unanswered, head(200, &[]));
    stage.reply(unanswered, chunk(b"all", true));
    let sent: Vec<_> = tunnelled(&stage.reconnect()).into_iter().map(|(id, _, message)| (id, message)).collect();
    assert_eq!(sent.len(), 4);
    assert_eq!(sent[..2], [(upload.id, ToServerTunnel::ResponseAbort), (download.id, ToServerTunnel::ResponseAbort)]);
    assert_eq!(sent[3], (unanswered.id, sent_chunk(b"all", true)));
}

/// A request whose body follows.
fn uploading() -> (Stage, StreamKey) {
    let mut stage = Stage::with_actor();
    let start = ToClientTunnel::RequestStart {
        actor_id: "a".into(),
        method: "POST".into(),
        path: "/".into(),
        headers: vec![],
        body: None,
        stream: true,
    };
    let opened = opened(&stage.tunnel(stream(1), 0, start)).expect("admitted");
    (stage, opened)
}

fn upload(bytes: usize, finish: bool) -> ToClientTunnel {
    ToClientTunnel::RequestChunk { body: Bytes::from(vec![7; bytes]), finish }
}

fn asked_by(features: Features) -> (Stage, StreamKey) {
    let mut stage = Stage::open_to(features).and_actor();
    let opened = stage.request(stream(1), "a").expect("admitted");
    (stage, opened)
}

fn head(status: u16, headers: &[(&'static str, &'static str)]) -> StreamReply {
    let headers = headers.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
    StreamReply::Response { status, headers, body: Bytes::new(), more: true }
}

fn chunk(body: &'static [u8], finish: bool) -> StreamReply {
    StreamReply::Chunk { body: Bytes::from_static(body), finish }
}

fn sent_chunk(body: &'static [u8], finish: bool) -> ToServerTunnel {
    ToServerTunnel::ResponseChunk { body: Bytes::from_static(body), finish }
}

fn whole(headers: &[(&'static str, &'static str)], body: &'static [u8]) -> ToServerTunnel {
    let headers = headers.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
    ToServerTunnel::ResponseStart { status: 200, headers, body: Some(Bytes::from_static(body)), stream: false }
}
