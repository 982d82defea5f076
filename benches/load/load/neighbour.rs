//! An actor with one patient client, beside an actor with many impatient ones.

use std::time::{Duration, Instant};

use greenroom::protocol::{StreamId, ToServer, ToServerTunnel};

use super::actors;
use crate::app::App;
use crate::figures::{Quantity, Side};
use crate::wire::PATIENCE;

/// The p99 of the patient client in microseconds, alone and beside the others.
pub fn run(app: &mut App, seconds: Duration, flood: usize, slow: bool) -> Vec<(Quantity, Option<Side>, f64)> {
    let ids = actors::start(&mut app.wire, 2);
    let seconds = seconds.max(ENOUGH) + SPREAD;
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
    let mut times = app.wire.listen(|wire, told| {
        for _ in 0..flood {
            wire.request(&ids[1], &path());
        }
        let mut times = Vec::new();
        let mut waiting: Option<(StreamId, Instant)> = None;
        let mut pauses = pauses();
        let begin = Instant::now();
        let (mut next, mut open) = (begin, flood);
        loop {
            let now = Instant::now();
            let over = now.duration_since(begin) >= seconds;
            if over && waiting.is_none() && open == 0 {
                return times;
            }
            if waiting.is_none() && !over && now >= next {
                let stream = wire.request(&ids[0], "/ping");
                wire.flush();
                waiting = Some((stream, now));
                next = now + pauses.next().unwrap_or_default();
            }
            // The patient client keeps its own time: it does not ask when others are answered.
            let until = if waiting.is_none() && !over { next } else { now + PATIENCE };
            let heard = told.try_recv().or_else(|_| {
                wire.flush();
                told.recv_timeout(until.saturating_duration_since(Instant::now()))
            });
            let Ok((came, ToServer::Tunnel { id, message })) = heard else {
                assert!(now.elapsed() < PATIENCE, "the runner answers in time");
                continue;
            };
            let ToServerTunnel::ResponseStart { status: 200, .. } = message else { panic!("not a pong: {message:?}") };
            match waiting {
                Some((stream, sent)) if stream == id.stream => {
                    if begin.elapsed() > SPREAD {
                        times.push(came.duration_since(sent));
                    }
                    waiting = None;
                }
                _ if over => open -= 1,
                _ => drop(wire.request(&ids[1], &path())),
            }
        }
    });
    times.sort_unstable();
    times.get(times.len() * 99 / 100).map_or(f64::NAN, |time| time.as_secs_f64() * 1e6)
}

/// A millisecond each, more or less: an even pace would fall in with the ticks of somebody's timer.
fn pauses() -> impl Iterator<Item = Duration> {
    (0_u32..).map(|number| Duration::from_micros(u64::from(750 + number.wrapping_mul(0x9e37_79b9) / (u32::MAX / 500))))
}

/// The hundredth of what the patient client sees in this time is not decided by the machine's next hiccup.
const ENOUGH: Duration = Duration::from_millis(1500);

/// The requests of the others all begin at once, and are spread after this time.
const SPREAD: Duration = Duration::from_millis(300);
