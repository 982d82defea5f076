//! Requests through the tunnel.

use std::time::Duration;

use greenroom::protocol::{ToServer, ToServerTunnel};

use super::{Sample, actors, measure};
use crate::app::App;
use crate::wire::Wire;

pub fn run(app: &mut App, seconds: Duration, open: usize, actors: usize) -> Sample {
    let ids = actors::start(&mut app.wire, actors);
    let mut turn = ids.iter().cycle();
    for id in turn.by_ref().take(open) {
        app.wire.request(id, "/ping");
    }
    let sample = measure(app, seconds, |app| {
        answered(&mut app.wire);
        if let Some(id) = turn.next() {
            app.wire.request(id, "/ping");
        }
        1
    });
    for _ in 0..open {
        answered(&mut app.wire);
    }
    actors::stop(&mut app.wire, &ids);
    sample
}

fn answered(wire: &mut Wire) {
    loop {
        match wire.next() {
            ToServer::Tunnel { message: ToServerTunnel::ResponseStart { status: 200, .. }, .. } => return,
            ToServer::Tunnel { message, .. } => panic!("not a pong: {message:?}"),
            ToServer::Events(_) | ToServer::AckCommands(_) | ToServer::Pong { .. } => {}
            other => panic!("unexpected: {other:?}"),
        }
    }
}
