//! Alarm changes of one actor, acknowledged as the Rivet engine does.

use std::time::Duration;

use greenroom::protocol::{Checkpoint, ToClient, ToServer, ToServerTunnel};

use super::{Sample, actors, measure};
use crate::app::App;

pub fn run(app: &mut App, seconds: Duration) -> Sample {
    let ids = actors::start(&mut app.wire, 1);
    let mut acknowledged = 0;
    app.wire.request(&ids[0], PATH);
    let mut step = |app: &mut App, again: bool| match app.wire.next() {
        ToServer::Events(events) => {
            if let Some(last) = events.last()
                && last.checkpoint.index > acknowledged + ACKNOWLEDGED_AFTER
            {
                acknowledged = last.checkpoint.index;
                let checkpoint = Checkpoint { index: acknowledged, ..last.checkpoint.clone() };
                app.wire.send(&ToClient::AckEvents(vec![checkpoint]));
            }
            (events.len(), true)
        }
        ToServer::Tunnel { message: ToServerTunnel::ResponseStart { status: 200, .. }, .. } => {
            if again {
                app.wire.request(&ids[0], PATH);
            }
            (0, again)
        }
        ToServer::AckCommands(_) | ToServer::Pong { .. } => (0, true),
        other => panic!("unexpected: {other:?}"),
    };
    let sample = measure(app, seconds, |app| step(app, true).0);
    while step(app, false).1 {}
    actors::stop(&mut app.wire, &ids);
    sample
}

const PATH: &str = "/events?n=1000";
/// The engine's habit.
const ACKNOWLEDGED_AFTER: i64 = 250;
