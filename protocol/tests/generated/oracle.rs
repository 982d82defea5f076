//! Version 7 as types of `serde_bare`, an implementation that shares nothing with ours.
//!
//! It is laxer than we are: it takes numbers in any length, any bool but 0 as true, and bytes after the message. All of
//! these disappear when it writes what it read, so a message is one of ours exactly when it comes back unchanged and
//! has no key twice.

use std::collections::HashSet;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

pub fn accepts_from_runner(bytes: &[u8]) -> Result<(), String> {
    let message: ToServer = unchanged(bytes)?;
    match &message {
        ToServer::Init { names: Some(names), .. } => no_key_twice(names),
        ToServer::Tunnel { message: ToServerTunnel::ResponseStart { headers, .. }, .. } => no_key_twice(headers),
        _ => Ok(()),
    }
}

pub fn accepts_from_gateway(bytes: &[u8]) -> Result<(), String> {
    let message: ToClient = unchanged(bytes)?;
    match &message {
        ToClient::Tunnel { message: ToClientTunnel::RequestStart { headers, .. }, .. }
        | ToClient::Tunnel { message: ToClientTunnel::WebSocketOpen { headers, .. }, .. } => no_key_twice(headers),
        _ => Ok(()),
    }
}

fn unchanged<T: Serialize + DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    let message = serde_bare::from_slice(bytes).map_err(|error| error.to_string())?;
    let again = serde_bare::to_vec(&message).map_err(|error| error.to_string())?;
    if again == bytes { Ok(message) } else { Err("it has a shorter form".to_owned()) }
}

fn no_key_twice(map: &Map) -> Result<(), String> {
    let mut seen = HashSet::new();
    match map.iter().find(|(key, _)| !seen.insert(key)) {
        Some((key, _)) => Err(format!("{key:?} stands twice")),
        None => Ok(()),
    }
}

type Map = Vec<(String, String)>;
type Data = Vec<u8>;

#[derive(Serialize, Deserialize)]
enum ToServer {
    Init { name: String, version: u32, slots: u32, names: Option<Map>, metadata: Option<String> },
    Events(Vec<EventWrapper>),
    AckCommands(Vec<Checkpoint>),
    Stopping,
    Pong(i64),
    Kv { actor: String, request: u32, data: KvRequest },
    Tunnel { id: MessageId, message: ToServerTunnel },
}

#[derive(Serialize, Deserialize)]
enum ToClient {
    Init { runner: String, lost: i64, stop: i64, grace: Option<i64> },
    Commands(Vec<CommandWrapper>),
    AckEvents(Vec<Checkpoint>),
    Kv { request: u32, data: KvResponse },
    Tunnel { id: MessageId, message: ToClientTunnel },
    Ping(i64),
}

#[derive(Serialize, Deserialize)]
struct Checkpoint {
    actor: String,
    generation: u32,
    index: i64,
}

#[derive(Serialize, Deserialize)]
struct EventWrapper {
    checkpoint: Checkpoint,
    event: Event,
}

#[derive(Serialize, Deserialize)]
enum Event {
    Intent(Intent),
    State(State),
    SetAlarm(Option<i64>),
}

#[derive(Serialize, Deserialize)]
enum Intent {
    Sleep,
    Stop,
}

#[derive(Serialize, Deserialize)]
enum State {
    Running,
    Stopped { code: StopCode, message: Option<String> },
}

#[derive(Serialize, Deserialize)]
enum StopCode {
    Ok,
    Error,
}

#[derive(Serialize, Deserialize)]
struct CommandWrapper {
    checkpoint: Checkpoint,
    command: Command,
}

#[derive(Serialize, Deserialize)]
enum Command {
    Start { name: String, key: Option<String>, create: i64, input: Option<Data>, hibernating: Vec<StreamId> },
    Stop,
}

#[derive(Serialize, Deserialize)]
struct StreamId {
    gateway: [u8; 4],
    request: [u8; 4],
}

#[derive(Serialize, Deserialize)]
struct MessageId {
    gateway: [u8; 4],
    request: [u8; 4],
    index: u16,
}

#[derive(Serialize, Deserialize)]
enum KvRequest {
    Get(Vec<Data>),
    List { query: Query, reverse: Option<bool>, limit: Option<u64> },
    Put { keys: Vec<Data>, values: Vec<Data> },
    Delete(Vec<Data>),
    DeleteRange { start: Data, end: Data },
    Drop,
}

#[derive(Serialize, Deserialize)]
enum Query {
    All,
    Range { start: Data, end: Data, exclusive: bool },
    Prefix(Data),
}

#[derive(Serialize, Deserialize)]
enum KvResponse {
    Error(String),
    Get { keys: Vec<Data>, values: Vec<Data>, metadata: Vec<Metadata> },
    List { keys: Vec<Data>, values: Vec<Data>, metadata: Vec<Metadata> },
    Put,
    Delete,
    Drop,
}

#[derive(Serialize, Deserialize)]
struct Metadata {
    version: Data,
    update: i64,
}

#[derive(Serialize, Deserialize)]
enum ToServerTunnel {
    ResponseStart { status: u16, headers: Map, body: Option<Data>, stream: bool },
    ResponseChunk { body: Data, finish: bool },
    ResponseAbort,
    WebSocketOpen { hibernate: bool },
    WebSocketMessage { data: Data, binary: bool },
    WebSocketMessageAck(u16),
    WebSocketClose { code: Option<u16>, reason: Option<String>, hibernate: bool },
}

#[derive(Serialize, Deserialize)]
enum ToClientTunnel {
    RequestStart { actor: String, method: String, path: String, headers: Map, body: Option<Data>, stream: bool },
    RequestChunk { body: Data, finish: bool },
    RequestAbort,
    WebSocketOpen { actor: String, path: String, headers: Map },
    WebSocketMessage { data: Data, binary: bool },
    WebSocketClose { code: Option<u16>, reason: Option<String> },
}
