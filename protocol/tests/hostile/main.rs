//! What a peer can do with bytes alone: claim more than it sends, send more than it may, repeat itself. Each attempt is
//! refused, and memory follows what was sent, never what was claimed.

mod counting;

use bytes::{BufMut, Bytes, BytesMut};
use bytestring::ByteString;
use counting::measured;
use greenroom_protocol::limits::{FRAME_MAX, ITEMS_MAX, MESSAGE_MAX, PAYLOAD_MAX};
use greenroom_protocol::{
    DecodeError, EncodeError, KvRequest, MessageId, StreamId, ToClient, ToClientTunnel, ToServer, ToServerTunnel,
    Version,
};
use proptest::prelude::*;

#[test]
fn a_count_that_cannot_be_true_allocates_nothing() {
    for (name, direction, before) in places_of_counts() {
        for count in [101, 1 << 20, 1 << 32, 1 << 40, u64::MAX] {
            let frame = frame(&[&before, &varint(count), &[0; 100]]);
            let (refused, usage) = measured(|| direction.refusal(frame));
            let refused = refused.expect(name);
            assert_eq!((refused.at, refused.what), (before.len(), NO_ROOM), "{name}, {count}");
            assert!(usage.peak <= BOOKKEEPING, "{name}, {count}: {usage:?}");
        }
    }
}

#[test]
fn a_length_that_cannot_be_true_allocates_nothing() {
    for (name, direction, before) in places_of_counts() {
        if name == NO_LENGTH_INSIDE {
            continue;
        }
        for length in [101, 1 << 31, 1 << 32, 1 << 40, u64::MAX] {
            let frame = frame(&[&before, &varint(1), &varint(length), &[0; 100]]);
            let (refused, usage) = measured(|| direction.refusal(frame));
            assert_eq!(refused.expect(name).what, "a length points beyond the end of the message", "{name}, {length}");
            assert!(usage.peak <= 2 * BOOKKEEPING, "{name}, {length}: {usage:?}");
        }
    }
}

#[test]
fn a_count_that_could_be_true_allocates_little_before_the_items_come() {
    for (name, direction, before) in places_of_counts() {
        if name == NO_LENGTH_INSIDE {
            continue;
        }
        // Room for the claimed items, but the first of them is broken.
        let frame = frame(&[&before, &varint(ITEMS_MAX as u64), &[0xff; 10], &vec![0; 20 * ITEMS_MAX]]);
        let (refused, usage) = measured(|| direction.refusal(frame));
        assert!(refused.is_some(), "{name}");
        assert!(usage.peak <= 32 * 1024, "{name}: {usage:?}");
    }
}

#[test]
fn more_items_than_any_list_may_have_are_refused_before_they_are_read() {
    for (name, direction, before) in places_of_counts() {
        let frame = frame(&[&before, &varint(ITEMS_MAX as u64 + 1), &vec![0; 20 * (ITEMS_MAX + 1)]]);
        let (refused, usage) = measured(|| direction.refusal(frame));
        let refused = refused.expect(name);
        assert_eq!((refused.at, refused.what), (before.len(), "a list or map has more items than any may have"));
        assert!(usage.peak <= BOOKKEEPING, "{name}: {usage:?}");
    }
    let keys = vec![Bytes::new(); ITEMS_MAX + 1];
    refused_to_write(
        ToServer::Kv { actor_id: "a".into(), request_id: 1, request: KvRequest::Get { keys } },
        EncodeError::TooManyItems { items: ITEMS_MAX + 1 },
    );
}

#[test]
fn the_longest_list_of_the_shortest_items_takes_memory_in_proportion() {
    let keys = vec![Bytes::new(); ITEMS_MAX];
    let message = ToServer::Kv { actor_id: "a".into(), request_id: 1, request: KvRequest::Get { keys } };
    let frame = written(&message);
    let length = frame.len();
    let (read, usage) = measured(|| ToServer::decode(frame, Version::V7));
    assert_eq!(read, Ok(message));
    assert!(usage.peak <= 128 * length, "{usage:?} for {length} bytes");
}

#[test]
fn a_large_map_costs_no_square_of_its_keys() {
    let entries = 200_000;
    let mut headers: Vec<(ByteString, ByteString)> =
        (0..entries).map(|number| (format!("{number}").into(), ByteString::new())).collect();
    let frame = written_to_client(&opening(headers.clone()));
    let (read, usage) = measured(|| ToClient::decode(frame.clone(), Version::V7));
    assert_eq!(read, Ok(opening(headers.clone())));
    assert!(usage.peak <= 128 * frame.len(), "{usage:?} for {} bytes", frame.len());

    headers.push(("7".into(), ByteString::new()));
    let mut out = BytesMut::new();
    let refused = opening(headers).encode(Version::V7, &mut out);
    assert_eq!(refused, Err(EncodeError::RepeatedKey { what: "a header name" }));
    assert!(out.is_empty());
}

#[test]
fn a_repeated_key_is_refused_where_it_stands_in_small_maps_and_large() {
    for entries in [1, 2, 31, 32, 33, 500] {
        for repeated in [0, entries / 2, entries - 1] {
            let mut map = BytesMut::new();
            let keys = (0..entries).chain([repeated]);
            keys.for_each(|key| map.put_slice(format!("\x04k{key:03}\x01v").as_bytes()));
            map.put_slice(b"\x04last\x01v");
            for (name, direction, before) in places_of_counts() {
                if !name.ends_with("map") {
                    continue;
                }
                let count = varint(entries + 2);
                let frame = frame(&[&before, &count, &map, &[0; 4]]);
                let refused = direction.refusal(frame).expect(name);
                let (at, what) = (before.len() + count.len() + 7 * entries as usize, "a key stands twice in a map");
                assert_eq!(refused, DecodeError { at, what }, "{name}, {repeated} of {entries}");
            }
        }
    }
}

#[test]
fn a_frame_longer_than_any_is_refused_unread() {
    let mut frame = vec![0; FRAME_MAX + 1];
    frame[0] = 5;
    let refused = DecodeError { at: FRAME_MAX, what: "the message is longer than any may be" };
    assert_eq!(ToServer::decode(frame.clone().into(), Version::V7), Err(refused.clone()));
    assert_eq!(ToClient::decode(frame.into(), Version::V7), Err(refused));
}

#[test]
fn a_message_between_what_peers_take_and_our_frame_limit_is_read_but_not_written() {
    let longest = MESSAGE_MAX - written(&frame_for_client(Bytes::from(vec![0; MESSAGE_MAX - 100]))).len();
    let body = Bytes::from(vec![0; MESSAGE_MAX - 100 + longest + 1]);
    assert_eq!(written(&frame_for_client(body.slice(1..))).len(), MESSAGE_MAX);
    refused_to_write(frame_for_client(body.clone()), EncodeError::TooLarge { bytes: MESSAGE_MAX + 1 });

    let start = written(&frame_for_client(Bytes::new()));
    let by_hand = frame(&[&start[..start.len() - 2], &varint(body.len() as u64), &body, &[1]]);
    assert_eq!(ToServer::decode(by_hand, Version::V7), Ok(frame_for_client(body)));
}

#[test]
fn bodies_and_texts_of_a_message_stay_in_the_frame() {
    let text = |text: &str| ByteString::from(text);
    let message = ToClient::Tunnel {
        id: ID,
        message: ToClientTunnel::RequestStart {
            actor_id: text("actor"),
            method: text("POST"),
            path: text("/path"),
            headers: vec![(text("name"), text("value")), (text("other"), text("value"))],
            body: Some(Bytes::from(vec![7; 1000])),
            stream: false,
        },
    };
    let frame = written_to_client(&message);
    let inside = |part: &[u8]| frame.as_ptr_range().contains(&part.as_ptr());
    let Ok(ToClient::Tunnel { message, .. }) = ToClient::decode(frame.clone(), Version::V7) else { panic!("refused") };
    let ToClientTunnel::RequestStart { actor_id, method, path, headers, body, .. } = message else { panic!("changed") };
    assert!([actor_id, method, path].iter().all(|text| inside(text.as_bytes())));
    assert!(headers.iter().all(|(name, value)| inside(name.as_bytes()) && inside(value.as_bytes())));
    assert!(body.is_some_and(|body| inside(&body)));

    let entries = vec![Bytes::from_static(b"key"), Bytes::from_static(b"value")];
    let request = KvRequest::Put { keys: entries.clone(), values: entries };
    let frame = written(&ToServer::Kv { actor_id: text("actor"), request_id: 1, request });
    let inside = |part: &Bytes| frame.as_ptr_range().contains(&part.as_ptr());
    let Ok(ToServer::Kv { request, .. }) = ToServer::decode(frame.clone(), Version::V7) else { panic!("refused") };
    let KvRequest::Put { keys, values } = request else { panic!("changed") };
    assert!(keys.iter().chain(&values).all(inside));
}

#[test]
fn reading_the_largest_body_allocates_only_bookkeeping() {
    let frame = written(&frame_for_client(Bytes::from(vec![7; PAYLOAD_MAX])));
    let (read, usage) = measured(|| ToServer::decode(frame, Version::V7));
    assert!(read.is_ok());
    assert!(usage.peak <= BOOKKEEPING, "{usage:?}");
}

#[test]
fn writing_a_message_allocates_once() {
    for body in [0, 100, 100_000, PAYLOAD_MAX] {
        let message = frame_for_client(Bytes::from(vec![7; body]));
        let (out, usage) = measured(|| written_buffer(&message));
        assert!(usage.allocations <= 1 && usage.peak <= body + 100, "{usage:?} for {body} bytes");
        assert!(out.len() > body);
    }
    let headers = (0..30).map(|number| (format!("x-header-{number}").into(), "value".into())).collect();
    let message = opening(headers);
    let (_, usage) = measured(|| {
        let mut out = BytesMut::new();
        message.encode(Version::V7, &mut out).map(|()| out)
    });
    assert_eq!(usage.allocations, 1, "the check for repeated names needs no memory");
}

proptest! {
    #[test]
    fn memory_follows_what_was_sent(tag in 0..7u8, inner in 0..7u8, noise in prop::collection::vec(0..4u8, 0..3000)) {
        let tunnel = frame(&[&[tag], &[0; 10], &[inner], &noise]);
        let plain = frame(&[&[tag], &noise]);
        for frame in [tunnel, plain] {
            for version in Version::ALL {
                let bound = 128 * frame.len() + 32 * 1024;
                for direction in [Direction::ToServer, Direction::ToClient] {
                    let (_, usage) = measured(|| direction.refusal_in(frame.clone(), version));
                    prop_assert!(usage.peak <= bound, "{:?} for {} bytes in version {}", usage, frame.len(), version);
                }
            }
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Direction {
    ToServer,
    ToClient,
}

impl Direction {
    fn refusal(self, frame: Bytes) -> Option<DecodeError> {
        self.refusal_in(frame, Version::V7)
    }

    fn refusal_in(self, frame: Bytes, version: Version) -> Option<DecodeError> {
        match self {
            Direction::ToServer => ToServer::decode(frame, version).err(),
            Direction::ToClient => ToClient::decode(frame, version).err(),
        }
    }
}

/// Every place where the peer says how many items follow, with the bytes before it.
fn places_of_counts() -> Vec<(&'static str, Direction, Vec<u8>)> {
    let tunnel = |tag: u8, kind: u8, rest: &[u8]| [&[tag], &[0; 10][..], &[kind], rest].concat();
    let checkpoint = [0; 1 + 4 + 8];
    use Direction::{ToClient, ToServer};
    vec![
        ("init, names, map", ToServer, [&[0, 0][..], &[0; 8], &[1]].concat()),
        ("events", ToServer, vec![1]),
        ("command acknowledgements", ToServer, vec![2]),
        ("get, keys", ToServer, vec![5, 0, 0, 0, 0, 0, 0]),
        ("put, keys", ToServer, vec![5, 0, 0, 0, 0, 0, 2]),
        ("put, values", ToServer, vec![5, 0, 0, 0, 0, 0, 2, 0]),
        ("delete, keys", ToServer, vec![5, 0, 0, 0, 0, 0, 3]),
        ("response start, map", ToServer, tunnel(6, 0, &[200, 0])),
        ("commands", ToClient, vec![1]),
        (NO_LENGTH_INSIDE, ToClient, [&[1, 1][..], &checkpoint, &[0, 0, 0], &[0; 8], &[0]].concat()),
        ("event acknowledgements", ToClient, vec![2]),
        ("get answer, keys", ToClient, vec![3, 0, 0, 0, 0, 1]),
        ("get answer, values", ToClient, vec![3, 0, 0, 0, 0, 1, 0]),
        ("get answer, metadata", ToClient, vec![3, 0, 0, 0, 0, 1, 0, 0]),
        ("list answer, keys", ToClient, vec![3, 0, 0, 0, 0, 2]),
        ("request start, map", ToClient, tunnel(4, 0, &[0, 0, 0])),
        ("socket open, map", ToClient, tunnel(4, 3, &[0, 0])),
    ]
}

fn opening(headers: Vec<(ByteString, ByteString)>) -> ToClient {
    ToClient::Tunnel {
        id: ID,
        message: ToClientTunnel::WebSocketOpen { actor_id: "actor".into(), path: "/".into(), headers },
    }
}

fn frame_for_client(data: Bytes) -> ToServer {
    ToServer::Tunnel { id: ID, message: ToServerTunnel::WebSocketMessage { data, binary: true } }
}

fn refused_to_write(message: ToServer, expected: EncodeError) {
    let mut out = BytesMut::from("kept");
    assert_eq!(message.encode(Version::V7, &mut out), Err(expected));
    assert_eq!(out, "kept");
}

fn written(message: &ToServer) -> Bytes {
    written_buffer(message).freeze()
}

fn written_buffer(message: &ToServer) -> BytesMut {
    let mut out = BytesMut::new();
    message.encode(Version::V7, &mut out).expect("a message of version 7");
    out
}

fn written_to_client(message: &ToClient) -> Bytes {
    let mut out = BytesMut::new();
    message.encode(Version::V7, &mut out).expect("a message of version 7");
    out.freeze()
}

fn frame(parts: &[&[u8]]) -> Bytes {
    parts.concat().into()
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

const ID: MessageId = MessageId { stream: StreamId { gateway: [1; 4], request: [2; 4] }, index: 3 };

/// The one list whose items have no length that could be wrong.
const NO_LENGTH_INSIDE: &str = "start command, hibernating";

const NO_ROOM: &str = "a count is higher than the rest of the message has room for";

/// What sharing a frame costs, in bytes, and a little more.
const BOOKKEEPING: usize = 256;
