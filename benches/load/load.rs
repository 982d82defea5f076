//! The loads: each keeps a number of things open and starts the next when one is done.

pub mod actors;
mod events;
mod neighbour;
mod requests;
mod sockets;
mod storage;

use std::time::{Duration, Instant};

use crate::app::App;
use crate::figures::{Quantity, Side};

/// What is asked of a runner.
pub enum Load {
    /// `GET /ping`, so many open at once, going round so many actors.
    Requests { open: usize, actors: usize },
    /// Frames that are echoed on so many sockets in turn.
    Sockets { sockets: usize, on_their_way: usize },
    /// Alarm changes.
    Events,
    /// Storage requests of one actor, so many open at once, answered from memory.
    Storage { op: &'static str, open: usize },
    /// Actors that are started and stopped again, so many on their way at once.
    Lives { open: usize },
    /// So many actors that are started and do nothing.
    Actors { actors: usize },
    /// An actor beside one with so many requests open all the time, which it answers at once or slowly.
    Neighbour { name: &'static str, flood: usize, slow: bool },
}

/// What came of it.
#[derive(Clone, Copy)]
pub struct Sample {
    /// Things done in a second.
    rate: f64,
    /// The runner's processor time for each, in microseconds.
    cpu_us: f64,
    /// The runner's memory for each, in bytes, where that is what was measured.
    bytes: Option<f64>,
}

/// What is measured on every runner, in the order of the report.
pub const ALL: &[Load] = &[
    Load::Requests { open: 1, actors: 1 },
    Load::Requests { open: 64, actors: 1 },
    Load::Requests { open: 1024, actors: 1 },
    Load::Requests { open: 64, actors: 100 },
    Load::Sockets { sockets: 1, on_their_way: 1 },
    Load::Sockets { sockets: 64, on_their_way: 64 },
    Load::Sockets { sockets: 1000, on_their_way: 64 },
    Load::Events,
    Load::Storage { op: "put", open: 1 },
    Load::Storage { op: "put", open: 64 },
    Load::Storage { op: "get", open: 64 },
    Load::Storage { op: "get", open: 1024 },
    Load::Lives { open: 64 },
    Load::Neighbour { name: "neighbour of a slow actor, 1024 open", flood: 1024, slow: true },
    Load::Neighbour { name: "neighbour of an actor that takes all there is", flood: 64, slow: false },
    Load::Actors { actors: 10_000 },
];

impl Load {
    pub fn name(&self) -> String {
        match self {
            Load::Requests { open, actors: 1 } => format!("requests, {open} open"),
            Load::Requests { open, actors } => format!("requests, {open} open, {actors} actors"),
            Load::Sockets { sockets, .. } => format!("socket messages, {sockets} sockets"),
            Load::Events => "events".to_owned(),
            Load::Storage { op, open } => format!("kv {op}, {open} open"),
            Load::Lives { open } => format!("actor lives, {open} open"),
            Load::Actors { actors } => format!("actors, {actors}"),
            Load::Neighbour { name, .. } => (*name).to_owned(),
        }
    }

    /// Whether it needs a runner that has done nothing before: what was freed is not given back at once.
    pub fn needs_fresh(&self) -> bool {
        matches!(self, Load::Actors { .. })
    }

    /// Runs it and answers what was measured, each for the runner's side unless another one is named.
    pub fn run(&self, app: &mut App, seconds: f64) -> Vec<(Quantity, Option<Side>, f64)> {
        let seconds = Duration::from_secs_f64(seconds);
        let sample = match *self {
            Load::Requests { open, actors } => requests::run(app, seconds, open, actors),
            Load::Sockets { sockets, on_their_way } => sockets::run(app, seconds, sockets, on_their_way),
            Load::Events => events::run(app, seconds),
            Load::Storage { op, open } => storage::run(app, seconds, op, open),
            Load::Lives { open } => actors::lives(app, seconds, open),
            Load::Actors { actors } => actors::memory(app, actors),
            Load::Neighbour { flood, slow, .. } => return neighbour::run(app, seconds, flood, slow),
        };
        let mut values = vec![(Quantity::Rate, None, sample.rate), (Quantity::Cpu, None, sample.cpu_us)];
        values.extend(sample.bytes.map(|bytes| (Quantity::Bytes, None, bytes)));
        values
    }
}

/// Takes `step` again and again, which answers how many things it has done: first to warm up, then for this long.
fn measure(app: &mut App, seconds: Duration, mut step: impl FnMut(&mut App) -> usize) -> Sample {
    let warm = Instant::now() + seconds / 4;
    while Instant::now() < warm {
        step(app);
    }
    let (cpu, begin, mut done) = (app.cpu(), Instant::now(), 0);
    while begin.elapsed() < seconds || done == 0 {
        done += step(app);
    }
    let (cpu, elapsed) = (app.cpu().saturating_sub(cpu), begin.elapsed());
    let each = 1.0 / done as f64;
    Sample { rate: done as f64 / elapsed.as_secs_f64(), cpu_us: cpu.as_secs_f64() * 1e6 * each, bytes: None }
}
