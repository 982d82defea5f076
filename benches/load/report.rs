//! Medians and ratios.

use std::fmt;
use std::fs;

use crate::load::Sample;

/// All samples, by load and runner.
pub struct Report {
    runners: Vec<String>,
    rows: Vec<(String, Vec<Vec<Sample>>)>,
}

impl Report {
    pub fn new(runners: Vec<String>) -> Self {
        Report { runners, rows: Vec::new() }
    }

    pub fn add(&mut self, load: &str, runner: usize, sample: Sample) {
        let place = match self.rows.iter().position(|(name, _)| name == load) {
            Some(place) => place,
            None => {
                self.rows.push((load.to_owned(), vec![Vec::new(); self.runners.len()]));
                self.rows.len() - 1
            }
        };
        self.rows[place].1[runner].push(sample);
    }

    pub fn to_json(&self) -> String {
        let rows = self.rows.iter().map(|(load, samples)| {
            let samples = self.runners.iter().zip(samples).map(|(runner, samples)| {
                let samples: Vec<_> = samples
                    .iter()
                    .map(|s| serde_json::json!({"rate": s.rate, "cpu_us": s.cpu_us, "bytes": s.bytes}))
                    .collect();
                (runner.clone(), samples.into())
            });
            serde_json::json!({"load": load, "samples": serde_json::Map::from_iter(samples)})
        });
        serde_json::Value::from_iter(rows).to_string()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\n{}\n", machine())?;
        let [first, others @ ..] = &self.runners[..] else { return Ok(()) };
        write!(f, "| load | {first} |")?;
        for other in others {
            write!(f, " {other} | rate ratio | CPU ratio (of rounds) |")?;
        }
        write!(f, "\n|---|---|")?;
        for _ in others {
            write!(f, "---|---|---|")?;
        }
        for (load, samples) in &self.rows {
            let [mine, theirs @ ..] = &samples[..] else { continue };
            write!(f, "\n| {load} | {} |", Cell(mine))?;
            for theirs in theirs {
                let rates = ratios(mine, theirs, |mine, theirs| mine.rate / theirs.rate);
                let cpu = ratios(mine, theirs, |mine, theirs| theirs.cpu_us / mine.cpu_us);
                let memory = ratios(mine, theirs, |mine, theirs| {
                    theirs.bytes.zip(mine.bytes).map_or(f64::NAN, |(theirs, mine)| theirs / mine)
                });
                let (least, most) = (cpu.first().unwrap_or(&0.0), cpu.last().unwrap_or(&0.0));
                write!(f, " {} | {:.1} | {:.1} ({least:.1} to {most:.1})", Cell(theirs), median(&rates), median(&cpu))?;
                if !median(&memory).is_nan() {
                    write!(f, ", memory {:.1}", median(&memory))?;
                }
                write!(f, " |")?;
            }
        }
        Ok(())
    }
}

struct Cell<'a>(&'a [Sample]);

impl fmt::Display for Cell<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = |value: fn(&Sample) -> f64| median(&sorted(self.0.iter().map(value)));
        write!(f, "{:.0}/s, {:.2} µs", of(|s| s.rate), of(|s| s.cpu_us))?;
        if self.0.iter().any(|s| s.bytes.is_some()) {
            write!(f, ", {:.0} bytes", of(|s| s.bytes.unwrap_or_default()))?;
        }
        Ok(())
    }
}

/// The ratio of each round, sorted.
fn ratios(mine: &[Sample], theirs: &[Sample], ratio: impl Fn(&Sample, &Sample) -> f64) -> Vec<f64> {
    sorted(mine.iter().zip(theirs).map(|(mine, theirs)| ratio(mine, theirs)))
}

fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values
}

fn median(sorted: &[f64]) -> f64 {
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

/// What everything was measured on.
fn machine() -> String {
    let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model =
        cpus.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("").trim_matches([' ', '\t', ':']);
    let count = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let system = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{model}, {count} processors shared by runner and generator, Linux {}", system.trim())
}
