//! What the daemon's async runtime says of itself, read when it is asked for.

use std::fmt;
use std::sync::OnceLock;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::gauge::ConstGauge;
use tokio::runtime::Handle;

use super::TABLE;

/// From now on the numbers of this runtime are scraped. The first call counts.
pub fn watch_runtime(handle: Handle) {
    // A later one would be of a runtime that helps, like that of the admin address.
    let _ = RUNTIME.set(handle);
}

/// Says nothing until there is a runtime.
#[derive(Debug)]
pub(super) struct RuntimeCollector;

impl Collector for RuntimeCollector {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let Some(handle) = RUNTIME.get() else { return Ok(()) };
        let metrics = handle.metrics();
        gauge(&mut encoder, "greenroom_runtime_workers", metrics.num_workers())?;
        gauge(&mut encoder, "greenroom_runtime_tasks", metrics.num_alive_tasks())?;
        gauge(&mut encoder, "greenroom_runtime_queued_tasks", metrics.global_queue_depth())
    }
}

fn gauge(encoder: &mut DescriptorEncoder, name: &str, value: usize) -> Result<(), fmt::Error> {
    let help = TABLE.iter().find(|row| row.name == name).map_or("", |row| row.help);
    let metric = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
    metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)
}

static RUNTIME: OnceLock<Handle> = OnceLock::new();
