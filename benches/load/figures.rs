//! What was measured: for each thing and each side a value of every round, and ratios of rounds.

use std::fmt::Write;

/// All values, in the order in which they were measured first.
#[derive(Default)]
pub struct Figures {
    rows: Vec<Row>,
    /// What could not be measured, and why.
    pub failures: Vec<String>,
}

/// One quantity of one load, on every side that it was measured on.
pub struct Row {
    pub part: Part,
    pub load: String,
    pub quantity: Quantity,
    sides: Vec<(Side, Vec<f64>)>,
}

/// The tables of the document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Tunnel,
    Door,
    Codec,
    Growth,
}

/// Who or what a value belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Ours,
    /// Another build of ours.
    Against,
    /// `@rivetkit/engine-runner`; at the front door behind the engine, elsewhere behind the load generator.
    TypeScript,
    /// Two hops of hyper without anything of ours.
    Proxy,
    /// The same runner, undisturbed.
    Quiet,
    /// The disk itself.
    Disk,
    /// The smallest number of the same thing.
    Smallest,
    /// What was asked for.
    Budget,
}

/// What a value means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quantity {
    /// Things done in a second.
    Rate,
    /// Processor time for each, in microseconds.
    Cpu,
    /// Memory for each.
    Bytes,
    /// Half were faster, in microseconds.
    P50,
    /// 99 of 100 were faster, in microseconds.
    P99,
    /// Time for each, in nanoseconds.
    Nanoseconds,
    /// How often each asked for memory.
    Allocations,
}

/// The ratios of all rounds, of which more than one is better for us.
#[derive(Clone, Copy)]
pub struct Ratio {
    pub median: f64,
    pub least: f64,
    pub most: f64,
}

impl Figures {
    /// One load of one side failed; the others go on.
    pub fn failed(&mut self, load: &str, side: Side, why: &str) {
        let first = why.lines().next().unwrap_or_default();
        eprintln!("FAILED {load}, {}: {why}", side.name());
        self.failures.push(format!("{load}, {}: {first}", side.name()));
    }

    pub fn add(&mut self, part: Part, load: &str, quantity: Quantity, side: Side, value: f64) {
        let place = self.rows.iter().position(|row| row.is(part, load, quantity)).unwrap_or_else(|| {
            self.rows.push(Row { part, load: load.to_owned(), quantity, sides: Vec::new() });
            self.rows.len() - 1
        });
        let sides = &mut self.rows[place].sides;
        match sides.iter_mut().find(|(other, _)| *other == side) {
            Some((_, values)) => values.push(value),
            None => sides.push((side, vec![value])),
        }
    }

    pub fn of(&self, part: Part) -> impl Iterator<Item = &Row> {
        self.rows.iter().filter(move |row| row.part == part)
    }

    pub fn row(&self, part: Part, load: &str, quantity: Quantity) -> Option<&Row> {
        self.rows.iter().find(|row| row.is(part, load, quantity))
    }

    /// A table of the part: ours beside each other side, with the ratio to it.
    pub fn table(&self, part: Part) -> String {
        let mut peers = Vec::new();
        for (side, _) in self.of(part).flat_map(|row| &row.sides) {
            if *side != Side::Ours && !peers.contains(side) {
                peers.push(*side);
            }
        }
        let mut table = "| | Greenroom |".to_owned();
        for peer in &peers {
            let _ = write!(table, " {} | better by (rounds) |", peer.name());
        }
        let _ = write!(table, "\n|---|---|{}", "---|---|".repeat(peers.len()));
        for row in self.of(part) {
            let _ = write!(table, "\n| {}, {} | {} |", row.load, row.quantity.name(), row.cell(Side::Ours));
            for peer in &peers {
                let ratio = row.ratio(*peer).map(|ratio| ratio.to_string()).unwrap_or_default();
                let _ = write!(table, " {} | {ratio} |", row.cell(*peer));
            }
        }
        table.push('\n');
        table
    }

    pub fn to_json(&self) -> String {
        let rows = self.rows.iter().map(|row| {
            let sides = row.sides.iter().map(|(side, values)| (side.name().to_owned(), values.clone().into()));
            serde_json::json!({
                "part": format!("{:?}", row.part),
                "load": row.load,
                "quantity": row.quantity.name(),
                "sides": serde_json::Map::from_iter(sides),
            })
        });
        serde_json::Value::from_iter(rows).to_string()
    }
}

impl Row {
    /// The median of a side.
    pub fn median(&self, side: Side) -> Option<f64> {
        let mut values = self.values(side)?.to_vec();
        Some(middle(&mut values))
    }

    /// How much better we are than that side.
    pub fn ratio(&self, peer: Side) -> Option<Ratio> {
        let (ours, theirs) = (self.values(Side::Ours)?, self.values(peer)?);
        let mut ratios: Vec<f64> = match (ours.len(), theirs.len()) {
            (one, other) if one == other => {
                ours.iter().zip(theirs).map(|(a, b)| self.quantity.better(*a, *b)).collect()
            }
            // One of them was measured once: the median of the other stands for it.
            _ => vec![self.quantity.better(self.median(Side::Ours)?, self.median(peer)?)],
        };
        // A round in which nothing was finished at all says nothing.
        ratios.retain(|ratio| ratio.is_finite());
        if ratios.is_empty() {
            return None;
        }
        let median = middle(&mut ratios);
        Some(Ratio { median, least: *ratios.first()?, most: *ratios.last()? })
    }

    fn values(&self, side: Side) -> Option<&[f64]> {
        let values = self.sides.iter().find(|(other, _)| *other == side);
        values.map(|(_, values)| &values[..]).filter(|values| !values.is_empty())
    }

    fn cell(&self, side: Side) -> String {
        self.median(side).map_or_else(|| "–".to_owned(), |value| self.quantity.text(value))
    }

    fn is(&self, part: Part, load: &str, quantity: Quantity) -> bool {
        self.part == part && self.load == load && self.quantity == quantity
    }
}

/// The median; sorts.
fn middle(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    let (left, right) = (values[(values.len() - 1) / 2], values[values.len() / 2]);
    f64::midpoint(left, right)
}

impl Quantity {
    fn better(self, ours: f64, theirs: f64) -> f64 {
        match self {
            Quantity::Rate => ours / theirs,
            Quantity::Cpu
            | Quantity::Bytes
            | Quantity::P50
            | Quantity::P99
            | Quantity::Nanoseconds
            | Quantity::Allocations => theirs / ours,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Quantity::Rate => "per second",
            Quantity::Cpu => "CPU each",
            Quantity::Bytes => "memory each",
            Quantity::P50 => "p50",
            Quantity::P99 => "p99",
            Quantity::Nanoseconds => "time each",
            Quantity::Allocations => "allocations each",
        }
    }

    pub fn text(self, value: f64) -> String {
        let digits = if value < 10.0 { 2 } else { usize::from(value < 100.0) };
        match self {
            Quantity::Rate => format!("{value:.0}/s"),
            Quantity::Cpu | Quantity::P50 | Quantity::P99 => format!("{value:.digits$} µs"),
            Quantity::Bytes => format!("{value:.0} B"),
            Quantity::Nanoseconds => format!("{value:.0} ns"),
            Quantity::Allocations => format!("{value:.digits$}"),
        }
    }
}

impl Side {
    pub fn name(self) -> &'static str {
        match self {
            Side::Ours => "Greenroom",
            Side::Against => "the other build",
            Side::TypeScript => "TypeScript runner",
            Side::Proxy => "hyper to hyper",
            Side::Quiet => "undisturbed",
            Side::Disk => "syncs of the disk",
            Side::Smallest => "at the smallest number",
            Side::Budget => "allowed",
        }
    }
}

impl std::fmt::Display for Ratio {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = |value: f64| match value {
            100.0.. => format!("{value:.0}"),
            10.0.. => format!("{value:.1}"),
            _ => format!("{value:.2}"),
        };
        write!(f, "{} ({} to {})", text(self.median), text(self.least), text(self.most))
    }
}
