//! Builds messages from the JSON that describes them, without touching the codec.

use bytes::{Bytes, BytesMut};
use bytestring::ByteString;
use greenroom_protocol::{
    ActorConfig, ActorName, Checkpoint, Command, CommandWrapper, EncodeError, Event, EventWrapper, Headers, Init,
    InitMetadata, KvEntryMetadata, KvListQuery, KvRequest, KvResponse, MessageId, StreamId, ToClient, ToClientTunnel,
    ToServer, ToServerTunnel, Version,
};
use serde_json::Value;

/// One recorded message.
pub struct Vector {
    pub name: String,
    pub direction: Direction,
    pub message: Described,
    pub bytes: Bytes,
}

#[derive(Clone, Copy, Debug)]
pub enum Direction {
    ToServer,
    ToClient,
}

#[derive(Debug, PartialEq)]
pub enum Described {
    ToServer(ToServer),
    ToClient(ToClient),
}

impl Vector {
    pub fn from_json(json: &Value) -> Self {
        let direction = direction(json);
        let message = match direction {
            Direction::ToServer => Described::ToServer(to_server(&json["message"])),
            Direction::ToClient => Described::ToClient(to_client(&json["message"])),
        };
        Vector { name: json["name"].as_str().expect("name").to_owned(), direction, message, bytes: hex(&json["hex"]) }
    }
}

impl Described {
    pub fn encode(&self, version: Version, out: &mut BytesMut) -> Result<(), EncodeError> {
        match self {
            Described::ToServer(message) => message.encode(version, out),
            Described::ToClient(message) => message.encode(version, out),
        }
    }
}

pub fn direction(json: &Value) -> Direction {
    match json["direction"].as_str() {
        Some("to_server") => Direction::ToServer,
        Some("to_client") => Direction::ToClient,
        other => panic!("direction {other:?}"),
    }
}

pub fn hex(json: &Value) -> Bytes {
    let digits = json.as_str().expect("hex");
    assert!(digits.len().is_multiple_of(2));
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).expect("hex")).collect()
}

fn to_server(json: &Value) -> ToServer {
    let (tag, val) = union(json);
    match tag {
        "ToServerInit" => ToServer::Init(Init {
            name: text(&val["name"]),
            version: u32(&val["version"]),
            total_slots: u32(&val["totalSlots"]),
            prepopulate_actor_names: optional(&val["prepopulateActorNames"], |names| {
                map(names, |name| ActorName { metadata: text(&name["metadata"]) })
            }),
            metadata: optional(&val["metadata"], text),
        }),
        "ToServerEvents" => ToServer::Events(list(val, event)),
        "ToServerAckCommands" => ToServer::AckCommands(list(&val["lastCommandCheckpoints"], checkpoint)),
        "ToServerStopping" => ToServer::Stopping,
        "ToServerPong" => ToServer::Pong { ts: i64(&val["ts"]) },
        "ToServerKvRequest" => ToServer::Kv {
            actor_id: text(&val["actorId"]),
            request_id: u32(&val["requestId"]),
            request: kv_request(&val["data"]),
        },
        "ToServerTunnelMessage" => {
            ToServer::Tunnel { id: message_id(&val["messageId"]), message: to_server_tunnel(&val["messageKind"]) }
        }
        _ => panic!("tag {tag}"),
    }
}

fn to_client(json: &Value) -> ToClient {
    let (tag, val) = union(json);
    match tag {
        "ToClientInit" => ToClient::Init {
            runner_id: text(&val["runnerId"]),
            metadata: InitMetadata {
                runner_lost_threshold: i64(&val["metadata"]["runnerLostThreshold"]),
                actor_stop_threshold: optional(&val["metadata"]["actorStopThreshold"], i64),
                serverless_drain_grace_period: optional(&val["metadata"]["serverlessDrainGracePeriod"], i64),
            },
        },
        "ToClientCommands" => ToClient::Commands(list(val, command)),
        "ToClientAckEvents" => ToClient::AckEvents(list(&val["lastEventCheckpoints"], checkpoint)),
        "ToClientKvResponse" => {
            ToClient::Kv { request_id: u32(&val["requestId"]), response: kv_response(&val["data"]) }
        }
        "ToClientTunnelMessage" => {
            ToClient::Tunnel { id: message_id(&val["messageId"]), message: to_client_tunnel(&val["messageKind"]) }
        }
        "ToClientPing" => ToClient::Ping { ts: i64(&val["ts"]) },
        _ => panic!("tag {tag}"),
    }
}

/// Version 4 says the generation in the body, the others in the checkpoint.
fn wrapped_checkpoint(json: &Value) -> Checkpoint {
    let mut checkpoint = checkpoint(&json["checkpoint"]);
    if let Some(generation) = json["inner"]["val"].get("generation") {
        checkpoint.generation = u32(generation);
    }
    checkpoint
}

fn event(json: &Value) -> EventWrapper {
    let (tag, val) = union(&json["inner"]);
    let event = match tag {
        "EventActorIntent" => match union(&val["intent"]).0 {
            "ActorIntentSleep" => Event::SleepIntent,
            "ActorIntentStop" => Event::StopIntent,
            tag => panic!("tag {tag}"),
        },
        "EventActorStateUpdate" => match union(&val["state"]) {
            ("ActorStateRunning", _) => Event::Running,
            ("ActorStateStopped", stopped) => {
                let message = optional(&stopped["message"], text);
                match stopped["code"].as_str() {
                    Some("Ok") => Event::StoppedOk { message },
                    Some("Error") => Event::StoppedError { message },
                    other => panic!("code {other:?}"),
                }
            }
            (tag, _) => panic!("tag {tag}"),
        },
        "EventActorSetAlarm" => Event::SetAlarm { at: optional(&val["alarmTs"], i64) },
        _ => panic!("tag {tag}"),
    };
    EventWrapper { checkpoint: wrapped_checkpoint(json), event }
}

fn command(json: &Value) -> CommandWrapper {
    let (tag, val) = union(&json["inner"]);
    let command = match tag {
        "CommandStartActor" => Command::Start {
            config: ActorConfig {
                name: text(&val["config"]["name"]),
                key: optional(&val["config"]["key"], text),
                create_ts: i64(&val["config"]["createTs"]),
                input: optional(&val["config"]["input"], hex),
            },
            hibernating: list(&val["hibernatingRequests"], stream_id),
        },
        "CommandStopActor" => Command::Stop,
        _ => panic!("tag {tag}"),
    };
    CommandWrapper { checkpoint: wrapped_checkpoint(json), command }
}

fn kv_request(json: &Value) -> KvRequest {
    let (tag, val) = union(json);
    match tag {
        "KvGetRequest" => KvRequest::Get { keys: list(&val["keys"], hex) },
        "KvListRequest" => KvRequest::List {
            query: match union(&val["query"]) {
                ("KvListAllQuery", _) => KvListQuery::All,
                ("KvListRangeQuery", range) => KvListQuery::Range {
                    start: hex(&range["start"]),
                    end: hex(&range["end"]),
                    exclusive: bool(&range["exclusive"]),
                },
                ("KvListPrefixQuery", prefix) => KvListQuery::Prefix { key: hex(&prefix["key"]) },
                (tag, _) => panic!("tag {tag}"),
            },
            reverse: optional(&val["reverse"], bool),
            limit: optional(&val["limit"], |limit| limit.as_str().expect("u64").parse().expect("u64")),
        },
        "KvPutRequest" => KvRequest::Put { keys: list(&val["keys"], hex), values: list(&val["values"], hex) },
        "KvDeleteRequest" => KvRequest::Delete { keys: list(&val["keys"], hex) },
        "KvDeleteRangeRequest" => KvRequest::DeleteRange { start: hex(&val["start"]), end: hex(&val["end"]) },
        "KvDropRequest" => KvRequest::Drop,
        _ => panic!("tag {tag}"),
    }
}

fn kv_response(json: &Value) -> KvResponse {
    let (tag, val) = union(json);
    let entries = || (list(&val["keys"], hex), list(&val["values"], hex), list(&val["metadata"], kv_metadata));
    match tag {
        "KvErrorResponse" => KvResponse::Error { message: text(&val["message"]) },
        "KvGetResponse" => {
            let (keys, values, metadata) = entries();
            KvResponse::Get { keys, values, metadata }
        }
        "KvListResponse" => {
            let (keys, values, metadata) = entries();
            KvResponse::List { keys, values, metadata }
        }
        "KvPutResponse" => KvResponse::Put,
        "KvDeleteResponse" => KvResponse::Delete,
        "KvDropResponse" => KvResponse::Drop,
        _ => panic!("tag {tag}"),
    }
}

fn kv_metadata(json: &Value) -> KvEntryMetadata {
    KvEntryMetadata { version: hex(&json["version"]), update_ts: i64(&json["updateTs"]) }
}

fn to_server_tunnel(json: &Value) -> ToServerTunnel {
    let (tag, val) = union(json);
    match tag {
        "ToServerResponseStart" => ToServerTunnel::ResponseStart {
            status: u16(&val["status"]),
            headers: headers(&val["headers"]),
            body: optional(&val["body"], hex),
            stream: bool(&val["stream"]),
        },
        "ToServerResponseChunk" => {
            ToServerTunnel::ResponseChunk { body: hex(&val["body"]), finish: bool(&val["finish"]) }
        }
        "ToServerResponseAbort" => ToServerTunnel::ResponseAbort,
        "ToServerWebSocketOpen" => ToServerTunnel::WebSocketOpen { can_hibernate: bool(&val["canHibernate"]) },
        "ToServerWebSocketMessage" => {
            ToServerTunnel::WebSocketMessage { data: hex(&val["data"]), binary: bool(&val["binary"]) }
        }
        "ToServerWebSocketMessageAck" => ToServerTunnel::WebSocketMessageAck { index: u16(&val["index"]) },
        "ToServerWebSocketClose" => ToServerTunnel::WebSocketClose {
            code: optional(&val["code"], u16),
            reason: optional(&val["reason"], text),
            hibernate: bool(&val["hibernate"]),
        },
        _ => panic!("tag {tag}"),
    }
}

fn to_client_tunnel(json: &Value) -> ToClientTunnel {
    let (tag, val) = union(json);
    match tag {
        "ToClientRequestStart" => ToClientTunnel::RequestStart {
            actor_id: text(&val["actorId"]),
            method: text(&val["method"]),
            path: text(&val["path"]),
            headers: headers(&val["headers"]),
            body: optional(&val["body"], hex),
            stream: bool(&val["stream"]),
        },
        "ToClientRequestChunk" => {
            ToClientTunnel::RequestChunk { body: hex(&val["body"]), finish: bool(&val["finish"]) }
        }
        "ToClientRequestAbort" => ToClientTunnel::RequestAbort,
        "ToClientWebSocketOpen" => ToClientTunnel::WebSocketOpen {
            actor_id: text(&val["actorId"]),
            path: text(&val["path"]),
            headers: headers(&val["headers"]),
        },
        "ToClientWebSocketMessage" => {
            ToClientTunnel::WebSocketMessage { data: hex(&val["data"]), binary: bool(&val["binary"]) }
        }
        "ToClientWebSocketClose" => {
            ToClientTunnel::WebSocketClose { code: optional(&val["code"], u16), reason: optional(&val["reason"], text) }
        }
        _ => panic!("tag {tag}"),
    }
}

fn checkpoint(json: &Value) -> Checkpoint {
    Checkpoint {
        actor_id: text(&json["actorId"]),
        generation: json.get("generation").map_or(0, u32),
        index: i64(&json["index"]),
    }
}

fn message_id(json: &Value) -> MessageId {
    MessageId { stream: stream_id(json), index: u16(&json["messageIndex"]) }
}

fn stream_id(json: &Value) -> StreamId {
    let four = |json| hex(json).as_ref().try_into().expect("four bytes");
    StreamId { gateway: four(&json["gatewayId"]), request: four(&json["requestId"]) }
}

fn headers(json: &Value) -> Headers {
    map(json, text)
}

fn map<T>(json: &Value, value: impl Fn(&Value) -> T) -> Vec<(ByteString, T)> {
    list(json, |pair| (text(&pair[0]), value(&pair[1])))
}

fn list<T>(json: &Value, item: impl Fn(&Value) -> T) -> Vec<T> {
    json.as_array().expect("list").iter().map(item).collect()
}

fn optional<T>(json: &Value, value: impl Fn(&Value) -> T) -> Option<T> {
    (!json.is_null()).then(|| value(json))
}

fn union(json: &Value) -> (&str, &Value) {
    (json["tag"].as_str().expect("tag"), &json["val"])
}

fn text(json: &Value) -> ByteString {
    json.as_str().expect("text").into()
}

fn bool(json: &Value) -> bool {
    json.as_bool().expect("bool")
}

fn u16(json: &Value) -> u16 {
    json.as_u64().expect("number").try_into().expect("u16")
}

fn u32(json: &Value) -> u32 {
    json.as_u64().expect("number").try_into().expect("u32")
}

fn i64(json: &Value) -> i64 {
    json.as_str().expect("number").parse().expect("i64")
}
