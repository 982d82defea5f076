//! What was promised, and whether it holds.

use std::fmt::Write;

use crate::figures::{Figures, Part, Quantity, Side};

/// One promise: how much better we are than a peer, at least.
struct Floor {
    promise: &'static str,
    part: Part,
    load: &'static str,
    quantity: Quantity,
    peer: Side,
    at_least: f64,
}

/// A table of all promises; one that was not measured says so.
pub fn table(figures: &Figures) -> String {
    let mut table = "| floor | against | asked for | measured (rounds) | |\n|---|---|---|---|---|\n".to_owned();
    for floor in FLOORS {
        let row = figures.row(floor.part, floor.load, floor.quantity);
        let ratio = row.and_then(|row| row.ratio(floor.peer));
        let (measured, holds) = match ratio {
            Some(ratio) if ratio.median >= floor.at_least => (ratio.to_string(), "holds"),
            Some(ratio) => (ratio.to_string(), "**does not hold**"),
            None => ("–".to_owned(), "not measured"),
        };
        let (promise, peer, at_least) = (floor.promise, floor.peer.name(), floor.at_least);
        let _ = writeln!(table, "| {promise} | {peer} | {at_least} | {measured} | {holds} |");
    }
    table
}

const fn floor(
    promise: &'static str,
    part: Part,
    load: &'static str,
    quantity: Quantity,
    peer: Side,
    at_least: f64,
) -> Floor {
    Floor { promise, part, load, quantity, peer, at_least }
}

use Part::{Codec, Door, Growth, Tunnel};
use Quantity::{Allocations, Bytes, Cpu, P50, P99, Rate};

const FLOORS: &[Floor] = &[
    floor("CPU per request, 64 open", Tunnel, "requests, 64 open", Cpu, Side::TypeScript, 20.0),
    floor(
        "CPU per socket message, 1,000 sockets",
        Tunnel,
        "socket messages, 1000 sockets",
        Cpu,
        Side::TypeScript,
        100.0,
    ),
    floor("CPU per socket message stays flat, 10,000 sockets", Growth, "sockets, 10000", Cpu, Side::Smallest, 0.67),
    floor("CPU per storage request, 64 open", Tunnel, "kv put, 64 open", Cpu, Side::TypeScript, 5.0),
    floor("CPU per start of an in-process actor", Tunnel, "actors, 10000", Cpu, Side::TypeScript, 20.0),
    floor(
        "requests a second at the front door, 64 connections",
        Door,
        "requests, 64 connections",
        Rate,
        Side::TypeScript,
        40.0,
    ),
    floor("about as many as a plain reverse proxy", Door, "requests, 64 connections", Rate, Side::Proxy, 0.8),
    floor("median latency of one client", Door, "requests, 1 connection", P50, Side::TypeScript, 10.0),
    floor(
        "memory per idle hibernating socket, both processes",
        Door,
        "hibernating sockets, asleep",
        Bytes,
        Side::Budget,
        1.0,
    ),
    floor("actors created and answered a second", Door, "actors created and answered", Rate, Side::TypeScript, 30.0),
    floor(
        "durable puts, 64 writers: 3.75 for each sync of the disk, or 15,000 a second where it syncs faster",
        Door,
        "durable puts, 64 writers",
        Rate,
        Side::Budget,
        1.0,
    ),
    floor(
        "p99 of an actor beside a slow one with 1,024 requests open: twice its own at most",
        Tunnel,
        "neighbour of a slow actor, 1024 open",
        P99,
        Side::Quiet,
        0.5,
    ),
    floor(
        "p99 of an actor beside one that takes all the processor there is: twice its own at most",
        Tunnel,
        "neighbour of an actor that takes all there is",
        P99,
        Side::Quiet,
        0.5,
    ),
    floor(
        "allocations of the runner per request: a handful",
        Codec,
        "a request through the runner",
        Allocations,
        Side::Budget,
        1.0,
    ),
];
