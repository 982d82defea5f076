//! An actor with one patient client, beside an actor with many impatient ones.

use std::time::{Duration, Instant};

use greenroom::protocol::{StreamId, ToServer, ToServerTunnel};

use super::actors;
use crate::app::App;
use crate::figures::{Quantity, Side};

/// The p99 of the patient client in microseconds, alone and beside the others.
pub fn run(app: &mut App, seconds: Duration, flood: usize) -> Vec<(Quantity, Option<Side>, f64)> {
    let ids = actors::start(&mut app.wire, 2);
    let quiet = p99(app, seconds, &ids, 0);
    let flooded = p99(app, seconds, &ids, flood);
    actors::stop(&mut app.wire, &ids);
    let mut values = vec![(Quantity::P99, None, flooded)];
    if app.side == Side::Ours {
        values.push((Quantity::P99, Some(Side::Quiet), quiet));
    }
    values
}

fn p99(app: &mut App, seconds: Duration, ids: &[String], flood: usize) -> f64 {
    let mut times = Vec::new();
    let mut waiting: Option<(StreamId, Instant)> = None;
    let (begin, mut next) = (Instant::now(), Instant::now());
    for _ in 0..flood {
        app.wire.request(&ids[1], "/ping");
    }
    let mut open = flood;
    while begin.elapsed() < seconds || waiting.is_some() || open > 0 {
        let over = begin.elapsed() >= seconds;
        if waiting.is_none() && !over {
            if flood == 0 {
                std::thread::sleep(next.saturating_duration_since(Instant::now()));
            }
            let now = Instant::now();
            if now >= next {
                let stream = app.wire.request(&ids[0], "/ping");
                app.wire.flush();
                waiting = Some((stream, now));
                next = now + PAUSE;
            }
        } else if over && waiting.is_none() && open == 0 {
            break;
        }
        let ToServer::Tunnel { id, message } = app.wire.next() else { continue };
        let ToServerTunnel::ResponseStart { status: 200, .. } = message else { panic!("not a pong: {message:?}") };
        match waiting {
            Some((stream, sent)) if stream == id.stream => {
                times.push(sent.elapsed());
                waiting = None;
            }
            _ if over => open -= 1,
            _ => drop(app.wire.request(&ids[1], "/ping")),
        }
    }
    times.sort_unstable();
    times[times.len() * 99 / 100].as_secs_f64() * 1e6
}

/// The patient client asks once in this time.
const PAUSE: Duration = Duration::from_millis(1);
