//! What one message costs in the codec, and what one request costs a runner in allocations.

use std::hint::black_box;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use greenroom::protocol::{
    KvRequest, KvResponse, MessageId, StreamId, ToClient, ToClientTunnel, ToServer, ToServerTunnel, Version,
};

use crate::allocator;
use crate::figures::{Figures, Part, Quantity, Side};

/// A message as a runner reads or writes it.
enum Case {
    Read(&'static str, ToClient),
    Write(&'static str, ToServer),
}

/// One round over all messages, ours and the TypeScript runner's codec.
pub fn measure(seconds: f64, modules: Option<&Path>, figures: &mut Figures) -> Result<(), String> {
    for case in cases() {
        let (name, frame, [nanoseconds, allocations]) = case.measure(seconds / 4.0);
        figures.add(Part::Codec, name, Quantity::Nanoseconds, Side::Ours, nanoseconds);
        figures.add(Part::Codec, name, Quantity::Allocations, Side::Ours, allocations);
        let Some(modules) = modules else { continue };
        let theirs = typescript(&case, &frame, seconds / 4.0, modules)?;
        eprintln!("{name:<48} {nanoseconds:.0} ns, {allocations:.1} allocations; TypeScript {theirs:.0} ns");
        figures.add(Part::Codec, name, Quantity::Nanoseconds, Side::TypeScript, theirs);
    }
    Ok(())
}

impl Case {
    fn measure(&self, seconds: f64) -> (&'static str, Bytes, [f64; 2]) {
        let mut frame = BytesMut::new();
        match self {
            Case::Read(name, message) => {
                message.encode(Version::V7, &mut frame).expect("a message of ours encodes");
                let frame = frame.freeze();
                let read = || drop(black_box(ToClient::decode(black_box(frame.clone()), Version::V7)));
                (name, frame.clone(), each(seconds, read))
            }
            Case::Write(name, message) => {
                message.encode(Version::V7, &mut frame).expect("a message of ours encodes");
                let write = || {
                    let mut out = BytesMut::new();
                    black_box(message).encode(Version::V7, &mut out).expect("it did before");
                    drop(black_box(out.freeze()));
                };
                (name, frame.freeze(), each(seconds, write))
            }
        }
    }
}

/// Nanoseconds and allocations of each call.
fn each(seconds: f64, mut call: impl FnMut()) -> [f64; 2] {
    for _ in 0..BATCH {
        call();
    }
    let (begin, before, mut calls) = (Instant::now(), allocator::count(), 0.0);
    while begin.elapsed().as_secs_f64() < seconds {
        for _ in 0..BATCH {
            call();
        }
        calls += BATCH as f64;
    }
    let elapsed = begin.elapsed().as_nanos() as f64;
    [elapsed / calls, (allocator::count() - before) as f64 / calls]
}

/// Nanoseconds of the same frame in the codec of the TypeScript runner.
fn typescript(case: &Case, frame: &Bytes, seconds: f64, modules: &Path) -> Result<f64, String> {
    let direction = match case {
        Case::Read(..) => "read",
        Case::Write(..) => "write",
    };
    let hex: String = frame.iter().map(|byte| format!("{byte:02x}")).collect();
    let output = Command::new("node")
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/benches/load/ts_codec.mjs"))
        .args([direction, &hex, &seconds.to_string()])
        .env("MODULES", modules)
        .output()
        .map_err(|error| format!("node does not start: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    text.trim().parse().map_err(|_| format!("ts_codec.mjs: {text}{}", String::from_utf8_lossy(&output.stderr)))
}

fn cases() -> Vec<Case> {
    let id = MessageId { stream: StreamId { gateway: *b"load", request: *b"abcd" }, index: 7 };
    let header = |name: &'static str, value: &'static str| (name.into(), value.into());
    let data = || Bytes::from_static(b"thirty-two bytes of conversation");
    let request = ToClientTunnel::RequestStart {
        actor_id: "actor0000000000000000000000001".into(),
        method: "POST".into(),
        path: "/rooms/7/messages?after=12".into(),
        headers: vec![
            header("host", "127.0.0.1:6420"),
            header("user-agent", "load/1"),
            header("accept", "*/*"),
            header("content-type", "application/json"),
            header("x-rivet-ray-id", "1oe70n6l4jcqg4a8w8zsyhhwkqcl00"),
        ],
        body: Some(Bytes::from(vec![b'x'; 256])),
        stream: false,
    };
    let response = ToServerTunnel::ResponseStart {
        status: 200,
        headers: vec![header("content-type", "text/plain; charset=utf-8"), header("content-length", "4")],
        body: Some(Bytes::from_static(b"pong")),
        stream: false,
    };
    let put = KvRequest::Put { keys: vec![Bytes::from_static(b"bench/001")], values: vec![vec![b'v'; 100].into()] };
    let actor_id = "actor0000000000000000000000001".into();
    vec![
        Case::Read("a request is read", ToClient::Tunnel { id, message: request }),
        Case::Write("a response is written", ToServer::Tunnel { id, message: response }),
        Case::Read(
            "a socket message is read",
            ToClient::Tunnel { id, message: ToClientTunnel::WebSocketMessage { data: data(), binary: true } },
        ),
        Case::Write(
            "a socket message is written",
            ToServer::Tunnel { id, message: ToServerTunnel::WebSocketMessage { data: data(), binary: true } },
        ),
        Case::Write("a put is written", ToServer::Kv { actor_id, request_id: 7, request: put }),
        Case::Read("its answer is read", ToClient::Kv { request_id: 7, response: KvResponse::Put }),
    ]
}

const BATCH: usize = 1000;
