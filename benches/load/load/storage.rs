//! Storage requests, answered from memory.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use greenroom::protocol::{KvEntryMetadata, KvRequest, KvResponse, ToClient, ToServer, ToServerTunnel};

use super::{Sample, actors, measure};
use crate::app::App;

pub fn run(app: &mut App, seconds: Duration, op: &str, open: usize) -> Sample {
    let ids = actors::start(&mut app.wire, 1);
    let path = format!("/kv?op={op}&n={}&c={open}&size=100", open.max(50) * 100);
    let mut stored = HashMap::new();
    for key in 0..1000 {
        stored.insert(Bytes::from(format!("bench/{key:03}")), Bytes::from_static(&[b'v'; 100]));
    }
    app.wire.request(&ids[0], &path);
    let mut step = |app: &mut App, again: bool| match app.wire.next() {
        ToServer::Kv { request_id, request, .. } => {
            let response = answer(&mut stored, request);
            app.wire.send(&ToClient::Kv { request_id, response });
            (1, true)
        }
        ToServer::Tunnel { message: ToServerTunnel::ResponseStart { status: 200, .. }, .. } => {
            if again {
                app.wire.request(&ids[0], &path);
            }
            (0, again)
        }
        ToServer::Events(_) | ToServer::AckCommands(_) | ToServer::Pong { .. } => (0, true),
        other => panic!("unexpected: {other:?}"),
    };
    let sample = measure(app, seconds, |app| step(app, true).0);
    while step(app, false).1 {}
    actors::stop(&mut app.wire, &ids);
    sample
}

fn answer(stored: &mut HashMap<Bytes, Bytes>, request: KvRequest) -> KvResponse {
    match request {
        KvRequest::Put { keys, values } => {
            // Copied, as any store would: the frame is not kept.
            let entries = keys.iter().zip(&values);
            stored.extend(entries.map(|(key, value)| (Bytes::copy_from_slice(key), Bytes::copy_from_slice(value))));
            KvResponse::Put
        }
        KvRequest::Get { keys } => {
            let (keys, values): (Vec<_>, Vec<_>) =
                keys.into_iter().filter_map(|key| Some((key.clone(), stored.get(&key)?.clone()))).unzip();
            let entry = KvEntryMetadata { version: Bytes::from_static(b"load"), update_ts: 1_700_000_000_000 };
            let metadata = vec![entry; keys.len()];
            KvResponse::Get { keys, values, metadata }
        }
        other => KvResponse::Error { message: format!("the load generator has no {other:?}").into() },
    }
}
