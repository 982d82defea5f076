//! Actors that come and go.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use greenroom::protocol::{Event, ToServer};

use super::{Sample, measure};
use crate::app::App;
use crate::wire::Wire;

/// Starts actors and waits until they run.
pub fn start(wire: &mut Wire, actors: usize) -> Vec<String> {
    let mut ids = Vec::with_capacity(actors);
    let mut running = 0;
    while running < actors {
        while ids.len() < actors && ids.len() - running < ON_THEIR_WAY {
            ids.push(wire.start_actor());
        }
        running += events(wire).iter().filter(|(_, event)| *event == Event::Running).count();
    }
    ids
}

/// Stops actors and waits until they have ended.
pub fn stop(wire: &mut Wire, ids: &[String]) {
    let mut left: HashSet<&str> = ids.iter().map(String::as_str).collect();
    let mut told = ids.iter();
    for id in told.by_ref().take(ON_THEIR_WAY) {
        wire.stop_actor(id);
    }
    while !left.is_empty() {
        for (id, event) in events(wire) {
            if ended(&event)
                && left.remove(&*id)
                && let Some(next) = told.next()
            {
                wire.stop_actor(next);
            }
        }
    }
}

pub fn lives(app: &mut App, seconds: Duration, open: usize) -> Sample {
    for _ in 0..open {
        app.wire.start_actor();
    }
    let mut lives = open;
    let mut step = |app: &mut App, again: bool| {
        let mut done = 0;
        for (id, event) in events(&mut app.wire) {
            if event == Event::Running {
                app.wire.stop_actor(&id);
            } else if ended(&event) {
                done += 1;
                lives -= 1;
                if again {
                    app.wire.start_actor();
                    lives += 1;
                }
            }
        }
        (done, lives)
    };
    let sample = measure(app, seconds, |app| step(app, true).0);
    while step(app, false).1 > 0 {}
    sample
}

pub fn memory(app: &mut App, actors: usize) -> Sample {
    let (before, cpu, begin) = (app.memory(), app.cpu(), Instant::now());
    let ids = start(&mut app.wire, actors);
    let (elapsed, cpu) = (begin.elapsed(), app.cpu().saturating_sub(cpu));
    let bytes = app.memory().saturating_sub(before);
    // The runner is a fresh one and goes now; stopping so many takes the TypeScript runner a quarter of a minute.
    drop(ids);
    let each = 1.0 / actors as f64;
    Sample {
        rate: actors as f64 / elapsed.as_secs_f64(),
        cpu_us: cpu.as_secs_f64() * 1e6 * each,
        bytes: Some(bytes as f64 * each),
    }
}

/// The next events.
fn events(wire: &mut Wire) -> Vec<(String, Event)> {
    loop {
        match wire.next() {
            ToServer::Events(events) => {
                return events.into_iter().map(|event| (event.checkpoint.actor_id.to_string(), event.event)).collect();
            }
            // What is left of streams that were closed a moment ago.
            ToServer::Tunnel { .. } | ToServer::AckCommands(_) | ToServer::Pong { .. } => {}
            other => panic!("unexpected: {other:?}"),
        }
    }
}

fn ended(event: &Event) -> bool {
    matches!(event, Event::StoppedOk { .. } | Event::StoppedError { .. })
}

const ON_THEIR_WAY: usize = 64;
