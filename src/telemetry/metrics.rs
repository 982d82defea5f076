//! The numbers of this process, for Prometheus.
//!
//! One set for a runner ([`runner()`]) and one for a gateway ([`gateway()`]); both count for the whole process, whoever
//! starts how many of them. What counts is resolved once, so that counting is an addition to an atomic: no lock is
//! shared between actors. Labels are words of closed sets or names of configured actors, never ids: what the network
//! names counts as `other` unless it is configured here.

mod gateway;
mod histogram;
mod outward;
mod process;
mod runner;
mod runtime;
mod table;

use std::sync::LazyLock;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::{Metric, Registry};

pub use gateway::{GatewayMetrics, GatewayNumbers, Rejection};
pub use histogram::Seconds;
pub use outward::{EgressCall, EgressMetrics, SpanFate, Upload, UploadMetrics, count_spans};
pub use runner::{ActorMetrics, ChildExit, KvOperation, KvResult, Overrun, RunnerMetrics, Source, State};
pub use runtime::watch_runtime;
pub use table::{Description, Kind, TABLE, markdown};

/// The numbers of the runners in this process.
#[must_use]
pub fn runner() -> &'static RunnerMetrics {
    static METRICS: LazyLock<RunnerMetrics> = LazyLock::new(RunnerMetrics::default);
    &METRICS
}

/// The numbers of the gateways in this process.
#[must_use]
pub fn gateway() -> &'static GatewayMetrics {
    static METRICS: LazyLock<GatewayMetrics> = LazyLock::new(GatewayMetrics::default);
    &METRICS
}

/// What a scraper gets when it says in `Accept` that it reads OpenMetrics; everyone else gets the older text format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// The text format 0.0.4.
    Text,
}

impl Format {
    /// The format for this `Accept` header.
    #[must_use]
    pub fn accepted(accept: Option<&str>) -> Self {
        match accept {
            Some(accept) if accept.contains("application/openmetrics-text") => Format::OpenMetrics,
            Some(_) | None => Format::Text,
        }
    }

    /// Its content type.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Format::Text => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// Labels of a closed set.
type Words<const N: usize> = Family<[(&'static str, &'static str); N], Counter>;

/// Registers a metric of the [`TABLE`], with the text that stands there.
fn register(registry: &mut Registry, name: &'static str, metric: impl Metric) {
    let Some(row) = TABLE.iter().find(|row| row.name == name) else {
        debug_assert!(false, "{name} is not in the table");
        return;
    };
    registry.register(name.trim_end_matches("_total"), row.help, metric);
}

/// The counters of a family that has one label, in the order of the words.
fn counters<const N: usize>(family: &Words<1>, label: &'static str, words: [&'static str; N]) -> [Counter; N] {
    words.map(|word| family.get_or_create_owned(&[(label, word)]))
}

/// All metrics of a registry.
fn encode(registry: &Registry, format: Format) -> String {
    let mut text = String::with_capacity(16 * 1024);
    // Writing to a string cannot fail.
    let _ = prometheus_client::encoding::text::encode(&mut text, registry);
    match format {
        Format::OpenMetrics => text,
        Format::Text => older(&text),
    }
}

/// The older format names a counter's family like its samples, and has no end mark.
fn older(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 1024);
    let mut family = "";
    for line in text.lines().filter(|line| *line != "# EOF" && !line.starts_with("# UNIT ")) {
        let mut words = line.splitn(4, ' ');
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some("#"), Some("HELP"), Some(name), Some(help)) => {
                family = name;
                let suffix = if is_counter(name) { "_total" } else { "" };
                out.extend(["# HELP ", name, suffix, " ", help]);
            }
            (Some("#"), Some("TYPE"), Some(name), Some("counter")) if name == family => {
                out.extend(["# TYPE ", name, "_total counter"]);
            }
            _ => out.push_str(line),
        }
        out.push('\n');
    }
    out
}

fn is_counter(family: &str) -> bool {
    TABLE.iter().any(|row| row.name.strip_suffix("_total") == Some(family))
}

#[cfg(test)]
mod tests;
