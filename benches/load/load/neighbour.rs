//! An actor with one patient client, beside an actor with many impatient ones.

use std::time::{Duration, Instant};

use greenroom::protocol::{StreamId, ToServer, ToServerTunnel};

use super::actors;
use crate::app::App;
use crate::figures::{Quantity, Side};

/// The p99 of the patient client in microseconds, alone and beside the others.
pub fn run(app: &mut App, seconds: Duration, flood: usize, slow: bool) -> Vec<(Quantity, Option<Side>, f64)> {
    let ids = actors::start(&mut app.wire, 2);
    let seconds = seconds + SPREAD;
    let quiet = p99(app, seconds, &ids, 0, slow);
    let flooded = p99(app, seconds, &ids, flood, slow);
    actors::stop(&mut app.wire, &ids);
    let mut values = vec![(Quantity::P99, None, flooded)];
    if app.side == Side::Ours {
        values.push((Quantity::P99, Some(Side::Quiet), quiet));
    }
    values
}

fn p99(app: &mut App, seconds: Duration, ids: &[String], flood: usize, slow: bool) -> f64 {
    let mut asked = 0;
    let mut path = || {
        asked += 1;
        // Spread, or all answers would come at once for ever.
        if slow { format!("/delay?ms={}", 50 + asked * 37 % 100) } else { "/ping".to_owned() }
    };
    let mut times = Vec::new();
    let mut waiting: Option<(StreamId, Instant)> = None;
    let (begin, mut next) = (Instant::now(), Instant::now());
    for _ in 0..flood {
        app.wire.request(&ids[1], &path());
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
                if begin.elapsed() > SPREAD {
                    times.push(sent.elapsed());
                }
                waiting = None;
            }
            _ if over => open -= 1,
            _ => drop(app.wire.request(&ids[1], &path())),
        }
    }
    times.sort_unstable();
    times.get(times.len() * 99 / 100).map_or(f64::NAN, |time| time.as_secs_f64() * 1e6)
}

/// The patient client asks once in this time.
const PAUSE: Duration = Duration::from_millis(1);
/// The requests of the others all begin at once, and are spread after this time.
const SPREAD: Duration = Duration::from_millis(300);
