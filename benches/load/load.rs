//! The loads: each keeps a number of things open and starts the next when one is done.

mod actors;
mod events;
mod requests;
mod sockets;
mod storage;

use std::fmt;
use std::time::{Duration, Instant};

use crate::app::App;

/// What is asked of a runner.
pub enum Load {
    /// `GET /ping`, so many open at once, going round so many actors.
    Requests { open: usize, actors: usize },
    /// Frames that are echoed on so many sockets in turn, up to 64 on their way at once.
    Sockets { sockets: usize },
    /// Alarm changes.
    Events,
    /// Storage requests of one actor, so many open at once, answered from memory.
    Storage { op: &'static str, open: usize },
    /// Actors that are started and stopped again, so many on their way at once.
    Lives { open: usize },
    /// Memory of so many actors that do nothing.
    Memory { actors: usize },
}

/// What came of it.
#[derive(Clone, Copy)]
pub struct Sample {
    /// Things done in a second.
    pub rate: f64,
    /// The runner's processor time for each, in microseconds.
    pub cpu_us: f64,
    /// The runner's memory for each, in bytes, where that is what was measured.
    pub bytes: Option<f64>,
}

/// What is always measured, in the order of the report.
pub const ALL: &[Load] = &[
    Load::Requests { open: 1, actors: 1 },
    Load::Requests { open: 8, actors: 1 },
    Load::Requests { open: 64, actors: 1 },
    Load::Requests { open: 256, actors: 1 },
    Load::Requests { open: 1024, actors: 1 },
    Load::Requests { open: 64, actors: 100 },
    Load::Requests { open: 64, actors: 10_000 },
    Load::Sockets { sockets: 1 },
    Load::Sockets { sockets: 64 },
    Load::Sockets { sockets: 1000 },
    Load::Events,
    Load::Storage { op: "put", open: 1 },
    Load::Storage { op: "put", open: 64 },
    Load::Storage { op: "get", open: 64 },
    Load::Storage { op: "get", open: 1024 },
    Load::Lives { open: 64 },
    Load::Memory { actors: 10_000 },
];

/// What takes the TypeScript runner minutes.
pub const GROWTH: &[Load] = &[Load::Sockets { sockets: 10_000 }, Load::Memory { actors: 100_000 }];

impl Load {
    pub fn name(&self) -> String {
        match self {
            Load::Requests { open, actors: 1 } => format!("requests, {open} open"),
            Load::Requests { open, actors } => format!("requests, {open} open, {actors} actors"),
            Load::Sockets { sockets } => format!("socket messages, {sockets} sockets"),
            Load::Events => "events".to_owned(),
            Load::Storage { op, open } => format!("kv {op}, {open} open"),
            Load::Lives { open } => format!("actor lives, {open} open"),
            Load::Memory { actors } => format!("memory, {actors} actors"),
        }
    }

    pub fn run(&self, app: &mut App, seconds: f64) -> Sample {
        let seconds = Duration::from_secs_f64(seconds);
        match *self {
            Load::Requests { open, actors } => requests::run(app, seconds, open, actors),
            Load::Sockets { sockets } => sockets::run(app, seconds, sockets),
            Load::Events => events::run(app, seconds),
            Load::Storage { op, open } => storage::run(app, seconds, op, open),
            Load::Lives { open } => actors::lives(app, seconds, open),
            Load::Memory { actors } => actors::memory(app, actors),
        }
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
    let (cpu, elapsed) = (app.cpu() - cpu, begin.elapsed());
    let each = 1.0 / done as f64;
    Sample { rate: done as f64 / elapsed.as_secs_f64(), cpu_us: cpu.as_secs_f64() * 1e6 * each, bytes: None }
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>9.0}/s {:>9.2} us CPU", self.rate, self.cpu_us)?;
        match self.bytes {
            Some(bytes) => write!(f, " {bytes:>7.0} bytes"),
            None => Ok(()),
        }
    }
}
