//! What the system says of this process, read when it is asked for.

use std::fmt;
use std::fs;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use super::TABLE;

/// Reads `/proc` at each scrape; where there is none, it says nothing.
#[derive(Debug)]
pub(super) struct ProcessCollector;

impl Collector for ProcessCollector {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let Some(process) = Process::read() else { return Ok(()) };
        counter(&mut encoder, "process_cpu_seconds_total", process.cpu_seconds)?;
        gauge(&mut encoder, "process_resident_memory_bytes", process.resident_bytes)?;
        gauge(&mut encoder, "process_start_time_seconds", process.started)?;
        gauge(&mut encoder, "process_threads", process.threads)?;
        gauge(&mut encoder, "process_open_fds", process.open_fds)?;
        gauge(&mut encoder, "process_max_fds", process.max_fds)
    }
}

fn counter(encoder: &mut DescriptorEncoder, name: &str, value: f64) -> Result<(), fmt::Error> {
    let metric = ConstCounter::new(value);
    let family = name.trim_end_matches("_total");
    metric.encode(encoder.encode_descriptor(family, help(name), None, metric.metric_type())?)
}

fn gauge(encoder: &mut DescriptorEncoder, name: &str, value: f64) -> Result<(), fmt::Error> {
    let metric = ConstGauge::new(value);
    metric.encode(encoder.encode_descriptor(name, help(name), None, metric.metric_type())?)
}

fn help(name: &str) -> &'static str {
    TABLE.iter().find(|row| row.name == name).map_or("", |row| row.help)
}

#[derive(Debug)]
struct Process {
    cpu_seconds: f64,
    resident_bytes: f64,
    started: f64,
    threads: f64,
    open_fds: f64,
    max_fds: f64,
}

impl Process {
    #[expect(clippy::cast_precision_loss, reason = "a scraper reads floats; the numbers are far below 2^53")]
    fn read() -> Option<Self> {
        let stat = fs::read_to_string("/proc/self/stat").ok()?;
        // The name of the program, in parentheses, may contain anything; the third field follows it.
        let (_, rest) = stat.rsplit_once(") ")?;
        let fields: Vec<u64> = rest.split(' ').map(|field| field.trim().parse().unwrap_or(0)).collect();
        let field = |number: usize| fields.get(number - 3).copied().unwrap_or(0);
        let ticks = rustix::param::clock_ticks_per_second() as f64;
        let boot = fs::read_to_string("/proc/stat").ok()?;
        let boot = boot.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse::<u64>().ok())?;
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        Some(Process {
            cpu_seconds: (field(14) + field(15)) as f64 / ticks,
            resident_bytes: field(24) as f64 * rustix::param::page_size() as f64,
            started: boot as f64 + field(22) as f64 / ticks,
            threads: field(20) as f64,
            open_fds: fs::read_dir("/proc/self/fd").map_or(0, Iterator::count) as f64,
            max_fds: limit.map_or(f64::INFINITY, |limit| limit as f64),
        })
    }
}
