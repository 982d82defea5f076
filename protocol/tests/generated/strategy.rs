//! Every message a version can say, with the values that are most often wrong: empty, extreme, long.
//!
//! Strategies are boxed where they branch, since unions of unions by value outgrow the stack of a test.

use bytes::{Bytes, BytesMut};
use bytestring::ByteString;
use greenroom_protocol::{
    ActorConfig, ActorName, Checkpoint, Command, CommandWrapper, Event, EventWrapper, Headers, Init, InitMetadata,
    KvEntryMetadata, KvListQuery, KvRequest, KvResponse, MessageId, StreamId, ToClient, ToClientTunnel, ToServer,
    ToServerTunnel, Version,
};
use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;

pub fn version() -> impl Strategy<Value = Version> {
    prop::sample::select(Version::ALL.to_vec())
}

pub fn versioned_to_server(version: Version) -> impl Strategy<Value = (Version, ToServer)> {
    (Just(version), to_server(version))
}

pub fn versioned_to_client(version: Version) -> impl Strategy<Value = (Version, ToClient)> {
    (Just(version), to_client(version))
}

pub fn to_server(version: Version) -> BoxedStrategy<ToServer> {
    prop_oneof![
        init().prop_map(ToServer::Init),
        vec((checkpoint(), event()).prop_map(|(checkpoint, event)| EventWrapper { checkpoint, event }), 0..5)
            .prop_map(ToServer::Events),
        vec(acknowledgement(version), 0..5).prop_map(ToServer::AckCommands),
        Just(ToServer::Stopping),
        number().prop_map(|ts| ToServer::Pong { ts }),
        (text(), any::<u32>(), kv_request(version)).prop_map(|(actor_id, request_id, request)| ToServer::Kv {
            actor_id,
            request_id,
            request
        }),
        (message_id(), to_server_tunnel()).prop_map(|(id, message)| ToServer::Tunnel { id, message }),
    ]
    .boxed()
}

pub fn to_client(version: Version) -> BoxedStrategy<ToClient> {
    prop_oneof![
        (text(), init_metadata(version)).prop_map(|(runner_id, metadata)| ToClient::Init { runner_id, metadata }),
        vec((checkpoint(), command()).prop_map(|(checkpoint, command)| CommandWrapper { checkpoint, command }), 0..5)
            .prop_map(ToClient::Commands),
        vec(acknowledgement(version), 0..5).prop_map(ToClient::AckEvents),
        (any::<u32>(), kv_response()).prop_map(|(request_id, response)| ToClient::Kv { request_id, response }),
        (message_id(), to_client_tunnel()).prop_map(|(id, message)| ToClient::Tunnel { id, message }),
        number().prop_map(|ts| ToClient::Ping { ts }),
    ]
    .boxed()
}

/// Changes to apply to an encoded message, each at a place given as a fraction of its length.
pub type Damage = Vec<(Change, prop::sample::Index)>;

#[derive(Clone, Debug)]
pub enum Change {
    Set(u8),
    Insert(u8),
    Remove,
    Cut,
    Repeat,
}

pub fn damage() -> impl Strategy<Value = Damage> {
    let byte = || prop_oneof![0..8u8, Just(0x80), Just(0xff), any::<u8>()];
    let change = prop_oneof![
        4 => byte().prop_map(Change::Set),
        2 => byte().prop_map(Change::Insert),
        2 => Just(Change::Remove),
        1 => Just(Change::Cut),
        1 => Just(Change::Repeat),
    ];
    vec((change, any::<prop::sample::Index>()), 1..4)
}

pub fn damaged(message: &[u8], damage: &Damage) -> Bytes {
    let mut bytes = BytesMut::from(message).to_vec();
    for (change, place) in damage {
        let place = place.index(bytes.len() + 1);
        match change {
            Change::Set(byte) if place < bytes.len() => bytes[place] = *byte,
            Change::Remove if place < bytes.len() => drop(bytes.remove(place)),
            Change::Set(byte) | Change::Insert(byte) => bytes.insert(place, *byte),
            Change::Remove | Change::Cut => bytes.truncate(place),
            Change::Repeat => bytes.extend_from_within(place..),
        }
    }
    bytes.into()
}

fn init() -> BoxedStrategy<Init> {
    let name = text().prop_map(|metadata| ActorName { metadata });
    (text(), any::<u32>(), any::<u32>(), of(map(name)), of(text()))
        .prop_map(|(name, version, total_slots, prepopulate_actor_names, metadata)| Init {
            name,
            version,
            total_slots,
            prepopulate_actor_names,
            metadata,
        })
        .boxed()
}

fn init_metadata(version: Version) -> BoxedStrategy<InitMetadata> {
    (number(), number(), of(number()))
        .prop_map(move |(lost, stop, grace)| InitMetadata {
            runner_lost_threshold: lost,
            actor_stop_threshold: (version >= Version::V6).then_some(stop),
            serverless_drain_grace_period: grace.filter(|_| version >= Version::V6),
        })
        .boxed()
}

fn event() -> BoxedStrategy<Event> {
    prop_oneof![
        Just(Event::SleepIntent),
        Just(Event::StopIntent),
        Just(Event::Running),
        of(text()).prop_map(|message| Event::StoppedOk { message }),
        of(text()).prop_map(|message| Event::StoppedError { message }),
        of(number()).prop_map(|at| Event::SetAlarm { at }),
    ]
    .boxed()
}

fn command() -> BoxedStrategy<Command> {
    let config = (text(), of(text()), number(), of(data())).prop_map(|(name, key, create_ts, input)| ActorConfig {
        name,
        key,
        create_ts,
        input,
    });
    prop_oneof![
        (config, vec(stream_id(), 0..4)).prop_map(|(config, hibernating)| Command::Start { config, hibernating }),
        Just(Command::Stop),
    ]
    .boxed()
}

fn kv_request(version: Version) -> BoxedStrategy<KvRequest> {
    let keys = || vec(data(), 0..5);
    let query = prop_oneof![
        Just(KvListQuery::All),
        (data(), data(), any::<bool>()).prop_map(|(start, end, exclusive)| KvListQuery::Range {
            start,
            end,
            exclusive
        }),
        data().prop_map(|key| KvListQuery::Prefix { key }),
    ];
    prop_oneof![
        keys().prop_map(|keys| KvRequest::Get { keys }),
        (query, of(any::<bool>()), of(any::<u64>())).prop_map(|(query, reverse, limit)| KvRequest::List {
            query,
            reverse,
            limit
        }),
        (keys(), keys()).prop_map(|(keys, values)| KvRequest::Put { keys, values }),
        keys().prop_map(|keys| KvRequest::Delete { keys }),
        (data(), data()).prop_map(move |(start, end)| {
            if version < Version::V7 { KvRequest::Drop } else { KvRequest::DeleteRange { start, end } }
        }),
        Just(KvRequest::Drop),
    ]
    .boxed()
}

fn kv_response() -> BoxedStrategy<KvResponse> {
    let entries = || {
        let metadata = (data(), number()).prop_map(|(version, update_ts)| KvEntryMetadata { version, update_ts });
        (vec(data(), 0..5), vec(data(), 0..5), vec(metadata, 0..5))
    };
    prop_oneof![
        text().prop_map(|message| KvResponse::Error { message }),
        entries().prop_map(|(keys, values, metadata)| KvResponse::Get { keys, values, metadata }),
        entries().prop_map(|(keys, values, metadata)| KvResponse::List { keys, values, metadata }),
        Just(KvResponse::Put),
        Just(KvResponse::Delete),
        Just(KvResponse::Drop),
    ]
    .boxed()
}

fn to_server_tunnel() -> BoxedStrategy<ToServerTunnel> {
    prop_oneof![
        (any::<u16>(), headers(), of(data()), any::<bool>()).prop_map(|(status, headers, body, stream)| {
            ToServerTunnel::ResponseStart { status, headers, body, stream }
        }),
        (data(), any::<bool>()).prop_map(|(body, finish)| ToServerTunnel::ResponseChunk { body, finish }),
        Just(ToServerTunnel::ResponseAbort),
        any::<bool>().prop_map(|can_hibernate| ToServerTunnel::WebSocketOpen { can_hibernate }),
        (data(), any::<bool>()).prop_map(|(data, binary)| ToServerTunnel::WebSocketMessage { data, binary }),
        any::<u16>().prop_map(|index| ToServerTunnel::WebSocketMessageAck { index }),
        (of(any::<u16>()), of(text()), any::<bool>())
            .prop_map(|(code, reason, hibernate)| { ToServerTunnel::WebSocketClose { code, reason, hibernate } }),
    ]
    .boxed()
}

fn to_client_tunnel() -> BoxedStrategy<ToClientTunnel> {
    prop_oneof![
        (text(), text(), text(), headers(), of(data()), any::<bool>()).prop_map(
            |(actor_id, method, path, headers, body, stream)| ToClientTunnel::RequestStart {
                actor_id,
                method,
                path,
                headers,
                body,
                stream
            }
        ),
        (data(), any::<bool>()).prop_map(|(body, finish)| ToClientTunnel::RequestChunk { body, finish }),
        Just(ToClientTunnel::RequestAbort),
        (text(), text(), headers()).prop_map(|(actor_id, path, headers)| ToClientTunnel::WebSocketOpen {
            actor_id,
            path,
            headers
        }),
        (data(), any::<bool>()).prop_map(|(data, binary)| ToClientTunnel::WebSocketMessage { data, binary }),
        (of(any::<u16>()), of(text())).prop_map(|(code, reason)| ToClientTunnel::WebSocketClose { code, reason }),
    ]
    .boxed()
}

fn checkpoint() -> impl Strategy<Value = Checkpoint> {
    (text(), any::<u32>(), number()).prop_map(|(actor_id, generation, index)| Checkpoint {
        actor_id,
        generation,
        index,
    })
}

/// Version 4 acknowledges without a generation.
fn acknowledgement(version: Version) -> impl Strategy<Value = Checkpoint> {
    checkpoint().prop_map(move |checkpoint| Checkpoint {
        generation: if version == Version::V4 { 0 } else { checkpoint.generation },
        ..checkpoint
    })
}

fn message_id() -> impl Strategy<Value = MessageId> {
    (stream_id(), any::<u16>()).prop_map(|(stream, index)| MessageId { stream, index })
}

fn stream_id() -> impl Strategy<Value = StreamId> {
    any::<([u8; 4], [u8; 4])>().prop_map(|(gateway, request)| StreamId { gateway, request })
}

fn headers() -> BoxedStrategy<Headers> {
    map(text()).boxed()
}

/// Keys from a small alphabet, so that damage easily makes two of them equal; now and then a large map.
fn map<T: Clone + std::fmt::Debug>(
    value: impl Strategy<Value = T> + Clone,
) -> impl Strategy<Value = Vec<(ByteString, T)>> {
    let key = prop_oneof!["[ab]{0,2}".prop_map(ByteString::from), text()];
    let few = vec((key, value.clone()), 0..6);
    let many = vec(value, 30..50).prop_map(|values| {
        values.into_iter().enumerate().map(|(number, value)| (format!("{number}").into(), value)).collect()
    });
    prop_oneof![8 => few, 1 => many].prop_map(|mut entries: Vec<(ByteString, T)>| {
        let mut seen = std::collections::HashSet::new();
        entries.retain(|(key, _)| seen.insert(key.clone()));
        entries
    })
}

fn text() -> impl Strategy<Value = ByteString> + Clone {
    prop_oneof![
        1 => Just(ByteString::new()),
        8 => "\\PC{0,12}".prop_map(ByteString::from),
        1 => any::<String>().prop_map(ByteString::from),
        1 => (120..140usize).prop_map(|length| "x".repeat(length).into()),
    ]
}

fn data() -> impl Strategy<Value = Bytes> {
    prop_oneof![
        1 => Just(Bytes::new()),
        8 => vec(any::<u8>(), 0..12).prop_map(Bytes::from),
        1 => (120..140usize).prop_map(|length| vec![0xff; length].into()),
        1 => (16_380..16_390usize).prop_map(|length| vec![7; length].into()),
    ]
}

fn number() -> impl Strategy<Value = i64> {
    prop_oneof![any::<i64>(), -2..3i64, Just(i64::MIN), Just(i64::MAX)]
}
