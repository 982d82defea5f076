//! Frames on sockets.

use std::time::Duration;

use bytes::Bytes;
use greenroom::protocol::{MessageId, StreamId, ToClient, ToClientTunnel, ToServer, ToServerTunnel, serial};

use super::{Sample, actors, measure};
use crate::app::App;
use crate::wire::Wire;

/// One client's socket.
struct Client {
    stream: StreamId,
    index: u16,
}

pub fn run(app: &mut App, seconds: Duration, sockets: usize, on_their_way: usize) -> Sample {
    let ids = actors::start(&mut app.wire, 1);
    let mut clients = open(&mut app.wire, &ids[0], sockets);
    let mut turn = 0;
    for _ in 0..on_their_way {
        say(&mut app.wire, &mut clients, &mut turn);
    }
    let sample = measure(app, seconds, |app| {
        echoed(&mut app.wire);
        say(&mut app.wire, &mut clients, &mut turn);
        1
    });
    for _ in 0..on_their_way {
        echoed(&mut app.wire);
    }
    for client in &mut clients {
        send(&mut app.wire, client, ToClientTunnel::WebSocketClose { code: Some(1000), reason: None });
    }
    actors::stop(&mut app.wire, &ids);
    sample
}

fn open(wire: &mut Wire, id: &str, sockets: usize) -> Vec<Client> {
    let mut clients = Vec::with_capacity(sockets);
    while clients.len() < sockets {
        let some = ON_THEIR_WAY.min(sockets - clients.len());
        for _ in 0..some {
            let mut client = Client { stream: wire.new_stream(), index: u16::MAX };
            let message = ToClientTunnel::WebSocketOpen {
                actor_id: id.into(),
                path: "/ws".into(),
                headers: vec![("host".into(), "127.0.0.1:6420".into()), ("upgrade".into(), "websocket".into())],
            };
            send(wire, &mut client, message);
            clients.push(client);
        }
        for _ in 0..some {
            let message = tunnelled(wire);
            assert!(matches!(message, ToServerTunnel::WebSocketOpen { .. }), "not open: {message:?}");
        }
    }
    clients
}

fn say(wire: &mut Wire, clients: &mut [Client], turn: &mut usize) {
    *turn = (*turn + 1) % clients.len();
    let client = &mut clients[*turn];
    let data = Bytes::from_static(b"thirty-two bytes of conversation");
    send(wire, client, ToClientTunnel::WebSocketMessage { data, binary: true });
}

fn echoed(wire: &mut Wire) {
    let message = tunnelled(wire);
    assert!(matches!(message, ToServerTunnel::WebSocketMessage { .. }), "not an echo: {message:?}");
}

fn tunnelled(wire: &mut Wire) -> ToServerTunnel {
    loop {
        match wire.next() {
            ToServer::Tunnel { message, .. } => return message,
            ToServer::Events(_) | ToServer::AckCommands(_) | ToServer::Pong { .. } => {}
            other => panic!("unexpected: {other:?}"),
        }
    }
}

fn send(wire: &mut Wire, client: &mut Client, message: ToClientTunnel) {
    client.index = serial::next(client.index);
    wire.send(&ToClient::Tunnel { id: MessageId { stream: client.stream, index: client.index }, message });
}

/// Sockets that are not open yet.
const ON_THEIR_WAY: usize = 64;
