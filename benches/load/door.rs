//! The front door: clients, a gateway, a runner. Ours, theirs, and a plain reverse proxy as a yardstick.

mod client;
mod proxy;
mod sockets;
mod stack;
mod traffic;

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

pub use proxy::{origin, proxy};
use stack::Stack;
use traffic::Values;

use crate::figures::{Figures, Part, Quantity, Side};

/// What is measured.
pub struct Plan<'a> {
    /// Gateway and bench app.
    pub ours: [&'a Path; 2],
    /// Another build of them.
    pub against: Option<[&'a Path; 2]>,
    /// None without them.
    pub modules: Option<&'a Path>,
    pub rounds: usize,
    pub seconds: f64,
    /// Part of the names of what is wanted.
    pub only: &'a str,
    /// Idle sockets of ours and of the others, to divide their memory by.
    pub sockets: [usize; 2],
}

/// Measures all of it.
pub async fn measure(plan: &Plan<'_>, figures: &mut Figures) -> Result<(), String> {
    if LOADS.iter().any(|load| load.name().contains(plan.only)) {
        traffic(plan, figures).await?;
    }
    if SOCKETS.iter().any(|load| load.contains(plan.only)) {
        idle_sockets(plan, figures).await?;
    }
    Ok(())
}

async fn traffic(plan: &Plan<'_>, figures: &mut Figures) -> Result<(), String> {
    let mut stacks = vec![Stack::ours(Side::Ours, plan.ours).await?];
    if let Some(against) = plan.against {
        stacks.push(Stack::ours(Side::Against, against).await?);
    }
    if let Some(modules) = plan.modules {
        stacks.push(Stack::theirs(modules).await?);
    }
    if stacks.len() > 1 {
        stacks.push(Stack::proxy().await?);
    }
    for round in 0..plan.rounds {
        for load in LOADS.iter().filter(|load| load.name().contains(plan.only)) {
            if load.needs_disk() {
                load.add_disk(plan, figures)?;
            }
            // The one that went first in this round goes last in the next: whatever the machine does then hits all.
            for turn in 0..stacks.len() {
                let stack = &stacks[(turn + round) % stacks.len()];
                if stack.side == Side::Proxy && !matches!(load, Load::Requests { .. }) {
                    continue;
                }
                let values = match load.run(stack, plan.seconds).await {
                    Ok(values) => values,
                    Err(error) => {
                        figures.failed(load.name(), stack.side, &stack.complaint(&error));
                        continue;
                    }
                };
                for (quantity, value) in values {
                    let text = quantity.text(value);
                    eprintln!("round {} {:<40} {:<18} {text}", round + 1, load.name(), stack.side.name());
                    figures.add(Part::Door, load.name(), quantity, stack.side, value);
                }
            }
        }
    }
    Ok(())
}

/// Each round in processes of its own: memory that was freed once is not given back at once.
async fn idle_sockets(plan: &Plan<'_>, figures: &mut Figures) -> Result<(), String> {
    for round in 0..plan.rounds {
        for side in [Side::Ours, Side::Against, Side::TypeScript] {
            let (stack, sockets) = match (side, plan.against, plan.modules) {
                (Side::Ours, _, _) => (Stack::ours(side, plan.ours).await?, plan.sockets[0]),
                (Side::Against, Some(against), _) => (Stack::ours(side, against).await?, plan.sockets[0]),
                (Side::TypeScript, _, Some(modules)) => (Stack::theirs(modules).await?, plan.sockets[1]),
                _ => continue,
            };
            let values = match sockets::idle(&stack, sockets).await {
                Ok(values) => values,
                Err(error) => {
                    figures.failed(SOCKETS[0], side, &stack.complaint(&error));
                    continue;
                }
            };
            for (name, value) in SOCKETS.iter().zip(values) {
                let text = Quantity::Bytes.text(value);
                eprintln!("round {} {name:<40} {:<18} {text}", round + 1, side.name());
                figures.add(Part::Door, name, Quantity::Bytes, side, value);
                if side == Side::Ours {
                    figures.add(Part::Door, name, Quantity::Bytes, Side::Budget, SOCKET_BUDGET);
                }
            }
        }
    }
    Ok(())
}

enum Load {
    Requests { name: &'static str, connections: usize },
    Lives { name: &'static str, at_once: usize },
    Puts { name: &'static str, at_once: usize },
}

impl Load {
    fn name(&self) -> &'static str {
        match self {
            Load::Requests { name, .. } | Load::Lives { name, .. } | Load::Puts { name, .. } => name,
        }
    }

    async fn run(&self, stack: &Stack, seconds: f64) -> Result<Values, String> {
        match *self {
            Load::Requests { connections, .. } => traffic::requests(stack, seconds, connections).await,
            // A start takes the engine a good part of a second.
            Load::Lives { at_once, .. } => traffic::lives(stack, 2.0 * seconds, at_once).await,
            Load::Puts { at_once, .. } => traffic::puts(stack, seconds, at_once).await,
        }
    }

    fn needs_disk(&self) -> bool {
        matches!(self, Load::Puts { .. })
    }

    /// What the disk does in the same minute, and what it lets us be asked for.
    fn add_disk(&self, plan: &Plan<'_>, figures: &mut Figures) -> Result<(), String> {
        let syncs = syncs(plan.seconds / 2.0).map_err(|error| format!("no syncs: {error}"))?;
        eprintln!("{:<48} {:<18} {syncs:.0}/s", "the disk", Side::Disk.name());
        figures.add(Part::Door, self.name(), Quantity::Rate, Side::Disk, syncs);
        let asked = (PUTS_PER_SYNC * syncs).min(PUTS);
        figures.add(Part::Door, self.name(), Quantity::Rate, Side::Budget, asked);
        Ok(())
    }
}

/// How often the disk makes a page durable in a second.
fn syncs(seconds: f64) -> std::io::Result<f64> {
    let dir = tempfile::Builder::new().prefix("greenroom-load-").tempdir()?;
    let mut file = File::create(dir.path().join("page"))?;
    let (begin, mut done) = (Instant::now(), 0);
    while begin.elapsed() < Duration::from_secs_f64(seconds) {
        file.write_all(&[0x5a; 4096])?;
        file.sync_data()?;
        done += 1;
    }
    Ok(f64::from(done) / begin.elapsed().as_secs_f64())
}

const LOADS: &[Load] = &[
    Load::Requests { name: "requests, 64 connections", connections: 64 },
    Load::Requests { name: "requests, 1 connection", connections: 1 },
    Load::Lives { name: "actors created and answered", at_once: 64 },
    Load::Puts { name: "durable puts, 64 writers", at_once: 64 },
];

/// Awake and asleep.
const SOCKETS: [&str; 2] = ["hibernating sockets, awake", "hibernating sockets, asleep"];
/// Bytes of both processes.
const SOCKET_BUDGET: f64 = 4096.0;
/// Where the disk syncs 4,000 times a second, 15,000 puts.
const PUTS_PER_SYNC: f64 = 3.75;
const PUTS: f64 = 15_000.0;
